# amaranth: UnusedElaboratable=no
"""OrderPort, pins to pins: every frame in its exact cycle and byte for byte against a naive model of the port."""

import random
from itertools import pairwise

import pytest
from amaranth.back import verilog

from hdl.control.registers import TICK_LIMIT
from hdl.layout import net
from hdl.order import timing
from hdl.order.port import (
    FRAME_RX,
    FRAME_TX,
    KIND_MASS_CANCEL,
    KIND_QUOTE,
    SESSION_RX,
    SESSION_TX,
    OrderPort,
)
from hdl.order.statics import WAIT_CYCLES
from hdl.order.templates import CANCEL_SIZE, QUOTE_SIZE, STARBASE, STARBASE_HEADER
from sim.golden.session import Connection, tcp_frame
from tests.hdl.order.bench import (
    CONFIG,
    QUOTE,
    READY,
    TIME_ZERO,
    UP,
    cancel_message,
    check_frame,
    header_of,
    peer_segment,
    quote_message,
    run,
    signed64,
    with_fcs,
)
from tests.hdl.order.test_receive import classify

SEQ, ACK, APP = CONFIG["init_snd_nxt"], CONFIG["init_rcv_nxt"], CONFIG["init_app_seq"]


def eof_cycle(first_preamble, frame):
    """Cycle of RxBytes.eof of a frame (with FCS): 8 bytes of preamble, the bytes, input register, verdict."""
    return first_preamble + 8 + len(frame) + 2


def message(rng, size=None, kind="Heartbeat"):
    """A Starbase message as the host gives it: the fields that the fabric sets hold rubbish."""
    body = STARBASE[kind].encode({"correlationId": rng.getrandbits(62)}) if size is None else rng.randbytes(size - 32)
    header = STARBASE_HEADER.pack(protocolId=0xDB, flags=0, messageLength=32 + len(body),
                                  messageTypeId=STARBASE[kind].id, version=16, sequenceNumber=rng.getrandbits(62),
                                  lastProcessedSeqNo=rng.getrandbits(62), sendTimeNs=rng.getrandbits(62))
    return header + body


def patched(data, *, app_seq, start):
    fields = STARBASE_HEADER.unpack(data)
    fields.update(sequenceNumber=app_seq, lastProcessedSeqNo=signed64(CONFIG["last_processed"]),
                  sendTimeNs=TIME_ZERO + 8 * start)
    return STARBASE_HEADER.pack(**fields) + data[32:]


class Model:
    """The port as its documentation has it, one cycle at a time, with whole frames instead of bytes."""

    def __init__(self, script):
        self.script = script
        self.frames = []            # (start, what, seq, ack, payload or whole frame)
        self.to_host = []           # (kind, bytes)
        self.counts = {}
        self.up, self.nxt, self.una, self.rcv, self.app, self.window, self.window_seq = 0, 0, 0, 0, 0, 0, 0
        self.pending = self.since_up = 0
        self.epoch = 0              # hand-overs so far: what was sent before one does not count after it
        self.later = {}             # cycle -> [changes of state that stand from then on]

    def at(self, cycle, change):
        self.later.setdefault(cycle, []).append(change)

    def count(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1

    def enable(self):
        self.up, self.pending = 1, 0
        self.epoch += 1
        self.since_up = 0           # the connection is ours, and room is believed, only some cycles after a hand-over
        self.nxt = self.una = SEQ
        self.rcv, self.app, self.window, self.window_seq = ACK, APP, CONFIG["init_peer_window"], ACK

    def disable(self):
        self.up = self.pending = 0

    def owned(self):
        return self.up and self.since_up >= timing.SESSION_ENABLE_TO_OWNED

    def received(self, verdict, data, segment):
        """The frame is judged with the session as it is one cycle after the frame's end."""
        self.count("order_rx_frames")
        if verdict == "bad":
            self.count("order_rx_bad")
        elif verdict == "frame":
            self.slow(data)
        elif verdict == "segment" and self.owned():
            return self.segment(data, *segment)
        return lambda: None

    def slow(self, data):
        self.count("order_rx_slow")
        self.to_host.append((FRAME_RX, data))

    def segment(self, data, seq, ack, window, length, flags):
        def signed32(value):
            return (value + (1 << 31) & 0xFFFFFFFF) - (1 << 31)

        ahead, news, unsent = signed32(seq - self.rcv), signed32(ack - self.una), signed32(self.nxt - ack)
        fin, syn, rst, has_ack = (flags >> bit & 1 for bit in (0, 1, 2, 4))
        reaches = ahead + length
        bad_ack = unsent < 0 or news < -65536
        answer = accept = closes = False
        acks = not syn and not rst and has_ack and not bad_ack and news >= 0
        if syn or (rst and ahead) or (not rst and not has_ack):
            self.count("segments_refused")
            answer = syn or (rst and 0 < ahead < 65536)
        elif rst:
            closes = True
        elif bad_ack or ahead > 0:
            self.count("segments_out_of_order")
            answer = True
        elif fin and reaches >= 0:
            closes = True
        elif reaches <= 0 and (ahead or length):
            self.count("segments_duplicate")
            answer = True
        else:
            accept = answer = bool(length)
        if accept:
            self.count("segments_in_order")
            self.to_host.append((SESSION_RX, data[-ahead:]))
        if closes:
            self.slow(data)
            self.count("session_lost")

        def change():
            if accept:
                self.rcv = self.rcv + reaches & 0xFFFFFFFF
            if acks:
                self.una = ack
                if news or signed32(seq - self.window_seq) >= 0:
                    self.window, self.window_seq = window, seq
            self.pending |= bool(answer)
            if closes:
                self.disable()
        return change

    def run(self, cycles):
        script = self.script
        fires, hot_busy, hot_wants = script.get("fires", {}), script.get("hot_busy", ()), script.get("hot_wants", ())
        # Whose the frame is, is settled with its byte 48, one after the TCP flags, if the connection was ours from its
        # first byte on.
        begins = {start + 8 + 1: frame for start, frame in script.get("rx", ())}
        settled_at = {start + 8 + 1 + 48: (eof_cycle(start, frame) + 1, frame) for start, frame in script.get("rx", ())}
        ends = {}
        host = list(script.get("host", ()))
        waiting, next_start, fetch_from, available, held = [], 0, 0, None, None
        edges, sequence = [0] * 4, [0] * 4
        begun = {}
        for cycle in range(min(UP, 0), cycles):
            for change in self.later.pop(cycle, ()):
                change()
            self.since_up += 1
            edges = [*edges[1:], self.una + self.window & 0xFFFFFFFF]
            sequence = [*sequence[1:], self.nxt]
            credit = (edges[0] - sequence[1] + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
            settled = self.up and self.since_up >= timing.SESSION_ENABLE_TO_READY
            # The host's next packet.
            if available is None and held is None and host:
                first, kind, data = host.pop(0)
                held = (kind, data)
                available = max(first, fetch_from) + len(data) - 1 + timing.HOST_LAST_TO_AVAILABLE
            idle = cycle >= next_start
            ready = idle and settled and credit >= QUOTE_SIZE
            if cycle in fires:
                waiting.append(fires[cycle])
            fire = None
            if waiting and (waiting[0][0] != "ready" or ready):
                fire = waiting.pop(0)[-2:] if ready or waiting[0][0] != "ready" else None
            offered = held is not None and cycle >= available
            start = None
            if fire is not None and ready:
                kind, quote = fire
                make = quote_message if kind == KIND_QUOTE else cancel_message
                start = ("fire", make(quote, app_seq=self.app, start=cycle))
            elif idle and fire is None and cycle not in hot_busy and not (ready and cycle in hot_wants):
                if self.pending:
                    start = ("ack", b"")
                elif offered and held[0] == FRAME_TX:
                    start = ("frame", held[1])
                elif offered and self.up and settled and credit >= len(held[1]):
                    start = ("session", patched(held[1], app_seq=self.app, start=cycle))
            if offered and held[0] == SESSION_TX and not self.up:
                self.count("session_tx_refused")
                held, available, fetch_from = None, None, cycle + 1
            if start is not None:
                what, data = start
                self.frames.append((cycle, what, self.nxt, self.rcv, data))
                size = len(data) if what == "frame" else 54 + len(data)
                next_start = cycle + timing.busy_cycles(size)
                if what != "frame":
                    self.pending = 0
                if what in ("fire", "session"):
                    self.at(cycle + timing.SENT_AFTER_START, lambda n=len(data), e=self.epoch: self.advance(n, e))
                if what in ("frame", "session"):
                    held, available, fetch_from = None, None, cycle + timing.HOST_RELEASE + size
            if cycle in begins:
                begun[begins[cycle]] = self.owned()
            if cycle in settled_at:
                end, frame = settled_at[cycle]
                ends[end] = classify(frame, True, self.owned() and begun[frame])
            if cycle in ends:
                self.at(cycle + 1, self.received(*ends[cycle]))
            if cycle in script.get("disable", ()):
                self.at(cycle + 1, self.disable)
            if cycle in script.get("enable", (UP,)):
                self.at(cycle + 1, self.enable)

    def advance(self, n, epoch):
        if epoch != self.epoch:
            return
        self.nxt = self.nxt + n & 0xFFFFFFFF
        self.app += 1


def compare(cycles, **script):
    """Run port and model on one script and hold everything against each other; returns (log, model)."""
    model = Model(script)
    model.run(cycles)
    log = run(cycles, **script)
    assert log.starts() == [start for start, *_ in model.frames]
    for (_, frame), (start, what, seq, ack, data) in zip(log.frames, model.frames, strict=True):
        if what == "frame":
            assert frame == with_fcs(data), f"frame started in {start}"
        else:
            payload = check_frame(frame, seq=seq, ack=ack, payload_size=len(data),
                                  flags="A" if what == "ack" else "PA")
            assert payload == data, f"{what} started in {start}"
    assert [(kind, data) for _, kind, data in log.to_host] == model.to_host
    for name in ("order_rx_frames", "order_rx_bad", "order_rx_slow", "segments_in_order", "segments_duplicate",
                 "segments_out_of_order", "segments_refused", "session_lost", "session_tx_refused"):
        assert log.count(name) == model.counts.get(name, 0), name
    kinds = [what for _, what, *_ in model.frames]
    assert log.count("acks_sent") == kinds.count("ack")
    assert log.count("order_tx_frames") == len(kinds)
    assert log.count("session_sent") == kinds.count("session")
    assert (log.final["snd_nxt"], log.final["snd_una"], log.final["rcv_nxt"], log.final["app_seq"],
            log.final["session_up"]) == (model.nxt, model.una, model.rcv, model.app, model.up)
    # Every byte of the stream has passed the one point, once, with its number.
    assert log.sent == [(seq + n & 0xFFFFFFFF, byte) for _, what, seq, _, data in model.frames
                        if what in ("fire", "session") for n, byte in enumerate(data)]
    return log, model


def test_verilog():
    text = verilog.convert(OrderPort())
    assert "latch" not in text


def test_constants():
    assert (timing.QUOTE_FRAME, timing.CANCEL_FRAME) == (169, 103)
    assert timing.busy_cycles(timing.QUOTE_FRAME) == 8 + 169 + 4 + 12
    assert timing.busy_cycles(54) == 8 + 60 + 4 + 12


def test_fire_to_preamble_is_one_cycle():
    for cycle in (READY, READY + 1, READY + 50):
        log, _ = compare(cycle + 220, fires={cycle: (KIND_QUOTE, QUOTE)})
        assert [first for first, _ in log.frames] == [cycle + 1]


def test_back_to_back_at_the_first_ready_cycle():
    fires = {READY: (KIND_QUOTE, QUOTE)}
    for n in range(5):
        fires[READY + 1 + n] = ("ready", (KIND_MASS_CANCEL, KIND_QUOTE)[n % 2], {**QUOTE, "quote_id": n})
    log, _ = compare(1300, fires=fires)
    quote, cancel = timing.busy_cycles(169), timing.busy_cycles(103)
    assert [b - a for a, b in pairwise(log.starts())] == [
        quote, cancel, quote, cancel, quote]
    # The gap on the wire is the least that Ethernet allows.
    (first, frame), (second, _) = log.frames[:2]
    assert second - (first + 8 + len(frame)) == 12


@pytest.mark.parametrize("seed", range(2))
def test_random_quotes(seed):
    print(f"seed {seed}")
    rng = random.Random(f"quotes {seed}")
    fires, cycle = {}, READY
    config = {**CONFIG, "mmp_group": rng.getrandbits(64), "smp_id": rng.getrandbits(64),
              "quote_flags": rng.getrandbits(8), "order_flags": rng.getrandbits(16)}
    corner = [0, 1, -1, TICK_LIMIT - 1, -TICK_LIMIT, 0x10000, -0x10000]
    quotes = []
    for n in range(12):
        ticks = [rng.choice([*corner, rng.randrange(-TICK_LIMIT, TICK_LIMIT)]) for _ in range(2)]
        lots = [rng.choice((0, 1, (1 << 24) - 1, rng.getrandbits(24))) for _ in range(2)]
        quotes.append({
            "bid_ticks": ticks[0], "ask_ticks": ticks[1], "bid_lots": lots[0], "ask_lots": lots[1],
            "tick_e9": rng.choice((1, (1 << 32) - 1, rng.getrandbits(31), rng.getrandbits(40))),
            "lot_mult": rng.choice((1, (1 << 32) - 1, rng.getrandbits(32))), "lot_exp": rng.randint(-128, 127),
            "instrument_id": rng.getrandbits(64), "quote_id": rng.getrandbits(64)})
        fires[cycle + n] = ("ready", KIND_QUOTE, quotes[-1])
    log = run(12 * timing.busy_cycles(169) + 60, fires=fires,
              config={name: config[name] for name in ("mmp_group", "smp_id", "quote_flags", "order_flags")})
    assert len(log.frames) == len(quotes)
    for n, ((first, frame), quote) in enumerate(zip(log.frames, quotes, strict=True)):
        payload = check_frame(frame, seq=SEQ + n * QUOTE_SIZE, ack=ACK, payload_size=QUOTE_SIZE)
        assert payload == quote_message(quote, app_seq=APP + n, start=first - 1, config=config), quote
    # And once through the decoder: what the venue reads.
    message_ = STARBASE["MassQuoteRequest"]
    decoded = message_.decode(payload[32:])
    entry = decoded["quotes"][0]
    for side in ("bid", "ask"):
        lots = quote[f"{side}_lots"]
        price = quote[f"{side}_ticks"] * quote["tick_e9"]
        assert entry[f"{side}Price"] == (signed64(price) if lots else None)
        assert entry[f"{side}Qty.mantissa"] == lots * quote["lot_mult"]


def test_one_sided_and_pulled_quotes():
    fires = {READY + n: ("ready", KIND_QUOTE, {**QUOTE, **sides}) for n, sides in enumerate((
        {"bid_lots": 0}, {"ask_lots": 0}, {"bid_lots": 0, "ask_lots": 0}))}
    log, _ = compare(700, fires=fires)
    prices = []
    for _, frame in log.frames:
        [entry] = STARBASE["MassQuoteRequest"].decode(frame[54 + 32:-4])["quotes"]
        prices.append((entry["bidPrice"], entry["askPrice"], entry["bidQty.mantissa"], entry["askQty.mantissa"]))
    bid, ask = QUOTE["bid_ticks"] * QUOTE["tick_e9"], QUOTE["ask_ticks"] * QUOTE["tick_e9"]
    assert prices == [(None, ask, 0, 25_000), (bid, None, 10_000, 0), (None, None, 0, 0)]


def test_not_ready_without_session():
    log, _ = compare(60, enable=(), fires={10: (KIND_QUOTE, QUOTE)})
    assert not any(log.ready)
    assert not log.frames


def test_session_enable_to_ready():
    up = 11 + timing.SESSION_ENABLE_TO_READY
    log, _ = compare(up + 40, enable=(11,), disable=(up + 10,))
    assert log.ready.index(True) == up
    assert log.ready[up:up + 11] == [True] * 11
    assert log.ready[up + 11:] == [False] * 29
    assert (11 + timing.SESSION_ENABLE_TO_UP, "session_up", 1) in log.states


def test_ack_delay():
    """From the end of an accepted segment to the acknowledgement: a documented number of cycles, for any length."""
    for size in (1, 6, 7, 100):
        frame = peer_segment(payload=bytes(size))
        log, _ = compare(420, rx=[(10, frame)])
        [(preamble, _)] = log.frames
        assert preamble == eof_cycle(10, frame) + timing.RX_EOF_TO_ACK_START + timing.PREAMBLE_AFTER_START
        assert (eof_cycle(10, frame) + timing.RX_EOF_TO_STATE, "rcv_nxt", ACK + size & 0xFFFFFFFF) in log.states


def test_quote_carries_the_acknowledgement():
    """A fire in the very cycle in which the acknowledgement may start goes first and makes it needless."""
    frame = peer_segment(payload=b"hello")
    start = eof_cycle(10, frame) + timing.RX_EOF_TO_ACK_START
    log, _ = compare(400, rx=[(10, frame)], fires={start: (KIND_QUOTE, QUOTE)})
    assert log.starts() == [start]
    assert log.count("acks_sent") == 0
    # One cycle earlier the frame still has the old number, so an acknowledgement follows.
    log, model = compare(500, rx=[(10, frame)], fires={start - 1: (KIND_QUOTE, QUOTE)})
    assert [what for _, what, *_ in model.frames] == ["fire", "ack"]
    assert log.starts() == [start - 1, start - 1 + timing.busy_cycles(169)]


@pytest.mark.parametrize("other", ["ack", "session", "frame", "everything"])
def test_races_with_fire(other):
    """A fire at every offset from what else could start: it waits for a frame under way and for nothing else."""
    rng = random.Random(f"races {other}")
    busy = timing.busy_cycles(0)
    spacing = 800 if other == "everything" else 400
    rx, host, fires, seq = [], [], {}, ACK
    for n, offset in enumerate((*range(-2, 4), busy // 2, *range(busy - 1, busy + 2))):
        at = 10 + n * spacing
        segment = peer_segment(seq, payload=b"hello!!")
        # Each of these is ready to start in cycle `begin`, nothing being in its way.
        begin = eof_cycle(at, segment) + timing.RX_EOF_TO_ACK_START
        if other in ("ack", "everything"):
            rx.append((at, segment))
            seq += 7
        for kind, data in {"session": [(SESSION_TX, message(rng, 33))], "frame": [(FRAME_TX, rng.randbytes(59))],
                           "everything": [(FRAME_TX, rng.randbytes(70)), (SESSION_TX, message(rng)),
                                          (FRAME_TX, rng.randbytes(14))]}.get(other, []):
            host.append((begin - timing.HOST_LAST_TO_AVAILABLE - len(data) + 1, kind, data))
        fires[begin + offset] = ("ready", KIND_QUOTE, {**QUOTE, "quote_id": n})
    _, model = compare(10 + (n + 1) * spacing + 100, rx=rx, host=host, fires=fires)
    order = [what for _, what, *_ in model.frames]
    first = {"everything": "ack"}.get(other, other)
    assert (first, "fire") in pairwise(order)
    # Fired no later than the other could start, a quote goes first.
    assert order[0] == "fire"
    assert ("fire", first) in pairwise(order)


def test_hot_busy_holds_everything_but_fire():
    rng = random.Random(3)
    frame = peer_segment(payload=b"hello!!")
    start = eof_cycle(10, frame) + timing.RX_EOF_TO_ACK_START
    for busy_until in range(start, start + 3):
        log, model = compare(300, rx=[(10, frame)], host=[(10, FRAME_TX, rng.randbytes(60))],
                             hot_busy=set(range(10, busy_until)))
        assert log.starts()[0] == busy_until
        assert [what for _, what, *_ in model.frames] == ["ack", "frame"]
    log, _ = compare(300, rx=[(10, frame)], hot_busy=set(range(300)), fires={start + 20: (KIND_MASS_CANCEL, QUOTE)})
    assert log.starts() == [start + 20]


def test_hot_wants_holds_others_only_where_it_could_start():
    """Not while the peer's window has no room for a quote: the acknowledgement that may open it must leave."""
    frame = peer_segment(payload=b"hello!!")
    start = eof_cycle(10, frame) + timing.RX_EOF_TO_ACK_START
    log, _ = compare(300, rx=[(10, frame)], hot_wants=set(range(start + 7)))
    assert log.starts() == [start + 7]
    narrow = peer_segment(payload=b"hello!!", window=QUOTE_SIZE - 1)
    log, _ = compare(300, rx=[(10, narrow)], hot_wants=set(range(300)))
    assert log.starts() == [start + 3]      # as soon as it is seen that there is none


def test_host_packets():
    """Frames unchanged, messages with header set and right checksum, at odd and even lengths, in order."""
    rng = random.Random(7)
    host = []
    for size in (14, 59, 60, 61, 200):
        host.append((10, FRAME_TX, rng.randbytes(size)))
    for size in (32, 33, 34, 47, 128):
        host.append((10, SESSION_TX, message(rng, size)))
    host.append((10, SESSION_TX, message(rng)))
    log, model = compare(3600, host=host)
    assert [what for _, what, *_ in model.frames] == ["frame"] * 5 + ["session"] * 6
    assert [value for _, name, value in log.strobes if name == "session_sent"] == [APP + n for n in range(6)]
    taken = [cycle for cycle, name, _ in log.strobes if name == "host_tx_taken"]
    offered = [(cycle, kind) for cycle, name, kind in log.strobes if name == "dbg_host_tx_valid"]
    assert offered == [(cycle + timing.HOST_LAST_TO_AVAILABLE, kind)
                       for cycle, (_, kind, _) in zip(taken, host, strict=True)]
    assert log.starts()[0] == offered[0][0]     # the port was idle: it starts in the cycle of the strobe


def test_longest_host_packets():
    rng = random.Random(8)
    compare(6800, host=[(10, SESSION_TX, message(rng, 1460)), (11, FRAME_TX, rng.randbytes(1518))])


def test_impossible_host_packets():
    rng = random.Random(9)
    host = [(10, FRAME_TX, rng.randbytes(13)), (10, SESSION_TX, rng.randbytes(31)), (10, FRAME_TX, rng.randbytes(1519)),
            (10, SESSION_TX, rng.randbytes(1461)), (10, FRAME_TX, rng.randbytes(2100)), (10, SESSION_TX, message(rng))]
    log = run(5700, host=host)
    assert len(log.frames) == 1
    assert check_frame(log.frames[0][1], seq=SEQ, ack=ACK, payload_size=40) == patched(
        host[-1][2], app_seq=APP, start=log.starts()[0])
    assert log.count("session_tx_refused") == 2
    assert log.count("dbg_host_tx_valid") == 1


def test_message_without_session_is_refused():
    rng = random.Random(10)
    host = [(10, SESSION_TX, message(rng)), (10, FRAME_TX, rng.randbytes(60)), (10, SESSION_TX, message(rng, 50))]
    log, model = compare(500, enable=(), host=host)
    assert [what for _, what, *_ in model.frames] == ["frame"]
    assert log.count("session_tx_refused") == 2


def test_peer_window():
    """No room, no quote; an acknowledgement makes room after a documented number of cycles."""
    window = 2 * QUOTE_SIZE + 5
    opener = peer_segment(ack=SEQ + QUOTE_SIZE, flags="A", window=2 * QUOTE_SIZE)
    closer = peer_segment(ack=SEQ + QUOTE_SIZE, flags="A", window=QUOTE_SIZE)
    old = peer_segment(ack=SEQ - 1, flags="A", window=60000)
    script = {
        "config": {"init_peer_window": window},
        "fires": {READY + n: ("ready", KIND_QUOTE, QUOTE) for n in range(3)},
        "rx": [(500, closer), (600, old), (700, opener)],
    }
    CONFIG_WINDOW, CONFIG["init_peer_window"] = CONFIG["init_peer_window"], window
    try:
        log, _ = compare(1000, **script)
    finally:
        CONFIG["init_peer_window"] = CONFIG_WINDOW
    assert len(log.frames) == 3
    assert log.starts()[2] == eof_cycle(700, opener) + timing.RX_EOF_TO_ROOM


def test_message_waits_for_the_window():
    rng = random.Random(12)
    data = message(rng, 90)
    exact = peer_segment(flags="A", window=90)
    short = peer_segment(flags="A", window=89)
    log, _ = compare(900, rx=[(10, short), (300, exact)], host=[(150, SESSION_TX, data)])
    assert log.starts() == [eof_cycle(300, exact) + timing.RX_EOF_TO_ROOM]


def test_receive_in_order_duplicate_out_of_order():
    rng = random.Random(13)
    a, b, c = (rng.randbytes(n) for n in (40, 11, 7))
    rx, cycle = [], 10
    for seq, data in ((ACK, a), (ACK, a), (ACK + 51, c), (ACK + 37, a[-3:] + b), (ACK + 39, b"overlap"), (ACK + 51, c),
                      (ACK + 57, b""), (ACK + 58, b""), (ACK + 59, b"")):
        frame = peer_segment(seq, payload=data)
        rx.append((cycle, frame))
        cycle += 8 + len(frame) + 12
    log, _ = compare(cycle + 300, rx=rx)
    assert b"".join(data for _, _, data in log.to_host) == a + b + c
    assert (log.count("segments_in_order"), log.count("segments_duplicate"), log.count("segments_out_of_order")) == (
        3, 3, 2)


def test_acknowledgement_of_what_was_not_sent():
    rx = [(10, peer_segment(ack=SEQ + 1, payload=b"never")), (200, peer_segment(ack=SEQ, payload=b"fine"))]
    log, _ = compare(500, rx=rx)
    assert [data for _, _, data in log.to_host] == [b"fine"]
    assert log.count("segments_out_of_order") == 1
    assert log.final["snd_una"] == SEQ


@pytest.mark.parametrize("flags", ["FA", "FPA", "R", "RA"])
def test_the_peer_ends_the_session(flags):
    frame = peer_segment(payload=b"bye", flags=flags)
    after = peer_segment(payload=b"more")
    rng = random.Random(14)
    log, _ = compare(700, rx=[(10, frame), (200, after)],
                     fires={READY: (KIND_QUOTE, QUOTE), 400: (KIND_QUOTE, QUOTE)},
                     host=[(200, SESSION_TX, message(rng))])
    assert log.strobe("session_lost") == [eof_cycle(10, frame) + 1]
    assert (eof_cycle(10, frame) + timing.RX_EOF_TO_STATE, "session_up", 0) in log.states
    assert len(log.frames) == 1     # the quote under way was finished, nothing came after it
    assert [kind for _, kind, _ in log.to_host] == [FRAME_RX, FRAME_RX]
    assert not any(log.ready[eof_cycle(10, frame) + timing.RX_EOF_TO_STATE:])


def test_what_does_not_end_the_session():
    """SYN, and RST or FIN where nothing ends yet: a challenge acknowledgement at most."""
    answered = [peer_segment(flags="S"), peer_segment(flags="SA", payload=b"x"), peer_segment(ACK + 1, flags="R"),
                peer_segment(ACK + 65535, flags="RA"), peer_segment(ACK + 1, flags="FA"),
                peer_segment(ACK - 5, flags="FA", payload=b"old"), peer_segment(ack=SEQ + 1, flags="FA")]
    ignored = [peer_segment(ACK - 1, flags="R"), peer_segment(ACK + 65536, flags="R"), peer_segment(flags="P")]
    frames = [*answered, *ignored]
    log, _ = compare(300 + 120 * len(frames), rx=[(10 + 120 * n, frame) for n, frame in enumerate(frames)])
    assert log.count("segments_refused") == 7
    assert log.count("acks_sent") == len(log.frames) == len(answered)
    assert not log.to_host
    assert log.final["session_up"] == 1


def test_an_acknowledgement_from_long_ago_is_none():
    """64 KiB and more before what is acknowledged, nobody can have seen it (RFC 5961, 5)."""
    rx = [(10, peer_segment(ack=SEQ - 65537, payload=b"never")), (200, peer_segment(ack=SEQ - 65536, payload=b"fine"))]
    log, _ = compare(500, rx=rx)
    assert [data for _, _, data in log.to_host] == [b"fine"]
    assert log.count("acks_sent") == 2


def test_an_older_segment_does_not_set_the_window():
    """It comes late: with what it says of the window it would close it again."""
    small = QUOTE_SIZE - 1
    rx = [(10, peer_segment(payload=b"newer")), (130, peer_segment(ACK - 1, payload=b"", window=small)),
          (250, peer_segment(ACK + 5, window=small)), (400, peer_segment(ACK - 1))]
    log, _ = compare(600, rx=rx)
    assert all(log.ready[305:320])
    assert not any(log.ready[450:])


def test_preamble_errors_are_counted():
    frame = peer_segment(payload=b"x")
    log = run(300, rx=[(10, frame)])
    assert (log.count("order_rx_frames"), log.count("order_rx_bad")) == (1, 0)
    spoilt = bytes([*frame[:20], frame[20] ^ 1, *frame[21:]])
    log = run(300, rx=[(10, spoilt)])
    assert (log.count("order_rx_frames"), log.count("order_rx_bad")) == (1, 1)
    assert not log.to_host


def test_full_buffer_drops_unacknowledged():
    rng = random.Random(15)
    first, second = rng.randbytes(100), rng.randbytes(60)
    a, b = peer_segment(payload=first), peer_segment(ACK + 100, payload=second)
    again = peer_segment(ACK + 100, payload=second)
    log = run(900, rx=[(10, a), (200, b), (500, again)], rx_depth=128, host_ready=lambda cycle: cycle > 400)
    assert [data for _, _, data in log.to_host] == [first, second]
    assert log.count("order_rx_dropped") == 1
    assert log.count("segments_in_order") == 2
    acks = [(cycle, frame[42:46]) for cycle, frame in log.frames]
    assert [int.from_bytes(raw, "big") for _, raw in acks] == [ACK + 100 & 0xFFFFFFFF, ACK + 160 & 0xFFFFFFFF]


@pytest.mark.parametrize("seed", range(2))
def test_soak(seed):
    """All at once, at random: fires, segments good and bad, host packets, busy cycles, hand-overs."""
    print(f"seed {seed}")
    rng = random.Random(f"soak {seed}")
    cycles = 5000
    rx, cycle, seq = [], 12, ACK
    while cycle < cycles - 1000:
        size = rng.choice((0, 0, rng.randint(1, 20), rng.randint(1, 200)))
        wrong = rng.choice((0, 0, 0, 0, -size, 3))
        sent = rng.choice((0, 0, QUOTE_SIZE, QUOTE_SIZE + CANCEL_SIZE, 5000))
        frame = peer_segment(seq + wrong, SEQ + sent, rng.randbytes(size), rng.choice(("A", "PA", "PA", "PA", "SA")),
                             rng.choice((60000, 60000, 800)))
        if rng.random() < 0.1:
            frame = bytes([*frame[:30], frame[30] ^ 4, *frame[31:]])
            frame = with_fcs(frame[:-4])
        rx.append((cycle, frame))
        if wrong == 0 and rng.random() < 0.8:
            seq += size
        cycle += 8 + len(frame) + 12 + rng.choice((0, 1, rng.randint(0, 150)))
    host, at = [], 20
    while at < cycles - 2000:
        kind = rng.randint(0, 1)
        data = message(rng, rng.randint(32, 90)) if kind else rng.randbytes(rng.randint(14, 90))
        host.append((at, kind, data))
        at += rng.choice((0, 30, 300, 600))
    fires = {rng.randint(READY, cycles - 1500): (
        "ready", rng.choice((KIND_QUOTE, KIND_QUOTE, KIND_MASS_CANCEL)),
        {**QUOTE, "bid_ticks": rng.randint(-100, 100), "quote_id": rng.getrandbits(64)}) for _ in range(8)}
    hot_busy = set()
    for _ in range(30):
        begin = rng.randint(0, cycles - 500)
        hot_busy |= set(range(begin, begin + rng.choice((1, 2, 6, 40))))
    again = rng.randint(1500, 3000)
    _, model = compare(cycles, rx=rx, host=host, fires=fires, hot_busy=hot_busy, disable=(again,),
                       enable=(UP, again + rng.randint(1, 400)))
    assert {"fire", "ack", "session", "frame"} == {what for _, what, *_ in model.frames}


def test_header_bytes_by_hand():
    """One message written out here, so that layout codec and hardware cannot be wrong together unseen."""
    log, _ = compare(200, fires={READY: (KIND_MASS_CANCEL, QUOTE)})
    payload = log.frames[0][1][54:-4]
    expected = (b"\xdb\x00" + (49).to_bytes(2, "little") + (145).to_bytes(2, "little") + (16).to_bytes(2, "little")
                + APP.to_bytes(8, "little") + CONFIG["last_processed"].to_bytes(8, "little")
                + (TIME_ZERO + 8 * READY).to_bytes(8, "little") + QUOTE["quote_id"].to_bytes(8, "little")
                + CONFIG["mmp_group"].to_bytes(8, "little") + b"\x00")
    assert payload == expected == header_of(STARBASE["MassQuoteCancelRequest"], 49, app_seq=APP, start=READY) + \
        expected[32:]


@pytest.mark.parametrize("offset", range(-3, 3))
def test_hand_over_of_a_session_that_is_up(offset):
    """What starts before the new numbers stand has the old ones and leaves the new ones alone."""
    compare(900, fires={30 + offset: ("ready", KIND_QUOTE, QUOTE), 40: ("ready", KIND_QUOTE, QUOTE)}, enable=(UP, 30))


WIDTHS = {"local_mac": 48, "peer_mac": 48, "local_ip": 32, "peer_ip": 32, "local_port": 16, "peer_port": 16,
          "window": 16, "mmp_group": 64, "smp_id": 64, "quote_flags": 8, "order_flags": 16}
#: Every byte of it is another one.
OTHER = {name: CONFIG[name] ^ (1 << width) - 1 for name, width in WIDTHS.items()} | {
    "init_snd_nxt": 0x0123_4567, "init_rcv_nxt": 0x89AB_CDEF, "init_peer_window": 40000,
    "init_app_seq": 0x7654_3210_FEDC}
TO_WRITE = 4 * 32   # cycles in which all of them can be written


def message_frame(config, message_, *, seq, ack):
    """A message in its frame as the golden model has it, padded and with FCS."""
    connection = Connection(**{name: config[name] for name in Connection.__dataclass_fields__})
    return with_fcs(tcp_frame(connection, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, config["window"],
                              net.TCP_PSH | net.TCP_ACK, message_))


def from_peer(config, payload):
    """A segment of the peer, with the first number that is expected."""
    there = {"local": "peer", "peer": "local"}
    connection = Connection(**{name: config[f"{there[side]}_{what}"] for name in Connection.__dataclass_fields__
                               for side, what in [name.split("_")]})
    return with_fcs(tcp_frame(connection, config["init_rcv_nxt"], config["init_snd_nxt"], 50000,
                              net.TCP_PSH | net.TCP_ACK, payload))


def hot_frames(log, config, fires, app_seq, seq, ack):
    """Whether the frames that started with these (cycle, kind, quote) are as they have to be, one after the other."""
    frames = dict(log.frames)
    for cycle, kind, quote in fires:
        make = quote_message if kind == KIND_QUOTE else cancel_message
        data = make(quote, app_seq=app_seq, start=cycle, config={**CONFIG, **config})
        assert frames[cycle + 1] == message_frame(config, data, seq=seq, ack=ack), f"frame started in {cycle}"
        app_seq, seq = app_seq + 1, seq + len(data)


def test_nothing_of_the_session_before_the_hand_over_is_complete():
    """Quotes, messages and segments come in every part of it; the first quote leaves in the first legal cycle."""
    rng = random.Random(16)
    up = 20 + timing.SESSION_ENABLE_TO_READY
    segment = peer_segment(payload=b"too early")
    spacing = 8 + len(segment) + 12
    rx = [(cycle, segment) for cycle in range(0, up, spacing)]
    fires = dict.fromkeys(range(15, up, 7), (KIND_QUOTE, QUOTE)) | {up - 1: ("ready", KIND_QUOTE, QUOTE)}
    log, model = compare(up + 600, enable=(20,), rx=rx, fires=fires,
                         host=[(25, SESSION_TX, message(rng)), (25, FRAME_TX, rng.randbytes(60))])
    assert model.frames[0][:2] == (up, "fire")
    assert log.starts()[0] == up
    early = [data for kind, data in model.to_host if kind == FRAME_RX]
    owned = 20 + timing.SESSION_ENABLE_TO_OWNED
    assert len(early) == sum(cycle + 9 < owned for cycle, _ in rx) > 3
    # A segment whose first byte comes in the first cycle that counts is one of the session; a cycle sooner it is none.
    for sooner in (0, 1):
        log, model = compare(up + 400, enable=(20,), rx=[(owned - 9 - sooner, segment)])
        assert [kind for kind, _ in model.to_host] == [FRAME_RX if sooner else SESSION_RX]


@pytest.mark.parametrize("back", [True, False])
def test_another_session_has_nothing_of_the_one_before(back):
    """Every static byte is another one, whether or not the connection was given back in between."""
    again = 500 + TO_WRITE
    ready = again + timing.SESSION_ENABLE_TO_READY
    fires = [(READY, KIND_QUOTE), (READY + 200, KIND_MASS_CANCEL), (ready, KIND_QUOTE), (ready + 200, KIND_MASS_CANCEL)]
    log = run(ready + 400, fires={cycle: (kind, QUOTE) for cycle, kind in fires}, writes={500: OTHER},
              disable=(490,) if back else (), enable=(UP, again))
    assert log.starts() == [cycle for cycle, _ in fires]
    hot_frames(log, CONFIG, [(*fire, QUOTE) for fire in fires[:2]], APP, SEQ, ACK)
    hot_frames(log, OTHER, [(*fire, QUOTE) for fire in fires[2:]], OTHER["init_app_seq"], OTHER["init_snd_nxt"],
               OTHER["init_rcv_nxt"])
    old, new = log.frames[0][1], log.frames[2][1]
    static = [*range(12), *range(26, 38), 48, 49, *range(54 + 48, 54 + 65)]
    assert all(old[n] != new[n] for n in static)


def test_another_session_receives_nothing_of_the_one_before():
    """After a hand-over one byte of the old one is enough for the slow path, or for nobody if the address is wrong."""
    looked_at = {"local_mac": 6, "peer_ip": 4, "local_ip": 4, "peer_port": 2, "local_port": 2}
    spoilt = []
    for name, size in looked_at.items():
        for n in range(size):
            mask = 0xFF << 8 * n
            spoilt.append((name, {**OTHER, name: OTHER[name] & ~mask | CONFIG[name] & mask}))
    again = 10 + TO_WRITE
    cycle = again + timing.SESSION_ENABLE_TO_READY
    rx = []
    for config in [{**CONFIG, **OTHER}, *(config for _, config in spoilt), {**CONFIG}]:
        frame = from_peer(config, b"hello")
        rx.append((cycle, frame))
        cycle += 8 + len(frame) + 12
    log = run(cycle + 300, writes={10: OTHER}, enable=(UP, again), rx=rx)
    assert [(kind, data) for _, kind, data in log.to_host] == [
        (SESSION_RX, b"hello"), *((FRAME_RX, frame[:-4]) for (name, _), (_, frame) in zip(spoilt, rx[1:], strict=False)
                                  if name != "local_mac")]
    assert log.count("order_rx_frames") == len(rx)


def test_registers_written_while_the_session_is_up_change_nothing_before_the_next_hand_over():
    again = 900
    ready = again + timing.SESSION_ENABLE_TO_READY
    fires = [(200, KIND_QUOTE), (400, KIND_MASS_CANCEL), (ready, KIND_QUOTE)]
    rx = [(600, from_peer(CONFIG, b"old")), (700, from_peer(OTHER, b"new")), (ready + 50, from_peer(OTHER, b"new"))]
    log = run(ready + 400, fires={cycle: (kind, QUOTE) for cycle, kind in fires}, writes={10: OTHER},
              enable=(UP, again), rx=rx)
    hot_frames(log, CONFIG, [(*fire, QUOTE) for fire in fires[:2]], APP, SEQ, ACK)
    hot_frames(log, OTHER, [(*fires[2], QUOTE)], OTHER["init_app_seq"], OTHER["init_snd_nxt"], OTHER["init_rcv_nxt"])
    assert [(kind, data) for _, kind, data in log.to_host] == [(SESSION_RX, b"old"), (SESSION_RX, b"new")]


@pytest.mark.parametrize("offset", [-170, -60, -50, -40, -20, -1, 0])
def test_the_frame_under_way_at_a_hand_over_is_of_the_old_session(offset):
    start, again = 400, 400 - offset
    log = run(again + 700, fires={start: (KIND_QUOTE, QUOTE)}, writes={10: OTHER}, enable=(UP, again))
    hot_frames(log, CONFIG, [(start, KIND_QUOTE, QUOTE)], APP, SEQ, ACK)
    assert (log.final["snd_nxt"], log.final["app_seq"]) == (OTHER["init_snd_nxt"], OTHER["init_app_seq"])


def test_host_frames_leave_during_a_hand_over():
    """They are none of the session's, and neither wait for it nor spoil it."""
    rng = random.Random(17)
    again, frames = 300, [rng.randbytes(60) for _ in range(3)]
    ready = again + timing.SESSION_ENABLE_TO_READY
    log = run(ready + 300, writes={10: OTHER}, enable=(UP, again), fires={ready + 1: ("ready", KIND_QUOTE, QUOTE)},
              host=[(again - 60, FRAME_TX, data) for data in frames])
    *others, (first, _) = log.frames
    assert [frame for _, frame in others] == [with_fcs(data) for data in frames]
    assert sum(again + WAIT_CYCLES < cycle < ready - 30 for cycle, _ in others) > 1
    hot_frames(log, OTHER, [(first - 1, KIND_QUOTE, QUOTE)], OTHER["init_app_seq"], OTHER["init_snd_nxt"],
               OTHER["init_rcv_nxt"])


def test_own_address_counts_for_the_slow_path_without_a_session():
    """A new one from the copy on, which the write begins; while the session is up, from the next hand-over on."""
    def to(mac):
        return from_peer({**CONFIG, "local_mac": mac}, b"hello")

    other = {"local_mac": OTHER["local_mac"]}
    old, new = to(CONFIG["local_mac"]), to(OTHER["local_mac"])
    done = 10 + 8 + timing.SESSION_ENABLE_TO_OWNED
    log = run(done + 400, writes={10: other}, enable=(), rx=[(done, old), (done + 150, new)])
    assert [data for _, _, data in log.to_host] == [new[:-4]]
    assert (log.final["snd_nxt"], log.final["app_seq"], log.final["session_up"]) == (0, 0, 0)
    log = run(done + 400, writes={10: other}, rx=[(done, old), (done + 150, new)])
    assert [(kind, data) for _, kind, data in log.to_host] == [(SESSION_RX, b"hello")]
    # Numbers of the session before stay as they are.
    log = run(done + 400, writes={50: OTHER}, disable=(10,))
    assert (log.final["snd_nxt"], log.final["rcv_nxt"], log.final["app_seq"]) == (SEQ, ACK, APP)

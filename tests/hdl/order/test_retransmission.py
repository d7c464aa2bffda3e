"""What the order port sends again, and when: to the tick, against the RFCs' own arithmetic, and through a wire that
loses, repeats and disorders."""

import random
from fractions import Fraction
from itertools import pairwise

import pytest

from hdl.layout import net
from hdl.order import timing
from hdl.order.port import KIND_MASS_CANCEL, KIND_QUOTE, SESSION_TX
from hdl.order.retransmit import TICK_CYCLES
from hdl.order.templates import QUOTE_SIZE
from tests.hdl.order.bench import CONFIG, QUOTE, READY, check_frame, peer_segment, quote_message, run
from tests.hdl.order.test_port import message

SEQ, ACK, APP = CONFIG["init_snd_nxt"], CONFIG["init_rcv_nxt"], CONFIG["init_app_seq"]
FIRST = 4       # rto_first of most tests
MASK = 0xFFFF_FFFF


def numbers(frame):
    """seq, ack, payload of a segment."""
    tcp, ip = net.TCP.unpack(frame, 34), net.IPV4.unpack(frame, 14)
    return tcp["seq"], tcp["ack"], frame[54:14 + ip["total_length"]]


def ahead(a, b):
    return (a - b + (1 << 31) & MASK) - (1 << 31)


def acknowledged(cycle, frame):
    """What a peer answers to a segment, or to none."""
    if frame is None:
        return []
    seq, _, payload = numbers(frame)
    return [(cycle, peer_segment(ack=seq + len(payload)))]


def same_but_acknowledgement(one, other):
    def rest(frame):
        fields = net.TCP.unpack(frame, 34) | {"ack": 0, "checksum": 0}
        return frame[:34], fields, frame[54:-4]
    return rest(one) == rest(other)


def test_what_is_not_acknowledged_is_sent_again_until_the_session_ends():
    """After the time-out, twice that, and so on up to the greatest; then the session is given up."""
    most, greatest = 3, 13
    config = {"rto_first": FIRST, "rto_max": greatest, "rto_most": most}
    waits = [min(FIRST << n, greatest) for n in range(most + 1)]
    log = run((sum(waits) + 8) * TICK_CYCLES, fires={READY: (KIND_QUOTE, QUOTE)}, config=config)
    assert len(log.frames) == 1 + most
    first = log.frames[0][1]
    payload = check_frame(first, seq=SEQ, ack=ACK, payload_size=QUOTE_SIZE)
    assert payload == quote_message(QUOTE, app_seq=APP, start=READY)
    for _, again in log.frames[1:]:
        assert again == first
    starts = log.starts()
    for n, (earlier, later) in enumerate(pairwise(starts)):
        assert waits[n] * TICK_CYCLES - 40 < later - earlier <= (waits[n] + 1) * TICK_CYCLES + 40, n
    # Time-outs come with ticks: from the second on they are whole numbers of them apart, to the cycle.
    expired = log.strobe("resend_timeouts")
    assert [b - a for a, b in pairwise(expired)] == [
        (wait + 1) * TICK_CYCLES for wait in waits[1:]]
    assert log.count("segments_resent") == most
    assert log.count("resend_timeouts") == most + 1
    assert len(log.strobe("session_lost")) == 1
    assert log.final["session_up"] == 0
    assert (log.final["snd_nxt"], log.final["app_seq"]) == (SEQ + QUOTE_SIZE & MASK, APP + 1)


def test_nothing_is_sent_again_that_is_acknowledged():
    """An acknowledgement in time, in part (which lets nothing of the segment go), and late."""
    def peer(cycle, frame):
        return acknowledged(cycle + 100, frame)
    config = {"rto_first": FIRST}
    log = run(3 * FIRST * TICK_CYCLES, fires={READY: (KIND_QUOTE, QUOTE)}, config=config, peer=peer)
    assert len(log.frames) == 1
    assert log.count("resend_timeouts") == 0
    # All but the last byte: the whole segment comes again, and then nothing.
    part = peer_segment(ack=SEQ + QUOTE_SIZE - 1)
    whole = peer_segment(ack=SEQ + QUOTE_SIZE)
    log = run(5 * FIRST * TICK_CYCLES, fires={READY: (KIND_QUOTE, QUOTE)}, config=config,
              rx=[(400, part), (3 * FIRST * TICK_CYCLES, whole)])
    assert log.frames[0][1] == log.frames[1][1]
    assert len(log.frames) == 2


def test_three_duplicates_and_the_oldest_segment_goes_at_once():
    quotes = [{**QUOTE, "quote_id": n} for n in range(4)]
    fires = {READY + n: ("ready", KIND_QUOTE, quote) for n, quote in enumerate(quotes)}
    duplicate = peer_segment(ack=SEQ)
    rx = [(1000 + 100 * n, duplicate) for n in range(6)]
    log = run(2200, fires=fires, rx=rx, config={"rto_first": 1000})
    assert log.count("fast_resends") == 1
    assert log.count("segments_resent") == 1
    again, frame = log.frames[4]
    assert frame == log.frames[0][1]
    third = 1000 + 200 + 8 + len(duplicate) + 2
    assert third < again - 1 <= third + 40      # the list is looked through once in a while
    # With data, with another window or beside something else it is no duplicate, nor before anything was sent.
    for odd in (peer_segment(ack=SEQ, payload=b"data"), peer_segment(ack=SEQ, window=59_999)):
        log = run(1600, fires=fires, rx=[(1000, duplicate), (1100, odd), (1200, duplicate), (1300, odd)],
                  config={"rto_first": 1000})
        assert log.count("segments_resent") == 0
    log = run(1600, rx=[(10 + 100 * n, duplicate) for n in range(2)] + [(1100, duplicate)],
              fires={400: (KIND_QUOTE, QUOTE)}, config={"rto_first": 1000})
    assert log.count("segments_resent") == 0


def test_each_part_that_is_acknowledged_lets_the_next_segment_go():
    """After duplicates one segment a round trip (RFC 6582); after a time-out twice as many each time."""
    quotes = [{**QUOTE, "quote_id": n} for n in range(8)]
    fires = {READY + n: ("ready", KIND_QUOTE, quote) for n, quote in enumerate(quotes)}
    ends = [SEQ + QUOTE_SIZE * n for n in range(9)]
    duplicates = [(2000 + 100 * n, peer_segment(ack=SEQ)) for n in range(3)]
    parts = [(3000 + 1000 * n, peer_segment(ack=ends[n + 1])) for n in range(3)]
    log = run(7000, fires=fires, rx=duplicates + parts, config={"rto_first": 1000})
    again = [numbers(frame)[0] for _, frame in log.frames[8:]]
    assert again == [end & MASK for end in ends[:4]]
    config = {"rto_first": 40}
    after = (40 + 2) * TICK_CYCLES
    parts = [(after + 1200, peer_segment(ack=ends[1])), (after + 2600, peer_segment(ack=ends[2]))]
    log = run(after + 4000, fires=fires, rx=parts, config=config)
    again = [numbers(frame)[0] for _, frame in log.frames[8:]]
    # The oldest; then the next two; then what was sent again already is not.
    assert again == [end & MASK for end in (ends[0], ends[1], ends[2], ends[3], ends[4])]


class Estimate:
    """RFC 6298 with fractions."""

    def __init__(self):
        self.srtt = self.rttvar = None

    def sample(self, r):
        if self.srtt is None:
            self.srtt, self.rttvar = Fraction(r), Fraction(r, 2)
        else:
            self.rttvar = Fraction(3, 4) * self.rttvar + Fraction(1, 4) * abs(self.srtt - r)
            self.srtt = Fraction(7, 8) * self.srtt + Fraction(1, 8) * r
        return self.srtt + max(1, 4 * self.rttvar)


def test_the_time_out_follows_the_round_trip():
    """Within the ticks that are cut off: every eighth of the smoothed time, every quarter of its variation."""
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    delays = [rng.choice((3, 5, 8, 20)) * TICK_CYCLES for _ in range(7)]
    told, sent = [], []

    def peer(cycle, frame):
        if frame is None:
            return []
        seq, _, payload = numbers(frame)
        delay = delays[len(sent)]
        sent.append(cycle - 8 - len(frame))
        told.append(cycle + delay + 8 + 64 + 2)
        return [(cycle + delay, peer_segment(ack=seq + len(payload)))]

    fires, at = {}, READY
    for delay in delays:
        fires[at] = (KIND_QUOTE, QUOTE)
        at += 500 + delay
    config = {"rto_first": 400, "rto_min": 2, "rto_max": 1000}
    log = run(at + 100, fires=fires, config=config, peer=peer)
    assert len(log.frames) == len(delays)
    states = [(cycle, name, value) for cycle, name, value in log.states if name in ("rto", "srtt")]
    estimate = Estimate()
    for n, arrival in enumerate(told):
        ticks = sum((cycle - log.reset) % TICK_CYCLES == TICK_CYCLES - 1 for cycle in range(sent[n] + 2, arrival + 4))
        rto = estimate.sample(ticks)
        now = {name: value for cycle, name, value in states if cycle <= arrival + 20}
        assert abs(now["srtt"] - estimate.srtt) < 2, n
        assert abs(now["rto"] - rto) < 8, n
    assert log.final["rto"] > 2


def test_a_time_out_has_its_bounds():
    def peer(cycle, frame):
        return acknowledged(cycle + 2 * TICK_CYCLES, frame)
    for low, high in ((100, 200), (1, 2)):
        log = run(1200, fires={READY: (KIND_QUOTE, QUOTE)}, peer=peer,
                  config={"rto_first": 50, "rto_min": low, "rto_max": high})
        assert log.final["rto"] == (low if low == 100 else high)


def test_what_was_sent_again_is_not_timed():
    """Karn: nobody knows which of the two was acknowledged."""
    rx = [((FIRST + 4) * TICK_CYCLES, peer_segment(ack=SEQ + QUOTE_SIZE))]
    log = run((FIRST + 8) * TICK_CYCLES, fires={READY: (KIND_QUOTE, QUOTE)}, rx=rx, config={"rto_first": FIRST})
    assert log.count("segments_resent") == 1
    assert (log.final["srtt"], log.final["rto"]) == (0, FIRST)


def test_a_window_without_room_is_probed():
    """With the number before the next one and no data, until it opens; the probes get rarer, and never give up."""
    closed = peer_segment(ack=SEQ, window=QUOTE_SIZE - 1)
    config = {"rto_first": FIRST, "rto_max": 4 * FIRST, "rto_most": 1, "init_peer_window": QUOTE_SIZE - 1}
    answers = []

    def peer(cycle, frame):
        if frame is None:
            return []
        answers.append(cycle)
        return [(cycle + 50, closed if len(answers) < 5 else peer_segment(ack=SEQ, window=QUOTE_SIZE))]

    log = run(18 * FIRST * TICK_CYCLES + 1000, config=config, peer=peer)
    assert log.count("window_probes") == len(log.frames) == 5
    for _, frame in log.frames:
        check_frame(frame, seq=SEQ - 1, ack=ACK, payload_size=0, flags="A")
    apart = [b - a for a, b in pairwise(log.starts())]
    assert [round(wait / TICK_CYCLES) for wait in apart] == [2 * FIRST + 1, 4 * FIRST + 1, 4 * FIRST + 1, 4 * FIRST + 1]
    assert not any(log.ready[:log.starts()[-1]])
    assert log.ready[-1]
    # A peer that does not even answer is given up.
    log = run(4 * FIRST * TICK_CYCLES, config=config)
    assert len(log.frames) == 1
    assert log.final["session_up"] == 0


def test_nothing_new_leaves_when_the_ring_is_full():
    """Nor before a whole segment is acknowledged; and what was sent stays right to its last byte."""
    size = 2048
    fits = size // QUOTE_SIZE
    fires = {READY + n: ("ready", KIND_QUOTE, {**QUOTE, "quote_id": n}) for n in range(fits + 3)}
    end = fits * timing.busy_cycles(timing.QUOTE_FRAME) + 300
    log = run(end + 1500, fires=fires, ring_size=size, config={"rto_first": 1000},
              rx=[(end, peer_segment(ack=SEQ + QUOTE_SIZE - 1)), (end + 600, peer_segment(ack=SEQ + QUOTE_SIZE))])
    starts = log.starts()
    assert len(starts) == fits + 1
    assert starts[fits - 1] < end < end + 600 < starts[fits]
    # What is sent again has gone round the ring's end.
    duplicates = [(end + 1200 + 100 * n, peer_segment(ack=SEQ + QUOTE_SIZE * fits)) for n in range(4)]
    log = run(end + 2500, fires=fires, ring_size=size, config={"rto_first": 1000},
              rx=[(end, peer_segment(ack=SEQ + QUOTE_SIZE * 3)), *duplicates])
    assert log.count("fast_resends") == 1
    frames = [frame for _, frame in log.frames]
    resent = frames[-1]
    assert numbers(resent)[0] == SEQ + QUOTE_SIZE * fits & MASK
    [original] = [frame for frame in frames[:-1] if numbers(frame)[0] == numbers(resent)[0]]
    assert same_but_acknowledgement(original, resent)


class LossyPeer:
    """A receiver that keeps what comes out of order and acknowledges everything, behind a wire that loses in both
    directions, repeats, and swaps neighbours."""

    def __init__(self, rng, loss, delay):
        self.rng, self.loss, self.delay = rng, loss, delay
        self.next, self.held, self.stream, self.segments = SEQ, {}, bytearray(), {}

    def __call__(self, cycle, frame):
        if frame is None:
            return []
        seq, _, payload = numbers(frame)
        if payload:
            assert self.segments.setdefault(seq, payload) == payload, "sent again as something else"
        if self.rng.random() < self.loss:
            return []
        if payload and ahead(seq, self.next) >= 0:
            self.held[seq] = payload
        while self.next in self.held:
            data = self.held.pop(self.next)
            self.stream += data
            self.next = self.next + len(data) & MASK
        if not payload:
            return []
        times = self.rng.choice((0,) * round(20 * self.loss) + (1,) * 20 + (2,))
        delay = self.delay + self.rng.choice((0, 0, 0, 2 * self.delay))
        return [(cycle + delay, peer_segment(ack=self.next))] * times


@pytest.mark.parametrize(("seed", "loss"), [(0, 0.05), (1, 0.2)])
def test_a_wire_that_loses(seed, loss):
    """Everything arrives once, in order, as it was first sent, whatever is lost on the way."""
    print(f"seed {seed}")
    rng = random.Random(f"loses {seed}")
    cycles, busy = 20_000, 6_000
    fires = {rng.randrange(READY, busy): (
        "ready", rng.choice((KIND_QUOTE, KIND_QUOTE, KIND_MASS_CANCEL)),
        {**QUOTE, "bid_ticks": rng.randint(-100, 100), "quote_id": rng.getrandbits(64)}) for _ in range(16)}
    host = [(at, SESSION_TX, message(rng, rng.randint(32, 400))) for at in range(500, busy, 1500)]
    peer = LossyPeer(rng, loss, 400)
    log = run(cycles, fires=fires, host=host, peer=peer, config={
        "rto_first": 12, "rto_min": 8, "rto_max": 12, "rto_most": 31})
    once = bytes(byte for _, byte in log.sent)
    assert [seq for seq, _ in log.sent] == [SEQ + n & MASK for n in range(len(once))]
    assert bytes(peer.stream) == once
    assert log.final["snd_una"] == log.final["snd_nxt"] == SEQ + len(once) & MASK
    assert log.count("segments_resent") > 0
    assert log.count("session_sent") == len(host)


@pytest.mark.parametrize("delay", [0, 1, 7])
def test_acknowledgements_may_wait(delay):
    """For so many ticks, or for the second segment, or for something else that leaves."""
    one, two = peer_segment(payload=b"one"), peer_segment(ACK + 3, payload=b"two")
    config = {"ack_delay": delay}
    log = run(10 * TICK_CYCLES + 300, rx=[(10, one)], config=config)
    [start] = log.starts()
    arrival = 10 + 8 + len(one) + 2
    if delay:
        assert delay * TICK_CYCLES < start - arrival <= (delay + 1) * TICK_CYCLES + 2
    else:
        assert start == arrival + timing.RX_EOF_TO_ACK_START
    log = run(600, rx=[(10, one), (120, two)], config=config)
    acks = [numbers(frame)[1] for _, frame in log.frames]
    assert acks == [ACK + 6 & MASK] if delay > 1 else acks[-1] == ACK + 6 & MASK
    if delay == 7:
        assert log.starts() == [120 + 8 + len(two) + 2 + timing.RX_EOF_TO_ACK_START]
        quoted = run(1400, rx=[(10, one)], fires={200: (KIND_QUOTE, QUOTE)}, config=config)
        assert [numbers(frame)[1] for _, frame in quoted.frames] == [ACK + 3 & MASK]
        # What is not in order is answered at once.
        log = run(600, rx=[(10, two)], config=config)
        assert log.starts() == [10 + 8 + len(two) + 2 + timing.RX_EOF_TO_ACK_START]


def test_trigger_to_quote_is_the_same_with_unacknowledged_data():
    """And while something waits to be sent again."""
    at = READY + 700
    log = run(at + 400, fires={READY: (KIND_QUOTE, QUOTE), READY + 200: (KIND_QUOTE, QUOTE), at: (KIND_QUOTE, QUOTE)},
              config={"rto_first": 1000})
    assert at + timing.PREAMBLE_AFTER_START in [cycle for cycle, _ in log.frames]
    rx = [(600 + 80 * n, peer_segment(ack=SEQ)) for n in range(3)]
    arrival = 600 + 160 + 8 + 64 + 2
    for offset in range(0, 40, 8):
        fire = arrival + offset
        log = run(fire + 700, fires={READY: (KIND_QUOTE, QUOTE), READY + 200: (KIND_QUOTE, QUOTE),
                                     fire: (KIND_QUOTE, QUOTE)}, rx=rx, config={"rto_first": 1000})
        assert log.count("segments_resent") == 1
        started = [cycle for cycle, _ in log.frames]
        if log.ready[fire]:
            assert fire + timing.PREAMBLE_AFTER_START in started

"""Test bench of the order port: a script of stimuli by cycle in, everything that happened with its cycle out."""

import zlib
from dataclasses import dataclass, field

from amaranth.hdl import Cat
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from hdl.control.registers import BY_NAME
from hdl.order import timing
from hdl.order.port import KIND_QUOTE, OrderPort
from hdl.order.templates import STARBASE, STARBASE_HEADER
from tests.hdl.simulation import simulated

LOCAL_MAC, PEER_MAC = "02:74:32:71:00:01", "02:00:00:00:12:fe"
LOCAL_IP, PEER_IP = "10.77.3.2", "192.168.200.9"
LOCAL_PORT, PEER_PORT = 49321, 4210

CONFIG = {
    "local_mac": int(LOCAL_MAC.replace(":", ""), 16),
    "peer_mac": int(PEER_MAC.replace(":", ""), 16),
    "local_ip": int.from_bytes(bytes(map(int, LOCAL_IP.split("."))), "big"),
    "peer_ip": int.from_bytes(bytes(map(int, PEER_IP.split("."))), "big"),
    "local_port": LOCAL_PORT,
    "peer_port": PEER_PORT,
    "init_snd_nxt": 0xFFFF_FF80,        # wraps within the first two quotes
    "init_rcv_nxt": 0xFFFF_FFF0,        # and with the first segment
    "init_peer_window": 60000,
    "init_app_seq": 0x1_FFFF_FFFF,
    "window": 0x7A31,
    "rto_first": 40_000,    # beyond the end of most tests
    "rto_min": 20,
    "rto_max": 50_000,
    "rto_most": 3,
    "ack_delay": 0,
    "last_processed": 0x0123_4567_89AB_CDEF,
    "mmp_group": 77_000_000_001,
    "smp_id": -(1 << 63) & (1 << 64) - 1,
    "quote_flags": 0x01,
    "order_flags": 0x0013,
}
TIME_ZERO = 1_790_000_000_000_000_003
READY = 8           # cycle in which a script may count on `ready`
UP = READY - 2 - timing.SESSION_ENABLE_TO_READY     # cycle in which `session_enable` is written by default
WORD_EVERY = 4      # cycles from a register's write to the next one
SWEEP = 512         # cycles after reset in which nothing is written

QUOTE = {
    "bid_ticks": 124_320, "ask_ticks": 124_345, "bid_lots": 10, "ask_lots": 25, "tick_e9": 500_000_000,
    "lot_mult": 1000, "lot_exp": -2, "instrument_id": 210_838, "quote_id": 0xA5A5_0000_1234_5678,
}

STROBES = ("session_lost", "session_sent", "session_tx_refused", "dbg_host_tx_valid")
STATE = ("session_up", "snd_nxt", "snd_una", "rcv_nxt", "app_seq", "rto", "srtt")


def with_fcs(frame: bytes) -> bytes:
    """The frame padded to the least length, with its FCS."""
    frame = bytes(frame).ljust(60, b"\0")
    return frame + zlib.crc32(frame).to_bytes(4, "little")


def peer_segment(seq=CONFIG["init_rcv_nxt"], ack=CONFIG["init_snd_nxt"], payload=b"", flags="PA", window=60000, *,
                 dst=LOCAL_MAC, ip=None, tcp=None, fcs=True):
    """A segment as the peer sends it."""
    frame = (Ether(dst=dst, src=PEER_MAC) / IP(src=PEER_IP, dst=LOCAL_IP, flags="DF", id=4711, **(ip or {}))
             / TCP(**{"sport": PEER_PORT, "dport": LOCAL_PORT, "seq": seq & 0xFFFFFFFF, "ack": ack & 0xFFFFFFFF,
                      "flags": flags, "window": window, **(tcp or {})}))
    if payload:
        frame = frame / Raw(payload)
    return with_fcs(bytes(frame)) if fcs else bytes(frame)


@dataclass
class Log:
    """What happened. Cycles are those in which a value stands on its wire."""

    frames: list = field(default_factory=list)      # (cycle of the first preamble byte, bytes without preamble)
    to_host: list = field(default_factory=list)     # (cycle of the last byte, kind, bytes)
    strobes: list = field(default_factory=list)     # (cycle, name, value)
    states: list = field(default_factory=list)      # (cycle, name, new value)
    ready: list = field(default_factory=list)       # one bool per cycle
    sent: list = field(default_factory=list)        # (TCP sequence number, payload byte)
    final: dict = field(default_factory=dict)
    reset: int = 0                                  # the first cycle after reset

    def strobe(self, name):
        """Cycles of one strobe."""
        return [cycle for cycle, which, _ in self.strobes if which == name]

    def count(self, name):
        return len(self.strobe(name))

    def starts(self):
        """Start cycles of the frames: the first preamble byte is one later."""
        return [cycle - 1 for cycle, _ in self.frames]


def run(cycles, *, fires=None, rx=(), host=(), hot_busy=(), hot_wants=(), config=None, writes=None, enable=(UP,),
        disable=(), host_ready=lambda cycle: True, rx_depth=4096, ring_size=8192, peer=None):
    """Run a script on an :class:`OrderPort`.

    fires : {cycle: (kind, quote)}, or {cycle: ("ready", kind, quote)}, which waits for the first ready cycle
    rx : [(cycle of the first preamble byte on the pins, frame with FCS)]
    host : [(first cycle, kind, bytes)], in order
    hot_busy, hot_wants : cycles in which they are 1
    config : changes to CONFIG from reset; writes : {cycle: changes}, a word every WORD_EVERY cycles from then on
    enable, disable : cycles of writes to `session_enable`
    host_ready : function (cycle) -> bool, the host takes a byte
    peer : function (cycle, frame) -> [(cycle, frame with FCS)], what is answered to a frame that has ended, as soon
        as the wire is free from that cycle on; of the cycle before the script begins with ``None`` as frame
    """
    dut = OrderPort(rx_depth=rx_depth, ring_size=ring_size)
    log = Log()
    fires, writes = dict(fires or {}), dict(writes or {})
    pins, wire_free = {}, 0

    def put(start, frame):
        for n, byte in enumerate(bytes([0x55] * 7 + [0xD5]) + bytes(frame)):
            assert start + n not in pins, "script lets two frames overlap"
            pins[start + n] = byte
        return start + n + 1 + 12

    def answer(cycle, frame):
        nonlocal wire_free
        for start, reply in peer(cycle, frame) if peer else ():
            wire_free = put(max(start, cycle + 1, wire_free), reply)

    for start, frame in rx:
        put(start, frame)
    answer(min(UP, 0) - 1, None)
    resends = dict(zip(("resend_timeouts", "fast_resends", "window_probes"), dut.dbg_resends, strict=True))
    watched = [dut.tx_en, dut.txd, dut.tx_er, dut.ready, dut.host_rx.valid, dut.host_rx.last, dut.host_rx.data,
               dut.host_rx_kind, dut.sent.valid, dut.sent.data, dut.sent.seq, dut.host_tx.ready]
    strobes = [(name, getattr(dut, name)) for name in STROBES] + [
        *((name, getattr(dut.counters, name)) for name in dut.counters.signature.members), *resends.items()]
    values = {"session_sent": dut.session_sent_seq, "dbg_host_tx_valid": dut.dbg_host_tx_kind}
    everything = Cat(watched)
    all_strobes = Cat(signal for _, signal in strobes)
    all_state = Cat(getattr(dut.status, name) for name in STATE)

    def words(changes):
        """(address, word) of each register."""
        for name, value in changes.items():
            if name in BY_NAME:
                yield BY_NAME[name].address, value
            else:
                yield from ((BY_NAME[name + half].address, value >> shift & 0xFFFF_FFFF)
                            for half, shift in (("_lo", 0), ("_hi", 32)))

    async def testbench(ctx):
        changes = {**CONFIG, **(config or {})}
        ctx.set(dut.config.last_processed, changes.pop("last_processed"))
        await ctx.tick().repeat(SWEEP)
        log.reset = min(UP, 0) - SWEEP - WORD_EVERY * len(list(words(changes)))
        for address, word in words(changes):
            ctx.set(dut.config.write, 1)
            ctx.set(dut.config.address, address)
            ctx.set(dut.config.data, word)
            await ctx.tick()
            ctx.set(dut.config.write, 0)
            await ctx.tick().repeat(WORD_EVERY - 1)
        written = []        # words that are still to be written
        queue = [(first, kind, bytes(data)) for first, kind, data in host]
        sending, burst, packet, waiting, state = None, None, bytearray(), [], None
        driven, fired = {}, cycles

        def drive(name, signal, value):
            if driven.get(name) != value:
                driven[name] = value
                ctx.set(signal, value)

        for cycle in range(min(UP, 0), cycles):
            ctx.set(dut.time_ns, TIME_ZERO + 8 * cycle)
            written += words(writes.get(cycle, {}))
            drive("write", dut.config.write, bool(written) and cycle % WORD_EVERY == 0)
            if driven["write"]:
                address, word = written.pop(0)
                ctx.set(dut.config.address, address)
                ctx.set(dut.config.data, word)
            drive("enable", dut.config.session_enable, cycle in enable or cycle in disable)
            drive("value", dut.config.session_enable_value, cycle in enable)
            drive("hot_busy", dut.hot_busy, cycle in hot_busy)
            drive("hot_wants", dut.hot_wants, cycle in hot_wants)
            drive("rx_dv", dut.rx_dv, cycle in pins)
            drive("rxd", dut.rxd, pins.get(cycle, 0))
            ready = ctx.get(dut.ready)
            fire = None
            if cycle in fires:
                waiting.append(fires[cycle])
            if waiting and (waiting[0][0] != "ready" or ready):
                fire = waiting.pop(0)
            drive("fire", dut.fire, fire is not None)
            if fire is not None:
                kind, quote = fire[-2:]
                ctx.set(dut.kind, kind)
                ctx.set(dut.quote.quote_id, quote["quote_id"])
                fired = cycle
            elif cycle == fired + 1:    # what stands there without `fire`, or before its time, means nothing
                ctx.set(dut.kind, 1 - kind)
                for name in quote:
                    ctx.set(getattr(dut.quote, name), cycle)
            elif cycle == fired + timing.QUOTE_AT and kind == KIND_QUOTE:
                for name, value in quote.items():
                    if name != "quote_id":
                        ctx.set(getattr(dut.quote, name), value)
            if sending is None and queue and cycle >= queue[0][0]:
                _, kind, data = queue.pop(0)
                sending = [kind, data, 0]
            drive("tx_valid", dut.host_tx.valid, sending is not None)
            if sending is not None:
                drive("tx_kind", dut.host_tx_kind, sending[0])
                drive("tx_data", dut.host_tx.data, sending[1][sending[2]])
                drive("tx_last", dut.host_tx.last, sending[2] == len(sending[1]) - 1)
            take = host_ready(cycle)
            drive("rx_ready", dut.host_rx.ready, take)

            bits, fields = ctx.get(everything), []
            for signal in watched:
                fields.append(bits & (1 << len(signal)) - 1)
                bits >>= len(signal)
            tx_en, txd, tx_er, ready, rx_valid, rx_last, rx_data, rx_kind, s_valid, s_data, s_seq, tx_ready = fields
            assert not tx_er
            if cycle >= 0:
                log.ready.append(bool(ready))
            if tx_en:
                if burst is None:
                    burst = (cycle, bytearray())
                burst[1].append(txd)
            elif burst is not None:
                assert burst[1][:8] == bytes([0x55] * 7 + [0xD5]), burst[1][:8].hex()
                log.frames.append((burst[0], bytes(burst[1][8:])))
                answer(cycle, log.frames[-1][1])
                burst = None
            if rx_valid and take:
                packet.append(rx_data)
                if rx_last:
                    assert ctx.get(dut.host_rx_length) == len(packet)
                    log.to_host.append((cycle, rx_kind, bytes(packet)))
                    packet.clear()
            if s_valid:
                log.sent.append((s_seq, s_data))
            if sending is not None and tx_ready:
                sending[2] += 1
                if sending[2] == len(sending[1]):
                    log.strobes.append((cycle, "host_tx_taken", sending[0]))
                    sending = None
            risen = ctx.get(all_strobes)
            if risen:
                for n, (name, _) in enumerate(strobes):
                    if risen >> n & 1:
                        log.strobes.append((cycle, name, ctx.get(values[name]) if name in values else 1))
            new_state = ctx.get(all_state)
            if new_state != state:
                for name in STATE:
                    value = ctx.get(getattr(dut.status, name))
                    if log.final.get(name) != value:
                        log.states.append((cycle, name, value))
                    log.final[name] = value
                state = new_state
            await ctx.tick()
        assert burst is None or peer, "a frame was under way at the end of the run"

    simulated(dut, testbench)
    return log


def check_frame(frame, *, flags="PA", seq, ack, payload_size, window=CONFIG["window"]):
    """Everything below the payload, by scapy and by recomputation; returns the payload."""
    body, fcs = frame[:-4], frame[-4:]
    assert zlib.crc32(body).to_bytes(4, "little") == fcs
    assert len(body) == max(60, 54 + payload_size)
    parsed = Ether(body)
    assert (parsed.dst, parsed.src, parsed.type) == (PEER_MAC, LOCAL_MAC, 0x0800)
    ip, tcp = parsed[IP], parsed[TCP]
    assert (ip.version, ip.ihl, ip.tos, ip.len, ip.id, int(ip.flags), ip.frag, ip.ttl, ip.proto) == (
        4, 5, 0, 40 + payload_size, 0, 2, 0, 64, 6)
    assert (ip.src, ip.dst, tcp.sport, tcp.dport) == (LOCAL_IP, PEER_IP, LOCAL_PORT, PEER_PORT)
    assert (tcp.seq, tcp.ack) == (seq & 0xFFFFFFFF, ack & 0xFFFFFFFF)
    assert (tcp.dataofs, str(tcp.flags), tcp.window, tcp.urgptr) == (5, flags, window, 0)
    again = Ether(body[:14 + ip.len])
    del again[IP].chksum
    del again[TCP].chksum
    again = Ether(bytes(again))
    assert (ip.chksum, tcp.chksum) == (again[IP].chksum, again[TCP].chksum)
    assert not any(body[54 + payload_size:])
    return body[54:54 + payload_size]


def header_of(message, size, *, app_seq, start, config=CONFIG):
    """The Starbase header that a message started in cycle ``start`` has to carry."""
    return STARBASE_HEADER.pack(
        protocolId=0xDB, flags=0, messageLength=size, messageTypeId=message.id, version=16, sequenceNumber=app_seq,
        lastProcessedSeqNo=signed64(config["last_processed"]), sendTimeNs=TIME_ZERO + 8 * start)


def signed64(value):
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def quote_message(quote, *, app_seq, start, config=CONFIG):
    """A mass quote by the layout codec alone: the bytes that have to be on the wire."""
    message = STARBASE["MassQuoteRequest"]

    def side(name):
        lots = quote[f"{name}_lots"]
        return {
            f"{name}Price": signed64(quote[f"{name}_ticks"] * quote["tick_e9"]) if lots else None,
            f"{name}Qty.mantissa": lots * quote["lot_mult"],
            f"{name}Qty.exponent": quote["lot_exp"],
            f"{name}Flags": config["order_flags"],
        }

    body = message.encode({
        "quoteId": signed64(quote["quote_id"]), "correlationId": signed64(quote["quote_id"]),
        "mmpGroupId": signed64(config["mmp_group"]), "selfMatchPreventionId": signed64(config["smp_id"]),
        "flags": config["quote_flags"],
    }, {"quotes": [{"instrumentId": signed64(quote["instrument_id"]), **side("bid"), **side("ask")}]})
    return header_of(message, 32 + len(body), app_seq=app_seq, start=start, config=config) + body


def cancel_message(quote, *, app_seq, start, config=CONFIG):
    """A mass quote cancel by the layout codec alone."""
    message = STARBASE["MassQuoteCancelRequest"]
    body = message.encode({"correlationId": signed64(quote["quote_id"]),
                           "mmpGroupId": signed64(config["mmp_group"]), "side": 0})
    return header_of(message, 32 + len(body), app_seq=app_seq, start=start, config=config) + body

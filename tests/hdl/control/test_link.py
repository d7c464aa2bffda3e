# amaranth: UnusedElaboratable=no
"""Link against a packet codec in Python, on good, bad and random bytes."""

import binascii
import random
import struct

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.control.bank import READ_LATENCY
from hdl.control.link import Link
from hdl.control.registers import BY_NAME
from hdl.layout import sbe

LINK = sbe.load("t2q_link")
KILL = BY_NAME["kill"].address
WRITE, READ, FRAME_TX, SESSION_TX = (LINK[name].id for name in ("Write", "Read", "FrameTx", "SessionTx"))


def packet(type_, payload):
    body = struct.pack("<BH", type_, len(payload)) + payload
    return b"\xa5" + body + struct.pack("<H", binascii.crc_hqx(body, 0xFFFF))


def write(address, *words, epoch=0):
    return packet(WRITE, struct.pack(f"<HI{len(words)}I", address, epoch, *words))


def host_tx(type_, payload, epoch=0):
    return packet(type_, struct.pack("<I", epoch) + payload)


def read(tag, address):
    return packet(READ, LINK["Read"].encode({"tag": tag, "addr": address}))


def unpack(stream):
    """(type, payload) of every packet of a stream that must hold nothing else."""
    packets = []
    while stream:
        assert stream[0] == 0xA5
        type_, length = struct.unpack("<BH", stream[1:4])
        crc, = struct.unpack("<H", stream[4 + length:6 + length])
        assert crc == binascii.crc_hqx(stream[1:4 + length], 0xFFFF)
        packets.append((type_, stream[4:4 + length]))
        stream = stream[6 + length:]
    return packets


def model(stream):
    """(commands in order, host packets, packets, errors) that `stream` gives, by reading it byte by byte."""
    done, sent, packets, errors, at, epoch = [], [], 0, 0, 0, 0
    while at < len(stream):
        at += 1
        if stream[at - 1] != 0xA5:
            continue
        if at == len(stream):
            break
        type_ = stream[at]
        at += 1
        if type_ not in (WRITE, READ, FRAME_TX, SESSION_TX):
            errors += 1
            at -= type_ == 0xA5         # that may be the start of a packet
            continue
        if at + 2 > len(stream):
            break
        length, = struct.unpack("<H", stream[at:at + 2])
        at += 2
        if not {WRITE: length >= 10 and length % 4 == 2, READ: length == 3}.get(type_, length > 4) or length > 1600:
            errors += 1
            continue
        body, crc = stream[at - 3:at + length], stream[at + length:at + length + 2]
        at += length + 2
        if at > len(stream):
            break
        if binascii.crc_hqx(body, 0xFFFF) != int.from_bytes(crc, "little"):
            errors += 1
            continue
        packets += 1
        payload = body[3:]
        if type_ == WRITE:
            address, its, *words = struct.unpack(f"<H{length // 4}I", payload)
            if its >= epoch:
                epoch = its
                done += [("write", address + n & 0xFFFF, word) for n, word in enumerate(words)]
            elif address == KILL:
                done.append(("write", address, words[0]))
        elif type_ == READ:
            done.append(("read", *struct.unpack("<BH", payload)))
        elif int.from_bytes(payload[:4], "little") >= epoch:
            sent.append((int(type_ == SESSION_TX), payload[4:]))
    return done, sent, packets, errors


class Bench:
    """A Link with a register file of addresses, a host at one end and an order port at the other."""

    def __init__(self, stream, *, rng=None, cycles=None, take_tx=None, take_host=None, host_rx=(), telemetry=(),
                 session_sent=None, ready_after=0, **parameters):
        self.dut = Link(**parameters)
        self.stream, self.rng = stream, rng
        self.cycles = cycles or len(stream) * 7 // (2 if rng else 6) + 120
        self.take_tx = take_tx or (lambda cycle: rng is None or rng.random() < 0.8)
        self.take_host = take_host or (lambda cycle: rng is None or rng.random() < 0.8)
        self.host_rx, self.telemetry = list(host_rx), list(telemetry)
        self.session_sent = session_sent or {}
        self.ready_after = ready_after
        self.done, self.sent, self.packets, self.errors, self.lost = [], [], 0, 0, 0
        self.fenced, self.epoch = 0, 0
        self.times = []             # cycles in which a command was executed or a host packet began
        self.answers = b""
        self.left = None            # bytes of the stream that were not taken

    @staticmethod
    def word(address):
        return address * 0x10001 ^ 0x55AA1234

    def run(self):
        sim = Simulator(self.dut)
        sim.add_clock(8e-9)
        sim.add_testbench(self.testbench)
        sim.run()
        return self

    async def testbench(self, ctx):
        dut, rng = self.dut, self.rng
        at, offer, waiting, reading = 0, False, {"host_rx": 0, "telemetry": 0}, None
        answer = -1                 # cycle in which the word that is being read stands
        frame, held = b"", None
        for cycle in range(self.cycles):
            ctx.set(dut.bus.ready, cycle >= self.ready_after)
            offer = at < len(self.stream) and (offer or rng is None or rng.random() < 0.7)
            ctx.set(dut.rx_valid, offer)
            ctx.set(dut.rx_data, self.stream[at] if offer else 0xA5)
            ctx.set(dut.bus.read_data, self.word(reading) if cycle == answer else 0xDEADBEEF)
            take_tx, take_host = self.take_tx(cycle), self.take_host(cycle)
            ctx.set(dut.tx_ready, take_tx)
            ctx.set(dut.host_tx.ready, take_host)
            ctx.set(dut.session_sent, cycle in self.session_sent)
            number = max((at for at in self.session_sent if at < cycle <= at + 8), default=None)
            ctx.set(dut.session_sent_seq, self.session_sent.get(number, 0xDEADBEEF))
            for name, queue, kind in (("host_rx", self.host_rx, dut.host_rx_kind),
                                      ("telemetry", self.telemetry, dut.telemetry_type)):
                source, length = getattr(dut, name), getattr(dut, f"{name}_length")
                ctx.set(source.valid, bool(queue))
                if queue:
                    ctx.set(kind, queue[0][0])
                    ctx.set(length, len(queue[0][1]))
                    ctx.set(source.data, queue[0][1][waiting[name]])
                    ctx.set(source.last, waiting[name] + 1 == len(queue[0][1]))

            assert not (ctx.get(dut.bus.we) and ctx.get(dut.bus.re))
            if cycle <= answer:
                assert ctx.get(dut.bus.addr) == reading
                assert not ctx.get(dut.bus.we)
                assert not ctx.get(dut.bus.re)
            if ctx.get(dut.bus.we):
                self.done.append(("write", ctx.get(dut.bus.addr), ctx.get(dut.bus.data)))
                self.times.append(cycle)
            if ctx.get(dut.bus.re):
                reading, answer = ctx.get(dut.bus.addr), cycle + READ_LATENCY
                self.done.append(("read", reading))
                self.times.append(cycle)
            if ctx.get(dut.host_tx.valid) and take_host:
                if not frame:
                    self.times.append(cycle)
                frame += bytes([ctx.get(dut.host_tx.data)])
                kind = ctx.get(dut.host_tx_kind)
                if ctx.get(dut.host_tx.last):
                    self.sent.append((kind, frame))
                    frame = b""
            shown = ctx.get(dut.tx_data) if ctx.get(dut.tx_valid) else None
            assert held is None or shown == held, "what was shown must hold until it is taken"
            held = shown if not take_tx else None
            if shown is not None and take_tx:
                self.answers += bytes([shown])
            self.packets += ctx.get(dut.rx_packets)
            self.errors += ctx.get(dut.rx_errors)
            self.lost += ctx.get(dut.session_sent_lost)
            self.fenced += ctx.get(dut.fenced)
            self.epoch = ctx.get(dut.epoch)
            for name, queue in (("host_rx", self.host_rx), ("telemetry", self.telemetry)):
                if queue and ctx.get(getattr(dut, name).ready):
                    waiting[name] += 1
                    if waiting[name] == len(queue[0][1]):
                        queue.pop(0)
                        waiting[name] = 0
            if offer and ctx.get(dut.rx_ready):
                at, offer = at + 1, False
            await ctx.tick()
        self.left = len(self.stream) - at


def check(stream, **arguments):
    """Hold the gateware against the model on `stream`."""
    bench = Bench(stream, **arguments).run()
    done, sent, packets, errors = model(stream)
    assert bench.left == 0
    assert bench.done == [("read", step[2]) if step[0] == "read" else step for step in done]
    assert bench.sent == sent
    assert (bench.packets, bench.errors) == (packets, errors)
    replies = [LINK["ReadReply"].decode(payload) for type_, payload in unpack(bench.answers)
               if type_ == LINK["ReadReply"].id]
    assert replies == [{"tag": step[1], "addr": step[2], "data": Bench.word(step[2])}
                       for step in done if step[0] == "read"]
    return bench


def test_converts():
    verilog.convert(Link())


def test_write_read_and_latency():
    command = write(0x8123, 0x11223344, 0xA5A5A5A5)
    bench = check(command + read(7, 0x1002))
    # The stream pauses for a cycle behind the length. The last byte of the CRC is on it in cycle 20, looked at in 21,
    # judged in 22, and kept in 23. What it is comes out of the buffer in 25, the six bytes of address and epoch in 26
    # to 31, a word's four in 32 to 35, and so on.
    assert len(command) == 20
    assert bench.times[:2] == [36, 40]


def test_burst_of_the_longest_packet():
    words = [n * 0x01010101 & 0xFFFFFFFF for n in range(398)]
    bench = check(write(0xFFF0, *words), cycles=3400)
    assert bench.times == list(range(bench.times[0], bench.times[0] + 4 * 398, 4)), "a word every four cycles"


def test_nothing_is_executed_before_the_crc():
    good = write(5, 1, 2, 3)
    stream = b""
    for n in range(len(good)):
        bad = bytearray(good)
        bad[n] ^= 0x40
        stream += bytes(bad) + bytes(100) + good
    bench = check(stream)
    assert bench.done == [("write", 5 + n, 1 + n) for n in range(3)] * len(good)


def test_bad_packets_are_counted_and_the_next_one_is_taken():
    good = write(9, 0xCAFE)
    bad = [
        packet(0, b"x"), packet(0x82, bytes(7)), packet(99, b""),               # types
        packet(WRITE, b""), packet(WRITE, b"\0\0"), packet(WRITE, bytes(5)), packet(WRITE, bytes(8)),
        packet(READ, bytes(2)), packet(READ, bytes(4)), host_tx(FRAME_TX, b""), host_tx(SESSION_TX, b""),
        b"\xa5" + bytes([FRAME_TX]) + struct.pack("<H", 1601),
        good[:-1] + bytes([good[-1] ^ 1]), good[:-2] + bytes([good[-2] ^ 1]) + good[-1:],
    ]
    bench = check(b"".join(b"\0\xff" + stream + good for stream in bad))
    assert bench.errors >= len(bad)
    assert bench.done == [("write", 9, 0xCAFE)] * len(bad)


def test_cut_packet_swallows_only_what_its_length_says():
    good = host_tx(FRAME_TX, bytes(range(20)))
    bench = check(b"".join(good[:cut] + write(1, 2) * 4 for cut in range(1, len(good))))
    assert bench.packets >= len(good)


def test_host_packets_wait_for_the_writes_before_them():
    words = list(range(200))
    bench = check(write(0, *words) + host_tx(SESSION_TX, b"m" * 40) + host_tx(FRAME_TX, b"f" * 60), cycles=2500)
    assert [kind for kind, _ in bench.sent] == [1, 0]
    assert bench.times[200] > bench.times[199], "the last word is written before the first packet is out"


def test_commands_wait_for_the_bank():
    bench = check(write(1, 2), ready_after=300, cycles=700)
    assert bench.times[0] >= 300


def test_all_sources_are_framed_in_their_order():
    frame, segment = bytes(range(200)), b"segment"
    decision, event = bytes(LINK["Decision"].block_length), b"e" * LINK["Event"].block_length
    bench = check(read(1, 2) + read(3, 4), cycles=900, session_sent={0: 77, 8: 1 << 63},
                  host_rx=[(0, frame), (1, segment)],
                  telemetry=[(LINK["Decision"].id, decision), (LINK["Event"].id, event)])
    packets = unpack(bench.answers)
    assert sorted(packets) == sorted([
        (LINK["SessionSent"].id, struct.pack("<Q", 77)), (LINK["SessionSent"].id, struct.pack("<Q", 1 << 63)),
        (LINK["FrameRx"].id, frame), (LINK["SessionRx"].id, segment), (LINK["Decision"].id, decision),
        (LINK["Event"].id, event), *(packet for packet in packets if packet[0] == LINK["ReadReply"].id)])
    order = [type_ for type_, _ in packets if type_ != LINK["ReadReply"].id]
    names = ("FrameRx", "SessionSent", "SessionSent", "SessionRx", "Decision", "Event")     # the frame was first there
    assert order == [LINK[name].id for name in names]
    assert [type_ for type_, _ in packets].index(LINK["ReadReply"].id) == 1, "an answer is next when the frame is done"


def test_numbers_of_sent_messages_are_lost_only_when_the_host_does_not_read():
    bench = check(b"", cycles=1200, session_sent={8 * n: n for n in range(40)}, take_tx=lambda cycle: cycle >= 330)
    seen = [struct.unpack("<Q", payload)[0] for _, payload in unpack(bench.answers)]
    assert seen == list(range(len(seen)))
    assert len(seen) >= 16
    assert bench.lost == 40 - len(seen)


def test_a_stuck_order_port_does_not_hold_up_commands_for_ever():
    message = host_tx(SESSION_TX, b"m" * 1500)
    stream = message * 2 + write(1, 0xDEAD)
    bench = Bench(stream, cycles=3600, take_host=lambda cycle: False, host_tx_bytes=2048, patience=256).run()
    assert bench.left == 0
    assert bench.done == [("write", 1, 0xDEAD)]
    assert (bench.packets, bench.errors) == (2, 1)
    # With an order port that moves on, the link waits and loses nothing.
    check(stream, cycles=5400, take_host=lambda cycle: cycle % 1024 > 200, host_tx_bytes=2048, patience=1024)


@pytest.mark.parametrize(("old", "new"), [(0, 1), (1, 2), (0xFF, 0x100), (0x7FFF_FFFF, 0x8000_0000),
                                          (0xFFFE_FFFF, 0xFFFF_0000), (0, 0xFFFF_FFFF)])
def test_who_comes_after_locks_out_who_was_before(old, new):
    """From the first word of the new writer on, whatever the old one writes, but a kill and nothing with it."""
    late = [write(5, 1, epoch=old), write(0x8000, 1, 2, 3, epoch=old), write(KILL, 7, 8, epoch=old),
            write(KILL - 1, 1, 2, epoch=old), write(KILL, 9, epoch=new)]
    bench = check(write(4, 10, epoch=old) + write(4, 11, epoch=new) + b"".join(late) + write(6, 12, epoch=new))
    assert [what for what in bench.done if what[1] not in (KILL, KILL - 1)] == [
        ("write", 4, 10), ("write", 4, 11), ("write", 6, 12)]
    assert [what for what in bench.done if what[1] in (KILL, KILL - 1)] == [("write", KILL, 7), ("write", KILL, 9)]
    assert bench.fenced == 4
    assert bench.epoch == new


@pytest.mark.parametrize(("old", "new"), [(0, 1), (0xFF, 0x100), (0xFFFE_FFFF, 0xFFFF_0000), (0, 0xFFFF_FFFF)])
def test_who_is_locked_out_sends_nothing(old, new):
    """Neither a frame nor a message, from the word of the new writer that comes right before it; nor does it take
    anything over who only sends."""
    bench = check(host_tx(FRAME_TX, b"1", old) + write(4, 10, epoch=new) + host_tx(FRAME_TX, b"2" * 60, old)
                  + host_tx(SESSION_TX, b"3", old) + host_tx(SESSION_TX, b"4", new)
                  + host_tx(FRAME_TX, b"5", 0xFFFF_FFFF) + host_tx(FRAME_TX, b"6", new), cycles=700)
    assert bench.sent == [(0, b"1"), (1, b"4"), (0, b"5"), (0, b"6")]
    assert (bench.fenced, bench.epoch, bench.errors) == (2, new, 0)


def test_a_damaged_packet_takes_nothing_over():
    bad = bytearray(write(4, 10, epoch=9))
    bad[-1] ^= 1
    bench = check(bytes(bad) + write(5, 1, epoch=1))
    assert (bench.done, bench.epoch) == ([("write", 5, 1)], 1)


def test_random_streams():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stream, epoch = b"", 0
    for _ in range(50):
        match rng.randrange(6):
            case 0 | 1:
                epoch = max(0, epoch + rng.choice((-1, 0, 0, 0, 1, 1 << 16)))
                good = write(rng.choice((KILL, rng.getrandbits(16))), *(
                    rng.getrandbits(32) for _ in range(rng.randrange(1, 8))), epoch=epoch)
            case 2:
                good = read(rng.getrandbits(8), rng.getrandbits(16))
            case 3 | 4:
                good = host_tx(rng.choice((FRAME_TX, SESSION_TX)), rng.randbytes(rng.randrange(1, 80)),
                               max(0, epoch + rng.choice((-1, 0, 0, 1))))
            case 5:
                good = rng.choice((b"\xa5", rng.randbytes(rng.randrange(20))))
        if rng.random() < 0.2:
            bad = bytearray(good or b"\xa5")
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            good = bytes(bad)
        stream += good
    check(stream + bytes(1700), rng=rng)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="host_tx_bytes is 1024, must hold the longest packet, 1600 bytes"):
        Link(host_tx_bytes=1024)
    with pytest.raises(ValueError, match="patience is 1000 cycles, must be a power of two"):
        Link(patience=1000)

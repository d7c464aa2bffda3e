# amaranth: UnusedElaboratable=no
"""EthernetLink against a reading of whole frames: what of them reaches the link, and what leaves in them."""

import random
import time

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from hdl.control.ethernet_link import HEADER_SIZE, IDLE_CYCLES, MAX_FRAME, ROOM, EthernetLink
from hdl.control.link import Link
from hdl.layout import net
from hdl.mac.stream import HeldFrame, RxBytes
from hdl.net.packet_fifo import PacketFifo
from hdl.order import timing
from tests.hdl.control.test_link import LINK, packet, read, write
from tests.hdl.order.bench import with_fcs
from tests.hdl.simulation import simulated

CARD, HOST, OTHER = net.MAC_HOST_LINK, 0x02AABBCCDDEE, 0x02AABBCCDDEF
RESTART = "restart"


def frame(payload=b"", sequence=0, *, dst=CARD, src=HOST, ethertype=0x88B5, length=None):
    """A frame of the host with its FCS; ``length`` is what it says instead of the truth."""
    length = len(payload) if length is None else length
    return with_fcs(dst.to_bytes(6, "big") + src.to_bytes(6, "big") + ethertype.to_bytes(2, "big")
                    + length.to_bytes(2, "little") + bytes([sequence, 0]) + payload)


def classify(data, ok):
    """(number, source, bytes of the link) of a frame with its FCS that is taken, otherwise ``None``."""
    body = data[:-4]
    if not ok or len(body) < 18 or body[:6] != CARD.to_bytes(6, "big") or body[12:14] != b"\x88\xb5":
        return None
    length = int.from_bytes(body[14:16], "little")
    return None if 18 + length > len(body) else (body[16], body[6:12], body[18:18 + length])


def after(number):
    return number % 255 + 1


class Bench:
    """Frames and serial bytes in, the link's side played by the bench, an order port that takes its time.

    Script entries are ``(cycle, bytes, ok)`` for frames (the first chance from that cycle on, a byte a cycle, ``gap``
    cycles between them), ``(cycle, bytes)`` for the serial port and for what the link says.
    """

    def __init__(self, cycles, frames=(), serial=(), says=(), *, ready=lambda cycle: True, accepted=(), gap=24,
                 port=lambda cycle: True):
        self.dut, self.cycles, self.gap = EthernetLink(), cycles, gap
        self.frames, self.serial, self.says = list(frames), list(serial), list(says)
        self.ready, self.accepted, self.port = ready, set(accepted), port
        self.heard = []         # (cycle, byte or RESTART) of the link
        self.sent = []          # (cycle of the start, frame)
        self.serial_out = b""
        self.lost = None        # at the end
        self.available = []     # cycles in which a frame was waiting

    def run(self):
        sim = Simulator(self.dut)
        sim.add_clock(8e-9)
        sim.add_testbench(self.testbench)
        sim.run()
        assert not self.frames, "the script has not come to its end"
        return self

    def text(self):
        """What the link heard: bytes between restarts, joined by what was in force."""
        out, now = [], bytearray()
        for _, what in self.heard:
            if what == RESTART:
                out.append(bytes(now))
                now.clear()
            else:
                now.append(what)
        return [part for part in [*out, bytes(now)] if part]

    async def testbench(self, ctx):
        dut, wire, pause = self.dut, [], 0
        asked, playing = [None, None], None
        for cycle in range(self.cycles):
            if not wire and pause == 0 and self.frames and cycle >= self.frames[0][0]:
                _, data, ok = self.frames.pop(0)
                wire = [*data, ("eof", ok)]
            byte = wire.pop(0) if wire else None
            pause = self.gap if isinstance(byte, tuple) else max(0, pause - 1)
            ctx.set(dut.rx.valid, isinstance(byte, int))
            ctx.set(dut.rx.data, byte if isinstance(byte, int) else 0xA5)
            ctx.set(dut.rx.eof, isinstance(byte, tuple))
            ctx.set(dut.rx.ok, isinstance(byte, tuple) and byte[1])
            for name, script in (("serial_rx", self.serial), ("link_tx", self.says)):
                on = bool(script) and cycle >= script[0][0]
                ctx.set(getattr(dut, f"{name}_valid"), on)
                ctx.set(getattr(dut, f"{name}_data"), script[0][1][0] if on else 0x5A)
            ready = bool(self.ready(cycle))
            ctx.set(dut.link_rx_ready, ready)
            ctx.set(dut.serial_tx_ready, 1)
            ctx.set(dut.link_rx_packets, cycle in self.accepted)

            # The order port: asks for a byte a cycle, which comes two cycles later; lets go with the last question.
            available = ctx.get(dut.tx.available)
            if available:
                self.available.append(cycle)
            if playing is None and available and self.port(cycle):
                playing = [cycle, ctx.get(dut.tx.length), 0, bytearray()]
            release = False
            if playing is not None:
                start, length, at, collected = playing
                assert at >= length or (available and ctx.get(dut.tx.length) == length)
                ctx.set(dut.tx.position, at if at < length else 0x7F)
                release = at == length - 1
                if asked[0] is not None:
                    collected.append(ctx.get(dut.tx.byte))
                asked = [asked[1], at if at < length else None]
                playing[2] += 1
                if len(collected) == length:
                    self.sent.append((start, bytes(collected)))
                    playing, asked = None, [None, None]
            ctx.set(dut.tx.release, release)

            restart = ctx.get(dut.link_rx_restart)
            valid = ctx.get(dut.link_rx_valid)
            assert not (restart and valid)
            shown = ctx.get(dut.link_rx_data) if valid else None
            if restart:
                self.heard.append((cycle, RESTART))
            if shown is not None and ready:
                self.heard.append((cycle, shown))
            if ctx.get(dut.serial_rx_ready) and self.serial and cycle >= self.serial[0][0]:
                assert shown == self.serial[0][1][0]
                self.serial[0] = (self.serial[0][0], self.serial[0][1][1:])
                if not self.serial[0][1]:
                    self.serial.pop(0)
            if ctx.get(dut.link_tx_ready) and self.says and cycle >= self.says[0][0]:
                self.says[0] = (self.says[0][0], self.says[0][1][1:])
                if not self.says[0][1]:
                    self.says.pop(0)
            if ctx.get(dut.serial_tx_valid):
                self.serial_out += bytes([ctx.get(dut.serial_tx_data)])
            await ctx.tick()
        self.lost = ctx.get(dut.lost)


def payloads(sent):
    """(destination, number, bytes of the link) of every frame sent; everything else about them is checked."""
    out = []
    for _, data in sent:
        assert data[6:12] == CARD.to_bytes(6, "big")
        assert data[12:14] == b"\x88\xb5"
        length = int.from_bytes(data[14:16], "little")
        assert 0 < length == len(data) - HEADER_SIZE
        assert len(data) <= MAX_FRAME
        out.append((int.from_bytes(data[:6], "big"), data[16], data[18:]))
    return out


def test_converts():
    verilog.convert(EthernetLink())
    assert HEADER_SIZE == 18


@pytest.mark.parametrize("mac", [0, 1 << 48, 0x0100_0000_0001])
def test_impossible_address(mac):
    with pytest.raises(ValueError, match="address of a single station"):
        EthernetLink(mac=mac)


def test_a_frame_reaches_the_link():
    """Its bytes, without header and padding, after a restart; the link waits for its FCS."""
    payload = bytes(range(100, 120))
    data = frame(payload)
    bench = Bench(200, [(10, data, True)]).run()
    assert bench.heard[0][0] > 10 + len(data), "nothing before the verdict"
    assert [what for _, what in bench.heard] == [RESTART, *payload, RESTART]
    cycles = [cycle for cycle, _ in bench.heard]
    assert cycles == [*range(cycles[0], cycles[0] + 21), cycles[0] + 22], "a byte a cycle, and the restarts"


@pytest.mark.parametrize(("data", "ok"), [
    (frame(b"x" * 60), False),
    (frame(b"x" * 60, dst=OTHER), True),
    (frame(b"x" * 60, dst=net.MAC_BROADCAST), True),
    (frame(b"x" * 60, dst=CARD ^ 1 << 47), True),
    (frame(b"x" * 60, ethertype=0x88B6), True),
    (frame(b"x" * 60, ethertype=0x0800), True),
    (frame(b"x" * 60, length=61), True),
    (frame(b"x" * 60, length=64), True),            # the FCS would be taken for the end
    (frame(b"x" * 60, length=60 | 1 << 11), True),
    (frame(b"x" * 60, length=60 | 1 << 15), True),
    (frame(b"x" * 60)[:-20], True),
    (frame()[:20], True),
    (frame()[:3], True),
], ids=["FCS", "another card", "all", "group", "EtherType 88b6", "IPv4", "one too long", "FCS as payload",
        "2 KiB longer", "32 KiB longer", "cut", "cut behind the header", "cut in the address"])
def test_what_is_let_go(data, ok):
    """Nothing of it, and no answer to its sender; the frame after it is as good as ever."""
    assert classify(data, ok) is None
    bench = Bench(500, [(5, data, ok), (5, frame(b"good", 7, src=OTHER), True)], says=[(350, b"answer")],
                  accepted=[300]).run()
    assert bench.text() == [b"good"]
    assert [to for to, _, _ in payloads(bench.sent)] == [OTHER]


def test_cut_anywhere():
    """A right FCS does not make a whole frame of a piece."""
    whole = frame(bytes(range(50)))
    frames = [(0, whole[:n], True) for n in range(1, len(whole))] + [(0, frame(b"end", 1), True)]
    bench = Bench(6_500, frames, gap=20).run()
    assert bench.text() == [b"end"]


def test_random_frames():
    seed = time.time_ns() & 0xFFFF_FFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    frames, number = [], 0
    kinds = ["good"] * 30 + ["FCS"] * 5 + ["address"] * 5 + ["type"] * 5 + ["length"] * 5 + ["skipped"] * 5
    rng.shuffle(kinds)
    for kind in kinds:
        payload = rng.randbytes(rng.choice((0, 1, 2, 41, 42, 43, rng.randrange(300))))
        if kind == "skipped":
            number = after(number)
        wrong = {"address": {"dst": CARD ^ 1 << rng.randrange(48)},
                 "type": {"ethertype": 0x88B5 ^ 1 << rng.randrange(16)},
                 "length": {"length": len(payload) + rng.randrange(44, 60000)}}.get(kind, {})
        frames.append((frame(payload, number, src=rng.choice((HOST, OTHER)), **wrong), kind != "FCS"))
        number = after(number)
    frames = [(at, *f) for at, f in zip(sorted(rng.randrange(8000) for _ in frames), frames, strict=True)]
    taken = [found for _, data, ok in frames if (found := classify(data, ok)) is not None]
    assert len(taken) == 35
    bench = Bench(30_000, frames, ready=lambda cycle: rng.random() < 0.7, gap=rng.choice((1, 12, 20))).run()
    assert bench.text() == [payload for _, _, payload in taken if payload]
    expected, lost = 0, 0
    for sequence, _, _ in taken:
        lost += sequence not in (0, expected)
        expected = after(sequence)
    assert bench.lost == lost


def test_numbers():
    """A gap counts once, whatever its length; 1 follows 255; 0 begins anew."""
    numbers = [0, 1, 2, 4, 5, 9, 255, 1, 0, 1, 0, 0, 2, 0]
    bench = Bench(3_000, [(0, frame(b"x", n), True) for n in numbers]).run()
    assert bench.lost == 4          # before 4, 9, 255 and the 2 after 0
    numbers = [*range(256), 1, 2]
    bench = Bench(21_000, [(0, frame(b"x", n), True) for n in numbers], gap=12).run()
    assert bench.lost == 0
    assert len(bench.text()) == len(numbers)


def test_the_host_is_told_what_was_lost():
    """In the next frame to it; how often, not how many."""
    bench = Bench(1_500, [(0, frame(b"ask", 0), True), (400, frame(b"x", 4), True), (700, frame(b"x", 9), True)],
                  says=[(200, b"a"), (600, b"b"), (900, b"c")], accepted=[150]).run()
    assert [data[17] for _, data in bench.sent] == [0, 1, 2]


def test_back_to_back_at_line_rate():
    """Longest frames, twelve cycles and a preamble apart, for ten times the room that there is."""
    rng = random.Random(1)
    sent = [rng.randbytes(1497) for _ in range(14)]
    bench = Bench(14 * 1600 + 2000, [(0, frame(p, n), True) for n, p in enumerate(sent)], gap=20).run()
    assert bench.text() == sent
    assert bench.lost == 0


def test_no_room():
    """A link that does not take its bytes: whole frames are lost and seen to be, none is torn."""
    rng = random.Random(2)
    sent = [rng.randbytes(400) for _ in range(12)]
    stalled = 5500
    bench = Bench(12_000, [(600 * n, frame(p, n), True) for n, p in enumerate(sent)],
                  ready=lambda cycle: cycle > stalled).run()
    heard = bench.text()
    fit = PacketFifo(ROOM).room // 400
    assert heard[:fit] == sent[:fit]
    assert heard[fit:] == sent[-len(heard) + fit:]
    assert fit < len(heard) < len(sent)
    assert bench.lost == 1


def test_room_to_the_byte():
    """What the buffer promises finds room; what is more than its memory does not."""
    for last, fits in ((PacketFifo(ROOM).room - 1200, True), (ROOM - 1200 + 4, False)):
        sent = [bytes([1]) * 1200, bytes([2]) * last, bytes([3]) * 10]
        frames = [(0, frame(sent[0], 0), True), (0, frame(sent[1], 1), True), (4200, frame(sent[2], 2), True)]
        bench = Bench(6_500, frames, ready=lambda cycle: cycle > 2600).run()
        assert bench.text() == (sent if fits else [sent[0], sent[2]])
        assert bench.lost == (not fits)


def test_nothing_is_sent_before_the_host_has_spoken():
    """The serial port has the answers until a packet was accepted that came in a frame."""
    bench = Bench(3_000, [(100, frame(b"ask"), True)], says=[(0, b"first"), (400, b"second"), (1000, b"third")],
                  accepted=[600]).run()
    assert bench.serial_out == b"firstsecond"
    assert payloads(bench.sent) == [(HOST, 0, b"third")]


def test_answers_follow_the_last_accepted_packet():
    """Serial port, frame, serial port; what is refused changes nothing."""
    frames = [(300, frame(b"frame"), True), (1500, frame(b"noise", 1), True)]
    bench = Bench(4_000, frames, serial=[(0, b"serial"), (700, b"noise"), (1000, b"serial")],
                  says=[(200, b"A"), (600, b"B"), (900, b"C"), (1200, b"D"), (1800, b"E")],
                  accepted=[20, 500, 1100]).run()
    assert bench.text() == [b"serial", b"frame", b"noiseserial", b"noise"]
    assert bench.serial_out == b"ADE"
    assert payloads(bench.sent) == [(HOST, 0, b"B"), (HOST, 1, b"C")]


def test_a_frame_goes_before_the_serial_port():
    """It cuts what the serial port has begun, and is not cut itself."""
    bench = Bench(6_000, [(100, frame(bytes(200)), True)], serial=[(0, b"s" * 3000)],
                  ready=lambda cycle: cycle % 3 == 0).run()
    first, middle, last = bench.text()
    assert middle == bytes(200)
    assert set(first) == set(last) == {ord("s")}
    assert len(first) > 50


def test_every_start_of_a_frame_restarts_the_link():
    bench = Bench(1_500, [(0, frame(b"ab", 0), True), (0, frame(b"cd", 1), True)],
                  ready=lambda cycle: cycle > 400).run()
    assert [what for _, what in bench.heard] == [RESTART, *b"ab", RESTART, *b"cd", RESTART]


def test_frames_to_the_host():
    """As long as they may be while there is something to say; the rest after a while of silence; numbers in turn."""
    rng = random.Random(3)
    text = rng.randbytes(1000)
    bench = Bench(6_000, [(0, frame(b"ask", src=OTHER), True)], says=[(200, text), (4000, b"more")], accepted=[150],
                  port=lambda cycle: rng.random() < 0.05).run()
    sent = payloads(bench.sent)
    assert b"".join(p for _, _, p in sent) == text + b"more"
    assert {to for to, _, _ in sent} == {OTHER}
    assert [n for _, n, _ in sent] == list(range(len(sent)))
    full = MAX_FRAME - HEADER_SIZE
    assert [len(p) for _, _, p in sent] == [full] * (1000 // full) + [1000 % full, 4]


def test_a_frame_is_closed_after_silence():
    """So many cycles without a byte, and no more than it takes to write the header."""
    says = [(100, b"a"), (100 + IDLE_CYCLES, b"b"), (300, b"c")]
    bench = Bench(800, [(0, frame(b"ask"), True)], says=says, accepted=[90]).run()
    assert [p for _, _, p in payloads(bench.sent)] == [b"ab", b"c"]
    assert bench.available[0] == 100 + 2 * IDLE_CYCLES + 10


def test_numbers_to_the_host():
    bench = Bench(16_200, [(0, frame(b"ask"), True)], says=[(200 + 60 * n, b"x") for n in range(260)],
                  accepted=[150]).run()
    assert [n for _, n, _ in payloads(bench.sent)] == [0, *range(1, 256), *range(1, 5)]


def test_the_wait_of_a_quote_is_bounded():
    """The longest frame keeps the order port busy for the documented number of cycles."""
    assert timing.busy_cycles(MAX_FRAME) == 148


# -- with the link itself ---------------------------------------------------------------------------------------------

class Both(wiring.Component):
    """EthernetLink and Link, joined as in the core."""

    def __init__(self):
        self.link = Link()
        super().__init__({
            "rx": In(RxBytes), "tx": Out(HeldFrame),
            "serial_rx_data": In(8), "serial_rx_valid": In(1), "serial_rx_ready": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = self.link
        m.submodules.ethernet = ethernet = EthernetLink()
        connect(m, flipped(self.rx), ethernet.rx)
        connect(m, flipped(self.tx), ethernet.tx)
        for name in ("serial_rx_data", "serial_rx_valid"):
            m.d.comb += getattr(ethernet, name).eq(getattr(self, name))
        m.d.comb += self.serial_rx_ready.eq(ethernet.serial_rx_ready)
        for name in ("rx_data", "rx_valid", "rx_restart", "tx_ready"):
            m.d.comb += getattr(link, name).eq(getattr(ethernet, f"link_{name}"))
        for name in ("rx_ready", "rx_packets", "tx_data", "tx_valid"):
            m.d.comb += getattr(ethernet, f"link_{name}").eq(getattr(link, name))
        m.d.comb += [link.bus.ready.eq(1), link.bus.read_data.eq(0x12345678)]
        return m


def run_both(cycles, frames=(), serial=()):
    """(writes, packets, errors, frames to the host)."""
    dut = Both()
    frames, serial = list(frames), list(serial)
    writes, counts, sent = [], [0, 0], []

    async def testbench(ctx):
        wire, playing = [], None
        for cycle in range(cycles):
            if not wire and frames and cycle >= frames[0][0]:
                wire = [*frames.pop(0)[1], None] + [""] * 20
            byte = wire.pop(0) if wire else ""
            ctx.set(dut.rx.valid, isinstance(byte, int))
            ctx.set(dut.rx.data, byte if isinstance(byte, int) else 0)
            ctx.set(dut.rx.eof, byte is None)
            ctx.set(dut.rx.ok, byte is None)
            on = bool(serial) and cycle >= serial[0][0]
            ctx.set(dut.serial_rx_valid, on)
            ctx.set(dut.serial_rx_data, serial[0][1][0] if on else 0)
            if ctx.get(dut.serial_rx_ready) and on:
                serial[0] = (serial[0][0], serial[0][1][1:])
                if not serial[0][1]:
                    serial.pop(0)
            if ctx.get(dut.link.bus.we):
                writes.append((ctx.get(dut.link.bus.addr), ctx.get(dut.link.bus.data)))
            counts[0] += ctx.get(dut.link.rx_packets)
            counts[1] += ctx.get(dut.link.rx_errors)
            if playing is None and ctx.get(dut.tx.available):
                playing = [ctx.get(dut.tx.length), bytearray(), 0]
            ctx.set(dut.tx.release, 0)
            if playing is not None:
                length, collected, at = playing
                ctx.set(dut.tx.position, min(at, length - 1))
                ctx.set(dut.tx.release, at == length - 1)
                if at >= 2:
                    collected.append(ctx.get(dut.tx.byte))
                playing[2] += 1
                if len(collected) == length:
                    sent.append(bytes(collected))
                    playing = None
            await ctx.tick()

    simulated(dut, testbench)
    return writes, *counts, sent


def test_packets_in_frames():
    """Several in one frame, executed in order, and the answers come back in a frame."""
    writes, packets, errors, sent = run_both(1200, [
        (0, frame(write(5, 10, 11) + read(7, 3) + read(8, 4) + write(9, 12), 0)), (0, frame(write(6, 13), 1))])
    assert writes == [(5, 10), (6, 11), (9, 12), (6, 13)]
    assert (packets, errors) == (5, 0)
    replies = b"".join(packet(LINK["ReadReply"].id, LINK["ReadReply"].encode({"tag": t, "addr": a, "data": 0x12345678}))
                       for t, a in ((7, 3), (8, 4)))
    assert payloads((0, data) for data in sent) == [(HOST, 0, replies)]


@pytest.mark.parametrize("cut", [1, 4, 9, 11])
def test_half_a_packet_on_the_serial_port_does_not_hurt_a_frame(cut):
    half = write(5, 10)[:cut]
    writes, packets, errors, _ = run_both(600, [(50, frame(write(6, 11)))], [(0, half), (400, write(7, 12))])
    assert writes == [(6, 11), (7, 12)]
    assert (packets, errors) == (2, 1)


@pytest.mark.parametrize("cut", [1, 4, 9, 11])
def test_half_a_packet_in_a_frame_hurts_nothing_behind_it(cut):
    """Neither the next frame nor the serial port."""
    half = write(5, 10)[:cut]
    writes, packets, errors, _ = run_both(900, [(0, frame(half, 0)), (0, frame(write(6, 11), 1)),
                                                (300, frame(half, 2))], [(600, write(7, 12))])
    assert writes == [(6, 11), (7, 12)]
    assert (packets, errors) == (2, 2)

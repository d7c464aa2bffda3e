# amaranth: UnusedElaboratable=no
"""PacketFifo against a queue of packets."""

import random
from collections import deque

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.net.packet_fifo import PacketFifo


class Model:
    """A FIFO of packets that counts its bytes."""

    def __init__(self, depth_bytes, max_packets):
        self.depth_bytes, self.max_packets = depth_bytes, max_packets
        self.packets = deque()
        self.writing, self.lost, self.room = b"", False, depth_bytes

    def cycle(self, *, byte, commit, discard, trim, tag, take):
        """One cycle; returns whether a commit was refused. `take`: a byte of the first packet leaves."""
        if byte is not None:
            if len(self.writing) < self.room and not self.lost:
                self.writing += bytes([byte])
            else:
                self.lost = True
        refused = False
        if commit or discard:
            packet = self.writing[:max(0, len(self.writing) - trim)]
            if not discard:
                refused = self.lost or len(self.packets) == self.max_packets
                if not refused and packet:
                    self.packets.append([packet, tag])
                    self.room -= len(packet)
            self.writing, self.lost = b"", False
        if take:
            self.room += 1
        return refused

    def drop_head(self):
        self.packets.popleft()


def drive(ctx, dut, *, byte=None, commit=False, discard=False, trim=0, tag=0, ready=False):
    ctx.set(dut.w_valid, byte is not None)
    ctx.set(dut.w_data, byte or 0)
    ctx.set(dut.w_commit, commit)
    ctx.set(dut.w_discard, discard)
    ctx.set(dut.w_trim, trim)
    ctx.set(dut.w_tag, tag)
    ctx.set(dut.o.ready, ready)


def simulate(dut, testbench):
    sim = Simulator(dut)
    sim.add_clock(8e-9)
    sim.add_testbench(testbench)
    sim.run()


def test_latency_length_and_no_gaps():
    verilog.convert(PacketFifo(64, 4))
    dut = PacketFifo(64, 4)

    async def testbench(ctx):
        script = [(1, False), (2, False), (3, True), (4, True), (5, False), (6, True)]      # byte, commit
        seen = []
        for cycle in range(14):
            byte, commit = script[cycle] if cycle < len(script) else (None, False)
            drive(ctx, dut, byte=byte, commit=commit, tag=cycle, ready=True)
            if ctx.get(dut.o.valid):
                assert ctx.get(dut.length_valid)
                seen.append((cycle, ctx.get(dut.o.data), ctx.get(dut.o.last), ctx.get(dut.length), ctx.get(dut.tag)))
            await ctx.tick()
        # Committed in cycles 2, 3 and 5: on `o` two cycles later, or as soon as what is before has left.
        assert seen == [(4, 1, 0, 3, 2), (5, 2, 0, 3, 2), (6, 3, 1, 3, 2), (7, 4, 1, 1, 3),
                        (8, 5, 0, 2, 5), (9, 6, 1, 2, 5)]

    simulate(dut, testbench)


def test_head_is_held_until_taken():
    dut = PacketFifo(16, 2)

    async def testbench(ctx):
        drive(ctx, dut, byte=0x42, commit=True, tag=7)
        await ctx.tick()
        drive(ctx, dut)
        await ctx.tick().repeat(9)
        assert (ctx.get(dut.o.valid), ctx.get(dut.o.data), ctx.get(dut.o.last), ctx.get(dut.tag)) == (1, 0x42, 1, 7)
        drive(ctx, dut, ready=True)
        await ctx.tick()
        assert not ctx.get(dut.o.valid)

    simulate(dut, testbench)


def test_overflow_drops_the_packet_whole_and_the_next_one_fits():
    dut = PacketFifo(8, 2)

    async def testbench(ctx):
        for n in range(9):
            assert ctx.get(dut.w_ready) == (n < 8)
            drive(ctx, dut, byte=n)
            await ctx.tick()
        drive(ctx, dut, commit=True)
        assert ctx.get(dut.w_refused)
        assert ctx.get(dut.dropped)
        await ctx.tick()
        for n in range(8):
            drive(ctx, dut, byte=0x10 + n, commit=n == 7)
            assert not ctx.get(dut.dropped)
            await ctx.tick()
        drive(ctx, dut, ready=True)
        await ctx.tick()
        for n in range(8):
            assert ctx.get(dut.o.valid)
            assert ctx.get(dut.o.data) == 0x10 + n
            await ctx.tick()
        assert not ctx.get(dut.o.valid)

    simulate(dut, testbench)


@pytest.mark.parametrize(("depth", "packets"), [(2, 2), (16, 2), (32, 4), (64, 32)])
def test_random(depth, packets):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    verilog.convert(PacketFifo(depth, packets))
    dut = PacketFifo(depth, packets)
    taken, dropped = 0, 0

    async def testbench(ctx):
        nonlocal taken, dropped
        model = Model(depth, packets)
        position, held = 0, None
        paces = [(reading, writing) for reading in (0.1, 0.5, 1) for writing in (0.1, 0.5, 1)]
        rng.shuffle(paces)
        for cycle in range(200 * len(paces)):
            reading, writing = paces[cycle // 200]
            stimulus = {
                "byte": rng.randrange(256) if rng.random() < writing else None,
                "commit": rng.random() < 4 / depth * rng.choice((0.2, 1)), "discard": rng.random() < 0.02,
                "trim": rng.choice((0, 0, 1, 4)), "tag": rng.randrange(256),
            }
            ready = rng.random() < reading
            drive(ctx, dut, **stimulus, ready=ready)
            shown = None
            if ctx.get(dut.o.valid):
                packet, tag = model.packets[0]
                shown = (ctx.get(dut.o.data), ctx.get(dut.o.last), ctx.get(dut.length), ctx.get(dut.tag))
                assert shown == (packet[position], position + 1 == len(packet), len(packet), tag)
            assert held is None or shown == held, "what was shown must hold until it is taken"
            take = shown is not None and ready
            held = None if take else shown
            refused = ctx.get(dut.w_refused)
            was_dropped = model.cycle(**stimulus, take=take)
            assert ctx.get(dut.dropped) == was_dropped
            assert not was_dropped or refused
            dropped += was_dropped
            if take:
                taken += 1
                position += 1
                if position == len(model.packets[0][0]):
                    model.drop_head()
                    position = 0
            await ctx.tick()

    simulate(dut, testbench)
    assert taken > 50
    assert dropped > 0 or depth == 64


@pytest.mark.parametrize("arguments", [(12, 4), (16, 0), (16, 3)])
def test_sizes_are_checked(arguments):
    with pytest.raises(ValueError, match="must be a power of two"):
        PacketFifo(*arguments)

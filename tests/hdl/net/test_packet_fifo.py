# amaranth: UnusedElaboratable=no
"""PacketFifo against a queue of packets."""

import random
from collections import deque

import pytest
from amaranth.back import verilog

from hdl.net import packet_fifo
from hdl.net.packet_fifo import PacketFifo
from tests.hdl.simulation import simulated


@pytest.fixture(params=[packet_fifo.BANK, 16], autouse=True, ids=["one block", "several blocks"])
def bank(request, monkeypatch):
    monkeypatch.setattr(packet_fifo, "BANK", request.param)


def drive(ctx, dut, *, byte=None, commit=False, discard=False, ready=False):
    ctx.set(dut.w_valid, byte is not None)
    ctx.set(dut.w_data, byte or 0)
    ctx.set(dut.w_commit, commit)
    ctx.set(dut.w_discard, discard)
    ctx.set(dut.o.ready, ready)


def simulate(dut, testbench):
    simulated(dut, testbench)


def test_latency_and_no_gaps():
    verilog.convert(PacketFifo(64))
    dut = PacketFifo(64)

    async def testbench(ctx):
        script = [1, 2, "commit", 3, "commit", 4, "discard", 5, 6, 7, "commit"]
        seen, busy = [], []
        for cycle in range(24):
            step = script[cycle] if cycle < len(script) else None
            drive(ctx, dut, byte=step if isinstance(step, int) else None, commit=step == "commit",
                  discard=step == "discard", ready=True)
            if ctx.get(dut.o.valid):
                seen.append((cycle, ctx.get(dut.o.data), ctx.get(dut.o.last)))
            if ctx.get(dut.busy):
                busy.append(cycle)
            await ctx.tick()
        # Committed in cycles 2, 4 and 10. A single byte is a cycle later, and two cycles are between packets.
        assert seen == [(4, 1, 0), (5, 2, 1), (8, 3, 1), (12, 5, 0), (13, 6, 0), (14, 7, 1)]
        assert busy == [*range(3, 9), *range(11, 15)]

    simulate(dut, testbench)


@pytest.mark.parametrize("late", range(4))
def test_next_packet_follows_three_cycles_after_the_last_byte(late):
    """Whether it is committed before, with or right after the last byte of the one before it."""
    dut = PacketFifo(64)

    async def testbench(ctx):
        script = [1, 2, "commit", *[None] * 4, 3, 4, *[None] * late, "commit"]
        taken = {}
        for cycle in range(30):
            step = script[cycle] if cycle < len(script) else None
            ready = cycle >= 11     # the first packet's bytes are taken in 11 and 12
            drive(ctx, dut, byte=step if isinstance(step, int) else None, commit=step == "commit", ready=ready)
            if ready and ctx.get(dut.o.valid):
                taken[ctx.get(dut.o.data)] = cycle
            await ctx.tick()
        assert taken == {1: 11, 2: 12, 3: max(15, 9 + late + 2), 4: max(15, 9 + late + 2) + 1}

    simulate(dut, testbench)


def test_head_is_held_until_taken():
    dut = PacketFifo(32)

    async def testbench(ctx):
        drive(ctx, dut, byte=0x42)
        await ctx.tick()
        drive(ctx, dut, commit=True)
        await ctx.tick()
        drive(ctx, dut)
        await ctx.tick().repeat(9)
        assert (ctx.get(dut.o.valid), ctx.get(dut.o.data), ctx.get(dut.o.last)) == (1, 0x42, 1)
        drive(ctx, dut, ready=True)
        await ctx.tick()
        assert not ctx.get(dut.o.valid)
        assert not ctx.get(dut.busy)

    simulate(dut, testbench)


def test_overflow_drops_the_packet_whole_and_the_next_one_fits():
    dut = PacketFifo(32)

    async def testbench(ctx):
        for n in range(40):
            drive(ctx, dut, byte=n)
            await ctx.tick()
        assert not ctx.get(dut.w_room)
        assert not ctx.get(dut.w_ready)
        drive(ctx, dut, commit=True)
        assert ctx.get(dut.dropped)
        await ctx.tick()
        drive(ctx, dut)
        await ctx.tick().repeat(2)
        for n in range(dut.room):
            drive(ctx, dut, byte=0x10 + n)
            await ctx.tick()
        drive(ctx, dut, commit=True)
        assert not ctx.get(dut.dropped)
        await ctx.tick()
        drive(ctx, dut, ready=True)
        await ctx.tick()
        for n in range(dut.room):
            assert ctx.get(dut.o.valid)
            assert ctx.get(dut.o.data) == 0x10 + n
            await ctx.tick()
        assert not ctx.get(dut.o.valid)

    simulate(dut, testbench)


@pytest.mark.parametrize(("depth", "waits"), [(32, False), (64, False), (64, True), (512, True)])
def test_random(depth, waits):
    """Against a queue. A writer that waits loses nothing; another one what does not fit and nothing else."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    verilog.convert(PacketFifo(depth))
    dut = PacketFifo(depth)
    taken, dropped, packets_seen = 0, 0, 0

    async def testbench(ctx):
        nonlocal taken, dropped, packets_seen
        packets, writing, used = deque(), [], 0      # `used` and what is written are in the memory
        most, position, held, lag, pause = 0, 0, None, deque([True] * 4), 0
        paces = [(reading, writing) for reading in (0.1, 0.5, 1) for writing in (0.1, 0.5, 1)]
        rng.shuffle(paces)
        for cycle in range(400 * len(paces)):
            reading, pace = paces[cycle // 400]
            lag.append(ctx.get(dut.w_ready))
            # A writer may be late by a few cycles to see that there is no room. One too long gives up.
            may = (lag.popleft() or lag[-1]) if waits else True
            end = rng.random() < 4 / depth or (waits and len(writing) >= dut.room // 2)
            discard = end and rng.random() < 0.2
            byte = rng.randrange(256) if not end and not pause and may and rng.random() < pace else None
            pause = 2 if end else max(0, pause - 1)
            ready = rng.random() < reading
            drive(ctx, dut, byte=byte, commit=end, discard=discard, ready=ready)
            shown = None
            if ctx.get(dut.o.valid):
                packet = packets[0]
                shown = (ctx.get(dut.o.data), ctx.get(dut.o.last))
                assert shown == (packet[position], position + 1 == len(packet))
            assert bool(packets) == ctx.get(dut.busy)
            assert held is None or shown == held, "what was shown must hold until it is taken"
            take = shown is not None and ready
            held = None if take else shown
            was_dropped = ctx.get(dut.dropped)
            if byte is not None:
                writing.append(byte)
                most = max(most, used + len(writing))
            if end:
                assert not was_dropped or not discard
                if was_dropped:
                    dropped += 1
                    assert most >= depth - 2 * dut.block, "dropped although there was room"
                elif not discard:
                    assert len(writing) <= depth
                    if writing:
                        packets.append(writing)
                        used += len(writing)
                        packets_seen += 1
                writing, most = [], used
            if take:
                taken += 1
                used -= 1
                position += 1
                if position == len(packets[0]):
                    packets.popleft()
                    position = 0
            await ctx.tick()

    simulate(dut, testbench)
    assert taken > 100
    assert packets_seen > 10
    assert (dropped == 0) == waits


@pytest.mark.parametrize("depth", [48, 16, 0])
def test_size_is_checked(depth):
    with pytest.raises(ValueError, match="must be a power of two"):
        PacketFifo(depth)

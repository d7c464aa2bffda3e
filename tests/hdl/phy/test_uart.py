# amaranth: UnusedElaboratable=no
"""Serial port against a peer with a clock of its own, noise and faults."""

import random
import time

import pytest
from amaranth.sim import Simulator

from hdl.phy.uart import Uart, divisor

PERIOD = 8e-9
DIVISOR = 20


def simulate(dut, bench, *background, seconds=1e-3):
    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    for each in background:
        sim.add_testbench(each, background=True)
    sim.run_until(seconds)


async def send(ctx, dut, byte, *, bit=DIVISOR * PERIOD, stop=1):
    for level in [0, *(byte >> n & 1 for n in range(8)), stop]:
        ctx.set(dut.rx, level)
        await ctx.delay(bit)


def receiver(dut, out, ready=lambda: 1):
    async def bench(ctx):
        while True:
            ctx.set(dut.o_ready, ready())
            _, _, valid, data, taken = await ctx.tick().sample(dut.o_valid, dut.o_data, dut.o_ready)
            if valid and taken:
                out.append(data)
    return bench


@pytest.mark.parametrize("deviation", [-0.02, -0.01, 0.0, 0.01, 0.02])
def test_bytes_arrive_whole_from_a_peer_whose_clock_differs(deviation):
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut, out = Uart(divisor=DIVISOR), []
    data = [rng.randrange(256) for _ in range(30)] + [0x00, 0xFF, 0x55, 0xAA]

    async def peer(ctx):
        ctx.set(dut.rx, 1)
        await ctx.delay(rng.random() * 50 * PERIOD)
        for byte in data:
            await send(ctx, dut, byte, bit=DIVISOR * PERIOD * (1 + deviation))
        await ctx.delay(30 * PERIOD)

    simulate(dut, peer, receiver(dut, out), seconds=len(data) * 11 * DIVISOR * PERIOD)
    assert out == data


def test_short_noise_is_no_start_bit_and_a_spike_does_not_flip_a_bit():
    dut, out = Uart(divisor=DIVISOR), []

    async def peer(ctx):
        ctx.set(dut.rx, 1)
        await ctx.delay(20 * PERIOD)
        ctx.set(dut.rx, 0)              # shorter than half a bit
        await ctx.delay(6 * PERIOD)
        ctx.set(dut.rx, 1)
        await ctx.delay(40 * PERIOD)
        for n, level in enumerate([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]):      # 0x55, with a spike in the middle of bit 3
            ctx.set(dut.rx, level)
            if n == 4:
                await ctx.delay(9.2 * PERIOD)
                ctx.set(dut.rx, 1 - level)
                await ctx.delay(1.1 * PERIOD)
                ctx.set(dut.rx, level)
                await ctx.delay((DIVISOR - 10.3) * PERIOD)
            else:
                await ctx.delay(DIVISOR * PERIOD)
        await ctx.delay(40 * PERIOD)

    simulate(dut, peer, receiver(dut, out), seconds=400 * PERIOD)
    assert out == [0x55]


def test_a_byte_without_stop_bit_is_dropped_and_the_next_is_whole():
    dut, out, errors = Uart(divisor=DIVISOR), [], []

    async def peer(ctx):
        ctx.set(dut.rx, 1)
        await ctx.delay(20 * PERIOD)
        await send(ctx, dut, 0x3C, stop=0)
        await ctx.delay(15 * DIVISOR * PERIOD)      # a break
        ctx.set(dut.rx, 1)
        await ctx.delay(3 * DIVISOR * PERIOD)
        await send(ctx, dut, 0xC3)
        await ctx.delay(20 * PERIOD)

    async def count(ctx):
        while True:
            _, _, error = await ctx.tick().sample(dut.framing_error)
            errors.append(error)

    simulate(dut, peer, receiver(dut, out), count, seconds=1000 * PERIOD)
    assert out == [0xC3]
    assert sum(errors) == 1


def test_a_byte_that_is_not_taken_is_lost_and_said():
    dut, out, lost, accepting = Uart(divisor=DIVISOR), [], [], [0]

    async def peer(ctx):
        ctx.set(dut.rx, 1)
        await ctx.delay(20 * PERIOD)
        await send(ctx, dut, 1)
        await send(ctx, dut, 2)
        accepting[0] = 1
        await send(ctx, dut, 3)
        await ctx.delay(20 * PERIOD)

    async def count(ctx):
        while True:
            _, _, overrun = await ctx.tick().sample(dut.overrun)
            lost.append(overrun)

    simulate(dut, peer, receiver(dut, out, lambda: accepting[0]), count, seconds=800 * PERIOD)
    assert out == [2, 3]
    assert sum(lost) == 1


def test_what_is_sent_is_on_the_line_bit_for_bit_without_gaps():
    dut, levels = Uart(divisor=DIVISOR), []
    data = [0x00, 0xFF, 0x96]

    async def source(ctx):
        for byte in data:
            ctx.set(dut.i_valid, 1)
            ctx.set(dut.i_data, byte)
            await ctx.tick().until(dut.i_ready)
        ctx.set(dut.i_valid, 0)
        await ctx.tick().repeat(12 * DIVISOR)

    async def line(ctx):
        while True:
            _, _, level = await ctx.tick().sample(dut.tx)
            levels.append(level)

    simulate(dut, source, line, seconds=40 * DIVISOR * PERIOD)
    start, bits = levels.index(0), []
    for _ in data:
        bits.append([levels[start + n * DIVISOR + DIVISOR // 2] for n in range(10)])
        start += 10 * DIVISOR + 1       # one cycle to take the next byte
    assert bits == [[0, *(byte >> n & 1 for n in range(8)), 1] for byte in data]


def test_divisors():
    assert divisor(125e6, 3_000_000) == 42
    assert divisor(125e6, 115_200) == 1085
    with pytest.raises(ValueError, match="20000000 bits a second cannot be made"):
        divisor(125e6, 20_000_000)
    with pytest.raises(ValueError, match="divisor is 7 cycles a bit"):
        Uart(divisor=7)

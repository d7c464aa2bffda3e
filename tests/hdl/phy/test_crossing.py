"""Received frames from one clock to another: whole, whichever is faster; broken ones end and harm no other."""

import random
import time

import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator

from hdl.phy.crossing import RxCrossing

PERIOD = 8e-9


def run(frames, *, ppm=0.0, phase=0.3, stop=None, seconds=None):
    """Frames (lists of (byte, error)) with gaps; returns those on the other side.

    ``stop``: (domain, start, length) of a rest of one of the clocks, in cycles."""
    dut = RxCrossing(i_domain="rx")
    m = Module()
    clocks = {name: ClockDomain(name, reset_less=True) for name in ("rx", "sync")}
    m.domains += clocks.values()
    m.submodules.dut = dut
    sim = Simulator(m)
    total = sum(len(frame) + gap for frame, gap in frames) + 200
    seconds = seconds or total * PERIOD

    def clock(domain, period, offset):
        async def bench(ctx):
            await ctx.delay(offset)
            for n in range(int(total * PERIOD / period) + 100):
                if stop and stop[0] == domain and n == stop[1]:
                    await ctx.delay(stop[2] * period)
                ctx.set(clocks[domain].clk, 1)
                await ctx.delay(period / 2)
                ctx.set(clocks[domain].clk, 0)
                await ctx.delay(period / 2)
        return bench

    async def source(ctx):
        for frame, gap in frames:
            for byte, error in frame:
                ctx.set(dut.i_rxd, byte)
                ctx.set(dut.i_rx_dv, 1)
                ctx.set(dut.i_rx_er, error)
                await ctx.tick("rx")
            ctx.set(dut.i_rx_dv, 0)
            ctx.set(dut.i_rx_er, 0)
            await ctx.tick("rx").repeat(gap)
        await ctx.delay(1)      # the clocks end the simulation

    out, current = [], []

    async def sink(ctx):
        nonlocal current
        while True:
            _, _, valid, byte, error = await ctx.tick("sync").sample(dut.o_rx_dv, dut.o_rxd, dut.o_rx_er)
            if valid:
                current.append((byte, error))
            elif current:
                out.append(current)
                current = []

    sim.add_testbench(clock("rx", PERIOD, phase * PERIOD), background=True)
    sim.add_testbench(clock("sync", PERIOD * (1 + ppm * 1e-6), 0.1 * PERIOD), background=True)
    sim.add_testbench(source, background=True)
    sim.add_testbench(sink, background=True)
    sim.run_until(seconds)
    return out


def frames_of(rng, count, longest, gap):
    return [([(rng.randrange(256), int(rng.random() < 0.01)) for _ in range(rng.randrange(1, longest))], gap(rng))
            for _ in range(count)]


@pytest.mark.parametrize("ppm", [-400.0, 0.0, 400.0])
def test_frames_arrive_whole_with_either_clock_faster(ppm):
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    frames = frames_of(rng, 12, 80, lambda rng: rng.choice([8, 12, 20]))
    frames += [([(n & 255, 0) for n in range(1530)], 12)]
    assert run(frames, ppm=ppm, phase=rng.random()) == [frame for frame, _ in frames]


@pytest.mark.parametrize("domain", ["rx", "sync"])
def test_a_clock_that_rests_breaks_the_frame_under_way_and_at_most_the_next(domain):
    frames = [([(n & 255, 0) for n in range(100)], 12) for _ in range(4)]
    whole = [frame for frame, _ in frames]
    out = run(frames, stop=(domain, 160, 60), seconds=900 * PERIOD)
    assert out[0] == whole[0]
    assert out[-1] == whole[-1]
    broken = [frame for frame in out if frame not in whole]
    assert 1 <= len(broken) <= 2        # the next one too, if it comes while the queue is full
    assert all(len(frame) < 100 for frame in broken)


def test_latency():
    dut_frames = [([(1, 0)] * 40, 12)]
    began = []
    dut = RxCrossing(i_domain="rx")
    m = Module()
    clocks = {name: ClockDomain(name, reset_less=True) for name in ("rx", "sync")}
    m.domains += clocks.values()
    m.submodules.dut = dut
    sim = Simulator(m)
    sim.add_clock(PERIOD, domain="rx", phase=3e-9)
    sim.add_clock(PERIOD, domain="sync", phase=1e-9)
    cycle = 0

    async def count(ctx):
        nonlocal cycle
        while True:
            _, _, valid = await ctx.tick("sync").sample(dut.o_rx_dv)
            cycle += 1
            if valid and len(began) == 1:
                began.append(cycle)

    async def source(ctx):
        await ctx.tick("rx").repeat(10)
        began.append(cycle)
        ctx.set(dut.i_rx_dv, 1)
        await ctx.tick("rx").repeat(len(dut_frames[0][0]))
        ctx.set(dut.i_rx_dv, 0)
        await ctx.tick("rx").repeat(40)

    sim.add_testbench(count, background=True)
    sim.add_testbench(source)
    sim.run()
    assert 8 <= began[1] - began[0] <= 10

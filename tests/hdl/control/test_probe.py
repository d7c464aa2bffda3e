"""LatencyProbe against statistics made in Python."""

import random

from amaranth.back import verilog

from hdl.control.probe import PROBE_LATENCY, LatencyProbe
from hdl.control.registers import HISTOGRAM_BINS, LATENCY_BITS
from tests.hdl.simulation import simulated


def test_statistics_of_random_frames():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    verilog.convert(LatencyProbe())
    dut = LatencyProbe()

    async def testbench(ctx):
        async def tick(count=1):
            await ctx.tick().repeat(count)

        await tick(HISTOGRAM_BINS)
        assert ctx.get(dut.minimum) == (1 << LATENCY_BITS) - 1
        latencies = []
        for _ in range(120):
            direct = rng.random() < 0.7
            wait = rng.choice((2, 8, 8, 8, 62, 63, 64, 65, rng.randrange(2, 200)))
            if direct:
                await tick()
                ctx.set(dut.fire, 1)
                await tick()
                ctx.set(dut.fire, 0)
                if wait > 2:
                    await tick(wait - 2)
            ctx.set(dut.tx_en, 1)
            for n in range(PROBE_LATENCY):
                assert ctx.get(dut.measured) == (direct and n == 2), "a frame is measured once"
                if direct and n == 2:
                    assert ctx.get(dut.latency) == wait
                await tick()
            if direct:
                latencies.append(wait)
            if latencies:
                assert ctx.get(dut.minimum) == min(latencies)
                assert ctx.get(dut.maximum) == max(latencies)
                assert ctx.get(dut.sum) == sum(latencies)
            assert ctx.get(dut.count) == len(latencies)
            await tick(rng.randrange(3, 10))
            ctx.set(dut.tx_en, 0)
            await tick(rng.randrange(1, 4))
        for bin_ in range(HISTOGRAM_BINS):
            ctx.set(dut.histogram_addr, bin_)
            await tick(4)
            expected = sum(min(latency, HISTOGRAM_BINS - 1) == bin_ for latency in latencies)
            assert ctx.get(dut.histogram_data) == expected

    simulated(dut, testbench)


def test_the_host_reads_while_frames_are_counted():
    """Whatever the host's address, bins are counted right; and a steady address shows its bin whatever is counted."""
    dut = LatencyProbe()

    async def testbench(ctx):
        await ctx.tick().repeat(HISTOGRAM_BINS + 1)
        for n in range(30):
            ctx.set(dut.histogram_addr, 9)
            ctx.set(dut.fire, 1)
            await ctx.tick()
            ctx.set(dut.fire, 0)
            await ctx.tick().repeat(5 + n % 2)
            ctx.set(dut.tx_en, 1)
            for since in range(12):
                if since == n % 7:
                    ctx.set(dut.histogram_addr, 7)
                elif since == n % 7 + 4:
                    old, new = (n + 1) // 2, (n + 2) // 2
                    assert ctx.get(dut.histogram_data) in {old, new}
                await ctx.tick()
            assert ctx.get(dut.histogram_data) == new
            ctx.set(dut.tx_en, 0)
            await ctx.tick()

    simulated(dut, testbench)

"""cocotb side of test_clocks.py: the guard between clocks that stop, slow down, wander and come back."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import Edge, FallingEdge, RisingEdge, Timer

from hdl.phy.clocks import STOPPED, WINDOW, ClockGuard

PERIOD_NS = 8
SHORTEST_NS = 3.9       # of a pulse, high or low: half a period of the faster clock


class TB:
    def __init__(self, dut):
        self.dut = dut
        self.rng = random.Random(cocotb.RANDOM_SEED)
        for name in ("feed_clk", "request", "busy"):
            getattr(dut, name).value = 0
        dut.link_up.value = 1
        Clock(dut.local_clk, PERIOD_NS, unit="ns").start()
        self.feed = None
        self.pulses = []            # length in ns of every pulse of the core's clock
        cocotb.start_soon(self._watch())

    async def _watch(self):
        last = None
        await Timer(10 * PERIOD_NS, "ns")       # the clocks of the test before have ended anyhow
        while True:
            await Edge(self.dut.core_clk)
            now = get_sim_time("ps")
            if last is not None:
                self.pulses.append((now - last) / 1000)
                assert self.pulses[-1] >= SHORTEST_NS, f"pulse of {self.pulses[-1]} ns at {now / 1000} ns"
            last = now

    async def start_feed(self, period_ps=8000):
        """Let the feed clock run, out of step with everything else."""
        await Timer(self.rng.randrange(1, 8000), "ps")
        self.feed = Clock(self.dut.feed_clk, period_ps, unit="ps", period_high=period_ps // 2)
        self.feed.start()

    async def stop_feed(self, level=None):
        """Stop it at once, at the level that it has, or that is given, at no special time."""
        await Timer(self.rng.randrange(1, 8000), "ps")
        if level is not None:
            await (RisingEdge if level else FallingEdge)(self.dut.feed_clk)
            await Timer(100, "ps")
        self.feed.stop()
        return get_sim_time("ns")

    async def until(self, signal, value, limit_ns):
        end = get_sim_time("ns") + limit_ns
        while signal.value != value:
            assert get_sim_time("ns") < end, f"{signal._name} is not {value} after {limit_ns} ns"
            await FallingEdge(self.dut.local_clk)

    async def ask(self):
        await FallingEdge(self.dut.core_clk)
        self.dut.request.value = 1
        await FallingEdge(self.dut.core_clk)
        self.dut.request.value = 0

    async def run_on_feed(self):
        await self.start_feed()
        await self.ask()
        await self.until(self.dut.on_feed, 1, 4 * WINDOW * PERIOD_NS)
        await self.until(self.dut.feed_lost, 0, 20 * PERIOD_NS)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def starts_on_the_local_clock_and_takes_the_feeds_when_it_is_good(dut):
    tb = TB(dut)
    await Timer(2000, "ns")
    assert dut.on_feed.value == 0
    assert dut.feed_lost.value == 1
    assert dut.cycles.value.to_unsigned() > 200
    dut.busy.value = 1
    await tb.start_feed()
    await Timer(4 * WINDOW * PERIOD_NS, "ns")
    assert dut.good.value == 1
    assert dut.on_feed.value == 0, "it must not rest the clock while a frame is sent"
    dut.busy.value = 0
    await tb.until(dut.on_feed, 1, 100)     # without a request, after power-up
    await tb.until(dut.feed_lost, 0, 200)
    assert max(tb.pulses) <= 16 * PERIOD_NS


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def a_feed_clock_that_stops_is_replaced_in_time(dut):
    tb = TB(dut)
    rests = []
    for turn in range(24):
        await tb.run_on_feed()
        await Timer(tb.rng.randrange(100, 4000), "ns")
        tb.pulses.clear()
        stopped = await tb.stop_feed(level=[None, 0, 1][turn % 3])
        before = dut.cycles.value.to_unsigned()
        await tb.until(dut.on_feed, 0, 20 * PERIOD_NS)
        await RisingEdge(dut.core_clk)
        rests.append((get_sim_time("ns") - stopped) / PERIOD_NS)
        assert dut.quiet.value == 1, "the core must not listen when its clock goes on"
        await Timer(10 * PERIOD_NS, "ns")
        assert dut.feed_lost.value == 1
        assert dut.cycles.value.to_unsigned() - before >= 9
    cocotb.log.info("rest of the core's clock: %.1f to %.1f local cycles", min(rests), max(rests))
    assert max(rests) <= ClockGuard.GAP
    assert min(rests) > STOPPED


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def it_does_not_go_back_by_itself(dut):
    tb = TB(dut)
    await tb.run_on_feed()
    await tb.ask()                          # a request before the loss does not count
    await Timer(200, "ns")
    await tb.stop_feed()
    await tb.until(dut.on_feed, 0, 200)
    await Timer(1000, "ns")
    await tb.start_feed()
    await Timer(10 * WINDOW * PERIOD_NS, "ns")
    assert dut.good.value == 1
    assert dut.on_feed.value == 0
    assert dut.feed_lost.value == 1
    await tb.ask()
    await tb.until(dut.on_feed, 1, 60 * PERIOD_NS)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def a_link_that_goes_down_takes_the_clock_away_though_it_runs(dut):
    tb = TB(dut)
    for _ in range(8):
        await tb.run_on_feed()
        await Timer(tb.rng.randrange(100, 1000), "ns")
        dut.link_up.value = 0
        await tb.until(dut.on_feed, 0, 3 * PERIOD_NS)
        await tb.until(dut.feed_lost, 1, ClockGuard.GAP * PERIOD_NS)
        await Timer(2 * WINDOW * PERIOD_NS, "ns")
        assert dut.good.value == 0
        dut.link_up.value = 1
        tb.feed.stop()
        dut.feed_clk.value = 0


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(period_ns=[40, 400])
async def a_feed_clock_of_a_slower_link_is_left_without_a_short_pulse(dut, period_ns):
    tb = TB(dut)
    for _ in range(6):
        await tb.run_on_feed()
        await Timer(tb.rng.randrange(100, 1000), "ns")
        await tb.stop_feed(level=0)
        await Timer(PERIOD_NS, "ns")        # or the short pulse would be the test's own
        await tb.start_feed(period_ns * 1000)
        await tb.until(dut.on_feed, 0, 2 * period_ns + 20 * PERIOD_NS)
        await tb.until(dut.feed_lost, 1, 4 * period_ns + 2 * ClockGuard.GAP * PERIOD_NS)
        await tb.ask()
        await Timer(3 * WINDOW * PERIOD_NS, "ns")
        assert dut.on_feed.value == 0, "a slow clock is not good"
        tb.feed.stop()
        dut.feed_clk.value = 0
        await Timer(1000, "ns")


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(period_ps=[7800, 7998, 8002, 8200])
async def a_feed_clock_is_good_within_the_tolerance_of_ethernet_only(dut, period_ps):
    tb = TB(dut)
    await tb.start_feed(period_ps)
    await Timer(6 * WINDOW * PERIOD_NS, "ns")
    assert dut.good.value == (period_ps in (7998, 8002))

# amaranth: UnusedElaboratable=no
"""Duplicates against a list of what left."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from hdl.gate.duplicates import ANSWER_CYCLES, REMEMBERED, Duplicates


def simulate(testbench):
    dut = Duplicates()
    sim = Simulator(dut)
    sim.add_clock(8e-9)

    async def begin(ctx):
        await testbench(ctx, dut)

    sim.add_testbench(begin)
    sim.run()


async def emit(ctx, dut, now, instrument=1, bid=(100, 5), ask=(101, 5)):
    """A quote leaves; returns the instrument that is to be held, or ``None``."""
    ctx.set(dut.now, now & 0xFFFF_FFFF)
    ctx.set(dut.instrument, instrument)
    for side, (px, lots) in (("bid", bid), ("ask", ask)):
        ctx.set(getattr(dut, f"{side}_px"), px)
        ctx.set(getattr(dut, f"{side}_lots"), lots)
    ctx.set(dut.emit, 1)
    await ctx.tick()
    ctx.set(dut.emit, 0)
    ctx.set(dut.instrument, 0)
    ctx.set(dut.now, 0x1234_5678)
    held = None
    for cycle in range(1, ANSWER_CYCLES + 6):
        if ctx.get(dut.repeated):
            assert cycle == ANSWER_CYCLES
            held = ctx.get(dut.repeater)
        await ctx.tick()
    return held


class Model:
    """The quotes that left, as tuples."""

    def __init__(self, most, cycles):
        self.most, self.cycles, self.past = most, cycles, []

    def emit(self, now, quote):
        if not (quote[1][1] or quote[2][1]):
            return None
        self.past = [*self.past, (now, quote)][-REMEMBERED:]
        equal = sum(q == quote and now - at < self.cycles for at, q in self.past)
        return quote[0] if equal >= self.most else None


def test_converts():
    verilog.convert(Duplicates())


@pytest.mark.parametrize("field", range(5))
def test_equal_are_those_that_say_the_same(field):
    """One other bit in instrument, a price or a quantity makes another quote."""
    async def testbench(ctx, dut):
        ctx.set(dut.most, 2)
        ctx.set(dut.cycles, 1000)
        for bit in (0, 7, 23):
            values = [3, 100, 5, 200, 7]
            first = dict(zip(("instrument", "bid", "ask"), (values[0], values[1:3], values[3:]), strict=True))
            values[field] ^= 1 << (bit if field else bit % 8)
            if field in (1, 3) and bit == 23:
                values[field] -= 1 << 24
            other = dict(zip(("instrument", "bid", "ask"), (values[0], values[1:3], values[3:]), strict=True))
            for _ in range(REMEMBERED):     # nothing of the round before
                await emit(ctx, dut, 0, instrument=9, bid=(1, 0), ask=(rng_free(), 1))
            assert await emit(ctx, dut, 1, **first) is None
            assert await emit(ctx, dut, 2, **other) is None
            assert await emit(ctx, dut, 3, **first) == 3

    counter = iter(range(1, 1000))

    def rng_free():
        return next(counter)

    simulate(testbench)


def test_age_and_number_at_their_limits():
    async def testbench(ctx, dut):
        ctx.set(dut.most, 3)
        ctx.set(dut.cycles, 100)
        assert await emit(ctx, dut, 0xFFFF_FFF0) is None
        assert await emit(ctx, dut, 0xFFFF_FFF1) is None
        assert await emit(ctx, dut, 0xFFFF_FFF0 + 100) is None          # the first one is just too old
        assert await emit(ctx, dut, 0xFFFF_FFF1 + 99) == 1              # the second one just is not
        for n in range(REMEMBERED - 1):
            assert await emit(ctx, dut, 200 + n, ask=(102 + n, 5)) is None
        assert await emit(ctx, dut, 210) is None                        # all that were equal are forgotten
        assert await emit(ctx, dut, 211, bid=(0, 0), ask=(0, 0)) is None
        assert await emit(ctx, dut, 212, bid=(0, 0), ask=(0, 0)) is None
        assert await emit(ctx, dut, 213, bid=(0, 0), ask=(0, 0)) is None
        assert await emit(ctx, dut, 214) is None
        assert await emit(ctx, dut, 215) == 1
        ctx.set(dut.most, 2)
        assert await emit(ctx, dut, 300, ask=(150, 5)) is None
        assert await emit(ctx, dut, 310 + (1 << 31), ask=(150, 5)) is None      # an age has all its bits

    simulate(testbench)


def test_against_the_model():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    held = []

    async def testbench(ctx, dut):
        now = rng.getrandbits(30)
        for _ in range(12):
            model = Model(rng.randrange(1, 5), rng.choice((0, 1, 300, 5000)))
            ctx.set(dut.most, model.most)
            ctx.set(dut.cycles, model.cycles)
            model.past = past
            for _ in range(20):
                now += rng.choice((60, 60, 100, 300, 1000))
                bid, ask = ((rng.randrange(100, 102), 3), rng.choice(((103, 3), (0, 0))))
                quote = rng.randrange(2), bid if rng.random() < 0.8 else (0, 0), ask
                expected = model.emit(now, quote)
                held.append(expected is not None)
                assert await emit(ctx, dut, now, *quote) == expected
            past[:] = model.past

    past = []
    simulate(testbench)
    assert 0 < sum(held) < len(held)


@pytest.mark.parametrize("now", [0, 1 << 31, (1 << 32) - 1])
def test_the_first_one_is_its_own_equal(now):
    async def testbench(ctx, dut):
        ctx.set(dut.most, 1)
        ctx.set(dut.cycles, 1)
        assert await emit(ctx, dut, now) == 1

    simulate(testbench)


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9, 15])
def test_as_many_as_are_remembered(most):
    """So many equal ones and no fewer; more than are remembered are never found. The longest age is one, too."""
    async def testbench(ctx, dut):
        ctx.set(dut.most, most)
        ctx.set(dut.cycles, 1 << 31)
        for n in range(1, REMEMBERED + 3):
            expected = 1 if min(n, REMEMBERED) >= most else None
            assert await emit(ctx, dut, n) == expected

    simulate(testbench)


def test_after_reset_nothing_is_remembered():
    """The memory still has it all; nor is what merely stands there a quote, nor anything to be held."""
    dut, reset = Duplicates(), Signal()
    sim = Simulator(ResetInserter(reset)(dut))
    sim.add_clock(8e-9)

    async def testbench(ctx):
        for round_ in range(3):
            ctx.set(dut.most, 0)
            ctx.set(dut.cycles, (1 << 32) - 1)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            for _ in range(2 * ANSWER_CYCLES):
                assert not ctx.get(dut.repeated), round_
                await ctx.tick()
            for n in range(1, REMEMBERED + 1):
                ctx.set(dut.most, n + 1)
                assert await emit(ctx, dut, n) is None
                ctx.set(dut.most, n)
            assert await emit(ctx, dut, REMEMBERED + 1) == 1

    sim.add_testbench(testbench)
    sim.run()

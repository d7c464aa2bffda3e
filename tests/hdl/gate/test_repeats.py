"""G18 against a naive model."""

import random

import pytest
from amaranth.back import verilog

from hdl.gate.repeats import ANSWER_CYCLES, QUOTED_CYCLES, RepeatedExecution
from tests.hdl.simulation import simulated

SEED = 18


class Model:
    """Repeats, an open fill and a hold of every (instrument, side)."""

    def __init__(self):
        self.repeats, self.filled, self.held = {}, set(), set()

    def fill(self, most, side):
        """Whether it holds its side."""
        if side in self.held:
            return False
        self.filled.add(side)
        if self.repeats.get(side, 0) >= most:
            self.held.add(side)
            return True
        return False

    def quoted(self, of, sides):
        for side in ((of, n) for n in sides):
            if side in self.filled and side not in self.held:
                self.filled.discard(side)
                self.repeats[side] = min(255, self.repeats.get(side, 0) + 1)

    def acknowledge(self, of):
        """Whether a hold ends."""
        both = {(of, 0), (of, 1)}
        ends = bool(both & self.held)
        self.held -= both
        self.filled -= both
        self.repeats = {side: n for side, n in self.repeats.items() if side not in both}
        return ends


class Bench:
    def __init__(self, ctx, dut, most):
        self.ctx, self.dut, self.model, self.most, self.slowest = ctx, dut, Model(), most, 0

    async def step(self, cycles=1, **inputs):
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)
        for _ in range(cycles):
            await self.ctx.tick()
            for name in ("fill", "visit", "quoted"):
                self.ctx.set(getattr(self.dut, name), 0)

    async def start(self):
        await self.step(most_repeats=self.most)
        while self.ctx.get(self.dut.clearing):
            await self.step()

    def quote(self, of, sides):
        """Inputs, and what they do."""
        self.model.quoted(of, sides)
        return {"quoted": 1, "quoted_instrument": of, "quoted_bid": 0 in sides, "quoted_ask": 1 in sides}

    async def quoted(self, of, sides):
        await self.step(**self.quote(of, sides))
        await self.step(QUOTED_CYCLES)

    async def answer(self, of, expected, quotes=(), **strobe):
        """``quotes``: what is quoted after how many cycles, {cycles: (of, sides)}. Whether something changed."""
        quotes = dict(quotes)
        now = self.quote(*quotes.pop(0)) if 0 in quotes else {}
        await self.step(instrument=of, **strobe, **now)
        took = 1
        while not self.ctx.get(self.dut.answers):
            await self.step(**self.quote(*quotes.pop(took)) if took in quotes else {})
            took += 1
        assert took <= ANSWER_CYCLES
        self.slowest = max(self.slowest, took)
        get = self.ctx.get
        assert get(self.dut.changes) == expected
        if expected:
            assert {n for n, side in enumerate((self.dut.held_bid, self.dut.held_ask)) if get(side)} == {
                n for which, n in self.model.held if which == of}
        await self.step(QUOTED_CYCLES + 1)
        assert not quotes
        return expected

    async def fill(self, of, side, **more):
        return await self.answer(of, self.model.fill(self.most, (of, side)), fill=1, side=side, **more)

    async def acknowledge(self, of, **more):
        return await self.answer(of, self.model.acknowledge(of), visit=1, lets_go=1, **more)


def simulate(test, instruments=3, most=2):
    dut = RepeatedExecution(instruments)

    async def testbench(ctx):
        b = Bench(ctx, dut, most)
        await b.start()
        await test(b)

    simulated(dut, testbench)


@pytest.mark.parametrize("instruments", [1, 256])
def test_converts(instruments):
    assert "module" in verilog.convert(RepeatedExecution(instruments))


@pytest.mark.parametrize("most", [0, 1, 2, 255])
@pytest.mark.parametrize("side", [0, 1])
def test_at_the_limit(most, side):
    """As many repeats as are allowed, and not one more; the other side and other instruments have their own."""
    async def test(b):
        for _ in range(most):
            for _ in range(2 if most < 255 else 1):     # fills in a row count once
                assert not await b.fill(1, side)
            await b.quoted(1, {0, 1})
        await b.quoted(1, {0, 1})        # a quote without a fill before it is none
        assert await b.fill(1, side)
        assert not await b.fill(1, side)
        if most:
            assert not await b.fill(1, 1 - side)
            assert not await b.fill(0, side)
        await b.acknowledge(0)
        assert await b.acknowledge(1)
        assert await b.fill(1, side) == (most == 0)
    simulate(test, most=most)


def test_acknowledged_in_time():
    """What was acknowledged does not count, be it a fill or a repeat. A visit alone acknowledges nothing."""
    async def test(b):
        for _ in range(5):
            await b.fill(0, 0)
            await b.quoted(0, {0})
            await b.fill(0, 0)
            assert not await b.answer(0, False, visit=1, lets_go=0)
            await b.acknowledge(0)
            await b.quoted(0, {0})
        assert b.model.repeats == {}
        for _ in range(2):
            assert not await b.fill(0, 0)
            await b.quoted(0, {0})
        await b.answer(0, False, visit=1, lets_go=0)
        assert await b.fill(0, 0)
    simulate(test, most=2)


def test_both_sides_are_let_go_together():
    async def test(b):
        assert await b.fill(2, 0)
        assert await b.fill(2, 1)
        assert await b.acknowledge(2)
        assert not b.model.held
    simulate(test, most=0)


@pytest.mark.parametrize("most", [0, 1])
def test_what_is_quoted_meanwhile(most):
    """A quote counts when it comes: before a fill or an acknowledgement, in the same cycle behind it, or after it."""
    async def test(b):
        for wait in range(5):
            for strobe in ("fill", "acknowledge"):
                await b.acknowledge(0)
                await b.fill(0, 0)
                if strobe == "fill":
                    await b.fill(0, 0, quotes={wait: (0, {0})})
                else:
                    await b.acknowledge(0, quotes={wait: (0, {0})})
                await b.quoted(0, {0})
                await b.fill(0, 0)
                await b.acknowledge(0)
                await b.fill(0, 0)
                await b.step(**b.quote(0, {0}))
                await b.step(wait)
                await b.fill(0, 0)
        assert b.slowest == ANSWER_CYCLES
    simulate(test, most=most)


@pytest.mark.parametrize("instruments", [1, 5, 200])
def test_random(instruments):
    """Of many instruments those that differ in their highest bit alone, and the last one."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = {"held": 0, "passed": 0, "released": 0}
    some = range(instruments) if instruments < 8 else (0, 128, 71, instruments - 1)

    async def test(b):
        for _ in range(1500):
            await b.step(rng.choice((1, 1, 2, 20)))
            of = rng.choice(some)
            quotes = {rng.randrange(5): (rng.choice((of, rng.choice(some))),
                                         {n for n in (0, 1) if rng.random() < .7})} if rng.random() < .4 else {}
            if rng.random() < .2:
                seen["released"] += await b.acknowledge(of, quotes=quotes)
            else:
                seen["held" if await b.fill(of, rng.randrange(2), quotes=quotes) else "passed"] += 1
            if rng.random() < .02:
                b.most = rng.choice((0, 1, 2, 3))
                await b.step(most_repeats=b.most)
    simulate(test, instruments, 2)
    print(seen)
    assert min(seen.values()) > 30

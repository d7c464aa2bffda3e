"""G18 against a naive model."""

import random

import pytest
from amaranth.back import verilog

from hdl.gate.repeats import EVENT_CYCLES, HOLD_CYCLES, RepeatedExecution
from tests.hdl.gate.posting import PostingBench
from tests.hdl.simulation import simulated

SEED = 18


class Model:
    """Repeats, an open fill and a hold of every (instrument, side)."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.repeats, self.filled, self.held = {}, set(), set()

    def step(self, most, *, fill=None, quoted=(), acknowledge=None):
        """What came in one cycle; (instrument, hold, sides) of every post."""
        posts = []
        if fill is not None and fill not in self.held:
            self.filled.add(fill)
            if self.repeats.get(fill, 0) >= most:
                self.held.add(fill)
                posts.append((fill[0], 1, {fill[1]}))
        for side in quoted:
            if side in self.filled and side not in self.held:
                self.filled.discard(side)
                self.repeats[side] = min(255, self.repeats.get(side, 0) + 1)
        if acknowledge is not None:
            both = {(acknowledge, 0), (acknowledge, 1)}
            if both & self.held:
                posts.append((acknowledge, 0, {side for _, side in both & self.held}))
            self.held -= both
            self.filled -= both
            self.repeats = {side: n for side, n in self.repeats.items() if side not in both}
        return posts


class Bench(PostingBench):
    def __init__(self, ctx, dut, rng, most):
        super().__init__(ctx, dut, 18, ("fill", "quoted", "acknowledge", "clear"), rng)
        self.model, self.most, self.posts = Model(), most, []

    def arrives(self, *post):
        self.posts.append((self.cycle, *post))

    async def start(self):
        await self.step(most_repeats=self.most)
        while self.ctx.get(self.dut.clearing):
            assert self.ctx.get(self.dut.busy)
            await self.step()

    async def come(self, *, fill=None, quoted=None, acknowledge=None):
        """Events of one cycle, sides as (instrument, side), until all is done. Returns whether a hold came of it."""
        assert not self.ctx.get(self.dut.busy)
        inputs = {}
        if fill is not None:
            inputs |= {"fill": 1, "instrument": fill[0], "side": fill[1]}
        if quoted is not None:
            of, sides = quoted
            inputs |= {"quoted": 1, "quoted_instrument": of, "quoted_bid": 0 in sides, "quoted_ask": 1 in sides}
        if acknowledge is not None:
            inputs |= {"acknowledge": 1, "acknowledge_instrument": acknowledge}
        expected = self.model.step(self.most, fill=fill, acknowledge=acknowledge,
                                   quoted=[(quoted[0], side) for side in quoted[1]] if quoted else ())
        came, began = len(self.posts), self.cycle
        await self.step(**inputs)
        while self.ctx.get(self.dut.busy):
            assert self.takes < 1. or self.cycle - began < EVENT_CYCLES
            await self.step()
        assert [post[1:] for post in self.posts[came:]] == expected
        if expected and expected[0][1]:
            assert self.posts[came][0] == began + HOLD_CYCLES
            return True
        return False


def simulate(test, instruments=3, most=2, rng=None):
    dut = RepeatedExecution(instruments)

    async def testbench(ctx):
        b = Bench(ctx, dut, rng, most)
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
                assert not await b.come(fill=(1, side))
            await b.come(quoted=(1, {0, 1}))
        await b.come(quoted=(1, {0, 1}))        # a quote without a fill before it is none
        assert await b.come(fill=(1, side))
        assert not await b.come(fill=(1, side))
        if most:
            assert not await b.come(fill=(1, 1 - side))
            assert not await b.come(fill=(0, side))
        await b.come(acknowledge=0)
        await b.come(acknowledge=1)
        assert b.posts[-1][1:] == (1, 0, {side})
        assert await b.come(fill=(1, side)) == (most == 0)
    simulate(test, most=most)


def test_acknowledged_in_time():
    """What was acknowledged does not count, be it a fill or a repeat."""
    async def test(b):
        for _ in range(5):
            await b.come(fill=(0, 0))
            await b.come(quoted=(0, {0}))
            await b.come(fill=(0, 0))
            await b.come(acknowledge=0)
            await b.come(quoted=(0, {0}))
        assert b.posts == []
        assert b.model.repeats == {}
    simulate(test, most=2)


def test_both_sides_are_let_go_together():
    async def test(b):
        await b.come(fill=(2, 0))
        await b.come(fill=(2, 1), acknowledge=2)
        assert [post[1:] for post in b.posts] == [(2, 1, {0}), (2, 1, {1}), (2, 0, {0, 1})]
    simulate(test, most=0)


def test_clear():
    async def test(b):
        for wait in range(1, 12):
            await b.come(fill=(0, 0))
            b.takes = 0.
            await b.step(fill=1, instrument=1, side=0)
            await b.step(wait)
            await b.step(clear=1)
            assert not b.ctx.get(b.dut.post)
            b.takes, b.standing = 1., None
            b.model.clear()
            while b.ctx.get(b.dut.clearing):
                await b.step()
            assert await b.come(fill=(0, 0)), "no hold of it is left"
            await b.come(acknowledge=0)
    simulate(test, most=0, rng=random.Random(SEED))


def test_what_comes_while_another_is_under_way():
    """A quote and an acknowledgement come when they come."""
    async def test(b):
        for wait in range(1, 10):
            for late, left in (({"quoted": 1, "quoted_instrument": 0, "quoted_bid": 1}, True),
                               ({"acknowledge": 1, "acknowledge_instrument": 0}, False)):
                await b.come(acknowledge=0)
                assert not await b.come(fill=(0, 0))
                await b.step(fill=1, instrument=1, side=1)
                await b.step(wait - 1)
                await b.step(**late)
                while b.ctx.get(b.dut.busy):
                    await b.step()
                # The quote made a repeat of the fill before it, the acknowledgement made it none.
                b.model.clear()
                b.model.repeats = {(0, 0): 1} if left else {}
                b.model.filled = {(1, 1)}
                assert await b.come(fill=(0, 0)) == left
                await b.come(acknowledge=1)
    simulate(test, most=1)


@pytest.mark.parametrize("takes", [1., .1])
@pytest.mark.parametrize("instruments", [1, 5])
def test_random(instruments, takes):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = {"held": 0, "passed": 0, "released": 0}

    async def test(b):
        b.takes = takes
        for _ in range(1500):
            await b.step(rng.choice((1, 1, 2, 20)))
            of = rng.randrange(instruments)
            what = rng.random()
            held = await b.come(
                fill=(of, rng.randrange(2)) if what < .4 else None,
                quoted=(rng.choice((of, rng.randrange(instruments))), {n for n in (0, 1) if rng.random() < .7})
                if rng.random() < .4 else None,
                acknowledge=rng.randrange(instruments) if rng.random() < .07 else None)
            seen["held" if held else "passed"] += 1
            if rng.random() < .02:
                b.most = rng.choice((0, 1, 2, 3))
                await b.step(most_repeats=b.most)
        seen["released"] += sum(not post[2] for post in b.posts)
    simulate(test, instruments, 2, rng)
    print(seen)
    assert min(seen.values()) > 30

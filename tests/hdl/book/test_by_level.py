# amaranth: UnusedElaboratable=no
"""The book by level against a list with insert and delete."""

import random

import pytest
from amaranth.back import verilog

from hdl.book.by_level import UPDATE_CYCLES, BookByLevel
from hdl.control.registers import TICK_LIMIT
from sim.golden.book import ACTIONS, BID, OFFER, RESET, Book
from tests.hdl.simulation import simulated

SEED = 7
NEW, CHANGE, DELETE = 0, 1, 2
KINDS = {BID: "update_bid", OFFER: "update_ask", RESET: "update_reset"}


def known(level):
    """What of a level can be told apart: an unknown one has no price."""
    return level if level[0] else False


class Bench:
    """A book, its model, and what has to stand on the bench."""

    def __init__(self, ctx, dut, rng):
        self.ctx, self.dut, self.rng = ctx, dut, rng
        self.model = [Book(dut.depth) for _ in range(dut.instruments)]
        self.held = None

    def level(self, name):
        level = getattr(self.dut, name)
        return known((bool(self.ctx.get(level.known)), self.ctx.get(level.px), self.ctx.get(level.size)))

    def check(self, *names):
        """The model says the same of these outputs."""
        book = self.model[self.held]
        want = {"best_bid": book.bids[0], "best_ask": book.offers[0], "second_bid": book.bids[1],
                "second_ask": book.offers[1]}
        assert {name: self.level(name) for name in names} == {name: known(want[name]) for name in names}, self.held

    async def load(self, instrument):
        """Its top onto the bench, a price a cycle."""
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.address, instrument)
        await ctx.tick()
        for wire in (dut.may_load, dut.load):
            ctx.set(wire, 1)
        await ctx.tick()
        for wire in (dut.may_load, dut.load):
            ctx.set(wire, 0)
        self.held = instrument
        best, second = (known(level) for level in self.model[instrument].offers[:2])
        assert self.level("early_ask") == best
        await ctx.tick()
        self.check("best_bid", "best_ask")
        assert self.level("early_ask") == second
        await ctx.tick()
        self.check("best_bid", "best_ask", "second_bid", "second_ask")
        assert self.level("early_ask") == best

    async def update(self, kind, action=NEW, level=1, px=0, size=1, is_known=True, invalidate=False,
                     wait=UPDATE_CYCLES):
        """Apply an entry to the instrument on the bench. Ends ``wait`` cycles later."""
        ctx, dut = self.ctx, self.dut
        for name, value in (("action", action), ("level", level)):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(getattr(dut, KINDS[kind]), 1)
        for name, value in (("px", px), ("size", size), ("known", is_known), ("invalidate", invalidate)):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        for name in (KINDS[kind], "invalidate"):
            ctx.set(getattr(dut, name), 0)
        assert self.model[self.held].apply(kind, action, level, px, size, is_known)
        self.check("best_bid", "best_ask")
        assert ctx.get(dut.busy) == (kind != RESET)
        if invalidate:
            self.forget()
        # Whatever stands on the inputs while the levels pass by.
        for n in range(wait - 1):
            ctx.set(dut.address, self.rng.randrange(dut.instruments))
            for name, bits in (("action", 3), ("level", 4), ("px", 31), ("size", 31), ("known", 1)):
                ctx.set(getattr(dut, name), self.rng.getrandbits(bits))
            await ctx.tick()
            if n > dut.depth + 4:
                assert not ctx.get(dut.busy)

    def forget(self):
        for book in self.model:
            book.clear()

    async def invalidate(self, gap=1):
        """All books are void; the bench stays."""
        names = "best_bid", "best_ask"
        before = [self.level(name) for name in names]
        self.ctx.set(self.dut.invalidate, 1)
        await self.ctx.tick()
        self.ctx.set(self.dut.invalidate, 0)
        self.forget()
        assert [self.level(name) for name in names] == before
        await self.ctx.tick().repeat(gap)

    async def drain(self, instrument):
        """Every level of both sides comes to the top."""
        for kind in (BID, OFFER):
            for _ in range(self.dut.depth):
                await self.load(instrument)
                await self.update(kind, DELETE, 1)
        await self.load(instrument)


def simulate(test, instruments=3, depth=4, seed=SEED):
    dut = BookByLevel(instruments, depth)

    async def testbench(ctx):
        await test(Bench(ctx, dut, random.Random(seed)))

    simulated(dut, testbench)


@pytest.mark.parametrize(("instruments", "depth"), [(1, 2), (3, 10), (16, 10)])
def test_converts(instruments, depth):
    assert "module" in verilog.convert(BookByLevel(instruments, depth))


@pytest.mark.parametrize("depth", [1, 11])
def test_depth_that_does_not_pass_by_in_time(depth):
    with pytest.raises(ValueError, match=f"depth is {depth}, must be 2 to 10"):
        BookByLevel(1, depth)


@pytest.mark.parametrize(("instruments", "depth", "steps"), [(3, 4, 900), (1, 2, 300), (5, 10, 1400)])
def test_random_entries(instruments, depth, steps):
    """Every action on every level of several instruments, resets and invalidations; in the end all levels compared."""
    print(f"seed {SEED}")
    seen = set()

    async def test(b):
        rng = b.rng
        for n in range(steps):
            instrument = rng.randrange(instruments)
            await b.load(instrument)
            if rng.random() < .01:
                await b.invalidate()
                continue
            kind = rng.choice((BID, OFFER, BID, OFFER, BID, OFFER, BID, OFFER, RESET)) if rng.random() < .3 else BID
            action = rng.choice((0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5) if rng.random() < .5 else (0, 0, 0, 1, 2))
            level = rng.randrange(1, depth + 1)
            assert action in ACTIONS
            seen.add((action, level))
            px = rng.randrange(-TICK_LIMIT, TICK_LIMIT)
            await b.update(kind, action, level, px, rng.getrandbits(31),
                           rng.random() < .9, rng.random() < .005, UPDATE_CYCLES + rng.choice((0, 0, 1, 7)))
            if n % (steps // 6) == steps // 6 - 1:
                await b.drain(rng.randrange(instruments))
        for instrument in range(instruments):
            await b.drain(instrument)

    simulate(test, instruments, depth)
    assert len(seen) == 6 * depth


@pytest.mark.parametrize("action", sorted(ACTIONS))
@pytest.mark.parametrize("level", range(1, 5))
def test_action_on_a_full_book(action, level):
    async def test(b):
        for kind in (BID, OFFER):
            for n in range(5):
                await b.load(1)
                await b.update(kind, NEW, 1, 100 + n, 10 + n)
        await b.load(1)
        await b.update(OFFER, action, level, -7, 77)
        await b.drain(1)
    simulate(test)


def test_levels_of_a_side_that_was_forgotten_do_not_come_back():
    """The memory still holds them, and the next entry states one level only."""
    async def test(b):
        for n in range(4):
            await b.load(1)
            await b.update(BID, NEW, 1, 100 + n)
        await b.invalidate()
        await b.load(1)
        await b.update(BID, CHANGE, 2, 55)
        await b.load(1)
        assert b.level("best_bid") is False
        assert b.level("second_bid") == (True, 55, 1)
        await b.drain(1)
    simulate(test)


@pytest.mark.parametrize("after", range(UPDATE_CYCLES))
def test_invalidate_while_the_levels_pass_by(after):
    """In whatever cycle: nothing of the book is left, and nothing of the update either."""
    async def test(b):
        for n in range(4):
            await b.load(1)
            await b.update(BID, NEW, 1, 100 + n)
        await b.load(1)
        await b.update(BID, NEW, 2, 7, invalidate=after == 0, wait=max(1, after))
        if after:
            await b.invalidate(gap=UPDATE_CYCLES - after)
        else:
            await b.ctx.tick().repeat(UPDATE_CYCLES)
        await b.drain(1)
        assert b.level("best_bid") is False
        await b.drain(0)
    simulate(test)


def test_bench_holds_until_the_next_load():
    async def test(b):
        await b.load(2)
        await b.update(BID, NEW, 1, 11)
        await b.load(2)
        await b.update(OFFER, NEW, 1, 12)
        for address in (0, 1, 2, 0):
            b.ctx.set(b.dut.address, address)
            await b.ctx.tick().repeat(3)
            b.check("best_bid", "best_ask")
        await b.load(0)
        assert b.level("best_bid") is False
    simulate(test)

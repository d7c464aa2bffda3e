"""The book by level against a list with insert and delete."""

import random

from amaranth.sim import Simulator

from hdl.book.by_level import BookByLevel
from sim.golden.book import ACTIONS, BID, OFFER, RESET, Book

SEED = 7
INSTRUMENTS, DEPTH = 3, 4


def test_random_entries():
    """Every action on every level of several instruments, resets and invalidations; all levels compared."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    dut = BookByLevel(INSTRUMENTS, DEPTH)
    model = [Book(DEPTH) for _ in range(INSTRUMENTS)]
    seen = set()

    def levels(ctx, row):
        return [(bool(ctx.get(row[i].known)), ctx.get(row[i].px), ctx.get(row[i].size)) for i in range(DEPTH)]

    async def testbench(ctx):
        for _ in range(1500):
            instrument = rng.randrange(INSTRUMENTS)
            ctx.set(dut.address, instrument)
            await ctx.tick()
            book = model[instrument]
            for row, side in ((dut.bid, book.bids), (dut.ask, book.offers)):
                got = levels(ctx, row)
                assert [(k, px, size) if k else k for k, px, size in got] == \
                    [(k, px, size) if k else k for k, px, size in side]
            if rng.random() < .01:
                ctx.set(dut.invalidate, 1)
                await ctx.tick()
                ctx.set(dut.invalidate, 0)
                for book in model:
                    book.clear()
                continue
            kind = rng.choice((BID, OFFER, BID, OFFER, BID, OFFER, BID, OFFER, RESET)) if rng.random() < .5 else BID
            action = rng.choice((0, 0, 0, 1, 2, 2, 3, 4, 5))
            level, px, size = rng.randrange(1, DEPTH + 1), rng.randrange(-1 << 31, 1 << 31), rng.getrandbits(31)
            known = rng.random() < .9
            seen.add((action, level))
            assert action in ACTIONS
            model[instrument].apply(kind, action, level, px, size, known)
            ctx.set(dut.update_bid, kind == BID)
            ctx.set(dut.update_ask, kind == OFFER)
            ctx.set(dut.update_reset, kind == RESET)
            for name, value in (("action", action), ("level", level), ("px", px), ("size", size), ("known", known)):
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            got = levels(ctx, dut.bid), levels(ctx, dut.ask)     # write-through: the next cycle shows it
            for row, side in zip(got, (model[instrument].bids, model[instrument].offers), strict=True):
                assert [x if x[0] else False for x in row] == [x if x[0] else False for x in side], (
                    kind, action, level)
            for name in ("update_bid", "update_ask", "update_reset"):
                ctx.set(getattr(dut, name), 0)

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()
    assert len(seen) == 6 * DEPTH

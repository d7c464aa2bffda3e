"""What is live and what could still trade, against a naive model."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from hdl.gate.exposure import Exposure

SEED = 64
STROBES = ("emit", "settle", "clear_all", "forget_positions", "restart")
MASK = 0xFFFFFFFF


class Row:
    """One instrument, in Python's integers."""

    def __init__(self):
        self.bid_px = self.ask_px = self.bid_lots = self.ask_lots = self.quote_id = self.sent_bid = self.sent_ask = 0
        self.bid_live = self.ask_live = self.known = False
        self.lots = self.settled_bid = self.settled_ask = 0

    def expected(self):
        """Name of output to value."""
        return {
            "bid_live": self.bid_live, "ask_live": self.ask_live, "position_known": self.known,
            "open_bid": (self.sent_bid - self.settled_bid) & MASK,
            "open_ask": (self.sent_ask - self.settled_ask) & MASK,
            "live.bid_px": self.bid_px, "live.ask_px": self.ask_px, "live.bid_lots": self.bid_lots,
            "live.ask_lots": self.ask_lots, "live.quote_id": self.quote_id, "known.lots": self.lots,
            "known.settled_bid": self.settled_bid, "known.settled_ask": self.settled_ask,
        }

    def emit(self, x):
        for name in ("bid_px", "ask_px", "bid_lots", "ask_lots", "quote_id"):
            setattr(self, name, x[name])
        self.bid_live, self.ask_live = x["bid_lots"] > 0, x["ask_lots"] > 0
        self.sent_bid = (self.sent_bid + x["add_bid"]) & MASK
        self.sent_ask = (self.sent_ask + x["add_ask"]) & MASK

    def settle(self, x):
        position = x["position"]
        self.lots, self.settled_bid, self.settled_ask = (position[k] for k in ("lots", "settled_bid", "settled_ask"))
        self.known = True
        if x["settled_quote_id"] == self.quote_id:      # a newer quote is live, whatever became of the old one
            self.bid_live = self.bid_live and not x["clear_bid"]
            self.ask_live = self.ask_live and not x["clear_ask"]


class Bench:
    """An exposure and its model."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        self.rows = [Row() for _ in range(dut.instruments)]
        self.held = 0

    async def sweep(self):
        """The cycles in which the rows are cleared."""
        for name in STROBES:
            self.ctx.set(getattr(self.dut, name), 0)
        for _ in range(self.dut.instruments):
            assert self.ctx.get(self.dut.clearing)
            await self.ctx.tick()
        assert not self.ctx.get(self.dut.clearing)
        await self.ctx.tick()

    async def step(self, address=None, **x):
        """One cycle: strobes act on the instrument addressed in the cycle before. Checks every output first."""
        address = self.held if address is None else address
        self.check()
        for name in STROBES:
            self.ctx.set(getattr(self.dut, name), name in x)
        for name, value in x.items():
            if name not in STROBES:
                self.ctx.set(getattr(self.dut, name), value)
        self.ctx.set(self.dut.address, address)
        await self.ctx.tick()
        row = self.rows[self.held]
        self.held = address
        if "restart" in x:
            self.rows = [Row() for _ in self.rows]
            assert not self.ctx.get(self.dut.live_bids) | self.ctx.get(self.dut.live_asks)
            assert not self.ctx.get(self.dut.position_known)
            await self.sweep()
        if "emit" in x:
            row.emit(x)
        if "settle" in x:
            row.settle(x)
        for each in self.rows:
            if "forget_positions" in x:
                each.known = False
            if "clear_all" in x:
                each.bid_live = each.ask_live = False
        self.check()

    def check(self):
        def output(name):
            value = self.dut
            for part in name.split("."):
                value = getattr(value, part)
            return self.ctx.get(value)
        want = self.rows[self.held].expected()
        assert {name: output(name) for name in want} == want, self.held
        assert output("live_bids") == sum(row.bid_live << i for i, row in enumerate(self.rows))
        assert output("live_asks") == sum(row.ask_live << i for i, row in enumerate(self.rows))


def quote(bid_lots=0, ask_lots=0, add_bid=0, add_ask=0, quote_id=0, bid_px=0, ask_px=0):
    return {"emit": 1, "bid_lots": bid_lots, "ask_lots": ask_lots, "add_bid": add_bid, "add_ask": add_ask,
            "quote_id": quote_id, "bid_px": bid_px, "ask_px": ask_px}


def settle(lots=0, bid=0, ask=0, quote_id=0, clear_bid=0, clear_ask=0):
    return {"settle": 1, "position": {"lots": lots, "settled_bid": bid, "settled_ask": ask},
            "settled_quote_id": quote_id, "clear_bid": clear_bid, "clear_ask": clear_ask}


def simulate(test, instruments=3):
    dut = Exposure(instruments)

    async def testbench(ctx):
        bench = Bench(ctx, dut)
        await bench.sweep()
        await test(bench)

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("instruments", [1, 3, 16])
def test_converts(instruments):
    assert "module" in verilog.convert(Exposure(instruments))


def test_what_was_sent_stays_open_until_it_is_settled():
    async def test(b):
        await b.step(1)
        await b.step(**quote(bid_lots=5, add_bid=5, ask_lots=7, add_ask=7, quote_id=1))
        await b.step(**quote(bid_lots=5, add_bid=5, ask_lots=7, add_ask=0, quote_id=2))     # bid replaced, ask kept
        assert (b.ctx.get(b.dut.open_bid), b.ctx.get(b.dut.open_ask)) == (10, 7)
        await b.step(**quote(ask_lots=7, quote_id=3))                                       # bid taken away
        assert (b.ctx.get(b.dut.open_bid), b.ctx.get(b.dut.open_ask)) == (10, 7), "it may have traded on its way"
        await b.step(**settle(lots=-2, bid=10, ask=2, quote_id=3))
        assert (b.ctx.get(b.dut.open_bid), b.ctx.get(b.dut.open_ask)) == (0, 5)
    simulate(test)


def test_settled_beyond_what_was_sent_is_huge():
    """A host that errs blocks (G11), instead of making room."""
    async def test(b):
        await b.step(1)
        await b.step(**settle(bid=1))
        assert b.ctx.get(b.dut.open_bid) == MASK
    simulate(test)


@pytest.mark.parametrize("clear", range(4))
@pytest.mark.parametrize("quote_id", [7, 8])
def test_side_is_cleared_only_if_its_last_quote_is_meant(clear, quote_id):
    async def test(b):
        await b.step(2)
        await b.step(**quote(bid_lots=5, ask_lots=5, add_bid=5, add_ask=5, quote_id=8))
        await b.step(**settle(quote_id=quote_id, clear_bid=clear & 1, clear_ask=clear >> 1))
        gone = clear if quote_id == 8 else 0
        assert (b.ctx.get(b.dut.bid_live), b.ctx.get(b.dut.ask_live)) == (~gone & 1, ~gone >> 1 & 1)
        assert (b.ctx.get(b.dut.live_bids), b.ctx.get(b.dut.live_asks)) == ((~gone & 1) << 2, (~gone >> 1 & 1) << 2)
    simulate(test)


def test_write_is_seen_by_the_read_that_was_under_way():
    """The row is written in the cycle in which its address is on the read port again."""
    async def test(b):
        for address in (1, 1, 0, 1):
            await b.step(address, **quote(bid_lots=3, add_bid=3, quote_id=b.held + 1))
    simulate(test)


def test_random():
    print(f"seed {SEED}")
    rng = random.Random(SEED)

    def lots():
        return rng.choice((0, 1, rng.getrandbits(24)))

    async def test(b):
        quote_id = 0
        for _ in range(2500):
            address, what = rng.randrange(len(b.rows)), rng.random()
            row = b.rows[b.held]
            if what < .3:
                quote_id += 1
                bid, ask = lots(), lots()
                x = quote(bid, ask, rng.choice((0, bid)), rng.choice((0, ask)), quote_id & MASK,
                          rng.randrange(-1 << 31, 1 << 31), rng.randrange(-1 << 31, 1 << 31))
            elif what < .6:
                x = settle(rng.randrange(-1 << 31, 1 << 31), row.sent_bid - rng.choice((0, 1, 5)) & MASK,
                           row.sent_ask - rng.choice((0, 1, -1)) & MASK,
                           rng.choice((row.quote_id, row.quote_id, row.quote_id - 1 & MASK, 0)), rng.randrange(2),
                           rng.randrange(2))
            elif what < .63:
                x = {"clear_all": 1}
            elif what < .65:
                x = {"forget_positions": 1}
            elif what < .67:
                x = {"restart": 1}
            else:
                x = {}
            seen.update((name, row.bid_live, row.ask_live) for name in STROBES if name in x)
            await b.step(address, **x)
    seen = set()
    simulate(test, 5)
    assert len(seen) == 4 * len(STROBES), "every action on every kind of row"


@pytest.mark.parametrize("instruments", [1, 5])
def test_reset_forgets_row_by_row(instruments):
    """Memories keep their content through a reset; one row a cycle is cleared after it."""
    dut = Exposure(instruments)
    reset = Signal()

    async def testbench(ctx):
        b = Bench(ctx, dut)
        await b.sweep()
        for i in range(instruments):
            await b.step(i)
            await b.step(i, **quote(9, 9, 9, 9, 9, 9, 9))
            await b.step(i, **settle(9, 9, 9))
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        b.rows = [Row() for _ in range(instruments)]
        await b.sweep()
        for i in range(instruments):
            await b.step(i)
        assert (ctx.get(dut.live_bids), ctx.get(dut.live_asks)) == (0, 0)

    simulator = Simulator(ResetInserter(reset)(dut))
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()

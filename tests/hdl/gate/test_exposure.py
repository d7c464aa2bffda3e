"""What is live and what could still trade, against a naive model."""

import copy
import random
from collections import deque

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.control.registers import TICK_LIMIT
from hdl.gate.exposure import Exposure
from tests.hdl.simulation import simulated

SEED = 64
STROBES = ("prepare", "emit", "settle", "clear_all", "forget_positions", "restart")
MASK = 0xFFFFFFFF
FIRST = 0x9000_0001     # number of a session's first message


class Row:
    """One instrument, in Python's integers."""

    def __init__(self):
        self.bid_px = self.ask_px = self.bid_lots = self.ask_lots = self.quote_id = self.sent_bid = self.sent_ask = 0
        self.bid_live = self.ask_live = self.known = self.quoted = False
        self.lots = self.settled_bid = self.settled_ask = 0
        self.next, self.told = FIRST, 1

    def copy(self):
        """As it is now."""
        return copy.copy(self)

    def expected(self):
        """Name of output to value. Before the first quote prices, lots and its id are nothing to go by."""
        quote = {
            "live.bid_px": self.bid_px, "live.ask_px": self.ask_px, "live.bid_lots": self.bid_lots,
            "live.ask_lots": self.ask_lots, "live.quote_id": self.quote_id}
        return {
            "bid_live": self.bid_live, "ask_live": self.ask_live, "position_known": self.known,
            "live.sent_bid": self.sent_bid, "live.sent_ask": self.sent_ask, "known.lots": self.lots,
            "known.settled_bid": self.settled_bid, "known.settled_ask": self.settled_ask,
            "known.next": self.next, "known.told": self.told, **(quote if self.quoted else {}),
        }

    def emit(self, x):
        for name in ("bid_px", "ask_px", "bid_lots", "ask_lots", "quote_id"):
            setattr(self, name, x[name])
        self.bid_live, self.ask_live, self.quoted = x["bid_lots"] > 0, x["ask_lots"] > 0, True
        # Whatever is repeated counts again: the venue may fill it up.
        self.sent_bid = (self.sent_bid + x["bid_lots"]) & MASK
        self.sent_ask = (self.sent_ask + x["ask_lots"]) & MASK

    def settle(self, x):
        if x["counts"]:
            for name, value in x["position"].items():
                setattr(self, name, value)
            self.known = self.known or bool(x["known_now"])
        if x["settled_quote_id"] == self.quote_id:      # a newer quote is live, whatever became of the old one
            self.bid_live = self.bid_live and not x["clear_bid"]
            self.ask_live = self.ask_live and not x["clear_ask"]
        self.bid_live, self.ask_live = self.bid_live and not x["spent_bid"], self.ask_live and not x["spent_ask"]


class Bench:
    """An exposure and its model.

    Attributes
    ----------
    rows : every instrument as it is. ``bench`` : what is on the bench, ``held`` : of which instrument, if any.
    """

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        ctx.set(dut.first_message, FIRST)
        self.forget()
        self.bench = None

    def forget(self):
        self.sides = deque([0] * 3, maxlen=3)
        self.rows = [Row() for _ in range(self.dut.instruments)]
        self.asked = self.earlier = self.held = None

    async def sweep(self):
        """The cycles in which the rows are cleared."""
        for name in STROBES:
            self.ctx.set(getattr(self.dut, name), 0)
        for _ in range(self.dut.instruments):
            assert self.ctx.get(self.dut.clearing)
            await self.ctx.tick()
        assert not self.ctx.get(self.dut.clearing)
        await self.ctx.tick()

    async def step(self, address=None, load=False, **x):
        """One cycle. ``address`` is asked for from this cycle on; what is loaded is what it was in the cycle before.
        Checks every output behind it."""
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.of_address, 1 << ctx.get(dut.address))      # a cycle later
        if address is not None:
            ctx.set(dut.address, address)
        for name in STROBES:
            ctx.set(getattr(dut, name), name in x)
        ctx.set(dut.load, load)
        for name, value in x.items():
            if name not in STROBES:
                ctx.set(getattr(dut, name), value)
            if name == "instrument":
                ctx.set(dut.of_instrument, 1 << value)
        if "emit" in x:
            row = self.rows[x["instrument"]]
            assert (ctx.get(dut.sent_bid), ctx.get(dut.sent_ask)) == (
                (row.sent_bid + x["bid_lots"]) & MASK, (row.sent_ask + x["ask_lots"]) & MASK)
        address = ctx.get(dut.address)
        before = [row.copy() for row in self.rows]
        if "settle" in x:       # what is settled is compared a cycle ahead
            ctx.set(dut.settle, 0)
            ctx.set(dut.load, 0)
            await ctx.tick()
            assert ctx.get(dut.meant) == (ctx.get(dut.live.quote_id) == x["settled_quote_id"])
            ctx.set(dut.settle, 1)
            ctx.set(dut.load, load)
            self.asked, self.earlier = address, before
            self.sides.append(self.sides[-1])
        await ctx.tick()
        if load:
            # The memories were read at the end of the cycle before: changes up to the end of the one before that.
            assert self.asked == address, "the address must have come to rest"
            self.bench, self.held = self.earlier[address], address
        if "restart" in x:
            self.forget()
            assert not ctx.get(dut.live_bids) | ctx.get(dut.live_asks)
            await self.sweep()
            self.earlier = [row.copy() for row in self.rows]
            return
        if "emit" in x:
            self.rows[x["instrument"]].emit(x)
        if "settle" in x:
            self.rows[address].settle(x)
        for each in self.rows:
            if "forget_positions" in x:
                each.known = False
            if "clear_all" in x:
                each.bid_live = each.ask_live = False
        self.asked, self.earlier = address, before
        self.check()

    async def fetch(self, address):
        """Take an instrument onto the bench, with everything that has happened so far."""
        await self.step(address)
        await self.step(load=True)
        assert self.bench.expected() == self.rows[address].expected()

    async def emit(self, instrument, bid_lots=0, ask_lots=0, quote_id=0, bid_px=0, ask_px=0):
        """A quote leaves, prepared as it has to be."""
        await self.fetch(instrument)
        await self.step(prepare=1)
        await self.step(**quote(instrument, bid_lots, ask_lots, quote_id, bid_px, ask_px))

    def check(self):
        def output(name):
            value = self.dut
            for part in name.split("."):
                value = getattr(value, part)
            return self.ctx.get(value)
        if self.held is not None:
            want = self.bench.expected()
            assert {name: output(name) for name in want} == want, self.held
        assert output("live_bids") == sum(row.bid_live << i for i, row in enumerate(self.rows))
        assert output("live_asks") == sum(row.ask_live << i for i, row in enumerate(self.rows))
        # How many there are is told two cycles later.
        self.sides.append(sum(row.bid_live + row.ask_live for row in self.rows))
        assert output("live_sides") == self.sides[0]


def quote(instrument, bid_lots=0, ask_lots=0, quote_id=0, bid_px=0, ask_px=0):
    return {"emit": 1, "instrument": instrument, "bid_lots": bid_lots, "ask_lots": ask_lots, "quote_id": quote_id,
            "bid_px": bid_px, "ask_px": ask_px, "bid_some": bid_lots > 0, "ask_some": ask_lots > 0}


def settle(lots=0, bid=0, ask=0, quote_id=0, clear_bid=0, clear_ask=0, next_=7, told=1, counts=1, known_now=1,
           spent_bid=0, spent_ask=0):
    return {"settle": 1, "position": {"lots": lots, "settled_bid": bid, "settled_ask": ask, "next": next_,
                                      "told": told},
            "settled_quote_id": quote_id, "clear_bid": clear_bid, "clear_ask": clear_ask, "counts": counts,
            "known_now": known_now, "spent_bid": spent_bid, "spent_ask": spent_ask}


def simulate(test, instruments=3):
    dut = Exposure(instruments)

    async def testbench(ctx):
        bench = Bench(ctx, dut)
        await bench.sweep()
        await test(bench)

    simulated(dut, testbench)


@pytest.mark.parametrize("instruments", [1, 3, 16])
def test_converts(instruments):
    assert "module" in verilog.convert(Exposure(instruments))


def test_reset():
    """Nothing is live or known before the first load either."""
    async def test(b):
        for name in ("bid_live", "ask_live", "position_known", "live_bids", "live_asks"):
            assert b.ctx.get(getattr(b.dut, name)) == 0, name
    simulate(test)


def test_what_was_sent_counts_until_it_is_settled():
    """Every lot of every quote, also of a side that is only repeated, also of one that was taken away since."""
    async def test(b):
        await b.emit(1, bid_lots=5, ask_lots=7, quote_id=1)
        await b.emit(1, bid_lots=6, ask_lots=7, quote_id=2)     # bid replaced, ask repeated
        await b.fetch(1)
        assert (b.ctx.get(b.dut.live.sent_bid), b.ctx.get(b.dut.live.sent_ask)) == (11, 14)
        await b.emit(1, ask_lots=7, quote_id=3)                 # bid taken away: it may have traded on its way
        await b.fetch(1)
        assert (b.ctx.get(b.dut.live.sent_bid), b.ctx.get(b.dut.live.sent_ask)) == (11, 21)
        await b.step(**settle(lots=-2, bid=11, ask=16, quote_id=3))
        await b.fetch(1)
        assert (b.ctx.get(b.dut.known.settled_bid), b.ctx.get(b.dut.known.settled_ask)) == (11, 16)
    simulate(test)


def test_what_was_sent_is_counted_modulo_32_bits():
    async def test(b):
        most = (1 << 24) - 1
        for n in range(260):
            await b.emit(1, bid_lots=most, ask_lots=most - 1, quote_id=n)
        await b.fetch(1)
        assert b.ctx.get(b.dut.live.sent_bid) == 260 * most & MASK
        assert b.ctx.get(b.dut.live.sent_ask) == 260 * (most - 1) & MASK
        assert 260 * most > MASK
    simulate(test)


def test_quote_leaves_while_another_instrument_is_on_the_bench():
    async def test(b):
        await b.emit(1, bid_lots=5, quote_id=1)
        await b.fetch(1)
        await b.step(0, prepare=1)
        await b.step(2, load=False)
        await b.step(load=True)
        await b.step(**quote(1, bid_lots=4, ask_lots=3, quote_id=2))
        await b.fetch(1)
        assert (b.ctx.get(b.dut.live.sent_bid), b.ctx.get(b.dut.live.sent_ask)) == (9, 3)
        await b.fetch(2)
        assert (b.ctx.get(b.dut.live.sent_bid), b.ctx.get(b.dut.bid_live)) == (0, 0)
    simulate(test)


@pytest.mark.parametrize("clear", range(4))
@pytest.mark.parametrize("quote_id", [7, 8])
def test_side_is_cleared_only_if_its_last_quote_is_meant(clear, quote_id):
    async def test(b):
        await b.emit(2, bid_lots=5, ask_lots=5, quote_id=8)
        await b.fetch(2)
        await b.step(**settle(quote_id=quote_id, clear_bid=clear & 1, clear_ask=clear >> 1))
        assert (b.ctx.get(b.dut.bid_live), b.ctx.get(b.dut.ask_live)) == (1, 1), "the bench does not change"
        await b.fetch(2)
        gone = clear if quote_id == 8 else 0
        assert (b.ctx.get(b.dut.bid_live), b.ctx.get(b.dut.ask_live)) == (~gone & 1, ~gone >> 1 & 1)
        assert (b.ctx.get(b.dut.live_bids), b.ctx.get(b.dut.live_asks)) == ((~gone & 1) << 2, (~gone >> 1 & 1) << 2)
    simulate(test)


@pytest.mark.parametrize("spent", range(4))
def test_side_that_is_spent_is_gone_whatever_quote_it_is_of(spent):
    async def test(b):
        await b.emit(2, bid_lots=5, ask_lots=5, quote_id=8)
        await b.fetch(2)
        await b.step(**settle(quote_id=3, spent_bid=spent & 1, spent_ask=spent >> 1))
        await b.fetch(2)
        assert (b.ctx.get(b.dut.bid_live), b.ctx.get(b.dut.ask_live)) == (~spent & 1, ~spent >> 1 & 1)
    simulate(test)


def test_every_bit_of_a_quote_id_counts():
    async def test(b):
        for emitted, settled in ((0, 1), (1, 0)):
            for bit in range(32):
                await b.emit(2, bid_lots=5, ask_lots=5, quote_id=emitted << bit)
                await b.fetch(2)
                await b.step(**settle(quote_id=settled << bit, clear_bid=1, clear_ask=1))
                await b.fetch(2)
                assert (b.ctx.get(b.dut.bid_live), b.ctx.get(b.dut.ask_live)) == (1, 1), bit
    simulate(test)


@pytest.mark.parametrize("lots", [-(1 << 31), -(1 << 30) - 1, (1 << 31) - 1, 1 << 30])
def test_every_bit_of_a_position_counts(lots):
    async def test(b):
        await b.fetch(2)
        await b.step(**settle(lots=lots, bid=MASK, ask=MASK))
        await b.fetch(2)    # what the model says is checked against the outputs in every step
        assert b.bench.lots == lots
    simulate(test)


@pytest.mark.parametrize(("instrument", "other"), [(130, 2), (2, 130)])
def test_all_instruments_have_a_row(instrument, other):
    async def test(b):
        for name, value in quote(instrument, bid_lots=5).items():
            b.ctx.set(getattr(b.dut, name), value)
        await b.ctx.tick()
        b.ctx.set(b.dut.emit, 0)
        for address, sent in ((other, 0), (instrument, 5)):
            b.ctx.set(b.dut.address, address)
            await b.ctx.tick().repeat(2)
            b.ctx.set(b.dut.load, 1)
            await b.ctx.tick()
            b.ctx.set(b.dut.load, 0)
            assert b.ctx.get(b.dut.live.sent_bid) == sent, address
    simulate(test, instruments=200)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_write_is_seen_by_the_load_two_cycles_after_it(before):
    """... and by none sooner. ``before`` : cycles from the write to the load."""
    async def test(b):
        await b.fetch(1)
        await b.step(prepare=1)
        writes = {3 - before: quote(1, bid_lots=3, quote_id=9)}
        for n in range(4):
            await b.step(1, load=n == 3, **writes.get(n, {}))
        seen = before >= 2
        assert (b.ctx.get(b.dut.live.bid_lots), b.ctx.get(b.dut.bid_live)) == (3 * seen, seen)
        assert b.ctx.get(b.dut.live_bids) == 2
    simulate(test)


def test_bench_holds_until_the_next_load():
    async def test(b):
        await b.emit(1, bid_lots=5, quote_id=1)
        await b.fetch(1)
        before = b.bench.expected()
        await b.step(0, clear_all=1)
        await b.step(2)
        await b.step(forget_positions=1)
        assert b.bench.expected() == before     # what the model says is checked against the outputs in every step
        await b.fetch(1)
        assert not b.ctx.get(b.dut.bid_live)
    simulate(test)


def test_random():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = set()

    def lots():
        return rng.choice((0, 1, rng.getrandbits(24)))

    def px():
        return rng.randrange(-TICK_LIMIT, TICK_LIMIT)

    async def test(b):
        quote_id = 0
        prepared = None     # instrument whose quote is to leave
        for _ in range(6000):
            # The address rests for two cycles at least, as the scheduler sees to it.
            rests = b.asked == b.ctx.get(b.dut.address)
            address = rng.randrange(len(b.rows)) if rests and rng.random() < .3 else None
            x, what = {}, rng.random()
            load = rests and address is None and rng.random() < .5
            row = None if b.held is None else b.rows[b.held]
            if prepared is not None and what < .4:
                quote_id += 1
                x, row = quote(prepared, lots(), lots(), quote_id & MASK, px(), px()), b.rows[prepared]
                prepared = None
            elif (prepared is None and row is not None and what < .4 and not load
                  and b.bench.expected() == row.expected()):
                x, prepared = {"prepare": 1}, b.held
            elif (what < .7 and row is not None and address is None and b.ctx.get(b.dut.address) == b.held
                  and b.bench.quote_id == row.quote_id):
                x = settle(px(), row.sent_bid - rng.choice((0, 1, 5)) & MASK,
                           row.sent_ask - rng.choice((0, 1, -1)) & MASK,
                           rng.choice((row.quote_id, row.quote_id, row.quote_id - 1 & MASK, 0)), rng.randrange(2),
                           rng.randrange(2), rng.getrandbits(32), rng.randrange(2), rng.random() < .8,
                           rng.random() < .7, rng.random() < .1, rng.random() < .1)
            elif .7 < what < .73:
                x = {"clear_all": 1}
            elif .73 < what < .78:
                x = {"forget_positions": 1}
            elif .78 < what < .81:
                x, prepared = {"restart": 1}, None
            names = [name for name in STROBES if name in x]
            if row is not None:
                seen.update((name, row.bid_live, row.ask_live) for name in names)
            await b.step(address, load, **x)
            if "restart" in x:
                b.held = None
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
            await b.emit(i, 9, 9, 9, 9, 9)
            await b.fetch(i)
            await b.step(**settle(9, 9, 9))
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        b.forget()
        await b.sweep()
        for i in range(instruments):
            await b.fetch(i)
        assert (ctx.get(dut.live_bids), ctx.get(dut.live_asks)) == (0, 0)

    simulated(ResetInserter(reset)(dut), testbench)


@pytest.mark.parametrize("instruments", [1, 5])
def test_new_session_forgets_row_by_row(instruments):
    async def test(b):
        for i in range(instruments):
            await b.emit(i, 9, 9, 9, 9, 9)
            await b.fetch(i)
            await b.step(**settle(9, 9, 9))
        await b.step(restart=1)
        for i in range(instruments):
            await b.fetch(i)
            assert not b.ctx.get(b.dut.position_known)
    simulate(test, instruments)


def test_both_sides_of_every_instrument():
    """512 are live on the largest card, and as many are counted."""
    dut = Exposure(256)

    async def testbench(ctx):
        while ctx.get(dut.clearing):
            await ctx.tick()
        for name in ("bid_some", "ask_some", "emit"):
            ctx.set(getattr(dut, name), 1)
        for n in range(256):
            ctx.set(dut.instrument, n)
            ctx.set(dut.of_instrument, 1 << n)
            await ctx.tick()
        ctx.set(dut.emit, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.live_sides) == 512
    simulated(dut, testbench)

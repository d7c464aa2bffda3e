# amaranth: UnusedElaboratable=no
"""What all instruments hold and have open, in money: against sums over everything that was said, and cycle by cycle
against the golden model."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.gate.load import CHANGE_CYCLES, OVER_BITS, RUN_CYCLES, Load
from hdl.order.timing import QUOTE_FRAME, busy_cycles
from hdl.quote.scheduler import DECISION_CYCLES, LEAVE_CYCLES, LOAD_CYCLES, WEIGH_DIRECT
from sim.golden import load as golden
from tests.hdl.simulation import simulated

OVER = 1 << OVER_BITS
U32 = 0xFFFF_FFFF
#: Cycles an instrument, and more, from the last word about anything to sums that have all of it.
ALL_CYCLES, MORE_CYCLES = RUN_CYCLES + 2, 2 * RUN_CYCLES


class Bench:
    """Drives the component and tells the golden model; ``cycle`` counts from reset.

    ``said`` : what was said last of each instrument, as :meth:`sums` adds it up, without any of the model's.
    """

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.cycle, self.n = ctx, dut, 0, dut.instruments
        self.model = golden.Load(self.n)
        self.said = [{"sent": [0, 0], "settled": [0, 0], "position": 0, "value": 0} for _ in range(self.n)]
        self.seen = []      # (bids, asks, gross), from cycle 0 on

    def totals(self):
        """The sums as the registers show them."""
        ctx, dut = self.ctx, self.dut
        return tuple(ctx.get(which) for which in (dut.open_bids, dut.open_asks, dut.gross))

    def sums(self):
        """What the sums have to be when all is said and done."""
        out = [0, 0, 0]
        for its in self.said:
            opens = [(a - b) % (1 << 32) for a, b in zip(its["sent"], its["settled"], strict=True)]
            for n, lots in enumerate((*opens, abs(its["position"]) + sum(opens))):
                worth = lots * its["value"]
                out[n] += OVER if worth >= OVER or (lots and not its["value"]) else worth
        return tuple(out)

    async def step(self, **strobes):
        """One cycle: ``left`` = (i, sent bid, sent ask), ``settle`` = (i, position, settled bid, settled ask), ``tell``
        = (i, lot value), ``restart`` = True."""
        ctx, dut = self.ctx, self.dut
        for what, to in (("left", "emit"), ("settle", "settle"), ("tell", "tell"), ("restart", "restart")):
            ctx.set(getattr(dut, to), what in strobes)
        if "left" in strobes:
            i, bid, ask = strobes["left"]
            for name, value in (("emitted", i), ("of_emitted", 1 << i), ("sent_bid", bid), ("sent_ask", ask)):
                ctx.set(getattr(dut, name), value)
            self.model.left(self.cycle, i, bid, ask)
            self.said[i]["sent"] = [bid, ask]
        if "settle" in strobes:
            i, position, bid, ask = strobes["settle"]
            ctx.set(dut.settled, i)
            ctx.set(dut.of_settled, 1 << i)
            ctx.set(dut.position, {"lots": position, "settled_bid": bid, "settled_ask": ask})
            self.model.settle(self.cycle, i, position, bid, ask)
            self.said[i] |= {"position": position, "settled": [bid, ask]}
        if "tell" in strobes:
            i, value = strobes["tell"]
            for name, what in (("told", i), ("of_told", 1 << i), ("lot_value", value)):
                ctx.set(getattr(dut, name), what)
            self.model.tell(self.cycle, i, value)
            self.said[i]["value"] = value
        if "restart" in strobes:
            self.model.restart(self.cycle)
            for its in self.said:
                its["sent"], its["settled"] = [0, 0], [0, 0]
        await ctx.tick()
        self.cycle += 1
        totals = self.model.totals(self.cycle)
        assert tuple(map(ctx.get, dut.kept["totals"])) == totals, f"cycle {self.cycle}"
        assert self.totals() == tuple(total >> 8 if total < OVER else U32 for total in totals)

    async def rest(self, cycles=None):
        for _ in range(ALL_CYCLES * self.n + MORE_CYCLES if cycles is None else cycles):
            await self.step()

    async def limits(self, gross_most, open_most, leverage_most, equity):
        """New limits; returns when they count."""
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.written, 1)
        assert ctx.get(dut.changing)
        assert not ctx.get(dut.changed)
        await self.step()
        ctx.set(dut.written, 0)
        for name, value in (("gross_most", gross_most), ("open_most", open_most), ("leverage_most", leverage_most),
                            ("equity", equity)):
            ctx.set(getattr(dut, name), value)
        for k in range(1, CHANGE_CYCLES + 1):
            assert ctx.get(dut.changing)
            assert ctx.get(dut.changed) == (k == CHANGE_CYCLES)
            await self.step()
        assert not ctx.get(dut.changing)

    async def rooms(self):
        """(gross, bid, ask), with their fractions."""
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.load, 1)
        await self.step()
        ctx.set(dut.load, 0)
        return tuple(ctx.get(getattr(dut.rooms, name)) for name in ("gross", "bid", "ask"))


def simulate(testbench, instruments=4, control=lambda dut: dut):
    dut = Load(instruments)

    async def begin(ctx):
        b = Bench(ctx, dut)
        await b.rest(instruments)
        await testbench(b)

    simulated(control(dut), begin)


def seeded(seed=None):
    seed = random.randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("instruments", [1, 5, 16, 17, 256])
def test_converts(instruments):
    verilog.convert(Load(instruments))


def lots(rng):
    return rng.choice((0, 1, 5, rng.randrange(1000), rng.getrandbits(24), rng.getrandbits(32), U32))


def value(rng):
    return rng.choice((0, 1, 255, 256, rng.getrandbits(20), rng.getrandbits(32), U32))


def position(rng):
    return rng.choice((0, 1, -1, rng.randrange(-1000, 1000), (1 << 31) - 1, -1 << 31, rng.randrange(-1 << 31, 1 << 31)))


@pytest.mark.parametrize("instruments", [1, 3, 16, 17])     # the last one has its rows in blocks
def test_random_interleavings(instruments):
    """Everything at any time, two at once, in the very cycles of a run: the model's sums in every cycle, and when all
    is quiet those that a child would add up."""
    rng = seeded()

    async def testbench(b):
        for _ in range(25):
            quiet, closed = rng.choice((2, 20, 60)), -1     # nothing is sent or settled on a session that begins
            for _ in range(rng.randrange(1, 400)):
                strobes, i, j = {}, *rng.choices(range(b.n), k=2)
                if b.cycle > closed and rng.randrange(quiet) == 0:
                    bid, ask = b.said[i]["sent"]
                    if rng.random() < .5:
                        strobes["left"] = i, bid + lots(rng) & U32, ask + lots(rng) & U32
                    else:
                        strobes["settle"] = i, position(rng), bid - lots(rng) & U32, ask - lots(rng) & U32
                if rng.randrange(quiet) == 0:
                    strobes["tell"] = rng.choice((i, j)), value(rng)
                if rng.randrange(300) == 0:
                    strobes["restart"], closed = True, b.cycle + b.n
                await b.step(**strobes)
            await b.rest()
            assert b.model.totals(b.cycle) == b.sums()
    simulate(testbench, instruments)


@pytest.mark.parametrize("instruments", [3, 17])
def test_what_has_left_comes_first(instruments):
    """Whatever else is marked, and whenever a run has begun: two runs later the sums have it, and that is before the
    next frame can be decided on."""
    bound = 2 * RUN_CYCLES + 1
    fired_to_emit = WEIGH_DIRECT + LEAVE_CYCLES
    sampled = DECISION_CYCLES - LOAD_CYCLES + 1     # before a decision the sums are taken
    assert fired_to_emit + bound + 3 < busy_cycles(QUOTE_FRAME) - sampled
    rng, worst = seeded(), 0

    async def testbench(b):
        nonlocal worst
        for i in range(b.n):
            await b.step(tell=(i, 256))
        for turn in range(60):
            for i in range(b.n):        # all are marked
                await b.step(settle=(i, 0, *b.said[i]["sent"]))
            await b.rest(turn % (RUN_CYCLES + 3))
            i, began = rng.randrange(b.n), b.cycle
            before = b.model.totals(b.cycle)[0]
            bid, ask = b.said[i]["sent"]
            await b.step(left=(i, bid + (1 << 20) & U32, ask))
            while b.model.totals(b.cycle)[0] < before + (1 << 19 + 8):
                await b.step()
            worst = max(worst, b.cycle - began)
            await b.step(settle=(i, 0, *b.said[i]["sent"]))
            await b.rest()
    simulate(testbench, instruments)
    print(worst)
    assert RUN_CYCLES < worst <= bound


def test_at_the_edges():
    """Saturation just at 2^40, positions of either sign, opens modulo 2^32, values that are not known."""
    async def testbench(b):
        async def sums(**strobes):
            await b.step(**strobes)
            await b.rest()
            assert b.model.totals(b.cycle) == b.sums()
            return b.sums()

        assert await sums(tell=(1, 256)) == (0, 0, 0)
        assert await sums(settle=(1, -7, 0, 0)) == (0, 0, 7 * 256)
        assert await sums(settle=(1, 7, 0, 0)) == (0, 0, 7 * 256)
        assert await sums(settle=(1, -1 << 31, 0, 0)) == (0, 0, 1 << 39)
        assert await sums(settle=(1, 0, U32 - 4, 3)) == (5 * 256, OVER - 3 * 256, OVER)
        assert await sums(left=(1, 2, 3)) == (7 * 256, 0, 7 * 256)
        assert await sums(settle=(1, 0, 2, 2)) == (0, 256, 256)
        assert await sums(tell=(1, 1 << 31)) == (0, 1 << 31, 1 << 31)
        for count, want in ((511, 511 << 31), (512, OVER), (513, OVER), (1 << 31, OVER)):
            assert (await sums(settle=(1, count - 1, 2, 2)))[2] == want
        assert await sums(tell=(1, 0)) == (0, OVER, OVER)           # of lots whose value nobody knows
        assert await sums(settle=(1, 0, 2, 3)) == (0, 0, 0)         # without lots it does not matter
        assert await sums(settle=(2, 1, 0, 0)) == (0, 0, OVER)      # never told
        assert await sums(settle=(3, -1, 0, 0)) == (0, 0, 2 * OVER)
        assert b.totals() == (0, 0, U32)
        assert await sums(tell=(2, 3)) == (0, 0, OVER + 3)
        assert await sums(tell=(3, 4)) == (0, 0, 7)
    simulate(testbench)


def test_a_new_session_has_nothing_open():
    """... and holds what was held."""
    async def testbench(b):
        for i in range(b.n):
            await b.step(tell=(i, 100))
            await b.step(settle=(i, -3 * i, 0, 0))
            await b.step(left=(i, 5, 6))
        await b.rest()
        assert b.sums() == b.model.totals(b.cycle) == (2_000, 2_400, 4_400 + 1_800)
        await b.step(restart=True)
        for _ in range(ALL_CYCLES * b.n + MORE_CYCLES):
            await b.step()
            assert b.model.totals(b.cycle)[2] >= 1_800
        assert b.model.totals(b.cycle) == (0, 0, 1_800)
        await b.step(left=(1, 4, 0))
        await b.rest()
        assert b.model.totals(b.cycle) == (400, 0, 2_200)
    simulate(testbench)


def test_rooms():
    """Below the smaller of both limits on the whole; of every amount of equity and leverage."""
    rng, smaller = seeded(), {"gross_most": 0, "leverage_most": 0}

    async def testbench(b):
        await b.step(tell=(0, 1 << 20))
        for _ in range(60):
            await b.step(settle=(0, rng.randrange(-1000, 1000), 0, 0))
            await b.step(left=(0, rng.randrange(1000), rng.randrange(1000)))
            await b.rest()
            corner = (0, 1, U32, rng.getrandbits(32), rng.getrandbits(20))
            gross_most, open_most = rng.choice(corner), rng.choice(corner)
            leverage, equity = rng.choice((0, 1, 16, 48, 255, rng.getrandbits(8))), rng.choice(
                (0, 1, -1, (1 << 31) - 1, -1 << 31, rng.getrandbits(31), rng.getrandbits(20), -rng.getrandbits(31)))
            await b.limits(gross_most, open_most, leverage, equity)
            bids, asks, gross = b.sums()
            most = min(gross_most * 256, max(0, equity) * leverage * 16)
            smaller["gross_most" if gross_most * 256 == most else "leverage_most"] += 1
            assert await b.rooms() == (most - gross, open_most * 256 - bids, open_most * 256 - asks)
            assert golden.rooms((bids, asks, gross), gross_most, open_most, leverage, equity) == (
                most - gross, open_most * 256 - bids, open_most * 256 - asks)
    simulate(testbench)
    assert min(smaller.values()) > 10


def test_limits_that_change_while_they_change():
    """The last ones count, :data:`CHANGE_CYCLES` after they were written."""
    async def testbench(b):
        ctx, dut = b.ctx, b.dut
        for gap in range(CHANGE_CYCLES + 2):
            ctx.set(dut.written, 1)
            await b.step()
            ctx.set(dut.written, 0)
            for name, what in (("gross_most", U32), ("leverage_most", 0xAA), ("equity", 12_345)):
                ctx.set(getattr(dut, name), what)
            await b.rest(gap)
            await b.limits(U32, 7, 255 - gap, 1_000 + gap)
            assert await b.rooms() == ((255 - gap) * (1_000 + gap) * 16, 7 * 256, 7 * 256)
    simulate(testbench)


def test_reset():
    """Rows keep their content through a reset, and nothing of it counts."""
    reset = Signal()

    async def testbench(b):
        ctx = b.ctx
        for i in range(b.n):
            await b.step(tell=(i, 256))
            await b.step(settle=(i, 3, 0, 0))
            await b.step(left=(i, 5, 5))
        await b.rest()
        assert b.totals() == (20, 20, 52)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        fresh = Bench(ctx, b.dut)
        await fresh.rest()
        assert fresh.totals() == (0, 0, 0)
        await fresh.step(settle=(1, 2, 0, 0))
        await fresh.rest()
        assert fresh.totals() == (0, 0, U32)        # the value has been forgotten, too
        await fresh.step(tell=(1, 512))
        await fresh.rest()
        assert fresh.totals() == (0, 0, 4)
    simulate(testbench, control=lambda dut: ResetInserter(reset)(dut))


def test_rooms_hold_still():
    """From one evaluation's beginning to the next one's, whatever is sent meanwhile; and the greatest limit counts."""
    async def test(b):
        await b.limits(U32, U32, 255, (1 << 31) - 1)
        await b.step(tell=(0, 256))
        await b.rest()
        rooms = await b.rooms()
        assert rooms == (U32 << 8, U32 << 8, U32 << 8)
        await b.step(left=(0, 10, 20))
        await b.rest()
        assert tuple(b.ctx.get(getattr(b.dut.rooms, name)) for name in ("gross", "bid", "ask")) == rooms
        assert await b.rooms() == ((U32 - 30) << 8, (U32 - 10) << 8, (U32 - 20) << 8)
    simulate(test)

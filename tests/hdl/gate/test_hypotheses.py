# amaranth: UnusedElaboratable=no
"""Thresholds instead of prices: proved to be the same, for every reference, skew, spread, limit and price; and verdicts
that are made of them, against prices in plain integers.

Those of a whole evaluation are held against the golden model in ``tests/hdl/quote/test_engine_and_gate.py``.
"""

import random
import re

import pytest
import z3
from amaranth.back import rtlil, verilog
from amaranth.hdl import Shape

from hdl.control.params import Ticks
from hdl.control.registers import PARAM_BY_NAME
from hdl.gate.hypotheses import Hypotheses, Offset
from hdl.gate.references import Whole
from hdl.quote.engine import HYPOTHESES, REFERENCES, SAME, STAYS, QuoteEngine, Reach, Reference
from tests.hdl.simulation import simulated

_HYPOTHESES = Hypotheses()
RTLIL = rtlil.convert(_HYPOTHESES)
MEMBERS = _HYPOTHESES.signature.members
#: As the engine gives it.
SKEW = Shape.cast(QuoteEngine().signature.members["skew"].shape)
HALF_SPREAD = PARAM_BY_NAME["half_spread_sub"].width
#: Prices that a threshold is made of, with their shapes.
LIMITS = {"low": Ticks, "high": Ticks,
          **{name: MEMBERS["bid"].signature.members[name].shape for name in ("up", "down")}}


def prove(claim):
    """For all values of its variables."""
    solver = z3.SolverFor("QF_BV") if _is_bits(claim) else z3.Solver()
    solver.add(z3.Not(claim))
    assert solver.check() == z3.unsat, solver.model()


def _is_bits(term):
    return z3.is_bv(term) or any(_is_bits(child) for child in term.children())


def test_converts():
    assert "module" in verilog.convert(Hypotheses())


# ---------------------------------------------------------------------- the idea, in integers of any size

def test_a_bid_is_at_least_x_when_the_reference_is_at_least_its_threshold():
    ref, skew, half_spread, x = z3.Ints("ref skew half_spread x")
    price = (ref - skew - half_spread) / 256    # z3 rounds down between integers if the divisor is positive
    prove((price >= x) == (ref >= 256 * x + half_spread + skew))


def test_an_ask_is_at_least_x_when_the_reference_is_at_least_its_threshold():
    ref, skew, half_spread, x, price = z3.Ints("ref skew half_spread x price")
    exact = ref - skew + half_spread
    rounded_up = z3.And(256 * price >= exact, 256 * (price - 1) < exact)
    prove(z3.Implies(rounded_up, (price >= x) == (ref >= 256 * x - half_spread - 255 + skew)))


@pytest.mark.parametrize("slip", [-1, 1])
def test_one_256th_of_a_tick_off_is_refuted(slip):
    ref, skew, half_spread, x = z3.Ints("ref skew half_spread x")
    with pytest.raises(AssertionError):
        prove(((ref - skew - half_spread) / 256 >= x) == (ref >= 256 * x + half_spread + skew + slip))


def test_there_is_no_more_room_than_the_edge_where_the_sum_lies_beyond_twice_a_price():
    """Of products with 16 bits of fraction, whichever of both prices is held against; fractions by themselves."""
    one = 1 << 16
    bid, ask, edge = z3.Ints("bid ask edge")
    total, takes = bid + ask, (ask - bid) / one <= edge
    for less, more in ((2 * ask - (edge + 1) * one, total), (total, 2 * bid + (edge + 1) * one)):
        prove(takes == (less < more))
        prove(takes == (less / one < more / one + z3.If(less % one < more % one, 1, 0)))


# ---------------------------------------------------------------------- in the widths of the fabric

def widths(name):
    """Width of the wires of that name in the component."""
    found = re.findall(rf"wire width (\d+) (?:signed )?\\{name}\b", RTLIL)
    assert found, f"no wire {name}"
    return {int(width) for width in found}


def signed(value, width):
    return z3.SignExt(width - value.size(), value)


def unsigned(value, width):
    return z3.ZeroExt(width - value.size(), value)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("side", ["bid", "ask"])
def test_no_width_overflows(side, limit):
    """A threshold as the fabric computes it, and as it would be in wide arithmetic, for everything on the inputs.
    ``more`` : ``high`` and ``down`` are held against as the price above them."""
    (base_width,), (width,) = widths(f"{side}_{limit}_base"), widths(f"{side}_{limit}_limit")
    shape = Shape.cast(LIMITS[limit])
    assert shape.signed
    assert SKEW.signed
    x, skew = z3.BitVec("x", shape.width), z3.BitVec("skew", SKEW.width)
    half_spread = z3.BitVec("half_spread", HALF_SPREAD)
    sign, rounding = (1, 0) if side == "bid" else (-1, -255)
    more = 1 if limit in ("high", "down") else 0
    exact = (signed(x, 80) << 8) + sign * unsigned(half_spread, 80) + rounding + 256 * more + signed(skew, 80)
    # The low eight bits of the offset pass by the sum that forms the base.
    offset = sign * unsigned(half_spread, Offset.width) + rounding
    base = signed(x, base_width) + signed(z3.Extract(Offset.width - 1, 8, offset), base_width) + more
    limit_ = signed(z3.Concat(base, z3.Extract(7, 0, offset)), width) + signed(skew, width)
    prove(signed(limit_, 80) == exact)


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_a_reference_beyond_the_thresholds_is_beyond_every_limit(side):
    """Such a reference counts as outside of the window; its price is."""
    ref, half_spread = z3.BitVec("ref", Shape.cast(Reference).width), z3.BitVec("half_spread", HALF_SPREAD)
    skew, x = z3.BitVec("skew", SKEW.width), z3.BitVec("low", Ticks.width)
    (width,) = widths(f"{side}_low_limit")
    assert Shape.cast(MEMBERS["low"].shape) == Shape.cast(MEMBERS["high"].shape) == Ticks
    wide = ref.size() + 3
    sign, up = (1, 0) if side == "bid" else (-1, 255)
    price = (signed(ref, wide) - signed(skew, wide) - sign * unsigned(half_spread, wide) + up) >> 8
    fits = signed(z3.Extract(width - 1, 0, ref), ref.size()) == ref
    prove(z3.Or(fits, z3.If(ref > 0, price > signed(x, wide), price < signed(x, wide))))


@pytest.mark.parametrize("width", sorted({Shape.cast(shape).width for shape in LIMITS.values()}))
@pytest.mark.parametrize("side", ["bid", "ask"])
def test_comparing_references_is_comparing_prices(side, width):
    """Bit by bit: any reference, any skew, any half spread, any price to compare with."""
    reference = Shape.cast(Reference)
    assert reference.signed
    ref, skew = z3.BitVec("ref", reference.width), z3.BitVec("skew", SKEW.width)
    half_spread, x = z3.BitVec("half_spread", HALF_SPREAD), z3.BitVec("x", width)
    (limit_width,) = widths(f"{side}_low_limit")
    assert limit_width < reference.width
    wide = reference.width + 3
    sign, up = (1, 0) if side == "bid" else (-1, 255)
    limit = (signed(x, limit_width) << 8) + sign * unsigned(half_spread, limit_width) - up + signed(skew, limit_width)
    price = (signed(ref, wide) - signed(skew, wide) - sign * unsigned(half_spread, wide) + up) >> 8
    fits = signed(z3.Extract(limit_width - 1, 0, ref), ref.size()) == ref
    near = z3.Extract(limit_width - 1, 0, ref)
    prove(z3.Implies(fits, (near >= limit) == (price >= signed(x, wide))))


# ---------------------------------------------------------------------- verdicts

SEED = 74
SIDES = "bid", "ask"


def span(shape):
    """Least and greatest value."""
    return -(1 << shape.width - 1), (1 << shape.width - 1) - 1


TICKS, MOVES, REFS, SKEWS = (span(Shape.cast(shape)) for shape in (Ticks, LIMITS["up"], Reference, SKEW))


WIDTH = Shape.cast(Reference).width
REACHES, MIDS = span(Reach), span(Whole)
#: The best price that stays under each hypothesis.
STAYING = {h: STAYS[n] for n, of in enumerate(REFERENCES) for h in of if h is not None}


class Evaluated:
    """An instrument, with limits around the prices of its hypotheses, and what is to be said of each of them."""

    def __init__(self, rng):
        self.half_spread = rng.choice((0, 1, 255, 256, rng.randrange(1 << 12), (1 << HALF_SPREAD) - 1))
        self.skew = rng.choice((0, 1, -256, rng.randrange(-5000, 5000), *SKEWS))
        mid = rng.choice((0, rng.randrange(-5000, 5000), rng.randrange(*TICKS), *TICKS))
        self.refs = [256 * mid + rng.choice((self.skew, self.skew, 0)) + rng.randrange(-600, 600)
                     for _ in range(HYPOTHESES)]
        # The first reference of a price decides: a bid is one as soon as it is reached, an ask as soon as it is passed.
        firsts = 0, self.skew + self.half_spread, self.skew - self.half_spread + 1
        self.refs = [ref - (ref - first) % 256 if first else ref
                     for ref in self.refs for first in (rng.choice(firsts),)]
        near = [price for h in range(HYPOTHESES) for price in self.prices(h).values()]
        # Some are wider than any threshold, and no different in the bits that a threshold has.
        self.refs = [ref + rng.choice((-1, 1)) * (1 << rng.randrange(32, WIDTH - 1)) if rng.random() < .1 else ref
                     for ref in self.refs]
        self.refs = [max(REFS[0], min(REFS[1], ref)) for ref in self.refs]

        def limit(of, *others):
            """Mostly the price of a hypothesis, or the next one to it."""
            low, high = of
            return max(low, min(high, rng.choice((rng.choice(near) + rng.choice((-1, 0, 1)), *others))))

        self.low, self.high = limit(TICKS, TICKS[0], TICKS[0]), limit(TICKS, TICKS[1], TICKS[1])
        self.sides = {name: {"fixed": 1 << rng.choice((3, 5, 9, 10, 11)) if rng.random() < .1 else 0,
                             "reduces": rng.random() < .8, "live": rng.random() < .7, "resize": rng.random() < .2,
                             "up": limit(MOVES, MOVES[1]), "down": limit(MOVES, MOVES[0])} for name in SIDES}
        # Mostly beyond the reference of a hypothesis, or just not.
        self.leans_up, self.beyond = rng.random() < .5, [rng.random() < .5 for _ in range(HYPOTHESES)]
        self.reach = {side: rng.choice((rng.choice(self.refs) + rng.choice((-1, 0, 0, 1)), rng.choice(self.refs), end,
                                        end, rng.choice(REACHES)))
                      for side, end in zip(SIDES, REACHES, strict=True)}
        mids = [ref >> 8 for ref in self.refs]
        self.mid_low, self.mid_high = (
            max(MIDS[0], min(MIDS[1], rng.choice((end, end, end, rng.choice(mids) + more)))) for end, more in zip(
                MIDS, (rng.choice((0, 1, -1)), rng.choice((0, 1, 2))), strict=True))
        self.reducing = rng.random() < .3
        self.book_ok = [rng.random() < .8 for _ in range(HYPOTHESES)]

    def prices(self, h):
        """A bid is rounded down, an ask up."""
        exact = self.refs[h] - self.skew
        return {"bid": (exact - self.half_spread) // 256, "ask": -(-(exact + self.half_spread) // 256)}

    def moved(self, h, name):
        return self.prices(h)[name] >= self.sides[name]["up"] or self.prices(h)[name] <= self.sides[name]["down"]

    def takes(self, h, name):
        reaches = (self.reach["ask"] < self.refs[h] + self.beyond[h] if STAYING[h] == "ask" else
                   self.refs[h] < self.reach["bid"] + self.beyond[h])
        return reaches and (name == "bid") == self.leans_up

    def far(self, h):
        return not self.mid_low <= self.refs[h] >> 8 < self.mid_high or not -(1 << 33) <= self.refs[h] < 1 << 33

    def verdict(self, h):
        """(want, pull)."""
        want = pull = False
        for name, side in self.sides.items():
            right = (not side["fixed"] and (side["reduces"] or not self.reducing)
                     and self.low <= self.prices(h)[name] <= self.high and not self.far(h)
                     and not self.takes(h, name))
            want |= right and (side["resize"] or self.moved(h, name))
            pull |= side["live"] and not right
        live = any(side["live"] for side in self.sides.values())
        return (want, pull) if self.book_ok[h] else (False, live)


def test_verdicts():
    """With anything on the inputs in the cycles in which they do not count yet, or no more."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen, moved, told = {}, set(), set()
    dut = Hypotheses()

    def set_limits(ctx, case):
        for name, value in (("low", case.low), ("high", case.high)):
            ctx.set(getattr(dut, name), value)
        for name, side in case.sides.items():
            for what in ("up", "down"):
                ctx.set(getattr(getattr(dut, name), what), side[what])

    def set_verdicts_of_limits(ctx, case):
        for name, side in case.sides.items():
            for what in ("fixed", "reduces", "resize", "live"):
                ctx.set(getattr(getattr(dut, name), what), side[what])
        ctx.set(dut.reducing, case.reducing)

    async def testbench(ctx):
        for _ in range(2000):
            case, other = Evaluated(rng), Evaluated(rng)
            for t in range(8):
                ctx.set(dut.at, 1 << t)
                if t in (0, 1):
                    ctx.set(dut.params, {"half_spread_sub": (case if t else other).half_spread})
                if t in (0, 3):
                    set_limits(ctx, case if t else other)
                if t in (0, 5):
                    for name in ("leans_up", "mid_low", "mid_high"):
                        ctx.set(getattr(dut, name), getattr(case if t else other, name))
                    for name in SIDES:
                        ctx.set(getattr(dut, f"reach_{name}"), (case if t else other).reach[name])
                if t in (0, 4):
                    ctx.set(dut.skew, (case if t else other).skew)
                if t in (0, 6):
                    set_verdicts_of_limits(ctx, case if t else other)
                for n, (early, late) in enumerate(REFERENCES if t >= 5 else ()):
                    h = {5: early, 6: late}.get(t)
                    ctx.set(dut.refs[n], rng.randrange(*REFS) if h is None else case.refs[h])
                    ctx.set(dut.beyond[n], rng.random() < .5 if h is None else case.beyond[h])
                if t in (0, 7):
                    ctx.set(dut.book_ok, sum(ok << h for h, ok in enumerate((case if t else other).book_ok)))
                if t < 7:
                    await ctx.tick()
            for h in range(HYPOTHESES):
                verdict, want = dut.verdicts[h], case.verdict(h)
                assert (ctx.get(verdict.want), ctx.get(verdict.pull)) == want, (h, case.prices(h), vars(case))
                seen[h, want] = seen.get((h, want), 0) + 1
            assert ctx.get(dut.pull_all) == any(side["live"] for side in case.sides.values())
            await ctx.tick()
            ctx.set(dut.at, 0)
            assert ctx.get(dut.far) == case.far(SAME), vars(case)
            for name in SIDES:
                assert ctx.get(getattr(dut, f"{name}_takes")) == case.takes(SAME, name), (name, vars(case))
                told.add((name, case.takes(SAME, name), case.far(SAME)))
            inside = {name: case.low <= case.prices(SAME)[name] <= case.high for name in SIDES}
            for name in SIDES:
                if inside[name]:        # if the limits do not allow it, it says nothing
                    assert ctx.get(getattr(dut, f"{name}_moved")) == case.moved(SAME, name), (name, vars(case))
                    moved.add((name, case.moved(SAME, name)))

    simulated(dut, testbench)
    print(seen)
    assert len(seen) == 4 * HYPOTHESES
    assert min(seen.values()) > 50
    assert len(moved) == 4
    assert len(told) == 8

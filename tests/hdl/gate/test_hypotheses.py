"""Thresholds instead of prices: proved to be the same, for every reference, skew, spread, limit and price.

That the gateware makes its verdicts of these thresholds is tested in ``tests/hdl/quote/test_engine_and_gate.py``.
"""

import re

import pytest
import z3
from amaranth.back import rtlil, verilog
from amaranth.hdl import Shape

from hdl.control.registers import PARAM_BY_NAME
from hdl.gate.hypotheses import Hypotheses, Offset
from hdl.quote.engine import Reference

_HYPOTHESES = Hypotheses()
RTLIL = rtlil.convert(_HYPOTHESES)
MEMBERS = _HYPOTHESES.signature.members
HALF_SPREAD = PARAM_BY_NAME["half_spread_sub"].width
#: Prices that a threshold is made of, with their shapes.
LIMITS = {"low": MEMBERS["low"].shape, "high": MEMBERS["high"].shape,
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
    shape, skew_shape = Shape.cast(LIMITS[limit]), Shape.cast(MEMBERS["skew"].shape)
    assert shape.signed
    assert skew_shape.signed
    x, skew = z3.BitVec("x", shape.width), z3.BitVec("skew", skew_shape.width)
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
    skew, x = (z3.BitVec(name, Shape.cast(MEMBERS[name].shape).width) for name in ("skew", "low"))
    (width,) = widths(f"{side}_low_limit")
    assert Shape.cast(MEMBERS["low"].shape) == Shape.cast(MEMBERS["high"].shape)
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
    ref, skew = z3.BitVec("ref", reference.width), z3.BitVec("skew", Shape.cast(MEMBERS["skew"].shape).width)
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

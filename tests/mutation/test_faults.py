"""Operators on small sources: what they make of them, and what they leave alone."""

import ast

import pytest
from amaranth.hdl import Shape, Signal, signed
from amaranth.lib import data

from tests.mutation.faults import HELPERS, OPERATORS, Source
from tests.mutation.subjects import ROOT, SUBJECTS

FRAME = """\
class Part(wiring.Component):
    def elaborate(self, platform):
        {}
"""


def faults(text, operator=None):
    """(operator, before, after) of each mutant; of one operator: without it."""
    return [(mutant.operator, mutant.before, mutant.after) if operator is None else (mutant.before, mutant.after)
            for mutant in Source("hdl/gate/part.py", text).mutants if operator in (None, mutant.operator)]


@pytest.mark.parametrize(("operator", "statement", "unit", "after"), [
    ("comparison", "m.d.comb += x.eq(a < b)", "x.eq(a < b)", ["x.eq(a <= b)", "x.eq(a >= b)"]),
    ("comparison", "m.d.comb += x.eq(a >= b)", "x.eq(a >= b)", ["x.eq(a > b)", "x.eq(a < b)"]),
    ("comparison", "m.d.comb += x.eq(a == b)", "x.eq(a == b)", ["x.eq(a != b)"]),
    ("comparison", "m.d.comb += x.eq(less(a, b))", "x.eq(less(a, b))", ["x.eq(~less(b, a))", "x.eq(~less(a, b))"]),
    ("comparison", "m.d.comb += x.eq(~less(a, b))", "x.eq(~less(a, b))", ["x.eq(less(b, a))"]),
    ("operand", "m.d.comb += x.eq(a & b | c)", "x.eq(a & b | c)",
     ["x.eq(a & b)", "x.eq(c)", "x.eq(a | c)", "x.eq(b | c)"]),
    ("connective", "m.d.comb += x.eq(a & b)", "x.eq(a & b)", ["x.eq(a | b)"]),
    ("negation", "m.d.comb += x.eq(~a)", "x.eq(~a)", ["x.eq(a)"]),
    ("negation", "with m.If(~a): pass", "m.If(~a)", ["m.If(a)"]),
    ("arithmetic", "m.d.sync += x.eq(-a + b)", "x.eq(-a + b)", ["x.eq(-a - b)", "x.eq(a + b)"]),
    ("reduction", "m.d.comb += x.eq(a.any())", "x.eq(a.any())", ["x.eq(a.all())"]),
    ("constant", "m.d.comb += x.eq(a[3:])", "x.eq(a[3:])", ["x.eq(a[4:])", "x.eq(a[2:])"]),
    ("constant", "m.d.comb += x.eq(0)", "x.eq(0)", ["x.eq(1)"]),
    ("constant", "m.d.comb += x.eq(-1)", "x.eq(-1)", ["x.eq(0)", "x.eq(-2)"]),
    ("width", "x = Signal(8)", "x = Signal(8)", ["x = Signal(7)"]),
    ("width", "x = Signal(Ticks)", "x = Signal(Ticks)", ["x = Signal(narrower(Ticks))"]),
    ("width", "x = Signal()", "x = Signal()", []),
    ("width", "x = Signal.like(y)", "x = Signal.like(y)", ["x = Signal.like(y, shape=narrower(y.shape()))"]),
    ("reset", "x = Signal(8)", "x = Signal(8)", ["x = Signal(8, init=1)"]),
    ("reset", "x = Signal(8, init=5)", "x = Signal(8, init=5)", ["x = Signal(8, init=0)"]),
    ("choice", "m.d.comb += x.eq(Mux(a, b, c))", "x.eq(Mux(a, b, c))", ["x.eq(Mux(a, c, b))"]),
    ("condition", "with m.If(a): pass", "m.If(a)", ["m.If(~a)", "m.If(1)"]),
    ("condition", "with m.Elif(~a): pass", "m.Elif(~a)", ["m.Elif(1)"]),
    ("assignment", "m.d.sync += [x.eq(a), y.eq(b)]", "x.eq(a)", ["(dropped)"]),
    ("assignment", "m.d.sync += x.eq(a)", "x.eq(a)", ["(dropped)"]),
])
def test_operator(operator, statement, unit, after):
    assert [each for each in faults(FRAME.format(statement), operator) if each[0] == unit] == [
        (unit, each) for each in after]


def test_every_operator_is_told_of():
    assert {mutant.operator for subject in SUBJECTS
            for mutant in Source(subject.file, (ROOT / subject.file).read_text()).mutants} == set(OPERATORS)


@pytest.mark.parametrize("text", [
    '"""4 words & more."""',
    FRAME.format('"""One of 3, or ~2."""'),
    FRAME.format("assert a < 3, b"),
    FRAME.format('x = y[f"{side}_{1}"]'),
    FRAME.format('rows = Memory(shape=shape, depth=n, init=[1], attrs={"block": 1})'),
    "class Part:\n    def __init__(self, n=3):\n        self.n = n + 1 & 3 if n < 2 else ~n",
    "LIMIT = 5",
    "import hdl",
])
def test_left_alone(text):
    """Text, Python's own checks, names, memories, and what a constructor works out."""
    assert faults(text) == []


def test_ports_and_fields():
    text = ("class Row(data.Struct):\n    tokens: 8\n    px: Ticks\n"
            "class Part(wiring.Component):\n    def __init__(self, n):\n"
            "        super().__init__({'level': In(16), 'go': In(1), 'state': Out(2), 'quiet': Out(1, init=1)})\n"
            "Wide = signed(TICK_BITS + 2)\n")
    assert faults(text) == [
        ("width", "tokens: 8", "tokens: 7"), ("width", "px: Ticks", "px: narrower(Ticks)"),
        ("width", "'level': In(16)", "'level': In(15)"), ("width", "'state': Out(2)", "'state': Out(1)"),
        ("reset", "'state': Out(2)", "'state': Out(2, init=1)"),
        ("reset", "'quiet': Out(1, init=1)", "'quiet': Out(1, init=0)"),
        ("width", "Wide = signed(TICK_BITS + 2)", "Wide = narrower(signed(TICK_BITS + 2))")]


def test_a_function_that_makes_signals():
    """It is at fault where it is called."""
    text = FRAME.format("def named(shape, what): return Signal(shape, name=what)\n        x = named(8, 'x')")
    assert faults(text) == [("width", "x = named(8, 'x')", "x = named(7, 'x')"),
                            ("reset", "x = named(8, 'x')", "x = started_at_one(named(8, 'x'))")]


def test_mutants_are_told_apart_and_stay_the_same():
    statement = "m.d.comb += [x.eq(a & b), y.eq(a & b)]\n        m.d.comb += [x.eq(a & b)]"
    here, below = (Source("part.py", text) for text in (
        FRAME.format(statement), "# A comment.\n\n" + FRAME.format(statement)))
    ids = [mutant.id for mutant in here.mutants]
    assert len(set(ids)) == len(ids)
    assert [mutant.id for mutant in below.mutants] == ids
    assert [mutant.line + 2 for mutant in here.mutants] == [mutant.line for mutant in below.mutants]


def test_only_one_place_changes():
    text = FRAME.format("m.d.comb += [x.eq(a & b), y.eq(a & b)]")
    for mutant in Source("part.py", text).mutants:
        was, now = (ast.unparse(tree).splitlines() for tree in (
            ast.parse(text), Source("part.py", text).mutated(mutant.id)))
        assert sum(a != b for a, b in zip(was, now, strict=True)) == 1, mutant


class Pair(data.Struct):
    a: 1
    b: 1


def test_helpers():
    narrower, started_at_one = HELPERS["narrower"], HELPERS["started_at_one"]
    assert narrower(signed(24)) == signed(23)
    assert narrower(range(5)) == Shape(2)
    for shape, message in ((Pair, "not a number"), (1, "no bit to spare")):
        with pytest.raises(TypeError, match=message):
            narrower(shape)
    signal = started_at_one(Signal(signed(5), name="level"))
    assert (signal.shape(), signal.name, signal.init) == (signed(5), "level", 1)

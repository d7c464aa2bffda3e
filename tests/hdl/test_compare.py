"""Comparison of signed numbers against Python's."""

import itertools
import random
import time

import pytest
from amaranth import Module, Signal, signed, unsigned
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hdl.compare import less, sums_to

SEED = time.time_ns() & 0xFFFFFFFF


class Less(wiring.Component):
    """``a < b``."""

    def __init__(self, a, b):
        super().__init__({"a": In(a), "b": In(b), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(less(self.a, self.b))
        return m


def numbers(shape, rng):
    low, high = (-(1 << shape.width - 1), (1 << shape.width - 1) - 1) if shape.signed else (0, (1 << shape.width) - 1)
    if shape.width <= 4:
        return range(low, high + 1)
    return [low, low + 1, -1 if shape.signed else 0, 0, 1, high - 1, high, *(rng.randint(low, high) for _ in range(12))]


@pytest.mark.parametrize(("a", "b"), [
    (signed(4), signed(4)), (signed(4), signed(3)), (signed(3), unsigned(4)), (unsigned(4), signed(4)),
    (unsigned(4), unsigned(3)), (signed(34), signed(32)), (signed(33), unsigned(32)), (signed(42), signed(42)),
    (unsigned(24), signed(35))])
def test_less(a, b):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    dut = Less(a, b)
    verilog.convert(dut)

    async def test(ctx):
        for x, y in itertools.product(numbers(a, rng), numbers(b, rng)):
            ctx.set(dut.a, x)
            ctx.set(dut.b, y)
            await ctx.delay(1e-9)
            assert ctx.get(dut.o) == (x < y), (x, y)

    simulator = Simulator(dut)
    simulator.add_testbench(test)
    simulator.run()


def test_of_constants():
    top = Signal(signed(8))
    assert len(less(top, 5)) == 1
    assert len(less(-3, top)) == 1


class Sums(wiring.Component):
    """``a + b == total``."""

    def __init__(self, width):
        super().__init__({"a": In(width), "b": In(width), "total": In(width), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(sums_to(self.a, self.b, self.total))
        return m


def test_sums_to():
    """Every case of three bits."""
    dut = Sums(3)

    async def testbench(ctx):
        for a, b, total in itertools.product(range(8), repeat=3):
            for name, value in (("a", a), ("b", b), ("total", total)):
                ctx.set(getattr(dut, name), value)
            assert ctx.get(dut.o) == ((a + b) % 8 == total), (a, b, total)

    sim = Simulator(dut)
    sim.add_testbench(testbench)
    sim.run()

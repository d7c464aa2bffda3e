# amaranth: UnusedElaboratable=no
"""Rolling sums against a naive model that keeps everything that ever came in."""

import random

import pytest
from amaranth.back import verilog

from hdl.gate.rolling import CYCLES, PARTS, UNIT_CYCLES, RollingSums
from hdl.gate.rows import Rows
from tests.hdl.simulation import simulated

SEED = 17
WIDTHS = {"lots": 6, "fills": 3}


def units(window):
    """Units of a sub-bucket."""
    return max(1, -(-window // (PARTS * UNIT_CYCLES)))


class Model:
    """All amounts, each with its sub-bucket; and the number of the sub-bucket that runs."""

    def __init__(self):
        self.number, self.cycle, self.age, self.marked = 0, 0, 1, 0
        self.windows = [0, 0, 0]        # of this cycle and the two before
        self.came = {}

    def step(self, window, mark):
        self.windows = [window, *self.windows[:2]]
        if mark:
            self.marked = self.number
        if self.cycle % UNIT_CYCLES == UNIT_CYCLES - 1:
            self.age += 1
            if self.age - 1 >= units(self.windows[2]):
                self.number, self.age = self.number + 1, 1
        self.cycle += 1

    def add(self, instrument, amounts):
        self.came.setdefault(instrument, []).append((self.marked, amounts))

    def sum(self, instrument, name):
        """What it is, or that it does not fit."""
        total = sum(amounts[name] for number, amounts in self.came.get(instrument, ())
                    if number >= self.marked - PARTS)
        return total if total < 1 << WIDTHS[name] else None


class Bench:
    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.model = ctx, dut, Model()

    async def step(self, cycles=1, **inputs):
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)
        for _ in range(cycles):
            self.model.step(self.ctx.get(self.dut.window_cycles), self.ctx.get(self.dut.mark))
            await self.ctx.tick()
            for name in ("mark", "add", "forget", "clear"):
                self.ctx.set(getattr(self.dut, name), 0)

    async def swept(self):
        cycles = 0
        while self.ctx.get(self.dut.clearing):
            await self.step()
            assert not self.ctx.get(self.dut.done)
            cycles += 1
        return cycles

    async def mark(self):
        await self.step(mark=1)

    async def add(self, instrument, **amounts):
        """Add what was marked, and compare all sums."""
        for name, value in amounts.items():
            self.ctx.set(getattr(self.dut, f"amount_{name}"), value)
        await self.step(add=1, instrument=instrument)
        for n in range(1, CYCLES):
            assert not self.ctx.get(self.dut.done), n
            await self.step()
        assert self.ctx.get(self.dut.done)
        self.model.add(instrument, amounts)
        out = {}
        for name, width in WIDTHS.items():
            got, want = self.ctx.get(getattr(self.dut, f"sum_{name}")), self.model.sum(instrument, name)
            assert got >= 1 << width if want is None else got == want, (name, got, want, self.model.cycle)
            out[name] = want
        await self.step()
        assert not self.ctx.get(self.dut.done)
        return out

    async def forget(self, instrument):
        await self.step(3, instrument=instrument)
        await self.step(forget=1)
        self.model.came.pop(instrument, None)


def simulate(test, instruments):
    dut = RollingSums(instruments, WIDTHS)

    async def testbench(ctx):
        b = Bench(ctx, dut)
        assert await b.swept() == instruments
        await test(b)

    simulated(dut, testbench)


@pytest.mark.parametrize("instruments", [1, 2, 200])
def test_converts(instruments):
    assert "module" in verilog.convert(RollingSums(instruments, WIDTHS))


@pytest.mark.parametrize("instruments", [0, 257])
def test_how_many(instruments):
    with pytest.raises(ValueError, match=rf"instruments is {instruments}, must be 1\.\.256"):
        Rows(8, instruments)


@pytest.mark.parametrize("window", [0, 1, 128, 129, 1000])
def test_rolls_over_exactly(window):
    """What came in the last cycle of a sub-bucket is gone with the first cycle of the ninth after it, what came a cycle
    later with that of the tenth."""
    length = units(window) * UNIT_CYCLES
    assert PARTS * length >= window

    async def test(b):
        await b.step(window_cycles=window)
        for early in (0, 1):
            base = b.model.number + 3
            for last in (0, 1):
                await b.forget(0)
                start = (base + 1) * length - early
                while b.model.cycle < start:
                    await b.step()
                await b.mark()
                await b.add(0, lots=5, fills=1)
                until = (base + PARTS + 1 + (not early)) * length
                assert until - start > window
                while b.model.cycle < until - 1 + last:
                    await b.step()
                await b.mark()
                assert await b.add(0, lots=1, fills=1) == {"lots": 6 - 5 * last, "fills": 2 - last}
                base = b.model.number + 3
    simulate(test, 2)


@pytest.mark.parametrize("instruments", [5, 200])
def test_random(instruments):
    """With few instruments and with so many that memories are made otherwise."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = {"over": 0, "rolled": 0, "kept": 0}

    async def test(b):
        window = 0
        for n in range(700):
            if rng.random() < .05:
                window = rng.choice((0, 100, 300, 1500, 4000))
            instrument = rng.choice((0, 1, 2, 3, instruments - 1))
            if rng.random() < .05:
                await b.forget(instrument)
            if n == 400:
                await b.step(clear=1)
                b.model.came = {}
                assert await b.swept() == instruments
            await b.step(rng.choice((1, 5, 60, 200)), window_cycles=window)
            await b.mark()
            await b.step(rng.choice((1, 2, 30)))
            sums = await b.add(instrument, lots=rng.choice((0, 1, 9, 63)), fills=rng.choice((0, 1, 7)))
            all_of_it = sum(amounts["lots"] for _, amounts in b.model.came[instrument])
            if None in sums.values():
                await b.forget(instrument)
            seen["over" if None in sums.values() else "kept" if sums["lots"] == all_of_it else "rolled"] += 1
    simulate(test, instruments)
    print(seen)
    assert min(seen.values()) > 100, seen


def test_cleared_in_mid_sum():
    async def test(b):
        await b.step(window_cycles=5000)
        await b.mark()
        await b.add(1, lots=3, fills=1)
        for n in range(1, CYCLES):
            await b.step(add=1, instrument=1)
            await b.step(n)
            await b.step(clear=1)
            b.model.came = {}
            await b.swept()
            await b.step(2)
            await b.mark()
            assert await b.add(1, lots=n, fills=1) == {"lots": n, "fills": 1}
    simulate(test, 2)

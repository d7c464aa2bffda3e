# amaranth: UnusedElaboratable=no
"""References against their definition: bands in exact fractions, age in cycles."""

import dataclasses
import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.control.registers import TICK_LIMIT
from hdl.gate.references import References
from sim.golden.gate import Reference
from sim.golden.quote import Params
from tests.hdl.simulation import simulated


class Bench:
    """Drives the component; ``cycle`` counts from reset."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.cycle = ctx, dut, 0
        self.window = self.mids = None      # of the evaluation before

    def set(self, **values):
        for name, value in values.items():
            self.ctx.set(getattr(self.dut, name), value)

    async def step(self, cycles=1):
        for _ in range(cycles):
            await self.ctx.tick()
            self.cycle += 1

    async def limit(self, cycles):
        """A new greatest age: it is on the wires a cycle after its strobe. Returns the cycle of that."""
        self.set(cycles_written=1)
        await self.step()
        self.set(cycles_written=0, cycles=cycles)
        return self.cycle

    async def commit(self, index, reference):
        """Returns the cycle in which it is committed."""
        self.set(index=index)
        await self.step()
        self.set(commit=1, reference=dataclasses.asdict(reference))
        await self.step()
        self.set(commit=0)
        return self.cycle - 1

    async def ask(self, index, bands):
        """Evaluate; returns ``ok`` and both windows. Those of the evaluation before stand until they are new."""
        ctx, dut = self.ctx, self.dut
        self.set(address=index, at=0, bands=random.getrandbits(32))
        await self.step()
        self.set(load=1)
        await self.step()
        self.set(load=0, bands=bands)
        for t in range(8):
            self.set(at=1 << t)
            window, mids = (ctx.get(dut.low), ctx.get(dut.high)), (ctx.get(dut.mid_low), ctx.get(dut.mid_high))
            assert t == 2 or self.window in (None, window)
            assert t == 5 or self.mids in (None, mids)
            self.window = window if t >= 2 else self.window
            self.mids = mids if t >= 5 else self.mids
            await self.step()
        self.set(at=0)
        return bool(ctx.get(dut.ok)), self.window, self.mids


def simulate(testbench, instruments=4, control=lambda dut: dut):
    dut = References(instruments)

    async def begin(ctx):
        await testbench(Bench(ctx, dut))

    simulated(control(dut), begin)


def test_converts():
    for n in (1, 5, 256):
        verilog.convert(References(n))


def test_bands():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    most, seen = TICK_LIMIT - 1, {False: 0, True: 0}

    async def testbench(b):
        await b.limit(0xFFFF_FFFF)
        for _ in range(400):
            value, local = (rng.choice((0, 1, 2, most, most - 1, rng.randrange(1, 100_000), rng.randrange(most)))
                            for _ in range(2))
            reference = Reference(value, local, rng.choice((0, 1, -1, most, -most - 1, rng.randrange(-most, most))),
                                  rng.choice((0, 1, 1 << 31, rng.getrandbits(32))))
            bands = sum(rng.choice((0, 1, 0xFFFF, 655, rng.getrandbits(16))) << shift for shift in (0, 16))
            index = rng.randrange(4)
            await b.commit(index, reference)
            ok, window, mids = await b.ask(index, bands)
            assert ok == (0 not in (value, local, bands & 0xFFFF, bands >> 16))
            assert b.ctx.get(b.dut.lot_value) == reference.lot_value
            assert b.ctx.get(b.dut.valued) == (reference.lot_value > 0)
            assert window == reference.collar(Params(bands=bands)), (reference, bands)
            assert mids == reference.mids(Params(bands=bands)), (reference, bands)
            seen[ok] += 1

    simulate(testbench)
    assert min(seen.values()) > 50


@pytest.mark.parametrize("limit", [100, 101, 257])
@pytest.mark.parametrize("phase", [0, 1, 30, 49, 50, 51])
def test_age(limit, phase):
    """It lasts for half the limit at least, for all of it at most, and ends at the second strobe."""
    some = Reference(100, 100)

    async def testbench(b):
        base = await b.limit(limit)
        half = limit // 2
        await b.step(1 + 3 * half - (b.cycle - base) % half + phase % half)
        written = await b.commit(2, some)
        due = base + -(-(written - base) // half) * half       # a strobe of that cycle takes nothing of its renewal
        expires = due + half
        seen = None
        while b.cycle < written + limit + 3:
            if b.ctx.get(b.dut.changed):
                assert b.ctx.get(b.dut.changed) == 1 << 2
                assert b.ctx.get(b.dut.disturbed)
                seen = b.cycle
                break
            await b.step()
        assert seen == expires
        assert half - 1 <= seen - written <= limit
        await b.step()
        assert not (await b.ask(2, 0xFFFF_FFFF))[0]
        await b.commit(2, some)
        assert (await b.ask(2, 0xFFFF_FFFF))[0]

    simulate(testbench)


def test_without_a_limit_there_is_none():
    async def testbench(b):
        for limit in (0, 1):
            await b.limit(limit)
            await b.commit(1, Reference(5, 5))
            assert not (await b.ask(1, 0xFFFF_FFFF))[0]
        await b.limit(1000)
        assert (await b.ask(1, 0xFFFF_FFFF))[0]
        b.set(cycles_written=1)
        assert b.ctx.get(b.dut.changed) == 0b1111
        assert b.ctx.get(b.dut.disturbed)

    simulate(testbench)


def test_each_instrument_has_a_row_of_its_own():
    """Of three, whose numbers have two bits."""
    async def testbench(b):
        await b.limit(0xFFFF_FFFF)
        for i in range(3):
            await b.commit(i, Reference(100 + i, 100, 0))
        for i in range(3):
            assert (await b.ask(i, 1 | 1 << 16))[1] == (100 + i, 100 + i)

    simulate(testbench, instruments=3)


def test_what_changes_is_told():
    async def testbench(b):
        await b.limit(0xFFFF_FFFF)
        for address in range(4):
            b.set(address=address)
            for index in range(4):
                b.set(index=index)
                await b.step()
                b.set(commit=1)
                assert b.ctx.get(b.dut.changed) == 1 << index
                assert b.ctx.get(b.dut.disturbed) == (index == address)
                await b.step()
                b.set(commit=0)
                assert not b.ctx.get(b.dut.changed)
                assert not b.ctx.get(b.dut.disturbed)

    simulate(testbench)


def test_reset_forgets():
    reset = Signal()

    async def testbench(b):
        await b.limit(0xFFFF_FFFF)
        await b.commit(1, Reference(5, 5))
        b.ctx.set(reset, 1)
        await b.step()
        b.ctx.set(reset, 0)
        assert not (await b.ask(1, 0xFFFF_FFFF))[0]

    simulate(testbench, control=lambda dut: ResetInserter(reset)(dut))

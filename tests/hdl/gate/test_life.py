# amaranth: UnusedElaboratable=no
"""G16 against a plain model: when each side was quoted anew, and when a look finds that it was long enough ago."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.gate.life import LOOK_CYCLES, QuoteLife
from tests.hdl.simulation import simulated

APART = 8   # cycles from one quote that leaves to the next, at least


class Bench:
    """Drives the component and compares it with the model in every cycle; ``cycle`` counts from reset."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.n = ctx, dut, dut.instruments
        self.forget()

    def forget(self):
        self.cycle, self.life, self.before, self.last = 0, 0, 0, -APART
        self.young = {}         # (instrument, side): the cycle in which its life began
        self.was_young, self.address, self.asked, self.loads = {}, 0, None, False

    def set(self, **values):
        for name, value in values.items():
            self.ctx.set(getattr(self.dut, name), value)

    async def step(self, cycles=1, begin=None):
        """``begin``: (instrument, sides) of a quote that leaves in the first of these cycles."""
        for _ in range(cycles):
            c, looked_at = self.cycle, (self.cycle - LOOK_CYCLES) % self.n
            ends = {key for key, since in self.young.items() if key[0] == looked_at
                    and c - since >= self.before + 2 and c - since > LOOK_CYCLES}
            if begin:
                i, sides = begin
                self.set(emit=1, instrument=i, of_instrument=1 << i, bid=0 in sides, ask=1 in sides)
            assert self.ctx.get(self.dut.changed) == (1 << looked_at if ends else 0), c
            assert self.ctx.get(self.dut.disturbed) == (bool(ends) and looked_at == self.address), c
            self.was_young = dict(self.young)
            for key in ends:
                del self.young[key]
            if begin:
                for side in begin[1]:
                    if self.before or (i, side) in self.was_young:
                        self.young[i, side] = c
                    if not self.before and (i, side) in ends:
                        del self.young[i, side]
            await self.ctx.tick()
            self.cycle, self.before, begin = c + 1, self.life, None
            anyone = random.randrange(self.n)   # what stands there without a quote means nothing
            self.set(emit=0, bid=random.getrandbits(1), ask=random.getrandbits(1), instrument=anyone,
                     of_instrument=1 << anyone)

    async def limit(self, cycles):
        self.set(cycles=cycles)
        self.life = cycles

    async def quote(self, instrument, sides):
        await self.step(max(0, self.last + APART - self.cycle))
        self.last = self.cycle
        await self.step(begin=(instrument, sides))

    async def ask(self, instrument):
        """What the bench shows is what was young two cycles before it is shown."""
        self.set(address=instrument)
        self.address = instrument
        await self.step(1)
        self.set(load=1)
        expected = [(instrument, side) in self.was_young for side in (0, 1)]
        await self.step(1)
        self.set(load=0)
        for _ in range(3):
            assert [self.ctx.get(self.dut.bid_young), self.ctx.get(self.dut.ask_young)] == expected
            await self.step(1)


def simulate(testbench, instruments=4, control=lambda dut: dut):
    dut = QuoteLife(instruments)

    async def begin(ctx):
        await testbench(Bench(ctx, dut))

    simulated(control(dut), begin)


def test_converts():
    for n in (1, 5, 16, 256):
        verilog.convert(QuoteLife(n))


@pytest.mark.parametrize("instruments", [1, 2, 3, 5, 16, 20])
def test_random(instruments):
    """Lives of any length, that change; sides that are quoted anew at any time, asked for at any time."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, seen = random.Random(seed), set()

    async def testbench(b):
        for _ in range(700):
            what, i = rng.random(), rng.randrange(instruments)
            if what < .05:
                await b.limit(rng.choice((0, 0, 1, 2, 3, 4, 7, 40, 100, 300)))
            elif what < .45:
                await b.quote(i, rng.choice(((), (0,), (1,), (0, 1))))
            elif what < .75:
                await b.ask(i)
            else:
                await b.step(rng.choice((1, 2, 3, 20, rng.randrange(1, 200))))
            seen.add(len(b.young) > 0)

    simulate(testbench, instruments)
    assert seen == {False, True}


@pytest.mark.parametrize("life", [1, 2, 3, 50, 1000])
@pytest.mark.parametrize("phase", range(5))
def test_length(life, phase):
    """It is young for so many cycles, and for no more than a round of looks beyond them."""
    async def testbench(b):
        await b.limit(life)
        await b.step(10 + phase)
        await b.quote(2, (1,))
        began, cycles = b.last, 0
        while not b.ctx.get(b.dut.changed):
            await b.step()
            cycles += 1
            assert cycles < 2000
        assert b.ctx.get(b.dut.changed) == 1 << 2
        assert life <= b.cycle - began <= life + b.n + 3
        await b.step(3)
        await b.ask(2)
        assert not b.ctx.get(b.dut.ask_young)

    simulate(testbench)


def test_longest():
    """A limit of the highest bit is not over at once."""
    async def testbench(b):
        await b.limit((1 << 31) + 20)
        await b.step(2)
        await b.quote(1, (0, 1))
        await b.step(500)
        await b.ask(1)
        assert b.ctx.get(b.dut.bid_young)
        assert b.ctx.get(b.dut.ask_young)
        await b.limit(100)      # and is over when another one says so
        await b.step(20)
        assert not b.young

    simulate(testbench)


def test_begins_again():
    """A side that is quoted anew while it is young lives on from then; the other side does not."""
    async def testbench(b):
        await b.limit(100)
        await b.step(2)
        await b.quote(0, (0, 1))
        first = b.last
        await b.step(60)
        await b.quote(0, (0,))
        await b.step(first + 110 - b.cycle)
        assert set(b.young) == {(0, 0)}
        await b.ask(0)
        assert (b.ctx.get(b.dut.bid_young), b.ctx.get(b.dut.ask_young)) == (1, 0)
        await b.step(60)
        assert not b.young

    simulate(testbench)


def test_reset():
    """Nothing is young after it, whatever the stamps are."""
    reset = Signal()

    async def testbench(b):
        await b.limit(1000)
        await b.step(2)
        await b.quote(0, (0, 1))
        b.ctx.set(reset, 1)
        await b.step()
        b.ctx.set(reset, 0)
        life = b.life
        b.forget()
        b.life = life
        for i in range(4):
            await b.ask(i)
            assert not b.ctx.get(b.dut.bid_young) | b.ctx.get(b.dut.ask_young)
        await b.step(2000)

    simulate(testbench, control=lambda dut: ResetInserter(reset)(dut))

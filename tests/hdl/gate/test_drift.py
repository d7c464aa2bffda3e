# amaranth: UnusedElaboratable=no
"""G6b against its definition: every reference of the window by itself, each with its own band, in whole numbers."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.gate.drift import ANSWER_CYCLES, BAND_AT, LEAST_CYCLES, SLOTS, Drift
from hdl.gate.holds import HOLDING
from tests.hdl.simulation import simulated

MOST = (1 << 23) - 1
ROWS = 4


class Bench:
    """Drives the component, and works out what it must post and when; ``cycle`` counts from reset."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        self.forget()

    def forget(self):
        """As after reset."""
        self.cycle = self.began = self.slot = 0     # of the slots' counting: the cycle, and the number that ran then
        self.length, self.last = 2, -LEAST_CYCLES
        self.told, self.held, self.bands = {}, set(), [[0] * ROWS, [0] * ROWS]
        self.expected, self.posts = [], []      # (cycle, instrument, held)

    def set(self, **values):
        for name, value in values.items():
            self.ctx.set(getattr(self.dut, name), value)

    async def step(self, cycles=1):
        for _ in range(cycles):
            post = self.dut.post
            if self.ctx.get(post.valid) and self.ctx.get(self.dut.post_ready):
                assert self.ctx.get(post.gate) == 1 << HOLDING.index(25)
                assert self.ctx.get(post.bid) == self.ctx.get(post.ask)
                self.posts.append((self.cycle, self.ctx.get(post.instrument), bool(self.ctx.get(post.bid))))
            await self.ctx.tick()
            self.cycle += 1

    async def ready(self):
        while self.ctx.get(self.dut.clearing):
            await self.step()
        self.set(post_ready=1)

    def number(self):
        """Of the slot that runs."""
        return self.slot + max(0, self.cycle - 1 - self.began) // self.length

    async def window(self, cycles):
        self.set(cycles_written=1)
        await self.step()
        self.set(cycles_written=0, cycles=cycles)
        await self.step(2)      # counting begins anew with the cycle before
        self.slot, self.began = self.number(), self.cycle - 1
        self.length = cycles // 16 + cycles // 128 + 2

    async def band(self, instrument, value, bank=0):
        await self.step(max(0, self.last + BAND_AT + 1 - self.cycle))   # of a bank that does not count
        self.set(band_write=1, band_address=instrument + ROWS * bank, band=value)
        await self.step()
        self.set(band_write=0)
        self.bands[bank][instrument] = value

    async def commit(self, instrument, value, bank=0):
        """A reference, as soon as one may come; what is posted is checked in the end. Returns whether it must pass."""
        self.set(value=value, index=instrument)
        await self.step(max(1, self.last + LEAST_CYCLES - self.cycle))
        self.set(commit=1)
        self.last, number = self.cycle, self.number()
        await self.step()
        self.set(commit=0, value=random.getrandbits(23), index=random.randrange(ROWS))
        if not value:
            return None
        its = self.told.setdefault(instrument, [])
        its.append((number, value))
        band = self.bands[bank][instrument]
        passes = all(abs(value - was) << 16 <= was * band for n, was in its if number - SLOTS < n)
        if passes == (instrument in self.held):
            self.held ^= {instrument}
            self.expected.append((self.last + ANSWER_CYCLES, instrument, not passes))
        return passes

    async def finish(self):
        await self.step(ANSWER_CYCLES + 1)
        assert self.posts == self.expected


def simulate(testbench, instruments=ROWS, control=lambda dut: dut):
    dut = Drift(instruments)

    async def begin(ctx):
        b = Bench(ctx, dut)
        await b.ready()
        await testbench(b)

    simulated(control(dut), begin)


def seeded():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_converts():
    for n in (1, 5, 16, 256):
        verilog.convert(Drift(n))
    with pytest.raises(ValueError, match="must be"):
        Drift(257)


def test_random():
    """Any windows, bands and references, as close together as they may come."""
    rng, seen = seeded(), {False: 0, True: 0}

    async def testbench(b):
        base = [rng.choice((1, 50, 1000, MOST // 2, MOST)) for _ in range(ROWS)]
        for _ in range(1500):
            what, i = rng.random(), rng.randrange(ROWS)
            if what < .02:
                await b.window(rng.choice((0, 1, 15, 16, 127, 128, 300, 1000, 5000)))
            elif what < .06:
                await b.band(i, rng.choice((0, 1, 655, 0x8000, 0xFFFF, rng.getrandbits(16))))
            elif what < .10:
                base[i] = rng.choice((1, 2, 3, 50, 1000, MOST // 2, MOST))
            elif what < .25:
                await b.step(rng.choice((1, 2, 17, 100, rng.randrange(500))))
            else:
                spread = base[i] * b.bands[0][i] >> 16
                value = base[i] + rng.choice((0, 0, 1, -1, spread, spread + 1, -spread, -spread - 1, spread // 2))
                passes = await b.commit(i, max(0, min(MOST, value)))
                if passes is not None:
                    seen[passes] += 1
        await b.finish()

    simulate(testbench)
    assert min(seen.values()) > 100


@pytest.mark.parametrize("was", [1, 99, 100, 65536, 1_000_003, MOST // 2])
@pytest.mark.parametrize("band", [0, 1, 655, 0x8000, 0xFFFF])
def test_the_band_ends_where_it_says(was, band):
    room = was * band >> 16

    async def testbench(b):
        for i, (value, passes) in enumerate(((was + room, True), (was + room + 1, False), (was - room, True),
                                             (was - room - 1, False))):
            await b.window(100_000)
            await b.band(i, band)
            assert await b.commit(i, was)
            if value:       # 0 is no reference
                assert await b.commit(i, value) == passes
        await b.finish()

    simulate(testbench)


def test_what_falls_is_held_against_the_greatest():
    """It is not the first reference of the window that counts, nor the last one, but each."""
    async def testbench(b):
        await b.window(100_000)
        await b.band(0, 655)        # 1 %
        # Floors of 0.99945 %: 100 of 10,090, and 99 of 9,989, which has not passed and counts all the same.
        for value, passes in ((10_000, True), (10_090, True), (9_995, True), (9_990, True), (9_989, False),
                              (10_088, True), (10_089, False), (10_090, False), (9_990, True), (10_000, True)):
            assert await b.commit(0, value) == passes, value
        await b.finish()

    simulate(testbench)


@pytest.mark.parametrize("phase", range(0, 71, 5))
def test_window(phase):
    """What was told counts for the window at least, and is forgotten after 16 slots."""
    cycles = 1000       # 15 slots of 71 cycles are 1065
    first = []

    async def testbench(b):
        await b.window(cycles)
        await b.band(1, 655)
        await b.step(phase)
        await b.commit(1, 10_000)
        told = b.last
        while True:
            passes = await b.commit(1, 20_000 + len(first))
            first.append((b.last - told, passes))
            # What is told now does not pass for that: it is within its own band.
            if passes:
                break
        await b.finish()

    simulate(testbench)
    *failed, (passed, _) = first
    assert failed[-1][0] >= cycles
    assert passed <= cycles * 9 // 8 + 32 + LEAST_CYCLES


def test_ring_wraps():
    """References in every slot for many rounds: each counts for 15 more slots, and not longer."""
    async def testbench(b):
        await b.window(160)     # slots of 13 cycles
        await b.band(2, 6553)
        value, turns = 1000, 0
        for n in range(300):
            if n % 40 == 39:
                value, turns = value * 3, turns + 1
            await b.commit(2, value)
            if value > MOST // 4:
                value = 1000
            await b.step(b.length - 1)
        await b.finish()
        assert sum(held for _, _, held in b.posts) >= turns - 1

    simulate(testbench)


def test_a_pause_of_any_number_of_slots():
    async def testbench(b):
        await b.window(16)      # slots of 3 cycles
        await b.band(3, 100)
        for pause in range(1, 120):
            await b.commit(3, 1000 + 100 * (pause & 1))
            await b.step(pause)
        await b.finish()

    simulate(testbench)


@pytest.mark.parametrize("early", range(-2, 3))
def test_the_bank_that_counts(early):
    """The band is that of the bank which is active in one cycle."""
    async def testbench(b):
        await b.window(100_000)
        await b.band(0, 0xFFFF, bank=1)
        assert await b.commit(0, 100)
        b.set(value=150, index=0)
        await b.step(LEAST_CYCLES)
        b.set(commit=1)
        began = b.cycle
        await b.step()
        b.set(commit=0)
        await b.step(BAND_AT - 1 + early)
        b.set(bank=1)
        await b.step(ANSWER_CYCLES + 5)
        assert b.posts == ([(began + ANSWER_CYCLES, 0, True)] if early > 0 else [])

    simulate(testbench)


def test_a_post_waits():
    """It stands until it is taken, while the next reference is weighed."""
    async def testbench(b):
        await b.window(100_000)
        await b.commit(0, 100)
        b.set(post_ready=0)
        await b.commit(0, 101)
        await b.commit(1, 100)
        await b.step(b.expected[0][0] + LEAST_CYCLES - 1 - b.cycle)
        assert not b.posts
        assert b.ctx.get(b.dut.post.valid)
        b.set(post_ready=1)
        await b.step()
        assert b.posts == [(b.cycle - 1, 0, True)]
        await b.step(3)
        assert not b.ctx.get(b.dut.post.valid)

    simulate(testbench)


def test_reset_forgets():
    """What memories hold from before a reset counts for nothing: neither references nor bands, in any slot."""
    reset = Signal()

    async def testbench(b):
        for i in range(ROWS):
            await b.band(i, 0xFFFF, 0)
            await b.band(i, 0xFFFF, 1)
        for _ in range(40):     # slots of two cycles: all of the ring
            for i in range(ROWS):
                await b.commit(i, MOST)
        b.ctx.set(reset, 1)
        await b.step()
        b.ctx.set(reset, 0)
        b.forget()
        b.set(post_ready=1)
        while b.ctx.get(b.dut.clearing):
            await b.step()
        assert b.cycle == SLOTS // 2 * ROWS
        for n in range(60):
            assert await b.commit(n % ROWS, 1)
        await b.window(100_000)
        for i in range(ROWS):
            await b.commit(i, 70_000)
            assert not await b.commit(i, 70_001)    # no band, not even the least one
        await b.finish()

    simulate(testbench, control=lambda dut: ResetInserter(reset)(dut))


def test_each_instrument_has_rows_of_its_own():
    """Of three, whose numbers have two bits, and of a card that has them all, eight."""
    async def testbench(b):
        await b.window(1000)
        for i in range(3):
            await b.band(i, 0)
        for i in range(3):
            assert await b.commit(i, 100 + i)
        for i in range(3):
            assert await b.commit(i, 100 + i)
        await b.finish()

    simulate(testbench, instruments=3)
    assert Drift(256).signature.members["index"].shape == 8


def test_one_instrument():
    async def testbench(b):
        await b.window(1000)
        assert await b.commit(0, 100)
        assert not await b.commit(0, 101)
        await b.finish()

    simulate(testbench, instruments=1)

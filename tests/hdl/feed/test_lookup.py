"""From SecurityID to instrument number, against a list."""

import functools
import operator
import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.feed.lookup import NARROWING, InstrumentLookup
from tests.hdl.simulation import simulated

SEED = 66
#: Bits that are compared while the id arrives.
NARROW = (1 << 8 * NARROWING) - 1


class Bench:
    """A lookup and the list of ids that were written."""

    def __init__(self, ctx, dut, rng):
        self.ctx, self.dut, self.rng = ctx, dut, rng
        self.table = [0] * dut.instruments

    async def start(self, index, security_id):
        """Write, and leave it there."""
        for name, value in (("write", 1), ("write_index", index), ("write_id", security_id)):
            self.ctx.set(getattr(self.dut, name), value)
        await self.ctx.tick()
        self.ctx.set(self.dut.write, 0)
        if index < len(self.table):
            self.table[index] = security_id

    async def settle(self):
        """Wait for the tables; returns the cycles that took."""
        cycles = 0
        while not self.ctx.get(self.dut.settled):
            await self.ctx.tick()
            cycles += 1
        return cycles

    async def write(self, index, security_id):
        await self.start(index, security_id)
        await self.ctx.tick()
        return await self.settle()

    def noise(self):
        """Bytes of something else, or none, at no place."""
        return [(0, self.rng.getrandbits(8)) for _ in range(self.rng.choice((0, 0, 0, 1, 3)))]

    async def bytes(self, placed):
        """(place, byte) after (place, byte), each byte a cycle before its place."""
        for n, (_, ahead) in enumerate([*placed[1:], (0, 0)]):
            due = next((later for later, _ in placed[n:] if later), 0)
            self.ctx.set(self.dut.due, due & (1 << NARROWING - 1) - 1)
            self.ctx.set(self.dut.ahead, ahead)
            await self.ctx.tick()

    async def rest(self):
        await self.bytes(self.noise())

    async def arrive(self, security_id, pauses=False):
        """The bytes of an id, in the order of the wire. Returns the number that is known with the last one, or None."""
        ctx, dut = self.ctx, self.dut
        placed = [(0, 0)]
        for k in range(NARROWING):
            placed += [*(self.noise() if pauses else ()), (1 << k, security_id >> 8 * k & 0xFF)]
        await self.bytes(placed)
        return ctx.get(dut.index) if ctx.get(dut.hit) else None

    async def same(self, index, security_id):
        """Whether entry ``index`` is ``security_id``, three cycles after it is asked."""
        self.ctx.set(self.dut.address, index)
        self.ctx.set(self.dut.security_id, security_id)
        await self.ctx.tick().repeat(3)
        return bool(self.ctx.get(self.dut.same))

    async def find(self, security_id, pauses=False):
        """The instrument whose id it is, or None."""
        index = await self.arrive(security_id, pauses)
        return index if index is not None and await self.same(index, security_id) else None


def simulate(test, instruments):
    dut = InstrumentLookup(instruments)

    async def testbench(ctx):
        bench = Bench(ctx, dut, random.Random(SEED))
        await bench.settle()
        await test(bench)

    simulated(dut, testbench)


@pytest.mark.parametrize("instruments", [1, 5, 16])
def test_converts(instruments):
    assert "module" in verilog.convert(InstrumentLookup(instruments))


def test_reset_knows_nothing():
    async def test(b):
        assert await b.arrive(0) is None
        assert await b.arrive(174969) is None
        assert not await b.same(0, 0)
    simulate(test, 4)


def test_zero_means_unused():
    async def test(b):
        await b.write(1, 5)
        await b.write(1, 0)
        assert await b.arrive(5) is None
        assert await b.arrive(0) is None
        assert not await b.same(1, 0)
    simulate(test, 4)


def test_number_is_known_before_the_last_byte():
    """Of ids that differ in their last byte only: the number is the one that could be meant; that it is not is said."""
    async def test(b):
        await b.write(2, 0x01_02_03_04)
        assert await b.arrive(0x99_02_03_04) == 2
        assert not await b.same(2, 0x99_02_03_04)
        assert await b.same(2, 0x01_02_03_04)
    simulate(test, 4)


def test_ids_that_cannot_be_told_apart_in_time():
    """The bitwise OR of their numbers, and what is said of that one."""
    async def test(b):
        await b.write(1, 0x01_00_00_07)
        await b.write(3, 0x02_00_00_07)
        assert await b.find(0x02_00_00_07) == 3
        assert await b.find(0x01_00_00_07) is None, "the number is the other one's"
        await b.write(3, 0)
        assert await b.find(0x01_00_00_07) == 1
        await b.write(2, 0x02_00_00_07)
        assert await b.arrive(0x02_00_00_07) == 3
        assert await b.find(0x02_00_00_07) is None
    simulate(test, 4)


@pytest.mark.parametrize("index", [5, 8, 255])
def test_entry_that_does_not_exist(index):
    async def test(b):
        for i in range(5):
            await b.write(i, 100 + i)
        await b.write(index, 200)
        assert await b.arrive(200) is None
        assert [await b.find(100 + i) for i in range(5)] == list(range(5))
    simulate(test, 5)


@pytest.mark.parametrize("instruments", [1, 4, 6])
def test_the_tables_are_made_in_the_time_that_is_said(instruments):
    groups = -(-instruments // 4)

    async def test(b):
        assert await b.write(0, 7) <= 22 * groups + 4
        # One in the middle of it: once more from the start.
        await b.start(instruments - 1, 9)
        await b.ctx.tick().repeat(10)
        await b.start(0, 8)
        await b.ctx.tick()
        assert 22 * groups < await b.settle() <= 2 * 22 * groups + 4
        assert await b.find(8) == 0
        assert await b.find(7) is None
        assert await b.find(9) == (instruments - 1 if instruments > 1 else None)
    simulate(test, instruments)


def test_many_writes_and_others_meanwhile():
    """While tables are made, those that were known are found all the same, and what is half written is nobody's."""
    async def test(b):
        for i in range(3):
            await b.write(i, 0x11_12_13_10 + i)
        for i in range(3, 9):
            await b.start(i, 0x21_22_23_20 + i)
            await b.ctx.tick()
        await b.start(1, 0x31_32_33_34)     # 0x11_12_13_11 has gone
        for _ in range(12):
            assert await b.find(0x11_12_13_10) == 0
            assert await b.find(0x11_12_13_11) is None
            assert await b.find(0x11_12_13_12) == 2
        assert await b.settle() == 0, "that took longer than the tables"
        assert [await b.find(0x21_22_23_20 + i) for i in range(3, 9)] == list(range(3, 9))
        assert await b.find(0x31_32_33_34) == 1
    simulate(test, 9)


def test_a_reset_forgets():
    """Memories keep what they hold: until all has been cleared nothing is found."""
    dut = ResetInserter(reset := Signal())(InstrumentLookup(4))
    found = []

    async def testbench(ctx):
        b = Bench(ctx, dut, random.Random(SEED))
        await b.settle()
        await b.write(2, 0x01_02_03_04)
        assert await b.find(0x01_02_03_04) == 2
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        while not ctx.get(dut.settled):
            found.append(await b.arrive(0x01_02_03_04))
        assert await b.find(0x01_02_03_04) is None
        await b.write(2, 0x01_02_03_04)
        assert await b.find(0x01_02_03_04) == 2

    simulated(dut, testbench)
    assert found
    assert set(found) == {None}


@pytest.mark.parametrize("instruments", [1, 5])
def test_random(instruments):
    print(f"seed {SEED}")
    # Negative SecurityIDs are as good as others; some differ in one bit only, some in their last byte only.
    ids = [0, 1, 3, 0x80000001, 0xFFFFFFFF, 174969, 174969 ^ 1 << 31, 174969 ^ 1 << 23, 174969 ^ 1 << 8, 174968]
    hits = set()

    async def test(b):
        rng = b.rng
        for _ in range(600):
            if rng.random() < .3:
                await b.write(rng.randrange(instruments), rng.choice(ids))
            wanted = rng.choice(ids)
            could_be = [i for i, known in enumerate(b.table) if known and (known ^ wanted) & NARROW == 0]
            number = functools.reduce(operator.or_, could_be) if could_be else None
            await b.rest()
            assert await b.arrive(wanted, pauses=rng.random() < .5) == number, (wanted, b.table)
            if number is not None:
                same = number < instruments and b.table[number] == wanted
                assert await b.same(number, wanted) == same, (wanted, b.table)
                hits.add((number, same))
            else:
                hits.add(None)
            asked = rng.randrange(instruments)
            assert await b.same(asked, wanted) == (wanted != 0 and b.table[asked] == wanted)
    simulate(test, instruments)
    assert hits >= {None, *((i, True) for i in range(instruments))}
    assert {same for _, same in hits - {None}} == {False, True}

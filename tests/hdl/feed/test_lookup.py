"""From SecurityID to instrument number, against a dictionary."""

import random

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.feed.lookup import InstrumentLookup

SEED = 66


def simulate(test, instruments):
    dut = InstrumentLookup(instruments)

    async def testbench(ctx):
        async def write(index, security_id):
            ctx.set(dut.write, 1)
            ctx.set(dut.write_index, index)
            ctx.set(dut.write_id, security_id)
            await ctx.tick()
            ctx.set(dut.write, 0)

        def find(security_id):
            ctx.set(dut.security_id, security_id)
            return ctx.get(dut.index) if ctx.get(dut.hit) else None
        await test(write, find)

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("instruments", [1, 5, 16])
def test_converts(instruments):
    assert "module" in verilog.convert(InstrumentLookup(instruments))


def test_reset_knows_nothing():
    async def test(write, find):
        assert find(0) is None
        assert find(174969) is None
    simulate(test, 4)


def test_zero_means_unused():
    async def test(write, find):
        await write(1, 5)
        await write(1, 0)
        assert find(5) is None
        assert find(0) is None
    simulate(test, 4)


def test_lowest_entry_wins():
    async def test(write, find):
        await write(3, 77)
        assert find(77) == 3
        await write(1, 77)
        assert find(77) == 1
        await write(1, 78)
        assert (find(77), find(78)) == (3, 1)
    simulate(test, 4)


@pytest.mark.parametrize("index", [5, 8, 255])
def test_entry_that_does_not_exist(index):
    async def test(write, find):
        for i in range(5):
            await write(i, 100 + i)
        await write(index, 200)
        assert find(200) is None
        assert [find(100 + i) for i in range(5)] == list(range(5))
    simulate(test, 5)


@pytest.mark.parametrize("instruments", [1, 5])
def test_random(instruments):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    # Negative SecurityIDs are as good as others; some differ in one bit only.
    ids = [0, 1, 3, 0x80000001, 0xFFFFFFFF, 174969, 174969 ^ 1 << 31, 174968]
    table = [0] * instruments
    hits = set()

    async def test(write, find):
        for _ in range(400):
            if rng.random() < .3:
                index, security_id = rng.randrange(instruments), rng.choice(ids)
                await write(index, security_id)
                table[index] = security_id
            wanted = rng.choice(ids)
            found = find(wanted)
            assert found == (table.index(wanted) if wanted and wanted in table else None), (wanted, table)
            hits.add(found)
    simulate(test, instruments)
    assert hits == {None, *range(instruments)}

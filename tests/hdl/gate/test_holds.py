# amaranth: UnusedElaboratable=no
"""Holds against a table."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.gate.holds import HOLDING, POST_CYCLES, Holds
from tests.hdl.simulation import simulated


@pytest.mark.parametrize("instruments", [1, 5, 16, 200])
def test_against_the_table(instruments):
    verilog.convert(Holds(instruments))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut, reset = Holds(instruments), Signal()

    async def testbench(ctx):
        for _ in range(2):
            table = {(i, side): 0 for i in range(instruments) for side in ("bid", "ask")}
            assert not ctx.get(dut.changed)
            while ctx.get(dut.clearing):
                await ctx.tick()
            posts, cycle, last = {}, 0, -4
            address, at_rest, expected = 0, 0, None
            ctx.set(dut.address, address)
            for cycle in range(600):
                ctx.set(dut.post.valid, 0)
                if cycle - last >= 4 and rng.random() < 0.3:
                    last = cycle
                    post = rng.randrange(instruments), rng.randrange(1 << len(HOLDING)), rng.randrange(2), \
                        rng.randrange(2)
                    for name, value in zip(("instrument", "gate", "bid", "ask"), post, strict=True):
                        ctx.set(getattr(dut.post, name), value)
                    ctx.set(dut.post.valid, 1)
                    posts[cycle + POST_CYCLES] = post
                if cycle in posts:
                    instrument, gate, *sides = posts[cycle]
                    for side, held in zip(("bid", "ask"), sides, strict=True):
                        was = table[instrument, side]
                        table[instrument, side] = was | gate if held else was & ~gate
                if expected is not None:
                    assert (ctx.get(dut.held.bid), ctx.get(dut.held.ask)) == expected
                changes = cycle + 1 in posts
                assert ctx.get(dut.changed) == changes
                if changes:
                    assert ctx.get(dut.changed_instrument) == posts[cycle + 1][0]
                load = cycle - at_rest >= 1 and rng.random() < 0.4
                ctx.set(dut.load, load)
                if load:    # what changes in the cycle before is anybody's guess, and is told
                    expected = None if posts.get(cycle, (None,))[0] == address else (
                        table[address, "bid"], table[address, "ask"])
                elif rng.random() < 0.2:
                    address, at_rest = rng.randrange(instruments), cycle
                    ctx.set(dut.address, address)
                assert ctx.get(dut.disturbed) == (changes and posts[cycle + 1][0] == address)
                await ctx.tick()
            ctx.set(dut.load, 0)
            ctx.set(dut.post.valid, 0)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)

    simulated(ResetInserter(reset)(dut), testbench)

"""Blocks side by side, and bits of a set that are asked for in two steps, against plain lists."""

import random
import time

import pytest
from amaranth.back import verilog
from amaranth.hdl import Fragment, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.memory import BlockMemory, told_of
from tests.hdl.simulation import simulated

SEED = time.time_ns() & 0xFFFFFFFF


def simulate(dut, test):
    verilog.convert(dut)
    simulated(dut, test)


@pytest.mark.parametrize(("width", "depth", "blocks"), [(33, 16, 1), (33, 512, 1), (36, 513, 2), (33, 4096, 9),
                                                        (5, 16384, 5)])
def test_blocks_are_side_by_side(width, depth, blocks):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    dut = BlockMemory(width, depth)
    assert len(Fragment.get(dut, None).subfragments) == blocks

    async def test(ctx):
        words = {}
        for _ in range(400):
            at = rng.choice((0, depth - 1, rng.randrange(depth)))
            if rng.random() < .5:
                words[at] = rng.getrandbits(width)
                ctx.set(dut.write_addr, at)
                ctx.set(dut.write_data, words[at])
                ctx.set(dut.write_en, 1)
                await ctx.tick()
                ctx.set(dut.write_en, 0)
            at = rng.choice([*words, at])
            ctx.set(dut.read_addr, at)
            assert ctx.get(dut.read_data) == words.get(at, 0)

    simulate(dut, test)


class Told(wiring.Component):
    """A set, its bit in the next cycle."""

    def __init__(self, width):
        super().__init__({"bits": In(width), "index": In((width - 1).bit_length()), "unless": In(1), "told": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.told.eq(told_of(m, self.bits, self.index, "told", unless=self.unless))
        return m


@pytest.mark.parametrize("width", [2, 16, 17, 64, 256])
def test_a_bit_is_told_a_cycle_later(width):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    dut = Told(width)
    seen = [0, 0]

    async def test(ctx):
        for _ in range(300):
            bits, index, unless = rng.getrandbits(width), rng.randrange(width), rng.random() < .2
            ctx.set(dut.bits, bits)
            ctx.set(dut.index, index)
            ctx.set(dut.unless, unless)
            await ctx.tick()
            ctx.set(dut.bits, rng.getrandbits(width))
            ctx.set(dut.index, rng.randrange(width))
            expected = int(bits >> index & 1 and not unless)
            seen[expected] += 1
            assert ctx.get(dut.told) == expected

    simulate(dut, test)
    assert all(seen)

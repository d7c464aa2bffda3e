"""Exact division against integers."""

import random

from hdl.control.registers import TICK_BITS, TICK_LIMIT
from hdl.feed.ticks import SHIFT_BITS, TickConverter
from tests.hdl.simulation import simulated

SEED = 3


def split(tick):
    shift = (tick & -tick).bit_length() - 1
    return shift, tick >> shift


def test_exact_division():
    """Multiples and near misses of real ticks, null prices, the ends of the range; ticks that do not fit."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    cases = []
    for tick in (1, 2, 5000000, 100000000, 10000000, 1000, 50000000, 5000000000, 25000000, 3, 10**13, 2**15, 3 << 15,
                 0xFFFFFFFF):
        for _ in range(40):
            ticks = rng.choice((0, 1, -1, TICK_LIMIT - 1, -TICK_LIMIT, TICK_LIMIT,
                                rng.randrange(-TICK_LIMIT, TICK_LIMIT), rng.randrange(0, 200000)))
            px = ticks * tick + rng.choice((0, 0, 0, 1, tick // 2))
            if -2**63 <= px < 2**63:
                cases.append((tick, px))
        cases += [(tick, 2**63 - 1), (tick, -2**63)]
    cases += [(0, 0), (0, 5000000)]
    dut = TickConverter()
    exact = 0

    async def testbench(ctx):
        nonlocal exact
        for tick, px in cases:
            shift, odd = split(tick) if tick else (0, 0)
            ctx.set(dut.px, px)
            ctx.set(dut.shift, shift)
            ctx.set(dut.odd, odd)
            ctx.set(dut.inverse, pow(odd, -1, 1 << TICK_BITS) if odd else 0)
            right = tick != 0 and px % tick == 0 and -TICK_LIMIT <= px // tick < TICK_LIMIT
            await ctx.tick().repeat(TickConverter.LATENCY)
            for _ in range(TickConverter.PROOF - TickConverter.LATENCY + rng.randrange(2)):
                if right:       # the price stands before it is proved, and stays
                    assert ctx.get(dut.ticks) == px // tick, (tick, px)
                await ctx.tick()
            assert bool(ctx.get(dut.ok)) == right, (tick, px)
            if right:
                exact += 1
                assert ctx.get(dut.ticks) == px // tick

    simulated(dut, testbench)
    assert exact > 100


def test_every_shift():
    """The bits that are shifted away are all looked at: each one alone is enough."""
    dut = TickConverter()

    async def testbench(ctx):
        ctx.set(dut.odd, 1)
        ctx.set(dut.inverse, 1)
        for shift in range(1 << SHIFT_BITS):
            ctx.set(dut.shift, shift)
            for spoilt in (None, 0, shift // 2, shift - 1):
                px = (-1 if shift % 2 else 1) << min(shift, 62 + shift % 2)
                wrong = spoilt is not None and 0 <= spoilt < shift
                px ^= 1 << spoilt if wrong else 0
                ctx.set(dut.px, px)
                await ctx.tick().repeat(TickConverter.PROOF)
                right = px % (1 << shift) == 0 and -TICK_LIMIT <= px >> shift < TICK_LIMIT
                assert right or wrong
                assert bool(ctx.get(dut.ok)) == right, (shift, spoilt)
                if right:
                    assert ctx.get(dut.ticks) == px >> shift

    simulated(dut, testbench)

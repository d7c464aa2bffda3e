"""Exact division against integers."""

import random

from amaranth.sim import Simulator

from hdl.feed.ticks import TickConverter

SEED = 3


def split(tick):
    shift = (tick & -tick).bit_length() - 1
    return shift, tick >> shift


def test_exact_division():
    """Multiples and near misses of real ticks, null prices, the ends of the range; ticks that do not fit 32 bits."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    cases = []
    for tick in (1, 2, 5000000, 100000000, 10000000, 1000, 50000000, 5000000000, 25000000, 3, 2**40, 0xFFFFFFFF):
        for _ in range(40):
            ticks = rng.choice((0, 1, -1, 2**31 - 1, -2**31, 2**31, rng.randrange(-2**31, 2**31),
                                rng.randrange(0, 200000)))
            px = ticks * tick + rng.choice((0, 0, 0, 1, tick // 2))
            if -2**63 <= px < 2**63:
                cases.append((tick, px))
        cases += [(tick, 2**63 - 1), (tick, -2**63)]
    cases += [(0, 0), (0, 5000000)]
    dut = TickConverter()
    exact = 0

    async def testbench(ctx):
        nonlocal exact
        ctx.set(dut.en, 1)
        for tick, px in cases:
            shift, odd = split(tick) if tick else (0, 0)
            ctx.set(dut.px, px)
            ctx.set(dut.shift, shift)
            ctx.set(dut.odd, odd)
            ctx.set(dut.inverse, pow(odd, -1, 1 << 32) if odd else 0)
            await ctx.tick().repeat(TickConverter.LATENCY)
            right = tick != 0 and px % tick == 0 and -2**31 <= px // tick < 2**31
            assert bool(ctx.get(dut.ok)) == right, (tick, px)
            if right:
                exact += 1
                assert ctx.get(dut.ticks) == px // tick

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()
    assert exact > 100

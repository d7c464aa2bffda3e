"""A counter in two halves against plain integers."""

import random

from amaranth import Module, Signal

from hdl.count import count
from tests.hdl.simulation import simulated

SEED = 81
BITS, MASK = 64, (1 << 64) - 1


def test_random_around_the_carry():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    m = Module()
    value, when, load, loaded = Signal(BITS), Signal(), Signal(), Signal(BITS)
    count(m, value, when, load, loaded)
    carries = 0

    async def testbench(ctx):
        nonlocal carries
        want, before = 0, False
        for _ in range(20_000):
            counts, loads = not before and rng.random() < .4, rng.random() < .1
            upper = rng.choice((0, 1, 77, rng.getrandbits(32), 0xFFFF_FFFF))
            start = (upper << 32 | 0xFFFF_FFFF) - rng.randrange(4) & MASK
            ctx.set(when, counts)
            ctx.set(load, loads)
            ctx.set(loaded, start)
            await ctx.tick()
            carries += counts and not loads and want & 0xFFFF_FFFF == 0xFFFF_FFFF
            want = start if loads else want + counts & MASK
            before = counts and not loads
            assert ctx.get(value) == want

    simulated(m, testbench)
    assert carries > 100

# amaranth: UnusedElaboratable=no
"""Account against plain integers."""

import random

import pytest
from amaranth.back import verilog

from hdl.gate.account import CHECK_CYCLES, Account
from tests.hdl.simulation import simulated

GREATEST = (1 << 31) - 1


class Bench:
    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.cycle = ctx, dut, 0

    async def step(self, cycles=1, **strobes):
        for name in strobes:
            self.ctx.set(getattr(self.dut, name), 1)
        for _ in range(cycles):
            await self.ctx.tick()
            self.cycle += 1
        for name in strobes:
            self.ctx.set(getattr(self.dut, name), 0)

    def set(self, **values):
        for name, value in values.items():
            self.ctx.set(getattr(self.dut, name), value)

    async def limit(self, cycles, **limits):
        await self.step(cycles_written=1)
        self.set(cycles=cycles, **limits)
        return self.cycle

    async def tell(self, equity):
        """Returns (lost, warned), and when it was told."""
        self.set(equity=equity)
        told = self.cycle
        before = self.flags()
        await self.step(told=1)
        for _ in range(CHECK_CYCLES - 1):
            assert self.flags() == before
            await self.step()
        return self.flags(), told

    def flags(self):
        return bool(self.ctx.get(self.dut.lost)), bool(self.ctx.get(self.dut.warned))


def simulate(testbench):
    dut = Account()

    async def begin(ctx):
        await testbench(Bench(ctx, dut))

    simulated(dut, begin)


def test_converts():
    verilog.convert(Account())


def test_against_plain_integers():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    seen = {}

    async def testbench(b):
        await b.limit(0xFFFF_FFFF)
        start = peak = 0
        for _ in range(600):
            if rng.random() < 0.1:
                start = peak = rng.choice((0, 1000, -5, GREATEST, -GREATEST - 1, rng.randrange(-10 ** 6, 10 ** 6)))
                b.set(start=start)
                await b.step(begun=1)
            limits = [rng.choice((1, 5, 100, 1000, GREATEST)) for _ in range(2)]
            b.set(loss_most=limits[0], drawdown_most=limits[1])
            base, most = (start, limits[0]) if rng.random() < 0.5 else (peak, limits[1])
            equity = rng.choice((base, base - most, base - most - 1, base - most * 3 // 5, base - most * 3 // 5 - 1,
                                 base + rng.randrange(100), rng.choice((GREATEST, -GREATEST - 1))))
            equity = max(-GREATEST - 1, min(GREATEST, equity))
            peak = max(peak, equity)
            gone = start - equity, peak - equity
            lost = any(g > m for g, m in zip(gone, limits, strict=True))
            warned = any(5 * g > 3 * m for g, m in zip(gone, limits, strict=True))
            flags, _ = await b.tell(equity)
            assert flags == (lost, warned), (start, peak, equity, limits)
            seen[flags] = seen.get(flags, 0) + 1

    simulate(testbench)
    assert set(seen) == {(False, False), (False, True), (True, True)}
    assert min(seen.values()) > 50


@pytest.mark.parametrize("lacks", ["loss_most", "drawdown_most", "cycles", "equity", None])
def test_nothing_is_fresh_without(lacks):
    async def testbench(b):
        limits = {"loss_most": 10, "drawdown_most": 10} | {lacks: 0}
        limits.pop("equity", None), limits.pop(None, None)
        cycles = limits.pop("cycles", 1000)
        await b.limit(cycles, **limits)
        if lacks != "equity":
            await b.tell(5)
        await b.step(4)
        assert b.ctx.get(b.dut.fresh) == (lacks is None)

    simulate(testbench)


@pytest.mark.parametrize("phase", [0, 1, 20, 43, 44, 45, 49])     # 44: a strobe just then is none of the two
def test_age(phase):
    async def testbench(b):
        base = await b.limit(101, loss_most=1, drawdown_most=1)
        await b.step(2 + phase)
        _, told = await b.tell(1)
        counts = told + CHECK_CYCLES - 1        # the cycle at whose end it is taken
        due = base + ((counts - base) // 50 + 2) * 50
        fresh = []
        while b.cycle < due + 5:
            fresh += [b.cycle] if b.ctx.get(b.dut.fresh) else []
            changes, was = b.ctx.get(b.dut.changed), b.ctx.get(b.dut.fresh)
            await b.step()
            assert changes == (was != b.ctx.get(b.dut.fresh))
        assert fresh == list(range(told + CHECK_CYCLES + 1, due + 2))

    simulate(testbench)


def test_nothing_was_told_after_reset():
    """No word on anything; the greatest equity is 0, and what merely stands there is not told."""
    async def testbench(b):
        b.set(loss_most=GREATEST, drawdown_most=10)
        for _ in range(8):
            assert not b.ctx.get(b.dut.fresh)
            assert b.flags() == (False, False)
            await b.step()
        assert (await b.tell(-10))[0] == (False, True)
        assert (await b.tell(-11))[0] == (True, True)
        b.set(equity=5)
        await b.step(4)
        assert (await b.tell(-10))[0] == (False, True)
        assert (await b.tell(5))[0] == (False, False)
        assert (await b.tell(-6))[0] == (True, True)

    simulate(testbench)


@pytest.mark.parametrize(("cycles", "ever"), [(0, False), (1, False), (2, True), (3, True), (1 << 31, True)])
def test_ages_at_their_limits(cycles, ever):
    """Half of it, rounded down, is what is counted; nothing is fresh if that is none."""
    async def testbench(b):
        await b.limit(cycles, loss_most=1, drawdown_most=1)
        await b.step(4)
        await b.tell(5)
        fresh = []
        for _ in range(20):
            fresh.append(b.ctx.get(b.dut.fresh))
            await b.step()
        assert any(fresh) == ever
        assert fresh[-1] == (cycles > 100)

    simulate(testbench)

"""Token buckets against a naive model, and the sentences of their docstring one by one."""

import random

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.gate.buckets import TokenBuckets

SEED = 63
STROBES = ("restart_session", "restart_symbol", "fill", "spend_session", "spend_symbol")


class Bench:
    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    async def step(self, cycles=1, **inputs):
        """Run; strobes last one cycle, all else holds. Returns the cycles (from 0) in which ``refill`` was high."""
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)
        refills = []
        for n in range(cycles):
            if self.ctx.get(self.dut.refill):
                refills.append(n)
            await self.ctx.tick()
            for name in STROBES:
                self.ctx.set(getattr(self.dut, name), 0)
        return refills

    def __getattr__(self, name):
        return self.ctx.get(getattr(self.dut, name))

    def symbol(self, index):
        """Whether an instrument has a token (the session having enough)."""
        self.ctx.set(self.dut.index, index)
        return self.new_ok


def simulate(test, instruments=3):
    dut = TokenBuckets(instruments)

    async def testbench(ctx):
        await test(Bench(ctx, dut))

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()


def test_converts():
    assert "module" in verilog.convert(TokenBuckets(3))


def test_reset_blocks():
    async def test(b):
        assert (b.new_ok, b.cancel_ok, b.tokens) == (0, 0, 0)
        assert await b.step(50, session_burst=9, symbol_burst=9) == []
        assert (b.new_ok, b.cancel_ok, b.tokens) == (0, 0, 0), "an interval of 0 never refills"
    simulate(test)


@pytest.mark.parametrize("which", ["session", "symbol"])
@pytest.mark.parametrize("interval", [1, 2, 7])
def test_one_token_every_interval(which, interval):
    """Counted from the write of the interval; the token shows in the cycle after its tick."""
    async def test(b):
        await b.step(session_burst=100, symbol_burst=100)
        await b.step(**{f"restart_{which}": 1})
        b.ctx.set(getattr(b.dut, f"{which}_interval"), interval)    # a register shows what is written a cycle later
        assert await b.step(4 * interval) == [interval * n - 1 for n in (1, 2, 3, 4)]
        if which == "session":
            # The tick of the last of these cycles has just been added.
            assert b.tokens == 4
    simulate(test)


def test_interval_that_becomes_shorter_than_its_count():
    async def test(b):
        await b.step(90, session_interval=100)
        assert await b.step(11, session_interval=5) == [0, 5, 10], "at once, then regularly"
    simulate(test)


def test_fill_and_size():
    async def test(b):
        await b.step(session_burst=5, symbol_burst=2, fill=1)
        assert (b.tokens, b.cancel_ok) == (5, 1)
        assert [b.symbol(i) for i in range(3)] == [1, 1, 1]
        await b.step(20, session_interval=1, symbol_interval=1)
        assert b.tokens == 5, "never more than its size"
        b.ctx.set(b.dut.session_burst, 3)
        await b.step()
        assert b.tokens == 3, "made smaller, it is cut in the next cycle"
        b.ctx.set(b.dut.symbol_burst, 0)
        await b.step()
        assert [b.symbol(i) for i in range(3)] == [0, 0, 0]
    simulate(test)


@pytest.mark.parametrize("burst", [1, 3, 4, 8, 200, 65535])
def test_a_quarter_is_kept_for_cancels(burst):
    async def test(b):
        await b.step(session_burst=burst, symbol_burst=255, fill=1)
        kept = burst // 4
        # Near the boundary only: spend down from a bucket that holds kept + 2.
        await b.step(session_burst=min(burst, kept + 2))
        b.ctx.set(b.dut.session_burst, burst)
        while b.tokens:
            assert (b.new_ok, b.cancel_ok) == (b.tokens > kept, 1), b.tokens
            before = b.tokens
            await b.step(spend_session=1)
            assert b.tokens == before - 1
            if b.tokens < kept - 2:
                break
        else:
            assert (b.new_ok, b.cancel_ok) == (0, 0)
    simulate(test)


def test_instruments_do_not_share_tokens():
    async def test(b):
        await b.step(session_burst=100, symbol_burst=2, fill=1)
        await b.step(spend_session=1, spend_symbol=1, index=1)
        await b.step(spend_session=1, spend_symbol=1, index=1)
        assert b.tokens == 98
        assert [b.symbol(i) for i in range(3)] == [1, 0, 1]
        await b.step(symbol_interval=1)
        assert [b.symbol(i) for i in range(3)] == [1, 1, 1]
    simulate(test)


def test_empty_bucket_stays_empty():
    async def test(b):
        await b.step(session_burst=1, symbol_burst=1, fill=1)
        for _ in range(3):
            await b.step(spend_session=1, spend_symbol=1, index=0)
            assert (b.tokens, b.symbol(0), b.symbol(1)) == (0, 0, 0)
    simulate(test)


class Clock:
    """A tick whenever the time since the last one, or since a restart, has grown to the interval."""

    def __init__(self):
        self.since = 0

    def step(self, interval, restart):
        self.since += 1
        tick = 0 < interval <= self.since
        if restart or tick or not interval:
            self.since = 0
        return tick


def test_random():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    instruments = 3
    session, symbols = 0, [0] * instruments
    clocks = Clock(), Clock()
    seen = {"refused": 0, "spent": 0, "full": 0, "reserve": 0}

    async def test(b):
        nonlocal session, symbols
        levels = {"session_interval": 5, "session_burst": 12, "symbol_interval": 9, "symbol_burst": 4}
        for _ in range(5000):
            x = dict.fromkeys(STROBES, 0) | {"index": rng.randrange(instruments)}
            if rng.random() < .01:
                levels["session_burst"] = rng.choice((0, 1, 4, 12, 40))
            if rng.random() < .01:
                levels["symbol_burst"] = rng.choice((0, 1, 4, 255))
            for name in ("session", "symbol"):
                if rng.random() < .01:
                    levels[f"{name}_interval"] = rng.choice((0, 1, 2, 5, 9, 30))
                    x[f"restart_{name}"] = 1
            x["fill"] = int(rng.random() < .005)
            x |= levels
            for name, value in x.items():
                b.ctx.set(getattr(b.dut, name), value)
            new_ok = session > x["session_burst"] // 4 and symbols[x["index"]] > 0
            assert (b.new_ok, b.cancel_ok, b.tokens) == (new_ok, session > 0, session), x
            seen["reserve"] += session > 0 and symbols[x["index"]] > 0 and not new_ok
            what = rng.random()
            if what < .25 and new_ok:
                x |= {"spend_session": 1, "spend_symbol": 1}
            elif what < .3 and session:
                x["spend_session"] = 1
            seen["spent" if x["spend_session"] else "refused"] += 1
            ticks = [clock.step(x[f"{name}_interval"], x[f"restart_{name}"])
                     for clock, name in zip(clocks, ("session", "symbol"), strict=True)]
            assert bool(await b.step(**x)) == any(ticks)

            def after(tokens, spent, burst, tick, x=x):
                return burst if x["fill"] else min(burst, tokens - spent + tick)
            session = after(session, x["spend_session"], x["session_burst"], ticks[0])
            symbols = [after(tokens, x["spend_symbol"] and i == x["index"], x["symbol_burst"], ticks[1])
                       for i, tokens in enumerate(symbols)]
            seen["full"] += session == x["session_burst"] > 0

    simulate(test, instruments)
    print(seen)
    assert min(seen.values()) > 50, seen

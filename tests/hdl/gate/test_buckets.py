"""Token buckets against a naive model, and the sentences of their docstring one by one."""

import random
import re

import pytest
from amaranth.back import rtlil, verilog

from hdl.gate.buckets import TokenBuckets
from sim.golden.gate import Context, rate_blocked
from sim.golden.model import GoldenModel
from tests.hdl.simulation import simulated

SEED = 63
STROBES = ("restart_session", "restart_symbol", "fill", "spend_session", "spend_symbol")


class Bench:
    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    def set(self, name, value):
        """An input; a spender has a bit besides its number."""
        self.ctx.set(getattr(self.dut, name), value)
        if name == "spender":
            self.ctx.set(self.dut.of_spender, 1 << value)

    async def step(self, cycles=1, **inputs):
        """Run; strobes last one cycle, all else holds. Returns the cycles (from 0) in which ``refill`` was high."""
        for name, value in inputs.items():
            self.set(name, value)
        refills = []
        for n in range(cycles):
            if self.ctx.get(self.dut.refill):
                refills.append(n)
            await self.ctx.tick()
            for name in STROBES:
                self.ctx.set(getattr(self.dut, name), 0)
        return refills

    async def resize(self, cycles=2, **sizes):
        """Set sizes and let them take hold."""
        await self.step(cycles, **sizes)

    def __getattr__(self, name):
        return self.ctx.get(getattr(self.dut, name))

    async def symbols(self):
        """Which instruments have a token (the session having enough). Takes two cycles each."""
        out = []
        for index in range(self.dut.instruments):
            await self.step(2, index=index)
            out.append(self.new_ok)
        return out


def simulate(test, instruments=3):
    dut = TokenBuckets(instruments)

    async def testbench(ctx):
        await test(Bench(ctx, dut))

    simulated(dut, testbench)


def test_converts():
    assert "module" in verilog.convert(TokenBuckets(3))


def test_reset_blocks():
    async def test(b):
        assert (b.new_ok, b.cancel_ok, b.tokens) == (0, 0, 0)
        assert await b.step(50, session_burst=9, symbol_burst=9) == []
        assert (b.new_ok, b.cancel_ok, b.tokens) == (0, 0, 0), "an interval of 0 never refills"
    simulate(test)


@pytest.mark.parametrize("which", ["session", "symbol"])
@pytest.mark.parametrize("interval", [1, 2, 7, 16, 17, 33])
def test_one_token_every_interval(which, interval):
    """Counted from the cycle after the write of the interval; the token shows in the cycle after its tick."""
    async def test(b):
        await b.resize(session_burst=100, symbol_burst=100)
        await b.step(**{f"restart_{which}": 1})
        b.ctx.set(getattr(b.dut, f"{which}_interval"), interval)    # a register shows what is written a cycle later
        assert await b.step(4 * interval + 1) == [interval * n for n in (1, 2, 3, 4)]
        if which == "session":
            # The tick of the last of these cycles has just been added.
            assert b.tokens == 4
    simulate(test)


@pytest.mark.parametrize("which", ["session", "symbol"])
def test_every_bit_of_an_interval_counts(which):
    async def test(b):
        for bit in range(7, 32):
            await b.step(**{f"restart_{which}": 1})
            assert await b.step(20, **{f"{which}_interval": 5 + (1 << bit)}) == [], bit
    simulate(test)


@pytest.mark.parametrize("burst", [100, 200, 255])
def test_every_token_of_an_instrument_counts(burst):
    async def test(b):
        await b.resize(session_burst=65535, symbol_burst=burst, index=1, spender=1)
        await b.step(2, fill=1)
        for left in reversed(range(burst)):
            assert b.new_ok
            await b.step(6, spend_session=1, spend_symbol=1)
            assert b.new_ok == (left > 0), left
    simulate(test)


def test_instruments_of_every_number():
    async def test(b):
        await b.resize(session_burst=99, symbol_burst=1)
        for spender in (0, 2, 130, 199):
            await b.step(fill=1)
            await b.step(2, spender=spender)
            await b.step(6, spend_session=1, spend_symbol=1)
            for index in (0, 2, 66, 130, 194, 199):
                await b.step(2, index=index)
                assert b.new_ok == (index != spender), (spender, index)
    simulate(test, instruments=200)


def test_as_many_tokens_are_told_apart_as_promised():
    """2^28, everywhere: it would take too long to give them all."""
    text = rtlil.convert(TokenBuckets(3))
    for wire in ("given", r"made\.given", r"row\.given"):
        assert re.findall(rf"wire width (\d+) \\{wire}\n", text) == ["28"], wire


def test_a_shorter_interval_counts_at_once():
    async def test(b):
        await b.step(90, session_interval=100)
        await b.step(restart_session=1)
        assert await b.step(12, session_interval=5) == [5, 10]
        assert await b.step(5, restart_session=1) == [], "held back by every restart"
        assert await b.step(2) == [1]
    simulate(test)


def test_fill_and_size():
    async def test(b):
        await b.resize(session_burst=5, symbol_burst=2)
        await b.step(fill=1)
        assert (b.tokens, b.cancel_ok) == (5, 1)
        assert await b.symbols() == [1, 1, 1]
        await b.step(20, session_interval=1, symbol_interval=1)
        assert b.tokens == 5, "never more than its size"
        await b.step(2, session_interval=0, symbol_interval=0)
        await b.step(session_burst=3)
        assert b.tokens == 5
        await b.step()
        assert b.tokens == 3, "made smaller, it is cut two cycles later"
        await b.resize(symbol_burst=3)
        assert await b.symbols() == [0, 0, 0], "a new size empties"
        await b.step(symbol_interval=1)
        await b.step(2, symbol_interval=0, restart_symbol=1)
        assert await b.symbols() == [1, 1, 1]
    simulate(test)


@pytest.mark.parametrize(("before", "after", "at_once"), [(8, 100, 0), (100, 8, 1)])
def test_the_reserve_moves_with_the_size(before, after, at_once):
    """Two cycles after it was set, whatever happens to the tokens meanwhile."""
    async def test(b):
        for spends in (False, True):
            await b.resize(symbol_burst=9, session_burst=12)
            await b.step(fill=1)
            await b.resize(3, session_burst=before)
            had = b.new_ok
            await b.step(session_burst=after, spend_session=spends)
            assert b.new_ok == had
            await b.step()
            assert b.new_ok == at_once
    simulate(test)


@pytest.mark.parametrize("burst", [1, 3, 4, 8, 200, 65535])
def test_a_quarter_is_kept_for_cancels(burst):
    async def test(b):
        await b.resize(session_burst=burst, symbol_burst=255)
        await b.step(fill=1)
        kept = burst // 4
        # Near the boundary only: spend down from a bucket that holds kept + 2.
        await b.resize(session_burst=min(burst, kept + 2))
        await b.resize(session_burst=burst)
        assert b.tokens == min(burst, kept + 2)
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
        await b.resize(session_burst=100, symbol_burst=2)
        await b.step(fill=1)
        # Who spends is not who is asked about.
        await b.step(4, spender=1)
        await b.step(6, spend_session=1, spend_symbol=1, index=2)
        await b.step(6, spend_session=1, spend_symbol=1, index=0)
        assert b.tokens == 98
        assert await b.symbols() == [1, 0, 1]
        await b.step(3, symbol_interval=1)
        assert await b.symbols() == [1, 1, 1]
    simulate(test)


@pytest.mark.parametrize("later", [1, 2, 3, 4])
def test_what_was_spent_is_forgotten_with_the_next_fill(later):
    async def test(b):
        async def spend():
            await b.step(6, spend_session=1, spend_symbol=1)
        await b.resize(session_burst=99, symbol_burst=2, index=1, spender=1)
        await b.step(2, fill=1)
        await spend()
        await spend()
        assert not b.new_ok
        await b.step(later, fill=1)
        await spend()
        assert b.new_ok, "two, less one"
        await spend()
        assert not b.new_ok
    simulate(test)


@pytest.mark.parametrize(("burst", "arrive"), [(20, 3), (20, 256), (20, 512), (20, 1024), (200, 130), (200, 199)])
def test_what_has_come_since_is_added_to_what_was_left(burst, arrive):
    async def test(b):
        await b.resize(session_burst=65535, symbol_burst=burst, index=1, spender=1)
        await b.step(2, fill=1)
        for _ in range(burst):
            await b.step(6, spend_session=1, spend_symbol=1)
        assert not b.new_ok
        await b.step(restart_symbol=1)
        await b.step(arrive, symbol_interval=1)
        await b.step(3, restart_symbol=1, symbol_interval=0)
        spent = 0
        while b.new_ok and spent <= burst:
            await b.step(6, spend_session=1, spend_symbol=1)
            spent += 1
        assert spent == min(burst, arrive)
    simulate(test)


def test_the_next_spender_may_come_at_once():
    async def test(b):
        await b.resize(session_burst=99, symbol_burst=1, spender=1)
        await b.step(2, fill=1)
        await b.step(spend_session=1, spend_symbol=1)
        await b.step(6, spender=2)
        assert await b.symbols() == [1, 0, 1]
    simulate(test)


def test_empty_bucket_stays_empty():
    async def test(b):
        await b.resize(session_burst=1, symbol_burst=1)
        await b.step(fill=1)
        for _ in range(3):
            await b.step(6, spend_session=1, spend_symbol=1, spender=0)
            assert b.tokens == 0
            assert await b.symbols() == [0, 0, 0], "none has enough without the session"
        await b.step(2, session_interval=1, session_burst=10)
        await b.step(3)
        assert await b.symbols() == [0, 1, 1]
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
    seen = {"refused": 0, "spent": 0, "full": 0, "reserve": 0, "cut": 0}

    async def test(b):
        nonlocal session, symbols
        levels = {"session_interval": 5, "session_burst": 12, "symbol_interval": 9, "symbol_burst": 4}
        # What stood on the inputs one cycle ago counts in this one.
        counts = dict.fromkeys(levels, 0) | {"restart_session": 0, "restart_symbol": 0}
        size, index = counts | {}, [0, 0]       # index: of the last two cycles
        hidden, hides = None, 0     # whose last token went, and for how many cycles that does not show yet
        new = {}        # intervals that were written in the cycle before
        spender, rested, emptied = 0, 0, False
        for _ in range(16000):
            levels |= new
            new = {}
            rested += 1
            if rested > 5 and rng.random() < .2:
                spender, rested = rng.randrange(instruments), 4
            asks = rng.randrange(instruments) if rng.random() < .2 else index[1]
            x = dict.fromkeys(STROBES, 0) | {"index": asks, "spender": spender}
            if rng.random() < .05:
                levels["session_burst"] = rng.choice((0, 1, 4, 12, 40))
            if rng.random() < .02:
                levels["symbol_burst"] = rng.choice((0, 1, 4, 255))
            for name in ("session", "symbol"):
                if rng.random() < .02:
                    x[f"restart_{name}"] = 1
                    new[f"{name}_interval"] = rng.choice((0, 1, 2, 5, 9, 30, levels[f"{name}_interval"]))
            x["fill"] = int(rng.random() < .005)
            x |= levels
            for name, value in x.items():
                b.ctx.set(getattr(b.dut, name), value)
            # What is asked for has to rest for two cycles: the answer is about the one of the cycle before the last.
            some = symbols[index[0]] > 0 or (hides > 0 and hidden == index[0])
            new_ok = session > size["session_burst"] // 4 and some
            assert (b.new_ok, b.cancel_ok, b.tokens) == (new_ok, session > 0, session), x
            seen["reserve"] += session > 0 and symbols[index[0]] > 0 and not new_ok
            what = rng.random()
            if what < .4 and session and rested > 5 and symbols[spender]:
                x |= {"spend_session": 1, "spend_symbol": 1}
                rested = 0
            elif what < .45 and session:
                x["spend_session"] = 1
            seen["spent" if x["spend_session"] else "refused"] += 1
            ticks = [clock.step(counts[f"{name}_interval"], counts[f"restart_{name}"])
                     for clock, name in zip(clocks, ("session", "symbol"), strict=True)]

            def after(tokens, spent, burst, tick, x=x):
                return burst if x["fill"] else min(burst, max(0, tokens - spent) + tick)
            seen["cut"] += session > counts["session_burst"]
            spends = x["spend_symbol"] and symbols[x["spender"]] == 1
            session = after(session, x["spend_session"], counts["session_burst"], ticks[0])
            symbols = [after(tokens, x["spend_symbol"] and i == x["spender"], counts["symbol_burst"], ticks[1])
                       for i, tokens in enumerate(symbols)]
            if emptied:
                symbols, spends, hides = [0] * instruments, False, 0
            emptied = counts["symbol_burst"] != x["symbol_burst"]
            hides -= 1
            if spends and not symbols[x["spender"]]:
                hidden, hides = x["spender"], 5
            if not counts["symbol_burst"]:
                hides = 0
            assert bool(await b.step(**x)) == any(ticks)
            seen["full"] += session == counts["session_burst"] > 0
            size, index, counts = counts, [index[1], x["index"]], {name: x[name] for name in counts}

    simulate(test, instruments)
    print(seen)
    assert min(seen.values()) > 50, seen


def test_against_the_golden_model():
    """Registers written at random: in every cycle the gateware allows what the model does."""
    print(f"seed {SEED + 1}")
    rng = random.Random(SEED + 1)
    instruments = 3
    model = GoldenModel(instruments)
    seen = {"allowed": 0, "blocked": 0, "no cancel": 0, "refill": 0}
    values = {"session_interval": (0, 1, 7, 30), "symbol_interval": (0, 1, 9, 40), "session_burst": (0, 3, 12, 40),
              "symbol_burst": (0, 1, 4, 255)}

    def takes_effect(cycle, strobes, name, value):
        return lambda: model._hold_value(cycle, name, value)

    async def test(b):
        registers, writes = dict.fromkeys(values, 0), {}
        index, asked, earlier, spent, since, quiet, spender = 0, 0, 0, None, 0, 0, 0
        for c in range(1, 6000):
            # The link takes some cycles for every write; a value shows a cycle after its strobe.
            if quiet < -1 and rng.random() < .3:
                spender, quiet = rng.randrange(instruments), 2
            x = dict.fromkeys(STROBES, 0) | {"spender": spender}
            registers |= writes
            writes = {}
            if c % 8 == 0 and rng.random() < .3:
                for name in rng.sample(list(values), rng.choice((1, 1, 2, 3, 4))):     # a commit changes any of them
                    writes[name] = rng.choice(values[name])
                    model._at(c, takes_effect, name, writes[name])
                    if name.endswith("interval"):
                        x[f"restart_{name.partition('_')[0]}"] = 1
            index = rng.randrange(instruments) if rng.random() < .1 else index
            for name, value in (x | registers | {"index": index}).items():
                b.set(name, value)

            model.advance(c)
            tokens = model.session_tokens(c)
            context = Context(session_tokens=tokens, session_burst=model._sizes["session_burst"],
                              symbol_tokens=model._symbol(earlier, c))
            assert (b.tokens, b.cancel_ok) == (tokens, tokens > 0), (c, registers)
            if spent != earlier or since > 5:   # that it has spent its last token shows some cycles later
                assert b.new_ok == (not rate_blocked(context)), (c, registers)
                seen["allowed" if b.new_ok else "blocked"] += 1
            seen["no cancel"] += not tokens

            earlier, asked = asked, index
            since += 1
            quiet -= 1
            if quiet < 0 and tokens and rng.random() < .3:
                x["spend_session"], x["spend_symbol"] = 1, int(rng.random() < .7)
                quiet = 5
                if x["spend_symbol"]:
                    spent, since = x["spender"], 0
            elif c % 8 > 3 and rng.random() < .02:  # not while a size is changing
                x["fill"] = 1
            seen["refill"] += bool(await b.step(**x))
            model.advance(c + 1)
            if x["fill"]:
                model._fill(c)
            if x["spend_session"]:
                model._spend(c, model._session_tokens, model._session_ticks, "session_burst")
            if x["spend_symbol"]:
                model._spend(c, model._symbol_tokens[x["spender"]], model._symbol_ticks, "symbol_burst")
    simulate(test, instruments)
    print(seen)
    assert min(seen.values()) > 100, seen

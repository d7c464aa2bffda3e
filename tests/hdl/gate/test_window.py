# amaranth: UnusedElaboratable=no
"""The window: what its proof is worth, and tried at random."""

import dataclasses
import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from hdl.control.registers import TICK_LIMIT
from hdl.gate.window import Window
from tests.hdl.simulation import simulated
from tests.proof.solver import solve
from tests.proof.window import PROOFS, SIDES

SEED = 71


def test_converts():
    assert "module" in verilog.convert(Window())


class Spoilt(wiring.Component):
    """A window that gets one of its inputs wrong."""

    def __init__(self, name):
        self.name = name
        super().__init__(Window().signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.window = window = Window()
        connect(m, flipped(self), window)
        m.d.comb += getattr(window, self.name).eq(getattr(self, self.name) + 1)
        return m


@pytest.mark.parametrize("spoilt", ["low", "high", "ask_most"])
def test_the_proof_would_notice(tmp_path, spoilt):
    """A window that gets one of its bounds wrong is refuted."""
    [proof] = PROOFS
    dut = dataclasses.replace(proof, component=lambda: Spoilt(spoilt)).obligations()
    answer = solve(dut, dut.ports, tmp_path, mode="bmc", depth=3)
    assert answer.counterexample, answer.log


def approved(low, high, px, lots, most):
    """(price, lots, whether it had to be changed), in plain integers."""
    if lots == 0:
        return 0, 0, False
    if low > high or most == 0:
        return 0, 0, True
    price = sorted((low, px, high))[1]
    return price, min(lots, most), (price, min(lots, most)) != (px, lots)


def test_random():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    dut = Window()
    seen, met = set(), {False: 0, True: 0}

    def price():
        return rng.choice((rng.randrange(-5, 6), rng.randrange(-5, 6), rng.randrange(-TICK_LIMIT, TICK_LIMIT),
                           -TICK_LIMIT, TICK_LIMIT - 1))

    def lots():
        return rng.choice((0, 1, rng.randrange(10), rng.randrange(10), (1 << 24) - 1, rng.getrandbits(24)))

    async def testbench(ctx):
        held = dict.fromkeys(SIDES, (0, 0))
        for _ in range(4000):
            x = {"low": price(), "high": price(), "en": rng.random() < .8}
            x |= {f"{side}_{what}": of() for side in SIDES for what, of in (("px", price), ("lots", lots),
                                                                           ("most", lots))}
            for name, value in x.items():
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            ctx.set(dut.en, 0)
            assert not ctx.get(dut.clamped)
            await ctx.tick()
            changed = meets = False
            if x["en"]:
                for side in SIDES:
                    quote = (x[f"{side}_{what}"] for what in ("px", "lots", "most"))
                    *held[side], wrong = approved(x["low"], x["high"], *quote)
                    changed |= wrong
                    seen.add((x["low"] > x["high"], wrong, held[side][1] > 0))
                (bid, bid_lots), (ask, ask_lots) = held["bid"], held["ask"]
                if bid_lots and ask_lots and bid >= ask:    # G8: it would trade with itself
                    meets, held = True, dict.fromkeys(SIDES, (0, 0))
                    met[x["bid_px"] < x["ask_px"]] += 1
            for side in SIDES:
                got = ctx.get(getattr(dut, f"{side}_ticks")), ctx.get(getattr(dut, f"{side}_quantity"))
                assert got == tuple(held[side]), (side, x)
            assert ctx.get(dut.clamped) == changed, x
            assert ctx.get(dut.met) == meets, x

    simulated(dut, testbench)
    assert seen == {(False, False, False), (False, False, True), (False, True, True), (False, True, False),
                    (True, True, False), (True, False, False)}
    assert min(met.values()) > 20

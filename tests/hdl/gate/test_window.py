"""The window: proved for every input, then tried at random."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import Assert, Assume, Cover, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from hdl.control.registers import TICK_LIMIT
from hdl.gate.window import Window
from tests.hdl.gate import proof

SEED = 71
SIDES = "bid", "ask"
INPUTS = ("low", "high", *(f"{side}_{what}" for side in SIDES for what in ("px", "lots", "most")))


class Obligations(wiring.Component):
    """A window, what it has taken last, and what it promises about that.

    ``spoilt`` : name of an input that the window gets wrong: the proof must notice.
    """

    def __init__(self, spoilt=None):
        self.window, self.spoilt = Window(), spoilt
        super().__init__({"en": In(1), **{name: In(self.window.signature.members[name].shape) for name in INPUTS}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.window = window = self.window
        m.d.comb += [window.en.eq(self.en), *(getattr(window, name).eq(getattr(self, name)) for name in INPUTS)]
        if self.spoilt:
            m.d.comb += getattr(window, self.spoilt).eq(getattr(self, self.spoilt) + 1)
        # What is taken holds still for a cycle, and nothing else is taken in it.
        taken, taking, just_taken = Signal(), Signal(), Signal()
        given, before = ({name: Signal.like(getattr(self, name), name=f"{which}_{name}", reset_less=True)
                          for name in INPUTS} for which in ("given", "before"))
        m.d.sync += [taking.eq(self.en), just_taken.eq(taking)]
        m.d.sync += [before[name].eq(getattr(self, name)) for name in INPUTS]
        with m.If(taking):
            m.d.comb += [Assume(~self.en), *(Assume(getattr(self, name) == before[name]) for name in INPUTS)]
            m.d.sync += [taken.eq(1), *(given[name].eq(getattr(self, name)) for name in INPUTS)]
        low, high = given["low"], given["high"]
        empty = low > high

        outside, sides = [], []
        for side in SIDES:
            px, lots, most = (given[f"{side}_{what}"] for what in ("px", "lots", "most"))
            ticks, quantity = getattr(window, f"{side}_ticks"), getattr(window, f"{side}_quantity")
            inside = ~empty & (low <= px) & (px <= high) & (lots <= most)
            outside.append((lots != 0) & ~inside)
            sides.append((ticks, quantity, px, lots, most))
            with m.If(taken):
                m.d.comb += [
                    # Nothing leaves that has not been approved ...
                    Assert((quantity == 0) | ((low <= ticks) & (ticks <= high) & (quantity <= most))),
                    Assert(~empty | (quantity == 0)),
                    # ... nothing is changed that has ...
                    Assert(~(inside & (lots != 0)) | ((ticks == px) & (quantity == lots))),
                    # ... and what is changed becomes the nearest that has.
                    Assert((quantity != 0) == ((lots != 0) & (most != 0) & ~empty)),
                    Assert((quantity != 0) == getattr(window, f"{side}_some")),
                    Assert((quantity == 0) | (quantity == lots) | ((quantity == most) & (lots > most))),
                    Assert((quantity == 0) | (px >= low) | (ticks == low)),
                    Assert((quantity == 0) | (px <= high) | (ticks == high)),
                    Assert((quantity != 0) | (ticks == 0)),
                ]
            with m.Else():
                m.d.comb += [Assert(quantity == 0), Assert(ticks == 0)]
        m.d.comb += Assert(window.clamped == (just_taken & (outside[0] | outside[1])))

        (bid, bid_lots, bid_px, lots, bid_most), (ask, ask_lots, ask_px, *_) = sides
        reached = {
            "both sides as they came": (bid_lots != 0) & (ask_lots != 0) & ~window.clamped & (bid < ask),
            "raised": (bid_lots != 0) & (bid > bid_px), "lowered": (ask_lots != 0) & (ask < ask_px),
            "fewer lots": (bid_lots != 0) & (bid_lots < lots), "none allowed": (lots != 0) & (bid_most == 0),
            "empty window": empty & (lots != 0) & window.clamped, "one price": (low == high) & (bid_lots != 0),
            "the whole range": (low == -TICK_LIMIT) & (high == TICK_LIMIT - 1) & (bid == low) & (ask == high)
            & (bid_lots != 0) & (ask_lots == (1 << 24) - 1),
            "window below zero": (high < 0) & (bid_lots != 0) & window.clamped,
            "around zero": (low < 0) & (high > 0) & (bid == 0) & (bid_lots != 0),
            "one side": (bid_lots == 0) & (ask_lots != 0), "kept without en": ~just_taken & (bid_lots != 0),
        }
        m.d.comb += [Cover(taken & condition) for condition in reached.values()]
        return m

    @property
    def ports(self):
        """Everything that may be anything."""
        return [self.en, *(getattr(self, name) for name in INPUTS)]


def test_converts():
    assert "module" in verilog.convert(Window())


def test_what_leaves_lies_in_the_window(tmp_path):
    """For all inputs, at all times."""
    dut = Obligations()
    passed, log = proof.run(dut, dut.ports, tmp_path, mode="prove", depth=2)
    assert passed, log
    assert "successful proof by k-induction" in log


def test_the_proof_is_not_vacuous(tmp_path):
    """Everything that it speaks of can happen."""
    dut = Obligations()
    passed, log = proof.run(dut, dut.ports, tmp_path, mode="cover", depth=4)
    assert passed, log


@pytest.mark.parametrize("spoilt", ["low", "high", "ask_most"])
def test_the_proof_would_notice(tmp_path, spoilt):
    """A window that gets one of its bounds wrong is refuted."""
    dut = Obligations(spoilt)
    passed, log = proof.run(dut, dut.ports, tmp_path, mode="bmc", depth=3)
    assert not passed, log


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
    seen = set()

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
            changed = False
            for side in SIDES:
                if x["en"]:
                    quote = (x[f"{side}_{what}"] for what in ("px", "lots", "most"))
                    *held[side], wrong = approved(x["low"], x["high"], *quote)
                    changed |= wrong
                    seen.add((x["low"] > x["high"], wrong, held[side][1] > 0))
                got = ctx.get(getattr(dut, f"{side}_ticks")), ctx.get(getattr(dut, f"{side}_quantity"))
                assert got == tuple(held[side]), (side, x)
            assert ctx.get(dut.clamped) == changed, x

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()
    assert seen == {(False, False, False), (False, False, True), (False, True, True), (False, True, False),
                    (True, True, False), (True, False, False)}

"""The gate on a price against its definitions in plain integers, around every value at which something is decided."""

import random

from amaranth.back import verilog
from amaranth.hdl import Shape

from hdl.control.registers import ACTIVE, DISARMED, HALTED, LOT_BITS, REDUCING, TICK_LIMIT
from hdl.gate.gate import Gate
from hdl.gate.limits import REASONS
from hdl.quote.engine import Candidate
from tests.hdl.simulation import simulated

SEED = 73
SIDES = "bid", "ask"
TICKS = -TICK_LIMIT, TICK_LIMIT - 1
_WIDTH = Shape.cast(Candidate).width
CANDIDATES = -(1 << _WIDTH - 1), (1 << _WIDTH - 1) - 1
#: Gates that can fail whatever the price.
OF_LIMITS = (3, 5, 6, 9, 10, 11, 13, 15, 26)


def test_converts():
    assert "module" in verilog.convert(Gate())


def test_reset():
    """Nothing is passed, told or sent before the first candidate."""
    async def test(ctx, dut):
        for name in ("emit", "is_new", "rate_blocked", "bid_ok", "ask_ok"):
            assert ctx.get(getattr(dut, name)) == 0, name
    simulate(test)


class Side:
    """What the gate is told of a side, and what it should say of it."""

    def __init__(self, rng, p):
        low, high, bound = p["px_min_ticks"], p["px_max_ticks"], p["px_notional_ticks"]
        edges = *p["collar"], low, high, bound, -bound, 0, rng.randrange(*TICKS), TICKS[0], TICKS[1] + 1
        near = rng.choice(edges) + rng.choice((-1, 0, 0, 1))
        # Candidates are wider than what they are compared with: every bit of theirs counts.
        far = rng.choice((-1, 1)) * (1 << rng.randrange(_WIDTH - 1)) + near
        self.px = max(CANDIDATES[0], min(CANDIDATES[1], rng.choice((near, near, near, far, *CANDIDATES))))
        self.limits = {"fixed": sum(1 << g for g in OF_LIMITS if rng.random() < .03), "live": rng.random() < .7,
                       "reduces": rng.random() < .6, "resize": rng.random() < .3,
                       "live_px": rng.randrange(*TICKS), "live_lots": rng.randrange(1, 1 << LOT_BITS)}
        self.moved, self.takes = rng.random() < .5, rng.random() < .05

    def says(self, p, moment, book_ok, far):
        """Reasons, and (price, lots, replaced, changed) of the frame."""
        low, high, bound = p["px_min_ticks"], p["px_max_ticks"], p["px_notional_ticks"]
        limits, state = self.limits, moment["state"]
        fails = {
            6: not p["collar"][0] <= self.px <= p["collar"][1], 7: self.takes, 26: far,
            12: not moment["equity_ok"] and not limits["reduces"],
            0: state not in (ACTIVE, REDUCING) or (state == REDUCING and not limits["reduces"]),
            1: not moment["heartbeat_ok"], 2: not moment["limits_ok"], 4: not book_ok,
            5: not low <= self.px <= high or (self.px == 0 and not low < 0 < high), 10: abs(self.px) > bound,
            22: state == HALTED or moment["kill_pin"], 24: not moment["session_up"]}
        reasons = limits["fixed"] | sum(failed << g for g, failed in fails.items())
        passes = not reasons & ~(1 << 24)
        wants = passes and (limits["resize"] or self.moved)
        if wants and moment["new_ok"]:
            return reasons, passes, wants, (self.px, p["quote_lots"], True, True)
        if passes and limits["live"]:
            return reasons, passes, wants, (limits["live_px"], limits["live_lots"], False, False)
        return reasons, passes, wants, (0, 0, False, limits["live"] and not passes)


def random_params(rng):
    edges = (*TICKS, TICKS[0] + 1, TICKS[1] - 1, -1, 0, 1, rng.randrange(-20, 20), rng.randrange(*TICKS))
    wide = rng.random() < .6
    return {"px_min_ticks": TICKS[0] if wide else rng.choice(edges),
            "px_max_ticks": TICKS[1] if wide else rng.choice(edges),
            "px_notional_ticks": rng.choice((TICKS[1], TICKS[1], 0, 1, rng.randrange(TICKS[1]))),
            "collar": TICKS if rng.random() < .7 else (rng.choice(edges), rng.choice(edges)),
            "quote_lots": rng.randrange(1, 1 << LOT_BITS)}


def random_moment(rng):
    return {"state": rng.choice((ACTIVE, ACTIVE, ACTIVE, REDUCING, REDUCING, DISARMED, HALTED)),
            "kill_pin": rng.random() < .05, "heartbeat_ok": rng.random() < .95, "limits_ok": rng.random() < .95,
            "session_up": rng.random() < .95,
            "new_ok": rng.random() < .7, "equity_ok": rng.random() < .9}


def simulate(test):
    dut = Gate()

    async def testbench(ctx):
        await test(ctx, dut)

    simulated(dut, testbench)


def test_against_the_definitions():
    """Every candidate in two moments, with anything on the inputs that have been taken by then."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    reasons_seen = [0] * REASONS
    outcomes = set()

    async def test(ctx, dut):
        def set_moved(book_ok, far, told):
            ctx.set(dut.book_ok, book_ok)
            ctx.set(dut.far, far)
            for name, (moved, takes) in zip(SIDES, told, strict=True):
                ctx.set(getattr(dut, f"{name}_moved"), moved)
                ctx.set(getattr(dut, f"{name}_takes"), takes)

        def set_anything():
            set_moved(*(rng.getrandbits(1) for _ in range(2)), [[rng.getrandbits(1) for _ in SIDES] for _ in SIDES])

        for _ in range(4000):
            p = random_params(rng)
            sides = [Side(rng, p) for _ in SIDES]
            ctx.set(dut.params, {name: value for name, value in p.items() if name != "collar"})
            ctx.set(dut.collar_low, p["collar"][0])
            ctx.set(dut.collar_high, p["collar"][1])
            for name, side in zip(SIDES, sides, strict=True):
                ctx.set(getattr(dut, name), side.px)
                for what, value in side.limits.items():
                    ctx.set(getattr(getattr(dut, f"{name}_limits"), what), value)
            set_anything()
            await ctx.tick()
            book_ok, far = rng.random() < .95, rng.random() < .05
            set_moved(book_ok, far, [(side.moved, side.takes) for side in sides])
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)
            for _ in range(2):
                set_anything()
                moment = random_moment(rng)
                ctx.set(dut.moment.cancel_ok, rng.getrandbits(1))
                for name, value in moment.items():
                    ctx.set(getattr(dut.moment, name), value)
                says = [side.says(p, moment, book_ok, far) for side in sides]
                blocked = any(wants for _, _, wants, _ in says) and not moment["new_ok"]
                case = p, moment, book_ok, [vars(side) for side in sides], says
                for name, (_, passes, _, (px, lots, _, _)) in zip(SIDES, says, strict=True):
                    got = [ctx.get(getattr(dut, f"{name}_{what}")) for what in ("ok", "px", "lots")]
                    assert got == [passes, px, lots], case
                reasons = says[0][0] | says[1][0] | blocked << 14
                new, changes = (any(frame[n] for *_, frame in says) for n in (2, 3))
                got = [ctx.get(getattr(dut, what)) for what in ("reasons", "rate_blocked", "is_new", "emit")]
                assert got == [reasons, blocked, new, changes and moment["session_up"]], case
                for g in range(REASONS):
                    reasons_seen[g] += says[0][0] == 1 << g
                outcomes.add((new, changes, blocked))
                await ctx.tick()

    simulate(test)
    print(reasons_seen)
    for g in (0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 15, 22, 24, 26):
        assert reasons_seen[g] > 3, f"G{g} alone"
    assert outcomes == {(False, False, False), (True, True, False), (False, True, False), (False, False, True),
                        (False, True, True)}

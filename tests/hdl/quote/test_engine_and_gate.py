"""Engine, limits, hypotheses, gate and window, one behind the other, against the golden model's pure functions."""

import random
from dataclasses import replace

from amaranth.back import verilog

from hdl.control.registers import ACTIVE, PARAMS, REDUCING, TICK_BITS, TICK_LIMIT
from hdl.gate.gate import Gate
from hdl.gate.holds import HOLDING
from hdl.gate.hypotheses import Hypotheses
from hdl.gate.limits import Limits
from hdl.gate.references import References
from hdl.gate.window import Window
from hdl.quote.engine import ASK_PX, ASK_SECOND, BID_PX, BID_SECOND, HYPOTHESES, SAME, QuoteEngine
from sim.golden import gate as golden_gate
from sim.golden import quote as golden
from sim.golden.gate import Context, Reference
from tests.hdl.quote.chain import Chain, PinnedChain
from tests.hdl.simulation import simulated

SEED = 11
#: The most that limits can leave, in 1/256 of the unit of money.
ROOM = 0xFFFF_FFFF << 8
I32 = -(1 << 31), (1 << 31) - 1
TICKS = -TICK_LIMIT, TICK_LIMIT - 1
U32 = 0xFFFF_FFFF


class Case:
    """One evaluation: parameters, state, two levels a side, the price of the entry, and the moment.

    ``levels`` : {"bid": [(known, px), (known, px)], "ask": ...}.
    """

    def __init__(self, row, state, levels, entry, fresh, context):
        self.row, self.state, self.levels, self.entry = row, state, levels, entry
        self.fresh, self.context = fresh, context
        self.params = golden.Params(**row)

    def __repr__(self):
        return (f"{self.row}, {self.state}, levels {self.levels}, entry {self.entry}, fresh {self.fresh}, "
                f"{self.context}")

    def bests(self, hypothesis):
        """The best prices that the book has if the hypothesis comes true; what is unknown has price 0."""
        bid, ask = self.levels["bid"][0], self.levels["ask"][0]
        if hypothesis == BID_PX:
            bid = (True, self.entry)
        elif hypothesis == BID_SECOND:
            bid = self.levels["bid"][1]
        elif hypothesis == ASK_PX:
            ask = (True, self.entry)
        elif hypothesis == ASK_SECOND:
            ask = self.levels["ask"][1]
        return tuple((known, px if known else 0, 5) for known, px in (bid, ask))

    def evaluate(self, hypothesis, context=None):
        return golden.evaluate(self.params, self.state, *self.bests(hypothesis), self.fresh, context or self.context)

    def book_ok(self, hypothesis):
        bid, ask = self.bests(hypothesis)
        return bool(self.fresh and self.row["stale_cycles"] and bid[0] and ask[0] and bid[1] < ask[1])

    def everything_else_allows(self):
        """The moment in which only what a verdict is about can block."""
        return replace(self.context, state=REDUCING if self.context.state == REDUCING else ACTIVE, deadman_ok=True,
                       killed=False, session_up=True, session_tokens=100, session_burst=100, symbol_tokens=1,
                       limits_ok=True)


async def refer(ctx, dut, reference):
    """Take a reference onto the bench; without one it is of an instrument that has none."""
    r = dut.references
    ctx.set(r.cycles, 0xFFFF_FFFF)
    ctx.set(r.address, reference is None)
    await ctx.tick()
    ctx.set(r.commit, reference is not None)
    if reference is not None:
        ctx.set(r.reference, {"value": reference.value, "local": reference.local, "basis": reference.basis,
                              "lot_value": reference.lot_value})
    await ctx.tick()
    ctx.set(r.commit, 0)
    await ctx.tick().repeat(2)
    ctx.set(r.load, 1)
    await ctx.tick()
    ctx.set(r.load, 0)


async def evaluation(ctx, dut, case, rng):
    """The eight cycles of an evaluation. Ends in its last one, in which verdicts are read."""
    ctx.set(dut.at, 0)
    await refer(ctx, dut, case.context.reference)
    engine, limits, state = dut.engine, dut.limits, case.state
    ctx.set(dut.params, case.row)
    bids, asks = ([px if known else 0 for known, px in case.levels[side]] for side in ("bid", "ask"))
    for name, value in (("best_bid", bids[0]), ("best_ask", asks[0]), ("second_bid", case.levels["bid"][1][1]),
                        ("second_ask", case.levels["ask"][1][1]), ("position", state.position)):
        ctx.set(getattr(engine, name), value)
    for name, value in (("bid_live", state.live_bid), ("ask_live", state.live_ask),
                        ("position_known", state.pos_valid)):
        ctx.set(getattr(limits, name), value)
    ctx.set(limits.live, {"bid_px": state.live_bid_ticks, "ask_px": state.live_ask_ticks,
                          "bid_lots": state.live_bid_lots, "ask_lots": state.live_ask_lots,
                          "sent_bid": state.sent_bid, "sent_ask": state.sent_ask})
    ctx.set(limits.known, {"lots": state.position, "settled_bid": state.settled_bid, "settled_ask": state.settled_ask})
    ctx.set(dut.hypotheses.reducing, case.context.state == REDUCING or not case.context.equity_ok)
    context, own = case.context, state.live_bid + state.live_ask
    for name, value in (("live_sides", context.live_elsewhere + own), ("live_most", context.live_most),
                        ("rooms", dict(zip(("gross", "bid", "ask"), context.rooms, strict=True))),
                        ("off", 0), ("held", {side: sum(
                            ((context.drifted if gate == 25 else getattr(context, f"held_{side}") >> gate) & 1) << n
                            for n, gate in enumerate(HOLDING)) for side in ("bid", "ask")}),
                        ("bid_young", context.young_bid), ("ask_young", context.young_ask)):
        ctx.set(getattr(limits, name), value)
    for t in range(8):
        ctx.set(dut.at, 1 << t)
        if t < 3:       # the entry's price comes last
            ctx.set(engine.entry_px, rng.randrange(*TICKS))
        elif t == 3:
            ctx.set(engine.entry_px, case.entry)
        ctx.set(dut.hypotheses.book_ok,
                sum(case.book_ok(h) << h for h in range(HYPOTHESES)) if t == 7 else rng.getrandbits(HYPOTHESES))
        if t == 7:
            return
        await ctx.tick()


async def decide(ctx, dut, case):
    """From the last cycle of an evaluation to what the gate says in the given moment."""
    await ctx.tick()
    ctx.set(dut.at, 0)
    context, moment = case.context, dut.gate.moment
    for name, value in (("state", context.state), ("kill_pin", context.killed and context.state != 3),
                        ("heartbeat_ok", context.deadman_ok), ("limits_ok", context.limits_ok),
                        ("session_up", context.session_up),
                        ("new_ok", not golden_gate.rate_blocked(context)),
                        ("cancel_ok", context.session_tokens > 0), ("equity_ok", context.equity_ok)):
        ctx.set(getattr(moment, name), value)


async def disturb(ctx, dut, rng):
    """Between two evaluations anything may stand on the inputs."""
    ctx.set(dut.at, 0)
    ctx.set(dut.params, {"ref_scale": rng.getrandbits(32), "px_min_ticks": rng.randrange(*TICKS),
                         "quote_lots": rng.getrandbits(24), "bid_en": rng.getrandbits(1)})
    for name in ("best_bid", "best_ask", "second_bid", "second_ask", "position", "entry_px"):
        ctx.set(getattr(dut.engine, name), rng.randrange(*TICKS))
    ctx.set(dut.limits.bid_live, rng.getrandbits(1))
    await ctx.tick().repeat(rng.randrange(1, 4))


def simulate(test):
    dut = Chain()

    async def testbench(ctx):
        await test(ctx, dut)

    simulated(dut, testbench)


def saturate(ticks):
    return max(TICKS[0], min(TICKS[1], ticks))


def _near(rng, around, share, spread=1):
    """A reference from which one of these prices is as far as the band allows, or a tick more; or just near them."""
    px = rng.choice(around) + rng.choice((0, 0, spread, -spread))
    edges = px * 65536 // (65536 + share), px * 65536 // (65536 - share) if share else px
    if len(around) > 1:
        px = rng.choice((px, px, *(edge + rng.choice((-1, 0, 1)) for edge in edges)))
    return max(0, min(TICKS[1], px))


def random_case(rng, *, calm=False):
    """Everything around values where something is decided; mostly at most one thing wrong. ``calm``: and mostly the
    book as it is decides."""
    wild = rng.random() < (.05 if calm else .15)

    def pick(good, *bad, p=.05):
        return rng.choice(bad) if rng.random() < (.3 if wild else p / 3 if calm else p) else good

    # Levels around a mid anywhere in the range of ticks; second levels a little off, sometimes crossed.
    mid = pick(15000, 200, -300, 0, TICKS[1] - 4000, TICKS[0] + 4000, rng.randrange(*TICKS))
    bid = mid + rng.randrange(-3, 3)
    ask = bid + pick(rng.choice((1, 2, 5)), 0, -1)
    levels = {"bid": [(pick(True, False, p=.03), bid), (pick(True, False), bid - pick(rng.choice((1, 2, 7)), 0, -3))],
              "ask": [(pick(True, False, p=.03), ask), (pick(True, False), ask + pick(rng.choice((1, 2, 7)), 0, -3))]}
    entry = rng.choice((bid, ask, mid)) + rng.choice((-3, -1, 0, 1, 2, 3))
    if wild and rng.random() < .4:
        corners = (*TICKS, TICKS[0] + 1, TICKS[1] - 1, 0, 1, -1, rng.randrange(*TICKS))
        levels = {side: [(known, rng.choice(corners)) for known, _ in of] for side, of in levels.items()}
        entry = rng.choice(corners)
    levels = {side: [(known, saturate(px)) for known, px in of] for side, of in levels.items()}
    entry = saturate(entry)

    q = pick(rng.choice((1, 5, 100)), 0, (1 << 24) - 1)
    row = {p.name: 0 for p in PARAMS}
    row |= {"sym_en": pick(1, 0, p=.02), "bid_en": pick(1, 0), "ask_en": pick(1, 0),
            "ref_scale": pick(1 << 23, 1 << 22, 12345678, U32, 0, 1),
            "half_spread_sub": pick(rng.choice((1, 128, 256, 300, 5000)), 0, (1 << 24) - 1, p=.02),
            "skew_q8": rng.choice((0, 256, 100, 65536, pick(0, (1 << 24) - 1))),
            "skew_max_sub": rng.choice((0, 256, 2560, I32[1])),
            "target_lots": pick(rng.randrange(-20, 20), *I32), "quote_lots": q,
            "q_min_lots": pick(0, q, q + 1 & 0xFF_FFFF, p=.03), "q_hard_lots": pick((1 << 24) - 1, q, max(0, q - 1)),
            "max_lots": pick(q, (1 << 24) - 1, max(0, q - 1)), "stale_cycles": pick(1, 0, p=.02)}
    position = rng.choice((0, 10, -10, rng.randrange(-30, 30), rng.choice(I32) if wild else 0))
    open_bid, open_ask = (rng.choice((0, q, 2 * q, rng.randrange(0, 40), U32 if wild else 0)) for _ in range(2))
    base = rng.getrandbits(32)
    state = golden.State(position=position, pos_valid=pick(True, False, p=.02), sent_bid=base + open_bid & U32,
                         settled_bid=base, sent_ask=base + open_ask & U32, settled_ask=base,
                         live_bid=rng.random() < .8, live_ask=rng.random() < .8, live_bid_lots=pick(q, 7) or 1,
                         live_ask_lots=pick(q, 7) or 1)
    for name, held, sent, kept in (("max_long_lots", position, open_bid, state.live_bid and state.live_bid_lots),
                                   ("max_short_lots", -position, open_ask, state.live_ask and state.live_ask_lots)):
        worst = held + sent + max(q, kept)
        row[name] = max(0, min(I32[1], pick(I32[1], worst, worst - 1, 0)))
    if not state.pos_valid:
        state.position = 0      # as the path has it

    # Limits and live prices around what one of the hypotheses would quote.
    case = Case(row, state, levels, entry, pick(True, False, p=.02), None)
    of = pick(SAME, *range(HYPOTHESES)) if calm else rng.randrange(HYPOTHESES)
    target = golden.candidate(case.params, *(best[1] for best in case.bests(of)), state.position)
    near = rng.choice((target.bid_ticks, target.ask_ticks))
    row["px_min_ticks"] = saturate(pick(TICKS[0], near, near + 1, near - 1, 1, 0, -1, *TICKS, p=.15))
    row["px_max_ticks"] = saturate(pick(TICKS[1], near, near + 1, near - 1, -1, 0, 1, *TICKS, p=.15))
    bound = min(TICKS[1], max(0, pick(TICKS[1], abs(near), abs(near) - 1, abs(near) + 1, 1, 0, p=.1)))
    notional = pick((1 << 48) - 1, bound * q, max(0, bound * q - 1), bound * q + 1, 0, p=.1)
    around = (target.mid, target.bid_ticks, target.ask_ticks, near) if wild or not calm else [target.mid]
    share = pick(rng.choice((0xFFFF, 0xFFFF, 655, 66)), 1, 0, p=.02), pick(rng.choice((0xFFFF, 655)), 1, 0, p=.02)
    row |= {"px_notional_ticks": bound, "bands": share[1] << 16 | share[0],
            "max_notional_lo": notional & U32, "max_notional_hi": notional >> 32}
    row["drift_band"] = pick(1, 0, p=.02)
    for name in ("toward_ticks", "away_ticks"):
        row[name] = rng.choice((0, 1, 2, 4, pick(1, TICKS[1])))
    offsets = (0, 0, 1, -1, 2, -2, -3, 4, -4)
    state.live_bid_ticks = pick(golden.wrap(target.bid_ticks + rng.choice(offsets), TICK_BITS), 0, *TICKS)
    state.live_ask_ticks = pick(golden.wrap(target.ask_ticks + rng.choice(offsets), TICK_BITS), 0, *TICKS)
    lot_value = pick(rng.choice((1, 256, rng.getrandbits(32))), 0, p=.02)
    amount = max(q, state.live_bid_lots * state.live_bid, state.live_ask_lots * state.live_ask) * lot_value

    def room(amount):
        """Mostly enough, else around it, nothing, or less."""
        room = pick(ROOM, amount, amount - 1, amount + 1, 0, -1, rng.randrange(-1 << 49, ROOM), p=.02)
        return min(ROOM, room)
    context = Context(state=pick(rng.choice((1, 1, 1, 2)), 0, 3), deadman_ok=pick(True, False),
                      limits_ok=pick(True, False), session_up=pick(True, False),
                      session_tokens=rng.choice((90, 90, 90, 26, 25, 0)), session_burst=100,
                      symbol_tokens=pick(5, 0, 1),
                      reference=pick(Reference(_near(rng, around, share[0]), _near(rng, around, share[1], 0),
                                               rng.choice((0, 0, 0, 1, -1, 5, rng.choice(TICKS))), lot_value),
                                     None, p=.03),
                      rooms=(room(2 * amount), room(amount), room(amount)),
                      live_elsewhere=rng.choice((0, 3, 20)), live_most=pick(1023, 5, 4, 22, 21, 0),
                      **{f"held_{side}": pick(0, *(1 << gate for gate in HOLDING if gate != 25), p=.02)
                         for side in ("bid", "ask")}, drifted=pick(False, True), young_bid=pick(False, True),
                      young_ask=pick(False, True), equity_ok=pick(True, False))
    context.killed = context.state == 3 or pick(False, True)
    return Case(row, state, levels, entry, case.fresh, context)


def test_converts():
    for component in (QuoteEngine(), Limits(), Hypotheses(), References(5), Gate(), Window(), Chain(), PinnedChain()):
        assert "module" in verilog.convert(component)


def test_verdict_on_every_hypothesis():
    """Before the trigger byte is there: for every book that it may make, what the golden model says of that book."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    tally = {h: {} for h in range(HYPOTHESES)}
    reasons = dict.fromkeys(range(HYPOTHESES), 0)

    async def test(ctx, dut):
        for _ in range(5000):
            case = random_case(rng)
            await evaluation(ctx, dut, case, rng)
            for h in range(HYPOTHESES):
                want = case.evaluate(h, case.everything_else_allows())
                verdict = dut.hypotheses.verdicts[h]
                got = bool(ctx.get(verdict.want)), bool(ctx.get(verdict.pull))
                actions = want.bid, want.ask
                assert got == (golden.REPLACE in actions, golden.PULL in actions), (h, want, case)
                tally[h][got] = tally[h].get(got, 0) + 1
                reasons[h] |= want.reasons
            pulled = golden.evaluate(case.params, case.state, (False, 0, 0), (False, 0, 0), case.fresh,
                                     case.everything_else_allows())
            assert ctx.get(dut.hypotheses.pull_all) == (golden.PULL in (pulled.bid, pulled.ask)), case
            if rng.random() < .3:
                await ctx.tick()
                await disturb(ctx, dut, rng)
            else:
                await ctx.tick()

    simulate(test)
    print(tally)
    for h in range(HYPOTHESES):
        assert len(tally[h]) == 4, (h, tally[h])
        assert min(tally[h].values()) > 100, (h, tally[h])
        assert reasons[h] == sum(1 << g for g in (0, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16, *HOLDING, 26)), (
            f"{h}: {reasons[h]:b}")


def test_against_pure_functions():
    """The decision on the book as it is, in any moment, and what leaves."""
    print(f"seed {SEED}")
    rng = random.Random(SEED + 1)
    outcomes, reasons_seen, actions, repeated = {}, 0, set(), 0

    async def test(ctx, dut):
        nonlocal reasons_seen, repeated
        engine, gate, window = dut.engine, dut.gate, dut.window
        for _ in range(4000):
            case = random_case(rng, calm=True)
            want = case.evaluate(SAME)
            await evaluation(ctx, dut, case, rng)
            assert (ctx.get(engine.bid), ctx.get(engine.ask)) == (
                want.candidate.bid_ticks, want.candidate.ask_ticks), case
            if case.context.reference is not None:
                assert (ctx.get(dut.limits.low), ctx.get(dut.limits.high)) == golden_gate.window(
                    case.params, case.context.reference), case
            await decide(ctx, dut, case)
            assert ctx.get(gate.reasons) == want.reasons & ~golden_gate.G8, (want, case)
            assert (ctx.get(gate.bid_ok), ctx.get(gate.ask_ok)) == (want.bid_ok, want.ask_ok), (want, case)
            assert ctx.get(gate.rate_blocked) == want.rate_blocked, (want, case)
            assert ctx.get(gate.emit) == want.emits, (want, case)
            if want.emits:
                assert ctx.get(gate.is_new) == (want.outcome == golden.SENT), (want, case)
                ctx.set(window.en, 1)
                await ctx.tick()
                ctx.set(window.en, 0)
                await ctx.tick()
                got = tuple(ctx.get(s) for s in (window.bid_ticks, window.bid_quantity, window.ask_ticks,
                                                 window.ask_quantity))
                assert got == (want.bid_ticks, want.bid_lots, want.ask_ticks, want.ask_lots), (want, case)
                # A side whose price is not allowed any more stays in the market only if there is no token to replace
                # it; what is repeated of it then is the nearest price that is.
                assert not ctx.get(window.clamped) or want.rate_blocked, (want, case)
                assert ctx.get(window.met) == bool(want.reasons & golden_gate.G8), (want, case)
                repeated += ctx.get(window.clamped)
            outcomes[want.outcome] = outcomes.get(want.outcome, 0) + 1
            reasons_seen |= want.reasons
            actions.update((want.bid, want.ask))

    simulate(test)
    print(outcomes, f"{reasons_seen:b}", repeated)
    assert set(outcomes) == {golden.HELD, golden.SENT, golden.PULLED, golden.DROPPED}
    assert min(outcomes.values()) > 50
    assert reasons_seen == sum(1 << g for g in (
        0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 16, *HOLDING, 22, 24, 26))
    assert actions == {golden.NONE, golden.KEEP, golden.REPLACE, golden.PULL}
    assert repeated


def test_results_stand_until_the_next_evaluation():
    """Whatever changes on the inputs meanwhile."""
    rng = random.Random(SEED + 2)

    async def test(ctx, dut):
        engine = dut.engine

        def results():
            return [ctx.get(s) for s in (engine.bid, engine.ask, dut.limits.low, dut.limits.high,
                                         dut.limits.bid.fixed, dut.limits.ask.reduces, dut.limits.bid_largest,
                                         dut.limits.ask.resize)]
        for _ in range(100):
            case = random_case(rng)
            await evaluation(ctx, dut, case, rng)
            await decide(ctx, dut, case)
            before = results()
            await disturb(ctx, dut, rng)
            await ctx.tick()
            assert results() == before
    simulate(test)

"""Quote engine and gate, one behind the other, against the golden model's pure functions."""

import random

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from hdl.control.params import PARAM_ROW
from hdl.control.registers import PARAMS
from hdl.gate.gate import Gate
from hdl.quote.engine import QuoteEngine
from sim.golden import quote as golden
from sim.golden.gate import Context

SEED = 11


class Chain(wiring.Component):
    """Engine into gate, as in the path."""

    def __init__(self):
        self.engine, self.gate = QuoteEngine(), Gate()
        super().__init__({"params": In(PARAM_ROW)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine, m.submodules.gate = engine, gate = self.engine, self.gate
        m.d.comb += [engine.params.eq(self.params), gate.params.eq(self.params), gate.bid.eq(engine.bid),
                     gate.ask.eq(engine.ask), gate.bid_fits.eq(engine.bid_ok), gate.ask_fits.eq(engine.ask_ok),
                     gate.position.eq(engine.position)]
        return m


def random_case(rng):
    """Parameters, state, bests and context around values where something is decided; mostly at most one thing wrong."""
    wild = rng.random() < .1

    def pick(good, *bad):
        return rng.choice(bad) if rng.random() < .05 else good

    mid = pick(15000, 200, -300, 2**31 - 2000) if not wild else rng.randrange(-2**31, 2**31 - 100)
    bid = mid + rng.randrange(-3, 3)
    ask = bid + pick(rng.choice((1, 2, 5)), 0, -1)
    q = rng.choice((1, 5, 100))
    row = {p.name: 0 for p in PARAMS}
    row |= {"sym_en": pick(1, 0), "bid_en": pick(1, 0), "ask_en": pick(1, 0),
            "ref_scale": pick(1 << 23, 1 << 22, 12345678, (1 << 32) - 1),
            "half_spread_sub": pick(rng.choice((1, 128, 256, 300, 5000)), 0),
            "skew_q8": rng.choice((0, 256, 100, 65536)), "skew_max_sub": rng.choice((0, 256, 2560, 2**31 - 1)),
            "target_lots": rng.randrange(-20, 20), "quote_lots": pick(q, 0),
            "toward_ticks": rng.choice((0, 1, 2, 4)), "away_ticks": rng.choice((0, 1, 3)),
            "px_min_ticks": pick(-2**31, 1, 15000), "px_max_ticks": pick(2**31 - 1, 15000, 0),
            "q_min_lots": pick(0, 1, 5), "q_hard_lots": pick(2**24 - 1, 5, q), "max_lots": pick(q, 2**24 - 1, 3),
            "max_notional_lo": pick(0xFFFFFFFF, 15000 * q, 0), "max_notional_hi": rng.choice((0, 1)),
            "max_long_lots": pick(2**31 - 1, 20, 10 + q), "max_short_lots": pick(2**31 - 1, 20, 10 + q),
            "stale_cycles": pick(1, 0)}
    position = rng.choice((0, 10, -10, rng.randrange(-30, 30), 2**31 - 1 if wild else 0))
    open_bid, open_ask = (rng.choice((0, q, 2 * q, rng.randrange(0, 40), 2**32 - 1 if wild else 0)) for _ in range(2))
    base = rng.getrandbits(32)
    state = golden.State(position=position, pos_valid=pick(True, False), sent_bid=base + open_bid & 0xFFFFFFFF,
                         settled_bid=base, sent_ask=base + open_ask & 0xFFFFFFFF, settled_ask=base,
                         live_bid=rng.random() < .8, live_ask=rng.random() < .8,
                         live_bid_lots=pick(q, 7), live_ask_lots=pick(q, 7))
    target = golden.candidate(golden.Params(**row), bid, ask, position)
    state.live_bid_ticks = golden.wrap(target.bid_ticks + rng.choice((0, 0, 1, -1, 2, -3, 4)), 32)
    state.live_ask_ticks = golden.wrap(target.ask_ticks + rng.choice((0, 0, 1, -1, 2, -3, 4)), 32)
    context = Context(state=pick(rng.choice((1, 1, 1, 2)), 0, 3), deadman_ok=pick(True, False),
                      session_up=pick(True, False), session_tokens=rng.choice((90, 90, 90, 26, 25, 0)),
                      session_burst=100, symbol_tokens=pick(5, 0, 1))
    context.killed = context.state == 3 or pick(False, True)
    bests = (pick(True, False), bid, 5), (pick(True, False), ask, 5)
    return row, state, bests, pick(True, False), context


def test_against_pure_functions():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    dut = Chain()
    outcomes, reasons_seen, actions = {}, 0, set()

    async def testbench(ctx):
        nonlocal reasons_seen
        for _ in range(3000):
            row, state, bests, fresh, context = random_case(rng)
            want = golden.evaluate(golden.Params(**row), state, *bests, fresh, context)
            ctx.set(dut.params, dict(row))
            engine, gate = dut.engine, dut.gate
            ctx.set(engine.best_bid, bests[0][1])
            ctx.set(engine.best_ask, bests[1][1])
            ctx.set(engine.position, state.position)
            book_ok = (fresh and row["stale_cycles"] != 0 and bests[0][0] and bests[1][0] and bests[0][1] < bests[1][1])
            for name, value in (("book_ok", book_ok), ("bid_live", state.live_bid), ("ask_live", state.live_ask),
                                ("position_known", state.pos_valid), ("open_bid", state.open_bid),
                                ("open_ask", state.open_ask), ("state", context.state),
                                ("kill_pin", context.killed and context.state != 3),
                                ("heartbeat_ok", context.deadman_ok), ("session_up", context.session_up),
                                ("new_ok", context.session_tokens > context.session_burst >> 2
                                 and context.symbol_tokens > 0)):
                ctx.set(getattr(gate, name), value)
            ctx.set(gate.live, {"bid_px": state.live_bid_ticks, "ask_px": state.live_ask_ticks,
                                "bid_lots": state.live_bid_lots, "ask_lots": state.live_ask_lots})
            await ctx.tick().repeat(QuoteEngine.LATENCY + 1)
            context_text = (row, state, bests, fresh, context, want)
            assert ctx.get(gate.reasons) == want.reasons, context_text
            assert (ctx.get(gate.bid_ok), ctx.get(gate.ask_ok)) == (want.bid_ok, want.ask_ok), context_text
            assert ctx.get(gate.rate_blocked) == want.rate_blocked, context_text
            emits = want.emits and context.session_up
            assert ctx.get(gate.emit) == emits, context_text
            if emits:
                assert ctx.get(gate.is_new) == (want.outcome == golden.SENT), context_text
                got = tuple(ctx.get(s) for s in (gate.bid_px, gate.bid_lots, gate.ask_px, gate.ask_lots))
                assert got == (want.bid_ticks, want.bid_lots, want.ask_ticks, want.ask_lots), context_text
                assert (ctx.get(gate.add_bid), ctx.get(gate.add_ask)) == (want.bid_lots, want.ask_lots)
            outcomes[want.outcome] = outcomes.get(want.outcome, 0) + 1
            reasons_seen |= want.reasons
            actions.update((want.bid, want.ask))

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()
    print(outcomes, f"{reasons_seen:b}")
    assert set(outcomes) == {golden.HELD, golden.SENT, golden.PULLED, golden.DROPPED}
    assert min(outcomes.values()) > 100
    assert reasons_seen == sum(1 << g for g in (0, 1, 3, 4, 5, 9, 10, 11, 14, 22, 24))
    assert actions == {golden.NONE, golden.KEEP, golden.REPLACE, golden.PULL}

"""Quote engine and gate: what is derived from what, and what blocks."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hdl.control.registers import ACTIVE, DISARMED, HALTED, PARAMS, REDUCING, TICK_LIMIT
from sim.golden import gate as g
from sim.golden.gate import Context, Reference
from sim.golden.quote import DROPPED, HELD, PULLED, SENT, Candidate, Params, State, candidate, evaluate

BID, ASK = (True, 10_000, 5), (True, 10_002, 5)
OPEN = {"sym_en": 1, "bid_en": 1, "ask_en": 1, "ref_scale": 128 << 16, "half_spread_sub": 512, "quote_lots": 5,
        "toward_ticks": 2, "away_ticks": 4, "px_min_ticks": 1, "px_max_ticks": 1 << 20, "q_min_lots": 1,
        "q_hard_lots": 50, "max_lots": 40, "max_notional_lo": 10_000_000, "px_notional_ticks": 2_000_000,
        "max_long_lots": 20, "max_short_lots": 20, "stale_cycles": 1000, "bands": 0xFFFF_FFFF, "drift_band": 0xFFFF}
NEAR = Reference(10_000, 10_000, lot_value=256)
#: What leaves room for two sides of 5 lots, and for one.
BOTH, ONE = 2 * 5 * 256, 5 * 256


def params(**changes):
    return Params(**(OPEN | changes))


def live(**changes):
    return State(**({"pos_valid": True, "live_bid": True, "live_ask": True, "live_bid_ticks": 9999,
                     "live_ask_ticks": 10_003, "live_bid_lots": 5, "live_ask_lots": 5} | changes))


def context(**changes):
    return Context(**({"state": ACTIVE, "deadman_ok": True, "killed": False, "session_up": True, "session_tokens": 10,
                       "session_burst": 12, "symbol_tokens": 1, "reference": NEAR, "live_most": 9, "held_bid": 0,
                       "held_ask": 0, "equity_ok": True, "limits_ok": True, "rooms": (1 << 40, 1 << 40, 1 << 40)}
                      | changes))


def refer(*values):
    return Reference(*values, **({} if len(values) > 3 else {"lot_value": 256}))


def decide(p=None, s=None, c=None, bid=BID, ask=ASK, fresh=True):
    return evaluate(p or params(), s or State(pos_valid=True), bid, ask, fresh, c or context())


# ---------------------------------------------------------------------- engine

def test_mid_and_half_spread():
    d = decide()
    assert (d.outcome, d.bid_ticks, d.ask_ticks, d.bid_lots, d.ask_lots) == (SENT, 9999, 10_003, 5, 5)


row = st.fixed_dictionaries({
    "ref_scale": st.integers(0, (1 << 32) - 1), "half_spread_sub": st.integers(0, (1 << 24) - 1),
    "skew_q8": st.integers(0, (1 << 24) - 1), "skew_max_sub": st.integers(0, (1 << 31) - 1),
    "target_lots": st.integers(-(1 << 31), (1 << 31) - 1)})
i32 = st.integers(-(1 << 31), (1 << 31) - 1)
ticks = st.integers(-TICK_LIMIT, TICK_LIMIT - 1)


@given(row, ticks, ticks, i32)
def test_rounding_is_away_from_the_market(values, bid, ask, position):
    """The quote is never narrower than asked for, and at most two ticks wider."""
    c = candidate(Params(**values), bid, ask, position)
    width = (c.ask_ticks - c.bid_ticks) * 256
    assert 2 * values["half_spread_sub"] <= width <= 2 * values["half_spread_sub"] + 510


@given(row, ticks, ticks, i32, st.integers(0, 1 << 20))
def test_more_position_never_raises_a_quote(values, bid, ask, position, more):
    assume(position + more < 1 << 31)
    one, two = (candidate(Params(**values), bid, ask, p) for p in (position, position + more))
    assert two.bid_ticks <= one.bid_ticks
    assert two.ask_ticks <= one.ask_ticks


@given(row, ticks, ticks)
def test_no_skew_at_the_target(values, bid, ask):
    at_target = candidate(Params(**values), bid, ask, values["target_lots"])
    assert at_target == candidate(Params(**(values | {"skew_q8": 0})), bid, ask, 0)


@given(row, ticks, ticks, i32)
def test_a_price_that_does_not_take_stays_on_its_side(values, bid, ask, position):
    """Between the best prices, in exact fractions; of one that is said to take, no more than rounding is missing."""
    c = candidate(Params(**values), bid, ask, position)
    scale = Fraction(values["ref_scale"], 1 << 23)      # feed ticks to quote ticks
    if bid < ask:
        assert c.bid_takes or c.bid_ticks < ask * scale or not values["half_spread_sub"]
        assert c.ask_takes or c.ask_ticks > bid * scale or not values["half_spread_sub"]
        assert not c.bid_takes or c.bid_ticks > ask * scale - 2
        assert not c.ask_takes or c.ask_ticks < bid * scale + 2


@given(row, ticks, ticks, i32)
def test_skew_is_clamped(values, bid, ask, position):
    skewed = candidate(Params(**values), bid, ask, position)
    plain = candidate(Params(**(values | {"skew_q8": 0})), bid, ask, position)
    assert abs(skewed.bid_ticks - plain.bid_ticks) * 256 <= values["skew_max_sub"] + 256


def test_prices_that_do_not_fit_a_word_are_blocked():
    """Whatever the limits: there is no limit that such a price could keep."""
    huge = TICK_LIMIT - 1
    widest = params(ref_scale=(1 << 32) - 1, px_min_ticks=-TICK_LIMIT, px_max_ticks=huge, px_notional_ticks=huge,
                    max_notional_lo=0xFFFF_FFFF, max_notional_hi=0xFFFF)
    for bid, ask in ((huge - 1, huge), (-TICK_LIMIT, -TICK_LIMIT + 1)):
        d = decide(widest, bid=(True, bid, 5), ask=(True, ask, 5))
        assert not -TICK_LIMIT <= d.candidate.bid_ticks <= huge
        assert d.reasons == g.G5 | g.G6 | g.G6C | g.G10


# ---------------------------------------------------------------------- what happens to each side

@pytest.mark.parametrize(("bid_moves", "action"), [
    (0, "keep"), (1, "keep"), (2, "replace"), (-3, "keep"), (-4, "replace")])
def test_thresholds_differ_by_direction(bid_moves, action):
    """2 ticks towards the market, 4 away from it. For the ask the signs are the other way round."""
    d = decide(s=live(live_bid_ticks=9999 - bid_moves, live_ask_ticks=10_003 + bid_moves))
    assert (d.bid, d.ask) == (action, action)
    assert d.outcome == (SENT if action == "replace" else HELD)


def test_a_threshold_of_zero_counts_as_one():
    p = params(toward_ticks=0, away_ticks=0)
    assert decide(p, live()).outcome == HELD
    assert decide(p, live(live_bid_ticks=9998)).bid == "replace"


def test_a_new_quantity_replaces():
    d = decide(s=live(live_bid_lots=4))
    assert (d.bid, d.ask, d.bid_lots, d.ask_lots) == ("replace", "keep", 5, 5)


def test_a_kept_side_is_repeated_as_it_is():
    d = decide(s=live(live_bid_ticks=9990, live_ask_ticks=10_002))
    assert (d.bid, d.ask) == ("replace", "keep")
    assert (d.ask_ticks, d.ask_lots) == (10_002, 5)


def test_a_side_that_fails_is_pulled_and_the_other_stays():
    d = decide(params(bid_en=0), live())
    assert (d.outcome, d.bid, d.ask, d.bid_lots, d.ask_lots) == (PULLED, "pull", "keep", 0, 5)
    assert d.reasons == g.G3


def test_without_tokens_nothing_is_replaced_but_sides_are_still_pulled():
    empty = context(symbol_tokens=0)
    moved = live(live_bid_ticks=9000)
    d = decide(s=moved, c=empty)
    assert (d.outcome, d.reasons, d.rate_blocked) == (DROPPED, g.G14, True)
    d = decide(params(ask_en=0), moved, empty)
    assert (d.outcome, d.bid, d.ask, d.bid_ticks, d.bid_lots) == (PULLED, "keep", "pull", 9000, 5)
    assert decide(s=moved, c=context(session_tokens=3)).reasons == g.G14    # a quarter of 12 is kept for cancels
    assert decide(s=moved, c=context(session_tokens=4)).outcome == SENT


def test_without_a_session_nothing_is_emitted():
    for s in (State(pos_valid=True), live(), live(live_bid_ticks=1)):
        d = decide(params(bid_en=0), s, context(session_up=False))
        assert (d.outcome, d.emits) == (DROPPED, False)
        assert d.reasons & g.S0


# ---------------------------------------------------------------------- gates

def test_everything_blocks_after_reset():
    d = evaluate(Params(), State(), (False, 0, 0), (False, 0, 0), False, Context())
    assert d.reasons == (g.G0 | g.G1 | g.G2 | g.G3 | g.G4 | g.G5 | g.G6 | g.G6C | g.G7 | g.G10 | g.G11 | g.G12
                         | g.G13 | g.G15 | g.G22 | g.G6B | g.S0)
    assert d.outcome == DROPPED


@pytest.mark.parametrize("name", [p.name for p in PARAMS if p.name in OPEN and p.name not in (
    "toward_ticks", "away_ticks", "ref_scale", "px_min_ticks", "q_min_lots")])
def test_every_limit_of_zero_blocks(name):
    assert decide().outcome == SENT
    d = decide(params(**{name: 0}))
    assert d.reasons, name
    if name not in ("bid_en", "ask_en", "max_long_lots", "max_short_lots"):
        assert d.outcome == DROPPED


@pytest.mark.parametrize(("reason", "change"), [
    (g.G0, {"c": context(state=DISARMED)}), (g.G0 | g.G22, {"c": context(state=HALTED, killed=True)}),
    (g.G1, {"c": context(deadman_ok=False)}), (g.G2, {"c": context(limits_ok=False)}),
    (g.G22, {"c": context(killed=True)}),
    (g.G3, {"p": params(sym_en=0)}), (g.G4, {"fresh": False}), (g.G4, {"bid": (False, 10_000, 5)}),
    (g.G4, {"bid": (True, 10_002, 5)}), (g.G4, {"p": params(stale_cycles=0)}),
    (g.G5, {"p": params(px_max_ticks=10_002)}), (g.G5, {"p": params(px_min_ticks=10_000)}),
    (g.G5, {"p": params(q_min_lots=6)}), (g.G5, {"p": params(q_hard_lots=4)}), (g.G5, {"p": params(half_spread_sub=0)}),
    (g.G9, {"p": params(max_lots=4)}), (g.G10, {"p": params(max_notional_lo=2_000_000 * 5 - 1)}),
    (g.G10, {"p": params(px_notional_ticks=10_002)}), (g.G10, {"p": params(px_notional_ticks=0)}),
    (g.G11, {"s": State()}), (g.G11, {"p": params(max_long_lots=4)}),
    (g.G11, {"s": State(pos_valid=True, position=-16)}), (g.G11, {"s": State(pos_valid=True, sent_bid=16)}),
    (g.G6 | g.G6C | g.G12 | g.G13, {"c": context(reference=None)}),
    (g.G6 | g.G6C, {"c": context(reference=refer(0, 10_000))}),
    (g.G6 | g.G6C, {"c": context(reference=refer(10_000, 0))}), (g.G6 | g.G6C, {"p": params(bands=0xFFFF)}),
    (g.G6 | g.G6C, {"p": params(bands=0xFFFF_0000)}),
    (g.G6, {"c": context(reference=refer(10_200, 10_000)), "p": params(bands=0xFFFF_0000 | 655)}),
    (g.G6C, {"c": context(reference=refer(10_000, 10_000, 10_005))}),
    (g.G7, {"p": params(skew_q8=256 * 256, skew_max_sub=1 << 20), "s": State(pos_valid=True, position=3)}),
    (g.G7, {"p": params(skew_q8=256 * 256, skew_max_sub=1 << 20), "s": State(pos_valid=True, position=-3)}),
    (g.G12, {"c": context(equity_ok=False)}),
    (g.G12, {"c": context(rooms=(BOTH - 1, ONE, ONE))}), (g.G13, {"c": context(rooms=(BOTH, ONE - 1, ONE))}),
    (g.G13, {"c": context(rooms=(BOTH, ONE, ONE - 1))}),
    (g.G12, {"c": context(rooms=(BOTH, BOTH, BOTH)), "s": live(live_ask_lots=6)}),
    (g.G12 | g.G13, {"c": context(reference=Reference(10_000, 10_000))}),
    (g.G13, {"c": context(live_most=1)}), (g.G13, {"c": context(live_elsewhere=8)}),
    *((gate, {"c": context(held_bid=gate, held_ask=gate)}) for gate in (g.G15, g.G17, g.G18, g.G20)),
    (g.G6B, {"c": context(drifted=True)}), (g.G6B, {"c": context(held_bid=g.G6B, held_ask=g.G6B)}),
    (g.G6B, {"p": params(drift_band=0)}),
])
def test_each_gate_alone(reason, change):
    d = decide(**change)
    assert d.reasons == reason


@pytest.mark.parametrize(("position", "passes"), [(5, "ask"), (-5, "bid"), (4, None), (-4, None)])
def test_a_drift_lets_pass_what_reduces(position, passes):
    """As REDUCING does: five lots against five, and not against four. Without limits nothing passes."""
    s = State(pos_valid=True, position=position)
    for c in (context(drifted=True), context(state=REDUCING)):
        d = decide(s=s, c=c)
        assert (d.bid_ok, d.ask_ok) == (passes == "bid", passes == "ask")
        assert d.reasons == (g.G6B if c.drifted else g.G0)
    for change in ({"p": params(drift_band=0)}, {"c": context(held_bid=g.G6B, held_ask=g.G6B)}):
        d = decide(s=s, **change)
        assert not d.bid_ok
        assert not d.ask_ok


@pytest.mark.parametrize(("side", "sign"), [("bid", 1), ("ask", -1)])
def test_a_young_side_does_not_move_towards_the_market(side, sign):
    """It is kept, and that is said; it moves away, changes its size, leaves its window and is pulled at any age."""
    young = context(**{f"young_{side}": True})
    target = getattr(decide(), f"{side}_ticks")

    def action(ticks, c=young, **changes):
        d = decide(params(**changes), live(**{f"live_{side}_ticks": ticks}), c)
        return getattr(d, side), d.reasons, d.outcome

    nearer = target - 2 * sign      # it stands two ticks behind where it should be
    assert action(nearer) == ("keep", g.G16, HELD)
    assert action(nearer, context()) == ("replace", 0, SENT)
    assert action(nearer, toward_ticks=3) == ("keep", 0, HELD)
    assert action(target) == ("keep", 0, HELD)
    assert action(target + 4 * sign) == ("replace", 0, SENT)
    assert action(nearer, quote_lots=4)[:2] == ("replace", 0)
    edge = {"px_min_ticks": target} if side == "bid" else {"px_max_ticks": target}
    assert action(nearer, **edge) == ("replace", 0, SENT)
    assert action(nearer, **{f"{side}_en": 0}) == ("pull", g.G3, PULLED)
    assert action(nearer, context(**{f"young_{side}": True}, session_tokens=0)) == ("keep", g.G16, HELD)
    assert action(nearer, context(**{f"young_{side}": True}, killed=True))[:2] == ("pull", g.G22)
def test_what_fits_exactly_passes_and_what_reduces_may_be_too_much():
    assert decide(c=context(rooms=(BOTH, ONE, ONE))).reasons == 0
    d = decide(c=context(rooms=(-1, ONE, ONE)), s=State(pos_valid=True, position=-5))
    assert (d.reasons, d.bid_ok, d.ask_ok) == (g.G12, True, False)
    d = decide(c=context(rooms=(BOTH, -1, ONE)), s=State(pos_valid=True, position=-5))
    assert (d.reasons, d.bid_ok, d.ask_ok) == (g.G13, False, True)


def test_a_negative_price_has_a_notional_too():
    p = {"px_min_ticks": -20_000, "px_max_ticks": 20_000}
    sides = {"bid": (True, -10_002, 5), "ask": (True, -10_000, 5)}
    assert decide(params(**p, px_notional_ticks=10_003), **sides).reasons == g.G6 | g.G6C    # no reference is negative
    assert decide(params(**p, px_notional_ticks=10_002), **sides).reasons == g.G6 | g.G6C | g.G10


def test_bands_at_their_ends():
    """655 of 65,536 are a bit less than 1 %, and the distance is rounded down. The quote is 9,999 to 10,003."""
    one = params(bands=655 << 16 | 655)
    for value, passes in ((9_904, False), (9_905, True), (10_099, True), (10_100, False)):
        assert (decide(one, c=context(reference=refer(value, 10_001))).reasons == 0) == passes, value
    for local, basis, passes in ((10_001, 0, True), (10_001, 99, True), (10_001, 100, False), (10_001, -98, True),
                                 (10_001, -99, False), (5_001, 5_000, True), (5_001, 5_049, True),
                                 (5_001, 5_050, False)):
        d = decide(one, c=context(reference=refer(10_000, local, basis)))
        assert (d.reasons == 0) == passes, (local, basis)


@given(st.integers(1, TICK_LIMIT - 1), st.integers(1, 0xFFFF), ticks)
def test_collar_is_never_wider_than_it_says(value, share, px):
    low, high = Reference(value, 1).collar(Params(bands=share))
    if low <= px <= high:
        assert abs(px - value) << 16 <= value * share
    elif px < TICK_LIMIT:
        assert abs(px - value) + 1 << 16 > value * share


def test_the_side_that_leans_on_the_market_is_held_back():
    """The book is two ticks wide, the half spread is two: a skew of more than four ticks would take."""
    p = params(skew_q8=256 * 256, skew_max_sub=1 << 20)
    for position, bid_ok, ask_ok in ((-3, False, True), (-2, True, True), (2, True, True), (3, True, False)):
        d = decide(p, State(pos_valid=True, position=position))
        assert (d.bid_ok, d.ask_ok) == (bid_ok, ask_ok), position


moves = st.integers(-40, 40)


@given(st.integers(1, 1200), st.integers(0, 30), st.integers(0, 30), st.lists(moves, min_size=1, max_size=30))
def test_what_leaves_never_meets_itself(half, toward, away, steps):
    """G8: whatever the thresholds, and whatever is kept."""
    p, s, mid = params(half_spread_sub=half, toward_ticks=toward, away_ticks=away), State(pos_valid=True), 10_001
    p.max_long_lots = p.max_short_lots = 1 << 30
    for move in steps:
        mid += move
        d = evaluate(p, s, (True, mid - 1, 1), (True, mid + 1, 1), True, context())
        if d.emits:
            assert not d.bid_lots or not d.ask_lots or d.bid_ticks < d.ask_ticks
            s.live_bid, s.live_bid_ticks, s.live_bid_lots = d.bid_lots > 0, d.bid_ticks, d.bid_lots
            s.live_ask, s.live_ask_ticks, s.live_ask_lots = d.ask_lots > 0, d.ask_ticks, d.ask_lots


@given(st.integers(1, 1000), st.integers(0, 10 ** 6), ticks)
def test_the_hosts_bound_makes_the_notional_exact(lots, notional, price):
    """px_notional_ticks = floor(max_notional / quote_lots): a price passes if its notional does."""
    bound = notional // lots
    p = params(quote_lots=lots, q_hard_lots=lots, max_lots=lots, max_long_lots=lots, max_short_lots=lots,
               px_min_ticks=-TICK_LIMIT, px_max_ticks=TICK_LIMIT - 1, max_notional_lo=notional, px_notional_ticks=bound)
    for px in (price, bound, bound + 1, -bound, -bound - 1):
        bid, ask = g.gate(p, State(pos_valid=True), Candidate(px, px, 10_000), True, context())
        assert (bid | ask) & ~(g.G6 | g.G10) == 0
        assert (not bid & g.G10) == (bound > 0 and abs(px) * lots <= notional)


@given(ticks, ticks, st.integers(0, TICK_LIMIT - 1), ticks, st.integers(1, TICK_LIMIT - 1), st.integers(1, 0xFFFF))
def test_window_is_what_passes(low, high, bound, px, value, share):
    p = params(px_min_ticks=low, px_max_ticks=high, px_notional_ticks=bound, quote_lots=1, max_notional_hi=1,
               bands=0xFFFF_0000 | share)
    reference = Reference(value, 1)
    least, most = g.window(p, reference)
    edges = least, most, least - 1, most + 1, *reference.collar(p)
    for price in (px, low, high, bound, -bound, 0, 1, -1, value, *edges):
        if -TICK_LIMIT <= price < TICK_LIMIT:
            bid, _ = g.gate(p, State(pos_valid=True), Candidate(price, price), True, context(reference=reference))
            assert (least <= price <= most and bound > 0) == (not bid & (g.G5 | g.G6 | g.G10))


def test_a_price_that_is_not_allowed_any_more_is_replaced():
    """However little the target has moved; without a token the nearest allowed price stays."""
    p = params(px_max_ticks=10_003, toward_ticks=9, away_ticks=9)
    d = decide(p, live(live_ask_ticks=10_004))
    assert (d.ask, d.ask_ticks, d.bid) == ("replace", 10_003, "keep")
    d = decide(params(px_max_ticks=10_003, bid_en=0), live(live_ask_ticks=10_004), context(symbol_tokens=0))
    assert (d.outcome, d.ask, d.ask_ticks, d.bid) == (PULLED, "keep", 10_003, "pull")


def test_an_empty_window_quotes_nothing():
    d = decide(params(px_min_ticks=10_010, px_max_ticks=10_001), live())
    assert (d.outcome, d.bid, d.ask, d.bid_lots, d.ask_lots) == (PULLED, "pull", "pull", 0, 0)


def test_limits_are_inclusive():
    assert decide(params(max_notional_lo=10_003 * 5, px_notional_ticks=10_003, max_lots=5, q_hard_lots=5,
                         q_min_lots=5, px_max_ticks=10_003, px_min_ticks=9999, max_long_lots=5,
                         max_short_lots=5)).reasons == 0


def test_reducing_lets_only_the_side_through_that_strictly_reduces():
    c = context(state=REDUCING)
    for position, sent, bid_ok, ask_ok in ((0, 0, False, False), (-5, 0, True, False), (-4, 0, False, False),
                                           (5, 0, False, True), (-9, 5, False, False), (-10, 5, True, False)):
        d = decide(s=State(position=position, pos_valid=True, sent_bid=sent, sent_ask=sent), c=c)
        assert (d.bid_ok, d.ask_ok) == (bid_ok, ask_ok), (position, sent)


def test_without_equity_only_what_reduces_goes():
    c = context(equity_ok=False)
    for position, bid_ok, ask_ok in ((0, False, False), (-5, True, False), (5, False, True)):
        d = decide(s=State(position=position, pos_valid=True), c=c)
        assert (d.bid_ok, d.ask_ok, d.reasons) == (bid_ok, ask_ok, g.G12), position


def test_more_settled_than_sent_blocks():
    """The open quantity is modulo 2^32, so that a wrong settlement makes it huge."""
    assert decide(s=State(pos_valid=True, settled_bid=1, settled_ask=1)).reasons == g.G11


@given(st.lists(st.tuples(st.sampled_from(("quote", "fill bid", "fill ask", "report", "size")), st.integers(0, 30),
                          st.integers(9_000, 11_000)), max_size=40))
def test_exposure_never_passes_the_caps(steps):
    """Whatever is filled and whenever the host reports it: position plus all that may still fill stays inside."""
    p, s = params(max_lots=60, q_hard_lots=60), State(pos_valid=True)
    bought = sold = 0   # truth at the venue, which the host reports late
    for step, n, mid in steps:
        if step == "quote":
            d = evaluate(p, s, (True, mid - 1, 1), (True, mid + 1, 1), True, context(symbol_tokens=9))
            if d.emits:
                s.sent_bid += d.bid_lots    # what is repeated may be filled up: it counts again
                s.sent_ask += d.ask_lots
                s.live_bid, s.live_bid_ticks, s.live_bid_lots = d.bid_lots > 0, d.bid_ticks, d.bid_lots
                s.live_ask, s.live_ask_ticks, s.live_ask_lots = d.ask_lots > 0, d.ask_ticks, d.ask_lots
        elif step == "fill bid":
            bought += min(n, s.sent_bid - bought)
        elif step == "fill ask":
            sold += min(n, s.sent_ask - sold)
        elif step == "report":
            s.position, s.settled_bid, s.settled_ask = bought - sold, bought, sold
        else:
            p.quote_lots = n
        # The worst case: everything that was ever sent on one side trades, and nothing more on the other.
        assert s.sent_bid - sold <= p.max_long_lots
        assert s.sent_ask - bought <= p.max_short_lots
        assert s.position + s.open_bid <= p.max_long_lots
        assert -s.position + s.open_ask <= p.max_short_lots

"""The gate as it is defined, one function a gate: on arrays, a case an element, with nothing of how the fabric does it.

A gate is what has to be true of a side for it to pass. It is given ``c``, the case (fields of :data:`CASE`), ``b``, the
book that is judged and what follows from it for both sides, and ``s``, one side of it. Everything fits into 64 bits:
the widest products are a position times a skew and a sum of prices times a scale, 57 bits each.
"""

from types import SimpleNamespace

import numpy as np

from hdl.control.registers import ACTIVE, HALTED, REDUCING, TICK_LIMIT
from hdl.gate.holds import HOLDING
from hdl.quote.engine import ASK_PX, ASK_SECOND, BID_PX, BID_SECOND, HYPOTHESES, SAME
from tests.hdl.quote.chain import ROW
from tests.random_gate.verilated import GIVEN, SEEN

__all__ = ["CASE", "GATES", "MOMENT", "RATE", "SESSION", "columns", "decide", "given", "judge", "reasons", "views"]

#: A case: the row, the book and the entry that comes, state and moment; booleans are 0 or 1. ``live_elsewhere``: live
#: sides of other instruments. ``reference_known``: the instrument has one.
CASE = np.dtype([(name, np.int64) for name in (
    *ROW, "stale_cycles", "fresh", "bid_known", "best_bid", "second_bid_known", "second_bid", "ask_known", "best_ask",
    "second_ask_known", "second_ask", "entry_px",
    "position", "position_known", "sent_bid", "sent_ask", "settled_bid", "settled_ask", "bid_live", "ask_live",
    "live_bid_px", "live_ask_px", "live_bid_lots", "live_ask_lots", "live_elsewhere", "live_most",
    "held_bid", "held_ask", "off", "bid_young", "ask_young", "reference_known", "reference_value", "reference_local",
    "reference_basis", "reference_lot_value", "room_gross", "room_bid", "room_ask",
    "state", "kill_pin", "heartbeat_ok", "limits_ok", "session_up", "equity_ok",
    "session_tokens", "session_burst", "symbol_tokens")])

U32 = 0xFFFF_FFFF
#: A band is a fraction of 2^16.
BAND = 1 << 16
RATE, LIFE, SESSION = 14, 16, 24


# ------------------------------------------------------------------------------------------------------------- gates

def _reduces(s):
    """Even if all that is open trades the position does not grow or change its sign."""
    return (s.held < 0) & (s.held + s.open + s.most <= 0)


def g0_state(c, b, s):
    return (c.state == ACTIVE) | ((c.state == REDUCING) & _reduces(s))


def g1_dead_man(c, b, s):
    return c.heartbeat_ok != 0


def g2_integrity(c, b, s):
    return c.limits_ok != 0


def g3_permission(c, b, s):
    return (c.sym_en != 0) & (s.enabled != 0)


def g4_data(c, b, s):
    return (c.fresh != 0) & (c.stale_cycles != 0) & (b.bid_known != 0) & (b.ask_known != 0) & (b.best_bid < b.best_ask)


def g5_sanity(c, b, s):
    size = (c.q_min_lots <= c.quote_lots) & (c.quote_lots <= c.q_hard_lots) & (c.quote_lots != 0)
    spans_zero = (c.px_min_ticks < 0) & (c.px_max_ticks > 0)
    price = (c.px_min_ticks <= s.px) & (s.px <= c.px_max_ticks) & ((s.px != 0) | spans_zero)
    return size & price & (c.half_spread_sub != 0)


def g6_collar(c, b, s):
    """No further from the reference than the band, and a price that there is."""
    distance = abs(s.px - c.reference_value)
    return b.reference_ok & (distance <= c.reference_value * b.collar // BAND) & (s.px < TICK_LIMIT)


def g6c_basis(c, b, s):
    """All of the whole tick in which the feed's mid lies is within the pull band of local price and basis."""
    away, most = b.mid - c.reference_local - c.reference_basis, c.reference_local * b.pull // BAND
    return b.reference_ok & (-away <= most) & (away < most)


def g7_post_only(c, b, s):
    """Skew and half spread keep it from the other side of the book."""
    return b.room > s.lean - c.half_spread_sub


def g9_quantity(c, b, s):
    return c.quote_lots <= c.max_lots


def g10_notional(c, b, s):
    """Up to a price for which the host vouches; the fabric checks what it says."""
    bound = c.px_notional_ticks
    return (bound != 0) & (bound * c.quote_lots <= b.max_notional) & (abs(s.px) <= bound)


def g11_position(c, b, s):
    """Position, everything sent and not settled, and what may leave: a side that is live may be repeated."""
    return (c.position_known != 0) & (s.held + s.open + s.most <= s.cap)


def g12_equity(c, b, s):
    """Equity is known, and both sides at once fit into what everything leaves."""
    return ((c.equity_ok != 0) & b.valued & (2 * b.amount <= c.room_gross)) | _reduces(s)


def g13_open_load(c, b, s):
    return (c.live_elsewhere + c.bid_en + c.ask_en <= c.live_most) & b.valued & (b.amount <= s.room)


def g14_rate(c):
    """A quarter of the session's tokens is for cancels."""
    return (c.session_tokens > c.session_burst // 4) & (c.symbol_tokens > 0)


def _holds(n):
    """G15, G17, G18, G20, the *n*-th of those that hold."""
    def gate(c, b, s):
        return ((s.held_by | c.off) >> n & 1) == 0
    return gate


def g6b_drift(c, b, s):
    """What the reference has drifted keeps a side only that does not reduce; without limits nothing passes."""
    bit = HOLDING.index(25)
    return (c.drift_band != 0) & ((c.off >> bit & 1) == 0) & (((s.held_by >> bit & 1) == 0) | _reduces(s))


def g22_kill(c, b, s):
    return (c.state != HALTED) & (c.kill_pin == 0)


def s0_session(c, b, s):
    return c.session_up != 0


#: By the bit of its reason. G14 is of both sides together, and G8 of what leaves: see :func:`decide`.
GATES = {0: g0_state, 1: g1_dead_man, 2: g2_integrity, 3: g3_permission, 4: g4_data, 5: g5_sanity, 6: g6_collar,
         7: g7_post_only, 9: g9_quantity, 10: g10_notional, 11: g11_position, 12: g12_equity, 13: g13_open_load,
         **{gate: _holds(n) for n, gate in enumerate(HOLDING)}, 22: g22_kill, 25: g6b_drift,
         SESSION: s0_session, 26: g6c_basis}
#: What can change in any cycle.
MOMENT = (1, 2, 22, SESSION)


# ---------------------------------------------------------------------------------------------------------- decision

def columns(cases):
    """The fields of an array of :data:`CASE` by name, each an array of its own."""
    return SimpleNamespace(**{name: np.ascontiguousarray(cases[name]) for name in CASE.names})


def views(c, hypothesis=SAME):
    """(book, bid, ask): what the gates are asked about if a hypothesis comes true."""
    best_bid, bid_known, best_ask, ask_known = c.best_bid, c.bid_known, c.best_ask, c.ask_known
    if hypothesis == BID_PX:
        best_bid, bid_known = c.entry_px, np.ones_like(bid_known)
    elif hypothesis == BID_SECOND:
        best_bid, bid_known = c.second_bid, c.second_bid_known
    elif hypothesis == ASK_PX:
        best_ask, ask_known = c.entry_px, np.ones_like(ask_known)
    elif hypothesis == ASK_SECOND:
        best_ask, ask_known = c.second_ask, c.second_ask_known
    best_bid, best_ask = np.where(bid_known, best_bid, 0), np.where(ask_known, best_ask, 0)

    reference = (best_bid + best_ask) * c.ref_scale // (1 << 16)       # 1/256 ticks, as all of these
    skew = (c.position - c.target_lots) * c.skew_q8 // (1 << 8)
    skew = np.clip(skew, -c.skew_max_sub, c.skew_max_sub)
    collar, pull = c.bands % BAND, c.bands // BAND
    book = SimpleNamespace(
        best_bid=best_bid, best_ask=best_ask, bid_known=bid_known, ask_known=ask_known, mid=reference // 256,
        room=(best_ask - best_bid) * c.ref_scale // (1 << 16), collar=collar, pull=pull,
        max_notional=c.max_notional_hi * (1 << 32) + c.max_notional_lo,
        reference_ok=((c.reference_known != 0) & (c.reference_value != 0) & (c.reference_local != 0) & (collar != 0)
                      & (pull != 0)),
        # The most that either side may say, at the value of a lot.
        valued=(c.reference_known != 0) & (c.reference_lot_value != 0),
        amount=np.maximum(c.quote_lots, np.maximum(np.where(c.bid_live, c.live_bid_lots, 0),
                                                   np.where(c.ask_live, c.live_ask_lots, 0))) * c.reference_lot_value)

    def side(name, sign, px, cap):
        live, live_lots = getattr(c, f"{name}_live"), getattr(c, f"live_{name}_lots")
        return SimpleNamespace(
            px=px, sign=sign, enabled=getattr(c, f"{name}_en"), live=live, live_px=getattr(c, f"live_{name}_px"),
            live_lots=live_lots, held=sign * c.position, lean=-sign * skew, cap=cap,
            held_by=getattr(c, f"held_{name}"), young=getattr(c, f"{name}_young"), room=getattr(c, f"room_{name}"),
            open=(getattr(c, f"sent_{name}") - getattr(c, f"settled_{name}")) & U32,
            most=np.maximum(c.quote_lots, np.where(live, live_lots, 0)))

    return (book, side("bid", 1, (reference - skew - c.half_spread_sub) // 256, c.max_long_lots),
            side("ask", -1, -(-(reference - skew + c.half_spread_sub) // 256), c.max_short_lots))


def reasons(c, b, s):
    """Bitmap of the gates that a side fails; G14 is not among them."""
    failed = np.zeros_like(c.state)
    for bit, passes in GATES.items():
        failed |= np.where(passes(c, b, s), 0, 1 << bit)
    return failed


def _window(c, b):
    """(lowest, highest) price that passes G5, G6 and G10."""
    lowest = np.where(c.px_min_ticks == 0, 1, c.px_min_ticks)
    highest = np.where(c.px_max_ticks == 0, -1, c.px_max_ticks)
    value = np.where(c.reference_known, c.reference_value, 0)
    collar = value * b.collar // BAND
    return (np.maximum(np.maximum(lowest, -c.px_notional_ticks), value - collar),
            np.minimum(np.minimum(highest, c.px_notional_ticks), np.minimum(value + collar, TICK_LIMIT - 1)))


def judge(c, b, s, failed):
    """(replace, keep, pull, wait) of a side that fails those gates, if there are tokens; ``wait``: it is kept for its
    age alone (G16)."""
    ok = failed & ~(1 << SESSION) == 0
    low, high = _window(c, b)
    closer = s.sign * (s.px - s.live_px)
    both_half_spreads = -(-2 * c.half_spread_sub // 256)       # G8: a side that is kept is never in the other's way
    nears = closer >= np.maximum(c.toward_ticks, 1)
    moved = ((nears & (s.young == 0))
             | (-closer >= np.minimum(np.maximum(c.away_ticks, 1), both_half_spreads)))
    unfit = (s.live == 0) | (s.live_lots != c.quote_lots) | (s.live_px < low) | (s.live_px > high)
    replace = ok & (unfit | moved)
    return replace, ok & ~replace, ~ok & (s.live != 0), ok & ~unfit & nears & (s.young != 0)


def _verdict(c, hypothesis):
    """(want, pull) of a hypothesis, all gates of the moment passed."""
    book, *sides = views(c, hypothesis)
    moment = sum(1 << bit for bit in MOMENT)
    calm = SimpleNamespace(**vars(c) | {"state": np.where(c.state == REDUCING, REDUCING, ACTIVE)})
    of = [judge(c, book, s, reasons(calm, book, s) & ~moment) for s in sides]
    return of[0][0] | of[1][0], of[0][2] | of[1][2]


def decide(cases):
    """What the gateware has to say of an array of :data:`CASE`: (array of SEEN, [bid reasons, ask reasons]).

    What a frame would say is asked of the window whether one has to leave or not.
    """
    c = columns(cases)
    out = {}
    verdicts = [_verdict(c, hypothesis) for hypothesis in range(HYPOTHESES)]
    out["want"], out["pull"] = (sum(v[n].astype(np.int64) << h for h, v in enumerate(verdicts)) for n in (0, 1))
    out["pull_all"] = (c.bid_live != 0) | (c.ask_live != 0)

    book, bid, ask = views(c)
    low, high = out["low"], out["high"] = _window(c, book)
    failed = [reasons(c, book, s) for s in (bid, ask)]
    judged = [judge(c, book, s, f) for s, f in zip((bid, ask), failed, strict=True)]
    tokens, some = g14_rate(c), judged[0][0] | judged[1][0]
    out["rate_blocked"] = blocked = some & ~tokens
    out["reasons"] = (failed[0] | failed[1] | np.where(blocked, 1 << RATE, 0)
                      | np.where(judged[0][3] | judged[1][3], 1 << LIFE, 0))
    out["is_new"] = some & tokens
    out["emit"] = ((some & tokens) | judged[0][2] | judged[1][2]) & (c.session_up != 0)
    quoted = []
    for name, s, f, (replace, keep, _, _) in zip(("bid", "ask"), (bid, ask), failed, judged, strict=True):
        replace, keep = replace & tokens, (keep | replace & ~tokens) & (s.live != 0)
        px, lots = np.where(replace, s.px, s.live_px), np.where(replace, c.quote_lots, s.live_lots)
        out[f"{name}_px"], out[f"{name}_ok"] = s.px, f & ~(1 << SESSION) == 0
        quoted.append((px, np.where(replace | keep, lots, 0)))
    out["clamped"] = np.zeros_like(tokens)
    for px, lots in quoted:
        out["clamped"] = out["clamped"] | ((lots > 0) & ((px < low) | (px > high)))
    quoted = [(np.minimum(np.maximum(px, low), high), np.where(low <= high, lots, 0)) for px, lots in quoted]
    (bid_px, bid_lots), (ask_px, ask_lots) = quoted
    out["met"] = met = (bid_lots > 0) & (ask_lots > 0) & (bid_px >= ask_px)
    for name, (px, lots) in zip(("bid", "ask"), quoted, strict=True):
        leaves = (lots > 0) & ~met
        out[f"{name}_ticks"], out[f"{name}_quantity"] = np.where(leaves, px, 0), np.where(leaves, lots, 0)

    result = np.zeros(len(cases), SEEN)
    for name in SEEN.names:
        result[name] = out[name]
    return result, failed


def given(cases):
    """What stands on the inputs of the chain, as an array of GIVEN: what a case says, and what the path makes of it."""
    c = columns(cases)
    rows = np.zeros(len(cases), GIVEN)
    for name in GIVEN.names:
        if name in CASE.names:
            rows[name] = cases[name]
    rows["best_bid"], rows["best_ask"] = np.where(c.bid_known, c.best_bid, 0), np.where(c.ask_known, c.best_ask, 0)
    rows["address"], rows["commit"] = c.reference_known == 0, c.reference_known
    rows["live_sides"] = c.live_elsewhere + c.bid_live + c.ask_live
    rows["reducing"], rows["new_ok"] = (c.state == REDUCING) | (c.equity_ok == 0), g14_rate(c)
    rows["book_ok"] = sum(g4_data(c, views(c, h)[0], None).astype(np.int64) << h for h in range(HYPOTHESES))
    return rows

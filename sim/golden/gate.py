"""The gate as a pure function: which limits a candidate breaks, side by side.

Every gate is evaluated on every candidate; none hides another. A limit of zero blocks. The result is one bitmap of
reasons per side, bit *g* for gate G*g* (bit 24: no order session); a gate that concerns the whole candidate sets its
bit on both.
"""

from dataclasses import dataclass

from hdl.control.registers import ACTIVE, REDUCING

__all__ = ["G0", "G1", "G3", "G4", "G5", "G9", "G10", "G11", "G14", "G22", "S0", "Context", "gate", "rate_blocked",
           "window"]

G0, G1, G3, G4, G5, G9, G10, G11, G14, G22, S0 = (1 << bit for bit in (0, 1, 3, 4, 5, 9, 10, 11, 14, 22, 24))


@dataclass(slots=True)
class Context:
    """What a decision depends on besides the instrument's row and state.

    The defaults are the state after reset: everything blocks.

    ``state``: as register ``state``. ``deadman_ok``: a heartbeat was seen and its time is not over. ``killed``: the
    kill latch or the pin. ``session_up``: the fabric owns an established session. ``session_tokens``,
    ``session_burst``, ``symbol_tokens``: token buckets of G14.
    """

    state: int = 0
    deadman_ok: bool = False
    killed: bool = True
    session_up: bool = False
    session_tokens: int = 0
    session_burst: int = 0
    symbol_tokens: int = 0


def gate(p, s, candidate, book_ok, context):
    """(bid reasons, ask reasons) of a candidate.

    Parameters
    ----------
    p : parameter row (:class:`sim.golden.quote.Params`).
    s : instrument state (:class:`sim.golden.quote.State`).
    candidate : (bid, ask) in quote ticks, of any size.
    book_ok : both bests known, not crossed, fresh, outside an event.
    context : :class:`Context`.
    """
    whole = 0
    if context.state not in (ACTIVE, REDUCING):
        whole |= G0
    if not context.deadman_ok:
        whole |= G1
    if not p.sym_en:
        whole |= G3
    if not book_ok:
        whole |= G4
    if context.killed:
        whole |= G22
    if not context.session_up:
        whole |= S0
    q = p.quote_lots
    if not (p.q_min_lots <= q <= p.q_hard_lots) or q == 0 or p.half_spread_sub == 0:
        whole |= G5
    if q > p.max_lots:
        whole |= G9
    if not s.pos_valid:
        whole |= G11
    if p.px_notional_ticks == 0 or p.px_notional_ticks * q > p.max_notional_hi << 32 | p.max_notional_lo:
        whole |= G10
    spans = p.px_min_ticks < 0 < p.px_max_ticks
    reducing = context.state == REDUCING

    def side(enabled, ticks, held, other, kept, cap):
        """``held``: position in the direction of the side; ``other``: lots of the side that may still fill; ``kept``:
        lots
        that are live and may be repeated instead of ``q``."""
        reasons = whole
        lots = max(q, kept)
        if reducing and not (held < 0 and other + lots <= -held):
            reasons |= G0
        if not enabled:
            reasons |= G3
        if (ticks == 0 and not spans) or not p.px_min_ticks <= ticks <= p.px_max_ticks:
            reasons |= G5
        if abs(ticks) > p.px_notional_ticks:
            reasons |= G10
        if held + other + lots > cap:
            reasons |= G11
        return reasons

    return (side(p.bid_en, candidate[0], s.position, s.open_bid,
                 s.live_bid_lots if s.live_bid else 0, p.max_long_lots),
            side(p.ask_en, candidate[1], -s.position, s.open_ask,
                 s.live_ask_lots if s.live_ask else 0, p.max_short_lots))


def window(p):
    """(lowest, highest) price that passes G5 and G10; there is none if the first is above the second."""
    lowest = p.px_min_ticks + (p.px_min_ticks == 0)
    highest = p.px_max_ticks - (p.px_max_ticks == 0)
    return max(lowest, -p.px_notional_ticks), min(highest, p.px_notional_ticks)


def rate_blocked(context):
    """G14: no new quote while the session bucket is down to its reserve for cancels, or the instrument's is empty."""
    return context.session_tokens <= context.session_burst >> 2 or context.symbol_tokens == 0

"""The gate as a pure function: which limits a candidate breaks, side by side.

Every gate is evaluated on every candidate; none hides another. A limit of zero blocks. The result is one bitmap of
reasons per side, bit *g* for gate G*g* (bit 24: no order session); a gate that concerns the whole candidate sets its
bit on both.
"""

from dataclasses import dataclass

from hdl.control.registers import ACTIVE, REDUCING, TICK_LIMIT

__all__ = ["G0", "G1", "G2", "G3", "G4", "G5", "G6", "G6B", "G6C", "G7", "G8", "G9", "G10", "G11", "G12", "G13", "G14",
           "G15", "G16", "G17", "G18", "G20", "G22", "S0", "Context", "Reference", "gate", "rate_blocked", "window"]

G0, G1, G2, G3, G4, G5, G6, G7, G8, G9, G10, G11, G12, G13, G14, G15, G16, G17, G18, G20, G22, S0, G6B, G6C = (
    1 << bit for bit in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 24, 25, 26))


@dataclass(frozen=True, slots=True)
class Reference:
    """What the host knows of a price from elsewhere, in quote ticks: ``value``, ``local``, and the ``basis`` of the
    feed above the latter; ``lot_value`` : what a lot is worth at its mark, in 1/256 of the host's unit of money."""

    value: int = 0
    local: int = 0
    basis: int = 0
    lot_value: int = 0

    def usable(self, p):
        """It says something, and so do the bands of the row."""
        return all((self.value, self.local, p.bands & 0xFFFF, p.bands >> 16))

    def collar(self, p):
        """(lowest, highest) price that passes G6."""
        distance = self.value * (p.bands & 0xFFFF) >> 16
        return self.value - distance, min(self.value + distance, TICK_LIMIT - 1)

    def mids(self, p):
        """(lowest, first beyond the highest) mid of the feed in whole ticks that passes G6c."""
        distance = self.local * (p.bands >> 16) >> 16
        return self.local + self.basis - distance, self.local + self.basis + distance


@dataclass(slots=True)
class Context:
    """What a decision depends on besides the instrument's row and state.

    The defaults are the state after reset: everything blocks.

    ``state``: as register ``state``. ``deadman_ok``: a heartbeat was seen and its time is not over. ``killed``: the
    kill latch or the pin. ``session_up``: the fabric owns an established session. ``session_tokens``,
    ``session_burst``, ``symbol_tokens``: token buckets of G14. ``reference``: of the instrument, ``None`` if there is
    none or it is too old. ``live_elsewhere``: live sides of other instruments, of at most ``live_most`` in all.
    ``held_bid``, ``held_ask``: G15, G17, G18 and G20 that hold that side, or have no limits, and G6b without a window.
    ``equity_ok``: G12, equity was told. ``limits_ok``: G2, limits are in force. ``drifted``: G6b, the reference is out
    of its band. ``young_bid``, ``young_ask``: G16, that side has to stand. ``rooms``: G12, G13, what positions and open
    quotes of all instruments leave of gross_most and leverage_most, and those of each side of open_most, in 1/256 of
    the unit.
    """

    state: int = 0
    deadman_ok: bool = False
    killed: bool = True
    session_up: bool = False
    session_tokens: int = 0
    session_burst: int = 0
    symbol_tokens: int = 0
    reference: Reference | None = None
    live_elsewhere: int = 0
    live_most: int = 0
    held_bid: int = G15
    held_ask: int = G15
    equity_ok: bool = False
    limits_ok: bool = False
    drifted: bool = False
    young_bid: bool = False
    young_ask: bool = False
    rooms: tuple = (0, 0, 0)


def gate(p, s, candidate, book_ok, context):
    """(bid reasons, ask reasons) of a candidate.

    Parameters
    ----------
    p : parameter row (:class:`sim.golden.quote.Params`).
    s : instrument state (:class:`sim.golden.quote.State`).
    candidate : :class:`sim.golden.quote.Candidate`, prices of any size.
    book_ok : both bests known, not crossed, fresh, outside an event.
    context : :class:`Context`.
    """
    whole = 0
    if context.state not in (ACTIVE, REDUCING):
        whole |= G0
    if not context.deadman_ok:
        whole |= G1
    if not context.limits_ok:
        whole |= G2
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
    if p.drift_band == 0:
        whole |= G6B
    if context.live_elsewhere + p.bid_en + p.ask_en > context.live_most:
        whole |= G13
    collar = range(0)
    if context.reference is None or not context.reference.usable(p):
        whole |= G6 | G6C
    else:
        lowest, highest = context.reference.collar(p)
        collar = range(lowest, highest + 1)
        least, beyond = context.reference.mids(p)
        if not least <= candidate.mid < beyond:
            whole |= G6C
    # Both sides may leave, each with the most that any of them may say.
    lot_value = context.reference.lot_value if context.reference else 0
    amount = max(q, s.live_bid_lots if s.live_bid else 0, s.live_ask_lots if s.live_ask else 0) * lot_value
    room, room_bid, room_ask = context.rooms
    gross_ok = lot_value and 2 * amount <= room and context.equity_ok
    spans = p.px_min_ticks < 0 < p.px_max_ticks
    reducing = context.state == REDUCING

    def side(enabled, ticks, takes, held, other, kept, cap, held_by, room):
        """``takes``: it would trade at once; ``held``: position in the direction of the side; ``other``: lots of the
        side that may still fill; ``kept``: lots that are live and may be repeated instead of ``q``; ``held_by``: gates
        that hold it; ``room``: of its open quotes."""
        reasons = whole | held_by | (G7 if takes else 0) | (0 if ticks in collar else G6)
        lots = max(q, kept)
        if not (held < 0 and other + lots <= -held):
            reasons |= (G0 if reducing else 0) | (0 if gross_ok else G12) | (G6B if context.drifted else 0)
        if not lot_value or amount > room:
            reasons |= G13
        if not enabled:
            reasons |= G3
        if (ticks == 0 and not spans) or not p.px_min_ticks <= ticks <= p.px_max_ticks:
            reasons |= G5
        if abs(ticks) > p.px_notional_ticks:
            reasons |= G10
        if held + other + lots > cap:
            reasons |= G11
        return reasons

    return (side(p.bid_en, candidate.bid_ticks, candidate.bid_takes, s.position, s.open_bid,
                 s.live_bid_lots if s.live_bid else 0, p.max_long_lots, context.held_bid, room_bid),
            side(p.ask_en, candidate.ask_ticks, candidate.ask_takes, -s.position, s.open_ask,
                 s.live_ask_lots if s.live_ask else 0, p.max_short_lots, context.held_ask, room_ask))


def window(p, reference):
    """(lowest, highest) price that passes G5, G6 and G10; there is none if the first is above the second."""
    lowest = p.px_min_ticks + (p.px_min_ticks == 0)
    highest = p.px_max_ticks - (p.px_max_ticks == 0)
    low, high = (reference or Reference()).collar(p)
    return max(lowest, -p.px_notional_ticks, low), min(highest, p.px_notional_ticks, high)


def rate_blocked(context):
    """G14: no new quote while the session bucket is down to its reserve for cancels, or the instrument's is empty."""
    return context.session_tokens <= context.session_burst >> 2 or context.symbol_tokens == 0

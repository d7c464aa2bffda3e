"""The quote engine as a pure function: row, state and best prices in, decision out.

All integers, bit for bit what the fabric computes. Prices of the feed are in ticks of the feed's instrument, quotes in
ticks of the quoted instrument, reference, skew and half spread in 1/256 quote ticks ("sub").
"""

from dataclasses import dataclass, field

from hdl.control.registers import PARAMS
from sim.golden.gate import G8, G14, G16, S0, gate, rate_blocked, window

__all__ = [
    "DROPPED",
    "HELD",
    "MASS_CANCEL",
    "PULLED",
    "SENT",
    "Candidate",
    "Decision",
    "Params",
    "State",
    "candidate",
    "evaluate",
]

HELD, SENT, PULLED, DROPPED, MASS_CANCEL = range(5)
NONE, KEEP, REPLACE, PULL = "none", "keep", "replace", "pull"
WAIT = "wait"   # kept for its age alone


def wrap(value, bits):
    """``value`` modulo 2^bits as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


class Params:
    """One instrument's parameter row, fields as in ``hdl.control.registers.PARAMS``; all zero after reset."""

    __slots__ = tuple(p.name for p in PARAMS)

    def __init__(self, **values):
        for p in PARAMS:
            self.write(p.word, values.pop(p.name, 0))
        if values:
            raise TypeError(f"no parameter {next(iter(values))!r}; there are {', '.join(self.__slots__)}")

    def write(self, word, value):
        """Store one 32-bit word of the row as the fabric does: cut to its width. Words without a use are lost."""
        if word < len(PARAMS):
            p = PARAMS[word]
            value &= (1 << p.width) - 1
            setattr(self, p.name, wrap(value, p.width) if p.signed else value)

    def copy(self):
        """An independent row with the same values."""
        other = Params.__new__(Params)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def tick_e9(self):
        """Quote tick as a price mantissa, exponent -9."""
        return self.tick_e9_hi << 32 | self.tick_e9_lo

    @property
    def instrument_id(self):
        """The venue's id of the quoted instrument."""
        return self.instrument_id_hi << 32 | self.instrument_id_lo


@dataclass(slots=True)
class State:
    """What the fabric remembers of one instrument between decisions.

    ``sent_*``, ``settled_*``: lots, modulo 2^32. ``live_*``: what the venue was last told, price 0 and 0 lots before
    the first quote. ``last_quote_id``: low 32 bits of the last quote's id. ``pos_next``, ``pos_told``: as
    :class:`hdl.gate.exposure.Position` has them.
    """

    position: int = 0
    pos_valid: bool = False
    sent_bid: int = 0
    sent_ask: int = 0
    settled_bid: int = 0
    settled_ask: int = 0
    live_bid: bool = False
    live_ask: bool = False
    live_bid_ticks: int = 0
    live_ask_ticks: int = 0
    live_bid_lots: int = 0
    live_ask_lots: int = 0
    last_quote_id: int = 0
    pos_next: int = 0
    pos_told: bool = True

    @property
    def open_bid(self):
        """Lots of sent bids that are not known to be done: at the venue or on their way."""
        return (self.sent_bid - self.settled_bid) & 0xFFFF_FFFF

    @property
    def open_ask(self):
        """Lots of sent asks that are not known to be done."""
        return (self.sent_ask - self.settled_ask) & 0xFFFF_FFFF


@dataclass(slots=True)
class Candidate:
    """The quote that the engine would like: prices in quote ticks, whatever their size; ``mid`` of the feed in whole
    quote ticks; ``bid_takes``, ``ask_takes``: that price would reach the other side of the book."""

    bid_ticks: int = 0
    ask_ticks: int = 0
    mid: int = 0
    bid_takes: bool = False
    ask_takes: bool = False


@dataclass(slots=True)
class Decision:
    """Outcome of one evaluation.

    ``outcome``: HELD, SENT, PULLED, DROPPED. ``reasons``: bitmap over both sides, of which G16 blocks nothing. ``bid``,
    ``ask``: what happens to each side (``"none"``, ``"keep"``, ``"replace"``, ``"pull"``). ``bid_ticks`` ..
    ``ask_lots``: content of the frame, 0 lots for a side that is not quoted. ``rate_blocked``: G14 held something back.
    """

    outcome: int
    reasons: int
    bid: str
    ask: str
    bid_ticks: int = 0
    ask_ticks: int = 0
    bid_lots: int = 0
    ask_lots: int = 0
    bid_ok: bool = False
    ask_ok: bool = False
    rate_blocked: bool = False
    candidate: Candidate = field(default_factory=Candidate)

    @property
    def emits(self):
        """A frame has to leave."""
        return self.outcome in (SENT, PULLED)


def candidate(p, bid_ticks, ask_ticks, position):
    """Target prices for both sides, rounded away from the market: bid down, ask up."""
    reference = (bid_ticks + ask_ticks) * p.ref_scale >> 16
    skew = (position - p.target_lots) * p.skew_q8 >> 8
    skew = max(-p.skew_max_sub, min(p.skew_max_sub, skew))
    center = reference - skew
    bid = center - p.half_spread_sub >> 8
    ask = -(-(center + p.half_spread_sub) >> 8)
    # Only the side towards which the quote leans can reach the other side of the book.
    room = (ask_ticks - bid_ticks) * p.ref_scale >> 16
    takes = room <= abs(skew) - p.half_spread_sub
    return Candidate(bid, ask, reference >> 8, takes and skew < 0, takes and skew >= 0)


def evaluate(p, s, best_bid, best_ask, fresh, context):
    """Decide about one instrument. Changes nothing.

    Without a session (bit 24) nothing is emitted, and what the venue was last told stands.

    Parameters
    ----------
    p : :class:`Params`, the row of the active bank.
    s : :class:`State`.
    best_bid, best_ask : (known, px_ticks, size) of the first levels.
    fresh : the instrument is neither stale nor inside an unfinished event.
    context : :class:`sim.golden.gate.Context`.
    """
    want = candidate(p, best_bid[1], best_ask[1], s.position)
    book_ok = (fresh and p.stale_cycles != 0 and best_bid[0] and best_ask[0] and best_bid[1] < best_ask[1])
    bid_reasons, ask_reasons = gate(p, s, want, book_ok, context)
    reasons = bid_reasons | ask_reasons
    q = p.quote_lots

    bid_ok, ask_ok = not bid_reasons & ~S0, not ask_reasons & ~S0
    low, high = window(p, context.reference)
    bid = _action(bid_ok, s.live_bid, want.bid_ticks - s.live_bid_ticks,
                  s.live_bid_lots != q or not low <= s.live_bid_ticks <= high, p, context.young_bid)
    ask = _action(ask_ok, s.live_ask, s.live_ask_ticks - want.ask_ticks,
                  s.live_ask_lots != q or not low <= s.live_ask_ticks <= high, p, context.young_ask)
    if WAIT in (bid, ask):
        reasons |= G16
        bid, ask = (KEEP if each == WAIT else each for each in (bid, ask))

    blocked = REPLACE in (bid, ask) and rate_blocked(context)
    if blocked:
        reasons |= G14
        bid = (KEEP if s.live_bid else NONE) if bid == REPLACE else bid
        ask = (KEEP if s.live_ask else NONE) if ask == REPLACE else ask

    if not context.session_up:
        outcome = DROPPED
    elif REPLACE in (bid, ask):
        outcome = SENT
    elif PULL in (bid, ask):
        outcome = PULLED
    else:
        outcome = DROPPED if reasons & ~G16 else HELD
    decision = Decision(outcome, reasons, bid, ask, bid_ok=bid_ok, ask_ok=ask_ok, rate_blocked=blocked, candidate=want)
    if decision.emits:
        decision.bid_ticks, decision.bid_lots = _content(bid, want.bid_ticks, q, s.live_bid_ticks, s.live_bid_lots,
                                                         low, high)
        decision.ask_ticks, decision.ask_lots = _content(ask, want.ask_ticks, q, s.live_ask_ticks, s.live_ask_lots,
                                                         low, high)
        if decision.bid_lots and decision.ask_lots and decision.bid_ticks >= decision.ask_ticks:
            # Both were repeated at the end of the window, for want of a token.
            decision.reasons |= G8
            decision.bid_ticks = decision.bid_lots = decision.ask_ticks = decision.ask_lots = 0
    return decision


def _action(ok, live, toward, unfit, p, young):
    """``toward``: ticks by which the target is closer to the market than what is live (negative: further away).
    ``unfit``: what is live has another quantity, or a price that is not allowed any more. ``young``: it must not move
    towards the market."""
    if not ok:
        return PULL if live else NONE
    if not live or unfit:
        return REPLACE
    # A side that is kept is nowhere that the other one could reach it: less than both half spreads from its own target.
    away = min(max(1, p.away_ticks), -(-2 * p.half_spread_sub >> 8))
    if toward > 0:
        return KEEP if toward < max(1, p.toward_ticks) else WAIT if young else REPLACE
    return REPLACE if -toward >= away else KEEP


def _content(action, ticks, lots, live_ticks, live_lots, low, high):
    """What leaves lies in the window, whatever is repeated."""
    if low > high or action not in (REPLACE, KEEP):
        return 0, 0
    ticks, lots = (ticks, lots) if action == REPLACE else (live_ticks, live_lots)
    return max(low, min(high, ticks)), lots

"""Book by level of one instrument: what the fabric's book does with one entry.

A level is a tuple ``(known, px_ticks, size)``. Levels that were never seen, or that could not be represented, are
unknown: they hold a place but no price, and a side whose first level is unknown has no best. What stands in
``px_ticks`` and ``size`` of an unknown level is what the fabric's memory holds there.
"""

from hdl.control.registers import TICK_BITS
from hdl.layout import sbe

__all__ = ["ACTIONS", "BID", "OFFER", "RESET", "SIZE_LIMIT", "UNKNOWN", "Book", "price_ticks"]

_MDP3 = sbe.load("cme_mdp3")
_ACTION = _MDP3.enums["MDUpdateAction"]
_TYPE = _MDP3.enums["MDEntryTypeBook"]
NEW, CHANGE, DELETE = _ACTION["New"], _ACTION["Change"], _ACTION["Delete"]
DELETE_THRU, DELETE_FROM, OVERLAY = _ACTION["DeleteThru"], _ACTION["DeleteFrom"], _ACTION["Overlay"]
BID, OFFER, RESET = _TYPE["Bid"], _TYPE["Offer"], _TYPE["BookReset"]

ACTIONS = frozenset(_ACTION.values())
UNKNOWN = (False, 0, 0)
SIZE_LIMIT = (1 << 31) - 1  #: sizes from here up (null, negative) make a level unknown


def price_ticks(mantissa, shift, odd, inverse):
    """Ticks of a price mantissa (int64): ``(ticks, exact)``. Not exact: no multiple of ``odd * 2^shift``, or more than
    TICK_BITS bits. As the fabric does it: the low bits must be zero, the quotient is a product modulo 2^TICK_BITS with
    ``inverse``, and multiplying back must give the mantissa again."""
    shifted = mantissa >> shift
    ticks = (shifted * inverse) & (1 << TICK_BITS) - 1
    ticks -= (ticks >> TICK_BITS - 1) << TICK_BITS
    return ticks, bool(odd) and ticks * odd == shifted and not mantissa & ((1 << shift) - 1)


class Book:
    """Both sides of one instrument, ``depth`` levels each."""

    __slots__ = ("bids", "depth", "offers")

    def __init__(self, depth=10):
        self.depth = depth
        self.bids = [UNKNOWN] * depth
        self.offers = [UNKNOWN] * depth

    def clear(self):
        """Every level becomes unknown."""
        self.bids = [_forget(level) for level in self.bids]
        self.offers = [_forget(level) for level in self.offers]

    @property
    def best_bid(self):
        """First level of the bids: (known, px_ticks, size)."""
        return self.bids[0]

    @property
    def best_ask(self):
        """First level of the offers: (known, px_ticks, size)."""
        return self.offers[0]

    def apply(self, kind, action, level, px_ticks, size, known):
        """Apply one entry; ``known``: its price is exact and its size lies in 1..``SIZE_LIMIT`` - 1.

        Returns ``True`` if the book took the entry, ``False`` if its type, action or level (1..depth) is none that it
        keeps. A reset of the book looks at neither action nor level.
        """
        if kind == RESET:
            self.clear()
            return True
        if kind == BID:
            side = self.bids
        elif kind == OFFER:
            side = self.offers
        else:
            return False
        if not 1 <= level <= self.depth or action not in ACTIONS:
            return False
        at = level - 1
        entry = (known, px_ticks, size)
        if action == NEW:
            side.insert(at, entry)
            side.pop()
        elif action in (CHANGE, OVERLAY):
            side[at] = entry
        elif action == DELETE:
            last = side[-1]
            del side[at]
            side.append(_forget(last))
        else:
            first = at if action == DELETE_FROM else 0
            side[first:] = [_forget(level) for level in side[first:]]
        return True


def _forget(level):
    return (False, level[1], level[2])

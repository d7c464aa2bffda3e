"""G12, G13: what all instruments together hold and have open, in money, and from which cycle on.

The fabric works one instrument out at a time; when each counts is part of what it promises.
"""

from collections import deque

from hdl.gate.load import FRACTION_BITS, LEVERAGE_BITS, OVER_BITS, RUN_CYCLES

__all__ = ["Load", "rooms", "worths"]

_U32 = 0xFFFF_FFFF
_OVER = 1 << OVER_BITS
#: Totals are asked for as they were so many cycles ago at most.
_KEPT_CYCLES = 64


def worths(position, open_bid, open_ask, lot_value):
    """What an instrument adds to the sums of bids, of asks and of all, in 1/256 of the unit of money."""
    def worth(lots):
        return _OVER if lots and not lot_value else min(_OVER, lots * lot_value)

    return worth(open_bid), worth(open_ask), worth(abs(position) + open_bid + open_ask)


class _Words:
    """What is known of an instrument."""

    __slots__ = ("lot_value", "position", "sent", "settled")

    def __init__(self):
        self.position, self.lot_value = 0, 0
        self.sent, self.settled = (0, 0), (0, 0)

    def worths(self):
        opens = [sent - settled & _U32 for sent, settled in zip(self.sent, self.settled, strict=True)]
        return worths(self.position, *opens, self.lot_value)


class Load:
    """The sums, as the fabric has them.

    What happens is told in the order of its cycles, and asked for after everything of the cycle in question was told.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        self._words = [_Words() for _ in range(instruments)]
        self._worths = [(0, 0, 0)] * instruments
        self._totals = (0, 0, 0)
        self._history = deque([(-1 << 62, self._totals)])   # (first cycle, totals)
        self._marked = {}       # instrument: first cycle in which its mark shows
        self._urgent = None     # (first cycle in which it shows, instrument)
        self._free = 0          # first cycle in which a run may start
        self._asks = 0, -1      # (cycle, instrument whose mark is asked for in it, while no run is under way)
        self._reading = None    # (cycle, instrument): it reads then, if nothing is written
        self.restart(-1)        # after reset, rows are cleared just so

    def _catch_up(self, cycle):
        """All that follows from what happened before ``cycle``: rows read before it, runs that start in it."""
        while True:
            if self._reading is not None:
                if self._reading[0] >= cycle:
                    return
                self._read()
            start = self._next_start()
            if start is None or start[0] > cycle:
                return
            at, i, is_urgent = start
            self._next_asked = self._asked(at) if is_urgent else i + 1
            if is_urgent:
                self._urgent = None
            self._reading = at + 1, i

    def _read(self):
        """The rows of a run are read: what comes of it is certain."""
        at, i = self._reading
        self._reading = None
        self._marked.pop(i, None)
        new = self._words[i].worths()
        self._totals = tuple(total + now - old for total, now, old in zip(
            self._totals, new, self._worths[i], strict=True))
        self._worths[i] = new
        self._free = at + RUN_CYCLES - 1
        self._asks = self._free, self._next_asked
        self._history.append((self._free, self._totals))
        while len(self._history) > 1 and self._history[1][0] < at - _KEPT_CYCLES:
            self._history.popleft()

    def _next_start(self):
        """(cycle, instrument, whether it has just left) of the next run, by what is known now."""
        found = None
        for i, shows in self._marked.items():
            at = max(self._free, shows + 1)     # as it was in the cycle before
            at += (i - self._asked(at)) % self.instruments
            if found is None or at < found[0]:
                found = at, i, False
        if self._urgent is not None:
            shows, i = self._urgent
            if found is None or max(self._free, shows) <= found[0]:
                found = max(self._free, shows), i, True
        return found

    def _asked(self, cycle):
        """Whose mark a cycle without a run asks for."""
        since, first = self._asks
        return (first + cycle - since) % self.instruments

    def _happens(self, cycle, i):
        """Something about an instrument is written in ``cycle``."""
        self._catch_up(cycle)
        if self._reading is not None and self._reading[0] == cycle:
            self._reading = cycle + 1, self._reading[1]
        self._marked.setdefault(i, cycle + 1)
        return self._words[i]

    def left(self, cycle, i, sent_bid, sent_ask):
        """A quote has left."""
        self._happens(cycle, i).sent = sent_bid, sent_ask
        self._urgent = cycle + 1, i

    def settle(self, cycle, i, position, settled_bid, settled_ask):
        """The host has said what it knows of a position."""
        words = self._happens(cycle, i)
        words.position, words.settled = position, (settled_bid, settled_ask)

    def tell(self, cycle, i, lot_value):
        """The host has said what a lot is worth."""
        self._happens(cycle, i).lot_value = lot_value

    def restart(self, cycle):
        """A new session: nothing is open."""
        self._catch_up(cycle)
        clear = cycle + 1 + self.instruments
        if self._reading is not None and self._reading[0] == cycle:
            self._read()
        elif self._reading is not None:
            self._reading = max(self._reading[0], clear), self._reading[1]
        self._urgent, self._free = None, max(self._free, clear)
        for i, words in enumerate(self._words):
            words.sent = words.settled = 0, 0
            self._marked.setdefault(i, cycle + 2)

    def totals(self, cycle):
        """(bids, asks, all) as they were in ``cycle``."""
        self._catch_up(cycle)
        return next(totals for first, totals in reversed(self._history) if first <= cycle)


def rooms(totals, gross_most, open_most, leverage_most, equity):
    """(gross, bid, ask): what the limits leave."""
    bids, asks, gross = totals
    most = min(gross_most << FRACTION_BITS, max(0, equity) * leverage_most << FRACTION_BITS - LEVERAGE_BITS)
    return most - gross, (open_most << FRACTION_BITS) - bids, (open_most << FRACTION_BITS) - asks

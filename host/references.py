"""Reference prices for gates G6 and G6c, and with them what a lot is worth (G12, G13): where they come from, and when
the card is told.

The card forgets a reference that is not renewed within ``risk.reference_ms``, so that one is only renewed by something
new: an observation. A price that nobody has looked at again grows old, and its instrument is not quoted any more.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from hdl.control import registers as regmap

from . import params
from .pace import MILLISECOND, Pace


@dataclass(slots=True)
class _Known:
    """Of one instrument, in quote ticks: ``value`` (not rounded), ``local``, ``basis``; when it was last observed, and
    whether the card has yet to be told."""

    value: float
    local: float
    basis: int = 0
    seen_ns: int = 0
    fresh: bool = True


class References:
    """References of all instruments.

    Parameters
    ----------
    config : :class:`host.config.Config`. With ``host.references`` = ``"feed"`` they follow the feed's mid, as decisions
        report it, exponentially with ``host.reference_tau_ms``; at first they are ``reference_price``. With
        ``"external"`` there is none until :meth:`tell` is called.

    Attributes
    ----------
    pace : :class:`host.pace.Pace` of :meth:`updates`. follows_feed : they do.
    """

    def __init__(self, config):
        self.follows_feed = config.host.references == "feed"
        self._instruments, self._scales, self._known = config.instruments, [], []
        self._tau_ns = float(config.host.reference_tau_ms) * MILLISECOND
        self.pace, self._words, self._unit = Pace(config.risk.reference_ms), {}, config.risk.money_unit
        for i in config.instruments:
            self._scales.append(params.ref_scale(i.feed_tick, i.tick))
            start = float(Fraction(i.reference_price) / Fraction(i.tick))
            self._known.append(_Known(start, start) if self.follows_feed else None)

    def observe(self, n, best_bid_ticks, best_ask_ticks, now_ns):
        """A decision has reported both best prices of the feed, in its ticks. Of no effect if they are told from
        elsewhere."""
        if not self.follows_feed:
            return
        known = self._known[n]
        mid = (best_bid_ticks + best_ask_ticks) * self._scales[n] / (1 << 16 + 8)
        known.value += (mid - known.value) * -math.expm1(-(now_ns - known.seen_ns) / self._tau_ns)
        known.local, known.seen_ns, known.fresh = known.value, now_ns, True

    def tell(self, n, value, local=None, basis=0, now_ns=0):
        """Somebody has looked elsewhere: prices in the quoted instrument's units; ``local`` is ``value`` if not given.
        Raises :class:`host.params.ParameterError`."""
        tick = Fraction(self._instruments[n].tick)
        local = value if local is None else local
        for key, price in (("price", value), ("local", local)):
            if not 0 < Fraction(price) / tick < regmap.TICK_LIMIT:
                raise params.ParameterError(key, params.plain(price), f"must be above 0 and below "
                                            f"{params.plain(regmap.TICK_LIMIT * tick)}")
        if abs(Fraction(basis) / tick) >= regmap.TICK_LIMIT:
            raise params.ParameterError("basis", params.plain(basis), f"must be within +-"
                                        f"{params.plain(regmap.TICK_LIMIT * tick)}")
        self._known[n] = _Known(float(Fraction(value) / tick), float(Fraction(local) / tick),
                                params.nearest(Fraction(basis) / tick), now_ns)

    def begin(self, now_ns):
        """The card knows none: tell it all, as observed now."""
        self.pace.begin()
        self._words = {}
        for known in self._known:
            if known is not None:
                known.seen_ns, known.fresh = now_ns, True

    def updates(self, now_ns):
        """Registers by name, in the order of the map, for each instrument of which the card has to be told now."""
        if not self.pace.due(now_ns):
            return []
        out = []
        for n, known in enumerate(self._known):
            if known is not None and known.fresh:
                known.fresh, i = False, self._instruments[n]
                value, local = (max(0, min(regmap.TICK_LIMIT - 1, round(price)))
                                for price in (known.value, known.local))
                lot_value = params.lot_value(i, value, self._unit)
                self._words[n] = (value, local, known.basis), now_ns, lot_value
                out.append({"ref_value": value, "ref_local": local,
                            "ref_basis": known.basis & (1 << regmap.TICK_BITS) - 1, "ref_lot_value": lot_value,
                            "ref_commit": n})
        return out

    def told(self, n, now_ns):
        """(value, local, basis, ms since then) that the card was last told of an instrument, in ticks, or ``None``."""
        words = self._words.get(n)
        return None if words is None else (*words[0], Fraction(now_ns - words[1], MILLISECOND))

    def lot_value(self, n):
        """What the card was last told that a lot of an instrument is worth, in 1/256 of the unit of money; 0 if it was
        told nothing."""
        return self._words[n][2] if n in self._words else 0

    def price(self, n):
        """Reference of an instrument in its own units, ``None`` if there is none."""
        known = self._known[n]
        return None if known is None else known.value * float(self._instruments[n].tick)

"""The rest of the market: where the mirrored best bids and offers of the matching engine come from.

:class:`MarketMirror` follows the feed that drives the quoter, :class:`RandomWalk` invents a market for an exchange
that runs alone.
"""

from dataclasses import dataclass
from random import Random

from .ledger import BUY, SELL

#: ``ref_scale`` turns the sum of two feed prices (ticks) into 1/256 ticks of the quoted instrument, >> 16.
_SCALE_BITS, _SUBTICK_BITS = 16, 8


@dataclass(frozen=True)
class FeedMapping:
    """How one instrument of the feed maps to one quoted instrument.

    Attributes
    ----------
    security_id : the feed's id.
    instrument_id : the exchange's id.
    ref_scale : as in the fabric's parameter row: ``(2 * price * ref_scale) >> 16`` is the price in 1/256 ticks of the
        quoted instrument. 2^23 maps tick to tick.
    lots_numerator, lots_denominator : lots of the quoted instrument per unit of the feed's size.
    """

    security_id: int
    instrument_id: int
    ref_scale: int = 1 << 23
    lots_numerator: int = 1
    lots_denominator: int = 1

    def __post_init__(self):
        for name in ("ref_scale", "lots_numerator", "lots_denominator"):
            if getattr(self, name) < 1:
                raise ValueError(f"mapping of {self.security_id}: {name} must be at least 1, got {getattr(self, name)}")


class MarketMirror:
    """Turns best bids and offers of feed instruments (ticks) into the engine's market.

    Bids are rounded down to the quoted instrument's tick and offers up, so a mirrored market never crosses itself; a
    size is never rounded to nothing.

    Parameters
    ----------
    gateway : :class:`sim.venue.session.Gateway`.
    mappings : :class:`FeedMapping` for each instrument; others are ignored.
    """

    def __init__(self, gateway, mappings):
        self.gateway = gateway
        self.mappings = {}
        for mapping in mappings:
            self.mappings.setdefault(mapping.security_id, []).append(mapping)
            gateway.engine.book(mapping.instrument_id)  # raises here rather than at the first event

    def price_e9(self, mapping, ticks, side):
        """Price mantissa (exponent -9) at the exchange of a feed price, rounded away from the market."""
        tick_e9 = self.gateway.engine.book(mapping.instrument_id).spec.tick_e9
        scaled, one = 2 * ticks * mapping.ref_scale, 1 << _SCALE_BITS + _SUBTICK_BITS
        return (scaled // one if side == BUY else -(-scaled // one)) * tick_e9

    @staticmethod
    def _lots(mapping, size):
        return max(1, size * mapping.lots_numerator // mapping.lots_denominator)

    def best(self, now_ns, security_id, bid, ask):
        """Best bid and offer of a feed instrument after an event: (ticks, size), or ``None`` where unknown.

        A bid at or above the offer (as before an opening auction) is nothing that anybody could trade with: both are
        withdrawn.
        """
        if bid is not None and ask is not None and bid[0] >= ask[0]:
            bid = ask = None
        for mapping in self.mappings.get(security_id, ()):
            levels = [None if level is None else (self.price_e9(mapping, level[0], side),
                                                  self._lots(mapping, level[1]))
                      for side, level in ((BUY, bid), (SELL, ask))]
            self.gateway.market(now_ns, mapping.instrument_id, *levels)

    def trade(self, now_ns, security_id, ticks, size, aggressor):
        """A trade of a feed instrument; ``aggressor`` is BUY or SELL. A buyer lifts what is offered up to the price."""
        for mapping in self.mappings.get(security_id, ()):
            self.gateway.trade(now_ns, mapping.instrument_id, self.price_e9(mapping, ticks, -aggressor),
                               self._lots(mapping, size), aggressor)


class RandomWalk:
    """A seeded market for an exchange that runs alone, around every instrument's ``reference_ticks``.

    Each step moves the middle of one instrument by at most ``jump`` ticks, shows a new best bid and offer, and
    sometimes trades. The same seed gives the same market.

    Parameters
    ----------
    specs : the exchange's instruments.
    seed : any integer.
    interval_ns : mean time between steps.
    """

    def __init__(self, specs, seed, interval_ns=20_000_000, jump=3):
        self._random, self._interval_ns, self._jump = Random(seed), interval_ns, jump
        self._middles = {spec: spec.reference_ticks for spec in specs}

    def steps(self):
        """Endless (delay in ns before the step, callable of (gateway, now_ns))."""
        r = self._random
        while True:
            spec = r.choice(list(self._middles))
            self._middles[spec] = middle = max(10, self._middles[spec] + r.randint(-self._jump, self._jump))
            width = r.randint(1, 3)
            bid = ((middle - width) * spec.tick_e9, r.randint(1, 50))
            ask = ((middle + width) * spec.tick_e9, r.randint(1, 50))
            trade = (r.choice((BUY, SELL)), r.randint(1, 20)) if r.random() < 0.3 else None
            yield int(r.expovariate(1) * self._interval_ns), _Step(spec.instrument_id, bid, ask, trade)


@dataclass(frozen=True)
class _Step:
    instrument_id: int
    bid: tuple
    ask: tuple
    trade: tuple | None

    def __call__(self, gateway, now_ns):
        gateway.market(now_ns, self.instrument_id, self.bid, self.ask)
        if self.trade:
            aggressor, lots = self.trade
            gateway.trade(now_ns, self.instrument_id, (self.ask if aggressor == BUY else self.bid)[0], lots, aggressor)

"""Reference prices and target quotes, for the book as it is and for every book that the next entry may make of it."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.control.params import NOTIONAL_BITS, PARAM_ROW, SUBTICK_BITS, TICK_BITS, Ticks
from hdl.sums import sum_of_three

_SCALE_BITS = 16    # fraction bits of ref_scale beyond the subtick
_SKEW_BITS = 8      # fraction bits of skew_q8

#: A price's product without its fraction.
_UPPER = TICK_BITS + 32 - _SCALE_BITS

#: What an entry at the first level may make of the best prices. ``SAME``: nothing; ``BID_PX``, ``ASK_PX``: its price is
#: the new best; ``BID_SECOND``, ``ASK_SECOND``: the second level is.
SAME, BID_PX, BID_SECOND, ASK_PX, ASK_SECOND = range(5)
HYPOTHESES = 5

#: A reference in 1/256 quote ticks: twice a price in feed ticks, times a 32-bit scale without its fraction.
Reference = signed(TICK_BITS + 1 + 32 - _SCALE_BITS)
#: A target price in quote ticks: a reference, a skew of 32 bits and a half spread, without the fraction.
Candidate = signed(Reference.width + 1 - SUBTICK_BITS)
#: Hypotheses that share a wire for their reference: that of the first is on it in cycle 5 of an evaluation, that of the
#: second in cycle 6.
REFERENCES = (SAME, BID_SECOND), (ASK_SECOND, ASK_PX), (None, BID_PX)
References = data.ArrayLayout(Reference, len(REFERENCES))
#: The best price that is the book's own under all hypotheses of a wire.
STAYS = "ask", "bid", "ask"
#: What a reference is held against by G7: twice such a price and an edge.
Reach = signed(Reference.width + 1)


class QuoteEngine(wiring.Component):
    """Computes the reference of one instrument under every hypothesis, and both target prices of the book as it is.

    ::

        ref    = floor((best_bid + best_ask) * ref_scale / 2^16)          1/256 quote ticks
        skew   = clamp(floor((position - target) * skew_q8 / 2^8), +-skew_max)
        bid    = floor((ref - skew - half_spread) / 256)                  quote ticks
        ask    = ceil((ref - skew + half_spread) / 256)
        room   = floor((best_ask - best_bid) * ref_scale / 2^16)          1/256 quote ticks
        edge   = |skew| - half_spread

    A bid stays below the best offer where ``room > -skew - half_spread``, an offer above the best bid where
    ``room > skew - half_spread`` (G7): a skew to below the market endangers the offer, one to above it the bid, and
    one of them takes where ``room <= edge``. No room is formed: with ``S`` the sum in ``ref`` before it is rounded, it
    is ``2 best_ask * ref_scale / 2^16 - S`` as well as ``S - 2 best_bid * ref_scale / 2^16``, rounded, so that ::

        reach_ask = 2 best_ask * ref_scale / 2^16 - (edge + 1) < S        tells it where the best offer stays,
        reach_bid = 2 best_bid * ref_scale / 2^16 + (edge + 1) > S        tells it where the best bid does

    Products are formed price by price, so that five references cost five products and five sums. One multiplier takes
    the bids and the skew in turn, a second one the offers and the bound on the notional; the entry's own price, which
    comes last, has a third one to itself.

    Members
    -------
    at : in(8) bit *t* is set in cycle *t* of an evaluation; no bit otherwise.
    best_bid, best_ask, second_bid, second_ask, entry_px : in(Ticks) feed ticks: the bests are read in cycle 1 and in
        cycle 0, the seconds in cycle 2 and in cycle 1, ``entry_px`` from cycle 3 on.
    position : in(32, signed) lots, holds still from cycle 0 to 6, and so do ``params`` : in(PARAM_ROW) from that of
        their turn on.
    refs : out(References) as :data:`REFERENCES` says, in cycles 5 and 6 only. ``skew`` : out(32, signed) from cycle 4.
    reach_bid, reach_ask : out(Reach) from cycle 5, without their fractions. One side takes, the bid if ``leans_up`` :
        out(1) from cycle 5, else the offer, if a reference lies beyond that of the price that stays
        (:data:`STAYS`): above ``reach_ask``, or below ``reach_bid``. ``beyond`` : out(1 a reference) likewise in cycles
        5 and 6: its fraction does, and being equal is enough.
    bid, ask : out(Candidate) target prices under ``SAME``, from cycle 6.
    bound_notional : out(NOTIONAL_BITS) ``px_notional_ticks * quote_lots``, in cycle 5 only.

    Skew (while ``params`` stand) and prices stand until the next evaluation.
    """

    def __init__(self):
        super().__init__({
            "at": In(8), "best_bid": In(Ticks), "best_ask": In(Ticks), "second_bid": In(Ticks), "second_ask": In(Ticks),
            "entry_px": In(Ticks), "position": In(signed(32)), "params": In(PARAM_ROW), "refs": Out(References),
            "reach_bid": Out(Reach), "reach_ask": Out(Reach), "beyond": Out(len(REFERENCES)), "leans_up": Out(1),
            "skew": Out(signed(32)), "bid": Out(Candidate), "ask": Out(Candidate),
            "bound_notional": Out(NOTIONAL_BITS)})

    def elaborate(self, platform):
        m = Module()
        p, at = self.params, self.at

        # What the two shared multipliers take in turn, a register before each. The skew comes first: every limit that a
        # reference is held against contains it.
        # The position comes from a memory, and its difference has the product's register behind it: the upper half is
        # formed for either carry of the lower one.
        excess, low = Signal(signed(33)), self.position[:16] - p.target_lots[:16]
        high, target_high = self.position >> 16, p.target_lots >> 16
        bids, asks = (Signal(signed(33)), Signal(signed(max(TICK_BITS, 25)))), (Signal(32), Signal(Ticks))
        m.d.comb += excess.eq(Cat(low[:16], Mux(low[16], high + ~target_high, high - target_high)))    # + ~x is - x - 1
        m.d.sync += [
            bids[0].eq(Mux(at[0], excess, p.ref_scale)),
            bids[1].eq(Mux(at[0], p.skew_q8, Mux(at[1], self.best_bid, self.second_bid))),
            asks[0].eq(Mux(at[2], p.quote_lots, p.ref_scale)),
            asks[1].eq(Mux(at[0], self.best_ask, Mux(at[1], self.second_ask, p.px_notional_ticks))),
        ]
        bid_product, bid_early = _product(m, "bid", *bids)
        ask_product, ask_early = _product(m, "ask", *asks)
        entry, entry_early = _product(m, "entry", p.ref_scale, self.entry_px)

        # In cycle 3 skew and best offer come out, in 4 the best bid and the second offer, in 5 the second bid, the
        # entry and the bound on the notional.
        skew_raw, limit, least = bid_product >> _SKEW_BITS, Signal(signed(32)), Signal(signed(32))
        narrower, at_bound = Signal(signed(26)), Signal(signed(33))
        m.d.comb += limit.eq(p.skew_max_sub)
        m.d.sync += [least.eq(-limit), narrower.eq(p.half_spread_sub - 1), at_bound.eq(narrower - limit)]
        # Two short comparisons and the bits above them, side by side; the choice is made a cycle later, and so it is of
        # the edge: less it and one, which is `~edge`, there is the size of the skew less the half spread, or its bound.
        low, below, above = skew_raw[:32].as_signed(), skew_raw[-1], Signal()
        m.d.comb += above.eq((skew_raw[31:] ^ below.replicate(len(skew_raw) - 31)).any())
        near, bound, bounded, negative = Signal(signed(32)), Signal(signed(32)), Signal(), Signal()
        lean, less_edge = Signal(signed(33)), Signal(signed(33))
        with m.If(at[3]):
            m.d.sync += [near.eq(low), bound.eq(Mux(below, least, limit)), negative.eq(below),
                         bounded.eq(above | Mux(below, less(low, least), less(limit, low))),
                         lean.eq(low + (narrower[:] ^ (~below).replicate(len(narrower))).as_signed())]
        m.d.comb += [self.skew.eq(Mux(bounded, bound, near)),
                     less_edge.eq(Mux(bounded, at_bound, lean ^ (~negative).replicate(len(lean))))]
        m.d.sync += self.leans_up.eq(self.skew[-1])

        # Below the point a sum is made a cycle earlier: what a product is there is known before the product.
        bid, ask = Signal(signed(_UPPER)), Signal(signed(_UPPER))
        bid_low, ask_low = Signal(_SCALE_BITS), Signal(_SCALE_BITS)
        with m.If(at[2]):
            m.d.sync += ask_low.eq(ask_early)
        with m.If(at[3]):
            m.d.sync += [ask.eq(_upper(ask_product)), bid_low.eq(bid_early)]
        with m.If(at[4]):
            m.d.sync += [bid.eq(_upper(bid_product)),
                         self.reach_bid.eq(Cat(bid_low[-1], _upper(bid_product)).as_signed() - less_edge)]
        m.d.sync += self.reach_ask.eq(Cat(ask_low[-1], ask).as_signed() + less_edge)

        # The bids come out one behind the other, so that one sum serves both. `second` is `at[4]`, unless an evaluation
        # is given up in that very cycle.
        second = Signal()
        m.d.sync += second.eq(at[3])
        early = ((bid_early, ask_low), (Mux(second, entry_early, ask_early), Mux(second, bid_low, bid_early)),
                 (entry_early, ask_low))
        addends = ((_upper(bid_product), ask),
                   (Mux(second, _upper(ask_product), _upper(entry)), Mux(second, _upper(bid_product), bid)),
                   (_upper(entry), ask))
        for n, (these, (a, b)) in enumerate(zip(early, addends, strict=True)):
            low = Signal(_SCALE_BITS + 1, name=f"low_{n}")
            m.d.sync += [low.eq(these[0] + these[1]),
                         self.refs[n].eq((Cat(1, a).as_signed() + Cat(low[-1], b).as_signed()) >> 1)]
            fraction, its = low[:_SCALE_BITS], {"bid": bid_low, "ask": ask_low}[STAYS[n]][:-1] << 1
            m.d.sync += self.beyond[n].eq(its < fraction if STAYS[n] == "ask" else fraction < its)
        m.d.comb += self.bound_notional.eq(ask_product)

        # Rounding away from the market.
        up = (1 << SUBTICK_BITS) - 1
        offset_bid, offset_ask, half_spread_up = Signal(signed(34)), Signal(signed(34)), Signal(25)
        m.d.sync += [half_spread_up.eq(p.half_spread_sub + up), offset_bid.eq(self.skew + p.half_spread_sub),
                     offset_ask.eq(half_spread_up - self.skew)]
        exact_bid, exact_ask = (Signal(signed(Reference.width + 1), name=name) for name in ("exact_bid", "exact_ask"))
        same = self.refs[REFERENCES.index((SAME, BID_SECOND))]
        m.d.comb += [exact_bid.eq(same - offset_bid), exact_ask.eq(same + offset_ask)]
        with m.If(at[5]):
            m.d.sync += [self.bid.eq(exact_bid >> SUBTICK_BITS), self.ask.eq(exact_ask >> SUBTICK_BITS)]
        return m


def _upper(product):
    """A price's product without its fraction."""
    return product[_SCALE_BITS:_SCALE_BITS + _UPPER].as_signed()


def _product(m, name, a, b):
    """``a * b`` two cycles later: four products of 16-bit limbs, then their sum. ``b`` is signed. Returned with its low
    16 bits a cycle earlier."""
    factors = {"low": (a[:16], b[:16]), "high": (a >> 16, b >> 16),
               "upper": (a >> 16, b[:16]), "lower": (a[:16], b >> 16)}
    parts = {what: Signal((x * y).shape(), name=f"{name}_{what}") for what, (x, y) in factors.items()}
    m.d.sync += [parts[what].eq(x * y) for what, (x, y) in factors.items()]
    product = Signal(signed(len(a) + len(b)), name=f"{name}_product")
    low = parts["low"]
    rest = sum_of_three(Cat(low[16:], parts["high"]).as_signed(), parts["upper"], parts["lower"])
    m.d.sync += product.eq(Cat(low[:16], rest[:len(product) - 16]))
    return product, low[:16]

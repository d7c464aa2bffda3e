"""Target quotes from best prices: reference mid, half spread, inventory skew, rounding away from the market."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control.params import PARAM_ROW

#: Fraction bits of a quote subtick.
SUBTICK_BITS = 8
_SCALE_BITS = 16    # fraction bits of ref_scale beyond the subtick
_SKEW_BITS = 8      # fraction bits of skew_q8


class QuoteEngine(wiring.Component):
    """Computes both target prices of one instrument.

    ::

        ref    = floor((best_bid + best_ask) * ref_scale / 2^16)          1/256 quote ticks
        skew   = clamp(floor((position - target) * skew_q8 / 2^8), +-skew_max)
        bid    = floor((ref - skew - half_spread) / 256)                  quote ticks
        ask    = ceil((ref - skew + half_spread) / 256)

    Members
    -------
    best_bid, best_ask : in(32, signed) feed ticks, and ``position`` : in(32, signed) lots, sampled in cycle 0.
    params : in(PARAM_ROW), held from cycle 0 to cycle 3.
    bid, ask : out(32, signed) quote ticks, and ``bid_ok``, ``ask_ok`` : out(1) they fit 32 bits; right in cycle
        ``LATENCY``. A new evaluation may start in every cycle.
    """

    LATENCY = 4

    def __init__(self):
        super().__init__({
            "best_bid": In(signed(32)), "best_ask": In(signed(32)), "position": In(signed(32)),
            "params": In(PARAM_ROW), "bid": Out(signed(32)), "ask": Out(signed(32)), "bid_ok": Out(1),
            "ask_ok": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p = self.params

        # Cycle 0: sums.
        mid2 = Signal(signed(33))
        excess = Signal(signed(33))
        m.d.sync += [mid2.eq(self.best_bid + self.best_ask), excess.eq(self.position - p.target_lots)]

        # Cycle 1: partial products, one row of 18-bit multipliers each.
        ref_low, ref_high = Signal(signed(50)), Signal(signed(50))
        skew_low, skew_high = Signal(signed(46)), Signal(signed(46))
        m.d.sync += [
            ref_low.eq(mid2 * p.ref_scale[:16]), ref_high.eq(mid2 * p.ref_scale[16:]),
            skew_low.eq(excess * p.skew_q8[:12]), skew_high.eq(excess * p.skew_q8[12:]),
        ]

        # Cycle 2: products, clamp. The low half only carries into the high one: floor is exact.
        ref = Signal(signed(51))
        skew_raw = Signal(signed(59))
        skew = Signal(signed(32))
        limit = Signal(signed(32))
        m.d.comb += [limit.eq(p.skew_max_sub), skew_raw.eq(((skew_high << 12) + skew_low) >> _SKEW_BITS)]
        m.d.sync += [
            ref.eq(ref_high + (ref_low >> _SCALE_BITS)),
            skew.eq(Mux(skew_raw > limit, limit, Mux(skew_raw < -limit, -limit, skew_raw))),
        ]

        # Cycle 3: offsets, rounding away from the market.
        for sign, price, ok in ((-1, self.bid, self.bid_ok), (1, self.ask, self.ask_ok)):
            exact = Signal(signed(53), name=f"exact_{'ask' if sign > 0 else 'bid'}")
            ticks = Signal(signed(46), name=f"ticks_{'ask' if sign > 0 else 'bid'}")
            up = (1 << SUBTICK_BITS) - 1 if sign > 0 else 0
            m.d.comb += [exact.eq(ref - skew + sign * p.half_spread_sub + up), ticks.eq(exact >> SUBTICK_BITS)]
            m.d.sync += [price.eq(ticks), ok.eq(ticks == ticks[:32].as_signed())]
        return m

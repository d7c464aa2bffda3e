"""The limits of one instrument, as far as they do not depend on the market: verdicts, and the approved windows."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.compare import less
from hdl.control.params import NOTIONAL_BITS, PARAM_ROW, SUBTICK_BITS, TICK_BITS, Ticks
from hdl.gate.exposure import LiveQuote, Position
from hdl.gate.holds import HOLDING, Held
from hdl.gate.load import OVER_BITS, Rooms
from hdl.sums import sum_of_three

#: Width of the reason bitmap.
REASONS = 32

#: One side's limits.
#:
#: Members
#: -------
#: fixed : Out(REASONS) bit *g* is set if G*g* fails whatever the price (G3, G5, G6, G6c, G6b, G9, G10, G11, G12 but
#:     for the age of equity, G13, G15, G17, G18, G20).
#: reduces : Out(1) it takes the position towards zero and not beyond, even with all that is open.
#: live : Out(1) something stands at the venue. ``live_px``, ``live_lots`` : what. These are not registered.
#: resize : Out(1) it has to be replaced whatever the price: another quantity, or a price that the limits do not allow
#:     any more.
#: up, down : Out(signed(TICK_BITS + 1)) what is live is replaced by a price of at least ``up``, or of at most ``down``.
#:     That of the two that is towards the market is beyond every price while ``young`` : Out(1) (G16), which is not
#:     registered; ``toward`` : Out(signed(TICK_BITS + 1)) is what it would be otherwise.
LimitSide = Signature({
    "fixed": Out(REASONS), "reduces": Out(1), "live": Out(1), "live_px": Out(Ticks), "live_lots": Out(24),
    "resize": Out(1), "up": Out(signed(TICK_BITS + 1)), "down": Out(signed(TICK_BITS + 1)),
    "toward": Out(signed(TICK_BITS + 1)), "young": Out(1),
})


class Limits(wiring.Component):
    """Works out what can be known of an instrument's limits before any price is.

    G5's band, G10's bound and G6's collar make one window of prices, ``low`` to ``high``: every price in it passes all
    three, whatever the quantity that ``fixed`` allows, and no price outside of it passes. Zero is no price unless the
    band spans it.

    G10 divides nothing: the host says up to which price the notional holds (``px_notional_ticks``), and the fabric
    checks that this price times the quantity does not exceed ``max_notional``.

    G12, G13: both sides may leave, each with the greatest quantity of either, whatever is kept: that, at the value of a
    lot, has to fit into what all instruments together have left of the limits. A side that reduces passes G12.

    G8: a side that is kept may not be reached by the other one as it is replaced. Between two prices of one evaluation
    lie at least both half spreads, rounded up; a side is replaced before it is that far from its own. One that is kept
    for its age is further from the other one than its own.

    Members
    -------
    at : in(8) bit *t* is set in cycle *t* of an evaluation: the inputs below hold still from its cycle 0 to 5, the
        parameters from that of their turn on; the results stand from its cycle 6 on (windows from cycle 3 on), until
        the next one: ``low``, ``high`` and the greatest quantities until its cycle 2. ``up`` and ``down`` stand from
        cycle 3 on as long as the inputs do.
    params : in(PARAM_ROW), live : in(LiveQuote), bid_live, ask_live : in(1), known : in(Position),
        position_known : in(1). ``bound_notional`` : in(NOTIONAL_BITS) right in cycle 5. ``collar_low``, ``collar_high``
        : in(Ticks) right in cycle 2, ``live_sides`` : in(10) from cycle 2 on, ``reference_ok`` : in(1), ``valued`` :
        in(1) and ``held`` : in(Held) from cycle 3 on. ``lot_value`` : in(32) from cycle 3 on, ``rooms`` :
        in(:class:`hdl.gate.load.Rooms`). ``live_most`` : in(10), ``off`` : in(len(HOLDING)) one bit each: that gate has
        no limits. ``bid_young``, ``ask_young`` : in(1) G16 keeps that side from moving towards the market.
    bid, ask : out(LimitSide). ``low``, ``high`` : out(Ticks). ``lots`` : out(24) the greatest quantity that G11
        has been asked for, one a side: ``bid_largest``, ``ask_largest``.
    """

    def __init__(self):
        super().__init__({
            "at": In(8), "params": In(PARAM_ROW), "live": In(LiveQuote), "bid_live": In(1), "ask_live": In(1),
            "known": In(Position), "position_known": In(1), "bound_notional": In(NOTIONAL_BITS),
            "collar_low": In(Ticks), "collar_high": In(Ticks), "reference_ok": In(1), "held": In(Held),
            "live_sides": In(10), "live_most": In(10), "off": In(len(HOLDING)), "bid_young": In(1), "ask_young": In(1),
            "lot_value": In(32), "valued": In(1), "rooms": In(Rooms),
            "bid": Out(LimitSide), "ask": Out(LimitSide), "low": Out(Ticks), "high": Out(Ticks),
            "bid_largest": Out(24), "ask_largest": Out(24)})

    def elaborate(self, platform):
        m = Module()
        p, at = self.params, self.at
        # Here and elsewhere `a < b` is the carry of a difference; `b > a` would be that and a test for zero behind it.
        # The window, in three steps.
        least, most = Signal(Ticks), Signal(Ticks)
        bound, low_bound = Signal(Ticks), Signal(Ticks)
        bounds_low, bounds_high = Signal(), Signal()
        m.d.comb += bound.eq(p.px_notional_ticks)
        # What is on the way goes by in every cycle: the inputs hold still until it has arrived. Only results are kept.
        m.d.sync += [least.eq(p.px_min_ticks | (p.px_min_ticks == 0)),
                     most.eq(p.px_max_ticks | -(p.px_max_ticks == 0)), low_bound.eq(-bound),
                     bounds_low.eq(less(least, low_bound)), bounds_high.eq(less(bound, most))]
        lowest, highest = Mux(bounds_low, low_bound, least), Mux(bounds_high, bound, most)
        with m.If(at[2]):
            m.d.sync += [self.low.eq(Mux(less(lowest, self.collar_low), self.collar_low, lowest)),
                         self.high.eq(Mux(less(self.collar_high, highest), self.collar_high, highest))]
        # Quantities, spread and the notional: the same for both sides.
        band, quantity, notional = Signal(4), Signal(), Signal(2)
        # The least moves that replace what is live; zero means any. A move away is one towards the other side.
        towards, away = Signal(TICK_BITS - 1), Signal(TICK_BITS - 1)
        # Both half spreads, rounded up, are no more than a move if they are less with what is rounded beside them; no
        # sum before a comparison.
        halves, rest = p.half_spread_sub[SUBTICK_BITS - 1:], p.half_spread_sub[:SUBTICK_BITS - 1].any()
        is_near, any_away = Cat(rest, halves) < Cat(1, p.away_ticks), p.away_ticks == 0
        m.d.sync += [towards.eq(p.toward_ticks | (p.toward_ticks == 0)),
                     away.eq(Mux(any_away, p.half_spread_sub.any(), Mux(is_near, halves + rest, p.away_ticks)))]
        # What would be live: all that is, without what is of this instrument, and its sides again.
        others, would_be, load = Signal(10), Signal(11), Signal()
        m.d.sync += [others.eq(self.live_sides - (self.bid_live + self.ask_live)),
                     would_be.eq(others + (p.bid_en + p.ask_en)), load.eq(self.live_most < would_be)]
        with m.If(at[3]):
            m.d.sync += [
                band.eq(Cat(p.quote_lots < p.q_min_lots, p.q_hard_lots < p.quote_lots, p.quote_lots == 0,
                            p.half_spread_sub == 0)),
                quantity.eq(p.max_lots < p.quote_lots), notional[1].eq(p.px_notional_ticks == 0),
            ]
        with m.If(at[5]):
            m.d.sync += notional[0].eq(Cat(p.max_notional_lo, p.max_notional_hi) < self.bound_notional)
        # What may leave, in money: a product of 24 by 32 bits, the low 18 of the lots in two multipliers.
        ask_more, most_live, most_lots = Signal(), Signal(24), Signal(24)
        live_lots = [Mux(getattr(self, f"{side}_live"), getattr(self.live, f"{side}_lots"), 0)
                     for side in ("bid", "ask")]
        m.d.sync += [ask_more.eq(live_lots[0] < live_lots[1]), most_live.eq(Mux(ask_more, live_lots[1], live_lots[0]))]
        with m.If(at[2]):
            m.d.sync += most_lots.eq(Mux(p.quote_lots < most_live, most_live, p.quote_lots))
        few, value, limb = 18, self.lot_value, 16
        product, upper_product = Signal(few + limb), Signal(few + 32 - limb)
        rest = [Signal(32 + 3, name=f"rest_{n}") for n in range(2)]
        amount = Signal(24 + 32)
        m.d.sync += [
            product.eq(most_lots[:few] * value[:limb]), upper_product.eq(most_lots[:few] * value[limb:]),
            *(part.eq(sum_of_three(*(Mux(most_lots[few + 3 * n + bit], value, 0) << bit for bit in range(3))))
              for n, part in enumerate(rest)),
            amount.eq(sum_of_three(product, upper_product << limb, (rest[0] + (rest[1] << 3)) << few)),
        ]

        def exceeds(amount, room):
            """No room has as many bits."""
            return amount[OVER_BITS:].any() | room[-1] | (room[:OVER_BITS] < amount[:OVER_BITS])

        gross = exceeds(Cat(0, amount), self.rooms.gross) | ~self.valued
        for name, sign, upper, lower in (("bid", 1, towards, away), ("ask", -1, away, towards)):
            self._side(m, name, sign, upper, lower, {
                5: band.any(), 6: ~self.reference_ok, 9: quantity, 26: ~self.reference_ok,
                13: load | exceeds(amount, getattr(self.rooms, name)) | ~self.valued}, notional.any(), gross)
        return m

    def _side(self, m, name, sign, upper, lower, both, notional, gross):
        p, at, out = self.params, self.at, getattr(self, name)
        live, live_px = getattr(self, f"{name}_live"), getattr(self.live, f"{name}_px")
        live_lots, sent = getattr(self.live, f"{name}_lots"), getattr(self.live, f"sent_{name}")
        held, settled = self.known.lots, getattr(self.known, f"settled_{name}")
        most = p.max_long_lots if sign > 0 else p.max_short_lots
        largest, drift = getattr(self, f"{name}_largest"), HOLDING.index(25)

        def register(shape, what):
            return Signal(shape, name=f"{name}_{what}")

        # Exposure if everything sent on this side trades, in the direction of the side, in four steps. What is live
        # may be repeated in place of the new quantity.
        open_lots, sum_, worst = register(32, "open"), register(signed(34), "sum"), register(signed(35), "worst")
        over, position_unknown, short = register(1, "over"), register(1, "unknown"), register(1, "short")
        other_lots, more_lots, outside = register(1, "other_lots"), register(1, "more_lots"), register(2, "outside")
        fixed = register(REASONS, "fixed_but_notional")
        # No price that is allowed comes near the greatest threshold, nor its inverse near the least.
        beyond, young, toward = (1 << TICK_BITS) - 1, getattr(self, f"{name}_young"), register(out.up.shape(), "toward")
        up, down = live_px + upper, live_px - lower
        m.d.comb += [out.fixed.eq(fixed), out.fixed[10].eq(notional), out.live.eq(live), out.live_px.eq(live_px),
                     out.live_lots.eq(live_lots), out.young.eq(young), out.toward.eq(toward)]
        m.d.sync += [
            open_lots.eq(sent - settled), position_unknown.eq(~self.position_known),
            short.eq(held[-1] if sign > 0 else ~held[-1] & held.any()),
            sum_.eq(open_lots + held if sign > 0 else open_lots - held),
            more_lots.eq(live & (p.quote_lots < live_lots)), other_lots.eq(live_lots != p.quote_lots),
            out.up.eq(Mux(young, beyond, up) if sign > 0 else up),
            out.down.eq(down if sign > 0 else Mux(young, ~beyond, down)), toward.eq(up if sign > 0 else down),
            worst.eq(sum_ + largest), over.eq(less(most, worst)),
            outside.eq(Cat(less(live_px, self.low), less(self.high, live_px))),
        ]
        with m.If(at[2]):
            m.d.sync += largest.eq(Mux(more_lots, live_lots, p.quote_lots))
        with m.If(at[4]):
            m.d.sync += out.reduces.eq(short & (worst[-1] | ~worst.any()))
        with m.If(at[5]):
            m.d.sync += [
                out.resize.eq(~live | other_lots | outside.any()),
                fixed[3].eq(~(p.sym_en & getattr(p, f"{name}_en"))), fixed[11].eq(position_unknown | over),
                fixed[12].eq(gross & ~out.reduces),
                *(fixed[gate].eq(fails) for gate, fails in both.items()),
                *(fixed[gate].eq(getattr(self.held, name)[n] | self.off[n])
                  for n, gate in enumerate(HOLDING) if gate != 25),
                # G6b: a side that reduces passes, but not without limits.
                fixed[25].eq((getattr(self.held, name)[drift] & ~out.reduces) | self.off[drift] | (p.drift_band == 0)),
            ]

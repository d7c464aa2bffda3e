"""The gate on a price: passes, trims or drops a candidate, and says why."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.compare import less
from hdl.control.params import PARAM_ROW, TICK_BITS, Ticks
from hdl.control.registers import ACTIVE, HALTED, REDUCING
from hdl.gate.limits import REASONS, LimitSide
from hdl.quote.engine import Candidate

#: What can change from one cycle to the next, as it was in the cycle in which a frame started or could have.
#:
#: Members
#: -------
#: state : Out(2), kill_pin, heartbeat_ok, limits_ok, session_up, new_ok, cancel_ok, equity_ok : Out(1)
#: can_send : Out(1) the port would have taken a frame, and trading was allowed. fouled : Out(1) what the verdict was
#:     made of had changed meanwhile. fired : Out(1) a frame started.
#: cycle : Out(64) when that was.
Moment = Signature({"state": Out(2), "kill_pin": Out(1), "heartbeat_ok": Out(1), "limits_ok": Out(1),
                    "session_up": Out(1), "new_ok": Out(1), "cancel_ok": Out(1), "equity_ok": Out(1),
                    "can_send": Out(1), "fired": Out(1), "fouled": Out(1), "cycle": Out(64)})


#: Wider than any limit on a price.
Compared = signed(TICK_BITS + 2)


class Gate(wiring.Component):
    """Passes, trims or drops a candidate.

    Two steps. In the first the candidate is held against what cannot change while an evaluation is under way; in the
    second the results meet the moment of the decision.

    A side that fails a gate is taken away if it is live. A side that passes is replaced if it is not live, its quantity
    changed, its price is not allowed any more, or its price moved by the threshold of its direction; otherwise it is
    kept as it is. Without tokens (G14) nothing is replaced, and sides are still taken away. A side that passes and that
    its age alone keeps from moving towards the market (G16) has bit 16 among the reasons, which blocks nothing.

    Members
    -------
    Step 1: ``bid``, ``ask`` : in(Candidate) candidate in quote ticks, ``params`` : in(PARAM_ROW) and ``bid_limits``,
    ``ask_limits`` : in(LimitSide) stand from the cycle before ``en`` : in(1) until step 2 is over. With ``en``:
    ``book_ok`` : in(1); ``bid_moved``, ``ask_moved`` : in(1) the candidate, if the limits allow it, is as far from what
    is live as replaces that; ``bid_takes``, ``ask_takes`` : in(1) G7 fails; ``far`` : in(1) G6c does. ``collar_low``,
    ``collar_high`` : in(Ticks) G6, stand as the parameters do.

    Step 2, from the cycle after on: ``moment`` : in(Moment); ``reasons`` : out(32) bit *g* is set if G*g* failed on any
    side; ``bid_ok``, ``ask_ok`` : out(1) the side passed; ``emit`` : out(1) a frame has to leave; ``is_new`` : out(1)
    it replaces at least one side, the bid if ``bid_new`` : out(1), the ask if ``ask_new`` : out(1); ``rate_blocked`` :
    out(1) G14 held a side back; ``bid_px``, ``ask_px`` : out(Ticks), ``bid_lots``, ``ask_lots`` : out(24) what the
    frame says (0 lots: the side is not quoted).
    """

    def __init__(self):
        sides = {}
        for side in ("bid", "ask"):
            sides |= {side: In(Candidate), f"{side}_limits": In(LimitSide), f"{side}_moved": In(1),
                      f"{side}_takes": In(1), f"{side}_ok": Out(1), f"{side}_new": Out(1), f"{side}_px": Out(Ticks),
                      f"{side}_lots": Out(24)}
        super().__init__(sides | {
            "en": In(1), "book_ok": In(1), "far": In(1), "collar_low": In(Ticks), "collar_high": In(Ticks),
            "params": In(PARAM_ROW), "moment": In(Moment), "reasons": Out(REASONS),
            "emit": Out(1), "is_new": Out(1), "rate_blocked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p, moment = self.params, self.moment

        # Step 2, both sides.
        now, now_ok = Signal(REASONS), Signal()
        m.d.comb += [
            now[0].eq((moment.state != ACTIVE) & (moment.state != REDUCING)),
            now[1].eq(~moment.heartbeat_ok),
            now[2].eq(~moment.limits_ok),
            now[22].eq((moment.state == HALTED) | moment.kill_pin),
            now[24].eq(~moment.session_up),
            now_ok.eq(now[:24] == 0),       # without a session nothing leaves anyway
        ]

        def side(name):
            limits = getattr(self, f"{name}_limits")

            def named(shape, what):
                return Signal(shape, name=f"{name}_{what}")

            # Step 1. Nothing that a price is compared with is as wide as it: beyond them one is like another.
            exact = getattr(self, name)
            px, last = exact[:Compared.width].as_signed(), Compared.width - 1
            below, above = named(1, "below"), named(1, "above")
            under_min, over_max, under_bound, over_bound, under_collar, over_collar, zero = (
                named(1, what) for what in (
                    "under_min", "over_max", "under_bound", "over_bound", "under_collar", "over_collar", "zero"))
            bound, forbidden = named(signed(TICK_BITS + 1), "bound"), named(1, "forbidden")
            nears, waits = named(1, "nears"), named(1, "waits")     # G16
            m.d.comb += bound.eq(p.px_notional_ticks)
            m.d.sync += [
                below.eq(exact[-1] & ~exact[last:].all()), above.eq(~exact[-1] & exact[last:].any()),
                under_min.eq(less(px, p.px_min_ticks)), over_max.eq(less(p.px_max_ticks, px)),
                under_bound.eq(~less(~px, bound)), over_bound.eq(less(bound, px)),    # ~px is -px - 1
                under_collar.eq(less(px, self.collar_low)), over_collar.eq(less(self.collar_high, px)),
                nears.eq(~less(px, limits.toward) if name == "bid" else ~less(limits.toward, px)),
                zero.eq(exact == 0), forbidden.eq((p.px_min_ticks >= 0) | (p.px_max_ticks <= 0)),
            ]
            fixed, fits, changed = named(REASONS, "fixed"), named(1, "fits"), named(1, "changed")
            on_price = {4: ~self.book_ok, 5: below | above | under_min | over_max | (zero & forbidden),
                        6: below | above | under_collar | over_collar, 7: getattr(self, f"{name}_takes"),
                        10: below | above | under_bound | over_bound, 26: self.far}
            reasons_now = Cat(limits.fixed[g] | on_price.get(g, 0) for g in range(REASONS))
            with m.If(self.en):
                m.d.sync += [fixed.eq(reasons_now), fits.eq(reasons_now == 0),
                             changed.eq(limits.resize | getattr(self, f"{name}_moved")),
                             waits.eq(limits.young & ~limits.resize & nears)]

            # Step 2.
            reasons, ok = named(REASONS, "reasons"), getattr(self, f"{name}_ok")
            replace, keep, pull = named(1, "replace"), named(1, "keep"), named(1, "pull")
            grows = Signal(REASONS, name=f"{name}_grows")   # what only a side that reduces passes
            m.d.comb += [
                grows[0].eq((moment.state == REDUCING) & ~limits.reduces),
                grows[12].eq(~moment.equity_ok & ~limits.reduces),
                reasons.eq(fixed | now | grows | Mux(waits & ok, 1 << 16, 0)),
                ok.eq(fits & now_ok & ~grows[0] & ~grows[12]),
                replace.eq(ok & changed & moment.new_ok), getattr(self, f"{name}_new").eq(replace),
                keep.eq(limits.live & ok & ~(changed & moment.new_ok)),
                pull.eq(limits.live & ~ok),
                getattr(self, f"{name}_px").eq(
                    Mux(replace, exact[:TICK_BITS].as_signed(), Mux(keep, limits.live_px, 0))),
                getattr(self, f"{name}_lots").eq(Mux(replace, p.quote_lots, Mux(keep, limits.live_lots, 0))),
            ]
            return reasons, ok & changed, replace, pull

        bid_reasons, bid_wants, bid_replace, bid_pull = side("bid")
        ask_reasons, ask_wants, ask_replace, ask_pull = side("ask")
        m.d.comb += [
            self.rate_blocked.eq((bid_wants | ask_wants) & ~moment.new_ok),
            self.reasons.eq(bid_reasons | ask_reasons),
            self.is_new.eq(bid_replace | ask_replace),
            self.emit.eq((bid_replace | ask_replace | bid_pull | ask_pull) & moment.session_up),
        ]
        with m.If(self.rate_blocked):
            m.d.comb += self.reasons[14].eq(1)
        return m

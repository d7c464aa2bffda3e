"""The gate on a price: passes, trims or drops a candidate, and says why."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.control.params import PARAM_ROW
from hdl.control.registers import ACTIVE, HALTED, REDUCING
from hdl.gate.limits import REASONS, LimitSide

#: What can change from one cycle to the next, as it was in the cycle in which a frame started or could have.
#:
#: Members
#: -------
#: state : Out(2), kill_pin, heartbeat_ok, session_up, new_ok, cancel_ok : Out(1)
#: can_send : Out(1) the port would have taken a frame, and trading was allowed. fouled : Out(1) what the verdict was
#:     made of had changed meanwhile. fired : Out(1) a frame started.
#: cycle : Out(64) when that was.
Moment = Signature({"state": Out(2), "kill_pin": Out(1), "heartbeat_ok": Out(1), "session_up": Out(1),
                    "new_ok": Out(1), "cancel_ok": Out(1), "can_send": Out(1), "fired": Out(1), "fouled": Out(1),
                    "cycle": Out(64)})


#: Wider than any limit on a price.
Compared = signed(34)


class Gate(wiring.Component):
    """Passes, trims or drops a candidate.

    Two steps. In the first the candidate is held against what cannot change while an evaluation is under way; in the
    second the results meet the moment of the decision.

    A side that fails a gate is taken away if it is live. A side that passes is replaced if it is not live, its quantity
    changed, its price is not allowed any more, or its price moved by the threshold of its direction; otherwise it is
    kept as it is. Without tokens (G14) nothing is replaced, and sides are still taken away.

    Members
    -------
    Step 1, with ``en`` : in(1): ``bid``, ``ask`` : in(44, signed) candidate in quote ticks; ``book_ok`` : in(1);
    ``params`` : in(PARAM_ROW); ``bid_limits``, ``ask_limits`` : in(LimitSide).

    Step 2, from the cycle after on: ``moment`` : in(Moment); ``reasons`` : out(32) bit *g* is set if G*g* failed on any
    side; ``bid_ok``, ``ask_ok`` : out(1) the side passed; ``emit`` : out(1) a frame has to leave; ``is_new`` : out(1)
    it replaces at least one side; ``rate_blocked`` : out(1) G14 held a side back; ``bid_px``, ``ask_px`` : out(32,
    signed), ``bid_lots``, ``ask_lots`` : out(24) what the frame says (0 lots: the side is not quoted).
    """

    def __init__(self):
        sides = {}
        for side in ("bid", "ask"):
            sides |= {side: In(signed(44)), f"{side}_limits": In(LimitSide), f"{side}_ok": Out(1),
                      f"{side}_px": Out(signed(32)), f"{side}_lots": Out(24)}
        super().__init__(sides | {
            "en": In(1), "book_ok": In(1), "params": In(PARAM_ROW), "moment": In(Moment), "reasons": Out(REASONS),
            "emit": Out(1), "is_new": Out(1), "rate_blocked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p, moment = self.params, self.moment

        # Step 2, both sides.
        now = Signal(REASONS)
        m.d.comb += [
            now[0].eq((moment.state != ACTIVE) & (moment.state != REDUCING)),
            now[1].eq(~moment.heartbeat_ok),
            now[22].eq((moment.state == HALTED) | moment.kill_pin),
            now[24].eq(~moment.session_up),
        ]
        lots = Signal(24)
        with m.If(self.en):
            m.d.sync += lots.eq(p.quote_lots)

        def side(name):
            limits = getattr(self, f"{name}_limits")

            def named(shape, what):
                return Signal(shape, name=f"{name}_{what}")

            # Nothing that a price is compared with is as wide as it: beyond them one is like another.
            exact = getattr(self, name)
            px, last = exact[:Compared.width].as_signed(), Compared.width - 1
            below, above = exact[-1] & ~exact[last:].all(), ~exact[-1] & exact[last:].any()

            def over(limit):
                return above | (~below & (px > limit))

            def under(limit):
                return below | (~above & (px < limit))

            # Step 1.
            fixed, changed, target = named(REASONS, "fixed"), named(1, "changed"), named(signed(32), "target")
            bound = named(signed(33), "bound")
            m.d.comb += bound.eq(p.px_notional_ticks)
            spans = (p.px_min_ticks < 0) & (p.px_max_ticks > 0)
            on_price = {4: ~self.book_ok, 5: under(p.px_min_ticks) | over(p.px_max_ticks) | ((exact == 0) & ~spans),
                        10: below | (~px >= bound) | over(bound)}     # ~px is -px - 1
            with m.If(self.en):
                m.d.sync += [
                    fixed.eq(Cat(limits.fixed[g] | on_price.get(g, 0) for g in range(REASONS))),
                    changed.eq(limits.resize | ~under(limits.up) | under(limits.down)),
                    target.eq(exact),
                ]

            # Step 2.
            reasons, ok = named(REASONS, "reasons"), getattr(self, f"{name}_ok")
            replace, keep, pull = named(1, "replace"), named(1, "keep"), named(1, "pull")
            m.d.comb += [
                reasons.eq(fixed | now),
                ok.eq(reasons[:24] == 0),   # without a session nothing leaves anyway
            ]
            with m.If((moment.state == REDUCING) & ~limits.reduces):
                m.d.comb += reasons[0].eq(1)
            m.d.comb += [
                replace.eq(ok & changed & moment.new_ok),
                keep.eq(limits.live & ok & ~(changed & moment.new_ok)),
                pull.eq(limits.live & ~ok),
                getattr(self, f"{name}_px").eq(Mux(replace, target, Mux(keep, limits.live_px, 0))),
                getattr(self, f"{name}_lots").eq(Mux(replace, lots, Mux(keep, limits.live_lots, 0))),
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

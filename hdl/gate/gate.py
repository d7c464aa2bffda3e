"""The gate: every control on a candidate quote, all in parallel, and what is left of the candidate."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control.params import PARAM_ROW
from hdl.control.registers import ACTIVE, HALTED, REDUCING
from hdl.gate.exposure import LiveQuote

#: Width of the reason bitmap.
REASONS = 32


class Gate(wiring.Component):
    """Passes, trims or drops a candidate.

    Two stages. In stage 0 the candidate is held against everything that cannot change while an evaluation is in flight
    (limits, positions, what is live); in stage 1 the results meet what can (state, kill, dead-man, tokens), so that no
    quote starts in the cycle after any of these said no.

    A side that fails a gate is taken away if it is live. A side that passes is replaced if it is not live, its quantity
    changed, or its price moved by the threshold of its direction; otherwise it is kept as it is. Without tokens (G14)
    nothing is replaced, and sides are still taken away.

    Members
    -------
    Stage 0: ``bid``, ``ask`` : in(32, signed) candidate in quote ticks; ``bid_fits``, ``ask_fits`` : in(1);
    ``book_ok`` : in(1); ``params`` : in(PARAM_ROW); ``live`` : in(LiveQuote), ``bid_live``, ``ask_live`` : in(1);
    ``position`` : in(32, signed), ``position_known`` : in(1), ``open_bid``, ``open_ask`` : in(32).

    Stage 1, in: ``state`` (2), ``kill_pin`` (1), ``heartbeat_ok`` (1), ``session_up`` (1), ``new_ok`` (1).

    Stage 1, out: ``reasons`` (32) bit *g* is set if G*g* failed on any side; ``bid_ok``, ``ask_ok`` (1) the side
    passed; ``emit`` (1) a frame has to leave; ``is_new`` (1) it replaces at least one side; ``rate_blocked`` (1) G14
    held a side back; ``bid_px``, ``ask_px`` (32, signed), ``bid_lots``, ``ask_lots`` (24) what the frame says (0 lots:
    the side is not quoted); ``add_bid``, ``add_ask`` (24) lots that can trade in addition, kept sides included.

    Latency: stage 1 is one cycle after stage 0.
    """

    def __init__(self):
        sides = {}
        for side in ("bid", "ask"):
            sides |= {side: In(signed(32)), f"{side}_fits": In(1), f"{side}_live": In(1), f"open_{side}": In(32),
                      f"{side}_ok": Out(1), f"{side}_px": Out(signed(32)), f"{side}_lots": Out(24),
                      f"add_{side}": Out(24)}
        super().__init__(sides | {
            "book_ok": In(1), "params": In(PARAM_ROW), "live": In(LiveQuote), "position": In(signed(32)),
            "position_known": In(1), "state": In(2), "kill_pin": In(1), "heartbeat_ok": In(1), "session_up": In(1),
            "new_ok": In(1), "reasons": Out(REASONS), "emit": Out(1), "is_new": Out(1), "rate_blocked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p = self.params

        # Stage 1, both sides: what may change from one cycle to the next.
        halted = Signal()
        now = Signal(REASONS)
        m.d.comb += [
            halted.eq((self.state == HALTED) | self.kill_pin),
            now[0].eq((self.state != ACTIVE) & (self.state != REDUCING)),
            now[1].eq(~self.heartbeat_ok),
            now[22].eq(halted),
            now[24].eq(~self.session_up),
        ]
        lots, notional_limit = Signal(24), Signal(64)
        m.d.sync += [lots.eq(p.quote_lots), notional_limit.eq(Cat(p.max_notional_lo, p.max_notional_hi))]

        def side(name, sign):
            px, live = getattr(self, name), getattr(self, f"{name}_live")
            live_px, live_lots = getattr(self.live, f"{name}_px"), getattr(self.live, f"{name}_lots")
            open_lots = getattr(self, f"open_{name}")

            def named(shape, what):
                return Signal(shape, name=f"{name}_{what}")

            # Stage 0. Exposure if everything sent on this side trades, in the direction of the side.
            worst = named(signed(35), "worst")
            held = named(signed(33), "held")
            # What is live may be repeated in place of the new quantity.
            largest = Mux(live & (live_lots > p.quote_lots), live_lots, p.quote_lots)
            m.d.comb += [held.eq(self.position if sign > 0 else -self.position),
                         worst.eq(held + open_lots + largest)]
            limit = p.max_long_lots if sign > 0 else p.max_short_lots
            magnitude = named(32, "magnitude")
            m.d.comb += magnitude.eq(Mux(px < 0, -px, px))
            towards, away = named(signed(33), "towards"), named(signed(33), "away")
            m.d.comb += [towards.eq(px - live_px if sign > 0 else live_px - px), away.eq(-towards)]
            fixed = named(REASONS, "fixed")
            notional = named(56, "notional")
            reduces, changed, held_live = named(1, "reduces"), named(1, "changed"), named(1, "held_live")
            target, held_px = named(signed(32), "target"), named(signed(32), "held_px")
            held_lots = named(24, "held_lots")
            m.d.sync += [
                fixed[3].eq(~(p.sym_en & getattr(p, f"{name}_en"))),
                fixed[4].eq(~self.book_ok),
                fixed[5].eq((px < p.px_min_ticks) | (px > p.px_max_ticks) | (px == 0) | ~getattr(self, f"{name}_fits")
                            | (p.quote_lots < p.q_min_lots) | (p.quote_lots > p.q_hard_lots) | (p.quote_lots == 0)
                            | (p.half_spread_sub == 0)),
                fixed[9].eq(p.quote_lots > p.max_lots),
                fixed[11].eq(~self.position_known | (worst > limit)),
                notional.eq(magnitude * p.quote_lots),
                # It reduces if even with all that is open the position does not change its sign.
                reduces.eq((held < 0) & (worst <= 0)),
                changed.eq(~live | (live_lots != p.quote_lots)
                           | (towards > 0) & (towards >= p.toward_ticks) | (away > 0) & (away >= p.away_ticks)),
                held_live.eq(live), target.eq(px), held_px.eq(live_px), held_lots.eq(live_lots),
            ]

            # Stage 1.
            reasons, ok = named(REASONS, "reasons"), getattr(self, f"{name}_ok")
            replace, keep, pull = named(1, "replace"), named(1, "keep"), named(1, "pull")
            m.d.comb += [
                reasons.eq(fixed | now),
                reasons[10].eq(notional > notional_limit),
                ok.eq(reasons[:24] == 0),   # without a session nothing leaves anyway
            ]
            with m.If((self.state == REDUCING) & ~reduces):
                m.d.comb += reasons[0].eq(1)
            m.d.comb += [
                replace.eq(ok & changed & self.new_ok),
                keep.eq(held_live & ok & ~(changed & self.new_ok)),
                pull.eq(held_live & ~ok),
                getattr(self, f"{name}_px").eq(Mux(replace, target, Mux(keep, held_px, 0))),
                getattr(self, f"{name}_lots").eq(Mux(replace, lots, Mux(keep, held_lots, 0))),
                # A side that is repeated counts again: the venue fills it up if part of it has traded meanwhile.
                getattr(self, f"add_{name}").eq(getattr(self, f"{name}_lots")),
            ]
            return reasons, ok & changed, replace, pull

        bid_reasons, bid_wants, bid_replace, bid_pull = side("bid", 1)
        ask_reasons, ask_wants, ask_replace, ask_pull = side("ask", -1)
        m.d.comb += [
            self.rate_blocked.eq((bid_wants | ask_wants) & ~self.new_ok),
            self.reasons.eq(bid_reasons | ask_reasons),
            self.is_new.eq(bid_replace | ask_replace),
            self.emit.eq((bid_replace | ask_replace | bid_pull | ask_pull) & self.session_up),
        ]
        with m.If(self.rate_blocked):
            m.d.comb += self.reasons[14].eq(1)
        return m

"""The gate on hypotheses: what would have to be done, for every book that the next entry may make."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.control.params import PARAM_ROW, SUBTICK_BITS, TICK_BITS, Ticks
from hdl.gate.limits import LimitSide
from hdl.gate.references import Whole
from hdl.quote.engine import HYPOTHESES, REFERENCES, SAME, STAYS, Reach, References

#: Wide enough for the threshold of any limit, with any skew and half spread.
Threshold = signed(TICK_BITS + 10)
#: What lies between a reference without skew and its price in 1/256: the half spread, and what rounding adds.
Offset = signed(26)

class Verdict(data.Struct):
    """``want``: a side passes every gate and has to be quoted anew. ``pull``: one that is live fails a gate."""

    want: 1
    pull: 1


class Hypotheses(wiring.Component):
    """Holds every hypothesis against every limit, before it is known which one comes true.

    A price is never formed: ``bid >= x`` is ``ref >= 256 x + skew + half_spread``, so that the limits are brought to
    the reference once, and each reference is compared with all of them. A side is right if it passes G3 to G13 and
    G15, and G0 of REDUCING; the rest of G0, G1, G14 and G22 can change at any time and are asked in the very cycle in
    which a quote starts.

    Every reference is held against ten thresholds. Two of them come a cycle before the others, so that two sets of
    comparators serve two references each. A reference that is wider than the thresholds can be belongs to a price that
    no limit allows.

    Members
    -------
    at : in(8) bit *t* is set in cycle *t* of an evaluation. ``params`` : in(PARAM_ROW), ``refs`` : in(References) and
        ``skew`` : in(32, signed) as :class:`hdl.quote.engine.QuoteEngine` gives them; ``bid``, ``ask`` : in(LimitSide),
        ``low``, ``high`` : in(Ticks) as :class:`hdl.gate.limits.Limits` does. ``reach_bid``, ``reach_ask`` :
        in(Reach), ``beyond`` : in(1 a reference), ``leans_up`` : in(1) as the engine gives them. ``mid_low``,
        ``mid_high`` : in(Whole) as :class:`hdl.gate.references.References` does.
    book_ok : in(HYPOTHESES) G4 under each hypothesis, right in cycle 7. ``reducing`` : in(1).
    verdicts : out(array of :class:`Verdict`), combinational in cycle 7, from flip-flops, and in no other. ``pull_all``
        : out(1) something is live: what has to be done if the book has no best price. ``bid_moved``, ``ask_moved`` :
        out(1) under ``SAME`` the price of that side, if the limits allow it, is as far from what is live as replaces
        that; from cycle 7 on, and with it ``bid_takes``, ``ask_takes`` : out(1) G7 fails, ``far`` : out(1) G6c does.
    """

    def __init__(self):
        super().__init__({
            "at": In(8), "params": In(PARAM_ROW), "refs": In(References), "skew": In(signed(32)), "bid": In(LimitSide),
            "ask": In(LimitSide), "low": In(Ticks), "high": In(Ticks), "reach_bid": In(Reach), "reach_ask": In(Reach),
            "beyond": In(len(REFERENCES)), "leans_up": In(1), "mid_low": In(Whole), "mid_high": In(Whole),
            "book_ok": In(HYPOTHESES), "reducing": In(1), "verdicts": Out(data.ArrayLayout(Verdict, HYPOTHESES)),
            "pull_all": Out(1), "bid_moved": Out(1), "ask_moved": Out(1), "bid_takes": Out(1), "ask_takes": Out(1),
            "far": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p, at = self.params, self.at
        found = {}
        # The low eight bits of an offset are those of each of its thresholds before the skew.
        bid_offset, ask_offset = Signal(Offset), Signal(Offset)
        m.d.comb += bid_offset.eq(p.half_spread_sub)
        m.d.sync += ask_offset.eq(-255 - p.half_spread_sub)
        for name, limits, offset in (("bid", self.bid, bid_offset), ("ask", self.ask, ask_offset)):
            # `limit[x]` is the least reference for which the price is at least x; `more`: above x.
            limit, above = [], offset >> 8
            for what, px, more in (("low", self.low, 0), ("high", self.high, 1), ("up", limits.up, 0),
                                   ("down", limits.down, 1)):
                base = Signal(Threshold.width - 8, name=f"{name}_{what}_base")
                final = Signal(Threshold, name=f"{name}_{what}_limit")
                m.d.sync += [base.eq(px - ~above if more else px + above),      # - ~x is x + 1
                             final.eq(Cat(offset[:8], base).as_signed() + self.skew)]
                limit.append(final)
            # Right but for the price; that, and to be quoted anew whatever the price.
            static, stirs = Signal(name=f"{name}_static"), Signal(name=f"{name}_stirs")
            may = (limits.fixed == 0) & (limits.reduces | ~self.reducing)
            with m.If(at[6]):
                m.d.sync += [static.eq(may), stirs.eq(may & limits.resize)]
            found[name] = limits, static, stirs, limit

        # What is found in cycle 5 is kept, what is found in cycle 6 is used at once.
        of = {h: {} for h in range(HYPOTHESES)}     # what is found, by its name

        def find(n, what, value):
            now, kept = (Signal(name=f"{what}_{n}_{when}") for when in ("now", "kept"))
            m.d.sync += now.eq(value)
            with m.If(at[6]):
                m.d.sync += kept.eq(now)
            for h, its in zip(REFERENCES[n], (kept, now), strict=True):
                if h is not None:
                    of[h][what] = its

        risky = {"bid": self.leans_up, "ask": ~self.leans_up}
        for n in range(len(REFERENCES)):
            ref = self.refs[n]
            fits = (ref >> (Threshold.width - 1) == 0) | (ref >> (Threshold.width - 1) == -1)
            near = ref[:Threshold.width].as_signed()
            whole = near >> SUBTICK_BITS
            # Further, or as far and beyond it by the fraction: one bit more on either side.
            takes = (less(Cat(0, self.reach_ask).as_signed(), Cat(self.beyond[n], ref).as_signed())
                     if STAYS[n] == "ask" else
                     less(Cat(0, ref).as_signed(), Cat(self.beyond[n], self.reach_bid).as_signed()))
            far = ~fits | less(whole, self.mid_low) | ~less(whole, self.mid_high)
            find(n, "far", far)
            for side, (_, _, _, (low, high, up, down)) in found.items():
                find(n, f"{side}_inside", ~less(near, low) & less(near, high))  # what does not fit is far
                find(n, f"{side}_moved", ~less(near, up) | less(near, down))
                find(n, f"{side}_takes", takes & risky[side])

        for h, its in of.items():
            # Few LUTs deep each: the trigger byte waits for these. A feed that is far is as bad as a book that is not
            # known: neither side is right.
            want, pull, market_ok = [], [], self.book_ok[h] & ~its["far"]
            for side, (limits, static, stirs, _) in found.items():
                inside = its[f"{side}_inside"] & ~its[f"{side}_takes"]
                want.append(inside & (stirs | (static & its[f"{side}_moved"])))
                pull.append(limits.live & ~(static & inside))
            m.d.comb += [self.verdicts[h].want.eq(market_ok & Cat(want).any()),
                         self.verdicts[h].pull.eq(Cat(pull).any() | (self.pull_all & ~market_ok))]
        m.d.comb += [self.pull_all.eq(self.bid.live | self.ask.live),
                     *(getattr(self, what).eq(of[SAME][what])
                       for what in ("bid_moved", "ask_moved", "bid_takes", "ask_takes", "far"))]
        return m

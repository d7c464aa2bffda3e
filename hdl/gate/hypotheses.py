"""The gate on hypotheses: what would have to be done, for every book that the next entry may make."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.control.params import PARAM_ROW
from hdl.gate.limits import LimitSide
from hdl.quote.engine import HYPOTHESES, References


class Verdict(data.Struct):
    """``want``: a side passes every gate and has to be quoted anew. ``pull``: one that is live fails a gate."""

    want: 1
    pull: 1


class Hypotheses(wiring.Component):
    """Holds every hypothesis against every limit, before it is known which one comes true.

    A price is never formed: ``bid >= x`` is ``ref >= 256 x + skew + half_spread``, so that the limits are brought to
    the reference once, and each reference is compared with all of them. A side is right if it passes G3, G4, G5, G9,
    G10 and G11, and G0 of REDUCING; the rest of G0, G1, G14 and G22 can change at any time and are asked in the very
    cycle in which a quote starts.

    Members
    -------
    at : in(8) bit *t* is set in cycle *t* of an evaluation. ``params`` : in(PARAM_ROW), ``refs`` : in(References) and
        ``skew`` : in(32, signed) as :class:`hdl.quote.engine.QuoteEngine` gives them; ``bid``, ``ask`` : in(LimitSide),
        ``low``, ``high`` : in(32, signed) as :class:`hdl.gate.limits.Limits` does.
    book_ok : in(HYPOTHESES) G4 under each hypothesis, right in cycle 7. ``reducing`` : in(1).
    verdicts : out(array of :class:`Verdict`), combinational in cycle 7, from flip-flops. ``pull_all`` : out(1)
        something is live: what has to be done if the book has no best price.
    """

    def __init__(self):
        super().__init__({
            "at": In(8), "params": In(PARAM_ROW), "refs": In(References), "skew": In(signed(32)), "bid": In(LimitSide),
            "ask": In(LimitSide), "low": In(signed(32)), "high": In(signed(32)), "book_ok": In(HYPOTHESES),
            "reducing": In(1), "verdicts": Out(data.ArrayLayout(Verdict, HYPOTHESES)), "pull_all": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p, at = self.params, self.at
        found = {}
        for name, limits in (("bid", self.bid), ("ask", self.ask)):
            # `limit[x]` is the least reference for which the price is at least x.
            limit = []
            for what, px, more in (("low", self.low, 0), ("high", self.high, 1), ("up", limits.up, 0),
                                   ("down", limits.down, 0)):
                base = Signal(signed(44), name=f"{name}_{what}_base")
                final = Signal(signed(45), name=f"{name}_{what}_limit")
                offset = 256 * more - (255 if name == "ask" else 0)
                with m.If(at.any()):
                    half_spread = p.half_spread_sub if name == "bid" else -p.half_spread_sub
                    m.d.sync += base.eq((px << 8) + half_spread + offset)
                with m.If(at[5]):
                    m.d.sync += final.eq(base + self.skew)
                limit.append(final)
            static = Signal(name=f"{name}_static")
            with m.If(at[6]):
                m.d.sync += static.eq((limits.fixed == 0) & (limits.reduces | ~self.reducing))
            found[name] = limits, static, limit

        for h in range(HYPOTHESES):
            want, pull = [], []
            for name, (limits, static, (low, high, up, down)) in found.items():
                inside, moved = Signal(name=f"{name}_inside_{h}"), Signal(name=f"{name}_moved_{h}")
                ref = self.refs[h]
                with m.If(at[6]):
                    m.d.sync += [inside.eq((ref >= low) & ~(ref >= high)), moved.eq((ref >= up) | ~(ref >= down))]
                right = static & self.book_ok[h] & inside
                want.append(right & (limits.resize | moved))
                pull.append(limits.live & ~right)
            m.d.comb += [self.verdicts[h].want.eq(Cat(want).any()), self.verdicts[h].pull.eq(Cat(pull).any())]
        m.d.comb += self.pull_all.eq(self.bid.live | self.ask.live)
        return m

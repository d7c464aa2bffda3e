"""The last thing before the encoder: what leaves lies in the window that the gate has approved, or does not leave."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.control.params import Ticks


class Window(wiring.Component):
    """Clamps both sides of a quote into what has been approved.

    The gate has decided before the first preamble byte; what the frame says is worked out in the shadow of its
    headers. Whatever comes out of that, a price below ``low`` leaves as ``low``, one above ``high`` as ``high``, and
    more lots than ``bid_most`` as so many. A window without a price in it (``low`` above ``high``) lets no lots
    through, and sides that would meet or cross leave with none, both of them (G8).

    Members
    -------
    en : in(1) take the quote and the window of this cycle. At most every other cycle.
    bid_px, ask_px : in(Ticks), bid_lots, ask_lots : in(24) the quote; 0 lots: the side is not quoted.
    low, high : in(Ticks), bid_most, ask_most : in(24) the window. They and the quote hold still in the cycle after
        ``en``.
    bid_ticks, ask_ticks : out(Ticks), bid_quantity, ask_quantity : out(24) what leaves, from the second cycle
        after ``en`` on until the second one after the next. A side of 0 lots has price 0. ``bid_some``,
        ``ask_some`` : out(1) it has more.
    clamped : out(1) strobe, in the second cycle after ``en``: something lay outside. met : out(1) likewise: both sides
        were quoted, and met.

    Proved for all inputs in ``tests/hdl/gate/test_window.py``.
    """

    def __init__(self):
        super().__init__({
            "en": In(1), "low": In(Ticks), "high": In(Ticks), "clamped": Out(1), "met": Out(1),
            **{f"{side}_{what}": In(shape) for side in ("bid", "ask")
               for what, shape in (("px", Ticks), ("lots", 24), ("most", 24))},
            **{f"{side}_{what}": Out(shape) for side in ("bid", "ask")
               for what, shape in (("ticks", Ticks), ("quantity", 24), ("some", 1))}})

    def elaborate(self, platform):
        m = Module()
        compared, empty = Signal(), Signal()
        m.d.sync += [compared.eq(self.en), empty.eq(less(self.high, self.low))]
        # Inside of the window the bid is below the ask if it is outside of it, unless both go to the same end.
        apart, at_end, goes_to_end = Signal(), Signal(), Signal()
        m.d.sync += [apart.eq(less(self.bid_px, self.ask_px)),
                     at_end.eq((self.bid_px == self.high) | (self.ask_px == self.low) | (self.low == self.high))]
        meet, both, ends = Signal(), [], []
        outside = Signal(2)
        for n, side in enumerate(("bid", "ask")):
            px, lots, most = (getattr(self, f"{side}_{what}") for what in ("px", "lots", "most"))
            below, above, excess, asked, quoted = (
                Signal(name=f"{side}_{what}") for what in ("below", "above", "excess", "asked", "quoted"))
            ends.append(above if side == "bid" else below)
            m.d.sync += [below.eq(less(px, self.low)), above.eq(less(self.high, px)), excess.eq(most < lots),
                         asked.eq(lots != 0), quoted.eq((lots != 0) & (most != 0))]
            m.d.comb += outside[n].eq(asked & (below | above | excess | empty))
            both.append(quoted)
            leaves = quoted & ~empty & ~meet
            with m.If(compared):
                m.d.sync += [
                    getattr(self, f"{side}_ticks").eq(
                        Mux(leaves, Mux(below, self.low, Mux(above, self.high, px)), 0)),
                    getattr(self, f"{side}_quantity").eq(Mux(leaves, Mux(excess, most, lots), 0)),
                    getattr(self, f"{side}_some").eq(leaves),
                ]
        m.d.comb += [goes_to_end.eq(Cat(ends, empty, at_end).any()), meet.eq(Cat(both).all() & ~(apart & ~goes_to_end))]
        m.d.sync += [self.clamped.eq(compared & outside.any()), self.met.eq(compared & meet & ~empty)]
        return m

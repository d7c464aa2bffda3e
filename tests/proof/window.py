# amaranth: UnusedElaboratable=no
"""What leaves lies in the window that the gate has approved, whatever it is."""

from amaranth.hdl import Assert, Assume, Cat, Cover, Mux, Signal

from hdl.control.registers import TICK_LIMIT
from hdl.gate.window import Window
from tests.proof.obligation import Proof

SIDES = "bid", "ask"
INPUTS = ("low", "high", *(f"{side}_{what}" for side in SIDES for what in ("px", "lots", "most")))


def _window(m, window, _):
    # What is taken holds still for a cycle, and nothing else is taken in it.
    taken, taking, just_taken = Signal(), Signal(), Signal()
    given, before = ({name: Signal.like(getattr(window, name), name=f"{which}_{name}", reset_less=True)
                      for name in INPUTS} for which in ("given", "before"))
    m.d.sync += [taking.eq(window.en), just_taken.eq(taking)]
    m.d.sync += [before[name].eq(getattr(window, name)) for name in INPUTS]
    with m.If(taking):
        m.d.comb += [Assume(~window.en), *(Assume(getattr(window, name) == before[name]) for name in INPUTS)]
        m.d.sync += [taken.eq(1), *(given[name].eq(getattr(window, name)) for name in INPUTS)]
    low, high = given["low"], given["high"]
    empty = low > high

    outside, sides = [], []

    def clamped(px):
        return Mux(px < low, low, Mux(px > high, high, px))

    meet = Signal()
    m.d.comb += meet.eq((clamped(given["bid_px"]) >= clamped(given["ask_px"])) & Cat(
        given[f"{side}_{what}"] != 0 for side in SIDES for what in ("lots", "most")).all())
    for side in SIDES:
        px, lots, most = (given[f"{side}_{what}"] for what in ("px", "lots", "most"))
        ticks, quantity = getattr(window, f"{side}_ticks"), getattr(window, f"{side}_quantity")
        inside = ~empty & (low <= px) & (px <= high) & (lots <= most)
        outside.append((lots != 0) & ~inside)
        sides.append((ticks, quantity, px, lots, most))
        with m.If(taken):
            m.d.comb += [
                # Nothing leaves that has not been approved ...
                Assert((quantity == 0) | ((low <= ticks) & (ticks <= high) & (quantity <= most))),
                Assert(~empty | (quantity == 0)),
                # ... nothing is changed that has ...
                Assert(~(inside & (lots != 0) & ~meet) | ((ticks == px) & (quantity == lots))),
                # ... and what is changed becomes the nearest that has.
                Assert((quantity != 0) == ((lots != 0) & (most != 0) & ~empty & ~meet)),
                Assert((quantity != 0) == getattr(window, f"{side}_some")),
                Assert((quantity == 0) | (quantity == lots) | ((quantity == most) & (lots > most))),
                Assert((quantity == 0) | (px >= low) | (ticks == low)),
                Assert((quantity == 0) | (px <= high) | (ticks == high)),
                Assert((quantity != 0) | (ticks == 0)),
            ]
        with m.Else():
            m.d.comb += [Assert(quantity == 0), Assert(ticks == 0)]
    m.d.comb += Assert(window.clamped == (just_taken & (outside[0] | outside[1])))

    (bid, bid_lots, bid_px, lots, bid_most), (ask, ask_lots, ask_px, *_) = sides
    # G8: no bid leaves that the ask beside it would trade with.
    m.d.comb += [Assert((bid_lots == 0) | (ask_lots == 0) | (bid < ask)),
                 Assert(window.met == (just_taken & meet & ~empty))]
    reached = {
        "both sides as they came": (bid_lots != 0) & (ask_lots != 0) & ~window.clamped & (bid < ask),
        "raised": (bid_lots != 0) & (bid > bid_px), "lowered": (ask_lots != 0) & (ask < ask_px),
        "fewer lots": (bid_lots != 0) & (bid_lots < lots), "none allowed": (lots != 0) & (bid_most == 0),
        "empty window": empty & (lots != 0) & window.clamped, "one price": (low == high) & (bid_lots != 0),
        "the whole range": (low == -TICK_LIMIT) & (high == TICK_LIMIT - 1) & (bid == low) & (ask == high)
        & (bid_lots != 0) & (ask_lots == (1 << 24) - 1),
        "window below zero": (high < 0) & (bid_lots != 0) & window.clamped,
        "around zero": (low < 0) & (high > 0) & (bid == 0) & (bid_lots != 0),
        "both at one end": meet & (given["bid_px"] < given["ask_px"]) & ~empty, "crossed": meet & (bid_px > ask_px),
        "one side": (bid_lots == 0) & (ask_lots != 0), "kept without en": ~just_taken & (bid_lots != 0),
    }
    m.d.comb += [Cover(taken & condition) for condition in reached.values()]


PROOFS = (
    Proof(
        "window_contains", "What leaves lies in the approved window",
        "G5, G6, G8, G9, G10, G11",
        "Whatever comes into the window, the price that leaves lies between its bounds and the quantity does not "
        "exceed the greatest that was approved; nothing is changed that lies in it, and what is changed becomes the "
        "nearest that does; an empty window lets nothing leave; if the two sides would meet, neither leaves.",
        Window, _window, depth=2, cover_depth=4,
        assumes="What is taken stands for a cycle more, and nothing else is taken in it."),
)

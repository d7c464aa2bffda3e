"""Engine, references, limits, hypotheses, gate and window, one behind the other as in the path."""

from dataclasses import dataclass

from amaranth import Cat, Module, Shape, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect

from hdl.control.params import PARAM_ROW, TURNS, Ticks
from hdl.control.registers import PARAM_BY_NAME
from hdl.gate.gate import Gate
from hdl.gate.holds import HOLDING
from hdl.gate.hypotheses import Hypotheses
from hdl.gate.limits import REASONS, Limits
from hdl.gate.load import Rooms
from hdl.gate.references import REFERENCE_BITS, References
from hdl.gate.window import Window
from hdl.quote.engine import HYPOTHESES, SAME, Candidate, QuoteEngine


class Chain(wiring.Component):
    """Everything that an evaluation goes through, wired as in the path."""

    def __init__(self):
        self.engine, self.limits, self.hypotheses = QuoteEngine(), Limits(), Hypotheses()
        self.references, self.gate, self.window = References(2), Gate(), Window()
        super().__init__({"at": In(8), "params": In(PARAM_ROW)})

    def elaborate(self, platform):
        m = Module()
        engine, limits, hypotheses, gate, window = (
            self.engine, self.limits, self.hypotheses, self.gate, self.window)
        m.submodules.engine, m.submodules.limits, m.submodules.hypotheses = engine, limits, hypotheses
        m.submodules.gate, m.submodules.window = gate, window
        m.submodules.references = references = self.references
        m.d.comb += [
            engine.at.eq(self.at), limits.at.eq(self.at), hypotheses.at.eq(self.at), gate.en.eq(self.at[7]),
            engine.params.eq(self.params), limits.params.eq(self.params), hypotheses.params.eq(self.params),
            gate.params.eq(self.params),
            limits.bound_notional.eq(engine.bound_notional),
            hypotheses.refs.eq(engine.refs), hypotheses.skew.eq(engine.skew), hypotheses.low.eq(limits.low),
            hypotheses.high.eq(limits.high), hypotheses.reach_bid.eq(engine.reach_bid),
            hypotheses.reach_ask.eq(engine.reach_ask), hypotheses.beyond.eq(engine.beyond),
            hypotheses.leans_up.eq(engine.leans_up), hypotheses.mid_low.eq(references.mid_low),
            hypotheses.mid_high.eq(references.mid_high), references.at.eq(self.at),
            references.bands.eq(self.params.bands), limits.collar_low.eq(references.low),
            limits.collar_high.eq(references.high), limits.reference_ok.eq(references.ok),
            limits.lot_value.eq(references.lot_value), limits.valued.eq(references.valued),
            gate.collar_low.eq(references.low), gate.collar_high.eq(references.high), gate.far.eq(hypotheses.far),
            gate.bid_takes.eq(hypotheses.bid_takes), gate.ask_takes.eq(hypotheses.ask_takes),
            gate.bid.eq(engine.bid), gate.ask.eq(engine.ask), gate.book_ok.eq(hypotheses.book_ok[SAME]),
            gate.bid_moved.eq(hypotheses.bid_moved), gate.ask_moved.eq(hypotheses.ask_moved),
            window.low.eq(limits.low), window.high.eq(limits.high), window.bid_px.eq(gate.bid_px),
            window.ask_px.eq(gate.ask_px), window.bid_lots.eq(gate.bid_lots), window.ask_lots.eq(gate.ask_lots),
            window.bid_most.eq(limits.bid_largest), window.ask_most.eq(limits.ask_largest),
        ]
        connect(m, hypotheses.bid, limits.bid)
        connect(m, hypotheses.ask, limits.ask)
        connect(m, gate.bid_limits, limits.bid)
        connect(m, gate.ask_limits, limits.ask)
        return m


@dataclass(frozen=True)
class Pin:
    """An input or output of :class:`PinnedChain`, and the cycles of an evaluation, first and last, in which an input
    has to be right, or an output is."""

    shape: Shape
    first: int
    last: int


def _pins(shape, first, last, *names):
    return {name: Pin(Shape.cast(shape), first, last) for name in names}


#: The decision is made in the cycle after those of the evaluation, and what leaves holds still for another one.
_DECIDED, _LEFT = 8, 9

#: Parameters that neither the feed's prices nor the encoder want.
ROW = tuple(name for turn in TURNS for name in turn
            if not name.startswith(("feed_", "lot_", "tick_", "instrument_")) and name != "stale_cycles")

#: What is left of limits in money, by name.
ROOMS = {name: field.shape for name, field in data.Layout.cast(Rooms)}

#: Whatever stands on an input before and after its cycles changes nothing.
INPUTS = {
    **{name: Pin(Shape(PARAM_BY_NAME[name].width, PARAM_BY_NAME[name].signed), turn, _LEFT)
       for turn, names in enumerate(TURNS) for name in names if name in ROW},
    **_pins(1, -5, -1, "address"), **_pins(1, -4, -4, "commit"),
    **_pins(REFERENCE_BITS, -5, -4, "reference_value", "reference_local"), **_pins(Ticks, -5, -4, "reference_basis"),
    **_pins(32, -5, -4, "reference_lot_value"),
    **{f"room_{name}": Pin(Shape.cast(shape), 0, 5) for name, shape in ROOMS.items()},
    **_pins(Ticks, 0, 0, "best_ask"), **_pins(Ticks, 1, 1, "best_bid", "second_ask"),
    **_pins(Ticks, 2, 2, "second_bid"), **_pins(Ticks, 3, 7, "entry_px"),
    **_pins(signed(32), 0, 6, "position"), **_pins(1, 0, 5, "position_known"),
    **_pins(1, 0, _LEFT, "bid_live", "ask_live"), **_pins(Ticks, 0, _LEFT, "live_bid_px", "live_ask_px"),
    **_pins(24, 0, _LEFT, "live_bid_lots", "live_ask_lots"),
    **_pins(32, 0, 5, "sent_bid", "sent_ask", "settled_bid", "settled_ask"),
    **_pins(len(HOLDING), 3, 5, "held_bid", "held_ask"), **_pins(len(HOLDING), 0, 5, "off"),
    **_pins(1, 0, 7, "bid_young", "ask_young"),
    **_pins(10, 2, 5, "live_sides"), **_pins(10, 0, 5, "live_most"),
    **_pins(HYPOTHESES, 7, 7, "book_ok"), **_pins(1, 0, 7, "reducing"),
    **_pins(2, _DECIDED, _LEFT, "state"),
    **_pins(1, _DECIDED, _LEFT, "kill_pin", "heartbeat_ok", "limits_ok", "session_up", "new_ok", "equity_ok"),
}
OUTPUTS = {
    **_pins(HYPOTHESES, 7, 7, "want", "pull"), **_pins(1, 7, 7, "pull_all"),
    **_pins(Candidate, 7, 7, "bid_px", "ask_px"), **_pins(Ticks, 7, 7, "low", "high"),
    **_pins(REASONS, _DECIDED, _LEFT, "reasons"),
    **_pins(1, _DECIDED, _LEFT, "bid_ok", "ask_ok", "emit", "is_new", "rate_blocked"),
    **_pins(Ticks, 10, 10, "bid_ticks", "ask_ticks"), **_pins(24, 10, 10, "bid_quantity", "ask_quantity"),
    **_pins(1, 10, 10, "clamped", "met"),
}


class PinnedChain(wiring.Component):
    """:class:`Chain` with a port for everything that goes in or comes out, for a simulator of the generated Verilog.

    Members
    -------
    at : in(8) bit *t* is set in cycle *t* of an evaluation. load : in(1) in the cycle before. leave : in(1) in the
        first cycle after.
    The others as :data:`INPUTS` and :data:`OUTPUTS` say. ``address``: 0, or 1 for an instrument without references;
    ``want`` and ``pull``: one bit a hypothesis.
    """

    def __init__(self):
        super().__init__({"at": In(8), "load": In(1), "leave": In(1)}
                         | {name: In(pin.shape) for name, pin in INPUTS.items()}
                         | {name: Out(pin.shape) for name, pin in OUTPUTS.items()})

    def elaborate(self, platform):
        m = Module()
        m.submodules.chain = chain = Chain()
        engine, limits, hypotheses = chain.engine, chain.limits, chain.hypotheses
        references, gate, window = chain.references, chain.gate, chain.window
        for component, names in (
                (chain, ("at",)), (chain.params, ROW), (references, ("address", "commit", "load")),
                (engine, ("best_bid", "best_ask", "second_bid", "second_ask", "entry_px", "position")),
                (limits, ("bid_live", "ask_live", "position_known", "live_sides", "live_most", "off",
                          "bid_young", "ask_young")),
                (limits.known, ("settled_bid", "settled_ask")), (limits.live, ("sent_bid", "sent_ask")),
                (hypotheses, ("book_ok", "reducing")),
                (gate.moment, ("state", "kill_pin", "heartbeat_ok", "limits_ok", "session_up", "new_ok",
                               "equity_ok"))):
            m.d.comb += [getattr(component, name).eq(getattr(self, name)) for name in names]
        for component, names in (
                (hypotheses, ("pull_all",)), (limits, ("low", "high")),
                (gate, ("reasons", "bid_ok", "ask_ok", "emit", "is_new", "rate_blocked")),
                (window, ("bid_ticks", "ask_ticks", "bid_quantity", "ask_quantity", "clamped", "met"))):
            m.d.comb += [getattr(self, name).eq(getattr(component, name)) for name in names]
        m.d.comb += [
            references.cycles.eq(-1), references.reference.value.eq(self.reference_value),
            references.reference.local.eq(self.reference_local), references.reference.basis.eq(self.reference_basis),
            references.reference.lot_value.eq(self.reference_lot_value),
            *(getattr(limits.rooms, name).eq(getattr(self, f"room_{name}")) for name in ROOMS),
            limits.known.lots.eq(self.position), limits.live.bid_px.eq(self.live_bid_px),
            limits.live.ask_px.eq(self.live_ask_px), limits.live.bid_lots.eq(self.live_bid_lots),
            limits.live.ask_lots.eq(self.live_ask_lots), limits.held.bid.eq(self.held_bid),
            limits.held.ask.eq(self.held_ask), window.en.eq(self.leave),
            self.want.eq(Cat(verdict.want for verdict in hypotheses.verdicts)),
            self.pull.eq(Cat(verdict.pull for verdict in hypotheses.verdicts)),
            self.bid_px.eq(engine.bid), self.ask_px.eq(engine.ask),
        ]
        return m

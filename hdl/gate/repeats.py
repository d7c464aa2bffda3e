"""G18: the same side traded and quoted again, over and over, while nobody looks."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from hdl.gate.rows import Rows

__all__ = ["EVENT_CYCLES", "HOLD_CYCLES", "RepeatedExecution"]

#: Cycles from a fill that is too much to its post.
HOLD_CYCLES = 6
#: Cycles from the last of three events to ``busy`` being 0 again, at most, if no post waits.
EVENT_CYCLES = 19

_GATE = 18


class _Side(data.Struct):
    repeats: 8      #: quotes that followed a fill since the acknowledgement
    filled: 1       #: a fill that no quote has followed
    held: 1


class _Row(data.Struct):
    bid: _Side
    ask: _Side


class _State(enum.Enum):
    IDLE = 0
    FETCH = 1
    DECIDE = 2
    POST = 3


class _Step(enum.Enum):
    FILL = 0
    QUOTED = 1
    ACKNOWLEDGE = 2


class RepeatedExecution(wiring.Component):
    """G18: counts, for each side of each instrument, how often a fill was followed by a new quote of that side.

    A fill, or several, and the next quote of the side that leaves are one repeat. A fill that finds ``most_repeats``
    repeats since the last acknowledgement holds its side: the quote after it would be one more, and does not leave
    unless it is on its way already. So the number of repeats stays <= ``most_repeats``; with 0, as at reset, any fill
    holds. An acknowledgement makes both sides new: no repeats, no fill before it, no hold.

    Parameters
    ----------
    instruments : number of instruments, 1..256.

    Members
    -------
    fill : in(1) strobe: lots of ``instrument`` : in(8) were bought (``side`` : in(1) = 0) or sold (1).
    quoted : in(1) strobe: of ``quoted_instrument`` : in(8) a new or changed quote left, of the sides ``quoted_bid``,
        ``quoted_ask`` : in(1).
    acknowledge : in(1) strobe: the host has seen what happened to ``acknowledge_instrument`` : in(8).
    most_repeats : in(8).
    clear : in(1) forget everything, holds and what waits too, without a post. ``clearing`` : out(1) until that is done,
        a cycle an instrument; the same after reset. Nothing may come in that time.
    busy : out(1) something is under way, or ``clearing``: no fill may come. ``quoted`` and ``acknowledge`` may come at
        any time, 64 cycles after the one before of its kind at the earliest. Of those of one cycle the fill goes first.
        It is 0 again after :data:`EVENT_CYCLES` and the time that posts wait: none of them is lost if posts wait for
        40 of 64 cycles at most.
    post : out(1) what follows is to be done; it holds still until ``post_ready`` : in(1) is 1 too.
        ``post_instrument`` : out(8), ``post_gate`` : out(5), ``post_hold`` : out(1) hold (else let go), ``post_bid``,
        ``post_ask`` : out(1) which sides.

    Latency: a hold is posted :data:`HOLD_CYCLES` after its fill; longer by what was under way, if ``quoted`` or
    ``acknowledge`` came just before.

    Attributes
    ----------
    under_way : {name: Value}, once it is elaborated
        For proofs, one bit each: ``release`` an acknowledgement waits or is served, ``serves`` something is served,
        ``post`` and ``idle`` the state.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "fill": In(1), "instrument": In(8), "side": In(1), "quoted": In(1), "quoted_instrument": In(8),
            "quoted_bid": In(1), "quoted_ask": In(1), "acknowledge": In(1), "acknowledge_instrument": In(8),
            "most_repeats": In(8), "clear": In(1), "busy": Out(1), "clearing": Out(1), "post": Out(1),
            "post_ready": In(1), "post_instrument": Out(8), "post_gate": Out(5, init=_GATE), "post_hold": Out(1),
            "post_bid": Out(1), "post_ask": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = Rows(_Row, self.instruments)

        waits = {step: Signal(name=f"{step.name.lower()}_waits") for step in _Step}
        instruments = {step: Signal(8, name=f"{step.name.lower()}_instrument") for step in _Step}
        filled, quoted = Signal(2), Signal(2)       # sides: bid, ask
        state, step, at, fetched, serving = Signal(_State), Signal(_Step), Signal(8), Signal(2), Signal()
        m.d.comb += [
            rows.address.eq(at), rows.clear.eq(self.clear), rows.clear_row.eq(0), rows.write_row.eq(rows.row),
            self.clearing.eq(rows.clearing), self.busy.eq(self.clearing | serving | Cat(waits.values()).any()),
            self.post_instrument.eq(at),
        ]
        self.under_way = {"release": waits[_Step.ACKNOWLEDGE] | (serving & (step == _Step.ACKNOWLEDGE)),
                          "serves": serving, "post": state == _State.POST, "idle": state == _State.IDLE}
        # What a fill does to its side is found out before the row is written.
        exhausted = Signal(2)
        m.d.sync += [exhausted[n].eq(side.repeats >= self.most_repeats)
                     for n, side in enumerate((rows.row.bid, rows.row.ask))]

        def finish():
            m.d.sync += [state.eq(_State.IDLE), serving.eq(0)]

        def begin(which):
            m.d.sync += [step.eq(which), at.eq(instruments[which]), state.eq(_State.FETCH), waits[which].eq(0),
                         serving.eq(1)]

        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += fetched.eq(0)
                with m.If(waits[_Step.FILL]):
                    begin(_Step.FILL)
                with m.Elif(waits[_Step.QUOTED]):
                    begin(_Step.QUOTED)
                with m.Elif(waits[_Step.ACKNOWLEDGE]):
                    begin(_Step.ACKNOWLEDGE)
            with m.Case(_State.FETCH):
                m.d.sync += fetched.eq(fetched + 1)
                with m.If(fetched == 2):
                    m.d.sync += state.eq(_State.DECIDE)
            with m.Case(_State.DECIDE):
                m.d.comb += rows.write.eq(1)
                posts = Signal(2)
                for n, name in enumerate(("bid", "ask")):
                    side, after = getattr(rows.row, name), getattr(rows.write_row, name)
                    with m.If((step == _Step.FILL) & filled[n] & ~side.held):
                        m.d.comb += [after.filled.eq(1), after.held.eq(exhausted[n]), posts[n].eq(exhausted[n])]
                    with m.If((step == _Step.QUOTED) & quoted[n] & side.filled & ~side.held):
                        m.d.comb += [after.filled.eq(0), after.repeats.eq(side.repeats + ~side.repeats.all())]
                    with m.If(step == _Step.ACKNOWLEDGE):
                        m.d.comb += [after.eq(0), posts[n].eq(side.held)]
                m.d.sync += [self.post_hold.eq(step == _Step.FILL), self.post_bid.eq(posts[0]),
                             self.post_ask.eq(posts[1]), self.post.eq(posts.any())]
                with m.If(posts.any()):
                    m.d.sync += state.eq(_State.POST)
                with m.Else():
                    finish()
            with m.Case(_State.POST):
                with m.If(self.post_ready):
                    m.d.sync += self.post.eq(0)
                    finish()
        for which, comes, instrument in (
                (_Step.FILL, self.fill, self.instrument), (_Step.QUOTED, self.quoted, self.quoted_instrument),
                (_Step.ACKNOWLEDGE, self.acknowledge, self.acknowledge_instrument)):
            with m.If(comes):
                m.d.sync += [waits[which].eq(1), instruments[which].eq(instrument)]
        with m.If(self.fill):
            m.d.sync += [filled[0].eq(~self.side), filled[1].eq(self.side)]
        with m.If(self.quoted):
            m.d.sync += [quoted[0].eq(self.quoted_bid), quoted[1].eq(self.quoted_ask)]
        with m.If(self.clear | self.clearing):
            m.d.sync += [*(flag.eq(0) for flag in waits.values()), state.eq(_State.IDLE), serving.eq(0),
                         self.post.eq(0)]
        return m

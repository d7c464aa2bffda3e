"""G18: the same side traded and quoted again, over and over, while nobody looks."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from hdl.gate.rows import Rows

__all__ = ["ANSWER_CYCLES", "QUOTED_CYCLES", "RepeatedExecution"]

_FETCH_CYCLES = 3
#: Cycles that a quote keeps the rows, at most.
QUOTED_CYCLES = 1 + _FETCH_CYCLES + 1
#: Cycles from a fill or a visit to its answer: a quote may have come just before.
ANSWER_CYCLES = 2 * QUOTED_CYCLES


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


class RepeatedExecution(wiring.Component):
    """G18: counts, for each side of each instrument, how often a fill was followed by a new quote of that side.

    A fill, or several, and the next quote of the side that leaves are one repeat. A fill that finds ``most_repeats``
    repeats since the last acknowledgement holds its side: the quote after it would be one more, and does not leave
    unless it is on its way already. So the number of repeats stays <= ``most_repeats``; with 0, as at reset, any fill
    holds. An acknowledgement, a visit in which the host lets go, makes both sides new: no repeats, no fill before it,
    no hold.

    Parameters
    ----------
    instruments : number of instruments, 1..256.

    Members
    -------
    fill : in(1) strobe: lots of ``instrument`` : in(8) were bought (``side`` : in(1) = 0) or sold (1). visit : in(1)
        strobe: the host acknowledges what happened to ``instrument`` if it ``lets_go`` : in(1). Not together, and
        neither of them before the answer to the one before; ``instrument`` and ``side`` stand until the answer.
    quoted : in(1) strobe: of ``quoted_instrument`` : in(8) a new or changed quote left, of the sides ``quoted_bid``,
        ``quoted_ask`` : in(1). At any time, 32 cycles after the one before. Of those of one cycle it comes last.
    most_repeats : in(8).
    answers : out(1) strobe, :data:`ANSWER_CYCLES` after a fill or a visit at most. From this cycle to the next fill or
        visit ``changes`` : out(1): a side is held now and was not, or the other way round; ``held_bid``, ``held_ask`` :
        out(1) which are held now.
    clearing : out(1) after reset, a cycle an instrument: nothing may come.

    Attributes
    ----------
    under_way : {name: Value}, once it is elaborated
        For proofs, one bit each: ``serves`` a fill or a visit waits or is served, ``event`` it is a fill, ``begun`` it
        is served.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "fill": In(1), "instrument": In(8), "side": In(1), "visit": In(1), "lets_go": In(1), "quoted": In(1),
            "quoted_instrument": In(8), "quoted_bid": In(1), "quoted_ask": In(1), "most_repeats": In(8),
            "clearing": Out(1), "answers": Out(1), "changes": Out(1), "held_bid": Out(1), "held_ask": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = Rows(_Row, self.instruments)

        state, fetched, serves_quote = Signal(_State), Signal(range(_FETCH_CYCLES)), Signal()
        waits, quote_waits, quoted, quoted_instrument = Signal(), Signal(), Signal(2), Signal(8)    # sides: bid, ask
        is_fill = Signal()
        m.d.comb += [rows.address.eq(Mux(serves_quote, quoted_instrument, self.instrument)),
                     rows.write_row.eq(rows.row), self.clearing.eq(rows.clearing)]
        self.under_way = {"serves": waits, "event": is_fill, "begun": (state != _State.IDLE) & ~serves_quote}
        # What a fill does to its side is found out before the row is written.
        exhausted = Signal(2)
        m.d.sync += [exhausted[n].eq(side.repeats >= self.most_repeats)
                     for n, side in enumerate((rows.row.bid, rows.row.ask))]

        m.d.sync += self.answers.eq(0)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += fetched.eq(0)
                with m.If(waits | quote_waits):
                    m.d.sync += [serves_quote.eq(~waits), state.eq(_State.FETCH)]
            with m.Case(_State.FETCH):
                m.d.sync += fetched.eq(fetched + 1)
                with m.If(fetched == _FETCH_CYCLES - 1):
                    m.d.sync += state.eq(_State.DECIDE)
            with m.Case(_State.DECIDE):
                m.d.comb += rows.write.eq(1)
                changes = Signal(2)
                for n, name in enumerate(("bid", "ask")):
                    side, after = getattr(rows.row, name), getattr(rows.write_row, name)
                    with m.If(serves_quote):
                        with m.If(quoted[n] & side.filled & ~side.held):
                            m.d.comb += [after.filled.eq(0), after.repeats.eq(side.repeats + ~side.repeats.all())]
                    with m.Elif(is_fill):
                        with m.If((self.side == n) & ~side.held):
                            m.d.comb += [after.filled.eq(1), after.held.eq(exhausted[n]), changes[n].eq(exhausted[n])]
                    with m.Elif(self.lets_go):
                        m.d.comb += [after.eq(0), changes[n].eq(side.held)]
                m.d.sync += state.eq(_State.IDLE)
                with m.If(serves_quote):
                    m.d.sync += quote_waits.eq(0)
                with m.Else():
                    m.d.sync += [waits.eq(0), self.answers.eq(1), self.changes.eq(changes.any()),
                                 self.held_bid.eq(rows.write_row.bid.held), self.held_ask.eq(rows.write_row.ask.held)]
        with m.If(self.fill | self.visit):
            m.d.sync += [waits.eq(1), is_fill.eq(self.fill), self.changes.eq(0)]
        with m.If(self.quoted):
            m.d.sync += [quote_waits.eq(1), quoted_instrument.eq(self.quoted_instrument),
                         quoted.eq(Cat(self.quoted_bid, self.quoted_ask))]
        return m

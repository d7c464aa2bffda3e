"""What all instruments together hold and have open, in money: the sums behind G12 and G13."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.registers import LEVERAGE_BITS, MONEY_FRACTION_BITS
from hdl.gate.exposure import Position
from hdl.memory import BLOCK, told_of

__all__ = ["CHANGE_CYCLES", "FRACTION_BITS", "LEVERAGE_BITS", "OVER_BITS", "RUN_CYCLES", "Load", "Rooms"]

#: Bits of what a lot is worth, of these a fraction of the host's unit of money.
VALUE_BITS, FRACTION_BITS = 32, MONEY_FRACTION_BITS
#: An amount of so many bits and more is more than any limit: limits are 32 bits of whole units.
OVER_BITS = 32 + FRACTION_BITS
#: Of what 256 instruments make together.
_TOTAL_BITS = OVER_BITS + 9
#: Lots of a position and of both sides' open quotes, together.
_LOTS_BITS = 34

#: Steps of a run: its rows are read, taken, made lots, two sums, products, worths, totals.
_READ, _TAKE, _OPEN, _SUM, _WHOLE, _MULTIPLY = range(1, 7)
_WORTH, _ADD = _MULTIPLY + _LOTS_BITS, _MULTIPLY + _LOTS_BITS + 1
#: Cycles from the one in which a run starts to the first one in which the next may; the totals are new by then.
RUN_CYCLES = _ADD + 1
#: Cycles from ``written`` to the one in which everything that follows from it is right: the leverage takes eight.
CHANGE_CYCLES = 11

#: Few rows are in LUTs.
_FEW = 16
_DISTRIBUTED = {"ram_style": "distributed", "no_rw_check": 1}


class Rooms(data.Struct):
    """What is left below the limits, in 1/256 of the unit of money: of all together, and of each side's open quotes."""

    gross: signed(_TOTAL_BITS + 1)
    bid: signed(_TOTAL_BITS + 1)
    ask: signed(_TOTAL_BITS + 1)


class Load(wiring.Component):
    """Sums over all instruments, of what they hold and have open, and what is left of the limits.

    ::

        open_bid  = lots of bids ever sent - settled ones, modulo 2^32;  open_ask likewise
        gross     = sum of (|position| + open_bid + open_ask) * lot value
        bids      = sum of open_bid * lot value;  asks likewise
        room      = min(gross_most, equity * leverage_most / 16) - gross
        room_bid  = open_most - bids;  room_ask = open_most - asks

    Money is in 1/256 of the host's unit, exact. What one instrument adds to a sum is 2^40 if it is that or more, or if
    it has lots of which the value is not known (0): no limit reaches that, so that the sum is above every limit as long
    as that instrument is what it is. Equity below zero leaves no room.

    One instrument at a time is worked out, in a **run** of :data:`RUN_CYCLES` cycles: its rows are read in one cycle,
    its lots are multiplied by the value bit by bit, and the sums change by the difference to what it added before, all
    three in one cycle. What the rows are of is written as it comes, in that very cycle, and marks the instrument; the
    marks are asked in turn, one a cycle, from where the last run has stopped asking. A run does not read in a cycle in
    which anything is written, but a cycle later.

    **A quote that has left** is the next one to be worked out, whatever else is marked: the sums have it at most
    ``2 RUN_CYCLES + 1`` cycles after ``emit`` (one more for every cycle in which a run could not read), which is before
    the frame that says it has left the port, so that no other quote can have been decided without it.

    **What the host tells** counts when its run is over: every other instrument has had one by then at most, and every
    quote that has left meanwhile. Until then the instrument is what the host said before, all of it, as if the host had
    spoken that much later. A position that moves because quotes have traded makes no sum larger (what was bought was
    open before), only smaller, and later than it might be. What was sent or held is therefore never missing.

    **A new session** has nothing open. Positions and values stay what they were until the host tells them anew: G11
    does not know the former, but what was held still counts here. The sums are too large until every instrument has
    been worked out.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    emit : in(1) a quote of ``emitted`` : in(8) leaves, whose bit is ``of_emitted`` : in(instruments); ``sent_bid``,
        ``sent_ask`` : in(32) the lots ever sent with it.
    settle : in(1) ``position`` : in(:class:`hdl.gate.exposure.Position`) is that of ``settled`` : in(8),
        ``of_settled`` : in(instruments). tell : in(1) ``lot_value`` : in(32) is that of ``told`` : in(8), ``of_told`` :
        in(instruments).
    restart : in(1) a new session begins. For ``instruments`` cycles from the next one on nothing may be emitted or
        settled. After reset it is the same, and nothing may be told then.
    written : in(1) in the next cycle one of these is another: ``gross_most``, ``open_most`` : in(32) whole units,
        ``leverage_most`` : in(8) sixteenths, ``equity`` : in(32, signed) whole units. changing : out(1) from
        this cycle on until a ``load`` takes what follows from it: until then ``rooms`` mean nothing. changed : out(1)
        strobe, with the last cycle of that, :data:`CHANGE_CYCLES` after ``written``.
    load : in(1) ``rooms`` : out(:class:`Rooms`) are those of this cycle from the next one on, until the next ``load``.
    gross, open_bids, open_asks : out(32) the sums in whole units, rounded down; all ones if they are that or more.

    Attributes
    ----------
    kept : {name: Value}, once it is elaborated
        For tests: the ``step`` of a run, ``marked`` instruments, and the ``totals`` of bids, of asks and of all.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "emit": In(1), "emitted": In(8), "of_emitted": In(instruments), "sent_bid": In(32), "sent_ask": In(32),
            "settle": In(1), "settled": In(8), "of_settled": In(instruments), "position": In(Position),
            "tell": In(1), "told": In(8), "of_told": In(instruments), "lot_value": In(VALUE_BITS), "restart": In(1),
            "written": In(1), "gross_most": In(32), "open_most": In(32), "leverage_most": In(8),
            "equity": In(signed(32)),
            "changing": Out(1), "changed": Out(1), "load": In(1), "rooms": Out(Rooms),
            "gross": Out(32), "open_bids": Out(32), "open_asks": Out(32)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        width = max(1, (n - 1).bit_length())
        address, step = Signal(width), Signal(range(RUN_CYCLES))

        # A memory keeps its content through a reset: then all rows are cleared, later those of the session.
        sweep, sweeping, from_reset = Signal(range(max(2, n))), Signal(init=1), Signal(init=1)
        with m.If(self.restart):
            m.d.sync += [sweep.eq(0), sweeping.eq(1)]
        with m.Elif(sweeping):
            m.d.sync += [sweep.eq(sweep + 1), sweeping.eq(sweep != n - 1)]
        with m.If(~sweeping):
            m.d.sync += from_reset.eq(0)
        clears_all = sweeping & from_reset

        def rows(name, shape, write_en, at, row, clears):
            """A row of each instrument, as it was in the cycle ``_READ`` of a run, from the next cycle on."""
            m.submodules[name] = memory = Memory(shape=shape, depth=n, init=[],
                                                 attrs=_DISTRIBUTED if n <= _FEW else BLOCK)
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [read.addr.eq(address), write.addr.eq(Mux(clears, sweep, at[:width])),
                         write.en.eq(write_en | clears), write.data.eq(Mux(clears, 0, row))]
            if n <= _FEW:
                return read.data    # nothing was written since
            fetched = Signal(shape, name=f"{name}_fetched", reset_less=True)
            m.d.sync += fetched.eq(read.data)
            return fetched

        pair, worths_layout = data.ArrayLayout(32, 2), data.ArrayLayout(OVER_BITS + 1, 3)
        worths = Signal(worths_layout)
        sent = rows("sent", pair, self.emit, self.emitted, Cat(self.sent_bid, self.sent_ask), sweeping)
        settled = rows("settled_rows", pair, self.settle, self.settled,
                       Cat(self.position.settled_bid, self.position.settled_ask), sweeping)
        held = rows("held", signed(32), self.settle, self.settled, self.position.lots, clears_all)
        value_row = rows("values", VALUE_BITS, self.tell, self.told, self.lot_value, clears_all)
        before = rows("worths", worths_layout, step == _WORTH, address, worths.as_value(), clears_all)

        # Whose turn it is: what has just left, else the next one that is marked.
        marked, scan, asked_instrument = Signal(n), Signal(range(max(2, n))), Signal(range(max(2, n)))
        urgent, urgent_instrument, start = Signal(), Signal(width), Signal()
        asked = told_of(m, marked, scan, "marked")
        any_write = self.emit | self.settle | self.tell | sweeping
        m.d.sync += asked_instrument.eq(scan)
        with m.If(start):
            with m.If(urgent):      # the other one's turn is still to come
                m.d.sync += scan.eq(asked_instrument)
        with m.Elif((step == 0) | (step == _ADD)):
            m.d.sync += scan.eq(Mux(scan == n - 1, 0, scan + 1))
        m.d.comb += start.eq((step == 0) & ~sweeping & (urgent | asked))
        with m.If(start):
            m.d.sync += [address.eq(Mux(urgent, urgent_instrument, asked_instrument)), step.eq(_READ), urgent.eq(0)]
        with m.Elif(step == _ADD):
            m.d.sync += step.eq(0)
        with m.Elif((step != 0) & ~((step == _READ) & any_write)):
            m.d.sync += step.eq(step + 1)
        with m.If(self.restart):
            m.d.sync += urgent.eq(0)
        with m.Elif(self.emit):
            m.d.sync += [urgent.eq(1), urgent_instrument.eq(self.emitted)]
        m.d.sync += marked.eq(
            (marked & ~Mux(step == _READ, 1 << address, 0)) | Mux(self.emit, self.of_emitted, 0)
            | Mux(self.settle, self.of_settled, 0) | Mux(self.tell, self.of_told, 0) | sweeping.replicate(n))

        # Lots: of both sides, and with the position of all.
        lots = bid, ask, whole = [Signal(_LOTS_BITS, name=f"{what}_lots") for what in ("bid", "ask", "whole")]
        gone, value, no_value = Signal(pair), Signal(VALUE_BITS), Signal()
        amounts = [Signal(OVER_BITS, name=f"{what}_amount") for what in ("bid", "ask", "whole")]
        overs = [Signal(name=f"{what}_over") for what in ("bid", "ask", "whole")]
        changes = [Signal(signed(OVER_BITS + 2), name=f"{what}_change") for what in ("bid", "ask", "whole")]
        totals = [Signal(_TOTAL_BITS, name=f"{what}_total") for what in ("bid", "ask", "whole")]
        with m.Switch(step):
            with m.Case(_TAKE):
                m.d.sync += [bid.eq(sent[0]), ask.eq(sent[1]), gone.eq(settled), whole.eq(held[:32]),
                             value.eq(value_row), *(change.eq(before[k]) for k, change in enumerate(changes))]
            with m.Case(_OPEN):
                m.d.sync += [bid.eq((bid[:32] - gone[0])[:32]), ask.eq((ask[:32] - gone[1])[:32]),
                             whole.eq(Mux(whole[31], (-whole[:32])[:32], whole[:32])), no_value.eq(value == 0)]
            with m.Case(_SUM):
                m.d.sync += whole.eq(whole + bid)
            with m.Case(_WHOLE):
                m.d.sync += [whole.eq(whole + ask), *(amount.eq(0) for amount in amounts), *(o.eq(0) for o in overs)]
        multiplies = Signal()
        m.d.sync += multiplies.eq((step == _WHOLE) | (multiplies & (step != _WORTH - 1)))
        for k, (its, amount, over, change, total) in enumerate(zip(lots, amounts, overs, changes, totals, strict=True)):
            worth = worths[k]
            # The highest bit first. What has grown too large stays so.
            sum_ = Signal(OVER_BITS + 2, name=f"{its.name}_sum")
            m.d.comb += [sum_.eq(Cat(0, amount) + Mux(its[-1], value, 0)),
                         worth.eq(Mux(over, 1 << OVER_BITS, amount))]
            with m.If(multiplies):
                m.d.sync += [its.eq(its << 1), amount.eq(sum_),
                             over.eq(over | sum_[OVER_BITS:].any() | (its[-1] & no_value))]
            with m.If(step == _WORTH):
                m.d.sync += change.eq(worth - change)
            with m.If(step == _ADD):
                m.d.sync += total.eq(total + change)

        # The limits in money. The leverage bit by bit, the highest first.
        left, levered, factor = Signal(range(CHANGE_CYCLES + 1)), Signal(31 + 8), Signal(8)
        with m.If(self.written):
            m.d.sync += left.eq(CHANGE_CYCLES)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.comb += [self.changing.eq(self.written | (left != 0)), self.changed.eq((left == 1) & ~self.written)]
        with m.If(left == CHANGE_CYCLES):
            m.d.sync += [levered.eq(0), factor.eq(self.leverage_most)]
        with m.Elif(left > 2):
            m.d.sync += [factor.eq(factor << 1),
                         levered.eq((levered << 1) + Mux(factor[-1] & ~self.equity[-1], self.equity[:31], 0))]
        most, by_equity = Signal(OVER_BITS), levered << FRACTION_BITS - LEVERAGE_BITS
        gross_most = self.gross_most << FRACTION_BITS
        m.d.sync += most.eq(Mux(by_equity < gross_most, by_equity, gross_most))
        with m.If(self.load):
            m.d.sync += [self.rooms.gross.eq(most - totals[2]),
                         self.rooms.bid.eq((self.open_most << FRACTION_BITS) - totals[0]),
                         self.rooms.ask.eq((self.open_most << FRACTION_BITS) - totals[1])]
        for shown, total in zip((self.open_bids, self.open_asks, self.gross), totals, strict=True):
            m.d.comb += shown.eq(total[FRACTION_BITS:OVER_BITS] | total[OVER_BITS:].any().replicate(32))
        self.kept = {"step": step, "marked": marked, "totals": totals}
        return m

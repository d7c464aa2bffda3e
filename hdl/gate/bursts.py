"""G17 and G20: too much within a rolling window, of fills or of refusals."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.gate.rolling import CYCLES as SUM_CYCLES
from hdl.gate.rolling import RollingSums
from hdl.gate.rows import Rows

__all__ = ["ANSWER_CYCLES", "VISIT_CYCLES", "FillBurst", "RefusalStorm"]

_FETCH_CYCLES = 5   # the row of the instrument, the time since its hold, held against the freeze, and what follows
#: Cycles from a visit to its answer.
VISIT_CYCLES = 1 + _FETCH_CYCLES + 1
#: Cycles from an event to its answer.
ANSWER_CYCLES = VISIT_CYCLES + SUM_CYCLES + 2

_TIME_BITS = 33     # the longest freeze, and the time to find out that it has ended


class _State(enum.Enum):
    IDLE = 0
    FETCH = 1       #: the row of the instrument is on its way, and then the time since its hold
    DECIDE = 2
    SUM = 3         #: the sums are on their way
    WEIGH = 4       #: ... and are compared


class Burst(wiring.Component):
    """Holds an instrument when sums over a rolling window are too great. What of, the gates say.

    Parameters
    ----------
    instruments : number of instruments, 1..256.
    sums : mapping of the name of a sum to its width.
    freezes : a hold may end by itself; ``freeze_cycles`` is among ``members``.
    members : the ports of an event and its limits.

    Members
    -------
    instrument : in(8) instrument of an event or a visit; it stands until the answer, and so does what the event says.
    window_cycles : in(32) what is counted counts for that long at least; see
        :class:`hdl.gate.rolling.RollingSums`. 0: any event is too much.
    visit : in(1) strobe: has a freeze of ``instrument`` ended? If the host ``lets_go`` : in(1), any hold has. Not
        together with an event, and neither of them before the answer to the one before.
    answers : out(1) strobe, :data:`VISIT_CYCLES` after a visit; after an event :data:`ANSWER_CYCLES`, or
        :data:`VISIT_CYCLES` if the instrument was held already. From this cycle to the next visit or event ``changes``
        : out(1): it is held now and was not, or the other way round; ``held`` : out(1) which of them.
    clearing : out(1) after reset, a cycle an instrument: neither event nor visit may come.

    What comes while an instrument is held is not counted. When a hold ends, its window is empty. Limits are looked at
    between an event and its answer.

    Attributes
    ----------
    under_way : {name: Value}, once it is elaborated
        For proofs, one bit each: ``serves`` an event or a visit is served, ``event`` it is an event, ``sums`` its sums
        are formed or weighed.
    """

    def __init__(self, instruments, sums, freezes, members):
        self.instruments, self.sums, self.freezes = instruments, sums, freezes
        super().__init__({
            **members, "instrument": In(8), "window_cycles": In(32), "visit": In(1), "lets_go": In(1),
            "clearing": Out(1), "answers": Out(1), "changes": Out(1), "held": Out(1)})

    def _event(self):
        """Value of one bit: an event comes."""
        raise NotImplementedError

    def _amounts(self):
        """What the event adds to each sum: values by name."""
        raise NotImplementedError

    def _too_much(self, m, window):
        """Value of one bit: the sums are too great. Two cycles after they stand."""
        raise NotImplementedError

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        m.submodules.window = window = RollingSums(n, self.sums)
        row_shape = data.StructLayout({"held": 1} | ({"since": _TIME_BITS} if self.freezes else {}))
        m.submodules.rows = rows = Rows(row_shape, n)

        comes, state, count, is_event = self._event(), Signal(_State), Signal(range(_FETCH_CYCLES)), Signal()
        m.d.comb += [
            rows.address.eq(self.instrument), window.window_cycles.eq(self.window_cycles), window.mark.eq(comes),
            window.instrument.eq(self.instrument), self.clearing.eq(rows.clearing | window.clearing),
            *(getattr(window, f"amount_{name}").eq(value) for name, value in self._amounts().items()),
        ]
        self.under_way = {"serves": state != _State.IDLE, "event": is_event,
                          "sums": (state == _State.SUM) | (state == _State.WEIGH)}
        too_much = Signal()
        m.d.comb += too_much.eq(self._too_much(m, window))

        held, thawed, ends = rows.row["held"], Signal(), Signal()
        m.d.sync += ends.eq(held & ~is_event & (self.lets_go | thawed))
        if self.freezes:
            now, frozen_for, freezes = Signal(_TIME_BITS), Signal(_TIME_BITS), Signal()
            m.d.sync += [now.eq(now + 1), frozen_for.eq(now - rows.row["since"]), freezes.eq(self.freeze_cycles != 0),
                         thawed.eq(~less(frozen_for, self.freeze_cycles) & freezes)]

        def becomes(holds):
            m.d.comb += [rows.write.eq(1), rows.write_row["held"].eq(holds)]
            if self.freezes:
                m.d.comb += rows.write_row["since"].eq(now)
            m.d.sync += [self.changes.eq(1), self.held.eq(holds)]

        def answer():
            m.d.sync += [state.eq(_State.IDLE), self.answers.eq(1)]

        m.d.sync += self.answers.eq(0)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                with m.If(comes | self.visit):
                    m.d.sync += [is_event.eq(comes), self.changes.eq(0), count.eq(0), state.eq(_State.FETCH)]
            with m.Case(_State.FETCH):
                # Behind the row come the time since, its comparison, and whether the hold ends.
                m.d.sync += count.eq(count + 1)
                with m.If(count == _FETCH_CYCLES - 1):
                    m.d.sync += state.eq(_State.DECIDE)
            with m.Case(_State.DECIDE):
                with m.If(is_event & ~held):
                    m.d.comb += window.add.eq(1)
                    m.d.sync += state.eq(_State.SUM)
                with m.Else():
                    with m.If(ends):
                        m.d.comb += window.forget.eq(1)
                        becomes(0)
                    answer()
            with m.Case(_State.SUM):
                m.d.sync += count.eq(0)
                with m.If(window.done):
                    m.d.sync += state.eq(_State.WEIGH)
            with m.Case(_State.WEIGH):
                m.d.sync += count.eq(1)
                with m.If(count == 1):
                    with m.If(too_much):
                        becomes(1)
                    answer()
        return m


class FillBurst(Burst):
    """G17: our own market-maker protection. Fills of an instrument within a rolling window.

    They pass if and only if the sum of lots is <= ``most_lots``, the absolute value of lots bought less lots sold is <=
    ``most_delta``, the number of fills is <= ``most_fills`` and ``window_cycles`` is not 0, each with the fill that
    came last. If not, both sides of the instrument are held, for ``freeze_cycles``, or until the host lets it go.
    With the limits as they are at reset, 0, any fill holds.

    Parameters
    ----------
    instruments : number of instruments, 1..256.

    Members, besides those of :class:`Burst`
    -------
    fill : in(1) strobe: ``lots`` : in(24) of ``instrument`` : in(8) were bought (``side`` : in(1) = 0) or sold (1).
    most_lots, most_delta : in(24), most_fills : in(8).
    freeze_cycles : in(32) a visit ends a hold if as many cycles lie between the answer that began it and the fourth
        cycle after the visit. A new value counts for what is frozen already. 0: until the host lets it go.
    """

    def __init__(self, instruments):
        super().__init__(instruments, {"lots": 24, "bought": 24, "fills": 8}, True, {
            "fill": In(1), "side": In(1), "lots": In(24), "most_lots": In(24), "most_delta": In(24),
            "most_fills": In(8), "freeze_cycles": In(32)})

    def _event(self):
        return self.fill

    def _amounts(self):
        return {"lots": self.lots, "bought": Mux(self.side, 0, self.lots), "fills": 1}

    def _too_much(self, m, window):
        # Where the sum of lots does not fit, it is too much; where it does, so do those bought.
        net = (window.sum_bought << 1) - window.sum_lots
        delta, over = Signal.like(net), Signal(5)
        m.d.sync += [
            delta.eq(net), over[0].eq(self.most_lots < window.sum_lots), over[1].eq(self.most_fills < window.sum_fills),
            over[2].eq(self.window_cycles == 0), over[3].eq(less(self.most_delta, delta)),
            over[4].eq((delta + self.most_delta)[-1]),
        ]
        return over.any()


class RefusalStorm(Burst):
    """G20: the exchange refuses what we send. Refusals of an instrument within a rolling window.

    They pass if and only if their number is <= ``most_refusals`` and ``window_cycles`` is not 0. If not, both sides of
    the instrument are held until the host lets it go. With the limits as they are at reset, 0, any refusal holds.

    Parameters
    ----------
    instruments : number of instruments, 1..256.

    Members, besides those of :class:`Burst`
    -------
    refusals : in(1) strobe: ``count`` : in(2) sides of a quote of ``instrument`` : in(8) were refused. 0 is no event.
    most_refusals : in(8).
    """

    def __init__(self, instruments):
        super().__init__(instruments, {"refusals": 8}, False, {
            "refusals": In(1), "count": In(2), "most_refusals": In(8)})

    def _event(self):
        return self.refusals & (self.count != 0)

    def _amounts(self):
        return {"refusals": self.count}

    def _too_much(self, m, window):
        over = Signal(2)
        m.d.sync += [over[0].eq(self.most_refusals < window.sum_refusals), over[1].eq(self.window_cycles == 0)]
        return over.any()

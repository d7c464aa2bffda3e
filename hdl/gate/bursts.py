"""G17 and G20: too much within a rolling window, of fills or of refusals."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.gate.rolling import RollingSums
from hdl.gate.rows import Rows

__all__ = ["EVENT_CYCLES", "HOLD_CYCLES", "SCAN_CYCLES", "FillBurst", "RefusalStorm"]

#: Cycles from an event that is too much to its post, at most, if no post waits.
HOLD_CYCLES = 33
#: Cycles from an event, and a release with it, to ``busy`` being 0 again, at most, if no post waits.
EVENT_CYCLES = 42
#: Cycles in which an instrument is looked at in its turn, whether its freeze has ended.
SCAN_CYCLES = 6

_TIME_BITS = 33     # the longest freeze, and the time to find out that it has ended


class _State(enum.Enum):
    IDLE = 0
    FETCH = 1       #: the row of the instrument is on its way, and then the time since its hold
    DECIDE = 2
    SUM = 3         #: the sums are on their way
    WEIGH = 4       #: ... and are compared
    POST = 5


class _Step(enum.Enum):
    """Whatever an instrument is looked at for."""

    EVENT = 0
    RELEASE = 1
    SCAN = 2


class Burst(wiring.Component):
    """Holds an instrument when sums over a rolling window are too great. What of, the gates say.

    Parameters
    ----------
    gate : number of the gate.
    instruments : number of instruments, 1..256.
    sums : mapping of the name of a sum to its width.
    freezes : a hold may end by itself; ``freeze_cycles`` is among ``members``.
    members : the ports of an event and its limits.

    Members
    -------
    instrument : in(8) instrument of an event.
    window_cycles : in(32) what is counted counts for that long at least; see
        :class:`hdl.gate.rolling.RollingSums`. 0: any event is too much.
    release : in(1) strobe: the host lets ``release_instrument`` : in(8) go. Without a hold it does nothing. It may come
        at any time, 64 cycles after the one before; of those of one cycle the event goes first.
    clear : in(1) forget everything, holds and what waits too, without a post. ``clearing`` : out(1) until that is done,
        a cycle an instrument; the same after reset. Neither event nor release may come in that time.
    busy : out(1) an event or a release is under way, or ``clearing``: no event may come. It is 0 again
        :data:`EVENT_CYCLES` after an event and the time that posts wait: there is room for one in each 64 cycles if
        posts wait for 20 of them at most.
    post : out(1) what follows is to be done; it holds still until ``post_ready`` : in(1) is 1 too.
        ``post_instrument`` : out(8), ``post_gate`` : out(5), ``post_hold`` : out(1) hold it (else let it go),
        ``post_bid``, ``post_ask`` : out(1) which sides: both.

    What comes while an instrument is held is not counted. When a hold ends, its window is empty. A hold is posted at
    most :data:`HOLD_CYCLES` after its event. Limits are looked at between an event and its post.

    Attributes
    ----------
    under_way : {name: Value}, once it is elaborated
        For proofs, one bit each: ``release`` one waits or is served, ``serves`` an event or a release is served,
        ``post`` and ``idle`` the state.
    """

    def __init__(self, gate, instruments, sums, freezes, members):
        self.gate, self.instruments, self.sums, self.freezes = gate, instruments, sums, freezes
        super().__init__({
            **members, "instrument": In(8), "window_cycles": In(32), "release": In(1), "release_instrument": In(8),
            "clear": In(1), "busy": Out(1), "clearing": Out(1), "post": Out(1), "post_ready": In(1),
            "post_instrument": Out(8), "post_gate": Out(5, init=gate), "post_hold": Out(1), "post_bid": Out(1, init=1),
            "post_ask": Out(1, init=1)})

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
        row_shape = data.StructLayout({"held": 1, "since": _TIME_BITS if self.freezes else 0})
        m.submodules.rows = rows = Rows(row_shape, n)

        # An event, and a release, wait until they are taken up, the event first. It belongs to the time when it came.
        event, release, serving = Signal(), Signal(), Signal()
        instrument, release_instrument = Signal(8), Signal(8)
        amounts = {name: Signal(width, name=f"amount_{name}") for name, width in self.sums.items()}
        comes = self._event()

        state, step, at = Signal(_State), Signal(_Step), Signal(8)
        count = Signal(range(4))
        m.d.comb += [
            rows.address.eq(at), rows.clear.eq(self.clear), rows.clear_row.eq(0),
            window.window_cycles.eq(self.window_cycles), window.mark.eq(comes), window.instrument.eq(at),
            window.clear.eq(self.clear), self.clearing.eq(rows.clearing | window.clearing),
            self.busy.eq(event | release | serving | self.clearing), self.post_instrument.eq(at),
            *(getattr(window, f"amount_{name}").eq(value) for name, value in amounts.items()),
        ]
        self.under_way = {"release": release | (serving & (step == _Step.RELEASE)), "serves": serving,
                          "post": state == _State.POST, "idle": state == _State.IDLE}
        too_much = Signal()
        m.d.comb += too_much.eq(self._too_much(m, window))

        held, thawed = rows.row["held"], Signal()
        if self.freezes:
            now, frozen_for, freezes, next_scan = (Signal(_TIME_BITS), Signal(_TIME_BITS), Signal(),
                                                   Signal(range(max(2, n))))
            m.d.sync += [now.eq(now + 1), frozen_for.eq(now - rows.row["since"]), freezes.eq(self.freeze_cycles != 0),
                         thawed.eq(~less(frozen_for, self.freeze_cycles) & freezes)]

        def hold(holds):
            m.d.comb += [rows.write.eq(1), rows.write_row["held"].eq(holds)]
            if self.freezes:
                m.d.comb += rows.write_row["since"].eq(now)
            m.d.sync += [self.post.eq(1), self.post_hold.eq(holds), state.eq(_State.POST)]

        def finish():
            m.d.sync += [state.eq(_State.IDLE), serving.eq(0)]

        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += count.eq(0)
                with m.If(event):
                    m.d.sync += [at.eq(instrument), step.eq(_Step.EVENT), state.eq(_State.FETCH), event.eq(0),
                                 serving.eq(1)]
                with m.Elif(release):
                    m.d.sync += [at.eq(release_instrument), step.eq(_Step.RELEASE), state.eq(_State.FETCH),
                                 release.eq(0), serving.eq(1)]
                if self.freezes:
                    with m.Elif(~comes & ~self.release):
                        m.d.sync += [at.eq(next_scan), step.eq(_Step.SCAN), state.eq(_State.FETCH),
                                     next_scan.eq(Mux(next_scan == n - 1, 0, next_scan + 1))]
            with m.Case(_State.FETCH):
                m.d.sync += count.eq(count + 1)
                # Behind the row come the time since and its comparison.
                with m.If(count == 3):
                    m.d.sync += state.eq(_State.DECIDE)
            with m.Case(_State.DECIDE):
                with m.If((step == _Step.EVENT) & ~held):
                    m.d.comb += window.add.eq(1)
                    m.d.sync += state.eq(_State.SUM)
                with m.Elif(held & ((step == _Step.RELEASE) | ((step == _Step.SCAN) & thawed))):
                    m.d.comb += window.forget.eq(1)
                    hold(0)
                with m.Else():
                    finish()
            with m.Case(_State.SUM):
                m.d.sync += count.eq(0)
                with m.If(window.done):
                    m.d.sync += state.eq(_State.WEIGH)
            with m.Case(_State.WEIGH):
                m.d.sync += count.eq(1)
                with m.If(count == 1):
                    with m.If(too_much):
                        hold(1)
                    with m.Else():
                        finish()
            with m.Case(_State.POST):
                with m.If(self.post_ready):
                    m.d.sync += self.post.eq(0)
                    finish()
        with m.If(comes):
            m.d.sync += [event.eq(1), instrument.eq(self.instrument),
                         *(amounts[name].eq(value) for name, value in self._amounts().items())]
        with m.If(self.release):
            m.d.sync += [release.eq(1), release_instrument.eq(self.release_instrument)]
        with m.If(self.clear | self.clearing):
            m.d.sync += [state.eq(_State.IDLE), event.eq(0), release.eq(0), serving.eq(0), self.post.eq(0)]
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
    freeze_cycles : in(32) the post that ends a hold comes two cycles at least after as many have passed since the post
        that began it came, and at most :data:`SCAN_CYCLES` for every instrument later than that, longer by what events
        and posts take meanwhile. A new value counts for what is frozen already. 0: until the host lets it go.
    """

    def __init__(self, instruments):
        super().__init__(17, instruments, {"lots": 24, "bought": 24, "fills": 8}, True, {
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
        super().__init__(20, instruments, {"refusals": 8}, False, {
            "refusals": In(1), "count": In(2), "most_refusals": In(8)})

    def _event(self):
        return self.refusals & (self.count != 0)

    def _amounts(self):
        return {"refusals": self.count}

    def _too_much(self, m, window):
        over = Signal(2)
        m.d.sync += [over[0].eq(self.most_refusals < window.sum_refusals), over[1].eq(self.window_cycles == 0)]
        return over.any()

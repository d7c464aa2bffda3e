"""Which clock the core runs on: the feed port's recovered clock, or the board's own when that one has died.

The hot path and the order port's transmitter share the clock that comes with the market data, so that no byte waits for
another clock. That clock goes when the feed's link goes. Then the core must go on, on the board's own 125 MHz: what is
live has to be withdrawn.
"""

from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import AsyncFFSynchronizer, FFSynchronizer, PulseSynchronizer
from amaranth.lib.wiring import In, Out

from hdl.phy.ecp5 import ClockGate, ClockSelect

__all__ = ["ClockGuard"]

SILENT = 4          # local cycles without a sign of the feed clock, after which it counts as lost
STOPPED = 16        # ... after which it is not waited for any more
SETTLE = 3          # local cycles between the steps of a switch
WINDOW = 1024       # local cycles in which the edges of the feed clock are counted
TOLERANCE = 2       # beats of four feed cycles that a good window may differ: less than 1 %


class ClockGuard(wiring.Component):
    """Chooses the clock of domain ``sync`` between the feed's and that of domain ``local``, without a short pulse.

    It creates neither of the two domains.

    **From the feed to the local clock**: when the feed clock has shown no edge for ``SILENT`` to ``SILENT`` + 4 local
    cycles, or missed its frequency by 1 % over ``WINDOW`` local cycles, or ``link_up`` is 0. The core's clock then
    stands still, low, or high if the feed's died high, and goes on with the local clock: at most :data:`GAP` local
    cycles after the last edge of a clock that stopped. A clock that is merely too slow is taken away while it is low;
    the core runs on it until then.

    **Back**: when the feed clock has been good for ``good_windows`` windows without a break, the link is up, ``busy``
    is 0 and ``request`` has come since the loss; the core's clock then rests for about 12 local cycles. Only the first
    time after power-up no request is needed. ``feed_lost`` halts the core and keeps it from being armed, so that it is
    DISARMED or HALTED whenever the clock goes back.

    **A frame under way at the switch** keeps all its bits in their order, since nothing but time passes: the cycle in
    which the clock rests is longer, on ``TXC`` as on everything else. A PHY need not bear that; it may break the frame
    on the wire, with the FCS wrong, and the peer drops it.

    Parameters
    ----------
    good_windows : int
        8 us each.

    Members
    -------
    feed_clk : In(1)
        The feed port's recovered clock, 125 MHz.
    core_clk : Out(1)
        For domain ``sync``: ``feed_clk`` or the clock of domain ``local``, which is the PLL's and never stops.
    link_up : In(1)
        Domain ``local``: the feed's link is up.
    request : In(1)
        Strobe, domain ``sync``: the host asks for the feed clock.
    busy : In(1)
        Domain ``sync``: a frame is being sent; do not go back to the feed clock now.
    quiet : Out(1)
        Domain ``sync``: ignore the feed's receive pins. Rises before the first edge of the local clock reaches the
        core, falls in step with ``sync``.
    feed_lost : Out(1)
        Domain ``sync``: level for the core, ``quiet`` two cycles later.
    on_feed, good : Out(1)
        Domain ``local``, for lamps and tests: the core runs on the feed clock; the feed clock is good now.
    """

    #: Longest rest of the core's clock when the feed clock stops, in local cycles: until the last sign of the clock has
    #: come through, until it counts as stopped, and the steps of the switch.
    GAP = 6 + STOPPED + 4 * SETTLE

    def __init__(self, *, good_windows=128):
        if good_windows < 1:
            raise ValueError(f"good_windows is {good_windows}, must be 1 or more")
        self.good_windows = good_windows
        super().__init__({
            "feed_clk": In(1), "core_clk": Out(1), "link_up": In(1), "request": In(1),
            "busy": In(1), "quiet": Out(1, init=1), "feed_lost": Out(1, init=1), "on_feed": Out(1), "good": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.domains.feed_raw = feed_raw = ClockDomain("feed_raw", reset_less=True, local=True)
        m.d.comb += feed_raw.clk.eq(self.feed_clk)

        # -- signs of life: a signal that turns every two cycles of the feed clock
        divider, beat, beat_before = Signal(2), Signal(), Signal()
        m.d.feed_raw += divider.eq(divider + 1)
        m.submodules.beat = FFSynchronizer(divider[1], beat, o_domain="local")
        m.d.local += beat_before.eq(beat)
        sign = Signal()
        m.d.comb += sign.eq(beat != beat_before)

        silence = Signal(range(STOPPED + 1))
        with m.If(sign):
            m.d.local += silence.eq(0)
        with m.Elif(silence != STOPPED):
            m.d.local += silence.eq(silence + 1)

        # -- frequency: signs in a window
        ticks, signs = Signal(range(WINDOW)), Signal(range(WINDOW + 1))
        window_good, window_bad = Signal(), Signal()
        full, judged, fits = Signal(), Signal(), Signal()   # the window is; it was, its signs are as they should
        m.d.local += [ticks.eq(ticks + 1), signs.eq(signs + sign), full.eq(ticks == WINDOW - 2), judged.eq(full),
                      fits.eq((signs >= WINDOW // 2 - 2 * TOLERANCE) & (signs <= WINDOW // 2 + 2 * TOLERANCE))]
        with m.If(full):
            m.d.local += signs.eq(sign)
        m.d.comb += [window_good.eq(judged & fits), window_bad.eq(judged & ~fits)]
        good_for = Signal(range(self.good_windows + 1))
        m.d.comb += self.good.eq(good_for == self.good_windows)
        lost = Signal()
        m.d.comb += lost.eq((silence >= SILENT) | window_bad | ~self.link_up)
        with m.If(lost):
            m.d.local += good_for.eq(0)
        with m.Elif(window_good & ~self.good):
            m.d.local += good_for.eq(good_for + 1)

        # -- the clocks
        feed_wanted, feed_taken, feed_acknowledged = Signal(), Signal(), Signal()
        feed_stopped = Signal(init=1)
        local_enable = Signal(init=1)
        select_local = Signal(init=1)
        m.submodules.feed_gate = feed_gate = ClockGate()
        m.submodules.local_gate = local_gate = ClockGate()
        m.submodules.select = select = ClockSelect()
        m.submodules.wanted = FFSynchronizer(feed_wanted, feed_taken, o_domain="feed_raw")
        m.submodules.acknowledged = FFSynchronizer(feed_taken, feed_acknowledged, o_domain="local")
        m.d.comb += [
            feed_gate.i.eq(self.feed_clk), feed_gate.enable.eq(feed_taken & ~feed_stopped),
            local_gate.i.eq(ClockSignal("local")), local_gate.enable.eq(local_enable),
            select.a.eq(feed_gate.o), select.b.eq(local_gate.o), select.select.eq(select_local),
            self.core_clk.eq(select.o),
        ]

        # -- the sequence: take one clock away, change the switch while both are still, give the other
        m.submodules.request = request = PulseSynchronizer(i_domain="sync", o_domain="local")
        busy = Signal()
        m.submodules.busy = FFSynchronizer(self.busy, busy, o_domain="local")
        may_return = Signal(init=1)     # as after power-up
        m.d.comb += request.i.eq(self.request)
        with m.If(request.o):
            m.d.local += may_return.eq(1)
        away = Signal(init=1)           # the feed is not to be listened to
        pause = Signal(range(4 * SETTLE + 1))
        m.d.local += pause.eq(pause + 1)
        with m.FSM(domain="local", init="local"):
            with m.State("local"):
                m.d.local += [pause.eq(0), local_enable.eq(1)]
                with m.If(self.good & ~lost & may_return & ~busy):
                    m.d.local += local_enable.eq(0)
                    m.next = "leave local"
            with m.State("leave local"):
                with m.If(pause == SETTLE):
                    m.d.local += [select_local.eq(0), feed_stopped.eq(0)]
                with m.If(pause == 2 * SETTLE):
                    m.d.local += feed_wanted.eq(1)
                    m.next = "feed"
            with m.State("feed"):
                m.d.comb += self.on_feed.eq(1)
                m.d.local += [away.eq(0), pause.eq(0), may_return.eq(0)]
                with m.If(lost):
                    m.d.local += [away.eq(1), feed_wanted.eq(0)]
                    m.next = "leave feed"
            with m.State("leave feed"):
                m.d.local += pause.eq(0)
                with m.If((silence == STOPPED) | (~feed_acknowledged & (silence < SILENT))):
                    # Stopped, or out of the way since a few edges: nothing can move at the gate.
                    m.d.local += feed_stopped.eq(1)
                    m.next = "feed left"
            with m.State("feed left"):
                with m.If(pause == 3 * SETTLE):
                    m.d.local += select_local.eq(1)
                with m.If(pause == 4 * SETTLE - 1):
                    m.d.local += [local_enable.eq(1), pause.eq(0)]
                    m.next = "local"

        # -- to the core. Set at once: at a loss its clock stands still, or what it does is void anyway.
        m.submodules.quiet = AsyncFFSynchronizer(away, self.quiet, o_domain="sync")
        m.submodules.feed_lost = FFSynchronizer(self.quiet, self.feed_lost, o_domain="sync", init=1)
        return m

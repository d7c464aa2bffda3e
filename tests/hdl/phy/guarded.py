"""The clock guard with the two domains that it needs, as a top level for cocotb."""

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.phy.clocks import ClockGuard


class Guarded(wiring.Component):
    """Counts the cycles of domain ``sync``, and those in which it listens to the feed."""

    local_clk: In(1)
    feed_clk: In(1)
    link_up: In(1)
    request: In(1)
    busy: In(1)
    core_clk: Out(1)
    quiet: Out(1)
    feed_lost: Out(1)
    on_feed: Out(1)
    good: Out(1)
    cycles: Out(32)

    def __init__(self, good_windows=1):
        self.good_windows = good_windows
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        sync, local = (ClockDomain(name, reset_less=True) for name in ("sync", "local"))
        m.domains += sync, local
        m.submodules.guard = guard = ClockGuard(good_windows=self.good_windows)
        request = Signal()
        m.d.sync += [self.cycles.eq(self.cycles + 1), request.eq(self.request)]
        m.d.comb += [
            local.clk.eq(self.local_clk), sync.clk.eq(guard.core_clk), guard.feed_clk.eq(self.feed_clk),
            guard.link_up.eq(self.link_up), guard.request.eq(self.request & ~request), guard.busy.eq(self.busy),
            self.core_clk.eq(guard.core_clk), self.quiet.eq(guard.quiet), self.feed_lost.eq(guard.feed_lost),
            self.on_feed.eq(guard.on_feed), self.good.eq(guard.good),
        ]
        return m

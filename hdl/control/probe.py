"""Trigger-to-quote, measured at the pins by the gateware itself."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.registers import HISTOGRAM_BINS

__all__ = ["LatencyProbe"]


class LatencyProbe(wiring.Component):
    """Trigger-to-quote of every frame that a tick has caused: least, greatest, sum, count and histogram.

    ``fire`` announces a frame and says in which cycle its trigger byte was on the feed's pins. The latency is the
    number of cycles from there to the cycle in which ``tx_en`` next rises: both ends are at the pins.

    **Latency**: with ``tx_en`` rising in cycle ``c`` the statistics include the frame from ``c + 1``, its bin of the
    histogram from ``c + 3``.

    **Bad input**: a frame without ``fire`` is not measured. Of two ``fire`` before one frame the last one counts.

    Members
    -------
    fire : In(1)
        Strobe: the next frame was caused by a trigger byte.
    trigger_cycle : In(64)
        With ``fire``: the cycle in which that byte was on the pins.
    cycle : In(64)
        The present cycle.
    tx_en : In(1)
        GMII pin of the order port. A frame begins where it rises.
    measured : Out(1), latency : Out(32)
        Strobe with the latency of a frame, in the cycle in which ``tx_en`` rises. Longer ones show as 2^32 - 1.
    minimum : Out(32), maximum : Out(32), count : Out(32), sum : Out(64)
        Over all frames since reset, in cycles; ``minimum`` is 2^32 - 1 before the first one. ``count`` stays at its
        largest value.
    histogram_addr : In(6), histogram_data : Out(32)
        Frames by latency in cycles, the last bin with all that is longer. Data in the cycle after the address. Counts
        stay at their largest value. For as many cycles as there are bins after reset, nothing is counted here.
    """

    fire: In(1)
    trigger_cycle: In(64)
    cycle: In(64)
    tx_en: In(1)
    measured: Out(1)
    latency: Out(32)
    minimum: Out(32, init=0xFFFFFFFF)
    maximum: Out(32)
    count: Out(32)
    sum: Out(64)
    histogram_addr: In(range(HISTOGRAM_BINS))
    histogram_data: Out(32)

    def elaborate(self, platform):
        m = Module()

        announced = Signal()
        trigger = Signal(64)
        tx_en_before = Signal()
        rises = self.tx_en & ~tx_en_before
        m.d.sync += tx_en_before.eq(self.tx_en)
        with m.If(rises):
            m.d.sync += announced.eq(0)
        with m.If(self.fire):
            m.d.sync += [announced.eq(1), trigger.eq(self.trigger_cycle)]

        elapsed = (self.cycle - trigger)[:64]
        m.d.comb += [
            self.latency.eq(Mux(elapsed[32:].any(), 0xFFFFFFFF, elapsed[:32])),
            self.measured.eq(rises & announced),
        ]
        with m.If(self.measured):
            m.d.sync += self.sum.eq(self.sum + self.latency)
            with m.If(self.latency < self.minimum):
                m.d.sync += self.minimum.eq(self.latency)
            with m.If(self.latency > self.maximum):
                m.d.sync += self.maximum.eq(self.latency)
            with m.If(~self.count.all()):
                m.d.sync += self.count.eq(self.count + 1)

        # A frame lasts longer than reading and writing a bin, so one access at a time is enough.
        m.submodules.histogram = histogram = Memory(shape=32, depth=HISTOGRAM_BINS, init=[])
        write, read, host_read = histogram.write_port(), histogram.read_port(), histogram.read_port()
        sweep = Signal(range(2 * HISTOGRAM_BINS))       # the memory keeps its content through a reset
        sweeping = ~sweep[-1]
        bin_ = Signal(range(HISTOGRAM_BINS))
        fetched = Signal()
        m.d.comb += [
            bin_.eq(Mux(self.latency < HISTOGRAM_BINS - 1, self.latency, HISTOGRAM_BINS - 1)),
            read.addr.eq(bin_),
            host_read.addr.eq(self.histogram_addr),
            self.histogram_data.eq(host_read.data),
        ]
        held_bin = Signal.like(bin_)
        m.d.sync += [fetched.eq(self.measured & ~sweeping), held_bin.eq(bin_)]
        with m.If(sweeping):
            m.d.sync += sweep.eq(sweep + 1)
            m.d.comb += [write.addr.eq(sweep), write.en.eq(1)]
        with m.Else():
            m.d.comb += [
                write.addr.eq(held_bin),
                write.data.eq(read.data + ~read.data.all()),
                write.en.eq(fetched),
            ]

        return m

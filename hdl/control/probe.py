"""Trigger-to-quote, measured at the pins by the gateware itself."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.registers import HISTOGRAM_BINS, LATENCY_BITS

__all__ = ["PROBE_LATENCY", "LatencyProbe"]

#: Cycles from ``tx_en`` rising to the first cycle in which every number includes the frame.
PROBE_LATENCY = 6


class LatencyProbe(wiring.Component):
    """Trigger-to-quote of every frame that a tick has caused: least, greatest, sum, count and histogram.

    ``fire`` announces a frame whose trigger byte was on the feed's pins in the cycle before. The latency is the
    number of cycles from there to the cycle in which ``tx_en`` next rises: both ends are at the pins.

    **Latency**: with ``tx_en`` rising in cycle ``c`` the latency is known in ``c + 2``, and statistics and histogram
    include the frame from ``c + 6`` (:data:`PROBE_LATENCY`). No frame is as short as that.

    **Bad input**: a frame without ``fire`` is not measured. Of two ``fire`` before one frame the last one counts.
    ``fire`` comes at least two cycles after ``tx_en`` rose for the frame before.

    Parameters
    ----------
    bins : int
        Of the histogram, a power of two.
    count_bits : int
        Of ``count`` and of each bin.

    Members
    -------
    fire : In(1)
        Strobe: the next frame was caused by the byte that was on the feed's pins in the cycle before.
    tx_en : In(1)
        GMII pin of the order port. A frame begins where it rises.
    measured : Out(1), latency : Out(LATENCY_BITS)
        Strobe with the latency of a frame, see above. Longer ones show as all ones.
    minimum : Out(LATENCY_BITS), maximum : Out(LATENCY_BITS), count : Out(count_bits), sum : Out(64)
        Over all frames since reset, in cycles; ``minimum`` is all ones before the first one. ``count`` stays at its
        largest value.
    histogram_addr : In(range(bins)), histogram_data : Out(count_bits)
        Frames by latency in cycles, the last bin with all that is longer. Data four cycles after an address that holds
        still meanwhile. Counts stay at their largest value. For as many cycles as there are bins after reset, nothing
        is counted here.

    Attributes
    ----------
    under_way : {name: Signal}, once it is elaborated
        What the histogram goes by, for proofs.
    """

    def __init__(self, bins=HISTOGRAM_BINS, count_bits=32):
        self.bins, self.count_bits = bins, count_bits
        super().__init__({
            "fire": In(1), "tx_en": In(1), "measured": Out(1), "latency": Out(LATENCY_BITS),
            "minimum": Out(LATENCY_BITS, init=-1), "maximum": Out(LATENCY_BITS), "count": Out(count_bits),
            "sum": Out(64), "histogram_addr": In(range(bins)), "histogram_data": Out(count_bits)})

    def elaborate(self, platform):
        m = Module()

        # The pin and the strobe, a cycle later, and for how long the trigger byte has been there.
        announced, fired = Signal(), Signal()
        tx_en, tx_en_before = Signal(), Signal()
        age = Signal(LATENCY_BITS + 1)  # of the cycle before; it stops when the word is full
        far = Signal()              # beyond the last bin of the histogram
        bin_ = Signal(range(self.bins))        # the last one is all ones
        m.d.sync += [fired.eq(self.fire), tx_en.eq(self.tx_en), tx_en_before.eq(tx_en)]
        rises = tx_en & ~tx_en_before
        with m.If(rises):
            m.d.sync += announced.eq(0)
        with m.If(~age[-1]):
            m.d.sync += age.eq(age + 1)
        with m.If(age[:len(bin_)].all()):
            m.d.sync += far.eq(1)
        # What has fired in a cycle can be on the pins in the next one.
        with m.If(fired):
            m.d.sync += [announced.eq(1), age.eq(2), far.eq(0)]
        ended = Signal()            # a cycle after `measured`
        m.d.sync += [self.measured.eq(0), ended.eq(self.measured)]
        with m.If(rises):
            m.d.sync += [
                self.measured.eq(announced), self.latency.eq(age[:-1] | age[-1].replicate(LATENCY_BITS)),
                bin_.eq(age | far.replicate(len(bin_))),
            ]

        less, greater = Signal(), Signal()
        with m.If(self.measured):
            # The borrow of a difference: comparisons take inverters of their own.
            m.d.sync += [less.eq((self.latency - self.minimum)[-1]), greater.eq((self.maximum - self.latency)[-1])]
        with m.If(ended):
            m.d.sync += self.sum.eq(self.sum + self.latency)
            with m.If(less):
                m.d.sync += self.minimum.eq(self.latency)
            with m.If(greater):
                m.d.sync += self.maximum.eq(self.latency)
            with m.If(~self.count.all()):
                m.d.sync += self.count.eq(self.count + 1)

        # A frame lasts longer than reading and writing a bin, so one access at a time is enough, and the host reads in
        # between.
        m.submodules.histogram = histogram = Memory(
            shape=self.count_bits, depth=self.bins, init=[], attrs={"ram_style": "block", "no_rw_check": 1})
        write, read = histogram.write_port(), histogram.read_port(domain="comb")
        sweep = Signal(range(2 * self.bins))       # the memory keeps its content through a reset
        sweeping = ~sweep[-1]
        # Block memory is slow: between `fetched` and `shown` there is no time for anything.
        fetched, shown = (Signal(self.count_bits, name=name, reset_less=True) for name in ("fetched", "shown"))
        total = Signal(self.count_bits + 1)
        counted, store, stored, for_host = Signal(), Signal(), Signal(), Signal()
        m.d.comb += read.addr.eq(Mux(self.measured, bin_, self.histogram_addr))
        m.d.sync += [
            fetched.eq(read.data), shown.eq(fetched), counted.eq(ended & ~sweeping), store.eq(counted),
            stored.eq(store),
            # Neither what was read to be counted, nor what was read while something was written.
            for_host.eq(~ended & ~stored),
        ]
        with m.If(counted):
            m.d.sync += total.eq(shown + 1)
        with m.If(for_host):
            m.d.sync += self.histogram_data.eq(shown)
        with m.If(sweeping):
            m.d.sync += sweep.eq(sweep + 1)
            m.d.comb += [write.addr.eq(sweep), write.en.eq(1)]
        with m.Else():
            m.d.comb += [
                write.addr.eq(bin_),
                write.data.eq(total[:-1] | total[-1].replicate(self.count_bits)),
                write.en.eq(store),
            ]
        self.under_way = {"bin": bin_, "sweeping": sweeping, "fetched": fetched, "shown": shown, "ended": ended,
                          "counted": counted, "store": store, "new": write.data}
        return m

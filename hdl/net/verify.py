"""Verify, then quote: hold back frames until their FCS has proved right."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.mac.stream import RxBytes
from hdl.net.packet_fifo import PacketFifo

__all__ = ["VerifyFirst"]


class VerifyFirst(wiring.Component):
    """Passes frames straight on, or only those that proved good, from a buffer.

    **Latency**: ``out`` comes from flip-flops. While ``hold`` is 0 it shows what ``rx`` shows, in the same cycle. While
    it is 1 the first byte of a good frame leaves three cycles after its ``eof`` came in, and the frame runs without a
    gap; one cycle with ``eof`` follows its last byte.

    **Bad input**: while ``hold`` is 1 a frame that is not ``ok`` leaves no trace on ``out``. The wire's own gaps leave
    more room between frames than the buffer needs, so that it cannot overflow at line rate.

    ``hold`` may change while no frame is under way and the buffer is empty; it is meant to be set before the feed
    starts.

    Parameters
    ----------
    watched : bytes that are known a cycle ahead, each to one bit of ``next_is``.

    Members
    -------
    rx : In(RxBytes), out : Out(RxBytes)
    ahead : In(RxBytes) what ``rx`` will be in the next cycle.
    next_data : Out(8), next_valid : Out(1) what ``out.data`` and ``out.valid`` will be in the next cycle.
    next_is : Out(len(watched)) ``next_data`` is that byte. Sooner than ``next_data``: the byte is not chosen first.
    hold : In(1)
    """

    def __init__(self, watched=()):
        self.watched = tuple(watched)
        super().__init__({
            "rx": In(RxBytes), "ahead": In(RxBytes), "out": Out(RxBytes), "next_data": Out(8), "next_valid": Out(1),
            "next_is": Out(len(self.watched)), "hold": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = PacketFifo(2048)     # it empties as fast as it fills: never more than a frame
        m.d.comb += [
            fifo.w_data.eq(self.rx.data), fifo.w_valid.eq(self.rx.valid & self.hold),
            fifo.w_commit.eq(self.rx.eof & self.rx.ok & self.hold), fifo.w_discard.eq(self.rx.eof & ~self.rx.ok),
        ]
        under_way, end = Signal(), Signal()
        take = Signal()
        m.d.comb += [take.eq(fifo.o.valid & ~end), fifo.o.ready.eq(~end)]
        m.d.sync += end.eq(take & fifo.o.last)
        with m.If(take):
            m.d.sync += under_way.eq(~fifo.o.last)
        # The choice stands before the registers: what follows has all of the cycle.
        m.d.comb += [self.next_data.eq(Mux(self.hold, fifo.o.data, self.ahead.data)),
                     self.next_valid.eq(Mux(self.hold, take, self.ahead.valid)),
                     self.next_is.eq(Cat(Mux(self.hold, fifo.o.data == byte, self.ahead.data == byte)
                                         for byte in self.watched))]
        m.d.sync += [self.out.data.eq(self.next_data), self.out.valid.eq(self.next_valid)]
        with m.If(self.hold):
            m.d.sync += [self.out.sof.eq(take & ~under_way), self.out.eof.eq(end), self.out.ok.eq(end)]
        with m.Else():
            m.d.sync += [getattr(self.out, name).eq(getattr(self.ahead, name)) for name in ("sof", "eof", "ok")]
        return m

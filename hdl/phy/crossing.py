"""Bytes received on one clock, handed on by another of nominally the same frequency."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out

__all__ = ["RxCrossing"]


class RxCrossing(wiring.Component):
    """GMII receive pins from clock domain ``i_domain`` to ``o_domain``.

    A frame is handed on without a break once four of its bytes have come, so that the clocks may differ by 200 ppm and
    more over the longest frame. Between frames there is at least one cycle of silence; what the gap was is lost.

    **Latency**: 8 to 10 cycles of ``o_domain``.

    **Bad input**: if the receive clock stops in a frame, or the core's, the frame ends early on the other side or lacks
    bytes. Its FCS is wrong then. The rest of such a frame is not shown. When the core's clock has rested the frame that
    follows at once may be lost in the same way; those after it are whole.

    Members
    -------
    i_rxd : In(8), i_rx_dv, i_rx_er : In(1)
        Domain ``i_domain``.
    o_rxd : Out(8), o_rx_dv, o_rx_er : Out(1)
        Domain ``o_domain``, from registers.
    """

    PREFILL = 4
    DEPTH = 16

    def __init__(self, *, i_domain, o_domain="sync"):
        self.i_domain, self.o_domain = i_domain, o_domain
        super().__init__({"i_rxd": In(8), "i_rx_dv": In(1), "i_rx_er": In(1),
                          "o_rxd": Out(8), "o_rx_dv": Out(1), "o_rx_er": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = AsyncFIFO(width=10, depth=self.DEPTH, w_domain=self.i_domain,
                                             r_domain=self.o_domain)
        write, read = m.d[self.i_domain], m.d[self.o_domain]

        # Every byte of a frame, and one entry without "valid" for its end. After an overflow only the end is written,
        # as soon as there is room: bytes are missing, so nothing of what follows may be taken for this frame.
        rxd, dv, er = Signal(8), Signal(), Signal()
        owed, broken = Signal(), Signal()       # an end is still to be written; bytes of this frame were lost
        write += [rxd.eq(self.i_rxd), dv.eq(self.i_rx_dv), er.eq(self.i_rx_er)]
        with m.If(dv):
            write += owed.eq(1)
            m.d.comb += [fifo.w_en.eq(~broken), fifo.w_data.eq(Cat(rxd, dv, er))]
            with m.If(~fifo.w_rdy):
                write += broken.eq(1)
        with m.Elif(owed):
            m.d.comb += [fifo.w_en.eq(1), fifo.w_data.eq(0)]
            with m.If(fifo.w_rdy):
                write += [owed.eq(0), broken.eq(0)]

        waited = Signal(range(self.PREFILL + 1))
        byte, valid, error = fifo.r_data[:8], fifo.r_data[8], fifo.r_data[9]
        read += [self.o_rxd.eq(byte), self.o_rx_dv.eq(0), self.o_rx_er.eq(0)]
        with m.FSM(domain=self.o_domain, init="silence"):
            with m.State("silence"):
                read += waited.eq(0)
                with m.If(fifo.r_rdy):
                    read += waited.eq(waited + 1)
                    with m.If(~valid):
                        m.d.comb += fifo.r_en.eq(1)
                        read += waited.eq(0)
                    with m.Elif(waited == self.PREFILL - 1):
                        m.next = "frame"
            with m.State("frame"):
                m.d.comb += fifo.r_en.eq(1)
                with m.If(~fifo.r_rdy):
                    m.next = "broken"       # the source has stopped
                with m.Elif(valid):
                    read += [self.o_rx_dv.eq(1), self.o_rx_er.eq(error)]
                with m.Else():
                    m.next = "silence"
            with m.State("broken"):
                m.d.comb += fifo.r_en.eq(1)
                with m.If(fifo.r_rdy & ~valid):
                    m.next = "silence"
        return m

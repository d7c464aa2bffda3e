"""A receiver, a buffer and a transmitter: what is good comes back."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import net
from hdl.mac.rx import MacRx
from hdl.mac.tx import MacTx
from hdl.net.packet_fifo import PacketFifo


class MacLoopback(wiring.Component):
    """Sends every good frame back, with an FCS of its own.

    **Latency**: with the last byte of a frame's FCS on the pins in cycle ``c`` and the transmitter idle, the first
    preamble byte is on the pins in ``c + 6``: one cycle for the receiver's register, two until ``eof``, two through the
    buffer, one for the transmitter's register.
    """

    rxd: In(8)
    rx_dv: In(1)
    rx_er: In(1)
    txd: Out(8)
    tx_en: Out(1)
    tx_er: Out(1)
    dropped: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.rx = rx = MacRx()
        m.submodules.fifo = fifo = PacketFifo(4096)
        m.submodules.tx = tx = MacTx()
        m.d.comb += [tx.i.valid.eq(fifo.o.valid), tx.i.last.eq(fifo.o.last), fifo.o.ready.eq(tx.i.ready),
                     tx.i.data.eq(Mux(fifo.o.valid, fifo.o.data, 0))]
        # Bytes are written four bytes late, so that the FCS never is.
        delayed, filled = [Signal(8) for _ in range(net.FCS_SIZE)], Signal(net.FCS_SIZE)
        with m.If(rx.out.valid):
            m.d.sync += [filled.eq(Cat(1, filled)), Cat(delayed).eq(Cat(rx.out.data, *delayed[:-1]))]
        with m.If(rx.out.eof):
            m.d.sync += filled.eq(0)
        m.d.comb += [
            rx.rxd.eq(self.rxd), rx.rx_dv.eq(self.rx_dv), rx.rx_er.eq(self.rx_er),
            fifo.w_data.eq(delayed[-1]), fifo.w_valid.eq(rx.out.valid & filled[-1]),
            fifo.w_commit.eq(rx.out.eof & rx.out.ok), fifo.w_discard.eq(rx.out.eof & ~rx.out.ok),
            tx.start.eq(fifo.o.valid),
            self.txd.eq(tx.txd), self.tx_en.eq(tx.tx_en), self.tx_er.eq(tx.tx_er), self.dropped.eq(fifo.dropped),
        ]
        return m

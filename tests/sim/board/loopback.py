"""A small design with the pins of the core, to test the virtual board with: it sends back what it hears."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Loopback(wiring.Component):
    """Pins in, pins out, two registers between them.

    What comes in on the order port goes out on it two cycles later, the feed port is ignored. Link bytes are echoed
    with one bit inverted; the byte value 0xEE is never accepted. Every link byte accepted is shown as a register write
    of itself, to the address of the number of bytes accepted before it, and a kill pin that is high stops
    transmission and is shown as a host packet with every cycle, of kind 1, or 0 if the feed is lost.
    """

    feed_rxd: In(8)
    feed_rx_dv: In(1)
    feed_rx_er: In(1)
    order_rxd: In(8)
    order_rx_dv: In(1)
    order_rx_er: In(1)
    order_txd: Out(8)
    order_tx_en: Out(1)
    order_tx_er: Out(1)
    kill_pin: In(1)
    feed_lost: In(1)
    link_rx_data: In(8)
    link_rx_valid: In(1)
    link_rx_ready: Out(1)
    link_tx_data: Out(8)
    link_tx_valid: Out(1)
    link_tx_ready: In(1)
    dbg_reg_we: Out(1)
    dbg_reg_addr: Out(16)
    dbg_reg_data: Out(32)
    dbg_host_tx_valid: Out(1)
    dbg_host_tx_kind: Out(1)

    def elaborate(self, platform):
        m = Module()
        data, en, er = Signal(8), Signal(), Signal()
        m.d.sync += [
            Cat(data, en, er).eq(Cat(self.order_rxd, self.order_rx_dv, self.order_rx_er)),
            Cat(self.order_txd, self.order_tx_er).eq(Cat(data, er)),
            self.order_tx_en.eq(en & ~self.kill_pin),
            self.dbg_host_tx_valid.eq(self.kill_pin),
        ]
        count = Signal(16)
        m.d.comb += [
            self.dbg_host_tx_kind.eq(~self.feed_lost),
            self.link_tx_data.eq(self.link_rx_data ^ Const(0x80, 8)),
            self.link_tx_valid.eq(self.link_rx_valid & (self.link_rx_data != 0xEE)),
            self.link_rx_ready.eq(self.link_tx_ready & (self.link_rx_data != 0xEE)),
            self.dbg_reg_we.eq(self.link_rx_valid & self.link_rx_ready),
            self.dbg_reg_addr.eq(count),
            self.dbg_reg_data.eq(self.link_rx_data),
        ]
        with m.If(self.dbg_reg_we):
            m.d.sync += count.eq(count + 1)
        return m

"""RGMII, the Ethernet interface with four pins a direction, to and from the eight-bit GMII of :mod:`hdl.mac`.

A byte is a cycle of 8 ns: its low half stands at the rising edge of the clock, its high half at the falling edge. The
control pin carries "valid" at the rising edge and "valid xor error" at the falling one.
"""

from amaranth.hdl import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.phy.ecp5 import Delay, InputDDR, OutputDDR

__all__ = ["RgmiiRx", "RgmiiTx"]


class RgmiiRx(wiring.Component):
    """RGMII receive pins to GMII.

    **Latency**: the byte whose low half is sampled by the clock edge that ends cycle *c* is on ``rxd`` in cycle
    *c* + 2. A GMII byte would be sampled by that edge too, and :class:`hdl.mac.rx.MacRx` would show it in *c* + 1: with
    the receiver's own input register behind it, RGMII costs two cycles more. One of them no RGMII receiver can save,
    since the second half of the byte comes later.

    Parameters
    ----------
    delay_taps : int
        Delay of data and control against the clock, in steps of 25 ps: what the clock needs on its way to the
        registers, and the 2 ns that the PHY does not delay it, if it does not.
    domain : str
        Clock domain of the port's receive clock.

    Members
    -------
    rx_data : In(4), rx_ctl : In(1)
        From the pads.
    rxd : Out(8), rx_dv : Out(1), rx_er : Out(1)
        GMII.
    """

    def __init__(self, *, delay_taps=0, domain="sync"):
        self.delay_taps, self.domain = delay_taps, domain
        super().__init__({"rx_data": In(4), "rx_ctl": In(1), "rxd": Out(8), "rx_dv": Out(1), "rx_er": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.delay = delay = Delay(5, self.delay_taps)
        m.submodules.ddr = ddr = InputDDR(5, domain=self.domain)
        m.d.comb += [
            delay.i.eq(Cat(self.rx_data, self.rx_ctl)), ddr.pins.eq(delay.o),
            self.rxd.eq(Cat(ddr.rising[:4], ddr.falling[:4])), self.rx_dv.eq(ddr.rising[4]),
            self.rx_er.eq(ddr.rising[4] ^ ddr.falling[4]),
        ]
        return m


class RgmiiTx(wiring.Component):
    """GMII to RGMII transmit pins.

    **Latency**: a byte on ``txd`` in cycle *c* is on the pins in cycle *c* + 3.

    Parameters
    ----------
    clock_delay_taps : int
        Delay of the transmit clock against data and control, in steps of 25 ps. 0 where the PHY delays it.
    domain : str
        Clock domain.

    Members
    -------
    txd : In(8), tx_en : In(1), tx_er : In(1)
        GMII.
    tx_clk : Out(1), tx_data : Out(4), tx_ctl : Out(1)
        To the pads.
    """

    LATENCY = OutputDDR.LATENCY

    def __init__(self, *, clock_delay_taps=0, domain="sync"):
        self.clock_delay_taps, self.domain = clock_delay_taps, domain
        super().__init__({"txd": In(8), "tx_en": In(1), "tx_er": In(1), "tx_clk": Out(1), "tx_data": Out(4),
                          "tx_ctl": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ddr = ddr = OutputDDR(6, domain=self.domain)
        m.d.comb += [
            ddr.first.eq(Cat(self.txd[:4], self.tx_en, Const(1, 1))),
            ddr.second.eq(Cat(self.txd[4:], self.tx_en ^ self.tx_er, Const(0, 1))),
        ]
        pins = ddr.pins
        if self.clock_delay_taps:
            # A delay cell takes time even at 0 taps, so that data and control get one as well.
            m.submodules.delay = delay = Delay(5, 0)
            m.submodules.clock_delay = clock_delay = Delay(1, self.clock_delay_taps)
            m.d.comb += [delay.i.eq(ddr.pins[:5]), clock_delay.i.eq(ddr.pins[5])]
            pins = Cat(delay.o, clock_delay.o)
        m.d.comb += Cat(self.tx_data, self.tx_ctl, self.tx_clk).eq(pins)
        return m

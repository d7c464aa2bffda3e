"""All of a card between its pads: core, RGMII ports, clocks, PHY set-up and the serial host link."""

from amaranth.hdl import Cat, ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from hdl.control.registers import BY_NAME
from hdl.core import Core
from hdl.layout import net
from hdl.phy.clocks import ClockGuard
from hdl.phy.crossing import RxCrossing
from hdl.phy.mdio import PhySetup
from hdl.phy.rgmii import RgmiiRx, RgmiiTx
from hdl.phy.uart import Uart, divisor

__all__ = ["CLOCK_HZ", "Card", "HostUart"]

CLOCK_HZ = 125_000_000


class HostUart(wiring.Component):
    """The core's link to the host as a serial port, on a clock that never stops.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line.
    link_rx_data : Out(8), link_rx_valid : Out(1), link_rx_ready : In(1), link_tx_data : In(8), link_tx_valid : In(1),
    link_tx_ready : Out(1)
        Byte streams as :class:`hdl.core.Core` has them, domain ``sync``. The serial port itself is in domain ``local``.
        ``link_rx_data``, ``link_rx_valid`` and ``link_tx_ready`` are registers. One byte of the line can wait while
        another one comes; one that is not taken before that is lost.
    """

    def __init__(self, *, baud, clock_hz=CLOCK_HZ):
        self.divisor = divisor(clock_hz, baud)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1),
                          "link_rx_data": Out(8), "link_rx_valid": Out(1), "link_rx_ready": In(1),
                          "link_tx_data": In(8), "link_tx_valid": In(1), "link_tx_ready": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart = uart = Uart(divisor=self.divisor, domain="local")
        m.d.comb += [uart.rx.eq(self.rx), self.tx.eq(uart.tx)]

        def cross(name, signal, domain):
            synchronised = Signal(name=name)
            m.submodules[name] = FFSynchronizer(signal, synchronised, o_domain=domain)
            return synchronised

        # A byte of the line takes hundreds of cycles: each one is offered by a level, holds still until a level in
        # return says that it was taken, and the next one waits until both have gone.
        here, took = Signal(), Signal()
        offered, taken = cross("rx_offered", uart.o_valid, "sync"), cross("rx_taken", took, "local")
        m.d.comb += [uart.o_ready.eq(taken), self.link_rx_valid.eq(here)]
        with m.If(here & self.link_rx_ready):
            m.d.sync += here.eq(0)
        with m.If(offered & ~took & ~here):
            m.d.sync += [self.link_rx_data.eq(uart.o_data), here.eq(1), took.eq(1)]
        with m.Elif(~offered):
            m.d.sync += took.eq(0)

        full, ready, data = Signal(), Signal(), Signal(8)
        sends = Signal()
        waiting, sent = cross("tx_waiting", full, "local"), cross("tx_sent", sends, "sync")
        m.d.comb += [self.link_tx_ready.eq(ready), uart.i_data.eq(data), uart.i_valid.eq(waiting & ~sends)]
        with m.If(ready & self.link_tx_valid):
            m.d.sync += [data.eq(self.link_tx_data), full.eq(1), ready.eq(0)]
        with m.Elif(full):
            m.d.sync += full.eq(~sent)
        with m.Else():
            m.d.sync += ready.eq(~sent)
        with m.If(~waiting):
            m.d.local += sends.eq(0)
        with m.Elif(uart.i_ready):
            m.d.local += sends.eq(1)
        return m


class Card(wiring.Component):
    """A card without its pads. Creates the clock domains ``sync`` (of the core), ``local`` and ``order_rx``.

    Parameters
    ----------
    instruments, depth, link_mac :
        Of :class:`hdl.core.Core`. On a shared port there is no host link over Ethernet.
    core : component
        Something else with the ports of a core, instead of one.
    rx_delay_taps, tx_clock_delay_taps : int
        Of :class:`hdl.phy.rgmii.RgmiiRx` and :class:`hdl.phy.rgmii.RgmiiTx`.
    rx_register : bool
        What the feed's pads have received passes one more register, which can stand anywhere between the rim of the
        chip and the core: one cycle more from pin to pin.
    shared_port : bool
        Feed and orders share one Ethernet port: what the order port receives is what the feed port receives, a cycle
        later, so that the pads drive the one only.
    phy_table, phys, phy_reset_us, phy_settle_us :
        Of :class:`hdl.phy.mdio.PhySetup`. The first of ``phys`` is the feed's.
    mdio_buses : int
        The set-up runs on so many buses alike; the first one is the feed's.
    baud : int
        Bits a second of the serial port.
    good_windows : int
        Of :class:`hdl.phy.clocks.ClockGuard`.

    Members
    -------
    local_clk, feed_rx_clk, order_rx_clk : In(1)
        125 MHz: the board's own, and the receive clocks of the ports. ``order_rx_clk`` is unused on a shared port.
    feed_rx_data : In(4), feed_rx_ctl : In(1), feed_tx_clk : Out(1), feed_tx_data : Out(4), feed_tx_ctl : Out(1)
        The feed's port; it never sends.
    order_rx_data : In(4), order_rx_ctl : In(1), order_tx_clk : Out(1), order_tx_data : Out(4), order_tx_ctl : Out(1)
        The order port.
    phy_reset : Out(1), mdc, mdio_o, mdio_oe : Out(mdio_buses), mdio_i : In(mdio_buses)
        To the PHYs.
    uart_rx : In(1), uart_tx : Out(1)
        The host link over a serial port.
    kill_pin : In(1)
    on_feed : Out(1)
        The core runs on the feed's clock.
    """

    def __init__(self, *, instruments=16, depth=10, link_mac=net.MAC_HOST_LINK, core=None, rx_delay_taps=0,
                 tx_clock_delay_taps=0, rx_register=False, shared_port=False, phy_table=(), phys=(0,),
                 phy_reset_us=20_000.0, phy_settle_us=100_000.0, mdio_buses=1, baud=3_000_000, good_windows=128):
        self.core = core
        self.core_arguments = {"instruments": instruments, "depth": depth,
                               "link_mac": None if shared_port else link_mac}
        self.rx_delay_taps, self.tx_clock_delay_taps = rx_delay_taps, tx_clock_delay_taps
        self.rx_register = rx_register
        self.shared_port, self.mdio_buses, self.baud, self.good_windows = shared_port, mdio_buses, baud, good_windows
        self.setup_arguments = {"table": phy_table, "phys": phys, "reset_us": phy_reset_us,
                                "settle_us": phy_settle_us}
        super().__init__({
            "local_clk": In(1), "feed_rx_clk": In(1), "order_rx_clk": In(1),
            "feed_rx_data": In(4), "feed_rx_ctl": In(1), "order_rx_data": In(4), "order_rx_ctl": In(1),
            "feed_tx_clk": Out(1), "feed_tx_data": Out(4), "feed_tx_ctl": Out(1),
            "order_tx_clk": Out(1), "order_tx_data": Out(4), "order_tx_ctl": Out(1),
            "phy_reset": Out(1), "mdc": Out(mdio_buses), "mdio_o": Out(mdio_buses), "mdio_oe": Out(mdio_buses),
            "mdio_i": In(mdio_buses), "uart_rx": In(1, init=1), "uart_tx": Out(1, init=1), "kill_pin": In(1),
            "on_feed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # No resets: registers have their values from the configuration, and at a switch of clocks everything is kept.
        sync, local, order_rx_domain = (ClockDomain(name, reset_less=True) for name in ("sync", "local", "order_rx"))
        m.domains += sync, local, order_rx_domain
        m.submodules.guard = guard = ClockGuard(good_windows=self.good_windows)
        m.submodules.core = core = self.core if self.core is not None else Core(**self.core_arguments)
        m.submodules.host = host = HostUart(baud=self.baud)
        m.d.comb += [
            guard.feed_clk.eq(self.feed_rx_clk),
            local.clk.eq(self.local_clk), sync.clk.eq(guard.core_clk), order_rx_domain.clk.eq(self.order_rx_clk),
            self.on_feed.eq(guard.on_feed),
        ]

        # -- PHYs
        setups = []
        for bus in range(self.mdio_buses):
            setup = PhySetup(clock_mhz=CLOCK_HZ / 1e6, domain="local", **self.setup_arguments)
            m.submodules[f"phy_setup{bus}"] = setup
            m.d.comb += [self.mdc[bus].eq(setup.mdc), self.mdio_o[bus].eq(setup.mdio_o),
                         self.mdio_oe[bus].eq(setup.mdio_oe), setup.mdio_i.eq(self.mdio_i[bus])]
            setups.append(setup)
        m.d.comb += [self.phy_reset.eq(setups[0].phy_reset), guard.link_up.eq(setups[0].link[0])]

        # -- ports
        m.submodules.feed_rx = feed_rx = RgmiiRx(delay_taps=self.rx_delay_taps)
        m.submodules.order_tx = order_tx = RgmiiTx(clock_delay_taps=self.tx_clock_delay_taps)
        listen, received = Signal(), Cat(core.feed_rxd, core.feed_rx_dv, core.feed_rx_er)
        m.d["sync" if self.rx_register else "comb"] += received.eq(
            Cat(feed_rx.rxd, feed_rx.rx_dv & listen, feed_rx.rx_er & listen))
        m.d.comb += [
            feed_rx.rx_data.eq(self.feed_rx_data), feed_rx.rx_ctl.eq(self.feed_rx_ctl), listen.eq(~guard.quiet),
            order_tx.txd.eq(core.order_txd), order_tx.tx_en.eq(core.order_tx_en), order_tx.tx_er.eq(core.order_tx_er),
            Cat(self.order_tx_clk, self.order_tx_data, self.order_tx_ctl).eq(
                Cat(order_tx.tx_clk, order_tx.tx_data, order_tx.tx_ctl)),
        ]
        if self.shared_port:
            m.d.sync += Cat(core.order_rxd, core.order_rx_dv, core.order_rx_er).eq(received)
        else:
            m.submodules.order_rx = order_rx = RgmiiRx(delay_taps=self.rx_delay_taps, domain="order_rx")
            m.submodules.order_crossing = crossing = RxCrossing(i_domain="order_rx")
            m.submodules.feed_tx = feed_tx = RgmiiTx(clock_delay_taps=self.tx_clock_delay_taps)
            m.d.comb += [
                order_rx.rx_data.eq(self.order_rx_data), order_rx.rx_ctl.eq(self.order_rx_ctl),
                crossing.i_rxd.eq(order_rx.rxd), crossing.i_rx_dv.eq(order_rx.rx_dv),
                crossing.i_rx_er.eq(order_rx.rx_er),
                core.order_rxd.eq(crossing.o_rxd), core.order_rx_dv.eq(crossing.o_rx_dv),
                core.order_rx_er.eq(crossing.o_rx_er),
                Cat(self.feed_tx_clk, self.feed_tx_data, self.feed_tx_ctl).eq(
                    Cat(feed_tx.tx_clk, feed_tx.tx_data, feed_tx.tx_ctl)),
            ]

        # -- the host
        m.d.comb += [host.rx.eq(self.uart_rx), self.uart_tx.eq(host.tx)]
        for name in ("link_rx_data", "link_rx_valid", "link_tx_ready"):
            m.d.comb += getattr(core, name).eq(getattr(host, name))
        for name in ("link_tx_data", "link_tx_valid", "link_rx_ready"):
            m.d.comb += getattr(host, name).eq(getattr(core, name))

        # -- the feed's clock lost, and wanted back: whoever clears a halt or arms wants to trade again
        asked = Signal()
        m.d.sync += asked.eq(core.dbg_reg_we & ((core.dbg_reg_addr == BY_NAME["clear_halt"].address)
                                                | (core.dbg_reg_addr == BY_NAME["arm"].address)))
        m.d.comb += [guard.request.eq(asked), guard.busy.eq(core.order_tx_en), core.feed_lost.eq(guard.feed_lost),
                     core.kill_pin.eq(self.kill_pin)]
        return m

"""Colorlight 5A-75B, hardware revision 7.0: LFE5U-25F-6, two gigabit ports with Broadcom B50612D PHYs."""

from amaranth_boards.colorlight_5a75b_r7_0 import Colorlight_5A75B_R70Platform

from boards.anneal import Schedule
from boards.board import Board, Pad, ethernet_resources
from boards.flow import Annealing
from hdl.phy.mdio import PhyWrite

FEED_PHY, ORDER_PHY = 0, 1      # addresses on the one MDIO bus


class Platform(Colorlight_5A75B_R70Platform):
    resources = ethernet_resources(Colorlight_5A75B_R70Platform.resources)


BOARD = Board(
    name="colorlight_5a75b_r7_0",
    title="Colorlight 5A-75B V7.0",
    platform=Platform,
    device="25F",
    oscillator=Pad("clk25"),
    oscillator_mhz=25.0,
    feed_port=0,
    order_port=1,
    mdio=(0,),      # both PHYs hang on the same pins
    uart=Pad("uart"),
    baud=1_000_000,
    loader=("-c", "ft232"),
    instruments=16,
    annealing=Annealing(Schedule(hot=0.5), target_mhz=145.0),
    card={
        # The PHYs' receive clock is in step with the data edges: data are delayed by 2 ns instead.
        "rx_delay_taps": 80,
        # The PHYs delay the transmit clock; said once more, since a strap may have changed it.
        "tx_clock_delay_taps": 0,
        "phys": (FEED_PHY, ORDER_PHY),
        "phy_table": tuple(
            PhyWrite(phy, 0x1C, 0x8000 | 0x03 << 10 | 1 << 9, why="shadow 3, clock alignment: delay GTXCLK")
            for phy in (FEED_PHY, ORDER_PHY)),
    },
    notes=(
        "Host link: UART on J19, receive on KEY+ (M13), transmit on DATA_LED- (P11), 3.3 V, 1 Mbit/s: "
        "`t2q run PORT --baud 1000000`. Those pins are the board's button and lamp otherwise. Or nothing but the cable "
        "of the orders: `t2q run eth:INTERFACE`.",
        "JTAG is on the test points J27 (TCK), J28 (TMS), J29 (TDI), J30 (TDO); `t2q flash` expects an FT232H there.",
    ),
)

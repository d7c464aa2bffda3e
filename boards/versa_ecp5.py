"""Lattice ECP5 Versa: LFE5UM-45F-8, two gigabit ports with Marvell 88E1512 PHYs."""

from amaranth_boards.versa_ecp5 import VersaECP5Platform

from boards.board import Board, Pad, ethernet_resources
from hdl.phy.mdio import PhyWrite

PHY = 0     # address, each on a bus of its own


class Platform(VersaECP5Platform):
    resources = ethernet_resources(VersaECP5Platform.resources)


BOARD = Board(
    name="versa_ecp5",
    title="Lattice ECP5 Versa (45F)",
    platform=Platform,
    device="45F",
    oscillator=Pad("clk100"),
    oscillator_mhz=100.0,
    feed_port=0,
    order_port=1,
    mdio=(0, 1),
    uart=Pad("uart"),
    kill=Pad("rst"),
    lamp=Pad("led", 0),
    loader=("-c", "ft2232"),
    instruments=64,
    card={
        # The PHY delays both clocks.
        "rx_delay_taps": 0,
        "tx_clock_delay_taps": 0,
        "phys": (PHY,),
        "phy_table": (
            PhyWrite(PHY, 22, 2, why="page 2"),
            PhyWrite(PHY, 21, 0x30, 0x30, why="delay receive and transmit clock"),
            PhyWrite(PHY, 22, 0, why="page 0"),
            PhyWrite(PHY, 0, 0x9140, why="soft reset, which makes the delays effective; then gigabit, autonegotiation"),
        ),
    },
    notes=(
        "Host link: the UART of the on-board FTDI chip, 3 Mbit/s. Some boards need its second channel switched to "
        "a serial port in the FTDI's memory first.",
        "The button GSRN is the kill pin.",
    ),
)

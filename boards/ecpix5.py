"""LambdaConcept ECPIX-5 with the 85F: LFE5UM5G-85F-8, one gigabit port with a Microchip KSZ9031RNX PHY."""

from amaranth_boards.ecpix5 import ECPIX585Platform

from boards.board import Board, Pad, ethernet_resources


class Platform(ECPIX585Platform):
    resources = ethernet_resources(ECPIX585Platform.resources)


BOARD = Board(
    name="ecpix5",
    title="LambdaConcept ECPIX-5 (85F)",
    platform=Platform,
    device="85F",
    oscillator=Pad("clk100"),
    oscillator_mhz=100.0,
    feed_port=0,
    order_port=0,
    mdio=(0,),
    uart=Pad("uart"),
    kill=Pad("rst"),
    lamp=Pad("rgb_led", 0),
    loader=("-b", "ecpix5"),
    instruments=256,
    card={
        # The PHY delays the receive clock by 1.2 ns as it comes out of reset, and the transmit clock not at all.
        "rx_delay_taps": 0,
        "tx_clock_delay_taps": 80,
        "phys": (0,),
    },
    notes=(
        "One Ethernet port: feed and orders share it. If its link is gone, no cancel can leave either; the exchange's "
        "cancel on disconnect is what remains.",
        "Host link: the UART of the on-board FTDI chip, 3 Mbit/s.",
        "The reset button is the kill pin.",
        "For hardware revision R03 give openFPGALoader `-b ecpix5_r03`.",
    ),
)

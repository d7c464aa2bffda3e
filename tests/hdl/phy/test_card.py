"""A card at its pins with three clocks: the scenarios that must not go wrong."""

import time

import pytest

from sim.board.verilate import Design
from sim.cocotb_runner import run_cocotb

ARGUMENTS = {"instruments": 2, "good_windows": 2, "phy_reset_us": 1, "phy_settle_us": 1, "baud": 15_625_000}


@pytest.mark.timeout(900)       # whichever comes first builds the simulator
@pytest.mark.parametrize(("rx_register", "scenario"), [
    (False, "the_feed_clock_dies_in_mid_frame_while_a_quote_is_live"),
    (False, "the_feed_clock_dies_while_a_quote_is_being_sent"),
    (False, "the_feed_link_goes_down_and_its_clock_stays"),
    (True, "the_feed_clock_dies_in_mid_frame_while_a_quote_is_live"),
])
def test_loss_of_the_feed(rx_register, scenario):
    seed = time.time_ns() & 0x7FFFFFFF
    print(f"seed {seed}")
    run_cocotb(Design("hdl.phy.card:Card", ARGUMENTS | {"rx_register": rx_register}), "tests.hdl.phy.cocotb_card",
               testcase=scenario, seed=seed, environment={"PIN_TO_PIN": str(7 + rx_register)})

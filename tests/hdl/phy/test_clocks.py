# amaranth: UnusedElaboratable=no
"""The clock guard with two real clocks, on Verilator."""

import time

import pytest

from hdl.phy.clocks import ClockGuard
from hdl.phy.ecp5 import Pll
from sim.board.verilate import Design
from sim.cocotb_runner import run_cocotb


def test_clock_guard():
    seed = time.time_ns() & 0x7FFFFFFF
    print(f"seed {seed}")
    run_cocotb(Design("tests.hdl.phy.guarded:Guarded"), "tests.hdl.phy.cocotb_clocks", seed=seed)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="good_windows is 0, must be 1 or more"):
        ClockGuard(good_windows=0)


@pytest.mark.parametrize(("input_mhz", "dividers"), [(25.0, (1, 5, 5)), (100.0, (4, 5, 5)), (12.0, None)])
def test_pll_settings_are_exact_or_refused(input_mhz, dividers):
    if dividers is None:
        with pytest.raises(ValueError, match=r"no PLL setting makes 125.0 MHz out of 12.0 MHz"):
            Pll(input_mhz)
        return
    pll = Pll(input_mhz)
    assert (pll.input_divider, pll.feedback_divider, pll.output_divider) == dividers
    assert input_mhz / dividers[0] * dividers[1] == 125.0
    assert 400 <= 125.0 * dividers[2] <= 800

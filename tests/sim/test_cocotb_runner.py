"""The cocotb runner, on the loop-back."""

import pytest

from sim.board.verilate import Design
from sim.cocotb_runner import build_simulator, run_cocotb

LOOPBACK = Design("tests.sim.board.loopback:Loopback")
MODULE = "tests.sim.cocotb_loopback"


def test_tests_run_against_the_design():
    run_cocotb(LOOPBACK, MODULE, seed=1)


def test_failing_test_is_noticed():
    with pytest.raises(AssertionError, match=r"1 of 1 tests failed(.|\n)*failing on demand"):
        run_cocotb(LOOPBACK, MODULE, testcase="fails_on_demand", environment={"LOOPBACK_SHALL_FAIL": "1"})


def test_module_without_tests_is_noticed():
    with pytest.raises(AssertionError, match=r"tests\.sim\.board\.loopback on (.|\n)*no test"):
        run_cocotb(LOOPBACK, "tests.sim.board.loopback")


def test_only_the_ports_are_visible():
    """cocotb could not find a port that is missing from the control file, and registers would cost speed."""
    simulator = build_simulator(LOOPBACK)
    assert "public_flat_rw" in (simulator.parent / "ports.vlt").read_text()
    assert "--public-flat-rw" not in (simulator.parent / "build.log").read_text()


def test_module_that_does_not_exist_is_noticed():
    with pytest.raises(AssertionError, match=r"tests\.sim\.no_such_module"):
        run_cocotb(LOOPBACK, "tests.sim.no_such_module")

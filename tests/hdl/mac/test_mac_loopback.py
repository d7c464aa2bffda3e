"""Receiver and transmitter as Verilog, against cocotbext-eth."""

import time

from sim.board.verilate import Design
from sim.cocotb_runner import run_cocotb


def test_mac_loopback():
    seed = time.time_ns() & 0x7FFFFFFF
    print(f"seed {seed}")
    run_cocotb(Design("tests.hdl.mac.loopback:MacLoopback"), "tests.hdl.mac.cocotb_mac", seed=seed)

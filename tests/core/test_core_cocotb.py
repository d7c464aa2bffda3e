"""The core against cocotbext-eth and scapy, which know nothing of this project."""

import time

from sim.board.verilate import Design
from sim.cocotb_runner import run_cocotb


def test_core():
    seed = time.time_ns() & 0x7FFFFFFF
    print(f"seed {seed}")
    run_cocotb(Design(), "tests.core.cocotb_core", seed=seed)

"""Components in the Python simulator."""

from amaranth.sim import Simulator

__all__ = ["simulated"]


def simulated(dut, testbench):
    """Simulate ``dut`` at 125 MHz until ``testbench``, a coroutine function of the context, has ended."""
    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()

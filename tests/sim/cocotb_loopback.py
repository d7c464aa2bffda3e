"""cocotb side of test_cocotb_runner.py: an independent GMII source and sink around the loop-back."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource

PERIOD_NS = 8


class TB:
    """The loop-back with a clock, a source on its order port's input and a sink on its output."""

    def __init__(self, dut):
        self.dut = dut
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
        for name in ("feed_rxd", "feed_rx_dv", "feed_rx_er", "kill_pin", "link_rx_data", "link_rx_valid",
                     "link_tx_ready"):
            getattr(dut, name).value = 0
        self.source = GmiiSource(dut.order_rxd, dut.order_rx_er, dut.order_rx_dv, dut.clk, dut.rst)
        self.sink = GmiiSink(dut.order_txd, dut.order_tx_er, dut.order_tx_en, dut.clk, dut.rst)

    async def reset(self):
        self.dut.rst.value = 1
        for _ in range(3):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)


@cocotb.test()
async def frames_come_back(dut):
    tb = TB(dut)
    await tb.reset()
    frames = [random.randbytes(random.randint(46, 200)) for _ in range(10)]
    for payload in frames:
        await tb.source.send(GmiiFrame.from_payload(payload))
    for payload in frames:
        received = await tb.sink.recv()
        assert received.get_payload() == payload
        assert received.check_fcs()
        assert not received.error


@cocotb.test()
async def latency_is_two_cycles(dut):
    tb = TB(dut)
    await tb.reset()
    sent = []
    await tb.source.send(GmiiFrame.from_payload(bytes(60), tx_complete=sent.append))
    received = await tb.sink.recv()
    # The source drives after the edge of its stamp, the sink samples before the edge of its own.
    assert (received.sim_time_start - sent[0].sim_time_start) / 1000 == (2 + 1) * PERIOD_NS


@cocotb.test()
async def fails_on_demand(dut):
    """So that the runner can be seen to notice."""
    await TB(dut).reset()
    assert os.environ.get("LOOPBACK_SHALL_FAIL") is None, "failing on demand"

"""cocotb side of test_mac_loopback.py: receiver and transmitter between an independent GMII source and sink."""

import logging
import random

import cocotb
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource

PERIOD_NS = 8


class TB:
    """The loop-back with a clock, a source on its input and a sink on its output."""

    def __init__(self, dut):
        self.dut = dut
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
        self.source = GmiiSource(dut.rxd, dut.rx_er, dut.rx_dv, dut.clk, dut.rst)
        self.sink = GmiiSink(dut.txd, dut.tx_er, dut.tx_en, dut.clk, dut.rst)
        for port in (self.source, self.sink):
            port.log.setLevel(logging.WARNING)

    async def reset(self):
        self.dut.rst.value = 1
        for _ in range(3):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    async def receive(self):
        frame = await with_timeout(self.sink.recv(), 100, "us")
        assert frame.get_preamble_len() == 8 - 1     # the sink does not keep the first byte of a frame
        assert frame.check_fcs()
        assert not frame.error
        return frame

    async def silence(self, cycles):
        for _ in range(cycles):
            await RisingEdge(self.dut.clk)
        assert self.sink.empty()


def damaged(frame, rng):
    """What a receiver must not let pass: a flipped bit, a receive error, or an end too early."""
    data = bytearray(frame.get_payload(strip_fcs=False))
    match rng.randrange(3):
        case 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return GmiiFrame.from_raw_payload(data)
        case 1:
            frame.error = [0] * len(frame.data)
            frame.error[rng.randrange(len(frame.data))] = 1
            return frame
        case _:
            return GmiiFrame.from_raw_payload(data[:rng.randrange(1, len(data))])


@cocotb.test()
async def every_length_comes_back(dut):
    tb = TB(dut)
    await tb.reset()
    for size in [*range(1, 70), 1500, 1513, 1514, 1518]:
        payload = bytes(n * 7 + size & 0xFF for n in range(size))
        await tb.source.send(GmiiFrame.from_payload(payload))
        assert (await tb.receive()).get_payload() == payload.ljust(60, b"\0")


@cocotb.test()
async def latency_is_six_cycles(dut):
    tb = TB(dut)
    await tb.reset()
    for _ in range(5):
        sent = Queue()
        await tb.source.send(GmiiFrame.from_payload(random.randbytes(random.randint(60, 200)),
                                                    tx_complete=sent.put_nowait))
        received = await tb.receive()
        frame = await sent.get()
        # The source's stamp is the edge after which it drives a byte, the sink's the one at which it samples it.
        assert (received.sim_time_start - frame.sim_time_end) / 1000 == (6 + 1) * PERIOD_NS
        for _ in range(random.randrange(20)):
            await RisingEdge(dut.clk)


@cocotb.test()
async def bad_frames_do_not_and_harm_nobody(dut):
    tb = TB(dut)
    await tb.reset()
    good = []
    for _ in range(40):
        payload = random.randbytes(random.randint(60, 120))
        if random.random() < 0.5:
            good.append(payload)
            await tb.source.send(GmiiFrame.from_payload(payload))
        else:
            await tb.source.send(damaged(GmiiFrame.from_payload(payload), random))
    for payload in good:
        assert (await tb.receive()).get_payload() == payload
    await tb.silence(300)


@cocotb.test()
async def line_rate_loses_nothing(dut):
    tb = TB(dut)
    await tb.reset()
    payloads = [random.randbytes(60) for _ in range(100)]
    for payload in payloads:
        await tb.source.send(GmiiFrame.from_payload(payload))
    before = None
    for payload in payloads:
        frame = await tb.receive()
        assert frame.get_payload() == payload
        if before is not None:
            # Preamble 8, frame 64, gap 12: 84 byte times and not one more.
            assert (frame.sim_time_start - before) / 1000 == 84 * PERIOD_NS
        before = frame.sim_time_start
        assert not dut.dropped.value

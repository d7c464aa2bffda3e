# amaranth: UnusedElaboratable=no
"""RGMII against GMII, on models of the pads' registers, and what it costs in cycles."""

import random
import time

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hdl.layout import net
from hdl.mac.rx import MacRx
from hdl.mac.tx import MacTx
from hdl.phy.ecp5 import Delay, OutputDDR
from hdl.phy.rgmii import RgmiiRx, RgmiiTx

PERIOD = 8e-9
RX_CYCLES, TX_CYCLES = 2, 3     # in front of and behind GMII
GMII_PIN_TO_PIN = 2             # an input register, a decision, an output register
RGMII_PIN_TO_PIN = GMII_PIN_TO_PIN + RX_CYCLES + TX_CYCLES


def simulate(top, *benches, background=(), cycles=2000):
    sim = Simulator(top)
    sim.add_clock(PERIOD)
    for bench in benches:
        sim.add_testbench(bench)
    for bench in background:
        sim.add_testbench(bench, background=True)
    sim.run_until(cycles * PERIOD)


class Phy:
    """Both ends of the pins of a receiver and a transmitter, with the cycle in which every symbol stood there.

    A symbol stands in cycle *c* if the edge that ends *c* samples its first half; on the way out, if it begins with
    *c*.
    """

    def __init__(self):
        self.sent, self.received = [], []       # (cycle, byte, valid, error)
        self.cycle = 0

    async def clock(self, ctx):
        while True:
            await ctx.tick()
            self.cycle += 1

    def driver(self, rx, symbols):
        async def bench(ctx):
            await ctx.tick()
            await ctx.delay(0.75 * PERIOD)          # 2 ns before the edge that ends this cycle
            for byte, valid, error in symbols:
                self.sent.append((self.cycle, byte, valid, error))
                ctx.set(rx.rx_data, byte & 15)
                ctx.set(rx.rx_ctl, valid)
                await ctx.delay(0.5 * PERIOD)       # 2 ns before the falling edge
                ctx.set(rx.rx_data, byte >> 4)
                ctx.set(rx.rx_ctl, valid ^ error)
                await ctx.delay(0.5 * PERIOD)
        return bench

    def sampler(self, tx):
        async def bench(ctx):
            while True:
                await ctx.tick()
                await ctx.delay(0.25 * PERIOD)
                cycle = self.cycle
                assert ctx.get(tx.tx_clk) == 1
                low, valid = ctx.get(tx.tx_data), ctx.get(tx.tx_ctl)
                await ctx.delay(0.5 * PERIOD)
                assert ctx.get(tx.tx_clk) == 0
                high, error = ctx.get(tx.tx_data), ctx.get(tx.tx_ctl)
                self.received.append((cycle, high << 4 | low, valid, error ^ valid))
        return bench


def symbols_of(frame):
    return [(byte, 1, 0) for byte in net.PREAMBLE + frame] + [(0, 0, 0)] * 20


def test_receiver_gives_every_symbol_two_cycles_after_its_first_half_was_sampled():
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut, phy, seen = RgmiiRx(), Phy(), []
    symbols = [(rng.randrange(256), rng.randrange(2), rng.randrange(2)) for _ in range(200)]

    async def gmii(ctx):
        while True:
            await ctx.tick()
            await ctx.delay(0.25 * PERIOD)
            seen.append((phy.cycle, ctx.get(dut.rxd), ctx.get(dut.rx_dv), ctx.get(dut.rx_er)))

    simulate(dut, phy.driver(dut, symbols), background=[phy.clock, gmii], cycles=230)
    expected = [(cycle + RX_CYCLES, *symbol) for cycle, *symbol in phy.sent]
    assert len(expected) == 200
    assert [each for each in seen if expected[0][0] <= each[0] <= expected[-1][0]] == expected


def test_transmitter_puts_every_symbol_on_the_pins_three_cycles_later_and_the_clock_with_it():
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut, phy, sent = RgmiiTx(), Phy(), []

    async def gmii(ctx):
        for _ in range(200):
            await ctx.tick()
            byte, valid, error = rng.randrange(256), rng.randrange(2), rng.randrange(2)
            ctx.set(dut.txd, byte)
            ctx.set(dut.tx_en, valid)
            ctx.set(dut.tx_er, error)
            await ctx.delay(0.125 * PERIOD)     # the count of cycles goes up at the same edge
            sent.append((phy.cycle, byte, valid, error))

    async def sample(ctx):
        await ctx.tick().repeat(3)              # until the clock runs
        await phy.sampler(dut)(ctx)

    simulate(dut, gmii, background=[phy.clock, sample], cycles=230)
    expected = [(cycle + TX_CYCLES, *symbol) for cycle, *symbol in sent]
    assert TX_CYCLES == RgmiiTx.LATENCY == OutputDDR.LATENCY
    assert [each for each in phy.received if expected[0][0] <= each[0] <= expected[-1][0]] == expected


class Reflex(wiring.Component):
    """The shortest engine there can be: a frame starts in the cycle in which the receiver shows a trigger byte."""

    TRIGGER = 0xA7

    rx_data: In(4)
    rx_ctl: In(1)
    tx_clk: Out(1)
    tx_data: Out(4)
    tx_ctl: Out(1)
    gmii_rxd: Out(8)
    gmii_tx_en: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.pads_in = pads_in = RgmiiRx()
        m.submodules.rx = rx = MacRx()
        m.submodules.tx = tx = MacTx()
        m.submodules.pads_out = pads_out = RgmiiTx()
        bytes_left = Signal(range(65), init=64)
        with m.If(tx.i.ready):
            m.d.sync += bytes_left.eq(bytes_left - 1)
        m.d.comb += [
            pads_in.rx_data.eq(self.rx_data), pads_in.rx_ctl.eq(self.rx_ctl), rx.rxd.eq(pads_in.rxd),
            rx.rx_dv.eq(pads_in.rx_dv), rx.rx_er.eq(pads_in.rx_er),
            tx.start.eq(rx.out.valid & (rx.out.data == self.TRIGGER)),
            tx.i.valid.eq(1), tx.i.data.eq(bytes_left), tx.i.last.eq(bytes_left == 1),
            pads_out.txd.eq(tx.txd), pads_out.tx_en.eq(tx.tx_en), pads_out.tx_er.eq(tx.tx_er),
            self.tx_clk.eq(pads_out.tx_clk), self.tx_data.eq(pads_out.tx_data), self.tx_ctl.eq(pads_out.tx_ctl),
            self.gmii_rxd.eq(pads_in.rxd), self.gmii_tx_en.eq(tx.tx_en),
        ]
        return m


@pytest.mark.parametrize("position", [0, 7, 59])
def test_latency_from_pin_to_pin_at_gmii_and_at_rgmii(position):
    dut, phy, gmii = Reflex(), Phy(), {}
    frame = bytearray(64)
    frame[position] = Reflex.TRIGGER

    async def watch(ctx):
        while True:
            await ctx.tick()
            await ctx.delay(0.25 * PERIOD)
            if ctx.get(dut.gmii_rxd) == Reflex.TRIGGER:
                gmii.setdefault("trigger", phy.cycle)
            if ctx.get(dut.gmii_tx_en):
                gmii.setdefault("preamble", phy.cycle)

    async def sample(ctx):
        await ctx.tick().repeat(4)
        await phy.sampler(dut)(ctx)

    symbols = [(0, 0, 0)] * 10 + symbols_of(bytes(frame))
    simulate(dut, phy.driver(dut, symbols), background=[phy.clock, watch, sample], cycles=250)
    trigger = next(cycle for cycle, byte, valid, _ in phy.sent if valid and byte == Reflex.TRIGGER)
    first = next(cycle for cycle, _, valid, _ in phy.received if valid)
    assert gmii["preamble"] - gmii["trigger"] == GMII_PIN_TO_PIN
    assert first - trigger == RGMII_PIN_TO_PIN
    preamble = [byte for cycle, byte, valid, _ in phy.received if valid][:8]
    assert bytes(preamble) == net.PREAMBLE


def test_delays_are_limited_to_what_the_cell_can():
    with pytest.raises(ValueError, match="taps is 128, must be 0 to 127"):
        Delay(5, 128)

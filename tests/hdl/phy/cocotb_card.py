"""cocotb side of test_card.py: a whole card at its pins, whose feed clock dies."""

import os
import random
import zlib

import cocotb
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import FallingEdge, RisingEdge, Timer, with_timeout
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from hdl.control.registers import ARM_MAGIC, BY_NAME, HALT_CAUSES
from hdl.layout import net, sbe
from hdl.phy.clocks import STOPPED, ClockGuard
from host import link
from sim.market.generator import INSTRUMENTS, LINE_A
from tests.core.cocotb_core import STARBASE, TB, TEMPLATE_46, HostBytes, row, scaled

PERIOD_NS, FEED_NS = 8, 7.998
BIT_NS = 8 * PERIOD_NS      # of the serial port
EVENTS = sbe.load("t2q_link").enums["EventCode"]
# Cycles at RGMII, trigger byte to quote: two at GMII; before it two, or three with a register behind the pads; three
# behind it.
PIN_TO_PIN = int(os.environ["PIN_TO_PIN"])
HALT_TO_PINS = 30           # cycles from the loss being known in the core to a cancel on the pins, order port idle


class Packets:
    """The packets of the core's test bench."""

    packet = TB.packet

    def __init__(self):
        self.seq = 0


class Card:
    def __init__(self, dut):
        self.dut, self.rng, self.packets = dut, random.Random(cocotb.RANDOM_SEED), Packets()
        for name in ("feed_rx_clk", "feed_rx_data", "feed_rx_ctl", "order_rx_data", "order_rx_ctl", "kill_pin"):
            getattr(dut, name).value = 0
        dut.uart_rx.value = 1
        dut.mdio_i.value = 1            # no PHY answers: links are up
        # Three oscillators, none of them exact.
        Clock(dut.local_clk, 8000, unit="ps").start()
        Clock(dut.order_rx_clk, 8002, unit="ps", period_high=4001).start()
        self.feed = None
        self.frames, self.records, self.decoder = [], [], link.Decoder()
        self.last_edge = self.sending = None
        cocotb.start_soon(self._order_port())
        cocotb.start_soon(self._uart())

    # -- order port
    async def _order_port(self):
        """Frames as a PHY sees them: halves of bytes at both edges of the transmit clock."""
        dut, frame = self.dut, bytearray()
        while True:
            await RisingEdge(dut.order_tx_clk)
            began = get_sim_time("ns")
            await Timer(1, "ns")
            valid, low = dut.order_tx_ctl.value, dut.order_tx_data.value
            await FallingEdge(dut.order_tx_clk)
            await Timer(1, "ns")
            assert dut.order_tx_ctl.value == valid, "an error is signalled on the order port"
            if valid == 1:
                if not frame:
                    self.sending = began
                frame.append(dut.order_tx_data.value.to_unsigned() << 4 | low.to_unsigned())
            elif frame:
                self.check(bytes(frame))
                self.frames.append((self.sending, bytes(frame[len(net.PREAMBLE):-net.FCS_SIZE])))
                frame.clear()
                self.sending = None

    @staticmethod
    def check(frame):
        assert frame.startswith(net.PREAMBLE), frame.hex()
        body, fcs = frame[len(net.PREAMBLE):-net.FCS_SIZE], frame[-net.FCS_SIZE:]
        assert len(body) + net.FCS_SIZE >= 64
        assert zlib.crc32(body) == int.from_bytes(fcs, "little"), f"a frame with a wrong FCS left: {frame.hex()}"

    async def frame(self, limit_ns):
        """The next frame that leaves, as (time of its first byte, kind of message)."""
        end = get_sim_time("ns") + limit_ns
        while not self.frames:
            assert get_sim_time("ns") < end, f"no frame left within {limit_ns} ns"
            await Timer(2 * PERIOD_NS, "ns")
        began, data = self.frames.pop(0)
        message = bytes(Ether(data)[TCP].payload)
        kind = STARBASE.composites["MessageHeader"].unpack(message)["messageTypeId"]
        return began, STARBASE.by_id[kind].name

    # -- host link
    async def _uart(self):
        line = self.dut.uart_tx
        while True:
            await FallingEdge(line)
            await Timer(BIT_NS // 2, "ns")
            byte = 0
            for n in range(8):
                await Timer(BIT_NS, "ns")
                byte |= (line.value == 1) << n
            await Timer(BIT_NS, "ns")
            assert line.value == 1, "no stop bit"
            for kind, payload in self.decoder.feed(bytes([byte])):
                self.records.append(link.parse(kind, payload))

    async def tell(self, data):
        for byte in data:
            for level in (0, *(byte >> n & 1 for n in range(8)), 1):
                self.dut.uart_rx.value = level
                await Timer(BIT_NS, "ns")

    async def write(self, name, value):
        await self.tell(link.encode_write(BY_NAME[name].address, [value]))

    async def read(self, name):
        await self.tell(link.encode_read(9, BY_NAME[name].address))
        for _ in range(2000):
            for record in self.records:
                if isinstance(record, link.ReadReply):
                    self.records.remove(record)
                    return record.data
            await Timer(BIT_NS, "ns")
        raise AssertionError(f"no answer to a read of {name}")

    async def event(self, code):
        """Data of the next event of a kind."""
        for _ in range(4000):
            for record in self.records:
                if isinstance(record, link.Event) and record.code == EVENTS[code]:
                    self.records.remove(record)
                    return record.data
            await Timer(BIT_NS, "ns")
        raise AssertionError(f"no event {code}")

    # -- feed
    async def start_feed(self):
        await Timer(self.rng.randrange(1, 8000), "ps")
        self.feed = Clock(self.dut.feed_rx_clk, 7998, unit="ps", period_high=3999)
        self.feed.start()
        for _ in range(1000):
            await Timer(1, "us")
            if self.dut.on_feed.value == 1:
                return
        raise AssertionError("the card did not take the feed's clock")

    async def stop_feed(self):
        await Timer(self.rng.randrange(1, 8000), "ps")
        self.feed.stop()
        self.last_edge = get_sim_time("ns")

    async def send(self, frame, stop_after=None):
        """Send a frame on the feed port; returns the times at which its bytes were sampled, preamble not counted. With
        ``stop_after`` the clock dies when so many bytes are out."""
        dut, sampled = self.dut, []
        for n, byte in enumerate(net.PREAMBLE + frame + zlib.crc32(frame).to_bytes(4, "little")):
            if n == stop_after:
                await self.stop_feed()
                return sampled
            await FallingEdge(dut.feed_rx_clk)
            await Timer(2, "ns")
            dut.feed_rx_data.value, dut.feed_rx_ctl.value = byte & 15, 1
            await RisingEdge(dut.feed_rx_clk)
            if n >= len(net.PREAMBLE):
                sampled.append(get_sim_time("ns"))
            await Timer(2, "ns")
            dut.feed_rx_data.value = byte >> 4
        await FallingEdge(dut.feed_rx_clk)
        await Timer(2, "ns")
        dut.feed_rx_data.value, dut.feed_rx_ctl.value = 0, 0
        return sampled

    def quoted(self, bid, ask, action="Change"):
        """A packet that moves the quote, and the index of its trigger byte."""
        rows = [row(INSTRUMENTS[0], ord("0"), bid, action), row(INSTRUMENTS[0], ord("1"), ask, action)]
        return self.packets.packet(TEMPLATE_46, rows, LINE_A)

    async def come_back(self):
        """The feed's clock returns, the host asks for it and trades again."""
        dut = self.dut
        dut.feed_rx_ctl.value = 0
        self.feed = Clock(dut.feed_rx_clk, 7998, unit="ps", period_high=3999)
        self.feed.start()
        await Timer(60, "us")
        assert dut.on_feed.value == 0
        host = self.host
        host.bytes.clear()
        host.write("clear_halt", await self.read("halt_nonce"))
        await self.tell(host.bytes)
        await Timer(10, "us")
        assert dut.on_feed.value == 1
        assert not self.frames
        host.bytes.clear()
        host.position(0, 0, 0, 0)
        host.write("arm", ARM_MAGIC)
        await self.tell(host.bytes)
        await Timer(20, "us")
        assert await self.read("state") == 1
        self.frames.clear()     # nothing was missed, so it may quote at once

    async def configure(self):
        """Power-up to a session with one instrument, armed."""
        await Timer(4, "us")
        self.host = host = HostBytes(2, waits=False)     # it is slow enough
        host.configure([scaled(INSTRUMENTS[0])])
        await self.tell(host.bytes)
        await self.start_feed()
        host.bytes.clear()
        host.write("clear_halt", await self.read("halt_nonce"))
        host.open_session()
        await self.tell(host.bytes)
        await Timer(20, "us")
        assert await self.read("state") == 1


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def the_feed_clock_dies_in_mid_frame_while_a_quote_is_live(dut):
    """Everything live is cancelled, whole and in time; the host hears of it; the way back is the host's."""
    card = Card(dut)
    await card.configure()

    frame, trigger = card.quoted(1000, 1010, "New")
    sampled = await card.send(frame)
    began, kind = await card.frame(20_000)
    assert kind == "MassQuoteRequest"
    # From the cycle that ends with the sampling of the trigger byte to the one that begins with the quote.
    assert round((began - sampled[trigger]) / FEED_NS, 2) + 1 == PIN_TO_PIN
    await Timer(60, "us")
    card.records.clear()

    frame, _ = card.quoted(1003, 1013)
    await card.send(frame, stop_after=40)
    began, kind = await card.frame(20_000)
    assert kind == "MassQuoteCancelRequest"
    cycles = (began - card.last_edge) / PERIOD_NS
    cocotb.log.info("from the last edge of the feed clock to the cancel on the pins: %.1f local cycles", cycles)
    assert STOPPED < cycles <= ClockGuard.GAP + HALT_TO_PINS
    state = await card.event("STATE_CHANGED")
    cocotb.log.info("state changed: %#x", state)
    assert state >> 8 == 1 << HALT_CAUSES["feed_lost"]
    assert dut.on_feed.value == 0
    await Timer(200, "us")
    assert not card.frames, "one cancel is enough"

    # It comes back and nothing happens, until the host wants it.
    await card.come_back()
    frame, _ = card.quoted(1003, 1013, "New")
    await card.send(frame)
    kind = (await card.frame(20_000))[1]
    if kind == "MassQuoteCancelRequest":    # the packet that was cut short is missing now
        kind = (await card.frame(20_000))[1]
    assert kind == "MassQuoteRequest"


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def the_feed_clock_dies_while_a_quote_is_being_sent(dut):
    """The frame under way stays whole on the pins, its clock included; then the cancel leaves."""
    card = Card(dut)
    await card.configure()
    bid = 1000
    for turn in range(3):
        frame, _ = card.quoted(bid, bid + 10, "New" if turn == 0 else "Change")
        bid += 7
        await card.send(frame)
        while card.sending is None:
            await Timer(PERIOD_NS, "ns")
        await Timer(card.rng.randrange(1, 100) * PERIOD_NS, "ns")
        await card.stop_feed()
        assert card.sending is not None
        assert (await card.frame(20_000))[1] == "MassQuoteRequest"
        _, kind = await card.frame(20_000)
        assert kind == "MassQuoteCancelRequest"
        await Timer(100, "us")
        assert not card.frames
        await card.come_back()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def the_feed_link_goes_down_and_its_clock_stays(dut):
    """The PHY says so over MDIO: the same as a dead clock."""
    card = Card(dut)
    await card.configure()
    frame, _ = card.quoted(1000, 1010, "New")
    await card.send(frame)
    assert (await card.frame(20_000))[1] == "MassQuoteRequest"
    dut.mdio_i.value = 0            # every bit of the status register
    _, kind = await with_timeout(cocotb.start_soon(card.frame(200_000)), 300, "us")
    assert kind == "MassQuoteCancelRequest"
    assert dut.on_feed.value == 0

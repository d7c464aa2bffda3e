"""cocotb side of test_core_cocotb.py: the whole core between an independent GMII source and sink."""

import dataclasses
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from hdl.layout import net, sbe
from host.integrity import Image
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B, udp_frame
from tests.core.bench import CoreBench

PERIOD_NS = 8
TRIGGER_TO_QUOTE = 2        # cycles
# The source drives after the edge of its time stamp, the sink samples before the edge of its own.
OBSERVATION = 1
MDP3 = sbe.load("cme_mdp3")
STARBASE = sbe.load("starbase_orders")
TEMPLATE_32, TEMPLATE_46 = MDP3.by_id[32], MDP3.by_id[46]


class HostBytes(CoreBench):
    """What a host sends, as bytes: the bench without its board."""

    def __init__(self, rows=16, waits=True):
        self.bytes, self.image, self.waits = bytearray(), Image(rows), waits
        self.peer_seq, self.peer_ack = 5000, 1000

    def send(self, data):
        self.image.observe(data)
        self.bytes += data

    def settle(self, limit=0):
        return []


class TB:
    def __init__(self, dut):
        self.dut = dut
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
        for name in ("kill_pin", "link_rx_data", "link_rx_valid"):
            getattr(dut, name).value = 0
        dut.link_tx_ready.value = 1
        self.feed = GmiiSource(dut.feed_rxd, dut.feed_rx_er, dut.feed_rx_dv, dut.clk, dut.rst)
        self.order_in = GmiiSource(dut.order_rxd, dut.order_rx_er, dut.order_rx_dv, dut.clk, dut.rst)
        self.order_out = GmiiSink(dut.order_txd, dut.order_tx_er, dut.order_tx_en, dut.clk, dut.rst)
        self.rng = random.Random(cocotb.RANDOM_SEED)
        self.seq = 0

    async def start(self, instruments):
        self.dut.rst.value = 1
        await Timer(5 * PERIOD_NS, "ns")
        self.dut.rst.value = 0
        await Timer(200 * PERIOD_NS, "ns")       # the parameter banks are cleared after reset
        host = HostBytes()
        host.configure(instruments)
        host.open_session()
        await self.link_write(host.bytes)
        await Timer(200 * PERIOD_NS, "ns")

    async def link_write(self, data):
        edge, dut = RisingEdge(self.dut.clk), self.dut
        dut.link_rx_valid.value = 1
        for byte in data:
            dut.link_rx_data.value = byte
            await edge
            while not dut.link_rx_ready.value:
                await edge
        dut.link_rx_valid.value = 0

    def packet(self, message, rows, line):
        """A frame of a feed line with one book message, which ends an event, and the index of its trigger byte."""
        self.seq += line is LINE_A
        body = message.encode({"TransactTime": 1, "MatchEventIndicator": 0x80}, {"NoMDEntries": rows})
        header = MDP3.composites["messageHeader"].pack(blockLength=message.block_length, templateId=message.id,
                                                       schemaId=MDP3.id, version=9)
        framing = MDP3.composites["MessageFraming"]
        payload = (MDP3.composites["PacketHeader"].pack(MsgSeqNum=self.seq, SendingTime=1)
                   + framing.pack(MsgSize=framing.size + len(header) + len(body)) + header + body)
        group = message.groups["NoMDEntries"]
        last_entry = (net.ETHERNET.size + net.IPV4.size + net.UDP.size + len(payload) - len(body) + message.block_length
                      + group.dimension.size + (len(rows) - 1) * group.block_length)
        trigger = last_entry + group.fields["MDEntryType"].offset
        return udp_frame(line, payload), trigger

    async def quote_after(self, message, rows, line=LINE_A):
        """Send a packet; returns the quote that it causes and its trigger-to-quote time in cycles."""
        frame, trigger = self.packet(message, rows, line)
        sent = []
        await self.feed.send(GmiiFrame.from_payload(frame, tx_complete=sent.append))
        quote = await self.order_out.recv()
        assert quote.check_fcs()
        assert not quote.error
        await self.feed.wait()
        on_pins = sent[0].sim_time_start / 1000 + (len(net.PREAMBLE) + trigger) * PERIOD_NS
        cycles = (quote.sim_time_start / 1000 - on_pins) / PERIOD_NS - OBSERVATION
        return bytes(quote.get_payload(strip_fcs=True)), cycles


def scaled(instrument):
    """The instrument as schema version 9 has it: prices with exponent -9 instead of -7."""
    return dataclasses.replace(instrument, tick=instrument.tick * 100)


def row(instrument, kind, ticks, action="New", level=1):
    return {"MDEntryPx": ticks * instrument.tick * 100, "MDEntrySize": 7, "SecurityID": instrument.security_id,
            "RptSeq": 1, "MDPriceLevel": level, "MDUpdateAction": MDP3.enums["MDUpdateAction"][action],
            "MDEntryType": kind}


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def quotes_leave_two_cycles_after_their_trigger(dut):
    """Every event that moves the best bid or offer is quoted, always after the same number of cycles."""
    tb = TB(dut)
    await tb.start([scaled(each) for each in INSTRUMENTS[:2]])
    bid, ask = 1000, 1010
    quoted = [None, None]       # bid + ask of the last quote, by instrument
    latencies = []
    for turn in range(12):
        instrument, chosen = INSTRUMENTS[turn % 2], "New" if turn < 2 else "Change"
        rows = [row(instrument, ord("0"), bid, chosen), row(instrument, ord("1"), ask, chosen)]
        tb.rng.shuffle(rows)
        if turn >= 2:       # any number of entries, the last of which is the trigger
            rows = [row(instrument, ord("0"), bid - 5, "New", level=3)] * tb.rng.randrange(4) + rows
        quote, cycles = await tb.quote_after(tb.rng.choice([TEMPLATE_32, TEMPLATE_46]), rows)
        latencies.append(cycles)
        packet = Ether(quote)
        sums = packet[IP].chksum, packet[TCP].chksum
        del packet[IP].chksum, packet[TCP].chksum
        packet = Ether(bytes(packet))
        assert (packet[IP].chksum, packet[TCP].chksum) == sums
        header = STARBASE.composites["MessageHeader"]
        message = bytes(packet[TCP].payload)
        assert header.unpack(message)["messageTypeId"] == STARBASE["MassQuoteRequest"].id
        quoted[turn % 2] = bid + ask
        # A mid that has hardly moved since this instrument's last quote would round to the same prices: nothing to say.
        before = quoted[(turn + 1) % 2]
        moved = bid, ask
        while moved == (bid, ask) or (before is not None and abs(sum(moved) - before) < 4):
            to_ask = ask + tb.rng.choice([2, 5, 9])
            moved = min(bid + tb.rng.choice([-9, -4, 3, 8]), to_ask - 1), to_ask
        bid, ask = moved
        await Timer(3000 * PERIOD_NS, "ns")     # tokens of the rate limits come back
    assert latencies == [TRIGGER_TO_QUOTE] * 12


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def second_copy_and_damaged_packets_are_not_quoted(dut):
    """Line B's copy of a packet changes nothing; a wrong FCS pulls what stands."""
    tb = TB(dut)
    await tb.start([scaled(INSTRUMENTS[0])])
    first = [row(INSTRUMENTS[0], ord("0"), 1000), row(INSTRUMENTS[0], ord("1"), 1010)]
    await tb.quote_after(TEMPLATE_46, first)
    frame, _ = tb.packet(TEMPLATE_46, first, LINE_B)
    await tb.feed.send(GmiiFrame.from_payload(frame))
    await tb.feed.wait()
    await Timer(3000 * PERIOD_NS, "ns")
    assert tb.order_out.empty()
    frame, _ = tb.packet(TEMPLATE_46, [row(INSTRUMENTS[0], ord("0"), 1000, "Change")], LINE_A)
    damaged = GmiiFrame.from_payload(frame)
    damaged.data[-1] ^= 1
    await tb.feed.send(damaged)
    pull = bytes((await tb.order_out.recv()).get_payload(strip_fcs=True))
    message = bytes(Ether(pull)[TCP].payload)
    kind = STARBASE.composites["MessageHeader"].unpack(message)["messageTypeId"]
    assert kind == STARBASE["MassQuoteCancelRequest"].id

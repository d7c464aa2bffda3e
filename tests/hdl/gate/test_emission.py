# amaranth: UnusedElaboratable=no
"""Emission against frames on the pins."""

import pytest
from amaranth.back import verilog

from hdl.gate import emission
from hdl.gate.emission import EXPECTED, LAST, PERIOD, Emission
from hdl.layout import net, sbe
from sim.golden.quote import Decision, Params
from sim.golden.session import Connection, cancel_message, patch, quote_message, tcp_frame
from sim.market.schedule import wire_bytes
from tests.hdl.simulation import simulated

FIELDS = {"mmp_group": 1, "smp_id": 0, "quote_flags": 0, "order_flags": 0}
PATH = Connection(0x02_0000_0000_01, 0x02_0000_0000_02, 0x0A00_0001, 0x0A00_0002, 4000, 4210)
QUOTE = quote_message(Params(), Decision(1, 0, "replace", "none", 100, 0, 5, 0), 1, FIELDS, 1, 0, 0)
CANCEL = cancel_message(2, FIELDS, 2, 0, 0)
_HEADER = sbe.load("starbase_orders").composites["MessageHeader"]
HEARTBEAT = patch(_HEADER.pack(protocolId=0xDB, messageTypeId=7), 1, 0, 0)


def segment(message):
    return net.PREAMBLE + wire_bytes(tcp_frame(PATH, 1, 1, 4096, 0x18, message))


@pytest.fixture(name="period")
def short(monkeypatch):
    """A period of 2,000 cycles, so that a test need not be long."""
    monkeypatch.setattr(emission, "PERIOD", 2000)
    return 2000


def simulate(frames, cycles, approvals=(), starts=(), agains=()):
    """Cycles in which ``mismatch`` comes. ``frames``: {cycle of the first preamble byte: bytes}."""
    pins = {at + n: byte for at, frame in frames.items() for n, byte in enumerate(frame)}
    dut, found = Emission(), []

    async def testbench(ctx):
        for cycle in range(cycles):
            ctx.set(dut.tx_en, cycle in pins)
            ctx.set(dut.txd, pins.get(cycle, 0x55))
            ctx.set(dut.approved, cycle in approvals)
            ctx.set(dut.started, cycle in starts)
            ctx.set(dut.again, cycle in agains)
            if ctx.get(dut.mismatch):
                found.append(cycle)
            await ctx.tick()

    simulated(dut, testbench)
    return found


def test_converts():
    verilog.convert(Emission())
    assert PERIOD == 125_000
    assert len(QUOTE) > LAST - min(EXPECTED)


def test_what_is_approved_started_and_sent_is_silent(period):
    frames = {100: segment(QUOTE), 400: segment(CANCEL), 700: segment(HEARTBEAT), 1000: segment(QUOTE)}
    quotes = {100, 1000}
    assert simulate(frames, 3 * period, quotes, quotes) == []


def test_what_is_sent_again_was_counted_when_it_left(period):
    """It alone: the frames before and behind it count."""
    frames = {100: segment(QUOTE), 400: segment(QUOTE), 700: segment(QUOTE)}
    assert simulate(frames, period + 100, {100, 700}, {100, 700}, {400}) == []
    assert simulate(frames, period + 100, {100}, {100}, {400}) == [period]
    assert simulate({100: segment(QUOTE)}, period + 100, {100}, {100}, {100}) == [period]


@pytest.mark.parametrize("missing", ["approved", "started", "pins"])
def test_one_too_few_in_any_place(period, missing):
    frames = {100: segment(QUOTE), 500: segment(QUOTE)}
    here = {"approved": {100, 500}, "started": {100, 500}}
    if missing == "pins":
        del frames[500]
    else:
        here[missing] = {100}
    assert simulate(frames, 3 * period, here["approved"], here["started"]) == [period]     # once


def test_a_frame_under_way_is_awaited(period):
    frame = segment(QUOTE)
    for start in (period - len(frame), period - len(frame) - 1, period - 1, period):
        assert simulate({start: frame}, 2 * period, {start}, {start}) == []
        assert simulate({start: frame}, 2 * period, {start}, ()) == [max(period, start + len(frame) + 1)]


@pytest.mark.parametrize("place", sorted(EXPECTED))
def test_a_frame_of_something_else_does_not_count(period, place):
    frame = bytearray(segment(QUOTE))
    frame[place] ^= 0x80
    assert simulate({100: bytes(frame)}, period + 100) == []
    assert simulate({100: segment(QUOTE)}, period + 100) == [period]
    assert simulate({100: segment(QUOTE)[:LAST]}, period + 100) == []       # cut short of its kind
    assert simulate({100: segment(QUOTE)[:LAST + 1]}, period + 100) == []


def test_periods_follow_each_other(period):
    for n in range(3):
        assert simulate({}, 3 * period + 100, {n * period + 100}) == [(n + 1) * period]


def test_a_frame_in_the_first_cycle(period):
    assert simulate({0: segment(QUOTE)}, period + 100, {0}, {0}) == []
    assert simulate({0: segment(QUOTE)}, period + 100) == [period]


@pytest.mark.parametrize("place", sorted(EXPECTED))
def test_a_frame_cut_short_leaves_nothing_to_the_next_one(period, place):
    frames = {100: segment(QUOTE)[:place], 100 + place + 1: segment(QUOTE)}
    assert simulate(frames, period + 100, {200}, {200}) == []


def test_a_long_frame_counts_once(period):
    """Whatever stands behind the place of its kind, even the same again."""
    again = 1 << LAST.bit_length()
    frame = bytearray(4 * again)
    for at, byte in EXPECTED.items():
        frame[at::again] = bytes([byte]) * len(frame[at::again])
    assert simulate({100: bytes(frame)}, period + 100, {100}, {100}) == []


def test_counts_have_all_their_bits(monkeypatch):
    many = 1 << 15
    monkeypatch.setattr(emission, "PERIOD", many + 10)
    assert simulate({}, many + 20, range(many)) == [many + 10]

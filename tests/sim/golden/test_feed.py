"""Receive, match, arbitrate, walk."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.layout import net, sbe
from sim.golden.feed import Arbiter, WireFrame, match, receive, walk
from sim.market.generator import LINE_A, LINE_B, generate, udp_frame
from sim.market.schedule import wire_bytes

MDP3 = sbe.load("cme_mdp3")
LINES = ((LINE_A.group, LINE_A.port), (LINE_B.group, LINE_B.port))
BOOK = MDP3["MDIncrementalRefreshBook46"]
END = 1 << MDP3.sets["MatchEventIndicator"]["EndOfEvent"]
PREFIX = MDP3.composites["MessageFraming"].size + MDP3.composites["messageHeader"].size


def tagged(frame, vlan):
    return frame[:12] + net.VLAN.pack(tpid=net.ETHERTYPE_VLAN, tci=vlan) + frame[12:]


def verdict(frame, vlan=0, lines=LINES):
    return match(wire_bytes(frame), lines, vlan)


def message(name="MDIncrementalRefreshBook46", indicator=END, entries=(), *, schema=1, size=None, tail=b"", block=None):
    m = MDP3[name]
    body = m.encode({"MatchEventIndicator": indicator} if "MatchEventIndicator" in m.fields else {},
                    {"NoMDEntries": entries} if "NoMDEntries" in m.groups else {}) + tail
    block = m.block_length if block is None else block
    header = MDP3.composites["messageHeader"].pack(blockLength=block, templateId=m.id,
                                                   schemaId=schema, version=13)
    return MDP3.composites["MessageFraming"].pack(MsgSize=PREFIX + len(body) if size is None else size) + header + body


def packet(*messages):
    return MDP3.composites["PacketHeader"].pack(MsgSeqNum=1, SendingTime=2) + b"".join(messages)


def entry(security=7, **fields):
    return {"MDEntryPx": 1000, "MDEntrySize": 1, "SecurityID": security, "MDPriceLevel": 1, "MDUpdateAction": 0,
            "MDEntryType": 48, "RptSeq": 1} | fields


def kinds(payload, length=None):
    happenings, malformed = walk(payload, len(payload) if length is None else length)
    return [h.kind for h in happenings], malformed


# ---------------------------------------------------------------------- receive and match

def test_receive():
    data = wire_bytes(bytes(60))
    assert receive(WireFrame(0, data))
    assert not receive(WireFrame(0, data, rx_er=True))
    assert not receive(WireFrame(0, data[:-1] + b"\0"))
    assert not receive(WireFrame(0, wire_bytes(bytes(1519))))
    assert receive(WireFrame(0, wire_bytes(bytes(1518))))


def test_lines():
    for line, number in ((LINE_A, 0), (LINE_B, 1)):
        found = verdict(udp_frame(line, bytes(30)))
        assert found == ("line", number, 42, 30)
    assert verdict(udp_frame(LINE_B, bytes(30)), lines=(LINES[0], (0, LINE_B.port))).verdict == "feed_not_ours"
    assert verdict(udp_frame(LINE_A, b"")).verdict == "empty"


@pytest.mark.parametrize(("register", "tag", "expected"), [
    (0, None, "line"), (0, 5, "feed_not_ours"), (1 << 16, None, "line"), (1 << 16, 5, "line"),
    (1 << 17 | 5, 5, "line"), (1 << 17 | 5, 6, "feed_not_ours"), (1 << 17 | 5, None, "feed_not_ours"),
    (1 << 17 | 5, 0xE005, "line")])
def test_vlan(register, tag, expected):
    frame = udp_frame(LINE_A, bytes(30))
    found = verdict(frame if tag is None else tagged(frame, tag), register)
    assert found.verdict == expected
    if expected == "line":
        assert found.payload == (42 if tag is None else 46)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"version_ihl": 0x46}, "feed_ip_options"), ({"version_ihl": 0x44}, "feed_bad_header"),
    ({"version_ihl": 0x65}, "feed_bad_header"), ({"flags_fragment": 0x2000}, "feed_fragments"),
    ({"flags_fragment": 1}, "feed_fragments"), ({"flags_fragment": 0x8000}, "line"),
    ({"protocol": net.PROTOCOL_TCP}, "feed_not_ours"), ({"checksum": 1}, "feed_bad_header"),
    ({"total_length": 19}, "feed_bad_header"), ({"total_length": 60}, "feed_bad_header"),
    ({"udp_length": 7}, "feed_bad_header"), ({"dst": LINE_A.group ^ 1 << 24}, "feed_not_ours")])
def test_headers(changes, expected):
    assert verdict(udp_frame(LINE_A, bytes(30), **changes)).verdict == expected


def test_other_ports_and_groups():
    assert verdict(udp_frame(LINE_A._replace(port=1), bytes(30))).verdict == "feed_not_ours"
    assert verdict(udp_frame(LINE_A._replace(group=LINE_B.group), bytes(30))).verdict == "feed_not_ours"
    arp = net.ETHERNET.pack(dst=net.MAC_BROADCAST, src=1, ethertype=net.ETHERTYPE_ARP)
    assert verdict(arp).verdict == "feed_not_ours"


# ---------------------------------------------------------------------- arbitration

def test_first_copy_wins():
    arbiter = Arbiter()
    assert arbiter.offer(5) == (True, 0)
    assert arbiter.offer(5) == (False, 0)
    assert arbiter.offer(6) == (True, 0)
    assert arbiter.offer(9) == (True, 2)
    assert arbiter.offer(7) == (False, 0)
    assert arbiter.offer(10) == (True, 0)


def test_a_damaged_number_is_taken_back():
    arbiter = Arbiter()
    arbiter.offer(1 << 30)
    arbiter.take_back()
    assert arbiter.offer(5) == (True, 0)
    assert arbiter.offer(5 + (1 << 30)) == (True, (1 << 30) - 1)
    arbiter.take_back()
    assert arbiter.offer(6) == (True, 0)


def test_sequence_numbers_wrap():
    arbiter = Arbiter()
    assert [arbiter.offer(n) for n in (0xFFFF_FFFE, 0xFFFF_FFFF, 0, 0xFFFF_FFFF, 2)] == [
        (True, 0), (True, 0), (True, 0), (False, 0), (True, 1)]


# ---------------------------------------------------------------------- walk

def test_entries_and_their_bytes():
    payload = packet(message(entries=[entry(7), entry(8)]))
    happenings, malformed = walk(payload, len(payload))
    assert not malformed
    assert [(h.kind, h.a) for h in happenings] == [
        ("message", True), ("claim", 7), ("entry", 7), ("claim", 8), ("entry", 8), ("publish", True)]
    first = 12 + PREFIX + BOOK.block_length + BOOK.groups["NoMDEntries"].dimension.size
    assert [h.at for h in happenings[1:]] == [first + 15, first + 26, first + 47, first + 58, first + 58]
    assert happenings[2].b == (1000, 1, 1, 0, 48)


def test_events_end_with_the_indicator():
    assert kinds(packet(message(indicator=0, entries=[entry()])))[0] == ["message", "claim", "entry"]
    assert kinds(packet(message(indicator=4, entries=[entry()])))[0][-1] == "publish"
    assert kinds(packet(message(entries=[])))[0] == ["message", "publish"]
    assert kinds(packet(message("SecurityStatus30")))[0] == ["message", "publish"]
    assert kinds(packet(message("AdminHeartbeat12")))[0] == ["message"]
    assert kinds(packet(message("ChannelReset4")))[0] == ["message", "reset", "publish"]


def test_other_schemas_and_templates_are_skipped():
    assert kinds(packet(message(entries=[entry()], schema=2))) == (["message"], False)
    unknown = bytearray(message(entries=[entry()]))
    unknown[4:6] = (99).to_bytes(2, "little")
    assert kinds(packet(bytes(unknown), message(entries=[]))) == (["message", "message", "publish"], False)


def test_longer_blocks_are_stepped_over():
    """A newer version may append fields to root and entries."""
    book = message(entries=[entry(7)])
    at = PREFIX + BOOK.block_length
    longer = book[:at] + b"xyz" + (40).to_bytes(2, "little") + b"\1" + book[at + 3:at + 35] + bytes(8)
    header = bytearray(longer)
    header[0:2], header[2:4] = len(longer).to_bytes(2, "little"), (BOOK.block_length + 3).to_bytes(2, "little")
    assert kinds(packet(bytes(header))) == (["message", "claim", "entry", "publish"], False)


@pytest.mark.parametrize("bad", [
    message(size=9), message(size=200), message(block=8), message(entries=[entry()])[:-1] + b"", b"\x05\x00",
    message(entries=[entry()], block=60)])
def test_malformed(bad):
    found, malformed = kinds(packet(message(entries=[entry()]), bad))
    assert malformed
    assert found[:4] == ["message", "claim", "entry", "publish"]


def test_entries_that_do_not_fit():
    book = bytearray(message(entries=[entry(1), entry(2)]))
    count = PREFIX + BOOK.block_length + 2
    book[count] = 9
    found, malformed = kinds(packet(bytes(book)))
    assert malformed
    assert found.count("entry") == 2
    assert "publish" not in found
    book[count], book[count - 2] = 2, 26
    assert kinds(packet(bytes(book))) == (["message"], True)


@pytest.mark.parametrize("seed", range(3))
def test_cut_anywhere(seed):
    """What a cut packet says is the beginning of what it would have said, and it is malformed."""
    for _, frame in generate(seed, 20, mixed=0.3, split=0.3, delete_from=0.1):
        payload = frame[42:]
        whole, malformed = walk(payload, len(payload))
        assert not malformed
        for have in range(4, len(payload)):
            part, malformed = walk(payload[:have], len(payload))
            assert malformed
            assert part == [h for h in whole if h.at < have]


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_are_survived(data, more):
    happenings, _ = walk(data, len(data) + more)
    assert all(a.at <= b.at for a, b in itertools.pairwise(happenings))
    assert all(h.at < max(1, len(data)) for h in happenings)


def test_damaged_packets_are_survived():
    rng = random.Random(1)
    for _, frame in generate(5, 200):
        payload = bytearray(frame[42:])
        for _ in range(3):
            payload[rng.randrange(len(payload))] = rng.randrange(256)
        happenings, _ = walk(bytes(payload), len(payload))
        assert all(h.at < len(payload) for h in happenings)

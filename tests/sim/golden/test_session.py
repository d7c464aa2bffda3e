"""Frames of the order session, read back by scapy, and what a received frame is."""

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from hdl.layout import net, sbe
from sim.golden import session
from sim.golden.quote import Decision, Params
from sim.market.schedule import wire_bytes

STARBASE = sbe.load("starbase_orders")
HEADER = STARBASE.composites["MessageHeader"]
US = session.Connection(0x020000000001, 0x020000000002, 0x0A000001, 0x0A000002, 40000, 9000)
PEER = session.Connection(US.peer_mac, US.local_mac, US.peer_ip, US.local_ip, US.peer_port, US.local_port)
REGISTERS = {"mmp_group": 5, "smp_id": 6, "quote_flags": 1, "order_flags": 2}
ROW = Params(tick_e9_lo=500_000_000, lot_mult=10, lot_exp=-2, instrument_id_lo=77, instrument_id_hi=1)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(115)), b"\xff" * 1460])
def test_checksums_and_fields(payload):
    frame = session.tcp_frame(US, 0xFFFF_FFF0, 17, 60_000, net.TCP_ACK, payload)
    packet = Ether(frame)
    assert (packet.src, packet.dst) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
    ip, tcp = packet[IP], packet[TCP]
    assert (ip.src, ip.dst, ip.ttl, ip.id, int(ip.flags), ip.tos) == ("10.0.0.1", "10.0.0.2", 64, 0, 2, 0)
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack) == (40000, 9000, 0xFFFF_FFF0, 17)
    assert (tcp.window, str(tcp.flags)) == (60_000, "A")
    assert bytes(tcp.payload) == payload
    sums = ip.chksum, tcp.chksum
    del ip.chksum, tcp.chksum
    again = Ether(bytes(packet))
    assert (again[IP].chksum, again[TCP].chksum) == sums


def test_quote():
    decision = Decision(1, 0, "replace", "none", bid_ticks=-3, bid_lots=4)
    message = session.quote_message(ROW, decision, 99, REGISTERS, 7, 8, 9)
    assert len(message) == session.QUOTE_SIZE == 115
    head = HEADER.unpack(message)
    assert (head["protocolId"], head["messageLength"], head["messageTypeId"]) == (0xDB, 115, 130)
    assert (head["sequenceNumber"], head["lastProcessedSeqNo"], head["sendTimeNs"]) == (7, 8, 9)
    body = STARBASE["MassQuoteRequest"].decode(message[HEADER.size:])
    assert (body["quoteId"], body["correlationId"], body["mmpGroupId"], body["selfMatchPreventionId"]) == (99, 99, 5, 6)
    quote, = body["quotes"]
    assert (quote["bidPrice"], quote["askPrice"]) == (-1_500_000_000, None)
    assert (quote["bidQty.mantissa"], quote["bidQty.exponent"], quote["askQty.mantissa"]) == (40, -2, 0)
    assert quote["instrumentId"] == 1 << 32 | 77


def test_cancel():
    message = session.cancel_message(99, REGISTERS, 7, 8, 9)
    assert len(message) == session.CANCEL_SIZE == 49
    body = STARBASE.by_id[HEADER.unpack(message)["messageTypeId"]].decode(message[HEADER.size:])
    assert (body["correlationId"], body["mmpGroupId"], body["side"]) == (99, 5, 0)


def test_patch_touches_three_fields_only():
    message = session.cancel_message(99, REGISTERS, 1, 2, 3)
    patched = session.patch(message, 7, 8, 9)
    assert patched == session.cancel_message(99, REGISTERS, 7, 8, 9)


def of(frame, established=True, ok=True):
    return session.classify(wire_bytes(frame), ok, US, established)


def test_classify_segments():
    found = of(session.tcp_frame(PEER, 5, 6, 7, net.TCP_ACK, b"hello"))
    assert found == ("segment", 5, 6, 7, net.TCP_ACK, b"hello")
    assert of(session.tcp_frame(PEER, 5, 6, 7, net.TCP_ACK)).payload == b""
    for flag in (net.TCP_FIN, net.TCP_RST):
        assert of(session.tcp_frame(PEER, 5, 6, 7, net.TCP_ACK | flag)).kind == "closing"


def test_classify_the_rest():
    segment = session.tcp_frame(PEER, 5, 6, 7, net.TCP_ACK, b"hello")
    assert of(segment, established=False).kind == "frame"
    assert of(segment, ok=False).kind == "bad"
    for at in range(14, len(segment)):
        broken = bytearray(segment)
        broken[at] ^= 1
        assert of(bytes(broken)).kind in ("bad", "frame"), at
    assert of(b"\xff" * 6 + bytes(54)).kind == "frame"
    assert of(b"\x01" * 6 + bytes(54)).kind == "ignored"
    assert of(bytes([*segment[:5], 9, *segment[6:]])).kind == "ignored"
    other = session.Connection(**{name: getattr(PEER, name) for name in PEER.__slots__} | {"local_port": 1})
    assert of(session.tcp_frame(other, 5, 6, 7, net.TCP_ACK)).kind == "frame"

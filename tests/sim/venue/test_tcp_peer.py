"""The deterministic TCP end point against segments built with scapy."""

import itertools
import random

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from sim.venue.engine import COD
from sim.venue.session import HEADER, Gateway, frame
from sim.venue.tcp_peer import PeerConfig, TcpPeer

from .client import BTC, E9, SCHEMA, SECOND, entry, make_config

OUR_MAC, OUR_IP, OUR_PORT = "02:00:00:00:00:01", "10.0.0.1", 40_000
PEER_MAC, PEER_IP, PEER_PORT = "02:00:00:00:00:02", "10.0.0.2", 4210
DELAY = 5_000
US = 1_000
ANSWER = HEADER.size + SCHEMA["MassQuoteResponse"].size(quotes=1)  #: bytes, a multiple of 8


class Board:
    """The other end of the wire: builds segments with scapy, checks what comes back with scapy's own checksums."""

    def __init__(self, **changes):
        self.gateway = Gateway(make_config())
        self.peer = TcpPeer(PeerConfig(**changes), self.gateway)
        self.now_ns, self.seq, self.ack, self.sequence = 0, 5_000, 0, 0
        self.arrived = []  # (time_ns, packet) of everything the peer sent

    def frame(self, flags="A", payload=b"", seq=None, ack=None, window=8_192, **ip):
        segment = Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst=PEER_IP, **ip) / TCP(
            sport=OUR_PORT, dport=PEER_PORT, flags=flags, seq=self.seq if seq is None else seq,
            ack=self.ack if ack is None else ack, window=window)
        data = bytes(segment / Raw(payload) if payload else segment)
        return data.ljust(60, b"\0")

    def put(self, data, wait=40 * US):
        """Send a frame and return the packets that come back within ``wait`` ns."""
        self.peer.receive(data, self.now_ns)
        return self.wait(wait)

    def wait(self, duration):
        self.now_ns += duration
        self.peer.run(self.now_ns)
        packets = []
        for time_ns, data in self.peer.frames(self.now_ns):
            assert len(data) >= 60
            packet = Ether(data)
            if IP in packet:
                for layer in (IP, TCP):
                    given, packet_again = packet[layer].chksum, Ether(data)
                    del packet_again[layer].chksum
                    assert Ether(bytes(packet_again))[layer].chksum == given, f"{layer.__name__} checksum"
            self.arrived.append((time_ns, packet))
            packets.append(packet)
        return packets

    def send(self, payload, **arguments):
        """Send payload in order; returns what comes back and acknowledges nothing by itself."""
        packets = self.put(self.frame("PA", payload), **arguments)
        self.seq += len(payload)
        return packets

    def connect(self):
        [reply] = self.put(self.frame("S", ack=0))
        assert reply[TCP].flags == "SA"
        assert reply[TCP].ack == self.seq + 1
        assert ("MSS", 1460) in reply[TCP].options
        self.seq, self.ack = self.seq + 1, reply[TCP].seq + 1
        assert self.put(self.frame("A")) == []
        return reply

    def message(self, name, values=None, groups=None):
        self.sequence += 1
        return frame(name, SCHEMA[name].encode(values, groups), sequence=self.sequence, last_processed=0,
                     now_ns=self.now_ns, version=16, pad=False)

    def logon(self):
        self.connect()
        packets = self.send(self.message("Logon", {"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1,
                                                   "schemaVersion": 16, "cancelOnDisconnect": 1}))
        assert [n for n, _ in self.read(packets)] == ["LogonConf"]

    def quote(self, quote_id, bid=50_000, ask=50_001):
        return self.message("MassQuoteRequest", {"quoteId": quote_id, "correlationId": quote_id, "mmpGroupId": 7},
                            {"quotes": [entry(bid, ask, flags=COD)]})

    def read(self, packets):
        """Messages in packets that arrive in order; moves our acknowledgement on."""
        data = b""
        for packet in packets:
            payload = payload_of(packet)
            if payload:
                assert packet[TCP].seq == self.ack
                self.ack += len(payload)
                data += payload
        out = []
        while data:
            header = HEADER.unpack(data)
            message = SCHEMA.by_id[header["messageTypeId"]]
            out.append((message.name, message.decode(data[HEADER.size:header["messageLength"]])))
            data = data[header["messageLength"]:]
        return out

    def kinds(self):
        return [v.kind for v in self.peer.violations]


def payload_of(packet):
    size = packet[IP].len - 20 - packet[TCP].dataofs * 4
    return bytes(packet[TCP].payload)[:size]


@pytest.fixture
def board():
    return Board()


def test_arp(board):
    request = Ether(dst="ff:ff:ff:ff:ff:ff", src=OUR_MAC) / ARP(op=1, hwsrc=OUR_MAC, psrc=OUR_IP, pdst=PEER_IP)
    [reply] = board.put(bytes(request).ljust(60, b"\0"))
    assert (reply.dst, reply[ARP].op, reply[ARP].hwsrc, reply[ARP].psrc, reply[ARP].pdst) == (
        OUR_MAC, 2, PEER_MAC, PEER_IP, OUR_IP)
    assert board.arrived[0][0] == 2 * DELAY, "there and back"
    other = Ether(dst="ff:ff:ff:ff:ff:ff", src=OUR_MAC) / ARP(op=1, hwsrc=OUR_MAC, psrc=OUR_IP, pdst="10.0.0.9")
    assert board.put(bytes(other).ljust(60, b"\0")) == []
    assert not board.peer.violations


def test_whole_conversation_without_a_violation(board):
    board.logon()
    for quote_id in range(1, 20):
        sent_ns = board.now_ns
        packets = board.send(board.quote(quote_id, ask=50_000 + quote_id))
        assert len(packets) == 1, "the answer carries the acknowledgement"
        assert packets[0][TCP].ack == board.seq
        assert board.arrived[-1][0] == sent_ns + 2 * DELAY
        [(name, answer)] = board.read(packets)
        assert (name, answer["quoteId"]) == ("MassQuoteResponse", quote_id)
    closing = board.put(board.frame("FA"))
    board.seq += 1
    [fin] = closing
    assert "F" in fin[TCP].flags
    assert fin[TCP].ack == board.seq
    board.ack += 1
    board.put(board.frame("A"))
    assert not board.peer.connections
    assert not board.gateway.engine.open_orders()
    assert board.peer.violations == []
    assert board.gateway.explain_refusals() == []
    assert board.peer.counters["retransmissions"] == 0
    assert board.peer.next_event_ns() is None


def test_market_events_take_their_place_in_time(board):
    """A quote arrives one delay after it left: a market that moves before that hits the old quote, then the new."""
    board.logon()
    board.read(board.send(board.quote(1, 50_000, 50_010)))
    start = board.now_ns
    board.peer.receive(board.frame("PA", board.quote(2, 49_000, 50_010)), start)
    board.seq += len(board.quote(2))
    board.sequence -= 1
    board.peer.at(start + DELAY - 1, lambda t: board.gateway.market(t, BTC, None, (50_000 * E9, 1)))
    board.peer.at(start + DELAY + 1, lambda t: board.gateway.market(t, BTC, None, (49_000 * E9, 1)))
    names = [(n, v.get("quoteId") or v["fills"][0]["clientOrderId"]) for n, v in board.read(board.wait(40 * US))]
    assert names == [("OrderFilled", 1), ("MassQuoteResponse", 2), ("OrderFilled", 2)]
    times = [t for t, _ in board.arrived[-3:]]
    assert times[0] == start + 2 * DELAY - 1
    assert all(b - a >= (60 + 24) * 8 for a, b in itertools.pairwise(times)), "as far apart as a wire needs"


def test_events_of_the_past_are_refused(board):
    board.wait(100)
    with pytest.raises(ValueError, match="event at 99 ns lies in the past: the exchange is at 100 ns"):
        board.peer.at(99, print)


# -- what a wire can do to segments -----------------------------------------------------------------------------


def test_duplicate_segment_is_acknowledged_again_and_not_processed_twice(board):
    board.logon()
    data = board.frame("PA", board.quote(1))
    board.read(board.put(data))
    [again] = board.put(data)
    assert payload_of(again) == b""
    board.seq += len(board.quote(1))
    assert again[TCP].ack == board.seq
    assert board.kinds() == ["duplicate"]
    assert len(board.gateway.engine.ledger.requests) == 1


def test_out_of_order_segments_are_kept_and_each_is_acknowledged(board):
    board.logon()
    stream = b"".join(board.quote(n) for n in (1, 2, 3))
    third = len(stream) // 3
    pieces = [(board.seq + i * third, stream[i * third:(i + 1) * third]) for i in range(3)]
    for seq, piece in (pieces[2], pieces[1]):
        [ack] = board.put(board.frame("PA", piece, seq=seq))
        assert (ack[TCP].ack, payload_of(ack)) == (board.seq, b"")
    answers = board.read(board.put(board.frame("PA", pieces[0][1])))
    assert [a["quoteId"] for _, a in answers] == [1, 2, 3]
    assert board.kinds() == ["out of order", "out of order"]
    assert "expected" in board.peer.violations[0].text


def test_overlapping_retransmission_delivers_only_what_is_new(board):
    board.logon()
    stream = board.quote(1) + board.quote(2)
    board.read(board.put(board.frame("PA", stream[:100])))
    [(_, first), (_, second)] = board.read(board.put(board.frame("PA", stream)))
    assert (first["quoteId"], second["quoteId"]) == (1, 2)
    assert board.kinds() == ["duplicate"]


def test_lost_answer_is_retransmitted_with_backoff(board):
    board.logon()
    packets = board.send(board.quote(1))
    first = bytes(packets[0][TCP].payload)
    rto = board.peer.config.rto_ns
    assert board.wait(rto - 100 * US) == []
    [again] = board.wait(200 * US)
    assert bytes(again[TCP].payload) == first
    assert again[TCP].seq == board.ack
    assert board.wait(rto) == []
    [third] = board.wait(rto + 200 * US)
    assert bytes(third[TCP].payload) == first
    assert board.read([third])[0][0] == "MassQuoteResponse"
    board.put(board.frame("A"))
    assert board.peer.counters["retransmissions"] == 2
    board.wait(4 * rto)
    assert board.peer.counters["retransmissions"] == 2, "the timer stops with the acknowledgement"
    assert board.peer.violations == []


def test_three_duplicate_acknowledgements_retransmit_at_once(board):
    board.logon()
    board.put(board.frame("A"))
    lost = board.send(board.quote(1))
    for _ in range(2):
        assert board.put(board.frame("A")) == []
    [again] = board.put(board.frame("A"))
    assert bytes(again[TCP].payload) == bytes(lost[0][TCP].payload)


def test_client_that_never_acknowledges_is_reset():
    board = Board(retries=2, rto_ns=1_000_000)
    board.logon()
    board.send(board.quote(1))
    packets = board.wait(20_000_000)
    assert packets[-1][TCP].flags == "RA"
    assert not board.peer.connections
    assert board.kinds() == ["unacknowledged"]
    assert not board.gateway.engine.open_orders(), "cancel on disconnect"


def test_lost_handshake_answer(board):
    board.put(board.frame("S", ack=0))
    [again] = board.put(board.frame("S", ack=0))
    assert again[TCP].flags == "SA"
    assert board.kinds() == ["duplicate"]
    [by_timer] = board.wait(board.peer.config.rto_ns)
    assert by_timer[TCP].seq == again[TCP].seq


def test_small_window_is_honoured(board):
    board.logon()
    packets = board.put(board.frame("PA", board.quote(1), window=100))
    assert sum(len(payload_of(p)) for p in packets) == 100
    board.seq += 115
    board.ack += 100
    rest = board.put(board.frame("A", window=8_192))
    assert sum(len(payload_of(p)) for p in rest) == ANSWER - 100
    assert board.peer.violations == []


def test_mss_of_the_client_is_honoured(board):
    syn = Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst=PEER_IP) / TCP(
        sport=OUR_PORT, dport=PEER_PORT, flags="S", seq=board.seq, options=[("NOP", None), ("MSS", 100)])
    [reply] = board.put(bytes(syn).ljust(60, b"\0"))
    board.seq, board.ack = board.seq + 1, reply[TCP].seq + 1
    board.put(board.frame("A"))
    board.read(board.send(board.message("Logon", {"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1,
                                                  "schemaVersion": 16})))
    packets = board.send(board.quote(1))
    assert [len(payload_of(p)) for p in packets] == [100, ANSWER - 100]


def test_random_loss_duplication_and_reordering_deliver_the_stream_once():
    """Our sender resends what is not acknowledged; the session must see every message exactly once, in order."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    board = Board(rto_ns=300 * US, retries=30)
    board.logon()
    stream = b"".join(board.quote(n, ask=50_001 + n % 7) for n in range(1, 60))
    base, ack = board.seq, 0
    received, peer_ack = {}, board.ack
    for _ in range(4000):
        if ack >= len(stream) and len(board.gateway.engine.ledger.requests) == 59:
            break
        window = list(range(ack, min(len(stream), ack + 700), 97))
        r.shuffle(window)
        for start in window:
            if r.random() < 0.3:
                continue
            data = board.frame("PA", stream[start:start + r.choice((97, 150))], seq=base + start, ack=peer_ack)
            for _ in range(1 + (r.random() < 0.2)):
                board.peer.receive(data, board.now_ns)
        for packet in board.wait(100 * US):
            if r.random() < 0.2:
                continue
            ack = max(ack, packet[TCP].ack - base)
            if payload_of(packet):
                received[packet[TCP].seq] = payload_of(packet)
        while peer_ack in received:
            peer_ack += len(received[peer_ack])
        board.peer.receive(board.frame("A", seq=base + ack, ack=peer_ack), board.now_ns)
    requests = board.gateway.engine.ledger.requests
    assert [q.key_id for q in requests] == list(range(1, 60)), f"seed {seed}"
    assert board.gateway.refusals == []
    assert set(board.kinds()) <= {"duplicate", "out of order", "sequence", "old acknowledgement"}


# -- what is wrong is said --------------------------------------------------------------------------------------


def broken(change):
    def make(board):
        data = bytearray(board.frame("PA", board.quote(1)))
        change(data)
        return bytes(data)
    return make


def set_byte(offset, value):
    def change(data):
        data[offset] = value
    return change


def flip(offset, bit=1):
    def change(data):
        data[offset] ^= bit
    return change


@pytest.mark.parametrize(("make", "kind", "words"), [
    (lambda b: b.frame()[:59], "short frame", "59 bytes without FCS, at least 60"),
    (broken(set_byte(5, 9)), "wrong MAC", "frame for 020000000009, this is 020000000002"),
    (broken(set_byte(6, 3)), "wrong MAC", "is a group address"),
    (broken(set_byte(11, 9)), "wrong MAC", "the connection was opened by 020000000001"),
    (lambda b: bytes(Ether(dst=PEER_MAC, src=OUR_MAC) / Dot1Q(vlan=5) / IP(dst=PEER_IP) / Raw(bytes(60))),
     "unknown EtherType", "0x8100"),
    (broken(set_byte(14, 0x65)), "malformed IPv4", "version and length byte 0x65"),
    (broken(set_byte(14, 0x4f)), "IPv4 checksum", "is wrong"),
    (broken(flip(23)), "IPv4 checksum", "is wrong"),
    (broken(set_byte(16, 0xff)), "malformed IPv4", "the frame has"),
    (lambda b: bytes(
        Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst="10.0.0.3") / TCP(dport=PEER_PORT)).ljust(60, b"\0"),
     "wrong IP", "packet for 10.0.0.3, this is 10.0.0.2"),
    (lambda b: bytes(Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst=PEER_IP, frag=3) / Raw(bytes(60))),
     "fragment", "flags and offset 0x0003"),
    (lambda b: bytes(Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst=PEER_IP, flags="MF") / Raw(bytes(60))),
     "fragment", "0x2000"),
    (lambda b: bytes(Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst=PEER_IP, proto=17) / Raw(bytes(60))),
     "unknown protocol", "IP protocol 17"),
    (broken(flip(60)), "TCP checksum", "is wrong"),
    (broken(flip(38)), "TCP checksum", "is wrong"),
    (lambda b: b.frame("A")[:58] + b"xy", "padding", "bytes after the IP packet are not zero"),
    (lambda b: b.frame("A", seq=b.seq - 1), "sequence", "pure acknowledgement with sequence"),
    (lambda b: b.frame("A", ack=b.ack + 1), "acknowledges the unsent", "only up to"),
    (lambda b: b.frame("A", ack=b.ack - 1), "old acknowledgement", "after"),
    (lambda b: b.frame("PA", b"x", seq=b.seq + 70_000), "outside window", "the window is 65535"),
    (lambda b: b.frame("P", b"x"), "no ACK", "without the ACK flag"),
    (lambda b: b.frame("S"), "unexpected SYN", "on a connection that is established"),
    (lambda b: b.frame("R", seq=b.seq + 5), "reset outside window", "expected"),
])
def test_violations_are_named_and_the_connection_survives(board, make, kind, words):
    board.logon()
    board.put(board.frame("A"))
    before = len(board.gateway.engine.ledger.requests)
    data = make(board)
    board.put(data)
    assert board.kinds() == [kind]
    assert words in board.peer.violations[0].text
    if kind == "wrong MAC" and "opened by" in words:
        return  # the segment itself was taken
    assert len(board.gateway.engine.ledger.requests) == before
    board.sequence = 1
    packets = board.send(board.quote(2))
    assert board.read([p for p in packets if payload_of(p)])[0][0] == "MassQuoteResponse"


def test_segment_of_no_connection_is_answered_with_a_reset(board):
    [reply] = board.put(board.frame("PA", b"hello", ack=777))
    assert reply[TCP].flags == "RA"
    assert (reply[TCP].seq, reply[TCP].ack) == (777, board.seq + 5)
    assert board.kinds() == ["no connection"]
    [reply] = board.put(bytes(Ether(dst=PEER_MAC, src=OUR_MAC) / IP(src=OUR_IP, dst=PEER_IP)
                              / TCP(sport=1, dport=9, flags="S", seq=3)).ljust(60, b"\0"))
    assert reply[TCP].flags == "RA"
    assert board.kinds() == ["no connection"] * 2


def test_reset_ends_the_session_and_its_quotes(board):
    board.logon()
    board.read(board.send(board.quote(1)))
    assert len(board.gateway.engine.open_orders()) == 2
    assert board.put(board.frame("RA")) == []
    assert not board.peer.connections
    assert not board.gateway.engine.open_orders()
    board.seq += 1000
    board.connect()


def test_exchange_closes_after_logged_out(board):
    board.logon()
    packets = board.send(board.message("Logout", {"reason": "bye"}))
    assert board.read(packets) == [("LoggedOut", {"reason": "bye"})]
    assert "F" in packets[-1][TCP].flags
    board.ack += 1
    [ack] = board.put(board.frame("FA"))
    assert ack[TCP].ack == board.seq + 1
    assert not board.peer.connections


def test_silent_client_is_dropped_in_simulated_time(board):
    board.logon()
    board.read(board.send(board.quote(1)))
    board.put(board.frame("A"))
    packets = []
    for _ in range(12):
        packets += (arrived := board.wait(SECOND))
        board.read(arrived)
        board.ack += any("F" in p[TCP].flags for p in arrived)
        board.put(board.frame("A"))
    assert "F" in packets[-1][TCP].flags
    assert not board.gateway.engine.open_orders()
    assert board.gateway.refusals[-1].reason == "TIMEOUT"
    assert board.peer.violations == []


def test_random_frames_never_hurt():
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    board = Board()
    board.logon()
    good = board.frame("PA", board.quote(1))
    for _ in range(2000):
        data = bytearray(good if r.random() < 0.7 else r.randbytes(r.randrange(0, 200)))
        for _ in range(r.randrange(1, 4)):
            if data:
                data[r.randrange(len(data))] = r.randrange(256)
        if r.random() < 0.3:
            del data[r.randrange(len(data) + 1):]
        board.put(bytes(data), wait=US)
    assert len(board.peer.violations) > 1000
    assert len(board.gateway.engine.ledger.requests) <= 1


@pytest.mark.parametrize(("change", "words"), [
    ({"port": 0}, "port must be 1..65535, got 0"), ({"mss": 1_461}, "mss must be 64..1460, got 1461")])
def test_impossible_configuration(change, words):
    with pytest.raises(ValueError, match=words):
        PeerConfig(**change)

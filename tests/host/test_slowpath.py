"""ARP and TCP of the slow path against a peer built with scapy, and against the exchange's own TCP end point."""

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Padding, Raw

from hdl.layout import net
from host.session import Session, State
from host.slowpath import MILLISECOND, MSS, SlowPath, SlowPathError
from sim.venue import config as venue
from sim.venue.session import Gateway
from sim.venue.tcp_peer import PeerConfig, TcpPeer

MAC, PEER_MAC = 0x020000000002, 0x020000000001
LOCAL, PEER = 0x0A140002, 0x0A140001
T0 = 10 ** 18


def path(isn=1000, **options):
    return SlowPath(MAC, LOCAL, 40000, PEER, 4210, isn=isn, **options)


class ScapyPeer:
    """The other end, by hand: every segment is made by the test."""

    def __init__(self, p, isn=5000, window=4000):
        self.p, self.seq, self.window = p, isn, window

    def frames(self):
        return [Ether(f) for f in self.p.take_frames()]

    def segment(self, flags, payload=b"", seq=None, ack=None, pad=True, **fields):
        packet = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP(src="10.20.0.1", dst="10.20.0.2") / \
            TCP(sport=4210, dport=40000, seq=self.seq if seq is None else seq,
                ack=self.p.snd_nxt if ack is None else ack, flags=flags, window=self.window) / Raw(payload)
        for name, value in fields.items():
            setattr(packet[TCP], name, value)
        raw = bytes(packet)
        return raw.ljust(60, b"\xee") if pad else raw

    def open(self):
        self.p.connect(T0)
        (request,) = self.frames()
        assert request.dst == "ff:ff:ff:ff:ff:ff"
        assert (request[ARP].psrc, request[ARP].pdst, request[ARP].op) == ("10.20.0.2", "10.20.0.1", 1)
        self.p.receive(bytes(Ether(dst=request.src, src="02:00:00:00:00:01") /
                             ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="10.20.0.1", hwdst=request.src,
                                 pdst="10.20.0.2")).ljust(60, b"\0"), T0)
        (syn,) = self.frames()
        assert syn[TCP].flags == "S"
        assert syn[TCP].options == [("MSS", MSS)]
        assert syn.dst == "02:00:00:00:00:01"
        self.p.receive(self.segment("SA"), T0)
        self.seq += 1
        (ack,) = self.frames()
        assert (ack[TCP].flags, ack[TCP].ack, ack[TCP].seq) == ("A", self.seq & 0xFFFFFFFF, self.p.snd_nxt)
        assert self.p.state == "established"
        return self


@pytest.mark.parametrize("isn", [0, 1000, 0xFFFFFFFF])
@pytest.mark.parametrize("peer_isn", [0, 0xFFFFFFFF])
def test_open_send_receive(isn, peer_isn):
    p = path(isn)
    peer = ScapyPeer(p, peer_isn).open()
    p.send(b"hello", T0)
    (data,) = peer.frames()
    assert bytes(data[TCP].payload)[:5] == b"hello"
    assert data[TCP].seq == (isn + 1) & 0xFFFFFFFF
    assert not p.idle
    peer.seq &= 0xFFFFFFFF
    p.receive(peer.segment("PA", b"answer"), T0)
    assert p.take_received() == b"answer"  # without the padding of the frame
    (ack,) = peer.frames()
    assert ack[TCP].ack == (peer.seq + 6) & 0xFFFFFFFF
    assert p.idle


def test_every_frame_has_right_sums_and_lengths():
    p = path()
    peer = ScapyPeer(p).open()
    p.send(bytes(range(256)) * 3, T0)
    for raw in p.take_frames():
        packet = Ether(raw)
        assert IP in packet
        fresh = packet.copy()
        del fresh[IP].chksum, fresh[TCP].chksum, fresh[IP].len
        assert bytes(Ether(bytes(fresh))) == raw
        assert not packet.haslayer(Padding)
    assert peer.window == 4000


def test_large_data_is_cut_and_keeps_to_the_window():
    p = path()
    peer = ScapyPeer(p, window=2000).open()
    p.send(bytes(5000), T0)
    sent, got = peer.frames(), b""
    assert [len(bytes(f[TCP].payload)) for f in sent] == [MSS, 540]
    while sent:
        got += b"".join(bytes(f[TCP].payload) for f in sent)
        p.receive(peer.segment("A", ack=sent[-1][TCP].seq + len(bytes(sent[-1][TCP].payload))), T0)
        sent = peer.frames()
    assert len(got) == 5000
    assert p.idle


def test_what_is_not_acknowledged_is_repeated_then_fails():
    p = path(retry_ns=100 * MILLISECOND, retries=3)
    peer = ScapyPeer(p).open()
    p.send(b"x", T0)
    times, now = [], T0
    first = peer.frames()[0]
    while p.state == "established":
        now = p.next_deadline_ns()
        p.poll(now)
        for f in peer.frames():
            assert bytes(f) == bytes(first)
            times.append((now - T0) // MILLISECOND)
    assert times == [100, 300, 700]
    assert "sent bytes were not acknowledged (3 retries)" in p.error


@pytest.mark.parametrize("stage", ["arp", "syn"])
def test_nobody_there(stage):
    p = path(retries=2)
    if stage == "arp":
        p.connect(T0)
        wanted = "no answer to ARP for 10.20.0.1"
    else:
        p.connect(T0)
        p.receive(bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") /
                        ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="10.20.0.1", pdst="10.20.0.2")), T0)
        wanted = "10.20.0.1:4210 does not answer"
    count = 0
    while p.state != "failed":
        p.poll(p.next_deadline_ns())
        count += 1
    assert count == 3
    assert wanted in p.error
    assert p.next_deadline_ns() is None


def test_refused_reset_and_closed():
    p = path()
    peer = ScapyPeer(p)
    p.connect(T0)
    peer.frames()
    p.receive(bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") /
                    ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="10.20.0.1", pdst="10.20.0.2")), T0)
    p.receive(peer.segment("R", ack=0), T0)  # no acknowledgement of our SYN: could be anybody's
    assert p.state == "connecting"
    p.receive(peer.segment("RA"), T0)
    assert (p.state, p.error) == ("failed", "10.20.0.1:4210 refused the connection")
    p = path()
    peer = ScapyPeer(p).open()
    p.receive(peer.segment("R", seq=peer.seq + 1), T0)  # not where the next byte is expected
    assert p.state == "established"
    p.receive(peer.segment("R"), T0)
    assert (p.state, p.error) == ("failed", "10.20.0.1:4210 reset the connection")
    p = path()
    peer = ScapyPeer(p).open()
    p.receive(peer.segment("FPA", b"bye"), T0)
    assert p.take_received() == b"bye"
    assert peer.frames()[0][TCP].ack == peer.seq + 4
    assert (p.state, p.error) == ("failed", "10.20.0.1:4210 closed the connection")


def test_out_of_order_and_repeated_segments():
    p = path()
    peer = ScapyPeer(p).open()
    p.receive(peer.segment("PA", b"def", seq=peer.seq + 3), T0)
    assert p.take_received() == b""
    assert peer.frames()[0][TCP].ack == peer.seq
    p.receive(peer.segment("PA", b"abc"), T0)
    p.receive(peer.segment("PA", b"abc"), T0)
    assert p.take_received() == b"abc"
    assert [f[TCP].ack for f in peer.frames()] == [peer.seq + 3] * 2


def test_arp_for_us_is_answered_in_every_state():
    for state in ("closed", "established", "handed over", "failed"):
        p = path()
        if state != "closed":
            ScapyPeer(p).open()
        p.state = state
        p.receive(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:09") /
                        ARP(op=1, hwsrc="02:00:00:00:00:09", psrc="10.20.0.9", pdst="10.20.0.2")).ljust(60, b"\0"), T0)
        (reply,) = [Ether(f) for f in p.take_frames()]
        assert (reply.dst, reply[ARP].op, reply[ARP].psrc, reply[ARP].hwsrc, reply[ARP].pdst, reply[ARP].hwdst) == (
            "02:00:00:00:00:09", 2, "10.20.0.2", "02:00:00:00:00:02", "10.20.0.9", "02:00:00:00:00:09")


def test_foreign_and_damaged_frames_change_nothing():
    p = path()
    peer = ScapyPeer(p).open()
    good = bytearray(peer.segment("PA", b"data"))
    before = (p.rcv_nxt, p.snd_una, p.state)
    for fields in ({"sport": 1}, {"dport": 1}):
        p.receive(peer.segment("PA", b"data", **fields), T0)
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    real = net.ETHERNET.size + net.IPV4.size + net.TCP.size + 4
    for at in range(net.ETHERNET.size, real):  # a flipped bit anywhere in what the sums cover
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        p.receive(bytes(bad), T0)
    for size in range(len(good)):
        if size < real:
            p.receive(bytes(good[:size]), T0)
    for _ in range(300):
        p.receive(rng.randbytes(rng.randrange(100)), T0)
        p.receive(bytes(good[:34]) + rng.randbytes(60), T0)
    assert (p.rcv_nxt, p.snd_una, p.state) == before
    assert p.take_received() == b""
    p.receive(bytes(good), T0)
    assert p.take_received() == b"data"


def test_hand_over_needs_silence_and_then_takes_nothing_more():
    p = path()
    peer = ScapyPeer(p, window=3000).open()
    p.send(b"logon", T0)
    with pytest.raises(SlowPathError, match="established with 1 segments unacknowledged"):
        p.hand_over()
    p.receive(peer.segment("PA", b"confirmed"), T0)
    assert p.take_received() == b"confirmed"
    peer.seq += 9
    peer.frames()
    h = p.hand_over()
    assert (h.snd_nxt, h.rcv_nxt, h.peer_window, h.peer_mac) == (1006, peer.seq, 3000, PEER_MAC)
    p.receive(peer.segment("PA", b"late"), T0)  # between the hand-over and the fabric's start
    assert p.take_received() == b""
    assert p.take_frames() == []  # unacknowledged: the peer will send it again, to the fabric
    assert p.next_deadline_ns() is None


@pytest.mark.parametrize("peer_first", [False, True])
def test_close_after_the_fabric(peer_first):
    p = path()
    peer = ScapyPeer(p).open()
    p.hand_over()
    snd_nxt, rcv_nxt = p.snd_nxt + 500, peer.seq + 300  # what the fabric has moved on to
    if peer_first:
        p.receive(peer.segment("FA", seq=rcv_nxt, ack=snd_nxt), T0)
    p.take_back(snd_nxt, rcv_nxt, T0)
    (fin,) = peer.frames()
    assert (fin[TCP].flags, fin[TCP].seq, fin[TCP].ack) == ("FA", snd_nxt, rcv_nxt + peer_first)
    p.receive(peer.segment("A", seq=rcv_nxt + peer_first, ack=snd_nxt + 1), T0)
    if not peer_first:
        assert p.state == "closing"
        p.receive(peer.segment("FA", seq=rcv_nxt, ack=snd_nxt + 1), T0)
        assert peer.frames()[0][TCP].ack == rcv_nxt + 1
    assert p.state == "closed"


def test_reset_of_an_orphan():
    p = path()
    p.peer_mac = PEER_MAC
    p.reset(77, 88)
    (rst,) = [Ether(f) for f in p.take_frames()]
    assert (rst[TCP].flags, rst[TCP].seq, rst[TCP].ack) == ("RA", 77, 88)


@pytest.mark.parametrize("loss", [0, 4])
def test_against_the_exchange_with_loss(loss):
    """A logon through the exchange's TCP end point, with every so-many-th frame lost, without a fault found."""
    gateway = Gateway(venue.demonstration())
    peer = TcpPeer(PeerConfig(mac=PEER_MAC, ip=PEER, port=4210), gateway)
    p = path(retries=20, retry_ns=10 * MILLISECOND)
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    session = Session("tick2quote", "let-me-quote", logon_timeout_ns=10 ** 12)
    p.connect(T0)
    now, started = T0, False
    while session.state is not State.UP or not p.idle:
        assert now < T0 + 60 * 10 ** 9, (p.state, p.error, session.state)
        for f in p.take_frames():
            if not (loss and rng.randrange(loss) == 0):
                peer.receive(f.ljust(60, b"\0"), now)
        peer.run(now)
        for at, f in peer.frames(now):
            if not (loss and rng.randrange(loss) == 0):
                p.receive(f, at)
        if p.state == "established" and not started:
            started = True
            session.start(now)
        for message in session.take_output():
            p.send(message, now)
        session.receive(p.take_received(), now)
        p.poll(now)
        now += MILLISECOND
    allowed = {"duplicate"} if loss else set()  # repeating what was lost is what a sender does
    assert {v.kind for v in peer.violations} <= allowed


def echo(payload=b"0123456789", dst="10.20.0.2", **ip):
    return bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP(src="10.20.0.9", dst=dst, **ip) /
                 ICMP(id=77, seq=3) / payload)


@pytest.mark.parametrize("size", [0, 1, 18, 1472])
def test_ping(size):
    """What came goes back, whatever state the connection is in; padding of short frames does not."""
    p = path()
    payload = bytes(n & 0xFF for n in range(size))
    p.receive(echo(payload).ljust(60, b"\xee"), T0)
    [reply] = [Ether(f) for f in p.take_frames()]
    assert (reply.dst, reply.src) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
    assert (reply[IP].src, reply[IP].dst, reply[IP].ttl) == ("10.20.0.2", "10.20.0.9", 64)
    assert (reply[ICMP].type, reply[ICMP].code, reply[ICMP].id, reply[ICMP].seq) == (0, 0, 77, 3)
    assert bytes(reply[ICMP].payload)[:size] == payload
    again = Ether(bytes(reply))
    del again[IP].chksum
    del again[ICMP].chksum
    again = Ether(bytes(again))
    assert (again[IP].chksum, again[ICMP].chksum, again[IP].len) == (reply[IP].chksum, reply[ICMP].chksum, 28 + size)


def test_what_is_no_ping_of_ours():
    p = path()
    right = echo()
    spoilt = [right[:n] + bytes([right[n] ^ 1]) + right[n + 1:] for n in (22, 34, 36, 45)]
    for frame in (*spoilt, echo(dst="10.20.0.3"), echo(flags="MF"), echo(frag=3), right[:40]):
        p.receive(frame, T0)
        assert p.take_frames() == []
    assert p.ignored == 8

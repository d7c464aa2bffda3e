"""ARP, ICMP echo and TCP of the order port, as far as the fabric does not own the connection.

The packets are built and read with scapy; they travel as FrameTx and FrameRx over the host link. The connection is
opened here, carries the logon, and is then handed to the fabric, which needs only the numbers of :class:`HandOver`.

**Nothing is lost at the hand-over.** It happens when everything sent has been acknowledged. From then on this end
neither takes nor acknowledges another byte: a segment that arrives on the slow path between :meth:`SlowPath.hand_over`
and the fabric's start is left unanswered, so the peer sends it again and the fabric takes it in order.

Time is an argument (integer nanoseconds). Sequence numbers are modulo 2^32.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address

from scapy.layers.inet import ICMP, IP, TCP, in4_chksum
from scapy.layers.l2 import ARP, Ether
from scapy.utils import checksum

from hdl.layout import net

_MASK = 0xFFFF_FFFF
_ECHO_REQUEST, _ICMP_HEADER = 8, 8
_FIN, _SYN, _RST, _PSH, _ACK = net.TCP_FIN, net.TCP_SYN, net.TCP_RST, net.TCP_PSH, net.TCP_ACK
MILLISECOND = 1_000_000
MSS = 1460  #: bytes; announced, and the largest segment sent


class SlowPathError(RuntimeError):
    """The connection could not be made, or ended."""


@dataclass(frozen=True)
class HandOver:
    """What the fabric needs to go on with a connection: ``peer_mac``, TCP ``snd_nxt`` and ``rcv_nxt``, and the peer's
    ``peer_window`` in bytes."""

    peer_mac: int
    snd_nxt: int
    rcv_nxt: int
    peer_window: int


def mac_text(mac):
    """``02:00:00:00:00:01`` of a number."""
    return ":".join(f"{b:02x}" for b in mac.to_bytes(6, "big"))


def mac_number(text):
    """The number of ``02:00:00:00:00:01``."""
    return int(text.replace(":", ""), 16)


def _before(a, b):
    return a != b and (b - a) & _MASK < 1 << 31


class SlowPath:
    """One outgoing TCP connection, and the answers to ARP and ICMP echo, of the order port.

    Parameters
    ----------
    local_mac, local_ip, local_port, peer_ip, peer_port : numbers.
    next_hop_ip : whose Ethernet address is asked for; default the peer's own.
    isn : initial send sequence number.
    window : receive window in bytes, announced by this end and by the fabric.
    retry_ns : first time-out of anything unanswered; doubles each time. ``retries`` : then the attempt has failed.

    Attributes
    ----------
    state : ``"closed"``, ``"resolving"``, ``"connecting"``, ``"established"``, ``"handed over"``, ``"closing"`` or
        ``"failed"``.
    error : why it failed.
    """

    def __init__(self, local_mac, local_ip, local_port, peer_ip, peer_port, *, isn, next_hop_ip=None, window=8192,
                 retry_ns=500 * MILLISECOND, retries=5):
        self.local_mac, self.local_ip, self.local_port = local_mac, local_ip, local_port
        self.peer_ip, self.peer_port = peer_ip, peer_port
        self.next_hop_ip = peer_ip if next_hop_ip is None else next_hop_ip
        self.window, self._retry_ns, self._retries = window, retry_ns, retries
        self.state, self.error, self.peer_mac = "closed", "", None
        self.snd_una = self.snd_nxt = isn & _MASK
        self.rcv_nxt, self.peer_window = 0, 0
        self._unacked = []  # [sequence after it, flags, payload]
        self._waiting = bytearray()
        self._frames, self._received = [], bytearray()
        self._due_ns, self._attempts = None, 0
        self._peer_fin = None  # sequence number of the peer's FIN, once seen
        self.ignored = 0

    # -- out ----------------------------------------------------------------------------------------------------

    def take_frames(self):
        """Frames to be sent, in order, without FCS."""
        out, self._frames = self._frames, []
        return out

    def take_received(self):
        """Bytes of the stream that have come in order."""
        out, self._received = bytes(self._received), bytearray()
        return out

    def connect(self, now_ns):
        """Start: resolve the next hop, then open the connection."""
        if self.state != "closed":
            raise SlowPathError(f"a connection that is {self.state} cannot be opened")
        self.state = "resolving"
        self._ask(now_ns)

    def send(self, data, now_ns):
        """Send bytes of the stream; they are repeated until acknowledged."""
        if self.state != "established":
            raise SlowPathError(f"cannot send on a connection that is {self.state}")
        self._waiting += data
        self._push(now_ns)

    @property
    def idle(self):
        """Established, and everything sent has been acknowledged."""
        return self.state == "established" and not self._unacked and not self._waiting

    def hand_over(self):
        """Stop owning the connection; returns the :class:`HandOver`. Raises unless :attr:`idle`."""
        if not self.idle:
            raise SlowPathError(f"cannot hand over: the connection is {self.state} with {len(self._unacked)} segments "
                                f"unacknowledged")
        self.state, self._due_ns = "handed over", None
        return HandOver(self.peer_mac, self.snd_nxt, self.rcv_nxt, min(self.peer_window, 0xFFFF))

    def take_back(self, snd_nxt, rcv_nxt, now_ns):
        """Own the connection again, where the fabric stopped, and close it with a FIN. It is ``"closed"`` when that is
        acknowledged and the peer has closed its side, too."""
        self.snd_una = self.snd_nxt = snd_nxt & _MASK
        self.rcv_nxt = rcv_nxt & _MASK
        if self._peer_fin == self.rcv_nxt:
            self.rcv_nxt = self.rcv_nxt + 1 & _MASK
        else:
            self._peer_fin = None
        self.state = "closing"
        self._queue(_FIN | _ACK, b"", now_ns)

    def reset(self, snd_nxt, rcv_nxt=0):
        """Abort a connection by a RST with the given numbers (``peer_mac`` must be known)."""
        if self.peer_mac is not None:
            self._segment(_RST | _ACK, snd_nxt & _MASK, b"", ack=rcv_nxt & _MASK)
        self.state, self._due_ns = "closed", None
        self._unacked.clear()
        self._waiting.clear()

    # -- in -----------------------------------------------------------------------------------------------------

    def receive(self, frame, now_ns):
        """Take a frame of the slow path. What is not for us is counted in ``ignored``."""
        if len(frame) < net.ETHERNET.size:
            self.ignored += 1
            return
        packet = Ether(frame)
        if ARP in packet:
            self._arp(packet[ARP], now_ns)
        elif isinstance(packet.payload, IP) and isinstance(packet[IP].payload, TCP):
            self._tcp(packet, bytes(frame), now_ns)
        elif isinstance(packet.payload, IP) and isinstance(packet[IP].payload, ICMP):
            self._icmp(packet, bytes(frame))
        else:
            self.ignored += 1

    def _arp(self, arp, now_ns):
        try:
            sender = int(IPv4Address(arp.psrc))
        except ValueError:
            self.ignored += 1
            return
        if arp.op == 1 and arp.pdst == str(IPv4Address(self.local_ip)):
            self._frames.append(bytes(
                Ether(dst=arp.hwsrc, src=mac_text(self.local_mac)) /
                ARP(op=2, hwsrc=mac_text(self.local_mac), psrc=arp.pdst, hwdst=arp.hwsrc, pdst=arp.psrc)))
        elif arp.op == 2 and sender == self.next_hop_ip and self.state == "resolving":
            self.peer_mac = mac_number(arp.hwsrc)
            self.state, self._attempts = "connecting", 0
            self._queue(_SYN, b"", now_ns)
        else:
            self.ignored += 1

    def _icmp(self, packet, frame):
        """Answer an echo request to our address, with what it carries (RFC 1122, 3.2.2.6); nothing else is asked."""
        ip, message = packet[IP], _datagram_of(packet, frame)
        if (int(IPv4Address(ip.dst)) != self.local_ip or ip.frag or ip.flags.MF or message is None
                or len(message) < _ICMP_HEADER or checksum(message) or message[:2] != bytes((_ECHO_REQUEST, 0))):
            self.ignored += 1
            return
        self._frames.append(bytes(
            Ether(dst=packet.src, src=mac_text(self.local_mac)) / IP(src=ip.dst, dst=ip.src, id=0, flags="DF", ttl=64) /
            ICMP(type="echo-reply", id=packet[ICMP].id, seq=packet[ICMP].seq) / message[_ICMP_HEADER:]))

    def _tcp(self, packet, frame, now_ns):
        ip, tcp = packet[IP], packet[TCP]
        segment = _segment_of(packet, frame)
        ours = (int(IPv4Address(ip.dst)) == self.local_ip and int(IPv4Address(ip.src)) == self.peer_ip
                and tcp.dport == self.local_port and tcp.sport == self.peer_port)
        if not ours or segment is None or self.state in ("closed", "resolving", "failed"):
            self.ignored += 1
            return
        flags = int(tcp.flags)
        if self.state == "handed over":  # the fabric answers for the connection now; the peer will say it again
            if flags & _FIN:
                self._peer_fin = tcp.seq + len(segment) - tcp.dataofs * 4 & _MASK
            self.ignored += 1
            return
        if self.state == "connecting":
            self._opening(tcp, flags, now_ns)
            return
        if flags & _RST:
            # A reset counts only where the next byte is expected (RFC 5961), so a stray one cannot end the connection.
            if tcp.seq == self.rcv_nxt:
                self._fail(f"{IPv4Address(self.peer_ip)}:{self.peer_port} reset the connection")
            return
        if flags & _ACK and not _before(self.snd_nxt, tcp.ack) and not _before(tcp.ack, self.snd_una):
            self._acknowledged(tcp.ack, now_ns)
            self.peer_window = tcp.window
        payload = segment[tcp.dataofs * 4:]
        if payload or flags & (_FIN | _SYN):
            if tcp.seq == self.rcv_nxt and not flags & _SYN:
                self._received += payload
                self.rcv_nxt = self.rcv_nxt + len(payload) & _MASK
                if flags & _FIN:
                    self._peer_fin, self.rcv_nxt = self.rcv_nxt, self.rcv_nxt + 1 & _MASK
            self._segment(_ACK, self.snd_nxt, b"")
            if flags & _FIN and self.state == "established":
                self._fail(f"{IPv4Address(self.peer_ip)}:{self.peer_port} closed the connection")
        if self.state == "closing" and not self._unacked and self._peer_fin is not None:
            self.state, self._due_ns = "closed", None
        elif self.state == "established":
            self._push(now_ns)

    def _opening(self, tcp, flags, now_ns):
        if flags & _RST:
            if flags & _ACK and tcp.ack == self.snd_nxt:
                self._fail(f"{IPv4Address(self.peer_ip)}:{self.peer_port} refused the connection")
            return
        if flags & (_SYN | _ACK) != _SYN | _ACK or tcp.ack != self.snd_nxt:
            self.ignored += 1
            return
        self.rcv_nxt = tcp.seq + 1 & _MASK
        self._acknowledged(tcp.ack, now_ns)
        self.peer_window = tcp.window
        self.state = "established"
        self._segment(_ACK, self.snd_nxt, b"")

    def _acknowledged(self, ack, now_ns):
        if ack != self.snd_una:
            self.snd_una, self._attempts = ack, 0
            self._unacked = [s for s in self._unacked if _before(ack, s[0])]
            self._due_ns = now_ns + self._retry_ns if self._unacked else None

    # -- time ---------------------------------------------------------------------------------------------------

    def poll(self, now_ns):
        """Repeat what is unanswered, or fail."""
        if self._due_ns is None or now_ns < self._due_ns:
            return
        self._attempts += 1
        if self._attempts > self._retries:
            what = {"resolving": f"no answer to ARP for {IPv4Address(self.next_hop_ip)}",
                    "connecting": f"{IPv4Address(self.peer_ip)}:{self.peer_port} does not answer",
                    "closing": "the close was not acknowledged"}.get(self.state, "sent bytes were not acknowledged")
            self._fail(f"{what} ({self._retries} retries)")
            return
        self._due_ns = now_ns + (self._retry_ns << self._attempts)
        if self.state == "resolving":
            self._arp_request()
        else:
            end, flags, payload = self._unacked[0]
            self._segment(flags, end - len(payload) - bool(flags & (_SYN | _FIN)) & _MASK, payload)

    def next_deadline_ns(self):
        """Earliest time at which :meth:`poll` has something to do, or ``None``."""
        return self._due_ns

    def _fail(self, reason):
        self.state, self.error, self._due_ns = "failed", reason, None
        self._unacked.clear()
        self._waiting.clear()

    # -- packets ------------------------------------------------------------------------------------------------

    def _ask(self, now_ns):
        self._due_ns, self._attempts = now_ns + self._retry_ns, 0
        self._arp_request()

    def _arp_request(self):
        self._frames.append(bytes(
            Ether(dst="ff:ff:ff:ff:ff:ff", src=mac_text(self.local_mac)) /
            ARP(op=1, hwsrc=mac_text(self.local_mac), psrc=str(IPv4Address(self.local_ip)),
                hwdst="00:00:00:00:00:00", pdst=str(IPv4Address(self.next_hop_ip)))))

    def _push(self, now_ns):
        while self._waiting:
            room = self.peer_window - (self.snd_nxt - self.snd_una & _MASK)
            size = min(len(self._waiting), MSS, room)
            if size <= 0:
                break
            payload = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._queue(_PSH | _ACK, payload, now_ns)

    def _queue(self, flags, payload, now_ns):
        sequence = self.snd_nxt
        self.snd_nxt = sequence + len(payload) + bool(flags & (_SYN | _FIN)) & _MASK
        self._unacked.append((self.snd_nxt, flags, payload))
        if self._due_ns is None or self.state == "connecting":
            self._due_ns = now_ns + self._retry_ns
        self._segment(flags, sequence, payload)

    def _segment(self, flags, sequence, payload, ack=None):
        options = [("MSS", MSS)] if flags & _SYN else []
        if not flags & _ACK:
            ack = 0
        elif ack is None:
            ack = self.rcv_nxt
        packet = (Ether(dst=mac_text(self.peer_mac), src=mac_text(self.local_mac)) /
                  IP(src=str(IPv4Address(self.local_ip)), dst=str(IPv4Address(self.peer_ip)), id=0, flags="DF",
                     ttl=64) /
                  TCP(sport=self.local_port, dport=self.peer_port, seq=sequence, ack=ack, flags=flags,
                      window=self.window, options=options) / payload)
        self._frames.append(bytes(packet))


def _segment_of(packet, frame):
    """TCP segment (header and payload, without Ethernet padding) of a frame, ``None`` if its sums are wrong."""
    segment = _datagram_of(packet, frame)
    return None if segment is None or in4_chksum(net.PROTOCOL_TCP, packet[IP], segment) else segment


def _datagram_of(packet, frame):
    """What the IPv4 header of a frame is before, ``None`` if it does not end in the frame or the header's sum is
    wrong."""
    ip = packet[IP]
    start, end = net.ETHERNET.size + ip.ihl * 4, net.ETHERNET.size + ip.len
    return None if end > len(frame) or checksum(frame[net.ETHERNET.size:start]) else frame[start:end]

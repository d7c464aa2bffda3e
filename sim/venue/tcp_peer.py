"""A deterministic TCP end point made of Ethernet frames: the exchange's side of the simulated wire.

The peer answers ARP for its own address, accepts TCP connections on one port and hands their byte stream to a session
of :class:`sim.venue.session.Gateway`. Every event has a time in integer nanoseconds; frames given to it arrive after
``delay_ns``, and what it sends is available after ``delay_ns`` more, spaced as on a 1 Gbit/s line. Nothing depends on
a clock or on chance, so a replay that sends the same frames gets the same frames back.

    peer = TcpPeer(PeerConfig(mac=..., ip=...), gateway)
    peer.receive(frame, time_ns)          # a frame (without FCS) that has left the board's pins
    peer.at(time_ns, callback)            # anything else that happens at the exchange, in its place in time
    peer.run(until_ns)                    # everything that happens up to a time
    peer.frames(until_ns)                 # [(time_ns, frame)] that reach the board's pins up to a time
    peer.next_event_ns()                  # when there will be something to do or to deliver

It is strict: whatever is wrong with a frame is kept as a :class:`Violation` in words, and the frame is then treated
as a real stack would treat it (dropped, acknowledged again, answered with a reset, or queued until the hole before it
is filled).
"""

import heapq
from collections import Counter, deque
from dataclasses import dataclass

from hdl.layout import net

_MASK = 0xFFFFFFFF
_LINE_OVERHEAD = 8 + 4 + net.IFG  #: preamble, FCS and gap around a frame, bytes
_NS_PER_BYTE = 8  #: 1 Gbit/s


@dataclass(frozen=True)
class Violation:
    """Something wrong with a received frame: ``kind`` is a short phrase, ``text`` says what was found and expected."""

    time_ns: int
    kind: str
    text: str


@dataclass(frozen=True)
class PeerConfig:
    """Addresses and timing of the peer.

    Attributes
    ----------
    mac : 48-bit integer.  ip : 32-bit integer.  port : TCP port it listens on.
    delay_ns : one-way delay between the board's pins and the exchange, nanoseconds.
    window : receive window announced, bytes.  mss : largest payload of one segment.
    rto_ns : first retransmission time-out; doubles each time.  retries : then the connection is reset.
    isn : initial sequence number of the first connection; each further one starts 64,000 higher.
    """

    mac: int = 0x0200_0000_0002
    ip: int = 0x0A00_0002
    port: int = 4210
    delay_ns: int = 5_000
    window: int = 65_535
    mss: int = 1_460
    rto_ns: int = 200_000_000
    retries: int = 8
    isn: int = 0x1000_0000

    def __post_init__(self):
        for name, low, high in (("mac", 1, (1 << 48) - 1), ("ip", 1, _MASK), ("port", 1, 65_535),
                                ("delay_ns", 0, 10 ** 12), ("window", 1, 65_535), ("mss", 64, 1_460),
                                ("rto_ns", 1, 10 ** 12), ("retries", 0, 32), ("isn", 0, _MASK)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low}..{high}, got {getattr(self, name)}")


def _signed(difference):
    """A 32-bit sequence difference as -2^31..2^31-1."""
    return (difference + 0x80000000 & _MASK) - 0x80000000


def ip_text(value):
    """Dotted quad of a 32-bit integer."""
    return ".".join(str(b) for b in value.to_bytes(4, "big"))


class Connection:
    """One TCP connection. States as in RFC 9293, time-wait left out: the peer's clock has no leftovers."""

    def __init__(self, peer, address, mac, isn, now_ns):
        self.peer, self.address, self.mac = peer, address, mac
        self.state = "listen"
        self.session = None
        self.rcv_nxt, self.snd_una, self.snd_nxt, self.snd_wnd = 0, isn, isn, 0
        self.mss = peer.config.mss
        self.pending = bytearray()  # bytes of the session not yet sent
        self.unacked = deque()  # [seq, flags, payload] sent and not acknowledged
        self.held = {}  # out-of-order payload by sequence number
        self.timer_ns, self.attempts, self.duplicate_acks = None, 0, 0
        self.closing = self.fin_sent = self.ack_due = False

    # -- sending ------------------------------------------------------------------------------------------------

    def send(self, flags, payload=b"", seq=None, now_ns=0):
        self.ack_due = False
        self.peer.send_segment(self, flags, self.snd_nxt if seq is None else seq, payload, now_ns)

    def queue(self, flags, payload, now_ns):
        """Send something that occupies sequence numbers and keep it until it is acknowledged."""
        self.unacked.append([self.snd_nxt, flags, payload])
        self.send(flags, payload, now_ns=now_ns)
        self.snd_nxt = self.snd_nxt + len(payload) + bool(flags & (net.TCP_SYN | net.TCP_FIN)) & _MASK
        if self.timer_ns is None:
            self.timer_ns = now_ns + self.peer.config.rto_ns

    def pump(self, now_ns):
        """Send what the session wrote as far as the window allows; then the FIN, then an owed acknowledgement."""
        if self.session is not None:
            self.pending += self.session.take_output()
            self.closing = self.closing or self.session.closing
        while self.pending and self.state in ("established", "close-wait"):
            room = self.snd_wnd - (self.snd_nxt - self.snd_una & _MASK)
            size = min(len(self.pending), self.mss, room)
            if size <= 0:
                break
            payload, self.pending[:size] = bytes(self.pending[:size]), b""
            self.queue(net.TCP_PSH | net.TCP_ACK, payload, now_ns)
        if self.closing and not self.pending and not self.fin_sent and self.state in ("established", "close-wait"):
            self.fin_sent = True
            self.state = "fin-wait" if self.state == "established" else "last-ack"
            self.queue(net.TCP_FIN | net.TCP_ACK, b"", now_ns)
        if self.ack_due:
            self.send(net.TCP_ACK, now_ns=now_ns)

    def retransmit(self, now_ns):
        seq, flags, payload = self.unacked[0]
        self.peer.counters["retransmissions"] += 1
        self.send(flags, payload, seq, now_ns)

    def timeout(self, now_ns):
        """The retransmission timer has run out."""
        if self.attempts >= self.peer.config.retries:
            self.peer.violate(now_ns, "unacknowledged", f"sequence {self.unacked[0][0]} not acknowledged after "
                              f"{self.attempts} retransmissions; connection reset")
            return self.abort(now_ns, "the client does not acknowledge")
        self.attempts += 1
        self.timer_ns = now_ns + (self.peer.config.rto_ns << self.attempts)
        return self.retransmit(now_ns)

    def abort(self, now_ns, reason):
        """Reset the connection and end its session."""
        self.send(net.TCP_RST | net.TCP_ACK, now_ns=now_ns)
        self.end(now_ns, reason)

    def end(self, now_ns, reason):
        """Forget the connection."""
        self.state, self.timer_ns = "closed", None
        if self.session is not None:
            self.session.disconnected(now_ns, reason)
        self.peer.connections.pop(self.address, None)

    # -- receiving ----------------------------------------------------------------------------------------------

    def segment(self, tcp, payload, now_ns):
        """A segment with right checksums, addressed to this connection."""
        flags, seq = tcp["flags"], tcp["seq"]
        violate = self.peer.violate
        if flags & net.TCP_RST:
            if seq != self.rcv_nxt:
                return violate(now_ns, "reset outside window", f"RST with sequence {seq}, expected {self.rcv_nxt}")
            return self.end(now_ns, "the client reset the connection")
        if flags & net.TCP_SYN:
            if self.state == "syn-received" and seq + 1 & _MASK == self.rcv_nxt and not flags & net.TCP_ACK:
                violate(now_ns, "duplicate", f"SYN {seq} repeated")
                return self.retransmit(now_ns)
            violate(now_ns, "unexpected SYN", f"SYN with sequence {seq} on a connection that is {self.state}")
            self.ack_due = True
            return None
        if not flags & net.TCP_ACK:
            return violate(now_ns, "no ACK", f"segment {seq} without the ACK flag on a connection that is {self.state}")
        if not self.acknowledge(tcp, bool(payload), now_ns):
            return None
        if self.state == "closed":
            return None
        return self.data(seq, payload, bool(flags & net.TCP_FIN), now_ns)

    def acknowledge(self, tcp, has_payload, now_ns):
        """Process the acknowledgement; ``False`` drops the segment."""
        ack, outstanding = tcp["ack"], self.snd_nxt - self.snd_una & _MASK
        advance = _signed(ack - self.snd_una)
        if advance > outstanding:
            self.peer.violate(now_ns, "acknowledges the unsent", f"ack {ack}, but only up to {self.snd_nxt} was sent")
            self.ack_due = True
            return False
        if self.state == "syn-received":
            if not advance:
                self.peer.violate(now_ns, "handshake", f"ack {ack} does not acknowledge the SYN, expected "
                                  f"{self.snd_nxt}")
                return False
            self.state = "established"
            self.session = self.peer.gateway.connect(now_ns)
        if advance < 0:
            self.peer.violate(now_ns, "old acknowledgement", f"ack {ack} after {self.snd_una}")
        elif advance == 0:
            if outstanding and not has_payload and tcp["window"] == self.snd_wnd:
                self.duplicate_acks += 1
                if self.duplicate_acks == 3:
                    self.retransmit(now_ns)
        else:
            self.snd_una, self.attempts, self.duplicate_acks = ack, 0, 0
            while self.unacked:
                start, flags, payload = self.unacked[0]
                size = len(payload) + bool(flags & (net.TCP_SYN | net.TCP_FIN))
                covered = _signed(ack - start)
                if covered < size:
                    if covered > 0:  # part of a segment: keep the rest
                        self.unacked[0] = [ack, flags, payload[covered:]]
                    break
                self.unacked.popleft()
                if flags & net.TCP_FIN:
                    self.fin_acknowledged(now_ns)
            self.timer_ns = now_ns + self.peer.config.rto_ns if self.unacked else None
        self.snd_wnd = tcp["window"]
        return True

    def fin_acknowledged(self, now_ns):
        if self.state in ("last-ack", "closing"):
            self.end(now_ns, "closed by both sides")
        elif self.state == "fin-wait":
            self.state = "fin-wait-2"

    def data(self, seq, payload, fin, now_ns):
        """Payload and FIN, in order or not."""
        size = len(payload) + fin
        if not size:
            if seq != self.rcv_nxt and self.state != "closed":
                self.peer.violate(now_ns, "sequence", f"pure acknowledgement with sequence {seq}, expected "
                                  f"{self.rcv_nxt}")
                self.ack_due = True
            return
        self.ack_due = True
        offset = _signed(seq - self.rcv_nxt)
        if offset + size > self.peer.config.window:
            self.peer.violate(now_ns, "outside window", f"sequence {seq} with {size} bytes reaches {offset + size} "
                              f"past {self.rcv_nxt}, the window is {self.peer.config.window}")
            return
        if offset > 0:
            self.peer.violate(now_ns, "out of order", f"sequence {seq}, expected {self.rcv_nxt}: a hole of {offset} "
                              "bytes; kept until it is filled")
            self.held[seq] = (payload, fin)
            return
        if offset < 0:
            self.peer.violate(now_ns, "duplicate", f"sequence {seq} with {size} bytes, {-offset} before the expected "
                              f"{self.rcv_nxt}")
        self.accept(seq, payload, fin, now_ns)
        while self.held and self.state != "closed":
            ready = [s for s in self.held if _signed(s - self.rcv_nxt) <= 0]
            if not ready:
                break
            self.accept(ready[0], *self.held.pop(ready[0]), now_ns)

    def accept(self, seq, payload, fin, now_ns):
        """Deliver what is new of a segment that begins at or before the expected byte."""
        skip = _signed(self.rcv_nxt - seq)
        if skip >= len(payload) + fin:
            return
        fresh = payload[skip:]
        self.rcv_nxt = self.rcv_nxt + len(fresh) + fin & _MASK
        if fresh:
            if self.session.closing:
                self.peer.counters["bytes_after_close"] += len(fresh)
            self.session.receive(fresh, now_ns)
        if fin:
            if self.state == "established":
                self.state = "close-wait"
                self.session.disconnected(now_ns, "the client closed the connection")
                self.closing = True
            elif self.state == "fin-wait":
                self.state = "closing"
            elif self.state == "fin-wait-2":
                self.pump(now_ns)  # acknowledges the FIN
                self.end(now_ns, "closed by both sides")


class TcpPeer:
    """See the module's documentation.

    Parameters
    ----------
    config : :class:`PeerConfig`.
    gateway : :class:`sim.venue.session.Gateway`.

    Attributes
    ----------
    violations : list of :class:`Violation`.
    counters : frames received and sent, segments, payload bytes, retransmissions.
    connections : open :class:`Connection` by (client ip, client port).
    """

    def __init__(self, config, gateway):
        self.config, self.gateway = config, gateway
        self.violations, self.counters, self.connections = [], Counter(), {}
        self.now_ns = 0
        self._events, self._order = [], 0  # heap of (time_ns, order, callable, arguments)
        self._outbox = []  # heap of (time_ns, order, frame)
        self._line_free_ns = 0
        self._opened = 0
        self._identification = 0

    # -- what the replay calls ----------------------------------------------------------------------------------

    def receive(self, frame, time_ns):
        """A frame (bytes without FCS) whose last byte has left the board's pins at ``time_ns``."""
        self._schedule(time_ns + self.config.delay_ns, self._frame, bytes(frame))

    def at(self, time_ns, callback):
        """Call ``callback(time_ns)`` at the exchange at ``time_ns``, in order with everything else."""
        self._schedule(time_ns, callback)

    def run(self, until_ns):
        """Handle every event up to and including ``until_ns``."""
        while True:
            due = self._next_internal_ns()
            if due is None or due > until_ns:
                break
            self.now_ns = max(self.now_ns, due)
            if self._events and self._events[0][0] <= self.now_ns:
                time_ns, _, call, *arguments = heapq.heappop(self._events)
                call(*arguments, time_ns)
            else:
                for connection in tuple(self.connections.values()):
                    if connection.timer_ns is not None and connection.timer_ns <= self.now_ns:
                        connection.timeout(self.now_ns)
                self.gateway.poll(self.now_ns)
            for connection in tuple(self.connections.values()):
                connection.pump(self.now_ns)
        self.now_ns = max(self.now_ns, until_ns)

    def frames(self, until_ns):
        """Frames whose first byte reaches the board's pins up to ``until_ns``, as (time_ns, bytes without FCS)."""
        out = []
        while self._outbox and self._outbox[0][0] <= until_ns:
            time_ns, _, frame = heapq.heappop(self._outbox)
            out.append((time_ns, frame))
        return out

    def next_event_ns(self):
        """Earliest time at which :meth:`run` has something to do or :meth:`frames` something to give, or ``None``."""
        times = [t for t in (self._next_internal_ns(), self._outbox[0][0] if self._outbox else None) if t is not None]
        return min(times, default=None)

    def violate(self, time_ns, kind, text):
        """Record something that is wrong."""
        self.violations.append(Violation(time_ns, kind, text))

    # -- events -------------------------------------------------------------------------------------------------

    def _schedule(self, time_ns, call, *arguments):
        if time_ns < self.now_ns:
            raise ValueError(f"event at {time_ns} ns lies in the past: the exchange is at {self.now_ns} ns")
        self._order += 1
        heapq.heappush(self._events, (time_ns, self._order, call, *arguments))

    def _next_internal_ns(self):
        times = [self._events[0][0]] if self._events else []
        times += [c.timer_ns for c in self.connections.values() if c.timer_ns is not None]
        deadline = self.gateway.next_deadline_ns()
        if deadline is not None:
            times.append(deadline)
        return min(times, default=None)

    def _transmit(self, frame, now_ns):
        """Put a frame on the line after the one before it."""
        frame = frame.ljust(net.MIN_FRAME, b"\0")
        start = max(now_ns + self.config.delay_ns, self._line_free_ns)
        self._line_free_ns = start + (len(frame) + _LINE_OVERHEAD) * _NS_PER_BYTE
        self._order += 1
        heapq.heappush(self._outbox, (start, self._order, frame))
        self.counters["frames_sent"] += 1

    # -- frames -------------------------------------------------------------------------------------------------

    def _frame(self, frame, now_ns):
        self.counters["frames_received"] += 1
        if len(frame) < net.MIN_FRAME:
            return self.violate(now_ns, "short frame", f"{len(frame)} bytes without FCS, at least {net.MIN_FRAME}")
        ethernet = net.ETHERNET.unpack(frame)
        if ethernet["dst"] not in (self.config.mac, net.MAC_BROADCAST):
            return self.violate(now_ns, "wrong MAC", f"frame for {ethernet['dst']:012x}, this is "
                                f"{self.config.mac:012x}")
        if ethernet["src"] >> 40 & 1:
            return self.violate(now_ns, "wrong MAC", f"source {ethernet['src']:012x} is a group address")
        if ethernet["ethertype"] == net.ETHERTYPE_ARP:
            return self._arp(ethernet, frame, now_ns)
        if ethernet["ethertype"] == net.ETHERTYPE_IPV4:
            return self._ipv4(ethernet, frame, now_ns)
        return self.violate(now_ns, "unknown EtherType", f"{ethernet['ethertype']:#06x}, this peer knows 0x0800 and "
                            "0x0806")

    def _arp(self, ethernet, frame, now_ns):
        arp = net.ARP.unpack(frame, net.ETHERNET.size)
        shape = (arp["htype"], arp["ptype"], arp["hlen"], arp["plen"])
        if shape != (1, net.ETHERTYPE_IPV4, 6, 4):
            return self.violate(now_ns, "malformed ARP", f"htype, ptype, hlen, plen {shape}, expected (1, 2048, 6, 4)")
        if arp["sha"] != ethernet["src"]:
            self.violate(now_ns, "malformed ARP", f"sender {arp['sha']:012x} in a frame from {ethernet['src']:012x}")
        if arp["oper"] != 1 or arp["tpa"] != self.config.ip:
            return None  # replies and questions for others are no business of ours
        reply = net.ARP.pack(htype=1, ptype=net.ETHERTYPE_IPV4, hlen=6, plen=4, oper=2, sha=self.config.mac,
                             spa=self.config.ip, tha=arp["sha"], tpa=arp["spa"])
        return self._transmit(net.ETHERNET.pack(dst=arp["sha"], src=self.config.mac, ethertype=net.ETHERTYPE_ARP)
                              + reply, now_ns)

    def _ipv4(self, ethernet, frame, now_ns):
        packet = frame[net.ETHERNET.size:]
        ip = net.IPV4.unpack(packet)
        header = (ip["version_ihl"] & 15) * 4
        if ip["version_ihl"] >> 4 != 4 or not net.IPV4.size <= header <= len(packet):
            return self.violate(now_ns, "malformed IPv4", f"version and length byte {ip['version_ihl']:#04x}")
        if not header <= ip["total_length"] <= len(packet):
            return self.violate(now_ns, "malformed IPv4", f"total length {ip['total_length']}, the frame has "
                                f"{len(packet)} bytes")
        if net.checksum(packet[:header]):
            return self.violate(now_ns, "IPv4 checksum", f"{ip['checksum']:#06x} is wrong")
        if ip["dst"] != self.config.ip:
            return self.violate(now_ns, "wrong IP", f"packet for {ip_text(ip['dst'])}, this is "
                                f"{ip_text(self.config.ip)}")
        if ip["flags_fragment"] & 0x3FFF:
            return self.violate(now_ns, "fragment", f"flags and offset {ip['flags_fragment']:#06x}")
        if ip["protocol"] != net.PROTOCOL_TCP:
            return self.violate(now_ns, "unknown protocol", f"IP protocol {ip['protocol']}, this peer knows 6 (TCP)")
        if any(packet[ip["total_length"]:]):
            self.violate(now_ns, "padding", "bytes after the IP packet are not zero")
        return self._tcp(ethernet, ip, packet[header:ip["total_length"]], now_ns)

    def _tcp(self, ethernet, ip, segment, now_ns):
        if len(segment) < net.TCP.size:
            return self.violate(now_ns, "malformed TCP", f"{len(segment)} bytes, a header has {net.TCP.size}")
        tcp = net.TCP.unpack(segment)
        header = (tcp["data_offset"] >> 4) * 4
        if not net.TCP.size <= header <= len(segment):
            return self.violate(now_ns, "malformed TCP", f"data offset {header} in a segment of {len(segment)} bytes")
        pseudo = net.PSEUDO.pack(src=ip["src"], dst=ip["dst"], protocol=net.PROTOCOL_TCP, length=len(segment))
        if net.checksum(pseudo + segment):
            return self.violate(now_ns, "TCP checksum", f"{tcp['checksum']:#06x} is wrong (sequence {tcp['seq']})")
        self.counters["segments"] += 1
        payload = segment[header:]
        self.counters["payload_bytes"] += len(payload)
        address = (ip["src"], tcp["src_port"])
        connection = self.connections.get(address) if tcp["dst_port"] == self.config.port else None
        if connection is not None:
            if ethernet["src"] != connection.mac:
                self.violate(now_ns, "wrong MAC", f"segment from {ethernet['src']:012x}, the connection was opened by "
                             f"{connection.mac:012x}")
            return connection.segment(tcp, payload, now_ns)
        opening = tcp["flags"] & (net.TCP_SYN | net.TCP_ACK | net.TCP_RST | net.TCP_FIN) == net.TCP_SYN
        if tcp["dst_port"] == self.config.port and opening:
            return self._open(address, ethernet["src"], tcp, segment[net.TCP.size:header], payload, now_ns)
        if tcp["flags"] & net.TCP_RST:
            return None
        self.violate(now_ns, "no connection", f"segment from {ip_text(address[0])}:{address[1]} to port "
                     f"{tcp['dst_port']} belongs to no connection; answered with a reset")
        ghost = Connection(self, address, ethernet["src"], tcp["ack"], now_ns)
        ghost.rcv_nxt = tcp["seq"] + len(payload) + bool(tcp["flags"] & (net.TCP_SYN | net.TCP_FIN)) & _MASK
        return ghost.send(net.TCP_RST | net.TCP_ACK, now_ns=now_ns, seq=tcp["ack"])

    def _open(self, address, mac, tcp, options, payload, now_ns):
        connection = Connection(self, address, mac, self.config.isn + 64_000 * self._opened & _MASK, now_ns)
        self._opened += 1
        self.connections[address] = connection
        if payload:
            self.violate(now_ns, "data with SYN", f"{len(payload)} bytes in a SYN, ignored")
        mss = self._mss_option(options, now_ns)
        connection.mss = min(connection.mss, mss or 536)
        connection.rcv_nxt, connection.snd_wnd = tcp["seq"] + 1 & _MASK, tcp["window"]
        connection.state = "syn-received"
        connection.queue(net.TCP_SYN | net.TCP_ACK, b"", now_ns)

    def _mss_option(self, options, now_ns):
        at = 0
        while at < len(options) and options[at] != 0:
            if options[at] == 1:
                at += 1
                continue
            size = options[at + 1] if at + 1 < len(options) else 0
            if size < 2 or at + size > len(options):
                self.violate(now_ns, "malformed TCP", f"option {options[at]} of {size} bytes at {at} of {len(options)}")
                return None
            if options[at] == 2 and size == 4:
                return int.from_bytes(options[at + 2:at + 4], "big")
            at += size
        return None

    def send_segment(self, connection, flags, seq, payload, now_ns):
        """Build and send one segment. A SYN carries the MSS option."""
        options = bytes([2, 4]) + self.config.mss.to_bytes(2, "big") if flags & net.TCP_SYN else b""
        tcp = net.TCP.pack(src_port=self.config.port, dst_port=connection.address[1], seq=seq, ack=connection.rcv_nxt,
                           data_offset=(net.TCP.size + len(options)) // 4 << 4, flags=flags,
                           window=self.config.window) + options
        segment = bytearray(tcp + payload)
        pseudo = net.PSEUDO.pack(src=self.config.ip, dst=connection.address[0], protocol=net.PROTOCOL_TCP,
                                 length=len(segment))
        at = net.TCP["checksum"]
        segment[at.offset:at.end] = at.pack(net.checksum(pseudo + segment))
        self._identification = self._identification + 1 & 0xFFFF
        values = {"version_ihl": net.IPV4_NO_OPTIONS, "total_length": net.IPV4.size + len(segment),
                  "identification": self._identification, "flags_fragment": net.IPV4_DONT_FRAGMENT, "ttl": 64,
                  "protocol": net.PROTOCOL_TCP, "src": self.config.ip, "dst": connection.address[0]}
        checksum = net.checksum(net.IPV4.pack(**values))
        self._transmit(net.ETHERNET.pack(dst=connection.mac, src=self.config.mac, ethertype=net.ETHERTYPE_IPV4)
                       + net.IPV4.pack(checksum=checksum, **values) + bytes(segment), now_ns)

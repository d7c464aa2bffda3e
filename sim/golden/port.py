"""Order port: which frame starts when, and the state of the session behind it."""

from collections import deque
from typing import NamedTuple

from hdl.layout import net
from sim.golden import session
from sim.market.schedule import wire_bytes

__all__ = ["FRAME_TX", "SESSION_TX", "OrderPort", "TxFrame"]

FRAME_TX, SESSION_TX = 0, 1  #: kinds of host packets
_MASK = 0xFFFF_FFFF


def _ahead(a, b):
    """Distance from ``b`` to ``a`` modulo 2^32, signed."""
    distance = (a - b) & _MASK
    return distance - (1 << 32) if distance >> 31 else distance


class TxFrame(NamedTuple):
    """One frame on the order port's transmit pins.

    ``cycle``: of its first preamble byte. ``data``: bytes after the start-of-frame delimiter, FCS included. ``kind``:
    ``"quote"``, ``"mass_cancel"``, ``"ack"``, ``"session"``, ``"frame"`` or ``"link"``, of which the model knows the
    length alone: its bytes are zeros.
    """

    cycle: int
    data: bytes
    kind: str


class OrderPort:
    """Transmit arbitration and TCP session.

    The caller visits it cycle by cycle (only those in which something happens) and keeps the order: what a cycle's
    decisions read (:meth:`ready`, :meth:`start_quote`, :meth:`start_other`) before what the cycle changes
    (:meth:`verdict`, :meth:`enable`).

    The buffer towards the host is taken to have room: a host that does not read makes the fabric drop segments, which
    this model does not follow.

    Attributes
    ----------
    tx : list of :class:`TxFrame`.
    free : first cycle in which a frame may start.
    """

    def __init__(self, timing, counters):
        self.timing, self.counters = timing, counters
        self.connection = session.Connection()
        self.tx = []
        self.free = 0
        self.up = False
        self.snd_nxt = self.snd_una = self.rcv_nxt = self.app_seq = self.peer_window = 0
        self.ack_pending = False
        self.host = deque()     # (cycle from which it may start, kind, bytes)
        self.link = deque()     # (cycle from which it may start, bytes without padding and FCS)
        self._edge = 0          # first sequence number beyond the peer's window, as far as the port knows yet
        self._edges = deque()   # (cycle from which it counts, edge)
        #: Registers as they were at the hand-over: what messages and headers say all the time that the session lasts.
        self.fields = dict.fromkeys(("window", "mmp_group", "smp_id", "quote_flags", "order_flags"), 0)
        self._settled = 0       # first cycle in which the window is believed after a hand-over
        self._owned = 0         # first cycle in which frames of the peer can be the session's

    # ------------------------------------------------------------------ what a cycle reads

    def owns(self, cycle):
        """In ``cycle`` the fabric answers for the connection."""
        return self.up and cycle >= self._owned

    def room(self, cycle, length):
        """The session may send ``length`` bytes of payload in ``cycle``."""
        while self._edges and self._edges[0][0] <= cycle:
            self._edge = self._edges.popleft()[1]
        return self.up and cycle >= self._settled and _ahead(self._edge, self.snd_nxt) >= length

    def ready(self, cycle):
        """A quote may start in ``cycle``."""
        return cycle >= self.free and self.room(cycle, session.QUOTE_SIZE)

    # ------------------------------------------------------------------ what starts in a cycle

    def _start(self, cycle, frame, kind):
        self.tx.append(TxFrame(cycle + self.timing.tx_register, wire_bytes(frame), kind))
        self.free = cycle + self.timing.busy(len(frame))
        self.counters["order_tx_frames"] += 1

    def _segment(self, cycle, flags, kind, message=b""):
        frame = session.tcp_frame(self.connection, self.snd_nxt, self.rcv_nxt, self.fields["window"], flags, message)
        self._start(cycle, frame, kind)

    def start_message(self, cycle, message, kind):
        """Send one session message as one segment. It carries the acknowledgement."""
        self._segment(cycle, net.TCP_PSH | net.TCP_ACK, kind, message)
        self.snd_nxt = (self.snd_nxt + len(message)) & _MASK
        self.app_seq = (self.app_seq + 1) & 0xFFFF_FFFF_FFFF_FFFF
        self.ack_pending = False

    def start_other(self, cycle, last_processed, time_ns):
        """Start an acknowledgement or else the host's packet or else a frame of the host link, if the port is idle.

        The hot path wants nothing.

        Returns the application sequence number given to a session message that started, else ``None``.
        """
        if cycle < self.free:
            return None
        if self.ack_pending:
            self._segment(cycle, net.TCP_ACK, "ack")
            self.ack_pending = False
            self.counters["acks_sent"] += 1
        elif self.host_can_start(cycle):
            _, kind, data = self.host.popleft()
            if kind == FRAME_TX:
                self._start(cycle, data, "frame")
            else:
                app_seq = self.app_seq
                self.start_message(cycle, session.patch(data, app_seq, last_processed, time_ns), "session")
                return app_seq
        elif self.link and self.link[0][0] <= cycle:
            self._start(cycle, bytes(self.link.popleft()[1]), "link")
        return None

    def host_can_start(self, cycle):
        """The host's packet is there, and the session lets it go."""
        if not self.host or self.host[0][0] > cycle:
            return False
        _, kind, data = self.host[0]
        return kind == FRAME_TX or self.room(cycle, len(data))

    def refuse(self, cycle):
        """Drop a session message that finds no session. Returns ``True`` if there was one."""
        if self.host and self.host[0][0] <= cycle and self.host[0][1] == SESSION_TX and not self.up:
            self.host.popleft()
            return True
        return False

    # ------------------------------------------------------------------ what a cycle changes

    def verdict(self, cycle, segment):
        """A frame was received whole. Returns ``(kind, lost)``: ``kind`` says what the host is given (``"frame"``,
        ``"payload"`` or ``None``), ``lost`` that the session ended."""
        count = self.counters
        count["order_rx_frames"] += 1
        if segment.kind == "bad":
            count["order_rx_bad"] += 1
            return None, False
        if segment.kind in ("frame", "closing"):
            count["order_rx_slow"] += 1
            lost = segment.kind == "closing" and self.owns(cycle)
            if lost:
                self.up = self.ack_pending = False
            return "frame", lost
        if segment.kind == "ignored" or not self.owns(cycle):
            return None, False
        if segment.flags & net.TCP_SYN or not segment.flags & net.TCP_ACK:
            count["segments_refused"] += 1
            return None, False
        ahead = _ahead(segment.seq, self.rcv_nxt)
        unsent = _ahead(self.snd_nxt, segment.ack) < 0
        given = None
        if not unsent and ahead < 0:
            count["segments_duplicate"] += 1
            self.ack_pending = True
        elif unsent or ahead > 0:
            count["segments_out_of_order"] += 1
            self.ack_pending = True
        elif segment.payload:
            count["segments_in_order"] += 1
            self.rcv_nxt = (self.rcv_nxt + len(segment.payload)) & _MASK
            self.ack_pending = True
            given = "payload"
        if not unsent and _ahead(segment.ack, self.snd_una) >= 0:
            self.snd_una, self.peer_window = segment.ack, segment.window
            known = cycle + self.timing.room - self.timing.verdict
            self._edges.append((known, (self.snd_una + self.peer_window) & _MASK))
        return given, False

    def enable(self, cycle, value, registers):
        """The host hands the connection over (``value`` 1, as the registers say) or takes it back (0)."""
        self.up, self.ack_pending = bool(value), False
        if value:
            for name in session.Connection.__dataclass_fields__:
                setattr(self.connection, name, registers[name])
            self.fields = {name: registers[name] for name in self.fields}
            self.snd_nxt = self.snd_una = registers["init_snd_nxt"]
            self.rcv_nxt, self.app_seq = registers["init_rcv_nxt"], registers["init_app_seq"]
            self.peer_window = registers["init_peer_window"]
            self._edge = (self.snd_una + self.peer_window) & _MASK
            self._edges.clear()
            self._settled = cycle + self.timing.hand_over
            self._owned = cycle + self.timing.owned

"""Order port: which frame starts when, and the state of the session behind it."""

from collections import deque
from typing import NamedTuple

from hdl.layout import net
from hdl.order.retransmit import TICK_CYCLES
from hdl.order.ring import ENTRY_CYCLES
from hdl.order.timing import FIRST_BYTE_AFTER_START
from sim.golden import session
from sim.golden.resending import Resending
from sim.market.schedule import wire_bytes

__all__ = ["FRAME_TX", "SESSION_TX", "OrderPort", "TxFrame"]

FRAME_TX, SESSION_TX = 0, 1  #: kinds of host packets
_MASK = 0xFFFF_FFFF
_FAR = 1 << 16          # bytes: acknowledgements from farther back, and resets from farther ahead, nobody has sent
_LARGEST = 1500         # bytes: no segment has as many
_RING_TO_ROOM = 3       # cycles from another oldest segment in the ring to the room that it gives


def _ahead(a, b):
    """Distance from ``b`` to ``a`` modulo 2^32, signed."""
    distance = (a - b) & _MASK
    return distance - (1 << 32) if distance >> 31 else distance


class TxFrame(NamedTuple):
    """One frame on the order port's transmit pins.

    ``cycle``: of its first preamble byte. ``data``: bytes after the start-of-frame delimiter, FCS included. ``kind``:
    ``"quote"``, ``"mass_cancel"``, ``"ack"``, ``"session"``, ``"resent"``, ``"probe"``, ``"frame"`` or
    ``"link"``, of which the model knows the length alone: its bytes are zeros.
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

    def __init__(self, timing, counters, ring_size=8192):
        self.timing, self.counters, self.ring_size = timing, counters, ring_size
        self.resending = Resending(session.QUOTE_SIZE)
        self.connection = session.Connection()
        self.tx = []
        self.free = 0
        self.up = False
        self.snd_nxt = self.snd_una = self.rcv_nxt = self.app_seq = self.peer_window = self._window_seq = 0
        self.ack_pending = False
        self._ack_delay = 0
        self._owed_until = None     # an acknowledgement that may wait: the cycle in which it waits no more
        self.host = deque()     # (cycle from which it may start, kind, bytes)
        self.link = deque()     # (cycle from which it may start, bytes without padding and FCS)
        self._edge = 0          # first sequence number beyond the peer's window, as far as the port knows yet
        self._edges = deque()   # (cycle from which it counts, edge)
        self._ring_edge, self._ring_edges, self._oldest = 0, deque(), 0     # likewise, of the ring
        #: Registers as they were at the hand-over: what messages and headers say all the time that the session lasts.
        self.fields = dict.fromkeys(("window", "mmp_group", "smp_id", "quote_flags", "order_flags"), 0)
        self._settled = 0       # first cycle in which the window is believed after a hand-over
        self._owned = 0         # first cycle in which frames of the peer can be the session's

    # ------------------------------------------------------------------ what a cycle reads

    def visit(self, cycle):
        """What has happened by itself until ``cycle``. Returns whether the session is given up in it."""
        resending = self.resending
        resending.run_to(cycle)
        if resending.oldest != self._oldest and self.up:
            self._oldest = resending.oldest
            self._ring_edges.append((cycle + _RING_TO_ROOM, (self._oldest + self.ring_size) & _MASK))
        if self._owed_until is not None and self._owed_until <= cycle:
            self._answer_now()
        return self.up and resending.gives_up()

    def wakes(self, cycle):
        """The cycle after ``cycle`` in which something may happen by itself, or ``None``."""
        resending, expires = self.resending, self.resending.expires()
        scarce = _ahead(self._oldest + self.ring_size, self.snd_nxt) < 2 * _LARGEST
        if resending.resends() or resending.probes or expires == cycle or (scarce and resending.frees()):
            return cycle + 1
        due = (self._owed_until, expires, resending.quiet_from)
        return min((at for at in due if at is not None and at > cycle), default=None)

    def resends(self, cycle):
        """A segment may be sent again in ``cycle``."""
        return self.owns(cycle) and self.resending.wants

    def probes(self, cycle):
        """A probe of the window may be sent in ``cycle``."""
        return self.owns(cycle) and self.resending.probes

    def owns(self, cycle):
        """In ``cycle`` the fabric answers for the connection."""
        return self.up and cycle >= self._owned

    def room(self, cycle, length):
        """The session may send ``length`` bytes of payload in ``cycle``."""
        while self._edges and self._edges[0][0] <= cycle:
            self._edge = self._edges.popleft()[1]
        while self._ring_edges and self._ring_edges[0][0] <= cycle:
            self._ring_edge = self._ring_edges.popleft()[1]
        return (self.up and cycle >= self._settled and _ahead(self._edge, self.snd_nxt) >= length
                and _ahead(self._ring_edge, self.snd_nxt) >= length)

    def ready(self, cycle):
        """A quote may start in ``cycle``."""
        return cycle >= self.free and self.room(cycle, session.QUOTE_SIZE)

    # ------------------------------------------------------------------ what starts in a cycle

    def _start(self, cycle, frame, kind):
        self.tx.append(TxFrame(cycle + self.timing.tx_register, wire_bytes(frame), kind))
        self.free = cycle + self.timing.busy(len(frame))
        self.counters["order_tx_frames"] += 1

    def _segment(self, cycle, flags, kind, message=b"", seq=None):
        """A segment starts, under ``snd_nxt`` if nothing else is said. It carries the acknowledgement."""
        seq = self.snd_nxt if seq is None else seq
        frame = session.tcp_frame(self.connection, seq, self.rcv_nxt, self.fields["window"], flags, message)
        self._start(cycle, frame, kind)
        self.ack_pending, self._owed_until = False, None
        return len(frame)

    def start_message(self, cycle, message, kind):
        """Send one session message as one segment."""
        size = self._segment(cycle, net.TCP_PSH | net.TCP_ACK, kind, message)
        entry = self.snd_nxt, message
        self.snd_nxt = (self.snd_nxt + len(message)) & _MASK
        self.app_seq = (self.app_seq + 1) & 0xFFFF_FFFF_FFFF_FFFF
        started = cycle + 1
        self.resending.at(started, sent=1)
        self.resending.at(started + 1, nxt=self.snd_nxt)
        self.resending.at(cycle + FIRST_BYTE_AFTER_START + size - 1 + ENTRY_CYCLES, entry=entry)

    def start_other(self, cycle, last_processed, time_ns):
        """Start what is sent again or else an acknowledgement, a probe, the host's packet or a frame of the host link,
        if the port is idle. The hot path wants nothing.

        Returns the application sequence number given to a session message that started, else ``None``.
        """
        if cycle < self.free:
            return None
        if self.resends(cycle):
            seq, message = self.resending.shown
            self._segment(cycle, net.TCP_PSH | net.TCP_ACK, "resent", message, seq)
            self.resending.at(cycle + 1, started=1)
            self.counters["segments_resent"] += 1
        elif self.ack_pending:
            self._segment(cycle, net.TCP_ACK, "ack")
            self.counters["acks_sent"] += 1
        elif self.probes(cycle):
            self._segment(cycle, net.TCP_ACK, "probe", seq=(self.snd_una - 1) & _MASK)
            self.resending.at(cycle + 1, probed=1)
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

    def _lies(self, segment):
        """(how far a segment begins beyond what is expected, how far it ends beyond that, bytes newly acknowledged,
        its acknowledgement number is impossible)."""
        ahead = _ahead(segment.seq, self.rcv_nxt)
        acked = _ahead(segment.ack, self.snd_una)
        return (ahead, ahead + len(segment.payload), acked,
                _ahead(self.snd_nxt, segment.ack) < 0 or acked < -_FAR)

    def closes(self, cycle, segment):
        """With a segment that was received whole the peer ends the session."""
        if segment.kind != "closing" or not self.owns(cycle) or segment.flags & net.TCP_SYN:
            return False
        ahead, reaches, _, bad_ack = self._lies(segment)
        if segment.flags & net.TCP_RST:
            return ahead == 0
        return bool(segment.flags & net.TCP_ACK) and not bad_ack and ahead <= 0 <= reaches

    def verdict(self, cycle, segment):
        """A frame was received whole. Returns what the host is given: ``("frame", None)``, ``("payload", bytes)`` or
        ``(None, None)``."""
        count = self.counters
        count["order_rx_frames"] += 1
        if segment.kind == "bad":
            count["order_rx_bad"] += 1
            return None, None
        closes = self.closes(cycle, segment)
        if segment.kind == "frame" or closes:
            count["order_rx_slow"] += 1
            if not closes:
                return "frame", None
        elif segment.kind == "ignored" or not self.owns(cycle):
            return None, None
        given = "frame", None
        if not closes:
            given = self._in_session(cycle, segment)
        if segment.flags & (net.TCP_SYN | net.TCP_RST | net.TCP_ACK) == net.TCP_ACK:
            self._acknowledged(cycle, segment)
        if closes:
            self.end(cycle)
        return given

    def _in_session(self, cycle, segment):
        count, flags = self.counters, segment.flags
        ahead, reaches, _, bad_ack = self._lies(segment)
        if flags & (net.TCP_SYN | net.TCP_RST) or not flags & net.TCP_ACK:
            count["segments_refused"] += 1
            if flags & net.TCP_SYN or (flags & net.TCP_RST and 0 < ahead < _FAR):
                self._answer_now()
        elif bad_ack or ahead > 0:
            count["segments_out_of_order"] += 1
            self._answer_now()
        elif reaches <= 0:
            if ahead or segment.payload:
                count["segments_duplicate"] += 1
                self._answer_now()
        elif not flags & net.TCP_FIN:
            count["segments_in_order"] += 1
            self.rcv_nxt = (self.rcv_nxt + reaches) & _MASK
            if ahead or self._owed_until is not None or not self._ack_delay:
                self._answer_now()
            else:
                tick = cycle + 1 + (TICK_CYCLES - 1 - (cycle + 1)) % TICK_CYCLES
                self._owed_until = tick + self._ack_delay * TICK_CYCLES + 1
            return "payload", segment.payload[-ahead:]
        return None, None

    def _answer_now(self):
        self.ack_pending, self._owed_until = True, None

    def _acknowledged(self, cycle, segment):
        """What a segment says of what we have sent, whatever it is else."""
        _, _, acked, bad_ack = self._lies(segment)
        if bad_ack or acked < 0:
            return
        self.resending.at(cycle, heard=1)
        plain = not segment.payload and not segment.flags & net.TCP_FIN
        if acked == 0 and plain and segment.window == self.peer_window:
            self.resending.at(cycle, duplicate=1)
        self.snd_una = segment.ack
        if acked:
            self.resending.at(cycle + 1, advanced=1, una=self.snd_una)
        if acked or _ahead(segment.seq, self._window_seq) >= 0:
            self.peer_window, self._window_seq = segment.window, segment.seq
            self.resending.at(cycle + 1, window=segment.window)
        known = cycle + self.timing.room - self.timing.verdict
        self._edges.append((known, (self.snd_una + self.peer_window) & _MASK))

    def end(self, cycle):
        """The session is over: from the next cycle on it is down."""
        self.up = False
        self.ack_pending, self._owed_until = False, None
        self.resending.at(cycle + 1, up=False)

    def enable(self, cycle, value, registers):
        """The host hands the connection over (``value`` 1, as the registers say) or takes it back (0)."""
        self.up = bool(value)
        self.ack_pending, self._owed_until = False, None
        self.resending.forget(cycle)
        self.resending.at(cycle + 1, up=False)
        if value:
            for name in session.Connection.__dataclass_fields__:
                setattr(self.connection, name, registers[name])
            self.fields = {name: registers[name] for name in self.fields}
            self.snd_nxt = self.snd_una = registers["init_snd_nxt"]
            self.rcv_nxt, self.app_seq = registers["init_rcv_nxt"], registers["init_app_seq"]
            self._window_seq, self.peer_window = self.rcv_nxt, registers["init_peer_window"]
            self._ack_delay = registers["ack_delay"]
            self._edge = (self.snd_una + self.peer_window) & _MASK
            self._edges.clear()
            self._oldest, self._ring_edge = self.snd_una, (self.snd_una + self.ring_size) & _MASK
            self._ring_edges.clear()
            self.resending.at(cycle + self.timing.owned - 1, una=self.snd_una, nxt=self.snd_nxt,
                              window=self.peer_window, begin=(self.snd_nxt, *(
                                  registers[name] for name in ("rto_first", "rto_min", "rto_max", "rto_most"))))
            self.resending.at(cycle + self.timing.owned, up=True)
            self._settled = cycle + self.timing.hand_over
            self._owned = cycle + self.timing.owned

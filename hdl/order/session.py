"""TCP session: the state of an established connection that the host has handed over."""

from amaranth.hdl import Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.count import count
from hdl.order.receive import Segment

__all__ = ["LOADS", "SessionStatus", "TcpSession"]

#: Registers with the numbers that a session begins with, a word each, in the order of ``TcpSession.load``.
LOADS = ("init_snd_nxt", "init_rcv_nxt", "init_peer_window", "init_app_seq_lo", "init_app_seq_hi")

#: What the host may read: ``session_up`` 1, ``snd_nxt``, ``snd_una``, ``rcv_nxt`` 32 (TCP sequence numbers),
#: ``app_seq`` 64 (the next message's sequenceNumber). They keep their last values when the session ends, and have those
#: of a new one :data:`hdl.order.timing.SESSION_ENABLE_TO_READY` cycles after its hand-over.
SessionStatus = Signature({
    "session_up": Out(1), "snd_nxt": Out(32), "snd_una": Out(32), "rcv_nxt": Out(32), "app_seq": Out(64),
})


class TcpSession(wiring.Component):
    """Sequence numbers, windows and acknowledgements of one connection.

    **Receive.** A segment is *in order* if its sequence number is ``rcv_nxt``, *duplicate* if it is before and
    *out of order* if it is beyond (differences modulo 2**32, signed). In order with payload: ``deliver`` if the
    buffer took it, and ``rcv_nxt`` moves on, else it is dropped unacknowledged for the peer to send again. A segment
    that starts before ``rcv_nxt`` is a duplicate even if it ends beyond: the peer learns from the acknowledgement
    where to go on. Every accepted payload and every segment not in order asks for an acknowledgement; an
    acknowledgement without payload asks for none. An acknowledgement number from ``snd_una`` to ``snd_nxt`` moves
    ``snd_una`` and sets the peer's window, in whatever segment it comes; one beyond ``snd_nxt`` makes the segment
    out of order. Segments with SYN or without ACK are refused. FIN and RST end the session.

    **Transmit.** The sender says how many bytes leave (``sent``), and each message takes one ``app_seq``. Only what
    fits the peer's window may be sent: ``room`` for ``quote_size`` bytes, ``host_room`` for ``host_length``.
    Nothing here is kept for retransmission; the bytes and their sequence numbers pass by on the port's ``sent``.

    **Timing**: with the verdict of a frame in cycle ``V``, sequence numbers, ``session_up`` and ``ack_pending`` have
    their new values in ``V + 1``, ``room`` and ``host_room`` in ``V + 4``. When the session ends, ``room`` falls with
    ``session_up`` and ``host_room`` a cycle later. With ``enable`` in ``W``, ``session_up`` is 1 from ``W + 1``, and
    the session stands still while ``filled`` is 0: there is no room, and no verdict counts. With ``filled`` 1 from
    ``D`` on there is room from ``D + 3``. With ``sent`` in ``T`` the sequence numbers have moved in ``T + 1`` and
    ``room`` is right in ``T + 4``.

    Parameters
    ----------
    quote_size : int
        Bytes of payload for which ``room`` speaks.

    Members
    -------
    enable : In(1), enable_value : In(1)
        Strobe: take a connection over (``enable_value`` 1) or give it back.
    filled : In(1)
        All that the host has said of the session is where it belongs, the numbers of :data:`LOADS` too. 0 from the
        cycle after a hand-over on.
    load : In, load_data : In(32)
        Strobe for each of :data:`LOADS`: begin with this number. Heeded while the session is up.
    segment : In(Segment)
    closing : In(1)
        Verdict of the receiver: FIN or RST.
    buffered : In(1)
        With ``segment.valid``: the receive buffer holds all of the payload.
    deliver : Out(1)
        With ``segment.valid``: give the payload to the host.
    status : Out(SessionStatus)
    lost : Out(1)
        Strobe, with ``closing`` while up: the peer has ended the session.
    ack_pending : Out(1)
        The peer waits for an acknowledgement.
    acked : In(1)
        A segment with ``rcv_nxt`` as of the cycle before has started in the cycle before.
    room : Out(1), host_room : Out(1)
    room_next : Out(1)
        What ``room`` will be in the next cycle, and the session is up then.
    host_length : In(16)
        Bytes of payload that the host wants to send.
    sent : In(1), sent_length : In(16)
        So many bytes of payload were sent under ``snd_nxt``, one message under ``app_seq``.
    in_order, duplicate, out_of_order, dropped, refused : Out(1)
        Strobes for counters, with ``segment.valid``; at most one of them. ``in_order`` counts accepted payloads.
    """

    def __init__(self, *, quote_size):
        self.quote_size = quote_size
        super().__init__({
            "enable": In(1),
            "enable_value": In(1),
            "filled": In(1),
            "load": In(len(LOADS)),
            "load_data": In(32),
            "segment": In(Segment),
            "closing": In(1),
            "buffered": In(1),
            "deliver": Out(1),
            "status": Out(SessionStatus),
            "lost": Out(1),
            "ack_pending": Out(1),
            "acked": In(1),
            "room": Out(1),
            "room_next": Out(1),
            "host_room": Out(1),
            "host_length": In(16),
            "sent": In(1),
            "sent_length": In(16),
            "in_order": Out(1),
            "duplicate": Out(1),
            "out_of_order": Out(1),
            "dropped": Out(1),
            "refused": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        segment, status = self.segment, self.status
        peer_window = Signal(16)

        # Distances, a register ahead of their use: the receiver holds a segment's numbers long before its verdict.
        ahead = Signal(signed(32))          # of what we expect
        acked_bytes = Signal(signed(32))    # newly acknowledged
        unsent = Signal(signed(32))         # what we have sent and this does not acknowledge
        m.d.sync += [
            ahead.eq(segment.seq - status.rcv_nxt),
            acked_bytes.eq(segment.ack - status.snd_una),
            unsent.eq(status.snd_nxt - segment.ack),
        ]
        before = Signal()
        here = Signal()
        beyond = Signal()
        due = Signal()      # in order, with payload
        ack_old = Signal()
        ack_unsent = Signal()
        m.d.sync += [
            before.eq(ahead < 0),
            here.eq(ahead == 0),
            due.eq((ahead == 0) & (segment.length != 0)),
            ack_old.eq(acked_bytes < 0),
            ack_unsent.eq(unsent < 0),
        ]

        owned = status.session_up & self.filled
        usable = segment.valid & owned
        wanted = Signal()
        m.d.comb += wanted.eq(usable & ~segment.syn & segment.has_ack)
        m.d.comb += [
            beyond.eq(~before & ~here),
            self.refused.eq(usable & (segment.syn | ~segment.has_ack)),
            self.duplicate.eq(wanted & ~ack_unsent & before),
            self.out_of_order.eq(wanted & (ack_unsent | beyond)),
            self.deliver.eq(wanted & ~ack_unsent & due & self.buffered),
            self.dropped.eq(wanted & ~ack_unsent & due & ~self.buffered),
            self.in_order.eq(self.deliver),
            self.lost.eq(self.closing & owned),
        ]

        # A segment accepted in the cycle in which a frame starts is not in that frame's number.
        asked = Signal()
        asked_before = Signal()
        m.d.comb += asked.eq(self.deliver | self.duplicate | self.out_of_order)
        m.d.sync += asked_before.eq(asked)
        with m.If(self.acked):
            m.d.sync += self.ack_pending.eq(asked_before)
        with m.If(asked):
            m.d.sync += self.ack_pending.eq(1)
        with m.If(self.deliver):
            m.d.sync += status.rcv_nxt.eq(status.rcv_nxt + segment.length)
        with m.If(wanted & ~ack_unsent & ~ack_old):
            m.d.sync += [status.snd_una.eq(segment.ack), peer_window.eq(segment.window)]
        with m.If(self.sent):
            m.d.sync += status.snd_nxt.eq(status.snd_nxt + self.sent_length)
        count(m, status.app_seq, self.sent)

        with m.If(self.lost):
            m.d.sync += [status.session_up.eq(0), self.ack_pending.eq(0), asked_before.eq(0)]
        with m.If(self.enable):
            m.d.sync += [status.session_up.eq(self.enable_value), self.ack_pending.eq(0), asked_before.eq(0)]

        # The numbers to begin with. Nothing is sent or received as they come.
        word, load = self.load_data, dict(zip(LOADS, self.load, strict=True))
        begins = {
            "init_snd_nxt": (status.snd_nxt, status.snd_una), "init_rcv_nxt": (status.rcv_nxt,),
            "init_peer_window": (peer_window,), "init_app_seq_lo": (status.app_seq[:32],),
            "init_app_seq_hi": (status.app_seq[32:],),
        }
        for name, targets in begins.items():
            with m.If(load[name] & status.session_up):
                m.d.sync += [target.eq(word) for target in targets]

        # Room in the peer's window, in three registers. After a hand-over they are not believed before they have
        # seen the new numbers.
        right_edge = Signal(32)
        credit = Signal(signed(32))
        settling = Signal(2)

        def fits(size):
            """``credit >= size``, with no carry through the bits that only ``credit`` has."""
            low = len(size)
            return ~credit[-1] & (credit[low:-1].any() | (credit[:low] >= size))

        m.d.comb += self.room_next.eq(fits(Const(self.quote_size)) & (settling == 0) & status.session_up & ~self.lost
                                      & ~self.enable)
        m.d.sync += [
            right_edge.eq(status.snd_una + peer_window),
            credit.eq(right_edge - status.snd_nxt),
            self.room.eq(self.room_next),
            self.host_room.eq(fits(self.host_length) & (settling == 0) & status.session_up),
            settling.eq(settling >> 1),
        ]
        with m.If(self.enable | ~owned):
            m.d.sync += [settling.eq(~0), self.host_room.eq(0)]
        return m

"""TCP session: the state of an established connection that the host has handed over."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.count import count
from hdl.order import retransmit
from hdl.order.receive import Segment
from hdl.order.retransmit import TICK_CYCLES, TIME_BITS, Retransmitter

__all__ = ["LOADS", "SessionStatus", "TcpSession"]

#: Registers that a session begins with, a word each, in the order of ``TcpSession.load``.
LOADS = ("init_snd_nxt", "init_rcv_nxt", "init_peer_window", "init_app_seq_lo", "init_app_seq_hi", "ack_delay",
         *retransmit.LOADS)

#: What the host may read: ``session_up`` 1, ``snd_nxt``, ``snd_una``, ``rcv_nxt`` 32 (TCP sequence numbers),
#: ``app_seq`` 64 (the next message's sequenceNumber), ``rto``, ``srtt`` 26 (ticks). They keep their last values when
#: the session ends, and have those of a new one :data:`hdl.order.timing.SESSION_ENABLE_TO_READY` cycles after its
#: hand-over.
SessionStatus = Signature({
    "session_up": Out(1), "snd_nxt": Out(32), "snd_una": Out(32), "rcv_nxt": Out(32), "app_seq": Out(64),
    "rto": Out(TIME_BITS), "srtt": Out(TIME_BITS),
})


class TcpSession(wiring.Component):
    """Sequence numbers, windows, acknowledgements and repetitions of one connection, as RFC 9293 has them.

    **Receive.** What a segment does follows from where it lies, by differences modulo 2**32:

    =====================================  ============================================================================
    it has                                 and so
    =====================================  ============================================================================
    SYN                                    ignored but for a challenge acknowledgement (RFC 5961, 4)
    RST with ``rcv_nxt``                   the session ends; the host is given the frame
    RST within 64 KiB beyond               a challenge acknowledgement (RFC 5961, 3); any other RST is ignored
    no ACK                                 ignored
    an ACK beyond ``snd_nxt``, or 64 KiB   ignored but for an acknowledgement (RFC 9293, 3.10.7.4; RFC 5961, 5)
    and more before ``snd_una``
    a number beyond ``rcv_nxt``            out of order: acknowledged, not kept, for the peer to send again
    nothing that is new                    duplicate: acknowledged, keep-alives and probes of the window too
    FIN, and nothing missing before it     the session ends; the host is given the frame
    something new from ``rcv_nxt`` on      delivered if the buffers took it, without what was received before; else
                                           neither kept nor acknowledged
    =====================================  ============================================================================

    Whatever it has else, an acknowledgement number from ``snd_una`` to ``snd_nxt`` moves ``snd_una``, and sets the
    peer's window if it is newer than the segment that set it last.

    **Acknowledge.** At once what is not delivered or overlaps, and every second segment; the first one after
    ``ack_delay`` ticks (0: at once too). Everything that leaves carries it.

    **Transmit.** The sender says how many bytes leave (``sent``), and each message takes one ``app_seq``. Only what
    fits the peer's window and the ring may be sent: ``room`` for ``quote_size`` bytes, ``host_room`` for
    ``host_length``. What is sent again, and when, :class:`hdl.order.retransmit.Retransmitter` says.

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
    ring_size : int
        Bytes of the ring.

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
    buffered : In(1)
        With ``segment.valid``: the receive buffers hold all of the payload.
    trim : Out(11)
        So many bytes of the segment that is being received have been received before, all ones: as many or more. Right
        from four cycles after its sequence number on.
    deliver : Out(1)
        With ``segment.valid``: give the payload, without what is trimmed, to the host.
    closes : Out(1)
        With ``segment.valid``: give the frame to the host, it ends the session.
    status : Out(SessionStatus)
    lost, gave_up : Out(1)
        Strobes: the session has ended, by the peer or because it does not acknowledge; the latter.
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
    restart : Out(1), rewind : Out(1), step : Out(1), moved : Out(1)
        To the ring: a connection begins with ``load_data``; its cursor; ``snd_una`` is another one.
    oldest : In(32), shown : In(1), shown_seq : In(32)
        From the ring: ``oldest``, ``valid`` and ``seq``.
    resends : Out(1), resent : In(1)
        The segment that the ring shows is to be sent again; it has started in the cycle before.
    probes : Out(1), probed : In(1)
        A segment without payload, under ``snd_una`` - 1, is to be sent; likewise.
    in_order, duplicate, out_of_order, dropped, refused : Out(1)
        Strobes for counters, with ``segment.valid``; at most one of them. ``in_order`` counts accepted payloads.
    expired, recovers : Out(1)
        Strobes for counters, of the retransmitter.
    """

    def __init__(self, *, quote_size, ring_size):
        self.quote_size, self.ring_size = quote_size, ring_size
        super().__init__({
            "enable": In(1),
            "enable_value": In(1),
            "filled": In(1),
            "load": In(len(LOADS)),
            "load_data": In(32),
            "segment": In(Segment),
            "buffered": In(1),
            "trim": Out(11),
            "deliver": Out(1),
            "closes": Out(1),
            "status": Out(SessionStatus),
            "lost": Out(1),
            "gave_up": Out(1),
            "ack_pending": Out(1),
            "acked": In(1),
            "room": Out(1),
            "room_next": Out(1),
            "host_room": Out(1),
            "host_length": In(16),
            "sent": In(1),
            "sent_length": In(16),
            "restart": Out(1),
            "rewind": Out(1),
            "step": Out(1),
            "moved": Out(1),
            "oldest": In(32),
            "shown": In(1),
            "shown_seq": In(32),
            "resends": Out(1),
            "resent": In(1),
            "probes": Out(1),
            "probed": In(1),
            "in_order": Out(1),
            "duplicate": Out(1),
            "out_of_order": Out(1),
            "dropped": Out(1),
            "refused": Out(1),
            "expired": Out(1),
            "recovers": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.retransmitter = retransmitter = Retransmitter()
        segment, status = self.segment, self.status
        load, word = dict(zip(LOADS, self.load, strict=True)), self.load_data
        since, tick = Signal(range(TICK_CYCLES)), Signal()
        m.d.sync += [since.eq(since + 1), tick.eq(since == TICK_CYCLES - 2)]
        peer_window = Signal(16)
        window_seq = Signal(32)             # of the segment that has set it

        # Distances, a register ahead of their use: the receiver holds a segment's numbers long before its verdict.
        ahead = Signal(signed(32))          # of what we expect
        end, fresh = Signal(32), Signal(signed(32))     # of the segment; how far that is ahead
        acked_bytes = Signal(signed(32))    # newly acknowledged
        unsent = Signal(signed(32))         # what we have sent and this does not acknowledge
        newer = Signal(signed(32))          # than the segment that has set the window
        m.d.sync += [
            ahead.eq(segment.seq - status.rcv_nxt), end.eq(segment.seq + segment.length),
            fresh.eq(end - status.rcv_nxt), acked_bytes.eq(segment.ack - status.snd_una),
            unsent.eq(status.snd_nxt - segment.ack), newer.eq(segment.seq - window_seq),
        ]
        before, here, beyond, near, reaches, some_new = (Signal(name=name) for name in (
            "before", "here", "beyond", "near", "reaches", "some_new"))
        bad_ack, ack_old, ack_new, ack_same, sets_window, same_window = (Signal(name=name) for name in (
            "bad_ack", "ack_old", "ack_new", "ack_same", "sets_window", "same_window"))
        far_back = ~acked_bytes[16:].all() & acked_bytes[-1]
        m.d.sync += [
            before.eq(ahead < 0), here.eq(ahead == 0), beyond.eq(ahead > 0), near.eq(~ahead[16:].any()),
            reaches.eq(fresh >= 0), some_new.eq(fresh > 0),
            bad_ack.eq((unsent < 0) | far_back), ack_old.eq(acked_bytes < 0), ack_new.eq(acked_bytes > 0),
            ack_same.eq(acked_bytes == 0), sets_window.eq((acked_bytes > 0) | (newer >= 0)),
            same_window.eq(segment.window == peer_window),
            self.trim.eq(Mux(ahead < 0, Mux(ahead[11:].all() & ahead[:11].any(), (-ahead)[:11], ~0), 0)),
        ]

        owned = status.session_up & self.filled
        usable, wanted, fits_in, challenge = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            usable.eq(segment.valid & owned),
            wanted.eq(usable & ~segment.syn & ~segment.rst & segment.has_ack),
            fits_in.eq(wanted & ~bad_ack & ~beyond),
            challenge.eq(usable & (segment.syn | (segment.rst & beyond & near))),
            self.refused.eq(usable & (segment.syn | (segment.rst & ~here) | (~segment.rst & ~segment.has_ack))),
            self.out_of_order.eq(wanted & (bad_ack | beyond)),
            self.closes.eq((usable & segment.rst & ~segment.syn & here) | (fits_in & segment.fin & reaches)),
            self.duplicate.eq(fits_in & ~some_new & (before | (segment.length != 0)) & ~self.closes),
            self.deliver.eq(fits_in & some_new & ~segment.fin & self.buffered),
            self.dropped.eq(fits_in & some_new & ~segment.fin & ~self.buffered),
            self.in_order.eq(self.deliver),
            self.gave_up.eq(retransmitter.gives_up),
            self.lost.eq(self.closes | self.gave_up),
        ]

        # An acknowledgement is asked for now, or owed. What is accepted in the cycle in which a frame starts is not in
        # that frame's number.
        owed, delay, waits = Signal(), Signal(16), Signal(16)
        now, now_before, later, later_before = (Signal(name=name) for name in (
            "ack_now", "ack_now_before", "ack_later", "ack_later_before"))
        m.d.comb += [
            now.eq(self.duplicate | self.out_of_order | challenge | (self.deliver & (before | owed | (delay == 0)))),
            later.eq(self.deliver & ~now),
        ]
        m.d.sync += [now_before.eq(now), later_before.eq(later)]
        with m.If(tick & owed):
            m.d.sync += waits.eq(waits - 1)
            with m.If(waits == 0):
                m.d.sync += [owed.eq(0), self.ack_pending.eq(1)]
        with m.If(self.acked):
            m.d.sync += [self.ack_pending.eq(now_before), owed.eq(later_before)]
        with m.If(now):
            m.d.sync += [self.ack_pending.eq(1), owed.eq(0)]
        with m.If(later):
            m.d.sync += [owed.eq(1), waits.eq(delay)]

        with m.If(self.deliver):
            m.d.sync += status.rcv_nxt.eq(end)
        advances = Signal()
        m.d.comb += advances.eq(wanted & ~bad_ack & ack_new)
        m.d.sync += self.moved.eq(advances)
        with m.If(wanted & ~bad_ack & ~ack_old):
            m.d.sync += status.snd_una.eq(segment.ack)
            with m.If(sets_window):
                m.d.sync += [peer_window.eq(segment.window), window_seq.eq(segment.seq)]
        with m.If(self.sent):
            m.d.sync += status.snd_nxt.eq(status.snd_nxt + self.sent_length)
        count(m, status.app_seq, self.sent)

        with m.If(self.lost):
            m.d.sync += status.session_up.eq(0)
        with m.If(self.enable):
            m.d.sync += status.session_up.eq(self.enable_value)
        with m.If(self.lost | self.enable):
            m.d.sync += [self.ack_pending.eq(0), owed.eq(0), now_before.eq(0), later_before.eq(0)]

        # The numbers to begin with. Nothing is sent or received as they come.
        begins = {
            "init_snd_nxt": (status.snd_nxt, status.snd_una), "init_rcv_nxt": (status.rcv_nxt, window_seq),
            "init_peer_window": (peer_window,), "init_app_seq_lo": (status.app_seq[:32],),
            "init_app_seq_hi": (status.app_seq[32:],), "ack_delay": (delay,),
        }
        for name, targets in begins.items():
            with m.If(load[name] & status.session_up):
                m.d.sync += [target.eq(word) for target in targets]
        m.d.comb += self.restart.eq(load["init_snd_nxt"] & status.session_up)

        # ------------------------------------------------------------------ what is sent again
        roomy = Signal()
        m.d.sync += roomy.eq(peer_window >= self.quote_size)
        m.d.comb += [
            retransmitter.tick.eq(tick), retransmitter.load_data.eq(word),
            retransmitter.load.eq(Mux(status.session_up, Cat(load[name] for name in retransmit.LOADS), 0)),
            retransmitter.up.eq(owned), retransmitter.sent.eq(self.sent), retransmitter.advanced.eq(self.moved),
            retransmitter.duplicate.eq(wanted & ~bad_ack & ack_same & same_window & (segment.length == 0)
                                       & ~segment.fin),
            retransmitter.heard.eq(wanted & ~bad_ack & ~ack_old),
            retransmitter.una.eq(status.snd_una), retransmitter.nxt.eq(status.snd_nxt), retransmitter.roomy.eq(roomy),
            self.rewind.eq(retransmitter.rewind), self.step.eq(retransmitter.step),
            retransmitter.shown.eq(self.shown), retransmitter.shown_seq.eq(self.shown_seq),
            self.resends.eq(retransmitter.wants & owned), retransmitter.started.eq(self.resent),
            self.probes.eq(retransmitter.probes & owned), retransmitter.probed.eq(self.probed),
            self.expired.eq(retransmitter.expired), self.recovers.eq(retransmitter.recovers),
            status.rto.eq(retransmitter.rto), status.srtt.eq(retransmitter.srtt),
        ]

        # Room in the peer's window, in three registers, and in the ring. After a hand-over they are not believed before
        # they have seen the new numbers.
        edges = (Signal(32, name="window_edge"), Signal(32, name="ring_edge"))
        credits = (Signal(signed(32), name="window_credit"), Signal(signed(32), name="ring_credit"))
        settling = Signal(2)

        def fits(size):
            """``credit >= size`` of both, with no carry through the bits that only ``credit`` has."""
            low = len(size)
            return Cat(~credit[-1] & (credit[low:-1].any() | (credit[:low] >= size)) for credit in credits).all()

        m.d.comb += self.room_next.eq(fits(Const(self.quote_size)) & (settling == 0) & status.session_up & ~self.lost
                                      & ~self.enable)
        m.d.sync += [
            edges[0].eq(status.snd_una + peer_window), edges[1].eq(self.oldest + self.ring_size),
            *(credit.eq(edge - status.snd_nxt) for credit, edge in zip(credits, edges, strict=True)),
            self.room.eq(self.room_next),
            self.host_room.eq(fits(self.host_length) & (settling == 0) & status.session_up),
            settling.eq(settling >> 1),
        ]
        with m.If(self.enable | ~owned):
            m.d.sync += [settling.eq(~0), self.host_room.eq(0)]
        return m

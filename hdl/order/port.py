"""Order port: from the decision to the pins, and from the pins to the host."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature, connect, flipped

from hdl.control.params import Ticks
from hdl.control.registers import BY_NAME
from hdl.layout import net
from hdl.mac.rx import MacRx
from hdl.mac.stream import HeldFrame, Packet, RxBytes
from hdl.mac.tx import MacTx
from hdl.net.packet_fifo import PacketFifo
from hdl.order import timing
from hdl.order.encoder import PLAY_LATENCY
from hdl.order.host_frames import FRAME_TX, SESSION_TX, HostFrames
from hdl.order.receive import EXPECTED, SegmentReceiver
from hdl.order.ring import RetransmitRing
from hdl.order.scale import QuoteScaler
from hdl.order.session import LOADS, SessionStatus, TcpSession
from hdl.order.statics import WAIT_CYCLES, WORD_BITS, StaticFields
from hdl.order.stored import StoredRows
from hdl.order.templates import BODY_OFFSET, CANCEL_SIZE, NULL_PRICE, PATCHED, QUOTE_SIZE, frame_encoder

__all__ = ["FRAME_RX", "FRAME_TX", "KIND_MASS_CANCEL", "KIND_QUOTE", "SESSION_RX", "SESSION_TX", "OrderCounters",
           "OrderPort", "Quote", "SentBytes", "SessionConfig"]

KIND_QUOTE, KIND_MASS_CANCEL = 0, 1     #: values of ``OrderPort.kind``
FRAME_RX, SESSION_RX = 0, 1             #: values of ``OrderPort.host_rx_kind``
RX_PACKETS = 64                         # one more than the buffer to the host has room for
GATE_BYTES = 2048                       # of the buffer to the gate

#: What the decision stage wants quoted. Prices in ticks, quantities in lots; a side of zero lots is taken away.
#:
#: Members
#: -------
#: bid_ticks, ask_ticks : Out(Ticks)
#: bid_lots, ask_lots : Out(24)
#: tick_e9 : Out(40)
#:     Price mantissa (exponent -9) of one tick. ``ticks * tick_e9`` must fit 64 bits signed; it is cut off if not.
#: lot_mult : Out(32), lot_exp : Out(signed(8))
#:     Quantity mantissa of one lot, and its exponent.
#: instrument_id, quote_id : Out(64)
#:     ``quote_id`` is the message's quoteId and correlationId. A mass cancel uses nothing else of this.
Quote = Signature({
    "bid_ticks": Out(Ticks), "ask_ticks": Out(Ticks), "bid_lots": Out(24), "ask_lots": Out(24),
    "tick_e9": Out(40), "lot_mult": Out(32), "lot_exp": Out(signed(8)),
    "instrument_id": Out(64), "quote_id": Out(64),
})

#: Registers of section "session", as the host writes them.
#:
#: Members
#: -------
#: session_enable : Out(1)
#:     Strobe of a write; ``session_enable_value`` 1 takes the connection over as the registers say, 0 gives it back.
#: write : Out(1), address : Out(7), data : Out(32)
#:     Strobe: a register was written. ``address`` and ``data`` hold for a cycle more; at most one in four cycles, the
#:     first one in cycle 512 after reset at the earliest.
#: last_processed : Out(64)
SessionConfig = Signature({
    "session_enable": Out(1), "session_enable_value": Out(1),
    "write": Out(1), "address": Out(WORD_BITS), "data": Out(32),
    "last_processed": Out(64),
})

#: One-cycle strobes for the counters of the same names.
OrderCounters = Signature({name: Out(1) for name in (
    "order_rx_frames", "order_rx_bad", "order_rx_dropped", "order_rx_slow", "segments_in_order", "segments_duplicate",
    "segments_out_of_order", "segments_refused", "acks_sent", "segments_resent", "order_tx_frames")})

#: Every byte of payload that leaves in the session, with its TCP sequence number: the one place that they all pass,
#: in order, each exactly once. What is sent again does not pass here a second time.
SentBytes = Signature({"valid": Out(1), "data": Out(8), "seq": Out(32)})


class _Source(enum.Enum, shape=3):
    """What the frame under way is."""

    QUOTE = 0
    MASS_CANCEL = 1
    ACK = 2
    SESSION_TX = 3
    RESENT = 4
    PROBE = 5
    FRAME_TX = 6
    LINK = 7


class OrderPort(wiring.Component):
    """Everything between ``fire`` and the pins of the order port, in both directions.

    **Transmit.** With ``fire`` in cycle ``T`` (ignored unless ``ready``) the first preamble byte
    of its frame is on ``txd`` in ``T + 1``, always. The frame then runs to its end without a gap and with right
    checksums, whatever happens meanwhile: products, messages and checksums are finished in the shadow of preamble and
    headers, and so the quote need not stand before ``T`` + :data:`hdl.order.timing.QUOTE_AT`. When the port is idle
    and the decision stage neither has nor wants something, a segment that is to be sent again starts, else a pending
    acknowledgement, else a probe of the peer's window, else the host's packet, in the order in which the host gave
    them; a message waits for the session's window and ring and holds up what is behind it. A message that finds the
    session down is dropped. When none of these can start, a frame of the host link does.

    What is sent again says the same as the first time, the acknowledgement excepted: the bytes come from
    :class:`hdl.order.ring.RetransmitRing`.

    **Receive.** As :class:`SegmentReceiver` and :class:`TcpSession` say. Accepted payload and slow-path frames go to
    the host through one buffer, in order of arrival, and payload to the gate through another one; what finds either
    full is dropped, a segment unacknowledged.

    **Hand-over.** What the host has written counts from the next hand-over on, whose copy takes a while
    (:class:`hdl.order.statics.StaticFields`). Until then nothing of the session starts, ``ready`` is 0, and what the
    peer sends goes the slow path, as before. What is written in that while may or may not count. ``local_mac`` alone
    also counts, for what is received, when it is written while the session is down.

    All cycle counts are in :mod:`hdl.order.timing`.

    Parameters
    ----------
    rx_depth : int
        Bytes of the buffer to the host, see :class:`hdl.net.packet_fifo.PacketFifo`.
    ring_size : int
        Bytes that may be unacknowledged, see :class:`hdl.order.ring.RetransmitRing`.

    Members
    -------
    fire : In(1), kind : In(1), quote : In(Quote)
        Send a quote (:data:`KIND_QUOTE`) or cancel all quotes of the group (:data:`KIND_MASS_CANCEL`). ``fire`` may
        come late in its cycle ``T``: it reaches four registers. ``kind`` and ``quote.quote_id`` are taken in ``T``;
        the other fields of ``quote`` are read from ``T + QUOTE_AT`` on and have to hold still from there until
        ``ready`` is 1 again. A mass cancel reads none of them.
    quote_id : Out(64)
        ``quote.quote_id`` as the frame under way has it, from the cycle after ``fire`` to the frame's end.
    quote_started : Out(1)
        Strobe: a quote has started in the cycle before.
    resent : Out(1)
        Strobe: a segment that left before has started in the cycle before.
    ready : Out(1)
        ``fire`` is legal: the port is idle, the session is up, peer's window and ring have room. A register.
    hot_busy, hot_wants : In(1)
        The decision stage has or is about to have something: nothing else may start. For ``hot_wants`` that holds only
        while ``ready``: else the decision stage could not start anything either.
    time_ns : In(64)
        Wall time; a message carries the value of its ``T``.
    config : In(SessionConfig), status : Out(SessionStatus)
    session_lost : Out(1)
        Strobe: the peer has ended the session (FIN or RST), or does not acknowledge.
    session_gave_up : Out(1)
        With ``session_lost``: it does not.
    counters : Out(OrderCounters)
    host_tx : In(Packet), host_tx_kind : In(1)
        Packets of the host: :data:`FRAME_TX`, a frame without FCS, or :data:`SESSION_TX`, a Starbase message.
    host_rx : Out(Packet), host_rx_kind : Out(1), host_rx_length : Out(16)
        Packets for the host: :data:`FRAME_RX`, a frame without FCS, or :data:`SESSION_RX`, payload in order. Kind and
        length in bytes hold from a packet's first byte to its last one.
    answers : Out(Packet), answers_wait : Out(1)
        The same payload for the gate, and whether some of it has not been taken.
    session_sent : Out(1), session_sent_seq : Out(64)
        Strobe: a message of the host has started, under this sequenceNumber.
    session_tx_refused : Out(1)
        Strobe: a message of the host was dropped because the session is down or its length is impossible.
    sent : Out(SentBytes)
    link_tx : In(HeldFrame), link_rx : Out(RxBytes)
        Frames of the host link to be sent; every frame that is received.
    dbg_host_tx_valid, dbg_host_tx_kind : Out(1)
        Strobe: a packet of the host has become available to the transmit arbiter, and its kind. Observation only.
    dbg_resends : Out(3)
        Strobes: something that was sent has timed out; three duplicate acknowledgements came; a probe of the window
        starts. Observation only.
    rxd : In(8), rx_dv : In(1), rx_er : In(1), txd : Out(8), tx_en : Out(1), tx_er : Out(1)
        GMII pins.
    """

    def __init__(self, *, rx_depth=4096, ring_size=8192):
        self.rx_depth, self.ring_size = rx_depth, ring_size
        super().__init__({
            "fire": In(1),
            "kind": In(1),
            "quote": In(Quote),
            "quote_id": Out(64),
            "quote_started": Out(1),
            "resent": Out(1),
            "ready": Out(1),
            "hot_busy": In(1),
            "hot_wants": In(1),
            "time_ns": In(64),
            "config": In(SessionConfig),
            "status": Out(SessionStatus),
            "session_lost": Out(1),
            "session_gave_up": Out(1),
            "counters": Out(OrderCounters),
            "host_tx": In(Packet),
            "host_tx_kind": In(1),
            "host_rx": Out(Packet),
            "host_rx_kind": Out(1),
            "host_rx_length": Out(16),
            "answers": Out(Packet),
            "answers_wait": Out(1),
            "session_sent": Out(1),
            "session_sent_seq": Out(64),
            "session_tx_refused": Out(1),
            "sent": Out(SentBytes),
            "link_tx": In(HeldFrame),
            "link_rx": Out(RxBytes),
            "dbg_host_tx_valid": Out(1),
            "dbg_host_tx_kind": Out(1),
            "dbg_resends": Out(3),
            "rxd": In(8),
            "rx_dv": In(1),
            "rx_er": In(1),
            "txd": Out(8),
            "tx_en": Out(1),
            "tx_er": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.session = session = TcpSession(quote_size=QUOTE_SIZE, ring_size=self.ring_size)
        m.submodules.ring = ring = RetransmitRing(self.ring_size)
        m.submodules.encoder = encoder = frame_encoder()
        m.submodules.statics = statics = StaticFields(encoder.rows, encoder.places, EXPECTED, LOADS)
        connect(m, flipped(self.status), session.status)
        self._elaborate_hand_over(m, session, encoder, statics)
        self._elaborate_receive(m, session, statics)
        self._elaborate_transmit(m, session, encoder, ring)
        return m

    def _elaborate_hand_over(self, m, session, encoder, statics):
        """From the host's words to the session, the template and the receiver."""
        config = self.config
        # The last start is in the cycle of the hand-over, and the frame is assembled from the next one on.
        assert max(map(encoder.steps, encoder.sizes)) + 3 <= WAIT_CYCLES
        # The slow path needs our address before there is a session.
        local_mac = Signal()
        m.d.sync += local_mac.eq(config.write & (config.address == BY_NAME["local_mac_hi"].address))
        m.d.comb += [
            *(getattr(statics, name).eq(getattr(config, name)) for name in ("write", "address", "data")),
            statics.restart.eq((config.session_enable & config.session_enable_value)
                               | (local_mac & ~self.status.session_up)),
            statics.template_row.eq(encoder.template_row), encoder.template.eq(statics.template),
            statics.row.eq(encoder.row),
            session.enable.eq(config.session_enable), session.enable_value.eq(config.session_enable_value),
            session.filled.eq(statics.filled), session.load.eq(statics.load), session.load_data.eq(encoder.row),
        ]

    def _elaborate_receive(self, m, session, statics):
        counters = self.counters
        m.submodules.mac_rx = mac = MacRx()
        m.submodules.receiver = receiver = SegmentReceiver()
        m.submodules.to_host = to_host = PacketFifo(self.rx_depth)
        m.submodules.to_gate = to_gate = PacketFifo(GATE_BYTES)
        connect(m, mac.out, receiver.rx)
        connect(m, receiver.segment, session.segment)
        connect(m, flipped(self.host_rx), to_host.o)
        connect(m, flipped(self.answers), to_gate.o)

        verdict = Signal()
        is_frame = Signal()     # for the slow path
        keep = Signal()
        room = Signal()
        m.d.comb += [
            mac.rxd.eq(self.rxd),
            mac.rx_dv.eq(self.rx_dv),
            mac.rx_er.eq(self.rx_er),
            receiver.established.eq(self.status.session_up & statics.filled),
            receiver.fill.eq(statics.receive), receiver.fill_position.eq(statics.position),
            receiver.fill_byte.eq(statics.byte),
            receiver.trim.eq(session.trim),
            session.buffered.eq(room & to_gate.w_room),
            self.session_lost.eq(session.lost), self.session_gave_up.eq(session.gave_up),
            *(getattr(self.link_rx, name).eq(getattr(mac.out, name)) for name in RxBytes.members),
            verdict.eq(receiver.segment.valid | receiver.frame | receiver.bad | receiver.ignored),
            is_frame.eq(receiver.frame | session.closes), keep.eq(session.deliver | (is_frame & room)),
            to_host.w_data.eq(receiver.data),
            to_host.w_valid.eq(receiver.write),
            to_gate.w_data.eq(receiver.data), to_gate.w_valid.eq(receiver.write & receiver.session),
            self.answers_wait.eq(to_gate.busy),
            counters.order_rx_frames.eq(verdict | mac.preamble_errors),
            counters.order_rx_bad.eq(receiver.bad | mac.preamble_errors),
            counters.order_rx_dropped.eq((is_frame & ~room) | session.dropped),
            counters.order_rx_slow.eq(is_frame & room),
            counters.segments_in_order.eq(session.in_order),
            counters.segments_duplicate.eq(session.duplicate),
            counters.segments_out_of_order.eq(session.out_of_order),
            counters.segments_refused.eq(session.refused),
        ]
        # A cycle later is time enough: no byte is written near the verdict, none of payload near a restart.
        m.d.sync += [to_host.w_commit.eq(keep), to_host.w_discard.eq(receiver.restart | (verdict & ~keep)),
                     to_gate.w_commit.eq(session.deliver), to_gate.w_discard.eq(verdict & ~session.deliver)]

        # Kind and length of each packet, written in the cycle before its commit and shown with its first byte.
        entry = data.StructLayout({"length": range(self.rx_depth + 1), "kind": 1})
        m.submodules.packets = packets = Memory(shape=entry, depth=RX_PACKETS, init=[],
                                                attrs={"no_rw_check": 1, "ram_style": "block"})
        write, read = packets.write_port(), packets.read_port(domain="comb")
        full = Signal()
        before, fetched, shown = Signal.like(read.addr), *(Signal(entry, reset_less=True) for _ in range(2))
        length = Signal.like(write.data.length)
        with m.If(verdict | receiver.restart):
            m.d.sync += length.eq(0)
        with m.Elif(receiver.write):
            m.d.sync += length.eq(length + 1)
        with m.If(keep):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(to_host.o.valid & to_host.o.ready & to_host.o.last):
            m.d.sync += read.addr.eq(read.addr + 1)
        m.d.sync += [before.eq(read.addr - 1), full.eq(write.addr == before), fetched.eq(read.data), shown.eq(fetched)]
        m.d.comb += [
            room.eq(to_host.w_room & ~full),
            write.data.length.eq(length), write.data.kind.eq(Mux(is_frame, FRAME_RX, SESSION_RX)),
            write.en.eq(keep),
            self.host_rx_kind.eq(shown.kind), self.host_rx_length.eq(shown.length),
        ]

    def _elaborate_transmit(self, m, session, encoder, ring):
        config, status = self.config, session.status
        m.submodules.mac_tx = mac = MacTx()
        m.submodules.host = host = HostFrames()
        m.submodules.scaler = scaler = QuoteScaler(null_price=NULL_PRICE)
        m.submodules.stored = stored = StoredRows(encoder.stored_places, len(encoder.rows))
        m.d.comb += [self.txd.eq(mac.txd), self.tx_en.eq(mac.tx_en), self.tx_er.eq(mac.tx_er)]

        # Who may start. All here comes from registers but `fire`, `hot_busy` and `hot_wants`, which arrive late. They
        # reach the transmitter's two registers, `ready` and `fired`; what else a start does, it does a cycle later.
        fired = Signal()
        other = Signal()                # a frame without `fire` would start
        start = Signal()
        started = mac.begun             # T + 1
        sendable = (host.kind == FRAME_TX) | (status.session_up & session.host_room)
        m.d.comb += [
            other.eq(mac.idle & (session.resends | session.ack_pending | session.probes | (host.available & sendable)
                                 | self.link_tx.available)),
            start.eq(Mux(self.ready, self.fire | (other & ~self.hot_wants & ~self.hot_busy), other & ~self.hot_busy)),
            mac.start.eq(start),
            session.host_length.eq(host.length),
            self.counters.order_tx_frames.eq(mac.frames),
        ]
        m.d.sync += [
            fired.eq(self.fire & self.ready),
            self.ready.eq(mac.idle_next & session.room_next & ~start),
        ]

        # Everything that the frame will say is taken in every idle cycle, and so stands as it was in `T`: `fire` need
        # not reach hundreds of clock enables.
        source = Signal(_Source)        # this and the next stand from T + 2 on
        length = Signal(11)             # of the body: payload, or a whole FrameTx
        kind = Signal()
        other_source = Signal(_Source)
        other_length = Signal(11)
        other_seq = Signal(32)
        # ... and what that means for the session
        other_acks, other_host, other_message, other_again = Signal(), Signal(), Signal(), Signal()
        source_now = Signal(_Source)
        length_now = Signal(11)
        taken = {}

        def take(name, value):
            taken[name] = Signal(value.shape(), name=f"taken_{name}")
            m.d.sync += taken[name].eq(value)
            return taken[name]

        with m.If(mac.idle):
            take("quote_id", self.quote.quote_id)
            take("seq", status.snd_nxt)
            take("ack", status.rcv_nxt)
            take("app_seq", status.app_seq)
            take("time_ns", self.time_ns)
            take("last_processed", config.last_processed)
            take("resent_sum", ring.sum)
            m.d.sync += [kind.eq(self.kind), other_seq.eq(status.snd_nxt), other_acks.eq(1), other_length.eq(0),
                         *(what.eq(0) for what in (other_host, other_message, other_again))]
            with m.If(session.resends):
                m.d.sync += [other_source.eq(_Source.RESENT), other_length.eq(ring.length), other_seq.eq(ring.seq),
                             other_again.eq(1)]
            with m.Elif(session.ack_pending):
                m.d.sync += other_source.eq(_Source.ACK)
            with m.Elif(session.probes):
                m.d.sync += [other_source.eq(_Source.PROBE), other_seq.eq(status.snd_una - 1)]
            with m.Elif(self.link_tx.available & ~(host.available & sendable)):
                m.d.sync += [other_source.eq(_Source.LINK), other_length.eq(self.link_tx.length), other_acks.eq(0)]
            with m.Else():
                m.d.sync += [other_acks.eq(host.kind == SESSION_TX), other_host.eq(1),
                             other_message.eq(host.kind == SESSION_TX)]
                m.d.sync += [other_source.eq(Mux(host.kind, _Source.SESSION_TX, _Source.FRAME_TX)),
                             other_length.eq(host.length)]
        m.d.comb += self.quote_id.eq(taken["quote_id"])
        with m.If(~fired):
            m.d.comb += [source_now.eq(other_source), length_now.eq(other_length)]
        with m.Elif(kind == KIND_MASS_CANCEL):
            m.d.comb += [source_now.eq(_Source.MASS_CANCEL), length_now.eq(CANCEL_SIZE)]
        with m.Else():
            m.d.comb += [source_now.eq(_Source.QUOTE), length_now.eq(QUOTE_SIZE)]
        seq = Signal(32)
        with m.If(started):
            m.d.sync += [source.eq(source_now), length.eq(length_now), seq.eq(Mux(fired, taken["seq"], other_seq))]
        is_link = source == _Source.LINK
        is_frame = (source == _Source.FRAME_TX) | is_link
        is_host = (source == _Source.FRAME_TX) | (source == _Source.SESSION_TX)
        is_again = source == _Source.RESENT
        is_empty = (source == _Source.ACK) | (source == _Source.PROBE)
        is_message = ~is_frame & ~is_empty & ~is_again

        host_now = ~fired & other_host
        m.d.comb += [
            self.quote_started.eq(started & fired & (kind == KIND_QUOTE)),
            session.acked.eq(started & (fired | other_acks)),
            session.sent.eq(started & (fired | other_message)),
            session.sent_length.eq(length_now),
            self.session_sent.eq(started & ~fired & other_message),
            self.session_sent_seq.eq(taken["app_seq"]),
            session.resent.eq(started & ~fired & other_again), self.resent.eq(session.resent),
            session.probed.eq(started & ~fired & (other_source == _Source.PROBE)),
            self.counters.acks_sent.eq(session.probed | (started & ~fired & (other_source == _Source.ACK))),
            self.counters.segments_resent.eq(session.resent), self.dbg_resends.eq(Cat(
                session.expired, session.recovers, session.probed)),
        ]

        # The timetable, counted from `T`. The encoder's fields have to stand when it reads them, and the frame's bytes
        # when they are asked for.
        encoder_at = 1
        scaler_at = timing.QUOTE_AT - 1
        first_position = timing.FIRST_BYTE_AFTER_START - 1 - PLAY_LATENCY
        read_at = {name: encoder_at + encoder.read_after_start("quote", name) for name in (
            "total_length", "flags", "seq", "instrument_id", "lot_exp", *scaler.ready)}
        read_at["host_sum"] = min(encoder_at + encoder.read_after_start(body, "host_sum") for body in (
            "session_tx", "resent"))
        assert min(read_at[name] for name in ("total_length", "flags", "host_sum")) >= 3    # by one register more
        assert read_at["seq"] >= 2
        assert min(read_at["instrument_id"], read_at["lot_exp"]) >= timing.QUOTE_AT
        assert all(read_at[name] > scaler_at + ready for name, ready in scaler.ready.items())
        assert all(encoder_at + encoder.lead(name) <= first_position for name in encoder.sizes)
        assert tuple(encoder.sizes) == tuple(which.name.lower() for which in list(_Source)[:len(encoder.sizes)])

        since = [started, *(Signal(name=f"since_{n}") for n in range(2, scaler_at + 1))]    # 1 in T + 1, T + 2 ...
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(since)]
        total_length = Signal(16)
        flags = Signal(8)
        m.d.sync += [total_length.eq(length + (net.IPV4.size + net.TCP.size)),
                     flags.eq(Mux(is_empty, net.TCP_ACK, net.TCP_ACK | net.TCP_PSH))]
        sum_ = Signal(16)       # of a payload that is not assembled
        m.d.sync += sum_.eq(Mux(is_again, taken.pop("resent_sum"), host.sum))
        fields = {
            **taken, "seq": seq,
            "total_length": total_length, "flags": flags, "host_sum": Cat(sum_[8:], sum_[:8]),
            "instrument_id": self.quote.instrument_id, "lot_exp": self.quote.lot_exp,
        }
        for name in ("bid_ticks", "ask_ticks", "bid_lots", "ask_lots", "tick_e9", "lot_mult"):
            m.d.comb += getattr(scaler, name).eq(getattr(self.quote, name))
        m.d.comb += [
            encoder.start.eq(session.acked),    # the others come as they go
            encoder.body.eq(source.as_value()),
            [encoder.fields[name].eq(value) for name, value in fields.items()],
            scaler.start.eq(since[scaler_at - 1]),
            *(getattr(stored, name).eq(getattr(scaler, name)) for name in ("valid", "limb", "coming")),
            stored.row.eq(encoder.template_row), stored.en.eq(encoder.busy), encoder.stored.eq(stored.o),
        ]

        # Walk through the bytes, one a cycle: headers at positions below zero, and the body.
        position = Signal(signed(12))
        upcoming = Signal(signed(12))   # the position of the next cycle
        walking = Signal()
        last = Signal()
        ends = Signal()                 # `upcoming` is one too many
        length_1 = Signal(signed(17))
        m.d.comb += last.eq(walking & ends)
        m.d.sync += [upcoming.eq(upcoming + 1), position.eq(upcoming), length_1.eq(length - 1),
                     ends.eq(upcoming == length_1)]
        with m.If(since[first_position - 2 - 1]):
            m.d.sync += [upcoming.eq(Mux(is_frame, 0, -BODY_OFFSET)), ends.eq(0)]
        with m.If(since[first_position - 1 - 1]):
            m.d.sync += walking.eq(1)
        with m.Elif(last):
            m.d.sync += walking.eq(0)
        m.d.comb += [encoder.position.eq(position), host.position.eq(position),
                     self.link_tx.position.eq(position), self.link_tx.release.eq(last & is_link)]

        m.d.sync += ring.place.eq(seq + upcoming)

        # The byte of that position: the host's where its packet goes as it came, or the ring's. Encoder and buffers
        # take their time.
        from_host, from_ring = Signal(), Signal()
        m.d.comb += from_ring.eq(is_again & (position >= 0))
        with m.Switch(position):
            with m.Case(*sorted(PATCHED)):
                m.d.comb += from_host.eq(is_frame)
            with m.Default():
                m.d.comb += from_host.eq(is_frame | (is_host & (position >= 0)))
        marks = [Cat(walking, last, is_message & walking & (position >= 0), walking & is_link,
                     walking & from_host & ~is_link, walking & from_ring, walking & ~from_host & ~from_ring),
                 *(Signal(7, name=f"marks_{n}") for n in range(PLAY_LATENCY + 1))]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(marks)]
        m.d.sync += mac.i.data.eq(reduce(or_, (
            Mux(mark, byte, 0) for mark, byte in zip(
                marks[PLAY_LATENCY][3:], (self.link_tx.byte, host.byte, ring.byte, encoder.byte), strict=True))))
        m.d.comb += [mac.i.valid.eq(marks[-1][0]), mac.i.last.eq(marks[-1][1]), self.sent.valid.eq(marks[-1][2])]
        m.d.comb += self.sent.data.eq(mac.i.data)
        with m.If(started):
            m.d.sync += self.sent.seq.eq(taken["seq"])
        with m.Elif(self.sent.valid):
            m.d.sync += self.sent.seq.eq(self.sent.seq + 1)

        # The ring has what has left. What was begun before a hand-over is none of the session's that begins.
        of_session = Signal()
        with m.If(config.session_enable):
            m.d.sync += of_session.eq(0)
        with m.Elif(session.sent):
            m.d.sync += of_session.eq(1)
        m.d.comb += [
            ring.restart.eq(session.restart), ring.begin.eq(session.load_data),
            ring.write.eq(self.sent.valid & of_session), ring.data.eq(self.sent.data), ring.at.eq(self.sent.seq),
            ring.last.eq(mac.i.last), ring.acked.eq(session.moved), ring.una.eq(status.snd_una),
            ring.rewind.eq(session.rewind), ring.step.eq(session.step),
            session.oldest.eq(ring.oldest), session.shown.eq(ring.valid), session.shown_seq.eq(ring.seq),
        ]

        # The host's packets: one is held until its last byte has been read, or thrown away if the session is gone.
        sending = Signal()
        was_available = Signal()
        refuse = Signal()
        m.d.sync += was_available.eq(host.available)
        with m.If(started & host_now):
            m.d.sync += sending.eq(1)
        with m.Elif(host.release):
            m.d.sync += sending.eq(0)
        m.d.comb += [
            refuse.eq(host.available & ~sending & ~(started & host_now) & (host.kind == SESSION_TX)
                      & ~status.session_up),
            host.release.eq(refuse | (last & is_host)),
            self.session_tx_refused.eq(refuse | (host.bad & (host.kind == SESSION_TX))),
            self.dbg_host_tx_valid.eq(host.available & ~was_available),
            self.dbg_host_tx_kind.eq(host.kind),
            host.i_kind.eq(self.host_tx_kind),
        ]
        connect(m, flipped(self.host_tx), host.i)

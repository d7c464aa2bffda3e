"""The host link: packets on a byte stream, in both directions."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from hdl.control.bank import READ_LATENCY, RegisterBus
from hdl.control.telemetry import record_layout
from hdl.layout import sbe
from hdl.mac.crc import CRC16_INIT, crc16_step
from hdl.mac.stream import Packet
from hdl.net.packet_fifo import PacketFifo

__all__ = ["MAX_PAYLOAD", "START", "Link"]

START = 0xA5            #: first byte of every packet
MAX_PAYLOAD = 1600      #: bytes; a longer length is an error

_LINK = sbe.load("t2q_link")
_HEADER, _TRAILER, _WORD = (_LINK.composites[name] for name in ("LinkHeader", "LinkTrailer", "RegisterWord"))
_WRITE, _READ, _FRAME_TX, _SESSION_TX = (_LINK[name] for name in ("Write", "Read", "FrameTx", "SessionTx"))
_READ_REPLY, _FRAME_RX, _SESSION_RX, _SESSION_SENT = (
    _LINK[name] for name in ("ReadReply", "FrameRx", "SessionRx", "SessionSent"))

# The machines below take start, type, length and CRC in this order, byte by byte.
assert [(f.name, f.size) for f in _HEADER.wire_fields] == [("start", 1), ("type", 1), ("length", 2)]
assert [(f.name, f.size) for f in _TRAILER.wire_fields] == [("crc", 2)]


class _Source(enum.Enum, shape=2):
    REPLY = 0
    SESSION_SENT = 1
    HOST_RX = 2
    TELEMETRY = 3


class Link(wiring.Component):
    """Frames and unframes the packets of schema ``t2q_link``, and executes those that access registers.

    A packet is 0xA5, type, length (16 bits), payload, and a CRC-16/CCITT over type to payload; least significant bytes
    first.

    **From the host.** Nothing of a packet has an effect before its CRC was found right. Write and Read are executed in
    order, a word every four cycles; FrameTx and SessionTx come out of ``host_tx``, after every Write that was before
    them has been executed. A Read is answered before the next one is executed, and while the host does not take the
    answer, nothing that is behind it is executed either.

    **To the host.** Answers to reads go first, then numbers of sent messages, then ``host_rx``, then telemetry. A
    packet that was begun is finished.

    **Bad input**: a packet with a wrong CRC, a length of more than 1600 or that its type cannot have, or of an
    unknown type has no effect and is counted; what follows is searched for the next 0xA5: after a wrong type from
    that byte on, otherwise from the byte after the length or the CRC. Bytes between packets are skipped, uncounted.
    ``rx_restart`` puts an end to a packet that has not come to its end, and counts it.
    If there is no room for a packet, the link waits, but for at most ``patience`` cycles, so that a stuck order port
    cannot hold up a kill command for long; then it drops the packet and counts it.

    Parameters
    ----------
    host_tx_bytes, host_tx_packets : int
        Room for FrameTx and SessionTx packets, powers of two.
    patience : int
        Cycles, a power of two.

    Members
    -------
    rx_data : In(8), rx_valid : In(1), rx_ready : Out(1)
        Bytes from the host. A byte is taken in a cycle in which both are 1.
    rx_restart : In(1)
        What comes from the next cycle on has nothing to do with what came before. No byte is offered in this cycle.
    tx_data : Out(8), tx_valid : Out(1), tx_ready : In(1)
        Bytes to the host, likewise.
    bus : Out(RegisterBus)
        Registers. ``bus.we`` is 1 in the cycle in which a write is executed.
    host_tx : Out(Packet), host_tx_kind : Out(1), host_tx_length : Out(range(host_tx_bytes + 1))
        FrameTx (kind 0) and SessionTx (kind 1) payloads. Kind and length hold for the whole packet.
    host_rx : In(Packet), host_rx_kind : In(1), host_rx_length : In(16)
        FrameRx (kind 0) and SessionRx (kind 1) payloads. Kind and length hold for the whole packet.
    telemetry : In(Packet), telemetry_type : In(8), telemetry_length : In(16)
        Records, with the type that their packet has. Type and length hold for the whole packet.
    session_sent : In(1), session_sent_seq : In(64)
        Strobe: a SessionTx message has left under this number. 16 can wait.
    session_sent_lost : Out(1)
        Strobe for a counter: there were more.
    rx_packets, rx_errors : Out(1)
        Strobes for counters: a packet was accepted; one was dropped.
    """

    def __init__(self, *, host_tx_bytes: int = 4096, host_tx_packets: int = 16, patience: int = 65536):
        if host_tx_bytes < MAX_PAYLOAD:
            raise ValueError(f"host_tx_bytes is {host_tx_bytes}, must hold the longest packet, {MAX_PAYLOAD} bytes")
        if patience < 2 or patience & (patience - 1):
            raise ValueError(f"patience is {patience} cycles, must be a power of two and at least 2")
        self.host_tx_bytes = host_tx_bytes
        self.host_tx_packets = host_tx_packets
        self.patience = patience
        super().__init__({
            "rx_data": In(8),
            "rx_valid": In(1),
            "rx_ready": Out(1),
            "rx_restart": In(1),
            "tx_data": Out(8),
            "tx_valid": Out(1),
            "tx_ready": In(1),
            "bus": Out(RegisterBus),
            "host_tx": Out(Packet),
            "host_tx_kind": Out(1),
            "host_tx_length": Out(range(host_tx_bytes + 1)),
            "host_rx": In(Packet),
            "host_rx_kind": In(1),
            "host_rx_length": In(16),
            "telemetry": In(Packet),
            "telemetry_type": In(8),
            "telemetry_length": In(16),
            "session_sent": In(1),
            "session_sent_seq": In(64),
            "session_sent_lost": Out(1),
            "rx_packets": Out(1),
            "rx_errors": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        # Commands and packets for the order port wait for their CRC in buffers of their own.
        m.submodules.commands = commands = PacketFifo(2048, 16)
        m.submodules.host_tx = host_tx = PacketFifo(self.host_tx_bytes, self.host_tx_packets)
        connect(m, flipped(self.host_tx), host_tx.o)
        m.d.comb += [self.host_tx_kind.eq(host_tx.tag), self.host_tx_length.eq(host_tx.length)]

        executing = Signal()        # a command has been accepted and is not yet done
        reply = Signal(record_layout(_READ_REPLY))
        reply_valid = Signal()
        reply_taken = Signal()
        self._elaborate_receive(m, commands, host_tx, executing)
        self._elaborate_execute(m, commands, executing, reply, reply_valid, reply_taken)
        self._elaborate_transmit(m, reply, reply_valid, reply_taken)
        return m

    def _elaborate_receive(self, m, commands, host_tx, executing):
        data = self.rx_data
        take = self.rx_valid & self.rx_ready
        type_ = Signal(8)
        length = Signal(16)
        left = Signal(range(MAX_PAYLOAD + 1))
        crc = Signal(16)
        crc_low = Signal(8)
        is_command = Signal()
        good = Signal()

        m.d.comb += [
            commands.w_data.eq(data),
            commands.w_tag.eq(type_ == _WRITE.id),
            host_tx.w_data.eq(data),
            host_tx.w_tag.eq(type_ == _SESSION_TX.id),
        ]

        waited = Signal(range(2 * self.patience))
        impatient = waited[-1]
        room = Signal()

        def wait_for(condition):
            m.d.comb += [room.eq(condition), self.rx_ready.eq(condition | impatient)]
            with m.If(condition):
                m.d.sync += waited.eq(0)
            with m.Elif(self.rx_valid & ~impatient):
                m.d.sync += waited.eq(waited + 1)

        covered = Signal()          # the byte counts for the CRC
        with m.If(take & covered):
            m.d.sync += crc.eq(crc16_step(crc, data))

        within = Signal()           # a packet that is not complete

        def may_be_cut():
            m.d.comb += within.eq(1)
            with m.If(self.rx_restart):
                m.next = "searching"

        # Nothing that changes them can happen in the cycle before they are looked at.
        room_command, room_tx = Signal(), Signal()
        m.d.sync += [room_command.eq(commands.w_room),
                     # What was written before must be in force before the order port sees the packet.
                     room_tx.eq(host_tx.w_room & ~executing)]

        with m.FSM(init="searching"):
            with m.State("searching"):
                m.d.comb += self.rx_ready.eq(1)
                with m.If(take & (data == START)):
                    m.d.sync += [crc.eq(CRC16_INIT), waited.eq(0)]
                    m.next = "type"
            with m.State("type"):
                m.d.comb += [self.rx_ready.eq(1), covered.eq(1)]
                m.d.sync += [type_.eq(data), is_command.eq((data == _WRITE.id) | (data == _READ.id))]
                with m.If(take):
                    with m.Switch(data):
                        with m.Case(_WRITE.id, _READ.id, _FRAME_TX.id, _SESSION_TX.id):
                            m.next = "length low"
                        with m.Case(START):     # the one before it was noise
                            m.d.comb += self.rx_errors.eq(1)
                            m.d.sync += crc.eq(CRC16_INIT)
                        with m.Default():
                            m.d.comb += self.rx_errors.eq(1)
                            m.next = "searching"
                may_be_cut()
            with m.State("length low"):
                m.d.comb += [self.rx_ready.eq(1), covered.eq(1)]
                with m.If(take):
                    m.d.sync += length[:8].eq(data)
                    m.next = "length high"
                may_be_cut()
            with m.State("length high"):
                m.d.comb += [self.rx_ready.eq(1), covered.eq(1)]
                whole = Cat(length[:8], data)
                words = (whole - _WRITE.block_length)[:16]
                possible = Signal()
                with m.Switch(type_):
                    with m.Case(_WRITE.id):
                        assert _WORD.size == 4
                        m.d.comb += possible.eq((whole > _WRITE.block_length) & (words[:2] == 0))
                    with m.Case(_READ.id):
                        m.d.comb += possible.eq(whole == _READ.block_length)
                    with m.Default():
                        m.d.comb += possible.eq(whole != 0)
                with m.If(take):
                    m.d.sync += [length[8:].eq(data), left.eq(whole)]
                    with m.If(possible & (whole <= MAX_PAYLOAD)):
                        m.next = "payload"
                    with m.Else():
                        m.d.comb += self.rx_errors.eq(1)
                        m.next = "searching"
                may_be_cut()
            with m.State("payload"):
                m.d.comb += covered.eq(1)
                with m.If(is_command):
                    wait_for(commands.w_ready)
                with m.Else():
                    wait_for(host_tx.w_ready)
                m.d.comb += [commands.w_valid.eq(take & is_command), host_tx.w_valid.eq(take & ~is_command)]
                with m.If(take):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "crc low"
                may_be_cut()
            with m.State("crc low"):
                m.d.comb += self.rx_ready.eq(1)
                with m.If(take):
                    m.d.sync += crc_low.eq(data)
                    m.next = "crc high"
                may_be_cut()
            with m.State("crc high"):
                with m.If(is_command):
                    wait_for(room_command)
                with m.Else():
                    wait_for(room_tx)
                m.d.sync += good.eq((Cat(crc_low, data) == crc) & room)
                with m.If(take):
                    m.next = "verdict"
                may_be_cut()
            with m.State("verdict"):
                m.d.comb += [
                    self.rx_packets.eq(good),
                    self.rx_errors.eq(~good),
                    commands.w_commit.eq(good & is_command),
                    commands.w_discard.eq(~good),
                    host_tx.w_commit.eq(good & ~is_command),
                    host_tx.w_discard.eq(~good),
                ]
                m.next = "searching"

        with m.If(within & self.rx_restart):
            m.d.comb += [self.rx_errors.eq(1), commands.w_discard.eq(1), host_tx.w_discard.eq(1)]

        pending = Signal(range(commands.max_packets + 1))
        done = commands.o.valid & commands.o.ready & commands.o.last
        m.d.sync += pending.eq(pending + commands.w_commit - done)
        with m.If(pending != 0):
            m.d.comb += executing.eq(1)

    def _elaborate_execute(self, m, commands, executing, reply, reply_valid, reply_taken):
        bus = self.bus
        o = commands.o
        is_write = commands.tag[0]
        take = o.valid & o.ready
        root_size = max(_WRITE.block_length, _READ.block_length)
        collected = Signal(8 * max(root_size, _WORD.size))      # the newest byte on top
        index = Signal(range(root_size + 1))
        tag = Signal(8 * _READ["tag"].size)
        waited = Signal(range(READ_LATENCY))

        def root(message, field):
            """A field of the root block of `message`, when its last byte is on the stream."""
            field = message[field]
            bytes_ = Cat(collected, o.data)[-8 * message.block_length:]
            return bytes_[8 * field.offset:8 * field.end]

        with m.If(take):
            m.d.sync += collected.eq(Cat(collected[8:], o.data))
        m.d.sync += [bus.we.eq(0), bus.re.eq(0)]
        with m.If(bus.we):
            m.d.sync += bus.addr.eq(bus.addr + 1)

        with m.FSM(init="root"):
            with m.State("root"):
                # A read has to wait for its predecessor's answer to leave; its bytes wait in the buffer.
                m.d.comb += o.ready.eq(bus.ready & (is_write | ~reply_valid))
                with m.If(take):
                    m.d.sync += index.eq(index + 1)
                    with m.If(is_write & (index == _WRITE.block_length - 1)):
                        m.d.sync += [bus.addr.eq(root(_WRITE, "addr")), index.eq(0)]
                        m.next = "word"
                    with m.If(~is_write & (index == _READ.block_length - 1)):
                        m.d.sync += [bus.addr.eq(root(_READ, "addr")), tag.eq(root(_READ, "tag")), bus.re.eq(1),
                                     index.eq(0)]
                        m.next = "reading"
            with m.State("word"):
                m.d.comb += o.ready.eq(1)
                with m.If(take):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == _WORD.size - 1):
                        m.d.sync += [bus.data.eq(Cat(collected, o.data)[-8 * _WORD.size:]), bus.we.eq(1), index.eq(0)]
                        with m.If(o.last):
                            m.next = "root"
            with m.State("reading"):
                m.d.comb += executing.eq(1)
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == READ_LATENCY - 1):
                    m.d.sync += waited.eq(0)
                    m.next = "read"
            with m.State("read"):
                m.d.comb += executing.eq(1)
                m.d.sync += [reply.tag.eq(tag), reply.addr.eq(bus.addr), reply.data.eq(bus.read_data)]
                m.d.sync += reply_valid.eq(1)
                m.next = "root"
        with m.If(bus.we):
            m.d.comb += executing.eq(1)
        with m.If(reply_taken):
            m.d.sync += reply_valid.eq(0)

    def _elaborate_transmit(self, m, reply, reply_valid, reply_taken):
        m.submodules.sent = sent = SyncFIFOBuffered(width=len(self.session_sent_seq), depth=16)
        sent_record = Signal(record_layout(_SESSION_SENT))
        m.d.comb += [
            sent.w_data.eq(self.session_sent_seq),
            sent.w_en.eq(self.session_sent),
            self.session_sent_lost.eq(self.session_sent & ~sent.w_rdy),
            sent_record.appSeq.eq(sent.r_data),
        ]

        source = Signal(_Source)
        type_ = Signal(8)
        length = Signal(16)
        record = Signal(max(reply.shape().size, sent_record.shape().size))     # payload of a short packet
        left = Signal(range(len(record) // 8 + 1))
        crc = Signal(16)
        last = Signal()
        take = self.tx_valid & self.tx_ready
        covered = Signal()          # the byte counts for the CRC
        with m.If(take & covered):
            m.d.sync += crc.eq(crc16_step(crc, self.tx_data))

        with m.FSM(init="idle"):
            with m.State("idle"):
                m.d.sync += crc.eq(CRC16_INIT)
                with m.If(reply_valid):
                    m.d.comb += reply_taken.eq(1)
                    m.d.sync += [source.eq(_Source.REPLY), type_.eq(_READ_REPLY.id), record.eq(reply.as_value()),
                                 length.eq(_READ_REPLY.block_length), left.eq(_READ_REPLY.block_length)]
                    m.next = "start"
                with m.Elif(sent.r_rdy):
                    m.d.comb += sent.r_en.eq(1)
                    m.d.sync += [source.eq(_Source.SESSION_SENT), type_.eq(_SESSION_SENT.id),
                                 record.eq(sent_record.as_value()), length.eq(_SESSION_SENT.block_length),
                                 left.eq(_SESSION_SENT.block_length)]
                    m.next = "start"
                with m.Elif(self.host_rx.valid):
                    m.d.sync += [source.eq(_Source.HOST_RX), length.eq(self.host_rx_length),
                                 type_.eq(Mux(self.host_rx_kind, _SESSION_RX.id, _FRAME_RX.id))]
                    m.next = "start"
                with m.Elif(self.telemetry.valid):
                    m.d.sync += [source.eq(_Source.TELEMETRY), length.eq(self.telemetry_length),
                                 type_.eq(self.telemetry_type)]
                    m.next = "start"
            with m.State("start"):
                m.d.comb += [self.tx_valid.eq(1), self.tx_data.eq(START)]
                m.d.sync += crc.eq(CRC16_INIT)
                with m.If(take):
                    m.next = "type"
            with m.State("type"):
                m.d.comb += [self.tx_valid.eq(1), covered.eq(1), self.tx_data.eq(type_)]
                with m.If(take):
                    m.next = "length low"
            with m.State("length low"):
                m.d.comb += [self.tx_valid.eq(1), covered.eq(1), self.tx_data.eq(length[:8])]
                with m.If(take):
                    m.next = "length high"
            with m.State("length high"):
                m.d.comb += [self.tx_valid.eq(1), covered.eq(1), self.tx_data.eq(length[8:])]
                with m.If(take):
                    m.next = "payload"
            with m.State("payload"):
                m.d.comb += covered.eq(1)
                with m.Switch(source):
                    with m.Case(_Source.HOST_RX):
                        m.d.comb += [self.tx_valid.eq(self.host_rx.valid), self.tx_data.eq(self.host_rx.data),
                                     last.eq(self.host_rx.last), self.host_rx.ready.eq(self.tx_ready)]
                    with m.Case(_Source.TELEMETRY):
                        m.d.comb += [self.tx_valid.eq(self.telemetry.valid), self.tx_data.eq(self.telemetry.data),
                                     last.eq(self.telemetry.last), self.telemetry.ready.eq(self.tx_ready)]
                    with m.Default():
                        m.d.comb += [self.tx_valid.eq(1), self.tx_data.eq(record[:8]), last.eq(left == 1)]
                with m.If(take):
                    m.d.sync += [record.eq(record >> 8), left.eq(left - 1)]
                    with m.If(last):
                        m.next = "crc low"
            with m.State("crc low"):
                m.d.comb += [self.tx_valid.eq(1), self.tx_data.eq(crc[:8])]
                with m.If(take):
                    m.next = "crc high"
            with m.State("crc high"):
                m.d.comb += [self.tx_valid.eq(1), self.tx_data.eq(crc[8:])]
                with m.If(take):
                    m.next = "idle"

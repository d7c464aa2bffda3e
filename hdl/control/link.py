"""The host link: packets on a byte stream, in both directions."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.bank import READ_LATENCY, RegisterBus
from hdl.control.registers import BY_NAME
from hdl.control.telemetry import record_layout
from hdl.layout import sbe
from hdl.mac.crc import CRC16_INIT, crc16_step
from hdl.mac.stream import Packet
from hdl.net.packet_fifo import PacketFifo

__all__ = ["MAX_PAYLOAD", "START", "Link"]

START = 0xA5            #: first byte of every packet
MAX_PAYLOAD = 1600      #: bytes; a longer length is an error
SENT = 16               # numbers of sent messages that can wait
SECOND = 7              # bit of a packet's first byte in the buffers: Read, not Write, or SessionTx, not FrameTx

_LINK = sbe.load("t2q_link")
_HEADER, _TRAILER, _WORD = (_LINK.composites[name] for name in ("LinkHeader", "LinkTrailer", "RegisterWord"))
_WRITE, _READ, _FRAME_TX, _SESSION_TX = (_LINK[name] for name in ("Write", "Read", "FrameTx", "SessionTx"))
_READ_REPLY, _FRAME_RX, _SESSION_RX, _SESSION_SENT = (
    _LINK[name] for name in ("ReadReply", "FrameRx", "SessionRx", "SessionSent"))

_KILL = BY_NAME["kill"].address

# The machines below take start, type, length and CRC in this order, byte by byte.
assert [(f.name, f.size) for f in _HEADER.wire_fields] == [("start", 1), ("type", 1), ("length", 2)]
assert [(f.name, f.size) for f in _TRAILER.wire_fields] == [("crc", 2)]


class Link(wiring.Component):
    """Frames and unframes the packets of schema ``t2q_link``, and executes those that access registers.

    A packet is 0xA5, type, length (16 bits), payload, and a CRC-16/CCITT over type to payload; least significant bytes
    first.

    **From the host.** Nothing of a packet has an effect before its CRC was found right. Write and Read are executed in
    order, a word every four cycles; FrameTx and SessionTx come out of ``host_tx``, after every Write that was before
    them has been executed. A Read is answered before the next one is executed, and while the host does not take the
    answer, nothing that is behind it is executed either.

    **Fence.** A Write says its writer's epoch. One that is greater than any before, since reset, is the card's
    ``epoch`` from then on. Of a Write with a lower one no word is written, and a FrameTx or SessionTx with a lower one
    is let go: whoever had the card before is locked out, and that is counted. A kill is anyone's: a Write that begins
    at that register writes it, whatever its epoch.

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
    host_tx_bytes : int
        Of the buffer for FrameTx and SessionTx packets, a power of two.
    patience : int
        Cycles, a power of two.

    Members
    -------
    rx_data : In(8), rx_valid : In(1), rx_ready : Out(1)
        Bytes from the host. A byte is taken in a cycle in which both are 1. ``rx_ready`` is a register. It is 0 for a
        cycle or two behind a packet's length and its end.
    rx_restart : In(1)
        What comes from the next cycle on has nothing to do with what came before. No byte is offered in this cycle.
    tx_data : Out(8), tx_valid : Out(1), tx_ready : In(1)
        Bytes to the host, likewise. ``tx_data`` and ``tx_valid`` are registers.
    bus : Out(RegisterBus)
        Registers. ``bus.we`` is 1 in the cycle in which a write is executed.
    host_tx : Out(Packet), host_tx_kind : Out(1)
        FrameTx (kind 0) and SessionTx (kind 1) payloads behind their epoch. The kind holds for the whole packet.
    host_rx : In(Packet), host_rx_kind : In(1), host_rx_length : In(16)
        FrameRx (kind 0) and SessionRx (kind 1) payloads. Kind and length hold for the whole packet.
    telemetry : In(Packet), telemetry_type : In(8), telemetry_length : In(16)
        Records, with the type that their packet has. Type and length hold for the whole packet.
    session_sent : In(1), session_sent_seq : In(64)
        Strobe: a SessionTx message has left under the number that stands in the eight cycles behind it; no other
        strobe before the last of them. 16 can wait.
    session_sent_lost : Out(1)
        Strobe for a counter: there were more.
    epoch : Out(32)
        Greatest epoch of a Write since reset.
    fenced : Out(1)
        Strobe for a counter: a Write, a FrameTx or a SessionTx had a lower one.
    rx_packets, rx_errors : Out(1)
        Strobes for counters: a packet was accepted, before any byte behind it was taken; one was dropped.
    """

    def __init__(self, *, host_tx_bytes: int = 2048, patience: int = 65536):
        if host_tx_bytes < MAX_PAYLOAD:
            raise ValueError(f"host_tx_bytes is {host_tx_bytes}, must hold the longest packet, {MAX_PAYLOAD} bytes")
        if patience < 2 or patience & (patience - 1):
            raise ValueError(f"patience is {patience} cycles, must be a power of two and at least 2")
        self.host_tx_bytes = host_tx_bytes
        self.patience = patience
        super().__init__({
            "rx_data": In(8),
            "rx_valid": In(1),
            "rx_ready": Out(1, init=1),
            "rx_restart": In(1),
            "tx_data": Out(8),
            "tx_valid": Out(1),
            "tx_ready": In(1),
            "bus": Out(RegisterBus),
            "host_tx": Out(Packet),
            "host_tx_kind": Out(1),
            "host_rx": In(Packet),
            "host_rx_kind": In(1),
            "host_rx_length": In(16),
            "telemetry": In(Packet),
            "telemetry_type": In(8),
            "telemetry_length": In(16),
            "session_sent": In(1),
            "session_sent_seq": In(64),
            "session_sent_lost": Out(1),
            "epoch": Out(32),
            "fenced": Out(1),
            "rx_packets": Out(1),
            "rx_errors": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        # Commands and packets for the order port wait for their CRC in buffers of their own, behind a byte of which
        # bit SECOND says what they are.
        m.submodules.commands = commands = PacketFifo(2048)
        m.submodules.host_tx = host_tx = PacketFifo(self.host_tx_bytes)
        assert min(commands.room, host_tx.room) > MAX_PAYLOAD

        executing = Signal()        # a command has been accepted and is not yet done
        reply = Signal(record_layout(_READ_REPLY))      # leaves byte by byte
        reply_valid = Signal()
        reply_next = Signal()       # a byte of it leaves
        reply_done = Signal()       # the last one
        refused, write_fenced = Signal(), Signal()  # a packet for the order port, a Write: strobes
        m.d.comb += self.fenced.eq(refused | write_fenced)
        self._elaborate_receive(m, commands, host_tx, executing, refused)
        self._elaborate_execute(m, commands, executing, reply, reply_valid, reply_next, reply_done, write_fenced)
        self._elaborate_transmit(m, reply, reply_valid, reply_next, reply_done)

        known = Signal()            # the kind of the packet that is shown
        m.d.comb += [
            self.host_tx.data.eq(host_tx.o.data), self.host_tx.last.eq(host_tx.o.last),
            self.host_tx.valid.eq(host_tx.o.valid & known), host_tx.o.ready.eq(self.host_tx.ready | ~known),
        ]
        with m.If(~known):
            m.d.sync += [known.eq(host_tx.o.valid), self.host_tx_kind.eq(host_tx.o.data[SECOND])]
        with m.Elif(self.host_tx.valid & self.host_tx.ready & self.host_tx.last):
            m.d.sync += known.eq(0)
        return m

    def _elaborate_receive(self, m, commands, host_tx, executing, refused):
        # A byte is looked at in the cycle after it was taken, so that `rx_ready` can be a register. It pauses where the
        # next byte cannot be looked at at once.
        take = self.rx_valid & self.rx_ready
        data, got, restart = Signal(8, reset_less=True), Signal(), Signal()
        with m.If(take):
            m.d.sync += data.eq(self.rx_data)
        m.d.sync += [got.eq(take), restart.eq(self.rx_restart)]

        is_command, second = Signal(), Signal()
        left = Signal(16)           # length, and what is to come of it
        final = Signal()            # one byte
        crc = Signal(16)
        good = Signal()
        waited = Signal(range(2 * self.patience))
        impatient = waited[-1]
        pause = Signal()
        waits = Signal()            # for room, or for commands
        m.d.sync += self.rx_ready.eq(~pause & (~waits | impatient))
        with m.If(~waits):
            m.d.sync += waited.eq(0)
        with m.Elif(~impatient):
            m.d.sync += waited.eq(waited + 1)

        covered = Signal()          # the byte counts for the CRC
        with m.If(got & covered):
            m.d.sync += crc.eq(crc16_step(crc, data))

        # What goes to the order port has its writer's epoch in front, which is not kept.
        assert _FRAME_TX.block_length == _SESSION_TX.block_length == _FRAME_TX["epoch"].size == 4
        stated, of_epoch, older = Signal(32), Signal(4), Signal()       # of_epoch: so many of its bytes are to come
        m.d.sync += older.eq(stated < self.epoch)
        with m.If(got & of_epoch.any()):
            m.d.sync += [stated.eq(Cat(stated[8:], data)), of_epoch.eq(of_epoch >> 1)]
        lets_go = Signal()

        fresh, kinds = Signal(), Signal()       # nothing of a packet has been written; its first byte is
        write, keep, commit = Signal(), Signal(), Signal()
        for buffer, ours in ((commands, is_command), (host_tx, ~is_command)):
            # Both are written to, one keeps it.
            m.d.comb += [
                buffer.w_data.eq(data), buffer.w_data[SECOND].eq(data[SECOND] | (kinds & second)),
                buffer.w_valid.eq(write), buffer.w_commit.eq(commit & ours), buffer.w_discard.eq(fresh),
            ]
        room = Mux(is_command, commands.w_ready, host_tx.w_ready)

        def may_be_cut():
            with m.If(restart):
                m.d.comb += self.rx_errors.eq(1)
                m.next = "searching"

        with m.FSM(init="searching"):
            with m.State("searching"):
                m.d.comb += fresh.eq(1)
                m.d.sync += crc.eq(CRC16_INIT)
                with m.If(got & (data == START)):
                    m.next = "type"
            with m.State("type"):
                m.d.comb += covered.eq(data != START)
                m.d.sync += [is_command.eq((data == _WRITE.id) | (data == _READ.id)),
                             second.eq((data == _READ.id) | (data == _SESSION_TX.id))]
                with m.If(got):
                    with m.Switch(data):
                        with m.Case(_WRITE.id, _READ.id, _FRAME_TX.id, _SESSION_TX.id):
                            m.next = "length low"
                        with m.Case(START):     # the one before it was noise
                            m.d.comb += self.rx_errors.eq(1)
                        with m.Default():
                            m.d.comb += self.rx_errors.eq(1)
                            m.next = "searching"
                may_be_cut()
            with m.State("length low"):
                m.d.comb += [covered.eq(1), pause.eq(take & got)]
                with m.If(got):
                    m.d.sync += left[:8].eq(data)
                    m.next = "length high"
                may_be_cut()
            with m.State("length high"):
                m.d.comb += [covered.eq(1), pause.eq(take)]
                with m.If(got):
                    m.d.sync += left[8:].eq(data)
                    m.next = "length"
                may_be_cut()
            with m.State("length"):
                # `data` still is the length's high byte, whose bit SECOND is 0 if the length is possible.
                assert MAX_PAYLOAD >> 8 < 1 << SECOND
                m.d.comb += [kinds.eq(1), write.eq(1)]
                possible = Signal()
                m.d.sync += of_epoch.eq(Mux(is_command, 0, ~0))
                with m.If(~is_command):
                    m.d.comb += possible.eq(_FRAME_TX.block_length < left)
                with m.Elif(second):
                    m.d.comb += possible.eq(left == _READ.block_length)
                with m.Else():
                    assert (_WRITE.block_length, _WORD.size) == (6, 4)
                    m.d.comb += possible.eq(left[3:].any() & (left[:2] == 2))
                m.d.sync += final.eq(left == 1)
                with m.If(possible & (left <= MAX_PAYLOAD)):
                    m.next = "payload"
                with m.Else():
                    m.d.comb += self.rx_errors.eq(1)
                    m.next = "searching"
                may_be_cut()
            with m.State("payload"):
                m.d.comb += [covered.eq(1), waits.eq(~room), write.eq(got & ~of_epoch.any())]
                with m.If(got):
                    m.d.sync += [left.eq(left - 1), final.eq(left == 2)]
                    with m.If(final):
                        m.next = "crc low"
                may_be_cut()
            with m.State("crc low"):
                m.d.comb += pause.eq(take & got)
                m.d.sync += good.eq(data == crc[:8])
                with m.If(got):
                    m.next = "crc high"
                may_be_cut()
            with m.State("crc high"):
                m.d.comb += pause.eq(take | got)
                with m.If(got):
                    m.d.sync += good.eq(good & (data == crc[8:]))
                    m.next = "verdict"
                may_be_cut()
            with m.State("verdict"):
                # What was written before must be in force before the order port sees a packet.
                m.d.comb += [waits.eq(~is_command & executing), pause.eq(1)]
                m.d.sync += [
                    keep.eq(good & ~waits & Mux(is_command, commands.w_room, host_tx.w_room & ~older)),
                    lets_go.eq(good & ~waits & ~is_command & older)]
                with m.If(~waits | impatient):
                    m.next = "commit"
            with m.State("commit"):
                m.d.comb += [commit.eq(keep), refused.eq(lets_go), self.rx_packets.eq(keep | lets_go),
                             self.rx_errors.eq(~keep & ~lets_go)]
                m.next = "searching"

    def _elaborate_execute(self, m, commands, executing, reply, reply_valid, reply_next, reply_done, fenced):
        bus = self.bus
        o = commands.o
        is_read, held = Signal(), Signal()
        m.d.sync += held.eq(is_read & reply_valid)
        take = o.valid & o.ready
        root_size = max(_WRITE.block_length, _READ.block_length)
        collected = Signal(8 * max(root_size, _WORD.size))      # the newest byte on top
        index = Signal(range(root_size + 1))
        tag = Signal(8 * _READ["tag"].size)
        waited = Signal(range(READ_LATENCY))
        # What the writer says is looked at while its first word arrives.
        stated, states, older, first_word = Signal(32), Signal(2), Signal(), Signal()
        is_kill = Signal()
        m.d.sync += [states.eq(states << 1), older.eq(stated < self.epoch), is_kill.eq(bus.addr == _KILL)]
        m.d.comb += fenced.eq(states[1] & older)
        with m.If(states[1] & ~older):
            m.d.sync += self.epoch.eq(stated)

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

        first = Signal()            # between commands
        m.d.sync += executing.eq(commands.busy | ~first | bus.we)
        with m.FSM(init="first"):
            with m.State("first"):
                m.d.comb += [o.ready.eq(1), first.eq(1)]
                m.d.sync += [is_read.eq(o.data[SECOND]), index.eq(0)]
                with m.If(o.valid):
                    m.next = "root"
            with m.State("root"):
                # A read has to wait for its predecessor's answer to leave; its bytes wait in the buffer.
                m.d.comb += o.ready.eq(bus.ready & ~held)
                with m.If(take):
                    m.d.sync += index.eq(index + 1)
                    with m.If(~is_read & (index == _WRITE.block_length - 1)):
                        m.d.sync += [bus.addr.eq(root(_WRITE, "addr")), stated.eq(root(_WRITE, "epoch")),
                                     states.eq(1), first_word.eq(1), index.eq(0)]
                        m.next = "word"
                    with m.If(is_read & (index == _READ.block_length - 1)):
                        m.d.sync += [bus.addr.eq(root(_READ, "addr")), tag.eq(root(_READ, "tag")), bus.re.eq(1)]
                        m.next = "reading"
            with m.State("word"):
                m.d.comb += o.ready.eq(1)
                with m.If(take):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == _WORD.size - 1):
                        m.d.sync += [bus.data.eq(Cat(collected, o.data)[-8 * _WORD.size:]), index.eq(0),
                                     bus.we.eq(~older | (is_kill & first_word)), first_word.eq(0)]
                        with m.If(o.last):
                            m.next = "first"
            with m.State("reading"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == READ_LATENCY - 1):
                    m.d.sync += waited.eq(0)
                    m.next = "read"
            with m.State("read"):
                m.d.sync += [reply.tag.eq(tag), reply.addr.eq(bus.addr), reply.data.eq(bus.read_data)]
                m.d.sync += reply_valid.eq(1)
                m.next = "first"
        with m.If(reply_next):
            m.d.sync += reply.eq(reply.as_value() >> 8)
        with m.If(reply_done):
            m.d.sync += reply_valid.eq(0)

    def _elaborate_sent(self, m, next_, done):
        """Numbers of sent messages, byte by byte: the one that waits longest, and that there is one.

        A byte stands three cycles after the one before it was taken (``next_``), at first with the number.
        """
        size = len(self.session_sent_seq) // 8
        m.submodules.sent = numbers = Memory(shape=8, depth=SENT * size, init=[],
                                             attrs={"no_rw_check": 1, "ram_style": "block"})
        write, read = numbers.write_port(), numbers.read_port(domain="comb")
        count, full, some = Signal(range(SENT + 1)), Signal(), Signal()
        accept = Signal()
        place = write.addr[:(size - 1).bit_length()]
        m.d.comb += [
            self.session_sent_lost.eq(self.session_sent & full), accept.eq(self.session_sent & ~full),
            write.data.eq(self.session_sent_seq.word_select(place, 8)),
        ]
        with m.If(accept):
            m.d.sync += write.en.eq(1)
        with m.Elif(place.all()):
            m.d.sync += write.en.eq(0)
        with m.If(write.en):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(next_):
            m.d.sync += read.addr.eq(read.addr + 1)
        # It counts before it is written: nobody can read as fast as that.
        with m.If(accept & ~done):
            m.d.sync += count.eq(count + 1)
        with m.Elif(done & ~accept):
            m.d.sync += count.eq(count - 1)
        fetched, byte = Signal(8, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [full.eq(count == SENT), some.eq(count.any() & ~done), fetched.eq(read.data), byte.eq(fetched)]
        return byte, some

    def _elaborate_transmit(self, m, reply, reply_valid, reply_next, reply_done):
        sent_next, sent_done = Signal(), Signal()
        sent, sent_waits = self._elaborate_sent(m, sent_next, sent_done)
        stale = Signal(2)           # the byte of a number is not yet the next one
        m.d.sync += stale.eq(Cat(sent_next, stale))

        # The first of these that has something to say goes on. Each says: it has, and then what its packet's type and
        # length are, that there is a byte, the byte, and that it is the last one.
        left = Signal(range(max(_READ_REPLY.block_length, _SESSION_SENT.block_length) + 1))
        sources = (
            (reply_valid, _READ_REPLY.id, _READ_REPLY.block_length, 1, reply.as_value()[:8], left == 1),
            (sent_waits, _SESSION_SENT.id, _SESSION_SENT.block_length, ~stale.any(), sent, left == 1),
            (self.host_rx.valid, Mux(self.host_rx_kind, _SESSION_RX.id, _FRAME_RX.id), self.host_rx_length,
             self.host_rx.valid, self.host_rx.data, self.host_rx.last),
            (self.telemetry.valid, self.telemetry_type, self.telemetry_length,
             self.telemetry.valid, self.telemetry.data, self.telemetry.last),
        )
        speaks = Signal(len(sources))
        pays = Signal(len(sources))     # out its bytes: that is `speaks` while they leave

        def spoken(values):
            """Of the one whose turn it is."""
            return reduce(or_, (Mux(turn, value, 0) for turn, value in zip(speaks, values, strict=True)))

        # What leaves is a register, and the CRC is formed behind it. A second one takes the byte that `tx_ready` comes
        # too late for, so that nothing here depends on it.
        byte, valid, spare, held = Signal(8), Signal(), Signal(8), Signal()
        with m.If(self.tx_ready | ~self.tx_valid):
            m.d.sync += [self.tx_data.eq(Mux(held, spare, byte)), self.tx_valid.eq(held | valid), held.eq(0)]
        with m.Elif(~held):
            m.d.sync += [spare.eq(byte), held.eq(valid)]
        advance = Signal()
        covered = Signal()          # the byte that leaves counts for the CRC
        crc = Signal(16)
        m.d.comb += advance.eq(~held)
        with m.If(valid & ~held & covered):
            m.d.sync += crc.eq(crc16_step(crc, byte))
        m.d.comb += Cat(reply_next, sent_next, self.host_rx.ready, self.telemetry.ready).eq(
            Mux(advance, pays & Cat(1, ~stale.any(), 1, 1), 0))
        m.d.comb += [reply_done.eq(reply_next & (left == 1)), sent_done.eq(sent_next & (left == 1))]

        def say(value, then):
            with m.If(advance):
                m.d.sync += [byte.eq(value), valid.eq(1)]
                m.next = then

        _, types, lengths, valids, bytes_, lasts = zip(*sources, strict=True)
        with m.FSM(init="idle"):
            with m.State("idle"):
                m.d.sync += [crc.eq(CRC16_INIT), covered.eq(0)]
                waiting = Cat(source[0] for source in sources)
                m.d.sync += [speaks.eq(waiting & -waiting), left.eq(Mux(reply_valid, *lengths[:2]))]
                with m.If(advance):
                    m.d.sync += valid.eq(0)
                with m.If(waiting.any()):
                    m.next = "start"
            with m.State("start"):
                say(START, "type")
            with m.State("type"):
                with m.If(advance):
                    m.d.sync += covered.eq(1)
                say(spoken(types), "length low")
            with m.State("length low"):
                say(spoken(Const(v, 16)[:8] if isinstance(v, int) else v[:8] for v in lengths), "length high")
            with m.State("length high"):
                say(spoken(Const(v, 16)[8:] if isinstance(v, int) else v[8:] for v in lengths), "payload")
                with m.If(advance):
                    m.d.sync += pays.eq(speaks)
            with m.State("payload"):
                with m.If(advance):
                    m.d.sync += [byte.eq(spoken(bytes_)), valid.eq(spoken(valids))]
                    with m.If(spoken(valids)):
                        m.d.sync += left.eq(left - 1)
                    with m.If(spoken(Cat(v).all() for v in zip(valids, lasts, strict=True))):
                        m.d.sync += pays.eq(0)
                        m.next = "last"
            with m.State("last"):
                with m.If(advance):
                    m.d.sync += valid.eq(0)
                with m.If(~valid):      # the CRC is whole
                    m.d.sync += [covered.eq(0), byte.eq(crc[:8]), valid.eq(1)]
                    m.next = "crc high"
            with m.State("crc high"):
                say(crc[8:], "idle")

"""CME MDP 3.0: from the bytes of a packet to book entries and ends of event.

The walker takes one byte a cycle and never waits. All offsets come from the schema subset; block lengths come from the
wire, so that a newer schema with longer blocks still parses.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import sbe
from hdl.layout.hardware import FieldCapture

SCHEMA = sbe.load("cme_mdp3")
BOOK_TEMPLATES = (SCHEMA["MDIncrementalRefreshBook32"].id, SCHEMA["MDIncrementalRefreshBook46"].id)
CHANNEL_RESET = SCHEMA["ChannelReset4"].id
_BOOK = SCHEMA["MDIncrementalRefreshBook46"]
_ENTRY = _BOOK.groups["NoMDEntries"]
_PACKET = SCHEMA.composites["PacketHeader"]
_FRAMING = SCHEMA.composites["MessageFraming"]
_HEADER = SCHEMA.composites["messageHeader"]
_INDICATOR = SCHEMA.sets["MatchEventIndicator"]

#: Bytes before the root block of a message.
MESSAGE_PREFIX = _FRAMING.size + _HEADER.size
#: An entry must be at least this long to hold all fields that are read.
MIN_ENTRY = max(f.end for f in _ENTRY.fields.values())
#: Bits of MatchEventIndicator after which the book may be looked at.
PUBLISH_BITS = 1 << _INDICATOR["LastQuoteMsg"] | 1 << _INDICATOR["EndOfEvent"]

for _other in BOOK_TEMPLATES:  # the two templates differ in the exponent of the price only
    _twin = SCHEMA.by_id[_other].groups["NoMDEntries"]
    assert {n: (f.offset, f.size) for n, f in _twin.fields.items()} == \
        {n: (f.offset, f.size) for n, f in _ENTRY.fields.items()}


class Phase(enum.Enum):
    """What the bytes that arrive belong to."""

    IGNORE = 0      #: nothing that matters: between packets, in a duplicate, or after a malformation
    PACKET = 1      #: packet header
    MESSAGE = 2     #: MsgSize and message header
    ROOT = 3        #: root block of a message with a MatchEventIndicator
    DIMENSION = 4   #: group dimension of the book entries
    ENTRY = 5       #: a book entry
    SKIP = 6        #: the rest of a message


class Mdp3Walker(wiring.Component):
    """Walks packets, messages and book entries.

    Members
    -------
    data, valid, first, last : in(8, 1, 1, 1) UDP payload; ``first`` and ``last`` mark its ends.
    length : in(16) payload length, known with ``first``.
    frame_end, frame_ok : in(1, 1) end of a frame whose payload was passed on, and whether it proved good.
    seq : out(32), seq_valid : out(1) sequence number, in the cycle in which its last byte arrives.
    accept : in(1) answer to ``seq_valid`` in the same cycle: walk this packet (else it is ignored).
    security_id : out(32), security_id_valid : out(1) SecurityID of an entry, with its last byte; the value stands from
        the next cycle on. ``security_id_place`` : out(4) the byte of it that arrives, one hot.
    px, size, level, action, entry_type : out(64, 32, 8, 8, 8) fields of an entry, right while ``entry`` is high.
    entry : out(1) the last byte that is needed of an entry arrives (``entry_type``; see ``MIN_ENTRY``).
    publish : out(1) an event ends with the byte that arrives.
    eve : out(1) the byte before the last one that is needed of an entry arrives: ``px``, ``size``, ``level`` stand, and
        ``action`` is on ``data``. ``eve_ends_event`` : out(1) with the next one the event ends.
    trigger_next : out(1) the next byte is the last one that is needed of an entry, if it comes at all.
    publish_entry : out(1) ``publish`` falls on the last entry of a book message: the trigger byte of a quote.
    reset_channel : out(1) a ChannelReset message arrives.
    poisoned : out(1) at ``frame_end``: an accepted packet was cut short, malformed or failed its FCS.
    short : out(1) a packet ended before its sequence number.
    message, book_message : out(1, 1) strobes for counters.

    Latency: none; every strobe rises in the cycle in which the byte it speaks of is on ``data``.

    A message that cannot be right (MsgSize too small or longer than what is left of the packet, root block or entries
    that do not fit, an entry too short for its fields, bytes left over) ends the walk; the packet is ``poisoned`` at
    its end. Templates that are not known are skipped by MsgSize.
    """

    def __init__(self):
        super().__init__({
            "data": In(8), "valid": In(1), "first": In(1), "last": In(1), "length": In(16),
            "frame_end": In(1), "frame_ok": In(1),
            "seq": Out(32), "seq_valid": Out(1), "accept": In(1),
            "security_id": Out(32), "security_id_valid": Out(1), "security_id_place": Out(4),
            "eve": Out(1), "eve_ends_event": Out(1), "trigger_next": Out(1),
            "px": Out(64), "size": Out(32), "level": Out(8), "action": Out(8), "entry_type": Out(8), "entry": Out(1),
            "publish": Out(1), "publish_entry": Out(1), "reset_channel": Out(1),
            "poisoned": Out(1), "short": Out(1), "message": Out(1), "book_message": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        index = Signal(16)      # of the byte on `data` inside its section
        payload_left = Signal(16)   # bytes of the payload after the byte on `data`, from the second byte on
        message_left = Signal(16)   # bytes of the message from the byte on `data` on
        accepted = Signal()
        malformed = Signal()
        walking = Signal()      # between the first and the last byte of an accepted packet
        phase = Signal(Phase)
        m.d.comb += walking.eq(phase != Phase.IGNORE)

        after = Signal(16)      # bytes of the payload after the byte on `data`
        m.d.comb += after.eq(Mux(self.first, self.length - 1, payload_left))
        with m.If(self.valid):
            m.d.sync += payload_left.eq(after - 1)

        m.submodules.packet = packet = FieldCapture({"seq": _PACKET["MsgSeqNum"]})
        m.submodules.framing = framing = FieldCapture({"size": _FRAMING["MsgSize"]})
        m.submodules.header = header = FieldCapture({
            name: _HEADER[name].shifted(_FRAMING.size) for name in ("blockLength", "templateId", "schemaId")})
        m.submodules.dimension = dimension = FieldCapture({
            name: _ENTRY.dimension[name] for name in ("blockLength", "numInGroup")})
        names = {"px": "MDEntryPx", "size": "MDEntrySize", "security_id": "SecurityID", "level": "MDPriceLevel",
                 "action": "MDUpdateAction", "entry_type": "MDEntryType"}
        m.submodules.fields = fields = FieldCapture({short: _ENTRY[name] for short, name in names.items()})
        trigger = max(names, key=lambda short: fields.fields[short].end)
        assert fields.fields["action"].end == fields.fields[trigger].offset and fields.fields[trigger].size == 1
        security = fields.fields["security_id"]
        m.d.comb += self.security_id.eq(fields.value["security_id"])
        captures = (packet, framing, header, dimension, fields)
        for capture in captures:
            m.d.comb += [capture.data.eq(self.data), capture.index.eq(index)]
        with m.If(self.first):      # the section index is registered: a first byte has index 0 whatever went before
            m.d.comb += packet.index.eq(0)

        m.d.comb += self.seq.eq(packet.now["seq"])
        for short in names:
            if short != "security_id":
                m.d.comb += getattr(self, short).eq(fields.now[short] if short == trigger else fields.value[short])

        # What the current template is to us, decided with the last byte of the message header.
        is_book = Signal()
        mei_offset = Signal(8)
        is_reset = Signal()
        template_is_book = Signal()
        template_has_mei = Signal()
        template_mei_offset = Signal(8)
        with m.Switch(header.value["templateId"]):
            for message in SCHEMA.messages.values():
                if "MatchEventIndicator" in message.fields:
                    with m.Case(message.id):
                        m.d.comb += [
                            template_has_mei.eq(header.value["schemaId"] == SCHEMA.id),
                            template_is_book.eq(message.id in BOOK_TEMPLATES),
                            template_mei_offset.eq(message["MatchEventIndicator"].offset),
                        ]
        block_length = header.value["blockLength"]
        entry_length = dimension.value["blockLength"]
        entries_left = Signal(8)    # entries after the one whose bytes arrive
        end_of_event = Signal()

        def stop():
            m.d.sync += malformed.eq(1)
            m.d.sync += phase.eq(Phase.IGNORE)

        def next_message():
            m.d.sync += index.eq(0)
            m.d.sync += phase.eq(Phase.MESSAGE)

        def in_message(otherwise):
            """Advance inside a message; ``otherwise`` acts unless the message ends with this byte."""
            m.d.sync += message_left.eq(message_left - 1)
            with m.If(message_left == 1):
                next_message()
            with m.Else():
                otherwise()

        with m.If(self.valid):
            m.d.sync += index.eq(index + 1)

        with m.Switch(phase):

            def packet_header():
                m.d.comb += packet.en.eq(self.valid)
                with m.If(packet.done["seq"]):
                    m.d.comb += self.seq_valid.eq(1)
                    m.d.sync += accepted.eq(self.accept)
                    with m.If(~self.accept):
                        m.d.sync += phase.eq(Phase.IGNORE)
                with m.If(self.valid & (packet.index == _PACKET.size - 1)):
                    next_message()

            with m.Case(Phase.PACKET):
                packet_header()
            with m.Case(Phase.MESSAGE):
                m.d.comb += [framing.en.eq(self.valid), header.en.eq(self.valid)]
                with m.If(self.valid & (index == MESSAGE_PREFIX - 1)):
                    size = framing.value["size"]
                    body = Signal(16)
                    m.d.comb += body.eq(size - MESSAGE_PREFIX)
                    m.d.sync += [
                        index.eq(0), message_left.eq(body), is_book.eq(template_is_book),
                        mei_offset.eq(template_mei_offset),
                        is_reset.eq(header.value["templateId"] == CHANNEL_RESET),
                    ]
                    needed = Signal(17)     # bytes that the root block and the group dimension take
                    m.d.comb += needed.eq(block_length + Mux(template_is_book, _ENTRY.dimension.size, 0))
                    with m.If((size < MESSAGE_PREFIX) | (body > after)):
                        stop()
                    with m.Elif(template_has_mei & ((block_length <= template_mei_offset) | (needed > body))):
                        stop()
                    with m.Else():
                        m.d.comb += [self.message.eq(1), self.book_message.eq(template_has_mei & template_is_book)]
                        with m.If(body == 0):
                            next_message()
                        with m.Elif(template_has_mei):
                            m.d.sync += phase.eq(Phase.ROOT)
                        with m.Else():
                            m.d.sync += phase.eq(Phase.SKIP)
            with m.Case(Phase.ROOT):
                with m.If(self.valid):
                    at_indicator = index == mei_offset
                    publishes = (self.data & PUBLISH_BITS).any()
                    with m.If(at_indicator):
                        m.d.sync += end_of_event.eq(publishes)
                        m.d.comb += self.reset_channel.eq(is_reset)
                        with m.If(~is_book):
                            m.d.comb += self.publish.eq(publishes)

                    def root():
                        with m.If(~is_book & at_indicator):
                            m.d.sync += phase.eq(Phase.SKIP)
                        with m.Elif(is_book & (index == block_length - 1)):
                            m.d.sync += index.eq(0)
                            m.d.sync += phase.eq(Phase.DIMENSION)
                    in_message(root)
            with m.Case(Phase.DIMENSION):
                m.d.comb += dimension.en.eq(self.valid)
                with m.If(self.valid):
                    complete = index == _ENTRY.dimension.size - 1
                    count = dimension.now["numInGroup"]
                    with m.If(complete & (count == 0)):
                        m.d.comb += self.publish.eq(end_of_event)

                    def first_entry():
                        with m.If(complete):
                            m.d.sync += [index.eq(0), entries_left.eq(count - 1)]
                            with m.If(count == 0):
                                m.d.sync += phase.eq(Phase.SKIP)
                            with m.Elif((entry_length < MIN_ENTRY) | (entry_length > message_left - 1)):
                                stop()
                            with m.Else():
                                m.d.sync += phase.eq(Phase.ENTRY)
                    in_message(first_entry)
                    with m.If(complete & (count != 0) & (message_left == 1)):   # entries announced, none there
                        stop()
            with m.Case(Phase.ENTRY):
                m.d.comb += fields.en.eq(self.valid)
                m.d.comb += self.security_id_valid.eq(fields.done["security_id"])
                m.d.comb += [self.security_id_place[i].eq(self.valid & (index == security.offset + i)) for i in range(4)]
                m.d.comb += [self.eve.eq(fields.done["action"] & (message_left != 1)),
                             self.eve_ends_event.eq((entries_left == 0) & end_of_event)]
                with m.If(fields.done[trigger]):
                    m.d.comb += self.entry.eq(1)
                    with m.If((entries_left == 0) & end_of_event):
                        m.d.comb += [self.publish.eq(1), self.publish_entry.eq(1)]
                with m.If(self.valid):
                    def following():
                        with m.If(index == entry_length - 1):
                            m.d.sync += [index.eq(0), entries_left.eq(entries_left - 1)]
                            with m.If(entries_left == 0):
                                m.d.sync += phase.eq(Phase.SKIP)
                            with m.Elif(entry_length > message_left - 1):
                                stop()
                    in_message(following)
                    with m.If((message_left == 1) & (entries_left != 0)):   # entries announced, none there
                        stop()
            with m.Case(Phase.SKIP):
                with m.If(self.valid):
                    in_message(lambda: None)

        m.d.sync += self.trigger_next.eq(self.eve & ~self.last)

        # The ends of a packet overrule what its bytes ask for.
        with m.If(self.valid & self.first):
            m.d.sync += [index.eq(1), malformed.eq(0), accepted.eq(0)]
            m.d.comb += packet.en.eq(1)
            m.d.sync += phase.eq(Phase.PACKET)
        with m.If(self.valid & self.last):
            whole = Signal()    # the last byte ends a message, or the packet header of an empty packet
            m.d.comb += whole.eq(
                (message_left == 1) & ((phase == Phase.ROOT) | (phase == Phase.SKIP)
                                       | ((phase == Phase.ENTRY) & (entries_left == 0))
                                       | ((phase == Phase.DIMENSION) & (self.data == 0)))
                | (phase == Phase.MESSAGE) & self.message
                | (phase == Phase.PACKET) & (index == _PACKET.size - 1))
            with m.If(walking & ~whole):
                m.d.sync += malformed.eq(1)
            m.d.sync += phase.eq(Phase.IGNORE)
        with m.If(self.frame_end):
            m.d.sync += phase.eq(Phase.IGNORE)

        unfinished = Signal()   # the frame may end before its UDP length says so
        with m.If(self.valid):
            m.d.sync += unfinished.eq(~self.last)
        with m.If(self.frame_end):
            m.d.comb += self.poisoned.eq(accepted & (malformed | unfinished | ~self.frame_ok))
            m.d.sync += [accepted.eq(0), unfinished.eq(0)]
        seen = Signal()
        with m.If(self.valid & self.first):
            m.d.sync += seen.eq(0)
        with m.If(self.seq_valid):
            m.d.sync += seen.eq(1)
        m.d.comb += self.short.eq(self.frame_end & ~seen)
        return m

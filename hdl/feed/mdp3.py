"""CME MDP 3.0: from the bytes of a packet to book entries and ends of event.

The walker takes one byte a cycle and never waits. All offsets come from the schema subset; block lengths come from the
wire, so that a newer schema with longer blocks still parses.
"""

from amaranth import Cat, Module, Mux, Signal
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


#: Bytes of a section (packet header, message prefix, root block, group dimension, entry) that are told apart; behind
#: them nothing is looked at any more.
_PLACES = max(MIN_ENTRY, _PACKET.size, MESSAGE_PREFIX, _ENTRY.dimension.size,
              *(m["MatchEventIndicator"].end for m in SCHEMA.messages.values() if "MatchEventIndicator" in m.fields))


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
    seq : out(32), seq_valid : out(1) sequence number, in the cycle in which the byte after it arrives.
    accept, refuse : in(1, 1) answer to ``seq_valid``, at most seven cycles after it: walk this packet, or ignore it.
    security_id : out(32), security_id_valid : out(1) SecurityID of an entry, with its last byte; the value stands from
        the next cycle on. ``security_id_place`` : out(4) the byte of it that arrives, one hot;
        ``security_id_due`` : out(4) the byte that arrives if one does and it is an entry's, from flip-flops alone.
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

    Latency: none but for ``seq_valid``; every strobe rises in the cycle in which the byte it speaks of is on ``data``.

    A message that cannot be right (MsgSize too small or longer than what is left of the packet, root block or entries
    that do not fit, an entry too short for its fields, bytes left over) ends the walk; the packet is ``poisoned`` at
    its end. Templates that are not known are skipped by MsgSize.
    """

    def __init__(self):
        super().__init__({
            "data": In(8), "valid": In(1), "first": In(1), "last": In(1), "length": In(16),
            "frame_end": In(1), "frame_ok": In(1),
            "seq": Out(32), "seq_valid": Out(1), "accept": In(1), "refuse": In(1),
            "security_id": Out(32), "security_id_valid": Out(1), "security_id_place": Out(4),
            "security_id_due": Out(4),
            "eve": Out(1), "eve_ends_event": Out(1), "trigger_next": Out(1),
            "px": Out(64), "size": Out(32), "level": Out(8), "action": Out(8), "entry_type": Out(8), "entry": Out(1),
            "publish": Out(1), "publish_entry": Out(1), "reset_channel": Out(1),
            "poisoned": Out(1), "short": Out(1), "message": Out(1), "book_message": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        # Whatever takes a comparison or a subtraction is worked out a byte ahead and stands in a flip-flop: with the
        # byte itself there is nothing left but to choose.
        place = Signal(_PLACES)     # of the byte on `data` inside its section, one hot; 0 behind what matters
        payload_left = Signal(16)   # bytes of the payload after the byte on `data`, from the second byte on
        message_left = Signal(16)   # bytes of the message from the byte on `data` on
        message_ends = Signal()     # ... one
        block_left, block_ends = Signal(16), Signal()   # the same of the root block or the entry
        accepted = Signal()
        malformed = Signal()
        walking = Signal()      # between the first and the last byte of an accepted packet
        phase = Signal(Phase)
        m.d.comb += walking.eq(phase != Phase.IGNORE)
        with m.If(self.valid):
            m.d.sync += payload_left.eq(Mux(self.first, self.length, payload_left) - Mux(self.first, 2, 1))

        m.submodules.packet = packet = FieldCapture({"seq": _PACKET["MsgSeqNum"]}, _PLACES)
        m.submodules.framing = framing = FieldCapture({"size": _FRAMING["MsgSize"]}, _PLACES)
        m.submodules.header = header = FieldCapture({
            name: _HEADER[name].shifted(_FRAMING.size) for name in ("blockLength", "templateId", "schemaId")},
            _PLACES)
        m.submodules.dimension = dimension = FieldCapture({
            name: _ENTRY.dimension[name] for name in ("blockLength", "numInGroup")}, _PLACES)
        names = {"px": "MDEntryPx", "size": "MDEntrySize", "security_id": "SecurityID", "level": "MDPriceLevel",
                 "action": "MDUpdateAction", "entry_type": "MDEntryType"}
        m.submodules.fields = fields = FieldCapture({short: _ENTRY[name] for short, name in names.items()},
                                                     _PLACES)
        trigger = max(names, key=lambda short: fields.fields[short].end)
        assert fields.fields["action"].end == fields.fields[trigger].offset
        assert fields.fields[trigger].size == 1
        security = fields.fields["security_id"]
        m.d.comb += self.security_id.eq(fields.value["security_id"])
        captures = (packet, framing, header, dimension, fields)
        for capture in captures:
            m.d.comb += [capture.data.eq(self.data), capture.place.eq(place)]
        with m.If(self.first):      # the place is registered: a first byte is the first whatever went before
            m.d.comb += packet.place.eq(1)

        m.d.comb += self.seq.eq(packet.value["seq"])
        for short in names:
            if short != "security_id":
                m.d.comb += getattr(self, short).eq(fields.now[short] if short == trigger else fields.value[short])

        # What the message is to us: its header comes field by field, and each is weighed as soon as it is there.
        size, block_length = framing.value["size"], header.value["blockLength"]
        entry_length = dimension.value["blockLength"]
        is_book, has_indicator, is_reset, is_ours = Signal(), Signal(), Signal(), Signal()
        body = Signal(16)       # bytes of the message after its header
        body_is_none, body_is_one, too_short, too_long, bad_size, bad_block = (Signal(name=name) for name in (
            "body_is_none", "body_is_one", "too_short", "too_long", "bad_size", "bad_block"))
        block_is_one, needed = Signal(), Signal(17)     # needed: by the root block and the group dimension
        # The template is looked up in two cycles: which one it is, and what that means.
        indicated = [message for message in SCHEMA.messages.values() if "MatchEventIndicator" in message.fields]
        is_template = {message.id: Signal(name=f"is_template_{message.id}") for message in indicated}

        def one_of(messages):
            return Cat(is_template[message.id] for message in messages).any()

        by_offset = {}
        for message in indicated:
            by_offset.setdefault(message["MatchEventIndicator"].offset, []).append(message)
        indicator_at = {offset: Signal(name=f"indicator_at_{offset}") for offset in by_offset}
        book_template = one_of([SCHEMA.by_id[n] for n in BOOK_TEMPLATES])
        m.d.sync += [
            *(flag.eq(header.value["templateId"] == n) for n, flag in is_template.items()),
            *(indicator_at[offset].eq(one_of(messages)) for offset, messages in by_offset.items()),
            is_book.eq(book_template), has_indicator.eq(one_of(indicated)),
            is_reset.eq(header.value["templateId"] == CHANNEL_RESET), is_ours.eq(header.value["schemaId"] == SCHEMA.id),
        ]
        m.d.sync += [
            body.eq(size - MESSAGE_PREFIX), body_is_none.eq(size == MESSAGE_PREFIX),
            body_is_one.eq(size == MESSAGE_PREFIX + 1), too_short.eq(size < MESSAGE_PREFIX),
            too_long.eq(body + 1 >= payload_left),  # for what will be left after the next byte but one
            bad_size.eq(too_short | too_long),
            block_is_one.eq(block_length == 1),
            needed.eq(block_length + Mux(book_template, _ENTRY.dimension.size, 0)),
            bad_block.eq(Cat(flag & (block_length <= offset) for offset, flag in indicator_at.items()).any()
                         | (needed > body)),
        ]
        in_root, skips_to_group = Signal(), Signal()    # as they were when the message began
        entries_left = Signal(8)    # entries after the one whose bytes arrive
        last_entry = Signal()       # ... none
        overruns = Signal()         # the entry that begins is longer than what is left of its message
        begins = Signal()           # the byte is an entry's first one
        end_of_event = Signal()
        m.d.sync += overruns.eq((entry_length >= message_left) | (entry_length < MIN_ENTRY))

        def stop():
            m.d.sync += malformed.eq(1)
            m.d.sync += phase.eq(Phase.IGNORE)

        def next_message():
            m.d.sync += place.eq(1)
            m.d.sync += phase.eq(Phase.MESSAGE)

        def in_message(otherwise):
            """Advance inside a message; ``otherwise`` acts unless the message ends with this byte."""
            m.d.sync += [message_left.eq(message_left - 1), message_ends.eq(message_left == 2)]
            m.d.sync += [block_left.eq(block_left - 1), block_ends.eq(block_left == 2)]
            with m.If(message_ends):
                next_message()
            with m.Else():
                otherwise()

        def begin_entry():
            m.d.sync += [place.eq(1), begins.eq(1), phase.eq(Phase.ENTRY)]
            m.d.sync += [block_left.eq(entry_length), block_ends.eq(0)]

        with m.If(self.valid):
            m.d.sync += begins.eq(0)
            m.d.sync += place.eq(place << 1)

        with m.Switch(phase):
            with m.Case(Phase.PACKET):
                m.d.comb += packet.en.eq(self.valid)
                # The sequence number is looked at with the byte after it.
                with m.If(self.valid & place[_PACKET["MsgSeqNum"].end]):
                    m.d.comb += self.seq_valid.eq(1)
                with m.If(self.valid & place[_PACKET.size - 1]):
                    next_message()
            with m.Case(Phase.MESSAGE):
                m.d.comb += [framing.en.eq(self.valid), header.en.eq(self.valid)]
                with m.If(self.valid & place[MESSAGE_PREFIX - 1]):
                    has_root = has_indicator & is_ours
                    m.d.sync += [
                        place.eq(1), message_left.eq(body), message_ends.eq(body_is_one), block_left.eq(block_length),
                        block_ends.eq(block_is_one), in_root.eq(is_reset), skips_to_group.eq(is_book),
                    ]
                    with m.If(bad_size | (has_root & bad_block)):
                        stop()
                    with m.Else():
                        m.d.comb += [self.message.eq(1), self.book_message.eq(has_root & is_book)]
                        with m.If(body_is_none):
                            next_message()
                        with m.Elif(has_root):
                            m.d.sync += phase.eq(Phase.ROOT)
                        with m.Else():
                            m.d.sync += phase.eq(Phase.SKIP)
            with m.Case(Phase.ROOT):
                with m.If(self.valid):
                    at_indicator = Cat(flag & place[offset] for offset, flag in indicator_at.items()).any()
                    publishes = (self.data & PUBLISH_BITS).any()
                    with m.If(at_indicator):
                        m.d.sync += end_of_event.eq(publishes)
                        m.d.comb += self.reset_channel.eq(in_root)
                        with m.If(~skips_to_group):
                            m.d.comb += self.publish.eq(publishes)

                    def root():
                        with m.If(~skips_to_group & at_indicator):
                            m.d.sync += phase.eq(Phase.SKIP)
                        with m.Elif(skips_to_group & block_ends):
                            m.d.sync += place.eq(1)
                            m.d.sync += phase.eq(Phase.DIMENSION)
                    in_message(root)
            with m.Case(Phase.DIMENSION):
                m.d.comb += dimension.en.eq(self.valid)
                with m.If(self.valid):
                    complete = place[_ENTRY.dimension.size - 1]
                    count = dimension.now["numInGroup"]
                    with m.If(complete & (count == 0)):
                        m.d.comb += self.publish.eq(end_of_event)

                    def first_entry():
                        with m.If(complete):
                            m.d.sync += [entries_left.eq(count - 1), last_entry.eq(count == 1)]
                            begin_entry()
                            with m.If(count == 0):
                                m.d.sync += phase.eq(Phase.SKIP)
                    in_message(first_entry)
                    with m.If(complete & (count != 0) & message_ends):   # entries announced, none there
                        stop()
            with m.Case(Phase.ENTRY):
                m.d.comb += fields.en.eq(self.valid)
                m.d.comb += [self.security_id_place[i].eq(self.valid & place[security.offset + i])
                             for i in range(security.size)]
                m.d.comb += [self.eve.eq(fields.done["action"] & ~message_ends),
                             self.eve_ends_event.eq(last_entry & end_of_event)]
                with m.If(fields.done[trigger]):
                    m.d.comb += self.entry.eq(1)
                    with m.If(last_entry & end_of_event):
                        m.d.comb += [self.publish.eq(1), self.publish_entry.eq(1)]
                with m.If(self.valid):
                    def following():
                        with m.If(block_ends):
                            m.d.sync += [entries_left.eq(entries_left - 1), last_entry.eq(entries_left == 1)]
                            begin_entry()
                            with m.If(last_entry):
                                m.d.sync += phase.eq(Phase.SKIP)
                    in_message(following)
                    with m.If((message_ends & ~last_entry) | (begins & overruns)):
                        stop()
            with m.Case(Phase.SKIP):
                with m.If(self.valid):
                    in_message(lambda: None)

        m.d.comb += self.security_id_due.eq(place[security.offset:security.end])
        m.d.sync += self.trigger_next.eq(self.eve & ~self.last)
        # Whose entry it is starts much: what can be known a byte ahead is.
        security_id_next = Signal()
        with m.If(self.valid):
            m.d.sync += security_id_next.eq(fields.en & place[security.end - 2] & ~message_ends & ~self.last)
        with m.If(self.frame_end):
            m.d.sync += security_id_next.eq(0)
        m.d.comb += self.security_id_valid.eq(self.valid & security_id_next)

        with m.If(self.accept):
            m.d.sync += accepted.eq(1)
        with m.If(self.refuse):
            m.d.sync += phase.eq(Phase.IGNORE)

        # The ends of a packet overrule what its bytes ask for.
        with m.If(self.valid & self.first):
            m.d.sync += [place.eq(2), malformed.eq(0), accepted.eq(0)]
            m.d.comb += packet.en.eq(1)
            m.d.sync += phase.eq(Phase.PACKET)
        with m.If(self.valid & self.last):
            whole = Signal()    # the last byte ends a message, or the packet header of an empty packet
            m.d.comb += whole.eq(
                message_ends & ((phase == Phase.ROOT) | (phase == Phase.SKIP)
                                | ((phase == Phase.ENTRY) & last_entry & ~(begins & overruns))
                                | ((phase == Phase.DIMENSION) & (self.data == 0)))
                | (phase == Phase.MESSAGE) & self.message
                | (phase == Phase.PACKET) & place[_PACKET.size - 1])
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

"""What the exchange answers on the order session: from the bytes of its messages to events.

The walker follows a program: a row says how many bytes come next and which register takes them. The program is made of
the schema, so that no offset stands here.
"""

from dataclasses import dataclass, field

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.layout import sbe
from hdl.mac.stream import Packet
from hdl.order.templates import STARBASE_PROTOCOL_ID

__all__ = ["NO_REASON", "READ", "SKIPPED", "Event", "Kind", "ResponseParser"]

SCHEMA = sbe.load("starbase_orders")
_HEADER = SCHEMA.composites["MessageHeader"]
_DIMENSION = SCHEMA.composites["groupSizeEncoding"]
_RESEND = SCHEMA.sets["flags"]["isResend"]
#: ``bid_reason`` or ``ask_reason`` of a side that was not refused: the null of an int8, as a byte.
NO_REASON = 0x80
_SIDES = {name: SCHEMA.enums["Side"][name] & 0xFF for name in ("BUY", "SELL")}     # as the byte of an int8


class Kind(enum.Enum, shape=4):
    """What an event tells."""

    ACK = 0             #: an entry of a mass quote was answered
    FILL = 1            #: lots of ours traded, at once or out of the book
    REJECT = 2          #: a mass quote or a mass cancel was refused as a whole
    CANCELLED = 3       #: an order left the book without a request
    PLACED = 4          #: a delayed quote came into the book
    MASS_CANCELLED = 5  #: a mass cancel was answered
    MMP_TRIGGERED = 6   #: the exchange's market-maker protection froze a group
    MMP_UNFROZEN = 7    #: ... the group is usable again
    SESSION_REJECT = 8  #: the gateway could not read a message of ours


class Event(data.Struct):
    """One thing that the exchange says. What a ``kind`` does not have says nothing (it is left from events before).

    ``kind``: :class:`Kind`.
    ``id``: quoteId of ACK, of a FILL at once and of the REJECT of a quote; clientOrderId of other FILLs, of CANCELLED
    and PLACED; correlationId of MASS_CANCELLED and of the REJECT of a mass cancel; mmpGroupId of MMP_TRIGGERED and
    MMP_UNFROZEN; refSequenceNumber of SESSION_REJECT.
    ``instrument_id``: of ACK, FILL, CANCELLED, PLACED. ``order_id``: of CANCELLED, PLACED and FILLs out of the book;
    of an ACK ``bid_order_id``, ``ask_order_id``.
    ``side``: 1 sold or to be sold, 0 bought or to be bought; of FILL, PLACED.
    ``price``: exponent -9; of FILL, PLACED.
    ``mantissa``, ``exponent``: quantity, that of the FILL or that of the order that is PLACED.
    ``bid_mantissa``, ``bid_exponent``, ``ask_mantissa``, ``ask_exponent``: quantity that an ACK leaves on each side.
    ``bid_status``, ``ask_status`` (QuoteStatus), ``bid_reason``, ``ask_reason`` (OrderRejectReason): of ACK.
    ``status``: OrderStatus of PLACED.
    ``reason``: of REJECT (MassQuoteRejectReason, MassCancelRejectReason), SESSION_REJECT (RejectReason), CANCELLED and
    PLACED (CancelReason), MMP_TRIGGERED (MmpTriggerType).
    ``flags``: FillFlags of FILLs out of the book, CancelFlags of CANCELLED.
    ``next``: low 32 bits of the number that follows the message's.
    """

    kind: Kind
    id: 64
    instrument_id: 64
    order_id: 64
    bid_order_id: 64
    ask_order_id: 64
    side: 1
    price: signed(64)
    mantissa: signed(64)
    exponent: signed(8)
    bid_mantissa: signed(64)
    bid_exponent: signed(8)
    ask_mantissa: signed(64)
    ask_exponent: signed(8)
    bid_status: 8
    ask_status: 8
    bid_reason: 8
    ask_reason: 8
    status: 8
    reason: 8
    flags: 8
    next: 32


#: Members that no kind has both of: they are one register.
_SHARED = {"bid_mantissa": "mantissa", "bid_exponent": "exponent", "status": "bid_status", "bid_reason": "reason",
           "bid_order_id": "order_id", "ask_order_id": "price"}


@dataclass(frozen=True)
class _Read:
    """What is read of a block: ``fields`` maps members of the event to fields of the block. ``kind``: an event ends
    it, of ``side`` (``None``: as a field says); ``None``: its fields are for the events of the groups."""

    kind: Kind | None
    fields: dict
    side: int | None = None
    groups: dict = field(default_factory=dict)


_LOTS = {"mantissa": "fillQty.mantissa", "exponent": "fillQty.exponent"}
_AT_ONCE = {"instrument_id": "instrumentId", "price": "fillPrice", **_LOTS}
_ORDER = {"id": "clientOrderId", "order_id": "orderId", "instrument_id": "instrumentId"}

#: Messages that are read, and what of them. Groups that are not named are walked, not read; what follows the groups
#: is skipped.
READ = {
    "GapFill": _Read(None, {"gap_to": "newSequenceNumber"}),
    "Reject": _Read(Kind.SESSION_REJECT, {"id": "refSequenceNumber", "reason": "reason"}),
    "MassQuoteResponse": _Read(None, {"id": "quoteId"}, groups={
        "quotes": _Read(Kind.ACK, {
            "instrument_id": "instrumentId",
            **{f"{side}_{ours}": f"{side}{theirs}" for side in ("bid", "ask") for ours, theirs in (
                ("order_id", "OrderId"), ("mantissa", "Qty.mantissa"), ("exponent", "Qty.exponent"),
                ("status", "Status"), ("reason", "RejectReason"))}}),
        "bidFills": _Read(Kind.FILL, _AT_ONCE, side=0),
        "askFills": _Read(Kind.FILL, _AT_ONCE, side=1)}),
    "MassQuoteReject": _Read(Kind.REJECT, {"id": "quoteId", "reason": "reason"}),
    "MassCancelResponse": _Read(Kind.MASS_CANCELLED, {"id": "correlationId"}),
    "MassCancelReject": _Read(Kind.REJECT, {"id": "correlationId", "reason": "reason"}),
    "OrderFilled": _Read(None, {}, groups={
        "fills": _Read(Kind.FILL, {**_ORDER, **_LOTS, "price": "price", "side": "side", "flags": "flags"})}),
    "OrdersCanceled": _Read(None, {}, groups={
        "orders": _Read(Kind.CANCELLED, {**_ORDER, "reason": "cancelReason", "flags": "flags"})}),
    "MassQuoteOrdersPlaced": _Read(None, {}, groups={
        "orders": _Read(Kind.PLACED, {**_ORDER, "price": "price", "mantissa": "quantity.mantissa",
                                      "exponent": "quantity.exponent", "side": "side", "status": "status",
                                      "reason": "cancelReason"})}),
    "MassQuoteMmpTriggered": _Read(Kind.MMP_TRIGGERED, {"id": "mmpGroupId", "reason": "trigger"}),
    "MassQuoteMmpUnfrozen": _Read(Kind.MMP_UNFROZEN, {"id": "mmpGroupId"}),
}

#: Messages that are known and say nothing to the fabric.
SKIPPED = ("LogonConf", "LoggedOut", "Heartbeat", "TestRequest")

# The number of a message is compared as it passes. While the field behind it passes, the number that is expected is
# counted up, a byte at a time.
_STEP = "lastProcessedSeqNo"
assert _HEADER[_STEP].offset == _HEADER["sequenceNumber"].end
assert _HEADER[_STEP].size == _HEADER["sequenceNumber"].size == SCHEMA["GapFill"]["newSequenceNumber"].size
_HEADER_READ = {"protocol": "protocolId", "resend": "flags", "length": "messageLength", "template": "messageTypeId",
                "sequence": "sequenceNumber", "step": _STEP}
_DIMENSION_READ = {"block_length": "blockLength", "entries": "numInGroup"}


class _Part(enum.Enum):
    """What the bytes are of."""

    HEADER = 0
    ROOT = 1
    DIMENSION = 2
    ENTRY = 3


@dataclass(frozen=True)
class _Section:
    """A part of a message: ``start``, its first row; ``size`` in bytes that must be there: of a root block all of it,
    of an entry up to what is read; ``more``: a group follows; ``kind`` and ``side`` as in :class:`_Read`."""

    start: int
    size: int
    more: bool
    kind: Kind | None
    side: int | None


class _Program:
    """Rows (register, bytes, whether they end the part) and sections, from the schema.

    Attributes
    ----------
    rows, sections : lists
    header, dimension : :class:`_Section`
    at : mapping of message name to the number of its root's section; its groups follow it.
    registers : mapping of the name of a register to its bytes.
    """

    def __init__(self):
        self.rows, self.sections, self.at, self.registers = [], [], {}, {}
        self.header = self._section(_HEADER, _Read(None, _HEADER_READ), _HEADER.size)
        self.dimension = self._section(_DIMENSION, _Read(None, _DIMENSION_READ), _DIMENSION.size)
        for name, read in READ.items():
            message, size = SCHEMA[name], SCHEMA[name].block_length
            self.at[name] = len(self.sections)
            groups = list(message.groups.values()) if read.groups else []
            # Nothing is gained by waiting for the end of a root block, unless a group comes behind it.
            end = size if groups else self._end(message, read)
            self.sections.append(self._section(message, read, end, size, bool(groups)))
            for n, group in enumerate(groups):
                assert group.dimension == _DIMENSION
                inner = read.groups.get(group.name, _Read(None, {}))
                self.sections.append(self._section(group, inner, self._end(group, inner), more=n + 1 < len(groups)))

    @staticmethod
    def _end(block, read):
        """Bytes up to the last one that is read; at least one."""
        return max((block[f].end for f in read.fields.values()), default=1)

    def _section(self, block, read, end, size=None, more=False):
        """Rows for the first ``end`` bytes of a block that needs ``size``, by default as many."""
        start, at = len(self.rows), 0
        for name, f in sorted(((name, block[f]) for name, f in read.fields.items()), key=lambda item: item[1].offset):
            register = _SHARED.get(name, name)
            assert self.registers.setdefault(register, f.size) == f.size
            assert f.size == 1 or f.byteorder == "little"
            self._skip(f.offset - at)
            self.rows.append((register, f.size, False))
            at = f.end
        self._skip(end - at)
        self.rows[-1] = (*self.rows[-1][:2], True)
        return _Section(start, end if size is None else size, more, read.kind, read.side)

    def _skip(self, size):
        if size:
            self.rows.append((None, size, False))


def _rom(m, name, shape, rows, at):
    """Row ``at`` of a table, in the same cycle. Of logic: it is small, and a block would be slow."""
    m.submodules[name] = table = Memory(shape=shape, depth=len(rows), init=rows, attrs={"ram_style": "logic"})
    port = table.read_port(domain="comb")
    m.d.comb += port.addr.eq(at)
    return port.data


class _State(enum.Enum):
    LOST = 0        #: nothing is believed until `restart`
    AIM = 1         #: before a part: where its rows begin, whether there is room for it
    BEGIN = 2       #: ... its first row
    TAKE = 3        #: its bytes
    JUDGE = 4       #: behind a header
    COUNT = 5       #: behind a group's dimension or an entry
    REST = 6        #: bytes of an entry behind what is read of it
    SKIP = 7        #: bytes of a message behind what is read of it


class ResponseParser(wiring.Component):
    """Reads the messages of the exchange out of the bytes of its TCP stream.

    A message is walked by messageLength, its groups by their blockLength and numInGroup: longer entries, and whatever
    follows the known groups, are passed over. The length of a root block is not on the wire: it is the schema's.
    Groups that an older version does not have are empty.

    Members
    -------
    i : In(Packet)
        Payload of accepted segments, in order. ``last`` says nothing: messages are cut anywhere.
    restart : In(1)
        Strobe: the byte taken next is the first of a message, and its number is ``next_sequence`` : In(64), unsigned.
        An event that was not taken is withdrawn; a byte taken in this cycle belongs to what went before.
    o : Out(stream of :class:`Event`)
        One event for each entry of a group that :data:`READ` gives a kind, or for the message, in the order of the
        wire. ``valid`` never waits for ``ready``; the payload holds still until it is taken or withdrawn.
    unknown : Out(1)
        Strobe: a message of a template that is neither in :data:`READ` nor :data:`SKIPPED` is passed over. Its number
        counts.
    broken : Out(1)
        Strobe: what follows cannot be trusted. All bytes are swallowed and no event begins until ``restart``. An event
        that stands on ``o`` stays. After reset it is the same without a strobe.

    **Numbers**: a message has the number expected, or it is a repeated one (isResend) with a smaller number and is
    passed over. A GapFill sets the number that is expected next.

    **Bad input** is ``broken``: another number; another protocolId; a messageLength below the header's size, or with
    too little for a root block or a group's dimension; an entry shorter than what is read of it, of no bytes, or longer
    than what is left of its message; a side that is neither BUY nor SELL; a GapFill that goes back. Entries in front
    of the one that does not fit have had their events.

    **Latency**: an event is valid in the cycle after the last byte that it needs was taken, ``broken`` and ``unknown``
    at most four after the one that shows it. A byte a cycle is taken, but none while an event waits, nor in the three
    cycles before a root block, a group's dimension or an entry, nor in up to four before a header.
    """

    def __init__(self):
        super().__init__({
            "i": In(Packet), "restart": In(1), "next_sequence": In(64), "o": Out(stream.Signature(Event)),
            "unknown": Out(1), "broken": Out(1)})

    def elaborate(self, platform):
        m = Module()
        program = _Program()
        names = list(program.registers)
        rows = range(len(program.rows))

        row_shape = data.StructLayout({"after": range(max(size for _, size, _ in program.rows)), "last": 1,
                                       "takes": len(names)})
        section_shape = data.StructLayout({
            "start": rows, "size": range(max(s.size for s in program.sections) + 1), "more": 1, "event": 1,
            "kind": Kind, "sided": 1, "side": 1})

        state, part = Signal(_State), Signal(_Part)
        at = Signal(rows)           # the row after the one that is followed
        row = Signal(row_shape)     # `after`: bytes of it after the one that comes
        number = Signal(range(len(program.sections)))   # of the section: a message's root, or a group of it
        next_row = _rom(m, "rows", row_shape, [
            {"after": size - 1, "last": last, "takes": 1 << names.index(name) if name else 0}
            for name, size, last in program.rows], at)
        section = _rom(m, "sections", section_shape, [
            {"start": s.start, "size": s.size, "more": s.more, "event": s.kind is not None, "kind": s.kind or Kind.ACK,
             "sided": s.side is not None, "side": s.side or 0} for s in program.sections], number)

        byte, taken, took = self.i.data, Signal(), Signal()
        event = self.o.payload
        left = Signal(16)           # bytes of the message after those taken
        none_left, one_left = Signal(), Signal()
        extra = Signal(16)          # bytes of the entry after those taken, or after what is read of it
        short, too_small = Signal(), Signal()
        no_extra, wrong = Signal(), Signal()

        takes = {name: Signal(name=f"takes_{name}") for name in names}
        m.d.comb += [
            self.i.ready.eq(~self.o.valid & ((state == _State.LOST) | (state == _State.TAKE) | (state == _State.REST)
                                             | ((state == _State.SKIP) & ~none_left))),
            taken.eq(self.i.valid & self.i.ready), took.eq(taken & (state == _State.TAKE)),
            *(takes[name].eq(took & row.takes[n]) for n, name in enumerate(names)),
        ]

        # Fields come least significant byte first: each byte is pushed in from above.
        own = {name: Signal(8 * size, name=name) for name, size in program.registers.items()
               if name in ("length", "template", "block_length", "entries")}
        members = {name: _SHARED.get(name, name) for name, _ in data.Layout.cast(Event)}
        held = {name: Signal(8 * program.registers[name], name=f"event_{name}", reset_less=True)
                for name in dict.fromkeys(members.values()) if name not in ("kind", "side", "next")}
        for name, register in (own | held).items():
            with m.If(takes[name]):
                m.d.sync += register.eq(Cat(register[8:], byte))
        m.d.comb += [Value.cast(event[member]).eq(held[name]) for member, name in members.items() if name in held]
        side, side_read = Signal(), Signal()
        with m.If(takes["side"]):
            m.d.sync += side_read.eq(byte == _SIDES["SELL"])
        m.d.comb += event.side.eq(side)

        # The number that is expected goes round by a byte with every byte that it is compared with or counted up by.
        expected = Signal(64)       # behind a header it is that of the message after this one
        m.d.comb += event.next.eq(expected[:32])
        differs, less, carry, is_resend = Signal(), Signal(), Signal(), Signal()
        compared = takes["sequence"] | takes["gap_to"]
        counted = Signal(9)
        m.d.comb += counted.eq(expected[:8] + carry)
        with m.If(compared):
            m.d.sync += [less.eq((byte - expected[:8] - less)[8]), differs.eq(differs | (byte != expected[:8])),
                         carry.eq(~differs & (byte == expected[:8]))]
        with m.If(takes["step"]):
            m.d.sync += carry.eq(counted[8])
        with m.If(compared | takes["step"]):
            m.d.sync += expected.eq(Cat(expected[8:], Mux(takes["gap_to"], byte,
                                                          Mux(takes["step"], counted[:8], expected[:8]))))
        with m.If(takes["resend"]):
            m.d.sync += is_resend.eq(byte[_RESEND])

        # The template is looked up, and the length weighed, while the rest of the header passes.
        is_template = {name: Signal(name=f"is_{name}") for name in (*READ, *SKIPPED)}
        found, is_read, is_known, bad_length = Signal.like(number), Signal(), Signal(), Signal()
        m.d.sync += [
            *(flag.eq(own["template"] == SCHEMA[name].id) for name, flag in is_template.items()),
            found.eq(sum((Mux(is_template[name], n, 0) for name, n in program.at.items()), Value.cast(0))),
            is_read.eq(Cat(is_template[name] for name in READ).any()),
            is_known.eq(Cat(is_template.values()).any()),
            bad_length.eq(own["length"] < _HEADER.size),
        ]

        m.d.sync += [none_left.eq(left == 0), one_left.eq(left == 1)]
        with m.If(part == _Part.HEADER):
            m.d.sync += [left.eq(own["length"] - _HEADER.size), number.eq(found)]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), none_left.eq(one_left), one_left.eq(left == 2)]

        # Before each part: is there as much as it needs? By then the section has been the same for a while.
        size = Signal.like(section.size)
        m.d.sync += size.eq(section.size)
        needs = Mux(part == _Part.ENTRY, own["block_length"],
                    Mux(part == _Part.DIMENSION, program.dimension.size, size))
        beyond = own["block_length"] - size

        def breaks():
            m.d.sync += [self.broken.eq(1), state.eq(_State.LOST)]

        def begins(what):
            m.d.sync += [part.eq(what), state.eq(_State.AIM)]

        def group_or_rest():
            with m.If(section.more):
                m.d.sync += number.eq(number + 1)
                begins(_Part.DIMENSION)
            with m.Else():
                m.d.sync += state.eq(_State.SKIP)

        m.d.sync += [self.broken.eq(0), self.unknown.eq(0)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.Switch(state):
            with m.Case(_State.AIM):
                m.d.sync += [short.eq(left < needs), too_small.eq(beyond[16]), extra.eq(beyond),
                             at.eq(section.start), less.eq(0), differs.eq(0), state.eq(_State.BEGIN)]
                with m.If(part == _Part.HEADER):
                    m.d.sync += at.eq(program.header.start)
                with m.If(part == _Part.DIMENSION):
                    m.d.sync += at.eq(program.dimension.start)
            with m.Case(_State.BEGIN):
                m.d.sync += [row.eq(next_row), at.eq(at + 1), no_extra.eq(extra == 0), state.eq(_State.TAKE)]
                with m.If(part != _Part.HEADER):
                    with m.If((part == _Part.DIMENSION) & none_left):   # an older version of the message
                        m.d.sync += state.eq(_State.SKIP)
                    with m.Elif(short | ((part == _Part.ENTRY) & too_small)):
                        breaks()
            with m.Case(_State.TAKE):
                with m.If(taken):
                    m.d.sync += row.after.eq(row.after - 1)
                    with m.If(row.after == 0):
                        m.d.sync += [row.eq(next_row), at.eq(at + 1)]
                        with m.If(row.last):
                            with m.Switch(part):
                                with m.Case(_Part.HEADER):
                                    m.d.sync += state.eq(_State.JUDGE)
                                with m.Case(_Part.ROOT):
                                    group_or_rest()
                                with m.Case(_Part.DIMENSION):
                                    m.d.sync += state.eq(_State.COUNT)
                                with m.Case(_Part.ENTRY):
                                    m.d.sync += own["entries"].eq(own["entries"] - 1)
                                    m.d.sync += state.eq(Mux(no_extra, _State.COUNT, _State.REST))
                            with m.If(((part == _Part.ROOT) | (part == _Part.ENTRY)) & section.event):
                                m.d.sync += [self.o.valid.eq(1), event.kind.eq(section.kind),
                                             side.eq(Mux(section.sided, section.side, side_read))]
            with m.Case(_State.JUDGE):
                m.d.sync += less.eq(0)
                with m.If(bad_length | (differs & ~(is_resend & less))):
                    breaks()
                with m.Elif(~differs & is_read):
                    begins(_Part.ROOT)
                with m.Else():
                    m.d.sync += [part.eq(_Part.ROOT), state.eq(_State.SKIP), self.unknown.eq(~differs & ~is_known)]
            with m.Case(_State.COUNT):
                with m.If(own["entries"] == 0):
                    group_or_rest()
                with m.Else():
                    begins(_Part.ENTRY)
            with m.Case(_State.REST):
                with m.If(taken):
                    m.d.sync += extra.eq(extra - 1)
                    with m.If(extra == 1):
                        m.d.sync += state.eq(_State.COUNT)
            with m.Case(_State.SKIP):
                with m.If(none_left | (taken & one_left)):
                    begins(_Part.HEADER)
                with m.If(less):    # of a GapFill
                    breaks()
        # What a byte must not be is known a cycle after it: by then the next one may have ended an entry.
        m.d.sync += wrong.eq((takes["protocol"] & (byte != STARBASE_PROTOCOL_ID))
                             | (takes["side"] & (byte != _SIDES["BUY"]) & (byte != _SIDES["SELL"])))
        with m.If(wrong):
            m.d.sync += self.o.valid.eq(0)
            breaks()
        with m.If(self.restart):
            m.d.sync += [expected.eq(self.next_sequence), wrong.eq(0), self.o.valid.eq(0), self.broken.eq(0),
                         self.unknown.eq(0)]
            begins(_Part.HEADER)
        return m

"""Records of decisions and events, for the host."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from hdl.layout import sbe
from hdl.mac.stream import Packet
from hdl.memory import BLOCK

__all__ = ["DECISION", "EVENT", "EventInput", "Telemetry", "record_layout"]


def record_layout(message) -> data.FlexibleLayout:
    """Layout of a message of fixed length, with its bytes in the order of the wire from the least significant one on.

    Every field of the message is a member under its own name. Raises ``ValueError`` for a message that a record cannot
    hold: one with groups or variable-length data, or with big-endian fields.
    """
    if message.groups or message.data:
        raise ValueError(f"{message.name} has groups or variable-length data, a record has fixed-length fields only")
    members = {}
    for field in message.fields.values():
        if field.size > 1 and field.byteorder != "little":
            raise ValueError(f"{message.name}.{field.name} is {field.byteorder} endian, must be little")
        shape = (signed if field.signed else unsigned)(8 * field.size)
        members[field.name] = data.Field(shape, 8 * field.offset)
    return data.FlexibleLayout(8 * message.block_length, members)


_LINK = sbe.load("t2q_link")
_DECISION, _EVENT = _LINK["Decision"], _LINK["Event"]
_CODES = _LINK.enums["EventCode"]
_OVERFLOW = "TELEMETRY_OVERFLOW"
WORD = 32       # bits that are stored a cycle
STAMP = 33      # bits of the cycle that are kept with an event that waits

DECISION = record_layout(_DECISION)     #: a Decision; ``sequence`` is filled in by :class:`Telemetry`
EVENT = record_layout(_EVENT)           #: an Event

#: One kind of event. Members: ``strobe`` : Out(1), it happens in this cycle; ``data`` : Out(32), what about it.
EventInput = Signature({"strobe": Out(1), "data": Out(32)})


class Telemetry(wiring.Component):
    """Keeps records until the host link takes them, and never makes their producers wait.

    Decisions and events share one sequence of numbers, in which every record counts, lost ones too: a number that is
    missing at the host is a record that was lost. As soon as there is room again, an event TELEMETRY_OVERFLOW follows,
    whose data is the number of records lost since the last one.

    **Latency**: the first byte of a decision is on ``o`` 7 cycles after its strobe, that of an event 9 cycles, if
    nothing was waiting.

    **Rate**: a record is stored a word of 32 bits a cycle. While that is done one more decision can wait, so two may
    follow one another at once, and then one in every 20 cycles; a third one in between is lost. Of one kind of event
    that happens again while the first still waits to be stored, the last one is kept and the others count as lost.

    **Order**: records keep the order in which they happened, save that a decision goes before events that wait, and
    those go by their codes. The cycle of an event is right unless it had to wait for 2^32 cycles.

    Parameters
    ----------
    depth : int
        Decisions of room, at least 4, rounded up to what the memory holds.

    Members
    -------
    cycle : In(64)
        The present cycle, for events.
    decision_valid : In(1), decision : In(DECISION)
        Strobe: a decision. Its ``sequence`` is ignored. The strobe may come late in its cycle.
    events : In(Signature)
        An :data:`EventInput` for every code of the schema but TELEMETRY_OVERFLOW, under its name in lower case.
    lost : Out(1)
        Strobe for a counter: one record or more was lost in the cycle before.
    o : Out(Packet)
        Payloads of link packets.
    o_type : Out(8), o_length : Out(16)
        Type (message id) and length of the packet on ``o``, while ``o.valid``.
    """

    def __init__(self, depth: int = 64):
        if depth < 4:
            raise ValueError(f"depth is {depth} records, must be at least 4")
        self.depth = depth
        super().__init__({
            "cycle": In(64),
            "decision_valid": In(1),
            "decision": In(DECISION),
            "events": In(Signature({name.lower(): Out(EventInput) for name in _CODES if name != _OVERFLOW})),
            "lost": Out(1),
            "o": Out(Packet),
            "o_type": Out(8),
            "o_length": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        words = [-(-layout.size // WORD) for layout in (DECISION, EVENT)]
        most = max(words)
        size = 1 << (self.depth * most + 2).bit_length()

        sequence = Signal(32)
        lost = Signal(range(len(_CODES) + 1))       # in the cycle before
        missing = Signal(32)                        # lost since the last TELEMETRY_OVERFLOW
        store = Signal()                            # a record starts to be stored, under number `sequence`
        ready, ready_next = Signal(), Signal()      # it could
        m.d.sync += ready.eq(ready_next)

        # A decision: taken in every cycle in which there is room for one, so that its strobe has few registers to
        # reach, and so that hundreds of clock enables come from one.
        decision = Signal(DECISION)
        decision_full, decision_full_next = Signal(), Signal()
        room = Signal(init=1)       # no decision waits, or it is being stored
        m.d.comb += decision_full_next.eq(~room | self.decision_valid)
        m.d.sync += [decision_full.eq(decision_full_next), room.eq(~decision_full_next | ready_next)]
        with m.If(room):
            m.d.sync += decision.eq(self.decision)
        losses = [self.decision_valid & ~room]

        # Events wait in a place of their own, one for each kind. The first by its code is chosen, then moved.
        event = Signal(EVENT)
        event_full, event_done = Signal(), Signal()
        names = sorted(_CODES, key=_CODES.get)
        waiting, choice = Signal(len(names)), Signal(len(names))
        choosing = choice.any()
        # The high word of an event's cycle is the present one, or the one before it: the low bit tells.
        high_before = Signal(32)
        with m.If(self.cycle[:32].all()):
            m.d.sync += high_before.eq(self.cycle[32:])
        stamp = self.cycle[:STAMP]
        values = {}
        for n, name in enumerate(names):
            if name == _OVERFLOW:
                with m.If(choice[n]):
                    m.d.sync += [waiting[n].eq(0), missing.eq(lost)]
                with m.Else():
                    m.d.sync += missing.eq(missing + lost)
                    with m.If(lost.any() | missing.any()):
                        m.d.sync += waiting[n].eq(1)
                values[name] = missing, stamp
                continue
            source = getattr(self.events, name.lower())
            values[name] = Signal(32, name=f"{name.lower()}_data"), Signal(STAMP, name=f"{name.lower()}_stamp")
            with m.If(choice[n]):
                m.d.sync += waiting[n].eq(0)
            with m.If(source.strobe):
                m.d.sync += [waiting[n].eq(1), values[name][0].eq(source.data), values[name][1].eq(stamp)]
            losses.append(source.strobe & waiting[n] & ~choice[n])
        m.d.sync += choice.eq(0)
        with m.If(~choosing & ~event_full):
            m.d.sync += choice.eq(waiting & -waiting)
        event_full_next = Signal()
        m.d.comb += event_full_next.eq(choosing | (event_full & ~event_done))
        m.d.sync += event_full.eq(event_full_next)
        chosen = Signal(STAMP)
        m.d.comb += chosen.eq(_one_of(choice, [values[name][1] for name in names]))
        with m.If(choosing):
            m.d.sync += [
                event.code.eq(_one_of(choice, [_CODES[name] for name in names])),
                event.data.eq(_one_of(choice, [values[name][0] for name in names])),
                event.cycle.eq(Cat(chosen[:32], Mux(chosen[32] == self.cycle[32], self.cycle[32:], high_before))),
            ]

        m.d.sync += [lost.eq(sum(losses)), sequence.eq(sequence + (lost + store))]
        m.d.comb += self.lost.eq(lost.any())

        # Storing: a word a cycle, its number first. A decision moves on before that, an event stays where it is.
        m.submodules.records = records = Memory(shape=WORD + 2, depth=size, init=[], attrs=BLOCK)
        write, read = records.write_port(), records.read_port(domain="comb")
        number, stored = Signal(32), Signal(DECISION)
        left = Signal(range(most + 1))              # words
        kind = Signal()                             # it is an event
        writing = Signal()                          # `left` is not 0
        used = Signal(range(size + 1))              # words in the memory
        fetch = Signal()
        m.d.comb += [
            # `used` may lack three words by then: this cycle's, the one before it and the next one's.
            ready_next.eq(Mux(writing, left == 1, ~store) & (used <= size - most - 3)),
            # The next one is chosen and moved just behind the last word.
            event_done.eq(writing & kind & (left == 3)),
            store.eq(ready & (decision_full | event_full)),
        ]
        # A word goes to the memory a cycle after it was put together.
        m.d.sync += [write.data[WORD:].eq(Cat(kind, left == 1)), write.en.eq(writing)]
        with m.If(write.en):
            m.d.sync += write.addr.eq(write.addr + 1)
        writing_next = Signal()
        moves = Signal()            # a decision is there, and nothing is being stored: the clock enable of `stored`
        m.d.comb += writing_next.eq(Mux(writing, left != 1, store))
        m.d.sync += [writing.eq(writing_next), moves.eq(~writing_next & decision_full_next)]
        with m.If(moves):
            m.d.sync += stored.eq(decision)
        with m.If(writing):
            m.d.sync += left.eq(left - 1)
        with m.Elif(store):
            m.d.sync += [left.eq(Mux(decision_full, words[0], words[1])), kind.eq(~decision_full), number.eq(sequence)]
        m.d.sync += used.eq(used + write.en - fetch)

        # Each word has a register that says that it is its turn.
        assert DECISION["sequence"] == EVENT["sequence"] == data.Field(unsigned(WORD), 0)
        first = Signal()
        m.d.sync += first.eq(store)
        turns = [first & ~kind, first & kind]
        parts = [Mux(first, number, 0)]
        for record, turn, count in zip((stored, event), turns, words, strict=True):
            for n in range(1, count):
                before, turn = turn, Signal(name=f"turn_{count}_{n}")
                m.d.sync += turn.eq(before)
                parts.append(Mux(turn, record.as_value()[WORD * n:WORD * (n + 1)], 0))
        m.d.sync += write.data[:WORD].eq(reduce(or_, parts))

        # Showing: one word is shown, a byte at a time, and the next one is fetched meanwhile.
        fetched, waits = Signal(), Signal()         # from the memory; in `upcoming`
        word, upcoming = (Signal(WORD + 2, name=name, reset_less=True) for name in ("word", "upcoming"))
        current = Signal(WORD + 2)
        bytes_left = Signal(range(WORD // 8 + 1))   # of the current word
        done = Signal()                             # the current word makes place for the next one
        final = current[WORD + 1]
        tails = [(message.block_length - 1) % (WORD // 8) + 1 for message in (_DECISION, _EVENT)]
        m.d.comb += [
            fetch.eq((used != 0) & ~fetched & ~waits),
            self.o.valid.eq(bytes_left != 0),
            self.o.data.eq(current[:8]),
            self.o.last.eq(final & (bytes_left == 1)),
            self.o_type.eq(Mux(current[WORD], _EVENT.id, _DECISION.id)),
            self.o_length.eq(Mux(current[WORD], _EVENT.block_length, _DECISION.block_length)),
            done.eq((bytes_left == 0) | (self.o.ready & (bytes_left == 1))),
        ]
        m.d.sync += fetched.eq(fetch)
        with m.If(fetch):
            m.d.sync += [read.addr.eq(read.addr + 1), word.eq(read.data)]
        with m.If(fetched):     # block memory is slow: no time for anything in between
            m.d.sync += [upcoming.eq(word), waits.eq(1)]
        with m.If(done):
            with m.If(waits):
                m.d.sync += [current.eq(upcoming), waits.eq(0)]
            with m.If(~waits):
                m.d.sync += bytes_left.eq(0)
            with m.Elif(~upcoming[WORD + 1]):
                m.d.sync += bytes_left.eq(WORD // 8)
            with m.Else():
                m.d.sync += bytes_left.eq(Mux(upcoming[WORD], tails[1], tails[0]))
        with m.Elif(self.o.ready):
            m.d.sync += [current[:WORD].eq(current[8:WORD]), bytes_left.eq(bytes_left - 1)]

        return m


def _one_of(choice, values):
    """The value whose bit of ``choice`` is 1."""
    return reduce(or_, (Mux(bit, value, 0) for bit, value in zip(choice, values, strict=True)))

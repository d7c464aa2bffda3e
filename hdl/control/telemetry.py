"""Records of decisions and events, for the host."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from hdl.control.registers import MASS_CANCEL_INSTRUMENT
from hdl.layout import sbe
from hdl.mac.stream import Packet
from hdl.memory import BLOCK

__all__ = ["DECISION", "EventInput", "Telemetry", "record_layout"]


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
_CODES, _OUTCOMES = _LINK.enums["EventCode"], _LINK.enums["Outcome"]
_DIRECT = _LINK.sets["DecisionFlags"]["direct"]
_OVERFLOW = "TELEMETRY_OVERFLOW"
WORD = 32       # bits that are stored a cycle
#: Bits of a cycle that are kept with what waits; the others are made of the present cycle.
STAMP = 10

DECISION = record_layout(_DECISION)     #: a Decision; see :class:`Telemetry` for the fields that it fills in itself

#: One kind of event. Members: ``strobe`` : Out(1), it happens in this cycle; ``data`` : Out(32), what about it.
EventInput = Signature({"strobe": Out(1), "data": Out(32)})

_FRAME = ("SENT", "PULLED")     # outcomes of decisions that have a frame
_SENT_ONLY = ("quoteId", "bidTicks", "askTicks", "bidLots", "askLots")


class Telemetry(wiring.Component):
    """Keeps records until the host link takes them, and never makes their producers wait.

    Decisions and events share one sequence of numbers, in which every record counts, lost ones too: a number that is
    missing at the host is a record that was lost. As soon as there is room again, an event TELEMETRY_OVERFLOW follows,
    whose data is the number of records lost since the last one, and whose cycle is the one in which it is stored.

    **Latency**: the first byte of a decision is on ``o`` 9 cycles after its strobe, that of a mass cancel 10 cycles,
    that of an event 11 cycles, if nothing was waiting.

    **Rate**: a record is stored a word of 32 bits a cycle; meanwhile one decision, one mass cancel and one event of
    each kind can wait. So two decisions may follow one another after 3 cycles, and then one in every 30; one in
    between is lost. Of a mass cancel or one kind of event that happens again before the first one is stored, the first
    one is kept and the others count as lost. Nothing waits for the host: what comes while there is no room is lost.

    **Order**: decisions and mass cancels keep the order in which they happened. They go before events that wait, but
    not two of them before the same event; those go by their codes.

    Parameters
    ----------
    depth : int
        Decisions of room, at least 4, rounded up to what the memory holds.

    Members
    -------
    cycle : In(64)
        The present cycle. It has counted for half a period of :data:`STAMP` bits when the first record comes, or
        started at 0.
    decision_valid : In(1), decision : In(DECISION)
        Strobe: a decision, not MASS_CANCEL. Its ``sequence`` and ``quoteId`` are ignored, and of its cycles all but the
        low :data:`STAMP` bits: they lie at most 100 cycles back. Told as 0 are ``triggerCycle`` where the flag
        ``direct`` is not set, and where the outcome is neither SENT nor PULLED ``quoteId`` and ticks and lots of
        bid and ask.
    mass_cancel : In(EventInput), mass_cancel_state : In(8)
        Strobe: a mass cancel starts in this cycle, ``data`` is its ``feedSeq``. Told as a decision, with the present
        cycle as ``fireCycle``; all that this does not mention is 0.
    quote_id : In(64)
        ``quoteId`` of the decision or mass cancel whose frame was the last one. It holds for the 75 cycles after the
        strobe.
    events : In(Signature)
        An :data:`EventInput` for every code of the schema but TELEMETRY_OVERFLOW, under its name in lower case.
    lost : Out(1)
        Strobe for a counter: one record or more was lost.
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
            "mass_cancel": In(EventInput),
            "mass_cancel_state": In(8),
            "quote_id": In(64),
            "events": In(Signature({name.lower(): Out(EventInput) for name in _CODES if name != _OVERFLOW})),
            "lost": Out(1),
            "o": Out(Packet),
            "o_type": Out(8),
            "o_length": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        decision_words, rest = divmod(_DECISION.block_length, WORD // 8)
        event_words = 5     # number, code, data, cycle
        assert not rest
        assert [(f.name, f.size) for f in _EVENT.fields.values()] == [
            ("sequence", 4), ("code", 1), ("data", 4), ("cycle", 8)]
        write, room = self._elaborate_memory(m, decision_words)

        # What waits. A kind takes in what is offered until something has happened.
        names = sorted(_CODES, key=_CODES.get)
        kinds = ["decision", "mass_cancel", *names]
        waiting, chosen = ({kind: Signal(name=f"{kind.lower()}_{what}") for kind in kinds}
                           for what in ("waiting", "chosen"))
        done, taken = Signal(), Signal()    # the record that was chosen is dealt with; `missing` is taken
        losses = []
        # A decision that begins to be stored makes place for the next one at once: what is told early of it is taken in
        # the cycle after, and the later words of the next one go to another row of their memories.
        early = Signal(DECISION, name="early", reset_less=True)
        row, stored_row = Signal(), Signal(init=1)      # of what is taken in, and of what is being stored
        stamps, values, begins = {}, {}, Signal()
        with m.If(~waiting["decision"]):
            m.d.sync += [waiting["decision"].eq(self.decision_valid), early.eq(self.decision)]
        with m.If(begins & chosen["decision"]):
            m.d.sync += [waiting["decision"].eq(0), row.eq(stored_row), stored_row.eq(row)]
        losses.append(self.decision_valid & waiting["decision"])
        state, held = Signal(8, reset_less=True), {}    # what is held waits a cycle later
        for kind in kinds[1:]:
            if kind == _OVERFLOW:
                continue
            source = self.mass_cancel if kind == "mass_cancel" else getattr(self.events, kind.lower())
            stamps[kind], values[kind] = (Signal(width, name=f"{kind.lower()}_{what}", reset_less=True)
                                          for width, what in ((STAMP, "stamp"), (32, "data")))
            held[kind] = Signal(name=f"{kind.lower()}_held")
            m.d.sync += waiting[kind].eq(held[kind])
            with m.If(~held[kind]):
                m.d.sync += [held[kind].eq(source.strobe), values[kind].eq(source.data), stamps[kind].eq(self.cycle)]
            with m.If(done & chosen[kind]):
                m.d.sync += [held[kind].eq(0), waiting[kind].eq(0)]
            losses.append(source.strobe & held[kind])
        with m.If(~held["mass_cancel"]):
            m.d.sync += state.eq(self.mass_cancel_state)
        cancel_first = Signal()     # it happened before the decision
        with m.If(self.decision_valid & ~waiting["decision"]):
            m.d.sync += cancel_first.eq(held["mass_cancel"])

        # Which one is next.
        free, drops = Signal(init=1), Signal()
        resting = Signal()          # what waits is looked at a cycle ahead, and has to be up to date
        events_turn, event_waits = Signal(), Signal()
        first = {name: Signal(name=f"{name.lower()}_first") for name in names}
        wants = Signal(len(names))
        m.d.comb += wants.eq(Cat(waiting[name] & room if name == _OVERFLOW else waiting[name] for name in names))
        m.d.sync += [event_waits.eq(wants.any()), *(
            first[name].eq(wants[n] & ~wants[:n].any()) for n, name in enumerate(names))]
        others = ~(events_turn & event_waits)
        picks = {"decision": waiting["decision"] & others & ~(cancel_first & waiting["mass_cancel"])}
        picks["mass_cancel"] = waiting["mass_cancel"] & others & (cancel_first | ~waiting["decision"])
        before = (waiting["decision"] | waiting["mass_cancel"]) & others
        for name in names:
            picks[name] = first[name] & ~before & (room if name == _OVERFLOW else 1)
        picked = before | (event_waits & ~(first[_OVERFLOW] & ~room))
        turns = Signal(decision_words)      # the word, one hot
        is_event = Signal()
        last = (turns[event_words - 1] & is_event) | turns[decision_words - 1]
        m.d.comb += [begins.eq(turns[0] | drops), done.eq(last | drops)]
        m.d.sync += [turns.eq(Mux(last, 0, turns << 1)), drops.eq(0)]
        with m.If(free):
            m.d.sync += [
                *(chosen[kind].eq(picks[kind]) for kind in kinds),
                is_event.eq(~before),
                free.eq(~picked), turns[0].eq(picked & room), drops.eq(picked & ~room),
            ]
        m.d.sync += resting.eq(done)
        with m.If(done):
            m.d.sync += events_turn.eq(~is_event)
        with m.If(resting):
            m.d.sync += free.eq(1)

        # Numbers and losses.
        lost, sequence, missing = Signal(range(len(kinds) + 1)), Signal(32), Signal(32)
        lost_now, numbers = Signal(len(losses) + 1), Signal(range(len(kinds) + 2))
        m.d.sync += [lost_now.eq(Cat(*losses, drops)), lost.eq(sum(lost_now)), self.lost.eq(lost.any()),
                     numbers.eq(lost + turns[0]), sequence.eq(sequence + numbers), missing.eq(missing + lost)]
        m.d.comb += taken.eq(turns[2] & chosen[_OVERFLOW])
        with m.If(taken):
            m.d.sync += missing.eq(lost)
        with m.If(lost.any()):
            m.d.sync += waiting[_OVERFLOW].eq(1)
        with m.Elif(taken):
            m.d.sync += waiting[_OVERFLOW].eq(0)

        # Each source of a word is 0 but in the cycle after its turn.
        parts = []

        def part(turn, value, width=WORD):
            shown = Signal(width, name=f"part_{len(parts)}", reset_less=True)
            m.d.sync += shown.eq(Mux(turn, value, 0))
            parts.append(shown)

        def place(name):
            place, rest = divmod(_DECISION[name].offset, WORD // 8)
            assert not rest, name
            return place

        of_decision, of_cancel = chosen["decision"], chosen["mass_cancel"]
        of_both, direct, has_frame, unsent = Signal(), Signal(), Signal(), Signal()
        sent = of_decision & Cat(early.outcome == _OUTCOMES[name] for name in _FRAME).any()
        m.d.comb += of_both.eq(~is_event)
        with m.If(turns[1]):
            m.d.sync += [has_frame.eq(sent | of_cancel), unsent.eq(~sent), direct.eq(early.flags[_DIRECT])]
        parts.append(Mux(turns[1], sequence, 0))    # it counts the record a cycle late
        assert [place(name) for name in ("outcome", "reasons")] == [1, 2]
        assert [_DECISION[name].offset - 4 for name in ("outcome", "instrument", "flags", "state")] == [*range(4)]
        part(turns[1] & of_decision, Cat(early.outcome, early.instrument, early.flags, early.state))
        part(turns[1] & of_cancel, Cat(
            Const(_OUTCOMES["MASS_CANCEL"], 8), Const(MASS_CANCEL_INSTRUMENT, 8), Const(0, 8), state))
        reasons, reasons_shown = (Signal(32, name=name, reset_less=True) for name in ("reasons", "reasons_shown"))
        m.d.sync += [reasons.eq(Mux(turns[1] & of_decision, early.reasons, 0)), reasons_shown.eq(reasons)]
        parts.append(reasons_shown)
        for half in range(2):
            part(turns[place("quoteId") + half] & has_frame, self.quote_id.word_select(half, WORD))
        above = ("sequence", "outcome", "instrument", "flags", "state", "reasons", "quoteId")
        for name in _DECISION.fields:
            if name not in (*above, "triggerCycle", "fireCycle"):
                parts.append(self._elaborate_rows(
                    m, name, self.decision[name], ~waiting["decision"], row,
                    Cat(stored_row, turns[place(name) - 1], unsent if name in _SENT_ONLY else of_cancel)))
        part(turns[1] & is_event, reduce(or_, (Mux(chosen[name], _CODES[name], 0) for name in names)), 8)
        part(turns[place("feedSeq")] & of_cancel, values["mass_cancel"])
        for name in names:
            part(turns[2] & chosen[name], missing if name == _OVERFLOW else values[name])

        # Cycles: a stamp, and above it what stood there when the half of a period began in which it falls; that is kept
        # for the last two halves.
        fires, triggers = place("fireCycle"), place("triggerCycle")
        stamp, fired = (Signal(STAMP, name=name, reset_less=True) for name in ("stamp", "fired"))
        with m.If(turns[1]):
            m.d.sync += fired.eq(early.fireCycle)
        with m.If(turns[1] | turns[fires - 2]):
            m.d.sync += stamp.eq(reduce(or_, (Mux(chosen[kind], value, 0) for kind, value in (
                ("decision", Mux(turns[1], early.triggerCycle[:STAMP], fired)), (_OVERFLOW, self.cycle[:STAMP]),
                *stamps.items()))))
        half_begins, low_next, high_next = Signal(), Signal(), Signal()     # half of a period; halves of a cycle
        m.d.comb += [half_begins.eq(self.cycle[:STAMP - 1] == 0),
                     low_next.eq((turns[2] & is_event) | (turns[triggers - 1] & of_decision & direct)
                                 | (turns[fires - 1] & of_both))]
        m.d.sync += high_next.eq(low_next)
        part(high_next, stamp, STAMP)
        for half, (turn, bits) in enumerate(((low_next, self.cycle[STAMP:WORD]), (high_next, self.cycle[WORD:]))):
            parts.append(self._elaborate_rows(
                m, f"cycle_{half}", bits << STAMP if half == 0 else bits, half_begins, self.cycle[STAMP - 1],
                Cat(stamp[-1], turn)))

        # A word goes to the memory a cycle after it was put together.
        stores, ends, short, kind = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            stores.eq(~free & ~drops & ~resting), ends.eq(last), short.eq(turns[1] & is_event), kind.eq(is_event),
            write.en.eq(stores), write.data.eq(Cat(reduce(or_, parts), kind, ends, short)),
        ]
        with m.If(write.en):
            m.d.sync += write.addr.eq(write.addr + 1)
        return m

    def _elaborate_rows(self, m, name, word, take, row, address):
        """A memory of two rows, of which ``row`` takes in ``word`` while ``take``. Returns a word of two cycles before.

        ``address`` is the row, a bit that is 1 in the word's turn, and perhaps one that is 0 if it is to be told. Where
        nothing is ever written the memory is 0, so that a word needs no register, and no logic but an OR. The row that
        is read in its turn must not be one that takes in.
        """
        m.submodules[name] = memory = Memory(shape=WORD, depth=1 << len(address), init=[], attrs=BLOCK)
        write, read = memory.write_port(), memory.read_port(domain="comb")
        fetched, shown = (Signal(WORD, name=f"{name}_{what}", reset_less=True) for what in ("fetched", "shown"))
        m.d.comb += [write.en.eq(take), write.addr.eq(Cat(row, 1)), write.data.eq(word), read.addr.eq(address)]
        m.d.sync += [fetched.eq(read.data), shown.eq(fetched)]
        return shown

    def _elaborate_memory(self, m, words):
        """The memory and what comes out of it. Returns its write port, and whether there is room for a record.

        Beside a word stand three bits: it is of an event, the record's last one, and has one byte only.
        """
        spare = 32      # a record, four words by which the one before may lack, and one that does not count any more
        assert words + 5 <= spare
        size = 1 << (self.depth * words + spare).bit_length()
        m.submodules.records = records = Memory(shape=WORD + 3, depth=size, init=[], attrs=BLOCK)
        write, read = records.write_port(), records.read_port(domain="comb")
        used = Signal(range(size + 1))              # words in the memory
        room, fetch, some = Signal(), Signal(), Signal()
        with m.If(write.en ^ fetch):
            m.d.sync += used.eq(used + Mux(fetch, -1, 1))
        m.d.sync += [
            some.eq(used != 0),     # nothing is fetched in two cycles running: there still is one
            room.eq(used < size - spare),
        ]

        # One word is shown, a byte at a time, and the next one is fetched meanwhile. Its address holds still until its
        # turn, so that the registers behind the memory need no enable, and go into it.
        fetched, waits = Signal(), Signal()         # from the memory; in `upcoming`
        word, upcoming, current = (Signal(WORD + 3, name=name, reset_less=True)
                                   for name in ("word", "upcoming", "current"))
        bytes_left = Signal(range(WORD // 8 + 1))   # of the current word
        done = Signal()                             # the current word makes place for the next one
        is_event, final = current[WORD:WORD + 2]
        m.d.comb += [
            fetch.eq(some & ~fetched & ~waits),
            self.o.valid.eq(bytes_left != 0),
            self.o.data.eq(current[:8]),
            self.o.last.eq(final & (bytes_left == 1)),
            self.o_type.eq(Mux(is_event, _EVENT.id, _DECISION.id)),
            self.o_length.eq(Mux(is_event, _EVENT.block_length, _DECISION.block_length)),
            done.eq((bytes_left == 0) | (self.o.ready & (bytes_left == 1))),
        ]
        m.d.sync += [fetched.eq(fetch), word.eq(read.data), upcoming.eq(word)]
        with m.If(fetched):
            m.d.sync += waits.eq(1)
        with m.If(done):
            with m.If(waits):
                m.d.sync += [waits.eq(0), read.addr.eq(read.addr + 1)]
            m.d.sync += [current.eq(upcoming),
                         bytes_left.eq(Mux(waits, Mux(upcoming[-1], 1, WORD // 8), 0))]
        with m.Elif(self.o.ready):
            m.d.sync += [current[:WORD - 8].eq(current[8:WORD]), bytes_left.eq(bytes_left - 1)]
        return write, room

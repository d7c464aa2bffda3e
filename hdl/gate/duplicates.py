"""G15: the same quote again and again: whoever says that is caught in a loop."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.params import Ticks
from hdl.memory import BLOCK

#: Quotes that are remembered, of all instruments together.
REMEMBERED = 8
#: Words of 32 bits of one: what it says, and when it left.
_WORDS = 5
#: Cycles from ``emit`` to ``repeated``.
ANSWER_CYCLES = _WORDS + REMEMBERED * _WORDS + 5


class Duplicates(wiring.Component):
    """Counts how often a quote is among the last ones.

    Two quotes are equal if instrument, prices and quantities of both sides are. With every quote that leaves, its
    equals among the last :data:`REMEMBERED` are counted, itself included, as far as they left less than ``cycles``
    before it. If they are ``most`` or more, the instrument is to be held: so many equal ones have left, and no more
    may.

    Members
    -------
    emit : in(1) a quote leaves: ``instrument`` : in(8), ``bid_px``, ``ask_px`` : in(Ticks), ``bid_lots``, ``ask_lots``
        : in(24). All but the instrument stand for :data:`ANSWER_CYCLES`, in which none other leaves. A side of 0 lots
        has price 0; one that only takes sides away is no quote.
    now : in(32) cycles, modulo 2^32: what left longer ago than that can hold may count as young.
    most : in(4), cycles : in(32) limits; if one of them is 0 nothing may leave, which is for the gate to see to.
    repeated : out(1) strobe, :data:`ANSWER_CYCLES` after ``emit``: hold ``repeater`` : out(8).

    After reset nothing is remembered.
    """

    def __init__(self):
        super().__init__({
            "emit": In(1), "instrument": In(8), "bid_px": In(Ticks), "ask_px": In(Ticks), "bid_lots": In(24),
            "ask_lots": In(24), "now": In(32), "most": In(4), "cycles": In(32), "repeated": Out(1),
            "repeater": Out(8)})

    def elaborate(self, platform):
        m = Module()
        entry, word = Signal(range(REMEMBERED)), Signal(range(_WORDS))
        next_entry, next_word = Signal.like(entry), Signal.like(word)
        newest = Signal(range(REMEMBERED))      # where the next quote goes: over the oldest one
        some = Signal(REMEMBERED)               # what is there
        m.submodules.memory = memory = Memory(shape=32, depth=1 << len(entry) + len(word), init=[], attrs=BLOCK)
        write, read = memory.write_port(), memory.read_port(domain="comb")

        # It is stored first, and then every quote is held against it, itself too: a word a cycle, both times.
        stamp, writing, reading = Signal(32), Signal(), Signal()
        says = Cat(self.bid_px, self.repeater, self.ask_px, self.bid_lots, self.ask_lots)
        assert len(says) <= 32 * (_WORDS - 1)
        its_word, ends = Signal(32), word == _WORDS - 1
        m.d.comb += [
            its_word.eq(Array([*(says[at:at + 32] for at in range(0, 32 * (_WORDS - 1), 32)), stamp])[word]),
            write.addr.eq(Cat(word, newest)), write.data.eq(its_word), write.en.eq(writing),
            read.addr.eq(Cat(next_word, next_entry)), next_entry.eq(entry), next_word.eq(word),
        ]
        m.d.sync += [entry.eq(next_entry), word.eq(next_word)]
        with m.If(self.emit & (self.bid_lots.any() | self.ask_lots.any())):
            m.d.sync += [stamp.eq(self.now), self.repeater.eq(self.instrument), writing.eq(1)]
            m.d.comb += [next_word.eq(0), next_entry.eq(0)]
        with m.Elif(writing | reading):
            m.d.comb += next_word.eq(Mux(ends, 0, word + 1))
            with m.If(ends & writing):
                m.d.sync += [writing.eq(0), reading.eq(1), some.eq(some | 1 << newest), newest.eq(newest + 1)]
            with m.If(ends & reading):
                m.d.comb += next_entry.eq(entry + 1)
                m.d.sync += reading.eq(entry != REMEMBERED - 1)

        # What was read, asked for a cycle ahead, and what it is held against stand a cycle later; what that says of a
        # quote, with its last word, two cycles later; and then it counts.
        fetched = Signal(32, reset_less=True)
        was, its, compares, is_last, is_there, final = Signal(32), Signal(32), Signal(), Signal(), Signal(), Signal()
        m.d.sync += [fetched.eq(read.data), was.eq(fetched), its.eq(its_word), compares.eq(reading), is_last.eq(ends),
                     is_there.eq(some.bit_select(entry, 1)), final.eq(reading & ends & (entry == REMEMBERED - 1))]
        same, equal, age, young, counts = Signal(init=1), Signal(), Signal(32), Signal(), Signal()
        found, decides = Signal(4), Signal(3)
        with m.If(compares):
            m.d.sync += same.eq(is_last | (same & (was == its)))
        m.d.sync += [equal.eq(compares & is_last & same & is_there), age.eq(its - was), counts.eq(equal),
                     young.eq(age < self.cycles), decides.eq(decides << 1 | final),
                     self.repeated.eq(decides[-1] & (self.most <= found))]
        with m.If(writing):
            m.d.sync += found.eq(0)
        with m.Elif(counts & young):
            m.d.sync += found.eq(found + 1)
        return m

"""Event counters, and words that are kept beside them, in one memory."""

from itertools import pairwise

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.memory import BLOCK

__all__ = ["READ_PASSES", "READ_VISIT", "EventCounters"]

#: Cycles from the strobe of a read to the read's own visit at a counter, and to where its word is shown.
READ_VISIT = 5
READ_PASSES = READ_VISIT + 5

#: Turns that a visit takes until what it has written is read by the next one.
_VISIT = 4


class EventCounters(wiring.Component):
    """Counters of events that stay at their largest value, and words that are written, in one memory that is read.

    Each counter has a short one of its own, which is added to its word in the memory and begins again when its turn
    comes, and when it is read. In a round each of them has its turn, a cycle each; a cycle in which a word is written
    and one of each read make it longer. As many events as a short counter holds can come between two of its turns; one
    more, and a whole turn of the short counter is lost.

    **Latency**: an event in ``c`` is counted in what is shown by a read that begins in ``c - 5`` or later.

    **Reset**: the memory keeps its content, so that ``clear`` goes on from reset until every word is 0, and for as many
    cycles as a visit takes after the last counter's. Events are counted from its end on.

    Parameters
    ----------
    short : list of int
        Bits of each short counter, at least 4 counters.
    base : int
        Where the counters lie in the memory, one after the other: a multiple of their number rounded up to a power of
        two.
    address_bits : int
        Of the memory.
    width : int
        Bits of a word.

    Members
    -------
    events : In(len(short))
        Strobes, from flip-flops.
    write, write_addr, write_data : In
        ``write`` : keep this word. At most in one of four cycles, not while ``clear`` is 1 nor while a read is under
        way, and never where a counter lies.
    clear, clear_addr : In
        ``clear`` : this word becomes ``write_data``, which is 0 then, in this cycle.
    read : In(READ_PASSES)
        Bit *n*: a read began *n* cycles ago. The next one begins when this one has passed.
    read_addr : In
        Which word is read; holds still from the cycle after the beginning on. Where no counter lies: any.
    read_is_count, read_index : In
        The word is a counter, this one; from two cycles after the beginning on.
    shows : In
        With ``read[READ_PASSES - 1]``: let the word show. Without it, 0 does.
    shown : Out(width)
        The word that was read, READ_PASSES cycles after the beginning, until the next one.

    Attributes
    ----------
    under_way : {name: Signal, or a list of one a stage of a visit}, once it is elaborated
        What it goes by, for proofs.
    """

    def __init__(self, short, *, base, address_bits, width=32):
        self.short, self.base, self.address_bits, self.width = tuple(short), base, address_bits, width
        self.index_bits = (len(self.short) - 1).bit_length()
        if len(self.short) < _VISIT:
            raise ValueError(f"there are {len(self.short)} counters, must be {_VISIT} at least")
        if base % (1 << self.index_bits) or base + len(self.short) > 1 << address_bits:
            raise ValueError(f"base is {base}, must be a multiple of {1 << self.index_bits} within {address_bits} bits")
        super().__init__({
            "events": In(len(self.short)),
            "write": In(1), "write_addr": In(address_bits), "write_data": In(width),
            "clear": In(1), "clear_addr": In(address_bits),
            "read": In(READ_PASSES), "read_addr": In(address_bits), "read_is_count": In(1),
            "read_index": In(self.index_bits), "shows": In(1), "shown": Out(width)})

    def elaborate(self, platform):
        m = Module()
        count, width, address_bits, index_bits = len(self.short), self.width, self.address_bits, self.index_bits

        # Everything below rests in a cycle in which a word is written.
        go = Signal()
        m.d.comb += go.eq(~self.write)

        # A counter has its turn once in a round; a read takes one cycle of that. While what one visit writes would
        # not be seen by another one of the same counter, that of the read is the only one.
        turn = Signal(index_bits)
        near = Signal()             # turns that are not far enough from the read
        reads = Signal()
        visit, index = Signal(), Signal(index_bits)
        counts, word = Signal(), Signal(address_bits)
        m.d.comb += [near.eq(self.read[2:READ_VISIT + _VISIT].any()), reads.eq(self.read[READ_VISIT])]
        with m.If(go):
            m.d.sync += [
                visit.eq(reads | ~(near & self.read_is_count & (turn == self.read_index))),
                index.eq(Mux(reads, self.read_index, turn)),
                counts.eq(~reads | self.read_is_count),
                word.eq(Mux(reads & ~self.read_is_count, self.read_addr,
                            Cat(Mux(reads, self.read_index, turn),
                                Const(self.base >> index_bits, address_bits - index_bits)))),
                turn.eq(Mux(turn + ~reads == count, 0, turn + ~reads)),
            ]

        pending = [Signal(bits, name=f"pending_{n}") for n, bits in enumerate(self.short)]
        columns, rows = Signal(8), Signal(-(-count // 8))
        m.d.comb += [columns.eq(1 << index[:3]), rows.eq(Mux(visit & counts & go, 1 << index[3:], 0))]
        for n, short in enumerate(pending):
            visited = columns[n % 8] & rows[n // 8]
            with m.If(visited | self.events[n]):
                m.d.sync += short.eq(Mux(visited, self.events[n], _plus_one(short)))

        # Visit: the short counter in two steps while the memory is read, the sum, and the write.
        m.submodules.memory = memory = Memory(shape=width, depth=1 << address_bits, init=[], attrs=BLOCK)
        write, read = memory.write_port(), memory.read_port(domain="comb")
        most = max(map(len, pending))
        picked = [Signal(most, name=f"picked_{n}") for n in range(0, count, 8)]
        fetched, before = Signal(width, reset_less=True), Signal(width, reset_less=True)
        taken, amount, total = Signal(most), Signal(most), Signal(width + 1)
        visits = [visit & counts, *(Signal(name=f"visit_{n}") for n in range(1, _VISIT))]
        words = [word, *(Signal(address_bits, name=f"visited_word_{n}") for n in range(1, _VISIT))]
        picks = [index[3:], Signal(max(0, index_bits - 3))]
        adds = [counts, Signal()]
        m.d.comb += read.addr.eq(word)
        with m.If(go):
            for stages in (visits, words, picks, adds):
                m.d.sync += [later.eq(earlier) for earlier, later in pairwise(stages)]
            m.d.sync += [
                fetched.eq(read.data), before.eq(fetched),
                *(target.eq(Array(pending[8 * n:8 * n + 8])[index[:3]]) for n, target in enumerate(picked)),
                amount.eq(taken), total.eq(before + amount),
            ]
        new = Signal(width)
        m.d.comb += [new.eq(total[:width] | total[width].replicate(width)),
                     taken.eq(Mux(adds[1], Array(picked)[picks[1]], 0))]
        self.under_way = {"pending": pending, "turn": turn, "index": index, "visits": visits, "words": words,
                          "picks": picks, "adds": adds, "fetched": fetched, "taken": taken, "before": before,
                          "amount": amount, "new": new}
        with m.If(self.read[-1]):
            m.d.sync += self.shown.eq(Mux(self.shows, new, 0))
        with m.If(self.clear):
            m.d.comb += [write.addr.eq(self.clear_addr), write.data.eq(self.write_data), write.en.eq(1)]
        with m.Elif(self.write):
            m.d.comb += [write.addr.eq(self.write_addr), write.data.eq(self.write_data), write.en.eq(1)]
        with m.Else():
            m.d.comb += [write.addr.eq(words[-1]), write.data.eq(new), write.en.eq(visits[-1])]
        return m


def _plus_one(value):
    """``value + 1`` without a carry chain, which costs more for a few bits."""
    return Cat(bit ^ value[:n].all() for n, bit in enumerate(value))

"""Order book by price level: ten levels for each side of each instrument in memory, the best ones at hand."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.feed.mdp3 import SCHEMA
from hdl.memory import BLOCK

_ACTION = SCHEMA.enums["MDUpdateAction"]
_STRIDE = 16    # places of a side in its memory, a power of two
_MIDDLE = 3     # cycles from asking the memory for a level until it stands between its neighbours

#: Cycles from an update to the first one in which the next update or a ``load`` may come.
UPDATE_CYCLES = 16
#: Levels that pass by in that time.
_DEEPEST = UPDATE_CYCLES - _MIDDLE - 3


class Level(data.Struct):
    """One price level: ``known`` (1), ``px`` in ticks (32, signed), ``size`` (32)."""

    known: 1
    px: signed(32)
    size: 32


class BookByLevel(wiring.Component):
    """Books by level for a number of instruments, and the top of one of them on the work bench.

    A level that has not been stated since reset, since a gap or since it fell off the end is *unknown*, which is not
    the same as empty: a side whose first level is unknown has no best price.

    What decides is the top of the book, so that this alone stands in registers and is right in the cycle after an
    update. The levels themselves are one word of memory each: behind an update, in the time that the wire needs for the
    next entry, they pass by once, a level a cycle, and are put back as the entry has changed them.

    Parameters
    ----------
    instruments : number of instruments.
    depth : levels a side, 2 to 10.

    Members
    -------
    address : in(8) instrument that is asked for.
    load : in(1) in the cycle after ``address`` came to rest: take its top onto the bench. The bests stand from the next
        cycle on, the seconds from the one after, until the next ``load`` or update.
    update_bid, update_ask : in(1, 1) apply the entry below to a side of the instrument on the bench, which is still on
        ``address``; at least :data:`UPDATE_CYCLES` after the last update, and as many before the next ``load``.
    update_reset : in(1) forget both sides of that instrument.
    action : in(8), level : in(8), px : in(32, signed), size : in(32), known : in(1) the entry; ``level`` counts from 1
        and must be in range, ``action`` must be one of MDUpdateAction.
    invalidate : in(1) forget all books. What is on the bench stays there: it is what the last decision was made of.
        It overrules an update in the same cycle.
    best_bid, best_ask, second_bid, second_ask : out(:class:`Level`). After an update only the bests are right.
    busy : out(1) the levels are passing by: from the cycle after an update on.

    New shifts the levels from ``level`` on down by one; Change and Overlay replace; Delete shifts up; DeleteFrom
    forgets ``level`` and what lies below. DeleteThru forgets the whole side: sources differ on whether levels beyond
    ``level`` survive it, and an unknown side is not quoted.

    Latency: an update in cycle *c* is on the bests in *c* + 1.
    """

    def __init__(self, instruments, depth=10):
        if not 2 <= depth <= _DEEPEST:
            raise ValueError(f"depth is {depth}, must be 2 to {_DEEPEST}")
        self.instruments, self.depth = instruments, depth
        super().__init__({"address": In(8), "load": In(1), "update_bid": In(1), "update_ask": In(1),
                          "update_reset": In(1), "action": In(8), "level": In(8), "px": In(signed(32)),
                          "size": In(32), "known": In(1), "invalidate": In(1), "best_bid": Out(Level),
                          "best_ask": Out(Level), "second_bid": Out(Level), "second_ask": Out(Level), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n, depth = self.instruments, self.depth
        width = max(1, (n - 1).bit_length())
        address = self.address[:width]
        insert, replace, delete, thru, from_ = (
            Cat(self.action == _ACTION[a] for a in actions).any()
            for actions in (("New",), ("Change", "Overlay"), ("Delete",), ("DeleteThru",), ("DeleteFrom",)))
        top = self.level == 1
        entry = Signal(Level)
        m.d.comb += [entry.known.eq(self.known), entry.px.eq(self.px), entry.size.eq(self.size)]

        # The update under way: the level that is asked for, and what the middle one of three becomes.
        idle = 2 * _STRIDE - 1
        asked_for = Signal(range(2 * _STRIDE), init=idle)
        of, level, held = Signal(width), Signal(range(_STRIDE)), Signal(Level)
        shifts_in, puts, shifts_out, forgets_all, forgets = (
            Signal(name=name) for name in ("shifts_in", "puts", "shifts_out", "forgets_all", "forgets"))
        at, beyond = Signal(), Signal()     # the middle level is the entry's, or worse
        middle, stores = Signal(range(_STRIDE)), Signal()
        with m.If(self.update_bid | self.update_ask):
            m.d.sync += [
                self.busy.eq(1), asked_for.eq(0), of.eq(address), level.eq(self.level), held.eq(entry),
                shifts_in.eq(insert), puts.eq(insert | replace), shifts_out.eq(delete), forgets_all.eq(thru),
                forgets.eq(from_)]
        with m.Elif(asked_for == depth + _MIDDLE):
            m.d.sync += [self.busy.eq(0), asked_for.eq(idle)]
        with m.Elif(self.busy):
            m.d.sync += asked_for.eq(asked_for + 1)
        with m.If(self.busy):
            m.d.sync += [at.eq(level + _MIDDLE - 2 == asked_for), beyond.eq(level + _MIDDLE - 1 <= asked_for),
                         middle.eq(asked_for - _MIDDLE + 1),
                         stores.eq((asked_for >= _MIDDLE - 1) & (asked_for < depth + _MIDDLE - 1))]

        second = Signal()       # the seconds come
        m.d.sync += second.eq(self.load)
        for side, best, next_, update in (("bid", self.best_bid, self.second_bid, self.update_bid),
                                          ("ask", self.best_ask, self.second_ask, self.update_ask)):
            m.submodules[side] = memory = Memory(shape=Level, depth=_STRIDE << width, init=[], attrs=BLOCK)
            write, read = memory.write_port(), memory.read_port(domain="comb")
            fetched = Signal(Level, name=f"{side}_fetched", reset_less=True)
            m.d.sync += fetched.eq(read.data)
            valid = Signal(n, name=f"{side}_valid")
            mine, counts, counted = (Signal(name=f"{side}_{what}") for what in ("mine", "counts", "counted"))
            came, above, here, below, put = (
                Signal(Level, name=f"{side}_{what}") for what in ("came", "above", "here", "below", "put"))
            m.d.comb += [
                read.addr.eq(Mux(self.busy, Cat(asked_for[:4], of), Cat(self.load, Const(0, 3), address))),
                came.eq(fetched), came.known.eq(fetched.known & counts),
                write.addr.eq(Cat(middle, of)), write.data.eq(put), write.en.eq(mine & stores),
            ]
            m.d.sync += counts.eq(Mux(self.busy, counted & (asked_for < depth), valid.bit_select(address, 1)))
            with m.If(self.load):
                m.d.sync += best.eq(came)
            with m.If(second):
                m.d.sync += next_.eq(came)
            with m.If(self.busy):
                m.d.sync += [below.eq(came), here.eq(below), above.eq(here)]
            m.d.comb += put.eq(Mux(shifts_out & (at | beyond), below, Mux(shifts_in & beyond, above,
                                                                         Mux(puts & at, held, here))))
            with m.If(forgets_all | (forgets & (at | beyond))):
                m.d.comb += put.known.eq(0)
            with m.If(update):
                # What was there before counts only if the side has been told since it was forgotten.
                m.d.sync += [counted.eq(valid.bit_select(address, 1)), valid.bit_select(address, 1).eq(1)]
                with m.If(top & (insert | replace)):
                    m.d.sync += best.eq(entry)
                with m.If(top & delete):
                    m.d.sync += best.eq(next_)
                with m.If(thru | (top & from_)):
                    m.d.sync += best.known.eq(0)
            with m.If(self.update_bid | self.update_ask):
                m.d.sync += mine.eq(update)
            with m.If(self.update_reset):
                m.d.sync += [valid.bit_select(address, 1).eq(0), best.known.eq(0)]
            with m.If(self.invalidate):
                m.d.sync += valid.eq(0)
        return m

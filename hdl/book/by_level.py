"""Order book by price level: ten levels for each side of each instrument in memory, the best ones at hand."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.control.params import Ticks
from hdl.feed.mdp3 import SCHEMA
from hdl.memory import BlockMemory, told_of

_ACTION = SCHEMA.enums["MDUpdateAction"]
_STRIDE = 16    # places of a side in its memory, a power of two
_MIDDLE = 3     # cycles from asking the memory for a level until it stands between its neighbours

#: Cycles from an update to the first one in which the next update or a ``load`` may come.
UPDATE_CYCLES = 16
#: Levels that pass by in that time.
_DEEPEST = UPDATE_CYCLES - _MIDDLE - 3


class Level(data.Struct):
    """One price level: ``known`` (1), ``px`` in ticks, ``size`` (32)."""

    known: 1
    px: Ticks
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
    load : in(1) in the cycle after ``address`` came to rest, or later: take its top onto the bench. The bests stand
        from the second cycle on, the seconds from the third, until the next ``load`` or update. ``may_load`` : in(1)
        early in its cycle: with every ``load``, and otherwise where none comes in the next cycle.
    early_ask : out(:class:`Level`) the best offer in the first cycle after ``load``, the second one in the second; the
        best one otherwise.
    update_bid, update_ask : in(1, 1) apply the entry below to a side of the instrument on the bench, which is still on
        ``address``; at least :data:`UPDATE_CYCLES` after the last update, and as many before the next ``load``.
    update_reset : in(1) forget both sides of that instrument.
    action : in(8), level : in(8), px : in(Ticks), size : in(32), known : in(1) the entry; ``level`` counts from 1
        and must be in range, ``action`` must be one of MDUpdateAction. These two, and ``address``, stand in the cycle
        before the update, too.
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
        super().__init__({"address": In(8), "may_load": In(1), "load": In(1), "update_bid": In(1), "update_ask": In(1),
                          "update_reset": In(1), "action": In(8), "level": In(8), "px": In(Ticks),
                          "size": In(32), "known": In(1), "invalidate": In(1), "best_bid": Out(Level),
                          "best_ask": Out(Level), "early_ask": Out(Level), "second_bid": Out(Level),
                          "second_ask": Out(Level), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n, depth = self.instruments, self.depth
        width = max(1, (n - 1).bit_length())
        address = self.address[:width]
        entry = Signal(Level)
        m.d.comb += [entry.known.eq(self.known), entry.px.eq(self.px), entry.size.eq(self.size)]
        # What an update does, a cycle before it comes.
        insert, puts_any, delete, thru, from_, at_top, top_deletes, top_loses = (Signal(name=name) for name in (
            "insert", "puts_any", "delete", "thru", "from_", "at_top", "top_deletes", "top_loses"))
        is_insert, is_replace, is_delete, is_thru, is_from = (
            Cat(self.action == _ACTION[a] for a in actions).any()
            for actions in (("New",), ("Change", "Overlay"), ("Delete",), ("DeleteThru",), ("DeleteFrom",)))
        top = self.level == 1
        m.d.sync += [
            insert.eq(is_insert), puts_any.eq(is_insert | is_replace), delete.eq(is_delete), thru.eq(is_thru),
            from_.eq(is_from), at_top.eq(top & (is_insert | is_replace)), top_deletes.eq(top & is_delete),
            top_loses.eq(is_thru | (top & is_from))]

        # The update under way: the level that is asked for, and what the middle one of three becomes.
        idle = 2 * _STRIDE - 1
        asked_for = Signal(range(2 * _STRIDE), init=idle)
        of, level, held = Signal(width), Signal(range(_STRIDE)), Signal(Level)
        shifts_in, puts, shifts_out, forgets_all, forgets, is_ask = (
            Signal(name=name) for name in ("shifts_in", "puts", "shifts_out", "forgets_all", "forgets", "is_ask"))
        at, beyond = Signal(), Signal()     # the middle level is the entry's, or worse
        middle, stores = Signal(range(_STRIDE)), Signal()
        with m.If(self.update_bid | self.update_ask):
            m.d.sync += [
                self.busy.eq(1), asked_for.eq(0), of.eq(address), level.eq(self.level), held.eq(entry),
                shifts_in.eq(insert), puts.eq(puts_any), shifts_out.eq(delete), forgets_all.eq(thru),
                forgets.eq(from_), is_ask.eq(self.update_ask)]
        with m.Elif(asked_for == depth + _MIDDLE):
            m.d.sync += [self.busy.eq(0), asked_for.eq(idle)]
        with m.Elif(self.busy):
            m.d.sync += asked_for.eq(asked_for + 1)
        m.d.sync += [at.eq(level + _MIDDLE - 2 == asked_for), beyond.eq(asked_for >= level + _MIDDLE - 1),
                     middle.eq(asked_for - _MIDDLE + 1),
                     stores.eq((asked_for >= _MIDDLE - 1) & (asked_for < depth + _MIDDLE - 1))]

        first, second = Signal(), Signal()      # the bests, the seconds are out of the memory
        m.d.sync += [first.eq(self.load), second.eq(first)]
        counted, exists = Signal(), Signal()    # the side under way has been told; there is a level that is asked for
        m.d.sync += exists.eq(asked_for < depth)
        passing = []
        for side, best, next_, update in (("bid", self.best_bid, self.second_bid, self.update_bid),
                                          ("ask", self.best_ask, self.second_ask, self.update_ask)):
            m.submodules[side] = memory = BlockMemory(Level, _STRIDE << width)
            # The output of the memory is slow, and goes into a register as it is: whether it counts is told beside it.
            fetched, come = (Signal(Level, name=f"{side}_{what}", reset_less=True) for what in ("fetched", "come"))
            valid = Signal(n, name=f"{side}_valid")
            counts, came = Signal(name=f"{side}_counts"), Signal(Level, name=f"{side}_came")
            told = told_of(m, valid, address, f"{side}_told", unless=self.invalidate)
            m.d.comb += [
                memory.read_addr.eq(Mux(self.busy, Cat(asked_for[:4], of), Cat(self.may_load, Const(0, 3), address))),
                came.eq(come), came.known.eq(come.known & counts),
                memory.write_addr.eq(Cat(middle, of)), memory.write_en.eq(stores & (is_ask == (side == "ask"))),
            ]
            m.d.sync += [fetched.eq(memory.read_data), come.eq(fetched),
                         counts.eq(Mux(self.busy, counted & exists, told))]
            with m.If(first):
                m.d.sync += best.eq(came)
            with m.If(second):
                m.d.sync += next_.eq(came)
            with m.If(update):
                # What was there before counts only if the side has been told since it was forgotten.
                m.d.sync += [counted.eq(told), valid.bit_select(address, 1).eq(1)]
                with m.If(at_top):
                    m.d.sync += best.eq(entry)
                with m.If(top_deletes):
                    m.d.sync += best.eq(next_)
                with m.If(top_loses):
                    m.d.sync += best.known.eq(0)
            with m.If(self.update_reset):
                m.d.sync += [valid.bit_select(address, 1).eq(0), best.known.eq(0)]
            with m.If(self.invalidate):
                m.d.sync += valid.eq(0)
            passing.append((came, memory.write_data))
        m.d.comb += self.early_ask.eq(Mux(first | second, passing[1][0], self.best_ask))

        # The levels of the side under way: both memories are offered what becomes of them, one of them takes it.
        above, here, below, put = (Signal(Level, name=what) for what in ("above", "here", "below", "put"))
        m.d.comb += [below.eq(Mux(is_ask, passing[1][0], passing[0][0])), *(write.eq(put) for _, write in passing),
                     put.eq(Mux(shifts_out & (at | beyond), below, Mux(shifts_in & beyond, above,
                                                                      Mux(puts & at, held, here))))]
        m.d.sync += [here.eq(below), above.eq(here)]
        with m.If(forgets_all | (forgets & (at | beyond))):
            m.d.comb += put.known.eq(0)
        return m

"""Order book by price level, one row of ten levels for each side of each instrument."""

from amaranth import Array, Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.feed.mdp3 import SCHEMA

_ACTION = SCHEMA.enums["MDUpdateAction"]


class Level(data.Struct):
    """One price level: ``known`` (1), ``px`` in ticks (32, signed), ``size`` (32)."""

    known: 1
    px: signed(32)
    size: 32


class BookByLevel(wiring.Component):
    """Books by level for a number of instruments.

    A level that has not been stated since reset, since a gap or since it fell off the end is *unknown*, which is not
    the same as empty: a side whose first level is unknown has no best price.

    Parameters
    ----------
    instruments : number of instruments.
    depth : levels a side.

    Members
    -------
    address : in(8) instrument whose rows are wanted; they stand on ``bid``/``ask`` from the next cycle on, with all
        updates up to and including the cycle before (write-through).
    update_bid, update_ask : in(1, 1) apply the entry below to a side of the instrument that ``address`` held in the
        cycle before and holds now.
    update_reset : in(1) forget both sides of that instrument.
    action : in(8), level : in(8), px : in(32, signed), size : in(32), known : in(1) the entry; ``level`` counts from 1
        and must be in range, ``action`` must be one of MDUpdateAction.
    invalidate : in(1) forget all books.
    bid, ask : out(array of ``depth`` :class:`Level`), best first.

    New shifts the levels from ``level`` on down by one; Change and Overlay replace; Delete shifts up; DeleteFrom
    forgets ``level`` and what lies below. DeleteThru forgets the whole side: sources differ on whether levels beyond
    ``level`` survive it, and an unknown side is not quoted.

    Latency: an update in cycle *c* is on ``bid``/``ask`` in *c* + 1.
    """

    def __init__(self, instruments, depth=10):
        self.instruments, self.depth = instruments, depth
        row = data.ArrayLayout(Level, depth)
        super().__init__({"address": In(8), "update_bid": In(1), "update_ask": In(1), "update_reset": In(1),
                          "action": In(8), "level": In(8), "px": In(signed(32)), "size": In(32), "known": In(1),
                          "invalidate": In(1), "bid": Out(row), "ask": Out(row)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(range(max(2, self.instruments)))     # address of the rows that are on the read ports
        m.d.sync += held.eq(self.address)
        entry = Signal(Level)
        m.d.comb += [entry.known.eq(self.known), entry.px.eq(self.px), entry.size.eq(self.size)]
        for side, row, update in (("bid", self.bid, self.update_bid), ("ask", self.ask, self.update_ask)):
            memory = Memory(shape=data.ArrayLayout(Level, self.depth), depth=self.instruments, init=[])
            m.submodules[side] = memory
            write = memory.write_port()
            read = memory.read_port(transparent_for=(write,))
            valid = Array(Signal(name=f"{side}_valid_{i}") for i in range(self.instruments))
            stored = read.data
            for i in range(self.depth):
                m.d.comb += [row[i].eq(stored[i]), row[i].known.eq(stored[i].known & valid[held])]
            m.d.comb += [read.addr.eq(self.address), read.en.eq(1), write.addr.eq(held), write.en.eq(update)]
            with m.If(update):
                for i in range(self.depth):
                    above = row[i - 1] if i else entry
                    below = row[i + 1] if i + 1 < self.depth else None
                    new = write.data[i]
                    m.d.comb += new.eq(row[i])
                    with m.Switch(self.action):
                        with m.Case(_ACTION["New"]):
                            with m.If(self.level == i + 1):
                                m.d.comb += new.eq(entry)
                            with m.Elif(self.level <= i):
                                m.d.comb += new.eq(above)
                        with m.Case(_ACTION["Change"], _ACTION["Overlay"]):
                            with m.If(self.level == i + 1):
                                m.d.comb += new.eq(entry)
                        with m.Case(_ACTION["Delete"]):
                            with m.If(self.level <= i + 1):
                                if below is None:
                                    m.d.comb += new.known.eq(0)
                                else:
                                    m.d.comb += new.eq(below)
                        with m.Case(_ACTION["DeleteThru"]):
                            m.d.comb += new.known.eq(0)
                        with m.Case(_ACTION["DeleteFrom"]):
                            with m.If(self.level <= i + 1):
                                m.d.comb += new.known.eq(0)
                m.d.sync += valid[held].eq(1)
            with m.If(self.update_reset):
                m.d.sync += valid[held].eq(0)
            with m.If(self.invalidate):
                m.d.sync += Cat(*valid).eq(0)
        return m

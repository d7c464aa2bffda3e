"""Order book by price level, one row of ten levels for each side of each instrument."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.feed.mdp3 import SCHEMA

_ACTION = SCHEMA.enums["MDUpdateAction"]
#: Books of more instruments than this are kept in block RAM, fewer in LUTs: block RAM is at least 512 rows deep.
_LUT_ROWS = 32


class Level(data.Struct):
    """One price level: ``known`` (1), ``px`` in ticks (32, signed), ``size`` (32)."""

    known: 1
    px: signed(32)
    size: 32


class BookByLevel(wiring.Component):
    """Books by level for a number of instruments, and one of them on the work bench.

    A level that has not been stated since reset, since a gap or since it fell off the end is *unknown*, which is not
    the same as empty: a side whose first level is unknown has no best price.

    Parameters
    ----------
    instruments : number of instruments.
    depth : levels a side, at least 2.

    Members
    -------
    address : in(8) instrument that is asked for.
    load : in(1) in the cycle after ``address`` came to rest, or later: take its rows onto the bench. They stand on
        ``bid``/``ask`` from the next cycle on, with all updates up to two cycles before, until the next ``load``.
    update_bid, update_ask : in(1, 1) apply the entry below to a side of the instrument on the bench, which is still on
        ``address``. ``load`` must not come within two cycles after it.
    update_reset : in(1) forget both sides of that instrument.
    action : in(8), level : in(8), px : in(32, signed), size : in(32), known : in(1) the entry; ``level`` counts from 1
        and must be in range, ``action`` must be one of MDUpdateAction.
    invalidate : in(1) forget all books. What is on the bench stays there: it is what the last decision was made of.
        Goes before an update in the same cycle.
    bid, ask : out(array of ``depth`` :class:`Level`), best first.

    New shifts the levels from ``level`` on down by one; Change and Overlay replace; Delete shifts up; DeleteFrom
    forgets ``level`` and what lies below. DeleteThru forgets the whole side: sources differ on whether levels beyond
    ``level`` survive it, and an unknown side is not quoted.

    Latency: an update in cycle *c* is on ``bid``/``ask`` in *c* + 1.
    """

    def __init__(self, instruments, depth=10):
        self.instruments, self.depth = instruments, depth
        row = data.ArrayLayout(Level, depth)
        super().__init__({"address": In(8), "load": In(1), "update_bid": In(1), "update_ask": In(1),
                          "update_reset": In(1), "action": In(8), "level": In(8), "px": In(signed(32)),
                          "size": In(32), "known": In(1), "invalidate": In(1), "bid": Out(row), "ask": Out(row)})

    def elaborate(self, platform):
        m = Module()
        n, depth = self.instruments, self.depth
        address = self.address[:max(1, (n - 1).bit_length())]
        entry = Signal(Level)
        m.d.comb += [entry.known.eq(self.known), entry.px.eq(self.px), entry.size.eq(self.size)]
        at, below = Signal(depth), Signal(depth)    # the entry's level, and all levels from it on, one bit each
        m.d.comb += [Cat(at, below).eq(Cat(Cat(self.level == i + 1 for i in range(depth)),
                                           Cat(self.level <= i + 1 for i in range(depth))))]
        acts = {name: Signal(name=name) for name in ("insert", "replace", "delete", "thru", "from_")}
        for name, actions in (("insert", ("New",)), ("replace", ("Change", "Overlay")), ("delete", ("Delete",)),
                              ("thru", ("DeleteThru",)), ("from_", ("DeleteFrom",))):
            m.d.comb += acts[name].eq(Cat(self.action == _ACTION[a] for a in actions).any())

        for side, row, update in (("bid", self.bid, self.update_bid), ("ask", self.ask, self.update_ask)):
            m.submodules[side] = memory = Memory(
                shape=data.ArrayLayout(Level, depth), depth=n, init=[],
                attrs={"ram_style": "distributed" if n <= _LUT_ROWS else "block"})
            write, read = memory.write_port(), memory.read_port()
            valid = Signal(n, name=f"{side}_valid")
            asked, store, stored_at = (Signal(name=f"{side}_asked"), Signal(name=f"{side}_store"),
                                       Signal.like(address, name=f"{side}_stored_at"))
            m.d.comb += [read.addr.eq(address), read.en.eq(1),
                         write.addr.eq(stored_at), write.en.eq(store), write.data.eq(row)]
            m.d.sync += [asked.eq(valid.bit_select(address, 1)), store.eq(0)]
            with m.If(self.load):
                for i in range(depth):
                    m.d.sync += [row[i].eq(read.data[i]), row[i].known.eq(read.data[i].known & asked)]
            with m.If(update):
                m.d.sync += [store.eq(1), stored_at.eq(address), valid.bit_select(address, 1).eq(1)]
                for i in range(depth):
                    with m.If((acts["insert"] | acts["replace"]) & at[i]):
                        m.d.sync += row[i].eq(entry)
                    if i:
                        with m.If(acts["insert"] & below[i - 1]):
                            m.d.sync += row[i].eq(row[i - 1])
                    with m.If(acts["delete"] & below[i]):
                        if i + 1 < depth:
                            m.d.sync += row[i].eq(row[i + 1])
                        else:
                            m.d.sync += row[i].known.eq(0)
                    with m.If(acts["thru"] | (acts["from_"] & below[i])):
                        m.d.sync += row[i].known.eq(0)
            with m.If(self.update_reset):
                m.d.sync += [valid.bit_select(address, 1).eq(0), *(row[i].known.eq(0) for i in range(depth))]
            with m.If(self.invalidate):
                m.d.sync += valid.eq(0)
        return m

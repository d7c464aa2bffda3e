"""Sums over a rolling window, of every instrument."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.gate.rows import Rows
from hdl.memory import BlockMemory

__all__ = ["CYCLES", "PARTS", "UNIT_CYCLES", "RollingSums"]

#: Sub-buckets of a window. One more runs: what is as old as the window still counts.
PARTS = 8
_KEPT = PARTS + 1
#: A sub-bucket is a multiple of this.
UNIT_CYCLES = 16
_UNIT_BITS = UNIT_CYCLES.bit_length() - 1
_FRACTION = _UNIT_BITS + PARTS.bit_length() - 1     # bits of the window's cycles that are less than a unit each
_NUMBER_BITS = 24
#: Words of a memory that is in one block, however wide they are.
_WIDEST_WORDS = 512

# Cycles after `add`: the row has been fetched, compared, all sub-buckets have been asked for, and the last one has
# passed memory, choice, sum and total.
_ASK = 6
_PIPE = 4
#: Cycles from ``add`` to ``done``.
CYCLES = _ASK + _KEPT + _PIPE


class RollingSums(wiring.Component):
    """What came in over a rolling window of time, summed up for each instrument.

    Time is cut into sub-buckets of ceil(``window_cycles`` / 128) * 16 cycles, 16 at least: an eighth of the window,
    rounded up. What counts is the sub-bucket that runs and the eight before it, so that nothing is forgotten before
    ``window_cycles`` have passed, and everything after nine sub-buckets at the latest. A new window counts two cycles
    later, for the sub-bucket that runs too; the eight before it stay as they were.

    Parameters
    ----------
    instruments : number of instruments, 1..256.
    widths : mapping of the name of a sum to the bits of what is added to it.

    Members
    -------
    window_cycles : in(32).
    mark : in(1) what is added next belongs to the sub-bucket that runs in this cycle.
    add : in(1) strobe: add ``amount_<name>`` : in(width) to the sums of ``instrument`` : in(8), and tell them. Both
        stand from this cycle to ``done``.
    done : out(1) strobe, :data:`CYCLES` cycles after ``add``. From this cycle to the next ``add``
        ``sum_<name>`` : out(width + 1) is the sum, the new amount included; from 2^width on it says only that there is
        more than ``width`` bits hold: it must be forgotten before anything is added again.
    forget : in(1) strobe: the sums of ``instrument``, which has been the same for two cycles, are 0.
    clear : in(1) all sums are 0 as soon as ``clearing`` : out(1) is 0 again. After reset it is the same.

    ``add`` and ``forget`` exclude each other, ``clearing`` and the time from ``add`` to ``done``. An instrument to
    which nothing is added while 2^23 sub-buckets pass may find old amounts in its sums, and never less than it should.
    """

    def __init__(self, instruments, widths):
        self.instruments, self.widths = instruments, dict(widths)
        super().__init__({
            "window_cycles": In(32), "mark": In(1), "add": In(1), "forget": In(1), "instrument": In(8),
            "done": Out(1), "clear": In(1), "clearing": Out(1),
            **{f"amount_{name}": In(width) for name, width in self.widths.items()},
            **{f"sum_{name}": Out(width + 1) for name, width in self.widths.items()}})

    def elaborate(self, platform):
        m = Module()

        # Units of time: there are some cycles to find out whether a sub-bucket ends with the one that runs.
        phase, unit = Signal(_UNIT_BITS), Signal()
        length, age = Signal(32 - _FRACTION + 1), Signal(32 - _FRACTION + 1, init=1)    # units; the one that runs too
        due = Signal()
        number, place = Signal(_NUMBER_BITS), Signal(range(_KEPT))      # of the sub-bucket that runs, and its place
        m.d.sync += [phase.eq(phase + 1), unit.eq(phase == UNIT_CYCLES - 2), due.eq(~(age < length)),
                     length.eq(self.window_cycles[_FRACTION:] + self.window_cycles[:_FRACTION].any())]
        with m.If(unit):
            m.d.sync += age.eq(age + 1)
            with m.If(due):
                m.d.sync += [age.eq(1), number.eq(number + 1), place.eq(Mux(place == _KEPT - 1, 0, place + 1))]
        marked, marked_place = Signal.like(number), Signal.like(place)
        with m.If(self.mark):
            m.d.sync += [marked.eq(number), marked_place.eq(place)]

        # Of each instrument the sub-bucket that was last added to. Those between it and the one that runs were never
        # emptied: they are taken for empty, and are emptied as they pass.
        m.submodules.newest = newest = Rows(_NUMBER_BITS, self.instruments)
        long_ago = Cat(number[:-1], ~number[-1])
        m.d.comb += [newest.address.eq(self.instrument), newest.clear.eq(self.clear), newest.clear_row.eq(long_ago),
                     newest.write_row.eq(Mux(self.forget, long_ago, marked)), self.clearing.eq(newest.clearing)]
        since, stale = Signal(_NUMBER_BITS), Signal(range(_KEPT + 1))
        m.d.sync += since.eq(marked - newest.row)

        # One sub-bucket a cycle, from the newest to the oldest, through memory, choice, sum and total.
        step = Signal(range(CYCLES + 1))
        asks, ages = Signal(_KEPT), Signal(_PIPE)       # the sub-bucket that is asked for; which stages have one
        with m.If(self.add):
            m.d.sync += step.eq(1)
        with m.Elif(step != 0):
            m.d.sync += step.eq(step + 1)
        m.d.sync += [self.done.eq(step == CYCLES - 1), asks.eq(Cat(step == _ASK - 1, asks[:-1]))]
        with m.If(step == CYCLES - 1):
            m.d.sync += step.eq(0)
        with m.If(step == _ASK - 2):
            m.d.sync += stale.eq(Mux(since < _KEPT, since[:len(stale)], _KEPT))
        m.d.sync += ages.eq(Cat(asks.any(), ages[:-1]))

        with m.If(self.clear | self.clearing):
            m.d.sync += [step.eq(0), asks.eq(0), ages.eq(0), self.done.eq(0)]

        row = data.StructLayout(self.widths)
        width = max(1, (self.instruments - 1).bit_length())
        depth = _KEPT << width
        if depth > _WIDEST_WORDS:       # of several blocks for each bit synthesis would have to choose one
            m.submodules.parts = parts = BlockMemory(row, depth)
            write_en, write_addr, write_data = parts.write_en, parts.write_addr, parts.write_data
            read_addr, read_data = parts.read_addr, parts.read_data
        else:
            m.submodules.parts = parts = Memory(shape=row, depth=depth, init=[], attrs={"no_rw_check": 1})
            write, read = parts.write_port(), parts.read_port(domain="comb")
            write_en, write_addr, write_data = write.en, write.addr, write.data
            read_addr, read_data = read.addr, read.data
        at = [Signal(range(_KEPT), name=f"place_{n}") for n in range(_PIPE + 1)]
        with m.If(step == _ASK - 1):
            m.d.sync += at[0].eq(marked_place)
        with m.Elif(at[0] == 0):
            m.d.sync += at[0].eq(_KEPT - 1)
        with m.Else():
            m.d.sync += at[0].eq(at[0] - 1)
        m.d.sync += [after.eq(before) for before, after in pairwise(at)]
        fetched, came, kept = (Signal(row, name=name, reset_less=True) for name in ("fetched", "came", "kept"))
        is_first = Signal(_PIPE)
        m.d.sync += [fetched.eq(read_data), came.eq(fetched), is_first.eq(Cat(asks[0], is_first[:-1])), kept.eq(came)]
        with m.If(ages[1]):
            m.d.sync += stale.eq(Mux(stale == 0, 0, stale - 1))
            with m.If(stale != 0):
                m.d.sync += kept.eq(0)
        m.d.comb += [read_addr.eq(Cat(self.instrument[:width], at[0])),
                     write_addr.eq(Cat(self.instrument[:width], at[-1])), write_en.eq(ages[-1]),
                     newest.write.eq(self.forget | (ages[-1] & is_first[-1]))]
        for name, bits in self.widths.items():
            more = Signal(bits + 1, name=f"more_{name}")
            total = getattr(self, f"sum_{name}")
            m.d.sync += more.eq(kept[name] + Mux(is_first[2], getattr(self, f"amount_{name}"), 0))
            m.d.comb += write_data[name].eq(more[:bits])
            with m.If(ages[-1]):
                added = total[:bits] + more
                m.d.sync += total.eq(Mux(is_first[-1], more, Cat(added[:bits], added[bits:].any() | total[bits])))
        return m

"""G6b: how far a reference may get from what it was, over a window of time."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.control.registers import BAND_BITS
from hdl.gate.holds import HOLDING, Post
from hdl.gate.references import REFERENCE_BITS
from hdl.memory import BlockMemory, told_of
from hdl.ticker import ticker

__all__ = ["ANSWER_CYCLES", "BAND_AT", "LEAST_CYCLES", "SLOTS", "Drift"]

#: Slots of time that are kept for each instrument, the one that runs included.
SLOTS = 16
_LANES = 2      # read in one cycle, each from a memory of its own
_WORDS = SLOTS // _LANES
#: Bits of a slot's number; those above its place in the ring tell an old slot from a new one.
_NUMBER_BITS = 30
_PLACE_BITS = (SLOTS - 1).bit_length()
_TAG_BITS = _NUMBER_BITS - _PLACE_BITS

# Cycles from the address of the ring's word: it has been fetched, has left the memory's output, is known to be of the
# window, has been reduced to one extreme each way, and counts.
_PIPE = 5
#: Cycles from a commit to the next one, at least.
LEAST_CYCLES = _WORDS + 3
#: Cycles from a commit to the one in which the bank counts whose band it is held against.
BAND_AT = _WORDS - 2
# Behind the scan: both extremes one after the other through choice, product, sum and comparison; and the post.
_EXTREMES = _WORDS + _PIPE
#: Cycles from a commit to the first one in which its post may be taken.
ANSWER_CYCLES = _EXTREMES + 1 + 4 + 1


class _Slot(data.Struct):
    """What was told in one slot of time; as cleared, it adds nothing to any extreme."""

    least: REFERENCE_BITS
    greatest: REFERENCE_BITS
    tag: _TAG_BITS


class Drift(wiring.Component):
    """Holds an instrument while its reference is further from any of the window than the band allows.

    With ``ref`` a new reference and ``was`` each one that was told of the instrument within the window, it passes if ::

        abs(ref - was) * 2^16 <= was * band

    for all of them. That is said by two: what rises is furthest from the least ``was`` and has the narrowest band
    there, and what falls is furthest from the greatest. To be told ``x - was``, a whole number, is at most
    ``floor(was * band / 2^16)`` is to be told the same, so that nothing is lost by rounding. All that was told counts,
    not one reference of each slot: a slot keeps the least and the greatest.

    Time is cut into slots of ``floor(window / 16) + floor(window / 128) + 2`` cycles, and the one that runs and the 15
    before it count: what was told counts for at least ``window`` cycles and for no more than 9/8 of them and 32.
    The first reference that passes ends a hold; its own slot may remember what does not pass, which counts for the next
    one. A reference of 0 is none: it is not looked at (G6 does that). A new window counts for the slots from now on, a
    new band from the next reference on.

    Parameters
    ----------
    instruments : number of instruments, 1..256.

    Members
    -------
    cycles : in(32) the window; ``cycles_written`` : in(1) it is being written: it has its new value from the next cycle
        on, and changes in no other.
    commit : in(1) strobe: ``value`` : in(REFERENCE_BITS) is the reference of ``index`` : in(8), which is below
        ``instruments``. ``value`` stands from the cycle before ``commit`` on. At most once in :data:`LEAST_CYCLES`
        cycles; not while ``clearing`` : out(1), which is for 16 cycles an instrument after reset.
    band_write : in(1), band_address : in(16), band : in(BAND_BITS) the words of G6b (index in the low bits, bank above,
        as :class:`hdl.control.bank.RegisterBank` numbers its rows). bank : in(1) active bank; that of
        :data:`BAND_AT` cycles after a commit counts.
    post : out(Post), taken when ``post_ready`` : in(1): the instrument is held from now on, both sides, or not any
        more. ``post.valid`` :data:`ANSWER_CYCLES` after a commit that changes it, until it is taken, which must be
        within :data:`LEAST_CYCLES` cycles.

    A slot in which nothing is told keeps what stood in its place, and the number of a slot has 30 bits: an instrument
    whose references pause for 2^30 slots, that is for 2^26 windows, to a slot, is held by what it was then. That
    is the narrower error, and ends within the window.

    After reset nothing was told.
    """

    def __init__(self, instruments):
        if not 1 <= instruments <= 256:
            raise ValueError(f"instruments is {instruments}, must be 1..256")
        self.instruments = instruments
        super().__init__({
            "cycles": In(32), "cycles_written": In(1), "commit": In(1), "index": In(8), "value": In(REFERENCE_BITS),
            "band_write": In(1), "band_address": In(16), "band": In(BAND_BITS), "bank": In(1), "post": Out(Post),
            "post_ready": In(1), "clearing": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        width = max(1, (n - 1).bit_length())

        # Slots of time.
        length, restart, number = Signal(29, init=2), Signal(), Signal(_NUMBER_BITS)
        m.d.sync += [length.eq(self.cycles[4:] + self.cycles[7:] + 2), restart.eq(self.cycles_written)]
        with m.If(ticker(m, "slot", length, restart)):
            m.d.sync += number.eq(number + 1)

        # A reference that has come, and the slot that it came in.
        some, start = Signal(), Signal()
        value, index, slot = Signal(REFERENCE_BITS), Signal(width), Signal(_NUMBER_BITS)
        now, before = slot[_PLACE_BITS:], Signal(_TAG_BITS)     # tags of this round and of the one before
        m.d.sync += [some.eq(self.value.any()), before.eq(now - 1)]
        m.d.comb += start.eq(self.commit & some)
        with m.If(start):
            m.d.sync += [value.eq(self.value), index.eq(self.index), slot.eq(number)]

        # The ring's words, from that of the running slot on, once around.
        step, at, wrapped = Signal(range(_WORDS + 1)), Signal(range(_WORDS)), Signal()
        m.d.sync += [at.eq(at + 1), wrapped.eq(wrapped | at.all())]
        with m.If(start):
            m.d.sync += [step.eq(1), at.eq(number[1:_PLACE_BITS]), wrapped.eq(0)]
        with m.Elif(step == _WORDS):
            m.d.sync += step.eq(0)
        with m.Elif(step != 0):
            m.d.sync += step.eq(step + 1)
        first = step == 1
        reads, begins, rounds = ([Signal(bits, name=f"{name}_{k}") for k in range(1, _PIPE)] for name, bits in (
            ("reads", 1), ("begins", 1), ("rounds", _LANES)))
        m.d.sync += [reads[0].eq(step != 0), begins[0].eq(first),
                     rounds[0].eq(Mux(first, Cat(1, slot[0]), wrapped.replicate(_LANES))),
                     *(later.eq(earlier) for chain in (reads, begins, rounds) for earlier, later in pairwise(chain))]

        # A memory keeps its content through a reset.
        sweep = Signal(len(at) + width)
        with m.If(self.clearing):
            m.d.sync += [sweep.eq(sweep + 1), self.clearing.eq(~sweep.all())]
        merged, cleared = Signal(_Slot), Signal(_Slot)
        m.d.comb += [cleared.least.eq(~0), cleared.tag.eq(1 << _TAG_BITS - 1)]
        kept, counts = [], Signal(_LANES)       # slots of a word, and which of them are of the window
        for lane in range(_LANES):
            m.submodules[f"ring_{lane}"] = ring = BlockMemory(_Slot, _WORDS << width)
            fetched = Signal(_Slot, name=f"fetched_{lane}", reset_less=True)
            came, its = (Signal(_Slot, name=f"{name}_{lane}") for name in ("came", "kept"))
            m.d.sync += [fetched.eq(ring.read_data), came.eq(fetched), its.eq(came),
                         counts[lane].eq(reads[1] & (came.tag == Mux(rounds[1][lane], now, before)))]
            m.d.comb += [
                ring.read_addr.eq(Cat(at, index)),
                ring.write_addr.eq(Mux(self.clearing, sweep, Cat(slot[1:_PLACE_BITS], index))),
                ring.write_data.eq(Mux(self.clearing, cleared.as_value(), merged.as_value())),
                ring.write_en.eq(self.clearing | (begins[3] & (slot[0] == lane))),
            ]
            kept.append(its)

        # The running slot comes first: it takes the new reference in, and is put back.
        mine, is_old = Mux(slot[0], *(its.as_value() for its in reversed(kept))), Mux(slot[0], counts[1], counts[0])
        mine = data.View(_Slot, mine)
        m.d.sync += [
            merged.tag.eq(now),
            merged.least.eq(Mux(is_old & less(mine.least, value), mine.least, value)),
            merged.greatest.eq(Mux(is_old & less(value, mine.greatest), mine.greatest, value)),
        ]
        # Extremes of each word, and of all that have passed with the new reference.
        low, high, least, greatest = (
            Signal(REFERENCE_BITS, name=name) for name in ("low", "high", "least", "greatest"))
        any_counts = Signal()
        below, above = less(kept[1].least, kept[0].least), less(kept[0].greatest, kept[1].greatest)
        m.d.sync += [any_counts.eq(counts.any()),
                     low.eq(Mux(counts[1] & (below | ~counts[0]), kept[1].least, kept[0].least)),
                     high.eq(Mux(counts[1] & (above | ~counts[0]), kept[1].greatest, kept[0].greatest))]
        with m.If(begins[2]):
            m.d.sync += [least.eq(value), greatest.eq(value)]
        with m.Elif(any_counts):
            with m.If(less(low, least)):
                m.d.sync += least.eq(low)
            with m.If(less(greatest, high)):
                m.d.sync += greatest.eq(high)

        # The band of the instrument.
        m.submodules.bands = bands = Memory(shape=BAND_BITS, depth=2 << width, init=[], attrs={"no_rw_check": 1})
        write, read = bands.write_port(), bands.read_port(domain="comb")
        band_fetched, band_came = Signal(BAND_BITS, reset_less=True), Signal(BAND_BITS)
        m.d.comb += [read.addr.eq(Cat(index, self.bank)),
                     write.en.eq(self.clearing | self.band_write),
                     write.addr.eq(Mux(self.clearing, sweep[:width + 1], self.band_address[:width + 1])),
                     write.data.eq(Mux(self.clearing, 0, self.band))]
        m.d.sync += [band_fetched.eq(read.data), band_came.eq(band_fetched)]

        # What the next reference may overwrite while this one is judged.
        judged, of, band = Signal(REFERENCE_BITS), Signal(width), Signal(BAND_BITS)
        with m.If(step == _WORDS):
            m.d.sync += [judged.eq(value), of.eq(index), band.eq(band_came)]
        after = Signal(ANSWER_CYCLES - 1 - _WORDS)      # bit k: k + 1 cycles after the last word was asked for
        m.d.sync += after.eq(Cat(step == _WORDS, after[:-1]))
        is_least = after[_PIPE - 1]     # ... and now both extremes stand
        extreme, rises = Signal(REFERENCE_BITS), Signal()
        m.d.sync += [extreme.eq(Mux(is_least, least, greatest)), rises.eq(is_least)]
        assert BAND_BITS == 16
        lower, upper = Signal(2 * BAND_BITS), Signal(REFERENCE_BITS)
        moved, moved_then, room, beyond, was_beyond = (Signal(bits, name=name) for name, bits in (
            ("moved", REFERENCE_BITS), ("moved_then", REFERENCE_BITS), ("room", REFERENCE_BITS), ("beyond", 1),
            ("was_beyond", 1)))
        m.d.sync += [
            lower.eq(extreme[:BAND_BITS] * band), upper.eq(extreme[BAND_BITS:] * band),
            moved.eq(Mux(rises, judged - extreme, extreme - judged)),
            room.eq(upper + lower[BAND_BITS:]), moved_then.eq(moved),    # less than what it is of
            beyond.eq(less(room, moved_then)), was_beyond.eq(beyond),
        ]

        # What changes is posted.
        held, of_judged = Signal(n), Signal(n)      # one bit an instrument
        was_held, fails, changes, waits = told_of(m, held, of, "was_held"), Signal(), Signal(), Signal()
        posted, holds = Signal(width), Signal()
        m.d.sync += of_judged.eq(1 << of)
        m.d.comb += [
            fails.eq(beyond | was_beyond), changes.eq(after[-1] & (fails != was_held)),
            self.post.valid.eq(waits), self.post.instrument.eq(posted), self.post.gate.eq(1 << HOLDING.index(25)),
            self.post.bid.eq(holds), self.post.ask.eq(holds),
        ]
        with m.If(changes):
            m.d.sync += [held.eq(held ^ of_judged), posted.eq(of), holds.eq(fails), waits.eq(1)]
        with m.Elif(self.post_ready):
            m.d.sync += waits.eq(0)
        return m

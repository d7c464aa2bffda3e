"""G6, G6c: what a price may be by a reference that is none of the feed's, and how old that reference may get.

With it comes what a lot is worth, for G12 and G13.
"""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.params import TICK_BITS, Ticks
from hdl.control.registers import BAND_BITS
from hdl.memory import told_of
from hdl.ticker import ticker

#: Bits of a reference in quote ticks: there is none below zero.
REFERENCE_BITS = TICK_BITS - 1
#: Where the feed's mid may be, in whole quote ticks.
Whole = signed(TICK_BITS + 3)


class Reference(data.Struct):
    """What the host knows of an instrument from elsewhere, in quote ticks.

    ``value``: an independent reference of its price. ``local``: its price at the quoted venue. ``basis``: by how much
    the feed's price is above that. ``lot_value``: what a lot is worth at its mark, in 1/256 of the unit of money.
    """

    value: REFERENCE_BITS
    local: REFERENCE_BITS
    basis: Ticks
    lot_value: 32


class References(wiring.Component):
    """References of all instruments, and what they allow one of them.

    ::

        low, high  = value -+ floor(value * collar / 2^16)                G6: collar = bands[0:16]
        mid_low    = local + basis - floor(local * pull / 2^16)           G6c: pull = bands[16:32]
        mid_high   = local + basis + floor(local * pull / 2^16)

    so that a price from ``low`` to ``high`` is nowhere further from ``value`` than the collar, and a mid of at least
    ``mid_low`` and below ``mid_high`` no further from ``local + basis`` than the pull. A product is rounded down:
    nothing is divided, and no band is wider than it says. ``high`` stops at the greatest price that there is.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    address : in(8) instrument that is asked for. load : in(1) in the second cycle after ``address`` came to rest, or
        later: take its references onto the bench, where they stand from the next cycle on. What is committed in the
        cycle before may be read as anything: the evaluation that it is for must not decide.
    commit : in(1) ``reference`` : in(:class:`Reference`) is that of ``index`` : in(8), which is below ``instruments``
        and stands from the cycle before ``commit`` on. At most every other cycle.
    cycles : in(32) greatest age; ``cycles_written`` : in(1) it is being written: it counts from the next cycle on, in
        which it changes, and in no other.
    at : in(8) bit *t* is set in cycle *t* of an evaluation, whose cycle 0 is that after ``load``. ``bands`` : in(32)
        right from cycle 0 on.
    ok : out(1) from cycle 3 on: there are references, they are young enough and not zero, and no band is.
    low, high : out(Ticks) in cycle 2 and until the next evaluation's cycle 1. They mean something if ``ok``.
    lot_value : out(32) from cycle 0 on, until the next ``load``. valued : out(1) from cycle 3 on: it was told, is young
        enough and not zero.
    mid_low, mid_high : out(Whole) from cycle 5 until the next evaluation's cycle 4, likewise.
    of_index : out(instruments) with ``commit``, the bit of ``index``.
    changed : out(instruments) one bit each: its references are being committed or have just become too old; all, with
        ``cycles_written``. disturbed : out(1) the bench's instrument, or that of an evaluation whose rows are on the
        way, may be among them.

    A reference is too old at the second strobe of a clock that comes every ``cycles`` / 2 cycles (rounded down; none if
    that is 0, and no reference counts): it lasts for at least ``cycles`` / 2 - 1 and for no more than ``cycles``.
    After reset there is none.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "address": In(8), "load": In(1), "commit": In(1), "index": In(8), "reference": In(Reference),
            "cycles": In(32), "cycles_written": In(1), "at": In(8), "bands": In(32), "ok": Out(1), "low": Out(Ticks),
            "high": Out(Ticks), "lot_value": Out(32), "valued": Out(1), "of_index": Out(instruments),
            "mid_low": Out(Whole), "mid_high": Out(Whole), "changed": Out(instruments), "disturbed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n, at = self.instruments, self.at
        width = max(1, (n - 1).bit_length())
        address, index = self.address[:width], self.index[:width]

        m.submodules.rows = rows = Memory(shape=Reference, depth=n, init=[], attrs={"no_rw_check": 1})
        write, read = rows.write_port(), rows.read_port(domain="comb")
        fetched, bench = Signal(Reference, reset_less=True), Signal(Reference)
        m.d.sync += fetched.eq(read.data)
        m.d.comb += [read.addr.eq(address), write.addr.eq(index), write.data.eq(self.reference),
                     write.en.eq(self.commit)]

        # Two strobes without a word from the host, and a reference is gone.
        tick = ticker(m, "reference", self.cycles >> 1, self.cycles_written)
        of_index, known, renewed = self.of_index, Signal(n), Signal(n)     # one bit an instrument
        committed, expired = Signal(n), Signal(n)
        m.d.sync += of_index.eq(1 << index)
        m.d.comb += [
            committed.eq(Mux(self.commit, of_index, 0)), expired.eq(Mux(tick, known & ~renewed, 0)),
            self.changed.eq(committed | expired | self.cycles_written.replicate(n)),
            self.disturbed.eq((self.commit & (index == address)) | tick | self.cycles_written),
        ]
        m.d.sync += [known.eq((known & ~expired) | committed),
                     renewed.eq((renewed & ~tick.replicate(n)) | committed)]
        asked, is_known = told_of(m, known, address, "asked"), Signal()
        with m.If(self.load):
            m.d.sync += [bench.eq(fetched), is_known.eq(asked)]

        # Multipliers have no time for a choice before them: one for each of both, in two products of few enough bits.
        def distance(of, band):
            """No more than what it is of, two cycles later but for a sum."""
            limb = 16
            lower, upper = Signal(limb + BAND_BITS), Signal(REFERENCE_BITS - limb + BAND_BITS)
            m.d.sync += [lower.eq(of[:limb] * band), upper.eq(of[limb:] * band)]
            assert limb == BAND_BITS
            return (upper + lower[BAND_BITS:])[:REFERENCE_BITS]

        collar = distance(bench.value, self.bands[:BAND_BITS])
        sum_ = Signal(REFERENCE_BITS + 1)
        m.d.comb += sum_.eq(bench.value + collar)
        pull, fair = Signal(REFERENCE_BITS), Signal(signed(TICK_BITS + 1))
        m.d.sync += [pull.eq(distance(bench.local, self.bands[BAND_BITS:])), fair.eq(bench.local + bench.basis)]
        with m.If(at[1]):
            m.d.sync += [self.low.eq(bench.value - collar),
                         self.high.eq(Mux(sum_[-1], (1 << REFERENCE_BITS) - 1, sum_[:REFERENCE_BITS]))]
        with m.If(at[4]):
            m.d.sync += [self.mid_low.eq(fair - pull), self.mid_high.eq(fair + pull)]
        given, bands, ages, valued = Signal(), Signal(), Signal(), Signal()     # ages: there is a limit
        m.d.sync += [ages.eq(self.cycles[1:].any()),
                     given.eq(is_known & bench.value.any() & bench.local.any() & ages),
                     bands.eq(self.bands[:BAND_BITS].any() & self.bands[BAND_BITS:].any()),
                     self.ok.eq(given & bands), valued.eq(is_known & bench.lot_value.any() & ages),
                     self.valued.eq(valued)]
        m.d.comb += self.lot_value.eq(bench.lot_value)
        return m

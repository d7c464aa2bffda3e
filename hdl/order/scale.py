"""Ticks and lots to the venue's mantissas with one narrow multiplier."""

from itertools import pairwise

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control.params import Ticks

__all__ = ["LIMB", "LIMBS", "RESULTS", "QuoteScaler"]

LIMB = 16
LIMBS = 4       # of a 64-bit result

#: One entry for each product: (result, column, limb of the multiplicand, limb of the multiplier); ``None`` for a
#: column that only takes the carry of the one before.
SCHEDULE = tuple(
    (job, column, a, column - a if a is not None else None)
    for job, limbs in ((0, 3), (1, 3), (2, 2), (3, 2))
    for column in range(LIMBS)
    for a in ([a for a in range(2) if 0 <= column - a < limbs] or [None]))
#: Results, in the order in which they come.
RESULTS = ("bid_price", "ask_price", "bid_qty", "ask_qty")
#: Name of each result, and the cycle after ``start`` in which its last limb comes: behind the last of its products come
#: its number, operand, product and accumulator.
READY = {name: 5 + max(n for n, (job, *_) in enumerate(SCHEDULE) if job == which) for which, name in enumerate(RESULTS)}


class QuoteScaler(wiring.Component):
    """Prices and quantities of a two-sided quote, as 64-bit mantissas, limb by limb.

    ``price = ticks * tick_e9`` (two's complement, modulo 2**64) and ``qty = lots * lot_mult``. A side of zero lots is
    absent: its price is ``null_price``, its quantity 0. One signed 17 by 17 bit multiplier forms the limb products
    column by column, so that no adder is wider than the accumulator of a column.

    **Timing**: with ``start`` in cycle ``S`` the inputs are read from ``S + 1`` on and must hold still until the last
    limb of the last result, which comes in ``S + ready[name]``. Each limb comes once, in the order of :data:`RESULTS`
    and the least significant first.

    Parameters
    ----------
    null_price : int
        Price mantissa that the venue reads as "no price".

    Members
    -------
    start : In(1)
    bid_ticks, ask_ticks : In(Ticks)
    bid_lots, ask_lots : In(24)
    tick_e9 : In(40)
        Price mantissa of one tick.
    lot_mult : In(32)
        Quantity mantissa of one lot.
    valid : Out(1), limb : Out(16), which : Out(4)
        Strobe: a limb of a result. ``which`` is its number in the result, and in the bits above that of the result.
    coming : Out(4)
        What ``which`` will be in the next cycle.

    Attributes
    ----------
    schedule, ready : :data:`SCHEDULE`, :data:`READY`
    """

    bid_ticks: In(Ticks)
    ask_ticks: In(Ticks)
    bid_lots: In(24)
    ask_lots: In(24)
    tick_e9: In(40)
    lot_mult: In(32)
    start: In(1)
    valid: Out(1)
    limb: Out(LIMB)
    which: Out(range(4 * LIMBS))
    coming: Out(range(4 * LIMBS))

    schedule = SCHEDULE
    ready = READY

    def __init__(self, *, null_price):
        self.null_price = null_price
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        schedule = self.schedule
        factors = (
            (self._limbs(self.bid_ticks, 2), self._limbs(self.tick_e9, 3)),
            (self._limbs(self.ask_ticks, 2), self._limbs(self.tick_e9, 3)),
            (self._limbs(self.bid_lots, 2), self._limbs(self.lot_mult, 2)),
            (self._limbs(self.ask_lots, 2), self._limbs(self.lot_mult, 2)),
        )

        step = Signal(range(len(schedule) + 1), init=len(schedule))
        with m.If(self.start):
            m.d.sync += step.eq(0)
        with m.Elif(step != len(schedule)):
            m.d.sync += step.eq(step + 1)

        # Which limbs come next is told a cycle ahead. A job has its own multiplicand; two share a multiplier.
        multiplicands = [limb for n in range(4) for limb in factors[n][0]]
        multipliers = [*factors[0][1], Const(0, LIMB + 1), *factors[2][1]]
        which_a, which_b, some = Signal(range(len(multiplicands))), Signal(range(8)), Signal()
        a = Signal(signed(LIMB + 1))
        b = Signal(signed(LIMB + 1))
        m.d.sync += [a.eq(Array(multiplicands)[which_a]), b.eq(Mux(some, Array(multipliers)[which_b], 0))]
        product = Signal(signed(2 * LIMB + 2))
        column_sum = Signal(signed(2 * LIMB + 5))
        first = [Signal(name=f"first_{n}") for n in range(3)]       # of a result: nothing to carry in
        shift = [Signal(name=f"shift_{n}") for n in range(3)]       # of a column: carry what is above a limb
        done = [Signal(name=f"done_{n}") for n in range(4)]         # last of a column
        target = [Signal(range(4 * LIMBS), name=f"target_{n}") for n in range(4)]
        m.d.sync += done[0].eq(0)
        with m.Switch(step):
            for n, (job, column, i, j) in enumerate(schedule):
                new_column = n == 0 or schedule[n - 1][:2] != (job, column)
                with m.Case(n):
                    m.d.sync += [
                        which_a.eq(2 * job + (i or 0)), which_b.eq(4 * (job > 1) + (j or 0)), some.eq(i is not None),
                        first[0].eq(new_column and column == 0),
                        shift[0].eq(new_column),
                        done[0].eq(n + 1 == len(schedule) or schedule[n + 1][:2] != (job, column)),
                        target[0].eq(job * LIMBS + column),
                    ]
        for stages in (first, shift, done, target):
            for earlier, later in pairwise(stages):
                m.d.sync += later.eq(earlier)
        m.d.sync += [
            product.eq(a * b),
            column_sum.eq(Mux(first[2], 0, Mux(shift[2], column_sum >> LIMB, column_sum)) + product),
        ]

        # A limb of a price whose side is absent is that of no price.
        bid_off, ask_off, is_null, null = Signal(), Signal(), Signal(), Signal(LIMB)
        job, column = target[3][2:], target[3][:2]
        m.d.sync += [bid_off.eq(self.bid_lots == 0), ask_off.eq(self.ask_lots == 0)]
        m.d.comb += [
            is_null.eq(((job == 0) & bid_off) | ((job == 1) & ask_off)),
            null.eq(Array(Const(self.null_price, 64).word_select(n, LIMB) for n in range(LIMBS))[column]),
            self.limb.eq(Mux(is_null, null, column_sum[:LIMB])),
            self.valid.eq(done[3]), self.which.eq(target[3]), self.coming.eq(target[2]),
        ]
        return m

    @staticmethod
    def _limbs(value, count):
        """Signed limbs of a value, least significant first; only the top one carries its sign."""
        limbs = [Cat(value[n * LIMB:(n + 1) * LIMB], Const(0, 1)).as_signed() for n in range(count - 1)]
        top = value[(count - 1) * LIMB:]
        return [*limbs, top.as_signed() if value.shape().signed else Cat(top, Const(0, 1)).as_signed()]

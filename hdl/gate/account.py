"""G19, and what G12 asks first: what the account is worth, how much of it is lost, and when that was last told."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.ticker import ticker

#: Bits of an amount of money, signed, in whatever unit the host counts.
Money = signed(32)
#: Cycles from ``told`` to the first one in which what follows from it shows.
CHECK_CYCLES = 5


class Account(wiring.Component):
    """Holds the account's equity against what may be lost.

    ::

        loss     = start - equity                        since the host wrote ``start``
        drawdown = greatest equity since then - equity

    Both are compared with their limits whenever equity is told. Three fifths of a limit warn, more than the limit is a
    loss that halts.

    Members
    -------
    equity : in(Money), told : in(1) it was written in the cycle before. start : in(Money), begun : in(1) likewise: the
        greatest equity so far is that.
    loss_most, drawdown_most : in(31) limits; 0 blocks: ``fresh`` is 0 then.
    cycles : in(32) greatest age of what was told; ``cycles_written`` : in(1) it is being written: it counts from the
        next cycle on, in which it changes, and in no other.
    fresh : out(1) equity was told, not too long ago, and there are limits. lost : out(1) more than a limit is lost.
    warned : out(1) more than three fifths of one are. Flip-flops; :data:`CHECK_CYCLES` after ``told`` they say what
        follows from it. changed : out(1) strobe: ``fresh`` changes at the end of this cycle.

    What was told is too old at the second strobe of a clock that comes every ``cycles`` / 2 cycles, as
    :class:`hdl.gate.references.References` counts. ``told`` comes at most once in four cycles. After reset nothing was
    told.
    """

    def __init__(self):
        super().__init__({
            "equity": In(Money), "told": In(1), "start": In(Money), "begun": In(1), "loss_most": In(31),
            "drawdown_most": In(31), "cycles": In(32), "cycles_written": In(1), "fresh": Out(1), "lost": Out(1),
            "warned": Out(1), "changed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        tick = ticker(m, "equity", self.cycles >> 1, self.cycles_written)
        peak, stages, higher = Signal(Money), Signal(CHECK_CYCLES - 1), Signal()
        m.d.sync += [stages.eq(stages << 1 | self.told), higher.eq(less(peak, self.equity))]
        with m.If(self.begun):
            m.d.sync += peak.eq(self.start)
        with m.Elif(stages[0] & higher):
            m.d.sync += peak.eq(self.equity)

        # Five times what is lost against three times the limit, and once against once: the drawdown a cycle behind the
        # loss, which goes by in all other cycles. A peak that is about to rise has nothing lost from it before either.
        gone, most, fivefold, threefold = Signal(signed(33)), Signal(31), Signal(signed(36)), Signal(33)
        over, near = Signal(2), Signal(2)       # now, and in the cycle before
        m.d.sync += [
            gone.eq(Mux(stages[0], peak, self.start) - self.equity),
            most.eq(Mux(stages[0], self.drawdown_most, self.loss_most)),
            fivefold.eq((gone << 2) + gone), threefold.eq((most << 1) + most),
            over.eq(Cat(less(most, gone), over[0])), near.eq(Cat(less(threefold, fivefold), near[0])),
        ]
        with m.If(stages[3]):
            m.d.sync += [self.lost.eq(over.any()), self.warned.eq(near.any())]

        known, renewed, limited, fresh = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            known.eq((known & ~(tick & ~renewed)) | stages[3]), renewed.eq((renewed & ~tick) | stages[3]),
            limited.eq(self.loss_most.any() & self.drawdown_most.any() & self.cycles[1:].any()),
            self.fresh.eq(fresh),
        ]
        m.d.comb += [fresh.eq(known & limited), self.changed.eq(self.fresh != fresh)]
        return m

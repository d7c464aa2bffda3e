"""Prices from the wire's decimal mantissa to ticks, by exact division without a divider."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control.params import TICK_BITS, Ticks
from hdl.sums import sum_of_three

#: A tick is a multiple of at most 2^15: any power of ten that has an odd part of 32 bits is.
SHIFT_BITS = 4


class TickConverter(wiring.Component):
    """``ticks = px / tick`` where that is exact, else ``ok`` = 0.

    A tick is ``odd * 2^shift``. An exact multiple has ``shift`` zero bits at its end, and what is left is divided by
    ``odd`` with one multiplication by the inverse of ``odd`` modulo 2^TICK_BITS. Multiplying back shows whether the
    price was a multiple and fits so many bits: a null price does neither.

    Members
    -------
    px : in(64, signed) mantissa.
    shift : in(4), odd : in(32), inverse : in(TICK_BITS) the tick; ``odd`` = 0 (no tick configured) never gives ``ok``.
    ticks : out(Ticks) right ``LATENCY`` cycles after the inputs came to rest, ``ok`` : out(1) after ``PROOF``.
    """

    LATENCY = 3
    PROOF = 6

    def __init__(self):
        super().__init__({"px": In(signed(64)), "shift": In(SHIFT_BITS), "odd": In(32),
                          "inverse": In(TICK_BITS), "ticks": Out(Ticks), "ok": Out(1)})

    def elaborate(self, platform):
        m = Module()
        whole = Signal(signed(64))          # px / 2^shift
        lost = (1 << SHIFT_BITS) - 1
        tail = Signal(lost)                 # the bits that the shift takes away
        parts = Signal(2)                   # ... any of them set, in halves
        exact = Signal()                    # ... none
        # Partial products of 16-bit limbs. Modulo 2^TICK_BITS the product of the two upper limbs falls out.
        low = Signal(TICK_BITS)
        cross = [Signal(TICK_BITS - 16, name=f"cross_{n}") for n in range(2)]
        back_low, back_high = Signal(32), Signal(Ticks)
        back_cross = Signal(32), Signal(Ticks)
        back = Signal(signed(TICK_BITS + 32))
        ticks, odd = self.ticks, self.odd
        upper = ticks[16:].as_signed()
        has_odd = Signal()
        m.d.sync += [
            whole.eq(self.px >> self.shift),
            tail.eq(self.px.as_unsigned()[:lost] & Cat(self.shift > i for i in range(lost))),
            parts.eq(Cat(tail[:8].any(), tail[8:].any())),
            exact.eq(~parts.any()), has_odd.eq(odd != 0),
            low.eq(whole[:16] * self.inverse[:16]),
            cross[0].eq(whole[:16] * self.inverse[16:]),
            cross[1].eq(whole[16:TICK_BITS] * self.inverse[:16]),
            ticks.eq(Cat(low[:16], low[16:] + cross[0] + cross[1])),
            back_low.eq(ticks[:16] * odd[:16]), back_high.eq(upper * odd[16:]),
            back_cross[0].eq(ticks[:16] * odd[16:]), back_cross[1].eq(upper * odd[:16]),
            back.eq(Cat(back_low[:16], sum_of_three(Cat(back_low[16:], back_high).as_signed(), *back_cross))),
            self.ok.eq(exact & has_odd & (back == whole)),
        ]
        return m

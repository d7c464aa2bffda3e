"""Prices from the wire's decimal mantissa to ticks, by exact division without a divider."""

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class TickConverter(wiring.Component):
    """``ticks = px / tick`` where that is exact, else ``ok`` = 0.

    A tick is ``odd * 2^shift``. An exact multiple has ``shift`` zero bits at its end, and what is left is divided by
    ``odd`` with one multiplication by the inverse of ``odd`` modulo 2^32. Multiplying back shows whether the price was
    a multiple and fits 32 bits: a null price does neither.

    Members
    -------
    px : in(64, signed) mantissa.
    shift : in(6), odd : in(32), inverse : in(32) the tick; ``odd`` = 0 (no tick configured) never gives ``ok``.
    en : in(1) the pipeline moves (it may rest to save power).
    ticks : out(32, signed), ok : out(1) right ``LATENCY`` cycles after the inputs came to rest.
    """

    LATENCY = 5

    def __init__(self):
        super().__init__({"px": In(signed(64)), "shift": In(6), "odd": In(32), "inverse": In(32), "en": In(1),
                          "ticks": Out(signed(32)), "ok": Out(1)})

    def elaborate(self, platform):
        m = Module()
        whole = Signal(signed(64))          # px / 2^shift
        even = Signal()                     # ... without remainder
        low, high = Signal(48), Signal(48)  # halves of the product with the inverse
        quotient = Signal(signed(32))
        back_low, back_high = Signal(signed(49)), Signal(signed(49))  # halves of the product with odd
        back = Signal(signed(66))
        below = Signal(64)                  # the bits that the shift takes away
        m.d.comb += [back.eq(back_low + (back_high << 16)), below.eq((1 << self.shift) - 1)]
        with m.If(self.en):
            m.d.sync += [
                whole.eq(self.px >> self.shift),
                even.eq((self.px.as_unsigned() & below) == 0),
                low.eq(whole[:32] * self.inverse[:16]),
                high.eq(whole[:16] * self.inverse[16:]),
                quotient.eq((low[:32] + (high[:16] << 16))[:32]),
                back_low.eq(quotient * self.odd[:16]),
                back_high.eq(quotient * self.odd[16:]),
                self.ticks.eq(quotient),
                self.ok.eq(even & (back == whole) & (self.odd != 0)),
            ]
        return m

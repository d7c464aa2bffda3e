"""A strobe every so many cycles, as the host says."""

from amaranth import Signal

__all__ = ["ticker"]


def ticker(m, name, interval, restart):
    """A strobe every ``interval`` cycles, none if that is 0.

    Parameters
    ----------
    m : Module
    name : str
    interval : Value of 32 bits. Changes in no cycle but that of ``restart``.
    restart : Value of one bit
        ``interval`` has its new value from the next cycle on: counting begins anew with it, so that the first strobe
        comes ``interval`` + 1 cycles after this one.

    Returns
    -------
    Signal, a flip-flop.
    """
    # Down to one; that little is left above the low bits is known a cycle ahead.
    left, tick = Signal(32, name=f"{name}_left"), Signal(name=f"{name}_tick")
    off, again = Signal(name=f"{name}_off", init=1), Signal(name=f"{name}_again")
    ends, few = Signal(name=f"{name}_ends"), Signal(name=f"{name}_few")
    m.d.sync += [off.eq(interval == 0), again.eq(restart)]
    ending = Signal(name=f"{name}_ending")
    m.d.sync += [ends.eq(ending), tick.eq(ending)]
    is_few = interval[4:] == 0
    with m.If(again | ends | off):
        m.d.sync += [left.eq(interval), few.eq(is_few)]
        m.d.comb += ending.eq(is_few & (interval[:4] == 1))
    with m.Else():
        m.d.sync += [left.eq(left - 1), few.eq(left[4:] == 0)]
        m.d.comb += ending.eq(few & (left[:4] == 2))
    return tick

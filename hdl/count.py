"""Counters that are too wide for one carry chain in a cycle."""

from amaranth import Signal, Value

__all__ = ["count"]


def count(m, value, when, load=0, loaded=0):
    """Adds one to ``value`` with ``when``, or sets it to ``loaded`` with ``load``, from the next cycle on.

    In two halves, side by side: that the lower one is full is known a cycle ahead. So ``when`` must not come in two
    cycles running; with and behind ``load`` it may. Who sets ``value`` otherwise lets a cycle pass before ``when``.
    """
    loaded = Value.cast(loaded)
    half = len(value) // 2
    full = Signal(name=f"{value.name}_full")
    m.d.sync += full.eq(value[:half].all())
    with m.If(load):
        m.d.sync += [value.eq(loaded), full.eq(loaded[:half].all())]
    with m.Elif(when):
        m.d.sync += [value[:half].eq(value[:half] + 1), value[half:].eq(value[half:] + full)]

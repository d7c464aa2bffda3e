"""Components that do the same and components that do not, as Yosys sees them."""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.mutation.equality import same


class Counter(wiring.Component):
    """Counts ``step`` up to ``most``. ``late`` : what is counted is told a cycle later, ``first`` at first."""

    def __init__(self, add=lambda count: count + 1, width=4, first=0, start=0):
        self.add, self.first, self.start = add, first, start
        super().__init__({"en": In(1), "data": In(4), "count": Out(width, init=start), "late": Out(4)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(4, init=self.first)
        m.d.sync += [held.eq(self.data), self.late.eq(Mux(self.en, held, 0))]
        with m.If(self.en):
            m.d.sync += self.count.eq(self.add(self.count))
        return m


@pytest.mark.parametrize(("changes", "equal"), [
    ({}, True),
    ({"add": lambda count: count - 15}, True),      # modulo 16
    ({"add": lambda count: count + 2}, False),
    ({"add": lambda count: Mux(count == 15, 1, count + 1)}, False),     # fifteen cycles away
    ({"width": 3}, False),                          # another component
    ({"first": 1}, False),                          # it shows in the second cycle
    ({"start": 1}, False),
])
def test_same(changes, equal, tmp_path):
    was, now = (rtlil.convert(Counter(**made), emit_src=False) for made in ({}, changes))
    assert same(was, now, tmp_path) == equal


class Late(wiring.Component):
    """Tells of ``data`` from the third cycle on."""

    def __init__(self, first):
        self.first = first
        super().__init__({"data": In(4), "late": Out(4)})

    def elaborate(self, platform):
        m = Module()
        held, begun = Signal(4, init=self.first), Signal()
        m.d.sync += [held.eq(self.data), begun.eq(1)]
        with m.If(begun):
            m.d.sync += self.late.eq(held)
        return m


def test_a_start_that_nobody_sees(tmp_path):
    was, now = (rtlil.convert(Late(first), emit_src=False) for first in (0, 1))
    assert same(was, now, tmp_path)

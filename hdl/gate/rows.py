"""A row for each instrument, for gates that have time."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["Rows"]


class Rows(wiring.Component):
    """A memory of one row for each instrument, of blocks or distributed, as synthesis sees fit.

    Parameters
    ----------
    shape : shape of a row.
    instruments : number of instruments, 1..256.

    Members
    -------
    address : in(8) instrument.
    row : out(shape) its row, if it has been the same for two cycles. What was written in the cycle before, or the one
        before that, may not show.
    write : in(1) ``write_row`` : in(shape) is the row of ``address`` from now on.
    clear : in(1) every row becomes what ``clear_row`` : in(shape) is in its turn, one a cycle, while ``clearing`` :
        out(1) is high. Nothing may be written in that time. After reset it is the same.
    """

    def __init__(self, shape, instruments):
        if not 1 <= instruments <= 256:
            raise ValueError(f"instruments is {instruments}, must be 1..256")
        self.shape, self.instruments = shape, instruments
        super().__init__({"address": In(8), "row": Out(shape), "write": In(1), "write_row": In(shape), "clear": In(1),
                          "clear_row": In(shape), "clearing": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        sweep = Signal(range(max(2, n)))
        with m.If(self.clear):
            m.d.sync += [sweep.eq(0), self.clearing.eq(1)]
        with m.Elif(self.clearing):
            m.d.sync += [sweep.eq(sweep + 1), self.clearing.eq(sweep != n - 1)]

        # What is read while it is written is not used.
        m.submodules.memory = memory = Memory(shape=self.shape, depth=n, init=[], attrs={"no_rw_check": 1})
        write, read = memory.write_port(), memory.read_port(domain="comb")
        fetched = Signal(self.shape, reset_less=True)
        address = self.address[:len(read.addr)]
        m.d.sync += [fetched.eq(read.data), self.row.eq(fetched)]
        m.d.comb += [read.addr.eq(address), write.addr.eq(Mux(self.clearing, sweep, address)),
                     write.en.eq(self.write | self.clearing),
                     write.data.eq(Mux(self.clearing, self.clear_row, self.write_row))]
        return m

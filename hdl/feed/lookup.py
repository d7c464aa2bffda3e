"""From the feed's SecurityID to the instrument number."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class InstrumentLookup(wiring.Component):
    """Compares a SecurityID with every configured one at once.

    Parameters
    ----------
    instruments : number of entries.

    Members
    -------
    write : in(1), write_index : in(8), write_id : in(32) set one entry; 0 means unused.
    security_id : in(32) id looked up.
    hit : out(1), index : out(8) combinational answer; the lowest entry wins.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({"write": In(1), "write_index": In(8), "write_id": In(32), "security_id": In(32),
                          "hit": Out(1), "index": Out(8)})

    def elaborate(self, platform):
        m = Module()
        table = Array(Signal(32, name=f"security_id_{i}") for i in range(self.instruments))
        with m.If(self.write & (self.write_index < self.instruments)):
            m.d.sync += table[self.write_index].eq(self.write_id)
        matches = Signal(self.instruments)
        m.d.comb += [matches[i].eq((table[i] == self.security_id) & (table[i] != 0))
                     for i in range(self.instruments)]
        index = 0
        for i in reversed(range(self.instruments)):
            index = Mux(matches[i], i, index)
        m.d.comb += [self.hit.eq(matches.any()), self.index.eq(index)]
        return m

"""What a frame says of prices and quantities, as it comes from the scaler, by rows of the frame."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.order.encoder import LANES
from hdl.order.scale import LIMB, LIMBS, RESULTS

__all__ = ["StoredRows"]

ROWS = 16       # of LUT memory


class StoredRows(wiring.Component):
    """Takes the scaler's limbs and gives them by rows of the encoder's template, each byte in its lane.

    **Latency**: a limb of cycle ``c`` is there for a ``row`` of ``c`` or later; ``o`` is the row of two cycles before.

    Parameters
    ----------
    places : list of :class:`hdl.order.encoder.Place`
        Where the bytes of :data:`hdl.order.scale.RESULTS` belong, each of them once.
    rows : int
        Rows of the template.

    Members
    -------
    valid : In(1), limb : In(16), coming : In(4)
        As :class:`hdl.order.scale.QuoteScaler` has them.
    row : In, en : In(1)
        Row of the template. ``en``, in the cycle after: it is one of a frame; ``o`` is 0 behind others.
    o : Out(32)
        Its bytes; 0 where the row has others.
    """

    def __init__(self, places, rows):
        at = {(RESULTS.index(place.port) * LIMBS + place.index * 8 // LIMB, place.index * 8 % LIMB): place
              for place in places}
        assert len(at) == len(places) == len(RESULTS) * LIMBS * LIMB // 8, "a byte is missing, or there twice"
        self.at = at
        self.first, self.last = (edge(place.row for place in places) for edge in (min, max))
        assert self.last - self.first < ROWS
        super().__init__({
            "valid": In(1),
            "limb": In(LIMB),
            "coming": In(range(len(RESULTS) * LIMBS)),
            "row": In(range(rows)),
            "en": In(1),
            "o": Out(8 * LANES),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, asked = [], Signal.like(self.row)
        m.d.sync += asked.eq(self.row)
        for lane in range(LANES):
            # For each limb: whether one of its bytes goes here, which one, and to which row.
            its = [next(((1, bit != 0, place.row % ROWS) for (which, bit), place in self.at.items()
                         if which == limb and place.lane == lane), (0, 0, 0)) for limb in range(len(RESULTS) * LIMBS)]
            takes, upper, at = (Signal(name=f"takes_{lane}"), Signal(name=f"upper_{lane}"),
                                Signal(range(ROWS), name=f"at_{lane}"))
            m.d.sync += Cat(takes, upper, at).eq(
                Array(Const(a | b << 1 | row << 2, 6) for a, b, row in its)[self.coming])
            m.submodules[f"lane_{lane}"] = memory = Memory(
                shape=8, depth=ROWS, init=[], attrs={"ram_style": "distributed", "no_rw_check": 1})
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(at), write.data.eq(Mux(upper, self.limb[8:], self.limb[:8])),
                write.en.eq(self.valid & takes), read.addr.eq(asked),
            ]
            lanes.append(read.data)
        inside = self.en & (asked >= self.first) & (asked <= self.last)
        m.d.sync += self.o.eq(Mux(inside, Cat(lanes), 0))
        return m

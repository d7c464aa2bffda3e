"""Layouts in gateware: registers that catch fields out of a byte stream."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In


class FieldCapture(wiring.Component):
    """Catches fields of a layout from a byte-serial stream.

    The stream presents one byte a cycle with its place inside the layout. A field is complete in the cycle in which
    its last byte arrives; from the next cycle on it stands in its register until its bytes come by again.

    Parameters
    ----------
    fields : mapping of a short name to a :class:`hdl.layout.fields.Field` (little endian, at most 8 bytes).
    places : width of ``place``, at least up to the last byte of the last field, which is the default.

    Members
    -------
    en : in(1) a byte of this layout is on ``data``.
    place : in(places) its offset, one hot.
    data : in(8) the byte.

    Attributes
    ----------
    value : mapping of name to signal, the field as last completed (bytes of a field in progress are already in it).
    now : mapping of name to value: the field including the byte that is arriving; right while ``done`` is high.
    done : mapping of name to a strobe, high while the last byte of the field is arriving. No added latency.
    """

    def __init__(self, fields, places=None):
        least = max(f.end for f in fields.values())
        if places is not None and places < least:
            raise ValueError(f"{places} places are too few, the last field ends at {least}")
        for name, f in fields.items():
            if f.byteorder != "little" and f.size > 1:
                raise ValueError(f"field {name} is {f.byteorder} endian; FieldCapture takes little-endian fields")
        self.fields = fields
        super().__init__({"en": In(1), "place": In(places or least), "data": In(8)})
        self.value = {name: Signal(8 * f.size, name=name) for name, f in fields.items()}
        self.now = {name: Cat(self.value[name][:-8], self.data) if f.size > 1 else self.data
                    for name, f in fields.items()}
        self.done = {name: Signal(name=f"{name}_done") for name in fields}

    def elaborate(self, platform):
        m = Module()
        for name, f in self.fields.items():
            m.d.comb += self.done[name].eq(self.en & self.place[f.end - 1])
            for i in range(f.size):
                with m.If(self.en & self.place[f.offset + i]):
                    m.d.sync += self.value[name].word_select(i, 8).eq(self.data)
        return m

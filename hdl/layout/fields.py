"""Fixed-size byte layouts: fields with an offset, a width and a byte order.

Everything that reads or writes bytes (hardware extractors and encoders, host codecs, the golden model) takes its
offsets from these objects. They are built from SBE schemas (:mod:`hdl.layout.sbe`) or from tables
(:mod:`hdl.layout.net`).
"""

import struct
from dataclasses import dataclass, field
from functools import cached_property


class LayoutError(ValueError):
    """A value does not fit its field, a buffer is too short, or a name is unknown."""


@dataclass(frozen=True)
class Field:
    """One field of a layout.

    Attributes
    ----------
    name : name as in the schema; members of a composite are joined with a dot (``bidQty.mantissa``).
    offset : byte offset from the start of the enclosing layout.
    size : width in bytes.
    signed : two's complement if true.
    byteorder : ``"little"`` or ``"big"``.
    null : wire value that means "absent", or ``None`` if the field is required.
    const : value that never appears on the wire (SBE constant presence), or ``None``; such fields have size 0.
    enum : name of the enumeration or set that gives the values their names, ``""`` if none.
    kind : ``"int"``, ``"char"`` (fixed-length text), ``"bytes"`` or ``"float"`` (IEEE 754).
    """

    name: str
    offset: int
    size: int
    signed: bool = False
    byteorder: str = "little"
    null: int | None = None
    const: int | str | None = None
    enum: str = ""
    kind: str = "int"

    @property
    def end(self):
        """Offset of the first byte after the field."""
        return self.offset + self.size

    @property
    def range(self):
        """Inclusive (minimum, maximum) of an integer field."""
        bits = 8 * self.size
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)

    def shifted(self, offset, prefix=""):
        """The same field inside a larger layout, ``offset`` bytes further on."""
        return Field(prefix + self.name, self.offset + offset, self.size, self.signed, self.byteorder, self.null,
                     self.const, self.enum, self.kind)

    def pack(self, value):
        """Bytes of one value. ``None`` packs the null value. Raises :class:`LayoutError` if it does not fit."""
        if self.kind == "int":
            if value is None:
                if self.null is None:
                    raise LayoutError(f"field {self.name} is required, got None")
                value = self.null
            low, high = self.range
            if not low <= value <= high:
                raise LayoutError(f"field {self.name} holds {low}..{high}, got {value}")
            return int(value).to_bytes(self.size, self.byteorder, signed=self.signed)
        if self.kind == "float":
            return struct.pack(("<" if self.byteorder == "little" else ">") + {4: "f", 8: "d"}[self.size], value)
        raw = value.encode("ascii") if isinstance(value, str) else bytes(value)
        if len(raw) > self.size:
            raise LayoutError(f"field {self.name} holds {self.size} bytes, got {len(raw)}: {raw!r}")
        return raw.ljust(self.size, b"\0")

    def unpack(self, buffer, offset=0):
        """Value found in ``buffer`` for a layout that starts at ``offset``; null values come back as ``None``."""
        if self.const is not None:
            return self.const
        start = offset + self.offset
        raw = bytes(buffer[start:start + self.size])
        if len(raw) != self.size:
            raise LayoutError(f"field {self.name} needs bytes {start}..{start + self.size}, buffer has {len(buffer)}")
        if self.kind == "int":
            value = int.from_bytes(raw, self.byteorder, signed=self.signed)
            return None if value == self.null else value
        if self.kind == "float":
            return struct.unpack(("<" if self.byteorder == "little" else ">") + {4: "f", 8: "d"}[self.size], raw)[0]
        if self.kind == "char":
            return raw.rstrip(b"\0 ").decode("ascii", "replace")
        return raw


@dataclass(frozen=True)
class Composite:
    """A fixed-size run of fields.

    Attributes
    ----------
    name : name of the layout.
    size : total bytes on the wire.
    fields : mapping of name to :class:`Field`, in wire order.
    """

    name: str
    size: int
    fields: dict = field(default_factory=dict)

    @cached_property
    def wire_fields(self):
        """Fields that occupy bytes."""
        return tuple(f for f in self.fields.values() if f.size)

    def __getitem__(self, name):
        try:
            return self.fields[name]
        except KeyError:
            raise LayoutError(f"{self.name} has no field {name!r}; it has {', '.join(self.fields)}") from None

    def pack(self, **values):
        """Bytes of the layout; fields not named are null if optional, otherwise zero."""
        return pack_fields(self.name, self.size, self.fields, values)

    def unpack(self, buffer, offset=0):
        """Mapping of field name to value, read from ``buffer`` at ``offset``."""
        if len(buffer) < offset + self.size:
            raise LayoutError(f"{self.name} needs {self.size} bytes at {offset}, buffer has {len(buffer)}")
        return {f.name: f.unpack(buffer, offset) for f in self.fields.values()}


def pack_fields(owner, size, fields, values):
    """Pack ``values`` into ``size`` bytes by ``fields``; unknown names are refused.

    A dotted name whose prefix is one of ``values`` may be given as a mapping, and a composite with a single
    member on the wire may be given by its own name (``bidPrice`` for ``bidPrice.price9``).
    """
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{member}": v for member, v in value.items()})
        else:
            flat[name] = value
    unknown = [name for name in flat if name not in fields]
    if unknown:
        raise LayoutError(f"{owner} has no field {unknown[0]!r}; it has {', '.join(fields)}")
    out = bytearray(size)
    for f in fields.values():
        if f.size == 0:
            continue
        if f.name in flat:
            out[f.offset:f.end] = f.pack(flat[f.name])
        elif f.null is not None:
            out[f.offset:f.end] = f.pack(None)
    # A short name (alias) shares its bytes with its dotted twin: what was given by name must win over the twin's null.
    for name, value in flat.items():
        f = fields[name]
        if f.size:
            out[f.offset:f.end] = f.pack(value)
    return bytes(out)

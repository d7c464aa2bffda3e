"""Message layouts from Simple Binary Encoding schemas.

:func:`load` reads the project's own subsets (``schemas/*.xml``) or any exchange's file. The result knows every
message by name and by template id, with all composites flattened to plain fields, so that hardware generators and
host codecs share one description.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from .fields import Composite, Field, LayoutError, pack_fields

SCHEMA_DIR = Path(__file__).parent / "schemas"

_PRIMITIVES = {
    "char": (1, False), "int8": (1, True), "uint8": (1, False), "int16": (2, True), "uint16": (2, False),
    "int32": (4, True), "uint32": (4, False), "int64": (8, True), "uint64": (8, False),
    "float": (4, True), "double": (8, True),
}


def _default_null(primitive):
    size, signed = _PRIMITIVES[primitive]
    if primitive == "char":
        return 0
    return -(1 << 8 * size - 1) if signed else (1 << 8 * size) - 1


@dataclass(frozen=True)
class Group:
    """A repeating group: ``name``, ``dimension`` (:class:`Composite` with blockLength and numInGroup),
    ``block_length`` (bytes of one entry) and ``fields`` (offsets from the start of an entry)."""

    name: str
    dimension: Composite
    block_length: int
    fields: dict

    def __getitem__(self, name):
        if name not in self.fields:
            raise LayoutError(f"group {self.name} has no field {name!r}; it has {', '.join(self.fields)}")
        return self.fields[name]


@dataclass(frozen=True)
class VarData:
    """Variable-length data at the end of a message: ``length`` (:class:`hdl.layout.fields.Field`), then that many
    bytes."""

    name: str
    length: Field

    @property
    def length_size(self):
        """Bytes of the length."""
        return self.length.size


@dataclass(frozen=True)
class Message:
    """One message: root block, groups, variable-length data.

    Attributes
    ----------
    name, id : as in the schema.
    block_length : bytes of the root block (without any header).
    fields : mapping of name to :class:`Field`, offsets from the start of the root block.
    groups : mapping of name to :class:`Group`, in wire order.
    data : tuple of :class:`VarData`.
    """

    name: str
    id: int
    block_length: int
    fields: dict
    groups: dict = field(default_factory=dict)
    data: tuple = ()

    def __getitem__(self, name):
        if name not in self.fields:
            raise LayoutError(f"message {self.name} has no field {name!r}; it has {', '.join(self.fields)}")
        return self.fields[name]

    def size(self, **counts):
        """Bytes of a message with ``counts`` entries per group (groups not named are empty), no header."""
        return self.block_length + sum(g.dimension.size + counts.get(g.name, 0) * g.block_length
                                       for g in self.groups.values()) + sum(d.length.size for d in self.data)

    def group_offset(self, name, index=0, **counts):
        """Byte offset, from the start of the root block, of entry ``index`` of a group (earlier groups by count)."""
        offset = self.block_length
        for group in self.groups.values():
            offset += group.dimension.size
            if group.name == name:
                return offset + index * group.block_length
            offset += counts.get(group.name, 0) * group.block_length
        raise LayoutError(f"message {self.name} has no group {name!r}; it has {', '.join(self.groups)}")

    def encode(self, values=None, groups=None):
        """Bytes of root block, groups and data (no header)."""
        values, groups = dict(values or {}), dict(groups or {})
        texts = {d.name: values.pop(d.name, b"") for d in self.data}
        out = bytearray(pack_fields(self.name, self.block_length, self.fields, values))
        for group in self.groups.values():
            entries = groups.pop(group.name, ())
            out += group.dimension.pack(blockLength=group.block_length, numInGroup=len(entries))
            for entry in entries:
                out += pack_fields(f"{self.name}.{group.name}", group.block_length, group.fields, entry)
        if groups:
            raise LayoutError(f"message {self.name} has no group {next(iter(groups))!r}")
        for d in self.data:
            raw = texts[d.name].encode("ascii", "replace") if isinstance(texts[d.name], str) else bytes(texts[d.name])
            out += d.length.pack(len(raw)) + raw
        return bytes(out)

    def decode(self, buffer, block_length=None):
        """Mapping of field names to values; groups as lists of mappings; stepping by the wire's own block lengths.

        ``block_length`` is the root block's length as the wire gives it (default: the schema's). Fields that lie
        beyond a shorter wire block come back as ``None``.
        """
        block_length = self.block_length if block_length is None else block_length
        if len(buffer) < block_length:
            raise LayoutError(f"{self.name} needs a root block of {block_length} bytes, buffer has {len(buffer)}")
        out = {f.name: f.unpack(buffer) if f.end <= block_length else None for f in self.fields.values()}
        offset = block_length
        for group in self.groups.values():
            if offset == len(buffer):   # an older version of the message ends before this group
                out[group.name] = []
                continue
            dimension = group.dimension.unpack(buffer, offset)
            offset += group.dimension.size
            step, entries = dimension["blockLength"], []
            if len(buffer) < offset + step * dimension["numInGroup"]:
                raise LayoutError(f"{self.name}.{group.name} says {dimension['numInGroup']} entries of {step} bytes "
                                  f"at {offset}, buffer has {len(buffer)}")
            for _ in range(dimension["numInGroup"]):
                entries.append({f.name: f.unpack(buffer, offset) if f.end <= step else None
                                for f in group.fields.values()})
                offset += step
            out[group.name] = entries
        for d in self.data:
            length = d.length.unpack(buffer, offset)
            offset += d.length.size
            if len(buffer) < offset + length:
                raise LayoutError(f"{self.name}.{d.name} says {length} bytes at {offset}, buffer has {len(buffer)}")
            out[d.name] = bytes(buffer[offset:offset + length]).decode("ascii", "replace")
            offset += length
        return out


@dataclass(frozen=True)
class Schema:
    """A parsed schema: ``id``, ``version``, ``messages`` by name, ``composites``, ``enums`` (name -> value),
    ``sets`` (name -> bit number)."""

    name: str
    id: int
    version: int
    messages: dict
    composites: dict
    enums: dict
    sets: dict

    def __getitem__(self, name):
        if name not in self.messages:
            raise LayoutError(f"schema {self.name} has no message {name!r}; it has {', '.join(self.messages)}")
        return self.messages[name]

    @cached_property
    def by_id(self):
        """Messages by template id."""
        return {m.id: m for m in self.messages.values()}


class _Parser:
    def __init__(self, root, name):
        self.root, self.name = root, name
        self.byteorder = "big" if root.get("byteOrder") == "bigEndian" else "little"
        self.types, self.composites, self.enums, self.sets, self.encodings = {}, {}, {}, {}, {}
        self.built = {}     # composites that were parsed before, by their elements

    @staticmethod
    def _tag(element):
        return element.tag.rsplit("}", 1)[-1]

    def parse(self):
        for types in self.root:
            if self._tag(types) == "types":
                for element in types:
                    self._declare(element)
        messages = {}
        for element in self.root:
            if self._tag(element) == "message":
                message = self._message(element)
                messages[message.name] = message
        return Schema(self.name, int(self.root.get("id")), int(self.root.get("version", 0)), messages,
                      {name: self._composite(element) for name, element in self.composites.items()}, self.enums,
                      self.sets)

    def _declare(self, element):
        tag, name = self._tag(element), element.get("name")
        if tag == "type":
            self.types[name] = element
        elif tag == "composite":
            self.composites[name] = element
            for member in element:
                if self._tag(member) in ("enum", "set"):
                    self._declare(member)
        elif tag == "enum":
            self.encodings[name] = element.get("encodingType")
            self.enums[name] = {v.get("name"): self._enum_value(element, v.text) for v in element}
        elif tag == "set":
            self.encodings[name] = element.get("encodingType")
            self.sets[name] = {v.get("name"): int(v.text) for v in element}

    def _enum_value(self, element, text):
        encoding = element.get("encodingType")
        encoding = self.types[encoding].get("primitiveType") if encoding in self.types else encoding
        return ord(text.strip()) if encoding == "char" else int(text)

    def _primitive(self, name, primitive, attributes, offset, enum=""):
        length = int(attributes.get("length", 1))
        size, signed = _PRIMITIVES[primitive]
        if attributes.get("presence") == "constant":
            text = (attributes.get("_text") or "").strip()
            const = text if primitive == "char" else int(text or 0)
            return Field(name, offset, 0, const=const, enum=enum)
        if length != 1:
            kind = "char" if primitive == "char" else "bytes"
            return Field(name, offset, size * length, kind=kind, enum=enum)
        null = None
        if attributes.get("presence") == "optional" and primitive not in ("float", "double"):
            text = attributes.get("nullValue")
            null = int(text) if text else _default_null(primitive)
        kind = "float" if primitive in ("float", "double") else "int"
        return Field(name, offset, size, signed and kind == "int", self.byteorder, null, None, enum, kind)

    def _resolve(self, name, type_name, attributes, offset):
        """Flattened fields of one declaration, and the first offset after it."""
        if type_name in _PRIMITIVES:
            f = self._primitive(name, type_name, attributes, offset)
            return [f], f.end
        if type_name in self.types:
            element = self.types[type_name]
            merged = {**element.attrib, "_text": element.text}
            if attributes.get("presence") == "optional":
                merged["presence"] = "optional"
            f = self._primitive(name, element.get("primitiveType"), merged, offset)
            return [f], f.end
        if type_name in self.encodings:
            encoding = self.encodings[type_name]
            merged = dict(attributes)
            if encoding in self.types:
                merged = {**self.types[encoding].attrib, **merged}
                encoding = self.types[encoding].get("primitiveType")
            if attributes.get("presence") == "constant":
                merged["presence"], merged["_text"] = "optional", None
            f = self._primitive(name, encoding, merged, offset, enum=type_name)
            return [f], f.end
        if type_name in self.composites:
            composite = self._composite(self.composites[type_name])
            optional = attributes.get("presence") == "optional"
            fields = []
            for member in composite.fields.values():
                f = member.shifted(offset, name + ".")
                if optional and f.size and f.signed and not fields:  # the mantissa carries the null
                    f = Field(f.name, f.offset, f.size, f.signed, f.byteorder, f.range[0], f.const, f.enum, f.kind)
                fields.append(f)
            wire = [f for f in fields if f.size]
            if len(wire) == 1:  # a decimal with constant exponent reads as its mantissa
                fields.insert(0, Field(name, *[getattr(wire[0], a) for a in (
                    "offset", "size", "signed", "byteorder", "null", "const", "enum", "kind")]))
            return fields, offset + composite.size
        raise LayoutError(f"schema {self.name}: field {name!r} has unknown type {type_name!r}")

    def _composite(self, element):
        if element not in self.built:
            self.built[element] = self._build_composite(element)
        return self.built[element]

    def _build_composite(self, element):
        fields, end, size = {}, 0, 0
        for member in element:
            tag, name = self._tag(member), member.get("name")
            start = int(member.get("offset", end))
            if tag == "type":
                made = [self._primitive(name, member.get("primitiveType"),
                                        {**member.attrib, "_text": member.text}, start)] \
                    if member.get("primitiveType") in _PRIMITIVES \
                    else self._resolve(name, member.get("primitiveType"), member.attrib, start)[0]
            elif tag in ("enum", "set"):
                made = self._resolve(name, name, {}, start)[0]
            elif tag == "ref":
                made = self._resolve(name, member.get("type"), member.attrib, start)[0]
            else:
                raise LayoutError(f"schema {self.name}: composite {element.get('name')} holds an unknown {tag!r}")
            end = max(f.end for f in made)
            size = max(size, end)
            fields.update({f.name: f for f in made})
        return Composite(element.get("name"), size, fields)

    def _block(self, element):
        fields, groups, data, end = {}, {}, [], 0
        for member in element:
            tag, name = self._tag(member), member.get("name")
            if tag == "field":
                made, end = self._resolve(name, member.get("type"), member.attrib, int(member.get("offset", end)))
                fields.update({f.name: f for f in made})
            elif tag == "group":
                block, inner, _, length = self._block(member)
                if inner:
                    raise LayoutError(f"schema {self.name}: nested groups in {name!r} are not supported")
                dimension = self._composite(self.composites[member.get("dimensionType", "groupSizeEncoding")])
                groups[name] = Group(name, dimension, int(member.get("blockLength", length)), block)
            elif tag == "data":
                composite = self._composite(self.composites[member.get("type")])
                length = composite.fields.get("length") or next(iter(composite.fields.values()))
                data.append(VarData(name, length))
        size = max([f.end for f in fields.values()], default=0)
        return fields, groups, tuple(data), size

    def _message(self, element):
        fields, groups, data, size = self._block(element)
        return Message(element.get("name"), int(element.get("id")), int(element.get("blockLength") or size), fields,
                       groups, data)


@cache
def load(source):
    """Parse a schema: the name of one of the project's subsets (``"cme_mdp3"``) or the path of an XML file."""
    path = Path(source)
    if path.suffix != ".xml":
        path = SCHEMA_DIR / f"{source}.xml"
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in SCHEMA_DIR.glob("*.xml")))
        raise LayoutError(f"no schema {str(source)!r}: give one of {known}, or the path of an XML file") from None
    except ElementTree.ParseError as error:
        raise LayoutError(f"{path} is not well-formed XML: {error}") from None
    return _Parser(root, path.stem).parse()

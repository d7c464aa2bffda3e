"""SBE schemas: what the parser makes of every construct, and messages there and back."""

import random

import pytest

from hdl.layout import sbe
from hdl.layout.fields import LayoutError

CME, STARBASE, LINK = (sbe.load(name) for name in ("cme_mdp3", "starbase_orders", "t2q_link"))

SCHEMA = """<?xml version="1.0"?>
<m:messageSchema xmlns:m="http://fixprotocol.io/2016/sbe" package="x" id="7" version="3" byteOrder="{order}">
  <types>
    <composite name="groupSizeEncoding">
      <type name="blockLength" primitiveType="uint16"/><type name="numInGroup" primitiveType="uint8"/>
    </composite>
    <composite name="text"><type name="length" primitiveType="uint16"/>
      <type name="varData" primitiveType="char" length="0"/></composite>
    <composite name="Px"><type name="mantissa" primitiveType="int64"/>
      <type name="exponent" primitiveType="int8" presence="constant">-9</type></composite>
    <composite name="Qty"><type name="mantissa" primitiveType="int32"/><type name="exponent" primitiveType="int8"/>
    </composite>
    <composite name="Holes"><type name="a" primitiveType="uint8"/><type name="b" primitiveType="uint16" offset="4"/>
      <set name="Inner" encodingType="uint8"><choice name="on">3</choice></set></composite>
    <type name="Count" primitiveType="uint16"/>
    <type name="CountNull" primitiveType="uint16" presence="optional" nullValue="999"/>
    <type name="Name" primitiveType="char" length="5"/>
    <type name="Padding" primitiveType="int8" length="3"/>
    <type name="Venue" primitiveType="char" presence="constant">Q</type>
    <enum name="Kind" encodingType="char"><validValue name="BID">0</validValue><validValue name="RESET">J</validValue>
    </enum>
    <enum name="Side" encodingType="Count"><validValue name="BUY">1</validValue></enum>
    <set name="Flags" encodingType="uint16"><choice name="last">7</choice></set>
  </types>
  <m:message name="All" id="40" blockLength="60">
    <field name="first" id="1" type="uint8"/>
    <field name="count" id="2" type="Count"/>
    <field name="maybe" id="3" type="CountNull"/>
    <field name="forced" id="4" type="Count" presence="optional"/>
    <field name="name" id="5" type="Name"/>
    <field name="pad" id="6" type="Padding"/>
    <field name="venue" id="7" type="Venue"/>
    <field name="kind" id="8" type="Kind"/>
    <field name="side" id="9" type="Side"/>
    <field name="flags" id="10" type="Flags"/>
    <field name="px" id="11" type="Px"/>
    <field name="pxMaybe" id="12" type="Px" presence="optional"/>
    <field name="qty" id="13" type="Qty"/>
    <field name="holes" id="14" type="Holes" offset="48"/>
    <field name="level" id="15" type="float" offset="56"/>
  </m:message>
  <m:message name="Grouped" id="41">
    <field name="x" id="1" type="uint32"/>
    <group name="legs" id="2"><field name="leg" id="3" type="uint8"/></group>
    <group name="fills" id="4" blockLength="8"><field name="fill" id="5" type="int16"/></group>
    <data name="why" id="6" type="text"/>
  </m:message>
</m:messageSchema>"""


@pytest.fixture(params=["littleEndian", "bigEndian"])
def schema(request, tmp_path):
    path = tmp_path / f"{request.param}.xml"
    path.write_text(SCHEMA.format(order=request.param))
    return sbe.load(path)


def test_every_construct(schema):
    assert (schema.id, schema.version) == (7, 3)
    m = schema["All"]
    assert schema.by_id[40] is m
    assert m.block_length == 60
    order = "big" if schema.name.startswith("big") else "little"
    #: name: (offset, size, signed, null, const, kind, enum)
    expected = {
        "first": (0, 1, False, None, None, "int", ""),
        "count": (1, 2, False, None, None, "int", ""),
        "maybe": (3, 2, False, 999, None, "int", ""),
        "forced": (5, 2, False, 0xFFFF, None, "int", ""),
        "name": (7, 5, False, None, None, "char", ""),
        "pad": (12, 3, False, None, None, "bytes", ""),
        "venue": (15, 0, False, None, "Q", "int", ""),
        "kind": (15, 1, False, None, None, "int", "Kind"),
        "side": (16, 2, False, None, None, "int", "Side"),
        "flags": (18, 2, False, None, None, "int", "Flags"),
        "px": (20, 8, True, None, None, "int", ""),
        "px.mantissa": (20, 8, True, None, None, "int", ""),
        "px.exponent": (28, 0, False, None, -9, "int", ""),
        "pxMaybe": (28, 8, True, -1 << 63, None, "int", ""),
        "pxMaybe.mantissa": (28, 8, True, -1 << 63, None, "int", ""),
        "pxMaybe.exponent": (36, 0, False, None, -9, "int", ""),
        "qty.mantissa": (36, 4, True, None, None, "int", ""),
        "qty.exponent": (40, 1, True, None, None, "int", ""),
        "holes.a": (48, 1, False, None, None, "int", ""),
        "holes.b": (52, 2, False, None, None, "int", ""),
        "holes.Inner": (54, 1, False, None, None, "int", "Inner"),
        "level": (56, 4, False, None, None, "float", ""),
    }
    got = {f.name: (f.offset, f.size, f.signed, f.null, f.const, f.kind, f.enum) for f in m.fields.values()}
    assert got == expected
    assert {f.byteorder for f in m.fields.values() if f.size > 1 and f.kind in ("int", "float")} == {order}
    assert schema.enums == {"Kind": {"BID": ord("0"), "RESET": ord("J")}, "Side": {"BUY": 1}}
    assert schema.sets == {"Inner": {"on": 3}, "Flags": {"last": 7}}


def test_groups_and_data_there_and_back(schema):
    m = schema["Grouped"]
    assert (m.block_length, m.groups["legs"].block_length, m.groups["fills"].block_length) == (4, 1, 8)
    values = {"x": 5, "why": "no such leg"}
    groups = {"legs": [{"leg": 1}, {"leg": 2}], "fills": [{"fill": -3}]}
    raw = m.encode(values, groups)
    assert len(raw) == m.size(legs=2, fills=1) + len(values["why"])
    assert m.decode(raw) == values | groups
    assert m.group_offset("legs", 1) == 4 + 3 + 1
    assert m.group_offset("fills", legs=2) == 4 + 3 + 2 + 3
    assert raw[m.group_offset("fills", legs=2) + (schema.name.startswith("big")):][:1] == b"\xfd"


def test_wire_block_lengths_are_followed(schema):
    """A newer version has longer blocks, an older one shorter ones: what is not there is None."""
    m = schema["Grouped"]
    order = "big" if schema.name.startswith("big") else "little"

    def group(step, *entries):
        return step.to_bytes(2, order) + bytes([len(entries)]) + b"".join(entries)
    why = (2).to_bytes(2, order) + b"ok"
    longer = (5).to_bytes(4, order) + b"NEW" + group(3, b"\1NN", b"\2NN") + group(9, b"\0\3" + bytes(7)) + why
    got = m.decode(longer, block_length=7)
    assert got | {"fills": None} == {"x": 5, "legs": [{"leg": 1}, {"leg": 2}], "fills": None, "why": "ok"}
    shorter = group(0, b"") + group(1, b"\3") + why
    assert m.decode(b"\1\2" + shorter, block_length=2) == {
        "x": None, "legs": [{"leg": None}], "fills": [{"fill": None}], "why": "ok"}


@pytest.mark.parametrize(("buffer", "message"), [
    (bytes(3), "Grouped needs a root block of 4 bytes, buffer has 3"),
    (bytes(6), "groupSizeEncoding needs 3 bytes at 4, buffer has 6"),
    (bytes(4) + b"\1\0\5" + bytes(4), r"Grouped\.legs says 5 entries of 1 bytes at 7, buffer has 11"),
    (bytes(4) + bytes(6) + b"\5\0abc", r"Grouped\.why says 5 bytes at 12, buffer has 15"),
])
def test_cut_messages(tmp_path, buffer, message):
    path = tmp_path / "x.xml"
    path.write_text(SCHEMA.format(order="littleEndian"))
    with pytest.raises(LayoutError, match=message):
        sbe.load(path)["Grouped"].decode(buffer)


@pytest.mark.parametrize("schema", [CME, STARBASE, LINK], ids=lambda s: s.name)
def test_our_messages_there_and_back(schema):
    """Random values for every field of every message; what is null comes back as None."""
    seed = 74
    print(f"seed {seed}")
    rng = random.Random(seed)

    def values(fields):
        out = {}
        for f in fields.values():
            alias = any(other.name.startswith(f.name + ".") for other in fields.values())
            if f.size and not alias:
                out[f.name] = {
                    "int": lambda f=f: None if f.null is not None and rng.random() < .3 else rng.randint(*f.range),
                    "char": lambda f=f: "x" * rng.randrange(f.size + 1),
                    "bytes": lambda f=f: rng.randbytes(f.size),
                    "float": lambda: rng.randrange(1000) / 8,
                }[f.kind]()
        return out

    def without_aliases(got, fields):
        return {name: v for name, v in got.items()
                if not (name in fields and (fields[name].const is not None
                                            or any(other.startswith(name + ".") for other in fields)))}

    for m in schema.messages.values():
        root = values(m.fields) | {d.name: "because" for d in m.data}
        groups = {g.name: [values(g.fields) for _ in range(rng.randrange(3))] for g in m.groups.values()}
        raw = m.encode(root, groups)
        got = m.decode(raw)
        for g in m.groups.values():
            assert [without_aliases(entry, g.fields) for entry in got.pop(g.name)] == groups[g.name], (m.name, g.name)
        want = {name: None if name in m.fields and value is not None and value == m.fields[name].null else value
                for name, value in root.items()}
        assert without_aliases(got, m.fields) == want, m.name


@pytest.mark.parametrize("schema", [CME, STARBASE, LINK], ids=lambda s: s.name)
def test_our_layouts_have_no_overlaps(schema):
    for m in schema.messages.values():
        blocks = [(m.name, m.block_length, m.fields)] + [(f"{m.name}.{g.name}", g.block_length, g.fields)
                                                          for g in m.groups.values()]
        for name, length, fields in blocks:
            taken = {}
            for f in fields.values():
                for byte in range(f.offset, f.end):
                    other = taken.setdefault(byte, f.name)
                    assert other.split(".")[0] == f.name.split(".")[0], f"{name}: {other} and {f.name} share {byte}"
            assert not taken or max(taken) < length, name


def test_sizes_that_the_protocols_state():
    """From the specifications: offsets and lengths that the rest of the project depends on."""
    assert STARBASE.composites["MessageHeader"].size == 32
    quote = STARBASE["MassQuoteRequest"]
    assert (quote.block_length, quote.groups["quotes"].block_length) == (33, 46)
    assert 32 + quote.size(quotes=1) == 115
    assert 32 + STARBASE["MassQuoteCancelRequest"].size() == 49
    assert quote.groups["quotes"]["bidPrice"].null == -1 << 63
    entry = CME["MDIncrementalRefreshBook46"].groups["NoMDEntries"]
    assert (entry.block_length, entry.dimension.size, entry["MDEntryType"].offset) == (32, 3, 26)
    assert entry["MDEntrySize"].null == 2**31 - 1
    assert CME.composites["PacketHeader"].size == 12
    orders = CME["MDIncrementalRefreshBook46"].groups["NoOrderIDEntries"]
    assert (orders.dimension.size, orders.dimension["numInGroup"].offset) == (8, 7)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: CME["Book46"], "schema cme_mdp3 has no message 'Book46'; it has MDIncrementalRefreshBook32, "),
    (lambda: STARBASE["Heartbeat"]["id"], "message Heartbeat has no field 'id'; it has correlationId"),
    (lambda: STARBASE["MassQuoteRequest"].groups["quotes"]["bid"], "group quotes has no field 'bid'; it has instr"),
    (lambda: STARBASE["MassQuoteRequest"].group_offset("legs"), "MassQuoteRequest has no group 'legs'; it has quotes"),
    (lambda: STARBASE["Heartbeat"].encode({}, {"legs": []}), "message Heartbeat has no group 'legs'"),
    (lambda: STARBASE["MassQuoteRequest"].encode({}, {"quotes": [{"px": 1}]}),
     r"MassQuoteRequest\.quotes has no field 'px'"),
    (lambda: sbe.load("cme_mdp4"), "no schema 'cme_mdp4': give one of cme_mdp3, starbase_orders, t2q_link, or"),
])
def test_errors_say_what_would_have_been_right(call, message):
    with pytest.raises(LayoutError, match=message):
        call()


@pytest.mark.parametrize(("body", "message"), [
    ("<oops", "is not well-formed XML"),
    ('<messageSchema id="1"><message name="M" id="1"><field name="f" id="1" type="Px"/></message></messageSchema>',
     "schema bad: field 'f' has unknown type 'Px'"),
    ('<messageSchema id="1"><types><composite name="C"><thing name="t"/></composite></types></messageSchema>',
     "schema bad: composite C holds an unknown 'thing'"),
    ('<messageSchema id="1"><types><composite name="groupSizeEncoding"><type name="blockLength" primitiveType="uint8"/>'
     '</composite></types><message name="M" id="1"><group name="g" id="1"><group name="h" id="2"/></group></message>'
     '</messageSchema>', "schema bad: nested groups in 'g' are not supported"),
])
def test_schemas_that_cannot_be_used(tmp_path, body, message):
    path = tmp_path / "bad.xml"
    path.write_text(body)
    with pytest.raises(LayoutError, match=message):
        sbe.load(path)

"""Fields and composites: every kind there and back, nulls, and errors that say what would have been right."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.layout.fields import Composite, Field, LayoutError, pack_fields

INTEGERS = [Field("f", 3, size, signed, order) for size in (1, 2, 3, 4, 6, 8) for signed in (False, True)
            for order in ("little", "big")]


@pytest.mark.parametrize("f", INTEGERS, ids=lambda f: f"{'i' if f.signed else 'u'}{8 * f.size}-{f.byteorder}")
@given(st.data())
def test_integers_there_and_back(f, data):
    low, high = f.range
    assert high - low == 256 ** f.size - 1
    value = data.draw(st.one_of(st.sampled_from((low, high, 0)), st.integers(low, high)))
    raw = f.pack(value)
    assert len(raw) == f.size
    assert f.unpack(b"...." + raw, 1) == value
    # Worked out by hand, not by int.from_bytes.
    number = sum(byte << 8 * i for i, byte in enumerate(raw if f.byteorder == "little" else reversed(raw)))
    assert number == value % 256 ** f.size


@pytest.mark.parametrize("f", INTEGERS, ids=str)
def test_integers_out_of_range(f):
    low, high = f.range
    for value in (low - 1, high + 1):
        with pytest.raises(LayoutError, match=rf"field f holds {low}\.\.{high}, got {value}"):
            f.pack(value)


def test_null():
    f = Field("px", 0, 8, True, null=(1 << 63) - 1)
    assert f.pack(None) == b"\xff" * 7 + b"\x7f"
    assert f.unpack(f.pack(None)) is None
    assert f.unpack(f.pack(f.null)) is None, "the null value is not a value"
    assert f.unpack(f.pack(0)) == 0
    with pytest.raises(LayoutError, match="field seq is required, got None"):
        Field("seq", 0, 4).pack(None)


def test_text_and_bytes():
    text = Field("name", 0, 6, kind="char")
    assert text.pack("BTC") == text.pack(b"BTC") == b"BTC\0\0\0"
    assert text.unpack(b"BTC\0\0\0") == text.unpack(b"BTC   ") == "BTC"
    raw = Field("key", 0, 3, kind="bytes")
    assert raw.unpack(raw.pack(b"\0\1\0")) == b"\0\1\0", "nothing is stripped from bytes"
    with pytest.raises(LayoutError, match="field name holds 6 bytes, got 7: b'BTCUSDT'"):
        text.pack("BTCUSDT")


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("order", ["little", "big"])
def test_float(size, order):
    f = Field("level", 0, size, byteorder=order, kind="float")
    assert f.unpack(f.pack(-0.375)) == -0.375
    assert f.pack(1.0)[0 if order == "big" else -1] == 0x3F


def test_constant_is_not_on_the_wire():
    f = Field("exponent", 8, 0, const=-9)
    assert f.unpack(b"") == -9
    assert f.end == 8


def test_shifted():
    f = Field("size", 2, 4, True, "big", -1, None, "Sizes").shifted(10, "head.")
    assert f == Field("head.size", 12, 4, True, "big", -1, None, "Sizes")
    assert f.end == 16


def test_short_buffer():
    with pytest.raises(LayoutError, match=r"field seq needs bytes 4\.\.8, buffer has 7"):
        Field("seq", 4, 4).unpack(bytes(7))


PAIR = Composite("Pair", 12, {"a": Field("a", 0, 4), "b": Field("b", 4, 2, null=0xFFFF),
                              "c": Field("c", 6, 6, byteorder="big")})


def test_composite_there_and_back():
    seed = 71
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(100):
        values = {f.name: rng.choice((0, f.range[1], rng.randint(*f.range))) for f in PAIR.wire_fields}
        raw = PAIR.pack(**values)
        assert len(raw) == PAIR.size
        values["b"] = None if values["b"] == 0xFFFF else values["b"]
        assert PAIR.unpack(b"?" + raw + b"?", 1) == values


def test_what_is_not_named_is_null_or_zero():
    assert PAIR.pack(c=1) == bytes(4) + b"\xff\xff" + bytes(5) + b"\1"


def test_unknown_names():
    with pytest.raises(LayoutError, match="Pair has no field 'd'; it has a, b, c"):
        PAIR.pack(d=1)
    with pytest.raises(LayoutError, match="Pair has no field 'd'; it has a, b, c"):
        PAIR["d"]
    with pytest.raises(LayoutError, match="Pair needs 12 bytes at 1, buffer has 12"):
        PAIR.unpack(bytes(12), 1)


def test_members_of_a_composite():
    """By dotted name, as a mapping, or by the short name of the only one on the wire; what was given wins."""
    fields = {"px": Field("px", 0, 8, True, null=-1 << 63), "px.price9": Field("px.price9", 0, 8, True, null=-1 << 63),
              "px.exponent": Field("px.exponent", 8, 0, const=-9),
              "qty.mantissa": Field("qty.mantissa", 8, 8, True), "qty.exponent": Field("qty.exponent", 16, 1, True)}

    def pack(**values):
        return pack_fields("Order", 17, fields, values)
    by_mapping = pack(px={"price9": 5}, qty={"mantissa": 7, "exponent": -1})
    assert by_mapping == pack(px=5, **{"qty.mantissa": 7, "qty.exponent": -1}) == pack(
        **{"px.price9": 5, "qty.mantissa": 7, "qty.exponent": -1})
    assert by_mapping == (5).to_bytes(8, "little") + (7).to_bytes(8, "little") + b"\xff"
    assert pack()[:8] == bytes(7) + b"\x80"
    with pytest.raises(LayoutError, match=r"Order has no field 'qty\.lots'"):
        pack(qty={"lots": 1})

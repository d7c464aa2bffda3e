# amaranth: UnusedElaboratable=no
"""FrameEncoder and QuoteScaler against the layout codec and plain integers."""

import json
import os
import random
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Const, unsigned

from hdl.control.registers import TICK_BITS
from hdl.layout import net, sbe
from hdl.layout.fields import Composite, Field, LayoutError
from hdl.order import templates
from hdl.order.encoder import LANES, PLAY_LATENCY, Checksum, FrameEncoder, Live, Part, Static, Stored
from hdl.order.scale import LIMB, LIMBS, RESULTS, QuoteScaler
from tests.hdl.simulation import simulated

CAPTURES = Path(os.environ.get("T2Q_CAPTURES") or Path(__file__).resolve().parents[3].parent / "shared" / "captures")


def play(encoder, rounds, *, gap=0):
    """Assemble and play once for each (body, values) of `rounds`; returns the frames.

    Fields hold only in the cycles in which they may be read, and every byte is asked for as early as it may be. The
    template holds the static values as long as a frame is assembled, and what is stored its own.
    """
    frames = []
    ports = dict(encoder.fields.shape())

    def by_rows(rows, places, values):
        rows = [list(row) for row in rows]
        for place in places:
            assert rows[place.row][place.lane] == 0
            rows[place.row][place.lane] = values.get(place.port, 0) >> 8 * place.index & 0xFF
        return [int.from_bytes(row, "little") for row in rows]

    def spoilt(rows):
        return [~row & (1 << 8 * LANES) - 1 for row in rows]

    async def testbench(ctx):
        for body, live in rounds:
            rows = by_rows(encoder.rows, encoder.places, live)
            stored = by_rows([(0,) * LANES] * len(rows), encoder.stored_places, live)
            first = {port: encoder.read_after_start(body, port) for port in live if port in ports}
            size, lead = encoder.header_size + encoder.sizes[body], encoder.lead(body)
            ctx.set(encoder.start, 1)
            ctx.set(encoder.body, list(encoder.sizes).index(body) ^ 1)
            await ctx.tick()
            ctx.set(encoder.start, 0)
            ctx.set(encoder.body, list(encoder.sizes).index(body))
            got, asked = {}, 0
            for c in range(1, max(lead + size + PLAY_LATENCY, encoder.steps(body)) + 1):    # cycles since `start`
                for port, field in ports.items():
                    value, mask = live.get(port, 0), (1 << field.width) - 1
                    held = port in first and first[port] <= c <= encoder.steps(body)
                    ctx.set(getattr(encoder.fields, port), value if held else ~value & mask)
                n = c - lead
                if 0 <= n < size:
                    ctx.set(encoder.position, (n - encoder.header_size) % 256)
                if 0 <= n - PLAY_LATENCY < size:
                    got[n - PLAY_LATENCY] = ctx.get(encoder.byte)
                row, asked = asked, ctx.get(encoder.template_row)
                await ctx.tick()
                if row < len(rows):
                    for port, its in ((encoder.template, rows), (encoder.stored, stored)):
                        ctx.set(port, (its if c <= encoder.steps(body) else spoilt(its))[row])
            frames.append(bytes(got[n] for n in range(size)))
            for _ in range(gap):
                await ctx.tick()

    simulated(encoder, testbench)
    return frames


def packed(part, live, checksum=None):
    """Bytes of a part by the layout codec; its checksum is its seed or the one given."""
    values = {}
    for name, value in part.values.items():
        field = part.layout.fields[name]
        if isinstance(value, Checksum):
            value = value.seed if checksum is None else checksum
        elif isinstance(value, Live | Static | Stored):
            value = Const(live[value.port], unsigned(8 * field.size)).value
            value -= (value >> 8 * field.size - 1 & field.signed) << 8 * field.size
        values[name] = value
    return part.layout.pack(**values)


def expected(headers, parts, live):
    """The frame by the layout codec and the reference checksum."""
    frame, payload = b"", b"".join(packed(part, live) for part in parts)
    for n, header in enumerate(headers):
        covered = b"".join(packed(part, live) for part in headers[1:n + 1])
        frame += packed(header, live, net.checksum(covered + payload if n == len(headers) - 1 else covered))
    return frame + payload


def random_layout(rng, name, *, multiple=1, checksum=False):
    fields, offset = {}, 0

    def add(name, size, **more):
        nonlocal offset
        fields[name] = Field(name, offset, size, **more)
        offset += size

    for n in range(rng.randint(1, 9)):
        size, signed = rng.choice((1, 2, 3, 4, 6, 8, 8)), rng.random() < 0.5
        null = (-1 if signed else (1 << 8 * size) - 1) if rng.random() < 0.2 else None
        add(f"f{n}", size, signed=signed, byteorder=rng.choice(("little", "big")), null=null)
    if checksum:
        for n in range(-offset % 2):
            add(f"even{n}", 1)
        add("checksum", 2, byteorder="big")
    for n in range(-offset % multiple):
        add(f"pad{n}", 1)
    return Composite(name, offset, fields)


def test_frame_encoder():
    encoder = templates.frame_encoder()
    verilog.convert(encoder)
    assert encoder.header_size == templates.BODY_OFFSET
    assert encoder.sizes == {"quote": 115, "mass_cancel": 49, "ack": 0, "session_tx": 32, "resent": 32, "probe": 0}


@pytest.mark.parametrize("seed", range(16))
def test_random_layouts(seed):
    print(f"seed {seed}")
    rng = random.Random(f"encoder {seed}")
    widths, kinds = {}, {}

    def random_part(layout):
        values = {}
        for field in layout.fields.values():
            choice = rng.random()
            if field.name == "checksum":
                values[field.name] = Checksum(rng.choice((0, rng.getrandbits(16))))
            elif choice < 0.5:
                # A third of them share a port with another one of the same width.
                twins = [port for port, width in widths.items() if width == 8 * field.size]
                if twins and rng.random() < 0.3:
                    port = rng.choice(twins)
                else:
                    port = f"port{len(widths)}"
                    widths[port] = 8 * field.size
                    kinds[port] = rng.choice((Live, Live, Static, Stored))
                values[field.name] = kinds[port](port)
            elif field.null is None or choice < 0.9:
                values[field.name] = rng.randint(*field.range)
        return Part(layout, values)

    while True:
        headers = [random_part(random_layout(rng, "first"))]
        headers += [random_part(random_layout(rng, f"header{n}", multiple=LANES, checksum=n or rng.random() < 0.8))
                    for n in range(2)]
        if 3 * LANES <= sum(part.size for part in headers[1:]) <= 60:
            break
        widths.clear()
        kinds.clear()
    common = [random_part(random_layout(rng, "common", multiple=LANES))]    # rows that bodies share
    bodies = {f"body{n}": [*(common if rng.random() < 0.7 else ()),
                           *(random_part(random_layout(rng, f"part{n}")) for _ in range(rng.randint(0, 2)))]
              for n in range(rng.randint(2, 5))}
    used = {name: {value.port for part in (*headers, *parts) for value in part.values.values()
                   if isinstance(value, Live | Static | Stored)} for name, parts in bodies.items()}
    rounds = [(name, {port: rng.choice((0, (1 << width) - 1, rng.getrandbits(width)))
                      for port, width in widths.items() if port in used[name]})
              for name in (*bodies, *rng.choices(list(bodies), k=3))]
    frames = play(FrameEncoder(headers, bodies), rounds, gap=rng.randint(0, 5))
    for (name, live), frame in zip(rounds, frames, strict=True):
        assert frame == expected(headers, bodies[name], live)


def test_sum_of_all_ones_is_not_zero():
    header = Composite("header", 16, {"checksum": Field("checksum", 0, 2, byteorder="big"),
                                      "zero": Field("zero", 8, 8)})
    ones = Composite("ones", 32, {f"f{n}": Field(f"f{n}", 8 * n, 8) for n in range(4)})
    encoder = FrameEncoder([Part(LAYOUT, {"a": 1, "b": 2}), Part(header, {"checksum": Checksum(), "zero": 0})],
                           {"body": [Part(ones, {f"f{n}": Live("ones") for n in range(4)})], "none": []})
    frames = play(encoder, [("body", {"ones": (1 << 64) - 1}), ("body", {"ones": 0}), ("none", {})])
    assert [frame[6:8] for frame in frames] == [bytes(2), b"\xff\xff", b"\xff\xff"]


def test_real_order_by_another_author():
    """The header and body layouts, through the hardware, give the bytes of an order that was not made by us."""
    path = CAPTURES / "vectors" / "starbase_oe_neworderrequest_v1_tcp.bin"
    if not path.exists():
        pytest.skip(f"no {path}: set T2Q_CAPTURES to the folder of captures")
    vector = json.loads((path.parent / "expected.json").read_text())[path.name]
    header, order = vector["header"], vector["NewOrderRequest"]
    message = sbe.load("starbase_orders")["NewOrderRequest"]
    live = {"app_seq": header["sequenceNumber"], "last_processed": header["lastProcessedSeqNo"],
            "time_ns": header["sendTimeNs"], "price": round(order["price"] * 10**9)}
    live |= {value.port: 0 for part in templates.HEADERS for value in part.values.values()
             if isinstance(value, Live | Static | Stored)}
    encoder = FrameEncoder(templates.HEADERS, {"order": (
        Part(templates.STARBASE_HEADER, {
            "protocolId": templates.STARBASE_PROTOCOL_ID, "flags": 0, "messageLength": header["messageLength"],
            "messageTypeId": message.id, "version": header["version"], **templates.HEADER_PATCH}),
        Part(message, {
            **{name: order[name] for name in ("clientOrderId", "correlationId", "instrumentId",
                                              "selfMatchPreventionId", "side", "timeInForce", "flags",
                                              "selfTradingMode")},
            "price": Live("price"), "quantity.mantissa": round(order["quantity"] * 10**9), "quantity.exponent": -9,
            "showQty.mantissa": None, "showQty.exponent": 0})), "none": ()})
    [frame] = play(encoder, [("order", live)])
    assert frame[templates.BODY_OFFSET:] == path.read_bytes()


def test_templates_have_the_sizes_of_the_protocol():
    assert (templates.BODY_OFFSET, templates.QUOTE_SIZE, templates.CANCEL_SIZE) == (54, 115, 49)
    assert templates.NULL_PRICE == -(1 << 63)


LAYOUT = Composite("Thing", 6, {"a": Field("a", 0, 2), "b": Field("b", 2, 4)})
CHECKED = Composite("Checked", 12, {name: Field(name, offset, size) for name, offset, size in (
    ("sum", 0, 2), ("rest", 2, 6), ("more", 8, 4))})
HEADERS = [Part(LAYOUT, {"a": 1, "b": 2}), Part(CHECKED, {"sum": Checksum(), "rest": 1, "more": 1})]


@pytest.mark.parametrize(("parts", "message"), [
    ([Part(LAYOUT, {"a": 1})], r"Thing\.b is required and has no value"),
    ([Part(LAYOUT, {"a": 1, "b": 2, "c": 3})], r"Thing has no field 'c'; it has a, b"),
    ([Part(LAYOUT, {"a": 65536, "b": 2})], r"field a holds 0\.\.65535, got 65536"),
    ([Part(LAYOUT, {"a": None, "b": 2})], r"field a is required, got None"),
    ([Part(LAYOUT, {"a": Live("x"), "b": Live("x")})], r"Thing\.b is 32 bits wide, port 'x' has 16 bits"),
    ([Part(LAYOUT, {"a": Static("x"), "b": Static("x")})], r"Thing\.b is 32 bits wide, port 'x' has 16 bits"),
    ([Part(LAYOUT, {"a": Live("x"), "b": Static("x")})], r"port 'x' is static here and live there"),
    ([Part(LAYOUT, {"a": Stored("x"), "b": Live("x")})], r"port 'x' is live here and stored there"),
    ([Part(LAYOUT, {"a": Checksum(), "b": 2})], r"body body has a checksum, which only headers can have"),
])
def test_refused_templates(parts, message):
    with pytest.raises(LayoutError, match=message):
        FrameEncoder(HEADERS, {"body": parts})


@pytest.mark.parametrize(("headers", "repeats", "message"), [
    ([HEADERS[0], HEADERS[0], HEADERS[1]], 1, r"headers of \[6, 6, 12\] bytes are not whole rows of 4"),
    ([HEADERS[1], HEADERS[0]], 1, r"headers of \[12, 6\] bytes are not whole rows of 4"),
    ([HEADERS[0]], 1, r"headers of \[6\] bytes have fewer than 3 rows of 4 behind the first one"),
    (HEADERS, 40, r"bodies of \{'body': 240\} bytes are too long for 64 steps"),
])
def test_refused_sizes(headers, repeats, message):
    with pytest.raises(ValueError, match=message):
        FrameEncoder(headers, {"body": [Part(LAYOUT, {"a": 1, "b": 2})] * repeats})


def test_scaler():
    seed = 20261123
    print(f"seed {seed}")
    rng = random.Random(seed)
    null = templates.NULL_PRICE
    dut = QuoteScaler(null_price=null)
    verilog.convert(QuoteScaler(null_price=null))
    widths = {"bid_ticks": TICK_BITS, "ask_ticks": TICK_BITS, "bid_lots": 24, "ask_lots": 24, "tick_e9": 40,
              "lot_mult": 32}

    def corner(name):
        width, ticks = widths[name], name.endswith("ticks")
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if ticks else (0, (1 << width) - 1)
        return rng.choice((low, high, 0, 1, -1 if ticks else 2, rng.randint(low, high), rng.randint(low, high),
                           rng.choice((0xFFFF, 0x10000, 0x8000, 0x7FFF))))

    def expect(v):
        def price(side):
            return (v[f"{side}_ticks"] * v["tick_e9"] if v[f"{side}_lots"] else null) & (1 << 64) - 1
        return price("bid"), price("ask"), v["bid_lots"] * v["lot_mult"], v["ask_lots"] * v["lot_mult"]

    async def testbench(ctx):
        for _ in range(150):
            values = {name: corner(name) for name in widths}
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for name, value in values.items():
                ctx.set(getattr(dut, name), value)
            got, coming = [], None
            for cycle in range(1, max(dut.ready.values()) + 3):     # cycles since `start`
                if ctx.get(dut.valid):
                    assert ctx.get(dut.which) == coming == len(got)
                    got.append(ctx.get(dut.limb))
                    if len(got) % LIMBS == 0:
                        assert cycle == dut.ready[RESULTS[len(got) // LIMBS - 1]]
                coming = ctx.get(dut.coming)
                await ctx.tick()
            results = [sum(limb << LIMB * n for n, limb in enumerate(got[at:at + LIMBS]))
                       for at in range(0, len(got), LIMBS)]
            assert tuple(results) == expect(values), values

    simulated(dut, testbench)

# amaranth: UnusedElaboratable=no
"""MessageEncoder and QuoteScaler against the layout codec and plain integers."""

import json
import os
import random
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Const, unsigned
from amaranth.sim import Simulator

from hdl.layout import net, sbe
from hdl.layout.fields import Composite, Field, LayoutError
from hdl.order import templates
from hdl.order.encoder import PLAY_LATENCY, Late, Live, MessageEncoder, Part
from hdl.order.scale import QuoteScaler

CAPTURES = Path(os.environ.get("T2Q_CAPTURES") or Path(__file__).resolve().parents[3].parent / "shared" / "captures")


def play(encoder, rounds, *, gap=0):
    """Assemble and play once for each (live, late) of `rounds`; returns [(bytes, sum)].

    Fields hold only in the cycles in which they may be read, and the sum is taken in the first cycle that the
    encoder promises.
    """
    results = []

    async def testbench(ctx):
        live_ports = dict(encoder.fields.shape()) if hasattr(encoder, "fields") else {}
        for live, late in rounds:
            ctx.set(encoder.start, 1)
            await ctx.tick()
            ctx.set(encoder.start, 0)
            got, total = {}, None
            for c in range(1, encoder.sum_latency + encoder.size + 10):     # cycles since `start`
                for name, field in live_ports.items():
                    held = 1 <= c <= encoder.beats
                    ctx.set(getattr(encoder.fields, name), live[name] if held else ~live[name] & (1 << field.width) - 1)
                # Byte n is asked for as early as its row allows, but one a cycle.
                position = c - (3 + (encoder.size - 1) // encoder.lanes)
                if 0 <= position < encoder.size:
                    ctx.set(encoder.position, position)
                for name, value in late.items():
                    ctx.set(getattr(encoder.late, name), value)
                if c == encoder.sum_latency:
                    total = ctx.get(encoder.sum)
                if 0 <= position - PLAY_LATENCY < encoder.size:
                    got[position - PLAY_LATENCY] = ctx.get(encoder.byte)
                await ctx.tick()
            results.append((bytes(got[n] for n in range(encoder.size)), total))
            for _ in range(gap):
                await ctx.tick()

    sim = Simulator(encoder)
    sim.add_clock(8e-9)
    sim.add_testbench(testbench)
    sim.run()
    return results


def folded_sum(data):
    return net.checksum(data) ^ 0xFFFF


def random_layout(rng, name):
    fields, offset = {}, 0
    for n in range(rng.randint(1, 9)):
        size = rng.choice((1, 2, 3, 4, 6, 8, 8))
        field = Field(f"f{n}", offset, size, signed=rng.random() < 0.5, byteorder=rng.choice(("little", "big")),
                      null=-1 if rng.random() < 0.2 else None)
        if field.null is not None and not field.signed:
            field = Field(f"f{n}", offset, size, byteorder=field.byteorder, null=(1 << 8 * size) - 1)
        fields[field.name] = field
        offset += size
    return Composite(name, offset, fields)


def test_verilog():
    verilog.convert(templates.mass_quote_encoder())
    verilog.convert(templates.tcp_encoder())


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(6))
def test_random_layouts(lanes, seed):
    print(f"seed {seed}, lanes {lanes}")
    rng = random.Random(f"encoder {seed} {lanes}")
    layouts = [random_layout(rng, f"part{n}") for n in range(rng.randint(1, 4))]
    widths, late_widths, parts = {}, {}, []
    for layout in layouts:
        values = {}
        for field in layout.fields.values():
            choice = rng.random()
            if choice < 0.5:
                # A third of the live fields share a port with another one of the same width.
                twins = [port for port, width in widths.items() if width == 8 * field.size]
                port = rng.choice(twins) if twins and rng.random() < 0.3 else f"live{len(widths)}"
                widths[port] = 8 * field.size
                values[field.name] = Live(port)
            elif choice < 0.6:
                late_widths[f"late{len(late_widths)}"] = 8 * field.size
                values[field.name] = Late(f"late{len(late_widths) - 1}")
            elif field.null is None or choice < 0.9:
                values[field.name] = rng.randint(*field.range)
        parts.append(Part(layout, values))

    def expect(live, late):
        out = b""
        for part in parts:
            values = {}
            for name, value in part.values.items():
                field = part.layout.fields[name]
                if isinstance(value, Live | Late):
                    raw = live[value.port] if isinstance(value, Live) else late[value.port]
                    value = Const(raw, unsigned(8 * field.size)).value
                    value -= (value >> 8 * field.size - 1 & field.signed) << 8 * field.size
                values[name] = value
            out += part.layout.pack(**values)
        return out

    rounds = [({port: rng.choice((0, (1 << width) - 1, rng.getrandbits(width))) for port, width in widths.items()},
               {port: rng.getrandbits(width) for port, width in late_widths.items()}) for _ in range(3)]
    encoder = MessageEncoder(*parts, lanes=lanes)
    results = play(encoder, rounds, gap=rng.randint(0, 5))
    for (live, late), (data, total) in zip(rounds, results, strict=True):
        assert data == expect(live, late)
        assert total == folded_sum(expect(live, dict.fromkeys(late, 0)))


def test_sum_of_all_ones_is_not_zero():
    layout = Composite("ones", 32, {f"f{n}": Field(f"f{n}", 8 * n, 8) for n in range(4)})
    encoder = MessageEncoder(Part(layout, {f"f{n}": Live("ones") for n in range(4)}))
    (_, ones), (_, zero) = play(encoder, [({"ones": (1 << 64) - 1}, {}), ({"ones": 0}, {})])
    assert (ones, zero) == (0xFFFF, 0)


def test_real_order_by_another_author():
    """The header and body layouts, through the hardware, give the bytes of an order that was not made by us."""
    path = CAPTURES / "vectors" / "starbase_oe_neworderrequest_v1_tcp.bin"
    if not path.exists():
        pytest.skip(f"no {path}: set T2Q_CAPTURES to the folder of captures")
    expected = json.loads((path.parent / "expected.json").read_text())[path.name]
    header, order = expected["header"], expected["NewOrderRequest"]
    message = sbe.load("starbase_orders")["NewOrderRequest"]
    live = {"app_seq": header["sequenceNumber"], "last_processed": header["lastProcessedSeqNo"],
            "time_ns": header["sendTimeNs"], "price": round(order["price"] * 10**9)}
    encoder = MessageEncoder(
        Part(templates.STARBASE_HEADER, {
            "protocolId": templates.STARBASE_PROTOCOL_ID, "flags": 0, "messageLength": header["messageLength"],
            "messageTypeId": message.id, "version": header["version"], **templates.HEADER_PATCH}),
        Part(message, {
            **{name: order[name] for name in ("clientOrderId", "correlationId", "instrumentId",
                                              "selfMatchPreventionId", "side", "timeInForce", "flags",
                                              "selfTradingMode")},
            "price": Live("price"), "quantity.mantissa": round(order["quantity"] * 10**9), "quantity.exponent": -9,
            "showQty.mantissa": None, "showQty.exponent": 0}))
    [(data, total)] = play(encoder, [(live, {})])
    assert data == path.read_bytes()
    assert total == folded_sum(path.read_bytes())


def test_templates_have_the_sizes_of_the_protocol():
    assert (templates.BODY_OFFSET, templates.QUOTE_SIZE, templates.CANCEL_SIZE) == (54, 115, 49)
    assert templates.NULL_PRICE == -(1 << 63)


LAYOUT = Composite("Thing", 6, {"a": Field("a", 0, 2), "b": Field("b", 2, 4)})


@pytest.mark.parametrize(("parts", "message"), [
    ([Part(LAYOUT, {"a": 1})], r"Thing\.b is required and has no value"),
    ([Part(LAYOUT, {"a": 1, "b": 2, "c": 3})], r"Thing has no field 'c'; it has a, b"),
    ([Part(LAYOUT, {"a": 65536, "b": 2})], r"field a holds 0\.\.65535, got 65536"),
    ([Part(LAYOUT, {"a": None, "b": 2})], r"field a is required, got None"),
    ([Part(LAYOUT, {"a": Live("x"), "b": Live("x")})], r"Thing\.b is 32 bits wide, port 'x' has 16 bits"),
])
def test_refused_templates(parts, message):
    with pytest.raises(LayoutError, match=message):
        MessageEncoder(*parts)


@pytest.mark.parametrize("lanes", [0, 1, 3, 6])
def test_refused_lanes(lanes):
    with pytest.raises(ValueError, match=f"lanes is {lanes}, must be a power of two"):
        MessageEncoder(Part(LAYOUT, {"a": 1, "b": 2}), lanes=lanes)


def test_scaler():
    seed = 20261123
    print(f"seed {seed}")
    rng = random.Random(seed)
    null = templates.NULL_PRICE
    dut = QuoteScaler(null_price=null)
    verilog.convert(QuoteScaler(null_price=null))
    widths = {"bid_ticks": 32, "ask_ticks": 32, "bid_lots": 24, "ask_lots": 24, "tick_e9": 40, "lot_mult": 32}

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
            wanted = dict(zip(("bid_price", "ask_price", "bid_qty", "ask_qty"), expect(values), strict=True))
            for cycle in range(1, max(dut.ready.values()) + 3):     # cycles since `start`
                for name, value in wanted.items():
                    assert cycle < dut.ready[name] or ctx.get(getattr(dut, name)) == value, (name, cycle, values)
                await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(8e-9)
    sim.add_testbench(testbench)
    sim.run()

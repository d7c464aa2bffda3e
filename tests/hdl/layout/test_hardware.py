# amaranth: UnusedElaboratable=no
"""FieldCapture against the layout's own reading of the same bytes."""

import random

import pytest
from amaranth.back import verilog

from hdl.layout import net, sbe
from hdl.layout.fields import Field
from hdl.layout.hardware import FieldCapture
from tests.hdl.simulation import simulated

SEED = 73
ENTRY = sbe.load("cme_mdp3")["MDIncrementalRefreshBook46"].groups["NoMDEntries"]


def play(fields, buffers, pause=0.0, rng=None):
    """Send buffers; of each (name, byte offset) of every strobe with the value of ``now``, and ``value`` at its end."""
    dut = FieldCapture(fields, max(map(len, buffers)))
    out = []

    async def testbench(ctx):
        for buffer in buffers:
            strobes = []
            for index, byte in enumerate(buffer):
                while rng and rng.random() < pause:     # a byte of something else
                    ctx.set(dut.en, 0)
                    ctx.set(dut.place, 1 << rng.randrange(len(buffer)))
                    ctx.set(dut.data, rng.getrandbits(8))
                    assert not any(ctx.get(done) for done in dut.done.values())
                    await ctx.tick()
                ctx.set(dut.en, 1)
                ctx.set(dut.place, 1 << index)
                ctx.set(dut.data, byte)
                strobes += [(name, index, ctx.get(dut.now[name])) for name in fields if ctx.get(dut.done[name])]
                await ctx.tick()
            ctx.set(dut.en, 0)
            out.append((strobes, {name: ctx.get(dut.value[name]) for name in fields}))

    simulated(dut, testbench)
    return out


def test_converts():
    fields = {"security_id": ENTRY["SecurityID"], "level": ENTRY["MDPriceLevel"]}
    assert "module" in verilog.convert(FieldCapture(fields))


def test_every_field_of_a_book_entry():
    """The strobe falls on the field's last byte and the value is complete in that cycle, and stays."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    fields = {name: f for name, f in ENTRY.fields.items() if f.size and "." not in name}
    buffers = [rng.randbytes(ENTRY.block_length) for _ in range(6)]
    for buffer, (strobes, values) in zip(buffers, play(fields, buffers, .2, rng), strict=True):
        raw = {name: int.from_bytes(buffer[f.offset:f.end], "little") for name, f in fields.items()}
        assert sorted(strobes) == sorted((name, f.end - 1, raw[name]) for name, f in fields.items())
        assert values == raw


def test_value_stands_until_its_bytes_come_by_again():
    f = {"word": Field("word", 1, 2)}
    (_, first), (_, second) = play(f, [bytes([0, 1, 2, 9]), bytes([7])])
    assert first["word"] == second["word"] == 0x0201
    (_, _), (_, half) = play(f, [bytes([0, 1, 2]), bytes([0, 5])])
    assert half["word"] == 0x0205, "bytes of a field in progress are in it already"


def test_single_byte():
    (strobes, values), = play({"flag": Field("flag", 2, 1)}, [bytes([1, 2, 3])])
    assert (strobes, values) == ([("flag", 2, 3)], {"flag": 3})


def test_big_endian_is_refused():
    with pytest.raises(ValueError, match="field seq is big endian; FieldCapture takes little-endian fields"):
        FieldCapture({"seq": net.TCP["seq"]})
    FieldCapture({"flags": net.TCP["flags"]})   # a single byte has no order


def test_too_few_places_are_refused():
    with pytest.raises(ValueError, match="3 places are too few, the last field ends at 4"):
        FieldCapture({"seq": Field("seq", 0, 4)}, 3)

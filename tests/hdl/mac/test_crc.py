"""The CRC expressions against independent implementations from the standard library."""

import binascii
import random
import zlib

import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator

from hdl.mac.crc import (
    CRC16_INIT,
    CRC32_INIT,
    CRC32_RESIDUE,
    crc16_of,
    crc16_step,
    crc32_fcs,
    crc32_good,
    crc32_of,
    crc32_step,
)


def test_reference_functions():
    for text in (b"", b"123456789", bytes(range(256))):
        assert crc32_of(text) == zlib.crc32(text)
        assert crc16_of(text) == binascii.crc_hqx(text, CRC16_INIT)
    assert crc32_of(b"123456789") == 0xCBF43926
    assert crc16_of(b"123456789") == 0x29B1


def test_steps_against_the_standard_library():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    crc32, crc16, data = Signal(32), Signal(16), Signal(8)
    next32, next16, fcs, good = Signal(32), Signal(16), Signal(32), Signal()
    m = Module()
    m.d.comb += [
        next32.eq(crc32_step(crc32, data)), next16.eq(crc16_step(crc16, data)),
        fcs.eq(crc32_fcs(next32)), good.eq(crc32_good(next32)),
    ]

    async def testbench(ctx):
        for _ in range(8):
            frame = rng.randbytes(rng.randrange(1, 80))
            frame += zlib.crc32(frame).to_bytes(4, "little")
            value32, value16 = CRC32_INIT, CRC16_INIT
            for count, byte in enumerate(frame, 1):
                ctx.set(Cat(crc32, crc16, data), value32 | value16 << 32 | byte << 48)
                value32, value16 = ctx.get(next32), ctx.get(next16)
                assert ctx.get(fcs) == zlib.crc32(frame[:count])
                assert value16 == binascii.crc_hqx(frame[:count], CRC16_INIT)
                assert ctx.get(good) == (zlib.crc32(frame[:count]) == CRC32_RESIDUE ^ 0xFFFFFFFF)
            assert ctx.get(good)

    sim = Simulator(m)
    sim.add_testbench(testbench)
    sim.run()


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match="is 31 bits wide, must be 32"):
        crc32_step(Signal(31), Signal(8))
    with pytest.raises(ValueError, match="is 9 bits wide, must be 8"):
        crc16_step(Signal(16), Signal(9))

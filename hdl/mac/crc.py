"""Cyclic redundancy checks as pure expressions: Ethernet's CRC-32 and the host link's CRC-16.

A step function takes the value of a CRC register and the next byte and returns the value that the register is to
take. It holds no state, so the caller decides when to step, and what a step costs is one level of XOR.
"""

from amaranth.hdl import Const, Mux, Value

__all__ = [
    "CRC16_INIT", "CRC32_INIT", "CRC32_RESIDUE",
    "crc16_of", "crc16_step", "crc32_fcs", "crc32_good", "crc32_of", "crc32_step",
]

CRC32_POLY = 0xEDB88320     # IEEE 802.3, bit-reversed: the least significant bit of a byte is first on the wire
CRC32_INIT = 0xFFFFFFFF
CRC32_RESIDUE = 0xDEBB20E3  # what the register holds after a frame and its own FCS have passed through it

CRC16_POLY = 0x1021         # CCITT, most significant bit first
CRC16_INIT = 0xFFFF


def _crc32_byte(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (CRC32_POLY if value & 1 else 0)
    return value


def _crc16_byte(value: int) -> int:
    value <<= 8
    for _ in range(8):
        value = ((value << 1) ^ (CRC16_POLY if value & 0x8000 else 0)) & 0xFFFF
    return value


# A CRC is linear: the change that a byte makes is the XOR of the changes that its bits make one at a time.
_CRC32_BITS = tuple(_crc32_byte(1 << bit) for bit in range(8))
_CRC16_BITS = tuple(_crc16_byte(1 << bit) for bit in range(8))


def _linear(bits, columns, width: int) -> Value:
    total = Const(0, width)
    for bit, column in zip(bits, columns, strict=True):
        total = total ^ Mux(bit, Const(column, width), Const(0, width))
    return total


def crc32_step(crc, data) -> Value:
    """Ethernet CRC-32 register after one more byte.

    Parameters
    ----------
    crc : Value(32)
        The register; ``CRC32_INIT`` before the first byte.
    data : Value(8)
        The byte, as it stands on GMII.

    Returns
    -------
    Value(32)
        The next value of the register. Purely combinational.
    """
    crc, data = _checked(crc, 32), _checked(data, 8)
    return crc[8:] ^ _linear(crc[:8] ^ data, _CRC32_BITS, 32)


def crc32_good(crc) -> Value:
    """1 if the register ``crc`` (32 bits) has seen a whole frame including a right FCS."""
    return _checked(crc, 32) == CRC32_RESIDUE


def crc32_fcs(crc) -> Value:
    """The four FCS bytes for the register ``crc`` (32 bits); bits 7:0 are the byte that leaves first."""
    return ~_checked(crc, 32)


def crc16_step(crc, data) -> Value:
    """CRC-16/CCITT register (16 bits, ``CRC16_INIT`` at first) after one more byte (8 bits). Combinational."""
    crc, data = _checked(crc, 16), _checked(data, 8)
    return (crc << 8)[:16] ^ _linear(crc[8:] ^ data, _CRC16_BITS, 16)


def crc32_of(data: bytes) -> int:
    """Ethernet FCS of a frame, as an integer whose least significant byte leaves first."""
    crc = CRC32_INIT
    for byte in data:
        crc = (crc >> 8) ^ _crc32_byte((crc ^ byte) & 0xFF)
    return crc ^ 0xFFFFFFFF


def crc16_of(data: bytes) -> int:
    """CRC-16/CCITT (polynomial 0x1021, start 0xFFFF, no final inversion) of ``data``."""
    crc = CRC16_INIT
    for byte in data:
        crc = ((crc << 8) & 0xFFFF) ^ _crc16_byte((crc >> 8) ^ byte)
    return crc


def _checked(value, width: int) -> Value:
    value = Value.cast(value)
    if len(value) != width:
        raise ValueError(f"CRC operand {value!r} is {len(value)} bits wide, must be {width}")
    return value

"""Packet captures: read pcap and pcapng, write pcap with nanosecond stamps.

Only what a replay needs: Ethernet frames with their time. Whatever else a file holds is counted or refused with the
reason, never guessed at.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Capture", "CaptureError", "CapturedFrame", "read_capture", "write_pcap"]

LINKTYPE_ETHERNET = 1
_LINK_NAMES = {0: "BSD loopback", 1: "Ethernet", 101: "raw IP", 105: "802.11", 113: "Linux cooked", 127: "radiotap",
               147: "user 0", 228: "raw IPv4", 229: "raw IPv6", 276: "Linux cooked v2"}

_PCAP_MAGIC = {  # first word, read little endian: (byte order of the file, nanoseconds per unit of the fraction)
    0xA1B2C3D4: ("<", 1000), 0xD4C3B2A1: (">", 1000), 0xA1B23C4D: ("<", 1), 0x4D3CB2A1: (">", 1),
}
_PCAP_NS_MAGIC = 0xA1B23C4D
_NG_SECTION, _NG_INTERFACE, _NG_SIMPLE, _NG_ENHANCED = 0x0A0D0D0A, 1, 3, 6
_NG_ORDER = 0x1A2B3C4D
_NG_OPTION_TSRESOL = 9
_MAX_FRAME = 0x40000  # what any capture tool writes; a larger length means that the file is damaged


class CaptureError(ValueError):
    """The file is no capture of Ethernet frames, or it is damaged. The text says where and what."""


class CapturedFrame(NamedTuple):
    """One frame: ``time_ns`` since the epoch and ``data``, from destination address to the last byte before the FCS."""

    time_ns: int
    data: bytes


@dataclass
class Capture:
    """What a file holds.

    Attributes
    ----------
    frames : list of :class:`CapturedFrame`, in the order of the file.
    cut : frames that were captured only in part (snap length); they are left out of ``frames``.
    format : ``"pcap"`` or ``"pcapng"``.
    """

    frames: list = field(default_factory=list)
    cut: int = 0
    format: str = ""


def read_capture(path):
    """Read a pcap (micro- or nanosecond, either byte order) or pcapng file of Ethernet frames.

    Returns a :class:`Capture`. Raises :class:`CaptureError` for a file that is empty, truncated, of another kind or
    of another link type, with the byte offset and what would have been right; ``OSError`` if it cannot be opened.
    """
    path = Path(path)
    raw = path.read_bytes()
    if not raw:
        raise CaptureError(f"{path}: the file is empty; a pcap or pcapng capture of Ethernet frames is needed")
    if len(raw) < 4:
        raise CaptureError(f"{path}: {len(raw)} bytes are too few for any capture; pcap starts with 24, pcapng with 28")
    magic = int.from_bytes(raw[:4], "little")
    if magic in _PCAP_MAGIC:
        return _read_pcap(path, raw, *_PCAP_MAGIC[magic])
    if magic == _NG_SECTION:
        return _read_pcapng(path, raw)
    raise CaptureError(f"{path}: starts with {raw[:4].hex(' ')}, which is neither pcap (d4 c3 b2 a1, 4d 3c b2 a1 or "
                       f"byte-swapped) nor pcapng (0a 0d 0d 0a)")


def _check_link(path, link):
    if link != LINKTYPE_ETHERNET:
        name = _LINK_NAMES.get(link, "unknown")
        raise CaptureError(f"{path}: link type {link} ({name}); only Ethernet ({LINKTYPE_ETHERNET}) can be replayed")


def _read_pcap(path, raw, order, unit):
    if len(raw) < 24:
        raise CaptureError(f"{path}: truncated in the file header: {len(raw)} bytes, 24 needed")
    _check_link(path, struct.unpack_from(order + "I", raw, 20)[0] & 0x0FFFFFFF)
    record = struct.Struct(order + "IIII")
    capture, offset = Capture(format="pcap"), 24
    while offset < len(raw):
        if len(raw) - offset < record.size:
            raise CaptureError(f"{path}: truncated at byte {offset}: {len(raw) - offset} bytes left, a packet header "
                               f"has {record.size}")
        seconds, fraction, kept, original = record.unpack_from(raw, offset)
        offset += record.size
        if kept > _MAX_FRAME:
            raise CaptureError(f"{path}: damaged at byte {offset}: packet of {kept} bytes, at most {_MAX_FRAME} expected")
        if len(raw) - offset < kept:
            raise CaptureError(f"{path}: truncated at byte {offset}: packet {len(capture.frames) + capture.cut + 1} has "
                               f"{kept} bytes, {len(raw) - offset} left")
        _keep(capture, seconds * 1_000_000_000 + fraction * unit, raw[offset:offset + kept], original)
        offset += kept
    return capture


def _keep(capture, time_ns, data, original):
    if len(data) < original:
        capture.cut += 1
    else:
        capture.frames.append(CapturedFrame(time_ns, data))


def _read_pcapng(path, raw):
    capture, offset, order, interfaces = Capture(format="pcapng"), 0, "<", []
    while offset < len(raw):
        if len(raw) - offset < 12:
            raise CaptureError(f"{path}: truncated at byte {offset}: {len(raw) - offset} bytes left, a block has "
                               f"12 or more")
        if int.from_bytes(raw[offset:offset + 4], "little") == _NG_SECTION:
            orders = {_NG_ORDER: "<", int.from_bytes(_NG_ORDER.to_bytes(4, "big"), "little"): ">"}
            mark = int.from_bytes(raw[offset + 8:offset + 12], "little")
            if mark not in orders:
                raise CaptureError(f"{path}: damaged at byte {offset + 8}: byte-order mark {mark:#010x}, "
                                   f"{_NG_ORDER:#010x} expected")
            order, interfaces = orders[mark], []
        kind, size = struct.unpack_from(order + "II", raw, offset)
        if size < 12 or size & 3:
            raise CaptureError(f"{path}: damaged at byte {offset}: block of {size} bytes, a multiple of 4 and at least "
                               f"12 expected")
        if len(raw) - offset < size:
            raise CaptureError(f"{path}: truncated at byte {offset}: block of {size} bytes, {len(raw) - offset} left")
        body = raw[offset + 8:offset + size - 4]
        if kind == _NG_INTERFACE:
            interfaces.append(_interface(path, offset, body, order))
        elif kind == _NG_ENHANCED:
            number, high, low, kept, original = _unpack(path, offset, order + "IIIII", body)
            if number >= len(interfaces):
                raise CaptureError(f"{path}: damaged at byte {offset}: packet of interface {number}, the file declares "
                                   f"{len(interfaces)}")
            if kept > len(body) - 20:
                raise CaptureError(f"{path}: damaged at byte {offset}: packet of {kept} bytes in a block with room for "
                                   f"{len(body) - 20}")
            ticks, (numerator, denominator) = (high << 32) | low, interfaces[number]
            _keep(capture, ticks * numerator // denominator, body[20:20 + kept], original)
        elif kind == _NG_SIMPLE:
            raise CaptureError(f"{path}: packet without a time at byte {offset} (simple packet block); a replay needs "
                               f"time stamps")
        offset += size
    return capture


def _unpack(path, offset, layout, body):
    if len(body) < struct.calcsize(layout):
        raise CaptureError(f"{path}: damaged at byte {offset}: block body of {len(body)} bytes, "
                           f"{struct.calcsize(layout)} needed")
    return struct.unpack_from(layout, body)


def _interface(path, offset, body, order):
    """Nanoseconds per time unit of one interface, as a fraction."""
    link = _unpack(path, offset, order + "HHI", body)[0]
    _check_link(path, link)
    at, resolution = 8, 6
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        if code == 0:
            break
        if code == _NG_OPTION_TSRESOL and length == 1:
            resolution = body[at + 4]
        at += 4 + (length + 3 & ~3)
    if resolution & 0x80:
        return 1_000_000_000, 1 << (resolution & 0x7F)
    return (10 ** (9 - resolution), 1) if resolution <= 9 else (1, 10 ** (resolution - 9))


def write_pcap(path, frames):
    """Write (time_ns, frame bytes without FCS) pairs as a pcap with nanosecond stamps, in the order given."""
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", _PCAP_NS_MAGIC, 2, 4, 0, 0, 65535, LINKTYPE_ETHERNET))
        for time_ns, data in frames:
            seconds, fraction = divmod(time_ns, 1_000_000_000)
            out.write(struct.pack("<IIII", seconds, fraction, len(data), len(data)) + bytes(data))

"""Ethernet captures: read pcap and pcapng files, write pcap files with nanosecond time stamps."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Capture", "CaptureError", "CaptureWriter", "read_capture"]

LINKTYPE_ETHERNET = 1
LARGEST_FRAME = 262144          # bytes; a record that claims more is not a record
_LINK_TYPES = {0: "loopback", 101: "raw IP", 105: "802.11", 113: "Linux cooked", 127: "802.11 radiotap",
               147: "user 0", 228: "raw IPv4", 276: "Linux cooked v2"}
_OTHER_FILES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
                b"PK\x03\x04": "zip"}


class CaptureError(ValueError):
    """A file is not a capture of whole Ethernet frames. The message names the file and what is wrong with it.

    Attributes
    ----------
    partial : Capture | None
        What could be read before the fault; None if nothing of it can be trusted.
    """

    def __init__(self, message: str, partial: "Capture | None" = None):
        super().__init__(message)
        self.partial = partial


@dataclass
class Capture:
    """Frames of a capture, in the order of the file.

    Attributes
    ----------
    times_ns : list[int]
        Nanoseconds since 1970, one for each frame. Captures are not always in order of time.
    frames : list[bytes]
        From destination address on, without FCS, even if the capture has it.
    cut_short : int
        Packets left out since only their first bytes were captured.
    """

    path: Path
    times_ns: list[int] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    cut_short: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return zip(self.times_ns, self.frames, strict=True)

    def _add(self, time_ns: int, data: bytes, original: int, fcs: int) -> None:
        if len(data) < original:
            self.cut_short += 1
        else:
            self.times_ns.append(time_ns)
            self.frames.append(data[:len(data) - fcs] if fcs else data)


def read_capture(path: str | Path) -> Capture:
    """Read a whole pcap (microseconds or nanoseconds, either byte order) or pcapng file.

    Only complete Ethernet frames are returned; packets of which the capture kept only a part are counted in
    ``cut_short``. pcapng blocks that hold no packets are skipped.

    Raises
    ------
    CaptureError
        The file is missing, empty, not a capture, of another link type, or ends in the middle of a record. In the last
        case ``error.partial`` holds the frames before the fault.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise CaptureError(f"{path}: the file is empty; a pcap or pcapng capture has at least a header of 24 bytes")
    magic = data[:4]
    if magic in _CLASSIC:
        return _read_classic(path, data)
    if magic == _PCAPNG:
        return _read_pcapng(path, data)
    for start, kind in _OTHER_FILES.items():
        if data.startswith(start):
            raise CaptureError(f"{path}: this is a {kind} file; unpack it first")
    raise CaptureError(f"{path}: not a pcap or pcapng file; it begins with {magic.hex(' ')}, not with one of "
                       f"{', '.join(known.hex(' ') for known in [*_CLASSIC, _PCAPNG])}")


# magic number -> byte order, nanoseconds in one unit of the fraction
_CLASSIC = {b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
            b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1)}
_PCAPNG = b"\x0a\x0d\x0d\x0a"        # block type of a section header, the same in both byte orders


def _check_link_type(path: Path, link_type: int) -> None:
    if link_type != LINKTYPE_ETHERNET:
        raise CaptureError(f"{path}: link type {link_type} ({_LINK_TYPES.get(link_type, 'unknown here')}), "
                           f"must be {LINKTYPE_ETHERNET} (Ethernet)")


def _truncated(path: Path, position: int, what: str, need: int, have: int, capture: Capture) -> CaptureError:
    return CaptureError(f"{path}: truncated: {what} at byte {position} needs {need} bytes, {have} are left; "
                        f"{len(capture)} frames before it are whole", capture)


def _read_classic(path: Path, data: bytes) -> Capture:
    order, unit = _CLASSIC[data[:4]]
    capture = Capture(path)
    if len(data) < 24:
        raise CaptureError(f"{path}: truncated: the file header needs 24 bytes, {len(data)} are there", capture)
    link, = struct.unpack_from(order + "I", data, 20)
    _check_link_type(path, link & 0xFFFF)
    fcs = 2 * (link >> 28) if link & 0x04000000 else 0       # frames carry their FCS; its length is in 16-bit words
    record = struct.Struct(order + "4I")
    position = 24
    while position < len(data):
        if len(data) - position < record.size:
            raise _truncated(path, position, "a record header", record.size, len(data) - position, capture)
        seconds, fraction, kept, original = record.unpack_from(data, position)
        if kept > LARGEST_FRAME:
            raise CaptureError(f"{path}: the record at byte {position} claims {kept} bytes, the most is "
                               f"{LARGEST_FRAME}; {len(capture)} frames before it are whole", capture)
        position += record.size
        if len(data) - position < kept:
            raise _truncated(path, position, "a packet", kept, len(data) - position, capture)
        capture._add(seconds * 10**9 + fraction * unit, data[position:position + kept], original, fcs)
        position += kept
    return capture


def _read_pcapng(path: Path, data: bytes) -> Capture:
    capture = Capture(path)
    order = "<"
    interfaces: list[tuple[int, int, int, int]] = []      # numerator, denominator of ns per tick; offset ns; FCS bytes
    position = 0
    while position < len(data):
        left = len(data) - position
        if left < 12:
            raise _truncated(path, position, "a block", 12, left, capture)
        if data[position:position + 4] == _PCAPNG:
            byte_order = data[position + 8:position + 12]
            if byte_order not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                raise CaptureError(f"{path}: the section header at byte {position} has byte-order magic "
                                   f"{byte_order.hex(' ')}, must be 4d 3c 2b 1a or 1a 2b 3c 4d", capture)
            order = "<" if byte_order[0] == 0x4D else ">"
            interfaces = []
        kind, length = struct.unpack_from(order + "2I", data, position)
        if length < 12 or length % 4:
            raise CaptureError(f"{path}: the block at byte {position} has length {length}, must be a multiple of 4 and "
                               f"12 or more; {len(capture)} frames before it are whole", capture)
        if left < length:
            raise _truncated(path, position, "a block", length, left, capture)
        body = data[position + 8:position + length - 4]
        try:
            if kind == 1:
                interfaces.append(_interface(path, order, body))
            elif kind in (2, 3, 6):
                _packet(path, position, order, kind, body, interfaces, capture)
        except struct.error:
            raise CaptureError(f"{path}: the block at byte {position} is too short for its type {kind}; "
                               f"{len(capture)} frames before it are whole", capture) from None
        position += length
    return capture


def _interface(path: Path, order: str, body: bytes) -> tuple[int, int, int, int]:
    link_type, _, _ = struct.unpack_from(order + "HHI", body)
    _check_link_type(path, link_type)
    numerator, denominator, offset, fcs = 1000, 1, 0, 0
    position = 8
    while position + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, position)
        value = body[position + 4:position + 4 + length]
        if code == 0:
            break
        if code == 9 and value:           # if_tsresol: negative power of 10, or of 2 if the top bit is set
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            numerator, denominator = 10**9, ticks
        elif code == 13 and value:        # if_fcslen
            fcs = value[0]
        elif code == 14:                  # if_tsoffset, seconds
            offset, = struct.unpack(order + "q", value)
            offset *= 10**9
        position += 4 + length + -length % 4
    return numerator, denominator, offset, fcs


def _packet(path: Path, position: int, order: str, kind: int, body: bytes, interfaces: list, capture: Capture) -> None:
    if kind == 6:
        interface, high, low, kept, original = struct.unpack_from(order + "5I", body)
        start = 20
    elif kind == 2:         # obsolete form
        interface, _, high, low, kept, original = struct.unpack_from(order + "HH4I", body)
        start = 20
    else:                   # simple packet: without time stamp, length from the block
        original, = struct.unpack_from(order + "I", body)
        interface, high, low, kept, start = 0, 0, 0, min(original, len(body) - 4), 4
    if interface >= len(interfaces):
        raise CaptureError(f"{path}: the packet at byte {position} is of interface {interface}, but only "
                           f"{len(interfaces)} are described before it", capture)
    if kept > len(body) - start:
        raise _truncated(path, position, "a packet", kept, len(body) - start, capture)
    numerator, denominator, offset, fcs = interfaces[interface]
    time_ns = ((high << 32) | low) * numerator // denominator + offset
    capture._add(time_ns, body[start:start + kept], original, fcs)


class CaptureWriter:
    """Writes Ethernet frames to a classic pcap file with nanosecond time stamps, readable while it grows.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists; its folder is made.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "wb")  # noqa: SIM115 - lives as long as the writer
        self._file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, LINKTYPE_ETHERNET))

    def write(self, time_ns: int, frame: bytes) -> None:
        """Append one frame without FCS. ``time_ns`` is not negative; what it counts from is the caller's choice."""
        if not 0 <= time_ns < 2**32 * 10**9:
            raise ValueError(f"time stamp {time_ns} ns is outside 0 to {2**32 * 10**9 - 1}")
        self._file.write(struct.pack("<4I", time_ns // 10**9, time_ns % 10**9, len(frame), len(frame)) + frame)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

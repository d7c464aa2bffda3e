"""Captures: files of other programs in, our own out, and files that are none."""

import contextlib
import gzip
import random
import struct

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapReader, PcapWriter

from sim.board.captures import CaptureError, CaptureWriter, read_capture

FRAMES = [bytes([i]) * (60 + i) for i in range(5)]
TIMES = [1_700_000_000_123_456_789 + i * 1_000_000_007 for i in range(5)]


def classic(order="<", magic=0xA1B2C3D4, link=1, records=None):
    header = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return header + b"".join(struct.pack(order + "4I", time, fraction, len(data), original) + data
                             for time, fraction, data, original in records or [])


def block(kind, body, order="<"):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order="<"):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order="<", link=1, options=b""):
    return block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def packet(data, time, order="<", index=0, original=None):
    return block(6, struct.pack(order + "5I", index, time >> 32, time & 0xFFFFFFFF, len(data),
                                len(data) if original is None else original) + data, order)


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "x.pcap"
        path.write_bytes(data)
        return path
    return write


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_classic(write, order, magic, unit):
    capture = read_capture(write(classic(order, magic, records=[(1, 5, b"abc", 3), (0, 999_999, b"", 0)])))
    assert list(capture) == [(10**9 + 5 * unit, b"abc"), (999_999 * unit, b"")]
    assert len(capture) == 2
    assert capture.cut_short == 0


@pytest.mark.parametrize("order", "<>")
def test_pcapng(write, order):
    data = (section(order) + interface(order) + packet(b"abcde", 7, order)
            + block(5, bytes(12), order)                                                    # statistics: skipped
            + interface(order, options=option(9, b"\x09", order) + option(14, struct.pack(order + "q", 2), order)
                        + option(0, b"", order) + option(9, b"\x06", order))
            + packet(b"ns", 5, order, index=1)
            + interface(order, options=option(9, b"\x8a", order)) + packet(b"2^-10", 1024, order, index=2)
            + interface(order, options=option(13, b"\x04", order)) + packet(b"frameFCS!", 1, order, index=3)
            + block(3, struct.pack(order + "I", 3) + b"xyz", order)
            + section(order) + interface(order, options=option(9, b"\x03", order)) + packet(b"new section", 1, order))
    capture = read_capture(write(data))
    assert list(capture) == [(7000, b"abcde"), (2 * 10**9 + 5, b"ns"), (10**9, b"2^-10"), (1000, b"frame"), (0, b"xyz"),
                             (10**6, b"new section")]


def test_files_of_another_program(tmp_path):
    for name, writer in (("a.pcap", PcapWriter), ("a.pcapng", PcapNgWriter)):
        path = tmp_path / name
        out = writer(str(path)) if writer is PcapNgWriter else writer(str(path), linktype=1)
        for frame in FRAMES:
            out.write(Ether(frame))
        out.close()
        assert read_capture(path).frames == FRAMES


def test_own_files_are_read_by_another_program(tmp_path):
    path = tmp_path / "folder" / "out.pcap"
    with CaptureWriter(path) as writer:
        for time, frame in zip(TIMES, FRAMES, strict=True):
            writer.write(time, frame)
        writer.flush()
        assert read_capture(path).frames == FRAMES, "readable while it grows"
        with pytest.raises(ValueError, match="time stamp -1 ns"):
            writer.write(-1, b"")
    with PcapReader(str(path)) as reader:
        packets = list(reader)
        assert reader.linktype == 1
    assert [bytes(packet) for packet in packets] == FRAMES
    assert [int(packet.time * 10**9) for packet in packets] == TIMES
    assert list(read_capture(path)) == list(zip(TIMES, FRAMES, strict=True))


def test_cut_packets_are_counted_and_left_out(write):
    capture = read_capture(write(classic(records=[(0, 0, b"whole", 5), (0, 1, b"cut", 9)])))
    assert (capture.frames, capture.cut_short) == ([b"whole"], 1)
    capture = read_capture(write(section() + interface() + packet(b"cut", 1, original=4)))
    assert (capture.frames, capture.cut_short) == ([], 1)


def test_fcs_of_the_file_is_taken_off(write):
    assert read_capture(write(classic(link=0x24000001, records=[(0, 0, b"frameFCS!", 9)]))).frames == [b"frame"]


@pytest.mark.parametrize(("data", "message"), [
    (b"", "x.pcap: the file is empty"),
    (b"\xd4\xc3\xb2", "not a pcap or pcapng file; it begins with d4 c3 b2"),
    (b"GIF89a", "not a pcap or pcapng file; it begins with 47 49 46 38"),
    (gzip.compress(classic(), mtime=0), "this is a gzip file; unpack it first"),
    (classic()[:23], "truncated: the file header needs 24 bytes, 23 are there"),
    (classic(link=113), r"link type 113 \(Linux cooked\), must be 1 \(Ethernet\)"),
    (classic(link=250), r"link type 250 \(unknown here\)"),
    (section() + interface(link=101), r"link type 101 \(raw IP\)"),
    (classic(records=[(0, 0, b"", 0)]) + struct.pack("<4I", 0, 0, 10**6, 10**6), "claims 1000000 bytes"),
    (section()[:10], "truncated: a block at byte 0 needs 12 bytes, 10 are left"),
    (section()[:20], "truncated: a block at byte 0 needs 28 bytes, 20 are left"),
    (b"\x0a\x0d\x0d\x0a" + bytes(24), "byte-order magic 00 00 00 00"),
    (section() + struct.pack("<II", 6, 13) + bytes(20), "block at byte 28 has length 13"),
    (section() + packet(b"abc", 0), "is of interface 0, but only 0 are described"),
    (section() + interface() + block(6, bytes(8)), "block at byte 48 is too short for its type 6"),
    (section() + interface() + block(6, struct.pack("<5I", 0, 0, 0, 100, 100)), "a packet at byte 48 needs 100 bytes"),
    (section() + interface(options=option(14, b"\0")), "too short for its type 1"),
])
def test_what_is_no_capture(write, data, message):
    with pytest.raises(CaptureError, match=message):
        read_capture(write(data))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CaptureError, match=r"none\.pcap: cannot be read: No such file"):
        read_capture(tmp_path / "none.pcap")
    with pytest.raises(CaptureError, match="cannot be read: Is a directory"):
        read_capture(tmp_path)


@pytest.mark.parametrize("kind", ["classic", "pcapng"])
def test_cut_at_every_byte(write, kind):
    """However a file is cut, the frames before the cut are there, and it is said that it is cut."""
    if kind == "classic":
        prefix = classic()
        units = [struct.pack("<4I", 0, i, 5, 5) + bytes([i]) * 5 for i in range(4)]
    else:
        prefix = section() + interface()
        units = [packet(bytes([i]) * 5, i) for i in range(4)]
    data = prefix + b"".join(units)
    for size in range(len(prefix), len(data)):
        whole, rest = divmod(size - len(prefix), len(units[0]))
        path = write(data[:size])
        if not rest:
            assert len(read_capture(path)) == whole
            continue
        with pytest.raises(CaptureError, match=f"truncated.*{whole} frames before it are whole") as error:
            read_capture(path)
        assert error.value.partial.frames == [bytes([i]) * 5 for i in range(whole)]


def test_damaged_files_never_do_worse_than_an_error(write):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for original in (classic(records=[(1, 2, b"abcdefgh", 8)] * 4),
                     section() + interface(options=option(9, b"\x09")) + packet(b"abcdefgh", 9) * 4):
        for _ in range(300):
            data = bytearray(original)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            with contextlib.suppress(CaptureError):
                read_capture(write(bytes(data)))

"""From time stamps to cycles."""

import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.market.schedule import CYCLE_NS, schedule, wire_bytes


def test_wire_bytes():
    data = wire_bytes(b"abc")
    assert len(data) == 64
    assert data[:60] == b"abc" + bytes(57)
    assert int.from_bytes(data[60:], "little") == zlib.crc32(data[:60])
    assert len(wire_bytes(bytes(100))) == 104


def test_short_times_are_kept_and_long_ones_cut():
    frames = [(1_000_000, b"a"), (1_008_000, b"b"), (9_000_000_000, b"c"), (9_000_020_000, b"d")]
    out = schedule(frames, start_cycle=100, max_idle_ns=20_000)
    assert [f.cycle for f in out] == [100, 1100, 3600, 6100]
    assert [f.time_ns for f in out] == [t for t, _ in frames]


def test_order_is_that_of_the_stamps():
    out = schedule([(50_000, b"b"), (40_000, b"a"), (50_000, b"c")])
    assert [(f.index, f.data[:1]) for f in out] == [(1, b"a"), (0, b"b"), (2, b"c")]


def test_a_burst_is_serialised_and_then_caught_up():
    out = schedule([(0, b"a"), (0, b"b"), (8_000, b"c")])
    assert [f.cycle for f in out] == [0, 8 + 64 + 12, 1000]


def test_wrong_fcs_on_request():
    good, bad = schedule([(0, b"a"), (8_000, b"a")], bad_fcs=[1])
    assert good.data == wire_bytes(b"a")
    assert zlib.crc32(bad.data) != zlib.crc32(good.data)
    assert bad.data[:-1] == good.data[:-1]


def test_negative_idle_is_refused():
    with pytest.raises(ValueError, match="max_idle_ns is -1, must be 0 or more"):
        schedule([], max_idle_ns=-1)


@given(st.lists(st.tuples(st.integers(0, 10 ** 7), st.binary(max_size=200)), max_size=40), st.integers(0, 50_000))
def test_frames_are_apart_and_never_early(frames, max_idle):
    out = schedule(frames, start_cycle=7, max_idle_ns=max_idle)
    assert sorted(f.index for f in out) == list(range(len(frames)))
    for one, two in itertools.pairwise(out):
        assert two.cycle >= one.end + 12
        assert two.time_ns >= one.time_ns
    ideal_ns = 0
    for n, frame in enumerate(out):
        ideal_ns += min(frame.time_ns - out[n - 1].time_ns, max_idle) if n else 0
        assert frame.cycle >= 7 + ideal_ns // CYCLE_NS
        if n and frame.cycle > out[n - 1].end + 12:     # the wire was free: no later than its own time
            assert frame.cycle == 7 + ideal_ns // CYCLE_NS

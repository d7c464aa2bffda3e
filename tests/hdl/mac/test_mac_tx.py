"""MacTx: what is on the pins, in which cycle, for frames of every length about the limits."""

import itertools
import random
import zlib

import pytest
from amaranth.back import verilog

from hdl.mac.tx import MacTx
from tests.hdl.simulation import simulated


@pytest.fixture(scope="module", autouse=True)
def _converts():
    """A combinational loop would hang the simulator; the conversion reports it with its path."""
    verilog.convert(MacTx())


def on_wire(frame: bytes) -> bytes:
    body = frame.ljust(60, b"\0")
    return bytes([0x55] * 7 + [0xD5]) + body + zlib.crc32(body).to_bytes(4, "little")


def run(frames, *, starts=None, cycles=None, underrun_at=None):
    """Send `frames`; returns (bursts as (first cycle on the pins, bytes), cycles of `start`, counts of strobes).

    Frames start as soon as `idle` allows, or in the cycles `starts`. `underrun_at` is the byte of the first frame at
    which its source runs dry.
    """
    dut = MacTx()
    bursts, started, counts = [], [], {"frames": 0, "underrun": 0}

    async def testbench(ctx):
        queue, current, position, burst = list(frames), b"", 0, None
        for cycle in range(cycles or sum(max(len(frame), 60) + 24 for frame in frames) + 60):
            start = bool(ctx.get(dut.idle) and queue) if starts is None else cycle in starts
            ctx.set(dut.start, start)
            if start and ctx.get(dut.idle):
                assert position == len(current)
                current, position = queue.pop(0), 0
                started.append(cycle)
            dry = underrun_at is not None and len(started) == 1 and current and position >= underrun_at
            ctx.set(dut.i.valid, position < len(current) and not dry)
            ctx.set(dut.i.data, current[position] if position < len(current) and not dry else 0)
            ctx.set(dut.i.last, position == len(current) - 1)
            if ctx.get(dut.i.ready) and not dry:
                assert position < len(current), "pulled a byte too many"
                position += 1
            if dry and ctx.get(dut.i.ready):
                current, position = b"", 0
            assert not ctx.get(dut.tx_er)
            if ctx.get(dut.tx_en):
                if burst is None:
                    burst = (cycle, bytearray())
                    bursts.append(burst)
                burst[1].append(ctx.get(dut.txd))
            else:
                assert ctx.get(dut.txd) == 0x55     # so that a start has one pin to change
                burst = None
            for name in counts:
                counts[name] += ctx.get(getattr(dut, name))
            await ctx.tick()

    simulated(dut, testbench)
    return [(cycle, bytes(data)) for cycle, data in bursts], started, counts


@pytest.mark.parametrize("size", [1, 2, 14, 59, 60, 61, 115, 1514])
def test_frame_and_latency(size):
    frame = bytes((n * 7 + size) & 0xFF for n in range(size))
    bursts, started, counts = run([frame], starts={5})
    assert started == [5]
    assert bursts == [(6, on_wire(frame))]      # first preamble byte one cycle after `start`
    assert counts == {"frames": 1, "underrun": 0}


def test_back_to_back_keeps_twelve_byte_times():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    frames = [rng.randbytes(rng.choice((1, 42, 58, 59, 60, 61, 62, 100))) for _ in range(12)]
    bursts, started, counts = run(frames)
    assert [data for _, data in bursts] == [on_wire(frame) for frame in frames]
    for (cycle, data), (following, _) in itertools.pairwise(bursts):
        assert following - (cycle + len(data)) == 12
    for frame, (start, following) in zip(frames, itertools.pairwise(started), strict=False):
        assert following - start == 24 + max(len(frame), 60)
    assert counts == {"frames": len(frames), "underrun": 0}


def test_start_while_busy_is_ignored():
    first, second = b"first" * 20, b"second" * 20
    bursts, started, _ = run([first, second], starts={0, 1, 9, 50, 120, 123, 124}, cycles=300)
    assert started == [0, 124]
    assert [data for _, data in bursts] == [on_wire(first), on_wire(second)]


@pytest.mark.parametrize("at", [0, 1, 59, 60, 70])
def test_underrun_cuts_the_frame_with_a_wrong_fcs(at):
    frame, other = bytes(range(100)), b"other"
    bursts, _, counts = run([frame, other], underrun_at=at, cycles=400)
    body = frame[:at].ljust(max(60, at + 1), b"\0")
    assert bursts[0][1][8:] == body + (zlib.crc32(body) ^ 0xFFFFFFFF).to_bytes(4, "little")
    assert bursts[1][1] == on_wire(other)
    assert counts == {"frames": 1, "underrun": 1}

"""Verify, then quote: frames at line rate, good ones pass whole, bad ones leave no trace."""

import itertools
import random

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.mac.stream import RxBytes
from hdl.net.verify import VerifyFirst

SEED = 67
#: Preamble and inter-frame gap: the least number of cycles between the last byte of a frame and the first of the next.
WIRE_GAP = 8 + 12
WATCHED = 0x00, 0x5A, 0xFF


def play(frames, hold=True):
    """Send (bytes, ok, idle cycles before it).

    Returns what came out as (first cycle, bytes, ok, cycle of eof), and the cycles of eof that went in.
    """
    dut = VerifyFirst(WATCHED)
    out, sent = [], []

    cycles = [{}]
    for data, ok, idle in frames:
        cycles += [{}] * idle
        cycles += [{"data": value, "valid": 1, "sof": n == 0} for n, value in enumerate(data)]
        sent.append(len(cycles))
        cycles.append({"eof": 1, "ok": ok})
    cycles += [{}] * (max(len(f[0]) for f in frames) + 20)

    async def source(ctx):
        ctx.set(dut.hold, hold)
        for now, later in itertools.pairwise(cycles):
            for name in RxBytes.members:
                ctx.set(getattr(dut.rx, name), now.get(name, 0))
                ctx.set(getattr(dut.ahead, name), later.get(name, 0))
            await ctx.tick()

    async def sink(ctx):
        cycle, frame, announced = 0, None, (0, 0)
        async for _, _, valid, sof, eof, ok, value, which, *following in ctx.tick().sample(
                dut.out.valid, dut.out.sof, dut.out.eof, dut.out.ok, dut.out.data, dut.next_is, dut.next_valid,
                dut.next_data):
            assert valid == announced[0]
            assert which == sum((following[1] == byte) << n for n, byte in enumerate(WATCHED))
            if sof:
                assert valid
                assert frame is None, "a frame begins in another one"
                frame = cycle, bytearray()
            if valid:
                assert frame is not None, "a byte outside of a frame"
                assert value == announced[1]
                assert cycle == frame[0] + len(frame[1]), "a gap in a frame"
                frame[1].append(value)
            if eof:
                assert not valid
                out.append((frame[0], bytes(frame[1]), ok, cycle))
                frame = None
            else:
                assert not ok
            cycle, announced = cycle + 1, following

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(source)
    simulator.add_testbench(sink, background=True)
    simulator.run()
    return out, sent


def test_converts():
    assert "module" in verilog.convert(VerifyFirst())


def test_cut_through_is_transparent():
    frames = [(b"first", 1, 3), (b"spoilt", 0, 20), (b"third", 1, 20)]
    out, sent = play(frames, hold=False)
    assert [(data, ok) for _, data, ok, _ in out] == [(data, ok) for data, ok, _ in frames]
    assert [end for *_, end in out] == sent, "no latency"


def test_held_frame_leaves_three_cycles_after_its_verdict():
    out, sent = play([(b"payload", 1, 3)])
    (first, data, ok, end), = out
    assert (data, ok) == (b"payload", 1)
    assert first == sent[0] + 3
    assert end == first + len(data)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_bad_frame_leaves_no_trace(bad):
    frames = [(bytes([n]) * 60, int(n != bad), WIRE_GAP) for n in range(3)]
    out, _ = play(frames)
    assert [data for _, data, _, _ in out] == [data for data, ok, _ in frames if ok]


def test_frame_that_never_ends():
    """More bytes than there is room: lost, and what follows is not."""
    out, _ = play([(bytes(4200), 0, 0), (b"next" * 16, 1, WIRE_GAP)])
    assert [data for _, data, _, _ in out] == [b"next" * 16]


def test_line_rate():
    """Longest behind shortest and the other way round, without a cycle of rest: nothing is lost, all verdicts hold."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    frames = []
    for _ in range(24):
        size = rng.choice((64, 64, 65, 200, 1522))
        frames.append((rng.randbytes(size), int(rng.random() < .85), WIRE_GAP - 1))     # and the cycle of eof
    out, sent = play(frames)
    assert [data for _, data, _, _ in out] == [data for data, ok, _ in frames if ok]
    # A frame waits for its verdict and for the one before it, for nothing else.
    free, verdicts = 0, [end for end, frame in zip(sent, frames, strict=True) if frame[1]]
    for (first, data, _, end), verdict in zip(out, verdicts, strict=True):
        assert first == max(verdict + 3, free)
        assert end == first + len(data)
        free = end + 2      # the buffer rests for two cycles behind a frame's last byte

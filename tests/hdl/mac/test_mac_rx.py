# amaranth: UnusedElaboratable=no
"""MacRx against a naive model that looks at a whole trace of the pins at once."""

import random
import zlib

import pytest
from amaranth.back import verilog

from hdl.mac.rx import MacRx
from tests.hdl.simulation import simulated

STROBES = ("frames", "preamble_errors", "rx_errors", "runts", "oversize", "bad_fcs")
IDLE = (0, 0, 0)


@pytest.fixture(scope="module", autouse=True)
def _converts():
    """A combinational loop would hang the simulator; the conversion reports it with its path."""
    verilog.convert(MacRx())


def with_fcs(frame: bytes) -> bytes:
    return frame + zlib.crc32(frame).to_bytes(4, "little")


def on_pins(frame: bytes, *, preamble: int = 7, gap: int = 12, errors=()) -> list[tuple[int, int, int]]:
    """(rxd, rx_dv, rx_er) a cycle: preamble, delimiter, `frame` with its FCS, then silence."""
    burst = bytes([0x55] * preamble + [0xD5]) + frame
    return [(byte, 1, int(n in errors)) for n, byte in enumerate(burst)] + [IDLE] * gap


def verdict(burst, max_frame):
    """What a receiver has to say of one carrier burst: (bytes shown, name of the strobe)."""
    for start, (byte, _, error) in enumerate(burst):    # noqa: B007
        if error or byte not in (0x55, 0xD5):
            return b"", "preamble_errors"
        if byte == 0xD5:
            break
    else:
        return b"", "preamble_errors"
    frame = bytes(byte for byte, _, _ in burst[start + 1:])
    if not frame:
        return b"", "preamble_errors"
    if any(error for _, _, error in burst[start + 1:]):
        return frame, "rx_errors"
    if len(frame) < 64:
        return frame, "runts"
    if len(frame) > max_frame:
        return frame, "oversize"
    if with_fcs(frame[:-4]) != frame:
        return frame, "bad_fcs"
    return frame, "frames"


def model(pins, max_frame):
    """Bursts of the trace, each as (cycle of the first frame byte on the pins or None, bytes, strobe)."""
    result, burst = [], []
    for cycle, (byte, valid, error) in enumerate([*pins, IDLE]):
        if valid:
            burst.append((byte, valid, error))
        elif burst:
            frame, strobe = verdict(burst, max_frame)
            result.append((cycle - len(frame) if frame else None, frame, strobe))
            burst = []
    return result


def run(pins, *, max_frame=1522):
    """Play `pins`; returns the bursts as the receiver told them, in the form of `model`."""
    dut = MacRx(max_frame=max_frame)
    seen, frame, began, ended = [], b"", None, True

    async def testbench(ctx):
        nonlocal frame, began, ended
        for cycle, (byte, valid, error) in enumerate([*pins, IDLE, IDLE, IDLE, IDLE]):
            ctx.set(dut.rxd, byte)
            ctx.set(dut.rx_dv, valid)
            ctx.set(dut.rx_er, error)
            out = dut.out
            assert ctx.get(out.valid) + ctx.get(out.eof) <= 1
            assert not ctx.get(out.sof) or (ctx.get(out.valid) and ended)
            if ctx.get(out.sof):
                began, ended = cycle - 1, False
            if ctx.get(out.valid):
                assert not ended
                frame += bytes([ctx.get(out.data)])
            strobes = [name for name in STROBES if ctx.get(getattr(dut, name))]
            assert len(strobes) <= 1
            if strobes:
                assert ctx.get(out.eof) == (strobes[0] != "preamble_errors")
                assert ctx.get(out.ok) == (strobes[0] == "frames")
                seen.append((began, frame, strobes[0]))
                frame, began = b"", None
            else:
                assert ctx.get(out.eof) == ctx.get(out.ok) == 0
            ended = ended or bool(ctx.get(out.eof))
            await ctx.tick()

    simulated(dut, testbench)
    assert ended, "the last frame was never ended"
    return seen


def check(pins, max_frame=1522):
    seen, expected = run(pins, max_frame=max_frame), model(pins, max_frame)
    assert [(frame, strobe) for _, frame, strobe in seen] == [(frame, strobe) for _, frame, strobe in expected]
    # A byte on the pins in cycle c is seen in cycle c + 1 (`run` takes the one off), for every burst.
    assert [cycle for cycle, *_ in seen] == [cycle for cycle, *_ in expected]
    return [strobe for *_, strobe in seen]


def test_good_frame_is_shown_one_cycle_after_the_pins():
    frame = with_fcs(bytes(range(60)))
    seen = run([IDLE] * 3 + on_pins(frame))
    assert seen == [(3 + 8, frame, "frames")]


def test_every_fault_has_its_name():
    good = with_fcs(bytes(60))
    wrong = bytes([1]) + good[1:]
    pins = [
        IDLE, *on_pins(good), *on_pins(wrong), *on_pins(with_fcs(bytes(59))), *on_pins(with_fcs(bytes(200))),
        *on_pins(good, errors={30}), *on_pins(good, errors={3}), *on_pins(good, errors={7 + 64}),
        *[(0x55, 1, 0)] * 9, IDLE, (0xD5, 1, 0), IDLE, (0x12, 1, 0), *on_pins(good),
        *on_pins(good, preamble=0, gap=1), *on_pins(good, preamble=40, gap=1), *on_pins(good),
        (0, 0, 1), (0x0E, 0, 1), *on_pins(good),
    ]
    assert check(pins, max_frame=128) == [
        "frames", "bad_fcs", "runts", "oversize", "rx_errors", "preamble_errors", "rx_errors",
        "preamble_errors", "preamble_errors", "preamble_errors", "frames", "frames", "frames", "frames",
    ]


@pytest.mark.parametrize(("size", "strobe"), [(63, "runts"), (64, "frames"), (1522, "frames"), (1523, "oversize")])
def test_limits_of_length(size, strobe):
    assert check([IDLE, *on_pins(with_fcs(bytes(size - 4)))]) == [strobe]


def test_frame_under_way_at_reset_is_ignored():
    good = with_fcs(bytes(60))
    # The tail of a frame may look like a delimiter with a whole good frame after it: still not a frame.
    assert run([*on_pins(good, gap=1), *on_pins(good)]) == [(73 + 8, good, "frames")]


def test_frame_cut_at_every_position_does_not_touch_the_next():
    good = with_fcs(bytes(range(60)))
    burst = on_pins(good, gap=0)
    pins = [IDLE]
    for cut in range(1, len(burst)):
        pins += [*burst[:cut], IDLE, *burst, IDLE]
    strobes = check(pins)
    assert strobes[1::2] == ["frames"] * (len(burst) - 1)
    assert "frames" not in strobes[0::2]


def test_random_traffic():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pins = [IDLE]
    for _ in range(60):
        frame = bytearray(with_fcs(rng.randbytes(rng.choice((0, 1, 10, 59, 60, 61, 90, 124, 125)))))
        errors = set()
        match rng.randrange(6):
            case 0:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            case 1:
                errors = {rng.randrange(len(frame) + 8)}
            case 2:
                del frame[rng.randrange(len(frame)):]
            case 3:
                pins += [(byte, 1, 0) for byte in rng.randbytes(rng.randrange(1, 100))] + [IDLE]
        pins += on_pins(bytes(frame), preamble=rng.choice((0, 1, 6, 7, 8)), gap=rng.choice((1, 2, 12)), errors=errors)
    check(pins, max_frame=128)


def test_max_frame_is_checked():
    with pytest.raises(ValueError, match="max_frame is 63, must be 64 to 16384"):
        MacRx(max_frame=63)

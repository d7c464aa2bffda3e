"""Line arbitration: which copy of a packet is taken, and what is noticed to be missing."""

import random

import pytest
from amaranth.back import verilog

from hdl.feed.arbiter import ANSWER_CYCLES, SequenceArbiter
from tests.hdl.simulation import simulated

SEED = 65
MODULO = 1 << 32


def offer(numbers, gaps_between=lambda: 0):
    """Offer sequence numbers; list of (verdict, packets missing before it) and the registers after the last one."""
    dut = SequenceArbiter()
    out, registers = [], {}

    async def testbench(ctx):
        for seq in numbers:
            for _ in range(gaps_between()):
                ctx.set(dut.seq_valid, 0)
                ctx.set(dut.seq, ctx.get(dut.expected) ^ 1)     # without seq_valid it is nobody's
                assert not any(ctx.get(s) for s in (dut.accept, dut.duplicate, dut.gap))
                await ctx.tick()
            ctx.set(dut.seq, seq % MODULO)
            ctx.set(dut.seq_valid, 1)
            for _ in range(ANSWER_CYCLES):
                assert not any(ctx.get(s) for s in (dut.accept, dut.duplicate, dut.gap))
                await ctx.tick()
                ctx.set(dut.seq_valid, 0)
            accept, duplicate, gap = (ctx.get(s) for s in (dut.accept, dut.duplicate, dut.gap))
            assert accept + duplicate == 1
            assert not (gap and duplicate)
            out.append(("gap" if gap else "accept" if accept else "duplicate", ctx.get(dut.ahead) if gap else 0))
            await ctx.tick()
        registers.update({name: ctx.get(getattr(dut, name)) for name in ("missing", "expected", "last_seq")})

    simulated(dut, testbench)
    return out, registers


def test_converts():
    assert "module" in verilog.convert(SequenceArbiter())


@pytest.mark.parametrize("first", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_first_packet_sets_the_sequence(first):
    """Wherever the day stands when we join; the first one is no gap."""
    got, registers = offer([first, first, first + 1])
    assert got == [("accept", 0), ("duplicate", 0), ("accept", 0)]
    assert registers == {"missing": 0, "expected": (first + 2) % MODULO, "last_seq": (first + 1) % MODULO}


def test_two_lines():
    """Each packet once, whichever line is ahead."""
    got, registers = offer([10, 10, 11, 12, 11, 12, 13])
    assert [v for v, _ in got] == ["accept", "duplicate", "accept", "accept", "duplicate", "duplicate", "accept"]
    assert registers["missing"] == 0


def test_gap_is_counted_once_and_passed_over():
    got, registers = offer([10, 14, 14, 11, 13, 15])
    assert got == [("accept", 0), ("gap", 3), ("duplicate", 0), ("duplicate", 0), ("duplicate", 0), ("accept", 0)]
    assert registers == {"missing": 3, "expected": 16, "last_seq": 15}


def test_wraps_around():
    got, registers = offer([-2, -1, -1, 0, 1, -1, 3, 2])
    assert got == [("accept", 0), ("accept", 0), ("duplicate", 0), ("accept", 0), ("accept", 0), ("duplicate", 0),
                   ("gap", 1), ("duplicate", 0)]
    assert registers == {"missing": 1, "expected": 4, "last_seq": 3}


@pytest.mark.parametrize(("ahead", "verdict"), [
    (0, "accept"), (1, "gap"), (2**31 - 1, "gap"), (2**31, "duplicate"), (-1, "duplicate"), (-2**31 + 1, "duplicate")])
def test_half_of_the_circle_is_ahead(ahead, verdict):
    for base in (0, 12345, MODULO - 7):
        got, _ = offer([base - 1, base + ahead])
        assert got[1][0] == verdict


@pytest.mark.parametrize("damage", [0, 1, 3, 1 << 30])
@pytest.mark.parametrize("first", [True, False], ids=["first packet", "later packet"])
def test_a_damaged_number_is_taken_back(damage, first):
    """As if it had never come: the right copy of the packet is accepted, nothing is missing."""
    dut = SequenceArbiter()

    async def testbench(ctx):
        async def offer_one(seq):
            ctx.set(dut.seq, seq % MODULO)
            ctx.set(dut.seq_valid, 1)
            for _ in range(ANSWER_CYCLES):
                await ctx.tick()
                ctx.set(dut.seq_valid, 0)
            verdict = ctx.get(dut.accept), ctx.get(dut.gap)
            await ctx.tick()
            return verdict

        if not first:
            assert await offer_one(99) == (1, 0)
        assert await offer_one(100 + damage) == (1, int(bool(damage) and not first))
        ctx.set(dut.take_back, 1)
        await ctx.tick()
        ctx.set(dut.take_back, 0)
        assert ctx.get(dut.missing) == 0
        assert await offer_one(100) == (1, 0)
        assert await offer_one(100) == (0, 0)
        assert await offer_one(103) == (1, 1)
        assert (ctx.get(dut.missing), ctx.get(dut.expected)) == (2, 104)

    simulated(dut, testbench)


def test_missing_saturates():
    numbers = [0]
    for _ in range(3):
        numbers.append(numbers[-1] + 2**31 - 1)
    got, registers = offer(numbers)
    assert [v for v, _ in got] == ["accept", "gap", "gap", "gap"]
    assert registers["missing"] == MODULO - 1


def test_random():
    """Two lossy, reordering lines over the end of the number range, against Python's integers."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    truth, at = [], MODULO - 150
    for _ in range(600):
        truth.append(at + rng.choice((0, 0, 0, 0, -1, -2, 0, 0, rng.randrange(-40, 4))))
        at += rng.choice((0, 1, 1))
    expected, missing, want = None, 0, []
    for seq in truth:
        if expected is not None and seq < expected:
            want.append(("duplicate", 0))
            continue
        ahead = 0 if expected is None else seq - expected
        missing += ahead
        want.append(("gap", ahead) if ahead else ("accept", 0))
        expected = seq + 1
    got, registers = offer(truth, lambda: rng.randrange(2))
    assert got == want
    assert registers["missing"] == missing
    assert registers["expected"] == expected % MODULO
    assert {v for v, _ in got} == {"accept", "duplicate", "gap"}

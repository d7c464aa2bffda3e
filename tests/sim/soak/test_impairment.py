"""What happens to frames on the way, by rate and by script."""

import random
from collections import Counter

import pytest

from sim.golden.session import Connection, tcp_frame
from sim.soak.impairment import Impairment, Rates, parse_rules

PATH = Connection(0x0200_0000_0001, 0x0200_0000_0002, 0x0A00_0001, 0x0A00_0002, 4000, 4210)


def segment(seq, payload=b"payload"):
    return tcp_frame(PATH, seq, 1, 4096, 0x18 if payload else 0x10, payload)


def through(impairment, frames, apart=1000):
    """What comes out in the end, in order."""
    out = []
    for n, frame in enumerate(frames):
        out += impairment.pass_(frame, n * apart) + impairment.due(n * apart)
    return out + impairment.due(1 << 60)


def test_nothing_happens_by_itself():
    frames = [segment(7 * n) for n in range(50)]
    assert through(Impairment(1), frames) == frames


@pytest.mark.parametrize("what", ["drop", "duplicate", "reorder", "delay", "corrupt", "truncate"])
def test_rates(what):
    """A fifth of all, give or take; and only what the name says."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    frames = [segment(7 * n, bytes([n % 256, n // 256]) * 20) for n in range(3000)]
    impairment = Impairment(seed, Rates(**{what: 0.2}))
    out = through(impairment, frames)
    assert 450 < impairment.done[what] < 750
    assert impairment.done[what] + impairment.done["passed"] == len(frames)
    came, sent = Counter(out), Counter(frames)
    n = impairment.done[what]
    if what == "drop":
        assert len(out) == len(frames) - n
        assert not came - sent
    elif what == "duplicate":
        assert (came - sent).total() == n
        assert not sent - came
    elif what in ("reorder", "delay"):
        assert came == sent
        assert out != frames
        places = {frame: place for place, frame in enumerate(out)}
        moved = sum(places[frame] != place for place, frame in enumerate(frames))
        assert moved >= n / 2
    else:
        other = came - sent
        assert other.total() == n
        for frame in other:
            if what == "truncate":
                assert any(whole.startswith(frame) for whole in frames)
            else:
                assert any(len(whole) == len(frame) and sum(
                    (a ^ b).bit_count() for a, b in zip(whole, frame, strict=True)) == 1 for whole in frames)


def test_the_same_seed_does_the_same():
    frames = [segment(7 * n) for n in range(500)]
    rates = Rates(drop=0.1, duplicate=0.1, reorder=0.1, delay=0.1, corrupt=0.1, truncate=0.1)
    assert through(Impairment(5, rates), frames) == through(Impairment(5, rates), frames)
    assert through(Impairment(5, rates), frames) != through(Impairment(6, rates), frames)


def test_other_frames_pass():
    other = bytes(12) + b"\x08\x06" + bytes(46)
    assert through(Impairment(1, Rates(drop=1.0)), [other]) == [other]


def test_script():
    """The third new one is dropped, and its first repetition; other repetitions are not counted."""
    impairment = Impairment(1, rules=parse_rules("drop data 3rd x2; duplicate ack 1"))
    frames = [segment(0), segment(7), segment(7), segment(7, b""), segment(14), segment(14), segment(14), segment(21)]
    assert through(impairment, frames) == [*frames[:3], frames[3], frames[3], frames[6], frames[7]]


@pytest.mark.parametrize("text", ["drop", "drop data", "lose data 3", "drop data third", "drop data 3 x"])
def test_what_is_no_rule(text):
    with pytest.raises(ValueError, match="is no rule; must be like"):
        parse_rules(text)


@pytest.mark.parametrize(("rates", "why"), [
    ({"drop": 1.5}, "drop is 1.5, must be a share from 0 to 1"), ({"drop": -0.1}, "must be a share"),
    ({"drop": 0.6, "delay": 0.6}, "more than 1 together"), ({"delay_cycles": 0}, "must be at least 1")])
def test_rates_that_cannot_be(rates, why):
    with pytest.raises(ValueError, match=why):
        Rates(**rates)

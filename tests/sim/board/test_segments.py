"""A design of which segments sleep is the same, cycle for cycle, as when all of it is computed in every cycle."""

import random
import re

import pytest

from sim.board.board import VirtualBoard
from sim.board.segments import FULL
from sim.board.verilate import Design
from tests.sim.board.alike import send_the_same


def sleepers(design):
    return len(re.findall(r"^  reg awake_\d+", design.board().read_text(), re.MULTILINE))


def sleepy(seed, segment):
    return Design("tests.sim.board.sleepy:Sleepy", {"seed": seed}, segment)


def test_designs_made_at_random():
    # One in seven has a memory in a ring of registers, which is refused as one process.
    seed = next(seed for seed in iter(lambda: random.randrange(2**32), None) if sleepers(sleepy(seed, 1)))
    print("seed", seed)
    rng = random.Random(seed)
    designs = [sleepy(seed, segment) for segment in (0, 1, 12, FULL)]
    assert [sleepers(design) > 10 for design in designs[:3]] == [False, True, True]
    boards = [VirtualBoard(design) for design in designs]
    seen = set()
    for _ in range(4):      # a reset in the middle of things as well
        for board in boards:
            board.reset()
        for _ in range(60):
            # Stretches of nothing, single bytes, and bytes in every cycle.
            data, pace = rng.randbytes(rng.choice([0, 0, 1, 3, 200])), rng.choice([1, 1, 7, 60])
            kill, lost, cycles = rng.random() < 0.1, rng.random() < 0.2, rng.randint(1, 400)
            told = []
            for board in boards:
                board.kill(kill)
                board.feed_lost(lost)
                board.link_pace(to_core=pace)
                board.link_write(data)
                board.run(cycles)
                told.append(board.link_read())
            assert len(told[0]) == cycles
            assert told == [told[0]] * len(told)
            seen.add(told[0][-8:])
    assert len(seen) > 100
    for board in boards:
        board.close()


@pytest.mark.parametrize("segment", [1, 10])
def test_something_of_everything(segment):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    awake, asleep = (Design("tests.sim.board.mixed:Mixed", segment=n) for n in (0, segment))
    assert sleepers(awake) == 0
    assert sleepers(asleep) > 5
    with VirtualBoard(awake) as one, VirtualBoard(asleep) as other:
        send_the_same(rng, (one, other), lengths=[1, 2, 40, 300], frames=100, cycles=100_000, at_least=3_000)


def test_most_of_the_core_can_sleep():
    text = Design().board().read_text()
    assert 100 < sleepers(Design()) < 1000
    asked = re.findall(r"VL_UNLIKELY\(\", (awake_\d+)", text)
    assert len(asked) == len(set(asked)) == sleepers(Design())


def test_the_same_text_every_time():
    design = Design("tests.sim.board.mixed:Mixed", segment=10)
    first = design.board()
    text = first.read_text()
    first.unlink()
    assert design.board().read_text() == text

"""Two forms of a design are held against each other at their pins."""

from random import Random

from sim.board.board import Inject, VirtualBoard


def send_the_same(rng: Random, boards: tuple[VirtualBoard, VirtualBoard], *, lengths: list[int], frames: int,
                  cycles: int, at_least: int) -> None:
    """The same frames at random to both boards, three times, a reset before each: every frame that leaves is the same.

    Parameters
    ----------
    rng, boards :
        Where the frames come from, and who gets them on ``feed``.
    lengths : list[int]
        Bytes of a frame.
    frames, cycles : int
        So many in so many cycles.
    at_least : int
        Bytes that leave on ``order``, at least, or nothing has been tested.
    """
    for _ in range(3):      # a reset in the middle of things as well
        sent = [rng.randbytes(rng.choice(lengths)) for _ in range(frames)]
        starts = sorted(rng.randrange(cycles) for _ in sent)
        logs = []
        for board in boards:
            board.reset()
            board.inject_many("feed", sent, starts, Inject.RAW)
            board.run(cycles)
            logs.append(board.take_tx("order"))
        assert sum(len(frame.data) for frame in logs[0]) > at_least
        assert logs[0] == logs[1]

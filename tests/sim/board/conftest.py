import pytest

from sim.board import Design, VirtualBoard

LOOPBACK = Design("tests.sim.board.loopback:Loopback")


@pytest.fixture
def board():
    with VirtualBoard(LOOPBACK) as board:
        yield board

import pytest

from sim.board.board import VirtualBoard


@pytest.fixture(scope="session")
def board():
    """The core on a virtual board; whoever takes it resets it."""
    with VirtualBoard() as made:
        yield made

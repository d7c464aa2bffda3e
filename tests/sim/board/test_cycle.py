"""The design as one process: the same, cycle for cycle, as the hierarchy that waveforms are made from."""

import random

import pytest

from sim.board.board import Inject, VirtualBoard
from sim.board.cycle import UnsupportedNetlist, one_process
from sim.board.verilate import Design

MIXED = Design("tests.sim.board.mixed:Mixed")


def test_the_core_is_one_process():
    text = Design().board().read_text()
    assert text.startswith("module board(")
    assert text.count("always") == 1


def test_same_as_the_hierarchy():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    assert MIXED.board().read_text().count("always") == 1
    with VirtualBoard(MIXED) as one, VirtualBoard(MIXED, trace=True) as hierarchy:
        for _ in range(3):      # a reset in the middle of things as well
            frames = [rng.randbytes(rng.randint(1, 300)) for _ in range(200)]
            starts = sorted(rng.randrange(60_000) for _ in frames)
            logs = []
            for board in (one, hierarchy):
                board.reset()
                board.inject_many("feed", frames, starts, Inject.RAW)
                board.run(60_000)
                logs.append(board.take_tx("order"))
            assert sum(len(frame.data) for frame in logs[0]) > 10_000
            assert logs[0] == logs[1]


def test_what_cannot_be_one_process_is_simulated_nevertheless():
    design = Design("tests.sim.board.mixed:TwoClocks")
    text = design.board().read_text()
    assert text.startswith("// The hierarchy as it is: ")
    with VirtualBoard(design) as board:
        board.kill(True)
        board.run(10)
        assert board.take_host_tx()["kind"].tolist()[-5:] == [1] * 5


@pytest.mark.parametrize(("netlist", "message"), [
    ("module a(x);\nendmodule\nmodule b(x);\nendmodule", "2 modules, there must be one"),
    ("module top(clk);\n  input clk;\n  wire clk;\n  foo bar (.clk(clk));\nendmodule", "'foo bar"),
    ("module top(clk);\n  input clk;\n  wire clk;\nendmodule", "0 clocks"),
    ("module top(clk);\n  input clk;\n  reg a;\n  wire b;\n  wire c;\n  assign b = c ^ a;\n  assign c = b & a;\n"
     "  always @(posedge clk)\n    a <= b;\nendmodule", "a loop of logic through [bc]"),
])
def test_netlist_that_is_not_understood(netlist, message):
    with pytest.raises(UnsupportedNetlist, match=message):
        one_process(netlist, module="board")

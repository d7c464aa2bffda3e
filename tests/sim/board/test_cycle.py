"""The design as one process: the same, cycle for cycle, as the hierarchy that waveforms are made from."""

import random

import pytest

from sim.board.board import VirtualBoard
from sim.board.cycle import UnsupportedNetlist, one_process
from sim.board.verilate import Design
from tests.sim.board.alike import send_the_same

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
        send_the_same(rng, (one, hierarchy), lengths=list(range(1, 301)), frames=200, cycles=60_000, at_least=10_000)


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

"""Estimated ways between registers, on netlists whose ways are plain to see."""

import json

import pytest

from boards import depth

OUTPUTS = {"TRELLIS_FF": "Q", "LUT4": "Z", "DP16KD": "DOA0", "MULT18X18D": "P0", "CCU2C": ("S0", "S1", "COUT")}


def netlist(path, cells, names, parameters=None):
    """``cells``: name -> (type, {port: bit}); ``names``: bit -> name; ``parameters``: name -> {parameter: value}."""
    module = {
        "cells": {name: {
            "type": kind, "parameters": (parameters or {}).get(name, {}),
            "connections": {port: [bit] for port, bit in ports.items()},
            "port_directions": {port: "output" if port in OUTPUTS[kind] else "input" for port in ports}}
            for name, (kind, ports) in cells.items()},
        "netnames": {name: {"bits": [bit]} for bit, name in names.items()},
    }
    path.write_text(json.dumps({"modules": {"top": module}}))
    return path


def test_two_luts_between_registers(tmp_path):
    file = netlist(tmp_path / "top.json", {
        "a": ("TRELLIS_FF", {"CLK": 1, "DI": 2, "Q": 3}),
        "x": ("LUT4", {"A": 3, "Z": 4}), "y": ("LUT4", {"A": 4, "B": 3, "Z": 5}),
        "b": ("TRELLIS_FF", {"CLK": 1, "DI": 5, "Q": 6}),
    }, {3: "a_q", 4: "between", 5: "b_d"})
    first, second = depth.longest(file)
    assert (first.end, first.cells) == ("b.DI", 2)
    assert [name for _, name in first.hops] == ["a_q", "between", "b_d"]
    assert first.ns == pytest.approx(0.52 + 2 * (depth.ROUTE_NS + 0.24) + depth.ROUTE_NS, abs=0.01)
    assert (second.end, second.cells) == ("a.DI", 0), "an input from nowhere is there at once"


def test_a_carry_chain_is_cheaper_than_as_many_wires(tmp_path):
    cells = {"a": ("TRELLIS_FF", {"CLK": 1, "DI": 2, "Q": 10}), "c0": ("CCU2C", {"A0": 10, "COUT": 20})}
    for n in range(1, 9):
        cells[f"c{n}"] = ("CCU2C", {"CIN": 19 + n, "COUT": 20 + n})
    cells["c9"] = ("CCU2C", {"CIN": 28, "S0": 30})
    cells["b"] = ("TRELLIS_FF", {"CLK": 1, "DI": 30, "Q": 31})
    way = depth.longest(netlist(tmp_path / "top.json", cells, {10: "from", 30: "to"}))[0]
    assert (way.end, way.cells) == ("b.DI", 10)
    assert way.ns == pytest.approx(0.52 + depth.ROUTE_NS + 0.47 + 8 * 0.15 + 0.44 + depth.ROUTE_NS, abs=0.01)


def test_block_memory_is_slow_and_loops_end(tmp_path):
    file = netlist(tmp_path / "top.json", {
        "m": ("DP16KD", {"CLKA": 1, "ADA0": 6, "DOA0": 2}), "x": ("LUT4", {"A": 2, "B": 5, "Z": 4}),
        "y": ("LUT4", {"A": 4, "Z": 5}), "b": ("TRELLIS_FF", {"CLK": 1, "DI": 4, "CE": 5, "Q": 6}),
    }, {2: "read", 4: "x", 5: "y", 6: "b_q"})
    ways = {way.end.partition(".")[0]: way for way in depth.longest(file)}
    assert ways["b"].ns > 5.8 + 2 * depth.ROUTE_NS
    assert ways["m"].ns == pytest.approx(0.52 + depth.ROUTE_NS, abs=0.01)


def test_registers_in_a_block_end_one_way_and_begin_another(tmp_path):
    cells = {
        "a": ("TRELLIS_FF", {"CLK": 1, "DI": 9, "Q": 2}), "p": ("MULT18X18D", {"CLK0": 1, "A0": 2, "P0": 3}),
        "m": ("DP16KD", {"CLKA": 1, "ADA0": 3, "DOA0": 4}), "b": ("TRELLIS_FF", {"CLK": 1, "DI": 4, "Q": 5})}
    names = {2: "a_q", 3: "product", 4: "read"}
    registered = {"p": {"REG_OUTPUT_CLK": "CLK0"}, "m": {"REGMODE_A": "OUTREG", "REGMODE_B": "NOREG"}}
    plain, own = ({way.end.partition(".")[0]: way.ns for way in depth.longest(
        netlist(tmp_path / "top.json", cells, names, parameters))} for parameters in (None, registered))
    assert "p" not in plain
    assert own["p"] + own["m"] == pytest.approx(plain["m"] + 1.0, abs=0.02)
    assert own["b"] == pytest.approx(plain["b"] - 5.8 + 1.0, abs=0.02)

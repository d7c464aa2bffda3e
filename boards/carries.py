"""Carry chains without what nextpnr puts around them.

A chain whose first carry is a constant gets a cell in front of it that feeds the constant in, and one whose last carry
goes nowhere a cell behind it that leads that carry out: four LUTs a chain. What comes out of the first bit is known
without a carry, and a carry that nobody takes need not be named.
"""

from itertools import product

__all__ = ["trim"]

#: An input or output that is connected to nothing: nextpnr leaves it alone.
_NOTHING = ["x"]


def trim(netlist):
    """Change a netlist of Yosys (as read from its JSON) in place; returns (first, last carries that went).

    A first carry goes if it is constant and the first bit is one of two operands, as ``$alu`` gives it. The bit of the
    sum itself, if it is asked for, is a LUT beside the chain.
    """
    first = last = 0
    for module in netlist["modules"].values():
        cells, taken = module["cells"], _taken(module)
        for name, cell in [(name, cell) for name, cell in cells.items() if cell["type"] == "CCU2C"]:
            nets = cell["connections"]
            if nets["COUT"] != _NOTHING and not taken.intersection(nets["COUT"]):
                nets["COUT"] = _NOTHING
                last += 1
            if all(nets[port][0] in ("0", "1") for port in ("CIN", "C0", "D0")):
                if taken.intersection(nets["S0"]):
                    cells[f"{name}_S0_LUT4"] = _first_sum(cell)
                _without_first(cell)
                first += 1
    return first, last


def _taken(module):
    """All nets that go into a cell, or out of the module."""
    inputs = (net for cell in module["cells"].values() for port, nets in cell["connections"].items()
              if cell["port_directions"][port] == "input" for net in nets)
    return {*inputs, *(net for port in module["ports"].values() if port["direction"] == "output"
                       for net in port["bits"])}


def _first(cell):
    """(sum, carry) of the first bit, for A and B of 00, 10, 01, 11."""
    nets, init = cell["connections"], int(cell["parameters"]["INIT0"], 2)
    cin, c, d = (int(nets[port][0]) for port in ("CIN", "C0", "D0"))
    injects = cell["parameters"]["INJECT1_0"] == "YES"
    for b, a in product((0, 1), repeat=2):
        passes, makes = init >> (8 * d + 4 * c + 2 * b + a) & 1, init >> (2 * b + a) & 1 and not injects
        yield passes ^ (cin and not injects), cin if passes else int(makes)


def _table(bits):
    """INIT of a LUT with two inputs, as its four lowest bits."""
    return "".join(str(int(bit)) for bit in reversed(bits))


def _first_sum(cell):
    """A LUT with the first bit of the sum."""
    nets = cell["connections"]
    return {
        "hide_name": 1, "type": "LUT4", "attributes": {**cell["attributes"]},
        "parameters": {"INIT": 4 * _table([sum_ for sum_, _ in _first(cell)])},
        "port_directions": {**dict.fromkeys("ABCD", "input"), "Z": "output"},
        "connections": {"A": nets["A0"], "B": nets["B0"], "C": ["0"], "D": ["0"], "Z": nets["S0"]}}


def _without_first(cell):
    """Let the first half pass nothing on, and make its carry of both operands alone."""
    carries = [carry for _, carry in _first(cell)]
    cell["parameters"] |= {"INIT0": "0" * 12 + _table(carries), "INJECT1_0": "NO"}
    cell["connections"] |= {"CIN": _NOTHING, "C0": ["1"], "D0": ["1"], "S0": _NOTHING}

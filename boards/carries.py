"""Carry chains without what nextpnr puts around them.

A chain whose first carry is a constant gets a cell in front of it that feeds the constant in, and one whose last carry
goes to logic, or nowhere, a cell behind it that leads that carry out: four LUTs a chain. What comes out of the first
bit is known without a carry, a carry that nobody takes need not be named, and the cell that leads a carry out has room
for what is done with it.
"""

from itertools import permutations, product

__all__ = ["trim"]

#: An input or output that is connected to nothing: nextpnr leaves it alone.
_NOTHING = ["x"]
_CONSTANTS = "0", "1"


def trim(netlist):
    """Change a netlist of Yosys (as read from its JSON) in place; returns (first, last carries, LUTs) that went.

    A first carry goes if it is constant and the first bit is one of two operands, as ``$alu`` gives it. The bit of the
    sum itself, if it is asked for, is a LUT beside the chain.

    A LUT goes that alone takes a last carry if it passes the carry on, or what two of its other inputs say (all of it
    inverted, maybe): one more bit of the chain does that, and shows its carry.
    """
    first = last = ends = 0
    for module in netlist["modules"].values():
        cells, takers = module["cells"], _takers(module)
        for name, cell in [(name, cell) for name, cell in cells.items() if cell["type"] == "CCU2C"]:
            nets = cell["connections"]
            if nets["COUT"] != _NOTHING:
                if nets["COUT"][0] not in takers:
                    nets["COUT"] = _NOTHING
                    last += 1
                elif end := _end(cells, nets["COUT"][0], takers):
                    lut, bit = end
                    cells[f"{name}_COUT_CCU2C"] = bit
                    _takes_over(takers, lut, cells.pop(lut), f"{name}_COUT_CCU2C", bit)
                    ends += 1
            if all(nets[port][0] in _CONSTANTS for port in ("CIN", "C0", "D0")):
                if nets["S0"][0] in takers:
                    cells[f"{name}_S0_LUT4"] = _first_sum(cell)
                _without_first(cell)
                first += 1
    return first, last, ends


def _takers(module):
    """{net: [(cell, port), ...]} of all inputs; the cell is ``None`` for an output of the module."""
    takers = {}
    for name, cell in module["cells"].items():
        for port, nets in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for net in nets:
                    takers.setdefault(net, []).append((name, port))
    for name, port in module["ports"].items():
        if port["direction"] == "output":
            for net in port["bits"]:
                takers.setdefault(net, []).append((None, name))
    return takers


def _takes_over(takers, name, cell, new_name, new):
    """Tell the takers that one cell is there instead of another."""
    for nets in cell["connections"].values():
        takers[nets[0]] = [taker for taker in takers.get(nets[0], ()) if taker[0] != name]
    for port, nets in new["connections"].items():
        if new["port_directions"][port] == "input":
            takers.setdefault(nets[0], []).append((new_name, port))


def _first(cell):
    """(sum, carry) of the first bit, for A and B of 00, 10, 01, 11."""
    nets, init = cell["connections"], int(cell["parameters"]["INIT0"], 2)
    cin, c, d = (int(nets[port][0]) for port in ("CIN", "C0", "D0"))
    injects = cell["parameters"]["INJECT1_0"] == "YES"
    for b, a in product((0, 1), repeat=2):
        passes, makes = init >> (8 * d + 4 * c + 2 * b + a) & 1, init >> (2 * b + a) & 1 and not injects
        yield passes ^ (cin and not injects), cin if passes else int(makes)


def _table(bits):
    """Part of the INIT of a LUT, by its two or three lowest inputs."""
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


def _end(cells, carry, takers):
    """(name of the LUT behind a last carry, cell in its place), or ``None``."""
    (name, _), *others = takers[carry]
    lut = cells.get(name)
    if others or lut is None or lut["type"] != "LUT4":
        return None
    nets = {port: lut["connections"][port][0] for port in "ABCD"}
    operands = sorted({net for net in nets.values() if net not in _CONSTANTS and net != carry})
    out = lut["connections"]["Z"]
    # What goes into a multiplexer of two LUTs has to be one.
    if any(cells[taker]["type"] == "PFUMX" and port != "C0"
                                for taker, port in takers.get(out[0], ()) if taker is not None):
        return None
    init = int(lut["parameters"]["INIT"], 2)

    def shown(values):
        return init >> sum(int(values.get(net, net)) << n for n, net in enumerate(nets.values())) & 1

    # The third of the other inputs may say whether the carry is passed on, and nothing else.
    for a, b, c in permutations([*operands, "1", "1", "1"][:max(3, len(operands))], 3):
        pairs = []      # the LUT without and with the carry, for these three of 000, 100, 010, ...
        for values in product((0, 1), repeat=3):
            known = dict(zip((c, b, a), values, strict=True))
            pairs.append(tuple(shown({**known, "1": 1, carry: is_one}) for is_one in (0, 1)))
        inverted = (1, 0) in pairs
        if inverted and (0, 1) in pairs:
            return None
        passes = [low != high for low, high in pairs]
        makes = [{low ^ inverted for low, high in pairs[n::4] if low == high} for n in range(4)]
        if all(len(made) < 2 for made in makes):
            break
    else:
        return None
    makes = [made == {1} for made in makes]
    return name, {
        "hide_name": 1, "type": "CCU2C", "attributes": {**lut["attributes"]},
        "parameters": {"INIT0": f"{_table(passes)}{'0' * 4}{_table(makes)}", "INIT1": str(int(inverted)) * 16,
                       "INJECT1_0": "NO", "INJECT1_1": "NO"},
        "port_directions": {**{f"{port}{n}": "input" for n in range(2) for port in "ABCD"}, "CIN": "input",
                            "S0": "output", "S1": "output", "COUT": "output"},
        "connections": {"A0": [a], "B0": [b], "C0": [c], **{port: ["1"] for port in ("D0", "A1", "B1", "C1", "D1")},
                        "CIN": [carry], "S0": _NOTHING, "S1": out, "COUT": _NOTHING}}

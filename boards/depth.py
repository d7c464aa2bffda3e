"""The longest ways between registers of a netlist, estimated before it is placed.

Placement takes minutes, this takes seconds. A figure is the sum of the cells' delays on an ECP5 of speed grade 6 and of
the same guess for every wire between them: good for telling which way is too long, not for signing anything off. Logic
is mapped for the longest way of the whole design, and what is shorter is made small instead of fast: many ways are as
long as the longest one until that is mended.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ROUTE_NS", "Way", "longest"]

#: What a wire between two cells takes.
ROUTE_NS = 0.9

#: What cells take, as nextpnr has it for speed grade 6; a carry passes two LUTs in the time of ``CARRY``.
LUT, MUX, MEMORY = 0.24, 0.2, 0.3
INTO_CARRY, CARRY, OUT_OF_CARRY = 0.47, 0.15, 0.44
MULTIPLIER = 3.4
#: From the clock to the output. Blocks with registers at their outputs are told apart by :func:`kind_of`.
START = {"TRELLIS_FF": 0.52, "DP16KD": 5.8, "registered DP16KD": 1.0, "registered MULT18X18D": 1.0}
#: Inputs that an output depends on; of a multiplier all but its controls.
_INPUTS: Mapping[str, Sequence[str]] = {
    "LUT4": ("A", "B", "C", "D"), "PFUMX": ("ALUT", "BLUT", "C0"), "L6MUX21": ("D0", "D1", "SD"),
    "CCU2C": ("A0", "B0", "C0", "D0", "A1", "B1", "C1", "D1", "CIN"), "TRELLIS_DPR16X4": ("RAD",),
    "MULT18X18D": tuple(f"{side}{n}" for side in "AB" for n in range(18)),
}
_CLOCKS = ("CLK", "CLKA", "CLKB", "CLK0")


@dataclass(frozen=True)
class Way:
    """A way into ``end`` (cell and port): ``ns`` in all, ``cells`` passed, ``hops`` as (ns so far, name of the wire),
    from the register on."""

    ns: float
    end: str
    cells: int
    hops: tuple[tuple[float, str], ...]


def _step(kind, port, out):
    """Delay from an input of a cell to its output, the wire before it included."""
    if kind == "CCU2C":
        if port == "CIN":
            return CARRY if out == "COUT" else OUT_OF_CARRY
        return ROUTE_NS + INTO_CARRY
    if kind in ("PFUMX", "L6MUX21"):    # their data come from the LUT beside them
        return ROUTE_NS + MUX if port in ("C0", "SD") else MUX
    return ROUTE_NS + {"LUT4": LUT, "TRELLIS_DPR16X4": MEMORY, "MULT18X18D": MULTIPLIER}[kind]


def is_registered(cell):
    """Whether the registers at the outputs of a memory or multiplier are used."""
    parameters = cell["parameters"]
    return (parameters.get("REG_OUTPUT_CLK", "NONE") != "NONE"
            or "OUTREG" in (parameters.get("REGMODE_A"), parameters.get("REGMODE_B")))


def kind_of(cell):
    """The type of a cell, as :data:`START` has it."""
    return f"registered {cell['type']}" if is_registered(cell) else cell["type"]


def _tidy(name):
    return re.sub(r"_(?:TRELLIS_FF|LUT4|PFUMX|L6MUX21|CCU2C|MULT18X18D)\w*", "~", name)


def longest(netlist, top="top"):
    """All ways into registers and memories of a netlist (path of a JSON file), one an end, the longest first."""
    with open(netlist) as file:
        module = json.load(file)["modules"][top]
    cells = module["cells"]
    kinds = {name: kind_of(cell) for name, cell in cells.items()}
    names = {}
    for name, net in module["netnames"].items():
        for n, bit in enumerate(net["bits"]):
            shown = f"{name}[{n}]" if len(net["bits"]) > 1 else name
            if bit not in names or len(shown) < len(names[bit]):
                names[bit] = shown
    drivers = {bit: (cell, port) for cell, it in cells.items() for port, bits in it["connections"].items()
               if it["port_directions"][port] == "output" for bit in bits}

    # Depth first without recursion; a loop through logic is cut where it closes.
    arrival = {}    # bit -> (ns, bit before)

    def inputs(bit):
        cell, out = drivers[bit]
        kind = kinds[cell]
        for port in _INPUTS[kind]:
            for before in cells[cell]["connections"].get(port, ()):
                if isinstance(before, int):
                    yield before, _step(kind, port, out)

    def resolve(bit):
        waiting = [bit]
        under_way = set()
        while waiting:
            at = waiting[-1]
            if at in arrival:
                waiting.pop()
                continue
            kind = kinds[drivers[at][0]] if at in drivers else None
            if kind not in _INPUTS:
                arrival[at] = (START.get(kind, 0.0), None)
                waiting.pop()
                continue
            missing = [before for before, _ in inputs(at) if before not in arrival and before not in under_way]
            if missing and at not in under_way:
                under_way.add(at)
                waiting += missing
                continue
            arrival[at] = max(((arrival[before][0] + step, before) for before, step in inputs(at) if before in arrival),
                              default=(0.0, None))
            under_way.discard(at)
            waiting.pop()
        return arrival[bit][0]

    ways = {}
    for cell, it in cells.items():
        if kinds[cell] not in START:
            continue
        for port, bits in it["connections"].items():
            if it["port_directions"][port] == "input" and port not in _CLOCKS:
                operand = it["type"] == "MULT18X18D" and port in _INPUTS["MULT18X18D"]
                last = ROUTE_NS + (MULTIPLIER if operand else 0.0)
                for bit in bits:
                    if isinstance(bit, int) and (ns := resolve(bit) + last) > ways.get(cell, (0.0,))[0]:
                        ways[cell] = ns, port, bit

    def trace(bit):
        hops = []
        while bit is not None:
            hops.append((round(arrival[bit][0], 2), _tidy(names.get(bit, "?"))))
            bit = arrival[bit][1]
        return tuple(reversed(hops))

    out = []
    for cell, (ns, port, bit) in ways.items():
        hops = trace(bit)
        out.append(Way(round(ns, 2), f"{_tidy(cell)}.{port}", len(hops) - 1, hops))
    return sorted(out, key=lambda way: -way.ns)

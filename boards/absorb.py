"""Registers behind multipliers and block memories, moved into them.

Both have registers at their outputs on an ECP5. Yosys leaves them unused and puts flip-flops behind the block, a way
across the chip away, while the block's own way takes half of a cycle. Where nothing but flip-flops takes what comes
out, all of one kind, they go into the block.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["absorb"]

#: What flip-flops have to be to go: those of a block start at 0, and have an enable but no reset.
_PLAIN = {"REGSET": "RESET", "CLKMUX": "CLK"}


@dataclass(frozen=True)
class _Kind:
    """Flip-flops of one clock and one enable: two nets, the enable ``"1"`` where there is none. ``gsr`` : whether the
    global reset reaches them, in the tools' words."""

    clock: object
    enable: object
    gsr: str


@dataclass(frozen=True)
class _Outputs:
    """Outputs of a block that are registered together, or not at all.

    Parameters
    ----------
    ports : names of the outputs.
    possible : whether a cell's registers can be used, by the clock and enable that they would have.
    parameters : what makes them be used, by the same.
    nets : inputs of the cell, by what goes there.
    """

    ports: tuple[str, ...]
    possible: Callable[[dict, _Kind], bool]
    parameters: Callable[[_Kind], dict[str, str]]
    nets: Callable[[_Kind], dict[str, object]]


def _multiplier(cell):
    return [_Outputs(
        tuple(f"P{n}" for n in range(36)),
        lambda cell, kind: cell["parameters"].get("REG_OUTPUT_CLK", "NONE") == "NONE",
        lambda kind: {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0",
                      "CLK0_DIV": "ENABLED", "GSR": kind.gsr, "RESETMODE": "SYNC"},
        lambda kind: {"CLK0": kind.clock, "CE0": kind.enable, "RST0": "0"})]


def _memory(cell):
    """Each side of a memory by itself, but for the widest words: both sides give one word then.

    Whether the enable of a side's reads (``CE``) also holds its output register is nothing to rely on: it has to be 1.
    """
    def side(name):
        return tuple(f"DO{name}{n}" for n in range(18))

    def outputs(ports, sides, reads):
        def possible(cell, kind):
            nets = cell["connections"]
            return (nets[f"CE{reads}"] == ["1"] and cell["parameters"]["GSR"] == kind.gsr and all(
                nets[f"CLK{name}"] == [kind.clock] and cell["parameters"][f"REGMODE_{name}"] == "NOREG"
                for name in sides))
        return _Outputs(ports, possible, lambda kind: {f"REGMODE_{name}": "OUTREG" for name in sides},
                        lambda kind: {f"OCE{name}": kind.enable for name in sides})

    if int(cell["parameters"]["DATA_WIDTH_B"], 2) == 36:
        return [outputs((*side("A"), *side("B")), "AB", "B")]
    return [outputs(side(name), name, name) for name in "AB"]


_BLOCKS = {"MULT18X18D": _multiplier, "DP16KD": _memory}


def absorb(netlist):
    """Change a netlist of Yosys (as read from its JSON) in place; returns how many flip-flops went.

    A block is left as it is if any of its outputs goes elsewhere too, or to flip-flops with other clocks or enables
    than the rest, with a reset, or with 1 as their first value.
    """
    gone = 0
    for module in netlist["modules"].values():
        cells = module["cells"]
        loads = _loads(module)
        for cell in [cell for cell in cells.values() if cell["type"] in _BLOCKS]:
            for outputs in _BLOCKS[cell["type"]](cell):
                behind = _behind(cells, cell, outputs.ports, loads)
                kinds = {_kind(cells[name]) for name in behind.values()}
                kind = kinds.pop() if len(kinds) == 1 else None
                if kind is None or not outputs.possible(cell, kind):
                    continue
                gone += len(behind)
                cell["parameters"] |= outputs.parameters(kind)
                for port, net in outputs.nets(kind).items():
                    cell["connections"][port], cell["port_directions"][port] = [net], "input"
                for port, name in behind.items():
                    cell["connections"][port] = cells.pop(name)["connections"]["Q"]
    return gone


def _loads(module):
    """{net: [(cell, port), ...]} of all inputs; the cell is ``None`` for an output of the module."""
    loads = {}
    for name, cell in module["cells"].items():
        for port, nets in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for net in nets:
                    loads.setdefault(net, []).append((name, port))
    for name, port in module["ports"].items():
        if port["direction"] == "output":
            for net in port["bits"]:
                loads.setdefault(net, []).append((None, name))
    return loads


def _behind(cells, block, ports, loads):
    """{port: name of the flip-flop that takes it, and nothing else does}, or nothing if one goes elsewhere."""
    behind = {}
    for port in ports:
        takers = [taker for net in block["connections"].get(port, ()) for taker in loads.get(net, ())]
        if not takers:
            continue
        (name, where), *others = takers
        if others or where != "DI" or name is None or cells[name]["type"] != "TRELLIS_FF":
            return {}
        behind[port] = name
    return behind


def _kind(flip_flop):
    """Clock and enable of a flip-flop that can go, else ``None``."""
    parameters, nets = flip_flop["parameters"], flip_flop["connections"]
    plain = (all(parameters.get(name, value) == value for name, value in _PLAIN.items())
             and nets.get("LSR", ["0"]) == ["0"] and not nets.get("M"))
    enable = {"CE": nets.get("CE", ["1"])[0], "1 ": "1", "1": "1"}.get(parameters.get("CEMUX", "1"))
    return _Kind(nets["CLK"][0], enable, parameters["GSR"]) if plain and enable is not None else None

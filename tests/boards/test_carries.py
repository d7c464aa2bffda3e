# amaranth: UnusedElaboratable=no
"""Carry chains without their first and last carries: which go, and that the netlist does the same without them."""

import copy
import json
import subprocess

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards import flow
from boards.carries import trim

WIDTH = 11      # wider than what is made of LUTs


class Arithmetic(wiring.Component):
    """``of(a, b, c)`` of numbers of :data:`WIDTH` bits and a bit."""

    a: In(WIDTH)
    b: In(WIDTH)
    c: In(1)
    out: Out(WIDTH + 2)

    def __init__(self, of):
        self.of = of
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.out.eq(self.of(self.a, self.b, self.c))
        return m


@pytest.fixture
def synthesised(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "trim", lambda netlist: (0, 0, 0))

    def synthesise(of):
        component = Arithmetic(of)
        ports = {name: (getattr(component, name), None) for name in component.signature.members}
        path, _ = flow.synthesise(rtlil.convert(component, name="top", ports=ports), tmp_path)
        return json.loads(path.read_text())

    return synthesise


def cells(netlist, kind):
    return [cell for cell in netlist["modules"]["top"]["cells"].values() if cell["type"] == kind]


@pytest.mark.parametrize(("of", "first", "last", "ends", "luts"), [
    (lambda a, b, c: a + b, 1, 1, 0, 1),
    (lambda a, b, c: (a + b) >> 1, 1, 1, 0, 0),     # the lowest bit is not asked for
    (lambda a, b, c: a - b, 1, 1, 0, 1),
    (lambda a, b, c: a + 1, 1, 1, 0, 0),            # an inverter already
    (lambda a, b, c: (a | (c << WIDTH)) < b, 1, 0, 1, -1),
    (lambda a, b, c: a < b, 1, 0, 1, -1),           # the highest bit is beyond the last carry
    (lambda a, b, c: a[1:] < b[1:], 1, 0, 1, -1),
    (lambda a, b, c: (a[1:] < b[1:]) & c, 1, 0, 1, -1),
    (lambda a, b, c: (a[1:] < b[1:]) ^ c, 1, 0, 0, 0),      # no carry is like that
    (lambda a, b, c: Mux(a[1:] < b[1:], a[0], b[0] & c), 1, 0, 0, 0),
    (lambda a, b, c: Mux(c, a[1:] < b[1:], a[0] & b[0]), 1, 0, 1, -1),
    (lambda a, b, c: a[1:] <= b[1:], 1, 0, 0, 1),   # the difference is asked for too, whether it is 0
], ids=["sum", "without its lowest bit", "difference", "next", "less, another bit", "less, odd", "less", "less and",
        "less or not", "either by less", "less or both", "less or equal"])
def test_carries_that_are_known_go(of, first, last, ends, luts, synthesised, tmp_path):
    before = synthesised(of)
    after = copy.deepcopy(before)
    went = trim(after)
    print(went, len(cells(before, "LUT4")), len(cells(after, "LUT4")))
    assert went == (first, last, ends)
    assert len(cells(after, "LUT4")) - len(cells(before, "LUT4")) == luts
    assert sum(cell["connections"]["CIN"] == ["x"] for cell in cells(after, "CCU2C")) == first
    assert sum(cell["connections"]["COUT"] == ["x"] for cell in cells(after, "CCU2C")) == last + ends
    assert len(cells(after, "CCU2C")) == len(cells(before, "CCU2C")) + ends
    assert trim(copy.deepcopy(after)) == (0, 0, 0), "a second time there is nothing left to do"
    prove_same(before, after, tmp_path)


@pytest.mark.parametrize("turned", [False, True])
def test_the_end_of_one_chain_behind_that_of_another(turned, synthesised, tmp_path):
    def of(a, b, c):
        ends = (a[1:] < b[1:]) & c, a[:10] < b[:10]
        return Cat(ends[::-1] if turned else ends)

    before = synthesised(of)
    ports = before["modules"]["top"]["ports"]
    by_out = {cell["connections"]["Z"][0]: cell["connections"] for cell in cells(before, "LUT4")}
    nets = [by_out[net] for net in ports["out"]["bits"][:2]]
    behind, ahead = nets[::-1] if turned else nets
    (port,) = [port for port in "ABCD" if behind[port] == ports["c"]["bits"]]
    behind[port] = ahead["Z"]
    after = copy.deepcopy(before)
    assert trim(after) == (2, 0, 2)
    prove_same(before, after, tmp_path)


def test_a_carry_that_is_a_signal_stays(synthesised):
    netlist = synthesised(lambda a, b, c: a + b)
    (first,) = [cell for cell in cells(netlist, "CCU2C") if cell["connections"]["CIN"] == ["0"]]
    first["connections"]["CIN"] = netlist["modules"]["top"]["ports"]["c"]["bits"]
    before = copy.deepcopy(first)
    assert trim(netlist)[0] == 0
    assert first["connections"] | {"COUT": None} == before["connections"] | {"COUT": None}


def prove_same(before, after, directory):
    """For all inputs, and whatever is where nothing is connected any more."""
    after, modules = copy.deepcopy(after), {}
    free = 1 + max(net for cell in after["modules"]["top"]["cells"].values()
                   for nets in cell["connections"].values() for net in nets if isinstance(net, int))
    loose = []
    for cell in cells(after, "CCU2C"):
        for port, nets in cell["connections"].items():
            if nets == ["x"]:
                cell["connections"][port] = [free]
                loose += [free] if cell["port_directions"][port] == "input" else []
                free += 1
    for name, netlist in (("before", before), ("after", after)):
        module = netlist["modules"]["top"]
        anything = {"direction": "input", "bits": loose if name == "after" else range(free, free + len(loose))}
        modules[name] = {**module, "attributes": {},
                         "ports": {**module["ports"], "anything": {**anything, "bits": list(anything["bits"])}}}
    (directory / "both.json").write_text(json.dumps({"modules": modules}))
    (directory / "prove.ys").write_text("\n".join((
        "read_json both.json", "read_verilog +/lattice/ccu2c_sim.vh +/lattice/common_sim.vh", "hierarchy -check",
        "proc", "flatten before after", "opt_clean", "miter -equiv -flatten before after miter",
        "sat -verify -prove trigger 0 -set-def-inputs miter", "")))
    ran = subprocess.run([flow.find_tool("yosys"), "-q", "prove.ys"], cwd=directory, capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]

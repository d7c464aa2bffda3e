# amaranth: UnusedElaboratable=no
"""Flip-flops moved into blocks: which go, and that the netlist does the same without them."""

import copy
import json
import subprocess

import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from boards import flow
from boards.absorb import absorb

# The blocks as Lattice describes them, as far as netlists here use them: output registers behind the product, and
# behind a read that is registered itself. A memory of 36 bits shows the low half of a word on port A.
BLOCKS = """
module MULT18X18D(input CLK0, CE0, RST0, {operands}, output {product});
    parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0", CLK0_DIV = "ENABLED";
    parameter GSR = "ENABLED", RESETMODE = "SYNC";
    wire [17:0] a = {{{a}}}, b = {{{b}}};
    wire [35:0] now = a[3:0] * b[3:0];
    reg [35:0] p = 0;
    always @(posedge CLK0) if (CE0) p <= now;
    assign {{{p}}} = REG_OUTPUT_CLK == "CLK0" ? p : now;
endmodule
"""


class Product(wiring.Component):
    """A product behind a register; ``what`` else may happen to it."""

    a: In(4)
    b: In(4)
    en: In(1)
    clear: In(1)
    out: Out(8)
    other: Out(8)

    def __init__(self, what):
        self.what = what
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        product, registered = Signal(8), Signal(8, init=int(self.what == "starts at one"))
        m.d.comb += [product.eq(self.a * self.b), self.out.eq(registered)]
        enabled = self.what != "always"
        with m.If(self.en if enabled else 1):
            m.d.sync += registered.eq(product)
        if self.what == "reset":
            with m.If(self.clear):
                m.d.sync += registered.eq(0)
        if self.what == "also combinational":
            m.d.comb += self.other.eq(product)
        if self.what == "two enables":
            with m.If(self.clear):
                m.d.sync += registered[4:].eq(product[4:])
        return m


class Words(wiring.Component):
    """A memory that is read in two steps; with ``reads`` only where that is 1."""

    def __init__(self, width, reads):
        self.width, self.reads = width, reads
        super().__init__({"en": In(1), "address": In(9), "write": In(1), "data": In(width), "out": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Memory(shape=self.width, depth=512, init=[], attrs={"ram_style": "block",
                                                                                         "no_rw_check": 1})
        write, read = words.write_port(), words.read_port(domain="comb")
        fetched = Signal(self.width, reset_less=True)
        m.d.comb += [write.addr.eq(self.address), write.data.eq(self.data), write.en.eq(self.write),
                     read.addr.eq(self.address)]
        with m.If(self.en if self.reads else 1):
            m.d.sync += fetched.eq(read.data)
        with m.If(self.en):
            m.d.sync += self.out.eq(fetched)
        return m


def synthesised(component, directory):
    m = Module()
    m.domains.sync = sync = ClockDomain(reset_less=True)
    clk = Signal()
    m.d.comb += ClockSignal().eq(clk)
    m.submodules.component = component
    ports = {"clk": (clk, None), **{name: (getattr(component, name), None) for name in component.signature.members}}
    assert sync.clk is not None
    path, _ = flow.synthesise(rtlil.convert(m, name="top", ports=ports), directory)
    return json.loads(path.read_text())


def count(netlist, kind):
    return sum(cell["type"] == kind for cell in netlist["modules"]["top"]["cells"].values())


@pytest.fixture
def unabsorbed(monkeypatch):
    monkeypatch.setattr(flow, "absorb", lambda netlist: 0)


@pytest.mark.parametrize(("what", "goes"), [
    ("always", True), ("enabled", True), ("reset", False), ("starts at one", False), ("also combinational", False),
    ("two enables", False)])
def test_what_is_registered_in_a_multiplier(what, goes, tmp_path, unabsorbed):
    before = synthesised(Product(what), tmp_path)
    after = copy.deepcopy(before)
    went = absorb(after)
    assert count(before, "MULT18X18D") == 1
    assert went == count(before, "TRELLIS_FF") - count(after, "TRELLIS_FF") == (8 if goes else 0)
    assert absorb(after) == 0, "a second time there is nothing left to do"
    if goes:
        prove_same(before, after, tmp_path)
    else:
        assert before == after


def prove_same(before, after, directory):
    """Induction over all states and inputs: both netlists give the same, cycle for cycle."""
    both = {"before": before, "after": after}
    (directory / "both.json").write_text(json.dumps({"modules": {
        name: {**netlist["modules"]["top"], "attributes": {}} for name, netlist in both.items()}}))
    names = {side: [f"{side}{n}" for n in range(18)] for side in "ABCD"}
    product = [f"P{n}" for n in range(36)]
    controls = [f"{kind}{n}" for kind in ("CLK", "CE", "RST") for n in range(1, 4)]
    shifts = [f"{name}{side}{n}" for name in ("SR", "RO") for side in "ABC" for n in range(18)]
    cells = before["modules"]["top"]["cells"].values()
    there = {port for cell in cells if cell["type"] == "MULT18X18D" for port in cell["connections"]}
    extra = sorted(there - {*names["A"], *names["B"], *product, "CLK0", "CE0", "RST0"})
    assert all(port.startswith(("SIGNED", "SOURCE")) or port in {*names["C"], *names["D"], *controls, *shifts}
               for port in extra)
    (directory / "blocks.v").write_text(BLOCKS.format(
        operands=", ".join((*names["A"], *names["B"], *extra)), product=", ".join(product),
        a=", ".join(reversed(names["A"])), b=", ".join(reversed(names["B"])), p=", ".join(reversed(product))))
    (directory / "prove.ys").write_text("\n".join((
        "read_json both.json", "read_verilog blocks.v", "read_verilog -D NO_INCLUDES +/lattice/cells_sim_ecp5.v",
        "hierarchy -check", "proc", "flatten before after", "opt_clean", "miter -equiv -flatten before after miter",
        "sat -verify -prove trigger 0 -tempinduct -set-init-zero -set-def-inputs -maxsteps 3 miter", "")))
    ran = subprocess.run([flow.find_tool("yosys"), "-q", "prove.ys"], cwd=directory, capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


@pytest.mark.parametrize("width", [9, 36])
@pytest.mark.parametrize("reads", [False, True])
def test_what_is_registered_in_a_memory(width, reads, tmp_path, unabsorbed):
    before = synthesised(Words(width, reads), tmp_path)
    after = copy.deepcopy(before)
    went = absorb(after)
    (old,), (new,) = ([cell for cell in netlist["modules"]["top"]["cells"].values() if cell["type"] == "DP16KD"]
                      for netlist in (before, after))
    assert went == count(before, "TRELLIS_FF") - count(after, "TRELLIS_FF") == (0 if reads else width)
    registered = {side for side in "AB" if new["parameters"][f"REGMODE_{side}"] == "OUTREG"}
    if reads:
        assert before == after
        return
    # Every bit of the block goes where the flip-flop behind it went, and they share the enable.
    flip_flops = {cell["connections"]["DI"][0]: cell for cell in before["modules"]["top"]["cells"].values()
                  if cell["type"] == "TRELLIS_FF"}
    moved, sides = 0, set()
    for port, (net,) in old["connections"].items():
        if port.startswith("DO") and net in flip_flops:
            moved += 1
            sides.add(port[2])
            assert new["connections"][port] == flip_flops[net]["connections"]["Q"]
            assert new["connections"][f"OCE{port[2]}"] == flip_flops[net]["connections"]["CE"]
        elif not port.startswith("OCE"):
            assert new["connections"][port] == old["connections"][port]
    assert moved == width
    assert registered == sides
    assert len(sides) == (2 if width == 36 else 1)

"""Single components through the tools: ports behind registers, figures and critical path as reported."""

import re

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from typer.testing import CliRunner

from boards import flow, measure
from boards.__main__ import app


class Adder(wiring.Component):
    def __init__(self, width=8):
        super().__init__({"a": In(width), "b": In(width), "sum": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.sum.eq(self.a + self.b)
        return m


class Registered(wiring.Component):
    a: In(24)
    b: In(24)
    product: Out(24)

    def elaborate(self, platform):
        m = Module()
        a = Signal(24)
        m.d.sync += [a.eq(self.a), self.product.eq(a * self.b)]
        return m


def test_what_is_shifted_in_reaches_the_component_and_its_answer_comes_out():
    top = measure.Surrounded(Adder(8))
    # The clock is a port of the surroundings; the simulator wants a domain to drive.
    m = Module()
    m.submodules.top = top
    sim = Simulator(m)
    out = []

    async def bench(ctx):
        async def tick():
            ctx.set(top.clk, 1)
            await ctx.delay(1e-9)
            ctx.set(top.clk, 0)
            await ctx.delay(1e-9)
        for bit in range(15, -1, -1):   # port b lies behind port a in the chain
            ctx.set(top.shift_in, (0x5A << 8 | 0x1C) >> bit & 1)
            await tick()
        await tick()                    # the last bit has a register before the chain
        ctx.set(top.load, 1)
        await tick()                    # the answer is captured; the load has a register too
        ctx.set(top.load, 0)
        await tick()
        for _ in range(10):
            out.append(ctx.get(top.shift_out))
            await tick()

    sim.add_testbench(bench)
    sim.run()
    bits = "".join(str(bit) for bit in out)
    assert f"{0x5A + 0x1C:08b}" in bits, bits


def test_figures_of_a_small_component():
    figures = measure.measure("tests.boards.test_measure:Registered", {}, "25F", seed=1)
    assert set(figures.clocks) == {"clk"}
    reached, wanted = figures.clocks["clk"]
    assert wanted == 125.0
    assert 20 < reached < 500
    assert figures.used["dsp"] >= 1     # 24 bits times 24 bits
    assert figures.available["bram"] == 56
    assert figures.used["ff"] >= 4 * 24
    assert figures.path[0].kind == "clk-to-q"
    assert sum(hop.delay_ns for hop in figures.path) == pytest.approx(1000 / reached, rel=0.01)
    assert re.search(r"routing, \d+\.\d+ cells", flow.path_lines(figures)[-1])


def test_a_second_run_does_not_synthesise_again_and_repeats():
    first = measure.measure("tests.boards.test_measure:Adder", {"width": 12}, "45F", seed=3)
    second = measure.measure("tests.boards.test_measure:Adder", {"width": 12}, "45F", seed=3)
    assert second.seconds["synthesis"] == 0
    assert second.clocks == first.clocks
    assert second.path == first.path


def test_time_prints_clock_size_and_path():
    result = CliRunner().invoke(app, ["time", "tests.boards.test_measure:Adder", "width=16", "--device", "85F"])
    assert result.exit_code == 0, result.output
    for word in ("clock clk", "125.0 MHz", "LUT4", "block RAM", "multipliers", "clk-to-q", "setup"):
        assert word in result.output


@pytest.mark.parametrize(("arguments", "message"), [
    (["time", "hdl.mac.rx", "--device", "25F"], "'hdl.mac.rx' must be of the form package.module:Class"),
    (["time", "hdl.mac.rx:MacRx", "--device", "12F"], "12F: must be one of 25F, 45F, 85F"),
    (["time", "hdl.mac.rx:MacRx", "width"], "'width' must be of the form name=value"),
    (["time", "hdl.mac.rx:NoSuch"], "NoSuch"),
    (["time", "hdl.no_such:MacRx"], "no_such"),
])
def test_what_cannot_be_measured_is_said_in_a_line(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setenv("YOSYS", "no-such-yosys")
    with pytest.raises(flow.FlowError, match="YOSYS=no-such-yosys: no such program"):
        flow.find_tool("yosys")


def test_a_failing_tool_shows_its_error(tmp_path):
    with pytest.raises(flow.FlowError, match=r"(?s)synthesis failed \(log .*yosys\.log\):.*ERROR"):
        flow.synthesise("this is not RTLIL", tmp_path)


def test_a_carry_chain_is_one_line():
    hops = [("clk-to-q", .4, "r.Q @1,1"), ("routing", 1., "a.A @2,1"), ("logic", .3, "a.FCO @2,1"),
            ("routing", 0., "b.FCI @2,1"), ("logic", .1, "b.FCO @2,1"), ("routing", 0., "c.FCI @3,1"),
            ("logic", .2, "c.F @3,1"), ("routing", .5, "r.DI @3,1"), ("setup", 0., "r.DI @3,1")]
    path = tuple(flow.Hop(kind, ns, end) for kind, ns, end in hops)
    *lines, total = flow.path_lines(flow.Figures({}, {}, {}, path))
    assert [re.sub(r"^.*?\+ *[\d.]+ *", "", line).split() for line in lines] == [
        ["clk-to-q", "r.Q", "@1,1"], ["routing", "a.A", "@2,1"], ["carry", "chain"], ["logic", "c.F", "@3,1"],
        ["routing", "r.DI", "@3,1"], ["setup", "r.DI", "@3,1"]]
    assert lines[2].startswith("    1.80 ns  + 0.40")
    assert total.strip().startswith("2.50 ns: 1.50 routing, 1.00 cells")

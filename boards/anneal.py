"""Simulated annealing of a placed design, between nextpnr's placement and its routing.

nextpnr places a design as if wires were never short of room, and as if the delay of a wire grew with its length from
nothing on. On a chip that is three quarters full the first makes it unroutable, and on all of them the second draws
together what could as well lie apart. ``anneal.cpp`` starts from that placement and trades wires, their expected
crowding and time against one another; what may stand where is decided as nextpnr decides it.

The design goes to the program as numbers in a file: sizes, wire delays and schedule; the columns and rows of tiles with
logic; then a line for each cell, pin and way through a cell, in the order of the structures that ``anneal.cpp`` reads
them into. What comes back is a line for each cell: column, row, site.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boards import depth
from boards.tools import FlowError, Progress, run, tail

__all__ = ["AnnealError", "Schedule", "anneal", "compile_program", "read_scarce", "read_sites", "write_design"]

SOURCE = Path(__file__).with_name("anneal.cpp")


class AnnealError(FlowError):
    """The placement cannot be annealed. The message says why."""


@dataclass(frozen=True)
class Schedule:
    """How long and by which measure.

    Parameters
    ----------
    hot, cool : first temperature, in what a cluster of cells costs on average, and its decay a round.
    time_share : of the cost, the rest is for wires.
    beyond : price of time that a way does not have, in that of the longest way's time.
    steep, learned : how the price of a place rises with the demand beyond its room, now and for ever.
    trials : a cluster and round.
    sharpness : power to which the length of a way counts, in the first round and from some round on; one more a round.
    room : wires that a place carries well. wires_a_pin : what a pin takes of them where it is.
    """

    hot: float = 0.3
    cool: float = 0.95
    time_share: float = 0.4
    beyond: float = 8.0
    steep: float = 3.0
    learned: float = 0.3
    trials: int = 60
    sharpness: tuple[int, int] = (6, 30)
    room: float = 100.0
    wires_a_pin: float = 1.5


#: Wires of a routed design of speed grade 6, in ns: within a tile, to another one, and for each tile on the way.
SAME_NS, NEAR_NS, STEP_NS = 0.45, 0.75, 0.055
#: Delays of other speed grades, compared with grade 6.
GRADES: Mapping[str, float] = {"6": 1.0, "7": 0.87, "8": 0.75}
#: What a wire that is taken twice adds to the price of its place.
SCARCE = 0.8
_RESET_SETUP, _BLOCK_SETUP = 0.42, 0.25

_KINDS = {"TRELLIS_COMB": 0, "TRELLIS_FF": 1, "TRELLIS_RAMW": 2}
_FIXED, _BLOCKS = 3, {"DP16KD": 4, "MULT18X18D": 5}
_CARRY, _LUTRAM, _MUX5, _MUX6, _DEEP_MUX6, _RAMW_BLOCK, _USES_M = (1 << n for n in range(7))
_MODES = {"LOGIC": 0, "CCU2": _CARRY, "DPRAM": _LUTRAM, "RAMW_BLOCK": _RAMW_BLOCK}
#: Their nets are clocks, with wires of their own.
_CLOCK_CELLS = ("DCCA", "DCSC", "EHXPLLL", "GSR")
_CLOCK_PORTS = ("CLK", "CLKA", "CLKB", "CLK0", "CLK1", "CLK2", "CLK3", "WCK", "CLKI", "ECLK", "SCLK")
_SITE = re.compile(r"X(?P<x>\d+)/Y(?P<y>\d+)/"
                   r"(?:SLICE(?P<slice>[A-D])\.(?:(?P<kind>K|FF)(?P<half>[01])|(?P<ramw>RAMW)))?")
_RAMW_SITE = 16
#: Inputs of the multiplexer behind a LUT.
_TO_OFX = ("M", "F1", "FXA", "FXB")
#: Which output of the write port an input ends at.
_RAMW_WAYS = {"A0": "WADO3", "A1": "WDO1", "B0": "WADO1", "B1": "WDO3", "C0": "WADO2", "C1": "WDO0", "D0": "WADO0",
              "D1": "WDO2"}


def _site(name):
    """(column, row, site in the tile or None) of a site as nextpnr names it."""
    match = _SITE.match(name)
    if match is None:
        raise AnnealError(f"site {name!r}: nextpnr has names like X12/Y3/SLICEA.FF0")
    x, y = int(match["x"]), int(match["y"])
    if match["ramw"]:
        return x, y, _RAMW_SITE
    if match["slice"]:
        return x, y, 2 * (2 * "ABCD".index(match["slice"]) + int(match["half"])) + (match["kind"] == "FF")
    return x, y, None


def _site_name(x, y, site):
    if site == _RAMW_SITE:
        return f"X{x}/Y{y}/SLICEC.RAMW"
    return f"X{x}/Y{y}/SLICE{'ABCD'[site // 4]}.{'FF' if site % 2 else 'K'}{site // 2 % 2}"


class _Design:
    """A placed design as ``anneal.cpp`` wants it."""

    def __init__(self, module):
        self.cells = module["cells"]
        self.grade = GRADES[module["settings"]["arch.speed"].strip()]
        self.drivers, self.users = {}, {}
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                for bit in bits:
                    if not isinstance(bit, int):
                        continue
                    if cell["port_directions"][port] == "output":
                        self.drivers[bit] = name, port
                    else:
                        self.users.setdefault(bit, []).append((name, port))
        self.nets = [bit for bit in self.drivers if bit in self.users and not self._is_clock(bit)]
        self._number, self._numbers = {}, {}

    def _type(self, name):
        return self.cells[name]["type"]

    def _net(self, name, port):
        bits = self.cells[name]["connections"].get(port)
        return bits[0] if bits else None

    def _parameter(self, name, parameter, default=""):
        return self.cells[name]["parameters"].get(parameter, default).strip()

    def _is_clock(self, bit):
        return self._type(self.drivers[bit][0]) in _CLOCK_CELLS or all(
            port in _CLOCK_PORTS or self._type(name) in _CLOCK_CELLS for name, port in self.users[bit])

    def _is_direct(self, bit, name, port):
        """Whether a wire of its own leads there, so that both ends have to stay together."""
        driver, out = self.drivers[bit]
        kind, from_kind = self._type(name), self._type(driver)
        return ((port == "FCI" and out == "FCO") or from_kind == "TRELLIS_RAMW"
                or (kind == "TRELLIS_FF" and port == "DI" and from_kind == "TRELLIS_COMB")
                or (kind == "TRELLIS_COMB" and port in ("F1", "FXA", "FXB")))

    def numbered(self, what, key):
        """A number for what is equal: that of the first one that was asked for."""
        numbers = self._numbers.setdefault(what, {})
        return numbers.setdefault(key, len(numbers))

    def cell_lines(self):
        """(lines of the cells, number of clusters, columns, rows)."""
        parent = {name: name for name in self.cells}

        def root(name):
            while parent[name] != name:
                parent[name] = name = parent[parent[name]]
            return name

        for bit in self.nets:
            for name, port in self.users[bit]:
                if self._is_direct(bit, name, port):
                    parent[root(name)] = root(self.drivers[bit][0])
        lines, columns, rows = [], set(), set()
        for name, cell in self.cells.items():
            x, y, site = _site(cell["attributes"]["NEXTPNR_BEL"])
            kind = _KINDS.get(cell["type"], _BLOCKS.get(cell["type"], _FIXED))
            flags = tile_set = slice_set = 0
            cluster = -1
            if kind in _BLOCKS.values():
                site = self.numbered("site", cell["attributes"]["NEXTPNR_BEL"])
            if kind < _FIXED:
                columns.add(x)
                rows.add(y)
            if kind != _FIXED:
                cluster = self.numbered("cluster", root(name))
            if cell["type"] == "TRELLIS_COMB":
                flags = self._comb_flags(name)
            elif cell["type"] == "TRELLIS_FF":
                flags = _USES_M if self._net(name, "M") is not None else 0
                tile_set = self.numbered("tile", (
                    self._net(name, "CLK"), self._net(name, "LSR"), self._parameter(name, "CLKMUX") == "INV",
                    self._parameter(name, "LSRMUX") == "INV", self._parameter(name, "SRMODE")))
                slice_set = self.numbered("slice", (
                    self._net(name, "CE"), self._parameter(name, "CEMUX"), self._parameter(name, "GSR")))
            lines.append((kind, x, y, -1 if site is None else site, flags, tile_set, slice_set, cluster))
        return lines, len(self._numbers.get("cluster", ())), sorted(columns), sorted(rows)

    def _comb_flags(self, name):
        mode = self._parameter(name, "MODE", "LOGIC")
        if mode not in _MODES:
            raise AnnealError(f"{name}: mode {mode!r} of a LUT, known are {', '.join(_MODES)}")
        flags = _MODES[mode]
        if self._net(name, "F1") is not None:
            flags |= _MUX5
        if (wide := self._net(name, "FXA")) is not None:
            flags |= _MUX6
            if self._net(self.drivers[wide][0], "F1") is not None:
                flags |= _DEEP_MUX6
        return flags

    def _start(self, name):
        """ns from the clock to an output, -1 where it is not from a register."""
        kind = depth.kind_of(self.cells[name])
        return depth.START[kind] * self.grade if kind in depth.START else -1

    def _end(self, name, port):
        """ns from an input to the clock, -1 where it does not go to a register."""
        kind = self._type(name)
        if kind == "TRELLIS_FF":
            return _RESET_SETUP * self.grade if port == "LSR" else 0.0
        if kind == "MULT18X18D":
            operand = re.match(r"[AB]\d", port)
            if not depth.is_registered(self.cells[name]):
                return -1
            return depth.MULTIPLIER * self.grade if operand else _BLOCK_SETUP
        if kind in ("DP16KD", "IOLOGIC") or (kind == "TRELLIS_COMB" and port.startswith(("WD", "WAD", "WRE"))):
            return _BLOCK_SETUP
        return -1

    def _domain(self, name, port):
        kind = self._type(name)
        if kind == "DP16KD":
            clock = "CLKA" if re.match(r"(?:AD|DI|DO|WE|CE|OCE|RST|CS)A", port) else "CLKB"
        else:
            clock = {"TRELLIS_FF": "CLK", "MULT18X18D": "CLK0", "IOLOGIC": "CLK", "TRELLIS_COMB": "WCK"}.get(kind)
        bit = self._net(name, clock) if clock else None
        return -1 if bit is None else self.numbered("domain", bit)

    def pin_lines(self):
        """Lines of the pins, net by net, the driver first."""
        index = {name: n for n, name in enumerate(self.cells)}
        lines = []
        for n, bit in enumerate(self.nets):
            name, port = self.drivers[bit]
            direct = all(self._is_direct(bit, *user) for user in self.users[bit])
            self._number[name, port] = len(lines)
            lines.append((index[name], n, 1, int(direct), self._start(name), -1, self._domain(name, port)))
            for name, port in self.users[bit]:
                self._number[name, port] = len(lines)
                lines.append((index[name], n, 0, int(self._is_direct(bit, name, port)), -1, self._end(name, port),
                              self._domain(name, port)))
        return lines

    def way_lines(self):
        """Lines of the ways through cells; after :meth:`pin_lines`."""
        lines = []

        def way(name, port, out, ns):
            if (name, port) in self._number and (name, out) in self._number:
                lines.append((self._number[name, port], self._number[name, out], round(ns * self.grade, 3)))

        for name, cell in self.cells.items():
            if cell["type"] == "TRELLIS_COMB":
                carries = self._parameter(name, "MODE", "LOGIC") == "CCU2"
                for port in ("A", "B", "C", "D", "M", "F1", "FXA", "FXB", "FCI"):
                    for out in ("F", "OFX", "FCO"):
                        if port in _TO_OFX and out != "OFX":
                            continue
                        way(name, port, out, _through(port, out, carries))
            elif cell["type"] == "TRELLIS_RAMW":
                for port, out in _RAMW_WAYS.items():
                    way(name, port, out, 0.0)
            elif cell["type"] == "MULT18X18D" and not depth.is_registered(cell):
                for port in cell["connections"]:
                    for out in cell["connections"] if re.match(r"[AB]\d", port) else ():
                        if re.match(r"P\d", out):
                            way(name, port, out, depth.MULTIPLIER)
        return lines


def _through(port, out, carries):
    """ns through a LUT of grade 6."""
    if carries:
        if port == "FCI":
            return depth.CARRY / 2 if out == "FCO" else depth.OUT_OF_CARRY
        return depth.INTO_CARRY if out == "FCO" else depth.LUT
    if port in _TO_OFX:
        return depth.MUX
    return depth.LUT + (depth.MUX if out == "OFX" else 0)


def write_design(placed, path, *, target_mhz, seed=1, schedule=Schedule(), scarce=()):
    """Write what the program needs of a design that nextpnr has placed (``--write``, loaded from JSON)."""
    design = _Design(placed["modules"]["top"])
    cells, clusters, columns, rows = design.cell_lines()
    pins = design.pin_lines()
    ways = design.way_lines()
    wires = (value * design.grade for value in (SAME_NS, NEAR_NS, STEP_NS))
    width, height = (max(line[axis] for line in cells) + 3 for axis in (1, 2))
    scarce = [(x, y, price) for x, y, price in scarce if x < width and y < height]
    lines = [
        (width, height, len(cells), len(pins), len(design.nets), len(ways), clusters, len(columns), len(rows)),
        (1000 / target_mhz, *wires, schedule.room, schedule.wires_a_pin, seed),
        (schedule.hot, schedule.cool, schedule.time_share, schedule.beyond, schedule.steep, schedule.learned,
         schedule.trials, *schedule.sharpness),
        columns, rows, *cells, *pins, *ways, (len(scarce),), *scarce]
    Path(path).write_text("".join(f"{' '.join(map(str, line))}\n" for line in lines))


def read_sites(placed, path):
    """Put the program's result into the placed design."""
    cells = placed["modules"]["top"]["cells"]
    blocks = [cell["attributes"]["NEXTPNR_BEL"] for cell in cells.values() if cell["type"] in _BLOCKS]
    lines = Path(path).read_text().splitlines()
    if len(lines) != len(cells):
        raise AnnealError(f"{path}: places of {len(lines)} cells, the design has {len(cells)}")
    for cell, line in zip(cells.values(), lines, strict=True):
        x, y, site = map(int, line.split())
        if cell["type"] in _KINDS:
            cell["attributes"]["NEXTPNR_BEL"] = _site_name(x, y, site)
        elif cell["type"] in _BLOCKS:
            cell["attributes"]["NEXTPNR_BEL"] = blocks[site]


def read_scarce(path):
    """Places where wires are short, as (column, row, price), from the file of router2 that counts the wires taken twice
    (a line a column, a value a row)."""
    lines = [[float(value) for value in line.split(",") if value.strip()] for line in
             Path(path).read_text().splitlines() if line.strip()]
    places = []
    for x, column in enumerate(lines):
        for y in range(len(column)):
            around = [value for its in lines[max(0, x - 1):x + 2] for value in its[max(0, y - 1):y + 2]]
            if (mean := sum(around) / len(around)) > 0.1:
                places.append((x, y, round(SCARCE * mean, 3)))
    return places


def compile_program(path):
    """Compile ``anneal.cpp`` to ``path``, with ``CXX`` or g++; nothing is done if that is newer than the source."""
    path = Path(path)
    if path.exists() and path.stat().st_mtime > SOURCE.stat().st_mtime:
        return path
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise AnnealError(f"{compiler} is missing: install g++, or name another compiler with CXX")
    # No fused operations: their results depend on the processor.
    command = [compiler, "-O2", "-std=c++17", "-ffp-contract=off", "-o", str(path), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AnnealError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return path


def anneal(placed, result, *, target_mhz, seed=1, schedule=Schedule(), scarce=(),
           settings: Mapping[str, str] | None = None, log, progress: Progress | None = None):
    """Anneal the placement in the JSON file ``placed``, and write the design with its new places to ``result``.

    Parameters
    ----------
    placed, result : Path
        As nextpnr writes and reads them.
    target_mhz : float
        Ways longer than a cycle of it count most.
    seed : int
        Of the random numbers. The same design and seed give the same result.
    scarce : sequence
        Places that cost more, from :func:`read_scarce`.
    settings : nextpnr's, to go into the result: those that have no option.
    log : Path
        What the program says, a line a round.
    progress : callable
        Called with the stage and what is under way.

    Raises
    ------
    AnnealError
        No compiler, or a design that the program refuses.
    """
    placed, result = Path(placed), Path(result)
    program = compile_program(result.with_name("anneal").resolve())
    design, sites = result.with_suffix(".design"), result.with_suffix(".sites")
    module = json.loads(placed.read_text())
    write_design(module, design, target_mhz=target_mhz, seed=seed, schedule=schedule, scarce=scarce)

    def describe(line):
        match = re.match(r"round (\d+) .* wires (\d+)", line)
        return match and f"annealing, round {match[1]}, {match[2]} wires"

    code, _ = run("place and route", [program, design.resolve(), sites.resolve()], log, progress, describe)
    if code:
        raise AnnealError(f"annealing failed (log {log}):\n{tail(log)}")
    read_sites(module, sites)
    module["modules"]["top"]["settings"] |= settings or {}
    result.write_text(json.dumps(module))
    design.unlink()
    sites.unlink()

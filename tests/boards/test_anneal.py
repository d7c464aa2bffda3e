# amaranth: UnusedElaboratable=no
"""Annealing: what a tile allows, checked with rules written a second time, and nothing changed but places."""

import copy
import dataclasses
import json
import random
import re
import subprocess
from functools import reduce
from itertools import pairwise
from operator import xor

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib.memory import Memory

from boards import anneal, build, flow
from boards import board as boards
from tests.boards.echo import EchoCore

SCHEDULE = anneal.Schedule(trials=20)


def _module():
    """Carry chains, wide choices, both kinds of memory, multipliers, registers with several enables and resets."""
    m = Module()
    data, address, enable, reset, out = (Signal(n, name=name) for n, name in (
        (16, "data"), (6, "address"), (4, "enable"), (2, "reset"), (16, "out")))
    m.submodules.small = small = Memory(shape=8, depth=16, init=[], attrs={"ram_style": "distributed"})
    m.submodules.large = large = Memory(shape=32, depth=1024, init=[], attrs={"ram_style": "block"})
    ports = small.write_port(), large.write_port()
    for port in ports:
        m.d.comb += [port.addr.eq(Cat(address, data)), port.data.eq(Cat(data, data)), port.en.eq(enable[0])]
    read, block = small.read_port(domain="comb"), large.read_port()
    m.d.comb += [read.addr.eq(address), block.addr.eq(Cat(address, data)), block.en.eq(1)]
    sums = [Signal(24, name=f"sum_{n}") for n in range(12)]
    for n, sum_ in enumerate(sums):
        with m.If(enable[n % 4]):
            m.d.sync += sum_.eq(sum_ + data + n)
        if n % 3:
            with m.If(reset[n % 2]):
                m.d.sync += sum_.eq(0)
    chosen, product = Signal(24), Signal(32)
    m.d.sync += [chosen.eq(Array(sums)[address[:4]]), product.eq(Cat(data, block.data[:2]) * chosen[:18])]
    m.d.sync += out.eq(product ^ (product >> 16) ^ Cat(read.data, block.data[8:16]) ^ block.data[16:])
    return rtlil.convert(m, name="top", ports=[data, address, enable, reset, out])


def _tangle():
    """Registers each of which depends on four others, near or far: nothing but wires decides how fast they are."""
    rng, m = random.Random(5), Module()
    inputs, out = Signal(8, name="inputs"), Signal(8, name="out")
    bits = [Signal(name=f"bit_{n}") for n in range(1500)]
    for n, bit in enumerate(bits):
        near = [bits[(n + rng.randrange(1, 20)) % len(bits)] for _ in range(3)]
        m.d.sync += bit.eq(reduce(xor, near) & (rng.choice(bits) | inputs[n % 8]))
    m.d.sync += out.eq(Cat(bits[:8]))
    return rtlil.convert(m, name="top", ports=[inputs, out])


def _placed(text, directory):
    """A file with a small design as nextpnr has placed it."""
    netlist, _ = flow.synthesise(text, directory)
    done = subprocess.run(
        [flow.find_tool("nextpnr-ecp5"), *flow.DEVICES["25F"].arguments, "--json", netlist.name, "--no-route",
         "--write", "placed.json", "--placer", "static", "--lpf-allow-unconstrained", "--freq", "125",
         "--timing-allow-fail"],
        cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return directory / "placed.json"


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    return _placed(_module(), tmp_path_factory.mktemp("placed"))


def _annealed(placed, directory, name="annealed.json", *, target_mhz=125.0, schedule=SCHEDULE, **options):
    result, log = directory / name, directory / "log"
    anneal.anneal(placed, result, target_mhz=target_mhz, schedule=schedule, log=log, **options)
    return json.loads(result.read_text()), log.read_text()


def _cells(design):
    return design["modules"]["top"]["cells"]


def _net(cell, port):
    return next(iter(cell["connections"].get(port, ())), None)


def _where(cell):
    """(column, row, slice, half, which) of a logic cell."""
    x, y, its_slice, kind = re.fullmatch(r"X(\d+)/Y(\d+)/SLICE(\w)\.(\w+)", cell["attributes"]["NEXTPNR_BEL"]).groups()
    return int(x), int(y), "ABCD".index(its_slice), int(kind[-1]) if kind[-1] in "01" else 0, kind.rstrip("01")


def _check_rules(design):
    """What an ECP5 allows in a slice and a tile, and in a row of them."""
    cells = _cells(design)
    sites = [cell["attributes"]["NEXTPNR_BEL"] for cell in cells.values()]
    assert len(set(sites)) == len(sites)
    drivers = {_net(cell, port): name for name, cell in cells.items()
               for port, way in cell["port_directions"].items() if way == "output" and _net(cell, port) is not None}
    tiles, slices, modes = {}, {}, {}
    takes_m = [_where(cell)[:4] for cell in cells.values()
               if cell["type"] in ("TRELLIS_COMB", "TRELLIS_FF") and _net(cell, "M") is not None]
    assert len(set(takes_m)) == len(takes_m)
    for cell in cells.values():
        if cell["type"] == "TRELLIS_FF":
            x, y, its_slice, *_ = _where(cell)
            tiles.setdefault((x, y), set()).add(
                (_net(cell, "CLK"), _net(cell, "LSR"), cell["parameters"].get("LSRMUX")))
            slices.setdefault((x, y, its_slice), set()).add((_net(cell, "CE"), cell["parameters"].get("CEMUX")))
        if cell["type"] == "TRELLIS_COMB":
            x, y, its_slice, half, _ = _where(cell)
            modes.setdefault((x, y, its_slice), set()).add(cell["parameters"].get("MODE", "LOGIC") == "CCU2")
            if cell["parameters"].get("MODE") == "DPRAM":
                assert its_slice < 2
            if _net(cell, "F1") is not None:
                assert half == 0
            if _net(cell, "FXA") is not None:
                assert half == 1
    assert all(len(its) == 1 for kind in (tiles, slices, modes) for its in kind.values())
    chains = paired = wide = 0
    for cell in cells.values():
        if _net(cell, "FCI") is not None:
            before, after = _where(cells[drivers[_net(cell, "FCI")]]), _where(cell)
            assert 8 * before[0] + 2 * before[2] + before[3] + 1 == 8 * after[0] + 2 * after[2] + after[3]
            assert before[1] == after[1]
            chains += 1
        if cell["type"] == "TRELLIS_FF" and _net(cell, "DI") is not None:
            assert _where(cells[drivers[_net(cell, "DI")]])[:4] == _where(cell)[:4]
            paired += 1
        if _net(cell, "F1") is not None:
            other = _where(cells[drivers[_net(cell, "F1")]])
            assert (*other[:3], 1) == (*_where(cell)[:3], other[3])
            wide += 1
    assert min(chains, paired, wide) > 20, "the design has too little of what is checked"


def _wires(design):
    """Half perimeters of all nets between cells."""
    ends = {}
    for cell in _cells(design).values():
        x, y = map(int, re.match(r"X(\d+)/Y(\d+)/", cell["attributes"]["NEXTPNR_BEL"]).groups())
        for bits in cell["connections"].values():
            for bit in bits:
                ends.setdefault(bit, []).append((x, y))
    return sum(max(axis) - min(axis) for its in ends.values() for axis in zip(*its, strict=True))


def test_places_change_and_nothing_else(placed, tmp_path):
    before = json.loads(placed.read_text())
    after, log = _annealed(placed, tmp_path)
    _check_rules(before)
    _check_rules(after)
    assert _wires(after) < _wires(before)
    moved = 0
    for one, other in zip(_cells(before).values(), _cells(after).values(), strict=True):
        if one["type"] not in ("TRELLIS_COMB", "TRELLIS_FF", "TRELLIS_RAMW", "DP16KD", "MULT18X18D"):
            assert one["attributes"]["NEXTPNR_BEL"] == other["attributes"]["NEXTPNR_BEL"]
        moved += one["attributes"]["NEXTPNR_BEL"] != other["attributes"]["NEXTPNR_BEL"]
        other["attributes"]["NEXTPNR_BEL"] = one["attributes"]["NEXTPNR_BEL"]
    assert moved > 100
    assert before == after
    # Rounds, the last of which takes no move that costs anything; no way is lost in a loop.
    rounds = re.findall(r"round (\d+) temperature (\S+) .* way (\S+)", log)
    assert [int(n) for n, _, _ in rounds] == [*range(len(rounds))]
    assert all(float(later) <= float(earlier) for (_, earlier, _), (_, later, _) in pairwise(rounds))
    assert float(rounds[-1][1]) == 0
    assert " 0 of them in loops" in log


def test_a_seed_gives_a_placement(placed, tmp_path):
    first, _ = _annealed(placed, tmp_path)
    again, _ = _annealed(placed, tmp_path, "again.json")
    other, _ = _annealed(placed, tmp_path, "other.json", seed=2)
    assert first == again
    assert first != other
    _check_rules(other)


def test_time_that_is_not_there_is_dear(tmp_path):
    """The longest ways of several seeds, against a goal that is just out of reach."""
    placed = _placed(_tangle(), tmp_path)

    def longest(beyond):
        schedule = dataclasses.replace(SCHEDULE, beyond=beyond)
        logs = [_annealed(placed, tmp_path, target_mhz=320.0, schedule=schedule, seed=seed)[1] for seed in range(1, 5)]
        return sum(float(re.search(r"kept: way (\S+)", log)[1]) for log in logs)

    dear, free = longest(anneal.Schedule.beyond), longest(0.0)
    print(f"{dear:.2f} ns, {free:.2f} ns")
    assert dear < 0.99 * free


def test_scarce_places_are_left(placed, tmp_path):
    """Half of the columns cost a lot: what can leaves them."""
    before, _ = _annealed(placed, tmp_path)
    columns = sorted(_where(cell)[0] for cell in _cells(before).values() if cell["type"] == "TRELLIS_FF")
    middle = columns[len(columns) // 2]
    scarce = [(x, y, 20.0) for x in range(middle, columns[-1] + 1) for y in range(1, 50)]
    after, _ = _annealed(placed, tmp_path, "scarce.json", scarce=scarce)

    def right(design):
        return sum(_where(cell)[0] >= middle for cell in _cells(design).values() if cell["type"] == "TRELLIS_FF")

    assert right(after) < 0.8 * right(before)


def test_the_router_tells_where_wires_are_short(tmp_path):
    (tmp_path / "counts.csv").write_text("0,0,0,\n0,9,0,\n0,0,0,\n0,0,0,\n\n")
    places = {(x, y): price for x, y, price in anneal.read_scarce(tmp_path / "counts.csv")}
    assert set(places) == {(x, y) for x in range(3) for y in range(3)}
    assert places[1, 1] == pytest.approx(anneal.SCARCE)
    assert places[0, 0] == pytest.approx(anneal.SCARCE * 9 / 4)


def test_routed_after_trials(tmp_path):
    """All of the flow, a trial that is stopped included; the settings of the router get there."""
    source, lpf = build.prepare(boards.load("colorlight_5a75b_r7_0"), core=EchoCore())
    netlist, _ = flow.synthesise(source, tmp_path)
    stages = []
    annealing = flow.Annealing(SCHEDULE, trials=1, trial_rounds=1, router="router2")
    figures = flow.place_and_route(netlist, flow.DEVICES["25F"], lpf=lpf, target_mhz=125.0, seed=1, annealing=annealing,
                                   options=("--placer", "static"), progress=lambda stage, what: stages.append(what))
    assert figures.closed
    assert (tmp_path / "top.config").stat().st_size > 10_000
    settings = json.loads((tmp_path / flow.PLACED).read_text())["modules"]["top"]["settings"]
    assert settings.items() >= {"router": "router2", **flow.ROUTER2}.items()
    assert (tmp_path / "annealing_1.log").exists()
    assert not list(tmp_path.glob("trial_*.csv"))
    assert any(re.fullmatch(r"annealing, round \d+, \d+ wires", what) for what in stages)
    assert any(re.fullmatch(r"routing, \d+ wires in conflict", what) for what in stages)


def _two_on_a_site(cells):
    one, other = [cell for cell in cells.values() if cell["type"] == "TRELLIS_FF"][:2]
    one["attributes"]["NEXTPNR_BEL"] = other["attributes"]["NEXTPNR_BEL"]


def _an_enable_too_many(cells):
    slices = {}
    for cell in cells.values():
        if cell["type"] == "TRELLIS_FF":
            slices.setdefault(_where(cell)[:3], []).append(cell)
    pair = next(its for its in slices.values() if len(its) == 2)
    pair[0]["connections"]["CE"] = [] if _net(pair[0], "CE") is not None else [1]
    pair[0]["port_directions"]["CE"] = "input"


def _an_unknown_mode(cells):
    next(cell for cell in cells.values() if cell["type"] == "TRELLIS_COMB")["parameters"]["MODE"] = "SORCERY"


def _an_unknown_site(cells):
    next(iter(cells.values()))["attributes"]["NEXTPNR_BEL"] = "R1C1"


@pytest.mark.parametrize(("spoil", "message"), [
    (_two_on_a_site, r"cell \d+ stands where another one does"),
    (_an_enable_too_many, "cells that cannot stand together"),
    (_an_unknown_mode, "mode 'SORCERY' of a LUT, known are LOGIC, CCU2"),
    (_an_unknown_site, "site 'R1C1': nextpnr has names like X12/Y3/SLICEA.FF0")])
def test_a_placement_that_cannot_be(spoil, message, placed, tmp_path):
    design = copy.deepcopy(json.loads(placed.read_text()))
    spoil(_cells(design))
    (tmp_path / "bad.json").write_text(json.dumps(design))
    with pytest.raises(anneal.AnnealError, match=message):
        _annealed(tmp_path / "bad.json", tmp_path)


def test_without_a_compiler(placed, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(anneal.AnnealError, match="no-such-compiler is missing: install"):
        _annealed(placed, tmp_path)

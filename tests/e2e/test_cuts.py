"""The short form of `make cuts`: every kind of cut, at a few moments; and that a quote which stays would be seen."""

import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from tests.e2e import cuts
from tests.e2e.stage import variant

SEED = 5
APP = typer.Typer()
APP.command()(cuts.main)


@pytest.mark.parametrize("point", cuts.points(2 * len(cuts.KINDS), SEED), ids=lambda p: f"{p.kind} {p.cycle}")
def test_nothing_stays(tmp_path, point):
    """Every order is gone within the time that its limit says, none comes afterwards, and the model agrees; or trading
    goes on."""
    print(point)
    outcome = cuts.cut(variant(tmp_path, **cuts.LIMITS), point)
    assert outcome.open > 0
    assert not outcome.stopped
    assert cuts.KINDS[point.kind].goes_on != (0 < outcome.flat_ns <= outcome.bound_ns)
    assert (outcome.left, outcome.differ) == (0, 0)
    assert outcome.holds


@pytest.mark.parametrize(("kind", "limits"), [
    ("link to card", {"deadman_ms": 100}), ("link from card", {"deadman_ms": 100}), ("daemon", {"deadman_ms": 100}),
    ("feed silent", {"stale_ms": 100})])
def test_a_quote_that_stays_is_seen(tmp_path, monkeypatch, kind, limits):
    """With a limit that is far away, what is open at the cut is still open when the time is over."""
    config, wide = variant(tmp_path, **cuts.LIMITS), variant(tmp_path, **cuts.LIMITS | limits)
    told = cuts.KINDS[kind]
    monkeypatch.setitem(cuts.KINDS, kind, replace(told, bound_ns=lambda c, v: told.bound_ns(config, v)))
    outcome = cuts.cut(wide, cuts.Point(kind, 300_000, SEED))
    assert outcome.left > 0
    assert not outcome.holds


def test_trading_that_stops_is_seen(tmp_path, monkeypatch):
    """If both lines die where one of them should, what is told is that trading has stopped."""
    both = replace(cuts.KINDS["line A lost"], cut=cuts.KINDS["feed silent"].cut)
    monkeypatch.setitem(cuts.KINDS, "line A lost", both)
    outcome = cuts.cut(variant(tmp_path, **cuts.LIMITS), cuts.Point("line A lost", 300_000, SEED))
    assert outcome.stopped
    assert not outcome.holds


def test_moments_and_kinds():
    """The same seed, the same points; every kind as often as the others; all over the market."""
    first, again, other = cuts.points(200, 1), cuts.points(200, 1), cuts.points(200, 2)
    assert first == again != other
    counts = [sum(p.kind == kind for p in first) for kind in cuts.KINDS]
    assert sum(counts) == 200
    assert max(counts) - min(counts) <= 1
    cycles = [p.cycle for p in first]
    assert cuts.FIRST <= min(cycles) < 50_000
    assert 450_000 < max(cycles) < cuts.LAST


def test_command(tmp_path, monkeypatch):
    """It prints its seed, writes what it has found, and its exit code says whether all of it held."""
    results = tmp_path / "out" / "cuts.json"
    done = CliRunner().invoke(APP, ["--points", "3", "--seed", "9", "--results", str(results)])
    assert done.exit_code == 0, done.output
    assert "seed 9" in done.output
    found = json.loads(results.read_text())
    assert (found["seed"], found["points"], found["holds"], found["failed"]) == (9, 3, True, [])
    assert list(found["kinds"]) == list(cuts.KINDS)[:3]
    for entry in found["kinds"].values():
        assert (entry["points"], entry["left"], entry["differ"]) == (1, 0, 0)
        assert entry["worst_flat_ns"] <= entry["bound_ns"]

    first = next(iter(cuts.KINDS))
    monkeypatch.setitem(cuts.KINDS, first, replace(cuts.KINDS[first], cut=lambda show, rng: None))
    done = CliRunner().invoke(APP, ["--points", "1", "--seed", "9", "--results", str(results)])
    assert done.exit_code == 1
    found = json.loads(results.read_text())
    assert not found["holds"]
    assert found["failed"][0]["kind"] == first
    assert "does not hold" in done.output

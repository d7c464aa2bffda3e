"""`t2q latency`: the card's own histogram, read by the daemon over the host link, as text and as JSON."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from hdl.control.registers import HISTOGRAM_BINS
from hdl.layout import sbe
from host import cli, latency
from host import config as configuration
from host.control import COMMANDS

from .bench import Bench
from .conftest import FIRST_LIGHT

_DIRECT = 1 << sbe.load("t2q_link").sets["DecisionFlags"]["direct"]


@pytest.fixture(scope="module")
def measured():
    """What the daemon reads from a card that has quoted, and the decisions of that card."""
    bench, decisions = Bench(configuration.load(FIRST_LIGHT)), []
    bench.daemon.on_decision.append(lambda d, now_ns: decisions.append(d))
    try:
        bench.start(arm=False)
        before = bench.perform(bench.daemon.latency())
        bench.perform(bench.daemon.arm())
        bench.run(bench.feed(100) - bench.board.cycle + 5_000)
        after = bench.perform(COMMANDS["latency"](bench.daemon, {}))
        starts = {frame.start for frame in bench.frames}
    finally:
        bench.close()
    return before, after, decisions, starts


def test_nothing_is_measured_before_the_first_quote(measured):
    before, *_ = measured
    assert before["count"] == 0
    assert before["min_cycles"] is before["max_cycles"] is before["mean_cycles"] is None
    assert before["histogram"] == []
    assert latency.text(before) == "trigger to quote: none measured since reset"


def test_the_histogram_is_that_of_the_pins(measured):
    """Each direct quote once, by the distance from its trigger byte to a frame on the order port."""
    _, after, decisions, starts = measured
    sent = [d for d in decisions if d.flags & _DIRECT and d.outcome in (1, 2)]
    pins = Counter(min(start - d.trigger_cycle for start in starts if start > d.trigger_cycle) for d in sent)
    assert sum(pins.values()) > 5
    assert {b["cycles"]: b["count"] for b in after["histogram"]} == dict(pins)
    assert (after["count"], after["min_cycles"], after["max_cycles"]) == (len(sent), min(pins), max(pins))
    assert after["mean_cycles"] == pytest.approx(sum(c * n for c, n in pins.items()) / len(sent), abs=1e-4)
    assert after["min_ns"] == 8 * after["min_cycles"]
    assert after["min_cycles"] == after["max_cycles"] == 2


def test_text():
    bins = [0] * HISTOGRAM_BINS
    bins[2], bins[5], bins[-1] = 30, 10, 1
    found = latency.summary(2, 900, 41, 30 * 2 + 10 * 5 + 900, bins)
    assert latency.text(found).splitlines() == [
        "trigger to quote, at the pins: 2 to 900 cycles (16 to 7200 ns), mean 24.63, 41 quotes since reset",
        "   2  cycles    16  ns           30  " + "#" * 40,
        "   5  cycles    40  ns           10  " + "#" * 13,
        "  63+ cycles   504+ ns            1  #",
    ]
    one = latency.summary(2, 2, 3, 6, [0, 0, 3, 0])
    assert latency.text(one).startswith(
        "trigger to quote, at the pins: 2 cycles (16 ns), minimum = maximum, 3 quotes since reset\n")


def test_the_command(measured, monkeypatch):
    _, after, *_ = measured
    asked = []
    monkeypatch.setattr(cli, "_request", lambda config, socket, do: asked.append(do) or after)
    shown = CliRunner().invoke(cli.app, ["latency"])
    assert shown.exit_code == 0
    assert shown.stdout == latency.text(after) + "\n"
    printed = CliRunner().invoke(cli.app, ["latency", "--json"])
    assert json.loads(printed.stdout) == after
    assert asked == ["latency"] * 2

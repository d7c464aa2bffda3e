"""The slowest ends of a routed design, from a report whose times are plain to see."""

import json

import pytest
from typer.testing import CliRunner

from boards import ends, flow
from boards.__main__ import app

CLK, OTHER = "posedge $glbnet$card.clk", "posedge $glbnet$card.guard.local_clk"


def net(name, *endpoints, event=CLK):
    return {"net": name, "driver": "somewhere", "port": "Q", "event": event, "endpoints": [
        {"cell": cell, "port": port, "event": event_there or event, "delay": [ns / 2, ns]}
        for cell, port, ns, event_there in endpoints]}


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"detailed_net_timings": [
        net("a_LUT4_Z", ("core.late_TRELLIS_FF_Q", "DI", 7.5, None), ("core.late_TRELLIS_FF_Q_1", "DI", 7.9, None),
            ("core.early_TRELLIS_FF_Q", "CE", 2.0, None)),
        net("b", ("core.late_TRELLIS_FF_Q_2", "M", 7.1, None), ("crossing_TRELLIS_FF_Q", "M", 9.9, OTHER)),
        net("c", ("core.memory.0.0", "ADA3", 7.3, None)),
        net("d", ("guard_TRELLIS_FF_Q", "DI", 7.7, None), event=OTHER)]}))
    return path


def test_signal_by_signal(report):
    number, found = ends.slowest(report, least_ns=7.0)
    assert number == 5, "ways from one clock to another are no part of either"
    assert [(end.signal, end.count, end.ns, end.port, end.net) for end in found] == [
        ("core.late", 3, 7.9, "DI", "a~"), ("core.memory.0.0", 1, 7.3, "ADA3", "c")]


def test_another_clock(report):
    assert ends.slowest(report, least_ns=7.0, clock="card.guard.local_clk") == (
        1, [ends.End("guard", 1, 7.7, "DI", "d")])
    with pytest.raises(flow.FlowError, match=r"clock x, must be one of card\.clk, card\.guard\.local_clk"):
        ends.slowest(report, least_ns=7.0, clock="x")


def test_a_report_without_single_wires(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("{}")
    with pytest.raises(flow.FlowError, match="build the board again"):
        ends.slowest(path, least_ns=7.0)


def test_command(report):
    shown = CliRunner().invoke(app, ["ends", str(report), "--least", "7.2"])
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].split() == ["7.90", "ns", "2", "of", "core.late", "(DI)", "a~"]
    assert shown.stdout.endswith("3 of 5 ends at 7.2 ns or later\n")
    missing = CliRunner().invoke(app, ["ends", "none.json"])
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "none.json: no such report" in missing.stderr

"""Latency in every case, on every run of the suite: short versions of what `make bench` does."""

import json

import pytest

from sim.bench import cases, traffic
from sim.bench.measure import FIGURES

SIDES = {"bid", "offer"}


def failed(case):
    return [f"{what}: {text}" for what, holds, text in case.checks if not holds] + case.wrong[:5]


@pytest.fixture(scope="module")
def line_rate(board):
    return cases.line_rate(board, 60, seed=3)


@pytest.fixture(scope="module")
def kinds(board):
    return cases.trigger_kinds(board, 1, seed=4)


@pytest.fixture(scope="module")
def busy(board):
    return cases.port_busy(board, 2, seed=5)


def test_line_rate(line_rate):
    """Smallest frames, least gap, A and B by turns: nothing lost, nothing wrong, no tail."""
    assert failed(line_rate) == []
    assert {(row.kind, row.template) for row in line_rate.rows} == {
        (kind, template) for kind in ("one entry, as the exchange sends it", "one entry, as short as it may be")
        for template in (32, 46)}
    for row in line_rate.rows:
        assert row.figures.of["trigger_to_quote_cycles"].counts == {2: 60}
        assert row.facts["idle_cycles_between_frames"] == [12]
        # What the port is busy with a quote must fit between two triggers, or nothing is said about an idle port.
        assert 2 * (row.facts["frame_bytes"] + 20) > row.figures.of["trigger_to_last_bit_cycles"].summary()["max"] + 12


def test_every_kind_of_trigger(kinds):
    """New, change, delete and the rest; bid and offer; first, middle and last entry; several messages and packets."""
    assert failed(kinds) == []
    seen = {}
    for row in kinds.rows:
        seen.setdefault((row.kind, row.how), set()).add((row.side, row.template))
    assert sorted(seen) == sorted(traffic.KINDS.items())
    for (kind, _), where in seen.items():
        sides = SIDES if kind.split()[0] != "book" and not kind.startswith("both") else {""}
        assert where == {(side, template) for side in sides for template in (32, 46)}, kind
    for row in kinds.rows:
        counts = row.figures.of["trigger_to_quote_cycles"].counts
        assert set(counts) == ({2} if row.how == "direct" else set()), (row.kind, row.side, row.template)
        assert (sum(row.event_end.counts.values()) > 0) == (row.how == "background")
        assert not row.event_end.count or min(row.event_end.counts) > 2     # nobody calls these two cycles


def test_the_trigger_byte_is_inside_its_frame(kinds):
    """The other figures follow from the same bytes: they cannot contradict each other."""
    for row in kinds.rows:
        if row.how == "direct":
            of = {name: row.figures.of[name].summary() for name in FIGURES}
            assert len({s["count"] for s in of.values()}) == 1
            assert of["tick_end_to_quote_start_cycles"]["max"] < 0      # the quote starts before the tick has ended
            assert of["tick_start_to_quote_start_cycles"]["min"] > 2
            assert of["trigger_to_first_price_byte_cycles"]["max"] < of["trigger_to_last_bit_cycles"]["min"]


def test_busy_port(busy):
    """The newest state when the port is free, and nothing that was overtaken."""
    assert failed(busy) == []
    assert len(busy.rows) == 6
    for row in busy.rows:
        assert row.port_free.count, row.kind
        assert min(row.port_free.counts) >= 0
        assert set(row.idle.counts) <= {2}
    quotes = {row.kind: (row.facts["scenes"], row.facts["quotes"]) for row in busy.rows}
    assert quotes["2 events of an instrument in a packet"] == (2, 4)
    assert quotes["3 events of an instrument in a packet"] == (2, 4)
    assert quotes["8 events of an instrument behind a long frame of the host"] == (2, 2)
    assert quotes["6 instruments behind a long frame of the host"] == (2, 12)
    scenes, sent = quotes["line rate, every frame an event"]
    assert sent < 40 * scenes       # of 40 events some were overtaken
    for kind in ("quote", "mass cancel", "acknowledgement", "host frame"):
        assert busy.facts[f"frames: {kind}"], kind


def test_results_are_plain(line_rate, kinds, busy):
    for case in (line_rate, kinds, busy):
        assert json.loads(json.dumps(case.to_json()))["holds"] is True

"""The page for Prometheus, read with prometheus_client's own parser: every gate, every counter, every limit."""

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hdl.control import registers as regmap
from host import params
from host.daemon import WATCHED
from host.limits import CARD, INSTRUMENT
from host.metrics import DaemonCollector

from .bench import Bench


def page(daemon):
    """{(name of the sample, labels as a frozenset of pairs): value}."""
    registry = CollectorRegistry()
    registry.register(DaemonCollector(daemon))
    text = generate_latest(registry).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def value(found, name, /, **labels):
    return found[name, frozenset(labels.items())]


@pytest.fixture
def bench(first_light):
    made = Bench(first_light)
    yield made
    made.close()


def test_before_the_card_has_answered(bench):
    bench.step()
    found = page(bench.daemon)
    assert value(found, "t2q_state") == regmap.DISARMED
    assert math.isnan(value(found, "t2q_open_at_venue_lots"))
    for gate, name, _ in regmap.GATES.values():
        assert value(found, "t2q_gate_drops_total", gate=gate, name=name) == 0
    assert not [name for name, _ in found if name == "t2q_limit"]


def test_every_figure_of_a_card_at_work(bench):
    bench.start()
    daemon = bench.daemon
    bench.feed(60)
    bench.run(150_000)
    bench.perform(daemon._watch())
    found = page(daemon)
    assert value(found, "t2q_state") == regmap.ACTIVE
    for gate, name, _ in regmap.GATES.values():
        assert value(found, "t2q_gate_drops_total", gate=gate, name=name) == daemon.reasons[gate]
        assert value(found, "t2q_card_gate_drops_total", gate=gate, name=name) == daemon.watched[f"drop_{gate.lower()}"]
    assert value(found, "t2q_gate_drops_total", gate="G4", name="data") > 0
    for register in regmap.REGISTERS:
        if register.access == "count":
            assert value(found, "t2q_card_count_total", register=register.name) == daemon.watched[register.name]
    for name in set(WATCHED) - {r.name for r in regmap.REGISTERS if r.access == "count"}:
        assert value(found, "t2q_card", register=name) == daemon.watched[name]
    for cause in regmap.HALT_CAUSES:
        assert value(found, "t2q_halt_cause", cause=cause) == 0
    live = {"bid": 0, "ask": 0}
    for n, i in enumerate(bench.config.instruments):
        for side, word in (("bid", daemon.watched["live_bids"]), ("ask", daemon.watched["live_asks"])):
            live[side] += value(found, "t2q_live", instrument=i.name, side=side) == 1
            assert value(found, "t2q_live", instrument=i.name, side=side) == word >> n & 1
        position, open_bid, open_ask = daemon.positions.lots(n)
        assert value(found, "t2q_position_lots", instrument=i.name) == position
        assert value(found, "t2q_open_bid_lots", instrument=i.name) == open_bid
        assert value(found, "t2q_open_ask_lots", instrument=i.name) == open_ask
        limits = {dict(labels)["limit"] for name, labels in found if name == "t2q_limit" and
                  dict(labels)["instrument"] == i.name}
        assert limits == set(INSTRUMENT) - {"half_spread_ticks"}
    assert live["bid"] > 10
    assert live["ask"] > 10
    assert value(found, "t2q_limit", instrument=bench.config.instruments[0].name, limit="max_notional",
                 unit="money") == 200_000
    assert value(found, "t2q_limit", instrument=CARD, limit="deadman_ms", unit="ms") == 100
    assert value(found, "t2q_limits_staged") == 0
    assert value(found, "t2q_verified") == value(found, "t2q_alarm") == 0


def test_after_a_kill(bench):
    bench.start()
    bench.feed(60)
    bench.run(120_000)
    bench.perform(bench.daemon.limits_set({"max_long": "5"}))
    bench.perform(bench.daemon.kill())
    found = page(bench.daemon)
    assert value(found, "t2q_halt_cause", cause="kill_register") == 1
    assert value(found, "t2q_halt_cause", cause="deadman") == 0
    assert value(found, "t2q_open_at_venue_lots") == 0
    assert value(found, "t2q_verified") == 1
    assert value(found, "t2q_limits_staged") == 1
    # What is staged is not in force.
    assert value(found, "t2q_limit", instrument=bench.config.instruments[0].name, limit="max_long",
                 unit="quantity") == float(params.plain(bench.config.instruments[0].max_long))

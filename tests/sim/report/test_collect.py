"""Series of a report from a real exchange record."""

from pathlib import Path

import pytest

from host import config as host_config
from sim.report import collect, model, page
from sim.venue.feed import FeedEvent
from sim.venue.ledger import BUY
from sim.venue.listing import feed_mappings, venue_config
from sim.venue.market import MarketMirror
from sim.venue.session import Gateway

CONFIG = Path(__file__).parents[3] / "config" / "first_light.toml"


@pytest.fixture
def replayed():
    """(configuration, feed events, gateway): a quote, a fill, a new quote, a mass cancel."""
    config = host_config.load(CONFIG)
    one = config.instruments[0]
    ticks, step = round(one.reference_price / one.feed_tick), round(one.feed_tick / one.tick)
    gateway = Gateway(venue_config(config, "s"))
    mirror = MarketMirror(gateway, feed_mappings(config))
    events = [FeedEvent(cycle, one.security_id, bid, ask) for cycle, bid, ask in (
        (10, (ticks, 3), (ticks + 2, 3)), (20, (ticks - 4, 3), (ticks - 1, 1)), (30, None, (ticks, 2)))]

    def quote(now_ns, quote_id, bid, ask):
        tick_e9 = int(one.tick * 10 ** 9)
        gateway.engine.request(config.session.client_id, "MassQuoteRequest", {
            "quoteId": quote_id, "correlationId": quote_id, "mmpGroupId": config.session.mmp_group,
            "selfMatchPreventionId": 1, "flags": 0, "quotes": [{
                "instrumentId": one.instrument_id, "bidPrice": bid * step * tick_e9, "askPrice": ask * step * tick_e9,
                "bidQty.mantissa": 5, "bidQty.exponent": -1, "askQty.mantissa": 5, "askQty.exponent": -1,
                "bidFlags": 0, "askFlags": 0}]}, now_ns)

    events[0].apply(mirror, 80)
    quote(100, 1, ticks, ticks + 2)
    events[1].apply(mirror, 160)
    quote(200, 2, ticks - 5, ticks + 2)
    events[2].apply(mirror, 240)
    gateway.engine.request(config.session.client_id, "MassQuoteCancelRequest", {
        "correlationId": 3, "mmpGroupId": config.session.mmp_group, "side": 0}, 300)
    return config, events, gateway


def test_series_follow_the_record(replayed):
    config, events, gateway = replayed
    first = config.instruments[0]
    one, *others = collect.instrument_series(config, events, gateway.engine.ledger)
    price = float(first.reference_price)
    tick = float(first.feed_tick)
    assert [(p.time_ns, p.bid, p.ask) for p in one.market] == [
        (80, price, price + 2 * tick), (160, price - 4 * tick, price - tick), (240, None, price)]
    assert [(p.time_ns, p.bid, p.ask) for p in one.quotes] == [
        (100, price, price + 2 * tick), (200, price - 5 * tick, price + 2 * tick), (300, None, None)]
    assert [(f.time_ns, f.side, f.price, f.lots) for f in one.fills] == [(160, BUY, price, 1)]
    assert one.position == [(0, first.initial_lots), (160, first.initial_lots + 1)]
    assert (one.quotes_sent, one.quotes_accepted) == (2, 2)
    assert all(not o.market and not o.quotes and not o.fills for o in others)


def test_epoch_is_taken_off(replayed):
    config, events, gateway = replayed
    shifted, *_ = collect.instrument_series(config, events, gateway.engine.ledger, epoch_ns=50)
    assert [p.time_ns for p in shifted.quotes] == [50, 150, 250]
    assert shifted.fills[0].time_ns == 110


def test_facts_and_page(replayed):
    config, events, gateway = replayed
    facts = collect.session_facts(gateway)
    assert facts["open orders at the end"] == "0"
    result = model.ReplayResult("x", quotes_sent=2, quotes_accepted=2, facts=facts, sim_cycles=1000,
                                instruments=collect.instrument_series(config, events, gateway.engine.ledger))
    assert result.fills == 1
    assert "open orders at the end" in page.render(result)

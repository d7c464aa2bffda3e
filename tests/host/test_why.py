"""Explanations: every gate that there is has one, with the values that the gate compared."""

import json

import pytest

from hdl.control import registers as regmap
from host import link, params, why
from host.why import EXPLAINED, Blocked, explain, text

FLAGS = {name: 1 << bit for name, bit in link.SCHEMA.sets["DecisionFlags"].items()}
KNOWN = FLAGS["bidKnown"] | FLAGS["askKnown"]
BID_OK, ASK_OK = FLAGS["bidSideOk"], FLAGS["askSideOk"]
OUTCOME = link.SCHEMA.enums["Outcome"]


@pytest.fixture
def blocked(first_light):
    """A function that makes a :class:`Blocked` of IDX01 (tick 0.05, lot 0.1) with these gates and differences."""
    def make(*gates, limits=None, **changes):
        i = first_light.instruments[0].model_copy(update=limits or {})
        row = list(params.row(first_light.instruments[0], -7))
        for name, word in (changes.pop("words", {})).items():
            row[regmap.PARAM_BY_NAME[name].word] = word & 0xFFFF_FFFF
        record = dict.fromkeys(link.Decision._fields, 0) | {
            "outcome": OUTCOME["DROPPED"], "flags": KNOWN, "state": regmap.ACTIVE, "best_bid_ticks": 15_147,
            "best_ask_ticks": 15_148, "candidate_bid_ticks": 151_472, "candidate_ask_ticks": 151_478,
            "reasons": sum(1 << g for g in gates), "feed_seq": 7}
        facts = {"time_ns": 1_700_000_000_123_456_789, "row": tuple(row),
                 "risk_words": params.risk_words(first_light.risk), "open_bid": 0, "open_ask": 0,
                 "live": (0, 0, 0, 0), "causes": (), "session": "up", "tokens": None}
        for key, value in changes.items():
            (record if key in record else facts)[key] = value
        return Blocked(decision=link.Decision(**record), instrument=i, **facts)
    return make


def said(explained, gate):
    """What the findings of one gate say, each with its side."""
    (reason,) = [r for r in explained["reasons"] if r["gate"] == gate]
    return [f"{f['side']}: {f['text']}" if f["side"] else f["text"] for f in reason["findings"]]


def test_every_gate_has_an_explanation():
    assert set(EXPLAINED) >= set(regmap.GATES), "a gate is missing in host.why.EXPLAINED"
    assert set(EXPLAINED) <= set(regmap.GATES), "host.why.EXPLAINED has a gate that the map does not"


@pytest.mark.parametrize("number", regmap.GATES)
def test_every_gate_says_its_name_and_something_that_can_be_looked_at(blocked, number):
    name, watches, blocks = regmap.GATES[number]
    found = explain(blocked(number))
    (reason,) = found["reasons"]
    assert (reason["gate"], reason["name"], reason["blocks_if"]) == (name, watches, blocks)
    assert reason["counter"] in regmap.BY_NAME
    assert reason["findings"]
    assert reason["beyond"]
    assert f"  {name} {watches}: " in text(found)
    json.dumps(found)


def test_a_gate_without_an_explanation_is_told_by_the_map(blocked, monkeypatch):
    monkeypatch.delitem(why.EXPLAINED, 11)
    found = explain(blocked(11))
    assert said(found, "G11") == [
        "max_long_lots = 100 (greatest long position including open and in-flight bids)",
        "max_short_lots = 100 (greatest short position including open and in-flight asks)"]
    assert found["reasons"][0]["beyond"] == f"it blocks if: {regmap.GATES[11][2]}; counter drop_g11"
    monkeypatch.delitem(why.EXPLAINED, 14)
    assert said(explain(blocked(14)), "G14")[0].startswith("session_interval = 6250 (G14: cycles per token")


def test_a_position_that_would_grow_too_large(blocked):
    found = explain(blocked(11, flags=KNOWN | ASK_OK, words={"max_long_lots": 18, "quote_lots": 2}, position_lots=12,
                            open_bid=6))
    assert said(found, "G11") == ["bid: long 12 + open bids 6 + 2 lots = 20 > max_long 18 lots"]
    finding = found["reasons"][0]["findings"][0]
    assert (finding["value"], finding["limit"], finding["limit_name"], finding["unit"]) == (20, 18, "max_long", "lots")
    assert found["reasons"][0]["known_to_host"]
    assert "  G11 position: bid: long 12 + open bids 6 + 2 lots = 20 > max_long 18 lots" in text(found)
    found = explain(blocked(11, flags=KNOWN | BID_OK, words={"max_short_lots": 9}, position_lots=-3, open_ask=2))
    assert said(found, "G11") == ["ask: short 3 + open asks 2 + 5 lots = 10 > max_short 9 lots"]
    assert said(explain(blocked(11, flags=KNOWN | ASK_OK, words={"max_long_lots": 5})), "G11") == [
        "bid: long 0 + open bids 0 + 5 lots = 5 <= max_long 5 lots"]
    # What is live may be repeated, so that the larger quantity counts; a position of the other direction gives room.
    found = explain(blocked(11, flags=KNOWN | ASK_OK, words={"max_long_lots": 5}, position_lots=-2, open_bid=0,
                            live=(151_470, 8, 0, 0)))
    assert said(found, "G11") == ["bid: -2 (short) + open bids 0 + 8 lots = 6 > max_long 5 lots"]


def test_what_only_the_card_knew_is_said_to_be_so(blocked):
    found = explain(blocked(11, flags=KNOWN | ASK_OK))
    (reason,) = found["reasons"]
    assert not reason["known_to_host"]
    assert said(found, "G11") == ["bid: long 0 + open bids 0 + 5 lots = 5 <= max_long 100 lots"]
    assert "by what the host knew nothing of this fails; the card counts what it has sent by itself" in text(found)


def test_the_state(blocked):
    assert said(explain(blocked(0, state=regmap.DISARMED)), "G0") == [
        "state DISARMED: must be ACTIVE or REDUCING; t2q arm"]
    found = explain(blocked(0, state=regmap.REDUCING, position_lots=3, open_ask=1))
    assert said(found, "G0") == [
        "bid: while REDUCING bids must take a short position towards zero: long 3, open bids 0 + 5 lots",
        "ask: while REDUCING asks must take a long position towards zero: -3 (long), open asks 1 + 5 lots"]
    # An ask of 2 lots reduces a long position of 3.
    found = explain(blocked(0, state=regmap.REDUCING, position_lots=3, words={"quote_lots": 2}, flags=KNOWN | ASK_OK))
    assert len(said(found, "G0")) == 1


def test_the_dead_man_and_the_kill(blocked):
    found = explain(blocked(1, 22, state=regmap.HALTED, causes=("deadman",)))
    assert said(found, "G1") == ["no heartbeat of the host within deadman_ms 100 ms (12500000 cycles)"]
    assert said(found, "G22") == ["state HALTED: halted by deadman; find out why, then t2q arm --clear-halt"]
    assert "halt_cause bit 2" in text(found)
    risk = dict(blocked(1).risk_words, deadman_cycles=0)
    assert said(explain(blocked(1, risk_words=risk)), "G1") == [
        "no heartbeat of the host within deadman_ms 0 ms (0 cycles): 0 blocks"]


def test_permissions(blocked):
    assert said(explain(blocked(3, words={"sym_en": 0})), "G3") == ["enabled = false: the instrument must be enabled"]
    assert said(explain(blocked(3, words={"bid_en": 0, "ask_en": 0}, flags=KNOWN | ASK_OK)), "G3") == [
        "bid: bid_enabled = false: this side must be enabled"]


def test_the_book(blocked):
    assert said(explain(blocked(4, flags=FLAGS["askKnown"])), "G4") == ["bid: best bid of the book is unknown"]
    crossed = explain(blocked(4, best_bid_ticks=15_149))
    assert said(crossed, "G4") == ["best bid 7574.5 >= best ask 7574 of the feed: crossed"]
    stale = explain(blocked(4))
    assert said(stale, "G4") == ["best bid 7573.5 < best ask 7574 of the feed", "stale_ms 5000 ms (625000000 cycles)"]
    assert "mid-event or older than stale_ms is not in the record" in text(stale)
    assert said(explain(blocked(4, words={"stale_cycles": 0})), "G4") == ["stale_ms 0 ms (0 cycles): 0 blocks"]


def test_sanity(blocked):
    found = explain(blocked(5, candidate_bid_ticks=121_179, flags=KNOWN | ASK_OK))
    assert said(found, "G5") == ["bid: price 6058.95 (121179 ticks) < min_price 6059 (121180 ticks)"]
    found = explain(blocked(5, candidate_ask_ticks=181_761, flags=KNOWN | BID_OK))
    assert said(found, "G5") == ["ask: price 9088.05 (181761 ticks) > max_price 9088 (181760 ticks)"]
    assert said(explain(blocked(5, words={"quote_lots": 51})), "G5") == ["quantity 51 lots > hard_quantity 50 lots"]
    assert said(explain(blocked(5, words={"quote_lots": 0})), "G5") == ["quantity 0 lots < min_quantity 1 lots"]
    assert said(explain(blocked(5, words={"half_spread_sub": 0})), "G5") == ["half spread 0 ticks: 0 blocks"]
    assert said(explain(blocked(5, candidate_bid_ticks=0, words={"px_min_ticks": 0}, flags=KNOWN | ASK_OK)), "G5") == [
        "bid: price 0, which is none unless min_price < 0 < max_price"]


def test_quantity_and_notional(blocked):
    assert said(explain(blocked(9, words={"max_lots": 4})), "G9") == ["quantity 5 lots > max_quantity 4 lots"]
    found = explain(blocked(10, words={"max_notional_lo": 757_360, "px_notional_ticks": 151_472}, flags=KNOWN | BID_OK))
    assert said(found, "G10") == [
        "ask: |price| 7573.9 (151478 ticks) x 5 lots = 3786.95 (757390 tick-lots) > max_notional 3786.8 (757360 "
        "tick-lots)",
        "ask: |price| 7573.9 (151478 ticks) > price that max_notional allows 7573.6 (151472 ticks)"]
    # The host's bound does not ensure the limit: that blocks whatever the price.
    found = explain(blocked(10, words={"max_notional_lo": 800_000, "px_notional_ticks": 160_001}))
    assert said(found, "G10") == [
        "that price x quantity = 4000.025 (800005 tick-lots) > max_notional 4000 (800000 tick-lots)"]


def test_the_rate(blocked):
    found = explain(blocked(14, tokens=500))
    assert said(found, "G14") == [
        "session's bucket as last read: 500 of 2000 tokens, of which 500 are kept for cancels"]
    found = explain(blocked(14, tokens=501))
    assert said(found, "G14") == [
        "session's bucket as last read: 501 of 2000 tokens, of which 500 are kept for cancels",
        "session_burst 2000 tokens, refilled by 20000 a second", "symbol_burst 200 tokens, refilled by 5000 a second"]
    assert "register session_tokens" in text(found)


def test_the_session(blocked):
    assert said(explain(blocked(24, session="ended")), "S0") == [
        "the card has no established order session; the host's is ended"]


def test_the_whole_text(blocked):
    found = explain(blocked(9, outcome=OUTCOME["PULLED"], words={"max_lots": 4}, live=(151_470, 5, 0, 0), open_bid=5))
    assert text(found) == """\
2023-11-14 22:13:20.123456789Z  IDX01_USDC-PERPETUAL  PULLED in state ACTIVE, feed packet 7
  market bid 7573.5, ask 7574; wanted bid 7573.6 (151472 ticks), ask 7573.9 (151478 ticks), 5 lots of 0.1 each
  bid: blocked, live 5 lots at 7573.5 (151470 ticks), open 5 lots
  ask: blocked, nothing live, open 0 lots
  G9 max quantity: quantity 5 lots > max_quantity 4 lots"""


def test_what_everything_is_worth(blocked):
    """Gross and leverage of G12, open notional of G13: in money, with the values compared."""
    lot = {"lot_value": 757 * 256, "equity": 1_000_000}     # 5 lots a side
    found = explain(blocked(12, gross=2_492_431 * 256, **lot))
    assert said(found, "G12") == ["positions and open quotes of all instruments 2492431 + 2 x 5 lots = 2500001 > "
                                  "max_gross 2500000"]
    found = explain(blocked(12, gross=2_492_430 * 256, **lot))
    assert said(found, "G12") == ["equity was not told within equity_ms 2000 ms (250000000 cycles), so that only what "
                                  "reduces a position goes"]
    assert "register gross the card's sum" in text(found)
    found = explain(blocked(12, gross=0, **lot | {"equity": 2_523}))
    assert said(found, "G12") == ["positions and open quotes of all instruments 0 + 2 x 5 lots = 7570 > max_leverage "
                                  "3 x equity 2523 = 7569"]
    assert said(explain(blocked(12, **lot | {"equity": -1})), "G12") == [
        "positions and open quotes of all instruments 0 + 2 x 5 lots = 7570 > max_leverage 3 x equity -1 = 0"]
    assert said(explain(blocked(12, equity=5_000_000)), "G12") == [
        "a lot of IDX01_USDC-PERPETUAL is worth 0: the card was not told what it is worth, which blocks"]
    for name in ("gross_most", "leverage_most"):
        risk = dict(blocked(12).risk_words, **{name: 0})
        lines = said(explain(blocked(12, risk_words=risk, **lot)), "G12")
        assert any(f"{name} = 0: 0 blocks" in line for line in lines)

    found = explain(blocked(13, open_bids=1_496_216 * 256, open_asks=1_496_215 * 256, **lot))
    assert said(found, "G13") == ["bid: open bids of all instruments 1496216 + 5 lots = 1500001 > max_open_notional "
                                  "1500000"]
    found = explain(blocked(13, flags=KNOWN | BID_OK, open_bids=1 << 60, open_asks=1_490_000 * 256,
                            live=(0, 0, 151_478, 20), **lot))       # what is live may be repeated
    assert said(found, "G13") == ["ask: open asks of all instruments 1490000 + 20 lots = 1505140 > max_open_notional "
                                  "1500000"]

"""Mass quotes, priority, fills by the moving market, protection, single orders; every refusal with its reason."""

import random
from fractions import Fraction

import pytest

from sim.venue.config import InstrumentSpec, MmpGroupSpec, VenueConfigError
from sim.venue.engine import (
    COD,
    ENUMS,
    FOREVER,
    MARKET_LIMIT,
    NO_REASON,
    POST_ONLY,
    POST_ONLY_REJECT,
    RESET_MMP,
    Engine,
    TokenBucket,
    price_text,
)
from sim.venue.ledger import BUY, SELL
from sim.venue.session import Gateway

from .client import BTC, E9, ETH, SECOND, Client, entry, make_config

STATUS = {value: name for name, value in ENUMS["QuoteStatus"].items()}
REASON = {value: name for name, value in ENUMS["OrderRejectReason"].items()} | {NO_REASON: ""}


def sides(response):
    """[(status, refusal, remaining mantissa) of bid, of ask] for each entry of a MassQuoteResponse."""
    assert response["type"] == "MassQuoteResponse"
    return [tuple((STATUS[q[f"{s}Status"]], REASON[q[f"{s}RejectReason"]], q[f"{s}Qty.mantissa"])
                  for s in ("bid", "ask")) for q in response["quotes"]]


def log_on(gateway, name="alice", secret="open sesame", now_ns=0):
    client = Client(gateway, name, secret, now_ns)
    client.logon()
    return client


# -- mass quotes: acceptance ------------------------------------------------------------------------------------


def test_two_sided_quote_rests(gateway, alice):
    alice.now_ns = 77
    [response] = alice.quote(entry(50_000, 50_000.5, 10, 20), quote_id=42)
    assert sides(response) == [(("UPDATED", "", 10), ("UPDATED", "", 20))]
    assert (response["quoteId"], response["correlationId"], response["mmpGroupId"]) == (42, 42, 7)
    assert response["receiveTime"] == response["timestamp"] == 77
    [quote] = response["quotes"]
    assert (quote["bidPrice"], quote["askPrice"]) == (50_000 * E9, 50_000_500_000_000)
    assert quote["bidOrderId"] != quote["askOrderId"]
    assert response["bidFills"] == response["askFills"] == []
    book = gateway.engine.books[BTC]
    assert book.depth(BUY) == [(50_000 * E9, 1, "alice")]
    assert book.depth(SELL) == [(50_000_500_000_000, 2, "alice")]
    assert gateway.engine.ledger.quotes[42].fully_accepted


def test_quantity_zero_cancels_a_side_and_a_missing_price_is_then_fine(gateway, alice):
    alice.quote(entry(50_000, 50_001))
    [response] = alice.quote(entry(None, 50_001, 0, 10), quote_id=2)
    assert sides(response) == [(("CANCELED_BY_REQUEST", "", 0), ("UNMODIFIED", "", 10))]
    [response] = alice.quote(entry(None, None, 0, 0), quote_id=3)
    assert sides(response) == [(("INACTIVE", "", 0), ("CANCELED_BY_REQUEST", "", 0))]
    assert not gateway.engine.open_orders()
    assert gateway.engine.ledger.last_open_ns() == 0


def test_same_quantity_in_another_exponent_is_the_same(alice):
    alice.quote(entry(50_000, 50_001, 100, 100))
    [response] = alice.quote(entry(50_000, 50_001, 1, 2, exponent=2), quote_id=2)
    assert sides(response) == [(("UNMODIFIED", "", 100), ("UPDATED", "", 200))]


# -- mass quotes: refusals of the whole message -----------------------------------------------------------------


@pytest.mark.parametrize(("entries", "group", "reason", "words"), [
    ([entry(50_000, 50_001)], 8, "INVALID_MMP_GROUP", "mmpGroupId 8 is not a group of alice; its groups are 7, 9"),
    ([entry(50_000, 50_001)], 6, "INVALID_MMP_GROUP", "mmpGroupId 6 is not a group of alice"),
    ([entry(50_000, 50_001)], 9, "MMP_GROUP_DISABLED", "mmpGroupId 9 is disabled"),
    ([entry(50_000, 50_001, instrument=5)], 7, "INVALID_INSTRUMENT", "instrumentId 5 is not listed; listed are 1001"),
    ([entry(50_000, 50_001), entry(50_000, 50_001)], 7, "DUPLICATE_INSTRUMENT", "1001 appears twice"),
    ([entry(50_000, 50_001)] * 16, 7, "TOO_MANY_QUOTES", "16 quotes in one message, at most 15"),
    ([entry(50_000, 50_001, 15)], 7, "SYSTEM_ERROR", "bidQty 15e0 of BTC-PERPETUAL is not a multiple of 10e0"),
    ([entry(50_000, 50_001, 10, 1, exponent=-1)], 7, "SYSTEM_ERROR", "bidQty 10e-1 of BTC-PERPETUAL is not"),
    ([entry(50_000, 50_001, 10, -10)], 7, "SYSTEM_ERROR", "askQty -10e0 of BTC-PERPETUAL is negative"),
    ([entry(50_000, 50_001, 10, 10_010)], 7, "SYSTEM_ERROR", "is 1001 lots of 10e0, must be 1..1000"),
    ([entry(50_000, 50_001, 1, 1, exponent=127)], 7, "SYSTEM_ERROR", "bidQty 1e127 of BTC-PERPETUAL is not"),
])
def test_whole_message_refused(gateway, alice, entries, group, reason, words):
    """All or nothing: the good entry in front of a bad one is not processed either."""
    good = [entry(2_000, 2_001, 1, 1, instrument=ETH)] if len(entries) < 15 else []
    [reject] = alice.quote(*good, *entries, quote_id=3, group=group)
    assert reject["type"] == "MassQuoteReject"
    assert reject["reason"] == ENUMS["MassQuoteRejectReason"][reason]
    assert (reject["quoteId"], reject["correlationId"], reject["mmpGroupId"]) == (3, 3, group)
    assert words in reject["details"]
    assert not gateway.engine.open_orders()
    ledger = gateway.engine.ledger
    assert not ledger.quotes[3].fully_accepted
    assert ledger.refusals == {reason: 1}
    assert words in gateway.explain_refusals()[-1]


def test_rate_limit_spares_pure_cancels():
    gateway = Gateway(make_config(quote_rate=10, quote_burst=2))
    alice = log_on(gateway)
    for quote_id in (1, 2):
        [answer] = alice.quote(entry(50_000, 50_000 + quote_id), quote_id=quote_id)
        assert answer["type"] == "MassQuoteResponse"
    [answer] = alice.quote(entry(50_000, 50_003), quote_id=3)
    assert answer["reason"] == ENUMS["MassQuoteRejectReason"]["RATE_LIMIT"]
    assert answer["details"] == "more than 10 mass quotes a second (burst 2)"
    [answer] = alice.quote(entry(None, None, 0, 0), quote_id=4)
    assert answer["type"] == "MassQuoteResponse"
    assert not gateway.engine.open_orders()
    alice.now_ns = SECOND // 10
    [answer] = alice.quote(entry(50_000, 50_003), quote_id=5)
    assert answer["type"] == "MassQuoteReject", "the cancel took a token as well"
    alice.now_ns = SECOND // 5
    [answer] = alice.quote(entry(50_000, 50_003), quote_id=6)
    assert answer["type"] == "MassQuoteResponse"


def test_token_bucket_is_exact():
    bucket = TokenBucket(3, 1)
    assert [bucket.take(t) for t in (0, 333_333_333, 333_333_334, 666_666_667, 666_666_668)] == \
        [True, False, True, False, True]


def test_locked_portfolio(gateway, alice):
    alice.quote(entry(50_000, 50_001))
    gateway.engine.lock("alice", 1)
    gateway.flush(1)
    [cancelled] = alice.take()
    assert {o["cancelReason"] for o in cancelled["orders"]} == {ENUMS["CancelReason"]["PORTFOLIO_LOCKED"]}
    alice.now_ns = 2
    assert alice.quote(entry(50_000, 50_001))[0]["details"] == "portfolio of alice is locked"
    gateway.engine.unlock("alice")
    assert alice.quote(entry(50_000, 50_001))[0]["type"] == "MassQuoteResponse"


# -- mass quotes: refusals of one side --------------------------------------------------------------------------


@pytest.mark.parametrize(("bid", "quantity", "flags", "reason", "words"), [
    (50_000.25, 10, 0, "INVALID_PRICE", "bidPrice 50000.25 of BTC-PERPETUAL is not a multiple of the tick 0.5"),
    (None, 10, 0, "INVALID_PRICE", "bidPrice of BTC-PERPETUAL is missing although its quantity is not 0"),
    (9_999.5, 10, 0, "PRICE_TOO_LOW", "bidPrice 9999.5 of BTC-PERPETUAL is below the price band, at least 10000"),
    (100_000.5, 10, 0, "PRICE_TOO_HIGH", "is above the price band, at most 100000"),
    (50_000, 10, POST_ONLY | POST_ONLY_REJECT, "INVALID_FIELD", "bidFlags 0x0006 set postOnly and postOnlyReject"),
    (50_000, 10, MARKET_LIMIT, "INVALID_FIELD", "bidFlags 0x0008 set marketLimit"),
    (60_000, 10, POST_ONLY_REJECT, "POST_ONLY", "bid 60000 would trade at once: the best ask is 60000"),
])
def test_refused_side_cancels_what_stood_there_only(gateway, alice, bid, quantity, flags, reason, words):
    gateway.market(0, BTC, None, (60_000 * E9, 5))
    alice.quote(entry(49_000, 55_000))
    [response] = alice.quote(entry(bid, 55_000, quantity, 10, bid_flags=flags), quote_id=2)
    assert sides(response) == [(("CANCELED_BY_REQUEST", reason, 0), ("UNMODIFIED", "", 10))]
    assert [o.side for o in gateway.engine.open_orders()] == [SELL]
    assert words in gateway.explain_refusals()[-1]
    assert gateway.engine.ledger.refusals == {reason: 1}
    assert gateway.engine.ledger.summary()["quotes_accepted"] == 1
    [response] = alice.quote(entry(bid, 55_000, quantity, 10, bid_flags=flags), quote_id=3)
    assert sides(response)[0][0] == ("INACTIVE", reason, 0)


def test_quantity_above_the_groups_maximum():
    gateway = Gateway(make_config(groups=(MmpGroupSpec(7, "alice", max_quote_lots=2),)))
    alice = log_on(gateway)
    [response] = alice.quote(entry(50_000, 50_001, 20, 30))
    assert sides(response) == [(("UPDATED", "", 20), ("INACTIVE", "MMP_MAX_QUOTE_QTY_EXCEEDED", 0))]


@pytest.mark.parametrize(("bid_level", "price", "expected"), [
    ((49_990 * E9, 5), 50_010, 49_990),              # joins the best bid
    (None, 50_010, 49_999.5),                        # nothing to join: one tick short of the offer
    ((49_999_700_000_000, 5), 50_010, 49_999.5),     # a bid off the grid is rounded down
    ((49_990 * E9, 5), 49_999.5, 49_999.5),          # does not trade: stays
])
def test_post_only_is_moved_out_of_the_way(gateway, alice, bid_level, price, expected):
    gateway.market(0, BTC, bid_level, (50_000 * E9, 5))
    [response] = alice.quote(entry(price, None, 10, 0, flags=POST_ONLY))
    assert sides(response)[0][0] == ("UPDATED", "", 10)
    assert response["quotes"][0]["bidPrice"] == expected * E9
    assert not gateway.engine.ledger.fills


def test_post_only_mirrors_for_offers(gateway, alice):
    gateway.market(0, BTC, (50_000 * E9, 5), (50_010 * E9, 5))
    [response] = alice.quote(entry(None, 49_990, 0, 10, flags=POST_ONLY))
    assert response["quotes"][0]["askPrice"] == 50_010 * E9


# -- priority ---------------------------------------------------------------------------------------------------


def test_price_then_time(gateway, alice, bob):
    """Better price first; at one price who came first; an unchanged or smaller quote keeps its place."""
    alice.quote(entry(50_000, None, 20, 0))
    bob.quote(entry(50_000, None, 20, 0), group=8)
    assert [c for _, _, c in gateway.engine.books[BTC].depth(BUY)] == ["alice", "bob"]
    alice.quote(entry(50_000, None, 20, 0), quote_id=2)
    [response] = alice.quote(entry(50_000, None, 10, 0), quote_id=3)
    assert sides(response)[0][0] == ("QTY_REDUCED", "", 10)
    assert [c for _, _, c in gateway.engine.books[BTC].depth(BUY)] == ["alice", "bob"]
    alice.quote(entry(50_000, None, 20, 0), quote_id=4)
    assert [c for _, _, c in gateway.engine.books[BTC].depth(BUY)] == ["bob", "alice"], "more quantity: to the back"
    alice.quote(entry(50_000.5, None, 20, 0), quote_id=5)
    assert [c for _, _, c in gateway.engine.books[BTC].depth(BUY)] == ["alice", "bob"], "a better price: in front"
    gateway.trade(0, BTC, 50_000 * E9, 3, SELL)
    fills = gateway.engine.ledger.fills
    assert [(f.client, f.price_e9, f.lots) for f in fills] == [
        ("alice", 50_000_500_000_000, 2), ("bob", 50_000 * E9, 1)]
    [event] = alice.take()
    assert event["type"] == "OrderFilled"
    [fill] = event["fills"]
    assert (fill["clientOrderId"], fill["price"], fill["fillQty.mantissa"], fill["side"], fill["flags"]) == \
        (5, 50_000_500_000_000, 20, 1, 3)
    [event] = bob.take()
    assert event["fills"][0]["flags"] == 1, "a quote, partially filled"
    assert len(gateway.engine.ledger.quotes[5].fills) == 1


def test_a_quote_queues_behind_the_market_that_stood_there(gateway, alice):
    gateway.market(0, BTC, (50_000 * E9, 5), (50_001 * E9, 5))
    alice.quote(entry(50_000, None, 20, 0))
    gateway.trade(1, BTC, 50_000 * E9, 4, SELL)
    assert not gateway.engine.ledger.fills
    gateway.market(2, BTC, (50_000 * E9, 1), (50_001 * E9, 5))      # what the feed shows after that trade
    assert gateway.engine.books[BTC].depth(BUY) == [(50_000 * E9, 1, None), (50_000 * E9, 2, "alice")]
    gateway.market(3, BTC, (50_000 * E9, 6), (50_001 * E9, 5))      # five join behind the quote
    assert gateway.engine.books[BTC].depth(BUY) == [
        (50_000 * E9, 1, None), (50_000 * E9, 2, "alice"), (50_000 * E9, 5, None)]
    gateway.trade(4, BTC, 50_000 * E9, 4, SELL)
    assert [(f.lots, f.remaining_lots, f.maker) for f in gateway.engine.ledger.fills] == [(2, 0, True)]
    assert gateway.engine.books[BTC].depth(BUY) == [(50_000 * E9, 4, None)]


def test_cancels_of_the_market_take_the_youngest_first(gateway, alice):
    gateway.market(0, BTC, (50_000 * E9, 5), None)
    alice.quote(entry(50_000, None, 20, 0))
    gateway.market(1, BTC, (50_000 * E9, 8), None)
    gateway.market(2, BTC, (50_000 * E9, 4), None)
    assert gateway.engine.books[BTC].depth(BUY) == [(50_000 * E9, 4, None), (50_000 * E9, 2, "alice")]


# -- the market moving through ----------------------------------------------------------------------------------


def test_market_moving_through_a_quote_fills_it_at_its_own_price(gateway, alice):
    gateway.market(0, BTC, (50_000 * E9, 5), (50_002 * E9, 5))
    alice.quote(entry(50_000.5, 50_001.5, 30, 30))
    gateway.market(9, BTC, (49_998 * E9, 5), (50_000 * E9, 2))
    [event] = alice.take()
    [fill] = event["fills"]
    assert (fill["price"], fill["fillQty.mantissa"], fill["totalFilled.mantissa"], fill["flags"]) == \
        (50_000_500_000_000, 20, 20, 1)
    assert event["timestamp"] == 9
    # The offer was used up; showing it again unchanged does not refill it, a larger one does.
    gateway.market(10, BTC, (49_998 * E9, 5), (50_000 * E9, 2))
    assert alice.take() == []
    gateway.market(11, BTC, (49_998 * E9, 5), (50_000 * E9, 6))
    [event] = alice.take()
    assert (event["fills"][0]["fillQty.mantissa"], event["fills"][0]["flags"]) == (10, 3)
    assert gateway.engine.books[BTC].best(BUY) == 49_998 * E9
    assert gateway.engine.books[BTC].depth(SELL)[0] == (50_000 * E9, 3, None)
    assert gateway.engine.ledger.positions("alice") == {BTC: 3}


def test_market_that_touches_a_quotes_price_trades(gateway, alice):
    alice.quote(entry(50_000, 50_001))
    gateway.market(1, BTC, None, (50_000 * E9, 7))
    assert gateway.engine.ledger.fills[0].price_e9 == 50_000 * E9


def test_mirrored_market_never_trades_with_itself(gateway):
    gateway.market(0, BTC, (50_000 * E9, 5), (50_001 * E9, 5))
    gateway.market(1, BTC, (50_003 * E9, 5), (50_002 * E9, 5))
    assert gateway.engine.books[BTC].depth(BUY) == [(50_003 * E9, 5, None)]
    assert not gateway.engine.ledger.fills


def test_an_aggressive_quote_takes_what_is_there_and_rests_the_remainder(gateway, alice):
    gateway.market(0, BTC, (49_999 * E9, 5), (50_000 * E9, 2))
    [response] = alice.quote(entry(50_000.5, 50_002, 50, 10))
    assert sides(response)[0][0] == ("UPDATED", "", 30)
    assert response["quotes"][0]["bidFilledQty.mantissa"] == 20
    [fill] = response["bidFills"]
    assert (fill["fillPrice"], fill["fillQty.mantissa"], fill["instrumentId"]) == (50_000 * E9, 20, BTC)
    assert not gateway.engine.ledger.fills[0].maker
    [response] = alice.quote(entry(49_000, 49_999, 10, 10), quote_id=2)
    assert sides(response)[0][1] == ("FILLED", "", 0)


def test_both_sides_moving_the_same_way_do_not_meet_each_other(gateway, alice):
    """Up: the ask goes first. Down: the bid goes first. Either order would otherwise trade with itself."""
    alice.quote(entry(50_000, 50_001))
    for step, (bid, ask) in enumerate(((50_002, 50_003), (49_990, 49_991)), 2):
        [response] = alice.quote(entry(bid, ask), quote_id=step)
        assert sides(response) == [(("UPDATED", "", 10), ("UPDATED", "", 10))]


def test_quote_that_crosses_itself(gateway, alice):
    [response] = alice.quote(entry(50_001, 50_000))
    assert sides(response) == [(("UPDATED", "", 10), ("CANCELED_BY_SELF_MATCH", "", 0))]
    assert "meets the client's own order" in gateway.explain_refusals()[-1]
    assert not gateway.engine.ledger.quotes[1].fully_accepted


def test_two_clients_trade_with_each_other(gateway, alice, bob):
    alice.quote(entry(50_000, 50_001))
    [response] = bob.quote(entry(50_001, 50_002, 30, 10), group=8)
    assert response["bidFills"][0]["fillQty.mantissa"] == 10
    [event] = alice.take()
    assert event["fills"][0]["matchId"] == response["bidFills"][0]["matchId"]
    assert sum(gateway.engine.ledger.positions(c)[BTC] for c in ("alice", "bob")) == 0


# -- cancels ----------------------------------------------------------------------------------------------------


def test_mass_quote_cancel(gateway, alice, bob):
    alice.quote(entry(50_000, 50_001), entry(2_000, 2_001, 1, 1, instrument=ETH))
    bob.quote(entry(49_000, 51_000), group=8)
    response, cancelled = alice.send("MassQuoteCancelRequest", {"correlationId": 5, "mmpGroupId": 7, "side": 1})
    assert (response["type"], response["correlationId"], response["totalOrderCount"]) == ("MassCancelResponse", 5, 2)
    assert {(o["instrumentId"], o["cancelReason"], o["flags"]) for o in cancelled["orders"]} == {
        (BTC, ENUMS["CancelReason"]["BY_REQUEST"], 1), (ETH, ENUMS["CancelReason"]["BY_REQUEST"], 1)}
    assert cancelled["flags"] == 1, "the last message of this event"
    response, _ = alice.send("MassQuoteCancelRequest", {"correlationId": 6, "mmpGroupId": 7, "side": 0})
    assert response["totalOrderCount"] == 2
    [response] = alice.send("MassQuoteCancelRequest", {"correlationId": 7, "mmpGroupId": 7, "side": 0})
    assert response["totalOrderCount"] == 0
    assert {o.client for o in gateway.engine.open_orders()} == {"bob"}
    [reject] = alice.send("MassQuoteCancelRequest", {"correlationId": 8, "mmpGroupId": 8, "side": 0})
    assert reject["type"] == "MassCancelReject"
    assert reject["reason"] == ENUMS["MassCancelRejectReason"]["INVALID_MMP_GROUP"]
    assert reject["details"] == "mmpGroupId 8 is not a group of alice"


@pytest.mark.parametrize(("changes", "left"), [
    ({"currencyPairId": 1}, {("e", 1), ("e", -1)}),
    ({"currencyPairId": 0, "instrumentId": ETH}, {("b", 1), ("b", -1)}),
    ({"currencyPairId": 2, "side": -1}, {("b", 1), ("b", -1), ("e", 1)}),
    ({"currencyPairId": 1, "productType": 1}, {("b", 1), ("b", -1), ("e", 1), ("e", -1)}),
    ({"currencyPairId": 0}, {("b", 1), ("b", -1), ("e", 1), ("e", -1)}),
])
def test_mass_cancel_filters(gateway, alice, changes, left):
    alice.quote(entry(50_000, 50_001), entry(2_000, 2_001, 1, 1, instrument=ETH))
    response = alice.send("MassCancelRequest", {"correlationId": 1, "instrumentId": None} | changes)[0]
    assert response["totalOrderCount"] == 4 - len(left)
    assert {("b" if o.instrument_id == BTC else "e", o.side) for o in gateway.engine.open_orders()} == left


def test_mass_cancel_of_an_unknown_instrument(alice):
    [reject] = alice.send("MassCancelRequest", {"correlationId": 1, "instrumentId": 5})
    assert reject["details"] == "instrumentId 5 is not listed (null means any)"


def test_many_cancels_are_split_over_messages(gateway, alice):
    for number in range(45):
        alice.order(number, 1, (40_000 + number) * E9, 10)
    got = alice.send("MassCancelRequest", {"currencyPairId": 1, "instrumentId": None})
    assert [(m["type"], m.get("flags"), len(m.get("orders", ()))) for m in got] == [
        ("MassCancelResponse", None, 0), ("OrdersCanceled", 0, 40), ("OrdersCanceled", 1, 5)]


# -- protection -------------------------------------------------------------------------------------------------


def protected(**changes):
    values = {"quantity_limit": 30, "interval_ns": 1000, "frozen_ns": 5 * SECOND, "min_freeze_ns": SECOND} | changes
    gateway = Gateway(make_config(groups=(MmpGroupSpec(7, "alice", **values),)))
    return gateway, log_on(gateway)


def test_protection_triggers_at_the_limit_within_the_window():
    gateway, alice = protected()
    alice.quote(entry(50_000, 50_001, 50, 50), entry(2_000, 2_001, 10, 10, instrument=ETH, exponent=-1))
    gateway.trade(0, BTC, 50_000 * E9, 2, SELL)
    assert [m["type"] for m in alice.take()] == ["OrderFilled"]
    gateway.trade(999, BTC, 50_001 * E9, 1, BUY)
    filled, triggered, cancelled = alice.take()
    assert [m["type"] for m in (filled, triggered, cancelled)] == [
        "OrderFilled", "MassQuoteMmpTriggered", "OrdersCanceled"]
    assert triggered["quantityLevel"] == 30.0
    assert triggered["frozenUntil"] == 999 + 5 * SECOND
    assert triggered["trigger"] == 0
    assert len(cancelled["orders"]) == 4
    assert {o["cancelReason"] for o in cancelled["orders"]} == {ENUMS["CancelReason"]["MM_PROTECTION"]}
    assert not gateway.engine.open_orders()
    alice.now_ns = 2 * SECOND
    [reject] = alice.quote(entry(50_000, 50_001), quote_id=2)
    assert reject["reason"] == ENUMS["MassQuoteRejectReason"]["MMP_GROUP_FROZEN"]
    assert reject["details"] == f"group 7 is frozen until {999 + 5 * SECOND} ns"
    [answer] = alice.quote(entry(None, None, 0, 0), quote_id=3)
    assert answer["type"] == "MassQuoteResponse", "a pure cancel always passes"


def test_protection_window_starts_anew_after_it_ended():
    gateway, alice = protected()
    alice.quote(entry(50_000, 50_001, 50, 50))
    for at in (0, 1000, 2000, 3000):
        gateway.trade(at, BTC, 50_000 * E9, 1, SELL)
        assert [m["type"] for m in alice.take()] == ["OrderFilled"]
    assert gateway.engine.groups[7].triggers == 0


def test_group_thaws_by_itself():
    gateway, alice = protected()
    alice.quote(entry(50_000, 50_001, 50, 50))
    gateway.trade(0, BTC, 50_000 * E9, 3, SELL)
    alice.take()
    assert gateway.engine.next_deadline_ns() == 5 * SECOND
    alice.now_ns = 4 * SECOND
    alice.send("Heartbeat")
    gateway.poll(5 * SECOND)
    [unfrozen] = [m for m in alice.take() if m["type"] == "MassQuoteMmpUnfrozen"]
    assert (unfrozen["mmpGroupId"], unfrozen["correlationId"], unfrozen["timestamp"]) == (7, None, 5 * SECOND)
    alice.now_ns = 5 * SECOND
    assert alice.quote(entry(50_000, 50_001), quote_id=2)[0]["type"] == "MassQuoteResponse"


def test_reset_only_after_the_minimum_freeze():
    gateway, alice = protected(frozen_ns=0)
    alice.quote(entry(50_000, 50_001, 50, 50))
    gateway.trade(0, BTC, 50_000 * E9, 3, SELL)
    assert next(m for m in alice.take() if m["type"] == "MassQuoteMmpTriggered")["frozenUntil"] == FOREVER
    assert gateway.engine.next_deadline_ns() is None
    alice.now_ns = SECOND - 1
    [reject] = alice.quote(entry(50_000, 50_001), quote_id=2, flags=RESET_MMP)
    assert reject["reason"] == ENUMS["MassQuoteRejectReason"]["MMP_MIN_FREEZE_TIME_NOT_ELAPSED"]
    [reject] = alice.quote(entry(50_000, 50_001), quote_id=3)
    assert reject["details"] == "group 7 is frozen until a reset"
    alice.now_ns = SECOND
    unfrozen, response = alice.quote(entry(50_000, 50_001), quote_id=4, flags=RESET_MMP)
    assert (unfrozen["type"], unfrozen["correlationId"]) == ("MassQuoteMmpUnfrozen", 4)
    assert sides(response) == [(("UPDATED", "", 10), ("UPDATED", "", 10))]


def test_an_aggressive_quote_can_freeze_its_own_group():
    gateway, alice = protected()
    gateway.market(0, BTC, None, (50_000 * E9, 5))
    response, triggered, cancelled = alice.quote(
        entry(1_900, 2_001, 10, 10, instrument=ETH, exponent=-1), entry(50_000, 50_001, 60, 10))
    assert sides(response)[1] == (("CANCELED_BY_MMP", "", 0), ("CANCELED_BY_MMP", "", 0))
    assert triggered["quantityLevel"] == 50.0
    assert len(cancelled["orders"]) == 2, "the entry before it had already been placed"
    assert not gateway.engine.open_orders()


def test_protection_sums_quantities_of_different_lots_exactly():
    gateway, alice = protected(quantity_limit=10.3)
    alice.quote(entry(50_000, 50_001), entry(2_000, 2_001, 3, 3, instrument=ETH, exponent=-1))
    gateway.trade(0, BTC, 50_000 * E9, 1, SELL)
    assert gateway.engine.groups[7].traded == 10
    gateway.trade(1, ETH, 2_000 * E9, 3, SELL)
    assert gateway.engine.groups[7].traded == Fraction(103, 10)
    assert gateway.engine.groups[7].triggers == 1


# -- single orders ----------------------------------------------------------------------------------------------


def test_order_rests_fills_and_cancels(gateway, alice):
    [placed] = alice.order(5, 1, 50_000 * E9, 30)
    assert (placed["type"], placed["status"], placed["visibleQty.mantissa"]) == (
        "NewOrderResponse", ENUMS["OrderStatus"]["ACTIVE"], 30)
    gateway.trade(0, BTC, 50_000 * E9, 1, SELL)
    [event] = alice.take()
    assert (event["fills"][0]["clientOrderId"], event["fills"][0]["flags"]) == (5, 0)
    [answer] = alice.send("CancelOrderRequest", {"clientOrderId": 5, "correlationId": 6, "instrumentId": BTC})
    assert (answer["type"], answer["quantity.mantissa"], answer["totalFilled.mantissa"], answer["version"]) == (
        "CancelOrderResponse", 30, 10, 16)
    [answer] = alice.send("CancelOrderRequest", {"clientOrderId": 5, "correlationId": 7, "instrumentId": BTC})
    assert (answer["type"], answer["orderId"]) == ("CancelOrderReject", None)
    assert answer["details"] == "no open order with clientOrderId 5 on instrumentId 1001"
    [answer] = alice.send("CancelOrderRequest", {"clientOrderId": 5, "correlationId": 7, "instrumentId": 3})
    assert answer["reason"] == ENUMS["CancelOrderRejectReason"]["INVALID_INSTRUMENT"]


@pytest.mark.parametrize(("tif", "mantissa", "status", "filled"), [
    (-2, 50, "CANCELED", 20), (-1, 50, "CANCELED", 0), (-1, 20, "FILLED", 20), (0, 50, "ACTIVE", 20)])
def test_time_in_force(gateway, alice, tif, mantissa, status, filled):
    gateway.market(0, BTC, None, (50_000 * E9, 2))
    [answer] = alice.order(1, 1, 50_000 * E9, mantissa, tif=tif)
    assert answer["status"] == ENUMS["OrderStatus"][status]
    assert answer["totalFilled.mantissa"] == filled
    assert sum(f["fillQty.mantissa"] for f in answer["fills"]) == filled


@pytest.mark.parametrize(("arguments", "reason", "words"), [
    ({"instrument": 5}, "INVALID_INSTRUMENT", "instrumentId 5 is not listed"),
    ({"side": 0}, "INVALID_FIELD", "side 0 must be 1 (buy) or -1 (sell)"),
    ({"tif": -3}, "INVALID_FIELD", "timeInForce -3 must be"),
    ({"flags": 6}, "INVALID_FIELD", "give at most one"),
    ({"flags": 8}, "INVALID_FIELD", "marketLimit"),
    ({"mantissa": 0}, "INVALID_QUANTITY", "quantity is 0"),
    ({"mantissa": 5}, "INVALID_QUANTITY", "quantity 5e0 of BTC-PERPETUAL is not a multiple of 10e0"),
    ({"price_e9": 1}, "INVALID_PRICE", "price 0.000000001 of BTC-PERPETUAL is not a multiple of the tick 0.5"),
    ({"showQty": {"mantissa": 10, "exponent": 0}, "mantissa": 20}, "ICEBERG_NOT_ALLOWED", "showQty must be absent"),
    ({"price_e9": 60_000 * E9, "flags": POST_ONLY_REJECT}, "POST_ONLY", "the best ask is 60000"),
    ({"order_id": 99}, "DUPLICATE_CLIENT_ORDER_ID", "clientOrderId 99 is an open order"),
])
def test_order_refused(gateway, alice, arguments, reason, words):
    gateway.market(0, BTC, None, (60_000 * E9, 5))
    alice.order(99, 1, 40_000 * E9, 10)
    values = {"order_id": 1, "side": 1, "price_e9": 50_000 * E9, "mantissa": 10} | arguments
    [reject] = alice.order(values.pop("order_id"), values.pop("side"), values.pop("price_e9"), values.pop("mantissa"),
                           **values)
    assert reject["type"] == "NewOrderReject"
    assert reject["reason"] == ENUMS["OrderRejectReason"][reason]
    assert words in reject["details"]
    assert gateway.engine.ledger.refusals == {reason: 1}
    assert len(gateway.engine.open_orders()) == 1


def test_too_many_open_orders_and_order_rate():
    gateway = Gateway(make_config(max_open_orders=1))
    alice = log_on(gateway)
    alice.order(1, 1, 40_000 * E9, 10)
    assert "1 open orders on the bid side" in alice.order(2, 1, 40_000 * E9, 10)[0]["details"]
    gateway = Gateway(make_config(order_rate=1, order_burst=1))
    alice = log_on(gateway)
    alice.order(1, 1, 40_000 * E9, 10)
    assert alice.order(2, 1, 40_000 * E9, 10)[0]["details"] == "more than 1 orders a second (burst 1)"


@pytest.mark.parametrize(("mode", "smp", "status", "maker_left"), [
    (0, 0, "CANCELED", True), (1, 0, "ACTIVE", False), (0, 5, "FILLED", False)])
def test_self_match_prevention(gateway, alice, mode, smp, status, maker_left):
    alice.order(1, -1, 50_000 * E9, 10)
    answer = alice.order(2, 1, 50_000 * E9, 10, mode=mode, smp=smp)
    response = next(m for m in answer if m["type"] == "NewOrderResponse")
    assert response["status"] == ENUMS["OrderStatus"][status]
    assert any(o.client_order_id == 1 for o in gateway.engine.open_orders()) is maker_left


# -- the record -------------------------------------------------------------------------------------------------


def test_open_orders_at_any_time(gateway, alice):
    for at, ask in ((10, 50_001), (20, 50_002), (30, 50_003)):
        alice.now_ns = at
        alice.quote(entry(50_000, ask, flags=COD), quote_id=at)
    gateway.trade(35, BTC, 50_000 * E9, 1, SELL)
    alice.session.disconnected(40)
    ledger = gateway.engine.ledger
    assert [len(ledger.open_at(t)) for t in (9, 10, 34, 35, 39, 40)] == [0, 2, 2, 1, 1, 0]
    assert ledger.last_open_ns() == 40
    ask = next(life for life in ledger.orders.values() if life.side == SELL)
    assert [(t, p // 10 ** 9) for t, p, _ in ask.changes] == [(10, 50_001), (20, 50_002), (30, 50_003), (40, 50_003)]
    assert ask.closed_by == "CLIENT_DISCONNECT"


def test_random_traffic_keeps_its_books(gateway):
    """Whatever happens: no crossed client interest, nothing lost or double, record and book agree, fills balance."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    names = {"alice": ("open sesame", 7), "bob": ("swordfish", 8)}
    clients = {name: log_on(gateway, name, secret) for name, (secret, _) in names.items()}
    engine, now, mass_quotes = gateway.engine, 0, 0
    for step in range(1500):
        now += r.randrange(1, 1000)
        choice = r.random()
        if choice < 0.4:
            middle = 50_000 + r.randrange(-4, 5)
            gateway.market(now, BTC, (middle * E9 - r.randrange(1, 3) * 500_000_000, r.randrange(1, 9)),
                           (middle * E9 + r.randrange(1, 3) * 500_000_000, r.randrange(1, 9)))
        elif choice < 0.5:
            gateway.trade(now, BTC, (50_000 + r.randrange(-4, 5)) * E9, r.randrange(1, 9), r.choice((BUY, SELL)))
        else:
            name = r.choice(list(clients))
            client = clients[name]
            client.now_ns = now
            if choice < 0.97:
                mass_quotes += 1
                middle = 50_000 + r.randrange(-4, 5)
                client.quote(entry(middle - r.randrange(1, 4) / 2, middle + r.randrange(1, 4) / 2,
                                   r.randrange(0, 5) * 10, r.randrange(0, 5) * 10,
                                   flags=r.choice((0, POST_ONLY, POST_ONLY_REJECT))), quote_id=step,
                             group=names[name][1])
            else:
                client.send("MassQuoteCancelRequest", {"mmpGroupId": names[name][1], "side": r.choice((-1, 0, 1))})
        book = engine.books[BTC]
        for side in (BUY, SELL):
            ranks = [o.rank for o in book.sides[side]]
            assert ranks == sorted(ranks)
            assert all(o.lots > 0 for o in book.sides[side])
        bid, ask = book.best(BUY), book.best(SELL)
        assert bid is None or ask is None or bid < ask, f"crossed at step {step}, seed {seed}"
        live = {o.order_id: o.lots for o in engine.open_orders()}
        assert {life.order_id: life.lots_at(now) for life in engine.ledger.open_at(now)} == live
        assert {o.order_id for o in engine.quotes.values()} == set(live)
    assert len(engine.ledger.quotes) == mass_quotes
    assert len(engine.ledger.fills) > 50, f"the market should have filled something, seed {seed}"
    both = [sum(f.side * f.lots for f in engine.ledger.fills if f.match_id == m)
            for m in {f.match_id for f in engine.ledger.fills}
            if sum(f.match_id == m for f in engine.ledger.fills) == 2]
    assert not any(both), "two clients that trade with each other hold opposite amounts"


def test_same_input_same_output():
    def run():
        gateway = Gateway(make_config())
        alice = log_on(gateway)
        r, out = random.Random(3), []
        for now in range(200):
            alice.now_ns = now
            gateway.market(now, BTC, ((50_000 - r.randrange(3)) * E9, 4), ((50_001 + r.randrange(3)) * E9, 4))
            out += alice.quote(entry(50_000 - r.randrange(3), 50_001 + r.randrange(3)), quote_id=now)
        return out, gateway.engine.ledger.summary()
    assert run() == run()


def test_time_never_runs_backwards():
    engine = Engine(make_config())
    engine.advance(5)
    with pytest.raises(ValueError, match="time runs backwards: 4 ns after 5 ns"):
        engine.advance(4)
    with pytest.raises(ValueError, match="instrument 3 is not listed; listed are 1001, 1002"):
        engine.market(6, 3, None, None)


@pytest.mark.parametrize(("value", "text"), [(50_000 * E9, "50000"), (500_000_000, "0.5"), (-1, "-0.000000001"),
                                            (None, "none")])
def test_price_text(value, text):
    assert price_text(value) == text


@pytest.mark.parametrize(("make", "words"), [
    (lambda: InstrumentSpec(1, "X", 0), "tick_e9 must be at least 1, got 0"),
    (lambda: InstrumentSpec(0, "X", 1), "instrument_id must be 1..2^63-1, got 0"),
    (lambda: InstrumentSpec(1, "X", 1, lot_exp=19), "lot_exp must be -18..18, got 19"),
    (lambda: InstrumentSpec(1, "X", 1, min_lots=5, max_lots=4), "min_lots must be 1..max_lots"),
    (lambda: MmpGroupSpec(1, "a", frozen_ns=5), "frozen_ns must be 0 (until reset) or at least min_freeze_ns"),
    (lambda: make_config(groups=(MmpGroupSpec(1, "zoe"),)), "client 'zoe' is unknown; known are alice, bob"),
    (lambda: make_config(heartbeat_s=0), "heartbeat_s must be 1..3600, got 0"),
    (lambda: make_config(instruments=()), "instruments: at least one is needed"),
    (lambda: make_config(schema_versions=(5, 17)), "must lie in 1..16"),
])
def test_impossible_configuration(make, words):
    with pytest.raises(VenueConfigError) as error:
        make()
    assert words in str(error.value)

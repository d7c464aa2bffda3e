"""Session rules: logon, sequence numbers, heartbeats, recovery, refusals, cancel on disconnect."""

import pytest

from sim.venue.engine import COD, ENUMS
from sim.venue.session import HEADER, Gateway, frame

from .client import BTC, SCHEMA, SECOND, Client, entry, make_config


def only(messages, name):
    assert [m["type"] for m in messages] == [name]
    return messages[0]


# -- logon ------------------------------------------------------------------------------------------------------


def test_logon_confirms_interval_and_version(gateway):
    client = Client(gateway)
    conf = only(client.logon(schemaVersion=14), "LogonConf")
    assert conf["heartbeatIntervalSeconds"] == 5
    assert conf["schemaVersion"] == 14
    assert (conf["seq"], conf["last"]) == (1, 1)
    assert conf["version"] == 12, "the header carries the version in which LogonConf last changed"


@pytest.mark.parametrize(("change", "words"), [
    ({"clientId": "mallory"}, "clientId 'mallory' or its secret is wrong"),
    ({"secret": "open sesam"}, "clientId 'alice' or its secret is wrong"),
    ({"schemaVersion": 11}, "schemaVersion 11, this gateway accepts 12..16"),
    ({"schemaVersion": 17}, "schemaVersion 17, this gateway accepts 12..16"),
    ({"resetSeqNum": 2}, "resetSeqNum 2 must be one of 0 FALSE, 1 TRUE"),
])
def test_logon_refused_with_the_reason(gateway, change, words):
    client = Client(gateway)
    end = only(client.logon(**change), "LoggedOut")
    assert words in end["reason"]
    assert client.session.closing
    assert words in gateway.explain_refusals()[-1]


def test_logon_of_an_old_client_without_version_is_refused(gateway):
    client = Client(gateway)
    body = SCHEMA["Logon"].encode({"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1})
    end = only(client.send("Logon", body=body[:SCHEMA["Logon"]["schemaVersion"].offset]), "LoggedOut")
    assert end["reason"] == "schemaVersion missing, this gateway accepts 12..16"


def test_logon_without_cancel_on_disconnect_field(gateway):
    client = Client(gateway)
    body = SCHEMA["Logon"].encode({"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1,
                                   "schemaVersion": 12})
    only(client.send("Logon", body=body[:SCHEMA["Logon"]["cancelOnDisconnect"].offset]), "LogonConf")
    assert not client.session.cancel_on_disconnect


def test_anything_before_logon_ends_the_connection(gateway):
    client = Client(gateway)
    end = only(client.quote(entry(50_000, 50_001)), "LoggedOut")
    assert end["reason"] == "MassQuoteRequest before Logon"
    assert not gateway.engine.ledger.requests


def test_second_logon_displaces_the_first_session_and_its_tagged_quotes(gateway, alice):
    alice.quote(entry(50_000, 50_001, flags=COD))
    other = Client(gateway)
    only(other.logon(), "LogonConf")
    assert only(alice.take(), "LoggedOut")["reason"] == "displaced by a new logon of the same client"
    assert alice.session.closing
    assert not gateway.engine.open_orders()


def test_no_logon_in_time(gateway):
    client = Client(gateway)
    gateway.poll(30 * SECOND - 1)
    assert not client.session.closing
    assert gateway.next_deadline_ns() == 30 * SECOND
    gateway.poll(30 * SECOND)
    assert "no Logon within" in only(client.take(), "LoggedOut")["reason"]


# -- framing and sequence ---------------------------------------------------------------------------------------


def test_messages_may_be_cut_anywhere(gateway):
    """Byte by byte and all at once give the same answers."""
    def stream(client):
        out = bytearray()
        for number, (name, values, groups) in enumerate((
                ("Logon", {"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1, "schemaVersion": 16}, None),
                ("MassQuoteRequest", {"quoteId": 5, "correlationId": 6, "mmpGroupId": 7},
                 {"quotes": [entry(50_000, 50_001)]}),
                ("TestRequest", {"correlationId": 9}, None)), 1):
            out += frame(name, SCHEMA[name].encode(values, groups), sequence=number, last_processed=0, now_ns=0,
                         version=16, pad=number % 2 == 0)
        return bytes(out)

    whole = Client(gateway)
    expected = whole.raw(stream(whole))
    assert [m["type"] for m in expected] == ["LogonConf", "MassQuoteResponse", "Heartbeat"]
    other = Client(Gateway(make_config()))
    got = []
    for byte in stream(other):
        got += other.raw(bytes([byte]))
    assert got == expected


@pytest.mark.parametrize(("offset", "value", "words"), [
    (HEADER["protocolId"].offset, b"\xdc", "protocolId 0xdc must be 0xdb"),
    (HEADER["messageLength"].offset, b"\x1f\x00", "messageLength 31 must be 32..4096"),
    (HEADER["messageLength"].offset, b"\x01\x10", "messageLength 4097 must be 32..4096"),
])
def test_bytes_that_are_no_message_end_the_session(alice, offset, value, words):
    data = bytearray(frame("Heartbeat", SCHEMA["Heartbeat"].encode(), sequence=2, last_processed=1, now_ns=0,
                           version=16))
    data[offset:offset + len(value)] = value
    assert only(alice.raw(bytes(data)), "LoggedOut")["reason"] == words


@pytest.mark.parametrize(("sequence", "words"), [(3, "too high, expected 2"), (1, "too low, expected 2")])
def test_wrong_sequence_number_ends_the_session(gateway, alice, sequence, words):
    assert words in only(alice.send("Heartbeat", sequence=sequence), "LoggedOut")["reason"]
    assert gateway.refusals[-1].reason == "SEQUENCE"


def test_repeated_message_with_resend_flag_is_ignored(gateway, alice):
    alice.quote(entry(50_000, 50_001))
    before = len(gateway.engine.ledger.requests)
    assert alice.send("MassQuoteRequest", {"quoteId": 1, "mmpGroupId": 7}, {"quotes": [entry(50_000, 50_001)]},
                      sequence=2, flags=1) == []
    assert len(gateway.engine.ledger.requests) == before
    assert gateway.refusals[-1].reason == "DUPLICATE"
    assert alice.send("TestRequest", {"correlationId": 4})[0]["type"] == "Heartbeat"


def test_sequence_numbers_survive_the_connection(gateway, alice):
    alice.quote(entry(50_000, 50_001))
    alice.session.disconnected(1)
    again = Client(gateway)
    again.sequence = 3
    conf = only(again.logon(resetSeqNum=0), "LogonConf")
    assert conf["seq"] == 3
    late = Client(gateway)
    assert "too low, expected 4" in only(late.logon(resetSeqNum=0), "LoggedOut")["reason"]


def test_acknowledging_what_was_never_sent_is_noted(gateway, alice):
    alice.send("Heartbeat", last_processed=1)
    assert not gateway.refusals
    alice.send("Heartbeat", last_processed=2)
    assert gateway.refusals[-1].text == "lastProcessedSeqNo 2, but only 1 messages were sent"
    assert not alice.session.closing


# -- rejects ----------------------------------------------------------------------------------------------------


def quote_body(**changes):
    values = {"quoteId": 1, "correlationId": 1, "mmpGroupId": 7} | changes
    return SCHEMA["MassQuoteRequest"].encode(values, {"quotes": [entry(50_000, 50_001)]})


@pytest.mark.parametrize(("message", "arguments", "reason", "words"), [
    ("MassQuoteResponse", {"body": bytes(64)}, "INVALID_TEMPLATE_ID", "messageTypeId 230 is not for clients"),
    ("Logon", {"body": bytes(68)}, "INVALID_TEMPLATE_ID", "messageTypeId 1 is not for clients to send here"),
    ("MassQuoteRequest", {"body": quote_body()[:40]}, "INVALID_BLOCK_LENGTH", "says 1 entries of 46 bytes"),
    ("MassQuoteRequest", {"body": quote_body()[:20]}, "INVALID_BLOCK_LENGTH", "needs a root block of 33 bytes"),
    ("MassQuoteRequest", {"body": quote_body() + bytes(8)}, "INVALID_BLOCK_LENGTH", "has 83 and at most 7"),
    ("MassQuoteRequest", {"body": quote_body(flags=2)}, "INVALID_FIELD_VALUE", "flags 0x2 has unknown bits"),
    ("MassQuoteRequest", {"body": quote_body(), "flags": 2}, "INVALID_FIELD_VALUE", "header flags 0x02"),
    ("MassQuoteRequest", {"body": quote_body(), "version": 17}, "INVALID_SCHEMA_ID", "version 17 is above"),
    ("MassQuoteRequest", {"body": SCHEMA["MassQuoteRequest"].encode({"mmpGroupId": 7})}, "INVALID_FIELD_VALUE",
     "quotes has no entries"),
    ("MassQuoteCancelRequest", {"values": {"mmpGroupId": 7, "side": 2}}, "INVALID_FIELD_VALUE",
     "side 2 must be one of -1 SELL, 0 BOTH, 1 BUY"),
    ("ResendRequest", {"values": {"fromSequenceNumber": 3, "toSequenceNumber": 9}}, "INVALID_FIELD_VALUE",
     "range 3..9 must lie in 1..1"),
])
def test_unreadable_messages_are_rejected_and_the_session_goes_on(gateway, alice, message, arguments, reason, words):
    reject = only(alice.send(message, **arguments), "Reject")
    assert reject["refSequenceNumber"] == 2
    assert reject["reason"] == ENUMS["RejectReason"][reason]
    assert words in reject["details"]
    assert words in gateway.explain_refusals()[-1]
    assert only(alice.send("TestRequest", {"correlationId": 4}), "Heartbeat")["correlationId"] == 4


def test_group_entries_of_another_size_are_rejected(alice):
    body = bytearray(quote_body())
    at = SCHEMA["MassQuoteRequest"].block_length
    body[at:at + 2] = (45).to_bytes(2, "little")
    assert "quotes entries of 45 bytes, must be 46" in only(
        alice.send("MassQuoteRequest", body=bytes(body)), "Reject")["details"]


def test_a_bad_field_inside_a_group_is_named(alice):
    body = SCHEMA["MassQuoteRequest"].encode({"mmpGroupId": 7}, {"quotes": [entry(50_000, 50_001, flags=64)]})
    assert "quotes[0].bidFlags 0x40 has unknown bits" in only(
        alice.send("MassQuoteRequest", body=body), "Reject")["details"]


def test_unknown_message_type(gateway, alice):
    data = bytearray(frame("Heartbeat", bytes(8), sequence=2, last_processed=0, now_ns=0, version=16))
    at = HEADER["messageTypeId"].offset
    data[at:at + 2] = (999).to_bytes(2, "little")
    assert only(alice.raw(bytes(data)), "Reject")["details"] == "messageTypeId 999 is unknown to this gateway"


# -- heartbeats -------------------------------------------------------------------------------------------------


def test_gateway_heartbeats_when_it_has_nothing_to_say(gateway, alice):
    alice.now_ns = 4 * SECOND
    alice.send("Heartbeat")
    gateway.poll(5 * SECOND - 1)
    assert alice.take() == []
    gateway.poll(5 * SECOND)
    assert only(alice.take(), "Heartbeat")["correlationId"] == 0
    assert gateway.next_deadline_ns() == 9 * SECOND, "the client was last heard at 4 s"


def test_silent_client_is_asked_then_dropped_and_its_quotes_cancelled(gateway, alice):
    alice.quote(entry(50_000, 50_001, flags=COD))
    gateway.poll(5 * SECOND)
    assert [m["type"] for m in alice.take()] == ["TestRequest"], "which is also a sign of life"
    gateway.poll(10 * SECOND - 1)
    assert not alice.session.closing
    assert len(gateway.engine.open_orders()) == 2
    gateway.poll(10 * SECOND)
    assert "a TestRequest went unanswered" in alice.take()[-1]["reason"]
    assert alice.session.closing
    assert not gateway.engine.open_orders()
    assert {life.closed_by for life in gateway.engine.ledger.orders.values()} == {"CLIENT_DISCONNECT"}


def test_any_message_answers_a_test_request(gateway, alice):
    gateway.poll(5 * SECOND)
    assert only(alice.take(), "TestRequest")["correlationId"] == 1
    alice.now_ns = 6 * SECOND
    alice.send("Heartbeat", {"correlationId": 1})
    gateway.poll(10 * SECOND)
    assert not alice.session.closing


# -- recovery ---------------------------------------------------------------------------------------------------


def test_resend_repeats_business_and_fills_gaps_over_session_messages(gateway, alice):
    first = only(alice.quote(entry(50_000, 50_001), quote_id=11), "MassQuoteResponse")       # 2
    alice.send("TestRequest", {"correlationId": 1})                                          # 3
    alice.send("TestRequest", {"correlationId": 2})                                          # 4
    second = only(alice.quote(entry(50_000, 50_002), quote_id=12), "MassQuoteResponse")      # 5
    alice.now_ns = 7
    got = alice.send("ResendRequest", {"fromSequenceNumber": 1, "toSequenceNumber": 0})
    assert [(m["type"], m["seq"], m["resend"]) for m in got] == [
        ("GapFill", 1, True), ("MassQuoteResponse", 2, True), ("GapFill", 3, True), ("MassQuoteResponse", 5, True)]
    assert [m["newSequenceNumber"] for m in got if m["type"] == "GapFill"] == [2, 5]
    changing = ("resend", "last", "sent_ns")
    assert [{k: v for k, v in m.items() if k not in changing} for m in (got[1], got[3])] == \
        [{k: v for k, v in m.items() if k not in changing} for m in (first, second)]
    assert only(alice.send("TestRequest", {"correlationId": 3}), "Heartbeat")["seq"] == 6, \
        "what is repeated takes no new sequence number"


def test_what_happened_while_away_is_recovered(gateway, alice):
    gateway.market(0, BTC, None, None)
    alice.quote(entry(50_000, 50_010))
    alice.session.disconnected(1)
    gateway.market(2, BTC, None, (49_990 * 10 ** 9, 5))
    again = Client(gateway, now_ns=3)
    again.sequence = 3
    assert only(again.logon(resetSeqNum=0), "LogonConf")["seq"] == 4
    got = again.send("ResendRequest", {"fromSequenceNumber": 3, "toSequenceNumber": 3})
    assert only(got, "OrderFilled")["fills"][0]["clientOrderId"] == 1


def test_resend_of_what_is_no_longer_kept_is_a_gap_fill():
    gateway = Gateway(make_config(resend_store=1))
    client = Client(gateway)
    client.logon()
    for quote_id in (1, 2, 3):
        client.quote(entry(50_000, 50_000 + quote_id), quote_id=quote_id)
    got = client.send("ResendRequest", {"fromSequenceNumber": 2, "toSequenceNumber": 0})
    assert [(m["type"], m["seq"]) for m in got] == [("GapFill", 2), ("MassQuoteResponse", 4)]


# -- end --------------------------------------------------------------------------------------------------------


def test_logout_is_answered_and_cancels_what_is_tagged(gateway, alice):
    alice.quote(entry(50_000, 50_001, bid_flags=COD, ask_flags=0))
    end = only(alice.send("Logout", {"reason": "good night"}), "LoggedOut")
    assert end["reason"] == "good night"
    assert alice.session.closing
    assert [o.side for o in gateway.engine.open_orders()] == [-1], "the untagged side keeps resting"
    assert not gateway.refusals


def test_session_wide_cancel_on_disconnect_covers_every_side(gateway):
    client = Client(gateway)
    client.logon(cancelOnDisconnect=1)
    client.quote(entry(50_000, 50_001))
    client.order(4, 1, 49_000 * 10 ** 9, 10)
    assert len(gateway.engine.open_orders()) == 3
    client.session.disconnected(5)
    assert not gateway.engine.open_orders()
    assert gateway.engine.ledger.last_open_ns() == 5


def test_disconnect_is_idempotent(gateway, alice):
    alice.session.disconnected(5)
    alice.session.disconnected(6)
    assert gateway.sessions == []
    assert alice.raw(b"more") == []

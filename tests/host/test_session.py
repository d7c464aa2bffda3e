"""The order-entry session against the simulated gateway, and against a scripted one where that is too well behaved."""

import random

import pytest

from hdl.layout import sbe
from host.session import HEADER, PROTOCOL_ID, SCHEMA, SECOND, Session, SessionError, State
from sim.venue import config as venue
from sim.venue.session import Gateway

T0 = 1_700_000_000 * SECOND
GROUP, INSTRUMENT = 7, 1001


class Pair:
    """A session and a gateway, joined byte by byte, with a clock of their own."""

    def __init__(self, gateway=None, **options):
        self.gateway = gateway or Gateway(venue.demonstration())
        self.session = Session("tick2quote", options.pop("secret", "let-me-quote"), **options)
        self.now = T0
        self.link = self.gateway.connect(self.now)
        self.got = []
        self.chunk = 1 << 30
        self.drop = None  # predicate of a gateway message (raw) that shall be lost

    def exchange(self):
        for _ in range(20):
            out = b"".join(self.session.take_output())
            for i in range(0, len(out), self.chunk):
                self.link.receive(out[i:i + self.chunk], self.now)
            back = self.link.take_output()
            for i in range(0, len(back), self.chunk):
                self.got += self.session.receive(back[i:i + self.chunk], self.now)
            if not out and not back:
                return
        raise AssertionError("the two talk without end")

    def logon(self):
        self.session.start(self.now)
        self.exchange()
        return self

    def wait(self, seconds):
        self.now += int(seconds * SECOND)
        self.gateway.poll(self.now)
        self.session.poll(self.now)
        self.exchange()

    def quote(self, quote_id, bid, ask, lots=1):
        self.session.send("MassQuoteRequest", {"quoteId": quote_id, "correlationId": quote_id, "mmpGroupId": GROUP,
                                               "selfMatchPreventionId": 0, "flags": 0}, self.now, {"quotes": [{
                                                   "instrumentId": INSTRUMENT, "bidPrice": bid, "askPrice": ask,
                                                   "bidQty.mantissa": 10 * lots, "bidQty.exponent": 0,
                                                   "askQty.mantissa": 10 * lots, "askQty.exponent": 0,
                                                   "bidFlags": 0, "askFlags": 0}]})


@pytest.mark.parametrize("chunk", [1, 7, 32, 33, 1 << 30])
def test_logon_quote_logout(chunk):
    pair = Pair()
    pair.chunk = chunk
    pair.logon()
    assert pair.session.state is State.UP
    assert pair.session.heartbeat_ns == 5 * SECOND
    pair.quote(1, 100 * 10 ** 9, 101 * 10 ** 9)
    pair.exchange()
    assert [m.name for m in pair.got] == ["MassQuoteResponse"]
    assert pair.got[0].values["quoteId"] == 1
    assert not pair.gateway.engine.ledger.refusals
    pair.session.logout(pair.now, "enough")
    pair.exchange()
    assert pair.session.state is State.ENDED
    assert not pair.session.failed
    assert pair.link.closing


def test_wrong_secret_is_told():
    pair = Pair(secret="guess").logon()
    assert pair.session.state is State.ENDED
    assert pair.session.failed
    assert "clientId 'tick2quote' or its secret is wrong" in pair.session.end_reason


def test_both_stay_alive_for_an_hour_and_nothing_is_odd():
    pair = Pair().logon()
    for _ in range(3600):
        pair.wait(1)
    assert pair.session.state is State.UP
    assert pair.session.sent["Heartbeat"] >= 700
    assert "TestRequest" not in pair.session.sent
    assert "TestRequest" not in pair.gateway.sent


def test_a_test_request_is_answered():
    pair = Pair().logon()
    pair.session.poll(pair.now + 3 * SECOND)  # nothing due yet
    pair.link._send("TestRequest", {"correlationId": 77}, pair.now)
    pair.exchange()
    assert pair.session.sent["Heartbeat"] == 1


def test_a_silent_gateway_is_asked_and_then_given_up():
    pair = Pair(silence_intervals=2).logon()
    at = pair.now
    while pair.session.state is State.UP:
        at = pair.session.next_deadline_ns()
        assert at <= pair.now + 60 * SECOND
        pair.session.poll(at)
        pair.session.take_output()
    assert at == pair.now + 15 * SECOND  # two intervals of silence, one after the question
    assert pair.session.sent["TestRequest"] == 1
    assert pair.session.failed
    assert "silent for 15 s" in pair.session.end_reason


def test_no_answer_to_the_logon():
    session = Session("a", "b", logon_timeout_ns=3 * SECOND)
    session.start(T0)
    session.poll(T0 + 3 * SECOND - 1)
    assert session.state is State.LOGGING_ON
    assert session.next_deadline_ns() == T0 + 3 * SECOND
    session.poll(T0 + 3 * SECOND)
    assert session.failed
    assert "no answer to the Logon within 3 s" in session.end_reason


def test_messages_missed_while_away_are_fetched_in_order():
    """Sequence numbers are kept over a reconnect: the gateway repeats what was not seen."""
    pair = Pair(reset_sequence=True).logon()
    pair.quote(1, 100 * 10 ** 9, 101 * 10 ** 9)
    pair.exchange()
    other = Pair(gateway=pair.gateway)
    seen = pair.session.next_in
    pair.gateway.engine.trade(pair.now, INSTRUMENT, 100 * 10 ** 9, 1, -1)  # fills that are never delivered
    pair.gateway.engine.trade(pair.now, INSTRUMENT, 101 * 10 ** 9, 1, 1)
    pair.gateway.flush(pair.now)
    pair.link.disconnected(pair.now)
    again = Pair(gateway=other.gateway, reset_sequence=False, next_out=pair.session.next_out, next_in=seen)
    again.logon()
    assert again.session.state is State.UP
    assert [m.name for m in again.got if m.name == "OrderFilled"] == ["OrderFilled", "OrderFilled"]
    assert all(m.resent for m in again.got)
    sequences = [m.sequence for m in again.got]
    assert sequences == sorted(set(sequences))
    again.quote(2, 99 * 10 ** 9, 102 * 10 ** 9)
    again.exchange()
    assert again.got[-1].name == "MassQuoteResponse"
    assert not again.got[-1].resent


def gateway_message(name, sequence, values=None, groups=None, flags=0):
    body = SCHEMA[name].encode(values or {}, groups)
    return HEADER.pack(protocolId=PROTOCOL_ID, flags=flags, messageLength=HEADER.size + len(body),
                       messageTypeId=SCHEMA[name].id, version=16, sequenceNumber=sequence, lastProcessedSeqNo=0,
                       sendTimeNs=0) + body


def unfrozen(sequence, mark, flags=0):
    return gateway_message("MassQuoteMmpUnfrozen", sequence, {"timestamp": 0, "execId": mark, "mmpGroupId": 7,
                                                              "correlationId": None}, flags=flags)


def up(**options):
    session = Session("a", "b", **options)
    session.start(T0)
    session.take_output()
    session.receive(gateway_message("LogonConf", 1, {"heartbeatIntervalSeconds": 5, "schemaVersion": 16}), T0)
    assert session.state is State.UP
    return session


def requests(session):
    out = []
    for raw in session.take_output():
        header = HEADER.unpack(raw)
        message = SCHEMA.by_id[header["messageTypeId"]]
        out.append((message.name, message.decode(raw[HEADER.size:])))
    return out


def test_a_gap_is_asked_for_once_and_order_is_kept():
    session = up()
    assert session.receive(unfrozen(2, 2), T0)[0].values["execId"] == 2
    assert session.receive(unfrozen(5, 5) + unfrozen(6, 6), T0) == []
    assert requests(session) == [("ResendRequest", {"fromSequenceNumber": 3, "toSequenceNumber": 4})]
    got = session.receive(unfrozen(3, 3, flags=1), T0)
    got += session.receive(gateway_message("GapFill", 4, {"newSequenceNumber": 5}, flags=1), T0)
    assert [(m.values["execId"], m.resent) for m in got] == [(3, True), (5, False), (6, False)]
    assert session.next_in == 7
    assert session.last_processed == 6
    assert requests(session) == []
    assert session.receive(unfrozen(9, 9), T0) == []  # a second gap is asked for, too
    assert requests(session) == [("ResendRequest", {"fromSequenceNumber": 7, "toSequenceNumber": 8})]


def test_random_loss_and_repetition_deliver_each_message_once_in_order():
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(200):
        session, got, last = up(), [], 40
        for sequence in range(2, last + 1):
            if rng.random() < 0.7 or sequence == last:
                got += session.receive(unfrozen(sequence, sequence), T0)
            while True:
                asked = [v for name, v in requests(session) if name == "ResendRequest"]
                if not asked:
                    break
                for v in asked:
                    for s in range(v["fromSequenceNumber"], v["toSequenceNumber"] + 1):
                        got += session.receive(unfrozen(s, s, flags=1), T0)
                        if rng.random() < 0.3:  # and once more, which must not count
                            got += session.receive(unfrozen(s, s, flags=1), T0)
        assert [m.values["execId"] for m in got] == list(range(2, last + 1))


def test_a_number_that_went_by_ends_the_session():
    session = up()
    session.receive(unfrozen(2, 2), T0)
    assert session.receive(unfrozen(2, 2), T0) == []
    assert session.failed
    assert "sequenceNumber 2, already past; 3 was expected" in session.end_reason


def test_what_came_before_the_end_is_not_lost():
    session = up()
    got = session.receive(unfrozen(2, 2) + gateway_message("LoggedOut", 3, {"reason": "maintenance"}), T0)
    assert [m.values["execId"] for m in got] == [2]
    assert session.failed
    assert session.end_reason == "the gateway ended the session: maintenance"


def test_logged_out_counts_even_behind_a_gap():
    session = up()
    session.receive(gateway_message("LoggedOut", 9, {"reason": "x"}), T0)
    assert session.state is State.ENDED


@pytest.mark.parametrize(("raw", "text"), [
    (b"\x00" * 32, "protocolId 0x00 in the stream, must be 0xdb"),
    (HEADER.pack(protocolId=PROTOCOL_ID, messageLength=31, flags=0, messageTypeId=10, version=1, sequenceNumber=2,
                 lastProcessedSeqNo=0, sendTimeNs=0), "messageLength 31, must be 32..65535"),
    (gateway_message("GapFill", 2, {"newSequenceNumber": 2}), "GapFill 2 goes to 2"),
    (HEADER.pack(protocolId=PROTOCOL_ID, messageLength=40, flags=0, messageTypeId=230, version=1, sequenceNumber=2,
                 lastProcessedSeqNo=0, sendTimeNs=0) + bytes(8), ""),
])
def test_what_cannot_be_read_ends_the_session(raw, text):
    session = up()
    if text:
        assert session.receive(raw, T0) == []
        assert session.failed
        assert text in session.end_reason
    else:  # a block shorter than ours is an older version's: fields that are not there are None
        assert session.receive(raw, T0)[0].values["execId"] is None


def test_unknown_messages_count_but_say_nothing():
    session = up()
    raw = bytearray(unfrozen(2, 2))
    f = HEADER["messageTypeId"]
    raw[f.offset:f.end] = f.pack(9998)
    assert session.receive(bytes(raw), T0) == []
    assert session.next_in == 3


def test_random_bytes_never_raise():
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(500):
        session = up()
        good = [unfrozen(n, n) for n in range(2, 8)]
        stream = bytearray(b"".join(good))
        for _ in range(rng.randrange(1, 6)):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        session.receive(bytes(stream), T0)
        session.poll(T0 + SECOND)


def test_the_fabric_numbers_after_the_hand_over():
    pair = Pair().logon()
    assert pair.session.hand_over() == 2
    pair.session.poll(pair.now + 5 * SECOND)
    (beat,) = pair.session.take_output()
    header = HEADER.unpack(beat)
    assert (header["sequenceNumber"], header["lastProcessedSeqNo"], header["sendTimeNs"]) == (0, 0, 0)
    pair.session.take_back(9)
    pair.session.send("Heartbeat", {"correlationId": 0}, pair.now)
    assert HEADER.unpack(pair.session.take_output()[0])["sequenceNumber"] == 9


def test_a_quote_of_the_fabric_counts_as_being_heard():
    session = up()
    session.hand_over()
    session.spoke(T0 + 4 * SECOND)
    session.poll(T0 + 6 * SECOND)
    assert session.take_output() == []
    session.poll(T0 + 9 * SECOND)
    assert len(session.take_output()) == 1


def test_misuse_is_refused():
    session = Session("a", "b")
    with pytest.raises(SessionError, match="cannot hand over a session that is closed"):
        session.hand_over()
    session.start(T0)
    with pytest.raises(SessionError, match="logging on cannot log on"):
        session.start(T0)
    assert sbe.load("starbase_orders") is SCHEMA

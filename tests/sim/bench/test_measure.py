"""Where the bytes are, and that the bench sees what is wrong."""

from collections import Counter
from dataclasses import replace

import pytest

from hdl.layout import net, sbe
from sim.bench import cases, traffic
from sim.bench.audit import audit
from sim.bench.measure import FIRST_PRICE_BYTE, FeedLog, Histogram, endings, quotes
from sim.bench.session import Session
from sim.board.board import Faults
from sim.golden import feed
from sim.market.generator import LINE_A, generate, udp_frame
from sim.market.schedule import wire_bytes

_ORDERS = sbe.load("starbase_orders")
_QUOTE, _HEADER = _ORDERS["MassQuoteRequest"], _ORDERS.composites["MessageHeader"]
_BODY = net.ETHERNET.size + net.IPV4.size + net.TCP.size
_PAYLOAD = net.ETHERNET.size + net.IPV4.size + net.UDP.size


@pytest.mark.parametrize("version", [8, 9])
def test_endings_are_those_of_the_golden_model(version):
    """Two walks over the same packets, written apart."""
    seen = Counter()
    for _, frame in generate(7, 400, version=version, mixed=0.1, split=0.3, delete_thru=0.02, book_reset=0.02,
                             channel_reset=0.02):
        length = net.UDP.unpack(frame, _PAYLOAD - net.UDP.size)["length"] - net.UDP.size
        said, malformed = feed.walk(frame[_PAYLOAD:_PAYLOAD + length], length)
        assert not malformed
        want = [(_PAYLOAD + h.at, bool(h.a)) for h in said if h.kind == "publish"]
        assert [(e.offset, e.trigger) for e in endings(frame)] == want
        seen.update(trigger for _, trigger in want)
    assert seen[True] > 100
    assert seen[False]


def test_frames_without_an_ending():
    market = traffic.Market()
    packet = market.packet(market.book(market.side(0, traffic.BID), traffic.OPEN))
    frame = udp_frame(LINE_A, packet.payload)
    assert endings(frame) == []
    whole = udp_frame(LINE_A, market.packet(market.book([market.deep(0)])).payload)
    assert len(endings(whole)) == 1
    for size in range(len(whole) - 20):     # a cut frame ends before its event does, and is never an error
        endings(whole[:size])
    assert endings(bytes(64)) == []


def test_an_ending_behind_a_tag():
    market = traffic.Market()
    frame = udp_frame(LINE_A, market.packet(market.book([market.deep(0)])).payload)
    tagged = frame[:12] + net.ETHERTYPE_VLAN.to_bytes(2, "big") + b"\0\7" + frame[12:]
    assert endings(tagged)[0].offset == endings(frame)[0].offset + 4


def test_first_price_byte(trade):
    """Of the frames that the core has sent: the bid's price begins there, and no price before it."""
    row, priced = trade.golden.rows[0], 0
    for d, frame, _ in quotes(FeedLog(trade.session.lock.received(0)), trade.sent, trade.golden.decisions)[0]:
        bid = int.from_bytes(frame.data[FIRST_PRICE_BYTE:FIRST_PRICE_BYTE + 8], "little", signed=True)
        assert bid == d.bidTicks * row.tick_e9
        priced += bid != 0
    assert priced == 4
    assert _QUOTE.groups["quotes"]["bidPrice"].offset < _QUOTE.groups["quotes"]["askPrice"].offset


def test_histogram():
    h = Histogram({2: 98, 3: 1, 90: 1})
    assert h.summary() == {"min": 2, "max": 90, "count": 100}
    assert [h.percentile(p) for p in (0.5, 0.98, 0.99, 1.0)] == [2, 2, 3, 90]
    assert Histogram().summary() == {"min": None, "max": None, "count": 0}


class Trade:
    """A few events, an acknowledgement, a host's frame and message, a mass cancel: every kind of frame once."""

    def __init__(self, board):
        market = traffic.Market(seed=2, instruments=4)
        self.session = session = Session.for_market(board, market.instruments, 8)
        (frames, cycles, self.of), end = traffic.arrange(market.warm_up(), session.cycle + 100, gap=(400, 400),
                                                         rng=market.rng)
        session.feed(frames, cycles)
        session.run_until(end + 500)
        session.heartbeat()
        session.run_until(session.cycle + 500)
        session.send_frame(net.ETHERNET.pack(dst=1, src=2, ethertype=net.ETHERTYPE_ARP) + b"who has")
        session.run_until(session.cycle + 1_000)
        session.write("disarm", 1)
        self.mismatches = session.finish()
        self.golden, self.sent = session.golden, session.sent

    def audit(self, sent=None, decisions=None, host_frames=None):
        return audit(self.sent if sent is None else sent, self.golden.decisions if decisions is None else decisions,
                     self.golden.rows, self.session.host_frames if host_frames is None else host_frames)


@pytest.fixture(scope="module")
def trade(board):
    return Trade(board)


def test_every_frame_is_accounted_for(trade):
    """Frames on the wire against decisions: each whole, valid, and decided once."""
    assert trade.mismatches == []
    kinds, wrong = trade.audit()
    assert wrong == []
    assert kinds == {"quote": 4, "acknowledgement": 1, "host frame": 1, "mass cancel": 1}
    assert sum(kinds.values()) == len(trade.sent) == len(trade.golden.tx)
    assert trade.session.counters()["order_tx_frames"] == len(trade.sent)
    assert len(trade.session.told) == len(trade.golden.decisions)


def _with(frame, data):
    return replace(frame, data=wire_bytes(bytes(data)))


def test_the_audit_sees_a_frame_that_was_not_decided(trade):
    decisions = [d for d in trade.golden.decisions if d.quoteId != max(d.quoteId for d in trade.golden.decisions)]
    assert trade.audit(decisions=decisions)[1]
    _, wrong = trade.audit(sent=[*trade.sent, trade.sent[0]])
    assert any("was not decided, or has left before" in text for text in wrong)


def test_the_audit_sees_a_frame_that_is_missing(trade):
    unseen = [n for n in range(len(trade.sent)) if not trade.audit(sent=trade.sent[:n] + trade.sent[n + 1:])[1]]
    acknowledgement, = unseen       # which was not decided on, and takes no sequence number
    kinds, _ = trade.audit(sent=[trade.sent[acknowledgement]], decisions=[], host_frames=[])
    assert kinds == {"acknowledgement": 1}


@pytest.mark.parametrize("at", [net.ETHERNET.size + 8, _BODY + 3, _BODY + _HEADER.size + 2, FIRST_PRICE_BYTE,
                                FIRST_PRICE_BYTE + 17])
def test_the_audit_sees_every_spoilt_byte(trade, at):
    """With a right FCS: it is the checksums and the content that are looked at."""
    n = next(n for n, f in enumerate(trade.sent) if len(f.data) > 150)
    spoilt = bytearray(trade.sent[n].frame)
    spoilt[at] ^= 1
    sent = [*trade.sent[:n], _with(trade.sent[n], spoilt), *trade.sent[n + 1:]]
    assert trade.audit(sent=sent)[1]


def test_the_audit_sees_a_wrong_price_with_right_checksums(trade):
    n = next(n for n, d in enumerate(trade.golden.decisions) if d.outcome == 1)
    decisions = list(trade.golden.decisions)
    decisions[n] = replace(decisions[n], bidTicks=decisions[n].bidTicks + 1)
    _, wrong = trade.audit(decisions=decisions)
    assert len(wrong) == 1
    assert "bidPrice" in wrong[0]


def test_the_audit_sees_faults_on_the_wire(trade):
    for fault in (Faults.FCS, Faults.PREAMBLE, Faults.IFG, Faults.TX_ER):
        assert trade.audit(sent=[replace(trade.sent[0], faults=fault), *trade.sent[1:]])[1]


def test_the_audit_sees_frames_of_the_host_that_are_not_his(trade):
    assert trade.audit(host_frames=[])[1]
    assert trade.audit(host_frames=[*trade.session.host_frames, bytes(60)])[1]


def test_a_trigger_that_was_not_on_the_pins_is_noticed(trade):
    log = FeedLog(trade.session.lock.received(0))
    found, wrong = quotes(log, trade.sent, trade.golden.decisions)
    assert len(found) == 4
    assert wrong == []
    late = [replace(d, triggerCycle=d.triggerCycle + 1) if d.triggerCycle else d for d in trade.golden.decisions]
    assert len(quotes(log, trade.sent, late)[1]) == 4
    assert len(quotes(log, trade.sent[1:], trade.golden.decisions)[1]) == 1


def test_a_late_quote_fails_the_case(trade):
    """The figures come from the pins: what leaves later than it should is seen, whatever the card says of itself."""
    case = cases.Case("c", "late")
    row = cases.Row("new")
    case.rows.append(row)
    log = FeedLog(trade.session.lock.received(0))
    for _, frame, byte in quotes(log, trade.sent, trade.golden.decisions)[0]:
        row.figures.add(log, byte, replace(frame, start=frame.start + 1))
    case.two_cycles()
    assert not case.holds
    assert "3 to 3 cycles, 4 quotes" in case.checks[0][2]


def test_a_stale_quote_fails_the_case(trade):
    case = cases.Case("d", "stale")
    packets = [None if p is None else replace(p, published=[
        {i: (tops[0], tops[1] + 1 if tops[1] else None) for i, tops in event.items()} for event in p.published])
        for p in trade.of]
    played = cases.Played(case, trade.session.lock, [], trade.session.histogram(), len(trade.session.told), 0,
                          trade.session.host_frames, packets)
    assert len(played.quotes) == 4
    assert any("the newest were" in text for text in case.wrong)
    case = cases.Case("d", "not stale")
    cases.Played(case, trade.session.lock, [], {}, 0, 1, trade.session.host_frames, trade.of)
    assert len(case.wrong) == 3     # histogram, telemetry and the second verdict, which are not those of the card

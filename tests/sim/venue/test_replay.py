"""The exchange in a replay: the market read from the feed, the wire to the virtual board, the configuration file."""

import os
import random
from pathlib import Path

import pytest

from hdl.layout import net, sbe
from host import config as host_config
from sim.board.board import Faults, TxFrame
from sim.board.captures import read_capture
from sim.golden import feed
from sim.market.generator import LINE_A, LINE_B, generate, udp_frame
from sim.market.schedule import schedule, wire_bytes
from sim.venue import listing
from sim.venue.feed import FeedEvent, feed_events
from sim.venue.market import MarketMirror
from sim.venue.session import Gateway
from sim.venue.tcp_peer import PeerConfig, TcpPeer
from sim.venue.wire import ExchangeWire

from .client import make_config
from .test_tcp_peer import Board

MDP3 = sbe.load("cme_mdp3")
ROOT = Path(__file__).parents[3]
CAPTURES = Path(os.environ.get("T2Q_CAPTURES", ROOT.parent / "shared" / "captures"))
V8 = CAPTURES / "cme_mdp3" / "Cme.Mdp3.Sbe.v8.1.Example.pcap"
LINES = ((LINE_A.group, LINE_A.port), (LINE_B.group, LINE_B.port))
TICK = 5_000_000
END = 0x84  #: last quote and end of event


def message(name, values, entries, group="NoMDEntries"):
    layout = MDP3[name]
    body = layout.encode(values, {group: entries})
    header = MDP3.composites["messageHeader"].pack(blockLength=layout.block_length, templateId=layout.id, schemaId=1,
                                                   version=8)
    return MDP3.composites["MessageFraming"].pack(MsgSize=2 + len(header) + len(body)) + header + body


def entry(side, level, price, size=5, action=0, security=43):
    return {"MDEntryPx": price * TICK, "MDEntrySize": size, "SecurityID": security, "MDPriceLevel": level,
            "MDUpdateAction": action, "MDEntryType": ord("01"[side])}


def book(*entries, end=END):
    return message("MDIncrementalRefreshBook32", {"MatchEventIndicator": end}, entries)


def trade(price, size, aggressor, security=43):
    return message("MDIncrementalRefreshTradeSummary42", {"MatchEventIndicator": 1}, [
        {"MDEntryPx": price * TICK, "MDEntrySize": size, "SecurityID": security, "AggressorSide": aggressor}])


def frames(*packets):
    """[(sequence, messages...)] as wire frames of line A, 1000 cycles apart."""
    out = []
    for number, (seq, *messages) in enumerate(packets):
        payload = MDP3.composites["PacketHeader"].pack(MsgSeqNum=seq) + b"".join(messages)
        out.append((number * 8_000, udp_frame(LINE_A, payload)))
    return schedule(out)


def events(*packets):
    return list(feed_events(frames(*packets), LINES, {43: TICK}))


def test_best_prices_at_the_end_of_each_event():
    got = events(
        (1, book(entry(0, 1, 100), end=0), book(entry(1, 1, 103))),
        (2, book(entry(0, 1, 101))),
        (2, book(entry(0, 1, 50))),                            # the other copy
        (3, book(entry(0, 5, 90))),                            # depth: not the best
        (4, book(entry(1, 1, 102, security=44))),              # not asked for
        (5, book(entry(0, 1, 101, action=2), entry(0, 1, 99))))
    assert [(e.bid, e.ask) for e in got] == [((100, 5), (103, 5)), ((101, 5), (103, 5)), ((99, 5), (103, 5))]
    assert [e.cycle for e in got] == [0, 1000, 5000]


def test_a_gap_withdraws_the_market_until_it_is_told_again():
    got = events((1, book(entry(0, 1, 100), entry(1, 1, 101))), (5, book(entry(0, 1, 99))))
    assert [(e.bid, e.ask) for e in got] == [((100, 5), (101, 5)), (None, None), ((99, 5), None)]


def test_trades_come_before_the_books_they_changed():
    got = events((1, book(entry(0, 1, 100), entry(1, 1, 101))),
                 (2, trade(101, 3, 1), trade(100, 2, 2), trade(7, 7, 0), trade(100, 1, 1, 44),
                  book(entry(1, 1, 101, 2))))
    assert [e.trade for e in got] == [None, (101, 3, 1), (100, 2, -1), None]
    assert got[-1].ask == (101, 2)


def test_prices_off_the_tick_and_bad_frames_are_nothing():
    half = entry(0, 1, 100)
    half["MDEntryPx"] += 1
    assert [(e.bid, e.ask) for e in events((1, book(half, entry(1, 1, 101))))] == [(None, (101, 5))]
    [good] = frames((1, book(entry(0, 1, 100))))
    broken = good._replace(data=good.data[:-1] + bytes([good.data[-1] ^ 1]))
    assert list(feed_events([broken], LINES, {43: TICK})) == []
    assert len(list(feed_events([good], LINES, {43: TICK}))) == 1


def test_random_packets_never_hurt():
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    good = MDP3.composites["PacketHeader"].pack(MsgSeqNum=1) + trade(101, 3, 1) + book(entry(0, 1, 100))
    for seq in range(500):
        payload = bytearray(good)
        for _ in range(r.randrange(1, 6)):
            payload[r.randrange(4, len(payload))] = r.randrange(256)
        del payload[r.randrange(4, len(payload) + 1):]
        payload[:4] = seq.to_bytes(4, "little")
        list(feed_events(schedule([(0, udp_frame(LINE_A, bytes(payload)))]), LINES, {43: TICK}))


def test_generated_market_is_followed_without_ever_crossing():
    packets = list(generate(seed=3, packets=300))
    got = list(feed_events(schedule(packets), LINES, dict.fromkeys(_securities(packets), 1)))
    assert len(got) > 50
    for event in got:
        assert event.bid is None or event.ask is None or event.bid[0] < event.ask[0]


def _securities(packets):
    """SecurityIDs of every book entry of some frames."""
    found = set()
    for _, data in packets:
        match = feed.match(wire_bytes(data), LINES, 0)
        if match.verdict == "line":
            found |= {h.a for h in feed.walk(data[match.payload:match.payload + match.length], match.length)[0]
                      if h.kind == "claim"}
    return found


@pytest.fixture
def first_light():
    return host_config.load(ROOT / "config" / "first_light.toml")


def test_exchange_lists_what_the_configuration_quotes(first_light):
    venue = listing.venue_config(first_light, "s", heartbeat_s=2, group={"quantity_limit": 9})
    assert len(venue.instruments) == len(first_light.instruments)
    assert venue.heartbeat_s == 2
    assert venue.groups[0].quantity_limit == 9
    assert venue.groups[0].group_id == first_light.session.mmp_group
    one, spec = first_light.instruments[0], venue.instruments[0]
    assert spec.tick_e9 == one.tick * 10 ** 9
    assert spec.lot_mult * 10.0 ** spec.lot_exp == pytest.approx(float(one.lot))
    assert listing.peer_config(first_light, 5).port == first_light.session.peer_port
    gateway = Gateway(venue)
    mirror = MarketMirror(gateway, listing.feed_mappings(first_light))
    ticks = round(one.reference_price / one.feed_tick)
    FeedEvent(0, one.security_id, (ticks, 3), (ticks + 1, 3)).apply(mirror, 0)
    price = float(gateway.engine.books[one.instrument_id].best(1)) / 1e9
    assert price == pytest.approx(float(ticks * one.feed_tick), abs=float(one.tick))


@pytest.mark.skipif(not V8.is_file(), reason=f"{V8} is not there; set T2Q_CAPTURES to the folder of captures")
def test_real_capture_drives_the_exchange(first_light):
    capture = read_capture(V8)
    got = list(feed_events(schedule(list(capture)), (first_light.feed.line_a, first_light.feed.line_b),
                           listing.feed_ticks(first_light)))
    assert sum(e.trade is not None for e in got) > 20
    assert {e.security_id for e in got} == {i.security_id for i in first_light.instruments}
    both = [e for e in got if e.bid and e.ask]
    assert len(both) > 500
    crossed = sum(e.bid[0] >= e.ask[0] for e in both)
    assert crossed < len(both) / 5, "only before their openings do instruments show crossed prices"
    gateway = Gateway(listing.venue_config(first_light, "s"))
    mirror = MarketMirror(gateway, listing.feed_mappings(first_light))
    for event in got:
        event.apply(mirror, event.cycle * 8)
        for market in gateway.engine.books.values():
            assert market.best(1) is None or market.best(-1) is None or market.best(1) < market.best(-1)


# -- the wire ---------------------------------------------------------------------------------------------------


def tx(cycle, frame):
    return TxFrame(cycle, wire_bytes(frame), Faults(0), 100)


@pytest.mark.parametrize("burst", [1, 7, 500, 1250])
def test_bursts_change_nothing(burst):
    """A conversation over the wire gives the same cycles whatever the burst, up to a round trip."""
    client = Board()          # builds frames only; its own peer is not used
    peer = TcpPeer(PeerConfig(), Gateway(make_config()))
    wire = ExchangeWire(peer)
    assert wire.max_burst == 1250
    to_send = [(100, client.frame("S", ack=0))]
    arrived, now = [], 0
    while now < 8_000:
        end = min(8_000, now + burst)
        for injection in wire.frames_until(end):
            assert now <= injection.start < end
            arrived.append((injection.start, injection.frame))
            if len(arrived) == 1:
                client.seq, client.ack = client.seq + 1, net.TCP.unpack(injection.frame, 34)["seq"] + 1
                logon = client.message("Logon", {"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1,
                                                 "schemaVersion": 16})
                to_send += [(3_000, client.frame("A")), (3_100, client.frame("PA", logon))]
        for start, frame in [f for f in to_send if now <= f[0] + 8 + 64 < end]:
            wire.frame_sent(tx(start, frame))
            to_send.remove((start, frame))
        now = end
    assert peer.violations == []
    sizes = [8 + 64, 8 + 14 + 20 + 20 + 100 + 4]
    assert [start for start, _ in arrived] == [100 + sizes[0] + 1250, 3_100 + sizes[1] + 1250]
    assert wire.received == 3


def test_faulty_frames_and_long_bursts_are_named():
    peer = TcpPeer(PeerConfig(), Gateway(make_config()))
    wire = ExchangeWire(peer)
    wire.frame_sent(TxFrame(0, bytes(64), Faults.FCS, 100))
    assert [v.kind for v in peer.violations] == ["faulty frame"]
    wire.frames_until(5_000)
    with pytest.raises(ValueError, match="lies in the past"):
        wire.frame_sent(tx(100, bytes(60)))
    with pytest.raises(ValueError, match="delay_ns is 0, must be at least one cycle"):
        ExchangeWire(TcpPeer(PeerConfig(delay_ns=0), Gateway(make_config())))

"""The virtual board as a device of its own: its looping feed, and its link without a host."""

from collections import Counter
from pathlib import Path

import pytest

from hdl.layout import net, sbe
from host import config as configuration
from host import link
from host.serial_device import SerialDevice
from sim.board.board import VirtualBoard
from sim.golden import feed
from sim.live import UNREAD, LiveBoard, LoopingFeed
from sim.market.generator import LINE_A, LINE_B, generate
from sim.market.schedule import wire_bytes
from sim.venue import listing

FIRST_LIGHT = Path(__file__).parents[2] / "config" / "first_light.toml"
LINES = ((LINE_A.group, LINE_A.port), (LINE_B.group, LINE_B.port))
PACKET = sbe.load("cme_mdp3").composites["PacketHeader"]
FOREIGN = net.ETHERNET.pack(dst=net.MAC_BROADCAST, src=1, ethertype=net.ETHERTYPE_ARP) + bytes(46)


@pytest.fixture(scope="module")
def config():
    return configuration.load(FIRST_LIGHT)


def frames(packets):
    made = generate(3, packets)
    return [*made[:10], (made[9][0] + 1, FOREIGN), *made[10:]]


def play(looping, cycles, burst=1_250):
    """Frames of the port over a time, and the events told, each in its burst."""
    out = []
    for at in range(burst, cycles, burst):
        new = looping.frames_until(at)
        assert all(i.start < at for i in new)
        out += new
    return out


def test_rounds_follow_each_other_with_one_packet_missing(config):
    """Sequence numbers go on; each round begins with a gap of one; every packet is still right by its headers."""
    events = []
    looping = LoopingFeed(frames(40), LINES, listing.feed_ticks(config), events.append)
    sent = play(looping, 300_000)
    assert looping.rounds > 3
    assert looping.sent == len(sent)
    starts = [i.start for i in sent]
    assert starts == sorted(starts)
    arbiter, gaps, copies = feed.Arbiter(), [], Counter()
    for injection in sent:
        if injection.frame == FOREIGN:
            continue
        data = wire_bytes(injection.frame)
        found = feed.match(data, LINES, 0)
        assert found.verdict == "line"
        number = PACKET["MsgSeqNum"].unpack(data, found.payload)
        copies[number] += 1
        accepted, missing = arbiter.offer(number)
        if missing:
            assert accepted
            gaps.append(missing)
    assert gaps == [1] * (looping.rounds - 1)
    assert set(copies.values()) <= {1, 2}
    assert [e.cycle for e in events] == sorted(e.cycle for e in events)


def test_market_is_withdrawn_between_rounds(config):
    """The exchange's market begins each round as empty as the card's books."""
    events = []
    ticks = listing.feed_ticks(config)
    source = frames(60)
    looping = LoopingFeed(source, LINES, ticks, events.append)
    sent = play(looping, 400_000)
    assert looping.rounds > 2
    begins = sent[0].start
    assert all(e.cycle >= begins for e in events)
    by_cycle = Counter(e.cycle for e in events if e[2:] == (None, None, None))
    assert [cycle for cycle, count in by_cycle.items() if count >= len(ticks)] == \
        [i.start for n, i in enumerate(sent) if n and not n % len(source)]


def test_a_first_round_is_the_capture_itself(config):
    source = frames(30)
    looping = LoopingFeed(source, LINES, listing.feed_ticks(config), lambda event: None)
    sent = play(looping, 100_000)
    wanted = [wire_bytes(f)[:-4] for _, f in sorted(source, key=lambda item: item[0])]
    assert [i.frame for i in sent[:len(source)]] == wanted


def test_without_frames(config):
    with pytest.raises(ValueError, match="no frames to play; at least one"):
        LoopingFeed([], LINES, listing.feed_ticks(config), lambda event: None)


def test_frames_of_nobody(config):
    """A feed without a packet of the lines is played too."""
    looping = LoopingFeed([(0, FOREIGN), (50_000, FOREIGN)], LINES, listing.feed_ticks(config), lambda event: None)
    sent = play(looping, 50_000)
    assert looping.rounds > 5
    assert {i.frame for i in sent} == {FOREIGN}


def test_a_host_that_comes_late(config):
    """What the card says while nobody listens is lost; the first host that opens the link finds it in order."""
    live = LiveBoard(config, frames(100), VirtualBoard(), epoch_ns=1_700_000_000_000_000_000)
    try:
        noise = link.encode("Read", bytes(3)) * 25_000      # a host that asks and never reads the answers
        live.link.link_write(noise)
        while not live.status()["link_bytes_lost"]:
            live.step()
        assert live.status()["link_bytes_lost"] > UNREAD / 2
        device = SerialDevice(live.path)
        reply = device.read(0)
        for _ in range(400):
            device.flush()
            live.step()
            device.poll()
            if reply.done:
                break
        assert reply.done
        assert live.status()["state"] == "DISARMED"
        device.close()
    finally:
        live.close()

"""Generated market data: the same for the same seed, in the statistics of the channel, and consistent."""

import itertools
from collections import Counter, defaultdict

import pytest

from hdl.layout import net, sbe
from sim.board.captures import read_capture
from sim.golden.book import BID, Book
from sim.golden.feed import walk
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B, Config, MarketGenerator, generate, generate_pcap

MDP3 = sbe.load("cme_mdp3")
PREFIX = MDP3.composites["MessageFraming"].size + MDP3.composites["messageHeader"].size
SEED = 7


@pytest.fixture(scope="module")
def frames():
    print(f"seed {SEED}")
    return generate(SEED, 5000)


def payload_of(frame):
    return frame[net.ETHERNET.size + net.IPV4.size + net.UDP.size:]


def port_of(frame):
    return net.UDP.unpack(frame, net.ETHERNET.size + net.IPV4.size)["dst_port"]


def seq_of(frame):
    return MDP3.composites["PacketHeader"].unpack(payload_of(frame))["MsgSeqNum"]


def messages(payload):
    """(header mapping, message bytes without prefix) of a packet."""
    at = MDP3.composites["PacketHeader"].size
    while at < len(payload):
        size = MDP3.composites["MessageFraming"].unpack(payload, at)["MsgSize"]
        header = MDP3.composites["messageHeader"].unpack(payload, at + MDP3.composites["MessageFraming"].size)
        yield header, payload[at + PREFIX:at + size]
        at += size
    assert at == len(payload)


def first_copies(frames):
    seen = set()
    for time_ns, frame in frames:
        if seq_of(frame) not in seen:
            seen.add(seq_of(frame))
            yield time_ns, frame


def near(got, want, slack):
    assert want * (1 - slack) <= got <= want * (1 + slack), f"{got}, about {want} expected"


def test_the_same_seed_gives_the_same_bytes():
    assert generate(3, 50) == generate(3, 50)
    assert generate(3, 50) != generate(4, 50)


def test_both_lines_carry_everything_in_order(frames):
    assert len(frames) == 10_000
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(frames))
    lines = defaultdict(list)
    for _, frame in frames:
        lines[port_of(frame)].append(seq_of(frame))
    assert set(lines) == {LINE_A.port, LINE_B.port}
    for numbers in lines.values():
        assert numbers == list(range(17_000_000, 17_005_000))


def test_mix_of_templates(frames):
    """Counts of one real quarter of an hour of 5,000 packets."""
    count, book_entries, per_packet = Counter(), Counter(), Counter()
    for _, frame in first_copies(frames):
        found = list(messages(payload_of(frame)))
        per_packet[len(found)] += 1
        for header, body in found:
            count[header["templateId"]] += 1
            assert (header["schemaId"], header["version"]) == (1, 8)
            if header["templateId"] == 32:
                book_entries[len(MDP3.by_id[32].decode(body, header["blockLength"])["NoMDEntries"])] += 1
    for template, want, slack in ((32, 4898, 0.02), (35, 179, 0.3), (30, 99, 0.4), (42, 60, 0.5), (37, 57, 0.5)):
        near(count[template], want, slack)
    assert set(count) == {32, 35, 30, 42, 37, 12}
    near(per_packet[1], 4741, 0.02)
    near(book_entries[1], 4046, 0.1)
    near(book_entries[2], 785, 0.4)


def test_mix_of_actions_and_levels(frames):
    actions, levels, sides = Counter(), Counter(), Counter()
    for _, frame in first_copies(frames):
        happenings, malformed = walk(payload_of(frame), len(payload_of(frame)))
        assert not malformed
        for happening in happenings:
            if happening.kind == "entry":
                _, size, level, action, kind = happening.b
                assert size > 0
                actions[action] += 1
                levels[level] += 1
                sides[kind] += 1
    total = sum(actions.values())
    near(total, 5848, 0.1)
    for action, want in ((0, 0.39), (1, 0.39), (2, 0.22)):
        near(actions[action] / total, want, 0.15)
    near(levels[1] / total, 0.24, 0.25)
    near(levels[10] / total, 0.135, 0.4)
    assert set(levels) == set(range(1, 11))
    near(sides[BID] / total, 0.5, 0.1)


def test_times(frames):
    """Median and tails of the time between packets, and the skew between the lines."""
    first, other = {}, {}
    for time_ns, frame in frames:
        (other if seq_of(frame) in first else first)[seq_of(frame)] = (time_ns, port_of(frame))
    times = sorted(t for t, _ in first.values())
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    near(gaps[len(gaps) // 5], 11_100, 0.5)
    near(gaps[len(gaps) // 2], 223_000, 0.8)
    near(gaps[len(gaps) * 9 // 10], 81_000_000, 0.5)
    skew = [(other[s][0] - t) * (1 if port == LINE_A.port else -1) for s, (t, port) in first.items()]
    assert min(skew) >= -15_000
    assert max(skew) <= 15_000
    near(sum(s < 0 for s in skew) / len(skew), 0.87, 0.15)      # line B is mostly the first


def test_sizes(frames):
    sizes = sorted(len(f) for _, f in frames)
    assert sizes[0] >= 64
    assert sizes[-1] <= 1514
    near(sizes[len(sizes) // 2], 118, 0.2)


def test_activity_of_instruments(frames):
    count = Counter(h.a for _, f in first_copies(frames) for h in walk(payload_of(f), len(payload_of(f)))[0]
                    if h.kind == "entry")
    total, weights = sum(count.values()), sum(i.weight for i in INSTRUMENTS)
    for instrument in INSTRUMENTS[:10]:
        near(count[instrument.security_id] / total, instrument.weight / weights, 0.25)


@pytest.mark.parametrize("version", [8, 9, 13])
def test_books_never_cross_and_sides_are_in_order(version):
    generator = MarketGenerator(seed=2, packets=1500, version=version, warm_up=True, mixed=0.1, split=0.1,
                                delete_thru=0.02, delete_from=0.02, overlay=0.05, book_reset=0.01)
    books = defaultdict(Book)
    template = 32 if version == 8 else 46
    for _, frame in first_copies(generator.frames()):
        payload = payload_of(frame)
        assert {h["templateId"] for h, _ in messages(payload)} - {12, 30, 35, 37, 42, 48, 51} <= {template}
        changed = set()
        for happening in walk(payload, len(payload))[0]:
            if happening.kind == "entry":
                px, size, level, action, kind = happening.b
                assert books[happening.a].apply(kind, action, level, px, size, True)
                changed.add(happening.a)
            elif happening.kind == "publish":
                for security in changed:
                    bids, offers = ([level[1] for level in side if level[0]] for side in
                                    (books[security].bids, books[security].offers))
                    assert all(a > b for a, b in itertools.pairwise(bids))
                    assert all(a < b for a, b in itertools.pairwise(offers))
                    assert not bids or not offers or bids[0] < offers[0]
                changed = set()
    scale = 1 if version == 8 else 100
    for instrument in INSTRUMENTS:
        want = generator.books[instrument.security_id].best()
        got = books[instrument.security_id]
        for (px, size), level in zip(want, (got.best_bid, got.best_ask), strict=True):
            assert level == (True, px * instrument.tick * scale, size)


def test_faults_are_there_when_asked_for():
    frames = generate(5, 1000, gap=0.05, line_loss=0.1, duplicate=0.1, bad=0.1, channel_reset=0.02, delete_thru=0.05)
    ours = [f for _, f in frames if len(f) > 54 and f[:6] in (net.multicast_mac(LINE_A.group).to_bytes(6, "big"),
                                                              net.multicast_mac(LINE_B.group).to_bytes(6, "big"))]
    assert len(ours) < len(frames)
    numbers = {seq_of(f) for f in ours}
    assert 900 < len(numbers) < 990
    templates = Counter(h.kind for f in ours if f[14] == 0x45 for h in walk(payload_of(f), len(payload_of(f)))[0])
    assert templates["reset"] > 10


def test_pcap(tmp_path):
    generate_pcap(tmp_path / "made.pcap", 3, 20)
    assert list(read_capture(tmp_path / "made.pcap")) == generate(3, 20)


@pytest.mark.parametrize(("options", "says"), [
    ({"version": 7}, "version is 7; schema versions 8 to 13 can be made"),
    ({"gap": 1.5}, "gap is 1.5, must be a probability"),
    ({"instruments": ()}, "instruments is empty"), ({"packets": -1}, "packets is -1, must be 0 or more")])
def test_impossible_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Config(**options)

"""Best bid and offer on real captures: golden feed and book against a book built with somebody else's decoder.

The other side shares nothing with ours: headers are read by scapy, messages by ``sbedecoder`` with the exchange's own
XML, and the book below was written for this test from the exchange's description of its actions.
"""

import math
import os
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from hdl.control import registers as map_
from host.integrity import Image
from sim.board.captures import read_capture
from sim.golden.feed import WireFrame
from sim.golden.model import GoldenModel
from sim.market.schedule import schedule

CAPTURES = Path(os.environ.get("T2Q_CAPTURES") or Path(__file__).resolve().parents[2].parent / "shared" / "captures")
V8 = CAPTURES / "cme_mdp3" / "Cme.Mdp3.Sbe.v8.1.Example.pcap"
V9 = CAPTURES / "cme_mdp3" / "Cme.Mdp3.Sbe.v9.1.Example.pcap"
DEPTH = 10


def schema_file(version):
    return CAPTURES / "schemas" / f"Cme.Futures.Mdp3.Sbe.v1.{version}.xml"


def need(*paths):
    for path in paths:
        if not path.exists():
            pytest.skip(f"no {path}: set T2Q_CAPTURES to the folder of captures")


# ---------------------------------------------------------------------- the other side

class OtherBook:
    """Levels as (price mantissa, size) or None for a level that is not known."""

    def __init__(self):
        self.side = {"0": [None] * DEPTH, "1": [None] * DEPTH}

    def entry(self, kind, action, level, px, size):
        levels = self.side[kind]
        n = level - 1
        if action == "New":
            self.side[kind] = [*levels[:n], (px, size), *levels[n:DEPTH - 1]]
        elif action in ("Change", "Overlay"):
            levels[n] = (px, size)
        elif action == "Delete":
            self.side[kind] = levels[:n] + levels[n + 1:] + [None]
        elif action == "DeleteFrom":
            self.side[kind] = levels[:n] + [None] * (DEPTH - n)
        elif action == "DeleteThru":
            self.side[kind] = [None] * DEPTH
        else:
            raise AssertionError(f"action {action!r}")

    def best(self):
        return self.side["0"][0], self.side["1"][0]


def other_decoder(version):
    sbedecoder = pytest.importorskip("sbedecoder", reason="the independent decoder sbedecoder is not installed")
    schema = sbedecoder.MDPSchema()
    schema.parse(str(schema_file(version)))
    return sbedecoder.SBEParser(sbedecoder.MDPMessageFactory(schema))


def payloads(capture, ports):
    """(UDP port, payload) of the frames that go to ``ports``, in the order of their time stamps."""
    for _, frame in sorted(capture, key=lambda item: item[0]):
        packet = Ether(frame)
        if UDP in packet and packet[UDP].dport in ports:
            yield packet[UDP].dport, bytes(packet[UDP].payload)


@cache
def decoded(path, ports, version):
    """What the other decoder finds in a channel: a list of (seq, messages), a message being (entries, ends event)."""
    parser, packets, known = other_decoder(version), [], {}
    for _, payload in payloads(read_capture(path), ports):
        messages = known.setdefault(payload, [])
        if messages:    # the other line's copy
            packets.append((int.from_bytes(payload[:4], "little"), messages))
            continue
        for message in parser.parse(payload, offset=12):
            entries = []
            if message.template_id.value in (32, 46):
                for entry in next(g for g in message.groups if g.name == "no_md_entries"):
                    kind = entry.md_entry_type.raw_value
                    entries.append((entry.security_id.value, kind.decode() if isinstance(kind, bytes) else kind,
                                    entry.md_update_action.value, entry.md_price_level.value,
                                    entry.md_entry_px.raw_value["mantissa"], entry.md_entry_size.value))
            marks = getattr(message, "match_event_indicator", None)
            messages.append((entries, marks is not None
                             and bool({"LastQuoteMsg", "EndOfEvent"} & set(marks.value.split(", ")))))
        packets.append((int.from_bytes(payload[:4], "little"), messages))
    return packets


def other_side(path, ports, version, only=None):
    """Books of a channel as the other decoder has it.

    ``only``: security ids to keep, or ``None`` for all. Returns (bests after every end of event, counts, prices seen
    by security id). A best is a mapping {security id: (bid, offer)} of all books that there are.
    """
    books, expected, events = defaultdict(OtherBook), None, []
    count, prices = defaultdict(int), defaultdict(set)
    for seq, messages in decoded(path, frozenset(ports), version):
        count["packets"] += 1
        if expected is not None and seq != expected:
            if (seq - expected) & 0x8000_0000:
                count["duplicates"] += 1
                continue
            count["gaps"] += 1
            count["missing"] += seq - expected
            books.clear()
        expected = seq + 1
        for entries, ends in messages:
            count["messages"] += 1
            for security, kind, *change in entries:
                if kind in "01" and (only is None or security in only):
                    count["entries"] += 1
                    prices[security].add(change[2])
                    books[security].entry(kind, *change)
            if ends:
                events.append({s: b.best() for s, b in books.items()})
    return events, count, prices


# ---------------------------------------------------------------------- our side

def tick_of(prices):
    """A tick that all prices are multiples of; at most ten (exponent -9), as one price alone says little."""
    return math.gcd(*prices, 10_000_000_000)


def our_side(capture, lines, ticks):
    """The golden model's bests after every end of event, and the model.

    ``lines``: one or two (group address, port). ``ticks``: mapping of security id to tick mantissa, one for each entry
    of the table.
    """
    model = GoldenModel(instruments=len(ticks))
    cycle = 10

    image = Image(len(ticks))

    def write(address, value):
        nonlocal cycle
        model.write(cycle, address, value & 0xFFFF_FFFF)
        image.wrote(address, value & 0xFFFF_FFFF)
        cycle += 4

    for name, (group, port) in zip("ab", lines, strict=False):
        write(map_.BY_NAME[f"line_{name}_ip"].address, int.from_bytes(bytes(map(int, group.split("."))), "big"))
        write(map_.BY_NAME[f"line_{name}_port"].address, port)
    for i, (security, tick) in enumerate(ticks.items()):
        write(map_.security_id_address(i), security)
        shift = (tick & -tick).bit_length() - 1
        for name, value in (("feed_tick_shift", shift), ("feed_tick_odd", tick >> shift),
                            ("feed_tick_inv", pow(tick >> shift, -1, 1 << map_.TICK_BITS))):
            write(map_.param_address(i, name), value)
    write(map_.BY_NAME["limits_crc"].address, image.staged)
    write(map_.BY_NAME["commit"].address, 1)
    cycle += image.commit_cycles

    events = []
    securities = list(ticks)

    def publish(_cycle, _touched):
        bests = {}
        for i, security in enumerate(securities):
            bid, offer = (best and (best[0] * ticks[security], best[1]) for best in model.best(i))
            if bid or offer:
                bests[security] = bid, offer
        events.append(bests)

    model.on_publish = publish
    frames = schedule(capture, start_cycle=cycle + 100)
    for frame in frames:
        model.feed_frame(WireFrame(frame.cycle, frame.data))
    model.advance(frames[-1].end + 100)
    return events, model


def compare(theirs, ours):
    assert len(ours) == len(theirs)
    for n, (want, got) in enumerate(zip(theirs, ours, strict=False)):
        want = {s: b for s, b in want.items() if b != (None, None)}
        different = [s for s in want.keys() | got if want.get(s) != got.get(s)]
        assert not different, f"after event {n}: differs for {different}"


def test_v8_every_instrument():
    need(V8, schema_file(8))
    capture = read_capture(V8)
    theirs, count, prices = other_side(V8, {14320, 15320}, 8)
    assert count["packets"] == 10_000
    assert count["duplicates"] == 5_000
    assert count["gaps"] == 0
    ticks = {s: tick_of(p) for s, p in prices.items()}
    assert len(ticks) == 39
    ours, model = our_side(capture, (("224.0.31.11", 14320), ("224.0.32.11", 15320)), ticks)
    compare(theirs, ours)
    counters = model.counters
    assert counters["line_a_packets"] + counters["line_b_packets"] == 10_000
    assert counters["duplicate_packets"] == 5_000
    assert counters["accepted_packets"] == 5_000
    assert not counters["gaps"]
    assert counters["messages"] == count["messages"]
    assert counters["entries"] == count["entries"]
    assert not counters["px_errors"]
    assert not counters["poisoned_packets"]
    assert not counters["foreign_entries"]
    assert sum(bid is not None and offer is not None for bid, offer in theirs[-1].values()) > 15


def test_v8_with_a_table_of_sixteen():
    """Instruments that do not fit the table do not disturb those that do."""
    need(V8, schema_file(8))
    capture = read_capture(V8)
    _, _, prices = other_side(V8, {14320, 15320}, 8)
    chosen = sorted(prices, key=lambda s: len(prices[s]), reverse=True)[:16]
    theirs, count, _ = other_side(V8, {14320, 15320}, 8, only=set(chosen))
    ours, model = our_side(capture, (("224.0.31.11", 14320), ("224.0.32.11", 15320)),
                           {s: tick_of(prices[s]) for s in chosen})
    compare(theirs, ours)
    assert model.counters["entries"] == count["entries"]
    assert model.counters["foreign_entries"] > 0


#: Channels of the v9 capture: groups and ports of lines A and B.
V9_CHANNELS = (
    (("224.0.28.5", 14314), ("224.0.28.132", 15314)), (("224.0.28.20", 14361), ("224.0.28.147", 15361)),
    (("224.0.28.19", 14360), ("224.0.28.146", 15360)), (("224.0.28.29", 14348), ("224.0.28.156", 15348)),
    (("224.0.28.4", 14313), ("224.0.28.131", 15313)), (("224.0.28.6", 14315), ("224.0.28.133", 15315)),
    (("224.0.28.3", 14312), ("224.0.28.130", 15312)), (("224.0.28.7", 14316), ("224.0.28.134", 15316)),
    (("224.0.28.8", 14317), ("224.0.28.135", 15317)),
)


#: Of both lines together none of the channels lacks a packet; each line alone does.
V9_GAPS = {"A": 3, "B": 1, "AB": 0}


@pytest.mark.parametrize("which", V9_GAPS)
def test_v9_channels(which):
    """Every channel with line A alone, line B alone and both."""
    need(V9, schema_file(9))
    capture = read_capture(V9)
    gaps = 0
    for channel in V9_CHANNELS:
        lines = [channel["AB".index(line)] for line in which]
        theirs, count, prices = other_side(V9, {port for _, port in lines}, 9)
        ours, model = our_side(capture, lines, {s: tick_of(p) for s, p in prices.items()} or {1: 1})
        compare(theirs, ours)
        counters = model.counters
        assert counters["line_a_packets"] + counters["line_b_packets"] == count["packets"] > 0
        assert counters["duplicate_packets"] == count["duplicates"]
        assert (counters["gaps"], counters["gap_packets"]) == (count["gaps"], count["missing"])
        assert counters["feed_not_ours"] == len(capture) - count["packets"]
        assert counters["messages"] == count["messages"]
        assert counters["entries"] == count["entries"]
        assert not counters["px_errors"]
        assert not counters["poisoned_packets"]
        gaps += count["gaps"]
    assert gaps == V9_GAPS[which]

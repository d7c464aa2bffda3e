"""`t2q replay` as a whole: captures and generated traffic through the gateware to the exchange and into the report."""

import json
import os
import shutil
import struct
import subprocess
from collections import defaultdict
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hdl.layout import net, sbe
from host import cli
from host import config as configuration
from sim.board.captures import read_capture
from sim.replay import run_replay
from sim.venue import listing
from tests.sim.test_independent_book import (
    DEPTH,
    V8,
    V9,
    V9_CHANNELS,
    OtherBook,
    decoded,
    need,
    other_side,
    payloads,
    schema_file,
    tick_of,
)

FIRST_LIGHT = Path(__file__).parents[2] / "config" / "first_light.toml"
V8_PORTS = (14320, 15320)
FLAG = {name: 1 << bit for name, bit in sbe.load("t2q_link").sets["DecisionFlags"].items()}

#: What report.json has to say at least.
KEYS = {"capture", "packets", "duplicates", "gaps", "messages", "events", "quotes_sent", "quotes_accepted", "fills",
        "golden_mismatches", "gate_drops", "trigger_to_quote_cycles", "sim_cycles_per_s", "wall_s"}


class Run:
    """One replay with everything that it left behind.

    Attributes
    ----------
    report : content of ``report.json``. counters : of the card. config : :class:`host.config.Config`.
    decisions : every Decision record that the card sent over the host link. ledger : the exchange's.
    """

    def __init__(self, config_path, capture, out, **options):
        self.out, self.config, self.decisions = out, configuration.load(config_path), []
        run_replay(config_path, capture, out, observe=self._observe, **options)
        self.report = json.loads((out / "report.json").read_text())
        self.counters, self.ledger = self.report["counters"], self.replay.gateway.engine.ledger
        self.pcap = out / "quotes.pcap"

    def _observe(self, replay):
        self.replay = replay
        replay.daemon.on_decision.append(lambda decision, now_ns: self.decisions.append(decision))


def check_run(run):
    """What holds after every replay, whatever was replayed."""
    report, ledger, replay = run.report, run.ledger, run.replay
    assert report.keys() >= KEYS
    assert report["golden_mismatches"] == 0, replay.lock.mismatches[0]
    assert report["frames_compared"] == len(replay.lock.sent) > 0
    assert not report["wire_violations"]
    assert not [f for f in replay.lock.sent if f.faults]
    # Every quote reached the exchange and was accepted there, or there is a sentence about why not.
    assert len(ledger.quotes) == report["quotes_sent"]
    refused = [q for q in ledger.quotes.values() if not q.fully_accepted]
    assert report["quotes_accepted"] + len(refused) == report["quotes_sent"]
    assert len(report["refusals"]) == sum(len(q.refusals) for q in refused)
    assert all(text for q in refused for _, text in q.refusals)
    latency = report["trigger_to_quote_cycles"]
    assert latency.keys() == {"min", "mean", "max", "count"}
    assert {latency["min"], latency["mean"], latency["max"]} == ({2} if latency["count"] else {None})
    # What the card measured with its own probe.
    assert run.counters["latency_count"] == latency["count"]
    # It ends in order: nothing open, logged out, no record lost.
    assert not replay.gateway.engine.open_orders(run.config.session.client_id)
    assert replay.gateway.received["Logout"] == 1
    assert replay.daemon.phase == "stopped"
    assert not run.counters["telemetry_overflow"] | run.counters["link_rx_errors"] | run.counters["write_refused"]
    check_pcap(run)


def check_pcap(run):
    """``quotes.pcap`` holds the frames of the order port as they were sent, with nanosecond stamps, nothing else."""
    magic, *_, link_type = struct.unpack("<IHHiIII", run.pcap.read_bytes()[:24])
    assert (magic, link_type) == (0xA1B23C4D, 1)
    epoch_ns = run.replay.epoch_ns
    assert list(read_capture(run.pcap)) == [(epoch_ns + f.start * 8, f.frame) for f in run.replay.lock.sent]
    for frame in run.replay.lock.sent:
        assert net.ETHERNET.unpack(frame.frame)["src"] == run.config.session.local_mac


class References(HTMLParser):
    """Collects whatever a page would fetch or run."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], defaultdict(int)
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.found.append(value)


def check_page(run):
    """``report.html`` shows charts and needs nothing beside itself."""
    text = (run.out / "report.html").read_text(encoding="utf-8")
    page = References(text)
    assert [r for r in page.found if not r.startswith(("#", "data:"))] == []
    assert not any(page.tags[tag] for tag in ("script", "link", "iframe", "object", "embed"))
    assert "@import" not in text
    assert all(part.startswith(("#", "'#", '"#')) for part in text.split("url(")[1:])
    assert page.tags["svg"] >= 4        # market and quotes, position, latency, drops
    for instrument in run.config.instruments:
        if any(i["quotes_sent"] for i in run.report["instruments"] if i["name"] == instrument.name):
            assert instrument.name in text


# ---------------------------------------------------------------------- the card's own best bid and offer

def expected_evaluations(path, ports, version, securities):
    """What the independent decoder makes of a capture where the card decides at once: at the end of an event whose last
    entry is of a configured instrument. A list of (sequence number, SecurityID, best bid, best offer): mantissas."""
    books, expected_seq, out = defaultdict(OtherBook), None, []
    for seq, messages in decoded(path, frozenset(ports), version):
        if expected_seq is not None and seq != expected_seq:
            if (seq - expected_seq) & 0x8000_0000:
                continue
            books.clear()
        expected_seq = seq + 1
        for entries, ends in messages:
            for security, kind, *change in entries:
                if kind in "01" and security in securities:
                    books[security].entry(kind, *change)
            if ends and entries:
                security, kind, _, level, *_ = entries[-1]
                if security in securities and kind in "01" and 1 <= level <= DEPTH:
                    out.append((seq, security, *(best and best[0] for best in books[security].best())))
    return out


def check_bests(run, path, ports, version):
    """Every direct decision of the card saw the best bid and offer of the independent book, and none is missing but
    those that had to wait for the order port, which leave no record and are few. The card counts them together with
    evaluations of before the first packet that a limit being written had disturbed."""
    ticks = listing.feed_ticks(run.config)
    expected = expected_evaluations(path, ports, version, set(ticks))
    got = []
    for d in run.decisions:
        if d.flags & FLAG["direct"]:
            security = run.config.instruments[d.instrument].security_id
            bests = ((d.best_bid_ticks, "bidKnown"), (d.best_ask_ticks, "askKnown"))
            got.append((d.feed_seq, security, *(ticks[security] * best if d.flags & FLAG[known] else None
                                                for best, known in bests)))
    missing, wanted = 0, iter(expected)
    for n, have in enumerate(got):
        while (want := next(wanted, None)) != have:
            missing += 1
            assert missing <= run.counters["decisions_deferred"], (
                f"decision {n}: (sequence, SecurityID, bid, offer) of the card {have}, of the independent book {want}")
    missing += len(list(wanted))
    print(f"{missing} of {len(expected)} missing, {run.counters['decisions_deferred']} deferred")
    assert missing <= min(run.counters["decisions_deferred"], len(expected) / 100)
    assert run.counters["decisions_held"] + run.counters["decisions_dropped"] <= len(got) == len(expected) - missing
    return expected


# ---------------------------------------------------------------------- schema 8

@pytest.fixture(scope="module")
def v8(tmp_path_factory):
    need(V8, schema_file(8))
    return Run(FIRST_LIGHT, V8, tmp_path_factory.mktemp("v8"))


def test_v8_whole_capture(v8):
    """10,000 packets, each on both lines: quotes go out, are accepted and filled."""
    check_run(v8)
    report = v8.report
    assert report["capture"] == V8.name
    assert not report["generated"]
    assert (report["packets"], report["duplicates"], report["gaps"]) == (10_000, 5_000, 0)
    _, count, _ = other_side(V8, V8_PORTS, 8)
    assert report["messages"] == count["messages"]
    assert v8.counters["accepted_packets"] == count["packets"] - count["duplicates"]
    assert not v8.counters["poisoned_packets"] | v8.counters["px_errors"] | v8.counters["feed_bad_fcs"]
    assert report["quotes_sent"] > 100
    assert report["fills"] == len(v8.ledger.fills) > 0
    assert report["trigger_to_quote_cycles"]["count"] > 100
    assert report["gate_drops"]
    positions = v8.ledger.positions(v8.config.session.client_id)
    for i in report["instruments"]:
        assert i["position_lots"] == positions.get(i["instrument_id"], 0)
    for n, instrument in enumerate(v8.config.instruments):      # the daemon kept the same positions from the answers
        assert v8.replay.daemon.positions.lots(n) == (positions.get(instrument.instrument_id, 0), 0, 0)
    check_page(v8)


def test_v8_best_bid_and_offer(v8):
    """What the card took for the best bid and offer at every decision, against a book of somebody else's decoder."""
    expected = check_bests(v8, V8, V8_PORTS, 8)
    assert len(expected) > 3000
    assert len({security for _, security, *_ in expected}) == 16
    assert sum(bid is not None and ask is not None for _, _, bid, ask in expected) > 1000


def test_the_same_run_twice(tmp_path):
    """The same command gives the same frames at the same nanoseconds; the seed is in the connection's numbers."""
    need(V8)
    runs = [Run(FIRST_LIGHT, V8, tmp_path / name, seed=seed, max_packets=packets)
            for name, seed, packets in (("one", 3, 700), ("two", 3, 700), ("other", 4, 20))]
    first, second, other = (run.pcap.read_bytes() for run in runs)
    assert first == second
    assert first[:len(other)] != other
    changing = ("wall_s", "sim_cycles_per_s")
    assert {k: v for k, v in runs[0].report.items() if k not in changing} == \
        {k: v for k, v in runs[1].report.items() if k not in changing}


# ---------------------------------------------------------------------- what Wireshark says

def tshark(*arguments):
    if not shutil.which("tshark"):
        if os.environ.get("CI"):
            pytest.fail("tshark is not installed; .ci/run installs it")
        pytest.skip("tshark is not installed (Debian: apt-get install tshark)")
    done = subprocess.run(["tshark", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", *arguments],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_wireshark_finds_no_fault(v8):
    frames = tshark("-r", str(v8.pcap), "-T", "fields", "-e", "frame.number", "-e", "ip.checksum.status", "-e",
                    "tcp.checksum.status", "-e", "eth.type", "-e", "frame.time_epoch")
    assert len(frames) == len(v8.replay.lock.sent)
    kinds = defaultdict(int)
    for number, ip, tcp, ethertype, when in (line.split("\t") for line in frames):
        kinds[ethertype] += 1
        if ethertype == "0x0800":
            assert (ip, tcp) == ("1", "1"), f"frame {number}: checksum"       # 1: good
        whole, _, part = when.partition(".")
        sent = v8.replay.lock.sent[int(number) - 1]
        assert int(whole) * 10 ** 9 + int(part.ljust(9, "0")) == v8.replay.epoch_ns + sent.start_ns
    assert kinds.keys() <= {"0x0800", "0x0806"}
    assert kinds["0x0800"] >= v8.report["quotes_sent"]
    for what in ("_ws.malformed", "tcp.analysis.flags", "tcp.analysis.retransmission", "tcp.analysis.lost_segment",
                 "tcp.analysis.out_of_order", "tcp.analysis.duplicate_ack", "_ws.expert.severity >= warning"):
        assert tshark("-r", str(v8.pcap), "-Y", what) == [], what


def test_wireshark_would_find_faults(v8, tmp_path):
    """The check above can fail: a lost segment and a spoilt checksum are seen."""
    spoilt = tmp_path / "spoilt.pcap"
    from sim.board.captures import CaptureWriter
    quotes = [n for n, f in enumerate(v8.replay.lock.sent) if len(f.frame) > 150]
    with CaptureWriter(spoilt) as out:
        for n, f in enumerate(v8.replay.lock.sent[:quotes[6]]):
            if n == quotes[3]:
                continue
            out.write(f.start_ns, f.frame[:-1] + b"\xee" if n == quotes[5] else f.frame)
    assert len(tshark("-r", str(spoilt), "-Y", "tcp.analysis.lost_segment")) == 1
    assert len(tshark("-r", str(spoilt), "-Y", "tcp.checksum.status == bad")) == 1


# ---------------------------------------------------------------------- schema 9

@cache
def v9_entries(channel):
    """Of a channel: (book entries by SecurityID, price mantissas by SecurityID)."""
    counts, prices = defaultdict(int), defaultdict(set)
    for _, messages in decoded(V9, frozenset(port for _, port in V9_CHANNELS[channel]), 9):
        for entries, _ in messages:
            for security, kind, _, _, price, _ in entries:
                if kind in "01":
                    counts[security] += 1
                    prices[security].add(price)
    return counts, prices


def v9_config(path, channel, which):
    """A configuration for one channel of the v9 capture: its busiest instruments, ticks from the prices."""
    counts, prices = v9_entries(channel)
    text = FIRST_LIGHT.read_text()
    head = text[text.index("[session]"):text.index("[[instruments]]")]
    lines = [V9_CHANNELS[channel]["AB".index(w)] for w in which]
    feed = [f'line_{name} = "{group}:{port}"' for name, (group, port) in zip("ab", lines, strict=False)]
    out = ["[feed]", *feed, "price_exponent = -9", head]
    for n, security in enumerate(sorted(counts, key=lambda s: (-counts[s], s))[:16]):
        middle, tick = max(prices[security], key=abs) / 1e9, tick_of(prices[security])
        width = abs(middle) * 0.2 + 1
        out.append(f'[[instruments]]\nname = "X{n:02}"\nsecurity_id = {security}\nfeed_tick = {tick / 1e9:.9f}\n'
                   f'instrument_id = {300_000 + n}\ntick = {tick / 1e10:.10f}\nreference_price = {middle:.9f}\n'
                   f'half_spread_ticks = 50\nmin_price = {middle - width:.3f}\nmax_price = {middle + width:.3f}\n')
    path.write_text("\n".join(out))
    (path.parent / "simulator.secret").write_text((FIRST_LIGHT.parent / "simulator.secret").read_text())
    return path


@pytest.mark.parametrize(("channel", "which"), [(5, "AB"), (5, "A"), (1, "AB"), (1, "A"), (2, "A"), (3, "B")])
def test_v9(tmp_path, channel, which):
    """Channels of a capture that holds nine of them, most with one line alone so that packets are missing."""
    need(V9, schema_file(9))
    ports = [V9_CHANNELS[channel]["AB".index(w)][1] for w in which]
    run = Run(v9_config(tmp_path / "v9.toml", channel, which), V9, tmp_path / "out")
    check_run(run)
    report = run.report
    seen, gaps, missing, duplicates = None, 0, 0, 0      # counted on the sequence numbers alone
    numbers = [int.from_bytes(payload[:4], "little") for _, payload in payloads(read_capture(V9), ports)]
    for number in numbers:
        if seen is not None and number <= seen:
            duplicates += 1
            continue
        if seen is not None and number > seen + 1:
            gaps, missing = gaps + 1, missing + number - seen - 1
        seen = number
    assert (report["packets"], report["duplicates"]) == (len(numbers), duplicates)
    assert (report["gaps"], report["gap_packets"]) == (gaps, missing)
    assert gaps == (which != "AB")
    assert run.replay.daemon.events["GAP"] == gaps
    assert run.counters["feed_not_ours"] == 100 - len(numbers)
    assert run.counters["feed_frames"] == 100
    assert not run.counters["poisoned_packets"] | run.counters["px_errors"] | run.counters["feed_bad_fcs"]
    assert check_bests(run, V9, ports, 9)


# ---------------------------------------------------------------------- generated traffic

def test_without_a_capture(tmp_path, monkeypatch):
    """The command works on a machine without captures, and says what it played."""
    empty = tmp_path / "captures"
    empty.mkdir()
    monkeypatch.setenv("T2Q_CAPTURES", str(empty))
    monkeypatch.setenv("COLUMNS", "150")
    done = CliRunner().invoke(cli.app, ["replay", "-c", str(FIRST_LIGHT), "--out", str(tmp_path / "out"),
                                        "--max-packets", "900", "--seed", "5"])
    assert done.exit_code == 0, done.output
    assert "generated traffic" in done.stdout
    assert "generated, seed 5" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["generated"]
    assert report["capture"] == "generated, seed 5"
    assert any("No capture was given or found" in note for note in report["notes"])
    assert "No capture was given or found" in (tmp_path / "out" / "report.html").read_text()
    assert report["packets"] == 900
    assert report["duplicates"] == pytest.approx(450, abs=10)
    assert report["golden_mismatches"] == 0
    assert report["quotes_sent"] == report["quotes_accepted"] > 0
    assert (report["trigger_to_quote_cycles"]["min"], report["trigger_to_quote_cycles"]["max"]) == (2, 2)

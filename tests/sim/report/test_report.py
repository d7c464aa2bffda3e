"""Report writers on made-up results: the numbers that must be there, the page that must stand alone."""

import json
import random
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from scapy.utils import RawPcapReader

from sim.report import model, page, summary, write

MS = 1_000_000


def made_up(instruments=3, steps=5_000, seed=1):
    """A result with a wandering market, quotes around it, fills and a position."""
    r = random.Random(seed)
    result = model.ReplayResult(
        capture="Example.pcap", packets=10_000, duplicates=5_000, messages=10_598, events=7_321, quotes_sent=4_321,
        quotes_accepted=4_320, quotes_refused=1, mass_cancels=1, frames_compared=4_400, sim_cycles=21_000_000,
        sim_wall_s=30.0, wall_s=41.27, refusals=["17 ns MassQuoteRequest 5 of t: INVALID_PRICE: bidPrice <1> & more"],
        gate_drops={"G4 data": 812, "G14 rate": 40, "G11 position": 3, "G1 dead-man": 0},
        notes=["Idle time between packets is compressed to 20 us."], facts={"capture spans": "14 min"})
    result.latency.add(8, 4_000)
    for number in range(instruments):
        series = model.InstrumentSeries(f"FUT-{number} <x>", 100 + number, 1000 + number, position=[(0, 0)],
                                        quotes_sent=100, quotes_accepted=100)
        middle, position = 25_000.0 + 1_000 * number, 0
        for step in range(steps):
            time_ns = step * 40_000
            middle += r.choice((-0.5, 0, 0, 0.5))
            series.market.append(model.Level(time_ns, middle - 0.5, middle + 0.5 if step % 500 else None))
            if step % 3 == 0:
                gone = 2_000 <= step < 2_300
                series.quotes.append(model.Level(time_ns + 10_000, None if gone else middle - 2,
                                                 None if gone else middle + 2))
            if r.random() < 0.004:
                side = r.choice((1, -1))
                position += side
                series.fills.append(model.FillPoint(time_ns, side, middle - 2 * side, 1))
                series.position.append((time_ns, position))
        result.instruments.append(series)
    result.instruments.append(model.InstrumentSeries("never quoted", 5, 6))
    return result


REQUIRED = {"capture", "packets", "duplicates", "gaps", "messages", "events", "quotes_sent", "quotes_accepted", "fills",
            "golden_mismatches", "gate_drops", "trigger_to_quote_cycles", "sim_cycles_per_s", "wall_s"}


def test_json_has_everything_asked_for(tmp_path):
    result = made_up()
    summary.write_json(result, tmp_path / "new" / "report.json")
    data = json.loads((tmp_path / "new" / "report.json").read_text())
    assert set(data) >= REQUIRED
    assert data["trigger_to_quote_cycles"] == {"min": 8, "mean": 8.0, "max": 8, "count": 4_000}
    assert data["fills"] == sum(len(i.fills) for i in result.instruments) > 0
    assert data["sim_cycles_per_s"] == 700_000
    assert data["gate_drops"]["G4 data"] == 812
    assert data["instruments"][0]["position_lots"] == result.instruments[0].last_position


def test_json_of_an_empty_result():
    data = summary.to_json(model.ReplayResult("nothing.pcap"))
    assert set(data) >= REQUIRED
    assert data["trigger_to_quote_cycles"] == {"min": None, "mean": None, "max": None, "count": 0}
    assert data["sim_cycles_per_s"] == 0


def test_latency_statistics():
    latency = model.Latency()
    for cycles in (8, 8, 9, 11):
        latency.add(cycles)
    assert latency.summary() == {"min": 8, "mean": 9.0, "max": 11, "count": 4}
    assert summary.latency_text(latency) == "8 / 9.00 / 11 cycles (min / mean / max), 4 quotes"
    assert summary.latency_text(model.Latency({8: 3})) == "8 cycles (64 ns), minimum = maximum, 3 quotes"


class Page(HTMLParser):
    """Checks nesting and collects links and text."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.stack, self.links, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> without an opening"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_stands_alone_and_shows_everything(tmp_path):
    result = made_up()
    page.write_html(result, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    parsed = Page(text)
    assert parsed.links == []
    assert "@import" not in text
    assert "url(http" not in text
    assert "script" not in parsed.tags
    assert parsed.tags.count("svg") == 3 + 2
    words = " ".join(parsed.text)
    for expected in ("FUT-0 <x>", "never quoted", "INVALID_PRICE: bidPrice <1> & more", "4,321", "G11 position",
                     "minimum = maximum", "Idle time between packets", "capture spans", "bought", "our bid"):
        assert expected in words, expected
    assert "G1 dead-man" not in words, "a reason that never occurred takes no room"
    assert len(text) < 3_000_000


def test_page_is_the_same_every_time():
    assert page.render(made_up(1, 500)) == page.render(made_up(1, 500))


def test_page_of_an_empty_result():
    parsed = Page(page.render(model.ReplayResult("nothing <b>.pcap")))
    assert "no quote was measured" in " ".join(parsed.text)
    assert "b" in parsed.tags, "the cards"
    assert "nothing <b>.pcap" in " ".join(parsed.text)


def test_page_of_many_refusals_is_cut():
    result = made_up(1, 100)
    result.refusals = [f"refusal {n}" for n in range(1_000)]
    text = page.render(result)
    assert "refusal 199<" in text
    assert "refusal 200<" not in text
    assert "and 800 more, see report.json" in text


def test_thinning_keeps_extremes_ends_and_gaps():
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    times = sorted(r.randrange(10 ** 9) for _ in range(50_000))
    values = [r.random() for _ in times]
    values[20_000], values[30_000], values[40_000] = 5.0, -5.0, None
    keep = page.thin(times, values, 1_000)
    assert len(keep) <= 1_300
    assert keep == sorted(set(keep))
    assert {0, len(times) - 1, 20_000, 30_000, 40_000} <= set(keep)
    assert page.thin(times[:900], values[:900], 1_000) == list(range(900))


def test_thinning_of_equal_times():
    assert page.thin([5] * 10_000, list(range(10_000)), 100) == [0, 9_999]


def printed(result):
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    try:
        summary.print_table(result, console)
    finally:
        console.file.close()
    return console.export_text()


def test_table_says_what_failed():
    result = made_up()
    text = printed(result)
    assert re.search(r"feed packets +10,000, of which 5,000 duplicates", text)
    assert re.search(r"held back +812 by G4 data", text)
    assert text.count("ok  ") == 3
    assert "bidPrice <1> & more" in text
    result.golden_mismatches, result.wire_violations = 2, [f"fault {n}" for n in range(9)]
    text = printed(result)
    assert "FAILED  golden model: 4,400 frames compared, 2 differ" in text
    assert "FAILED  wire: 9 faults" in text
    assert "and 5 more, see report.json" in text


@pytest.mark.parametrize(("accepted", "refused", "sentences", "passed"), [
    (10, 0, 0, True), (9, 1, 2, True), (9, 1, 0, False), (9, 0, 2, False), (11, 0, 0, False), (8, None, 3, True),
    (8, None, 1, False)])
def test_unexplained_or_unanswered_quotes_fail(accepted, refused, sentences, passed):
    result = model.ReplayResult("x", quotes_sent=10, quotes_accepted=accepted, quotes_refused=refused,
                                refusals=["why"] * sentences)
    assert {name: ok for name, ok, _ in summary.verdicts(result)}["exchange"] is passed


def test_write_all(tmp_path):
    frames = [(1_000, bytes(60)), (2_345_678_901, bytes(range(115)))]
    paths = write.write_all(made_up(1, 50), tmp_path / "out", frames, epoch_ns=10 ** 18)
    assert [p.name for p in paths] == ["report.json", "report.html", "quotes.pcap"]
    assert all(p.is_file() for p in paths)
    with RawPcapReader(str(paths[2])) as reader:
        packets = list(reader)
        assert reader.nano
    assert [data for data, _ in packets] == [frame for _, frame in frames]
    assert [m.sec * 10 ** 9 + m.usec for _, m in packets] == [10 ** 18 + t for t, _ in frames]

"""Tables of the documentation from results, and what stands in the pages now."""

import json
import re

import pytest

from sim.bench import document
from sim.bench.cases import Case, Row
from sim.bench.measure import FIGURES, Figures, Histogram
from sim.bench.results import BOARD_KEYS, figure, gather, print_table, read_boards

BOARD = {"fmax_mhz": 131.25, "target_mhz": 125, "lut": 20123, "lut_pct": 82.8, "bram": 40, "dsp": 20, "instruments": 16}
FACTS = {"golden_mismatches": 0, "frames_compared": 1234, "feed_frames": 4321, "cycles": 99_000}


def figures(trigger=2, end=-15, count=7):
    made, known = Figures(), {"trigger_to_quote_cycles": trigger, "tick_end_to_quote_start_cycles": end}
    for name in FIGURES:
        made.of[name].counts[known.get(name, 141)] = count
    return made


def example():
    a = Case("a_captures", "captures", facts=FACTS, skipped=["something, for a reason"], rows=[
        Row("schema 8, capture", figures=figures(), facts={
            "packets": 10_000, "counterpart": "the daemon", "quotes in the background": 3}),
        Row("schema 9, capture", how="none", facts={"packets": 9, "counterpart": "-", "quotes in the background": 0})])
    b = Case("b_line_rate", "line rate", facts=FACTS, rows=[
        Row("one entry", template=32, figures=figures(count=2000), facts={
            "frame_bytes": 122, "idle_cycles_between_frames": [12], "frames": 4000, "events": 2000})])
    c = Case("c_trigger_kinds", "kinds", facts=FACTS, rows=[
        Row("new", "bid", 32, figures=figures(end=-15)), Row("new", "offer", 32, figures=figures(end=-300)),
        Row("new, first of 12 entries", "bid", 32, "background", event_end=Histogram({31: 1, 107: 2})),
        Row("nothing to send", "bid", 32, "none")])
    d = Case("d_port_busy", "busy", facts=FACTS, rows=[
        Row("2 events", "", 32, "busy", figures(150), port_free=Histogram({11: 5, 24: 1}), idle=Histogram({2: 6}),
            facts={"scenes": 6, "quotes": 12})])
    for case in (a, b, c, d):
        case.check("it", True, "holds")
    return gather([a, b, c, d], 1_234_567, {"ecpix5": BOARD}, "make bench")


def test_results_have_what_is_promised():
    bench = json.loads(json.dumps(example()))
    assert bench["holds"]
    assert bench["sim_cycles_per_s"] == 1_234_567
    assert bench["boards"]["ecpix5"] == BOARD
    for name in ("trigger_to_quote_cycles", "tick_end_to_quote_start_cycles", "tick_start_to_quote_start_cycles",
                 "trigger_to_first_price_byte_cycles", "trigger_to_last_bit_cycles"):
        assert set(bench[name]) == {"a_captures", "b_line_rate", "c_trigger_kinds", "d_port_busy"}
        assert all(set(summary) == {"min", "max", "count"} for summary in bench[name].values())
    assert bench["trigger_to_quote_cycles"]["c_trigger_kinds"] == {"min": 2, "max": 2, "count": 14}
    assert bench["tick_end_to_quote_start_cycles"]["c_trigger_kinds"] == {"min": -300, "max": -15, "count": 14}
    print_table(bench)


def test_what_does_not_hold_shows():
    case = Case("a_captures", "captures")
    case.check("it", False, "does not")
    bench = gather([case], 1, {}, "make bench")
    assert not bench["holds"]
    assert bench["trigger_to_quote_cycles"]["a_captures"] == {"min": None, "max": None, "count": 0}


@pytest.mark.parametrize(("summary", "plain", "unit"), [
    ({"min": 2, "max": 2, "count": 1}, "2", "2 (16 ns)"),
    ({"min": -63, "max": 5, "count": 9}, "-63 to 5", "-63 to 5 (-504 to 40 ns)"),
    ({"min": None, "max": None, "count": 0}, "none", "none"),
])
def test_figures_in_words(summary, plain, unit):
    assert figure(summary) == plain
    assert figure(summary, unit=True) == unit


def test_pages_are_filled(tmp_path):
    page, readme = tmp_path / "latency.md", tmp_path / "README.md"
    page.write_text(document.PAGE.read_text())
    readme.write_text(document.README.read_text())
    before = readme.read_text().split("<!-- begin latency -->")[0]
    document.write(example(), page, readme)
    text = page.read_text()
    assert "| trigger to quote | 2 (16 ns) | 2 (16 ns) | 2 (16 ns) |" in text
    assert "| schema 8, capture | 10,000 | the daemon | 2 | 7 | 3 |" in text
    assert "| schema 9, capture | 9 | - | none | 0 | 0 |" in text
    assert "Left out: something, for a reason." in text
    assert "| one entry (template 32) | 122 | 12 | 4,000 | 2,000 | 2 | 2,000 |" in text
    assert "| new | 2 | 14 | -300 to -15 |" in text
    assert "| new, first of 12 entries | 31 to 107 | 3 |" in text
    assert "nothing to send" not in text
    assert "| 2 events | 6 | 12 | 2 | 6 | 11 to 24 | 11 | 24 |" in text
    assert "| `ecpix5` | 16 | 131.2 MHz | 125 MHz | 20123 (82.8 %) | 40 | 20 |" in text
    assert "1,234,567 core cycles a second" in text
    assert document.blocks(example())["latency"] in readme.read_text()
    assert readme.read_text().startswith(before)
    document.write(example(), page, readme)     # again: nothing piles up
    assert page.read_text() == text


def test_no_results_no_tables(tmp_path, capsys):
    before = document.PAGE.read_text()
    assert document.main([str(tmp_path / "absent.json")]) == 0
    assert "stay as they are" in capsys.readouterr().out
    assert document.PAGE.read_text() == before


def test_boards_that_were_built(tmp_path):
    assert read_boards(tmp_path / "absent") == {}
    (tmp_path / "ecpix5.json").write_text(json.dumps(BOARD | {"seed": 1}))
    (tmp_path / "other.json").write_text("{}")
    assert read_boards(tmp_path) == {"ecpix5": {key: BOARD[key] for key in BOARD_KEYS}}


def _block(text, name):
    found = re.findall(rf"<!-- begin {name} -->\n(.*?)<!-- end {name} -->", text, re.DOTALL)
    assert len(found) == 1, name
    return found[0]


def test_the_pages_are_of_one_run():
    """README and docs/latency.md show the same table, and every block has been filled from a run."""
    page, readme = document.PAGE.read_text(), document.README.read_text()
    assert _block(page, "latency") == _block(readme, "latency")
    for name in document.blocks(example()):
        assert _block(page, name).strip(), name
    assert _block(page, "latency").count("2 (16 ns)") == 3
    assert "Measured with `make bench`:" in _block(page, "run")
    assert len(re.findall(r"\| 2 \|", _block(page, "kinds"))) > 10

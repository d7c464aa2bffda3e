"""The tables of docs/latency.md and of README.md, from ``out/bench.json``.

``python -m sim.bench.document [BENCH.JSON]``. Without results nothing is written: figures come from runs only.
"""

import json
import sys
from pathlib import Path

from boards.document import fill
from sim.bench.measure import FIGURES
from sim.bench.results import figure
from sim.board.verilate import ROOT

__all__ = ["PAGE", "README", "blocks", "write"]

PAGE, README = ROOT / "docs" / "latency.md", ROOT / "README.md"
_WORDS = {"trigger_to_quote_cycles": "trigger to quote", "tick_end_to_quote_start_cycles": "tick end to quote start",
          "tick_start_to_quote_start_cycles": "tick start to quote start",
          "trigger_to_first_price_byte_cycles": "trigger to first price byte",
          "trigger_to_last_bit_cycles": "trigger to last bit"}
assert set(_WORDS) == set(FIGURES)


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in lines)


def _merged(summaries):
    """{min, max, count} of several of them."""
    some = [s for s in summaries if s["count"]]
    return {"min": min((s["min"] for s in some), default=None), "max": max((s["max"] for s in some), default=None),
            "count": sum(s["count"] for s in some)}


def _by_kind(rows, how):
    kinds = {}
    for row in rows:
        if row["how"] == how:
            kinds.setdefault(row["kind"], []).append(row)
    return kinds


def _latency(bench):
    """Figures by case, the order port idle, in cycles and nanoseconds: what the README shows."""
    names = [name for name in bench["cases"] if not name.startswith("d")]
    head = ["cycles of 8 ns, GMII pin to GMII pin", *(f"({n[0]}) {bench['cases'][n]['title']}" for n in names)]
    rows = [[_WORDS[key], *(figure(bench[key][n], unit=True) for n in names)] for key in FIGURES]
    rows.append(["quotes", *(f"{bench['trigger_to_quote_cycles'][n]['count']:,}" for n in names)])
    checked = [bench["cases"][n]["facts"] for n in names]
    rows.append(["frames that differ from the golden model",
                 *(f"{f['golden_mismatches']:,} of {f['frames_compared']:,}" for f in checked)])
    return _table(head, rows)


def _markets(bench):
    rows = []
    for row in bench["cases"]["a_captures"]["rows"]:
        facts = row["facts"]
        measured = figure(row["trigger_to_quote_cycles"]) if row["how"] == "direct" else "none"
        count = row["trigger_to_quote_cycles"]["count"] if row["how"] == "direct" else 0
        rows.append([row["kind"], f"{facts['packets']:,}", facts["counterpart"], measured, f"{count:,}",
                     f"{facts['quotes in the background']:,}"])
    text = _table(["market", "frames", "at the order port", "trigger to quote", "quotes", "later, in the background"],
                  rows)
    return "\n\n".join([text, *(f"Left out: {reason}." for reason in bench["cases"]["a_captures"]["skipped"])])


def _line_rate(bench):
    rows = [[f"{row['kind']} (template {row['template']})", row["facts"]["frame_bytes"],
             " and ".join(map(str, row["facts"]["idle_cycles_between_frames"])), f"{row['facts']['frames']:,}",
             f"{row['facts']['events']:,}", figure(row["trigger_to_quote_cycles"]),
             f"{row['trigger_to_quote_cycles']['count']:,}"] for row in bench["cases"]["b_line_rate"]["rows"]]
    return _table(["frame", "bytes with FCS", "idle cycles between", "frames", "events", "trigger to quote", "quotes"],
                  rows)


def _kinds(bench):
    rows = []
    for kind, found in _by_kind(bench["cases"]["c_trigger_kinds"]["rows"], "direct").items():
        one = [_merged([row[key] for row in found]) for key in ("trigger_to_quote_cycles",
                                                                "tick_end_to_quote_start_cycles")]
        rows.append([kind, figure(one[0]), f"{one[0]['count']:,}", figure(one[1])])
    return _table(["the byte that ends the event is of", "trigger to quote", "quotes", "tick end to quote start"], rows)


def _background(bench):
    rows = []
    for kind, found in _by_kind(bench["cases"]["c_trigger_kinds"]["rows"], "background").items():
        one = _merged([row["event_end_to_quote_cycles"] for row in found])
        rows.append([kind, figure(one), f"{one['count']:,}"])
    return _table(["what changed, and how the event ended", "end of event to quote", "quotes"], rows)


def _busy(bench):
    rows = []
    for row in bench["cases"]["d_port_busy"]["rows"]:
        free = row["port_free_to_quote_cycles"]
        rows.append([row["kind"], f"{row['facts']['scenes']:,}", f"{row['facts']['quotes']:,}",
                     figure(row["idle_trigger_to_quote_cycles"]), f"{free['count']:,}", figure(free), free["median"],
                     free["p99"]])
    return _table(["scene", "times", "quotes", "on the trigger byte", "quotes that waited", "port free to quote",
                   "median", "99 %"], rows)


def _boards(bench):
    def clock(b):
        return f"{b['fmax_mhz']:.1f} MHz" + (" (**missed**)" if b["fmax_mhz"] < b["target_mhz"] else "")

    rows = [[f"`{name}`", b["instruments"], clock(b), f"{b['target_mhz']:g} MHz", f"{b['lut']} ({b['lut_pct']} %)",
             b["bram"], b["dsp"]] for name, b in bench["boards"].items()]
    if not rows:
        return "No bitstream had been built when this was measured (`make bitstream BOARD=...`)."
    return _table(["board", "instruments", "clock reached", "wanted", "LUT4", "block RAM", "multipliers"], rows)


def _run(bench):
    facts = [case["facts"] for case in bench["cases"].values()]
    frames, cycles, compared, differ = (sum(f[key] for f in facts) for key in (
        "feed_frames", "cycles", "frames_compared", "golden_mismatches"))
    return (f"Measured with `{bench['command']}`: {cycles:,} simulated cycles, {frames:,} frames in, {compared:,} "
            f"frames out, of which {differ:,} differ from the golden model. The simulation ran at "
            f"{bench['sim_cycles_per_s']:,} core cycles a second of processor time, both ports busy.")


def blocks(bench):
    """Name of a block in the pages -> its content. ``latency`` is the one in README.md."""
    return {"latency": _latency(bench), "run": _run(bench), "markets": _markets(bench), "line rate": _line_rate(bench),
            "kinds": _kinds(bench), "background": _background(bench), "busy": _busy(bench), "boards": _boards(bench)}


def write(bench, page=PAGE, readme=README):
    """Fill the blocks of both pages."""
    made = blocks(bench)
    text = page.read_text()
    for name, table in made.items():
        text = fill(text, name, table)
    readme_text = fill(readme.read_text(), "latency", made["latency"])
    page.write_text(text)
    readme.write_text(readme_text)


def main(argv):
    path = Path(argv[0]) if argv else ROOT / "out" / "bench.json"
    if not path.exists():
        print(f"{path} is not there: the tables of {PAGE.name} stay as they are (make bench)")
        return 0
    write(json.loads(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

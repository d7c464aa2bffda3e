"""What a run of the bench leaves: ``out/bench.json``, and the table on the screen."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hdl.control import registers
from sim.bench.measure import CYCLE_NS, FIGURES

__all__ = ["BOARD_KEYS", "figure", "gather", "print_table", "read_boards"]

#: What is taken over from the figures of a built bitstream.
BOARD_KEYS = ("fmax_mhz", "target_mhz", "lut", "lut_pct", "bram", "dsp", "instruments")


def read_boards(directory):
    """Figures of the bitstreams that have been built: board -> :data:`BOARD_KEYS` of ``<board>.json``."""
    boards = {}
    for path in sorted(Path(directory).glob("*.json")):
        values = json.loads(path.read_text())
        if set(BOARD_KEYS) <= set(values):
            boards[path.stem] = {key: values[key] for key in BOARD_KEYS}
    return boards


def gather(cases, sim_cycles_per_s, boards, command):
    """The content of ``bench.json``.

    ``cases``: list of :class:`sim.bench.cases.Case`. ``command``: with which it can be had again. Each figure maps the
    names of the cases to {min, max, count}; a case in which nothing was measured has ``None`` and a count of 0.
    """
    figures = {name: {case.name: case.figures.of[name].summary() for case in cases} for name in FIGURES}
    return {
        "command": command, "cycle_ns": CYCLE_NS, "register_map": f"{registers.MAP_HASH:08x}",
        "holds": all(case.holds for case in cases), **figures, "sim_cycles_per_s": sim_cycles_per_s, "boards": boards,
        "cases": {case.name: case.to_json() for case in cases},
    }


def figure(summary, unit=False):
    """{min, max, count} in words: ``2`` or ``-63 to -15``, with nanoseconds if asked for."""
    low, high = summary["min"], summary["max"]
    if low is None:
        return "none"
    text = f"{low}" if low == high else f"{low} to {high}"
    if unit:
        ns = f"{low * CYCLE_NS}" if low == high else f"{low * CYCLE_NS} to {high * CYCLE_NS}"
        text += f" ({ns} ns)"
    return text


def print_table(bench, console=None):
    """Figures by case, and what had to hold."""
    console = console or Console(width=None if sys.stdout.isatty() else 200)
    table = Table(title="tick2quote bench, in cycles of 8 ns", title_justify="left", pad_edge=False, box=None)
    table.add_column("case")
    for name in FIGURES:
        table.add_column(name.removesuffix("_cycles").replace("_", " "), justify="right")
    table.add_column("quotes", justify="right")
    for name, case in bench["cases"].items():
        summaries = [bench[key][name] for key in FIGURES]
        table.add_row(case["title"], *(figure(s) for s in summaries), f"{summaries[0]['count']:,}")
    console.print(table)
    for name, case in bench["cases"].items():
        for check in case["checks"]:
            mark = "[green]ok[/green]" if check["holds"] else "[bold red]FAILED[/bold red]"
            console.print(f"{mark}  ({name[0]}) {check['what']}: {check['text']}", highlight=False)
        for reason in case["skipped"]:
            console.print(f"    ({name[0]}) left out: {reason}", highlight=False)
    console.print(f"simulation: {bench['sim_cycles_per_s']:,} core cycles a second of processor time", highlight=False)
    for name, board in bench["boards"].items():
        console.print(f"{name}: {board['fmax_mhz']:.1f} MHz of {board['target_mhz']:g}, {board['lut']} LUT "
                      f"({board['lut_pct']} %), {board['bram']} block RAM, {board['dsp']} DSP, {board['instruments']} "
                      f"instruments", highlight=False)

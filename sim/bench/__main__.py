"""`make bench`: latency in every case, cycle by cycle at the pins, and the speed of the simulation.

Writes ``out/bench.json``. Exit code 1 if something that must hold does not, 2 if it cannot run.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from host.config import ConfigError
from sim.bench import cases, document
from sim.bench.captures import captures
from sim.bench.results import gather, print_table, read_boards
from sim.board.__main__ import speed
from sim.board.board import VirtualBoard
from sim.board.verilate import ROOT, BuildError
from sim.replay import ReplayError

_CONFIG = ROOT / "config" / "first_light.toml"
#: Size of a run, full and quick: packets of (a), events of (b), repeats of (c) and (d), seconds of the speed.
_FULL, _QUICK = (None, 2_000, 12, 30, 4.0), (1_200, 100, 1, 3, 1.0)


def run(seed, quick, progress):
    """Every case, and the speed. Returns the content of ``bench.json``; ``progress(text, share)`` is called."""
    packets, events, kinds, repeats, seconds = _QUICK if quick else _FULL
    board = VirtualBoard(progress=lambda share, what: progress("building the virtual board", share))
    with board:
        done = [
            captures(board, _CONFIG, packets, seed, lambda share: progress("(a) captures", share)),
            cases.line_rate(board, events, seed, lambda share: progress("(b) line rate", share)),
            cases.trigger_kinds(board, kinds, seed, lambda share: progress("(c) kinds of triggers", share)),
            cases.port_busy(board, repeats, seed, lambda share: progress("(d) order port busy", share)),
        ]
        progress("speed of the simulation", 0.0)
        board.reset()
        cycles, used = speed(board, seconds)
    command = "make bench" + (' ARGS="--quick"' if quick else "")
    return gather(done, round(cycles / used), read_boards(ROOT / "out" / "boards"), command)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m sim.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short run of every case (about a minute)")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "bench.json", metavar="PATH",
                        help="where the results go (default: out/bench.json)")
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/latency.md and README.md, too")
    parser.add_argument("--seed", type=int, default=1, help="of generated traffic")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
                        logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
               TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            tasks = {}

            def progress(text, share):
                if text not in tasks:
                    tasks[text] = bar.add_task(text, total=1.0)
                bar.update(tasks[text], completed=share)

            bench = run(options.seed, options.quick, progress)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(bench, indent=1) + "\n")
        print_table(bench)
        print(f"results: {options.json}")
        if options.docs:
            document.write(bench)
    except (BuildError, ReplayError, ConfigError, ValueError, OSError) as error:
        print(f"tick2quote: {error}", file=sys.stderr)
        return 2
    return 0 if bench["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

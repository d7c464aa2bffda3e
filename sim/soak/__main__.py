"""``make soak``: the session over a wire with faults, against the kernel's TCP; ``out/session.json``."""

import argparse
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sim.board.tap import TapError
from sim.kernel import ExchangeError
from sim.soak.impairment import KINDS, Rates, parse_rules
from sim.soak.rig import RigError
from sim.soak.run import Outcome, soak

#: (name, quotes, host messages, shares out and back, golden model too), of the long form and the short one.
_MIXED = {"drop": 0.05, "reorder": 0.05, "duplicate": 0.02}
_LONG = [("all at once", 50_000, 5_000, _MIXED, False), ("none", 3_000, 300, {}, True),
         ("compared with the golden model", 1_000, 100, _MIXED, True),
         *((f"{name} 20 %", 600, 60, {name: 0.2}, False)
           for name in KINDS)]
_SHORT = [("all at once", 600, 60, _MIXED, False), ("compared with the golden model", 250, 25, _MIXED, True),
          *((f"{name} 20 %", 60, 6, {name: 0.2}, False) for name in ("corrupt", "truncate"))]


def main(arguments=None):
    """Returns the exit code: 0 all is well, 1 something is not, 2 it could not run."""
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, epilog="Exit codes: 0 every byte arrived once, in order; 1 not so; 2 it "
        "could not run.")
    parser.add_argument("--short", action="store_true", help="a few hundred quotes instead of 50,000")
    parser.add_argument("--seed", type=int, default=1, help="of the faults, the market and the first TCP number")
    parser.add_argument("--rules", default="", help="instead: one run with this script on the way to the exchange, as "
                                                    "'drop data 7th x2; reorder ack 3'")
    parser.add_argument("--rules-back", default="", help="... and on the way back")
    parser.add_argument("--out", type=Path, default=Path("out"), help="directory of session.json and soak.pcap")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    runs = _SHORT if options.short else _LONG
    try:
        rules = parse_rules(options.rules), parse_rules(options.rules_back)
    except ValueError as error:
        print(f"make soak: {error}", file=sys.stderr)
        return 2
    if any(rules):
        runs = [("script", 300, 30, {}, True)]
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    console = Console()
    try:
        with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                      TimeElapsedColumn(), console=console) as progress:
            for n, (name, quotes, messages, shares, golden) in enumerate(runs):
                task = progress.add_task(name, total=1.0)
                try:
                    outcomes.append(soak(
                        name, quotes=quotes, messages=messages, out=Rates(**shares), back=Rates(**shares),
                        rules=rules, seed=options.seed + n, golden=golden, capture=options.out / "soak.pcap",
                        progress=lambda share, task=task: progress.update(task, completed=share)))
                except RigError as error:
                    outcomes.append(Outcome(name, options.seed + n, trigger_to_quote=[0, 0], faults=[str(error)]))
    except (TapError, ExchangeError) as error:
        print(f"make soak: {error}", file=sys.stderr)
        return 2
    table = Table("wire", "quotes", "host messages", "sent again", "bytes out", "bytes back", "most unacknowledged",
                  "trigger to quote", "seconds")
    for each in outcomes:
        table.add_row(each.name, f"{each.quotes:,}", f"{each.host_messages:,}", f"{each.segments_resent:,}",
                      f"{each.stream_bytes:,}", f"{each.response_bytes:,}", f"{each.most_unacknowledged:,}",
                      f"{each.trigger_to_quote[0]} to {each.trigger_to_quote[1]}", f"{each.wall_s:,.0f}")
    console.print(table)
    path = options.out / "session.json"
    path.write_text(json.dumps({"seed": options.seed, "runs": [asdict(each) for each in outcomes]}, indent=1) + "\n")
    faults = [f"{each.name}: {fault}" for each in outcomes for fault in each.faults]
    for fault in faults:
        print(f"FAILED {fault}")
    print(f"every byte arrived once, in order; {path}" if not faults else f"{len(faults)} faults; {path}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

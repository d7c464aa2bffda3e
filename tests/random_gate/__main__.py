"""``make random``: random cases through the gate, against a model of its definitions; writes ``out/random.json``."""

import dataclasses
import json
import secrets
import sys
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sim.board.verilate import ROOT, BuildError
from tests.random_gate.run import repeat, run
from tests.random_gate.verilated import VerilatedChain

RESULTS = ROOT / "out" / "random.json"


def _shown(console, seed, examined):
    """A case in full."""
    console.print(f'case {examined.index:,}: make random ARGS="--seed {seed} --index {examined.index}" shows it again')
    console.print(", ".join(f"{name}={value}" for name, value in examined.case.items()), highlight=False)
    for name, (seen, wanted) in examined.outputs.items():
        console.print(f"[red]{name}[/red]: the gateware says {seen}, the definitions {wanted}")
    for promise in examined.promises:
        console.print(f"[red]not kept[/red]: {promise}")
    if not examined.outputs and not examined.promises:
        console.print("nothing differs")


def _table(result):
    table = Table("gate", *(f"{what}" for what in ("passed", "at its exact limit", "failed", "failed alone")),
                  title="sides of a quote, gate by gate; G14: cases")
    for column in table.columns[1:]:
        column.justify = "right"
    for gate, counts in result.gates.items():
        table.add_row(gate, *(f"{counts[what]:,}" if counts[what] or what != "at the limit" else "-"
                              for what in ("passed", "at the limit", "failed", "alone")))
    return table


def main(cases: int = typer.Option(1_000_000, min=1, help="How many, at least: they come in steps of 2,048."),
         seed: int = typer.Option(None, min=0, max=(1 << 31) - 1, help="Of everything; a new one if not given.",
                                  show_default=False),
         index: int = typer.Option(None, min=0, help="Show one case of that seed again.", show_default=False),
         results: Path = typer.Option(RESULTS, help="Where to write what was found, as JSON.")):
    """Random cases in sequences through the Verilated gate. Exit code 1: something differs; 2: it cannot run."""
    console = Console(soft_wrap=True)
    if seed is None:
        seed = secrets.randbelow(1 << 31)
    console.print(f"seed {seed}", highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn()
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("building the simulator", total=1.0)
            chain = VerilatedChain(lambda share, what: bar.update(task, completed=share))
            began, task = time.monotonic(), bar.add_task("random cases", total=cases)
            with chain:
                if index is not None:
                    examined = repeat(chain, seed, index)
                else:
                    result = run(chain, seed, cases, progress=lambda done: bar.update(task, completed=done))
    except BuildError as error:
        print(f"tick2quote: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if index is not None:
        _shown(console, seed, examined)
        raise typer.Exit(1 if examined.outputs or examined.promises else 0)
    seconds = round(time.monotonic() - began, 1)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(dataclasses.asdict(result) | {"seconds": seconds}, indent=1) + "\n")
    console.print(_table(result))
    for counts in (result.outcomes, result.happened):
        console.print(", ".join(f"{what} {number:,}" for what, number in counts.items()), highlight=False)
    if result.first:
        _shown(console, seed, result.first)
    console.print(f"{result.cases:,} cases, {result.differing:,} differ, {seconds} s; {results}", highlight=False)
    raise typer.Exit(1 if result.differing else 0)


if __name__ == "__main__":
    typer.run(main)

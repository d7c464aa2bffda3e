"""``python -m tests.proof``: every proof, or those that are named; writes ``out/proofs.json``."""

import dataclasses
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.proof import PROOFS
from tests.proof.solver import solve

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "out" / "proofs.json"


def examine(proof, folder):
    """The entry of a proof in ``out/proofs.json``."""
    def ask(mode, depth):
        obligations = proof.obligations()
        return solve(obligations, obligations.ports, folder, mode=mode, depth=depth, cut=proof.cut)

    began = time.monotonic()
    held = ask("bmc" if proof.bounded else "prove", proof.depth)
    if not held.holds and not held.counterexample:      # an induction that fails says nothing: is there a way to it?
        held = dataclasses.replace(ask("bmc", proof.cover_depth), holds=False)
    seconds = time.monotonic() - began
    reached = ask("cover", proof.cover_depth)
    return {
        "status": "proved" if held.holds else "refuted" if held.counterexample else "unknown",
        "depth": proof.depth, "method": "bounded" if proof.bounded else "induction",
        "cover": "reached" if reached.holds else "not reached", "cover_depth": proof.cover_depth,
        "claim": proof.claim, "bounded_because": proof.bounded, "assumes": proof.assumes, "cut": list(proof.cut),
        "seconds": round(seconds, 1), "log": "" if held.holds and reached.holds else (held.log + reached.log),
    }


def main(names: list[str] = typer.Argument(None, help="Proofs to run; without one, all of them.", show_default=False),
         results: Path = typer.Option(RESULTS, help="Where to write what was found, as JSON.")):
    """Prove what docs/proofs.md says. Exit code 1: something is refuted, unknown, or speaks of what cannot happen."""
    known = {proof.name: proof for proof in PROOFS}
    console = Console()
    if unknown := [name for name in names or () if name not in known]:
        console.print(f"[red]no proof is called {', '.join(unknown)}[/red]; there are {', '.join(known)}")
        raise typer.Exit(2)
    chosen = [known[name] for name in names or known]
    found = {}
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        tasks = {proof.name: progress.add_task(proof.name, total=1) for proof in chosen}

        def run(proof):
            found[proof.name] = entry = examine(proof, ROOT / "build" / "proof" / proof.name)
            outcome = ", ".join(entry[what] for what in ("status", "method", "cover"))
            progress.update(tasks[proof.name], completed=1, description=f"{proof.name}: {outcome}")

        list(pool.map(run, chosen))
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps({proof.name: found[proof.name] for proof in chosen}, indent=1) + "\n")
    bad = [name for name, entry in found.items() if (entry["status"], entry["cover"]) != ("proved", "reached")]
    for name in bad:
        entry = found[name]
        console.print(f"[red]{name}[/red]: {entry['status']}, covers {entry['cover']}\n{entry['log']}")
    console.print(f"{len(chosen) - len(bad)} of {len(chosen)} proved, each of what can happen; {results}")
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)

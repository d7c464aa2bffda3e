"""``python -m tests.mutation``: faults in the gate, drawn at random, or every one; writes ``out/mutation.json``."""

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.mutation.child import WORK
from tests.mutation.faults import OPERATORS, Source
from tests.mutation.subjects import ROOT, SUBJECTS

RESULTS = ROOT / "out" / "mutation.json"
ARGUMENTS = Path(__file__).with_name("survivors.toml")
#: Share of the mutants that must be caught, those left out that are equivalent by argument.
WANTED = .99
#: Faults that are drawn when nothing is said. All that there are take hours.
DRAWN = 1000
#: A check that takes so many times as long as with the source as it is, and so many seconds, hangs.
PATIENCE, LEAST_SECONDS = 8, 20


class Child:
    """A process that judges (:mod:`tests.mutation.child`)."""

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, "-m", "tests.mutation.child"], cwd=ROOT, text=True,
                                         env=os.environ | {"PYTHONHASHSEED": "0"},   # the same RTLIL from each
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def outcome(self, subject, mutant="", originals=(), limits=()):
        """As :func:`tests.mutation.child.outcome`."""
        asked = {"file": subject.file, "mutant": mutant, "originals": list(originals), "limits": list(limits),
                 "folder": str(WORK / (mutant or subject.module))}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"no answer about {mutant or subject.file}: its process has ended")
        return json.loads(answer)

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def arguments():
    """Why survivors do no harm: argument by (file, operator, before, after)."""
    found = {}
    for entry in tomllib.loads(ARGUMENTS.read_text()).get("survivor", ()):
        for after in entry["after"]:
            found[entry["file"], entry["operator"], entry["before"], after] = " ".join(entry["argument"].split())
    return found


def of(mutant):
    """What an argument is looked up by."""
    return mutant.file, mutant.operator, mutant.before, mutant.after


def draw(ids, count, seed):
    """``count`` of ``ids``, as random as SHA-256 is. Each has its place in the draw whatever others there are."""
    return sorted(ids, key=lambda its: hashlib.sha256(f"{seed} {its}".encode()).digest())[:count]


def summary(judged, seconds, *, of_all, seed):
    """What ``out/mutation.json`` says.

    Parameters
    ----------
    judged : list of (Mutant, outcome)
    of_all : int
        Faults that there are, of which these were chosen.
    seed : int or None
        With which they were drawn, if they were.
    """
    counted = [(mutant, found) for mutant, found in judged if found["status"] in ("caught", "survived")]
    statuses = Counter(found["status"] for _, found in judged)
    why = arguments()

    def tally(chosen):
        """``argued`` : survivors whose argument says that they are equivalent; ``share`` of the others."""
        caught = sum(found["status"] == "caught" for _, found in chosen)
        argued = sum(found["status"] == "survived" and why.get(of(mutant), "").startswith("Equivalent")
                     for mutant, found in chosen)
        others = len(chosen) - argued
        return {"mutants": len(chosen), "caught": caught, "argued": argued,
                "share": round(caught / others, 4) if others else 1.}

    def by(names, of_mutant):
        return {name: tally([pair for pair in counted if of_mutant(pair[0]) == name]) for name in names}

    return {
        **tally(counted), "whole": len(judged) == of_all, "of_all": of_all, "seed": seed,
        "equivalent": statuses["equivalent"], "not_elaborated": statuses["not elaborated"],
        "survivors": [vars(mutant) | {"argument": why.get(of(mutant), "")}
                      for mutant, found in counted if found["status"] == "survived"],
        "by_file": by(dict.fromkeys(mutant.file for mutant, _ in judged), lambda mutant: mutant.file),
        "by_operator": by(OPERATORS, lambda mutant: mutant.operator),
        "caught_by": dict(Counter(found["by"] for _, found in counted if found["by"]).most_common()),
        "seconds": round(seconds, 1),
        "outcomes": {mutant.id: {what: found[what] for what in ("status", "by")} for mutant, found in judged},
    }


class Kept:
    """What has been found so far, in a file beside the results, for a run that is broken off.

    Attributes
    ----------
    outcomes : {id: outcome} of an earlier run; those of files that have changed since are left out.
    """

    _EVERY = 10     # outcomes from one writing to the next

    def __init__(self, results):
        self.path, self.outcomes, self._lock = results.with_suffix(".partial.json"), {}, threading.Lock()
        self._sources = {subject.file: hashlib.sha256((ROOT / subject.file).read_bytes()).hexdigest()
                         for subject in SUBJECTS}

    def load(self):
        """Take over what the last run found. Nothing if there is none."""
        if self.path.exists():
            last = json.loads(self.path.read_text())
            self.outcomes = {its: found for its, found in last["outcomes"].items()
                             if last["sources"].get(found["file"]) == self._sources.get(found["file"])}

    def add(self, mutant, found):
        with self._lock:
            self.outcomes[mutant.id] = {"file": mutant.file, **{what: found[what] for what in ("status", "by")}}
            if len(self.outcomes) % self._EVERY == 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps({"sources": self._sources, "outcomes": self.outcomes}))


def run(chosen, jobs, console, keep=lambda mutant, found: None):
    """Judge mutants.

    Parameters
    ----------
    chosen : {Subject: [Mutant]}
    jobs : int
        So many at a time.
    keep : callable
        Called with each mutant and its outcome, by any thread.

    Returns
    -------
    list of (Mutant, outcome), in the order in which they came.
    """
    children = queue.Queue()
    for _ in range(jobs):
        children.put(Child())

    def judge(*args):
        child = children.get()
        try:
            return child.outcome(*args)
        finally:
            children.put(child)

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(jobs) as pool:
        sound = progress.add_task("the gate as it is", total=len(chosen))

        def measure(subject):
            found = judge(subject)
            if found["status"] != "survived":
                raise RuntimeError(f"{subject.file} as it is: {found['status']} by {found['by']}; see "
                                   f"{WORK / subject.module / 'log'}")
            progress.advance(sound)
            return found["components"], [max(LEAST_SECONDS, PATIENCE * seconds) for seconds in found["seconds"]]

        # The slow ones first, so that nobody waits for one at the end.
        order = sorted(chosen, key=lambda subject: -len(subject.checks))
        measured = dict(zip(order, pool.map(measure, order), strict=True))
        faults = progress.add_task("faults", total=sum(map(len, chosen.values())))
        survivors = 0

        def hold(subject, mutant):
            nonlocal survivors
            found = judge(subject, mutant.id, *measured[subject])
            keep(mutant, found)
            if found["status"] == "survived":
                survivors += 1
                progress.console.print(f"{mutant.file}:{mutant.line} {mutant.id} not caught", highlight=False)
            progress.update(faults, advance=1, description=f"faults, {survivors} not caught")
            return mutant, found

        judged = list(pool.map(lambda pair: hold(*pair), [(s, mutant) for s in chosen for mutant in chosen[s]]))
    while not children.empty():
        children.get().close()
    return judged


def main(names: list[str] = typer.Argument(None, metavar="[FILES]", show_default=False,
                                           help="Files to mutate, or ids of mutants; without one, the whole gate."),
         limit: int = typer.Option(None, help="Only the first so many mutants."),
         sample: int = typer.Option(None, help=f"So many, drawn at random; {DRAWN} if nothing else is said."),
         seed: int = typer.Option(1, help="For the draw."),
         everything: bool = typer.Option(False, "--all", help="Every fault that there is, which takes hours."),
         again: bool = typer.Option(False, "--again", help="The last run stands but for what is named or survived."),
         resume: bool = typer.Option(False, "--resume", help="Go on with a run that was broken off; tests may have "
                                     "changed since, files that are mutated begin anew."),
         jobs: int = typer.Option(os.cpu_count() or 1, help="So many at a time."),
         results: Path = typer.Option(RESULTS, help="Where to write what was found, as JSON.")):
    """Put single faults into the gate and see which of them a test or a proof catches. Exit code 1: less than 99 %."""
    console = Console()
    began = time.monotonic()
    sources = {subject: Source(subject.file, (ROOT / subject.file).read_text()) for subject in SUBJECTS}
    pairs = [(subject, mutant) for subject, source in sources.items() for mutant in source.mutants
             if mutant.operator not in subject.left_out]
    about_nothing = set(arguments()) - {of(mutant) for _, mutant in pairs}
    of_all, stands, seconds, drawn_with = len(pairs), {}, 0., None
    if again:
        last = json.loads(results.read_text())
        if not set(last["outcomes"]) <= {mutant.id for _, mutant in pairs}:
            console.print(f"[red]{results} is about other mutants[/red] than there are now: run without --again first")
            raise typer.Exit(2)
        pairs = [(subject, mutant) for subject, mutant in pairs if mutant.id in last["outcomes"]]
        stands, seconds = {mutant.id: (mutant, last["outcomes"][mutant.id]) for _, mutant in pairs}, last["seconds"]
        drawn_with = last["seed"]
    if again and not names:
        pairs = [(subject, mutant) for subject, mutant in pairs if stands[mutant.id][1]["status"] == "survived"]
    if names:
        known = {name for subject, mutant in pairs for name in (subject.file, mutant.id)}
        if unknown := [name for name in names if name not in known]:
            console.print(f"[red]{', '.join(unknown)}[/red]: neither a file that is mutated nor a mutant; the files "
                          f"are {', '.join(subject.file for subject in SUBJECTS)}")
            raise typer.Exit(2)
        pairs = [(subject, mutant) for subject, mutant in pairs if {subject.file, mutant.id} & set(names)]
    if sample is None and not (names or again or everything or limit):
        sample = DRAWN
    if sample is not None:
        drawn_with = seed
        drawn = set(draw([mutant.id for _, mutant in pairs], sample, seed))
        pairs = [(subject, mutant) for subject, mutant in pairs if mutant.id in drawn]
    pairs, kept = pairs[:limit], Kept(results)
    if resume:
        kept.load()
        stands |= {mutant.id: (mutant, kept.outcomes[mutant.id]) for _, mutant in pairs if mutant.id in kept.outcomes}
        pairs = [(subject, mutant) for subject, mutant in pairs if mutant.id not in kept.outcomes]
    chosen = {}
    for subject, mutant in pairs:
        chosen.setdefault(subject, []).append(mutant)
    judged = stands | {mutant.id: (mutant, found) for mutant, found in run(chosen, jobs, console, kept.add)}
    found = summary(list(judged.values()), seconds + time.monotonic() - began, of_all=of_all, seed=drawn_with)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(found, indent=1) + "\n")
    kept.path.unlink(missing_ok=True)
    for survivor in found["survivors"]:
        if not survivor["argument"]:
            console.print(f"{survivor['file']}:{survivor['line']} [yellow]{survivor['id']}[/yellow] not caught, and "
                          f"nothing says why:\n  {escape(survivor['before'])}\n  {escape(survivor['after'])}",
                          highlight=False)
    if about_nothing:
        console.print(f"{ARGUMENTS} speaks of what is not there: {sorted(about_nothing)}", highlight=False)
    console.print(f"{found['caught']} of {found['mutants']} caught ({found['share']:.1%} but for "
                  f"{found['argued']} that are argued to be equivalent), of {of_all} faults that there are; "
                  f"{found['equivalent']} change nothing, {found['not_elaborated']} are no gateware; "
                  f"{found['seconds']:.0f} s; {results}")
    raise typer.Exit(found["share"] < WANTED)


if __name__ == "__main__":
    typer.run(main)

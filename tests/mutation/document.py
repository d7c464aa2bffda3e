"""``python -m tests.mutation.document``: ``docs/mutation.md``, the README's table, from what ``make mutate`` found."""

import json

from boards.document import fill
from tests.mutation.__main__ import ARGUMENTS, DRAWN, LEAST_SECONDS, PATIENCE, RESULTS, WANTED
from tests.mutation.faults import OPERATORS, Source
from tests.mutation.subjects import ROOT, SUBJECTS, Proved

PAGE, README = ROOT / "docs" / "mutation.md", ROOT / "README.md"
HEAD = """\
# Mutation testing

Written by `make docs` from `out/mutation.json`, which `make mutate` writes. The tests and proofs say that the gate is
right; this says what they are worth. One fault at a time is put into the gate's source, and what holds the gate to its
definitions has to notice.

## Method

- A fault is a change of one place in the Python syntax tree of a file of `hdl/gate`. The mutated module is imported
  from that tree in a process of its own; nothing is written into the source.
- A fault that leaves the generated RTLIL as it is, is none, and is not counted. Neither is one that Amaranth
  refuses to elaborate.
- What is left is a mutant. The checks of its file are tried one after the other until one fails: that one has caught
  it. A test that takes {patience} times as long as it does on the gate as it is (at least {least} s) hangs, and has
  caught it; a proof that does has found nothing out. All checks must pass on the gate as it is before anything else.
- A mutant that passes all of them is held against the original once more, by Yosys: if both do the same in every
  cycle for every input, it is none. Else it has survived, and is told of below, with the reason why it does no harm.
- `make mutate` draws {drawn} of the faults and fails if less than {wanted} of the mutants among them are caught, those
  left out that are equivalent by an argument given below. `make mutate ARGS=--all` tries every one, which takes hours,
  `ARGS="--sample 100 --seed 7"` so many of another draw, `ARGS="hdl/gate/window.py"` those of one file,
  `ARGS=window-choice-1a2b3c4d` one mutant; `ARGS=--again` judges what has survived once more, and the rest of the last
  run stands. What a run that was broken off has found is not lost: `ARGS=--resume` goes on with it.

| operator | what it does |
|---|---|
{operators}

| file | held against it, in this order |
|---|---|
{checks}

## Bounds

- Single faults only, and only those of the table: no wrong signal of the same width, no missing case, no fault in the
  definitions themselves, which tests, proofs and golden model share.
- Only the files of the table. The engine before the gate, the scheduler around it and the path that connects them are
  not mutated; `tests/hdl/quote`, `make formal` and the lock-step runs against the golden model are about those.
- Names, attributes for synthesis, what memories hold at first and the layout of a structure stay as they are.
- Registers of the limits, the hypotheses and the gate start as they do: each evaluation writes them before it looks at
  them. Where it is kept what is armed, live or left, they are given other starts.
- Timing is not looked at: a fault that only makes the logic slower is no fault here.

"""


_COLUMNS = "mutants | caught | equivalent by argument | share of the others"


def _rows(entries):
    return [f"| `{name}` | {entry['mutants']} | {entry['caught']} | {entry['argued']} | {entry['share']:.1%} |"
            for name, entry in entries.items()]


def table(found):
    """What was caught, by file, in Markdown, for the README."""
    return "\n".join([f"| file | {_COLUMNS} |", "|---|---|---|---|---|", *_rows(found["by_file"] | {"all": found})])


def checks():
    """What each file is held against, in Markdown."""
    rows = []
    for subject in SUBJECTS:
        names = dict.fromkeys(f"proof `{check.proof}`" if isinstance(check, Proved) else f"`{check.path}`"
                              for check in subject.checks)
        rows.append(f"| `{subject.file}` | {', '.join(names)} |")
    return "\n".join(rows)


def text(found):
    """The page."""
    head = HEAD.format(patience=PATIENCE, least=LEAST_SECONDS, wanted=f"{WANTED:.0%}", checks=checks(), drawn=DRAWN,
                       operators="\n".join(f"| {name} | {what} |" for name, what in OPERATORS.items()))
    sources = {subject: Source(subject.file, (ROOT / subject.file).read_text()) for subject in SUBJECTS}
    now = {mutant.id for subject, source in sources.items() for mutant in source.mutants
           if mutant.operator not in subject.left_out}
    earlier = [] if set(found["outcomes"]) <= now else [
        "**Of an earlier state of the gate**: there are other mutants now than those that were judged.", ""]
    drawn = [] if found["whole"] else [
        f"{len(found['outcomes'])} of the {found['of_all']} faults that there are were drawn, with seed "
        f"{found['seed']}.", ""]
    lines = [
        "## What was found", "", *earlier, *drawn,
        f"{found['caught']} of {found['mutants']} mutants caught, in {found['seconds'] / 60:.0f} minutes; of the "
        f"others, {found['argued']} are equivalent by argument: nobody could tell them from the gate. But for those "
        f"it is {found['share']:.1%}. {found['equivalent']} more faults do nothing, as Amaranth or Yosys can tell, and "
        f"{found['not_elaborated']} are no gateware.", "",
        table(found), "", f"| operator | {_COLUMNS} |", "|---|---|---|---|---|",
        *_rows(found["by_operator"]), "", "| caught by | mutants |", "|---|---|",
        *(f"| {name} | {count} |" for name, count in found["caught_by"].items()), "", "## Survivors", ""]
    reasons = {}
    for survivor in found["survivors"]:
        reasons.setdefault((survivor["file"], survivor["argument"]), []).append(survivor)
    for (file, argument), survivors in reasons.items():
        lines += [f"**`{file}`**: {argument}", ""]
        lines += [f"- {survivor['operator']}: `{survivor['before']}` → `{survivor['after']}`" for survivor in survivors]
        lines += [""]
    if not reasons:
        lines += ["None.", ""]
    return head + "\n".join(lines)


def main():
    """Write both."""
    if not RESULTS.exists():
        raise SystemExit(f"{RESULTS} is missing: run make mutate first")
    found = json.loads(RESULTS.read_text())
    if not found["whole"] and (found["seed"] is None or len(found["outcomes"]) < DRAWN):
        raise SystemExit(f"{RESULTS} is about some of the mutants: run make mutate, without ARGS")
    if without := [survivor["id"] for survivor in found["survivors"] if not survivor["argument"]]:
        raise SystemExit(f"{ARGUMENTS} says nothing of {', '.join(without)}")
    PAGE.write_text(text(found))
    README.write_text(fill(README.read_text(), "mutation", table(found)))


if __name__ == "__main__":
    main()

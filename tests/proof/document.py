"""``python -m tests.proof.document``: ``docs/proofs.md`` and the README's table from what ``make formal`` found."""

import json

from boards.document import fill
from tests.proof import PROOFS
from tests.proof.__main__ import RESULTS, ROOT

PAGE, README = ROOT / "docs" / "proofs.md", ROOT / "README.md"
HEAD = """\
# Proofs

Written by `make docs` from `out/proofs.json`, which `make formal` writes. Each property is held against the gateware
itself, as Yosys reads it, by z3: its inputs, and reset, may be anything in every cycle. *Induction*: it holds for
ever; over so many cycles from any state that the property allows. *Bounded*: it was shown for so many cycles from reset
on, and why not for ever. Everything that a property speaks of was reached (*cover*), so that none holds for want of a
case.
"""


def text(found):
    """The page."""
    parts = [HEAD]
    for proof in PROOFS:
        entry = found[proof.name]
        lines = [f"## {proof.title} ({proof.gates})", "", proof.claim, "",
                 f"- `{proof.name}`: **{entry['status']}** by {entry['method']} over {entry['depth']} cycles; covers "
                 f"{entry['cover']} within {entry['cover_depth']} cycles; `{proof.component_name}`, `{proof.file}`."]
        if entry["bounded_because"]:
            lines.append(f"- Bounded: {entry['bounded_because']}")
        if entry["assumes"]:
            lines.append(f"- Taken for granted: {entry['assumes']}")
        if entry["cut"]:
            names = ", ".join(f"`{name.removeprefix('dut.')}`" for name in entry["cut"])
            lines.append(f"- Whatever these do, their outputs being anything in every cycle: {names}.")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def table(found):
    """What was proved, in Markdown, for the README."""
    rows = ["| property | gates | status | how | of what can happen |", "|---|---|---|---|---|"]
    for proof in PROOFS:
        entry = found[proof.name]
        how = f"{entry['method']}, {entry['depth']} cycles"
        rows.append(f"| {proof.title} | {proof.gates} | {entry['status']} | {how} | {entry['cover']} |")
    return "\n".join(rows)


def main():
    """Write both."""
    if not RESULTS.exists():
        raise SystemExit(f"{RESULTS} is missing: run make formal first")
    found = json.loads(RESULTS.read_text())
    if missing := [proof.name for proof in PROOFS if proof.name not in found]:
        raise SystemExit(f"{RESULTS} lacks {', '.join(missing)}: run make formal, without names")
    PAGE.write_text(text(found))
    README.write_text(fill(README.read_text(), "proofs", table(found)))


if __name__ == "__main__":
    main()

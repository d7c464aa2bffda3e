"""``python -m tests.proof.document``: ``docs/proofs.md`` from what the last ``make formal`` found."""

import json

from tests.proof import PROOFS
from tests.proof.__main__ import RESULTS, ROOT

PAGE = ROOT / "docs" / "proofs.md"
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
        lines = [f"## {proof.name}", "", proof.claim, "",
                 f"- **{entry['status']}** by {entry['method']} over {entry['depth']} cycles; covers {entry['cover']} "
                 f"within {entry['cover_depth']} cycles; `{proof.component_name}`, `{proof.file}`."]
        if entry["bounded_because"]:
            lines.append(f"- Bounded: {entry['bounded_because']}")
        if entry["assumes"]:
            lines.append(f"- Taken for granted: {entry['assumes']}")
        if entry["cut"]:
            names = ", ".join(f"`{name.removeprefix('dut.')}`" for name in entry["cut"])
            lines.append(f"- Whatever these do, their outputs being anything in every cycle: {names}.")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if not RESULTS.exists():
        raise SystemExit(f"{RESULTS} is missing: run make formal first")
    PAGE.write_text(text(json.loads(RESULTS.read_text())))

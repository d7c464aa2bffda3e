"""The register map: addresses, hash, defaults, what is made of it, and that the core drives all of it."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Fragment

from hdl.control import registers
from hdl.control.bank import LIVE, OWN, WORDS, RegisterBank
from hdl.control.params import PARAM_ROW
from hdl.control.registers import BY_NAME, GATES, PARAMS, REGISTERS, ROW_WORDS

ROOT = Path(__file__).resolve().parents[3]


def test_addresses():
    """Each register has its own, all of one kind in their range, and the ranges do not meet."""
    values, counters = ([r.address for r in REGISTERS if (r.access == "count") == counts] for counts in (False, True))
    assert values == list(range(len(values)))
    assert counters == list(range(registers.COUNTER_BASE, registers.COUNTER_BASE + len(counters)))
    assert len(values) <= registers.COUNTER_BASE
    assert len(BY_NAME) == len(REGISTERS)
    assert counters[-1] < registers.SECURITY_ID_BASE
    assert registers.SECURITY_ID_BASE + 256 <= registers.HISTOGRAM_BASE
    assert registers.HISTOGRAM_BASE + registers.HISTOGRAM_BINS <= registers.PARAM_BASE
    last = registers.param_address(254, PARAMS[-1].name)
    assert registers.param_address(0, PARAMS[0].name) == registers.PARAM_BASE <= last < 1 << 16
    assert registers.security_id_address(254) < registers.HISTOGRAM_BASE


def test_names_and_texts():
    for r in REGISTERS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", r.name)
        assert r.access in ("rw", "ro", "wo", "count"), r.name
        assert 1 <= r.width <= 32, r.name
        assert r.doc, r.name
        assert r.section, r.name
        assert "|" not in r.doc, "it goes into a table"
        for half, other in (("_lo", "_hi"), ("_hi", "_lo")):
            if r.name.endswith(half):
                twin = BY_NAME[r.name[:-3] + other]
                assert (twin.access, abs(twin.address - r.address)) == (r.access, 1)


def test_every_limit_resets_to_zero():
    """And zero blocks: see the gates."""
    assert {r.init for r in REGISTERS} == {0}


def test_parameters_fit_their_row():
    assert len(PARAMS) <= ROW_WORDS
    assert [p.word for p in PARAMS] == list(range(len(PARAMS)))
    assert len({p.name for p in PARAMS}) == len(PARAMS)
    assert all(1 <= p.width <= 32 and p.doc for p in PARAMS)
    assert PARAM_ROW.size == 32 * len(PARAMS)
    for p in PARAMS:
        field = PARAM_ROW[p.name]
        assert (field.offset, field.width) == (32 * p.word, p.width)
        assert (field.shape.signed if hasattr(field.shape, "signed") else False) == p.signed


def test_gates_and_causes_fit():
    assert all(0 <= bit < 32 for bit in GATES)
    assert BY_NAME.keys() >= {f"drop_{name.lower()}" for name, _, _ in GATES.values()}
    assert sorted(registers.HALT_CAUSES.values()) == list(range(len(registers.HALT_CAUSES)))
    assert len(registers.STATES) <= 1 << BY_NAME["state"].width
    assert len(registers.HALT_CAUSES) <= BY_NAME["halt_cause"].width


def test_hash_names_the_content(monkeypatch):
    """Whatever a host could misread changes it."""
    before = registers.content_hash()
    assert int(before[:8], 16) == registers.MAP_HASH
    seen = {before}
    for changes in ({"name": "scratch_pad"}, {"address": 4000}, {"access": "ro"}, {"width": 31}, {"init": 1},
                    {"doc": "Another meaning"}):
        changed = dataclasses.replace(BY_NAME["scratch"], **changes)
        monkeypatch.setattr(registers, "REGISTERS", tuple(changed if r.name == "scratch" else r for r in REGISTERS))
        seen.add(registers.content_hash())
        monkeypatch.undo()
    for name, value in (("PARAMS", PARAMS[1:]), ("ROW_WORDS", 128), ("PARAM_BASE", 0x4000), ("ARM_MAGIC", 1),
                        ("GATES", {0: GATES[0]}), ("HALT_CAUSES", {}), ("STATES", ()), ("HISTOGRAM_BINS", 32)):
        monkeypatch.setattr(registers, name, value)
        seen.add(registers.content_hash())
        monkeypatch.undo()
    assert len(seen) == 15
    assert registers.content_hash() == before


def test_json_is_the_whole_map():
    read = json.loads(registers.to_json())
    assert read["hash"] == registers.content_hash()
    assert [(r["name"], r["address"], r["access"], r["width"], r["init"], r["doc"]) for r in read["registers"]] == \
        [(r.name, r.address, r.access, r.width, r.init, r.doc) for r in REGISTERS]
    assert [(p["name"], p["word"], p["width"], p["signed"]) for p in read["params"]] == \
        [(p.name, p.word, p.width, p.signed) for p in PARAMS]
    assert read["gates"].keys() == {str(g) for g in GATES}
    assert read["arm_magic"] == registers.ARM_MAGIC


def test_markdown_is_the_whole_map():
    page = registers.to_markdown()
    for r in REGISTERS:
        access = "limit" if r.limit else r.access
        assert f"| `0x{r.address:04x}` | `{r.name}` | {access} | {r.width} | {r.doc} |" in page
    for p in PARAMS:
        assert f"| {p.word} | `{p.name}` | {p.width} |" in page
    for bit, (name, _, blocks) in GATES.items():
        assert f"| {bit} | {name} | " in page
        assert blocks in page
    for section in {r.section for r in REGISTERS}:
        assert f"\n## {section}\n" in page
    for name in (*registers.STATES, *registers.HALT_CAUSES):
        assert name in page


def test_bank_has_every_register():
    bank = RegisterBank(1)
    ports = {kind: set(getattr(bank, kind).signature.members) for kind in ("rw", "write", "ro", "count", "now")}
    for r in REGISTERS:
        name = r.name[:-3] if r.name[-3:] in ("_lo", "_hi") else r.name
        kind = {"rw": "rw", "wo": "write", "ro": "ro", "count": "count"}[r.access]
        assert r.name in OWN or name in WORDS or name in ports[kind], r.name
    assert ports["now"] == set(LIVE)
    Fragment.get(bank, None)


FORGOTTEN = """
import dataclasses
from amaranth.hdl import Fragment
from hdl.control import registers
extra = dataclasses.replace(registers.BY_NAME[{like!r}], name="nobody_drives_this", address={address})
registers.REGISTERS += (extra,)
from hdl.core import Core
Fragment.get(Core(1, 2), None)
"""


@pytest.mark.parametrize(("like", "address"), [("gaps", 0xFF), ("state", 0x7F)])
def test_core_drives_every_counter_and_value(like, address):
    """One that it does not know stops the build; that there is none now, every simulation of the core shows."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", FORGOTTEN.format(like=like, address=address)], cwd=ROOT,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "AssertionError: {'nobody_drives_this'}" in run.stderr

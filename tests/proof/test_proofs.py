# amaranth: UnusedElaboratable=no
"""The proofs that take seconds, and what runs and tells of them. ``make formal`` runs all."""

import dataclasses
import json

import pytest
from amaranth.hdl import Assert, Cover, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typer import Typer
from typer.testing import CliRunner

from tests.proof import PROOFS, document
from tests.proof.__main__ import examine, main
from tests.proof.obligation import Proof

#: More than a minute.
SLOW = {"limits_as_defined"}


@pytest.mark.parametrize("proof", [proof for proof in PROOFS if proof.name not in SLOW], ids=lambda proof: proof.name)
def test_proved(proof, tmp_path):
    entry = examine(proof, tmp_path)
    assert (entry["status"], entry["cover"]) == ("proved", "reached"), entry["log"]


class Counter(wiring.Component):
    """Counts to ``most`` and stays there. It never asks what it has counted."""

    def __init__(self, most=5):
        self.most = most
        super().__init__({"en": In(1), "count": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Module()
        full = Signal()
        inner.d.comb += full.eq(self.count == self.most)
        with m.If(self.en & ~full):
            m.d.sync += self.count.eq(self.count + 1)
        return m


def _claims(least=0, most=5, reached=5):
    def claims(m, counter, _):
        m.d.comb += [Assert(counter.count >= least), Assert(counter.count <= most), Cover(counter.count == reached)]
    return claims


STAYS = Proof("stays", "It stays", "G5", "It stays at 5.", Counter, _claims(), depth=1, cover_depth=8)


@pytest.mark.parametrize(("changes", "status", "cover"), [
    ({}, "proved", "reached"),
    ({"claims": _claims(most=4)}, "refuted", "reached"),
    ({"claims": _claims(reached=6)}, "proved", "not reached"),
    # True, but from 6 on, which is never reached, it would go on: the induction cannot know that.
    ({"claims": _claims(most=9), "depth": 1}, "unknown", "reached"),
    ({"claims": _claims(most=9), "bounded": "Only so far."}, "proved", "reached"),
    # Whatever says that it is full may say anything.
    ({"cut": ("dut.inner",), "depth": 9}, "refuted", "reached"),
])
def test_what_is_found(changes, status, cover, tmp_path):
    entry = examine(dataclasses.replace(STAYS, **changes), tmp_path)
    assert (entry["status"], entry["cover"]) == (status, cover), entry["log"]


def test_a_part_that_is_not_there(tmp_path):
    with pytest.raises(RuntimeError, match="no answer"):
        examine(dataclasses.replace(STAYS, cut=("dut.other",)), tmp_path)


def test_command(tmp_path):
    app, results = Typer(), tmp_path / "proofs.json"
    app.command()(main)
    ran = CliRunner().invoke(app, ["session_tokens", "--results", str(results)])
    assert ran.exit_code == 0, ran.output
    assert "1 of 1 proved" in ran.output
    assert json.loads(results.read_text())["session_tokens"]["method"] == "induction"
    ran = CliRunner().invoke(app, ["session_token"])
    assert ran.exit_code == 2
    assert "session_tokens" in ran.output


def test_page():
    entry = {"status": "proved", "method": "induction", "depth": 3, "cover": "reached", "cover_depth": 8,
             "bounded_because": "", "assumes": "", "cut": ["dut.book"]}
    page = document.text({proof.name: entry for proof in PROOFS})
    assert page.count("**proved** by induction over 3 cycles") == len(PROOFS)
    assert "`TradingState`, `tests/proof/state.py`" in page
    assert "`book`" in page

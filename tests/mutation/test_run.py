"""Mutants, judged: one that is caught, one that nothing can catch, one that is none; and what is told."""

import json
import subprocess
import sys

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.mutation import __main__ as run
from tests.mutation import document
from tests.mutation.faults import Mutant, Source
from tests.mutation.subjects import ROOT, SUBJECTS

WINDOW, HOLDS = (next(subject for subject in SUBJECTS if subject.file == f"hdl/gate/{name}.py")
                 for name in ("window", "holds"))


def one(subject, operator, after):
    """The mutant with that text in it."""
    mutants = Source(subject.file, (ROOT / subject.file).read_text()).mutants
    [mutant] = [mutant for mutant in mutants if mutant.operator == operator and after in mutant.after]
    return mutant


#: Below the window it leaves as it is.
CAUGHT = one(WINDOW, "choice", "Mux(below, Mux(above, self.high, px), self.low)")
#: Nobody looks at it before it has been set.
SURVIVOR = one(HOLDS, "reset", "'changed_instrument': Out(8, init=1)")


def caught(by):
    return {"status": "caught", "by": by}


def other(status):
    return {"status": status, "by": None}


@pytest.fixture
def app():
    app = Typer()
    app.command()(run.main)
    return app


def test_caught_and_survived(app, tmp_path):
    results = tmp_path / "mutation.json"
    ran = CliRunner().invoke(app, [CAUGHT.id, SURVIVOR.id, "--jobs", "1", "--results", str(results)])
    assert ran.exit_code == 0, ran.output       # it is equivalent, by argument
    assert "1 of 2 caught" in ran.output
    found = json.loads(results.read_text())
    assert found["caught_by"] == {"tests/hdl/gate/test_window.py": 1}
    assert [survivor["id"] for survivor in found["survivors"]] == [SURVIVOR.id]
    assert "has been set by then" in found["survivors"][0]["argument"]
    assert found["by_file"] == {WINDOW.file: {"mutants": 1, "caught": 1, "argued": 0, "share": 1.},
                                HOLDS.file: {"mutants": 1, "caught": 0, "argued": 1, "share": 1.}}
    assert found["by_operator"]["choice"] == {"mutants": 1, "caught": 1, "argued": 0, "share": 1.}
    assert not found["whole"]


#: In a process that has not imported what is mutated yet.
JUDGE = """
import dataclasses, json, pathlib, sys
from tests.mutation.child import outcome
from tests.mutation.subjects import SUBJECTS
file, folder, *mutants = sys.argv[1:]
[subject] = [dataclasses.replace(each, checks=()) for each in SUBJECTS if each.file == file]
folder = pathlib.Path(folder)
originals = outcome(subject, "", [], [], folder)["components"]
print(json.dumps([outcome(subject, mutant, originals, [], folder)["status"] for mutant in mutants]))
"""


def test_what_is_no_mutant(tmp_path):
    """With no check at all: one whose RTLIL is the same, one that Amaranth refuses, one that does the same."""
    file = "hdl/gate/state.py"
    mutants = Source(file, (ROOT / file).read_text()).mutants
    ids = [next(mutant.id for mutant in mutants if mutant.before == before and mutant.after == after)
           for before, after in (("beats = Signal()", "beats = Signal(init=1)"),
                                 ("m.If(self.heartbeat)", "m.If(~self.heartbeat)"),
                                 ("causes = Signal(len(HALT_CAUSES))",
                                  "causes = Signal(len(HALT_CAUSES), init=1)"))]
    ran = subprocess.run([sys.executable, "-c", JUDGE, file, tmp_path, *ids], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert json.loads(ran.stdout) == ["equivalent", "survived", "equivalent"]


def test_unknown_name(app):
    ran = CliRunner().invoke(app, ["hdl/gate/windows.py"])
    assert ran.exit_code == 2
    assert "hdl/gate/window.py" in ran.output


def test_again_is_about_the_same_mutants(app, tmp_path):
    results = tmp_path / "mutation.json"
    outcomes = {mutant.id: caught("one") for subject in SUBJECTS
                for mutant in Source(subject.file, (ROOT / subject.file).read_text()).mutants
                if mutant.operator not in subject.left_out}
    results.write_text(json.dumps({"outcomes": outcomes, "seconds": 1, "seed": None}))
    ran = CliRunner().invoke(app, ["--again", "--results", str(results)])
    assert ran.exit_code == 0, ran.output
    assert f"{len(outcomes)} of {len(outcomes)} caught" in ran.output.replace("\n", " "), "nothing had survived"
    assert json.loads(results.read_text())["whole"]
    del outcomes[CAUGHT.id]     # a draw
    results.write_text(json.dumps({"outcomes": outcomes, "seconds": 1, "seed": 5}))
    ran = CliRunner().invoke(app, ["--again", "--results", str(results)])
    assert ran.exit_code == 0, ran.output
    found = json.loads(results.read_text())
    assert (len(found["outcomes"]), found["whole"], found["seed"]) == (len(outcomes), False, 5)
    outcomes["window-choice-none"] = caught("one")
    results.write_text(json.dumps({"outcomes": outcomes, "seconds": 1, "seed": 5}))
    ran = CliRunner().invoke(app, ["--again", "--results", str(results)])
    assert ran.exit_code == 2
    assert "other mutants" in ran.output


def test_a_run_that_was_broken_off(app, tmp_path, monkeypatch):
    """What it found stands, but that of a file that is another one now; the rest is judged."""
    results = tmp_path / "mutation.json"
    kept = run.Kept(results)
    monkeypatch.setattr(kept, "_EVERY", 1)
    kept.add(CAUGHT, caught("one"))
    kept.add(SURVIVOR, other("survived"))
    last = json.loads(kept.path.read_text())
    last["sources"][HOLDS.file] = "of another"
    kept.path.write_text(json.dumps(last))
    asked = []

    def judge(chosen, *_):
        asked.extend(mutant.id for mutants in chosen.values() for mutant in mutants)
        return [(mutant, caught("two")) for mutants in chosen.values() for mutant in mutants]
    monkeypatch.setattr(run, "run", judge)
    ran = CliRunner().invoke(app, ["--resume", CAUGHT.id, SURVIVOR.id, "--results", str(results)])
    assert ran.exit_code == 0, ran.output
    assert asked == [SURVIVOR.id]
    found = json.loads(results.read_text())
    assert {its: what["by"] for its, what in found["outcomes"].items()} == {CAUGHT.id: "one", SURVIVOR.id: "two"}
    assert not kept.path.exists()


def test_arguments_are_looked_up_by_words_not_lines(tmp_path, monkeypatch):
    path = tmp_path / "survivors.toml"
    path.write_text('[[survivor]]\nfile = "hdl/gate/window.py"\noperator = "choice"\nbefore = "before"\n'
                    'after = ["after", "other"]\nargument = """\nIt only costs\na cycle."""\n')
    monkeypatch.setattr(run, "ARGUMENTS", path)
    assert run.arguments()[run.of(mutant("a"))] == run.arguments()[run.of(mutant("b"))] == "It only costs a cycle."
    assert run.of(mutant("a", "width")) not in run.arguments()


def mutant(name, operator="choice", file="hdl/gate/window.py"):
    return Mutant(name, file, 1, 0, operator, "before", "after")


def test_a_draw_hardly_changes_with_what_there_is():
    ids = [f"window-choice-{n}" for n in range(1000)]
    drawn = run.draw(ids, 100, 1)
    assert len(set(drawn)) == 100
    assert len(set(drawn) & set(run.draw(ids, 100, 2))) < 30
    more = run.draw([*ids, *(f"window-width-{n}" for n in range(10))], 100, 1)
    assert len(set(drawn) & set(more)) >= 90
    assert run.draw(ids, 5000, 1) == run.draw(ids, 1000, 1)


def test_summary():
    judged = [(mutant("a"), caught("one")), (mutant("b"), caught("two")), (mutant("c", "width"), caught("one")),
              (mutant("d"), other("survived")), (mutant("e"), other("equivalent")),
              (mutant("f"), other("not elaborated"))]
    found = run.summary(judged, 12.34, of_all=6, seed=None)
    assert found["whole"]
    expected = {"mutants": 4, "caught": 3, "argued": 0, "share": .75, "equivalent": 1, "not_elaborated": 1,
                "seconds": 12.3}
    assert {name: found[name] for name in expected} == expected
    assert found["caught_by"] == {"one": 2, "two": 1}
    assert found["by_operator"]["choice"] == {"mutants": 3, "caught": 2, "argued": 0, "share": .6667}
    assert found["survivors"] == [vars(mutant("d")) | {"argument": ""}]


def test_page():
    found = run.summary([(mutant("a"), caught("one")), (mutant("d"), other("survived"))], 60, of_all=7, seed=3)
    found["survivors"][0]["argument"] = "It only costs a cycle."
    page = document.text(found)
    assert "2 of the 7 faults that there are were drawn, with seed 3." in page
    assert "1 of 2 mutants caught, in 1 minutes" in page
    assert "**`hdl/gate/window.py`**: It only costs a cycle.\n\n- choice: `before` → `after`" in page
    assert "| `hdl/gate/window.py` | 2 | 1 | 0 | 50.0% |" in document.table(found)
    for subject in SUBJECTS:
        assert f"| `{subject.file}` |" in page

"""The session against Linux's TCP, in short: `make soak` is the long form."""

import json

import pytest

from sim.soak.__main__ import main

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.mark.timeout(600)
def test_every_byte_arrives_once_in_order(tmp_path, capsys):
    """Under loss, reordering and repetition, in both directions; frame for frame what the golden model sends; and with
    bits that flip and frames that end early."""
    code = main(["--short", "--out", str(tmp_path)])
    print(capsys.readouterr().out)
    assert code == 0
    runs = json.loads((tmp_path / "session.json").read_text())["runs"]
    assert all(run["segments_resent"] for run in runs)
    assert all(run["trigger_to_quote"] == [2, 2] and run["most_unacknowledged"] > 500 for run in runs)
    [compared] = [run for run in runs if run["frames_compared"]]
    assert compared["frames_compared"] > 400


@pytest.mark.timeout(300)
def test_a_script_of_faults(tmp_path, capsys):
    assert main(["--rules", "drop data 7th x2; reorder data 20", "--rules-back", "drop data 3", "--out",
                 str(tmp_path)]) == 0
    [run] = json.loads((tmp_path / "session.json").read_text())["runs"]
    assert run["impaired_out"]["drop"] == 2
    assert run["impaired_back"]["drop"] == 1
    assert run["segments_resent"] >= 2
    assert main(["--rules", "drop everything", "--out", str(tmp_path)]) == 2
    assert "'drop everything' is no rule" in capsys.readouterr().err

"""The command line without a daemon: help that teaches, one line and exit code 2 for what cannot be."""

import os
import re

import pytest
import structlog
from typer.testing import CliRunner

from host import cli
from host.control import Client, ControlError, _bind

from .conftest import FIRST_LIGHT

COMMANDS = ["replay", "run", "venue", "board", "status", "watch", "arm", "disarm", "reduce", "kill", "limits",
            "why", "latency", "flash", "registers"]
LIMITS = ["show", "set", "load", "diff", "arm", "discard"]


@pytest.fixture(autouse=True)
def _logging_as_before():
    """Commands set the log up for their own standard error, which ends with them here."""
    yield
    structlog.reset_defaults()


def invoke(*arguments):
    return CliRunner().invoke(cli.app, arguments)


def test_the_commands_are_those_that_are_promised():
    listed = invoke("--help")
    assert listed.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s+\S", listed.stdout, re.MULTILINE), name
    assert "never been connected to a live market" in " ".join(listed.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name):
    shown = invoke(name, "--help")
    assert shown.exit_code == 0
    assert len(" ".join(shown.stdout.split())) > 150


@pytest.mark.parametrize("name", LIMITS)
def test_every_command_about_limits_says_what_it_does(name):
    listed = invoke("limits", "--help")
    assert re.search(rf"^  {name}\s+\S", listed.stdout, re.MULTILINE)
    shown = invoke("limits", name, "--help")
    assert shown.exit_code == 0
    assert len(" ".join(shown.stdout.split())) > 150


@pytest.mark.parametrize(("arguments", "text"), [
    (["kill"], "Exit code 0: verified. 3: not verified"),
    (["disarm"], "Exit code 3 if it has not been."),
    (["limits", "diff"], "Exit code 0: no difference. 1: there is one."),
    ([], "Exit codes: 0 done; 1 a check failed or there is a difference; 2 it could not run"),
])
def test_exit_codes_are_told(arguments, text):
    assert text in " ".join(invoke(*arguments, "--help").stdout.split())


def answering(monkeypatch, answer):
    """Let the daemon answer every command like this; returns the list of what it was asked."""
    asked = []

    def request(config, socket_path, do, timeout_s=10.0, **arguments):
        asked.append((do, arguments))
        return answer
    monkeypatch.setattr(cli, "_request", request)
    return asked


@pytest.mark.parametrize("command", ["kill", "disarm"])
@pytest.mark.parametrize(("lots", "verified", "code", "out", "error"), [
    (0, True, 0, "verified: nothing is open at the venue\n", ""),
    (None, False, 3, "", "t2q: NOT VERIFIED that nothing is open at the venue (unknown); look at the venue"),
    (7, False, 3, "", "t2q: NOT VERIFIED that nothing is open at the venue (7 lots); look at the venue"),
])
def test_a_stop_says_whether_it_was_verified(monkeypatch, command, lots, verified, code, out, error):
    answering(monkeypatch, {"state": "HALTED", "halt_cause": ["kill_register"], "open_at_venue": lots,
                            "verified": verified})
    result = invoke(command)
    assert (result.exit_code, result.stdout) == (code, "HALTED (kill_register)\n" + out)
    assert result.stderr.startswith(error)
    assert invoke(command, "--json").exit_code == code


CHANGE = {"instrument": "A", "limit": "max_long", "unit": "quantity", "active": "10", "staged": "5",
          "words": {"max_long_lots": [100, 50]}}


@pytest.mark.parametrize(("changes", "staged", "code", "words"), [
    ([CHANGE], True, 1, "A max_long 10 quantity 5 quantity max_long_lots: 100 -> 50"),
    ([], True, 0, "no difference"),
    ([], False, 0, "no difference: nothing is staged"),
])
def test_a_difference_shows_in_the_exit_code(monkeypatch, changes, staged, code, words):
    answering(monkeypatch, {"staged": staged, "changes": changes})
    shown = invoke("limits", "diff")
    assert shown.exit_code == code
    assert " ".join(shown.stdout.splitlines()[-1].split()) == words
    assert invoke("limits", "diff", "--json").exit_code == code


def test_set_says_what_is_stored(monkeypatch):
    asked = answering(monkeypatch, {"staged": True, "stored": [
        {"instrument": "A", "limit": "max_notional", "unit": "money", "old": "1", "given": "2.03", "value": "2",
         "rounded": True, "words": {"max_notional_lo": 20, "max_notional_hi": 0}},
        {"instrument": "card", "limit": "max_rejects_per_s", "unit": "a second", "old": "1", "given": "2", "value": "2",
         "rounded": False, "words": {}}]})
    assert invoke("limits", "set", "max_notional=2.03", "max_rejects_per_s=2").stdout == (
        "A max_notional = 2.03, stored as 2 money (max_notional_lo=20 max_notional_hi=0)\n"
        "card max_rejects_per_s = 2 a second\n"
        "staged, not active: t2q limits diff shows it, t2q limits arm makes it active\n")
    assert asked == [("limits set", {"changes": {"max_notional": "2.03", "max_rejects_per_s": "2"},
                                     "instrument": None})]


def test_no_decision_to_explain(monkeypatch):
    asked = answering(monkeypatch, {"kept": 0, "drops": []})
    assert invoke("why", "3", "-i", "A").stdout == "no decision has been stopped by a gate\n"
    assert asked == [("why", {"count": 3, "instrument": "A"})]


@pytest.mark.parametrize(("arguments", "text"), [
    (["status"], "no daemon at {tmp}/none"),
    (["arm"], "no daemon at {tmp}/none"),
    (["disarm"], "no daemon at {tmp}/none"),
    (["kill"], "no daemon at {tmp}/none"),
    (["watch"], "no daemon at {tmp}/none"),
    (["limits"], "no daemon at {tmp}/none"),
    (["limits", "show"], "no daemon at {tmp}/none"),
    (["limits", "set", "max_long=5"], "no daemon at {tmp}/none"),
    (["limits", "diff"], "no daemon at {tmp}/none"),
    (["limits", "arm"], "no daemon at {tmp}/none"),
    (["limits", "discard"], "no daemon at {tmp}/none"),
    (["limits", "load", str(FIRST_LIGHT)], "no daemon at {tmp}/none"),
    (["why"], "no daemon at {tmp}/none"),
    (["latency"], "no daemon at {tmp}/none"),
])
def test_no_daemon(arguments, text, tmp_path):
    result = invoke(*arguments, "--socket", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert text.format(tmp=tmp_path) in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("t2q: ")


@pytest.mark.parametrize(("arguments", "text"), [
    (["status", "-c", "absent.toml"], "absent.toml: cannot be read"),
    (["replay", "absent.pcap"], "absent.pcap: no such file"),
    (["replay", "-c", "absent.toml"], "absent.toml: cannot be read"),
    (["venue", "-c", "absent.toml"], "absent.toml: cannot be read"),
    (["limits", "load", "absent.toml"], "absent.toml: cannot be read"),
    (["limits", "-s", "socket", "diff"], "give options behind the command: t2q limits diff --socket"),
    (["limits", "set", "max_long"], "max_long: must be KEY=VALUE such as max_long=5"),
    (["limits", "set", "max_long=5", "max_long=6"], "max_long=6: max_long is given twice"),
    (["run", "/dev/absent"], "cannot open serial port /dev/absent"),
    (["run", "/dev/absent", "--log-level", "loud"], "--log-level loud: must be debug, info, warning or error"),
])
def test_wrong_files(arguments, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bad_configuration_is_named(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(FIRST_LIGHT.read_text().replace("stale_ms = 5_000", "stale_ms = 50_000"))
    result = invoke("replay", "-c", str(path))
    assert result.exit_code == 2
    assert "instruments[0] (IDX01_USDC-PERPETUAL).stale_ms = 50000: 6250000000 cycles do not fit" in result.stderr


def test_a_foreign_socket_file_is_left_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ControlError, match="exists and is no control socket"):
        _bind(path)
    assert path.read_text() == "mine"


def test_a_socket_left_behind_is_taken_over(tmp_path):
    path = tmp_path / "control"
    _bind(path).close()
    assert path.exists()
    with pytest.raises(ControlError, match=r"no daemon at .*control \(Connection refused\)"):
        Client(path)
    bound = _bind(path)
    assert os.stat(path).st_mode & 0o777 == 0o660
    bound.close()


def test_a_daemon_that_is_there_keeps_its_socket(tmp_path):
    path = tmp_path / "control"
    bound = _bind(path)
    bound.listen(1)
    with pytest.raises(ControlError, match="another daemon serves"):
        _bind(path)
    bound.close()


def test_the_map_is_printed():
    assert "| `deadman_cycles` |" in invoke("registers").stdout.replace("0x", "")
    assert '"hash"' in invoke("registers", "--json").stdout

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
            "latency", "flash", "registers"]


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


@pytest.mark.parametrize(("arguments", "text"), [
    (["status"], "no daemon at {tmp}/none"),
    (["arm"], "no daemon at {tmp}/none"),
    (["disarm"], "no daemon at {tmp}/none"),
    (["kill"], "no daemon at {tmp}/none"),
    (["watch"], "no daemon at {tmp}/none"),
    (["limits"], "no daemon at {tmp}/none"),
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
    (["limits", "--load", "absent.toml"], "absent.toml: cannot be read"),
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

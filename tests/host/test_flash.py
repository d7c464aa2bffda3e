"""Writing a board, as far as that goes without one: the command line to the letter, every error, the check."""

import os
import threading
import time
import tty

import pytest
from typer.testing import CliRunner

from hdl.control import registers as regmap
from host import cli, flash, link
from host.serial_device import SerialDevice

BOARD = "ecpix5"


@pytest.fixture
def bitstream(tmp_path):
    path = tmp_path / "a.bit"
    path.write_bytes(b"bits")
    return path


def loader(tmp_path, *, code=0, says=""):
    """A stand-in for openFPGALoader that notes how it was called."""
    path = tmp_path / "loader"
    path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\necho "{says}" >&2\nexit {code}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("board", "cable"), [
    ("colorlight_5a75b_r7_0", ["-c", "ft232"]), ("ecpix5", ["-b", "ecpix5"]), ("versa_ecp5", ["-c", "ft2232"])])
def test_the_command_line(board, cable, bitstream):
    command = flash.plan(board, bitstream=bitstream, loader="openFPGALoader")
    assert command.argv == ["openFPGALoader", *cable, "--write-sram", str(bitstream)]
    command = flash.plan(board, bitstream=bitstream, loader="openFPGALoader", permanent=True)
    assert command.argv == ["openFPGALoader", *cable, "--write-flash", "--unprotect-flash", "--verify", str(bitstream)]
    command = flash.plan(board, bitstream=bitstream, loader="x", extra=("-c", "digilent_hs2"))
    assert command.argv == ["x", "-c", "digilent_hs2", "--write-sram", str(bitstream)]


def test_the_default_bitstream_is_that_of_make_bitstream(monkeypatch, tmp_path):
    monkeypatch.setattr(flash.flow, "BUILD", tmp_path)
    with pytest.raises(flash.FlashError, match=r"ecpix5\.bit: no such bitstream; make it with: make bitstream "
                                               r"BOARD=ecpix5"):
        flash.plan(BOARD, loader="x")
    path = tmp_path / "boards" / BOARD / f"{BOARD}.bit"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert flash.plan(BOARD, loader="x").bitstream == path


def test_what_is_not_there_is_named(monkeypatch, bitstream):
    with pytest.raises(flash.FlashError, match="there is no board 'icebreaker'; there are colorlight_5a75b_r7_0, "):
        flash.plan("icebreaker", bitstream=bitstream)
    with pytest.raises(flash.FlashError, match=r"nowhere\.bit: no such bitstream$"):
        flash.plan(BOARD, bitstream="nowhere.bit", loader="x")
    monkeypatch.setenv("OPENFPGALOADER", "no-such-loader")
    with pytest.raises(flash.FlashError, match="no-such-loader is missing"):
        flash.plan(BOARD, bitstream=bitstream)


def test_the_installed_loader_is_found(monkeypatch):
    monkeypatch.delenv("OPENFPGALOADER", raising=False)
    assert "openfpgaloader" in flash.find_loader().lower()


@pytest.mark.parametrize(("says", "message"), [
    ("unable to open ftdi device: -3 (device not found)", "no LambdaConcept ECPIX-5 .* found: is its JTAG cable"),
    ("error while loading shared libraries: libusb-1.0.so.0: cannot open shared object file",
     "apt-get install libusb-1.0-0"),
    ("Verify error", "openFPGALoader failed with code 1: Verify error"),
])
def test_a_failure_says_what_to_do(says, message, tmp_path, bitstream):
    command = flash.plan(BOARD, bitstream=bitstream, loader=str(loader(tmp_path, code=1, says=says)))
    with pytest.raises(flash.FlashError, match=message):
        command.run()


def test_a_loader_that_cannot_be_run_is_an_error(bitstream):
    with pytest.raises(flash.FlashError, match="/nowhere/loader cannot be run: No such file"):
        flash.plan(BOARD, bitstream=bitstream, loader="/nowhere/loader").run()


class Card:
    """The other end of a serial line: answers reads of the map's hash, from the n-th on."""

    def __init__(self, value, silent=0):
        self.value, self.silent = value, silent
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        ask, received = link.encode_read(0, regmap.BY_NAME["map_hash"].address), b""
        tag_at = link.HEADER.size
        os.set_blocking(self.master, False)
        while not self.end.is_set():
            try:
                data = os.read(self.master, 1000)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            received += data
            while len(received) >= len(ask):    # nothing but reads of this register is ever sent
                packet, received = received[:len(ask)], received[len(ask):]
                tag = packet[tag_at]
                assert packet == link.encode_read(tag, regmap.BY_NAME["map_hash"].address)
                if self.silent:
                    self.silent -= 1
                    continue
                os.write(self.master, link.encode("ReadReply", link.SCHEMA["ReadReply"].encode(
                    {"tag": tag, "addr": regmap.BY_NAME["map_hash"].address, "data": self.value})))

    def close(self):
        self.end.set()
        self.thread.join()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def card():
    made = []

    def make(*arguments):
        made.append(Card(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_card_that_comes_up_is_asked_until_it_answers(card):
    device = SerialDevice(card(regmap.MAP_HASH, 1).path)
    try:
        assert flash.check(device) == regmap.MAP_HASH
    finally:
        device.close()


def test_another_register_map_is_refused(card):
    device = SerialDevice(card(regmap.MAP_HASH ^ 1).path)
    try:
        with pytest.raises(flash.FlashError, match=f"is written, but the card's register map has hash "
                                                   f"{regmap.MAP_HASH ^ 1:08x}"):
            flash.check(device)
    finally:
        device.close()


def test_silence_is_an_error(card):
    device = SerialDevice(card(0, 1000).path)
    try:
        with pytest.raises(flash.FlashError, match=r"nothing answers on the host link within 0\.2 s"):
            flash.check(device, timeout_s=0.2)
    finally:
        device.close()


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["flash", *arguments])


def test_the_command_writes_and_checks(card, tmp_path, bitstream, monkeypatch):
    monkeypatch.setenv("OPENFPGALOADER", str(loader(tmp_path)))
    port = card(regmap.MAP_HASH).path
    result = invoke(BOARD, "--bitstream", str(bitstream), "--port", port)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"ecpix5: written; the card answers, register map {regmap.MAP_HASH:08x}\n"
    assert (tmp_path / "called").read_text() == f"-b ecpix5 --write-sram {bitstream}\n"


def test_the_command_without_a_board(tmp_path, bitstream, monkeypatch):
    monkeypatch.setenv("OPENFPGALOADER", str(loader(tmp_path, code=1, says="unable to open ftdi device: -3")))
    common = (BOARD, "--bitstream", str(bitstream))
    shown = invoke(*common, "--dry-run")
    assert shown.stdout == f"{tmp_path}/loader -b ecpix5 --write-sram {bitstream}\n"
    assert not (tmp_path / "called").exists()
    for arguments, message in ((common, "--port is missing"),
                               ((*common, "--port", "/dev/nothing"), "/dev/nothing: no such serial port"),
                               ((*common, "--no-check"), "no LambdaConcept ECPIX-5 (85F) found")):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_it_is_said_that_it_is_untried():
    assert "Untried on hardware" in " ".join(invoke("--help").stdout.split())

"""A bitstream onto a board with openFPGALoader, then a look at whether the card that comes up is the one meant.

Untried on hardware: what is tested is the command line, and the check against a simulated link.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from boards import board as boards
from boards import flow

from .device import DeviceError
from .registers import MapMismatch, Registers, check_map

__all__ = ["FlashCommand", "FlashError", "bitstream_of", "check", "find_loader", "plan"]

CHECK_S = 5.0       # for a card to answer after its configuration, PHYs and all
ASK_EVERY_S = 0.5


class FlashError(RuntimeError):
    """It cannot be written, or what came up does not answer. The message says what to do."""


@dataclass(frozen=True)
class FlashCommand:
    """One run of openFPGALoader, not yet done.

    Parameters
    ----------
    board : boards.board.Board
    bitstream : Path
    loader : str
        Path of the program.
    permanent : bool
        Into the flash memory, from which the board starts; else into the FPGA, until power goes.
    extra : tuple[str, ...]
        More arguments, e.g. another cable.
    """

    board: boards.Board
    bitstream: Path
    loader: str
    permanent: bool = False
    extra: tuple[str, ...] = ()

    @property
    def argv(self):
        """The command line."""
        where = ["--write-flash", "--unprotect-flash", "--verify"] if self.permanent else ["--write-sram"]
        return [self.loader, *(self.extra or self.board.loader), *where, str(self.bitstream)]

    def run(self):
        """Do it, its output to this terminal's standard error; raises :class:`FlashError` if it fails."""
        try:
            done = subprocess.run(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace")
        except OSError as error:
            raise FlashError(f"{self.loader} cannot be run: {error.strerror}") from None
        if done.returncode == 0:
            return
        if "libusb" in done.stdout and "shared" in done.stdout:
            raise FlashError("openFPGALoader needs the library libusb-1.0; install it, e.g. with: apt-get install "
                             "libusb-1.0-0")
        if any(text in done.stdout.lower() for text in ("unable to open", "can't open device", "device not found",
                                                        "no device")):
            raise FlashError(f"no {self.board.title} found: is its JTAG cable plugged in, and may you use it? "
                             f"(openFPGALoader: {_last_line(done.stdout)})")
        raise FlashError(f"openFPGALoader failed with code {done.returncode}: {_last_line(done.stdout)}")


def _last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def find_loader():
    """Path of openFPGALoader; raises :class:`FlashError` if it is nowhere.

    Looked for in ``OPENFPGALOADER``, beside the Python that runs, and on ``PATH``.
    """
    chosen = os.environ.get("OPENFPGALOADER")
    for candidate in ([chosen] if chosen else [str(Path(sys.executable).parent / "openfpgaloader-cli"),
                                               "openfpgaloader-cli", "openFPGALoader"]):
        if found := shutil.which(candidate):
            return found
    raise FlashError(f"{chosen or 'openFPGALoader'} is missing; 'make setup' installs it (package openfpgaloader), or "
                     f"name another with OPENFPGALOADER")


def bitstream_of(board):
    """Where ``make bitstream`` leaves the bitstream of a board."""
    return flow.BUILD / "boards" / board.name / f"{board.name}.bit"


def plan(name, *, bitstream=None, permanent=False, extra=(), loader=None):
    """:class:`FlashCommand` for a board's name.

    Raises :class:`FlashError` if board, bitstream or openFPGALoader are not there.
    """
    try:
        board = boards.load(name)
    except boards.UnknownBoard as error:
        raise FlashError(str(error)) from None
    path = Path(bitstream) if bitstream else bitstream_of(board)
    if not path.is_file():
        raise FlashError(f"{path}: no such bitstream" + ("" if bitstream else f"; make it with: make bitstream "
                                                                               f"BOARD={name}"))
    return FlashCommand(board, path, loader or find_loader(), permanent, tuple(extra))


def check(device, *, timeout_s=CHECK_S, sleep=time.sleep):
    """Ask a card for the hash of its register map; returns it.

    Parameters
    ----------
    device : host.device.Device

    Raises
    ------
    FlashError
        No answer in time, or the hash of another map.
    """
    registers = Registers(device)
    pending, deadline, asked = [], time.monotonic() + timeout_s, None
    while time.monotonic() < deadline:
        if asked is None or time.monotonic() - asked >= ASK_EVERY_S:
            pending.append(registers.read("map_hash"))      # the card may have missed the one before
            asked = time.monotonic()
        try:
            device.flush()
            device.poll()
        except DeviceError as error:
            raise FlashError(f"the bitstream is written, but the host link failed: {error}") from None
        for each in pending:
            if each.done:
                try:
                    check_map(each.value)
                except MapMismatch as error:
                    raise FlashError(f"the bitstream is written, but {error}") from None
                return each.value
        sleep(0.01)
    raise FlashError(f"the bitstream is written, but nothing answers on the host link within {timeout_s:g} s: is this "
                     f"the card's serial port, and the bit rate right?")

"""The virtual board on a TAP interface: daemon and card on one side of the wire, Linux's TCP on the other.

The exchange simulator is a program of its own in a network namespace, on a socket of the kernel. The card lives in
simulated time, which is slower than the kernel's: a time-out of the kernel's of 200 ms is one or two of the card's.
"""

import select
import time
from pathlib import Path

from hdl.layout import net
from host.daemon import Daemon
from host.serial_device import SerialDevice
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.pty import LinkPty
from sim.golden.model import GoldenModel
from sim.kernel import KernelExchange
from sim.lockstep import Lockstep
from sim.soak.impairment import Impairment
from sim.talk import talk

__all__ = ["Rig", "RigError"]

BURST = 2_500           # cycles between two looks at the wire
_START_S = 60.0         # wall time within which the session comes up


class RigError(RuntimeError):
    """Something did not come up, or did not go on."""


class Rig:
    """Board, daemon, wire, kernel, exchange.

    Parameters
    ----------
    config : :class:`host.config.Config`. config_path : the file that it is from, for the exchange.
    folder : Path, for what the exchange records.
    out, back : :class:`Impairment` from the board to the kernel, and from the kernel to the board.
    seed : of the first TCP number.
    golden : compare every frame with the golden model, too; ``lock.finish()`` tells which differ.

    Attributes
    ----------
    sent : (cycle, frame without FCS) that the board has sent; came : likewise, that it was given.
    exchange : :class:`sim.kernel.KernelExchange`.
    responses : every byte that the daemon was given of the session.
    """

    def __init__(self, config, config_path, folder, *, out=None, back=None, seed=1, golden=False):
        self.config, self.folder = config, Path(folder)
        self.out, self.back = out or Impairment(), back or Impairment()
        self.sent, self.came, self.responses = [], [], bytearray()
        self.epoch_ns = time.time_ns()
        self.daemon = self.pty = self.device = None
        self.exchange = KernelExchange(config, config_path, "--record", self.folder)
        self.tap = self.exchange.tap
        try:
            board = VirtualBoard()
            self.lock = Lockstep(board, GoldenModel()) if golden else _Alone(board)
            self.pty = LinkPty(self.lock)
            self.device = SerialDevice(self.pty.path)
            self.daemon = Daemon(config, self.device, isn=seed * 0x01000193 & 0xFFFFFFFF)
            self._listen()
        except BaseException:
            self.close()
            raise

    def _listen(self):
        """Keep what the daemon is given of the session."""
        receive = self.daemon._session_bytes

        def heard(data):
            self.responses += data
            receive(data)
        self.daemon._session_bytes = heard

    @property
    def cycle(self):
        return self.lock.board.cycle

    # ------------------------------------------------------------------ time

    def step(self, feed=None):
        """One burst, and what it has brought about."""
        lock = self.lock
        lock.begin(BURST)
        lock.end()
        for frame in lock.process():
            self.sent.append((frame.start, frame.frame))
            if frame.faults:
                raise RigError(f"the board has sent a frame with {frame.faults}")
            for each in self.out.pass_(frame.frame, frame.end):
                self.tap.write(each)
        cycle = self.cycle
        for each in self.out.due(cycle):
            self.tap.write(each)
        arrived = list(self.back.due(cycle))
        while select.select([self.tap], [], [], 0)[0]:
            arrived += self.back.pass_(self.tap.read(), cycle)
        if arrived:
            self.came += [(cycle, frame) for frame in arrived]
            lock.inject(1, [frame.ljust(net.MIN_FRAME, b"\0") for frame in arrived], [cycle] * len(arrived))
        if feed is not None:
            injections = feed.frames_until(cycle + BURST)
            if injections:
                lock.inject(0, [each.frame for each in injections], [each.start for each in injections])
        talk(self.daemon, self.device, self.pty, self.epoch_ns + cycle * CYCLE_NS)

    def until(self, condition, what, wall_s=_START_S):
        """Step until ``condition()``. Raises :class:`RigError` with what was waited for."""
        deadline = time.monotonic() + wall_s
        while not condition():
            if self.daemon.phase == "failed":
                raise RigError(f"the daemon failed: {self.daemon.error}")
            if time.monotonic() > deadline:
                raise RigError(f"{what}: not within {wall_s:g} s")
            self.step()

    def start(self):
        """Bring the session up and arm."""
        self.until(lambda: self.daemon.phase == "ready", "the session did not come up")
        arm = self.daemon.submit("arm", self.daemon.arm())
        self.until(lambda: arm.done, "the card did not arm")
        if arm.error is not None:
            raise RigError(f"the card did not arm: {arm.error}")

    def recorded(self, what):
        """File with the bytes of the first connection that the exchange has ``"received"`` or ``"sent"``."""
        return self.folder / f"0.{what}"

    def close(self):
        """Give everything back."""
        for each in (self.device, self.pty, self.exchange):
            if each is not None:
                each.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Alone:
    """A board with the interface of :class:`Lockstep`, and no model beside it."""

    def __init__(self, board):
        self.board, self._sent = board, []
        for name in ("link_write", "link_read", "link_pace"):
            setattr(self, name, getattr(board, name))

    def begin(self, cycles):
        self.board.run(cycles)

    def end(self):
        self._sent = self.board.take_tx("order")
        self.board.take_register_writes()
        self.board.take_host_tx()

    def process(self):
        return self._sent

    def inject(self, port, frames, starts):
        self.board.inject_many(port, frames, starts)

    def finish(self):
        return []

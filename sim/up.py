"""`t2q sim up`: everything at once, and left running.

The virtual board on a TAP interface, its feed in a loop, the daemon at its serial port, and at the other end of the
wire, in a network namespace, the exchange simulator on the kernel's TCP. The card lives in simulated time, which is
slower than the kernel's and the daemon's.
"""

import json
import signal
import subprocess
import sys
import time

from hdl.control import registers
from host import config as configuration
from host import params
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.ports import TapPort, Wires
from sim.board.pty import LinkPty
from sim.kernel import KernelExchange
from sim.live import ListeningLink, LoopingFeed
from sim.replay import load_source
from sim.venue import listing

__all__ = ["UpError", "run_up"]

BURST = 2_500           # cycles between two looks at the wire
_HEARTBEAT_S = 3600     # of the exchange, in its own time
_STOP_S = 60.0


class UpError(RuntimeError):
    """Something that was started has ended. The message says what."""


class _Board:
    """The virtual board between feed, wire and serial port."""

    def __init__(self, config, frames, board, tap):
        self.board = board
        lines = tuple((line.ip, line.port) if line else (0, 0) for line in (config.feed.line_a, config.feed.line_b))
        self.feed = LoopingFeed(frames, lines, listing.feed_ticks(config), lambda event: None,
                                params.feed_words(config.feed)["vlan"])
        self._wires = Wires(board, burst=BURST)
        self._wires.attach("feed", self.feed)
        self._wires.attach("order", TapPort(tap))
        self.link = ListeningLink(board)
        self._pty = LinkPty(self.link)
        self.path = self._pty.path

    def step(self):
        self._pty.pump()
        self._wires.run(BURST)
        self._pty.pump()
        self.board.take_register_writes()
        self.board.take_host_tx()

    def status(self):
        """As plain data. Times are simulated nanoseconds since the first cycle."""
        state = self.link
        return {"time_ns": self.board.cycle * CYCLE_NS, "state": registers.STATES[state.state],
                "halt_cause": [name for name, bit in registers.HALT_CAUSES.items() if state.halt_cause >> bit & 1],
                "feed_frames": self.feed.sent, "feed_rounds": self.feed.rounds}

    def close(self):
        self._pty.close()
        self.board.close()


def run_up(config_path, capture=None, seed=1, max_packets=None, every_s=5.0, say=print, progress=None):
    """Start all of it and run until SIGINT or SIGTERM.

    Parameters
    ----------
    config_path : TOML file. capture, seed, max_packets : as for :func:`sim.replay.run_replay`; the seed is that of the
        exchange's market, too.
    every_s : wall time from one status to the next.
    say : called with JSON texts: ``{"ping": command, "socket": path, ...}``, a status now and then, and at the end what
        the exchange has to say of the business.
    progress : called with (share done, what) while the board is built.

    Raises
    ------
    UpError
        The daemon or the exchange has ended.
    sim.board.tap.TapError, sim.kernel.ExchangeError
        It cannot be started here.
    """
    config = configuration.load(config_path)
    source = load_source(config, capture, seed, max_packets)
    ended = []
    handlers = {s: signal.signal(s, lambda signum, frame: ended.append(signum))
                for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with KernelExchange(config, config_path, "--seed", seed, "--heartbeat", _HEARTBEAT_S) as exchange:
            board = VirtualBoard(progress=progress)
            live = _Board(config, source.frames, board, exchange.tap)
            daemon = subprocess.Popen([sys.executable, "-m", "host.cli", "run", live.path, "--config",
                                       str(config_path), "--log-level", "warning"], start_new_session=True,
                                      stdin=subprocess.DEVNULL)
            try:
                say(json.dumps({"link": live.path, "ping": exchange.ping, "socket": str(config.host.control_socket),
                                "daemon": daemon.pid, "feed": source.name, "cycle_ns": CYCLE_NS}))
                _run(live, daemon, exchange, ended, every_s, say)
                say(json.dumps(live.status() | {"exchange": json.loads(exchange.stop())}))
            finally:
                if daemon.poll() is None:
                    daemon.kill()
                    daemon.wait()
                live.close()
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _run(live, daemon, exchange, ended, every_s, say):
    """Until it is to end; then the daemon has time to stop quoting and log out."""
    began = said = time.monotonic()
    stopping = None
    while True:
        live.step()
        now = time.monotonic()
        if now - said >= every_s:
            said = now
            say(json.dumps(live.status() | {"wall_s": round(now - began, 3)}))
        if daemon.poll() is not None:
            if stopping is None:
                raise UpError(f"the daemon has ended with exit code {daemon.returncode}; its log says why")
            return
        if exchange.ended:
            exchange.stop()
            raise UpError("the exchange has ended")
        if ended and stopping is None:
            stopping = now
            daemon.send_signal(signal.SIGTERM)
        if stopping is not None and now - stopping > _STOP_S:
            raise UpError(f"the daemon did not end within {_STOP_S:g} s")

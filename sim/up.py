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

from host import config as configuration
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.ports import TapPort
from sim.kernel import KernelExchange
from sim.live import FedBoard, ends_by_signal
from sim.replay import load_source

__all__ = ["UpError", "run_up"]

BURST = 2_500           # cycles between two looks at the wire
_STOP_S = 60.0


class UpError(RuntimeError):
    """Something that was started has ended. The message says what."""


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
    with ends_by_signal() as ended, KernelExchange(config, config_path, "--seed", seed) as exchange:
        live = FedBoard(config, source.frames, VirtualBoard(progress=progress), BURST, lambda event: None)
        live.wires.attach("order", TapPort(exchange.tap))
        daemon = subprocess.Popen([sys.executable, "-m", "host.cli", "run", live.path, "--config", str(config_path),
                                   "--log-level", "warning"], start_new_session=True, stdin=subprocess.DEVNULL)
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

"""The exchange simulator as an ordinary program on Linux's TCP, at the end of a wire that is a TAP interface.

It runs in a network namespace of its own, so that nothing of this machine's network is touched, at the address that the
configuration connects to.
"""

import select
import signal
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

from host.slowpath import mac_text
from sim.board.tap import TapNamespace

__all__ = ["ExchangeError", "KernelExchange"]

ROOT = Path(__file__).resolve().parents[1]
MAC = 0x0200_0000_0002      #: of the kernel's end
_START_S = 60.0             # wall time within which it listens
_HEARTBEAT_S = 3600         # in its own time: that of a simulated card is slower


class ExchangeError(RuntimeError):
    """The exchange does not listen, or has failed. The message says why."""


class KernelExchange:
    """A namespace with a TAP interface, and `t2q venue` in it.

    Parameters
    ----------
    config : :class:`host.config.Config`. config_path : the file that it is from.
    options : more of them for `t2q venue`.

    Attributes
    ----------
    tap : :class:`sim.board.tap.Tap`, the wire's other end. ping : a command that pings the address of the card.

    Raises
    ------
    ExchangeError
        It does not listen.
    sim.board.tap.TapError
        There are no TAP interfaces or namespaces here.
    """

    def __init__(self, config, config_path, *options):
        session = config.session
        address = str(IPv4Address(session.peer_ip))
        self._namespace, self.tap, self._process = TapNamespace(), None, None
        try:
            self.tap = self._namespace.tap("t2q0", f"{address}/24", mac_text(MAC))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "host.cli", "venue", "--config", str(Path(config_path).resolve()), "--host",
                 address, "--port", str(session.peer_port), "--heartbeat", str(_HEARTBEAT_S), *map(str, options)],
                cwd=ROOT, preexec_fn=self._namespace.enter, start_new_session=True, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE)
            if not select.select([self._process.stdout], [], [], _START_S)[0] or not self._process.stdout.readline():
                self._process.kill()
                raise ExchangeError(f"the exchange does not listen: {self._process.stderr.read().strip()}")
        except BaseException:
            self.close()
            raise
        self.ping = f"nsenter {self._namespace.nsenter} ping {IPv4Address(session.local_ip)}"

    @property
    def ended(self):
        """It has ended by itself."""
        return self._process.poll() is not None

    def stop(self):
        """End it; returns what it has to say of the business (JSON). Raises :class:`ExchangeError`."""
        if not self.ended:
            self._process.send_signal(signal.SIGINT)
        out, errors = self._process.communicate(timeout=30)
        if self._process.returncode:
            raise ExchangeError(f"the exchange failed: {errors.strip()}")
        return out

    def close(self):
        """Give everything back."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        for each in (self.tap, self._namespace):
            if each is not None:
                each.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

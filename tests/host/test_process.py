"""``t2q run`` as a process of its own, on the serial port of a virtual board that runs as fast as it can."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from decimal import Decimal

import pytest

from hdl.control import registers as regmap
from host import config, params
from host.control import Client, ControlError

from .bench import Bench
from .conftest import FIRST_LIGHT

DEADMAN_MS, HEARTBEAT_MS = 10, 1  # of the board's time and of the wall's: the board is slower, so it is beaten often


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """The daemon's process, and a thread that keeps the board going while commands are given."""

    def __init__(self, tmp_path):
        text = FIRST_LIGHT.read_text()
        self.metrics_port = free_port()
        for old, new in (("deadman_ms = 100", f"deadman_ms = {DEADMAN_MS}"),
                         ("heartbeat_ms = 20", f"heartbeat_ms = {HEARTBEAT_MS}"),
                         ("metrics_port = 0", f"metrics_port = {self.metrics_port}")):
            assert old in text
            text = text.replace(old, new)
        self.config_path = tmp_path / "t.toml"
        self.config_path.write_text(text)
        (tmp_path / "simulator.secret").write_text("let-me-quote")
        self.socket = tmp_path / "control"
        self.bench = Bench(config.load(self.config_path), in_process=False)
        self.cwd = tmp_path
        self.running = self.start_daemon()
        self.moving, self.trouble = True, None
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._move, daemon=True)
        self.thread.start()

    def start_daemon(self):
        return subprocess.Popen([sys.executable, "-m", "host.cli", "run", self.bench.path, "-c", str(self.config_path),
                                 "-s", str(self.socket), "--log-json"], cwd=self.cwd, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "PYTHONPATH": str(FIRST_LIGHT.parents[1])})

    def _move(self):
        try:
            while self.moving:
                with self.lock:
                    self.bench.turn()
                time.sleep(0)  # whoever waits for the lock gets it
        except Exception as error:
            self.trouble = error

    def until(self, condition, seconds=60, process_may_end=False):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.trouble is None, self.trouble
            assert self.running.poll() is None or process_may_end, self.running.stderr.read()
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)

    def status(self):
        try:
            with Client(self.socket) as client:
                return client.request("status")
        except ControlError:
            return {"phase": "absent"}

    def cli(self, *arguments):
        return subprocess.run([sys.executable, "-m", "host.cli", *arguments, "-s", str(self.socket)], cwd=self.cwd,
                              capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, "PYTHONPATH": str(FIRST_LIGHT.parents[1])})

    def ready(self):
        self.until(lambda: self.status()["phase"] == "ready")

    def feed(self, packets):
        with self.lock:
            return self.bench.feed(packets)

    def orders(self):
        with self.lock:
            return len(self.bench.engine.open_orders())

    def close(self):
        self.moving = False
        self.thread.join(10)
        if self.running.poll() is None:
            self.running.kill()
        self.running.wait(10)
        self.running.stderr.close()
        self.bench.close()


@pytest.fixture
def process(tmp_path):
    p = Process(tmp_path)
    yield p
    p.close()


def raw(path, request):
    """Answer of the control socket to bytes as they are."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(path))
        s.sendall(request)
        length = int.from_bytes(s.recv(4), "little")
        return json.loads(s.recv(length))


def test_an_operator_s_session(process):
    """A second daemon, bad requests; status, limits, arm, metrics, watch; then Ctrl-C: nothing open, exit code 0."""
    process.ready()
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o660
    second = process.start_daemon()
    _, text = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "t2q: cannot open serial port" in text or "another daemon serves" in text
    for request, answer in ((b"\x02\0\0\0{]", "the request is not JSON"), (b"\x02\0\0\0[]", "unknown command"),
                            (b'\x0a\0\0\0{"do":"s"}', "unknown command 's'; there are status"),
                            (b"\xff\xff\xff\xff", "request of 4294967295 bytes, at most")):
        reply = raw(process.socket, request)
        assert not reply["ok"]
        assert answer in reply["error"]
    shown = process.cli("status")
    assert shown.returncode == 0
    assert "DISARMED" in shown.stdout
    assert "IDX01_USDC-PERPETUAL" in shown.stdout
    limits(process)
    armed = process.cli("arm")
    assert (armed.returncode, armed.stdout) == (0, "ACTIVE\n")
    process.feed(60)
    process.until(lambda: process.orders() >= 20)
    drops = json.loads(process.cli("why", "1000", "--json").stdout)["drops"]
    assert all(d["reasons"] for d in drops)
    assert {r["gate"] for d in drops for r in d["reasons"]} >= {"G4"}  # books fill one side after the other
    told = process.cli("why", "2")
    assert told.returncode == 0
    assert "  market bid " in told.stdout
    body = urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics", timeout=10).read().decode()
    assert "t2q_state 1.0" in body
    assert 't2q_decisions_total{outcome="SENT"}' in body
    assert 't2q_limit{instrument="IDX01_USDC-PERPETUAL",limit="max_long",unit="quantity"} 9.0' in body
    watched = subprocess.Popen([sys.executable, "-m", "host.cli", "watch", "--json", "-s", str(process.socket)],
                               stdout=subprocess.PIPE, text=True, env={**os.environ,
                                                                       "PYTHONPATH": str(FIRST_LIGHT.parents[1])})
    assert json.loads(watched.stdout.readline())["state"] == "ACTIVE"
    watched.send_signal(signal.SIGINT)
    watched.stdout.close()
    assert watched.wait(10) == 0
    process.running.send_signal(signal.SIGINT)
    process.until(lambda: process.running.poll() is not None, process_may_end=True)
    assert process.running.returncode == 0
    assert process.orders() == 0
    assert process.bench.gateway.sessions == []
    assert not process.socket.exists()
    gone = process.cli("status")
    assert gone.returncode == 2
    assert gone.stderr == f"t2q: no daemon at {process.socket} (No such file or directory); start one with t2q run, " \
                          f"or give its socket with --socket\n"
    kinds = [json.loads(line)["kind"] for line in (process.cwd / "out" / "journal.jsonl").read_text().splitlines()]
    assert kinds[-1] == "stopped"


def limits(process):
    """All that t2q limits can do, with the daemon at its other end."""
    shown = process.cli("limits")
    assert shown.returncode == 0
    assert " ".join(next(line for line in shown.stdout.splitlines() if " max_long " in line).split()) == \
        "IDX01_USDC-PERPETUAL max_long 10 quantity max_long_lots=100"
    refused = process.cli("limits", "load", "absent.toml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("t2q: absent.toml: cannot be read")
    assert process.cli("limits", "diff").returncode == 0
    set_ = process.cli("limits", "set", "max_long=9", "stale_ms=4000.000001", "-i", "IDX01_USDC-PERPETUAL")
    assert set_.stdout.splitlines() == [
        "IDX01_USDC-PERPETUAL max_long = 9 quantity (max_long_lots=90)",
        "IDX01_USDC-PERPETUAL stale_ms = 4000.000001, stored as 4000 ms (stale_cycles=500000000)",
        "staged, not active: t2q limits diff shows it, t2q limits arm makes it active"]
    refused = process.cli("limits", "set", "max_long=0.05")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "must be a multiple of the lot 0.1; near it are 0 and 0.1" in refused.stderr
    assert process.cli("limits", "diff").returncode == 1
    in_force = json.loads(process.cli("limits", "show", "-i", "IDX01_USDC-PERPETUAL", "--json").stdout)
    assert {limit["value"] for limit in in_force["limits"] if limit["limit"] == "max_long"} == {"10"}
    armed = process.cli("limits", "arm")
    assert armed.returncode == 0
    assert armed.stdout.splitlines()[-1] == "active"
    nothing = process.cli("limits", "arm")
    assert (nothing.returncode, nothing.stderr) == (2, "t2q: nothing is staged; t2q limits set KEY=VALUE or t2q limits "
                                                       "load FILE first\n")
    loaded = process.cli("limits", "load", str(process.config_path))
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert loaded.stdout.splitlines()[-1] == "staged, not active: t2q limits arm makes it active"
    assert process.cli("limits", "discard").stdout.splitlines()[-1] == "discarded"
    assert process.cli("limits", "diff").stdout == "no difference: nothing is staged\n"


def test_a_kill_that_the_venue_does_not_confirm(process):
    """Exit code 3, and 0 as soon as the exchange answers mass cancels again."""
    process.ready()
    assert process.cli("arm").returncode == 0
    process.feed(60)
    process.until(lambda: process.orders() >= 20)
    with process.lock:
        cancel = process.bench.engine._mass_quote_cancel
        process.bench.engine._mass_quote_cancel = lambda client, message: None
    killed = process.cli("kill")
    assert (killed.returncode, killed.stdout) == (3, "HALTED (kill_register)\n")
    assert killed.stderr.startswith("t2q: NOT VERIFIED that nothing is open at the venue (unknown); look at the venue")
    assert process.orders() >= 20
    assert "not verified that nothing is open" in process.status()["error"]
    with process.lock:
        process.bench.engine._mass_quote_cancel = cancel
    killed = process.cli("kill")
    assert (killed.returncode, killed.stdout) == (
        0, "HALTED (kill_register)\nverified: nothing is open at the venue\n")
    assert process.orders() == 0


def test_kill_9_and_the_dead_man(process):
    """The daemon dies without a word: the card itself pulls every quote within its dead-man time, then is silent."""
    process.ready()
    assert process.cli("arm").returncode == 0
    process.feed(60)
    process.until(lambda: process.orders() >= 20)
    process.running.send_signal(signal.SIGKILL)
    process.running.wait(10)
    process.until(lambda: process.orders() == 0, process_may_end=True)
    with process.lock:
        bench, board = process.bench, process.bench.board
        writes = board.take_register_writes()   # all since the board began: the last beat may be long before the kill
        beats = writes["cycle"][writes["address"] == regmap.BY_NAME["heartbeat"].address]
        last_frames = len(bench.frames)
        cancels = [r for r in bench.engine.ledger.requests if r.kind == "MassQuoteCancelRequest"]
        assert len(cancels) == 1
        cancel = next(f for f in bench.frames if f.start > beats[-1] and len(f.frame) < 140
                      and f.frame[66:70] != b"" and b"\xdb" in f.frame[54:55])
        limit = params.cycles(Decimal(DEADMAN_MS))
        assert 0 <= cancel.start - int(beats[-1]) - limit < 300  # the port may have been busy with a frame
        for _ in range(50):
            bench.turn()
        assert all(len(f.frame) <= 60 for f in bench.frames[last_frames:])  # acknowledgements only
    # A new daemon finds the card halted, starts afresh and says so; arming needs the operator's word.
    process.running.stderr.close()
    process.running = process.start_daemon()
    process.ready()
    status = process.status()
    assert (status["state"], status["halt_cause"]) == ("HALTED", ["deadman"])
    refused = process.cli("arm")
    assert refused.returncode == 2
    assert refused.stderr == "t2q: cannot arm: halted by deadman; find out why, then arm with --clear-halt\n"
    assert process.cli("arm", "--clear-halt").stdout == "ACTIVE\n"


"""The daemon ends, one way or the other, with quotes open at the exchange: none of them stays there.

The virtual board (`t2q board`) and the daemon (`t2q run`) are processes of their own, joined by a pseudo-terminal; the
exchange's ledger, in simulated time, says when the last order was gone. The same without processes, in lock step, is
compared with the golden model as well.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hdl.control import registers
from hdl.layout import sbe
from host import config as configuration
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.captures import CaptureWriter
from sim.market.generator import LINE_A, MarketGenerator, generate, udp_frame
from sim.replay import BURST, DELAY_NS, Replay

ROOT = Path(__file__).parents[2]
FIRST_LIGHT = ROOT / "config" / "first_light.toml"
MDP3 = sbe.load("cme_mdp3")
DEADMAN_MS, HEARTBEAT_MS = 4, 2
DEADMAN_NS = DEADMAN_MS * 1_000_000
# A frame of the largest size may be under way on the order port; then come the mass cancel and the way to the exchange.
WIRE_NS = (1530 + 12 + 8 + 100) * CYCLE_NS + DELAY_NS
PATIENCE_S = 150        # wall time; everything takes seconds on an idle machine


def write_config(directory):
    """first_light with a dead-man that a simulation reaches within a second or two."""
    text = FIRST_LIGHT.read_text()
    for old, new in (("deadman_ms = 100", f"deadman_ms = {DEADMAN_MS}"),
                     ("heartbeat_ms = 20", f"heartbeat_ms = {HEARTBEAT_MS}"),
                     ("out/t2q.sock", str(directory / "socket")), ("out/journal.jsonl", str(directory / "journal"))):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = directory / "deadman.toml"
    path.write_text(text)
    (directory / "simulator.secret").write_text((FIRST_LIGHT.parent / "simulator.secret").read_text())
    return path


def write_market(path):
    """A quarter of a second of market data: lively at first, then nothing but the channel's heartbeats, so that quotes
    stay where they are for as long as these tests take."""
    generator = MarketGenerator(seed=7, packets=800, lines=(LINE_A, None))
    frames = [frame for _, frame in generator.frames()]
    heartbeat = MDP3["AdminHeartbeat12"]
    header = MDP3.composites["messageHeader"].pack(blockLength=0, templateId=heartbeat.id, schemaId=MDP3.id, version=8)
    message = MDP3.composites["MessageFraming"].pack(MsgSize=2 + len(header)) + header
    for n in range(12_000):
        packet = MDP3.composites["PacketHeader"].pack(MsgSeqNum=generator.seq + n & 0xFFFF_FFFF) + message
        frames.append(udp_frame(LINE_A, packet))
    with CaptureWriter(path) as out:
        for n, frame in enumerate(frames):
            out.write(n * 20_000, frame)


class Process:
    """A `t2q` command that this test started; the last line of its output and what was said on its error output."""

    def __init__(self, directory, *arguments):
        self.log = (directory / f"{arguments[0]}.log").open("a+")
        self.process = subprocess.Popen([sys.executable, "-m", "host.cli", *arguments], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.first = self.last = None
        self.arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.arrived:
                self.last = line
                self.first = self.first or line
                self.arrived.notify_all()

    def errors(self):
        self.log.seek(0)
        return self.log.read()

    def wait(self):
        code = self.process.wait(PATIENCE_S)
        self._reader.join(10)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        self.process.stdout.close()
        self.log.close()


class Bench:
    """`t2q board` and what is done to it."""

    def __init__(self, directory):
        self.directory, self.config = directory, write_config(directory)
        capture = directory / "quiet.pcap"
        write_market(capture)
        self.board = Process(directory, "board", str(capture), "-c", str(self.config), "--every", "0.1")
        self.processes = [self.board]
        with self.board.arrived:
            assert self.board.arrived.wait_for(lambda: self.board.first, PATIENCE_S), self.board.errors()
        self.hello = json.loads(self.board.first)

    def status(self):
        """The board's next status."""
        board = self.board
        with board.arrived:
            before = board.last
            assert board.arrived.wait_for(lambda: board.last is not before, PATIENCE_S), board.errors()
            return json.loads(board.last)

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, status
        return status

    def cli(self, *arguments):
        return subprocess.run([sys.executable, "-m", "host.cli", *arguments, "-c", str(self.config)], text=True,
                              capture_output=True, timeout=PATIENCE_S, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})

    def daemon(self):
        """A daemon that is ready."""
        process = Process(self.directory, "run", self.hello["link"], "-c", str(self.config), "--log-json")
        self.processes.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            shown = self.cli("status", "--json")
            phase = json.loads(shown.stdout)["phase"] if shown.returncode == 0 else "absent"
            if phase == "ready":
                return process
            assert process.process.poll() is None, process.errors()
            assert phase in ("absent", "starting"), process.errors()
            assert time.monotonic() < deadline, process.errors()

    def quoting(self):
        """A daemon that is armed, with quotes open at the exchange."""
        daemon = self.daemon()
        armed = self.cli("arm", "--clear-halt")
        assert (armed.returncode, armed.stdout) == (0, "ACTIVE\n"), armed.stderr
        self.until(lambda s: s["open_orders"] >= 6)
        return daemon

    def close(self):
        for process in reversed(self.processes):
            process.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    b = Bench(tmp_path_factory.mktemp("board"))
    yield b
    b.close()


@pytest.mark.timeout(600)
def test_board_says_what_it_is(bench):
    assert bench.hello["feed"] == "quiet.pcap"
    assert not bench.hello["generated"]
    assert bench.hello["exchange"] == "10.20.0.1:4210"
    assert Path(bench.hello["link"]).is_char_device()
    status = bench.until(lambda s: s["feed_frames"] > 100)
    assert (status["state"], status["halt_cause"], status["open_orders"]) == ("DISARMED", [], 0)


@pytest.mark.timeout(600)
def test_kill_9(bench):
    """The daemon is gone without a word: the card pulls every quote itself, the dead-man's time after the last beat."""
    daemon = bench.quoting()
    daemon.process.kill()
    assert daemon.wait() == -signal.SIGKILL
    status = bench.until(lambda s: s["state"] == "HALTED" and not s["open_orders"])
    assert status["halt_cause"] == ["deadman"]
    assert 0 <= status["state_ns"] - status["heartbeat_ns"] - DEADMAN_NS <= 1000
    assert 0 < status["flat_ns"] - status["state_ns"] <= WIRE_NS
    later = bench.until(lambda s: s["time_ns"] > status["time_ns"] + 2_000_000)
    assert (later["state"], later["open_orders"], later["flat_ns"]) == ("HALTED", 0, status["flat_ns"])
    assert later["received"]["MassQuoteCancelRequest"] >= 1
    assert not later["refused"] | later["wire_violations"]

    # The next daemon finds the card halted and may not arm by accident.
    daemon = bench.daemon()
    refused = bench.cli("arm")
    assert refused.returncode == 2
    assert "deadman" in refused.stderr
    assert bench.status()["state"] == "HALTED"
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0


@pytest.mark.timeout(600)
def test_ctrl_c(bench):
    """Disarmed, verified, logged out: nothing is open, and the exit code says that it went well."""
    daemon = bench.quoting()
    logouts = bench.status()["received"].get("Logout", 0)
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0, daemon.errors()
    status = bench.status()
    assert (status["state"], status["halt_cause"]) == ("DISARMED", [])
    assert (status["open_orders"], status["sessions"]) == (0, 0)
    assert status["received"]["Logout"] == logouts + 1
    assert status["flat_ns"] <= status["time_ns"]
    gone = bench.cli("status")
    assert gone.returncode == 2
    assert gone.stderr.startswith("t2q: no daemon at ")


@pytest.mark.timeout(600)
def test_kill_command(bench):
    """`t2q kill`: the card halts and everything is cancelled; the daemon stays and keeps the session."""
    daemon = bench.quoting()
    killed = bench.cli("kill")
    assert (killed.returncode, killed.stdout) == (
        0, "HALTED (kill_register)\nverified: nothing is open at the venue\n"), killed.stderr
    status = bench.until(lambda s: s["state"] == "HALTED" and not s["open_orders"])
    assert status["halt_cause"] == ["kill_register"]
    assert 0 < status["flat_ns"] - status["state_ns"] <= WIRE_NS
    assert status["sessions"] == 1
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0, daemon.errors()
    assert bench.status()["sessions"] == 0


@pytest.mark.timeout(600)
def test_board_ends_on_a_signal(bench):
    """The last: Ctrl-C ends the board itself, with a last word; the daemon sees that its card is gone, and ends too."""
    daemon = bench.daemon()
    bench.board.process.send_signal(signal.SIGINT)
    assert bench.board.wait() == 0, bench.board.errors()
    last = json.loads(bench.board.last)
    assert last["ended"]
    assert (last["open_orders"], last["sessions"], last["refused"], last["wire_violations"]) == (0, 1, 0, 0)
    assert daemon.wait() == 2
    assert f"t2q: the daemon failed: serial port {bench.hello['link']} is gone" in daemon.errors()
    assert not Path(bench.hello["link"]).exists()


# ---------------------------------------------------------------------- in lock step

@pytest.fixture
def replay(tmp_path):
    r = Replay(configuration.load(write_config(tmp_path)), VirtualBoard())
    yield r
    r.close()
    r.board.close()


def open_quotes(replay, count=6):
    """Start, arm and feed until quotes are open at the exchange."""
    replay.start()
    replay.feed(generate(7, 3000))
    replay.until(lambda: len(replay.gateway.engine.open_orders()) >= count, "no quotes")


def step_until(replay, cycle):
    while replay.board.cycle < cycle:
        replay.step()


def test_host_falls_silent(replay, monkeypatch):
    """The daemon is stopped in mid-replay while the feed goes on: cycle by cycle what the dead-man promises."""
    open_quotes(replay)
    golden, ledger = replay.golden, replay.gateway.engine.ledger
    monkeypatch.setattr(replay, "_talk", lambda now_ns: None)
    silent = replay.board.cycle
    deadman = DEADMAN_NS // CYCLE_NS
    step_until(replay, silent + deadman // 2)
    assert golden.state == registers.ACTIVE
    sent = len(golden.decisions)
    step_until(replay, silent + deadman + 20 * BURST)
    assert golden.state == registers.HALTED
    assert golden.halt_cause == 1 << registers.HALT_CAUSES["deadman"]
    assert len(golden.decisions) > sent
    assert not replay.gateway.engine.open_orders()
    assert replay.ns(silent) < ledger.last_open_ns() <= replay.ns(silent + deadman) + WIRE_NS
    halted = ledger.last_open_ns()
    step_until(replay, replay.board.cycle + 100 * BURST)        # market data still comes; nothing is quoted
    assert ledger.last_open_ns() == halted
    late = [d for d in golden.decisions if replay.ns(d.fireCycle) > halted and d.quoteId]
    assert late == []
    assert replay.lock.finish() == []
    cancels = [r for r in ledger.requests if r.kind == "MassQuoteCancelRequest"]
    assert len(cancels) == 1
    assert cancels[0].cancelled > 0
    assert replay.peer.violations == []


def test_host_falls_silent_and_comes_back(replay, monkeypatch):
    """Silence shorter than the dead-man's time changes nothing."""
    open_quotes(replay)
    talk = replay._talk
    monkeypatch.setattr(replay, "_talk", lambda now_ns: None)
    step_until(replay, replay.board.cycle + DEADMAN_NS // CYCLE_NS // 4)
    monkeypatch.setattr(replay, "_talk", talk)
    step_until(replay, replay.board.cycle + DEADMAN_NS // CYCLE_NS * 3 // 2)
    assert replay.golden.state == registers.ACTIVE
    assert replay.gateway.engine.open_orders()
    assert replay.stop() == []
    assert not replay.gateway.engine.open_orders()


def test_kill_pin(replay):
    """The last resort that needs no host at all."""
    open_quotes(replay)
    pressed = replay.board.cycle
    replay.board.kill(True)
    replay.golden.kill_pin(pressed, True)
    step_until(replay, pressed + 10 * BURST)
    assert replay.golden.halt_cause == 1 << registers.HALT_CAUSES["kill_pin"]
    assert not replay.gateway.engine.open_orders()
    assert replay.ns(pressed) < replay.gateway.engine.ledger.last_open_ns() <= replay.ns(pressed) + WIRE_NS
    assert replay.lock.finish() == []
    assert replay.daemon.status()["halt_cause"] == ["kill_pin"]

"""`t2q replay`: market data through the simulated gateware, the daemon trading at a simulated exchange.

Everything runs in one process and in lock step with simulated time, so that the same command gives the same frames:

    capture or generator -> feed port -> gateware (Verilated) -> order port -> exchange's TCP end point -> exchange
                                            |  host link, on a pseudo-terminal
                                         daemon (the very one that serves a card), over pyserial

The board runs in bursts that are shorter than the way to the exchange, so that an answer never comes too late. After
each burst the daemon has read every byte that the board has written and the other way round before time goes on. The
golden model is given the same input and predicts every frame; the exchange's market follows its books.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hdl.control import registers
from host import config as configuration
from host import params
from host.daemon import Daemon
from host.serial_device import SerialDevice
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.captures import read_capture
from sim.board.pty import LinkPty
from sim.golden.model import GoldenModel
from sim.golden.quote import MASS_CANCEL, PULLED, SENT
from sim.lockstep import Lockstep
from sim.market import generator
from sim.market.schedule import MAX_IDLE_NS, schedule
from sim.report.collect import instrument_series, session_facts
from sim.report.model import Latency, ReplayResult
from sim.report.write import write_all
from sim.talk import talk
from sim.venue import listing
from sim.venue.feed import feed_events
from sim.venue.market import MarketMirror
from sim.venue.session import Gateway
from sim.venue.tcp_peer import TcpPeer

__all__ = ["DEFAULT_CAPTURE", "Replay", "ReplayError", "Source", "find_captures", "load_source", "run_replay"]

DEFAULT_CAPTURE = Path("cme_mdp3") / "Cme.Mdp3.Sbe.v8.1.Example.pcap"
DELAY_NS = 10_000           # one way between the order port and the exchange, its gateway included
MARKET_LAG_NS = 10000            # by which the exchange's market follows the feed
BURST = DELAY_NS // CYCLE_NS - 25  # cycles; two bursts are less than the way there and back
START_LIMIT_NS = 50_000_000
_SWITCH_INTERVAL_S = 20e-6
PEER_MAC = 0x0200_0000_0002
_EPOCH_NS = 1_700_000_000_000_000_000   # when generated traffic begins


class ReplayError(RuntimeError):
    """The replay cannot go on; the text says why."""


def find_captures():
    """Directory of real captures: ``$T2Q_CAPTURES``, else ``../shared/captures`` beside the project; or ``None``."""
    named = os.environ.get("T2Q_CAPTURES")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "captures"
    return path if path.is_dir() else None


@dataclass
class Source:
    """What is replayed: ``frames`` as (time_ns, bytes without FCS), its ``name``, whether it was ``generated``."""

    name: str
    generated: bool
    frames: list
    notes: list


def load_source(config, capture, seed=1, max_packets=None):
    """What there is to replay: ``capture``, or the default one, or generated traffic. Returns a :class:`Source`.

    Raises :class:`ReplayError`, or what the capture's reader has to say.
    """
    notes = []
    if capture is None:
        directory = find_captures()
        if directory is not None and (directory / DEFAULT_CAPTURE).is_file():
            capture = directory / DEFAULT_CAPTURE
    if capture is None:
        count = 5000 if max_packets is None else -(-max_packets // 2)
        frames = generator.generate(seed, count)
        notes.append(f"No capture was given or found: {count} packets on each line were generated with seed {seed} in "
                     f"the statistics of CME's MDP 3.0 example capture.")
        name, generated = f"generated, seed {seed}", True
    else:
        read = read_capture(capture)
        frames, name, generated = list(read), Path(capture).name, False
        if read.cut_short:
            notes.append(f"{read.cut_short} packets of which the capture kept only a part were left out.")
        if not frames:
            raise ReplayError(f"{capture}: holds no complete Ethernet frame; a capture of the feed's multicast is "
                              f"needed")
    if max_packets is not None:
        frames = frames[:max_packets]
    notes.append(f"Time between packets was kept up to {MAX_IDLE_NS // 1000} us, longer gaps were compressed to that; "
                 f"the order of packets and the skew of lines A and B are those of the source. Time-outs and rates "
                 f"are not scaled: they count compressed time.")
    return Source(name, generated, frames, notes)


class Replay:
    """Board, golden model, exchange and daemon, moved in lock step.

    Parameters
    ----------
    config : :class:`host.config.Config`.
    board : a reset :class:`VirtualBoard` of the core.
    epoch_ns : wall time of cycle 0.
    seed : of the connection's initial sequence number.
    market_lag_ns : by which the exchange's market follows the feed.

    Attributes
    ----------
    lock : :class:`Lockstep`; ``lock.board``, ``lock.golden``. daemon : :class:`Daemon`. peer : :class:`TcpPeer`.
    gateway : :class:`Gateway`; ``gateway.engine.ledger`` knows what became of every quote.
    events : what the market did, as :class:`sim.venue.feed.FeedEvent`.
    """

    def __init__(self, config, board, *, epoch_ns=_EPOCH_NS, seed=1, market_lag_ns=MARKET_LAG_NS):
        self.config, self.epoch_ns, self.market_lag_ns = config, epoch_ns, market_lag_ns
        self.golden = GoldenModel()
        self.lock = Lockstep(board, self.golden)
        # The board's thread has to get hold of the interpreter before it can leave it for a burst; by default that
        # takes as long as several bursts.
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self.pty = LinkPty(self.lock)
        self.device = SerialDevice(self.pty.path)
        self.daemon = Daemon(config, self.device, isn=seed * 0x01000193 & 0xFFFFFFFF)
        self.gateway = Gateway(listing.venue_config(config, config.secret()))
        self.peer = TcpPeer(listing.peer_config(config, PEER_MAC, delay_ns=DELAY_NS), self.gateway)
        self.mirror = MarketMirror(self.gateway, listing.feed_mappings(config))
        self.events = []
        self._started = False

    @property
    def board(self):
        return self.lock.board

    def ns(self, cycle):
        """Wall time of a cycle."""
        return self.epoch_ns + cycle * CYCLE_NS

    def close(self):
        """Give the pseudo-terminal and the serial port back."""
        sys.setswitchinterval(self._switch_interval_s)
        self.device.close()
        self.pty.close()

    # -- time ---------------------------------------------------------------------------------------------------
    def step(self, cycles=BURST):
        """One burst of the board, of at most :data:`BURST` cycles, and beside it the consequences of the burst before.

        A frame that ended in that burst is answered two ways later at the earliest, and that lies beyond the burst that
        is running: the answer is on time. Returns the frames that the core sent in the burst before.
        """
        lock = self.lock
        lock.begin(cycles)
        sent = self._consequences() if self._started else []
        lock.end()
        self._started = True
        return sent

    def _consequences(self):
        lock = self.lock
        sent = lock.process()
        for frame in sent:
            self.peer.receive(frame.frame, self.ns(frame.end))
        # Whatever the exchange sends up to here is known by now, and is on the pins in the burst after the running one.
        horizon_ns = self.ns(lock.cycle + 2 * BURST)
        self.peer.run(horizon_ns - DELAY_NS)
        answers = self.peer.frames(horizon_ns - 1)
        if answers:
            lock.inject(1, [frame for _, frame in answers], [-(-(at - self.epoch_ns) // CYCLE_NS) for at, _ in answers])
        self._talk(self.ns(lock.cycle))
        return sent

    def _talk(self, now_ns):
        talk(self.daemon, self.device, self.pty, now_ns)

    def until(self, condition, what, limit_ns=START_LIMIT_NS):
        """Step until ``condition()``; raises :class:`ReplayError` with what was waited for."""
        end = self.board.cycle + limit_ns // CYCLE_NS
        while not condition():
            if self.daemon.phase == "failed":
                raise ReplayError(f"the daemon failed: {self.daemon.error}")
            if self.board.cycle > end:
                raise ReplayError(f"{what}: not within {limit_ns / 1e6:g} ms of simulated time")
            self.step()

    # -- the acts -----------------------------------------------------------------------------------------------
    def start(self):
        """Bring the session up and arm."""
        self.until(lambda: self.daemon.phase == "ready", "the session did not come up")
        arm = self.daemon.submit("arm", self.daemon.arm())
        self.until(lambda: arm.done, "the card did not arm")
        if arm.error is not None:
            raise ReplayError(f"the card did not arm: {arm.error}")

    def feed(self, frames):
        """Put frames on the feed port, from now on. Returns the cycle in which the last one ends."""
        wire = schedule(frames, start_cycle=self.board.cycle + 2 * BURST)
        self.lock.inject(0, [f.data[:-4] for f in wire], [f.cycle for f in wire])
        feed = self.config.feed
        lines = tuple((line.ip, line.port) if line else (0, 0) for line in (feed.line_a, feed.line_b))
        self.events = list(feed_events(wire, lines, listing.feed_ticks(self.config), params.feed_words(feed)["vlan"]))
        for event in self.events:
            self.peer.at(self.ns(event.cycle) + self.market_lag_ns,
                         lambda now_ns, event=event: event.apply(self.mirror, now_ns))
        return wire[-1].end if wire else self.board.cycle

    def stop(self):
        """Disarm, verify, log out, close."""
        task = self.daemon.submit("shutdown", self.daemon.shutdown())
        self.until(lambda: task.done, "the daemon did not shut down")
        for _ in range(20):
            self.step()
        self._consequences()
        return self.lock.finish()


def run_replay(config_path, capture=None, out=Path("out"), seed=1, max_packets=None, progress=None, observe=None):
    """Replay a capture and write the results.

    Parameters
    ----------
    config_path : TOML file. capture : pcap or pcapng file; ``None``: the default one, or generated traffic.
    out : directory of the results. seed : of generated traffic and of the session's numbers.
    max_packets : stop after so many feed packets.
    progress : called with (stage, done, total).
    observe : called with the :class:`Replay` before it starts, e.g. to listen to its daemon.

    Returns a :class:`ReplayResult`. Raises :class:`ReplayError`, or what the configuration, the capture or the build
    has to say.
    """
    began = time.monotonic()
    progress = progress or (lambda stage, done, total: None)
    config = configuration.load(config_path)
    source = load_source(config, capture, seed, max_packets)
    board = VirtualBoard(progress=lambda share, what: progress("build the virtual board", share, 1.0))
    epoch_ns = min(t for t, _ in source.frames) if source.frames else _EPOCH_NS
    replay = Replay(config, board, epoch_ns=epoch_ns, seed=seed)
    try:
        if observe:
            observe(replay)
        replay.start()
        first, last = board.cycle, replay.feed(source.frames)
        simulated = time.monotonic(), replay.lock.board_s
        steps = 0
        while board.cycle < last + 20_000:
            if replay.daemon.phase == "failed":
                raise ReplayError(f"the daemon failed: {replay.daemon.error}")
            replay.step()
            steps += 1
            if steps % 50 == 0:
                progress("replay", min(board.cycle - first, last - first), last - first)
        simulated = (replay.lock.board_s - simulated[1], time.monotonic() - simulated[0], board.cycle - first)
        counters = _read_counters(replay)
        mismatches = replay.stop()
        result = _result(replay, source, counters, mismatches, simulated)
    finally:
        replay.close()
    progress("write the results", 0, 1)
    result.wall_s = time.monotonic() - began
    write_all(result, out, [(f.start * CYCLE_NS, f.frame) for f in replay.lock.sent], epoch_ns)
    progress("write the results", 1, 1)
    board.close()
    return result


def _read_counters(replay):
    """Every counter of the card, read over the link as `t2q status` does."""
    task = replay.daemon.submit("counters", replay.daemon._watch())
    replay.until(lambda: task.done, "the card's counters could not be read")
    return dict(replay.daemon.watched)


def _result(replay, source, counters, mismatches, simulated):
    golden, ledger = replay.golden, replay.gateway.engine.ledger
    starts = {f.start for f in replay.lock.sent}
    latency = Latency()
    sent = accepted = 0
    for d in golden.decisions:
        if d.outcome not in (SENT, PULLED):
            continue
        sent += 1
        request = ledger.quotes.get(d.quoteId)
        accepted += bool(request and request.fully_accepted)
        start = d.fireCycle + golden.timing.tx_register
        if d.flags & 1 and start in starts:     # caused by a trigger byte, and on the pins where it was to be
            latency.add(start - d.triggerCycle)
    board_s, wall_s, cycles = simulated
    facts = {
        "replay": f"{wall_s:.1f} s, in which the simulated core took {board_s:.1f} s of processor time",
        "build of the core": f"{golden.instruments} instruments, register map {registers.MAP_HASH:08x}",
        "quotes by fate": ", ".join(f"{n:,} {name.lower()}" for name, n in (
            ("sent", counters["quotes_sent"]), ("pulled", counters["quotes_pulled"]),
            ("deferred", counters["decisions_deferred"]), ("held", counters["decisions_held"]),
            ("dropped", counters["decisions_dropped"]))),
    }
    packets = counters["line_a_packets"] + counters["line_b_packets"]
    if not packets:
        wanted = " and ".join(f"{line}" for line in (replay.config.feed.line_a, replay.config.feed.line_b) if line)
        facts["nothing to do"] = (f"none of the {counters['feed_frames']:,} frames was a packet of {wanted} "
                                  f"(feed.line_a, feed.line_b of the configuration), so nothing could be quoted")
    return ReplayResult(
        capture=source.name, generated=source.generated,
        packets=packets, duplicates=counters["duplicate_packets"],
        gaps=counters["gaps"], gap_packets=counters["gap_packets"], messages=counters["messages"],
        events=counters["events"], quotes_sent=sent, quotes_accepted=accepted,
        quotes_refused=ledger.summary()["quotes_refused"],
        mass_cancels=sum(d.outcome == MASS_CANCEL for d in golden.decisions),
        refusals=replay.gateway.explain_refusals(), golden_mismatches=len(mismatches),
        frames_compared=len(replay.lock.sent),
        gate_drops={f"{name} {title}": counters[f"drop_{name.lower()}"]
                    for name, title, _ in registers.GATES.values() if counters[f"drop_{name.lower()}"]},
        latency=latency, sim_cycles=cycles, sim_wall_s=board_s,
        wire_violations=[v.text for v in replay.peer.violations],
        instruments=instrument_series(replay.config, replay.events, ledger, replay.epoch_ns), counters=counters,
        facts=facts | session_facts(replay.gateway, replay.peer), notes=source.notes)

"""``python -m tests.e2e.cuts``: cut something at a random moment of a replay; nothing of ours may stay at the exchange.

Each point is a replay of its own: the card is armed, generated market data comes in, quotes go out, and at some cycle
one of :data:`KINDS` happens. From then on the exchange's ledger is watched: it must be empty after the time that the
limit in question says, and stay so. Writes ``out/cuts.json``.
"""

import json
import logging
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import structlog
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hdl.layout import net
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.verilate import ROOT
from sim.market.generator import INSTRUMENTS, generate
from sim.market.schedule import schedule
from sim.replay import BURST, DELAY_NS
from tests.e2e.stage import Stage, variant

__all__ = ["KINDS", "LIMITS", "Outcome", "Point", "cut", "points", "summary"]

RESULTS = ROOT / "out" / "cuts.json"
#: Limits of the replays: short, so that a simulation reaches them soon.
LIMITS = {"deadman_ms": 1, "heartbeat_ms": 0.4, "stale_ms": 1}
PACKETS = 260
#: First and last cycle of the market in which something is cut: books are being stated; a market under way.
FIRST, LAST = 20_000, 500_000
#: A frame of the largest size may be under way on the order port; then come the mass cancel and the way there.
_WIRE_NS = (1530 + 12 + 8 + 100) * CYCLE_NS + DELAY_NS
#: What has been put in before the cut and is carried out after it.
_UNDER_WAY_NS = 2 * BURST * CYCLE_NS
#: Quotes that grow old together are taken away one after the other: an evaluation and a frame for each instrument.
_ONE_AFTER_THE_OTHER_NS = 16 * 300 * CYCLE_NS
#: For so long afterwards nothing may come to life again.
_AFTERWARDS_NS = 200_000


class Point(NamedTuple):
    """Where to cut: ``kind`` (of :data:`KINDS`), ``cycle`` of the market, ``seed`` of market and details."""

    kind: str
    cycle: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of a point: orders ``open`` at the exchange at the cut; ``flat_ns`` after it there was none any more
    (0: there was none then, nor later); how many were ``left`` when the ``bound_ns`` had passed or came afterwards;
    frames that ``differ`` from the golden model's."""

    kind: str
    cycle: int
    seed: int
    open: int
    flat_ns: int
    bound_ns: int
    left: int
    differ: int

    @property
    def holds(self):
        return not self.left and self.flat_ns <= self.bound_ns and not self.differ


class _Show(Stage):
    """A stage on which a market is played that can be cut off: frames are put on the port as they are due."""

    silent = False

    def play(self, frames):
        start = self.board.cycle + 2 * BURST
        self.feed(frames)       # for the exchange's market; what it has put on the port is taken back
        self._due = schedule(frames, start_cycle=start)[::-1]

    def feed(self, frames):
        put, self.lock.inject = self.lock.inject, lambda *arguments, **options: None
        try:
            super().feed(frames)
        finally:
            self.lock.inject = put

    def settle(self):
        """Without a market, until no frame is under way: both sides have the same ones then."""
        self.silent = True
        self.run(4)
        while (last := self.golden.tx[-1]).cycle + len(net.PREAMBLE) + len(last.data) >= self.lock.cycle:
            self.step()

    def step(self, cycles=BURST):
        while not self.silent and self._due and self._due[-1].cycle < self.board.cycle + 2 * BURST:
            frame = self._due.pop()
            self.lock.inject(0, [frame.data[:-4]], [frame.cycle])
        return super().step(cycles)

    _due = ()


# -- what can be cut --------------------------------------------------------------------------------------------------

def _host_link(show, rng):
    """What the daemon says does not arrive any more, from somewhere in what it says next on; it hears everything."""
    write, left, last = show.lock.link_write, [rng.randrange(64)], show.board.cycle + BURST

    def some(data):
        if show.board.cycle > last:
            left[0] = 0
        write(data[:left[0]])
        left[0] -= min(left[0], len(data))
    show.lock.link_write = some


def _daemon(show, rng):
    """It is gone: nobody reads, nobody writes."""
    show._talk = lambda now_ns: None


def _feed_lost(show, rng):
    """The feed port's link or clock is gone."""
    show.board.feed_lost(True)
    show.golden.feed_lost(show.board.cycle, True)


def _feed_silent(show, rng):
    """Nothing comes on the feed."""
    show.silent = True


def _peer_gone(show, rng):
    """The way to the exchange is cut, in both directions: nothing arrives, nothing is acknowledged."""
    show.peer.receive = lambda frame, time_ns: None
    show.peer.frames = lambda until_ns: []


def _peer_reset(show, rng):
    """The exchange resets the connection."""
    def reset(now_ns):
        for connection in tuple(show.peer.connections.values()):
            connection.abort(now_ns, "reset by the exchange")
    show.peer.at(show.peer.now_ns, reset)


def _peer_closed(show, rng):
    """The exchange ends the session: LoggedOut, and a FIN behind it."""
    def close(now_ns):
        for session in tuple(show.gateway.sessions):
            session._end(now_ns, session.state.next_in, "", "", "the exchange closes")
    show.peer.at(show.peer.now_ns, close)


def _peer_half_closed(show, rng):
    """A FIN and nothing else: the exchange's side says no more, but still has the session and what it holds."""
    def finish(now_ns):
        for connection in show.peer.connections.values():
            connection.closing = True
    show.peer.at(show.peer.now_ns, finish)


@dataclass(frozen=True)
class Kind:
    """``cut(show, rng)`` and ``bound_ns(config, venue)``: within which the exchange must be empty. ``at_exchange``: the
    exchange alone can see to that, so that it alone has to be simulated for so long."""

    cut: Callable
    bound_ns: Callable
    limit: str          # what ends it
    at_exchange: bool = False


def _ms(milliseconds):
    return int(milliseconds * 1_000_000)


def _silence_ns(venue):
    """A client that is silent for the grace is asked, and dropped after one more interval."""
    return int((venue.heartbeat_grace + 1) * venue.heartbeat_s * 1_000_000_000)


KINDS = {
    "host link": Kind(_host_link, lambda c, v: _ms(c.risk.deadman_ms) + _UNDER_WAY_NS + _WIRE_NS, "dead-man"),
    "daemon": Kind(_daemon, lambda c, v: _ms(c.risk.deadman_ms) + _UNDER_WAY_NS + _WIRE_NS, "dead-man"),
    "feed lost": Kind(_feed_lost, lambda c, v: _WIRE_NS, "at once"),
    "feed silent": Kind(_feed_silent, lambda c, v: _ms(max(i.stale_ms for i in c.instruments)) + _UNDER_WAY_NS
                        + _ONE_AFTER_THE_OTHER_NS + _WIRE_NS, "stale limit"),
    "peer gone": Kind(_peer_gone, lambda c, v: _silence_ns(v) + _UNDER_WAY_NS + DELAY_NS, "disconnect",
                      at_exchange=True),
    "peer reset": Kind(_peer_reset, lambda c, v: _UNDER_WAY_NS, "disconnect"),
    "peer closed": Kind(_peer_closed, lambda c, v: _UNDER_WAY_NS, "disconnect"),
    "peer FIN": Kind(_peer_half_closed, lambda c, v: 100_000, "reset"),
}


# -- points -----------------------------------------------------------------------------------------------------------

def points(count, seed):
    """So many :class:`Point` s: every kind in turn, moments at random."""
    rng = random.Random(seed)
    return [Point(kind, rng.randrange(FIRST, LAST), rng.randrange(1 << 32))
            for kind in (list(KINDS) * -(-count // len(KINDS)))[:count]]


def cut(config, point):
    """Replay up to a point, cut, and watch; returns the :class:`Outcome`."""
    kind, rng = KINDS[point.kind], random.Random(point.seed)
    show = _Show(config, VirtualBoard(), seed=point.seed)
    try:
        show.start()
        show.play(generate(point.seed, PACKETS, warm_up=True, instruments=INSTRUMENTS[:16]))
        at = show.board.cycle + point.cycle
        while show.board.cycle < at:
            show.step(min(BURST, at - show.board.cycle))
        cut_ns, was_open = show.ns(at), len(show.open_orders)
        bound_ns = kind.bound_ns(config, show.gateway.config)
        kind.cut(show, rng)
        show.run_ms(0.2 if kind.at_exchange else bound_ns / 1e6)
        show.run(2)         # what the exchange has to do within the bound is done
        if kind.at_exchange:
            show.peer.run(cut_ns + bound_ns)
        left = len(show.open_orders)
        show.run_ms(0 if kind.at_exchange else _AFTERWARDS_NS / 1e6)
        left = max(left, len(show.open_orders))
        show.settle()
        closed = [life.closed_ns for life in show.gateway.engine.ledger.orders.values() if life.closed_ns]
        flat_ns = max(0, max(closed, default=cut_ns) - cut_ns)
        return Outcome(*point, was_open, flat_ns, bound_ns, left, len(show.lock.finish()))
    finally:
        show.close()
        show.board.close()


def summary(seed, outcomes):
    """Content of ``out/cuts.json``: by kind, and every point that does not hold."""
    kinds = {}
    for name, kind in KINDS.items():
        mine = [o for o in outcomes if o.kind == name]
        if mine:
            worst = max(mine, key=lambda o: o.flat_ns)
            kinds[name] = {
                "limit": kind.limit, "points": len(mine), "with_quotes_open": sum(o.open > 0 for o in mine),
                "quotes_open_most": max(o.open for o in mine), "worst_flat_ns": worst.flat_ns,
                "bound_ns": worst.bound_ns, "left": sum(o.left for o in mine), "differ": sum(o.differ for o in mine)}
    return {"seed": seed, "points": len(outcomes), "limits": LIMITS, "kinds": kinds,
            "holds": all(o.holds for o in outcomes), "failed": [asdict(o) for o in outcomes if not o.holds]}


def main(count: int = typer.Option(200, "--points", min=1, help="How many points."),
         seed: int = typer.Option(1, help="Of moments, markets and details."),
         results: Path = typer.Option(RESULTS, help="Where to write what was found, as JSON.")):
    """Cut host link, daemon, feed or session at random moments. Exit code 1: something stayed live, or too long."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
                        logger_factory=structlog.ReturnLoggerFactory())     # its alarms are what is to be expected
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(f"seed {seed}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    outcomes = []
    with tempfile.TemporaryDirectory() as directory, Progress(*columns, console=console) as progress:
        config = variant(directory, **LIMITS)
        task = progress.add_task("cuts", total=count)
        for point in points(count, seed):
            progress.update(task, description=f"{point.kind:<11}")
            outcomes.append(cut(config, point))
            if not outcomes[-1].holds:
                console.print(f"[red]does not hold[/red]: {outcomes[-1]}")
            progress.update(task, advance=1)
        progress.update(task, description="cuts")
    found = summary(seed, outcomes)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(found, indent=1) + "\n")
    table = Table("cut", "ended by", "points", "open", "worst ms", "bound ms", "left", "differ", box=SIMPLE)
    for name, k in found["kinds"].items():
        table.add_row(name, k["limit"], str(k["points"]), str(k["with_quotes_open"]), f"{k['worst_flat_ns'] / 1e6:.3f}",
                      f"{k['bound_ns'] / 1e6:.3f}", str(k["left"]), str(k["differ"]))
    console.print(table)
    console.print(f"{'ok' if found['holds'] else 'FAILED'}  {results}")
    raise typer.Exit(0 if found["holds"] else 1)


if __name__ == "__main__":
    sys.exit(typer.run(main))

"""``python -m tests.e2e.cuts``: cut something at a random moment of a replay; nothing of ours may stay at the exchange.

Each point is a replay of its own: the card is armed, generated market data comes in, quotes go out, and at some cycle
one of :data:`KINDS` happens. From then on the exchange's ledger is watched: it must be empty after the time that the
limit in question says, and stay so. Writes ``out/cuts.json``.

What acts where one direction alone dies:

- link to the card: no heartbeat arrives, and the card's dead-man pulls.
- link from the card: the daemon, whose questions are not answered any more, ends its heartbeats after the time of the
  dead-man, and the dead-man pulls.
- order session to the exchange: nothing of ours can arrive; the exchange, which hears nothing, asks, and then ends the
  session and cancels what is in it.
- order session from the exchange: what we send arrives and acts; the exchange, whose answers are not acknowledged,
  resets the connection and cancels what is in it.
- line A of the feed: nothing; line B has it all. Here quotes must go on, and not one instrument may grow old.
"""

import json
import logging
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import structlog
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hdl.control import registers
from hdl.layout import net
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.verilate import ROOT
from sim.market.generator import INSTRUMENTS, LINE_A, generate
from sim.market.schedule import schedule
from sim.replay import BURST, DELAY_NS
from tests.e2e.stage import Stage, variant

__all__ = ["KINDS", "LIMITS", "Outcome", "Point", "cut", "points", "summary"]

RESULTS = ROOT / "out" / "cuts.json"
#: Limits of the replays: short, so that a simulation reaches them soon.
LIMITS = {"deadman_ms": 1, "heartbeat_ms": 0.4, "stale_ms": 1}
PACKETS = 260
#: Where the feed's group stands in a frame without VLAN tag: the destination of the IPv4 header.
_GROUP = slice(net.ETHERNET.size + net.IPV4["dst"].offset, net.ETHERNET.size + net.IPV4.size)
#: First and last cycle of the market in which something is cut: books are being stated; a market under way.
FIRST, LAST = 20_000, 500_000
#: A frame of the largest size may be under way on the order port; then come the mass cancel and the way there.
_WIRE_NS = (1530 + 12 + 8 + 100) * CYCLE_NS + DELAY_NS
#: What has been put in before the cut and is carried out after it.
_UNDER_WAY_NS = 2 * BURST * CYCLE_NS
#: Quotes that grow old together are taken away one after the other: an evaluation and a frame for each instrument.
_ONE_AFTER_THE_OTHER_NS = 16 * 300 * CYCLE_NS
#: Retransmissions of the exchange, the first one after so long, each of the others after twice as long; then it resets.
_RTO_NS, _RETRIES = 100_000, 2
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
    frames that ``differ`` from the golden model's; whether trading has ``stopped`` that had to go on."""

    kind: str
    cycle: int
    seed: int
    open: int
    flat_ns: int
    bound_ns: int
    left: int
    differ: int
    stopped: bool = False

    @property
    def holds(self):
        return not self.left and self.flat_ns <= self.bound_ns and not self.differ and not self.stopped


class _Show(Stage):
    """A stage on which a market is played that can be cut off: frames are put on the port as they are due."""

    silent, dead_group = False, None

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
            if frame.data[_GROUP] != self.dead_group:
                self.lock.inject(0, [frame.data[:-4]], [frame.cycle])
        return super().step(cycles)

    @property
    def ended(self):
        """All of the market has come."""
        return not self._due

    _due = ()


# -- what can be cut --------------------------------------------------------------------------------------------------

def _link_to_card(show, rng):
    """What the daemon says does not arrive any more, from somewhere in what it says next on; it hears everything."""
    write, left, last = show.lock.link_write, [rng.randrange(64)], show.board.cycle + BURST

    def some(data):
        if show.board.cycle > last:
            left[0] = 0
        write(data[:left[0]])
        left[0] -= min(left[0], len(data))
    show.lock.link_write = some


def _link_from_card(show, rng):
    """What the card says does not arrive any more, from somewhere in what it says next on; it hears everything."""
    read, left, last = show.lock.link_read, [rng.randrange(64)], show.board.cycle + BURST

    def some():
        data = read()
        if show.board.cycle > last:
            left[0] = 0
        kept, left[0] = data[:left[0]], left[0] - min(left[0], len(data))
        return kept
    show.lock.link_read = some


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


def _line_a_lost(show, rng):
    """Nothing comes on line A of the feed any more; line B goes on."""
    show.dead_group = LINE_A.group.to_bytes(4, "big")


def _to_exchange(show, rng):
    """Nothing that the card sends arrives at the exchange; it hears everything."""
    show.peer.receive = lambda frame, time_ns: None


def _from_exchange(show, rng):
    """Nothing that the exchange sends arrives at the card: no answer, no acknowledgement; it hears everything."""
    show.peer.config = replace(show.peer.config, rto_ns=_RTO_NS, retries=_RETRIES)
    show.peer.frames = lambda until_ns: []


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
    exchange alone can see to that, so that it alone has to be simulated for so long. ``goes_on``: nothing ends; quotes
    are sent until then and there are some at the exchange, unless the market ends before."""

    cut: Callable
    bound_ns: Callable
    limit: str          # what ends it
    at_exchange: bool = False
    goes_on: bool = False


def _ms(milliseconds):
    return int(milliseconds * 1_000_000)


def _silence_ns(venue):
    """A client that is silent for the grace is asked, and dropped after one more interval."""
    return int((venue.heartbeat_grace + 1) * venue.heartbeat_s * 1_000_000_000)


KINDS = {
    "link to card": Kind(_link_to_card, lambda c, v: _ms(c.risk.deadman_ms) + _UNDER_WAY_NS + _WIRE_NS, "dead-man"),
    "link from card": Kind(_link_from_card, lambda c, v: _ms(2 * c.risk.deadman_ms + 2 * c.host.heartbeat_ms)
                           + _UNDER_WAY_NS + _WIRE_NS, "dead-man"),
    "daemon": Kind(_daemon, lambda c, v: _ms(c.risk.deadman_ms) + _UNDER_WAY_NS + _WIRE_NS, "dead-man"),
    "feed lost": Kind(_feed_lost, lambda c, v: _WIRE_NS, "at once"),
    "feed silent": Kind(_feed_silent, lambda c, v: _ms(max(i.stale_ms for i in c.instruments)) + _UNDER_WAY_NS
                        + _ONE_AFTER_THE_OTHER_NS + _WIRE_NS, "stale limit"),
    "line A lost": Kind(_line_a_lost, lambda c, v: _ms(max(i.stale_ms for i in c.instruments)) + _AFTERWARDS_NS,
                        "nothing", goes_on=True),
    "to exchange": Kind(_to_exchange, lambda c, v: _silence_ns(v) + _UNDER_WAY_NS + DELAY_NS, "disconnect",
                        at_exchange=True),
    "from exchange": Kind(_from_exchange, lambda c, v: _ms(max(i.stale_ms for i in c.instruments))
                          + ((2 << _RETRIES) - 1) * _RTO_NS + _UNDER_WAY_NS + 2 * DELAY_NS, "retransmissions"),
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
        if kind.goes_on:
            return _goes_on(show, point, at, was_open, bound_ns)
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


def _goes_on(show, point, at, was_open, bound_ns):
    """The :class:`Outcome` where nothing may end: watched as long as there is a market."""
    begun = len(show.gateway.engine.ledger.quotes)
    while show.ns(show.board.cycle) < show.ns(at) + bound_ns and not show.ended:
        show.step()
    quoted = len(show.gateway.engine.ledger.quotes) > begun
    stopped = not (show.open_orders and quoted and show.daemon.state == registers.ACTIVE)
    show.settle()
    return Outcome(*point, was_open, 0, bound_ns, 0, len(show.lock.finish()), stopped)


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
                "bound_ns": worst.bound_ns, "left": sum(o.left for o in mine), "differ": sum(o.differ for o in mine),
                "stopped": sum(o.stopped for o in mine)}
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
            progress.update(task, description=f"{point.kind:<14}")
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

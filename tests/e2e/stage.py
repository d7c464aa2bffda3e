"""A replay whose script is written by a test: market, exchange, host and clock, each moved by itself."""

import re
from collections import Counter
from pathlib import Path

from hdl.control import registers
from host import config as configuration
from host import why
from sim.board.board import CYCLE_NS
from sim.market.generator import BID, INSTRUMENTS, LINE_A, OFFER, OVERLAY, book_message, packet, udp_frame
from sim.replay import BURST, DELAY_NS, MARKET_LAG_NS, Replay
from tests.e2e.orders import orders, quotes

__all__ = ["FIRST_LIGHT", "Stage", "variant"]

FIRST_LIGHT = Path(__file__).parents[2] / "config" / "first_light.toml"
_END_OF_EVENT = 0x84
_VERSION = 8


def variant(directory, **changes):
    """first_light with other values of keys that stand in it once; ``verify_ms``, which does not, may be given too.
    Returns a :class:`host.config.Config`."""
    text = FIRST_LIGHT.read_text().replace("heartbeat_ms = 20", "heartbeat_ms = 20\nverify_ms = 1000")
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = (\"[^\"]*\"|\S+)", f"{key} = {value}", text)
        if count != 1:
            raise ValueError(f"{key} stands {count} times in {FIRST_LIGHT.name}, must be once")
    path = Path(directory) / "variant.toml"
    path.write_text(text)
    (path.parent / "simulator.secret").write_text((FIRST_LIGHT.parent / "simulator.secret").read_text())
    return configuration.load(path)


class Stage(Replay):
    """Board, golden model, exchange and daemon in lock step (:class:`sim.replay.Replay`), to be moved step by step.

    Prices of the market are in ticks of the feed, relative to where the generator's instruments begin; the first of the
    configuration are the first of the generator.

    Parameters
    ----------
    config, board : as for :class:`Replay`.

    Attributes
    ----------
    decisions : every Decision record that the card has told its host.
    peak : {instrument id: (least, greatest)} position in lots at the exchange so far.
    """

    def __init__(self, config, board, **options):
        super().__init__(config, board, **options)
        self.decisions, self.peak = [], {}
        self.daemon.on_decision.append(lambda decision, now_ns: self.decisions.append(decision))
        self._seq, self._fills, self._totals = 1, 0, Counter()

    # -- the market ---------------------------------------------------------------------------------------------
    def tell(self, n, bid, ask, size=50):
        """Put a packet on the feed that states both best prices of instrument ``n``, and ends the event."""
        instrument = INSTRUMENTS[n]
        rows = [(instrument, self._seq, kind, 1, OVERLAY, instrument.mid_ticks + px, size)
                for kind, px in ((BID, bid), (OFFER, ask))]
        now_ns = self.ns(self.board.cycle)
        message = book_message(rows, _END_OF_EVENT, _VERSION, now_ns)
        self.lock.inject(0, [udp_frame(LINE_A, packet(self._seq, [message], now_ns))], [self.board.cycle])
        self._seq += 1

    def trade_at(self, n, bid, ask, size=50):
        """Let the rest of the market at the exchange be at these prices; it trades with what it crosses."""
        instrument = INSTRUMENTS[n]
        levels = [(instrument.mid_ticks + px, size) for px in (bid, ask)]
        self.at_exchange(lambda now_ns: self.mirror.best(now_ns, instrument.security_id, *levels))

    def market(self, n, bid, ask, steps=4):
        """Both: the feed tells it, the exchange follows, and there is time for a quote and its answer."""
        self.tell(n, bid, ask)
        self.trade_at(n, bid, ask)
        self.run(steps)

    def feed_alone(self, n, bid, ask, steps=4):
        """The feed tells it, and at the exchange nothing moves."""
        self.tell(n, bid, ask)
        self.run(steps)

    def at_exchange(self, happening):
        """Let ``happening(now_ns)`` take place at the exchange soon, and what follows from it go out."""
        def happen(now_ns):
            happening(now_ns)
            self.gateway.flush(now_ns)
        self.peer.at(max(self.peer.now_ns, self.ns(self.board.cycle) + MARKET_LAG_NS), happen)

    # -- time ---------------------------------------------------------------------------------------------------
    def step(self, cycles=BURST):
        sent = super().step(cycles)
        fills = self.gateway.engine.ledger.fills
        for fill in fills[self._fills:]:
            self._totals[fill.instrument_id] += fill.side * fill.lots
            total, (least, most) = self._totals[fill.instrument_id], self.peak.get(fill.instrument_id, (0, 0))
            self.peak[fill.instrument_id] = min(least, total), max(most, total)
        self._fills = len(fills)
        return sent

    def run(self, steps):
        """So many bursts."""
        for _ in range(steps):
            self.step()

    def run_ms(self, ms):
        """So much time."""
        end = self.board.cycle + round(ms * 1e6 / CYCLE_NS)
        while self.board.cycle < end:
            self.step()

    def command(self, coroutine):
        """What the operator does; returns the result or raises the error."""
        task = self.daemon.submit("test", coroutine)
        task.then.append(lambda task: None)
        self.until(lambda: task.done, "the command did not end")
        if task.error is not None:
            raise task.error
        return task.result

    # -- what is to be seen -------------------------------------------------------------------------------------
    @property
    def open_orders(self):
        """Ours at the exchange."""
        return self.gateway.engine.open_orders()

    def orders(self, since=0):
        """Quotes and cancels on the wire from a cycle on (:func:`tests.e2e.orders.orders`)."""
        return [o for o in orders(self.lock.sent) if o.cycle >= since]

    def quotes(self, n, since=0):
        """(bid ticks or None, ask ticks or None) of an instrument's quotes on the wire from a cycle on, in ticks of the
        quoted instrument."""
        instrument = self.config.instruments[n]
        tick_e9 = int(instrument.tick * 10 ** 9)
        return [(bid // tick_e9 if bid_lots else None, ask // tick_e9 if ask_lots else None)
                for cycle, who, bid, bid_lots, ask, ask_lots in quotes(self.lock.sent)
                if who == instrument.instrument_id and cycle >= since]

    def reasons(self, n, since=0):
        """Names of the gates that stopped an instrument, in records of decisions from a cycle on."""
        seen = 0
        for d in self.decisions:
            if d.instrument == n and d.fire_cycle >= since:
                seen |= d.reasons
        return {name for bit, (name, *_) in registers.GATES.items() if seen >> bit & 1}

    def why(self, n):
        """What `t2q why 1 --instrument NAME` prints."""
        [drop] = self.command(self.daemon.why(1, self.config.instruments[n].name))["drops"]
        return why.text(drop)

    def counters(self):
        """Every counter of the card, read over the link."""
        self.command(self.daemon._watch())
        return self.daemon.watched

    def finish(self):
        """It was all as the golden model has it, and on the wire nothing was wrong."""
        self.run(2 * DELAY_NS // (BURST * CYCLE_NS) + 4)
        assert self.lock.finish() == []
        assert self.peer.violations == []
        assert not [frame for frame in self.lock.sent if frame.faults]

"""The daemon's figures for Prometheus, served on localhost by the daemon's own loop."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hdl.control import registers as regmap


class DaemonCollector(Collector):
    """Figures of a :class:`host.daemon.Daemon`, taken when they are asked for.

    What the card counts is as of the last look at it, about a second ago, and missing before the first one.
    """

    def __init__(self, daemon):
        self._daemon = daemon

    def collect(self):
        """Metric families."""
        d = self._daemon
        yield GaugeMetricFamily("t2q_state", "State: " + ", ".join(f"{i} {s}" for i, s in enumerate(regmap.STATES)),
                                value=d.state)
        causes = GaugeMetricFamily("t2q_halt_cause", "1 for each cause of the halt that is latched", labels=["cause"])
        for name, bit in regmap.HALT_CAUSES.items():
            causes.add_metric([name], d.halt_cause >> bit & 1)
        yield causes
        yield GaugeMetricFamily("t2q_ready", "1 while the session is up and handed over", value=int(d.phase == "ready"))
        yield GaugeMetricFamily("t2q_open_at_venue_lots", "Lots of ours in the venue's book; NaN while that is unknown",
                                value=float("nan") if d.open_at_venue is None else d.open_at_venue)
        yield GaugeMetricFamily("t2q_verified", "1: since quoting stopped the venue has shown that nothing is open",
                                value=int(d.verified))
        yield GaugeMetricFamily("t2q_alarm", "1: the venue could not be verified, something may be open",
                                value=int(bool(d.alarm)))
        for name, text, counts, label in (
                ("t2q_decisions", "Decision records by outcome", d.decisions, "outcome"),
                ("t2q_events", "Events of the card by code", d.events, "code"),
                ("t2q_answers", "Messages of the venue by name", d.answers, "message")):
            family = CounterMetricFamily(name, text, labels=[label])
            for key, value in sorted(counts.items()):
                family.add_metric([key], value)
            yield family
        yield from self._gates(d)
        yield GaugeMetricFamily("t2q_equity", "What the account is worth by our count", value=float(d.equity.value))
        yield CounterMetricFamily("t2q_fills", "Trades of ours", value=len(d.positions.fills))
        yield from self._instruments(d)
        yield from self._card(d)
        yield from self._limits(d)

    @staticmethod
    def _gates(d):
        records = CounterMetricFamily("t2q_gate_drops", "Decision records by gate that failed, since the daemon began",
                                      labels=["gate", "name"])
        card = CounterMetricFamily("t2q_card_gate_drops", "The card's own count of the same, since its reset",
                                   labels=["gate", "name"])
        for gate, name, _ in regmap.GATES.values():
            records.add_metric([gate, name], d.reasons[gate])
            counter = f"drop_{gate.lower()}"
            if counter in d.watched:
                card.add_metric([gate, name], d.watched[counter])
        yield from (records, card)

    @staticmethod
    def _instruments(d):
        families = [GaugeMetricFamily(f"t2q_{name}_lots", text, labels=["instrument"]) for name, text in (
            ("position", "Position"), ("open_bid", "Bid lots that may still trade"),
            ("open_ask", "Ask lots that may still trade"))]
        live = GaugeMetricFamily("t2q_live", "1 while the card has this side at the venue; instruments 0 to 31",
                                 labels=["instrument", "side"])
        for n, instrument in enumerate(d.config.instruments):
            for family, value in zip(families, d.positions.lots(n), strict=True):
                family.add_metric([instrument.name], value)
            for side in ("bid", "ask"):
                register = f"live_{side}s"
                if register in d.watched and n < regmap.BY_NAME[register].width:
                    live.add_metric([instrument.name, side], d.watched[register] >> n & 1)
        yield from (*families, live)

    @staticmethod
    def _card(d):
        counters = CounterMetricFamily("t2q_card_count", "Counters of the card, since its reset", labels=["register"])
        levels = GaugeMetricFamily("t2q_card", "Other registers of the card", labels=["register"])
        for name, value in d.watched.items():
            is_counter = name in regmap.BY_NAME and regmap.BY_NAME[name].access == "count"
            (counters if is_counter else levels).add_metric([name], value)
        yield from (counters, levels)

    @staticmethod
    def _limits(d):
        family = GaugeMetricFamily("t2q_limit", "Limits in force, read back from the card's words; of the whole "
                                   "card under the name card", labels=["instrument", "limit", "unit"])
        if d.limits and d.limits.active:
            for instrument, limits in d.limits.in_force().items():
                for limit in limits:
                    family.add_metric([instrument, limit.key, limit.unit], float(limit.value))
        yield family
        yield GaugeMetricFamily("t2q_limits_staged", "1 while other limits are staged",
                                value=int(bool(d.limits and d.limits.staged)))


async def serve(daemon, port):
    """Answer GET requests on 127.0.0.1:``port`` until cancelled."""
    registry = CollectorRegistry()
    registry.register(DaemonCollector(daemon))

    async def connected(reader, writer):
        try:
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            body = generate_latest(registry)
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: " + CONTENT_TYPE_LATEST.encode() +
                         b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
            await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()

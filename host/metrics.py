"""The daemon's figures for Prometheus, served on localhost by the daemon's own loop."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hdl.control import registers as regmap


class DaemonCollector(Collector):
    """Figures of a :class:`host.daemon.Daemon`, taken when they are asked for."""

    def __init__(self, daemon):
        self._daemon = daemon

    def collect(self):
        """Metric families."""
        d = self._daemon
        yield GaugeMetricFamily("t2q_state", "State: " + ", ".join(f"{i} {s}" for i, s in enumerate(regmap.STATES)),
                                value=d.state)
        yield GaugeMetricFamily("t2q_ready", "1 while the session is up and handed over", value=int(d.phase == "ready"))
        for name, text, counts, label in (
                ("t2q_decisions", "Decision records by outcome", d.decisions, "outcome"),
                ("t2q_gate_drops", "Decision records by gate that failed", d.reasons, "gate"),
                ("t2q_events", "Events of the card by code", d.events, "code"),
                ("t2q_answers", "Messages of the venue by name", d.answers, "message")):
            family = CounterMetricFamily(name, text, labels=[label])
            for key, value in sorted(counts.items()):
                family.add_metric([key], value)
            yield family
        yield CounterMetricFamily("t2q_fills", "Trades of ours", value=len(d.positions.fills))
        families = [GaugeMetricFamily(f"t2q_{name}_lots", text, labels=["instrument"]) for name, text in (
            ("position", "Position"), ("open_bid", "Bid lots that may still trade"),
            ("open_ask", "Ask lots that may still trade"))]
        for n, instrument in enumerate(d.config.instruments):
            for family, value in zip(families, d.positions.lots(n), strict=True):
                family.add_metric([instrument.name], value)
        yield from families
        card = GaugeMetricFamily("t2q_card", "Registers of the card, read once a second", labels=["register"])
        for name, value in d.watched.items():
            card.add_metric([name], value)
        yield card


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

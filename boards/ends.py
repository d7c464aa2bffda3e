"""The slowest ends of a routed design, from nextpnr's own timing of every wire.

A critical path is one way. What has to be mended is seldom one: this shows, signal by signal, how many of its registers
come late and how late the latest is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from boards import flow

__all__ = ["End", "slowest"]


@dataclass(frozen=True)
class End:
    """A signal's registers: ``count`` of them are reached later than asked for, the latest after ``ns``, setup not
    included, over its input ``port``; ``net`` is the last wire on the way."""

    signal: str
    count: int
    ns: float
    port: str
    net: str


def slowest(report, *, least_ns, clock=None):
    """Ends within one clock that are reached after ``least_ns`` or later, by signal, the latest first.

    Parameters
    ----------
    report : path of nextpnr's JSON report, made with ``--detailed-timing-report`` (:mod:`boards.flow` does).
    clock : name as in the report; without it that of most ends.

    Returns
    -------
    (ends of that clock in all, list of :class:`End`)

    Raises
    ------
    boards.flow.FlowError
        The report has no times of single wires, or none of that clock.
    """
    nets = json.loads(Path(report).read_text()).get("detailed_net_timings")
    if nets is None:
        raise flow.FlowError(f"{report}: no times of single wires in it; build the board again")
    found = {}
    for net in nets:
        for end in net["endpoints"]:
            if end["event"] == net["event"]:
                found.setdefault(flow.clock_name(end["event"]), []).append((end["delay"][-1], end, net))
    if not found or clock not in {None, *found}:
        raise flow.FlowError(f"{report}: clock {clock}, must be one of {', '.join(sorted(found)) or 'none'}")
    ends = found[clock] if clock else max(found.values(), key=len)
    signals = {}
    for ns, end, net in ends:
        if ns >= least_ns:
            signals.setdefault(_signal(end["cell"]), []).append((ns, end["port"], net["net"]))
    out = []
    for signal, late in signals.items():
        ns, port, net = max(late)
        out.append(End(signal, len(late), round(ns, 2), port, flow.cell_name(net)))
    return len(ends), sorted(out, key=lambda end: -end.ns)


def _signal(cell):
    """Name of the signal that a cell belongs to."""
    return flow.cell_name(cell).partition("~")[0].rstrip(".")

"""The short forms of a result: ``report.json`` and the table on the screen."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .model import CYCLE_NS


def to_json(result):
    """The content of ``report.json``: plain numbers, texts, lists and mappings."""
    return {
        "capture": result.capture,
        "generated": result.generated,
        "packets": result.packets,
        "duplicates": result.duplicates,
        "gaps": result.gaps,
        "gap_packets": result.gap_packets,
        "messages": result.messages,
        "events": result.events,
        "quotes_sent": result.quotes_sent,
        "quotes_accepted": result.quotes_accepted,
        "quotes_refused": result.quotes_refused,
        "mass_cancels": result.mass_cancels,
        "fills": result.fills,
        "golden_mismatches": result.golden_mismatches,
        "frames_compared": result.frames_compared,
        "gate_drops": dict(result.gate_drops),
        "trigger_to_quote_cycles": result.latency.summary(),
        "trigger_to_quote_histogram": {str(c): n for c, n in sorted(result.latency.cycles.items())},
        "sim_cycles": result.sim_cycles,
        "sim_cycles_per_s": result.sim_cycles_per_s,
        "wall_s": round(result.wall_s, 3),
        "refusals": list(result.refusals),
        "wire_violations": list(result.wire_violations),
        "counters": dict(result.counters),
        "instruments": [{
            "name": i.name, "security_id": i.security_id, "instrument_id": i.instrument_id,
            "quotes_sent": i.quotes_sent, "quotes_accepted": i.quotes_accepted, "fills": len(i.fills),
            "position_lots": i.last_position,
        } for i in result.instruments],
        "notes": list(result.notes),
    }


def write_json(result, path):
    """Write ``report.json``; parents are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(result), indent=2) + "\n", encoding="utf-8")


def count(number):
    """An integer with thousands separated."""
    return f"{number:,}"


def latency_text(latency):
    """Trigger-to-quote in words, with nanoseconds."""
    if not latency.count:
        return "none measured"
    quotes = f"{count(latency.count)} quotes"
    if latency.min == latency.max:
        return f"{latency.min} cycles ({latency.min * CYCLE_NS} ns), minimum = maximum, {quotes}"
    return f"{latency.min} / {latency.mean:.2f} / {latency.max} cycles (min / mean / max), {quotes}"


def verdicts(result):
    """(name, passed, text) of what must hold after a replay."""
    answered = result.quotes_accepted + result.quotes_refused
    return [
        ("golden model", result.golden_mismatches == 0,
         f"{count(result.frames_compared)} frames compared, {count(result.golden_mismatches)} differ"),
        ("exchange", answered == result.quotes_sent and len(result.refusals) >= result.quotes_refused,
         f"{count(result.quotes_accepted)} of {count(result.quotes_sent)} quotes accepted" +
         (f", {count(result.quotes_refused)} refused with {count(len(result.refusals))} explanations"
          if result.refusals or result.quotes_refused else "") +
         (f", {count(result.quotes_sent - answered)} unanswered" if answered != result.quotes_sent else "")),
        ("wire", not result.wire_violations, f"{count(len(result.wire_violations))} faults found in our frames"),
    ]


def facts(result):
    """Rows (name, text) of the table of facts."""
    origin = "generated traffic" if result.generated else "capture"
    rows = [
        ("source", f"{result.capture} ({origin})"),
        ("feed packets", f"{count(result.packets)}, of which {count(result.duplicates)} duplicates"),
        ("sequence gaps", f"{count(result.gaps)} ({count(result.gap_packets)} packets missing)"),
        ("messages, events", f"{count(result.messages)}, {count(result.events)}"),
        ("quotes sent", f"{count(result.quotes_sent)} (and {count(result.mass_cancels)} mass cancels)"),
        ("quotes accepted", f"{count(result.quotes_accepted)} ({count(result.quotes_refused)} refused)"),
        ("fills", count(result.fills)),
        ("trigger to quote", latency_text(result.latency)),
        ("golden model", f"{count(result.frames_compared)} frames compared, {count(result.golden_mismatches)} differ"),
        ("simulated", f"{count(result.sim_cycles)} cycles ({result.simulated_ns / 1e6:,.1f} ms at 125 MHz), "
                      f"{count(result.sim_cycles_per_s)} cycles/s"),
        ("wall time", f"{result.wall_s:.1f} s"),
    ]
    return rows + list(result.facts.items())


def print_table(result, console=None):
    """Print the table that ends a replay. ``console`` is a rich Console (default: standard output)."""
    console = console or Console()
    table = Table(title="tick2quote replay", title_justify="left", show_header=False, pad_edge=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts(result):
        table.add_row(name, text)
    held = {name: number for name, number in result.gate_drops.items() if number}
    for name, number in sorted(held.items(), key=lambda item: (-item[1], item[0])):
        table.add_row("held back", f"{count(number)} by {name}")
    console.print(table)
    for name, passed, text in verdicts(result):
        mark = "[green]ok[/green]" if passed else "[bold red]FAILED[/bold red]"
        console.print(f"{mark}  {name}: {text}")
    for sentence in (result.refusals + result.wire_violations)[:5]:
        console.print(f"    {sentence}", style="yellow", highlight=False, markup=False)
    hidden = len(result.refusals) + len(result.wire_violations) - 5
    if hidden > 0:
        console.print(f"    and {hidden} more, see report.json", style="yellow")

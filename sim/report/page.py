"""``report.html``: one self-contained page, charts as SVG drawn with matplotlib, nothing fetched from anywhere."""

import html
import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .model import CYCLE_NS
from .summary import count, facts, latency_text, verdicts

#: Most points of one line in a chart; above it, the extremes of equal parts of time are kept.
MAX_POINTS = 3_000

_INK, _MUTED, _GRID = "#1d2733", "#66727f", "#e3e8ed"
_MARKET, _BID, _ASK, _POSITION, _BAR = "#9aa7b4", "#0f766e", "#c2410c", "#334e8a", "#4c6fae"

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "tick2quote", "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"], "font.size": 9,
    "axes.edgecolor": _MUTED, "axes.labelcolor": _MUTED, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.formatter.useoffset": False, "grid.color": _GRID,
    "grid.linewidth": 0.8, "xtick.color": _MUTED, "ytick.color": _MUTED, "text.color": _INK, "legend.frameon": False,
    "legend.fontsize": 8.5,
}

_CSS = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f6f8; color: #1d2733; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 17px; margin: 34px 0 10px; }
.sub { color: #66727f; margin: 2px 0 18px; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 10px; }
.card, .panel { background: #fff; border: 1px solid #e3e8ed; border-radius: 10px; }
.card { padding: 12px 14px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; letter-spacing: -0.02em; }
.card span { color: #66727f; font-size: 13px; }
.panel { padding: 12px 14px; margin-bottom: 12px; overflow-x: auto; }
.panel svg { display: block; width: 100%; height: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 12px; }
.verdict { display: inline-block; border-radius: 999px; padding: 2px 12px; margin: 0 6px 8px 0; font-size: 13px; }
.good { background: #dff3ea; color: #0b5f43; } .bad { background: #fde2dd; color: #9b1c0c; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid #edf0f3; vertical-align: top; }
th { color: #66727f; font-weight: 500; white-space: nowrap; } td.n, th.n { text-align: right; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
summary { cursor: pointer; font-weight: 600; padding: 4px 0; } summary span { color: #66727f; font-weight: 400; }
ul { margin: 0; padding-left: 18px; } li { overflow-wrap: anywhere; }
footer { color: #66727f; font-size: 13px; margin-top: 36px; }
"""


def thin(times, values, limit=MAX_POINTS):
    """Indices of at most about ``limit`` points of a line that keep its look: the first, lowest, highest and last of
    each of equal parts of time. ``values`` may hold ``None``; the first of a run of these is kept where it falls."""
    if len(times) <= limit:
        return list(range(len(times)))
    parts = max(1, limit // 4)
    start, width = times[0], max(1, (times[-1] - times[0]) / parts)
    chosen, bucket, at = set(), [], 0

    def close():
        known = [i for i in bucket if values[i] is not None]
        chosen.update((bucket[0], bucket[-1]))
        if known:
            chosen.update((min(known, key=values.__getitem__), max(known, key=values.__getitem__)))
        missing = next((i for i in bucket if values[i] is None), None)
        if missing is not None:
            chosen.add(missing)

    for i, time in enumerate(times):
        part = int((time - start) / width)
        if part != at and bucket:
            close()
            bucket = []
        at = part
        bucket.append(i)
    close()
    return sorted(chosen)


def _line(levels, side, end_ns):
    """(milliseconds, values) of one side as a step line drawn to the end; gaps are NaN."""
    times, values = [p.time_ns for p in levels], [getattr(p, side) for p in levels]
    keep = thin(times, values)
    x = [times[i] / 1e6 for i in keep]
    y = [values[i] if values[i] is not None else float("nan") for i in keep]
    if x and end_ns / 1e6 > x[-1]:
        x.append(end_ns / 1e6)
        y.append(y[-1])
    return x, y


def _svg(figure):
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg"):]


def _instrument_chart(series, end_ns):
    figure = Figure(figsize=(11, 4.6))  # fixed margins: a computed layout draws everything twice
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1), gridspec_kw={
        "left": 0.08, "right": 0.99, "top": 0.98, "bottom": 0.1, "hspace": 0.07})
    for axes in (upper, lower):
        axes.yaxis.set_label_coords(-0.065, 0.5)
    for side in ("bid", "ask"):
        x, y = _line(series.market, side, end_ns)
        upper.step(x, y, where="post", color=_MARKET, linewidth=1.1, label="market" if side == "bid" else None)
    for side, color in (("bid", _BID), ("ask", _ASK)):
        x, y = _line(series.quotes, side, end_ns)
        upper.step(x, y, where="post", color=color, linewidth=1.3, label=f"our {side}")
    for side, color, marker, name in ((1, _BID, "^", "bought"), (-1, _ASK, "v", "sold")):
        fills = [f for f in series.fills if f.side == side]
        if fills:
            upper.scatter([f.time_ns / 1e6 for f in fills], [f.price for f in fills], marker=marker, s=44, color=color,
                          edgecolors="white", linewidths=0.8, zorder=4, label=f"{name} ({len(fills)})")
    upper.set_ylabel("price")
    ours = [p for level in series.quotes for p in (level.bid, level.ask) if p is not None]
    ours += [f.price for f in series.fills]
    if ours:  # a market that is far away for a moment must not flatten what we did
        margin = 0.3 * (max(ours) - min(ours)) or 1e-4 * abs(ours[0]) or 1
        upper.set_ylim(min(ours) - margin, max(ours) + margin * 1.6)  # room for the legend above
    upper.legend(loc="upper left", ncols=6)
    position = series.position or [(0, 0)]
    x = [t / 1e6 for t, _ in position] + [end_ns / 1e6]
    y = [lots for _, lots in position] + [position[-1][1]]
    lower.fill_between(x, y, step="post", color=_POSITION, alpha=0.18, linewidth=0)
    lower.step(x, y, where="post", color=_POSITION, linewidth=1.3)
    lower.axhline(0, color=_MUTED, linewidth=0.8)
    lower.set_ylabel("position, lots")
    lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    lower.set_xlabel("time on the simulated wire, ms")
    return _svg(figure)


def _latency_chart(latency):
    figure = Figure(figsize=(5.3, 3.1), layout="constrained")
    axes = figure.subplots()
    if latency.count:
        cycles = range(max(0, latency.min - 3), latency.max + 4)
        bars = axes.bar(list(cycles), [latency.cycles.get(c, 0) for c in cycles], color=_BAR, width=0.72)
        for bar, c in zip(bars, cycles, strict=True):
            if latency.cycles.get(c):
                axes.annotate(count(latency.cycles[c]), (bar.get_x() + bar.get_width() / 2, bar.get_height()),
                              ha="center", va="bottom", fontsize=8, xytext=(0, 2), textcoords="offset points")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.margins(y=0.14)
    else:
        axes.text(0.5, 0.5, "no quote was measured", ha="center", va="center", transform=axes.transAxes, color=_MUTED)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(f"cycles of {CYCLE_NS} ns, trigger byte in to first preamble byte out")
    axes.set_ylabel("quotes")
    return _svg(figure)


def _drops_chart(drops):
    rows = sorted(((n, name) for name, n in drops.items() if n), key=lambda row: (row[0], row[1]))
    figure = Figure(figsize=(5.3, 3.1), layout="constrained")
    axes = figure.subplots()
    if rows:
        bars = axes.barh([name for _, name in rows], [n for n, _ in rows], color=_BAR, height=0.66)
        axes.bar_label(bars, [count(n) for n, _ in rows], padding=3, fontsize=8)
        axes.margins(x=0.16)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    else:
        axes.text(0.5, 0.5, "nothing was held back", ha="center", va="center", transform=axes.transAxes, color=_MUTED)
        axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("evaluations; one may have several reasons")
    return _svg(figure)


def _table(rows):
    return "<table>" + "".join(f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(text))}</td></tr>"
                               for name, text in rows) + "</table>"


def _instrument_table(series):
    head = "".join(f"<th class=n>{t}</th>" for t in ("quotes sent", "accepted", "fills", "bought", "sold", "position"))
    rows = "".join(
        f"<tr><td>{html.escape(i.name)}</td>" + "".join(
            f"<td class=n>{count(n)}</td>" for n in (
                i.quotes_sent, i.quotes_accepted, len(i.fills), sum(f.lots for f in i.fills if f.side > 0),
                sum(f.lots for f in i.fills if f.side < 0), i.last_position)) + "</tr>" for i in series)
    return f"<table><tr><th>instrument</th>{head}</tr>{rows}</table>"


def _list(title, sentences, limit=200):
    if not sentences:
        return ""
    items = "".join(f"<li>{html.escape(s)}</li>" for s in sentences[:limit])
    more = f"<li>and {count(len(sentences) - limit)} more, see report.json</li>" if len(sentences) > limit else ""
    return f"<h2>{title}</h2><div class=panel><ul>{items}{more}</ul></div>"


def render(result):
    """The whole page as text."""
    end_ns = max([result.simulated_ns, *(p.time_ns for i in result.instruments for p in (*i.market, *i.quotes))])
    latency = result.latency
    best = "none" if not latency.count else (
        f"{latency.min}" if latency.min == latency.max else f"{latency.min} to {latency.max}")
    cards = [
        (best, "cycles from trigger to quote"), (count(result.quotes_sent), "quotes sent"),
        (count(result.quotes_accepted), "accepted by the exchange"), (count(result.fills), "fills"),
        (count(result.golden_mismatches), "differences from the golden model"),
        (count(result.packets), "feed packets"),
        (f"{result.sim_cycles_per_s / 1e6:.2f} M", "cycles simulated a second"),
    ]
    active = sorted((i for i in result.instruments if i.quotes or i.fills),
                    key=lambda i: (-len(i.fills), -len(i.quotes), i.name))
    with mpl.rc_context(_STYLE):
        charts = [
            f"<details class=panel{' open' if n < 4 else ''}><summary>{html.escape(i.name)} <span>&nbsp;"
            f"{count(i.quotes_sent)} quotes, {count(len(i.fills))} fills, position {count(i.last_position)}"
            f"</span></summary>{_instrument_chart(i, end_ns)}</details>" for n, i in enumerate(active)]
        latency_svg, drops_svg = _latency_chart(latency), _drops_chart(result.gate_drops)
    silent = [i.name for i in result.instruments if i not in active]
    if silent:
        charts.append(f"<p class=sub>Not quoted: {html.escape(', '.join(silent))}</p>")
    origin = "generated traffic" if result.generated else "capture"
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'><title>tick2quote replay</title>",
        f"<style>{_CSS}</style></head><body><main><h1>tick2quote replay</h1>",
        f"<p class=sub>{html.escape(result.capture)} ({origin})</p>",
        "".join(f"<span class='verdict {'good' if ok else 'bad'}'>{html.escape(name)}: {html.escape(text)}</span>"
                for name, ok, text in verdicts(result)),
        "<div class=cards>", "".join(f"<div class=card><b>{v}</b><span>{t}</span></div>" for v, t in cards), "</div>",
        "<h2>Market, quotes, fills and position</h2>", *charts,
        "<div class=pair><div><h2>Trigger to quote</h2><div class=panel>", latency_svg,
        f"<p class=sub>{html.escape(latency_text(latency))}</p></div></div>",
        "<div><h2>Held back, by reason</h2><div class=panel>", drops_svg, "</div></div></div>",
        "<h2>Session</h2><div class=panel>", _table(facts(result)), "</div>",
        "<h2>Instruments</h2><div class=panel>", _instrument_table(result.instruments), "</div>",
        _list("Refusals of the exchange", result.refusals), _list("Faults found in our frames", result.wire_violations),
        _list("Notes", result.notes),
        "<footer>Times are those of the simulated wire at 125 MHz, pins to pins; no PHY is in them. Fills come from a "
        "simulated exchange.</footer></main></body></html>\n",
    ]
    return "".join(parts)


def write_html(result, path):
    """Write ``report.html``; parents are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(result), encoding="utf-8")

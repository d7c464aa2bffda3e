"""The card's own measurement of trigger-to-quote: what :meth:`host.daemon.Daemon.latency` gives, as text."""

CYCLE_NS = 8


def summary(minimum, maximum, count, total, bins):
    """Plain data from the card's registers.

    ``minimum``, ``maximum``, ``count``, ``total``: registers ``latency_min``, ``_max``, ``_count`` and ``_sum``.
    ``bins``: the histogram; its last one holds everything that is as long or longer. Without a measurement the first
    two are ``None``.
    """
    last = len(bins) - 1
    return {
        "cycle_ns": CYCLE_NS, "count": count, "min_cycles": minimum if count else None,
        "max_cycles": maximum if count else None, "mean_cycles": round(total / count, 4) if count else None,
        "min_ns": minimum * CYCLE_NS if count else None, "max_ns": maximum * CYCLE_NS if count else None,
        "histogram": [{"cycles": cycles, "ns": cycles * CYCLE_NS, "or_more": cycles == last, "count": n}
                      for cycles, n in enumerate(bins) if n]}


def text(found, width=40):
    """Lines for people: the figures, and a bar for each bin."""
    if not found["count"]:
        return "trigger to quote: none measured since reset"
    low, high, count = found["min_cycles"], found["max_cycles"], found["count"]
    if low == high:
        head = f"{low} cycles ({found['min_ns']} ns), minimum = maximum"
    else:
        head = (f"{low} to {high} cycles ({found['min_ns']} to {found['max_ns']} ns), mean "
                f"{found['mean_cycles']:.2f}")
    lines = [f"trigger to quote, at the pins: {head}, {count:,} quotes since reset"]
    most = max(b["count"] for b in found["histogram"])
    for b in found["histogram"]:
        bar = "#" * max(1, round(width * b["count"] / most))
        more = "+" if b["or_more"] else " "
        lines.append(f"{b['cycles']:4}{more} cycles {b['ns']:5}{more} ns {b['count']:12,}  {bar}")
    return "\n".join(lines)

"""From the records of a replay to the time series of a report."""

from .model import FillPoint, InstrumentSeries, Level


def instrument_series(config, events, ledger, epoch_ns=0, cycle_ns=8):
    """One :class:`InstrumentSeries` for every instrument of a configuration.

    Parameters
    ----------
    config : :class:`host.config.Config`.
    events : :class:`sim.venue.feed.FeedEvent` in order of time.
    ledger : :class:`sim.venue.ledger.Ledger` of the exchange; its times are the exchange's.
    epoch_ns : the exchange's time at cycle 0.

    The quotes are those in the exchange's book: they begin when a frame has arrived there and end with a fill or a
    cancel, whoever asked for it.
    """
    series = {}
    feed = {}
    for i in config.instruments:
        one = series[i.instrument_id] = InstrumentSeries(i.name, i.security_id, i.instrument_id)
        one.position.append((0, i.initial_lots))
        feed[i.security_id] = (one, float(i.feed_tick))
    for event in events:
        if event.trade is None and event.security_id in feed:
            one, tick = feed[event.security_id]
            one.market.append(Level(event.cycle * cycle_ns, *(None if level is None else level[0] * tick
                                                              for level in (event.bid, event.ask))))
    for instrument_id, one in series.items():
        one.quotes = _book_lines([o for o in ledger.orders.values() if o.instrument_id == instrument_id], epoch_ns)
    for fill in ledger.fills:
        one = series[fill.instrument_id]
        time_ns = fill.time_ns - epoch_ns
        one.fills.append(FillPoint(time_ns, fill.side, fill.price_e9 / 1e9, fill.lots))
        one.position.append((time_ns, one.position[-1][1] + fill.side * fill.lots))
    for request in ledger.requests:
        if request.kind == "MassQuoteRequest":
            for instrument_id in {s.instrument_id for s in request.sides}:
                series[instrument_id].quotes_sent += 1
                series[instrument_id].quotes_accepted += request.fully_accepted
    return list(series.values())


def _book_lines(lives, epoch_ns):
    """Steps of (bid, ask) from the lives of one instrument's orders (one order a side at a time)."""
    changes = sorted(((time_ns, life.side, price_e9 / 1e9 if lots else None)
                      for life in lives for time_ns, price_e9, lots in life.changes), key=lambda change: change[0])
    out, now = [], {1: None, -1: None}
    for time_ns, side, price in changes:
        now[side] = price
        step = Level(time_ns - epoch_ns, now[1], now[-1])
        if out and out[-1].time_ns == step.time_ns:
            out[-1] = step
        elif not out or (out[-1].bid, out[-1].ask) != (step.bid, step.ask):
            out.append(step)
    return out


def session_facts(gateway, peer=None):
    """Lines (name -> text) about the order session for :attr:`ReplayResult.facts`."""
    def counts(numbers):
        return ", ".join(f"{n:,} {name}" for name, n in sorted(numbers.items(), key=lambda item: (-item[1], item[0])))

    facts = {"messages to the exchange": counts(gateway.received) or "none",
             "messages from the exchange": counts(gateway.sent) or "none"}
    triggers = sum(state.triggers for state in gateway.engine.groups.values())
    if triggers:
        facts["protection triggers"] = f"{triggers:,}"
    facts["open orders at the end"] = f"{len(gateway.engine.open_orders()):,}"
    if peer is not None:
        c = peer.counters
        facts["TCP at the exchange"] = (f"{c['segments']:,} segments, {c['payload_bytes']:,} bytes in, "
                                        f"{c['frames_sent']:,} frames out, {c['retransmissions']:,} retransmissions")
    return facts

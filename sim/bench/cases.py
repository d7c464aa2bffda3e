"""The cases of the bench: what is played, what is measured, what must hold."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from hdl.layout import net
from sim.bench import traffic
from sim.bench.audit import audit
from sim.bench.measure import FIGURES, FeedLog, Figures, Histogram, quotes
from sim.bench.session import Session

__all__ = ["Case", "Played", "Row", "line_rate", "port_busy", "trigger_kinds"]

_TEMPLATES = {8: 32, 9: 46}     # schema version -> template of book messages
_IDLE = (200, 900)              # idle cycles between packets where the port is to be idle: more than any quote takes
_TRIGGER = next(iter(FIGURES))


@dataclass
class Row:
    """One line of the results.

    Attributes
    ----------
    kind, side, template : what it is; ``""`` and 0 for all of them.
    how : ``"direct"``: quotes caused by a trigger byte, the order port idle. ``"background"``: nobody waits for them on
        the wire. ``"busy"``: the order port was busy. ``"none"``: no quote is due.
    figures : :class:`~sim.bench.measure.Figures` of direct quotes; of those that had to wait for the port, from the
        byte that brought the newest state.
    event_end : in the background: cycles from the byte with which the event ended to the quote.
    port_free : of those that had to wait: cycles from the first one in which the port could have sent their first
        preamble byte.
    idle : in a busy row: trigger to quote of those that found the port idle after all.
    later : quotes of a row of direct ones that left in the background.
    facts : counts.
    """

    kind: str
    side: str = ""
    template: int = 0
    how: str = "direct"
    figures: Figures = field(default_factory=Figures)
    event_end: Histogram = field(default_factory=Histogram)
    port_free: Histogram = field(default_factory=Histogram)
    idle: Histogram = field(default_factory=Histogram)
    later: int = 0
    facts: dict = field(default_factory=dict)

    def to_json(self):
        """Plain numbers."""
        out = {"kind": self.kind, "side": self.side, "template": self.template, "how": self.how}
        if self.how in ("direct", "busy"):
            out |= self.figures.summary()
        if self.how == "background":
            out["event_end_to_quote_cycles"] = self.event_end.summary()
        if self.how == "busy":
            out["port_free_to_quote_cycles"] = self.port_free.summary() | {
                "median": self.port_free.percentile(0.5), "p99": self.port_free.percentile(0.99)}
            out["idle_trigger_to_quote_cycles"] = self.idle.summary()
        return out | {"facts": self.facts}


@dataclass
class Case:
    """Attributes: ``name``: key in the results. ``title``: in words. ``rows``: list of :class:`Row`. ``checks``: (what,
    it holds, in words). ``wrong``: findings, in words. ``skipped``: what was left out and why. ``facts``: counts."""

    name: str
    title: str
    rows: list = field(default_factory=list)
    checks: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    facts: Counter = field(default_factory=Counter)

    @property
    def figures(self):
        """Of all rows together."""
        total = Figures()
        for row in self.rows:
            total.merge(row.figures)
        return total

    @property
    def holds(self):
        """Everything that must hold does."""
        return all(passed for _, passed, _ in self.checks)

    def check(self, what, passed, text):
        """Note that something must hold."""
        self.checks.append((what, bool(passed), text))

    def two_cycles(self):
        """Check that every direct quote left two cycles after its trigger byte, and that no row is without one."""
        total = self.figures.of[_TRIGGER].summary()
        empty = [row.kind for row in self.rows if row.how == "direct" and not row.figures.of[_TRIGGER].count]
        self.check("two cycles", total["min"] == total["max"] == 2 and not empty,
                   f"trigger to quote {total['min']} to {total['max']} cycles, {total['count']:,} quotes"
                   + (f"; none for {', '.join(empty)}" if empty else ""))

    def report(self):
        """Check what must hold in every case."""
        facts = self.facts
        self.check("golden model", not facts["golden_mismatches"] and facts["frames_compared"],
                   f"{facts['frames_compared']:,} frames compared, {facts['golden_mismatches']:,} differ")
        self.check("wire and decisions", not self.wrong,
                   f"{len(self.wrong)} findings, the first: {self.wrong[0]}" if self.wrong else
                   "every frame whole, valid and decided once; the card's own histogram agrees")

    def to_json(self):
        """Plain texts and numbers."""
        return {"title": self.title, "holds": self.holds, "skipped": self.skipped, "facts": dict(self.facts),
                "checks": [{"what": w, "holds": h, "text": t} for w, h, t in self.checks], "wrong": self.wrong[:20],
                "rows": [row.to_json() for row in self.rows]}


class Played:
    """What a run has left, looked at from all sides; whatever is wrong goes into the case.

    Parameters
    ----------
    case : :class:`Case`.
    lock : :class:`sim.lockstep.Lockstep` that has come to its end. mismatches : what its ``finish`` gave.
    histogram : the probe's, as read from the card. told : number of decision records that the card sent.
    differed : the card's counter of decisions whose two verdicts, before and behind the trigger byte, differ.
    host_frames : what the host gave to the port, or ``None`` if that is not known.
    of : for each frame of the feed its :class:`~sim.bench.traffic.Packet`, ``None`` for second copies; or ``None``: not
        known.

    Attributes
    ----------
    log : :class:`~sim.bench.measure.FeedLog`. sent : frames of the order port.
    quotes : (decision, frame, byte or ``None``) of every quote.
    """

    def __init__(self, case, lock, mismatches, histogram, told, differed, host_frames=None, of=None):
        golden, facts = lock.golden, case.facts
        self.log, self.sent = FeedLog(lock.received(0)), lock.sent
        self.quotes, wrong = quotes(self.log, self.sent, golden.decisions)
        kinds, found = audit(self.sent, golden.decisions, golden.rows, host_frames)
        case.wrong += [str(m) for m in mismatches] + wrong + found
        seen = Counter(frame.start - d.triggerCycle for d, frame, byte in self.quotes if byte)
        if histogram != dict(seen):
            case.wrong.append(f"the card's latency histogram is {histogram}, at the pins it was {dict(seen)}")
        if told != len(golden.decisions):
            case.wrong.append(f"the card told of {told} decisions, the golden model took {len(golden.decisions)}")
        if differed:
            case.wrong.append(f"the gate's verdicts before and behind the trigger byte differ {differed} times")
        self._news = defaultdict(list)
        if of is not None:
            self._follow(of)
            case.wrong += self._stale()
        facts["frames_compared"] += len(self.sent)
        facts["golden_mismatches"] += len(mismatches)
        facts["feed_frames"] += len(self.log.frames)
        facts["cycles"] += lock.cycle
        facts["decisions"] += len(golden.decisions)
        facts["measured_on_chip"] += sum(histogram.values())
        for kind, count in kinds.items():
            facts[f"frames: {kind}"] += count

    @classmethod
    def session(cls, case, session, of=None):
        """Bring a :class:`Session` to its end."""
        mismatches = session.finish()
        return cls(case, session.lock, mismatches, session.histogram(), len(session.told),
                   session.counters()["decisions_differed"], session.host_frames, of)

    def _follow(self, of):
        """By instrument: (cycle of the byte that ended an event which changed it, its best prices then)."""
        for (start, data), one in zip(self.log.frames, of, strict=True):
            if one is not None:
                first = bisect_left(self.log.cycles, start)
                last = bisect_left(self.log.cycles, start + len(net.PREAMBLE) + len(data))
                for cycle, published in zip(self.log.cycles[first:last], one.published, strict=True):
                    for i, tops in published.items():
                        self._news[i].append((cycle, tops))

    def _newest(self, decision):
        """(cycle, best prices) of the newest state of the instrument that a decision could know of."""
        news = self._news[decision.instrument]
        n = bisect_right(news, decision.fireCycle - 1, key=lambda item: item[0])
        return news[n - 1] if n else (None, (None, None))

    def _stale(self):
        """Quotes that do not show the newest state, and instruments whose last state was not quoted."""
        out, last = [], {}
        for d, frame, _ in self.quotes:
            want = tuple(px or 0 for px in self._newest(d)[1])
            last[d.instrument] = d.bestBidTicks, d.bestAskTicks
            if last[d.instrument] != want:
                out.append(f"quote {d.quoteId} at cycle {frame.start} was made of the best prices {d.bestBidTicks} and "
                           f"{d.bestAskTicks} of instrument {d.instrument}, the newest were {want}")
        for i, news in self._news.items():
            if last.get(i) != tuple(px or 0 for px in news[-1][1]):
                out.append(f"the last quote of instrument {i} was made of {last.get(i)}, not of {news[-1][1]}")
        return out

    def byte(self, decision):
        """The :class:`~sim.bench.measure.Byte` that brought what a quote shows."""
        return self.log.at[self._newest(decision)[0]]

    def waited(self, frame):
        """Cycles from the first one in which the port could have sent a frame's preamble to that preamble."""
        n = bisect_left(self.sent, frame.start, key=lambda f: f.start)
        return frame.start - (self.sent[n - 1].end + net.IFG)


def _warm(session, market):
    """State all books, with time between. Returns the packet of every frame."""
    (frames, cycles, of), end = traffic.arrange(market.warm_up(), session.cycle + 100, rng=market.rng, gap=_IDLE)
    session.feed(frames, cycles)
    session.run_until(end + 1000)
    return of


# ---------------------------------------------------------------------------------------------- (b) line rate

def line_rate(board, events, seed=1, progress=lambda share: None):
    """Smallest frames back to back on both lines, every event another quote; ``events`` of each shape and template."""
    case = Case("b_line_rate", "line rate, A and B")
    shapes = (("one entry, as the exchange sends it", {}),
              ("one entry, as short as it may be", {"block_length": traffic.MIN_ENTRY, "second_group": False}))
    runs = [(version, *shape) for version in _TEMPLATES for shape in shapes]
    for n, (version, kind, options) in enumerate(runs):
        market = traffic.Market(version, seed)
        session = Session.for_market(board, market.instruments, version)
        of, before = _warm(session, market), session.counters()
        begin = session.cycle + 500
        (frames, cycles, which), end = traffic.arrange(traffic.line_rate(market, events, **options), begin)
        session.feed(frames, cycles)
        session.run_until(end + 1000, progress=lambda share, n=n: progress((n + share) / len(runs)))
        played = Played.session(case, session, of + which)
        row = Row(kind, "", _TEMPLATES[version])
        for _, frame, byte in played.quotes:
            if frame.start >= begin and byte:
                row.figures.add(played.log, byte, frame)
            elif frame.start >= begin:
                row.later += 1
        case.rows.append(row)
        _nothing_lost(case, row, events, played.log.frames[-len(frames):], before, session.counters())
    case.two_cycles()
    case.report()
    return case


def _nothing_lost(case, row, events, frames, before, after):
    """Counters and gaps on the wire of one run at line rate."""
    gaps = {b[0] - a[0] - len(net.PREAMBLE) - len(a[1]) for a, b in pairwise(frames)}
    row.facts = {"events": events, "frames": len(frames), "frame_bytes": len(frames[0][1]),
                 "idle_cycles_between_frames": sorted(gaps)}
    want = {"feed_frames": 2 * events, "accepted_packets": events, "duplicate_packets": events, "events": events,
            "line_a_packets": events, "line_b_packets": events, "entries": events, "quotes_sent": events, "gaps": 0,
            "gap_packets": 0, "feed_bad_fcs": 0, "poisoned_packets": 0, "px_errors": 0, "decisions_deferred": 0,
            "decisions_differed": 0}
    lost = {name: (after[name] - before[name], count) for name, count in want.items()
            if after[name] - before[name] != count}
    name = f"{row.kind}, template {row.template}"
    case.check(f"nothing lost ({name})", not lost and gaps == {net.IFG},
               f"{len(frames):,} frames of {row.facts['frame_bytes']} bytes, idle cycles between them {sorted(gaps)}, "
               f"{events:,} events" + (f"; counters (got, expected): {lost}" if lost else ""))
    count = row.figures.of[_TRIGGER].count
    case.check(f"no tail ({name})", not row.later and count == events,
               f"{count:,} quotes on their trigger byte, {row.later:,} later")


# ---------------------------------------------------------------------------------------------- (c) kinds of triggers

def trigger_kinds(board, repeats, seed=1, progress=lambda share: None):
    """Every kind of trigger, with both templates, ``repeats`` times, the order port idle."""
    case = Case("c_trigger_kinds", "every kind of trigger")
    rows = {}
    for half, (version, template) in enumerate(_TEMPLATES.items()):
        market = traffic.Market(version, seed)
        session = Session.for_market(board, market.instruments, version)
        of = _warm(session, market)
        begins, steps, at = [], [], session.cycle + 500
        for n in range(repeats):
            for step in traffic.trigger_kinds(market):
                begins.append(at)
                steps.append(step)
                (frames, cycles, which), end = traffic.arrange(step.packets, at, rng=market.rng, gap=(0, 300))
                session.feed(frames, cycles)
                of += which
                at = end + market.rng.randint(*_IDLE)
            session.run_until(at)
            progress((half + (n + 1) / repeats) / 2)
        played = Played.session(case, session, of)
        by_step = defaultdict(list)
        for d, frame, byte in played.quotes:
            by_step[bisect_right(begins, frame.start) - 1].append((d, frame, byte))
        for n, step in enumerate(steps):
            row = rows.setdefault((step.kind, step.side, template), Row(step.kind, step.side, template, step.how))
            row.facts["steps"] = row.facts.get("steps", 0) + 1
            _step(case, row, played, by_step[n], begins[n])
    order = list(traffic.KINDS)
    case.rows = sorted(rows.values(), key=lambda row: (order.index(row.kind), row.side, row.template))
    kinds = {row.kind for row in case.rows}
    case.check("kinds", kinds == set(traffic.KINDS), f"{len(kinds)} of {len(traffic.KINDS)} kinds seen")
    case.two_cycles()
    case.report()
    return case


def _step(case, row, played, found, cycle):
    """The quotes that followed one step: one, of the kind that was expected, or none."""
    name = f"{row.kind} ({row.side or 'both sides'}, template {row.template}) at cycle {cycle}"
    if len(found) != (row.how != "none"):
        case.wrong.append(f"{name}: {len(found)} quotes")
        return
    for d, frame, byte in found:
        if (byte is not None) != (row.how == "direct"):
            case.wrong.append(f"{name}: a quote {'on the trigger byte' if byte else 'in the background'}")
        elif byte is not None:
            row.figures.add(played.log, byte, frame)
        else:
            row.event_end.add(frame.start - played.byte(d).cycle)


# ---------------------------------------------------------------------------------------------- (d) order port busy

_HOST_FRAME = 1400      # bytes


def port_busy(board, repeats, seed=1, progress=lambda share: None):
    """Events while the order port is busy: with our own quote, with a frame of the host, with acknowledgements."""
    case = Case("d_port_busy", "order port busy")
    busy = _Busy(board, case, seed)
    scenes = (busy.events_in_a_packet, busy.host_frame_one, busy.host_frame_many, busy.saturated, busy.acknowledging)
    for n, scene in enumerate(scenes):
        for repeat in range(repeats):
            scene()
            progress((n + (repeat + 1) / repeats) / len(scenes))
    busy.finish()
    idle = Histogram()
    for row in case.rows:
        idle.counts.update(row.idle.counts)
    summary = idle.summary()
    case.check("two cycles when idle", summary["min"] == summary["max"] == 2,
               f"quotes that found the port idle: {summary['min']} to {summary['max']} cycles, {summary['count']:,}")
    waits = [row.kind for row in case.rows if not row.port_free.count]
    case.check("quotes waited", not waits, f"none did in {', '.join(waits)}" if waits else
               f"{sum(row.port_free.count for row in case.rows):,} quotes waited for the port")
    case.report()
    return case


class _Busy:
    """The scenes of :func:`port_busy`, played one after the other on one session."""

    def __init__(self, board, case, seed):
        self.case, self.market = case, traffic.Market(8, seed)
        self.session = Session.for_market(board, self.market.instruments, 8)
        self.of, self.moves = _warm(self.session, self.market), traffic.Moves(self.market)
        self.begins, self.scenes = [], []       # cycle in which a scene began; (row name, quotes due or None)

    def _instruments(self, count):
        return self.market.rng.sample(range(len(self.market.instruments)), count)

    def _side(self):
        return self.market.rng.choice(tuple(traffic.SIDES.values()))

    def _begin(self, kind, due):
        self.session.run_until(self.session.cycle + 500 + self.market.rng.randrange(300))
        self.begins.append(self.session.cycle)
        self.scenes.append((kind, due))

    def _play(self, packets, after=2_500, **options):
        (frames, cycles, which), end = traffic.arrange(packets, self.session.cycle + 60, **options)
        self.session.feed(frames, cycles)
        self.of += which
        self.session.run_until(end + after, step=1_500)

    def _packet(self, i, side, avoid=None):
        return self.market.packet(self.market.book([self.moves.entry(i, side, avoid)]))

    def events_in_a_packet(self):
        """The second of two and the third of three events come while the quote of the first leaves."""
        for events in (2, 3):
            self._begin(f"{events} events of an instrument in a packet", 2)
            i, = self._instruments(1)
            self._play([self.moves.burst(i, self._side(), events)])

    def _host_frame(self):
        self.session.send_frame(net.ETHERNET.pack(dst=net.MAC_BROADCAST, src=2, ethertype=0x88B5)
                                + self.market.rng.randbytes(_HOST_FRAME))
        before = len(self.session.golden.tx)
        while len(self.session.golden.tx) == before:
            self.session.run_until(self.session.cycle + 20)

    def host_frame_one(self):
        """Eight events of one instrument behind a long frame of the host: one quote, of the eighth."""
        self._begin("8 events of an instrument behind a long frame of the host", 1)
        i, = self._instruments(1)
        self._host_frame()
        side = self._side()
        quoted = self.moves.steps(i, side)
        self._play([self._packet(i, side, quoted if n == 7 else None) for n in range(8)], lines="alternate")

    def host_frame_many(self):
        """Six instruments behind a long frame of the host: six quotes, one after the other."""
        self._begin("6 instruments behind a long frame of the host", 6)
        self._host_frame()
        self._play([self._packet(i, self._side()) for i in self._instruments(6)], lines="alternate")

    def saturated(self):
        """Every frame of the wire an event that wants a quote, and a quote takes longer than such a frame."""
        self._begin("line rate, every frame an event", None)
        side = self._side()
        self._play([self._packet(n % 5, side) for n in range(40)], lines="alternate")

    def acknowledging(self):
        """The peer sends data at random, so that acknowledgements leave at any moment."""
        self._begin("acknowledgements to the exchange between the events", None)
        for i in self._instruments(16):
            (frames, cycles, which), end = traffic.arrange([self._packet(i, self._side())], self.session.cycle + 60)
            self.session.feed(frames, cycles)
            self.of += which
            # The acknowledgement starts about when the segment has ended, around the time of the trigger byte.
            self.session.run_until(self.session.cycle + self.market.rng.randrange(28, 138))
            self.session.heartbeat()
            self.session.run_until(end + 600)

    def finish(self):
        """Disarm, which sends a mass cancel, and measure."""
        self.session.run_until(self.session.cycle + 2_000)
        self.session.write("disarm", 1)
        played = Played.session(self.case, self.session, self.of)
        rows, found = {}, defaultdict(list)
        for d, frame, byte in played.quotes:
            found[bisect_right(self.begins, frame.start) - 1].append((d, frame, byte))
        for n, (kind, due) in enumerate(self.scenes):
            row = rows.setdefault(kind, Row(kind, "", 32, "busy"))
            row.facts["scenes"] = row.facts.get("scenes", 0) + 1
            row.facts["quotes"] = row.facts.get("quotes", 0) + len(found[n])
            if due is not None and len(found[n]) != due:
                self.case.wrong.append(f"{kind} at cycle {self.begins[n]}: {len(found[n])} quotes, {due} are due")
            for d, frame, byte in found[n]:
                if byte is not None:
                    row.idle.add(frame.start - byte.cycle)
                else:
                    row.figures.add(played.log, played.byte(d), frame)
                    row.port_free.add(played.waited(frame))
        self.case.rows = list(rows.values())
        cancels = self.case.facts["frames: mass cancel"]
        self.case.check("mass cancel", cancels == 1, f"{cancels} mass cancels on disarming, 1 is due")

"""What a replay found out, as plain data. Whoever runs the replay fills it; the writers only read it.

Times are integer nanoseconds of the simulated wire, from the first cycle. Prices are numbers in the quoted
instrument's own units, quantities and positions whole lots.
"""

from dataclasses import dataclass, field

CYCLE_NS = 8


@dataclass(slots=True)
class Level:
    """One step of a two-sided line: from ``time_ns`` on the bid and the ask are these; ``None`` is nothing."""

    time_ns: int
    bid: float | None
    ask: float | None


@dataclass(slots=True)
class FillPoint:
    """One fill of ours: ``side`` is 1 (bought) or -1 (sold)."""

    time_ns: int
    side: int
    price: float
    lots: int


@dataclass
class InstrumentSeries:
    """One instrument over time.

    Attributes
    ----------
    name : for people.
    security_id : the feed's id.
    instrument_id : the exchange's id.
    market : best bid and offer of the feed, mapped to the quoted instrument's units, after each event.
    quotes : what we have told the exchange to keep in the book, after each frame sent.
    fills : in order of time.
    position : (time_ns, lots) after each fill, and once at the start.
    quotes_sent, quotes_accepted : mass quotes for this instrument, pulls included.
    """

    name: str
    security_id: int
    instrument_id: int
    market: list = field(default_factory=list)
    quotes: list = field(default_factory=list)
    fills: list = field(default_factory=list)
    position: list = field(default_factory=list)
    quotes_sent: int = 0
    quotes_accepted: int = 0

    @property
    def last_position(self):
        """Lots at the end."""
        return self.position[-1][1] if self.position else 0


@dataclass
class Latency:
    """Trigger-to-quote in clock cycles, pin to pin, as a histogram: cycles -> count."""

    cycles: dict = field(default_factory=dict)

    def add(self, cycles, count=1):
        """Count one more quote (or ``count``)."""
        self.cycles[cycles] = self.cycles.get(cycles, 0) + count

    @property
    def count(self):
        return sum(self.cycles.values())

    @property
    def min(self):
        return min(self.cycles, default=None)

    @property
    def max(self):
        return max(self.cycles, default=None)

    @property
    def mean(self):
        return sum(c * n for c, n in self.cycles.items()) / self.count if self.cycles else None

    def summary(self):
        """{min, mean, max, count}; the first three are ``None`` when nothing was measured."""
        mean = self.mean
        return {"min": self.min, "mean": round(mean, 4) if mean is not None else None, "max": self.max,
                "count": self.count}


@dataclass
class ReplayResult:
    """Everything that a report says.

    Attributes
    ----------
    capture : path or name of what was replayed.
    generated : the traffic came from the project's own generator, not from a capture.
    packets : feed packets read, both lines; ``duplicates`` of them were copies; ``gaps`` in the sequence,
        ``gap_packets`` missing in them.
    messages, events : messages walked, ends of event seen.
    quotes_sent : mass-quote frames on the wire (new, changed and pulled); ``mass_cancels`` besides them.
    quotes_accepted : of these, accepted by the exchange in full.
    quotes_refused : of these, refused in whole or on one side; ``None``: as many as are not accepted and explained.
    refusals : one sentence for each refusal of the exchange (a quote may have two, one a side).
    golden_mismatches : frames that differ from the golden model's, of ``frames_compared``.
    gate_drops : evaluations stopped or held back, by reason (the gate's name and title).
    latency : :class:`Latency` of direct decisions with the order port idle.
    sim_cycles : core cycles simulated; ``sim_wall_s``: processor seconds that the simulated core took; ``wall_s``:
        seconds of the whole command.
        of the whole command.
    wire_violations : what the exchange's TCP end point found wrong with our frames, in words.
    instruments : :class:`InstrumentSeries`.
    counters : further counters of the core by name.
    facts : further lines of the table of session facts: name -> text.
    notes : sentences for the reader, such as the rule by which idle time was compressed.
    """

    capture: str
    generated: bool = False
    packets: int = 0
    duplicates: int = 0
    gaps: int = 0
    gap_packets: int = 0
    messages: int = 0
    events: int = 0
    quotes_sent: int = 0
    quotes_accepted: int = 0
    quotes_refused: int | None = None
    mass_cancels: int = 0
    refusals: list = field(default_factory=list)
    golden_mismatches: int = 0
    frames_compared: int = 0
    gate_drops: dict = field(default_factory=dict)
    latency: Latency = field(default_factory=Latency)
    sim_cycles: int = 0
    sim_wall_s: float = 0.0
    wall_s: float = 0.0
    wire_violations: list = field(default_factory=list)
    instruments: list = field(default_factory=list)
    counters: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def __post_init__(self):
        if self.quotes_refused is None:
            self.quotes_refused = max(0, min(len(self.refusals), self.quotes_sent - self.quotes_accepted))

    @property
    def fills(self):
        """Fills of all instruments."""
        return sum(len(i.fills) for i in self.instruments)

    @property
    def sim_cycles_per_s(self):
        """Simulation speed, whole cycles a second; 0 when nothing was measured."""
        return round(self.sim_cycles / self.sim_wall_s) if self.sim_wall_s > 0 else 0

    @property
    def simulated_ns(self):
        """Time simulated."""
        return self.sim_cycles * CYCLE_NS

"""What can happen to a frame on its way: loss, repetition, reordering, delay, corruption, truncation.

Of each direction by rate, with a seed, or by a script. Only TCP segments are touched: the others set the link up.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass, field

from hdl.layout import net
from sim.soak.segments import segment_of

__all__ = ["KINDS", "Impairment", "Rates", "Rule", "parse_rules"]

#: What can happen; of each there is a rate of this name.
KINDS = ("drop", "duplicate", "reorder", "delay", "corrupt", "truncate")
_RULE = re.compile(rf"(?P<what>{'|'.join(KINDS)}) (?P<kind>segment|data|ack) "
                   r"(?P<number>\d+)(?:st|nd|rd|th)?(?: x(?P<times>\d+))?")


@dataclass(frozen=True)
class Rates:
    """Shares of segments, 0 to 1, to which something happens; of each segment only one thing does.

    ``drop``: it never arrives. ``duplicate``: it arrives twice. ``reorder``: one to three later ones overtake it.
    ``delay``: it takes up to ``delay_cycles`` longer. ``corrupt``: one of its bits is another one. ``truncate``: it
    ends early.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    delay_cycles: int = 20_000

    def __post_init__(self):
        shares = {name: getattr(self, name) for name in KINDS}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, must be a share from 0 to 1")
        if sum(shares.values()) > 1:
            raise ValueError(f"the shares {shares} are more than 1 together")
        if self.delay_cycles < 1:
            raise ValueError(f"delay_cycles is {self.delay_cycles}, must be at least 1")


@dataclass
class Rule:
    """``what`` happens to the ``number``-th new one of a ``kind``: ``"segment"``, ``"data"`` or ``"ack"`` (without
    data), ``times`` times: to it, and to as many repetitions of it."""

    what: str
    kind: str
    number: int
    times: int = 1
    seq: int | None = field(default=None, repr=False)   # of the one that is meant, once it was seen


def parse_rules(text):
    """Rules as ``drop data 7th x2; reorder ack 3``, separated by semicolons or new lines."""
    rules = []
    for part in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        found = _RULE.fullmatch(part)
        if not found:
            raise ValueError(f"{part!r} is no rule; must be like 'drop data 7th x2': {', '.join(KINDS[:-1])} or "
                             f"{KINDS[-1]}, then segment, data or ack, its number, and how often")
        rules.append(Rule(found["what"], found["kind"], int(found["number"]), int(found["times"] or 1)))
    return rules


class Impairment:
    """One direction of a wire.

    Parameters
    ----------
    seed : of all that is left to chance.
    rates : :class:`Rates`.
    rules : list of :class:`Rule`; where one applies, nothing is left to chance.

    Attributes
    ----------
    done : Counter of what has happened, by name; ``"passed"`` of what nothing has happened to.
    """

    def __init__(self, seed=0, rates=None, rules=()):
        self._rng, self.rates, self._rules = random.Random(seed), rates or Rates(), list(rules)
        self.done = Counter()
        self._seen = Counter()          # new ones, by kind
        self._newest = None             # the sequence number behind the newest data
        self._held = []                 # [frame, segments that still overtake it, cycle in which it goes anyway]
        self._late = []                 # (cycle, frame)

    def pass_(self, frame, cycle):
        """A frame comes in ``cycle``. Returns those that go on now, in order."""
        segment = segment_of(frame)
        if segment is None:
            return [frame]
        what = self._what(segment.seq, len(segment.payload))
        self.done[what] += 1
        out = []
        if what == "passed":
            out = [frame]
        elif what == "duplicate":
            out = [frame, frame]
        elif what == "corrupt":
            out = [self._corrupted(frame)]
        elif what == "truncate":
            out = [frame[:self._rng.randrange(net.ETHERNET.size, len(frame))]]
        elif what == "delay":
            self._late.append((cycle + self._rng.randrange(1, self.rates.delay_cycles + 1), frame))
        for held in self._held:
            held[1] -= len(out) > 0
        out += [frame for frame, left, _ in self._held if left <= 0]
        self._held = [held for held in self._held if held[1] > 0]
        if what == "reorder":
            self._held.append([frame, self._rng.randrange(1, 4), cycle + self.rates.delay_cycles])
        return out

    def due(self, cycle):
        """Frames that were kept back until now."""
        out = [frame for at, frame in self._late if at <= cycle] + [
            frame for frame, _, at in self._held if at <= cycle]
        self._late = [late for late in self._late if late[0] > cycle]
        self._held = [held for held in self._held if held[2] > cycle]
        return out

    def _what(self, seq, size):
        is_new = size and (self._newest is None or (seq - self._newest) % (1 << 32) < 1 << 31)
        if is_new:
            self._newest = (seq + size) % (1 << 32)
        if is_new or not size:
            for kind in ("segment", "data" if size else "ack"):
                self._seen[kind] += 1
                for rule in self._rules:
                    if rule.kind == kind and rule.number == self._seen[kind]:
                        rule.seq = seq
        for rule in self._rules:
            if rule.seq == seq and rule.times and (rule.kind != "ack") == bool(size):
                rule.times -= 1
                return rule.what
        chance = self._rng.random()
        for name in KINDS:
            chance -= getattr(self.rates, name)
            if chance < 0:
                return name
        return "passed"

    def _corrupted(self, frame):
        out = bytearray(frame)
        bit = self._rng.randrange(8 * net.ETHERNET.size, 8 * len(frame))
        out[bit // 8] ^= 1 << bit % 8
        return bytes(out)

"""What of a cycle's work can be left out: segments of the process of a netlist, each asleep until something it reads
has changed.

Most of a design rests most of the time. What reads nothing that is new computes nothing that is new, so the groups of
a process (:mod:`sim.board.cycle`) are put into segments, each behind one flag. Whoever writes something that another
segment reads compares it with what it was, and wakes the readers if it is another: at once, if they are still to come
in this cycle, or for the next one, in which they will see the register.

That is exact whatever the segments are; how fast it is depends on them. A segment that is too large is awake for a
small part of it, one that is too small costs more to ask than to run. So groups that are likely to be awake together
are merged, as long as that makes a cycle cheaper by an estimate of how often what they read changes: counters that
nothing stops always do, other registers seldom, and those of one module together.
"""

import heapq
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.board.cycle import Group

#: The most statements in a segment.
FULL = 150
#: What it costs to ask whether a segment is awake, to have it awake, to have guessed wrong, and to watch a signal for
#: others, in statements.
ASK, WAKE, WRONG, WATCH = 0.7, 4.0, 10.0, 8.0
#: Chance that in a cycle something has changed: a counter that nothing stops; one that something may stop; what never
#: rests, but is only read in a branch; any register of a module; the registers of a group itself.
RESTLESS, COUNTER, BRANCH, MODULE, OWN = 0.999, 0.6, 0.5, 0.05, 0.03
#: Share of cycles in which anything but counters moves: in them, modules and groups are independent of one another.
BUSY = 0.3
#: A segment that is awake more often than this is not asked.
ALWAYS = 0.99
#: Of the many users of a name, only neighbours this near are looked at as a pair.
NEAR, MANY = 5, 12

#: Operations whose result often is the same for another operand.
_HIDES = re.compile(r"==|!=|<|>|&|\||~|!")
_COUNTS = re.compile(r" [-+] ")


@dataclass
class Segment:
    """Groups that run together, in this order.

    Attributes
    ----------
    writes : set[str]
        Names of all that they write.
    always : bool
        Run in every cycle, unasked; nothing needs to wake it.
    """

    groups: list["Group"] = field(default_factory=list)
    always: bool = False

    def __post_init__(self):
        self.writes = {name for group in self.groups for name in group.names}


class _Origins:
    """What every name is computed from, through operations that seldom hide a change."""

    def __init__(self, groups: Sequence["Group"], registers: Collection[str], memories: Collection[str]):
        self.registers = registers
        self.everywhere, self.unasked = defaultdict(set), defaultdict(set)    # name -> (name, whether by counting)
        for group in groups:
            for s in group.body.walk():
                if not s.target or s.target.startswith("{") or _HIDES.search(s.expression):
                    continue
                counts = bool(_COUNTS.search(s.expression))
                origins = {(r.name, counts) for r in s.reads if r.name not in memories}
                self.everywhere[s.target.split(" ")[0]] |= origins
                if s.block is group.body:
                    self.unasked[s.target.split(" ")[0]] |= origins

    def counts(self, name: str, made_from: Mapping[str, set]) -> bool:
        """Whether a register is computed from itself by counting."""
        todo, seen = [(name, False)], set()
        while todo:
            here, counted = todo.pop()
            for other, counting in made_from.get(here, ()) if here == name or here not in self.registers else ():
                if (step := (other, counted or counting)) not in seen:
                    seen.add(step)
                    todo.append(step)
        return (name, True) in seen


def restless(groups: Sequence["Group"], registers: Collection[str], memories: Collection[str]) -> set[str]:
    """Names of what is another value in every cycle, or nearly: counters and rings that nothing stops, and what is
    computed from them."""
    origins = _Origins(groups, registers, memories)
    made_from = origins.unasked
    out = {name for name in set(registers) - set(memories) if origins.counts(name, made_from)}
    for group in groups:
        for s in group.body:
            if s.target in registers and {name for name, _ in made_from[s.target]} == {s.target} \
                    and re.match(r"\{.*,", s.expression):
                out.add(s.target)
    while more := {name for name, own in made_from.items() if any(other in out for other, _ in own)} - out:
        out |= more
    return out


class _Chances:
    """What may wake a group or a segment, as bits, and how likely that is."""

    def __init__(self):
        self._bits: dict[tuple, int] = {}
        self._rests: list[float] = []       # for each bit that the design be busy for or not: chance that it rests
        self._busy: list[float] = []        # for each bit: its chance if the design is busy
        self.steady = 0                     # the bits that are of a busy design
        self._known: dict[int, float] = {}

    def bit(self, *what: str | int) -> int:
        """The bit of a source: its kind, and what distinguishes it from others of this kind."""
        if (known := self._bits.get(what)) is None:
            known = self._bits[what] = 1 << len(self._bits)
            alone = {"restless": RESTLESS, "counter": COUNTER, "branch": BRANCH}.get(what[0], 0.0)
            self._rests.append(1 - alone)
            self._busy.append({"module": MODULE, "own": OWN}.get(what[0], 0.0))
            if not alone:
                self.steady |= known
        return known

    def chance(self, sources: int) -> float:
        """That one of the sources has changed."""
        if (known := self._known.get(sources)) is None:
            rests, busy = 1.0, 0.0
            for k in _bits(sources):
                rests *= self._rests[k]
                busy += self._busy[k]
            known = self._known[sources] = 1 - rests * (1 - BUSY * -math.expm1(-busy))
        return known


def _sources(groups: Sequence["Group"], registers: Collection[str], memories: Collection[str],
             moving: Collection[str], scopes: Mapping[str, str]) -> tuple[list[int], _Chances]:
    """For every group what may wake it."""
    origins, chances = _Origins(groups, registers, memories), _Chances()
    counted = {name for name in set(registers) - set(memories) - set(moving)
               if origins.counts(name, origins.everywhere)}     # and signals that seldom hide that they change
    of_signal: dict[str, int] = {}
    out = []
    for k, group in enumerate(groups):
        unasked = {r.name for s in group.body for r in s.reads}
        sources = 0
        for name in sorted(group.read_names()):
            scope = scopes.get(name, "")
            if name in moving:
                sources |= chances.bit("restless" if name in unasked else "branch")
            elif name in counted:
                sources |= chances.bit("counter" if name in unasked else "module", scope)
            else:
                sources |= of_signal.get(name) or chances.bit("module", scope)
        for name in sorted(group.names - set(registers)):
            # Compared with a counter, or chosen by it: that changes as seldom as anything else.
            steady = sources & chances.steady
            of_signal[name] = of_signal.get(name, 0) | steady
            if steady != sources:
                of_signal[name] |= chances.bit("module", scopes.get(name, ""))
            if any(other in counted for other, _ in origins.unasked.get(name, ())):
                counted.add(name)
        if group.names & set(registers):
            sources |= chances.bit("own", k)
        out.append(sources)
    return out, chances


class _Merger:
    """Groups on their way to segments. A segment has the number of one of its groups; sets of segments are bits."""

    def __init__(self, groups, after, sources, chances, full, signals):
        self.count, self.full = len(groups), full
        self.sources, self.chances = sources, chances
        self.size = [sum(1 for _ in group.body.walk()) for group in groups]
        self.members = [[k] for k in range(self.count)]
        self.version = [0] * self.count
        self.later, self.earlier = [0] * self.count, [0] * self.count       # transitive
        for k in reversed(range(self.count)):
            for other in after[k]:
                self.later[k] |= self.later[other] | 1 << other
        for k in range(self.count):
            for other in after[k]:
                self.earlier[other] |= self.earlier[k] | 1 << k
        self.signals = signals          # name -> [segment that drives it, set of segments that read it]
        self.drives, self.reads = ([set() for _ in groups] for _ in range(2))
        for name, (driver, own) in signals.items():
            self.drives[driver].add(name)
            for reader in own:
                self.reads[reader].add(name)
        self.cost = [self._cost(sources[k], self.size[k]) for k in range(self.count)]

    def always(self, number: int) -> bool:
        return self.chances.chance(self.sources[number]) > ALWAYS

    def _cost(self, sources: int, size: int) -> float:
        chance = self.chances.chance(sources)
        if chance > ALWAYS:
            return WAKE + size
        return ASK + chance * (WAKE + size + (1 - chance) * WRONG)

    def gain(self, one: int, other: int) -> float:
        """What a cycle is cheaper if the two are one."""
        size = self.size[one] + self.size[other]
        if size > self.full:
            return 0.0
        gain = self.cost[one] + self.cost[other] - self._cost(self.sources[one] | self.sources[other], size)
        for driver, reader in ((one, other), (other, one)):
            if shared := self.drives[driver] & self.reads[reader]:
                within = sum(len(self.signals[name][1] - {driver, reader}) == 0 for name in shared)
                gain += within * WATCH * self.chances.chance(self.sources[driver])
        return gain

    def can_join(self, one: int, other: int) -> bool:
        """Whether nothing has to come between the two."""
        return not (self.later[one] & self.earlier[other] or self.later[other] & self.earlier[one])

    def join(self, one: int, other: int) -> None:
        self.sources[one] |= self.sources[other]
        self.size[one] += self.size[other]
        self.cost[one] = self._cost(self.sources[one], self.size[one])
        self.members[one] += self.members[other]
        self.members[other] = []
        self.version[one] += 1
        for name in self.drives[other]:
            self.signals[name][0] = one
        for name in self.reads[other]:
            self.signals[name][1].discard(other)
            self.signals[name][1].add(one)
        self.drives[one] |= self.drives[other]
        self.reads[one] |= self.reads[other]
        own, gone = 1 << one, ~(1 << other)
        later = (self.later[one] | self.later[other]) & ~own & gone
        earlier = (self.earlier[one] | self.earlier[other]) & ~own & gone
        self.later[one], self.earlier[one] = later, earlier
        for k in _bits(earlier):
            self.later[k] = (self.later[k] | later | own) & gone
        for k in _bits(later):
            self.earlier[k] = (self.earlier[k] | earlier | own) & gone

    def merge(self, near: list[set[int]]) -> None:
        """Join what gains most, until nothing gains any more. ``near``: for each the others that it may be joined
        with."""
        heap = []

        def offer(one, other):
            if (gain := self.gain(one, other)) > 0:
                heapq.heappush(heap, (-gain, one, other, self.version[one], self.version[other]))

        for one in range(self.count):
            for other in sorted(near[one]):
                if one < other:
                    offer(one, other)
        while heap:
            _, one, other, *versions = heapq.heappop(heap)
            if versions != [self.version[one], self.version[other]] or not self.members[one] \
                    or not self.members[other] or not self.can_join(one, other):
                continue
            self.join(one, other)
            near[one] = (near[one] | near[other]) - {one, other}
            for k in near[other] - {one}:
                near[k].discard(other)
                near[k].add(one)
            for k in sorted(near[one]):
                offer(min(one, k), max(one, k))

    def order(self) -> list[int]:
        """The segments, in an order in which they can run, those that always run side by side where possible."""
        left = [k for k in range(self.count) if self.members[k]]
        waits = {k: self.earlier[k].bit_count() for k in left}
        ready: dict[bool, list[tuple[int, int]]] = {False: [], True: []}

        def release(k):
            heapq.heappush(ready[self.always(k)], (min(self.members[k]), k))

        for k in left:
            if not waits[k]:
                release(k)
        out, always = [], True
        while ready[False] or ready[True]:
            always = always if ready[always] else not always
            _, k = heapq.heappop(ready[always])
            out.append(k)
            for other in _bits(self.later[k]):
                waits[other] -= 1
                if not waits[other]:
                    release(other)
        return out


def _bits(number: int):
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def segments(groups: Sequence["Group"], registers: Collection[str], shadowed: Collection[str],
             memories: Collection[str], moving: Collection[str], scopes: Mapping[str, str],
             full: int = FULL) -> list[Segment]:
    """Put groups into segments.

    Parameters
    ----------
    groups : Sequence[Group]
        In an order in which they could run: signals are driven before they are read, registers read before they are
        written.
    registers, shadowed, memories : Collection[str]
        Names of what outlives a cycle (memories too), of what among it is written when all groups have run, and of
        what among it is a memory.
    moving : Collection[str]
        Names of what is another value in every cycle.
    scopes : Mapping[str, str]
        Names of the modules in which names are; others are in the top module.
    full : int
        The most statements in a segment of several groups.

    Returns
    -------
    list[Segment]
        In an order in which they can run.

    Raises
    ------
    ValueError
        The groups are in another order.
    """
    users, drivers, readers = defaultdict(list), defaultdict(list), defaultdict(list)
    parts = []          # of a group: name -> ranges that it reads
    for k, group in enumerate(groups):
        own = defaultdict(list)
        for s in group.body.walk():
            for r in s.reads:
                own[r.name].append(r)
        parts.append(own)
        for name in sorted(own.keys() | group.names):
            users[name].append(k)
        for name in own:
            readers[name].append(k)
        for name in group.names:
            drivers[name].append(k)
    after: list[set[int]] = [set() for _ in groups]
    for name, own in drivers.items():
        for driver in own if name not in shadowed else ():
            written = [w for w in groups[driver].writes if w.name == name]
            for reader in readers[name]:
                if name in registers:
                    first, second = reader, driver
                elif any(w.overlaps(r) for w in written for r in parts[reader][name]):
                    first, second = driver, reader
                else:
                    continue
                if first > second:
                    raise ValueError(f"the groups are not in an order in which they could run: {name}")
                after[first].add(second)
    for k, others in enumerate(after):
        others.discard(k)
    near: list[set[int]] = [set() for _ in groups]
    for own in users.values():
        for at, one in enumerate(own):
            for other in own[at + 1:] if len(own) <= MANY else own[at + 1:at + 1 + NEAR]:
                near[one].add(other)
                near[other].add(one)
    sources, chances = _sources(groups, registers, memories, moving, scopes)
    signals = {name: [own[0], set(readers[name])] for name, own in sorted(drivers.items())
               if len(own) == 1 and name not in registers}
    merger = _Merger(groups, after, sources, chances, full, signals)
    merger.merge(near)
    return [Segment([groups[k] for k in sorted(merger.members[number])], merger.always(number))
            for number in merger.order()]


def wakes(parts: Sequence[Segment], moving: Collection[str], memories: Collection[str]):
    """What wakes which segment.

    Parameters
    ----------
    moving : Collection[str]
        Names of what is another value in every cycle. A segment that only reads them in a branch is not woken by them,
        but stays awake while the branch is taken.
    memories : Collection[str]
        Names of memories. Who writes to one wakes its readers.

    Returns
    -------
    changes : dict[str, list[tuple[int, int, frozenset[int]]]]
        For every name the segments that wake if it changes, as (highest bit, lowest bit, numbers), lowest bit first.
    takes : dict[int, set[int]]
        For blocks, by identity, the segments that wake if they are run.
    """
    bits, takes = defaultdict(lambda: defaultdict(set)), defaultdict(set)
    for number, part in enumerate(parts):
        if part.always:
            continue
        unasked = {r.name for group in part.groups for s in group.body for r in s.reads}
        for group in part.groups:
            for s in group.body.walk():
                for read in s.reads:
                    if read.name in moving and read.name not in unasked:
                        takes[id(s.block)].add(number)
                        continue
                    for bit in range(read.low, read.high + 1):
                        bits[read.name][bit].add(number)
    changes = {}
    for name, of_bit in bits.items():
        runs = changes[name] = []
        for bit in sorted(of_bit):
            numbers = frozenset(of_bit[bit])
            if runs and runs[-1][0] == bit - 1 and runs[-1][2] == numbers:
                runs[-1] = (bit, runs[-1][1], numbers)
            else:
                runs.append((bit, bit, numbers))
    for part in parts:
        for group in part.groups:
            for s in group.body.walk():
                for written in s.writes:
                    if written.name in memories:
                        takes[id(s.block)] |= {n for *_, numbers in changes.get(written.name, ()) for n in numbers}
    return changes, takes

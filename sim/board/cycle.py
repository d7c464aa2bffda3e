"""A flat netlist as one process that computes a clock cycle: what a simulator runs fastest.

Verilator evaluates all registers at a clock edge, and then all logic between them, and keeps every signal in memory
for the next edge. The form made here is the other way round: at an edge, first the logic, from the registers as they
are, into variables that do not outlive the edge; then the registers. Nothing but registers is kept, logic whose
result is wanted in one branch only is evaluated in that branch only, and registers that change under the same
condition share its test.

Input is the Verilog that Yosys writes for a flattened design of Amaranth: one module, one clock, and a small part of
the language, statement by statement on lines of their own. Whatever is not in that part is refused, never guessed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from sim.board.segments import FULL, Segment, restless, segments, wakes

__all__ = ["EVERY_EDGE", "UnsupportedNetlist", "one_process"]

#: In the text of a module whose every clock edge is a cycle.
EVERY_EDGE = "always @(edge "

#: Segments that are asked for together.
TOGETHER = 8
#: Bits of the widest variable that the C++ compiler can keep in a register of the processor.
WORD = 64

_NAME = r"[A-Za-z_][\w$]*"
_TOKEN = re.compile(rf"\d+'s?[bdh][0-9a-fxz?_]+|({_NAME})((?: ?\[[^\[\]]*\])?)|\d+")
_DECLARATION = re.compile(
    rf"  (input|output|wire|reg) (?:\[(\d+):0\] )?({_NAME})\s*(?:\[(\d+):0\])?(?: = (.*?))?;")
_LABELS = re.compile(r"((?:\d+'[bdh][0-9a-fx?_]+(?:, )?)+|default)\s*:")
_CONSTANT_SELECT = re.compile(r"\[(\d+)(?::(\d+))?\]")
_OPERAND = rf"(?:{_NAME}(?: ?\[[\d:]+\])?|\d+'[bdh][0-9a-f]+|\{{[^{{}}()]*\}}|\$signed\({_NAME}(?: ?\[[\d:]+\])?\))"
#: Operations of whose result the low bits do not depend on what is above them.
_NARROWABLE = re.compile(rf"{_OPERAND}\s+(?:[-+*&|^]|<<)\s+{_OPERAND}")


class UnsupportedNetlist(ValueError):
    """The netlist has something that cannot be put into one process; the message says what."""


@dataclass(frozen=True)
class Range:
    """Bits ``low`` to ``high`` of a variable. A memory is read and written as a whole."""

    name: str
    low: int
    high: int

    def overlaps(self, other: "Range") -> bool:
        return self.low <= other.high and other.low <= self.high


class Statement:
    """An assignment, or a test of ``expression`` with blocks to choose from (``choices``: label and block).

    A two-way test has the labels "then" and "else", a case statement the labels of its items.
    """

    __slots__ = ("block", "choices", "expression", "reads", "target", "writes")

    def __init__(self, expression: str, *, target: str = "", choices: Sequence[tuple[str, "Block"]] = ()):
        self.expression, self.target = expression, target
        self.choices = list(choices)
        self.block: Block | None = None
        self.reads: list[Range] = []
        self.writes: list[Range] = []

    @property
    def two_way(self) -> bool:
        return bool(self.choices) and self.choices[0][0] == "then"

    def same_test(self, other: "Statement") -> bool:
        return bool(self.choices and other.choices) and (self.two_way, self.expression) == \
            (other.two_way, other.expression)


class Block(list):
    """Statements in order. ``owner``: the test that chooses it, or the :class:`Group` whose statements these are."""

    def __init__(self, statements=(), owner=None):
        super().__init__()
        self.owner = owner
        self.take(statements)

    def take(self, statements, at: int | None = None) -> None:
        at = len(self) if at is None else at
        for statement in statements:
            statement.block = self
        self[at:at] = statements

    def walk(self) -> Iterator[Statement]:
        for statement in self:
            yield statement
            for _, block in statement.choices:
                yield from block.walk()


@dataclass(eq=False)
class Group:
    """Statements that stay together: what drives a signal, or what updates a register."""

    body: Block
    writes: list[Range] = field(default_factory=list)
    shadowed: bool = False
    gone: bool = False

    def __post_init__(self):
        self.body.owner = self

    @property
    def names(self) -> set[str]:
        return {r.name for r in self.writes}

    def read_names(self) -> set[str]:
        return {r.name for s in self.body.walk() for r in s.reads}


# ---------------------------------------------------------------------------------------------------------- reading

class _Parser:
    """The statements of one module."""

    def __init__(self, text: str):
        self.width, self.depth, self.initial, self.direction = {}, {}, {}, {}
        self.memory_initial: dict[str, list[str]] = {}
        self.logic: list[Block] = []
        self.updates: list[Block] = []
        self.clocks: set[str] = set()
        self.lines = [line.strip() for line in text.split("\n")]
        self.at = 0
        while not self.lines[self.at].endswith(");"):
            self.at += 1
        self.at += 1
        raw = text.split("\n")
        while self.at < len(self.lines):
            self._item(raw[self.at])

    def _refuse(self):
        raise UnsupportedNetlist(f"line {self.at + 1} of the netlist: {self.lines[self.at]!r}")

    def _item(self, raw: str) -> None:
        line = self.lines[self.at]
        if not line or line.startswith("(*"):
            self.at += 1
        elif match := _DECLARATION.fullmatch(raw):
            kind, high, name, last, value = match.groups()
            if kind in ("input", "output"):
                self.direction[name] = kind
            self.width[name] = int(high or 0) + 1
            if last:
                self.depth[name] = int(last) + 1
            if value:
                self.initial[name] = value
            self.at += 1
        elif line.startswith("assign "):
            self.lines[self.at] = line.removeprefix("assign ")
            statement = self._assignment()
            targets = [statement.target]
            if statement.target.startswith("{") and re.fullmatch(r"\d+'h0+", statement.expression):
                targets = re.findall(rf"{_NAME}(?: ?\[[\d:]+\])?", statement.target)
            self.logic += [Block([Statement(statement.expression, target=target)]) for target in targets]
        elif match := re.fullmatch(rf"always @(\*|\(posedge ({_NAME})\s*\))( begin)?", line):
            self.at += 1
            body = self._block() if match[3] else [self._assignment()]
            self.at += bool(match[3])
            if match[2]:
                self.clocks.add(match[2])
                self.updates += [Block([statement]) for statement in body]
            else:
                self.logic.append(Block(body))
        elif line == "initial begin":
            end = self.lines.index("end", self.at)
            parts = [re.fullmatch(rf"({_NAME}) ?\[\d+\] = (.*);", x) for x in self.lines[self.at + 1:end]]
            if not all(parts) or len({part[1] for part in parts}) != 1:
                self._refuse()
            self.memory_initial[parts[0][1]] = [part[2] for part in parts]
            self.at = end + 1
        else:
            self._refuse()

    def _assignment(self) -> Statement:
        match = re.fullmatch(r"([^=<]*?) <?= (.*);", self.lines[self.at])
        if not match:
            self._refuse()
        self.at += 1
        return Statement(match[2].strip(), target=match[1].strip())

    def _block(self) -> list[Statement]:
        """Statements up to the line that ends their block, which is left to the caller."""
        out = []
        while True:
            line = self.lines[self.at]
            if line in ("end", "endcase") or line.startswith("end else ") or _LABELS.fullmatch(line):
                return out
            if line.startswith("(*") or line in ("/* empty */;", ";", "") or line.endswith(" begin end"):
                self.at += 1
            elif line == "begin":
                self.at += 1
                out += self._block()
                self.at += 1
            elif match := re.fullmatch(r"if \((.*)\)( begin)?", line):
                self.at += 1
                out.append(self._two_way(match[1], bool(match[2])))
            elif match := re.fullmatch(r"casez \((.*)\)", line):
                self.at += 1
                items = []
                while self.lines[self.at] != "endcase":
                    label = _LABELS.fullmatch(self.lines[self.at])
                    if not label:
                        self._refuse()
                    self.at += 1
                    items.append((label[1].strip(), self._block()))
                self.at += 1
                out += _case(match[1].strip(), items)
            else:
                out.append(self._assignment())

    def _two_way(self, condition: str, has_block: bool) -> Statement:
        otherwise = []
        if has_block:
            then = self._block()
            line = self.lines[self.at]
            self.at += 1
            if match := re.fullmatch(r"end else if \((.*)\) begin", line):
                otherwise = [self._two_way(match[1], True)]
            elif line == "end else begin":
                otherwise = self._block()
                self.at += 1
            elif line != "end":
                self.at -= 1
                self._refuse()
        else:
            then = [self._assignment()]
        return _test(condition.strip(), [("then", then), ("else", otherwise)])


def _case(expression: str, items) -> list[Statement]:
    """A choice by value. Where labels leave bits open, more than one may apply, and the first one counts: then tests
    one behind the other, so that all choices there are exclude one another."""
    if not any("?" in label for label, _ in items):
        return [_test(expression, items)]
    out: list[Statement] = []
    for labels, block in reversed(items):
        if labels == "default":
            out = block
            continue
        condition = " || ".join(f"({_applies(expression, label)})" for label in labels.split(", "))
        out = [_test(condition, [("then", block), ("else", out)])]
    return out


def _applies(expression: str, label: str) -> str:
    """The condition under which a label of a choice applies. One that leaves bits open is binary, others may not be."""
    if "?" not in label:
        return f"{expression} == {label}"
    width, bits = label.replace("_", "").split("'b")
    mask = "".join("0" if bit == "?" else "1" for bit in bits)
    return f"({expression} & {width}'b{mask}) == {width}'b{bits.replace('?', '0')}"


def _test(expression: str, choices) -> Statement:
    statement = Statement(expression)
    statement.choices = [(label, Block(block, statement)) for label, block in choices]
    return statement


def _plain_names(text: str) -> tuple[str, dict[str, str]]:
    """Escaped identifiers as ordinary ones. Returns the text, and for these names the module each was in."""
    taken = set(re.findall(rf"(?<![\\\w$.]){_NAME}", text))
    names: dict[str, str] = {}
    scopes: dict[str, str] = {}

    def plain(match):
        if (name := names.get(match[0])) is None:
            name = re.sub(r"\W+", "_", match[0][1:].replace("$flatten", "x")).strip("_")
            name = f"n{name}" if name[:1].isdigit() or not name else name
            while name in taken:
                name += "_"
            taken.add(name)
            names[match[0]] = name
            scopes[name] = re.sub(r"\\|\$flatten", "", match[0]).rpartition(".")[0]
        return name
    return re.sub(r"\\\S+", plain, text), scopes


# ------------------------------------------------------------------------------------------------------ transforming

class _Process:
    """The netlist on its way to one process."""

    def __init__(self, text: str, reset: str, scopes: dict[str, str]):
        self.net = net = _Parser(text)
        self.scopes = scopes
        self.width, self.reset = net.width, reset
        self._substitute_aliases()
        self._split_signals()
        self.logic = [self._group(body) for body in net.logic]
        self.updates = [self._group(body) for body in net.updates]
        self._write_registers_directly()
        self.resets = self._collect_resets()
        self._remove_unused()
        self._order_logic()
        self._index()
        self._order_updates()
        self._merge_updates()
        self._sink()
        self._narrow()

    # -- what is read and written

    def _ranges(self, expression: str) -> list[Range]:
        out = []
        for match in _TOKEN.finditer(expression):
            name = match[1]
            if name is None or name not in self.width:
                continue
            low, high = 0, self.width[name] - 1
            select = match[2].strip()
            if select:
                constant = _CONSTANT_SELECT.fullmatch(select)
                if constant and name not in self.net.depth:
                    low, high = int(constant[2] or constant[1]), int(constant[1])
                    select = ""
            out.append(Range(name, low, high))
            out += self._ranges(select)
        return out

    def _analyse(self, statement: Statement) -> None:
        statement.reads, statement.writes = self._ranges(statement.expression), []
        parts = re.findall(rf"{_NAME}(?: ?\[[^\]]*\])?", statement.target) if statement.target.startswith("{") \
            else filter(None, [statement.target])
        for part in parts:
            written, *index = self._ranges(part)
            statement.writes.append(written)
            statement.reads += index

    def _group(self, body: Block) -> Group:
        for statement in body.walk():
            self._analyse(statement)
        return Group(body, [r for s in body.walk() for r in s.writes])

    # -- aliases

    def _aliases(self) -> dict[str, str]:
        net = self.net
        alias = {}
        # What is seen at an output is its value in the cycle that the edge ends, so a register needs another name.
        for update in net.updates:
            for statement in update.walk():
                if net.direction.get(name := statement.target) == "output":
                    alias[name] = register = f"{name}_register"
                    self.width[register] = self.width[name]
                    if name in net.initial:
                        net.initial[register] = net.initial.pop(name)
        for body in net.logic:
            s = body[0]
            if len(body) == 1 and s.target in self.width and s.expression in self.width \
                    and self.width[s.target] == self.width[s.expression] and s.target not in net.direction \
                    and not {s.target, s.expression} & net.depth.keys():
                alias[s.target] = s.expression
        return alias

    @staticmethod
    def _root(alias: Mapping[str, str], name: str) -> str:
        while name in alias:
            name = alias[name]
        return name

    def _substitute_aliases(self) -> None:
        net = self.net
        alias = self._aliases()
        shown = [Block([Statement(register, target=name)]) for name, register in alias.items() if name in net.direction]

        net.logic = [body for body in net.logic
                     if not (len(body) == 1 and alias.get(body[0].target) == body[0].expression)]
        self._rename(lambda name, select: self._root(alias, name) + select)
        for body in (*net.logic, *net.updates):
            for statement in body.walk():
                statement.expression = _replicated(statement.expression)
        net.logic += shown
        net.clocks = clocks = {self._root(alias, clock) for clock in net.clocks}
        if len(clocks) != 1:
            raise UnsupportedNetlist(f"{len(clocks)} clocks ({', '.join(sorted(clocks))}), there must be one")
        (self.clock,) = clocks

    def _rename(self, rename) -> None:
        """Replace every variable, name and select, by what ``rename`` makes of it."""
        def renamed(expression):
            def one(match):
                if match[1] is None or match[1] not in self.width:
                    return match[0]
                return rename(match[1], re.sub(r"\[(.*)\]", lambda inner: f"[{renamed(inner[1])}]", match[2]))
            return _TOKEN.sub(one, expression)

        for body in (*self.net.logic, *self.net.updates):
            for statement in body.walk():
                statement.expression, statement.target = renamed(statement.expression), renamed(statement.target)

    def _split_signals(self) -> None:
        """A signal that is driven in parts is a signal for each part, unless it is read as a whole."""
        net = self.net
        parts, other, reads = defaultdict(list), set(net.direction) | set(net.depth), defaultdict(list)
        for body in (*net.logic, *net.updates):
            for statement in body.walk():
                self._analyse(statement)
                for r in statement.reads:
                    reads[r.name].append(r)
                for w in statement.writes:
                    whole = _CONSTANT_SELECT.fullmatch(statement.target[len(w.name):].strip())
                    if len(body) == 1 and whole and not statement.choices and body[0] is statement:
                        parts[w.name].append(w)
                    else:
                        other.add(w.name)
        pieces = {}         # name -> [(range, name of the piece)], highest first

        def covered(own, read):
            bits = [min(w.high, read.high) - max(w.low, read.low) + 1 for w in own if w.overlaps(read)]
            return len(bits) <= 4 and sum(bits) == read.high - read.low + 1

        for name in parts.keys() - other:
            own = parts[name]
            if any(a.overlaps(b) for k, a in enumerate(own) for b in own[:k]):
                continue
            if all(covered(own, r) for r in reads[name]):
                pieces[name] = [(w, f"{name}_{w.low}_") for w in sorted(own, key=lambda w: -w.high)]
                if any(piece in self.width for _, piece in pieces[name]):
                    del pieces[name]
        for name, own in pieces.items():
            self.width |= {piece: w.high - w.low + 1 for w, piece in own}
            self.scopes |= {piece: self.scopes.get(name, "") for _, piece in own}

        def rename(name, select):
            if name not in pieces:
                return name + select
            low, high = 0, self.width[name] - 1
            if constant := _CONSTANT_SELECT.fullmatch(select.strip()):
                low, high = int(constant[2] or constant[1]), int(constant[1])
            found = []
            for w, piece in pieces[name]:
                if w.overlaps(Range(name, low, high)):
                    first, last = max(low, w.low) - w.low, min(high, w.high) - w.low
                    whole = last - first == w.high - w.low
                    found.append(piece + ("" if whole else f" [{last}]" if first == last else f" [{last}:{first}]"))
            return found[0] if len(found) == 1 else f"{{ {', '.join(found)} }}"
        self._rename(rename)
        self._substitute_aliases()

    # -- registers

    def _write_registers_directly(self) -> None:
        """A register whose next value has a signal of its own is written where that signal is."""
        drivers = defaultdict(list)
        readers = Counter(name for group in (*self.logic, *self.updates) for name in group.read_names())
        for group in self.logic:
            for name in group.names:
                drivers[name].append(group)
        replaced = set()
        for k, update in enumerate(self.updates):
            register, following = update.body[0].target, update.body[0].expression
            if register not in self.width or len(drivers[following]) != 1 or readers[following] != 1 \
                    or following in self.net.direction:
                continue
            driver = drivers[following][0]
            first = driver.body[0]
            if driver.names != {following} or first.target != following or register in driver.names:
                continue
            body = driver.body[1:] if first.expression == register else list(driver.body)
            if not _reads_before_writes(body, register, following):
                continue
            for statement in Block(body).walk():
                if statement.target:
                    statement.target = register + statement.target.removeprefix(following)
            self.updates[k] = self._group(Block(body))
            replaced.add(driver)
        self.logic = [group for group in self.logic if group not in replaced]

    def _collect_resets(self) -> list[Statement]:
        """The reset of every register, taken from the end of its update."""
        resets = []
        for update in self.updates:
            last = update.body[-1]
            if last.two_way and last.expression == self.reset and not last.choices[1][1]:
                resets += last.choices[0][1]
                update.body.pop()
        self.updates = [update for update in self.updates if update.body]
        return resets

    # -- logic

    def _drivers(self) -> dict[str, list[tuple[Range, Group]]]:
        drivers = defaultdict(list)
        for group in self.logic:
            for written in group.writes:
                drivers[written.name].append((written, group))
        return drivers

    def _remove_unused(self) -> None:
        drivers, used = self._drivers(), set()
        todo = [r for update in self.updates for s in update.body.walk() for r in s.reads]
        todo += [Range(name, 0, self.width[name] - 1) for name, way in self.net.direction.items() if way == "output"]
        while todo:
            read = todo.pop()
            for written, group in drivers.get(read.name, ()):
                if group not in used and written.overlaps(read):
                    used.add(group)
                    todo += [r for s in group.body.walk() for r in s.reads]
        self.logic = [group for group in self.logic if group in used]

    def _order_logic(self) -> None:
        """Drivers before readers."""
        drivers, order, state = self._drivers(), [], {}
        for start in self.logic:
            stack = [(start, iter(()))] if start not in state else []
            while stack:
                group, inputs = stack[-1]
                if group not in state:
                    state[group] = "open"
                    inputs = iter({d: None for s in group.body.walk() for r in s.reads
                                   for w, d in drivers.get(r.name, ()) if d is not group and w.overlaps(r)})
                    stack[-1] = (group, inputs)
                for driver in inputs:
                    if state.get(driver) == "open":
                        raise UnsupportedNetlist(f"a loop of logic through {', '.join(sorted(driver.names)[:3])}")
                    if driver not in state:
                        stack.append((driver, iter(())))
                        break
                else:
                    state[group] = "done"
                    order.append(group)
                    stack.pop()
        self.logic = order

    def _index(self) -> None:
        self.uses = defaultdict(list)       # name -> statements that read it
        for group in (*self.logic, *self.updates):
            for statement in group.body.walk():
                for name in {r.name for r in statement.reads}:
                    self.uses[name].append(statement)

    # -- order of updates: all that read a register go before the one that writes it

    def _order_updates(self) -> None:
        self.writers = defaultdict(set)
        for k, update in enumerate(self.updates):
            for name in update.names:
                self.writers[name].add(k)
        count = len(self.updates)
        self.later, self.earlier = [0] * count, [0] * count     # sets of updates, as bits; transitive
        for k, update in enumerate(self.updates):
            for name in sorted(update.read_names() & self.writers.keys()):
                for writer in sorted(self.writers[name] - {k}):
                    if not self._precede(k, writer):
                        # A ring of registers: one of them goes to a shadow first, so that all can read it.
                        if self.updates[writer].names & self.net.depth.keys():
                            raise UnsupportedNetlist(f"memory {name} is in a ring of registers")
                        self.updates[writer].shadowed = True

    def _precede(self, first: int, second: int) -> bool:
        """Order two updates; False if they are ordered the other way round."""
        if self.updates[second].shadowed or self.later[first] >> second & 1:
            return True
        if first == second or self.later[second] >> first & 1:
            return False
        earlier, later = self.earlier[first] | 1 << first, self.later[second] | 1 << second
        for k in _bits(earlier):
            self.later[k] |= later
        for k in _bits(later):
            self.earlier[k] |= earlier
        return True

    # -- updates with the same test become one

    def _merge_updates(self) -> None:
        candidates = defaultdict(list)
        for k, update in enumerate(self.updates):
            last = update.body[-1]
            if update.shadowed or not last.choices or any(s.choices for s in update.body[:-1]):
                continue
            places = candidates[last.two_way, last.expression]
            for place in places[-8:]:
                if self._merge(place, k):
                    break
            else:
                places.append(k)

    def _merge(self, place: int, k: int) -> bool:
        """Put update ``k`` into update ``place``, unless the order of things forbids it."""
        one, other = self.updates[place], self.updates[k]
        if self.later[place] & self.earlier[k] or self.later[k] & self.earlier[place]:
            return False
        first, second = (other, one) if self.later[k] >> place & 1 else (one, other)
        ordered = (self.later[place] >> k | self.later[k] >> place) & 1
        defaults = [*first.body[:-1], *second.body[:-1]]
        test, added = first.body[-1], second.body[-1]
        # Defaults must not come between a register's readers and its test.
        if (ordered and len(second.body) > 1) or \
                (defaults and {r.name for r in test.reads} & (first.names | second.names)):
            return False
        self._join(test, added)
        added.block = None
        one.body = Block(owner=one)
        one.body.take([*defaults, test])
        one.writes += other.writes
        other.gone, other.body = True, Block(owner=other)
        mask = ~(1 << place | 1 << k)
        later, earlier = (self.later[place] | self.later[k]) & mask, (self.earlier[place] | self.earlier[k]) & mask
        self.later[place], self.earlier[place] = later, earlier
        for j in _bits(earlier):
            self.later[j] = (self.later[j] | later | 1 << place) & ~(1 << k)
        for j in _bits(later):
            self.earlier[j] = (self.earlier[j] | earlier | 1 << place) & ~(1 << k)
        for name in other.names:
            self.writers[name].discard(k)
            self.writers[name].add(place)
        return True

    def _join(self, test: Statement, added: Statement) -> None:
        """Make one statement of two with the same test; what ``added`` does follows what ``test`` does."""
        if test.two_way:
            for (_, block), (_, more) in zip(test.choices, added.choices, strict=True):
                block.take(list(more))
                self._join_neighbours(block)
            return
        ones, others = ({label: block for labels, block in s.choices for label in labels.split(", ")}
                        for s in (test, added))
        pairs = defaultdict(list)       # the labels for which the same two blocks are chosen
        for label in {**ones, **others}:
            pair = tuple(blocks.get(label, blocks.get("default")) for blocks in (ones, others))
            pairs[tuple(map(id, pair)), label == "default"].append((label, pair))
        test.choices, taken = [], set()
        for labels in sorted(pairs.values(), key=lambda labels: labels[0][0] == "default"):
            merged = Block(owner=test)
            for block in labels[0][1]:
                if block is not None:
                    merged.take([self._copy(s) for s in block] if id(block) in taken else list(block))
                    taken.add(id(block))
            self._join_neighbours(merged)
            test.choices.append((", ".join(label for label, _ in labels), merged))

    def _join_neighbours(self, block: Block) -> None:
        k = 0
        while k + 1 < len(block):
            one, other = block[k:k + 2]
            written = {w.name for _, inner in one.choices for s in inner.walk() for w in s.writes}
            if one.same_test(other) and not {r.name for r in one.reads} & written:
                self._join(one, other)
                other.block = None
                del block[k + 1]
            else:
                k += 1

    def _copy(self, statement: Statement) -> Statement:
        copy = Statement(statement.expression, target=statement.target)
        copy.reads, copy.writes = statement.reads, statement.writes
        for name in {r.name for r in copy.reads}:
            self.uses[name].append(copy)
        for label, block in statement.choices:
            inner = Block(owner=copy)
            inner.take([self._copy(s) for s in block])
            copy.choices.append((label, inner))
        return copy

    # -- logic goes where it is used

    def _sink(self) -> None:
        registers = self.writers.keys()
        number = {update: k for k, update in enumerate(self.updates)}
        for group in reversed(self.logic):
            if any(self.net.direction.get(name) == "output" for name in group.names):
                continue
            readers = {id(s): s for w in group.writes for s in self.uses[w.name] if any(w.overlaps(r) for r in s.reads)}
            places = [(path, s) for s in readers.values() if (path := _path(s)) and path[0].owner is not group]
            if not places:
                continue
            first, common = places[0][0], 0
            while common < len(first) and all(len(p) > common and p[common] is first[common] for p, _ in places):
                common += 1
            if common < 2:      # to be inside another group is no gain, only inside a branch of it
                continue
            block, target = first[common - 1], first[0].owner
            users = {id(path[common].owner if len(path) > common else s) for path, s in places}
            at = next(k for k, s in enumerate(block) if id(s) in users)
            read = group.read_names() & registers
            k = number.get(target)
            if k is not None:
                writers = [w for name in read for w in self.writers[name] if w != k]
                if any(self.later[w] >> k & 1 and not self.updates[w].shadowed for w in writers):
                    continue    # a register that it reads has been written by then
            body = list(group.body)
            block.take(body, at)
            if k is not None:
                if not all(_reads_before_writes(target.body, name) for name in read & target.names):
                    del block[at:at + len(body)]
                    group.body = Block(body, group)
                    continue
                for w in writers:
                    self._precede(k, w)
            group.gone = True

    # -- sums are as wide as what is used of them

    def _narrow(self) -> None:
        used, written = Counter(), Counter()
        for statement in self._statements():
            for r in statement.reads:
                used[r.name] = max(used[r.name], r.high + 1)
            for w in statement.writes:
                written[w.name] += 1
        for statement in self._statements():
            name = statement.target
            if name not in self.width or name in self.net.direction or name in self.writers or written[name] != 1:
                continue
            if 2 <= used[name] < self.width[name] and _NARROWABLE.fullmatch(statement.expression):
                self.width[name] = used[name]

    def _statements(self) -> Iterator[Statement]:
        for group in (*self.logic, *self.updates):
            if not group.gone:
                yield from group.body.walk()

    # -- writing

    def verilog(self, module: str, segment: int) -> str:
        net, width = self.net, self.width
        updates = [self.updates[k] for k in self._update_order()]
        shadows = {name: f"shadow_{name}" for name in sorted(self._shadowed(updates))}
        groups = [*(group for group in self.logic if not group.gone), *updates]
        registers, memories = self.writers.keys(), net.depth.keys()
        moving, parts = set(), [Segment(groups, always=True)]
        if segment:
            moving = restless(groups, registers, memories)
            parts = segments(groups, registers, shadows, memories, moving, self.scopes, segment)
        flags = _Flags(self, parts, moving, shadows)

        body = flags.inputs()
        for number, part in enumerate(parts):
            body += flags.begin(number)
            for group in part.groups:
                own = {name: shadows[name] for name in group.names & shadows.keys()}
                self._write(group.body, 3, body, own, flags.taken)
            if part.writes & shadows.keys():
                body.append("      shadows = 1'h1;")
            body += flags.end(number)
        if shadows:
            body += ["    if (shadows) begin", "      shadows = 1'h0;"]
            body += flags.changes(shadows, shadows)
            body += [f"      {name} = {shadow};" for name, shadow in shadows.items()]
            body.append("    end")
        if self.resets:
            body.append(f"    if ({self.reset}) begin")
            self._write(self.resets, 3, body)
            body += [f"      {shadow} = {name};" for name, shadow in shadows.items()]
            body += flags.all_awake()
            body.append("    end")

        def vector(name):
            return f"[{width[name] - 1}:0] " if width[name] > 1 else ""

        # What does not outlive a segment need not outlive the edge: begun here, it is local to the simulator.
        passing = [*self._within(parts), *(last for name, last in flags.last.items()
                                           if net.direction.get(name) != "input" and width[name] <= WORD)]
        body = [*(f"    {name} = 0;" for name in passing), *body]

        def initially(name):
            return f" = {net.initial[name]}" if name in net.initial and name in self.writers else ""

        names = {r.name for s in self._statements() for r in (*s.reads, *s.writes)} | {s.target for s in self.resets}
        head = [f"module {module}({', '.join(net.direction)});"]
        head += [f"  {way} {'reg ' * (way == 'output')}{vector(name)}{name};" for name, way in net.direction.items()]
        for name in sorted(names - net.direction.keys()):
            depth = f" [{net.depth[name] - 1}:0]" if name in net.depth else ""
            head.append(f"  reg {vector(name)}{name}{depth}{initially(name)};")
        head += [f"  reg {vector(name)}{shadow}{initially(name)};" for name, shadow in shadows.items()]
        head += [f"  reg {vector(name)}{last};" for name, last in flags.last.items()]
        head += [f"  reg {flag} = 1'h1;" for flag in flags.names]
        head += ["  reg shadows = 1'h0;"] * bool(shadows)
        for k, (name, values) in enumerate(net.memory_initial.items()):
            if name not in names:
                continue
            if len(set(values)) == 1:
                head += [f"  integer initial_{k};", f"  initial for (initial_{k} = 0; initial_{k} < {len(values)}; "
                         f"initial_{k} = initial_{k} + 1) {name}[initial_{k}] = {values[0]};"]
            else:
                head += ["  initial begin", *(f"    {name}[{n}] = {value};" for n, value in enumerate(values)), "  end"]
        return "\n".join([*head, f"  {EVERY_EDGE}{self.clock}) begin", *body, "  end", "endmodule", ""])

    def _within(self, parts: Sequence[Segment]) -> list[str]:
        """Signals, but for wide ones, that only one segment drives and reads."""
        users = defaultdict(set)
        for number, part in enumerate(parts):
            for group in part.groups:
                for s in group.body.walk():
                    for r in (*s.reads, *s.writes):
                        users[r.name].add(number)
        kept = self.writers.keys() | self.net.depth.keys() | self.net.direction.keys()
        return sorted(name for name, own in users.items()
                      if len(own) == 1 and self.width[name] <= WORD and name not in kept)

    def _shadowed(self, updates: Sequence[Group]) -> set[str]:
        """Registers that are written to a shadow first: all writers of one do it if one has to.

        Outside the clock edge a shadow has the value of its register.
        """
        names: set[str] = set()
        while more := [update for update in updates
                       if (update.shadowed or update.names & names) and not update.names <= names]:
            names |= {name for update in more for name in update.names}
        if memories := names & self.net.depth.keys():
            raise UnsupportedNetlist(f"memory {min(memories)} is in a ring of registers")
        return names

    def _update_order(self) -> list[int]:
        left = {k for k, update in enumerate(self.updates) if not update.gone}
        order = []
        while left:
            mask = sum(1 << k for k in left)
            ready = sorted(k for k in left if not self.earlier[k] & mask)
            order += ready
            left.difference_update(ready)
        return order

    def _write(self, block: Sequence[Statement], level: int, out: list[str], renamed: Mapping[str, str] = {},
               taken: Mapping[int, Sequence[str]] = {}) -> None:
        """``renamed``: targets by another name. ``taken``: lines at the end of a block, by its identity."""
        indent = "  " * level
        for s in block:
            if s.target:
                target = re.sub(_NAME, lambda match: renamed.get(match[0], match[0]), s.target) if renamed else s.target
                out.append(f"{indent}{target} = {s.expression};")
            elif s.two_way:
                (_, then), (_, otherwise) = s.choices
                out.append(f"{indent}if ({s.expression}) begin")
                self._write(then, level + 1, out, renamed, taken)
                while len(otherwise) == 1 and otherwise[0].two_way and id(otherwise) not in taken:
                    out.append(f"{indent}end else if ({otherwise[0].expression}) begin")
                    (_, then), (_, otherwise) = otherwise[0].choices
                    self._write(then, level + 1, out, renamed, taken)
                if otherwise:
                    out.append(f"{indent}end else begin")
                    self._write(otherwise, level + 1, out, renamed, taken)
                out.append(f"{indent}end")
            else:
                out.append(f"{indent}casez ({s.expression})")
                for label, inner in s.choices:
                    out.append(f"{indent}  {label}: begin")
                    self._write(inner, level + 2, out, renamed, taken)
                    out.append(f"{indent}  end")
                out.append(f"{indent}endcase")
        out += [indent + line for line in taken.get(id(block), ())]


class _Flags:
    """Who is awake: a flag for each segment and one for several of them, and what sets it.

    Attributes
    ----------
    names : list[str]
        Of the flags.
    last : dict[str, str]
        What is compared with what it was, and the name of the latter.
    taken : dict[int, list[str]]
        Lines at the end of a block, by its identity.
    """

    def __init__(self, process: _Process, parts: Sequence[Segment], moving: Collection[str],
                 shadows: Collection[str]):
        self.process, self.parts, self.shadows = process, parts, shadows
        self.last: dict[str, str] = {}
        self.several = {}       # number of a segment that can sleep -> number of its flag together with neighbours
        runs = [list(run) for always, run in groupby(range(len(parts)), lambda k: parts[k].always) if not always]
        together = [run[at:at + TOGETHER] for run in runs for at in range(0, len(run), TOGETHER)]
        for several, numbers in enumerate(together):
            self.several |= dict.fromkeys(numbers, several)
        self.names = self._flags(self.several)
        self.readers, taken = wakes(parts, moving, process.net.depth)
        self.taken = {block: self._wake(numbers) for block, numbers in taken.items()}

    def _flags(self, numbers: Iterable[int]) -> list[str]:
        return [f"awake_{number}" for number in sorted(numbers)] + \
            [f"any_{several}" for several in sorted({self.several[number] for number in numbers})]

    def _wake(self, numbers: Iterable[int]) -> list[str]:
        return [f"{flag} = 1'h1;" for flag in self._flags(numbers)]

    def _readers(self, name: str, own: int | None = None) -> list[tuple[int, int, frozenset[int]]]:
        """Who has to see a change. The segment that drives a signal has seen it; that of a register has not."""
        seen = set() if name in self.process.writers else {own}
        return [(high, low, numbers - seen) for high, low, numbers in self.readers.get(name, ()) if numbers - seen]

    def inputs(self) -> list[str]:
        """Lines that wake the readers of inputs."""
        net = self.process.net
        names = [name for name, way in net.direction.items()
                 if way == "input" and name != self.process.clock and self._readers(name)]
        self.last |= {name: f"last_{name}" for name in names}
        return [*self.changes(names, self.last), *(f"    last_{name} = {name};" for name in names)]

    def changes(self, names: Iterable[str], former: Mapping[str, str], own: int | None = None) -> list[str]:
        """Lines that wake the readers of what is not what it was."""
        together = defaultdict(list)
        out = []
        for name in names:
            runs = self._readers(name, own)
            if len({numbers for _, _, numbers in runs}) == 1:
                together[runs[0][2]].append(f"({former[name]} != {name})")
            elif runs:
                out.append(f"      if ({former[name]} != {name}) begin")
                for high, low, numbers in runs:
                    bits = f"[{high}:{low}]" if high > low else f"[{low}]"
                    out += [f"        if ({former[name]} {bits} != {name} {bits}) begin",
                            *(f"          {line}" for line in self._wake(numbers)), "        end"]
                out.append("      end")
        for numbers, tests in together.items():
            out += [f"      if ({' | '.join(tests)}) begin", *(f"        {line}" for line in self._wake(numbers)),
                    "      end"]
        return out

    def _watched(self, number: int) -> list[str]:
        return [name for name in sorted(self.parts[number].writes)
                if name not in self.process.net.depth and name not in self.shadows and self._readers(name, number)]

    def begin(self, number: int) -> list[str]:
        """Lines before the work of a segment."""
        out = []
        flags = [f"awake_{number}"] * (number in self.several)
        if flags and self.several[number] != self.several.get(number - 1):
            flags.insert(0, f"any_{self.several[number]}")
        for flag in flags:
            out += [f"    if ({_unlikely(flag)}) begin", f"      {flag} = 1'h0;"]
        watched = self._watched(number)
        self.last |= {name: f"last_{name}" for name in watched}
        return out + [f"      last_{name} = {name};" for name in watched]

    def end(self, number: int) -> list[str]:
        """Lines behind it."""
        out = self.changes(self._watched(number), self.last, number)
        if number in self.several:
            out += ["    end"] * (1 + (self.several[number] != self.several.get(number + 1)))
        return out

    def all_awake(self) -> list[str]:
        """Lines that wake everything."""
        return [f"      {line}" for line in self._wake(self.several)]


def _unlikely(flag: str) -> str:
    """A flag, with a hint to the compiler: what rarely runs is put out of the way of what is asked."""
    return f"""$c1("VL_UNLIKELY(", {flag}, ")")"""


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _path(statement: Statement) -> list[Block]:
    """The blocks around a statement, outermost first; empty if it has become part of another."""
    path = []
    while isinstance(statement, Statement):
        if statement.block is None:
            return []
        path.append(statement.block)
        statement = statement.block.owner
    return path[::-1]


def _reads_before_writes(block: Sequence[Statement], register: str, written_as: str = "") -> bool:
    """Whether no statement reads a register that one before it may have written."""
    target = written_as or register
    good = True

    def walk(block, written):
        nonlocal good
        for s in block:
            if written and any(r.name == register for r in s.reads):
                good = False
            if any(w.name == target for w in s.writes):
                written = True
            before = written
            for _, inner in s.choices:
                written |= walk(inner, before)
        return written

    walk(block, False)
    return good


def _replicated(expression: str) -> str:
    """``{ a[3], a[3], a[3], b }`` as ``{ {3{a[3]}}, b }``: a sign is extended in one go."""
    def shorter(match):
        parts, out = [part.strip() for part in match[1].split(",")], []
        while parts:
            count = next((n for n, part in enumerate(parts) if part != parts[0]), len(parts))
            repeated = count > 2 and re.fullmatch(rf"{_NAME}(?: ?\[\d+\])?", parts[0])
            out += [f"{{{count}{{{parts[0]}}}}}"] if repeated else parts[:count]
            del parts[:count]
        return f"{{ {', '.join(out)} }}"
    return re.sub(r"\{ ([^{}]*) \}", shorter, expression)


def one_process(netlist: str, *, module: str, reset: str = "rst", segment: int = FULL) -> str:
    """Verilog of a module whose only process computes a cycle of a design.

    Parameters
    ----------
    netlist : str
        Verilog of the flattened design, as Yosys writes it.
    module : str
        Name of the module to make; it has the ports of the design.
    reset : str
        Name of the reset input, if there is one.
    segment : int
        Most statements that are left out together where they have nothing new to compute (:mod:`sim.board.segments`);
        0: everything is computed in every cycle.

    Returns
    -------
    str
        Every edge of the clock, rising or falling, is a cycle, which saves the simulator the way back. Before the
        edge, the inputs are what they are in that cycle; after it, so are the outputs.

    Raises
    ------
    UnsupportedNetlist
        More than one clock, a loop of logic, or Verilog that is not understood.
    """
    text, scopes = _plain_names(netlist)
    modules = [match.start() for match in re.finditer(r"^module ", text, re.MULTILINE)]
    if len(modules) != 1:
        raise UnsupportedNetlist(f"{len(modules)} modules, there must be one: the design is not flat")
    body = text[modules[0]:text.index("endmodule", modules[0])]
    try:
        return _Process(body, reset, scopes).verilog(module, segment)
    except IndexError:
        raise UnsupportedNetlist("the netlist ends in the middle of a statement") from None

"""What the exchange answers: messages out of the session's bytes, when each of them is read, and what positions, G17,
G18 and G20 make of it."""

from collections import deque
from typing import NamedTuple

from hdl.control.registers import INSTRUMENT_BITS, MASS_CANCEL_INSTRUMENT
from hdl.gate import answers
from hdl.gate.rolling import PARTS, UNIT_CYCLES
from hdl.layout import sbe
from hdl.order.responses import NO_REASON, READ, SKIPPED, Kind
from hdl.order.templates import STARBASE_PROTOCOL_ID

__all__ = ["Answers", "Event", "FillBurst", "Learned", "RefusalStorm", "RepeatedExecution", "judged", "lots_of"]

_SCHEMA = sbe.load("starbase_orders")
_HEADER = _SCHEMA.composites["MessageHeader"]
_DIMENSION = _SCHEMA.composites["groupSizeEncoding"]
_RESEND = 1 << _SCHEMA.sets["flags"]["isResend"]
_NAMES = {_SCHEMA[name].id: name for name in (*READ, *SKIPPED)}
_SELL = {_SCHEMA.enums["Side"][name]: name == "SELL" for name in ("BUY", "SELL")}


# ---------------------------------------------------------------------- G17, G18, G20

class _Rolling:
    """The number of the sub-bucket that runs, and what came in the latest of them."""

    def __init__(self):
        self._number, self._age, self._at = 0, 1, 0     # before cycle `_at`
        self._lengths = deque([(0, 1)])                 # (cycle from which it counts, units)
        self._came = {}

    def window(self, cycle, window):
        """The register says so from ``cycle`` on."""
        self._lengths.append((cycle + 2, max(1, -(-window // (PARTS * UNIT_CYCLES)))))

    def number(self, cycle):
        """The sub-bucket that runs in ``cycle``."""
        while self._at < cycle:
            while len(self._lengths) > 1 and self._lengths[1][0] <= self._at:
                self._lengths.popleft()
            until = min(cycle, self._lengths[1][0] if len(self._lengths) > 1 else cycle)
            units = until // UNIT_CYCLES - self._at // UNIT_CYCLES
            self._at, length = until, self._lengths[0][1]
            first = max(1, length + 1 - self._age)
            if units < first:
                self._age += units
            else:
                rest = units - first
                self._number, self._age = self._number + 1 + rest // length, 1 + rest % length
        return self._number

    def add(self, number, instrument, amounts):
        """The sums, with ``amounts`` that belong to a sub-bucket."""
        kept = [each for each in self._came.get(instrument, ()) if each[0] >= number - PARTS]
        self._came[instrument] = kept = [*kept, (number, amounts)]
        return tuple(map(sum, zip(*(its for _, its in kept), strict=True)))

    def forget(self, instrument):
        self._came.pop(instrument, None)


class _Burst:
    """Holds of a gate, each with the cycle of the answer that began it; by instrument number."""

    def __init__(self):
        self.rolling, self.held = _Rolling(), {}

    def visit(self, cycle, instrument, lets_go, freeze):
        """Whether a visit whose strobe is in ``cycle`` ends a hold."""
        since = self.held.get(instrument)
        if since is None or not (lets_go or (freeze and cycle + 4 - since >= freeze)):
            return False
        del self.held[instrument]
        self.rolling.forget(instrument)
        return True

    def _event(self, number, cycle, instrument, amounts, passes):
        if instrument in self.held:
            return False
        if passes(*self.rolling.add(number, instrument, amounts)):
            return False
        self.held[instrument] = cycle
        return True


class FillBurst(_Burst):
    """G17."""

    def fill(self, number, cycle, instrument, side, lots, rw):
        """Whether a fill that came in sub-bucket ``number`` begins a hold, with the answer in ``cycle``."""
        return self._event(number, cycle, instrument, (lots, -lots if side else lots, 1), lambda total, net, fills: (
            rw["fills_cycles"] and total <= rw["fills_lots"] and abs(net) <= rw["fills_delta"]
            and fills <= rw["fills_most"]))


class RefusalStorm(_Burst):
    """G20."""

    def refused(self, number, cycle, instrument, count, rw):
        """As :meth:`FillBurst.fill`."""
        return self._event(number, cycle, instrument, (count,), lambda total: (
            rw["refusals_cycles"] and total <= rw["refusals_most"]))


class RepeatedExecution:
    """G18, by (instrument, side)."""

    def __init__(self):
        self.repeats, self.filled, self.held = {}, set(), set()

    def fill(self, instrument, side, most):
        """Whether a fill begins a hold."""
        where = instrument, side
        if where in self.held:
            return False
        self.filled.add(where)
        if self.repeats.get(where, 0) < most:
            return False
        self.held.add(where)
        return True

    def quoted(self, instrument, sides):
        """A frame left with these sides."""
        for side in sides:
            where = instrument, side
            if where in self.filled and where not in self.held:
                self.filled.discard(where)
                self.repeats[where] = min(255, self.repeats.get(where, 0) + 1)

    def acknowledge(self, instrument):
        """Whether a hold ends."""
        ends = False
        for where in ((instrument, 0), (instrument, 1)):
            ends |= where in self.held
            self.held.discard(where)
            self.filled.discard(where)
            self.repeats.pop(where, None)
        return ends


# ---------------------------------------------------------------------- a quantity in lots

def lots_of(mantissa, exponent, lot_mult, lot_exp):
    """(lots or ``None``, cycles from the judgement of a fill to the end of its conversion)."""
    decades, cycles = exponent - lot_exp, 0
    if not lot_mult or not 0 <= mantissa < 1 << answers.MANTISSA_BITS or abs(decades) > answers.MOST_DECADES:
        return None, cycles
    zeros = (lot_mult & -lot_mult).bit_length() - 1
    cycles = answers.MANTISSA_BITS * abs(decades) + zeros + 2 + answers.LOT_BITS
    value, rest = (mantissa * 10 ** decades, 0) if decades >= 0 else divmod(mantissa, 10 ** -decades)
    lots, more = divmod(value, lot_mult)
    good = not rest and not more and value < 1 << answers.MANTISSA_BITS and 0 < lots < 1 << answers.LOT_BITS
    return lots if good else None, cycles


# ---------------------------------------------------------------------- messages, and when they are read

class Event(NamedTuple):
    """As :class:`hdl.order.responses.Event`, what counts of it; of an ACK how many sides are ``refused``, and of each
    its status and its order. ``orders`` of another kind is the order that it is about, and nothing."""

    kind: Kind
    id: int = 0
    instrument_id: int = 0
    side: int = 0
    mantissa: int = 0
    exponent: int = 0
    refused: int = 0
    next: int = 0
    status: tuple = (0, 0)
    orders: tuple = (0, 0)


class Learned(NamedTuple):
    """What positions are told, as :class:`hdl.gate.positions.Learned` has it, and of which instrument."""

    instrument: int
    fill: bool = False
    side: int = 0
    lots: int = 0
    earlier: bool = False
    refused: int = 0
    answered: int = 0
    stands: int = 0
    less: int = 0
    quote_id: int = 0
    next: int = 0

    def of(self, st):
        """A position (:class:`~sim.golden.quote.State`) learns it. Whether it counts."""
        newest = st.last_quote_id == self.quote_id
        before = (st.last_quote_id - self.quote_id) & 1 << 31 != 0
        ahead = (self.next - st.pos_next) & 0xFFFF_FFFF
        counts = (0 < ahead < 1 << 31 or (ahead == 0 and not st.pos_told)) and bool(
            self.fill or (before if self.earlier else newest))
        if counts:
            st.pos_next, st.pos_told = self.next, False
            if self.fill and st.pos_valid:      # one that is unknown counts as 0
                st.position += -self.lots if self.side else self.lots
                st.position = (st.position + (1 << 31)) % (1 << 32) - (1 << 31)
        for n, name in enumerate(("bid", "ask")):
            answered, refused, stands, clears = (
                bool(bits >> n & 1) for bits in (self.answered, self.refused, self.stands, self.less))
            settled, sent, lots = (getattr(st, f"{what}_{name}{more}") for what, more in (
                ("settled", ""), ("sent", ""), ("live", "_lots")))
            if self.fill:
                clears = n == self.side
                settled += self.lots if clears else 0
            elif answered:
                settled = sent - (lots if stands else 0)
            elif refused:
                settled += lots
            spent = counts and (clears if self.fill else refused) and not (settled - sent) & 0xFFFF_FFFF
            if counts:
                setattr(st, f"settled_{name}", settled & 0xFFFF_FFFF)
            if (newest and clears) or spent:
                setattr(st, f"live_{name}", False)
        return counts


class _Broken(Exception):
    """``args``: the cycle in which the parser says so."""


class _Part(NamedTuple):
    """A root block or an entry: the bytes that are read, those that have to be there, its layout and its kind."""

    block: object
    end: int
    size: int
    kind: Kind | None
    side: int | None


def _part(block, read, size=None):
    end = max((block[f].end for f in read.fields.values()), default=1) if read is not None else 1
    return _Part(block, end if size is None or not read.groups else size, end if size is None else size,
                 read and read.kind, read and read.side)


_ROOTS = {name: _part(_SCHEMA[name], read, _SCHEMA[name].block_length) for name, read in READ.items()}
_GROUPS = {name: [_part(group, read.groups.get(group.name)) for group in _SCHEMA[name].groups.values()]
           if read.groups else [] for name, read in READ.items()}
#: What a message yields instead of a cycle: positions have to learn of it first.
_SETTLES = object()
#: From a part's last byte, or from the state before it, to the first byte of the next one.
_NEXT = 3


class Answers:
    """Reads what the exchange says, as :class:`hdl.order.responses.ResponseParser` and
    :class:`hdl.gate.answers.Answers` do.

    ``at(cycle, what, *arguments)`` puts something down for a cycle; ``what(cycle, strobes, *arguments)`` is called
    then. ``judge(cycle, event)`` is asked in the cycle in which an event is judged and says (cycles that it takes
    from there, whether it is wrong then, a list of what positions learn of it). ``learn(cycle, strobes, learned)`` is
    called when one of that is to be told; :meth:`settled` says that it was. ``halt(cycle, strobes)`` : the exchange
    cannot be trusted.

    Attributes
    ----------
    listens : what is said is understood.
    """

    def __init__(self, at, judge, learn, halt):
        self._at, self._judge, self._learn, self._halt = at, judge, learn, halt
        self.listens = False
        self._segments = deque()        # (first cycle of the first byte, bytes)
        self._place = 0                 # in the first of them
        self._taken = -1                # the cycle of the last byte that was taken
        self._expected = 0
        self._machine = None
        self._starves = False
        self._gate = 0                  # first cycle in which no event waits
        self._free, self._begun, self._visits = 1, None, 0

    # ------------------------------------------------------------------ whose turn it is

    def _ticks(self, first, last):
        """Ticks in the cycles from ``first`` to ``last``."""
        return last // answers.VISIT_PERIOD - (first - 1) // answers.VISIT_PERIOD

    def visits(self, cycle):
        """The number of the visit that the tick of ``cycle`` is, ``None`` if it is none."""
        if cycle < self._free or (self._begun is not None and cycle >= self._begun):
            return None
        return self._visits + self._ticks(self._free, cycle - 1)

    def _begin(self, cycle):
        """An event is up in ``cycle``: the cycle in which it is taken up."""
        cycle = max(cycle, self._free)
        tick = cycle - cycle % answers.VISIT_PERIOD
        if tick >= self._free and cycle <= tick + answers.VISIT_CYCLES:
            cycle = tick + answers.VISIT_CYCLES + 1
        self._begun = cycle
        return cycle

    # ------------------------------------------------------------------ bytes

    def restart(self, cycle, expected):
        """From the strobe in ``cycle`` on: the next byte is the first one of a message of this number."""
        self._expected, self.listens = expected, True
        self._machine = self._messages(cycle + _NEXT)
        self._run()

    def payload(self, cycle, data):
        """The session's verdict on a segment is in ``cycle``: its bytes are kept."""
        self._segments.append((cycle + (3 if len(data) > 1 else 4), data))
        if self._starves:
            self._run()

    def _run(self):
        self._starves = False
        try:
            when = next(self._machine)
        except _Broken as broken:
            self._at(broken.args[0] + 1, self._broke)
            self._machine = self._swallow()
            next(self._machine)
            self._starves = True
            return
        if when is None:
            self._starves = True
        elif when is not _SETTLES:
            self._at(when, self._resume)

    def settled(self, cycle):
        """Positions have learned in ``cycle`` what they were told of."""
        self._told = cycle
        self._run()

    def busy(self, cycle):
        """Something that was said before is not read, or not done with."""
        return self._machine is not None and (
            bool(self._segments) or not self._starves or cycle <= max(self._taken, self._gate - 1))

    def _resume(self, cycle, strobes):
        self._run()

    def _broke(self, cycle, strobes):
        self.listens = False
        self._halt(cycle, strobes)

    def _swallow(self):
        while True:
            self._segments.clear()
            self._place = 0
            yield None

    def _take(self, cycle, size):
        """``size`` bytes from ``cycle`` on; the cycle of the last one, and the bytes."""
        out = b""
        while len(out) < size:
            while not self._segments:
                yield None
            first, data = self._segments[0]
            if self._place == 0:
                cycle = max(cycle, first, self._taken + 3)
            some = data[self._place:self._place + size - len(out)]
            out += some
            self._place += len(some)
            cycle += len(some)
            self._taken = cycle - 1
            if self._place == len(data):
                self._segments.popleft()
                self._place = 0
        return cycle - 1, out

    # ------------------------------------------------------------------ messages

    def _messages(self, cycle):
        while True:
            cycle = yield from self._message(cycle)

    def _message(self, cycle):
        protocol = _HEADER["protocolId"].end
        last, header = yield from self._take(max(cycle, self._gate), protocol)
        if header[-1] != STARBASE_PROTOCOL_ID:
            raise _Broken(last + 2)
        last, rest = yield from self._take(last + 1, _HEADER.size - protocol)
        header = {f: _number(_HEADER[f], header + rest) for f in (
            "flags", "messageLength", "messageTypeId", "sequenceNumber")}
        judged = last + 1
        number, left = header["sequenceNumber"], header["messageLength"] - _HEADER.size
        known = number == self._expected
        if left < 0 or not (known or (header["flags"] & _RESEND and number < self._expected)):
            raise _Broken(judged + 1)
        name = _NAMES.get(header["messageTypeId"])
        if known:
            self._expected += 1
        if not known or name not in READ:
            if known and name is None:
                self._at(judged + 2, self._halt)
            return (yield from self._skip(judged + 1, left))

        root = _ROOTS[name]
        if left < root.size:
            raise _Broken(judged + _NEXT)
        last, block = yield from self._take(judged + _NEXT, root.end)
        left -= root.end
        if name == "GapFill":
            to = _number(root.block["newSequenceNumber"], block)
            if to < self._expected:
                raise _Broken(last + 2)
            self._expected = to
        if root.kind is not None:
            yield from self._event(last + 1, name, root, block, None)
        at = last           # the cycle before the next part is aimed at
        for group in _GROUPS[name]:
            if left == 0:
                return (yield from self._skip(at + _NEXT, left))
            if left < _DIMENSION.size:
                raise _Broken(at + _NEXT)
            last, dimension = yield from self._take(max(at + _NEXT, self._gate), _DIMENSION.size)
            left -= _DIMENSION.size
            length, entries = (_number(_DIMENSION[f], dimension) for f in ("blockLength", "numInGroup"))
            at = last + 1       # where entries are counted
            for _ in range(entries):
                if left < length or length < group.end:
                    raise _Broken(at + _NEXT)
                last, entry = yield from self._take(max(at + _NEXT, self._gate), group.end)
                left -= length
                read = READ[name].groups.get(group.block.name)
                if read and "side" in read.fields:
                    side = group.block[read.fields["side"]]
                    if _number(side, entry) not in _SELL:
                        raise _Broken(last - (group.end - side.end) + 2)
                if group.kind is not None:
                    yield from self._event(last + 1, name, group, entry, block)
                at = last + 1
                if length > group.end:
                    last, _ = yield from self._take(max(at, self._gate), length - group.end)
                    at = last + 1
        return (yield from self._skip(at + 1, left))

    def _skip(self, cycle, left):
        """``cycle``: of the state in which the rest of a message is passed over."""
        if left == 0:
            return cycle + _NEXT
        last, _ = yield from self._take(max(cycle, self._gate), left)
        return last + _NEXT

    def _event(self, cycle, name, part, block, root):
        """An event is up in ``cycle``; when it is done with stands in ``_gate``."""
        begun = self._begin(cycle)
        judged = begun + answers.READ_CYCLES
        yield judged
        takes, wrong, learned = self._judge(judged, _event_of(name, part, block, root, self._expected))
        done = judged + takes
        if wrong:
            self._at(done + 2, self._halt)
        for each in learned:
            self._at(done + 1, self._learn, each)
            yield _SETTLES
            done = self._told
        self._visits += self._ticks(self._free, begun - 1)
        self._gate = self._free = done + 1
        self._begun = None


def _number(field, block):
    return int.from_bytes(block[field.offset:field.end], field.byteorder, signed=field.signed)


def _event_of(name, part, block, root, expected):
    if part.kind is None:
        return None
    read = READ[name] if root is None else READ[name].groups[part.block.name]
    values = {member: _number(part.block[f], block) for member, f in read.fields.items()}
    if root is not None and "id" not in values and "id" in READ[name].fields:
        values["id"] = _number(_SCHEMA[name][READ[name].fields["id"]], root)
    side = part.side if part.side is not None else int(_SELL.get(values.get("side"), 0))
    refused = sum(values.get(f"{which}_reason", NO_REASON) & 0xFF != NO_REASON for which in ("bid", "ask"))
    status = tuple(values.get(f"{which}_status", 0) for which in ("bid", "ask"))
    orders = (values.get("bid_order_id", values.get("order_id", 0)), values.get("ask_order_id", 0))
    return Event(part.kind, values.get("id", 0) & (1 << 64) - 1, values.get("instrument_id", 0), side,
                 values.get("mantissa", 0), values.get("exponent", 0), refused, expected & 0xFFFF_FFFF,
                 status, orders)


def judged(event, sent, instrument_id):
    """(instrument or ``None``, whether it is wrong) of an event. ``sent``: ids below it, without their instrument,
    were sent; ``instrument_id`` : a function of the instrument's number, ``None`` if there is none. The instrument of
    what answers a mass cancel of the fabric's is :data:`hdl.control.registers.MASS_CANCEL_INSTRUMENT`."""
    index = event.id & (1 << INSTRUMENT_BITS) - 1
    known = event.id >> INSTRUMENT_BITS < sent
    its = instrument_id(index)
    of_row = its is not None and its == event.instrument_id & (1 << 64) - 1
    if event.kind in (Kind.ACK, Kind.FILL):
        return index, not (known and of_row)
    if event.kind in (Kind.CANCELLED, Kind.PLACED):
        return (index if event.kind == Kind.CANCELLED and of_row else None), not known
    if event.kind == Kind.MASS_CANCELLED:
        return (index if known and index == MASS_CANCEL_INSTRUMENT else None), False
    if event.kind == Kind.REJECT:
        return (index if known and its is not None else None), False
    return None, event.kind == Kind.SESSION_REJECT

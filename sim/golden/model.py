"""The golden model: everything that the fabric does, to the byte and to the cycle, in plain Python.

:class:`GoldenModel` takes what goes into the fabric (frames on both ports, register writes, host packets, the kill
pin, a lost feed), each with its cycle, and tells what comes out: every frame on the order port with the cycle of its
first preamble byte, every decision, every event, the counters and the latency. It is written from what the fabric
promises, stage by stage in the order of the data's way (:mod:`~sim.golden.feed`, :mod:`~sim.golden.book`,
:mod:`~sim.golden.quote`, :mod:`~sim.golden.gate`, :mod:`~sim.golden.session`, :mod:`~sim.golden.port`); cycle counts
that follow from the implementation stand in :mod:`~sim.golden.timing`.

It does not step through cycles. It visits those in which something arrives, those right after, and those for which
something was put down (an evaluation's stages, the port becoming idle, a dead-man running out), in order. A visit first
works out what the registers of that moment cause, then changes them, as a clock edge does.

Not modelled: a host that does not read its link (dropped segments, lost telemetry), registers that are read back, and
configuration of the feed's groups and ports changed while a frame passes.
"""

import heapq
import zlib
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field

from hdl.control import registers as map_
from hdl.control.bank import WEIGHED
from hdl.control.integrity import weigh_cycles
from hdl.control.registers import ACTIVE, ARM_MAGIC, DISARMED, HALT_CAUSES, HALTED, REDUCING
from hdl.gate import account, answers, drift, duplicates
from hdl.gate.holds import LIMITS, VOIDING
from hdl.gate.load import CHANGE_CYCLES
from hdl.layout import net, sbe
from hdl.order.responses import Kind
from sim.golden import feed, session
from sim.golden.account import Account
from sim.golden.ages import Ages
from sim.golden.answers import Answers, FillBurst, Learned, RefusalStorm, RepeatedExecution, judged, lots_of
from sim.golden.book import ACTIONS, BID, OFFER, RESET, SIZE_LIMIT, Book, price_ticks
from sim.golden.drift import Drift
from sim.golden.emission import Emission
from sim.golden.gate import Context, Reference
from sim.golden.life import QuoteLife
from sim.golden.load import Load, rooms
from sim.golden.port import OrderPort
from sim.golden.quote import DROPPED, HELD, MASS_CANCEL, PULLED, REPLACE, SENT, Params, State, evaluate, wrap
from sim.golden.timing import Timing

__all__ = ["Event", "GoldenModel", "Latency", "Record"]

_LINK = sbe.load("t2q_link")
_FLAG = {name: 1 << bit for name, bit in _LINK.sets["DecisionFlags"].items()}
_EVENT = _LINK.enums["EventCode"]
_FOREVER = 1 << 62
_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


@dataclass(slots=True)
class Record:
    """One decision, fields as in the link's Decision message (without its sequence number)."""

    outcome: int
    instrument: int
    flags: int
    state: int
    reasons: int
    quoteId: int
    triggerCycle: int
    fireCycle: int
    feedSeq: int
    bestBidTicks: int = 0
    bestAskTicks: int = 0
    bidTicks: int = 0
    askTicks: int = 0
    bidLots: int = 0
    askLots: int = 0
    candidateBidTicks: int = 0
    candidateAskTicks: int = 0
    positionLots: int = 0

    def as_dict(self):
        """Mapping of field names to values."""
        return asdict(self)


@dataclass(slots=True)
class Event:
    """One event: ``code`` as in the link's EventCode, by name, the ``cycle`` in which it was noticed, and ``data``: the
    state and from bit 8 on the halt causes (STATE_CHANGED), packets missing (GAP), last accepted sequence number
    (POISONED, CHANNEL_RESET), whether the peer did not acknowledge (SESSION_LOST), the state (ARM_REFUSED), the CRC of
    what was staged (COMMIT_REFUSED), otherwise 0."""

    code: str
    cycle: int
    data: int = 0


@dataclass(slots=True)
class Latency:
    """Trigger-to-quote of direct quotes, in cycles from pin to pin."""

    count: int = 0
    total: int = 0
    minimum: int = (1 << map_.LATENCY_BITS) - 1
    maximum: int = 0
    bins: Counter = field(default_factory=Counter)

    def add(self, cycles):
        """Take one measurement in."""
        self.count += 1
        self.total += cycles
        self.minimum, self.maximum = min(self.minimum, cycles), max(self.maximum, cycles)
        self.bins[min(cycles, map_.HISTOGRAM_BINS - 1)] += 1


class _Flight:
    """An evaluation between its start and its decision. One on a trigger byte is decided as it starts."""

    __slots__ = ("bests", "direct", "fresh", "instrument", "line_b", "start")

    def __init__(self, instrument, start, direct=False, line_b=False):
        self.instrument, self.start, self.direct, self.line_b = instrument, start, direct, line_b
        self.bests = self.fresh = None


class _Strobes:
    """What happens in one cycle from outside; see :meth:`GoldenModel._visit`. ``None`` (or absent) is nothing."""

    accept = applied = arm = blind = cancelled = clear_halt = cleared = commit = disarm = enabled = entry = None
    everything = foreign = frame_end = gap = hash_ok = heartbeat = identified = kill = leave = lost = poisoned = None
    pos_commit = post = publish = publish_entry = reduce = ref_commit = ref_cycles = release = repeated = None
    aged = equity_checked = limit = load_written = reset = revisit = started = stopped = torn = triggered = None
    untrusted = weighed = None


#: From the byte after the one that settles the line of a packet (its destination port's last) to its payload.
_PORT_TO_PAYLOAD = net.UDP.size - net.UDP["dst_port"].end
#: Registers of 64 bits that are written in halves, and all others that hold a value.
_PAIRS = {r.name[:-3] for r in map_.REGISTERS if r.name.endswith("_hi") and r.name[:-3] + "_lo" in map_.BY_NAME}
_LIMITS_OF_LOAD = {"gross_most", "leverage_most", "open_most"}
_BY_ADDRESS = {r.address: r for r in map_.REGISTERS}


class _Bucket:
    """Tokens that arrive on ticks of a common clock; brought up to date when looked at."""

    __slots__ = ("seen", "tokens")

    def __init__(self):
        self.tokens = self.seen = 0


class _Ticker:
    """A tick every ``interval`` cycles, counted from ``base``, the cycle in which counting was restarted."""

    __slots__ = ("base", "interval")

    def __init__(self):
        self.base = self.interval = 0

    def ticks_before(self, cycle):
        """Ticks in the cycles after ``base`` and before ``cycle``."""
        return (cycle - 1 - self.base) // self.interval if self.interval and cycle > self.base else 0

    def is_tick(self, cycle):
        return bool(self.interval) and cycle > self.base and (cycle - self.base) % self.interval == 0

    def next_from(self, cycle):
        """First tick in ``cycle`` or later."""
        if not self.interval:
            return _FOREVER
        steps = max(1, -(-(cycle - self.base) // self.interval))
        return self.base + steps * self.interval


class GoldenModel:
    """The fabric, as far as it can be seen from outside.

    Parameters
    ----------
    instruments : as in the gateware.
    depth : levels a side.
    timing : :class:`~sim.golden.timing.Timing`.

    Attributes
    ----------
    cycle : everything before this cycle is settled. Inputs must not be older.
    tx : list of :class:`~sim.golden.port.TxFrame`, in order.
    decisions : list of :class:`Record`.
    events : list of :class:`Event`.
    counters : mapping of counter register names (``hdl.control.registers``, access ``count``, and ``gap_packets``) to
        values; those of the link and of telemetry are not kept.
    latency : :class:`Latency`.
    books : list of :class:`~sim.golden.book.Book` by instrument number.
    host_frames, host_payloads : what the host is given by the order port: lists of (cycle, bytes).
    session_sent : list of (cycle, sequence number given to a SessionTx).
    state : trading state as in register ``state``.
    on_publish : ``None`` or a function called as ``on_publish(cycle, touched)`` at every end of event, with the set of
        instruments that it concerns, when the books stand as they are after it.
    """

    def __init__(self, instruments=16, depth=10, timing=None):
        self.timing = timing or Timing()
        self.instruments, self.depth = instruments, depth
        self.cycle = 0
        self.decisions, self.events, self.counters, self.latency = [], [], Counter(), Latency()
        self.host_frames, self.host_payloads, self.session_sent = [], [], []
        self.on_publish = None
        self._queue, self._order = [], 0

        # Registers.
        self._held = {}
        self._rw = {r.name: 0 for r in map_.REGISTERS if r.access == "rw"} | dict.fromkeys(_PAIRS, 0)
        self._security = [0] * instruments
        self._rows = [[Params() for _ in range(instruments)] for _ in range(2)]
        self._bank = 0
        self._bank_changed = -1
        self._staged, self._changed = {}, set()     # limits of the card: words, names written since the last commit
        self._said = False          # `limits_crc`, for the next command
        self._weighing = False      # a commit is under way
        self._committed = None      # CRC of the one that waits for its flip
        self.limits_hash = None     # of the limits in force
        self._time = (0, 0)         # (cycle, ns at that cycle)

        # Feed.
        self._arbiter = feed.Arbiter()
        self._last_seq = 0
        self._line = [(0, 0)]       # (cycle, line) of the latest packets of a line
        self.books = [Book(depth) for _ in range(instruments)]
        self._lookup = {}
        self._verify_free = 0       # verify-then-quote: first cycle in which the next frame may leave the buffer

        # Scheduler, one bit an instrument.
        self._all = (1 << instruments) - 1
        self._touched = self._pending = self._waiting = 0
        self._stale = self._all
        self._accepted = None       # cycle of the last accepted packet
        self._stale_check = _FOREVER
        self._claim = None          # instrument
        self._fouled = False        # what the evaluation goes by has changed meanwhile
        self._flight = None
        self._busy_to = -1          # last cycle that a decision's aftermath or the host's fetch takes
        self._last_busy = -3        # ... that a claim or a flight was seen in
        self._watched = (-1, None)  # (cycle up to which, instrument that is) decided on by one answer
        self._in_flight = (-1, -1)  # first and last cycle in which a quote is on its way that does not show as live
        #: Last cycle looked at: its strobes, what was eligible in it and before it, the claim.
        self._before = (-1, _Strobes(), 0, 0, None)
        self._settling = None
        self._settle_at = None
        self._committing = False
        self._clear = instruments   # first cycle in which all rows of positions are clear

        # Decision.
        self.states = [State() for _ in range(instruments)]
        self._live = 0
        self._hold = False
        self._quote_number = 0
        self._settle_words = None   # as the last pos_commit found them
        self.state, self.halt_cause, self.halt_nonce = DISARMED, 0, 0
        self._heartbeat = None      # (last value, cycle of the last one that counted)
        self._kill_pin = self._feed_lost = self._feed_was_lost = False
        self._session_ticks, self._symbol_ticks = _Ticker(), _Ticker()
        self._reference_ticks = _Ticker()
        self._references = [Reference()] * instruments
        self._reference_ages = Ages()
        self._drift, self._drifted = Drift(), deque()   # posts: (instrument, gate, bid, ask)
        self._life = QuoteLife(instruments)
        #: Sides of instruments that gates hold, bids and asks, by gate.
        self._held_by = {gate: [0, 0] for gate in LIMITS}
        self._answers = Answers(self._at, self._judge_answer, self._tell, self._distrust)
        self._told = None           # what positions learn of the exchange's answer, until it is their turn
        #: By instrument: orders of its last acknowledgement, last quote answered.
        self._orders = defaultdict(lambda: ((0, 0), 0))
        self._learns = False        # what is settled is that
        self._begins = False        # a session: what the exchange has said before says nothing to positions
        self._fills, self._repeats, self._refusals = FillBurst(), RepeatedExecution(), RefusalStorm()
        self._learned = deque()     # posts of these: (instrument, gate, bid, ask)
        self._released = 0          # instruments that the host lets go with their next visit
        self._visit_at = -1         # the next visit that is put down
        self._sent = []             # (cycle, instrument, prices and lots) of the last quotes, for G15
        self._to_hold = self._to_release = None     # instruments, until their turn has come
        self._emission, self._account = Emission(), Account()
        self._load, self._load_right = Load(instruments), -1    # the last cycle in which its limits are not right
        self._equity_ticks = _Ticker()
        self._last_tick = -1        # of a ticker that has been restarted since
        self._session_tokens, self._symbol_tokens = _Bucket(), [_Bucket() for _ in range(instruments)]
        self._sizes = {"session_burst": 0, "symbol_burst": 0}   # what they are cut to; registers say what fills them
        self._port = OrderPort(self.timing, self.counters)
        self._woken = 0             # when the port becomes idle, as already put down

    # ================================================================== inputs

    def _at(self, cycle, what, *arguments):
        if cycle < self.cycle:
            raise ValueError(f"{what.__name__.strip('_')} at cycle {cycle} comes too late: the model stands at cycle "
                             f"{self.cycle}")
        self._order += 1
        heapq.heappush(self._queue, (cycle, self._order, what, arguments))

    def _wake(self, cycle):
        if cycle < _FOREVER:
            self._at(cycle, self._nothing)

    def feed_frame(self, frame):
        """A frame (:class:`~sim.golden.feed.WireFrame`) on the feed port."""
        seen = frame.first + self.timing.rx_register
        self._at(seen, self._feed_headers, frame, seen)
        self._at(seen + len(frame.data), self._feed_end, frame)

    def order_frame(self, frame):
        """A frame on the order port's receive pins."""
        seen = frame.first + self.timing.rx_register
        if len(frame.data) > session.DECIDED_AT:
            established = []
            for place in (0, session.DECIDED_AT):
                self._at(seen + place, self._order_headers, established)
        else:
            established = [False]
        self._at(seen + len(frame.data) + self.timing.rx_verdict + self.timing.verdict, self._order_end, frame,
                 established)

    def write(self, cycle, address, data):
        """A register write that executes in ``cycle``."""
        self._at(cycle + self.timing.register, self._write, address, data)

    def host_packet(self, cycle, kind, data):
        """A host packet (kind 0: FrameTx, 1: SessionTx; ``data`` without link framing) is available to the port."""
        self._at(cycle, self._host_packet, kind, bytes(data))

    def link_frame(self, cycle, length):
        """A frame of the host link (``length`` bytes without padding and FCS) is available to the order port."""
        self._at(cycle, self._link_frame, length)

    def kill_pin(self, cycle, level):
        """The kill pin has ``level`` from ``cycle`` on."""
        self._at(cycle + self.timing.kill_pin, self._set_kill_pin, bool(level))

    def feed_lost(self, cycle, level):
        """The link or the clock of the feed port is gone (or back) from ``cycle`` on."""
        self._at(cycle, self._set_feed_lost, bool(level))

    # ================================================================== output

    @property
    def tx(self):
        """Frames on the order port's transmit pins so far."""
        return self._port.tx

    @property
    def session_up(self):
        """The fabric owns an established session."""
        return self._port.up

    @property
    def totals(self):
        """(open bids, open asks, all positions and open quotes) of all instruments, in 1/256 of the unit of money."""
        return self._load.totals(self.cycle)

    @property
    def rows(self):
        """The active parameter rows (:class:`~sim.golden.quote.Params`) by instrument number."""
        return self._rows[self._bank]

    def best(self, instrument):
        """((px_ticks, size) or None, same for the offer): what is known of the best prices."""
        book = self.books[instrument]
        return tuple((level[1], level[2]) if level[0] else None for level in (book.best_bid, book.best_ask))

    # ================================================================== time

    def advance(self, until):
        """Work through every cycle before ``until``, with the inputs known so far."""
        queue = self._queue
        while queue and queue[0][0] < until:
            cycle = queue[0][0]
            strobes = _Strobes()
            late = []
            while queue and queue[0][0] == cycle:
                _, _, what, arguments = heapq.heappop(queue)
                # What the outside does to plain registers shows from the next cycle on.
                later = what(cycle, strobes, *arguments)
                if later is not None:
                    late.append(later)
            self.cycle = cycle
            if self._visit(cycle, strobes, late):
                self._wake(cycle + 1)
        self.cycle = max(self.cycle, until)

    def _nothing(self, cycle, s):
        pass

    # ================================================================== what arrives

    def _feed_headers(self, cycle, s, frame, seen):
        """First byte of a feed frame. All that its headers decide is put down for its own cycle."""
        rw = self._rw
        good = feed.receive(frame)
        end = seen + len(frame.data) + self.timing.rx_verdict
        if rw["feed_mode"]:     # held back until its verdict is known
            if not good:
                return
            seen = max(seen + len(frame.data) + self.timing.rx_verdict + self.timing.verify, self._verify_free)
            end = seen + len(frame.data)
            self._verify_free = end + 2
        found = feed.match(frame.data, ((rw["line_a_ip"], rw["line_a_port"]), (rw["line_b_ip"], rw["line_b_port"])),
                           rw["vlan"])
        if found.verdict != "line":
            if good:
                self.counters["short_packets" if found.verdict == "empty" else found.verdict] += 1
            return
        available = len(frame.data) - found.payload
        if available <= 0:
            return
        whole = available >= found.length + 4   # the FCS stands behind the payload
        payload = frame.data[found.payload:found.payload + found.length]
        if good and not whole:
            self.counters["feed_bad_header"] += 1
        self.counters["line_b_packets" if found.line else "line_a_packets"] += 1
        self._line.append((seen + found.payload - _PORT_TO_PAYLOAD, found.line))
        end += self.timing.packet_end
        if len(payload) <= feed.SEQ_AT:
            self._at(end, self._short_packet)
            return
        first = seen + found.payload
        self._at(first + feed.SEQ_AT + self.timing.arbiter, self._sequence, payload, found.length, first, end,
                 good and whole)

    def _short_packet(self, cycle, s):
        self.counters["short_packets"] += 1

    def _feed_end(self, cycle, s, frame):
        self.counters["feed_frames"] += 1
        if not feed.receive(frame):
            self.counters["feed_bad_fcs"] += 1

    def _sequence(self, cycle, s, payload, length, first, end, good):
        seq = feed.sequence_number(payload)
        accepted, missing = self._arbiter.offer(seq)
        if not accepted:
            self.counters["duplicate_packets"] += 1
            return None
        s.accept = True
        self.counters["accepted_packets"] += 1
        gap_packets = self.counters["gap_packets"]
        if missing:
            s.gap = True
            self.counters["gaps"] += 1
            self.counters["gap_packets"] = min(_U32, self.counters["gap_packets"] + missing)
            self.events.append(Event("GAP", cycle, missing))
        happenings, malformed = feed.walk(payload, length)
        for at, kind, a, b in happenings:
            self._at(first + at, self._happening, kind, a, b)
        self._at(end, self._packet_end, malformed or not good, None if good else gap_packets)
        return lambda: setattr(self, "_last_seq", seq)

    def _happening(self, cycle, s, kind, a, b):
        counters = self.counters
        if kind == "message":
            counters["messages"] += 1
            counters["book_messages"] += a
        elif kind == "claim":
            s.identified = self._lookup.get(a & 0xFF_FFFF)
            if s.identified is not None and not self._is(s.identified, a):
                self._at(cycle + self.timing.foreign, self._foreign)
        elif kind == "entry":
            s.entry = b
        elif kind == "publish":
            counters["events"] += 1
            s.publish, s.publish_entry = True, a
        elif kind == "reset":
            counters["channel_resets"] += 1
            self.events.append(Event("CHANNEL_RESET", cycle, self._last_seq))
            s.reset = True

    def _is(self, instrument, security):
        return instrument < self.instruments and self._security[instrument] == security & _U32

    def _foreign(self, cycle, s):
        s.foreign = True

    def _packet_end(self, cycle, s, poisoned, taken_back):
        """``taken_back``: of a damaged packet, the number of missing packets before it."""
        s.frame_end = True
        if taken_back is not None:
            self._arbiter.take_back()
            self.counters["gap_packets"] = taken_back
        if poisoned:
            s.poisoned = True
            self.counters["poisoned_packets"] += 1
            self.events.append(Event("POISONED", cycle, self._last_seq))

    def _order_headers(self, cycle, s, established):
        established.append(self._port.owns(cycle))

    def _order_end(self, cycle, s, frame, established):
        segment = session.classify(frame.data, feed.receive(frame), self._port.connection, all(established))

        def settle():
            given, payload = self._port.verdict(cycle, segment)
            if given == "frame":
                self.host_frames.append((cycle, frame.data[:-4]))
            elif given == "payload":
                self.host_payloads.append((cycle, payload))
                self._answers.payload(cycle, payload)
            if segment.kind in ("segment", "closing"):
                self._wake(cycle + self.timing.room - self.timing.verdict)
        if self._port.closes(cycle, segment):
            s.lost = True
            self.events.append(Event("SESSION_LOST", cycle))
        return settle

    def _host_packet(self, cycle, s, kind, data):
        self._port.host.append((cycle, kind, data))

    def _link_frame(self, cycle, s, length):
        self._port.link.append((cycle, length))

    def _set_kill_pin(self, cycle, s, level):
        self._kill_pin = level

    def _set_feed_lost(self, cycle, s, level):
        self._feed_lost = level

    # ------------------------------------------------------------------ registers

    def _write(self, cycle, s, address, data):
        data &= _U32
        register = _BY_ADDRESS.get(address)
        weighed = address >= map_.PARAM_BASE or (register and (register.limit or register.name in WEIGHED))
        if self._weighing and weighed:
            self.counters["write_refused"] += 1
            return None
        if address >= map_.PARAM_BASE:
            return self._write_row(cycle, *divmod(address - map_.PARAM_BASE, map_.ROW_WORDS), data)
        if map_.SECURITY_ID_BASE <= address < map_.SECURITY_ID_BASE + 0x100:
            index = address - map_.SECURITY_ID_BASE
            if index >= self.instruments or self.state != DISARMED:
                self.counters["write_refused"] += 1
                return None
            return lambda: self._write_security(index, data)
        if register is None or register.access not in ("rw", "wo"):
            self.counters["write_refused"] += 1
            return None
        name = register.name
        if register.access == "wo":
            return self._command(cycle, s, name, data)
        if name.endswith("_lo") and name[:-3] in _PAIRS:
            self._held[name[:-3]] = data
            return None
        if name.endswith("_hi") and name[:-3] in _PAIRS:
            name, data = name[:-3], data << 32 | self._held.get(name[:-3], 0)
        else:
            data &= (1 << register.width) - 1
        if register.limit:
            return lambda: self._stage(name, data)
        if name == "limits_crc":
            self._said = True
        if name == "heartbeat":
            self._at(cycle + self.timing.heartbeat, self._beat, data)
        if name == "equity":
            s.load_written = True
        return lambda: self._hold_value(cycle, name, data)

    def _command(self, cycle, s, name, data):
        if name == "session_enable":
            s.enabled = True if data & 1 else None
            self._wake(cycle + self.timing.hand_over)
            if data & 1:
                self._answers.listens = False
                self._at(cycle + self.timing.listen, self._listen)
            return lambda: self._port.enable(cycle, data & 1, self._rw)
        if name == "pos_commit":
            if data & 0xFF < self.instruments:
                s.pos_commit = data
        elif name in ("ref_commit", "release"):
            if data & 0xFF < self.instruments:
                setattr(s, name, data & 0xFF)
        elif name == "commit":
            found, self._weighing = self._staged_crc(), True
            right, self._said = self._said and found == self._rw["limits_crc"], False
            self._at(cycle + weigh_cycles(self.instruments), self._verdict, right, found)
        elif name in ("arm", "clear_halt"):
            setattr(s, name, data)
            s.hash_ok, self._said = self._said and self._rw["limits_crc"] == self.limits_hash, False
        else:
            setattr(s, {"disarm": "disarm", "reduce": "reduce", "kill": "kill"}[name], True)
        return None

    # ------------------------------------------------------------------ G2

    def _stage(self, name, value):
        self._staged[name] = value
        self._changed.add(name)

    def _staged_crc(self):
        words = [map_.MAP_HASH, *(self._staged.get(r.name, 0) for r in map_.LIMITS)]
        for row in self._rows[1 - self._bank]:
            words += [getattr(row, p.name) & (1 << p.width) - 1 for p in map_.PARAMS]
        return zlib.crc32(b"".join(word.to_bytes(4, "little") for word in words))

    def _verdict(self, cycle, s, right, found):
        if right:
            s.commit, self._committed = True, found
            return None
        s.torn = True
        self.counters["commits_refused"] += 1
        self.events.append(Event("COMMIT_REFUSED", cycle, found))
        return lambda: setattr(self, "_weighing", False)

    def _apply_limits(self, cycle, s):
        """Two cycles after the flip: limits of the card, those that were written."""
        changed = [r.name for r in map_.LIMITS if r.name in self._changed]
        if "ref_cycles" in changed:
            s.ref_cycles = True
        if self._changed.intersection(VOIDING):
            s.limit = True
        if _LIMITS_OF_LOAD & self._changed:
            s.load_written = True

        def take():
            for name in changed:
                self._hold_value(cycle, name, self._staged[name])
            self._changed.clear()
            self.limits_hash, self._weighing = self._committed, False
        return take

    def _hold_value(self, cycle, name, value):
        """A register has its new value from ``cycle`` + 1 on; some are taken into another one first."""
        if name in ("session_burst", "symbol_burst", "deadman_cycles"):
            self._at(cycle + 1, self._take_value, name, value)
            return
        self._rw[name] = value
        if name == "local_mac" and not self._port.up:   # for the slow path; the rest counts at the hand-over
            self._port.connection.local_mac = value
        elif name == "time_ns":
            self._at(cycle + 1, self._set_time, value)
        elif name == "quote_id":
            self._at(cycle + 1, self._set_quote_id, value)
        elif name == "session_interval":
            self._at(cycle + 1, self._restart, self._session_ticks, value)
        elif name == "symbol_interval":
            self._at(cycle + 1, self._restart, self._symbol_ticks, value)
        elif name == "ref_cycles":
            self._at(cycle + 1, self._restart_simply, self._reference_ticks, value >> 1)
        elif name == "drift_cycles":
            self._drift.window(cycle + 2, value)
        elif name == "life_cycles":
            self._wake_ends(self._life.limit(cycle + 2, value))
        elif name == "equity":
            self._at(cycle + 1, self._told_equity)
        elif name == "equity_start":
            self._at(cycle + 1, self._begin_account)
        elif name == "fills_cycles":
            self._fills.rolling.window(cycle + 1, value)
        elif name == "refusals_cycles":
            self._refusals.rolling.window(cycle + 1, value)
        elif name == "freeze_cycles":
            self._wake_visits(cycle + 1)
        if name in ("equity_cycles", "loss_most", "drawdown_most"):
            self._at(cycle + 1, self._limit_account)
        if name == "equity_cycles":
            self._at(cycle + 1, self._restart_simply, self._equity_ticks, value >> 1)

    def _take_value(self, cycle, s, name, value):
        def take():
            if name == "deadman_cycles":
                self._rw[name] = value
                self._wake_deadman(cycle + 1)
            else:
                self._rw[name] = value
                self._at(cycle + 1, self._resize, name)
        return take

    def _resize(self, cycle, s, name):
        """A cycle after its new size counts the session's bucket is cut, its reserve moves; the others are empty."""
        self._look_at_tokens(cycle, None)

        def resize():
            if name == "symbol_burst" and self._sizes[name] != self._rw[name]:
                for bucket in self._symbol_tokens:
                    bucket.tokens, bucket.seen = 0, self._symbol_ticks.ticks_before(cycle + 1)
            self._sizes[name] = self._rw[name]
            self._at(cycle + 1, self._look_at_tokens)
        return resize

    def _beat(self, cycle, s, value):
        s.heartbeat = value

    def _set_time(self, cycle, s, value):
        return lambda: setattr(self, "_time", (cycle + 1, value))

    def _set_quote_id(self, cycle, s, value):
        return lambda: setattr(self, "_quote_number", value >> map_.INSTRUMENT_BITS)

    def _restart_simply(self, cycle, s, ticker, interval):
        def restart():
            ticker.base, ticker.interval = cycle, interval
            self._wake(ticker.next_from(cycle + 1))
        return restart

    def _told_equity(self, cycle, s):
        equity, start = (wrap(self._rw[name], 32) for name in ("equity", "equity_start"))
        verdict = self._account.check(equity, start, self._rw["loss_most"], self._rw["drawdown_most"])
        self._at(cycle + account.CHECK_CYCLES - 1, self._check_equity, verdict)

    def _check_equity(self, cycle, s, verdict):
        s.equity_checked = verdict

    def _begin_account(self, cycle, s):
        return lambda: self._account.begin(wrap(self._rw["equity_start"], 32))

    def _limit_account(self, cycle, s):
        return lambda: self._account.limit(self._rw["loss_most"], self._rw["drawdown_most"], self._rw["equity_cycles"])

    def _write_row(self, cycle, instrument, word, data):
        if instrument >= self.instruments or word >= len(map_.PARAMS):
            self.counters["write_refused"] += 1
            return None
        # Into the bank that is the shadow after this cycle, should the banks flip in it.
        return lambda: self._rows[1 - self._bank][instrument].write(word, data)

    def _write_security(self, index, data):
        self._security[index] = data
        # The first three bytes choose; of ids that agree in them, the numbers are ORed.
        self._lookup = {}
        for number, security in enumerate(self._security):
            if security:
                low = security & 0xFF_FFFF
                self._lookup[low] = self._lookup.get(low, 0) | number

    # ------------------------------------------------------------------ values that change by themselves

    def time_ns(self, cycle):
        """Wall time that a message started in ``cycle`` carries."""
        since, value = self._time
        return (value + 8 * (cycle - since)) & _U64

    def _tokens(self, bucket, ticker, burst, cycle):
        """Tokens as they show in ``cycle``."""
        ticks = ticker.ticks_before(cycle)
        bucket.tokens = min(burst, bucket.tokens + ticks - bucket.seen)
        bucket.seen = ticks
        return bucket.tokens

    def session_tokens(self, cycle):
        """Tokens in the session's bucket in ``cycle``."""
        return self._tokens(self._session_tokens, self._session_ticks, self._sizes["session_burst"], cycle)

    def _symbol(self, instrument, cycle):
        return self._tokens(self._symbol_tokens[instrument], self._symbol_ticks, self._sizes["symbol_burst"], cycle)

    def _deadman_ok(self, cycle):
        return self._heartbeat is not None and cycle - self._heartbeat[1] < self._rw["deadman_cycles"]

    def _wake_deadman(self, cycle):
        if self._heartbeat is not None:
            self._wake(max(cycle, self._heartbeat[1] + self._rw["deadman_cycles"]))

    def _stale_limit(self, instrument, cycle):
        # The sweep reads the limit three cycles ahead, in the bank that was active then.
        bank = 1 - self._bank if cycle <= self._bank_changed + 2 else self._bank
        return self._rows[bank][instrument].stale_cycles

    def _next_stale(self, cycle):
        """First cycle from ``cycle`` on in which an instrument is found stale, if no packet comes."""
        if self._accepted is None:
            return _FOREVER
        first = _FOREVER
        for i in range(self.instruments):
            if not self._stale >> i & 1:
                limit = self._stale_limit(i, cycle)
                if limit < _U32:
                    at = max(cycle, self._accepted + limit + 2)
                    first = min(first, at + (i - at + 2) % self.instruments)
        return first

    # ================================================================== one cycle

    def _visit(self, c, s, late):
        """One cycle: ``s`` are its strobes, ``late`` what becomes of plain registers at its end.

        Returns whether the next cycle has to be looked at too.
        """
        rw, port, counters, timing = self._rw, self._port, self.counters, self.timing
        n_all = self._all
        live = self._live
        trading = self.state in (ACTIVE, REDUCING)
        if port.visit(c):   # the peer does not acknowledge
            s.lost = True
            self.events.append(Event("SESSION_LOST", c, 1))
            late.append(lambda: port.end(c))
        ready = port.ready(c)
        claim, flight = self._claim, self._flight

        # What the feed did in the cycle before has its effect on books and scheduler in this one.
        seen, r, last_eligible, eligible_before, was_claimed = self._before
        eligible = self._pending & (~self._touched | (0 if trading else n_all))
        if seen != c - 1:
            r, last_eligible, eligible_before, was_claimed = _Strobes(), eligible, eligible, claim
        void = r.gap or r.reset or r.poisoned or r.blind
        if self._feed_lost and not self._feed_was_lost:
            s.blind = True      # nobody knows what the books are now
        self._feed_was_lost = self._feed_lost

        # -------------------------------------------------------------- entry of the claimed instrument
        kept = False
        if s.entry is not None:
            if claim is None:
                counters["foreign_entries"] += 1
            else:
                kept = self._apply(c, claim, s.entry)
        if kept:
            s.applied = claim
            if s.entry[-1] != RESET:
                self._busy_to = c + timing.book_update
        direct = claim is not None and kept and bool(s.publish_entry)

        # -------------------------------------------------------------- host actions wait for a gap in the claims
        idle = claim is None and flight is None and c > self._busy_to
        fetch = (self._settling is not None and idle and s.identified is None and s.pos_commit is None
                 and not s.enabled and c >= self._clear)
        settle_now = self._settle_at == c
        flip = self._committing and idle and s.identified is None and self._settling is None

        # -------------------------------------------------------------- background: asked in turn, a cycle ahead
        background = None
        asked = (c - 1) % self.instruments
        if (eligible_before >> asked & 1 and idle and c - max(self._busy_to, self._last_busy) > 2
                and s.identified is None and self._settling is None and not self._committing and ready
                and not self._hold):
            background = asked
        busy = not idle or bool(eligible_before and ready and not self._hold)

        # -------------------------------------------------------------- decisions
        stage = c - flight.start if flight is not None else 0
        squash = flight is not None and (claim is not None or void)
        due = flight is not None and stage == timing.decision and not squash
        if flight is not None and not squash and stage == timing.load:
            self._sample_book(flight)
            flight.fresh = not (self._stale | self._touched) >> flight.instrument & 1

        mismatch = self._emission.compare(c, port.tx)

        mass_cancel = self._hold and ready and self.session_tokens(c) > 0 and s.leave is None
        fired = None
        if due or direct:
            if direct:
                flight = _Flight(claim, c, True, self._line_at(c))
                self._sample_book(flight)
                flight.fresh = not self._stale >> claim & 1
                s.triggered = claim
            fired = self._decide(c, flight, ready and not self._hold and c >= self._clear and trading
                                 and self._deadman_ok(c) and not self._kill_pin and not self._fouled)
            self._busy_to = max(self._busy_to, timing.leave + c
                                + (timing.weigh_direct if direct else timing.weigh_background))
            if direct:
                self._watched = (c + timing.weigh_direct, claim)
        if mass_cancel:
            self._fire_mass_cancel(c)
            s.cancelled = True

        # -------------------------------------------------------------- other frames
        if not fired and not mass_cancel and not busy and (
                port.ack_pending or port.host or port.link or port.resends(c) or port.probes(c)):
            others = len(port.tx)
            app_seq = port.start_other(c, rw["last_processed"], self.time_ns(c))
            for frame in port.tx[others:]:
                self._emission.watch(frame)
            if app_seq is not None:
                self.session_sent.append((c, app_seq))
        if port.host and port.refuse(c):
            self.events.append(Event("SESSION_TX_REFUSED", c))

        # -------------------------------------------------------------- references and holds
        current = claim if claim is not None else flight.instrument if flight is not None else None
        referred = 0 if s.ref_commit is None else 1 << s.ref_commit
        reference_tick = self._reference_ticks.is_tick(c)
        outdated = self._reference_ages.outdated(reference_tick)
        disturbed = reference_tick or s.ref_cycles or (referred and s.ref_commit == current)
        if referred | outdated or s.ref_cycles:
            s.revisit = n_all if s.ref_cycles else referred | outdated
        if s.aged is not None:      # sides whose life ends
            ended = self._life.ends(c, s.aged)
            if ended:
                s.revisit = (s.revisit or 0) | 1 << s.aged
                disturbed = disturbed or s.aged == current
        if r.post is not None:
            instrument = r.post[0]
            s.revisit = (s.revisit or 0) | 1 << instrument
            disturbed = disturbed or instrument == current
        elif self._learned:
            s.post = self._learned[0]
        elif self._drifted:
            s.post = self._drifted[0]
        elif self._to_hold is not None:
            s.post = self._to_hold, 15, True, True
        elif self._to_release is not None:
            s.post = self._to_release, 15, False, False

        if s.load_written:
            self._load_right = c + CHANGE_CYCLES
            for later in range(c + 1, c + CHANGE_CYCLES + 1):
                self._wake(later)
        if c <= self._load_right:
            disturbed = True
        if self._account.changes or s.limit or c == self._load_right:
            s.everything = disturbed = True

        # ============================================================== the clock edge
        equity_tick = self._equity_ticks.is_tick(c)
        if equity_tick:
            self._wake(self._equity_ticks.next_from(c + 1))
        if r.post is not None:
            _, gate, *sides = r.post
            for side, holds in enumerate(sides):
                bits = self._held_by[gate][side]
                self._held_by[gate][side] = bits & ~(1 << instrument) | holds << instrument
        if s.post is not None:
            if self._learned:
                self._learned.popleft()
            elif self._drifted:
                self._drifted.popleft()
            elif s.post[2]:
                self._to_hold = None
            else:
                self._to_release = None
        if s.repeated is not None:
            self._to_hold = s.repeated
        if s.release is not None:
            self._to_release = s.release
            self._released |= 1 << s.release
            self._wake_visits(c)
        if referred:
            if rw["ref_value"]:
                self._at(c + drift.BAND_AT, self._judge_drift, s.ref_commit, rw["ref_value"], self._drift.number(c))
            self._references[s.ref_commit] = Reference(
                rw["ref_value"], rw["ref_local"], wrap(rw["ref_basis"], map_.TICK_BITS), rw["ref_lot_value"])
            self._load.tell(c, s.ref_commit, rw["ref_lot_value"])
        self._reference_ages.edge(reference_tick, referred)
        if reference_tick:
            self._wake(self._reference_ticks.next_from(c + 1))

        before = self._pending
        refill = self._session_ticks.is_tick(c) or self._symbol_ticks.is_tick(c)
        now_touched = self._touched | (1 << r.applied if r.applied is not None else 0)
        expired = self._expire(c, r.accept, was_claimed)
        done = 1 << r.started if r.started is not None else 0
        if r.triggered is not None and not (mass_cancel or r.cancelled):    # it went by what was live
            done = 1 << r.triggered
        again = 1 << self._flight.instrument if squash else 0
        waits = 0
        if s.weighed is not None:
            instrument, deferred, wait_tokens, decided = s.weighed
            arrived = wait_tokens and self._ticked(decided, c)
            again |= 1 << instrument if deferred or arrived else 0
            waits = 1 << instrument if wait_tokens and not arrived else 0

        state = self.state
        armed, stopped, cleared = self._edge_state(c, s, trading, mismatch)
        self._account.edge(equity_tick, s.equity_checked)
        reduced = state == ACTIVE and self.state == REDUCING
        if stopped:     # an attribute of its own means that something happened
            s.stopped = True

        pending = self._pending
        if r.publish:
            pending |= now_touched
        if r.accept:
            pending |= self._stale
        waiting = self._waiting | waits
        if refill:
            pending |= waiting
        pending |= expired & live
        if void or mass_cancel:
            pending |= live
        if settle_now:
            pending |= 1 << self._settling
        pending = pending & ~done | again | (r.revisit or 0)
        if r.everything:
            pending |= n_all
        if armed or reduced or flip:
            s.everything = True
        if cleared:
            s.cleared = True
        self._pending = pending
        if r.publish and self.on_publish is not None:
            self.on_publish(c - 1, {i for i in range(self.instruments) if now_touched >> i & 1})
        self._touched = 0 if r.publish or void else now_touched & ~(expired & live)
        self._waiting = 0 if refill else waiting & ~done

        if r.accept:
            was_stale = self._stale
            self._stale, self._accepted = 0, c
            if was_stale or self._stale_check == _FOREVER:
                self._stale_check = self._next_stale(c + 1)
                self._wake(self._stale_check)
        elif expired:
            self._stale |= expired
        if c >= self._stale_check or flip:
            self._stale_check = self._next_stale(c + 1)
            self._wake(self._stale_check)

        # -------------------------------------------------------------- claims and flights
        if claim is not None or self._flight is not None:
            self._last_busy = c
        if s.identified is not None:
            self._claim = s.identified
        elif claim is not None and (s.entry is not None or s.frame_end or s.foreign):
            self._claim = None
        if squash or due:
            self._flight = None
        if background is not None:
            s.started = background
            self._flight = _Flight(background, c)
            for later in (timing.load, timing.decision):
                self._wake(c + later)
        emitted = s.leave is not None and s.leave and self._in_flight[0] <= c <= self._in_flight[1]
        if s.identified is not None or background is not None:
            self._fouled = False
        elif mass_cancel or emitted or reduced or r.cleared or s.enabled or disturbed:
            self._fouled = True

        # -------------------------------------------------------------- host actions
        learn = (self._told is not None and self._settling is None and not self._begins and s.pos_commit is None
                 and not s.enabled)
        counted = False
        if settle_now and not self._learns:
            counted = self._settle(self._settling)
        elif self._told is not None and (settle_now or self._begins):
            if settle_now:
                st = self.states[self._settling]
                counted = self._told.of(st) and st.pos_valid
                self._look_live()
            self._told = None
            self._answers.settled(c)
        if settle_now:
            st = self.states[self._settling]
            if counted:
                self._load.settle(c, self._settling, st.position, st.settled_bid, st.settled_ask)
            self._settling = None
        if fetch:
            self._settle_at = self._busy_to = c + timing.settle
            self._wake(self._settle_at)
        elif self._settle_at is not None and (s.identified is not None or s.pos_commit is not None or s.enabled
                                              or c >= self._settle_at):
            self._settle_at = None
            self._busy_to = min(self._busy_to, c)
        if s.enabled:
            self._settling, self._begins = None, True
        if s.pos_commit is not None:
            self._settling, self._learns = s.pos_commit & 0xFF, False
            self._settle_words = (s.pos_commit, *(rw[f"pos_{what}"] for what in (
                "value", "settled_bid", "settled_ask", "quote_id", "next")))
        elif learn:
            self._settling, self._learns = self._told.instrument, True
        if flip:
            self._committing = False
            self._bank = 1 - self._bank
            self._bank_changed = c + 1
            self._at(c + 2, self._apply_limits)
        if s.commit:
            self._committing = True

        # -------------------------------------------------------------- mass cancel, voided books, tokens
        if (void or r.stopped) and (live or self._in_flight[0] <= c <= self._in_flight[1]):
            self._hold = True
        elif mass_cancel or s.enabled:
            self._hold = False
        if mass_cancel:
            for st in self.states:
                st.live_bid = st.live_ask = False
            self._live = 0
        if emitted:
            emits, _, bid, _, ask = self._last_quote
            self._repeats.quoted(emits, [n for n, lots in enumerate((bid, ask)) if lots])
            self._look_live()
            self._load.left(c, emits, self.states[emits].sent_bid, self.states[emits].sent_ask)
            self._remember(c)
            self._wake_ends(self._life.begin(c, emits, [side for side, some in zip(
                self._last_replaced, (bid, ask), strict=True) if side is not None and some]))
        if s.enabled:   # a new session: nothing was sent on it, nothing is known of it
            self.states = [State(pos_next=rw["init_peer_seq"] & _U32) for _ in self.states]
            self._live, self._in_flight = 0, (-1, -1)
            self._load.restart(c)
            self._clear = c + 1 + self.instruments
            self._wake(self._clear)
        if void:
            for book in self.books:
                book.clear()
        if r.cleared:
            for st in self.states:
                st.pos_valid, st.position = False, 0
        if armed:
            self._at(c + 1, self._filled)
        for settle in late:
            settle()

        if self._emission.at is not None:
            self._wake(self._emission.at)
        if port.free != self._woken:
            self._woken = port.free
            self._wake(port.free)
        by_itself = port.wakes(c)
        if by_itself is not None:
            self._wake(by_itself)
        if self._waiting or (self._hold and not self._session_tokens.tokens):
            self._wake(min(self._session_ticks.next_from(c + 1), self._symbol_ticks.next_from(c + 1)))
        self._before = c, s, eligible, last_eligible, claim
        return bool(late or fired or mass_cancel or due or squash or expired or stopped or self._pending != before
                    or self._told is not None or self._learned or self._drifted
                    or self._to_hold is not None or self._to_release is not None
                    or self._account.changes or s.__dict__ or self._can_start(c + 1))

    def _can_start(self, c):
        """Something that has waited could start in ``c`` without anything new arriving."""
        port = self._port
        if self._hold and port.ready(c) and self.session_tokens(c) > 0:
            return True     # whatever is claimed or under way
        if self._flight is not None or self._claim is not None:
            return False    # their ends are put down, or come with a byte
        if self._settling is not None or self._committing:
            return True
        if c < port.free:
            return False
        if port.ack_pending or port.resends(c) or port.probes(c):
            return True
        if (port.host and port.host[0][0] <= c and not port.up) or port.host_can_start(c):
            return True
        if port.link and port.link[0][0] <= c:
            return True
        if self._hold or not port.ready(c):
            return False
        trading = self.state in (ACTIVE, REDUCING)
        return bool(self._pending & (~self._touched | (0 if trading else self._all)))

    # ------------------------------------------------------------------ parts of a cycle

    def _apply(self, c, instrument, entry):
        """An entry of a configured instrument. Returns whether the book took it."""
        px, size, level, action, kind = entry
        if kind != RESET and (kind not in (BID, OFFER) or not 1 <= level <= self.depth or action not in ACTIONS):
            self.counters["ignored_entries"] += 1
            return False
        p = self._rows[self._bank][instrument]
        ticks, exact = price_ticks(px, p.feed_tick_shift, p.feed_tick_odd, p.feed_tick_inv)
        known = exact and 0 < size < SIZE_LIMIT
        self.counters["entries"] += 1
        if not known and kind != RESET:
            self.counters["px_errors"] += 1
        return self.books[instrument].apply(kind, action, level, ticks, size, known)

    def _sample_book(self, flight):
        book = self.books[flight.instrument]
        # What is unknown has no price: the fabric computes with 0, whatever its memory holds.
        flight.bests = tuple(level if level[0] else (False, 0, 0) for level in (book.best_bid, book.best_ask))

    def _decide(self, c, flight, can_send):
        """The decision of an evaluation. Returns whether a frame starts; the rest follows in its shadow."""
        i, timing = flight.instrument, self.timing
        p, st = self._rows[self._bank][i], self.states[i]
        tokens = self.session_tokens(c)
        killed = self.state == HALTED or self._kill_pin
        rw = self._rw
        is_referred = self._reference_ages.known >> i & 1 and rw["ref_cycles"] > 1
        context = Context(
            self.state, self._deadman_ok(c), killed, self._port.up, tokens, self._sizes["session_burst"],
            self._symbol(i, c), self._references[i] if is_referred else None,
            sum(other.live_bid + other.live_ask for n, other in enumerate(self.states) if n != i), rw["live_most"],
            *self._holding(i), self._account.fresh, self.limits_hash is not None, self._held_by[25][0] >> i & 1,
            *self._life.young_sides(i),
            rooms(self._load.totals(c - timing.rooms), rw["gross_most"], rw["open_most"], rw["leverage_most"],
                  wrap(rw["equity"], 32)))
        d = evaluate(p, st, *flight.bests, flight.fresh, context)
        is_new = d.outcome == SENT
        deferred = (d.emits and not can_send) or self._fouled
        no_token = d.emits and not is_new and tokens == 0
        emit = d.emits and can_send and not no_token
        wait_tokens = not deferred and (d.rate_blocked or no_token)
        record = None
        if not deferred and not no_token and (flight.direct or emit):
            record = self._record(c, flight, d, emit, st)
        weigh = c + (timing.weigh_direct if flight.direct else timing.weigh_background)
        self._at(weigh, self._weighed, (i, deferred, wait_tokens, c))
        self._at(weigh + timing.leave, self._leave, emit, i if is_new else None, record, deferred or no_token)
        if emit:
            self._in_flight = c + 1, weigh + timing.leave
            self._fire(c, i, d, flight)
        return emit

    def _holding(self, i):
        """Gates that hold the bid and the ask of an instrument, as reasons."""
        off = sum(1 << gate for gate, names in LIMITS.items() if not all(self._rw[name] for name in names))
        return [sum(1 << gate for gate, bits in self._held_by.items() if gate != 25 and bits[side] >> i & 1) | off
                for side in (0, 1)]

    def _weighed(self, cycle, s, outcome):
        s.weighed = outcome

    def _leave(self, cycle, s, emitted, spender, record, deferred):
        """What was decided shows: as live, as spent, to the host."""
        s.leave = emitted
        if deferred:
            self.counters["decisions_deferred"] += 1
        if record is not None:
            self.decisions.append(record)
            for bit in map_.GATE_COUNTERS:
                if record.reasons >> bit & 1:
                    self.counters[f"drop_{map_.GATES[bit][0].lower()}"] += 1
            if record.outcome in _OUTCOME_COUNTER:
                self.counters[_OUTCOME_COUNTER[record.outcome]] += 1
        if spender is not None and self._in_flight[1] == cycle:
            return lambda: self._spend(cycle, self._symbol_tokens[spender], self._symbol_ticks, "symbol_burst")
        return None

    def _started(self, cycle, s):
        return lambda: self._spend(cycle, self._session_tokens, self._session_ticks, "session_burst")

    def _spend(self, cycle, bucket, ticker, burst):
        """Take a token at the end of ``cycle``, in which one may arrive and the size may change too."""
        if bucket.seen != ticker.ticks_before(cycle):
            self._tokens(bucket, ticker, self._sizes[burst], cycle)
        bucket.tokens = max(0, bucket.tokens - 1)

    def _record(self, c, flight, d, emit, st):
        bid, ask = flight.bests
        flags = 0
        for name, value in (("direct", flight.direct), ("bidKnown", bid[0]), ("askKnown", ask[0]),
                            ("bidSideOk", d.bid_ok), ("askSideOk", d.ask_ok), ("lineB", flight.line_b),
                            ("bidCounted", emit and d.bid_lots), ("askCounted", emit and d.ask_lots)):
            flags |= _FLAG[name] if value else 0
        trigger = c - self.timing.rx_register if flight.direct else 0
        record = Record(d.outcome, flight.instrument, flags, self.state, d.reasons,
                        self._quote_id(flight.instrument) if emit else 0,
                        trigger, c, self._last_seq, bestBidTicks=bid[1], bestAskTicks=ask[1],
                        candidateBidTicks=wrap(d.candidate.bid_ticks, 32),
                        candidateAskTicks=wrap(d.candidate.ask_ticks, 32), positionLots=st.position)
        if emit:
            record.bidTicks, record.bidLots = d.bid_ticks, d.bid_lots
            record.askTicks, record.askLots = d.ask_ticks, d.ask_lots
        return record

    def _fire(self, c, i, d, flight):
        rw, port = self._rw, self._port
        p, st = self._rows[self._bank][i], self.states[i]
        quote_id = self._quote_id(i)
        message = session.quote_message(p, d, quote_id, port.fields, port.app_seq, rw["last_processed"],
                                        self.time_ns(c))
        port.start_message(c, message, "quote")
        if flight.direct:
            self.latency.add(port.tx[-1].cycle - (c - self.timing.rx_register))
        self._at(c + 1, self._started)
        # A side that is repeated counts again: the venue fills it up if part of it has traded meanwhile.
        st.sent_bid = st.sent_bid + d.bid_lots & _U32
        st.sent_ask = st.sent_ask + d.ask_lots & _U32
        st.live_bid, st.live_bid_ticks, st.live_bid_lots = d.bid_lots != 0, d.bid_ticks, d.bid_lots
        st.live_ask, st.live_ask_ticks, st.live_ask_lots = d.ask_lots != 0, d.ask_ticks, d.ask_lots
        st.last_quote_id = quote_id & _U32
        self._last_replaced = [side if action == REPLACE else None for side, action in enumerate((d.bid, d.ask))]
        self._last_quote = i, d.bid_ticks, d.bid_lots, d.ask_ticks, d.ask_lots
        self._quote_number += 1

    def _fire_mass_cancel(self, c):
        rw, port = self._rw, self._port
        quote_id = self._quote_id(map_.MASS_CANCEL_INSTRUMENT)
        self.decisions.append(Record(MASS_CANCEL, map_.MASS_CANCEL_INSTRUMENT, 0, self.state, 0, quote_id, 0, c,
                                     self._last_seq))
        self.counters["mass_cancels"] += 1
        message = session.cancel_message(quote_id, port.fields, port.app_seq, rw["last_processed"],
                                         self.time_ns(c))
        port.start_message(c, message, "mass_cancel")
        self._at(c + 1, self._started)
        self._quote_number += 1

    def _quote_id(self, instrument):
        """The id of a message that leaves now."""
        return (self._quote_number << map_.INSTRUMENT_BITS | instrument) & _U64

    def _remember(self, c):
        """G15: whether what has left was said too often is known after a while."""
        says = self._last_quote
        if says[2] or says[4]:
            self._sent = [*self._sent, (c, says)][-duplicates.REMEMBERED:]
            self._at(c + duplicates.ANSWER_CYCLES, self._judge, says, list(self._sent))

    def _judge(self, cycle, s, says, sent):
        now = sent[-1][0]
        equal = sum(its == says and now - at < self._rw["duplicate_cycles"] for at, its in sent)
        if equal >= self._rw["duplicate_most"]:
            s.repeated = says[0]

    # ------------------------------------------------------------------ G6b, G16

    def _judge_drift(self, cycle, s, i, value, number):
        """A reference that came in slot ``number`` is held against the band that counts now."""
        fails = self._drift.fails(i, value, number, self._rows[self._bank][i].drift_band)
        if fails != (i in self._drift.held):
            self._drift.held ^= {i}
            self._at(cycle + drift.ANSWER_CYCLES - drift.BAND_AT, self._learn_drift, (i, 25, fails, fails))

    def _learn_drift(self, cycle, s, post):
        self._drifted.append(post)

    def _wake_ends(self, ends):
        for cycle, i in ends:
            self._at(cycle, self._look_at_life, i)

    def _look_at_life(self, cycle, s, i):
        s.aged = i

    # ------------------------------------------------------------------ what the exchange answers

    def _listen(self, cycle, s):
        if self._answers.busy(cycle):
            self._at(cycle + 1, self._listen)
            return None

        def begin():
            self._begins = False
            self._answers.restart(cycle, self._rw["init_peer_seq"])
        return begin

    def _tell(self, cycle, s, learned):
        self._told = learned

    def _distrust(self, cycle, s):
        s.untrusted = True

    def _judge_answer(self, cycle, event):
        """(cycles that it takes, whether it is wrong, a list of what positions learn of it); what else becomes of it is
        put down."""
        rows = self._rows[self._bank]

        def instrument_id(i):
            return rows[i].instrument_id_hi << 32 | rows[i].instrument_id_lo if i < self.instruments else None

        i, wrong = judged(event, self._quote_number, instrument_id)
        if wrong:
            return 0, True, []
        takes, learned, count = 0, [], 0
        says = {"quote_id": event.id & _U32, "next": event.next}
        if event.kind == Kind.FILL:
            lots, takes = lots_of(event.mantissa, event.exponent, rows[i].lot_mult, rows[i].lot_exp)
            if lots is None:
                return takes, True, []
            self._at(cycle + takes + 1, self._learn_fill, i, event.side, lots)
            return takes + answers.LEARN_CYCLES, False, [Learned(i, True, event.side, lots, **says)]
        if event.kind == Kind.ACK:
            stands, less = (sum((status in those) << n for n, status in enumerate(event.status))
                            for those in (answers.WHOLE + answers.REDUCED, answers.WHOLE))
            learned.append(Learned(i, answered=3, stands=stands, less=3 - less, **says))
            self._orders[i] = event.orders, event.id & _U32
            takes, count = answers.KEEP_CYCLES, event.refused
        elif event.kind == Kind.REJECT and i is not None:
            learned.append(Learned(i, refused=3, **says))
            self._orders[i] = self._orders[i][0], event.id & _U32
            takes, count = answers.KEEP_CYCLES, 2
        elif event.kind == Kind.CANCELLED and i is not None:
            orders, quote_id = self._orders[i]
            gone = sum((order == event.orders[0]) << n for n, order in enumerate(orders))
            if gone:
                learned.append(Learned(i, answered=gone, less=gone, quote_id=quote_id, next=event.next))
        elif event.kind == Kind.MASS_CANCELLED and i is not None:
            learned += [Learned(k, earlier=True, answered=3, **says) for k in range(self.instruments)]
        if count:
            self._at(cycle + takes + 1, self._learn_refusals, i, count)
            takes += answers.LEARN_CYCLES
        return takes, False, learned

    def _learn_fill(self, cycle, s, i, side, lots):
        number = self._fills.rolling.number(cycle)
        repeats = self._repeats.fill(i, side, self._rw["repeats_most"])
        self._at(cycle + answers.LEARN_CYCLES, self._learnt_fill, i, side, lots, number, repeats)

    def _learnt_fill(self, cycle, s, i, side, lots, number, repeats):
        if self._fills.fill(number, cycle - 1, i, side, lots, self._rw):
            self._learned.append((i, 17, True, True))
        if repeats:
            self._learned.append((i, 18, *self._repeats_of(i)))
        self._wake_visits(cycle)

    def _learn_refusals(self, cycle, s, i, count):
        number = self._refusals.rolling.number(cycle)
        self._at(cycle + answers.LEARN_CYCLES, self._learnt_refusals, i, count, number)

    def _learnt_refusals(self, cycle, s, i, count, number):
        if self._refusals.refused(number, cycle - 1, i, count, self._rw):
            self._learned.append((i, 20, True, True))

    def _repeats_of(self, i):
        return [(i, side) in self._repeats.held for side in (0, 1)]

    def _wake_visits(self, c):
        """Visits matter only if something can come of them."""
        if self._visit_at <= c and (self._released or (self._rw["freeze_cycles"] and self._fills.held)):
            self._visit_at = (c // answers.VISIT_PERIOD + 1) * answers.VISIT_PERIOD
            self._at(self._visit_at, self._visit_one)

    def _visit_one(self, cycle, s):
        number = self._answers.visits(cycle)
        if number is not None:
            i = number % self.instruments
            self._at(cycle + 1, self._visited, i, bool(self._released >> i & 1))
            self._released &= ~(1 << i)
        self._wake_visits(cycle)

    def _visited(self, cycle, s, i, lets_go):
        posts = []
        if self._fills.visit(cycle, i, lets_go, self._rw["freeze_cycles"]):
            posts.append((i, 17, False, False))
        if lets_go and self._repeats.acknowledge(i):
            posts.append((i, 18, *self._repeats_of(i)))
        if self._refusals.visit(cycle, i, lets_go, 0):
            posts.append((i, 20, False, False))
        if posts:
            self._at(cycle + answers.VISIT_CYCLES, self._learnt, posts)

    def _learnt(self, cycle, s, posts):
        self._learned.extend(posts)

    def _line_at(self, c):
        """Line of the latest packet whose headers had passed before ``c``."""
        line = self._line
        while len(line) > 1 and line[1][0] <= c:
            line.pop(0)
        return line[0][1]

    def _look_live(self):
        self._live = sum(1 << i for i, st in enumerate(self.states) if st.live_bid or st.live_ask)

    def _expire(self, c, accept, was_claimed):
        """Staleness is looked at in one instrument a cycle, but not in one that was being decided on a cycle before."""
        i = (c - 2) % self.instruments
        watched = was_claimed == i or (c - 1 <= self._watched[0] and self._watched[1] == i)
        if accept or watched or self._accepted is None or self._stale >> i & 1:
            return 0
        return 1 << i if c - 1 - self._accepted > self._stale_limit(i, c) else 0

    def _edge_state(self, c, s, trading, mismatch):
        """Trading state. Returns (armed, stopped, cleared)."""
        causes = 0
        for name, cause in (("kill_register", s.kill), ("kill_pin", self._kill_pin),
                            ("deadman", trading and not self._deadman_ok(c)), ("session_lost", trading and s.lost),
                            ("feed_lost", trading and self._feed_lost), ("emission", mismatch),
                            ("answers", s.untrusted), ("loss", trading and self._account.lost),
                            ("integrity", trading and s.torn)):
            causes |= 1 << HALT_CAUSES[name] if cause else 0
        before, armed, stopped, cleared = self.state, False, False, False
        if causes:
            self.halt_cause |= causes
            stopped = trading
            if self.state != HALTED:
                self.halt_nonce = self.halt_nonce + 1 & _U32
            self.state = HALTED
        elif s.disarm and trading:
            self.state, stopped = DISARMED, True
        elif (s.reduce or self._account.warned) and self.state == ACTIVE:
            self.state = REDUCING
        elif s.clear_halt is not None and self.state == HALTED and s.clear_halt == self.halt_nonce and s.hash_ok:
            self.state, self.halt_cause, cleared = DISARMED, 0, True
        elif s.arm is not None:
            usable = (self._port.up and not s.lost and not self._feed_lost and not self._account.lost
                      and self._answers.listens)
            if self.state == DISARMED and usable and s.arm == ARM_MAGIC and s.hash_ok:
                self.state, armed = ACTIVE, True
            else:
                self.events.append(Event("ARM_REFUSED", c, before))
        if self.state != before:
            self.events.append(Event("STATE_CHANGED", c + 1, self.state | self.halt_cause << 8))
        if s.heartbeat is not None:
            last = self._heartbeat
            counts = last is None or s.heartbeat == last[0] + 1 & _U32
            self._heartbeat = (s.heartbeat, c if counts else last[1])
            if counts:
                self._wake_deadman(c + 1)
        return armed, stopped, cleared

    def _settle(self, instrument):
        """The host's word on a position takes effect. Whether it counts."""
        st = self.states[instrument]
        word, position, *settled, quote_id, next_ = self._settle_words
        counts = (next_ - st.pos_next) & _U32 < 1 << 31
        if counts:
            st.position = position - ((position & 0x8000_0000) << 1)
            st.settled_bid, st.settled_ask = settled
            st.pos_valid, st.pos_next, st.pos_told = True, next_, True
        else:
            self.counters["positions_late"] += 1
        if st.last_quote_id == quote_id:
            st.live_bid = st.live_bid and not word >> 8 & 1
            st.live_ask = st.live_ask and not word >> 9 & 1
        self._look_live()
        return counts

    def _filled(self, cycle, s):
        return lambda: self._fill(cycle)

    def _fill(self, c):
        for bucket, ticker, burst in self._buckets():
            bucket.tokens, bucket.seen = self._rw[burst], ticker.ticks_before(c + 1)

    def _buckets(self):
        yield self._session_tokens, self._session_ticks, "session_burst"
        for bucket in self._symbol_tokens:
            yield bucket, self._symbol_ticks, "symbol_burst"

    def _ticked(self, first, last):
        """Whether tokens came in one of these few cycles."""
        return self._last_tick >= first or any(
            ticker.is_tick(c) for c in range(first, last + 1) for ticker in (self._session_ticks, self._symbol_ticks))

    def _look_at_tokens(self, cycle, s):
        for bucket, ticker, burst in self._buckets():
            self._tokens(bucket, ticker, self._sizes[burst], cycle)

    def _restart(self, c, s, ticker, interval):
        """A new interval, counted from the end of ``c`` on."""
        return lambda: self._restart_now(c, ticker, interval)

    def _restart_now(self, c, ticker, interval):
        self._look_at_tokens(c, None)
        recent = range(c - self.timing.weigh_direct, c + 1)
        self._last_tick = max([self._last_tick, *(k for k in recent if ticker.is_tick(k))])
        for bucket, used, _ in self._buckets():
            if used is ticker:  # what arrives in this cycle is cut in the next: one may be spent in it, too
                bucket.tokens += ticker.ticks_before(c + 1) - bucket.seen
                bucket.seen = 0
        self._at(c + 1, self._look_at_tokens)
        ticker.base, ticker.interval = c, interval


_OUTCOME_COUNTER = {SENT: "quotes_sent", PULLED: "quotes_pulled", HELD: "decisions_held", DROPPED: "decisions_dropped"}

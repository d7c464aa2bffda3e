"""Market data of our own making: MDP 3.0 on two lines, in the statistics of a real channel.

The default numbers (mix of templates and actions, levels, entries a message, messages a packet, times between packets,
skew between the lines, activity of the instruments) are those of a CME channel of metal futures over a quarter of an
hour: 10,000 packets, every one on both lines, 39 instruments. The books behind the messages are whole: every entry
that is sent follows from a change of a book that lies deeper than the ten levels shown, so that a receiver that has
seen a side long enough knows it exactly, no best bid ever reaches a best offer, and sizes are positive.

The same seed gives the same bytes.

Templates that carry no book (status, statistics, volume, trades) are there for their sizes and event marks: their
groups have the exchange's block lengths and hold zeros.
"""

import random
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from hdl.layout import net, sbe
from sim.board.captures import CaptureWriter

__all__ = ["Config", "Instrument", "Line", "MarketGenerator", "book_message", "generate", "generate_pcap", "mantissas",
           "other_message", "packet", "udp_frame"]

_MDP3 = sbe.load("cme_mdp3")
_PACKET = _MDP3.composites["PacketHeader"]
_FRAMING = _MDP3.composites["MessageFraming"]
_HEADER = _MDP3.composites["messageHeader"]
_GROUP = _MDP3.composites["groupSize"]
_GROUP8 = _MDP3.composites["groupSize8Byte"]
_ACTION = _MDP3.enums["MDUpdateAction"]
_TYPE = _MDP3.enums["MDEntryTypeBook"]
_BIT = {name: 1 << bit for name, bit in _MDP3.sets["MatchEventIndicator"].items()}
NEW, CHANGE, DELETE = _ACTION["New"], _ACTION["Change"], _ACTION["Delete"]
DELETE_THRU, DELETE_FROM, OVERLAY = _ACTION["DeleteThru"], _ACTION["DeleteFrom"], _ACTION["Overlay"]
BID, OFFER, RESET = _TYPE["Bid"], _TYPE["Offer"], _TYPE["BookReset"]

DEPTH = 10  #: levels that the feed shows
_HIDDEN = 14  #: levels that a book keeps


class Line(NamedTuple):
    """One feed line: multicast group and source as numbers, UDP port."""

    group: int
    port: int
    source: int
    source_mac: int


def _ip(text):
    return int.from_bytes(bytes(int(part) for part in text.split(".")), "big")


LINE_A = Line(_ip("224.0.31.11"), 14320, _ip("198.51.100.11"), 0x02005E000A01)
LINE_B = Line(_ip("224.0.32.11"), 15320, _ip("198.51.100.12"), 0x02005E000B01)


@dataclass(frozen=True)
class Instrument:
    """One instrument of the generated channel.

    ``security_id``; ``tick``: price mantissa of a tick with exponent -7; ``mid_ticks``: where its book starts;
    ``weight``: its share of the traffic; ``lots``: typical size of a level.
    """

    security_id: int
    tick: int
    mid_ticks: int
    weight: int
    lots: int = 12


#: A channel of futures: a few instruments make most of the traffic, many hardly any.
INSTRUMENTS = tuple(Instrument(*row) for row in (
    (174969, 5_000_000, 15_148, 726, 40), (121269, 100_000_000, 5_106, 612), (84882, 10_000_000, 14_860, 572, 30),
    (48819, 10_000_000, 11_235, 478), (66849, 10_000_000, 14_706, 440), (83285, 50_000_000, 17_362, 374, 5),
    (175316, 5_000_000, 22_518, 371, 20), (71789, 10_000_000, 11_392, 363), (87229, 10_000_000, 7_685, 344),
    (88307, 10_000_000, 13_046, 314), (71373, 10_000_000, 7_284, 260), (74586, 100_000_000, 11_269, 191, 4),
    (80935, 1_000, 11_251, 151, 60), (174970, 5_000_000, 15_166, 143), (71801, 50_000_000, 19_278, 80),
    (175382, 5_000_000, 22_482, 68), (129875, 100_000_000, 5_067, 57), (70741, 20_000_000, 13_007, 55),
    (244620, 100_000_000, 11_304, 42), (110002, 10_000_000, 7_254, 35), (85198, 10_000_000, 10_517, 34),
    (71787, 10_000_000, 12_328, 24), (175376, 5_000_000, 22_707, 20), (38993, 50_000_000, 3_046, 17),
    (159266, 1_000, 7_560, 14), (174973, 5_000_000, 15_178, 11), (48641, 10_000_000, 11_680, 10),
    (4418, 100_000_000, -46, 9), (175693, 10_000_000, -50, 7), (175785, 5_000_000, 86, 6),
))

#: Time from one packet to the next: quantiles in ns; between them the logarithm is linear.
_GAP_QUANTILES = ((0.0, 320), (0.01, 3_400), (0.05, 6_900), (0.1, 8_300), (0.2, 11_100), (0.3, 18_000), (0.4, 55_000),
                  (0.5, 223_000), (0.6, 1_430_000), (0.7, 4_560_000), (0.8, 14_400_000), (0.9, 80_900_000),
                  (0.95, 223_000_000), (0.99, 4_120_000_000), (0.999, 29_900_000_000), (1.0, 30_000_000_000))
#: Arrival on line B minus arrival on line A: quantiles in ns, linear between them.
_SKEW_QUANTILES = ((0.0, -14_350), (0.01, -7_421), (0.05, -4_157), (0.25, -783), (0.5, -589), (0.75, -365),
                   (0.95, 1_266), (0.99, 1_683), (0.999, 3_308), (1.0, 5_030))

#: Packets by the templates that they carry, and how many of 5,000 there were. "book" stands for 32 or 46.
_PACKET_MIX = (
    (("book",), 4620), (("book", "statistics"), 157), (("trade",), 59), (("status",), 55), (("volume", "book"), 36),
    (("book", "book"), 23), (("volume", "book", "statistics"), 15), (("status", "status"), 13), (("heartbeat",), 6),
    (("status", "status", "status"), 5), (("book", "book", "book"), 4), (("volume", "book", "statistics", "status"), 3),
    (("statistics",), 1), (("trade", "volume", "book"), 1), (("volume", "book", "book"), 1),
    (("volume", "book", "book", "book", "book"), 1),
)
#: What happens to a book: weights. A new price that finds no room becomes a change, so that of 4,898 book messages some
#: 1,990 are changes, 1,550 new prices and 1,160 deletions, as in the channel.
_OPERATIONS = (("change", 1790), ("change two", 130), ("add", 1710), ("remove", 1160), ("move", 107), ("empty", 2))
#: Level at which a change, a new price or a deletion falls: weights of levels 1 to 10.
_LEVELS = {
    "change": (448, 304, 313, 215, 240, 187, 170, 135, 154, 119),
    "add": (506, 215, 294, 191, 152, 98, 68, 62, 48, 30),
    "remove": (444, 173, 253, 163, 96, 66, 29, 20, 12, 14),
}

#: Templates by role and schema version, with entry block length and entries (weights) of the groups they carry.
_OTHERS = {
    "statistics": {8: ("MDIncrementalRefreshSessionStatistics35", 24),
                   9: ("MDIncrementalRefreshSessionStatistics51", 24)},
    "volume": {8: ("MDIncrementalRefreshVolume37", 16), 9: ("MDIncrementalRefreshVolume37", 16)},
    "trade": {8: ("MDIncrementalRefreshTradeSummary42", 32), 9: ("MDIncrementalRefreshTradeSummary48", 32)},
    "status": {8: ("SecurityStatus30", 0), 9: ("SecurityStatus30", 0)},
    "heartbeat": {8: ("AdminHeartbeat12", 0), 9: ("AdminHeartbeat12", 0)},
}


@dataclass(frozen=True)
class Config:
    """What to generate.

    Attributes
    ----------
    seed : of all randomness.
    packets : sequence numbers to send; every one appears on both lines unless a fault says otherwise.
    version : schema version: 8 (template 32, prices with exponent -7) or 9 to 13 (template 46, exponent -9).
    instruments : :class:`Instrument` rows.
    lines : line A and line B; B may be ``None``.
    start_ns, first_seq : time stamp and sequence number of the first packet.
    warm_up : start by stating both sides of every book level by level (otherwise the session is joined in its middle,
        and levels become known as they change).
    gap : probability that a packet is lost on both lines. line_loss : that one line alone loses it.
    duplicate : that a line sends a packet once more.
    mixed : that a book message speaks of a second instrument too.
    split : that an event is spread over several book messages, of which only the last ends it.
    delete_thru, delete_from, overlay : that a book message carries such an action.
    book_reset : that a book message resets one instrument (type J), channel_reset : that a packet carries template 4.
    bad : that a frame of neither line's stream is put in: cut, foreign, fragment, options, wrong lengths, random bytes.
    """

    seed: int = 1
    packets: int = 5000
    version: int = 8
    instruments: tuple = INSTRUMENTS
    lines: tuple = (LINE_A, LINE_B)
    start_ns: int = 1_700_000_000_000_000_000
    first_seq: int = 17_000_000
    warm_up: bool = False
    gap: float = 0.0
    line_loss: float = 0.0
    duplicate: float = 0.0
    mixed: float = 0.0002
    split: float = 0.0
    delete_thru: float = 0.0
    delete_from: float = 0.0
    overlay: float = 0.0
    book_reset: float = 0.0
    channel_reset: float = 0.0
    bad: float = 0.0

    def __post_init__(self):
        if self.version != 8 and not 9 <= self.version <= 13:
            raise ValueError(f"version is {self.version}; schema versions 8 to 13 can be made")
        if not self.instruments:
            raise ValueError("instruments is empty; at least one is needed")
        if self.packets < 0:
            raise ValueError(f"packets is {self.packets}, must be 0 or more")
        for name in ("gap", "line_loss", "duplicate", "mixed", "split", "delete_thru", "delete_from", "overlay",
                     "book_reset", "channel_reset", "bad"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be a probability (0 to 1)")


class _Quantiles:
    def __init__(self, points, logarithmic):
        import math
        self.x = [q for q, _ in points]
        self.y = [math.log(v) if logarithmic else v for _, v in points]
        self.back = math.exp if logarithmic else float

    def draw(self, rng):
        u = rng.random()
        i = min(max(1, bisect_right(self.x, u)), len(self.x) - 1)
        share = (u - self.x[i - 1]) / (self.x[i] - self.x[i - 1])
        return round(self.back(self.y[i - 1] + share * (self.y[i] - self.y[i - 1])))


@dataclass
class _Side:
    """One side of a book: ``levels`` of [ticks, size], best first, deeper than what is shown."""

    sign: int   # -1: bids, prices fall with the level; +1: offers
    kind: int
    levels: list = field(default_factory=list)


class _BookState:
    """The whole book of one instrument, and the entries that follow from its changes."""

    def __init__(self, instrument, rng):
        self.instrument, self.rng, self.rpt_seq = instrument, rng, rng.randrange(1, 100_000)
        half = rng.choice((1, 1, 2))
        self.sides = [_Side(-1, BID), _Side(1, OFFER)]
        for side in self.sides:
            px = instrument.mid_ticks + side.sign * half
            for _ in range(_HIDDEN):
                side.levels.append([px, self._size()])
                px += side.sign * rng.choice((1, 1, 2, 3))

    def _size(self):
        return max(1, round(self.rng.expovariate(1 / self.instrument.lots)))

    def entry(self, side, level, action, px=None, size=None):
        self.rpt_seq += 1
        held = side.levels[level - 1] if px is None else (px, size)
        return (self.instrument, self.rpt_seq, side.kind, level, action, held[0], held[1])

    def _pick(self, name, limit):
        weights = _LEVELS[name][:limit]
        return self.rng.choices(range(1, len(weights) + 1), weights)[0]

    def change(self, side):
        level = self._pick("change", DEPTH)
        old = side.levels[level - 1][1]
        size = self._size()
        side.levels[level - 1][1] = size if size != old else size + 1
        return [self.entry(side, level, CHANGE)]

    def add(self, side):
        """A price appears between, before or behind those there are; ``None`` if there is no room for it."""
        other = self.sides[side is self.sides[0]]
        level = self._pick("add", DEPTH)
        for candidate in sorted(range(1, DEPTH + 1), key=lambda at: abs(at - level)):
            before = side.levels[candidate - 2][0] if candidate > 1 else other.levels[0][0]
            here = side.levels[candidate - 1][0]
            room = (here - before) * side.sign - 1
            if room > 0:
                # Next to what stands behind it, so that a wide spread closes step by step.
                px = here - side.sign if candidate == 1 else before + side.sign * self.rng.randint(1, room)
                side.levels.insert(candidate - 1, [px, self._size()])
                del side.levels[_HIDDEN:]
                return [self.entry(side, candidate, NEW)]
        return None

    def remove(self, side):
        level = self._pick("remove", DEPTH)
        gone = side.levels.pop(level - 1)
        out = [self.entry(side, level, DELETE, *gone)]
        self._deepen(side)
        out.append(self.entry(side, DEPTH, NEW))
        return out

    def _deepen(self, side):
        while len(side.levels) < _HIDDEN:
            side.levels.append([side.levels[-1][0] + side.sign * self.rng.choice((1, 1, 2, 3)), self._size()])

    def overlay(self, side):
        level = self._pick("change", DEPTH)
        side.levels[level - 1][1] = self._size()
        return [self.entry(side, level, OVERLAY)]

    def delete_from(self, side):
        """The deep end of a side is taken away and stated anew."""
        level = self._pick("change", DEPTH)
        out = [self.entry(side, level, DELETE_FROM)]
        return out + [self.entry(side, at, NEW) for at in range(level, DEPTH + 1)]

    def delete_thru(self, side):
        """The whole side is taken away and stated anew."""
        out = [self.entry(side, DEPTH, DELETE_THRU)]
        return out + [self.entry(side, at, NEW) for at in range(1, DEPTH + 1)]

    def reset(self):
        """The book is void; both sides are stated anew."""
        out = [self.entry(_Side(1, RESET), 1, NEW, 0, 0)]
        return out + [self.entry(side, at, NEW) for side in self.sides for at in range(1, DEPTH + 1)]

    def best(self):
        """(best bid, best offer), each (ticks, size)."""
        return tuple(self.sides[0].levels[0]), tuple(self.sides[1].levels[0])


class MarketGenerator:
    """Makes packets one at a time and keeps the books that they describe.

    Attributes
    ----------
    books : mapping of security id to an object whose ``best()`` gives the true ((bid ticks, size), (offer ticks,
        size)).
    """

    def __init__(self, config=None, **options):
        self.config = config = config or Config(**options)
        self.rng = random.Random(config.seed)
        self.books = {i.security_id: _BookState(i, self.rng) for i in config.instruments}
        self._states = list(self.books.values())
        self._weights = [i.weight for i in config.instruments]
        self._gaps, self._skews = _Quantiles(_GAP_QUANTILES, True), _Quantiles(_SKEW_QUANTILES, False)
        self._mix, self._mix_weights = zip(*_PACKET_MIX, strict=True)
        self._ops, self._op_weights = zip(*_OPERATIONS, strict=True)
        self._warm = [(state, side) for state in self._states for side in state.sides] if config.warm_up else []
        self.seq, self.time_ns, self._quiet_until = config.first_seq, config.start_ns, [0, 0]

    def frames(self):
        """Yield (time_ns, frame) in the order of arrival."""
        config, rng, held = self.config, self.rng, []
        for _ in range(config.packets):
            self.time_ns += self._gaps.draw(rng)
            payload = self._packet()
            if rng.random() >= config.gap:
                held += self._copies(payload)
            if config.bad and rng.random() < config.bad:
                held.append((self.time_ns + rng.randrange(1_000), self._bad(payload)))
            # Later packets cannot arrive before the earliest time that a copy of them could have.
            held.sort(key=lambda item: item[0])
            ripe = bisect_right(held, self.time_ns - 15_000, key=lambda item: item[0])
            yield from held[:ripe]
            del held[:ripe]
        yield from held

    def _copies(self, payload):
        """Both lines' copies; each line keeps its own order."""
        config, rng = self.config, self.rng
        skew = self._skews.draw(rng)
        times = (self.time_ns + max(0, -skew), self.time_ns + max(0, skew))
        lost = rng.randrange(2) if rng.random() < config.line_loss else None
        out = []
        for number, (line, time_ns) in enumerate(zip(config.lines, times, strict=True)):
            if line is None or number == lost:
                continue
            time_ns = max(time_ns, self._quiet_until[number])
            frame = udp_frame(line, payload)
            out.append((time_ns, frame))
            self._quiet_until[number] = time_ns + 1
            if rng.random() < config.duplicate:
                out.append((time_ns + 1, frame))
                self._quiet_until[number] = time_ns + 2
        return out

    def _packet(self):
        roles = self.rng.choices(self._mix, self._mix_weights)[0]
        messages = []
        if self._warm:
            messages.append(self._warm_up())
        else:
            if self.config.channel_reset and self.rng.random() < self.config.channel_reset:
                messages.append(_message(_MDP3["ChannelReset4"], self.config.version, self.time_ns,
                                         {"MatchEventIndicator": _BIT["EndOfEvent"]}))
            for position, role in enumerate(roles):
                last = position == len(roles) - 1
                messages += self._book(last) if role == "book" else [self._other(role, last)]
        self.seq += 1
        return packet(self.seq - 1, messages, self.time_ns)

    def _warm_up(self):
        state, side = self._warm.pop(0)
        entries = [state.entry(side, at, NEW) for at in range(1, DEPTH + 1)]
        return self._book_bytes(entries, _BIT["LastQuoteMsg"] | _BIT["EndOfEvent"])

    def _other(self, role, last):
        rng = self.rng
        count = fills = 1
        if _OTHERS[role][8][1]:
            count = rng.choices((1, 2, 3), (88, 10, 2))[0]
            if role == "trade":
                fills = rng.choices((2, 3, 4, 6, 13), (48, 6, 3, 2, 1))[0]
        return other_message(role, self.config.version, last and role in ("statistics", "status"), self.time_ns, count,
                             fills)

    def _book(self, last):
        """Book messages of one event: usually one."""
        config, rng = self.config, self.rng
        state = rng.choices(self._states, self._weights)[0]
        entries = self._event(state)
        if config.mixed and rng.random() < config.mixed:
            entries = entries + self._event(rng.choices(self._states, self._weights)[0])
        end = _BIT["LastQuoteMsg"] | (_BIT["EndOfEvent"] if last else 0)
        if config.split and rng.random() < config.split and len(entries) > 1:
            at = rng.randrange(1, len(entries))
            return [self._book_bytes(entries[:at], 0), self._book_bytes(entries[at:], end)]
        return [self._book_bytes(entries, end)]

    def _event(self, state):
        config, rng = self.config, self.rng
        side = rng.choice(state.sides)
        for name in ("delete_thru", "delete_from", "overlay"):
            if getattr(config, name) and rng.random() < getattr(config, name):
                return getattr(state, name)(side)
        if config.book_reset and rng.random() < config.book_reset:
            return state.reset()
        operation = rng.choices(self._ops, self._op_weights)[0]
        if operation == "empty":
            return []
        if operation == "change two":
            return state.change(side) + state.change(side)
        if operation == "move":     # one price goes, another comes, on the same side
            return state.remove(side) + (state.add(side) or [])
        if operation == "add":
            made = state.add(side)
            if made:
                return made
            operation = "change"
        if operation == "remove":
            made = state.remove(side)
            # Half of the time the exchange has no eleventh level to show: the receiver keeps an unknown tenth.
            return made if rng.random() < 0.5 else made[:1]
        return state.change(side)

    def _book_bytes(self, entries, indicator):
        return book_message(entries, indicator, self.config.version, self.time_ns)

    def _bad(self, payload):
        """A frame that must not change anything: not ours, or not right."""
        rng, line = self.rng, self.config.lines[0]
        kind = rng.choice(("foreign group", "foreign port", "fragment", "options", "header sum", "udp length", "random",
                           "arp"))
        if kind == "random":
            return rng.randbytes(rng.randrange(net.ETHERNET.size, 1514))
        if kind == "arp":
            return net.ETHERNET.pack(dst=net.MAC_BROADCAST, src=line.source_mac,
                                     ethertype=net.ETHERTYPE_ARP) + bytes(net.ARP.size)
        if kind == "foreign group":
            return udp_frame(line._replace(group=line.group ^ 0x40), payload)
        if kind == "foreign port":
            return udp_frame(line._replace(port=line.port ^ 0x40), payload)
        changes = {"fragment": {"flags_fragment": 0x2000}, "options": {"version_ihl": 0x46},
                   "header sum": {"checksum": rng.randrange(1, 0xFFFF)}, "udp length": {"udp_length": 7}}[kind]
        return udp_frame(line, payload, **changes)


def mantissas(tick, version):
    """Price mantissa of a tick in a schema version, from that with exponent -7."""
    return tick if version == 8 else tick * 100


def packet(seq, messages, time_ns):
    """Payload of a packet: its header and messages, sent 20 us before ``time_ns``."""
    return _PACKET.pack(MsgSeqNum=seq & 0xFFFF_FFFF, SendingTime=time_ns - 20_000) + b"".join(messages)


def _message(message, version, time_ns, values, tail=b""):
    if "TransactTime" in message.fields:
        values = {"TransactTime": time_ns - 25_000, **values}
    body = message.encode(values)[:message.block_length] + tail
    return _framed(message, version, body)


def _framed(message, version, body):
    header = _HEADER.pack(blockLength=message.block_length, templateId=message.id, schemaId=_MDP3.id, version=version)
    return _FRAMING.pack(MsgSize=_FRAMING.size + _HEADER.size + len(body)) + header + body


def other_message(role, version, ends_event, time_ns, count=1, fills=1):
    """A message that carries no book: ``role`` is ``statistics``, ``volume``, ``trade``, ``status`` or ``heartbeat``.

    ``ends_event``: it is the last of its event. ``count``: entries of its group, ``fills``: of a trade's second one.
    """
    name, entry = _OTHERS[role][8 if version == 8 else 9]
    message = _MDP3[name]
    if role == "heartbeat":
        return _message(message, version, time_ns, {})
    mark = {"statistics": _BIT["LastStatsMsg"], "volume": _BIT["LastVolumeMsg"], "trade": _BIT["LastTradeMsg"],
            "status": 0}[role]
    tail = b""
    if entry:
        tail = _GROUP.pack(blockLength=entry, numInGroup=count) + bytes(entry * count)
        if role == "trade":
            tail += _GROUP8.pack(blockLength=16, numInGroup=fills) + bytes(16 * fills)
    indicator = mark | (_BIT["EndOfEvent"] if ends_event else 0)
    return _message(message, version, time_ns, {"MatchEventIndicator": indicator}, tail)


def book_message(entries, indicator, version, time_ns, *, block_length=None, second_group=True):
    """A book message: template 32 in schema version 8, else 46.

    Parameters
    ----------
    entries : rows (:class:`Instrument`, RptSeq, MDEntryType, level, MDUpdateAction, price in ticks, size).
    indicator : MatchEventIndicator.
    block_length : bytes of an entry if not the schema's; what is beyond is cut off.
    second_group : with the (empty) group of order ids behind the entries.
    """
    message = _MDP3[f"MDIncrementalRefreshBook{32 if version == 8 else 46}"]
    rows = [{"MDEntryPx": px * mantissas(instrument.tick, version), "MDEntrySize": size,
             "SecurityID": instrument.security_id, "RptSeq": rpt_seq, "NumberOfOrders": 1 + size // 4,
             "MDPriceLevel": level, "MDUpdateAction": action, "MDEntryType": kind}
            for instrument, rpt_seq, kind, level, action, px, size in entries]
    values = {"TransactTime": time_ns - 25_000, "MatchEventIndicator": indicator}
    body = message.encode(values, {"NoMDEntries": rows})
    group = message.groups["NoMDEntries"]
    if block_length is not None:
        first = message.group_offset("NoMDEntries")
        cut = b"".join(body[at:at + block_length] for at in range(first, first + len(rows) * group.block_length,
                                                                  group.block_length))
        body = (body[:first - group.dimension.size]
                + group.dimension.pack(blockLength=block_length, numInGroup=len(rows)) + cut
                + body[first + len(rows) * group.block_length:])
    if not second_group:
        body = body[:message.group_offset("NoMDEntries") + len(rows) * (block_length or group.block_length)]
    return _framed(message, version, body)


def udp_frame(line, payload, *, udp_length=None, **header):
    """Ethernet frame (no FCS) with one UDP packet of a line. ``header``: IPv4 fields to be given other values."""
    length = net.UDP.size + len(payload)
    ip = {"version_ihl": net.IPV4_NO_OPTIONS, "total_length": net.IPV4.size + length,
          "flags_fragment": net.IPV4_DONT_FRAGMENT, "ttl": 20, "protocol": net.PROTOCOL_UDP, "src": line.source,
          "dst": line.group}
    wrong_sum = header.pop("checksum", 0)
    ip |= header
    ip["checksum"] = net.checksum(net.IPV4.pack(**ip)) ^ wrong_sum
    udp = {"src_port": line.port, "dst_port": line.port, "length": length if udp_length is None else udp_length}
    pseudo = net.PSEUDO.pack(src=line.source, dst=line.group, protocol=net.PROTOCOL_UDP, length=length)
    udp["checksum"] = net.checksum(pseudo + net.UDP.pack(**udp) + payload) or 0xFFFF
    return (net.ETHERNET.pack(dst=net.multicast_mac(line.group), src=line.source_mac, ethertype=net.ETHERTYPE_IPV4)
            + net.IPV4.pack(**ip) + net.UDP.pack(**udp) + payload)


def generate(seed=1, packets=5000, **options):
    """List of (time_ns, frame bytes without FCS) in the order of arrival. Options: see :class:`Config`."""
    return list(MarketGenerator(seed=seed, packets=packets, **options).frames())


def generate_pcap(path, seed=1, packets=5000, **options):
    """Write what :func:`generate` gives as a pcap with nanosecond stamps."""
    with CaptureWriter(path) as out:
        for time_ns, frame in generate(seed, packets, **options):
            out.write(time_ns, frame)

"""Figures off the pins: where the bytes that matter were in the frames of both ports, and when.

Nothing here asks the gateware how long it took. A frame's first cycle comes from the board's log of its pins, the place
of a byte in it from the layouts. Which byte caused which quote is the golden model's word, and it is checked: in the
cycle that it names, a trigger byte must have been on the feed's pins.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from hdl.layout import net, sbe
from sim.golden.quote import PULLED, SENT
from sim.report.model import CYCLE_NS

__all__ = ["CYCLE_NS", "FIGURES", "FIRST_PRICE_BYTE", "Ending", "FeedLog", "Figures", "Histogram", "endings",
           "quote_ids"]

_MDP3, _ORDERS = sbe.load("cme_mdp3"), sbe.load("starbase_orders")
_LINK = sbe.load("t2q_link")
_PACKET, _FRAMING = _MDP3.composites["PacketHeader"], _MDP3.composites["MessageFraming"]
_HEADER = _MDP3.composites["messageHeader"]
_BOOKS = tuple(_MDP3[name] for name in ("MDIncrementalRefreshBook32", "MDIncrementalRefreshBook46"))
_ENDS = sum(1 << _MDP3.sets["MatchEventIndicator"][name] for name in ("LastQuoteMsg", "EndOfEvent"))
_DIRECT = 1 << _LINK.sets["DecisionFlags"]["direct"]

_ORDER_HEADER = _ORDERS.composites["MessageHeader"]
_QUOTE = _ORDERS["MassQuoteRequest"]
_ENTRY = _QUOTE.groups["quotes"]
_BODY = net.ETHERNET.size + net.IPV4.size + net.TCP.size
_PREAMBLE = len(net.PREAMBLE)
#: Offset in a quote's frame, without preamble, of the first byte of a price.
FIRST_PRICE_BYTE = (_BODY + _ORDER_HEADER.size + _QUOTE.group_offset("quotes")
                    + min(_ENTRY["bidPrice"].offset, _ENTRY["askPrice"].offset))


class Ending(NamedTuple):
    """The byte of a feed frame with which an event ends. ``offset``: in the frame, without preamble. ``trigger``: it is
    MDEntryType of the last entry of a book message. ``template``: of the message. ``entries``: of its group."""

    offset: int
    trigger: bool
    template: int
    entries: int


def endings(frame):
    """Where events end in a frame of the feed; nothing in one that is no packet of it, or is malformed."""
    at = net.ETHERNET.size
    if len(frame) < at + net.VLAN.size:
        return []
    ethertype = net.ETHERNET.unpack(frame)["ethertype"]
    if ethertype == net.ETHERTYPE_VLAN:
        at += net.VLAN.size
        ethertype = int.from_bytes(frame[at - 2:at], "big")
    if ethertype != net.ETHERTYPE_IPV4 or len(frame) < at + net.IPV4.size + net.UDP.size:
        return []
    if net.IPV4.unpack(frame, at)["protocol"] != net.PROTOCOL_UDP:
        return []
    end = at + net.IPV4.size + net.UDP.unpack(frame, at + net.IPV4.size)["length"]
    at += net.IPV4.size + net.UDP.size + _PACKET.size
    out = []
    while at + _FRAMING.size + _HEADER.size <= min(end, len(frame)):
        size = _FRAMING.unpack(frame, at)["MsgSize"]
        header, root = _HEADER.unpack(frame, at + _FRAMING.size), at + _FRAMING.size + _HEADER.size
        if size < root - at or at + size > min(end, len(frame)):
            break
        message = _MDP3.by_id.get(header["templateId"]) if header["schemaId"] == _MDP3.id else None
        at += size
        if message is None or "MatchEventIndicator" not in message.fields:
            continue
        indicator = root + message["MatchEventIndicator"].offset
        if indicator >= at or not frame[indicator] & _ENDS:
            continue
        if message not in _BOOKS:
            out.append(Ending(indicator, False, message.id, 0))
            continue
        group = message.groups["NoMDEntries"]
        dimension = root + header["blockLength"]
        counts = group.dimension.unpack(frame, dimension)
        first, count = dimension + group.dimension.size, counts["numInGroup"]
        last = first + (count - 1) * counts["blockLength"] + group["MDEntryType"].offset
        out.append(Ending(last, True, message.id, count) if count else Ending(first - 1, False, message.id, 0))
    return out


class Byte(NamedTuple):
    """A byte that ended an event, on the pins: ``cycle``, ``frame`` (index), ``ending`` (:class:`Ending`)."""

    cycle: int
    frame: int
    ending: Ending


class FeedLog:
    """The feed port's receive pins.

    Parameters
    ----------
    frames : (cycle of the first preamble byte, bytes with FCS) as they were on the wire.

    Attributes
    ----------
    frames : as given. at : cycle -> :class:`Byte`.
    """

    def __init__(self, frames):
        self.frames = frames
        self.at = {}
        for n, (start, data) in enumerate(frames):
            for ending in endings(data):
                cycle = start + _PREAMBLE + ending.offset
                self.at[cycle] = Byte(cycle, n, ending)
        self.cycles = sorted(self.at)

    def last_before(self, cycle):
        """The latest :class:`Byte` in a cycle before this one, or ``None``."""
        n = bisect_right(self.cycles, cycle - 1)
        return self.at[self.cycles[n - 1]] if n else None

    def start(self, byte):
        """Cycle of the first preamble byte of the frame that holds it."""
        return self.frames[byte.frame][0]

    def last(self, byte):
        """Cycle of the last byte (of the FCS) of that frame."""
        start, data = self.frames[byte.frame]
        return start + _PREAMBLE + len(data) - 1


class Histogram:
    """Cycles -> how often."""

    def __init__(self, counts=()):
        self.counts = Counter(counts)

    def add(self, cycles):
        """Count one."""
        self.counts[cycles] += 1

    @property
    def count(self):
        return sum(self.counts.values())

    def summary(self):
        """{min, max, count}; the first two ``None`` if nothing was counted."""
        return {"min": min(self.counts, default=None), "max": max(self.counts, default=None), "count": self.count}

    def percentile(self, share):
        """The least value that at least ``share`` of all do not exceed."""
        seen = 0
        for cycles in sorted(self.counts):
            seen += self.counts[cycles]
            if seen >= share * self.count:
                return cycles
        return None


#: What is measured of a quote, by its name in the results.
FIGURES = {
    "trigger_to_quote_cycles": "trigger byte to first preamble byte of the quote",
    "tick_end_to_quote_start_cycles": "last byte of the tick's frame to first preamble byte of the quote",
    "tick_start_to_quote_start_cycles": "first preamble byte of the tick's frame to first preamble byte of the quote",
    "trigger_to_first_price_byte_cycles": "trigger byte to first byte of a price in the quote",
    "trigger_to_last_bit_cycles": "trigger byte to last byte of the quote's FCS",
}


@dataclass
class Figures:
    """A :class:`Histogram` for each of :data:`FIGURES`."""

    of: dict = field(default_factory=lambda: {name: Histogram() for name in FIGURES})

    def add(self, log, byte, frame):
        """Take in a quote: ``byte`` of the feed ended the event, ``frame`` (:class:`sim.board.board.TxFrame`) left."""
        since = frame.start - byte.cycle
        for name, cycles in (
                ("trigger_to_quote_cycles", since),
                ("tick_end_to_quote_start_cycles", frame.start - log.last(byte)),
                ("tick_start_to_quote_start_cycles", frame.start - log.start(byte)),
                ("trigger_to_first_price_byte_cycles", since + _PREAMBLE + FIRST_PRICE_BYTE),
                ("trigger_to_last_bit_cycles", since + _PREAMBLE + len(frame.data) - 1)):
            self.of[name].add(cycles)

    def merge(self, other):
        """Take in all that another one has counted."""
        for name, histogram in other.of.items():
            self.of[name].counts.update(histogram.counts)

    def summary(self):
        """Figure -> {min, max, count}."""
        return {name: histogram.summary() for name, histogram in self.of.items()}


def is_direct(decision):
    """It was caused by a trigger byte, in the cycle in which that was seen."""
    return bool(decision.flags & _DIRECT)


def quote_ids(frames):
    """QuoteId -> frame, of the mass quotes among the order port's frames."""
    out = {}
    for frame in frames:
        data = frame.frame
        if len(data) >= _BODY + _ORDER_HEADER.size + _QUOTE.block_length \
                and net.ETHERNET.unpack(data)["ethertype"] == net.ETHERTYPE_IPV4 \
                and _ORDER_HEADER.unpack(data, _BODY)["messageTypeId"] == _QUOTE.id:
            out[_QUOTE["quoteId"].unpack(data, _BODY + _ORDER_HEADER.size)] = frame
    return out


def quotes(log, sent, decisions):
    """Every quote with its cause: list of (decision, frame, :class:`Byte` or ``None``), and what is wrong, in words.

    The byte of a direct quote is the one in its trigger cycle; of one in the background there is none.
    """
    by_id, out, wrong = quote_ids(sent), [], []
    for d in decisions:
        if d.outcome not in (SENT, PULLED):
            continue
        frame = by_id.get(d.quoteId)
        byte = log.at.get(d.triggerCycle) if is_direct(d) else None
        if frame is None:
            wrong.append(f"quote {d.quoteId} of instrument {d.instrument} is not on the wire")
        elif is_direct(d) and (byte is None or not byte.ending.trigger):
            wrong.append(f"quote {d.quoteId} claims a trigger byte in cycle {d.triggerCycle}; none was on the pins")
        else:
            out.append((d, frame, byte))
    return out, wrong

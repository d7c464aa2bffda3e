"""The market's side of the cases: books that are known to the last level, and packets that change them in every way.

Every packet keeps account of what it publishes, so that the content of a quote can be held against the newest state.
"""

import random
from dataclasses import dataclass, field

from hdl.layout import net, sbe
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B, book_message, other_message, packet, udp_frame

__all__ = ["BID", "KINDS", "OFFER", "SIDES", "Market", "Moves", "Packet", "Step", "arrange", "line_rate",
           "trigger_kinds"]

_MDP3 = sbe.load("cme_mdp3")
_ACTION, _TYPE = _MDP3.enums["MDUpdateAction"], _MDP3.enums["MDEntryTypeBook"]
_BIT = {name: 1 << bit for name, bit in _MDP3.sets["MatchEventIndicator"].items()}
BID, OFFER, RESET = _TYPE["Bid"], _TYPE["Offer"], _TYPE["BookReset"]
NEW, CHANGE, DELETE, OVERLAY = (_ACTION[name] for name in ("New", "Change", "Delete", "Overlay"))
DELETE_THRU, DELETE_FROM = _ACTION["DeleteThru"], _ACTION["DeleteFrom"]
#: End of event, mark by mark: none, the last book message, the last message at all, both.
OPEN, LAST_QUOTE, END, BOTH = 0, _BIT["LastQuoteMsg"], _BIT["EndOfEvent"], _BIT["LastQuoteMsg"] | _BIT["EndOfEvent"]

SIDES = {"bid": BID, "offer": OFFER}
#: Bytes of an entry as far as its last field.
MIN_ENTRY = max(f.end for f in _MDP3["MDIncrementalRefreshBook46"].groups["NoMDEntries"].fields.values())
DEPTH = 10
GROUP = 12          #: entries of a long group
_SPACING = 4        # ticks from level to level: a top that moves by one level moves the reference by two ticks
_HALF = 20          # ticks from the middle to a first level
_EMPTY = object()


@dataclass
class Packet:
    """``payload`` of a UDP packet. ``published``: for each end of event in it, instrument -> (best bid, best offer) in
    ticks, ``None`` where unknown, of the instruments that the event has changed."""

    payload: bytes
    published: list


class Market:
    """Books of the first instruments of the generator, and messages that change them.

    Parameters
    ----------
    version : schema version: 8 (template 32), 9 and above (template 46). seed : of sizes and fillers.
    instruments : how many.

    Attributes
    ----------
    rng : the source of all randomness. instruments : the rows.
    """

    def __init__(self, version=8, seed=1, instruments=16):
        self.version, self.rng = version, random.Random(seed)
        self.instruments = INSTRUMENTS[:instruments]
        self._foreign = INSTRUMENTS[instruments:]
        self._books = [{side: [None] * DEPTH for side in SIDES.values()} for _ in self.instruments]
        self._seq, self._reports, self._time_ns = 17_000_000, 0, 1_700_000_000_000_000_000
        self._touched, self._published = set(), []

    # -- entries --------------------------------------------------------------------------------------------------
    def home(self, i, side, level):
        """Price of a level of an instrument when nothing has happened."""
        sign = -1 if side == BID else 1
        return self.instruments[i].mid_ticks + sign * (_HALF + _SPACING * (level - 1))

    def better(self, i, side, steps=1):
        """A price so many levels better than the best at home; four of them at most."""
        return self.home(i, side, 1 - steps)

    def entry(self, i, side, level, action, px=_EMPTY):
        """An entry; the book follows it. ``px``: in ticks, at home by default."""
        px = self.home(i, side, level) if px is _EMPTY else px
        book = self._books[i]
        if side == RESET:
            for levels in book.values():
                levels[:] = [None] * DEPTH
        else:
            levels, at = book[side], level - 1
            if action == NEW:
                levels.insert(at, px)
                del levels[DEPTH:]
            elif action in (CHANGE, OVERLAY):
                levels[at] = px
            elif action == DELETE:
                del levels[at]
                levels.append(None)
            elif action == DELETE_FROM:
                levels[at:] = [None] * (DEPTH - at)
            else:
                levels[:] = [None] * DEPTH
        self._touched.add(i)
        return self._row(self.instruments[i], side, level, action, px)

    def _row(self, instrument, side, level, action, px):
        self._reports += 1
        return (instrument, self._reports, side, level, action, px, self.rng.randrange(1, 500))

    def side(self, i, side, first=1):
        """Entries that state a side from a level on."""
        return [self.entry(i, side, level, NEW) for level in range(first, DEPTH + 1)]

    def deep(self, i, side=None):
        """A change of size, deep in the book."""
        side = self.rng.choice(tuple(SIDES.values())) if side is None else side
        level = self.rng.randrange(5, DEPTH)
        return self.entry(i, side, level, CHANGE, self._books[i][side][level - 1] or self.home(i, side, level))

    def filler(self, i, foreign=False):
        """An entry that changes no quote, of another instrument than ``i``; ``foreign``: one that is not configured."""
        if foreign:
            return self._row(self.rng.choice(self._foreign), BID, self.rng.randrange(1, DEPTH + 1), CHANGE, 1000)
        return self.deep(self.rng.choice([n for n in range(len(self.instruments)) if n != i]))

    def fillers(self, i, count):
        """``count`` of them, of any instruments."""
        return [self.filler(i, self.rng.random() < 0.3) for _ in range(count)]

    # -- messages and packets -------------------------------------------------------------------------------------
    def book(self, entries, mark=BOTH, **options):
        """A book message; ``mark`` is its MatchEventIndicator, options as for
        :func:`sim.market.generator.book_message`."""
        self._publish(mark)
        return book_message(entries, mark, self.version, self._time_ns, **options)

    def other(self, role, ends=False):
        """A message without a book."""
        self._publish(END if ends else OPEN)
        return other_message(role, self.version, ends, self._time_ns)

    def _publish(self, mark):
        if mark & BOTH:
            self._published.append({i: tuple(self._books[i][side][0] for side in (BID, OFFER)) for i in self._touched})
            self._touched = set()

    def packet(self, *messages):
        """The next packet of the channel."""
        self._time_ns += 10_000
        self._seq += 1
        published, self._published = self._published, []
        return Packet(packet(self._seq, messages, self._time_ns), published)

    def warm_up(self):
        """Packets that state every book, a side each."""
        return [self.packet(self.book(self.side(i, side))) for i in range(len(self.instruments))
                for side in SIDES.values()]


@dataclass
class Step:
    """Packets of which the last one ends an event, and what is to follow.

    ``kind``, ``side`` (``""`` for both): what it is. ``how``: ``"direct"``: one quote, caused by the trigger byte;
    ``"background"``: one quote, evaluated when the event has ended without one; ``"none"``: no quote.
    """

    kind: str
    side: str
    how: str
    packets: list = field(default_factory=list)


#: Kinds of :func:`trigger_kinds`: what the entry does to the first level, and where in its message it stands.
_ACTIONS = {"new": (NEW, DELETE, "delete"), "change": (CHANGE, CHANGE, "change"),
            "overlay": (OVERLAY, OVERLAY, "overlay")}
_PLACES = {
    "": "direct", f", last of {GROUP} entries": "direct",
    f", first of {GROUP} entries, the last of another instrument": "background",
    f", first of {GROUP} entries, the last of an instrument that is not quoted": "background",
    f", middle of {GROUP} entries": "background",
}
_ENTRY_KINDS = {f"{action}{place}": how for action in ("new", "change", "delete", "overlay")
                for place, how in _PLACES.items()}
_MESSAGES = {
    "event in two messages of a packet": "direct",
    "event of two packets, the last entry deep in the book": "direct",
    "volume, book and statistics in a packet": "direct",
    "behind another instrument's event in the packet": "direct",
    "behind its own event in the packet": "direct",
    "event ended by a message without book": "background",
    "event of two packets, ended by a message without book": "background",
    "event of two packets, ended by a book message without entries": "background",
}
#: Kind -> how its quote comes about. All that :func:`trigger_kinds` has.
KINDS = _ENTRY_KINDS | {
    f"first and last of {GROUP} entries": "direct",
    "delete from the first level: withdrawn": "direct", "delete from the second level, the first changed": "direct",
    "delete thru: withdrawn": "direct", f"a side stated anew, last of {DEPTH} entries": "direct",
    "book reset: withdrawn": "direct", f"book reset, last of {GROUP} entries: withdrawn": "direct",
    f"both sides stated anew, last of {2 * DEPTH} entries": "direct",
} | _MESSAGES | {"change of size alone: nothing to send": "none"}


def trigger_kinds(market):
    """Steps of every kind once, on both sides, each on an instrument taken at random; the books are as before then."""
    pick = random.Random(market.rng.random())

    def instrument():
        return pick.randrange(len(market.instruments))

    for name, side in SIDES.items():
        def one(kind, *packets, name=name):
            return Step(kind, name, KINDS[kind], list(packets))

        for action, (there, back, back_name) in _ACTIONS.items():
            for place in _PLACES:
                i = instrument()
                for what, kind, px in ((there, action, market.better(i, side)), (back, back_name, _EMPTY)):
                    entry = market.entry(i, side, 1, what, px)
                    yield one(kind + place, market.packet(market.book(_place(market, i, place, entry))))
        i = instrument()
        for there in (True, False):
            first = market.entry(i, side, 1, *((NEW, market.better(i, side)) if there else (DELETE,)))
            middle = market.fillers(i, GROUP - 2)
            yield one(f"first and last of {GROUP} entries",
                      market.packet(market.book([first, *middle, market.deep(i, side)])))

        i = instrument()
        for kind, entries in _forgotten(market, i, side):
            yield one(kind, market.packet(market.book(entries)))

        for kind in _MESSAGES:
            i = instrument()
            for there in (True, False):
                yield one(kind, *_messages(market, kind, i, side, there))
        i = instrument()
        yield one("change of size alone: nothing to send",
                  market.packet(market.book([market.entry(i, side, 1, CHANGE)])))

    for kind in ("book reset: withdrawn", f"book reset, last of {GROUP} entries: withdrawn"):
        i = instrument()
        before = market.fillers(i, GROUP - 1) if "last of" in kind else []
        yield Step(kind, "", KINDS[kind], [market.packet(market.book([*before, market.entry(i, RESET, 1, NEW, 0)]))])
        kind = f"both sides stated anew, last of {2 * DEPTH} entries"
        yield Step(kind, "", KINDS[kind], [market.packet(market.book(market.side(i, BID) + market.side(i, OFFER)))])


def _forgotten(market, i, side):
    """(kind, entries) of messages that make a side unknown and state it again."""
    again = f"a side stated anew, last of {DEPTH} entries"
    yield "delete from the first level: withdrawn", [market.entry(i, side, 1, DELETE_FROM)]
    yield again, market.side(i, side)
    yield "delete from the second level, the first changed", [
        market.entry(i, side, 1, CHANGE, market.better(i, side)), market.entry(i, side, 2, DELETE_FROM)]
    yield again, [market.entry(i, side, 1, CHANGE), *market.side(i, side, 2)]
    yield "delete thru: withdrawn", [market.entry(i, side, DEPTH, DELETE_THRU)]
    yield again, market.side(i, side)


def _place(market, i, place, entry):
    """The entries of a message with this one of instrument ``i`` in its place."""
    if not place:
        return [entry]
    if place.startswith(", last"):
        return [*market.fillers(i, GROUP - 1), entry]
    if place.startswith(", middle"):
        half = GROUP // 2
        return [*market.fillers(i, half), entry, *market.fillers(i, GROUP - 1 - half)]
    last = market.filler(i, foreign=place.endswith("not quoted"))
    return [entry, *market.fillers(i, GROUP - 2), last]


def _messages(market, kind, i, side, there):
    """Packets of an event of several messages. ``there``: the first level gets better, else it is as before again."""
    def moves():
        return market.entry(i, side, 1, *((NEW, market.better(i, side)) if there else (DELETE,)))

    book, packet = market.book, market.packet
    match kind:
        case "event in two messages of a packet":
            return [packet(book([moves()], OPEN), book([market.deep(i)]))]
        case "event of two packets, the last entry deep in the book":
            return [packet(book([moves()], OPEN)), packet(book([market.deep(i)]))]
        case "volume, book and statistics in a packet":
            return [packet(market.other("volume"), book([moves()], LAST_QUOTE), market.other("statistics", True))]
        case "behind another instrument's event in the packet":
            return [packet(book([market.filler(i)]), book([moves()]))]
        case "behind its own event in the packet":
            return [packet(book([market.deep(i)]), book([moves()]))]
        case "event ended by a message without book":
            return [packet(book([moves()], OPEN), market.other("statistics", True))]
        case "event of two packets, ended by a message without book":
            return [packet(book([moves()], OPEN)), packet(market.other("statistics", True))]
        case "event of two packets, ended by a book message without entries":
            return [packet(book([moves()], OPEN)), packet(book([]))]
    raise ValueError(kind)


def line_rate(market, events, **options):
    """Packets of one entry each that changes a first level: always another quote, instruments in turn. ``options`` as
    for :func:`sim.market.generator.book_message`."""
    out, moved = [], set()
    for n in range(events):
        i = n % len(market.instruments)
        side = (BID, OFFER)[n // len(market.instruments) % 2]
        at = (i, side)
        moves = (NEW, market.better(i, side)) if at not in moved else (DELETE,)
        moved ^= {at}
        out.append(market.packet(market.book([market.entry(i, side, 1, *moves)], **options)))
    return out


class Moves:
    """Changes of first levels, each to another price than the one before."""

    def __init__(self, market):
        self.market, self._steps = market, {}

    def steps(self, i, side):
        """How many levels better than at home the first one is now."""
        return self._steps.get((i, side), 0)

    def entry(self, i, side, avoid=None):
        """The next entry of an instrument and side; not to ``avoid`` steps."""
        now = self.steps(i, side)
        steps = self.market.rng.choice([n for n in range(5) if n not in (now, avoid)])
        self._steps[i, side] = steps
        return self.market.entry(i, side, 1, CHANGE, self.market.better(i, side, steps))

    def burst(self, i, side, events):
        """A packet with so many events, a message each, of one instrument: the last one differs from the first."""
        market = self.market
        messages = [market.book([self.entry(i, side)], LAST_QUOTE)]
        first = self.steps(i, side)
        for n in range(1, events):
            last = n == events - 1
            messages.append(market.book([self.entry(i, side, first if last else None)], BOTH if last else LAST_QUOTE))
        return market.packet(*messages)


def arrange(packets, start, *, rng=None, gap=(0, 0), lines="both"):
    """Frames on the feed port for packets in a row, as close as the standard allows or further apart.

    Parameters
    ----------
    packets : :class:`Packet` in order. start : cycle of the first frame.
    rng, gap : idle cycles beyond the standard's before each frame, at random between two numbers.
    lines : ``"both"``: every packet on A and on B, by turns A first and B first; ``"alternate"``: on one line only, by
        turns.

    Returns
    -------
    (frames without FCS, their cycles, for each the packet, or ``None`` for a second copy), and the first cycle after.
    """
    frames, cycles, of, at = [], [], [], start
    for n, one in enumerate(packets):
        order = (LINE_A, LINE_B) if n % 2 == 0 else (LINE_B, LINE_A)
        for copy, line in enumerate(order[:1] if lines == "alternate" else order):
            frame = udp_frame(line, one.payload)
            at += rng.randint(*gap) if rng else 0
            frames.append(frame)
            cycles.append(at)
            of.append(None if copy else one)
            at += len(net.PREAMBLE) + max(len(frame), net.MIN_FRAME) + net.FCS_SIZE + net.IFG
    return (frames, cycles, of), at

"""The market of a replay, read from the same packets that the quoter gets.

:func:`feed_events` reads the feed as the golden model does (match, first copy wins, walk) and keeps a book of its own
for every instrument asked for; it gives best bids and offers after each end of event, and trades.
"""

from typing import NamedTuple

from hdl.layout import sbe
from hdl.layout.fields import LayoutError
from sim.golden import feed
from sim.golden.book import SIZE_LIMIT, Book

from .ledger import BUY, SELL

_MDP3 = sbe.load("cme_mdp3")
_PACKET, _FRAMING = _MDP3.composites["PacketHeader"], _MDP3.composites["MessageFraming"]
_HEADER = _MDP3.composites["messageHeader"]
_TRADES = {m.id: m for m in (_MDP3["MDIncrementalRefreshTradeSummary42"], _MDP3["MDIncrementalRefreshTradeSummary48"])}
_AGGRESSORS = {_MDP3.enums["AggressorSide"]["Buy"]: BUY, _MDP3.enums["AggressorSide"]["Sell"]: SELL}
_NEW_TRADE = _MDP3.enums["MDUpdateAction"]["New"]


class FeedEvent(NamedTuple):
    """One thing that the market did.

    ``cycle``: first preamble cycle of the frame that told it. ``bid``, ``ask``: (ticks, size) or ``None`` where
    unknown. A trade has ``trade`` (ticks, size, aggressor: 1 buyer, -1 seller) instead of them.
    """

    cycle: int
    security_id: int
    bid: tuple | None = None
    ask: tuple | None = None
    trade: tuple | None = None

    def apply(self, mirror, now_ns):
        """Let it happen at the exchange (:class:`sim.venue.market.MarketMirror`)."""
        if self.trade:
            mirror.trade(now_ns, self.security_id, *self.trade)
        else:
            mirror.best(now_ns, self.security_id, self.bid, self.ask)


def feed_events(frames, lines, ticks, vlan=0):
    """What the market did, in order.

    Parameters
    ----------
    frames : wire frames in order of time (``cycle`` of the first preamble byte, ``data`` with FCS).
    lines : ((ip, port) of line A, (ip, port) of line B), as integers.
    ticks : tick as the price mantissa of the wire, by SecurityID; other instruments are skipped.
    vlan : as the register of that name.

    Yields :class:`FeedEvent`. Frames that are no good packet of a line are skipped. After a gap a book is unknown until
    the feed has told it again, and its market is withdrawn.
    """
    books = {security_id: Book() for security_id in ticks}
    shown = dict.fromkeys(ticks, (None, None))
    touched = set()
    arbiter = feed.Arbiter()

    def publish(cycle):
        for security_id in sorted(touched):
            best = tuple(level[1:] if level[0] else None
                         for level in (books[security_id].best_bid, books[security_id].best_ask))
            if best != shown[security_id]:
                shown[security_id] = best
                yield FeedEvent(cycle, security_id, *best)
        touched.clear()

    def void():
        for security_id, book in books.items():
            book.clear()
            touched.add(security_id)

    for frame in frames:
        found = feed.match(frame.data, lines, vlan)
        payload = frame.data[found.payload:found.payload + found.length]
        if found.verdict != "line" or not feed.receive(_Good(frame.data)) or len(payload) < _PACKET.size:
            continue
        accepted, missing = arbiter.offer(_PACKET["MsgSeqNum"].unpack(payload))
        if not accepted:
            continue
        if missing:
            void()
            yield from publish(frame.cycle)
        for security_id, price, size, aggressor in _trades(payload):
            if security_id in ticks and not price % ticks[security_id]:
                yield FeedEvent(frame.cycle, security_id, trade=(price // ticks[security_id], size, aggressor))
        security = None
        for _, kind, value, entry in feed.walk(payload, found.length)[0]:
            if kind == "claim":
                security = value
            elif kind == "entry" and security in books:
                price, size, level, action, side = entry
                px_ticks, rest = divmod(price, ticks[security])
                if books[security].apply(side, action, level, px_ticks, size, not rest and 0 < size < SIZE_LIMIT):
                    touched.add(security)
            elif kind == "reset":
                void()
            elif kind == "publish":
                yield from publish(frame.cycle)


class _Good(NamedTuple):
    """A frame without receive errors, for :func:`sim.golden.feed.receive`."""

    data: bytes
    rx_er: bool = False


def _trades(payload):
    """(SecurityID, price mantissa, size, aggressor) of the new trades with an aggressor that a packet reports."""
    at = _PACKET.size
    while at + _FRAMING.size + _HEADER.size <= len(payload):
        size = _FRAMING["MsgSize"].unpack(payload, at)
        head = at + _FRAMING.size
        root = head + _HEADER.size
        if size < _FRAMING.size + _HEADER.size or at + size > len(payload):
            return
        message = _TRADES.get(_HEADER["templateId"].unpack(payload, head))
        if message is not None:
            try:
                values = message.decode(payload[root:at + size], _HEADER["blockLength"].unpack(payload, head))
            except LayoutError:
                return
            for entry in values["NoMDEntries"]:
                aggressor = _AGGRESSORS.get(entry["AggressorSide"])
                if aggressor and entry["MDUpdateAction"] == _NEW_TRADE and entry["MDEntrySize"] > 0:
                    yield entry["SecurityID"], entry["MDEntryPx"], entry["MDEntrySize"], aggressor
        at += size

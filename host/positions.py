"""What is held, and what may still trade: the host's side of gate G11.

The fabric counts every lot that it sends out for a side (``sent``, modulo 2^32) and subtracts what the host reports as
settled; the difference, ``open``, is what may still trade, in flight included. For one side of one instrument

    settled = sent up to the last acknowledged quote - what that quote still has in the book

because a quote replaces the one before it: once it is acknowledged, only its own remainder is open. Between a fill and
the acknowledgement after it, the fabric's figure is too large and never too small.

The fabric reads the exchange's answers, too, and learns fills and acknowledgements before the host has heard of them.
Every word of the host's says up to which message it goes (``next_message``), and counts only if the fabric has learned
of none behind that; what both know counts once (:class:`hdl.gate.positions.Positions`). So nothing is said while an
answer waits: it would be half told.

``sent`` is counted here from the Decision records, which say whether the fabric counted a side's lots (a side that a
frame only repeats may not be). An answer that overtakes its record waits for it.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from hdl.layout import sbe

_SCHEMA = sbe.load("starbase_orders")
_STATUS = _SCHEMA.enums["QuoteStatus"]
#: A side with one of these has lots in the book (or about to be).
_STANDING = frozenset(_STATUS[n] for n in ("UNMODIFIED", "QTY_REDUCED", "UPDATED", "SPEED_BUMPED"))
BUY, SELL = _SCHEMA.enums["Side"]["BUY"], _SCHEMA.enums["Side"]["SELL"]
_SIDES = {BUY: "bid", SELL: "ask"}
_MASK32 = 0xFFFF_FFFF
_REMEMBERED_MATCHES = 100_000


class PositionError(RuntimeError):
    """The venue reports something that cannot be: an unknown instrument, a fraction of a lot. Quoting must stop."""


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade of ours: ``instrument`` index, ``side`` (1 bought, -1 sold), ``lots``, price mantissa (exponent -9),
    the venue's ``match_id`` and ``order_id``, and ``maker``."""

    instrument: int
    side: int
    lots: int
    price_e9: int
    match_id: int
    order_id: int
    maker: bool


@dataclass(frozen=True, slots=True)
class Update:
    """What the fabric has to be told of one instrument: words for ``pos_value`` .. ``pos_commit``."""

    instrument: int
    position: int
    settled_bid: int
    settled_ask: int
    quote_id: int
    clear_bid: bool
    clear_ask: bool
    next_message: int = 0

    def registers(self):
        """Register values by name, in the order of the map."""
        return {"pos_value": self.position & _MASK32, "pos_settled_bid": self.settled_bid & _MASK32,
                "pos_settled_ask": self.settled_ask & _MASK32, "pos_quote_id": self.quote_id & _MASK32,
                "pos_next": self.next_message & _MASK32,
                "pos_commit": self.instrument | self.clear_bid << 8 | self.clear_ask << 9}


@dataclass(slots=True)
class _Side:
    """One side of one instrument. ``sent`` totals; ``history`` of (quote id, total after it, its lots) not yet
    acknowledged; ``acked_total`` at the last acknowledged quote and the lots it has left (``remaining``) as
    ``order_id``."""

    sent: int = 0
    history: deque = field(default_factory=deque)
    acked_total: int = 0
    remaining: int = 0
    order_id: int = 0
    clear: bool = False

    @property
    def settled(self):
        return self.acked_total - self.remaining

    @property
    def open(self):
        return self.sent - self.settled

    def emitted(self, quote_id, lots, counted):
        """A frame left that says ``lots`` for this side (0: not quoted), ``counted`` into the fabric's total or not."""
        if counted:
            self.sent += lots
        self.history.append((quote_id, self.sent, lots))

    def acknowledge(self, quote_id):
        """Take over the totals of a quote and all before it. Returns the lots that it asked for, 0 if unknown."""
        lots = 0
        while self.history and self.history[0][0] <= quote_id:
            at, self.acked_total, asked = self.history.popleft()
            lots = asked if at == quote_id else 0
        return lots


@dataclass(slots=True)
class _Book:
    lot_mult: int
    lot_exp: int
    position: int = 0
    bid: _Side = field(default_factory=_Side)
    ask: _Side = field(default_factory=_Side)
    acked_id: int = -1
    last_id: int = 0
    clear_id: int = 0
    dirty: bool = False


class Positions:
    """Positions and open lots of all instruments.

    Parameters
    ----------
    instruments : sequence of (venue instrument id, lot mantissa, lot exponent, initial position in lots), by index.

    Attributes
    ----------
    fills : every :class:`Fill` so far, in order of arrival.
    """

    def __init__(self, instruments):
        self._books = [_Book(mult, exponent, initial) for _, mult, exponent, initial in instruments]
        self._index = {venue_id: n for n, (venue_id, *_) in enumerate(instruments)}
        self._waiting = deque()  # answers whose Decision record has not come
        self._seen = OrderedDict()  # (match id, order id)
        self._newest_id = -1
        self._mass_cancels = {}  # quote id of a mass cancel -> seen in the records
        self._own_cancels = {}  # correlation id of a mass cancel of the host -> newest quote id before it
        self.fills = []

    # -- from the fabric ----------------------------------------------------------------------------------------

    def decision(self, instrument, quote_id, bid, ask):
        """A quote frame left (outcome SENT or PULLED): ``bid`` and ``ask`` are (lots, counted), as :class:`_Side` takes
        them. Returns :class:`Fill` s of answers that waited for it."""
        book = self._book_at(instrument)
        for side, (lots, counted) in ((book.bid, bid), (book.ask, ask)):
            side.emitted(quote_id, lots, counted)
        book.last_id = quote_id
        self._newest_id = max(self._newest_id, quote_id)
        return self._retry()

    def mass_cancel(self, quote_id):
        """A mass cancel frame left under this id."""
        self._mass_cancels[quote_id] = True
        self._newest_id = max(self._newest_id, quote_id)
        return self._retry()

    def own_cancel(self, correlation_id):
        """The host sends a mass cancel of its own, behind everything whose record has come so far. Its id must be none
        that the fabric can use. The fabric is not told which sides it took away: not while it trades."""
        self._own_cancels[correlation_id] = self._newest_id

    def answered(self, correlation_id):
        """The venue has answered that mass cancel, or refused it."""
        return correlation_id not in self._own_cancels

    # -- from the venue -----------------------------------------------------------------------------------------

    def message(self, name, values):
        """An application message of the session. Returns the new :class:`Fill` s. Raises :class:`PositionError`."""
        self._waiting.append((name, values))
        return self._retry()

    def _retry(self):
        """Answers in their order; the first one whose record is missing holds back those behind it, so that a later
        answer is never overtaken by an earlier one. Fills count at once; what they leave of an order waits its turn,
        since the answer that says how much stood before them may be among those held back."""
        out = []
        pending, self._waiting = self._waiting, deque()
        blocked = False
        for name, values in pending:
            if name == "OrderFilled":
                fills = self._filled(values)
                out += [fill for fill, _ in fills]
                name, values = "reduced", fills
            if blocked or not self._known(name, values):
                blocked = True
                self._waiting.append((name, values))
                continue
            if name == "MassQuoteResponse":
                out += self._response(values)
            elif name == "MassQuoteReject":
                self._reject(values)
            elif name == "MassCancelResponse":
                self._cancelled_all(values)
            elif name == "MassCancelReject":
                self._own_cancels.pop(values["correlationId"], None)
            elif name == "OrdersCanceled":
                self._cancelled(values)
            elif name == "reduced":
                self._reduced(values)
        return out

    def _known(self, name, values):
        if name in ("MassQuoteResponse", "MassQuoteReject"):
            return values["quoteId"] <= self._newest_id
        if name == "MassCancelResponse":
            return values["correlationId"] <= self._newest_id or values["correlationId"] in self._own_cancels
        return True

    def _response(self, values):
        out = []
        for entry in values["quotes"]:
            n = self.index(entry["instrumentId"])
            book, quote_id = self._books[n], values["quoteId"]
            if quote_id <= book.acked_id:
                continue
            book.acked_id = quote_id
            for side_name in ("bid", "ask"):
                side = getattr(book, side_name)
                asked = side.acknowledge(quote_id)
                standing = entry[f"{side_name}Status"] in _STANDING
                side.remaining = self._lots(book, entry, f"{side_name}Qty") if standing else 0
                side.order_id = entry[f"{side_name}OrderId"] if standing else 0
                if side.remaining < asked:
                    self._clear(book, side_name, quote_id)
            book.dirty = True
        for group, side in (("bidFills", BUY), ("askFills", SELL)):
            for f in values[group]:
                # A fill on arrival is already out of the remainder that the same message reports.
                out += self._fill(f["instrumentId"], side, f, f["fillPrice"], f["matchId"], 0, maker=False)
        return out

    def _reject(self, values):
        """The whole message was refused: what stood before still stands. A side without anything in the book is
        quoted again; one with something keeps its mark in the fabric, so that a pull still reaches it."""
        for book in self._books:
            if any(at == values["quoteId"] for at, *_ in book.bid.history):
                book.acked_id = max(book.acked_id, values["quoteId"])
                for side_name in ("bid", "ask"):
                    side = getattr(book, side_name)
                    side.acknowledge(values["quoteId"])
                    if not side.remaining:
                        self._clear(book, side_name, values["quoteId"])
                book.dirty = True

    def _cancelled_all(self, values):
        """A mass cancel was answered: nothing sent before it is open."""
        quote_id = values["correlationId"]
        if quote_id in self._own_cancels:
            quote_id = self._own_cancels.pop(quote_id)
            # The stream keeps its order: what was before it has been answered, or never will be.
            for cancels, last in ((self._mass_cancels, quote_id), (self._own_cancels, values["correlationId"])):
                for earlier in [at for at in cancels if at <= last]:
                    del cancels[earlier]
        elif self._mass_cancels.pop(quote_id, None) is None:
            return  # of an earlier session; OrdersCanceled tells about it
        for book in self._books:
            for side in (book.bid, book.ask):
                side.acknowledge(quote_id)
                side.remaining = side.order_id = 0
            book.acked_id = max(book.acked_id, quote_id)
            book.dirty = True

    def _cancelled(self, values):
        for entry in values["orders"]:
            book = self._books[self.index(entry["instrumentId"])]
            for side_name in ("bid", "ask"):
                side = getattr(book, side_name)
                if side.order_id and side.order_id == entry["orderId"]:
                    side.remaining = side.order_id = 0
                    self._clear(book, side_name, entry["clientOrderId"])
                    book.dirty = True

    def _filled(self, values):
        """Count fills of standing orders; returns (fill, quote id) of those that are new."""
        return [(fill, f["clientOrderId"]) for f in values["fills"] for fill in self._fill(
            f["instrumentId"], f["side"], f, f["price"], f["matchId"], f["orderId"], maker=True)]

    def _reduced(self, fills):
        """What fills leave of the orders that they were of."""
        for fill, quote_id in fills:
            book, side_name = self._books[fill.instrument], _SIDES[fill.side]
            mine = getattr(book, side_name)
            if mine.order_id == fill.order_id:
                mine.remaining = max(0, mine.remaining - fill.lots)
                self._clear(book, side_name, quote_id)
                book.dirty = True

    def _fill(self, instrument_id, side, f, price, match_id, order_id, maker):
        n = self.index(instrument_id)
        book = self._books[n]
        if side not in _SIDES:
            raise PositionError(f"fill {match_id} has side {side}, must be {BUY} or {SELL}")
        lots = self._lots(book, f, "fillQty")
        key = (match_id, order_id)
        if key in self._seen:
            return []
        self._seen[key] = True
        if len(self._seen) > _REMEMBERED_MATCHES:
            self._seen.popitem(last=False)
        book.position += side * lots
        book.dirty = True
        fill = Fill(n, side, lots, price, match_id, order_id, maker)
        self.fills.append(fill)
        return [fill]

    # -- to the fabric ------------------------------------------------------------------------------------------

    def updates(self, everything=False, next_message=0):
        """:class:`Update` s that the fabric has not been told yet (or of all instruments), by index; none while an
        answer waits for its record. ``next_message``: number of the exchange's first message that
        :meth:`message` was not told."""
        out = []
        for n, book in enumerate(self._books):
            book.dirty |= everything
            if book.dirty and not self._waiting:
                out.append(Update(n, book.position, book.bid.settled & _MASK32, book.ask.settled & _MASK32,
                                  book.clear_id & _MASK32, book.bid.clear, book.ask.clear, next_message))
                book.dirty = book.bid.clear = book.ask.clear = False
        return out

    def lots(self, instrument):
        """(position, open bid lots, open ask lots) of an instrument."""
        book = self._books[instrument]
        return book.position, book.bid.open, book.ask.open

    @property
    def unanswered(self):
        """Quotes and cancels that the venue has not answered."""
        return sum(len(b.bid.history) for b in self._books) + len(self._mass_cancels) + len(self._own_cancels)

    # -- inside -------------------------------------------------------------------------------------------------

    def _clear(self, book, side_name, quote_id):
        """Ask the fabric to forget a side as last quoted by ``quote_id``, so that it quotes afresh."""
        if quote_id == book.last_id:  # otherwise a newer quote is on its way and its answer decides
            getattr(book, side_name).clear = True
            book.clear_id = quote_id

    def _book_at(self, instrument):
        if not 0 <= instrument < len(self._books):
            raise PositionError(f"decision for instrument {instrument}, there are {len(self._books)}")
        return self._books[instrument]

    def index(self, instrument_id):
        """Index of the instrument that the venue calls so. Raises :class:`PositionError`."""
        if instrument_id not in self._index:
            raise PositionError(f"the venue reports instrumentId {instrument_id}, which is not quoted; quoted are "
                                f"{', '.join(map(str, self._index))}")
        return self._index[instrument_id]

    @staticmethod
    def _lots(book, entry, name):
        mantissa, exponent = entry[f"{name}.mantissa"], entry[f"{name}.exponent"]
        shift = exponent - book.lot_exp
        if not mantissa:
            return 0
        if not -36 <= shift <= 36:
            raise PositionError(f"{name} {mantissa}e{exponent} is out of any range")
        lots, rest = divmod(mantissa * 10 ** max(shift, 0), book.lot_mult * 10 ** max(-shift, 0))
        if rest or lots < 0:
            raise PositionError(f"{name} {mantissa}e{exponent} is no number of lots of {book.lot_mult}e{book.lot_exp}")
        return lots

"""The exchange's own record: every request with its outcome and reason, every fill, the life of every order."""

from collections import Counter
from dataclasses import dataclass, field

BUY, SELL = 1, -1
SIDE_NAMES = {BUY: "bid", SELL: "ask", 0: "both"}


@dataclass
class SideOutcome:
    """What became of one side of one quote entry.

    ``status`` and ``reject`` are names of the schema's QuoteStatus and OrderRejectReason (``reject`` is ``""`` when
    the side was accepted). ``text`` says in words why the side does not stand as it was asked for. Prices are
    mantissas with exponent -9, quantities lots.
    """

    instrument_id: int
    side: int
    price_e9: int | None
    lots: int
    status: str
    order_id: int = 0
    reject: str = ""
    text: str = ""


@dataclass
class Fill:
    """One match seen from one client order. ``maker`` is false when the client's order was the aggressor."""

    time_ns: int
    match_id: int
    order_id: int
    client: str
    client_order_id: int
    instrument_id: int
    side: int
    price_e9: int
    lots: int
    is_quote: bool
    maker: bool
    remaining_lots: int


@dataclass
class Request:
    """One request of a client.

    ``key_id`` is the quoteId (mass quotes), the clientOrderId (orders) or 0. ``accepted`` is false when the whole
    request was refused: then ``reject`` names the reason and ``text`` says it in words. A mass quote that was
    accepted may still have refused sides: see ``sides``.
    """

    kind: str
    client: str
    key_id: int
    correlation_id: int
    received_ns: int
    group_id: int = 0
    accepted: bool = True
    reject: str = ""
    text: str = ""
    sides: list = field(default_factory=list)
    fills: list = field(default_factory=list)
    cancelled: int = 0

    @property
    def refusals(self):
        """Every reason given, as (name, text): of the whole request, or of its sides."""
        whole = [(self.reject, self.text)] if not self.accepted else []
        return whole + [(s.reject or s.status, s.text) for s in self.sides if s.text]

    @property
    def fully_accepted(self):
        """Nothing in the request was refused."""
        return not self.refusals


@dataclass
class OrderLife:
    """From entering the book to leaving it. ``changes`` holds (time_ns, price_e9, lots) after each change; the last
    one has 0 lots once the order is gone, and ``closed_by`` then says why."""

    order_id: int
    client: str
    instrument_id: int
    side: int
    is_quote: bool
    group_id: int
    changes: list = field(default_factory=list)
    closed_ns: int | None = None
    closed_by: str = ""

    def lots_at(self, time_ns):
        """Lots in the book at a time; a change at exactly that time counts."""
        lots = 0
        for at, _, value in self.changes:
            if at > time_ns:
                break
            lots = value
        return lots


class Ledger:
    """Append-only record of what the exchange did.

    Attributes
    ----------
    requests : list of :class:`Request`, in order of arrival.
    quotes : mass quotes by quoteId (the latest, where a client used one twice; see ``reused_quote_ids``).
    fills : list of :class:`Fill`.
    orders : :class:`OrderLife` by exchange order id; orders of the mirrored market are not in it.
    refusals : Counter of reason names, over whole requests and single sides.
    """

    def __init__(self):
        self.requests, self.quotes, self.fills, self.orders = [], {}, [], {}
        self.refusals, self.reused_quote_ids = Counter(), []

    def request(self, request):
        """Record a request (before it is matched, so that its fills find it)."""
        self.requests.append(request)
        if request.kind == "MassQuoteRequest":
            if request.key_id in self.quotes:
                self.reused_quote_ids.append(request.key_id)
            self.quotes[request.key_id] = request

    def settle(self, request):
        """Count the refusals of a recorded request, once its outcome is known."""
        for name, _ in request.refusals:
            self.refusals[name] += 1

    def fill(self, fill):
        """Record a match; it is also attached to the mass quote that put the order where it was hit."""
        self.fills.append(fill)
        if fill.is_quote and fill.client_order_id in self.quotes:
            self.quotes[fill.client_order_id].fills.append(fill)

    def order(self, time_ns, order, lots, why=""):
        """Record that ``order`` (of the engine) now has ``lots`` in the book; 0 closes it for the reason ``why``."""
        life = self.orders.get(order.order_id)
        if life is None:
            if not lots:
                return
            life = self.orders[order.order_id] = OrderLife(
                order.order_id, order.client, order.instrument_id, order.side, order.group_id is not None,
                order.group_id or 0)
        life.changes.append((time_ns, order.price_e9, lots))
        life.closed_ns, life.closed_by = (time_ns, why) if not lots else (None, "")

    def open_at(self, time_ns, client=None):
        """Orders (:class:`OrderLife`) with lots in the book at ``time_ns``, of one client or of all."""
        return [life for life in self.orders.values()
                if (client is None or life.client == client) and life.lots_at(time_ns)]

    def last_open_ns(self):
        """Time of the last change after which no client order was left, or ``None`` if one is still open (or none
        ever was)."""
        if not self.orders or any(life.closed_ns is None for life in self.orders.values()):
            return None
        return max(life.closed_ns for life in self.orders.values())

    def positions(self, client=None):
        """Net lots by instrument id, from the fills."""
        totals = Counter()
        for fill in self.fills:
            if client is None or fill.client == client:
                totals[fill.instrument_id] += fill.side * fill.lots
        return dict(totals)

    def summary(self):
        """Counts for a report: requests by kind, accepted and refused mass quotes, refusals by reason, fills."""
        quotes = [r for r in self.requests if r.kind == "MassQuoteRequest"]
        return {
            "requests": dict(Counter(r.kind for r in self.requests)),
            "quotes_received": len(quotes),
            "quotes_accepted": sum(r.fully_accepted for r in quotes),
            "quotes_refused": sum(not r.fully_accepted for r in quotes),
            "refusals": dict(self.refusals),
            "fills": len(self.fills),
            "filled_lots": sum(f.lots for f in self.fills),
        }

    def explain_refusals(self):
        """One sentence a refused request or side, in order."""
        return [f"{r.received_ns} ns {r.kind} {r.key_id} of {r.client}: {name}: {text}"
                for r in self.requests for name, text in r.refusals]

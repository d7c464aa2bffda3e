"""Matching engine: one price-time book per instrument, mass quotes, protection groups.

The rest of the market takes part as an anonymous participant without a client: :meth:`Engine.market` mirrors a best
bid and offer into the book as orders that rest, shrink and cross like any other, so a client's quote queues behind
what stood at its price before and trades when the market moves through it. :meth:`Engine.trade` lets a market trade
eat through the queue.

Units: prices are mantissas with exponent -9, quantities are whole lots, times are integer nanoseconds given by the
caller. Nothing is random. Answers are appended to :attr:`Engine.outgoing` as ``(client, message name, values,
groups)``; the session layer frames them.

Simplifications against the exchange: no speed bump for aggressive orders, no margin, no combos, delta and vega of a
protection group are not computed.
"""

from bisect import insort
from dataclasses import dataclass
from fractions import Fraction

from hdl.layout import sbe

from .ledger import BUY, SELL, SIDE_NAMES, Fill, Ledger, Request, SideOutcome

SCHEMA = sbe.load("starbase_orders")
ENUMS, SETS = SCHEMA.enums, SCHEMA.sets

#: Wire value of an absent OrderRejectReason (the SBE null of int8): the side was not refused.
NO_REASON = -128

MAX_QUOTES = 15  #: entries of one MassQuoteRequest
MAX_CANCELS = 40  #: entries of one OrdersCanceled message; more are split
FOREVER = (1 << 63) - 1  #: frozenUntil of a group that only a reset unfreezes

_IOC, _FOK = -2, -1


def _bit(set_name, choice):
    return 1 << SETS[set_name][choice]


COD = _bit("OrderFlags", "cancelOnDisconnect")
POST_ONLY = _bit("OrderFlags", "postOnly")
POST_ONLY_REJECT = _bit("OrderFlags", "postOnlyReject")
MARKET_LIMIT = _bit("OrderFlags", "marketLimit")
RESET_MMP = _bit("MassQuoteFlags", "resetMmp")


def price_text(price_e9):
    """A price mantissa for people: 27000500000000 is ``27000.5``."""
    if price_e9 is None:
        return "none"
    whole, part = divmod(abs(price_e9), 10 ** 9)
    text = f"{whole}.{part:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if price_e9 < 0 else text


class Order:
    """An order in the book. ``client`` is ``None`` for the mirrored market, ``group_id`` ``None`` unless a quote."""

    __slots__ = ("client", "client_order_id", "cod", "correlation_id", "filled", "group_id", "instrument_id", "lots",
                 "order_id", "price_e9", "priority", "side", "smp")

    def __init__(self, order_id, client, instrument_id, side, price_e9, lots, *, group_id=None, client_order_id=0,
                 correlation_id=0, smp=0, cod=False):
        self.order_id, self.client, self.instrument_id, self.side = order_id, client, instrument_id, side
        self.price_e9, self.lots, self.priority, self.group_id = price_e9, lots, 0, group_id
        self.client_order_id, self.correlation_id, self.smp, self.cod = client_order_id, correlation_id, smp, cod
        self.filled = 0

    @property
    def rank(self):
        """Sort key: best price first, then time."""
        return (-self.side * self.price_e9, self.priority)


class Book:
    """Both sides of one instrument, best order first, and what the mirrored market last showed."""

    def __init__(self, spec):
        self.spec = spec
        self.sides = {BUY: [], SELL: []}
        self.shown = {BUY: None, SELL: None}  # (price_e9, lots) as the market last displayed it
        self.priority = 0

    def add(self, order):
        """Put an order at the back of the queue of its price."""
        self.priority += 1
        order.priority = self.priority
        insort(self.sides[order.side], order, key=lambda o: o.rank)

    def remove(self, order):
        """Take an order out."""
        self.sides[order.side].remove(order)

    def best(self, side, exclude=None):
        """Best price of a side, optionally without one client's orders; ``None`` if empty."""
        return next((o.price_e9 for o in self.sides[side] if exclude is None or o.client != exclude), None)

    def depth(self, side):
        """List of (price_e9, lots, client) in priority order."""
        return [(o.price_e9, o.lots, o.client) for o in self.sides[side]]


@dataclass
class MmpState:
    """Run-time state of a protection group."""

    spec: object
    window_end_ns: int = -1
    traded: Fraction = Fraction(0)
    frozen_since_ns: int | None = None
    frozen_until_ns: int = 0
    triggers: int = 0


class TokenBucket:
    """Rate limiter over passed-in time; ``rate`` 0 never refuses."""

    def __init__(self, rate, burst):
        self.rate, self.burst, self.tokens, self.at_ns = Fraction(str(rate)), burst, Fraction(burst), None

    def take(self, now_ns, force=False):
        """Take one token. With ``force`` the bucket goes below zero rather than refuse."""
        if not self.rate:
            return True
        if self.at_ns is not None:
            self.tokens = min(Fraction(self.burst), self.tokens + self.rate * (now_ns - self.at_ns) / 10 ** 9)
        self.at_ns = now_ns
        if self.tokens < 1 and not force:
            return False
        self.tokens -= 1
        return True


class Engine:
    """The matching engine.

    Parameters
    ----------
    config : :class:`sim.venue.config.VenueConfig`.

    Attributes
    ----------
    ledger : :class:`sim.venue.ledger.Ledger`.
    outgoing : answers and events not yet taken by the session layer.
    books : :class:`Book` by instrument id.
    """

    def __init__(self, config):
        self.config, self.ledger, self.outgoing = config, Ledger(), []
        self.books = {spec.instrument_id: Book(spec) for spec in config.instruments}
        self.groups = {spec.group_id: MmpState(spec) for spec in config.groups}
        self.quotes = {}  # (group, instrument, side) -> Order
        self.orders = {}  # (client, clientOrderId) -> Order
        self.locked = set()
        self._buckets = {c.client_id: (TokenBucket(config.quote_rate, config.quote_burst),
                                       TokenBucket(config.order_rate, config.order_burst)) for c in config.clients}
        self._order_id, self._exec_id, self._match_id, self._market_id = 1_000_000, 0, 0, 0
        self._maker_fills, self._cancelled, self._triggered = {}, {}, []
        self.now_ns = 0

    # -- requests -----------------------------------------------------------------------------------------------

    def request(self, client, name, message, received_ns):
        """Handle one decoded application request of ``client`` at ``received_ns``. Never raises on its content."""
        self.advance(received_ns)
        {"MassQuoteRequest": self._mass_quote, "MassQuoteCancelRequest": self._mass_quote_cancel,
         "MassCancelRequest": self._mass_cancel, "NewOrderRequest": self._new_order,
         "CancelOrderRequest": self._cancel_order}[name](client, message)
        self._publish()

    def disconnected(self, client, now_ns):
        """The client's session ended: cancel what is tagged cancel-on-disconnect. Returns the number cancelled."""
        self.advance(now_ns)
        tagged = [o for o in self.open_orders(client) if o.cod]
        for order in tagged:
            self._cancel(order, "CLIENT_DISCONNECT")
        self._publish()
        return len(tagged)

    def lock(self, client, now_ns):
        """Lock a portfolio: cancels everything, refuses what follows until :meth:`unlock`."""
        self.advance(now_ns)
        self.locked.add(client)
        for order in self.open_orders(client):
            self._cancel(order, "PORTFOLIO_LOCKED")
        self._publish()

    def unlock(self, client):
        """Undo :meth:`lock`; cancelled orders do not come back."""
        self.locked.discard(client)

    def advance(self, now_ns):
        """Let time pass: groups whose freeze has ended are usable again. Time never runs backwards."""
        if now_ns < self.now_ns:
            raise ValueError(f"time runs backwards: {now_ns} ns after {self.now_ns} ns")
        self.now_ns = now_ns
        for state in self.groups.values():
            if state.frozen_since_ns is not None and state.frozen_until_ns <= now_ns:
                self._unfreeze(state, None, min(now_ns, state.frozen_until_ns))

    def next_deadline_ns(self):
        """Earliest time at which :meth:`advance` has something to do, or ``None``."""
        return min((s.frozen_until_ns for s in self.groups.values()
                    if s.frozen_since_ns is not None and s.frozen_until_ns != FOREVER), default=None)

    def open_orders(self, client=None):
        """Orders of one client, or of all clients, that are in a book now."""
        return [o for book in self.books.values() for side in (BUY, SELL) for o in book.sides[side]
                if o.client is not None and (client is None or o.client == client)]

    # -- the rest of the market ---------------------------------------------------------------------------------

    def market(self, now_ns, instrument_id, bid, ask):
        """Mirror the market's best bid and offer.

        Parameters
        ----------
        bid, ask : (price_e9, lots), or ``None`` where there is none. Prices need not be multiples of the tick.

        At an unchanged price a smaller quantity shrinks what is left, a larger one joins the back of the queue and
        an equal one changes nothing (what clients took stays taken). At a new price the old interest leaves and the
        new one arrives, trading with every client order that it crosses.
        """
        self.advance(now_ns)
        book = self.book(instrument_id)
        arriving = []
        for side, level in ((BUY, bid), (SELL, ask)):
            if level is not None and level[1] <= 0:
                level = None
            shown, book.shown[side] = book.shown[side], level
            mine = [o for o in book.sides[side] if o.client is None]
            if level is None or shown is None or shown[0] != level[0]:
                for order in mine:
                    book.remove(order)
                if level is not None:
                    arriving.append((side, *level))
            elif level[1] > shown[1]:
                arriving.append((side, level[0], level[1] - shown[1]))
            elif level[1] < shown[1]:
                excess = sum(o.lots for o in mine) - level[1]
                for order in reversed(mine):  # the youngest leave first
                    if excess <= 0:
                        break
                    gone = min(order.lots, excess)
                    order.lots -= gone
                    excess -= gone
                    if not order.lots:
                        book.remove(order)
        for side, price_e9, lots in arriving:
            self._market_id -= 1
            order = Order(self._market_id, None, instrument_id, side, price_e9, lots)
            self._match(order, price_e9)
            if order.lots:
                book.add(order)
        self._publish()

    def trade(self, now_ns, instrument_id, price_e9, lots, aggressor):
        """A trade of the market: ``aggressor`` (BUY or SELL) takes ``lots`` at ``price_e9`` or better from whoever is
        first in the queue, the mirrored market included; what is not found evaporates."""
        self.advance(now_ns)
        self.book(instrument_id)
        self._market_id -= 1
        order = Order(self._market_id, None, instrument_id, aggressor, price_e9, lots)
        self._match(order, price_e9, market_trades=True)
        self._publish()

    def book(self, instrument_id):
        """:class:`Book` of a listed instrument; raises ValueError for others."""
        if instrument_id not in self.books:
            raise ValueError(f"instrument {instrument_id} is not listed; listed are "
                             f"{', '.join(str(i) for i in self.books)}")
        return self.books[instrument_id]

    # -- matching -----------------------------------------------------------------------------------------------

    def _crosses(self, side, price_e9, other_e9):
        return price_e9 >= other_e9 if side == BUY else price_e9 <= other_e9

    def _match(self, taker, limit_e9, market_trades=False, cancel_maker=False):
        """Trade ``taker`` against the other side as far as ``limit_e9`` allows; reduces ``taker.lots``.

        Returns (fills of the taker as (match id, price_e9, lots), ``True`` if self-match prevention stopped it).
        """
        opposite = self.book(taker.instrument_id).sides[-taker.side]
        fills, index = [], 0
        while taker.lots and index < len(opposite):
            maker = opposite[index]
            if not self._crosses(taker.side, limit_e9, maker.price_e9):
                break
            if maker.client is None and taker.client is None and not market_trades:
                index += 1  # the mirrored market does not trade with itself; its trades are reported to us
                continue
            if maker.client is not None and maker.client == taker.client and maker.smp == taker.smp:
                if not cancel_maker:
                    return fills, True
                self._cancel(maker, "SELF_MATCH_PREVENTION")
                continue
            lots = min(taker.lots, maker.lots)
            taker.lots -= lots
            maker.lots -= lots
            taker.filled += lots
            maker.filled += lots
            if not maker.lots:
                opposite.remove(maker)
            if maker.client is None and taker.client is None:
                continue
            self._match_id += 1
            fills.append((self._match_id, maker.price_e9, lots))
            self._filled(maker, maker.price_e9, lots, maker=True)
            self._filled(taker, maker.price_e9, lots, maker=False)
        return fills, False

    def _filled(self, order, price_e9, lots, maker):
        if order.client is None:
            return
        self.ledger.fill(Fill(self.now_ns, self._match_id, order.order_id, order.client, order.client_order_id,
                              order.instrument_id, order.side, price_e9, lots, order.group_id is not None, maker,
                              order.lots))
        if maker:
            self.ledger.order(self.now_ns, order, order.lots, "FILLED")
            if not order.lots:
                self._forget(order)
            spec = self.books[order.instrument_id].spec
            flags = (_bit("FillFlags", "isQuote") if order.group_id is not None else 0) | \
                    (_bit("FillFlags", "isFullyFilled") if not order.lots else 0)
            self._maker_fills.setdefault(order.client, []).append({
                "clientOrderId": order.client_order_id, "orderId": order.order_id,
                "instrumentId": order.instrument_id, "matchId": self._match_id, "price": price_e9,
                "fillQty": spec.quantity(lots), "totalFilled": spec.quantity(order.filled), "side": order.side,
                "flags": flags})
        if order.group_id is not None:
            self._count_protection(order, lots)

    def _count_protection(self, order, lots):
        state, spec = self.groups[order.group_id], self.books[order.instrument_id].spec
        if state.frozen_since_ns is not None:
            return
        if self.now_ns >= state.window_end_ns:
            state.window_end_ns, state.traded = self.now_ns + state.spec.interval_ns, Fraction(0)
        state.traded += lots * spec.lot_mult * Fraction(10) ** spec.lot_exp
        if state.traded >= Fraction(str(state.spec.quantity_limit)):  # as written, not as a binary fraction
            frozen = state.spec.frozen_ns
            state.frozen_since_ns = self.now_ns
            state.frozen_until_ns = self.now_ns + frozen if frozen else FOREVER
            state.triggers += 1
            self._triggered.append((state, state.frozen_until_ns, float(state.traded)))
            for quote in [o for (group, _, _), o in self.quotes.items() if group == order.group_id]:
                self._cancel(quote, "MM_PROTECTION")

    def _unfreeze(self, state, correlation_id, at_ns):
        state.frozen_since_ns, state.window_end_ns, state.traded = None, -1, Fraction(0)
        self._emit(state.spec.client_id, "MassQuoteMmpUnfrozen", {
            "timestamp": at_ns, "execId": self._next_exec(), "mmpGroupId": state.spec.group_id,
            "correlationId": correlation_id})

    # -- book keeping -------------------------------------------------------------------------------------------

    def _forget(self, order):
        if order.group_id is not None:
            key = (order.group_id, order.instrument_id, order.side)
            if self.quotes.get(key) is order:
                del self.quotes[key]
        else:
            self.orders.pop((order.client, order.client_order_id), None)

    def _cancel(self, order, reason, tell=True):
        """Take a client's order out of the book. With ``tell`` it is reported in an OrdersCanceled message."""
        self.books[order.instrument_id].remove(order)
        self._forget(order)
        self.ledger.order(self.now_ns, order, 0, reason)
        order.lots = 0
        if tell:
            self._cancelled.setdefault((order.client, reason), []).append({
                "clientOrderId": order.client_order_id, "orderId": order.order_id,
                "instrumentId": order.instrument_id,
                "totalFilled": self.books[order.instrument_id].spec.quantity(order.filled),
                "cancelReason": ENUMS["CancelReason"][reason],
                "flags": _bit("CancelFlags", "isQuote") if order.group_id is not None else 0})

    def _emit(self, client, name, values, groups=None):
        self.outgoing.append((client, name, values, groups or {}))

    def _next_exec(self):
        self._exec_id += 1
        return self._exec_id

    def _next_order(self):
        self._order_id += 1
        return self._order_id

    def _publish(self):
        """Report what the last event did to resting orders: fills first, then triggers, then cancels."""
        fills, self._maker_fills = self._maker_fills, {}
        for client, entries in fills.items():
            for start in range(0, len(entries), MAX_CANCELS):
                self._emit(client, "OrderFilled", {"timestamp": self.now_ns, "execId": self._next_exec()},
                           {"fills": entries[start:start + MAX_CANCELS]})
        triggered, self._triggered = self._triggered, []
        for state, until_ns, level in triggered:
            self._emit(state.spec.client_id, "MassQuoteMmpTriggered", {
                "timestamp": self.now_ns, "execId": self._next_exec(), "mmpGroupId": state.spec.group_id,
                "frozenUntil": until_ns, "quantityLevel": level, "vegaLevel": 0.0, "deltaLevel": 0.0,
                "trigger": ENUMS["MmpTriggerType"]["QUANTITY"]})
        cancelled, self._cancelled = self._cancelled, {}
        for (client, _), entries in cancelled.items():
            for start in range(0, len(entries), MAX_CANCELS):
                last = start + MAX_CANCELS >= len(entries)
                self._emit(client, "OrdersCanceled", {
                    "timestamp": self.now_ns, "execId": self._next_exec(),
                    "flags": _bit("MultiPartEventFlags", "isLastMessage") if last else 0},
                    {"orders": entries[start:start + MAX_CANCELS]})

    # -- mass quotes --------------------------------------------------------------------------------------------

    def _mass_quote(self, client, m):
        record = Request("MassQuoteRequest", client, m["quoteId"], m["correlationId"], self.now_ns, m["mmpGroupId"])
        refusal = self._refuse_mass_quote(client, m)
        if refusal:
            record.accepted, (record.reject, record.text) = False, refusal
            self.ledger.request(record)
            self.ledger.settle(record)
            self._emit(client, "MassQuoteReject", {
                "timestamp": self.now_ns, "execId": self._next_exec(), "quoteId": m["quoteId"],
                "correlationId": m["correlationId"], "mmpGroupId": m["mmpGroupId"],
                "reason": ENUMS["MassQuoteRejectReason"][record.reject], "details": record.text[:255]})
            return
        self.ledger.request(record)  # before matching, so that immediate fills find their quote
        quotes, fills = [], {BUY: [], SELL: []}
        for entry in m["quotes"]:
            quotes.append(self._quote_entry(client, m, entry, record, fills))
        self.ledger.settle(record)
        self._emit(client, "MassQuoteResponse", {
            "timestamp": self.now_ns, "execId": self._next_exec(), "quoteId": m["quoteId"],
            "correlationId": m["correlationId"], "mmpGroupId": m["mmpGroupId"], "receiveTime": self.now_ns},
            {"quotes": quotes, "bidFills": fills[BUY], "askFills": fills[SELL]})

    def _refuse_mass_quote(self, client, m):
        """Reason (name, text) to refuse the whole message, or ``None``. May unfreeze the group (resetMmp)."""
        entries = m["quotes"]
        if client in self.locked:
            return "PORTFOLIO_LOCKED", f"portfolio of {client} is locked"
        state = self.groups.get(m["mmpGroupId"])
        if state is None or state.spec.client_id != client:
            own = [str(s.spec.group_id) for s in self.groups.values() if s.spec.client_id == client]
            return "INVALID_MMP_GROUP", f"mmpGroupId {m['mmpGroupId']} is not a group of {client}; its groups are " \
                                        f"{', '.join(own) or 'none'}"
        if not state.spec.enabled:
            return "MMP_GROUP_DISABLED", f"mmpGroupId {m['mmpGroupId']} is disabled"
        if len(entries) > MAX_QUOTES:
            return "TOO_MANY_QUOTES", f"{len(entries)} quotes in one message, at most {MAX_QUOTES} are allowed"
        seen = set()
        for entry in entries:
            instrument_id = entry["instrumentId"]
            if instrument_id not in self.books:
                return "INVALID_INSTRUMENT", f"instrumentId {instrument_id} is not listed; listed are " \
                                             f"{', '.join(str(i) for i in self.books)}"
            if instrument_id in seen:
                return "DUPLICATE_INSTRUMENT", f"instrumentId {instrument_id} appears twice in one mass quote"
            seen.add(instrument_id)
        for entry in entries:
            spec = self.books[entry["instrumentId"]].spec
            for side in ("bid", "ask"):
                text = self._bad_quantity(spec, f"{side}Qty", entry[f"{side}Qty.mantissa"],
                                          entry[f"{side}Qty.exponent"])
                if text:  # the schema has no reason of its own for quantities
                    return "SYSTEM_ERROR", text
        is_cancel = not any(e[f"{s}Qty.mantissa"] for e in entries for s in ("bid", "ask"))
        if not self._buckets[client][0].take(self.now_ns, force=is_cancel):
            return "RATE_LIMIT", f"more than {self.config.quote_rate:g} mass quotes a second " \
                                 f"(burst {self.config.quote_burst})"
        if state.frozen_since_ns is not None:
            if m["flags"] & RESET_MMP:
                if self.now_ns < state.frozen_since_ns + state.spec.min_freeze_ns:
                    return "MMP_MIN_FREEZE_TIME_NOT_ELAPSED", \
                        f"group {m['mmpGroupId']} froze {self.now_ns - state.frozen_since_ns} ns ago, a reset is " \
                        f"possible after {state.spec.min_freeze_ns} ns"
                self._unfreeze(state, m["correlationId"], self.now_ns)
            elif not is_cancel:
                until = "a reset" if state.frozen_until_ns == FOREVER else f"{state.frozen_until_ns} ns"
                return "MMP_GROUP_FROZEN", f"group {m['mmpGroupId']} is frozen until {until}"
        return None

    @staticmethod
    def _bad_quantity(spec, name, mantissa, exponent):
        lots = spec.lots_of(mantissa, exponent)
        step = f"{spec.lot_mult}e{spec.lot_exp}"
        if lots is None:
            return f"{name} {mantissa}e{exponent} of {spec.name} is not a multiple of {step}"
        if lots < 0:
            return f"{name} {mantissa}e{exponent} of {spec.name} is negative, must be 0 or more"
        if lots and not spec.min_lots <= lots <= spec.max_lots:
            return f"{name} {mantissa}e{exponent} of {spec.name} is {lots} lots of {step}, must be " \
                   f"{spec.min_lots}..{spec.max_lots}"
        return None

    def _quote_entry(self, client, m, entry, record, fills):
        """Apply both sides of one entry. The side that moves away from the other goes first."""
        instrument_id, group_id = entry["instrumentId"], m["mmpGroupId"]
        turns = [BUY, SELL]
        standing_bid = self.quotes.get((group_id, instrument_id, BUY))
        new_bid = entry["bidPrice"]
        if standing_bid is not None and new_bid is not None and new_bid > standing_bid.price_e9:
            turns.reverse()
        out = {"instrumentId": instrument_id}
        results = {}
        for side in turns:
            results[side] = self._quote_side(client, m, entry, side, fills)
        spec = self.books[instrument_id].spec
        for side in (BUY, SELL):
            outcome, remaining, filled = results[side]
            name = SIDE_NAMES[side]
            record.sides.append(outcome)
            out |= {f"{name}OrderId": outcome.order_id, f"{name}Price": outcome.price_e9 or 0,
                    f"{name}Qty": spec.quantity(remaining), f"{name}FilledQty": spec.quantity(filled),
                    f"{name}Status": ENUMS["QuoteStatus"][outcome.status],
                    f"{name}RejectReason": ENUMS["OrderRejectReason"][outcome.reject] if outcome.reject else NO_REASON}
        return out

    def _quote_side(self, client, m, entry, side, fills):
        """Apply one side of an entry. Returns (:class:`SideOutcome`, remaining lots, lots filled at once)."""
        name, instrument_id, group_id = SIDE_NAMES[side], entry["instrumentId"], m["mmpGroupId"]
        book = self.books[instrument_id]
        spec = book.spec
        price_e9, flags = entry[f"{name}Price"], entry[f"{name}Flags"]
        lots = spec.lots_of(entry[f"{name}Qty.mantissa"], entry[f"{name}Qty.exponent"])
        standing = self.quotes.get((group_id, instrument_id, side))
        outcome = SideOutcome(instrument_id, side, price_e9, lots, "INACTIVE",
                              standing.order_id if standing else 0)
        if not lots:
            if standing:
                outcome.status = "CANCELED_BY_REQUEST"
                self._cancel(standing, "BY_REQUEST", tell=False)
            return outcome, 0, 0
        if self.groups[group_id].frozen_since_ns is not None:  # an earlier side of this very message triggered it
            outcome.status = "CANCELED_BY_MMP"
            outcome.text = f"a fill of the same message froze group {group_id}"
            return outcome, 0, 0
        outcome.reject, outcome.text = self._refuse_quote_side(client, m, side, price_e9, lots, flags, book)
        if not outcome.reject and flags & POST_ONLY:
            price_e9 = outcome.price_e9 = self._post_only_price(client, book, side, price_e9)
            outcome.reject, outcome.text = self._bad_price(spec, f"post-only {name}Price", price_e9)
        if outcome.reject:
            if standing:
                outcome.status = "CANCELED_BY_REQUEST"
                self._cancel(standing, "BY_REQUEST", tell=False)
            return outcome, 0, 0
        cod = bool(flags & COD)
        if standing and standing.price_e9 == price_e9 and lots <= standing.lots:
            outcome.status = "UNMODIFIED" if lots == standing.lots else "QTY_REDUCED"
            self._tag(standing, m, cod)
            if lots < standing.lots:
                standing.lots = lots
                self.ledger.order(self.now_ns, standing, lots)
            return outcome, lots, 0
        quote = standing or Order(self._next_order(), client, instrument_id, side, price_e9, lots, group_id=group_id)
        if standing:
            book.remove(standing)
            del self.quotes[group_id, instrument_id, side]
        quote.price_e9, quote.lots = price_e9, lots
        self._tag(quote, m, cod)
        outcome.order_id = quote.order_id
        matched, self_match = self._match(quote, price_e9)
        filled = lots - quote.lots
        fills[side] += [{"matchId": match_id, "instrumentId": instrument_id, "fillPrice": price,
                         "fillQty": spec.quantity(count)} for match_id, price, count in matched]
        if not quote.lots:
            outcome.status = "FILLED"
        elif self_match:
            outcome.status = "CANCELED_BY_SELF_MATCH"
            outcome.text = f"{name} {price_text(price_e9)} meets the client's own order with the same " \
                           f"self-match token {quote.smp}"
        elif self.groups[group_id].frozen_since_ns is not None:
            outcome.status = "CANCELED_BY_MMP"
            outcome.text = f"its own fill of {filled} lots froze group {group_id}"
        else:
            outcome.status = "UPDATED"
            book.add(quote)
            self.quotes[group_id, instrument_id, side] = quote
            self.ledger.order(self.now_ns, quote, quote.lots)
            return outcome, quote.lots, filled
        self.ledger.order(self.now_ns, quote, 0, outcome.status)  # known to the ledger only if it stood before
        return outcome, 0, filled

    @staticmethod
    def _tag(quote, m, cod):
        quote.client_order_id, quote.correlation_id = m["quoteId"], m["correlationId"]
        quote.smp, quote.cod = m["selfMatchPreventionId"], quote.cod or cod

    def _refuse_quote_side(self, client, m, side, price_e9, lots, flags, book):
        """(reason name, text), both empty when the side is fine."""
        spec, name = book.spec, SIDE_NAMES[side]
        if flags & POST_ONLY and flags & POST_ONLY_REJECT:
            return "INVALID_FIELD", f"{name}Flags {flags:#06x} set postOnly and postOnlyReject, give at most one"
        if flags & MARKET_LIMIT:
            return "INVALID_FIELD", f"{name}Flags {flags:#06x} set marketLimit, which this exchange does not offer"
        reason = self._bad_price(spec, f"{name}Price", price_e9)
        if reason[0]:
            return reason
        maximum = self.groups[m["mmpGroupId"]].spec.max_quote_lots
        if lots > maximum:
            return "MMP_MAX_QUOTE_QTY_EXCEEDED", f"{name}Qty of {lots} lots exceeds the {maximum} lots that group " \
                                                 f"{m['mmpGroupId']} allows"
        if flags & POST_ONLY_REJECT:
            other = book.best(-side, exclude=client)
            if other is not None and self._crosses(side, price_e9, other):
                return "POST_ONLY", f"{name} {price_text(price_e9)} would trade at once: the best " \
                                    f"{SIDE_NAMES[-side]} is {price_text(other)}"
        return "", ""

    @staticmethod
    def _bad_price(spec, name, price_e9):
        if price_e9 is None:
            return "INVALID_PRICE", f"{name} of {spec.name} is missing although its quantity is not 0"
        if price_e9 % spec.tick_e9:
            return "INVALID_PRICE", f"{name} {price_text(price_e9)} of {spec.name} is not a multiple of the tick " \
                                    f"{price_text(spec.tick_e9)}"
        if spec.band_high_e9 is not None and price_e9 > spec.band_high_e9:
            return "PRICE_TOO_HIGH", f"{name} {price_text(price_e9)} of {spec.name} is above the price band, at most " \
                                     f"{price_text(spec.band_high_e9)}"
        if spec.band_low_e9 is not None and price_e9 < spec.band_low_e9:
            return "PRICE_TOO_LOW", f"{name} {price_text(price_e9)} of {spec.name} is below the price band, at least " \
                                    f"{price_text(spec.band_low_e9)}"
        return "", ""

    def _post_only_price(self, client, book, side, price_e9):
        """The price itself, or the best price of the own side where it would trade at once (one tick short of the
        other side where the own side is empty or would still cross)."""
        other = book.best(-side, exclude=client)
        if other is None or not self._crosses(side, price_e9, other):
            return price_e9
        tick = book.spec.tick_e9
        # The mirrored market may quote off the grid; stay on it, strictly short of the other side.
        short = (-(-other // tick) - 1) * tick if side == BUY else (other // tick + 1) * tick
        own = book.best(side, exclude=client)
        if own is None:
            return short
        own = own // tick * tick if side == BUY else -(-own // tick) * tick
        return min(own, short) if side == BUY else max(own, short)

    # -- cancels ------------------------------------------------------------------------------------------------

    def _mass_quote_cancel(self, client, m):
        record = Request("MassQuoteCancelRequest", client, 0, m["correlationId"], self.now_ns, m["mmpGroupId"])
        state = self.groups.get(m["mmpGroupId"])
        if state is None or state.spec.client_id != client:
            return self._refuse_mass_cancel(client, m, record, "INVALID_MMP_GROUP",
                                            f"mmpGroupId {m['mmpGroupId']} is not a group of {client}")
        chosen = [o for (group, _, side), o in self.quotes.items()
                  if group == m["mmpGroupId"] and m["side"] in (0, side)]
        self._answer_mass_cancel(client, m, record, chosen)

    def _mass_cancel(self, client, m):
        record = Request("MassCancelRequest", client, 0, m["correlationId"], self.now_ns)
        instrument_id = m["instrumentId"]
        if instrument_id is not None and instrument_id not in self.books:
            return self._refuse_mass_cancel(client, m, record, "ERROR",
                                            f"instrumentId {instrument_id} is not listed (null means any)")
        pair = m["currencyPairId"]
        chosen = []
        for order in self.open_orders(client):
            spec = self.books[order.instrument_id].spec
            if (order.instrument_id == instrument_id if instrument_id is not None else spec.currency_pair_id == pair) \
                    and m["productType"] in (0, spec.product_type) and m["side"] in (0, order.side):
                chosen.append(order)
        self._answer_mass_cancel(client, m, record, chosen)

    def _refuse_mass_cancel(self, client, m, record, reason, text):
        record.accepted, record.reject, record.text = False, reason, text
        self.ledger.request(record)
        self.ledger.settle(record)
        self._emit(client, "MassCancelReject", {
            "timestamp": self.now_ns, "execId": self._next_exec(), "correlationId": m["correlationId"],
            "reason": ENUMS["MassCancelRejectReason"][reason], "details": text[:255]})

    def _answer_mass_cancel(self, client, m, record, chosen):
        for order in chosen:
            self._cancel(order, "BY_REQUEST")
        record.cancelled = len(chosen)
        self.ledger.request(record)
        self._emit(client, "MassCancelResponse", {
            "timestamp": self.now_ns, "execId": self._next_exec(), "correlationId": m["correlationId"],
            "receiveTime": self.now_ns, "totalOrderCount": len(chosen)})

    # -- single orders ------------------------------------------------------------------------------------------

    def _new_order(self, client, m):
        record = Request("NewOrderRequest", client, m["clientOrderId"], m["correlationId"], self.now_ns)
        book = self.books.get(m["instrumentId"])
        record.reject, record.text = self._refuse_order(client, m, book)
        record.accepted = not record.reject
        self.ledger.request(record)
        self.ledger.settle(record)
        if record.reject:
            self._emit(client, "NewOrderReject", {
                "timestamp": self.now_ns, "execId": self._next_exec(), "clientOrderId": m["clientOrderId"],
                "correlationId": m["correlationId"], "orderId": 0, "instrumentId": m["instrumentId"],
                "reason": ENUMS["OrderRejectReason"][record.reject], "details": record.text[:255]})
            return
        spec, side, price_e9 = book.spec, m["side"], m["price"]
        if m["flags"] & POST_ONLY:
            price_e9 = self._post_only_price(client, book, side, price_e9)
        lots = spec.lots_of(m["quantity.mantissa"], m["quantity.exponent"])
        order = Order(self._next_order(), client, spec.instrument_id, side, price_e9, lots,
                      client_order_id=m["clientOrderId"], correlation_id=m["correlationId"],
                      smp=m["selfMatchPreventionId"], cod=bool(m["flags"] & COD))
        matched, self_match, status, why = [], False, "ACTIVE", "UNKNOWN"
        if m["timeInForce"] == _FOK and self._available(client, book, side, price_e9, order.smp) < lots:
            status, why = "CANCELED", "TIME_IN_FORCE"
        else:
            cancel_maker = m["selfTradingMode"] == ENUMS["SelfTradingMode"]["CANCEL_MAKER"]
            matched, self_match = self._match(order, price_e9, cancel_maker=cancel_maker)
            if not order.lots:
                status = "FILLED"
            elif self_match:
                status, why = "CANCELED", "SELF_MATCH_PREVENTION"
            elif m["timeInForce"] in (_IOC, _FOK):
                status, why = "CANCELED", "TIME_IN_FORCE"
            else:
                book.add(order)
                self.orders[client, order.client_order_id] = order
                self.ledger.order(self.now_ns, order, order.lots)
        self._emit(client, "NewOrderResponse", {
            "timestamp": self.now_ns, "execId": self._next_exec(), "clientOrderId": m["clientOrderId"],
            "correlationId": m["correlationId"], "orderId": order.order_id, "instrumentId": spec.instrument_id,
            "price": price_e9, "quantity": spec.quantity(lots), "totalFilled": spec.quantity(order.filled),
            "visibleQty": spec.quantity(order.lots if status == "ACTIVE" else 0), "receiveTime": self.now_ns,
            "side": side, "status": ENUMS["OrderStatus"][status], "cancelReason": ENUMS["CancelReason"][why]},
            {"fills": [{"matchId": i, "fillPrice": p, "fillQty": spec.quantity(n)} for i, p, n in matched]})

    def _available(self, client, book, side, price_e9, smp):
        return sum(o.lots for o in book.sides[-side] if self._crosses(side, price_e9, o.price_e9)
                   and not (o.client == client and o.smp == smp))

    def _refuse_order(self, client, m, book):
        if client in self.locked:
            return "PORTFOLIO_LOCKED", f"portfolio of {client} is locked"
        if book is None:
            return "INVALID_INSTRUMENT", f"instrumentId {m['instrumentId']} is not listed; listed are " \
                                         f"{', '.join(str(i) for i in self.books)}"
        if m["side"] not in (BUY, SELL):
            return "INVALID_FIELD", f"side {m['side']} must be 1 (buy) or -1 (sell)"
        if m["timeInForce"] < _IOC:
            return "INVALID_FIELD", f"timeInForce {m['timeInForce']} must be -2 (IOC), -1 (FOK), 0 (GTC) or days"
        if m["flags"] & POST_ONLY and m["flags"] & POST_ONLY_REJECT:
            return "INVALID_FIELD", f"flags {m['flags']:#06x} set postOnly and postOnlyReject, give at most one"
        if m["flags"] & MARKET_LIMIT:
            return "INVALID_FIELD", f"flags {m['flags']:#06x} set marketLimit, which this exchange does not offer"
        if (client, m["clientOrderId"]) in self.orders:
            return "DUPLICATE_CLIENT_ORDER_ID", f"clientOrderId {m['clientOrderId']} is an open order"
        spec = book.spec
        text = self._bad_quantity(spec, "quantity", m["quantity.mantissa"], m["quantity.exponent"])
        if not text and not m["quantity.mantissa"]:
            text = "quantity is 0, must be at least one lot"
        if text:
            return "INVALID_QUANTITY", text
        if m["showQty.mantissa"] is not None and (m["showQty.mantissa"], m["showQty.exponent"]) != \
                (m["quantity.mantissa"], m["quantity.exponent"]):
            return "ICEBERG_NOT_ALLOWED", "showQty must be absent or equal to quantity"
        reason = self._bad_price(spec, "price", m["price"])
        if reason[0]:
            return reason
        if not self._buckets[client][1].take(self.now_ns):
            return "RATE_LIMIT", f"more than {self.config.order_rate:g} orders a second " \
                                 f"(burst {self.config.order_burst})"
        if m["flags"] & POST_ONLY_REJECT:
            other = book.best(-m["side"], exclude=client)
            if other is not None and self._crosses(m["side"], m["price"], other):
                return "POST_ONLY", f"price {price_text(m['price'])} would trade at once: the best " \
                                    f"{SIDE_NAMES[-m['side']]} is {price_text(other)}"
        count = sum(o.client == client and o.group_id is None for o in book.sides[m["side"]])
        if count >= self.config.max_open_orders:
            return "TOO_MANY_OPEN_ORDERS", f"{count} open orders on the {SIDE_NAMES[m['side']]} side of {spec.name}, " \
                                           f"at most {self.config.max_open_orders}"
        return "", ""

    def _cancel_order(self, client, m):
        record = Request("CancelOrderRequest", client, m["clientOrderId"], m["correlationId"], self.now_ns)
        order = self.orders.get((client, m["clientOrderId"]))
        values = {"timestamp": self.now_ns, "clientOrderId": m["clientOrderId"],
                  "correlationId": m["correlationId"], "instrumentId": m["instrumentId"]}
        if order is None or order.instrument_id != m["instrumentId"]:
            listed = m["instrumentId"] in self.books
            record.accepted = False
            record.reject = "UNKNOWN_ORDER" if listed else "INVALID_INSTRUMENT"
            record.text = f"no open order with clientOrderId {m['clientOrderId']} on instrumentId " \
                          f"{m['instrumentId']}" if listed else f"instrumentId {m['instrumentId']} is not listed"
            self.ledger.request(record)
            self.ledger.settle(record)
            self._emit(client, "CancelOrderReject", values | {
                "execId": self._next_exec(), "orderId": None,
                "reason": ENUMS["CancelOrderRejectReason"][record.reject], "details": record.text[:255]})
            return
        spec, left = self.books[order.instrument_id].spec, order.lots
        self._cancel(order, "BY_REQUEST", tell=False)
        record.cancelled = 1
        self.ledger.request(record)
        self._emit(client, "CancelOrderResponse", values | {
            "execId": self._next_exec(), "orderId": order.order_id, "receiveTime": self.now_ns,
            "quantity": spec.quantity(left + order.filled), "totalFilled": spec.quantity(order.filled)})

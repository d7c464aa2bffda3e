"""Positions and open lots under any interleaving of quotes, answers, fills, cancels and what the fabric is told.

A small fabric and a small exchange talk through queues that are emptied in any order between them, each queue in its
own order, as TCP and the host link are. The answers are those that the exchange sends (and the simulated one).
"""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdl.gate.answers import REDUCED, WHOLE
from hdl.layout import sbe
from host.positions import BUY, SELL, PositionError, Positions
from sim.golden.answers import Learned
from sim.golden.quote import State

STATUS = sbe.load("starbase_orders").enums["QuoteStatus"]
ID, OTHER = 501, 502
Q = 5


def lots(n):
    return {"mantissa": n, "exponent": -1}


def flat(prefix, n):
    return {f"{prefix}.mantissa": n, f"{prefix}.exponent": -1}


class Fabric:
    """Sent totals, live flags and the four words of the host, as in the gate's contract."""

    def __init__(self, count_kept):
        self.count_kept = count_kept
        self.sent, self.settled = [0, 0], [0, 0]
        self.live, self.lots = [None, None], [0, 0]     # lots: of the newest quote, whatever became of it
        self.position, self.quote_id, self.last_id = 0, 0, 0
        self.wire, self.records = deque(), deque()

    def quote(self, prices):
        """Emit: per side a price to quote at or ``None`` to pull. A side that is live at its price is kept."""
        frame, counted = [], []
        for side, px in enumerate(prices):
            self.lots[side] = 0 if px is None else Q
            if px is None:
                self.live[side] = None
                frame.append((0, 0))
                counted.append(False)
                continue
            kept = self.live[side] == (px, Q)
            counted.append(not kept or self.count_kept)
            self.sent[side] += Q * counted[-1]
            self.live[side] = (px, Q)
            frame.append((px, Q))
        self.last_id = self.quote_id
        self.wire.append(("quote", self.quote_id, frame))
        self.records.append(("quote", self.quote_id, [(lots, c) for (_, lots), c in zip(frame, counted, strict=True)]))
        self.quote_id += 1

    def mass_cancel(self):
        self.live = [None, None]
        self.wire.append(("cancel", self.quote_id))
        self.records.append(("cancel", self.quote_id))
        self.quote_id += 1

    def update(self, u):
        self.position = u.position
        self.settled = [u.settled_bid, u.settled_ask]
        for side, clear in enumerate((u.clear_bid, u.clear_ask)):
            if clear and self.last_id & 0xFFFFFFFF == u.quote_id:
                self.live[side] = None

    def open(self, side):
        return (self.sent[side] - self.settled[side]) & 0xFFFFFFFF


class LearningFabric(Fabric):
    """One that reads the exchange's answers itself, as :mod:`hdl.gate.positions` says."""

    def __init__(self, count_kept):
        super().__init__(count_kept)
        self.state, self.events = State(pos_next=1, pos_valid=True), deque()
        self.orders, self.answered_id = [0, 0], -1

    def hear(self, number, name, values):
        """The exchange's message of this number is read; what it says is learned one by one."""
        next_ = number + 1
        if name == "MassQuoteResponse":
            for entry in values["quotes"]:
                self.orders = [entry[f"{side}OrderId"] for side in ("bid", "ask")]
                self.answered_id = values["quoteId"]
                status = [entry[f"{side}Status"] for side in ("bid", "ask")]
                whole = [its in WHOLE for its in status]
                stands = [its in WHOLE + REDUCED for its in status]
                self.events.append(Learned(1, answered=3, stands=stands[0] | stands[1] << 1,
                                           less=3 - (whole[0] | whole[1] << 1), quote_id=values["quoteId"], next=next_))
            for side, group in enumerate(("bidFills", "askFills")):
                self.events += [Learned(1, True, side, f["fillQty.mantissa"], quote_id=values["quoteId"], next=next_)
                                for f in values[group]]
        elif name == "OrderFilled":
            self.events += [Learned(1, True, f["side"] == SELL, f["fillQty.mantissa"], quote_id=f["clientOrderId"],
                                    next=next_) for f in values["fills"]]
        elif name == "MassQuoteReject":
            self.answered_id = values["quoteId"]
            self.events.append(Learned(1, refused=3, quote_id=values["quoteId"], next=next_))
        elif name == "OrdersCanceled":
            for order in values["orders"]:
                gone = sum((its == order["orderId"]) << n for n, its in enumerate(self.orders))
                if gone:
                    self.events.append(Learned(1, answered=gone, less=gone, quote_id=self.answered_id, next=next_))
        elif name == "MassCancelResponse" and values["correlationId"] < self.quote_id:      # not the host's
            self.events.append(Learned(1, earlier=True, answered=3, quote_id=values["correlationId"], next=next_))

    def learn(self):
        learned, st = self.events.popleft(), self.state
        st.last_quote_id, st.position = self.last_id, self.position
        (st.sent_bid, st.sent_ask), (st.settled_bid, st.settled_ask) = self.sent, self.settled
        for name, live in zip(("bid", "ask"), self.live, strict=True):
            setattr(st, f"live_{name}", live is not None)
        st.live_bid_lots, st.live_ask_lots = self.lots
        learned.of(st)
        self.position, self.settled = st.position, [st.settled_bid, st.settled_ask]
        self.live = [live if still else None for live, still in zip(self.live, (st.live_bid, st.live_ask), strict=True)]

    def update(self, u):
        settled, position, st = self.settled, self.position, self.state
        super().update(u)
        if u.next_message < st.pos_next:    # it is behind; what it clears counts all the same
            self.settled, self.position = settled, position
        else:
            st.pos_next, st.pos_told = u.next_message, True


class Exchange:
    """One instrument; a quote replaces the one before it on its side, also after a partial fill."""

    def __init__(self):
        self.book = [None, None]  # [order id, px, lots, quote id]
        self.position, self.orders, self.matches = 0, 0, 0
        self.out = deque()
        self.refuse = 0
        self.cross = [0, 0]     # so much of each side of the next quote trades as it arrives

    def take(self, frame):
        if frame[0] == "cancel":
            n = sum(b is not None for b in self.book)
            gone = [{"clientOrderId": b[3], "orderId": b[0], "instrumentId": ID, "cancelReason": 12, "flags": 1}
                    for b in self.book if b]
            self.book = [None, None]
            self.out.append(("MassCancelResponse", {"correlationId": frame[1], "totalOrderCount": n}))
            if gone:
                self.out.append(("OrdersCanceled", {"orders": gone}))
            return
        _, quote_id, sides = frame
        if self.refuse:
            self.refuse -= 1
            self.out.append(("MassQuoteReject", {"quoteId": quote_id, "correlationId": quote_id}))
            return
        entry, fills = {"instrumentId": ID}, {"bidFills": [], "askFills": []}
        for side, (px, count) in enumerate(sides):
            name, standing = ("bid", "ask")[side], self.book[side]
            if not count:
                status = STATUS["CANCELED_BY_REQUEST"] if standing else STATUS["INACTIVE"]
                entry |= {f"{name}OrderId": standing[0] if standing else 0, f"{name}Status": status,
                          **flat(f"{name}Qty", 0)}
                self.book[side] = None
                continue
            if standing and standing[1] == px and count == standing[2]:
                status = STATUS["UNMODIFIED"]
                standing[3] = quote_id
            else:
                status = STATUS["UPDATED"]
                if standing:
                    standing[1:] = [px, count, quote_id]
                else:
                    self.orders += 1
                    self.book[side] = [self.orders, px, count, quote_id]
            at_once = min(count, self.cross[side])
            if at_once:
                self.cross[side], status = 0, STATUS["UPDATED"]
                self.matches += 1
                self.position += (1, -1)[side] * at_once
                self.book[side][2] = count = count - at_once
                fills[f"{name}Fills"].append({"matchId": self.matches, "instrumentId": ID, "fillPrice": px,
                                              **flat("fillQty", at_once)})
            entry |= {f"{name}OrderId": self.book[side][0], f"{name}Status": status if count else STATUS["FILLED"],
                      **flat(f"{name}Qty", count)}
            if not count:
                self.book[side] = None
        self.out.append(("MassQuoteResponse", {"quoteId": quote_id, "quotes": [entry], **fills}))

    def trade(self, side, count):
        order = self.book[side]
        if order is None:
            return
        count = min(count, order[2])
        order[2] -= count
        self.matches += 1
        self.position += (1, -1)[side] * count
        self.out.append(("OrderFilled", {"fills": [{
            "clientOrderId": order[3], "orderId": order[0], "instrumentId": ID, "matchId": self.matches,
            "price": order[1], **flat("fillQty", count), "side": (BUY, SELL)[side]}]}))
        if not order[2]:
            self.book[side] = None

    def cancel(self, side):
        order = self.book[side]
        if order:
            self.book[side] = None
            self.out.append(("OrdersCanceled", {"orders": [{"clientOrderId": order[3], "orderId": order[0],
                                                            "instrumentId": ID, "cancelReason": 4, "flags": 1}]}))


class World:
    def __init__(self, count_kept, fabric=Fabric):
        self.fabric, self.exchange = fabric(count_kept), Exchange()
        self.said, self.heard, self.answered = [], 0, 0     # by the exchange, to the fabric, to the host
        self.host = Positions([(OTHER, 1, 0, 0), (ID, 1, -1, 0)])
        self.host.updates(everything=True)
        self.updates = deque()  # what the host sends to the fabric, in its order
        self.own_cancels = 0

    def own(self):
        """The host sends a mass cancel of its own through the fabric."""
        self.own_cancels += 1
        correlation_id = (1 << 62) + self.own_cancels
        self.host.own_cancel(correlation_id)
        self.updates.append(("cancel", correlation_id))

    def record(self):
        if self.fabric.records:
            r = self.fabric.records.popleft()
            if r[0] == "quote":
                self.host.decision(1, r[1], *r[2])
            else:
                self.host.mass_cancel(r[1])
            self.updates.extend(self.host.updates(next_message=self.answered + 1))

    def frame(self):
        if self.fabric.wire:
            self.exchange.take(self.fabric.wire.popleft())

    def _listen(self):
        while self.exchange.out:
            self.said.append(self.exchange.out.popleft())

    @property
    def unheard(self):
        """Something that the exchange has said did not come to the host, or to a fabric that listens."""
        self._listen()
        return self.answered < len(self.said) or (
            hasattr(self.fabric, "hear") and (self.heard < len(self.said) or bool(self.fabric.events)))

    def hear(self):
        self._listen()
        if self.fabric.events:
            self.fabric.learn()
        elif self.heard < len(self.said):
            self.heard += 1
            self.fabric.hear(self.heard, *self.said[self.heard - 1])

    def listen(self):
        """The fabric hears all that was said."""
        self._listen()
        while self.heard < len(self.said) or self.fabric.events:
            self.hear()

    def answer(self):
        self._listen()
        if self.answered < len(self.said):
            self.answered += 1
            self.host.message(*self.said[self.answered - 1])
            self.updates.extend(self.host.updates(next_message=self.answered + 1))

    def tell(self):
        if self.updates:
            u = self.updates.popleft()
            if isinstance(u, tuple):
                self.fabric.wire.append(u)
            elif u.instrument == 1:
                self.fabric.update(u)

    def settle(self):
        while self.fabric.wire or self.fabric.records or self.unheard or self.updates:
            self.record()
            self.frame()
            if hasattr(self.fabric, "hear"):
                self.hear()
            self.answer()
            self.tell()

    def worst(self, side):
        """Most that can be held in the direction of ``side``: everything standing and every frame on its way trades."""
        on_the_way = sum(f[2][side][1] for f in self.fabric.wire if f[0] == "quote")
        standing = self.exchange.book[side][2] if self.exchange.book[side] else 0
        return (1, -1)[side] * self.exchange.position + standing + on_the_way

    def believed(self, side):
        return (1, -1)[side] * self.fabric.position + self.fabric.open(side)


PRICES = st.sampled_from([None, 100, 100, 101])
STEPS = st.lists(st.one_of(
    st.tuples(st.just("quote"), PRICES, PRICES),
    st.tuples(st.sampled_from(["record", "frame", "answer", "tell", "mass", "own", "refuse"])),
    st.tuples(st.sampled_from(["record", "frame", "answer", "tell"])),
    st.tuples(st.just("trade"), st.integers(0, 1), st.integers(1, Q)),
    st.tuples(st.just("cancel"), st.integers(0, 1)),
), max_size=60)


def perform(world, step):
    kind, *arguments = step
    {"quote": lambda: world.fabric.quote(arguments), "record": world.record, "frame": world.frame, "own": world.own,
     "answer": world.answer, "tell": world.tell, "mass": world.fabric.mass_cancel,
     "trade": lambda: world.exchange.trade(*arguments), "hear": world.hear,
     "cross": lambda: world.exchange.cross.__setitem__(*arguments),
     "cancel": lambda: world.exchange.cancel(*arguments),
     "refuse": lambda: setattr(world.exchange, "refuse", world.exchange.refuse + 1)}[kind]()


def never_understates(world, steps):
    """After each step what is believed covers the worst that can still happen; in the end it is what there is."""
    for step in steps:
        perform(world, step)
        for side in (0, 1):
            assert world.believed(side) >= world.worst(side), (step, side)
            assert world.fabric.open(side) < 1 << 31
    world.settle()
    for side in (0, 1):
        standing = world.exchange.book[side][2] if world.exchange.book[side] else 0
        assert world.fabric.open(side) == standing
    assert world.fabric.position == world.exchange.position == world.host.lots(1)[0]


@given(STEPS)
@settings(max_examples=600, deadline=None)
def test_exposure_is_never_understated(steps):
    """At every instant the fabric's position + open covers the worst that can still happen; no drift remains after."""
    world = World(count_kept=True)
    never_understates(world, steps)
    assert world.host.unanswered == 0
    assert world.host.lots(0) == (0, 0, 0)


LEARNING = st.lists(st.one_of(
    st.tuples(st.just("quote"), PRICES, PRICES),
    st.tuples(st.sampled_from(["record", "frame", "answer", "hear", "tell", "mass", "own", "refuse"])),
    st.tuples(st.sampled_from(["record", "frame", "answer", "hear", "hear", "tell"])),
    st.tuples(st.just("trade"), st.integers(0, 1), st.integers(1, Q)),
    st.tuples(st.just("cross"), st.integers(0, 1), st.integers(1, Q)),
    st.tuples(st.just("cancel"), st.integers(0, 1)),
), max_size=60)


@given(LEARNING)
@settings(max_examples=1500, deadline=None)
def test_a_fabric_that_learns_by_itself_never_understates(steps):
    """Whoever hears of an answer first, and however far the other one is behind: each counts once."""
    world = World(count_kept=True, fabric=LearningFabric)
    never_understates(world, steps)


@pytest.mark.parametrize("order", [("answer", "tell", "hear"), ("answer", "hear", "tell"), ("hear", "answer", "tell")])
def test_whoever_hears_of_a_fill_first(order):
    world = World(count_kept=True, fabric=LearningFabric)
    world.fabric.quote([100, 105])
    world.settle()
    world.exchange.trade(0, 2)
    for step in order:
        perform(world, (step,))
        if step == "hear":
            perform(world, (step,))     # it is read, and then learned
    assert (world.fabric.position, world.fabric.open(0), world.fabric.open(1)) == (2, 3, 5)
    assert world.fabric.live == [None, (105, Q)]


@given(STEPS)
@settings(max_examples=600, deadline=None)
def test_a_fabric_that_learns_needs_no_host(steps):
    """Whatever the exchange says: with all of it heard and nothing on the way, the fabric is right, without a word of
    the host's."""
    world = World(count_kept=True, fabric=LearningFabric)
    for step in steps:
        if step[0] in ("record", "answer", "tell", "own"):
            continue
        perform(world, step)
        while world.fabric.wire:
            world.frame()
        world.listen()
        assert world.fabric.position == world.exchange.position
        for side, standing in enumerate(world.exchange.book):
            assert world.fabric.open(side) == (standing[2] if standing else 0)
            assert standing or world.fabric.live[side] is None


@given(STEPS)
@settings(max_examples=400, deadline=None)
def test_no_drift_whatever_the_fabric_counts(steps):
    """A fabric that counts only changed sides: when all has been said, what it believes is what stands."""
    world = World(count_kept=False)
    for step in steps:
        perform(world, step)
    world.settle()
    for side in (0, 1):
        standing = world.exchange.book[side][2] if world.exchange.book[side] else 0
        assert world.fabric.open(side) == standing
    assert world.fabric.position == world.exchange.position


def test_a_partial_fill_behind_a_kept_side():
    """The reason for counting kept sides: a frame that repeats a partly filled side fills it up again."""
    believed = {}
    for count_kept in (False, True):
        world = World(count_kept)
        world.fabric.quote([100, 105])
        world.settle()
        world.exchange.trade(0, 3)  # bid: 3 of 5 gone, the host does not know yet
        world.fabric.quote([100, 106])  # only the ask moves, the bid is kept
        world.frame()  # ... and stands at 5 again
        assert world.worst(0) == 3 + Q
        believed[count_kept] = world.believed(0)
    assert believed == {False: 5, True: 10}


def response(quote_id, bid, ask, bid_status="UPDATED", ask_status="UPDATED", **extra):
    return {"quoteId": quote_id, "quotes": [{
        "instrumentId": ID, "bidOrderId": 11, "askOrderId": 12, "bidStatus": STATUS[bid_status],
        "askStatus": STATUS[ask_status], **flat("bidQty", bid), **flat("askQty", ask)}], "bidFills": [], "askFills": [],
        **extra}


def fill(match, count, side=BUY, order=11, quote=1, instrument=ID):
    return {"clientOrderId": quote, "orderId": order, "instrumentId": instrument, "matchId": match, "price": 7,
            **flat("fillQty", count), "side": side}


def one():
    host = Positions([(ID, 1, -1, 0)])
    assert [u.instrument for u in host.updates(everything=True)] == [0]
    host.decision(0, 1, (Q, True), (Q, True))
    return host


def test_fill_on_arrival():
    host = one()
    fills = host.message("MassQuoteResponse", response(1, 2, 5, bidFills=[
        {"matchId": 9, "instrumentId": ID, "fillPrice": 7, **flat("fillQty", 3)}]))
    assert [(f.side, f.lots, f.maker) for f in fills] == [(BUY, 3, False)]
    assert host.lots(0) == (3, 2, 5)
    (update,) = host.updates(next_message=1 << 32 | 8)
    assert (update.position, update.clear_bid, update.clear_ask, update.quote_id) == (3, True, False, 1)
    assert update.registers() == {"pos_value": 3, "pos_settled_bid": 3, "pos_settled_ask": 0, "pos_quote_id": 1,
                                  "pos_next": 8, "pos_commit": 0x100}


def test_a_repeated_fill_counts_once():
    host = one()
    host.message("MassQuoteResponse", response(1, 5, 5))
    assert len(host.message("OrderFilled", {"fills": [fill(1, 2)]})) == 1
    assert host.message("OrderFilled", {"fills": [fill(1, 2)]}) == []
    assert host.lots(0) == (2, 3, 5)


def test_a_fill_behind_an_answer_that_waits():
    """It counts at once; of the order, whose size that answer says, it takes its lots when that is known."""
    host = one()
    assert host.message("MassQuoteResponse", response(2, 5, 5)) == []
    (it,) = host.message("OrderFilled", {"fills": [fill(1, 2, quote=2)]})
    assert (it.lots, host.lots(0)) == (2, (2, 5, 5))
    assert host.decision(0, 2, (Q, True), (Q, True)) == []
    assert host.lots(0) == (2, 3, 5)
    (update,) = host.updates()
    assert (update.position, update.settled_bid, update.settled_ask) == (2, 7, 5)
    assert (update.clear_bid, update.clear_ask, update.quote_id) == (True, False, 2)


def test_an_answer_that_overtakes_its_record_waits():
    host = one()
    assert host.message("MassQuoteResponse", response(2, 5, 5)) == []
    assert host.lots(0) == (0, 5, 5)
    host.decision(0, 2, (Q, False), (Q, True))
    assert host.lots(0) == (0, 5, 5)
    assert host.unanswered == 0


def test_a_side_refused_is_quoted_afresh():
    host = one()
    host.message("MassQuoteResponse", response(1, 0, 5, bid_status="INACTIVE"))
    (update,) = host.updates()
    assert (update.clear_bid, update.clear_ask) == (True, False)
    assert host.lots(0) == (0, 0, 5)


def test_a_refused_message_leaves_what_stood():
    host = one()
    host.message("MassQuoteResponse", response(1, 5, 0, ask_status="FILLED"))
    host.updates()
    host.decision(0, 2, (Q, True), (Q, True))
    assert host.lots(0) == (0, 10, 5)
    host.message("MassQuoteReject", {"quoteId": 2, "correlationId": 2})
    assert host.lots(0) == (0, 5, 0)
    (update,) = host.updates()
    assert (update.clear_bid, update.clear_ask) == (False, True)  # the bid still stands: a pull must reach it


def test_our_own_cancel_settles_what_was_sent_before_it():
    host = one()
    host.message("MassQuoteResponse", response(1, 5, 5))
    host.mass_cancel(2)  # never answered
    host.own_cancel(1 << 62)
    host.decision(0, 3, (Q, True), (0, False))  # behind it
    assert (host.answered(1 << 62), host.unanswered) == (False, 3)
    host.message("MassCancelResponse", {"correlationId": 1 << 62, "totalOrderCount": 2})
    assert (host.answered(1 << 62), host.unanswered) == (True, 1)
    assert host.lots(0) == (0, 5, 0)
    host.message("MassCancelResponse", {"correlationId": 2, "totalOrderCount": 0})  # too late to matter
    assert host.lots(0) == (0, 5, 0)


def test_a_later_own_cancel_stands_for_an_earlier_one():
    host = one()
    host.own_cancel((1 << 62) + 1)
    host.own_cancel((1 << 62) + 2)
    host.message("MassCancelResponse", {"correlationId": (1 << 62) + 2, "totalOrderCount": 2})
    assert (host.unanswered, host.lots(0)) == (0, (0, 0, 0))


@pytest.mark.parametrize(("values", "text"), [
    ({"fills": [fill(1, 1, instrument=999)]}, "instrumentId 999, which is not quoted; quoted are 501"),
    ({"fills": [fill(1, 1, side=0)]}, "fill 1 has side 0, must be 1 or -1"),
    ({"fills": [{**fill(1, 1), "fillQty.mantissa": 15, "fillQty.exponent": -2}]}, "15e-2 is no number of lots of 1e-1"),
    ({"fills": [{**fill(1, 1), "fillQty.mantissa": -1}]}, "is no number of lots"),
    ({"fills": [{**fill(1, 1), "fillQty.exponent": 127}]}, "is out of any range"),
])
def test_what_cannot_be_is_refused(values, text):
    with pytest.raises(PositionError, match=text):
        one().message("OrderFilled", values)


def test_negative_and_wrapping_words():
    host = Positions([(ID, 1, -1, -7)])
    (update,) = host.updates(everything=True)
    assert update.registers()["pos_value"] == 0xFFFFFFF9
    host.decision(0, 1, (Q, True), (Q, True))
    host._books[0].bid.sent = host._books[0].bid.acked_total = (1 << 32) + 2
    host._books[0].dirty = True
    assert host.updates()[0].registers()["pos_settled_bid"] == 2

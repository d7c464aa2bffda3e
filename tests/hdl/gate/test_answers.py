"""Answers against the model of what is wrong, what is weighed and when; the gates behind it have tests of their own."""

import random

import pytest
from amaranth.back import verilog

from hdl.control.registers import PARAM_BY_NAME
from hdl.gate.answers import KEEP_CYCLES, LEARN_CYCLES, READ_CYCLES, VISIT_CYCLES, Answers
from hdl.gate.holds import HOLDING
from hdl.order.responses import NO_REASON, SCHEMA, Kind
from sim.golden.answers import Event, Learned, judged, lots_of
from tests.hdl.simulation import simulated

SEED = 19
WIDE = {"fills_cycles": 1 << 30, "fills_lots": (1 << 24) - 1, "fills_delta": (1 << 24) - 1, "fills_most": 255,
        "freeze_cycles": 0, "repeats_most": 255, "refusals_cycles": 1 << 30, "refusals_most": 255}
INSTRUMENTS, SENT = 5, 1000
STATUS = SCHEMA.enums["QuoteStatus"]


def row_of(n, mult=1000, exponent=-3):
    return {"instrument_id_lo": 77 + n, "instrument_id_hi": 3, "lot_mult": mult, "lot_exp": exponent}


def quote_id(instrument, number=SENT - 1):
    return number << 8 | instrument


class Bench:
    """The unit, rows of instruments behind it, and posts that are taken now or then."""

    def __init__(self, ctx, dut, rng=None, **limits):
        self.ctx, self.dut, self.rng = ctx, dut, rng or random.Random(SEED)
        self.rows = [row_of(n) for n in range(INSTRUMENTS)]
        self.cycle, self.posts, self.wrongs, self.takes = 0, [], [], 1.
        self.learned, self.settles, self.waited = [], 1., 0     # ... how often learning has its turn, waits in all
        for name, value in (WIDE | limits).items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.next_number, SENT)
        self.asked = []

    async def step(self, cycles=1, **strobes):
        ctx, dut = self.ctx, self.dut
        for name, value in strobes.items():
            ctx.set(getattr(dut, name), value)
        for _ in range(cycles):
            # A word that was asked for in the four cycles before, and in all but one of them the port was not free.
            self.asked = [*self.asked[-4:], (ctx.get(dut.index), ctx.get(dut.word))]
            ctx.set(dut.post_ready, self.rng.random() < self.takes)
            if ctx.get(dut.post.valid) and ctx.get(dut.post_ready):
                [gate] = [HOLDING[n] for n in range(len(HOLDING)) if ctx.get(dut.post.gate) >> n & 1]
                self.posts.append((self.cycle, gate, *(ctx.get(getattr(dut.post, name))
                                                       for name in ("instrument", "bid", "ask"))))
            turn = self.rng.random() < self.settles if ctx.get(dut.learn) else self.rng.random() < .1
            ctx.set(dut.settled, turn)
            if ctx.get(dut.learn):
                self.waited += not turn
                if turn:
                    its = ctx.get(dut.learned)
                    self.learned.append(Learned(ctx.get(dut.index), *(
                        getattr(its, name) for name in Learned._fields if name != "instrument")))
            self.taken = ctx.get(dut.i.valid) and ctx.get(dut.i.ready)
            if ctx.get(dut.wrong):
                self.wrongs.append(self.cycle)
            await ctx.tick()
            self.cycle += 1
            for name in ("release", "tick", "quoted"):
                ctx.set(getattr(dut, name), 0)
            index, word = self.rng.choice(self.asked[:-1] or self.asked)
            names = {PARAM_BY_NAME[name].word: name for name in self.rows[0]}
            ctx.set(dut.data, self.rows[index][names[word]] & (1 << PARAM_BY_NAME[names[word]].width) - 1
                    if index < INSTRUMENTS and word in names else self.rng.getrandbits(32))

    async def start(self):
        while self.ctx.get(self.dut.clearing):
            await self.step()

    async def event(self, event):
        """Until it is done with: the cycles that took, from the one in which it was taken up on."""
        reasons = [0x05 if n < event.refused else NO_REASON for n in range(2)]
        self.ctx.set(self.dut.i.payload, {
            **{name: getattr(event, name) for name in ("kind", "id", "instrument_id", "side", "mantissa", "exponent")},
            "bid_reason": reasons[0], "ask_reason": reasons[1], "next": event.next, "order_id": event.orders[0],
            "bid_order_id": event.orders[0], "ask_order_id": event.orders[1],
            "bid_status": event.status[0], "ask_status": event.status[1]})
        self.ctx.set(self.dut.i.valid, 1)
        began, waited = self.cycle, self.waited
        await self.until_taken()
        self.ctx.set(self.dut.i.valid, 0)
        return self.cycle - 1 - began - (self.waited - waited)

    async def until_taken(self):
        for _ in range(5000):
            await self.step()
            if self.taken:
                return
        raise AssertionError("it is never done with")

    async def visit(self):
        await self.step(tick=1)
        await self.step(VISIT_CYCLES + 8)


def simulate(test, rng=None, settles=1., **limits):
    dut = Answers(INSTRUMENTS)

    async def testbench(ctx):
        b = Bench(ctx, dut, rng, **limits)
        b.settles = settles
        await b.start()
        await test(b)

    simulated(dut, testbench)


def fill(instrument, lots=1, side=0, **changes):
    values = {"id": quote_id(instrument), "instrument_id": 3 << 32 | 77 + instrument, "side": side,
              "mantissa": 1000 * lots, "exponent": -3}
    return Event(Kind.FILL, **values | changes)


def ack(instrument, refused):
    return Event(Kind.ACK, quote_id(instrument), 3 << 32 | 77 + instrument, refused=refused)


@pytest.mark.parametrize("instruments", [1, 256])
def test_converts(instruments):
    assert "module" in verilog.convert(Answers(instruments))


def test_nothing_is_taken_up_before_the_rows_are_clear():
    dut = Answers(INSTRUMENTS)

    async def testbench(ctx):
        b = Bench(ctx, dut)
        assert await b.event(Event(Kind.CANCELLED, quote_id(0))) == READ_CYCLES + INSTRUMENTS
    simulated(dut, testbench)


def test_what_is_wrong():
    """Everything about an id, one thing at a time."""
    its = 3 << 32 | 77
    right = [
        Event(Kind.ACK, quote_id(0), its), Event(Kind.ACK, quote_id(0, 0), its), fill(4),
        *(Event(kind, quote_id(0)) for kind in (Kind.CANCELLED, Kind.PLACED)),
        *(Event(kind, quote_id(9, SENT + 5)) for kind in (
            Kind.REJECT, Kind.MASS_CANCELLED, Kind.MMP_TRIGGERED, Kind.MMP_UNFROZEN)),
        Event(Kind.CANCELLED, quote_id(200))]
    wrong = [
        *(Event(kind, quote_id(0, SENT), its) for kind in (Kind.ACK, Kind.FILL, Kind.CANCELLED, Kind.PLACED)),
        Event(Kind.ACK, quote_id(0, (1 << 56) - 1), its), Event(Kind.ACK, quote_id(1), its),
        Event(Kind.ACK, quote_id(INSTRUMENTS), its), Event(Kind.ACK, quote_id(0), its | 1 << 63),
        Event(Kind.ACK, quote_id(0), its ^ 1), fill(1, instrument_id=its), Event(Kind.SESSION_REJECT, quote_id(0), its)]

    async def test(b):
        for event in right + wrong:
            count = len(b.wrongs)
            took = await b.event(event)
            await b.step(3)
            assert (len(b.wrongs) > count) == (event in wrong), event
            if event in wrong:
                assert b.wrongs[-1] == b.cycle - 3
                assert took == READ_CYCLES
        assert b.posts == []
    simulate(test)


QUANTITIES = [
    # mantissa, exponent, lot_mult, lot_exp
    (1000, -3, 1000, -3), (5, 0, 1000, -3), (5, 0, 5, -1), (25, -1, 25, -1), (1, -1, 25, -2), (10 ** 9, -9, 1, 0),
    (7 * 10 ** 15, -15, 1, 0), ((1 << 24) - 1, 0, 1, 0), (1 << 24, 0, 1, 0), ((1 << 24) - 1, 0, 1 << 31, 0),
    (((1 << 24) - 1) << 31, 0, 1 << 31, 0), (1, 15, 1, 0), (1, 16, 1, 0), (1, -16, 1, 0), (1, 0, 1, 15), (3, 0, 1, -7),
    (0, 0, 1, 0), (-1000, -3, 1000, -3), (1 << 56, 0, 1, 0), (1 << 63, 0, 1, 0), (1001, -3, 1000, -3),
    (999, -3, 1000, -3), (1, 0, 0, 0), (15, -1, 1, 0), (20, -1, 1, 0), (4, -1, 1, 0), (1, 0, 3, 0), (12, 0, 3, 0),
    (1 << 55, 1, 1, 0), (7205759403792794, 1, 1 << 31, 0), (1, -128, 1, 127), (1, 127, 1, -128),
    # What runs over the upper end would be whole lots below it; and the greatest tenth.
    (1 << 53, 1, 1 << 31, 0), (((1 << 56) + (3 << 31)) // 10, 1, 1 << 31, 0), (8, -1, 1, 0),
    (((1 << 24) - 1) * 4 * 10 ** 9, -1, 4 * 10 ** 8, 0)]


def test_quantities():
    """In lots, exactly, or wrong; and as soon as promised."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    cases = list(QUANTITIES)
    for _ in range(60):
        mult, exponent, lots = rng.choice((1, 2, 5, 10, 1000, 12345, 1 << 20, 10 ** 9)), rng.randrange(-9, 3), \
            rng.choice((1, 2, 10, 777, 100_000, rng.randrange(1, 1 << 24)))
        value, decades = lots * mult, rng.randrange(-3, 4)
        value = value * 10 ** -decades if decades < 0 else value // 10 ** (0 if value % 10 ** decades else decades)
        cases.append((value + rng.choice((0, 0, 0, 1, -1)), exponent + decades, mult, exponent))
    seen = {"whole": 0, "not": 0}

    async def test(b):
        for mantissa, exponent, mult, lot_exp in cases:
            b.rows[2] = row_of(2, mult, lot_exp)
            signed = mantissa - (1 << 64) if mantissa >> 63 == 1 else mantissa
            lots, cycles = lots_of(signed, exponent, mult, lot_exp)
            count = len(b.wrongs)
            took = await b.event(fill(2, mantissa=signed, exponent=exponent))
            await b.step(2)
            assert (len(b.wrongs) > count) == (lots is None), (mantissa, exponent, mult, lot_exp)
            assert took == READ_CYCLES + cycles + (LEARN_CYCLES + 1 if lots else 0)
            seen["whole" if lots else "not"] += 1
            if lots:
                assert b.learned[-1].lots == lots
    simulate(test)
    print(seen)
    assert min(seen.values()) > 15


def test_each_gate_is_told():
    """A fill that is too much, on one side; a refusal; and what the host lets go, with the instrument's visit."""
    async def test(b):
        await b.event(fill(1, 4))
        assert b.posts == []
        await b.event(fill(1, 4, side=1))
        await b.event(ack(3, 1))
        await b.event(ack(3, 2))
        await b.step(10)
        assert [post[1:] for post in b.posts] == [(17, 1, 1, 1), (20, 3, 1, 1)]
        b.ctx.set(b.dut.repeats_most, 0)
        await b.event(fill(2, 4, side=1))
        await b.event(fill(2, 1, side=0))
        await b.event(Event(Kind.REJECT, quote_id(0)))
        await b.event(Event(Kind.REJECT, quote_id(0)))
        await b.step(10)
        assert [post[1:] for post in b.posts[2:]] == [(18, 2, 0, 1), (18, 2, 1, 1), (20, 0, 1, 1)]
        for _ in range(INSTRUMENTS):
            await b.visit()
        assert len(b.posts) == 5
        for n in (1, 2, 3):
            await b.step(release=1, release_instrument=n)
        for _ in range(INSTRUMENTS):
            await b.visit()
        assert [post[1:] for post in b.posts[5:]] == [(17, 1, 0, 0), (18, 2, 0, 0), (20, 3, 0, 0)]
    simulate(test, fills_lots=7, refusals_most=2)


def test_limits_have_all_their_bits():
    """With the highest one alone each of them lets a little pass."""
    async def test(b):
        for lots, side in ((3, 0), (4, 1)):
            await b.event(fill(1, lots, side))
        await b.event(ack(1, 2))
        await b.step(quoted=1, quoted_instrument=1, quoted_bid=1, quoted_ask=1)
        await b.event(fill(1, 1))
        await b.step(10)
        assert b.posts == []
        assert b.wrongs == []
    simulate(test, fills_cycles=1 << 31, fills_lots=1 << 23, fills_delta=1 << 23, fills_most=1 << 7,
             repeats_most=1 << 7, refusals_cycles=1 << 31, refusals_most=1 << 7)


def test_bought_and_sold():
    """They make up for each other; and a fill is no refusal, whatever is left in the fields of one."""
    async def test(b):
        for side in (0, 1, 1, 0):
            await b.event(fill(3, 4, side)._replace(refused=2))
        await b.step(10)
        assert b.posts == []
        await b.event(fill(3, 6, 1))
        await b.step(10)
        assert [post[1:] for post in b.posts] == [(17, 3, 1, 1)]
    simulate(test, fills_delta=5, refusals_most=1)


def test_what_is_refused_has_not_traded():
    """Not even where one fill is too much, and then the first fill is told."""
    async def test(b):
        await b.event(ack(2, 1))
        await b.event(Event(Kind.REJECT, quote_id(2)))
        await b.step(10)
        assert b.posts == []
        await b.event(fill(2))
        await b.step(10)
        assert [post[1:] for post in b.posts] == [(18, 2, 1, 0)]
    simulate(test, repeats_most=0)


def test_what_is_quoted_counts():
    """A side that traded, was quoted, and trades again: that of the instrument and no other one."""
    async def test(b):
        for n, sides in ((4, (1, 1)), (2, (0, 1)), (2, (1, 0))):
            await b.event(fill(2))
            await b.step(quoted=1, quoted_instrument=n, quoted_bid=sides[0], quoted_ask=sides[1])
            await b.step(20)
            assert b.posts == []
        await b.event(fill(2))
        await b.step(10)
        assert [post[1:] for post in b.posts] == [(18, 2, 1, 0)]
        await b.event(fill(4, side=1))
        await b.step(quoted=1, quoted_instrument=4, quoted_bid=1, quoted_ask=1)
        await b.event(fill(4, side=1))
        await b.step(10)
        assert [post[1:] for post in b.posts[1:]] == [(18, 4, 0, 1)]
    simulate(test, repeats_most=1)


def test_a_freeze_ends_with_a_visit():
    async def test(b):
        await b.event(fill(1, 8))
        await b.step(300)
        for _ in range(INSTRUMENTS):
            await b.visit()
        assert [post[1:] for post in b.posts] == [(17, 1, 1, 1), (17, 1, 0, 0)]
    simulate(test, fills_lots=7, freeze_cycles=250)


def test_posts_wait():
    """Three of one visit, one after the other, whenever they are taken."""
    async def test(b):
        b.takes = .3
        b.ctx.set(b.dut.repeats_most, 0)
        await b.event(fill(0, 8))
        await b.event(ack(0, 2))
        await b.step(40, release=1, release_instrument=0)
        await b.step(tick=1)
        await b.step(60)
        assert [post[1:] for post in b.posts] == [
            (17, 0, 1, 1), (18, 0, 1, 0), (20, 0, 1, 1), (17, 0, 0, 0), (18, 0, 0, 0), (20, 0, 0, 0)]
    simulate(test, fills_lots=7, refusals_most=1)


@pytest.mark.parametrize("late", [0, 1, VISIT_CYCLES, VISIT_CYCLES + 1])
def test_a_visit_goes_first(late):
    """An event that comes with a visit or in it waits for its end; a visit that finds an event is left out."""
    async def test(b):
        b.ctx.set(b.dut.tick, 1)
        await b.step(late)
        assert await b.event(Event(Kind.CANCELLED, quote_id(0))) == READ_CYCLES + max(0, VISIT_CYCLES + 1 - late)
        b.ctx.set(b.dut.tick, 0)
        await b.step(release=1, release_instrument=1)
        await b.event(fill(1, 8))
        await b.step(5)
        assert [post[1:] for post in b.posts] == [(17, 1, 1, 1)]
        b.ctx.set(b.dut.i.valid, 1)
        await b.step(1)
        await b.step(tick=1)        # not a visit
        await b.until_taken()
        b.ctx.set(b.dut.i.valid, 0)
        await b.visit()
        assert [post[1:] for post in b.posts] == [(17, 1, 1, 1), (17, 1, 0, 0)]
    simulate(test, fills_lots=7)


def an_order(rng):
    """Few of them, which differ in one half or the other."""
    return rng.choice((7, 8)) << 32 | rng.choice((1, 1 << 31))


def test_random_against_the_model():
    """What is wrong and what is not, of anything that may be said."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    seen = {}
    sent = 0x81_0000 + SENT     # ids have all of their lower bits

    async def test(b):
        b.ctx.set(b.dut.next_number, sent)
        orders = {}
        for _ in range(1100):
            n = rng.choice((0, 1, 4, 4, 4, 5, 200, 255))
            event = Event(rng.choice([*Kind, Kind.CANCELLED]), quote_id(n, rng.choice((0, 1, sent - 1, sent, 1 << 55))),
                rng.choice((3, 3, 3, 3, 3, 1 << 31)) << 32 | rng.choice((77 + n, 77 + n, 77 + n, 78)),
                rng.randrange(2), 1000 * rng.randrange(1, 4), -3, rng.randrange(3), rng.getrandbits(32),
                rng.choices([*STATUS.values(), 9, 0x80], k=2), [an_order(rng) for _ in range(2)])
            index, wrong = judged(event, sent, lambda i: 3 << 32 | 77 + i if i < INSTRUMENTS else None)
            cycles, told = READ_CYCLES, None
            if event.kind == Kind.FILL and not wrong:
                lots, more = lots_of(event.mantissa, -3, 1000, -3)
                cycles += more
                told = {"fill": 1, "side": event.side, "lots": lots, "answered": 0, "refused": 0, "earlier": 0}
            elif event.kind == Kind.REJECT and index is not None:
                told = {"fill": 0, "refused": 3, "answered": 0, "less": 0, "earlier": 0}
                orders[index] = orders.get(index, ((0, 0), 0))[0], event.id & 0xFFFF_FFFF
                cycles += KEEP_CYCLES
            elif event.kind == Kind.CANCELLED and not wrong and index is not None:
                gone = [its == event.orders[0] for its in orders.get(index, ((0, 0), 0))[0]]
                if any(gone):
                    gone = gone[0] + 2 * gone[1]
                    told = {"fill": 0, "refused": 0, "answered": gone, "stands": 0, "less": gone, "earlier": 0,
                            "quote_id": orders[index][1]}
            elif event.kind == Kind.MASS_CANCELLED and index is not None:
                told = {"fill": 0, "refused": 0, "answered": 3, "stands": 0, "less": 0, "earlier": 1}
            elif event.kind == Kind.ACK and not wrong:
                orders[index] = event.orders, event.id & 0xFFFF_FFFF
                cycles += KEEP_CYCLES
                whole = [STATUS["UNMODIFIED"], STATUS["UPDATED"], STATUS["FILLED"], STATUS["SPEED_BUMPED"]]
                told = {"fill": 0, "refused": 0, "answered": 3, "earlier": 0,
                        "less": sum((its not in whole) << n for n, its in enumerate(event.status)),
                        "stands": sum((its in (*whole, STATUS["QTY_REDUCED"])) << n
                                      for n, its in enumerate(event.status))}
            count, tells = len(b.wrongs), len(b.learned)
            took = await b.event(event)
            await b.step(rng.randrange(1, 4))
            assert (len(b.wrongs) > count) == wrong, event
            weighed = not wrong and (event.kind == Kind.FILL or (event.kind == Kind.ACK and event.refused > 0)
                                     or (event.kind == Kind.REJECT and index is not None))
            of = [] if told is None else range(INSTRUMENTS) if event.kind == Kind.MASS_CANCELLED else [index]
            assert took == cycles + (LEARN_CYCLES if weighed else 0) + len(of), event
            assert len(b.learned) == tells + len(of), event
            for its, instrument in zip(b.learned[tells:], of, strict=True):
                says = {"quote_id": event.id & 0xFFFF_FFFF, "next": event.next} | told | {"instrument": instrument}
                assert {name: getattr(its, name) for name in says} == says, event
            seen[event.kind, wrong] = seen.get((event.kind, wrong), 0) + 1
            if event.kind == Kind.CANCELLED and told is not None:
                seen[told["answered"]] = seen.get(told["answered"], 0) + 1
    simulate(test, rng, settles=.3)
    print(seen)
    for kind in (Kind.ACK, Kind.FILL, Kind.CANCELLED, Kind.PLACED):
        assert min(seen[kind, False], seen[kind, True]) >= 2, seen
    assert min(seen[gone] for gone in (1, 2, 3)) >= 2, seen

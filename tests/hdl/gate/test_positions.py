"""What a position becomes, against the model, whichever of host and exchange speaks."""

import random

import pytest
from amaranth.back import verilog

from hdl.gate.positions import Positions
from sim.golden.answers import Learned
from sim.golden.quote import State
from tests.hdl.simulation import simulated

SEED = 31


def test_converts():
    assert "module" in verilog.convert(Positions())


def ask(ctx, dut, st, learned=None, word=None):
    """Puts the question: a position, what is live, and what is said."""
    ctx.set(dut.known, {"lots": st.position, "settled_bid": st.settled_bid, "settled_ask": st.settled_ask,
                        "next": st.pos_next, "told": st.pos_told})
    ctx.set(dut.live, {"bid_px": 0, "ask_px": 0, "bid_lots": st.live_bid_lots, "ask_lots": st.live_ask_lots,
                       "quote_id": st.last_quote_id, "sent_bid": st.sent_bid, "sent_ask": st.sent_ask})
    ctx.set(dut.by_host, learned is None)
    if learned is not None:
        ctx.set(dut.learned, {name: getattr(learned, name) for name in learned._fields if name != "instrument"})
        ctx.set(dut.meant, learned.quote_id == st.last_quote_id)
    if word is not None:
        ctx.set(dut.word, word)


def gone(ctx, dut):
    """Whether the bid is cleared, and the ask."""
    meant = ctx.get(dut.meant)
    return tuple(bool((meant and ctx.get(getattr(dut, f"clear_{side}"))) or ctx.get(getattr(dut, f"spent_{side}")))
                 for side in ("bid", "ask"))


def wide(rng, bits):
    """A number that is likely to be near an end."""
    return rng.choice((0, 1, (1 << bits) - 1, 1 << bits - 1, (1 << bits - 1) - 1, rng.getrandbits(bits),
                       rng.getrandbits(bits)))


def something(rng, st, next_):
    """Anything that the exchange may say of a position that is ``st``."""
    other = st.last_quote_id ^ 1 << rng.randrange(32)
    says = {"instrument": 3, "quote_id": rng.choice((st.last_quote_id, other)), "next": next_}
    match rng.randrange(5):
        case 0:
            fill = Learned(fill=True, side=rng.randrange(2), lots=wide(rng, 24), **says)
            if rng.random() < .3:       # it was the last
                st.settled_bid, st.settled_ask = (
                    sent - fill.lots & 0xFFFF_FFFF for sent in (st.sent_bid, st.sent_ask))
            return fill
        case 1:
            return Learned(answered=3, stands=rng.randrange(4), less=rng.randrange(4), **says)
        case 2:
            if rng.random() < .7:       # nothing is left, or a lot
                st.settled_bid = st.sent_bid - st.live_bid_lots - (rng.random() < .3) & 0xFFFF_FFFF
                st.settled_ask = st.sent_ask - st.live_ask_lots - (rng.random() < .3) & 0xFFFF_FFFF
            return Learned(refused=3, **says)
        case 3:
            gone = rng.randrange(1, 4)
            return Learned(answered=gone, less=gone, **says)
    distance = rng.choice((0, 1, -1, 300, -300, 1 << 31, (1 << 31) - 1, rng.getrandbits(32)))
    return Learned(earlier=True, answered=3, **says | {"quote_id": st.last_quote_id + distance & 0xFFFF_FFFF})


def a_state(rng):
    position = wide(rng, 32)
    return State(
        position=position - (position >> 31 << 32), pos_valid=True, sent_bid=wide(rng, 32), sent_ask=wide(rng, 32),
        settled_bid=wide(rng, 32), settled_ask=wide(rng, 32), live_bid=True, live_ask=True,
        live_bid_lots=wide(rng, 24), live_ask_lots=wide(rng, 24), last_quote_id=wide(rng, 32), pos_next=wide(rng, 32),
        pos_told=rng.random() < 0.5)


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_what_is_learned(seed):
    rng = random.Random(seed)
    dut = Positions()

    async def testbench(ctx):
        kinds = set()
        for _ in range(4000):
            st = a_state(rng)
            near = st.pos_next + rng.choice((0, 0, 1, -1, 1 << 31, (1 << 31) - 1, rng.getrandbits(32)))
            learned = something(rng, st, near & 0xFFFF_FFFF)
            ask(ctx, dut, st, learned)
            await ctx.tick()
            before = st.position, st.settled_bid, st.settled_ask, st.pos_next, st.pos_told
            counts = learned.of(st)
            after = st.position, st.settled_bid, st.settled_ask, st.pos_next, st.pos_told
            assert ctx.get(dut.counts) == counts, (seed, learned)
            if counts:
                out = ctx.get(dut.position)
                assert (out.lots, out.settled_bid, out.settled_ask, out.next, bool(out.told)) == after, (seed, learned)
            else:
                assert after == before, (seed, learned)
            meant = ctx.get(dut.meant)
            assert gone(ctx, dut) == (not st.live_bid, not st.live_ask), (seed, learned)
            kinds.add((learned._replace(lots=0, quote_id=0, next=0), bool(meant), st.live_bid, st.live_ask,
                       after != before))
        print(f"seed {seed}: {len(kinds)} kinds")
        assert len(kinds) > 60
    simulated(dut, testbench)


NEWEST = 700 << 8 | 3


@pytest.mark.parametrize(("what", "settled", "clear", "counts"), [
    # 100 and 200 were sent in all, 10 and 20 of them with the newest; 85 and 180 are settled.
    ({"refused": 3}, (95, 200), (False, True), True),               # five bids of before still stand
    ({"refused": 3, "quote_id": NEWEST - (1 << 8)}, (85, 180), (False, False), False),
    ({"refused": 3, "next": 4}, (85, 180), (False, False), False),  # the host knew
    ({"answered": 1, "less": 1}, (100, 180), (True, False), True),  # the bid has left the book
    ({"answered": 2, "less": 2}, (85, 200), (False, True), True),
    ({"answered": 2, "less": 2, "quote_id": NEWEST - (1 << 8)}, (85, 180), (False, False), False),
    ({"answered": 3, "stands": 1, "less": 2}, (90, 200), (False, True), True),
    ({"answered": 3, "earlier": 1, "quote_id": NEWEST | 0xFF}, (100, 200), (False, False), True),
    ({"answered": 3, "earlier": 1, "quote_id": NEWEST}, (85, 180), (False, False), False),
    ({"answered": 3, "earlier": 1, "quote_id": 699 << 8 | 0xFF}, (85, 180), (False, False), False),
    ({"fill": 1, "side": 1, "lots": 7, "quote_id": 5}, (85, 187), (False, False), True),
    ({"fill": 1, "side": 1, "lots": 20, "quote_id": 5}, (85, 200), (False, True), True),    # the last of it
    ({"fill": 1, "side": 1, "lots": 20, "quote_id": 5, "next": 5}, (85, 180), (False, False), False),
    ({"fill": 1, "side": 1, "lots": 7}, (85, 187), (False, True), True)])
def test_by_hand(what, settled, clear, counts):
    dut = Positions()

    async def testbench(ctx):
        st = State(position=40, pos_valid=True, sent_bid=100, sent_ask=200, settled_bid=85, settled_ask=180,
                   live_bid=True, live_ask=True, live_bid_lots=10, live_ask_lots=20, last_quote_id=NEWEST, pos_next=5,
                   pos_told=True)
        ask(ctx, dut, st, Learned(3, **{"quote_id": NEWEST, "next": 6} | what))
        await ctx.tick()
        out = ctx.get(dut.position)
        assert ctx.get(dut.counts) == counts
        if counts:
            assert (out.lots, out.settled_bid, out.settled_ask, out.next, out.told) == (
                40 - what.get("lots", 0), *settled, 6, 0)
        assert gone(ctx, dut) == clear
    simulated(dut, testbench)


def test_the_hosts_word_counts_if_it_goes_as_far():
    dut, rng = Positions(), random.Random(SEED)

    async def testbench(ctx):
        for ahead in (0, 1, (1 << 31) - 1, 1 << 31, -1, -5, -(1 << 31) + 1):
            for told in (False, True):
                st = a_state(rng)
                st.pos_told = told
                word = {"lots": -7, "settled_bid": 8, "settled_ask": 9, "next": st.pos_next + ahead & 0xFFFF_FFFF,
                        "told": 0}
                ask(ctx, dut, st, word=word)
                await ctx.tick()
                assert ctx.get(dut.counts) == (0 <= ahead < 1 << 31), ahead
                out = ctx.get(dut.position)
                assert (out.lots, out.settled_bid, out.settled_ask, out.next, out.told) == (-7, 8, 9, word["next"], 1)
    simulated(dut, testbench)

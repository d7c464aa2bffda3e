"""Which instrument is evaluated when: every rule by itself, then all of them at random against a naive model."""

import itertools
import random

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.quote.scheduler import DECISION_CYCLES, Scheduler

SEED = 61
STROBES = {"identified", "entry", "applied", "publish", "publish_entry", "accept", "invalidate", "frame_end", "settle",
           "commit", "restart", "evaluate_all", "stale_limit_write", "mass_cancel", "refill", "deferred", "wait_tokens"}
OUTPUTS = ("start", "stage", "current", "direct", "mid_event", "is_stale", "due", "busy", "claimed", "address",
           "settle_now", "flip")


class Bench:
    """A scheduler, one cycle at a time. Strobes last a cycle; everything else holds until it is set again.

    Attributes
    ----------
    cycle : number of the cycle that comes next.
    started, decided : lists of (cycle, instrument, direct).
    """

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.cycle = ctx, dut, 0
        self.started, self.decided = [], []
        self.strobes = set()

    def hold(self, **levels):
        for name, value in levels.items():
            self.ctx.set(getattr(self.dut, name), value)

    async def step(self, cycles=1, **inputs):
        """Run; ``inputs`` are applied in the first cycle. Returns what the outputs said in the last one."""
        seen = {}
        for _ in range(cycles):
            self.hold(**dict.fromkeys(self.strobes, 0))
            self.hold(**inputs)
            self.strobes = STROBES & inputs.keys()
            inputs = {}
            seen = {name: self.ctx.get(getattr(self.dut, name)) for name in OUTPUTS}
            if seen["start"]:
                direct = bool(seen["claimed"])
                self.started.append((self.cycle, seen["current"] if direct else seen["address"], direct))
            if seen["due"]:
                self.decided.append((self.cycle, seen["current"], bool(seen["direct"])))
            await self.ctx.tick()
            self.cycle += 1
            assert self.cycle < 10_000, "what is waited for does not come"
        return seen

    async def entry(self, index, *, gap=10, **strobes):
        """The bytes of an entry from the end of its SecurityID to its last one that matters."""
        await self.step(identified=1, index=index)
        await self.step(gap)
        return await self.step(entry=1, applied=1, **strobes)

    async def limits(self, cycles, instruments, bank=0):
        """The same stale limit for all instruments."""
        above = max(1, (instruments - 1).bit_length())
        for i in range(instruments):
            await self.step(stale_limit_write=1, stale_limit_address=i | bank << above, stale_limit=cycles)

    async def drain(self):
        """Let everything pending be evaluated, then forget it."""
        await self.step(4 + (DECISION_CYCLES + 1) * self.dut.instruments)
        self.started.clear()
        self.decided.clear()


def simulate(test, instruments=4, accepted=True):
    """Run ``await test(bench)`` on a scheduler that is ready, trading, and (``accepted``) has seen a packet."""
    dut = Scheduler(instruments)

    async def testbench(ctx):
        bench = Bench(ctx, dut)
        bench.hold(ready=1, trading=1)
        if accepted:
            await bench.limits(1 << 30, instruments)
            await bench.step(accept=1)
            await bench.drain()
        await test(bench)

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("instruments", [1, 3, 16])
def test_converts(instruments):
    assert "module" in verilog.convert(Scheduler(instruments))


def test_trigger_byte_decides_after_six_cycles():
    async def test(b):
        await b.step(identified=1, index=2)
        assert (await b.step(10))["claimed"]
        c = b.cycle
        await b.step(entry=1, applied=1, publish=1, publish_entry=1)
        await b.step(20)
        assert b.started == [(c, 2, True)]
        assert b.decided == [(c + DECISION_CYCLES, 2, True)]
    simulate(test)


def test_entries_before_the_last_one_wait_for_the_end_of_event():
    async def test(b):
        await b.entry(1)
        await b.step(40)
        assert b.started == []
        c = b.cycle + 1 + 10
        await b.entry(3, publish=1, publish_entry=1)
        await b.step(40)
        # The last one is evaluated from the wire, the other one behind it.
        assert b.started == [(c, 3, True), (c + 1 + DECISION_CYCLES, 1, False)]
    simulate(test)


def test_end_of_event_without_an_entry_evaluates_in_the_background():
    async def test(b):
        await b.entry(1)
        await b.entry(2)
        assert b.started == []
        await b.step(publish=1)
        await b.step(30)
        assert [(i, direct) for _, i, direct in b.started] == [(1, False), (2, False)]
    simulate(test)


def test_entry_that_changes_nothing_starts_nothing():
    async def test(b):
        await b.step(identified=1, index=1)
        await b.step(10)
        await b.step(entry=1, publish=1, publish_entry=1)
        await b.step(40)
        assert b.started == []
    simulate(test)


def test_claim_ends_with_the_frame():
    async def test(b):
        await b.step(identified=1, index=1)
        assert (await b.step(5))["claimed"]
        await b.step(frame_end=1)
        seen = await b.step()
        assert (seen["claimed"], seen["busy"]) == (0, 0)
    simulate(test)


@pytest.mark.parametrize("after", range(1, DECISION_CYCLES + 1))
def test_claim_of_another_squashes_and_both_are_evaluated(after):
    """``after`` cycles behind the background start of one instrument an entry of another one is identified."""
    async def test(b):
        await b.step(settle=1, settle_index=3)
        while not b.started:
            await b.step()
        start = b.started[0][0]
        assert b.started == [(start, 3, False)]
        await b.step(after - 1)
        assert b.cycle == start + after
        await b.entry(1, publish=1, publish_entry=1)
        direct = b.cycle - 1
        await b.step(60)
        # The decision falls before the claim takes hold, or the whole evaluation is done again.
        if after == DECISION_CYCLES:
            assert b.decided == [(start + DECISION_CYCLES, 3, False), (direct + DECISION_CYCLES, 1, True)]
        else:
            assert b.decided == [(direct + DECISION_CYCLES, 1, True), (direct + 2 * DECISION_CYCLES + 1, 3, False)]
    simulate(test)


@pytest.mark.parametrize("after", range(1, DECISION_CYCLES + 1))
def test_invalidate_squashes_and_it_is_evaluated_again(after):
    async def test(b):
        await b.step(settle=1, settle_index=3)
        while not b.started:
            await b.step()
        start = b.started[0][0]
        await b.step(after - 1)
        seen = await b.step(invalidate=1)
        assert not seen["due"]
        await b.step(40)
        assert [d[1] for d in b.decided] == [3]
        assert b.decided[0][0] == start + after + 1 + DECISION_CYCLES
    simulate(test)


def test_invalidate_evaluates_what_is_live_and_ends_the_event():
    async def test(b):
        await b.entry(1)
        b.hold(live=0b1010)
        await b.step(invalidate=1)
        await b.step(60)
        assert sorted(d[1] for d in b.decided) == [1, 3]
        b.decided.clear()
        await b.step(publish=1)     # nothing is left of the event
        await b.step(40)
        assert b.decided == []
    simulate(test)


def test_round_robin():
    async def test(b):
        await b.step(evaluate_all=1)
        await b.step(12 * 7)
        cycles, order = zip(*[(c, i) for c, i, _ in b.started], strict=True)
        assert sorted(order) == [0, 1, 2, 3]
        assert order == tuple((order[0] + k) % 4 for k in range(4))
        assert {b - a for a, b in itertools.pairwise(cycles)} == {DECISION_CYCLES + 1}
    simulate(test)


def test_round_robin_is_fair():
    """Two instruments that ask all the time do not keep the others out."""
    async def test(b):
        await b.step(evaluate_all=1)
        for _ in range(20):
            await b.step(2, settle=1, settle_index=1)
            await b.step(3, settle=1, settle_index=2)
        order = [i for _, i, _ in b.started]
        for i in range(4):
            assert i in order[:5], order
    simulate(test)


def test_instrument_in_mid_event_waits_for_its_end():
    async def test(b):
        await b.entry(2)
        await b.step(25, settle=1, settle_index=2)
        await b.step(25, settle=1, settle_index=1)
        assert [d[1] for d in b.decided] == [1]
        await b.step(40, publish=1)
        assert [d[1] for d in b.decided] == [1, 2]
    simulate(test)


def test_while_not_trading_nothing_waits_for_the_end_of_event():
    """What is live is taken away at once."""
    async def test(b):
        await b.entry(2)
        b.hold(trading=0)
        await b.step(settle=1, settle_index=2)
        while not b.started:
            await b.step()
        assert b.started[0][1:] == (2, False)
        assert (await b.step())["mid_event"]
    simulate(test)


@pytest.mark.parametrize("blocked_by", [{"ready": 0}, {"hold": 1}])
def test_background_waits_for_the_order_side(blocked_by):
    async def test(b):
        b.hold(**blocked_by)
        await b.step(40, settle=1, settle_index=1)
        assert b.started == []
        seen = await b.step()
        assert not seen["busy"], "slower senders may go meanwhile"
        c = b.cycle
        await b.step(20, ready=1, hold=0)
        assert b.decided == [(c + DECISION_CYCLES, 1, False)]
    simulate(test)


def test_deferred_is_evaluated_again():
    async def test(b):
        await b.step(settle=1, settle_index=1)
        b.hold(deferred=1)
        await b.step(30)
        tries = len(b.decided)
        assert tries >= 3
        b.hold(deferred=0)
        await b.step(30)
        assert {d[1] for d in b.decided} == {1}
        assert len(b.decided) == tries + 1
    simulate(test)


@pytest.mark.parametrize("late", [0, 1, 25])
def test_without_tokens_it_waits_for_the_refill(late):
    """Also if the tokens arrive in the very cycle in which they were missed."""
    async def test(b):
        await b.step(settle=1, settle_index=1)
        while not b.started:
            await b.step()
        await b.step(DECISION_CYCLES - 1)
        due = b.cycle
        await b.step(wait_tokens=1, refill=late == 0)
        assert b.decided == [(due, 1, False)]
        if late:
            await b.step(late - 1)
            assert len(b.started) == 1
            await b.step(refill=1)
        await b.step(20)
        assert b.decided[1:] == [(due + late + 1 + DECISION_CYCLES, 1, False)]
        await b.step(20, refill=1)      # nothing waits any more
        assert len(b.decided) == 2
    simulate(test)


def test_settle_waits_for_the_end_of_claim_and_evaluation():
    async def test(b):
        c = b.cycle
        await b.step(identified=1, index=2, settle=1, settle_index=3)
        for _ in range(10):
            assert not (await b.step())["settle_now"]
        seen = await b.step(entry=1, applied=1, publish=1, publish_entry=1)
        before = seen
        while not seen["settle_now"]:
            before, seen = seen, await b.step()
        assert b.cycle - 1 - c == 19
        assert before["address"] == 3, "its rows are on the read ports"
        assert b.decided == [(c + 11 + DECISION_CYCLES, 2, True)]
        await b.step(20)
        assert b.decided[1:] == [(c + 20 + DECISION_CYCLES, 3, False)]
    simulate(test)


def test_position_written_before_the_answer_replaces_the_one_that_waits():
    """In no cycle is one instrument given what was written for another."""
    async def test(b):
        for distance in range(1, 5):
            answered, address = [], None
            for n in range(12):
                seen = await b.step(**({"settle": 1, "settle_index": 1} if n == 0 else
                                       {"settle": 1, "settle_index": 2} if n == distance else {}))
                # What was written last stands in registers from the cycle after its write on.
                if seen["settle_now"]:
                    answered.append((address, 2 if n > distance else 1))
                address = seen["address"]
            assert all(instrument == written for instrument, written in answered), (distance, answered)
            assert answered[-1] == (2, 2)
            await b.drain()
    simulate(test)


def test_position_waits_while_rows_are_cleared():
    async def test(b):
        b.hold(clearing=1)
        await b.step(20, settle=1, settle_index=2)
        seen = await b.step(2, clearing=0)
        assert seen["settle_now"]
    simulate(test)


@pytest.mark.parametrize("after", range(1, 4))
def test_hand_over_forgets_the_position_that_waits(after):
    """Written before it, a position is applied before it or never: not to rows that are being cleared."""
    async def test(b):
        c = b.cycle
        answers = []
        for n in range(60):
            seen = await b.step(settle=n == 0, settle_index=2, restart=n == after, clearing=after < n < after + 17)
            answers += [b.cycle - 1 - c] if seen["settle_now"] else []
        assert answers == ([2] if after >= 2 else [])
    simulate(test)


@pytest.mark.parametrize("claimed", [False, True])
def test_banks_flip_in_a_gap_and_everything_is_evaluated(claimed):
    async def test(b):
        c = b.cycle
        await b.step(commit=1, identified=claimed, index=1)
        flips = []
        for n in range(1, 60):
            direct = {"entry": 1, "applied": 1, "publish": 1, "publish_entry": 1} if claimed and n == 11 else {}
            if (await b.step(**direct))["flip"]:
                flips.append(b.cycle - 1 - c)
        assert flips == [11 + DECISION_CYCLES + 1 if claimed else 1]
        assert sorted(d[1] for d in b.decided if not d[2]) == [0, 1, 2, 3]
    simulate(test)


def test_position_goes_before_banks():
    async def test(b):
        await b.step(settle=1, settle_index=1)
        seen, order = {}, []
        for n in range(10):
            seen = await b.step(commit=n == 0)
            order += [name for name in ("settle_now", "flip") if seen[name]]
        assert order == ["settle_now", "flip"]
    simulate(test)


@pytest.mark.parametrize("instruments", [1, 3, 4])
def test_staleness_exact(instruments):
    """Instrument i is looked at in cycles c with c mod N = i: stale if the last packet is more than its limit ago."""
    limit = 50

    async def test(b):
        for bank in (0, 1):
            b.hold(bank=bank)
            await b.limits(0, instruments, 1 - bank)
            await b.limits(limit, instruments, bank)
            for i in range(instruments):
                b.hold(live=1 << i)
                a = b.cycle
                await b.step(accept=1)
                await b.drain()
                while not b.started:
                    await b.step()
                found = next(c for c in range(a + limit + 1, a + limit + 1 + instruments) if c % instruments == i)
                assert b.started == [(found + 1, i, False)]
                seen = await b.step()
                assert (seen["stage"], seen["is_stale"]) == (1, 1)
                await b.step(200)
                assert len(b.started) == 1      # it is said once

    simulate(test, instruments)


def test_packet_ends_staleness_and_evaluates():
    async def test(b):
        await b.step(accept=1)
        await b.limits(20, 4)
        await b.step(30)
        assert b.decided == []          # nothing is live: nobody has to know
        await b.step(accept=1)
        await b.step()
        assert not (await b.step())["is_stale"]
        await b.step(40)
        assert sorted(d[1] for d in b.decided) == [0, 1, 2, 3]
    simulate(test)


def test_after_reset_everything_is_stale():
    async def test(b):
        await b.step(settle=1, settle_index=2)
        while not b.started:
            await b.step()
        assert (await b.step())["is_stale"]
    simulate(test, accepted=False)


class Naive:
    """What has to be evaluated, by the rules alone.

    ``owed`` : {instrument: cycle since which an evaluation is due to it}. An evaluation that started in that cycle or
    later and came to its decision pays it, unless it was deferred or found no tokens.
    """

    def __init__(self, instruments, limit):
        self.n, self.limit = instruments, limit
        self.owed, self.touched, self.stale, self.accepted = {}, set(), set(), 0
        self.claim, self.settling = None, None

    def owe(self, cycle, instruments):
        for i in instruments:
            self.owed[i] = cycle

    def step(self, c, live, x, seen):
        if seen["due"] and not x.get("deferred") and not x.get("wait_tokens"):
            i = seen["current"]
            if self.owed.get(i, c) <= c - DECISION_CYCLES:
                self.owed.pop(i, None)
        if x.get("entry") and x.get("applied"):
            self.touched.add(self.claim)
        # A direct evaluation looks at the book as it is from now on: it must come to its end, too.
        if x.get("publish"):
            self.owe(c, self.touched)
            self.touched = set()
        i = c % self.n
        if c - self.accepted > self.limit and i not in self.stale and not x.get("accept"):
            self.stale.add(i)
            if live >> i & 1:
                self.touched.discard(i)
                self.owe(c, {i})
        if x.get("accept"):
            self.owe(c, self.stale)
            self.stale, self.accepted = set(), c
        if x.get("invalidate"):
            self.touched = set()
        if x.get("invalidate") or x.get("mass_cancel"):
            self.owe(c, {i for i in range(self.n) if live >> i & 1})
        if seen["settle_now"]:
            self.owe(c, {self.settling})
        if x.get("settle"):
            self.settling = x["settle_index"]
        if x.get("evaluate_all") or seen["flip"]:
            # Not even one that starts in this very cycle has seen all of it.
            self.owe(c + 1, range(self.n))
        if x.get("identified"):
            self.claim = x["index"]


@pytest.mark.parametrize("instruments", [3, 6])
def test_nothing_pending_is_ever_lost(instruments):
    """Feed, host and order side at random: in the end every instrument that had to be evaluated has been."""
    rng = random.Random(SEED + instruments)
    print(f"seed {SEED + instruments}")
    naive = Naive(instruments, limit=120)
    dut = Scheduler(instruments)
    tally = dict.fromkeys(("direct", "background", "squashed", "deferred", "waited", "settled", "flips"), 0)

    def feed():
        """Strobes of the feed, cycle by cycle, with the distances that a wire has."""
        while True:
            yield {"accept": 1} if rng.random() < .8 else {"accept": 1, "invalidate": 1}
            for _ in range(rng.choice((0, 1, 1, 2, 4))):
                yield from ({} for _ in range(rng.randrange(14, 40)))
                yield {"identified": 1, "index": rng.randrange(instruments)}
                yield from ({} for _ in range(10))
                if rng.random() < .05:
                    break
                last = rng.random() < .4
                yield {"entry": 1, "applied": rng.random() < .9, "publish": last, "publish_entry": last}
            yield from ({} for _ in range(rng.randrange(3, 30)))
            if rng.random() < .3:
                yield {"publish": 1}
            yield {"frame_end": 1, "invalidate": rng.random() < .1}
            yield from ({} for _ in range(rng.choice((12, 12, 60, 400))))

    async def testbench(ctx):
        b = Bench(ctx, dut)
        for bank in (0, 1):
            await b.limits(naive.limit, instruments, bank)
        await b.step(accept=1, evaluate_all=1)
        naive.accepted = b.cycle - 1
        naive.owe(b.cycle, range(instruments))
        levels = {"ready": 1, "hold": 0, "trading": 1, "live": 0}
        bank = host_quiet = 0
        flight = None

        async def cycle(x):
            nonlocal bank, flight
            b.hold(bank=bank, **levels)
            c = b.cycle
            seen = await b.step(**x)
            naive_touched = set(naive.touched)
            naive.step(c, levels["live"], x, seen)
            if seen["start"] and not seen["claimed"]:
                assert (levels["ready"], levels["hold"], seen["stage"], x.get("identified", 0)) == (1, 0, 0, 0)
                assert not levels["trading"] or seen["address"] not in naive_touched
                tally["background"] += 1
            elif seen["start"]:
                assert (x.get("entry"), x.get("applied"), x.get("publish_entry")) == (1, 1, 1)
                tally["direct"] += 1
            if seen["due"]:
                assert flight == (c - DECISION_CYCLES, seen["current"])
                tally["deferred"] += bool(x.get("deferred"))
                tally["waited"] += bool(x.get("wait_tokens"))
            if seen["start"]:
                tally["squashed"] += flight is not None
                flight = c, seen["current"] if seen["claimed"] else seen["address"]
            elif seen["due"]:
                flight = None
            assert not (seen["settle_now"] and seen["flip"])
            tally["settled"] += seen["settle_now"]
            tally["flips"] += seen["flip"]
            bank ^= seen["flip"]

        wire = feed()
        for _ in range(5000):
            x = dict(next(wire))
            host_quiet -= 1
            if host_quiet < 0 and rng.random() < .02:
                x |= {"settle": 1, "settle_index": rng.randrange(instruments)}
                host_quiet = 20
            for name, p in (("commit", .003), ("evaluate_all", .002), ("refill", .02)):
                x |= {name: 1} if rng.random() < p else {}
            x |= {name: 1 for name in ("deferred", "wait_tokens") if rng.random() < .15}
            if x.get("deferred"):
                x.pop("wait_tokens", None)
            if levels["hold"] and rng.random() < .1:
                levels["hold"] = 0
                x["mass_cancel"] = 1
            elif rng.random() < .005:
                levels["hold"] = 1
            if rng.random() < .04:
                levels["ready"] = rng.random() < .7
            if rng.random() < .01:
                levels["trading"] = rng.random() < .8
            if rng.random() < .02:
                levels["live"] = rng.getrandbits(instruments)
            await cycle(x)
        levels.update(ready=1, hold=0, live=0)
        await cycle({"publish": 1, "refill": 1, "frame_end": 1})
        for _ in range(2 * (instruments + 2) * (DECISION_CYCLES + 1)):
            await cycle({})
        assert naive.owed == {}

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()
    print(tally)
    assert min(tally.values()) > 5, tally

"""Which instrument is evaluated when: every rule by itself, then all of them at random against a naive model."""

import itertools
import random

import pytest
from amaranth.back import verilog

from hdl.quote.scheduler import (
    DECISION_CYCLES,
    EVALUATION_CYCLES,
    LEAVE_CYCLES,
    LOAD_CYCLES,
    SETTLE_CYCLES,
    WEIGH_BACKGROUND,
    WEIGH_DIRECT,
    Scheduler,
)
from tests.hdl.simulation import simulated

SEED = 61
STROBES = {"identified", "entry", "trigger", "foreign", "applied", "publish", "accept", "invalidate", "frame_end",
           "settle", "commit", "restart", "evaluate_all", "stale_limit_write", "mass_cancel", "refill", "deferred",
           "wait_tokens", "disturbed"}
OUTPUTS = ("current", "load", "at", "claimed", "fouled", "mid_event", "is_stale", "due", "weigh", "direct",
           "window", "leave", "decided", "busy", "wants", "settle_now", "flip")
#: Cycles without anything under way before a background evaluation starts, the one of the start included.
QUIET = 3
#: From the SecurityID of an entry to the byte that decides.
ENTRY = DECISION_CYCLES
#: From a decision to the first cycle in which nothing of it is under way.
AFTER_BACKGROUND, AFTER_DIRECT = (weigh + LEAVE_CYCLES + 1 for weigh in (WEIGH_BACKGROUND, WEIGH_DIRECT))


class Bench:
    """A scheduler, one cycle at a time. Strobes last a cycle; everything else holds until it is set again.

    Attributes
    ----------
    cycle : number of the cycle that comes next, counted from reset: instruments are asked in turn by it.
    decided : list of (cycle, instrument, direct) of all decisions.
    """

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.cycle = ctx, dut, 0
        self.decided = []
        self.strobes = set()
        self.trace = {}     # what the outputs said, by cycle

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
            seen = self.trace[self.cycle] = {name: self.ctx.get(getattr(self.dut, name)) for name in OUTPUTS}
            seen["holds"] = seen["busy"] or (seen["wants"] and self.ctx.get(self.dut.ready))     # slower senders
            if seen["due"]:
                self.decided.append((self.cycle, seen["current"], False))
            if inputs.get("trigger"):
                assert seen["claimed"]
                self.decided.append((self.cycle, seen["current"], True))
            inputs = {}
            await self.ctx.tick()
            self.cycle += 1
            assert self.cycle < 40_000, "what is waited for does not come"
        return seen

    async def entry(self, index, *, gap=ENTRY - 1, changes=True, publish=False, trigger=None):
        """The bytes of an entry from the end of its SecurityID to the cycle after its last one that matters. Returns
        the cycle of that byte."""
        await self.step(identified=1, index=index)
        await self.step(gap)
        at = self.cycle
        await self.step(entry=1, trigger=publish and changes if trigger is None else trigger)
        await self.step(applied=changes, publish=publish)
        return at

    async def limits(self, cycles, instruments, bank=0):
        """The same stale limit for all instruments."""
        above = max(1, (instruments - 1).bit_length())
        for i in range(instruments):
            await self.step(stale_limit_write=1, stale_limit_address=i | bank << above, stale_limit=cycles)

    async def drain(self):
        """Let everything pending be evaluated, then forget it."""
        await self.step(4 + (DECISION_CYCLES + AFTER_BACKGROUND + QUIET + self.dut.instruments) * self.dut.instruments)
        self.decided.clear()

    def turn(self, cycle, index):
        """First cycle from ``cycle`` on in which an instrument may start."""
        return cycle + (index - (cycle - 1)) % self.dut.instruments

    async def start(self, index):
        """Let an instrument start in the background. Returns the cycle in which it does, which is the next one."""
        await self.step(settle=1, settle_index=index)
        while not (await self.step())["settle_now"]:
            pass
        # Its turn comes a cycle after it is pending at the earliest; settling ends a cycle after its answer.
        at = self.turn(self.cycle + QUIET - 1, index)
        await self.step(at - self.cycle)
        return at


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

    simulated(dut, testbench)


@pytest.mark.parametrize("instruments", [1, 3, 16])
def test_converts(instruments):
    assert "module" in verilog.convert(Scheduler(instruments))


# ---------------------------------------------------------------------- one evaluation, cycle by cycle

def check_evaluation(b, load, instrument, loads=True):
    """Its rows are taken onto the benches in cycle ``load``, or would be; its cycles follow one by one."""
    assert b.trace[load]["load"] == loads
    assert b.trace[load - 1]["load"] == 0
    for t in range(EVALUATION_CYCLES):
        seen = b.trace[load + 1 + t]
        assert (seen["at"], seen["load"]) == (1 << t, 0), t
        assert seen["current"] == instrument
    assert b.trace[load + 1 + EVALUATION_CYCLES]["at"] == 0


def check_aftermath(b, weigh, instrument, direct):
    """The gate weighs it, the window lets it through, it leaves."""
    for name, at in (("weigh", weigh), ("window", weigh + 1), ("leave", weigh + 1 + 2)):
        assert [c for c in range(weigh - 2, weigh + LEAVE_CYCLES + 3) if b.trace[c][name]] == [at], name
        assert b.trace[at]["decided"] == instrument
    assert b.trace[weigh]["direct"] == direct


def test_trigger_byte_decides_in_its_own_cycle():
    """By then every hypothesis has been evaluated; what its frame says is worked out behind it."""
    async def test(b):
        identified = b.cycle
        at = await b.entry(2, publish=True)
        await b.step(30)
        assert at == identified + DECISION_CYCLES
        assert b.decided == [(at, 2, True)]
        claimed = [c for c in b.trace if c >= identified and b.trace[c]["claimed"]]
        assert claimed == list(range(identified + 1, at + 1))
        check_evaluation(b, identified + LOAD_CYCLES - 1, 2)
        assert [c for c in b.trace if b.trace[c]["direct"]] == list(range(at + 1, at + WEIGH_DIRECT + 1))
        # The benches hold what the entry has just made of the rows.
        check_evaluation(b, at + 1, 2, loads=False)
        check_aftermath(b, at + WEIGH_DIRECT, 2, 1)
        busy = [c for c in b.trace if c > identified - 1 and b.trace[c]["holds"]]
        assert busy == list(range(identified + 1, at + AFTER_DIRECT))
    simulate(test)


def test_background_evaluation():
    async def test(b):
        start = await b.start(3)
        await b.step(30)
        assert b.decided == [(start + DECISION_CYCLES, 3, False)]
        check_evaluation(b, start + LOAD_CYCLES - 1, 3)
        check_aftermath(b, start + DECISION_CYCLES + WEIGH_BACKGROUND, 3, 0)
        assert not any(b.trace[c]["direct"] or b.trace[c]["claimed"] for c in range(start, b.cycle))
        busy = [c for c in range(start - 1, b.cycle) if b.trace[c]["holds"]]
        assert busy == list(range(start - 1, start + DECISION_CYCLES + AFTER_BACKGROUND))
    simulate(test)


# ---------------------------------------------------------------------- what the feed asks for

def test_entries_before_the_last_one_wait_for_the_end_of_event():
    async def test(b):
        await b.entry(1)
        await b.step(40)
        assert b.decided == []
        at = await b.entry(3, publish=True)
        await b.step(60)
        # The last one is decided from the wire, the other one behind it.
        start = b.turn(at + AFTER_DIRECT + QUIET - 1, 1)
        assert b.decided == [(at, 3, True), (start + DECISION_CYCLES, 1, False)]
    simulate(test)


def test_end_of_event_without_an_entry_evaluates_in_the_background():
    async def test(b):
        await b.entry(1)
        await b.entry(2)
        assert b.decided == []
        await b.step(publish=1)
        await b.step(60)
        assert sorted((i, direct) for _, i, direct in b.decided) == [(1, False), (2, False)]
    simulate(test)


def test_entry_that_changes_nothing_starts_nothing():
    async def test(b):
        await b.entry(1, changes=False, publish=True)
        await b.step(60)
        assert b.decided == []
        assert not any(seen["weigh"] for seen in b.trace.values() if seen["direct"])
    simulate(test)


@pytest.mark.parametrize("end", ["frame_end", "foreign", "entry"])
@pytest.mark.parametrize("after", [0, 1, 5, 9])
def test_claim_ends(end, after):
    """With the frame, with the entry, or if it proves to be another instrument: nothing comes of it."""
    async def test(b):
        await b.step(identified=1, index=1)
        await b.step(after)
        assert (await b.step(**{end: 1}))["claimed"]
        seen = await b.step()
        assert (seen["claimed"], seen["holds"]) == (0, 0)
        await b.step(60)
        assert b.decided == []
        assert not b.trace[b.cycle - 1]["holds"]
    simulate(test)


@pytest.mark.parametrize("after", range(DECISION_CYCLES + 1))
def test_claim_of_another_squashes_and_both_are_evaluated(after):
    """``after`` cycles behind the background start of one instrument an entry of another one is identified."""
    async def test(b):
        start = await b.start(3)
        await b.step(after)
        at = await b.entry(1, publish=True)
        await b.step(60)
        # The decision falls before the claim takes hold, or the whole evaluation is done again.
        if after == DECISION_CYCLES:
            assert b.decided == [(start + DECISION_CYCLES, 3, False), (at, 1, True)]
            check_aftermath(b, start + DECISION_CYCLES + WEIGH_BACKGROUND, 3, 0)
        else:
            again = b.turn(at + AFTER_DIRECT + QUIET - 1, 3)
            assert b.decided == [(at, 1, True), (again + DECISION_CYCLES, 3, False)]
        check_aftermath(b, at + WEIGH_DIRECT, 1, 1)
    simulate(test)


@pytest.mark.parametrize("after", range(1, DECISION_CYCLES + 1))
def test_invalidate_squashes_and_it_is_evaluated_again(after):
    async def test(b):
        start = await b.start(3)
        await b.step(after)
        seen = await b.step(invalidate=1)
        assert not seen["due"]
        await b.step(60)
        again = b.turn(start + after + QUIET, 3)
        assert b.decided == [(again + DECISION_CYCLES, 3, False)]
    simulate(test)


def test_invalidate_evaluates_what_is_live_and_ends_the_event():
    async def test(b):
        await b.entry(1)
        b.hold(live=0b1010)
        await b.step(invalidate=1)
        await b.step(80)
        assert sorted(d[1] for d in b.decided) == [1, 3]
        b.decided.clear()
        await b.step(publish=1)     # nothing is left of the event
        await b.step(60)
        assert b.decided == []
    simulate(test)


# ---------------------------------------------------------------------- turns

def test_round_robin():
    async def test(b):
        await b.step(evaluate_all=1)
        await b.step(5 * (DECISION_CYCLES + AFTER_BACKGROUND + QUIET))
        cycles, order = zip(*[(c, i) for c, i, _ in b.decided], strict=True)
        assert sorted(order) == [0, 1, 2, 3]
        # With four instruments the turn of a pending one comes just when nothing has been under way for long enough.
        distance = DECISION_CYCLES + AFTER_BACKGROUND + QUIET - 1
        assert distance % 2
        assert order == tuple((order[0] + distance * k) % 4 for k in range(4))
        assert {b - a for a, b in itertools.pairwise(cycles)} == {distance}
    simulate(test)


def test_round_robin_is_fair():
    """Two instruments that ask all the time do not keep the others out."""
    async def test(b):
        await b.step(evaluate_all=1)
        for _ in range(60):
            await b.step(2, evaluate_all=0, publish=0)
            await b.step(settle=1, settle_index=1)
            await b.step(25)
            await b.step(settle=1, settle_index=2)
            await b.step(25)
        order = [i for _, i, _ in b.decided]
        for i in range(4):
            assert i in order[:8], order
    simulate(test)


@pytest.mark.parametrize("gap", range(8))
def test_nothing_starts_before_nothing_has_been_under_way_for_three_cycles(gap):
    """A claim that comes to nothing, ``gap`` cycles long."""
    async def test(b):
        b.hold(ready=0)
        await b.step(settle=1, settle_index=2)
        await b.step(20)
        await b.step(identified=1, index=1, ready=1)
        await b.step(gap)
        end = b.cycle
        await b.step(frame_end=1)
        await b.step(40)
        assert b.decided == [(b.turn(end + QUIET, 2) + DECISION_CYCLES, 2, False)]
    simulate(test)


def test_book_that_is_being_put_back_is_under_way():
    async def test(b):
        b.hold(updating=1, ready=0)
        await b.step(settle=1, settle_index=2)
        await b.step(40)
        assert not any(seen["settle_now"] for seen in b.trace.values() if seen["current"] == 2)
        end = b.cycle
        await b.step(updating=0)
        await b.step(10)
        assert [c for c in range(end, b.cycle) if b.trace[c]["settle_now"]] == [end + SETTLE_CYCLES]
        await b.step(updating=1, ready=1)
        await b.step(40)
        assert b.decided == []
        end = b.cycle
        await b.step(updating=0)
        await b.step(40)
        assert b.decided == [(b.turn(end + QUIET - 1, 2) + DECISION_CYCLES, 2, False)]
    simulate(test)


def test_instrument_in_mid_event_waits_for_its_end():
    async def test(b):
        await b.entry(2)
        await b.step(settle=1, settle_index=2)
        await b.step(40)
        await b.step(settle=1, settle_index=1)
        await b.step(40)
        assert [d[1] for d in b.decided] == [1]
        await b.step(publish=1)
        await b.step(40)
        assert [d[1] for d in b.decided] == [1, 2]
    simulate(test)


def test_while_not_trading_nothing_waits_for_the_end_of_event():
    """What is live is taken away at once."""
    async def test(b):
        await b.entry(2)
        b.hold(trading=0)
        start = await b.start(2)
        await b.step(LOAD_CYCLES + 2)
        assert b.trace[start + LOAD_CYCLES + 1]["mid_event"]
        await b.step(40)
        assert b.decided == [(start + DECISION_CYCLES, 2, False)]
        await b.start(1)
        await b.step(LOAD_CYCLES + 2)
        assert not b.trace[b.cycle - 1]["mid_event"]
    simulate(test)


# ---------------------------------------------------------------------- the order side

@pytest.mark.parametrize("blocked_by", [{"ready": 0}, {"hold": 1}])
def test_background_waits_for_the_order_side(blocked_by):
    async def test(b):
        b.hold(**blocked_by)
        await b.step(settle=1, settle_index=1)
        await b.step(40)
        assert b.decided == []
        seen = await b.step()
        assert not seen["holds"], "slower senders may go meanwhile"
        c = b.cycle
        assert (await b.step(ready=1, hold=0))["holds"]
        await b.step(30)
        assert b.decided == [(b.turn(c, 1) + DECISION_CYCLES, 1, False)]
    simulate(test)


def test_deferred_is_evaluated_again():
    async def test(b):
        start = await b.start(1)
        decisions = []
        for _ in range(3):
            await b.step(DECISION_CYCLES)
            decisions.append(b.cycle)
            await b.step(WEIGH_BACKGROUND + 1)
            await b.step(deferred=1)
            start = b.turn(decisions[-1] + AFTER_BACKGROUND + QUIET - 1, 1)
            await b.step(start - b.cycle)
        await b.step(40)
        assert b.decided == [(c, 1, False) for c in (*decisions, start + DECISION_CYCLES)]
        await b.step(60)
        assert len(b.decided) == 4
    simulate(test)


def test_deferred_decision_on_a_trigger_byte_is_evaluated_again():
    async def test(b):
        at = await b.entry(1, publish=True)
        await b.step(at + WEIGH_DIRECT + 1 - b.cycle)
        await b.step(deferred=1)
        await b.step(60)
        again = b.turn(at + AFTER_DIRECT + QUIET - 1, 1)
        assert b.decided == [(at, 1, True), (again + DECISION_CYCLES, 1, False)]
    simulate(test)


@pytest.mark.parametrize(("late", "direct"), [
    *itertools.product([-2, -1, 0, 1, 25], [False, True]), (1 - WEIGH_DIRECT, True)])
def test_without_tokens_it_waits_for_the_refill(late, direct):
    """Also if the tokens arrive in the cycle in which it is known that they were missed, or between the decision, in
    which they were missed, and that one."""
    async def test(b):
        if direct:
            decided = await b.entry(1, publish=True)
            known, after = decided + WEIGH_DIRECT + 1, decided + AFTER_DIRECT
        else:
            decided = await b.start(1) + DECISION_CYCLES
            known, after = decided + WEIGH_BACKGROUND + 1, decided + AFTER_BACKGROUND
        if late < 0:
            await b.step(known + late - b.cycle)
            await b.step(refill=1)
        await b.step(known - b.cycle)
        await b.step(wait_tokens=1, refill=late == 0)
        refill = known
        if late > 0:
            await b.step(late - 1)
            assert b.decided == [(decided, 1, direct)]
            refill = b.cycle
            await b.step(refill=1)
        await b.step(40)
        start = b.turn(max(refill + 3, after + QUIET - 1), 1)
        assert b.decided == [(decided, 1, direct), (start + DECISION_CYCLES, 1, False)]
        await b.step(refill=1)      # nothing waits any more
        await b.step(40)
        assert len(b.decided) == 2
    simulate(test)


def test_evaluation_that_is_disturbed_says_so():
    """Until the next one begins."""
    async def test(b):
        for index in range(2):
            await b.step(identified=1, index=index)
            assert not (await b.step(3))["fouled"]
            await b.step(disturbed=1)
            assert (await b.step(4))["fouled"]
            await b.step(frame_end=1)
            assert (await b.step())["fouled"]
        start = await b.start(1)
        assert b.trace[start - 1]["fouled"]
        await b.step(disturbed=1)       # what it will see is what this has left
        await b.step(4)
        assert not b.trace[b.cycle - 1]["fouled"]
        await b.step(disturbed=1)
        assert (await b.step())["fouled"]
    simulate(test)


@pytest.mark.parametrize("offset", range(-DECISION_CYCLES - 1, WEIGH_DIRECT + 6))
def test_mass_cancel_is_followed_by_an_evaluation_of_what_was_live(offset):
    """Also of the instrument whose decision falls in the same cycles: it went by what was live before.

    What is decided while it is fouled is deferred, as the path does.
    """
    async def test(b):
        identified = b.cycle + 20
        trigger = identified + DECISION_CYCLES
        cancel = trigger + offset
        b.hold(live=0b0110, hold=1)
        fouled = False
        while b.cycle < trigger + 120:
            c, x = b.cycle, {}
            if c == identified:
                x |= {"identified": 1, "index": 1}
            if c == trigger:
                x |= {"entry": 1, "trigger": 1}
            if c == trigger + 1:
                x |= {"applied": 1, "publish": 1}
            if c == cancel:
                x |= {"mass_cancel": 1, "disturbed": 1}
            if c == cancel + 1:
                x |= {"live": 0, "hold": 0}
            if c == trigger + WEIGH_DIRECT + 1:
                x |= {"deferred": fouled}
            seen = await b.step(**x)
            if c == trigger:
                fouled = seen["fouled"]
        # Whose rows were fetched when nothing was live any more.
        after = [i for c, i, direct in b.decided if c - DECISION_CYCLES >= cancel and not (direct and fouled)]
        assert sorted(set(after)) == [1, 2], (b.decided, cancel)
    simulate(test)


# ---------------------------------------------------------------------- the host

def answers(b, since):
    """(cycles from ``since`` to an answer, instrument on the bench) of all positions that were applied."""
    return [(c - since, seen["current"]) for c, seen in b.trace.items() if c >= since and seen["settle_now"]]


def test_settle_at_rest():
    async def test(b):
        c = b.cycle
        await b.step(settle=1, settle_index=3)
        await b.step(60)
        assert answers(b, c) == [(1 + SETTLE_CYCLES, 3)]
        assert b.trace[c + LOAD_CYCLES]["load"]
        start = b.turn(c + 1 + SETTLE_CYCLES + QUIET, 3)
        assert b.decided == [(start + DECISION_CYCLES, 3, False)]
    simulate(test)


def test_settle_waits_for_the_end_of_claim_and_evaluation():
    async def test(b):
        c = b.cycle
        await b.step(identified=1, index=2, settle=1, settle_index=3)
        await b.step(ENTRY - 1)
        at = b.cycle
        await b.step(entry=1, trigger=1)
        await b.step(applied=1, publish=1)
        await b.step(80)
        answer = at + AFTER_DIRECT + SETTLE_CYCLES
        assert answers(b, c) == [(answer - c, 3)]
        assert answer - c < 60
        start = b.turn(answer + QUIET, 3)
        assert b.decided == [(at, 2, True), (start + DECISION_CYCLES, 3, False)]
    simulate(test)


@pytest.mark.parametrize("after", range(1 + SETTLE_CYCLES + 1))
def test_claim_takes_the_bench_from_a_position(after):
    """Its rows are fetched again when the entry is over; in no cycle are another instrument's taken for them."""
    async def test(b):
        c = b.cycle
        at = None
        for n in range(80):
            x = {"settle": 1, "settle_index": 3} if n == 0 else {}
            if n == after:
                x |= {"identified": 1, "index": 1}
            if n == after + ENTRY:
                at = b.cycle
                x |= {"entry": 1}
            await b.step(**x)
        got = answers(b, c)
        assert [i for _, i in got] == [3]
        # It is answered before the claim takes hold, or after it has ended.
        assert got[0][0] == (1 + SETTLE_CYCLES if after >= 1 + SETTLE_CYCLES else at - c + 1 + SETTLE_CYCLES)
    simulate(test)


def test_position_written_before_the_answer_replaces_the_one_that_waits():
    """In no cycle is one instrument given what was written for another."""
    async def test(b):
        for distance in range(1, 8):
            c = b.cycle
            for n in range(20):
                await b.step(**({"settle": 1, "settle_index": 1} if n == 0 else
                                {"settle": 1, "settle_index": 2} if n == distance else {}))
            # What was written last stands in registers from the cycle after its write on.
            got = answers(b, c)
            assert all(instrument == (2 if n > distance else 1) for n, instrument in got), (distance, got)
            assert got[-1][1] == 2
            assert len(got) == (2 if distance >= 1 + SETTLE_CYCLES else 1)
            await b.drain()
    simulate(test)


def test_position_waits_while_rows_are_cleared():
    async def test(b):
        b.hold(clearing=1)
        c = b.cycle
        await b.step(settle=1, settle_index=2)
        await b.step(20)
        assert answers(b, c) == []
        c = b.cycle
        await b.step(clearing=0)
        await b.step(10)
        assert answers(b, c) == [(SETTLE_CYCLES, 2)]
    simulate(test)


@pytest.mark.parametrize("after", range(1, 3 + SETTLE_CYCLES))
def test_hand_over_forgets_the_position_that_waits(after):
    """Written before it, a position is applied before it or never: not to rows that are being cleared."""
    async def test(b):
        c = b.cycle
        for n in range(60):
            await b.step(settle=n == 0, settle_index=2, restart=n == after, clearing=after < n < after + 17)
        assert answers(b, c) == ([(1 + SETTLE_CYCLES, 2)] if after >= 1 + SETTLE_CYCLES else [])
    simulate(test)


@pytest.mark.parametrize("claimed", [False, True])
def test_banks_flip_in_a_gap_and_everything_is_evaluated(claimed):
    async def test(b):
        c = b.cycle
        await b.step(commit=1, identified=claimed, index=1)
        for n in range(1, 110):
            await b.step(**({"entry": 1, "trigger": 1} if claimed and n == ENTRY else
                            {"applied": 1, "publish": 1} if claimed and n == ENTRY + 1 else {}))
        assert [n - c for n, seen in b.trace.items() if n >= c and seen["flip"]] == [
            ENTRY + AFTER_DIRECT if claimed else 1]
        assert sorted(d[1] for d in b.decided if not d[2]) == [0, 1, 2, 3]
    simulate(test)


def test_position_goes_before_banks():
    async def test(b):
        c = b.cycle
        await b.step(settle=1, settle_index=1)
        await b.step(commit=1)
        await b.step(20)
        assert [(n - c, name) for n, seen in b.trace.items() for name in ("settle_now", "flip") if n >= c and seen[name]
                ] == [(1 + SETTLE_CYCLES, "settle_now"), (2 + SETTLE_CYCLES, "flip")]
    simulate(test)


# ---------------------------------------------------------------------- staleness

@pytest.mark.parametrize("instruments", [1, 3, 4])
def test_staleness_exact(instruments):
    """Instrument i is looked at in cycles c with c - 2 mod N = i: stale if the last packet was more than its limit
    before the cycle before."""
    limit = 150

    async def test(b):
        for bank in (0, 1):
            b.hold(bank=bank)
            await b.limits(0, instruments, 1 - bank)
            await b.limits(limit, instruments, bank)
            await b.drain()     # limits are read some cycles ahead
            for i in range(instruments):
                b.hold(live=1 << i)
                accepted = b.cycle
                await b.step(accept=1)
                await b.drain()
                assert b.cycle < accepted + limit
                while not b.decided:
                    await b.step()
                found = next(c for c in itertools.count(accepted + limit + 2) if (c - 2) % instruments == i)
                start = b.turn(found + 3, i)
                assert b.decided == [(start + DECISION_CYCLES, i, False)]
                assert [b.trace[start + LOAD_CYCLES + t]["is_stale"] for t in range(1, EVALUATION_CYCLES)] == \
                    [1] * (EVALUATION_CYCLES - 1)
                await b.step(250)
                assert len(b.decided) == 1      # it is said once

    simulate(test, instruments)


def test_packet_ends_staleness_and_evaluates():
    async def test(b):
        await b.step(accept=1)
        await b.limits(20, 4)
        await b.step(60)
        assert b.decided == []          # nothing is live: nobody has to know
        await b.limits(1 << 30, 4)
        await b.step(accept=1)
        await b.step(120)
        assert sorted(d[1] for d in b.decided) == [0, 1, 2, 3]
        for c, _, _ in b.decided:
            assert not b.trace[c]["is_stale"]
    simulate(test)


def test_what_is_decided_on_does_not_become_stale_meanwhile():
    """One answer from the claim to the content; found stale, it is evaluated again behind that."""
    async def test(b):
        b.hold(live=0b0010)
        await b.limits(105, 4)
        await b.drain()
        await b.step(accept=1)
        accepted = b.cycle - 1
        await b.drain()
        identified = b.cycle
        at = await b.entry(1, publish=True)
        assert identified < accepted + 105 < at + WEIGH_DIRECT - 5, "it expires on the way"
        await b.step(80)
        content = at + WEIGH_DIRECT
        found = next(c for c in itertools.count(content + 1) if (c - 2) % 4 == 1)
        start = b.turn(max(found + 2, at + AFTER_DIRECT + QUIET - 1), 1)
        assert b.decided == [(at, 1, True), (start + DECISION_CYCLES, 1, False)]
        assert b.trace[start + DECISION_CYCLES]["is_stale"]
    simulate(test)


def test_after_reset_everything_is_stale():
    async def test(b):
        start = await b.start(2)
        await b.step(LOAD_CYCLES + 2)
        assert b.trace[start + LOAD_CYCLES + 1]["is_stale"]
    simulate(test, accepted=False)


# ---------------------------------------------------------------------- everything at once

class Naive:
    """What has to be evaluated, by the rules alone.

    ``owed`` : {instrument: cycle since which an evaluation is due to it}. A background evaluation that started in that
    cycle or later and came to its decision pays it; so does a decision on a trigger byte, which goes by the book that
    this byte has made. Neither does if it was deferred or found no tokens.
    """

    def __init__(self, instruments, limit):
        self.n, self.limit = instruments, limit
        self.owed, self.touched, self.stale, self.accepted = {}, set(), set(), 0
        self.claim, self.claimed, self.settling = None, False, None
        self.triggered, self.watched, self.was_claimed = None, (-1, None), None
        self.mass_cancel = False

    def owe(self, cycle, instruments):
        for i in instruments:
            self.owed[i] = cycle

    def step(self, c, live, x, seen):
        if seen["due"] and self.owed.get(seen["current"], c) <= c - DECISION_CYCLES:
            self.owed.pop(seen["current"], None)
        if x.get("applied"):
            self.touched.add(self.claim)
        if x.get("publish"):
            self.owe(c, self.touched)
            self.touched = set()
        i = (c - 2) % self.n
        watched = self.was_claimed == i or (c - 1 <= self.watched[0] and self.watched[1] == i)
        self.was_claimed = self.claim if self.claimed else None
        if c - 1 - self.accepted > self.limit and i not in self.stale and not x.get("accept") and not watched:
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
            assert seen["current"] == self.settling
            self.owe(c, {self.settling})
        # What the byte of the cycle before has decided needs nothing but what has cut across it.
        if self.triggered is not None and not (x.get("mass_cancel") or self.mass_cancel):
            self.owed.pop(self.triggered, None)
        if seen["window"] and (x.get("deferred") or x.get("wait_tokens")):
            self.owe(c, {seen["decided"]})
        if x.get("settle"):
            self.settling = x["settle_index"]
        if x.get("evaluate_all") or seen["flip"]:
            # Not even one that starts in this very cycle has seen all of it.
            self.owe(c + 1, range(self.n))
        self.mass_cancel = x.get("mass_cancel")
        self.triggered = self.claim if x.get("trigger") else None
        if x.get("trigger"):
            self.watched = (c + WEIGH_DIRECT, self.claim)
        if x.get("identified"):
            self.claim, self.claimed = x["index"], True
        elif x.get("entry") or x.get("frame_end") or x.get("foreign"):
            self.claimed = False


@pytest.mark.parametrize("instruments", [3, 6])
def test_nothing_pending_is_ever_lost(instruments):
    """Feed, host and order side at random: in the end every instrument that had to be evaluated has been."""
    rng = random.Random(SEED + instruments)
    print(f"seed {SEED + instruments}")
    naive = Naive(instruments, limit=120)
    dut = Scheduler(instruments)
    tally = dict.fromkeys(("direct", "background", "squashed", "deferred", "waited", "settled", "flips", "fouled",
                           "foreign", "stale"), 0)

    def feed():
        """Strobes of the feed, cycle by cycle, with the distances that a wire has. What an entry does to the book is
        said a cycle after it."""
        while True:
            yield {"accept": 1} if rng.random() < .8 else {"accept": 1, "invalidate": 1}
            for _ in range(rng.choice((0, 1, 1, 2, 4))):
                yield from ({} for _ in range(rng.randrange(16, 40)))
                yield {"identified": 1, "index": rng.randrange(instruments)}
                if rng.random() < .08:      # another one after all; its entry follows nevertheless
                    yield from ({} for _ in range(3))
                    yield {"foreign": 1}
                    yield from ({} for _ in range(6))
                    yield {"entry": 1}
                    continue
                yield from ({} for _ in range(ENTRY - 1))
                if rng.random() < .05:
                    break
                last, changes = rng.random() < .4, rng.random() < .9
                yield {"entry": 1, "trigger": last and changes}
                yield {"applied": changes, "publish": last}
            yield from ({} for _ in range(rng.randrange(4, 30)))
            if rng.random() < .3:
                yield {"publish": 1}
            yield {"frame_end": 1}
            yield {"invalidate": rng.random() < .1}
            yield from ({} for _ in range(rng.choice((12, 12, 60, 400))))

    async def testbench(ctx):
        b = Bench(ctx, dut)
        for bank in (0, 1):
            await b.limits(naive.limit, instruments, bank)
        await b.step(accept=1, evaluate_all=1)
        naive.accepted = b.cycle - 1
        naive.owe(b.cycle, range(instruments))
        levels = {"ready": 1, "hold": 0, "trading": 1, "live": 0, "updating": 0}
        bank = host_quiet = updating = 0
        fouled, weigh, past = False, -1, []

        async def cycle(x):
            nonlocal bank, fouled, weigh, updating
            # A book is put back behind every entry.
            updating = 16 if x.get("applied") else max(0, updating - 1)
            levels["updating"] = int(0 < updating < 16)
            b.hold(bank=bank, **levels)
            c = b.cycle
            if c == weigh + 1:      # what was disturbed is deferred, what is deferred does not ask for tokens
                x = x | ({"deferred": 1} if fouled else {name: 1 for name in ("deferred", "wait_tokens")
                                                        if rng.random() < .15})
                if x.get("deferred"):
                    x.pop("wait_tokens", None)
            seen = await b.step(**x)
            past.append((dict(levels), set(naive.touched), dict(x), seen))
            assert seen["weigh"] == (c == weigh), c
            if seen["window"]:
                tally["deferred"] += bool(x.get("deferred"))
                tally["waited"] += bool(x.get("wait_tokens"))
            naive.step(c, levels["live"], x, seen)
            if seen["due"]:
                check_start(b, c - DECISION_CYCLES)
                weigh, fouled = c + WEIGH_BACKGROUND, seen["fouled"]
                tally["background"] += 1
                tally["stale"] += seen["is_stale"]
            if x.get("trigger"):
                assert not seen["due"]
                weigh, fouled = c + WEIGH_DIRECT, seen["fouled"]
                tally["direct"] += 1
            tally["fouled"] += c + 1 in (weigh,) and bool(fouled)
            tally["foreign"] += bool(x.get("foreign"))
            assert not (seen["settle_now"] and seen["flip"])
            tally["settled"] += seen["settle_now"]
            tally["flips"] += seen["flip"]
            evaluates = seen["at"] and not seen["claimed"] and not seen["direct"]
            tally["squashed"] += bool(evaluates and x.get("identified"))
            bank ^= seen["flip"]

        def check_start(b, start):
            """A background evaluation came to its end: it may have started, and nothing has crossed it."""
            first = len(past) - 1 - DECISION_CYCLES
            index = past[-1][3]["current"]
            at_start, _, strobes, _ = past[first]
            before, touched, _, _ = past[first - 1]
            assert (at_start["ready"], at_start["hold"], strobes.get("identified", 0)) == (1, 0, 0)
            assert not before["trading"] or index not in touched
            assert (start - 1) % instruments == index
            assert b.trace[start + LOAD_CYCLES - 1]["load"]
            for t in range(EVALUATION_CYCLES):
                assert b.trace[start + LOAD_CYCLES + t]["at"] == 1 << t
            for _, _, x, seen in past[first + 1:]:
                assert not seen["claimed"]
                assert seen["current"] == index
                assert not x.get("invalidate")
            for n in range(QUIET):
                _, _, _, seen = past[first - n]
                assert not any(seen[name] for name in ("claimed", "direct", "weigh", "leave"))
                assert not past[first - n][0]["updating"]

        wire = feed()
        for _ in range(14_000):
            x = {name: int(value) for name, value in next(wire).items()}
            host_quiet -= 1
            if host_quiet < 0 and rng.random() < .02:
                x |= {"settle": 1, "settle_index": rng.randrange(instruments)}
                host_quiet = 20
            for name, p in (("commit", .003), ("evaluate_all", .002), ("refill", .02)):
                x |= {name: 1} if rng.random() < p else {}
            if levels["hold"] and rng.random() < .1:
                levels["hold"] = 0
                x |= {"mass_cancel": 1, "disturbed": 1}
            elif rng.random() < .01:
                levels["hold"] = 1
            if x.get("evaluate_all"):
                x["disturbed"] = 1
            if rng.random() < .04:
                levels["ready"] = rng.random() < .7
            if rng.random() < .01:
                levels["trading"] = rng.random() < .8
            if rng.random() < .02:
                levels["live"] = rng.getrandbits(instruments)
            await cycle(x)
        levels.update(ready=1, hold=0, live=0)
        await cycle({"publish": 1, "refill": 1, "frame_end": 1})
        for n in range(3 * (instruments + 2) * (DECISION_CYCLES + AFTER_BACKGROUND + QUIET + instruments)):
            await cycle({"refill": 1} if n % 50 == 0 else {})
        assert naive.owed == {}

    simulated(dut, testbench)
    print(tally)
    assert min(tally.values()) > 5, tally

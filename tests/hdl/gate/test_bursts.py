# amaranth: UnusedElaboratable=no
"""G17 and G20 against naive models that keep every fill and refusal."""

import random
from dataclasses import dataclass, field

import pytest
from amaranth.back import verilog

from hdl.gate.bursts import EVENT_CYCLES, HOLD_CYCLES, SCAN_CYCLES, FillBurst, RefusalStorm
from hdl.gate.rolling import PARTS, UNIT_CYCLES
from tests.hdl.gate.posting import PostingBench
from tests.hdl.simulation import simulated

SEED = 20
MOST24 = (1 << 24) - 1


@dataclass
class Model:
    """What is held, and everything that counts: per instrument (sub-bucket, lots, signed lots, number)."""

    limits: dict
    held: dict = field(default_factory=dict)    # instrument: cycle in which the post came
    came: dict = field(default_factory=dict)

    def part(self, cycle):
        """The sub-bucket of a cycle, if the window has always been the same."""
        return cycle // (UNIT_CYCLES * max(1, -(-self.limits["window_cycles"] // (PARTS * UNIT_CYCLES))))

    def event(self, cycle, instrument, lots, signed_lots, number):
        """Is it too much?"""
        if instrument in self.held:
            return False
        part, limits = self.part(cycle), self.limits
        came = self.came.setdefault(instrument, [])
        came.append((part, lots, signed_lots, number))
        counts = [each[1:] for each in came if each[0] >= part - PARTS]
        lots, signed_lots, number = (sum(column) for column in zip(*counts, strict=True))
        return (not limits["window_cycles"]
                or lots > limits.get("most_lots", MOST24) or abs(signed_lots) > limits.get("most_delta", MOST24)
                or number > limits.get("most_fills", limits.get("most_refusals")))

    def free(self, instrument):
        del self.held[instrument]
        self.came.pop(instrument, None)


class Bench(PostingBench):
    """Gives events, takes posts, and compares them with the model's."""

    def __init__(self, ctx, dut, rng=None, **limits):
        strobes = [name for name in ("fill", "refusals", "release", "clear") if hasattr(dut, name)]
        super().__init__(ctx, dut, dut.gate, strobes, rng)
        self.model = Model(limits)
        self.expected = []      # (instrument, hold), caused by events
        self.posts = []         # (cycle in which it came, instrument, hold)

    def arrives(self, instrument, hold, sides):
        """The post that is expected, or the end of a freeze."""
        assert sides == {0, 1}
        if self.expected and self.expected[0] == (instrument, hold):
            self.expected.pop(0)
            if hold:
                self.model.held[instrument] = self.cycle
        else:
            freeze = self.model.limits.get("freeze_cycles", 0)
            assert not hold
            assert freeze
            assert self.cycle - self.model.held[instrument] >= freeze + 2
            self.model.free(instrument)
        self.posts.append((self.cycle, instrument, hold))

    async def start(self):
        """Limits, and the sweep."""
        await self.step(**self.model.limits)
        while self.ctx.get(self.dut.clearing):
            assert self.ctx.get(self.dut.busy)
            await self.step()

    async def settle(self):
        """Until nothing is under way; never longer than promised. Returns how long it took."""
        began = self.cycle
        while self.ctx.get(self.dut.busy):
            assert self.takes < 1. or self.cycle - began < EVENT_CYCLES
            await self.step()
        return self.cycle - began

    async def event(self, instrument, *, release=None, **event):
        """An event, and a release with it, until both are done."""
        assert not self.ctx.get(self.dut.busy)
        began = self.cycle
        if "lots" in event:
            lots = event["lots"]
            what = (lots, -lots if event["side"] else lots, 1)
            event["fill"] = 1
        else:
            what = (0, 0, event["count"])
            event["refusals"] = 1
        if what[2] and self.model.event(self.cycle, instrument, *what):
            self.expected.append((instrument, 1))
        if release is not None:
            event |= {"release": 1, "release_instrument": release}
            if release in self.model.held or (release, 1) in self.expected:
                self.expected.append((release, 0))
        await self.step(instrument=instrument, **event)
        took = await self.settle() + 1
        assert not self.expected
        if release is not None and release in self.model.held:
            self.model.free(release)
        held = [cycle for cycle, of, hold in self.posts if cycle >= began and (of, hold) == (instrument, 1)]
        return (held[0] - began if held else None), took

    async def release(self, instrument):
        """Let it go by itself."""
        if instrument in self.model.held:
            self.expected.append((instrument, 0))
        await self.step(release=1, release_instrument=instrument)
        await self.settle()
        assert not self.expected
        if instrument in self.model.held:
            self.model.free(instrument)

    async def fill(self, instrument, lots, side=0, **more):
        return await self.event(instrument, lots=lots, side=side, **more)


def simulate(test, dut, rng=None, **limits):
    async def testbench(ctx):
        b = Bench(ctx, dut, rng, **limits)
        await b.start()
        await test(b)

    simulated(dut, testbench)


FREE = {"window_cycles": 100_000, "most_lots": MOST24, "most_delta": MOST24, "most_fills": 255, "freeze_cycles": 0}


@pytest.mark.parametrize("dut", [FillBurst(3), RefusalStorm(3), FillBurst(256)], ids=lambda dut: type(dut).__name__)
def test_converts(dut):
    assert "module" in verilog.convert(dut)


@pytest.mark.parametrize("limit", ["window_cycles", "most_lots", "most_delta", "most_fills"])
def test_zero_blocks(limit):
    async def test(b):
        assert (await b.fill(1, 1))[0]
        assert b.model.held.keys() == {1}
    simulate(test, FillBurst(3), **FREE | {limit: 0})


def test_reset_blocks():
    async def test(b):
        assert (await b.fill(0, 1))[0]
    simulate(test, FillBurst(1), **dict.fromkeys(FREE, 0))

    async def refused(b):
        assert (await b.event(0, count=0))[0] is None
        assert (await b.event(0, count=1))[0]
    simulate(refused, RefusalStorm(1), window_cycles=0, most_refusals=0)


@pytest.mark.parametrize(("limit", "fills"), [
    ("most_lots", [(400, 0), (300, 1), (300, 0)]),
    ("most_delta", [(700, 1), (100, 0), (400, 1)]),
    ("most_delta", [(700, 0), (100, 1), (400, 0)]),
    ("most_fills", [(1, 0)] * 50),
])
@pytest.mark.parametrize("below", [0, 1])
def test_at_the_limit(limit, fills, below):
    """The sum may be the limit and not one more."""
    of = {"most_lots": sum(lots for lots, _ in fills), "most_fills": len(fills),
          "most_delta": abs(sum(-lots if side else lots for lots, side in fills))}

    async def test(b):
        *first, last = fills
        for lots, side in first:
            assert (await b.fill(2, lots, side))[0] is None
        assert ((await b.fill(2, *last))[0] is not None) == bool(below)
    simulate(test, FillBurst(3), **FREE | {limit: of[limit] - below})


def test_sums_that_do_not_fit():
    """The greatest limits are limits nevertheless."""
    async def test(b):
        assert (await b.fill(0, MOST24))[0] is None
        assert (await b.fill(0, 1, 1))[0]
        await b.release(0)
        assert (await b.fill(0, MOST24 - 1))[0] is None
        assert (await b.fill(0, 1, 1))[0] is None
        for _ in range(255):
            assert (await b.fill(1, 0))[0] is None
        assert (await b.fill(1, 0))[0]
    simulate(test, FillBurst(2), **FREE)


@pytest.mark.parametrize("gap", [0, 1])
def test_window_rolls_over(gap):
    """A fill counts for nine sub-buckets, less what had passed of its own, and not a cycle longer."""
    limits = FREE | {"window_cycles": 2048, "most_lots": 10}
    length = 2048 // PARTS

    async def test(b):
        while (b.cycle + 1) % length:
            await b.step()
        await b.fill(0, 10)             # in the last cycle of a sub-bucket: it is forgotten as early as can be
        first = b.cycle // length * length - 1
        while b.cycle < first + 1 + PARTS * length - 1 + gap:
            await b.step()
        assert b.cycle - first >= 2048
        assert ((await b.fill(0, 1))[0] is None) == bool(gap)
    simulate(test, FillBurst(1), **limits)


@pytest.mark.parametrize("instruments", [1, 4])
def test_freeze(instruments):
    """It ends by itself, neither early nor late, and the window is empty then."""
    freeze = 700

    async def test(b):
        for instrument in range(instruments):
            await b.fill(instrument, 10)
            assert (await b.fill(instrument, 1))[0]
        held = dict(b.model.held)
        await b.step(100)
        await b.fill(0, 1000)           # while it is held, it does not count
        await b.step(freeze + 50 * instruments)
        assert not b.model.held
        for cycle, instrument, _ in b.posts[instruments:]:
            assert 2 <= cycle - held[instrument] - freeze <= 2 + SCAN_CYCLES * instruments + instruments
        assert len(b.posts) == 2 * instruments
        await b.fill(0, 10)
        assert (await b.fill(0, 1))[0]
    simulate(test, FillBurst(instruments), **FREE | {"most_lots": 10, "freeze_cycles": freeze})


def test_slowest_hold():
    """A fill that finds the end of another instrument's freeze under way."""
    latencies = []
    for wait in range(280, 310):
        async def test(b, wait=wait):
            await b.fill(0, 11)
            await b.step(b.posts[0][0] + wait - b.cycle)
            latencies.append((await b.fill(1, 11))[0])
            await b.step(20)
            assert len(b.posts) == 3
        simulate(test, FillBurst(2), **FREE | {"most_lots": 10, "freeze_cycles": 290})
    print(latencies)
    assert max(latencies) == HOLD_CYCLES


def test_freeze_without_end():
    """Until the host lets it go; a freeze that is set meanwhile counts from the hold on."""
    async def test(b):
        await b.fill(1, 11)
        await b.step(3000)
        await b.release(0)
        assert b.model.held.keys() == {1}
        await b.release(1)
        assert b.posts[-1][1:] == (1, 0)
        await b.fill(1, 11)
        await b.step(1000)
        b.model.limits["freeze_cycles"] = 900
        await b.step(freeze_cycles=900)
        await b.step(30)
        assert not b.model.held
    simulate(test, FillBurst(2), **FREE | {"most_lots": 10})


def test_host_ends_a_freeze():
    async def test(b):
        await b.fill(0, 11)
        await b.release(0)
        assert b.posts[-1][1:] == (0, 0)
        await b.fill(0, 10)
        await b.step(2000)
        assert len(b.posts) == 2
    simulate(test, FillBurst(2), **FREE | {"most_lots": 10, "freeze_cycles": 1000})


def test_clear():
    """In any cycle after a fill: no hold and no sum survives it."""
    async def test(b):
        for wait in range(1, HOLD_CYCLES + 5):
            await b.fill(0, 7)
            b.takes = 0.
            b.expected = [(1, 1)]
            await b.step(fill=1, instrument=1, lots=11, side=0)
            await b.step(wait)
            await b.step(clear=1)
            b.takes, b.standing, b.expected = 1., None, []
            b.model.held, b.model.came = {}, {}
            assert b.ctx.get(b.dut.clearing)
            assert b.ctx.get(b.dut.busy)
            assert not b.ctx.get(b.dut.post)
            while b.ctx.get(b.dut.clearing):
                await b.step()
            assert (await b.fill(1, 10))[0] is None
            assert (await b.fill(0, 10))[0] is None
            await b.release(1)
            await b.step(clear=1)
            b.model.came = {}
            while b.ctx.get(b.dut.clearing):
                await b.step()
    simulate(test, FillBurst(2), random.Random(SEED), **FREE | {"most_lots": 10})


@pytest.mark.parametrize("takes", [1., .1])
def test_random_fills(takes):
    """Posts come one by one, none is lost, and the slowest is as slow as promised."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    instruments = 5
    limits = {"window_cycles": 2500, "most_lots": 60, "most_delta": 25, "most_fills": 6, "freeze_cycles": 1500}
    slowest, longest, by_host = 0, 0, 0
    posts = []

    async def test(b):
        nonlocal slowest, longest, by_host
        b.takes = takes
        for _ in range(400):
            await b.step(rng.choice((1, 2, 3, 5, 30, 64, 500)))
            await b.settle()
            # Whether a freeze that is about to end goes before the fill cannot be told from outside.
            sure = [n for n in range(instruments)
                    if b.cycle - b.model.held.get(n, b.cycle) < limits["freeze_cycles"] - 400]
            if not sure or b.standing is not None:
                continue
            release = rng.choice(sure) if rng.random() < .1 else None
            by_host += release in b.model.held
            latency, took = await b.fill(rng.choice(sure), rng.choice((0, 1, 5, 12)), rng.randrange(2),
                                         release=release)
            if takes == 1.:
                slowest, longest = max(slowest, latency or 0), max(longest, took)
        posts.extend(hold for *_, hold in b.posts)
    simulate(test, FillBurst(instruments), rng, **limits)
    holds = sum(posts)
    print(holds, "holds,", len(posts) - holds, "releases,", by_host, "by the host; slowest", slowest, longest)
    assert holds > 30
    assert len(posts) - holds - by_host > 15
    if takes == 1.:
        assert slowest <= HOLD_CYCLES
        assert longest <= EVENT_CYCLES


@pytest.mark.parametrize("takes", [1., .1])
def test_random_refusals(takes):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = {"held": 0, "passed": 0}

    async def test(b):
        b.takes = takes
        for _ in range(300):
            await b.step(rng.choice((1, 2, 30, 64, 300)))
            instrument = rng.randrange(4)
            release = instrument if rng.random() < .1 else None
            latency, _ = await b.event(instrument, count=rng.randrange(3), release=release)
            seen["held" if latency else "passed"] += 1
            assert latency is None or takes < 1. or latency <= HOLD_CYCLES
        assert {hold for *_, hold in b.posts} == {0, 1}
    simulate(test, RefusalStorm(4), rng, window_cycles=3000, most_refusals=5)
    print(seen)
    assert min(seen.values()) > 10


def test_most_refusals():
    async def test(b):
        for _ in range(127):
            assert (await b.event(0, count=2))[0] is None
        assert (await b.event(0, count=1))[0] is None
        assert (await b.event(0, count=1))[0]
    simulate(test, RefusalStorm(1), window_cycles=1 << 30, most_refusals=255)

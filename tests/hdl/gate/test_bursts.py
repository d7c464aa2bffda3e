# amaranth: UnusedElaboratable=no
"""G17 and G20 against naive models that keep every fill and refusal."""

import random
from dataclasses import dataclass, field

import pytest
from amaranth.back import verilog

from hdl.gate.bursts import ANSWER_CYCLES, VISIT_CYCLES, FillBurst, RefusalStorm
from hdl.gate.rolling import PARTS, UNIT_CYCLES
from tests.hdl.simulation import simulated

SEED = 20
MOST24 = (1 << 24) - 1


@dataclass
class Model:
    """What is held, and everything that counts: per instrument (sub-bucket, lots, signed lots, number)."""

    limits: dict
    held: dict = field(default_factory=dict)    # instrument: cycle of the answer
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


class Bench:
    """Gives events and visits, one by one, and compares every answer with the model's."""

    def __init__(self, ctx, dut, **limits):
        self.ctx, self.dut, self.model = ctx, dut, Model(limits)
        self.cycle, self.changes = 0, []        # of answers: (cycle, instrument, held)

    async def step(self, cycles=1, **inputs):
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)
        for _ in range(cycles):
            await self.ctx.tick()
            self.cycle += 1
            for name in ("fill", "refusals", "visit"):
                if hasattr(self.dut, name):
                    self.ctx.set(getattr(self.dut, name), 0)

    async def start(self):
        """Limits, and the sweep."""
        await self.step(**self.model.limits)
        while self.ctx.get(self.dut.clearing):
            await self.step()

    async def answer(self, cycles, instrument, **strobe):
        """What comes of it: ``None`` or whether it is held now. The answer comes when it should and lasts."""
        await self.step(instrument=instrument, **strobe)
        for n in range(1, cycles):
            assert not self.ctx.get(self.dut.answers), n
            assert not self.ctx.get(self.dut.changes), n
            await self.step()
        assert self.ctx.get(self.dut.answers)
        changes, held = self.ctx.get(self.dut.changes), self.ctx.get(self.dut.held)
        if changes:
            self.changes.append((self.cycle, instrument, held))
        await self.step()
        assert not self.ctx.get(self.dut.answers)
        assert self.ctx.get(self.dut.changes) == changes
        return held if changes else None

    async def event(self, instrument, **event):
        """An event; whether it holds."""
        if "lots" in event:
            lots = event["lots"]
            what = (lots, -lots if event["side"] else lots, 1)
            event["fill"] = 1
        else:
            what = (0, 0, event["count"])
            event["refusals"] = 1
        was_held = instrument in self.model.held
        expected = self.model.event(self.cycle, instrument, *what)
        got = await self.answer(VISIT_CYCLES if was_held else ANSWER_CYCLES, instrument, **event)
        assert got == (1 if expected else None)
        if expected:
            self.model.held[instrument] = self.changes[-1][0]
        return bool(expected)

    async def visit(self, instrument, lets_go=0):
        """Whether a hold ended."""
        freeze, since = self.model.limits.get("freeze_cycles", 0), self.model.held.get(instrument)
        ends = since is not None and bool(lets_go or (freeze and self.cycle + 4 - since >= freeze))
        assert await self.answer(VISIT_CYCLES, instrument, visit=1, lets_go=lets_go) == (0 if ends else None)
        if ends:
            self.model.free(instrument)
        return ends

    async def fill(self, instrument, lots, side=0):
        return await self.event(instrument, lots=lots, side=side)


def simulate(test, dut, **limits):
    async def testbench(ctx):
        b = Bench(ctx, dut, **limits)
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
        assert await b.fill(1, 1)
        assert b.model.held.keys() == {1}
    simulate(test, FillBurst(3), **FREE | {limit: 0})


def test_reset_blocks():
    async def test(b):
        assert await b.fill(0, 1)
    simulate(test, FillBurst(1), **dict.fromkeys(FREE, 0))

    async def refused(b):
        assert await b.event(0, count=1)
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
            assert not await b.fill(2, lots, side)
        assert await b.fill(2, *last) == bool(below)
    simulate(test, FillBurst(3), **FREE | {limit: of[limit] - below})


def test_sums_that_do_not_fit():
    """The greatest limits are limits nevertheless."""
    async def test(b):
        assert not await b.fill(0, MOST24)
        assert await b.fill(0, 1, 1)
        assert await b.visit(0, 1)
        assert not await b.fill(0, MOST24 - 1)
        assert not await b.fill(0, 1, 1)
        for _ in range(255):
            assert not await b.fill(1, 0)
        assert await b.fill(1, 0)
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
        assert await b.fill(0, 1) != bool(gap)
    simulate(test, FillBurst(1), **limits)


@pytest.mark.parametrize("early", [0, 1])
def test_freeze(early):
    """It ends with the first visit that finds it over, not a cycle sooner, and the window is empty then."""
    async def test(b):
        await b.fill(1, 10)
        assert await b.fill(1, 1)
        await b.step(200)
        await b.fill(1, 1000)           # while it is held, it does not count
        await b.step(b.model.held[1] + 700 - 4 - early - b.cycle)
        assert not await b.visit(0)
        await b.step()
        assert await b.visit(1)
    simulate(test, FillBurst(3), **FREE | {"most_lots": 10, "freeze_cycles": 700})

    async def exactly(b):
        await b.fill(1, 11)
        await b.step(b.model.held[1] + 300 - 4 - early - b.cycle)
        assert await b.visit(1) != bool(early)
        if not early:
            assert not await b.fill(1, 10)
            assert await b.fill(1, 1)
    simulate(exactly, FillBurst(3), **FREE | {"most_lots": 10, "freeze_cycles": 300})


def test_freeze_without_end():
    """Until the host lets it go; a freeze that is set meanwhile counts from the hold on."""
    async def test(b):
        await b.fill(1, 11)
        await b.step(3000)
        assert not await b.visit(1)
        assert not await b.visit(0, 1)
        assert await b.visit(1, 1)
        await b.fill(1, 11)
        await b.step(1000)
        b.model.limits["freeze_cycles"] = 900
        await b.step(freeze_cycles=900)
        assert await b.visit(1)
    simulate(test, FillBurst(2), **FREE | {"most_lots": 10})


def test_times_have_all_their_bits():
    """With the highest one and little else neither a freeze nor a window ends soon."""
    long = (1 << 31) + 200

    async def test(b):
        await b.fill(0, 5)
        await b.step(6000)
        assert await b.fill(0, 6)
        await b.step(1000)
        assert not await b.visit(0)
    simulate(test, FillBurst(2), **FREE | {"most_lots": 10, "window_cycles": long, "freeze_cycles": long})


def test_host_ends_a_freeze():
    async def test(b):
        await b.fill(0, 11)
        assert await b.visit(0, 1)
        assert not await b.fill(0, 10)
        await b.step(2000)
        assert not await b.visit(0)
    simulate(test, FillBurst(2), **FREE | {"most_lots": 10, "freeze_cycles": 1000})


def test_random_fills():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = {"held": 0, "passed": 0, "by time": 0, "by the host": 0, "not yet": 0}

    async def test(b):
        for _ in range(900):
            await b.step(rng.choice((1, 2, 3, 5, 30, 64, 500)))
            of = rng.randrange(5)
            if rng.random() < .4:
                lets_go = rng.random() < .2
                ended = await b.visit(of, lets_go)
                seen["not yet" if not ended else "by the host" if lets_go else "by time"] += 1
            else:
                held = await b.fill(of, rng.choice((0, 1, 5, 12)), rng.randrange(2))
                seen["held" if held else "passed"] += 1
    simulate(test, FillBurst(5), window_cycles=2500, most_lots=60, most_delta=25, most_fills=6, freeze_cycles=1500)
    print(seen)
    assert min(seen.values()) > 10


def test_random_refusals():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    seen = {"held": 0, "passed": 0, "let go": 0}

    async def test(b):
        for _ in range(400):
            await b.step(rng.choice((1, 2, 30, 64, 300)))
            instrument = rng.randrange(4)
            if rng.random() < .15:
                seen["let go"] += await b.visit(instrument, rng.randrange(2))
            else:
                seen["held" if await b.event(instrument, count=rng.randrange(1, 3)) else "passed"] += 1
    simulate(test, RefusalStorm(4), window_cycles=3000, most_refusals=5)
    print(seen)
    assert min(seen.values()) > 10


def test_most_refusals():
    async def test(b):
        for _ in range(127):
            assert not await b.event(0, count=2)
        assert not await b.event(0, count=1)
        assert await b.event(0, count=1)
    simulate(test, RefusalStorm(1), window_cycles=1 << 30, most_refusals=255)

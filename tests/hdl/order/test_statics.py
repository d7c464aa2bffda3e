# amaranth: UnusedElaboratable=no
"""StaticFields: words in, bytes where they belong, against a plain copy."""

import random

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, ResetInserter, Signal

from hdl.control.registers import BY_NAME, REGISTERS
from hdl.order.encoder import LANES, Place
from hdl.order.statics import COPY_CYCLES, FILL_CYCLES, WAIT_CYCLES, Expected, StaticFields
from tests.hdl.simulation import simulated

SWEEP, AFTER_RESET = 512, 1024
NAMES = [register.name for register in REGISTERS if register.access == "rw" and register.section == "session"]
LOADS = NAMES[:3]


def width(name):
    return 32 if name in BY_NAME else 64


class Bench:
    """A component with the encoder's register behind the template, and what has been seen of its strobes."""

    def __init__(self, rng, rows=40, places=40, expected=18):
        self.rng = rng
        self.rows = [tuple(rng.getrandbits(8) for _ in range(LANES)) for _ in range(rows)]
        free = rng.sample([(row, lane) for row in range(rows) for lane in range(LANES)], places)
        ports = [*NAMES, *{name[:-3] for name in NAMES if name.endswith("_lo")}]
        self.places = []
        for row, lane in free:
            port = rng.choice(ports)
            self.places.append(Place(port, rng.randrange(width(port) // 8), row, lane))
        self.expected = []
        for position in rng.sample(range(60), expected):
            port = rng.choice(ports)
            self.expected.append(Expected(port, rng.randrange(width(port) // 8), position))
        self.words = dict.fromkeys(NAMES, 0)
        self.received, self.loaded = {}, {}
        self.reset = Signal()
        self.dut = StaticFields(self.rows, self.places, self.expected, LOADS)
        self.top = Module()
        self.top.submodules.dut = ResetInserter(self.reset)(self.dut)
        self.top.d.sync += self.dut.row.eq(self.dut.template)

    def value(self, words, port):
        return words[port] if port in words else words[port + "_hi"] << 32 | words[port + "_lo"]

    def template(self, words):
        rows = [list(row) for row in self.rows]
        for place in self.places:
            rows[place.row][place.lane] = self.value(words, place.port) >> 8 * place.index & 0xFF
        return [int.from_bytes(row, "little") for row in rows]

    async def tick(self, ctx, times=1):
        """Cycles, in which the strobes are looked at."""
        for _ in range(times):
            if ctx.get(self.dut.receive):
                self.received[ctx.get(self.dut.position)] = ctx.get(self.dut.byte)
            load = ctx.get(self.dut.load)
            if load:
                assert load & load - 1 == 0
                self.loaded[LOADS[load.bit_length() - 1]] = ctx.get(self.dut.row)
            await ctx.tick()

    async def write(self, ctx, name, word):
        ctx.set(self.dut.write, 1)
        ctx.set(self.dut.address, BY_NAME[name].address)
        ctx.set(self.dut.data, word)
        await self.tick(ctx)
        ctx.set(self.dut.write, 0)
        await self.tick(ctx)
        ctx.set(self.dut.address, 0)
        ctx.set(self.dut.data, 0xFFFF_FFFF)
        await self.tick(ctx, 2)
        self.words[name] = word

    async def write_all(self, ctx):
        for name in self.rng.sample(NAMES, len(NAMES)):
            await self.write(ctx, name, self.rng.getrandbits(32))
            await self.tick(ctx, self.rng.choice((0, 0, 1, 2, 3)))

    async def restart(self, ctx):
        ctx.set(self.dut.restart, 1)
        await self.tick(ctx)
        ctx.set(self.dut.restart, 0)

    async def read_template(self, ctx):
        rows = []
        for row in range(len(self.rows)):
            ctx.set(self.dut.template_row, row)
            await self.tick(ctx, 2)
            rows.append(ctx.get(self.dut.template))
        return rows

    async def check(self, ctx, words):
        """What was copied is of these words."""
        assert ctx.get(self.dut.filled)
        assert await self.read_template(ctx) == self.template(words)
        assert self.received == {each.position: self.value(words, each.port) >> 8 * each.index & 0xFF
                                 for each in self.expected}
        assert self.loaded == {name: words[name] for name in LOADS}

    def run(self, testbench):
        simulated(self.top, testbench)


def test_verilog():
    verilog.convert(Bench(random.Random(1)).dut)


@pytest.mark.parametrize("seed", range(3))
def test_words_go_where_they_belong_at_a_restart_and_no_sooner(seed):
    print(f"seed {seed}")
    bench = Bench(random.Random(f"statics {seed}"))

    async def testbench(ctx):
        await bench.tick(ctx, SWEEP)
        before = dict(bench.words)
        await bench.write_all(ctx)
        await bench.tick(ctx, AFTER_RESET)
        await bench.restart(ctx)        # words that came while the first copy was under way are all there
        for _ in range(2):
            for cycle in range(FILL_CYCLES):
                assert not ctx.get(bench.dut.filled), cycle
                await bench.tick(ctx)
            before = dict(bench.words)
            await bench.check(ctx, before)
            await bench.write_all(ctx)
            assert ctx.get(bench.dut.filled)
            await bench.check(ctx, before)
            await bench.restart(ctx)
        # For so long, the template is still read, and is as it was.
        old = bench.template(before)
        for cycle in range(WAIT_CYCLES):
            ctx.set(bench.dut.template_row, cycle % len(old))
            await bench.tick(ctx)
            assert not cycle or ctx.get(bench.dut.template) == old[(cycle - 1) % len(old)]
        # Another restart while it copies: the rest of it is as long as ever, and has the newest words.
        await bench.tick(ctx, bench.rng.randrange(COPY_CYCLES))
        await bench.write_all(ctx)
        await bench.restart(ctx)
        await bench.tick(ctx, FILL_CYCLES)
        await bench.check(ctx, bench.words)

    bench.run(testbench)


def test_a_word_is_taken_in_every_cycle_of_a_copy():
    rng = random.Random("every cycle")
    bench = Bench(rng)

    async def testbench(ctx):
        await bench.tick(ctx, AFTER_RESET)
        for offset in range(4):
            await bench.restart(ctx)
            await bench.tick(ctx, offset)
            for _ in range(FILL_CYCLES // 4 + 1):
                await bench.write(ctx, rng.choice(NAMES), rng.getrandbits(32))
            await bench.tick(ctx, 4)
            await bench.restart(ctx)
            await bench.tick(ctx, FILL_CYCLES)
            await bench.check(ctx, bench.words)

    bench.run(testbench)


def test_a_reset_forgets_all_words():
    bench = Bench(random.Random("reset"))

    async def testbench(ctx):
        await bench.tick(ctx, SWEEP)
        await bench.write_all(ctx)
        await bench.restart(ctx)
        await bench.tick(ctx, FILL_CYCLES)
        await bench.check(ctx, bench.words)
        ctx.set(bench.reset, 1)
        await bench.tick(ctx)
        ctx.set(bench.reset, 0)
        assert not ctx.get(bench.dut.filled)
        await bench.tick(ctx, AFTER_RESET)
        await bench.check(ctx, dict.fromkeys(NAMES, 0))

    bench.run(testbench)


def test_too_much_to_copy():
    most = COPY_CYCLES // 4 - 1 - len(LOADS)
    Bench(random.Random(2), places=most, expected=0)
    with pytest.raises(ValueError, match=f"{most + 1 + len(LOADS)} bytes and words to copy in {COPY_CYCLES} cycles"):
        Bench(random.Random(2), places=most + 1, expected=0)

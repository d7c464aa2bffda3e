# amaranth: UnusedElaboratable=no
"""RegisterBank against the description it is made from, and against a model of the banked rows."""

import random
from collections import deque

import pytest
from amaranth.back import verilog
from amaranth.hdl import ResetInserter, Signal

from hdl.control import registers
from hdl.control.bank import LIVE, OWN, READ_LATENCY, WORDS, RegisterBank, _short_bits
from hdl.control.params import TURNS
from hdl.control.registers import BY_NAME, MAP_HASH, PARAMS, REGISTERS, ROW_WORDS, param_address, security_id_address
from tests.hdl.simulation import simulated

INSTRUMENTS = 5


def simulate(testbench, instruments=INSTRUMENTS):
    dut = RegisterBank(instruments)

    async def ready(ctx):
        for _ in range(16 * 2 * ROW_WORDS):
            if ctx.get(dut.bus.ready):
                break
            await ctx.tick()
        assert ctx.get(dut.bus.ready), "rows are never cleared"
        await testbench(ctx, dut)

    simulated(dut, ready)


async def begin_write(ctx, dut, address, data):
    """Write a register, up to the cycle in which that acts."""
    ctx.set(dut.bus.we, 1)
    ctx.set(dut.bus.addr, address)
    ctx.set(dut.bus.data, data)
    await ctx.tick()
    ctx.set(dut.bus.we, 0)
    ctx.set(dut.bus.addr, address + 1 & 0xFFFF)


async def write(ctx, dut, address, data):
    """Write a register; returns whether it was refused."""
    await begin_write(ctx, dut, address, data)
    refused = ctx.get(dut.refused)
    await ctx.tick().repeat(3)
    return bool(refused)


async def read(ctx, dut, address):
    ctx.set(dut.bus.re, 1)
    ctx.set(dut.bus.addr, address)
    await ctx.tick()
    ctx.set(dut.bus.re, 0)
    await ctx.tick().repeat(READ_LATENCY - 1)
    ctx.set(dut.bus.addr, 0xAAAA)       # the answer must not depend on the address any more
    return ctx.get(dut.bus.read_data)


def is_pair(register):
    return register.name[:-3] + "_lo" in BY_NAME and register.name[:-3] + "_hi" in BY_NAME


def is_word(register):
    return register.name in WORDS or register.name[:-3] in WORDS


def test_converts():
    verilog.convert(RegisterBank(INSTRUMENTS))
    verilog.convert(RegisterBank(1))


def test_every_register_is_zero_after_reset_and_keeps_only_its_bits():
    async def testbench(ctx, dut):
        for register in REGISTERS:
            expected = {"map_hash": MAP_HASH, "instruments": INSTRUMENTS}.get(register.name, 0)
            assert await read(ctx, dut, register.address) == expected, register.name
        for register in REGISTERS:
            if register.access == "rw" and not is_pair(register):
                assert not await write(ctx, dut, register.address, 0xFFFFFFFF)
                value = (1 << register.width) - 1
                if not is_word(register):
                    assert ctx.get(getattr(dut.rw, register.name)) == (0 if register.limit else value), register.name
                assert await read(ctx, dut, register.address) == value

    simulate(testbench)


def test_strobes_come_with_the_write_and_with_the_value():
    async def testbench(ctx, dut):
        for register in REGISTERS:
            if register.access not in ("rw", "wo") or is_pair(register) or is_word(register) or register.limit:
                continue
            if register.name == "commit":   # nothing else is written meanwhile
                continue
            await begin_write(ctx, dut, register.address, 0x5A5A5A5A)
            strobes = [name for name in dut.write.signature.members if ctx.get(getattr(dut.write, name))]
            assert strobes == [register.name]
            await ctx.tick()
            assert not ctx.get(getattr(dut.write, register.name))
            written = [name for name in dut.written.signature.members if ctx.get(getattr(dut.written, name))]
            assert written == ([register.name] if register.access == "rw" else [])
            if register.access == "rw":
                assert ctx.get(getattr(dut.rw, register.name)) == 0x5A5A5A5A & (1 << register.width) - 1
            await ctx.tick()
            assert not any(ctx.get(getattr(dut.written, name)) for name in dut.written.signature.members)
            await ctx.tick()

    simulate(testbench)


def test_pairs_change_at_once():
    async def testbench(ctx, dut):
        lows = [r for r in REGISTERS if r.name.endswith("_lo") and is_pair(r)]
        for register in lows:
            name, high = register.name[:-3], BY_NAME[register.name[:-3] + "_hi"]
            if register.access != "rw" or is_word(register):
                continue
            assert not await write(ctx, dut, register.address, 0x11223344)
            assert ctx.get(getattr(dut.rw, name)) == 0
            assert not ctx.get(getattr(dut.written, name))
            await begin_write(ctx, dut, high.address, 0x55667788)
            assert ctx.get(getattr(dut.write, name))
            assert ctx.get(getattr(dut.rw, name)) == 0
            await ctx.tick()
            assert ctx.get(getattr(dut.written, name))
            assert ctx.get(getattr(dut.rw, name)) == 0x5566778811223344
            await ctx.tick().repeat(2)
            if name in LIVE:
                ctx.set(getattr(dut.now, name), 0xAABBCCDD00000001)
                assert await read(ctx, dut, register.address) == 0x00000001
                assert await read(ctx, dut, high.address) == 0xAABBCCDD
            else:
                assert await read(ctx, dut, register.address) == 0x11223344
                assert await read(ctx, dut, high.address) == 0x55667788
        for register in lows:
            if register.access == "ro":
                port, high = getattr(dut.ro, register.name[:-3]), BY_NAME[register.name[:-3] + "_hi"]
                ctx.set(port, 0x00000001_FFFFFFFF)
                assert await read(ctx, dut, register.address) == 0xFFFFFFFF
                ctx.set(port, 0x00000002_00000000)      # a carry between the two reads must not show
                assert await read(ctx, dut, high.address) == 1

    simulate(testbench)


def test_words_are_told_as_they_are_written():
    async def testbench(ctx, dut):
        assert {name for name in WORDS if name not in BY_NAME} | {r.name for r in REGISTERS if r.name in WORDS} \
            == set(WORDS)
        assert not set(WORDS) & set(dut.rw.signature.members) | set(WORDS) & set(dut.write.signature.members)
        for n, register in enumerate(REGISTERS, 1):
            if register.access != "rw" or register.name[:-3] in LIVE:
                continue
            await begin_write(ctx, dut, register.address, 0x01010101 * n)
            strobes = [name for name in dut.write.signature.members if ctx.get(getattr(dut.write, name))]
            assert not (is_word(register) and strobes)
            assert ctx.get(dut.word_write), register.name
            for _ in range(2):
                assert (ctx.get(dut.word_address), ctx.get(dut.bus.data)) == (register.address, 0x01010101 * n)
                await ctx.tick()
                assert not ctx.get(dut.word_write)
            await ctx.tick()
            assert await read(ctx, dut, register.address) == 0x01010101 * n & (1 << register.width) - 1
        # A word that is refused is none.
        await begin_write(ctx, dut, BY_NAME["peer_mac_hi"].address, 1)
        assert ctx.get(dut.refused)
        assert not ctx.get(dut.word_write)
        await ctx.tick().repeat(3)
        for address in (BY_NAME["session_enable"].address, BY_NAME["session_up"].address, security_id_address(1)):
            await begin_write(ctx, dut, address, 1)
            assert not ctx.get(dut.word_write)
            await ctx.tick().repeat(3)

    simulate(testbench)


def test_values_and_counters_are_read():
    async def testbench(ctx, dut):
        for n, register in enumerate(REGISTERS, 1):
            if register.access == "ro" and register.name not in OWN and not is_pair(register):
                ctx.set(getattr(dut.ro, register.name), n & (1 << register.width) - 1)
                assert await read(ctx, dut, register.address) == n & (1 << register.width) - 1, register.name
        for n, register in enumerate(r for r in REGISTERS if r.access == "count" and r.name not in OWN):
            ctx.set(getattr(dut.count, register.name), 1)
            await ctx.tick().repeat(n % 5 + 1)
            ctx.set(getattr(dut.count, register.name), 0)
            assert await read(ctx, dut, register.address) == n % 5 + 1, register.name

    simulate(testbench)


@pytest.mark.parametrize("disturbed_by", ["reads", "writes"])
def test_counters_lose_nothing(disturbed_by):
    """All of them at their pace, while the host reads or writes as fast as the link can."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    counters = [r for r in REGISTERS if r.access == "count" and r.name not in OWN]
    pace = {r.name: {7: 1, 4: 7, 3: 15}[_short_bits(r.name)] for r in counters}
    phase = {name: rng.randrange(every) for name, every in pace.items()}

    async def testbench(ctx, dut):
        counted, refused, asked, cycles = dict.fromkeys(pace, 0), 0, 0, 500
        for cycle in range(cycles):
            for name, every in pace.items():
                strobe = (cycle + phase[name]) % every == 0
                counted[name] += strobe
                if every > 1 or cycle == 0:
                    ctx.set(getattr(dut.count, name), strobe)
            ctx.set(dut.bus.re, 0)
            ctx.set(dut.bus.we, 0)
            if disturbed_by == "reads" and cycle % 13 == 0 and cycle + READ_LATENCY < cycles:
                register = rng.choice(counters)
                ctx.set(dut.bus.re, 1)
                ctx.set(dut.bus.addr, register.address)
                asked, before = cycle, counted[register.name]
            if disturbed_by == "reads" and asked and cycle == asked + READ_LATENCY:
                assert before - 1 <= ctx.get(dut.bus.read_data) <= counted[register.name], register.name
            if disturbed_by == "writes" and cycle % 4 == 0:
                ctx.set(dut.bus.we, 1)
                ctx.set(dut.bus.addr, rng.choice([BY_NAME["scratch"].address, 0x7FFF]))
                ctx.set(dut.bus.data, cycle)
            await ctx.tick()
            refused += ctx.get(dut.refused)
        for name in pace:
            ctx.set(getattr(dut.count, name), 0)
        ctx.set(dut.bus.we, 0)
        await ctx.tick().repeat(READ_LATENCY)
        for register in counters:
            assert await read(ctx, dut, register.address) == counted[register.name], register.name
        assert await read(ctx, dut, BY_NAME["write_refused"].address) == refused

    simulate(testbench)


def test_refused_writes_change_nothing_and_are_counted():
    async def testbench(ctx, dut):
        ctx.set(dut.ro.state, registers.ACTIVE)
        last = max(register.address for register in REGISTERS)
        between = max(register.address for register in REGISTERS if register.access != "count") + 1
        bad = [r.address for r in REGISTERS if r.access in ("ro", "count")]
        bad += [last + 1, between, 0x0FFF, 0x1000, 0x1000 + INSTRUMENTS, 0x1100, 0x2000, 0x2040, 0x7FFF,
                param_address(INSTRUMENTS, "sym_en"), 0xFFFF]
        for address in bad:
            assert await write(ctx, dut, address, 0xFFFFFFFF), hex(address)
        assert await read(ctx, dut, BY_NAME["write_refused"].address) == len(bad)
        for name in dut.rw.signature.members:
            assert ctx.get(getattr(dut.rw, name)) == 0
        for nothing in (last + 1, between, 0x00FF):
            assert await read(ctx, dut, nothing) == 0
        assert await read(ctx, dut, 0x7000) == 0

    simulate(testbench)


def test_security_ids_only_while_disarmed():
    async def testbench(ctx, dut):
        for instrument in range(INSTRUMENTS):
            assert await read(ctx, dut, security_id_address(instrument)) == 0
            await begin_write(ctx, dut, security_id_address(instrument), 0x1000 + instrument)
            assert ctx.get(dut.security_write)
            assert not ctx.get(dut.refused)
            assert ctx.get(dut.security_index) == instrument
            await ctx.tick().repeat(3)
        for state in (registers.ACTIVE, registers.REDUCING, registers.HALTED):
            ctx.set(dut.ro.state, registers.DISARMED)
            await begin_write(ctx, dut, security_id_address(0), 1)
            ctx.set(dut.ro.state, state)        # in the very cycle
            assert not ctx.get(dut.security_write)
            assert ctx.get(dut.refused)
            await ctx.tick().repeat(3)
        assert await read(ctx, dut, security_id_address(0)) == 0x1000
        assert await read(ctx, dut, security_id_address(INSTRUMENTS)) == 0

    simulate(testbench)


def test_histogram_is_read_through_its_port():
    async def testbench(ctx, dut):
        ctx.set(dut.histogram_data, 77)
        assert await read(ctx, dut, registers.HISTOGRAM_BASE + 63) == 77
        ctx.set(dut.bus.re, 1)
        ctx.set(dut.bus.addr, registers.HISTOGRAM_BASE + 41)
        await ctx.tick()
        ctx.set(dut.bus.re, 0)
        assert ctx.get(dut.histogram_addr) == 41
        await ctx.tick().repeat(READ_LATENCY)
        assert await read(ctx, dut, registers.HISTOGRAM_BASE + 64) == 0

    simulate(testbench)


def test_rows_are_cleared_by_reset():
    """A row written before reset blocks after it: all limits are zero again, in both banks."""
    dut, reset = RegisterBank(2), Signal()

    async def testbench(ctx):
        for _ in range(2):
            while not ctx.get(dut.bus.ready):
                await ctx.tick()
            ctx.set(dut.row_addr, 1)

            async def choose():
                ctx.set(dut.row_choose, 1)
                await ctx.tick()
                ctx.set(dut.row_choose, 0)
                await ctx.tick().repeat(2 + len(TURNS))

            await choose()
            for before in (0, 1000):
                assert ctx.get(dut.row["max_lots"]) == before
                await write(ctx, dut, param_address(1, "max_lots"), 1000)
                await write(ctx, dut, security_id_address(1), 4711)
                ctx.set(dut.flip, 1)
                await ctx.tick()
                ctx.set(dut.flip, 0)
                await choose()
                assert ctx.get(dut.row["max_lots"]) == 1000
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            while not ctx.get(dut.bus.ready):
                await ctx.tick()
            assert await read(ctx, dut, security_id_address(1)) == 0
            assert not ctx.get(dut.bank)

    simulated(ResetInserter(reset)(dut), testbench)


@pytest.mark.parametrize("instruments", [1, 5, 16])
def test_rows_against_a_model(instruments):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def testbench(ctx, dut):
        banks = [[{p.name: 0 for p in PARAMS} for _ in range(instruments)] for _ in range(2)]
        active, row, turn = 0, 0, len(TURNS)
        expected, fetched = {}, deque([{}] * 3, maxlen=3)
        written = deque([None] * 3, maxlen=3)       # of this cycle and the two before it
        for cycle in range(1500):
            instrument, param, value = rng.randrange(instruments), rng.choice(PARAMS), rng.getrandbits(32)
            flip, choose = rng.random() < 0.1, rng.random() < 0.2
            if choose:
                row, turn = rng.randrange(instruments), 0
            elif turn < len(TURNS):
                turn += 1
            ctx.set(dut.flip, flip)
            ctx.set(dut.row_choose, choose)
            written.append((instrument, param, value) if cycle % 4 == 0 and rng.random() < 0.9 else None)
            ctx.set(dut.bus.we, written[-1] is not None)
            if written[-1] is not None:
                ctx.set(dut.bus.addr, param_address(instrument, param.name))
                ctx.set(dut.bus.data, value)
            assert ctx.get(dut.param_written) == (1 << written[0][1].word if written[0] else 0)
            if written[0] is not None:
                instrument, *_ = written[0]
                rounded = 1 << (instruments - 1).bit_length() if instruments > 1 else 2
                assert ctx.get(dut.param_write_row) == instrument + (1 - active) * rounded
            ctx.set(dut.row_addr, row if turn < len(TURNS) else rng.randrange(instruments))
            names = TURNS[turn] if turn < len(TURNS) else ()
            fetched.append({name: banks[active][row][name] for name in names})
            await ctx.tick()
            expected |= fetched[0]
            active ^= flip
            if written[1] is not None:      # acts in this cycle: on the bank that is the shadow after it
                instrument, param, value = written[1]
                value &= (1 << param.width) - 1
                banks[1 - active][instrument][param.name] = value - (
                    1 << param.width if param.signed and value >> param.width - 1 else 0)
            assert ctx.get(dut.bank) == active
            assert {name: ctx.get(dut.row[name]) for name in expected} == expected
        ctx.set(dut.bus.we, 0)
        ctx.set(dut.flip, 0)
        await ctx.tick().repeat(3)
        for instrument in range(instruments):
            for param in PARAMS:
                value = banks[1 - active][instrument][param.name] & (1 << param.width) - 1
                assert await read(ctx, dut, param_address(instrument, param.name)) == value

    simulate(testbench, instruments)


def test_number_of_instruments_is_checked():
    with pytest.raises(ValueError, match="instruments is 257, must be 1 to 256"):
        RegisterBank(257)

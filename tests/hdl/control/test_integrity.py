# amaranth: UnusedElaboratable=no
"""G2 in the register bank: what is committed is what the host has said, to the bit, or nothing changes."""

import random
import zlib

import pytest
from amaranth.back import verilog

from hdl.control.bank import READ_LATENCY, WEIGHED
from hdl.control.integrity import WORD_CYCLES, Integrity, weigh_cycles
from hdl.control.params import TURNS
from hdl.control.registers import ARM_MAGIC, BY_NAME, LIMITS, MAP_HASH, PARAM_BY_NAME, PARAMS, param_address
from host.integrity import Image, crc
from tests.hdl.control.test_bank import begin_write, read, simulate, write
from tests.hdl.simulation import simulated

ROWS = 2


class Host:
    """Writes to a bank, and remembers what ought to be staged and in force."""

    def __init__(self, ctx, dut, seed=0):
        self.ctx, self.dut, self.rng, self.image = ctx, dut, random.Random(seed), Image(ROWS)
        self.force, self.applied = {}, None

    async def put(self, address, word):
        assert not await write(self.ctx, self.dut, address, word)
        self.image.wrote(address, word)

    async def limits(self, share=1.0):
        """All limits and words, or a share of them, anew."""
        for address in (*(r.address for r in LIMITS), *(param_address(n, p.name) for n in range(ROWS) for p in PARAMS)):
            if self.rng.random() < share:
                await self.put(address, self.rng.getrandbits(32))

    async def commit(self, hash_=None, *, said=True):
        """Say a CRC, commit, and flip when asked to. Returns whether it was right; what that has to change was."""
        ctx, dut = self.ctx, self.dut
        hash_ = self.image.staged if hash_ is None else hash_
        if said:
            assert not await write(ctx, dut, BY_NAME["limits_crc"].address, hash_)
        await begin_write(ctx, dut, BY_NAME["commit"].address, 1)
        for cycle in range(weigh_cycles(ROWS)):
            assert not ctx.get(dut.commit) | ctx.get(dut.commit_refused), cycle
            await ctx.tick()
        if ctx.get(dut.commit_refused):
            assert not ctx.get(dut.commit)
            assert ctx.get(dut.commit_hash) == self.image.staged
            await ctx.tick().repeat(20)
            await self.check()
            return False
        assert ctx.get(dut.commit)
        await ctx.tick().repeat(self.rng.randrange(1, 40))
        await self.check()          # nothing yet
        ctx.set(dut.flip, 1)
        await ctx.tick()
        ctx.set(dut.flip, 0)
        for name in (r.name for r in LIMITS):
            assert not ctx.get(getattr(dut.write, name))
        await ctx.tick()
        strobes = [r.name for r in LIMITS if ctx.get(getattr(dut.write, r.name))]
        await ctx.tick()
        self.force, self.applied, self.image.hash = dict(self.image.limits), strobes, hash_
        self.image.bank ^= 1
        await self.check()
        return True

    async def check(self):
        """Limits and rows in force are those of the last right commit, and so is their hash."""
        ctx, dut = self.ctx, self.dut
        for r in LIMITS:
            assert ctx.get(getattr(dut.rw, r.name)) == self.force.get(r.name, 0) & (1 << r.width) - 1, r.name
        assert ctx.get(dut.bank) == self.image.bank
        assert ctx.get(dut.limits_ok) == (self.applied is not None)
        for n in range(ROWS):
            ctx.set(dut.row_addr, n)
            ctx.set(dut.row_choose, 1)
            await ctx.tick()
            ctx.set(dut.row_choose, 0)
            await ctx.tick().repeat(2 + len(TURNS))
            for p in PARAMS:
                want = self.image.rows[self.image.bank][n][p.word] & (1 << p.width) - 1
                assert ctx.get(dut.row[p.name]) & (1 << p.width) - 1 == want, p.name
        assert await read(ctx, dut, BY_NAME["limits_hash"].address) == self.image.hash
        assert await read(ctx, dut, BY_NAME["limits_valid"].address) == (self.applied is not None)


def hosted(test, seed=0):
    async def testbench(ctx, dut):
        await test(Host(ctx, dut, seed))
    simulate(testbench, ROWS)


def test_converts():
    assert "module" in verilog.convert(Integrity(3))
    assert "module" in verilog.convert(Integrity(1))


def test_words_are_asked_for_in_two_cycles_of_each():
    """Of those that it takes, so that the host's reads find the others; and nothing is said before it is asked."""
    dut = Integrity(2, limits=3, row_words=4)
    fetched, said = [], []

    async def testbench(ctx):
        for cycle in range(WORD_CYCLES * 11 + 20):
            ctx.set(dut.start, cycle == 4)
            fetched.append(ctx.get(dut.fetch))
            said.append((ctx.get(dut.commit), ctx.get(dut.refused), ctx.get(dut.apply)))
            await ctx.tick()
    simulated(dut, testbench)
    words = 3 + 2 * 4
    assert sum(fetched) == 2 * words
    assert [said.index(each) > 5 for each in set(said) if any(each)] == [True]
    assert said.count((0, 1, 0)) == 1


def test_the_crc_is_that_of_zlib():
    words, row = [0x01020304, *range(len(LIMITS) - 1)], range(100, 100 + len(PARAMS))
    limits = {r.name: 0xFFFF_FF00_0000_0000 | word for r, word in zip(LIMITS, words, strict=True)}
    cut = [word & (1 << r.width) - 1 for r, word in zip(LIMITS, words, strict=True)]
    cut += [word & (1 << p.width) - 1 for p, word in zip(PARAMS, row, strict=True)]
    cut += [0] * len(PARAMS)    # a row that is missing
    data = b"".join(w.to_bytes(4, "little") for w in (MAP_HASH, *cut))
    assert crc(limits, [tuple(row)], 2) == zlib.crc32(data)


def test_after_reset_nothing_is_in_force():
    async def test(host):
        await host.check()
        assert not host.ctx.get(host.dut.hash_ok)
        for said in (0, crc({}, [], ROWS)):     # not even that of what is there
            await write(host.ctx, host.dut, BY_NAME["limits_crc"].address, said)
            assert not host.ctx.get(host.dut.hash_ok)
        assert not await host.commit(0)
    hosted(test)


def test_right_commits():
    """All words, then some, then none: each bank in turn."""
    async def test(host):
        for share in (1, 1, .2, .02, 0, .1):
            await host.limits(share)
            assert await host.commit()
        assert await read(host.ctx, host.dut, BY_NAME["commits_refused"].address) == 0
    hosted(test)


def test_only_limits_that_were_written_have_strobes():
    async def test(host):
        await host.limits()
        assert await host.commit()
        assert host.applied == [r.name for r in LIMITS]
        await host.put(BY_NAME["ref_cycles"].address, 5)
        assert await host.commit()
        assert host.applied == ["ref_cycles"]
    hosted(test)


FAULTS = {
    "a limit is missing": lambda a: a[:3] + a[4:],
    "a word of a row is missing": lambda a: a[:-7] + a[-6:],
    "one bit is another": lambda a: [*a[:-9], (a[-9][0], a[-9][1] ^ 1), *a[-8:]],
    "two words have changed places": lambda a: [*a[:-4], (a[-4][0], a[-3][1]), (a[-3][0], a[-4][1]), *a[-2:]],
    "one word too many": lambda a: [*a, (param_address(0, "sym_en"), 1 - (a[len(LIMITS)][1] & 1))],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_torn(fault):
    """What is staged is not what the host has meant; after that the right words make it right."""
    async def test(host):
        await host.limits()
        assert await host.commit()
        meant = [(address, host.rng.getrandbits(32) | 1) for address in (
            *(r.address for r in LIMITS), *(param_address(n, p.name) for n in range(ROWS) for p in PARAMS))]
        want = Image(ROWS)
        for address, word in meant:
            want.wrote(address, word)
        for address, word in FAULTS[fault](meant):
            await host.put(address, word)
        assert not await host.commit(want.staged)
        assert await read(host.ctx, host.dut, BY_NAME["commits_refused"].address) == 1
        for address, word in meant:
            await host.put(address, word)
        assert await host.commit(want.staged)
    hosted(test)


def test_stale():
    """The same commit again: the other bank holds something else. And a CRC is said for one commit, not two."""
    async def test(host):
        await host.limits()
        assert await host.commit()
        again = host.image.hash
        assert not await host.commit(again)
        await host.limits()
        assert not await host.commit(again)
        right = host.image.staged
        await write(host.ctx, host.dut, BY_NAME["limits_crc"].address, right)
        await write(host.ctx, host.dut, BY_NAME["arm"].address, ARM_MAGIC)      # has used it up
        assert not await host.commit(said=False)
        assert await host.commit()
    hosted(test)


def test_closed_while_it_is_weighed():
    """Neither what is weighed can be written nor what is said of it; the rest can, and is read."""
    async def test(host):
        ctx, dut = host.ctx, host.dut
        await host.limits()
        await write(ctx, dut, BY_NAME["limits_crc"].address, host.image.staged)
        await begin_write(ctx, dut, BY_NAME["commit"].address, 1)
        await ctx.tick().repeat(3)
        tries = [*(BY_NAME[name].address for name in WEIGHED), LIMITS[0].address, LIMITS[-1].address,
                 param_address(0, "sym_en"), param_address(1, "bands")]
        cycles = 3
        while cycles < weigh_cycles(ROWS) - 100:
            assert await write(ctx, dut, host.rng.choice(tries), host.rng.getrandbits(32))
            assert not await write(ctx, dut, BY_NAME["scratch"].address, cycles)
            address = host.rng.choice((BY_NAME["scratch"].address, param_address(1, "bands")))
            want = cycles if address < 0x8000 else host.image.rows[1][1][PARAM_BY_NAME["bands"].word]
            assert await read(ctx, dut, address) == want
            await ctx.tick().repeat(wait := host.rng.randrange(1, 4))
            cycles += 8 + READ_LATENCY + 1 + wait
        while not ctx.get(dut.commit):
            assert not ctx.get(dut.commit_refused)
            await ctx.tick()
        assert await write(ctx, dut, tries[-1], 1)      # still
        ctx.set(dut.flip, 1)
        await ctx.tick()
        ctx.set(dut.flip, 0)
        await ctx.tick().repeat(3)
        host.force, host.applied, host.image.hash = dict(host.image.limits), [], host.image.staged
        host.image.bank ^= 1
        await host.check()
        for address in tries:
            if address != BY_NAME["commit"].address:
                assert not await write(ctx, dut, address, 1)
    hosted(test, 3)


def test_a_hash_is_said_for_one_command():
    async def test(host):
        ctx, dut = host.ctx, host.dut

        async def says(value):
            await write(ctx, dut, BY_NAME["limits_crc"].address, value)
            return ctx.get(dut.hash_ok)

        await host.limits()
        assert not await says(host.image.staged)        # which is not in force yet
        assert await host.commit()
        assert not ctx.get(dut.hash_ok)                 # that was for the commit
        assert not await says(host.image.hash ^ 1 << host.rng.randrange(32))
        for command in ("arm", "clear_halt"):
            assert await says(host.image.hash)
            await begin_write(ctx, dut, BY_NAME[command].address, 0)
            assert ctx.get(dut.hash_ok)                 # while the command acts
            await ctx.tick().repeat(3)
            assert not ctx.get(dut.hash_ok)
        assert await says(host.image.hash)
        await write(ctx, dut, BY_NAME["disarm"].address, 1)
        assert ctx.get(dut.hash_ok)
    hosted(test)

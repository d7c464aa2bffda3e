"""Trading state, dead-man, kill: every transition, and everything at random against a naive model."""

import random

import pytest
from amaranth.back import verilog

from hdl.control.registers import ACTIVE, ARM_MAGIC, DISARMED, HALT_CAUSES, HALTED, REDUCING, STATES
from hdl.gate.state import TradingState
from tests.hdl.simulation import simulated

SEED = 62
KILL, PIN, DEADMAN, LOST, FEED, EMISSION, LOSS, TORN = (1 << HALT_CAUSES[name] for name in (
    "kill_register", "kill_pin", "deadman", "session_lost", "feed_lost", "emission", "loss", "integrity"))
STROBES = ("arm", "disarm", "reduce", "kill", "clear_halt", "heartbeat", "session_lost", "mismatch", "torn")
FOREVER = 1 << 20
#: Cycles from the write of a heartbeat to the first one in which it shows.
HEARTBEAT = 3


class Bench:
    """A trading state; strobes last one cycle, levels hold."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.beat = ctx, dut, 0

    async def step(self, cycles=1, **inputs):
        """Run; ``inputs`` apply in the first cycle. Returns the strobes of that cycle.

        There is one before it if a command's data have to stand first.
        """
        if (inputs.get("arm") or inputs.get("clear_halt")) and "kill" not in inputs:    # the random test names all
            self.ctx.set(self.dut.data, inputs["data"])
            await self.ctx.tick()
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)
        fired = {name for name in ("armed", "reduced", "arm_refused", "stopped", "cleared")
                 if self.ctx.get(getattr(self.dut, name))}
        for _ in range(cycles):
            await self.ctx.tick()
            for name in STROBES:
                self.ctx.set(getattr(self.dut, name), 0)
        return fired

    async def heartbeat(self, **then):
        """Write one, and wait until it shows; ``then`` is set in the cycle before."""
        self.beat += 1
        await self.step(HEARTBEAT - 1, heartbeat=1, data=self.beat)
        await self.step(**then)

    async def clear(self):
        return await self.step(clear_halt=1, data=self.nonce)

    async def enter(self, state):
        """From DISARMED, with a session, to a state."""
        await self.step(session_up=1, deadman_cycles=FOREVER)
        await self.heartbeat()
        if state in (ACTIVE, REDUCING):
            await self.step(arm=1, data=ARM_MAGIC)
        if state == REDUCING:
            await self.step(reduce=1)
        if state == HALTED:
            await self.step(kill=1)
        assert self.state == state

    def __getattr__(self, name):
        return self.ctx.get(getattr(self.dut, name))

    @property
    def cause(self):
        return self.halt_cause

    @property
    def nonce(self):
        return self.halt_nonce


def simulate(test):
    dut = TradingState()

    async def testbench(ctx):
        ctx.set(dut.hash_ok, 1)
        await test(Bench(ctx, dut))

    simulated(dut, testbench)


def test_converts():
    assert "module" in verilog.convert(TradingState())


def test_reset_blocks():
    async def test(b):
        assert (b.state, b.trading, b.heartbeat_ok, b.halt_cause, b.halt_nonce) == (DISARMED, 0, 0, 0, 0)
        assert (b.silent, b.changed) == (1, 0)
        assert await b.step(arm=1, data=ARM_MAGIC) == {"arm_refused"}   # no session
        assert b.state == DISARMED
    simulate(test)


def test_nothing_is_armed_in_the_first_cycle():
    """The word of a command has to stand in the cycle before it, and there is none."""
    async def test(b):
        for name, value in (("session_up", 1), ("arm", 1), ("data", ARM_MAGIC)):
            b.ctx.set(getattr(b.dut, name), value)
        assert (b.armed, b.arm_refused) == (0, 1)
        await b.ctx.tick()
        assert b.state == DISARMED
    simulate(test)


#: (command, data, state) -> (state after it, strobes). What is not named changes nothing.
EFFECT = {
    ("arm", ARM_MAGIC, DISARMED): (ACTIVE, {"armed"}),
    ("disarm", 1, ACTIVE): (DISARMED, {"stopped"}),
    ("disarm", 1, REDUCING): (DISARMED, {"stopped"}),
    ("reduce", 1, ACTIVE): (REDUCING, {"reduced"}),
    ("kill", 1, DISARMED): (HALTED, set()),
    ("kill", 1, ACTIVE): (HALTED, {"stopped"}),
    ("kill", 1, REDUCING): (HALTED, {"stopped"}),
    ("kill_pin", 1, DISARMED): (HALTED, set()),
    ("kill_pin", 1, ACTIVE): (HALTED, {"stopped"}),
    ("kill_pin", 1, REDUCING): (HALTED, {"stopped"}),
    ("session_lost", 1, ACTIVE): (HALTED, {"stopped"}),
    ("session_lost", 1, REDUCING): (HALTED, {"stopped"}),
    ("feed_lost", 1, ACTIVE): (HALTED, {"stopped"}),
    ("feed_lost", 1, REDUCING): (HALTED, {"stopped"}),
    ("mismatch", 1, DISARMED): (HALTED, set()),
    ("mismatch", 1, ACTIVE): (HALTED, {"stopped"}),
    ("mismatch", 1, REDUCING): (HALTED, {"stopped"}),
    ("torn", 1, ACTIVE): (HALTED, {"stopped"}),
    ("torn", 1, REDUCING): (HALTED, {"stopped"}),
    ("lost", 1, ACTIVE): (HALTED, {"stopped"}),
    ("lost", 1, REDUCING): (HALTED, {"stopped"}),
    ("warned", 1, ACTIVE): (REDUCING, {"reduced"}),
    ("clear_halt", 1, HALTED): (DISARMED, {"cleared"}),     # 1 is the nonce of the first halt
}


@pytest.mark.parametrize("state", range(4), ids=STATES)
@pytest.mark.parametrize(("command", "data"), [
    ("arm", ARM_MAGIC), ("arm", ARM_MAGIC ^ 1), ("arm", 0), ("disarm", 1), ("reduce", 1), ("kill", 1), ("kill_pin", 1),
    ("session_lost", 1), ("feed_lost", 1), ("mismatch", 1), ("lost", 1), ("warned", 1), ("torn", 1),
    ("clear_halt", 1), ("clear_halt", 0), ("clear_halt", 2)])
def test_every_command_in_every_state(state, command, data):
    async def test(b):
        await b.enter(state)
        cause, nonce = b.cause, b.nonce
        fired = await b.step(**{command: 1, "data": data})
        after, strobes = EFFECT.get((command, data, state), (state, set()))
        if command == "arm" and state != after:
            assert "armed" in fired
        elif command == "arm":
            strobes = {"arm_refused"}
        assert (STATES[b.state], fired) == (STATES[after], strobes)
        assert b.changed == (after != state)
        assert b.trading == (after in (ACTIVE, REDUCING))
        assert b.nonce == nonce + (after == HALTED and state != HALTED)
        bits = {"kill": KILL, "kill_pin": PIN, "session_lost": LOST, "feed_lost": FEED, "mismatch": EMISSION,
                "lost": LOSS, "torn": TORN}
        bit = bits.get(command, 0) if after == HALTED else 0
        if command in ("session_lost", "feed_lost", "lost", "torn") and state == HALTED:
            bit = 0     # nothing was trading
        assert b.cause == (0 if after != HALTED else cause | bit)
        await b.step()
        assert not b.changed
    simulate(test)


def test_orderly_logout_does_not_halt():
    """Disarm, then log out: the next day begins without a halt to be cleared."""
    async def test(b):
        await b.enter(ACTIVE)
        await b.step(disarm=1)
        await b.step(session_lost=1, session_up=1)
        await b.step(20, session_up=0)
        assert (b.state, b.cause, b.nonce) == (DISARMED, 0, 0)
        await b.step(session_up=1)
        assert await b.step(arm=1, data=ARM_MAGIC) == {"armed"}
    simulate(test)


def test_arm_in_the_cycle_in_which_the_session_is_lost():
    async def test(b):
        await b.enter(DISARMED)
        assert await b.step(arm=1, data=ARM_MAGIC, session_lost=1) == {"arm_refused"}
        await b.step(session_up=0)
        assert b.state == DISARMED
    simulate(test)


def test_without_a_feed_nothing_is_armed():
    """It halts what trades and refuses what would, but it keeps nobody from clearing up."""
    async def test(b):
        await b.enter(ACTIVE)
        assert await b.step(feed_lost=1) == {"stopped"}
        assert (b.state, b.cause) == (HALTED, FEED)
        await b.step(20)
        assert await b.clear() == {"cleared"}
        assert (b.state, b.cause) == (DISARMED, 0)
        assert await b.step(arm=1, data=ARM_MAGIC) == {"arm_refused"}
        assert await b.step(arm=1, data=ARM_MAGIC) == {"arm_refused"}
        assert (b.state, b.nonce) == (DISARMED, 1)
        assert await b.step(arm=1, data=ARM_MAGIC, feed_lost=0) == {"armed"}
        await b.step(20)
        assert b.state == ACTIVE
    simulate(test)


def test_after_a_loss_nothing_is_armed():
    async def test(b):
        await b.enter(ACTIVE)
        await b.step(lost=1)
        assert (b.state, b.cause) == (HALTED, LOSS)
        assert await b.clear() == {"cleared"}
        assert await b.step(arm=1, data=ARM_MAGIC) == {"arm_refused"}
        assert await b.step(arm=1, data=ARM_MAGIC, lost=0, warned=1) == {"armed"}
        assert b.state == ACTIVE
        assert await b.step() == {"reduced"}     # as long as the warning lasts
        assert b.state == REDUCING
    simulate(test)


def test_who_does_not_know_what_is_in_force_arms_and_clears_nothing():
    """G2: in every state, and for every command but these two it does not matter."""
    async def test(b):
        await b.enter(DISARMED)
        assert await b.step(arm=1, data=ARM_MAGIC, hash_ok=0) == {"arm_refused"}
        await b.step(hash_ok=1)
        assert await b.step(arm=1, data=ARM_MAGIC) == {"armed"}
        await b.step(hash_ok=0)
        assert await b.step(reduce=1) == {"reduced"}
        assert await b.step(kill=1) == {"stopped"}
        assert await b.clear() == set()
        assert (b.state, b.cause) == (HALTED, KILL)
        await b.step(hash_ok=1)
        assert await b.clear() == {"cleared"}
    simulate(test)


def test_causes_of_one_cycle_are_all_told():
    async def test(b):
        await b.enter(ACTIVE)
        await b.step(feed_lost=1, session_lost=1, kill=1)
        assert b.cause == FEED | LOST | KILL
        await b.step(20)
        assert (b.cause, b.nonce) == (FEED | LOST | KILL, 1), "a feed that stays away is not another halt"
    simulate(test)


def test_kill_pin_holds_the_halt():
    async def test(b):
        await b.enter(ACTIVE)
        assert await b.step(kill_pin=1) == {"stopped"}
        assert await b.clear() == set()
        assert b.state == HALTED
        await b.step(kill_pin=0)
        assert await b.clear() == {"cleared"}
        assert (b.state, b.cause) == (DISARMED, 0)
    simulate(test)


def test_a_halt_is_cleared_once():
    """A command that stays for a second cycle finds nothing to clear."""
    async def test(b):
        await b.enter(HALTED)
        b.ctx.set(b.dut.data, b.nonce)
        await b.ctx.tick()
        b.ctx.set(b.dut.clear_halt, 1)
        assert b.cleared
        await b.ctx.tick()
        assert (b.state, b.cleared) == (DISARMED, 0)
    simulate(test)


def test_halt_must_be_cleared_by_its_own_nonce():
    async def test(b):
        await b.enter(HALTED)
        assert await b.clear() == {"cleared"}
        await b.step(kill=1)
        assert b.nonce == 2
        assert await b.step(clear_halt=1, data=1) == set()      # an old command that comes late
        assert b.state == HALTED
        await b.step(kill_pin=1)
        assert (b.nonce, b.cause) == (2, KILL | PIN), "a second cause of the same halt"
        await b.step(kill_pin=0)
        assert await b.clear() == {"cleared"}
    simulate(test)


@pytest.mark.parametrize("state", [ACTIVE, REDUCING])
@pytest.mark.parametrize("limit", [1, 2, 40])
def test_deadman_expires_in_its_cycle(state, limit):
    """Heartbeat written in cycle c: it shows in c + 3, has expired in c + 2 + limit, and the state follows."""
    async def test(b):
        await b.enter(state)
        await b.heartbeat(deadman_cycles=limit)
        for since in range(1, limit):
            assert (b.heartbeat_ok, b.state) == (1, state), since
            await b.step()
        assert (b.heartbeat_ok, b.state) == (0, state)
        assert await b.step() == {"stopped"}
        assert (b.state, b.cause) == (HALTED, DEADMAN)
    simulate(test)


def test_heartbeat_shows_in_its_cycle():
    """The third one after its write, not sooner: G1 blocks until then."""
    async def test(b):
        await b.step(session_up=1, deadman_cycles=FOREVER)
        shown = []
        await b.step(heartbeat=1, data=1)
        for _ in range(HEARTBEAT):
            shown.append(b.heartbeat_ok)
            await b.step()
        assert shown == [0, 0, 1]
    simulate(test)


@pytest.mark.parametrize(("before", "after", "expires"), [(FOREVER, 20, True), (20, FOREVER, False)])
def test_new_limit_counts_from_the_next_cycle_on(before, after, expires):
    async def test(b):
        await b.enter(DISARMED)
        await b.heartbeat(deadman_cycles=before)
        await b.step(30)
        assert b.heartbeat_ok == expires
        b.ctx.set(b.dut.deadman_cycles, after)
        assert b.heartbeat_ok == expires
        await b.step()
        assert b.heartbeat_ok != expires
    simulate(test)


@pytest.mark.parametrize("limit", [0, 30])
def test_no_heartbeat_no_trading(limit):
    async def test(b):
        await b.step(session_up=1, deadman_cycles=limit)
        if not limit:
            await b.heartbeat()
        assert not b.heartbeat_ok
        await b.step(arm=1, data=ARM_MAGIC)
        assert (b.state, b.heartbeat_ok) == (ACTIVE, 0)     # G1 blocks already
        await b.step()
        assert (b.state, b.cause) == (HALTED, DEADMAN)
    simulate(test)


@pytest.mark.parametrize("limit", [2, 1 << 31, (1 << 32) - 1])
def test_every_bit_of_the_limit_counts(limit):
    async def test(b):
        await b.heartbeat(deadman_cycles=limit)
        assert b.heartbeat_ok
    simulate(test)


def test_deadman_does_not_halt_while_disarmed():
    async def test(b):
        await b.enter(DISARMED)
        await b.step(40, deadman_cycles=5)
        assert (b.state, b.heartbeat_ok) == (DISARMED, 0)
        await b.heartbeat()
        assert b.heartbeat_ok, "a late heartbeat is one again"
    simulate(test)


@pytest.mark.parametrize(("written", "counts"), [
    ([7, 8], True), ([7, 7], False), ([7, 9], False), ([7, 6], False), ([0xFFFFFFFF, 0], True),
    ([7, 9, 10], True), ([7, 20, 20], False), ([7, 20, 21], True)])
def test_heartbeat_must_increment(written, counts):
    """A host that repeats itself is as good as dead; one that resumes counts from what it wrote last."""
    async def test(b):
        await b.step(deadman_cycles=15)
        await b.step(14 + HEARTBEAT - 1, heartbeat=1, data=written[0])
        assert b.heartbeat_ok
        for value in written[1:-1]:
            await b.step(heartbeat=1, data=value)
        # The last one shows when the first one would have expired.
        await b.step(HEARTBEAT, heartbeat=1, data=written[-1])
        assert b.heartbeat_ok == counts
    simulate(test)


class Naive:
    """The rules, state by state."""

    def __init__(self):
        self.state, self.cause, self.nonce = DISARMED, 0, 0
        self.last, self.since = None, None      # last heartbeat written, cycles since the last one that counted
        self.weighed = [False, False]           # whether those of the last two cycles will count
        self.alive = False

    def step(self, x):
        trading = self.state in (ACTIVE, REDUCING)
        cause = KILL * x["kill"] | PIN * x["kill_pin"] | EMISSION * x["mismatch"]
        if trading:
            cause |= DEADMAN * (not self.alive) | LOST * x["session_lost"] | FEED * x["feed_lost"] | LOSS * x["lost"]
            cause |= TORN * x["torn"]
        fired = set()
        if cause:
            self.nonce += self.state != HALTED
            self.cause |= cause
            fired = {"stopped"} if trading else set()
            self.state = HALTED
        elif x["disarm"] and trading:
            self.state, fired = DISARMED, {"stopped"}
        elif (x["reduce"] or x["warned"]) and self.state == ACTIVE:
            self.state, fired = REDUCING, {"reduced"}
        elif x["clear_halt"] and self.state == HALTED and x["data"] == self.nonce and x["hash_ok"]:
            self.state, self.cause, fired = DISARMED, 0, {"cleared"}
        elif x["arm"]:
            usable = x["session_up"] and not x["session_lost"] and not x["feed_lost"] and not x["lost"] and x["hash_ok"]
            if self.state == DISARMED and usable and x["data"] == ARM_MAGIC:
                self.state, fired = ACTIVE, {"armed"}
            else:
                fired = {"arm_refused"}
        self.since = None if self.since is None else self.since + 1
        if self.weighed.pop(0):
            self.since = 1
        self.weighed.append(x["heartbeat"] and self.last in (None, (x["data"] - 1) % 2**32))
        if x["heartbeat"]:
            self.last = x["data"]
        self.alive = self.since is not None and self.since < x["deadman_cycles"]
        return fired


def test_random():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    naive = Naive()
    visited, causes = set(), set()

    async def test(b):
        levels = {"deadman_cycles": 60, "kill_pin": 0, "feed_lost": 0, "lost": 0, "warned": 0, "session_up": 1,
                  "hash_ok": 1}
        for _ in range(8000):
            for name in ("kill_pin", "feed_lost", "lost", "warned"):
                levels[name] = rng.random() < (.5 if levels[name] else .005)
            for name in ("session_up", "hash_ok"):
                if rng.random() < .02:
                    levels[name] = rng.random() < .8
            if rng.random() < .005:
                levels["deadman_cycles"] = rng.choice((0, 5, 60, 60, 200))
            x = dict.fromkeys(STROBES, 0) | levels | {"data": rng.getrandbits(32)}
            what = rng.choices(("heartbeat", "arm", "clear_halt", "reduce", "disarm", "kill", None),
                               (8, 4, 4, 1, .5, .5, 30))[0]
            if what:
                x[what] = 1
                right = {"heartbeat": (b.beat + 1) % 2**32, "arm": ARM_MAGIC, "clear_halt": naive.nonce}.get(what, 1)
                x["data"] = right if rng.random() < .9 else rng.choice((0, 1, b.beat))
                b.beat = x["data"] if what == "heartbeat" else b.beat
            if what in ("arm", "clear_halt"):       # its data stand a cycle before it
                y = x | {what: 0}
                assert await b.step(**y) == naive.step(y), y
            x["session_lost"], x["mismatch"] = int(rng.random() < .01), int(rng.random() < .003)
            x["torn"] = int(rng.random() < .003)
            before = naive.state
            want_fired = naive.step(x)
            assert await b.step(**x) == want_fired, x
            assert (b.state, b.cause, b.nonce) == (naive.state, naive.cause, naive.nonce), x
            assert b.silent == (not b.heartbeat_ok)
            assert b.heartbeat_ok == naive.alive
            assert b.changed == (before != naive.state)
            visited.add((before, naive.state))
            if before in (ACTIVE, REDUCING):
                causes.add(naive.cause)

    simulate(test)
    assert visited == {(a, b) for a in range(4) for b in range(4)} - {(HALTED, ACTIVE), (HALTED, REDUCING),
                                                                     (DISARMED, REDUCING), (REDUCING, ACTIVE)}
    assert {KILL, PIN, DEADMAN, LOST, FEED, EMISSION, LOSS, TORN} <= causes

"""G2 on the whole core: what a host has to say rightly before anything is in force, armed, or out of a halt."""

import pytest

from hdl.control.registers import ACTIVE, ARM_MAGIC, BY_NAME, DISARMED, HALT_CAUSES, HALTED
from host import link
from sim.market.generator import generate
from tests.core.bench import CoreBench, seeded
from tests.core.test_golden import check, run_traffic

INTEGRITY = 1 << HALT_CAUSES["integrity"]


def trading():
    bench = CoreBench()
    bench.configure()
    bench.open_session()
    run_traffic(bench, seeded(7), generate(7, 60), 4000)
    assert bench.golden.state == ACTIVE
    assert bench.counter("live_bids")
    return bench


def say(bench, name, value, hash_):
    """A command with a CRC of any value."""
    for register, word in (("limits_crc", hash_), (name, value)):
        bench.send(link.encode_write(BY_NAME[register].address, [word]))
    bench.send(bytes(bench.image.commit_cycles))
    return bench.settle()


def events(bench):
    return [link.EVENT_CODES[r.code] for r in bench.records if isinstance(r, link.Event)]


def state(bench):
    """As read; and the model agrees."""
    found = bench.counter("state")
    assert found == bench.golden.state
    return found


def test_a_torn_commit_halts_and_the_way_back_takes_nonce_and_hash():
    bench = trading()
    before = bench.image.hash
    for n in range(16):     # what is staged lacks nothing but what is written here
        bench.send(link.encode_write(0x8000 + 32 * n, bench.image.rows[bench.image.bank][n]))
    bench.row(3, quote_lots=2)
    bench.write("live_most", 7)
    meant = bench.image.staged
    bench.row(3, max_lots=9)        # somebody else's
    sent = say(bench, "commit", 1, meant)
    assert events(bench)[-2:] == ["COMMIT_REFUSED", "STATE_CHANGED"]
    assert (state(bench), bench.counter("halt_cause")) == (HALTED, INTEGRITY)
    assert bench.counter("limits_hash") == bench.image.hash == before
    assert bench.counter("commits_refused") == bench.golden.counters["mass_cancels"] == 1
    assert [link.OUTCOMES[d.outcome] for d in bench.decisions()][-1] == "MASS_CANCEL"
    assert sent
    nonce = bench.counter("halt_nonce")
    for its_nonce, its_hash in ((nonce, meant), (nonce + 1, before), (nonce, before ^ 1), (nonce, 0)):
        say(bench, "clear_halt", its_nonce, its_hash)
        assert state(bench) == HALTED
    bench.row(3, max_lots=10)
    assert bench.image.staged == meant
    bench.write("commit", 1)        # in a halt, limits can be set right
    bench.settle()
    assert bench.counter("limits_hash") == meant
    say(bench, "clear_halt", nonce, before)
    assert state(bench) == HALTED
    say(bench, "clear_halt", nonce, meant)
    assert (state(bench), bench.counter("halt_cause")) == (DISARMED, 0)
    for its_hash in (before, meant ^ 1 << 31, 0):
        say(bench, "arm", ARM_MAGIC, its_hash)
        assert (state(bench), events(bench)[-1]) == (DISARMED, "ARM_REFUSED")
    say(bench, "arm", ARM_MAGIC, meant)
    assert state(bench) == ACTIVE
    check(bench)


def test_a_right_commit_does_not_stop_trading():
    """... and may change limits of the card and rows at once: the armed hash follows."""
    bench = trading()
    old = bench.image.hash
    for n in range(16):
        bench.send(link.encode_write(0x8000 + 32 * n, bench.image.rows[bench.image.bank][n]))
        bench.row(n, quote_lots=2)
    bench.write("live_most", 500)
    bench.write("commit", 1)
    run_traffic(bench, seeded(8), generate(8, 60), 4000)
    assert state(bench) == ACTIVE
    assert bench.counter("limits_hash") == bench.golden.limits_hash == bench.image.hash != old
    assert bench.golden.decisions[-1].bidLots in (0, 2)
    check(bench)


@pytest.mark.parametrize("said", [True, False])
def test_reset_refuses(said):
    """Nothing was ever committed: neither no hash nor that of nothing arms."""
    bench = CoreBench()
    bench.configure(without=("commit",))
    bench.open_session(arm=False)
    if said:
        say(bench, "arm", ARM_MAGIC, bench.image.staged)
        say(bench, "arm", ARM_MAGIC, 0)
    bench.send(link.encode_write(BY_NAME["arm"].address, [ARM_MAGIC]))
    bench.settle()
    assert state(bench) == DISARMED
    assert set(events(bench)) == {"ARM_REFUSED"}
    assert bench.counter("limits_valid") == 0
    bench.write("kill", 1)
    say(bench, "clear_halt", 1, 0)
    assert state(bench) == HALTED       # before there are limits, nothing leaves a halt either
    bench.write("commit", 1)
    bench.write("clear_halt", 1)
    bench.settle()
    assert state(bench) == DISARMED
    check(bench)

"""G6b and G16 in the whole core: cycle for cycle as the golden model, and to the effect that they are there for."""

import pytest

from hdl.control.registers import ACTIVE, BY_NAME, GATES
from host import link
from sim.market.generator import INSTRUMENTS, generate
from tests.core.bench import CoreBench, seeded
from tests.core.test_golden import check, run_traffic

GATE = {name: 1 << bit for bit, (name, *_) in GATES.items()}
REFERENCE = 1_000_000
BAND = 1311     # 2.0004 %: 20,004 of the reference
AROUND = 1, -1, 5_000, -5_000, 20_003, 20_004, 20_005, 40_000, -20_004, -20_005, 9_000, -8_000


def started(*, drift=1, life=0, instruments=INSTRUMENTS, **limits):
    bench = CoreBench()
    bench.configure(instruments, without=("commit",), **limits)
    bench.write("drift_cycles", drift)
    bench.write("life_cycles", life)
    bench.write("commit", 1)
    bench.open_session()
    return bench


def refer(bench, instrument, value):
    bench.send(link.encode_write(BY_NAME["ref_value"].address, [value, REFERENCE, 0, 256, instrument]))


@pytest.mark.parametrize("seed", [1, 2])
def test_random(seed):
    """References that drift and come back, lives and windows that change, positions that may be reduced; and references
    as close together as the link lets them come."""
    rng = seeded(seed)
    bench = started(drift=30_000, life=50_000, drift_band=BAND, skew_q8=0)

    def host(rng):
        for _ in range(rng.randrange(3)):
            refer(bench, rng.randrange(16), REFERENCE + (rng.choice(AROUND) if rng.random() < .15 else 0))
        what = rng.random()
        if what < .1:
            # One word a packet: the values of the last one again, for others, one after the other.
            for _ in range(10):
                bench.send(link.encode_write(BY_NAME["ref_commit"].address, [rng.randrange(16)]))
        elif what < .3:
            for i in range(16):
                state = bench.golden.states[i]
                bench.position(i, rng.choice((-30, -8, 0, 8, 30)), state.sent_bid, state.sent_ask)
        elif what < .35:
            bench.write("life_cycles", rng.choice((0, 1, 2_000, 50_000, 200_000)))
            bench.write("drift_cycles", rng.choice((1, 1_000, 30_000, 30_000)))
            bench.row(rng.randrange(16), drift_band=rng.choice((1, BAND, BAND, 0xFFFF)))
            bench.write("commit", 1)

    sent = run_traffic(bench, rng, generate(seed, 1500, split=.1), 3000, host)
    check(bench)
    assert len(sent) > 20
    counters = bench.golden.counters
    assert counters["drop_g6b"] > 5
    assert counters["drop_g16"]
    assert counters["decisions_differed"] == 0
    assert bench.golden.latency.minimum == bench.golden.latency.maximum == 2


def test_drift_lets_only_pass_what_reduces():
    """One tick beyond the band: both sides go, and with a position the one that reduces it comes back. The first
    reference that is within the band of all of the window ends it."""
    bench = started(drift=100_000_000, drift_band=BAND, skew_q8=0, instruments=INSTRUMENTS[:1])
    sent = run_traffic(bench, seeded(3), generate(3, 60, instruments=INSTRUMENTS[:1]), 8000)
    state = bench.golden.states[0]
    assert (state.live_bid, state.live_ask) == (True, True)
    refer(bench, 0, REFERENCE + 20_004)
    sent += bench.settle()
    bench.acknowledge(sent)
    assert (state.live_bid, state.live_ask) == (True, True)
    refer(bench, 0, REFERENCE - 1)      # 20,005 below the other one, 20,004 are 2.0004 % of the first one
    sent += bench.settle()
    assert (state.live_bid, state.live_ask) == (True, True)
    refer(bench, 0, REFERENCE + 20_004)     # above REFERENCE - 1 by one too many
    sent += bench.settle()
    assert (state.live_bid, state.live_ask) == (False, False)
    bench.position(0, 100, state.sent_bid, state.sent_ask)
    bench.settle()
    assert (state.live_bid, state.live_ask) == (False, True)
    refer(bench, 0, REFERENCE + 10_000)     # between what has not passed and the others
    bench.settle()
    assert (state.live_bid, state.live_ask) == (True, True)
    assert bench.golden.state == ACTIVE
    check(bench)


def test_a_quote_stands_for_its_life():
    """It does not move towards the market before, whatever the market does; and does so by itself when it is over."""
    life = 200_000
    bench = started(life=life, instruments=INSTRUMENTS[:1])
    run_traffic(bench, seeded(4), generate(4, 400, instruments=INSTRUMENTS[:1]), 2000)
    for _ in range(3):
        bench.run(life)
    check(bench)
    quotes = [d for d in bench.golden.decisions if d.outcome == 1]
    waited = [d for d in bench.golden.decisions if d.reasons & GATE["G16"]]
    assert len(quotes) > 5
    assert len(waited) > 5
    assert {d.outcome for d in waited if d.reasons == GATE["G16"]} <= {0, 1, 2}   # held, or the other side left
    # When a side moves towards the market, all of its life has passed since it was last quoted anew.
    since = [None, None]
    stood = [None, None]
    by_itself = 0
    for d in quotes:
        for side, (ticks, sign) in enumerate(((d.bidTicks, 1), (d.askTicks, -1))):
            if stood[side] is None or ticks != stood[side]:
                if stood[side] is not None and sign * (ticks - stood[side]) > 0:
                    assert d.fireCycle - since[side] >= life
                    by_itself += not d.flags & 1
                since[side], stood[side] = d.fireCycle, ticks
    assert by_itself

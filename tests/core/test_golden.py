"""The core against the golden model: every frame, byte for byte and cycle for cycle, under random traffic."""

import pytest

from hdl.control.registers import ARM_MAGIC
from hdl.layout import net
from host import link
from sim.market.generator import generate
from sim.market.schedule import schedule
from tests.core.bench import STARBASE, CoreBench, seeded


def run_traffic(bench, rng, frames, max_idle_ns, host=None):
    """Play feed frames, acknowledge what is sent, let ``host(rng)`` act between bursts; returns what was sent."""
    wire = schedule(frames, start_cycle=bench.board.cycle + 100, max_idle_ns=max_idle_ns)
    bench.lock.inject(0, [f.data[:-4] for f in wire], [f.cycle for f in wire])
    sent = []
    while bench.board.rx_pending(0):
        new = bench.run(rng.randrange(100, 3000))
        sent += new
        if rng.random() < .9:
            bench.acknowledge(sent[len(sent) - len(new):])
        if host:
            host(rng)
    sent += bench.run(5000)
    return sent


def check(bench):
    mismatches = bench.lock.finish()
    assert not mismatches, f"{len(mismatches)} of {len(bench.lock.sent)} frames differ; first: {mismatches[0]}"
    assert not any(f.faults for f in bench.lock.sent)
    want = [r.as_dict() for r in bench.golden.decisions]
    got = bench.decisions()
    names = {name: link._snake(name) for name in want[0]} if want else {}
    for n, (a, b) in enumerate(zip(got, want, strict=False)):
        assert {k: getattr(a, v) for k, v in names.items()} == b, f"decision {n}"
    assert len(got) == len(want)
    for name, value in bench.golden.counters.items():
        assert bench.counter(name) == value, name


@pytest.mark.parametrize("seed", [1, 2])
def test_plain_traffic(seed):
    """The generator's mix, from the middle of a session, limits wide open."""
    rng = seeded(seed)
    bench = CoreBench()
    bench.configure()
    bench.open_session()
    sent = run_traffic(bench, rng, generate(seed, 600), 8000)
    check(bench)
    assert len(sent) > 50
    assert bench.golden.latency.minimum == bench.golden.latency.maximum == 2


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_everything_at_once(seed):
    """Gaps, resets, odd actions, split events, bad frames, at line rate; positions, banks, heartbeats, state, host
    messages
    and incoming segments at random."""
    rng = seeded(seed)
    bench = CoreBench()
    bench.configure(deadman=60000, stale=3000, max_long_lots=60, max_short_lots=60)
    bench.open_session()
    beat = 1
    heartbeat = STARBASE.composites["MessageHeader"].pack(
        protocolId=0xDB, messageLength=40, messageTypeId=STARBASE["Heartbeat"].id, version=16) + bytes(8)

    def host(rng):
        nonlocal beat
        if rng.random() < .95:
            beat += 1
            bench.write("heartbeat", beat)
        for _ in range(rng.randrange(3)):
            i = rng.randrange(16)
            state = bench.golden.states[i]
            bench.position(i, rng.randrange(-20, 20), state.sent_bid - rng.choice((0, 0, 5)),
                           state.sent_ask - rng.choice((0, 0, 5)), state.last_quote_id, rng.randrange(4))
        what = rng.random()
        if what < .04:
            bench.write(rng.choice(("disarm", "reduce", "kill")), 1)
        elif what < .3:
            bench.write("clear_halt", bench.golden.halt_nonce)
            bench.write("arm", ARM_MAGIC)
        elif what < .45:
            bench.send(link.encode_tx("SessionTx", heartbeat))
        elif what < .55:
            bench.send(link.encode_tx("FrameTx", rng.randbytes(rng.randrange(20, 200))))
        elif what < .65:
            payload = rng.randbytes(rng.randrange(1, 300))
            bench.lock.inject(1, [bench.segment(payload)], [bench.board.cycle + rng.randrange(500)])
            bench.peer_seq += len(payload)
        elif what < .7:
            bench.row(rng.randrange(16), quote_lots=rng.choice((0, 5, 7)), half_spread_sub=rng.choice((0, 200, 600)))
            bench.write("commit", 1)

    frames = generate(seed, 1200, gap=.003, line_loss=.05, duplicate=.02, mixed=.1, split=.1, delete_thru=.01,
                      delete_from=.01, overlay=.05, book_reset=.005, channel_reset=.002, bad=.02)
    sent = run_traffic(bench, rng, frames, rng.choice((0, 500, 4000)), host)
    check(bench)
    assert len(sent) > 50
    kinds = {net.TCP.unpack(f.frame, 34)["flags"] for f in sent if f.frame[12:14] == b"\x08\x00"}
    assert kinds

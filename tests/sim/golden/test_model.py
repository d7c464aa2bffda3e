"""The golden model as a whole: time, events, and that it is the same in whatever portions it is driven."""

import random

import pytest

from hdl.control import registers as map_
from hdl.control.registers import ACTIVE, ARM_MAGIC, DISARMED, HALTED, TICK_BITS, TICK_LIMIT
from hdl.layout import net
from host import link
from host.integrity import SAID_BEFORE, Image
from sim.golden.feed import WireFrame
from sim.golden.model import GoldenModel
from sim.golden.quote import PULLED, SENT
from sim.golden.resending import NEVER
from sim.golden.session import Connection, tcp_frame
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B, Instrument, MarketGenerator, generate
from sim.market.schedule import schedule, wire_bytes

LOCAL = {"local_mac": 0x020000000001, "peer_mac": 0x020000000002, "local_ip": 0x0A000001, "peer_ip": 0x0A000002,
         "local_port": 40000, "peer_port": 9000}
PEER = Connection(LOCAL["peer_mac"], LOCAL["local_mac"], LOCAL["peer_ip"], LOCAL["local_ip"], 9000, 40000)
LIMITS = {"sym_en": 1, "bid_en": 1, "ask_en": 1, "ref_scale": 128 << 16, "half_spread_sub": 400, "quote_lots": 5,
          "toward_ticks": 1, "away_ticks": 1, "px_min_ticks": -TICK_LIMIT, "px_max_ticks": TICK_LIMIT - 1,
          "q_min_lots": 1, "q_hard_lots": 100, "max_lots": 100, "max_notional_hi": 1,
          "px_notional_ticks": TICK_LIMIT - 1, "max_long_lots": 1 << 30, "max_short_lots": 1 << 30,
          "stale_cycles": 10_000_000, "lot_mult": 1, "tick_e9_lo": 500_000_000, "bands": 0xFFFF_FFFF,
          "drift_band": 0xFFFF}
SETTINGS = {"session_burst": 60_000, "session_interval": 100, "symbol_burst": 255, "symbol_interval": 100,
            "deadman_cycles": 0xFFFF_FFFF, "heartbeat": 1, "init_peer_window": 65_000, "window": 60_000,
            **NEVER, "ref_cycles": 0xFFFF_FFFF, "live_most": 1023, "duplicate_most": 8, "duplicate_cycles": 1,
            "fills_cycles": 1, "fills_lots": 1, "fills_delta": 1, "fills_most": 1, "repeats_most": 1,
            "refusals_cycles": 1, "refusals_most": 1, "drift_cycles": 1,
            "loss_most": 1, "drawdown_most": 1, "equity_cycles": 0xFFFF_FFFF, "equity": 1 << 30,
            "gross_most": 0xFFFF_FFFF, "leverage_most": 255, "open_most": 0xFFFF_FFFF}


class Driver:
    """Writes registers one after the other."""

    def __init__(self, model, at=10):
        self.model, self.at, self.image = model, at, Image(model.instruments)
        self.written = {}   # cycle of the last write by name

    def write(self, name, value):
        self.written[name] = self.at
        if name in SAID_BEFORE:
            packets = self.image.command(name, value)
            decoder = link.Decoder(known=[link.SCHEMA["Write"].id])
            for _, payload in decoder.feed(packets):
                address, (word,) = link.parse_write(payload)
                self._put(address, word)
            self.at += decoder.errors["skipped"]
            return
        for half, suffix in enumerate(("_lo", "_hi") if name not in map_.BY_NAME else ("",)):
            self._put(map_.BY_NAME[name + suffix].address, value >> 32 * half & 0xFFFF_FFFF)

    def _put(self, address, word):
        self.image.wrote(address, word)
        self.model.write(self.at, address, word)
        self.at += 4

    def row(self, instrument, **values):
        for name, value in values.items():
            self._put(map_.param_address(instrument, name), value & 0xFFFF_FFFF)

    def position(self, instrument, lots):
        for name, value in (("pos_value", lots), ("pos_settled_bid", 0), ("pos_settled_ask", 0),
                            ("pos_commit", instrument)):
            self.write(name, value)
        self.at += 60

    def all(self, instruments, *, arm=True, connect=True, settings=SETTINGS, **limits):
        for name, line in (("a", LINE_A), ("b", LINE_B)):
            self.write(f"line_{name}_ip", line.group)
            self.write(f"line_{name}_port", line.port)
        for i, instrument in enumerate(instruments):
            self.model.write(self.at, map_.security_id_address(i), instrument.security_id)
            self.at += 4
            shift = (instrument.tick & -instrument.tick).bit_length() - 1
            odd = instrument.tick >> shift
            self.row(i, feed_tick_shift=shift, feed_tick_odd=odd, feed_tick_inv=pow(odd, -1, 1 << TICK_BITS),
                     **LIMITS | limits)
        for name, value in (LOCAL | settings).items():
            self.write(name, value)
        self.write("commit", 1)
        for i, instrument in enumerate(instruments):
            for name, value in (("ref_value", instrument.mid_ticks), ("ref_local", instrument.mid_ticks),
                                ("ref_lot_value", 1),
                                ("ref_commit", i)):
                self.write(name, value)
        if connect:
            self.write("session_enable", 1)
        for i in range(len(instruments)):
            self.position(i, 0)
        if arm:
            self.write("arm", ARM_MAGIC)
        return self.at + 100


def build(instruments=INSTRUMENTS[:16], **options):
    model = GoldenModel(16)
    start = Driver(model).all(instruments, **options)
    return model, start


def feed(model, frames):
    for frame in frames:
        model.feed_frame(WireFrame(frame.cycle, frame.data))


def acknowledge(model, cycle):
    """The peer has everything, and room for more."""
    model.order_frame(WireFrame(cycle, wire_bytes(tcp_frame(PEER, 0, model._port.snd_nxt, 65_000, net.TCP_ACK))))


def run(model, frames, steps=None):
    """Drive a replay with a peer that acknowledges every 5,000 cycles; ``steps`` are further places to stop."""
    feed(model, frames)
    end = frames[-1].end + 500
    for stop in sorted({*range(frames[0].cycle, end, 5_000), *(steps or ()), end}):
        model.advance(stop)
        if (stop - frames[0].cycle) % 5_000 == 0:
            acknowledge(model, stop)
    return model


def outcome(model):
    return (model.tx, model.decisions, model.events, dict(model.counters), model.latency, model.host_frames)


def test_quotes_leave_two_cycles_after_their_trigger():
    model, start = build()
    run(model, schedule(generate(3, 300), start_cycle=start))
    assert model.state == ACTIVE
    assert model.latency.count > 20
    assert model.latency.minimum == model.latency.maximum == 2
    assert {f.kind for f in model.tx} == {"quote"}
    emitted = [d for d in model.decisions if d.outcome in (SENT, PULLED)]
    for frame, record in zip(model.tx, emitted, strict=True):
        assert frame.cycle == record.fireCycle + 1
        assert record.triggerCycle in (0, frame.cycle - 2)


@pytest.mark.parametrize("seed", range(3))
def test_portions_do_not_matter(seed):
    options = {"gap": 0.02, "mixed": 0.2, "split": 0.2, "book_reset": 0.02, "bad": 0.05, "line_loss": 0.1}
    rng = random.Random(seed)
    results = []
    for portioned in (False, True):
        model, start = build(stale_cycles=5_000)
        frames = schedule(generate(seed, 150, **options), start_cycle=start, max_idle_ns=9_000)
        steps = [rng.randrange(start, frames[-1].end) for _ in range(2_000)] if portioned else ()
        results.append(outcome(run(model, frames, steps)))
    assert results[0] == results[1]
    assert results[0][0]


def test_frames_never_overlap():
    model, start = build(toward_ticks=0, away_ticks=0)
    run(model, schedule(generate(8, 300, mixed=0.5), start_cycle=start, max_idle_ns=1_000))
    for one, two in zip(model.tx, model.tx[1:], strict=False):
        assert two.cycle >= one.cycle + 8 + len(one.data) + 12


def test_late_inputs_are_refused():
    model = GoldenModel()
    model.advance(1000)
    with pytest.raises(ValueError, match="write at cycle 999 comes too late: the model stands at cycle 1000"):
        model.write(999 - model.timing.register, 0, 0)
    with pytest.raises(ValueError, match="too late"):
        model.feed_frame(WireFrame(900, bytes(64)))


@pytest.mark.parametrize("lacks", ["arm", "connect", *(name for name in SETTINGS if name not in NEVER)])
def test_nothing_leaves_before_everything_is_set(lacks):
    """Arming, session, tokens, dead-man: each one missing keeps the port silent."""
    options = {"settings": {k: v for k, v in SETTINGS.items() if k != lacks}}
    if lacks in ("arm", "connect"):
        options[lacks] = False
    model, start = build(**options)
    run(model, schedule(generate(3, 60), start_cycle=start))
    # The first acknowledgement opens the peer's window; the others only slow things down.
    silent = lacks not in ("session_interval", "symbol_interval", "window", "init_peer_window")
    assert bool(model.tx) is not silent
    assert (model.state == ACTIVE) is (lacks not in ("arm", "connect", "deadman_cycles", "heartbeat"))


def test_dead_man_cancels_everything_in_time():
    model = GoldenModel()
    driver = Driver(model)
    start = driver.all(INSTRUMENTS[:16], settings=SETTINGS | {"deadman_cycles": 200_000})
    run(model, schedule(generate(3, 200), start_cycle=start))
    halted = next(e for e in model.events if e.code == "STATE_CHANGED" and e.data & 0xFF == HALTED)
    assert halted.cycle == driver.written["heartbeat"] + model.timing.register + model.timing.heartbeat + 200_000 + 1
    cancel = [f for f in model.tx if f.kind == "mass_cancel"]
    assert len(cancel) == 1
    assert cancel[0] is model.tx[-1]
    assert 0 < cancel[0].cycle - halted.cycle < 300     # at most the frame under way
    assert model.halt_cause == 1 << map_.HALT_CAUSES["deadman"]


def test_a_gap_cancels_what_is_live_before_anything_else():
    model, start = build()
    frames = generate(3, 200)
    lost = set(range(100, 103))
    kept = [f for f in frames if int.from_bytes(f[1][42:46], "little") - 17_000_000 not in lost]
    run(model, schedule(kept, start_cycle=start))
    assert model.counters["gaps"] == 1
    assert model.counters["gap_packets"] == 3
    gap = next(e for e in model.events if e.code == "GAP")
    first = next(f for f in model.tx if f.cycle > gap.cycle)
    assert first.kind == "mass_cancel"


def test_silence_makes_quotes_stale_and_pulls_them():
    model, start = build(stale_cycles=30_000)
    frames = schedule(generate(3, 200), start_cycle=start)
    run(model, frames)
    sent = len(model.tx)
    live = [i for i, s in enumerate(model.states) if s.live_bid or s.live_ask]
    assert live
    for stop in range(frames[-1].end + 1_000, frames[-1].end + 60_000, 1_000):
        model.advance(stop)
        acknowledge(model, stop)
    assert not any(s.live_bid or s.live_ask for s in model.states)
    assert len(model.tx) == sent + len(live)
    assert all(d.reasons & 1 << 4 for d in model.decisions[-len(live):])


def test_books_are_the_generators():
    """With both sides stated at the start the model knows the generator's best prices, whatever happens after."""
    instruments = tuple(Instrument(100 + i, 10 ** i, 5_000, 1) for i in range(6))
    generator = MarketGenerator(seed=9, packets=600, instruments=instruments, warm_up=True, mixed=0.2, split=0.2,
                                delete_thru=0.02, delete_from=0.02, overlay=0.05, book_reset=0.01)
    frames = list(generator.frames())
    model, start = build(instruments, arm=False)
    feed(model, schedule(frames, start_cycle=start, max_idle_ns=2_000))
    model.advance(10 ** 9)
    for i, instrument in enumerate(instruments):
        assert model.best(i) == generator.books[instrument.security_id].best()
    assert model.counters["accepted_packets"] == 600
    assert not model.counters["px_errors"]
    assert model.state == DISARMED
    assert not model.tx

"""Limits at their reset values block: all of them together, and each one that is left so while the others are wide.

The core is simulated with a session that is up, and armed; the market on its feed is one on which it quotes when every
limit is set. Every frame and every record is the golden model's.
"""

import re
from typing import NamedTuple

import pytest

from hdl.control import registers
from hdl.control.registers import GATES, LIMITS, PARAMS, REGISTERS
from sim.board.captures import read_capture
from sim.market.generator import INSTRUMENTS, generate
from tests.core.bench import CoreBench, seeded
from tests.core.test_golden import check, run_traffic
from tests.e2e.orders import orders, quotes
from tests.sim.test_independent_book import V8, need

SEED, PACKETS = 11, 160
QUOTED = INSTRUMENTS[:8]
GATE = {name: 1 << bit for bit, (name, *_) in GATES.items()}
NONE, BID, ASK = "nothing", "bids alone", "asks alone"


class Alone(NamedTuple):
    """Limits that are left at reset together (two halves of one, else one), the gates that must say so, and what may be
    quoted all the same."""

    names: tuple
    gates: tuple
    quoted: str = NONE


#: Every limit of the map that blocks at 0. A band is 16 bits of a word, so that its case overrides the word.
ROW = {
    "sym_en": Alone(("sym_en",), ("G3",)),
    "bid_en": Alone(("bid_en",), ("G3",), ASK),
    "ask_en": Alone(("ask_en",), ("G3",), BID),
    "half_spread_sub": Alone(("half_spread_sub",), ("G5",)),
    "quote_lots": Alone(("quote_lots",), ("G5",)),
    "px_max_ticks": Alone(("px_max_ticks",), ("G5",)),
    "q_hard_lots": Alone(("q_hard_lots",), ("G5",)),
    "max_lots": Alone(("max_lots",), ("G9",)),
    "max_notional": Alone(("max_notional_lo", "max_notional_hi"), ("G10",)),
    "px_notional_ticks": Alone(("px_notional_ticks",), ("G10",)),
    "max_long_lots": Alone(("max_long_lots",), ("G11",), ASK),
    "max_short_lots": Alone(("max_short_lots",), ("G11",), BID),
    "stale_cycles": Alone(("stale_cycles",), ("G4",)),
    "bands": Alone(("bands",), ("G6", "G6c")),
    "drift_band": Alone(("drift_band",), ("G6b",)),
}
CARD = {
    "deadman_cycles": Alone(("deadman_cycles",), ("G0", "G1", "G22")),
    "session_burst": Alone(("session_burst",), ("G14",)),
    "symbol_burst": Alone(("symbol_burst",), ("G14",)),
    "ref_cycles": Alone(("ref_cycles",), ("G6", "G6c", "G12", "G13")),
    "loss_most": Alone(("loss_most",), ("G12",)),
    "drawdown_most": Alone(("drawdown_most",), ("G12",)),
    "equity_cycles": Alone(("equity_cycles",), ("G12",)),
    "gross_most": Alone(("gross_most",), ("G12",)),
    "leverage_most": Alone(("leverage_most",), ("G12",)),
    "open_most": Alone(("open_most",), ("G13",)),
    "live_most": Alone(("live_most",), ("G13",)),
    "duplicate_most": Alone(("duplicate_most",), ("G15",)),
    "duplicate_cycles": Alone(("duplicate_cycles",), ("G15",)),
    **{name: Alone((name,), ("G17",)) for name in ("fills_cycles", "fills_lots", "fills_delta", "fills_most")},
    "repeats_most": Alone(("repeats_most",), ("G18",)),
    **{name: Alone((name,), ("G20",)) for name in ("refusals_cycles", "refusals_most")},
    "drift_cycles": Alone(("drift_cycles",), ("G6b",)),
}
#: What only the host can say, and has not said.
UNSAID = {
    "arm": Alone(("arm",), ("G0",)),
    "heartbeat": Alone(("heartbeat",), ("G0", "G1", "G22")),
    "session_enable": Alone(("session_enable",), ("G0", "S0")),
    "positions": Alone(("positions",), ("G11",)),
    "references": Alone(("references",), ("G6", "G6c", "G12", "G13")),
    "equity": Alone(("equity",), ("G12",)),
}
ALONE = ROW | CARD | UNSAID
#: At 0 these two are the least that is allowed, and prices and quantities below it are none anyway.
LEAST = {"px_min_ticks", "q_min_lots"}
#: At 0 a bucket is never filled up again: what it held when the card was armed may still be spent.
RATES = {"session_interval", "symbol_interval"}
#: At 0 a hold does not end by itself.
LASTING = {"freeze_cycles"}
#: At 0 a quote may move at once: no limit that blocks.
MANNERS = {"life_cycles"}
#: Everything of the map that a gate has as its limit.
ROW_LIMITS = {p.name for p in PARAMS if re.match(r"G\d", p.doc) or "0 blocks" in p.doc} | {"bands"}
CARD_LIMITS = {r.name for r in REGISTERS if r.access == "rw" and r.section in ("state", "quoting")
               and re.match(r"G\d", r.doc) and r.name not in ("ref_value", "ref_local", "ref_basis", "ref_lot_value",
                                                            "equity_start")}


def played(bench, frames, max_idle_ns=4000):
    """Play a market; returns every frame of the order port since reset."""
    run_traffic(bench, seeded(SEED), frames, max_idle_ns)
    check(bench)
    return bench.lock.sent


def market():
    return generate(SEED, PACKETS, warm_up=True, instruments=QUOTED)


def reasons(bench):
    """Reasons of every decision that saw a whole book, together."""
    seen = 0
    for d in bench.golden.decisions:
        if d.flags & 6 == 6:
            seen |= d.reasons
    return {name for name, bit in GATE.items() if seen & bit}


def sides(sent):
    """(bids, asks): how many were quoted."""
    said = quotes(sent)
    return sum(bool(q[3]) for q in said), sum(bool(q[5]) for q in said)


# ---------------------------------------------------------------------- each alone

def test_every_limit_is_here():
    """A limit that is added to the map has to be added to the table."""
    names = {name for case in ROW.values() for name in case.names}
    assert names | LEAST == ROW_LIMITS
    assert set(CARD) | RATES | LASTING | MANNERS == CARD_LIMITS
    blocked = {gate for case in ALONE.values() for gate in case.gates}
    assert {r.name for r in LIMITS} == CARD_LIMITS
    # The others compare prices of the market and of our own: they have no limit that could be left at reset; and G2 is
    # about all of them, see below. G16 blocks nothing.
    assert set(GATE) - blocked == {"G2", "G7", "G8", "G16"}


def test_nothing_is_left_at_reset():
    """The same market with every limit set: both sides are quoted. Without this the rest would prove nothing."""
    bench = CoreBench()
    bench.configure(QUOTED)
    bench.open_session()
    bids, asks = sides(played(bench, market()))
    assert bench.golden.state == registers.ACTIVE
    assert min(bids, asks) > 30


@pytest.mark.parametrize("name", ALONE)
def test_one_is_left_at_reset(name):
    """Nothing is quoted, or only the side that it is not about; the gate whose limit it is says so."""
    case = ALONE[name]
    bench = CoreBench()
    bench.configure(QUOTED, without=case.names)
    bench.open_session(arm="arm" not in case.names, without=case.names)
    sent = played(bench, market())
    bids, asks = sides(sent)
    assert (bids > 0, asks > 0) == {NONE: (False, False), BID: (True, False), ASK: (False, True)}[case.quoted]
    assert (not orders(sent)) == (case.quoted == NONE)
    assert reasons(bench) == set(case.gates)
    for gate in case.gates:
        assert bench.golden.counters[f"drop_{gate.lower()}"] > 0
    halted, disarmed = "G1" in case.gates, "G0" in case.gates
    assert bench.golden.state == (
        registers.HALTED if halted else registers.DISARMED if disarmed else registers.ACTIVE)


def test_nothing_is_committed():
    """G2: every limit was written, and the host goes on as if they were in force."""
    bench = CoreBench()
    bench.configure(QUOTED, without=("commit",))
    bench.open_session()
    assert orders(played(bench, market())) == []
    assert bench.golden.state == registers.DISARMED
    assert bench.golden.counters["drop_g2"] == bench.golden.counters["drop_g0"] > 0


@pytest.mark.parametrize(("bands", "gate"), [(0xFFFF_0000, "G6"), (0x0000_FFFF, "G6c")])
def test_one_band_is_left_at_reset(bands, gate):
    """Half of the word: no reference is usable, whichever band it is that has not been given."""
    bench = CoreBench()
    bench.configure(QUOTED, bands=bands)
    bench.open_session()
    assert orders(played(bench, market())) == []
    assert gate in reasons(bench)


@pytest.mark.parametrize(("rate", "burst", "size", "most"), [
    ("session_interval", "session_burst", 8, 6),        # a quarter of it is kept for cancels
    ("symbol_interval", "symbol_burst", 2, 2 * len(QUOTED))])
def test_a_rate_is_left_at_reset(rate, burst, size, most):
    """No token comes: as many quotes leave as the bucket held, and then none."""
    bench = CoreBench()
    bench.write(burst, size)
    bench.configure(QUOTED, without=(rate, burst))
    bench.open_session()
    assert len(quotes(played(bench, market()))) == most
    assert reasons(bench) == {"G14"}


# ---------------------------------------------------------------------- all together

def nothing_set(deadman):
    """A card whose host has told it where it is, opened a session and armed it, but not one limit: no row was written,
    nothing was committed, so that it cannot be armed. ``deadman``: the one limit without which arming ends in a halt at
    once was written and committed, alone."""
    limits = {p.name for p in PARAMS} | CARD_LIMITS | {"commit"}
    bench = CoreBench()
    bench.configure(without=limits - ({"deadman_cycles", "commit", "heartbeat"} if deadman else {"heartbeat"}))
    bench.open_session()
    assert bench.golden.session_up
    return bench


@pytest.mark.parametrize(("source", "deadman"), [("generated", False), ("generated", True), ("capture", True)])
def test_all_are_left_at_reset(source, deadman):
    """A whole market, and not one frame that is a quote or a cancel."""
    if source == "capture":
        need(V8)
        frames = list(read_capture(V8))
    else:
        frames = generate(SEED, 500, warm_up=True)
    bench = nothing_set(deadman)
    assert bench.golden.state == (registers.ACTIVE if deadman else registers.DISARMED)
    sent = played(bench, frames, max_idle_ns=1000)
    assert bench.golden.state == (registers.ACTIVE if deadman else registers.DISARMED)
    assert orders(sent) == []
    counters = bench.golden.counters
    assert counters["decisions_dropped"] > len(frames) / 10
    assert {"G3", "G5", "G6", "G6c", "G10", "G15"} <= {g for g in GATE if counters[f"drop_{g.lower()}"]}

"""A short run of ``make random``; and that the model is the golden one's equal, and notices what it is there for."""

import dataclasses
import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hdl.control.registers import ACTIVE, GATES, HALTED, REDUCING
from hdl.gate.holds import HOLDING
from hdl.quote.engine import HYPOTHESES, SAME
from sim.golden import gate as golden_gate
from sim.golden import quote as golden
from tests.hdl.quote.chain import ROW
from tests.random_gate import __main__ as command
from tests.random_gate import model, variants
from tests.random_gate.lanes import Lanes
from tests.random_gate.promises import broken, overexposed
from tests.random_gate.run import BLOCK, LANES, repeat, run, steps
from tests.random_gate.verilated import GIVEN, SEEN, VerilatedChain

SEED = 21
CASES = 20_480

#: Gates that compare with a limit; the others ask whether something is there.
AT_A_LIMIT = {"G0", "G4", "G5", "G6", "G6c", "G7", "G9", "G10", "G11", "G12", "G13", "G14"}


@pytest.fixture(scope="module")
def chain():
    with VerilatedChain() as chain:
        yield chain


@pytest.fixture(scope="module")
def recorded(chain):
    """(cases, what the gateware says of them), in sequences."""
    print(f"seed {SEED}")
    found = []
    for step in steps(chain, SEED, model.decide):
        found.append((step.cases, step.seen))
        if len(found) * LANES >= CASES:
            return tuple(np.concatenate(of) for of in zip(*found, strict=True))


def test_random_cases(chain):
    print(f"seed {SEED}")
    result = run(chain, SEED, CASES)
    assert result.differing == 0, result.first
    assert result.cases == CASES
    assert set(result.gates) == {GATES[bit][0] for bit in (*model.GATES, model.RATE)}
    for gate, counts in result.gates.items():
        assert counts["alone"] > 100, (gate, counts)
        assert (counts["at the limit"] > 100) == (gate in AT_A_LIMIT), (gate, counts)
    assert min(result.outcomes.values()) > 10, result.outcomes
    assert min(result.happened.values()) > 100, result.happened


def test_more_than_a_block_in_the_same_cases(chain):
    """A run of more cases begins with those of a shorter one, and any of them can be had again."""
    seen = [step for _, step in zip(range(BLOCK // LANES + 1), steps(chain, SEED, model.decide), strict=False)]
    assert [step.index for step in seen] == list(range(0, BLOCK + 1, LANES))
    for step, lane in ((0, 0), (3, 17), (BLOCK // LANES, LANES - 1)):
        assert repeat(chain, SEED, step * LANES + lane) == seen[step].examine(lane)
    assert repeat(chain, SEED + 1, 0) != seen[0].examine(0)


def test_noise_changes_nothing(chain, recorded):
    cases, seen = recorded
    rows = model.given(cases[:2000])
    assert np.array_equal(chain.run(rows, 1), seen[:2000])
    assert np.array_equal(chain.run(rows, 2), seen[:2000])


# ------------------------------------------------------------------------------------------------- faults are noticed

@pytest.mark.parametrize("number", range(len(variants.comparisons())),
                         ids=lambda n: re.sub(r"\W+", "_", "_".join(variants.comparisons()[n])))
def test_a_flipped_comparison_is_noticed(recorded, number):
    """``<`` for ``<=`` or the other way round, wherever the model has one: some case is exactly there."""
    cases, seen = recorded
    assert np.count_nonzero(variants.flipped(number).decide(cases)[0] != seen) > 0


@pytest.mark.parametrize("bit", model.GATES, ids=lambda bit: GATES[bit][0])
def test_a_gate_that_is_left_out_is_noticed(recorded, monkeypatch, bit):
    cases, seen = recorded
    monkeypatch.setitem(model.GATES, bit, lambda c, b, s: np.ones(len(cases), bool))
    assert np.count_nonzero(model.decide(cases)[0]["reasons"] != seen["reasons"]) > 100



def test_what_differs_is_told_and_can_be_repeated(chain):
    faulty = variants.flipped([where for where, _ in variants.comparisons()].index("g11_position"))
    result = run(chain, SEED, 2 * LANES, decide=faulty.decide)
    assert result.differing > 50
    assert result.first.outputs["reasons"][0] ^ result.first.outputs["reasons"][1] == 1 << 11
    assert result.first.promises == []
    again = repeat(chain, SEED, result.first.index)
    assert again == dataclasses.replace(result.first, outputs={})


# ------------------------------------------------------------------------------------------------------- golden model

def _golden(case):
    """(parameters, state, context) of the golden model."""
    context = golden_gate.Context(
        state=case["state"], deadman_ok=bool(case["heartbeat_ok"]), limits_ok=bool(case["limits_ok"]),
        session_up=bool(case["session_up"]),
        killed=bool(case["state"] == HALTED or case["kill_pin"]), session_tokens=case["session_tokens"],
        session_burst=case["session_burst"], symbol_tokens=case["symbol_tokens"], live_most=case["live_most"],
        live_elsewhere=case["live_elsewhere"], **{f"held_{side}": sum(
            1 << gate for n, gate in enumerate(HOLDING)
            if (case["off"] if gate == 25 else case[f"held_{side}"] | case["off"]) >> n & 1)
            for side in ("bid", "ask")}, drifted=bool(case["held_bid"] >> HOLDING.index(25) & 1),
        young_bid=bool(case["bid_young"]), young_ask=bool(case["ask_young"]),
        equity_ok=bool(case["equity_ok"]),
        rooms=tuple(case[f"room_{name}"] for name in ("gross", "bid", "ask")),
        reference=golden_gate.Reference(*(case[f"reference_{what}"] for what in (
            "value", "local", "basis", "lot_value")))
        if case["reference_known"] else None)
    state = golden.State(
        position=case["position"], pos_valid=bool(case["position_known"]), last_quote_id=0,
        **{f"{what}_{side}": case[f"{what}_{side}"] for what in ("sent", "settled") for side in ("bid", "ask")},
        live_bid=bool(case["bid_live"]), live_ask=bool(case["ask_live"]), live_bid_ticks=case["live_bid_px"],
        live_ask_ticks=case["live_ask_px"], live_bid_lots=case["live_bid_lots"], live_ask_lots=case["live_ask_lots"])
    return golden.Params(**{name: case[name] for name in (*ROW, "stale_cycles")}), state, context


def test_against_the_golden_model():
    """Written apart from each other, they say the same."""
    print(f"seed {SEED}")
    lanes, outcomes = Lanes(np.random.default_rng(SEED), 500), {}
    for _ in range(10):
        cases = lanes.step()
        wanted, _ = model.decide(cases)
        for row, want in zip(cases, wanted, strict=True):
            case = dict(zip(cases.dtype.names, row.tolist(), strict=True))
            params, state, context = _golden(case)
            calm = dataclasses.replace(
                context, state=REDUCING if context.state == REDUCING else ACTIVE, deadman_ok=True, killed=False,
                session_up=True, session_tokens=1, session_burst=0, symbol_tokens=1, limits_ok=True)
            for h in range(HYPOTHESES):
                book, _, _ = model.views(model.columns(np.array([row])), h)
                bests = [(bool(getattr(book, f"{side}_known")[0]), int(getattr(book, f"best_{side}")[0]), 1)
                         for side in ("bid", "ask")]
                of = golden.evaluate(params, state, *bests, bool(case["fresh"]), calm)
                assert (want["want"] >> h & 1, want["pull"] >> h & 1) == (
                    golden.REPLACE in (of.bid, of.ask), golden.PULL in (of.bid, of.ask)), (h, case)
                if h == SAME:
                    decision = golden.evaluate(params, state, *bests, bool(case["fresh"]), context)
            outcomes[decision.outcome] = outcomes.get(decision.outcome, 0) + 1
            assert (want["bid_px"], want["ask_px"]) == (
                decision.candidate.bid_ticks, decision.candidate.ask_ticks), case
            assert want["reasons"] == decision.reasons & ~golden_gate.G8, case
            assert (want["bid_ok"], want["ask_ok"], want["rate_blocked"], want["emit"]) == (
                decision.bid_ok, decision.ask_ok, decision.rate_blocked, decision.emits), case
            if context.reference is not None:
                assert (want["low"], want["high"]) == golden_gate.window(params, context.reference), case
            if decision.emits:
                assert want["is_new"] == (decision.outcome == golden.SENT), case
                assert [want[name] for name in ("bid_ticks", "bid_quantity", "ask_ticks", "ask_quantity")] == [
                    decision.bid_ticks, decision.bid_lots, decision.ask_ticks, decision.ask_lots], case
        lanes.follow(wanted)
    print(outcomes)
    assert set(outcomes) == {golden.HELD, golden.SENT, golden.PULLED, golden.DROPPED}
    assert min(outcomes.values()) > 10


# ----------------------------------------------------------------------------------------------------------- promises

#: A case in which both sides leave: 5 lots at 99 and 101, and what is held against them.
QUOTED = {
    "sym_en": 1, "bid_en": 1, "ask_en": 1, "ref_scale": 1 << 23, "half_spread_sub": 256, "quote_lots": 5, "max_lots": 5,
    "q_hard_lots": 5, "px_min_ticks": 99, "px_max_ticks": 101, "px_notional_ticks": 101, "max_notional_lo": 505,
    "max_long_lots": 5, "max_short_lots": 5, "stale_cycles": 1, "fresh": 1, "bid_known": 1, "best_bid": 99,
    "ask_known": 1, "best_ask": 101, "position_known": 1, "live_most": 2, "reference_known": 1, "reference_value": 100,
    "reference_local": 100, "bands": 0xFFFF << 16 | 656, "drift_band": 1, "state": ACTIVE,
    "heartbeat_ok": 1, "limits_ok": 1, "equity_ok": 1, "session_up": 1, "reference_lot_value": 256,
    "room_gross": 2_560, "room_bid": 1_280, "room_ask": 1_280,
    "session_tokens": 1, "symbol_tokens": 1}


def _case(**changes):
    cases = np.zeros(1, model.CASE)
    for name, value in (QUOTED | changes).items():
        cases[name] = value
    return cases


def test_a_quote_that_is_right_breaks_no_promise():
    cases = _case()
    seen, (bid, ask) = model.decide(cases)
    assert (bid[0], ask[0]) == (0, 0)
    assert [seen[name][0] for name in ("emit", "bid_ticks", "bid_quantity", "ask_ticks", "ask_quantity")] == [
        1, 99, 5, 101, 5]
    assert not any(found[0] for found in broken(cases, seen).values())


@pytest.mark.parametrize(("changes", "promise"), [
    ({"state": HALTED}, "a quote is replaced only while trading, with a heartbeat and limits, and not killed"),
    ({"heartbeat_ok": 0}, "a quote is replaced only while trading, with a heartbeat and limits, and not killed"),
    ({"limits_ok": 0}, "a quote is replaced only while trading, with a heartbeat and limits, and not killed"),
    ({"kill_pin": 1}, "a quote is replaced only while trading, with a heartbeat and limits, and not killed"),
    ({"session_up": 0}, "a frame leaves only in a session"),
    ({"live_most": 1}, "no more sides are live than live_most"),
    ({"room_gross": 2_559}, "what leaves fits into what positions and open quotes leave of the limits"),
    ({"room_bid": 1_279}, "bid: what leaves fits into what open bids and asks leave of theirs"),
    ({"room_ask": 1_279}, "ask: what leaves fits into what open bids and asks leave of theirs"),
    ({"live_elsewhere": 1}, "no more sides are live than live_most"),
    ({"px_min_ticks": 100}, "bid: within the hard band, and never at zero unless that spans it"),
    ({"px_max_ticks": 100}, "ask: within the hard band, and never at zero unless that spans it"),
    ({"reference_value": 101}, "bid: no further from the reference than the collar"),
    ({"reference_known": 0}, "ask: no further from the reference than the collar"),
    ({"max_lots": 4}, "bid: no more lots than max_lots, no more notional than max_notional"),
    ({"max_notional_lo": 504}, "ask: no more lots than max_lots, no more notional than max_notional"),
    ({"best_ask": 99}, "bid: never at or beyond the other side of the book"),
    ({"best_bid": 101}, "ask: never at or beyond the other side of the book"),
    ({"max_long_lots": 4}, "bid: worst-case exposure within the cap"),
    ({"position": 1}, "bid: worst-case exposure within the cap"),
    ({"sent_ask": 1}, "ask: worst-case exposure within the cap"),
    ({"settled_ask": 0xFFFF_FFFF}, "ask: worst-case exposure within the cap"),
    ({"state": REDUCING, "position": 4}, "ask: in REDUCING, nothing that could turn the position"),
    ({"held_ask": 1 << HOLDING.index(25), "position": 4},
     "ask: while the reference drifts, nothing that could turn the position"),
    ({"bid_en": 0}, "bid: enabled, and its position known"),
    ({"position_known": 0}, "ask: enabled, and its position known"),
], ids=str)
def test_a_broken_promise_is_noticed(changes, promise):
    """The quote leaves all the same."""
    seen, _ = model.decide(_case())
    assert broken(_case(**changes), seen)[promise][0]


def test_sides_that_meet_are_noticed():
    cases = _case()
    seen, _ = model.decide(cases)
    seen["ask_ticks"] = seen["bid_ticks"]
    assert broken(cases, seen)["bid and ask that leave never meet"][0]


def test_exposure_and_sides_that_stand_are_watched():
    lanes = Lanes(np.random.default_rng(SEED), 2)      # the first one is steady
    lanes.cases["max_long_lots"], lanes.cases["max_short_lots"] = 5, 5
    for name in ("sent_bid", "settled_bid", "sent_ask", "settled_ask"):
        lanes.cases[name] = 0

    def noticed(exposed=5):
        return {what: found.tolist() for what, found in overexposed(
            lanes, {side: np.array([exposed, exposed]) for side in ("bid", "ask")}).items() if found.any()}

    lanes.cases["sent_bid"] = 5
    assert noticed() == {}
    lanes.position[:] = 1
    assert noticed(6) == {"bid: with caps that stand, exposure never exceeds them": [True, False]}
    assert noticed(5) == {"bid: exposure grows to no more than the cap": [True, True],
                          "bid: with caps that stand, exposure never exceeds them": [True, False]}
    lanes.position[:], lanes.cases["sent_bid"] = 0, 0
    lanes.cases["bid_live"], lanes.cases["ask_live"] = 1, 1
    lanes.cases["live_bid_px"], lanes.cases["live_ask_px"] = (99, 100), (100, 100)
    assert noticed() == {"bid and ask that stand never meet": [False, True]}


# ---------------------------------------------------------------------------------------------------- what goes wrong

def test_rows_of_another_kind_are_refused(chain):
    with pytest.raises(TypeError, match=r"rows have the fields .*'want'.*, must have .*'quote_lots'"):
        chain.run(np.zeros(1, SEEN), 1)
    with pytest.raises(TypeError, match=r"results have the fields .*'quote_lots'.*, must have .*'want'"):
        Lanes(np.random.default_rng(1), 1).follow(np.zeros(1, GIVEN))


# ------------------------------------------------------------------------------------------------------------ command

def _invoke(*arguments):
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, arguments)


def test_command(tmp_path):
    results = tmp_path / "out" / "random.json"
    done = _invoke("--cases", "2000", "--seed", "5", "--results", str(results))
    assert done.exit_code == 0, done.output
    assert "seed 5\n" in done.output
    assert "2,048 cases, 0 differ" in done.output
    written = json.loads(results.read_text())
    assert (written["seed"], written["cases"], written["differing"], written["first"]) == (5, 2048, 0, None)
    assert re.search(r"seed \d+\n", _invoke("--cases", "1", "--results", str(results)).output)


def test_command_shows_the_first_case_that_differs(tmp_path, monkeypatch):
    results = tmp_path / "random.json"
    monkeypatch.setitem(model.GATES, 11, lambda c, b, s: np.ones(len(s.px), bool))
    done = _invoke("--cases", "2000", "--seed", "5", "--results", str(results))
    first = json.loads(results.read_text())["first"]
    assert done.exit_code == 1
    assert f'make random ARGS="--seed 5 --index {first["index"]}" shows it again' in done.output
    assert ", ".join(f"{name}={value}" for name, value in first["case"].items()) in done.output
    seen, wanted = first["outputs"]["reasons"]
    assert f"reasons: the gateware says {seen}, the definitions {wanted}" in done.output
    again = _invoke("--seed", "5", "--index", str(first["index"]))
    assert again.exit_code == 1
    assert f"reasons: the gateware says {seen}, the definitions {wanted}" in again.output
    monkeypatch.undo()
    again = _invoke("--seed", "5", "--index", str(first["index"]))
    assert again.exit_code == 0
    assert "nothing differs" in again.output

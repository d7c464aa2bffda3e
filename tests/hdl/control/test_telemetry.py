# amaranth: UnusedElaboratable=no
"""Telemetry: records as the schema's codec reads them, order, sequence numbers and overflow."""

import random

import pytest
from amaranth.back import verilog

from hdl.control.registers import MASS_CANCEL_INSTRUMENT
from hdl.control.telemetry import DECISION, STAMP, Telemetry, record_layout
from hdl.layout import sbe
from tests.hdl.simulation import simulated

LINK = sbe.load("t2q_link")
CODES = LINK.enums["EventCode"]
OVERFLOW = CODES["TELEMETRY_OVERFLOW"]
OUTCOMES, DIRECT = LINK.enums["Outcome"], 1 << LINK.sets["DecisionFlags"]["direct"]
SPACING = 29        # cycles between decisions of which none is lost
QUOTE_ID = 0xFEDC_BA98_7654_3210
KINDS = [name for name in CODES if name != "TELEMETRY_OVERFLOW"]


def random_decision(rng):
    """Made up, but for what follows from its cycle: it was up to 100 cycles ago."""
    decision = {f.name: rng.randint(*f.range) for f in LINK["Decision"].fields.values() if f.name != "sequence"}
    decision["outcome"] = rng.choice([code for name, code in OUTCOMES.items() if name != "MASS_CANCEL"])
    return decision | {"age": rng.randrange(100)}


def told(decision, cycle):
    """What a decision of ``cycle`` is told as."""
    expected = {**decision, "fireCycle": cycle - decision["age"], "triggerCycle": 0, "quoteId": QUOTE_ID}
    if decision["flags"] & DIRECT:
        expected["triggerCycle"] = expected["fireCycle"] - 1
    if decision["outcome"] not in (OUTCOMES["SENT"], OUTCOMES["PULLED"]):
        expected |= dict.fromkeys(("quoteId", "bidTicks", "askTicks", "bidLots", "askLots"), 0)
    del expected["age"]
    return expected


def run(stimulus, *, depth=16, ready=lambda cycle: True, quiet=12, start=0):
    """Play a list, a cycle each from cycle ``start`` on, of {"decision": values or absent, "cancel": (feedSeq, state)
    or absent, event name: data}.

    Returns the records as decoded ("Decision" or "Event", values with nulls as they are on the wire, cycle of the first
    byte) and the number of cycles in which something was lost.
    """
    dut = Telemetry(depth)
    records, lost = [], 0

    async def testbench(ctx):
        nonlocal lost
        payload, began, held, cycle, last = b"", None, None, -1, 0
        ctx.set(dut.quote_id, QUOTE_ID)
        for before in range(1 << STAMP - 1):
            ctx.set(dut.cycle, start + before - (1 << STAMP - 1) & (1 << 64) - 1)
            await ctx.tick()
        while max(last, len(stimulus)) + quiet > cycle:
            cycle += 1
            assert cycle < 20000, "there is no end"
            happening = stimulus[cycle] if cycle < len(stimulus) else {}
            ctx.set(dut.cycle, start + cycle)
            ctx.set(dut.decision_valid, "decision" in happening)
            if "decision" in happening:
                fired = start + cycle - happening["decision"]["age"] & (1 << 64) - 1
                for name, value in {**happening["decision"], "fireCycle": fired, "triggerCycle": fired - 1}.items():
                    if name != "age":
                        ctx.set(dut.decision[name], value & (1 << DECISION[name].width) - 1)
            ctx.set(dut.mass_cancel.strobe, "cancel" in happening)
            seq, state = happening.get("cancel", (0, 0))
            ctx.set(dut.mass_cancel.data, seq)
            ctx.set(dut.mass_cancel_state, state)
            for name in KINDS:
                source = getattr(dut.events, name.lower())
                ctx.set(source.strobe, name in happening)
                ctx.set(source.data, happening.get(name, 0))
            take = ready(cycle)
            ctx.set(dut.o.ready, take)
            if ctx.get(dut.o.valid):
                last = cycle
                began = cycle if began is None else began
                shown = (ctx.get(dut.o.data), ctx.get(dut.o.last), ctx.get(dut.o_type), ctx.get(dut.o_length))
                assert held is None or held == shown, "what was shown must hold until it is taken"
                held = None if take else shown
                if take:
                    payload += bytes(shown[:1])
                    if shown[1]:
                        message = LINK.by_id[shown[2]]
                        assert shown[3] == len(payload) == message.block_length
                        values = message.decode(payload)
                        records.append((message.name, {n: message.fields[n].null if v is None else v
                                                       for n, v in values.items()}, began))
                        payload, began = b"", None
            lost += ctx.get(dut.lost)
            await ctx.tick()
        assert not payload

    simulated(dut, testbench)
    return records, lost


def test_layouts_are_those_of_the_schema():
    verilog.convert(Telemetry(4))
    message = LINK["Decision"]
    assert DECISION.size == 8 * message.block_length
    assert {name for name, _ in DECISION} == set(message.fields)
    for name, field in DECISION:
        assert field.offset == 8 * message.fields[name].offset
        assert field.width == 8 * message.fields[name].size


def test_every_field_and_latency():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for outcome in OUTCOMES.values():
        for flags in (0, 0xFF):
            decision = random_decision(rng) | {"outcome": outcome, "flags": flags}
            happening, expected = {"decision": decision}, told(decision, 110)
            if outcome == OUTCOMES["MASS_CANCEL"]:
                happening = {"cancel": (0xFEDC_BA98, 3)}
                expected = dict.fromkeys(decision, 0) | {
                    "outcome": outcome, "instrument": MASS_CANCEL_INSTRUMENT, "state": 3, "quoteId": QUOTE_ID,
                    "fireCycle": 110, "feedSeq": 0xFEDC_BA98}
                del expected["age"]
            records, lost = run([{}] * 110 + [happening])
            (name, values, began), = records
            assert name == "Decision"
            assert values == {**expected, "sequence": 0}
            assert began == 110 + (10 if "cancel" in happening else 9)
            assert not lost
    (_, values, began), = run([{}, {"GAP": 5}])[0]
    assert began == 1 + 11


@pytest.mark.parametrize("between", [3, 4, 12, 18, 22, 23])
def test_a_decision_that_waits_leaves_the_one_before_alone(between):
    """In none of their fields, whatever is told of either, and with the values of neither held for longer."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for first in OUTCOMES["SENT"], OUTCOMES["HELD"]:
        pair = [random_decision(rng) | {"outcome": outcome, "flags": flags}
                for outcome, flags in ((first, DIRECT), (OUTCOMES["SENT"] + OUTCOMES["HELD"] - first, 0))]
        noise = [random_decision(rng) for _ in range(2)]
        stimulus = [{} for _ in range(110 + between)]
        stimulus[110:112] = {"decision": pair[0]}, {"decision": noise[0]}      # which is lost
        stimulus += [{"decision": pair[1]}, {"decision": noise[1]}]
        records, lost = run(stimulus)
        decisions = [values for name, values, _ in records if name == "Decision"]
        for values, decision, at in zip(decisions, pair, (110, 110 + between), strict=True):
            del values["sequence"]
            assert values == told(decision, at)
        assert lost == 2


def test_every_event_has_its_code_data_and_cycle():
    names = KINDS
    stimulus = [{name: 1000 + n} for n, name in enumerate(names)] + [{}] * 60 + [dict.fromkeys(names, 7)]
    records, lost = run(stimulus)
    values = [(r["code"], r["data"], r["cycle"], r["sequence"]) for _, r, _ in records]
    at = len(stimulus) - 1
    expected = [(CODES[name], 1000 + n, n, n) for n, name in enumerate(names)]
    expected += [(code, 7, at, len(names) + n) for n, code in enumerate(sorted(CODES[name] for name in names))]
    assert values == expected
    assert not lost


@pytest.mark.parametrize("bits", [STAMP - 1, STAMP, 32])
def test_cycles_are_kept_while_words_wrap(bits):
    for early in range(1, 60, 7):
        start = (5 << 32) + (1 << bits) - early
        decisions = {n: random_decision(random.Random(n)) for n in (0, 4)}
        stimulus = [{name: 0} for name in KINDS]
        stimulus.insert(2, {"cancel": (0, 0)})
        for n, decision in decisions.items():
            stimulus[n]["decision"] = decision
        assert len(KINDS) == 8
        records, lost = run(stimulus, start=start)
        cycles = {values["code"]: values["cycle"] for name, values, _ in records if name == "Event"}
        assert cycles == {CODES[name]: start + n + (n >= 2) for n, name in enumerate(KINDS)}
        got = [values["fireCycle"] for name, values, _ in records if name == "Decision"]
        assert got == [start - decisions[0]["age"], start + 2, start + 4 - decisions[4]["age"]]
        assert not lost


def test_a_decision_goes_before_an_event_of_the_same_cycle():
    decision = random_decision(random.Random(1))
    records, _ = run([{"decision": decision, "GAP": 3}])
    assert [(name, values["sequence"]) for name, values, _ in records] == [("Decision", 0), ("Event", 1)]


@pytest.mark.parametrize("busy", [None, *range(8)])
def test_decisions_and_mass_cancels_keep_their_order(busy):
    """Whatever is being stored meanwhile."""
    decision = random_decision(random.Random(2))
    for between in (-3, -2, -1, 1, 2, 3):
        stimulus = [{} for _ in range(20)]
        stimulus[10]["cancel"] = (0, 0)
        stimulus[10 + between]["decision"] = decision
        if busy is not None:
            stimulus[busy + 2]["GAP"] = 0
        records, lost = run(stimulus)
        outcomes = [values["outcome"] for name, values, _ in records if name == "Decision"]
        expected = [OUTCOMES["MASS_CANCEL"], decision["outcome"]]
        assert outcomes == (expected if between > 0 else expected[::-1]), between
        assert not lost


def test_events_are_not_held_up_for_ever():
    """Not even by decisions that come as fast as they may."""
    decision = random_decision(random.Random(3))
    stimulus = [{"decision": decision} if n % (SPACING + 1) == 0 else {} for n in range(400)]
    stimulus[5] |= dict.fromkeys(KINDS, 9)
    records, lost = run(stimulus)
    assert not lost
    events = [(began, values["cycle"]) for name, values, began in records if name == "Event"]
    assert [cycle for _, cycle in events] == [5] * len(KINDS)


def test_overflow_is_counted_and_told():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    decisions = [random_decision(rng) for _ in range(40)]
    # The host does not read at first: what does not fit is lost, and the producer never notices.
    stimulus = [happening for decision in decisions for happening in ({"decision": decision}, *[{}] * SPACING)]
    records, lost = run(stimulus, depth=8, ready=lambda cycle: cycle > len(stimulus))
    kept = [values for name, values, _ in records if name == "Decision"]
    told = [values for name, values, _ in records if name == "Event"]
    assert lost == 40 - len(kept)
    assert 8 <= len(kept) < 40
    assert sum(event["data"] for event in told) == lost
    assert {event["code"] for event in told} == {OVERFLOW}
    sequence = [values["sequence"] for _, values, _ in records]
    assert sequence == sorted(set(sequence))
    assert sequence[-1] + 1 == len(records) + lost, "each lost record is a missing number"


def test_decisions_that_come_too_fast():
    """Two may follow one another soon, and then one for every record's worth of words."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    decisions = [random_decision(rng) for _ in range(8)]
    pair = [{"decision": decisions[0]}, {}, {}, {"decision": decisions[1]}]
    stimulus = [*pair, *[{}] * SPACING, {"decision": decisions[2]}, *[{}] * SPACING, {"decision": decisions[3]}]
    records, lost = run(stimulus)
    assert lost == 0
    lots = [values["positionLots"] for _, values, _ in records]
    assert lots == [decision["positionLots"] for decision in decisions[:4]]
    records, lost = run([{"decision": decision} for decision in decisions])
    assert lost == len(decisions) - 2
    events = [values for name, values, _ in records if name == "Event"]
    assert [values["code"] for values in events] == [OVERFLOW] * len(events)
    assert sum(values["data"] for values in events) == lost
    assert len(records) == 2 + len(events)
    assert records[-1][1]["sequence"] + 1 == len(records) + lost


def test_random_traffic_loses_nothing_untold():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stimulus = []
    for _ in range(1500):
        happening = {}
        if rng.random() < 0.02:
            happening["decision"] = random_decision(rng)
        if rng.random() < 0.003:
            happening["cancel"] = rng.getrandbits(32), rng.randrange(4)
        for name in KINDS:
            if rng.random() < 0.003:
                happening[name] = rng.getrandbits(32)
        stimulus.append(happening)
    pauses = [rng.random() < 0.5 for _ in range(20)]
    records, _ = run(stimulus, depth=4, ready=lambda cycle: not pauses[cycle // 200 % 20] or rng.random() < 0.3,
                     quiet=20)
    made = sum(len(happening) for happening in stimulus)
    told = [values["data"] for name, values, _ in records if name == "Event" and values["code"] == OVERFLOW]
    assert len(records) - len(told) + sum(told) == made
    sequence = [values["sequence"] for _, values, _ in records]
    assert sequence == sorted(set(sequence))
    assert sequence[-1] + 1 == made + len(told)


def test_records_have_fixed_length():
    schema = sbe.load("starbase_orders")
    message = next(message for message in schema.by_id.values() if message.groups)
    with pytest.raises(ValueError, match=f"{message.name} has groups or variable-length data"):
        record_layout(message)
    with pytest.raises(ValueError, match="depth is 2 records, must be at least 4"):
        Telemetry(2)

# amaranth: UnusedElaboratable=no
"""Telemetry: records as the schema's codec reads them, order, sequence numbers and overflow."""

import random

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from hdl.control.telemetry import DECISION, EVENT, Telemetry, record_layout
from hdl.layout import sbe

LINK = sbe.load("t2q_link")
CODES = LINK.enums["EventCode"]
OVERFLOW = CODES["TELEMETRY_OVERFLOW"]
SPACING = 19        # cycles between decisions of which none is lost


def random_decision(rng):
    return {f.name: rng.randint(*f.range) for f in LINK["Decision"].fields.values() if f.name != "sequence"}


def run(stimulus, *, depth=16, ready=lambda cycle: True, quiet=12, start=0):
    """Play a list, a cycle each from cycle ``start`` on, of {"decision": values or absent, event name: data}.

    Returns the records as decoded ("Decision" or "Event", values, cycle of the first byte) and the number of cycles in
    which something was lost.
    """
    dut = Telemetry(depth)
    records, lost = [], 0

    async def testbench(ctx):
        nonlocal lost
        payload, began, held, cycle, last = b"", None, None, -1, 0
        while max(last, len(stimulus)) + quiet > cycle:
            cycle += 1
            assert cycle < 20000, "there is no end"
            happening = stimulus[cycle] if cycle < len(stimulus) else {}
            ctx.set(dut.cycle, start + cycle)
            ctx.set(dut.decision_valid, "decision" in happening)
            if "decision" in happening:
                for name, value in happening["decision"].items():
                    ctx.set(dut.decision[name], value)
            for name in CODES:
                if name != "TELEMETRY_OVERFLOW":
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
                        records.append((message.name, message.decode(payload), began))
                        payload, began = b"", None
            lost += ctx.get(dut.lost)
            await ctx.tick()
        assert not payload

    sim = Simulator(dut)
    sim.add_clock(8e-9)
    sim.add_testbench(testbench)
    sim.run()
    return records, lost


def test_layouts_are_those_of_the_schema():
    verilog.convert(Telemetry(4))
    for layout, message in ((DECISION, LINK["Decision"]), (EVENT, LINK["Event"])):
        assert layout.size == 8 * message.block_length
        assert {name for name, _ in layout} == set(message.fields)
        for name, field in layout:
            assert field.offset == 8 * message.fields[name].offset
            assert field.width == 8 * message.fields[name].size


def test_every_field_and_latency():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    decision = random_decision(rng)
    records, lost = run([{}] * 10 + [{"decision": decision}])
    (name, values, began), = records
    assert name == "Decision"
    null = {f.name: f.null for f in LINK["Decision"].fields.values()}
    assert {n: null[n] if v is None else v for n, v in values.items()} == {**decision, "sequence": 0}
    assert began == 10 + 7
    assert not lost
    (_, values, began), = run([{}, {"GAP": 5}])[0]
    assert began == 1 + 9


def test_every_event_has_its_code_data_and_cycle():
    names = [name for name in CODES if name != "TELEMETRY_OVERFLOW"]
    stimulus = [{name: 1000 + n} for n, name in enumerate(names)] + [{}] * 60 + [dict.fromkeys(names, 7)]
    records, lost = run(stimulus)
    values = [(r["code"], r["data"], r["cycle"], r["sequence"]) for _, r, _ in records]
    at = len(stimulus) - 1
    expected = [(CODES[name], 1000 + n, n, n) for n, name in enumerate(names)]
    expected += [(code, 7, at, len(names) + n) for n, code in enumerate(sorted(CODES[name] for name in names))]
    assert values == expected
    assert not lost


def test_an_event_keeps_its_cycle_while_the_low_word_wraps():
    start = (5 << 32) - 6
    decisions = [random_decision(random.Random(n)) for n in range(2)]
    names = [name for name in CODES if name != "TELEMETRY_OVERFLOW"]
    stimulus = [{name: 0, **({"decision": decisions[n]} if n < 2 else {})} for n, name in enumerate(names)]
    assert len(names) == 7
    records, lost = run(stimulus, start=start)
    cycles = {values["code"]: values["cycle"] for name, values, _ in records if name == "Event"}
    assert cycles == {CODES[name]: start + n for n, name in enumerate(names)}
    assert not lost


def test_a_decision_goes_before_an_event_of_the_same_cycle():
    decision = random_decision(random.Random(1))
    records, _ = run([{"decision": decision, "GAP": 3}])
    assert [(name, values["sequence"]) for name, values, _ in records] == [("Decision", 0), ("Event", 1)]


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
    """Two may follow one another at once, and then one for every record's worth of words."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    decisions = [random_decision(rng) for _ in range(8)]
    pair = [{"decision": decisions[0]}, {"decision": decisions[1]}]
    stimulus = [*pair, *[{}] * SPACING, {"decision": decisions[2]}, *[{}] * SPACING, {"decision": decisions[3]}]
    records, lost = run(stimulus)
    assert lost == 0
    assert [values["quoteId"] for _, values, _ in records] == [decision["quoteId"] for decision in decisions[:4]]
    records, lost = run([{"decision": decision} for decision in decisions])
    assert lost == len(decisions) - 2
    assert [(name, values["sequence"]) for name, values, _ in records[:2]] == [("Decision", 0), ("Decision", 1 + lost)]
    assert sum(values["data"] for name, values, _ in records[2:] if values["code"] == OVERFLOW) == lost
    assert records[-1][1]["sequence"] + 1 == len(records) + lost


def test_random_traffic_loses_nothing_untold():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = [name for name in CODES if name != "TELEMETRY_OVERFLOW"]
    stimulus = []
    for _ in range(1500):
        happening = {}
        if rng.random() < 0.02:
            happening["decision"] = random_decision(rng)
        for name in names:
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

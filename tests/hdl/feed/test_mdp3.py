"""The MDP 3.0 walker against a model that parses whole packets at once."""

import random

import pytest
from amaranth.back import rtlil

from hdl.feed.arbiter import ANSWER_CYCLES
from hdl.feed.mdp3 import Mdp3Walker
from sim.golden.feed import SEQ_AT, walk
from tests.hdl.feed.packets import packet
from tests.hdl.simulation import simulated

SEED = 20
IDS = (1, 174969, -5, 0x7FFFFFFF)


def expected(payload, length, accepted):
    """The strobes of one packet by payload offset, and whether it is poisoned (given a good frame)."""
    if len(payload) <= SEQ_AT:
        return [], False
    if not accepted:
        return [], False
    happenings, malformed = walk(payload, length)
    out = []
    for h in happenings:
        if h.kind == "claim":
            out.append((h.at, "claim", h.a & 0xFFFFFFFF))
        elif h.kind == "entry":
            px, size, level, action, kind = h.b
            out.append((h.at, "entry", (px & (1 << 64) - 1, size & 0xFFFFFFFF, level, action, kind)))
        elif h.kind == "publish":
            out.append((h.at, "publish", bool(h.a)))
        else:
            out.append((h.at, h.kind, bool(h.a)))
    return sorted(out, key=repr), malformed


def run(cases):
    """Drive (payload, announced length, accept, frame_ok) into the walker; what it said of each: its strobes, poisoned,
    short, and what it said ahead of the bytes that matter."""
    dut = Mdp3Walker()
    seen = []

    def answer(ctx, accept, now):
        ctx.set(dut.accept, now and accept)
        ctx.set(dut.refuse, now and not accept)

    async def testbench(ctx):
        for payload, length, accept, good in cases:
            got, ahead = [], []
            answer_at = None
            for at, byte in enumerate(payload):
                ctx.set(dut.data, byte)
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, at == 0)
                ctx.set(dut.last, at == length - 1)
                ctx.set(dut.length, length)
                if ctx.get(dut.seq_valid):
                    got.append((at, "seq", ctx.get(dut.seq)))
                    answer_at = at + ANSWER_CYCLES
                answer(ctx, accept, at == answer_at)
                if ctx.get(dut.message):
                    got.append((at, "message", bool(ctx.get(dut.book_message))))
                claim = ctx.get(dut.security_id_valid)
                if ctx.get(dut.entry):
                    got.append((at, "entry", tuple(ctx.get(s) for s in (dut.px, dut.size, dut.level, dut.action,
                                                                        dut.entry_type))))
                if ctx.get(dut.publish):
                    got.append((at, "publish", bool(ctx.get(dut.publish_entry))))
                if ctx.get(dut.reset_channel):
                    got.append((at, "reset", False))
                if ctx.get(dut.eve):
                    ahead.append((at, "eve", (*(ctx.get(s) for s in (dut.px, dut.size, dut.level)), byte),
                                  bool(ctx.get(dut.eve_ends_event))))
                if ctx.get(dut.trigger_next):
                    ahead.append((at, "trigger"))
                if place := ctx.get(dut.security_id_place):
                    ahead.append((at, "place", place))
                assert not ctx.get(dut.poisoned)
                await ctx.tick()
                if claim:       # it stands from the next cycle on
                    got.append((at, "claim", ctx.get(dut.security_id)))
            ctx.set(dut.valid, 0)
            ctx.set(dut.first, 0)
            ctx.set(dut.last, 0)
            for at in range(len(payload), len(payload) + 3):
                answer(ctx, accept, at == answer_at)
                await ctx.tick()
            ctx.set(dut.frame_end, 1)
            ctx.set(dut.frame_ok, good)
            seen.append((got, ctx.get(dut.poisoned), ctx.get(dut.short), ahead))
            await ctx.tick()
            ctx.set(dut.frame_end, 0)
            await ctx.tick()

    simulated(dut, testbench)
    return seen


def check(cases):
    for (payload, length, accept, good), (got, poisoned, short, ahead) in zip(cases, run(cases), strict=True):
        want, malformed = expected(payload, length, accept)
        context = f"payload {payload.hex()} of {length}, accept {accept}, good {good}"
        assert sorted((g for g in got if g[1] != "seq"), key=repr) == want, context
        has_seq = len(payload) > SEQ_AT
        assert any(g[1] == "seq" for g in got) == has_seq, context
        if has_seq:
            assert [g for g in got if g[1] == "seq"] == [(SEQ_AT, "seq", int.from_bytes(payload[:4], "little"))]
        assert poisoned == (has_seq and accept and (malformed or not good)), context
        assert short == (not has_seq), context
        check_ahead(got, ahead, len(payload), length, context)


def check_ahead(got, ahead, have, length, context):
    """What is said before the byte that matters: of every entry, and of nothing else but one that is cut off."""
    entries = {at: what for at, kind, what in got if kind == "entry"}
    publishes = {at for at, kind, what in got if kind == "publish" and what}
    claims = {at for at, kind, _ in got if kind == "claim"}
    eves = {at: (fields, ends) for at, kind, *what in ahead if kind == "eve" for fields, ends in (what,)}
    for at, fields in entries.items():
        assert eves.pop(at - 1) == (fields[:4], at in publishes), context
        assert (at, "trigger") in ahead, context
    assert set(eves) <= {have - 1}, context     # the byte after it never came
    triggers = {at for at, kind, *_ in ahead if kind == "trigger"}
    assert triggers == set(entries), context
    places = {at: what[0] for at, kind, *what in ahead if kind == "place"}
    for at in claims:
        assert [places.pop(at - 3 + i) for i in range(4)] == [1, 2, 4, 8], context
    rest = sorted(places.items())
    assert [place for _, place in rest] == [1, 2, 4][:len(rest)], context
    assert [at for at, _ in rest] == list(range(have - len(rest), have)), context


def test_what_is_said_ahead_of_a_cut():
    """The eve of an entry whose last byte never comes, at the end of a frame and at the end of a packet."""
    from tests.hdl.feed.packets import MDP3, book
    header = MDP3.composites["PacketHeader"].pack(MsgSeqNum=7, SendingTime=1)
    whole = header + book(random.Random(5), IDS, 1, 0x84)
    (trigger, *_), = (h for h in walk(whole, len(whole))[0] if h.kind == "entry")
    cut = whole[:trigger]
    (got, _, _, ahead), (_, _, _, at_its_end), (again, *_) = run([
        (cut, len(whole), True, False), (cut, len(cut), True, False), (whole, len(whole), True, True)])
    assert [(at, kind) for at, kind, *_ in ahead if kind != "place"] == [(trigger - 1, "eve")]
    assert not [kind for _, kind, *_ in got if kind == "entry"]
    assert not [kind for _, kind, *_ in at_its_end if kind == "trigger"]
    assert [kind for _, kind, *_ in again if kind == "entry"] == ["entry"]


def test_converts():
    assert "module" in rtlil.convert(Mdp3Walker())


def test_random_packets():
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    cases = []
    for seq in range(150):
        payload = packet(rng, seq, IDS)
        length = len(payload)
        if rng.random() < .1:       # a frame cut in the middle
            payload = payload[:rng.randrange(1, length + 1)]
        cases.append((payload, length, rng.random() < .9, rng.random() < .9))
    check(cases)


@pytest.mark.parametrize("entries", [1, 3])
def test_cut_at_every_byte(entries):
    """A cut packet says what its bytes say, is poisoned, and does not disturb the next one."""
    rng = random.Random(entries)
    from tests.hdl.feed.packets import MDP3, book
    header = MDP3.composites["PacketHeader"].pack(MsgSeqNum=7, SendingTime=1)
    whole = header + book(rng, IDS, entries, 0x84)
    cases = []
    for n in range(1, len(whole)):
        cases += [(whole[:n], len(whole), True, False), (whole, len(whole), True, True)]
    check(cases)

"""The MDP 3.0 walker against a model that parses whole packets at once."""

import random

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from hdl.feed.mdp3 import Mdp3Walker
from sim.golden.feed import SEQ_AT, walk
from tests.hdl.feed.packets import packet

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
    """Drive (payload, announced length, accept, frame_ok) into the walker; what it said of each."""
    dut = Mdp3Walker()
    seen = []

    async def testbench(ctx):
        for payload, length, accept, good in cases:
            got = []
            for at, byte in enumerate(payload):
                ctx.set(dut.data, byte)
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, at == 0)
                ctx.set(dut.last, at == length - 1)
                ctx.set(dut.length, length)
                ctx.set(dut.accept, 0)
                if ctx.get(dut.seq_valid):
                    got.append((at, "seq", ctx.get(dut.seq)))
                    ctx.set(dut.accept, accept)
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
                assert not ctx.get(dut.poisoned)
                await ctx.tick()
                if claim:       # it stands from the next cycle on
                    got.append((at, "claim", ctx.get(dut.security_id)))
            ctx.set(dut.valid, 0)
            ctx.set(dut.first, 0)
            ctx.set(dut.last, 0)
            for _ in range(3):
                await ctx.tick()
            ctx.set(dut.frame_end, 1)
            ctx.set(dut.frame_ok, good)
            seen.append((got, ctx.get(dut.poisoned), ctx.get(dut.short)))
            await ctx.tick()
            ctx.set(dut.frame_end, 0)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(8e-9)
    simulator.add_testbench(testbench)
    simulator.run()
    return seen


def check(cases):
    for (payload, length, accept, good), (got, poisoned, short) in zip(cases, run(cases), strict=True):
        want, malformed = expected(payload, length, accept)
        context = f"payload {payload.hex()} of {length}, accept {accept}, good {good}"
        assert sorted((g for g in got if g[1] != "seq"), key=repr) == want, context
        has_seq = len(payload) > SEQ_AT
        assert any(g[1] == "seq" for g in got) == has_seq, context
        if has_seq:
            assert [g for g in got if g[1] == "seq"] == [(SEQ_AT, "seq", int.from_bytes(payload[:4], "little"))]
        assert poisoned == (has_seq and accept and (malformed or not good)), context
        assert short == (not has_seq), context


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

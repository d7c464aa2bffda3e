# amaranth: UnusedElaboratable=no
"""G2: a limit takes effect whole or not at all."""

from functools import reduce
from operator import or_

from amaranth.hdl import Assert, Assume, Cover, Signal

from hdl.control.bank import RegisterBank
from hdl.control.integrity import Integrity
from hdl.control.registers import LIMITS
from tests.proof.obligation import Proof, before

#: Of the bank, the memories and who weighs: they may do what they like.
_CUT = tuple(f"dut.{name}" for name in ("integrity", "limits", "param_words", "words", "params_0", "params_1"))


def _commits(m, weighs, _):
    """Only what the host has said rightly is committed, and only then anything is applied."""
    its = weighs.under_way
    told, told_for, agreed = Signal(), Signal(), Signal()
    with m.If(weighs.say):
        m.d.sync += told.eq(1)
    with m.Elif(weighs.start | weighs.use):
        m.d.sync += told.eq(0)
    with m.If(weighs.start):
        m.d.sync += told_for.eq(told)
    with m.If(weighs.commit):
        m.d.sync += agreed.eq(1)
    with m.Elif(weighs.apply):
        m.d.sync += agreed.eq(0)
    said = before(m, weighs.say, "say")
    right = before(m, weighs.found == weighs.crc, "right")
    applied, was_found, was_hash, was_valid = (before(m, value, name) for value, name in (
        (weighs.apply, "apply"), (weighs.found, "found"), (weighs.hash, "hash"), (weighs.valid, "valid")))
    states = [its[name] for name in ("idle", "weighs", "verdict", "waits", "applies")]
    m.d.comb += [
        Assume(~(weighs.busy & (weighs.start | weighs.say))), Assume(~(weighs.start & weighs.say)),
        Assume(~(weighs.start & said)), Assume(said | (weighs.crc == before(m, weighs.crc, "crc"))),
        # The component's own account agrees.
        Assert(reduce(or_, states)), Assert(its["said"] == told), Assert(its["idle"] | (its["claimed"] == told_for)),
        Assert(weighs.busy == ~its["idle"]), Assert(weighs.apply == its["applies"]),
        Assert(its["waits"] == (weighs.commit | (agreed & ~weighs.apply))), Assert(~weighs.apply | agreed),
        Assert(~weighs.refused | its["idle"]), Assert(~its["verdict"] | (its["right"] == right)),
        # A commit is asked for if, and only if, the host has said the CRC that was found, since the one before it.
        Assert(~weighs.commit | (told_for & (weighs.found == weighs.crc))),
        Assert(~weighs.refused | before(m, ~(told_for & (weighs.found == weighs.crc)), "wrong", init=1)),
        Assert(~weighs.apply | before(m, weighs.flip & (agreed | weighs.commit), "flips")),
        # What is in force has the CRC that was found, and changes in no other way.
        Assert(~applied | ((weighs.hash == was_found) & weighs.valid)),
        Assert(applied | ((weighs.hash == was_hash) & (weighs.valid == was_valid))),
        Assert(~weighs.agrees | before(m, told & weighs.valid & (weighs.crc == weighs.hash), "agrees")),
        Cover(weighs.apply), Cover(weighs.refused & before(m, told_for, "for")), Cover(weighs.agrees & weighs.use),
    ]


def _limits(m, bank, parts):
    """What is in force stands still but for what is applied; what is weighed stands still."""
    weighs, closed = parts.integrity, Signal()
    busy = before(m, weighs.busy, "busy")
    soon, applied = before(m, weighs.apply, "apply"), Signal()
    m.d.sync += applied.eq(soon)
    # What the bus promises: after a word, none for three cycles.
    lately, is_write = Signal(3), bank.bus.we
    m.d.sync += lately.eq((lately << 1) | is_write)
    values = [getattr(bank.rw, r.name) for r in LIMITS]
    stood = [value == before(m, value, r.name) for r, value in zip(LIMITS, values, strict=True)]
    strobes = [getattr(bank.write, r.name) for r in LIMITS]
    m.d.comb += [
        Assume(~is_write | (lately == 0)),
        closed.eq(weighs.busy & busy & before(m, busy, "longer")),
        Assert(applied | (reduce(or_, (~s for s in stood)) == 0)),
        Assert(soon | (reduce(or_, strobes) == 0)),
        Assert(~closed | ~(bank.write.limits_crc | bank.write.commit)),
        Assert(~closed | (bank.param_written == 0)),
        Cover(applied & (reduce(or_, (~s for s in stood)) != 0)), Cover(closed & bank.refused),
        Cover(~weighs.busy & bank.param_written.any()),
    ]


PROOFS = (
    Proof(
        "whole_commit", "What is put in force is what the host has said it is",
        "G2",
        "Banks flip and limits are applied only after the host has said a CRC, since the commit before, and the one "
        "that was found is the same; anything else is refused, and then nothing is applied; the hash in force is that "
        "of what was applied last, and a hash that the host says counts for one command.",
        lambda: Integrity(1, limits=1, row_words=1), _commits, depth=3, cover_depth=28,
        assumes="While a commit is weighed, what it is held against is not written, as `whole_limits` has it. There is "
                "one limit and a row of one word: how many there are is but the end of a count."),
    Proof(
        "whole_limits", "A limit takes effect whole or not at all",
        "G2",
        "Limits of the card in force change only when a commit is applied, all in one cycle; and from its second cycle "
        "to that one no limit, no parameter row and nothing that it is held against can be written.",
        lambda: RegisterBank(1), _limits, depth=4, cover_depth=12, cut=_CUT,
        assumes="The bus writes a word in four cycles at most."),
)

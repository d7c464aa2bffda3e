# amaranth: UnusedElaboratable=no
"""G17, G18 and G20: what is held is not let go by itself."""

from amaranth.hdl import Assert, Assume, Const, Cover, Signal

from hdl.gate.bursts import FillBurst, RefusalStorm
from hdl.gate.repeats import RepeatedExecution
from tests.proof.obligation import Proof, before, stands


def _asked(m, gate, event, release):
    """The host has asked to let go since the last event came, which it does not while ``busy``."""
    asked = Signal()
    with m.If(event):
        m.d.sync += asked.eq(0)
    with m.If(release):
        m.d.sync += asked.eq(1)
    m.d.comb += Assume(~event | ~gate.busy)
    return asked


def _post(m, gate):
    """Of a post: it holds still until it is taken. Returns what lets go, in its first cycle."""
    stood = before(m, gate.post & ~gate.post_ready & ~gate.clear, "stood")
    names = ("instrument", "hold", "bid", "ask")
    values = [getattr(gate, f"post_{name}") for name in names]
    same = [value == before(m, value, name) for name, value in zip(names, values, strict=True)]
    m.d.comb += [Assert(~stood | gate.post | before(m, gate.clearing, "clearing")),
                 *(Assert(~stood | ~gate.post | each) for each in same)]
    return gate.post & ~gate.post_hold & ~stood


def _by_the_host(event, release):
    def claims(m, gate, _):
        asked = _asked(m, gate, getattr(gate, event), getattr(gate, release))
        lets_go, inside = _post(m, gate), gate.under_way
        held = Signal()     # a hold was posted, and since then nothing has let go
        with m.If(gate.post):
            m.d.sync += held.eq(gate.post_hold)
        m.d.comb += [
            Assert(~(gate.post & ~gate.post_hold) | asked), Assert(~inside["release"] | asked),
            Assert(gate.post == inside["post"]), Assert(inside["serves"] | inside["idle"]),
            Assert(~(gate.post & ~gate.post_hold) | inside["release"]),
            Cover(lets_go & held), Cover(gate.post & gate.post_hold & before(m, held, "held")),
        ]
    return claims


def _by_time(m, gate, inside):
    m.d.comb += Assume(inside.window.clearing == inside.rows.clearing)
    stands(m, gate.freeze_cycles, "freeze_cycles", before(m, Const(1), "begun"))
    asked = _asked(m, gate, gate.fill, gate.release)
    lets_go = _post(m, gate)
    age = Signal(8)     # cycles since the hold's post came, that of this instrument, the only one
    held = Signal()
    with m.If(gate.post & gate.post_hold & ~held):
        m.d.sync += [age.eq(1), held.eq(1)]
    with m.Elif(held):
        m.d.sync += age.eq(age + 1)
    with m.If(lets_go | gate.clear):
        m.d.sync += held.eq(0)
    long_enough = (gate.freeze_cycles != 0) & (gate.freeze_cycles <= age)
    m.d.comb += [Assert(~lets_go | asked | long_enough), Assert(~lets_go | held),
                 Cover(lets_go & ~asked & (gate.freeze_cycles == 5)), Cover(lets_go & asked & ~long_enough)]


_HOST = "No event comes while the gate is busy."

PROOFS = (
    Proof(
        "repeats_held", "A side that was filled too often is let go by an acknowledgement alone", "G18",
        "A post that lets go is there only if the host has acknowledged since the last fill; a post holds still until "
        "it is taken.",
        lambda: RepeatedExecution(1), _by_the_host("fill", "acknowledge"), depth=3, cover_depth=24, assumes=_HOST),
    Proof(
        "refusals_held", "An instrument that was refused too often is let go by the host alone", "G20",
        "A post that lets go is there only if the host has asked for it since the last refusal; a post holds still "
        "until it is taken.",
        lambda: RefusalStorm(1), _by_the_host("refusals", "release"), depth=3, cover_depth=30, cut=("dut.window",),
        assumes=_HOST),
    Proof(
        "freeze_ends", "A freeze ends by time or by the host alone", "G17",
        "A post that lets go comes only after a hold, and either the host has asked for it since the last fill or as "
        "many cycles as the freeze is long have passed since the hold's post came.",
        lambda: FillBurst(1), _by_time, depth=22, cover_depth=22, cut=("dut.window",),
        bounded="What the memory of the holds has in it is no part of what the induction sees.",
        assumes="The length of the freeze does not change; the sums are cleared as long as the holds are. " + _HOST),
)

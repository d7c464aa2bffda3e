# amaranth: UnusedElaboratable=no
"""G17, G18 and G20: what is held is not let go by itself."""

from amaranth.hdl import Assert, Assume, Const, Cover, Signal

from hdl.gate.bursts import FillBurst, RefusalStorm
from hdl.gate.repeats import RepeatedExecution
from tests.proof.obligation import Proof, before, stands


def _asked(m, gate, event):
    """The last thing that came was a visit in which the host lets go. Events and visits come one at a time."""
    asked, waits = Signal(), Signal()
    m.d.comb += [Assume(~(event & gate.visit)), Assume(~(event | gate.visit) | ~waits | gate.answers)]
    with m.If(event | gate.visit):
        m.d.sync += [asked.eq(gate.visit & gate.lets_go), waits.eq(1)]
    with m.Elif(gate.answers):
        m.d.sync += waits.eq(0)
    stands(m, gate.lets_go, "lets_go", waits)
    return asked, waits


def _by_the_host(event):
    def claims(m, gate, _):
        asked, waits = _asked(m, gate, getattr(gate, event))
        if event == "refusals":
            m.d.comb += Assume(~gate.refusals | (gate.count != 0))
        held = gate.held if hasattr(gate, "held") else gate.held_bid | gate.held_ask
        lets_go = gate.answers & gate.changes & ~held
        was_event = Signal()
        with m.If(getattr(gate, event) | gate.visit):
            m.d.sync += was_event.eq(getattr(gate, event))
        inside = gate.under_way
        m.d.comb += [
            # What the rest rests on: what the gate serves is what came last.
            Assert(waits == (inside["serves"] | gate.answers)), Assert(~inside["serves"] | ~gate.answers),
            Assert(~inside["serves"] | ~gate.changes), Assert(~waits | (inside["event"] == was_event)),
            Assert(~waits | was_event | (asked == gate.lets_go)), Assert(~waits | ~was_event | ~asked),
            Assert(~inside.get("sums", 0) | inside["event"]), Assert(~inside.get("begun", 0) | inside["serves"]),
            Assert(~lets_go | asked),
            Assert(~(gate.answers & gate.changes & was_event) | held),
            Assert(~(gate.answers & ~was_event & ~asked) | ~gate.changes),
            Cover(lets_go), Cover(gate.answers & gate.changes & was_event),
        ]
    return claims


def _by_time(m, gate, inside):
    m.d.comb += Assume(inside.window.clearing == inside.rows.clearing)
    stands(m, gate.freeze_cycles, "freeze_cycles", before(m, Const(1), "begun"))
    asked, _ = _asked(m, gate, gate.fill)
    lets_go = gate.answers & gate.changes & ~gate.held
    age = Signal(8)     # cycles since the hold's answer, that of this instrument, the only one
    held = Signal()
    with m.If(gate.answers & gate.changes & gate.held):
        m.d.sync += [age.eq(1), held.eq(1)]
    with m.Elif(held):
        m.d.sync += age.eq(age + 1)
    with m.If(lets_go):
        m.d.sync += held.eq(0)
    long_enough = (gate.freeze_cycles != 0) & (gate.freeze_cycles <= age)
    m.d.comb += [Assert(~lets_go | asked | long_enough), Assert(~lets_go | held),
                 Cover(lets_go & ~asked & (gate.freeze_cycles == 5)), Cover(lets_go & asked & ~long_enough)]


_ONE = "Events and visits come one at a time, the next one with the answer to the one before at the earliest."

PROOFS = (
    Proof(
        "repeats_held", "A side that was filled too often is let go by an acknowledgement alone", "G18",
        "An answer that something changes says after a fill that a side is held, and after a visit that none is; the "
        "latter only if the host lets go.",
        lambda: RepeatedExecution(1), _by_the_host("fill"), depth=12, cover_depth=30, assumes=_ONE),
    Proof(
        "refusals_held", "An instrument that was refused too often is let go by the host alone", "G20",
        "An answer that something changes says after a refusal that the instrument is held, and after a visit that it "
        "is not; the latter only if the host lets go.",
        lambda: RefusalStorm(1), _by_the_host("refusals"), depth=12, cover_depth=40, cut=("dut.window",),
        assumes=_ONE + " A refusal is of a side at least."),
    Proof(
        "freeze_ends", "A freeze ends by time or by the host alone", "G17",
        "An answer that lets go comes only after a hold, and either the host lets go in this very visit or as many "
        "cycles as the freeze is long have passed since the answer that began the hold.",
        lambda: FillBurst(1), _by_time, depth=26, cover_depth=26, cut=("dut.window",),
        bounded="What the memory of the holds has in it is no part of what the induction sees.",
        assumes="The length of the freeze does not change; the sums are cleared as long as the holds are. " + _ONE),
)

# amaranth: UnusedElaboratable=no
"""G11: what counts as open is all that has left, whatever happens in whatever order."""

from amaranth.hdl import Assert, Assume, Cat, Cover, Mux, Signal

from hdl.gate.exposure import Exposure, Position
from tests.proof.obligation import Proof

_LEAVES = 3     # cycles from `prepare` to `emit`, if it comes


def _counts(m, exposure, _):
    e, kept = exposure, exposure.kept
    for name, value in (("address", 0), ("instrument", 0), ("of_address", 1), ("of_instrument", 1)):
        m.d.comb += Assume(getattr(e, name) == value)
    sweeping, says = kept["sweeping"], e.settle & e.counts

    # Every lot that has left since the hand-over, and what was last said of the position, by the host or the exchange.
    sent, told = (Signal(32, name="all_bids"), Signal(32, name="all_asks")), Signal(Position)
    for total, lots in zip(sent, (e.bid_lots, e.ask_lots), strict=True):
        m.d.sync += total.eq(Mux(e.restart | sweeping, 0, total + Mux(e.emit, lots, 0)))
    with m.If(e.restart | sweeping):
        m.d.sync += told.eq(0)
    with m.Elif(says):
        m.d.sync += told.eq(e.position)
    said = Signal()     # ... since the host's word, and nothing has made it forgotten
    with m.If(e.restart | e.forget_positions):
        m.d.sync += said.eq(0)
    with m.Elif(says & e.known_now):
        m.d.sync += said.eq(1)

    # Rows: what changed in this cycle or the one before may be read as anything.
    changes, changed = e.emit | says | e.restart | sweeping | e.forget_positions, Signal()
    m.d.sync += changed.eq(changes)
    rewritten, resaid = Signal(), Signal()      # the row of quotes, that of positions, in the cycle before
    m.d.sync += [rewritten.eq(e.emit | e.restart | sweeping), resaid.eq(says | e.restart | sweeping)]
    bench = Signal()    # what is on the bench is of now
    with m.If(changes):
        m.d.sync += bench.eq(0)
    with m.Elif(e.load):
        m.d.sync += bench.eq(~changed)

    # How the component is used.
    due, prepared = Signal(_LEAVES), Signal()
    m.d.sync += due.eq(Cat(e.prepare, due[:-1]))
    with m.If(e.emit | e.restart | due[-1]):
        m.d.sync += prepared.eq(0)
    with m.Elif(e.prepare):
        m.d.sync += prepared.eq(1)
    m.d.comb += [
        Assume(~e.prepare | (bench & ~prepared & ~due.any())), Assume(~e.emit | (due[-1] & prepared)),
        Assume(~e.settle | ~(e.emit | prepared | sweeping)),
        Assume(~e.emit | ~(e.clear_all | sweeping | e.restart)), Assume(~(e.settle & e.restart)),
        Assume(~e.load | ~prepared),
    ]

    for n, side in enumerate(("bid", "ask")):
        on_bench, row = getattr(e.live, f"sent_{side}"), getattr(kept["quotes"], f"sent_{side}")
        m.d.comb += [Assert(~bench | (on_bench == sent[n])), Assert(rewritten | sweeping | (row == sent[n])),
                     Assert(~prepared | (kept["sent"][n] == sent[n]))]
    m.d.comb += [
        Assert(kept["known"] == said), Assert(~bench | (e.position_known == said)),
        # Each memory by itself: of all of them in one condition the solver makes nothing.
        *(Assert(~(bench & said) | (e.known.as_value()[part] == told.as_value()[part]))
          for part in kept["positions_parts"]),
        *(Assert(~said | resaid | sweeping | (kept["positions"].as_value()[part] == told.as_value()[part]))
          for part in kept["positions_parts"]),
        Cover(bench & (sent[0] > 5) & (sent[1] > sent[0]) & said & (told.settled_bid == 3)),
        Cover(bench & ~said & (sent[0] > 5)),
    ]


PROOFS = (
    Proof(
        "exposure_counts", "What counts as open is all that has left", "G11",
        "Of an instrument that is taken onto the bench, sent lots are all that have left since the hand-over, modulo "
        "2^32, and settled ones and the position are the last word of the host or what was learned of the exchange "
        "since, or known to be unknown; in whatever order quotes, mass cancels, words, cleared halts and new sessions "
        "come. The limits' verdict, proved above, takes the difference as open: it stays an upper bound of what can "
        "still trade as long as no more is settled than has traded or gone, late fills and repeated answers included.",
        lambda: Exposure(1), _counts, depth=5, cover_depth=16,
        assumes="A quote is prepared with what is on the bench, which was taken there two cycles after the last change "
                "or later, and leaves three cycles afterwards or never; the host's word comes neither with it nor in "
                "between."),
)

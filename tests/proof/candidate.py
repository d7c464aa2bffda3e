# amaranth: UnusedElaboratable=no
"""The gate on a price: what passes, what a frame says of it, and the reasons that are told."""

from amaranth.hdl import Assert, Assume, Cat, Cover, Mux, Signal

from hdl.control.registers import ACTIVE, HALTED, REDUCING
from hdl.gate.gate import Gate
from hdl.gate.holds import HOLDING
from tests.proof.obligation import Proof, before, stands

#: Gates that are spoken of here, by what fails them: the limits (whatever the price), the price, the moment.
_OF_LIMITS = (3, 5, 6, 9, 10, 11, 12, 13, *HOLDING, 26)
_OF_PRICE, _OF_MOMENT = (4, 5, 6, 7, 10, 26), (0, 1, 12, 22, 24)


def _candidate(m, gate, _):
    p, moment = gate.params, gate.moment
    taken, begun = before(m, gate.en, "en"), Signal()
    m.d.sync += begun.eq(1)
    m.d.comb += Assume(~gate.en | begun)
    # What a verdict is made of stands from the cycle before `en` on, until it was used.
    for name, value in (("params", p.as_value()),
                        *((f"{side}_{of}", getattr(getattr(gate, f"{side}_limits"), of))
                          for side in ("bid", "ask") for of in gate.bid_limits.signature.members),
                        *((name, getattr(gate, name)) for name in ("bid", "ask", "collar_low", "collar_high"))):
        stands(m, value, name, gate.en | taken)
    book_ok, far = before(m, gate.book_ok, "book_ok"), before(m, gate.far, "far")
    state_ok = (moment.state == ACTIVE) | (moment.state == REDUCING)
    bound = p.px_notional_ticks

    reasons, wants, changes, replaced_any, waits = [], [], [], [], []
    for name in ("bid", "ask"):
        limits, exact = getattr(gate, f"{name}_limits"), getattr(gate, name)
        moved, takes = (before(m, getattr(gate, f"{name}_{what}"), f"{name}_{what}") for what in ("moved", "takes"))

        def named(shape, what, name=name):
            return Signal(shape, name=f"{name}_{what}")

        spans_zero = (p.px_min_ticks < 0) & (p.px_max_ticks > 0)
        fails = {
            4: ~book_ok,
            5: (exact < p.px_min_ticks) | (exact > p.px_max_ticks) | ((exact == 0) & ~spans_zero),
            6: (exact < gate.collar_low) | (exact > gate.collar_high), 7: takes, 26: far,
            10: (exact < -bound) | (exact > bound),
            12: ~moment.equity_ok & ~limits.reduces,
            0: ~state_ok | ((moment.state == REDUCING) & ~limits.reduces), 1: ~moment.heartbeat_ok,
            2: ~moment.limits_ok,
            22: (moment.state == HALTED) | moment.kill_pin, 24: ~moment.session_up,
        }
        expected, passes = named(32, "expected"), named(1, "passes")
        m.d.comb += [
            expected.eq(Cat(fails.get(g, 0) | (limits.fixed[g] if g in _OF_LIMITS else 0) for g in range(32))),
            passes.eq((expected & ~(1 << 24)) == 0),     # without a session nothing leaves anyway
            *(Assume(~limits.fixed[g]) for g in range(32) if g not in _OF_LIMITS),      # tests/proof/limits.py
        ]
        px, lots = getattr(gate, f"{name}_px"), getattr(gate, f"{name}_lots")
        new = passes & (limits.resize | moved)
        replaces, keeps = new & moment.new_ok, limits.live & passes & ~(new & moment.new_ok)
        m.d.comb += [
            Assert(~taken | (getattr(gate, f"{name}_ok") == passes)),
            # A frame says of a side: the candidate that passed, or what is live and would pass, or nothing.
            Assert(~taken | (px == Mux(replaces, exact, Mux(keeps, limits.live_px, 0)))),
            Assert(~taken | (lots == Mux(replaces, p.quote_lots, Mux(keeps, limits.live_lots, 0)))),
            Cover(taken & replaces & (exact < 0)), Cover(taken & keeps & new), Cover(taken & limits.live & ~passes),
            *(Cover(taken & (expected == 1 << g)) for g in {*_OF_LIMITS, *_OF_PRICE, *_OF_MOMENT} - {0, 22}),
            Cover(taken & (expected == 1) & state_ok), Cover(taken & (expected == 1 << 22)),
        ]
        # G16: all that keeps it from the market is its age.
        nears = exact >= limits.toward if name == "bid" else exact <= limits.toward
        waits.append(passes & limits.young & ~limits.resize & nears)
        m.d.comb += [Assert(~taken | (getattr(gate, f"{name}_new") == replaces)), Cover(taken & waits[-1] & ~moved)]
        reasons.append(expected)
        wants.append(new)
        changes.append(replaces | (limits.live & ~passes))
        replaced_any.append(replaces)
    rate = Cat(wants).any() & ~moment.new_ok
    m.d.comb += [
        Assert(~taken | (gate.reasons == (reasons[0] | reasons[1] | (rate << 14) | (Cat(waits).any() << 16)))),
        Assert(~taken | (gate.emit == (Cat(changes).any() & moment.session_up))),
        Assert(~taken | (gate.is_new == Cat(replaced_any).any())),
        Assert(~taken | (gate.rate_blocked == rate)),
        Cover(taken & gate.rate_blocked & gate.emit & ~gate.is_new),
    ]


PROOFS = (
    Proof(
        "candidate_as_defined", "What a frame says has passed every gate, and what has not is told by name",
        "G0, G1, G3 to G7, G6b, G9 to G18, G20, G22",
        "The verdict on a candidate price is that of the gates' definitions in plain integers, at full width; a frame "
        "says of each side the candidate that passed, or what is live and passes, or nothing; the reasons that are "
        "told are those that fail, no more and no fewer; nothing is new without a token.",
        Gate, _candidate, depth=2, cover_depth=4,
        assumes="What a verdict is made of stands as long as it is used. The limits' verdict (proved above) is about "
                "G3, G5, G6, G6b, G9, G10, G11, G12, G13, G15, G17, G18 and G20 only. That a price takes (G7) or the "
                "feed is far (G6c) is an input."),
)

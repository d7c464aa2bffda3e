# amaranth: UnusedElaboratable=no
"""The limits that do not wait for a price, and the window of prices that they approve."""

from amaranth.hdl import Assert, Assume, Cover, Mux, Signal, signed

from hdl.control.params import TURNS
from hdl.control.registers import PARAM_BY_NAME
from hdl.gate.holds import HOLDING
from hdl.gate.limits import Limits
from hdl.gate.load import OVER_BITS
from tests.proof.obligation import Proof, before, stands

_IDLE = 15


def evaluation(m, at):
    """Cycle of the evaluation that is under way, :data:`_IDLE` between them: one bit of ``at`` follows the other, and a
    new one may begin, or this one be given up, at any time."""
    step, upcoming = Signal(4, init=_IDLE), Signal(4)
    m.d.comb += Assume((at == 0) | (at == 1) | ((step < 8) & (at == 1 << step)))
    with m.If(at[0]):
        m.d.comb += upcoming.eq(1)
    with m.Elif((at == 0) | (step >= 7)):
        m.d.comb += upcoming.eq(_IDLE)
    with m.Else():
        m.d.comb += upcoming.eq(step + 1)
    m.d.sync += step.eq(upcoming)
    return step


def params_hold(m, params, step, until):
    """Parameters stand from the cycle of their turn on, to that of ``until``."""
    for turn, names in enumerate(TURNS):
        for name in names:
            stands(m, params[name], name, (step > turn) & (step <= until))


def greatest(first, *others):
    """The greatest of some numbers."""
    for other in others:
        first = Mux(first < other, other, first)
    return first


def _static(m, limits, _):
    p, step = limits.params, evaluation(m, limits.at)
    params_hold(m, p, step, 6)
    for name, value in (("bid_live", limits.bid_live), ("ask_live", limits.ask_live), ("live", limits.live.as_value()),
                        ("position_known", limits.position_known), ("known", limits.known.as_value())):
        stands(m, value, name, (step > 0) & (step <= 6))
    for name, since in (("reference_ok", 3), ("held", 2), ("live_sides", 2), ("live_most", 2), ("off", 2),
                        ("valued", 3), ("rooms", 0), ("collar_low", 2), ("collar_high", 2), ("bid_young", 0),
                        ("ask_young", 0)):
        value = getattr(limits, name)
        stands(m, value.as_value() if name in ("held", "rooms") else value, name, (step > since) & (step <= 6))
    own = limits.bid_live + limits.ask_live
    m.d.comb += Assume(limits.live_sides >= own)
    # G12, G13: sums and comparisons are proved for lots that are worth 1; that the product is one is tested.
    m.d.comb += [Assume(limits.lot_value == 1),
                 *(Assume(getattr(limits.rooms, name) < 1 << OVER_BITS) for name in ("gross", "bid", "ask"))]
    leaving = greatest(p.quote_lots, *(Mux(getattr(limits, f"{side}_live"), getattr(limits.live, f"{side}_lots"), 0)
                                       for side in ("bid", "ask")))
    bound = before(m, limits.bound_notional, "bound")       # in cycle 6 that of cycle 5
    done = Signal()
    m.d.comb += done.eq((step == 6) & (limits.at == 1 << 6))

    low, high = Signal(signed(25)), Signal(signed(25))
    least, most = Signal(signed(25)), Signal(signed(25))
    m.d.comb += [
        least.eq(Mux(p.px_min_ticks == 0, 1, p.px_min_ticks)), most.eq(Mux(p.px_max_ticks == 0, -1, p.px_max_ticks)),
        low.eq(greatest(least, -p.px_notional_ticks, limits.collar_low)),
        high.eq(-greatest(-most, -p.px_notional_ticks, -limits.collar_high)),
        Assert(~done | ((limits.low == low) & (limits.high == high))),
        Cover(done & (low < 0) & (high > 0)), Cover(done & (low > high)),
    ]
    # G8: how far a side that is kept may be from its own target, on the other one's side.
    away, apart = Signal(24), Signal(24)
    m.d.comb += [apart.eq((2 * p.half_spread_sub + 255) >> 8),
                 away.eq(Mux(p.away_ticks == 0, 1, p.away_ticks))]
    reach = Mux(away > apart, apart, away)
    near = Mux(p.toward_ticks == 0, 1, p.toward_ticks)
    # G16: towards the market no price gets there while the side is young.
    for side, above, below, up, down in ((limits.bid, near, reach, limits.bid_young, 0),
                                         (limits.ask, reach, near, 0, limits.ask_young)):
        m.d.comb += [Assert(~done | Mux(up, side.up == (1 << 24) - 1, side.up - side.live_px == above)),
                     Assert(~done | Mux(down, side.down == -1 << 24, side.live_px - side.down == below))]
    m.d.comb += [Assert(~done | (limits.bid.toward - limits.bid.live_px == near)),
                 Assert(~done | (limits.ask.live_px - limits.ask.toward == near))]
    for name, sign, enabled, most in (("bid", 1, p.bid_en, p.max_long_lots), ("ask", -1, p.ask_en, p.max_short_lots)):
        side, live = getattr(limits, name), getattr(limits, f"{name}_live")
        live_lots, live_px = (getattr(limits.live, f"{name}_{what}") for what in ("lots", "px"))

        def named(shape, what, name=name):
            return Signal(shape, name=f"{name}_{what}")

        drift = HOLDING.index(25)
        largest, open_lots, worst = named(24, "largest"), named(32, "open"), named(signed(40), "worst")
        held = limits.known.lots if sign > 0 else -limits.known.lots
        fails = {
            3: ~p.sym_en | ~enabled,
            5: (p.quote_lots < p.q_min_lots) | (p.quote_lots > p.q_hard_lots) | (p.quote_lots == 0)
            | (p.half_spread_sub == 0),
            9: p.quote_lots > p.max_lots,
            10: (p.px_notional_ticks == 0) | (bound > (p.max_notional_hi << PARAM_BY_NAME["max_notional_lo"].width)
                                              + p.max_notional_lo),
            11: ~limits.position_known | (worst > most),
            6: ~limits.reference_ok, 26: ~limits.reference_ok,
            12: (~limits.valued | (2 * leaving > limits.rooms.gross)) & ~((held < 0) & (worst <= 0)),
            13: (limits.live_sides - own + p.bid_en + p.ask_en > limits.live_most) | ~limits.valued
            | (leaving > getattr(limits.rooms, name)),
            **{gate: getattr(limits.held, name)[n] | limits.off[n] for n, gate in enumerate(HOLDING)},
            25: (getattr(limits.held, name)[drift] & ~side.reduces) | limits.off[drift] | (p.drift_band == 0),
        }
        m.d.comb += [
            largest.eq(Mux(live & (live_lots > p.quote_lots), live_lots, p.quote_lots)),
            open_lots.eq(getattr(limits.live, f"sent_{name}") - getattr(limits.known, f"settled_{name}")),
            worst.eq(held + open_lots + largest),
            *(Assert(~done | (side.fixed[gate] == fail)) for gate, fail in fails.items()),
            *(Assert(~side.fixed[gate]) for gate in range(len(side.fixed)) if gate not in fails),
            # What may leave while REDUCING: it cannot take the position to zero and beyond, whatever trades.
            Assert(~done | (side.reduces == ((held < 0) & (worst <= 0)))),
            Assert(~done | (getattr(limits, f"{name}_largest") == largest)),
            Assert(~done | (side.resize == (~live | (live_lots != p.quote_lots) | (live_px < low) | (live_px > high)))),
            *(Cover(done & (side.fixed == (1 << gate))) for gate in fails if gate not in (6, 26)),
            Cover(done & (side.fixed == (1 << 6 | 1 << 26))),
            Cover(done & (side.fixed == 0) & live & (live_lots > p.quote_lots) & (worst == most)),
            Cover(done & (side.fixed == 0) & side.reduces),
        ]


PROOFS = (
    Proof(
        "limits_as_defined", "Limits are what they are defined to be; worst-case exposure stays below the cap",
        "G3, G5, G6, G6b, G8, G9, G10, G11, G12, G13, G15, G16, G17, G18, G20",
        "The verdict on G3, G5 (quantity), G9, G10, G11, G12 (but for equity's age), G13, G15 and on a reference that "
        "lacks (G6) is that of their definitions in plain integers; worst-case exposure, everything that was sent and "
        "is not settled, what is live or its replacement and the position, never passes the cap on a side "
        "that is allowed; the window of prices is that of G5's band, G6's collar and "
        "G10's bound; a side is kept only nearer to its own target, on the other one's side, than both half spreads "
        "(G8).",
        Limits, _static, depth=9, cover_depth=9,
        assumes="Parameters stand from the cycle of their turn on, positions and live quotes from the beginning of an "
                "evaluation on, references, holds and loads from when they are read, as the benches keep them. The "
                "product price times quantity is right in cycle 5. A lot is worth 1, and no room has more than 40 bits "
                "(G12, G13). No instrument has more live sides than there are."),
)

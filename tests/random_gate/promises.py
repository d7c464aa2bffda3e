"""What must be true of what leaves and of what stands, whatever the gate: read off the results, not off the model."""

import numpy as np

from hdl.control.registers import ACTIVE, REDUCING
from hdl.gate.holds import HOLDING
from tests.random_gate.model import BAND, U32, columns

__all__ = ["broken", "overexposed"]


def broken(cases, seen):
    """Promises that a result breaks: {what is promised: array of bool, true where it is not kept}.

    Parameters
    ----------
    cases : array of CASE.
    seen : array of SEEN, of the same cases.
    """
    c = columns(cases)
    leaves = seen["emit"] != 0
    replaces = leaves & (seen["is_new"] != 0)
    found = {
        "a quote is replaced only while trading, with a heartbeat and limits, and not killed": replaces & (
            ((c.state != ACTIVE) & (c.state != REDUCING)) | (c.heartbeat_ok == 0) | (c.limits_ok == 0)
            | (c.kill_pin != 0)),
        "a frame leaves only in a session": leaves & (c.session_up == 0),
        "bid and ask that leave never meet": (leaves & (seen["bid_quantity"] > 0) & (seen["ask_quantity"] > 0)
                                              & (seen["bid_ticks"] >= seen["ask_ticks"])),
        "no more sides are live than live_most": leaves & (seen["bid_quantity"] + seen["ask_quantity"] > 0) & (
            c.live_elsewhere + (seen["bid_quantity"] > 0) + (seen["ask_quantity"] > 0) > c.live_most),
        # One that reduces the position may leave whatever the limits.
        "what leaves fits into what positions and open quotes leave of the limits": leaves & (
            (seen["bid_quantity"] + seen["ask_quantity"]) * c.reference_lot_value > c.room_gross) & (
            (seen["bid_quantity"] > 0) & (c.position >= 0) | (seen["ask_quantity"] > 0) & (c.position <= 0)),
    }
    for side, sign, cap, best in (("bid", 1, c.max_long_lots, c.best_ask), ("ask", -1, c.max_short_lots, c.best_bid)):
        px, lots = seen[f"{side}_ticks"], seen[f"{side}_quantity"]
        quoted = leaves & (lots > 0)
        repeated = ((getattr(c, f"{side}_live") != 0) & (px == getattr(c, f"live_{side}_px"))
                    & (lots == getattr(c, f"live_{side}_lots")))
        new = quoted & ~repeated & (lots == c.quote_lots) & (seen["clamped"] == 0)
        worst = sign * c.position + ((getattr(c, f"sent_{side}") - getattr(c, f"settled_{side}")) & U32) + lots
        distance = abs(px - c.reference_value)
        found |= {
            f"{side}: within the hard band, and never at zero unless that spans it": quoted & (
                (px < c.px_min_ticks) | (px > c.px_max_ticks)
                | ((px == 0) & ~((c.px_min_ticks < 0) & (c.px_max_ticks > 0)))),
            f"{side}: no further from the reference than the collar": quoted & (
                (c.reference_known == 0) | (distance * BAND > c.reference_value * (c.bands & 0xFFFF))),
            f"{side}: no more lots than max_lots, no more notional than max_notional": new & (
                (lots > c.max_lots) | (abs(px) * lots > (c.max_notional_hi << 32 | c.max_notional_lo))),
            f"{side}: never at or beyond the other side of the book": new & (
                sign * px * (256 << 16) >= sign * 2 * best * c.ref_scale),
            f"{side}: worst-case exposure within the cap": quoted & (worst > cap),
            f"{side}: in REDUCING, nothing that could turn the position": quoted & (c.state == REDUCING) & (worst > 0),
            f"{side}: while the reference drifts, nothing that could turn the position": quoted & (
                (getattr(c, f"held_{side}") >> HOLDING.index(25) & 1) != 0) & (worst > 0),
            f"{side}: without equity, nothing that could turn the position": quoted & (c.equity_ok == 0) & (worst > 0),
            f"{side}: what leaves fits into what open bids and asks leave of theirs": quoted & (
                lots * c.reference_lot_value > getattr(c, f"room_{side}")),
            f"{side}: enabled, and its position known": quoted & (
                (c.sym_en == 0) | (getattr(c, f"{side}_en") == 0) | (c.position_known == 0)),
        }
    return found


def overexposed(lanes, before):
    """Promises about the state of lanes after a step, as :func:`broken`; ``before``: their exposures before it."""
    c, found = lanes.cases, {}
    for (side, exposure), cap in zip(before.items(), (c["max_long_lots"], c["max_short_lots"]), strict=True):
        now = lanes.exposure(side)
        found[f"{side}: exposure grows to no more than the cap"] = now > np.maximum(cap, exposure)
        found[f"{side}: with caps that stand, exposure never exceeds them"] = lanes.steady & (now > cap)
    found["bid and ask that stand never meet"] = ((c["bid_live"] != 0) & (c["ask_live"] != 0)
                                                  & (c["live_bid_px"] >= c["live_ask_px"]))
    return found

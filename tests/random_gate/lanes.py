"""Random cases in sequences: a lane is an instrument whose state lives on from one case to the next.

What leaves becomes what is live; between two cases the venue fills, also what has been replaced or taken away
meanwhile, and the host settles what is done, in any order. Everything is drawn around values at which something is
decided.
"""

import numpy as np

from hdl.control.registers import ACTIVE, DISARMED, HALTED, REDUCING, TICK_BITS, TICK_LIMIT
from hdl.gate.holds import HOLDING
from hdl.quote.engine import ASK_PX, ASK_SECOND, BID_PX, BID_SECOND
from tests.hdl.quote.chain import ROW
from tests.random_gate.model import BAND, CASE, U32, columns, views
from tests.random_gate.verilated import SEEN

__all__ = ["Lanes"]

I32 = -(1 << 31), (1 << 31) - 1
TICKS = -TICK_LIMIT, TICK_LIMIT - 1
LOTS = (1 << 24) - 1
#: The most that limits of money can leave.
ROOM = 0xFFFF_FFFF << 8
SIDES = ("bid", 1), ("ask", -1)
CAPS = "max_long_lots", "max_short_lots"
#: What the host writes, and rarely.
OF_THE_HOST = (*ROW, "stale_cycles", "reference_known", "reference_value", "reference_local", "reference_basis",
               "reference_lot_value")
PRICES = "best_bid", "second_bid", "best_ask", "second_ask", "entry_px"


class Lanes:
    """``n`` instruments side by side.

    Parameters
    ----------
    rng : numpy.random.Generator.
    n : number of lanes.

    Attributes
    ----------
    steady : array of bool: lanes whose caps never change and whose state comes of nothing but what has left and what
        has happened since, so that worst-case exposure may not exceed the caps at any time. In the other half
        anything is drawn anew now and then.
    cases : array of CASE, those that :meth:`step` has drawn last.
    happened : counts of what has happened between cases, by name.
    """

    def __init__(self, rng, n):
        self.rng, self.n, self._aside = rng, n, rng.spawn(1)[0]     # what is drawn aside moves nothing else
        self.steady = np.arange(n) < n // 2
        self.cases = np.zeros(n, CASE)
        self.happened = dict.fromkeys(("fill", "late fill", "settled", "gone", "mass cancel", "new session"), 0)
        self.position = np.zeros(n, np.int64)
        state = self.cases
        for name, _ in SIDES:
            state[f"sent_{name}"] = state[f"settled_{name}"] = rng.integers(0, 1 << 32, n)
        for cap in CAPS:
            state[cap] = self._any(5, 20, 200, 205, 500, 1000, 10_000, I32[1], rng.integers(0, 60, n))
        self._first, self._cornered = True, np.zeros(n, bool)

    # ---------------------------------------------------------------------------------------------------- what is drawn

    def _any(self, *options):
        """One of the options for each lane, each as likely; an option is a number or an array."""
        return np.choose(self.rng.integers(0, len(options), self.n), [np.asarray(o, np.int64) for o in options])

    def _chance(self, p):
        return self.rng.random(self.n) < p

    def _pick(self, good, *bad, p=.03):
        """``good``, with a chance of ``p`` one of the others, which in wild cases is .3."""
        return np.where(self._chance(np.where(self._wild, .3, p)), self._any(*bad), good)

    def step(self):
        """The next case of every lane (``cases``, which is changed in place by the step after)."""
        self._wild = self._chance(.04)
        c = self.cases
        before = c.copy()
        if not self._first:
            self._happens()
        anew = self._chance(.08) & ~self.steady
        # The market goes elsewhere, and back from the end of the range at once; and the host with it.
        jumps = self._chance(.04) | self._cornered | self._first
        drawn = self._chance(.4) | anew | jumps     # a new row; else the market and the moment alone move on
        self._anew(anew)
        c["position"] = np.where(c["position_known"], self.position, 0)     # as the path has it
        self._market(jumps)
        self._row()
        self._moment()
        self._around(anew)
        for name in OF_THE_HOST:
            c[name] = np.where(drawn & ~(self.steady & np.isin(name, CAPS)), c[name], before[name])
        self._first = False
        return c

    def _market(self, jumps):
        """The book moves on, comes to be as one of the hypotheses had it, or is another one altogether."""
        c, any_, pick = self.cases, self._any, self._pick
        mid = pick(any_(15000, 15000, 15000, 200), -300, 0, 1, 2, TICKS[1] - 4000, TICKS[1] - 2, TICKS[0] + 4000,
                   self.rng.integers(*TICKS, self.n), p=.1)
        came = self.rng.integers(0, 10, self.n)     # the first five: a hypothesis that comes true
        known, best, ask_known, ask = (c[name].copy() for name in ("bid_known", "best_bid", "ask_known", "best_ask"))
        known = np.where(came == BID_PX, 1, np.where(came == BID_SECOND, c["second_bid_known"], known))
        best = np.where(came == BID_PX, c["entry_px"], np.where(came == BID_SECOND, c["second_bid"], best))
        ask_known = np.where(came == ASK_PX, 1, np.where(came == ASK_SECOND, c["second_ask_known"], ask_known))
        ask = np.where(came == ASK_PX, c["entry_px"], np.where(came == ASK_SECOND, c["second_ask"], ask))
        # Mostly not into a book that is crossed, unknown or wide: nothing would ever be live.
        dull = (known == 0) | (ask_known == 0) | (ask - best > 50) | ((ask <= best) & self._chance(.9))
        walks = (came >= 5) | jumps | dull
        bid = np.where(jumps, mid, c["best_bid"]) + self.rng.integers(-3, 3, self.n)
        c["best_bid"] = np.where(walks, bid, best)
        c["best_ask"] = np.where(walks, bid + pick(any_(1, 2, 5), 0, -1), ask)
        c["bid_known"] = np.where(walks, pick(1, 0, p=.02), known)
        c["ask_known"] = np.where(walks, pick(1, 0, p=.02), ask_known)
        for name, sign in SIDES:
            c[f"second_{name}_known"] = pick(1, 0)
            c[f"second_{name}"] = c[f"best_{name}"] - sign * pick(any_(1, 2, 7), 0, -3)
        c["entry_px"] = any_(c["best_bid"], c["best_ask"], c["best_bid"] + 1) + any_(-3, -1, 0, 1, 2, 3)
        self._cornered = corners = self._wild & self._chance(.4)
        for name in PRICES:
            corner = any_(*TICKS, TICKS[0] + 1, TICKS[1] - 1, 0, 1, -1, self.rng.integers(*TICKS, self.n))
            c[name] = np.clip(np.where(corners, corner, c[name]), *TICKS)
        c["fresh"] = pick(1, 0, p=.015)

    def _row(self):
        c, any_, pick = self.cases, self._any, self._pick
        closing = np.clip(abs(self.position), 1, LOTS)
        q = pick(any_(1, 5, 5, 100, closing), 0, LOTS, p=.015)
        c["sym_en"], c["bid_en"], c["ask_en"], c["stale_cycles"] = (pick(1, 0, p=p) for p in (.015, .03, .03, .015))
        c["ref_scale"] = pick(1 << 23, 1 << 22, 12345678, U32, 0, 1)
        c["half_spread_sub"] = pick(any_(1, 128, 256, 300, 5000), 0, LOTS, p=.015)
        c["skew_q8"] = any_(0, 256, 100, 65536, pick(0, LOTS))
        c["skew_max_sub"] = any_(0, 256, 2560, I32[1])
        c["target_lots"] = pick(self.rng.integers(-20, 20, self.n), *I32)
        c["quote_lots"], c["q_min_lots"] = q, pick(0, q, q + 1 & LOTS)
        c["q_hard_lots"], c["max_lots"] = (pick(good, *bad) for good, *bad in (
            (LOTS, q, np.maximum(q - 1, 0)), (q, LOTS, np.maximum(q - 1, 0))))
        c["toward_ticks"], c["away_ticks"] = (any_(0, 1, 2, 4, pick(1, TICKS[1])) for _ in range(2))

    def _moment(self):
        c, any_, pick = self.cases, self._any, self._pick
        c["state"] = pick(any_(*[ACTIVE] * 11, REDUCING), DISARMED, HALTED, p=.02)
        for name, bad, p in (("kill_pin", 1, .02), ("heartbeat_ok", 0, .02), ("limits_ok", 0, .01),
                             ("equity_ok", 0, .03), ("session_up", 0, .02)):
            c[name] = pick(1 - bad, bad, p=p)
        for name, p in (("held_bid", .04), ("held_ask", .04), ("off", .03)):
            c[name] = pick(0, any_(*(1 << n for n in range(len(HOLDING))), (1 << len(HOLDING)) - 1), p=p)
        drift = 1 << HOLDING.index(25)      # a word on both sides
        c["held_ask"] = c["held_ask"] & ~drift | c["held_bid"] & drift
        c["drift_band"] = np.where(self._aside.random(self.n) < .01, 0, self._aside.choice((1, 0xFFFF), self.n))
        c["bid_young"], c["ask_young"] = (self._aside.random(self.n) < .1 for _ in range(2))
        c["session_burst"] = any_(100, 100, 103, 0)
        quarter = c["session_burst"] // 4
        c["session_tokens"] = any_(90, 90, 90, 90, quarter + 1, quarter, 0)
        c["symbol_tokens"] = pick(5, 0, 1)
        c["live_elsewhere"] = any_(0, 3, 20)
        would_be = c["live_elsewhere"] + c["bid_en"] + c["ask_en"]
        c["live_most"] = pick(1023, would_be, would_be - 1 & 1023, would_be + 1, 0, p=.1)

    def _around(self, anew):
        """Limits, thresholds and references around what one of the hypotheses would quote, and around what is open."""
        c, any_, pick = self.cases, self._any, self._pick
        view = columns(c)
        q, of = c["quote_lots"], pick(0, 1, 2, 3, 4, p=.3)
        found = [views(view, h) for h in range(5)]
        target = {name: np.choose(of, [v[n].px for v in found]) for n, name in ((1, "bid"), (2, "ask"))}
        mid = np.choose(of, [v[0].mid for v in found])
        near = np.clip(any_(target["bid"], target["ask"]), *TICKS)
        behind = np.where(anew, any_(0, 0, 0, 0, -12, 12), 0)     # the market has left both sides behind
        for (name, _), side, cap in zip(SIDES, found[0][1:], CAPS, strict=True):
            worst = side.held + side.open + side.most
            c[cap] = np.clip(pick(I32[1], worst, worst - 1, 0, p=.15), 0, I32[1])
            # Where it is drawn anew, what is live is near its target as well.
            placed = pick(_wrapped(target[name] + behind + any_(0, 0, 1, -1, 2, -2, -3, 4, -4)), 0, *TICKS)
            c[f"live_{name}_px"] = np.where(anew, placed, c[f"live_{name}_px"])
            c[f"live_{name}_lots"] = np.where(anew, np.maximum(pick(q, 7), 1), c[f"live_{name}_lots"])
        # Nothing that leaves meets what stands, so a quote that was met has never been live.
        meets = anew & (c["live_bid_px"] >= c["live_ask_px"])
        c["ask_live"] = np.where(meets, 0, c["ask_live"])
        c["px_min_ticks"] = np.clip(pick(TICKS[0], near, near + 1, near - 1, 1, 0, -1, *TICKS, p=.07), *TICKS)
        c["px_max_ticks"] = np.clip(pick(TICKS[1], near, near + 1, near - 1, -1, 0, 1, *TICKS, p=.07), *TICKS)
        c["px_min_ticks"] = np.where(behind < 0, np.clip(target["bid"], *TICKS), c["px_min_ticks"])
        c["px_max_ticks"] = np.where(behind > 0, np.clip(target["ask"], *TICKS), c["px_max_ticks"])
        c["symbol_tokens"] = np.where(behind, 0, c["symbol_tokens"])
        bound = np.clip(pick(TICKS[1], abs(near), abs(near) - 1, abs(near) + 1, 1, 0, p=.08), 0, TICKS[1])
        notional = pick((1 << 48) - 1, bound * q, np.maximum(bound * q - 1, 0), bound * q + 1, 0, p=.08)
        c["px_notional_ticks"], c["max_notional_hi"], c["max_notional_lo"] = bound, notional >> 32, notional & U32
        collar = pick(any_(0xFFFF, 0xFFFF, 0xFFFF, 655, 655, 66), 1, 0, p=.015)
        pull = pick(any_(0xFFFF, 655), 1, 0, p=.015)
        c["bands"] = pull * BAND + collar
        c["reference_known"] = pick(1, 0, p=.02)
        basis = any_(0, 0, 0, 1, -1, 5, any_(*TICKS))
        c["reference_value"] = self._reference(any_(mid, mid, target["bid"], target["ask"]), collar)
        c["reference_local"] = self._reference(mid, pull)
        c["reference_basis"] = np.where(
            self._wild, basis, any_(0, 0, 1, -1, np.clip(mid - c["reference_local"], -5, 5)))
        c["reference_lot_value"] = value = pick(any_(1, 256, 100_000, U32), 0, p=.01)
        lots = np.maximum(q, np.maximum(np.where(c["bid_live"], c["live_bid_lots"], 0),
                                        np.where(c["ask_live"], c["live_ask_lots"], 0)))
        for name, need in (("gross", 2 * lots * value), ("bid", lots * value), ("ask", lots * value)):
            room = pick(ROOM, need, need - 1, need + 1, 0, -1, p=.05)
            c[f"room_{name}"] = np.clip(room, -1 << 49, ROOM)

    def _reference(self, px, band):
        """A reference of which a price is as far as the band allows, or a tick more; mostly just near it."""
        lower, upper = px * BAND // (BAND + band), px * BAND // np.maximum(BAND - band, 1)
        edge = self._any(lower, upper) + self._any(-1, 0, 1)
        return np.clip(np.where(self._chance(.12), edge, px + self._any(0, 0, 1, -1)), 0, TICKS[1])

    # ------------------------------------------------------------------------------------------------- what happens

    def follow(self, seen):
        """What has left is live from now on, and counts until it is settled. ``seen``: array of SEEN."""
        if seen.dtype != SEEN:
            raise TypeError(f"results have the fields {seen.dtype.names}, must have {SEEN.names}")
        c, left = self.cases, seen["emit"] != 0
        for name, _ in SIDES:
            lots = np.where(left, seen[f"{name}_quantity"], 0)
            c[f"sent_{name}"] = (c[f"sent_{name}"] + lots) & U32
            c[f"{name}_live"] = np.where(left, lots > 0, c[f"{name}_live"])
            c[f"live_{name}_px"] = np.where(left, seen[f"{name}_ticks"], c[f"live_{name}_px"])
            c[f"live_{name}_lots"] = np.where(left, lots, c[f"live_{name}_lots"])

    def open(self, name):
        """Lots of a side that were sent and are not settled."""
        return (self.cases[f"sent_{name}"] - self.cases[f"settled_{name}"]) & U32

    def exposure(self, name):
        """Position in the direction of a side if everything that is open trades."""
        return (self.position if name == "bid" else -self.position) + self.open(name)

    def _happens(self):
        """Fills, settlements and cancels, of each lane and side in any combination."""
        c, rng = self.cases, self.rng
        for name, sign in SIDES if rng.integers(2) else SIDES[::-1]:
            # Also of what was replaced or taken away: it traded before the venue heard of that.
            lots = np.minimum(self.open(name), self._any(1, 2, 5, 100, self.open(name)))
            lots = np.where(self._chance(.3), np.minimum(lots, LOTS), 0)
            room = np.where(sign > 0, I32[1] - self.position, self.position - I32[0])
            lots = np.minimum(lots, room)
            self.position += sign * lots
            c[f"settled_{name}"] = (c[f"settled_{name}"] + lots) & U32
            self.happened["fill"] += int(np.count_nonzero(lots))
            self.happened["late fill"] += int(np.count_nonzero((lots > 0) & (c[f"{name}_live"] == 0)))
            # A live side that has traded in full is gone, if the host knows which quote that was.
            gone = (lots > 0) & (c[f"{name}_live"] != 0) & self._chance(.3)
            c[f"{name}_live"] = np.where(gone, 0, c[f"{name}_live"])
            self.happened["gone"] += int(np.count_nonzero(gone))
            # What is not live is acknowledged as gone, at once or bit by bit.
            rest = np.maximum(self.open(name) - np.where(c[f"{name}_live"], c[f"live_{name}_lots"], 0), 0)
            settled = np.where(self._chance(.7), np.minimum(rest, self._any(1, 3, rest, rest, rest)), 0)
            c[f"settled_{name}"] = (c[f"settled_{name}"] + settled) & U32
            self.happened["settled"] += int(np.count_nonzero(settled))
        cancelled = self._chance(.01)
        c["bid_live"], c["ask_live"] = (np.where(cancelled, 0, c[f"{name}_live"]) for name, _ in SIDES)
        self.happened["mass cancel"] += int(np.count_nonzero(cancelled))
        # A new session: the venue has cancelled everything, and the host says later what the position is.
        new = self._chance(.01)
        for name, _ in SIDES:
            for what in (f"sent_{name}", f"settled_{name}", f"{name}_live"):
                c[what] = np.where(new, 0, c[what])
        c["position_known"] = np.where(new, 0, c["position_known"] | self._chance(.5))
        self.happened["new session"] += int(np.count_nonzero(new))

    def _anew(self, lanes):
        """Any state there may be, in these lanes. The others go on; before the first case nothing was quoted."""
        c, any_ = self.cases, self._any
        rng, n = self.rng, self.n
        if self._first:
            c["position_known"] = 1
        position = any_(0, 10, -10, rng.integers(-30, 30, n), np.where(self._wild, any_(*I32), 0))
        self.position = np.where(lanes, position, self.position)
        c["position_known"] = np.where(lanes, self._pick(1, 0, p=.02), c["position_known"])
        base = rng.integers(0, 1 << 32, n)
        for name, _ in SIDES:
            lots = any_(0, 1, 5, 100, 200, rng.integers(0, 40, n), np.where(self._wild, U32, 0))
            c[f"settled_{name}"] = np.where(lanes, base, c[f"settled_{name}"])
            c[f"sent_{name}"] = np.where(lanes, base + lots & U32, c[f"sent_{name}"])
            c[f"{name}_live"] = np.where(lanes, self._chance(.8), c[f"{name}_live"])
            c[f"live_{name}_lots"] = np.where(lanes, 1, c[f"live_{name}_lots"])


def _wrapped(ticks):
    """As many ticks as a register would keep."""
    return (ticks + TICK_LIMIT) % (1 << TICK_BITS) - TICK_LIMIT

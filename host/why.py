"""Why a decision did not quote: every gate that failed, in words, with the values that it compared.

The values are those of the Decision record, of the parameter row that was active when the record came, and of the
positions as the host knew them then. What the host does not know at that moment is said to be so, with the register or
counter that tells it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from hdl.control import registers as regmap
from hdl.gate.holds import LIMITS as HOLDS

from . import link, params
from .limits import named

SECOND = 1_000_000_000
_FLAGS = {name: 1 << bit for name, bit in link.SCHEMA.sets["DecisionFlags"].items()}


@dataclass(frozen=True, slots=True)
class Blocked:
    """A decision that a gate had something to say about, and what was known when its record came.

    ``instrument`` and ``risk`` : as configured then. ``row`` : words of the active parameter row. ``risk_words`` : the
    card's registers by name. ``open_bid``, ``open_ask`` : lots that may still trade, before this decision. ``live`` :
    (bid ticks, bid lots, ask ticks, ask lots) that the venue was last told before it. ``causes`` : of a halt.
    ``session`` : state of the order session. ``tokens`` : of the session's bucket as last read, or ``None``.
    ``reference`` : (value, local, basis) in ticks as the card was last told, and how many ms before; or ``None``.
    ``live_elsewhere`` : live sides of the other instruments. ``gross``, ``open_bids``, ``open_asks`` : what positions
    and open quotes of all instruments were worth, ``lot_value`` : what the card was last told that a lot of this one
    is, in 1/256 of the unit of money; ``equity`` : units of money that it was last told, or ``None``.
    """

    time_ns: int
    decision: link.Decision
    instrument: object
    row: tuple
    risk_words: dict
    open_bid: int
    open_ask: int
    live: tuple
    causes: tuple
    session: str
    tokens: int | None
    reference: tuple | None = None
    live_elsewhere: int = 0
    gross: int = 0
    open_bids: int = 0
    open_asks: int = 0
    lot_value: int = 0
    equity: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: ``side`` (``"bid"``, ``"ask"`` or ``""`` for both), in words, whether it ``failed``; and if two
    numbers were compared, ``value`` with ``limit``, whose name is ``limit_name``, in ``unit``."""

    side: str
    text: str
    failed: bool
    value: int | None = None
    limit: int | None = None
    limit_name: str = ""
    unit: str = ""

    def as_dict(self):
        """Plain data."""
        return {"side": self.side, "text": self.text, "failed": self.failed, "value": self.value, "limit": self.limit,
                "limit_name": self.limit_name, "unit": self.unit}


class _Side:
    """One side of a decision: what the engine wanted, what may trade already, and its limits in the direction of it."""

    def __init__(self, name, b, w):
        d, bid = b.decision, name == "bid"
        self.name, self.passed = name, bool(d.flags & _FLAGS[f"{name}SideOk"])
        self.ticks = d.candidate_bid_ticks if bid else d.candidate_ask_ticks
        bid_ticks, bid_lots, ask_ticks, ask_lots = b.live
        self.live_ticks, self.live_lots = (bid_ticks, bid_lots) if bid else (ask_ticks, ask_lots)
        self.open = b.open_bid if bid else b.open_ask
        self.held = d.position_lots if bid else -d.position_lots
        self.enabled = w[f"{name}_en"]
        self.cap_name = "max_long" if bid else "max_short"
        self.cap = w[f"{self.cap_name}_lots"]
        self.direction, self.against = ("long", "short") if bid else ("short", "long")
        #: What is live may be repeated in place of the new quantity.
        self.lots = max(w["quote_lots"], self.live_lots)

    @property
    def held_text(self):
        if self.held < 0:
            return f"{self.held} ({self.against})"
        return f"{self.direction} {self.held}"


class _Case:
    """What the explanations of the gates are made of: the record ``d``, the row ``w`` by name, the sides that did not
    pass."""

    def __init__(self, blocked):
        self.b, self.d, self.i, self.w = blocked, blocked.decision, blocked.instrument, named(blocked.row)
        self.risk = blocked.risk_words
        self.sides = [_Side(name, blocked, self.w) for name in ("bid", "ask")]

        self.collar, self.pull = self.w["bands"] & (1 << regmap.BAND_BITS) - 1, self.w["bands"] >> regmap.BAND_BITS

    @property
    def mid(self):
        """Of the feed, in 1/256 quote ticks."""
        return (self.d.best_bid_ticks + self.d.best_ask_ticks) * self.w["ref_scale"] >> 16

    @property
    def failing(self):
        """Sides that did not pass; both where the record says of both that they did (it was held back as a whole)."""
        return [s for s in self.sides if not s.passed] or self.sides

    def price(self, ticks):
        """A price of ours for people."""
        return f"{params.plain(ticks * Fraction(self.i.tick))} ({ticks} ticks)"

    def money(self, tick_lots):
        """Price times quantity for people."""
        return f"{params.plain(tick_lots * Fraction(self.i.tick) * Fraction(self.i.lot))} ({tick_lots} tick-lots)"


def _lots(count):
    return f"{count} lots"


def _time(cycles):
    return f"{params.plain(Fraction(cycles * 1000, params.CLOCK_HZ))} ms ({cycles} cycles)"


def _at_most(side, what, value, name, limit, unit, show=str):
    failed = value > limit
    return Finding(side, f"{what} {show(value)} {'>' if failed else '<='} {name} {show(limit)}", failed, value, limit,
                   name, unit)


def _at_least(side, what, value, name, limit, unit, show=str):
    failed = value < limit
    return Finding(side, f"{what} {show(value)} {'<' if failed else '>='} {name} {show(limit)}", failed, value, limit,
                   name, unit)


def _must(what, ok, wanted, side=""):
    return Finding(side, what if ok else f"{what}: {wanted}", not ok)


# -- the gates --------------------------------------------------------------------------------------------------------

def _state(c):
    state = c.d.state
    yield _must(f"state {regmap.STATES[state & 3]}", state in (regmap.ACTIVE, regmap.REDUCING),
                "must be ACTIVE or REDUCING; t2q arm")
    if state == regmap.REDUCING:
        for s in c.failing:
            yield Finding(s.name, f"while REDUCING {s.name}s must take a {s.against} position towards zero: "
                          f"{s.held_text}, open {s.name}s {s.open} + {s.lots} lots", not (
                              s.held < 0 and s.open + s.lots <= -s.held), s.open + s.lots, max(0, -s.held),
                          "position to be reduced", "lots")


def _deadman(c):
    limit = c.risk["deadman_cycles"]
    yield Finding("", f"no heartbeat of the host within deadman_ms {_time(limit)}" + ("" if limit else ": 0 blocks"),
                  True)


def _integrity(c):
    yield Finding("", "no limits were in force: no commit has been right since reset", True)


def _permission(c):
    yield _must(f"enabled = {bool(c.w['sym_en'])}".lower(), c.w["sym_en"], "the instrument must be enabled")
    for s in c.failing:
        yield _must(f"{s.name}_enabled = {bool(s.enabled)}".lower(), s.enabled, "this side must be enabled", s.name)


def _data(c):
    d, known = c.d, True
    for s, best in zip(c.sides, (d.best_bid_ticks, d.best_ask_ticks), strict=True):
        if not d.flags & _FLAGS[f"{s.name}Known"]:
            known = False
            yield Finding(s.name, f"best {s.name} of the book is unknown", True, best)
    bid, ask = (params.plain(t * Fraction(c.i.feed_tick)) for t in (d.best_bid_ticks, d.best_ask_ticks))
    if known:
        failed = d.best_bid_ticks >= d.best_ask_ticks
        yield Finding("", f"best bid {bid} {'>=' if failed else '<'} best ask {ask} of the feed" +
                      (": crossed" if failed else ""), failed, d.best_bid_ticks, d.best_ask_ticks, "best ask",
                      "feed ticks")
    yield _must(f"stale_ms {_time(c.w['stale_cycles'])}", c.w["stale_cycles"], "0 blocks")


def _sanity(c):
    w = c.w
    yield _at_least("", "quantity", w["quote_lots"], "min_quantity", max(1, w["q_min_lots"]), "lots", _lots)
    yield _at_most("", "quantity", w["quote_lots"], "hard_quantity", w["q_hard_lots"], "lots", _lots)
    yield _must(f"half spread {params.plain(Fraction(w['half_spread_sub'], params.SUB))} ticks", w["half_spread_sub"],
                "0 blocks")
    spans = w["px_min_ticks"] < 0 < w["px_max_ticks"]
    for s in c.failing:
        yield _at_least(s.name, "price", s.ticks, "min_price", w["px_min_ticks"], "ticks", c.price)
        yield _at_most(s.name, "price", s.ticks, "max_price", w["px_max_ticks"], "ticks", c.price)
        if not s.ticks and not spans:
            yield Finding(s.name, "price 0, which is none unless min_price < 0 < max_price", True, 0)


def _max_quantity(c):
    yield _at_most("", "quantity", c.w["quote_lots"], "max_quantity", c.w["max_lots"], "lots", _lots)


def _max_notional(c):
    w, q = c.w, c.w["quote_lots"]
    most = w["max_notional_hi"] << 32 | w["max_notional_lo"]
    for s in c.failing:
        yield _at_most(s.name, f"|price| {c.price(s.ticks)} x {q} lots =", abs(s.ticks) * q, "max_notional", most,
                       "tick-lots", c.money)
        yield _at_most(s.name, "|price|", abs(s.ticks), "price that max_notional allows", w["px_notional_ticks"],
                       "ticks", c.price)
    yield _must(f"price that max_notional allows: {c.price(w['px_notional_ticks'])}", w["px_notional_ticks"],
                "0 blocks")
    yield _at_most("", "that price x quantity =", w["px_notional_ticks"] * q, "max_notional", most, "tick-lots",
                   c.money)


def _position(c):
    for s in c.failing:
        worst = s.held + s.open + s.lots
        failed = worst > s.cap
        yield Finding(s.name, f"{s.held_text} + open {s.name}s {s.open} + {s.lots} lots = {worst} "
                      f"{'>' if failed else '<='} {s.cap_name} {s.cap} lots", failed, worst, s.cap, s.cap_name, "lots")


def _rate(c):
    burst = c.risk["session_burst"]
    reserve = burst >> 2
    if c.b.tokens is not None:
        yield Finding("", f"session's bucket as last read: {c.b.tokens} of {burst} tokens, of which {reserve} are kept "
                      f"for cancels", c.b.tokens <= reserve, c.b.tokens, reserve, "kept for cancels", "tokens")
    for what in ("session", "symbol"):
        interval = c.risk[f"{what}_interval"]
        rate = params.plain(Fraction(params.CLOCK_HZ, interval)) if interval else "0"
        yield _must(f"{what}_burst {c.risk[f'{what}_burst']} tokens, refilled by {rate} a second",
                    interval and c.risk[f"{what}_burst"], "0 blocks")


def _kill(c):
    yield _must(f"state {regmap.STATES[c.d.state & 3]}", c.d.state != regmap.HALTED,
                f"halted by {', '.join(c.b.causes) or 'a cause that the host has not been told yet'}; find out why, "
                f"then t2q arm --clear-halt")


def _session(c):
    yield Finding("", f"the card has no established order session; the host's is {c.b.session}", True)


def _referred(c):
    """Whether there is a reference, as findings; the gates that need one begin with it."""
    if c.b.reference is None:
        yield Finding("", "no reference price: none was ever told", True)
        return
    *_, age = c.b.reference
    limit = Fraction(c.risk["ref_cycles"] * 1000, params.CLOCK_HZ)
    yield Finding("", f"the reference is {params.plain(age)} ms old, reference_ms {params.plain(limit)} (it may end at "
                  f"half of that)", age > limit)
    for share, name in ((c.collar, "collar_bps"), (c.pull, "pull_bps")):
        yield _must(f"{name} {params.plain(Fraction(share * 10_000, 1 << regmap.BAND_BITS))}", share, "0 blocks")


def _collar(c):
    yield from _referred(c)
    if c.b.reference is not None:
        value = c.b.reference[0]
        distance = value * c.collar >> regmap.BAND_BITS
        for s in c.failing:
            yield _at_least(s.name, "price", s.ticks, f"reference {c.price(value)} less collar_bps", value - distance,
                            "ticks", c.price)
            yield _at_most(s.name, "price", s.ticks, f"reference {c.price(value)} and collar_bps", value + distance,
                           "ticks", c.price)


def _basis(c):
    yield from _referred(c)
    if c.b.reference is not None:
        _, local, basis, _ = c.b.reference
        distance, mid = local * c.pull >> regmap.BAND_BITS, c.mid >> 8
        fair, around = local + basis, f"local price {c.price(local)} and basis {c.price(basis)}"
        yield _at_least("", "mid of the feed", mid, f"{around} less pull_bps", fair - distance, "ticks", c.price)
        yield _at_most("", "mid of the feed", mid, f"{around} and pull_bps", fair + distance - 1, "ticks", c.price)


def _post_only(c):
    d, w = c.d, c.w
    room = (d.best_ask_ticks - d.best_bid_ticks) * w["ref_scale"] >> 16
    skew = (d.position_lots - w["target_lots"]) * w["skew_q8"] >> 8
    skew = max(-w["skew_max_sub"], min(w["skew_max_sub"], skew))
    side, leans = ("bid", "up") if skew < 0 else ("ask", "down")
    edge = abs(skew) - w["half_spread_sub"]
    wide, moved, half = (params.plain(Fraction(sub, params.SUB)) for sub in (room, abs(skew), w["half_spread_sub"]))
    takes = room <= edge
    yield Finding(side, f"the book is {wide} ticks wide, the skew leans {leans} by {moved}, half spread {half}: the "
                  f"{side} would {'reach' if takes else 'not reach'} the other side", takes, room, edge,
                  "skew less half spread", "1/256 ticks")


def _self_trade(c):
    yield Finding("", "bid and ask of the frame would have met at one end of the window; both left with 0 lots", True)


def _in_units(word):
    """An amount in 1/256 of the unit of money, for people."""
    return params.plain(Fraction(word, params.LOT_VALUE_SCALE))


def _valued(c):
    """Whether the card knows what a lot is worth, as findings."""
    yield _must(f"a lot of {c.i.name} is worth {_in_units(c.b.lot_value)}", c.b.lot_value,
                "the card was not told what it is worth, which blocks")


def _leaving(c):
    """(lots, worth) of the most that either side may say."""
    lots = max(s.lots for s in c.sides)
    return lots, lots * c.b.lot_value


def _equity(c):
    findings = [_must(f"{key}: {name} = {c.risk[name]}", c.risk[name], "0 blocks") for name, key in (
        ("loss_most", "max_loss"), ("drawdown_most", "max_drawdown"), ("equity_cycles", "equity_ms"),
        ("gross_most", "max_gross"), ("leverage_most", "max_leverage"))]
    findings += _valued(c)
    (lots, worth), scale = _leaving(c), params.LOT_VALUE_SCALE
    what = f"positions and open quotes of all instruments {_in_units(c.b.gross)} + 2 x {lots} lots ="
    findings.append(_at_most("", what, c.b.gross + 2 * worth, "max_gross", c.risk["gross_most"] * scale,
                             "1/256 units of money", _in_units))
    if c.b.equity is not None:
        leverage = Fraction(c.risk["leverage_most"], params.LEVERAGE_SCALE)
        findings.append(_at_most("", what, c.b.gross + 2 * worth, f"max_leverage {params.plain(leverage)} x equity "
                                 f"{c.b.equity} =", int(max(0, c.b.equity) * leverage * scale), "1/256 units of money",
                                 _in_units))
    # Its age is not known here: if nothing else was wrong, that was.
    findings.append(Finding("", f"equity was not told within equity_ms {_time(c.risk['equity_cycles'])}, so that only "
                            f"what reduces a position goes", not any(f.failed for f in findings)))
    yield from findings


def _load(c):
    wanted = c.w["bid_en"] + c.w["ask_en"]
    yield _at_most("", f"live sides elsewhere {c.b.live_elsewhere} + {wanted} here =", c.b.live_elsewhere + wanted,
                   "max_live_sides", c.risk["live_most"], "sides")
    yield from _valued(c)
    lots, worth = _leaving(c)
    for s, open_ in zip(c.sides, (c.b.open_bids, c.b.open_asks), strict=True):
        if s in c.failing:
            yield _at_most(s.name, f"open {s.name}s of all instruments {_in_units(open_)} + {lots} lots =",
                           open_ + worth, "max_open_notional", c.risk["open_most"] * params.LOT_VALUE_SCALE,
                           "1/256 units of money", _in_units)


def _holds(what, *names):
    """A gate that holds: ``what`` is too much, in terms of the limits by register name."""
    def findings(c):
        zero = [name for name in names if not c.risk[name]]
        yield Finding("", f"{', '.join(zero)} must not be 0: 0 blocks" if zero else what(c), True)
    return findings


_duplicate = _holds(lambda c: f"{c.risk['duplicate_most']} equal quotes have left within duplicate_ms "
                    f"{_time(c.risk['duplicate_cycles'])}: held until t2q release", *HOLDS[15])
_fills = _holds(
    lambda c: f"more than {c.risk['fills_lots']} lots traded, or {c.risk['fills_delta']} lots bought less sold, or "
    f"{c.risk['fills_most']} fills within fills_ms {_time(c.risk['fills_cycles'])}: held " + (
        f"for freeze_ms {_time(c.risk['freeze_cycles'])}, or until t2q release" if c.risk["freeze_cycles"]
        else "until t2q release"), *HOLDS[17])
_repeats = _holds(lambda c: f"a side traded and was quoted again {c.risk['repeats_most']} times, and traded once more: "
                  f"held until t2q release", *HOLDS[18])
_refusals = _holds(lambda c: f"the exchange refused more than {c.risk['refusals_most']} sides within refusals_ms "
                   f"{_time(c.risk['refusals_cycles'])}: held until t2q release", *HOLDS[20])


def _life(c):
    """The sides that wait, as far as the host knows what stands."""
    waits, age = False, _time(c.risk["life_cycles"])
    for s in c.sides:
        nearer = s.ticks - s.live_ticks if s.name == "bid" else s.live_ticks - s.ticks
        if s.passed and s.live_lots and nearer > 0:
            waits = True
            yield Finding(s.name, f"the {s.name} at {c.price(s.live_ticks)} has not stood for life_ms {age}: it moves "
                          f"to {c.price(s.ticks)} when it has", True, nearer, 0, "towards the market", "ticks")
    if not waits:
        yield Finding("", f"a side that has not stood for life_ms {age} does not move towards the market yet", True)


def _drift(c):
    if not c.risk["drift_cycles"]:
        yield Finding("", "drift_cycles must not be 0: 0 blocks", True)
    if not c.w["drift_band"]:
        yield Finding("", "drift_bps 0: 0 blocks", True)
    if c.risk["drift_cycles"] and c.w["drift_band"]:
        band = params.plain(Fraction(c.w["drift_band"] * 10_000, 1 << regmap.BAND_BITS))
        now = "" if c.b.reference is None else f" {c.price(c.b.reference[0])}"
        yield Finding("", f"the reference{now} was further than drift_bps {band} from another one within drift_ms "
                      f"{_time(c.risk['drift_cycles'])}: only what reduces a position goes", True)
    for s in c.failing:
        yield Finding(s.name, f"{s.name}s may take a {s.against} position towards zero: {s.held_text}, open {s.name}s "
                      f"{s.open} + {s.lots} lots", not (s.held < 0 and s.open + s.lots <= -s.held), s.open + s.lots,
                      max(0, -s.held), "position to be reduced", "lots")


@dataclass(frozen=True, slots=True)
class _Gate:
    """How a gate is explained: ``findings`` of a case, and ``beyond``: what the host cannot know, and who tells it.
    ``partly``: the findings are never all of it."""

    findings: object
    beyond: str
    partly: bool = False


#: Explanations by number of the gate; every gate of the map has to have one.
EXPLAINED = {
    0: _Gate(_state, "register state has the present one"),
    1: _Gate(_deadman, "the age of the last heartbeat is not in the record; register heartbeat has the last number "
                       "written, halt_cause bit 2 says whether the dead-man halted", True),
    2: _Gate(_integrity, "register limits_valid says whether limits are in force, limits_hash which; counter "
                         "commits_refused has the commits that were wrong", True),
    3: _Gate(_permission, "t2q limits show has the permissions in force"),
    4: _Gate(_data, "whether the book was in mid-event or older than stale_ms is not in the record; counters "
                    "accepted_packets, events, gaps and poisoned_packets tell how the feed goes"),
    5: _Gate(_sanity, "a price beyond 24 bits of ticks fails too"),
    6: _Gate(_collar, "what the card knows of references may be a moment older than what the host does", True),
    7: _Gate(_post_only, "the book is the feed's; t2q limits show has spread and skew"),
    8: _Gate(_self_trade, "counter drop_g8 tells how often"),
    9: _Gate(_max_quantity, "t2q limits show has max_quantity"),
    10: _Gate(_max_notional, "t2q limits show has max_notional"),
    11: _Gate(_position, "the card counts what it has sent by itself, and may have sent what the host had not seen "
                         "yet; it also fails while the card has not been told a position (pos_commit)"),
    12: _Gate(_equity, "the age of what the card was told is not in the record, and what it counts as open may be more "
                       "than the host has seen; t2q status has the host's equity, register gross the card's sum", True),
    13: _Gate(_load, "registers live_bids and live_asks have the live sides of instruments 0 to 31, open_bids and "
                     "open_asks what the open quotes of all are worth", True),
    14: _Gate(_rate, "tokens at that very moment are not in the record; register session_tokens has the session's "
                     "present ones, an instrument's own are not readable", True),
    15: _Gate(_duplicate, "the quotes themselves are in the journal", True),
    16: _Gate(_life, "when a side was quoted anew is in the journal", True),
    17: _Gate(_fills, "the fills themselves are in the journal, whose limits are those of their time", True),
    18: _Gate(_repeats, "fills and quotes are in the journal; a release begins the count anew", True),
    20: _Gate(_refusals, "the refusals and their reasons are in the journal", True),
    22: _Gate(_kill, "register halt_cause tells the causes, the kill pin among them"),
    24: _Gate(_session, "register session_up tells"),
    25: _Gate(_drift, "the references of the window are in the card alone", True),
    26: _Gate(_basis, "what the card knows of references may be a moment older than what the host does", True),
}


def _any_gate(number):
    """Explanation of a gate that this table does not have: the limits that the map marks with its name."""
    name, _, blocks = regmap.GATES[number]

    def findings(c):
        for p in regmap.PARAMS:
            if p.doc.startswith(f"{name}:"):
                yield Finding("", f"{p.name} = {c.w[p.name]} ({p.doc.partition(': ')[2]})", True, c.w[p.name])
        for r in regmap.REGISTERS:
            if r.name in c.risk and r.doc.startswith(f"{name}"):
                yield Finding("", f"{r.name} = {c.risk[r.name]} ({r.doc})", True, c.risk[r.name])
    return _Gate(findings, f"it blocks if: {blocks}; counter drop_{name.lower()}")


def _reason(number, case):
    name, watches, blocks = regmap.GATES[number]
    gate = EXPLAINED.get(number) or _any_gate(number)
    findings = list(gate.findings(case))
    failed = [f for f in findings if f.failed]
    # If by the host's figures nothing fails, all of them are of interest, and so is what the host cannot see.
    return {"gate": name, "name": watches, "blocks_if": blocks, "counter": f"drop_{name.lower()}",
            "findings": [f.as_dict() for f in failed or findings], "known_to_host": bool(failed) and not gate.partly,
            "beyond": gate.beyond}


def explain(blocked):
    """A :class:`Blocked` as plain data: what was wanted, what stood, and every gate that failed."""
    case, d = _Case(blocked), blocked.decision
    tick = Fraction(case.i.tick)

    def priced(ticks, lots=None):
        out = {"ticks": ticks, "price": params.plain(ticks * tick)}
        return out if lots is None else {**out, "lots": lots}

    return {
        "time_ns": blocked.time_ns, "instrument": case.i.name, "outcome": link.OUTCOMES.get(d.outcome, str(d.outcome)),
        "state": regmap.STATES[d.state & 3], "direct": bool(d.flags & _FLAGS["direct"]), "quote_id": d.quote_id,
        "fire_cycle": d.fire_cycle, "feed_seq": d.feed_seq, "position_lots": d.position_lots,
        "lot": params.plain(case.i.lot), "quote_lots": case.w["quote_lots"],
        "best": {s.name: {"known": bool(d.flags & _FLAGS[f"{s.name}Known"]), "feed_ticks": best,
                          "price": params.plain(best * Fraction(case.i.feed_tick))}
                 for s, best in zip(case.sides, (d.best_bid_ticks, d.best_ask_ticks), strict=True)},
        "candidate": {s.name: priced(s.ticks) for s in case.sides},
        "sides": {s.name: {"passed": s.passed, "open_lots": s.open,
                           "live": priced(s.live_ticks, s.live_lots) if s.live_lots else None} for s in case.sides},
        "reasons": [_reason(g, case) for g in regmap.GATES if d.reasons >> g & 1],
    }


def _clock(time_ns):
    return f"{datetime.fromtimestamp(time_ns // SECOND, UTC):%Y-%m-%d %H:%M:%S}.{time_ns % SECOND:09d}Z"


def text(explained):
    """What :func:`explain` has found, for people: some lines."""
    e = explained
    out = [f"{_clock(e['time_ns'])}  {e['instrument']}  {e['outcome']} in state {e['state']}, feed packet "
           f"{e['feed_seq']}"]
    best = [f"{name} {side['price'] if side['known'] else 'unknown'}" for name, side in e["best"].items()]
    wanted = [f"{name} {side['price']} ({side['ticks']} ticks)" for name, side in e["candidate"].items()]
    out.append(f"  market {', '.join(best)}; wanted {', '.join(wanted)}, {e['quote_lots']} lots of {e['lot']} each")
    for name, side in e["sides"].items():
        live = side["live"]
        out.append(f"  {name}: {'passed' if side['passed'] else 'blocked'}, " + (
            f"live {live['lots']} lots at {live['price']} ({live['ticks']} ticks)" if live else "nothing live") +
            f", open {side['open_lots']} lots")
    for reason in e["reasons"]:
        out.append(f"  {reason['gate']} {reason['name']}: " + "; ".join(
            f"{f['side']}: {f['text']}" if f["side"] else f["text"] for f in reason["findings"]))
        if not reason["known_to_host"]:
            seen = any(f["failed"] for f in reason["findings"])
            out.append(f"    {'' if seen else 'by what the host knew nothing of this fails; '}{reason['beyond']}")
    if not e["reasons"]:
        out.append("  no gate failed")
    return "\n".join(out)

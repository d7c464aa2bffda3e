"""Limits in force and limits staged, in the units of the file and in the words of the card.

What a person is shown is read back from the words, so that it is what the card holds and not what somebody once asked
for. New limits are staged first: their rows stand in the shadow bank, where they have no effect, until they are armed.
"""

from dataclasses import dataclass
from fractions import Fraction

from hdl.control import registers as regmap

from . import config as configuration
from . import params
from .bank import ParameterBank
from .params import CLOCK_HZ, SUB

#: What a limit of the whole card has instead of an instrument's name.
CARD = "card"


class LimitError(RuntimeError):
    """Limits that this daemon cannot take over, or a command that makes no sense now. One line."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: ``key`` of the file, ``value`` (bool, int, Decimal or Fraction) in ``unit``, and ``words``, what the
    card holds for it, by name (none if the host alone knows it)."""

    key: str
    value: object
    unit: str
    words: dict

    @property
    def text(self):
        """The value without its unit: exact as long as it has no more than 12 decimals."""
        return str(self.value).lower() if isinstance(self.value, bool) else params.plain(self.value)

    def as_dict(self):
        """Plain data; the value is text, so that it stays exact."""
        return {"limit": self.key, "value": self.text, "unit": self.unit, "words": self.words}


def named(row):
    """A parameter row (words as in the bank) as numbers by name, signed where the map says so."""
    return {p.name: word - (1 << 32) if p.signed and word >> 31 else word
            for p, word in zip(regmap.PARAMS, row, strict=True)}


def _flag(word):
    return "", (word,), lambda w, i: bool(w[word])


def _quantity(word):
    return "quantity", (word,), lambda w, i: w[word] * Fraction(i.lot)


def _price(word):
    return "price", (word,), lambda w, i: w[word] * Fraction(i.tick)


def _ticks(word, per_tick=1):
    return "ticks", (word,), lambda w, i: Fraction(w[word], per_tick)


def _band(shift, word="bands"):
    most = (1 << regmap.BAND_BITS) - 1
    return "bps", (word,), lambda w, i: Fraction((w[word] >> shift & most) * 10_000, 1 << regmap.BAND_BITS)


def _max_notional(w, i):
    return (w["max_notional_hi"] << 32 | w["max_notional_lo"]) * Fraction(i.tick) * Fraction(i.lot)


#: Limits of an instrument: key -> (unit, names of its words, value from the words by name and the instrument).
INSTRUMENT = {
    "enabled": _flag("sym_en"), "bid_enabled": _flag("bid_en"), "ask_enabled": _flag("ask_en"),
    "reference_price": ("price", (), lambda w, i: i.reference_price),
    "half_spread_bps": ("bps", ("half_spread_sub",), lambda w, i: w["half_spread_sub"] * Fraction(i.tick) / SUB /
                        Fraction(i.reference_price) * 10_000),
    "half_spread_ticks": _ticks("half_spread_sub", SUB),
    "skew_ticks_per_lot": ("ticks a lot", ("skew_q8",), lambda w, i: Fraction(w["skew_q8"], SUB * 256)),
    "skew_max_ticks": _ticks("skew_max_sub", SUB),
    "target_position": _quantity("target_lots"),
    "quote_quantity": _quantity("quote_lots"),
    "toward_ticks": _ticks("toward_ticks"), "away_ticks": _ticks("away_ticks"),
    "min_price": _price("px_min_ticks"), "max_price": _price("px_max_ticks"),
    "min_quantity": _quantity("q_min_lots"), "hard_quantity": _quantity("q_hard_lots"),
    "max_quantity": _quantity("max_lots"),
    "max_notional": ("money", ("max_notional_lo", "max_notional_hi"), _max_notional),
    # Not in the file: up to which price max_notional allows quote_quantity.
    "max_notional_price": _price("px_notional_ticks"),
    "max_long": _quantity("max_long_lots"), "max_short": _quantity("max_short_lots"),
    "stale_ms": ("ms", ("stale_cycles",), lambda w, i: Fraction(w["stale_cycles"] * 1000, CLOCK_HZ)),
    "collar_bps": _band(0), "pull_bps": _band(regmap.BAND_BITS), "drift_bps": _band(0, "drift_band"),
}
#: Words of a row that say what an instrument is, and limit nothing.
IDENTITY = frozenset((
    "feed_tick_shift", "feed_tick_odd", "feed_tick_inv", "ref_scale", "lot_mult", "lot_exp", "tick_e9_lo", "tick_e9_hi",
    "instrument_id_lo", "instrument_id_hi"))


def _rate(word):
    return "a second", (word,), lambda w, r: Fraction(CLOCK_HZ, w[word]) if w[word] else 0


def _money(word):
    return "money", (word,), lambda w, r: w[word] * Fraction(r.money_unit)


def _milliseconds(word):
    return "ms", (word,), lambda w, r: Fraction(w[word] * 1000, CLOCK_HZ)


#: Limits of the whole card, as :data:`INSTRUMENT`; the values are made of registers and :class:`host.config.Risk`.
RISK = {
    "deadman_ms": _milliseconds("deadman_cycles"),
    "session_rate_per_s": _rate("session_interval"),
    "session_burst": ("tokens", ("session_burst",), lambda w, r: w["session_burst"]),
    "symbol_rate_per_s": _rate("symbol_interval"),
    "symbol_burst": ("tokens", ("symbol_burst",), lambda w, r: w["symbol_burst"]),
    "max_rejects_per_s": ("a second", (), lambda w, r: r.max_rejects_per_s),
    "reference_ms": _milliseconds("ref_cycles"),
    "max_live_sides": ("sides", ("live_most",), lambda w, r: w["live_most"]),
    "duplicate_most": ("quotes", ("duplicate_most",), lambda w, r: w["duplicate_most"]),
    "duplicate_ms": _milliseconds("duplicate_cycles"),
    "fills_ms": _milliseconds("fills_cycles"),
    "fills_lots": ("lots", ("fills_lots",), lambda w, r: w["fills_lots"]),
    "fills_net_lots": ("lots", ("fills_delta",), lambda w, r: w["fills_delta"]),
    "fills_most": ("fills", ("fills_most",), lambda w, r: w["fills_most"]),
    "freeze_ms": _milliseconds("freeze_cycles"),
    "repeats_most": ("times", ("repeats_most",), lambda w, r: w["repeats_most"]),
    "refusals_ms": _milliseconds("refusals_cycles"),
    "refusals_most": ("sides", ("refusals_most",), lambda w, r: w["refusals_most"]),
    "drift_ms": _milliseconds("drift_cycles"), "life_ms": _milliseconds("life_cycles"),
    "equity": ("money", (), lambda w, r: r.equity), "money_unit": ("money", (), lambda w, r: r.money_unit),
    "max_loss": _money("loss_most"), "max_drawdown": _money("drawdown_most"),
    "equity_ms": _milliseconds("equity_cycles"),
    "max_gross": _money("gross_most"),
    "max_leverage": ("times equity", ("leverage_most",), lambda w, r: Fraction(w["leverage_most"],
                                                                              params.LEVERAGE_SCALE)),
    "max_open_notional": _money("open_most"),
}


def _read_back(table, words, source):
    out, left = [], dict(words)
    for key, (unit, names, value) in table.items():
        mine = {name: left.pop(name, words[name]) for name in names}
        if key in ("half_spread_bps", "half_spread_ticks") and getattr(source, key) is None:
            continue  # the file gives the other one
        out.append(Limit(key, value(words, source), unit, mine))
    # A word that this table does not know yet is shown as it is rather than not at all.
    return out + [Limit(name, word, "", {name: word}) for name, word in left.items() if name not in IDENTITY]


def of_instrument(instrument, row):
    """:class:`Limit` s of an instrument whose row has these words (unsigned, as the bank holds them)."""
    return _read_back(INSTRUMENT, named(row), instrument)


def of_card(risk, words):
    """:class:`Limit` s of the whole card, whose registers have these values by name."""
    return _read_back(RISK, words, risk)


def _locked(where, keys, was, is_):
    for key in keys:
        if getattr(was, key) != getattr(is_, key):
            raise LimitError(f"{where}.{key} = {getattr(is_, key)}: is {getattr(was, key)} while running; stop the "
                             f"daemon to change it")


class Limits:
    """The limits of a card: those in force, and those staged.

    All of it changes in one cycle, the registers of the whole card (dead-man, token buckets) too, of which only those
    are written that change. The card is told the CRC of what it has to be, and refuses what is anything else.

    Parameters
    ----------
    registers : :class:`host.registers.Registers`. rows : rows of this card. heartbeat_ms : of this daemon.

    Attributes
    ----------
    active, staged : :class:`host.config.Config` or ``None``; of a staged one, instruments and risk count.
    rows : words of the active rows, a tuple for each configured instrument. risk_words : registers of the whole card
        by name. Both are made anew when limits change: who keeps them keeps what was. hash : CRC of what is in force.
    """

    def __init__(self, registers, rows, heartbeat_ms):
        self._registers, self._heartbeat_ms = registers, heartbeat_ms
        self._bank, self.size = ParameterBank(registers, rows), rows
        self.risk_words, self._risk_told = {}, {}
        self.active = self.staged = self.hash = self._before = None
        self.rows = []

    # -- in force -----------------------------------------------------------------------------------------------

    def put(self, config):
        """Make a configuration's limits active; returns what that changes, as :meth:`diff` has it, but for the first
        ones. :meth:`settled` or :meth:`refused` follows, when the card has said what became of it."""
        self._need_rest()
        changed = self._between(self.in_force(), self._of(config)) if self.active else []
        words = params.risk_words(config.risk)
        for name, value in words.items():
            if self._risk_told.get(name) != value:  # a bucket that is written anew begins anew
                self._registers.write(name, value)
        self._before = self.risk_words, self.active, self.rows, self.hash
        self._bank.commit(config.rows(), words)
        self.risk_words = self._risk_told = words
        self.active, self.staged, self.hash = config, None, self._bank.hash
        self.rows = [self._bank.row(n) for n in range(len(config.instruments))]
        return changed

    def settled(self):
        """What was asked for is in force."""
        self._before = None

    def refused(self):
        """It is not: what was before still is, and nothing is known of what the card holds staged."""
        self.risk_words, self.active, self.rows, self.hash = self._before
        self._before = self.staged = None
        self._risk_told = {}
        self._bank.refused()

    def _need_rest(self):
        if self._before:
            raise LimitError("limits are being changed; try again when that is done")

    def in_force(self):
        """{instrument or :data:`CARD`: list of :class:`Limit`} of what the card has active."""
        return self._named(self.active, self.risk_words, self.rows)

    @staticmethod
    def _named(config, risk_words, rows):
        return {CARD: of_card(config.risk, risk_words),
                **{i.name: of_instrument(i, row) for i, row in zip(config.instruments, rows, strict=True)}}

    def shown(self):
        """What is in force, as plain data."""
        return {"staged": self.staged is not None,
                "limits": [{"instrument": name, **limit.as_dict()} for name, those in self.in_force().items()
                           for limit in those]}

    # -- staged -------------------------------------------------------------------------------------------------

    def stage(self, config):
        """Hold a configuration's limits ready in the shadow bank. Raises :class:`LimitError` if they are of other
        instruments or another account than those that are running, or if this daemon's heartbeat is too slow for
        them."""
        self._need_rest()
        old, new = self.active.instruments, config.instruments
        _locked("risk", configuration.LOCKED_RISK, self.active.risk, config.risk)
        for n, (was, is_) in enumerate(zip(old, new, strict=False)):
            _locked(f"instruments[{n}]", configuration.LOCKED, was, is_)
        if len(old) != len(new):
            raise LimitError(f"{len(new)} instruments, must be the {len(old)} that are running; stop the daemon to "
                             f"change them")
        if config.risk.deadman_ms < 2 * self._heartbeat_ms:
            raise LimitError(f"risk.deadman_ms = {params.plain(config.risk.deadman_ms)}: this daemon beats every "
                             f"{params.plain(self._heartbeat_ms)} ms; must be at least twice that")
        self._bank.stage(config.rows())
        # Addresses and session stay those of the start.
        self.staged = self.active.model_copy(update={"instruments": new, "risk": config.risk})

    def set(self, changes, instrument=None):
        """Stage single limits on top of what is staged or in force.

        ``changes`` is {key: text as in the file}; ``instrument`` names the one that is meant, default all. Returns a
        list of {instrument, limit, unit, old, given, value, rounded, words}: ``value`` is what the card will hold.
        Raises :class:`host.config.ConfigError` or :class:`LimitError`.
        """
        base = self.staged or self.active
        before = {name: {limit.key: limit.text for limit in those} for name, those in self._of(base).items()}
        self.stage(configuration.change(base, changes, instrument, self.size))
        asked = {CARD: self.staged.risk, **{i.name: i for i in self.staged.instruments}}
        out = []
        for name, those in self._of(self.staged).items():
            for limit in those:
                if limit.key in changes and instrument in (None, name):
                    given = getattr(asked[name], limit.key)
                    out.append({"instrument": name, "old": before[name].get(limit.key), "given": changes[limit.key],
                                "rounded": Fraction(given) != Fraction(limit.value), **limit.as_dict()})
        return out

    def discard(self):
        """Forget what is staged. Raises :class:`LimitError` if nothing is."""
        self.need_staged()
        self.staged = None

    def diff(self):
        """What arming would change: a list of {instrument, limit, unit, active, staged, words: {name: [active,
        staged]}}; ``None`` for a limit that only one of them has."""
        return self._between(self.in_force(), self._of(self.staged)) if self.staged else []

    @staticmethod
    def _between(old, new):
        out = []
        for was, (name, is_) in zip(old.values(), new.items(), strict=True):
            old_limits, new_limits = ({limit.key: limit for limit in limits} for limits in (was, is_))
            for key in dict.fromkeys((*old_limits, *new_limits)):
                before, after = old_limits.get(key), new_limits.get(key)
                if before != after:
                    words = dict.fromkeys(word for limit in (before, after) if limit for word in limit.words)
                    out.append({"instrument": name, "limit": key, "unit": (after or before).unit,
                                "active": before and before.text, "staged": after and after.text,
                                "words": {w: [before and before.words.get(w), after and after.words.get(w)]
                                          for w in words}})
        return out

    def need_staged(self):
        """What is staged. Raises :class:`LimitError` if nothing is."""
        if self.staged is None:
            raise LimitError("nothing is staged; t2q limits set KEY=VALUE or t2q limits load FILE first")
        return self.staged

    def _of(self, config):
        """As :meth:`in_force`, of a configuration as it would be."""
        return self._named(config, params.risk_words(config.risk), config.rows())

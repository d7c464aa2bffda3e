"""From human units to register words, in exact arithmetic.

Whatever has to be rounded is rounded to the safe side: spreads outwards, price bands inwards, limits and ages down,
token intervals up. A value that its register cannot hold is refused with what would fit.
"""

from decimal import Decimal
from fractions import Fraction

from hdl.control import registers as regmap

CLOCK_HZ = 125_000_000  #: cycles a second of the fabric
SUB = 256  #: subticks in a tick
LOT_VALUE_SCALE = 1 << regmap.MONEY_FRACTION_BITS  #: of the unit of money, in what a lot is worth
LEVERAGE_SCALE = 1 << regmap.LEVERAGE_BITS  #: of equity, in the greatest leverage


class ParameterError(ValueError):
    """A value is impossible: ``key`` names it, ``value`` is what was given, the message says what would be right."""

    def __init__(self, key, value, wanted):
        self.key, self.value, self.wanted = key, value, wanted
        super().__init__(f"{key} = {value}: {wanted}")


def plain(number):
    """A number for people: no exponent, no trailing zeros, fractions to 12 digits."""
    if isinstance(number, Fraction):
        number = Decimal(number.numerator) / Decimal(number.denominator)
        number = number.quantize(Decimal("1e-12")) if abs(number) < 10 ** 15 else number
    text = f"{Decimal(number):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def floor(value):
    """Greatest integer not above a Fraction."""
    return value.numerator // value.denominator


def ceil(value):
    """Least integer not below a Fraction."""
    return -(-value.numerator // value.denominator)


def nearest(value):
    """Nearest integer, halves upwards."""
    return floor(value + Fraction(1, 2))


def cycles(milliseconds):
    """Whole cycles in a time, rounded down."""
    return floor(Fraction(milliseconds) * CLOCK_HZ / 1000)


def tick_words(mantissa):
    """(shift, odd, inverse) of a feed tick's mantissa: ``mantissa = odd * 2**shift`` and
    ``odd * inverse = 1 (mod 2**TICK_BITS)``, so that ``ticks = (px >> shift) * inverse mod 2**TICK_BITS`` for exact
    multiples."""
    if mantissa <= 0:
        raise ValueError(f"a tick must be positive, got mantissa {mantissa}")
    shift = (mantissa & -mantissa).bit_length() - 1
    odd = mantissa >> shift
    return shift, odd, pow(odd, -1, 1 << regmap.TICK_BITS)


def ref_scale(feed_tick, quote_tick):
    """``(bid + ask) * ref_scale >> 16`` is the mid in 1/256 quote ticks, for bid and ask in feed ticks."""
    return nearest(Fraction(feed_tick) / Fraction(quote_tick) * SUB / 2 * (1 << 16))


def lot_words(lot):
    """(mantissa, exponent) of a lot as a decimal quantity, exponent at most 0."""
    _, digits, exponent = Decimal(lot).normalize().as_tuple()
    mantissa = int("".join(map(str, digits)))
    return (mantissa * 10 ** exponent, 0) if exponent > 0 else (mantissa, exponent)


def lots(key, quantity, lot):
    """Whole lots of a quantity; raises :class:`ParameterError` if it is not a multiple of the lot."""
    count = Fraction(quantity) / Fraction(lot)
    if count.denominator != 1:
        below = floor(count) * Fraction(lot)
        raise ParameterError(key, plain(quantity), f"must be a multiple of the lot {plain(lot)}; near it are "
                             f"{plain(below)} and {plain(below + Fraction(lot))}")
    return int(count)


def _fit(key, given, word, width, unit, signed=False, per_word=None):
    """``word``, or :class:`ParameterError` saying what the register holds (in units of the file if known)."""
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    if low <= word <= high:
        return word
    limit = high if word > high else low
    human = f" = {plain(limit * Fraction(per_word))}" if per_word is not None else ""
    raise ParameterError(key, plain(given), f"{word} {unit} do not fit the register's {width} bits; "
                         f"{'at most' if word > high else 'at least'} {limit} {unit}{human}")


def _band(key, bps):
    """A band in 1/2^16 of what it is around, rounded down."""
    share = floor(Fraction(bps) / 10_000 * (1 << regmap.BAND_BITS))
    if not 0 < share < 1 << regmap.BAND_BITS:
        least, most = (Fraction(n * 10_000, 1 << regmap.BAND_BITS) for n in (1, (1 << regmap.BAND_BITS) - 1))
        raise ParameterError(key, plain(bps), f"must be {plain(least)} to {plain(most)} bps")
    return share


def _param(name, key, given, word, unit, per_word=None):
    p = regmap.PARAM_BY_NAME[name]
    return _fit(key, given, word, p.width, unit, p.signed, per_word)


def _global(name, key, given, word, unit, per_word=None):
    return _fit(key, given, word, regmap.BY_NAME[name].width, unit, False, per_word)


def feed_tick_mantissa(tick, exponent):
    """A feed tick as the wire's price mantissa."""
    mantissa = Fraction(tick) / Fraction(10) ** exponent
    if mantissa.denominator != 1 or mantissa <= 0:
        raise ParameterError("feed_tick", plain(tick), f"must be a positive multiple of 1e{exponent}, the wire's "
                             f"price_exponent")
    return int(mantissa)


def values(instrument, feed_exponent):
    """The parameter row of one instrument as a mapping of the names of :data:`hdl.control.registers.PARAMS`.

    ``instrument`` is a :class:`host.config.Instrument`; ``feed_exponent`` the exponent of prices on the feed's wire.
    Raises :class:`ParameterError` with the instrument's key.
    """
    i = instrument
    tick, lot = Fraction(i.tick), Fraction(i.lot)
    for key, value in (("tick", i.tick), ("lot", i.lot)):
        if value <= 0:
            raise ParameterError(key, plain(value), "must be above 0")
    out = {"sym_en": int(i.enabled), "bid_en": int(i.bid_enabled), "ask_en": int(i.ask_enabled)}

    mantissa = feed_tick_mantissa(i.feed_tick, feed_exponent)
    shift, odd, inverse = tick_words(mantissa)
    out["feed_tick_shift"] = _param("feed_tick_shift", "feed_tick", i.feed_tick, shift, "(power of 2 in the mantissa)")
    out["feed_tick_odd"] = _param("feed_tick_odd", "feed_tick", i.feed_tick, odd, "(odd part of the mantissa)")
    out["feed_tick_inv"] = inverse

    scale = ref_scale(i.feed_tick, i.tick)
    if scale >> regmap.PARAM_BY_NAME["ref_scale"].width:
        raise ParameterError("tick", plain(i.tick), f"is too fine for feed_tick {plain(i.feed_tick)}; must be above "
                             f"{plain(Fraction(i.feed_tick) / 512)}")
    out["ref_scale"] = scale
    exact = Fraction(i.feed_tick) / tick * SUB / 2 * (1 << 16)
    if abs(scale - exact) * 100_000 > exact:
        raise ParameterError("tick", plain(i.tick), f"is too coarse for feed_tick {plain(i.feed_tick)}: the reference "
                             f"would be off by more than 0.1 bps; at most {plain(Fraction(i.feed_tick) * 128)}")

    if (i.half_spread_bps is None) == (i.half_spread_ticks is None):
        raise ParameterError("half_spread_bps", i.half_spread_bps, "give either half_spread_bps or half_spread_ticks")
    if i.half_spread_bps is not None:
        key, given = "half_spread_bps", i.half_spread_bps
        half = Fraction(given) / 10_000 * Fraction(i.reference_price) / tick
        per_sub = tick / SUB / Fraction(i.reference_price) * 10_000
    else:
        key, given, half, per_sub = "half_spread_ticks", i.half_spread_ticks, Fraction(i.half_spread_ticks), \
            Fraction(1, SUB)
    if half <= 0:
        raise ParameterError(key, plain(given), "must be above 0 (0 would block every quote)")
    out["half_spread_sub"] = _param("half_spread_sub", key, given, ceil(half * SUB), "subticks", per_sub)

    out["skew_q8"] = _param("skew_q8", "skew_ticks_per_lot", i.skew_ticks_per_lot,
                            nearest(Fraction(i.skew_ticks_per_lot) * SUB * 256), "1/65536 ticks per lot",
                            Fraction(1, SUB * 256))
    out["skew_max_sub"] = _param("skew_max_sub", "skew_max_ticks", i.skew_max_ticks,
                                 floor(Fraction(i.skew_max_ticks) * SUB), "subticks", Fraction(1, SUB))
    out["target_lots"] = _param("target_lots", "target_position", i.target_position,
                                lots("target_position", i.target_position, lot), "lots", lot)

    def quantity(name, key):
        given = getattr(i, key)
        return _param(name, key, given, lots(key, given, lot), "lots", lot)

    out["quote_lots"] = quantity("quote_lots", "quote_quantity")
    for name in ("toward_ticks", "away_ticks"):
        out[name] = _param(name, name, getattr(i, name), getattr(i, name), "ticks", 1)

    if i.min_price > i.max_price:
        raise ParameterError("min_price", plain(i.min_price), f"must not exceed max_price ({plain(i.max_price)})")
    out["px_min_ticks"] = _param("px_min_ticks", "min_price", i.min_price, ceil(Fraction(i.min_price) / tick), "ticks",
                                 tick)
    out["px_max_ticks"] = _param("px_max_ticks", "max_price", i.max_price, floor(Fraction(i.max_price) / tick), "ticks",
                                 tick)
    most = regmap.TICK_LIMIT - 1      # of the feed's own ticks
    for key in ("min_price", "max_price"):
        if abs(Fraction(getattr(i, key))) > most * Fraction(i.feed_tick):
            raise ParameterError(key, plain(getattr(i, key)), f"lies beyond +-{most} ticks of the feed of "
                                 f"{plain(i.feed_tick)}, the most that the card reads; at most "
                                 f"{plain(most * Fraction(i.feed_tick))}")
    if not i.min_price <= i.reference_price <= i.max_price:
        raise ParameterError("reference_price", plain(i.reference_price), f"must lie in min_price..max_price "
                             f"({plain(i.min_price)}..{plain(i.max_price)})")

    out["q_min_lots"] = quantity("q_min_lots", "min_quantity")
    out["q_hard_lots"] = quantity("q_hard_lots", "hard_quantity")
    out["max_lots"] = quantity("max_lots", "max_quantity")
    out["max_long_lots"] = quantity("max_long_lots", "max_long")
    out["max_short_lots"] = quantity("max_short_lots", "max_short")
    q = i.quote_quantity
    if not max(i.min_quantity, lot) <= q <= i.hard_quantity:
        raise ParameterError("quote_quantity", plain(q), f"must be above 0 and lie in min_quantity..hard_quantity "
                             f"({plain(i.min_quantity)}..{plain(i.hard_quantity)})")
    if q > i.max_quantity:
        raise ParameterError("max_quantity", plain(i.max_quantity), f"would block every quote; at least quote_quantity "
                             f"({plain(q)})")
    for key in ("max_long", "max_short"):
        if 0 < getattr(i, key) < q:
            raise ParameterError(key, plain(getattr(i, key)), f"would block every quote of this side; 0 to mean that, "
                                 f"or at least quote_quantity ({plain(q)})")
    notional = floor(Fraction(i.max_notional) / (tick * lot))
    width = regmap.PARAM_BY_NAME["max_notional_lo"].width + regmap.PARAM_BY_NAME["max_notional_hi"].width
    _fit("max_notional", i.max_notional, notional, width, "tick-lots", False, tick * lot)
    least = Fraction(i.reference_price) * Fraction(q)
    if Fraction(i.max_notional) < least:
        raise ParameterError("max_notional", plain(i.max_notional), f"would block every quote near reference_price; at "
                             f"least reference_price x quote_quantity = {plain(least)}")
    out["max_notional_lo"], out["max_notional_hi"] = notional & 0xFFFF_FFFF, notional >> 32
    # The fabric checks the product, not the division: a bound that is too wide blocks.
    widest = (1 << regmap.PARAM_BY_NAME["px_notional_ticks"].width) - 1
    out["px_notional_ticks"] = min(notional // out["quote_lots"], widest) if out["quote_lots"] else 0

    out["bands"] = _band("collar_bps", i.collar_bps) | _band("pull_bps", i.pull_bps) << regmap.BAND_BITS

    out["drift_band"] = _band("drift_bps", i.drift_bps)

    out["stale_cycles"] = _param("stale_cycles", "stale_ms", i.stale_ms, cycles(i.stale_ms), "cycles",
                                 Fraction(1000, CLOCK_HZ))
    if not out["stale_cycles"]:
        raise ParameterError("stale_ms", plain(i.stale_ms), "must be above 0 (0 would block every quote)")

    mult, exponent = lot_words(i.lot)
    out["lot_mult"] = _param("lot_mult", "lot", i.lot, mult, "(mantissa of the lot)")
    out["lot_exp"] = _param("lot_exp", "lot", i.lot, exponent, "(exponent of the lot)")
    tick_e9 = tick * 10 ** 9
    if tick_e9.denominator != 1:
        raise ParameterError("tick", plain(i.tick), "must be a multiple of 1e-9, the venue's price exponent")
    tick_e9 = int(tick_e9)
    width = regmap.PARAM_BY_NAME["tick_e9_lo"].width + regmap.PARAM_BY_NAME["tick_e9_hi"].width
    _fit("tick", i.tick, tick_e9, width, "x 1e-9", False, Fraction(1, 10 ** 9))
    out["tick_e9_lo"], out["tick_e9_hi"] = tick_e9 & 0xFFFF_FFFF, tick_e9 >> 32
    for key in ("min_price", "max_price"):
        if abs(Fraction(getattr(i, key))) * 10 ** 9 >= 1 << 63:
            raise ParameterError(key, plain(getattr(i, key)), "must lie within +-9223372036, what the venue's price "
                                 "field holds")
    out["instrument_id_lo"] = i.instrument_id & 0xFFFF_FFFF
    out["instrument_id_hi"] = i.instrument_id >> 32
    return out


def row(instrument, feed_exponent):
    """The parameter row as register words (two's complement where signed), in the order of the map."""
    named = values(instrument, feed_exponent)
    return tuple(named[p.name] & 0xFFFF_FFFF for p in regmap.PARAMS)


#: Registers that hold a greatest age, and the keys that say how many milliseconds.
_AGES = (("ref_cycles", "reference_ms"), ("duplicate_cycles", "duplicate_ms"), ("equity_cycles", "equity_ms"),
         ("fills_cycles", "fills_ms"), ("refusals_cycles", "refusals_ms"),
         ("drift_cycles", "drift_ms"))
#: Registers that hold a number as the file has it: their keys, and what it is of.
_NUMBERS = {"live_most": ("max_live_sides", "sides"), "duplicate_most": ("duplicate_most", "quotes"),
            "fills_lots": ("fills_lots", "lots"), "fills_delta": ("fills_net_lots", "lots"),
            "fills_most": ("fills_most", "fills"), "repeats_most": ("repeats_most", "times"),
            "refusals_most": ("refusals_most", "refusals"), "session_burst": ("session_burst", "tokens"),
            "symbol_burst": ("symbol_burst", "tokens")}


def money_word(key, amount, unit):
    """An amount of money in units, rounded down, as a signed word of 32 bits."""
    return _fit(key, amount, floor(Fraction(amount) / Fraction(unit)), 32, "units of money", True, unit) & 0xFFFF_FFFF


def lot_value(instrument, ticks, unit):
    """What a lot is worth at a price, as register ``ref_lot_value`` has it: 1/256 of a unit of money, rounded up. 0,
    which blocks, for what the register cannot hold."""
    exact = Fraction(ticks) * Fraction(instrument.tick) * Fraction(instrument.lot) / Fraction(unit)
    word = ceil(abs(exact) * LOT_VALUE_SCALE)
    return 0 if word >> regmap.BY_NAME["ref_lot_value"].width else word


def check_lot_value(instrument, risk):
    """Raises :class:`ParameterError` if a price that an instrument may be quoted at makes a lot worth more than the
    card can count, or if a limit in money lets no quote of it pass at its ``reference_price``."""
    unit, width = Fraction(risk.money_unit), regmap.BY_NAME["ref_lot_value"].width
    greatest = max(abs(Fraction(instrument.min_price)), abs(Fraction(instrument.max_price))) * Fraction(instrument.lot)
    if ceil(greatest / unit * LOT_VALUE_SCALE) >> width:
        raise ParameterError("money_unit", plain(unit), f"is too small: a lot of {instrument.name} may be worth "
                             f"{plain(greatest)}; must be at least {plain(greatest * LOT_VALUE_SCALE / (1 << width))}")
    least = abs(Fraction(instrument.reference_price)) * Fraction(instrument.quote_quantity)
    for key, times, of in (("max_gross", 2, "twice "), ("max_open_notional", 1, "")):
        if Fraction(getattr(risk, key)) < times * least:
            raise ParameterError(key, plain(getattr(risk, key)), f"would block every quote of {instrument.name}; at "
                                 f"least {of}reference_price x quote_quantity = {plain(times * least)}")


def risk_words(risk):
    """Register values of a :class:`host.config.Risk`: what is limited over all instruments."""
    def interval(name, key):
        rate = getattr(risk, key)
        if rate <= 0:
            raise ParameterError(key, plain(rate), "must be above 0")
        return _global(name, key, rate, ceil(Fraction(CLOCK_HZ) / Fraction(rate)), "cycles per token")

    out = {
        "deadman_cycles": _global("deadman_cycles", "deadman_ms", risk.deadman_ms, cycles(risk.deadman_ms), "cycles",
                                  Fraction(1000, CLOCK_HZ)),
        "session_interval": interval("session_interval", "session_rate_per_s"),
        "symbol_interval": interval("symbol_interval", "symbol_rate_per_s"),
        **{name: _global(name, key, getattr(risk, key), getattr(risk, key), unit, 1)
           for name, (key, unit) in _NUMBERS.items()},
        **{name: _global(name, key, getattr(risk, key), cycles(getattr(risk, key)), "cycles", Fraction(1000, CLOCK_HZ))
           for name, key in (*_AGES, ("freeze_cycles", "freeze_ms"), ("life_cycles", "life_ms"))},
    }
    for name, key in (("loss_most", "max_loss"), ("drawdown_most", "max_drawdown"), ("gross_most", "max_gross"),
                      ("open_most", "max_open_notional")):
        amount, unit = getattr(risk, key), risk.money_unit
        out[name] = _global(name, key, amount, floor(Fraction(amount) / Fraction(unit)), "units of money", unit)
        if not out[name]:
            raise ParameterError(key, plain(amount), f"must be at least money_unit ({plain(unit)}); less would block "
                                 "every quote")
    out["leverage_most"] = _global("leverage_most", "max_leverage", risk.max_leverage,
                                   floor(Fraction(risk.max_leverage) * LEVERAGE_SCALE), "sixteenths of equity",
                                   Fraction(1, LEVERAGE_SCALE))
    if not out["leverage_most"]:
        raise ParameterError("max_leverage", plain(risk.max_leverage), f"must be at least "
                             f"{plain(Fraction(1, LEVERAGE_SCALE))}; less would block every quote")
    for name, key in _AGES:
        if out[name] < 2:
            raise ParameterError(key, plain(getattr(risk, key)), "must be at least two cycles, 0.000016 (less would "
                                 "block every quote)")
    if risk.freeze_ms and not out["freeze_cycles"]:
        raise ParameterError("freeze_ms", plain(risk.freeze_ms), "must be at least a cycle, 0.000008, or 0 to mean "
                             "until t2q release")
    if risk.life_ms and not out["life_cycles"]:
        raise ParameterError("life_ms", plain(risk.life_ms), "must be at least a cycle, 0.000008, or 0 to mean no time")
    if not out["deadman_cycles"]:
        raise ParameterError("deadman_ms", plain(risk.deadman_ms), "must be above 0 (0 would block every quote)")
    return out


def feed_words(feed):
    """Register values of a :class:`host.config.Feed`."""
    a, b = feed.line_a, feed.line_b
    vlan = {"none": 0, "any": 1 << 16}.get(feed.vlan)
    return {
        "line_a_ip": a.ip, "line_a_port": a.port,
        "line_b_ip": b.ip if b else 0, "line_b_port": b.port if b else 0,
        "vlan": 1 << 17 | feed.vlan if vlan is None else vlan,
        "feed_mode": 0 if feed.cut_through else 1,
    }


def resend_words(session):
    """Registers of the session that say when something is sent again: time-outs in ticks of the card."""
    def ticks(milliseconds):
        return max(1, nearest(Fraction(milliseconds) * CLOCK_HZ / (1000 * regmap.RESEND_TICK)))

    return {
        "rto_first": ticks(session.resend_first_ms), "rto_min": ticks(session.resend_min_ms),
        "rto_max": ticks(session.resend_max_ms), "rto_most": session.resend_most,
        "ack_delay": nearest(Fraction(session.ack_delay_us) * CLOCK_HZ / (1_000_000 * regmap.RESEND_TICK)),
    }

"""Register words against exact fractions."""

import tomllib
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hdl.control import registers as regmap
from host import config, params

from .conftest import FIRST_LIGHT

WIDEST = regmap.TICK_LIMIT - 1    # ticks


@given(st.integers(1, 1 << 40), st.integers(-WIDEST - 1, WIDEST))
def test_tick_words_divide_exact_multiples(mantissa, ticks):
    shift, odd, inverse = params.tick_words(mantissa)
    assert odd << shift == mantissa
    assert odd % 2 == 1
    assert odd * inverse % (1 << regmap.TICK_BITS) == 1
    quotient = (mantissa * ticks >> shift) * inverse % (1 << regmap.TICK_BITS)
    assert quotient == ticks % (1 << regmap.TICK_BITS)


@given(st.decimals("0.0000001", 1000, places=7), st.decimals("0.000001", 1000, places=9),
       st.integers(-(1 << 24), 1 << 24), st.integers(0, 1000))
def test_reference_is_within_its_bound(feed_tick, quote_tick, bid, spread):
    """floor((bid + ask) * scale / 2^16) against the exact mid in subticks."""
    scale = params.ref_scale(feed_tick, quote_tick)
    exact = Fraction(2 * bid + spread) / 2 * Fraction(feed_tick) / Fraction(quote_tick) * 256
    got = (2 * bid + spread) * scale >> 16
    assert abs(got - exact) <= 1 + abs(2 * bid + spread) * Fraction(1, 2 * 65536)


@given(st.decimals("0.00000001", 10 ** 6, places=8))
def test_lot_words_are_the_lot(lot):
    mantissa, exponent = params.lot_words(lot)
    assert mantissa * Fraction(10) ** exponent == Fraction(lot)
    assert exponent <= 0
    assert exponent == 0 or mantissa % 10


def test_every_parameter_of_first_light_is_what_it_says():
    loaded = config.load(FIRST_LIGHT)
    for i in loaded.instruments:
        v = params.values(i, loaded.feed.price_exponent)
        assert set(v) == set(regmap.PARAM_BY_NAME)
        tick, lot = Fraction(i.tick), Fraction(i.lot)
        half = Fraction(i.half_spread_bps) / 10_000 * Fraction(i.reference_price) / tick * 256
        assert half <= v["half_spread_sub"] < half + 1                           # outwards
        assert Fraction(i.min_price) <= v["px_min_ticks"] * tick                 # inwards
        assert v["px_max_ticks"] * tick <= Fraction(i.max_price)
        assert v["quote_lots"] * lot == Fraction(i.quote_quantity)
        assert v["max_long_lots"] * lot == Fraction(i.max_long)
        notional = (v["max_notional_hi"] << 32 | v["max_notional_lo"]) * tick * lot
        assert notional <= Fraction(i.max_notional) < notional + tick * lot      # down
        words = v["max_notional_hi"] << 32 | v["max_notional_lo"]
        assert v["px_notional_ticks"] == min(words // v["quote_lots"], WIDEST)
        assert Fraction(v["stale_cycles"], params.CLOCK_HZ) <= Fraction(i.stale_ms) / 1000
        assert (v["tick_e9_hi"] << 32 | v["tick_e9_lo"]) == tick * 10 ** 9
        assert v["lot_mult"] * Fraction(10) ** v["lot_exp"] == lot
        assert v["instrument_id_hi"] << 32 | v["instrument_id_lo"] == i.instrument_id
        assert abs(Fraction(v["skew_q8"], 65536) - Fraction(i.skew_ticks_per_lot)) <= Fraction(1, 2 * 65536)
        assert v["feed_tick_odd"] << v["feed_tick_shift"] == Fraction(i.feed_tick) * 10 ** 7


def test_signed_words_are_twos_complement(tree):
    tree["instruments"][0].update(target_position="-1.5", min_price=-100)
    row = config.build(tree).rows()[0]
    assert row[regmap.PARAM_BY_NAME["target_lots"].word] == (-15) % (1 << 32)
    assert row[regmap.PARAM_BY_NAME["px_min_ticks"].word] == (-2000) % (1 << 32)
    assert row[regmap.PARAM_BY_NAME["lot_exp"].word] == (-1) % (1 << 32)


@given(st.decimals("0.1", 10 ** 7, places=3))
def test_token_intervals_never_exceed_the_rate(rate):
    risk = config.Risk(deadman_ms=100, session_rate_per_s=rate, session_burst=10, symbol_rate_per_s=rate,
                       symbol_burst=1, reference_ms=10, max_live_sides=2, duplicate_most=3, duplicate_ms=1,
                       fills_ms=1, fills_lots=1, fills_net_lots=1, fills_most=1, freeze_ms=0, repeats_most=1,
                       refusals_ms=1, refusals_most=1, drift_ms=1, life_ms=0,
                       equity=0, max_loss=1, max_drawdown=1, equity_ms=10,
                       max_gross=1, max_leverage=1, max_open_notional=1)
    interval = params.risk_words(risk)["session_interval"]
    assert Fraction(params.CLOCK_HZ, interval) <= Fraction(rate) < Fraction(params.CLOCK_HZ, max(1, interval - 1)) or \
        interval == 1


@pytest.mark.parametrize(("vlan", "word"), [("none", 0), ("any", 1 << 16), (141, 1 << 17 | 141)])
def test_vlan_word(tree, vlan, word):
    tree["feed"]["vlan"] = vlan
    assert params.feed_words(config.build(tree).feed)["vlan"] == word


def test_line_b_may_be_absent(tree):
    del tree["feed"]["line_b"]
    words = params.feed_words(config.build(tree).feed)
    assert (words["line_b_ip"], words["line_b_port"]) == (0, 0)
    assert words["line_a_ip"] == 0xE0001F0B


def test_half_spread_in_ticks(tree):
    del tree["instruments"][0]["half_spread_bps"]
    tree["instruments"][0]["half_spread_ticks"] = Decimal("1.25")
    loaded = config.build(tree)
    assert params.values(loaded.instruments[0], -7)["half_spread_sub"] == 320


@given(st.integers(1, 10 ** 6), st.integers(1, 10 ** 13), st.integers(1, WIDEST))
def test_a_price_passes_the_notional_bound_if_and_only_if_its_notional_is_allowed(lots, notional, price):
    """With one-dollar ticks and lots of one, tick-lots are dollars."""
    assume(notional >= 2 * lots)
    tree = tomllib.loads(FIRST_LIGHT.read_text(), parse_float=Decimal)
    i = tree["instruments"][0]
    i.update(tick=1, lot=1, feed_tick=1, quote_quantity=lots, min_quantity=1, hard_quantity=lots, max_quantity=lots,
             max_long=lots, max_short=lots, target_position=0, max_notional=notional, reference_price=1,
             min_price=1, max_price=2)
    v = params.values(config.build(tree).instruments[0], -7)
    assert (price <= v["px_notional_ticks"]) == (price * lots <= notional)


def test_notional_bound_that_no_register_holds_is_the_widest(tree):
    """Prices above it are none that the card can quote."""
    tree["instruments"][0].update(max_notional=10 ** 12)
    v = config.build(tree).instruments[0]
    assert params.values(v, -7)["px_notional_ticks"] == WIDEST


@pytest.mark.parametrize(("ticks", "unit", "word"), [
    (151_480, 1, 193_895),          # 7574 x 0.1 x 256 is 193,894.4
    (151_480, 100, 1_939), (1, 1, 2), (0, 1, 0), (-151_480, 1, 193_895),
    (151_480, Fraction(3787, 84_000_000), 0)])      # more than 32 bits: it blocks
def test_what_a_lot_is_worth_is_rounded_up(first_light, ticks, unit, word):
    assert params.lot_value(first_light.instruments[0], ticks, unit) == word


@pytest.mark.parametrize(("changes", "message"), [
    ({"max_leverage": 16}, "risk.max_leverage = 16: 256 sixteenths of equity do not fit the register's 8 bits; at most "
                           "255 sixteenths of equity = 15.9375"),
    ({"max_leverage": Decimal("0.06")}, "risk.max_leverage = 0.06: must be at least 0.0625; less would block every "
                                        "quote"),
    ({"max_gross": 5_000_000_000}, "risk.max_gross = 5000000000: 5000000000 units of money do not fit the register's "
                                   "32 bits"),
    ({"max_gross": 7_573}, "risk.max_gross = 7573: would block every quote of IDX01_USDC-PERPETUAL; at least twice "
                           "reference_price x quote_quantity = 7574"),
    ({"max_open_notional": 3_786}, "risk.max_open_notional = 3786: would block every quote of IDX01_USDC-PERPETUAL; at "
                                   "least reference_price x quote_quantity = 3787"),
    ({"max_open_notional": Decimal("0.5")}, "risk.max_open_notional = 0.5: must be at least money_unit (1); less would "
                                            "block every quote"),
    ({"money_unit": Decimal("0.0005"), "equity": 1000, "max_gross": 2_000_000, "max_open_notional": 2_000_000},
     "risk.money_unit = 0.0005: is too small: a lot of IDX06_USDC-PERPETUAL may be worth 10416; must be at least "
     "0.00062084198"),
])
def test_limits_in_money_that_the_card_cannot_hold(tree, changes, message):
    tree["risk"] |= changes
    with pytest.raises(config.ConfigError) as refused:
        config.build(tree)
    assert message in str(refused.value)


def test_limits_in_money(tree):
    tree["risk"] |= {"max_gross": Decimal("2500001.9"), "max_leverage": Decimal("2.99"), "money_unit": 2}
    words = params.risk_words(config.build(tree).risk)
    assert (words["gross_most"], words["leverage_most"], words["open_most"]) == (1_250_000, 47, 750_000)


def test_times_of_the_session_in_ticks(tree):
    """A tick of the card is 1.024 us; a time-out is one at least."""
    tree["session"] |= {
        "resend_first_ms": Decimal(1000), "resend_min_ms": Decimal("0.01"), "resend_max_ms": Decimal(2000),
        "resend_most": 3, "ack_delay_us": Decimal(40)}
    words = params.resend_words(config.build(tree).session)
    assert words == {"rto_first": 976_563, "rto_min": 10, "rto_max": 1_953_125, "rto_most": 3, "ack_delay": 39}

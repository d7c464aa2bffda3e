"""Limits in human units and in words, staged and armed, on a card that only takes notes."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest

import host.limits
from hdl.control import registers as regmap
from host import config, params
from host.limits import CARD, IDENTITY, INSTRUMENT, RISK, LimitError, Limits, named
from host.registers import Registers

IDX01 = "IDX01_USDC-PERPETUAL"
COMMIT, CRC = (regmap.BY_NAME[name].address for name in ("commit", "limits_crc"))


class Card:
    """Takes writes as a :class:`host.device.Device` does."""

    def __init__(self):
        self.written = []

    def write(self, address, *words):
        self.written += [(address + n, word) for n, word in enumerate(words)]

    def take(self):
        """What was written since the last look."""
        out, self.written = self.written, []
        return out


@pytest.fixture
def card():
    return Card()


@pytest.fixture
def limits(card, first_light):
    made = Limits(Registers(card), 16, first_light.host.heartbeat_ms)
    assert made.put(first_light) == []
    made.settled()
    card.take()
    return made


def arm(limits):
    changed = limits.put(limits.need_staged())
    limits.settled()
    return changed


def test_the_host_knows_every_limit_of_the_card(first_light):
    """Of one that it does not write, it could not say the CRC."""
    assert set(params.risk_words(first_light.risk)) == {r.name for r in regmap.LIMITS}


def test_what_the_card_refuses_is_not_in_force(limits, card):
    shown, risk, rows, hash_ = limits.shown(), limits.risk_words, limits.rows, limits.hash
    limits.set({"deadman_ms": "51", "max_long": "5"})
    limits.put(limits.need_staged())
    assert limits.hash != hash_
    with pytest.raises(LimitError, match="limits are being changed; try again when that is done"):
        limits.set({"max_long": "6"})
    limits.refused()
    assert (limits.shown(), limits.risk_words, limits.rows, limits.hash) == (shown, risk, rows, hash_)
    card.take()
    limits.put(limits.active)       # every word anew
    written = dict(card.take())
    assert {r.address for r in regmap.LIMITS} <= set(written)
    assert {regmap.param_address(15, p.name) for p in regmap.PARAMS} <= set(written)
    assert limits.hash == hash_


def one(listed, name, key):
    (found,) = [entry for entry in listed if (entry["instrument"], entry["limit"]) == (name, key)]
    return found


def test_every_word_of_a_row_is_some_limit_s_or_says_what_the_instrument_is():
    covered = [word for _, words, _ in INSTRUMENT.values() for word in words]
    assert set(covered) | IDENTITY == set(regmap.PARAM_BY_NAME)
    assert not set(covered) & IDENTITY


def test_every_limit_of_the_file_is_shown():
    start_only = {"name", "security_id", "instrument_id", "lot", "tick", "feed_tick", "initial_position"}
    assert set(INSTRUMENT) - {"max_notional_price"} == set(config.Instrument.model_fields) - start_only
    assert set(RISK) == set(config.Risk.model_fields)


def test_a_word_that_no_limit_has_is_shown_as_it_is(limits, monkeypatch):
    monkeypatch.setattr(host.limits, "INSTRUMENT", {k: v for k, v in INSTRUMENT.items() if k != "max_long"})
    assert one(limits.shown()["limits"], IDX01, "max_long_lots") == {
        "instrument": IDX01, "limit": "max_long_lots", "value": "100", "unit": "", "words": {"max_long_lots": 100}}


def test_limits_in_force_in_units_and_words(limits):
    listed = limits.shown()["limits"]
    for name, key, value, unit, words in (
            (CARD, "deadman_ms", "100", "ms", {"deadman_cycles": 12_500_000}),
            (CARD, "session_rate_per_s", "20000", "a second", {"session_interval": 6250}),
            (CARD, "max_rejects_per_s", "50", "a second", {}),
            (IDX01, "enabled", "true", "", {"sym_en": 1}),
            (IDX01, "half_spread_bps", "0.160138714682", "bps", {"half_spread_sub": 621}),
            (IDX01, "min_price", "6059", "price", {"px_min_ticks": 121_180}),
            (IDX01, "max_long", "10", "quantity", {"max_long_lots": 100}),
            (IDX01, "max_notional", "200000", "money", {"max_notional_lo": 40_000_000, "max_notional_hi": 0}),
            (IDX01, "max_notional_price", "400000", "price", {"px_notional_ticks": 8_000_000}),
            (IDX01, "stale_ms", "5000", "ms", {"stale_cycles": 625_000_000})):
        assert one(listed, name, key) == {"instrument": name, "limit": key, "value": value, "unit": unit,
                                          "words": words}
    assert "half_spread_ticks" not in {entry["limit"] for entry in listed}  # the file gives the other one


def test_a_row_by_name_has_signs(first_light):
    i = first_light.instruments[0].model_copy(update={"target_position": Decimal("-0.3")})
    row = params.row(i, -7)
    assert named(row)["target_lots"] == -3
    assert named(row) == params.values(i, -7)


def test_what_is_staged_stands_in_the_shadow_bank_and_is_not_active(limits, card):
    limits.set({"max_long": "5"}, IDX01)
    written = card.take()
    # Nothing is known of the shadow bank before the second commit, so that all of it is written.
    assert (regmap.param_address(0, "max_long_lots"), 50) in written
    assert (regmap.param_address(1, "max_long_lots"), 100) in written
    assert COMMIT not in [address for address, _ in written]
    assert named(limits.rows[0])["max_long_lots"] == 100
    assert limits.diff() == [{"instrument": IDX01, "limit": "max_long", "unit": "quantity", "active": "10",
                              "staged": "5", "words": {"max_long_lots": [100, 50]}}]
    before = limits.rows[0]
    assert arm(limits) == [{"instrument": IDX01, "limit": "max_long", "unit": "quantity", "active": "10",
                            "staged": "5", "words": {"max_long_lots": [100, 50]}}]
    assert card.take() == [(CRC, limits.hash), (COMMIT, 1)]  # no register of the whole card has changed
    assert named(limits.rows[0])["max_long_lots"] == 50
    assert named(before)["max_long_lots"] == 100  # who has kept the row keeps what was
    assert (limits.staged, limits.diff()) == (None, [])
    assert limits.active.instruments[0].max_long == 5


def test_registers_of_the_whole_card_are_written_when_armed_and_only_if_they_change(limits, card):
    limits.set({"deadman_ms": "50"})
    assert regmap.BY_NAME["deadman_cycles"].address not in [address for address, _ in card.take()]
    arm(limits)
    assert card.take() == [(regmap.BY_NAME["deadman_cycles"].address, 6_250_000), (CRC, limits.hash),
                           (COMMIT, 1)]


def test_changes_add_up_until_they_are_armed_or_discarded(limits):
    limits.set({"max_long": "5"}, IDX01)
    limits.set({"max_short": "4"}, IDX01)
    assert [(c["limit"], c["staged"]) for c in limits.diff()] == [("max_long", "5"), ("max_short", "4")]
    limits.set({"max_long": "10"}, IDX01)
    assert [c["limit"] for c in limits.diff()] == ["max_short"]
    limits.discard()
    assert limits.diff() == []
    for nothing in (limits.discard, limits.need_staged):
        with pytest.raises(LimitError, match="nothing is staged"):
            nothing()


@pytest.mark.parametrize(("key", "given", "stored", "rounded"), [
    ("max_notional", "200000.1234", "200000.12", True),
    ("max_notional", "200000.12", "200000.12", False),
    ("half_spread_ticks", "2.501", "2.50390625", True),  # outwards
    ("min_price", "6059.01", "6059.05", True),  # inwards
    ("max_price", "9088.04", "9088", True),
    ("stale_ms", "0.0000081", "0.000008", True),
    ("bid_enabled", "false", "false", False),
    ("max_long", "0.5", "0.5", False),
    ("toward_ticks", "3", "3", False),
])
def test_set_says_what_is_stored(limits, key, given, stored, rounded):
    (entry,) = limits.set({key: given}, IDX01)
    assert (entry["instrument"], entry["given"], entry["value"], entry["rounded"]) == (IDX01, given, stored, rounded)
    assert one([{"instrument": n, **limit.as_dict()} for n, those in limits._of(limits.staged).items()
                for limit in those], IDX01, key)["value"] == stored


def test_a_rate_is_stored_as_the_slower_one(limits):
    (entry,) = limits.set({"session_rate_per_s": "3000"})
    assert (entry["instrument"], entry["old"], entry["rounded"]) == (CARD, "20000", True)
    assert entry["words"] == {"session_interval": 41_667}
    assert Fraction(entry["value"]) < 3000


def test_without_an_instrument_all_are_meant(limits, first_light):
    stored = limits.set({"max_long": "5", "deadman_ms": "200"})
    assert [s["instrument"] for s in stored] == [CARD, *(i.name for i in first_light.instruments)]
    assert {s["value"] for s in stored} == {"5", "200"}


def test_one_half_spread_takes_the_other_away(limits):
    limits.set({"half_spread_ticks": "3"}, IDX01)
    assert [(c["limit"], c["active"], c["staged"]) for c in limits.diff()] == [
        ("half_spread_bps", "0.160138714682", None), ("half_spread_ticks", None, "3")]


@pytest.mark.parametrize(("changes", "instrument", "text"), [
    ({"max_long": "0.05"}, IDX01, f"limits: instruments[0] ({IDX01}).max_long = 0.05: must be a multiple of the lot "
                                  f"0.1; near it are 0 and 0.1"),
    ({"stale_ms": "50000"}, IDX01, "6250000000 cycles do not fit the register's 32 bits; at most 4294967295 cycles = "
                                   "34359.73836"),
    ({"max_lng": "3"}, None, "max_lng: unknown key; did you mean 'max_long'?"),
    ({"tick": "1"}, None, "tick = 1: counts at the start only"),
    ({"money_unit": "0.01"}, None, "money_unit = 0.01: counts at the start only"),
    ({"equity": "5"}, None, "equity = 5: counts at the start only"),
    ({"deadman_ms": "50"}, IDX01, "deadman_ms = 50: is a limit of the whole card; give it without an instrument"),
    ({"deadman_ms": "10"}, None, "host.heartbeat_ms = 20: must be at most half of risk.deadman_ms (10)"),
    ({"max_long": "much"}, IDX01, "max_long = 'much': must be a decimal number"),
    ({"max_long": "5"}, "IDX01_USDC-PERP", f"instrument 'IDX01_USDC-PERP' is not quoted; did you mean '{IDX01}'?"),
    ({"max_long": "5"}, "?", f"instrument '?' is not quoted; there are {IDX01}, "),
    ({"max_notional": "10"}, IDX01, "would block every quote near reference_price; at least reference_price x "
                                    "quote_quantity = 3787"),
])
def test_what_cannot_be_is_refused_and_nothing_changes(limits, card, changes, instrument, text):
    with pytest.raises(config.ConfigError, match=re.escape(text)):
        limits.set(changes, instrument)
    assert (limits.staged, card.take()) == (None, [])


def test_other_instruments_are_refused(limits, tree, card):
    tree["instruments"][2]["tick"] = "0.2"
    with pytest.raises(LimitError, match=r"instruments\[2\]\.tick = 0\.2: is 0\.1 while running; stop the daemon"):
        limits.stage(config.build(tree))
    tree["instruments"][2]["tick"] = "0.1"
    for key, was in (("money_unit", "1"), ("equity", str(limits.active.risk.equity))):
        with pytest.raises(LimitError, match=rf"risk\.{key} = 7: is {was} while running; stop the daemon"):
            limits.stage(config.build(tree | {"risk": tree["risk"] | {key: 7}}))
    tree["risk"]["deadman_ms"], tree["host"]["heartbeat_ms"] = 10, 5
    with pytest.raises(LimitError, match=r"risk\.deadman_ms = 10: this daemon beats every 20 ms; must be"):
        limits.stage(config.build(tree))
    tree["instruments"].pop()
    tree["risk"]["deadman_ms"] = 100
    with pytest.raises(LimitError, match="15 instruments, must be the 16 that are running"):
        limits.stage(config.build(tree))
    assert (limits.staged, card.take()) == (None, [])


def test_the_session_of_a_loaded_file_is_not_taken_over(limits, tree):
    tree["session"]["local_port"] = 41_000
    tree["risk"]["max_rejects_per_s"] = 7
    limits.stage(config.build(tree))
    assert [(c["instrument"], c["limit"], c["words"]) for c in limits.diff()] == [(CARD, "max_rejects_per_s", {})]
    arm(limits)
    assert limits.active.session.local_port == 40_000
    assert limits.active.risk.max_rejects_per_s == 7

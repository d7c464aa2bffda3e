"""The configuration file: what is accepted, and that every refusal names key, value and remedy."""

import os
import re

import pytest

from hdl.control import registers as regmap
from host import config
from host.config import ConfigError

from .conftest import FIRST_LIGHT


def test_first_light_is_accepted_and_fits(first_light):
    assert len(first_light.instruments) == 16
    assert str(first_light.feed.line_a) == "224.0.31.11:14320"
    assert str(first_light.feed.line_b) == "224.0.32.11:15320"
    for row in first_light.rows():
        assert len(row) == len(regmap.PARAMS)
        for word, p in zip(row, regmap.PARAMS, strict=True):
            assert 0 <= word < 1 << 32
            if not p.signed:
                assert word < 1 << p.width, p.name
    assert first_light.secret() == "let-me-quote"


def test_the_configuration_cannot_be_changed(first_light):
    with pytest.raises(ValueError, match="frozen"):
        first_light.risk.deadman_ms = 1


def set_in(section, **values):
    def change(tree):
        tree[section].update(values)
    return change


def set_instrument(n, **values):
    def change(tree):
        tree["instruments"][n].update(values)
    return change


REFUSALS = {
    "unknown section": (lambda t: t.update(xyz={}), "xyz: unknown key; there are feed, session"),
    "unknown key": (set_in("feed", line_c="224.0.0.1:1"), "feed.line_c: unknown key; did you mean 'line_b'?"),
    "unknown instrument key": (
        set_instrument(3, max_qty=1),
        "instruments[3] (IDX04_USDC-PERPETUAL).max_qty: unknown key; did you mean 'max_quantity'?"),
    "unknown default": (set_in("instrument_defaults", max_qty=1), "instrument_defaults.max_qty: unknown key"),
    "internal name": (lambda t: t.update(source="x"), "source: unknown key"),
    "missing key": (lambda t: t["session"].pop("client_id"), "session.client_id: is missing"),
    "missing section": (lambda t: t.pop("risk"), "risk: is missing"),
    "section is no table": (lambda t: t.update(feed=3), "feed = 3: must be a table of keys"),
    "instruments is no list": (lambda t: t.update(instruments=3), "instruments = 3: must be a list of tables"),
    "instrument is no table": (lambda t: t.update(instruments=[3]), "instruments[0] = 3: must be a table of keys"),
    "no instruments": (lambda t: t.update(instruments=[]), "instruments = ()"),
    "too many instruments": (
        lambda t: t["instruments"].append(t["instruments"][0]),
        "instruments = 17: this card has 16 rows"),
    "security twice": (
        set_instrument(3, security_id=84882),
        "instruments[3].security_id = 84882: is already that of instruments[2]"),
    "quoted twice": (set_instrument(5, instrument_id=210001), "instruments[5].instrument_id = 210001: is already"),
    "not a number": (set_instrument(3, tick="abc"), ".tick = 'abc': must be a decimal number"),
    "not finite": (set_instrument(3, tick="NaN"), ".tick = 'NaN': must be a finite number"),
    "a boolean": (set_in("risk", deadman_ms=True), "risk.deadman_ms = True: must be a number"),
    "a string for a count": (
        set_in("risk", symbol_burst="7"),
        "risk.symbol_burst = '7': input should be a valid integer"),
    "negative": (set_instrument(0, max_notional=-1), ".max_notional = -1: input should be greater than 0"),
    "stale beyond 32 bits": (
        set_instrument(3, stale_ms=99_999),
        "stale_ms = 99999: 12499875000 cycles do not fit the register's 32 bits; at most 4294967295 cycles = "
        "34359.73836"),
    "stale below a cycle": (set_instrument(3, stale_ms="0.000001"), "stale_ms = 0.000001: must be above 0"),
    "deadman beyond 32 bits": (
        set_in("risk", deadman_ms=40_000),
        "risk.deadman_ms = 40000: 5000000000 cycles do not fit"),
    "burst beyond 8 bits": (
        set_in("risk", symbol_burst=300),
        "risk.symbol_burst = 300: 300 tokens do not fit the register's 8 bits; at most 255"),
    "rate of 1 a minute": (
        set_in("risk", session_rate_per_s="0.01"),
        "risk.session_rate_per_s = 0.01: 12500000000 cycles per token do not fit"),
    "quantity beyond 24 bits": (
        set_instrument(3, hard_quantity=2_000_000),
        "hard_quantity = 2000000: 20000000 lots do not fit the register's 24 bits; at most 16777215 lots = 1677721.5"),
    "position beyond 31 bits": (
        set_instrument(3, max_long=10 ** 9),
        "max_long = 1000000000: 10000000000 lots do not fit"),
    "notional beyond 48 bits": (
        set_instrument(3, max_notional=10 ** 30),
        "tick-lots do not fit the register's 48 bits"),
    "price beyond 24 bits": (
        set_instrument(3, max_price=10 ** 9),
        "max_price = 1000000000: 10000000000 ticks do not fit the register's 24 bits; at most 8388607 ticks = "
        "838860.7"),
    "price beyond 24 bits of the feed's ticks": (
        set_instrument(3, feed_tick="0.001"),
        "min_price = 9000: lies beyond +-8388607 ticks of the feed of 0.001, the most that the card reads; at most "
        "8388.607"),
    "half spread beyond 24 bits": (
        set_instrument(3, half_spread_bps=10_000),
        "half_spread_bps = 10000: 28800000 subticks do not fit"),
    "not a multiple of the lot": (
        set_instrument(3, quote_quantity="0.55"),
        "quote_quantity = 0.55: must be a multiple of the lot 0.1; near it are 0.5 and 0.6"),
    "feed tick below the wire": (
        set_instrument(3, feed_tick="0.00000003"),
        "feed_tick = 0.00000003: must be a positive multiple of 1e-7"),
    "tick too coarse": (set_instrument(3, tick=1000), "tick = 1000: is too coarse for feed_tick 1"),
    "tick too fine": (
        set_instrument(3, tick="0.0000001"),
        "tick = 0.0000001: is too fine for feed_tick 1; must be above 0.001953125"),
    "tick below 1e-9": (set_instrument(12, tick="0.0000012345"), "tick = 0.0000012345: must be a multiple of 1e-9"),
    "tick beyond 40 bits": (
        set_instrument(3, tick=1200, feed_tick=1200, min_price=1200, max_price=12000),
        "tick = 1200: 1200000000000 x 1e-9 do not fit the register's 40 bits"),
    "band upside down": (set_instrument(3, min_price=20_000), "min_price = 20000: must not exceed max_price (13500)"),
    "reference outside the band": (set_instrument(3, reference_price=1), "reference_price = 1: must lie in"),
    "quote above hard quantity": (
        set_instrument(3, hard_quantity="0.4"),
        "quote_quantity = 0.5: must be above 0 and lie in"),
    "quote above max quantity": (set_instrument(3, max_quantity="0.4"), "max_quantity = 0.4: would block every quote"),
    "position below one quote": (
        set_instrument(3, max_short="0.1"),
        "max_short = 0.1: would block every quote of this side"),
    "notional below one quote": (
        set_instrument(3, max_notional=100),
        "max_notional = 100: would block every quote near reference_price; at least reference_price x "
        "quote_quantity = 5625"),
    "both spreads": (
        set_instrument(3, half_spread_ticks=3),
        "half_spread_bps = 0.52: give either half_spread_bps or half_spread_ticks"),
    "zero threshold": (
        set_instrument(3, toward_ticks=0),
        "toward_ticks = 0: input should be greater than or equal to 1"),
    "start position off the grid": (
        set_instrument(3, initial_position="0.15"),
        "initial_position = 0.15: must be a multiple"),
    "unicast group": (set_in("feed", line_a="10.0.0.1:5"), "feed.line_a = '10.0.0.1:5': must be a multicast group"),
    "no port": (set_in("feed", line_a="224.0.31.11"), "feed.line_a = '224.0.31.11': must be address:port"),
    "lines alike": (set_in("feed", line_b="224.0.31.11:14320"), "feed.line_b = 224.0.31.11:14320: must differ"),
    "vlan": (set_in("feed", vlan=5000), 'feed.vlan = 5000: must be "none", "any" or a VLAN id 1..4094'),
    "group mac": (
        set_in("session", local_mac="01:00:5e:00:00:01"),
        "session.local_mac = '01:00:5e:00:00:01': must be the Ethernet address of one host"),
    "bad mac": (set_in("session", local_mac="zz"), "session.local_mac = 'zz': must be an Ethernet address such as"),
    "bad ip": (set_in("session", peer_ip="10.0.0.256"), "session.peer_ip = '10.0.0.256': must be an IPv4 address"),
    "own ip": (set_in("session", peer_ip="10.20.0.2"), "session.peer_ip = 10.20.0.2: must differ from local_ip"),
    "flag": (set_in("session", order_flags=["mpp"]), "'mpp' is no OrderFlags; there are cancelOnDisconnect, postOnly"),
    "two secrets": (set_in("session", secret_env="S"), "session.secret_env = S: give either secret_env or secret_file"),
    "time-outs the wrong way round": (
        set_in("session", resend_max_ms=100),
        "session.resend_max_ms = 100: must be at least resend_first_ms (1000) and resend_min_ms (200)"),
    "no time-out": (set_in("session", resend_min_ms=0), "session.resend_min_ms = 0: "),
    "never gives up": (
        set_in("session", resend_most=32), "session.resend_most = 32: input should be less than or equal to 31"),
    "client too long": (set_in("session", client_id="x" * 17), "session.client_id = 'xxxxxxxxxxxxxxxxx'"),
    "heartbeat too slow": (
        set_in("host", heartbeat_ms=80),
        "host.heartbeat_ms = 80: must be at most half of risk.deadman_ms (100)"),
    "verified too late": (
        set_in("host", verify_ms=60_001), "host.verify_ms = 60001: input should be less than or equal to 60000"),
    "verified at once": (set_in("host", verify_ms=0), "host.verify_ms = 0: input should be greater than 0"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_key_value_and_remedy(tree, name):
    change, expected = REFUSALS[name]
    change(tree)
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        config.build(tree, "some.toml")
    assert str(caught.value).startswith("some.toml: ")
    assert "\n" not in str(caught.value)


def test_file_errors_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        config.load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[feed\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: is not TOML"):
        config.load(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"broken\.toml: is not TOML"):
        config.load(broken)


def test_numbers_are_exact_however_written(tree):
    tree["instruments"][0]["tick"] = "0.05"
    as_text = config.build(tree)
    assert as_text.rows() == config.load(FIRST_LIGHT).rows()


def test_secret_sources(tree, tmp_path, monkeypatch):
    tree["session"].pop("secret_file")
    tree["session"]["secret_env"] = "T2Q_TEST_SECRET"
    monkeypatch.delitem(os.environ, "T2Q_TEST_SECRET", raising=False)
    loaded = config.build(tree, tmp_path / "x.toml")
    with pytest.raises(ConfigError, match=r"T2Q_TEST_SECRET holds 0 characters, must be 1\.\.48"):
        loaded.secret()
    monkeypatch.setenv("T2Q_TEST_SECRET", "hush")
    assert loaded.secret() == "hush"
    assert "hush" not in repr(loaded)
    del tree["session"]["secret_env"]
    tree["session"]["secret_file"] = "s"
    loaded = config.build(tree, tmp_path / "x.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        loaded.secret()
    (tmp_path / "s").write_text("x" * 49)
    with pytest.raises(ConfigError, match="holds 49 characters"):
        loaded.secret()

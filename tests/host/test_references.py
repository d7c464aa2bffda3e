"""References and equity: when the card is told what."""

from decimal import Decimal
from fractions import Fraction

import pytest

from hdl.control import registers as regmap
from host import config, params
from host.equity import Equity
from host.references import References

MS = 1_000_000


@pytest.fixture(name="loaded")
def _loaded(tree):
    def build(**changes):
        tree["host"] |= {key: changes.pop(key) for key in ("references", "reference_tau_ms") if key in changes}
        tree["risk"] |= changes
        return config.build(tree)
    return build


def test_feed_mid_is_followed_slowly(loaded):
    c = loaded(references="feed", reference_tau_ms=100, reference_ms=80)
    i, r = c.instruments[0], References(c)
    r.begin(0)
    first = r.updates(0)
    assert [words["ref_commit"] for words in first] == list(range(len(c.instruments)))
    start = int(Fraction(i.reference_price) / Fraction(i.tick))
    assert (first[0]["ref_value"], first[0]["ref_local"], first[0]["ref_basis"]) == (start, start, 0)
    assert r.updates(9 * MS) == []                  # an eighth of 80 ms has not passed
    assert r.pace.next_deadline_ns() == 10 * MS
    assert r.updates(10 * MS) == []                 # nobody has looked again
    up = int(Fraction(i.reference_price) * Fraction("1.01") / Fraction(i.feed_tick))
    r.observe(0, up, up, 100 * MS)                  # one time constant later: 63 % of 1 %
    [words] = r.updates(100 * MS)
    assert words["ref_commit"] == 0
    assert words["ref_value"] == pytest.approx(start * (1 + 0.01 * 0.632), rel=1e-4)
    assert r.told(0, 130 * MS) == (words["ref_value"], words["ref_value"], 0, 30)


def test_external_references_are_those_that_were_told(loaded):
    c = loaded(references="external")
    i, r = c.instruments[0], References(c)
    r.begin(0)
    assert r.updates(0) == []
    r.observe(0, 1000, 1001, 0)
    assert r.updates(10 ** 12) == []
    r.tell(0, i.reference_price, i.reference_price - i.tick, -3 * i.tick, now_ns=10 ** 12)
    [words] = r.updates(2 * 10 ** 12)
    ticks = int(Fraction(i.reference_price) / Fraction(i.tick))
    assert words == {"ref_value": ticks, "ref_local": ticks - 1, "ref_basis": -3 & (1 << regmap.TICK_BITS) - 1,
                     "ref_lot_value": params.lot_value(i, ticks, 1), "ref_commit": 0}
    assert (r.lot_value(0), r.lot_value(1)) == (words["ref_lot_value"], 0)
    for key, prices in (("price", (0,)), ("price", (10 ** 9,)), ("local", (i.reference_price, -1)),
                        ("basis", (i.reference_price, None, 10 ** 9))):
        with pytest.raises(params.ParameterError, match=rf"{key} = .* must be"):
            r.tell(0, *prices)


def test_equity_is_cash_and_marks(loaded):
    c = loaded(equity=1000, equity_ms=80, money_unit=Decimal("0.5"))
    marks = {}
    e = Equity(c, marks.get)
    i = c.instruments[0]
    assert e.value == 1000
    price = Fraction(i.reference_price)
    e.filled(0, 1, 10, int((price - 1) * 10 ** 9))      # ten lots bought for one less
    assert e.value == 1000 + 10 * Fraction(i.lot)
    marks[0] = float(price + 2)
    assert e.value == 1000 + 30 * Fraction(i.lot)
    e.filled(0, -1, 10, int((price + 1) * 10 ** 9))
    assert e.value == 1000 + 20 * Fraction(i.lot)
    assert e.begin() == {"equity_start": 2000}
    assert e.update(0) == 2000 + params.floor(40 * Fraction(i.lot))
    assert e.update(9 * MS) is None
    assert e.update(10 * MS) is not None
    assert e.greatest == e.value
    e.pace.live(8)
    assert e.pace.next_deadline_ns() == 11 * MS
    assert e.update(11 * MS - 1) is None
    assert e.update(11 * MS) is not None
    e.filled(0, -1, 10 ** 6, 0)
    marks[0] = 10.0 ** 9
    with pytest.raises(params.ParameterError, match="do not fit the register's 32 bits"):
        e.update(20 * MS)


def test_money_goes_to_words(loaded):
    words = params.risk_words(loaded(max_loss="10.9", max_drawdown=7, money_unit=2).risk)
    assert (words["loss_most"], words["drawdown_most"]) == (5, 3)
    with pytest.raises(config.ConfigError, match=r"risk.max_loss = 1: must be at least money_unit \(2\)"):
        loaded(max_loss=1)

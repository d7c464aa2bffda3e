"""Fills and the records of their quotes, in any order; and a fill that has none."""

from host.tracking import KEPT, Tracking

NAMES = ("ONE", "TWO")


def test_a_fill_of_a_quote():
    t = Tracking(NAMES)
    t.sent(0x100, 0)
    t.sent(0x201, 1)
    t.filled(0x100, 0, 7, 50)
    assert (t.lost(50), t.next_deadline_ns()) == ("", None)


def test_a_fill_before_its_record():
    """It waits; a mass cancel or a quote before it says nothing yet."""
    t = Tracking(NAMES, wait_ns=100)
    t.filled(0x300, 0, 7, 50)
    assert (t.lost(50), t.next_deadline_ns()) == ("", 150)
    t.sent(0x100, 0)
    t.sent(0x2FF)
    assert t.lost(149) == ""
    t.sent(0x300, 0)
    assert (t.lost(1000), t.next_deadline_ns()) == ("", None)


def test_a_later_record_says_that_there_is_none():
    t = Tracking(NAMES)
    t.filled(0x300, 0, 7, 50)
    t.sent(0x401, 1)
    assert t.lost(50) == "the venue reports fill 7 of ONE under the quote id 768, which the card has not sent for it"
    assert (t.lost(50), t.next_deadline_ns()) == ("", None)         # said once


def test_no_record_comes():
    t = Tracking(NAMES, wait_ns=100)
    t.filled(0x300, 0, 7, 50)
    assert t.lost(149) == ""
    assert "fill 7 of ONE under the quote id 768" in t.lost(150)


def test_of_another_instrument():
    """The id was sent, but not for what was filled; that of a mass cancel was sent for nothing."""
    t = Tracking(NAMES)
    t.sent(0x100, 0)
    t.sent(0x2FF)
    for n, quote_id in ((1, 0x100), (0, 0x2FF), (1, 0x2FF)):
        t.filled(quote_id, n, 7, 50)
        assert f"of {NAMES[n]} under the quote id {quote_id}" in t.lost(50)


def test_of_before_the_first():
    """What an earlier session has sent is not known."""
    t = Tracking(NAMES)
    t.sent(0x500, 0)
    t.filled(0x400, 0, 7, 50)
    assert "quote id 1024" in t.lost(50)


def test_only_so_many_are_kept():
    """An id that is too old to be remembered counts as known, one before the first does not."""
    t = Tracking(NAMES)
    for n in range(1, KEPT + 11):
        t.sent(n << 8, 0)
    for n in (1, 5, KEPT + 10):
        t.filled(n << 8, 0, 7, 50)
    assert t.lost(50) == ""
    t.filled(0, 0, 7, 50)
    assert "quote id 0" in t.lost(50)

"""Rules of the book by level, one by one, and against a naive book under random entries."""

from hypothesis import given
from hypothesis import strategies as st

from hdl.control.registers import TICK_BITS, TICK_LIMIT
from hdl.layout import sbe
from sim.golden.book import ACTIONS, BID, OFFER, RESET, UNKNOWN, Book, price_ticks

ACTION = sbe.load("cme_mdp3").enums["MDUpdateAction"]


def known(side):
    return [level[1] if level[0] else None for level in side]


def filled(depth=4):
    book = Book(depth)
    for level in range(1, depth + 1):
        assert book.apply(BID, ACTION["New"], level, 100 - level, 5, True)
        assert book.apply(OFFER, ACTION["New"], level, 100 + level, 5, True)
    return book


def test_nothing_is_known_at_first():
    book = Book()
    assert book.best_bid == book.best_ask == UNKNOWN
    assert len(book.bids) == len(book.offers) == 10


def test_new_shifts_down_and_the_last_falls_off():
    book = filled()
    book.apply(BID, ACTION["New"], 2, 50, 1, True)
    assert known(book.bids) == [99, 50, 98, 97]
    assert known(book.offers) == [101, 102, 103, 104]


def test_change_and_overlay_replace():
    for name in ("Change", "Overlay"):
        book = filled()
        book.apply(OFFER, ACTION[name], 3, 50, 1, True)
        assert known(book.offers) == [101, 102, 50, 104]


def test_delete_shifts_up_and_the_last_is_unknown():
    book = filled()
    book.apply(BID, ACTION["Delete"], 1, 99, 5, True)
    assert known(book.bids) == [98, 97, 96, None]


def test_delete_from_forgets_what_lies_below():
    book = filled()
    book.apply(BID, ACTION["DeleteFrom"], 3, 0, 0, False)
    assert known(book.bids) == [99, 98, None, None]


def test_delete_thru_forgets_the_side():
    book = filled()
    book.apply(OFFER, ACTION["DeleteThru"], 2, 0, 0, False)
    assert known(book.offers) == [None] * 4
    assert known(book.bids) == [99, 98, 97, 96]


def test_reset_forgets_both_sides_whatever_else_it_says():
    book = filled()
    assert book.apply(RESET, 99, 99, 0, 0, False)
    assert known(book.bids) == known(book.offers) == [None] * 4


def test_entries_that_no_book_keeps():
    book = filled()
    before = list(book.bids), list(book.offers)
    for kind, action, level in ((ord("E"), 0, 1), (BID, 6, 1), (BID, 0, 0), (OFFER, 1, 5), (ord("F"), 2, 2)):
        assert not book.apply(kind, action, level, 7, 7, True)
    assert (book.bids, book.offers) == before


def test_an_entry_that_cannot_be_represented_leaves_its_level_unknown():
    book = filled()
    book.apply(BID, ACTION["Change"], 1, 12345, 5, False)
    assert not book.best_bid[0]
    assert known(book.bids)[1:] == [98, 97, 96]


@given(st.lists(st.tuples(st.sampled_from((BID, OFFER, RESET, 70)), st.integers(0, 7), st.integers(0, 12),
                          st.integers(-1000, 1000), st.booleans()), max_size=60))
def test_against_a_naive_book(entries):
    book, sides = Book(), {BID: [None] * 10, OFFER: [None] * 10}
    for kind, action, level, px, is_known in entries:
        kept = book.apply(kind, action, level, px, 1, is_known)
        if kind == RESET:
            sides = {BID: [None] * 10, OFFER: [None] * 10}
        elif kind in sides and 1 <= level <= 10 and action in ACTIONS:
            old, value = sides[kind], px if is_known else None
            sides[kind] = {
                0: [*old[:level - 1], value, *old[level - 1:9]], 1: [*old[:level - 1], value, *old[level:]],
                2: [*old[:level - 1], *old[level:], None], 3: [None] * 10,
                4: old[:level - 1] + [None] * (11 - level), 5: [*old[:level - 1], value, *old[level:]]}[action]
        else:
            assert not kept
            continue
        assert kept
        assert (known(book.bids), known(book.offers)) == (sides[BID], sides[OFFER])


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 40), st.integers(0, (1 << 31) - 1))
def test_ticks_are_exact_or_refused(mantissa, shift, half):
    odd = 2 * half + 1
    for value in (mantissa, (mantissa >> 30) * (odd << shift) if abs(mantissa >> 30) * (odd << shift) < 1 << 63 else 0):
        ticks, exact = price_ticks(value, shift, odd, pow(odd, -1, 1 << TICK_BITS))
        quotient, rest = divmod(value, odd << shift)
        assert exact == (rest == 0 and -TICK_LIMIT <= quotient < TICK_LIMIT)
        if exact:
            assert ticks == quotient


def test_no_tick_configured_is_never_exact():
    assert price_ticks(0, 0, 0, 0) == (0, False)
    assert not price_ticks((1 << 63) - 1, 0, 1, 1)[1]   # the null price

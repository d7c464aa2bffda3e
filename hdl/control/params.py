"""Shape of an instrument's parameter row, derived from the register description."""

from amaranth import signed, unsigned
from amaranth.lib import data

from .registers import LOT_BITS, PARAMS, TICK_BITS

#: A price in ticks, of the feed or of the venue.
Ticks = signed(TICK_BITS)
#: Fraction bits of a quote subtick.
SUBTICK_BITS = 8
#: Bits of the greatest price in ticks times the greatest quantity of a quote in lots.
NOTIONAL_BITS = TICK_BITS - 1 + LOT_BITS

#: Every parameter at its word of 32 bits.
PARAM_ROW = data.FlexibleLayout(32 * len(PARAMS), {
    p.name: data.Field((signed if p.signed else unsigned)(p.width), 32 * p.word) for p in PARAMS})

#: A row is read in turns, one a cycle, into as few memories as that takes: the parameters of each turn, in the order in
#: which an evaluation needs them.
TURNS = (
    ("sym_en", "bid_en", "ask_en", "feed_tick_shift", "ref_scale", "skew_q8", "target_lots", "px_min_ticks",
     "px_max_ticks", "px_notional_ticks", "bands"),
    ("feed_tick_inv", "toward_ticks", "away_ticks", "skew_max_sub", "half_spread_sub", "quote_lots", "q_min_lots"),
    ("feed_tick_odd", "max_lots", "max_long_lots", "max_short_lots", "stale_cycles", "max_notional_lo",
     "max_notional_hi"),
    ("q_hard_lots", "lot_mult", "lot_exp", "tick_e9_lo", "tick_e9_hi", "instrument_id_lo", "instrument_id_hi",
     "drift_band"),
)
assert sorted(name for turn in TURNS for name in turn) == sorted(p.name for p in PARAMS)

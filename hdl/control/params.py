"""Shape of an instrument's parameter row, derived from the register description."""

from amaranth import signed, unsigned
from amaranth.lib import data

from .registers import PARAMS, ROW_WORDS

#: Every parameter at its word; a row is ``ROW_WORDS`` words of 32 bits.
PARAM_ROW = data.FlexibleLayout(32 * ROW_WORDS, {
    p.name: data.Field((signed if p.signed else unsigned)(p.width), 32 * p.word) for p in PARAMS})

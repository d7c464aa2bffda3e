"""Memories, as synthesis takes them without adding logic around them: block RAM, and sets of one bit an instrument."""

from amaranth import Cat, Signal

__all__ = ["BLOCK", "told_of"]

#: Attributes of a memory in blocks. What it reads in the cycle in which the same word is written must never be used, so
#: that synthesis need not care for it. Read it with a port of domain ``comb`` into a register without reset, which
#: becomes the output of the block; as that is slow, it goes into another register at once.
BLOCK = {"ram_style": "block", "no_rw_check": 1}

#: Bits of a set among which the first of two steps chooses.
_AT_ONCE = 16


def told_of(m, bits, index, name, unless=0):
    """``bits[index]`` as it was in the cycle before, ``0`` where ``unless`` held then.

    A choice among hundreds of bits is too much for a cycle, so that half of it is made before the register and half
    behind it.

    Parameters
    ----------
    m : Module
    bits : Signal of any width
    index : Value, below the width of ``bits``.
    name : str
    unless : Value of one bit

    Returns
    -------
    Value of one bit, a register and for more than 16 ``bits`` a multiplexer behind it.
    """
    low = _AT_ONCE.bit_length() - 1
    rows = [bits[at:at + _AT_ONCE] for at in range(0, len(bits), _AT_ONCE)]
    chosen = Signal(len(rows), name=f"{name}_chosen")
    m.d.sync += chosen.eq(Cat(each.bit_select(index[:low], 1) & ~unless for each in rows))
    if len(rows) == 1:
        return chosen[0]
    row = Signal(len(index) - low, name=f"{name}_row")
    m.d.sync += row.eq(index[low:])
    return chosen.bit_select(row, 1)

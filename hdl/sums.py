"""Sums of three numbers, as they cost least on a chip with carry chains."""

from amaranth import Cat

__all__ = ["sum_of_three"]


def sum_of_three(a, b, c):
    """``a + b + c`` in two carry chains, one behind the other: two LUTs a bit.

    Left to itself, synthesis makes two numbers of the three first, for two LUTs a bit more than the chain that adds
    them, unless a bit of the first sum is asked for.
    """
    first = b + c
    whole = a + first
    return Cat(a[0] ^ first[0], whole[1:]).as_signed() if whole.shape().signed else Cat(a[0] ^ first[0], whole[1:])

"""Comparisons of signed numbers, as they cost least on a chip with carry chains."""

from amaranth import Cat, Value

__all__ = ["less", "sums_to"]


def less(a, b):
    """``a < b``, where either may be signed: one carry chain, and nothing behind it.

    Whether a signed number is less follows from the last two carries of a difference. The last but one would leave the
    chain in its middle, which cuts it in two. With their highest bits inverted the numbers compare like unsigned ones.
    """
    a, b = Value.cast(a), Value.cast(b)
    signed = a.shape().signed or b.shape().signed
    width = max(len(v) + (signed and not v.shape().signed) for v in (a, b))

    def shifted(v):
        sign = v[-1] if v.shape().signed else 0
        whole = Cat(v, Value.cast(sign).replicate(width - len(v)) if width > len(v) else ())
        return Cat(whole[:-1], ~whole[-1]) if signed else whole

    return shifted(a) < shifted(b)


def sums_to(a, b, total):
    """``a + b == total``, all of them unsigned and of one width, modulo that width's range, without a carry chain.

    The sum is right if each bit of it has the carry that the bits of ``total`` ask for, and the bits below each give
    it: a bit gives one if both of its own are set, or if either is and the bit of ``total`` is not.
    """
    asked, given = a ^ b ^ total, (a & b) | ((a | b) & ~total)
    return asked == (given << 1)[:len(asked)]

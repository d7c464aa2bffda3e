"""Block RAM, as synthesis takes it without adding logic around it."""

__all__ = ["BLOCK"]

#: Attributes of a memory in blocks. What it reads in the cycle in which the same word is written must never be used, so
#: that synthesis need not care for it. Read it with a port of domain ``comb`` into a register without reset, which
#: becomes the output of the block; as that is slow, it goes into another register at once.
BLOCK = {"ram_style": "block", "no_rw_check": 1}

"""Memories, as synthesis takes them without adding logic around them: block RAM, and sets of one bit an instrument."""

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["BLOCK", "LANES", "LANE_BITS", "BlockMemory", "told_of"]

#: Attributes of a memory in blocks. What it reads in the cycle in which the same word is written must never be used, so
#: that synthesis need not care for it. Read it with a port of domain ``comb`` into a register without reset, which
#: becomes the output of the block; as that is slow, it goes into another register at once.
BLOCK = {"ram_style": "block", "no_rw_check": 1}

#: Lanes of a block of the widest words, each with a write enable of its own, and bits of a lane.
LANES, LANE_BITS = 4, 9

#: Words of a block by their width; the widest first.
_WORDS = {36: 512, 18: 1024, 9: 2048, 4: 4096, 2: 8192, 1: 16384}


class BlockMemory(wiring.Component):
    """A memory of blocks side by side, each with some bits of every word.

    Synthesis may as well put blocks one behind the other and choose between their outputs, which are slow as they are.

    Parameters
    ----------
    shape : shape of a word.
    depth : number of words, at most 16384.

    Members
    -------
    write_en : in(1), write_addr, write_data : in. Takes effect with the edge that ends the cycle.
    read_addr : in, read_data : out(shape) in the same cycle, to be treated as :data:`BLOCK` says.
    """

    def __init__(self, shape, depth):
        self.shape, self.depth = shape, depth
        address = range(depth)
        super().__init__({"write_en": In(1), "write_addr": In(address), "write_data": In(shape),
                          "read_addr": In(address), "read_data": Out(shape)})

    def elaborate(self, platform):
        m = Module()
        each = next(width for width, words in _WORDS.items() if words >= self.depth)
        width = Shape.cast(self.shape).width
        into, out = Signal(width), Signal(width)
        m.d.comb += [into.eq(self.write_data), self.read_data.eq(out)]
        for low in range(0, width, each):
            bits = slice(low, min(low + each, width))
            m.submodules[f"bits_{low}"] = memory = Memory(shape=bits.stop - low, depth=self.depth, init=[], attrs=BLOCK)
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [write.en.eq(self.write_en), write.addr.eq(self.write_addr), write.data.eq(into[bits]),
                         read.addr.eq(self.read_addr), out[bits].eq(read.data)]
        return m


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
    m.d.sync += chosen.eq(Cat(Mux(unless, 0, each.bit_select(index[:low], 1)) for each in rows))
    if len(rows) == 1:
        return chosen[0]
    row = Signal(len(index) - low, name=f"{name}_row")
    m.d.sync += row.eq(index[low:])
    return chosen.bit_select(row, 1)

"""From the feed's SecurityID to the instrument number, while its bytes arrive."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

#: Bytes of a SecurityID that are compared with every configured one as they arrive; the last one comes too late.
NARROWING = 3


class InstrumentLookup(wiring.Component):
    """Narrows down the configured SecurityIDs byte by byte, least significant first.

    All ids are compared at once, but eight bits a cycle, so that 256 of them are no slower than 16. With the last byte
    the number of the one id is known that agrees in the bytes before it, in flip-flops: every byte is compared a cycle
    ahead. Whether the id agrees in all bytes is said by ``same``, some cycles later, while its rows
    are fetched. Ids that agree in their low 24 bits cannot be told apart in time: the number is then the bitwise OR of
    theirs, and what ``same`` says of that one holds.

    Parameters
    ----------
    instruments : number of entries.

    Members
    -------
    write : in(1), write_index : in(8), write_id : in(32) set one entry; 0 means unused. The id stands
        from the cycle before on.
    ahead : in(8), place : in(3) byte *i* of an id was on ``ahead`` in the cycle before where bit *i* is set; in order,
        0 to 2. ``due`` : in(1) byte 1 is the one that comes next, whether in this cycle or later.
    hit : out(1), index : out(8) an entry agrees in the three bytes; in the cycle after ``place[2]``.
    address : in(8), security_id : in(32) entry asked about, and the id that it should have.
    same : out(1) it has. Three cycles after ``address``.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({"write": In(1), "write_index": In(8), "write_id": In(32), "ahead": In(8),
                          "place": In(NARROWING), "due": In(1), "hit": Out(1), "index": Out(8),
                          "address": In(8), "security_id": In(32), "same": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        ids = [Signal(8 * NARROWING, name=f"security_id_{i}") for i in range(n)]
        used = Signal(n)
        matches = Signal(n)     # in the bytes so far
        agrees = [Signal(n, name=f"agrees_{k}") for k in range(NARROWING - 1)]  # in byte k, if that is the one
        found = Signal(n)       # in all bytes, if the last one is the one
        write, is_some = Signal(n), Signal()
        m.d.comb += write.eq(self.write << self.write_index)
        m.d.sync += is_some.eq(self.write_id != 0)
        for i in range(n):
            with m.If(write[i]):
                m.d.sync += [ids[i].eq(self.write_id), used[i].eq(is_some)]
        ahead = [Cat(known.word_select(k, 8) == self.ahead for known in ids) for k in range(NARROWING)]
        m.d.sync += [its.eq(now) for its, now in zip(agrees, ahead, strict=False)]
        for k, before in enumerate([used, *[matches] * (NARROWING - 2)]):
            with m.If(self.place[k]):
                m.d.sync += matches.eq(before & agrees[k])
        # The last byte meets the others before its register, so that nothing but the encoder is behind it. If the one
        # before is due and does not come, nor does the last one in the next cycle.
        m.d.sync += found.eq(matches & (agrees[-1] | (~self.due).replicate(n)) & ahead[-1])
        m.d.sync += self.hit.eq(found.any())
        for bit in range((n - 1).bit_length()):
            m.d.sync += self.index[bit].eq(Cat(found[i] for i in range(n) if i >> bit & 1).any())

        m.submodules.whole = whole = Memory(shape=32, depth=n, init=[])
        port, read = whole.write_port(), whole.read_port()
        stored = Signal(32)
        m.d.comb += [port.addr.eq(self.write_index), port.data.eq(self.write_id),
                     port.en.eq(self.write & (self.write_index < n)), read.addr.eq(self.address), read.en.eq(1)]
        m.d.sync += [stored.eq(read.data), self.same.eq((stored == self.security_id) & (stored != 0))]
        return m


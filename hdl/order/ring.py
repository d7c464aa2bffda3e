"""What has left in the session and is not acknowledged: every byte, and where each segment begins."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.memory import BLOCK, BlockMemory
from hdl.order.host_frames import MESSAGE_RANGE

__all__ = ["CURSOR_AT", "ENTRY_CYCLES", "HEAD_AT", "LENGTH_BITS", "POP_AT", "ROUND", "SHOW_AT", "RetransmitRing"]

LENGTH_BITS = MESSAGE_RANGE[1].bit_length()
#: From the last byte of a segment to the cycle from which it is in the list.
ENTRY_CYCLES = 5
#: Cycles from one look at the list to the next one.
ROUND = 16
# Within a round: the oldest segment is asked for in 0, let go with 7; the cursor's is asked for in 8, shown from 13 on.
HEAD_AT, POP_AT, CURSOR_AT, SHOW_AT = 0, 7, 8, 12


class RetransmitRing(wiring.Component):
    """Ring of the bytes that the session has sent, and list of the segments that they left in.

    A segment is kept until all of it is acknowledged, so that what is sent again is the very segment that was sent
    before: the same bytes under the same numbers. Its sum is formed as it leaves, for the checksum of its repetition.

    A *cursor* stands at one of the segments or behind the newest one. It is at the oldest one after ``restart`` and
    ``rewind``, goes on with ``step``, and with the oldest segment when that is let go.

    **What must be so** (:class:`hdl.order.session.TcpSession` sees to it): from ``oldest`` to the last byte written
    there are never more than ``size`` bytes; ``una`` never goes back nor beyond what was written; a segment has at
    least the bytes of a message header, and between two of them there are more than :data:`ENTRY_CYCLES` cycles.
    Then no byte is overwritten before it is acknowledged, and the list never runs over.

    **Timing**: rounds of :data:`ROUND` cycles follow one another from the cycle after reset on. In each the oldest
    segment is let go if it was acknowledged at the beginning, and then that of the cursor is looked up. ``valid``
    falls in the cycle after ``restart``, ``rewind``, ``step``, ``acked`` and after a segment was let go that the cursor
    stood at. It rises in cycle 13 of a round in which none of these was, the oldest segment was looked at and kept, and
    there is one at the cursor. The byte asked for with ``place`` in cycle ``c`` is on ``byte`` in ``c + 2``.

    Parameters
    ----------
    size : int
        Bytes of the ring, a power of two from 2048 to 65536: TCP's windows are not scaled.

    Members
    -------
    restart : In(1), begin : In(32)
        Strobe: nothing has been sent, and the first byte will have number ``begin``.
    write : In(1), data : In(8), last : In(1), at : In(16)
        A byte leaves, the next one in order, with the low bits of its number; ``last`` with the last one of a segment.
    acked : In(1), una : In(32)
        All bytes before ``una`` are acknowledged. Strobe: it is another one than in the cycle before.
    oldest : Out(32)
        Number of the first byte of the oldest segment that is kept, or of the next one if there is none.
    rewind : In(1), step : In(1)
        Strobes: the cursor goes to the oldest segment, or to the next one. ``step`` counts only while ``valid``;
        ``rewind`` goes before it.
    valid : Out(1)
        There is a segment at the cursor, not yet acknowledged as a whole, and the next three are of it. A register, as
        they are.
    seq : Out(32), length : Out(11), sum : Out(16)
        Number of its first byte, its bytes, and the folded sum of their words, big endian from its first byte.
    place : In(16), byte : Out(8)
        A byte, by the low bits of its number.

    Raises
    ------
    ValueError
        A ``size`` that is no power of two from 2048 to 65536.
    """

    def __init__(self, size=8192):
        if size & (size - 1) or not 2048 <= size <= 65536:
            raise ValueError(f"a ring of {size} bytes: must be a power of two from 2048 to 65536")
        self.size = size
        super().__init__({
            "restart": In(1),
            "begin": In(32),
            "write": In(1),
            "data": In(8),
            "last": In(1),
            "at": In(16),
            "acked": In(1),
            "una": In(32),
            "oldest": Out(32),
            "rewind": In(1),
            "step": In(1),
            "valid": Out(1),
            "seq": Out(32),
            "length": Out(LENGTH_BITS),
            "sum": Out(16),
            "place": In(16),
            "byte": Out(8),
        })

    @property
    def entries(self):
        """Segments that the list has room for: no more of them fit the ring."""
        return self.size // MESSAGE_RANGE[0]

    def elaborate(self, platform):
        m = Module()
        self._elaborate_bytes(m)
        summed, length, sum_ = self._elaborate_sums(m)

        # The list. Numbers of entries have a bit more than their places, so that none differs from all.
        number = range(2 * self.entries)
        newest, head, cursor = Signal(number), Signal(number), Signal(number)
        entry_shape = data.StructLayout({"length": LENGTH_BITS, "sum": 16})
        m.submodules.entries = entries = Memory(shape=entry_shape, depth=self.entries, init=[], attrs=BLOCK)
        write, read = entries.write_port(), entries.read_port(domain="comb")
        m.d.comb += [write.addr.eq(newest), write.data.length.eq(length), write.data.sum.eq(sum_), write.en.eq(summed)]
        with m.If(summed):
            m.d.sync += newest.eq(newest + 1)

        turn, address = Signal(range(ROUND)), Signal.like(read.addr)
        fetched, entry = (Signal(entry_shape, name=name, reset_less=True) for name in ("fetched", "entry"))
        m.d.comb += read.addr.eq(address)
        m.d.sync += [turn.eq(turn + 1), fetched.eq(read.data), entry.eq(fetched)]
        with m.If(turn == HEAD_AT):
            m.d.sync += address.eq(head)
        with m.If(turn == CURSOR_AT):
            m.d.sync += address.eq(cursor)

        # Is the oldest segment acknowledged? `entry` is it from 3 on, `end` its end in 5, `open_` goes by that in 6.
        # What is listed after 0 waits for the next round, as does everything in which something was disturbed.
        end, open_ = Signal(32), Signal(signed(32))     # behind the oldest segment; how much of it is not acknowledged
        some, pops, kept, disturbed = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [end.eq(self.oldest + entry.length), open_.eq(end - self.una), pops.eq(0)]
        with m.If(turn == HEAD_AT):
            m.d.sync += [some.eq(head != newest), disturbed.eq(0)]
        with m.If(turn == POP_AT - 1):
            m.d.sync += [pops.eq(some & (open_ <= 0) & ~disturbed & ~self.restart), kept.eq(open_ > 0)]
        with m.If(pops):
            m.d.sync += [head.eq(head + 1), self.oldest.eq(end)]

        # The cursor's: `entry` is it in 11 and 12.
        with m.If(turn == CURSOR_AT):
            m.d.sync += some.eq(cursor != newest)
        with m.If((turn == SHOW_AT) & ~disturbed):
            m.d.sync += [self.length.eq(entry.length), self.sum.eq(entry.sum), self.valid.eq(some & kept)]
        passed = pops & (cursor == head)
        with m.If(self.restart | self.rewind | self.step | self.acked | passed):
            m.d.sync += self.valid.eq(0)
        with m.If(self.restart | self.rewind | self.step | self.acked):
            m.d.sync += disturbed.eq(1)
        with m.If(self.rewind):
            m.d.sync += [cursor.eq(head), self.seq.eq(self.oldest)]
        with m.Elif(self.step & self.valid):
            m.d.sync += [cursor.eq(cursor + 1), self.seq.eq(self.seq + self.length)]
        with m.If(pops & (self.rewind | (cursor == head))):
            m.d.sync += [cursor.eq(head + 1), self.seq.eq(end)]
        with m.If(self.restart):
            m.d.sync += [head.eq(0), cursor.eq(0), newest.eq(0), self.oldest.eq(self.begin), self.seq.eq(self.begin)]
        return m

    def _elaborate_bytes(self, m):
        m.submodules.bytes = memory = BlockMemory(8, self.size)
        fetched, byte = Signal(8, reset_less=True), Signal(8, reset_less=True)
        m.d.comb += [memory.write_en.eq(self.write), memory.write_addr.eq(self.at), memory.write_data.eq(self.data),
                     memory.read_addr.eq(self.place), self.byte.eq(byte)]
        m.d.sync += [fetched.eq(memory.read_data), byte.eq(fetched)]

    def _elaborate_sums(self, m):
        """Length and sum of the segment that has ended, and the strobe with which they stand."""
        # The two bytes of the sum change places with every byte, so that each is added to the lower one; the carry of
        # each goes into the other one with the next byte. Behind the last one zeros drive out the carries.
        low, high, swapped = Signal(9), Signal(9), Signal()
        length = Signal(LENGTH_BITS)
        ended = Signal(ENTRY_CYCLES - 1)        # one bit on its way, from the cycle after the last byte
        m.d.sync += ended.eq(Cat(self.write & self.last, ended))
        carries = ended[:-1].any()
        with m.If(self.write | carries):
            m.d.sync += [low.eq(high[:8] + Mux(self.write, self.data, 0) + low[8]), high.eq(low[:8] + high[8]),
                         swapped.eq(~swapped)]
        with m.If(self.write):
            m.d.sync += length.eq(length + 1)
        with m.If(ended[-1] | self.restart):
            m.d.sync += [low.eq(0), high.eq(0), swapped.eq(0), length.eq(0)]
        return ended[-1], length, Mux(swapped, Cat(high[:8], low[:8]), Cat(low[:8], high[:8]))

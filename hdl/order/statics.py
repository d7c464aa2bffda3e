"""What the host says once for a whole session, and how its bytes come to where they are used."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.registers import BY_NAME
from hdl.memory import BLOCK, LANE_BITS
from hdl.order.encoder import LANES

__all__ = ["COPY_CYCLES", "FILL_CYCLES", "WAIT_CYCLES", "WORD_BITS", "Expected", "StaticFields"]

WORD_BITS = 7           #: of the address of a register, here
WAIT_CYCLES = 64        #: in which a frame that has been started may still read the template
COPY_CYCLES = 384       #: four for each byte or word that is copied
FILL_CYCLES = WAIT_CYCLES + COPY_CYCLES     #: from ``restart`` to the last cycle without ``filled``

CLEAR_CYCLES = 512      # four for each word
# The count begins with the sweep; it is 1 in its top bit when all is done.
COPY_AT, DONE_AT = 2 * CLEAR_CYCLES - COPY_CYCLES, 2 * CLEAR_CYCLES
# Areas of the memory, by the two high bits of the address.
TEMPLATE, WORDS, PROGRAM = 0, 1, 2
ROW_BITS = 7

#: What is done with one word. ``lanes``: write byte ``byte`` of it to these lanes of template row ``place``;
#: ``received``: write it to position ``place`` of the receiver; ``loads``: it is one of the words that are shown whole.
_LAYOUT = {"word": WORD_BITS, "place": ROW_BITS, "byte": 2, "lanes": LANES, "received": 1}


@dataclass(frozen=True)
class Expected:
    """A byte that the receiver compares: byte ``index`` (0 is the least significant) of register ``port``, at
    ``position``."""

    port: str
    index: int
    position: int


class StaticFields(wiring.Component):
    """The static values of a session: words as the host writes them, and the template of the frames made from them.

    All lies in one block memory: the rows of the encoder's template, every word that the host writes, and a list of
    which byte of which word goes where. A copy goes through that list, four cycles an entry: after ``restart`` in cycle
    ``R`` nothing changes for :data:`WAIT_CYCLES`, then the bytes are copied, and ``filled``, 0 from ``R + 1`` on, is
    1 again from ``R + 1`` + :data:`FILL_CYCLES` on. Nothing else changes the template. A ``restart`` meanwhile begins
    anew. What is written between ``R`` and then may or may not be in the copy.

    **After reset** all words are made 0, and copied, as memories keep their content through a reset. ``filled`` is 1
    from the cycle 1024 on. In the first 512 cycles ``write`` and ``restart`` must be 0.

    Parameters
    ----------
    rows : list of tuple of int
        The template at first, :data:`hdl.order.encoder.LANES` bytes a row.
    places : list of hdl.order.encoder.Place
        Bytes of registers in the template. Ports are names of registers.
    expected : list of Expected
        Those of the receiver.
    loads : list of str
        Words, by the names of registers, that are shown whole as they come by.

    Members
    -------
    write : In(1), address : In(7), data : In(32)
        Strobe: a register was written. The words hold for a cycle more; at most one in four cycles.
    restart : In(1)
    filled : Out(1)
        What was copied is complete. A register.
    template_row : In, template : Out(32), row : In(32)
        See :class:`hdl.order.encoder.FrameEncoder`: ``template`` is the row of two cycles before. What is copied takes
        the way through ``row``: no frame is assembled while ``filled`` is 0, but for one that has begun before, in the
        first :data:`WAIT_CYCLES`.
    receive : Out(1), position : Out(6), byte : Out(8)
        Write a byte of the receiver's.
    load : Out
        Strobe for each of ``loads``: the word is on ``row``.

    Raises
    ------
    ValueError
        More to copy than there are cycles for.
    """

    def __init__(self, rows, places, expected, loads):
        self._rows = rows
        layout = data.StructLayout(_LAYOUT | {"loads": len(loads)})
        entries = []
        for place in places:
            word, byte = _source(place.port, place.index)
            entries.append({"word": word, "byte": byte, "place": place.row, "lanes": 1 << place.lane})
        for each in expected:
            word, byte = _source(each.port, each.index)
            entries.append({"word": word, "byte": byte, "place": each.position, "received": 1})
        entries += [{"word": BY_NAME[name].address, "loads": 1 << n} for n, name in enumerate(loads)]
        # The last one does nothing: it stands there, done again and again, until the next copy.
        if len(entries) >= COPY_CYCLES // 4:
            raise ValueError(f"{len(entries)} bytes and words to copy in {COPY_CYCLES} cycles, four cycles each, and "
                             f"four to end")
        self._layout = layout
        self._entries = [layout.const(entry).as_bits() for entry in entries]
        super().__init__({
            "write": In(1),
            "address": In(WORD_BITS),
            "data": In(8 * LANES),
            "restart": In(1),
            "filled": Out(1),
            "template_row": In(range(len(rows))),
            "template": Out(8 * LANES),
            "row": In(8 * LANES),
            "receive": Out(1),
            "position": Out(6),
            "byte": Out(8),
            "load": Out(len(loads)),
        })

    def elaborate(self, platform):
        m = Module()

        # The sweep, four cycles a word; a wait, part of what would be the way to the copy; the copy; the end.
        count = Signal(range(DONE_AT + 1))
        copying, clearing, phase = Signal(), Signal(), count[:2]
        assert WAIT_CYCLES % 64 == COPY_AT % 64 == 0
        assert COPY_AT - WAIT_CYCLES >= CLEAR_CYCLES
        with m.If(self.restart):
            m.d.sync += count.eq(COPY_AT - WAIT_CYCLES)
        with m.Elif(~self.filled):
            m.d.sync += count.eq(count + 1)
        high = count[6:-1]
        m.d.comb += [self.filled.eq(count[-1]), copying.eq(~self.filled & (high >= COPY_AT // 64)),
                     clearing.eq(~self.filled & (high < CLEAR_CYCLES // 64))]

        # Phase 0: an entry of the list is asked for. Phase 3: it is there, its word is asked for, and what the entry
        # before was about, there since phase 2, is written. The other phases are the host's, so that no word is read
        # while it is written.
        # Behind a copy there stands an entry that does nothing. Where another restart has cut one short it is done over
        # and over, with whatever is on `row`, until the copy comes and sets right what it did: nobody looks meanwhile.
        entry, now = Signal(self._layout), data.View(self._layout, self.row[:self._layout.size])
        with m.If(copying & (phase == 3)):
            m.d.sync += entry.eq(now)
        done = ~self.filled & (phase == 3)
        written_before = Signal()
        m.d.sync += written_before.eq(self.write)
        of_host = (self.write | written_before) & ((phase != 3) | self.filled)
        m.d.sync += self.byte.eq(self.row.word_select(entry.byte, 8))
        m.d.comb += [
            self.receive.eq(done & entry.received), self.position.eq(entry.place),
            self.load.eq(Mux(~self.filled & (phase == 2), entry.loads, 0)),
        ]

        depth = 4 << ROW_BITS
        init = [0] * depth

        def fill(area, words):
            assert len(words) <= 1 << ROW_BITS
            init[area << ROW_BITS:(area << ROW_BITS) + len(words)] = [_spread(word) for word in words]

        fill(TEMPLATE, [int.from_bytes(row, "little") for row in self._rows])
        fill(PROGRAM, [*[0] * (COPY_AT % CLEAR_CYCLES // 4), *self._entries])
        m.submodules.memory = memory = Memory(shape=LANES * LANE_BITS, depth=depth, init=init, attrs=BLOCK)
        write, read = memory.write_port(granularity=LANE_BITS), memory.read_port(domain="comb")
        fetched = Signal(LANES * LANE_BITS, reset_less=True)
        m.d.sync += fetched.eq(read.data)
        m.d.sync += self.template.eq(Cat(fetched.word_select(lane, LANE_BITS)[:8] for lane in range(LANES)))
        with m.If(~copying):
            m.d.comb += read.addr.eq(Cat(self.template_row, Const(0, ROW_BITS - len(self.template_row)),
                                         Const(TEMPLATE, 2)))
        with m.Elif(phase == 3):
            m.d.comb += read.addr.eq(Cat(now.word, Const(WORDS, 2)))
        with m.Else():
            m.d.comb += read.addr.eq(Cat(count[2:2 + ROW_BITS], Const(PROGRAM, 2)))
        with m.If(done):
            m.d.comb += write.addr.eq(Cat(entry.place, Const(TEMPLATE, 2)))
        with m.Else():
            m.d.comb += write.addr.eq(Cat(Mux(clearing, count[2:2 + WORD_BITS], self.address), Const(WORDS, 2)))
        for lane in range(LANES):
            word = Mux(clearing, 0, self.data.word_select(lane, 8))
            m.d.comb += [
                write.en[lane].eq((done & entry.lanes[lane]) | of_host | (clearing & (phase == 1))),
                write.data.word_select(lane, LANE_BITS).eq(Mux(done, self.byte, word)),
            ]
        return m


def _source(register, index):
    """Address of the word with byte ``index`` of a register, and which byte of it that is."""
    name = register if register in BY_NAME else f"{register}_lo"
    return BY_NAME[name].address + index // LANES, index % LANES


def _spread(word):
    """The bytes of a word in the lanes of the memory."""
    return sum((word >> 8 * lane & 0xFF) << lane * LANE_BITS for lane in range(LANES))

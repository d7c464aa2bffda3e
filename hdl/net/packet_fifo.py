"""A byte FIFO that shows whole packets only."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.mac.stream import Packet

__all__ = ["PacketFifo"]


class PacketFifo(wiring.Component):
    """Byte FIFO with commit and discard.

    The writer cannot be stalled against its will: it writes bytes as they come, and decides at the end whether they
    are to be kept. The reader sees a packet only after its commit, with its length, and then without a gap.

    **Latency**: the first byte of a packet committed in cycle ``c`` is on ``o`` in ``c + 2`` if the FIFO was empty, in
    ``c + 3`` if it is also its last one and was written in ``c``. What is on ``o`` comes from registers.
    One byte a cycle in and out; the last byte of a packet may be followed by the first one of the next in the next
    cycle.

    **Bad input**: a byte for which there is no room is lost, and then its packet is never shown, whatever else is
    written of it: the commit is refused, which frees the packet's bytes, and ``dropped`` says so. The same happens
    if ``max_packets`` packets are in the FIFO already. A commit of a packet of no bytes does nothing.

    Parameters
    ----------
    depth_bytes : int
        Bytes of room, a power of two.
    max_packets : int
        Packets of room, a power of two.

    Members
    -------
    w_data : In(8), w_valid : In(1)
        A byte of the packet being written.
    w_ready : Out(1)
        A byte written in this cycle has room. Depends on registers only. A writer that can wait, waits for it.
    w_commit : In(1)
        Strobe: the packet is complete, including a byte written in this cycle.
    w_discard : In(1)
        Strobe: forget the packet, including a byte written in this cycle. Goes before ``w_commit``.
    w_trim : In(3)
        With ``w_commit``: leave out this many bytes at the packet's end (the FCS, say).
    w_tag : In(8)
        With ``w_commit``: a tag of the writer's choice.
    w_room : Out(1)
        Nothing of the packet was lost, and there is room for one more packet: a commit will be accepted if the byte
        written with it, if any, has room. Depends on registers only.
    w_refused : Out(1)
        A commit in this cycle would be refused. Depends on registers and ``w_valid``.
    dropped : Out(1)
        Strobe for a counter, with ``w_commit``: the commit was refused.
    o : Out(Packet)
        The packets, in the order of their commits.
    length_valid : Out(1)
        ``length`` and ``tag`` are those of the packet on ``o``; equal to ``o.valid``.
    length : Out(range(depth_bytes + 1)), tag : Out(8)
        Length in bytes and tag of the packet on ``o``, the same from its first byte to its last one.
    """

    def __init__(self, depth_bytes: int, max_packets: int):
        for name, value in (("depth_bytes", depth_bytes), ("max_packets", max_packets)):
            if value < 2 or value & (value - 1):
                raise ValueError(f"{name} is {value}, must be a power of two and at least 2")
        self.depth_bytes = depth_bytes
        self.max_packets = max_packets
        super().__init__({
            "w_data": In(8),
            "w_valid": In(1),
            "w_ready": Out(1),
            "w_commit": In(1),
            "w_discard": In(1),
            "w_trim": In(3),
            "w_tag": In(8),
            "w_room": Out(1),
            "w_refused": Out(1),
            "dropped": Out(1),
            "o": Out(Packet),
            "length_valid": Out(1),
            "length": Out(range(depth_bytes + 1)),
            "tag": Out(8),
        })

    def elaborate(self, platform):
        m = Module()

        entry = data.StructLayout({"length": range(self.depth_bytes + 1), "tag": 8})
        # No byte that is used is read in the cycle in which it is written: synthesis need not care for that.
        m.submodules.bytes = bytes_ = Memory(shape=8, depth=self.depth_bytes, init=[], attrs={"no_rw_check": 1})
        m.submodules.packets = packets = Memory(shape=entry, depth=self.max_packets, init=[])
        byte_write, byte_read = bytes_.write_port(), bytes_.read_port(domain="comb")
        packet_write, packet_read = packets.write_port(), packets.read_port(domain="comb")

        # Pointers have one bit more than an address, so that full and empty differ. `start` is where the packet
        # being written begins: what lies before it is committed. Pointers come with their neighbours where there is no
        # time to add before they are compared or used.
        start, end = Signal(range(2 * self.depth_bytes)), Signal(range(2 * self.depth_bytes))
        level = Signal(range(self.depth_bytes + 1))         # bytes of the packet being written
        long = Signal()                                     # they are more than can be left out
        taken = Signal.like(start)
        taken_before = Signal.like(start, init=2 * self.depth_bytes - 1)
        taken_1, taken_2 = Signal.like(start, init=1), Signal.like(start, init=2)
        bytes_full, lost = Signal(), Signal()
        packet_in = Signal(range(2 * self.max_packets))
        packet_out = Signal.like(packet_in)
        packet_out_before = Signal.like(packet_in, init=2 * self.max_packets - 1)
        packets_full = Signal()
        present = Signal(range(self.max_packets + 1))       # packets that may be shown: some, and more than one
        any_present, many_present = Signal(), Signal()

        # Write side.
        store = self.w_valid & self.w_ready
        take = self.o.valid & self.o.ready
        take_last = take & self.o.last
        some = Signal()             # the packet has bytes that are not left out
        keep = Signal()
        back = Signal()             # forget the packet
        change = Signal(signed(5))  # of `level`, if bytes are left out
        m.d.comb += [
            self.w_ready.eq(~bytes_full & ~lost),
            self.w_room.eq(~lost & ~packets_full),
            self.w_refused.eq(~self.w_room | (self.w_valid & bytes_full)),
            keep.eq(self.w_commit & ~self.w_discard & ~self.w_refused & some),
            back.eq((self.w_commit | self.w_discard) & ~keep),
            self.dropped.eq(self.w_commit & ~self.w_discard & self.w_refused),
            change.eq(store - self.w_trim),
            byte_write.addr.eq(end),
            byte_write.data.eq(self.w_data),
            byte_write.en.eq(store),
        ]
        few = level[:len(self.w_trim)]
        with m.Switch(self.w_trim):
            for trim in range(1 << len(self.w_trim)):
                with m.Case(trim):
                    m.d.comb += some.eq(long | ((few == trim) & store))
                    if trim < 7:
                        with m.If(few > trim):
                            m.d.comb += some.eq(1)
        trims = self.w_commit & self.w_trim.any()
        kept = Signal.like(level)
        moved = Signal.like(end)
        for now, after in ((level, kept), (end, moved)):    # `store` comes late: it chooses and is not added
            m.d.comb += after.eq(Mux(trims, now + change, Mux(store, now + 1, now)))
        with m.If(self.w_valid & ~self.w_ready):
            m.d.sync += lost.eq(1)
        with m.If(self.w_commit | self.w_discard):
            m.d.sync += [level.eq(0), long.eq(0), lost.eq(0)]
        with m.Elif(store):
            m.d.sync += [level.eq(kept), long.eq(long | few.all())]
        with m.If(back):
            m.d.sync += end.eq(start)
        with m.Elif(store | self.w_commit):
            m.d.sync += end.eq(moved)
        with m.If(keep):
            m.d.sync += [start.eq(moved), packet_in.eq(packet_in + 1)]

        # Full after this cycle? Never by what is taken or forgotten; a byte that is stored fills the last place.
        shrinks = (level.any() | store) & (back | trims)
        with m.If(take | shrinks):
            m.d.sync += bytes_full.eq(0)
        with m.Elif(store & ((end ^ taken_before) == self.depth_bytes)):
            m.d.sync += bytes_full.eq(1)
        with m.If(take_last):
            m.d.sync += packets_full.eq(0)
        with m.Elif(keep & ((packet_in ^ packet_out_before) == self.max_packets)):
            m.d.sync += packets_full.eq(1)

        m.d.comb += [
            packet_write.addr.eq(packet_in),
            packet_write.data.length.eq(kept),
            packet_write.data.tag.eq(self.w_tag),
            packet_write.en.eq(self.w_commit & ~packets_full),      # without `keep` it means nothing
        ]

        # A byte is fetched two cycles before it is shown, into the memory's output and into `o.data`. A packet of one
        # byte that was written with its commit is not there yet, and waits for a cycle; all others can be shown.
        appears = Signal()
        late = Signal()
        m.d.comb += appears.eq(late | (keep & level.any()))
        m.d.sync += late.eq(keep & ~level.any())
        with m.If(appears & ~take_last):
            m.d.sync += [present.eq(present + 1), any_present.eq(1), many_present.eq(any_present)]
        with m.If(take_last & ~appears):
            m.d.sync += [present.eq(present - 1), any_present.eq(many_present), many_present.eq(present > 2)]

        # Read side.
        valid = Signal()
        valid_next = Signal()
        load = Signal()             # the next packet is shown from the next cycle on
        upcoming = Signal.like(packet_out)
        left = Signal.like(level)   # bytes that have not been taken
        m.d.comb += [
            valid_next.eq(Mux(take_last, many_present, any_present)),
            load.eq(valid_next & (take_last | ~valid)),
            packet_read.addr.eq(upcoming),
            self.length_valid.eq(valid),
            self.o.valid.eq(valid),
            byte_read.addr.eq(Mux(take, Mux(valid_next, taken_2, taken_1), Mux(valid_next, taken_1, taken))),
        ]
        m.d.sync += valid.eq(valid_next)
        # `fetched` is the output of block memory, which is slow: before the next register is no time for anything, not
        # even for a reset.
        fetched, shown = Signal(8, reset_less=True), Signal(8, reset_less=True)
        m.d.comb += self.o.data.eq(shown)
        m.d.sync += fetched.eq(byte_read.data)
        with m.If(take | ~valid):
            m.d.sync += shown.eq(fetched)
        with m.If(take):
            m.d.sync += [taken_before.eq(taken), taken.eq(taken_1), taken_1.eq(taken_2), taken_2.eq(taken_2 + 1),
                         left.eq(left - 1), self.o.last.eq(left == 2)]
        with m.If(load):
            m.d.sync += [
                upcoming.eq(upcoming + 1), self.length.eq(packet_read.data.length), self.tag.eq(packet_read.data.tag),
                left.eq(packet_read.data.length), self.o.last.eq(packet_read.data.length == 1),
            ]
        with m.If(take_last):
            m.d.sync += [packet_out_before.eq(packet_out), packet_out.eq(packet_out + 1)]

        return m

"""A byte FIFO that shows whole packets only."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.mac.stream import Packet

__all__ = ["PacketFifo"]


class PacketFifo(wiring.Component):
    """Byte FIFO with commit and discard.

    The writer cannot be stalled against its will: it writes bytes as they come, and decides at the end whether they
    are to be kept. The reader sees a packet only after its commit, with its length, and then without a gap.

    **Latency**: the first byte of a packet committed in cycle ``c`` is on ``o`` in ``c + 2`` if the FIFO was empty.
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
        m.submodules.bytes = bytes_ = Memory(shape=8, depth=self.depth_bytes, init=[])
        m.submodules.packets = packets = Memory(shape=entry, depth=self.max_packets, init=[])
        byte_write, byte_read = bytes_.write_port(), bytes_.read_port()
        packet_write, packet_read = packets.write_port(), packets.read_port(domain="comb")

        # Pointers have one bit more than an address, so that full and empty differ. `start` is where the packet
        # being written begins: what lies before it is committed.
        start = Signal(range(2 * self.depth_bytes))
        level = Signal(range(self.depth_bytes + 1))         # bytes of the packet being written
        taken = Signal.like(start)
        lost = Signal()
        packet_in = Signal(range(2 * self.max_packets))
        packet_out = Signal.like(packet_in)

        # Write side.
        end = (start + level)[:len(start)]
        bytes_full = (end ^ taken) == self.depth_bytes
        packets_full = (packet_in ^ packet_out) == self.max_packets
        store = self.w_valid & self.w_ready
        written = Signal(range(self.depth_bytes + 2))
        kept = Signal(range(self.depth_bytes + 1))
        m.d.comb += [
            self.w_ready.eq(~bytes_full & ~lost),
            written.eq(level + store),
            kept.eq(Mux(written > self.w_trim, written - self.w_trim, 0)),
            self.w_room.eq(~lost & ~packets_full),
            self.w_refused.eq(~self.w_room | (self.w_valid & bytes_full)),
            byte_write.addr.eq(end),
            byte_write.data.eq(self.w_data),
            byte_write.en.eq(store),
            packet_write.addr.eq(packet_in),
            packet_write.data.length.eq(kept),
            packet_write.data.tag.eq(self.w_tag),
        ]
        m.d.sync += level.eq(written)
        with m.If(self.w_valid & ~self.w_ready):
            m.d.sync += lost.eq(1)
        with m.If(self.w_commit | self.w_discard):
            m.d.sync += [level.eq(0), lost.eq(0)]
            with m.If(~self.w_discard):
                m.d.comb += self.dropped.eq(self.w_refused)
                with m.If(~self.w_refused & (kept != 0)):
                    m.d.comb += packet_write.en.eq(1)
                    m.d.sync += [start.eq(start + kept), packet_in.eq(packet_in + 1)]

        # Read side. The read port is one byte ahead, so `valid` may only rise a cycle after the commit has been seen:
        # what it fetches in the cycle of the commit may be older than the packet.
        present = packet_in - packet_out
        valid = Signal()
        position = Signal(range(self.depth_bytes))
        take = self.o.valid & self.o.ready
        m.d.comb += [
            packet_read.addr.eq(packet_out),
            self.length.eq(packet_read.data.length),
            self.tag.eq(packet_read.data.tag),
            self.length_valid.eq(valid),
            self.o.valid.eq(valid),
            self.o.data.eq(byte_read.data),
            self.o.last.eq(position + 1 == self.length),
            byte_read.addr.eq(taken + take),
            byte_read.en.eq(1),
        ]
        m.d.sync += taken.eq(taken + take)
        with m.If(take & self.o.last):
            m.d.sync += [position.eq(0), packet_out.eq(packet_out + 1)]
            m.d.sync += valid.eq(present[:len(packet_in)] != 1)
        with m.Else():
            m.d.sync += valid.eq(present[:len(packet_in)] != 0)
            with m.If(take):
                m.d.sync += position.eq(position + 1)

        return m

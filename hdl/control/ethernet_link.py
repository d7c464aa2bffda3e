"""The host link in Ethernet frames, beside the serial port."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.layout import net, sbe
from hdl.mac.stream import HeldFrame, RxBytes
from hdl.net.packet_fifo import PacketFifo

__all__ = ["HEADER_SIZE", "MAX_FRAME", "ROOM", "EthernetLink"]

_HEADER = sbe.load("t2q_link").composites["FrameHeader"]
_LENGTH, _SEQUENCE, _LOST = (net.ETHERNET.size + _HEADER[name].offset for name in ("length", "sequence", "lost"))

HEADER_SIZE = net.ETHERNET.size + _HEADER.size  #: bytes of a frame before those of the link
MAX_FRAME = 124         #: bytes of the longest frame that the card sends, without FCS
ROOM = 2048             #: bytes of the buffer in which bytes of the link wait, a little of which stays unused
IDLE_CYCLES = 16        # without a byte, after which a frame is closed

# The machines below take and write the header byte by byte.
assert [(f.name, f.size, f.byteorder) for f in _HEADER.wire_fields] == [("length", 2, "little"),
                                                                       ("sequence", 1, "little"), ("lost", 1, "little")]


def _after(sequence):
    """Number of the frame after one with this number."""
    return Mux(sequence.all(), 1, sequence + 1)


class EthernetLink(wiring.Component):
    """Carries the byte stream of :class:`hdl.control.link.Link` in Ethernet frames, or over a serial port.

    A frame is an Ethernet header with EtherType 0x88B5, a ``FrameHeader`` of schema ``t2q_link``, and bytes of the
    link; what follows them is padding.

    **From the host.** A frame is taken if its FCS is right, its EtherType is ours and it is addressed to ``mac``; its
    source is where answers go from then on. All others are let go without a trace. A frame begins with the start of a
    packet, and a packet does not reach into the next frame: a frame that is lost is the packets in it and no others.
    Their numbers tell, and the card's frames pass it on. A frame that finds no room is lost too.

    **To the host.** Nothing before the host has spoken. A frame is closed when it is full (:data:`MAX_FRAME`) or when
    the link has had nothing to say for 16 cycles, and then waits for the order port; meanwhile the link waits.

    **Two links.** Bytes of the host are taken from both; a frame goes before what the serial port says, and cuts a
    packet that the serial port has begun. What the card says goes to where the last accepted packet came from, at
    first to the serial port.

    **Bad input**: see above; a frame whose length is more than it holds is let go like one with a wrong FCS.

    Parameters
    ----------
    mac : int
        Own Ethernet address, for this link only.

    Members
    -------
    rx : In(RxBytes)
        Frames of the order port.
    tx : Out(HeldFrame)
        Frames for the order port.
    serial_rx_data : In(8), serial_rx_valid : In(1), serial_rx_ready : Out(1)
        Bytes from the host, of the serial port. A byte is taken in a cycle in which both are 1.
    serial_tx_data : Out(8), serial_tx_valid : Out(1), serial_tx_ready : In(1)
        Bytes to the host, likewise.
    link_rx_data : Out(8), link_rx_valid : Out(1), link_rx_ready : In(1), link_rx_restart : Out(1),
    link_tx_data : In(8), link_tx_valid : In(1), link_tx_ready : Out(1)
        The link.
    link_rx_packets : In(1)
        Strobe: the link has accepted a packet, whose last byte it took before it took any other.
    lost : Out(8)
        How often one or more frames were missing before a frame that was taken, modulo 256.
    """

    def __init__(self, *, mac=net.MAC_HOST_LINK):
        if not 0 < mac < 1 << 48 or mac >> 40 & 1:
            raise ValueError(f"mac is {mac:#014x}, must be the Ethernet address of a single station")
        self.mac = mac
        super().__init__({
            "rx": In(RxBytes), "tx": Out(HeldFrame),
            "serial_rx_data": In(8), "serial_rx_valid": In(1), "serial_rx_ready": Out(1),
            "serial_tx_data": Out(8), "serial_tx_valid": Out(1), "serial_tx_ready": In(1),
            "link_rx_data": Out(8), "link_rx_valid": Out(1), "link_rx_ready": In(1), "link_rx_restart": Out(1),
            "link_tx_data": In(8), "link_tx_valid": In(1), "link_tx_ready": Out(1),
            "link_rx_packets": In(1), "lost": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        # Address of the host: bytes of the last good frame's, and of the frame under way.
        m.submodules.hosts = hosts = Memory(shape=8, depth=16, init=[])
        host = Signal()             # half that holds the former
        to_ethernet = Signal()      # where answers go
        self._elaborate_receive(m, hosts, host, to_ethernet)
        self._elaborate_transmit(m, hosts, host, to_ethernet)
        return m

    def _elaborate_receive(self, m, hosts, host, to_ethernet):
        rx = self.rx
        m.submodules.ring = ring = PacketFifo(ROOM)
        write_host = hosts.write_port()

        # -- a frame as it arrives
        index = Signal(range(HEADER_SIZE + 1))      # stops at the first byte of the link
        constants = {}
        for field, value in (("dst", self.mac), ("ethertype", net.ETHERTYPE_HOST_LINK)):
            field = net.ETHERNET[field]
            constants |= {field.offset + n: byte for n, byte in enumerate(value.to_bytes(field.size, "big"))}
        # What this byte has to be. It is looked up a byte ahead: bytes of a frame come without a gap.
        wanted, checked = Signal(8), Signal()
        with m.If(rx.valid):
            m.d.sync += checked.eq(0)
            with m.Switch(index):
                for position, value in constants.items():
                    if position:
                        with m.Case(position - 1):
                            m.d.sync += [wanted.eq(value), checked.eq(1)]
        with m.Else():
            m.d.sync += [wanted.eq(constants[0]), checked.eq(1)]

        bad = Signal()
        left = Signal(11)                           # bytes of the link still to come
        inside = Signal()                           # this byte is one of them
        beyond = Signal(net.FCS_SIZE)               # so many bytes came after them; the last ones are the FCS
        sequence, expected, following = Signal(8), Signal(8), Signal(8)
        gap = Signal()
        src = net.ETHERNET["src"]       # low bits of its positions are all different: they serve as addresses
        m.d.comb += [
            ring.w_data.eq(rx.data), ring.w_valid.eq(rx.valid & inside),
            write_host.addr.eq(Cat(index[:3], ~host)), write_host.data.eq(rx.data),
        ]
        with m.If(rx.valid):
            with m.If(index != HEADER_SIZE):
                m.d.sync += index.eq(index + 1)
            with m.Elif(~inside):
                m.d.sync += beyond.eq(Cat(1, beyond))
            with m.If(inside):
                m.d.sync += [left.eq(left - 1), inside.eq(left != 1)]
            with m.If(checked & (rx.data != wanted)):
                m.d.sync += bad.eq(1)
            with m.Switch(index):
                with m.Case(*range(src.offset, src.end)):
                    m.d.comb += write_host.en.eq(1)
                with m.Case(_LENGTH):
                    m.d.sync += left[:8].eq(rx.data)
                with m.Case(_LENGTH + 1):
                    m.d.sync += left[8:].eq(rx.data)
                    with m.If(rx.data[len(left) - 8:].any()):
                        m.d.sync += bad.eq(1)
                with m.Case(_SEQUENCE):
                    m.d.sync += sequence.eq(rx.data)
                with m.Case(HEADER_SIZE - 1):
                    m.d.sync += inside.eq(left.any())
        # Numbers have come long before the end.
        m.d.sync += [following.eq(_after(sequence)), gap.eq((sequence != expected) & sequence.any())]
        good = Signal()
        m.d.comb += [
            good.eq(rx.ok & ~bad & beyond[-1] & ring.w_room),
            ring.w_commit.eq(rx.eof), ring.w_discard.eq(rx.eof & ~good),
        ]
        with m.If(rx.eof):
            m.d.sync += [index.eq(0), bad.eq(0), inside.eq(0), beyond.eq(0)]
            with m.If(good):
                m.d.sync += [host.eq(~host), expected.eq(following), self.lost.eq(self.lost + gap)]

        # -- to the link
        o = ring.o
        first = Signal(init=1)                      # a frame's first byte is next
        begun = Signal()                            # the link is ready for it
        busy, was_busy = Signal(), Signal()         # it is a frame's turn
        allowed = Signal()
        from_ethernet = Signal()                    # the last byte that the link took was of a frame
        m.d.comb += [
            allowed.eq(busy & (begun | ~first)),
            o.ready.eq(allowed & self.link_rx_ready),
            self.link_rx_data.eq(Mux(busy, o.data, self.serial_rx_data)),
            self.link_rx_valid.eq(Mux(busy, o.valid & allowed, self.serial_rx_valid & ~was_busy)),
            self.link_rx_restart.eq(Mux(busy, o.valid & first & ~begun, was_busy)),
            self.serial_rx_ready.eq(~busy & ~was_busy & self.link_rx_ready),
        ]
        m.d.sync += [busy.eq(ring.busy), was_busy.eq(busy), begun.eq(o.valid & first & ~o.ready)]
        with m.If(o.valid & o.ready):
            m.d.sync += first.eq(o.last)
        with m.If(self.link_rx_valid & self.link_rx_ready):
            m.d.sync += from_ethernet.eq(busy)
        with m.If(self.link_rx_packets):
            m.d.sync += to_ethernet.eq(from_ethernet)

    def _elaborate_transmit(self, m, hosts, host, to_ethernet):
        tx = self.tx
        # The whole frame stands in the memory; what is always the same, from the beginning.
        fixed = net.ETHERNET.pack(dst=0, src=self.mac, ethertype=net.ETHERTYPE_HOST_LINK)
        m.submodules.frame = frame = Memory(shape=8, depth=1 << len(tx.position), init=[*fixed],
                                            attrs={"no_rw_check": 1, "ram_style": "block"})
        write, read = frame.write_port(), frame.read_port(domain="comb")
        # What is written is put together a cycle before.
        address, value, enable = Signal.like(write.addr), Signal(8, reset_less=True), Signal()
        m.d.sync += [write.addr.eq(address), write.data.eq(value), write.en.eq(enable)]
        read_host = hosts.read_port(domain="comb")
        sequence = Signal(8)
        size = Signal(range(MAX_FRAME + 1), init=HEADER_SIZE)   # bytes so far, header included
        idle = Signal(range(IDLE_CYCLES))
        src = net.ETHERNET["src"]
        index = Signal(range(2 * src.end), init=src.offset)     # while the frame is closed; as the address was written
        half = Signal()
        # The memory's output is slow: no time for anything before the next register, not even for a reset.
        fetched, byte = Signal(8, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [fetched.eq(read.data), byte.eq(fetched)]
        m.d.comb += [
            self.serial_tx_data.eq(self.link_tx_data), self.serial_tx_valid.eq(self.link_tx_valid & ~to_ethernet),
            self.link_tx_ready.eq(~to_ethernet & self.serial_tx_ready),
            read_host.addr.eq(Cat(index[:3], half)),
            read.addr.eq(tx.position), tx.length.eq(size), tx.byte.eq(byte),
        ]
        # What is written when a frame is closed: address of the host, and the header. A length is one byte.
        assert MAX_FRAME < 256
        closing = {src.offset + n: (net.ETHERNET["dst"].offset + n, read_host.data) for n in range(src.size)}
        closing |= {src.end: (_LENGTH, size - HEADER_SIZE), src.end + 1: (_SEQUENCE, sequence),
                    src.end + 2: (_LOST, self.lost)}

        with m.FSM(init="filling"):
            with m.State("filling"):
                m.d.comb += [address.eq(size), value.eq(self.link_tx_data)]
                m.d.sync += [index.eq(src.offset), half.eq(host)]
                with m.If(to_ethernet):
                    m.d.comb += self.link_tx_ready.eq(1)
                with m.If(to_ethernet & self.link_tx_valid):
                    m.d.comb += enable.eq(1)
                    m.d.sync += [size.eq(size + 1), idle.eq(0)]
                    with m.If(size == MAX_FRAME - 1):
                        m.next = "closing"
                with m.Elif(size != HEADER_SIZE):
                    m.d.sync += idle.eq(idle + 1)
                    with m.If(idle == IDLE_CYCLES - 1):
                        m.next = "closing"
            with m.State("closing"):
                m.d.comb += enable.eq(1)
                with m.Switch(index):
                    for n, (place, content) in closing.items():
                        with m.Case(n):
                            m.d.comb += [address.eq(place), value.eq(content)]
                m.d.sync += index.eq(index + 1)
                with m.If(index == max(closing)):
                    m.d.sync += sequence.eq(_after(sequence))
                    m.next = "waiting"
            with m.State("waiting"):
                m.d.comb += tx.available.eq(1)
                m.d.sync += idle.eq(0)
                with m.If(tx.release):
                    m.d.sync += size.eq(HEADER_SIZE)
                    m.next = "filling"
        return m

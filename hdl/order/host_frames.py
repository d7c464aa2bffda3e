"""What the host sends on the order port: one packet at a time, summed while it is fetched."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import net
from hdl.mac.stream import Packet
from hdl.order.templates import PATCHED, STARBASE_HEADER

__all__ = ["FRAME_TX", "MESSAGE_RANGE", "SESSION_TX", "HostFrames"]

FRAME_TX, SESSION_TX = 0, 1     #: values of ``kind``

MTU = 1500
#: Bytes of a frame without FCS, one 802.1Q tag included.
FRAME_RANGE = (net.ETHERNET.size, net.ETHERNET.size + net.VLAN.size + MTU)
#: Bytes of a Starbase message that fits one segment.
MESSAGE_RANGE = (STARBASE_HEADER.size, MTU - net.IPV4.size - net.TCP.size)


class HostFrames(wiring.Component):
    """Fetches a packet of the host into a buffer, and holds it until it is released.

    Of a SessionTx packet the ones-complement sum is formed on the way, without the header fields that are set when it
    leaves (:data:`hdl.order.templates.PATCHED`, they count as zero). Packets of an impossible length (a frame of fewer
    than 14 or more than 1518 bytes, a message shorter than its header or longer than a segment) are swallowed, and
    ``bad`` tells.

    **Timing**: with the last byte of a packet taken from ``i`` in cycle ``C``, ``available`` is 1 from ``C + 5``. The
    byte at ``position`` in cycle ``c`` is on ``byte`` in ``c + 2``. With ``release`` in ``R`` the next packet's first
    byte may be taken in ``R + 1``.

    Members
    -------
    i : In(Packet), i_kind : In(1)
        Packets of the host, ``i.ready`` from a register; ``i_kind`` is :data:`FRAME_TX` or :data:`SESSION_TX` and holds
        for the whole packet.
    available : Out(1), kind : Out(1), length : Out(11), sum : Out(16)
        A packet is held: its kind, bytes and (of a message) folded sum, big-endian words from its first byte. The sum
        may come two cycles later.
    position : In(11), byte : Out(8)
        Byte of the packet, as the host gave it.
    release : In(1)
        Let the packet go. Only while ``available``; the last byte may be asked for in the same cycle.
    bad : Out(1)
        Strobe: a packet was swallowed; its kind is ``kind``.
    """

    i: In(Packet)
    i_kind: In(1)
    available: Out(1)
    kind: Out(1)
    length: Out(11)
    sum: Out(16)
    position: In(11)
    byte: Out(8)
    release: In(1)
    bad: Out(1)

    def elaborate(self, platform):
        m = Module()
        # All that a byte does, it does a cycle after it was taken.
        ready = Signal(init=1)
        data, got, final = Signal(8), Signal(), Signal()
        m.d.comb += self.i.ready.eq(ready)
        m.d.sync += [data.eq(self.i.data), got.eq(self.i.valid & ready), final.eq(self.i.valid & ready & self.i.last)]
        with m.If(ready & self.i.valid):
            m.d.sync += [self.kind.eq(self.i_kind), ready.eq(~self.i.last)]

        # A packet is written, and then read: synthesis need not care for reads of what is being written.
        m.submodules.buffer = buffer = memory.Memory(
            shape=8, depth=1 << len(self.length), init=[], attrs={"ram_style": "block", "no_rw_check": 1})
        write, read = buffer.write_port(), buffer.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.length),
            write.data.eq(data),
            read.addr.eq(self.position),
        ]

        # The block memory's own delay is most of a cycle: its byte gets a register before anything is done with it.
        fetched, stored = Signal(8, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [fetched.eq(read.data), stored.eq(fetched)]
        m.d.comb += self.byte.eq(stored)

        patched = Signal(init=0 in PATCHED)     # the byte at `length` is
        # The two bytes of the sum change places with every byte, so that each is added to the lower one; the carry of
        # each goes into the other one with the next byte, and three bytes of zero drive out the last. One more, if need
        # be, puts them back into their places.
        step, swapped = Signal(), Signal()
        low_sum, high_sum = Signal(9), Signal(9)
        # Both what is added and that something is stand in registers, a cycle behind the byte.
        addend = Signal(8)
        m.d.sync += [addend.eq(0), step.eq(0)]
        m.d.comb += self.sum.eq(Cat(low_sum[:8], high_sum[:8]))
        with m.If(step):
            m.d.sync += [low_sum.eq(high_sum[:8] + addend + low_sum[8]), high_sum.eq(low_sum[:8] + high_sum[8]),
                         swapped.eq(~swapped)]

        long_enough, too_long = Signal(), Signal()
        low = Mux(self.kind, MESSAGE_RANGE[0], FRAME_RANGE[0])
        high = Mux(self.kind, MESSAGE_RANGE[1], FRAME_RANGE[1])
        empty = [register.eq(0) for register in (
            self.length, low_sum, high_sum, step, swapped, long_enough, too_long)] + [patched.eq(patched.init)]

        with m.FSM(init="fetching"):
            with m.State("fetching"):
                with m.If(got):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += [step.eq(1), addend.eq(Mux(patched, 0, data)), self.length.eq(self.length + 1),
                                 patched.eq(Cat(self.length == n - 1 for n in sorted(PATCHED) if n).any())]
                    with m.If(self.length == low - 1):
                        m.d.sync += long_enough.eq(1)
                    with m.If(self.length == high):
                        m.d.sync += too_long.eq(1)
                    with m.If(final):
                        m.next = "folding once"
            with m.State("folding once"):
                m.d.sync += step.eq(1)
                m.next = "folding twice"
            with m.State("folding twice"):
                m.d.sync += step.eq(1)
                m.next = "checking length"
            with m.State("checking length"):
                m.d.sync += step.eq(1)
                with m.If(~long_enough | too_long):
                    m.d.comb += self.bad.eq(1)
                    m.d.sync += [*empty, ready.eq(1)]
                    m.next = "fetching"
                with m.Else():
                    m.d.sync += self.available.eq(1)
                    m.next = "available"
            with m.State("available"):
                m.d.sync += step.eq(swapped ^ step)
                with m.If(self.release):
                    m.d.sync += [*empty, ready.eq(1), self.available.eq(0)]
                    m.next = "fetching"
        return m

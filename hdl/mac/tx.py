"""Ethernet transmit: a start strobe and bytes pulled one a cycle to GMII pins."""

from amaranth.hdl import Module, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import net
from hdl.mac.crc import CRC32_INIT, crc32_fcs, crc32_step
from hdl.mac.stream import Packet

__all__ = ["MacTx"]

PREAMBLE, SFD = net.PREAMBLE[0], net.PREAMBLE[-1]


class _Phase(enum.Enum, shape=3):
    """What goes to the pins next, once a frame has begun."""

    PREAMBLE = 0
    DATA = 1
    PADDING = 2
    FCS = 3
    GAP = 4


class MacTx(wiring.Component):
    """Ethernet transmitter, one byte a clock.

    **Latency**: with ``start`` in cycle ``T`` the first preamble byte is on the pins in ``T + 1``, the delimiter in
    ``T + 8`` and the first byte of the frame in ``T + 9``. The bytes are pulled from ``i`` in ``T + 8``, ``T + 9``
    and so on, one in every cycle without exception, up to and including the one with ``last``: nothing of the frame
    need be known before. Byte ``n`` is on the pins in the cycle after the one in which it was pulled.

    Frames of fewer than 60 bytes are padded with zeros, the FCS is added, and 12 cycles of silence follow: after
    a frame of ``n`` bytes started in ``T`` the next one can start in ``T + 24 + max(n, 60)`` and not before.

    **Bad input**: ``start`` while ``idle`` is 0 is ignored. A source that has no byte when one is pulled breaks its
    contract: the frame ends there, padded if need be, with an inverted FCS so that every receiver drops it, and
    ``underrun`` says so; what the source offers later is not taken before the next frame.

    Members
    -------
    start : In(1)
        Begin a frame. Only legal while ``idle``. It may come late in its cycle: it reaches ``tx_en`` and ``idle``
        and no other register.
    idle : Out(1)
        A frame may be started in this cycle. A register.
    begun : Out(1)
        A frame was started in the cycle before. Depends on registers only.
    idle_next : Out(1)
        ``idle`` will be 1 in the next cycle unless ``start`` is in this one. Depends on registers only.
    i : In(Packet)
        The frame from destination address to the last byte before padding and FCS. ``i.ready`` is the pull, it
        depends on registers only. ``i.data`` is 0 while ``i.valid`` is: those zeros are the padding.
    txd : Out(8), tx_en : Out(1), tx_er : Out(1)
        GMII transmit pins, straight from registers. ``tx_er`` is always 0. In silence ``txd`` is already the byte
        of a preamble.
    frames : Out(1)
        Strobe for a counter: the last FCS byte of a good frame is on the pins.
    underrun : Out(1)
        Strobe for a counter, once for each frame that was cut.
    """

    start: In(1)
    idle: Out(1, init=1)
    begun: Out(1)
    idle_next: Out(1)
    i: In(Packet)
    txd: Out(8, init=PREAMBLE)
    tx_en: Out(1)
    tx_er: Out(1)
    frames: Out(1)
    underrun: Out(1)

    def elaborate(self, platform):
        m = Module()

        # Counts down the preamble, then the bytes of the frame up to the 60th, then the FCS, then the gap.
        phase = Signal(_Phase)
        left = Signal(range(net.MIN_FRAME + 1), init=len(net.PREAMBLE) - 1)     # bytes of the phase, this one included
        ends = Signal()         # ... one, or less in a frame that is longer
        crc = Signal(32, init=CRC32_INIT)
        spoilt = Signal()
        summed = Signal()       # the CRC is of this byte: data or padding
        was_idle = Signal(init=1)

        def begin(what, length):
            m.d.sync += [phase.eq(what), left.eq(length), ends.eq(0)]

        m.d.comb += [self.begun.eq(was_idle & ~self.idle), self.idle_next.eq(self.idle)]
        m.d.sync += [was_idle.eq(self.idle), self.frames.eq(0)]
        with m.If(summed):
            m.d.sync += crc.eq(crc32_step(crc, self.i.data))
        with m.Elif(phase == _Phase.FCS):
            m.d.sync += crc.eq(crc >> 8)
        with m.Else():
            m.d.sync += crc.eq(CRC32_INIT)
        # All that `start` does. The rest waits for `idle` to be 0, with everything as the preamble wants it.
        with m.If(self.idle):
            m.d.sync += [self.idle.eq(~self.start), self.tx_en.eq(self.start)]
        with m.Else():
            with m.If(~ends):
                m.d.sync += [left.eq(left - 1), ends.eq(left == 2)]
            with m.Switch(phase):
                with m.Case(_Phase.PREAMBLE):
                    with m.If(ends):
                        m.d.sync += self.txd.eq(SFD)
                        begin(_Phase.DATA, net.MIN_FRAME)
                with m.Case(_Phase.DATA):
                    m.d.comb += [self.i.ready.eq(1), self.underrun.eq(~self.i.valid), summed.eq(1)]
                    m.d.sync += self.txd.eq(self.i.data)
                    with m.If(~self.i.valid):
                        m.d.sync += spoilt.eq(1)
                    with m.If(self.i.last | ~self.i.valid):
                        with m.If(ends):
                            begin(_Phase.FCS, net.FCS_SIZE)
                        with m.Else():
                            m.d.sync += phase.eq(_Phase.PADDING)
                with m.Case(_Phase.PADDING):
                    m.d.comb += summed.eq(1)
                    m.d.sync += self.txd.eq(self.i.data)
                    with m.If(ends):
                        begin(_Phase.FCS, net.FCS_SIZE)
                with m.Case(_Phase.FCS):
                    m.d.sync += self.txd.eq(crc32_fcs(crc)[:8] ^ spoilt.replicate(8))
                    with m.If(ends):
                        m.d.sync += self.frames.eq(~spoilt)
                        begin(_Phase.GAP, net.IFG)
                with m.Case(_Phase.GAP):
                    m.d.sync += [self.tx_en.eq(0), self.txd.eq(PREAMBLE)]
                    with m.If(ends):
                        m.d.comb += self.idle_next.eq(1)
                        m.d.sync += [self.idle.eq(1), spoilt.eq(0)]
                        begin(_Phase.PREAMBLE, len(net.PREAMBLE) - 1)
        return m

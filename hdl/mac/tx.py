"""Ethernet transmit: a start strobe and bytes pulled one a cycle to GMII pins."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import net
from hdl.mac.crc import CRC32_INIT, crc32_fcs, crc32_step
from hdl.mac.stream import Packet

__all__ = ["MacTx"]

PREAMBLE, SFD = net.PREAMBLE[0], net.PREAMBLE[-1]


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
        Begin a frame. Only legal while ``idle``.
    idle : Out(1)
        A frame may be started in this cycle. Depends on registers only.
    i : In(Packet)
        The frame from destination address to the last byte before padding and FCS. ``i.ready`` is the pull, it
        depends on registers only.
    txd : Out(8), tx_en : Out(1), tx_er : Out(1)
        GMII transmit pins, straight from registers. ``tx_er`` is always 0.
    frames : Out(1)
        Strobe for a counter: the last FCS byte of a good frame is on the pins.
    underrun : Out(1)
        Strobe for a counter, once for each frame that was cut.
    """

    start: In(1)
    idle: Out(1)
    i: In(Packet)
    txd: Out(8)
    tx_en: Out(1)
    tx_er: Out(1)
    frames: Out(1)
    underrun: Out(1)

    def elaborate(self, platform):
        m = Module()

        # Counts the preamble, then the bytes of the frame up to the 60th, then the FCS, then the gap.
        count = Signal(range(net.MIN_FRAME + 1))
        crc = Signal(32)
        spoilt = Signal()
        byte = Signal(8)        # frame byte that goes to the pins next: data or padding

        m.d.sync += [self.txd.eq(0), self.tx_en.eq(0), self.frames.eq(0)]

        with m.FSM(init="idle"):
            with m.State("idle"):
                m.d.comb += self.idle.eq(1)
                m.d.sync += [count.eq(1), crc.eq(CRC32_INIT), spoilt.eq(0)]
                with m.If(self.start):
                    m.d.sync += [self.txd.eq(PREAMBLE), self.tx_en.eq(1)]
                    m.next = "preamble"
            with m.State("preamble"):
                m.d.sync += [self.txd.eq(PREAMBLE), self.tx_en.eq(1), count.eq(count + 1)]
                with m.If(count == len(net.PREAMBLE) - 1):
                    m.d.sync += [self.txd.eq(SFD), count.eq(1)]
                    m.next = "data"
            with m.State("data"):
                m.d.comb += [self.i.ready.eq(1), byte.eq(self.i.data)]
                m.d.sync += [self.txd.eq(byte), self.tx_en.eq(1), crc.eq(crc32_step(crc, byte))]
                with m.If(count != net.MIN_FRAME):
                    m.d.sync += count.eq(count + 1)
                with m.If(~self.i.valid):
                    m.d.comb += [self.underrun.eq(1), byte.eq(0)]
                    m.d.sync += spoilt.eq(1)
                with m.If(self.i.last | ~self.i.valid):
                    with m.If(count == net.MIN_FRAME):
                        m.d.sync += count.eq(1)
                        m.next = "fcs"
                    with m.Else():
                        m.next = "padding"
            with m.State("padding"):
                m.d.sync += [self.txd.eq(0), self.tx_en.eq(1), crc.eq(crc32_step(crc, byte)), count.eq(count + 1)]
                with m.If(count == net.MIN_FRAME):
                    m.d.sync += count.eq(1)
                    m.next = "fcs"
            with m.State("fcs"):
                fcs = crc32_fcs(crc)[:8]
                m.d.sync += [self.txd.eq(fcs ^ spoilt.replicate(8)), self.tx_en.eq(1)]
                m.d.sync += [crc.eq(crc >> 8), count.eq(count + 1)]
                with m.If(count == net.FCS_SIZE):
                    m.d.sync += [self.frames.eq(~spoilt), count.eq(1)]
                    m.next = "gap"
            with m.State("gap"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == net.IFG):
                    m.next = "idle"

        return m

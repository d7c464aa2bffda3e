"""Ethernet receive: GMII pins to bytes, with the verdict at the end of the frame."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import net
from hdl.mac.crc import CRC32_INIT, crc32_good, crc32_step
from hdl.mac.stream import RxBytes

__all__ = ["MacRx"]

MIN_FRAME = net.MIN_FRAME + net.FCS_SIZE    # bytes from destination address to the end of the FCS
PREAMBLE, SFD = net.PREAMBLE[0], net.PREAMBLE[-1]


class MacRx(wiring.Component):
    """Ethernet receiver, one byte a clock.

    Strips preamble and start-of-frame delimiter and hands every byte after it on at once, FCS included; nothing is
    held back until the verdict. The preamble may be of any length, none included, as PHYs are allowed to shorten it.

    **Latency**: a byte on the pins in cycle ``c`` is on ``out`` in cycle ``c + 1``. That one cycle is the input
    register; all of ``out`` comes from flip-flops. The verdict takes one more: ``out.eof`` and ``out.ok`` come two
    cycles after the last byte.

    **Bad input**: a frame whose preamble holds anything but 0x55 before 0xD5, or a receive error, or that ends
    without a delimiter, never shows on ``out``. Any later fault leaves ``out.ok`` at 0. A frame that was already
    under way at reset is ignored. Errors signalled outside a frame (``rx_er`` without ``rx_dv``) are ignored.
    No frame, however bad, has an effect on the one after it.

    Parameters
    ----------
    max_frame : int
        Longest frame that is ok, in bytes from destination address to FCS. The default has room for one 802.1Q tag.

    Members
    -------
    rxd : In(8), rx_dv : In(1), rx_er : In(1)
        GMII receive pins.
    out : Out(RxBytes)
        The frame, see :data:`hdl.mac.stream.RxBytes`.
    ahead : Out(RxBytes)
        What ``out`` will be in the next cycle, for whoever puts a choice before a register of his own.
    frames, preamble_errors, rx_errors, runts, oversize, bad_fcs : Out(1)
        Strobes for counters. Each carrier burst (``rx_dv`` from 0 to 1 to 0) gives exactly one of them, the first
        that holds in the order preamble error, receive error, shorter than 64 bytes, longer than ``max_frame``,
        wrong FCS, good frame. All of them but ``preamble_errors`` come with ``out.eof``. All from flip-flops.
    """

    def __init__(self, *, max_frame: int = 1522):
        if not MIN_FRAME <= max_frame <= 16384:
            raise ValueError(f"max_frame is {max_frame}, must be {MIN_FRAME} to 16384 bytes")
        self.max_frame = max_frame
        super().__init__({
            "rxd": In(8),
            "rx_dv": In(1),
            "rx_er": In(1),
            "out": Out(RxBytes),
            "ahead": Out(RxBytes),
            "frames": Out(1),
            "preamble_errors": Out(1),
            "rx_errors": Out(1),
            "runts": Out(1),
            "oversize": Out(1),
            "bad_fcs": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        rxd = Signal(8)
        rx_dv = Signal(init=1)      # so that only a pin seen at 0 is silence
        rx_er = Signal()
        m.d.sync += [rxd.eq(self.rxd), rx_dv.eq(self.rx_dv), rx_er.eq(self.rx_er)]

        crc = Signal(32, init=CRC32_INIT)
        length = Signal(range(self.max_frame + 1))      # bytes so far
        long_enough, too_long = Signal(), Signal()
        error = Signal()
        first = Signal()
        # Whatever follows the stream looks at flip-flops: what the next cycle shows is known from the pins, and the
        # verdict is taken in the cycle after the last byte.
        starts, ends = Signal(), Signal()
        out, ahead = self.out, self.ahead
        m.d.comb += [ahead.data.eq(self.rxd), ahead.valid.eq((starts | out.valid) & self.rx_dv),
                     ahead.sof.eq(starts & self.rx_dv), ahead.eof.eq(ends), out.data.eq(rxd)]
        m.d.sync += [ends.eq(out.valid & ~self.rx_dv), out.valid.eq(ahead.valid), out.sof.eq(ahead.sof),
                     out.eof.eq(ahead.eof), out.ok.eq(ahead.ok)]
        strobes = [self.frames, self.preamble_errors, self.rx_errors, self.runts, self.oversize, self.bad_fcs]
        m.d.sync += [strobe.eq(0) for strobe in strobes]

        # Waiting for silence is the state after reset: a 0xD5 in the middle of a frame must not be taken for a start.
        with m.FSM(init="wait for silence"):
            with m.State("wait for silence"):
                with m.If(~rx_dv):
                    m.next = "silence"
            with m.State("silence"):
                m.d.sync += [crc.eq(CRC32_INIT), length.eq(0), long_enough.eq(0), too_long.eq(0),
                             error.eq(0), first.eq(1)]
                with m.If(rx_dv):
                    self._preamble_byte(m, rxd, rx_er, starts)
            with m.State("preamble"):
                with m.If(rx_dv):
                    self._preamble_byte(m, rxd, rx_er, starts)
                with m.Else():
                    m.d.sync += self.preamble_errors.eq(1)
                    m.next = "silence"
            with m.State("frame"):
                with m.If(rx_dv):
                    m.d.sync += [crc.eq(crc32_step(crc, rxd)), length.eq(length + 1), first.eq(0),
                                 error.eq(error | rx_er)]
                    with m.If(length == MIN_FRAME - 1):
                        m.d.sync += long_enough.eq(1)
                    with m.If(length == self.max_frame):
                        m.d.sync += too_long.eq(1)
                with m.Elif(first):
                    # Carrier ended with the delimiter: no byte was shown, so there is no frame to end.
                    m.d.sync += self.preamble_errors.eq(1)
                    m.next = "silence"
                with m.Else():
                    with m.If(error):
                        m.d.sync += self.rx_errors.eq(1)
                    with m.Elif(~long_enough):
                        m.d.sync += self.runts.eq(1)
                    with m.Elif(too_long):
                        m.d.sync += self.oversize.eq(1)
                    with m.Elif(~crc32_good(crc)):
                        m.d.sync += self.bad_fcs.eq(1)
                    with m.Else():
                        m.d.sync += self.frames.eq(1)
                        m.d.comb += ahead.ok.eq(1)
                    m.next = "silence"

        return m

    def _preamble_byte(self, m, rxd, rx_er, starts):
        with m.If(rx_er | ((rxd != PREAMBLE) & (rxd != SFD))):
            m.d.sync += self.preamble_errors.eq(1)
            m.next = "wait for silence"
        with m.Elif(rxd == SFD):
            m.d.comb += starts.eq(1)
            m.next = "frame"
        with m.Else():
            m.next = "preamble"

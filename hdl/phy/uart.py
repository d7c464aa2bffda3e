"""Serial port: bytes with one start bit, eight data bits and one stop bit (8N1), least significant bit first."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["Uart", "divisor"]


def divisor(clock_hz, baud):
    """Clock cycles a bit; raises ValueError if the bit rate cannot be met to 2 %, which 8N1 needs."""
    cycles = round(clock_hz / baud)
    if cycles < 8 or abs(clock_hz / cycles / baud - 1) > 0.02:
        raise ValueError(f"{baud} bits a second cannot be made from {clock_hz:g} Hz: {cycles} cycles a bit (8 at "
                         f"least) would be {clock_hz / max(cycles, 1):.0f}")
    return cycles


class Uart(wiring.Component):
    """UART with byte streams.

    The receiver looks at a bit three times around its middle and takes the majority; a start bit that does not last
    to its middle is noise and ignored. It accepts the next start bit from the middle of the stop bit on, so that the
    other side's clock may be faster.

    **Bad input**: a byte whose stop bit is 0 (or a break) is dropped; the line must go to 1 before another starts. A
    byte that is not taken before the next is complete is lost: whoever listens has :mod:`hdl.control.link`'s checksum.

    Parameters
    ----------
    divisor : int
        Clock cycles a bit, 8 or more.
    domain : str
        Clock domain.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line, any clock; 1 is silence.
    o_data : Out(8), o_valid : Out(1), o_ready : In(1)
        Bytes received, each as long as it takes, until the next is complete.
    i_data : In(8), i_valid : In(1), i_ready : Out(1)
        Bytes to send.
    framing_error, overrun : Out(1)
        Strobes: a byte without a stop bit; a byte lost.
    """

    def __init__(self, *, divisor, domain="sync"):
        if not 8 <= divisor < 1 << 20:
            raise ValueError(f"divisor is {divisor} cycles a bit, must be 8 to {(1 << 20) - 1}")
        self.divisor, self.domain = divisor, domain
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1),
            "o_data": Out(8), "o_valid": Out(1), "o_ready": In(1),
            "i_data": In(8), "i_valid": In(1), "i_ready": Out(1),
            "framing_error": Out(1), "overrun": Out(1)})

    def elaborate(self, platform):
        m = Module()
        self._receiver(m, m.d[self.domain])
        self._transmitter(m, m.d[self.domain])
        return m

    def _receiver(self, m, sync):
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, o_domain=self.domain, init=1)
        count = Signal(range(self.divisor))
        bits = Signal(4)
        byte = Signal(8)
        samples = Signal(3)
        apart = max(1, self.divisor // 16)      # of the three samples
        middle = self.divisor // 2
        looks = [middle - apart, middle, middle + apart]
        majority = Signal()
        done = Signal()     # the third look at this bit was in the cycle before
        m.d.comb += majority.eq((samples[0] & samples[1]) | (samples[0] & samples[2]) | (samples[1] & samples[2]))
        look = Signal()
        m.d.comb += look.eq((count == looks[0]) | (count == looks[1]) | (count == looks[2]))
        sync += done.eq(0)
        with m.If(look):
            sync += [samples.eq(Cat(samples[1:], line)), done.eq(count == looks[2])]
        sync += count.eq(count + 1)
        with m.If(count == self.divisor - 1):
            sync += count.eq(0)

        with m.If(self.o_ready):
            sync += self.o_valid.eq(0)
        with m.FSM(domain=self.domain, init="silence"):
            with m.State("silence"):
                sync += [count.eq(1), bits.eq(0), done.eq(0)]
                with m.If(~line):
                    m.next = "start bit"
            with m.State("start bit"):
                with m.If(done):
                    m.next = "data bits"
                    with m.If(majority):
                        m.next = "silence"
            with m.State("data bits"):
                with m.If(done):
                    sync += [byte.eq(Cat(byte[1:], majority)), bits.eq(bits + 1)]
                    with m.If(bits == 7):
                        m.next = "stop bit"
            with m.State("stop bit"):
                with m.If(done):
                    with m.If(majority):
                        sync += [self.o_data.eq(byte), self.o_valid.eq(1)]
                        m.d.comb += self.overrun.eq(self.o_valid & ~self.o_ready)
                        m.next = "silence"
                    with m.Else():
                        m.d.comb += self.framing_error.eq(1)
                        m.next = "break"
            with m.State("break"):
                with m.If(line):
                    m.next = "silence"

    def _transmitter(self, m, sync):
        shift = Signal(10, init=-1)
        left = Signal(range(11))
        count = Signal(range(self.divisor))
        m.d.comb += [self.tx.eq(shift[0]), self.i_ready.eq(left == 0)]
        with m.If(left == 0):
            sync += count.eq(0)
            with m.If(self.i_valid):
                sync += [shift.eq(Cat(Const(0, 1), self.i_data, Const(1, 1))), left.eq(10)]
        with m.Elif(count == self.divisor - 1):
            sync += [count.eq(0), left.eq(left - 1), shift.eq(Cat(shift[1:], Const(1, 1)))]
        with m.Else():
            sync += count.eq(count + 1)

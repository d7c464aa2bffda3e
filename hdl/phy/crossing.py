"""Bytes received on one clock, handed on by another of nominally the same frequency."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["RxCrossing"]


def _after(place, size):
    """The number of ``size`` bits behind ``place`` in Gray code."""
    number = place
    for shift in range(1, size):
        number ^= place >> shift
    number = number + 1 & (1 << size) - 1
    return number ^ number >> 1


class RxCrossing(wiring.Component):
    """GMII receive pins from clock domain ``i_domain`` to ``o_domain``.

    A frame is handed on without a break once four of its bytes have come, so that the clocks may differ by 200 ppm and
    more over the longest frame. Between frames there is at least one cycle of silence; what the gap was is lost.

    **Latency**: 8 to 10 cycles of ``o_domain``.

    **Bad input**: if the receive clock stops in a frame, or the core's, the frame ends early on the other side or lacks
    bytes. Its FCS is wrong then. The rest of such a frame is not shown. When the core's clock has rested the frame that
    follows at once may be lost in the same way; those after it are whole.

    Members
    -------
    i_rxd : In(8), i_rx_dv, i_rx_er : In(1)
        Domain ``i_domain``.
    o_rxd : Out(8), o_rx_dv, o_rx_er : Out(1)
        Domain ``o_domain``, from registers.
    """

    PREFILL = 2     # cycles from the first byte in its register, when two more have come, to the frame
    DEPTH = 16

    def __init__(self, *, i_domain, o_domain="sync"):
        self.i_domain, self.o_domain = i_domain, o_domain
        super().__init__({"i_rxd": In(8), "i_rx_dv": In(1), "i_rx_er": In(1),
                          "o_rxd": Out(8), "o_rx_dv": Out(1), "o_rx_er": Out(1)})

    def elaborate(self, platform):
        m = Module()
        write, read = m.d[self.i_domain], m.d[self.o_domain]

        # Both places in the memory are kept in Gray code: in that of the other side at most one bit is in motion.
        size = self.DEPTH.bit_length()
        here = Signal(size)                         # where the next entry goes
        there, there_1 = Signal(size), Signal(size, init=_after(0, size))     # where the next one comes from; one more
        m.submodules.memory = memory = Memory(shape=10, depth=self.DEPTH, init=[])
        w_port = memory.write_port(domain=self.i_domain)
        r_port = memory.read_port(domain="comb")

        def follow(name, place, domain):
            seen = Signal(size, name=name)
            m.submodules[name] = FFSynchronizer(place, seen, o_domain=domain)
            return seen

        def address(place):
            return Cat(place[:-2], place[-2] ^ place[-1])

        def after(place):
            value = Signal(size)
            with m.Switch(place):
                for n in range(1 << size):
                    with m.Case(n):
                        m.d.comb += value.eq(_after(n, size))
            return value

        w_en, w_rdy = Signal(), Signal()
        m.d.comb += [w_rdy.eq(here != (follow("seen_there", there, self.i_domain) ^ (0b11 << size - 2))),
                     w_port.addr.eq(address(here)), w_port.en.eq(w_en & w_rdy)]
        with m.If(w_en & w_rdy):
            write += here.eq(after(here))

        # An entry is in the memory; one is in a register in front of it.
        some, r_rdy, r_en = Signal(), Signal(), Signal()
        r_data = Signal(10, reset_less=True)
        seen = follow("seen_here", here, self.o_domain)
        fetch = some & (~r_rdy | r_en)
        m.d.comb += r_port.addr.eq(address(there))
        read += some.eq(seen != there)
        with m.If(fetch):
            read += [there.eq(there_1), there_1.eq(after(there_1)), some.eq(seen != there_1)]
        with m.If(~r_rdy | r_en):
            read += [r_data.eq(r_port.data), r_rdy.eq(some)]

        # Every byte of a frame, and one entry without "valid" for its end. After an overflow only the end is written,
        # as soon as there is room: bytes are missing, so nothing of what follows may be taken for this frame.
        rxd, dv, er = Signal(8), Signal(), Signal()
        owed, broken = Signal(), Signal()       # an end is still to be written; bytes of this frame were lost
        write += [rxd.eq(self.i_rxd), dv.eq(self.i_rx_dv), er.eq(self.i_rx_er)]
        with m.If(dv):
            write += owed.eq(1)
            m.d.comb += [w_en.eq(~broken), w_port.data.eq(Cat(rxd, dv, er))]
            with m.If(~w_rdy):
                write += broken.eq(1)
        with m.Elif(owed):
            m.d.comb += w_en.eq(1)
            with m.If(w_rdy):
                write += [owed.eq(0), broken.eq(0)]

        waited = Signal(range(self.PREFILL + 1))
        byte, valid, error = r_data[:8], r_data[8], r_data[9]
        read += [self.o_rxd.eq(byte), self.o_rx_dv.eq(0), self.o_rx_er.eq(0)]
        with m.FSM(domain=self.o_domain, init="silence"):
            with m.State("silence"):
                read += waited.eq(0)
                with m.If(r_rdy):
                    read += waited.eq(waited + 1)
                    with m.If(~valid):
                        m.d.comb += r_en.eq(1)
                        read += waited.eq(0)
                    with m.Elif(waited == self.PREFILL - 1):
                        m.next = "frame"
            with m.State("frame"):
                m.d.comb += r_en.eq(1)
                with m.If(~r_rdy):
                    m.next = "broken"       # the source has stopped
                with m.Elif(valid):
                    read += [self.o_rx_dv.eq(1), self.o_rx_er.eq(error)]
                with m.Else():
                    m.next = "silence"
            with m.State("broken"):
                m.d.comb += r_en.eq(1)
                with m.If(r_rdy & ~valid):
                    m.next = "silence"
        return m

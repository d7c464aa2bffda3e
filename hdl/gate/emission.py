"""G21: quotes that were approved, that were started and that are on the wire are as many."""

from itertools import pairwise

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.layout import net
from hdl.order.templates import BODY_OFFSET, STARBASE, STARBASE_HEADER, STARBASE_PROTOCOL_ID

#: Cycles from one comparison to the next: 1 ms.
PERIOD = 125_000

_KIND = STARBASE["MassQuoteRequest"].id
_TYPE = STARBASE_HEADER["messageTypeId"]
#: Places of a frame, counted from its first preamble byte, and what stands there in a quote.
_AT = len(net.PREAMBLE)
EXPECTED = {
    **{_AT + net.ETHERNET["ethertype"].offset + n: byte
       for n, byte in enumerate(net.ETHERTYPE_IPV4.to_bytes(2, "big"))},
    _AT + net.ETHERNET.size + net.IPV4["protocol"].offset: net.PROTOCOL_TCP,
    _AT + BODY_OFFSET + STARBASE_HEADER["protocolId"].offset: STARBASE_PROTOCOL_ID,
    **{_AT + BODY_OFFSET + _TYPE.offset + n: byte for n, byte in enumerate(_KIND.to_bytes(_TYPE.size, "little"))},
}
LAST = max(EXPECTED)


class Emission(wiring.Component):
    """Counts in three places the quotes that leave, and compares every millisecond.

    The third count is taken at the pins, from the bytes: every frame counts that says that it is a mass quote, whoever
    sent it, but what the port says it sends again. A host that sends one itself is found out as well as a port that
    sends one twice, or none. Cancels are for everybody to send.

    Members
    -------
    approved : in(1) strobe: the gate let a quote go in the cycle before. started : in(1) strobe: the port began to send
        one in the cycle before, and its first preamble byte is on the pins. again : in(1) strobe: likewise, of a
        segment that has left before and was not acknowledged: it carries what was counted then.
    txd : in(8), tx_en : in(1) GMII pins of the order port.
    mismatch : out(1) strobe: the counts differ; they begin anew. It comes in the first cycle of a period in which no
        frame is on the wire, nor was in the cycle before. Period *k* begins :data:`PERIOD` * *k* cycles after reset.

    Counts are compared modulo 2^16: no 65,536 frames leave in a millisecond.
    """

    def __init__(self):
        super().__init__({"approved": In(1), "started": In(1), "again": In(1), "txd": In(8), "tx_en": In(1),
                          "mismatch": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # A byte is looked at a cycle after it was on the pins, and its place with it.
        txd, tx_en, place = Signal(8), Signal(), Signal(range(LAST + 2))
        wrong, found = Signal(), Signal()       # wrong: it is none, or it was counted
        m.d.sync += [txd.eq(self.txd), tx_en.eq(self.tx_en), found.eq(tx_en & (place == LAST + 1) & ~wrong)]
        with m.If(~tx_en):
            m.d.sync += [place.eq(0), wrong.eq(0)]
        with m.Elif(place <= LAST):
            m.d.sync += place.eq(place + 1)
        with m.Elif(place == LAST + 1):
            m.d.sync += wrong.eq(1)
        with m.Switch(place):
            for at, byte in EXPECTED.items():
                with m.Case(at):
                    with m.If(tx_en & (txd != byte)):
                        m.d.sync += wrong.eq(1)
        with m.If(self.again):      # its first byte is looked at in the next cycle
            m.d.sync += wrong.eq(1)

        counts = [Signal(16, name=name) for name in ("of_gate", "of_port", "of_pins")]
        for count, strobe in zip(counts, (self.approved, self.started, found), strict=True):
            with m.If(self.mismatch):
                m.d.sync += count.eq(0)
            with m.Elif(strobe):
                m.d.sync += count.eq(count + 1)

        left, due, differ, compares = Signal(range(PERIOD), init=PERIOD - 1), Signal(), Signal(), Signal()
        m.d.comb += [compares.eq(due & ~self.tx_en & ~tx_en), self.mismatch.eq(compares & differ)]
        m.d.sync += [left.eq(left - 1), differ.eq(Cat(a != b for a, b in pairwise(counts)).any())]
        with m.If(left == 0):
            m.d.sync += [left.eq(PERIOD - 1), due.eq(1)]
        with m.Elif(compares):
            m.d.sync += due.eq(0)
        return m

"""Line arbitration: the first copy of a packet wins, whichever line brings it."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: Cycles from a sequence number to what becomes of its packet.
ANSWER_CYCLES = 2


class SequenceArbiter(wiring.Component):
    """Accepts each sequence number once and notices what is missing.

    Members
    -------
    seq : in(32), seq_valid : in(1) sequence number of a packet of either line; it stands until the answer.
    accept : out(1) this packet is new. :data:`ANSWER_CYCLES` after ``seq_valid``, as the next two.
    duplicate : out(1) it has been seen, or was passed over by a gap.
    gap : out(1) packets before it are missing. Together with ``accept``.
    ahead : out(32) packets that are missing before this one. Right with ``gap``.
    missing : out(32) packets missing in all gaps so far, saturating. A cycle after the gap.
    expected : out(32) next sequence number.
    last_seq : out(32) last accepted sequence number.
    take_back : in(1) the packet accepted last was damaged, its number perhaps too: ``expected`` and ``missing`` are as
        before it. At most once a packet, after the answer to it and before the next ``seq_valid``.

    The first packet after reset sets the sequence. Comparison is modulo 2^32.
    """

    def __init__(self):
        super().__init__({"seq": In(32), "seq_valid": In(1), "accept": Out(1), "duplicate": Out(1), "gap": Out(1),
                          "ahead": Out(32), "missing": Out(32), "expected": Out(32), "last_seq": Out(32),
                          "take_back": In(1)})

    def elaborate(self, platform):
        m = Module()
        # A cycle for the subtraction, one for what it says.
        started, asked = Signal(), Signal()
        ahead = self.ahead
        is_new = ~started | ~ahead[31]
        m.d.sync += [
            ahead.eq(self.seq - self.expected), asked.eq(self.seq_valid),
            self.accept.eq(asked & is_new), self.duplicate.eq(asked & ~is_new),
            self.gap.eq(asked & started & ~ahead[31] & (ahead != 0)),
        ]
        # A damaged number that was believed would make every right one a duplicate, for ever if it is far ahead.
        before = [Signal.like(s, name=f"{s.name}_before") for s in (started, self.expected, self.missing)]
        total = Signal(33)
        m.d.comb += total.eq(self.missing + ahead)
        with m.If(self.accept):
            m.d.sync += [started.eq(1), self.expected.eq(self.seq + 1), self.last_seq.eq(self.seq)]
            m.d.sync += [b.eq(s) for b, s in zip(before, (started, self.expected, self.missing), strict=True)]
        with m.If(self.gap):
            m.d.sync += self.missing.eq(Mux(total[32], 0xFFFFFFFF, total[:32]))
        with m.If(self.take_back):
            m.d.sync += [s.eq(b) for b, s in zip(before, (started, self.expected, self.missing), strict=True)]
        return m

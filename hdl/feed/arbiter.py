"""Line arbitration: the first copy of a packet wins, whichever line brings it."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class SequenceArbiter(wiring.Component):
    """Accepts each sequence number once and notices what is missing.

    Members
    -------
    seq : in(32), seq_valid : in(1) sequence number of a packet of either line.
    accept : out(1) this packet is new. Same cycle as ``seq_valid``.
    duplicate : out(1) it has been seen, or was passed over by a gap. Same cycle.
    gap : out(1) packets before it are missing. Same cycle, together with ``accept``.
    ahead : out(32) packets that are missing before this one. Same cycle as ``gap``.
    missing : out(32) packets missing in all gaps so far, saturating. Two cycles after the gap.
    expected : out(32) next sequence number.
    last_seq : out(32) last accepted sequence number.
    take_back : in(1) the packet accepted last was damaged, its number perhaps too: ``expected`` and ``missing`` are as
        before it. At most once a packet, not together with ``seq_valid``.

    The first packet after reset sets the sequence. Comparison is modulo 2^32.
    """

    def __init__(self):
        super().__init__({"seq": In(32), "seq_valid": In(1), "accept": Out(1), "duplicate": Out(1), "gap": Out(1),
                          "ahead": Out(32), "missing": Out(32), "expected": Out(32), "last_seq": Out(32),
                          "take_back": In(1)})

    def elaborate(self, platform):
        m = Module()
        started = Signal()
        ahead = self.ahead
        m.d.comb += [
            ahead.eq(self.seq - self.expected),
            self.accept.eq(self.seq_valid & (~started | ~ahead[31])),
            self.duplicate.eq(self.seq_valid & started & ahead[31]),
            self.gap.eq(self.seq_valid & started & ~ahead[31] & (ahead != 0)),
        ]
        # A damaged number that was believed would make every right one a duplicate, for ever if it is far ahead.
        before = [Signal.like(s, name=f"{s.name}_before") for s in (started, self.expected, self.missing)]
        with m.If(self.accept):
            m.d.sync += [started.eq(1), self.expected.eq(self.seq + 1), self.last_seq.eq(self.seq)]
            m.d.sync += [b.eq(s) for b, s in zip(before, (started, self.expected, self.missing), strict=True)]
        # Counted a cycle later: two additions and what hangs on them are two cycles' work.
        counts, skipped, total = Signal(), Signal(32), Signal(33)
        m.d.comb += total.eq(self.missing + skipped)
        m.d.sync += [counts.eq(self.gap), skipped.eq(ahead)]
        with m.If(counts):
            m.d.sync += self.missing.eq(Mux(total[32], 0xFFFFFFFF, total[:32]))
        with m.If(self.take_back):
            m.d.sync += [s.eq(b) for b, s in zip(before, (started, self.expected, self.missing), strict=True)]
        return m

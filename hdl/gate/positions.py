"""What a position becomes: by what the exchange says, in the fabric, and by the host's word, if it knows as much."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.compare import sums_to
from hdl.control.registers import LOT_BITS
from hdl.gate.exposure import LiveQuote, Position

__all__ = ["Learned", "Positions"]


class Learned(data.Struct):
    """What the exchange says of an instrument.

    ``fill``: ``lots`` of ours traded, ``side``: 1 sold, 0 bought. Else it is of the quote ``quote_id``, low 32 bits, or
    if ``earlier`` of every quote before that. Of the bid and the ask one bit each: ``refused``: what was sent with it
    is gone, what was sent before stands as it stood; ``answered``: what was sent before it is gone, and so is what was
    sent with it, unless it ``stands``: something of it is in the book, or about to be, or has traded at once; ``less``:
    less of it than was asked for, for another reason than that it has traded. ``next``: as in
    :class:`hdl.order.responses.Event`.
    """

    fill: 1
    side: 1
    lots: LOT_BITS
    earlier: 1
    refused: 2
    answered: 2
    stands: 2
    less: 2
    quote_id: 32
    next: 32


class Positions(wiring.Component):
    """Makes of a position what it is after a message of the exchange, or after the host's word.

    **A fill** changes the position by its lots, and settles them: what has traded is open no more, whichever quote it
    was of.

    **An acknowledgement** of the newest quote settles all that was sent before it, as every earlier quote has been
    replaced, and of what was sent with it the sides of which nothing stands. What has traded at once is told by the
    fills that follow. That of an earlier one changes nothing: what stands of it is no more than what was sent with it,
    and counts as that until the newest is acknowledged, or the host says more. So what counts as open, with what is
    held, is never too little, not even between two events of one message.

    **A refusal** of the newest quote as a whole settles what was sent with it. **An order that is gone**, of the newest
    quote, settles all that was sent of its side. **A mass cancel** that is answered settles all that was sent before
    it, unless something has been sent since, whose acknowledgement does.

    **Each message counts once**, whoever learns of it first. A position knows up to which message it goes
    (:class:`hdl.gate.exposure.Position`): what comes behind that counts; the host's word counts if it goes as far.

    A side of the newest quote that has traded, or of which less stands than was asked for, is cleared, so that it is
    quoted anew; so is one that has traded or was refused, whichever quote that was of, when nothing of it is open any
    more.

    Members
    -------
    learned : in(Learned), or with ``by_host`` : in(1) ``word`` : in(Position). known : in(Position), live :
        in(LiveQuote) on the bench. All stand for a cycle before what follows is used, ``meant`` : in(1) in it: the
        newest quote on the bench is that of ``learned``.
    position : out(Position), counts : out(1) it is that from now on; clear_bid, clear_ask : out(1) if ``learned`` is of
        the newest quote, that side is cleared; spent_bid, spent_ask : out(1) it is, whatever ``learned`` is of.

    Latency: one cycle.
    """

    def __init__(self):
        super().__init__({
            "learned": In(Learned), "by_host": In(1), "word": In(Position), "known": In(Position),
            "live": In(LiveQuote), "meant": In(1), "position": Out(Position), "counts": Out(1), "clear_bid": Out(1),
            "clear_ask": Out(1), "spent_bid": Out(1), "spent_ask": Out(1)})

    def elaborate(self, platform):
        m = Module()
        learned, known, word, out = self.learned, self.known, self.word, self.position
        # What it says is ahead of the position, or of the very message that the position has come to.
        next_, further, same = Signal(32), Signal(signed(32)), Signal()
        ahead, before, since = Signal(), Signal(), Signal(signed(32))
        m.d.comb += [next_.eq(Mux(self.by_host, word.next, learned.next)), further.eq(next_ - known.next)]
        m.d.comb += since.eq(self.live.quote_id - learned.quote_id)
        m.d.sync += [same.eq(next_ == known.next), ahead.eq(~further[-1] & further.any()), before.eq(since[-1])]

        # One sum each: a fill adds what has traded and a refusal what was refused, an acknowledgement takes what stands
        # from what was sent.
        traded, sold = learned.lots, learned.side
        lots, counts_again, change = Signal.like(known.lots), Signal(), Signal(signed(LOT_BITS + 1))
        m.d.comb += change.eq(Mux(learned.fill, Cat(traded ^ sold.replicate(LOT_BITS), sold), 0).as_signed())
        m.d.sync += [lots.eq(known.lots + change + (learned.fill & sold)), counts_again.eq(~known.told)]
        settled = {}
        for n, (side, of_side) in enumerate((("bid", ~sold), ("ask", sold))):
            answered, refused, less = learned.answered[n], learned.refused[n], learned.less[n]
            sent, lots_live, was = (getattr(self.live, f"sent_{side}"), getattr(self.live, f"{side}_lots"),
                                    getattr(known, f"settled_{side}"))
            stands = Mux(learned.stands[n], lots_live, 0)
            base, added, its = (Signal(32, name=f"{side}_{what}") for what in ("base", "added", "settled"))
            m.d.comb += [
                base.eq(Mux(answered, sent, was)),
                added.eq(Mux(answered, Cat(~stands, Const(~0, 32 - LOT_BITS)),
                             Mux(learned.fill, Mux(of_side, traded, 0), Mux(refused, lots_live, 0))))]
            spent, gone = Signal(name=f"{side}_spent_then"), Mux(learned.fill, Mux(of_side, traded, 0), lots_live)
            m.d.sync += [its.eq(base + added + answered),
                         getattr(self, f"clear_{side}").eq(Mux(learned.fill, of_side, less)),
                         spent.eq(Mux(learned.fill, of_side, refused)
                                  & sums_to(was, Cat(gone, Const(0, 32 - LOT_BITS)), sent))]
            m.d.comb += getattr(self, f"spent_{side}").eq(spent & self.counts & ~self.by_host)
            settled[side] = its

        m.d.comb += [
            out.lots.eq(Mux(self.by_host, word.lots, lots)), out.next.eq(next_), out.told.eq(self.by_host),
            *(getattr(out, f"settled_{side}").eq(Mux(self.by_host, getattr(word, f"settled_{side}"), its))
              for side, its in settled.items()),
            self.counts.eq(Mux(self.by_host, ahead | same,
                               (ahead | (same & counts_again))
                               & (learned.fill | Mux(learned.earlier, before, self.meant)))),
        ]
        return m

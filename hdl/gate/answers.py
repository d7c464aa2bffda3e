"""What the exchange answers, and what the gate makes of it: positions, G17 and G18, G20, and a halt of nonsense."""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.control.registers import BY_NAME, INSTRUMENT_BITS, MASS_CANCEL_INSTRUMENT, PARAM_BY_NAME, ROW_WORD_BITS
from hdl.gate.bursts import ANSWER_CYCLES as BURST_CYCLES
from hdl.gate.bursts import VISIT_CYCLES as BURST_VISIT_CYCLES
from hdl.gate.bursts import FillBurst, RefusalStorm
from hdl.gate.holds import HOLDING, Post
from hdl.gate.positions import Learned
from hdl.gate.repeats import ANSWER_CYCLES as REPEATS_CYCLES
from hdl.gate.repeats import RepeatedExecution
from hdl.memory import BlockMemory
from hdl.order.responses import NO_REASON, SCHEMA, Event, Kind

__all__ = ["ANSWER_LIMITS", "KEEP_CYCLES", "LEARN_CYCLES", "READ_CYCLES", "VISIT_CYCLES", "VISIT_PERIOD", "Answers"]

#: Cycles from one look at an instrument, whether its freeze has ended or the host lets it go, to that at the next one.
VISIT_PERIOD = 256
#: Words of an instrument's row that an answer needs, in the order in which they are read, and cycles for each.
_WORDS = ("instrument_id_lo", "instrument_id_hi", "lot_mult", "lot_exp")
_WORD_CYCLES = 4
#: Cycles in which they come, behind the one that takes an event up; in the last one it is judged.
READ_CYCLES = _WORD_CYCLES * len(_WORDS) + 3
#: What is kept of each instrument to know the orders again that leave the book: those of the last acknowledgement, and
#: the last quote that was answered. Words of 32 bits, and cycles in which they are written.
_KEPT = ("bid_order_lo", "bid_order_hi", "ask_order_lo", "ask_order_hi", "quote_id")
KEEP_CYCLES = len(_KEPT)
#: Cycles in which a fill or a refusal is weighed, and a visit, the strobe and the post included.
LEARN_CYCLES = max(BURST_CYCLES, REPEATS_CYCLES) + 1
VISIT_CYCLES = max(BURST_VISIT_CYCLES, REPEATS_CYCLES) + 1
#: Bits of a quantity's mantissa, and of a quantity in lots.
MANTISSA_BITS, LOT_BITS = 56, 24
#: QuoteStatus of a side that is in the book, or about to be, or has traded at once, as it was asked for; and of one of
#: which less is.
_STATUS = SCHEMA.enums["QuoteStatus"]
WHOLE = tuple(_STATUS[name] for name in ("UNMODIFIED", "UPDATED", "FILLED", "SPEED_BUMPED"))
REDUCED = (_STATUS["QTY_REDUCED"],)
#: Limits of the gates here, and their widths.
ANSWER_LIMITS = {name: BY_NAME[name].width for name in (
    "fills_cycles", "fills_lots", "fills_delta", "fills_most", "freeze_cycles", "repeats_most", "refusals_cycles",
    "refusals_most")}
#: Decades between a quantity's exponent and that of a lot, at most.
MOST_DECADES = 15


class _State(enum.Enum):
    IDLE = 0
    READ = 1        #: words of the instrument's row come, what is kept of it comes, and the event is judged
    KEEP = 2        #: words of an acknowledgement or a refusal are kept
    SCALE = 3       #: a bit a cycle: ten times the mantissa, or a tenth of it
    STRIP = 4       #: mantissa and lot are halved until the lot is odd
    DIVIDE = 5      #: a bit of the quotient a cycle, the lowest first
    LEARN = 6       #: the gates weigh a fill or a refusal
    VISIT = 7       #: ... or have a look at an instrument
    SETTLE = 8      #: what was learned waits for the position's turn


class Answers(wiring.Component):
    """Checks each event of :class:`hdl.order.responses.ResponseParser`, tells positions of it, and holds what G17, G18
    and G20 find.

    **What is wrong**, and halts: the acknowledgement or the fill of an id that was never sent, or that is of another
    instrument than the id says; the fill of a quantity that is not a whole number of lots, from one to 2^24 - 1;
    whatever becomes of an order of an id that was never sent; a message of ours that the gateway could not read.

    **Refusals** are the sides that an acknowledgement refuses, and both sides of a quote that is refused as a whole.

    **What positions learn of**: each fill, acknowledgement and refusal of a whole quote; an order that leaves the book,
    if it is one that the last acknowledgement of its instrument told of; and the answer to a mass cancel of the
    fabric's, of one instrument after the other.

    Parameters
    ----------
    instruments : number of instruments, 1..256.

    Members
    -------
    i : in(stream of Event) ``ready`` for one cycle, when all is done.
    next_number : in(56) ids from this one on, without the instrument, were never sent.
    index : out(8), word : out(6) the word of a row that is wanted, for four cycles; ``data`` : in(32) is that word in
        the second cycle after them. The row is the active one.
    fills_cycles : in(32), fills_lots, fills_delta : in(24), fills_most : in(8), freeze_cycles : in(32) as
        :class:`hdl.gate.bursts.FillBurst` has them, repeats_most : in(8) as
        :class:`hdl.gate.repeats.RepeatedExecution`, refusals_cycles : in(32), refusals_most : in(8) as
        :class:`hdl.gate.bursts.RefusalStorm`.
    quoted : in(1), quoted_instrument : in(8), quoted_bid, quoted_ask : in(1) as RepeatedExecution has them.
    release : in(1) strobe: the host lets ``release_instrument`` : in(8), which exists, go: with its next visit.
    tick : in(1) strobe, every :data:`VISIT_PERIOD` cycles: an instrument is visited, one after the other, unless an
        event is under way, when it has to wait for its next turn.
    post : out(Post) of :mod:`hdl.gate.holds`, taken when ``post_ready`` : in(1). Three at most for an event or a visit.
    learn : out(1) what is said of ``index`` is ``learned`` : out(Learned), until ``settled`` : in(1) comes, in the same
        cycle at the soonest. wrong : out(1) strobe: as above.
    clearing : out(1) after reset, a cycle an instrument: nothing is taken up.

    **Latency**: with an event up in cycle *a* (no tick, nothing under way), :data:`READ_CYCLES` later it is judged, and
    ``wrong`` strobes in the cycle after that, or it is done with. A fill is converted first: 56 cycles for each decade
    that its exponent is away from the lot's, one for each zero at the lot's lower end, 24, and two. What an
    acknowledgement or a refusal of a whole quote leaves to be kept takes :data:`KEEP_CYCLES`. What is weighed takes
    :data:`LEARN_CYCLES` more, and is posted from then on. What is learned is told after that.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "i": In(stream.Signature(Event)), "next_number": In(64 - INSTRUMENT_BITS), "index": Out(8),
            "word": Out(ROW_WORD_BITS), "data": In(32),
            **{name: In(width) for name, width in ANSWER_LIMITS.items()}, "quoted": In(1), "quoted_instrument": In(8),
            "quoted_bid": In(1), "quoted_ask": In(1), "release": In(1), "release_instrument": In(8), "tick": In(1),
            "post": Out(Post), "post_ready": In(1), "learn": Out(1), "learned": Out(Learned), "settled": In(1),
            "wrong": Out(1), "clearing": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n, event = self.instruments, self.i.payload
        m.submodules.fills = fills = FillBurst(n)
        m.submodules.repeats = repeats = RepeatedExecution(n)
        m.submodules.refusals = refusals = RefusalStorm(n)

        state, step, at = Signal(_State), Signal(range(64)), self.index
        divides = Signal()      # in that state: what is subtracted waits for nothing else
        m.d.sync += step.eq(step + 1)

        def goes(where):
            m.d.sync += [state.eq(where), step.eq(0), divides.eq(where == _State.DIVIDE)]

        def done():
            m.d.comb += self.i.ready.eq(1)
            goes(_State.IDLE)

        # Whose turn it is, and whom the host lets go.
        visited, of_visited, released = Signal(range(max(2, n))), Signal(n, init=1), Signal(n)
        visit, lets_go = Signal(), Signal()
        m.d.comb += visit.eq(self.tick & (state == _State.IDLE) & ~self.clearing)
        with m.If(visit):
            m.d.sync += [visited.eq(Mux(visited == n - 1, 0, visited + 1)), of_visited.eq(of_visited.rotate_left(1)),
                         lets_go.eq((released & of_visited).any())]
        m.d.sync += released.eq((released & ~Mux(visit, of_visited, 0))
                                | Mux(self.release, 1 << self.release_instrument, 0))

        # Of an event: its id was sent, its instrument exists, and is the one of its row.
        number, index = event.id[INSTRUMENT_BITS:], event.id[:INSTRUMENT_BITS]
        sent, exists, same, decades = Signal(), Signal(), Signal(), Signal(signed(9))
        m.d.sync += [sent.eq(number < self.next_number), exists.eq(index < n)]
        m.d.comb += self.word.eq(Array(PARAM_BY_NAME[name].word for name in _WORDS)[step[2:4]])
        is_kind = {kind: event.kind == kind for kind in Kind}
        refused = Signal(2)
        m.d.sync += refused.eq(Cat(event.bid_reason != NO_REASON, event.ask_reason != NO_REASON))
        count = Mux(is_kind[Kind.REJECT], 2, refused[0] + refused[1])
        is_ack, is_reject, is_cancelled, is_mass = (
            is_kind[kind] for kind in (Kind.ACK, Kind.REJECT, Kind.CANCELLED, Kind.MASS_CANCELLED))
        has_row = is_ack | is_kind[Kind.FILL]
        has_id = has_row | is_cancelled | is_kind[Kind.PLACED]
        # The orders of the last acknowledgement, a word a cycle.
        word_bits, width = (KEEP_CYCLES - 1).bit_length(), max(1, (n - 1).bit_length())
        m.submodules.kept = kept = BlockMemory(32, 1 << word_bits + width)
        fetched, order_word = Signal(32, reset_less=True), Signal(32)
        acked, differs = Signal(32), Signal(2)      # the quote that was answered; the orders are others than that
        m.d.sync += [fetched.eq(kept.read_data), order_word.eq(fetched)]
        m.d.comb += [
            kept.read_addr.eq(Cat(step[:word_bits], at[:width])), kept.write_addr.eq(kept.read_addr),
            # A quote that is refused as a whole leaves the book as the last acknowledgement told, up to that quote.
            kept.write_en.eq((state == _State.KEEP) & (is_ack | (step == KEEP_CYCLES - 1))),
            kept.write_data.eq(Array((event.bid_order_id[:32], event.bid_order_id[32:], event.ask_order_id[:32],
                                      event.ask_order_id[32:], event.id[:32]))[step[:word_bits]]),
        ]

        # Of both sides of an acknowledgement.
        whole, reduced = Signal(2), Signal(2)
        m.d.sync += [flags.eq(Cat(Cat(status == its for its in those).any()
                                  for status in (event.bid_status, event.ask_status)))
                     for flags, those in ((whole, WHOLE), (reduced, REDUCED))]
        bad, weighs, sweeps, goes_off = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            bad.eq((has_id & ~sent) | (has_row & ~(exists & same)) | is_kind[Kind.SESSION_REJECT]),
            weighs.eq((is_ack & refused.any()) | (is_reject & sent & exists)),
            sweeps.eq(is_mass & sent & (index == MASS_CANCEL_INSTRUMENT)),
            goes_off.eq(is_cancelled & exists & same & ~differs.all()),
        ]

        # A quantity in lots. The mantissa goes by the lowest bit first, whatever is done to it.
        mantissa, lot = Signal(signed(MANTISSA_BITS + 1)), Signal(32)
        lots = Signal(LOT_BITS)
        past, carry, last_bit = Signal(3), Signal(), Signal()       # bits that have gone by
        enters = Signal(2)                                          # at the upper end
        less_lot = (mantissa - Mux(divides & mantissa[0], lot, 0))[:len(mantissa)]
        shifted = Cat(less_lot[1:-1], enters)
        times_ten, tenth = past[0] + past[2] + carry, mantissa[1] & ~last_bit
        down = decades[-1]
        quotient = tenth ^ past[1] ^ carry
        m.d.comb += [last_bit.eq(step == MANTISSA_BITS - 1), enters.eq(less_lot[-1].replicate(2))]
        fits = Signal()     # so far
        strip = ~lot[0]

        def wrong():
            m.d.sync += self.wrong.eq(1)
            done()

        learns = Signal()   # strobe

        def weigh():
            m.d.sync += learns.eq(1)
            goes(_State.LEARN)

        m.d.sync += [self.wrong.eq(0), learns.eq(0)]
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += [step.eq(0), same.eq(1)]
                with m.If(visit):
                    m.d.sync += at.eq(visited)
                    goes(_State.VISIT)
                with m.Elif(self.i.valid & ~self.clearing):
                    m.d.sync += at.eq(index)
                    goes(_State.READ)
            with m.Case(_State.READ):
                for n_word, its in enumerate((event.instrument_id[:32], event.instrument_id[32:])):
                    with m.If((step == _WORD_CYCLES * (n_word + 1) + 1) & (self.data != its)):
                        m.d.sync += same.eq(0)
                with m.If(step == _WORD_CYCLES * (_WORDS.index("lot_mult") + 1) + 1):
                    m.d.sync += lot.eq(self.data)
                with m.If(step == _WORD_CYCLES * (_WORDS.index("lot_exp") + 1) + 1):
                    m.d.sync += [decades.eq(event.exponent - self.data[:8].as_signed()),
                                 mantissa.eq(event.mantissa[:MANTISSA_BITS]),
                                 fits.eq((event.mantissa >> MANTISSA_BITS) == 0)]
                # A word of what is kept stands two cycles after it was asked for.
                with m.If(step == 0):
                    m.d.sync += differs.eq(0)
                for n_word in range(KEEP_CYCLES - 1):
                    half = event.order_id[32 * (n_word & 1):][:32]
                    with m.If((step == n_word + 2) & (order_word != half)):
                        m.d.sync += differs[n_word >> 1].eq(1)
                with m.If(step == KEEP_CYCLES - 1 + 2):
                    m.d.sync += acked.eq(order_word)
                with m.If(step == READ_CYCLES - 1):
                    m.d.sync += [past.eq(0), carry.eq(0)]
                    with m.If(bad):
                        wrong()
                    with m.Elif(is_kind[Kind.FILL]):
                        with m.If((lot == 0) | ~fits | (decades > MOST_DECADES) | (decades < -MOST_DECADES)):
                            wrong()
                        with m.Elif(decades == 0):
                            goes(_State.STRIP)
                        with m.Else():
                            goes(_State.SCALE)
                    with m.Elif(is_ack | weighs):
                        goes(_State.KEEP)
                    with m.Elif(goes_off):
                        goes(_State.SETTLE)
                    with m.Elif(sweeps):
                        m.d.sync += at.eq(0)
                        goes(_State.SETTLE)
                    with m.Else():
                        done()
            with m.Case(_State.KEEP):
                with m.If(step == KEEP_CYCLES - 1):
                    with m.If(weighs):
                        weigh()
                    with m.Else():
                        goes(_State.SETTLE)
            with m.Case(_State.SCALE):
                # Ten times: twice and eight times. A tenth: a half, less four times what has come of it so far.
                m.d.comb += enters.eq(Mux(down, quotient, times_ten[0]))
                m.d.sync += [
                    mantissa.eq(shifted), past.eq(Cat(Mux(down, quotient, mantissa[0]), past)),
                    carry.eq(Mux(down, Mux(tenth, past[1] & carry, past[1] | carry), times_ten[1])),
                ]
                with m.If(down & (step == 0) & mantissa[0]):
                    m.d.sync += fits.eq(0)
                with m.If(last_bit):
                    m.d.sync += decades.eq(Mux(down, decades + 1, decades - 1))
                    m.d.sync += [step.eq(0), past.eq(0), carry.eq(0)]
                    # What has not gone in yet is beyond the upper end; of a tenth it is the three upper bits.
                    with m.If(Mux(down, Cat(quotient, past[:2]).any(), Cat(mantissa[0], past[:2], times_ten[1]).any())):
                        m.d.sync += fits.eq(0)
                    with m.If((decades == 1) | (decades == -1)):
                        goes(_State.STRIP)
            with m.Case(_State.STRIP):
                with m.If(strip):
                    m.d.sync += [mantissa.eq(shifted), lot.eq(lot >> 1)]
                    with m.If(mantissa[0]):
                        m.d.sync += fits.eq(0)
                with m.Else():
                    goes(_State.DIVIDE)
            with m.Case(_State.DIVIDE):
                with m.If(step < LOT_BITS):
                    m.d.sync += [mantissa.eq(shifted), lots.eq(Cat(lots[1:], mantissa[0]))]
                with m.Elif(fits & (mantissa == 0) & (lots != 0)):
                    weigh()
                with m.Else():
                    wrong()
            with m.Case(_State.LEARN):
                with m.If(step == LEARN_CYCLES - 1):
                    goes(_State.SETTLE)
            with m.Case(_State.SETTLE):
                with m.If(self.settled & is_mass & (at != n - 1)):
                    m.d.sync += at.eq(at + 1)
                with m.Elif(self.settled):
                    done()
            with m.Case(_State.VISIT):
                with m.If(step == VISIT_CYCLES - 1):
                    goes(_State.IDLE)

        is_fill = is_kind[Kind.FILL]
        learned = self.learned
        m.d.comb += [
            self.learn.eq(state == _State.SETTLE), learned.fill.eq(is_fill), learned.side.eq(event.side),
            learned.lots.eq(lots), learned.earlier.eq(is_mass), learned.refused.eq(is_reject.replicate(2)),
            learned.answered.eq(Mux(is_cancelled, ~differs, (is_ack | is_mass).replicate(2))),
            learned.stands.eq(Mux(is_ack, whole | reduced, 0)),
            learned.less.eq(Mux(is_cancelled, ~differs, Mux(is_ack, ~whole, 0))),
            learned.quote_id.eq(Mux(is_cancelled, acked, event.id[:32])), learned.next.eq(event.next),
        ]

        # The gates. What they find out is posted one by one, while the next event may be read already.
        visits = Signal()
        m.d.sync += visits.eq(visit)
        m.d.comb += [
            *(gate.instrument.eq(at) for gate in (fills, repeats, refusals)),
            *(gate.visit.eq(visits) for gate in (fills, repeats, refusals)),
            *(gate.lets_go.eq(lets_go) for gate in (fills, repeats, refusals)),
            fills.fill.eq(learns & is_fill), fills.side.eq(event.side), fills.lots.eq(lots),
            fills.window_cycles.eq(self.fills_cycles), fills.most_lots.eq(self.fills_lots),
            fills.most_delta.eq(self.fills_delta), fills.most_fills.eq(self.fills_most),
            fills.freeze_cycles.eq(self.freeze_cycles),
            repeats.fill.eq(learns & is_fill), repeats.side.eq(event.side), repeats.most_repeats.eq(self.repeats_most),
            repeats.quoted.eq(self.quoted), repeats.quoted_instrument.eq(self.quoted_instrument),
            repeats.quoted_bid.eq(self.quoted_bid), repeats.quoted_ask.eq(self.quoted_ask),
            refusals.refusals.eq(learns & ~is_fill), refusals.count.eq(count),
            refusals.window_cycles.eq(self.refusals_cycles), refusals.most_refusals.eq(self.refusals_most),
            self.clearing.eq(fills.clearing | repeats.clearing | refusals.clearing),
        ]
        found = {17: (fills, fills.held, fills.held), 18: (repeats, repeats.held_bid, repeats.held_ask),
                 20: (refusals, refusals.held, refusals.held)}
        weighed = Signal()
        of_fill = is_fill & (state == _State.LEARN)
        of_refusal = ~is_fill & (state == _State.LEARN)
        m.d.comb += weighed.eq(((state == _State.LEARN) & (step == LEARN_CYCLES - 1))
                               | ((state == _State.VISIT) & (step == VISIT_CYCLES - 1)))
        waits, bids, asks = Signal(len(found)), Signal(len(found)), Signal(len(found))
        with m.If(weighed):
            m.d.sync += self.post.instrument.eq(at)
            for k, (gate, (its, bid, ask)) in enumerate(found.items()):
                concerns = (state == _State.VISIT) | (of_refusal if gate == 20 else of_fill)
                m.d.sync += [waits[k].eq(its.changes & concerns), bids[k].eq(bid), asks[k].eq(ask)]
        first = waits & -waits
        m.d.comb += [
            self.post.valid.eq(waits.any()), self.post.bid.eq((bids & first).any()),
            self.post.ask.eq((asks & first).any()),
            self.post.gate.eq(Cat(first[list(found).index(g)] if g in found else 0 for g in HOLDING)),
        ]
        with m.If(self.post_ready & ~weighed):
            m.d.sync += waits.eq(waits & ~first)
        return m

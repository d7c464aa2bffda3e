"""What is live at the venue and what could still trade: the memory behind G11."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.control.params import Ticks
from hdl.memory import BLOCK, LANE_BITS, LANES, told_of

#: So many rows, and a memory in LUTs has no choice behind it.
_FEW = 16
#: Blocks that are rather spared then: one takes the place of some fifty LUTs.
_BLOCKS_SPARED, _BLOCK_BITS = 3, LANES * LANE_BITS
_DISTRIBUTED = {"ram_style": "distributed", "no_rw_check": 1}


class LiveQuote(data.Struct):
    """What the venue was last told of an instrument, and how much was ever sent.

    ``bid_px``, ``ask_px``: quote ticks. ``bid_lots``, ``ask_lots``. ``quote_id``: low 32 bits of the last quote.
    ``sent_bid``, ``sent_ask``: lots of all quotes ever sent, modulo 2^32.
    """

    bid_px: Ticks
    ask_px: Ticks
    bid_lots: 24
    ask_lots: 24
    quote_id: 32
    sent_bid: 32
    sent_ask: 32


class Position(data.Struct):
    """What is held, and of the lots sent how many are settled (traded or gone), modulo 2^32: ``lots``, ``settled_bid``,
    ``settled_ask``, in which every message of the exchange counts before the one numbered ``next`` (low 32 bits).
    ``told``: by the host, so that none of that very message counts any more; else it was learned from the exchange, and
    the message before ``next`` may tell more.
    """

    lots: signed(32)
    settled_bid: 32
    settled_ask: 32
    next: 32
    told: 1


class Exposure(wiring.Component):
    """Live quotes and positions of all instruments, and those of one on the work bench.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    address : in(8) instrument that is asked for. ``of_address`` : in(instruments) its bit, a cycle later.
    load : in(1) in the cycle after ``address`` came to rest, or later: take its rows onto the bench. They stand on the
        outputs from the next cycle on, with every change up to two cycles before, until the next ``load``. What is
        changed in the cycle before may be read as anything: the evaluation that it is for must not decide.
    settle : in(1) something is known better about the instrument on the bench, which is still on ``address``: with
        ``counts`` : in(1) ``position`` : in(:class:`Position`), which with ``known_now`` : in(1) is the host's word and
        no unknown one any more; ``clear_bid``, ``clear_ask`` : in(1) that side is gone, if ``meant`` : out(1) is 1: its
        last quote was ``settled_quote_id`` : in(32), which stands, as the bench does, from the cycle before ``settle``
        on; ``spent_bid``, ``spent_ask`` : in(1) that side is gone, whatever its last quote was. The bench does not
        change. Excludes ``emit``.
    prepare : in(1) a quote of the instrument on the bench leaves next: what was sent before is kept for ``emit``, which
        may come when the bench holds another instrument.
    emit : in(1) it leaves: ``instrument`` : in(8), ``of_instrument`` : in(instruments) its bit, ``bid_px``, ``ask_px``
        : in(Ticks), ``bid_lots``, ``ask_lots`` : in(24) what is live from now on (0 lots: nothing, else
        ``bid_some``, ``ask_some`` : in(1)) and can trade in addition, ``quote_id`` : in(32). ``sent_bid``, ``sent_ask``
        : out(32) lots ever sent, with this quote.
    clear_all : in(1) nothing is live any more (mass cancel). Excludes ``emit``.
    forget_positions : in(1) all positions are unknown.
    restart : in(1) a new session begins: nothing is live, nothing was sent, all positions are unknown. The rows are
        cleared one a cycle, while ``clearing`` : out(1) is high; nothing may be settled in that time, and nothing can
        be emitted, as unknown positions block. ``next`` of a position is what ``first_message`` : in(32) is then.
    live : out(:class:`LiveQuote`), bid_live, ask_live : out(1) what is live. Before the first quote of a session only
        what was sent says anything: nothing was, by no quote: its id is 0.
    known : out(:class:`Position`), position_known : out(1) what the host has said.
    live_bids, live_asks : out(instruments) one bit each. ``live_sides`` : out(10) how many there are, two cycles later.

    After reset the rows are cleared, one a cycle; nothing may be emitted or settled before that.

    Attributes
    ----------
    kept : {name: Value}, once it is elaborated
        For proofs: ``sent``, what was sent before the quote that leaves next, ``quotes`` and ``positions`` as fetched,
        bits of each that are in a memory of their own, ``quotes_parts`` and ``positions_parts``, ``known`` positions,
        and whether rows are being cleared, ``sweeping``.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "address": In(8), "of_address": In(instruments), "load": In(1), "prepare": In(1), "emit": In(1),
            "instrument": In(8), "of_instrument": In(instruments), "bid_px": In(Ticks), "ask_px": In(Ticks),
            "bid_lots": In(24), "ask_lots": In(24), "bid_some": In(1), "ask_some": In(1),
            "quote_id": In(32), "sent_bid": Out(32), "sent_ask": Out(32), "clear_all": In(1), "settle": In(1),
            "position": In(Position), "clear_bid": In(1), "clear_ask": In(1), "spent_bid": In(1), "spent_ask": In(1),
            "settled_quote_id": In(32),
            "counts": In(1), "known_now": In(1), "meant": Out(1), "forget_positions": In(1), "restart": In(1),
            "first_message": In(32),
            "clearing": Out(1), "live": Out(LiveQuote), "bid_live": Out(1), "ask_live": Out(1), "known": Out(Position),
            "position_known": Out(1), "live_bids": Out(instruments), "live_asks": Out(instruments),
            "live_sides": Out(10)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        width = max(1, (n - 1).bit_length())
        address, instrument = self.address[:width], self.instrument[:width]

        # A memory keeps its content through a reset: what was sent and settled before it, and with which quote, is
        # forgotten row by row. What else a quote's row says means nothing while its side is not live.
        sweep = Signal(range(n))
        sweeping = Signal(init=1)
        with m.If(self.restart):
            m.d.sync += [sweep.eq(0), sweeping.eq(1)]
        with m.Elif(sweeping):
            m.d.sync += [sweep.eq(sweep + 1), sweeping.eq(sweep != n - 1)]
        m.d.comb += self.clearing.eq(sweeping)

        def rows(name, shape, write_en, at, row):
            # Of few rows, what no block would be full of is in LUTs, and so is all that takes few blocks.
            fetched, width = Signal(shape, name=f"{name}_fetched", reset_less=True), len(row.as_value())
            in_luts = (width % _BLOCK_BITS if width > _BLOCKS_SPARED * _BLOCK_BITS else width) if n <= _FEW else 0
            parts = (f"{name}_rest", 0, in_luts, _DISTRIBUTED), (name, in_luts, width, BLOCK)
            parts = [each for each in parts if each[1] < each[2]]
            self.kept[f"{name}_parts"] = [slice(low, high) for _, low, high, _ in parts]
            for part, low, high, attrs in parts:
                into, out = row.as_value()[low:high], fetched.as_value()[low:high]
                m.submodules[part] = memory = Memory(shape=len(into), depth=n, init=[], attrs=attrs)
                write, read = memory.write_port(), memory.read_port(domain="comb")
                m.d.sync += out.eq(read.data)
                m.d.comb += [read.addr.eq(address), write.addr.eq(Mux(sweeping, sweep, at)),
                             write.en.eq(write_en | sweeping), write.data.eq(into)]
            return fetched

        after = Signal(LiveQuote)
        sent_bid, sent_ask = Signal(32), Signal(32)
        self.kept = {"sent": (sent_bid, sent_ask), "sweeping": sweeping}
        with m.If(self.prepare):
            m.d.sync += [sent_bid.eq(self.live.sent_bid), sent_ask.eq(self.live.sent_ask)]
        position = Signal(Position)
        with m.If(sweeping):
            m.d.comb += [position.next.eq(self.first_message), position.told.eq(1)]
        with m.Else():
            m.d.comb += position.eq(self.position)
        quotes = rows("quotes", LiveQuote, self.emit, instrument, after)
        positions = rows("positions", Position, self.settle & self.counts, address, position)
        self.kept |= {"quotes": quotes, "positions": positions}
        m.d.comb += [
            after.bid_px.eq(self.bid_px), after.ask_px.eq(self.ask_px),
            after.bid_lots.eq(self.bid_lots), after.ask_lots.eq(self.ask_lots),
            after.quote_id.eq(Mux(sweeping, 0, self.quote_id)),
            # A side that is repeated counts again: the venue fills it up if part of it has traded meanwhile.
            after.sent_bid.eq(Mux(sweeping, 0, sent_bid + self.bid_lots)),
            after.sent_ask.eq(Mux(sweeping, 0, sent_ask + self.ask_lots)),
        ]

        m.d.comb += [self.sent_bid.eq(after.sent_bid), self.sent_ask.eq(after.sent_ask)]

        bids, asks, known = self.live_bids, self.live_asks, Signal(n)    # one bit an instrument
        self.kept |= {"known": known}
        asked = [told_of(m, bits, address, f"asked_{what}") for what, bits in (
            ("bid", bids), ("ask", asks), ("known", known))]
        with m.If(self.load):
            m.d.sync += [self.live.eq(quotes), self.known.eq(positions), self.bid_live.eq(asked[0]),
                         self.ask_live.eq(asked[1]), self.position_known.eq(asked[2])]
        is_meant = Signal()     # the quote on the bench
        m.d.sync += is_meant.eq(self.live.quote_id == self.settled_quote_id)
        m.d.comb += self.meant.eq(is_meant)
        gone = self.clear_all | self.restart
        # Which sides they are of is asked when they change, and counted a cycle later: at most one row does in a cycle.
        of_changed, grows, shrinks, were_gone = Signal(n), Signal(2), Signal(2), Signal()
        m.d.comb += of_changed.eq(Mux(self.emit, self.of_instrument, self.of_address))
        m.d.sync += were_gone.eq(gone)
        for side, (bits, some, clear, spent) in enumerate((
                (bids, self.bid_some, self.clear_bid, self.spent_bid),
                (asks, self.ask_some, self.clear_ask, self.spent_ask))):
            left, was_live = self.settle & ((is_meant & clear) | spent), (bits & of_changed).any()
            m.d.sync += [grows[side].eq(self.emit & some & ~was_live),
                         shrinks[side].eq(Mux(self.emit, ~some, left) & was_live)]
            now = (bits & ~Mux(self.emit, self.of_instrument, 0)) | Mux(self.emit & some, self.of_instrument, 0)
            m.d.sync += bits.eq(now & ~Mux(left, self.of_address, 0) & ~gone.replicate(n))
        change = Signal(signed(3))
        m.d.sync += change.eq(grows[0] + grows[1] - shrinks[0] - shrinks[1])
        were_gone_then = Signal()
        m.d.sync += [were_gone_then.eq(were_gone), self.live_sides.eq(Mux(were_gone_then, 0, self.live_sides + change))]
        m.d.sync += known.eq((known | Mux(self.settle & self.counts & self.known_now, self.of_address, 0))
                             & ~(self.forget_positions | self.restart).replicate(n))
        return m

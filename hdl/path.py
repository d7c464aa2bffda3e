"""From the bytes of the feed port to the decision: match, arbiter, walker, book, engine, gate, wired together."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature, connect, flipped

from hdl.book.by_level import BookByLevel
from hdl.control.params import PARAM_ROW
from hdl.control.registers import MASS_CANCEL_INSTRUMENT
from hdl.feed.arbiter import SequenceArbiter
from hdl.feed.lookup import InstrumentLookup
from hdl.feed.mdp3 import SCHEMA, Mdp3Walker
from hdl.feed.ticks import TickConverter
from hdl.gate.buckets import TokenBuckets
from hdl.gate.exposure import Exposure, Position
from hdl.gate.gate import Gate
from hdl.gate.state import TradingState
from hdl.layout import sbe
from hdl.mac.stream import RxBytes
from hdl.net.feed_match import FeedMatch
from hdl.order.port import KIND_MASS_CANCEL, KIND_QUOTE, Quote
from hdl.quote.engine import QuoteEngine
from hdl.quote.scheduler import Scheduler

_LINK = sbe.load("t2q_link")
OUTCOME = _LINK.enums["Outcome"]
FLAG = _LINK.sets["DecisionFlags"]
_TYPE = SCHEMA.enums["MDEntryTypeBook"]
_ACTION = SCHEMA.enums["MDUpdateAction"]
_SIZE_NULL = SCHEMA["MDIncrementalRefreshBook46"].groups["NoMDEntries"]["MDEntrySize"].null

#: What the host sets and does, as named in the register map; strobes carry ``data``.
PathControl = Signature({
    **{name: Out(width) for name, width in (
        ("line_a_ip", 32), ("line_a_port", 16), ("line_b_ip", 32), ("line_b_port", 16), ("vlan", 18),
        ("deadman_cycles", 32), ("session_interval", 32), ("session_burst", 16), ("symbol_interval", 32),
        ("symbol_burst", 8), ("pos_value", 32), ("pos_settled_bid", 32), ("pos_settled_ask", 32),
        ("pos_quote_id", 32))},
    **{name: Out(1) for name in (
        "arm", "disarm", "reduce", "kill", "clear_halt", "heartbeat", "commit", "pos_commit",
        "session_interval_written", "symbol_interval_written", "quote_id_written", "security_id_written",
        "stale_limit_written", "kill_pin")},
    "data": Out(32), "quote_id": Out(64), "security_index": Out(8), "stale_limit_address": Out(16),
})

#: What the registers show.
PathStatus = Signature({
    "state": Out(2), "halt_cause": Out(8), "halt_nonce": Out(32), "gap_packets": Out(32), "expected_seq": Out(32),
    "session_tokens": Out(16), "next_quote_id": Out(64), "live_bids": Out(32), "live_asks": Out(32),
})

#: Strobes for the counters of the same names (``drop_*`` one a gate).
COUNTED = ("feed_not_ours", "feed_bad_header", "feed_ip_options", "feed_fragments", "line_a_packets", "line_b_packets",
           "accepted_packets", "duplicate_packets", "gaps", "poisoned_packets", "short_packets", "messages",
           "book_messages", "entries", "foreign_entries", "ignored_entries", "px_errors", "channel_resets", "events",
           "quotes_sent", "quotes_pulled", "mass_cancels", "decisions_held", "decisions_dropped",
           "decisions_deferred")
PathCounters = Signature({name: Out(1) for name in COUNTED})

#: A decision as the host will read it; names and widths are those of the link's Decision message.
DecisionRecord = Signature({
    f.name: Out(signed(8 * f.size) if f.signed else 8 * f.size)
    for f in _LINK["Decision"].fields.values() if f.name != "sequence"})


class TickPath(wiring.Component):
    """Feed bytes in, quotes out.

    Parameters
    ----------
    instruments : at most 32 shown in ``status.live_*``; any number works.
    depth : book levels a side.

    Members
    -------
    rx : in(RxBytes) the feed port. ``cycle`` : in(64) cycles since reset.
    control : in(PathControl), status : out(PathStatus), counters : out(PathCounters), ``drops`` : out(32) strobes by
        gate.
    row_address : out(8), row : in(PARAM_ROW) the active parameter row of the address of the cycle before.
    flip : out(1) the parameter banks flip at the end of this cycle. ``bank`` : in(1) the active one.
    session_up, session_lost, session_enabled : in(1) from the order session; ``session_enabled`` strobes when a
        connection is handed over: nothing is live on it.
    fire : out(1), kind : out(1), quote : out(Quote), ready : in(1), hot_busy : out(1) to the order port.
    record : out(DecisionRecord), record_valid : out(1) a decision was taken.
    direct_quote : out(1) a quote caused by a trigger byte starts; ``trigger_cycle`` : out(64) when that byte was on the
        pins.
    state_changed, arm_refused, gap, poisoned, channel_reset : out(1) events; ``gap_size`` : out(32) packets missing in
        this gap; ``last_seq`` : out(32) last accepted sequence number.

    Latency: the trigger byte on the pins in cycle *k* fires in *k* + 1 + :data:`hdl.quote.scheduler.DECISION_CYCLES`.
    """

    def __init__(self, instruments=16, depth=10):
        self.instruments, self.depth = instruments, depth
        super().__init__({
            "rx": In(RxBytes), "cycle": In(64), "control": In(PathControl), "status": Out(PathStatus),
            "counters": Out(PathCounters), "drops": Out(32), "row_address": Out(8), "row": In(PARAM_ROW),
            "flip": Out(1), "bank": In(1), "session_up": In(1), "session_lost": In(1), "session_enabled": In(1),
            "fire": Out(1), "kind": Out(1), "quote": Out(Quote), "ready": In(1), "hot_busy": Out(1),
            "record": Out(DecisionRecord), "record_valid": Out(1), "direct_quote": Out(1), "trigger_cycle": Out(64),
            "state_changed": Out(1), "arm_refused": Out(1), "gap": Out(1), "gap_size": Out(32),
            "poisoned": Out(1), "channel_reset": Out(1), "last_seq": Out(32)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        control, counters = self.control, self.counters

        m.submodules.match = match = FeedMatch()
        m.submodules.arbiter = arbiter = SequenceArbiter()
        m.submodules.walker = walker = Mdp3Walker()
        m.submodules.lookup = lookup = InstrumentLookup(n)
        m.submodules.ticks = ticks = TickConverter()
        m.submodules.book = book = BookByLevel(n, self.depth)
        m.submodules.scheduler = scheduler = Scheduler(n)
        m.submodules.engine = engine = QuoteEngine()
        m.submodules.exposure = exposure = Exposure(n)
        m.submodules.buckets = buckets = TokenBuckets(n)
        m.submodules.state = state = TradingState()
        m.submodules.gate = gate = Gate()

        # ------------------------------------------------------------------ feed: bytes to entries
        connect(m, match.rx, flipped(self.rx))
        payload = match.out
        m.d.comb += [
            *(getattr(match, name).eq(getattr(control, name))
              for name in ("line_a_ip", "line_a_port", "line_b_ip", "line_b_port", "vlan")),
            walker.data.eq(payload.data), walker.valid.eq(payload.valid), walker.first.eq(payload.first),
            walker.last.eq(payload.last_expected), walker.length.eq(payload.payload_len),
            walker.frame_end.eq(payload.frame_end), walker.frame_ok.eq(payload.frame_ok),
            arbiter.seq.eq(walker.seq), arbiter.seq_valid.eq(walker.seq_valid), walker.accept.eq(arbiter.accept),
            arbiter.take_back.eq(walker.poisoned & ~payload.frame_ok),
            lookup.security_id.eq(walker.security_id),
            lookup.write.eq(control.security_id_written), lookup.write_index.eq(control.security_index),
            lookup.write_id.eq(control.data),
        ]
        void = Signal()     # every book is worthless from the next cycle on
        m.d.comb += void.eq(arbiter.gap | walker.reset_channel | walker.poisoned)

        # The row of the claimed instrument arrives long before the entry's last byte: the price is in ticks by then.
        m.d.comb += [
            ticks.px.eq(walker.px), ticks.shift.eq(self.row.feed_tick_shift), ticks.odd.eq(self.row.feed_tick_odd),
            ticks.inverse.eq(self.row.feed_tick_inv), ticks.en.eq(scheduler.claimed),
        ]

        mine, kept, is_reset, size_ok = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            mine.eq(walker.entry & scheduler.claimed),
            is_reset.eq(walker.entry_type == _TYPE["BookReset"]),
            kept.eq(is_reset | ((walker.entry_type == _TYPE["Bid"]) | (walker.entry_type == _TYPE["Offer"]))
                    & (walker.level != 0) & (walker.level <= self.depth) & (walker.action <= max(_ACTION.values()))),
            size_ok.eq((walker.size != 0) & (walker.size < _SIZE_NULL)),
            book.address.eq(scheduler.address),
            book.update_bid.eq(mine & kept & (walker.entry_type == _TYPE["Bid"])),
            book.update_ask.eq(mine & kept & (walker.entry_type == _TYPE["Offer"])),
            book.update_reset.eq(mine & is_reset),
            book.action.eq(walker.action), book.level.eq(walker.level), book.px.eq(ticks.ticks),
            book.size.eq(walker.size), book.known.eq(ticks.ok & size_ok), book.invalidate.eq(void),
        ]

        # ------------------------------------------------------------------ which instrument, when
        hold = Signal()     # a mass cancel is outstanding
        live = Signal(n)
        settle = Signal()   # the host knows better about an instrument that exists
        m.d.comb += [
            live.eq(exposure.live_bids | exposure.live_asks),
            scheduler.identified.eq(walker.security_id_valid & lookup.hit), scheduler.index.eq(lookup.index),
            scheduler.entry.eq(walker.entry), scheduler.applied.eq(kept), scheduler.publish.eq(walker.publish),
            scheduler.publish_entry.eq(walker.publish_entry), scheduler.accept.eq(arbiter.accept),
            scheduler.invalidate.eq(void), scheduler.frame_end.eq(payload.frame_end),
            scheduler.settle.eq(settle), scheduler.settle_index.eq(control.data[:8]),
            scheduler.commit.eq(control.commit), scheduler.evaluate_all.eq(state.armed | state.reduced),
            scheduler.stale_limit_write.eq(control.stale_limit_written),
            scheduler.stale_limit_address.eq(control.stale_limit_address), scheduler.stale_limit.eq(control.data),
            scheduler.bank.eq(self.bank), scheduler.ready.eq(self.ready), scheduler.hold.eq(hold),
            scheduler.trading.eq(state.trading), scheduler.live.eq(live), scheduler.refill.eq(buckets.refill),
            self.flip.eq(scheduler.flip), self.row_address.eq(scheduler.address),
            self.hot_busy.eq(scheduler.busy | (hold & self.ready & buckets.cancel_ok)),
            exposure.address.eq(scheduler.address),
        ]
        # The host may write the next position while this one waits for a gap in the feed.
        settle_words, settle_position, settle_quote_id = Signal(32), Signal(Position), Signal(32)
        m.d.comb += settle.eq(control.pos_commit & (control.data[:8] < n))
        with m.If(settle):
            m.d.sync += [
                settle_words.eq(control.data), settle_quote_id.eq(control.pos_quote_id),
                settle_position.lots.eq(control.pos_value), settle_position.settled_bid.eq(control.pos_settled_bid),
                settle_position.settled_ask.eq(control.pos_settled_ask),
            ]

        # ------------------------------------------------------------------ evaluation, stages 1 to 4: the engine
        best_bid, best_ask = book.bid[0], book.ask[0]
        known = Signal()
        sampled = Signal(signed(32)), Signal(signed(32))
        bests_known = Signal(2)
        book_ok = Signal()
        bid_px, ask_px, lots = Signal(signed(32)), Signal(signed(32)), Signal(signed(32))   # 0 where unknown
        m.d.comb += [
            known.eq(best_bid.known & best_ask.known),
            bid_px.eq(Mux(best_bid.known, best_bid.px, 0)), ask_px.eq(Mux(best_ask.known, best_ask.px, 0)),
            lots.eq(Mux(exposure.position_known, exposure.known.lots, 0)),
            engine.best_bid.eq(bid_px), engine.best_ask.eq(ask_px),
            engine.position.eq(lots), engine.params.eq(self.row),
        ]
        with m.If(scheduler.stage == 1):
            m.d.sync += [
                sampled[0].eq(bid_px), sampled[1].eq(ask_px), bests_known.eq(Cat(best_bid.known, best_ask.known)),
                book_ok.eq(known & (best_bid.px < best_ask.px) & ~scheduler.is_stale & ~scheduler.mid_event
                           & (self.row.stale_cycles != 0)),
            ]

        # ------------------------------------------------------------------ stages 5 and 6: the gate
        m.d.comb += [
            gate.bid.eq(engine.bid), gate.ask.eq(engine.ask), gate.bid_fits.eq(engine.bid_ok),
            gate.ask_fits.eq(engine.ask_ok), gate.book_ok.eq(book_ok), gate.params.eq(self.row),
            gate.live.eq(exposure.live), gate.bid_live.eq(exposure.bid_live), gate.ask_live.eq(exposure.ask_live),
            gate.position.eq(lots), gate.position_known.eq(exposure.position_known),
            gate.open_bid.eq(exposure.open_bid), gate.open_ask.eq(exposure.open_ask),
            gate.state.eq(state.state), gate.kill_pin.eq(control.kill_pin), gate.heartbeat_ok.eq(state.heartbeat_ok),
            gate.session_up.eq(self.session_up), gate.new_ok.eq(buckets.new_ok), buckets.index.eq(scheduler.current),
        ]

        emit, mass_cancel, blocked_cancel = Signal(), Signal(), Signal()
        can_send = Signal()
        m.d.comb += [
            can_send.eq(self.ready & ~hold & ~exposure.clearing),
            # Taking sides away needs a token like any frame; without one it waits for the next.
            blocked_cancel.eq(gate.emit & ~gate.is_new & ~buckets.cancel_ok),
            emit.eq(scheduler.due & gate.emit & can_send & ~blocked_cancel),
            scheduler.deferred.eq(gate.emit & ~can_send),
            scheduler.wait_tokens.eq(gate.rate_blocked & ~(gate.emit & ~can_send) | can_send & blocked_cancel),
            # Not in the cycle of a decision: one record a cycle.
            mass_cancel.eq(hold & self.ready & buckets.cancel_ok & ~scheduler.due),
            scheduler.mass_cancel.eq(mass_cancel),
            self.fire.eq(emit | mass_cancel),
            self.kind.eq(Mux(mass_cancel, KIND_MASS_CANCEL, KIND_QUOTE)),
            buckets.spend_session.eq(self.fire), buckets.spend_symbol.eq(emit & gate.is_new),
            self.quote.quote_id.eq(self.status.next_quote_id),
        ]
        with m.If(self.fire):   # the order port reads them later
            m.d.sync += [
                self.quote.bid_ticks.eq(gate.bid_px), self.quote.ask_ticks.eq(gate.ask_px),
                self.quote.bid_lots.eq(gate.bid_lots), self.quote.ask_lots.eq(gate.ask_lots),
                self.quote.tick_e9.eq(Cat(self.row.tick_e9_lo, self.row.tick_e9_hi)),
                self.quote.lot_mult.eq(self.row.lot_mult), self.quote.lot_exp.eq(self.row.lot_exp),
                self.quote.instrument_id.eq(Cat(self.row.instrument_id_lo, self.row.instrument_id_hi)),
            ]
        with m.If(control.quote_id_written):
            m.d.sync += self.status.next_quote_id.eq(control.quote_id)
        with m.Elif(self.fire):
            m.d.sync += self.status.next_quote_id.eq(self.status.next_quote_id + 1)

        # ------------------------------------------------------------------ what is live
        m.d.comb += [
            exposure.emit.eq(emit), exposure.bid_px.eq(gate.bid_px), exposure.ask_px.eq(gate.ask_px),
            exposure.bid_lots.eq(gate.bid_lots), exposure.ask_lots.eq(gate.ask_lots),
            exposure.add_bid.eq(gate.add_bid), exposure.add_ask.eq(gate.add_ask),
            exposure.quote_id.eq(self.status.next_quote_id),
            exposure.clear_all.eq(mass_cancel), exposure.restart.eq(self.session_enabled),
            scheduler.restart.eq(self.session_enabled), scheduler.clearing.eq(exposure.clearing),
            exposure.settle.eq(scheduler.settle_now),
            exposure.clear_bid.eq(settle_words[8]), exposure.clear_ask.eq(settle_words[9]),
            exposure.settled_quote_id.eq(settle_quote_id), exposure.position.eq(settle_position),
            exposure.forget_positions.eq(state.cleared),
        ]

        # ------------------------------------------------------------------ state, kill, mass cancel, tokens
        m.d.comb += [
            *(getattr(state, name).eq(getattr(control, name)) for name in (
                "arm", "disarm", "reduce", "kill", "clear_halt", "data", "heartbeat", "deadman_cycles", "kill_pin")),
            state.session_up.eq(self.session_up), state.session_lost.eq(self.session_lost),
            *(getattr(buckets, name).eq(getattr(control, name)) for name in (
                "session_interval", "session_burst", "symbol_interval", "symbol_burst")),
            buckets.restart_session.eq(control.session_interval_written),
            buckets.restart_symbol.eq(control.symbol_interval_written), buckets.fill.eq(state.armed),
        ]
        with m.If((void | state.stopped) & ((live != 0) | emit)):
            m.d.sync += hold.eq(1)
        with m.Elif(mass_cancel | self.session_enabled):
            m.d.sync += hold.eq(0)

        # ------------------------------------------------------------------ telling the host
        trigger = Signal(64)    # the byte on the stream was on the pins in the cycle before
        line_b = Signal()
        with m.If(scheduler.start):
            m.d.sync += [trigger.eq(self.cycle - 1), line_b.eq(payload.line)]
        record = self.record
        decided = Signal()      # an evaluation came to its end
        m.d.comb += [
            decided.eq(scheduler.due & ~scheduler.deferred & ~blocked_cancel),
            self.record_valid.eq(mass_cancel | (decided & (scheduler.direct | emit))),
            record.outcome.eq(Mux(mass_cancel, OUTCOME["MASS_CANCEL"],
                                  Mux(emit, Mux(gate.is_new, OUTCOME["SENT"], OUTCOME["PULLED"]),
                                      Mux(gate.reasons == 0, OUTCOME["HELD"], OUTCOME["DROPPED"])))),
            record.instrument.eq(Mux(mass_cancel, MASS_CANCEL_INSTRUMENT, scheduler.current)),
            record.state.eq(state.state),
            record.quoteId.eq(Mux(self.fire, self.status.next_quote_id, 0)),
            record.fireCycle.eq(self.cycle), record.feedSeq.eq(arbiter.last_seq),
        ]
        flags = {"direct": scheduler.direct, "lineB": scheduler.direct & line_b, "bidKnown": bests_known[0],
                 "askKnown": bests_known[1], "bidSideOk": gate.bid_ok, "askSideOk": gate.ask_ok,
                 "bidCounted": emit & (gate.add_bid != 0), "askCounted": emit & (gate.add_ask != 0)}
        assert set(flags) == set(FLAG)
        assert sorted(FLAG.values()) == list(range(len(flags)))
        with m.If(~mass_cancel):
            m.d.comb += [
                record.flags.eq(Cat(flags[name] for name in sorted(flags, key=FLAG.get))),
                record.reasons.eq(gate.reasons), record.triggerCycle.eq(Mux(scheduler.direct, trigger, 0)),
                record.bestBidTicks.eq(sampled[0]), record.bestAskTicks.eq(sampled[1]),
                record.candidateBidTicks.eq(_delayed(m, engine.bid, "candidate_bid")),
                record.candidateAskTicks.eq(_delayed(m, engine.ask, "candidate_ask")),
                record.positionLots.eq(lots),
            ]
            with m.If(emit):
                m.d.comb += [record.bidTicks.eq(gate.bid_px), record.askTicks.eq(gate.ask_px),
                             record.bidLots.eq(gate.bid_lots), record.askLots.eq(gate.ask_lots)]
        m.d.comb += [
            self.drops.eq(Mux(self.record_valid & ~mass_cancel, gate.reasons, 0)),
            self.direct_quote.eq(emit & scheduler.direct), self.trigger_cycle.eq(trigger),
            self.state_changed.eq(state.changed), self.arm_refused.eq(state.arm_refused), self.gap.eq(arbiter.gap),
            self.gap_size.eq(arbiter.ahead), self.last_seq.eq(arbiter.last_seq),
            self.poisoned.eq(walker.poisoned), self.channel_reset.eq(walker.reset_channel),
            self.status.state.eq(state.state), self.status.halt_cause.eq(state.halt_cause),
            self.status.halt_nonce.eq(state.halt_nonce), self.status.gap_packets.eq(arbiter.missing),
            self.status.expected_seq.eq(arbiter.expected), self.status.session_tokens.eq(buckets.tokens),
            self.status.live_bids.eq(exposure.live_bids), self.status.live_asks.eq(exposure.live_asks),
        ]
        count = {
            "feed_not_ours": match.not_ours, "feed_bad_header": match.bad_header, "feed_ip_options": match.ip_options,
            "feed_fragments": match.fragments, "line_a_packets": payload.first & ~payload.line,
            "line_b_packets": payload.first & payload.line, "accepted_packets": arbiter.accept,
            "duplicate_packets": arbiter.duplicate, "gaps": arbiter.gap, "poisoned_packets": walker.poisoned,
            "short_packets": walker.short | match.empty, "messages": walker.message,
            "book_messages": walker.book_message, "entries": mine & kept,
            "foreign_entries": walker.entry & ~scheduler.claimed, "ignored_entries": mine & ~kept,
            "px_errors": mine & kept & ~is_reset & ~book.known, "channel_resets": walker.reset_channel,
            "events": walker.publish, "quotes_sent": emit & gate.is_new, "quotes_pulled": emit & ~gate.is_new,
            "mass_cancels": mass_cancel, "decisions_held": decided & scheduler.direct & ~emit & (gate.reasons == 0),
            "decisions_dropped": decided & scheduler.direct & ~emit & (gate.reasons != 0),
            "decisions_deferred": scheduler.due & (scheduler.deferred | blocked_cancel),
        }
        assert set(count) == set(COUNTED)
        m.d.comb += [getattr(counters, name).eq(strobe) for name, strobe in count.items()]
        return m


def _delayed(m, value, name):
    delayed = Signal(value.shape(), name=name)
    m.d.sync += delayed.eq(value)
    return delayed

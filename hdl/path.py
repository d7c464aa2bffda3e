"""From the bytes of the feed port to the decision: match, arbiter, walker, book, engine, gate, wired together."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, Signature, connect, flipped

from hdl.book.by_level import BookByLevel
from hdl.compare import less
from hdl.control.params import PARAM_ROW, TICK_BITS, Ticks
from hdl.control.registers import (
    HALT_CAUSES,
    INSTRUMENT_BITS,
    MASS_CANCEL_INSTRUMENT,
    REDUCING,
    ROW_WORD_BITS,
)
from hdl.count import count
from hdl.feed.arbiter import SequenceArbiter
from hdl.feed.lookup import NARROWING, InstrumentLookup
from hdl.feed.mdp3 import SCHEMA, Mdp3Walker
from hdl.feed.ticks import TickConverter
from hdl.gate.account import Account
from hdl.gate.answers import ANSWER_LIMITS, VISIT_PERIOD, Answers
from hdl.gate.buckets import TokenBuckets
from hdl.gate.drift import Drift
from hdl.gate.duplicates import Duplicates
from hdl.gate.exposure import Exposure, Position
from hdl.gate.gate import Gate
from hdl.gate.holds import HOLDING, Holds
from hdl.gate.holds import LIMITS as HOLD_LIMITS
from hdl.gate.hypotheses import Hypotheses, Verdict
from hdl.gate.life import QuoteLife
from hdl.gate.limits import REASONS, Limits
from hdl.gate.load import Load
from hdl.gate.positions import Learned, Positions
from hdl.gate.references import REFERENCE_BITS, References
from hdl.gate.state import TradingState
from hdl.gate.window import Window
from hdl.layout import sbe
from hdl.mac.stream import Packet, RxBytes
from hdl.net.feed_match import FeedMatch
from hdl.order.port import KIND_MASS_CANCEL, KIND_QUOTE, Quote
from hdl.order.responses import ResponseParser
from hdl.quote.engine import ASK_PX, ASK_SECOND, BID_PX, BID_SECOND, SAME, QuoteEngine
from hdl.quote.scheduler import DECISION_CYCLES, Scheduler

_LINK = sbe.load("t2q_link")
OUTCOME = _LINK.enums["Outcome"]
FLAG = _LINK.sets["DecisionFlags"]
_TYPE = SCHEMA.enums["MDEntryTypeBook"]
_ACTION = SCHEMA.enums["MDUpdateAction"]
_SIZE_NULL = SCHEMA["MDIncrementalRefreshBook46"].groups["NoMDEntries"]["MDEntrySize"].null
assert _SIZE_NULL == (1 << 31) - 1

#: The bytes that say what to do, as trigger (a bid, an offer, no book any more) and as the action before it: whether
#: a byte is one of them has to be known a cycle ahead.
WATCHED = tuple(sorted({*(_TYPE[name] for name in ("Bid", "Offer", "BookReset")), *_ACTION.values()}))

#: What the host sets and does, as named in the register map; strobes carry ``data``.
PathControl = Signature({
    **{name: Out(width) for name, width in (
        ("line_a_ip", 32), ("line_a_port", 16), ("line_b_ip", 32), ("line_b_port", 16), ("vlan", 18),
        ("deadman_cycles", 32), ("session_interval", 32), ("session_burst", 16), ("symbol_interval", 32),
        ("symbol_burst", 8), ("ref_value", REFERENCE_BITS), ("ref_local", REFERENCE_BITS), ("ref_basis", TICK_BITS),
        ("ref_lot_value", 32), ("gross_most", 32), ("leverage_most", 8), ("open_most", 32),
        ("ref_cycles", 32), ("live_most", 10), ("duplicate_most", 4), ("duplicate_cycles", 32), ("equity", 32),
        ("equity_start", 32), ("loss_most", 31), ("drawdown_most", 31), ("equity_cycles", 32), ("init_peer_seq", 64),
        *ANSWER_LIMITS.items(), ("drift_cycles", 32), ("life_cycles", 32), ("pos_value", 32),
        ("pos_settled_bid", 32), ("pos_settled_ask", 32), ("pos_quote_id", 32), ("pos_next", 32))},
    **{name: Out(1) for name in (
        "arm", "disarm", "reduce", "kill", "clear_halt", "heartbeat", "commit", "pos_commit", "ref_commit", "release",
        "ref_cycles_written", "equity_written", "equity_start_written", "equity_cycles_written", "limit_written",
        "drift_cycles_written", "drift_band_written", "load_written",
        "mismatch", "commit_refused", "limits_ok", "hash_ok",
        "session_interval_written", "symbol_interval_written", "quote_id_written", "security_id_written",
        "stale_limit_written", "kill_pin", "feed_lost")},
    "data": Out(32), "quote_id": Out(64), "security_index": Out(8), "written_row": Out(16),
})

#: What the registers show.
PathStatus = Signature({
    "state": Out(2), "halt_cause": Out(len(HALT_CAUSES)), "halt_nonce": Out(32),
    "gap_packets": Out(32), "expected_seq": Out(32),
    "session_tokens": Out(16), "next_quote_id": Out(64), "live_bids": Out(32), "live_asks": Out(32),
    "gross": Out(32), "open_bids": Out(32), "open_asks": Out(32),
})

#: Strobes for the counters of the same names (``drop_*`` one a gate).
COUNTED = ("feed_not_ours", "feed_bad_header", "feed_ip_options", "feed_fragments", "line_a_packets", "line_b_packets",
           "accepted_packets", "duplicate_packets", "gaps", "poisoned_packets", "short_packets", "messages",
           "book_messages", "entries", "foreign_entries", "ignored_entries", "px_errors", "channel_resets", "events",
           "quotes_sent", "quotes_pulled", "mass_cancels", "decisions_held", "decisions_dropped",
           "decisions_deferred", "decisions_differed", "positions_late")
PathCounters = Signature({name: Out(1) for name in COUNTED})

#: A decision as the host will read it; names and widths are those of the link's Decision message.
DecisionRecord = Signature({
    f.name: Out(signed(8 * f.size) if f.signed else 8 * f.size)
    for f in _LINK["Decision"].fields.values() if f.name not in ("sequence", "quoteId")})

# The last byte of a SecurityID is as far before the trigger byte as an evaluation takes; level, action and that byte
# follow one another.
_ENTRY = SCHEMA["MDIncrementalRefreshBook46"].groups["NoMDEntries"]
assert [_ENTRY[name].end for name in ("MDPriceLevel", "MDUpdateAction")] == [
    _ENTRY[name].offset for name in ("MDUpdateAction", "MDEntryType")]
assert all(_ENTRY[name].size == 1 for name in ("MDPriceLevel", "MDUpdateAction", "MDEntryType"))
assert _ENTRY["MDEntryType"].offset - (_ENTRY["SecurityID"].end - 1) == DECISION_CYCLES


class _Weighed(data.Struct):
    """What the gate says of a decision; names as in :class:`hdl.gate.gate.Gate`."""

    emit: 1
    is_new: 1
    rate_blocked: 1
    direct: 1
    bid_ok: 1
    ask_ok: 1
    bid_new: 1
    ask_new: 1
    reasons: REASONS
    bid_px: Ticks
    ask_px: Ticks
    bid_lots: 24
    ask_lots: 24
    lots: signed(32)


class TickPath(wiring.Component):
    """Feed bytes in, quotes out.

    Parameters
    ----------
    instruments : at most 32 shown in ``status.live_*``; any number works.
    depth : book levels a side.

    Members
    -------
    rx : in(RxBytes) the feed port; ``rx_next`` : in(8), ``rx_next_valid`` : in(1) its ``data`` and ``valid`` in the
        next cycle, ``rx_next_is`` : in(3) one bit for each of :data:`WATCHED` that ``rx_next`` is.
    cycle : in(64) cycles since reset.
    control : in(PathControl), status : out(PathStatus), counters : out(PathCounters), ``drops`` : out(32) strobes by
        gate.
    row_address : out(8), row_choose : out(1), row : in(PARAM_ROW) the active parameter row, as
        :class:`hdl.control.bank.RegisterBank` fetches it.
    flip : out(1) the parameter banks flip at the end of this cycle. ``bank`` : in(1) the active one.
    session_up, session_lost, session_enabled : in(1) from the order session; ``session_enabled`` strobes when a
        connection is handed over: nothing is live on it.
    fire : out(1), kind : out(1), quote : out(Quote), ready : in(1), hot_busy, hot_wants : out(1) to the order port.
        ``fire`` asks for a frame, which starts if the port is ``ready``.
    record : out(DecisionRecord), record_valid : out(1) a decision was taken; of its cycles the low 9 bits stand, its
        ``quoteId`` is on ``quote_id``, and what has no meaning for this decision is anything, as
        :class:`hdl.control.telemetry.Telemetry` wants it. mass_cancel : out(1) one starts.
    answers : in(Packet), answers_wait : in(1) from the order port, what the exchange says in the session. look_index :
        out(8), look_word : out(6), look_data : in(32) as :class:`hdl.control.bank.RegisterBank` has them.
    quote_id : in(64) from the order port: that of the frame that is under way. approved : out(1) the gate let a quote
        go in the cycle before.
    direct_quote : out(1) a quote caused by a trigger byte starts: it was on the pins in the cycle before.
    state_changed, arm_refused, gap, poisoned, channel_reset : out(1) events; ``gap_size`` : out(32) packets missing in
        this gap; ``last_seq`` : out(32) last accepted sequence number.

    Latency: the trigger byte on the pins in cycle *k* fires in *k* + 1, the cycle in which it is on ``rx``. Everything
    else about the entry has been decided by then, for every price that it can make the best; see
    :class:`hdl.gate.hypotheses.Hypotheses`. What the frame says is formed in the shadow of its headers, from the book
    as the entry has left it, and stands in ``quote`` from *k* + 1 + :data:`hdl.order.timing.QUOTE_AT` on.
    """

    def __init__(self, instruments=16, depth=10):
        self.instruments, self.depth = instruments, depth
        super().__init__({
            "rx": In(RxBytes), "rx_next": In(8), "rx_next_valid": In(1),
            "rx_next_is": In(len(WATCHED)), "cycle": In(64),
            "control": In(PathControl), "status": Out(PathStatus),
            "counters": Out(PathCounters), "drops": Out(32), "row_address": Out(8), "row_choose": Out(1),
            "row": In(PARAM_ROW),
            "flip": Out(1), "bank": In(1), "session_up": In(1), "session_lost": In(1), "session_enabled": In(1),
            "fire": Out(1), "kind": Out(1), "quote": Out(Quote), "ready": In(1),
            "hot_busy": Out(1), "hot_wants": Out(1),
            "record": Out(DecisionRecord), "record_valid": Out(1), "mass_cancel": Out(1),
            "quote_id": In(64), "answers": In(Packet), "answers_wait": In(1), "look_index": Out(8),
            "look_word": Out(ROW_WORD_BITS), "look_data": In(32), "direct_quote": Out(1), "approved": Out(1),
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
        m.submodules.positions = positions = Positions()
        m.submodules.buckets = buckets = TokenBuckets(n)
        m.submodules.state = state = TradingState()
        m.submodules.limits = limits = Limits()
        m.submodules.hypotheses = hypotheses = Hypotheses()
        m.submodules.account = account = Account()
        m.submodules.references = references = References(n)
        m.submodules.drift = drift = Drift(n)
        m.submodules.life = life = QuoteLife(n)
        m.submodules.load = load = Load(n)
        m.submodules.holds = holds = Holds(n)
        m.submodules.duplicates = duplicates = Duplicates()
        m.submodules.responses = responses = ResponseParser()
        m.submodules.answered = answered = Answers(n)
        m.submodules.gate = gate = Gate()
        m.submodules.window = window = Window()
        at = scheduler.at

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
            walker.refuse.eq(arbiter.duplicate),
            lookup.ahead.eq(self.rx_next),
            lookup.due.eq(walker.security_id_due[:NARROWING - 1]),
            lookup.write.eq(control.security_id_written), lookup.write_index.eq(control.security_index),
            lookup.write_id.eq(control.data), lookup.address.eq(scheduler.current),
            lookup.security_id.eq(walker.security_id),
        ]
        # A packet has been accepted by then, and the next one has not begun: a cycle later is soon enough.
        m.d.sync += arbiter.take_back.eq(walker.poisoned & ~payload.frame_ok)
        void = Signal()     # every book is worthless
        feed_was_lost = Signal()
        m.d.sync += [feed_was_lost.eq(control.feed_lost),
                     void.eq(arbiter.gap | walker.reset_channel | walker.poisoned
                             | (control.feed_lost & ~feed_was_lost))]

        # The row of the claimed instrument arrives long before the entry's last byte: the price is in ticks by then.
        m.d.comb += [
            ticks.px.eq(walker.px), ticks.shift.eq(self.row.feed_tick_shift), ticks.odd.eq(self.row.feed_tick_odd),
            ticks.inverse.eq(self.row.feed_tick_inv),
        ]

        # ------------------------------------------------------------------ the eve of the trigger: what it will select
        # With the action, the last byte but one, all is known of the entry but whether it is bid, offer or neither.
        # What it says is told before its register, and what the level before it said, in the cycle before.
        comes = dict(zip(WATCHED, self.rx_next_is, strict=True))
        is_top, is_level, size_ok = Signal(), Signal(), Signal()
        places, deletes, forgets, forgets_side = actions = [
            Signal(name=name) for name in ("places", "deletes", "forgets", "forgets_side")]
        m.d.sync += [what.eq(Cat(comes[_ACTION[name]] for name in names).any()) for what, names in zip(
            actions, (("New", "Change", "Overlay"), ("Delete",), ("DeleteFrom",), ("DeleteThru",)), strict=True)]
        m.d.sync += [is_top.eq(walker.data == 1), is_level.eq((walker.data != 0) & (walker.data <= self.depth))]
        m.d.sync += size_ok.eq((walker.size != 0) & (walker.size != _SIZE_NULL) & ~walker.size[-1])
        known = Signal()
        m.d.comb += known.eq(ticks.ok & size_ok)
        # Which hypothesis comes true, for a bid and for an offer; if none does, nothing is known any more.
        chosen = {
            "same": ~is_top & (places | deletes | forgets), "px": is_top & places & known, "second": is_top & deletes}
        lost = forgets_side | (is_top & (forgets | (places & ~known)))
        # ... and which of them it is, is told before its register, too: what stands with the byte itself is what to do.
        says = {what: comes[_TYPE[name]] for what, name in (("bid", "Bid"), ("ask", "Offer"), ("reset", "BookReset"))}
        is_bid, is_ask, is_reset = (Signal(name=f"is_{what}") for what in says)
        m.d.sync += [flag.eq(said) for flag, said in zip((is_bid, is_ask, is_reset), says.values(), strict=True)]
        primed, kept_side, changes, verdict = Signal(), Signal(), Signal(), Signal(Verdict)
        with m.If(walker.eve):
            keeps = is_level & Cat(actions).any()
            of = hypotheses.verdicts
            loses = lost & hypotheses.pull_all
            want, pull = [], [says["reset"] & hypotheses.pull_all]
            for side, px, second in (("bid", BID_PX, BID_SECOND), ("ask", ASK_PX, ASK_SECOND)):
                for out, what, more in ((want, "want", 0), (pull, "pull", loses)):
                    same = (chosen["same"] & of[SAME][what]) | more
                    moves = (chosen["px"] & of[px][what]) | (chosen["second"] & of[second][what])
                    out.append(says[side] & is_level & (same | moves))
            m.d.sync += [
                kept_side.eq(keeps), changes.eq(((says["bid"] | says["ask"]) & keeps) | says["reset"]),
                verdict.want.eq(Cat(want).any()), verdict.pull.eq(Cat(pull).any()),
            ]
        m.d.sync += primed.eq(walker.eve & walker.eve_ends_event & scheduler.claimed & ~walker.last
                             & self.rx_next_valid)

        # ------------------------------------------------------------------ the trigger byte: fire
        # Everything here comes from flip-flops, and the way to the pins is short: the whole design is built around it.
        # While the exposure forgets an old session, unknown positions keep a verdict from asking for anything.
        may, go, hold = Signal(), Signal(), Signal()    # hold: a mass cancel is outstanding
        in_background = Signal(Verdict)
        with m.If(at[7]):
            m.d.sync += in_background.eq(hypotheses.verdicts[SAME])

        def leaves(verdict):
            return (verdict.want & buckets.new_ok) | (verdict.pull & buckets.cancel_ok)

        trigger, quotes, fired = Signal(), Signal(), Signal()
        cancels, mass_cancel = Signal(), Signal()
        m.d.comb += [
            may.eq(~hold & state.trading & ~state.silent & ~control.kill_pin & ~scheduler.fouled),
            go.eq(may & self.ready & ~exposure.clearing),
            quotes.eq(may & ((primed & leaves(verdict)) | (scheduler.due & leaves(in_background)))),
            fired.eq(quotes & self.ready),
            trigger.eq(primed & changes),
            # Not in a cycle in which another decision is told: one record a cycle.
            cancels.eq(hold & buckets.cancel_ok & ~scheduler.leave), mass_cancel.eq(cancels & self.ready),
            self.fire.eq(quotes | cancels), self.kind.eq(Mux(hold, KIND_MASS_CANCEL, KIND_QUOTE)),
            self.hot_busy.eq(scheduler.busy), self.hot_wants.eq(scheduler.wants | (hold & buckets.cancel_ok)),
            scheduler.trigger.eq(trigger),
        ]

        # What a command of the host's has changed, a cycle later: neither gives leave to anything.
        armed, cleared, evaluate_all = Signal(), Signal(), Signal()
        m.d.sync += [armed.eq(state.armed), cleared.eq(state.cleared),
                     evaluate_all.eq(state.armed | state.reduced | account.changed | control.limit_written
                                     | load.changed)]

        # ------------------------------------------------------------------ which instrument, when
        # What a byte does to the book is done in the cycle after it, when all of its entry is in registers.
        live = Signal(n)
        # The host knows better about an instrument that exists; the exchange has said something of one.
        settle, learn = Signal(), Signal()
        mine, kept = Signal(), Signal()
        updates = {name: Signal(name=f"update_{name}") for name in ("bid", "ask", "reset")}
        applied, publish, accept = Signal(), Signal(), Signal()
        m.d.comb += [mine.eq(walker.entry & scheduler.claimed), kept.eq(is_reset | ((is_bid | is_ask) & kept_side))]
        m.d.sync += [
            updates["bid"].eq(mine & is_bid & kept_side), updates["ask"].eq(mine & is_ask & kept_side),
            updates["reset"].eq(mine & is_reset),
            applied.eq(mine & kept), publish.eq(walker.publish), accept.eq(arbiter.accept),
        ]
        m.d.comb += [
            book.address.eq(scheduler.current), book.may_load.eq(scheduler.may_load), book.load.eq(scheduler.load),
            book.update_bid.eq(updates["bid"]), book.update_ask.eq(updates["ask"]),
            book.update_reset.eq(updates["reset"]), book.action.eq(walker.action), book.level.eq(walker.level),
            book.px.eq(ticks.ticks), book.size.eq(walker.size), book.known.eq(known), book.invalidate.eq(void),
            live.eq(exposure.live_bids | exposure.live_asks),
            scheduler.identified.eq(walker.security_id_valid & lookup.hit), scheduler.index.eq(lookup.index),
            scheduler.foreign.eq(scheduler.claimed & at[1] & ~lookup.same),
            scheduler.entry.eq(walker.entry), scheduler.frame_end.eq(payload.frame_end),
            scheduler.applied.eq(applied), scheduler.publish.eq(publish), scheduler.accept.eq(accept),
            scheduler.invalidate.eq(void),
            scheduler.updating.eq(updates["bid"] | updates["ask"] | book.busy),
            scheduler.settle.eq(settle | learn), scheduler.settle_index.eq(
                Mux(settle, control.data[:8], answered.index)),
            scheduler.commit.eq(control.commit), scheduler.evaluate_all.eq(evaluate_all),
            scheduler.stale_limit_write.eq(control.stale_limit_written),
            scheduler.stale_limit_address.eq(control.written_row), scheduler.stale_limit.eq(control.data),
            scheduler.bank.eq(self.bank), scheduler.ready.eq(self.ready), scheduler.hold.eq(hold),
            scheduler.trading.eq(state.trading), scheduler.live.eq(live), scheduler.refill.eq(buckets.refill),
            scheduler.mass_cancel.eq(mass_cancel), scheduler.restart.eq(self.session_enabled),
            scheduler.clearing.eq(exposure.clearing),
            self.flip.eq(scheduler.flip), self.row_address.eq(scheduler.following),
            self.row_choose.eq(scheduler.choose),
        ]
        # The host may write the next position while this one waits for a gap in the feed.
        settle_words, settle_position, settle_quote_id = Signal(32), Signal(Position), Signal(32)
        exists = Signal()   # the word stands from the cycle before its strobe on
        referred = Signal()     # ... or about its price
        m.d.sync += exists.eq(control.data[:8] < n)
        m.d.comb += [settle.eq(control.pos_commit & exists), referred.eq(control.ref_commit & exists)]
        with m.If(settle):
            m.d.sync += [
                settle_words.eq(control.data), settle_quote_id.eq(control.pos_quote_id),
                settle_position.lots.eq(control.pos_value), settle_position.settled_bid.eq(control.pos_settled_bid),
                settle_position.settled_ask.eq(control.pos_settled_ask), settle_position.next.eq(control.pos_next),
            ]
        # What is learned waits until no word of the host's does, and comes again if one comes in between.
        told, learns, begins = Signal(), Signal(), Signal()     # begins: a session, the old one's answers say nothing
        learned = Signal(Learned)       # it is told long before its turn comes
        m.d.sync += learned.eq(answered.learned)
        m.d.comb += learn.eq(answered.learn & ~(told | learns | begins | settle | self.session_enabled))
        with m.If(settle):
            m.d.sync += [told.eq(1), learns.eq(0)]
        with m.Elif(self.session_enabled):
            m.d.sync += [told.eq(0), learns.eq(0)]
        with m.Else():
            with m.If(scheduler.settle_now):
                m.d.sync += [told.eq(0), learns.eq(0)]
            with m.If(learn):
                m.d.sync += learns.eq(1)

        # ------------------------------------------------------------------ an evaluation: prices, limits, verdicts
        def px(level):
            return Mux(level.known, level.px, 0)

        lots = Signal(signed(32))   # 0 where unknown
        off = Signal(len(HOLDING))      # a gate without limits
        m.d.sync += off.eq(Cat(
            Cat(getattr(control, name) == 0 for name in HOLD_LIMITS[gate]).any() for gate in HOLDING))
        m.d.comb += [
            lots.eq(Mux(exposure.position_known, exposure.known.lots, 0)),
            exposure.address.eq(scheduler.current), exposure.of_address.eq(scheduler.of_current),
            exposure.load.eq(scheduler.load),
            engine.at.eq(at), engine.params.eq(self.row), engine.position.eq(lots),
            engine.best_bid.eq(px(book.best_bid)), engine.best_ask.eq(px(book.early_ask)),
            engine.second_bid.eq(book.second_bid.px), engine.second_ask.eq(px(book.early_ask)),
            engine.entry_px.eq(ticks.ticks),
            limits.at.eq(at), limits.params.eq(self.row), limits.bid_live.eq(exposure.bid_live),
            limits.ask_live.eq(exposure.ask_live), limits.live.eq(exposure.live), limits.known.eq(exposure.known),
            limits.position_known.eq(exposure.position_known), limits.bound_notional.eq(engine.bound_notional),
            hypotheses.at.eq(at), hypotheses.params.eq(self.row), hypotheses.refs.eq(engine.refs),
            hypotheses.skew.eq(engine.skew), hypotheses.low.eq(limits.low), hypotheses.high.eq(limits.high),
            hypotheses.reducing.eq((state.state == REDUCING) | ~account.fresh), buckets.index.eq(scheduler.current),
            hypotheses.reach_bid.eq(engine.reach_bid),
            hypotheses.reach_ask.eq(engine.reach_ask), hypotheses.beyond.eq(engine.beyond),
            hypotheses.leans_up.eq(engine.leans_up), hypotheses.mid_low.eq(references.mid_low),
            hypotheses.mid_high.eq(references.mid_high),
            references.address.eq(scheduler.current), references.load.eq(scheduler.load), references.at.eq(at),
            references.bands.eq(self.row.bands), references.commit.eq(referred), references.index.eq(control.data[:8]),
            references.reference.value.eq(control.ref_value), references.reference.local.eq(control.ref_local),
            references.reference.basis.eq(control.ref_basis),
            references.reference.lot_value.eq(control.ref_lot_value), references.cycles.eq(control.ref_cycles),
            references.cycles_written.eq(control.ref_cycles_written),
            limits.collar_low.eq(references.low), limits.collar_high.eq(references.high),
            limits.reference_ok.eq(references.ok), limits.held.eq(holds.held), limits.live_most.eq(control.live_most),
            limits.live_sides.eq(exposure.live_sides), limits.off.eq(off),
            limits.lot_value.eq(references.lot_value), limits.valued.eq(references.valued),
            holds.address.eq(scheduler.current), holds.load.eq(scheduler.load),
            drift.commit.eq(referred), drift.index.eq(control.data[:8]), drift.value.eq(control.ref_value),
            drift.cycles.eq(control.drift_cycles), drift.cycles_written.eq(control.drift_cycles_written),
            drift.band_write.eq(control.drift_band_written), drift.band_address.eq(control.written_row),
            drift.band.eq(control.data), drift.bank.eq(self.bank),
            life.cycles.eq(control.life_cycles), life.address.eq(scheduler.current), life.load.eq(scheduler.load),
            limits.bid_young.eq(life.bid_young), limits.ask_young.eq(life.ask_young),
        ]
        connect(m, hypotheses.bid, limits.bid)
        connect(m, hypotheses.ask, limits.ask)
        # G4: both sides known and not crossed, the feed fresh, no event half told.
        fresh, book_ok = Signal(), hypotheses.book_ok
        bests = {SAME: (book.best_bid, book.best_ask), BID_SECOND: (book.second_bid, book.best_ask),
                 ASK_SECOND: (book.best_bid, book.second_ask)}
        limit_set = Signal()
        m.d.sync += [limit_set.eq(self.row.stale_cycles != 0),
                     fresh.eq(~scheduler.is_stale & ~scheduler.mid_event & limit_set)]
        for h, (bid, ask) in bests.items():
            m.d.sync += book_ok[h].eq(fresh & bid.known & ask.known & less(bid.px, ask.px))
        m.d.sync += [book_ok[BID_PX].eq(fresh & book.best_ask.known & less(ticks.ticks, book.best_ask.px)),
                     book_ok[ASK_PX].eq(fresh & book.best_bid.known & less(book.best_bid.px, ticks.ticks))]

        # ------------------------------------------------------------------ the moment of a decision
        # It is kept for what follows in the shadow of the frame's headers.
        moment, next_number = gate.moment, Signal(64 - INSTRUMENT_BITS)
        trigger_at, line_b, last_seq = Signal(64), Signal(), Signal(32)
        on_pins = Signal(64)    # when the byte that is on `rx` was on the pins
        m.d.sync += on_pins.eq(self.cycle)
        # The trigger byte is late in its cycle, and need not reach all of this: what there was in any cycle stands in
        # the next one, and is kept if there was a decision.
        decides = Signal()
        m.d.sync += decides.eq(trigger | scheduler.due)

        def keep(target, value):
            was = Signal.like(target, name=f"was_{target.name}")
            m.d.sync += was.eq(value)
            with m.If(decides):
                m.d.sync += target.eq(was)

        for target, value in (
                (moment.state, state.state), (moment.kill_pin, control.kill_pin),
                (moment.heartbeat_ok, state.heartbeat_ok), (moment.limits_ok, control.limits_ok),
                (moment.session_up, self.session_up),
                (moment.new_ok, buckets.new_ok), (moment.cancel_ok, buckets.cancel_ok), (moment.can_send, go),
                (moment.equity_ok, account.fresh),
                (moment.fouled, scheduler.fouled), (moment.fired, fired), (line_b, payload.line),
                (last_seq, arbiter.last_seq), (trigger_at, on_pins)):
            keep(target, value)
        with m.If(decides):
            m.d.sync += moment.cycle.eq(on_pins)
        started, approved = Signal(), Signal()
        m.d.sync += [started.eq(self.fire & self.ready), approved.eq(fired)]
        count(m, next_number, started, control.quote_id_written, control.quote_id >> INSTRUMENT_BITS)
        m.d.comb += self.status.next_quote_id.eq(next_number << INSTRUMENT_BITS)

        # ------------------------------------------------------------------ what the frame says, in its shadow
        m.d.comb += [
            gate.en.eq(at[7]), gate.bid.eq(engine.bid), gate.ask.eq(engine.ask), gate.params.eq(self.row),
            gate.book_ok.eq(book_ok[SAME]), gate.bid_moved.eq(hypotheses.bid_moved),
            gate.ask_moved.eq(hypotheses.ask_moved), gate.bid_takes.eq(hypotheses.bid_takes),
            gate.ask_takes.eq(hypotheses.ask_takes), gate.far.eq(hypotheses.far),
            gate.collar_low.eq(references.low), gate.collar_high.eq(references.high),
        ]
        connect(m, gate.bid_limits, limits.bid)
        connect(m, gate.ask_limits, limits.ask)
        # The gate's word on a decision, as it was weighed.
        record, weighed = Signal(_Weighed), Signal(_Weighed)
        m.d.comb += [
            weighed.emit.eq(gate.emit), weighed.is_new.eq(gate.is_new), weighed.rate_blocked.eq(gate.rate_blocked),
            weighed.reasons.eq(gate.reasons), weighed.bid_ok.eq(gate.bid_ok), weighed.ask_ok.eq(gate.ask_ok),
            weighed.direct.eq(scheduler.direct), weighed.lots.eq(lots),
            weighed.bid_new.eq(gate.bid_new), weighed.ask_new.eq(gate.ask_new),
            weighed.bid_px.eq(gate.bid_px), weighed.ask_px.eq(gate.ask_px),
            weighed.bid_lots.eq(gate.bid_lots), weighed.ask_lots.eq(gate.ask_lots),
        ]
        with m.If(scheduler.weigh):
            m.d.sync += record.eq(weighed)
        no_token = record.emit & ~record.is_new & ~moment.cancel_ok     # not even for taking sides away
        waits_for_port = (record.emit & ~moment.can_send) | moment.fouled
        deferred = Signal()
        m.d.sync += deferred.eq(waits_for_port | no_token)
        m.d.comb += [
            scheduler.deferred.eq(waits_for_port),
            scheduler.wait_tokens.eq(~waits_for_port & (record.rate_blocked | no_token)),
            window.en.eq(scheduler.window & moment.fired), window.low.eq(limits.low), window.high.eq(limits.high),
            *(getattr(window, f"{side}_{what}").eq(getattr(record, f"{side}_{what}"))
              for side in ("bid", "ask") for what in ("px", "lots")),
            window.bid_most.eq(limits.bid_largest), window.ask_most.eq(limits.ask_largest),
            exposure.prepare.eq(scheduler.weigh),
            self.quote.bid_ticks.eq(window.bid_ticks), self.quote.ask_ticks.eq(window.ask_ticks),
            self.quote.bid_lots.eq(window.bid_quantity), self.quote.ask_lots.eq(window.ask_quantity),
            self.quote.quote_id.eq(Cat(Mux(hold, Const(MASS_CANCEL_INSTRUMENT, INSTRUMENT_BITS), scheduler.current),
                                       next_number)),
        ]
        with m.If(scheduler.weigh & moment.fired):
            m.d.sync += [
                self.quote.tick_e9.eq(Cat(self.row.tick_e9_lo, self.row.tick_e9_hi)),
                self.quote.lot_mult.eq(self.row.lot_mult), self.quote.lot_exp.eq(self.row.lot_exp),
                self.quote.instrument_id.eq(Cat(self.row.instrument_id_lo, self.row.instrument_id_hi)),
            ]

        # ------------------------------------------------------------------ what is live, and what is spent
        in_flight = Signal()    # a quote is leaving that the exposure does not show yet
        of_held = Signal(n)     # the bit of the instrument whose holds change
        leaves_now = Signal()
        m.d.comb += [
            leaves_now.eq(scheduler.leave & in_flight),
            exposure.emit.eq(leaves_now), exposure.instrument.eq(scheduler.decided),
            exposure.of_instrument.eq(scheduler.of_decided),
            exposure.bid_px.eq(window.bid_ticks), exposure.ask_px.eq(window.ask_ticks),
            exposure.bid_lots.eq(window.bid_quantity), exposure.ask_lots.eq(window.ask_quantity),
            exposure.bid_some.eq(window.bid_some), exposure.ask_some.eq(window.ask_some),
            exposure.quote_id.eq(self.quote_id),
            exposure.clear_all.eq(mass_cancel), exposure.restart.eq(self.session_enabled),
            exposure.settle.eq(scheduler.settle_now),
            exposure.clear_bid.eq(Mux(learns, positions.clear_bid, settle_words[8])),
            exposure.clear_ask.eq(Mux(learns, positions.clear_ask, settle_words[9])),
            exposure.spent_bid.eq(positions.spent_bid), exposure.spent_ask.eq(positions.spent_ask),
            exposure.settled_quote_id.eq(Mux(learns, learned.quote_id, settle_quote_id)),
            exposure.position.eq(positions.position), exposure.counts.eq(positions.counts),
            exposure.known_now.eq(~learns), exposure.first_message.eq(control.init_peer_seq[:32]),
            positions.learned.eq(learned), positions.by_host.eq(~learns), positions.word.eq(settle_position),
            positions.known.eq(exposure.known), positions.live.eq(exposure.live), positions.meant.eq(exposure.meant),
            exposure.forget_positions.eq(cleared),
            buckets.spend_session.eq(started), buckets.spend_symbol.eq(leaves_now & record.is_new),
            buckets.spender.eq(scheduler.decided), buckets.of_spender.eq(scheduler.of_decided), buckets.fill.eq(armed),
            life.emit.eq(leaves_now), life.instrument.eq(scheduler.decided),
            life.of_instrument.eq(scheduler.of_decided), life.bid.eq(record.bid_new & window.bid_some),
            life.ask.eq(record.ask_new & window.ask_some),
            duplicates.emit.eq(leaves_now), duplicates.instrument.eq(scheduler.decided),
            duplicates.bid_px.eq(window.bid_ticks), duplicates.ask_px.eq(window.ask_ticks),
            duplicates.bid_lots.eq(window.bid_quantity), duplicates.ask_lots.eq(window.ask_quantity),
            duplicates.now.eq(self.cycle[:32]), duplicates.most.eq(control.duplicate_most),
            duplicates.cycles.eq(control.duplicate_cycles),
            # Verdicts are made of what all these showed: when that changes they are worth nothing.
            scheduler.disturbed.eq(mass_cancel | leaves_now | state.reduced | cleared | self.session_enabled
                                   | references.disturbed | holds.disturbed | account.changed | control.limit_written
                                   | life.disturbed | load.changing),
            scheduler.revisit.eq(references.changed | Mux(holds.changed, of_held, 0) | life.changed),
        ]
        # ------------------------------------------------------------------ what all of it is worth
        m.d.comb += [
            load.emit.eq(leaves_now), load.emitted.eq(scheduler.decided), load.of_emitted.eq(scheduler.of_decided),
            load.sent_bid.eq(exposure.sent_bid), load.sent_ask.eq(exposure.sent_ask),
            # Of a position that is not known it keeps what was known last.
            load.settle.eq(exposure.settle & exposure.counts & (exposure.known_now | exposure.position_known)),
            load.settled.eq(scheduler.current),
            load.of_settled.eq(scheduler.of_current), load.position.eq(exposure.position),
            load.tell.eq(referred), load.told.eq(control.data[:8]), load.of_told.eq(references.of_index),
            load.lot_value.eq(control.ref_lot_value), load.restart.eq(self.session_enabled),
            load.written.eq(control.load_written), load.equity.eq(control.equity),
            *(getattr(load, name).eq(getattr(control, name)) for name in ("gross_most", "leverage_most", "open_most")),
            load.load.eq(scheduler.load), limits.rooms.eq(load.rooms),
            *(getattr(self.status, name).eq(getattr(load, name)) for name in ("gross", "open_bids", "open_asks")),
        ]
        # ------------------------------------------------------------------ what the exchange answers
        # A new session's first byte is one of a message, once what is left of the old one has been read.
        listens, waited, tick = Signal(), Signal(3), Signal()
        with m.If(self.session_enabled):
            m.d.sync += [begins.eq(1), waited.eq(0)]
        with m.Elif(responses.restart):
            m.d.sync += begins.eq(0)
        with m.Elif(~waited.all()):
            m.d.sync += waited.eq(waited + 1)
        with m.If(responses.restart):
            m.d.sync += listens.eq(1)
        with m.Elif(responses.broken):
            m.d.sync += listens.eq(0)
        m.d.sync += [tick.eq(self.cycle[:(VISIT_PERIOD - 1).bit_length()] == VISIT_PERIOD - 1),
                     state.untrusted.eq(responses.broken | responses.unknown | answered.wrong)]
        connect(m, responses.i, flipped(self.answers))
        connect(m, answered.i, responses.o)
        m.d.comb += [
            responses.restart.eq(begins & waited.all() & ~self.answers_wait & ~responses.o.valid),
            answered.settled.eq((scheduler.settle_now & learns) | begins),
            responses.next_sequence.eq(control.init_peer_seq), state.deaf.eq(~listens | begins),
            answered.next_number.eq(next_number), answered.tick.eq(tick),
            self.look_index.eq(answered.index), self.look_word.eq(answered.word), answered.data.eq(self.look_data),
            *(getattr(answered, name).eq(getattr(control, name)) for name in ANSWER_LIMITS),
            answered.quoted.eq(leaves_now), answered.quoted_instrument.eq(scheduler.decided),
            answered.quoted_bid.eq(window.bid_some), answered.quoted_ask.eq(window.ask_some),
            answered.release.eq(control.release & exists), answered.release_instrument.eq(control.data[:8]),
        ]
        # Who is held, and who not any more; every other cycle at most. The host's word comes last.
        post, repeats, releases, released, rests = holds.post, Signal(), Signal(), Signal(8), Signal()
        m.d.comb += [
            answered.post_ready.eq(~rests & ~holds.clearing),
            post.valid.eq((answered.post.valid | drift.post.valid | repeats | releases) & answered.post_ready),
            drift.post_ready.eq(answered.post_ready & ~answered.post.valid),
        ]
        with m.If(answered.post.valid):
            m.d.comb += [getattr(post, name).eq(getattr(answered.post, name))
                         for name in ("instrument", "gate", "bid", "ask")]
        with m.Elif(drift.post.valid):
            m.d.comb += [getattr(post, name).eq(getattr(drift.post, name))
                         for name in ("instrument", "gate", "bid", "ask")]
        with m.Else():
            m.d.comb += [post.instrument.eq(Mux(repeats, duplicates.repeater, released)),
                         post.gate.eq(1 << HOLDING.index(15)), post.bid.eq(repeats), post.ask.eq(repeats)]
        m.d.sync += [rests.eq(post.valid), of_held.eq(1 << post.instrument)]
        others = post.valid & ~answered.post.valid & ~drift.post.valid
        with m.If(duplicates.repeated):
            m.d.sync += repeats.eq(1)
        with m.Elif(others):
            m.d.sync += repeats.eq(0)
        with m.If(control.release & exists):
            m.d.sync += [releases.eq(1), released.eq(control.data[:8])]
        with m.Elif(others & ~repeats):
            m.d.sync += releases.eq(0)
        with m.If(fired):
            m.d.sync += in_flight.eq(1)
        with m.If(scheduler.leave | self.session_enabled):  # a new session knows nothing of the old one's quote
            m.d.sync += in_flight.eq(0)

        # ------------------------------------------------------------------ state, kill, mass cancel, tokens
        stopped = Signal()
        m.d.sync += stopped.eq(state.stopped)
        m.d.comb += [
            *(getattr(state, name).eq(getattr(control, name)) for name in (
                "arm", "disarm", "reduce", "kill", "clear_halt", "data", "heartbeat", "deadman_cycles", "kill_pin",
                "feed_lost", "mismatch", "hash_ok")),
            state.torn.eq(control.commit_refused),
            account.equity.eq(control.equity), account.told.eq(control.equity_written),
            account.start.eq(control.equity_start), account.begun.eq(control.equity_start_written),
            account.loss_most.eq(control.loss_most), account.drawdown_most.eq(control.drawdown_most),
            account.cycles.eq(control.equity_cycles), account.cycles_written.eq(control.equity_cycles_written),
            state.lost.eq(account.lost), state.warned.eq(account.warned),
            state.session_up.eq(self.session_up), state.session_lost.eq(self.session_lost),
            *(getattr(buckets, name).eq(getattr(control, name)) for name in (
                "session_interval", "session_burst", "symbol_interval", "symbol_burst")),
            buckets.restart_session.eq(control.session_interval_written),
            buckets.restart_symbol.eq(control.symbol_interval_written),
        ]
        with m.If((void | stopped) & ((live != 0) | in_flight)):
            m.d.sync += hold.eq(1)
        with m.Elif(mass_cancel | self.session_enabled):
            m.d.sync += hold.eq(0)

        # ------------------------------------------------------------------ telling the host
        sampled, bests_known = [Signal(Ticks, name=f"sampled_{n}") for n in range(2)], Signal(2)
        with m.If(at[2]):   # not sooner: those of the decision before are still to be told
            m.d.sync += [*(s.eq(px(best)) for s, best in zip(sampled, (book.best_bid, book.best_ask), strict=True)),
                         bests_known.eq(Cat(book.best_bid.known, book.best_ask.known))]
        out = self.record
        told, sent = Signal(), Signal()     # a decision was taken; its frame has left
        blocked = Signal()      # by any gate; a side that has to stand for a while (G16) is none
        flags = {"direct": record.direct, "lineB": record.direct & line_b, "bidKnown": bests_known[0],
                 "askKnown": bests_known[1], "bidSideOk": record.bid_ok, "askSideOk": record.ask_ok,
                 "bidCounted": sent & window.bid_some, "askCounted": sent & window.ask_some}
        assert set(flags) == set(FLAG)
        assert sorted(FLAG.values()) == list(range(len(flags)))
        m.d.comb += [
            told.eq(scheduler.leave & ~deferred), sent.eq(moment.fired),
            blocked.eq(Cat(record.reasons[:16], record.reasons[17:]).any()),
            self.record_valid.eq(told & (record.direct | sent)), self.mass_cancel.eq(mass_cancel),
            out.outcome.eq(Mux(sent, Mux(record.is_new, OUTCOME["SENT"], OUTCOME["PULLED"]),
                               Mux(blocked, OUTCOME["DROPPED"], OUTCOME["HELD"]))),
            out.flags.eq(Cat(flags[name] for name in sorted(flags, key=FLAG.get))),
            out.instrument.eq(scheduler.decided), out.state.eq(moment.state),
            out.reasons.eq(record.reasons | Mux(window.met, 1 << 8, 0)),
            out.fireCycle.eq(moment.cycle), out.triggerCycle.eq(trigger_at), out.feedSeq.eq(last_seq),
            out.bestBidTicks.eq(sampled[0]), out.bestAskTicks.eq(sampled[1]),
            out.bidTicks.eq(window.bid_ticks), out.askTicks.eq(window.ask_ticks),
            out.bidLots.eq(window.bid_quantity), out.askLots.eq(window.ask_quantity),
            out.candidateBidTicks.eq(engine.bid), out.candidateAskTicks.eq(engine.ask),
            out.positionLots.eq(record.lots),
        ]
        m.d.comb += [
            self.drops.eq(Mux(self.record_valid, out.reasons, 0)),
            self.direct_quote.eq(fired & primed), self.approved.eq(approved),
            self.state_changed.eq(state.changed), self.arm_refused.eq(state.arm_refused), self.gap.eq(arbiter.gap),
            self.gap_size.eq(arbiter.ahead), self.last_seq.eq(arbiter.last_seq),
            self.poisoned.eq(walker.poisoned), self.channel_reset.eq(walker.reset_channel),
            self.status.state.eq(state.state), self.status.halt_cause.eq(state.halt_cause),
            self.status.halt_nonce.eq(state.halt_nonce), self.status.gap_packets.eq(arbiter.missing),
            self.status.expected_seq.eq(arbiter.expected), self.status.session_tokens.eq(buckets.tokens),
            self.status.live_bids.eq(exposure.live_bids), self.status.live_asks.eq(exposure.live_asks),
        ]
        # A side whose price is not allowed any more, with no token to replace it (G14), is meant to leave clamped.
        counted = {
            "feed_not_ours": match.not_ours, "feed_bad_header": match.bad_header, "feed_ip_options": match.ip_options,
            "feed_fragments": match.fragments, "line_a_packets": payload.first & ~payload.line,
            "line_b_packets": payload.first & payload.line, "accepted_packets": arbiter.accept,
            "duplicate_packets": arbiter.duplicate, "gaps": arbiter.gap, "poisoned_packets": walker.poisoned,
            "short_packets": walker.short | match.empty, "messages": walker.message,
            "book_messages": walker.book_message, "entries": mine & kept,
            "foreign_entries": walker.entry & ~scheduler.claimed, "ignored_entries": mine & ~kept,
            "px_errors": mine & kept & ~is_reset & ~known, "channel_resets": walker.reset_channel,
            "events": walker.publish, "quotes_sent": told & sent & record.is_new,
            "quotes_pulled": told & sent & ~record.is_new, "mass_cancels": mass_cancel,
            "decisions_held": told & record.direct & ~sent & ~blocked,
            "decisions_dropped": told & record.direct & ~sent & blocked,
            "decisions_deferred": scheduler.leave & deferred,
            "positions_late": scheduler.settle_now & ~learns & ~positions.counts,
            "decisions_differed": scheduler.leave & ((moment.fired != (record.emit & ~deferred))
                                                     | (moment.fired & window.clamped & ~record.reasons[14])),
        }
        assert set(counted) == set(COUNTED)
        m.d.comb += [getattr(counters, name).eq(strobe) for name, strobe in counted.items()]
        return m

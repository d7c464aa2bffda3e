"""Which instrument is evaluated when.

One evaluation is in flight at a time. A book entry claims the evaluator as soon as its instrument is known, so that
rows are fetched before the trigger byte arrives; whatever else was being evaluated starts over later. What nobody
waits for on the wire (other instruments of an event, quotes that found the port busy, new limits or positions,
staleness) is evaluated in the background.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

#: Cycles from the start of an evaluation to the cycle in which its quote may fire.
DECISION_CYCLES = 6


class Scheduler(wiring.Component):
    """Claims, pending evaluations, staleness.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    Feed: ``identified`` : in(1), ``index`` : in(8) the SecurityID of an entry of a configured instrument is complete.
    ``entry`` : in(1) the last byte that matters of the claimed entry arrives; ``applied`` : in(1) with it: the entry
    changes the book. ``publish``, ``publish_entry`` : in(1) end of event; on an entry. ``accept`` : in(1) a packet was
    accepted. ``invalidate`` : in(1) all books are void. ``frame_end`` : in(1).

    Host: ``settle`` : in(1), ``settle_index`` : in(8) the position of an instrument (below ``instruments``) was
    written: ``settle_now`` : out(1) answers in the cycle in which it may be applied, with the rows of that instrument
    on the read ports; 20 cycles later at most, but not while ``clearing`` : in(1). One that is written before the
    answer replaces the one that waits; ``restart`` : in(1), after which ``clearing`` follows, forgets it. ``commit`` :
    in(1) parameter banks are to flip: ``flip`` : out(1) answers in the cycle in which they may.
    ``evaluate_all`` : in(1). ``stale_limit_write`` : in(1), ``stale_limit_address`` : in(16), ``stale_limit`` : in(32):
    the words of G4 (index in the low bits, bank above, as :class:`hdl.control.bank.RegisterBank` numbers its rows).
    ``bank`` : in(1) active bank.

    Order side: ``ready`` : in(1) the port would take a frame. ``hold`` : in(1) a mass cancel is outstanding,
    ``mass_cancel`` : in(1) it leaves. ``trading`` : in(1). ``live`` : in(instruments) something is live. ``refill`` :
    in(1) tokens arrive.

    Evaluation: ``address`` : out(8) whose rows are wanted (they are used from the next cycle on). ``start`` : out(1) an
    evaluation starts; ``stage`` : out(3) cycles since then, 0 = none in flight. ``current`` : out(8) its instrument.
    ``direct`` : out(1) it was started by a trigger byte. ``mid_event`` : out(1) its book is in the middle of an event.
    ``is_stale`` : out(1). ``due`` : out(1) stage ``DECISION_CYCLES``, not squashed: the decision falls in this cycle.
    ``deferred`` : in(1) with ``due``: try again when the port is ready. ``wait_tokens`` : in(1) with ``due``: try again
    when tokens arrive. ``busy`` : out(1) claimed, in flight, or about to start: slower senders hold back.

    Rules. An evaluation in flight is squashed by a claim of another entry and by ``invalidate``; it stays pending.
    Background evaluations start only when nothing is claimed or in flight, no host action waits, the port is ready and
    no mass cancel is outstanding; round robin, upwards from the last one. An instrument in mid-event waits for its end
    of event, except while not trading, when its quotes are only taken away. In cycle *c* instrument *c* mod N is
    checked for staleness: more than ``stale_limit`` cycles since the last accepted packet.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "identified": In(1), "index": In(8), "entry": In(1), "applied": In(1), "publish": In(1),
            "publish_entry": In(1), "accept": In(1), "invalidate": In(1), "frame_end": In(1),
            "settle": In(1), "settle_index": In(8), "settle_now": Out(1), "restart": In(1), "clearing": In(1),
            "commit": In(1), "flip": Out(1),
            "evaluate_all": In(1), "stale_limit_write": In(1), "stale_limit_address": In(16), "stale_limit": In(32),
            "bank": In(1), "mass_cancel": In(1),
            "ready": In(1), "hold": In(1), "trading": In(1), "live": In(instruments), "refill": In(1),
            "address": Out(8), "start": Out(1), "stage": Out(3), "current": Out(8), "direct": Out(1),
            "mid_event": Out(1), "is_stale": Out(1), "due": Out(1), "deferred": In(1), "wait_tokens": In(1),
            "busy": Out(1), "claimed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        one = Signal(n)     # the current instrument, one hot

        touched, pending, waiting, stale = (Signal(n, name=name) for name in ("touched", "pending", "waiting", "stale"))
        current, claim = self.current, self.claimed
        m.d.comb += one.eq(1 << current)
        flying = Signal(n)  # the instrument whose evaluation is in flight, one hot: a claim replaces `current` at once

        # A claim lasts from the cycle after SecurityID to the entry's last byte, or to the decision of a direct one.
        direct_start = Signal()
        m.d.comb += direct_start.eq(claim & self.entry & self.applied & self.publish_entry)
        with m.If(self.identified):
            m.d.sync += [claim.eq(1), current.eq(self.index)]
        with m.Elif(claim & (self.entry | self.frame_end)):
            m.d.sync += claim.eq(0)

        # Host actions wait for a gap; there is one in every entry.
        idle, settling, committing, settle_index = Signal(), Signal(), Signal(), Signal(8)
        fetch_settle = Signal()
        m.d.comb += idle.eq(~claim & (self.stage == 0) & ~self.identified)
        with m.If(self.settle):
            m.d.sync += [settling.eq(1), settle_index.eq(self.settle_index)]
        m.d.comb += fetch_settle.eq(settling & idle & ~self.settle_now & ~self.settle & ~self.restart & ~self.clearing)
        m.d.sync += self.settle_now.eq(fetch_settle)
        with m.If(fetch_settle | self.restart):
            m.d.sync += settling.eq(0)
        with m.If(self.commit):
            m.d.sync += committing.eq(1)
        m.d.comb += self.flip.eq(committing & idle & ~settling & ~self.settle_now)
        with m.If(self.flip & ~self.commit):
            m.d.sync += committing.eq(0)

        # Background: the next eligible instrument above the last one, else the lowest.
        eligible, last, candidate = Signal(n), Signal(8), Signal(8)
        m.d.comb += eligible.eq(pending & (~touched | Mux(self.trading, 0, (1 << n) - 1)))
        lowest = above = 0
        for i in reversed(range(n)):
            lowest = Mux(eligible[i], i, lowest)
        above = lowest
        for i in reversed(range(1, n)):
            above = Mux(eligible[i] & (last < i), i, above)
        m.d.comb += candidate.eq(above)
        background = Signal()
        m.d.comb += [
            background.eq(eligible.any() & idle & ~settling & ~committing & ~self.settle_now & self.ready & ~self.hold),
            self.start.eq(direct_start | background),
            self.address.eq(Mux(claim | (self.stage != 0), current, Mux(fetch_settle, settle_index, candidate))),
            self.busy.eq(claim | self.identified | (self.stage != 0) | self.start
                         | (eligible.any() & self.ready & ~self.hold)),
        ]

        # An evaluation in flight.
        squash = Signal()
        m.d.comb += [
            squash.eq((self.stage != 0) & (claim | self.invalidate)),
            self.due.eq((self.stage == DECISION_CYCLES) & ~squash),
        ]
        with m.If(squash | (self.stage == DECISION_CYCLES)):
            m.d.sync += self.stage.eq(0)
        with m.Elif(self.stage != 0):
            m.d.sync += self.stage.eq(self.stage + 1)
        with m.If(self.start):
            m.d.sync += [self.stage.eq(1), self.direct.eq(direct_start)]
            m.d.sync += flying.eq(Mux(direct_start, one, 1 << candidate))
        with m.If(background):
            m.d.sync += [current.eq(candidate), last.eq(candidate)]
        m.d.comb += [self.mid_event.eq((touched & one).any()), self.is_stale.eq((stale & one).any())]

        # Staleness, one instrument a cycle.
        bank_bit = max(1, (n - 1).bit_length())
        m.submodules.stale_limits = limits = Memory(shape=32, depth=2 << bank_bit, init=[])
        limit_write, limit_read = limits.write_port(), limits.read_port()
        sweep, upcoming, age = Signal(range(max(2, n))), Signal(range(max(2, n))), Signal(32, init=0xFFFFFFFF)
        m.d.comb += [
            upcoming.eq(Mux(sweep == n - 1, 0, sweep + 1)),
            limit_write.en.eq(self.stale_limit_write), limit_write.addr.eq(self.stale_limit_address),
            limit_write.data.eq(self.stale_limit),
            limit_read.addr.eq(upcoming | self.bank << bank_bit), limit_read.en.eq(1),
        ]
        m.d.sync += sweep.eq(upcoming)
        with m.If(self.accept):
            m.d.sync += age.eq(1)
        with m.Elif(age != 0xFFFFFFFF):
            m.d.sync += age.eq(age + 1)
        swept, expired = Signal(n), Signal(n)
        m.d.comb += swept.eq(1 << sweep)
        with m.If((age > limit_read.data) & ~self.accept):
            m.d.comb += expired.eq(swept & ~stale)

        # Sets, in the order in which they overrule one another.
        now_touched, now_waiting, now_pending = Signal(n), Signal(n), Signal(n)
        done = Signal(n)
        m.d.comb += [
            now_touched.eq(touched | Mux(claim & self.entry & self.applied, one, 0)),
            now_waiting.eq(waiting | Mux(self.due & self.wait_tokens, one, 0)),
            done.eq(Mux(direct_start, one, Mux(background, 1 << candidate, 0))),
        ]
        again = Signal(n)   # evaluations that did not come to an end
        with m.If(squash | (self.due & self.deferred)):
            m.d.comb += again.eq(flying)
        m.d.comb += now_pending.eq(
            (pending | Mux(self.publish, now_touched, 0) | Mux(self.accept, stale, 0) | Mux(self.refill, now_waiting, 0)
             | (expired & self.live) | Mux(self.invalidate | self.mass_cancel, self.live, 0)
             | Mux(self.settle_now, 1 << settle_index, 0)) & ~done | again
            | Mux(self.evaluate_all | self.flip, (1 << n) - 1, 0))
        m.d.sync += [
            pending.eq(now_pending),
            touched.eq(Mux(self.publish | self.invalidate, 0, now_touched & ~(expired & self.live))),
            stale.eq(Mux(self.accept, 0, stale | expired)),
            waiting.eq(Mux(self.refill, 0, now_waiting & ~done)),
        ]
        return m

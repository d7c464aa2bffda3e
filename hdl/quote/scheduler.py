"""Which instrument is evaluated when.

One evaluation is under way at a time. A book entry claims the evaluator as soon as its instrument is known, so that its
rows are fetched and every hypothesis about the entry is decided before the trigger byte arrives; that byte only
selects. Whatever else was being evaluated starts over later. What nobody waits for on the wire (other instruments of an
event, quotes that found the port busy, new limits or positions, staleness) is evaluated in the background.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.memory import BLOCK

#: Cycles from the choice of an instrument (its SecurityID is complete, or a background evaluation starts) to its rows
#: on the benches: its number in a register, memory, a register. Parameters: memory, two registers.
LOAD_CYCLES = 3
#: ... to the cycle in which the host's word on a position is applied: what it refers to has been compared by then.
SETTLE_CYCLES = LOAD_CYCLES + 1
#: Cycles from there to the decision.
EVALUATION_CYCLES = 8
#: Cycles from the choice of an instrument to the decision in the background, and to the first one on a trigger byte.
DECISION_CYCLES = LOAD_CYCLES + EVALUATION_CYCLES
#: Cycles from a decision to the cycle in which the gate weighs what the frame will say: in the background the prices
#: are there already, after a trigger byte they are formed from the book as the entry has left it.
WEIGH_BACKGROUND, WEIGH_DIRECT = 2, 2 + EVALUATION_CYCLES
#: ... and from there to the cycle in which what leaves, and what is told of it, stands.
LEAVE_CYCLES = 3


class Mode(enum.Enum, shape=4):
    """What the evaluator is doing; one hot."""

    IDLE = 0
    CLAIMED = 1     #: an entry is arriving: hypotheses
    BACKGROUND = 2  #: nobody waits
    CONTENT = 4     #: the trigger byte has decided; what its frame says is being formed
    SETTLE = 8      #: the rows of an instrument are fetched for the host


class Scheduler(wiring.Component):
    """Claims, pending evaluations, staleness.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    Feed, as it happens: ``identified`` : in(1), ``index`` : in(8) the SecurityID of an entry of a configured instrument
    is complete. ``foreign`` : in(1) the claimed instrument is not the one meant after all. ``entry`` : in(1) the last
    byte that matters of an entry arrives. ``trigger`` : in(1) with it: it ends an event, the claimed instrument's book
    changes, and a decision falls in this cycle. ``frame_end`` : in(1).

    Feed, a cycle later: ``applied`` : in(1) an entry has changed the book of the claimed instrument. ``publish`` :
    in(1) end of event. ``accept`` : in(1) a packet was accepted. ``invalidate`` : in(1) all books are void.
    ``updating`` : in(1) a book is being put back into memory.

    Host: ``settle`` : in(1), ``settle_index`` : in(8) the position of an instrument (below ``instruments``) was
    written: ``settle_now`` : out(1) answers in the cycle in which it may be applied, with the rows of that instrument
    on the bench; within 60 cycles, but not while ``clearing`` : in(1). One that is written before the cycle of the
    answer replaces the one that waits; ``restart`` : in(1), after which ``clearing`` follows, forgets it. ``commit`` :
    in(1) parameter banks are to flip: ``flip`` : out(1) answers in the cycle in which they may. ``evaluate_all`` :
    in(1). ``stale_limit_write`` : in(1), ``stale_limit_address`` : in(16), ``stale_limit`` : in(32): the words of G4
    (index in the low bits, bank above, as :class:`hdl.control.bank.RegisterBank` numbers its rows). ``bank`` : in(1)
    active bank.

    Order side: ``ready`` : in(1) the port would take a frame. ``hold`` : in(1) a mass cancel is outstanding,
    ``mass_cancel`` : in(1) it leaves. ``trading`` : in(1). ``live`` : in(instruments) something is live. ``refill`` :
    in(1) tokens arrive. ``disturbed`` : in(1) what the gate goes by has changed behind the back of an evaluation.
    ``revisit`` : in(instruments) one bit each: it is changing in this cycle for that instrument.

    Evaluation: ``current`` : out(8) the instrument, ``following`` : out(8) the one of the next cycle, ``choose`` :
    out(1) it is chosen in this one; its rows are to be taken onto the benches with ``load`` : out(1), those of the book
    not when the bench holds what an entry has just made of them. ``may_load`` : out(1) two cycles after the last
    ``choose``, a flip-flop: ``load``, if at all, comes now. ``at`` : out(8) bit *t* is set in cycle *t* of the
    evaluation. ``claimed`` : out(1). ``fouled`` : out(1) the evaluation has been disturbed: it must not decide.
    ``mid_event`` : out(1) the book is in the middle of an event, ``is_stale`` : out(1); both from cycle 1
    on, of an instrument that is evaluated in the background. ``due`` : out(1) a background decision falls in this
    cycle. ``weigh`` : out(1) the gate weighs what was decided, ``direct`` : out(1) on a trigger byte. ``window`` :
    out(1) the cycle after; with it ``deferred`` : in(1) try again when the port is ready, or ``wait_tokens`` : in(1)
    try again when tokens arrive, or at once if some have since the decision. ``leave`` : out(1) two cycles after
    ``window``. ``decided`` : out(8) the instrument of ``weigh``, ``window`` and ``leave``. ``busy`` : out(1) claimed
    or under way, ``wants`` : out(1) pending and only waiting for the port: slower senders hold back, for ``wants``
    while the port is ready. ``of_decided`` : out(instruments) the bit of ``decided``, ``of_current`` :
    out(instruments) that of ``current`` in the cycle before.

    Rules. A background evaluation is squashed by a claim and by ``invalidate``; it stays pending. One starts only when
    nothing has been under way for three cycles, no host action waits, the port is ready and no mass cancel is
    outstanding; instruments are asked one a cycle, in turn. An instrument in mid-event waits for its end of event,
    except while not trading, when its quotes are only taken away. One instrument a cycle is checked for staleness: more
    than ``stale_limit`` cycles since the last accepted packet; one that was claimed or decided on in the cycle before
    is not.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "identified": In(1), "index": In(8), "foreign": In(1), "entry": In(1), "trigger": In(1), "frame_end": In(1),
            "applied": In(1), "publish": In(1), "accept": In(1), "invalidate": In(1), "updating": In(1),
            "settle": In(1), "settle_index": In(8), "settle_now": Out(1), "restart": In(1), "clearing": In(1),
            "commit": In(1), "flip": Out(1),
            "evaluate_all": In(1), "stale_limit_write": In(1), "stale_limit_address": In(16), "stale_limit": In(32),
            "bank": In(1), "mass_cancel": In(1), "ready": In(1), "hold": In(1), "trading": In(1),
            "live": In(instruments), "refill": In(1), "disturbed": In(1), "revisit": In(instruments),
            "current": Out(8), "following": Out(8), "choose": Out(1), "may_load": Out(1), "load": Out(1),
            "at": Out(EVALUATION_CYCLES),
            "claimed": Out(1), "fouled": Out(1), "mid_event": Out(1), "is_stale": Out(1), "due": Out(1),
            "weigh": Out(1), "direct": Out(1), "deferred": In(1), "wait_tokens": In(1),
            "window": Out(1), "leave": Out(1), "decided": Out(8), "busy": Out(1), "wants": Out(1),
            "of_decided": Out(instruments), "of_current": Out(instruments)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        all_ = (1 << n) - 1
        touched, pending, waiting, stale = (Signal(n, name=name) for name in ("touched", "pending", "waiting", "stale"))
        current, following, claim, decided = self.current, self.following, self.claimed, self.decided
        mode, step = Signal(Mode), Signal(range(DECISION_CYCLES + 1))
        active, (_, background, content, settles) = mode.as_value().any(), mode.as_value()

        # A claim lasts from the cycle after SecurityID to the entry's last byte.
        with m.If(self.identified):
            m.d.sync += claim.eq(1)
        with m.Elif(self.entry | self.frame_end | self.foreign):
            m.d.sync += claim.eq(0)

        # Instruments, one bit each. What is asked about has been at rest for a cycle: `of_current` may be late. A ring
        # serves all that goes from one instrument to the next in every cycle.
        ring, of_flight = Signal(n, init=1), Signal(n)
        of_current, of_decided = self.of_current, self.of_decided
        m.d.sync += [ring.eq(ring.rotate_left(1)), of_current.eq(1 << current)]
        of_asked, of_found = ring.rotate_right(1), ring.rotate_right(2)

        # Background: instruments are asked in turn, two cycles ahead; what is pending now still is then.
        sweep, upcoming, asked = Signal(range(max(2, n))), Signal(range(max(2, n))), Signal(range(max(2, n)))
        eligible, is_eligible, any_eligible = Signal(n), Signal(), Signal()
        m.d.comb += upcoming.eq(Mux(sweep == n - 1, 0, sweep + 1))
        m.d.sync += [sweep.eq(upcoming), asked.eq(sweep),
                     eligible.eq(pending & (~touched | Mux(self.trading, 0, all_))),
                     is_eligible.eq((eligible & ring).any()), any_eligible.eq(eligible.any())]

        # Host actions and background evaluations wait for a gap; there is one in every entry.
        tail = Signal(5)        # after a decision: a cycle, weigh, window, a cycle, leave
        triggered = Signal()
        idle, quiet, rest = Signal(), Signal(), Signal(2)
        settling, committing, settle_index = Signal(), Signal(), Signal(8)
        start, fetch = Signal(), Signal()
        m.d.comb += [
            idle.eq(~active & ~claim & (tail == 0) & ~self.updating),
            quiet.eq(rest.all() & ~active & ~claim & ~self.updating),   # a tail needs something before it
            fetch.eq(settling & idle & ~self.settle & ~self.restart & ~self.clearing),
            start.eq(is_eligible & quiet & ~settling & ~committing & self.ready & ~self.hold),
            self.flip.eq(committing & idle & ~self.identified & ~settling),
            self.busy.eq(~idle), self.wants.eq(any_eligible & ~self.hold),
        ]
        m.d.sync += rest.eq((rest << 1) | idle)
        with m.If(self.settle):
            m.d.sync += [settling.eq(1), settle_index.eq(self.settle_index)]
        with m.Elif(self.settle_now | self.restart):
            m.d.sync += settling.eq(0)
        with m.If(self.commit):
            m.d.sync += committing.eq(1)
        with m.Elif(self.flip):
            m.d.sync += committing.eq(0)

        # The evaluation: what it is for, and how far it is.
        flying = Signal()   # a background evaluation that has not decided, whatever claims the mode
        started = Signal()
        weighing, squash, loaded, ripe, settled = Signal(), Signal(), Signal(), Signal(), Signal()
        steps, anew = Signal.like(self.at), Signal()
        m.d.comb += [
            weighing.eq(content & (step == DECISION_CYCLES)),
            squash.eq(flying & (claim | self.invalidate)),
            loaded.eq(active & (step == LOAD_CYCLES - 1)),
            self.load.eq(loaded & ~content),
            self.due.eq(ripe & ~claim & ~self.invalidate),
            self.weigh.eq(tail[1] | weighing), self.direct.eq(content),
            self.window.eq(tail[2]), self.leave.eq(tail[4]),
            self.settle_now.eq(settled & settling),
        ]
        # The decision is on the way to the pins: that its cycle comes is known the cycle before. So is the host's.
        gives_up = settles & (self.settle | self.restart)   # not these words, not on this session
        m.d.sync += [ripe.eq(flying & background & (step == DECISION_CYCLES - 1) & ~squash),
                     settled.eq(settles & (step == SETTLE_CYCLES - 1) & ~gives_up & ~self.identified)]
        m.d.sync += [tail.eq(Cat(self.due, tail[0], self.weigh, tail[2:4])), steps.eq(Cat(loaded, self.at[:-1])),
                     triggered.eq(self.trigger), started.eq(start)]
        m.d.comb += [following.eq(current), self.choose.eq(start | fetch | self.identified)]
        chosen = Signal()
        m.d.sync += [current.eq(following), chosen.eq(self.choose), self.may_load.eq(chosen & ~self.choose)]
        with m.If(active & (step != DECISION_CYCLES)):
            m.d.sync += step.eq(step + 1)
        with m.If(self.due | (squash & ~claim) | weighing | settled | gives_up
                  | (claim & (self.entry | self.frame_end | self.foreign))):
            m.d.sync += mode.eq(Mode.IDLE)
        with m.If(self.due | squash):
            m.d.sync += flying.eq(0)
        with m.If(start):
            m.d.sync += [mode.eq(Mode.BACKGROUND), step.eq(1), flying.eq(1), of_flight.eq(of_asked)]
            m.d.comb += following.eq(asked)
        with m.If(fetch):
            m.d.sync += [mode.eq(Mode.SETTLE), step.eq(1)]
            m.d.comb += following.eq(settle_index)
        with m.If(self.trigger):
            m.d.sync += [mode.eq(Mode.CONTENT), step.eq(LOAD_CYCLES - 1)]
        with m.If(self.due | triggered):
            m.d.sync += [decided.eq(current), of_decided.eq(of_current)]
        with m.If(self.identified):
            m.d.sync += [mode.eq(Mode.CLAIMED), step.eq(1)]
            m.d.comb += following.eq(self.index)
        # Nothing of what was under way counts any more. `identified` comes late: it does not reach the steps.
        m.d.sync += anew.eq(start | self.identified)
        m.d.comb += self.at.eq(Mux(anew, 0, steps))
        with m.If(start | self.identified):
            m.d.sync += self.fouled.eq(0)
        with m.Elif(self.disturbed):
            m.d.sync += self.fouled.eq(1)
        with m.If(self.at[0] & ~content):
            m.d.sync += [self.mid_event.eq((touched & of_current).any() & background),
                         self.is_stale.eq((stale & of_current).any())]

        # Staleness, one instrument a cycle. It is found in one cycle and counts in the next. Written are limits of the
        # bank that is not read.
        bank_bit = max(1, (n - 1).bit_length())
        m.submodules.stale_limits = limits = Memory(shape=32, depth=2 << bank_bit, init=[], attrs=BLOCK)
        limit_write, limit_read = limits.write_port(), limits.read_port(domain="comb")
        fetched = Signal(32, name="stale_limit_fetched", reset_less=True)
        age, limit = Signal(32, init=0xFFFFFFFF), Signal(32)
        exceeded, swept = Signal(), Signal.like(sweep)
        m.d.comb += [
            limit_write.en.eq(self.stale_limit_write), limit_write.addr.eq(self.stale_limit_address),
            limit_write.data.eq(self.stale_limit),
            limit_read.addr.eq(upcoming | self.bank << bank_bit),
        ]
        watched = Signal()  # what is decided on goes by one answer
        m.d.sync += [fetched.eq(limit_read.data), limit.eq(fetched), swept.eq(sweep),
                     exceeded.eq((limit < age) & ~self.accept),
                     watched.eq((claim | content) & (swept == current))]
        with m.If(self.accept):
            m.d.sync += age.eq(1)
        with m.Elif(age != 0xFFFFFFFF):
            m.d.sync += age.eq(age + 1)
        expired = Signal(n)
        with m.If(exceeded & ~self.accept & ~watched):
            m.d.comb += expired.eq(of_found & ~stale)

        # Sets, in the order in which they overrule one another. In the cycle after a trigger its instrument still is
        # `current`. What has started, what the gate says of a decision, what a mass cancel has taken away, and new
        # parameters count a cycle later: its rows are not on the benches yet, nothing starts so soon, and what starts
        # under new parameters is evaluated twice.
        now_touched, now_waiting, done, again = Signal(n), Signal(n), Signal(n), Signal(n)
        repeats, waits = Signal(), Signal()
        refilled = Signal()     # tokens have come since the decision
        comes = refilled | self.refill
        m.d.sync += [refilled.eq(self.refill | (refilled & ~self.due & ~self.trigger)),
                     repeats.eq(self.window & (self.deferred | (self.wait_tokens & comes))),
                     waits.eq(self.window & self.wait_tokens & ~comes)]
        # A decision went by what was live, so that a mass cancel in the same cycles leaves it pending.
        cancelled, was_live, flipped, revisit = Signal(), Signal(n), Signal(), Signal(n)
        m.d.sync += [cancelled.eq(self.mass_cancel), was_live.eq(self.live), flipped.eq(self.flip),
                     revisit.eq(self.revisit)]
        m.d.comb += [
            now_touched.eq(touched | Mux(self.applied, of_current, 0)),
            now_waiting.eq(waiting | Mux(waits, of_decided, 0)),
            done.eq(Mux(triggered & ~cancelled, of_current, 0) | Mux(started, of_flight, 0)),
            again.eq(Mux(squash, of_flight, 0) | Mux(repeats, of_decided, 0)),
        ]
        m.d.sync += [
            pending.eq((pending | Mux(self.publish, now_touched, 0) | Mux(self.accept, stale, 0)
                        | Mux(self.refill, now_waiting, 0) | (expired & self.live) | Mux(self.invalidate, self.live, 0)
                        | Mux(self.settle_now, of_current, 0)) & ~done | again | revisit | Mux(cancelled, was_live, 0)
                       | Mux(self.evaluate_all | flipped, all_, 0)),
            touched.eq(Mux(self.publish | self.invalidate, 0, now_touched & ~(expired & self.live))),
            stale.eq(Mux(self.accept, 0, stale | expired)),
            waiting.eq(Mux(self.refill, 0, now_waiting & ~done)),
        ]
        return m


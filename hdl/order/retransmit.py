"""When something that was sent is sent again: retransmission time-out, duplicate acknowledgements, window probes."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control.registers import RESEND_TICK

__all__ = ["ANSWER_CYCLES", "BUDGET", "DUPLICATES", "LOADS", "TICK_CYCLES", "TIME_BITS", "Retransmitter"]

TICK_CYCLES = RESEND_TICK   #: a tick of the timers: 1.024 us
TIME_BITS = 26          #: of a time in ticks: 68 s
ATTEMPT_BITS = 5
DUPLICATES = 3          #: acknowledgements that say so before a segment counts as lost
MOST = (1 << TIME_BITS) - 1
BUDGET = 7              #: segments at most that one acknowledgement and those before it let go again

#: What the host says at the hand-over, in the order of ``Retransmitter.load``; see there.
LOADS = ("rto_first", "rto_min", "rto_max", "rto_most")

#: From ``advanced`` to the cycle with the new ``rto``; with the next one the timer begins anew.
ANSWER_CYCLES = 6


class Retransmitter(wiring.Component):
    """Timer and recovery of one connection.

    **Time-out** (RFC 6298). One segment at a time is timed, from its start to the acknowledgement of its end, and none
    of which anything was sent again meanwhile (Karn). SRTT, RTTVAR and with them RTO = SRTT + max(1 tick, 4 RTTVAR)
    follow the RFC's sections 2.2 and 2.3 in eighths and quarters of a tick; RTO is kept from ``rto_min`` to
    ``rto_max``, and is ``rto_first`` before the first measurement. The timer runs while something is unacknowledged,
    begins anew with every acknowledgement of something new, and where it runs out the oldest segment is sent again
    and the time-out doubled, up to ``rto_max``, until the next measurement.

    **Duplicate acknowledgements** (RFC 5681, 6582). The third one in a row has the oldest segment sent again at once,
    unless what was sent before is being recovered already.

    **Recovery** lasts until all is acknowledged that had been sent when it began. Meanwhile each acknowledgement of a
    part of that lets segments go again, from the oldest on: one after duplicate acknowledgements, two more of them each
    time after a time-out, up to seven. Nothing that was sent later is repeated, and what is new may be sent all the
    while: the sequence of the stream is that in which it left first, whatever is repeated, so that the last state
    quoted is the last one that the peer's application reads.

    **Window probe** (RFC 9293, 3.8.6.1). While the peer's window has no room for a quote and nothing is unacknowledged
    whose repetition would ask, the timer runs too, and where it runs out a segment without payload and with the number
    before ``una`` is sent, which the peer has to answer.

    **Giving up.** When the timer has run out more than ``rto_most`` times with no acknowledgement of something new in
    between (nor, while the window is too small, any acknowledgement), ``gives_up`` strobes.

    Times are in ticks. One that is waited for ends with a tick, after so many whole ones; a time of 0 ends with the
    next tick.

    Members
    -------
    tick : In(1)
        Strobe, every :data:`TICK_CYCLES` cycles.
    load : In(4), load_data : In(32)
        Strobe for each of :data:`LOADS`: ``rto_first``, ``rto_min``, ``rto_max`` 26, ``rto_most`` 5. ``rto_first`` also
        forgets what was measured.
    up : In(1)
        The session may send. Everything is forgotten but the estimate while it is 0.
    sent : In(1)
        Strobe: something new has been sent, and ``nxt`` is the number behind it in the next cycle.
    advanced : In(1)
        Strobe: ``una`` is greater than in the cycle before.
    duplicate : In(1)
        Strobe: a duplicate acknowledgement. heard : In(1) strobe: any acknowledgement that is right.
    una, nxt : In(32)
    roomy : In(1)
        The peer's window has room for a quote, or would have if all were acknowledged.
    rewind, step : Out(1), shown : In(1), shown_seq : In(32)
        To :class:`hdl.order.ring.RetransmitRing`: its cursor, ``valid`` and ``seq``.
    wants : Out(1)
        The segment at the ring's cursor is to be sent. started : In(1) strobe: it starts, only while ``wants``.
    probes : Out(1)
        A window probe is to be sent. probed : In(1) strobe: it starts.
    gives_up : Out(1)
        Strobe.
    expired, recovers : Out(1)
        Strobes for counters: the timer ran out while something was unacknowledged; three duplicates were heard.
    rto, srtt : Out(26)
        Time-out in force without doublings; the smoothed time, cut to ticks.
    """

    def __init__(self):
        super().__init__({
            "tick": In(1),
            "load": In(len(LOADS)),
            "load_data": In(32),
            "up": In(1),
            "sent": In(1),
            "advanced": In(1),
            "duplicate": In(1),
            "heard": In(1),
            "una": In(32),
            "nxt": In(32),
            "roomy": In(1),
            "rewind": Out(1),
            "step": Out(1),
            "shown": In(1),
            "shown_seq": In(32),
            "wants": Out(1),
            "started": In(1),
            "probes": Out(1),
            "probed": In(1),
            "gives_up": Out(1),
            "expired": Out(1),
            "recovers": Out(1),
            "rto": Out(TIME_BITS),
            "srtt": Out(TIME_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        least, greatest, most = Signal(TIME_BITS), Signal(TIME_BITS), Signal(ATTEMPT_BITS)
        load = dict(zip(LOADS, self.load, strict=True))
        for name, target in (("rto_min", least), ("rto_max", greatest), ("rto_most", most)):
            with m.If(load[name]):
                m.d.sync += target.eq(self.load_data)

        # An acknowledgement of something new, and what has followed from it: that it is of the goal or of the segment
        # that is timed is known two cycles later, what follows for the time-out when the estimate is done.
        advanced = [self.advanced, *(Signal(name=f"advanced_{n}") for n in range(1, ANSWER_CYCLES + 1))]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(advanced)]

        # ------------------------------------------------------------------ the timer
        unacknowledged, starved = Signal(), Signal()
        m.d.sync += [unacknowledged.eq((self.una != self.nxt) & self.up), starved.eq(~self.roomy & self.up)]
        current, left = Signal(TIME_BITS), Signal(TIME_BITS)    # the time-out, doublings and all; what is left of it
        runs, ran, out, restarts, measured = Signal(), Signal(2), Signal(), Signal(), Signal()
        m.d.comb += [runs.eq(unacknowledged | starved), out.eq(self.tick & runs & ran.all() & (left == 0))]
        m.d.sync += [ran.eq(Cat(runs, ran)), restarts.eq(advanced[ANSWER_CYCLES] | out | (runs & ~ran[0]))]
        with m.If(restarts):
            m.d.sync += left.eq(current)
        with m.Elif(self.tick & (left != 0)):
            m.d.sync += left.eq(left - 1)
        doubled = Signal(TIME_BITS + 1)
        m.d.comb += doubled.eq(Mux(current == 0, 2, current << 1))
        with m.If(~self.up | measured):
            m.d.sync += current.eq(self.rto)
        with m.Elif(out):
            m.d.sync += current.eq(Mux(doubled > greatest, greatest, doubled))

        attempts, exhausted = Signal(ATTEMPT_BITS), Signal()
        m.d.sync += exhausted.eq(attempts >= most)
        m.d.comb += self.gives_up.eq(out & exhausted)
        with m.If(~self.up | self.advanced | (self.heard & starved)):
            m.d.sync += attempts.eq(0)
        with m.Elif(out):
            m.d.sync += attempts.eq(attempts + 1)

        with m.If(~starved | self.probed):
            m.d.sync += self.probes.eq(0)
        with m.Elif(out & ~unacknowledged & ~exhausted):
            m.d.sync += self.probes.eq(1)

        # ------------------------------------------------------------------ recovery
        recovering, after_timeout, begins = Signal(), Signal(), Signal()
        goal, open_ = Signal(32), Signal(signed(32))        # what it is over with, and how much of that is to come
        duplicates, third = Signal(range(DUPLICATES + 1)), Signal()
        budget = Signal(range(BUDGET + 1))
        m.d.sync += open_.eq(goal - self.una)
        m.d.comb += [
            third.eq(self.duplicate & (duplicates == DUPLICATES - 1) & ~recovering & unacknowledged),
            self.expired.eq(out & unacknowledged), self.recovers.eq(third & ~self.expired),
            begins.eq(self.expired | third), self.rewind.eq(begins), self.step.eq(self.started),
        ]
        with m.If(self.advanced | ~unacknowledged):
            m.d.sync += duplicates.eq(0)
        with m.Elif(self.duplicate & (duplicates != DUPLICATES)):
            m.d.sync += duplicates.eq(duplicates + 1)

        with m.If(~self.up):
            m.d.sync += [recovering.eq(0), budget.eq(0)]
        with m.Elif(begins):
            m.d.sync += [recovering.eq(1), budget.eq(1), goal.eq(self.nxt), after_timeout.eq(self.expired)]
        with m.Elif(advanced[2] & recovering):
            with m.If(open_ <= 0):
                m.d.sync += [recovering.eq(0), budget.eq(0)]
            with m.Elif(after_timeout):
                m.d.sync += budget.eq(Mux(budget >= BUDGET - 2, BUDGET, budget + 2))
            with m.Else():
                m.d.sync += budget.eq(1)
        with m.Elif(self.started & (budget != 0)):
            m.d.sync += budget.eq(budget - 1)

        # What the cursor shows is compared while nothing changes, and wanted a cycle later.
        below_goal, unsettled = Signal(), Signal()
        m.d.comb += unsettled.eq(begins | self.started | Cat(advanced[:3]).any() | ~self.up)
        m.d.sync += [
            below_goal.eq(((self.shown_seq - goal)[:32][-1]) & self.shown & ~unsettled),
            self.wants.eq(below_goal & self.shown & recovering & budget.any() & ~unsettled),
        ]

        self._elaborate_estimate(m, advanced[2], spoilt=begins | self.started, may_time=~recovering,
                                 bounds=(least, greatest), load=load["rto_first"], measured=measured)
        return m

    def _elaborate_estimate(self, m, looked_at, *, spoilt, may_time, bounds, load, measured):
        """Of the round trip: one segment at a time is timed. ``measured`` becomes a strobe with a new ``rto``."""
        timed, elapsed, end, open_ = Signal(), Signal(TIME_BITS), Signal(32), Signal(signed(32))
        sent, takes = Signal(), Signal()
        m.d.sync += [sent.eq(self.sent), open_.eq(end - self.una)]
        m.d.comb += takes.eq(looked_at & timed & (open_ <= 0) & ~spoilt)
        with m.If(~self.up | spoilt | takes):
            m.d.sync += timed.eq(0)
        with m.Elif(sent & ~timed & may_time):
            m.d.sync += [timed.eq(1), end.eq(self.nxt), elapsed.eq(0)]
        with m.Elif(self.tick & (elapsed != MOST)):
            m.d.sync += elapsed.eq(elapsed + 1)

        # In steps: how far off the estimate was; the estimate; the time-out; its bounds.
        step, known = Signal(ANSWER_CYCLES - 3), Signal()
        sample, off, above = Signal(TIME_BITS), Signal(TIME_BITS), Signal()
        smooth, spread = Signal(TIME_BITS + 3), Signal(TIME_BITS + 2)       # in eighths, in quarters
        whole = Signal(TIME_BITS + 3)
        least, greatest = bounds
        m.d.sync += [step.eq(Cat(takes, step)), measured.eq(step[-1])]
        m.d.comb += self.srtt.eq(smooth[3:])
        with m.If(takes):
            m.d.sync += [sample.eq(elapsed), above.eq(elapsed >= self.srtt),
                         off.eq(Mux(elapsed >= self.srtt, elapsed - self.srtt, self.srtt - elapsed))]
        with m.If(step[0]):
            m.d.sync += known.eq(1)
            with m.If(known):
                m.d.sync += [smooth.eq(Mux(above, smooth + off, smooth - off)), spread.eq(spread - spread[2:] + off)]
            with m.Else():
                m.d.sync += [smooth.eq(sample << 3), spread.eq(sample << 1)]
        with m.If(step[1]):
            m.d.sync += whole.eq(self.srtt + Mux(spread == 0, 1, spread))
        with m.If(step[2]):
            m.d.sync += self.rto.eq(Mux(whole < least, least, Mux(whole > greatest, greatest, whole)))
        with m.If(load):
            m.d.sync += [known.eq(0), step.eq(0), smooth.eq(0), spread.eq(0), self.rto.eq(self.load_data)]

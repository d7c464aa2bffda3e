"""G0, G1, G2, G22: the trading state, the host's dead-man, what is armed, and the kill latch."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control import registers
from hdl.control.registers import ACTIVE, DISARMED, HALT_CAUSES, HALTED, REDUCING


class TradingState(wiring.Component):
    """DISARMED -> ACTIVE -> REDUCING -> DISARMED at the host's word; HALTED by any cause, until the host clears it.

    Members
    -------
    arm, disarm, reduce, kill, clear_halt : in(1) register strobes with ``data`` : in(32), which stands from the cycle
        before them on.
    heartbeat : in(1) the heartbeat register is being written with ``data``.
    deadman_cycles : in(32) G1 limit.
    hash_ok : in(1) G2: the host has said rightly which limits are in force. torn : in(1) strobe: a commit was refused.
    lost, warned : in(1) levels: G19 has found that too much is lost, or nearly.
    mismatch : in(1) strobe: G21 has found that what left is not what was approved.
    untrusted : in(1) strobe: the exchange has said what cannot be. deaf : in(1) level: what it says is not understood.
    kill_pin : in(1) level. session_up : in(1). session_lost : in(1) strobe: the session is up in this cycle for the
        last time. feed_lost : in(1) level: the feed port's link or clock is gone.
    state : out(2), halt_cause : out(9), halt_nonce : out(32).
    trading : out(1) ACTIVE or REDUCING. A flip-flop.
    heartbeat_ok : out(1) G1: a heartbeat has been seen and is younger than a limit that is not zero. A flip-flop.
    silent : out(1) it is 0, from a flip-flop of its own: the trigger byte's way begins there, and is the longest.
    armed, reduced : out(1) strobes: trading begins; from now on positions are only reduced.
    arm_refused : out(1) strobe: the session is not up or just being lost, the feed is lost, too much is lost, the
        exchange is not understood, the magic is wrong, ``hash_ok`` is 0, or the state is not DISARMED.
    stopped : out(1) strobe: trading ends (disarm or halt): cancel what is live.
    cleared : out(1) strobe: a halt was cleared.
    changed : out(1) strobe: ``state`` has a new value in this cycle.

    What halts: the kill register, the kill pin, ``mismatch`` and ``untrusted`` in every state; the dead-man, a lost
    session, a lost feed, a loss and a commit that was refused while trading, so that a session that was logged out in
    DISARMED leaves nothing to be cleared. A halt adds its causes to those that are latched already, and ``clear_halt``
    does nothing while the pin lasts, nor in the first cycle of a halt, nor without ``hash_ok``. Nothing is armed
    without a feed, nor with a loss. ``warned`` is as good as ``reduce``.

    Latency: a write or a cause in cycle *c* shows in ``state`` in *c* + 1. A heartbeat is weighed for two cycles and
    counts from the second one after its write on; the dead-man expires ``deadman_cycles`` cycles after that: this is
    the first cycle in which ``heartbeat_ok`` is 0. A new limit counts from the cycle after the one in which
    ``deadman_cycles`` changes on. A heartbeat counts only if it is the last value written plus one, modulo 2^32; the
    first after reset counts whatever it is.

    Attributes
    ----------
    dead_man : {name: Signal}, once it is elaborated
        What the dead-man goes by, for proofs: ``age`` cycles since a heartbeat counted, ``alive`` one has, ``seen`` one
        was written, ``expected`` the next one's value, ``counts`` one counts now.
    """

    def __init__(self):
        super().__init__({
            "arm": In(1), "disarm": In(1), "reduce": In(1), "kill": In(1), "clear_halt": In(1), "data": In(32),
            "heartbeat": In(1), "deadman_cycles": In(32), "mismatch": In(1), "lost": In(1), "warned": In(1),
            "untrusted": In(1), "deaf": In(1), "hash_ok": In(1), "torn": In(1),
            "kill_pin": In(1), "session_up": In(1),
            "session_lost": In(1), "feed_lost": In(1), "state": Out(2), "halt_cause": Out(len(HALT_CAUSES)),
            "halt_nonce": Out(32),
            "trading": Out(1), "heartbeat_ok": Out(1), "silent": Out(1, init=1),
            "armed": Out(1), "reduced": Out(1), "arm_refused": Out(1),
            "stopped": Out(1), "cleared": Out(1), "changed": Out(1)})

    def elaborate(self, platform):
        m = Module()

        # `age`: what it will be in the next cycle, so that it is held against the limit in this one.
        expected, seen, age = Signal(32), Signal(), Signal(32, init=1)
        beat, beat_data = Signal(), Signal(32)      # a heartbeat as it was written
        counts, sooner, later = Signal(), Signal(), Signal()
        with m.If(age != 0xFFFFFFFF):
            m.d.sync += age.eq(age + 1)
        m.d.sync += [beat.eq(self.heartbeat), counts.eq(beat & (~seen | (beat_data == expected)))]
        with m.If(self.heartbeat):
            m.d.sync += beat_data.eq(self.data)
        with m.If(beat):
            m.d.sync += [expected.eq(beat_data + 1), seen.eq(1)]
        with m.If(counts):
            m.d.sync += age.eq(2)
        alive = Signal()
        m.d.comb += [sooner.eq(self.deadman_cycles > 1), later.eq(age < self.deadman_cycles)]
        beats = Signal()
        m.d.comb += beats.eq(Mux(counts, sooner, alive & later))
        m.d.sync += [self.heartbeat_ok.eq(beats), self.silent.eq(~beats)]
        with m.If(counts):
            m.d.sync += alive.eq(1)
        self.dead_man = {"age": age, "alive": alive, "seen": seen, "expected": expected, "counts": counts}

        causes = Signal(len(HALT_CAUSES))
        m.d.comb += [
            causes[HALT_CAUSES["kill_register"]].eq(self.kill),
            causes[HALT_CAUSES["kill_pin"]].eq(self.kill_pin),
            causes[HALT_CAUSES["deadman"]].eq(self.trading & ~self.heartbeat_ok),
            causes[HALT_CAUSES["session_lost"]].eq(self.trading & self.session_lost),
            causes[HALT_CAUSES["feed_lost"]].eq(self.trading & self.feed_lost),
            causes[HALT_CAUSES["emission"]].eq(self.mismatch),
            causes[HALT_CAUSES["loss"]].eq(self.trading & self.lost),
            causes[HALT_CAUSES["answers"]].eq(self.untrusted),
            causes[HALT_CAUSES["integrity"]].eq(self.trading & self.torn),
        ]
        # The nonce goes by the state, not by what changes it, which comes late. No two halts follow each other so
        # closely that the next one would not be there.
        previous, last_nonce, next_nonce = Signal(2), Signal(32), Signal(32, init=1)
        halted = self.state == HALTED
        with m.If(halted):
            m.d.sync += last_nonce.eq(next_nonce)
        with m.Else():
            m.d.sync += next_nonce.eq(last_nonce + 1)
        # What a command says is held against what it has to say a cycle ahead; a nonce that is new since is not it.
        is_magic, is_nonce = Signal(), Signal()
        m.d.sync += [previous.eq(self.state),
                     is_magic.eq(self.data == registers.ARM_MAGIC),
                     is_nonce.eq((self.data == next_nonce) & halted)]
        m.d.comb += [self.changed.eq(previous != self.state), self.halt_nonce.eq(Mux(halted, next_nonce, last_nonce))]
        with m.If(causes != 0):
            m.d.sync += [self.state.eq(HALTED), self.trading.eq(0), self.halt_cause.eq(self.halt_cause | causes)]
            m.d.comb += self.stopped.eq(self.trading)
        with m.Elif(self.disarm & self.trading):
            m.d.sync += [self.state.eq(DISARMED), self.trading.eq(0)]
            m.d.comb += self.stopped.eq(1)
        with m.Elif((self.reduce | self.warned) & (self.state == ACTIVE)):
            m.d.sync += self.state.eq(REDUCING)
            m.d.comb += self.reduced.eq(1)
        with m.Elif(self.clear_halt & (self.state == HALTED) & is_nonce & self.hash_ok):
            m.d.sync += [self.state.eq(DISARMED), self.halt_cause.eq(0)]
            m.d.comb += self.cleared.eq(1)
        with m.Elif(self.arm):
            with m.If((self.state == DISARMED) & self.session_up & ~self.session_lost & ~self.feed_lost & ~self.lost
                      & ~self.deaf & is_magic & self.hash_ok):
                m.d.sync += [self.state.eq(ACTIVE), self.trading.eq(1)]
                m.d.comb += self.armed.eq(1)
            with m.Else():
                m.d.comb += self.arm_refused.eq(1)
        return m

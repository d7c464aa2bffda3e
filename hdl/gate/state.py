"""G0, G1, G22: the trading state, the host's dead-man and the kill latch."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.control import registers
from hdl.control.registers import ACTIVE, DISARMED, HALT_CAUSES, HALTED, REDUCING


class TradingState(wiring.Component):
    """DISARMED -> ACTIVE -> REDUCING -> DISARMED at the host's word; HALTED by any cause, until the host clears it.

    Members
    -------
    arm, disarm, reduce, kill, clear_halt : in(1) register strobes with ``data`` : in(32).
    heartbeat : in(1) the heartbeat register is being written with ``data``.
    deadman_cycles : in(32) G1 limit.
    kill_pin : in(1) level. session_up : in(1). session_lost : in(1) strobe: the session is up in this cycle for the
        last time.
    state : out(2), halt_cause : out(8), halt_nonce : out(32).
    trading : out(1) ACTIVE or REDUCING.
    heartbeat_ok : out(1) G1: a heartbeat has been seen and is younger than a limit that is not zero.
    armed, reduced : out(1) strobes: trading begins; from now on positions are only reduced.
    arm_refused : out(1) strobe: the session is not up or just being lost, the magic is wrong, or the state is not
        DISARMED.
    stopped : out(1) strobe: trading ends (disarm or halt): cancel what is live.
    cleared : out(1) strobe: a halt was cleared.
    changed : out(1) strobe: ``state`` has a new value in this cycle.

    What halts: the kill register and the kill pin in every state; the dead-man and a lost session while trading, so
    that a session that was logged out in DISARMED leaves nothing to be cleared. A halt adds its causes to those that
    are latched already, and ``clear_halt`` does nothing while a cause lasts (the pin).

    Latency: a write or a cause in cycle *c* shows in ``state`` in *c* + 1. The dead-man expires ``deadman_cycles``
    cycles after the write of the last valid heartbeat: that is the first cycle in which ``heartbeat_ok`` is 0. A
    heartbeat counts only if it is the last value written plus one, modulo 2^32; the first after reset counts whatever
    it is.
    """

    def __init__(self):
        super().__init__({
            "arm": In(1), "disarm": In(1), "reduce": In(1), "kill": In(1), "clear_halt": In(1), "data": In(32),
            "heartbeat": In(1), "deadman_cycles": In(32), "kill_pin": In(1), "session_up": In(1),
            "session_lost": In(1), "state": Out(2), "halt_cause": Out(8), "halt_nonce": Out(32), "trading": Out(1),
            "heartbeat_ok": Out(1), "armed": Out(1), "reduced": Out(1), "arm_refused": Out(1), "stopped": Out(1),
            "cleared": Out(1), "changed": Out(1)})

    def elaborate(self, platform):
        m = Module()

        last, seen, age = Signal(32), Signal(), Signal(32)
        with m.If(age != 0xFFFFFFFF):
            m.d.sync += age.eq(age + 1)
        with m.If(self.heartbeat):
            m.d.sync += [last.eq(self.data), seen.eq(1)]
            with m.If(~seen | (self.data == (last + 1)[:32])):
                m.d.sync += age.eq(1)
        m.d.comb += [
            self.heartbeat_ok.eq(seen & (age < self.deadman_cycles)),
            self.trading.eq((self.state == ACTIVE) | (self.state == REDUCING)),
        ]

        causes = Signal(8)
        m.d.comb += [
            causes[HALT_CAUSES["kill_register"]].eq(self.kill),
            causes[HALT_CAUSES["kill_pin"]].eq(self.kill_pin),
            causes[HALT_CAUSES["deadman"]].eq(self.trading & ~self.heartbeat_ok),
            causes[HALT_CAUSES["session_lost"]].eq(self.trading & self.session_lost),
        ]
        previous = Signal(2)
        m.d.sync += previous.eq(self.state)
        m.d.comb += self.changed.eq(previous != self.state)
        with m.If(causes != 0):
            m.d.sync += [self.state.eq(HALTED), self.halt_cause.eq(self.halt_cause | causes)]
            m.d.comb += self.stopped.eq(self.trading)
            with m.If(self.state != HALTED):
                m.d.sync += self.halt_nonce.eq(self.halt_nonce + 1)
        with m.Elif(self.disarm & self.trading):
            m.d.sync += self.state.eq(DISARMED)
            m.d.comb += self.stopped.eq(1)
        with m.Elif(self.reduce & (self.state == ACTIVE)):
            m.d.sync += self.state.eq(REDUCING)
            m.d.comb += self.reduced.eq(1)
        with m.Elif(self.clear_halt & (self.state == HALTED) & (self.data == self.halt_nonce)):
            m.d.sync += [self.state.eq(DISARMED), self.halt_cause.eq(0)]
            m.d.comb += self.cleared.eq(1)
        with m.Elif(self.arm):
            with m.If((self.state == DISARMED) & self.session_up & ~self.session_lost
                      & (self.data == registers.ARM_MAGIC)):
                m.d.sync += self.state.eq(ACTIVE)
                m.d.comb += self.armed.eq(1)
            with m.Else():
                m.d.comb += self.arm_refused.eq(1)
        return m

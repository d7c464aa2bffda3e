# amaranth: UnusedElaboratable=no
"""G0, G1, G2 and G22: the trading state, the kill latch and the dead-man, alone and on the way of a quote."""

from amaranth.hdl import Assert, Assume, Cover, Signal

from hdl.control.registers import ACTIVE, DISARMED, HALT_CAUSES, HALTED, REDUCING
from hdl.gate.state import TradingState
from hdl.order.port import KIND_QUOTE
from hdl.path import TickPath
from tests.proof.obligation import Proof, before

#: Of the path, all that says nothing of state and tokens: it may do what it likes.
_MARKET = tuple(f"dut.{name}" for name in (
    "match", "arbiter", "walker", "lookup", "ticks", "book", "scheduler", "engine", "exposure", "limits", "hypotheses",
    "gate", "window", "references", "holds", "duplicates",
    "account"))


def _consistent(m, state):
    """What is redundant in the state agrees."""
    m.d.comb += [Assert(state.trading == ((state.state == ACTIVE) | (state.state == REDUCING))),
                 Assert(state.silent == ~state.heartbeat_ok)]


def _killed(m, kill, pin, state):
    """A kill was asked for, and no halt has been cleared since."""
    killed = Signal()
    with m.If(kill | pin):
        m.d.sync += killed.eq(1)
    with m.Elif(state.cleared):
        m.d.sync += killed.eq(0)
    m.d.comb += Assert(~killed | (state.state == HALTED))
    return killed


def _latch(m, state, _):
    _consistent(m, state)
    killed = _killed(m, state.kill, state.kill_pin, state)
    was, was_data, was_nonce = (before(m, value, name, init=init) for value, name, init in (
        (state.state, "state", DISARMED), (state.data, "data", 0), (state.halt_nonce, "nonce", 0)))
    left, cause = Signal(), Signal(8)
    m.d.comb += [
        left.eq((was == HALTED) & (state.state != HALTED)), cause.eq(before(m, state.halt_cause, "cause")),
        Assume(~state.clear_halt | (state.data == was_data)),
        # Out of HALTED by the host's word alone, with the nonce of this very halt, and then only to DISARMED.
        Assert(~left | before(m, state.clear_halt, "clear_halt")),
        Assert(~left | (was_data == was_nonce)),
        Assert(~left | before(m, state.hash_ok, "hash_ok")),    # G2
        Assert(~left | (state.state == DISARMED)),
        # No other halt had that nonce: each has the next one.
        Assert(~((was != HALTED) & (state.state == HALTED)) | (state.halt_nonce == (was_nonce + 1)[:32])),
        Assert(((was != HALTED) & (state.state == HALTED)) | (state.halt_nonce == was_nonce)),
        # What has halted stays told until then.
        Assert(~((was == HALTED) & (state.state == HALTED)) | ((state.halt_cause & cause) == cause)),
        Cover(left), Cover(killed & state.clear_halt), Cover(left & (state.halt_nonce == 2)),
        Cover((state.state == HALTED) & (state.halt_cause == (1 << len(HALT_CAUSES)) - 1)),
    ]


def _reset(m, state, _):
    _consistent(m, state)
    armed = Signal()
    with m.If(state.armed):
        m.d.sync += armed.eq(1)
    was = before(m, state.state, "state", init=DISARMED)
    m.d.comb += [
        Assert(armed | ~state.trading),
        # Trading begins in one way, and REDUCING never becomes ACTIVE again.
        Assert(~((was != ACTIVE) & (state.state == ACTIVE)) | (before(m, state.armed, "armed") & (was == DISARMED))),
        Assert(~((was != REDUCING) & (state.state == REDUCING)) | (was == ACTIVE)),
        Assert(~before(m, state.mismatch, "mismatch") | (state.state == HALTED)),      # G21
        Assert(~before(m, state.trading & state.lost, "lost") | (state.state == HALTED)),              # G19
        Assert(~before(m, state.trading & state.torn, "torn") | (state.state == HALTED)),              # G2
        Assert(~state.armed | state.hash_ok),
        Assert(~before(m, (state.state == ACTIVE) & state.warned, "warned") | (state.state != ACTIVE)),
        Assert(~state.armed | (state.session_up & ~state.session_lost & ~state.feed_lost & ~state.kill_pin)),
        Assert(~state.armed | ~state.lost),
        Cover(state.trading & state.heartbeat_ok), Cover(state.state == REDUCING),
        Cover(state.arm_refused & state.heartbeat_ok),
    ]


def _deadman(m, state, _):
    """Against a count of its own, which begins when a heartbeat has been weighed: two cycles after its strobe."""
    seen, expected, valid = Signal(), Signal(32), Signal()
    m.d.comb += valid.eq(state.heartbeat & (~seen | (state.data == expected)))
    with m.If(state.heartbeat):
        m.d.sync += [seen.eq(1), expected.eq(state.data + 1)]
    weighed = before(m, before(m, valid, "valid"), "weighed")
    age, beaten = Signal(33), Signal()
    with m.If(weighed):
        m.d.sync += [age.eq(3), beaten.eq(1)]
    with m.Elif(~age.all()):
        m.d.sync += age.eq(age + 1)
    its = state.dead_man
    limit, was_trading, was_ok = (before(m, value, name) for value, name in (
        (state.deadman_cycles, "limit"), (state.trading, "trading"), (state.heartbeat_ok, "ok")))
    m.d.comb += [
        # The component's own count agrees.
        Assert(its["counts"] == weighed), Assert(its["alive"] == beaten),
        Assert(its["seen"] == before(m, seen, "seen")), Assert(its["expected"] == before(m, expected, "expected")),
        Assert(~beaten | (age >= 3)),
        Assert(~beaten | (its["age"] == age - 1) | (its["age"].all() & (age > its["age"]))),
        # Never later than the limit says.
        Assert(~state.heartbeat_ok | (beaten & (limit != 0) & (age < limit + 2))),
        Assert(~(was_trading & ~was_ok) | (state.state == HALTED)),
        Cover(state.trading & state.heartbeat_ok & (age == 6)), Cover(was_ok & ~state.heartbeat_ok),
        Cover(state.heartbeat & ~valid & state.trading),
    ]


def _quotes(m, path, parts):
    """On the way of a quote to the port."""
    state, buckets, control = parts.state, parts.buckets, path.control
    _consistent(m, state)
    killed = _killed(m, control.kill, control.kill_pin, state)
    starts = Signal()
    m.d.comb += [
        Assert(buckets.cancel_ok == buckets.tokens.any()), Assert(~buckets.new_ok | buckets.cancel_ok),
        starts.eq(path.fire & path.ready & (path.kind == KIND_QUOTE)),
        Assert(~starts | (state.state == ACTIVE) | (state.state == REDUCING)),      # G0
        Assert(~starts | state.heartbeat_ok),                                       # G1
        Assert(~starts | buckets.cancel_ok),                                        # G14: the session has a token
        Assert(~starts | (~killed & ~control.kill_pin & (state.state != HALTED))),  # G22
        Cover(starts & (state.state == ACTIVE)), Cover(starts & (state.state == REDUCING)),
        Cover(killed & path.fire & path.ready),     # a cancel leaves all the same
    ]


PROOFS = (
    Proof(
        "kill_latch", "A halt ends at the host's word alone",
        "G0, G2, G22",
        "The state leaves HALTED only at the host's word with the nonce of this halt, which no halt before it had, and "
        "the hash of the limits in force, and only to DISARMED; after a kill by register or pin it is HALTED until "
        "then; causes stay told.",
        TradingState, _latch, depth=4, cover_depth=20,
        assumes="The word of a command stands from the cycle before its strobe on, as the register bank makes it."),
    Proof(
        "reset_blocks", "Nothing trades before it is armed",
        "G0, G2, G19, G21",
        "Nothing trades before it was armed, with a session, a feed and the hash of the limits in force; REDUCING "
        "comes from ACTIVE alone, and ACTIVE from DISARMED by arming alone. What leaves unapproved (G21), a loss (G19) "
        "or a commit that is refused (G2) halts in the next cycle, and a warning of a loss ends ACTIVE.",
        TradingState, _reset, depth=3, cover_depth=8),
    Proof(
        "dead_man", "No heartbeat counts longer than the limit",
        "G1",
        "The host counts as alive for deadman_cycles after a heartbeat at most, and only after one that was the last "
        "value plus one; with no limit it never does; in the cycle after it does not, trading has ended.",
        TradingState, _deadman, depth=3, cover_depth=16),
    Proof(
        "quote_needs_state", "No quote starts without state, heartbeat, token, or after a kill",
        "G0, G1, G14, G22",
        "No quote starts unless the state is ACTIVE or REDUCING, the host alive, a token of the session there; none "
        "from the cycle after a kill was written on, and none in the very cycle in which the pin says so, until the "
        "halt is cleared.",
        lambda: TickPath(2), _quotes, depth=3, cover_depth=12, cut=_MARKET),
)

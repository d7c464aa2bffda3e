# amaranth: UnusedElaboratable=no
"""The TCP session: what may be sent, and what is acknowledged."""

from amaranth.hdl import Assert, Assume, Cat, Cover

from hdl.order.session import LOADS, TcpSession
from hdl.order.templates import QUOTE_SIZE
from tests.proof.obligation import Proof, before

RING = 8192
_APART = 4      # cycles from something that is sent, or judged, to the next: frames are much longer


def _session():
    return TcpSession(quote_size=QUOTE_SIZE, ring_size=RING)


def _past(m, value, name, cycles):
    """``value`` in this cycle and in so many before it."""
    out = [value]
    for n in range(cycles):
        out.append(before(m, out[-1], f"{name}_{n}"))
    return out


def _hand_over(m, session):
    """Numbers come while the session is not filled, which ends with a hand-over."""
    enabled = before(m, session.enable, "enable")
    m.d.comb += [
        Assume(~session.load.any() | ~session.filled), Assume(~enabled | ~session.filled),
        Assume(session.filled | enabled | ~before(m, session.filled, "filled") | ~session.status.session_up),
    ]


def _room(m, session, _):
    _hand_over(m, session)
    nxt, oldest = session.status.snd_nxt, session.oldest
    begins = before(m, session.restart, "restart")
    unacknowledged = (nxt - oldest)[:32]
    sent = _past(m, session.sent, "sent", _APART)
    grown = (oldest - before(m, oldest, "oldest"))[:32]
    m.d.comb += [
        # The ring: what it keeps begins no later than what comes next, goes on only, and anew with a session.
        Assume(~unacknowledged[-1]), Assume((grown >> 16 == 0) | begins), Assume(~begins | (oldest == nxt)),
        # The port: one frame after the other.
        Assume(~session.sent | ~Cat(sent[1:]).any()),
    ]
    recent = Cat(sent).any()
    fits = unacknowledged + QUOTE_SIZE <= RING
    m.d.comb += [
        Assert(recent | ~session.room | fits),
        Cover(session.room & (unacknowledged + QUOTE_SIZE == RING)), Cover(session.room & (nxt < oldest)),
        Cover(~session.room & session.status.session_up & session.filled & ~fits & before(m, session.room, "room")),
    ]


def _received(m, session, _):
    _hand_over(m, session)
    segment, status = session.segment, session.status
    judged = _past(m, segment.valid, "judged", 2 * _APART)
    m.d.comb += [Assume(~segment.valid | ~Cat(judged[1:]).any()), Assume(segment.length <= 1460)]
    stands = [(segment.seq, value) for value in _past(m, segment.seq, "seq", _APART)]
    stands += [(segment.length, value) for value in _past(m, segment.length, "length", _APART - 1)]
    m.d.comb += [Assume(~segment.valid | (now == then)) for now, then in stands]
    m.d.comb += [Assume(~segment.valid | ~load.any()) for load in _past(m, session.load, "load", _APART)]
    given = segment.length - session.trim
    rcv_nxt, had = status.rcv_nxt, before(m, status.rcv_nxt, "rcv_nxt")
    delivered, amount = before(m, session.deliver, "deliver"), before(m, given[:12], "given")
    loaded = before(m, session.load[LOADS.index("init_rcv_nxt")], "loaded")
    ends, first = (segment.seq + segment.length)[:32], (segment.seq + session.trim)[:32]
    m.d.comb += [
        # The number goes on with what is given to the host and the gate, by as much as that, and begins with it.
        Assert((rcv_nxt == had) | delivered | loaded),
        Assert(~delivered | loaded | (rcv_nxt == (had + amount)[:32])),
        Assert(~session.deliver | ((first == rcv_nxt) & (session.trim < segment.length) & session.buffered)),
        Cover(session.deliver & (session.trim > 3)), Cover(session.deliver & (ends < segment.seq)),
        Cover(segment.valid & ~session.deliver & (first == rcv_nxt) & status.session_up & session.filled),
    ]


PROOFS = (
    Proof(
        "ring_holds", "No byte is overwritten that is not acknowledged",
        "session",
        "While the port may send a quote, its bytes fit the ring behind all that is kept there: from the oldest "
        "segment that is not acknowledged as a whole to the quote's last byte there are never more than the ring has, "
        "wherever the numbers wrap. The quote after that cannot start before that is known.",
        _session, _room, depth=8, cover_depth=16, cut=("dut.retransmitter",),
        assumes="The ring's oldest byte does not lie beyond the next one to be sent and goes on by less than 64 KiB a "
                "cycle; frames start more than four cycles apart; a hand-over's numbers come while the session stands "
                "still."),
    Proof(
        "received_once", "Nothing is acknowledged that was not given on, and nothing is given on twice",
        "session",
        "The next expected number goes on only when bytes are given to the host and the gate, by exactly as many as "
        "they are given: those of a segment from that number on, without what was received before, wherever the "
        "numbers wrap.",
        _session, _received, depth=10, cover_depth=16, cut=("dut.retransmitter",),
        assumes="A segment's numbers hold from four cycles before its verdict on and its length from three; verdicts "
                "are more than eight cycles apart; segments have at most 1,460 bytes; a hand-over's numbers come while "
                "the session stands still."),
)

"""What a soak finds wrong with the frames of the board."""

from types import SimpleNamespace

from hdl.layout import net
from sim.golden.session import Connection, tcp_frame
from sim.soak.run import _acknowledged_unseen, _Stream
from sim.soak.segments import segment_of

PATH = Connection(0x0200_0000_0001, 0x0200_0000_0002, 0x0A00_0001, 0x0A00_0002, 4000, 4210)


def frame(seq, ack=0, payload=b"", flags=net.TCP_ACK):
    return tcp_frame(PATH, seq, ack, 4096, flags, payload)


def test_what_had_not_come_must_not_be_acknowledged():
    """Across the wrap, with a hole that is filled by a longer segment, and one that came spoilt."""
    last = 0xFFFF_FFFF
    spoilt = bytearray(frame(8, payload=b"more"))
    spoilt[-1] ^= 1
    came = [(1, frame(last - 1, flags=net.TCP_SYN | net.TCP_ACK)), (2, frame(last, payload=b"abc")),
            (4, frame(5, payload=b"zz")), (6, frame(2, payload=b"defgh")), (8, bytes(spoilt))]
    right = [(3, frame(1, 2)), (5, frame(1, 2)), (7, frame(1, 7)), (9, frame(1, 7))]
    assert _acknowledged_unseen(SimpleNamespace(came=came, sent=right)) == []
    wrong = [(3, frame(1, 3)), (5, frame(1, 3)), (9, frame(1, 12))]
    assert _acknowledged_unseen(SimpleNamespace(came=came, sent=wrong)) == [
        "3 was acknowledged, 2 had not come", "12 was acknowledged, 7 had not come"]


def test_the_stream_of_what_was_sent():
    message = bytes(32)
    stream = _Stream()
    for each in (frame(10, payload=message), frame(10, payload=message), frame(42, payload=message)):
        stream.take(each)
    assert (bytes(stream.data), stream.faults, stream.quotes) == (2 * message, [], 0)
    stream.take(frame(10, payload=b"x" * 32))
    stream.take(frame(80, payload=message))
    assert stream.faults == ["segment 10 was sent again as something else", "segment 80 was sent, 74 was expected"]


def test_what_is_no_segment():
    assert segment_of(bytes(60)) is None
    assert segment_of(frame(1)[:50]) is None
    assert segment_of(frame(7, 9, b"abc")) == (7, 9, b"abc")

"""Receive side of the order port: is this frame a segment of our connection, and is it whole?"""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from hdl.layout import net
from hdl.mac.stream import RxBytes
from hdl.memory import BLOCK, LANE_BITS, LANES
from hdl.order.statics import Expected

__all__ = ["EXPECTED", "Segment", "SegmentReceiver"]

#: A segment of the connection with both checksums right.
#:
#: Members
#: -------
#: valid : Out(1)
#:     Strobe, one cycle after the end of the frame. The other members hold from three cycles before it.
#: seq, ack : Out(32)
#: window, length : Out(16)
#:     Peer's window and bytes of payload.
#: fin, syn, rst, has_ack : Out(1)
#:     Flags of the TCP header.
Segment = Signature({
    "valid": Out(1),
    "seq": Out(32), "ack": Out(32), "window": Out(16), "length": Out(16),
    "fin": Out(1), "syn": Out(1), "rst": Out(1), "has_ack": Out(1),
})

FLAG_BITS = {"fin": net.TCP_FIN, "syn": net.TCP_SYN, "rst": net.TCP_RST, "has_ack": net.TCP_ACK}
FRAGMENT_MASK = 0x3FFF      # more fragments, and the offset
FCS_DELAY = net.FCS_SIZE

_ETH, _IP, _TCP = 0, net.ETHERNET.size, net.ETHERNET.size + net.IPV4.size
#: Fields that a frame of the session has: start of the header, field, what is expected there (the name of its register
#: if only the host knows), bits that count.
_CHECKS = (
    (_ETH, net.ETHERNET["dst"], "local_mac", ~0),
    (_ETH, net.ETHERNET["ethertype"], net.ETHERTYPE_IPV4, ~0),
    (_IP, net.IPV4["version_ihl"], net.IPV4_NO_OPTIONS, ~0),
    (_IP, net.IPV4["flags_fragment"], 0, FRAGMENT_MASK),
    (_IP, net.IPV4["protocol"], net.PROTOCOL_TCP, ~0),
    (_IP, net.IPV4["src"], "peer_ip", ~0),
    (_IP, net.IPV4["dst"], "local_ip", ~0),
    (_TCP, net.TCP["src_port"], "peer_port", ~0),
    (_TCP, net.TCP["dst_port"], "local_port", ~0),
)


def _bytes_of(field):
    """(place in the field, its byte's index, 0 the least significant): all fields are big endian."""
    return ((n, field.size - 1 - n) for n in range(field.size))


#: Bytes that are written to the receiver.
EXPECTED = tuple(Expected(register, index, base + field.offset + n)
                 for base, field, register, _ in _CHECKS if isinstance(register, str) for n, index in _bytes_of(field))


def _span(base, field):
    return range(base + field.offset, base + field.end)


# What the receiver knows of each place in a frame comes from a memory, a row for each place: the byte that is expected
# there and the bits that count, which are compared when the byte is BEHIND places old, and marks of the place that is
# AHEAD places on. The place is counted to LAST, whose marks hold for all that follows.
BEHIND, AHEAD, LAST = 3, 2, 48
LENGTH_END, DATA_OFFSET_END = _IP + net.IPV4["total_length"].end, _TCP + net.TCP["data_offset"].end
DECIDE = _TCP + net.TCP["flags"].end
_END = 1 << 16
#: Places with a mark, as ranges.
_MARKS = {
    **{name: [_span(_TCP, net.TCP[name])] for name in ("seq", "ack", "window", "data_offset", "flags")},
    "total_length": [_span(_IP, net.IPV4["total_length"])],
    "behind_length": [range(LENGTH_END, _END)],
    "delay_filled": [range(FCS_DELAY, _END)],
    "in_ip": [range(_IP, _TCP)],
    # TCP's pseudo header: addresses are taken as they pass; the protocol and "total length - IPv4 header" are put in as
    # total length (as it passes) + protocol - header, modulo 0xFFFF.
    "in_tcp_sum": [*(_span(_IP, net.IPV4[name]) for name in ("total_length", "src", "dst")), range(_TCP, _END)],
    "tcp_begins": [range(_TCP, _TCP + 1)],
    "header_length": [range(DATA_OFFSET_END, DATA_OFFSET_END + 1)],
    "behind_offset": [range(DATA_OFFSET_END + 1, _END)],
    # The kind is settled when the flags have passed; by then the delay has let out no byte of any payload.
    "decide": [range(DECIDE, DECIDE + 1)],
}
assert max(base + field.end for base, field, *_ in _CHECKS) + BEHIND <= DECIDE
# Nothing but the byte that is expected is ever written: it has a lane to itself.
_ROW = data.StructLayout({"expected": 8, "_": LANE_BITS - 8, "counts": 8, "destination": 1, **dict.fromkeys(_MARKS, 1)})


def _rows():
    """Content of the memory at first. The byte of row 0 is none: a frame's first place is row 1."""
    rows = [{} for _ in range(LAST + 1)]
    for base, field, value, mask in _CHECKS:
        for n, index in _bytes_of(field):
            row = rows[base + field.offset + n + 1]
            row |= {"counts": mask >> 8 * index & 0xFF, "destination": int(field is net.ETHERNET["dst"])}
            if not isinstance(value, str):
                row |= {"expected": value >> 8 * index & 0xFF}
    for place, row in enumerate(rows):
        row |= {name: int(any(place + AHEAD in each for each in where)) for name, where in _MARKS.items()}
    # The first bytes of a frame find row 0; all of those behind LAST find the same.
    assert not any(rows[0].values())
    assert all(each.stop <= LAST + AHEAD or each.stop == _END for where in _MARKS.values() for each in where)
    return [_ROW.const(row).as_bits() for row in rows]


class SegmentReceiver(wiring.Component):
    """Sorts the frames of the order port and hands their bytes on, to be kept or thrown away when the verdict is in.

    A frame belongs to the session if ``established`` is 1 from its first byte until its headers have passed, it is
    addressed to our MAC, and it is IPv4 without options and not a fragment, TCP, from the peer's address and port to
    ours. Its payload is handed on, but for the first bytes of it that have been received before. Of any other frame
    addressed to us or to all, and of a session frame with FIN or RST, the whole frame without its FCS is handed on.
    Multicast and frames of others are let go.

    Bytes are handed on four cycles after they arrive, so that the FCS never is.

    **Timing**: with ``rx.eof`` in cycle ``E`` the verdict (exactly one of ``segment.valid``, ``frame``, ``bad``,
    ``ignored``) is in ``E + 1``.

    **Bad input**: ``bad`` for a frame that the MAC rejects, and for a session frame with a wrong IPv4 or TCP checksum
    or lengths that contradict each other. A frame cut at any byte is bad or, if its FCS is right nevertheless, what it
    then is.

    Members
    -------
    rx : In(RxBytes)
        Not valid in the first two cycles after reset, nor in two cycles at least between two frames.
    fill : In(1), fill_position : In(6), fill_byte : In(8)
        Write a byte of :data:`EXPECTED`. Memories keep their content through a reset.
    established : In(1)
        The fabric owns the connection, and all of :data:`EXPECTED` is of it.
    trim : In(11)
        So many bytes of the payload are not handed on; all ones: none is. Read from four cycles after the sequence
        number on until the end of the frame.
    data : Out(8), write : Out(1)
        A byte to keep for now.
    restart : Out(1)
        Forget what has been written of this frame: its headers are not handed on. Never together with ``write``.
    session : Out(1)
        What is being written is payload of the session. Holds to ``rx.eof``.
    segment : Out(Segment)
        Verdict. With ``fin`` or ``rst`` the whole frame was written.
    frame : Out(1)
        Verdict: the frame goes to the slow path.
    bad : Out(1)
        Verdict: as above.
    ignored : Out(1)
        Verdict: a good frame for somebody else.
    """

    rx: In(RxBytes)
    fill: In(1)
    fill_position: In(6)
    fill_byte: In(8)
    established: In(1)
    trim: In(11)
    data: Out(8)
    write: Out(1)
    restart: Out(1)
    session: Out(1)
    segment: Out(Segment)
    frame: Out(1)
    bad: Out(1)
    ignored: Out(1)

    def elaborate(self, platform):
        m = Module()
        rx, segment = self.rx, self.segment

        # What is known of this place in the frame stands behind the memory's second register by the time of its byte:
        # bytes come without a gap. Between frames it is asked for row 0.
        place = Signal(range(LAST + 1))
        with m.If(~rx.valid):
            m.d.sync += place.eq(0)
        with m.Elif(place != LAST):
            m.d.sync += place.eq(place + 1)
        m.submodules.places = places = Memory(
            shape=LANES * LANE_BITS, depth=1 << len(place), init=_rows(), attrs=BLOCK)
        write, read = places.write_port(granularity=LANE_BITS), places.read_port(domain="comb")
        fetched, here = (Signal(_ROW, name=name, reset_less=True) for name in ("fetched", "here"))
        m.d.comb += [write.addr.eq(self.fill_position + 1), write.data.eq(self.fill_byte), write.en[0].eq(self.fill),
                     read.addr.eq(Mux(rx.valid, place, 0))]
        m.d.sync += [fetched.eq(read.data), here.eq(fetched)]

        # Header checks, of a byte that has been delayed.
        delay = [Signal(9, name=f"delay_{n}") for n in range(FCS_DELAY)]
        late = delay[BEHIND - 1][:8]
        for_me = Signal(init=1)
        for_all = Signal(init=1)
        ours = Signal(init=1)           # of the connection
        wrong = Signal()
        m.d.comb += wrong.eq(((late ^ here.expected) & here.counts).any())
        with m.If(rx.eof):
            m.d.sync += [for_me.eq(1), for_all.eq(1), ours.eq(1)]
        with m.Elif(rx.valid):
            with m.If(wrong | ~self.established):
                m.d.sync += ours.eq(0)
            with m.If(here.destination & wrong):
                m.d.sync += for_me.eq(0)
            with m.If(here.destination & (late != 0xFF)):
                m.d.sync += for_all.eq(0)

        # Fields that are kept. `left` holds the length of the datagram and counts its bytes from then on.
        left = Signal(16)
        data_offset = Signal(4)
        flags = Signal(8)

        def capture(mark, target, value=rx.data):
            with m.If(rx.valid & mark):
                m.d.sync += target.eq(Cat(value, target))

        # Where the datagram ends, and whether as many bytes as an FCS have come after it. It has more bytes than this
        # much of its header: a length that says otherwise is wrong, and its end never comes.
        in_datagram = Signal(init=1)            # this byte belongs to it
        beyond = Signal(FCS_DELAY)
        with m.If(rx.valid & here.behind_length):
            m.d.sync += left.eq(left - 1)
        capture(here.total_length, left)
        capture(here.seq, segment.seq)
        capture(here.ack, segment.ack)
        capture(here.window, segment.window)
        capture(here.data_offset, data_offset, rx.data[4:])
        capture(here.flags, flags)
        m.d.comb += [getattr(segment, name).eq((flags & bit).any()) for name, bit in FLAG_BITS.items()]
        with m.If(rx.eof):
            m.d.sync += [in_datagram.eq(1), beyond.eq(0)]
        with m.Elif(rx.valid):
            with m.If(here.behind_length & (left == LENGTH_END + 1 - _IP)):
                m.d.sync += in_datagram.eq(0)
            with m.If(~in_datagram):
                m.d.sync += beyond.eq(Cat(1, beyond))

        # Sums of 16-bit words, a byte a cycle; all headers before TCP's payload have even length. The two bytes of a
        # sum change places with every byte of the frame, so that each is added to the lower one; the carry of each goes
        # into the other one with the next byte. Three bytes after the last addend none is left, and 0xFFFF is right.
        def sum_ok(addend, init):
            """1 if the sum of the frame's addends is right."""
            low, high = Signal(9, init=init & 0xFF), Signal(9, init=init >> 8)
            with m.If(rx.eof):
                m.d.sync += [low.eq(init & 0xFF), high.eq(init >> 8)]
            with m.Elif(rx.valid):
                m.d.sync += [low.eq(high[:8] + addend + low[8]), high.eq(low[:8] + high[8])]
            return (low == 0xFF) & (high == 0xFF)

        sums_ok = Signal()
        m.d.sync += sums_ok.eq(sum_ok(Mux(here.in_ip, rx.data, 0), 0)
                               & sum_ok(Mux(here.in_tcp_sum & in_datagram, rx.data, 0),
                                        net.PROTOCOL_TCP + 0xFFFF - net.IPV4.size))

        # Hand on, delayed by the length of an FCS.
        payload = Signal()              # this byte is payload
        length = Signal(11)             # of the payload so far; longer frames are bad
        header_left = Signal(6)         # bytes of the TCP header still to come
        length_ok = Signal()            # the datagram has all of that header
        in_header = Signal()
        with m.If(rx.valid):
            with m.If(here.header_length):
                # This byte is one of the header; 4 * data_offset - 14 follow before the payload.
                m.d.sync += [header_left.eq(Cat(Const(2, 2), data_offset - 4)), length_ok.eq(in_datagram)]
            with m.Elif(in_header):
                m.d.sync += header_left.eq(header_left - 1)
                with m.If(~in_datagram):
                    m.d.sync += length_ok.eq(0)
            with m.If(here.tcp_begins):
                m.d.sync += length.eq(0)
            with m.Elif(payload):
                m.d.sync += length.eq(length + 1)
        m.d.comb += [in_header.eq(header_left.any()), payload.eq(here.behind_offset & ~in_header & in_datagram),
                     segment.length.eq(length)]
        old_left = Signal.like(self.trim)       # bytes of the payload to come that were received before
        new = Signal()                  # this byte is payload, and none of those
        m.d.comb += new.eq(payload & (old_left == 0))
        with m.If(rx.valid & payload):
            m.d.sync += old_left.eq(old_left - (old_left != 0))
        with m.Elif(~payload):
            m.d.sync += old_left.eq(self.trim)

        tagged = Signal()               # a segment of the session
        m.d.sync += self.restart.eq(0)
        with m.If(rx.valid):
            m.d.sync += delay[0].eq(Cat(rx.data, new))
            m.d.sync += [later.eq(earlier) for earlier, later in pairwise(delay)]
        with m.If(rx.eof):
            m.d.sync += [tagged.eq(0), self.session.eq(0), header_left.eq(0)]
        with m.Elif(rx.valid):
            with m.If(here.decide):
                is_session = ours & self.established
                is_closing = (flags & (net.TCP_FIN | net.TCP_RST)).any()
                m.d.sync += [tagged.eq(is_session), self.session.eq(is_session & ~is_closing),
                             self.restart.eq(is_session & ~is_closing)]
        m.d.comb += [
            self.data.eq(delay[-1][:8]),
            self.write.eq(rx.valid & here.delay_filled & Mux(self.session, delay[-1][8], 1)),
        ]

        # The verdict.
        good = rx.eof & rx.ok
        whole = sums_ok & length_ok & (data_offset >= net.TCP.size // 4) & beyond[-1]
        m.d.sync += [
            segment.valid.eq(good & tagged & whole),
            self.frame.eq(good & ~tagged & (for_me | for_all)),
            self.bad.eq(rx.eof & (~rx.ok | (tagged & ~whole))),
            self.ignored.eq(good & ~tagged & ~for_me & ~for_all),
        ]
        return m

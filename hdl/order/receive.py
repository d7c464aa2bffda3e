"""Receive side of the order port: is this frame a segment of our connection, and is it whole?"""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.layout import net
from hdl.mac.stream import RxBytes

__all__ = ["Connection", "Segment", "SegmentReceiver"]

#: Addresses of the connection. All constant while the session is up.
#:
#: Members
#: -------
#: local_mac, peer_mac : Out(48)
#: local_ip, peer_ip : Out(32)
#: local_port, peer_port : Out(16)
Connection = Signature({
    "local_mac": Out(48), "peer_mac": Out(48),
    "local_ip": Out(32), "peer_ip": Out(32),
    "local_port": Out(16), "peer_port": Out(16),
})

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


class SegmentReceiver(wiring.Component):
    """Sorts the frames of the order port and hands their bytes on, to be kept or thrown away when the verdict is in.

    A frame belongs to the session if ``established`` is 1 when its headers have passed, it is addressed to our MAC,
    and it is IPv4 without options and not a fragment, TCP, from the peer's address and port to ours. Its payload is
    handed on. Of any other frame addressed to us or to all, and of a session frame with FIN or RST, the whole frame
    without its FCS is handed on. Multicast and frames of others are let go.

    Bytes are handed on four cycles after they arrive, so that the FCS never is.

    **Timing**: with ``rx.eof`` in cycle ``E`` the verdict (exactly one of ``segment.valid``, ``frame``, ``bad``,
    ``ignored``) is in ``E + 1``.

    **Bad input**: ``bad`` for a frame that the MAC rejects, and for a session frame with a wrong IPv4 or TCP checksum
    or lengths that contradict each other. A frame cut at any byte is bad or, if its FCS is right nevertheless, what it
    then is.

    Members
    -------
    rx : In(RxBytes)
        Not valid in the first cycle after reset.
    connection : In(Connection)
    established : In(1)
        The fabric owns the connection.
    data : Out(8), write : Out(1)
        A byte to keep for now.
    restart : Out(1)
        Forget what has been written of this frame: its headers are not handed on. Never together with ``write``.
    session : Out(1)
        What is being written is payload of the session. Holds to ``rx.eof``.
    segment : Out(Segment)
    frame : Out(1)
        Verdict: the frame goes to the slow path.
    closing : Out(1)
        Verdict, with ``frame``: it is a segment of the session, both checksums right, with FIN or RST.
    bad : Out(1)
        Verdict: as above.
    ignored : Out(1)
        Verdict: a good frame for somebody else.
    """

    rx: In(RxBytes)
    connection: In(Connection)
    established: In(1)
    data: Out(8)
    write: Out(1)
    restart: Out(1)
    session: Out(1)
    segment: Out(Segment)
    frame: Out(1)
    closing: Out(1)
    bad: Out(1)
    ignored: Out(1)

    def elaborate(self, platform):
        m = Module()
        rx, con = self.rx, self.connection
        eth, ip, tcp = 0, net.ETHERNET.size, net.ETHERNET.size + net.IPV4.size
        headers = tcp + net.TCP.size
        segment = self.segment

        # The place of this byte in the frame, as a one that moves on with every byte until the headers have passed, and
        # what is a question of before and after, as flags.
        at = Signal(headers, init=1)
        with m.If(rx.eof):
            m.d.sync += at.eq(1)
        with m.Elif(rx.valid):
            m.d.sync += at.eq(at << 1)

        def after(position):
            """1 for the bytes behind this position."""
            flag = Signal(name=f"after_{position}")
            with m.If(rx.eof):
                m.d.sync += flag.eq(0)
            with m.Elif(rx.valid & at[position]):
                m.d.sync += flag.eq(1)
            return flag

        # Header checks: at each position, the byte that is expected, the bits that count, and the flags that fall.
        for_me = Signal(init=1)
        for_all = Signal(init=1)
        ours = Signal(init=1)           # of the connection
        checks = {}

        def check(base, field, value, mask=None):
            mask = (1 << 8 * field.size) - 1 if mask is None else mask
            value = Value.cast(value)
            for n in range(field.size):
                shift = 8 * (field.size - 1 - n)
                if mask >> shift & 0xFF:
                    checks[base + field.offset + n] = (value[shift:shift + 8], mask >> shift & 0xFF)

        check(eth, net.ETHERNET["dst"], con.local_mac)
        check(eth, net.ETHERNET["ethertype"], net.ETHERTYPE_IPV4)
        check(ip, net.IPV4["version_ihl"], net.IPV4_NO_OPTIONS)
        check(ip, net.IPV4["flags_fragment"], 0, FRAGMENT_MASK)
        check(ip, net.IPV4["protocol"], net.PROTOCOL_TCP)
        check(ip, net.IPV4["src"], con.peer_ip)
        check(ip, net.IPV4["dst"], con.local_ip)
        check(tcp, net.TCP["src_port"], con.peer_port)
        check(tcp, net.TCP["dst_port"], con.local_port)

        # What is expected is looked up a byte ahead: bytes of a frame come without a gap.
        expected = Signal(8)
        counts = Signal(8)
        wrong = Signal()
        m.d.comb += wrong.eq(((rx.data ^ expected) & counts).any())
        ahead = [(at[position - 1], *check) for position, check in checks.items() if position]
        with m.If(rx.valid):
            m.d.sync += [
                expected.eq(reduce(or_, (Mux(here, value, 0) for here, value, _ in ahead))),
                counts.eq(reduce(or_, (Mux(here, mask, 0) for here, _, mask in ahead))),
            ]
        with m.Else():
            m.d.sync += [expected.eq(checks[0][0]), counts.eq(checks[0][1])]
        in_dst = ~after(net.ETHERNET["dst"].end - 1)
        with m.If(rx.eof):
            m.d.sync += [for_me.eq(1), for_all.eq(1), ours.eq(1)]
        with m.Elif(rx.valid):
            with m.If(wrong):
                m.d.sync += ours.eq(0)
            with m.If(in_dst & wrong):
                m.d.sync += for_me.eq(0)
            with m.If(in_dst & (rx.data != 0xFF)):
                m.d.sync += for_all.eq(0)

        # Fields that are kept. `left` holds the length of the datagram and counts its bytes from then on.
        left = Signal(16)
        data_offset = Signal(4)
        flags = Signal(8)

        def capture(base, field, target, value=rx.data):
            here = at[base + field.offset:base + field.end].any()
            with m.If(rx.valid & here):
                m.d.sync += target.eq(Cat(value, target))

        # Where the datagram ends, and whether as many bytes as an FCS have come after it. It has more bytes than this
        # much of its header: a length that says otherwise is wrong, and its end never comes.
        length_end = ip + net.IPV4["total_length"].end
        counting = after(length_end - 1)
        in_datagram = Signal(init=1)            # this byte belongs to it
        beyond = Signal(FCS_DELAY)
        with m.If(rx.valid & counting):
            m.d.sync += left.eq(left - 1)
        capture(ip, net.IPV4["total_length"], left)
        capture(tcp, net.TCP["seq"], segment.seq)
        capture(tcp, net.TCP["ack"], segment.ack)
        capture(tcp, net.TCP["window"], segment.window)
        capture(tcp, net.TCP["data_offset"], data_offset, rx.data[4:])
        capture(tcp, net.TCP["flags"], flags)
        m.d.comb += [getattr(segment, name).eq((flags & bit).any()) for name, bit in FLAG_BITS.items()]
        with m.If(rx.eof):
            m.d.sync += [in_datagram.eq(1), beyond.eq(0)]
        with m.Elif(rx.valid):
            with m.If(counting & (left == length_end + 1 - ip)):
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

        # TCP's pseudo header: addresses are taken as they pass; the protocol and "total length - IPv4 header" are put
        # in as total length (as it passes) + protocol - header, modulo 0xFFFF.
        pseudo = [ip + net.IPV4[name].offset + n for name in ("total_length", "src", "dst")
                  for n in range(net.IPV4[name].size)]
        after_ip = after(tcp - 1)
        in_ip = after(ip - 1) & ~after_ip
        in_pseudo = Signal()            # looked up a byte ahead
        m.d.sync += in_pseudo.eq(rx.valid & Cat(at[n - 1] for n in pseudo).any())
        in_tcp = (after_ip | in_pseudo) & in_datagram
        sums_ok = Signal()
        m.d.sync += sums_ok.eq(sum_ok(Mux(in_ip, rx.data, 0), 0)
                               & sum_ok(Mux(in_tcp, rx.data, 0), net.PROTOCOL_TCP + 0xFFFF - net.IPV4.size))

        # Hand on, delayed by the length of an FCS.
        payload = Signal()              # this byte is payload
        length = Signal(11)             # of the payload so far; longer frames are bad
        header_left = Signal(6)         # bytes of the TCP header still to come
        length_ok = Signal()            # the datagram has all of that header
        in_header = Signal()
        offset_end = tcp + net.TCP["data_offset"].end
        with m.If(rx.valid):
            with m.If(at[offset_end]):
                # This byte is one of the header; 4 * data_offset - 14 follow before the payload.
                m.d.sync += [header_left.eq(Cat(Const(2, 2), data_offset - 4)), length_ok.eq(in_datagram)]
            with m.Elif(in_header):
                m.d.sync += header_left.eq(header_left - 1)
                with m.If(~in_datagram):
                    m.d.sync += length_ok.eq(0)
            with m.If(at[tcp]):
                m.d.sync += length.eq(0)
            with m.Elif(payload):
                m.d.sync += length.eq(length + 1)
        m.d.comb += [in_header.eq(header_left.any()), payload.eq(after(offset_end) & ~in_header & in_datagram),
                     segment.length.eq(length)]

        # The kind is settled when the flags have passed; by then the delay has let out no byte of any payload.
        decide = tcp + net.TCP["flags"].end
        tagged = Signal()               # a segment of the session
        closes = Signal()
        delay = [Signal(9, name=f"delay_{n}") for n in range(FCS_DELAY)]
        filled = after(FCS_DELAY - 1)
        m.d.sync += self.restart.eq(0)
        with m.If(rx.valid):
            m.d.sync += delay[0].eq(Cat(rx.data, payload))
            m.d.sync += [later.eq(earlier) for earlier, later in pairwise(delay)]
        with m.If(rx.eof):
            m.d.sync += [tagged.eq(0), closes.eq(0), self.session.eq(0), header_left.eq(0)]
        with m.Elif(rx.valid):
            with m.If(at[decide]):
                is_session = ours & self.established
                is_closing = (flags & (net.TCP_FIN | net.TCP_RST)).any()
                m.d.sync += [tagged.eq(is_session), closes.eq(is_session & is_closing),
                             self.session.eq(is_session & ~is_closing)]
                m.d.sync += self.restart.eq(is_session & ~is_closing)
        m.d.comb += [
            self.data.eq(delay[-1][:8]),
            self.write.eq(rx.valid & filled & Mux(self.session, delay[-1][8], 1)),
        ]

        # The verdict.
        good = rx.eof & rx.ok
        whole = sums_ok & length_ok & (data_offset >= net.TCP.size // 4) & beyond[-1]
        m.d.sync += [
            segment.valid.eq(good & self.session & whole),
            self.closing.eq(good & closes & whole),
            self.frame.eq(good & ((closes & whole) | (~tagged & (for_me | for_all)))),
            self.bad.eq(rx.eof & (~rx.ok | (tagged & ~whole))),
            self.ignored.eq(good & ~tagged & ~for_me & ~for_all),
        ]
        return m

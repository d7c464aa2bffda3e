"""Receive side of the order port: is this frame a segment of our connection, and is it whole?"""

from itertools import pairwise

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

        # Bytes of the frame so far. Stops above every position that is compared with it.
        index = Signal(range(headers + 2))
        with m.If(rx.eof):
            m.d.sync += index.eq(0)
        with m.Elif(rx.valid & (index != headers + 1)):
            m.d.sync += index.eq(index + 1)

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
        with m.If(rx.valid):
            m.d.sync += counts.eq(0)
            with m.Switch(index):
                for position, (value, mask) in checks.items():
                    if position:
                        with m.Case(position - 1):
                            m.d.sync += [expected.eq(value), counts.eq(mask)]
        with m.Else():
            m.d.sync += [expected.eq(checks[0][0]), counts.eq(checks[0][1])]
        in_dst = index < net.ETHERNET["dst"].end
        with m.If(rx.eof):
            m.d.sync += [for_me.eq(1), for_all.eq(1), ours.eq(1)]
        with m.Elif(rx.valid):
            with m.If(wrong):
                m.d.sync += ours.eq(0)
            with m.If(in_dst & wrong):
                m.d.sync += for_me.eq(0)
            with m.If(in_dst & (rx.data != 0xFF)):
                m.d.sync += for_all.eq(0)

        # Fields that are kept.
        total_length = Signal(16)
        data_offset = Signal(4)
        flags = Signal(8)

        def capture(base, field, target, take=None):
            for n in range(field.size):
                with m.Case(base + field.offset + n):
                    m.d.sync += target.eq(Cat(rx.data, target)[:len(target)] if take is None else take(rx.data))

        with m.If(rx.valid):
            with m.Switch(index):
                capture(ip, net.IPV4["total_length"], total_length)
                capture(tcp, net.TCP["seq"], segment.seq)
                capture(tcp, net.TCP["ack"], segment.ack)
                capture(tcp, net.TCP["window"], segment.window)
                capture(tcp, net.TCP["data_offset"], data_offset, lambda byte: byte[4:])
                capture(tcp, net.TCP["flags"], flags)
        m.d.comb += [getattr(segment, name).eq((flags & bit).any()) for name, bit in FLAG_BITS.items()]
        m.d.sync += segment.length.eq(total_length - net.IPV4.size - (data_offset << 2))
        length_ok = Signal()
        m.d.sync += length_ok.eq((data_offset >= net.TCP.size // 4)
                                 & (total_length >= net.IPV4.size + (data_offset << 2)))

        # Where the datagram ends: `left` bytes of it are still to come, `beyond` (at most 4) have come after it.
        length_end = ip + net.IPV4["total_length"].end
        left = Signal(16)
        beyond = Signal(range(FCS_DELAY + 1))
        in_datagram = Signal()          # this byte belongs to it
        m.d.comb += in_datagram.eq((index <= length_end) | left.any())
        with m.If(rx.eof):
            m.d.sync += beyond.eq(0)
        with m.Elif(rx.valid):
            with m.If(index == length_end):
                m.d.sync += left.eq(Mux(total_length > length_end + 1 - ip, total_length - (length_end + 1 - ip), 0))
            with m.Elif(left.any()):
                m.d.sync += left.eq(left - 1)
            with m.If(~in_datagram & (beyond != FCS_DELAY)):
                m.d.sync += beyond.eq(beyond + 1)

        # Sums of 16-bit words with end-around carry, a byte a cycle. Words are aligned to the start of each header;
        # all headers before TCP's payload have even length, so one parity serves for all.
        parity = Signal()
        term = Signal(16)
        ip_sum = Signal(17)
        # TCP's pseudo header: addresses are taken as they pass; the protocol and "total length - IPv4 header" are put
        # in as total length (as it passes) + protocol - header, modulo 0xFFFF.
        tcp_init = net.PROTOCOL_TCP + 0xFFFF - net.IPV4.size
        tcp_sum = Signal(17, init=tcp_init)
        pseudo = [ip + net.IPV4[name].offset + n for name in ("total_length", "src", "dst")
                  for n in range(net.IPV4[name].size)]
        in_ip = (index >= ip) & (index < tcp)
        in_pseudo = Signal()
        with m.Switch(index):
            with m.Case(*pseudo):
                m.d.comb += in_pseudo.eq(1)
        m.d.comb += term.eq(Mux(parity, rx.data, Cat(Const(0, 8), rx.data)))
        with m.If(rx.eof):
            m.d.sync += [parity.eq(0), ip_sum.eq(0), tcp_sum.eq(tcp_init)]
        with m.Elif(rx.valid):
            m.d.sync += parity.eq(~parity)
            with m.If(in_ip):
                m.d.sync += ip_sum.eq(ip_sum[:16] + ip_sum[16] + term)
            with m.If(in_pseudo | ((index >= tcp) & in_datagram)):
                m.d.sync += tcp_sum.eq(tcp_sum[:16] + tcp_sum[16] + term)
        # Three registers from the last byte of the datagram to here, and the FCS takes four cycles and the end one.
        ip_folded = Signal(17)
        tcp_folded = Signal(17)
        sums_ok = Signal()
        m.d.sync += [
            ip_folded.eq(ip_sum[:16] + ip_sum[16]),
            tcp_folded.eq(tcp_sum[:16] + tcp_sum[16]),
            sums_ok.eq((ip_folded == 0xFFFF) & (tcp_folded == 0xFFFF)),
        ]

        # Hand on, delayed by the length of an FCS.
        payload = Signal()              # this byte is payload
        header_left = Signal(6)         # bytes of the TCP header still to come
        after_header = Signal()
        offset_end = tcp + net.TCP["data_offset"].end
        with m.If(rx.valid):
            with m.If(index == offset_end):
                # This byte is one of the header; so many follow before the payload.
                m.d.sync += header_left.eq((data_offset << 2) - (net.TCP["data_offset"].end + 1))
            with m.Elif(header_left.any()):
                m.d.sync += header_left.eq(header_left - 1)
        m.d.comb += [after_header.eq((index > offset_end) & ~header_left.any()),
                     payload.eq(after_header & in_datagram)]

        # The kind is settled when the flags have passed; by then the delay has let out no byte of any payload.
        decide = tcp + net.TCP["flags"].end
        decided = Signal()
        tagged = Signal()               # a segment of the session
        closes = Signal()
        delay = [Signal(9, name=f"delay_{n}") for n in range(FCS_DELAY)]
        filled = Signal(range(FCS_DELAY + 1))
        m.d.sync += self.restart.eq(0)
        with m.If(rx.valid):
            m.d.sync += delay[0].eq(Cat(rx.data, payload))
            m.d.sync += [later.eq(earlier) for earlier, later in pairwise(delay)]
        with m.If(rx.eof):
            m.d.sync += [filled.eq(0), decided.eq(0), tagged.eq(0), closes.eq(0), self.session.eq(0),
                         header_left.eq(0), left.eq(0)]
        with m.Elif(rx.valid):
            with m.If(filled != FCS_DELAY):
                m.d.sync += filled.eq(filled + 1)
            with m.If(index == decide):
                is_session = ours & self.established
                is_closing = (flags & (net.TCP_FIN | net.TCP_RST)).any()
                m.d.sync += [decided.eq(1), tagged.eq(is_session), closes.eq(is_session & is_closing),
                             self.session.eq(is_session & ~is_closing)]
                m.d.sync += self.restart.eq(is_session & ~is_closing)
        m.d.comb += [
            self.data.eq(delay[-1][:8]),
            self.write.eq(rx.valid & (filled == FCS_DELAY) & Mux(self.session, delay[-1][8], 1)),
        ]

        # The verdict.
        good = rx.eof & rx.ok
        whole = sums_ok & length_ok & (beyond == FCS_DELAY) & ~left.any()
        m.d.sync += [
            segment.valid.eq(good & self.session & whole),
            self.closing.eq(good & closes & whole),
            self.frame.eq(good & ((closes & whole) | (~tagged & (for_me | for_all)))),
            self.bad.eq(rx.eof & (~rx.ok | (tagged & ~whole))),
            self.ignored.eq(good & ~tagged & ~for_me & ~for_all),
        ]
        return m

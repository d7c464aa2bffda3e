"""Which received frames are packets of the feed, and where in them the payload is."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out, Signature

from hdl.layout import net
from hdl.mac.stream import RxBytes

__all__ = ["FeedMatch", "FeedPayload"]


#: UDP payload of a feed packet, byte by byte as it arrives, without back-pressure.
#:
#: Members
#: -------
#: data : Out(8), valid : Out(1)
#:     A byte of the payload. Within a packet ``valid`` is 1 in every cycle.
#: first : Out(1)
#:     With the first byte of the payload. Only ever 1 together with ``valid``.
#: last_expected : Out(1)
#:     With the byte that is the last one by the UDP length. Only ever 1 together with ``valid``. A frame that ends
#:     too early ends without it.
#: line : Out(1)
#:     0: line A, 1: line B. Holds from ``first`` to ``frame_end``.
#: payload_len : Out(16)
#:     Bytes of payload by the UDP length, at least 1. Holds from ``first`` to ``frame_end``.
#: frame_end : Out(1)
#:     Strobe behind the frame's last FCS byte, once for every ``first``, before the next one; ``valid`` is then 0.
#: frame_ok : Out(1)
#:     Only ever 1 together with ``frame_end``: the frame is good and held all of the payload.
FeedPayload = Signature({
    "data": Out(8),
    "valid": Out(1),
    "first": Out(1),
    "last_expected": Out(1),
    "line": Out(1),
    "payload_len": Out(16),
    "frame_end": Out(1),
    "frame_ok": Out(1),
})


class _Where(enum.Enum, shape=3):
    ETHERNET = 0
    VLAN = 1
    IPV4 = 2
    UDP = 3
    PAYLOAD = 4
    TRAILER = 5
    IGNORED = 6


class _Verdict(enum.Enum, shape=3):
    PASSED = 0
    NOT_OURS = 1
    BAD_HEADER = 2
    IP_OPTIONS = 3
    FRAGMENT = 4
    EMPTY = 5


class FeedMatch(wiring.Component):
    """Passes on the UDP payload of line A and line B.

    A frame is passed on if its destination address is the multicast address of the line's group, it is tagged or
    not as ``vlan`` wants, and it is an unfragmented IPv4 packet without options, with a right header checksum,
    that carries UDP to the line's group and port with a length that agrees with IPv4's. The UDP checksum is not
    looked at: the FCS covers the same bytes, and senders may leave it out.

    **Latency**: none. ``out.data`` and ``out.valid`` follow ``rx`` in the same cycle, gated by one register only. What
    follows from ``rx.eof`` comes a cycle after it, the end of the payload's frame two.

    **Bad input**: a frame that is not passed on gives exactly one of the strobes below, behind ``rx.eof``, if
    ``rx.ok``; one that is not ok gives none, as the receiver has already counted it. The first check that fails in
    the order of the bytes on the wire names the reason; the header checksum comes before the group. The end of a
    frame is not known before it comes, so where the headers announce more bytes than there are, what follows
    (padding, FCS) is passed on as payload, but ``out.frame_ok`` is 0, and ``bad_header`` is given too. No frame
    has an effect on the one after it.

    Members
    -------
    rx : In(RxBytes)
        Frames from the receiver.
    line_a_ip, line_b_ip : In(32)
        Multicast group, as a big endian number. 0: the line is off.
    line_a_port, line_b_port : In(16)
        UDP destination port. Where both lines have the same group and port, all packets are of line A.
    vlan : In(18)
        0: untagged only. Bit 16: with any 802.1Q tag, or without. Bit 17 and not bit 16: only with the VLAN id in
        bits 11 to 0. More than one tag is never accepted.
    out : Out(FeedPayload)
        The payload.
    not_ours : Out(1)
        Strobe: other destination address, tag, EtherType, protocol, group or port.
    bad_header : Out(1)
        Strobe: IP version or header length or checksum wrong, or lengths of IPv4, UDP and frame disagree.
    ip_options : Out(1)
        Strobe: IPv4 header with options.
    fragments : Out(1)
        Strobe: fragment of an IPv4 packet.
    empty : Out(1)
        Strobe: a packet for one of the lines, in order but without payload; ``out`` does not show it.
    """

    rx: In(RxBytes)
    line_a_ip: In(32)
    line_a_port: In(16)
    line_b_ip: In(32)
    line_b_port: In(16)
    vlan: In(18)
    out: Out(FeedPayload)
    not_ours: Out(1)
    bad_header: Out(1)
    ip_options: Out(1)
    fragments: Out(1)
    empty: Out(1)

    def elaborate(self, platform):
        m = Module()
        rx, out = self.rx, self.out

        # The current byte and the five before it: a big endian field stands here whole when its last byte arrives.
        history = Signal(40)
        window = Cat(rx.data, history)
        with m.If(rx.valid):
            m.d.sync += history.eq(window)

        where = Signal(_Where)
        # Offset of the byte in its header, one bit each; and whether it is odd.
        at, odd = Signal(net.IPV4.size, init=1), Signal()
        verdict = Signal(_Verdict)
        line_on = [Signal(name=f"line_{name}_on") for name in "ab"]     # still possible by what has arrived
        lines = [(self.line_a_ip, self.line_a_port), (self.line_b_ip, self.line_b_port)]
        payload_len = Signal(16)
        remaining, last = Signal(16), Signal()  # after the byte that arrives, and whether that is none
        in_payload = Signal()                   # the state of that name
        first = Signal()
        line = Signal()
        passed = Signal()
        trailer = Signal(range(net.FCS_SIZE + 1))
        hit = Signal()                          # the destination port is one of ours
        udp_length = Signal(17)                 # as IPv4 has it
        is_none, is_one = Signal(), Signal()    # payload_len
        m.d.sync += [is_none.eq(payload_len == 0), is_one.eq(payload_len == 1)]

        def value(header, name):
            """The field `name` of `header`, right with its last byte."""
            return window[:8 * header.fields[name].size]

        def after(header, name):
            """The byte behind the field `name` of `header` arrives: what was found of the field is acted upon."""
            return at[header.fields[name].end]

        def go_to(offset):
            m.d.sync += [at.eq(1 << offset), odd.eq(offset & 1)]

        def below(number, limit):
            """``number < limit`` for a constant, without a carry chain."""
            low = (limit - 1).bit_length()
            return ~number[low:].any() & (number[:low] < limit)

        def drop(reason):
            m.d.sync += [verdict.eq(reason), where.eq(_Where.IGNORED)]

        # All comparisons are made of every byte, and stand in flip-flops with the next one; `at` tells which of them
        # is looked at. A header's first byte goes by while the one before is still being judged.
        found = {
            "ipv4": value(net.ETHERNET, "ethertype") == net.ETHERTYPE_IPV4,
            "vlan": value(net.ETHERNET, "ethertype") == net.ETHERTYPE_VLAN,
            "other_vid": value(net.VLAN, "tci")[:12] != self.vlan[:12],
            "bad_version": (rx.data[4:] != net.IPV4_NO_OPTIONS >> 4) | (rx.data[:4] < net.IPV4_NO_OPTIONS & 0xF),
            "options": rx.data[:4] != net.IPV4_NO_OPTIONS & 0xF,
            "too_short": below(value(net.IPV4, "total_length"), net.IPV4.size),
            # Below "don't fragment" stand "more fragments" and the offset.
            "fragment": (value(net.IPV4, "flags_fragment") & (net.IPV4_DONT_FRAGMENT - 1)) != 0,
            "other_protocol": value(net.IPV4, "protocol") != net.PROTOCOL_UDP,
            "bad_length": below(value(net.UDP, "length"), net.UDP.size) | (value(net.UDP, "length") != udp_length),
        }
        for name, (ip, port) in zip("ab", lines, strict=True):
            found |= {f"mac_{name}": value(net.ETHERNET, "dst") == _multicast_mac(ip), f"on_{name}": ip != 0,
                      f"ip_{name}": value(net.IPV4, "dst") == ip, f"port_{name}": value(net.UDP, "dst_port") == port}
        is_ = {name: Signal(name=f"is_{name}") for name in found}
        m.d.sync += [is_[name].eq(what) for name, what in found.items()]

        m.d.comb += [
            out.data.eq(rx.data), out.valid.eq(rx.valid & in_payload), out.first.eq(rx.valid & first),
            out.last_expected.eq(out.valid & last),
            out.line.eq(line),
            out.payload_len.eq(payload_len),
        ]

        with m.If(rx.valid):
            m.d.sync += [at.eq(at << 1), odd.eq(~odd)]
        with m.Switch(where):
            with m.Case(_Where.ETHERNET):
                with m.If(rx.valid):
                    with m.If(after(net.ETHERNET, "dst")):
                        m.d.sync += [on.eq(is_[f"mac_{name}"] & is_[f"on_{name}"])
                                     for name, on in zip("ab", line_on, strict=True)]
                    with m.If(at[net.ETHERNET.fields["dst"].end + 1] & ~(line_on[0] | line_on[1])):
                        drop(_Verdict.NOT_OURS)
                    with m.If(after(net.ETHERNET, "ethertype")):
                        go_to(1)
                        with m.If(is_["ipv4"] & (self.vlan[16] | ~self.vlan[17])):
                            m.d.sync += where.eq(_Where.IPV4)
                        with m.Elif(is_["vlan"] & self.vlan[16:18].any()):
                            m.d.sync += where.eq(_Where.VLAN)
                        with m.Else():
                            drop(_Verdict.NOT_OURS)

            with m.Case(_Where.VLAN):
                # The EtherType that said "tagged" was the tag's own first field, so what follows is the rest of the
                # tag, and then the EtherType proper.
                tci_end = net.VLAN.fields["tci"].size
                with m.If(rx.valid):
                    with m.If(at[tci_end] & ~self.vlan[16] & is_["other_vid"]):
                        drop(_Verdict.NOT_OURS)
                    with m.If(at[tci_end + net.ETHERNET.fields["ethertype"].size]):
                        go_to(1)
                        with m.If(is_["ipv4"]):
                            m.d.sync += where.eq(_Where.IPV4)
                        with m.Else():
                            drop(_Verdict.NOT_OURS)

            # Ones' complement sum of the header's 16-bit words. The carry is added with the next word, so that the
            # sum is one adder deep.
            header_sum = Signal(16)
            carry = Signal()
            sum_ok = Signal()
            total_length = Signal(16)
            m.d.sync += sum_ok.eq(header_sum == Mux(carry, 0xFFFE, 0xFFFF))
            m.d.sync += udp_length.eq(total_length - net.IPV4.size)
            with m.Case(_Where.IPV4):
                with m.If(rx.valid):
                    with m.If(odd):
                        m.d.sync += Cat(header_sum, carry).eq(header_sum + window[:16] + carry)
                    with m.If(after(net.IPV4, "version_ihl")):
                        with m.If(is_["bad_version"]):
                            drop(_Verdict.BAD_HEADER)
                        with m.Elif(is_["options"]):
                            drop(_Verdict.IP_OPTIONS)
                    with m.If(at[net.IPV4.fields["total_length"].end - 1]):
                        m.d.sync += total_length.eq(value(net.IPV4, "total_length"))
                    with m.If(after(net.IPV4, "total_length") & is_["too_short"]):
                        drop(_Verdict.BAD_HEADER)
                    with m.If(after(net.IPV4, "flags_fragment") & is_["fragment"]):
                        drop(_Verdict.FRAGMENT)
                    with m.If(after(net.IPV4, "protocol") & is_["other_protocol"]):
                        drop(_Verdict.NOT_OURS)
                    with m.If(at[net.IPV4.size - 1]):
                        go_to(0)
                        m.d.sync += where.eq(_Where.UDP)

            with m.Case(_Where.UDP):
                with m.If(rx.valid):
                    with m.If(at[0]):
                        m.d.sync += [on.eq(on & is_[f"ip_{name}"]) for name, on in zip("ab", line_on, strict=True)]
                    with m.If(at[1]):
                        with m.If(~sum_ok):
                            drop(_Verdict.BAD_HEADER)
                        with m.Elif(~(line_on[0] | line_on[1])):
                            drop(_Verdict.NOT_OURS)
                    with m.If(after(net.UDP, "dst_port")):
                        hits = [on & is_[f"port_{name}"] for name, on in zip("ab", line_on, strict=True)]
                        m.d.sync += [line.eq(~hits[0]), hit.eq(hits[0] | hits[1])]
                    with m.If(at[net.UDP.fields["dst_port"].end + 1] & ~hit):
                        drop(_Verdict.NOT_OURS)
                    with m.If(at[net.UDP.fields["length"].end - 1]):
                        m.d.sync += payload_len.eq(value(net.UDP, "length") - net.UDP.size)
                    with m.If(after(net.UDP, "length") & is_["bad_length"]):
                        drop(_Verdict.BAD_HEADER)
                    with m.If(at[net.UDP.size - 1]):
                        m.d.sync += [remaining.eq(payload_len - 1), last.eq(is_one), first.eq(~is_none)]
                        with m.If(is_none):
                            drop(_Verdict.EMPTY)
                        with m.Else():
                            m.d.sync += [where.eq(_Where.PAYLOAD), in_payload.eq(1)]

            with m.Case(_Where.PAYLOAD):
                with m.If(rx.valid):
                    m.d.sync += [first.eq(0), passed.eq(1), remaining.eq(remaining - 1), last.eq(remaining == 1)]
                    with m.If(last):
                        m.d.sync += [where.eq(_Where.TRAILER), in_payload.eq(0)]

            with m.Case(_Where.TRAILER):
                with m.If(rx.valid & (trailer != net.FCS_SIZE)):
                    m.d.sync += trailer.eq(trailer + 1)

        # The frame's end undoes everything, whatever the state.
        whole = trailer == net.FCS_SIZE
        ended, was_ok = Signal(), Signal()
        m.d.sync += [out.frame_end.eq(ended), out.frame_ok.eq(was_ok)]
        m.d.sync += [strobe.eq(0) for strobe in (
            ended, was_ok, self.not_ours, self.bad_header, self.ip_options, self.fragments, self.empty)]
        with m.If(rx.eof):
            m.d.sync += [
                ended.eq(passed), was_ok.eq(passed & rx.ok & whole),
                self.not_ours.eq(rx.ok & (verdict == _Verdict.NOT_OURS)),
                self.bad_header.eq(rx.ok & ((verdict == _Verdict.BAD_HEADER)
                                            | ((verdict == _Verdict.PASSED) & ~whole))),
                self.ip_options.eq(rx.ok & (verdict == _Verdict.IP_OPTIONS)),
                self.fragments.eq(rx.ok & (verdict == _Verdict.FRAGMENT)),
                self.empty.eq(rx.ok & (verdict == _Verdict.EMPTY)),
            ]
            go_to(0)
            m.d.sync += [verdict.eq(_Verdict.PASSED), header_sum.eq(0), carry.eq(0), first.eq(0),
                         passed.eq(0), trailer.eq(0), in_payload.eq(0)]
            m.d.sync += where.eq(_Where.ETHERNET)

        return m


def _multicast_mac(ip):
    """`net.multicast_mac` for a signal."""
    return Cat(ip[:23], Const(net.multicast_mac(0) >> 23, 25))

"""TCP segments in frames, as far as a soak looks at them."""

from typing import NamedTuple

from hdl.layout import net

__all__ = ["Segment", "is_whole", "segment_of"]

_TCP_AT = net.ETHERNET.size + net.IPV4.size


class Segment(NamedTuple):
    """``seq``, ``ack``: of the TCP header. ``payload``: bytes, as many as there are of them."""

    seq: int
    ack: int
    payload: bytes


def segment_of(frame):
    """The :class:`Segment` in a frame without FCS, ``None`` if there is none."""
    if len(frame) < _TCP_AT + net.TCP.size or net.ETHERNET["ethertype"].unpack(frame) != net.ETHERTYPE_IPV4:
        return None
    ip = net.IPV4.unpack(frame, net.ETHERNET.size)
    if ip["version_ihl"] != net.IPV4_NO_OPTIONS or ip["protocol"] != net.PROTOCOL_TCP:
        return None
    tcp = net.TCP.unpack(frame, _TCP_AT)
    payload = frame[_TCP_AT + 4 * (tcp["data_offset"] >> 4):net.ETHERNET.size + ip["total_length"]]
    return Segment(tcp["seq"], tcp["ack"], payload)


def is_whole(frame):
    """It is no frame of IPv4, or one with all of its datagram and right checksums."""
    if len(frame) < _TCP_AT or net.ETHERNET["ethertype"].unpack(frame) != net.ETHERTYPE_IPV4:
        return len(frame) >= net.ETHERNET.size
    ip = net.IPV4.unpack(frame, net.ETHERNET.size)
    segment = frame[_TCP_AT:net.ETHERNET.size + ip["total_length"]]
    pseudo = net.PSEUDO.pack(src=ip["src"], dst=ip["dst"], protocol=net.PROTOCOL_TCP, length=len(segment))
    return (len(frame) >= net.ETHERNET.size + ip["total_length"] and len(segment) >= net.TCP.size
            and not net.checksum(frame[net.ETHERNET.size:_TCP_AT]) and not net.checksum(pseudo + segment))

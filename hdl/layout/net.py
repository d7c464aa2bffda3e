"""Headers below the exchange protocols, as tables: offset, width in bytes; all big endian."""

from .fields import Composite, Field


def _table(name, *rows):
    fields, offset = {}, 0
    for field_name, size, *rest in rows:
        fields[field_name] = Field(field_name, offset, size, byteorder="big", kind=rest[0] if rest else "int")
        offset += size
    return Composite(name, offset, fields)


ETHERNET = _table("Ethernet", ("dst", 6), ("src", 6), ("ethertype", 2))

#: The four bytes that stand before the EtherType when a frame is tagged (IEEE 802.1Q).
VLAN = _table("VLAN", ("tpid", 2), ("tci", 2))

IPV4 = _table("IPv4", ("version_ihl", 1), ("tos", 1), ("total_length", 2), ("identification", 2),
              ("flags_fragment", 2), ("ttl", 1), ("protocol", 1), ("checksum", 2), ("src", 4), ("dst", 4))

UDP = _table("UDP", ("src_port", 2), ("dst_port", 2), ("length", 2), ("checksum", 2))

TCP = _table("TCP", ("src_port", 2), ("dst_port", 2), ("seq", 4), ("ack", 4), ("data_offset", 1), ("flags", 1),
             ("window", 2), ("checksum", 2), ("urgent", 2))

ARP = _table("ARP", ("htype", 2), ("ptype", 2), ("hlen", 1), ("plen", 1), ("oper", 2), ("sha", 6), ("spa", 4),
             ("tha", 6), ("tpa", 4))

#: What the TCP and UDP checksums cover besides the segment.
PSEUDO = _table("PseudoHeader", ("src", 4), ("dst", 4), ("zero", 1), ("protocol", 1), ("length", 2))

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_HOST_LINK = 0x88B5  #: "local experimental" (IEEE 802)
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
MAC_BROADCAST = 0xFFFFFFFFFFFF
MAC_HOST_LINK = 0x0274_3271_0001  #: of a card, for the host link, unless it was built with another one
IPV4_NO_OPTIONS = 0x45
IPV4_DONT_FRAGMENT = 0x4000
TCP_FIN, TCP_SYN, TCP_RST, TCP_PSH, TCP_ACK, TCP_URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
MIN_FRAME = 60  #: bytes without FCS; shorter frames are padded
FCS_SIZE = 4
IFG = 12
PREAMBLE = bytes([0x55] * 7 + [0xD5])


def multicast_mac(ip):
    """Ethernet address (int, 48 bits) of an IPv4 multicast group (int): 01:00:5e and the low 23 bits."""
    return 0x01005E000000 | (ip & 0x7FFFFF)


def checksum(data, start=0):
    """Internet checksum (RFC 1071) of ``data``, as the value to put into the header."""
    if len(data) & 1:
        data = bytes(data) + b"\0"
    total = start + sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF

"""Order session: frames as bytes, and what a received frame is.

Frames are built from the layouts field by field and summed with the textbook checksum, with nothing of the gateware's
way of doing it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from hdl.layout import net, sbe

__all__ = ["Connection", "Segment", "cancel_message", "classify", "patch", "quote_message", "tcp_frame"]

_STARBASE = sbe.load("starbase_orders")
_HEADER = _STARBASE.composites["MessageHeader"]
_QUOTE = _STARBASE["MassQuoteRequest"]
_CANCEL = _STARBASE["MassQuoteCancelRequest"]
_BOTH = _STARBASE.enums["Side"]["BOTH"]
PROTOCOL_ID = 0xDB
QUOTE_SIZE = _HEADER.size + _QUOTE.size(quotes=1)
CANCEL_SIZE = _HEADER.size + _CANCEL.size()
HEADERS = net.ETHERNET.size + net.IPV4.size + net.TCP.size  #: bytes of a frame before its TCP payload
_TCP_AT = net.ETHERNET.size + net.IPV4.size
DECIDED_AT = _TCP_AT + net.TCP["flags"].end  #: offset of the byte with which the kind of a received frame is settled
_I64 = 1 << 63


@dataclass(slots=True)
class Connection:
    """Addresses of the session's connection, as numbers."""

    local_mac: int = 0
    peer_mac: int = 0
    local_ip: int = 0
    peer_ip: int = 0
    local_port: int = 0
    peer_port: int = 0


def _signed(value):
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= _I64 else value


def tcp_frame(connection, seq, ack, window, flags, payload=b""):
    """Ethernet frame (no padding, no FCS) with one TCP segment."""
    c = connection
    src, dst = c.local_ip.to_bytes(4, "big"), c.peer_ip.to_bytes(4, "big")
    length = net.TCP.size + len(payload)
    ip = {"version_ihl": net.IPV4_NO_OPTIONS, "total_length": net.IPV4.size + length,
          "flags_fragment": net.IPV4_DONT_FRAGMENT, "ttl": 64, "protocol": net.PROTOCOL_TCP, "src": c.local_ip,
          "dst": c.peer_ip}
    tcp = {"src_port": c.local_port, "dst_port": c.peer_port, "seq": seq, "ack": ack,
           "data_offset": net.TCP.size // 4 << 4, "flags": flags, "window": window}
    pseudo = src + dst + bytes([0, net.PROTOCOL_TCP]) + length.to_bytes(2, "big")
    tcp["checksum"] = net.checksum(pseudo + net.TCP.pack(**tcp) + payload)
    ip["checksum"] = net.checksum(net.IPV4.pack(**ip))
    return (net.ETHERNET.pack(dst=c.peer_mac, src=c.local_mac, ethertype=net.ETHERTYPE_IPV4) + net.IPV4.pack(**ip)
            + net.TCP.pack(**tcp) + payload)


def _header(message, size, app_seq, last_processed, time_ns):
    return _HEADER.pack(protocolId=PROTOCOL_ID, flags=0, messageLength=size, messageTypeId=message.id,
                        version=_STARBASE.version, sequenceNumber=_signed(app_seq),
                        lastProcessedSeqNo=_signed(last_processed), sendTimeNs=_signed(time_ns))


def quote_message(p, decision, quote_id, registers, app_seq, last_processed, time_ns):
    """MassQuoteRequest for one instrument.

    ``p``: parameter row. ``decision``: prices in ticks and lots of both sides; 0 lots means no quote on that side.
    ``registers``: mapping with ``mmp_group``, ``smp_id``, ``quote_flags``, ``order_flags``.
    """
    def price(ticks, lots):
        return _signed(ticks * p.tick_e9) if lots else None

    entry = {
        "instrumentId": _signed(p.instrument_id),
        "bidPrice": price(decision.bid_ticks, decision.bid_lots),
        "askPrice": price(decision.ask_ticks, decision.ask_lots),
        "bidQty.mantissa": _signed(decision.bid_lots * p.lot_mult), "bidQty.exponent": p.lot_exp,
        "askQty.mantissa": _signed(decision.ask_lots * p.lot_mult), "askQty.exponent": p.lot_exp,
        "bidFlags": registers["order_flags"], "askFlags": registers["order_flags"],
    }
    body = _QUOTE.encode({"quoteId": _signed(quote_id), "correlationId": _signed(quote_id),
                          "mmpGroupId": _signed(registers["mmp_group"]),
                          "selfMatchPreventionId": _signed(registers["smp_id"]),
                          "flags": registers["quote_flags"]}, {"quotes": [entry]})
    return _header(_QUOTE, QUOTE_SIZE, app_seq, last_processed, time_ns) + body


def cancel_message(quote_id, registers, app_seq, last_processed, time_ns):
    """MassQuoteCancelRequest for both sides of the MMP group."""
    body = _CANCEL.encode({"correlationId": _signed(quote_id), "mmpGroupId": _signed(registers["mmp_group"]),
                           "side": _BOTH})
    return _header(_CANCEL, CANCEL_SIZE, app_seq, last_processed, time_ns) + body


def patch(message, app_seq, last_processed, time_ns):
    """A host's message with the header fields that only the sender of the stream knows."""
    out = bytearray(message)
    for name, value in (("sequenceNumber", app_seq), ("lastProcessedSeqNo", last_processed), ("sendTimeNs", time_ns)):
        f = _HEADER[name]
        out[f.offset:f.end] = f.pack(_signed(value))[:max(0, len(out) - f.offset)]
    return bytes(out)


class Segment(NamedTuple):
    """What a received frame is.

    ``kind``: ``"segment"`` (of the session, both checksums right), ``"closing"`` (the same with FIN or RST),
    ``"frame"`` (for the host), ``"bad"``, ``"ignored"`` (for somebody else).
    """

    kind: str
    seq: int = 0
    ack: int = 0
    window: int = 0
    flags: int = 0
    payload: bytes = b""


def classify(data, ok, connection, established):
    """Sort a frame of the order port.

    ``data``: with FCS. ``ok``: verdict of the receiver. ``established``: the fabric owned the connection when the
    headers had passed.
    """
    c = connection
    mine = data[:6] == c.local_mac.to_bytes(6, "big") or data[:6] == b"\xff" * 6
    tagged = False
    if established and data[:6] == c.local_mac.to_bytes(6, "big") and len(data) > DECIDED_AT:
        eth = net.ETHERNET.unpack(data)
        ip = net.IPV4.unpack(data, net.ETHERNET.size)
        ports = {name: net.TCP[name].unpack(data, _TCP_AT) for name in ("src_port", "dst_port")}
        tagged = (eth["ethertype"] == net.ETHERTYPE_IPV4 and ip["version_ihl"] == net.IPV4_NO_OPTIONS
                  and not ip["flags_fragment"] & net.IPV4_DONT_FRAGMENT - 1
                  and ip["protocol"] == net.PROTOCOL_TCP and ip["src"] == c.peer_ip and ip["dst"] == c.local_ip
                  and ports["src_port"] == c.peer_port and ports["dst_port"] == c.local_port)
    if not ok:
        return Segment("bad")
    if not tagged:
        return Segment("frame" if mine else "ignored")
    tcp = net.TCP.unpack(data, _TCP_AT)
    header = (tcp["data_offset"] >> 4) * 4
    end = net.ETHERNET.size + ip["total_length"]
    if header < net.TCP.size or ip["total_length"] < net.IPV4.size + header or end > len(data) - net.FCS_SIZE:
        return Segment("bad")
    segment = data[_TCP_AT:end]
    pseudo = net.PSEUDO.pack(src=ip["src"], dst=ip["dst"], protocol=net.PROTOCOL_TCP, length=len(segment))
    if net.checksum(data[net.ETHERNET.size:_TCP_AT]) or net.checksum(pseudo + segment):
        return Segment("bad")
    closing = tcp["flags"] & (net.TCP_FIN | net.TCP_RST)
    return Segment("closing" if closing else "segment", tcp["seq"], tcp["ack"], tcp["window"], tcp["flags"],
                   segment[header:])

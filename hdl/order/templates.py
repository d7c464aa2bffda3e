"""What the order port sends, as templates over the layouts: frame headers and Starbase messages."""

from hdl.layout import net, sbe
from hdl.order.encoder import Late, Live, MessageEncoder, Part

__all__ = [
    "BODY_OFFSET", "CANCEL_SIZE", "HEADER_PATCH", "NULL_PRICE", "QUOTE_SIZE", "STARBASE_HEADER", "STARBASE_PROTOCOL_ID",
    "ethernet_encoder", "header_patch_encoder", "ipv4_encoder", "mass_cancel_encoder", "mass_quote_encoder",
    "tcp_encoder",
]

STARBASE = sbe.load("starbase_orders")
STARBASE_HEADER = STARBASE.composites["MessageHeader"]
STARBASE_PROTOCOL_ID = 0xDB
TTL = 64

#: Bytes of an Ethernet frame before the TCP payload (no 802.1Q tag, no IPv4 or TCP options).
BODY_OFFSET = net.ETHERNET.size + net.IPV4.size + net.TCP.size

#: Fields of the Starbase header that are set as a message leaves, and where they come from.
HEADER_PATCH = {
    "sequenceNumber": Live("app_seq"),
    "lastProcessedSeqNo": Live("last_processed"),
    "sendTimeNs": Live("time_ns"),
}

_QUOTE = STARBASE["MassQuoteRequest"]
_ENTRY = _QUOTE.groups["quotes"]
_CANCEL = STARBASE["MassQuoteCancelRequest"]

#: What the venue reads as "no price on this side".
NULL_PRICE = _ENTRY["bidPrice"].null
#: Bytes of the two messages of the hot path, header included.
QUOTE_SIZE = STARBASE_HEADER.size + _QUOTE.size(quotes=1)
CANCEL_SIZE = STARBASE_HEADER.size + _CANCEL.size()


def ethernet_encoder():
    """Ethernet header. Live: ``peer_mac``, ``local_mac``."""
    return MessageEncoder(Part(net.ETHERNET, {
        "dst": Live("peer_mac"), "src": Live("local_mac"), "ethertype": net.ETHERTYPE_IPV4}), lanes=2)


def ipv4_encoder():
    """IPv4 header. Live: ``total_length``, ``local_ip``, ``peer_ip``. Late: ``checksum``, the inverse of the sum."""
    return MessageEncoder(Part(net.IPV4, {
        "version_ihl": net.IPV4_NO_OPTIONS, "tos": 0, "total_length": Live("total_length"), "identification": 0,
        "flags_fragment": net.IPV4_DONT_FRAGMENT, "ttl": TTL, "protocol": net.PROTOCOL_TCP,
        "checksum": Late("checksum"), "src": Live("local_ip"), "dst": Live("peer_ip")}), lanes=2)


def tcp_encoder():
    """Pseudo header, which is summed and never played, and TCP header.

    Live: ``local_ip``, ``peer_ip``, ``segment_length`` (header and payload), ``local_port``, ``peer_port``, ``seq``,
    ``ack``, ``flags``, ``window``. Late: ``checksum``.
    """
    return MessageEncoder(
        Part(net.PSEUDO, {"src": Live("local_ip"), "dst": Live("peer_ip"), "zero": 0, "protocol": net.PROTOCOL_TCP,
                          "length": Live("segment_length")}),
        Part(net.TCP, {"src_port": Live("local_port"), "dst_port": Live("peer_port"), "seq": Live("seq"),
                       "ack": Live("ack"), "data_offset": net.TCP.size // 4 << 4, "flags": Live("flags"),
                       "window": Live("window"), "checksum": Late("checksum"), "urgent": 0}), lanes=2)


def _header(message, size):
    return Part(STARBASE_HEADER, {
        "protocolId": STARBASE_PROTOCOL_ID, "flags": 0, "messageLength": size, "messageTypeId": message.id,
        "version": STARBASE.version, **HEADER_PATCH})


def mass_quote_encoder():
    """MassQuoteRequest with one entry. Live: the fields below and those of :data:`HEADER_PATCH`."""
    return MessageEncoder(
        _header(_QUOTE, QUOTE_SIZE),
        Part(_QUOTE, {
            "quoteId": Live("quote_id"), "correlationId": Live("quote_id"), "mmpGroupId": Live("mmp_group"),
            "selfMatchPreventionId": Live("smp_id"), "flags": Live("quote_flags")}),
        Part(_ENTRY.dimension, {"blockLength": _ENTRY.block_length, "numInGroup": 1}),
        Part(_ENTRY, {
            "instrumentId": Live("instrument_id"), "bidPrice": Live("bid_price"), "askPrice": Live("ask_price"),
            "bidQty.mantissa": Live("bid_qty"), "bidQty.exponent": Live("lot_exp"),
            "askQty.mantissa": Live("ask_qty"), "askQty.exponent": Live("lot_exp"),
            "bidFlags": Live("order_flags"), "askFlags": Live("order_flags")}), lanes=4)


def mass_cancel_encoder():
    """MassQuoteCancelRequest for both sides. Live: ``quote_id``, ``mmp_group`` and those of :data:`HEADER_PATCH`."""
    return MessageEncoder(
        _header(_CANCEL, CANCEL_SIZE),
        Part(_CANCEL, {"correlationId": Live("quote_id"), "mmpGroupId": Live("mmp_group"),
                       "side": STARBASE.enums["Side"]["BOTH"]}), lanes=2)


def header_patch_encoder():
    """Starbase header in which only the fields of :data:`HEADER_PATCH` are not zero: what a host message lacks."""
    return MessageEncoder(Part(STARBASE_HEADER, {
        "protocolId": 0, "flags": 0, "messageLength": 0, "messageTypeId": 0, "version": 0, **HEADER_PATCH}))

"""What the order port sends, as templates over the layouts: frame headers and Starbase messages."""

from hdl.layout import net, sbe
from hdl.order.encoder import Checksum, FrameEncoder, Live, Part, Static, Stored

__all__ = [
    "BODY_OFFSET", "CANCEL_SIZE", "HEADERS", "HEADER_PATCH", "NULL_PRICE", "PATCHED", "QUOTE_SIZE", "STARBASE_HEADER",
    "STARBASE_PROTOCOL_ID", "frame_encoder",
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

#: Their places in a message.
PATCHED = frozenset(n for name in HEADER_PATCH for n in range(STARBASE_HEADER[name].offset, STARBASE_HEADER[name].end))

_QUOTE = STARBASE["MassQuoteRequest"]
_ENTRY = _QUOTE.groups["quotes"]
_CANCEL = STARBASE["MassQuoteCancelRequest"]

#: What the venue reads as "no price on this side".
NULL_PRICE = _ENTRY["bidPrice"].null
#: Bytes of the two messages of the hot path, header included.
QUOTE_SIZE = STARBASE_HEADER.size + _QUOTE.size(quotes=1)
CANCEL_SIZE = STARBASE_HEADER.size + _CANCEL.size()


_IPV4 = {"version_ihl": net.IPV4_NO_OPTIONS, "tos": 0, "identification": 0, "flags_fragment": net.IPV4_DONT_FRAGMENT,
         "ttl": TTL, "protocol": net.PROTOCOL_TCP}
# TCP's checksum goes on from the sum of the IPv4 header: of its pseudo header that has the addresses, and the length
# with the header's own 20 bytes. Those go, as do the constants, and the protocol comes.
_TCP_SEED = (net.PROTOCOL_TCP - net.IPV4.size - (net.checksum(net.IPV4.pack(**_IPV4)) ^ 0xFFFF)) % 0xFFFF

#: Headers of every segment. Live and static: as :func:`frame_encoder` says.
HEADERS = (
    Part(net.ETHERNET, {"dst": Static("peer_mac"), "src": Static("local_mac"), "ethertype": net.ETHERTYPE_IPV4}),
    Part(net.IPV4, {**_IPV4, "total_length": Live("total_length"), "checksum": Checksum(),
                    "src": Static("local_ip"), "dst": Static("peer_ip")}),
    Part(net.TCP, {"src_port": Static("local_port"), "dst_port": Static("peer_port"), "seq": Live("seq"),
                   "ack": Live("ack"), "data_offset": net.TCP.size // 4 << 4, "flags": Live("flags"),
                   "window": Static("window"), "checksum": Checksum(_TCP_SEED), "urgent": 0}),
)


def _header(message, size):
    return Part(STARBASE_HEADER, {
        "protocolId": STARBASE_PROTOCOL_ID, "flags": 0, "messageLength": size, "messageTypeId": message.id,
        "version": STARBASE.version, **HEADER_PATCH})


def frame_encoder():
    """All that leaves in the session. Bodies: ``quote``, ``mass_cancel``, ``ack``, ``session_tx``, ``resent`` and
    ``probe``.

    Live, in all: ``total_length`` (of the IPv4 datagram), ``seq``, ``ack``, ``flags``; in all messages those of
    :data:`HEADER_PATCH`; in the two of the hot path ``quote_id``; in ``quote`` those below.

    Static are those that are registers of the session, by their names: in all the addresses of the connection and
    ``window``, in the two of the hot path ``mmp_group``, in ``quote`` those below.

    Of a message of the host (``session_tx``) only the fields of :data:`HEADER_PATCH` are assembled, and ``host_sum``,
    the sum of the host's own bytes with its two bytes swapped, stands in for them: on the wire they come from the host.
    Of a segment that is sent again (``resent``) nothing is assembled: ``host_sum`` is of all of it. ``ack`` and
    ``probe`` have no payload.
    """
    quote = (
        _header(_QUOTE, QUOTE_SIZE),
        Part(_QUOTE, {
            "quoteId": Live("quote_id"), "correlationId": Live("quote_id"), "mmpGroupId": Static("mmp_group"),
            "selfMatchPreventionId": Static("smp_id"), "flags": Static("quote_flags")}),
        Part(_ENTRY.dimension, {"blockLength": _ENTRY.block_length, "numInGroup": 1}),
        Part(_ENTRY, {
            "instrumentId": Live("instrument_id"), "bidPrice": Stored("bid_price"), "askPrice": Stored("ask_price"),
            "bidQty.mantissa": Stored("bid_qty"), "bidQty.exponent": Live("lot_exp"),
            "askQty.mantissa": Stored("ask_qty"), "askQty.exponent": Live("lot_exp"),
            "bidFlags": Static("order_flags"), "askFlags": Static("order_flags")}),
    )
    mass_cancel = (
        _header(_CANCEL, CANCEL_SIZE),
        Part(_CANCEL, {"correlationId": Live("quote_id"), "mmpGroupId": Static("mmp_group"),
                       "side": STARBASE.enums["Side"]["BOTH"]}),
    )
    session_tx = (
        Part(STARBASE_HEADER, {"protocolId": 0, "flags": 0, "messageLength": Live("host_sum"), "messageTypeId": 0,
                               "version": 0, **HEADER_PATCH}),
    )
    resent = (
        Part(STARBASE_HEADER, {"protocolId": 0, "flags": 0, "messageLength": Live("host_sum"), "messageTypeId": 0,
                               "version": 0, **dict.fromkeys(HEADER_PATCH, 0)}),
    )
    return FrameEncoder(HEADERS, {"quote": quote, "mass_cancel": mass_cancel, "ack": (), "session_tx": session_tx,
                                  "resent": resent, "probe": ()})

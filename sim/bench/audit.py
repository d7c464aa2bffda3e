"""Frames on the wire against decisions: nothing leaves that was not decided, and whatever starts ends whole."""

from collections import Counter

from hdl.layout import net, sbe
from sim.golden.quote import MASS_CANCEL, PULLED, SENT

__all__ = ["audit"]

_ORDERS = sbe.load("starbase_orders")
_HEADER = _ORDERS.composites["MessageHeader"]
_QUOTE, _CANCEL = _ORDERS["MassQuoteRequest"], _ORDERS["MassQuoteCancelRequest"]
_TCP_AT = net.ETHERNET.size + net.IPV4.size
_BODY = _TCP_AT + net.TCP.size


def audit(sent, decisions, rows, host_frames=None):
    """Hold every frame of the order port against what was decided.

    A frame must have a right preamble, gap and FCS, right IPv4 and TCP checksums and lengths, continue the TCP stream,
    and be exactly one of: the mass quote of one SENT or PULLED decision, with its prices and quantities; the mass
    cancel of one MASS_CANCEL decision; an acknowledgement; a message or a frame of the host.

    Parameters
    ----------
    sent : :class:`sim.board.board.TxFrame` of the order port, all of them.
    decisions : :class:`sim.golden.model.Record`, all of them.
    rows : by instrument number, objects with ``tick_e9``, ``lot_mult``, ``lot_exp``, ``instrument_id``.
    host_frames : frames that the host gave to the port, in order, or ``None``: not known.

    Returns
    -------
    (Counter of frames by kind, list of what is wrong, in words).
    """
    quotes = {d.quoteId: d for d in decisions if d.outcome in (SENT, PULLED)}
    cancels = {d.quoteId: d for d in decisions if d.outcome == MASS_CANCEL}
    expected = {"quote": len(quotes), "mass cancel": len(cancels)}
    kinds, wrong, stream = Counter(), [], None
    host = None if host_frames is None else [bytes(f).ljust(net.MIN_FRAME, b"\0") for f in host_frames]
    for n, frame in enumerate(sent):
        data, faults = frame.frame, []
        if frame.faults:
            faults.append(str(frame.faults))
        if host and data == host[0]:
            host.pop(0)
            kind = "host frame"
        elif net.ETHERNET.unpack(data)["ethertype"] != net.ETHERTYPE_IPV4:
            kind = "host frame"
            if host is not None:
                faults.append("a frame that the host did not give")
        else:
            payload, seq, marks = _segment(data, faults)
            if stream is not None and seq != stream:
                faults.append(f"sequence number {seq}, the stream stands at {stream}")
            stream = seq + len(payload) + marks & 0xFFFF_FFFF
            kind = _message(payload, quotes, cancels, rows, faults)
        kinds[kind] += 1
        wrong += [f"frame {n} ({kind}, cycle {frame.start}): {fault}" for fault in faults]
    wrong += [f"{kinds[kind]} frames of kind {kind}, {count} decided" for kind, count in expected.items()
              if kinds[kind] != count]
    wrong += [f"decided and not on the wire: quote {quote_id}" for quote_id in (*quotes, *cancels)]
    if host:
        wrong.append(f"{len(host)} frames of the host did not leave")
    return kinds, wrong


def _segment(data, faults):
    """(payload, sequence number, numbers that SYN and FIN take) of a frame with a TCP segment."""
    ip, tcp = net.IPV4.unpack(data, net.ETHERNET.size), net.TCP.unpack(data, _TCP_AT)
    end = net.ETHERNET.size + ip["total_length"]
    if net.checksum(data[net.ETHERNET.size:_TCP_AT]):
        faults.append("wrong IPv4 checksum")
    if end > len(data) or any(data[end:]) or len(data) != max(end, net.MIN_FRAME):
        faults.append(f"{len(data)} bytes hold an IPv4 packet that ends at {end}")
    segment = data[_TCP_AT:end]
    pseudo = net.PSEUDO.pack(src=ip["src"], dst=ip["dst"], protocol=net.PROTOCOL_TCP, length=len(segment))
    if ip["protocol"] != net.PROTOCOL_TCP or net.checksum(pseudo + segment):
        faults.append("wrong TCP checksum")
    marks = bool(tcp["flags"] & net.TCP_SYN) + bool(tcp["flags"] & net.TCP_FIN)
    return segment[(tcp["data_offset"] >> 4) * 4:], tcp["seq"], marks


def _message(payload, quotes, cancels, rows, faults):
    """Kind of a segment's payload; a quote or a mass cancel takes its decision out."""
    if not payload:
        return "acknowledgement"
    if len(payload) < _HEADER.size:
        faults.append(f"payload of {len(payload)} bytes")
        return "host message"
    header, body = _HEADER.unpack(payload), payload[_HEADER.size:]
    if header["messageLength"] != len(payload):
        faults.append(f"messageLength {header['messageLength']} in a payload of {len(payload)} bytes")
    if header["messageTypeId"] == _QUOTE.id:
        message = _QUOTE.decode(body)
        decision = quotes.pop(message["quoteId"], None)
        if decision is None:
            faults.append(f"quote {message['quoteId']} was not decided, or has left before")
        else:
            _content(message, decision, rows[decision.instrument], faults)
        return "quote"
    if header["messageTypeId"] == _CANCEL.id:
        if cancels.pop(_CANCEL.decode(body)["correlationId"], None) is None:
            faults.append("a mass cancel that was not decided")
        return "mass cancel"
    return "host message"


def _content(message, d, row, faults):
    entry, = message["quotes"]
    want = {"instrumentId": row.instrument_id}
    for side, ticks, lots in (("bid", d.bidTicks, d.bidLots), ("ask", d.askTicks, d.askLots)):
        want[f"{side}Price"] = ticks * row.tick_e9 if lots else None
        want[f"{side}Qty.mantissa"], want[f"{side}Qty.exponent"] = lots * row.lot_mult, row.lot_exp
    for name, value in want.items():
        got = entry[name]
        if name.endswith("Price") and got == _QUOTE.groups["quotes"][name].null:
            got = None
        if got != value:
            faults.append(f"{name} is {got}, decided was {value}")

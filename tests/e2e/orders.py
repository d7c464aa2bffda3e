"""What the frames of the order port ask of the exchange."""

from typing import NamedTuple

from hdl.layout import net, sbe

__all__ = ["Order", "orders", "quotes"]

_SCHEMA = sbe.load("starbase_orders")
_HEADER = _SCHEMA.composites["MessageHeader"]
_TCP_AT = net.ETHERNET.size + net.IPV4.size
_BODY = _TCP_AT + net.TCP.size
_NAMES = {_SCHEMA[name].id: name for name in ("MassQuoteRequest", "MassQuoteCancelRequest")}


class Order(NamedTuple):
    """A quote or a cancel: ``cycle`` of its first preamble byte, ``name`` of the message, its ``values``."""

    cycle: int
    name: str
    values: dict


def orders(frames):
    """:class:`Order` s among frames (:class:`sim.board.board.TxFrame`), in their order; everything else is left out.

    What is sent again asks for nothing: the exchange reads every byte of the stream once."""
    out, seen = [], set()
    for frame in frames:
        data = frame.frame
        if net.ETHERNET.unpack(data)["ethertype"] != net.ETHERTYPE_IPV4:
            continue
        payload = data[_BODY:net.ETHERNET.size + net.IPV4.unpack(data, net.ETHERNET.size)["total_length"]]
        segment = net.TCP["seq"].unpack(data, _TCP_AT), payload
        if payload and segment in seen:
            continue
        seen.add(segment)
        while len(payload) >= _HEADER.size:
            header = _HEADER.unpack(payload)
            name = _NAMES.get(header["messageTypeId"])
            if name:
                body = payload[_HEADER.size:header["messageLength"]]
                out.append(Order(frame.start, name, _SCHEMA[name].decode(body)))
            payload = payload[header["messageLength"]:]
    return out


def quotes(frames):
    """(cycle, instrument id, bid price, bid quantity, ask price, ask quantity) of every entry of the mass quotes among
    frames, all of them mantissas. A side with no quantity is none: it is taken away."""
    return [(order.cycle, entry["instrumentId"], entry["bidPrice"], entry["bidQty.mantissa"], entry["askPrice"],
             entry["askQty.mantissa"])
            for order in orders(frames) if order.name == "MassQuoteRequest" for entry in order.values["quotes"]]

"""G21: quotes on the wire of which the gate knows nothing. Only the host can send one."""

from hdl.layout import net, sbe
from sim.golden.session import HEADERS, PROTOCOL_ID

__all__ = ["PERIOD", "Emission"]

PERIOD = 125_000    #: cycles from one comparison to the next
_STARBASE = sbe.load("starbase_orders")
_HEADER = _STARBASE.composites["MessageHeader"]
_QUOTE = _STARBASE["MassQuoteRequest"].id


def is_quote(data):
    """A frame (without preamble) is a mass quote, as far as its bytes say."""
    if len(data) < HEADERS + _HEADER["messageTypeId"].end:
        return False
    ip = net.IPV4.unpack(data, net.ETHERNET.size)
    header = {name: _HEADER[name].unpack(data, HEADERS) for name in ("protocolId", "messageTypeId")}
    return (net.ETHERNET.unpack(data)["ethertype"] == net.ETHERTYPE_IPV4 and ip["protocol"] == net.PROTOCOL_TCP
            and header["protocolId"] == PROTOCOL_ID and header["messageTypeId"] == _QUOTE)


def _end(frame):
    """First cycle in which the wire is silent again."""
    return frame.cycle + len(net.PREAMBLE) + len(frame.data)


class Emission:
    """What nobody has approved, until it is found out.

    Attributes
    ----------
    at : cycle of the next comparison that finds something, if no frame is on the wire then; ``None``: there is nothing.
    """

    def __init__(self):
        self.at = None

    def watch(self, frame):
        """The host sends a frame (:class:`sim.golden.port.TxFrame`)."""
        if self.at is None and frame.kind in ("session", "frame") and is_quote(frame.data):
            seen = frame.cycle + len(net.PREAMBLE) + HEADERS + _HEADER["messageTypeId"].end + 1
            begun = seen - seen % PERIOD        # if that was while the frame was on the wire, its end is awaited
            self.at = _end(frame) + 1 if begun >= frame.cycle else begun + PERIOD

    def compare(self, cycle, tx):
        """Whether the counts prove to differ in this cycle. ``tx``: all frames so far."""
        if self.at is None or cycle < self.at:
            return False
        if tx[-1].cycle <= cycle <= _end(tx[-1]):
            self.at = _end(tx[-1]) + 1
            return False
        self.at = None
        return True

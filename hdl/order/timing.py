"""Cycle counts of the order port, as promised. The golden model computes with them; the tests measure them.

Frame lengths are in bytes without preamble, padding and FCS. "Start" of a frame is the cycle ``T`` in which the port
decides to send it (for a quote: ``fire``).
"""

from hdl.layout import net
from hdl.order.statics import FILL_CYCLES
from hdl.order.templates import BODY_OFFSET, CANCEL_SIZE, QUOTE_SIZE

__all__ = [
    "CANCEL_FRAME", "FIRST_BYTE_AFTER_START", "HOST_LAST_TO_AVAILABLE", "HOST_RELEASE", "PREAMBLE_AFTER_START",
    "QUOTE_AT", "QUOTE_FRAME", "RX_EOF_TO_ACK_START", "RX_EOF_TO_ROOM", "RX_EOF_TO_STATE", "SENT_AFTER_START",
    "SESSION_ENABLE_TO_OWNED", "SESSION_ENABLE_TO_READY", "SESSION_ENABLE_TO_UP", "busy_cycles", "byte_cycle",
]

#: Bytes of the two frames of the hot path.
QUOTE_FRAME = BODY_OFFSET + QUOTE_SIZE
CANCEL_FRAME = BODY_OFFSET + CANCEL_SIZE

#: First preamble byte on the pins. Always; no frame waits once started.
PREAMBLE_AFTER_START = 1

#: From ``fire`` until the fields of the quote, its id excepted, have to stand on their wires. They are read from there
#: on until the frame has ended.
QUOTE_AT = 13

#: The port takes a frame's byte 0 from its source; byte n so many cycles plus n after the start, on the pins one later.
FIRST_BYTE_AFTER_START = 8

#: ``snd_nxt`` and ``app_seq`` have moved past the frame's message.
SENT_AFTER_START = 2

#: From ``RxBytes.eof`` (two cycles after the last FCS byte is on ``RxBytes``, three after it is on the pins) until the
#: new ``rcv_nxt``, ``snd_una``, ``session_up`` and ``ack_pending`` stand.
RX_EOF_TO_STATE = 2
#: ... until a larger peer window can make the port ready.
RX_EOF_TO_ROOM = 5
#: ... until the earliest start of the acknowledgement, the port being idle; its preamble is on the pins one later.
RX_EOF_TO_ACK_START = 2

#: From the last byte taken from the host's packet stream to the strobe ``dbg_host_tx_valid``. In the cycle of that
#: strobe the frame may start, the port being idle and nothing else wanting it.
HOST_LAST_TO_AVAILABLE = 5
#: From the start of a host frame of n bytes until the next host packet's first byte may be taken: this plus n.
HOST_RELEASE = 5

#: From the write of ``session_enable`` until ``session_up`` is 1, until a frame of the peer can be one of the session
#: (its first byte on ``RxBytes``), and until the port can be ready.
SESSION_ENABLE_TO_UP = 1
SESSION_ENABLE_TO_OWNED = 1 + FILL_CYCLES
SESSION_ENABLE_TO_READY = SESSION_ENABLE_TO_OWNED + 3


def byte_cycle(start, n):
    """Cycle in which byte ``n`` of a frame started in cycle ``start`` is on the pins."""
    return start + FIRST_BYTE_AFTER_START + 1 + n


def busy_cycles(length):
    """Cycles from the start of a frame of ``length`` bytes to the earliest start of the next one."""
    return len(net.PREAMBLE) + max(length, net.MIN_FRAME) + net.FCS_SIZE + net.IFG

"""From captured packets with nanosecond stamps to cycles on one GMII port.

A capture may span minutes in which nothing happens; cycle by cycle that would be billions of clocks. The rule:

1. Packets are taken in the order of their time stamps (ties and equal stamps in the order of the file). Both feed lines
   share the port, so the order in which their copies arrive, and with it which copy wins, is the capture's.
2. The time from one packet to the next is kept as it was, to the cycle, if it is at most ``max_idle_ns``; a longer one
   becomes ``max_idle_ns``. As the copies of one packet arrive within 15 us of one another, the default of 20 us keeps
   the skew between the lines as well as every burst.
3. A packet starts at that time, or as soon as the one before it and the inter-frame gap of 12 byte times have left the
   wire. The delay is not handed on: after a burst the wire returns to the capture's own times.
4. Frames shorter than the Ethernet minimum are padded, and the FCS is added.

Nothing else is changed; the time stamps inside the packets are the capture's.
"""

import zlib
from typing import NamedTuple

from hdl.layout import net

__all__ = ["CYCLE_NS", "WireFrame", "schedule", "wire_bytes"]

CYCLE_NS = 8
MAX_IDLE_NS = 20_000


class WireFrame(NamedTuple):
    """One frame on the wire.

    ``cycle``: cycle of the first preamble byte on the pins. ``data``: bytes after the start-of-frame delimiter, FCS
    included. ``time_ns``: the capture's stamp. ``index``: position in the input.
    """

    cycle: int
    data: bytes
    time_ns: int
    index: int

    @property
    def end(self):
        """First cycle after the last byte."""
        return self.cycle + len(net.PREAMBLE) + len(self.data)


def wire_bytes(frame):
    """A frame (bytes, no FCS) as it appears on the wire: padded to 60 bytes, FCS appended."""
    padded = bytes(frame).ljust(net.MIN_FRAME, b"\0")
    return padded + zlib.crc32(padded).to_bytes(net.FCS_SIZE, "little")


def schedule(frames, *, start_cycle=0, max_idle_ns=MAX_IDLE_NS, bad_fcs=()):
    """Cycles for captured frames on one port.

    Parameters
    ----------
    frames : iterable of (time_ns, bytes without FCS)
    start_cycle : cycle of the first frame's first preamble byte.
    max_idle_ns : longest time between the starts of two frames in the result, before waiting for the wire.
    bad_fcs : positions in the input of frames that get a wrong FCS (one bit inverted).

    Returns
    -------
    list of :class:`WireFrame`, in time order, never overlapping, at least 12 cycles apart.
    """
    if max_idle_ns < 0:
        raise ValueError(f"max_idle_ns is {max_idle_ns}, must be 0 or more")
    order = sorted(enumerate(frames), key=lambda item: item[1][0])
    bad_fcs = frozenset(bad_fcs)
    out, wire_ns, previous_ns, free = [], 0, None, start_cycle
    for index, (time_ns, frame) in order:
        if previous_ns is not None:
            wire_ns += min(time_ns - previous_ns, max_idle_ns)
        previous_ns = time_ns
        cycle = max(start_cycle + wire_ns // CYCLE_NS, free)
        data = wire_bytes(frame)
        if index in bad_fcs:
            data = data[:-1] + bytes([data[-1] ^ 0x80])
        out.append(WireFrame(cycle, data, time_ns, index))
        free = out[-1].end + net.IFG
    return out

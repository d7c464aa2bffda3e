"""The two byte streams that everything between the pins and the decision speaks.

`RxBytes` is what a wire delivers: it cannot be stalled and its verdict comes after its bytes. `Packet` is what
a buffer delivers: it can be stalled, and whatever is visible on it is already known to be complete and good.
"""

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["HeldFrame", "Packet", "RxBytes"]


#: A received Ethernet frame, byte by byte as it arrives, without back-pressure.
#:
#: Members
#: -------
#: data : Out(8)
#:     Byte of the frame, from the destination address to the last byte of the FCS. Meaningful while ``valid``.
#: valid : Out(1)
#:     ``data`` is a byte of a frame. Within a frame it is 1 in every cycle.
#: sof : Out(1)
#:     With the first byte after the start-of-frame delimiter. Only ever 1 together with ``valid``.
#: eof : Out(1)
#:     Strobe in a cycle after the last byte and before the next ``sof``; ``valid`` is then 0. Every ``sof`` is followed
#:     by exactly one ``eof``.
#: ok : Out(1)
#:     Only ever 1 together with ``eof``: the frame had a right FCS, no receive error and a legal length.
RxBytes = Signature({
    "data": Out(8),
    "valid": Out(1),
    "sof": Out(1),
    "eof": Out(1),
    "ok": Out(1),
})


#: A packet from a buffer, byte by byte, under the usual stream rules: ``valid`` never waits for ``ready``, and
#: ``data`` and ``last`` hold still from ``valid`` until the cycle in which ``ready`` is 1 too.
#:
#: Members
#: -------
#: data : Out(8)
#:     Byte of the packet.
#: valid : Out(1)
#:     ``data`` and ``last`` may be taken.
#: ready : In(1)
#:     They are taken at the end of this cycle.
#: last : Out(1)
#:     ``data`` is the last byte of its packet. A packet has at least one byte.
Packet = Signature({
    "data": Out(8),
    "valid": Out(1),
    "ready": In(1),
    "last": Out(1),
})


#: A frame that stands in a buffer until it has been sent: its reader names the position of a byte.
#:
#: Members
#: -------
#: available : Out(1)
#:     A frame is held. Holds until ``release``.
#: length : Out(7)
#:     Its bytes without padding and FCS. Holds while ``available``.
#: position : In(7)
#:     Byte that is asked for.
#: byte : Out(8)
#:     The one that was asked for two cycles before.
#: release : In(1)
#:     Let it go. Only while ``available``; its last byte may be asked for in the same cycle.
HeldFrame = Signature({
    "available": Out(1),
    "length": Out(7),
    "position": In(7),
    "byte": Out(8),
    "release": In(1),
})

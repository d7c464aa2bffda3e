"""Cycle counts of the fabric that follow from how it is built, not from what it must do.

All of them in one place, so that a re-timed stage is one changed number. "Seen" means behind the input register: a byte
is seen ``rx_register`` cycles after it was on the pins.
"""

from dataclasses import dataclass

from hdl.book import by_level
from hdl.feed import arbiter
from hdl.order import timing as port
from hdl.quote import scheduler

__all__ = ["Timing"]


@dataclass(frozen=True)
class Timing:
    """Delays in cycles.

    Attributes
    ----------
    rx_register : from a byte on the receive pins to the same byte seen.
    rx_verdict : from the cycle after a frame's last byte is seen to the receiver's verdict on it.
    verify : verify-then-quote: from that verdict on a good frame to its first byte leaving the buffer.
    packet_end : from the verdict on a frame to the cycle in which its packet is over.
    arbiter : from the byte with which a sequence number is looked at to what becomes of its packet.
    load : from the start of a background evaluation to the cycle in which its rows are in registers: what is looked at
        then (touched, stale) counts.
    settle : from the cycle in which the host's fetch of an instrument's rows starts to the one in which its word on a
        position takes effect.
    decision : from that start to the cycle in which its frame may start. On a trigger byte: none, it starts in the
        cycle in which the byte is seen.
    rooms : from the cycle of which G12 and G13 take the sums over all instruments to that decision.
    weigh_background, weigh_direct : from a decision to the cycle in which the scheduler learns that it has to be
    repeated. leave : from there to the cycle in which its record stands and its content counts as live.
    foreign : from the cycle in which a SecurityID is seen to the one in which it proves to be another.
    book_update : cycles from an entry that changes a book to the last one in which that book is put back.
    heartbeat : from a heartbeat's write to the cycle from which the dead-man counts.
    tx_register : from the start of a frame to its first preamble byte on the pins.
    register : from the execution of a register write (``dbg_reg_we``) to the cycle in which it acts.
    kill_pin : from the pin to the cycle in which the gate sees it.
    verdict : from the end of a frame on the order port (the cycle after its last byte is seen) to the session's
        verdict on it; what follows from it stands one cycle later.
    room : from the same end to the cycle in which a larger peer window can make the port ready.
    hand_over : from the action of ``session_enable`` to the same.
    listen : from the action of ``session_enable`` to the cycle in which the exchange's messages begin anew.
    owned : from that action to the cycle from which on the peer's frames can be of the session.
    """

    rx_register: int = 1
    rx_verdict: int = 1
    verify: int = 3
    packet_end: int = 2
    arbiter: int = arbiter.ANSWER_CYCLES
    load: int = scheduler.LOAD_CYCLES
    settle: int = scheduler.SETTLE_CYCLES
    decision: int = scheduler.DECISION_CYCLES
    rooms: int = scheduler.DECISION_CYCLES - scheduler.LOAD_CYCLES + 1
    weigh_background: int = scheduler.WEIGH_BACKGROUND
    weigh_direct: int = scheduler.WEIGH_DIRECT
    leave: int = scheduler.LEAVE_CYCLES
    foreign: int = 4
    book_update: int = by_level.UPDATE_CYCLES - 1
    heartbeat: int = 2
    tx_register: int = port.PREAMBLE_AFTER_START
    register: int = 1
    kill_pin: int = 2
    verdict: int = port.RX_EOF_TO_STATE - 1
    room: int = port.RX_EOF_TO_ROOM
    hand_over: int = port.SESSION_ENABLE_TO_READY
    listen: int = 8
    owned: int = port.SESSION_ENABLE_TO_OWNED

    @staticmethod
    def busy(length):
        """Cycles from the start of a frame of ``length`` bytes (without padding and FCS) to the next possible start."""
        return port.busy_cycles(length)

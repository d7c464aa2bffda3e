"""What can be plugged into the Ethernet ports of the virtual board.

An attachment has two methods. ``frames_until(cycle)`` gives what it wants on the wire before that cycle;
``frame_sent(frame)`` is told of a frame that the core sent on its port, and may answer. Both return injections.
:class:`Wires` runs the board and carries frames between it and its attachments.
"""

import select
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hdl.layout import net
from sim.board.board import Stop, TxFrame, VirtualBoard
from sim.board.captures import CaptureWriter

__all__ = ["Attachment", "Injection", "PcapSink", "Peer", "Source", "TapPort", "Wires"]


@dataclass(frozen=True)
class Injection:
    """A frame for the core: from destination address on, without FCS.

    Attributes
    ----------
    frame : bytes
    start : int
        Cycle of its first preamble byte; the first chance if that has passed.
    """

    frame: bytes
    start: int = 0


class Attachment(Protocol):
    """Something at the other end of a port's wire."""

    #: The board shall stop at the end of each frame that the core sends on this port, so that the answer to it
    #: comes in the very cycle that it names. Otherwise frames are told at the end of a burst.
    prompt: bool

    def frames_until(self, cycle: int) -> Iterable[Injection]: ...

    def frame_sent(self, frame: TxFrame) -> Iterable[Injection]: ...

    def close(self) -> None: ...


class Source:
    """Sends given frames at given cycles.

    Parameters
    ----------
    frames, starts : sequences of equal length
        In the order of sending; a start that lies before the one ahead of it is moved by the board.
    """

    prompt = False

    def __init__(self, frames: Sequence[bytes], starts: Sequence[int]):
        if len(frames) != len(starts):
            raise ValueError(f"{len(frames)} frames but {len(starts)} start cycles; there must be one for each")
        self._frames, self._starts, self._next = frames, starts, 0

    @property
    def done(self) -> bool:
        """All frames have been handed to the board."""
        return self._next == len(self._frames)

    def frames_until(self, cycle: int) -> list[Injection]:
        begin = self._next
        while not self.done and self._starts[self._next] < cycle:
            self._next += 1
        return [Injection(self._frames[i], int(self._starts[i])) for i in range(begin, self._next)]

    def frame_sent(self, frame: TxFrame) -> tuple[Injection, ...]:
        return ()

    def close(self) -> None:
        pass


class PcapSink:
    """Writes what the core sends to a capture.

    Time stamps are those of the first preamble byte on the pins: 8 ns for each cycle since reset, plus ``epoch_ns``.
    Frames with faults are written too, as they are.
    """

    prompt = False

    def __init__(self, path: str | Path, epoch_ns: int = 0):
        self._writer = CaptureWriter(path)
        self._epoch_ns = epoch_ns

    def frames_until(self, cycle: int) -> tuple[Injection, ...]:
        return ()

    def frame_sent(self, frame: TxFrame) -> tuple[Injection, ...]:
        self._writer.write(self._epoch_ns + frame.start_ns, frame.frame)
        return ()

    def close(self) -> None:
        self._writer.close()


class Peer:
    """A station inside this process, at the end of a wire of given length.

    Parameters
    ----------
    answer : callable
        Called with (frame without FCS, cycle in which its last byte had passed the wire and its delay); returns
        (frame, delay in cycles) pairs that it sends in answer, in this order.
    delay : int
        Cycles that a frame takes each way, on top of its own length. At least 1.
    poll : callable
        Called with a cycle before which frames that are no answers may be sent: returns (frame, cycle) pairs.
    """

    prompt = True

    def __init__(self, answer: Callable[[bytes, int], Iterable[tuple[bytes, int]]], *, delay: int = 1,
                 poll: Callable[[int], Iterable[tuple[bytes, int]]] | None = None):
        if delay < 1:
            raise ValueError(f"a delay of {delay} cycles would answer before the frame has ended; at least 1")
        self._answer, self._delay, self._poll = answer, delay, poll

    def frames_until(self, cycle: int) -> list[Injection]:
        return [Injection(frame, start + self._delay) for frame, start in self._poll(cycle)] if self._poll else []

    def frame_sent(self, frame: TxFrame) -> list[Injection]:
        arrived = frame.end + self._delay
        return [Injection(reply, arrived + after + self._delay) for reply, after in self._answer(frame.frame, arrived)]

    def close(self) -> None:
        pass


class TapPort:
    """A TAP interface of this machine's kernel: see :mod:`sim.board.tap` for how to come by one.

    The kernel lives in real time and the core in simulated time, so frames from it start at the first chance.

    Parameters
    ----------
    tap : :class:`sim.board.tap.Tap`
    ethertype : int
        Only frames of this EtherType pass, either way, as through a switch that filters; ``None``: all.
    """

    prompt = False

    def __init__(self, tap, ethertype: int | None = None):
        self._tap, self._ethertype = tap, ethertype

    def _passes(self, frame: bytes) -> bool:
        return self._ethertype in (None, net.ETHERNET.unpack(frame)["ethertype"])

    def frames_until(self, cycle: int) -> list[Injection]:
        injections = []
        while select.select([self._tap], [], [], 0)[0]:
            frame = self._tap.read()
            if self._passes(frame):
                injections.append(Injection(frame))
        return injections

    def frame_sent(self, frame: TxFrame) -> tuple[Injection, ...]:
        if not frame.faults and self._passes(frame.frame):      # a network card would not pass on a broken frame either
            self._tap.write(frame.frame)
        return ()

    def close(self) -> None:
        self._tap.close()


class Wires:
    """Runs a board together with what is attached to its ports.

    Every port may have several attachments: all of them hear what the core sends, and each may send.
    The same attachments and bursts give the same cycles again, as long as the attachments themselves do.

    Parameters
    ----------
    board : VirtualBoard
    burst : int
        Most cycles between two visits to the attachments.
    """

    def __init__(self, board: VirtualBoard, *, burst: int = 10_000):
        if burst < 1:
            raise ValueError(f"a burst is {burst} cycles, must be at least 1")
        self.board = board
        self.burst = burst
        self._attached: list[tuple[str | int, Attachment]] = []

    def attach(self, port: str | int, attachment: Attachment) -> None:
        """Plug something into a port. Raises :class:`~sim.board.board.BoardError` if there is no such port."""
        self.board.rx_pending(port)
        self._attached.append((port, attachment))

    def run_until(self, cycle: int) -> None:
        """Run up to and not including ``cycle``."""
        while (now := self.board.cycle) < cycle:
            end = min(cycle, now + self.burst)
            for port, attachment in self._attached:
                self._inject(port, attachment.frames_until(end))
            prompt = any(attachment.prompt for _, attachment in self._attached)
            while self.board.cycle < end:
                self.board.run_until(end, Stop.TX if prompt else Stop.NEVER)
                self._deliver()

    def run(self, cycles: int) -> None:
        """Run a number of cycles."""
        self.run_until(self.board.cycle + cycles)

    def _deliver(self) -> None:
        for index, name in enumerate(self.board.ports):
            if name not in self.board.build.transmitting:
                continue
            attached = [(port, attachment) for port, attachment in self._attached if port in (index, name)]
            for frame in self.board.take_tx(index) if attached else ():
                for port, attachment in attached:
                    self._inject(port, attachment.frame_sent(frame))

    def _inject(self, port: str | int, injections: Iterable[Injection]) -> None:
        injections = list(injections)
        if injections:
            self.board.inject_many(port, [each.frame for each in injections], [each.start for each in injections])

    def close(self) -> None:
        """Close all attachments; the board stays open."""
        for _, attachment in self._attached:
            attachment.close()
        self._attached.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

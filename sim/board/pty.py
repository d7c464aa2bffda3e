"""The board's host link on a pseudo-terminal, for programs that expect a serial port."""

import errno
import fcntl
import os
import struct
import termios
import tty

from sim.board.board import VirtualBoard

__all__ = ["LinkPty"]

CHUNK = 65536           # bytes moved at once


class LinkPty:
    """Joins the byte link of a board to a pseudo-terminal, whose other end opens like any serial port.

    Nothing moves by itself: :meth:`pump` moves what can be moved, and is called between bursts. No byte is ever lost;
    if the host does not read, bytes wait first in the terminal, then here, and from ``room`` bytes on the core is held
    back by its ``link_tx_ready``.

    **Lockstep**: with the counts of a host that keeps its own, everything in transit is known. All is quiet when
    ``to_host == host's bytes read``, ``from_host == host's bytes written``, ``board.link_waiting == 0`` and
    ``backlog == 0``. A host in another process can be watched by :meth:`unread`. pyserial throws away what already lies
    in the terminal when it opens it, so the counts agree only if the host opens the port before the first byte comes.

    Parameters
    ----------
    board : VirtualBoard
        Its ``link_read`` and ``link_write`` belong to this object from now on.
    room : int
        Unread bytes at which the core is held back.

    Attributes
    ----------
    path : str
        Device to open, e.g. with pyserial; any baud rate will do.
    to_host : int
        Bytes from the core that have been handed to the terminal.
    from_host : int
        Bytes from the host that have been queued for the core.
    """

    def __init__(self, board: VirtualBoard, *, room: int = 1 << 20):
        self._board = board
        self._room = room
        self._backlog = bytearray()
        self.to_host = 0
        self.from_host = 0
        self._master, self._slave = os.openpty()
        # Our own handle on the host's end keeps the terminal alive while no host has it open, and must not echo.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        board.link_pace(room=room)

    @property
    def backlog(self) -> int:
        """Bytes from the core that the terminal has no room for yet."""
        return len(self._backlog)

    def unread(self) -> int:
        """Bytes that lie in the terminal and that the host has not read.

        The kernel moves bytes to the reader's side a moment after they are written: a 0 straight after
        :meth:`pump` may be early; one that stays is true.
        """
        return struct.unpack("i", fcntl.ioctl(self._slave, termios.FIONREAD, bytes(4)))[0]

    def pump(self) -> int:
        """Move bytes both ways, as many as there are and fit, without waiting. Returns the number moved."""
        if self._master < 0:
            raise ValueError(f"the pseudo-terminal {self.path} is closed")
        moved = 0
        while data := self._read():
            self._board.link_write(data)
            self.from_host += len(data)
            moved += len(data)
        if len(self._backlog) < self._room:
            self._backlog += self._board.link_read()
        while self._backlog:
            try:
                written = os.write(self._master, memoryview(self._backlog)[:CHUNK].tobytes())
            except BlockingIOError:
                break
            del self._backlog[:written]
            self.to_host += written
            moved += written
        return moved

    def _read(self) -> bytes:
        try:
            return os.read(self._master, CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EIO:        # hung up: cannot be while our own handle is open, but is no data
                return b""
            raise

    def discard(self) -> int:
        """Throw away what the host has not read, in the terminal and here. Returns the number of bytes here.

        For a host that is not there: a real line has no memory.
        """
        gone = len(self._backlog)
        self._backlog.clear()
        termios.tcflush(self._slave, termios.TCIFLUSH)
        return gone

    def fileno(self) -> int:
        """Readable when the host has written: for ``select``."""
        return self._master

    def close(self) -> None:
        """Close both ends; the host sees the port disappear. A second close does nothing."""
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

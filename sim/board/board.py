"""The virtual board, driven from Python in bursts of clock cycles."""

import ctypes
import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.board import verilate
from sim.board.verilate import Design

__all__ = ["CYCLE_NS", "BoardError", "Faults", "Inject", "Stop", "TxFrame", "VirtualBoard"]

CYCLE_NS = 8
FCS_SIZE = 4
LARGEST_INJECTION = 65536       # bytes; far above any frame, far below what would exhaust memory by mistake

_INJECTION = np.dtype([("start", "<i8"), ("offset", "<u8"), ("length", "<u4"), ("flags", "<u4"),
                       ("keep", "<i4"), ("er_at", "<i4")])
_CAPTURE = np.dtype([("start", "<i8"), ("offset", "<u8"), ("length", "<u4"), ("errors", "<u4"),
                     ("gap", "<u4"), ("unused", "<u4")])
_REGISTER_WRITE = np.dtype([("cycle", "<i8"), ("address", "<u4"), ("data", "<u4")])
_HOST_TX = np.dtype([("cycle", "<i8"), ("kind", "<u4"), ("length", "<u4")])

_ABI = 1


class BoardError(Exception):
    """The virtual board was asked for something that it cannot do."""


class Inject(enum.IntFlag):
    """How bytes become a frame on the wire. 0: preamble, padding to 60 bytes, right FCS."""

    RAW = 1             #: the bytes carry their own FCS, right or wrong, and are not padded
    BAD_FCS = 2         #: the lowest bit of the last byte on the wire is inverted
    NO_PREAMBLE = 4     #: the bytes are the whole carrier burst, preamble and delimiter included
    NO_PAD = 8          #: a short frame stays short, but gets a right FCS


class Stop(enum.IntFlag):
    """What ends a burst before its last cycle. The cycle in which it happens is still run."""

    NEVER = 0
    TX = 1              #: a frame sent by the core has ended (its first idle cycle is the last cycle run)
    RX_IDLE = 2         #: the last byte of the last injected frame is on the wire, on all ports
    LINK_OUT = 4        #: the core has sent a byte to the host


class Faults(enum.IntFlag):
    """What is wrong with a frame that the core sent."""

    PREAMBLE = 1        #: not seven bytes 0x55 and one 0xD5
    FCS = 2
    SHORT = 4           #: below 64 bytes with FCS
    LONG = 8            #: above 1522 bytes with FCS
    IFG = 16            #: fewer than 12 idle cycles before it
    TX_ER = 32          #: tx_er was 1 in one of its cycles


@dataclass(frozen=True)
class TxFrame:
    """A frame that the core sent.

    Attributes
    ----------
    start : int
        Cycle in which the first preamble byte was on the pins.
    data : bytes
        From destination address to FCS, both included.
    faults : Faults
        Empty if everything about the frame is right.
    gap : int
        Idle cycles before it; a very large number for the first.
    """

    start: int
    data: bytes
    faults: Faults
    gap: int

    @property
    def frame(self) -> bytes:
        """The frame without its FCS."""
        return self.data[:-FCS_SIZE]

    @property
    def end(self) -> int:
        """First idle cycle after the frame, given that its preamble is right."""
        return self.start + 8 + len(self.data)

    @property
    def start_ns(self) -> int:
        return self.start * CYCLE_NS


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, size, i64, u32, u64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64
    out_size = ctypes.POINTER(size)
    signatures = {
        "board_abi": (u32, []),
        "board_new": (pointer, []),
        "board_free": (None, [pointer]),
        "board_reset": (None, [pointer, i64]),
        "board_run": (i64, [pointer, i64, u32]),
        "board_cycle": (i64, [pointer]),
        "board_kill": (None, [pointer, ctypes.c_int]),
        "board_feed_lost": (None, [pointer, ctypes.c_int]),
        "board_inject": (None, [pointer, u32, pointer, size, ctypes.c_char_p]),
        "board_set_ifg": (None, [pointer, u32, u32]),
        "board_rx_pending": (size, [pointer, u32]),
        "board_rx_starts": (pointer, [pointer, u32, out_size]),
        "board_tx": (pointer, [pointer, u32, out_size, ctypes.POINTER(pointer), out_size]),
        "board_tx_clear": (None, [pointer, u32]),
        "board_link_write": (None, [pointer, ctypes.c_char_p, size, i64]),
        "board_link_read": (pointer, [pointer, out_size]),
        "board_link_clear": (None, [pointer]),
        "board_link_counts": (None, [pointer, *[ctypes.POINTER(u64)] * 3]),
        "board_link_pace": (None, [pointer, i64, i64, u64]),
        "board_register_writes": (pointer, [pointer, out_size]),
        "board_register_writes_clear": (None, [pointer]),
        "board_host_tx": (pointer, [pointer, out_size]),
        "board_host_tx_clear": (None, [pointer]),
        "board_trace_open": (ctypes.c_int, [pointer, ctypes.c_char_p]),
        "board_trace_close": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if (abi := library.board_abi()) != _ABI:
        raise BoardError(f"{path} has interface version {abi}, this program needs {_ABI}")
    return library


def _records(address: int | None, count: int, dtype: np.dtype) -> np.ndarray:
    if not count:
        return np.empty(0, dtype)
    return np.frombuffer(ctypes.string_at(address, count * dtype.itemsize), dtype)


class VirtualBoard:
    """A Verilated design as a device: GMII ports that take and give whole frames, and a byte link to the host.

    Cycle 0 is the first cycle after reset; a cycle lasts 8 ns. Everything queued for a cycle that has passed happens
    at the first chance. The object is not for several threads at once, but other threads run while it simulates.

    Parameters
    ----------
    design : Design
        What to simulate; the core with its default parameters if not given. Ports are found by name: GMII ports
        ``<port>_rxd``, ``_rx_dv``, ``_rx_er`` and optionally ``_txd``, ``_tx_en``, ``_tx_er``; the link
        ``link_rx_*`` and ``link_tx_*``; the observation outputs ``dbg_reg_*``, ``dbg_host_tx_*`` and
        ``dbg_link_tx_*``; ``kill_pin``; ``feed_lost``. Only ``clk`` and ``rst`` must be there. Inputs with other names
        are held at 0.
    trace : bool
        Build the slower variant that can write waveforms, for :meth:`trace`.
    progress : callable
        Called with (share done, what is done) while the design is built.

    Attributes
    ----------
    ports : tuple[str, ...]
        Names of the GMII ports, the feed first; wherever a port is asked for, its name or its index will do.

    Raises
    ------
    BuildError
        The design cannot be built here; the message says why.
    """

    def __init__(self, design: Design | None = None, *, trace: bool = False,
                 progress: verilate.Progress | None = None):
        self._board = None
        self.build = verilate.build(design, trace=trace, progress=progress)
        self.ports = self.build.ports
        self._traced = trace
        self._library = _load(self.build.library)
        self._board = self._library.board_new()
        if not self._board:
            raise BoardError(f"the model in {self.build.library} could not be created; is there memory left?")
        self.reset()

    def close(self) -> None:
        """Free the model. Further calls raise :class:`BoardError`; a second close does nothing."""
        if self._board:
            self._library.board_trace_close(self._board)
            self._library.board_free(self._board)
            self._board = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    @property
    def _handle(self) -> int:
        if not self._board:
            raise BoardError("the virtual board is closed")
        return self._board

    def _port(self, port: str | int, *, transmitting: bool = False) -> int:
        index = self.ports.index(port) if port in self.ports else port
        if not isinstance(index, int) or not 0 <= index < len(self.ports):
            raise BoardError(f"there is no port {port!r}; the ports are {', '.join(self.ports) or 'none'}")
        if transmitting and self.ports[index] not in self.build.transmitting:
            raise BoardError(f"port {self.ports[index]} cannot send; those that can: "
                             f"{', '.join(sorted(self.build.transmitting)) or 'none'}")
        return index

    def _need(self, feature: str) -> int:
        if feature not in self.build.features:
            raise BoardError(f"{self.build.verilog.name} has no {feature} pins; it has: "
                             f"{', '.join(sorted(self.build.features)) or 'none of the known groups'}")
        return self._handle

    # -- time

    @property
    def cycle(self) -> int:
        """The cycle that the next burst begins with; that many cycles have passed since reset."""
        return self._library.board_cycle(self._handle)

    def reset(self, cycles: int = 4) -> None:
        """Hold reset for some cycles. Cycle count, queues and logs start anew; link pace, kill pin and ``feed_lost``
        stay."""
        if cycles < 1:
            raise BoardError(f"a reset of {cycles} cycles is none; it takes at least 1")
        self._library.board_reset(self._handle, cycles)

    def run(self, cycles: int, stop: Stop = Stop.NEVER) -> int:
        """Run a burst, and return the number of cycles run: ``cycles``, or fewer if ``stop`` ended it."""
        if cycles < 0:
            raise BoardError(f"cannot run {cycles} cycles; time goes forward")
        return self._library.board_run(self._handle, cycles, int(stop))

    def run_until(self, cycle: int, stop: Stop = Stop.NEVER) -> int:
        """Run up to and not including ``cycle``; nothing if it has passed. Returns the number of cycles run."""
        return self.run(max(0, cycle - self.cycle), stop)

    # -- Ethernet

    def inject(self, port: str | int, frame: bytes, start: int = 0, flags: Inject = Inject(0), *,
               keep: int | None = None, rx_er_at: int | None = None) -> None:
        """Queue one frame for a port.

        Frames of a port keep their order, 12 idle cycles apart at least, so a frame may start later than asked for;
        :meth:`rx_starts` tells.

        Parameters
        ----------
        frame : bytes
            From destination address on, without FCS (unless ``flags`` say otherwise).
        start : int
            Cycle in which its first preamble byte shall be on the pins.
        flags : Inject
            Ways in which it differs from a proper frame.
        keep : int
            Number of bytes after which the carrier drops, counted from the first preamble byte.
        rx_er_at : int
            Index, counted likewise, of a byte that comes with ``rx_er``.
        """
        self.inject_many(port, [frame], [start], flags, keep=keep, rx_er_at=rx_er_at)

    def inject_many(self, port: str | int, frames: Sequence[bytes], starts: Sequence[int],
                    flags: Inject = Inject(0), *, keep: int | None = None, rx_er_at: int | None = None) -> None:
        """Queue many frames with one call; see :meth:`inject`."""
        if len(frames) != len(starts):
            raise BoardError(f"{len(frames)} frames but {len(starts)} start cycles; there must be one for each")
        if keep is not None and keep < 1:
            raise BoardError(f"keep is {keep}; at least 1 byte of a frame must be on the wire")
        if rx_er_at is not None and rx_er_at < 0:
            raise BoardError(f"rx_er_at is {rx_er_at}, must be the index of a byte on the wire, 0 or more")
        for frame in frames:
            if not frame and (flags & Inject.NO_PREAMBLE) and (flags & Inject.RAW):
                raise BoardError("a frame without preamble and without bytes cannot be on the wire")
            if len(frame) > LARGEST_INJECTION:
                raise BoardError(f"a frame of {len(frame)} bytes is too long, the most is {LARGEST_INJECTION}")
        lengths = np.fromiter(map(len, frames), np.int64, len(frames))
        table = np.zeros(len(frames), _INJECTION)
        table["start"] = starts
        table["length"] = lengths
        table["offset"] = np.cumsum(lengths) - lengths
        table["flags"] = int(flags)
        table["keep"] = -1 if keep is None else keep
        table["er_at"] = -1 if rx_er_at is None else rx_er_at
        self._library.board_inject(self._handle, self._port(port), table.ctypes.data, len(frames), b"".join(frames))

    def set_gap(self, port: str | int, cycles: int) -> None:
        """Least number of idle cycles between injected frames; 12 is the standard's, 1 the least."""
        if cycles < 1:
            raise BoardError(f"a gap of {cycles} cycles is none; it takes at least 1")
        self._library.board_set_ifg(self._handle, self._port(port), cycles)

    def rx_pending(self, port: str | int) -> int:
        """Injected frames whose last byte has not been on the wire yet."""
        return self._library.board_rx_pending(self._handle, self._port(port))

    def rx_starts(self, port: str | int) -> np.ndarray:
        """Cycle of the first byte of every frame that has begun since reset, in the order of injection."""
        count = ctypes.c_size_t()
        address = self._library.board_rx_starts(self._handle, self._port(port), ctypes.byref(count))
        return _records(address, count.value, np.dtype("<i8"))

    def take_tx(self, port: str | int = "order") -> list[TxFrame]:
        """The frames that have ended since the last call, oldest first. A frame under way comes when it has ended."""
        index = self._port(port, transmitting=True)
        count, size, data = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
        address = self._library.board_tx(self._handle, index, ctypes.byref(count), ctypes.byref(data),
                                         ctypes.byref(size))
        if not count.value:
            return []
        records = _records(address, count.value, _CAPTURE).tolist()
        blob = ctypes.string_at(data, size.value)
        self._library.board_tx_clear(self._handle, index)
        return [TxFrame(start, blob[offset:offset + length], Faults(faults), gap)
                for start, offset, length, faults, gap, _ in records]

    # -- link to the host

    def link_write(self, data: bytes, start: int = 0) -> None:
        """Queue bytes from the host. They are offered to the core from cycle ``start`` on, as fast as it takes them."""
        self._library.board_link_write(self._need("link"), bytes(data), len(data), start)

    def link_read(self) -> bytes:
        """All bytes that the core has sent to the host since the last call."""
        size = ctypes.c_size_t()
        address = self._library.board_link_read(self._need("link"), ctypes.byref(size))
        if not size.value:
            return b""
        data = ctypes.string_at(address, size.value)
        self._library.board_link_clear(self._handle)
        return data

    def _link_counts(self) -> tuple[int, int, int]:
        consumed, produced, waiting = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()
        self._library.board_link_counts(self._need("link"), ctypes.byref(consumed), ctypes.byref(produced),
                                        ctypes.byref(waiting))
        return consumed.value, produced.value, waiting.value

    @property
    def link_consumed(self) -> int:
        """Bytes from the host that the core has taken since reset."""
        return self._link_counts()[0]

    @property
    def link_produced(self) -> int:
        """Bytes that the core has sent to the host since reset."""
        return self._link_counts()[1]

    @property
    def link_waiting(self) -> int:
        """Bytes from the host that the core has not taken yet."""
        return self._link_counts()[2]

    def link_pace(self, *, to_core: int = 1, to_host: int = 1, room: int | None = None) -> None:
        """Slow the link down, as a real one would.

        Parameters
        ----------
        to_core, to_host : int
            Least number of cycles from one byte to the next, in each direction.
        room : int
            Number of unread bytes at which the board takes no more from the core; no limit if not given.
        """
        if to_core < 1 or to_host < 1 or (room is not None and room < 1):
            raise BoardError(f"link pace {to_core}, {to_host} cycles a byte, room {room}: each must be 1 or more")
        self._library.board_link_pace(self._need("link"), to_core, to_host, 2**64 - 1 if room is None else room)

    # -- observation

    def take_register_writes(self) -> np.ndarray:
        """Register writes executed since the last call: fields ``cycle``, ``address`` (words), ``data``."""
        count = ctypes.c_size_t()
        address = self._library.board_register_writes(self._need("reg_log"), ctypes.byref(count))
        records = _records(address, count.value, _REGISTER_WRITE)
        self._library.board_register_writes_clear(self._handle)
        return records

    def take_host_tx(self) -> np.ndarray:
        """What became available for sending since the last call: fields ``cycle``, ``kind`` (0: the host's Ethernet
        frame, 1: its session message, 2: a frame of the host link) and ``length`` (of a frame of the host link, bytes
        without padding and FCS; otherwise 0)."""
        count = ctypes.c_size_t()
        address = self._library.board_host_tx(self._need("host_tx_log"), ctypes.byref(count))
        records = _records(address, count.value, _HOST_TX)
        self._library.board_host_tx_clear(self._handle)
        return records

    def kill(self, level: bool) -> None:
        """Set the kill pin from the next cycle on."""
        self._library.board_kill(self._need("kill"), int(level))

    def feed_lost(self, level: bool) -> None:
        """Say from the next cycle on that the feed port's link or clock is gone, or back."""
        self._library.board_feed_lost(self._need("feed_lost"), int(level))

    @contextmanager
    def trace(self, path: str | Path) -> Iterator[None]:
        """Write the waveforms of all cycles run inside the ``with`` block to a VCD file.

        Times in it are nanoseconds: cycle ``c`` lasts from the rising edge at ``8 * c`` to the next one. The inputs of
        the design are ``registered_`` and the name of the pin.
        """
        if not self._traced:
            raise BoardError("this board was built without waveforms; make it with VirtualBoard(..., trace=True)")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._library.board_trace_open(self._handle, str(path).encode()):
            raise BoardError(f"{path} cannot be written")
        try:
            yield
        finally:
            self._library.board_trace_close(self._handle)



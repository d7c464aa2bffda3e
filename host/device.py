"""The card as the host sees it, whatever the transport.

A device takes register writes and reads, frames and session messages, and gives records. It never blocks: what the
transport does not take now waits (:attr:`Device.unsent`), what has not come yet comes with a later :meth:`Device.poll`.
The same object serves an event loop (:meth:`Device.readable`) and a lock-step simulation (:attr:`Device.bytes_sent`,
``poll(received=...)``).
"""

import asyncio
import time
from abc import ABC, abstractmethod

from . import link


class DeviceError(RuntimeError):
    """The transport is gone or does not answer."""


class Reply:
    """Answer to a register read that may not have come yet: ``done``, then ``value`` (unsigned, 32 bits)."""

    __slots__ = ("address", "done", "value")

    def __init__(self, address):
        self.address, self.done, self.value = address, False, None


class Device(ABC):
    """Base of every device; a transport provides :meth:`_receive`, :meth:`_transmit`, :meth:`fileno`, :meth:`close`.

    Attributes
    ----------
    bytes_sent, bytes_received : totals over the link, for a simulation in lock step.
    bad_packets : packets with a right checksum that still could not be read.
    epoch : what every write, frame and message says of its writer: the card refuses it if it has seen a greater one.
    commands_lost : times that the transport is known to have lost commands; whatever was in them was not done.
    """

    def __init__(self):
        self._decoder, self._outgoing = link.Decoder(), bytearray()
        self._replies, self._tag, self.epoch = {}, 0, 0
        self.bytes_sent = self.bytes_received = self.bad_packets = self.commands_lost = 0

    # -- transport ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _receive(self):
        """Bytes that are there now (``b""`` if none), without waiting. Raises :class:`DeviceError` if it is gone."""

    @abstractmethod
    def _transmit(self, data):
        """Number of bytes of ``data`` that the transport took now, without waiting."""

    @abstractmethod
    def fileno(self):
        """File descriptor that becomes readable when something comes."""

    @abstractmethod
    def close(self):
        """Give the transport back."""

    # -- commands -----------------------------------------------------------------------------------------------

    def write(self, address, *words):
        """Write 32-bit ``words`` to consecutive word addresses."""
        self._outgoing += link.encode_write(address, words, self.epoch)

    def read(self, address):
        """Ask for one register; returns a :class:`Reply`."""
        for _ in range(256):
            self._tag = (self._tag + 1) & 0xFF
            if self._tag not in self._replies:
                break
        else:
            raise DeviceError("256 register reads are unanswered; the card does not answer")
        reply = self._replies[self._tag] = Reply(address)
        self._outgoing += link.encode_read(self._tag, address)
        return reply

    def send_frame(self, frame):
        """Send an Ethernet frame (no FCS, no padding needed) on the order port."""
        self._outgoing += link.encode_tx("FrameTx", frame, self.epoch)

    def send_session(self, message):
        """Send a whole session message in the fabric's TCP stream; the fabric patches numbers and time."""
        self._outgoing += link.encode_tx("SessionTx", message, self.epoch)

    # -- moving bytes -------------------------------------------------------------------------------------------

    @property
    def unsent(self):
        """Bytes that the transport has not taken yet."""
        return len(self._outgoing)

    def flush(self):
        """Hand over what the transport takes now; returns the bytes left."""
        while self._outgoing:
            taken = self._transmit(bytes(self._outgoing[:4096]))
            if not taken:
                break
            self.bytes_sent += taken
            del self._outgoing[:taken]
        return len(self._outgoing)

    def poll(self, received=None, timeout_s=10.0):
        """Records that are complete now; answers to reads settle their :class:`Reply` and are not among them.

        With ``received`` (a total like :attr:`bytes_received`) it waits until that many bytes have come, at most
        ``timeout_s``; raises :class:`DeviceError` if they do not.
        """
        deadline = time.monotonic() + timeout_s
        records = []
        while received is None or self.bytes_received < received:
            data = self._receive()
            if data:
                self.bytes_received += len(data)
                for kind, payload in self._decoder.feed(data):
                    self._parse(kind, payload, records)
            elif received is None:
                break
            elif time.monotonic() > deadline:
                raise DeviceError(f"the link stopped at byte {self.bytes_received}, {received} were sent to the host")
        return records

    def abandon(self):
        """The line has been silent: records behind a false start byte, if any."""
        records = []
        for kind, payload in self._decoder.abandon():
            self._parse(kind, payload, records)
        return records

    def _parse(self, kind, payload, records):
        try:
            record = link.parse(kind, payload)
        except link.LinkError:
            self.bad_packets += 1
            return
        if not isinstance(record, link.ReadReply):
            records.append(record)
            return
        reply = self._replies.get(record.tag)
        if reply is None or reply.address != record.addr:
            self.bad_packets += 1
            return
        del self._replies[record.tag]
        reply.value, reply.done = record.data, True

    @property
    def errors(self):
        """Damage seen on the link, by kind."""
        return {**self._decoder.errors, "payload": self.bad_packets}

    @property
    def incomplete(self):
        """Bytes of a packet whose end has not come."""
        return self._decoder.incomplete

    async def readable(self, wake, timeout_s):
        """Wait in an event loop until something comes, ``wake`` (an :class:`asyncio.Event`) is set or time is up."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.fileno(), wake.set)
        try:
            await asyncio.wait_for(wake.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self.fileno())
            wake.clear()

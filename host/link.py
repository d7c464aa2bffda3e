"""Codec of the host link: packets with a checksum on a byte stream, both directions.

The layouts are those of the schema ``t2q_link``: a ``LinkHeader`` (start byte, type, length), the payload, a
``LinkTrailer`` with a CRC-16 (CCITT, polynomial 0x1021, initial value 0xFFFF) over everything after the start byte.
"""

import binascii
import re
from collections import Counter, namedtuple

from hdl.layout import sbe

SCHEMA = sbe.load("t2q_link")
HEADER, TRAILER = SCHEMA.composites["LinkHeader"], SCHEMA.composites["LinkTrailer"]
_WORD = SCHEMA.composites["RegisterWord"]["data"]
START = 0xA5
MAX_PAYLOAD = 1600  #: bytes; a longer length is an error
FROM_FABRIC = 0x80  #: set in the type of every packet that the fabric sends

#: Most registers that one Write packet can carry.
MAX_WORDS = (MAX_PAYLOAD - SCHEMA["Write"].block_length) // _WORD.size


class LinkError(ValueError):
    """A packet cannot be made from what was given, or a payload is not what its type says."""


def _snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _record(name):
    message = SCHEMA[name]
    return namedtuple(name, [_snake(f) for f in message.fields])


#: Records, one class per packet of the fabric; fields in snake case with the units of the schema.
ReadReply, Decision, Event, SessionSent = (_record(n) for n in ("ReadReply", "Decision", "Event", "SessionSent"))
FrameRx = namedtuple("FrameRx", ["frame"])
SessionRx = namedtuple("SessionRx", ["payload"])

_FIXED = {SCHEMA[c.__name__].id: (c, SCHEMA[c.__name__]) for c in (ReadReply, Decision, Event, SessionSent)}
_RAW = {SCHEMA[c.__name__].id: c for c in (FrameRx, SessionRx)}
#: Outcomes and event codes by value, for people.
OUTCOMES = {v: k for k, v in SCHEMA.enums["Outcome"].items()}
EVENT_CODES = {v: k for k, v in SCHEMA.enums["EventCode"].items()}


def crc(data, value=0xFFFF):
    """CRC-16/CCITT of ``data``."""
    return binascii.crc_hqx(data, value)


def encode(kind, payload=b""):
    """One packet. ``kind`` is a packet name of the schema (``"Write"``); raises :class:`LinkError` if too long."""
    if len(payload) > MAX_PAYLOAD:
        raise LinkError(f"{kind} of {len(payload)} bytes: a packet carries at most {MAX_PAYLOAD}")
    packet = HEADER.pack(start=START, type=SCHEMA[kind].id, length=len(payload)) + payload
    return packet + TRAILER.pack(crc=crc(packet[1:]))


def encode_write(address, words, epoch=0):
    """Packets that write ``words`` (32 bits each) to consecutive addresses, on behalf of a writer's ``epoch``."""
    out = b""
    for start in range(0, len(words), MAX_WORDS):
        payload = SCHEMA["Write"].encode({"addr": address + start, "epoch": epoch})
        for word in words[start:start + MAX_WORDS]:
            payload += _WORD.pack(word)
        out += encode("Write", payload)
    return out


def encode_tx(kind, data, epoch=0):
    """A ``"FrameTx"`` or ``"SessionTx"`` with ``data``, on behalf of a writer's ``epoch``."""
    return encode(kind, SCHEMA[kind].encode({"epoch": epoch}) + bytes(data))


def parse_tx(kind, payload):
    """(epoch, data) of a packet of :func:`encode_tx`."""
    message = SCHEMA[kind]
    return message["epoch"].unpack(payload), bytes(payload[message.block_length:])


def parse_write(payload):
    """(address, words) of a Write packet."""
    at, size = SCHEMA["Write"].block_length, _WORD.size
    return SCHEMA["Write"]["addr"].unpack(payload), [
        _WORD.unpack(payload, word) for word in range(at, len(payload), size)]


def encode_read(tag, address):
    """Packet that asks for one register; the answer carries ``tag`` (0..255)."""
    return encode("Read", SCHEMA["Read"].encode({"tag": tag, "addr": address}))


def parse(kind, payload):
    """Record of one packet of the fabric. Raises :class:`LinkError` for a type or length that does not exist."""
    if kind in _RAW:
        return _RAW[kind](bytes(payload))
    if kind not in _FIXED:
        known = ", ".join(f"{k:#04x}" for k in sorted(_FIXED | _RAW))
        raise LinkError(f"packet type {kind:#04x} is unknown; the fabric sends {known}")
    record, message = _FIXED[kind]
    if len(payload) != message.block_length:
        raise LinkError(f"{message.name} of {len(payload)} bytes, must be {message.block_length}")
    return record(*(f.unpack(payload) for f in message.fields.values()))


class Decoder:
    """Packets out of a byte stream that may hold anything.

    A start byte whose packet turns out wrong (length, checksum or type) is skipped and the search goes on with the
    byte after it, so that one damaged packet costs only itself, even if a start byte appears inside it.

    Parameters
    ----------
    known : packet types that are accepted (default: those of the fabric).

    Attributes
    ----------
    errors : Counter of ``"crc"``, ``"length"``, ``"type"`` and ``"skipped"`` (bytes outside packets).
    """

    def __init__(self, known=None):
        self._known = frozenset(_FIXED) | frozenset(_RAW) if known is None else frozenset(known)
        self._buffer = bytearray()
        self.errors = Counter()

    @property
    def incomplete(self):
        """Bytes of a packet whose end has not come yet."""
        return len(self._buffer)

    def feed(self, data):
        """List of (type, payload) of the packets that ``data`` completes."""
        self._buffer += data
        return self._scan(False)

    def abandon(self):
        """The line has been silent for long: what is incomplete will never be completed. Returns the packets that
        stood behind a false start."""
        return self._scan(True)

    def _scan(self, no_more):
        buffer, found, at = self._buffer, [], 0
        size, end = len(buffer), HEADER.size + TRAILER.size
        while at < size:
            if buffer[at] != START:
                next_start = buffer.find(START, at)
                next_start = size if next_start < 0 else next_start
                self.errors["skipped"] += next_start - at
                at = next_start
                continue
            bad, total = "", end
            if size - at >= HEADER.size:
                header = HEADER.unpack(buffer, at)
                total = end + header["length"]
                if header["type"] not in self._known:
                    bad = "type"
                elif header["length"] > MAX_PAYLOAD:
                    bad = "length"
            if not bad and size - at < total:
                if not no_more:
                    break
                bad = "length"
            if not bad:
                body = at + HEADER.size + header["length"]
                if TRAILER.unpack(buffer, body)["crc"] != crc(buffer[at + 1:body]):
                    bad = "crc"
            if bad:
                self.errors[bad] += 1
                self.errors["skipped"] += 1
                at += 1
            else:
                found.append((header["type"], bytes(buffer[at + HEADER.size:body])))
                at += total
        del buffer[:at]
        return found

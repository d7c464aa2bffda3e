"""From the bytes on the feed port to timed happenings: receive, match, arbitrate, walk.

Nothing here keeps the state of books or quotes. :func:`receive` and :func:`match` say what becomes of a frame,
:class:`Arbiter` which copy wins, :func:`walk` what an accepted packet contains and with which byte each thing is known.
Offsets in bytes become cycles in :mod:`sim.golden.model`.
"""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from hdl.layout import net, sbe

__all__ = ["Arbiter", "Happening", "Match", "WireFrame", "match", "receive", "walk"]

_MDP3 = sbe.load("cme_mdp3")
_BOOK = _MDP3["MDIncrementalRefreshBook46"]
_BOOK_IDS = (_MDP3["MDIncrementalRefreshBook32"].id, _BOOK.id)
_RESET_ID = _MDP3["ChannelReset4"].id
_ENTRIES = _BOOK.groups["NoMDEntries"]
_MIN_ENTRY = max(f.end for f in _ENTRIES.fields.values())
_PACKET = _MDP3.composites["PacketHeader"]
_FRAMING = _MDP3.composites["MessageFraming"]
_HEADER = _MDP3.composites["messageHeader"]
_PREFIX = _FRAMING.size + _HEADER.size
_INDICATOR_AT = {m.id: m["MatchEventIndicator"].offset for m in _MDP3.messages.values()
                 if "MatchEventIndicator" in m.fields}
_PUBLISH = sum(1 << _MDP3.sets["MatchEventIndicator"][name] for name in ("LastQuoteMsg", "EndOfEvent"))

MIN_FRAME, MAX_FRAME = 64, 1522  #: bytes with FCS
CRC_RESIDUE = 0x2144DF1C  #: CRC-32 of any frame that ends with its own FCS


@dataclass(slots=True)
class WireFrame:
    """One carrier burst on receive pins.

    ``cycle``: of the first preamble byte on the pins. ``data``: bytes after the start-of-frame delimiter, FCS
    included. ``rx_er``: a receive error was signalled with one of the bytes of ``data``. ``preamble``: bytes before
    ``data``, the delimiter included; 0 if the burst had none that could be recognised (nothing of it is seen then).
    """

    cycle: int
    data: bytes
    rx_er: bool = False
    preamble: int = len(net.PREAMBLE)

    @property
    def first(self):
        """Cycle of the first byte after the delimiter on the pins."""
        return self.cycle + self.preamble

    @property
    def end(self):
        """Cycle after the last byte on the pins."""
        return self.first + len(self.data)


def receive(frame):
    """``True`` if a frame is good at its end: no receive error, legal length, right FCS."""
    return (not frame.rx_er and MIN_FRAME <= len(frame.data) <= MAX_FRAME
            and zlib.crc32(frame.data) == CRC_RESIDUE)


class Match(NamedTuple):
    """What the match stage makes of a frame.

    ``verdict``: ``"line"``, ``"empty"`` (a packet of a line without payload), or the name of the counter under which
    the frame goes. ``line``: 0 for A, 1 for B.
    ``payload``: offset of the UDP payload in the frame. ``length``: payload bytes as the UDP header has them.
    """

    verdict: str
    line: int = 0
    payload: int = 0
    length: int = 0


def _ip_mac(group):
    return net.multicast_mac(group).to_bytes(6, "big")


def match(data, lines, vlan):
    """Classify a frame by its headers, in the order of its bytes: the first thing that is wrong names the verdict.

    ``lines``: ((ip, port) of A, (ip, port) of B), ip 0 for a line that is off. ``vlan``: register ``vlan``. A frame
    that ends inside its headers has the verdict ``"cut"``; it is too short to be good, so nothing counts it.
    """
    lines = [(line, ip, port) for line, (ip, port) in enumerate(lines) if ip and data[:6] == _ip_mac(ip)]
    if not lines:
        return Match("feed_not_ours")
    any_tag, one_tag = vlan >> 16 & 1, vlan >> 17 & 1 and not vlan >> 16 & 1
    at = net.ETHERNET.size
    ethertype = _ethertype(data, at)
    if ethertype == net.ETHERTYPE_VLAN and (any_tag or one_tag):
        if one_tag and int.from_bytes(data[at:at + 2], "big") & 0xFFF != vlan & 0xFFF:
            return Match("feed_not_ours")
        at += net.VLAN.size
        ethertype = _ethertype(data, at)
    elif one_tag:
        return Match("feed_not_ours")
    if ethertype != net.ETHERTYPE_IPV4:
        return Match("feed_not_ours")
    payload = at + net.IPV4.size + net.UDP.size
    if len(data) < payload:
        return Match("cut")
    ip, udp = net.IPV4.unpack(data, at), net.UDP.unpack(data, at + net.IPV4.size)
    if ip["version_ihl"] >> 4 != 4 or ip["version_ihl"] & 15 < 5:
        return Match("feed_bad_header")
    if ip["version_ihl"] != net.IPV4_NO_OPTIONS:
        return Match("feed_ip_options")
    if ip["total_length"] < net.IPV4.size:
        return Match("feed_bad_header")
    if ip["flags_fragment"] & net.IPV4_DONT_FRAGMENT - 1:
        return Match("feed_fragments")
    if ip["protocol"] != net.PROTOCOL_UDP:
        return Match("feed_not_ours")
    if net.checksum(data[at:at + net.IPV4.size]):
        return Match("feed_bad_header")
    line = next((line for line, group, port in lines if ip["dst"] == group and udp["dst_port"] == port), None)
    if line is None:
        return Match("feed_not_ours")
    length = udp["length"] - net.UDP.size
    if length < 0 or ip["total_length"] != net.IPV4.size + udp["length"]:
        return Match("feed_bad_header")
    return Match("line" if length else "empty", line, payload, length)


def _ethertype(data, end):
    return int.from_bytes(data[end - 2:end], "big")


class Arbiter:
    """First copy wins, by packet sequence number; the first packet ever seen sets the number expected."""

    def __init__(self):
        self.expected = 0
        self.started = False
        self._before = (0, False)

    def offer(self, seq):
        """Present a sequence number. Returns ``(accepted, missing)``: ``missing`` packets were skipped before it."""
        distance = (seq - self.expected) & 0xFFFF_FFFF if self.started else 0
        if distance >> 31:
            return False, 0
        self._before = (self.expected, self.started)
        self.started = True
        self.expected = (seq + 1) & 0xFFFF_FFFF
        return True, distance

    def take_back(self):
        """The packet accepted last was damaged, its number perhaps too: as if it had never come."""
        self.expected, self.started = self._before


class Happening(NamedTuple):
    """One thing that an accepted packet says.

    ``at``: offset in the UDP payload of the byte with which it is known. ``kind``: ``"message"`` (``a``: it is a book
    message), ``"claim"`` (``a``: SecurityID), ``"entry"`` (``a``: SecurityID, ``b``: (px mantissa, size, level, action,
    type)), ``"publish"`` (``a``: it falls on the last entry of a book message), ``"reset"``.
    """

    at: int
    kind: str
    a: int = 0
    b: tuple = ()


def _reader(layout, name):
    f = layout[name]

    def read(buffer, base):
        return int.from_bytes(buffer[base + f.offset:base + f.end], f.byteorder, signed=f.signed)
    read.field = f
    return read


SEQ_AT = _PACKET["MsgSeqNum"].end  #: offset of the byte with which a packet's sequence number is looked at
_seq = _reader(_PACKET, "MsgSeqNum")
_msg_size = _reader(_FRAMING, "MsgSize")
_block_length = _reader(_HEADER, "blockLength")
_template = _reader(_HEADER, "templateId")
_schema = _reader(_HEADER, "schemaId")
_entry_length = _reader(_ENTRIES.dimension, "blockLength")
_entry_count = _reader(_ENTRIES.dimension, "numInGroup")
_px = _reader(_ENTRIES, "MDEntryPx")
_size = _reader(_ENTRIES, "MDEntrySize")
_security = _reader(_ENTRIES, "SecurityID")
_level = _reader(_ENTRIES, "MDPriceLevel")
_action = _reader(_ENTRIES, "MDUpdateAction")
_type = _reader(_ENTRIES, "MDEntryType")
_SECURITY_END = _security.field.end - 1


def sequence_number(payload):
    """MsgSeqNum of a payload of at least four bytes."""
    return _seq(payload, 0)


def walk(payload, length):
    """What a packet says, in the order of its bytes.

    Parameters
    ----------
    payload : the bytes that arrived (at most ``length`` of them; fewer if the frame was cut).
    length : payload bytes announced by the UDP header.

    Returns
    -------
    (list of :class:`Happening`, malformed) : ``malformed`` if the packet contradicts itself or was cut. The walk ends
    at the first contradiction; what was said before it stands.
    """
    out, have = [], len(payload)

    def known(at):
        return at < have

    at = _PACKET.size
    while at < length:
        if at + _PREFIX > length or not known(at + _PREFIX - 1):
            return out, True
        head = at + _FRAMING.size
        body = _msg_size(payload, at) - _PREFIX
        root = at + _PREFIX
        if body < 0 or body > length - root:
            return out, True
        template = _template(payload, head)
        indicator_at = _INDICATOR_AT.get(template) if _schema(payload, head) == _MDP3.id else None
        book = indicator_at is not None and template in _BOOK_IDS
        end = root + body
        if indicator_at is not None:
            block = _block_length(payload, head)
            if block <= indicator_at or block + (_ENTRIES.dimension.size if book else 0) > body:
                return out, True
        out.append(Happening(root - 1, "message", book))
        at = end
        if indicator_at is None:
            continue
        if not known(root + indicator_at):
            return out, True
        publishes = bool(payload[root + indicator_at] & _PUBLISH)
        if template == _RESET_ID:
            out.append(Happening(root + indicator_at, "reset"))
        if not book:
            if publishes:
                out.append(Happening(root + indicator_at, "publish", False))
            continue
        group = root + block
        entry = group + _ENTRIES.dimension.size
        if not known(entry - 1):
            return out, True
        count, step = _entry_count(payload, group), _entry_length(payload, group)
        if count == 0:
            if publishes:
                out.append(Happening(entry - 1, "publish", False))
            continue
        if step < _MIN_ENTRY:
            return out, True
        for n in range(count):
            if entry + step > end:
                return out, True
            if known(entry + _SECURITY_END):
                security = _security(payload, entry)
                out.append(Happening(entry + _SECURITY_END, "claim", security))
            trigger = entry + _MIN_ENTRY - 1
            if not known(trigger):
                return out, True
            out.append(Happening(trigger, "entry", security, (
                _px(payload, entry), _size(payload, entry), _level(payload, entry), _action(payload, entry),
                _type(payload, entry))))
            if n == count - 1 and publishes:
                out.append(Happening(trigger, "publish", True))
            entry += step
    return out, at > have or length < _PACKET.size or have < length

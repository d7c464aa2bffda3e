"""G2 from the host's side: the CRC of limits, which the card is told before it puts them in force or goes by them.

It is :func:`zlib.crc32` over ``map_hash``, every limit of the whole card by address, and every parameter row of the
card, all as little endian words cut to their bits (:mod:`hdl.control.integrity`).
"""

import zlib

from hdl.control import registers as regmap
from hdl.control.integrity import weigh_cycles

from . import link

__all__ = ["SAID_BEFORE", "Image", "crc", "say"]

#: Commands that go by ``limits_crc``: it is told anew before each of them.
SAID_BEFORE = ("commit", "arm", "clear_halt")
_COMMIT, _CRC = (regmap.BY_NAME[name].address for name in ("commit", "limits_crc"))
_MASKS = [(1 << p.width) - 1 for p in regmap.PARAMS]
#: Cycles of one long packet of the feed: for no longer do banks have to wait for a gap in it.
_FLIP_CYCLES = 2000


def crc(limits, rows, size):
    """CRC of limits of the card (values by name; what is missing is 0) and of ``rows`` (tuples of words; of ``size``
    rows those that are missing are 0)."""
    words = [regmap.MAP_HASH, *(limits.get(r.name, 0) & (1 << r.width) - 1 for r in regmap.LIMITS)]
    for row in rows:
        words += [word & mask for word, mask in zip(row, _MASKS, strict=True)]
    words += [0] * (len(regmap.PARAMS) * (size - len(rows)))
    return zlib.crc32(b"".join(word.to_bytes(4, "little") for word in words))


def say(registers, name, value, hash_):
    """Write the command ``name`` with the CRC that it goes by."""
    registers.write("limits_crc", hash_)
    registers.write(name, value)


class Image:
    """What a card holds, for who writes to it without a daemon: from reset on, as the packets to it say.

    Parameters
    ----------
    size : rows of the card.

    Attributes
    ----------
    limits : {name: word} as staged. rows : words of both banks. bank : the active one. hash : of what is in force.
    """

    def __init__(self, size):
        self.size = size
        self.limits, self.bank, self.hash = {}, 0, 0
        self.rows = [[[0] * len(regmap.PARAMS) for _ in range(size)] for _ in range(2)]
        self._decoder = link.Decoder(known=[m.id for m in link.SCHEMA.messages.values() if m.id < link.FROM_FABRIC])
        self._names = {r.address: r.name for r in regmap.LIMITS}

    def observe(self, data):
        """Take in whole packets that the host sends."""
        for kind, payload in self._decoder.feed(data):
            if kind == link.SCHEMA["Write"].id:
                address, words = link.parse_write(payload)
                for at, word in enumerate(words, address):
                    self.wrote(at, word)

    def wrote(self, address, word):
        """Take in one register write."""
        if address in self._names:
            self.limits[self._names[address]] = word
        elif address >= regmap.PARAM_BASE:
            row, at = divmod(address - regmap.PARAM_BASE, regmap.ROW_WORDS)
            if row < self.size and at < len(regmap.PARAMS):
                self.rows[1 - self.bank][row][at] = word

    @property
    def staged(self):
        """CRC of what is staged."""
        return crc(self.limits, self.rows[1 - self.bank], self.size)

    @property
    def commit_cycles(self):
        """For so long after a commit limits should not be written: it may still be weighed, or wait."""
        return weigh_cycles(self.size) + _FLIP_CYCLES

    def command(self, name, value=1, wait=True):
        """Bytes of a command of :data:`SAID_BEFORE` with its CRC, which is right. With ``wait`` follow, behind a
        commit, as many bytes that mean nothing as keep what is sent next from coming too soon."""
        hash_ = self.staged if name == "commit" else self.hash
        packets = link.encode_write(_CRC, [hash_]) + link.encode_write(regmap.BY_NAME[name].address, [value])
        if name != "commit":
            return packets
        self.bank, self.hash = 1 - self.bank, hash_
        return packets + bytes(self.commit_cycles if wait else 0)

"""Registers by name, made from the one description in :mod:`hdl.control.registers`.

A 64-bit register is one name here (``time_ns`` for ``time_ns_lo`` and ``time_ns_hi``): written low word first, read
low word first, as the map prescribes.
"""

from dataclasses import dataclass

from hdl.control import registers as regmap


class RegisterError(ValueError):
    """No such register, the wrong kind of access, or a value that it cannot hold."""


class MapMismatch(RuntimeError):
    """The card was built from another register map than this host."""


@dataclass(frozen=True)
class Entry:
    """One register as the host uses it: ``name``, first ``address``, ``access``, ``width`` in bits, ``words``."""

    name: str
    address: int
    access: str
    width: int
    words: int

    def check(self, value):
        """``value``, or :class:`RegisterError` if the register cannot hold it."""
        if not 0 <= value < 1 << self.width:
            raise RegisterError(f"register {self.name} holds 0..{(1 << self.width) - 1} ({self.width} bits), "
                                f"got {value}")
        return value


def _entries():
    out = {}
    for r in regmap.REGISTERS:
        if r.name.endswith("_lo") and r.name[:-3] + "_hi" in regmap.BY_NAME:
            out[r.name[:-3]] = Entry(r.name[:-3], r.address, r.access, 64, 2)
        elif not (r.name.endswith("_hi") and r.name[:-3] + "_lo" in regmap.BY_NAME):
            out[r.name] = Entry(r.name, r.address, r.access, r.width, 1)
    return out


ENTRIES = _entries()


class Pending:
    """A read that may not have come back yet: ``done``, then ``value``."""

    def __init__(self, entry, replies):
        self.entry, self._replies = entry, replies

    @property
    def done(self):
        """All words have come."""
        return all(r.done for r in self._replies)

    @property
    def value(self):
        """Unsigned value; only when :attr:`done`."""
        return sum(r.value << 32 * i for i, r in enumerate(self._replies))


class Registers:
    """Named access to the registers of a :class:`host.device.Device`."""

    def __init__(self, device):
        self.device = device

    @staticmethod
    def entry(name, writing=False):
        """The :class:`Entry` of a name; raises :class:`RegisterError`."""
        if name not in ENTRIES:
            raise RegisterError(f"there is no register {name!r}; there are {', '.join(ENTRIES)}")
        entry = ENTRIES[name]
        if writing and entry.access not in ("rw", "wo"):
            raise RegisterError(f"register {name} is read only ({entry.access})")
        return entry

    def write(self, name, value):
        """Write one register (both words of a 64-bit one in one packet)."""
        entry = self.entry(name, writing=True)
        entry.check(value)
        self.device.write(entry.address, *[value >> 32 * i & 0xFFFF_FFFF for i in range(entry.words)])

    def burst(self, first, values):
        """Write consecutive registers in one packet: ``values`` maps their names, in the order of the map."""
        words, at = [], self.entry(first, writing=True).address
        for name, value in values.items():
            entry = self.entry(name, writing=True)
            if entry.address != at:
                raise RegisterError(f"register {name} is at {entry.address:#06x}, but {at:#06x} follows in this burst")
            entry.check(value)
            words += [value >> 32 * i & 0xFFFF_FFFF for i in range(entry.words)]
            at += entry.words
        self.device.write(self.entry(first).address, *words)

    def read(self, name):
        """Ask for a register; returns a :class:`Pending`."""
        entry = self.entry(name)
        return Pending(entry, [self.device.read(entry.address + i) for i in range(entry.words)])


def check_map(value):
    """Raise :class:`MapMismatch` unless ``value``, read from ``map_hash``, is that of this host's map."""
    if value != regmap.MAP_HASH:
        raise MapMismatch(f"the card's register map has hash {value:08x}, this host's has {regmap.MAP_HASH:08x}: build "
                          f"both from the same version")

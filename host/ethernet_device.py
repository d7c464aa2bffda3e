"""A card behind an Ethernet interface of this machine: the host link in raw frames (Linux)."""

import contextlib
import errno
import re
import socket

from hdl.layout import net

from . import link
from .device import Device, DeviceError

_HEADER = link.SCHEMA.composites["FrameHeader"]
_START = net.ETHERNET.size + _HEADER.size  #: of the link's bytes in a frame
_LARGEST = net.ETHERNET.size + 1500
_NAME = re.compile(r"eth:(?P<interface>[^/\s]{1,15})(?:/(?P<mac>[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}))?")

_SO_RCVBUFFORCE = 33    # of Linux, unknown to Python
RECEIVE_BUFFER = 8 << 20  #: bytes of the kernel's for what the daemon has not read

#: Bytes of the link that fit into one frame.
ROOM = _LARGEST - _START


def parse(name):
    """(interface, card's Ethernet address) that ``eth:INTERFACE`` or ``eth:INTERFACE/MAC`` names."""
    found = _NAME.fullmatch(name)
    if not found:
        raise DeviceError(f"{name!r} is no Ethernet link; give eth:INTERFACE or eth:INTERFACE/MAC, for example "
                          f"eth:enp3s0/{mac_text(net.MAC_HOST_LINK)}")
    mac = found["mac"]
    return found["interface"], int(mac.replace(":", ""), 16) if mac else net.MAC_HOST_LINK


def mac_text(mac):
    """An Ethernet address as people write it."""
    return mac.to_bytes(6, "big").hex(":")


def unpack(frame):
    """(source, number, lost, bytes of the link) of a frame of the host link without FCS; ``None`` if it is none."""
    if len(frame) < _START:
        return None
    ethernet, header = net.ETHERNET.unpack(frame), _HEADER.unpack(frame, net.ETHERNET.size)
    end = _START + header["length"]
    if ethernet["ethertype"] != net.ETHERTYPE_HOST_LINK or end > len(frame):
        return None
    return ethernet["src"], header["sequence"], header["lost"], frame[_START:end]


def open_socket(interface):
    """Raw socket of an interface, for frames of the host link alone. Raises :class:`DeviceError`."""
    try:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise DeviceError(f"cannot open {interface}: raw frames need CAP_NET_RAW; run as root, or give it to a Python "
                          f"that is no link: setcap cap_net_raw+ep PATH") from None
    except (OSError, AttributeError) as error:
        raise DeviceError(f"cannot open {interface}: no raw Ethernet sockets here ({error})") from None
    try:
        raw.bind((interface, net.ETHERTYPE_HOST_LINK))
    except OSError as error:
        raw.close()
        if error.errno == errno.ENODEV:
            there = ", ".join(sorted(name for _, name in socket.if_nameindex()))
            raise DeviceError(f"there is no network interface {interface}; there are {there}") from None
        raise DeviceError(f"cannot open {interface}: {error.strerror}") from None
    # Many small frames may come at once, and each takes a kilobyte there. To have more than the system gives everybody
    # takes CAP_NET_ADMIN.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    return raw


class EthernetDevice(Device):
    """Device over frames of EtherType 0x88B5 (see ``docs/link.md``).

    Frames that are lost on the way are not sent again: those of the card are counted in :attr:`errors` (``"frames"``),
    the times that some to the card were missing in :attr:`commands_lost`, from the card's first frame on.

    Parameters
    ----------
    name : ``eth:INTERFACE`` or ``eth:INTERFACE/MAC``, the card's address for the link.
    opener : function that gives the socket of an interface.
    """

    def __init__(self, name, *, opener=open_socket):
        super().__init__()
        self.interface, self.mac = parse(name)
        self._socket = opener(self.interface)
        self._socket.setblocking(False)
        own = self._socket.getsockname()[-1]
        if len(own) != net.ETHERNET["src"].size:
            self._socket.close()
            raise DeviceError(f"cannot use {self.interface}: it is no Ethernet interface")
        self._head = net.ETHERNET.pack(dst=self.mac, src=int.from_bytes(own, "big"),
                                       ethertype=net.ETHERTYPE_HOST_LINK)
        self._number, self._expected, self._missing, self._lost = 0, None, 0, None

    def _receive(self):
        received = bytearray()
        while len(received) < 65536:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                break
            except OSError as error:
                raise self._gone(error) from None
            if kind != socket.PACKET_OUTGOING:
                received += self._taken(frame)
        return bytes(received)

    def _taken(self, frame):
        """Bytes of the link in a frame; none if it is not the card's."""
        found = unpack(frame)
        if found is None or found[0] != self.mac:
            return b""
        _, number, lost, data = found
        if number and self._expected not in (None, number):
            self._missing += (number - self._expected) % 255
        self._expected = number % 255 + 1
        if self._lost is not None and number:
            self.commands_lost += (lost - self._lost) % 256
        self._lost = lost
        return data

    def _transmit(self, data):
        taken = 0
        while taken < len(data):
            size = self._whole(data, taken)
            if not size:
                break
            header = _HEADER.pack(length=size, sequence=self._number, lost=0)
            try:
                self._socket.send(self._head + header + data[taken:taken + size])
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    break
                raise self._gone(error) from None
            self._number = self._number % 255 + 1
            taken += size
        return taken

    @staticmethod
    def _whole(data, at):
        """Bytes of the packets from ``at`` on that stand whole in ``data`` and fit into one frame together."""
        size = 0
        while at + size + link.HEADER.size <= len(data):
            packet = (link.HEADER.size + link.HEADER.unpack(data, at + size)["length"] + link.TRAILER.size)
            if packet > ROOM:
                raise DeviceError(f"a packet of {packet} bytes does not fit a frame of the Ethernet link, {ROOM} do")
            if size + packet > ROOM or at + size + packet > len(data):
                break
            size += packet
        return size

    def _gone(self, error):
        return DeviceError(f"interface {self.interface} cannot be used: {error.strerror}")

    @property
    def errors(self):
        """Damage seen on the link, by kind; ``"frames"`` of the card are missing, ``"commands"`` were lost so often."""
        return {**super().errors, "frames": self._missing, "commands": self.commands_lost}

    def fileno(self):
        return self._socket.fileno()

    def close(self):
        self._socket.close()

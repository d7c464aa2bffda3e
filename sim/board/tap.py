"""TAP interfaces in a network namespace of their own, so that nothing of this machine's network is touched.

A network namespace belongs to a process. So a small one is started that enters a new namespace, and by a socket pair
hands over what was made there: the TAP interface, and sockets of that namespace's kernel. As root it makes only a
network namespace; otherwise a user namespace too, where the system allows it.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

__all__ = ["Tap", "TapError", "TapNamespace", "open_tap"]

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFHWADDR = 0x8914, 0x8916, 0x891C, 0x8924
_IFF_UP, _ARPHRD_ETHER = 0x1, 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LARGEST = 65536


class TapError(RuntimeError):
    """A TAP interface or its namespace is not to be had here. The message says what is missing."""


class Tap:
    """An open TAP interface: whole Ethernet frames, without FCS. Made by :meth:`TapNamespace.tap`."""

    def __init__(self, fd: int, name: str):
        os.set_blocking(fd, False)
        self._fd = fd
        self.name = name

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        """The next frame from the kernel. Raises BlockingIOError if there is none."""
        return os.read(self._fd, _LARGEST)

    def write(self, frame: bytes) -> None:
        """Hand a frame to the kernel, as if it had come in on the interface."""
        os.write(self._fd, frame)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_tap(name: str) -> Tap:
    """The TAP interface of this name in the namespace of this process, made if there is none, and up.

    It has no address of the Internet. Raises :class:`TapError`.
    """
    _checked(name)
    return Tap(_interface(name, None, None), name)


def _checked(name: str) -> None:
    if not 1 <= len(name) <= 15:
        raise ValueError(f"interface name {name!r} has {len(name)} characters, must be 1 to 15")


class TapNamespace:
    """A network namespace with nothing in it but what is asked for.

    Raises
    ------
    TapError
        There is no ``/dev/net/tun``, or neither root's nor a user's namespaces are allowed here.
    """

    def __init__(self):
        if not os.path.exists(_TUN):
            raise TapError(f"{_TUN} does not exist; load the kernel module with: modprobe tun")
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen([sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())],
                                             pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                             start_new_session=True)
        try:
            self._answer()
        except TapError:
            self.close()
            raise

    @property
    def nsenter(self) -> str:
        """Options with which ``nsenter`` runs a command in this namespace."""
        theirs, ours = (os.stat(f"/proc/{pid}/ns/user").st_ino for pid in (self._process.pid, "self"))
        return f"-t {self._process.pid} -n" + (" -U --preserve-credentials" if theirs != ours else "")

    def tap(self, name: str = "t2q0", address: str | None = "10.77.0.1/24", mac: str | None = None) -> Tap:
        """Make a TAP interface and bring it up.

        Parameters
        ----------
        name : str
            Of the interface, 1 to 15 characters.
        address : str
            IPv4 address and prefix length of the kernel's end; ``None``: none.
        mac : str
            Ethernet address of the kernel's end; one of the kernel's choice if not given.
        """
        _checked(name)
        if address is not None:
            ipaddress.IPv4Interface(address)
        return Tap(self._ask("tap", name, address, mac), name)

    def packet_socket(self, interface: str, protocol: int) -> socket.socket:
        """A raw socket bound to an interface of the namespace, for frames of one EtherType."""
        return socket.socket(fileno=self._ask("packet", interface, protocol))

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """An IPv4 socket of the namespace's kernel, to be used by this process."""
        return socket.socket(fileno=self._ask("socket", int(kind)))

    def enter(self) -> None:
        """Move this process into the namespace. It must have one thread only: for ``preexec_fn``."""
        libc = ctypes.CDLL(None, use_errno=True)
        for kind in ("user", "net"):
            theirs, ours = (os.stat(f"/proc/{pid}/ns/{kind}").st_ino for pid in (self._process.pid, "self"))
            if theirs == ours:
                continue
            with open(f"/proc/{self._process.pid}/ns/{kind}", "rb") as namespace:
                if libc.setns(namespace.fileno(), 0) != 0:
                    raise TapError(f"the {kind} namespace cannot be entered ({os.strerror(ctypes.get_errno())})")

    def close(self) -> None:
        """End the namespace's process. Interfaces and sockets that were handed over live on until they are closed."""
        self._socket.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ask(self, *request) -> int:
        self._socket.send(json.dumps(request).encode())
        return self._answer()

    def _answer(self) -> int:
        data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(4))
        if data != b"ok":
            raise TapError(data.decode() or "the process that holds the namespace has died")
        return array.array("i", ancillary[0][2])[0] if ancillary else -1


# -- the process in the namespace; runs as a script and imports nothing of this project


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and libc.unshare(_CLONE_NEWNET) == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise TapError(f"no network namespace can be made here ({os.strerror(number)}); run as root, or allow users "
                       f"their own namespaces with: sysctl kernel.unprivileged_userns_clone=1")
    # Root inside is this user outside. Some kernels refuse the group map unless setgroups is given up first.
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _interface(name: str, address: str | None, mac: str | None) -> int:
    try:
        tap = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        hint = "; this user may not use it" if error.errno in (errno.EPERM, errno.EACCES) else ""
        raise TapError(f"the TAP interface {name} cannot be made ({error.strerror}){hint}") from None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        def configure(request: int, payload: bytes) -> None:
            fcntl.ioctl(control, request, struct.pack("16s24s", name.encode(), payload))

        def ip(value) -> bytes:
            return struct.pack("HH4s", socket.AF_INET, 0, value.packed)

        if mac is not None:
            configure(_SIOCSIFHWADDR, struct.pack("H6s", _ARPHRD_ETHER, bytes.fromhex(mac.replace(":", ""))))
        if address is not None:
            host = ipaddress.IPv4Interface(address)
            configure(_SIOCSIFADDR, ip(host.ip))
            configure(_SIOCSIFNETMASK, ip(host.netmask))
        try:
            configure(_SIOCSIFFLAGS, struct.pack("H", _IFF_UP))
        except OSError as error:
            os.close(tap)
            raise TapError(f"the TAP interface {name} cannot be brought up ({error.strerror})") from None
    return tap


def _packet(interface: str, protocol: int) -> int:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((interface, protocol))
        return raw.detach()


def _serve(control: socket.socket) -> None:
    def answer(make) -> None:
        try:
            fd = make()
        except (TapError, OSError) as error:
            control.send(str(error).encode())
            return
        if fd is None:
            control.send(b"ok")
        else:
            control.sendmsg([b"ok"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            os.close(fd)

    answer(_enter)
    while request := control.recv(4096):
        what, *arguments = json.loads(request)
        if what == "tap":
            answer(lambda: _interface(*arguments))  # noqa: B023 - called at once
        elif what == "packet":
            answer(lambda: _packet(*arguments))  # noqa: B023
        else:
            answer(lambda: socket.socket(socket.AF_INET, arguments[0]).detach())  # noqa: B023


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        _serve(inherited)

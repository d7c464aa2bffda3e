"""The daemon's control socket: one JSON object a request, one an answer.

A Unix socket of mode 0660: who may write to it may command the card. Each object is preceded by its length as four
bytes, little endian. Requests name a command (``{"do": "arm", "clear_halt": true}``); answers are ``{"ok": true,
"result": ...}`` or ``{"ok": false, "error": "..."}``.
"""

import asyncio
import contextlib
import json
import os
import socket
from decimal import Decimal, InvalidOperation
from pathlib import Path

from . import config as configuration

MAX_OBJECT = 1 << 22  #: bytes


class ControlError(RuntimeError):
    """The daemon cannot be reached, or refused. One line."""


def _pack(value):
    body = json.dumps(value).encode()
    return len(body).to_bytes(4, "little") + body


def _limits_load(daemon, request):
    rows = daemon.limits.size if daemon.limits else 16
    return daemon.limits_load(configuration.load(request["file"], rows), bool(request.get("arm")))


async def _status(daemon):
    return daemon.status()


#: Commands: name -> function of (daemon, request) that returns a coroutine.
COMMANDS = {
    "status": lambda daemon, request: _status(daemon),
    "arm": lambda daemon, request: daemon.arm(bool(request.get("clear_halt"))),
    "disarm": lambda daemon, request: daemon.disarm(),
    "reduce": lambda daemon, request: daemon.reduce(),
    "kill": lambda daemon, request: daemon.kill(),
    "reference": lambda daemon, request: daemon.reference(
        request["instrument"], *(Decimal(request[key]) for key in ("price", "local", "basis"))),
    "release": lambda daemon, request: daemon.release(request["instrument"]),
    "limits show": lambda daemon, request: daemon.limits_show(),
    "limits diff": lambda daemon, request: daemon.limits_diff(),
    "limits load": _limits_load,
    "limits set": lambda daemon, request: daemon.limits_set(dict(request["changes"]), request.get("instrument")),
    "limits discard": lambda daemon, request: daemon.limits_discard(),
    "limits arm": lambda daemon, request: daemon.limits_arm(),
    "why": lambda daemon, request: daemon.why(int(request.get("count", 10)), request.get("instrument")),
    "latency": lambda daemon, request: daemon.latency(),
}


async def _execute(daemon, wake, request):
    if not isinstance(request, dict) or request.get("do") not in COMMANDS:
        name = request.get("do") if isinstance(request, dict) else request
        return {"ok": False, "error": f"unknown command {name!r}; there are {', '.join(COMMANDS)}"}
    try:
        coroutine = COMMANDS[request["do"]](daemon, request)
    except configuration.ConfigError as error:
        return {"ok": False, "error": str(error)}
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        return {"ok": False, "error": f"{request['do']}: an argument is missing or wrong: {error!r}"}
    done = asyncio.get_running_loop().create_future()
    task = daemon.submit(request["do"], coroutine)
    task.then.append(lambda t: done.done() or done.set_result(t))
    wake()
    await done
    if task.error is not None:
        return {"ok": False, "error": str(task.error)}
    return {"ok": True, "result": task.result}


async def _serve_one(daemon, wake, reader, writer):
    try:
        while True:
            length = int.from_bytes(await reader.readexactly(4), "little")
            if length > MAX_OBJECT:
                writer.write(_pack({"ok": False, "error": f"request of {length} bytes, at most {MAX_OBJECT}"}))
                await writer.drain()
                break
            try:
                request = json.loads(await reader.readexactly(length))
            except ValueError as error:
                answer = {"ok": False, "error": f"the request is not JSON: {error}"}
            else:
                answer = await _execute(daemon, wake, request)
            writer.write(_pack(answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def server(path):
    """Make the control socket at ``path``; returns a coroutine function for :func:`host.daemon.run` that serves it.

    Raises :class:`ControlError` if another daemon serves it, or if it cannot be made.
    """
    path = Path(path)
    made = _bind(path)

    async def serve(daemon, wake):
        connections = set()

        def connected(reader, writer):
            task = asyncio.ensure_future(_serve_one(daemon, wake, reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        listening = await asyncio.start_unix_server(connected, sock=made)
        try:
            async with listening:
                await listening.serve_forever()
        finally:
            for task in connections:
                task.cancel()
            path.unlink(missing_ok=True)

    return serve


def _bind(path):
    if path.exists():
        if not path.is_socket():
            raise ControlError(f"{path} exists and is no control socket; give another host.control_socket")
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect(str(path))
            raise ControlError(f"another daemon serves {path}; stop it, or give another host.control_socket")
        path.unlink()  # left behind by a daemon that died
    path.parent.mkdir(parents=True, exist_ok=True)
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)  # 0660 from its first moment
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise ControlError(f"cannot make control socket {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return made


class Client:
    """Blocking client of a control socket. Raises :class:`ControlError` if no daemon serves it."""

    def __init__(self, path, timeout_s=10.0):
        self._path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ControlError(f"no daemon at {path} ({error.strerror or error}); start one with t2q run, or give its "
                               f"socket with --socket") from None

    def request(self, do, **arguments):
        """Result of a command. Raises :class:`ControlError` with the daemon's words if it refuses."""
        try:
            self._socket.sendall(_pack({"do": do, **arguments}))
            answer = json.loads(self._exactly(int.from_bytes(self._exactly(4), "little")))
        except OSError as error:
            raise ControlError(f"the daemon at {self._path} does not answer: {error}") from None
        if not answer["ok"]:
            raise ControlError(answer["error"])
        return answer["result"]

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ControlError(f"the daemon at {self._path} went away")
            data += more
        return data

    def close(self):
        """Close the connection."""
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

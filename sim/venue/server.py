"""The simulated exchange behind a real TCP server (asyncio)."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path

from .market import RandomWalk
from .session import Gateway

_THIN_LINEAR_TIMEOUTS = 16      # of a TCP socket of Linux


class VenueServer:
    """Serves one :class:`Gateway` to any number of TCP connections.

    Parameters
    ----------
    config : :class:`sim.venue.config.VenueConfig`.
    host, port : where to listen; port 0 takes a free one (see :attr:`port` after :meth:`start`).
    market : iterable of (delay in ns, callable of (gateway, now_ns)), for instance ``RandomWalk(...).steps()``, or
        ``None`` for an empty market.
    record : directory for the bytes of every connection, in the order of their beginnings: ``0.received``, ``0.sent``.

    The exchange's clock starts at the time of day and never runs backwards.
    """

    def __init__(self, config, host="127.0.0.1", port=4210, market=None, record=None):
        self._record = None if record is None else Path(record)
        self._records, self._connections = {}, 0     # of a session: the two files
        self.gateway, self.host, self.port = Gateway(config), host, port
        self._market = iter(market) if market is not None else None
        self._base_ns = time.time_ns() - time.monotonic_ns()
        self._server, self._tasks, self._links = None, set(), {}
        self._wake = asyncio.Event()

    def now_ns(self):
        """The exchange's time, nanoseconds since the epoch."""
        return self._base_ns + time.monotonic_ns()

    async def start(self):
        """Listen. Raises OSError when the address is taken."""
        self._server = await asyncio.start_server(self._connection, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._spawn(self._timers())
        if self._market is not None:
            self._spawn(self._run_market())

    async def stop(self):
        """Close every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def _spawn(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _flush(self):
        """Send what the sessions have to say; close those that ended."""
        for session, writer in tuple(self._links.items()):
            out = session.take_output()
            if out and not writer.is_closing():
                writer.write(out)
                self._keep(session, 1, out)
            if session.closing:
                del self._links[session]
                writer.close()
        self._wake.set()  # deadlines may have moved

    async def _connection(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        # Answers are few and small: where they are lost, Linux shall not double its time-outs, up to two minutes, as
        # long as nothing that it need not send twice is acknowledged.
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _THIN_LINEAR_TIMEOUTS, 1)
        session = self.gateway.connect(self.now_ns())
        if self._record is not None:
            self._records[session] = [(self._record / f"{self._connections}.{what}").open("wb")
                                      for what in ("received", "sent")]
            self._connections += 1
        self._links[session] = writer
        reason = "the client closed the connection"
        try:
            while not session.closing and (data := await reader.read(65_536)):
                self._keep(session, 0, data)
                session.receive(data, self.now_ns())
                self._flush()
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
        except ConnectionError as error:
            reason = f"connection lost: {error}"
        except asyncio.CancelledError:
            reason = "the exchange was stopped"
        finally:
            session.disconnected(self.now_ns(), reason)
            self._flush()
            writer.close()
            for file in self._records.pop(session, ()):
                file.close()
            self._tasks.discard(task)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def _keep(self, session, which, data):
        files = self._records.get(session)
        if files:
            files[which].write(data)
            files[which].flush()

    async def _timers(self):
        while True:
            self._wake.clear()
            deadline = self.gateway.next_deadline_ns()
            wait = None if deadline is None else max(0, deadline - self.now_ns()) / 1e9
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)
            now_ns = self.now_ns()
            if deadline is not None and now_ns >= deadline:
                self.gateway.poll(now_ns)
                self._flush()

    async def _run_market(self):
        for delay_ns, step in self._market:
            await asyncio.sleep(delay_ns / 1e9)
            step(self.gateway, self.now_ns())
            self._flush()


def run_server(config, host="127.0.0.1", port=4210, *, seed=None, market=None, ready=None, record=None):
    """Run the exchange until interrupted (Ctrl-C), then return its :class:`Gateway` for a summary.

    Parameters
    ----------
    config : :class:`sim.venue.config.VenueConfig`.
    host, port : where to listen.
    seed : seed of a random-walk market; ``None`` with no ``market`` leaves the books to the clients.
    market : steps as for :class:`VenueServer`; overrides ``seed``.
    ready : called with the :class:`VenueServer` once it listens.
    record : as for :class:`VenueServer`.

    Raises
    ------
    OSError : the address cannot be listened on.
    """
    if market is None and seed is not None:
        market = RandomWalk(config.instruments, seed).steps()

    gateways = []

    async def main():
        server = VenueServer(config, host, port, market, record)
        await server.start()
        gateways.append(server.gateway)
        try:
            if ready is not None:
                ready(server)
            await asyncio.Event().wait()
        finally:
            await server.stop()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
    return gateways[0]

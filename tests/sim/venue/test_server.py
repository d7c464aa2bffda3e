"""The exchange behind a real socket."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sim.venue.config import demonstration
from sim.venue.engine import COD
from sim.venue.market import FeedMapping, MarketMirror, RandomWalk
from sim.venue.server import VenueServer
from sim.venue.session import HEADER, Gateway, frame

from .client import BTC, E9, SCHEMA, entry, make_config


class Link:
    """A client over a stream."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.sequence = reader, writer, 0

    async def send(self, name, values=None, groups=None):
        self.sequence += 1
        self.writer.write(frame(name, SCHEMA[name].encode(values, groups), sequence=self.sequence, last_processed=0,
                                now_ns=0, version=16, pad=False))
        await self.writer.drain()

    async def read(self):
        header = HEADER.unpack(await asyncio.wait_for(self.reader.readexactly(HEADER.size), 5))
        body = await asyncio.wait_for(self.reader.readexactly(header["messageLength"] - HEADER.size), 5)
        message = SCHEMA.by_id[header["messageTypeId"]]
        return message.name, message.decode(body)

    async def close(self):
        self.writer.close()
        await self.writer.wait_closed()


async def connected(server, cod=1):
    link = Link(*await asyncio.open_connection("127.0.0.1", server.port))
    await link.send("Logon", {"clientId": "alice", "secret": "open sesame", "resetSeqNum": 1, "schemaVersion": 16,
                              "cancelOnDisconnect": cod})
    assert (await link.read())[0] == "LogonConf"
    return link


async def until(condition, what):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 5 s: {what}")


def run(scenario, **arguments):
    async def main():
        server = VenueServer(make_config(heartbeat_s=1), port=0, **arguments)
        await server.start()
        try:
            await scenario(server)
        finally:
            await server.stop()
    asyncio.run(main())


def test_quote_and_answer_over_a_socket():
    async def scenario(server):
        link = await connected(server)
        await link.send("MassQuoteRequest", {"quoteId": 9, "correlationId": 9, "mmpGroupId": 7},
                        {"quotes": [entry(50_000, 50_001)]})
        name, response = await link.read()
        assert (name, response["quoteId"]) == ("MassQuoteResponse", 9)
        assert abs(response["timestamp"] - time.time_ns()) < 10 ** 10
        await link.send("Logout", {"reason": "enough"})
        assert await link.read() == ("LoggedOut", {"reason": "enough"})
        assert await link.reader.read() == b"", "the exchange closes after LoggedOut"
        await link.close()
        assert not server.gateway.engine.open_orders()
    run(scenario)


def test_a_lost_client_loses_its_quotes():
    async def scenario(server):
        link = await connected(server)
        await link.send("MassQuoteRequest", {"quoteId": 9, "mmpGroupId": 7}, {"quotes": [entry(50_000, 50_001)]})
        await link.read()
        assert len(server.gateway.engine.open_orders()) == 2
        link.writer.transport.abort()
        await until(lambda: not server.gateway.engine.open_orders(), "cancel on disconnect")
    run(scenario)


def test_heartbeats_and_the_end_of_a_silent_client():
    async def scenario(server):
        link = await connected(server)
        started, seen = time.monotonic(), []
        while (message := await link.read())[0] != "LoggedOut":
            seen.append(message[0])
        assert "TestRequest" in seen
        assert 1.9 < time.monotonic() - started < 3.5
        await link.close()
    run(scenario)


def test_market_runs_and_fills():
    steps = [(1_000_000, lambda gateway, now: gateway.market(now, BTC, None, (49_000 * E9, 1)))]
    async def scenario(server):
        link = await connected(server)
        await link.send("MassQuoteRequest", {"quoteId": 9, "mmpGroupId": 7}, {"quotes": [entry(50_000, 50_001)]})
        names = [(await link.read())[0] for _ in range(2)]
        assert sorted(names) == ["MassQuoteResponse", "OrderFilled"]
        await link.close()
    run(scenario, market=((50_000_000, step) for _, step in steps))


def test_two_clients_and_garbage_side_by_side():
    async def scenario(server):
        link = await connected(server)
        rude = Link(*await asyncio.open_connection("127.0.0.1", server.port))
        rude.writer.write(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" + bytes(64))
        name, end = await rude.read()
        assert name == "LoggedOut"
        assert "protocolId 0x47 must be 0xdb" in end["reason"]
        assert await rude.reader.read() == b""
        await rude.close()
        await link.send("TestRequest", {"correlationId": 77})
        assert await link.read() == ("Heartbeat", {"correlationId": 77})
        await link.close()
    run(scenario)


def test_port_in_use_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = VenueServer(make_config(), port=taken.getsockname()[1])
        async def main():
            with pytest.raises(OSError, match="address already in use"):
                await server.start()
            await server.stop()
        asyncio.run(main())


def test_run_server_until_interrupted():
    """The blocking entry point, in a process of its own: listens, fills from a random walk, stops on SIGINT."""
    program = ("from sim.venue.server import run_server\n"
               "from sim.venue.config import demonstration\n"
               "g = run_server(demonstration(), port=0, seed=1, ready=lambda s: print(s.port, flush=True))\n"
               "print(sorted(g.received), g.explain_refusals())\n")
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                             cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
    try:
        port = int(child.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), 5) as link:
            link.sendall(frame("Heartbeat", bytes(8), sequence=1, last_processed=0, now_ns=0, version=16))
            answer = b""
            while chunk := link.recv(4096):
                answer += chunk
        assert b"Heartbeat before Logon" in answer
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate(timeout=10)
        assert "['Heartbeat']" in rest
        assert "Heartbeat before Logon" in rest
        assert child.returncode == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# -- where the market comes from --------------------------------------------------------------------------------


def test_random_walk_is_seeded_and_never_crossed():
    specs = demonstration().instruments
    def first(seed):
        return list(itertools.islice(RandomWalk(specs, seed).steps(), 300))
    assert first(5) == first(5)
    assert first(5) != first(6)
    assert all(step.bid[0] < step.ask[0] for _, step in first(5))
    assert {step.instrument_id for _, step in first(5)} == {1001, 1002}


@pytest.mark.parametrize(("scale", "bid", "ask", "expected"), [
    (1 << 23, 100_000, 100_001, (50_000, 50_000.5)),         # tick to tick of 0.5
    (1 << 22, 100_001, 100_002, (25_000, 25_000.5)),         # half: the odd bid is rounded down
    ((1 << 23) // 3, 300_000, 300_001, (49_999.5, 50_000.5)),  # a third, truncated in the last bit
])
def test_mirror_maps_prices_outwards(scale, bid, ask, expected):
    gateway = Gateway(make_config())
    mirror = MarketMirror(gateway, [FeedMapping(43, BTC, scale, 1, 10)])
    mirror.best(0, 43, (bid, 55), (ask, 5))
    mirror.best(1, 44, (1, 1), (2, 2))
    book = gateway.engine.books[BTC]
    assert book.depth(1) == [(expected[0] * E9, 5, None)]
    assert book.depth(-1) == [(expected[1] * E9, 1, None)], "a size is never rounded to nothing"


def test_mirror_trades_reach_quotes(gateway, alice):
    mirror = MarketMirror(gateway, [FeedMapping(43, BTC)])
    mirror.best(0, 43, (100_000, 5), (100_010, 5))
    alice.quote(entry(50_001, 50_004, flags=COD))
    mirror.trade(1, 43, 100_010, 4, 1)
    mirror.trade(2, 43, 100_000, 4, -1)
    assert [(f.side, f.price_e9, f.lots) for f in gateway.engine.ledger.fills] == [
        (-1, 50_004 * E9, 1), (1, 50_001 * E9, 1)]


def test_a_crossed_feed_is_no_market(gateway, alice):
    mirror = MarketMirror(gateway, [FeedMapping(43, BTC)])
    alice.quote(entry(50_001, 50_004))
    mirror.best(0, 43, (100_000, 5), (100_010, 5))
    mirror.best(1, 43, (100_010, 5), (100_000, 5))
    assert gateway.engine.books[BTC].depth(1) == [(50_001 * E9, 1, "alice")]
    assert not gateway.engine.ledger.fills


def test_mirror_refuses_what_is_not_listed(gateway):
    with pytest.raises(ValueError, match="instrument 77 is not listed"):
        MarketMirror(gateway, [FeedMapping(43, 77)])
    with pytest.raises(ValueError, match="mapping of 43: ref_scale must be at least 1, got 0"):
        FeedMapping(43, BTC, 0)

"""`t2q board`: the virtual board as a device of its own, for a daemon in another process.

The Verilated core runs without end. Its feed is a capture or generated traffic in a loop, its order port leads to the
exchange simulator, whose market follows the same feed, and its host link is a pseudo-terminal that `t2q run` opens
like the serial port of a card. It runs as fast as it can, which is slower than the wall clock: every time-out of the
card and of the exchange counts simulated time. The host link over Ethernet, which is on the order port, can be joined
to a TAP interface.
"""

import contextlib
import json
import signal
import time
from collections import deque

from hdl.control import registers
from hdl.layout import net, sbe
from host import config as configuration
from host import ethernet_device, link, params
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.ports import Injection, TapPort, Wires
from sim.board.pty import LinkPty
from sim.board.tap import open_tap
from sim.golden import feed
from sim.market.schedule import MAX_IDLE_NS, schedule
from sim.replay import DELAY_NS, MARKET_LAG_NS, PEER_MAC, load_source
from sim.venue import listing
from sim.venue.feed import FeedEvent, feed_events
from sim.venue.market import MarketMirror
from sim.venue.session import Gateway
from sim.venue.tcp_peer import TcpPeer
from sim.venue.wire import ExchangeWire

__all__ = ["FedBoard", "LiveBoard", "LoopingFeed", "ends_by_signal", "run_board"]

UNREAD = 256 * 1024     #: bytes on the link that no host has read, after which there is no host

_PACKET = sbe.load("cme_mdp3").composites["PacketHeader"]


class LoopingFeed:
    """Market data on the feed port, again and again; an attachment in the sense of :mod:`sim.board.ports`.

    Each round has the sequence numbers after those of the round before, less one: the end of a capture is no basis for
    its beginning, and the gap says so to the card and to the exchange's market alike.

    Parameters
    ----------
    frames : (time_ns, bytes without FCS).
    lines, vlan : as for :func:`sim.golden.feed.match`; frames of the lines are renumbered, others are left alone.
    ticks : tick as the price mantissa of the wire, by SecurityID, of what the exchange's market follows.
    on_event : called with every :class:`sim.venue.feed.FeedEvent`, at the latest one burst before its cycle.

    Attributes
    ----------
    rounds : number of rounds begun. sent : number of frames put on the port.
    """

    prompt = False

    def __init__(self, frames, lines, ticks, on_event, vlan=0):
        if not frames:
            raise ValueError("there are no frames to play; at least one is needed")
        wire = schedule(frames)
        self._events = list(feed_events(wire, lines, ticks, vlan))
        self._frames = [(frame.cycle, *_numbered(frame.data, lines, vlan)) for frame in wire]
        numbers = [_PACKET["MsgSeqNum"].unpack(frame, at) for _, frame, at in self._frames if at is not None]
        self._span = max(numbers) - min(numbers) + 2 if numbers else 0
        self._length = wire[-1].end + MAX_IDLE_NS // CYCLE_NS
        self._withdrawn = [FeedEvent(0, security_id) for security_id in ticks]
        self._on_event, self._pending = on_event, deque()
        self._base = self._next = 0
        self.rounds = self.sent = 0

    def frames_until(self, cycle):
        out = []
        if not self.rounds:
            self._begin(cycle)
        while True:
            if self._next == len(self._frames):
                if self._base + self._length >= cycle:
                    break
                self._begin(self._base + self._length)
            start, frame, at = self._frames[self._next]
            if self._base + start >= cycle:
                break
            out.append(Injection(self._renumbered(frame, at), self._base + start))
            self._next += 1
        while self._pending and self._pending[0].cycle < cycle:
            self._on_event(self._pending.popleft())
        self.sent += len(out)
        return out

    def _begin(self, cycle):
        events = (self._withdrawn if self.rounds else []) + self._events
        self._pending.extend(event._replace(cycle=cycle + event.cycle) for event in events)
        self._base, self._next = cycle, 0
        self.rounds += 1

    def _renumbered(self, frame, at):
        if at is None or self.rounds == 1:
            return frame
        field, changed = _PACKET["MsgSeqNum"], bytearray(frame)
        number = field.unpack(frame, at) + (self.rounds - 1) * self._span & 0xFFFF_FFFF
        changed[at + field.offset:at + field.end] = field.pack(number)
        checksum = net.UDP["checksum"]
        udp = at - net.UDP.size
        changed[udp + checksum.offset:udp + checksum.end] = checksum.pack(0)     # 0: the sender made none
        return bytes(changed)

    def frame_sent(self, frame):
        return ()

    def close(self):
        """Nothing is held open."""


def _numbered(data, lines, vlan):
    """A frame without FCS, and the offset of its packet header if it is of one of the lines."""
    found = feed.match(data, lines, vlan)
    numbered = found.verdict == "line" and found.length >= _PACKET.size
    return data[:-net.FCS_SIZE], found.payload if numbered else None


class ListeningLink:
    """The board's host link, with an ear on it; what comes while no host is there is lost, as on a wire.

    Attributes
    ----------
    state, halt_cause, state_cycle : of the card, as it last told its host, and since when.
    lost : bytes that nobody was there to read.
    """

    def __init__(self, board):
        self._board, self._decoder = board, link.Decoder()
        self.link_pace = board.link_pace
        self.state, self.halt_cause, self.state_cycle = registers.DISARMED, 0, 0
        self.present, self.lost = True, 0

    def link_write(self, data):
        self.present = True
        self._board.link_write(data)

    def link_read(self):
        data = self._board.link_read()
        self.hear(self._decoder, data)
        if self.present:
            return data
        self.lost += len(data)
        return b""

    def hear(self, decoder, data):
        """Bytes of the card, whatever way they go."""
        for kind, payload in decoder.feed(data):
            if kind == link.SCHEMA["Event"].id:
                event = link.parse(kind, payload)
                if link.EVENT_CODES[event.code] == "STATE_CHANGED":
                    self.state, self.halt_cause, self.state_cycle = event.data & 3, event.data >> 8 & 0xFF, event.cycle


class _LinkTap(TapPort):
    """The host link over Ethernet on a TAP interface, with an ear on it."""

    def __init__(self, tap, ear):
        super().__init__(tap, net.ETHERTYPE_HOST_LINK)
        self._ear, self._decoder = ear, link.Decoder()

    def frame_sent(self, frame):
        found = ethernet_device.unpack(frame.frame)
        if found:
            *_, data = found
            self._ear.hear(self._decoder, data)
        return super().frame_sent(frame)


class FedBoard:
    """The virtual board with a feed that goes round, and its host link on a pseudo-terminal.

    Parameters
    ----------
    config, frames, board : as for :class:`LiveBoard`.
    burst : cycles of a step.
    on_event : as for :class:`LoopingFeed`.

    Attributes
    ----------
    path : of the pseudo-terminal. feed : :class:`LoopingFeed`. link : :class:`ListeningLink`. wires : :class:`Wires`.
    """

    def __init__(self, config, frames, board, burst, on_event):
        self.board, self._burst = board, burst
        lines = tuple((line.ip, line.port) if line else (0, 0) for line in (config.feed.line_a, config.feed.line_b))
        self.feed = LoopingFeed(frames, lines, listing.feed_ticks(config), on_event,
                                params.feed_words(config.feed)["vlan"])
        self.wires = Wires(board, burst=burst)
        self.wires.attach("feed", self.feed)
        self.link = ListeningLink(board)
        self._pty = LinkPty(self.link)
        self.path = self._pty.path

    def step(self):
        """One burst. Returns what was written to registers in it."""
        self._pty.pump()
        self.wires.run(self._burst)
        self._pty.pump()
        self.board.take_host_tx()
        return self.board.take_register_writes()

    def status(self):
        """Where everything stands, as plain data. Times are simulated nanoseconds since the first cycle."""
        state = self.link
        return {
            "time_ns": self.board.cycle * CYCLE_NS,
            "state": registers.STATES[state.state],
            "halt_cause": [name for name, bit in registers.HALT_CAUSES.items() if state.halt_cause >> bit & 1],
            "feed_frames": self.feed.sent, "feed_rounds": self.feed.rounds,
        }

    def close(self):
        """Take the pseudo-terminal away and free the board."""
        self._pty.close()
        self.wires.close()
        self.board.close()


class LiveBoard(FedBoard):
    """The virtual board with feed, exchange and pseudo-terminal.

    Parameters
    ----------
    config : :class:`host.config.Config` that the daemon will be given too.
    frames : (time_ns, bytes without FCS) of one round of the feed.
    board : a reset :class:`VirtualBoard` of the core; closed by :meth:`close`.
    epoch_ns : the exchange's time in cycle 0; default: now.
    tap : a TAP interface (:class:`sim.board.tap.Tap`) for the host link over Ethernet; closed by :meth:`close`.

    Attributes
    ----------
    gateway : :class:`Gateway`. peer : :class:`TcpPeer`.
    """

    def __init__(self, config, frames, board, epoch_ns=None, tap=None):
        self.config = config
        self.epoch_ns = time.time_ns() if epoch_ns is None else epoch_ns
        self.gateway = Gateway(listing.venue_config(config, config.secret()))
        self.peer = TcpPeer(listing.peer_config(config, PEER_MAC, delay_ns=DELAY_NS), self.gateway)
        self._mirror = MarketMirror(self.gateway, listing.feed_mappings(config))
        exchange = ExchangeWire(self.peer, self.epoch_ns)
        super().__init__(config, frames, board, exchange.max_burst, self._market)
        self.wires.attach("order", exchange)
        if tap is not None:
            self.wires.attach("order", _LinkTap(tap, self.link))
        self._heartbeat, self._heartbeat_cycle = registers.BY_NAME["heartbeat"].address, None

    def _market(self, event):
        self.peer.at(self.epoch_ns + event.cycle * CYCLE_NS + MARKET_LAG_NS,
                     lambda now_ns: event.apply(self._mirror, now_ns))

    def step(self):
        """One burst. Returns what was written to registers in it."""
        writes = super().step()
        if self._pty.backlog > UNREAD:
            self.link.lost += self._pty.discard()
            self.link.present = False
        beats = writes[writes["address"] == self._heartbeat]
        if len(beats):
            self._heartbeat_cycle = int(beats["cycle"][-1])
        return writes

    def status(self):
        """Where everything stands, as plain data. Times are simulated nanoseconds since the first cycle.

        ``state_ns``: since when the card is in its state. ``heartbeat_ns``: when the host last fed the dead-man.
        ``flat_ns``: when the last order left the exchange's book; ``None`` while one is open, or before there was any.
        """
        ledger = self.gateway.engine.ledger
        flat_ns = ledger.last_open_ns()
        return super().status() | {
            "state_ns": self.link.state_cycle * CYCLE_NS,
            "heartbeat_ns": None if self._heartbeat_cycle is None else self._heartbeat_cycle * CYCLE_NS,
            "open_orders": len(self.gateway.engine.open_orders()),
            "flat_ns": None if flat_ns is None else flat_ns - self.epoch_ns,
            "sessions": len(self.gateway.sessions),
            "received": dict(self.gateway.received),
            "fills": len(ledger.fills),
            "refused": sum(ledger.refusals.values()) + len(self.gateway.refusals),
            "wire_violations": len(self.peer.violations),
            "link_bytes_lost": self.link.lost,
        }


@contextlib.contextmanager
def ends_by_signal():
    """A list that is not empty any more when SIGINT or SIGTERM has come; they end nothing else meanwhile."""
    ended = []
    handlers = {s: signal.signal(s, lambda signum, frame: ended.append(signum))
                for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def run_board(config_path, capture=None, seed=1, max_packets=None, every_s=1.0, say=print, progress=None, tap=None):
    """Run a live board until SIGINT or SIGTERM.

    Parameters
    ----------
    config_path : TOML file. capture, seed, max_packets : as for :func:`sim.replay.run_replay`.
    every_s : wall time from one status to the next.
    say : called with JSON texts: ``{"link": path, "ethernet": name or None, "feed": name, ...}``, then a status
        now and then and at the end.
    progress : called with (share done, what) while the board is built.
    tap : name of a TAP interface for the host link over Ethernet, made if there is none.

    Raises :class:`sim.replay.ReplayError`, or what the configuration, the capture or the build has to say.
    """
    config = configuration.load(config_path)
    source = load_source(config, capture, seed, max_packets)
    board = VirtualBoard(progress=progress)
    with ends_by_signal() as ended:
        live = LiveBoard(config, source.frames, board, tap=open_tap(tap) if tap else None)
        try:
            say(json.dumps({"link": live.path, "ethernet": f"eth:{tap}" if tap else None, "feed": source.name,
                            "generated": source.generated,
                            "exchange": str(configuration.Endpoint(config.session.peer_ip, config.session.peer_port)),
                            "cycle_ns": CYCLE_NS}))
            began = said = time.monotonic()
            while not ended:
                live.step()
                now = time.monotonic()
                if now - said >= every_s:
                    said = now
                    say(json.dumps(live.status() | {"wall_s": round(now - began, 3)}))
            say(json.dumps(live.status() | {"wall_s": round(time.monotonic() - began, 3), "ended": True}))
        finally:
            live.close()

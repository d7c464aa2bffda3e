"""The daemon on a virtual board, with the simulated exchange at the other end of the order port.

The daemon runs in the same process in lock step (:meth:`Bench.step`), or in another one that has opened
:attr:`Bench.path` (:meth:`Bench.turn`).
"""

from host.daemon import Daemon
from host.serial_device import SerialDevice
from sim.board import VirtualBoard
from sim.board.pty import LinkPty
from sim.market import generator
from sim.venue.listing import venue_config
from sim.venue.session import Gateway
from sim.venue.tcp_peer import PeerConfig, TcpPeer

T0 = 1_700_000_000_000_000_000
CYCLE_NS = 8
BURST = 1000


class Bench:
    """Board, pseudo-terminal, exchange; and a daemon if ``in_process``.

    ``frames``: every frame that the core sent on the order port. ``answering``: the exchange's end is plugged in.
    """

    def __init__(self, config, in_process=True, venue=None, **daemon_options):
        self.config, self.board = config, VirtualBoard()
        self.pty = LinkPty(self.board)
        self.path = self.pty.path
        self.gateway = Gateway(venue or venue_config(config, config.secret()))
        self.peer = TcpPeer(PeerConfig(ip=config.session.peer_ip, port=config.session.peer_port), self.gateway)
        self.frames, self.answering = [], True
        self.device = self.daemon = None
        if in_process:
            self.device = SerialDevice(self.path)
            self.daemon = Daemon(config, self.device, isn=1, **daemon_options)

    @property
    def engine(self):
        return self.gateway.engine

    @property
    def now_ns(self):
        return T0 + self.board.cycle * CYCLE_NS

    def close(self):
        if self.device:
            self.device.close()
        self.pty.close()
        self.board.close()

    def _wire(self):
        frames = self.board.take_tx("order")
        self.frames += frames
        if self.answering:
            for frame in frames:
                self.peer.receive(frame.frame, T0 + frame.end * CYCLE_NS)
            self.peer.run(self.now_ns)
            for at, frame in self.peer.frames(self.now_ns):
                self.board.inject("order", frame, -(-(at - T0) // CYCLE_NS))

    def _talk(self):
        self.pty.pump()
        while True:
            self.daemon.pump(self.now_ns, received=self.pty.to_host)
            while self.device.unsent or self.device.bytes_sent != self.pty.from_host:
                self.device.flush()
                self.pty.pump()
            if not self.pty.backlog:
                return
            self.pty.pump()

    def step(self):
        """One burst in lock step."""
        self._talk()
        self.board.run(BURST)
        self._wire()

    def turn(self):
        """One burst with a daemon elsewhere."""
        self.pty.pump()
        self.board.run(BURST)
        self._wire()
        self.pty.pump()

    def run(self, cycles):
        end = self.board.cycle + cycles
        while self.board.cycle < end:
            self.step()

    def until(self, condition, cycles=5_000_000):
        end = self.board.cycle + cycles
        while not condition():
            assert self.board.cycle < end, f"not within {cycles} cycles; daemon {self.daemon.phase} {self.daemon.error}"
            self.step()

    def perform(self, coroutine):
        """Run a command to its end; returns its result or raises its error."""
        task = self.daemon.submit("test", coroutine)
        task.then.append(lambda t: None)
        self.until(lambda: task.done)
        if task.error is not None:
            raise task.error
        return task.result

    def start(self, arm=True):
        self.until(lambda: self.daemon.phase != "starting")
        assert self.daemon.phase == "ready", self.daemon.error
        if arm:
            self.perform(self.daemon.arm())
        return self

    def feed(self, packets, seed=5, every=1500):
        """Put generated packets of line A on the feed port, ``every`` so many cycles."""
        at = self.board.cycle + 2 * BURST
        for _, frame in generator.generate(seed, packets, warm_up=True, lines=(generator.LINE_A, None),
                                           instruments=generator.INSTRUMENTS[:16]):
            self.board.inject("feed", frame, at)
            at += every
        return at

    def quotes(self):
        """Mass quotes that the exchange has received."""
        return [r for r in self.engine.ledger.requests if r.kind == "MassQuoteRequest"]

    def at_exchange(self, happening):
        """Let ``happening(now_ns)`` take place at the exchange, and what follows from it go out."""
        def happen(now_ns):
            happening(now_ns)
            self.gateway.flush(now_ns)
        self.peer.at(self.now_ns + 1, happen)

    def trade_all(self, share=2):
        """At the exchange, take lots of every ``share``-th of our orders."""
        def trade(now_ns):
            for n, order in enumerate(self.engine.open_orders()):
                if n % share == 0 and order.lots:  # an earlier trade may have cancelled it
                    self.engine.trade(now_ns, order.instrument_id, order.price_e9, 1 + n % order.lots, -order.side)
        self.at_exchange(trade)

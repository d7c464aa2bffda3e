"""The virtual board and the golden model, fed alike and compared frame by frame."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hdl.layout import net
from host import link
from sim.board.board import TxFrame, VirtualBoard
from sim.golden.feed import WireFrame
from sim.golden.model import GoldenModel
from sim.market.schedule import wire_bytes

__all__ = ["HOST_LINK", "Lockstep", "Mismatch", "expects"]

HOST_LINK = 2       #: kind of a frame of the host link, see :meth:`VirtualBoard.take_host_tx`

_HOST_PACKETS = {"FrameTx": 0, "SessionTx": 1}


def expects(frame, gateware):
    """(cycle, bytes with FCS) that a frame of the golden model stands for, given what the gateware sent.

    Of a frame of the host link the model knows cycle and length."""
    cycle, data, kind = frame
    if kind == "link" and gateware is not None:
        sent = gateware[1]
        if len(sent) == len(data) and net.ETHERNET.unpack(sent)["ethertype"] == net.ETHERTYPE_HOST_LINK:
            data = sent
    return cycle, data


@dataclass(frozen=True)
class Mismatch:
    """A frame on which gateware and golden model differ: ``index`` among all frames sent; each side as (cycle of the
    first
    preamble byte, bytes with FCS), or ``None`` where that side sent nothing."""

    index: int
    gateware: tuple | None
    golden: tuple | None

    def __str__(self):
        def side(frame):
            return "nothing" if frame is None else f"cycle {frame[0]}: {frame[1].hex()}"
        return f"frame {self.index}: gateware {side(self.gateware)}; golden model {side(self.golden)}"


class Lockstep:
    """Runs a :class:`VirtualBoard` in bursts and gives the :class:`GoldenModel` the same inputs.

    Frames of the ports are injected through this object; what the host says is seen where it takes effect: register
    writes in the cycle in which they execute, packets for the order port in the cycle in which they become available.
    Bytes to the core must pass :meth:`link_write` so that the contents of those packets are known. What frames of the
    host link say is the core's own affair: the golden model knows when they are there and how long they are.

    A burst may run beside the processing of the one before it: :meth:`begin`, process what the last one gave,
    :meth:`end`. What is put in meanwhile reaches the board before the burst after that.

    Attributes
    ----------
    board, golden : the two.
    cycle : both have worked through every cycle before this one.
    board_s : processor seconds spent inside the simulated core.
    sent : list of :class:`TxFrame` of the order port so far.
    mismatches : list of :class:`Mismatch`; empty if all is well.
    """

    def __init__(self, board: VirtualBoard, golden: GoldenModel):
        self.board, self.golden = board, golden
        self.sent: list[TxFrame] = []
        self.mismatches: list[Mismatch] = []
        self.cycle = board.cycle
        self.board_s = 0.0
        self._decoder = link.Decoder(known=[m.id for m in link.SCHEMA.messages.values() if m.id < link.FROM_FABRIC])
        self._host_packets, self._epoch = [], 0
        self._given = [0, 0]            # frames of each port that the golden model has been given
        self._frames = ([], [])
        self._compared = 0
        self._queued = []               # calls on the board that wait for the end of the burst
        self._from_core = bytearray()
        self._outcome = None
        self._worker = ThreadPoolExecutor(1, "board")
        self._burst = None

    # -- the host link, as LinkPty wants it ---------------------------------------------------------------------
    def link_write(self, data):
        """Bytes from the host; the core is offered them from the next burst on."""
        for kind, payload in self._decoder.feed(data):
            name = link.SCHEMA.by_id[kind].name
            if name == "Write":
                self._epoch = max(self._epoch, link.SCHEMA[name]["epoch"].unpack(payload))
            elif name in _HOST_PACKETS:
                epoch, data_of = link.parse_tx(name, payload)
                if epoch >= self._epoch:    # or the core lets it go
                    self._host_packets.append((_HOST_PACKETS[name], data_of))
        self._call(self.board.link_write, data)

    def link_read(self):
        """All bytes that the core has sent to the host up to the last burst that was processed, once."""
        data = bytes(self._from_core)
        self._from_core.clear()
        return data

    def link_pace(self, **pace):
        """As :meth:`VirtualBoard.link_pace`, from the next burst on."""
        self._call(self.board.link_pace, **pace)

    # -- input --------------------------------------------------------------------------------------------------
    def _call(self, function, *arguments, **options):
        """Now, or if a burst is under way, before the next one."""
        if self._burst is None:
            function(*arguments, **options)
        else:
            self._queued.append((function, arguments, options))

    def inject(self, port, frames, starts, **options):
        """Queue frames (bytes without FCS) for a port, 0 the feed, 1 the order port; ``options`` as for
        :meth:`VirtualBoard.inject_many`, of which the golden model understands none."""
        self._frames[port].extend(wire_bytes(frame) for frame in frames)
        self._call(self.board.inject_many, port, frames, starts, **options)

    def received(self, port):
        """Every frame that has begun on a port's receive pins: (cycle of its first preamble byte, bytes with FCS)."""
        starts = self.board.rx_starts(port).tolist()
        return list(zip(starts, self._frames[port], strict=False))

    # -- time ---------------------------------------------------------------------------------------------------
    def begin(self, cycles):
        """Start a burst; it runs beside the caller until :meth:`end`."""
        self._burst = self._worker.submit(self._run, cycles)

    def _run(self, cycles):
        began = time.thread_time()
        self.board.run(cycles)
        self.board_s += time.thread_time() - began

    def end(self):
        """Wait for the burst, take what it gave, and put in what was queued meanwhile."""
        self._burst.result()
        self._burst = None
        board = self.board
        self._outcome = (board.cycle, [board.rx_starts(port)[self._given[port]:].tolist() for port in (0, 1)],
                         board.take_register_writes().tolist(), board.take_host_tx().tolist(), board.take_tx("order"),
                         board.link_read())
        for function, arguments, options in self._queued:
            function(*arguments, **options)
        self._queued.clear()

    def process(self):
        """Give the golden model what happened in the burst that ended last, and compare. Returns the frames of it."""
        cycle, starts, writes, host_packets, sent, from_core = self._outcome
        golden = self.golden
        for port, give in enumerate((golden.feed_frame, golden.order_frame)):
            frames = self._frames[port]
            for start in starts[port]:
                give(WireFrame(start, frames[self._given[port]]))
                self._given[port] += 1
        for write in writes:
            golden.write(*write)
        for at, kind, length in host_packets:
            if kind == HOST_LINK:
                golden.link_frame(at, length)
                continue
            expected, data = self._host_packets.pop(0)
            if expected != kind:
                raise RuntimeError(f"the core announced a host packet of kind {kind} in cycle {at}, the host sent one "
                                   f"of kind {expected}")
            golden.host_packet(at, kind, data)
        golden.advance(cycle)
        self._from_core += from_core
        self.cycle = cycle
        self.sent.extend(sent)
        self._compare(final=False)
        return sent

    def run_until(self, cycle):
        """Run both up to and not including ``cycle``. Returns the frames sent."""
        self.begin(max(0, cycle - self.board.cycle))
        self.end()
        return self.process()

    def finish(self):
        """Compare what is left after the last burst; a frame that only one side sent counts now."""
        self._compare(final=True)
        return self.mismatches

    def _compare(self, final):
        expected = self.golden.tx
        whole = [f for f in expected[self._compared:]
                 if f.cycle + len(net.PREAMBLE) + len(f.data) < self.cycle] if not final \
            else expected[self._compared:]
        actual = self.sent[self._compared:]
        for n in range(max(len(whole), len(actual)) if final else min(len(whole), len(actual))):
            gateware = (actual[n].start, actual[n].data) if n < len(actual) else None
            golden = expects(whole[n], gateware) if n < len(whole) else None
            if gateware != golden:
                self.mismatches.append(Mismatch(self._compared, gateware, golden))
            self._compared += 1

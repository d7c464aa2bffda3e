"""The virtual board and the golden model, fed alike and compared frame by frame."""

from dataclasses import dataclass

from hdl.layout import net
from host import link
from sim.board.board import TxFrame, VirtualBoard
from sim.golden.feed import WireFrame
from sim.golden.model import GoldenModel
from sim.market.schedule import wire_bytes

__all__ = ["Lockstep", "Mismatch"]

_HOST_PACKETS = {"FrameTx": 0, "SessionTx": 1}


@dataclass(frozen=True)
class Mismatch:
    """A frame on which gateware and golden model differ: ``index`` among all frames sent; each side as (cycle of the first
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

    Frames of the ports are injected through this object; what the host says is seen where it takes effect: register writes
    in the cycle in which they execute, packets for the order port in the cycle in which they become available. Bytes to
    the core must pass :meth:`host_bytes` so that the contents of those packets are known.

    Attributes
    ----------
    board, golden : the two.
    sent : list of :class:`TxFrame` of the order port so far.
    mismatches : list of :class:`Mismatch`; empty if all is well.
    """

    def __init__(self, board: VirtualBoard, golden: GoldenModel):
        self.board, self.golden = board, golden
        self.sent: list[TxFrame] = []
        self.mismatches: list[Mismatch] = []
        self._decoder = link.Decoder(known=[m.id for m in link.SCHEMA.messages.values() if m.id < link.FROM_FABRIC])
        self._host_packets = []
        self._given = [0, 0]            # frames of each port that the golden model has been given
        self._frames = ([], [])
        self._compared = 0

    def host_bytes(self, data):
        """Bytes that the host sends to the core, in order, as they are queued for it."""
        for kind, payload in self._decoder.feed(data):
            name = link.SCHEMA.by_id[kind].name
            if name in _HOST_PACKETS:
                self._host_packets.append((_HOST_PACKETS[name], bytes(payload)))

    def link_write(self, data):
        """As :meth:`VirtualBoard.link_write`, and the golden model learns of it."""
        self.host_bytes(data)
        self.board.link_write(data)

    def link_read(self):
        """As :meth:`VirtualBoard.link_read`."""
        return self.board.link_read()

    def link_pace(self, **pace):
        """As :meth:`VirtualBoard.link_pace`."""
        self.board.link_pace(**pace)

    def inject(self, port, frames, starts, **options):
        """Queue frames (bytes without FCS) for a port, 0 the feed, 1 the order port; ``options`` as for
        :meth:`VirtualBoard.inject_many`, of which the golden model understands none."""
        self._frames[port].extend(wire_bytes(frame) for frame in frames)
        self.board.inject_many(port, frames, starts, **options)

    def run_until(self, cycle):
        """Run both up to and not including ``cycle``; compare what they sent. Returns the board's new frames."""
        board, golden = self.board, self.golden
        board.run_until(cycle)
        for port, give in enumerate((golden.feed_frame, golden.order_frame)):
            starts = board.rx_starts(port)
            frames = self._frames[port]
            for n in range(self._given[port], len(starts)):
                give(WireFrame(int(starts[n]), frames[n]))
            self._given[port] = len(starts)
        for write in board.take_register_writes().tolist():
            golden.write(*write)
        for cycle_, kind in board.take_host_tx().tolist():
            expected, data = self._host_packets.pop(0)
            if expected != kind:
                raise RuntimeError(f"the core announced a host packet of kind {kind} in cycle {cycle_}, "
                                   f"the host sent one of kind {expected}")
            golden.host_packet(cycle_, kind, data)
        golden.advance(board.cycle)
        new = board.take_tx("order")
        self.sent.extend(new)
        self._compare(final=False)
        return new

    def finish(self):
        """Compare what is left after the last burst; a frame that only one side sent counts now."""
        self._compare(final=True)
        return self.mismatches

    def _compare(self, final):
        expected = self.golden.tx
        whole = [f for f in expected[self._compared:]
                 if f.cycle + len(net.PREAMBLE) + len(f.data) < self.board.cycle] if not final \
            else expected[self._compared:]
        actual = self.sent[self._compared:]
        for n in range(max(len(whole), len(actual)) if final else min(len(whole), len(actual))):
            gateware = (actual[n].start, actual[n].data) if n < len(actual) else None
            golden = (whole[n].cycle, whole[n].data) if n < len(whole) else None
            if gateware != golden:
                self.mismatches.append(Mismatch(self._compared, gateware, golden))
            self._compared += 1

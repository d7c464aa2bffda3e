"""The exchange plugged into an Ethernet port of the virtual board."""

from hdl.layout import net
from sim.board.ports import Injection

CYCLE_NS = 8


class ExchangeWire:
    """Carries frames between a port of the virtual board and a :class:`sim.venue.tcp_peer.TcpPeer`.

    An attachment in the sense of :mod:`sim.board.ports`. A frame takes ``peer.config.delay_ns`` each way, so the
    exchange may be a whole round trip behind the board: bursts of up to :attr:`max_burst` cycles change nothing in
    what is sent or when. Longer ones are refused when a frame would arrive in the exchange's past.

    Parameters
    ----------
    peer : the end point.
    epoch_ns : the exchange's time at cycle 0.

    Attributes
    ----------
    received : number of frames from the board; faulty ones are recorded by the peer and go no further.
    """

    prompt = False

    def __init__(self, peer, epoch_ns=0):
        self.peer, self._epoch_ns, self.received = peer, epoch_ns, 0
        if peer.config.delay_ns < CYCLE_NS:
            raise ValueError(f"delay_ns is {peer.config.delay_ns}, must be at least one cycle ({CYCLE_NS} ns)")

    @property
    def max_burst(self):
        """Longest burst in cycles: a round trip."""
        return 2 * self.peer.config.delay_ns // CYCLE_NS

    def time_ns(self, cycle):
        """The exchange's time at the start of a cycle."""
        return self._epoch_ns + cycle * CYCLE_NS

    def frames_until(self, cycle):
        """Frames whose preamble starts before ``cycle``."""
        until_ns = self.time_ns(cycle) - 1
        # What reaches the board before `cycle` left the exchange one delay earlier; later events must wait for frames
        # that the board has yet to send.
        self.peer.run(max(self.peer.now_ns, until_ns - self.peer.config.delay_ns))
        return [Injection(frame, -(-(time_ns - self._epoch_ns) // CYCLE_NS))
                for time_ns, frame in self.peer.frames(until_ns)]

    def frame_sent(self, frame):
        """Hand a frame of the board to the exchange. Those of the host link go elsewhere, as behind a switch."""
        if not frame.faults and net.ETHERNET.unpack(frame.frame)["ethertype"] == net.ETHERTYPE_HOST_LINK:
            return ()
        end_ns = self.time_ns(frame.end)
        self.received += 1
        if frame.faults:
            self.peer.violate(end_ns, "faulty frame", f"{frame.faults} in a frame of {len(frame.data)} bytes")
        else:
            self.peer.receive(frame.frame, end_ns)
        return ()

    def close(self):
        """Nothing is held open."""

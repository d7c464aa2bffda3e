"""A card with an order session that never was opened by anybody: registers, positions, a peer that acknowledges."""

from hdl.control import registers
from hdl.control.registers import (
    ARM_MAGIC,
    BY_NAME,
    HISTOGRAM_BASE,
    HISTOGRAM_BINS,
    TICK_BITS,
    TICK_LIMIT,
    param_address,
    security_id_address,
)
from hdl.layout import net
from host import link
from host.integrity import SAID_BEFORE, Image
from sim.golden.model import GoldenModel
from sim.golden.resending import NEVER
from sim.golden.session import Connection, tcp_frame
from sim.lockstep import Lockstep
from sim.market.generator import LINE_A, LINE_B, mantissas
from sim.venue.session import SCHEMA as STARBASE
from sim.venue.session import frame as message

__all__ = ["Session"]

_LOCAL = Connection(0x02_00_00_00_00_01, 0x02_00_00_00_00_02, 0x0A00_0001, 0x0A00_0002, 40_000, 4210)
_PEER = Connection(_LOCAL.peer_mac, _LOCAL.local_mac, _LOCAL.peer_ip, _LOCAL.local_ip, _LOCAL.peer_port,
                   _LOCAL.local_port)
_BURST = 20_000     # cycles; the quotes that fit into one are far fewer than the peer's window holds
_SEQ = 1000         # first sequence number of ours, and of the peer's
_WINDOW = 65_535

#: A reference in ticks: with the widest bands every price from 16 ticks to twice as much is in its collar.
_REFERENCE = 1_000_000
#: Every gate in force, and wide enough for any market: what is measured is the way, not what stops on it.
_ROW = {
    "sym_en": 1, "bid_en": 1, "ask_en": 1, "ref_scale": 1 << 23, "half_spread_sub": 300, "skew_q8": 20 * 256,
    "skew_max_sub": 2560, "quote_lots": 5, "toward_ticks": 1, "away_ticks": 1, "px_min_ticks": -TICK_LIMIT,
    "px_max_ticks": TICK_LIMIT - 1, "q_min_lots": 1, "q_hard_lots": 100, "max_lots": 10,
    "max_notional_lo": 0xFFFF_FFFF, "max_notional_hi": 7, "px_notional_ticks": TICK_LIMIT - 1, "bands": 0xFFFF_FFFF,
    "max_long_lots": 1 << 30, "max_short_lots": 1 << 30, "stale_cycles": 1 << 30, "lot_mult": 10,
    "lot_exp": -1 & 0xFF, "tick_e9_lo": 500_000_000, "drift_band": 0xFFFF,
}


class Session:
    """Board and golden model in lock step, connected and armed.

    Parameters
    ----------
    board : :class:`sim.board.board.VirtualBoard` of the core; it is reset.
    instruments : (SecurityID, tick as a price mantissa) of at most as many instruments as the core has.
    lines : feed lines A and B (:class:`sim.market.generator.Line`; B may be ``None``).

    Attributes
    ----------
    lock : :class:`sim.lockstep.Lockstep`. golden : its golden model. sent : frames of the order port.
    told : decision records that the card sent over the host link.
    host_frames : frames that the host gave to the port, without FCS.
    """

    def __init__(self, board, instruments, lines=(LINE_A, LINE_B)):
        board.reset()
        self.board, self.golden = board, GoldenModel()
        if len(instruments) > self.golden.instruments:
            raise ValueError(f"{len(instruments)} instruments, the core has {self.golden.instruments}")
        self.lock = Lockstep(board, self.golden)
        self.told, self.host_frames = [], []
        self._replies, self._decoder, self._image = [], link.Decoder(), Image(self.golden.instruments)
        self._ours, self._theirs, self._acknowledged, self._said = _SEQ, _SEQ, 0, 0
        self._run(200)      # the parameter banks are cleared after reset
        self._configure(instruments, lines)

    @classmethod
    def for_market(cls, board, instruments, version):
        """A session on generated instruments (:class:`sim.market.generator.Instrument`) of a schema version."""
        return cls(board, [(i.security_id, mantissas(i.tick, version)) for i in instruments])

    @property
    def sent(self):
        return self.lock.sent

    @property
    def cycle(self):
        """The next cycle to be run."""
        return self.board.cycle

    # -- host -----------------------------------------------------------------------------------------------------
    def write(self, name, value):
        """Write a register by name; one of 64 bits takes both halves. Commands that go by a CRC are told it."""
        if name in SAID_BEFORE:
            self._say(self._image.command(name, value))
            return
        if name in BY_NAME:
            words, address = [value & 0xFFFF_FFFF], BY_NAME[name].address
        else:
            words, address = [value & 0xFFFF_FFFF, value >> 32], BY_NAME[f"{name}_lo"].address
        self._say(link.encode_write(address, words))

    def _say(self, data):
        self._image.observe(data)
        self.lock.link_write(data)

    def read(self, *addresses):
        """Values of registers, read over the host link."""
        values = []
        for at in range(0, len(addresses), 256):
            asked = addresses[at:at + 256]
            for tag, address in enumerate(asked):
                self.lock.link_write(link.encode_read(tag, address))
            while len(self._replies) < len(asked):
                self._run(1000)
            values += [reply.data for reply in sorted(self._replies, key=lambda reply: reply.tag)]
            self._replies.clear()
        return values

    def counters(self):
        """Every counter of the card by name, and the packets missing in gaps."""
        names = [*(r.name for r in registers.REGISTERS if r.access == "count"), "gap_packets"]
        return dict(zip(names, self.read(*(BY_NAME[name].address for name in names)), strict=True))

    def histogram(self):
        """The probe's histogram as read from the card: cycles -> count."""
        bins = self.read(*range(HISTOGRAM_BASE, HISTOGRAM_BASE + HISTOGRAM_BINS))
        return {cycles: count for cycles, count in enumerate(bins) if count}

    def send_frame(self, frame):
        """Let the host send a frame (without FCS) through the order port."""
        self.host_frames.append(bytes(frame))
        self.lock.link_write(link.encode_tx("FrameTx", frame))

    def _configure(self, instruments, lines):
        for name, line in zip(("line_a", "line_b"), lines, strict=True):
            self.write(f"{name}_ip", line.group if line else 0)
            self.write(f"{name}_port", line.port if line else 0)
        for name, value in {
                "deadman_cycles": 0xFFFF_FFFF, "session_interval": 40, "session_burst": 4000, "symbol_interval": 40,
                "symbol_burst": 200, "window": 8192, "order_flags": 0x13, "time_ns": 1_700_000_000_000_000_000,
                "quote_id": 1 << 40, "mmp_group": 7, "ref_cycles": 0xFFFF_FFFF, "live_most": 1023, "duplicate_most": 8,
                "duplicate_cycles": 1, "loss_most": 1, "drawdown_most": 1, "equity_cycles": 0xFFFF_FFFF,
                "equity": 10**9, "gross_most": 0xFFFF_FFFF, "leverage_most": 255, "open_most": 0xFFFF_FFFF,
                "fills_cycles": 1, "fills_lots": 1, "fills_delta": 1, "fills_most": 1, "repeats_most": 1,
                "refusals_cycles": 1, "refusals_most": 1, "drift_cycles": 1,
                "local_mac": _LOCAL.local_mac, "peer_mac": _LOCAL.peer_mac,
                "local_ip": _LOCAL.local_ip, "peer_ip": _LOCAL.peer_ip, "local_port": _LOCAL.local_port,
                "peer_port": _LOCAL.peer_port}.items():
            self.write(name, value)
        for n, (security_id, tick) in enumerate(instruments):
            self.lock.link_write(link.encode_write(security_id_address(n), [security_id & 0xFFFF_FFFF]))
            shift = (tick & -tick).bit_length() - 1
            odd = tick >> shift
            row = _ROW | {"feed_tick_shift": shift, "feed_tick_odd": odd, "feed_tick_inv": pow(odd, -1, 1 << TICK_BITS),
                          "instrument_id_lo": 1000 + n}
            words = [row.get(p.name, 0) & 0xFFFF_FFFF for p in registers.PARAMS]
            self._say(link.encode_write(param_address(n, registers.PARAMS[0].name), words))
            self.lock.link_write(link.encode_write(BY_NAME["ref_value"].address, [_REFERENCE, _REFERENCE, 0, 256, n]))
        self.write("commit", 1)
        for name, value in {"init_snd_nxt": self._ours, "init_rcv_nxt": self._theirs, "init_peer_window": _WINDOW,
                            **NEVER, "init_app_seq": 2, "init_peer_seq": 1, "session_enable": 1,
                            "heartbeat": 1}.items():
            self.write(name, value)
        for n in range(self.golden.instruments):    # the hand-over has made positions unknown
            self.lock.link_write(link.encode_write(BY_NAME["pos_value"].address, [0, 0, 0, 0, 1, n]))
        self.write("arm", ARM_MAGIC)
        self.settle()
        if self.golden.state != registers.ACTIVE:
            raise RuntimeError("the card did not arm")

    # -- time -----------------------------------------------------------------------------------------------------
    def _run(self, cycles):
        new = self.lock.run_until(self.board.cycle + cycles)
        for kind, payload in self._decoder.feed(self.lock.link_read()):
            record = link.parse(kind, payload)
            if isinstance(record, link.Decision):
                self.told.append(record)
            elif isinstance(record, link.ReadReply):
                self._replies.append(record)
        return new

    def settle(self):
        """Run until the card has taken everything that the host has sent."""
        while self.board.link_waiting:
            self._run(500)
        self._run(500)

    def run_until(self, cycle, step=_BURST, progress=None):
        """Run up to ``cycle``; the peer acknowledges after every ``step`` cycles. Returns the frames sent."""
        new, first = [], self.cycle
        while self.cycle < cycle:
            new += self._run(min(step, cycle - self.cycle))
            self.acknowledge()
            if progress:
                progress((self.cycle - first) / max(1, cycle - first))
        return new

    def finish(self):
        """Let everything that is under way come to its end. Returns the frames that differ from the golden model's."""
        self.settle()
        self._run(5_000)
        return self.lock.finish()

    # -- the ports ------------------------------------------------------------------------------------------------
    def feed(self, frames, cycles):
        """Put frames (without FCS) on the feed port."""
        self.lock.inject(0, frames, cycles)

    def segment(self, payload=b""):
        """Let the peer send a segment, which acknowledges everything that it has seen."""
        for frame in self.sent[self._acknowledged:]:
            data = frame.frame
            if net.ETHERNET.unpack(data)["ethertype"] == net.ETHERTYPE_IPV4:
                ip = net.IPV4.unpack(data, net.ETHERNET.size)
                self._ours = self._ours + ip["total_length"] - net.IPV4.size - net.TCP.size & 0xFFFF_FFFF
        self._acknowledged = len(self.sent)
        flags = net.TCP_ACK | (net.TCP_PSH if payload else 0)
        self.lock.inject(1, [tcp_frame(_PEER, self._theirs, self._ours, _WINDOW, flags, payload)], [self.cycle])
        self._theirs = self._theirs + len(payload) & 0xFFFF_FFFF

    def heartbeat(self):
        """Let the exchange say something that means nothing."""
        self._said += 1
        self.segment(message("Heartbeat", STARBASE["Heartbeat"].encode({}), sequence=self._said, last_processed=0,
                             now_ns=0, version=1))

    def acknowledge(self):
        """Let the peer acknowledge what it has not yet."""
        if self._acknowledged != len(self.sent):
            self.segment()

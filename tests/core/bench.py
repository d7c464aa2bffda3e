"""The core on the virtual board with a hand-made session, in lockstep with the golden model."""

import random

from hdl.control import registers
from hdl.control.registers import BY_NAME, TICK_BITS, TICK_LIMIT, param_address, security_id_address
from hdl.layout import net, sbe
from host import link
from host.integrity import SAID_BEFORE, Image
from sim.board.board import VirtualBoard
from sim.golden.model import GoldenModel
from sim.golden.resending import NEVER
from sim.lockstep import Lockstep
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B

STARBASE = sbe.load("starbase_orders")
LOCAL = {"local_mac": 0x020000000001, "local_ip": 0x0A000001, "local_port": 40000}
PEER = {"peer_mac": 0x020000000002, "peer_ip": 0x0A000002, "peer_port": 4210}
_BOARDS = {}


def board(**options):
    """A reset virtual board; the model is created once a process."""
    key = tuple(sorted(options.items()))
    if key not in _BOARDS:
        _BOARDS[key] = VirtualBoard(**options)
    _BOARDS[key].kill(False)
    _BOARDS[key].feed_lost(False)
    _BOARDS[key].reset()
    return _BOARDS[key]


class CoreBench:
    """Board and golden model with helpers to configure, feed and answer.

    Attributes
    ----------
    lock : :class:`Lockstep`. board, golden : its two sides. decoder : of the core's bytes to the host.
    records : (type name, record) of everything that the core told the host.
    waits : nothing is sent right behind a commit.
    """

    waits = True

    def __init__(self, instruments=16):
        self.board = board()
        self.golden = GoldenModel(instruments)
        self.lock = Lockstep(self.board, self.golden)
        self.decoder, self.image = link.Decoder(), Image(instruments)
        self.records = []
        self.peer_seq, self.peer_ack = 5000, 1000
        self.lock.run_until(200)        # the parameter banks are cleared after reset

    # -- host
    def send(self, data):
        self.image.observe(data)
        self.lock.link_write(data)

    def write(self, name, value):
        """Write a register by name; 64-bit ones take both halves. Commands that go by a CRC are told it, rightly."""
        if name in SAID_BEFORE:
            self.send(self.image.command(name, value, self.waits))
        elif name in BY_NAME:
            self.send(link.encode_write(BY_NAME[name].address, [value & 0xFFFFFFFF]))
        else:
            self.send(link.encode_write(BY_NAME[f"{name}_lo"].address, [value & 0xFFFFFFFF, value >> 32]))

    def row(self, instrument, **values):
        for name, value in values.items():
            self.send(link.encode_write(param_address(instrument, name), [value & 0xFFFFFFFF]))

    def run(self, cycles, burst=2000):
        """Run; returns the frames sent."""
        end, new = self.board.cycle + cycles, []
        while self.board.cycle < end:
            new += self.lock.run_until(min(end, self.board.cycle + burst))
            for kind, payload in self.decoder.feed(self.lock.link_read()):
                self.records.append(link.parse(kind, payload))
        return new

    def settle(self, limit=60000):
        """Run until the core has taken everything that was sent to it."""
        new = []
        while self.board.link_waiting:
            new += self.run(200)
            limit -= 200
            assert limit > 0, "the core does not take what the host sends"
        return new + self.run(300)

    def decisions(self):
        return [r for r in self.records if isinstance(r, link.Decision)]

    def counter(self, name):
        """Read a register over the link."""
        before = len(self.records)
        self.send(link.encode_read(7, BY_NAME[name].address))
        self.settle()
        replies = [r for r in self.records[before:] if isinstance(r, link.ReadReply)]
        assert len(replies) == 1
        self.records.remove(replies[0])
        return replies[0].data

    def configure(self, instruments=INSTRUMENTS, *, deadman=10**8, stale=10**7, without=(), **overrides):
        """Addresses, limits that allow everything sensible, one row for each of the first instruments.

        ``without``: registers and words of the rows that are left at their reset values, and ``"references"``.
        """
        for name, value in (("line_a_ip", LINE_A.group), ("line_a_port", LINE_A.port), ("line_b_ip", LINE_B.group),
                            ("line_b_port", LINE_B.port), ("deadman_cycles", deadman), ("session_interval", 400),
                            ("session_burst", 200), ("symbol_interval", 900), ("symbol_burst", 60), ("window", 8192),
                            ("order_flags", 0x13), ("time_ns", 1_700_000_000_000_000_000), ("quote_id", 1 << 40),
                            ("mmp_group", 7), ("ref_cycles", 0xFFFFFFFF), ("live_most", 1023), ("duplicate_most", 8),
                            ("duplicate_cycles", 1), ("fills_cycles", 1), ("fills_lots", 1), ("fills_delta", 1),
                            ("fills_most", 1), ("repeats_most", 1), ("refusals_cycles", 1), ("refusals_most", 1),
                            ("drift_cycles", 1),
                            ("loss_most", 1), ("drawdown_most", 1),
                            ("equity_cycles", 0xFFFFFFFF), ("equity", 10**9), ("gross_most", 0xFFFFFFFF),
                            ("leverage_most", 255), ("open_most", 0xFFFFFFFF), *LOCAL.items(), *PEER.items()):
            if name not in without:
                self.write(name, value)
        for n, instrument in enumerate(instruments[:16]):
            self.send(link.encode_write(security_id_address(n), [instrument.security_id & 0xFFFFFFFF]))
            tick = instrument.tick
            shift = (tick & -tick).bit_length() - 1
            odd = tick >> shift
            values = {
                "sym_en": 1, "bid_en": 1, "ask_en": 1, "feed_tick_shift": shift, "feed_tick_odd": odd,
                "feed_tick_inv": pow(odd, -1, 1 << TICK_BITS), "ref_scale": 1 << 23, "half_spread_sub": 300 + 40 * n,
                "skew_q8": 20 * 256, "skew_max_sub": 2560, "quote_lots": 5, "toward_ticks": 1, "away_ticks": 1,
                "px_min_ticks": -TICK_LIMIT, "px_max_ticks": TICK_LIMIT - 1, "q_min_lots": 1, "q_hard_lots": 100,
                "max_lots": 10, "max_notional_lo": 0xFFFFFFFF, "max_long_lots": 1 << 20, "max_short_lots": 1 << 20,
                "stale_cycles": stale, "lot_mult": 10, "lot_exp": -1 & 0xFF, "tick_e9_lo": 500_000_000,
                "instrument_id_lo": 1000 + n,
                "px_notional_ticks": TICK_LIMIT - 1, "bands": 0xFFFFFFFF, "drift_band": 0xFFFF}
            self.row(n, **{name: value for name, value in (values | overrides).items() if name not in without})
            # With the widest bands: every price from 16 to 1,999,984 ticks.
            if "references" not in without:
                self.send(link.encode_write(BY_NAME["ref_value"].address, [1_000_000, 1_000_000, 0, 256, n]))
        if "commit" not in without:
            self.write("commit", 1)
        return self.settle()

    def position(self, instrument, lots, settled_bid, settled_ask, quote_id=0, clear=0):
        self.send(link.encode_write(BY_NAME["pos_value"].address, [
            lots & 0xFFFFFFFF, settled_bid & 0xFFFFFFFF, settled_ask & 0xFFFFFFFF, quote_id & 0xFFFFFFFF,
            0, instrument | clear << 8]))

    def open_session(self, arm=True, without=()):
        """Hand over a connection that never was opened, and arm. ``without``: registers that are not written, and
        ``"positions"``."""
        for name, value in (("init_snd_nxt", self.peer_ack), ("init_rcv_nxt", self.peer_seq),
                            ("init_peer_window", 65535), ("init_app_seq", 2), *NEVER.items(), ("session_enable", 1),
                            ("heartbeat", 1)):
            if name not in without:
                self.write(name, value)
        for n in range(0 if "positions" in without else 16):    # the hand-over has made them unknown
            self.position(n, 0, 0, 0)
        if arm:
            self.write("arm", registers.ARM_MAGIC)
        return self.settle()

    # -- peer
    def segment(self, payload=b"", *, seq=None, ack=None, flags=net.TCP_ACK | net.TCP_PSH, window=65535):
        """An Ethernet frame of the peer, without FCS."""
        tcp = {"src_port": PEER["peer_port"], "dst_port": LOCAL["local_port"],
               "seq": self.peer_seq if seq is None else seq, "ack": self.peer_ack if ack is None else ack,
               "data_offset": 0x50, "flags": flags, "window": window}
        body = net.TCP.pack(**tcp) + payload
        ends = {"src": PEER["peer_ip"], "dst": LOCAL["local_ip"], "protocol": net.PROTOCOL_TCP}
        tcp["checksum"] = net.checksum(net.PSEUDO.pack(**ends, length=len(body)) + body)
        ip = {"version_ihl": net.IPV4_NO_OPTIONS, "total_length": net.IPV4.size + len(body), "ttl": 64,
              "flags_fragment": net.IPV4_DONT_FRAGMENT, **ends}
        ip["checksum"] = net.checksum(net.IPV4.pack(**ip))
        return (net.ETHERNET.pack(dst=LOCAL["local_mac"], src=PEER["peer_mac"], ethertype=net.ETHERTYPE_IPV4)
                + net.IPV4.pack(**ip) + net.TCP.pack(**tcp) + payload)

    def acknowledge(self, sent):
        """Acknowledge everything sent in the session so far."""
        for frame in sent:
            data = frame.frame
            if int.from_bytes(data[12:14], "big") == net.ETHERTYPE_IPV4:
                ip = net.IPV4.unpack(data, net.ETHERNET.size)
                self.peer_ack += ip["total_length"] - net.IPV4.size - net.TCP.size
        self.lock.inject(1, [self.segment(flags=net.TCP_ACK)], [self.board.cycle])


def seeded(seed):
    """A random source whose seed the test's output shows."""
    print(f"seed {seed}")
    return random.Random(seed)

"""The core on the virtual board and the golden model, side by side on the same input."""

import random

from hdl.control import registers as map_
from hdl.control.registers import ARM_MAGIC, BY_NAME, PARAM_BY_NAME, TICK_BITS, TICK_LIMIT
from hdl.layout import net, sbe
from host import link
from host.integrity import SAID_BEFORE, Image
from sim.board import VirtualBoard
from sim.board.board import Inject
from sim.golden.feed import WireFrame
from sim.golden.model import GoldenModel
from sim.golden.port import FRAME_TX, SESSION_TX
from sim.golden.resending import NEVER
from sim.golden.session import Connection, tcp_frame
from sim.lockstep import HOST_LINK, expects
from sim.market.generator import INSTRUMENTS
from sim.market.schedule import wire_bytes
from sim.venue.session import frame

STARBASE = sbe.load("starbase_orders")
LOCAL = {"local_mac": 0x02_00_00_00_00_01, "peer_mac": 0x02_00_00_00_00_02, "local_ip": 0x0A000001,
         "peer_ip": 0x0A000002, "local_port": 40000, "peer_port": 9000}
PEER = Connection(LOCAL["peer_mac"], LOCAL["local_mac"], LOCAL["peer_ip"], LOCAL["local_ip"], LOCAL["peer_port"],
                  LOCAL["local_port"])
FRAME_HEADER = link.SCHEMA.composites["FrameHeader"]
LIMITS = {"sym_en": 1, "bid_en": 1, "ask_en": 1, "ref_scale": 128 << 16, "half_spread_sub": 400, "skew_q8": 256 * 8,
          "skew_max_sub": 3000, "quote_lots": 5, "toward_ticks": 1, "away_ticks": 1, "px_min_ticks": -TICK_LIMIT,
          "px_max_ticks": TICK_LIMIT - 1, "q_min_lots": 1, "q_hard_lots": 100, "max_lots": 100,
          "max_notional_lo": 0xFFFF_FFFF, "max_notional_hi": 1, "px_notional_ticks": TICK_LIMIT - 1,
          "max_long_lots": 1 << 30, "max_short_lots": 1 << 30, "stale_cycles": 200_000, "lot_mult": 1000,
          "lot_exp": -3, "tick_e9_lo": 500_000_000, "bands": 0xFFFF_FFFF, "drift_band": 0xFFFF}
MIDS = {i.security_id: i.mid_ticks for i in INSTRUMENTS}


def tick_words(tick):
    """Parameters of a feed tick."""
    shift = (tick & -tick).bit_length() - 1
    odd = tick >> shift
    return {"feed_tick_shift": shift, "feed_tick_odd": odd & 0xFFFF_FFFF, "feed_tick_inv": pow(odd, -1, 1 << TICK_BITS)}


class CoSim:
    """Feeds both, keeps a peer for the order session, and compares."""

    def __init__(self, design=None, instruments=16, seed=1):
        self.board = VirtualBoard(design)
        self.model = GoldenModel(instruments)
        self.instruments = instruments
        self.rng = random.Random(seed)
        self.tx, self.host, self.decoder, self.from_fabric = [], [], link.Decoder(), []
        self.image = Image(instruments)
        self.feed_at = self.order_at = 0
        self.kill_level = self.feed_is_lost = False
        self.peer_number = 1    # of the peer's next message
        self.frames = None      # over Ethernet: number of the host's next frame
        self.link_frames = 0    # of the core
        self.closed_until = 0   # cycle before which limits must not be written: a commit may still be weighed

    # ------------------------------------------------------------------ input

    def say(self, data):
        """Whole packets of the host, over the serial port or in one frame."""
        self.image.observe(data)
        if self.frames is None:
            self.board.link_write(data)
            return
        self.order(wire_bytes(net.ETHERNET.pack(dst=net.MAC_HOST_LINK, src=0x02_00_00_00_00_03,
                                                ethertype=net.ETHERTYPE_HOST_LINK)
                              + FRAME_HEADER.pack(length=len(data), sequence=self.frames, lost=0) + data))
        self.frames = self.frames % 255 + 1

    def feed(self, frame):
        """Put a scheduled frame on the feed port of both."""
        self.board.inject("feed", frame.data, frame.cycle, Inject.RAW)
        self.model.feed_frame(WireFrame(frame.cycle, frame.data))

    def order(self, data, *, rx_er=False, preamble=8):
        """Put a frame (with FCS) on the order port of both, as soon as the wire is free."""
        start = max(self.board.cycle + 1, self.order_at)
        self.board.inject("order", data, start, Inject.RAW, rx_er_at=len(data) // 2 + 8 if rx_er else None)
        self.model.order_frame(WireFrame(start, data, rx_er))
        self.order_at = start + preamble + len(data) + 12

    def write(self, name, *values):
        """Queue a register write on the link; ``name`` without ``_lo`` for a register of 64 bits. Commands that go by a
        CRC are told it, rightly."""
        if name in SAID_BEFORE:
            self.say(self.image.command(name, *values, wait=self.frames is None))
            if name == "commit":    # there is no waiting in frames
                self.closed_until = self.order_at + self.image.commit_cycles
            return
        register = BY_NAME.get(name) or BY_NAME[f"{name}_lo"]
        if register.name.endswith("_lo"):
            values = values[0] & 0xFFFF_FFFF, values[0] >> 32 & 0xFFFF_FFFF
        self.say(link.encode_write(register.address, [v & 0xFFFF_FFFF for v in values]))

    def params(self, instrument, **values):
        """Write parameters of one instrument into the shadow bank."""
        for name, value in values.items():
            assert name in PARAM_BY_NAME
            self.say(link.encode_write(map_.param_address(instrument, name), [value & 0xFFFF_FFFF]))

    def host_packet(self, kind, data):
        """Give the port a FrameTx (0) or SessionTx (1) through the link."""
        self.host.append((kind, bytes(data)))
        self.say(link.encode_tx("SessionTx" if kind == SESSION_TX else "FrameTx", data))

    def position(self, instrument, lots, settled_bid=0, settled_ask=0, quote_id=0, clear=0):
        """Write a position, which knows every message of the peer so far."""
        self.write("pos_value", lots)
        self.write("pos_settled_bid", settled_bid)
        self.write("pos_settled_ask", settled_ask)
        self.write("pos_quote_id", quote_id)
        self.write("pos_next", self.peer_number & 0xFFFF_FFFF)
        self.write("pos_commit", instrument | clear << 8)

    def reference(self, instrument, value, local, basis=0, lot_value=1):
        """Write the references of an instrument."""
        self.write("ref_value", value)
        self.write("ref_local", local)
        self.write("ref_basis", basis)
        self.write("ref_lot_value", lot_value)
        self.write("ref_commit", instrument)

    def kill(self, level):
        """The kill pin, from the next cycle on."""
        self.kill_level = level
        self.board.kill(level)
        self.model.kill_pin(self.board.cycle, level)

    def lose_feed(self, level):
        """The feed port's link or clock is gone, or back, from the next cycle on."""
        self.feed_is_lost = level
        self.board.feed_lost(level)
        self.model.feed_lost(self.board.cycle, level)

    # ------------------------------------------------------------------ set up

    def lines(self, a, b):
        """Feed lines A and B (:class:`sim.market.generator.Line`)."""
        for name, line in (("a", a), ("b", b)):
            self.write(f"line_{name}_ip", line.group)
            self.write(f"line_{name}_port", line.port)

    def configure(self, instruments, card=None, **limits):
        """Security ids and limits of ``instruments`` ((security id, tick mantissa) pairs, ``None`` where none is),
        both banks. ``card``: registers with another value than the usual one."""
        used = [(i, *instrument) for i, instrument in enumerate(instruments) if instrument]
        for i, security, _ in used:
            self.say(link.encode_write(map_.security_id_address(i), [security & 0xFFFF_FFFF]))
        settings = {"session_interval": 5_000, "session_burst": 200, "symbol_interval": 20_000, "symbol_burst": 40,
                    "deadman_cycles": 0xFFFF_FFFF, "heartbeat": 1, "quote_id": 1 << 33 | 7, "live_most": 1023,
                    "duplicate_most": 8, "duplicate_cycles": 1_000, "ref_cycles": 0xFFFF_FFFF,
                    "loss_most": 1_000, "drawdown_most": 1_000, "equity_cycles": 0xFFFF_FFFF, "equity": 300,
                    "gross_most": 0xFFFF_FFFF, "leverage_most": 255, "open_most": 0xFFFF_FFFF,
                    "fills_cycles": 1_000_000, "fills_lots": 1_000, "fills_delta": 1_000, "fills_most": 255,
                    "freeze_cycles": 20_000, "repeats_most": 200, "refusals_cycles": 1_000_000, "refusals_most": 200,
                    "drift_cycles": 100_000, "life_cycles": 2_000,
                    "time_ns": 1_700_000_000_000_000_000}
        for name, value in (settings | (card or {})).items():
            self.write(name, value)
        for _ in range(2):
            for i, _, tick in used:
                self.params(i, **(LIMITS | tick_words(tick) | {"instrument_id_lo": 1000 + i} | limits))
            self.write("commit", 1)
        for i, security, _ in used:
            self.reference(i, MIDS[security], MIDS[security])

    def hand_over(self, window=65535, **registers):
        """Give the fabric an established connection, and positions of 0."""
        values = LOCAL | {"init_snd_nxt": 0xFFFF_F000, "init_rcv_nxt": 5000, "init_peer_window": window,
                          "window": 60_000, **NEVER, "ack_delay": 0, "init_app_seq": 9,
                          "init_peer_seq": self.peer_number,
                          "last_processed": 4, "mmp_group": 77, "smp_id": 78, "quote_flags": 1,
                          "order_flags": 3} | registers
        for name, value in values.items():
            self.write(name, value)
        self.write("session_enable", 1)
        for i in range(self.instruments):   # the hand-over has made them unknown
            self.position(i, 0)
        self.peer_next, self.peer_seen, self.peer_window = values["init_rcv_nxt"], values["init_snd_nxt"], window

    def arm(self):
        """DISARMED to ACTIVE."""
        self.write("arm", ARM_MAGIC)

    def session_is_up(self):
        """The fabric owns a connection."""
        return self.model.session_up

    # ------------------------------------------------------------------ time

    def run(self, cycles):
        """Run both for a while, and compare what they sent."""
        board, model = self.board, self.model
        board.run(cycles)
        for write in board.take_register_writes().tolist():
            model.write(*write)
        for cycle, kind, length in board.take_host_tx().tolist():
            if kind == HOST_LINK:
                model.link_frame(cycle, length)
                continue
            queued, data = self.host.pop(0)
            assert queued == kind, f"host packet of kind {kind} became available, {queued} was given"
            model.host_packet(cycle, kind, data)
        model.advance(board.cycle)
        new = board.take_tx("order")
        self.tx += new
        self.from_fabric += self.decoder.feed(board.link_read())
        for each in new:
            self._peer_sees(each)
            self._host_sees(each)
        self.compare()
        return new

    def _host_sees(self, frame):
        if net.ETHERNET.unpack(frame.data)["ethertype"] == net.ETHERTYPE_HOST_LINK:
            header = FRAME_HEADER.unpack(frame.data, net.ETHERNET.size)
            assert header["sequence"] == (self.link_frames and (self.link_frames - 1) % 255 + 1)
            assert header["lost"] == 0
            self.link_frames += 1
            at = net.ETHERNET.size + FRAME_HEADER.size
            self.from_fabric += self.decoder.feed(frame.data[at:at + header["length"]])

    def _peer_sees(self, frame):
        if len(frame.data) > 60 and frame.data[12:14] == b"\x08\x00":
            ip = net.IPV4.unpack(frame.data, net.ETHERNET.size)
            if ip["protocol"] == net.PROTOCOL_TCP:
                tcp = net.TCP.unpack(frame.data, net.ETHERNET.size + net.IPV4.size)
                length = ip["total_length"] - net.IPV4.size - net.TCP.size
                self.peer_seen = tcp["seq"] + length & 0xFFFF_FFFF

    def peer(self, payload=b"", *, flags=net.TCP_ACK, seq=None, ack=None, window=None):
        """A segment from the peer. It acknowledges what it has seen; payload moves its sequence number on."""
        seq = self.peer_next if seq is None else seq
        ack = self.peer_seen if ack is None else ack
        self.order(wire_bytes(tcp_frame(PEER, seq, ack, self.peer_window if window is None else window,
                                        flags | (net.TCP_PSH if payload else 0), payload)))
        if seq == self.peer_next:
            self.peer_next = self.peer_next + len(payload) & 0xFFFF_FFFF

    def answer(self, *messages, cut=None):
        """Messages of the exchange, each (name, root, groups) as the schema has them, or bytes of one as they are; in
        one segment, or cut into pieces of so many bytes."""
        stream = b""
        for message in messages:
            if not isinstance(message, bytes):
                name, root, groups = message
                message = frame(name, STARBASE[name].encode(root, groups), sequence=self.peer_number, last_processed=0,
                                now_ns=0, version=1)
                self.peer_number += 1
            stream += message
        for at in range(0, len(stream), cut or len(stream)):
            self.peer(stream[at:at + (cut or len(stream))])

    # ------------------------------------------------------------------ compare

    def compare(self):
        """Every frame that the core has sent is the model's, in the same cycle."""
        for n, (got, want) in enumerate(zip(self.tx, self.model.tx, strict=False)):
            assert not got.faults, f"frame {n} at cycle {got.start}: {got.faults}"
            assert (got.start, got.data) == expects(want, (got.start, got.data)), (
                f"frame {n}: core at cycle {got.start} {got.data.hex(' ')}\n"
                f"model at cycle {want.cycle} ({want.kind}) {want.data.hex(' ')}")
        ended = [f for f in self.model.tx if f.cycle + 8 + len(f.data) < self.board.cycle]
        assert len(self.tx) >= len(ended), f"the model sent {ended[len(self.tx)]}, the core did not"
        assert len(self.tx) <= len(self.model.tx), f"the core sent {self.tx[len(self.model.tx)]}, the model did not"

    def records(self):
        """(decisions, events) that came over the link."""
        decisions = [link.parse(k, p) for k, p in self.from_fabric if k == link.SCHEMA["Decision"].id]
        events = [link.parse(k, p) for k, p in self.from_fabric if k == link.SCHEMA["Event"].id]
        return decisions, events

    def read(self, name):
        """Read a register of the core through the link."""
        tag = self.rng.randrange(256)
        at = len(self.from_fabric)
        self.say(link.encode_read(tag, BY_NAME[name].address))
        for _ in range(100):
            self.run(100)
            for kind, payload in self.from_fabric[at:]:
                if kind == link.SCHEMA["ReadReply"].id:
                    reply = link.parse(kind, payload)
                    if (reply.tag, reply.addr) == (tag, BY_NAME[name].address):
                        return reply.data
        raise AssertionError(f"no answer to a read of {name}")

    def compare_records(self):
        """Every decision record of the core is the model's."""
        decisions, _ = self.records()
        for n, (got, want) in enumerate(zip(decisions, self.model.decisions, strict=False)):
            got = dict(zip(link.SCHEMA["Decision"].fields, got, strict=True))
            got.pop("sequence")
            want = want.as_dict()
            different = {k: (got[k], want[k]) for k in want if got[k] != want[k]}
            assert not different, f"decision {n}: (core, model) differ in {different}; model: {want}"
        return len(decisions), len(self.model.decisions)

    def compare_events(self):
        """Every event that the core has told is the model's, save the order of what happened in one cycle."""
        _, told = self.records()
        got = sorted((e.cycle, link.EVENT_CODES[e.code], e.data) for e in told)
        want = sorted((e.cycle, e.code, e.data) for e in self.model.events)
        different = [e for e in got if e not in want], [e for e in want if e not in got]
        assert got == want, f"events differ: (only the core, only the model) have {different}"

    def compare_host(self):
        """What the order port has given the host: frames, payload, numbers of sent messages."""
        for name, want in (("FrameRx", self.model.host_frames), ("SessionRx", self.model.host_payloads),
                           ("SessionSent", self.model.session_sent)):
            got = [link.parse(k, p)[0] for k, p in self.from_fabric if k == link.SCHEMA[name].id]
            assert got == [what for _, what in want], f"{name}: the core gave {len(got)}, {len(want)} expected"

    def compare_counters(self):
        """Every counter of the core, and a few registers, are the model's."""
        different = {}
        for register in map_.REGISTERS:
            if register.section in ("feed", "quoting", "gate", "session") and register.access == "count":
                if register.name in ("telemetry_overflow",):
                    continue
                got, want = self.read(register.name), self.model.counters[register.name]
                if got != want:
                    different[register.name] = (got, want)
        assert not different, f"counters differ (core, model): {different}"


__all__ = ["FRAME_TX", "LIMITS", "LOCAL", "MIDS", "PEER", "SESSION_TX", "STARBASE", "CoSim", "tick_words"]

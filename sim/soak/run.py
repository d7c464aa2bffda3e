"""One soak: quotes and host messages over a wire with faults, and what became of every byte."""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hdl.layout import sbe
from host import config as configuration
from sim.bench import traffic
from sim.board.board import CYCLE_NS
from sim.board.captures import CaptureWriter
from sim.board.ports import Injection
from sim.kernel import ROOT
from sim.soak.impairment import Impairment
from sim.soak.rig import BURST, Rig, RigError
from sim.soak.segments import is_whole, segment_of

__all__ = ["Outcome", "soak"]

_STARBASE = sbe.load("starbase_orders")
_HEADER = _STARBASE.composites["MessageHeader"]
_MASK = 0xFFFF_FFFF
#: Of the shipped configuration: limits that let quotes pass as fast as they come, and time-outs of a short wire.
_SETTINGS = {
    "session_rate_per_s": "500_000", "session_burst": "60_000", "symbol_rate_per_s": "100_000", "symbol_burst": "255",
    "duplicate_most": "8", "duplicate_ms": "0.001", "max_rejects_per_s": "100_000", "journal": '"{folder}/journal"',
    "secret_file": '"{secret}"', "receive_window_bytes": "4096", "resend_first_ms": "2", "resend_min_ms": "0.3",
    "resend_max_ms": "4", "resend_most": "31",
}
#: The golden model takes the buffer for received bytes to have room: no more come than it can hold.
_SMALL = {"receive_window_bytes": "1500"}
_DRAIN_S = 300.0        # wall time: Linux waits for up to two minutes before it sends again
_STALL_S = 150.0        # wall time: more than the longest time-out of Linux


class Busy:
    """Market data that never rests: another quote with every packet, on both lines.

    An attachment in the sense of :mod:`sim.board.ports`. gap : idle cycles between two packets, at random between two
    numbers.
    """

    def __init__(self, start, seed, gap):
        self.market = traffic.Market(8, seed)
        self._moves = traffic.Moves(self.market)
        self._gap, self._at = gap, start
        self._waiting = self._arranged(self.market.warm_up())

    def _arranged(self, packets):
        (frames, cycles, _), self._at = traffic.arrange(packets, self._at, rng=self.market.rng, gap=self._gap)
        return [Injection(frame, cycle) for frame, cycle in zip(frames, cycles, strict=True)]

    def frames_until(self, cycle):
        while self._at < cycle:
            rng, market = self.market.rng, self.market
            i, side = rng.randrange(len(market.instruments)), rng.choice((traffic.BID, traffic.OFFER))
            self._waiting += self._arranged([market.packet(market.book([self._moves.entry(i, side)]))])
        out = [each for each in self._waiting if each.start < cycle]
        self._waiting = self._waiting[len(out):]
        return out


@dataclass
class Outcome:
    """What became of it; ``faults`` in words, none if all is well."""

    name: str
    seed: int
    quotes: int = 0
    host_messages: int = 0
    stream_bytes: int = 0
    response_bytes: int = 0
    segments_resent: int = 0
    frames_compared: int = 0
    impaired_out: dict = field(default_factory=dict)
    impaired_back: dict = field(default_factory=dict)
    trigger_to_quote: list = field(default_factory=list)
    most_unacknowledged: int = 0
    simulated_ms: float = 0.0
    wall_s: float = 0.0
    faults: list = field(default_factory=list)


def soak(name, *, quotes, messages, out=None, back=None, rules=((), ()), seed=1, golden=False, capture=None,
         gap=(100, 500), progress=lambda share: None):
    """Run one; returns its :class:`Outcome`.

    Parameters
    ----------
    name : of the outcome. quotes, messages : so many of each at least.
    out, back : :class:`sim.soak.impairment.Rates` from the board to the exchange and back. rules : lists of rules,
        likewise.
    seed : of everything. golden : compare with the golden model, too. capture : pcap of all that was on the wire at the
        board's end. gap : idle cycles of the feed before each packet. progress : called with the share that is done.

    Raises
    ------
    RigError
        It did not come up, or did not go on.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="t2q-soak-") as folder:
        path = _configuration(Path(folder), _SMALL if golden else {})
        config = configuration.load(path)
        with Rig(config, path, folder, seed=seed, golden=golden) as rig:
            rig.start()
            first = rig.cycle
            rig.out, rig.back = (Impairment(2 * seed + n, rates, its) for n, (rates, its) in enumerate(
                zip((out, back), rules, strict=True)))
            outcome = Outcome(name, seed)
            try:
                stream = _play(rig, quotes, messages, Busy(rig.cycle + 2 * BURST, seed, gap), progress)
                _figures(rig, outcome, first)
                outcome.frames_compared = len(rig.sent) if golden else 0
                rig.exchange.stop()
                outcome.faults += _compare(rig, stream, outcome, quotes, messages)
            finally:
                if capture is not None:
                    _write(rig, capture)
            if capture is not None:
                outcome.faults += _tshark(capture)
    outcome.wall_s = round(time.monotonic() - began, 1)
    return outcome


def _configuration(folder, changes):
    """A file with the shipped configuration, but for what a soak needs, and ``changes``."""
    text = (ROOT / "config" / "first_light.toml").read_text()
    for key, value in (_SETTINGS | changes).items():
        value = value.format(folder=folder, secret=ROOT / "config" / "simulator.secret")
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
        if not found:
            raise RigError(f"config/first_light.toml has no {key}")
    path = folder / "soak.toml"
    path.write_text(text)
    return path


def _play(rig, quotes, messages, feed, progress):
    """Until all of it is sent, acknowledged and answered; returns the :class:`_Stream`."""
    daemon, stream, said, looked, next_message = rig.daemon, _Stream(), 0, 0, rig.cycle
    stood, moved = 0, time.monotonic()
    every = max(1, 600 * quotes // max(1, messages))

    def look():
        nonlocal looked
        for _, frame in rig.sent[looked:]:
            stream.take(frame)
        looked = len(rig.sent)

    while stream.quotes < quotes or said < messages:
        if daemon.phase == "failed":
            raise RigError(f"the daemon failed: {daemon.error}")
        if said < messages and rig.cycle >= next_message:
            said += 1
            daemon.session.send("TestRequest", {"correlationId": said}, daemon.now_ns)
            next_message = rig.cycle + every
        rig.step(feed if stream.quotes < quotes else None)
        look()
        progress(min(1.0, stream.quotes / quotes))
        now = time.monotonic()
        if looked != stood:
            stood, moved = looked, now
        elif now - moved > _STALL_S:
            raise RigError(f"nothing has been sent for {_STALL_S:g} s: {_where(rig)}")
    # Everything is acknowledged and answered: the exchange has the whole stream, and we have all that it says.
    stop = daemon.submit("disarm", daemon.disarm())
    rig.until(lambda: stop.done, "the card did not disarm", wall_s=_DRAIN_S)

    def drained():
        look()
        had, told = (rig.recorded(what).stat().st_size for what in ("received", "sent"))
        return had == len(stream.data) and told == len(rig.responses)
    deadline = time.monotonic() + _DRAIN_S
    while not drained() and time.monotonic() < deadline:
        for _ in range(20):
            rig.step()
    look()
    return stream


def _where(rig):
    """Where the card stands, in words."""
    names = ("session_up", "state", "halt_cause", "snd_una", "snd_nxt", "rcv_nxt", "session_tokens", "open_bids",
             "segments_resent", "segments_in_order", "segments_duplicate", "segments_out_of_order", "segments_refused",
             "order_rx_frames", "order_rx_bad", "order_rx_dropped", "order_rx_slow", "acks_sent", "order_tx_frames",
             "positions_late", "telemetry_overflow", "rto", "srtt")
    replies = {name: rig.daemon.registers.read(name) for name in names}
    rig.until(lambda: all(reply.done for reply in replies.values()), "the card does not answer")
    return ", ".join(f"{name} {reply.value:#x}" for name, reply in replies.items())


def _figures(rig, outcome, first):
    registers = rig.daemon.registers
    read = {name: registers.read(name) for name in ("latency_min", "latency_max", "segments_resent")}
    rig.until(lambda: all(reply.done for reply in read.values()), "the card does not answer")
    outcome.trigger_to_quote = [read["latency_min"].value, read["latency_max"].value]
    outcome.segments_resent = read["segments_resent"].value
    outcome.simulated_ms = round((rig.cycle - first) * CYCLE_NS / 1e6, 3)
    outcome.impaired_out, outcome.impaired_back = dict(rig.out.done), dict(rig.back.done)


class _Stream:
    """The stream that the board sends, from its frames: what is sent again has to be what it was.

    Attributes
    ----------
    data : its bytes, each once. quotes : how many of its segments begin with one. faults : in words.
    """

    def __init__(self):
        self.data, self.quotes, self.faults = bytearray(), 0, []
        self._segments, self._next = {}, None

    def take(self, frame):
        segment = segment_of(frame)
        if segment is None or not segment.payload:
            return
        seq, _, payload = segment
        if self._segments.setdefault(seq, payload) != payload:
            self.faults.append(f"segment {seq} was sent again as something else")
        if self._next is None:
            self._next = seq
        if seq == self._next:
            self.data += payload
            self.quotes += _HEADER["messageTypeId"].unpack(payload) == _STARBASE["MassQuoteRequest"].id
            self._next = seq + len(payload) & _MASK
        elif (seq - self._next) & _MASK < 1 << 31:
            self.faults.append(f"segment {seq} was sent, {self._next} was expected")


def _compare(rig, stream, outcome, quotes, messages):
    """What is wrong, in words."""
    faults, data = stream.faults, stream.data
    received, sent, responses = rig.recorded("received").read_bytes(), rig.recorded("sent").read_bytes(), rig.responses
    outcome.stream_bytes, outcome.response_bytes = len(data), len(responses)
    if received != data:
        at = next((n for n, (a, b) in enumerate(zip(received, data, strict=False)) if a != b), None)
        faults.append(f"the exchange has received {len(received)} bytes, {len(data)} were sent; the first that "
                      f"differs: {at}")
    if sent != responses:
        faults.append(f"the exchange has sent {len(sent)} bytes, the daemon was given {len(responses)}, which are "
                      f"others")
    kinds, at, number = Counter(), 0, None
    while at < len(data):
        header = _HEADER.unpack(data, at)
        if number is not None and header["sequenceNumber"] != number + 1:
            faults.append(f"message {header['sequenceNumber']} after {number}")
        number = header["sequenceNumber"]
        message = _STARBASE.by_id.get(header["messageTypeId"])
        kinds[message.name if message else "?"] += 1
        at += header["messageLength"]
    outcome.quotes, outcome.host_messages = kinds["MassQuoteRequest"], kinds["TestRequest"]
    for what, least in (("quotes", quotes), ("host_messages", messages)):
        if getattr(outcome, what) < least:
            faults.append(f"{getattr(outcome, what)} {what}, at least {least} were to be sent")
    differ = rig.lock.finish()
    if differ:
        faults.append(f"{len(differ)} frames differ from the golden model: {differ[0]}")
    if outcome.trigger_to_quote != [2, 2]:
        faults.append(f"trigger to quote took {outcome.trigger_to_quote} cycles, must be 2")
    outcome.most_unacknowledged = _most_unacknowledged(rig)
    return faults + _acknowledged_unseen(rig)


def _most_unacknowledged(rig):
    """Bytes that were on their way at once, at most."""
    una, nxt, most = None, None, 0
    for _, came, frame in _events(rig):
        segment = segment_of(frame)
        if segment is None:
            continue
        if came:
            if una is not None and 0 < (segment.ack - una) & _MASK <= (nxt - una) & _MASK:
                una = segment.ack
        elif segment.payload:
            end = segment.seq + len(segment.payload) & _MASK
            una = segment.seq if una is None else una
            nxt = end if nxt is None or (end - nxt) & _MASK < 1 << 31 else nxt
            most = max(most, (nxt - una) & _MASK)
    return most


def _acknowledged_unseen(rig):
    """Acknowledgements of bytes that had not all come whole by then. Of these Wireshark is no judge: it loses count
    where a segment that is sent again is longer than before."""
    next_, held, faults = None, [], []
    for _, came, frame in _events(rig):
        segment = segment_of(frame)
        if segment is None or (came and not is_whole(frame)):
            continue
        if not came:
            if next_ is not None and 0 < (segment.ack - next_) & _MASK < 1 << 31:
                faults.append(f"{segment.ack} was acknowledged, {next_} had not come")
                next_ = segment.ack
            continue
        if next_ is None:
            next_ = segment.seq + 1 & _MASK     # the peer's first segment is its SYN
        held.append((segment.seq, segment.seq + len(segment.payload) & _MASK))
        while reached := [end for seq, end in held
                          if (next_ - seq) & _MASK < 1 << 31 and 0 < (end - next_) & _MASK < 1 << 31]:
            next_ = reached[0]
        held = [(seq, end) for seq, end in held if 0 < (end - next_) & _MASK < 1 << 31]
    return faults


def _events(rig):
    """(cycle, whether it came, frame) of all that was on the board's wire, in order."""
    return sorted([(cycle, False, frame) for cycle, frame in rig.sent] + [
        (cycle, True, frame) for cycle, frame in rig.came], key=lambda event: event[:2])


def _write(rig, path):
    """All that the board has sent, and what it was given whole: what else comes says nothing to anybody."""
    came = [each for each in rig.came if is_whole(each[1])]
    with CaptureWriter(path) as writer:
        for cycle, frame in sorted(rig.sent + came, key=lambda each: each[0]):
            writer.write(rig.epoch_ns + cycle * CYCLE_NS, frame)


def _tshark(path):
    """What Wireshark finds wrong with the segments that the board has sent."""
    if shutil.which("tshark") is None:
        return []
    ours = 'tcp.srcport == 40000 && (tcp.checksum.status == "Bad" || ip.checksum.status == "Bad" || _ws.malformed'
    ran = subprocess.run(
        ["tshark", "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y",
         f"{ours} || tcp.analysis.lost_segment)"],
        capture_output=True, text=True, check=True)
    return [f"tshark: {line.strip()}" for line in ran.stdout.splitlines()[:5]]

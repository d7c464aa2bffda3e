"""Bad input of every kind: files, configurations, frames. Nothing hangs, nothing is quoted, everything is counted.

The frames go into the core and into the golden model alike, which must agree in every frame sent and every counter;
what each bad frame is counted as stands in this file too, as does what the core does with good traffic after it.
"""

import gzip
import json
import random
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hdl.control import registers
from hdl.layout import net, sbe
from host import cli, link
from sim.board.board import Inject
from sim.board.captures import CaptureWriter
from sim.golden.feed import WireFrame
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B, generate, udp_frame
from sim.market.schedule import wire_bytes
from tests.sim.golden.cosim import CoSim

ROOT = Path(__file__).parents[2]
FIRST_LIGHT = ROOT / "config" / "first_light.toml"
MDP3, ORDERS = sbe.load("cme_mdp3"), sbe.load("starbase_orders")
BOOK = MDP3["MDIncrementalRefreshBook46"]
QUOTE, CANCEL = ORDERS["MassQuoteRequest"].id, ORDERS["MassQuoteCancelRequest"].id
INSTRUMENT = INSTRUMENTS[0]
PREAMBLE = len(net.PREAMBLE)
CUT_THROUGH, VERIFY = 0, 1
FEED_COUNTERS = [r.name for r in registers.REGISTERS if r.section == "feed" and r.access == "count"]
READ_BACK = [*FEED_COUNTERS, "expected_seq", "live_bids", "live_asks", "quotes_sent", "mass_cancels"]
# A quote that a bad frame caused, on the wire in full, and the gap after it; then the way to the decision stage.
WITHDRAWN = PREAMBLE + 173 + net.IFG + 20


class Core(CoSim):
    """Core and golden model, armed, one instrument quoted, with good packets and bad ones."""

    def __init__(self, mode):
        super().__init__(seed=1)
        self.mode, self.seq, self.px = mode, 1000, INSTRUMENT.mid_ticks
        self.write("feed_mode", mode)
        self.lines(LINE_A, LINE_B)
        self.configure([(INSTRUMENT.security_id, INSTRUMENT.tick)],
                       {"session_interval": 50, "symbol_interval": 50, "symbol_burst": 250})
        self.hand_over()
        self.arm()
        while self.board.link_waiting:
            self.run(2_000)
        self.run(1_000)
        assert self.session_is_up()
        self.before = self.counters()

    def packet(self, move=10, seq=None):
        """Payload that states both best prices, ``move`` ticks above the ones before, and ends the event."""
        self.px += move
        rows = [{"MDEntryPx": (self.px + side) * INSTRUMENT.tick, "MDEntrySize": 5, "RptSeq": 1, "NumberOfOrders": 1,
                 "SecurityID": INSTRUMENT.security_id, "MDPriceLevel": 1, "MDUpdateAction": 1, "MDEntryType": kind}
                for side, kind in ((-1, MDP3.enums["MDEntryTypeBook"]["Bid"]),
                                   (1, MDP3.enums["MDEntryTypeBook"]["Offer"]))]
        body = BOOK.encode({"TransactTime": 1, "MatchEventIndicator": 0x84}, {"NoMDEntries": rows})
        header = MDP3.composites["messageHeader"].pack(blockLength=BOOK.block_length, templateId=BOOK.id,
                                                       schemaId=MDP3.id, version=9)
        return (MDP3.composites["PacketHeader"].pack(MsgSeqNum=self.seq if seq is None else seq)
                + MDP3.composites["MessageFraming"].pack(MsgSize=2 + len(header) + len(body)) + header + body)

    def put(self, data, *, keep=None, rx_er_at=None):
        """Bytes after the delimiter, FCS included, on the feed port of both. ``keep``: number of bytes after which the
        carrier drops, ``rx_er_at``: index of a byte with a receive error; both from the first preamble byte on. Returns
        what the core sends then."""
        start = self.board.cycle + 5
        self.board.inject("feed", data, start, Inject.RAW, keep=keep, rx_er_at=rx_er_at)
        shown, preamble = data, PREAMBLE
        if keep is not None:
            shown = data[:max(0, keep - PREAMBLE)]
        if (keep is not None and keep <= PREAMBLE) or (rx_er_at is not None and rx_er_at < PREAMBLE):
            shown, preamble = b"", 0
        self.model.feed_frame(WireFrame(start, shown, rx_er_at is not None, preamble))
        self.end = start + PREAMBLE + len(shown)
        sent = self.run(2 * len(data) + 700)   # twice: the way through the buffer that verifies
        self.peer()
        return sent

    def counters(self):
        """Feed counters and what is live, read back over the link."""
        at = len(self.from_fabric)
        for tag, name in enumerate(READ_BACK):
            self.board.link_write(link.encode_read(tag, registers.BY_NAME[name].address))
        self.run(1_000)
        replies = [link.parse(k, p) for k, p in self.from_fabric[at:] if k == link.SCHEMA["ReadReply"].id]
        assert [r.tag for r in replies] == list(range(len(READ_BACK)))
        return dict(zip(READ_BACK, (r.data for r in replies), strict=True))

    def changes(self):
        """What has changed in the counters since the last look."""
        before, self.before = self.before, self.counters()
        return {name: self.before[name] - before[name] for name in FEED_COUNTERS if self.before[name] != before[name]}

    def good(self):
        """A good packet: the instrument is quoted after it, whatever was before."""
        sent = self.put(wire_bytes(udp_frame(LINE_A, self.packet())))
        assert kinds(sent)[-1:] == [QUOTE], "good traffic is not quoted"
        self.seq += 1
        changes = self.changes()
        assert changes["feed_frames"] == changes["accepted_packets"] == changes["entries"] / 2 == changes["events"] == 1
        assert not changes.keys() & {"feed_bad_fcs", "poisoned_packets", "px_errors", "gaps"}
        assert (self.before["live_bids"], self.before["live_asks"]) == (1, 1)

    def bad(self, expected, data, **damage):
        """A bad frame, before and after good ones. ``expected``: the counter that it goes under."""
        sent = self.put(data, **damage)
        before, changes = self.before, self.changes()
        quotes, reached = self.before["quotes_sent"] - before["quotes_sent"], changes.get("accepted_packets", 0)
        what = f"{expected}: {damage} {data.hex(' ')}: {changes}, sent {kinds(sent)}"
        assert changes.pop("feed_frames") == 1, what
        assert changes[expected] == 1, what
        if reached:
            # Its number was believed before it proved bad: what it said is void, and so are the books.
            assert self.mode == CUT_THROUGH or expected == "poisoned_packets", what
            assert changes["poisoned_packets"] == 1, what
            assert not self.before["live_bids"] | self.before["live_asks"], what
            assert not quotes or kinds(sent)[-1] == CANCEL, what
            assert sent[-1].start <= self.end + WITHDRAWN, what
        else:
            assert sent == [], what
            assert changes.keys() <= {expected, "line_a_packets", "short_packets", "duplicate_packets"}, what
            assert (self.before["live_bids"], self.before["live_asks"]) == (1, 1), what
        self.seq += expected == "poisoned_packets"      # a damaged frame does not stand in the way of its other copy
        assert self.before["expected_seq"] == self.seq, what
        self.good()
        return kinds(sent)

    def finish(self):
        """The model agrees, in every record and every counter."""
        self.compare_records()
        self.compare_counters()


def kinds(sent):
    """Message types of what was sent to the exchange, acknowledgements left out."""
    out = []
    for frame in sent:
        ip = net.IPV4.unpack(frame.frame, net.ETHERNET.size)
        payload = frame.frame[net.ETHERNET.size + net.IPV4.size + net.TCP.size:net.ETHERNET.size + ip["total_length"]]
        if payload:
            out.append(ORDERS.composites["MessageHeader"].unpack(payload)["messageTypeId"])
    return out


@pytest.fixture(params=[CUT_THROUGH, VERIFY], ids=["cut-through", "verify"])
def core(request):
    c = Core(request.param)
    c.good()
    yield c
    c.board.close()


def test_cut_at_every_byte(core):
    """The carrier drops after every byte of a frame that would have moved the quote, preamble included."""
    whole = len(wire_bytes(udp_frame(LINE_A, core.packet(0))))
    outcomes = []
    for keep in range(1, PREAMBLE + whole):
        data = wire_bytes(udp_frame(LINE_A, core.packet()))
        outcomes.append(core.bad("feed_bad_fcs", data, keep=keep))
    core.finish()
    if core.mode == VERIFY:
        assert outcomes == [[]] * len(outcomes)
        assert core.before["poisoned_packets"] == 0
    else:       # nothing, then the cancel alone, then a quote withdrawn at once
        assert sorted(outcomes, key=len) == outcomes
        assert {len(o) for o in outcomes} == {0, 1, 2}
        assert core.before["poisoned_packets"] == sum(map(bool, outcomes))


def test_wrong_fcs(core):
    """One bit of every byte of a frame is inverted, the FCS included; also what becomes another group or length, and a
    sequence number far ahead or behind."""
    rng = random.Random(2)
    whole = len(wire_bytes(udp_frame(LINE_A, core.packet(0))))
    number = net.ETHERNET.size + net.IPV4.size + net.UDP.size
    places = [(at, 1 << rng.randrange(8)) for at in range(whole)]
    places += [(number + bit // 8, 1 << bit % 8) for bit in range(32)]
    withdrawn = 0
    for at, bit in places:
        data = bytearray(wire_bytes(udp_frame(LINE_A, core.packet())))
        data[at] ^= bit
        withdrawn += QUOTE in core.bad("feed_bad_fcs", bytes(data))
    core.finish()
    assert bool(withdrawn) == (core.mode == CUT_THROUGH)


def test_receive_error(core):
    """rx_er with one byte of a frame that is right in all others."""
    rng = random.Random(3)
    whole = len(wire_bytes(udp_frame(LINE_A, core.packet(0))))
    for at in [0, PREAMBLE - 1, PREAMBLE, whole + PREAMBLE - 1, *rng.sample(range(PREAMBLE, whole + PREAMBLE), 12)]:
        core.bad("feed_bad_fcs", wire_bytes(udp_frame(LINE_A, core.packet())), rx_er_at=at)
    core.finish()


def tagged(vlan, payload):
    frame = udp_frame(LINE_A, payload)
    return frame[:12] + net.ETHERTYPE_VLAN.to_bytes(2, "big") + vlan.to_bytes(2, "big") + frame[12:]


def mac(address, payload):
    return address.to_bytes(6, "big") + udp_frame(LINE_A, payload)[6:]


def udp_checked(payload, **changes):
    return udp_frame(LINE_A, payload, **changes)


#: Frames with a right FCS that are not for us or not right: (counter, function of a payload).
FOREIGN = {
    "first fragment": ("feed_fragments", partial(udp_checked, flags_fragment=0x2000)),
    "last fragment": ("feed_fragments", partial(udp_checked, flags_fragment=0x0001)),
    "middle fragment": ("feed_fragments", partial(udp_checked, flags_fragment=0x2005)),
    "IPv4 options": ("feed_ip_options", partial(udp_checked, version_ihl=0x46)),
    "many IPv4 options": ("feed_ip_options", partial(udp_checked, version_ihl=0x4F)),
    "IP version 6": ("feed_bad_header", partial(udp_checked, version_ihl=0x65)),
    "IPv4 header of 16 bytes": ("feed_bad_header", partial(udp_checked, version_ihl=0x44)),
    "IPv4 checksum": ("feed_bad_header", partial(udp_checked, checksum=0x0100)),
    "IPv4 length short": ("feed_bad_header", partial(udp_checked, total_length=19)),
    "IPv4 length long": ("feed_bad_header", partial(udp_checked, total_length=1500)),
    "UDP length 0": ("feed_bad_header", partial(udp_checked, udp_length=0)),
    "UDP length 7": ("feed_bad_header", partial(udp_checked, udp_length=7)),
    "UDP length long": ("feed_bad_header", partial(udp_checked, udp_length=1400)),
    "TCP": ("feed_not_ours", partial(udp_checked, protocol=net.PROTOCOL_TCP)),
    "VLAN 7": ("feed_not_ours", partial(tagged, 7)),
    "VLAN 0": ("feed_not_ours", partial(tagged, 0)),
    "group": ("feed_not_ours", lambda p: udp_frame(LINE_A._replace(group=LINE_A.group + 1), p)),
    "group with the same MAC": ("feed_not_ours", lambda p: udp_frame(LINE_A._replace(group=LINE_A.group ^ 1 << 23), p)),
    "port": ("feed_not_ours", lambda p: udp_frame(LINE_A._replace(port=LINE_A.port + 1), p)),
    "port of the other line": ("feed_not_ours", lambda p: udp_frame(LINE_A._replace(port=LINE_B.port), p)),
    "broadcast": ("feed_not_ours", partial(mac, net.MAC_BROADCAST)),
    "unicast": ("feed_not_ours", partial(mac, 0x02_00_00_00_00_01)),
    "IPv6": ("feed_not_ours", lambda p: udp_frame(LINE_A, p)[:12] + b"\x86\xdd" + udp_frame(LINE_A, p)[14:]),
    "ARP": ("feed_not_ours", lambda p: net.ETHERNET.pack(dst=net.MAC_BROADCAST, src=1, ethertype=net.ETHERTYPE_ARP)
            + bytes(net.ARP.size)),
}


def test_frames_that_are_not_for_us(core):
    """Right FCS, wrong headers: each under its own counter, none seen by the quoter."""
    for name, (counter, make) in FOREIGN.items():
        try:
            core.bad(counter, wire_bytes(make(core.packet())))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    core.finish()


def test_lengths(core):
    """Empty and short packets, frames too long for Ethernet."""
    empty = udp_frame(LINE_A, b"")
    core.bad("short_packets", wire_bytes(empty))
    for size in (1, 3):
        core.bad("short_packets", wire_bytes(udp_frame(LINE_A, core.packet()[:size])))
    for size in (1_600, 9_000):
        core.bad("feed_bad_fcs", wire_bytes(udp_frame(LINE_A, core.packet().ljust(size, b"\0"))))
    core.finish()


def test_malformed_packets(core):
    """Right frames whose packet contradicts itself: counted, books voided, nothing quoted from them."""
    head = MDP3.composites["PacketHeader"].size
    framing, header = MDP3.composites["MessageFraming"].size, MDP3.composites["messageHeader"].size
    group = head + framing + header + BOOK.block_length
    cases = {
        "MsgSize 0": (head, b"\x00\x00"), "MsgSize 9": (head, b"\x09\x00"), "MsgSize long": (head, b"\xff\x7f"),
        "root block short": (head + framing, b"\x04\x00"), "root block long": (head + framing, b"\xff\xff"),
        "entries of 26 bytes": (group, b"\x1a\x00"), "entries of 0 bytes": (group, b"\x00\x00"),
        "255 entries": (group + 2, b"\xff"),
    }
    for name, (at, new) in cases.items():
        payload = bytearray(core.packet())
        payload[at:at + len(new)] = new
        try:
            sent = core.bad("poisoned_packets", wire_bytes(udp_frame(LINE_A, bytes(payload))))
            assert sent == [CANCEL]
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    core.finish()


@pytest.mark.parametrize("seed", [11])
def test_random_frames(core, seed):
    """Noise with a right FCS, noise without, and noise behind the headers of our line."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(25):
        core.bad("feed_not_ours", wire_bytes(rng.randbytes(rng.randrange(14, 1514))))
        core.bad("feed_bad_fcs", rng.randbytes(rng.randrange(1, 1600)))
    # Behind our headers noise is a packet; it may say anything, but an event in it would have to fit byte for byte.
    for _ in range(25):
        payload = core.packet()[:4] + rng.randbytes(rng.randrange(8, 600))
        sent = core.put(wire_bytes(udp_frame(LINE_A, payload)))
        changes = core.changes()
        assert changes["accepted_packets"] == 1
        assert QUOTE not in kinds(sent)
        core.seq += 1
        core.good()
    core.finish()


@pytest.mark.parametrize("mode", [CUT_THROUGH, VERIFY], ids=["cut-through", "verify"])
def test_line_rate_of_bad_frames(mode):
    """Bad and good frames without a pause: the core keeps up, agrees with the model and quotes afterwards."""
    core = Core(mode)
    core.good()
    rng = random.Random(5)
    at = core.board.cycle + 100
    for _, frame in generate(5, 150, instruments=INSTRUMENTS[:4], mixed=.1):
        data = bytearray(wire_bytes(frame))
        what = rng.randrange(5)
        if what == 0:
            data[rng.randrange(46, len(data))] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[rng.randrange(1, len(data)):]
        elif what == 2:
            data = bytearray(wire_bytes(rng.choice(list(FOREIGN.values()))[1](frame[42:])))
        core.board.inject("feed", bytes(data), at, Inject.RAW)
        core.model.feed_frame(WireFrame(at, bytes(data)))
        at += PREAMBLE + len(data) + net.IFG
    while core.board.cycle < at:
        if core.run(1_000):
            core.peer()
    core.run(3_000)
    core.before = core.counters()
    core.seq = core.before["expected_seq"]
    core.finish()
    core.good()
    counted = core.before
    shared = sum(counted[name] for name in ("feed_bad_header", "feed_ip_options", "feed_fragments", "feed_not_ours"))
    assert counted["feed_frames"] >= 300
    if mode == VERIFY:      # every frame under exactly one name
        assert counted["feed_frames"] == counted["feed_bad_fcs"] + shared + counted["line_a_packets"] \
            + counted["line_b_packets"]
    core.board.close()


# ---------------------------------------------------------------------- files

def t2q(*arguments):
    """The command in this process: (exit code, standard output, what it said was wrong)."""
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def refused(code, out, err):
    """One line, exit code 2, nothing on standard output. Returns the line."""
    assert (code, out) == (2, ""), err
    assert err.startswith("t2q: ")
    assert err.count("\n") == 1
    return err


def classic(link_type=1, body=b""):
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type) + body


def record(frame, kept=None):
    return struct.pack("<4I", 1, 2, len(frame) if kept is None else kept, len(frame)) + frame[:kept]


def block(kind, body):
    size = (12 + len(body)).to_bytes(4, "little")
    return kind.to_bytes(4, "little") + size + body + size


FRAME = udp_frame(LINE_A, bytes(40))
SECTION = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
FILES = {
    "empty": (b"", "empty"),
    "four bytes": (b"\xd4\xc3\xb2\xa1", "truncated"),
    "half a header": (classic()[:20], "truncated"),
    "half a record header": (classic(body=record(FRAME) + record(FRAME)[:9]), "1 frames before it are whole"),
    "half a packet": (classic(body=record(FRAME) * 2 + record(FRAME)[:-1]), "2 frames before it are whole"),
    "absurd length": (classic(body=struct.pack("<4I", 1, 2, 1 << 31, 1 << 31)), "claims 2147483648 bytes"),
    "no packet": (classic(), "no complete Ethernet frame"),
    "only parts of packets": (classic(body=record(FRAME, 30)), "no complete Ethernet frame"),
    "raw IP": (classic(101, record(FRAME)), "link type 101 (raw IP), must be 1 (Ethernet)"),
    "Linux cooked": (classic(113, record(FRAME)), "link type 113 (Linux cooked), must be 1 (Ethernet)"),
    "other link type": (classic(250, record(FRAME)), "link type 250 (unknown here), must be 1 (Ethernet)"),
    "pcapng, half a block": (SECTION[:-3], "truncated"),
    "pcapng, other link type": (SECTION + block(1, struct.pack("<HHI", 105, 0, 0)), "link type 105 (802.11)"),
    "pcapng, packet of no interface": (SECTION + block(6, struct.pack("<5I", 3, 0, 0, 0, 0)), "interface 3"),
    "text": (b"price,quantity\n1,2\n", "not a pcap or pcapng file"),
    "zeros": (bytes(4096), "not a pcap or pcapng file"),
    "noise": (random.Random(6).randbytes(4096), "not a pcap or pcapng file"),
    "gzip": (gzip.compress(classic(body=record(FRAME))), "gzip file; unpack it first"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_capture(tmp_path, name):
    """`t2q replay FILE` says in one line which file is wrong and how; nothing is written."""
    data, words = FILES[name]
    path = tmp_path / "market.pcap"
    path.write_bytes(data)
    line = refused(*t2q("replay", path, "-c", FIRST_LIGHT, "--out", tmp_path / "out"))
    assert f"{path}: " in line
    assert words in line
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there(tmp_path):
    assert "no such file" in refused(*t2q("replay", tmp_path / "absent.pcap", "-c", FIRST_LIGHT))
    assert "no such file" in refused(*t2q("replay", tmp_path, "-c", FIRST_LIGHT))
    assert "no such file" in refused(*t2q("board", tmp_path / "absent.pcap", "-c", FIRST_LIGHT))


def test_the_command_itself(tmp_path):
    """As a user runs it: no traceback, the exit code of the process."""
    path = tmp_path / "market.pcap"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    done = subprocess.run([sys.executable, "-m", "host.cli", "replay", str(path)], capture_output=True, text=True,
                          cwd=ROOT, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"t2q: {path}: not a pcap or pcapng file; it begins with 89 50 4e 47, not with one of "
                           f"d4 c3 b2 a1, a1 b2 c3 d4, 4d 3c b2 a1, a1 b2 3c 4d, 0a 0d 0d 0a\n")


def test_capture_of_something_else(tmp_path, monkeypatch):
    """A sound capture without a packet of the configured lines: it runs, and says that there was nothing for us."""
    monkeypatch.setenv("COLUMNS", "400")
    path, rng = tmp_path / "other.pcap", random.Random(7)
    with CaptureWriter(path) as out:
        for n in range(60):
            payload = rng.randbytes(60)
            out.write(n * 1_000, list(FOREIGN.values())[n % len(FOREIGN)][1](payload))
    code, text, err = t2q("replay", path, "-c", FIRST_LIGHT, "--out", tmp_path / "out")
    assert code == 0, err
    assert "none of the 60 frames was a packet of 224.0.31.11:14320 and 224.0.32.11:15320" in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["packets"], report["messages"], report["quotes_sent"], report["fills"]) == (0, 0, 0, 0)
    assert report["golden_mismatches"] == 0
    assert report["trigger_to_quote_cycles"] == {"min": None, "mean": None, "max": None, "count": 0}
    assert report["counters"]["feed_frames"] == 60
    assert sum(report["counters"][c] for c in ("feed_not_ours", "feed_fragments", "feed_ip_options",
                                                "feed_bad_header")) == 60
    assert "none of the 60 frames" in (tmp_path / "out" / "report.html").read_text()


def test_capture_with_damage_in_it(tmp_path):
    """Our packets among foreign, cut and contradictory ones: the good ones are quoted as ever, the model agrees."""
    path, rng = tmp_path / "mixed.pcap", random.Random(8)
    with CaptureWriter(path) as out:
        for n, (_, frame) in enumerate(generate(8, 300, warm_up=True, bad=.2, gap=.01, line_loss=.05)):
            if rng.random() < .1:
                frame = frame[:rng.randrange(15, len(frame))]       # the capture has no FCS: a replay makes it right
            out.write(n * 2_000, frame)
    code, text, err = t2q("replay", path, "-c", FIRST_LIGHT, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report["golden_mismatches"] == 0
    assert report["quotes_sent"] == report["quotes_accepted"] > 0
    assert report["counters"]["feed_bad_header"] > 10
    assert report["gaps"] > 0


# ---------------------------------------------------------------------- configuration

@pytest.mark.parametrize(("old", "new", "words"), [
    ("deadman_ms = 100", "deadman_ms = 100\ndedman_ms = 4", "risk.dedman_ms: unknown key; did you mean 'deadman_ms'?"),
    ("[host]", "[hosts]", "hosts: unknown key"),
    ("stale_ms = 5_000", "stale_ms = 5_000\nstail_ms = 1", "instrument_defaults.stail_ms: unknown key"),
    ("max_long = 10 ", "max_long = 1e12 ", "max_long = 1000000000000"),
    ("max_notional = 200_000", "max_notional = 0", "max_notional = 0"),
    ("deadman_ms = 100", "deadman_ms = 60_000", "risk.deadman_ms = 60000"),
    ("session_burst = 2_000", "session_burst = 1_000_000", "risk.session_burst = 1000000"),
    ("heartbeat_ms = 20", "heartbeat_ms = 80", "host.heartbeat_ms = 80: must be at most half of risk.deadman_ms (100)"),
    ('line_a = "224.0.31.11:14320"', 'line_a = "10.0.0.1:1"', "feed.line_a = '10.0.0.1:1': must be a multicast group"),
], ids=lambda text: text.split(" ")[0].split("\n")[0])
def test_configuration_is_refused(tmp_path, old, new, words):
    """Every command that reads it refuses it before anything else happens, with the key's name."""
    text = FIRST_LIGHT.read_text()
    assert old in text
    path = tmp_path / "wrong.toml"
    path.write_text(text.replace(old, new, 1))
    (tmp_path / "simulator.secret").write_text("secret")
    for command in (("replay",), ("run", tmp_path / "no-port"), ("board",), ("venue", "--port", "0"),
                    ("limits", "load", path)):
        line = refused(*t2q(*command, "-c", path))
        assert f"{path}: " in line
        assert words in line

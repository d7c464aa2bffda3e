"""FeedMatch against a model that classifies a whole frame at once; frames are built by scapy."""

import random
import struct

import pytest
from amaranth.back import verilog
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from hdl.net.feed_match import FeedMatch
from tests.hdl.simulation import simulated

GROUP_A, PORT_A = "224.0.31.1", 14310
GROUP_B, PORT_B = "233.119.160.17", 15310
REASONS = ("not_ours", "bad_header", "ip_options", "fragments", "empty")
FCS = b"FCS!"       # the receiver checks it, FeedMatch must only not pass it on


@pytest.fixture(scope="module", autouse=True)
def _converts():
    """A combinational loop would hang the simulator; the conversion reports it with its path."""
    verilog.convert(FeedMatch())


def number(ip: str) -> int:
    a, b, c, d = map(int, ip.split("."))
    return a << 24 | b << 16 | c << 8 | d


def mac(ip: str) -> str:
    low = number(ip) & 0x7FFFFF
    return f"01:00:5e:{low >> 16:02x}:{low >> 8 & 255:02x}:{low & 255:02x}"


LINES = {"line_a_ip": number(GROUP_A), "line_a_port": PORT_A, "line_b_ip": number(GROUP_B), "line_b_port": PORT_B,
         "vlan": 0}


def packet(payload=b"payload", *, group=GROUP_A, port=PORT_A, dst=None, tags=(), ip=None, udp=None):
    """Bytes of a feed frame without FCS, padded to 60; `ip` and `udp` overwrite fields of the headers."""
    frame = Ether(dst=dst or mac(group), src="02:00:00:00:00:01")
    for tag in tags:
        frame = frame / Dot1Q(vlan=tag)
    frame = frame / IP(**{"src": "10.0.0.1", "dst": group, **(ip or {})})
    frame = frame / UDP(**{"sport": 1234, "dport": port, **(udp or {})}) / Raw(payload)
    return bytes(frame).ljust(60, b"\0")


def classify(frame: bytes, config):
    """("payload", line, announced length, bytes shown, whole) or the reason why not, of `frame` including FCS."""
    def mac_of(ip):
        return (0x01005E << 24 | ip & 0x7FFFFF).to_bytes(6, "big")

    lines = [(config[f"line_{n}_ip"], config[f"line_{n}_port"]) for n in "ab"]
    possible = [ip != 0 and frame[:6] == mac_of(ip) for ip, _ in lines]
    if not any(possible):
        return "not_ours"
    at, ethertype = 14, int.from_bytes(frame[12:14], "big")
    any_tag, one_tag = config["vlan"] >> 16 & 1, config["vlan"] >> 17
    if ethertype == 0x8100:
        tci, ethertype = struct.unpack(">HH", frame[14:18])
        at = 18
        if not any_tag and not (one_tag and tci & 0xFFF == config["vlan"] & 0xFFF):
            return "not_ours"
    elif one_tag and not any_tag:
        return "not_ours"
    if ethertype != 0x0800:
        return "not_ours"
    if len(frame) < at + 28:
        return "bad_header"         # only frames that are not ok can be that short
    header = frame[at:at + 20]
    if header[0] >> 4 != 4 or header[0] & 15 < 5:
        return "bad_header"
    if header[0] & 15 > 5:
        return "ip_options"
    total, = struct.unpack(">H", header[2:4])
    if total < 20:
        return "bad_header"
    if int.from_bytes(header[6:8], "big") & 0x3FFF:
        return "fragments"
    if header[9] != 17:
        return "not_ours"
    if sum(struct.unpack(">10H", header)) % 0xFFFF:
        return "bad_header"
    _, port, length, _ = struct.unpack(">HHHH", frame[at + 20:at + 28])
    possible = [on and header[16:20] == ip.to_bytes(4, "big") and port == line_port
                for on, (ip, line_port) in zip(possible, lines, strict=True)]
    if not any(possible):
        return "not_ours"
    if length < 8 or length + 20 != total:
        return "bad_header"
    if length == 8:
        return "empty"
    payload = frame[at + 28:at + 28 + length - 8]
    return "payload", possible.index(True), length - 8, payload, len(frame) - 4 >= at + 28 + length - 8


def run(frames, config=LINES, *, gaps=None):
    """Feed (frame with FCS, ok) pairs; returns for each the outcomes seen, in the form of `classify`."""
    dut = FeedMatch()
    gaps = gaps or [1] * len(frames)
    outcomes = []

    async def testbench(ctx):
        for name, value in config.items():
            ctx.set(getattr(dut, name), value)
        out = dut.out
        ends = {}       # cycle of eof to what the frame has shown: what follows from it comes one and two cycles later
        cycle = 0

        async def step(data=0xDD, valid=0, sof=0, eof=0, ok=0):
            nonlocal cycle
            for name, value in {"data": data, "valid": valid, "sof": sof, "eof": eof, "ok": ok}.items():
                ctx.set(getattr(dut.rx, name), value)
            for reason in REASONS:
                if ctx.get(getattr(dut, reason)):
                    ends[cycle - 1][1].append(reason)
            if ctx.get(out.frame_end):
                shown, found, last, line, announced = ends[cycle - 2]
                assert shown
                assert not ctx.get(out.frame_ok) or last is not None
                found.insert(0, ("payload", line, announced, shown, bool(ctx.get(out.frame_ok))))
            else:
                assert not ctx.get(out.frame_ok)
            now = ctx.get(out.valid), ctx.get(out.data), ctx.get(out.first), ctx.get(out.last_expected)
            line, announced = ctx.get(out.line), ctx.get(out.payload_len)
            await ctx.tick()
            cycle += 1
            return *now, line, announced

        for (frame, ok), gap in zip(frames, gaps, strict=True):
            shown, first, last, of = b"", None, None, (None, None)
            for n, byte in enumerate(frame):
                valid, data, is_first, is_last, *where = await step(byte, 1, n == 0)
                assert not valid or data == byte        # in the same cycle
                assert is_first == (valid and not shown)
                assert valid or not is_last
                if valid:
                    first = n if first is None else first
                    assert n == first + len(shown)
                    assert last is None
                    shown += bytes([data])
                    assert of in ((None, None), tuple(where))
                    of = tuple(where)
                    if is_last:
                        assert len(shown) == of[1]
                        last = n
            ends[cycle] = shown, outcomes_of(outcomes), last, *of
            assert (await step(eof=1, ok=ok))[:1] == (0,)
            for _ in range(gap - 1):
                assert (await step())[:1] == (0,)
        for _ in range(3):
            await step()
        for shown, found, *_ in ends.values():
            assert not shown or found, "payload was shown and never ended"

    def outcomes_of(frames):
        frames.append([])
        return frames[-1]

    simulated(dut, testbench)
    return outcomes


def expected(frame, ok, config):
    outcome = classify(frame, config)
    if isinstance(outcome, str):
        return [outcome] if ok else []
    *shown, whole = outcome
    return [(*shown, whole and ok), *(["bad_header"] if ok and not whole else [])]


def check(frames, config=LINES, gaps=None):
    """Hold the gateware against the model; `frames` lack the FCS. Returns the name of each outcome."""
    frames = [frame if isinstance(frame, tuple) else (frame, True) for frame in frames]
    frames = [(frame + FCS, ok) for frame, ok in frames]
    found = run(frames, config, gaps=gaps)
    assert found == [expected(frame, ok, config) for frame, ok in frames]
    return [outcomes and (outcomes[0] if isinstance(outcomes[0], str) else "payload") for outcomes in found]


def test_payload_of_both_lines():
    a, b = bytes(range(100)), b"B"
    found = run([(packet(a) + FCS, True), (packet(b, group=GROUP_B, port=PORT_B) + FCS, True),
                 (packet(b"bad FCS") + FCS, False)])
    assert found == [[("payload", 0, 100, a, True)], [("payload", 1, 1, b, True)],
                     [("payload", 0, 7, b"bad FCS", False)]]


def test_every_reason():
    assert check([
        packet(dst="02:00:00:00:00:09"), packet(dst="ff:ff:ff:ff:ff:ff"),
        packet(dst=mac(GROUP_B)),                                   # the group's address is the other line's
        packet(group=GROUP_B), packet(port=PORT_A + 1),
        packet(tags=(5,)), bytes(Ether(dst=mac(GROUP_A)) / ARP()).ljust(60, b"\0"),
        bytes(Ether(dst=mac(GROUP_A)) / IP(dst=GROUP_A) / TCP(dport=PORT_A)).ljust(60, b"\0"),
        bytes(Ether(dst=mac(GROUP_A)) / IP(dst=GROUP_A) / ICMP()).ljust(60, b"\0"),
        packet(ip={"version": 6}), packet(ip={"ihl": 4}), packet(ip={"chksum": 0x1234}), packet(ip={"len": 19}),
        packet(ip={"len": 34}), packet(udp={"len": 16}), packet(udp={"len": 7}), packet(udp={"len": 0}),
        packet(ip={"options": IPOption_Router_Alert()}),
        packet(ip={"flags": "MF"}), packet(ip={"frag": 1}), packet(ip={"frag": 0x1FFF, "flags": "MF"}),
        packet(b""),
        packet(ip={"flags": "DF"}), packet(udp={"chksum": 0}), packet(ip={"tos": 0xB8, "ttl": 1, "id": 0xFFFF}),
    ]) == ["not_ours"] * 9 + ["bad_header"] * 8 + ["ip_options"] + ["fragments"] * 3 + ["empty"] + ["payload"] * 3


def test_lines_that_are_off_or_alike():
    off = {**LINES, "line_a_ip": 0}
    assert check([packet(), packet(group=GROUP_B, port=PORT_B), packet(dst="01:00:5e:00:00:00", group="0.0.0.0")],
                 off) == ["not_ours", "payload", "not_ours"]
    # One group, two ports; then the same port too.
    alike = {**LINES, "line_b_ip": LINES["line_a_ip"]}
    found = run([(packet() + FCS, True), (packet(port=PORT_B) + FCS, True)], alike)
    assert [outcome[0][1] for outcome in found] == [0, 1]
    found = run([(packet() + FCS, True)], {**alike, "line_b_port": PORT_A})
    assert [outcome[0][1] for outcome in found] == [0]


@pytest.mark.parametrize(("vlan", "passed"), [
    (0, [True, False, False, False, False]),
    (1 << 16, [True, True, True, True, False]),
    (1 << 17 | 7, [False, True, False, False, False]),
    (1 << 17, [False, False, False, True, False]),
    (1 << 16 | 1 << 17 | 7, [True, True, True, True, False]),
])
def test_vlan(vlan, passed):
    frames = [packet(), packet(tags=(7,)), packet(tags=(4095,)), packet(tags=(0,)), packet(tags=(7, 7))]
    assert check(frames, {**LINES, "vlan": vlan}) == ["payload" if p else "not_ours" for p in passed]


def test_padding_and_fcs_are_not_payload():
    assert check([packet(b"p" * size) for size in range(1, 25)]) == ["payload"] * 24


def test_frame_shorter_than_its_headers_say():
    whole = packet(bytes(range(60)))
    frames = [whole[:cut] for cut in range(60, len(whole) + 1)] + [packet(b"next")]
    found = run([(frame + FCS, True) for frame in frames])
    assert [outcome[0][-1] for outcome in found] == [False] * (len(whole) - 60) + [True, True]
    check(frames)


def test_cut_anywhere_does_not_touch_the_next_frame():
    whole = packet(bytes(range(10)))
    frames = []
    for cut in range(1, len(whole)):
        frames += [(whole[:cut], False), (whole, True)]
    assert check(frames)[1::2] == ["payload"] * (len(whole) - 1)


def test_random_frames():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    frames = []
    for _ in range(100):
        line = rng.choice(((GROUP_A, PORT_A), (GROUP_B, PORT_B), (GROUP_A, PORT_B)))
        frame = bytearray(packet(rng.randbytes(rng.choice((0, 1, 17, 18, 19, 64))), group=line[0], port=line[1],
                                 tags=rng.choice(((), (), (3,)))))
        for _ in range(rng.choice((0, 0, 1, 2))):
            frame[rng.randrange(46)] = rng.choice((0, 0x45, 0xFF, rng.randrange(256)))
        frames.append((bytes(frame), rng.random() < 0.8))
    gaps = [rng.choice((1, 2, 20)) for _ in frames]
    for vlan in (0, 1 << 16):
        check(frames, {**LINES, "vlan": vlan}, gaps)

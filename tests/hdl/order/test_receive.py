"""SegmentReceiver against a naive classifier, on frames made by scapy and then spoilt in every way."""

import random

import pytest
from amaranth.back import verilog
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, fragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from hdl.layout import net
from hdl.order.receive import EXPECTED, SegmentReceiver
from tests.hdl.order.bench import CONFIG, LOCAL_IP, LOCAL_MAC, PEER_IP, PEER_MAC, peer_segment, with_fcs
from tests.hdl.simulation import simulated

CONNECTION = {name: CONFIG[name] for name in ("local_mac", "local_ip", "peer_ip", "local_port", "peer_port")}


CLOSING = net.TCP_FIN | net.TCP_RST


def classify(frame, ok, established=True):
    """(verdict, bytes handed on, segment) of a frame with its FCS, by reading it as a whole.

    Of a segment with FIN or RST the frame is handed on."""
    if not ok:
        return "bad", None, None
    body = frame[:-4]
    dst = int.from_bytes(body[:6], "big")
    ours = False
    if len(body) >= 54 and body[12:14] == b"\x08\x00":
        ip, tcp = net.IPV4.unpack(body, 14), net.TCP.unpack(body, 34)
        ours = established and (
            dst == CONNECTION["local_mac"] and ip["version_ihl"] == 0x45 and ip["flags_fragment"] & 0x3FFF == 0
            and ip["protocol"] == 6 and ip["src"] == CONNECTION["peer_ip"] and ip["dst"] == CONNECTION["local_ip"]
            and tcp["src_port"] == CONNECTION["peer_port"] and tcp["dst_port"] == CONNECTION["local_port"])
    if not ours:
        if dst in (CONNECTION["local_mac"], net.MAC_BROADCAST):
            return "frame", body, None
        return "ignored", None, None
    header = 4 * (tcp["data_offset"] >> 4)
    end = 14 + ip["total_length"]
    if header < 20 or end < 34 + header or end > len(body):
        return "bad", None, None
    pseudo = net.PSEUDO.pack(src=ip["src"], dst=ip["dst"], zero=0, protocol=6, length=end - 34)
    if net.checksum(body[14:34]) or net.checksum(pseudo + body[34:end]):
        return "bad", None, None
    payload = body[34 + header:end]
    return ("segment", body if tcp["flags"] & CLOSING else payload,
            (tcp["seq"], tcp["ack"], tcp["window"], len(payload), tcp["flags"]))


def run(frames, *, established=True, gap=1, trim=0):
    """Feed `frames` [(bytes with FCS, ok)] with `gap` cycles from eof to the next byte; what `classify` would say."""
    dut = SegmentReceiver()
    results = []

    async def testbench(ctx):
        ctx.set(dut.fill, 1)
        for each in EXPECTED:
            ctx.set(dut.fill_position, each.position)
            ctx.set(dut.fill_byte, CONNECTION[each.port] >> 8 * each.index & 0xFF)
            await ctx.tick()
        ctx.set(dut.fill, 0)
        ctx.set(dut.established, established)
        ctx.set(dut.trim, trim)
        kept, ends, verdicts = bytearray(), [], []

        def sample(cycle):
            if ctx.get(dut.restart):
                assert not ctx.get(dut.write)
                kept.clear()
            if ctx.get(dut.write):
                kept.append(ctx.get(dut.data))
            seen = [name for name in ("frame", "bad", "ignored") if ctx.get(getattr(dut, name))]
            seen += ["segment"] * ctx.get(dut.segment.valid)
            assert len(seen) <= 1, seen
            if not seen:
                return
            verdict, s = seen[0], dut.segment
            fields = None
            if verdict == "segment":
                flags = sum(bit * ctx.get(getattr(s, name)) for name, bit in (
                    ("fin", 1), ("syn", 2), ("rst", 4), ("has_ack", 16)))
                fields = (*(ctx.get(getattr(s, name)) for name in ("seq", "ack", "window", "length")), flags)
            results.append((verdict, bytes(kept), fields))
            verdicts.append(cycle)
            kept.clear()

        await ctx.tick().repeat(2)
        cycle = 2
        for frame, ok in frames:
            for n, byte in enumerate(frame):
                ctx.set(dut.rx.valid, 1)
                ctx.set(dut.rx.sof, n == 0)
                ctx.set(dut.rx.data, byte)
                sample(cycle)
                await ctx.tick()
                cycle += 1
            ctx.set(dut.rx.valid, 0)
            ctx.set(dut.rx.sof, 0)
            for n in range(gap + 1):
                ctx.set(dut.rx.eof, n == 0)
                ctx.set(dut.rx.ok, n == 0 and ok)
                if n == 0:
                    ends.append(cycle)
                sample(cycle)
                await ctx.tick()
                cycle += 1
            ctx.set(dut.rx.eof, 0)
            ctx.set(dut.rx.ok, 0)
        sample(cycle)
        assert verdicts == [end + 1 for end in ends], "one verdict for each frame, in the cycle after its end"

    simulated(dut, testbench)
    assert len(results) == len(frames)
    return results


def check(frames, **kwargs):
    """Run and compare; returns the verdicts, so that a test can demand that it has seen what it is about."""
    results = run(frames, **kwargs)
    established = kwargs.get("established", True)
    for number, ((frame, ok), (verdict, kept, fields)) in enumerate(zip(frames, results, strict=True)):
        want, body, segment = classify(frame, ok, established)
        assert verdict == want, f"frame {number}: {verdict}, should be {want}: {frame.hex()}"
        if body is not None:
            trimmed = kwargs.get("trim", 0) if segment and not segment[4] & CLOSING else 0
            assert kept == body[trimmed:], f"frame {number}"
        if segment is not None:
            assert fields == (*segment[:4], segment[4] & 0x17), f"frame {number}"
    return [verdict for verdict, _, _ in results]


def good(*frames):
    return [(frame, True) for frame in frames]


def test_verilog():
    verilog.convert(SegmentReceiver())


def test_payloads_of_every_small_length():
    verdicts = check(good(*(peer_segment(payload=bytes(range(1, n + 1))) for n in range(24))))
    assert verdicts == ["segment"] * 24


def test_long_payload_and_every_tcp_header_length():
    rng = random.Random(5)
    frames = [peer_segment(payload=rng.randbytes(1460))]
    for words in range(11):
        options = [("NOP", None)] * (4 * words)
        frames.append(peer_segment(payload=rng.randbytes(words * 7 % 9), tcp={"options": options}))
    assert set(check(good(*frames))) == {"segment"}


def test_flags():
    frames = [peer_segment(payload=b"abc", flags=flags) for flags in (
        "A", "PA", "S", "SA", "FA", "R", "RA", "FPA", "P", "", "U", "SF")]
    assert check(good(*frames)) == ["segment"] * len(frames)


def slow_path_frames():
    eth = Ether(dst=LOCAL_MAC, src=PEER_MAC)
    ip = IP(src=PEER_IP, dst=LOCAL_IP)
    big = fragment(ip / UDP(sport=1, dport=2) / Raw(b"x" * 600), fragsize=400)
    tcp = TCP(sport=CONFIG["peer_port"], dport=CONFIG["local_port"], flags="A")
    return {
        "arp request": Ether(dst="ff:ff:ff:ff:ff:ff", src=PEER_MAC) / ARP(op=1, psrc=PEER_IP, pdst=LOCAL_IP),
        "arp reply": eth / ARP(op=2, psrc=PEER_IP, pdst=LOCAL_IP, hwsrc=PEER_MAC),
        "ping": eth / ip / ICMP(),
        "udp": eth / ip / UDP(sport=CONFIG["peer_port"], dport=CONFIG["local_port"]),
        "ip options": eth / IP(src=PEER_IP, dst=LOCAL_IP, options=[IPOption_RR()]) / tcp / Raw(b"hello"),
        "first fragment": eth / big[0],
        "last fragment": eth / big[1],
        "tcp fragment": eth / IP(src=PEER_IP, dst=LOCAL_IP, flags="MF") / tcp / Raw(b"hello"),
        "other peer port": eth / ip / TCP(sport=4211, dport=CONFIG["local_port"], flags="A"),
        "other local port": eth / ip / TCP(sport=CONFIG["peer_port"], dport=49320, flags="A"),
        "other peer": eth / IP(src="192.168.200.8", dst=LOCAL_IP) / tcp,
        "other local address": eth / IP(src=PEER_IP, dst="10.77.3.3") / tcp,
        "tagged": eth / Dot1Q(vlan=7) / ip / tcp / Raw(b"hello"),
        "segment to all": Ether(dst="ff:ff:ff:ff:ff:ff", src=PEER_MAC) / ip / tcp / Raw(b"hello"),
    }


@pytest.mark.parametrize("name", slow_path_frames())
def test_slow_path(name):
    assert check(good(with_fcs(bytes(slow_path_frames()[name])))) == ["frame"]


@pytest.mark.parametrize("trim", [1, 2, 7, 40, 41, 2047])
def test_what_was_received_before_is_not_handed_on_again(trim):
    """Of payloads alone, whatever their length and that of the header before them."""
    rng = random.Random(trim)
    frames = [peer_segment(payload=rng.randbytes(size), flags=flags, tcp={"options": [("NOP", None)] * options})
              for size in (0, 1, 3, 6, 8, 39, 40, 41, 100) for flags, options in (("PA", 0), ("PA", 4), ("FPA", 0))]
    frames.append(with_fcs(bytes(Ether(dst=LOCAL_MAC, src=PEER_MAC) / ARP(op=1, psrc=PEER_IP, pdst=LOCAL_IP))))
    check(good(*frames), trim=trim)


def test_other_addresses_are_let_go():
    frames = [peer_segment(payload=b"abc", dst=dst) for dst in (
        "01:00:5e:00:00:01", "02:74:32:71:00:02", "03:74:32:71:00:01", "ff:ff:ff:ff:ff:fe", "7f:ff:ff:ff:ff:ff")]
    assert check(good(*frames)) == ["ignored"] * 5


def test_not_established():
    frames = good(peer_segment(payload=b"abc"), peer_segment(flags="SA"), peer_segment(flags="R"))
    assert check(frames, established=False) == ["frame"] * 3


def test_bad_verdict_of_the_mac():
    frames = [(peer_segment(payload=b"abc"), False), (peer_segment(payload=b"def"), True)]
    assert check(frames) == ["bad", "segment"]


def test_cut_at_every_byte():
    """Cut on the wire (the MAC says bad) and, where that is a legal frame, cut by a switch that made a new FCS."""
    frame = peer_segment(payload=bytes(range(60)))
    frames = [(frame[:n], False) for n in range(1, len(frame))]
    frames += [(with_fcs(frame[:n]), True) for n in range(60, len(frame) - 4)]
    frames.append((frame, True))
    verdicts = check(frames)
    assert set(verdicts[:-1]) == {"bad"}
    assert verdicts[-1] == "segment"


def test_every_byte_spoilt():
    """One bit of each byte flipped, FCS made right: nothing but the addresses of layer 2 may go unnoticed."""
    rng = random.Random(11)
    frame = peer_segment(payload=b"odd length of data!", fcs=False)
    frames = []
    for n in range(len(frame)):
        spoilt = bytearray(frame)
        spoilt[n] ^= 1 << rng.randrange(8)
        frames.append(with_fcs(bytes(spoilt)))
    verdicts = check(good(*frames))
    assert verdicts.count("segment") == 6       # the source address: not looked at
    assert verdicts.count("bad") > 25


def test_wrong_lengths():
    """Total length or data offset contradict the frame of 66 bytes; both checksums are made right again."""
    frames = []
    for total in (0, 5, 19, 20, 39, 40, 51, 52, 53, 60, 61, 62, 100, 65535):
        frame = bytearray(peer_segment(payload=b"0123456789ab", fcs=False))
        frame[16:18] = total.to_bytes(2, "big")
        frames.append(frame)
    for words in range(16):
        frame = bytearray(peer_segment(payload=b"0123456789ab", fcs=False))
        frame[46] = words << 4
        frames.append(frame)
    for frame in frames:
        frame[24:26] = frame[50:52] = bytes(2)
        frame[24:26] = net.checksum(frame[14:34]).to_bytes(2, "big")
        total = int.from_bytes(frame[16:18], "big")
        pseudo = net.PSEUDO.pack(src=CONNECTION["peer_ip"], dst=CONNECTION["local_ip"], zero=0, protocol=6,
                                 length=max(total - 20, 0))
        frame[50:52] = net.checksum(pseudo + frame[34:14 + max(total, 20)]).to_bytes(2, "big")
    verdicts = check(good(*(with_fcs(bytes(frame)) for frame in frames)))
    assert verdicts.count("segment") == 3 + 4
    assert verdicts.count("bad") == len(frames) - 7


@pytest.mark.parametrize("seed", range(3))
def test_random_mix(seed):
    """Good and bad frames of all kinds at the least distance: none has an effect on the one after it."""
    print(f"seed {seed}")
    rng = random.Random(f"receive {seed}")
    slow = [with_fcs(bytes(frame)) for frame in slow_path_frames().values()]
    frames = []
    for _ in range(60):
        choice = rng.random()
        if choice < 0.5:
            frames.append((peer_segment(rng.getrandbits(32), rng.getrandbits(32), rng.randbytes(rng.randint(0, 60)),
                                        rng.choice(("A", "PA", "S", "FA", "R")), rng.getrandbits(16)),
                           rng.random() < 0.8))
        elif choice < 0.7:
            frames.append((rng.choice(slow), rng.random() < 0.8))
        elif choice < 0.85:
            frames.append((rng.randbytes(rng.randint(1, 80)), False))
        else:
            frame = bytearray(peer_segment(payload=rng.randbytes(rng.randint(0, 30)), fcs=False))
            frame[rng.randrange(len(frame))] ^= rng.randint(1, 255)
            frames.append((with_fcs(bytes(frame)), True))
    verdicts = check(frames, gap=1)
    assert {"segment", "frame", "bad"} <= set(verdicts)

"""Headers below the exchange protocols, against frames taken apart and put together by Scapy."""

import random

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from hdl.layout import net
from hdl.layout.fields import LayoutError


@pytest.mark.parametrize(("layout", "size"), [
    (net.ETHERNET, 14), (net.VLAN, 4), (net.IPV4, 20), (net.UDP, 8), (net.TCP, 20), (net.ARP, 28), (net.PSEUDO, 12)])
def test_sizes(layout, size):
    assert layout.size == size
    end = 0
    for f in layout.fields.values():
        assert (f.offset, f.byteorder) == (end, "big"), "no holes"
        end = f.end
    assert end == size


def test_tcp_frame():
    frame = bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
                  / IP(src="10.0.0.1", dst="10.0.0.2", id=0, flags="DF", ttl=64)
                  / TCP(sport=40000, dport=4210, seq=0x01020304, ack=0xA0B0C0D0, flags="PA", window=8192) / b"payload")
    assert net.ETHERNET.unpack(frame) == {"dst": 0x020000000002, "src": 0x020000000001,
                                          "ethertype": net.ETHERTYPE_IPV4}
    ip = net.IPV4.unpack(frame, net.ETHERNET.size)
    assert ip | {"checksum": 0} == {
        "version_ihl": net.IPV4_NO_OPTIONS, "tos": 0, "total_length": 47, "identification": 0,
        "flags_fragment": net.IPV4_DONT_FRAGMENT, "ttl": 64, "protocol": net.PROTOCOL_TCP, "checksum": 0,
        "src": 0x0A000001, "dst": 0x0A000002}
    tcp = net.TCP.unpack(frame, net.ETHERNET.size + net.IPV4.size)
    assert tcp | {"checksum": 0} == {
        "src_port": 40000, "dst_port": 4210, "seq": 0x01020304, "ack": 0xA0B0C0D0, "data_offset": 0x50,
        "flags": net.TCP_PSH | net.TCP_ACK, "window": 8192, "checksum": 0, "urgent": 0}
    assert net.IPV4.pack(**ip | {"checksum": net.checksum(net.IPV4.pack(**ip | {"checksum": 0}))}) == frame[14:34]
    segment = frame[34:]
    pseudo = net.PSEUDO.pack(src=ip["src"], dst=ip["dst"], protocol=ip["protocol"], length=len(segment))
    assert net.checksum(pseudo + net.TCP.pack(**tcp | {"checksum": 0}) + b"payload") == tcp["checksum"]
    assert net.checksum(pseudo + segment) == 0, "a segment with its checksum in it sums to zero"


def test_multicast_frame_with_tag():
    group = 0xE0001F09
    packed = (net.ETHERNET.pack(dst=net.multicast_mac(group), src=1, ethertype=net.ETHERTYPE_VLAN)[:12]
              + net.VLAN.pack(tpid=net.ETHERTYPE_VLAN, tci=0x6064) + net.ETHERTYPE_IPV4.to_bytes(2, "big")
              + net.IPV4.pack(version_ihl=net.IPV4_NO_OPTIONS, total_length=32, ttl=4, protocol=net.PROTOCOL_UDP,
                              src=0x0A000001, dst=group)
              + net.UDP.pack(src_port=1, dst_port=14310, length=12) + b"data")
    read = Ether(packed)
    assert (read[Dot1Q].vlan, read[Dot1Q].prio) == (0x64, 3)
    assert (read.dst, read[IP].dst, read[UDP].dport) == ("01:00:5e:00:1f:09", "224.0.31.9", 14310)


@pytest.mark.parametrize(("group", "mac"), [
    (0xE0000001, 0x01005E000001), (0xEFFFFFFF, 0x01005E7FFFFF), (0xE0800001, 0x01005E000001)])
def test_multicast_mac(group, mac):
    """23 of the group's 28 bits are left; the last row shares its address with the first."""
    assert net.multicast_mac(group) == mac


def test_arp():
    request = bytes(ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2"))
    assert net.ARP.unpack(request) == {
        "htype": 1, "ptype": net.ETHERTYPE_IPV4, "hlen": 6, "plen": 4, "oper": 1, "sha": 0x020000000001,
        "spa": 0x0A000001, "tha": 0, "tpa": 0x0A000002}


def test_checksum_against_another_way_to_sum():
    """Also of odd lengths and of all ones; RFC 1071's own example."""
    assert net.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2
    seed = 72
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        data = rng.choice((rng.randbytes(rng.randrange(60)), b"\xff" * rng.randrange(60), bytes(rng.randrange(9))))
        # Ones' complement addition is addition modulo 2^16 - 1, and a sum that is not zero is never shown as zero.
        total = int.from_bytes(data + bytes(len(data) & 1), "big") % 0xFFFF
        want = (total or 0xFFFF if any(data) else 0) ^ 0xFFFF
        assert net.checksum(data) == want, data.hex()


def test_value_out_of_range():
    with pytest.raises(LayoutError, match=r"field dst_port holds 0\.\.65535, got 70000"):
        net.UDP.pack(dst_port=70000)

"""The link codec: what is sent comes back, and nothing that goes wrong on the way costs more than itself."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.layout import sbe
from host import link

EVERY = [m.id for m in link.SCHEMA.messages.values()]
RAW = ("FrameTx", "SessionTx", "FrameRx", "SessionRx")
packets = st.lists(st.tuples(st.sampled_from(RAW), st.binary(max_size=200)), max_size=20)


def crc_bitwise(data):
    """CRC-16/CCITT-FALSE, one bit at a time."""
    value = 0xFFFF
    for byte in data:
        for bit in range(8):
            value = (value << 1 ^ (0x1021 if (value >> 15 ^ byte >> 7 - bit) & 1 else 0)) & 0xFFFF
    return value


def test_crc_is_ccitt():
    assert link.crc(b"123456789") == 0x29B1 == crc_bitwise(b"123456789")


def test_packet_bytes():
    """Start, type, length little endian, payload, CRC little endian over type..payload."""
    packet = link.encode_read(7, 0x1234)
    assert packet[:4] == bytes([0xA5, 2, 3, 0])
    assert packet[4:7] == bytes([7, 0x34, 0x12])
    assert packet[7:] == crc_bitwise(packet[1:7]).to_bytes(2, "little")


@given(packets, st.integers(0, 1 << 32))
def test_any_segmentation_gives_the_packets(sent, seed):
    stream = b"".join(link.encode(kind, payload) for kind, payload in sent)
    rng, decoder, got, at = random.Random(seed), link.Decoder(EVERY), [], 0
    while at < len(stream):
        size = rng.randrange(1, 40)
        got += decoder.feed(stream[at:at + size])
        at += size
    assert got == [(link.SCHEMA[kind].id, payload) for kind, payload in sent]
    assert not decoder.errors
    assert decoder.incomplete == 0


@given(st.binary(max_size=300))
def test_random_bytes_do_no_harm(noise):
    """After any rubbish, abandoned, a good packet is found."""
    decoder = link.Decoder(EVERY)
    decoder.feed(noise)
    decoder.abandon()
    assert decoder.incomplete == 0
    good = link.encode("SessionRx", b"after")
    assert decoder.feed(good) == [(132, b"after")]


def lossy_line(seed, packets=10_000):
    """Packets on a line with bit errors, lost and inserted bytes: (stream, spans), a span being (first byte, end,
    payload, whether it is untouched)."""
    rng = random.Random(seed)
    stream, spans = bytearray(), []
    for n in range(packets):
        payload = n.to_bytes(4, "little") + rng.randbytes(rng.randrange(60)).replace(b"\xa5", b"\x00")
        packet = bytearray(link.encode("SessionRx", payload))
        fate = rng.randrange(20)
        if fate == 0:
            packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
        elif fate == 1:
            del packet[rng.randrange(len(packet))]
        elif fate == 2:
            packet.insert(rng.randrange(1, len(packet)), rng.randrange(256))
        spans.append((len(stream), len(stream) + len(packet), payload, fate > 2))
        stream += packet
    return bytes(stream), spans


def damage_costs_only_what_it_hits(seed):
    """Number of untouched packets that are lost; each must share a byte with a packet nobody sent, but whose length,
    type and checksum are right."""
    stream, spans = lossy_line(seed)
    decoder = link.Decoder()
    got = [payload for _, payload in decoder.feed(stream)] + [payload for _, payload in decoder.abandon()]
    received, sent = set(got), {payload for *_, payload, _ in spans}
    good = [payload for *_, payload, untouched in spans if untouched]
    # What reads as a packet without having been one: a damaged packet lacks its last byte, that byte was a start
    # byte, and the next packet's stands in its place (0.05 a run); or 16 bits of checksum agree by chance.
    false = [(at, at + len(packet)) for p in got if p not in sent
             for packet in [link.encode("SessionRx", p)] for at in [stream.find(packet)]]
    false += [(start, end + 1) for start, end, payload, untouched in spans if not untouched and payload in received
              and stream[start:end + 1] == link.encode("SessionRx", payload)]
    missing = [(start, end) for start, end, payload, untouched in spans if untouched and payload not in received]
    for start, end in missing:
        assert any(first < end and start < last for first, last in false), f"undamaged, but lost: {stream[start:end]}"
    assert len(missing) <= len(false) <= 5
    untouched_ones = set(good)
    assert [p for p in got if p in untouched_ones] == [p for p in good if p in received]
    damaged = len(spans) - len(good)
    assert damaged > 1000
    assert sum(decoder.errors.values()) > damaged // 2
    return len(missing)


def test_damage_costs_only_what_it_hits():
    """10,000 packets with bit errors, lost and inserted bytes: every untouched packet arrives, in order."""
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    damage_costs_only_what_it_hits(seed)


@pytest.mark.parametrize("seed", [17, 35])
def test_the_next_start_byte_can_stand_for_a_lost_one(seed):
    """A last byte lost, the next packet's start byte like it (17); a checksum that agrees by chance (35)."""
    assert damage_costs_only_what_it_hits(seed) == 1


def test_a_start_byte_inside_a_damaged_packet_does_not_hide_the_next():
    inner = link.encode("SessionRx", b"inner")
    outer = bytearray(link.encode("FrameRx", b"\xa5\x84\xff\x01" + inner))
    outer[-1] ^= 0xFF
    decoder = link.Decoder()
    got = decoder.feed(bytes(outer) + link.encode("SessionRx", b"next")) + decoder.abandon()
    assert got == [(132, b"inner"), (132, b"next")]
    assert decoder.errors["crc"] >= 1


def test_length_beyond_the_maximum_is_refused_at_once():
    decoder = link.Decoder()
    decoder.feed(bytes([0xA5, 0x83]) + (link.MAX_PAYLOAD + 1).to_bytes(2, "little"))
    assert decoder.errors["length"] == 1
    with pytest.raises(link.LinkError, match="1601 bytes: a packet carries at most 1600"):
        link.encode("FrameTx", bytes(1601))


def test_long_bursts_are_split_and_complete():
    words = list(range(1, 1001))
    decoder, memory = link.Decoder(EVERY), {}
    for kind, payload in decoder.feed(link.encode_write(0x8000, words, epoch=7)):
        assert kind == 1
        at, its = link.parse_write(payload)
        memory |= dict(enumerate(its, at))
        assert payload[2:6] == (7).to_bytes(4, "little")
    assert memory == {0x8000 + n: w for n, w in enumerate(words)}


@given(st.data())
def test_decision_records(data):
    message = sbe.load("t2q_link")["Decision"]
    values = {f.name: data.draw(st.integers(*f.range), label=f.name) for f in message.fields.values()}
    record = link.parse(message.id, message.encode(values))
    assert tuple(record) == tuple(values.values())
    assert record.best_bid_ticks == values["bestBidTicks"]


@pytest.mark.parametrize("kind", ["ReadReply", "Decision", "Event", "SessionSent"])
@pytest.mark.parametrize("off", [-1, 1])
def test_records_of_another_length_are_refused(kind, off):
    message = link.SCHEMA[kind]
    with pytest.raises(link.LinkError, match=f"{kind} of .* bytes, must be {message.block_length}"):
        link.parse(message.id, bytes(message.block_length + off))


def test_types_of_the_host_are_no_records():
    with pytest.raises(link.LinkError, match="packet type 0x01 is unknown; the fabric sends 0x82"):
        link.parse(1, b"")

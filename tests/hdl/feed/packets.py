"""Random MDP 3.0 payloads for the tests: mostly right, some mutated."""

from hdl.layout import sbe

MDP3 = sbe.load("cme_mdp3")
BOOKS = (MDP3["MDIncrementalRefreshBook32"], MDP3["MDIncrementalRefreshBook46"])
OTHERS = [m for m in MDP3.messages.values() if m not in BOOKS]


def message(template, root, groups=b"", *, schema=1, block=None, size=None):
    """One framed message from the bytes of its root block and of what follows."""
    block = len(root) if block is None else block
    header = MDP3.composites["messageHeader"].pack(blockLength=block, templateId=template, schemaId=schema, version=9)
    body = header + root + groups
    framing = MDP3.composites["MessageFraming"]
    return framing.pack(MsgSize=framing.size + len(body) if size is None else size) + body


def book(rng, security_ids, entries=None, indicator=None):
    """A book message with random entries; longer blocks than the schema's now and then."""
    layout = rng.choice(BOOKS)
    group = layout.groups["NoMDEntries"]
    count = rng.choice((0, 1, 1, 1, 2, 3, 6)) if entries is None else entries
    indicator = rng.choice((0x84, 0x84, 0x80, 0x04, 0, 0x7B)) if indicator is None else indicator
    block = layout.encode({"TransactTime": rng.getrandbits(64), "MatchEventIndicator": indicator})[:layout.block_length]
    stretch = rng.choice((0, 0, 0, 1, 5))
    step = group.block_length + rng.choice((0, 0, 0, -5, 3))
    tail = b""
    for _ in range(count):
        entry = {"MDEntryPx": rng.getrandbits(63), "MDEntrySize": rng.choice((0, 1, 7, -1, 2**31 - 1, 500)),
                 "SecurityID": rng.choice(security_ids), "RptSeq": rng.getrandbits(32), "NumberOfOrders": 1,
                 "MDPriceLevel": rng.randrange(0, 13), "MDUpdateAction": rng.randrange(0, 7),
                 "MDEntryType": rng.choice(b"000111EFJx")}
        raw = bytearray(group.block_length)
        for name, value in entry.items():
            raw[group[name].offset:group[name].end] = group[name].pack(value)
        tail += bytes(raw).ljust(step, b"\xEE")[:step]
    orders = layout.groups["NoOrderIDEntries"]
    after = orders.dimension.pack(blockLength=orders.block_length, numInGroup=0) if rng.random() < .8 else b""
    dimension = group.dimension.pack(blockLength=step, numInGroup=count)
    return message(layout.id, block + bytes(stretch), dimension + tail + after)


def other(rng):
    """Some message without a book."""
    if rng.random() < .2:
        return message(rng.choice((32, 46, 999)), rng.randbytes(rng.randrange(0, 40)), schema=rng.choice((2, 7)))
    layout = rng.choice(OTHERS)
    return message(layout.id, rng.randbytes(layout.block_length), rng.randbytes(rng.randrange(0, 30)))


def packet(rng, seq, security_ids):
    """One payload: several messages, and in one of four something is broken."""
    out = MDP3.composites["PacketHeader"].pack(MsgSeqNum=seq & 0xFFFFFFFF, SendingTime=rng.getrandbits(63))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5))):
        out += book(rng, security_ids) if rng.random() < .7 else other(rng)
    if rng.random() < .25:
        out = bytearray(out)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(4, len(out)) if len(out) > 4 else 0
            if rng.random() < .7:
                out[at] = rng.choice((0, 1, 0xFF, rng.randrange(256)))
            else:
                del out[max(4, at):]
        out = bytes(out)
    return out

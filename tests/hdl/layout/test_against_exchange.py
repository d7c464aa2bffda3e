"""Our subset schemas against the exchanges' own files: not a byte apart.

The files are not ours to ship. ``T2Q_CAPTURES`` names the folder that has them in ``schemas``; without it (and without
``../shared/captures`` beside the project) these tests are skipped.

Known differences, each on purpose:

- ``PacketHeader`` and ``MessageFraming`` of CME stand in its specification, not in its schema file.
- CME's file has messages that the fabric skips by their MsgSize; those of them that carry a MatchEventIndicator are
  listed below: an event that ends with one of them is over for the fabric only with the next event.
- Of CME's messages that are skipped after their indicator the groups are not carried; of the book's the leading ones
  are, in wire order.
- Enumerations carry the values that are used.
"""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from hdl.layout import net, sbe

CAPTURES = Path(os.environ.get("T2Q_CAPTURES") or Path(__file__).resolve().parents[4] / "shared" / "captures")

#: Our subset, the exchange's file, and how many of our messages that file must have at least.
PAIRS = [
    ("cme_mdp3", "Cme.Futures.Mdp3.Sbe.v1.8.xml", 12),
    ("cme_mdp3", "Cme.Futures.Mdp3.Sbe.v1.9.xml", 17),
    ("cme_mdp3", "Cme.Futures.Mdp3.Sbe.v1.12.xml", 11),
    ("cme_mdp3", "Cme.Futures.Mdp3.Sbe.v1.13.xml", 11),
    ("starbase_orders", "deribit_starbase_order_api_2101_v16.xml", 27),
]
NOT_IN_THE_FILE = {"cme_mdp3": {"PacketHeader", "MessageFraming"}, "starbase_orders": set()}

#: Messages of CME's newest version with an indicator that are not in our subset: definitions of instruments, which
#: change no book, and messages of channels with other quantities or of the recovery feeds.
INDICATORS_PASSED_OVER = {
    "MDInstrumentDefinitionFuture54", "MDInstrumentDefinitionOption55", "MDInstrumentDefinitionSpread56",
    "MDInstrumentDefinitionFixedIncome57", "MDInstrumentDefinitionRepo58", "MDInstrumentDefinitionFX63",
    "SnapshotRefreshTopOrders59", "SecurityStatusWorkup60", "SnapshotFullRefreshTCP61", "CollateralMarketValue62",
    "MDIncrementalRefreshBookLongQty64", "MDIncrementalRefreshTradeSummaryLongQty65",
    "MDIncrementalRefreshVolumeLongQty66", "MDIncrementalRefreshSessionStatisticsLongQty67",
    "SnapshotFullRefreshTCPLongQty68",
}


def exchange(name):
    """The exchange's schema, or a skip with the reason."""
    path = CAPTURES / "schemas" / name
    if not path.is_file():
        pytest.skip(f"no {path}: set T2Q_CAPTURES to a folder whose schemas/ has the exchange's file")
    return sbe.load(path)


def vector(name):
    """Bytes of a message of another author and the values that they hold."""
    path = CAPTURES / "vectors" / name
    if not path.is_file():
        pytest.skip(f"no {path}: set T2Q_CAPTURES to the folder of captures")
    return path.read_bytes(), json.loads((path.parent / "expected.json").read_text()).get(name)


def differences(where, ours, theirs):
    """What is not the same in fields of ours."""
    out = []
    for name, f in ours.items():
        if name not in theirs:
            out.append(f"{where}.{name}: the exchange has no such field; it has {', '.join(theirs)}")
            continue
        for attribute in dataclasses.fields(f):
            mine, its = getattr(f, attribute.name), getattr(theirs[name], attribute.name)
            if mine != its:
                out.append(f"{where}.{name}: {attribute.name} is {mine!r}, the exchange says {its!r}")
    return out


def compare(ours, theirs):
    """Differences of two messages: ids, lengths, fields, groups, data."""
    out = [f"{ours.name}: {what} is {mine}, the exchange says {its}" for what, mine, its in (
        ("id", ours.id, theirs.id), ("block length", ours.block_length, theirs.block_length),
        ("groups", list(ours.groups), list(theirs.groups)[:len(ours.groups)]), ("data", ours.data, theirs.data))
        if mine != its]
    out += differences(ours.name, ours.fields, theirs.fields)
    for name, group in ours.groups.items():
        where, twin = f"{ours.name}.{name}", theirs.groups.get(name)
        if twin is None:
            continue
        if group.block_length != twin.block_length:
            out.append(f"{where}: block length is {group.block_length}, the exchange says {twin.block_length}")
        if group.dimension.size != twin.dimension.size:
            out.append(f"{where}: dimension takes {group.dimension.size}, the exchange says {twin.dimension.size}")
        out += differences(f"{where} dimension", group.dimension.fields, twin.dimension.fields)
        out += differences(where, group.fields, twin.fields)
    return out


@pytest.mark.parametrize(("subset", "file", "least"), PAIRS, ids=lambda p: p if isinstance(p, str) else None)
def test_messages(subset, file, least):
    ours, theirs = sbe.load(subset), exchange(file)
    assert ours.id == theirs.id
    common = [m for m in ours.messages.values() if m.name in theirs.messages]
    assert len(common) >= least
    assert [d for m in common for d in compare(m, theirs[m.name])] == []
    # An id that the file has is the same message there.
    assert {m.id: theirs.by_id[m.id].name for m in ours.messages.values() if m.id in theirs.by_id} == \
        {m.id: m.name for m in common}


@pytest.mark.parametrize(("subset", "file", "least"), PAIRS, ids=lambda p: p if isinstance(p, str) else None)
def test_composites_enumerations_and_sets(subset, file, least):
    ours, theirs = sbe.load(subset), exchange(file)
    checked = 0
    for name, composite in ours.composites.items():
        if name in theirs.composites:
            assert composite.size == theirs.composites[name].size, name
            assert differences(name, composite.fields, theirs.composites[name].fields) == []
            checked += 1
        else:
            used_there = [m for m in ours.messages.values() if m.name in theirs.messages and any(
                f.name.split(".")[0] == name for f in m.fields.values())]
            assert name in NOT_IN_THE_FILE[subset] or not used_there, name
    assert checked >= 5
    for name, values in ours.enums.items():
        if name in theirs.enums:
            assert values.items() <= theirs.enums[name].items(), name
    for name, bits in ours.sets.items():
        assert bits.items() <= theirs.sets[name].items(), name


def test_every_message_of_ours_is_some_exchange_files():
    for subset in ("cme_mdp3", "starbase_orders"):
        files = [exchange(file) for ours, file, _ in PAIRS if ours == subset]
        known = {name for file in files for name in file.messages} | (
            set(exchange("Cme.Futures.Mdp3.Sbe.v1.6.xml").messages) if subset == "cme_mdp3" else set())
        assert set(sbe.load(subset).messages) <= known
        for kind in ("composites", "enums", "sets"):
            known = {name for file in files for name in getattr(file, kind)}
            assert set(getattr(sbe.load(subset), kind)) - known <= NOT_IN_THE_FILE[subset], kind


def test_starbase_messages_are_whole():
    """Of the order protocol we send and read whole messages: no field, group or enumeration value may be missing."""
    ours, theirs = sbe.load("starbase_orders"), exchange("deribit_starbase_order_api_2101_v16.xml")
    assert ours.version == theirs.version == 16
    for m in ours.messages.values():
        assert list(m.fields) == list(theirs[m.name].fields), m.name
        assert list(m.groups) == list(theirs[m.name].groups), m.name
        for name, group in m.groups.items():
            assert list(group.fields) == list(theirs[m.name].groups[name].fields), (m.name, name)
    assert {name: ours.enums[name] for name in ours.enums} == {name: theirs.enums[name] for name in ours.enums}
    assert {name: ours.sets[name] for name in ours.sets} == {name: theirs.sets[name] for name in ours.sets}


def test_oldest_version_ends_its_book_message_earlier():
    """Before version 7 the book message had no orders: what is there is where it is today."""
    ours, theirs = sbe.load("cme_mdp3"), exchange("Cme.Futures.Mdp3.Sbe.v1.6.xml")
    found = [d for m in ours.messages.values() if m.name in theirs.messages for d in compare(m, theirs[m.name])]
    assert found == ["MDIncrementalRefreshBook32: groups is ['NoMDEntries', 'NoOrderIDEntries'], "
                     "the exchange says ['NoMDEntries']"]
    m = ours["MDIncrementalRefreshBook32"]
    whole = m.encode({"TransactTime": 1}, {"NoMDEntries": [{"SecurityID": 5}]})
    old = whole[:-m.groups["NoOrderIDEntries"].dimension.size]
    assert m.decode(old)["NoMDEntries"][0]["SecurityID"] == 5
    assert m.decode(old)["NoOrderIDEntries"] == []


def test_messages_that_end_an_event_unseen():
    ours, theirs = sbe.load("cme_mdp3"), exchange("Cme.Futures.Mdp3.Sbe.v1.13.xml")
    passed_over = {m.name for m in theirs.messages.values()
                   if "MatchEventIndicator" in m.fields and m.id not in ours.by_id}
    assert passed_over == INDICATORS_PASSED_OVER


def test_a_difference_would_be_found():
    """The comparison can fail: of a wrong offset, size, sign, null, enumeration, group, length and id."""
    ours = sbe.load("starbase_orders")["MassQuoteRequest"]
    assert compare(ours, ours) == []
    group = ours.groups["quotes"]

    def changed(**changes):
        f = dataclasses.replace(group.fields["bidPrice"], **changes)
        return dataclasses.replace(ours, groups={"quotes": dataclasses.replace(
            group, fields=group.fields | {"bidPrice": f})})
    for changes in ({"offset": 9}, {"size": 4}, {"signed": False}, {"null": None}, {"enum": "Side"}):
        (name, _), = changes.items()
        found, = compare(ours, changed(**changes))
        assert found.startswith(f"MassQuoteRequest.quotes.bidPrice: {name} is ")
    for twin in (dataclasses.replace(ours, id=131), dataclasses.replace(ours, block_length=34),
                 dataclasses.replace(ours, groups={}), dataclasses.replace(ours, data=("reason",)),
                 dataclasses.replace(ours, groups={"quotes": dataclasses.replace(group, block_length=47)})):
        assert len(compare(ours, twin)) == 1


def test_real_order_is_read():
    data, expected = vector("starbase_oe_neworderrequest_v1_tcp.bin")
    schema = sbe.load("starbase_orders")
    header = schema.composites["MessageHeader"]
    read = header.unpack(data)
    assert {name: read[name] for name in expected["header"]} == expected["header"]
    assert read["messageLength"] == len(data)
    order = schema.by_id[read["messageTypeId"]]
    assert order.name == "NewOrderRequest"
    assert header.size + order.block_length == len(data)
    values = order.decode(data[header.size:])
    want = expected["NewOrderRequest"]
    assert values["price"] == round(want["price"] * 10**9)
    assert values["quantity.mantissa"] == round(want["quantity"] * 10 ** -values["quantity.exponent"])
    assert values["showQty.mantissa"] is want["showQty"] is None
    for name in want.keys() - {"price", "quantity", "showQty"}:
        assert values[name] == want[name], name


@pytest.mark.parametrize(("file", "has_sort_order"), [
    ("Coinbase.Deribit.MarketDataApi.Sbe.v0.1.xml", False), ("deribit_starbase_market_data_api_2102_v1.xml", True)])
def test_real_market_data_is_read_with_its_own_and_a_newer_schema(file, has_sort_order):
    """Headers, and a message of version 0 by its wire length: a field that came with version 1 is None."""
    data, expected = vector("starbase_md_askput_v0_udp_payload.bin")
    schema = exchange(file)
    packet, header = schema.composites["PacketHeader"], schema.composites["mdMessageHeader"]
    assert packet.unpack(data) == expected["packet"]
    read = header.unpack(data, packet.size)
    assert read == expected["message"]
    put = schema.by_id[read["templateId"]]
    body = data[packet.size + header.size:]
    values = put.decode(body, block_length=read["messageLength"] - header.size)
    assert {name: values[name] for name in ("orderId", "instrumentId", "quantityMantissa")} | {
        "price9": values["price"]} == expected["AskPut"]
    assert values.get("sortOrderId", "absent") == (None if has_sort_order else "absent")


def test_real_frame_is_read():
    frame, _ = vector("starbase_md_askput_v0_frame.bin")
    payload, _ = vector("starbase_md_askput_v0_udp_payload.bin")
    ip = net.IPV4.unpack(frame, net.ETHERNET.size)
    udp = net.UDP.unpack(frame, net.ETHERNET.size + net.IPV4.size)
    start = net.ETHERNET.size + net.IPV4.size + net.UDP.size
    assert net.ETHERNET.unpack(frame)["ethertype"] == net.ETHERTYPE_IPV4
    assert net.ETHERNET.unpack(frame)["dst"] == net.multicast_mac(ip["dst"])
    assert net.checksum(frame[net.ETHERNET.size:][:net.IPV4.size]) == 0
    assert (ip["version_ihl"], ip["protocol"], udp["dst_port"]) == (net.IPV4_NO_OPTIONS, net.PROTOCOL_UDP, 4220)
    assert udp["length"] == net.UDP.size + len(payload)
    assert frame[start:][:len(payload)] == payload

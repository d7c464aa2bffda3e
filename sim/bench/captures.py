"""Case (a): captures of the exchange's feed, and generated traffic where there is none."""

import math
from collections import Counter, defaultdict
from pathlib import Path

from hdl.layout import net, sbe
from host import config as configuration
from sim.bench.cases import Case, Played, Row
from sim.bench.session import Session
from sim.board.captures import read_capture
from sim.market import generator
from sim.market.schedule import schedule
from sim.replay import Replay, find_captures, load_source

__all__ = ["captures", "channels", "instruments"]

_V9 = Path("cme_mdp3") / "Cme.Mdp3.Sbe.v9.1.Example.pcap"
_MDP3 = sbe.load("cme_mdp3")
_BOOKS = {_MDP3[name].id: _MDP3[name] for name in ("MDIncrementalRefreshBook32", "MDIncrementalRefreshBook46")}
_PACKET, _FRAMING = _MDP3.composites["PacketHeader"], _MDP3.composites["MessageFraming"]
_HEADER = _MDP3.composites["messageHeader"]
_TYPES = [_MDP3.enums["MDEntryTypeBook"][name] for name in ("Bid", "Offer")]
_AFTER = 20_000         # cycles that a market is followed after its last frame
_MAX_TICK = 10**10      # of an instrument with hardly any prices; 10 with exponent -9


def _payload(frame):
    """((group, port), UDP payload) of a frame without tag, or ``None``."""
    at = net.ETHERNET.size
    if len(frame) < at + net.IPV4.size + net.UDP.size or net.ETHERNET.unpack(frame)["ethertype"] != net.ETHERTYPE_IPV4:
        return None
    ip, udp = net.IPV4.unpack(frame, at), net.UDP.unpack(frame, at + net.IPV4.size)
    if ip["protocol"] != net.PROTOCOL_UDP:
        return None
    at += net.IPV4.size + net.UDP.size
    return (ip["dst"], udp["dst_port"]), bytes(frame[at:at + udp["length"] - net.UDP.size])


def channels(frames):
    """Feed lines of a capture: list of (line A, line B or ``None``, frames of both).

    Two groups belong together if they carry the same packets. ``frames``: (time_ns, bytes without FCS).
    """
    packets, carriers = defaultdict(list), defaultdict(set)
    for time_ns, frame in frames:
        found = _payload(frame)
        if found and len(found[1]) >= _PACKET.size:
            packets[found[0]].append((time_ns, frame))
            carriers[found[1]].add(found[0])
    together = Counter(pair for lines in carriers.values() if len(lines) == 2 for pair in [tuple(sorted(lines))])
    out, used = [], set()
    for pair, _ in together.most_common():
        if not used & set(pair):
            used |= set(pair)
            out.append(pair)
    out += [(line, None) for line in packets if line not in used]
    return [(*(generator.Line(*line, 0, 0) if line else None for line in pair),
             [f for _, _, f in sorted((time_ns, n, (time_ns, frame)) for line in pair if line
                                      for n, (time_ns, frame) in enumerate(packets[line]))]) for pair in out]


def instruments(frames, most=16):
    """The busiest instruments in the book messages of a capture: list of (SecurityID, a tick that all prices fit)."""
    counts, prices = Counter(), defaultdict(set)
    for _, frame in frames:
        _, payload = _payload(frame)
        at = _PACKET.size
        while at + _FRAMING.size + _HEADER.size <= len(payload):
            size = _FRAMING.unpack(payload, at)["MsgSize"]
            header, root = _HEADER.unpack(payload, at + _FRAMING.size), at + _FRAMING.size + _HEADER.size
            if size < root - at:
                break
            message = _BOOKS.get(header["templateId"])
            if message is not None:
                values = message.decode(payload[root:at + size], header["blockLength"])
                for entry in values["NoMDEntries"]:
                    if entry["MDEntryType"] in _TYPES and entry["MDEntryPx"] is not None:
                        counts[entry["SecurityID"]] += 1
                        prices[entry["SecurityID"]].add(entry["MDEntryPx"])
            at += size
    return [(security, math.gcd(_MAX_TICK, *prices[security])) for security, _ in counts.most_common(most)]


def _take(case, row, played):
    """Direct quotes of a market into a row."""
    for _, frame, byte in played.quotes:
        if byte:
            row.figures.add(played.log, byte, frame)
        else:
            row.later += 1
    row.facts["quotes in the background"] = row.later
    case.rows.append(row)


def _replay(case, board, config, source, name, progress):
    """A market with the daemon trading at the simulated exchange, as `make run` has it."""
    board.reset()
    replay = Replay(config, board)
    try:
        replay.start()
        first, last = board.cycle, replay.feed(source.frames)
        while board.cycle < last + _AFTER:
            replay.step()
            progress(min(1.0, (board.cycle - first) / (last - first)))
        replay.step()
        latency = replay.daemon.submit("latency", replay.daemon.latency())
        counters = replay.daemon.submit("counters", replay.daemon._watch())
        replay.until(lambda: latency.done and counters.done, "the card's counters could not be read")
        mismatches = replay.stop()
        told = replay.daemon.decisions.total()
    finally:
        replay.close()
    histogram = {bin_["cycles"]: bin_["count"] for bin_ in latency.result["histogram"]}
    played = Played(case, replay.lock, mismatches, histogram, told, replay.daemon.watched["decisions_differed"])
    case.wrong += [f"the exchange: {text}" for text in
                   (*replay.gateway.explain_refusals(), *(v.text for v in replay.peer.violations))]
    row = Row(name, facts={"packets": len(source.frames), "config": Path(config.source).name,
                           "counterpart": "the daemon at the simulated exchange"})
    _take(case, row, played)


def _bare(case, board, name, lines, frames, listed, progress):
    """A market without daemon and exchange: the instruments' ticks come from the prices."""
    session = Session(board, listed, lines)
    wire = schedule(frames, start_cycle=session.cycle + 500)
    session.feed([f.data[:-net.FCS_SIZE] for f in wire], [f.cycle for f in wire])
    session.run_until(wire[-1].end + _AFTER, progress=progress)
    played = Played.session(case, session)
    row = next((r for r in case.rows if r.kind == name), None)
    if row is None:
        row = Row(name, facts={"packets": 0, "channels": 0, "instruments": 0,
                               "counterpart": "a peer that acknowledges"})
        case.rows.append(row)
    case.rows.remove(row)
    row.facts["packets"] += len(frames)
    row.facts["channels"] += 1
    row.facts["instruments"] += len(listed)
    _take(case, row, played)


def captures(board, config_path, packets=None, seed=1, progress=lambda share: None):
    """The schema 8 capture, the schema 9 capture, and generated markets.

    ``config_path``: configuration for the schema 8 capture. ``packets``: most packets of each, default all (5,000 on
    each line of generated ones). A capture that is not there is left out, with the reason, and a market is generated in
    its place.
    """
    case = Case("a_captures", "captures")
    config = configuration.load(config_path)
    where = find_captures()

    def part(n, of=4):
        return lambda share: progress((n + share) / of)

    source = load_source(config, None, seed, packets)
    if source.generated:
        case.skipped.append("the schema 8 capture is not there (see $T2Q_CAPTURES); generated traffic in its place")
    _replay(case, board, config, source, f"schema 8, {'generated' if source.generated else 'capture'}",
            lambda share: progress(share * 0.5))
    path = where / _V9 if where else None
    if path is None or not path.is_file():
        case.skipped.append("the schema 9 capture is not there (see $T2Q_CAPTURES); generated traffic in its place")
    else:
        for line_a, line_b, frames in channels(read_capture(path)):
            listed = instruments(frames)
            if listed:
                _bare(case, board, "schema 9, capture", (line_a, line_b), frames, listed, part(2))
    count = 5000 if packets is None else -(-packets // 2)
    frames = generator.generate(seed, count, version=9)
    listed = [(i.security_id, generator.mantissas(i.tick, 9)) for i in generator.INSTRUMENTS[:16]]
    _bare(case, board, "schema 9, generated", (generator.LINE_A, generator.LINE_B), frames, listed, part(3))
    for row in case.rows:
        if not row.figures.of["trigger_to_quote_cycles"].count:
            row.how = "none"
            case.skipped.append(f"{row.kind}: no quote in {row.facts['packets']} packets, which leave no instrument "
                                f"with both best prices known")
    case.check("source", any(row.how == "direct" for row in case.rows), f"{len(case.rows)} markets")
    case.two_cycles()
    case.report()
    return case

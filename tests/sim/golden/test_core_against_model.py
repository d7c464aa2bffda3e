"""The core and the golden model on the same input: every frame, every decision, every counter.

Long: the core is built by Verilator (once; the result is kept) and simulated for some hundred thousand cycles.
"""

import dataclasses
import random

import pytest

from hdl.control.registers import ACTIVE, BY_NAME, HALT_CAUSES, HALTED, REDUCING
from hdl.layout import net
from hdl.order.templates import STARBASE_HEADER, STARBASE_PROTOCOL_ID
from host import link
from sim.board.verilate import Design
from sim.golden.quote import SENT
from sim.golden.session import cancel_message, tcp_frame
from sim.market.generator import INSTRUMENTS, LINE_A, LINE_B, generate
from sim.market.schedule import schedule, wire_bytes
from tests.sim.golden.cosim import FRAME_TX, MIDS, PEER, SESSION_TX, STARBASE, CoSim

CHOSEN = [(i.security_id, i.tick) for i in INSTRUMENTS[:16]]


def ready(seed, places=None, **limits):
    """Both set up, connected and armed, in mid-session. ``places``: numbers of the instruments, on a card of so many as
    the last one asks for."""
    sim, chosen = CoSim(seed=seed), CHOSEN
    if places:
        many = places[-1] + 1
        sim = CoSim(Design(arguments={"instruments": many}), many, seed)
        chosen = [CHOSEN[places.index(n)] if n in places else None for n in range(many)]
    sim.lines(LINE_A, LINE_B)
    sim.configure(chosen, **limits)
    sim.hand_over()
    sim.arm()
    while sim.board.link_waiting:
        sim.run(5_000)
    sim.run(2_000)
    assert sim.session_is_up()
    return sim


def replay(sim, seed, packets, max_idle_ns=20_000, each=None, step=2_000, **options):
    """Run generated market data through both; ``each`` is called between bursts."""
    frames = schedule(generate(seed, packets, **options), start_cycle=sim.board.cycle + 500, max_idle_ns=max_idle_ns)
    rng = random.Random(seed)
    for frame in frames:
        sim.feed(frame)
    while sim.board.cycle < frames[-1].end + 1_000:
        new = sim.run(rng.randrange(1, 2 * step))
        if each:
            each(sim, rng, new)
        elif new:
            sim.peer()
    sim.run(3_000)
    return frames


def finish(sim):
    """Everything agrees."""
    while sim.board.link_waiting or sim.board.cycle < sim.order_at + 1_000:
        sim.run(1_000)
    for _ in range(10):
        got, want = sim.compare_records()
        if got == want:
            break
        sim.run(1_000)      # the last record is still on its way to the host
    overflow = sim.read("telemetry_overflow")
    assert got == want or overflow, f"{got} decision records, {want} expected"
    if not overflow:
        sim.compare_events()
    sim.compare_host()
    sim.compare_counters()
    for name, want in (("latency_count", sim.model.latency.count), ("latency_min", sim.model.latency.minimum),
                       ("latency_max", sim.model.latency.maximum)):
        assert sim.read(name) == want, name


def new_limits(sim, rng, choices):
    """Some limits of the card change at once."""
    if sim.board.cycle < sim.closed_until:
        return
    for name in rng.sample(sorted(choices), rng.randrange(1, 1 + min(3, len(choices)))):
        sim.write(name, rng.choice(choices[name]))
    sim.write("commit", 1)


def limit(sim, rng, new):
    """References, bands, holds and loads move about."""
    if new:
        sim.peer()
    what, i = rng.random(), rng.randrange(16)
    mid = MIDS[CHOSEN[i][0]]
    if what < 0.25:
        near = mid + rng.randrange(-60, 60)
        sim.reference(i, rng.choice((near, near, mid * 9 // 10, 0)), near, rng.randrange(-40, 40))
    elif what < 0.35:
        sim.params(i, bands=rng.choice((0, 1 << 31 | 1 << 6, 1 << 25 | 1 << 15, 0xFFFF_FFFF)),
                   skew_q8=rng.choice((0, 1 << 16)), half_spread_sub=rng.choice((100, 300, 700)), skew_max_sub=9_000,
                   away_ticks=rng.choice((1, 3, 50)))
        sim.write("commit", 1)
    elif what < 0.45:
        sim.position(i, rng.randrange(-50, 50))
    elif what < 0.7:
        new_limits(sim, rng, {"live_most": (0, 5, 20, 1023), "ref_cycles": (0, 1, 50_000, 300_000, 0xFFFF_FFFF),
                              "duplicate_cycles": (0, 50_000, 1_000_000), "duplicate_most": (0, 1, 2, 3, 8)})
    elif what < 0.95:
        sim.write("release", i)


def begin_again(sim, rng):
    """Out of a halt, with new positions, into trading."""
    sim.write("clear_halt", sim.model.halt_nonce)
    for i in range(16):
        sim.position(i, rng.randrange(-20, 20))
    sim.arm()


def account(sim, rng, new):
    """Equity moves, grows old, begins anew."""
    if new:
        sim.peer()
    what = rng.random()
    if what < 0.3:
        sim.write("equity", rng.choice((0, 100, 300, -100, -550, -650, -950)))
    elif what < 0.33:
        sim.write("equity", -1_001)
    elif what < 0.4:
        new_limits(sim, rng, {"equity_cycles": (0, 20_000, 200_000, 0xFFFF_FFFF)})
    elif what < 0.45:
        sim.write("equity_start", rng.choice((0, -500, 100)))
    elif what < 0.5:
        new_limits(sim, rng, {"drawdown_most": (0, 400, 1_000, 1_000)})
    elif what < 0.6:
        sim.position(rng.randrange(16), rng.randrange(-50, 50))
    if sim.model.state != 1 and rng.random() < 0.5:
        sim.write("disarm", 1)
        begin_again(sim, rng)


@pytest.mark.parametrize("seed", [81, 82, 83])
def test_equity(seed):
    """G12, G19: too old, warned, lost."""
    sim = ready(seed)
    replay(sim, seed, 500, each=account, max_idle_ns=8_000)
    finish(sim)
    assert sim.model.counters["drop_g12"]
    states = {e.data for e in sim.model.events if e.code == "STATE_CHANGED"}
    assert REDUCING in states
    assert HALTED | 1 << 8 + HALT_CAUSES["loss"] in states


def worth(sim, rng, new):
    """What everything is worth, and may be, moves about, right where it matters."""
    if new:
        sim.peer()
    what, i = rng.random(), rng.randrange(16)
    for i in rng.sample(range(16), 4):
        st = sim.model.states[i]
        sim.position(i, rng.choice((0, rng.randrange(-30, 30))), st.sent_bid - rng.choice((0, 0, rng.randrange(12))),
                     st.sent_ask - rng.choice((0, 0, rng.randrange(12))))
    if what < 0.1:
        st = sim.model.states[i]
        sim.position(i, 0, st.sent_bid + rng.randrange(2), st.sent_ask)     # more is settled than was sent
    elif what < 0.4:
        security = CHOSEN[i][0]
        sim.reference(i, MIDS[security], MIDS[security], lot_value=rng.choice((256, 256, 300, 2_000, 0)))
    elif what < 0.6:
        new_limits(sim, rng, {"gross_most": (0, 400, 1_000, 0xFFFF_FFFF), "open_most": (0, 200, 400, 0xFFFF_FFFF),
                              "leverage_most": (0, 4, 16, 255, 255)})
    else:
        sim.write("equity", rng.choice((3_000, 2_000, 1_000, 17, -50)))


@pytest.mark.parametrize("seed", [101, 102, 103, 104])
def test_what_everything_is_worth(seed):
    """G12, G13 in money: positions, open quotes, lots' values, equity and limits at their edges."""
    sim = ready(seed)
    for i, (security, _) in enumerate(CHOSEN):
        sim.reference(i, MIDS[security], MIDS[security], lot_value=256)
    for name, value in (("gross_most", 1_000), ("open_most", 400), ("loss_most", 10_000), ("drawdown_most", 10_000)):
        sim.write(name, value)
    sim.write("commit", 1)
    sim.run(400_000)
    replay(sim, seed, 700, each=worth, max_idle_ns=8_000)
    finish(sim)
    sums = sim.model.totals
    for name, total in zip(("open_bids", "open_asks", "gross"), sums, strict=True):
        assert sim.read(name) == (total >> 8 if total < 1 << 40 else 0xFFFF_FFFF), name
    print({name: sim.model.counters[name] for name in ("drop_g12", "drop_g13", "quotes_sent", "decisions_deferred")})
    for gate in ("g12", "g13"):
        assert sim.model.counters[f"drop_{gate}"] > 20, gate
    assert sim.model.counters["quotes_sent"] > 20


_STATUS, _REASON = (STARBASE.enums[name] for name in ("QuoteStatus", "OrderRejectReason"))
_BUY, _SELL = (STARBASE.enums["Side"][name] for name in ("BUY", "SELL"))


def quantity(name, mantissa, exponent=-3):
    return {f"{name}.mantissa": mantissa, f"{name}.exponent": exponent}


def responses(sim, rng, errors=0.):
    """What an exchange may say of the quotes that have left, and things that none may say."""
    quotes = [d for d in sim.model.decisions if d.quoteId and d.instrument < sim.instruments][-6:]
    if not quotes:
        return [("Heartbeat", {}, {})]
    out = []
    for _ in range(rng.randrange(1, 4)):
        quote, what = rng.choice(quotes), rng.random()
        its, lots = {"instrumentId": 1000 + quote.instrument}, rng.randrange(1, 6)
        size, exponent = rng.choice(((1000 * lots, -3), (lots, 0), (10_000 * lots, -4)))
        fill = its | {"fillPrice": 1} | quantity("fillQty", size, exponent)
        if rng.random() < errors:
            fault = rng.random()
            if fault < 0.3:
                its["instrumentId"] += rng.choice((1, 1 << 40))
                fill |= its
            elif fault < 0.6:
                fill |= quantity("fillQty", *rng.choice(((1001, -3), (0, -3), (-1000, -3), (1, -4), (1 << 60, -3),
                                                         (1, 40), (1000 << 24, -3))))
            else:
                quote = dataclasses.replace(quote, quoteId=quote.quoteId + (50 << 8))
        refused = {f"{side}RejectReason": rng.choice((None, None, *_REASON.values())) for side in ("bid", "ask")}
        refused = {name: -128 if reason is None else reason for name, reason in refused.items()}
        if what < 0.35:
            groups = {"quotes": [its | quantity("bidQty", 5000) | quantity("askQty", 5000) | refused
                                 | {f"{side}{what}": value for side in ("bid", "ask") for what, value in (
                                     ("Status", rng.choice((_STATUS["UPDATED"], *_STATUS.values()))),
                                     ("OrderId", rng.randrange(1, 4)))}]}
            if rng.random() < 0.3:
                groups[rng.choice(("bidFills", "askFills"))] = [fill] * rng.randrange(1, 3)
            out.append(("MassQuoteResponse", {"quoteId": quote.quoteId}, groups))
        elif what < 0.65:
            order = {"clientOrderId": quote.quoteId, "orderId": 7} | fill | {"price": 1}
            order.pop("fillPrice")
            out.append(("OrderFilled", {}, {"fills": [order | {"side": rng.choice((_BUY, _SELL)), "flags": 0}
                                                      for _ in range(rng.randrange(1, 4))]}))
        elif what < 0.72:
            out.append(("MassQuoteReject", {"quoteId": quote.quoteId, "reason": 0}, {}))
        elif what < 0.85:
            out.append(("OrdersCanceled", {}, {"orders": [
                {"clientOrderId": quote.quoteId, "orderId": rng.randrange(1, 4), **its}
                for _ in range(rng.randrange(1, 3))]}))
        elif what < 0.9:    # a mass cancel of the fabric's that may have left behind that quote
            out.append(("MassCancelResponse", {"correlationId": (quote.quoteId | 0xFF)
                                               + (rng.choice((0, 0, -2, 3)) << 8)}, {}))
        else:
            out.append(rng.choice((("Heartbeat", {}, {}), ("MassCancelResponse", {"correlationId": 1}, {}),
                                   ("MassQuoteMmpUnfrozen", {"mmpGroupId": 1}, {}), ("OrderFilled", {}, {"fills": []}),
                                   ("GapFill", {"newSequenceNumber": sim.peer_number + len(out) + 1}, {}))))
    return out


def answered(sim, rng, new, errors=0.):
    """The exchange answers; limits of what it may say move about."""
    if new:
        sim.peer()
    if rng.random() < 0.7:
        sim.answer(*responses(sim, rng, errors), cut=rng.choice((None,) * 6 + (20, 60, 90)))
    what = rng.random()
    if what < 0.1:
        sim.write("release", rng.randrange(16))
    elif what < 0.25:
        new_limits(sim, rng, {
            "fills_cycles": (0, 1_000, 40_000, 1_000_000), "fills_most": (0, 2, 5, 255),
            "fills_lots": (0, 10, 20, 1_000), "fills_delta": (0, 5, 12, 1_000),
            "freeze_cycles": (0, 1, 3_000, 30_000, 0xFFFF_FFFF), "repeats_most": (0, 1, 2, 200),
            "refusals_most": (0, 3, 10, 200), "refusals_cycles": (0, 5_000, 1_000_000)})


@pytest.mark.parametrize("seed", [91, 92, 93])
def test_answers(seed):
    """G17, G18, G20: fills and refusals in messages cut anywhere, freezes that end, releases."""
    sim = ready(seed)
    replay(sim, seed, 600, each=answered, max_idle_ns=8_000)
    finish(sim)
    assert sim.model.state == ACTIVE
    assert sum(bool(sim.model.counters[f"drop_{gate}"]) for gate in ("g17", "g18", "g20")) >= 2
    assert sim.model.counters["quotes_sent"]


@pytest.mark.parametrize("seed", [95, 96, 97, 98])
def test_answers_that_cannot_be(seed):
    """They halt, every time, and a new session begins anew."""
    sim, halts = ready(seed), 0

    def each(sim, rng, new):
        nonlocal halts
        if sim.model.state == HALTED:
            halts += 1
            assert sim.model.halt_cause == 1 << HALT_CAUSES["answers"]
            if rng.random() < 0.3:      # the exchange has said what nobody understands
                sim.answer(rng.choice((bytes(8), rng.randbytes(40))))
                sim.run(1_000)
                sim.peer_number += 7
                sim.hand_over(init_rcv_nxt=sim.peer_next, init_snd_nxt=sim.peer_seen)
                sim.run(60_000)
            begin_again(sim, rng)
        answered(sim, rng, new, 0.2)

    replay(sim, seed, 500, each=each, max_idle_ns=8_000)
    finish(sim)
    assert halts > 3


@pytest.mark.parametrize("seed", [61, 62, 63])
def test_limits_over_time(seed):
    """G6, G6c, G7, G13, G15: references that come, move and grow old, holds, loads."""
    sim = ready(seed)
    replay(sim, seed, 500, each=limit, max_idle_ns=8_000)
    finish(sim)
    for gate in ("g6", "g6c", "g7", "g13", "g15"):
        assert sim.model.counters[f"drop_{gate}"], gate
    assert sim.model.counters["quotes_sent"]


def test_a_quote_of_the_host_halts():
    """G21: the host says in the session what only the gate may say."""
    sim = ready(71)
    sim.host_packet(SESSION_TX, cancel_message(1, {"mmp_group": 77}, 0, 0, 0))      # which it may
    sim.run(130_000)
    assert sim.model.state == ACTIVE
    header = STARBASE_HEADER.pack(protocolId=STARBASE_PROTOCOL_ID, messageTypeId=STARBASE["MassQuoteRequest"].id)
    sim.host_packet(SESSION_TX, header)
    sim.run(130_000)
    assert sim.model.halt_cause == 1 << HALT_CAUSES["emission"]
    assert sim.read("halt_cause") == sim.model.halt_cause
    finish(sim)


@pytest.mark.parametrize("seed", [1, 2])
def test_quiet_market(seed):
    """A market as it is, both lines, a peer that acknowledges: quotes leave two cycles after their trigger byte."""
    sim = ready(seed)
    replay(sim, seed, 400)
    finish(sim)
    assert sim.model.latency.count > 20
    assert (sim.model.latency.minimum, sim.model.latency.maximum) == (2, 2)


def test_instruments_all_over_a_larger_card():
    """Sets of one bit an instrument are asked in rows of 16: the first, the last and some between are of each row."""
    places = [0, 7, 15, 16, 17, 24, 31, 32, 33, 36, 38, 39]
    sim = ready(5, places)
    replay(sim, 5, 400)
    finish(sim)
    quoted = {d.instrument for d in sim.model.decisions if d.outcome == SENT}
    assert all(quoted & set(range(row, row + 16)) for row in (0, 16, 32)), quoted


def disturb(sim, rng, new):
    """The peer and the host do all they can, at any time."""
    if new or rng.random() < 0.2:
        what = rng.random()
        if what < 0.5:
            sim.peer()
        elif what < 0.7:
            sim.answer(*(("Heartbeat", {}, {}) for _ in range(rng.randrange(1, 4))), cut=rng.choice((None, 50)))
        elif what < 0.75:
            sim.peer(rng.randbytes(8), seq=sim.peer_next + rng.choice((-8, 5)) & 0xFFFF_FFFF)
        elif what < 0.8:
            sim.peer(ack=sim.peer_seen + 1000 & 0xFFFF_FFFF)
        elif what < 0.85:
            sim.order(wire_bytes(net.ETHERNET.pack(dst=net.MAC_BROADCAST, src=1, ethertype=net.ETHERTYPE_ARP)))
        elif what < 0.9:
            frame = bytearray(wire_bytes(tcp_frame(PEER, sim.peer_next, sim.peer_seen, 1000, net.TCP_ACK, b"spoilt")))
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            sim.order(bytes(frame), rx_er=rng.random() < 0.3)
        else:
            sim.order(wire_bytes(tcp_frame(PEER, sim.peer_next, sim.peer_seen, 65535,
                                           net.TCP_SYN)))
    what = rng.random()
    if what < 0.1:
        sim.host_packet(FRAME_TX, rng.randbytes(rng.randrange(14, 200)))
    elif what < 0.2:
        sim.host_packet(SESSION_TX, rng.randbytes(rng.randrange(32, 120)))
    elif what < 0.35:
        i = rng.randrange(16)
        st = sim.model.states[i]    # no more is settled than was sent: that would block the whole card (G13)
        sim.position(i, rng.randrange(-50, 50), st.sent_bid - rng.randrange(20), st.sent_ask - rng.randrange(20),
                     rng.randrange(200), rng.randrange(4))
    elif what < 0.4 and sim.board.cycle >= sim.closed_until:
        sim.params(rng.randrange(16), quote_lots=rng.randrange(8), half_spread_sub=rng.randrange(3) * 300)
        sim.write("commit", 1)
    elif what < 0.45:
        new_limits(sim, rng, {"session_interval": (0, 3_000, 20_000)})
    elif what < 0.5:
        new_limits(sim, rng, {"symbol_burst": (0, 3, 40)})


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_disturbed_session(seed):
    """Positions, limits, tokens, host packets and a peer that errs, all at random moments."""
    sim = ready(seed)
    replay(sim, seed, 500, each=disturb, max_idle_ns=8_000)
    finish(sim)


def ask_and_disturb(sim, rng, new):
    """... and the host asks a lot."""
    disturb(sim, rng, new)
    sim.say(link.encode_read(0, BY_NAME["scratch"].address) * rng.randrange(30))


@pytest.mark.parametrize("seed", [14, 15])
def test_disturbed_session_with_the_host_on_the_order_port(seed):
    """The same, and host and card talk in frames of the order port: they wait for the quotes, and quotes for them."""
    sim = ready(seed)
    sim.frames = 0
    replay(sim, seed, 500, each=ask_and_disturb, max_idle_ns=8_000)
    assert sim.link_frames > 100
    assert sim.model.counters["decisions_deferred"] > 0
    sim.frames = None       # over the serial port, so that reading a counter of frames does not change it
    finish(sim)
    assert sim.read("link_rx_errors") == 0


def trouble(sim, rng, new):
    """The trading state is pushed about."""
    if new:
        sim.peer()
    what = rng.random()
    if what < 0.04:
        sim.write("disarm", 1)
    elif what < 0.08:
        sim.write("reduce", 1)
    elif what < 0.10:
        sim.write("kill", 1)
    elif what < 0.12:
        sim.kill(True)
    elif what < 0.13:
        sim.lose_feed(True)
    elif what < 0.15:
        new_limits(sim, rng, {"deadman_cycles": (0, 5_000, 0xFFFF_FFFF)})
    elif what < 0.2:
        sim.beats = getattr(sim, "beats", 1) + 1
        sim.write("heartbeat", sim.beats)
    elif what < 0.21:
        sim.peer(flags=net.TCP_ACK | rng.choice((net.TCP_FIN, net.TCP_RST)))
    if sim.kill_level and rng.random() < 0.5:
        sim.kill(False)
    if sim.feed_is_lost and rng.random() < 0.5:
        sim.lose_feed(False)
    if not sim.session_is_up() and rng.random() < 0.3:
        sim.hand_over(init_rcv_nxt=sim.peer_next, init_snd_nxt=sim.peer_seen)
    if sim.model.state != 1 and rng.random() < 0.5:
        begin_again(sim, rng)


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_troubled_state(seed):
    """Arm, disarm, reduce, kill, dead-man, lost feeds, lost and new sessions: what is live is cancelled, nothing else
    leaves."""
    sim = ready(seed)
    replay(sim, seed, 500, each=trouble, max_idle_ns=8_000)
    finish(sim)
    assert sim.model.counters["mass_cancels"]


def test_troubled_feed():
    """Gaps, losses, copies, resets, split and mixed events, every action, foreign and bad frames, wrong FCS."""
    sim = ready(31)
    replay(sim, 31, 600, max_idle_ns=4_000, gap=0.02, line_loss=0.1, duplicate=0.05, mixed=0.1, split=0.2,
           delete_thru=0.02, delete_from=0.02, overlay=0.05, book_reset=0.01, channel_reset=0.01, bad=0.1)
    finish(sim)


def test_damaged_frames():
    """Frames cut anywhere, with wrong FCS, with rx_er: whatever they say is voided."""
    sim = ready(41)
    rng = random.Random(41)
    frames = schedule(generate(41, 300, mixed=0.1, split=0.2), start_cycle=sim.board.cycle + 500, max_idle_ns=4_000)
    for frame in frames:
        data, fault = frame.data, rng.random()
        if fault < 0.1:
            data = data[:rng.randrange(1, len(data))]
        elif fault < 0.2:
            data = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            data = bytes(data)
        elif fault < 0.3:   # changed by someone who knew how to make an FCS
            data = bytearray(data[:-4])
            for _ in range(rng.randrange(1, 3)):
                data[rng.randrange(42, len(data))] = rng.choice((0, 1, 2, 3, 4, 5, 8, 27, 32, 74, 128, 255))
            data = wire_bytes(data)
        sim.feed(frame._replace(data=data))
    while sim.board.cycle < frames[-1].end + 1_000:
        if sim.run(rng.randrange(1, 4_000)):
            sim.peer()
    sim.run(3_000)
    finish(sim)
    assert sim.model.counters["poisoned_packets"]
    assert sim.model.counters["feed_bad_fcs"]


def test_verify_then_quote():
    """Decisions wait for the FCS."""
    sim = CoSim(seed=51)
    sim.write("feed_mode", 1)
    sim.lines(LINE_A, LINE_B)
    sim.configure(CHOSEN)
    sim.hand_over()
    sim.arm()
    while sim.board.link_waiting:
        sim.run(5_000)
    replay(sim, 51, 200, max_idle_ns=2_000)
    finish(sim)

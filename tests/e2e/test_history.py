"""What has ruined others, played again, and the gate that has to stop it.

=============================  ===========================================================  ==========================
event                          what it was                                                  what stops it here
=============================  ===========================================================  ==========================
Knight, 1 August 2012          an old code path on one of eight servers sent the same       G15 holds the instrument,
                               child orders over and over: 212 parents became four million  G21 halts what the gate
                               executions and a loss of 460 million dollars in 45 minutes   has not approved, G17 and
                                                                                            G18 end what trades and
                                                                                            trades, G20 what is refused
a bad feed                     a price that is 5 % off, a feed that falls silent, a         G6, G6c; G4; G6; G6b
                               reference that nobody renews, or that drifts
an untracked order             a fill of something that the books do not have               the daemon kills, verifies,
                                                                                            and alarms if it cannot
a lagging position             the order path runs ahead of what is known of fills          G11, which counts whatever
                                                                                            has left as exposure
a fat finger                   a quantity a thousand times too large                        the host; behind it G5, G9,
                                                                                            G10; behind those G12, G13
too much of everything         each instrument within its limits, all together beyond       G12, G13
                               what the account carries
FTX's token, 8 November 2022   bars of a quarter of an hour of -12 %, -25 % and -48 %       G6, G6c
=============================  ===========================================================  ==========================

Each script runs the whole of it in lock step: card, golden model, exchange and daemon; what is asserted is what the
exchange saw, what the card recorded and counted, and what `t2q why` says.
"""

from decimal import Decimal

import pytest

from hdl.control import registers
from host import integrity
from host.config import ConfigError
from sim.board.board import CYCLE_NS, VirtualBoard
from tests.e2e.stage import Stage, variant

#: Instruments: the one that the script is about, and one beside it.
IT, OTHER = 0, 1
GOOD, CROSSED = (-1, 1), (1, -1)
MS = 1_000_000 // CYCLE_NS
BUY, SELL = 1, -1


@pytest.fixture
def play(tmp_path):
    """A function that begins a script: the card is armed and the configuration is first_light with ``changes``."""
    stages = []

    def begin(**changes):
        stage = Stage(variant(tmp_path, **changes), VirtualBoard())
        stages.append(stage)
        stage.start()
        return stage
    yield begin
    for stage in stages:
        stage.close()
        stage.board.close()


def name(stage, n=IT):
    return stage.config.instruments[n].name


def refer(stage, price=None):
    """Somebody has looked at the price elsewhere; returns when the card knows it."""
    i = stage.config.instruments[IT]
    asked_ns = stage.daemon.now_ns
    stage.command(stage.daemon.reference(i.name, price or i.reference_price))
    while not (told := stage.daemon.references.told(IT, stage.daemon.now_ns)) \
            or stage.daemon.now_ns - told[3] * 1_000_000 < asked_ns:       # the card is told now and then
        stage.step()
    stage.run(4)


# ---------------------------------------------------------------------- Knight

def test_the_same_quote_again_and_again(play):
    """The market flickers, and each time it comes back the very same quote goes out: after six the instrument is held,
    and nothing of it leaves until a person lets go of it. Its neighbour is quoted all the while."""
    stage = play()
    for _ in range(12):
        stage.feed_alone(IT, *GOOD)
        stage.feed_alone(IT, *CROSSED)
    said = [q for q in stage.quotes(IT) if any(q)]
    assert len(said) == stage.config.risk.duplicate_most == 6
    assert len(set(said)) == 1
    assert stage.reasons(IT) == {"G4", "G7", "G15"}
    held = stage.board.cycle
    for move in range(10):
        stage.feed_alone(IT, -1 + move, 1 + move)        # nor is anything else said of it
        stage.feed_alone(OTHER, -1 + move, 1 + move)
    assert stage.quotes(IT, held) == []
    assert len(stage.quotes(OTHER, held)) == 10
    assert [o for o in stage.open_orders if o.instrument_id == stage.config.instruments[IT].instrument_id] == []
    assert stage.reasons(IT, held) == {"G15"}
    assert "G15 duplicate: 6 equal quotes have left within duplicate_ms 1 ms (125000 cycles): held until t2q release" \
        in stage.why(IT)
    assert stage.counters()["drop_g15"] > 10

    stage.command(stage.daemon.release(name(stage)))
    released = stage.board.cycle
    stage.run(4)
    assert len(stage.quotes(IT, released)) == 1         # of the market as it stands
    stage.feed_alone(IT, 4, 6)
    assert len(stage.quotes(IT, released)) == 2
    assert stage.golden.state == registers.ACTIVE
    stage.finish()


@pytest.mark.parametrize("repeats", [True, False], ids=["an old one", "a new one"])
def test_a_host_that_quotes_by_itself(play, repeats):
    """Code of the host that should not be there sends a mass quote of its own over the session. The card cannot know
    what it is for; it counts at the pins what left, and within a millisecond nothing leaves any more. An answer about a
    quote of which there is no record keeps the daemon from taking the venue's word that nothing is open: it alarms."""
    stage = play(verify_ms=1)
    stage.feed_alone(IT, *GOOD)
    [approved] = stage.orders()
    entry = dict(approved.values["quotes"][0])
    values = {k: v for k, v in approved.values.items() if k != "quotes"}
    stage.daemon.session.send("MassQuoteRequest", values | {"quoteId": values["quoteId"] + 1024 * (not repeats)},
                              stage.daemon.now_ns, {"quotes": [entry]})
    stage.run(4)
    assert [o.name for o in stage.orders()] == ["MassQuoteRequest"] * 2
    rogue = stage.orders()[1]
    stage.run_ms(1.2)
    cancel = stage.orders()[2]
    assert cancel.name == "MassQuoteCancelRequest"
    assert cancel.cycle - rogue.cycle <= MS + 200
    for move in range(60):
        stage.feed_alone(IT, -1 + move, 1 + move)
    assert [o.name for o in stage.orders()[3:]] == ["MassQuoteCancelRequest"] * (not repeats)   # the daemon's
    assert stage.open_orders == []
    causes = ["emission"] if repeats else ["answers"]   # which comes at once, about what the card has not sent
    assert stage.golden.halt_cause == sum(1 << registers.HALT_CAUSES[cause] for cause in {"emission", *causes})
    status = stage.daemon.status()
    assert (status["state"], status["halt_cause"], status["verified"]) == ("HALTED", causes, repeats)
    assert ("look at the venue" in stage.daemon.alarm) == (not repeats)
    assert {"G0", "G22"} <= stage.reasons(IT, cancel.cycle + 1000)
    assert f"halted by {', '.join(causes)}; find out why" in stage.why(IT)
    stage.finish()


# ---------------------------------------------------------------------- a bad feed

@pytest.mark.parametrize(("bps", "gates"), [(500, {"G6", "G6c"}), (-500, {"G6", "G6c"}), (250, {"G6c"}),
                                            (-250, {"G6c"})])
def test_fat_price(play, bps, gates):
    """The feed is off by 5 %, or by 2.5, and everybody else is where they were. At 3 % of the reference the collar
    ends, at 2 % of the venue's price the quotes are pulled."""
    stage = play(references='"external"', reference_ms=10, collar_bps=300, pull_bps=200)
    refer(stage)
    stage.feed_alone(IT, *GOOD)
    assert len(stage.open_orders) == 2
    jump = 15_148 * bps // 10_000
    stage.feed_alone(IT, jump - 1, jump + 1)
    assert stage.open_orders == []
    assert stage.reasons(IT) == gates
    fat = stage.board.cycle
    for n in range(10):
        stage.feed_alone(IT, jump + n - 1, jump + n + 1)
    assert stage.orders(fat) == []
    told = stage.why(IT)
    for gate in gates:
        assert f"{gate} {'collar' if gate == 'G6' else 'basis'}: " in told
    assert ("pull_bps" in told, "collar_bps" in told) == (True, "G6" in gates)
    reference, width = 151_480, 151_480 * 3 // 100
    assert all(abs(px - reference) <= width for q in stage.quotes(IT) for px in q if px is not None)
    stage.feed_alone(IT, *GOOD)
    assert len(stage.open_orders) == 2
    stage.finish()


def test_the_feed_falls_silent(play):
    """Not a packet more: prices grow old, and quotes made of them are taken away when they have."""
    stage = play(stale_ms=0.5)
    stage.feed_alone(IT, *GOOD)
    stage.feed_alone(OTHER, *GOOD)
    assert len(stage.open_orders) == 4
    silent = stage.ns(stage.board.cycle)
    stage.run_ms(0.7)
    assert stage.open_orders == []
    assert 0 < stage.gateway.engine.ledger.last_open_ns() - silent < 0.55e6
    assert [q for n in (IT, OTHER) for q in stage.quotes(n)[1:]] == [(None, None)] * 2
    assert stage.reasons(IT) == stage.reasons(OTHER) == {"G4"}
    told = stage.why(IT)
    assert "PULLED in state ACTIVE" in told
    assert "by what the host knew nothing of this fails; whether the book was in mid-event or older than" in told
    stage.feed_alone(IT, *GOOD)         # the feed is there again, and what it said of the other still stands
    assert len(stage.open_orders) == 4
    stage.finish()


def test_nobody_renews_the_reference(play):
    """The feed goes on; what it is to be held against does not."""
    stage = play(references='"external"', reference_ms=1)
    refer(stage)
    stage.feed_alone(IT, *GOOD)
    assert len(stage.open_orders) == 2
    for n in range(40):
        stage.feed_alone(IT, n - 1, n + 1)
    assert stage.open_orders == []
    assert stage.reasons(IT) == {"G6", "G6c", "G12", "G13"}    # nor does anybody know what a lot is worth
    assert "reference_ms 1 (it may end at half of that)" in stage.why(IT)
    old = stage.board.cycle
    assert stage.orders(old) == []
    refer(stage)
    assert len(stage.open_orders) == 2
    stage.finish()


def test_the_reference_drifts(play):
    """It goes up by 1.2 % in one step, where no more than 1 % in 9 ms is thought possible; no price is outside of its
    collar yet. Nothing is quoted but what reduces, until the window has forgotten where the reference was."""
    stage = play(references='"external"', reference_ms=30, drift_ms=9, drift_bps=100, skew_ticks_per_lot=0)
    i = stage.config.instruments[IT]
    refer(stage)
    stage.feed_alone(IT, *GOOD)
    assert sorted(ours(stage)) == [SELL, BUY]
    refer(stage, i.reference_price * Decimal("1.0099"))
    assert sorted(ours(stage)) == [SELL, BUY]
    refer(stage, i.reference_price * Decimal("1.012"))
    assert ours(stage) == []
    drifted = stage.board.cycle
    for n in range(5):
        stage.feed_alone(IT, n, n + 2)
    assert ours(stage) == []
    assert stage.orders(drifted) == []
    assert stage.reasons(IT, drifted) == {"G6b"}
    told = stage.why(IT)
    assert "G6b drift: " in told
    assert "was further than drift_bps 99.945068359375 from another one within drift_ms 9 ms (1125000 cycles)" in told
    assert stage.counters()["drop_g6b"] >= 5
    assert stage.golden.state == registers.ACTIVE

    stage.run_ms(4.6)
    assert ours(stage) == []        # nobody has looked at the price again
    refer(stage, i.reference_price * Decimal("1.012"))
    assert sorted(ours(stage)) == [SELL, BUY]
    for n in range(3):
        sell(stage)
        stage.feed_alone(IT, -n, 2 - n)
    assert sorted(ours(stage)) == [SELL, BUY]
    refer(stage, i.reference_price)
    stage.run(8)
    assert ours(stage) == [SELL]    # what was bought may be sold
    stage.feed_alone(IT, 4, 6)
    assert ours(stage) == [SELL]
    assert "bids may take a short position towards zero" in stage.why(IT)
    stage.finish()


# ---------------------------------------------------------------------- an untracked order

def report_fill(stage, instrument_id):
    """The exchange reports a fill to us that belongs to nothing that we have sent."""
    def happen(now_ns):
        engine = stage.gateway.engine
        order = engine.open_orders()[0]
        spec = engine.books[order.instrument_id].spec
        engine._emit(order.client, "OrderFilled", {"timestamp": now_ns, "execId": engine._next_exec()}, {"fills": [{
            "clientOrderId": 1, "orderId": 999_999, "instrumentId": instrument_id, "matchId": 4_000_000,
            "price": order.price_e9, "fillQty": spec.quantity(3), "totalFilled": spec.quantity(3), "side": BUY,
            "flags": 0}]})
    stage.at_exchange(happen)


@pytest.mark.parametrize("answers", [True, False], ids=["the venue answers", "the venue is silent"])
@pytest.mark.parametrize("what", ["instrument", "order"])
def test_untracked_order(play, monkeypatch, what, answers):
    """A fill of an instrument that is not ours to trade, or of an order that the card has not sent: positions are not
    what they seem. The card halts by itself and the daemon kills; whether that has worked it asks the venue, and if the
    venue does not say, it calls for a person. What can be counted as a position is."""
    stage = play(verify_ms=1)
    stage.market(IT, *GOOD)
    stage.market(OTHER, *GOOD)
    assert len(stage.open_orders) == 4
    known = stage.config.instruments[IT].instrument_id
    report_fill(stage, known if what == "order" else 555)
    if not answers:     # that was the last thing it said
        said, last = stage.peer.frames, []

        def frames(until_ns):
            out = [] if last else said(until_ns)
            last.extend(one for one in out if (4_000_000).to_bytes(8, "little") in one[1])
            return out
        monkeypatch.setattr(stage.peer, "frames", frames)
    while stage.daemon.phase != "failed":
        stage.step()
    stage.run_ms(3)
    status = stage.daemon.status()
    assert (status["phase"], status["state"], status["halt_cause"]) == ("failed", "HALTED", ["answers"])
    assert stage.open_orders == []
    assert stage.daemon.error == {
        "instrument": "the venue reports instrumentId 555, which is not quoted; quoted are "
                      + ", ".join(str(i.instrument_id) for i in stage.config.instruments),
        "order": f"the venue reports fill 4000000 of {name(stage)} under the quote id 1, which the card has not sent "
                 f"for it"}[what]
    assert stage.daemon.positions.lots(IT)[0] == (3 if what == "order" else 0)
    halted = stage.board.cycle
    for n in range(5):
        stage.market(IT, n - 1, n + 1)
    assert [o for o in stage.orders(halted) if o.name == "MassQuoteRequest"] == []
    assert status["verified"] == answers
    assert ("look at the venue" in stage.daemon.alarm) == (not answers)
    assert stage.lock.finish() == []


# ---------------------------------------------------------------------- a lagging position

def test_lagging_position(play, monkeypatch):
    """Bids are filled as fast as they are sent, and the host, which should say so to the card, does not. The card reads
    of fills by itself, and bids stop before more could have been bought than may be held."""
    stage = play(max_long=2)
    cap = int(stage.config.instruments[IT].max_long / stage.config.instruments[IT].lot)
    who = stage.config.instruments[IT].instrument_id
    monkeypatch.setattr(stage.daemon, "_tell_positions", lambda everything=False: None)
    for n in range(12):
        stage.feed_alone(IT, -1 - n, 1 - n)
        stage.at_exchange(lambda now_ns: [stage.gateway.engine.trade(now_ns, who, o.price_e9, o.lots, SELL)
                                          for o in stage.open_orders if o.side == BUY])
        stage.run(4)
    assert stage.peak[who] == (0, cap)
    bids = [bid for bid, _ in stage.quotes(IT) if bid is not None]
    asks = [ask for _, ask in stage.quotes(IT) if ask is not None]
    assert len(bids) >= cap // 5
    assert len(asks) >= 12
    assert stage.lock.golden.states[IT].position == cap
    assert [o.side for o in stage.open_orders] == [SELL]
    assert stage.reasons(IT) == {"G11"}
    assert "G11 position: bid: " in stage.why(IT)
    assert stage.counters()["drop_g11"] >= 8

    monkeypatch.undo()      # it says so at last: what was bought is a position now, and still all that may be held
    stage.run(4)
    settled = stage.board.cycle
    stage.feed_alone(IT, -21, -19)
    assert [bid for bid, _ in stage.quotes(IT, settled)] == [None]
    assert f"long {cap} + open bids 0 + 5 lots = {cap + 5} > max_long {cap} lots" in stage.why(IT)
    stage.finish()


# ---------------------------------------------------------------------- traded and traded again

def sell(stage, lots=None):
    """Somebody at the exchange sells to every bid of ours on the instrument."""
    who = stage.config.instruments[IT].instrument_id
    stage.at_exchange(lambda now_ns: [stage.gateway.engine.trade(now_ns, who, o.price_e9, lots or o.lots, SELL)
                                      for o in stage.open_orders if o.side == BUY and o.instrument_id == who])
    stage.run(4)


def ours(stage, n=IT):
    who = stage.config.instruments[n].instrument_id
    return [o.side for o in stage.open_orders if o.instrument_id == who]


def test_burst_of_fills(play):
    """Bids trade as fast as they are quoted. The second fill within a second is more than may be: both sides are gone
    in the time that the answer takes, the neighbour is quoted on, and after the freeze so is the instrument."""
    stage = play(fills_lots=8, freeze_ms=3)
    stage.feed_alone(OTHER, *GOOD)
    stage.feed_alone(IT, *GOOD)
    sell(stage)
    stage.feed_alone(IT, -2, 0)
    assert sorted(ours(stage)) == [SELL, BUY]
    began = stage.board.cycle
    sell(stage)
    assert ours(stage) == []
    assert stage.quotes(IT, began) == [(None, None)]
    held = stage.board.cycle
    for move in range(4):
        stage.feed_alone(IT, -3 - move, -1 - move)
        stage.feed_alone(OTHER, -3 - move, -1 - move)
    assert stage.quotes(IT, held) == []
    assert len(stage.quotes(OTHER, held)) == 4
    assert stage.reasons(IT, held) == {"G17"}
    assert "G17 fill burst: more than 8 lots traded" in stage.why(IT)
    assert "held for freeze_ms 3 ms (375000 cycles), or until t2q release" in stage.why(IT)
    assert stage.counters()["drop_g17"] >= 4

    stage.run_ms(3)
    assert sorted(ours(stage)) == [SELL, BUY]       # by itself
    assert stage.daemon.positions.lots(IT)[0] == 10
    assert stage.golden.state == registers.ACTIVE
    stage.finish()


def test_traded_and_quoted_again(play):
    """Whoever trades with every bid that is put up again knows something. After two repeats that nobody has looked at,
    the third fill ends the side; offers stay. A person lets go."""
    stage = play(repeats_most=2)
    for n in range(3):
        stage.feed_alone(IT, -1 - n, 1 - n)
        assert sorted(ours(stage)) == [SELL, BUY]
        sell(stage)
    held = stage.board.cycle
    for n in range(3):
        stage.feed_alone(IT, -5 - n, -3 - n)
    assert ours(stage) == [SELL]
    assert {bid for bid, _ in stage.quotes(IT, held)} == {None}
    assert stage.reasons(IT, held) == {"G18"}
    assert "G18 repeats: a side traded and was quoted again 2 times, and traded once more: held until t2q release" \
        in stage.why(IT)
    stage.command(stage.daemon.release(name(stage)))
    stage.run(8)
    assert sorted(ours(stage)) == [SELL, BUY]
    stage.finish()


def test_the_exchange_refuses(play):
    """The account is locked. After two quotes that are refused as a whole nothing more is tried with the instrument,
    however often the market moves."""
    stage = play(refusals_most=3, max_rejects_per_s=1000)
    engine = stage.gateway.engine
    stage.feed_alone(IT, *GOOD)
    [client] = {o.client for o in stage.open_orders}
    locked = stage.board.cycle      # what stood is taken away, and the card tries again at once
    stage.at_exchange(lambda now_ns: engine.lock(client, now_ns))
    stage.run(4)
    for n in range(6):
        stage.feed_alone(IT, -2 - n, -n)
    assert 2 <= len([q for q in stage.quotes(IT, locked) if any(q)]) <= 3      # one may be on its way
    assert stage.daemon.answers["MassQuoteReject"] >= 2
    assert "G20" in stage.reasons(IT, locked)
    assert "G20 refusals: the exchange refused more than 3 sides within refusals_ms 1000 ms" in stage.why(IT)

    engine.unlock(client)
    stage.command(stage.daemon.release(name(stage)))
    stage.run(8)
    stage.feed_alone(IT, *GOOD)
    assert sorted(ours(stage)) == [SELL, BUY]
    stage.finish()


# ---------------------------------------------------------------------- a fat finger

@pytest.mark.parametrize(("changes", "words"), [
    ({"quote_quantity": "500"}, "quote_quantity = 500: must be above 0 and lie in min_quantity..hard_quantity (0.1..5"),
    ({"quote_quantity": "5"}, "max_quantity = 1: would block every quote; at least quote_quantity (5)"),
    ({"quote_quantity": "500", "hard_quantity": "500", "max_quantity": "500", "max_long": "500", "max_short": "500"},
     "max_notional = 200000: would block every quote near reference_price; at least reference_price x quote_quantity = "
     "3787000")])
def test_fat_finger_is_refused(play, changes, words):
    """The host says what would be right, and the card has been told nothing."""
    stage = play()
    stage.feed_alone(IT, *GOOD)
    with pytest.raises(ConfigError) as refused:
        stage.command(stage.daemon.limits_set(changes, name(stage)))
    assert words in str(refused.value)
    assert not stage.daemon.limits.staged
    sent = len(stage.orders())
    stage.run(20)
    assert len(stage.orders()) == sent == 1
    assert len(stage.open_orders) == 2
    stage.finish()


HUGE = (1 << registers.LOT_BITS) - 1


@pytest.mark.parametrize(("words", "gates"), [
    ({}, {"G5", "G9", "G10", "G11", "G12", "G13"}),
    ({"q_hard_lots": HUGE}, {"G9", "G10", "G11", "G12", "G13"}),
    ({"q_hard_lots": HUGE, "max_lots": HUGE}, {"G10", "G11", "G12", "G13"}),
    ({"q_hard_lots": HUGE, "max_lots": HUGE, "max_long_lots": HUGE, "max_short_lots": HUGE}, {"G10", "G12", "G13"}),
    ({"q_hard_lots": HUGE, "max_lots": HUGE, "max_long_lots": HUGE, "max_short_lots": HUGE,
      "px_notional_ticks": registers.TICK_LIMIT - 1}, {"G10", "G12", "G13"}),
    # Every limit of the instrument is gone: those of the whole card are left.
    ({"q_hard_lots": HUGE, "max_lots": HUGE, "max_long_lots": HUGE, "max_short_lots": HUGE,
      "px_notional_ticks": registers.TICK_LIMIT - 1, "max_notional_lo": 0xFFFF_FFFF, "max_notional_hi": 0xFFFF},
     {"G12", "G13"})])
def test_fat_finger_in_the_registers(play, words, gates):
    """The same past the host, straight into the registers: 5,000 lots instead of 5. However many of the other limits
    are gone with it, one is left that says no, and what stood is taken away."""
    stage = play()
    stage.feed_alone(IT, *GOOD)
    stage.feed_alone(OTHER, *GOOD)
    assert len(stage.open_orders) == 4
    rows, limits = [], stage.daemon.limits
    for n, row in enumerate(limits.rows):
        forced = {"quote_lots": 5_000, **words} if n == IT else {}
        rows.append([forced.get(p.name, word) for p, word in zip(registers.PARAMS, row, strict=True)])
        stage.daemon.device.write(registers.param_address(n, registers.PARAMS[0].name), *rows[n])
    integrity.say(stage.daemon.registers, "commit", 1, integrity.crc(limits.risk_words, rows, limits.size))
    forced = stage.board.cycle
    stage.run(60)       # the link takes its time
    for n in range(5):
        stage.feed_alone(IT, n, n + 2)
    assert stage.quotes(IT, forced) == [(None, None)]
    assert {o.instrument_id for o in stage.open_orders} == {stage.config.instruments[OTHER].instrument_id}
    assert stage.reasons(IT, forced) == gates
    counters = stage.counters()
    assert {g for g in ("G5", "G9", "G10", "G11", "G12", "G13") if counters[f"drop_{g.lower()}"]} == gates
    stage.finish()


# ---------------------------------------------------------------------- too much of everything

@pytest.mark.parametrize(("limit", "gate", "told"), [
    ({"max_gross": 120_000}, "G12", "positions and open quotes of all instruments 37500 + 2 x 5 lots = 124300 > "
                                    "max_gross 120000"),
    ({"max_leverage": 0.125, "equity": 960_000}, "G12", "positions and open quotes of all instruments 37500 + 2 x 5 "
                                                        "lots = 124300 > max_leverage 0.125 x equity 960000 = 120000"),
    ({"max_open_notional": 60_000}, "G13", "bid: open bids of all instruments 18750 + 5 lots = 62150 > "
                                           "max_open_notional 60000"),
], ids=["gross", "leverage", "open"])
def test_too_much_of_everything(play, limit, gate, told):
    """Each instrument is far within its own limits, and so is each quote; together they are more than the account
    carries. What came first stays, what comes on top does not leave; once there is room it does."""
    small, big = (2, 3, 7), 5       # 0.5 a side at 14,860, 11,250 and 11,390, and at 86,800
    stage = play(**limit)
    for n in small:
        stage.feed_alone(n, *GOOD)
    assert len(stage.open_orders) == 6
    for move in range(3):
        stage.feed_alone(big, move - 1, move + 1)
    assert stage.quotes(big) == []
    assert stage.reasons(big) == {gate}
    assert told in stage.why(big)
    assert len(stage.open_orders) == 6
    assert stage.counters()[f"drop_{gate.lower()}"] == 3

    for n in small:
        stage.feed_alone(n, *CROSSED)       # taken away, and the exchange says so
    stage.run(8)
    assert stage.open_orders == []
    stage.feed_alone(big, *GOOD)
    [(bid, ask), *_] = stage.quotes(big)
    assert bid < ask
    stage.finish()


# ---------------------------------------------------------------------- FTX

@pytest.mark.parametrize("witness", ["external", "feed"])
@pytest.mark.parametrize("bar", [12, 25, 48])
def test_collapse(play, witness, bar):
    """The price falls by a bar that nobody had in his model, in steps of a percent, at the venue too. The reference,
    from elsewhere or the feed's own but slow, does not follow that fast: below its collar nothing is quoted, and what
    was bought on the way down is no more than may be held."""
    stage = play(references=f'"{witness}"', reference_ms=20)
    if witness == "external":
        refer(stage)
    stage.market(IT, *GOOD)
    assert len(stage.open_orders) == 2
    for percent in range(1, bar + 1):
        fallen = 15_148 * percent // 100
        stage.market(IT, -fallen - 1, -fallen + 1)
    fallen = stage.board.cycle
    for n in range(5):
        stage.market(IT, -15_148 * bar // 100 - n - 1, -15_148 * bar // 100 - n + 1)
    assert stage.orders(fallen) == []
    assert stage.open_orders == []
    assert stage.reasons(IT, fallen) == {"G6", "G6c"} | ({"G5"} if bar > 20 else set())    # min_price is 20 % below
    told = stage.why(IT)
    assert "less collar_bps" in told
    assert "less pull_bps" in told
    said = [px for q in stage.quotes(IT) for px in q if px is not None]
    assert min(said) >= 151_480 * 95 // 100 - 151_480 // 100 * (witness == "feed")
    least, most = stage.peak.get(stage.config.instruments[IT].instrument_id, (0, 0))
    cap = stage.config.instruments[IT].max_long / stage.config.instruments[IT].lot
    assert (least, 0 < most <= cap) == (0, True)
    assert stage.golden.state == registers.ACTIVE
    stage.finish()

"""The daemon with the real core (Verilated), a real pseudo-terminal and the simulated exchange, in lock step."""

import json
from decimal import Decimal

import pytest

from hdl.control import registers as regmap
from host import config, params
from host.daemon import DaemonError
from host.journal import Journal
from host.limits import LimitError
from sim.venue.listing import venue_config

from .bench import Bench
from .conftest import FIRST_LIGHT


@pytest.fixture
def make():
    """A function that makes a :class:`Bench`; all are closed at the end."""
    made = []

    def build(loaded=None, **options):
        made.append(Bench(loaded or config.load(FIRST_LIGHT), **options))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


def register(bench, name):
    pending = bench.daemon.registers.read(name)
    bench.until(lambda: pending.done)
    return pending.value


def test_a_day_in_short(make, tmp_path):
    """Start, arm, quote, trade, disarm, stop: positions agree everywhere and nothing is left open."""
    journal = Journal(tmp_path / "journal.jsonl")
    bench = make(journal=journal).start(arm=False)
    daemon, engine = bench.daemon, bench.engine
    assert daemon.state == regmap.DISARMED
    bench.feed(100)
    bench.run(200_000)
    assert bench.quotes() == []  # disarmed: the market moves and nothing leaves
    bench.perform(daemon.arm())
    assert daemon.state == regmap.ACTIVE
    bench.feed(300, seed=5)  # the sequence starts anew, far behind: all duplicates
    bench.run(100_000)
    quotes = len(bench.quotes())
    assert quotes >= 16
    for n in range(12):
        bench.trade_all(2 + n % 3)
        bench.run(40_000)
    bench.run(100_000)
    ledger = engine.ledger
    assert not ledger.refusals
    assert len(bench.quotes()) > quotes  # what traded was quoted afresh
    assert len(ledger.fills) == len(daemon.positions.fills) > 50
    traded = ledger.positions()
    for n, i in enumerate(bench.config.instruments):
        position, open_bid, open_ask = daemon.positions.lots(n)
        assert position == traded.get(i.instrument_id, 0)
        standing = {1: 0, -1: 0}
        for order in engine.open_orders():
            if order.instrument_id == i.instrument_id:
                standing[order.side] += order.lots
        assert (open_bid, open_ask) == (standing[1], standing[-1])
    assert any(daemon.positions.lots(n)[0] for n in range(16))
    result = bench.perform(daemon.disarm())
    assert result == {"state": "DISARMED", "open_at_venue": 0, "verified": True}
    assert engine.open_orders() == []
    assert all(daemon.positions.lots(n)[1:] == (0, 0) for n in range(16))
    bench.perform(daemon.shutdown())
    bench.run(50_000)
    assert (daemon.phase, daemon.error) == ("stopped", "")
    assert daemon.session.end_reason == "done"
    assert not bench.peer.violations
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line["n"] for line in lines] == list(range(len(lines)))
    kinds = [line["kind"] for line in lines]
    assert sum(k == "fill" for k in kinds) == len(ledger.fills)
    assert sum(k == "quote" for k in kinds) == len(bench.quotes())
    assert kinds[:2] == ["epoch", "session"]
    assert kinds[-1] == "stopped"


def test_the_same_run_gives_the_same_frames(make):
    runs = []
    for _ in range(2):
        bench = make().start()
        bench.feed(60)
        for n in range(4):
            bench.run(30_000)
            bench.trade_all(2 + n)
        bench.run(30_000)
        runs.append([(f.start, f.frame) for f in bench.frames])
        bench.close()
    assert runs[0] == runs[1]
    assert len(runs[0]) > 30


def test_a_shorter_life_is_kept_up_with(make):
    """What the card forgets sooner it is told sooner."""
    bench = make().start()
    daemon = bench.daemon
    bench.perform(daemon.limits_set({"equity_ms": "2", "reference_ms": "2"}))
    bench.perform(daemon.limits_arm())
    bench.run(800_000)      # 6.4 ms
    before = len(bench.quotes())
    bench.feed(100)
    bench.run(200_000)
    assert len(bench.quotes()) > before
    assert daemon.reasons["equity"] == 0


def test_limits_are_staged_and_armed_while_running(make, tree, tmp_path):
    """Staging has no effect; arming changes every instrument in one cycle, and the journal has old and new values."""
    journal = Journal(tmp_path / "journal.jsonl")
    bench = make(journal=journal).start()
    daemon = bench.daemon
    bench.feed(60)
    bench.run(120_000)
    assert {s.lots for r in bench.quotes() for s in r.sides} == {5}
    tree["instrument_defaults"].update(quote_quantity="0.3", max_long=0)
    smaller = config.build(tree)
    bank, quotes = register(bench, "bank"), len(bench.quotes())
    staged = bench.perform(daemon.limits_load(smaller))
    assert {limit: sum(c["limit"] == limit for c in staged["changes"]) for limit in
            ("quote_quantity", "max_long", "max_notional_price")} == {
                "quote_quantity": 16, "max_long": 16, "max_notional_price": 15}  # one has the widest that there is
    bench.run(50_000)
    assert (register(bench, "bank"), len(bench.quotes())) == (bank, quotes)
    assert daemon.config.instruments[0].max_long == 10
    assert bench.perform(daemon.limits_diff()) == staged
    armed = bench.perform(daemon.limits_arm())
    assert armed == {"staged": False, "changes": staged["changes"]}
    assert register(bench, "bank") != bank
    shown = bench.perform(daemon.limits_show())
    assert {i["value"] for i in shown["limits"] if i["limit"] == "quote_quantity"} == {"0.3"}
    assert not shown["staged"]
    assert daemon.config.instruments[0].max_long == 0
    bench.run(50_000)
    last = {}
    for r in bench.quotes():
        for s in r.sides:
            last[s.instrument_id, s.side] = s.lots
    assert {lots for (_, side), lots in last.items() if side == 1} == {0}  # no room for a long position: bids pulled
    assert {lots for (_, side), lots in last.items() if side == -1} == {3}
    assert daemon.decisions["PULLED"] + daemon.decisions["SENT"] == len(bench.quotes())
    # The pulls are explained with the row that is active now.
    drops = bench.perform(daemon.why(16))["drops"]
    pulled = next(d for d in reversed(drops) if d["reasons"])
    (reason,) = [r for r in pulled["reasons"] if r["gate"] == "G11"]
    assert reason["findings"][0]["text"].endswith("> max_long 0 lots")
    assert bench.perform(daemon.limits_set({"max_long": "1"}))["staged"]
    assert bench.perform(daemon.limits_discard())["staged"] is False
    with pytest.raises(LimitError, match="nothing is staged; t2q limits set KEY=VALUE or t2q limits load FILE first"):
        bench.perform(daemon.limits_arm())
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    commands = [line for line in lines if line["kind"] == "command" and line["what"].startswith("limits")]
    assert [c["what"] for c in commands] == ["limits load", "limits arm", "limits set", "limits discard"]
    (change,) = [c for c in commands[1]["changes"] if c["instrument"] == bench.config.instruments[3].name and
                 c["limit"] == "max_long"]
    assert (change["active"], change["staged"], change["words"]) == ("10", "0", {"max_long_lots": [100, 0]})


def test_what_gates_stop_is_explained_by_what_the_card_compared(make):
    """Gate by gate, a limit is made too tight; the host's figures must fail where the card's did."""
    bench = make().start()
    daemon = bench.daemon
    bench.feed(60)
    bench.run(120_000)
    ask_ticks = daemon.status()["instruments"][2]["quote"][2]
    below = params.plain((ask_ticks - 5) * Decimal("0.1"))
    tight = {  # a limit that does not allow what stands, and what the pull that follows says
        1: ({"bid_enabled": "false"}, "G3", "bid: bid_enabled = false: this side must be enabled"),
        3: ({"max_price": below, "reference_price": below}, "G5",
            f"ask: price {{price}} ({{ticks}} ticks) > max_price {below} ({ask_ticks - 5} ticks)"),
        4: ({"max_notional": "4500", "reference_price": "9000"}, "G10",
            "ask: |price| {price} ({ticks} ticks) > price that max_notional allows 9000 (90000 ticks)"),
        5: ({"max_short": "0.5"}, "G11", "ask: short 0 + open asks 5 + 5 lots = 10 > max_short 5 lots")}
    for number, (changes, gate, said) in tight.items():
        name = f"IDX{number:02}_USDC-PERPETUAL"
        bench.perform(daemon.limits_set(changes, name))
        bench.perform(daemon.limits_arm())
        bench.run(30_000)
        pulled = [d for d in bench.perform(daemon.why(1000, name))["drops"] if d["outcome"] == "PULLED"]
        assert all(r["known_to_host"] for d in pulled for r in d["reasons"])
        (first,) = [r for r in pulled[0]["reasons"] if r["gate"] == gate]
        assert said.format(**pulled[0]["candidate"]["ask"]) in [f"{f['side']}: {f['text']}" for f in first["findings"]]
    with pytest.raises(DaemonError, match=r"why 0: must be 1\.\.1000, which are kept"):
        bench.perform(daemon.why(0))
    with pytest.raises(DaemonError, match="instrument 'IDX' is not quoted; there are IDX01_USDC-PERPETUAL, "):
        bench.perform(daemon.why(1, "IDX"))


def test_limits_need_a_card(make):
    bench = make()
    with pytest.raises(DaemonError, match="there are no limits yet: the daemon is starting"):
        bench.perform(bench.daemon.limits_show())


def test_kill_and_the_way_back(make):
    bench = make().start()
    bench.feed(60)
    bench.run(120_000)
    assert bench.engine.open_orders()
    assert bench.perform(bench.daemon.kill()) == {"state": "HALTED", "halt_cause": ["kill_register"],
                                                  "open_at_venue": 0, "verified": True}
    assert bench.engine.open_orders() == []
    with pytest.raises(DaemonError, match="cannot arm: halted by kill_register; find out why, then arm with"):
        bench.perform(bench.daemon.arm())
    quotes = len(bench.quotes())
    bench.run(100_000)
    assert len(bench.quotes()) == quotes
    assert bench.perform(bench.daemon.arm(clear_halt=True)) == {"state": "ACTIVE"}
    bench.run(50_000)
    assert len(bench.quotes()) > quotes
    assert bench.engine.open_orders()


def test_reduce(make):
    bench = make().start()
    bench.feed(60)
    bench.run(120_000)
    order = next(o for o in bench.engine.open_orders() if o.side == 1)
    bench.at_exchange(lambda now_ns: bench.engine.trade(now_ns, order.instrument_id, order.price_e9, 5, -1))
    bench.run(30_000)
    assert bench.perform(bench.daemon.reduce()) == {"state": "REDUCING"}
    bench.run(50_000)
    left = bench.engine.open_orders()
    assert {(o.instrument_id, o.side) for o in left} <= {(order.instrument_id, -1)}
    with pytest.raises(DaemonError, match="cannot reduce: the card is REDUCING, must be ACTIVE"):
        bench.perform(bench.daemon.reduce())


def test_another_map_is_refused_with_both_hashes(make, monkeypatch):
    bench = make()
    card = regmap.MAP_HASH
    monkeypatch.setattr(regmap, "MAP_HASH", 0x0BADF00D)
    bench.until(lambda: bench.daemon.phase != "starting")
    assert bench.daemon.phase == "failed"
    assert f"has hash {card:08x}, this host's has 0badf00d" in bench.daemon.error
    assert len(bench.board.take_register_writes()) == 0


def test_a_wrong_secret_is_told(make, tmp_path, tree):
    (tmp_path / "simulator.secret").write_text("guess")
    loaded = config.build(tree, tmp_path / "x.toml")
    bench = make(loaded, venue=venue_config(config.load(FIRST_LIGHT), "let-me-quote"))
    bench.until(lambda: bench.daemon.phase != "starting")
    assert bench.daemon.phase == "failed"
    assert "clientId 'tick2quote' or its secret is wrong" in bench.daemon.error
    assert "guess" not in bench.daemon.error


def test_nobody_at_the_order_port(make, tree):
    tree["session"]["connect_timeout_ms"] = 5
    bench = make(config.build(tree, FIRST_LIGHT))
    bench.answering = False
    bench.until(lambda: bench.daemon.phase != "starting", cycles=20_000_000)
    assert bench.daemon.phase == "failed"
    assert "no connection to 10.20.0.1:4210: not within 5 ms" in bench.daemon.error
    assert not register(bench, "session_up")


def test_the_exchange_hangs_up(make):
    bench = make().start()
    bench.feed(60)
    bench.run(120_000)
    assert bench.daemon.state == regmap.ACTIVE
    (session,) = bench.gateway.sessions
    bench.at_exchange(lambda now_ns: session._end(now_ns, 0, "", "MAINTENANCE", "maintenance"))
    bench.until(lambda: bench.daemon.phase == "failed")
    bench.run(10_000)
    assert bench.daemon.state == regmap.HALTED
    assert "session_lost" in bench.daemon.status()["halt_cause"]
    assert "maintenance" in bench.daemon.error or "ended the connection" in bench.daemon.error


def test_the_exchange_closes_its_half(make):
    """A FIN alone: the session is still there at the exchange, and with it what it holds. It is reset."""
    bench = make().start()
    bench.feed(60)
    bench.run(120_000)
    assert bench.engine.open_orders()
    [connection] = bench.peer.connections.values()

    def close(now_ns):
        connection.closing = True
    bench.at_exchange(close)
    bench.until(lambda: bench.daemon.phase == "failed" and not bench.daemon.verifying)
    assert bench.daemon.error == "the gateway ended the connection"
    assert bench.daemon.alarm.endswith("look at the venue")
    bench.run(20_000)
    assert connection.state == "closed"
    assert bench.engine.open_orders() == bench.gateway.sessions == []
    assert {order.closed_by for order in bench.engine.ledger.orders.values()} >= {"CLIENT_DISCONNECT"}
    assert bench.peer.violations == []
    assert bench.engine.open_orders() == []  # cancel on disconnect


def test_a_storm_of_refusals_disarms(make):
    loaded = config.load(FIRST_LIGHT)
    listed = venue_config(loaded, loaded.secret())
    strict = type(listed)(listed.instruments, listed.groups, listed.clients, quote_rate=1.0, quote_burst=3)
    bench = make(loaded, venue=strict).start()
    bench.feed(100)
    bench.until(lambda: bench.daemon.state != regmap.ACTIVE, cycles=20_000_000)
    bench.run(20_000)
    assert bench.daemon.state == regmap.DISARMED
    assert bench.engine.ledger.refusals["RATE_LIMIT"] > loaded.risk.max_rejects_per_s
    assert bench.engine.open_orders() == []


def test_market_maker_protection_disarms(make):
    loaded = config.load(FIRST_LIGHT)
    bench = make(loaded, venue=venue_config(loaded, loaded.secret(), group={"quantity_limit": 1.0})).start()
    bench.feed(60)
    bench.run(120_000)
    bench.trade_all()
    bench.until(lambda: bench.daemon.state != regmap.ACTIVE)
    bench.run(50_000)
    assert bench.daemon.state == regmap.DISARMED
    assert bench.daemon.answers["MassQuoteMmpTriggered"] == 1
    assert bench.engine.open_orders() == []
    assert all(bench.daemon.positions.lots(n)[1:] == (0, 0) for n in range(16))


def test_a_lost_record_stops_everything(make):
    bench = make().start()
    bench.feed(60)
    bench.run(60_000)
    bench.daemon._record_number -= 1
    bench.until(lambda: bench.daemon.phase == "failed")
    assert "telemetry records before number" in bench.daemon.error
    bench.run(20_000)
    assert bench.daemon.state == regmap.HALTED
    assert bench.engine.open_orders() == []


def test_a_second_daemon_takes_over_a_card_that_still_quotes(make):
    """The first one vanishes without a word; the second finds the card armed, stops it and starts afresh."""
    bench = make().start()
    bench.feed(60)
    bench.run(120_000)
    assert bench.engine.open_orders()
    first = bench.daemon
    from host.daemon import Daemon
    bench.daemon = Daemon(bench.config, bench.device, isn=77)
    bench.until(lambda: bench.daemon.phase != "starting")
    assert (bench.daemon.phase, bench.daemon.error) == ("ready", "")
    assert bench.daemon.state == regmap.DISARMED
    assert bench.engine.open_orders() == []
    assert first.phase == "ready"
    assert len(bench.gateway.sessions) == 1


def test_time_may_not_run_backwards(make):
    bench = make()
    bench.daemon.pump(10)
    with pytest.raises(ValueError, match="time runs backwards: 9 ns after 10 ns"):
        bench.daemon.pump(9)


def test_status_has_everything_in_plain_data(make):
    bench = make().start()
    bench.feed(60)
    bench.run(120_000)
    bench.perform(bench.daemon._watch())
    status = json.loads(json.dumps(bench.daemon.status()))
    assert status["state"] == "ACTIVE"
    assert status["session"] == "up"
    assert status["card"]["accepted_packets"] == register(bench, "accepted_packets")
    assert len(status["instruments"]) == 16
    assert status["instruments"][0]["name"] == bench.config.instruments[0].name
    assert any(i["quote"] for i in status["instruments"])
    assert status["card"]["latency_min"] == status["card"]["latency_max"] == 2


def test_every_register_that_is_watched_exists():
    from host.daemon import WATCHED
    from host.registers import ENTRIES
    assert set(WATCHED) <= set(ENTRIES)
    assert params.CLOCK_HZ * 8 == 10 ** 9


def test_commands_that_were_lost_end_it(make):
    """Whatever was in them was not done."""
    bench = make().start()
    bench.device.commands_lost += 1
    bench.step()
    assert bench.daemon.phase == "failed"
    assert bench.daemon.error == "commands to the card were lost: what it has been told is unknown"
    bench.run(20_000)
    assert bench.daemon.state == regmap.HALTED

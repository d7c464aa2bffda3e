"""When quoting stops, the venue has to show that nothing is open; if it does not, the daemon cancels, then alarms.

On the virtual board, with an exchange that loses mass cancels or answers.
"""

import json

import pytest

from hdl.control import registers as regmap
from host import config
from host.daemon import DaemonError
from host.journal import Journal

from .bench import Bench
from .conftest import FIRST_LIGHT

VERIFY_MS = 1


class Quiet:
    """Makes the exchange of a bench lose its first ``lost`` mass cancels: they have no effect and no answer."""

    def __init__(self, bench, lost):
        self.left, self.lost_ids = lost, []
        self._cancel = bench.engine._mass_quote_cancel
        bench.engine._mass_quote_cancel = self

    def __call__(self, client, message):
        if self.left:
            self.left -= 1
            self.lost_ids.append(message["correlationId"])
        else:
            self._cancel(client, message)


@pytest.fixture
def quoting(tree, tmp_path):
    """A function that makes a :class:`Bench` with quotes at the exchange, its journal at ``journal``; ``verify_ms`` is
    short. All are closed at the end."""
    made = []

    def build():
        tree["host"]["verify_ms"] = VERIFY_MS
        (tmp_path / "simulator.secret").write_text("let-me-quote")
        bench = Bench(config.build(tree, tmp_path / "t.toml"), journal=Journal(tmp_path / "journal.jsonl"))
        made.append(bench)
        bench.start()
        bench.feed(60)
        bench.run(120_000)
        assert bench.engine.open_orders()
        return bench

    yield build
    for bench in made:
        bench.daemon.journal.close()
        bench.close()


def journal(bench, *kinds):
    lines = [json.loads(line) for line in bench.daemon.journal.path.read_text().splitlines()]
    return [line for line in lines if line["kind"] in kinds]


def cancels(bench):
    """Mass cancels that had an effect at the exchange."""
    return [r for r in bench.engine.ledger.requests if r.kind == "MassQuoteCancelRequest"]


def test_a_kill_that_the_card_s_own_cancel_settles(quoting):
    bench = quoting()
    assert not bench.daemon.verified
    result = bench.perform(bench.daemon.kill())
    assert (result["open_at_venue"], result["verified"]) == (0, True)
    assert bench.engine.open_orders() == []
    status = bench.daemon.status()
    assert (status["open_at_venue"], status["verified"], status["verifying"], status["error"]) == (0, True, False, "")
    assert "MassQuoteCancelRequest" not in bench.daemon.session.sent
    assert len(cancels(bench)) == 1
    (said,) = journal(bench, "verified", "not_verified", "alarm", "own_mass_cancel")
    assert (said["kind"], said["open_lots"], said["own_cancel"]) == ("verified", 0, False)


def test_a_cancel_that_was_lost_is_made_good_by_our_own(quoting):
    bench = quoting()
    quiet = Quiet(bench, 1)
    asked_ns = bench.now_ns
    result = bench.perform(bench.daemon.kill())
    assert (result["open_at_venue"], result["verified"]) == (0, True)
    assert bench.now_ns - asked_ns >= VERIFY_MS * 1_000_000  # the card's cancel was given its time
    assert bench.engine.open_orders() == []
    assert bench.daemon.session.sent["MassQuoteCancelRequest"] == 1
    (ours,) = cancels(bench)
    assert ours.correlation_id == 1 << 62 | 1
    assert quiet.lost_ids[0] < 1 << 62
    assert [line["kind"] for line in journal(bench, "verified", "not_verified", "alarm", "own_mass_cancel")] == [
        "not_verified", "own_mass_cancel", "verified"]
    assert bench.daemon.positions.unanswered == 0
    assert not bench.peer.violations
    # The way back is open, and what the card believes to be open fits again.
    assert bench.perform(bench.daemon.arm(clear_halt=True)) == {"state": "ACTIVE"}
    bench.run(50_000)
    assert bench.engine.open_orders()
    assert not bench.daemon.verified
    assert bench.perform(bench.daemon.disarm()) == {"state": "DISARMED", "open_at_venue": 0, "verified": True}


def test_a_venue_that_shows_nothing_raises_the_alarm(quoting):
    bench = quoting()
    standing = len(bench.engine.open_orders())
    quiet = Quiet(bench, 2)
    result = bench.perform(bench.daemon.kill())
    assert result == {"state": "HALTED", "halt_cause": ["kill_register"], "open_at_venue": None, "verified": False}
    assert len(bench.engine.open_orders()) == standing
    assert quiet.left == 0
    assert bench.daemon.session.sent["MassQuoteCancelRequest"] == 1  # once, no more
    (alarm,) = journal(bench, "alarm")
    lots = sum(o.lots for o in bench.engine.open_orders())
    assert alarm["open_lots"] == lots
    assert f"lots that may be open: {bench.config.instruments[0].name} 10" in alarm["why"]
    status = bench.daemon.status()
    assert status["error"] == alarm["why"]
    assert "no answer to our own mass cancel: not within 1 ms" in status["error"]
    with pytest.raises(DaemonError, match="cannot arm: not verified that nothing is open at the venue"):
        bench.perform(bench.daemon.arm(clear_halt=True))
    # A second kill tries again: now the venue answers.
    result = bench.perform(bench.daemon.kill())
    assert (result["open_at_venue"], result["verified"]) == (0, True)
    assert bench.engine.open_orders() == []
    assert bench.daemon.status()["error"] == ""


def test_a_cancel_that_the_venue_refuses(quoting):
    bench = quoting()
    standing = sum(o.lots for o in bench.engine.open_orders())
    del bench.engine.groups[bench.config.session.mmp_group]
    asked_ns = bench.now_ns
    assert not bench.perform(bench.daemon.kill())["verified"]
    assert bench.now_ns - asked_ns < 2 * VERIFY_MS * 1_000_000  # a refusal is not waited out
    (alarm,) = journal(bench, "alarm")
    assert "the venue refused our own mass cancel: mmpGroupId 7 is not a group of tick2quote" in alarm["why"]
    assert alarm["open_lots"] == standing


def test_a_stop_after_the_alarm_still_logs_out(quoting):
    """The end of the session cancels at the exchange what our cancels have not; that it did is not verified."""
    bench = quoting()
    Quiet(bench, 2)
    assert not bench.perform(bench.daemon.disarm())["verified"]
    assert bench.engine.open_orders()
    bench.perform(bench.daemon.shutdown())
    bench.run(50_000)
    assert bench.daemon.phase == "stopped"
    assert bench.engine.open_orders() == []
    assert bench.daemon.alarm
    assert len(journal(bench, "alarm")) == 1


def test_a_session_in_which_nothing_was_sent():
    bench = Bench(config.load(FIRST_LIGHT))
    try:
        bench.start(arm=False)
        assert not bench.daemon.verified
        assert bench.perform(bench.daemon.disarm()) == {"state": "DISARMED", "open_at_venue": 0, "verified": True}
    finally:
        bench.close()


def test_a_halt_that_nobody_asked_for_is_verified_too(quoting):
    """The dead-man's: the daemon's heart stops, the rest of it goes on."""
    bench = quoting()
    bench.daemon._beat_ns = None
    bench.until(lambda: bench.daemon.state == regmap.HALTED, cycles=20_000_000)
    bench.until(lambda: bench.daemon.verified)
    assert bench.engine.open_orders() == []
    assert bench.daemon.status()["halt_cause"] == ["deadman"]


def test_records_that_were_lost_need_our_own_cancel(quoting):
    """What they were of is unknown, and so what the card's cancel has left: nothing is shown without asking."""
    bench = quoting()
    bench.daemon._record_number -= 1
    bench.trade_all()  # what trades is quoted afresh
    bench.until(lambda: bench.daemon.phase == "failed")
    bench.until(lambda: not bench.daemon.verifying)
    assert bench.daemon.verified
    assert bench.daemon.session.sent["MassQuoteCancelRequest"] == 1
    assert bench.engine.open_orders() == []


def test_without_a_session_nothing_can_be_shown(quoting):
    bench = quoting()
    (session,) = bench.gateway.sessions
    bench.at_exchange(lambda now_ns: session._end(now_ns, 0, "", "MAINTENANCE", "maintenance"))
    bench.until(lambda: bench.daemon.state == regmap.HALTED and not bench.daemon.verifying)
    (alarm,) = journal(bench, "alarm")
    assert "the session has ended" in alarm["why"]
    assert (bench.daemon.open_at_venue, bench.daemon.verified) == (None, False)


def test_a_frame_whose_record_is_missing_is_counted(quoting):
    """The card has counted one frame more than there are records: it may have left something open."""
    bench = quoting()
    counters, recorded = bench.daemon._frames_before
    bench.daemon._frames_before = counters, recorded + 1
    result = bench.perform(bench.daemon.kill())
    assert result["verified"]
    (said,) = journal(bench, "not_verified")
    assert said["why"].startswith("not every frame of the card has its record: not within ")
    assert bench.daemon.session.sent["MassQuoteCancelRequest"] == 1


def test_what_is_open_is_unknown_while_an_answer_is_outstanding(quoting):
    bench = quoting()
    bench.run(50_000)
    assert bench.daemon.open_at_venue == sum(o.lots for o in bench.engine.open_orders()) > 0
    bench.answering = False
    bench.feed(40, seed=9)
    bench.daemon.registers.write("disarm", 1)
    bench.run(20_000)
    assert bench.daemon.open_at_venue is None

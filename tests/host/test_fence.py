"""Two daemons on one virtual board: the one that came last has it, and the other one writes nothing any more."""

import asyncio

import pytest

from hdl.control import registers as regmap
from host import integrity
from host.daemon import FENCED, Daemon, DaemonError, run
from host.device import Device
from tests.host.bench import BURST, Bench


class Shared(Device):
    """A link that several hosts are on: what they say goes to the card, what it says to all of them."""

    def __init__(self, board):
        super().__init__()
        self.board, self.inbox = board, bytearray()

    def _receive(self):
        data = bytes(self.inbox)
        self.inbox.clear()
        return data

    def _transmit(self, data):
        self.board.link_write(data)
        return len(data)

    def fileno(self):
        return -1

    def close(self):
        pass


class Twins(Bench):
    """Any number of daemons; those of ``hung`` do nothing."""

    def __init__(self, config):
        super().__init__(config, in_process=False)
        self.daemons, self.hung = [], set()

    def add(self, isn):
        """A daemon that begins now; the one that ``daemon`` is from now on."""
        self.daemon = Daemon(self.config, Shared(self.board), isn=isn)
        self.daemons.append(self.daemon)
        return self.daemon

    def _talk(self):
        data = self.board.link_read()
        for daemon in self.daemons:
            daemon.device.inbox += data
            if daemon not in self.hung:
                daemon.pump(self.now_ns)

    def counter(self, name):
        reply = self.daemon.registers.read(name)
        self.until(lambda: reply.done)
        return reply.value

    def says(self, daemon, write):
        """What comes to the registers of what ``write(registers)`` says for ``daemon``: set of addresses."""
        self.board.take_register_writes()
        write(daemon.registers)
        daemon.device.flush()
        self.run(20 * BURST)
        return set(self.board.take_register_writes()["address"].tolist())


@pytest.fixture
def twins(first_light):
    made = Twins(first_light)
    yield made
    made.close()


def trading(twins):
    old = twins.add(isn=1)
    twins.start()
    twins.feed(60)
    twins.until(lambda: twins.engine.open_orders())
    return old


@pytest.mark.parametrize("hangs", [False, True])
def test_the_later_one_has_the_card(twins, hangs):
    old = trading(twins)
    twins.hung = {old} if hangs else set()
    new = twins.add(isn=2)
    twins.until(lambda: new.phase != "starting")
    assert (new.phase, new.error) == ("ready", "")
    assert twins.engine.open_orders() == []
    assert new.device.epoch > old.device.epoch > 0
    twins.hung = set()
    twins.until(lambda: old.phase == "failed")
    assert old.fenced
    assert old.error == (f"locked out: a daemon with epoch {new.device.epoch:08x} has taken the card over, this one "
                         f"has {old.device.epoch:08x}")
    assert old.status()["epoch"] == f"{old.device.epoch:08x}"
    assert asyncio.run(run(old, clock=lambda: twins.now_ns)) == FENCED
    assert twins.perform(new.arm()) == {"state": "ACTIVE"}
    assert new.status()["epoch"] == f"{new.device.epoch:08x}"

    # Whatever it is made to say counts for nothing.
    fenced = twins.counter("write_fenced")
    commands = [("disarm", 1), ("reduce", 1), ("heartbeat", 12345), ("time_ns", 1), ("deadman_cycles", 1),
                ("limits_crc", 1), ("commit", 1), ("session_enable", 0), ("release", 1), ("equity", 0)]
    twins.hung = {new}
    for name, value in commands:
        assert twins.says(old, lambda r, name=name, value=value: r.write(name, value)) == set(), name
    assert twins.says(old, lambda r: integrity.say(r, "arm", regmap.ARM_MAGIC, new.limits.hash)) == set()
    assert twins.says(old, lambda r: r.burst("pos_value", {
        "pos_value": 5, "pos_settled_bid": 0, "pos_settled_ask": 0, "pos_quote_id": 0, "pos_next": 0,
        "pos_commit": 3})) == set()
    assert twins.says(old, lambda r: r.device.write(regmap.param_address(1, "max_lots"), 99, 98, 97)) == set()
    twins.hung = set()
    assert twins.counter("write_fenced") == fenced + len(commands) + 4
    assert new.state == regmap.ACTIVE
    twins.feed(60)
    twins.until(lambda: twins.engine.open_orders())

    # But for a kill, which is anyone's.
    old.registers.write("kill", 1)
    old.device.flush()
    twins.until(lambda: new.state == regmap.HALTED)
    assert new._causes() == ["kill_register"]
    twins.until(lambda: not twins.engine.open_orders())


def test_two_that_begin_at_once(twins):
    """They take the same count, and the random part decides."""
    twins.add(isn=0x1_0001)
    winner = twins.add(isn=0x2_0002)
    twins.until(lambda: all(daemon.phase != "starting" for daemon in twins.daemons))
    assert [daemon.fenced for daemon in twins.daemons] == [True, False]
    assert (winner.phase, winner.error) == ("ready", "")


def test_the_last_epoch(twins):
    first = twins.add(isn=1)
    first.device.epoch = 0xFFFF_0000
    first.registers.write("scratch", 0)
    first.device.flush()
    twins.run(2 * BURST)
    twins.daemons.clear()
    later = twins.add(isn=1)
    twins.until(lambda: later.phase == "failed")
    assert "the card's epoch is ffff0000: there is no later one; reset the card" in later.error
    with pytest.raises(DaemonError, match="cannot arm"):
        twins.perform(later.arm())

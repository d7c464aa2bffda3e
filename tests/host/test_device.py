"""Device over a real pseudo-terminal, registers by name, and the parameter banks against a model of them."""

import os
import time
import tty

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdl.control import registers as regmap
from host import link
from host.bank import ParameterBank
from host.device import DeviceError
from host.integrity import crc
from host.registers import ENTRIES, MapMismatch, RegisterError, Registers, check_map
from host.serial_device import SerialDevice


class Terminal:
    """The card's end of a pseudo-terminal, by hand."""

    def __init__(self):
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.device = SerialDevice(os.ttyname(self.slave))
        self.decoder = link.Decoder([m.id for m in link.SCHEMA.messages.values()])

    def packets(self):
        out = []
        while True:
            try:
                out += self.decoder.feed(os.read(self.master, 65536))
            except BlockingIOError:
                return out

    def close(self):
        self.device.close()
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def terminal():
    t = Terminal()
    yield t
    t.close()


def wait_for(terminal, count):
    got, deadline = [], time.monotonic() + 5
    while len(got) < count and time.monotonic() < deadline:
        terminal.device.flush()
        got += terminal.packets()
    return got


def test_commands_arrive_as_packets(terminal):
    d = terminal.device
    d.epoch = 0x00020001
    d.write(0x8000, 1, 0xFFFFFFFF)
    d.send_frame(b"frame")
    d.send_session(b"message")
    d.read(0x12)
    assert d.bytes_sent == 0
    got = wait_for(terminal, 4)
    assert got == [(1, b"\x00\x80\x01\0\x02\0\x01\0\0\0\xff\xff\xff\xff"), (3, b"\x01\0\x02\0frame"),
                   (4, b"\x01\0\x02\0message"), (2, b"\x01\x12\0")]
    assert d.unsent == 0
    assert d.bytes_sent == 6 * 4 + 14 + 9 + 11 + 3


def test_a_full_line_never_blocks_and_loses_nothing(terminal):
    """200 kB to a card that does not read: the host goes on, and everything arrives when it does."""
    d, frames = terminal.device, [n.to_bytes(2, "big") * 500 for n in range(200)]
    for f in frames:
        d.send_frame(f)
    begin = time.monotonic()
    left = d.flush()
    assert time.monotonic() - begin < 1
    assert 0 < left == d.unsent
    assert [p[4:] for _, p in wait_for(terminal, 200)] == frames


def test_replies_find_their_reads_whatever_their_order(terminal):
    d = terminal.device
    replies = [d.read(0x100 + n) for n in range(3)]
    tags = [p[0] for _, p in wait_for(terminal, 3)]
    message = link.SCHEMA["ReadReply"]
    sent = b""
    for n in (2, 0, 1):
        sent += link.encode("ReadReply", message.encode({"tag": tags[n], "addr": 0x100 + n, "data": 7 * n}))
    sent += link.encode("ReadReply", message.encode({"tag": tags[0], "addr": 0x100, "data": 99}))  # nobody asked
    sent += link.encode("SessionRx", b"bytes")
    os.write(terminal.master, sent)
    assert d.poll(received=len(sent)) == [link.SessionRx(b"bytes")]
    assert [r.value for r in replies] == [0, 7, 14]
    assert d.bad_packets == 1


def test_a_card_that_never_answers(terminal):
    for _ in range(256):
        terminal.device.read(0)
    with pytest.raises(DeviceError, match="256 register reads are unanswered"):
        terminal.device.read(0)


def test_lock_step_says_what_is_missing(terminal):
    os.write(terminal.master, b"abc")
    with pytest.raises(DeviceError, match="the link stopped at byte 3, 5 were sent to the host"):
        terminal.device.poll(received=5, timeout_s=0.05)


def test_a_vanished_port_is_told(terminal):
    os.close(terminal.slave)
    os.close(terminal.master)
    terminal.slave = terminal.master = -1
    with pytest.raises(DeviceError, match="is gone"):
        terminal.device.poll()


def test_a_port_that_does_not_exist():
    with pytest.raises(DeviceError, match="cannot open serial port /dev/does-not-exist"):
        SerialDevice("/dev/does-not-exist")


# -- registers by name ------------------------------------------------------------------------------------------------


class Memory:
    """Stands for a device where only addresses and words matter."""

    def __init__(self):
        self.writes = []

    def write(self, address, *words):
        self.writes += [(address + n, w) for n, w in enumerate(words)]


def test_every_register_has_one_name_and_its_words():
    assert sum(e.words for e in ENTRIES.values()) == len(regmap.REGISTERS)
    assert ENTRIES["time_ns"].words == 2
    assert ENTRIES["state"].width == 2


def test_64_bits_are_written_low_word_first():
    memory = Memory()
    Registers(memory).write("time_ns", 0x1122334455667788)
    low, high = regmap.BY_NAME["time_ns_lo"].address, regmap.BY_NAME["time_ns_hi"].address
    assert memory.writes == [(low, 0x55667788), (high, 0x11223344)]


@pytest.mark.parametrize(("name", "value", "text"), [
    ("nonsense", 1, "there is no register 'nonsense'; there are map_hash"),
    ("state", 1, "register state is read only \\(ro\\)"),
    ("gaps", 1, "register gaps is read only \\(count\\)"),
    ("local_port", 65536, "register local_port holds 0..65535 \\(16 bits\\), got 65536"),
    ("deadman_cycles", -1, "register deadman_cycles holds 0..4294967295"),
    ("quote_id", 1 << 64, "register quote_id holds 0..18446744073709551615"),
])
def test_wrong_writes_are_refused(name, value, text):
    memory = Memory()
    with pytest.raises(RegisterError, match=text):
        Registers(memory).write(name, value)
    assert memory.writes == []


def test_a_burst_must_be_consecutive():
    memory = Memory()
    registers = Registers(memory)
    registers.burst("pos_value", {"pos_value": 1, "pos_settled_bid": 2, "pos_settled_ask": 3, "pos_quote_id": 4,
                                  "pos_next": 5, "pos_commit": 6})
    at = regmap.BY_NAME["pos_value"].address
    assert memory.writes == [(at + n, n + 1) for n in range(6)]
    with pytest.raises(RegisterError, match=r"register pos_quote_id is at .* follows in this burst"):
        registers.burst("pos_value", {"pos_value": 1, "pos_quote_id": 4})


def test_the_map_hash_is_checked_with_both_named():
    check_map(regmap.MAP_HASH)
    with pytest.raises(MapMismatch, match=f"has hash 0badf00d, this host's has {regmap.MAP_HASH:08x}"):
        check_map(0x0BADF00D)


class Card:
    """Two banks as the fabric has them, with whatever they held before."""

    def __init__(self, rows, fill):
        self.banks = [[[fill] * regmap.ROW_WORDS for _ in range(rows)] for _ in range(2)]
        self.active, self.writes, self.said = 0, 0, None

    def write(self, address, *words):
        for n, word in enumerate(words):
            at = address + n
            if at == regmap.BY_NAME["commit"].address:
                shadow = self.banks[self.active ^ 1]
                assert self.said == crc({}, [row[:SIZE] for row in shadow], len(shadow))
                self.active ^= 1
            elif at == regmap.BY_NAME["limits_crc"].address:
                self.said = word
            else:
                row, index = divmod(at - regmap.PARAM_BASE, regmap.ROW_WORDS)
                self.banks[self.active ^ 1][row][index] = word
                self.writes += 1


SIZE = len(regmap.PARAMS)


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=SIZE, max_size=SIZE), max_size=3)


@given(st.integers(0, 0xFFFFFFFF), st.lists(ROWS, min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_after_each_commit_the_active_bank_is_what_was_asked_for(fill, commits):
    card = Card(3, fill)
    bank = ParameterBank(Registers(card), 3)
    for rows in commits:
        before = card.writes
        written = bank.commit([tuple(r) for r in rows])
        assert card.writes - before == written
        for n in range(3):
            want = rows[n] if n < len(rows) else [0] * SIZE
            assert card.banks[card.active][n][:SIZE] == want
            assert list(bank.row(n)) == want


def test_after_a_refusal_every_word_is_written_anew():
    card = Card(2, 0)
    bank = ParameterBank(Registers(card), 2)
    rows, others = [tuple(range(SIZE))] * 2, [tuple(range(1, 1 + SIZE))] * 2
    bank.commit(rows)
    bank.commit(rows)
    bank.commit(others)
    card.active ^= 1    # it was not
    bank.refused()
    assert [bank.row(n) for n in range(2)] == rows
    assert bank.commit(others) == 2 * SIZE
    assert [bank.row(n) for n in range(2)] == others


def test_only_what_differs_is_written():
    card = Card(2, 0)
    bank = ParameterBank(Registers(card), 2)
    rows = [tuple(range(SIZE)), tuple(range(SIZE))]
    assert [bank.commit(rows), bank.commit(rows), bank.commit(rows)] == [2 * SIZE, 2 * SIZE, 0]
    changed = [(*rows[0][:-1], 99), rows[1]]
    assert [bank.commit(changed), bank.commit(changed), bank.commit(rows)] == [1, 1, 1]
    with pytest.raises(ValueError, match="4 instruments are configured, this card has 2"):
        bank.commit(rows * 2)
    with pytest.raises(ValueError, match="row 0 has 3 words"):
        bank.commit([(1, 2, 3)])

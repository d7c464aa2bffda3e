"""The link on a pseudo-terminal, opened by pyserial as a real port would be."""

import random
import subprocess
import sys
import time

import pytest
import serial

from sim.board.pty import LinkPty


@pytest.fixture
def link(board):
    with LinkPty(board) as link:
        yield link


def quiet(board, link, port, written, received):
    return (link.from_host == written and board.link_waiting == 0 and link.backlog == 0
            and link.to_host == received and not port.in_waiting)


def test_all_byte_values_pass_untouched_both_ways(board, link):
    data = bytes(byte for byte in range(256) if byte != 0xEE)
    with serial.Serial(link.path, 115200, timeout=0) as port:
        port.write(data)
        deadline, received = time.monotonic() + 5, b""
        while len(received) < len(data):
            assert time.monotonic() < deadline
            link.pump()
            board.run(1000)
            received += port.read(1000)
        assert received == bytes(byte ^ 0x80 for byte in data)
        assert quiet(board, link, port, len(data), len(received))


def test_lockstep_by_counting(board, link):
    """Far more than a terminal holds, in both directions at once; nothing is lost, and quiet is known to be quiet."""
    seed = random.randrange(2**32)
    print("seed", seed)
    data = random.Random(seed).randbytes(200_000).replace(b"\xee", b"\xef")
    with serial.Serial(link.path, timeout=0, write_timeout=0) as port:
        written, received = 0, bytearray()
        deadline = time.monotonic() + 30
        while not (written == len(data) and quiet(board, link, port, written, len(received))
                   and len(received) == written):
            assert time.monotonic() < deadline, (written, link.from_host, link.to_host, len(received))
            if written < len(data):
                written += port.write(data[written:written + 4000]) or 0
            link.pump()
            board.run(5000)
            link.pump()
            received += port.read(65536)
    assert received == bytes(byte ^ 0x80 for byte in data)


def test_host_that_does_not_read_holds_the_core_back(board):
    room = 2000
    with LinkPty(board, room=room) as link, serial.Serial(link.path, timeout=0) as port:
        board.link_write(bytes(200_000))
        for _ in range(100):
            board.run(5000)
            link.pump()
        assert link.backlog <= 2 * room
        assert board.link_waiting > 0
        assert link.unread() > 0
        before = board.link_consumed
        board.run(5000)
        link.pump()
        assert board.link_consumed == before, "nothing moves until the host reads"
        received = bytearray()
        deadline = time.monotonic() + 20
        while len(received) < 200_000:
            assert time.monotonic() < deadline
            received += port.read(65536)
            link.pump()
            board.run(5000)
        assert received == bytes([0x80]) * 200_000
        assert link.unread() == 0


def test_host_may_come_and_go(board, link):
    for turn in range(3):
        with serial.Serial(link.path, timeout=0) as port:
            port.write(b"%d" % turn)
            deadline, received = time.monotonic() + 5, b""
            while not received:
                assert time.monotonic() < deadline
                link.pump()
                board.run(100)
                received = port.read(10)
            assert received == bytes([(48 + turn) ^ 0x80])
    assert link.pump() == 0


def test_host_in_another_process(board, link):
    code = ("import serial, sys\n"
            "with serial.Serial(sys.argv[1], timeout=5) as port:\n"
            "    port.write(b'ping')\n"
            "    assert port.read(4) == bytes(b ^ 0x80 for b in b'ping')\n")
    with subprocess.Popen([sys.executable, "-c", code, link.path]) as process:
        deadline = time.monotonic() + 10
        while process.poll() is None:
            assert time.monotonic() < deadline
            link.pump()
            board.run(1000)
        assert process.returncode == 0
    assert link.unread() == 0
    assert (link.from_host, link.to_host) == (4, 4)


def test_closed_terminal_says_so(board):
    link = LinkPty(board)
    path = link.path
    link.close()
    link.close()
    with pytest.raises(ValueError, match=f"{path} is closed"):
        link.pump()

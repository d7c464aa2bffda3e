"""The virtual board: frames, faults, link, logs, time."""

import random
import time
import zlib

import pytest

from sim.board.board import BoardError, Faults, Inject, Stop, VirtualBoard
from sim.board.verilate import BUILD
from tests.sim.board.conftest import LOOPBACK

LATENCY = 2             # of the loop-back, pins to pins
PREAMBLE = bytes([0x55] * 7 + [0xD5])


def with_fcs(frame: bytes) -> bytes:
    return frame + zlib.crc32(frame).to_bytes(4, "little")


def test_frame_is_padded_and_gets_its_fcs(board):
    board.inject("order", b"\x01\x02\x03", start=100)
    board.run(300)
    frame, = board.take_tx("order")
    assert frame.data == with_fcs(b"\x01\x02\x03" + bytes(57))
    assert frame.frame == frame.data[:-4]
    assert not frame.faults
    assert board.rx_starts("order").tolist() == [100]
    assert frame.start == 100 + LATENCY
    assert frame.start_ns == 8 * frame.start
    assert frame.end == frame.start + 8 + 64
    assert board.take_tx("order") == []


def test_frames_at_their_cycles_or_right_after_the_gap(board):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    frames = [rng.randbytes(rng.randint(1, 1518)) for _ in range(50)]
    starts = [rng.randint(0, 40_000) for _ in frames]
    board.inject_many("order", frames, starts)
    board.run_until(100_000)
    expected, free = [], 0
    for frame, start in zip(frames, starts, strict=True):
        begin = max(start, free)
        expected.append(begin)
        free = begin + 8 + max(60, len(frame)) + 4 + 12
    assert board.rx_starts("order").tolist() == expected
    sent = board.take_tx("order")
    assert [each.start - LATENCY for each in sent] == expected
    assert [each.frame for each in sent] == [frame.ljust(60, b"\0") for frame in frames]
    assert not any(each.faults for each in sent)
    assert board.rx_pending("order") == 0


def test_bursts_do_not_change_what_happens(board):
    """A run cut into bursts of any length is the same run."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    frames = [rng.randbytes(100) for _ in range(10)]

    def run(bursts):
        board.reset()
        board.inject_many("order", frames, [i * 150 for i in range(10)])
        board.link_write(bytes(range(200)))
        while board.cycle < 3000:
            board.run(min(bursts(), 3000 - board.cycle))
        return board.take_tx("order"), board.link_read(), board.take_register_writes().tolist()

    whole = run(lambda: 3000)
    assert len(whole[0]) == 10
    assert run(lambda: 1) == whole
    assert run(lambda: rng.randint(1, 99)) == whole


@pytest.mark.parametrize(("flags", "frame", "wire"), [
    (Inject.BAD_FCS, bytes(60), PREAMBLE + with_fcs(bytes(60))[:-1] + bytes([with_fcs(bytes(60))[-1] ^ 1])),
    (Inject.RAW, b"abc", PREAMBLE + b"abc"),
    (Inject.NO_PAD, b"abc", PREAMBLE + with_fcs(b"abc")),
    (Inject.RAW | Inject.NO_PREAMBLE, b"abc", b"abc"),
    (Inject.RAW | Inject.NO_PREAMBLE, b"\x55\x55\xd5" + with_fcs(bytes(60)), b"\x55\x55\xd5" + with_fcs(bytes(60))),
])
def test_bytes_on_the_wire(board, flags, frame, wire):
    """Seen by sending them back: the loop-back repeats each byte that comes with rx_dv."""
    board.inject("order", frame, 50, flags)
    board.run(50 + LATENCY)
    assert board.take_tx("order") == []
    board.run(len(wire) + 1)
    sent, = board.take_tx("order")
    body = wire.lstrip(b"\x55")
    assert sent.data == (body[1:] if body.startswith(b"\xd5") else body)
    assert (Faults.PREAMBLE in sent.faults) == (not wire.startswith(PREAMBLE))
    assert (Faults.FCS in sent.faults) == (sent.data != with_fcs(sent.data[:-4]) or len(sent.data) < 4)
    assert (Faults.SHORT in sent.faults) == (len(sent.data) < 64)


@pytest.mark.parametrize("keep", [1, 7, 8, 9, 40, 71])
def test_carrier_drops_in_the_middle(board, keep):
    board.inject("order", bytes(60), 10, keep=keep)
    board.inject("order", bytes(60), 10)
    board.run(500)
    cut, whole = board.take_tx("order")
    assert len(cut.data) == max(0, keep - 8)
    assert Faults.FCS in cut.faults
    assert whole.start - cut.start == keep + 12
    assert not whole.faults


def test_receive_error_is_on_the_named_byte(board):
    board.inject("order", bytes(60), 10, rx_er_at=20)
    board.run(200)
    sent, = board.take_tx("order")
    assert sent.faults == Faults.TX_ER
    board.inject("order", bytes(60), rx_er_at=72)      # one beyond the last byte
    board.run(200)
    sent, = board.take_tx("order")
    assert not sent.faults


def test_short_gap_and_long_frame_are_faults(board):
    board.set_gap("order", 11)
    board.inject_many("order", [bytes(60), bytes(1519), bytes(1518)], [0, 0, 0])
    board.run(5000)
    sent = board.take_tx("order")
    assert [each.faults for each in sent] == [Faults(0), Faults.IFG | Faults.LONG, Faults.IFG]
    assert [each.gap for each in sent[1:]] == [11, 11]
    board.set_gap("order", 12)
    board.inject_many("order", [bytes(60), bytes(60)], [0, 0])
    board.run(5000)
    assert [each.faults for each in board.take_tx("order")] == [Faults(0), Faults(0)]


def test_ports_are_apart(board):
    assert board.ports == ("feed", "order")
    board.inject("feed", bytes(60))
    board.run(200)
    assert board.take_tx("order") == []
    assert board.rx_starts("feed").tolist() == [0]
    assert board.rx_starts("order").tolist() == []
    board.inject(1, bytes(60))
    board.run(200)
    assert len(board.take_tx(1)) == 1


def test_stops(board):
    board.inject_many("order", [bytes(60), bytes(60)], [100, 400])
    assert board.run(10_000, Stop.TX) == 100 + LATENCY + 72 + 1
    assert len(board.take_tx("order")) == 1
    assert board.run_until(10_000, Stop.RX_IDLE) == 400 + 72 - (100 + LATENCY + 72 + 1)
    board.link_write(b"x", start=1000)
    assert board.run(10_000, Stop.LINK_OUT) == 1001 - (400 + 72)
    assert board.run(10_000, Stop.TX | Stop.LINK_OUT | Stop.RX_IDLE) == 10_000
    assert board.run_until(5) == 0


def test_link_carries_every_byte_once(board):
    data = random.Random(1).randbytes(5000).replace(b"\xee", b"\xef")
    board.link_write(data[:10], start=20)
    board.link_write(data[10:])
    board.run(20)
    assert board.link_read() == b""
    board.run(30)
    assert board.link_consumed == board.link_produced == 30
    assert board.link_waiting == 4970
    board.run(10_000)
    assert board.link_read() == bytes(byte ^ 0x80 for byte in data)
    assert board.link_read() == b""
    writes = board.take_register_writes()
    assert bytes(writes["data"].tolist()) == data
    assert writes["address"].tolist() == list(range(5000))
    assert writes["cycle"].tolist() == list(range(20, 5020))
    assert len(board.take_register_writes()) == 0


def test_link_waits_for_the_core(board):
    board.link_write(b"ab\xeecd")
    board.run(1000)
    assert board.link_read() == bytes([0x61 ^ 0x80, 0x62 ^ 0x80])
    assert board.link_consumed == 2
    assert board.link_waiting == 3


def test_link_pace_and_room(board):
    board.link_pace(to_core=10)
    board.link_write(bytes(10))
    board.run(200)
    assert board.take_register_writes()["cycle"].tolist() == list(range(0, 100, 10))
    board.link_pace(to_host=7)
    board.reset()
    board.link_write(bytes(10))
    board.run(200)
    assert board.take_register_writes()["cycle"].tolist() == list(range(0, 70, 7))
    board.link_read()
    board.link_pace(room=4)
    board.link_write(bytes(10))
    board.run(200)
    assert len(board.link_read()) == 4
    board.run(200)
    assert len(board.link_read()) == 4


def test_kill_pin_and_host_packet_log(board):
    board.kill(True)
    board.inject("order", bytes(60), 20)
    board.run(100)
    assert board.take_tx("order") == []
    log = board.take_host_tx()
    assert log["cycle"].tolist() == list(range(1, 100))
    assert set(log["kind"].tolist()) == {1}
    board.reset()
    board.run(10)
    assert len(board.take_host_tx()) == 9, "the pin keeps its level in a reset"
    board.kill(False)
    board.run(10)
    assert len(board.take_host_tx()) == 1


def test_lost_feed(board):
    """From the next cycle on, like the kill pin."""
    board.kill(True)
    board.run(10)
    board.feed_lost(True)
    board.run(10)
    board.feed_lost(False)
    board.run(10)
    log = board.take_host_tx()
    assert [cycle for cycle, kind in zip(log["cycle"].tolist(), log["kind"].tolist(), strict=True) if not kind] == \
        list(range(10, 20))
    board.feed_lost(True)
    board.reset()
    board.run(10)
    assert set(board.take_host_tx()["kind"].tolist()) == {0}, "it stays through a reset"
    board.feed_lost(False)
    board.kill(False)


def test_reset_starts_anew(board):
    board.inject("order", bytes(60), 10)
    board.inject("feed", bytes(60), 1000)
    board.link_write(bytes(100))
    board.run(50)
    board.reset()
    assert board.cycle == 0
    assert board.link_waiting == board.link_consumed == 0
    assert board.rx_pending("order") == board.rx_pending("feed") == 0
    board.run(2000)
    assert board.take_tx("order") == []
    assert len(board.take_register_writes()) == 0
    assert board.cycle == 2000


def test_two_boards_are_apart():
    with VirtualBoard(LOOPBACK) as one, VirtualBoard(LOOPBACK) as other:
        one.inject("order", bytes(60))
        one.run(200)
        other.run(200)
        assert len(one.take_tx("order")) == 1
        assert other.take_tx("order") == []


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda board: board.inject("uplink", b""), "no port 'uplink'; the ports are feed, order"),
    (lambda board: board.inject(2, b""), "no port 2"),
    (lambda board: board.take_tx("feed"), "port feed cannot send; those that can: order"),
    (lambda board: board.run(-1), "cannot run -1 cycles"),
    (lambda board: board.reset(0), "reset of 0 cycles"),
    (lambda board: board.inject_many("order", [b""], []), "1 frames but 0 start cycles"),
    (lambda board: board.inject("order", b"x", keep=0), "keep is 0"),
    (lambda board: board.inject("order", b"x", rx_er_at=-1), "rx_er_at is -1"),
    (lambda board: board.inject("order", b"", 0, Inject.RAW | Inject.NO_PREAMBLE), "without bytes"),
    (lambda board: board.inject("order", bytes(70_000)), "70000 bytes is too long"),
    (lambda board: board.set_gap("order", 0), "gap of 0 cycles"),
    (lambda board: board.link_pace(to_host=0), "link pace 1, 0 cycles"),
    (lambda board: board.trace("x.vcd").__enter__(), "built without waveforms"),
])
def test_wrong_calls_are_refused(board, wrong, message):
    with pytest.raises(BoardError, match=message):
        wrong(board)


def test_closed_board_says_so():
    board = VirtualBoard(LOOPBACK)
    board.close()
    board.close()
    with pytest.raises(BoardError, match="closed"):
        board.run(1)


def test_waveforms(tmp_path):
    path = tmp_path / "sub" / "wave.vcd"
    with VirtualBoard(LOOPBACK, trace=True) as board:
        board.inject("order", bytes(60), 10)
        with board.trace(path):
            board.run(50)
        board.run(1000)
        with board.trace(tmp_path / "second.vcd"):
            board.run(5)
        with pytest.raises(BoardError, match="cannot be written"), board.trace("/proc/nowhere.vcd"):
            pass
    text = path.read_text()
    assert "$timescale   1ns" in text or "$timescale 1ns" in text
    assert "order_txd" in text
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert times[-1] == 8 * 49 + 4
    assert len(times) == 2 * 50
    second = [int(line[1:]) for line in (tmp_path / "second.vcd").read_text().splitlines() if line.startswith("#")]
    assert second[-1] == 8 * 1054 + 4


def test_speed_of_the_harness_itself(board):
    """The harness is not what limits a simulation: a design of nearly nothing runs far above a million cycles/s."""
    board.inject_many("order", [bytes(1500)] * 600, [0] * 600)
    begin = time.perf_counter()
    board.run(1_000_000)
    took = time.perf_counter() - begin
    print(f"{1 / took:.1f} million cycles/s; builds in {BUILD}")
    assert took < 1.0

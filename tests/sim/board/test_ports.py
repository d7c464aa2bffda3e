"""What is plugged into the ports: sources, captures, stations, and the kernel by way of a TAP interface."""

import random
import socket
import time

import pytest

from sim.board.board import BoardError, Faults, Inject, TxFrame
from sim.board.captures import read_capture
from sim.board.ports import PcapSink, Peer, Source, TapPort, Wires
from sim.board.tap import TapError, TapNamespace

LATENCY = 2


def test_source_to_capture(board, tmp_path):
    path = tmp_path / "out.pcap"
    frames = [bytes([i]) * 100 for i in range(20)]
    starts = [i * 500 for i in range(20)]
    with Wires(board, burst=700) as wires:
        source = Source(frames, starts)
        wires.attach("order", source)
        wires.attach("order", PcapSink(path, epoch_ns=10**9))
        wires.run(9_000)
        assert not source.done
        wires.run(1_000)
        assert source.done
    capture = read_capture(path)
    assert capture.frames == frames
    assert capture.times_ns == [10**9 + 8 * (start + LATENCY) for start in starts]


@pytest.mark.parametrize("burst", [1, 13, 10_000])
def test_peer_answers_in_the_cycle_that_it_names(board, burst):
    """Whatever the bursts are: the wire's delay each way, and the station's own time."""
    heard = []

    def answer(frame, cycle):
        heard.append((frame[0], cycle))
        return [(bytes([frame[0] + 1]) * 60, 30)] if frame[0] < 5 else []

    unasked = [(bytes(60), 93)]

    def poll(cycle):
        return [unasked.pop()] if unasked and cycle > 93 else []

    with Wires(board, burst=burst) as wires:
        wires.attach("order", Peer(answer, delay=7, poll=poll))
        wires.run(2_000)
    starts = board.rx_starts("order").tolist()
    assert starts[0] == 100
    length = 8 + 64
    for sent, (index, cycle) in enumerate(heard):
        assert index == sent
        assert cycle == starts[sent] + LATENCY + length + 7
    assert [later - cycle for later, (_, cycle) in zip(starts[1:], heard, strict=False)] == [30 + 7] * 5
    assert len(heard) == 6


def test_peer_without_delay_is_refused():
    with pytest.raises(ValueError, match="delay of 0 cycles"):
        Peer(lambda frame, cycle: [], delay=0)


def test_attachment_to_no_port_is_refused(board):
    with pytest.raises(BoardError, match="no port 'uplink'"):
        Wires(board).attach("uplink", Source([], []))
    with pytest.raises(ValueError, match="burst is 0 cycles"):
        Wires(board, burst=0)
    with pytest.raises(ValueError, match="1 frames but 0 start cycles"):
        Source([b""], [])


def until(condition, wires, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing came in time"
        wires.run(1_000)


def test_only_frames_of_one_type_pass(board):
    """Either way; without a type, all do."""
    frames = [bytes(12) + kind + bytes(46) for kind in (b"\x08\x06", b"\x88\xb5", b"\x08\x00")]
    for ethertype, passing in ((None, frames), (0x88B5, frames[1:2])):
        written = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        class Tap:
            fileno = ours.fileno
            write = staticmethod(written.append)
            close = ours.close

            @staticmethod
            def read(ours=ours):
                return ours.recv(65536)

        port = TapPort(Tap(), ethertype)
        for frame in frames:
            theirs.send(frame)
        assert [i.frame for i in port.frames_until(100)] == passing
        for n, frame in enumerate(frames):
            port.frame_sent(TxFrame(n, frame + bytes(4), Faults(0), 12))
        assert written == passing
        port.close()
        theirs.close()


def test_kernel_hears_the_board_and_the_board_the_kernel(board, namespace):
    """A datagram of the kernel goes through ARP and the loop-back, and another socket receives it from the wire."""
    mac = bytes.fromhex("020000000001")
    tap = namespace.tap(address="10.77.0.1/24", mac=mac.hex(":"))
    heard = []

    class Log:
        prompt = False
        frames_until = staticmethod(lambda cycle: [])
        close = staticmethod(lambda: None)

        @staticmethod
        def frame_sent(frame):
            heard.append(frame.frame)
            return []

    with Wires(board) as wires, namespace.socket(socket.SOCK_DGRAM) as sender:
        wires.attach("order", TapPort(tap))
        wires.attach("order", Log())
        sender.sendto(b"anyone?", ("10.77.0.2", 9))
        until(lambda: any(frame[12:14] == b"\x08\x06" for frame in heard), wires)
        request = next(frame for frame in heard if frame[12:14] == b"\x08\x06")
        assert request[:6] == b"\xff" * 6
        assert request[6:12] == mac
        # The answer to it goes in at the port and, since the design is a loop-back, out to the kernel.
        reply = mac + b"\x02\0\0\0\0\x02" + request[12:20] + b"\0\x02" + b"\x02\0\0\0\0\x02" + request[38:42] \
            + request[22:32]
        board.inject("order", reply)
        until(lambda: any(b"anyone?" in frame for frame in heard), wires)


def test_broken_frames_do_not_reach_the_kernel(board):
    written = []

    class Recorder:
        write = staticmethod(written.append)
        close = staticmethod(lambda: None)

    port = TapPort(Recorder())
    board.inject("order", bytes(60))
    board.inject("order", bytes(60), flags=Inject.BAD_FCS)
    board.run(500)
    for frame in board.take_tx("order"):
        assert port.frame_sent(frame) == ()
    assert written == [bytes(60)]


def test_tap_is_refused_with_a_reason(namespace):
    with pytest.raises(ValueError, match="has 16 characters, must be 1 to 15"):
        namespace.tap("x" * 16)
    with pytest.raises(ValueError, match=r"10\.0\.0"):
        namespace.tap(address="10.0.0")
    namespace.tap("same0").close()
    first = namespace.tap("same0")
    with pytest.raises(TapError, match="TAP interface same0 cannot be made"):
        namespace.tap("same0")
    first.close()


def test_missing_device_is_named(monkeypatch):
    monkeypatch.setattr("sim.board.tap._TUN", "/dev/net/not-there")
    with pytest.raises(TapError, match="/dev/net/not-there does not exist; load the kernel module with: modprobe tun"):
        TapNamespace()


def test_frames_from_the_kernel_keep_their_bytes(namespace):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    payloads = [rng.randbytes(rng.randint(1, 1400)) for _ in range(20)]
    port = TapPort(namespace.tap("bytes0"))
    with namespace.socket(socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for payload in payloads:
            out.sendto(payload, ("10.77.0.255", 7))
        got, deadline = [], time.monotonic() + 5
        while len(got) < len(payloads):
            assert time.monotonic() < deadline
            got += [each.frame[42:] for each in port.frames_until(0) if each.frame[12:14] == b"\x08\x00"]
    port.close()
    assert got == payloads

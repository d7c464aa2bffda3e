"""The host link over Ethernet: frames by hand on a real TAP interface, and `t2q run` against `t2q board` over one."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from hdl.layout import net
from host import link
from host.control import Client, ControlError
from host.device import DeviceError
from host.ethernet_device import ROOM, EthernetDevice, open_socket, parse, unpack
from host.open_device import open_device

from .conftest import FIRST_LIGHT

CARD, HOST = net.MAC_HOST_LINK, "02:aa:bb:cc:dd:ee"
ROOT = FIRST_LIGHT.parents[1]


class Card:
    """The card's end of a TAP interface, by hand."""

    def __init__(self, namespace, name="eth:card0"):
        self.tap = namespace.tap("card0", None, HOST)
        self.device = EthernetDevice(name, opener=lambda interface: namespace.packet_socket(
            interface, net.ETHERTYPE_HOST_LINK))
        self.number = 0

    def heard(self, count):
        """(source, number, lost, bytes of the link) of the next frames of the host."""
        out, deadline = [], time.monotonic() + 5
        while len(out) < count and time.monotonic() < deadline:
            if select.select([self.tap], [], [], 0.1)[0]:
                frame = self.tap.read()
                if frame[12:14] == b"\x88\xb5":     # the kernel has things to say, too
                    assert frame[:6] == self.device.mac.to_bytes(6, "big")
                    out.append(unpack(frame))
        return out

    def say(self, data, *, number=None, lost=0, src=CARD, ethertype=0x88B5, length=None):
        number = self.number if number is None else number
        self.number = number % 255 + 1
        frame = (bytes.fromhex(HOST.replace(":", "")) + src.to_bytes(6, "big") + ethertype.to_bytes(2, "big")
                 + (len(data) if length is None else length).to_bytes(2, "little") + bytes([number, lost]) + data)
        self.tap.write(frame.ljust(60, b"\0"))

    def records(self, count):
        out, deadline = [], time.monotonic() + 5
        while len(out) < count and time.monotonic() < deadline:
            select.select([self.device], [], [], 0.1)
            out += self.device.poll()
        return out

    def close(self):
        self.device.close()
        self.tap.close()


@pytest.fixture
def card(namespace):
    c = Card(namespace)
    yield c
    c.close()


def test_commands_arrive_in_frames(card):
    d = card.device
    d.write(0x8000, 1, 0xFFFFFFFF)
    d.send_session(b"message")
    d.read(0x12)
    wanted = link.encode_write(0x8000, [1, 0xFFFFFFFF]) + link.encode_tx("SessionTx", b"message") \
        + link.encode_read(1, 0x12)
    assert d.flush() == 0
    d.send_frame(b"another")
    assert d.flush() == 0
    source = int(HOST.replace(":", ""), 16)
    assert card.heard(2) == [(source, 0, 0, wanted), (source, 1, 0, link.encode_tx("FrameTx", b"another"))]
    assert d.bytes_sent == len(wanted) + len(link.encode_tx("FrameTx", b"another"))


def test_packets_stay_whole(card):
    """As many as fit into a frame, none reaches into the next; numbers go round without a second 0."""
    packets = [link.encode_tx("SessionTx", bytes([n & 255]) * (1 + n * 7 % 400)) for n in range(2000)]
    frames = []

    def listen():
        while sum(len(data) for *_, data in frames) < sum(map(len, packets)):
            new = card.heard(1)
            if not new:
                return
            frames.extend(new)

    ear = threading.Thread(target=listen)
    ear.start()
    for packet in packets:
        card.device._outgoing += packet
    while card.device.flush():
        time.sleep(0.001)       # the interface's queue is full
    ear.join(30)
    assert b"".join(data for *_, data in frames) == b"".join(packets)
    assert len(frames) > 256
    assert [n for _, n, _, _ in frames] == [0, *((n - 1) % 255 + 1 for n in range(1, len(frames)))]
    decoder = link.Decoder([m.id for m in link.SCHEMA.messages.values()])
    for n, (*_, data) in enumerate(frames):
        assert len(data) <= ROOM
        assert decoder.feed(data)
        assert decoder.incomplete == 0, f"frame {n} ends within a packet"
    assert not decoder.errors


def test_a_packet_that_fits_no_frame_is_refused(card):
    card.device.send_session(bytes(ROOM - 10))
    card.device.flush()
    assert len(card.heard(1)[0][-1]) == ROOM
    card.device.send_session(bytes(ROOM - 9))
    with pytest.raises(DeviceError, match=f"a packet of {ROOM + 1} bytes does not fit a frame"):
        card.device.flush()


def test_records_come_out_of_frames(card):
    """Cut anywhere, padded or not."""
    text = b"".join(link.encode("FrameRx", bytes([n]) * (1 + n)) for n in range(100))
    at = 0
    for n in range(1, 1000):
        card.say(text[at:at + n % 107])
        at += n % 107
        if at >= len(text):
            break
    assert card.records(100) == [link.FrameRx(bytes([n]) * (1 + n)) for n in range(100)]
    assert not any(card.device.errors.values())
    assert card.device.bytes_received == len(text)


def test_what_is_not_the_card_s_is_left_alone(card):
    packet = link.encode("FrameRx", b"other")
    card.say(packet, src=CARD + 1, number=9)
    card.say(packet, ethertype=0x88B6, number=9)
    card.say(packet, length=1000, number=9)
    card.say(link.encode("FrameRx", b"mine"), number=3)
    assert card.records(1) == [link.FrameRx(b"mine")]
    assert not any(card.device.errors.values())


def test_lost_frames_are_counted(card):
    """The packet that was in them is gone, what follows is not; 0 is a card that starts anew."""
    packet = link.encode("FrameRx", b"x" * 50)
    for number in (7, 8, 10, 254, 255, 1, 4, 0, 1):
        card.say(packet, number=number)
    assert len(card.records(9)) == 9
    assert card.device.errors["frames"] == 1 + 243 + 2
    card.say(packet[:30], number=2)
    card.say(packet, number=4)
    assert len(card.records(1)) == 1
    assert card.device.errors["frames"] == 1 + 243 + 2 + 1
    assert card.device.errors["crc"] == 1


def test_lost_commands_are_told(card):
    """From the card's first frame on, and not by one that has started anew."""
    packet = link.encode("FrameRx", b"x")
    for number, lost, told in ((7, 200, 0), (8, 200, 0), (9, 201, 1), (10, 255, 55), (11, 1, 57), (0, 0, 57),
                               (1, 2, 59)):
        card.say(packet, number=number, lost=lost)
        card.records(1)
        assert card.device.commands_lost == card.device.errors["commands"] == told


def test_a_card_built_with_another_address(namespace):
    card = Card(namespace, "eth:card0/02:00:00:00:00:07")
    try:
        card.device.read(0)
        card.device.flush()
        assert len(card.heard(1)) == 1
        card.say(link.encode("FrameRx", b"other"))
        card.say(link.encode("FrameRx", b"mine"), src=0x020000000007)
        assert card.records(1) == [link.FrameRx(b"mine")]
    finally:
        card.close()


def test_an_interface_that_goes_away(card):
    card.tap.close()

    def use():
        for _ in range(50):
            card.device.read(0)
            card.device.flush()
            card.device.poll()
            time.sleep(0.02)

    with pytest.raises(DeviceError, match="interface card0 cannot be used: "):
        use()


@pytest.mark.parametrize("name", ["eth:", "eth:a/", "eth:a b", "eth:abcdefghijklmnop", "eth:a/02:00",
                                  "eth:a/020000000007", "eth:a/02:00:00:00:00:0g"])
def test_names_that_cannot_be(name):
    with pytest.raises(DeviceError, match="is no Ethernet link; give eth:INTERFACE or eth:INTERFACE/MAC"):
        open_device(name, 3_000_000)


def test_names():
    assert parse("eth:enp3s0") == ("enp3s0", CARD)
    assert parse("eth:veth-1.7/02:AB:00:00:00:07") == ("veth-1.7", 0x02AB00000007)


def test_why_it_cannot_be_opened(monkeypatch):
    def denied(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", denied)
    with pytest.raises(DeviceError, match="cannot open enp3s0: raw frames need CAP_NET_RAW; run as root, or"):
        open_socket("enp3s0")


def t2q(namespace, *arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "host.cli", *arguments], preexec_fn=namespace.enter, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


@pytest.mark.parametrize(("name", "message"), [
    ("eth:absent0", "t2q: there is no network interface absent0; there are lo, t2q0\n"),
    ("eth:lo", "interface lo cannot be used: Network is down"),
    ("eth:t2q0", "the card does not answer"),
])
def test_errors_are_one_line(namespace, tmp_path, name, message):
    """No such interface; one that is down; nobody there."""
    (tmp_path / "simulator.secret").write_text("let-me-quote")
    config = tmp_path / "t.toml"
    config.write_text(FIRST_LIGHT.read_text())
    tap = namespace.tap("t2q0", None)
    process = t2q(namespace, "run", name, "-c", str(config), "-s", str(tmp_path / "control"), cwd=tmp_path,
                  stderr=subprocess.PIPE)
    _, text = process.communicate(timeout=60)
    tap.close()
    assert process.returncode == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.timeout(600)       # it may have to build the simulator
def test_a_daemon_and_a_board_over_ethernet(namespace, tmp_path):
    """`t2q board --tap` and `t2q run eth:`: a session opens, quotes rest at the exchange, and the end is in order."""
    text = FIRST_LIGHT.read_text()
    for old, new in (("deadman_ms = 100", "deadman_ms = 5"), ("heartbeat_ms = 20", "heartbeat_ms = 2")):
        assert old in text
        text = text.replace(old, new)
    config, control = tmp_path / "t.toml", tmp_path / "control"
    config.write_text(text)
    (tmp_path / "simulator.secret").write_text("let-me-quote")
    board = t2q(namespace, "board", "-c", str(config), "--tap", "t2q0", "--every", "0.1", stdout=subprocess.PIPE)
    daemon, said = None, []
    ear = threading.Thread(target=lambda: said.extend(map(json.loads, board.stdout)))
    ear.start()

    def until(condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert board.poll() is None
            assert daemon is None or daemon.poll() is None, daemon.stderr.read()
            assert time.monotonic() < deadline, said[-1:]
            time.sleep(0.05)

    def status():
        try:
            with Client(control) as client:
                return client.request("status")
        except ControlError:
            return {"phase": "absent"}

    try:
        until(lambda: said, 500)
        assert said[0]["ethernet"] == "eth:t2q0"
        daemon = t2q(namespace, "run", said[0]["ethernet"], "-c", str(config), "-s", str(control), "--log-json",
                     cwd=tmp_path, stderr=subprocess.PIPE)
        until(lambda: status()["phase"] == "ready")
        with Client(control) as client:
            assert client.request("arm")["state"] == "ACTIVE"
        until(lambda: said[-1]["open_orders"] >= 10)
        assert said[-1]["state"] == "ACTIVE"
        until(lambda: status().get("card", {}).get("quotes_sent", 0) > 10)
        now = status()
        assert not any(now["link_errors"].values()), now["link_errors"]
        assert now["card"]["link_rx_errors"] == 0
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(60) == 0, daemon.stderr.read()
        until(lambda: said[-1]["open_orders"] == 0 and said[-1]["state"] == "DISARMED")
        assert said[-1]["wire_violations"] == said[-1]["refused"] == 0
    finally:
        for process in (daemon, board):
            if process and process.poll() is None:
                process.kill()
            if process:
                process.wait(10)
        ear.join(10)
        if daemon:
            daemon.stderr.close()
        board.stdout.close()

"""`t2q sim up`: all of it in processes of their own, on the kernel's TCP; ping, and a quote that is accepted."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP

from host.control import Client

ROOT = Path(__file__).parents[2]
PING = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.settimeout(20)
s.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 0))
print(s.recv(100)[20:].hex())
"""


def next_line(process, seconds):
    """The next JSON text that it prints."""
    assert select.select([process.stdout], [], [], seconds)[0], "it says nothing"
    return json.loads(process.stdout.readline())


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("namespace")
def test_up(tmp_path):
    config = tmp_path / "up.toml"
    text = (ROOT / "config" / "first_light.toml").read_text()
    config.write_text(text.replace('"simulator.secret"', f'"{ROOT}/config/simulator.secret"'))
    process = subprocess.Popen(
        [sys.executable, "-m", "host.cli", "sim", "up", "--config", str(config), "--max-packets", "600", "--every",
         "0.5"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    try:
        said = next_line(process, 200)
        socket, deadline = tmp_path / said["socket"], time.monotonic() + 60
        while True:
            next_line(process, 30)
            if socket.exists():
                with Client(socket) as client:
                    if client.request("status")["phase"] == "ready":
                        break
            assert time.monotonic() < deadline, "the session does not come up"
        with Client(socket, 60) as client:
            client.request("arm")
        while True:
            with Client(socket) as client:
                status = client.request("status")
            assert status["state"] == "ACTIVE", status["halt_cause"]
            if status["answers"].get("MassQuoteResponse"):
                break
            assert time.monotonic() < deadline, "no quote was answered"
            next_line(process, 30)
        if shutil.which("nsenter"):
            *enter, _, address = said["ping"].split()
            request = bytes(ICMP(id=7, seq=1) / b"12345678")
            answer = subprocess.run([*enter, sys.executable, "-c", PING, address, request.hex()], capture_output=True,
                                    text=True, check=True, timeout=60).stdout.strip()
            assert answer.startswith("0000")
            assert answer.endswith(b"12345678".hex())
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=90)[0].splitlines()
        assert process.returncode == 0
        business = json.loads(rest[-1])["exchange"]
        assert business["quotes_accepted"] > 0
        assert business["quotes_refused"] == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()

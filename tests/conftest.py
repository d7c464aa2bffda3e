"""For all tests: programs that they start must hear Ctrl-C, even if whoever started the tests had it ignored; and a
command that is run in the process leaves its logging behind for nobody, as its standard error is closed by then."""

import os
import signal

import pytest
import structlog

from sim.board.tap import TapError, TapNamespace

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logging_as_it_was():
    yield
    structlog.reset_defaults()


@pytest.fixture
def namespace():
    """A network namespace for TAP interfaces; tests that want one are skipped where there can be none."""
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun on this machine")
    try:
        with TapNamespace() as namespace:
            yield namespace
    except TapError as error:
        pytest.skip(f"no namespace for a TAP interface: {error}")

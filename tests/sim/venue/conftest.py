import pytest

from sim.venue.session import Gateway

from .client import Client, make_config


@pytest.fixture
def gateway():
    return Gateway(make_config())


@pytest.fixture
def alice(gateway):
    """A client that is logged on."""
    client = Client(gateway)
    assert [m["type"] for m in client.logon()] == ["LogonConf"]
    return client


@pytest.fixture
def bob(gateway):
    client = Client(gateway, "bob", "swordfish")
    assert [m["type"] for m in client.logon()] == ["LogonConf"]
    return client

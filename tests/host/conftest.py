import copy
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import settings

from host import config

# How long an example takes says nothing here: the machine may be busy.
settings.register_profile("t2q", deadline=None)
settings.load_profile("t2q")

FIRST_LIGHT = Path(__file__).resolve().parents[2] / "config" / "first_light.toml"


@pytest.fixture
def tree():
    """The shipped configuration as plain data, free to be changed."""
    with FIRST_LIGHT.open("rb") as file:
        return copy.deepcopy(tomllib.load(file, parse_float=Decimal))


@pytest.fixture
def first_light():
    return config.load(FIRST_LIGHT)

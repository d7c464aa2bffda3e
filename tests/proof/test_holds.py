"""The proofs of the gates that post holds."""

import pytest

from tests.proof.__main__ import examine
from tests.proof.holds import PROOFS


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_proved(proof, tmp_path):
    entry = examine(proof, tmp_path)
    assert (entry["status"], entry["cover"]) == ("proved", "reached"), entry["log"]

"""Formal proofs of the gate: what must hold for every input, in every cycle. ``python -m tests.proof`` runs them."""

"""Formal proofs of gate and session: what must hold for every input, in every cycle.

``python -m tests.proof`` runs them.
"""

from tests.proof import candidate, counters, exposure, holds, integrity, limits, session, state, tokens, window

PROOFS = (*state.PROOFS, *tokens.PROOFS, *limits.PROOFS, *candidate.PROOFS, *window.PROOFS, *exposure.PROOFS,
          *holds.PROOFS, *integrity.PROOFS, *counters.PROOFS, *session.PROOFS)

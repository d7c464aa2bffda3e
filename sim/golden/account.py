"""G19 and the age of equity: what the account is worth against what may be lost."""

from sim.golden.ages import Ages

__all__ = ["Account"]


class Account:
    """What the host has told of equity, and what follows from it.

    Attributes
    ----------
    fresh : as the gate sees it: told, young enough, with limits. lost, warned : more than a limit is lost, or than
        three fifths of one.
    """

    def __init__(self):
        self.fresh = self.lost = self.warned = False
        self._peak = 0
        self._limited, self._ages = False, Ages()

    @property
    def changes(self):
        """``fresh`` is about to change."""
        return self.fresh != self._would_be_fresh

    @property
    def _would_be_fresh(self):
        return bool(self._ages.known and self._limited)

    def begin(self, start):
        """Losses count from here."""
        self._peak = start

    def limit(self, loss_most, drawdown_most, cycles):
        """New limits; one of zero blocks."""
        self._limited = bool(loss_most and drawdown_most and cycles > 1)

    def check(self, equity, start, loss_most, drawdown_most):
        """(lost, warned) of what was told."""
        self._peak = max(self._peak, equity)
        gone = (start - equity, loss_most), (self._peak - equity, drawdown_most)
        return any(lost > most for lost, most in gone), any(5 * lost > 3 * most for lost, most in gone)

    def edge(self, tick, checked):
        """A clock edge: ``tick`` the clock of ages strikes, ``checked`` the verdict on what was told or ``None``."""
        self.fresh = self._would_be_fresh
        if checked is not None:
            self.lost, self.warned = checked
        self._ages.edge(tick, checked is not None)

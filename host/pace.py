"""When the card is told again what it forgets."""

MILLISECOND = 1_000_000
#: The card is told so many times in the life of what it was told.
TELLS = 8


class Pace:
    """It is time at once, and then again and again within the life of what was told.

    Parameters
    ----------
    life_ms : greatest age that the card allows, in ms.
    """

    def __init__(self, life_ms):
        self._told_ns = None
        self.live(life_ms)

    def live(self, life_ms):
        """What is told lives so long from now on."""
        self._every_ns = int(life_ms * MILLISECOND) // TELLS

    def begin(self):
        """The card knows nothing."""
        self._told_ns = None

    def next_deadline_ns(self):
        """When :meth:`due` should be asked next, ``None`` before the first time."""
        return None if self._told_ns is None else self._told_ns + self._every_ns

    def due(self, now_ns):
        """Whether it is time; if so, the card is being told now."""
        if self._told_ns is not None and now_ns < self._told_ns + self._every_ns:
            return False
        self._told_ns = now_ns
        return True

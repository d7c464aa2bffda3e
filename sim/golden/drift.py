"""G6b: what was told of references within a window of time."""

__all__ = ["Drift"]

_SLOTS = 16


class Drift:
    """References by instrument, each with the number of the slot of time in which it was told.

    Attributes
    ----------
    held : instruments of which the latest reference failed.
    """

    def __init__(self):
        self.held = set()
        self._told = {}
        # Slots end with the cycles `_base` + k * `_length`; `_number` runs in the cycle after `_base`.
        self._base, self._length, self._number = 0, 2, 0

    def window(self, cycle, window):
        """Counting begins anew with ``cycle``, for a window of so many cycles."""
        self._number = self.number(cycle + 1)
        self._base, self._length = cycle, window // 16 + window // 128 + 2

    def number(self, cycle):
        """Number of the slot that runs in ``cycle``."""
        return self._number + max(0, cycle - 1 - self._base) // self._length

    def fails(self, instrument, reference, number, band):
        """Whether a reference that is told in slot ``number`` is too far from any of the window, by the definition."""
        told = [each for each in self._told.get(instrument, ()) if each[0] > number - _SLOTS]
        self._told[instrument] = told = [*told, (number, reference)]
        return any(abs(reference - was) << 16 > was * band for _, was in told)

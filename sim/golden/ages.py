"""What the host has told, and how long that counts: until the second strobe of a clock without news."""

__all__ = ["Ages"]


class Ages:
    """Bitmaps of what there are many of, a bit each; of what there is one of, bit 0.

    Attributes
    ----------
    known : what has been told, and has not grown too old.
    """

    def __init__(self):
        self.known = self._renewed = 0

    def outdated(self, tick):
        """What is found to be too old in a cycle in which the clock strikes (``tick``)."""
        return self.known & ~self._renewed if tick else 0

    def edge(self, tick, told):
        """A clock edge: ``tick`` the clock strikes, ``told`` these are told."""
        self.known = self.known & ~self.outdated(tick) | told
        self._renewed = (0 if tick else self._renewed) | told

"""The banked parameter rows: images of both banks, and a commit that writes only what differs."""

from hdl.control import registers as regmap

from . import integrity


class ParameterBank:
    """What the host knows about the two parameter banks of a card.

    Writes go to the shadow bank; ``commit`` flips banks, and what was active becomes the shadow. So the next change
    has to bring the shadow up to date from two commits ago. Nothing is known at first: the first two commits write all
    words.

    Parameters
    ----------
    registers : :class:`host.registers.Registers`.
    instruments : rows of this build.
    """

    def __init__(self, registers, instruments):
        self._registers, self.instruments, self.hash = registers, instruments, None
        size = len(regmap.PARAMS)
        self._active = [[None] * size for _ in range(instruments)]
        self._shadow = [[None] * size for _ in range(instruments)]

    def row(self, instrument):
        """Words of an instrument's active row, or ``None`` for each one that is not known."""
        return tuple(self._active[instrument])

    def stage(self, rows):
        """Bring the shadow bank to ``rows`` (a list of word tuples, one per instrument; missing ones become zero, which
        blocks), without effect until :meth:`commit`. Returns the number of words written. Raises ValueError for more
        rows than the card has."""
        if len(rows) > self.instruments:
            raise ValueError(f"{len(rows)} instruments are configured, this card has {self.instruments}")
        size, written = len(regmap.PARAMS), 0
        for instrument in range(self.instruments):
            want = list(rows[instrument]) if instrument < len(rows) else [0] * size
            if len(want) != size:
                raise ValueError(f"row {instrument} has {len(want)} words, must be {size}")
            have, base = self._shadow[instrument], regmap.PARAM_BASE + instrument * regmap.ROW_WORDS
            word = 0
            while word < size:
                if have[word] == want[word]:
                    word += 1
                    continue
                end = word
                while end < size and have[end] != want[end]:
                    end += 1
                self._registers.device.write(base + word, *want[word:end])
                written += end - word
                word = end
            self._shadow[instrument] = want
        return written

    def commit(self, rows, limits=None):
        """Make ``rows``, as :meth:`stage` takes them, active in one cycle, with the limits of the card that have been
        written ({name: word}; default: none ever). Returns the number of words written. :attr:`hash` is what the card
        is told that all of it is; if it refuses, :meth:`refused` has to follow."""
        written = self.stage(rows)
        self.hash = integrity.crc(limits or {}, self._shadow, self.instruments)
        integrity.say(self._registers, "commit", 1, self.hash)
        self._active, self._shadow = self._shadow, self._active
        return written

    def refused(self):
        """The last commit was: what is active is what it was, and nothing is known of the shadow bank any more."""
        self._active = self._shadow
        self._shadow = [[None] * len(regmap.PARAMS) for _ in range(self.instruments)]

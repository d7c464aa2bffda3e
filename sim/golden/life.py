"""G16: which sides were quoted anew so lately that they have to stand."""

from hdl.gate.life import LOOK_CYCLES

__all__ = ["QuoteLife"]


class QuoteLife:
    """Sides (0 bid, 1 ask) of instruments, and when they were quoted anew."""

    def __init__(self, instruments):
        self._instruments, self._since = instruments, {}
        self._lives = [(0, 0)]      # (cycle from which it counts, cycles)

    def _life_at(self, cycle):
        return next(life for since, life in reversed(self._lives) if since <= cycle)

    def _first_look(self, cycle, i):
        """The first cycle from ``cycle`` on in which a look at an instrument has an effect."""
        return cycle + (i + LOOK_CYCLES - cycle) % self._instruments

    def _end(self, side, since, cycle):
        """(cycle, instrument): when a look may find that its life has ended, not before ``cycle``."""
        life = self._life_at(cycle)
        return self._first_look(max(cycle, since + life + 2, since + LOOK_CYCLES + 1), side[0]), side[0]

    def limit(self, cycle, life):
        """Another life counts from ``cycle`` on. Returns the ends that may come of it."""
        self._lives = [*self._lives[-2:], (cycle, life)]
        return [self._end(side, since, cycle) for side, since in self._since.items()]

    def begin(self, cycle, instrument, sides):
        """A quote with these sides anew leaves in ``cycle``. Returns their ends."""
        mine = [(instrument, side) for side in sides]
        if self._life_at(cycle) == 0:
            mine = [side for side in mine if side in self._since]   # it begins again, and ends at once
        self._since.update(dict.fromkeys(mine, cycle))
        return [self._end(side, cycle, cycle) for side in mine]

    def ends(self, cycle, instrument):
        """Whether a look that has its effect in ``cycle`` ends a life."""
        life = self._life_at(cycle)
        old = [side for side, since in self._since.items() if side[0] == instrument
               and cycle - since >= life + 2 and cycle - since > LOOK_CYCLES]
        for side in old:
            del self._since[side]
        return bool(old)

    def young_sides(self, instrument):
        """(bid, ask): whether they are young."""
        return [(instrument, side) in self._since for side in (0, 1)]

"""What the account is worth, for gates G12 and G19: equity at the start of the day, and what has come of it since.

::

    equity = equity at the start + cash of all fills + sum over instruments of (position x mark - the same at the start)

The mark is the reference price (gate G6), ``reference_price`` until there is one. Fees are not in it: the venue's fills
do not tell them. The instruments are taken to be linear, priced in the account's currency.
"""

from fractions import Fraction

from . import params
from .pace import Pace


class Equity:
    """Keeps count.

    Parameters
    ----------
    config : :class:`host.config.Config`.
    mark : function of an instrument's index: its present price in its own units, or ``None``.

    Attributes
    ----------
    pace : :class:`host.pace.Pace` of :meth:`update`. greatest : equity that was told since the start. told : units of
        money that the card was last told, or ``None``.
    """

    def __init__(self, config, mark):
        self._instruments, self._risk, self._mark = config.instruments, config.risk, mark
        self.pace, self.told = Pace(config.risk.equity_ms), None
        self._cash = Fraction(0)
        self._lots = [i.initial_lots for i in config.instruments]
        self._begun = sum(self._worth(n, Fraction(i.reference_price)) for n, i in enumerate(config.instruments))
        self.greatest = self.value

    def filled(self, n, side, lots, price_e9):
        """A fill of an instrument: ``side`` 1 bought, -1 sold; price mantissa of exponent -9."""
        self._cash -= side * lots * Fraction(self._instruments[n].lot) * Fraction(price_e9, 10 ** 9)
        self._lots[n] += side * lots

    @property
    def value(self):
        """Equity now, a Fraction."""
        worth = Fraction(0)
        for n, i in enumerate(self._instruments):
            mark = self._mark(n)
            worth += self._worth(n, Fraction(i.reference_price) if mark is None else Fraction(mark))
        return Fraction(self._risk.equity) + self._cash + worth - self._begun

    def _worth(self, n, price):
        return self._lots[n] * Fraction(self._instruments[n].lot) * price

    def begin(self):
        """The card knows nothing: its registers by name, the start first."""
        self.pace.begin()
        self.told = None
        return {"equity_start": params.money_word("equity", self._risk.equity, self._risk.money_unit)}

    def update(self, now_ns):
        """The word for register ``equity`` if it is time to tell it, else ``None``. An amount that the card cannot hold
        raises :class:`host.params.ParameterError`."""
        if not self.pace.due(now_ns):
            return None
        value = self.value
        self.greatest = max(self.greatest, value)
        word = params.money_word("equity", value, self._risk.money_unit)
        self.told = word - (word >> 31 << 32)
        return word

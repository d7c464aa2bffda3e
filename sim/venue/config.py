"""What the simulated exchange lists, who may log on, and its limits. Everything is checked when it is made."""

from dataclasses import dataclass

SECOND = 1_000_000_000


class VenueConfigError(ValueError):
    """A value in the exchange's configuration is impossible; the message names it and says what would do."""


def _require(condition, message):
    if not condition:
        raise VenueConfigError(message)


@dataclass(frozen=True)
class InstrumentSpec:
    """One listed instrument.

    Attributes
    ----------
    instrument_id : int64 id on the wire.
    name : for people.
    tick_e9 : price step as a mantissa with exponent -9 (0.5 is 500_000_000).
    lot_mult, lot_exp : quantity of one lot is ``lot_mult * 10**lot_exp``.
    min_lots, max_lots : inclusive bounds of one order's quantity, in lots.
    band_low_e9, band_high_e9 : inclusive price band, or ``None`` for no bound.
    currency_pair_id : int64, what MassCancelRequest filters by.
    product_type : value of the schema's ProductType (2 is futures, perpetuals included).
    reference_ticks : price at which an invented market starts, in ticks.
    """

    instrument_id: int
    name: str
    tick_e9: int
    lot_mult: int = 1
    lot_exp: int = 0
    min_lots: int = 1
    max_lots: int = (1 << 31) - 1
    band_low_e9: int | None = None
    band_high_e9: int | None = None
    currency_pair_id: int = 1
    product_type: int = 2
    reference_ticks: int = 50_000

    def __post_init__(self):
        where = f"instrument {self.name!r}"
        _require(0 < self.instrument_id < 1 << 63,
                 f"{where}: instrument_id must be 1..2^63-1, got {self.instrument_id}")
        _require(self.tick_e9 > 0, f"{where}: tick_e9 must be at least 1, got {self.tick_e9}")
        _require(self.lot_mult > 0, f"{where}: lot_mult must be at least 1, got {self.lot_mult}")
        _require(-18 <= self.lot_exp <= 18, f"{where}: lot_exp must be -18..18, got {self.lot_exp}")
        _require(1 <= self.min_lots <= self.max_lots,
                 f"{where}: min_lots must be 1..max_lots ({self.max_lots}), got {self.min_lots}")
        low, high = self.band_low_e9, self.band_high_e9
        _require(low is None or high is None or low <= high,
                 f"{where}: band_low_e9 {low} must not exceed band_high_e9 {high}")
        _require(self.reference_ticks > 0, f"{where}: reference_ticks must be at least 1, got {self.reference_ticks}")
        _require(1 <= self.product_type <= 5, f"{where}: product_type must be 1..5, got {self.product_type}")

    def lots_of(self, mantissa, exponent):
        """Lots in a Decimal72, or ``None`` if it is not a whole number of lots. Exact."""
        if mantissa == 0:
            return 0
        shift = exponent - self.lot_exp
        if not -36 <= shift <= 36:  # beyond any int64 mantissa; also keeps a hostile exponent cheap
            return None
        numerator = mantissa * 10 ** shift if shift >= 0 else mantissa
        denominator = self.lot_mult * (10 ** -shift if shift < 0 else 1)
        lots, rest = divmod(numerator, denominator)
        return None if rest else lots

    def quantity(self, lots):
        """Decimal72 of a number of lots, as field values."""
        return {"mantissa": lots * self.lot_mult, "exponent": self.lot_exp}


@dataclass(frozen=True)
class MmpGroupSpec:
    """A market-maker-protection group.

    Attributes
    ----------
    group_id : int64 id on the wire.
    client_id : the client that owns it.
    quantity_limit : traded quantity (sum over both sides, in contract units) that triggers within ``interval_ns``.
    interval_ns : window, which starts with the first fill after the last one ended.
    frozen_ns : freeze after a trigger; 0 means until the client resets it.
    min_freeze_ns : part of the freeze that no reset shortens.
    max_quote_lots : largest quantity of one quote side, in lots.
    enabled : a disabled group refuses every mass quote.
    """

    group_id: int
    client_id: str
    quantity_limit: float = 1e12
    interval_ns: int = SECOND
    frozen_ns: int = SECOND
    min_freeze_ns: int = SECOND
    max_quote_lots: int = (1 << 31) - 1
    enabled: bool = True

    def __post_init__(self):
        where = f"protection group {self.group_id}"
        _require(0 < self.group_id < 1 << 63, f"{where}: group_id must be 1..2^63-1")
        _require(self.quantity_limit > 0, f"{where}: quantity_limit must be above 0, got {self.quantity_limit}")
        _require(self.interval_ns > 0, f"{where}: interval_ns must be at least 1, got {self.interval_ns}")
        _require(self.min_freeze_ns >= 0, f"{where}: min_freeze_ns must be at least 0, got {self.min_freeze_ns}")
        _require(self.frozen_ns == 0 or self.frozen_ns >= self.min_freeze_ns,
                 f"{where}: frozen_ns must be 0 (until reset) or at least min_freeze_ns ({self.min_freeze_ns}), "
                 f"got {self.frozen_ns}")
        _require(self.max_quote_lots > 0, f"{where}: max_quote_lots must be at least 1, got {self.max_quote_lots}")


@dataclass(frozen=True)
class ClientSpec:
    """Who may log on: ``client_id`` (at most 16 ASCII bytes) and ``secret`` (at most 48)."""

    client_id: str
    secret: str

    def __post_init__(self):
        for name, limit in (("client_id", 16), ("secret", 48)):
            value = getattr(self, name)
            _require(value and value.isascii() and len(value) <= limit,
                     f"client {self.client_id!r}: {name} must be 1..{limit} ASCII characters")


@dataclass(frozen=True)
class VenueConfig:
    """Everything the simulated exchange is told.

    Attributes
    ----------
    instruments, groups, clients : what exists.
    heartbeat_s : interval announced in LogonConf, whole seconds.
    heartbeat_grace : a client silent for this many intervals is asked, and after one more interval dropped.
    logon_timeout_ns : a connection without a valid Logon is closed after this long.
    schema_versions : inclusive range accepted in Logon.schemaVersion.
    quote_rate, quote_burst : mass-quote token bucket, messages a second and depth; rate 0 means unlimited.
    order_rate, order_burst : the same for single orders.
    resend_store : application messages kept a client for ResendRequest.
    max_open_orders : open orders a client may have on one side of one instrument (quotes not counted).
    """

    instruments: tuple
    groups: tuple
    clients: tuple
    heartbeat_s: int = 5
    heartbeat_grace: float = 1.0
    logon_timeout_ns: int = 30 * SECOND
    schema_versions: tuple = (12, 16)
    quote_rate: float = 0.0
    quote_burst: int = 100
    order_rate: float = 0.0
    order_burst: int = 100
    resend_store: int = 10_000
    max_open_orders: int = 100

    def __post_init__(self):
        for what, key in (("instruments", "instrument_id"), ("groups", "group_id"), ("clients", "client_id")):
            object.__setattr__(self, what, tuple(getattr(self, what)))
            ids = [getattr(item, key) for item in getattr(self, what)]
            twice = sorted({i for i in ids if ids.count(i) > 1})
            _require(not twice, f"{what}: {key} {twice[:1]} is given twice")
            _require(ids, f"{what}: at least one is needed, got none")
        known = {c.client_id for c in self.clients}
        for group in self.groups:
            _require(group.client_id in known, f"protection group {group.group_id}: client {group.client_id!r} is "
                     f"unknown; known are {', '.join(sorted(known))}")
        _require(1 <= self.heartbeat_s <= 3600, f"heartbeat_s must be 1..3600, got {self.heartbeat_s}")
        _require(self.heartbeat_grace >= 1, f"heartbeat_grace must be at least 1, got {self.heartbeat_grace}")
        low, high = self.schema_versions
        _require(1 <= low <= high <= 16, f"schema_versions must lie in 1..16, low first, got {self.schema_versions}")
        for name in ("quote_rate", "order_rate"):
            _require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("quote_burst", "order_burst", "resend_store", "max_open_orders"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")


def demonstration(instruments=()):
    """A complete configuration for trying things out: client ``tick2quote``, secret ``let-me-quote``, group 7."""
    instruments = instruments or (InstrumentSpec(1001, "BTC-PERPETUAL", 500_000_000, lot_mult=10),
                                  InstrumentSpec(1002, "ETH-PERPETUAL", 50_000_000))
    return VenueConfig(instruments, (MmpGroupSpec(7, "tick2quote"),), (ClientSpec("tick2quote", "let-me-quote"),))

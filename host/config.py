"""The configuration: one TOML file, checked as a whole before anything happens.

Numbers may be written as TOML numbers or as strings; they are taken as exact decimals. An unknown key is refused with
its name; a limit that its register cannot hold is refused with the key, the value and what would fit.
"""

import difflib
import os
import re
import tomllib
from decimal import Decimal, InvalidOperation
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from hdl.layout import sbe

from . import params

_ORDERS = sbe.load("starbase_orders")
_INT64_MAX = (1 << 63) - 1


class ConfigError(ValueError):
    """The configuration cannot be used. One line: file, key, value, what would be right."""


class Endpoint(NamedTuple):
    """IPv4 address (number) and port."""

    ip: int
    port: int

    def __str__(self):
        return f"{IPv4Address(self.ip)}:{self.port}"


def _decimal(value):
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a number")
    else:
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise ValueError("must be a decimal number such as 0.5 or \"0.5\"") from None
    if not number.is_finite():
        raise ValueError("must be a finite number")
    return number


def _ip(value):
    try:
        return int(IPv4Address(value))
    except (AddressValueError, TypeError, ValueError):
        raise ValueError("must be an IPv4 address such as 10.0.0.2") from None


def _endpoint(value):
    host, _, port = str(value).rpartition(":")
    if not (isinstance(value, str) and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("must be address:port such as 224.0.31.11:14320, port 1..65535")
    return Endpoint(_ip(host), int(port))


def _group(value):
    endpoint = _endpoint(value)
    if not IPv4Address(endpoint.ip).is_multicast:
        raise ValueError("must be a multicast group, 224.0.0.0 to 239.255.255.255")
    return endpoint


def _unicast(value):
    ip = _ip(value)
    address = IPv4Address(ip)
    if address.is_multicast or address.is_unspecified or address == IPv4Address("255.255.255.255"):
        raise ValueError("must be the address of one host")
    return ip


def _mac(value):
    if not (isinstance(value, str) and re.fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", value)):
        raise ValueError("must be an Ethernet address such as 02:00:00:00:00:01")
    number = int(value.replace(":", ""), 16)
    if number >> 40 & 1 or not number:
        raise ValueError("must be the Ethernet address of one host (lowest bit of the first byte 0)")
    return number


def _vlan(value):
    if value in ("none", "any") or (type(value) is int and 1 <= value <= 4094):
        return value
    raise ValueError('must be "none", "any" or a VLAN id 1..4094')


Number = Annotated[Decimal, BeforeValidator(_decimal)]
Positive = Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0)]
NotNegative = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _flags(set_name):
    known = _ORDERS.sets[set_name]

    def check(value):
        if not isinstance(value, list):
            raise ValueError(f"must be a list of {', '.join(known)}")
        for name in value:
            if name not in known:
                raise ValueError(f"{name!r} is no {set_name}; there are {', '.join(known)}")
        return tuple(value)
    return check


def flag_bits(set_name, names):
    """Bits of named choices of a set of the order-entry schema."""
    return sum(1 << _ORDERS.sets[set_name][name] for name in names)


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Feed(_Section):
    """Where market data comes from.

    ``line_a``, ``line_b``: multicast group and port (line B may be left out). ``vlan``: ``"none"``, ``"any"`` or an id.
    ``price_exponent``: of prices on the wire (-7 in MDP 3.0 schema 8, -9 from schema 9). ``cut_through``: decide before
    the frame's check sequence has come; false waits for it.
    """

    line_a: Annotated[InstanceOf[Endpoint], BeforeValidator(_group)]
    line_b: Annotated[InstanceOf[Endpoint] | None, BeforeValidator(lambda v: None if v is None else _group(v))] = None
    vlan: Annotated[int | Literal["none", "any"], BeforeValidator(_vlan)] = "none"
    price_exponent: Annotated[int, Field(ge=-12, le=0)] = -9
    cut_through: bool = True


class Session(_Section):
    """The order-entry session.

    ``secret_env`` or ``secret_file`` (relative to the configuration) says where the secret is; it never stands in the
    configuration itself. ``next_hop_ip``: router, if the gateway is not on this network. ``receive_window_bytes``: TCP
    window that is announced. ``silence_intervals``: heartbeat intervals without a byte before a TestRequest is sent.
    ``resend_first_ms``: the card sends again what was not acknowledged for so long, before it has measured a round
    trip; then it goes by that, from ``resend_min_ms`` to ``resend_max_ms``; each time-out doubles the next one, and
    after ``resend_most`` of them in a row the next one ends the session. ``ack_delay_us``: how long the acknowledgement
    of every other segment may wait for something to leave with.
    """

    venue: Literal["deribit-starbase"] = "deribit-starbase"
    client_id: Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x7e]+$")]
    secret_env: str | None = None
    secret_file: str | None = None
    local_mac: Annotated[int, BeforeValidator(_mac)]
    local_ip: Annotated[int, BeforeValidator(_unicast)]
    local_port: Port
    peer_ip: Annotated[int, BeforeValidator(_unicast)]
    peer_port: Port
    next_hop_ip: Annotated[int | None, BeforeValidator(lambda v: None if v is None else _unicast(v))] = None
    mmp_group: Annotated[int, Field(ge=1, le=_INT64_MAX)]
    self_match_prevention_id: Annotated[int, Field(ge=0, le=_INT64_MAX)] = 0
    order_flags: Annotated[tuple[str, ...], BeforeValidator(_flags("OrderFlags"))] = ("cancelOnDisconnect",)
    quote_flags: Annotated[tuple[str, ...], BeforeValidator(_flags("MassQuoteFlags"))] = ()
    cancel_on_disconnect: bool = True
    reset_sequence: bool = True
    schema_version: Annotated[int, Field(ge=12, le=_ORDERS.version)] = _ORDERS.version
    receive_window_bytes: Annotated[int, Field(ge=1500, le=65535)] = 4096
    silence_intervals: Annotated[int, Field(ge=1, le=10)] = 2
    connect_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 10_000
    resend_first_ms: Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0, le=60_000)] = Decimal(1_000)
    resend_min_ms: Annotated[Decimal, BeforeValidator(_decimal), Field(ge=Decimal("0.01"), le=60_000)] = Decimal(200)
    resend_max_ms: Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0, le=60_000)] = Decimal(5_000)
    resend_most: Annotated[int, Field(ge=1, le=31)] = 8
    ack_delay_us: Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=60_000)] = Decimal(0)

    @model_validator(mode="after")
    def _one_secret(self):
        if (self.secret_env is None) == (self.secret_file is None):
            raise params.ParameterError("secret_env", self.secret_env, "give either secret_env or secret_file")
        if self.resend_max_ms < max(self.resend_first_ms, self.resend_min_ms):
            raise params.ParameterError("resend_max_ms", self.resend_max_ms, f"must be at least resend_first_ms "
                                        f"({self.resend_first_ms}) and resend_min_ms ({self.resend_min_ms})")
        if self.local_ip == self.peer_ip:
            raise params.ParameterError("peer_ip", IPv4Address(self.peer_ip), "must differ from local_ip")
        return self


class Risk(_Section):
    """Limits of the whole card.

    ``deadman_ms``: quotes are pulled if the host is silent for longer. Token buckets: messages a second, and how many
    may come at once; a quarter of the session's bucket is kept for cancels. ``max_rejects_per_s``: refusals by the
    venue within a second that disarm. ``reference_ms``: greatest age of a reference price. ``max_live_sides``: of all
    instruments together. ``duplicate_most``: so many equal quotes of an instrument among the last 8 of all within
    ``duplicate_ms`` hold it until it is released. Within ``fills_ms`` no more than ``fills_lots`` may trade on an
    instrument, bought and sold no more than ``fills_net_lots`` apart, in ``fills_most`` fills: more holds it for
    ``freeze_ms``, 0: until it is released. ``repeats_most``: how often a side may trade and be quoted again before
    somebody releases the instrument. More than ``refusals_most`` sides refused within ``refusals_ms`` hold it until it
    is released. ``drift_ms``: over which a reference may not move by more than an instrument's ``drift_bps``.
    ``life_ms``: how long a side stands before it moves towards the market; 0: no time. ``equity``: what the account is
    worth at the start of the day;
    ``max_loss`` since then and ``max_drawdown`` from the greatest since then halt, three fifths of them reduce;
    ``equity_ms``: greatest age of what the daemon tells; ``money_unit``: in which the card counts money. ``max_gross``:
    most that the positions and open quotes of all instruments may be worth together, at their marks, with one that is
    to leave; ``max_leverage``: ... in times of equity. ``max_open_notional``: most that the open quotes of one side of
    all instruments may be worth together.
    """

    deadman_ms: Positive
    session_rate_per_s: Positive
    session_burst: Annotated[int, Field(ge=2)]
    symbol_rate_per_s: Positive
    symbol_burst: Annotated[int, Field(ge=1)]
    max_rejects_per_s: Annotated[int, Field(ge=1)] = 20
    reference_ms: Positive
    max_live_sides: Annotated[int, Field(ge=1, le=1023)]
    duplicate_most: Annotated[int, Field(ge=1, le=8)]
    duplicate_ms: Positive
    fills_ms: Positive
    fills_lots: Annotated[int, Field(ge=1)]
    fills_net_lots: Annotated[int, Field(ge=1)]
    fills_most: Annotated[int, Field(ge=1)]
    freeze_ms: NotNegative
    repeats_most: Annotated[int, Field(ge=1)]
    refusals_ms: Positive
    refusals_most: Annotated[int, Field(ge=1)]
    drift_ms: Positive
    life_ms: NotNegative
    equity: Number
    max_loss: Positive
    max_drawdown: Positive
    equity_ms: Positive
    max_gross: Positive
    max_leverage: Positive
    max_open_notional: Positive
    money_unit: Positive = Decimal(1)


class Host(_Section):
    """The daemon itself. ``heartbeat_ms``: how often the dead-man is fed, while the card answers.
    ``verify_ms``: within which the venue must have shown that nothing is open once quoting has stopped; after that the
    daemon cancels by itself, and waits as long again. ``metrics_port``: 0 = none, on localhost.

    ``references``: where reference prices come from: ``"external"``, from ``t2q reference`` alone, or ``"feed"``, the
    feed's own mid, smoothed over ``reference_tau_ms``: no independent witness, but a slow one.
    """

    heartbeat_ms: Positive = Decimal(20)
    verify_ms: Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0, le=60_000)] = Decimal(1000)
    control_socket: str = "out/t2q.sock"
    journal: str = "out/journal.jsonl"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    references: Literal["external", "feed"] = "external"
    reference_tau_ms: Positive = Decimal(1000)


class Instrument(_Section):
    """One instrument: what the feed calls it, what is quoted for it, and its limits.

    Prices and quantities are in the quoted instrument's own units; ``toward_ticks``, ``away_ticks`` and the skew in its
    ticks. ``half_spread_bps`` is taken of ``reference_price``. ``max_notional`` is price times quantity of one order.
    ``collar_bps``: how far a price may be from the reference; ``pull_bps``: how far the feed's mid may be from the
    price at the quoted venue and the basis; ``drift_bps``: how far the reference may be from any other one within
    ``drift_ms``, while that is exceeded only what reduces the position is quoted.
    """

    name: Annotated[str, Field(min_length=1)]
    security_id: Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
    feed_tick: Positive
    instrument_id: Annotated[int, Field(ge=1, le=_INT64_MAX)]
    tick: Positive
    lot: Positive
    reference_price: Number
    quote_quantity: Positive
    half_spread_bps: Positive | None = None
    half_spread_ticks: Positive | None = None
    skew_ticks_per_lot: NotNegative = Decimal(0)
    skew_max_ticks: NotNegative = Decimal(0)
    target_position: Number = Decimal(0)
    initial_position: Number = Decimal(0)
    toward_ticks: Annotated[int, Field(ge=1)] = 1
    away_ticks: Annotated[int, Field(ge=1)] = 1
    enabled: bool = True
    bid_enabled: bool = True
    ask_enabled: bool = True
    min_price: Number
    max_price: Number
    min_quantity: Positive
    hard_quantity: Positive
    max_quantity: Positive
    max_notional: Positive
    max_long: NotNegative
    max_short: NotNegative
    stale_ms: Positive
    collar_bps: Positive
    pull_bps: Positive
    drift_bps: Positive

    @property
    def initial_lots(self):
        """Position at the start, in lots."""
        return params.lots("initial_position", self.initial_position, self.lot)


class Config(_Section):
    """The whole file."""

    feed: Feed
    session: Session
    risk: Risk
    host: Host = Host()
    instruments: Annotated[tuple[Instrument, ...], Field(min_length=1), BeforeValidator(
        lambda v: tuple(v) if isinstance(v, list) else v)]
    source: Path = Path("configuration")

    def rows(self):
        """Parameter rows as register words, one tuple an instrument."""
        return [params.row(i, self.feed.price_exponent) for i in self.instruments]

    def secret(self):
        """The session's secret. Raises :class:`ConfigError` if it is not where the configuration says."""
        s = self.session
        if s.secret_env is not None:
            secret = os.environ.get(s.secret_env, "")
            where = f"session.secret_env: environment variable {s.secret_env}"
        else:
            path = self.source.parent / s.secret_file
            where = f"session.secret_file: {path}"
            try:
                secret = path.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{self.source}: {where} cannot be read ({error}); it must hold the session's "
                                  f"secret") from None
        if not 1 <= len(secret) <= _ORDERS["Logon"]["secret"].size or not secret.isascii():
            raise ConfigError(f"{self.source}: {where} holds {len(secret)} characters, must be 1.."
                              f"{_ORDERS['Logon']['secret'].size} of ASCII")
        return secret


def load(path, instruments=16):
    """Read and check a configuration file for a card of ``instruments`` rows. Raises :class:`ConfigError`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            tree = tomllib.load(file, parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give a configuration file such as "
                          f"config/first_light.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    return build(tree, path, instruments)


def build(tree, source=Path("configuration"), instruments=16):
    """A checked :class:`Config` from plain data, as TOML gives it."""
    source, tree = Path(source), dict(tree)
    defaults = tree.pop("instrument_defaults", {})
    if isinstance(defaults, dict) and isinstance(tree.get("instruments"), list):
        for key in defaults:
            if key not in Instrument.model_fields:
                raise ConfigError(f"{source}: instrument_defaults.{key}: unknown key{_like(key, Instrument)}")
        tree["instruments"] = [{**defaults, **i} if isinstance(i, dict) else i for i in tree["instruments"]]
    if "source" in tree:
        raise ConfigError(f"{source}: source: unknown key; there are {', '.join(_keys(Config))}")
    try:
        config = Config(**tree, source=source)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error, tree)}") from None
    except TypeError as error:
        raise ConfigError(f"{source}: {error}") from None
    _check(config, instruments)
    return config


#: What cannot change while the daemon runs: positions, books and the venue's ids hang on the former, what the card has
#: been told of equity on the latter.
LOCKED = ("security_id", "instrument_id", "lot", "tick", "feed_tick")
LOCKED_RISK = ("equity", "money_unit")
#: Keys that count at the start only.
_AT_START = ("name", *LOCKED, "initial_position", *LOCKED_RISK)
_ONE_OF = {"half_spread_bps": "half_spread_ticks", "half_spread_ticks": "half_spread_bps"}


def index_of(config, instrument):
    """Index of the instrument of this name. Raises :class:`ConfigError`, which says what there is."""
    names = [i.name for i in config.instruments]
    if instrument not in names:
        near = difflib.get_close_matches(instrument, names, 1)
        raise ConfigError(f"instrument {instrument!r} is not quoted; " +
                          (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"))
    return names.index(instrument)


def change(config, changes, instrument=None, instruments=16):
    """A checked :class:`Config` with other limits, as if its file had said so.

    ``changes`` is {key of :class:`Risk` or :class:`Instrument`: text as in the file}. ``instrument`` is the name of the
    one that is meant; without one, all are. Giving one of the two half spreads takes the other away. ``instruments``:
    rows of the card. Raises :class:`ConfigError`.
    """
    source = Path("limits")
    if instrument is not None:
        index_of(config, instrument)
    risk = {key: getattr(config.risk, key) for key in Risk.model_fields}
    rows = [{key: value for key in Instrument.model_fields if (value := getattr(i, key)) is not None}
            for i in config.instruments]
    for key, text in changes.items():
        if key in _AT_START:
            raise ConfigError(f"{key} = {text}: counts at the start only; change it in the file and start the daemon "
                              f"again")
        if key in Risk.model_fields:
            if instrument is not None:
                raise ConfigError(f"{key} = {text}: is a limit of the whole card; give it without an instrument")
            risk[key] = _toml_value(text)
        elif key in Instrument.model_fields:
            for row in rows:
                if instrument in (None, row["name"]):
                    row[key] = _toml_value(text)
                    row.pop(_ONE_OF.get(key), None)
        else:
            known = [k for k in (*Risk.model_fields, *Instrument.model_fields) if k not in _AT_START]
            near = difflib.get_close_matches(key, known, 1)
            raise ConfigError(f"{key}: unknown key; " + (f"did you mean {near[0]!r}?" if near else
                                                         f"there are {', '.join(known)}"))
    changed = build({"feed": config.feed, "session": config.session, "host": config.host, "risk": risk,
                     "instruments": rows}, source, instruments)
    return changed.model_copy(update={"source": config.source})


def _toml_value(text):
    """A value as the file would give it; what is not TOML stays text, for the model to refuse."""
    try:
        tree = tomllib.loads(f"value = {text}", parse_float=Decimal)
    except tomllib.TOMLDecodeError:
        return text
    return tree["value"] if len(tree) == 1 else text


def _check(config, rows):
    """What only shows when the parts are put together or turned into register words."""
    def refuse(key, value, wanted):
        raise ConfigError(f"{config.source}: {key} = {value}: {wanted}")

    if len(config.instruments) > rows:
        refuse("instruments", len(config.instruments), f"this card has {rows} rows, so at most {rows}")
    for key in ("name", "security_id", "instrument_id"):
        seen = {}
        for n, instrument in enumerate(config.instruments):
            value = getattr(instrument, key)
            if value in seen:
                refuse(f"instruments[{n}].{key}", value, f"is already that of instruments[{seen[value]}]; must be "
                       f"unique")
            seen[value] = n
    for n, instrument in enumerate(config.instruments):
        try:
            params.row(instrument, config.feed.price_exponent)
            _ = instrument.initial_lots
        except params.ParameterError as error:
            refuse(f"instruments[{n}] ({instrument.name}).{error.key}", error.value, error.wanted)
    try:
        params.risk_words(config.risk)
        for instrument in config.instruments:
            params.check_lot_value(instrument, config.risk)
    except params.ParameterError as error:
        refuse(f"risk.{error.key}", error.value, error.wanted)
    if config.host.heartbeat_ms * 2 > config.risk.deadman_ms:
        refuse("host.heartbeat_ms", params.plain(config.host.heartbeat_ms), f"must be at most half of risk.deadman_ms "
               f"({params.plain(config.risk.deadman_ms)}), so that one late beat does not halt")
    if config.feed.line_b == config.feed.line_a:
        refuse("feed.line_b", config.feed.line_b, "must differ from feed.line_a")


def _keys(model):
    return [k for k in model.model_fields if k != "source"] + (["instrument_defaults"] if model is Config else [])


def _like(key, model):
    near = difflib.get_close_matches(key, _keys(model), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_keys(model))}"


_MODELS = {"feed": Feed, "session": Session, "risk": Risk, "host": Host, "instruments": Instrument}


def _explain(error, tree):
    """One line from pydantic's list: the first error with its key, value and what would be right."""
    errors = error.errors()
    first = errors[0]
    names, at = "", tree
    for part in first["loc"]:
        if isinstance(part, int):
            label = at[part].get("name", "") if isinstance(at, list | tuple) and isinstance(at[part], dict) else ""
            names += f"[{part}]" + (f" ({label})" if label else "")
        elif isinstance(at, dict) and part not in at and not isinstance(part, str):
            continue
        else:
            names += f".{part}" if names else str(part)
        try:
            at = at[part]
        except (KeyError, TypeError, IndexError):
            at = None
    model = _MODELS.get(first["loc"][0], Config) if len(first["loc"]) > 1 else Config
    value = first["input"]
    if first["type"] == "extra_forbidden":
        text = f"{names}: unknown key{_like(str(first['loc'][-1]), model)}"
    elif first["type"] == "missing":
        text = f"{names}: is missing; it is required"
    elif first["type"] in ("model_type", "tuple_type", "dict_type"):
        wanted = "a list of tables [[instruments]]" if first["type"] == "tuple_type" else "a table of keys"
        text = f"{names} = {value!r}: must be {wanted}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, params.ParameterError):
            text = f"{names}.{cause.key} = {cause.value}: {cause.wanted}"
        else:
            shown = params.plain(value) if isinstance(value, Decimal) else repr(value)
            text = f"{names} = {shown}: {message[:1].lower() + message[1:]}"
    more = len(errors) - 1
    return text + (f" (and {more} more)" if more else "")

"""The ``t2q`` command.

Exit codes: 0 done; 1 it ran and something that must hold did not, or there is a difference; 2 it could not run (one
line says why); 3 quoting has stopped, but the venue has not shown that nothing is open.
"""

import asyncio
import json
import logging
import os
import shlex
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hdl.control import registers as regmap

from . import config as configuration
from .control import Client, ControlError
from .device import DeviceError

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "config" / "first_light.toml"
CANNOT_RUN = 2
NOT_VERIFIED = 3
#: The daemon answers a stop within twice host.verify_ms and what reading the card takes.
STOP_TIMEOUT_S = 130.0

app = typer.Typer(
    name="t2q", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="tick2quote: market data in, two-sided quotes out, in gateware.\n\n"
         "Begin with `t2q replay`: it plays market data through the simulated gateware, with the daemon trading at a "
         "simulated exchange. `t2q run` serves a card; the other commands talk to it. Nothing is quoted before "
         "`t2q arm`. It has never been connected to a live market; do not be the first.\n\n"
         "Exit codes: 0 done; 1 a check failed or there is a difference; 2 it could not run, one line says why; 3 "
         "quoting has stopped, but the venue has not shown that nothing is open; 4 another daemon has locked this one "
         "out.")

CARD = "Serial port of the card's host link, or eth:INTERFACE[/MAC] for its link over Ethernet."
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration file (TOML).", show_default=False)]
SocketOption = Annotated[Path | None, typer.Option("--socket", "-s", show_default=False,
                                                   help="Control socket; default: host.control_socket of the "
                                                        "configuration.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _fail(message, code=CANNOT_RUN):
    print(f"t2q: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _one_line(*kinds):
    """Turn expected errors into one line and exit code 2; T2Q_DEBUG=1 shows where they come from."""
    try:
        yield
    except kinds as error:
        if os.environ.get("T2Q_DEBUG"):
            raise
        _fail(" ".join(str(error).split()) or type(error).__name__)


@contextmanager
def _building():
    """A bar while the virtual board is built; gives the function that is called with (share done, what)."""
    console = Console(stderr=True)
    with Progress(TextColumn("build the virtual board"), BarColumn(), TimeElapsedColumn(), console=console,
                  transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, visible=share < 1.0)


def _config(path):
    with _one_line(configuration.ConfigError):
        return configuration.load(path)


def _client(config, socket_path, timeout_s=10.0):
    if socket_path is None:
        socket_path = Path(_config(config).host.control_socket)
    with _one_line(ControlError):
        return Client(socket_path, timeout_s)


def _request(config, socket_path, do, timeout_s=10.0, **arguments):
    with _client(config, socket_path, timeout_s) as client, _one_line(ControlError):
        return client.request(do, **arguments)


def _print_json(value):
    print(json.dumps(value, indent=1))


# -- replay -----------------------------------------------------------------------------------------------------------

@app.command()
def replay(
    capture: Annotated[Path | None, typer.Argument(
        help="Capture of a CME MDP 3.0 feed (pcap). Without one: the v8 example capture under $T2Q_CAPTURES or "
             "../shared/captures if it is there, else generated traffic.", show_default=False)] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the results.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Seed of generated traffic and of the session's numbers.")] = 1,
    max_packets: Annotated[int | None, typer.Option(min=1, help="Stop after so many packets.",
                                                    show_default=False)] = None,
    as_json: JsonOption = False,
):
    """Play market data through the simulated gateware and show what came out.

    The daemon trades with a simulated exchange through the gateware's own order port; a golden model checks every
    frame. Results: quotes.pcap (opens in Wireshark), report.html, report.json. The same command gives the same frames.
    Exit code 1 if a check failed.

    Examples: t2q replay; t2q replay my.pcap --out results; t2q replay --max-packets 1000 --json
    """
    loaded = _config(config)
    if capture is not None and not capture.is_file():
        _fail(f"{capture}: no such file; give a pcap file, or none for the default")
    _logging("warning", False)
    from sim import replay as simulation
    from sim.board.verilate import BuildError
    from sim.report import summary
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
               TimeElapsedColumn())
    errors = (configuration.ConfigError, simulation.ReplayError, BuildError, DeviceError, ValueError, OSError)
    with _one_line(*errors), \
            Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        tasks = {}

        def progress(stage, done, total):
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        result = simulation.run_replay(loaded.source, capture, out, seed, max_packets, progress)
    if as_json:
        _print_json(summary.to_json(result))
    else:
        summary.print_table(result)
        print(f"\nresults: {out / 'quotes.pcap'}, {out / 'report.html'}, {out / 'report.json'}")
    if not all(passed for _, passed, _ in summary.verdicts(result)):
        raise typer.Exit(1)


# -- daemon -----------------------------------------------------------------------------------------------------------

def _logging(level, as_json):
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr))


@app.command()
def run(
    port: Annotated[str, typer.Argument(help=f"{CARD} A virtual board names its own.")],
    config: ConfigOption = DEFAULT_CONFIG,
    baud: Annotated[int, typer.Option(min=9600, help="Bits a second of a serial port; a virtual board ignores "
                                                     "it.")] = 3_000_000,
    arm: Annotated[bool, typer.Option("--arm", help="Arm as soon as the session is up; default: stay "
                                                      "disarmed.")] = False,
    socket_path: SocketOption = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON, one object a line.")] = False,
):
    """Run the daemon: check the card, load limits, open the exchange session, feed the dead-man.

    It stays disarmed until `t2q arm`. Ctrl-C or SIGTERM: disarm, verify that nothing is live, log out, exit. SIGUSR1:
    kill. If the daemon dies, the card's dead-man pulls every quote within risk.deadman_ms.

    Over Ethernet (untried on hardware) it needs CAP_NET_RAW, and the card's port for orders on the same segment.

    Examples: t2q run /dev/ttyUSB0 -c mine.toml; t2q run eth:enp3s0 -c mine.toml
    """
    if log_level.lower() not in ("debug", "info", "warning", "error"):
        _fail(f"--log-level {log_level}: must be debug, info, warning or error")
    loaded = _config(config)
    _logging(log_level, log_json)
    from . import control, daemon, metrics
    from .journal import Journal
    from .open_device import open_device
    with _one_line(DeviceError, ControlError, configuration.ConfigError, OSError):
        device, journal = open_device(port, baud), None
        try:
            journal = Journal(loaded.host.journal)
            serve = control.server(socket_path or loaded.host.control_socket)
            service = daemon.Daemon(loaded, device, journal=journal)

            async def servers(running, wake):
                parts = [serve(running, wake)]
                if loaded.host.metrics_port:
                    parts.append(metrics.serve(running, loaded.host.metrics_port))
                await asyncio.gather(*parts)

            code = asyncio.run(daemon.run(service, control=servers, arm=arm))
        finally:
            device.close()
            if journal:
                journal.close()
    if code:
        _fail(f"the daemon failed: {service.error or service.alarm}", daemon.FENCED if service.fenced else CANNOT_RUN)


@app.command()
def venue(
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 4210,
    seed: Annotated[int | None, typer.Option(help="Seed of a random market; without one the books are empty.",
                                             show_default=False)] = None,
    heartbeat: Annotated[int, typer.Option(min=1, max=3600, help="Heartbeat interval that it announces, in "
                                                                 "seconds.")] = 5,
    record: Annotated[Path | None, typer.Option(help="Directory for the bytes of every connection.", file_okay=False,
                                                exists=True, show_default=False)] = None,
):
    """Run the exchange simulator alone: Starbase order entry on a TCP port, until Ctrl-C.

    It lists the instruments of the configuration and knows its client and secret.
    """
    loaded = _config(config)
    with _one_line(configuration.ConfigError, OSError):
        from sim.venue.listing import venue_config
        from sim.venue.server import run_server
        listed = venue_config(loaded, loaded.secret(), heartbeat_s=heartbeat)

        def ready(server):
            print(f"Starbase order entry on {host}:{server.port}, {len(listed.instruments)} instruments, client "
                  f"{loaded.session.client_id}; Ctrl-C ends it", flush=True)

        gateway = run_server(listed, host, port, seed=seed, ready=ready, record=record)
    _print_json(gateway.engine.ledger.summary())


@app.command()
def board(
    capture: Annotated[Path | None, typer.Argument(
        help="Capture of a CME MDP 3.0 feed (pcap), played in a loop; default as for replay.",
        show_default=False)] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    seed: Annotated[int, typer.Option(help="Seed of generated traffic.")] = 1,
    max_packets: Annotated[int | None, typer.Option(min=1, help="Length of a round in packets.",
                                                    show_default=False)] = None,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds from one status to the next.")] = 1.0,
    tap: Annotated[str | None, typer.Option(help="TAP interface for the host link over Ethernet; made if there is "
                                                 "none, which needs CAP_NET_ADMIN.", show_default=False)] = None,
):
    """Run the virtual board as a card of its own, until Ctrl-C: the simulated gateware on a pseudo-terminal.

    The exchange simulator is at its order port, market data at its feed port. Prints JSON, one object a line: first
    the path to give to `t2q run`, then how things stand. Give the daemon the same configuration. Time-outs on this
    side count simulated time, which is slower than the daemon's.

    Example: t2q board   and in another terminal: t2q run /dev/pts/N, then t2q arm. Over Ethernet: t2q board --tap t2q0
    and t2q run eth:t2q0
    """
    loaded = _config(config)
    if capture is not None and not capture.is_file():
        _fail(f"{capture}: no such file; give a pcap file, or none for the default")
    from sim import live
    from sim.board.tap import TapError
    from sim.board.verilate import BuildError
    from sim.replay import ReplayError
    with _one_line(configuration.ConfigError, ReplayError, BuildError, TapError, ValueError, OSError), \
            _building() as progress:
        live.run_board(loaded.source, capture, seed, max_packets, every, lambda text: print(text, flush=True), progress,
                       tap)


simulation = typer.Typer(no_args_is_help=True, help="Everything at once, simulated.")
app.add_typer(simulation, name="sim", rich_help_panel=None)


@simulation.callback()
def _simulation():
    """Everything at once, simulated."""


@simulation.command()
def up(
    capture: Annotated[Path | None, typer.Argument(
        help="Capture of a CME MDP 3.0 feed (pcap), played in a loop; default as for replay.",
        show_default=False)] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    seed: Annotated[int, typer.Option(help="Seed of generated traffic, and of the exchange's market.")] = 1,
    max_packets: Annotated[int | None, typer.Option(min=1, help="Length of a round in packets.",
                                                    show_default=False)] = None,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds from one status to the next.")] = 5.0,
):
    """Start virtual board, exchange and daemon, and leave them running until Ctrl-C.

    The board is on a TAP interface in a network namespace, with the exchange simulator behind Linux's own TCP; the
    daemon is at its serial port. Prints JSON, one object a line: first how to ping the card, and where the daemon's
    control socket is, then how things stand. It stays disarmed until `t2q arm`. Where this user may not make network
    namespaces, one with a user namespace is tried.

    Example: t2q sim up   and in another terminal: t2q status, t2q arm, t2q watch
    """
    loaded = _config(config)
    if capture is not None and not capture.is_file():
        _fail(f"{capture}: no such file; give a pcap file, or none for the default")
    from sim.board.tap import TapError
    from sim.board.verilate import BuildError
    from sim.kernel import ExchangeError
    from sim.replay import ReplayError
    from sim.up import UpError, run_up
    with _one_line(configuration.ConfigError, ReplayError, BuildError, TapError, ExchangeError, UpError, OSError), \
            _building() as progress:
        run_up(loaded.source, capture, seed, max_packets, every, lambda text: print(text, flush=True), progress)


# -- commands to a running daemon -------------------------------------------------------------------------------------

def _console():
    """Standard output; where it is no terminal, wide enough for whole rows."""
    return Console(width=None if sys.stdout.isatty() else 200)


def _status_table(status):
    table = Table(box=None, pad_edge=False, title=(
        f"{status['state']}" + (f" ({', '.join(status['halt_cause'])})" if status["halt_cause"] else "") +
        f"   daemon {status['phase']}   session {status['session']}" +
        (f"   {status['error']}" if status["error"] else "")), title_justify="left")
    for name in ("instrument", "position", "open bid", "open ask", "best bid", "best ask", "bid", "ask", "blocked by"):
        table.add_column(name, justify="left" if name in ("instrument", "blocked by") else "right", no_wrap=True)
    for i in status["instruments"]:
        best = i["best"] or ["", ""]
        quote = i["quote"] or [0, 0, 0, 0]
        table.add_row(i["name"], str(i["position_lots"]), str(i["open_bid_lots"]), str(i["open_ask_lots"]),
                      str(best[0]), str(best[1]), f"{quote[1]} @ {quote[0]}" if quote[1] else "-",
                      f"{quote[3]} @ {quote[2]}" if quote[3] else "-", " ".join(i["reasons"]))
    return table


def _status_line(status):
    decisions = ", ".join(f"{v} {k.lower()}" for k, v in sorted(status["decisions"].items())) or "none"
    return (f"decisions: {decisions}; fills: {status['fills']}; answers: {sum(status['answers'].values())}; "
            f"{_venue_text(status)}; equity {status['equity']['now']} (start {status['equity']['start']}, best "
            f"{status['equity']['greatest']}); epoch {status['epoch']}"
            + ("; limits are staged, see t2q limits diff" if status["limits_staged"] else ""))


def _venue_text(answer):
    """What is open at the venue, and whether that has been verified since quoting stopped."""
    lots = answer["open_at_venue"]
    return f"open at the venue: {'unknown' if lots is None else f'{lots} lots'}" + (
        " (being verified)" if answer.get("verifying") else ", verified" if answer["verified"] else "")


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """Show state, session, positions and quotes of a running daemon (prices in ticks, quantities in lots)."""
    answer = _request(config, socket_path, "status")
    if as_json:
        _print_json(answer)
        return
    console = _console()
    console.print(_status_table(answer))
    console.print(_status_line(answer), highlight=False)


@app.command()
def watch(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None,
          interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 0.5,
          as_json: JsonOption = False):
    """Like status, again and again, until Ctrl-C. With --json: one object a line."""
    with _client(config, socket_path) as client, _one_line(ControlError):
        try:
            if as_json:
                while True:
                    print(json.dumps(client.request("status")), flush=True)
                    time.sleep(interval)
            with Live(_status_table(client.request("status")), auto_refresh=False) as live:
                while True:
                    time.sleep(interval)
                    live.update(_status_table(client.request("status")), refresh=True)
        except KeyboardInterrupt:
            pass


def _done(answer, as_json):
    if as_json:
        _print_json(answer)
    else:
        print(answer["state"] + (f" ({', '.join(answer['halt_cause'])})" if answer.get("halt_cause") else ""))


def _stopped(answer, as_json):
    """Quoting was stopped: say what the venue has shown, in the exit code too."""
    _done(answer, as_json)
    if not as_json and answer["verified"]:
        print("verified: nothing is open at the venue")
    if not answer["verified"]:
        lots = answer["open_at_venue"]
        print(f"t2q: NOT VERIFIED that nothing is open at the venue ({'unknown' if lots is None else f'{lots} lots'}); "
              f"look at the venue, t2q status says why, t2q kill tries again", file=sys.stderr)
        raise typer.Exit(NOT_VERIFIED)


@app.command()
def arm(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None,
        clear_halt: Annotated[bool, typer.Option("--clear-halt", help="Leave HALTED first; find out why it halted "
                                                                      "before you do.")] = False,
        as_json: JsonOption = False):
    """DISARMED -> ACTIVE: quotes go out from now on. Refused unless the session is up."""
    _done(_request(config, socket_path, "arm", clear_halt=clear_halt), as_json)


@app.command()
def disarm(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """Stop quoting: every quote is cancelled, and the venue must show that nothing is open. Arm again at will.

    It returns when the card has nothing live and the venue has been verified, as t2q kill does. Exit code 3 if it has
    not been.
    """
    _stopped(_request(config, socket_path, "disarm", STOP_TIMEOUT_S), as_json)


@app.command()
def reduce(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """ACTIVE -> REDUCING: only quotes that reduce a position go out."""
    _done(_request(config, socket_path, "reduce"), as_json)


@app.command()
def kill(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """-> HALTED, from any state: everything is cancelled and stays so until arm --clear-halt.

    The card sends a mass cancel. Then the daemon verifies that nothing is open: every quote and cancel must be answered
    and no lot left within host.verify_ms. If not, it sends a mass cancel of its own, once, and looks again for as long.
    Exit code 0: verified. 3: not verified, something may be open; look at the venue. A second kill verifies again.
    """
    _stopped(_request(config, socket_path, "kill", STOP_TIMEOUT_S), as_json)


@app.command()
def release(
    instrument: Annotated[str, typer.Argument(help="Name of the instrument, as in the configuration.")],
    config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False,
):
    """Let go of an instrument that a gate holds: it said the same too often (G15), too much of it traded (G17, G18), or
    the exchange refused too much (G20). Find out why first: t2q why.

    Example: t2q release IDX01_USDC-PERPETUAL
    """
    answer = _request(config, socket_path, "release", instrument=instrument)
    if as_json:
        _print_json(answer)
    else:
        print(f"{instrument}: released")


@app.command()
def reference(
    instrument: Annotated[str, typer.Argument(help="Name of the instrument, as in the configuration.")],
    price: Annotated[str, typer.Argument(help="An independent price of it, just seen, in its own units.")],
    local: Annotated[str | None, typer.Option(help="Price at the quoted venue; default: the same.",
                                              show_default=False)] = None,
    basis: Annotated[str, typer.Option(help="What the feed's price is above the quoted venue's.")] = "0",
    config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False,
):
    """Tell the card a reference price (gates G6 and G6c). Only with host.references = "external".

    A reference counts for no longer than risk.reference_ms: a price source calls this again and again, with what it has
    just seen. What nobody renews grows old, and the instrument is not quoted any more.

    Example: t2q reference IDX01_USDC-PERPETUAL 7574.5 --local 7573 --basis 1.5
    """
    answer = _request(config, socket_path, "reference", instrument=instrument, price=price, local=local or price,
                      basis=basis)
    if as_json:
        _print_json(answer)
    else:
        print(f"{instrument}: {price}")


# -- limits -----------------------------------------------------------------------------------------------------------

limits_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help=(
    "Show limits, change them, make them active. Without a command: show.\n\n"
    "New limits are staged first (set, load): checked as a file is and written to the card's shadow bank, without "
    "effect. Then diff shows what would change, and arm makes it active, every instrument in one cycle. What is "
    "printed is read back from the card's words, which hold whole ticks, lots and cycles."))
app.add_typer(limits_app, name="limits")
InstrumentOption = Annotated[str | None, typer.Option("--instrument", "-i", help="Name of one instrument; default: "
                                                      "all.", show_default=False)]


def _words(words):
    return " ".join(f"{name}={value}" for name, value in words.items())


def _with_unit(value, unit):
    return "-" if value is None else f"{value} {unit}".rstrip()


def _limits_table(columns, rows):
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("value", "active", "staged", "was", "now") else "left",
                         overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _changes_table(changes, old, new):
    _limits_table(("instrument", "limit", old, new, "words"), (
        (c["instrument"], c["limit"], _with_unit(c["active"], c["unit"]), _with_unit(c["staged"], c["unit"]),
         " ".join(f"{name}: {'-' if a is None else a} -> {'-' if b is None else b}"
                  for name, (a, b) in c["words"].items())) for c in changes))


def _changed(answer, old, new, done, as_json):
    """Say what a command has changed, or would."""
    if as_json:
        _print_json(answer)
    else:
        _changes_table(answer["changes"], old, new)
        print(done)


def _show_limits(config, socket_path, instrument, as_json):
    answer = _request(config, socket_path, "limits show")
    names = list(dict.fromkeys(limit["instrument"] for limit in answer["limits"]))
    if instrument is not None and instrument not in names:
        _fail(f"--instrument {instrument}: there are {', '.join(names)}")
    answer["limits"] = [limit for limit in answer["limits"] if instrument in (None, limit["instrument"])]
    if as_json:
        _print_json(answer)
        return
    _limits_table(("instrument", "limit", "value", "words"), (
        (limit["instrument"], limit["limit"], _with_unit(limit["value"], limit["unit"]), _words(limit["words"]))
        for limit in answer["limits"]))
    if answer["staged"]:
        print("other limits are staged: t2q limits diff")


@limits_app.callback()
def limits(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None,
           as_json: JsonOption = False):
    if context.invoked_subcommand is None:
        _show_limits(config, socket_path, None, as_json)
    elif config != DEFAULT_CONFIG or socket_path is not None or as_json:
        _fail(f"give options behind the command: t2q limits {context.invoked_subcommand} --socket ...")


@limits_app.command("show")
def limits_show(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None,
                instrument: InstrumentOption = None, as_json: JsonOption = False):
    """Show the limits in force, in the units of the file and, beside them, in the words of the card.

    Limits of the whole card stand under the name "card". A limit without words is the host's alone. In JSON values are
    text, so that they stay exact.

    Example: t2q limits show -i IDX01_USDC-PERPETUAL
    """
    _show_limits(config, socket_path, instrument, as_json)


@limits_app.command("set")
def limits_set(
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Keys of [risk] or of an instrument, "
                                                 "values as in the file.", show_default=False)],
    config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, instrument: InstrumentOption = None,
    as_json: JsonOption = False,
):
    """Stage single limits, on top of what is staged already. Nothing is active before t2q limits arm.

    What a register cannot hold is refused, with what it could. What it cannot hold exactly is rounded (limits, ages and
    rates down, spreads up, price bands inwards), and "stored as" says to what. Exit code 2 if it was refused.

    Example: t2q limits set max_long=5 max_short=5 -i IDX01_USDC-PERPETUAL; t2q limits set deadman_ms=50
    """
    asked = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not (key and equals and value):
            _fail(f"{change}: must be KEY=VALUE such as max_long=5")
        if key in asked:
            _fail(f"{change}: {key} is given twice")
        asked[key] = value
    answer = _request(config, socket_path, "limits set", changes=asked, instrument=instrument)
    if as_json:
        _print_json(answer)
        return
    for s in answer["stored"]:
        stored = _with_unit(s["value"], s["unit"])
        print(f"{s['instrument']} {s['limit']} = " + (f"{s['given']}, stored as {stored}" if s["rounded"] else stored) +
              (f" ({_words(s['words'])})" if s["words"] else ""))
    print("staged, not active: t2q limits diff shows it, t2q limits arm makes it active")


@limits_app.command("load")
def limits_load(
    file: Annotated[Path, typer.Argument(help="Configuration file (TOML).", show_default=False)],
    now: Annotated[bool, typer.Option("--arm", help="Make them active at once.")] = False,
    config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False,
):
    """Stage the limits of a configuration file in place of what is staged; with --arm make them active at once.

    Only risk and instruments are taken from the file; instruments, ticks and lots must be those that are running, and
    so must equity and money_unit. Exit code 2 if the file was refused.

    Example: t2q limits load tighter.toml
    """
    _config(file)  # refuse here what the daemon would refuse
    answer = _request(config, socket_path, "limits load", file=str(file.resolve()), arm=now)
    if now:
        _changed(answer, "was", "now", "active", as_json)
    else:
        _changed(answer, "active", "staged", "staged, not active: t2q limits arm makes it active", as_json)


@limits_app.command("diff")
def limits_diff(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """Show what is staged against what is active, in the units of the file and in words.

    Exit code 0: no difference. 1: there is one. 2: it could not be found out.
    """
    answer = _request(config, socket_path, "limits diff")
    if as_json:
        _print_json(answer)
    elif answer["changes"]:
        _changes_table(answer["changes"], "active", "staged")
    else:
        print("no difference" + ("" if answer["staged"] else ": nothing is staged"))
    if answer["changes"]:
        raise typer.Exit(1)


@limits_app.command("arm")
def limits_arm(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """Make active what is staged, and show what that changed.

    Instruments change all in one cycle, and each is evaluated anew. Limits of the whole card (dead-man, rates) are
    registers of their own and are written just before. Exit code 2 if nothing is staged.
    """
    _changed(_request(config, socket_path, "limits arm"), "was", "now", "active", as_json)


@limits_app.command("discard")
def limits_discard(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None,
                   as_json: JsonOption = False):
    """Forget what is staged, and show what it would have changed. Exit code 2 if nothing is staged.

    What is active stays as it is; the shadow bank of the card is brought up to date with the next change.
    """
    _changed(_request(config, socket_path, "limits discard"), "active", "staged", "discarded", as_json)


@app.command("why")
def why_not(
    count: Annotated[int, typer.Argument(metavar="[N]", min=1, max=1000, help="How many of the last ones.")] = 10,
    config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, instrument: InstrumentOption = None,
    as_json: JsonOption = False,
):
    """Explain the last decisions that a gate stopped, in part or altogether, newest last.

    The daemon keeps the last 1,000 of them. Each one says what the engine wanted, what stood at the venue, and for each
    gate that failed what it watches and the values that it compared, with the limits that were active then. Where a
    value is not known to the host, it says which register or counter tells it.

    Example: t2q why 3 -i IDX01_USDC-PERPETUAL
    """
    from . import why
    answer = _request(config, socket_path, "why", count=count, instrument=instrument)
    if as_json:
        _print_json(answer)
    elif answer["drops"]:
        print("\n\n".join(why.text(drop) for drop in answer["drops"]))
    else:
        print("no decision has been stopped by a gate" + (f" of the last {answer['kept']} kept" if answer["kept"]
                                                          else ""))


@app.command()
def latency(config: ConfigOption = DEFAULT_CONFIG, socket_path: SocketOption = None, as_json: JsonOption = False):
    """Show trigger-to-quote as the card has measured it at its own pins: least, greatest, and the histogram.

    In cycles of 8 ns, from the trigger byte on the feed port's receive pins to the first preamble byte of the quote on
    the order port's transmit pins (GMII; what the PHYs add is not in it), over all quotes that a trigger byte has
    caused since the card was reset. A running daemon reads it over the host link.

    Example: t2q latency --json
    """
    from . import latency as measured
    answer = _request(config, socket_path, "latency")
    if as_json:
        _print_json(answer)
    else:
        print(measured.text(answer))


@app.command()
def flash(
    board: Annotated[str, typer.Argument(help="colorlight_5a75b_r7_0, ecpix5 or versa_ecp5.")],
    port: Annotated[str | None, typer.Option("--port", "-p", help=f"For the check afterwards. {CARD}",
                                           show_default=False)] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Write it, and do not ask the card.")] = False,
    permanent: Annotated[bool, typer.Option("--permanent", help="Into the flash memory, for every start; default: into "
                                                                "the FPGA, until power goes.")] = False,
    bitstream: Annotated[Path | None, typer.Option(help="Default: what 'make bitstream BOARD=...' made.",
                                                   show_default=False)] = None,
    cable: Annotated[str | None, typer.Option(help="openFPGALoader's arguments for the cable instead of the board's, "
                                                   "e.g. \"-c ft2232\".", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and do nothing.")] = False,
    as_json: JsonOption = False,
):
    """Write a bitstream to a board with openFPGALoader, then check the card's register map over the host link.

    Untried on hardware so far: no board has been written with it yet. The card comes up disarmed.

    Example: t2q flash ecpix5 --port /dev/ttyUSB1
    """
    from . import flash as flashing
    from .open_device import is_ethernet, open_device
    with _one_line(flashing.FlashError, DeviceError):
        command = flashing.plan(board, bitstream=bitstream, permanent=permanent, extra=(cable or "").split())
        if dry_run:
            print(shlex.join(command.argv))
            return
        if port is None and not no_check:
            raise flashing.FlashError("--port is missing: the card's host link, or --no-check")
        if port is not None and not is_ethernet(port) and not Path(port).exists():
            raise flashing.FlashError(f"{port}: no such serial port")
        command.run()
        found = None
        if port is not None and not no_check:
            device = open_device(port, command.board.baud)
            try:
                found = flashing.check(device)
            finally:
                device.close()
    if as_json:
        _print_json({"board": board, "bitstream": str(command.bitstream), "permanent": permanent, "map_hash": found})
    else:
        print(f"{board}: written" + (f"; the card answers, register map {found:08x}" if found is not None
                                     else "; not checked"))


@app.command()
def registers(as_json: JsonOption = False):
    """Print the register map that this host expects, with its content hash."""
    print(regmap.to_json() if as_json else regmap.to_markdown(), end="\n" if as_json else "")


def main():
    """Entry point of ``t2q``."""
    app()


if __name__ == "__main__":
    main()

"""``python -m boards``: bitstreams, and the speed of single components."""

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from boards import board as boards
from boards import build as building
from boards import flow

CANNOT_RUN = 2

app = typer.Typer(name="boards", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode=None, help="Bitstreams for the supported boards, with Yosys, nextpnr and ecppack.")


@app.callback()
def _app():
    pass


@contextmanager
def _stages():
    """A line that says what the tools are doing and since when, on standard error."""
    console = Console(stderr=True)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
                  transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def progress(stage, what):
            if stage not in tasks:
                for task in tasks.values():
                    bar.stop_task(task)
                tasks[stage] = bar.add_task(stage)
            bar.update(tasks[stage], description=f"{stage}: {what}")

        yield progress


@contextmanager
def _one_line(*kinds):
    try:
        yield
    except kinds as error:
        if os.environ.get("T2Q_DEBUG"):
            raise
        print(f"boards: {error}", file=sys.stderr)
        raise typer.Exit(1 if isinstance(error, flow.TimingError) else CANNOT_RUN) from None


def _print_figures(figures):
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, pad_edge=False)
    for name in ("", "", "of", "%"):
        table.add_column(name, justify="left" if not table.columns else "right")
    for clock, (reached, wanted) in figures.clocks.items():
        table.add_row(f"clock {clock}", f"{reached:.1f} MHz", f"{wanted:.1f} MHz",
                      "met" if reached >= wanted else "MISSED")
    for kind, name in (("lut", "LUT4"), ("ff", "flip-flops"), ("bram", "block RAM"), ("dsp", "multipliers 18x18"),
                       ("pll", "PLL")):
        table.add_row(name, str(figures.used[kind]), str(figures.available[kind]), f"{figures.percent(kind):.1f}")
    console.print(table, highlight=False)


def _made(name, file, what, first):
    """Path of a file that building a board leaves, or of one by its own name."""
    path = flow.BUILD / "boards" / name / file if name in boards.BOARDS else Path(name)
    if not path.is_file():
        print(f"boards: {path}: no such {what}; {first} first", file=sys.stderr)
        raise typer.Exit(CANNOT_RUN)
    return path


def _netlist(name):
    return _made(name, "top.json", "netlist", "build or time something")


@app.command()
def build(
    board: Annotated[str, typer.Argument(help="One of the supported boards; 'list' names them.")],
    instruments: Annotated[int | None, typer.Option(min=1, max=256, help="Instead of the board's own number.",
                                                    show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of the placer, instead of the board's own.",
                                             show_default=False)] = None,
):
    """Make a bitstream, with the timing check on; prints clocks and size.

    Logs and bitstream: build/boards/BOARD/. Figures: out/boards/BOARD.json. Exit code 1 if a clock misses its target
    (the critical path is printed), 2 if it could not be built.

    Example: python -m boards build colorlight_5a75b_r7_0
    """
    with _one_line(flow.FlowError, ValueError):
        chosen = boards.load(board)
        with _stages() as progress:
            try:
                built = building.build(chosen, instruments=instruments, seed=seed, progress=progress)
            except flow.TimingError as error:
                _print_figures(error.figures)
                raise
    _print_figures(built.figures)
    print(f"{built.bitstream}: {built.bitstream.stat().st_size} bytes; figures in {built.report}")


@app.command()
def sizes(
    netlist: Annotated[str, typer.Argument(help="A board that was synthesised, or a netlist (top.json).")],
    depth: Annotated[int, typer.Option(min=1, help="Levels of submodules that are shown.")] = 3,
    least: Annotated[int, typer.Option(min=0, help="LUTs that a submodule must have to be shown.")] = 50,
):
    """What each submodule of a synthesised design takes, the largest first within its parent.

    Example: python -m boards sizes colorlight_5a75b_r7_0 --depth 4
    """
    found = flow.sizes(_netlist(netlist))
    table = Table(box=None, pad_edge=False)
    for name in ("", "LUT4", "flip-flops", "block RAM", "multipliers"):
        table.add_column(name, justify="right" if name else "left")

    def show(scope, level):
        table.add_row("  " * level + scope.rpartition(".")[2], *(str(v) for v in found[scope].values()))
        inner = [each for each in found if each.rpartition(".")[0] == scope]
        for each in sorted(inner, key=lambda each: -found[each]["lut"]):
            if level + 1 < depth and found[each]["lut"] >= least:
                show(each, level + 1)

    for scope in sorted((each for each in found if "." not in each), key=lambda each: -found[each]["lut"]):
        show(scope, 0)
    Console(width=None if sys.stdout.isatty() else 120).print(table, highlight=False)


@app.command()
def depth(
    netlist: Annotated[str, typer.Argument(help="A board that was synthesised, or a netlist (top.json).")],
    ways: Annotated[int, typer.Option(min=1, help="How many are shown, ends of one signal counting once.")] = 10,
    target: Annotated[float, typer.Option(help="MHz that the ends are counted against.")] = 125.0,
):
    """The longest ways between registers, estimated from the netlist in seconds, without placing it.

    Example: python -m boards depth colorlight_5a75b_r7_0 --ways 20
    """
    from boards import depth as estimate
    found = estimate.longest(_netlist(netlist))
    seen = set()
    for way in found:
        kind = re.sub(r"\d+", "#", way.end)
        if kind in seen:
            continue
        seen.add(kind)
        print(f"{way.ns:6.2f} ns, {way.cells:2} cells: {way.end}")
        for ns, name in way.hops:
            print(f"    {ns:6.2f}  {name}")
        if len(seen) == ways:
            break
    period = 1000 / target
    print(f"{sum(way.ns > period for way in found)} of {len(found)} ends above {period:g} ns")


@app.command()
def ends(
    board: Annotated[str, typer.Argument(help="A board that was placed and routed, or a report of nextpnr's.")],
    least: Annotated[float, typer.Option(help="Nanoseconds from which on an end is shown.")] = 7.0,
    clock: Annotated[str | None, typer.Option(help="Its ends; the others are named if there is none such.",
                                              show_default="that of most ends")] = None,
):
    """The slowest ends of a routed design, signal by signal, whether it met its clock or not.

    Example: python -m boards ends versa_ecp5 --least 6.5
    """
    from boards import ends as routed
    path = _made(board, "report.json", "report", "build the board")
    with _one_line(flow.FlowError):
        number, found = routed.slowest(path, least_ns=least, clock=clock)
    for end in found:
        print(f"{end.ns:6.2f} ns {end.count:5} of {end.signal} ({end.port})   {end.net}")
    print(f"{sum(end.count for end in found)} of {number} ends at {least:g} ns or later")


@app.command("list")
def list_boards():
    """Names of the supported boards."""
    for name in boards.BOARDS:
        print(f"{name:<24}{boards.describe(boards.load(name))}")


@app.command("time")
def time_component(
    component: Annotated[str, typer.Argument(help="Import path, package.module:Class.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Constructor arguments, name=value.",
                                                          show_default=False)] = None,
    device: Annotated[str, typer.Option("--device", "-d", help="25F, 45F or 85F.")] = "25F",
    target: Annotated[float, typer.Option(help="MHz that the placer aims at.")] = 125.0,
    seed: Annotated[list[int] | None, typer.Option(help="Of the placer; several times: the best and the worst are "
                                                        "shown.", show_default="1")] = None,
    synth: Annotated[str, typer.Option(help="More options of synth_lattice, e.g. \"-nowidelut\".")] = "",
    pnr: Annotated[str, typer.Option(help="More options of nextpnr, e.g. \"--tmg-ripup\".")] = "",
):
    """Place and route one component alone, between registers, and show its clock, size and critical path.

    Exit code 0 whatever the speed. Files are in build/time/.

    Example: python -m boards time hdl.mac.rx:MacRx --device 25F --seed 1 --seed 2
    """
    from boards import measure
    if device not in flow.DEVICES:
        print(f"boards: --device {device}: must be one of {', '.join(flow.DEVICES)}", file=sys.stderr)
        raise typer.Exit(CANNOT_RUN)
    with _one_line(flow.FlowError, ValueError, ImportError, AttributeError, TypeError):
        runs = []
        for one in seed or [1]:
            with _stages() as progress:
                figures = measure.measure(
                    component, measure.parse_arguments(arguments or []), device, target_mhz=target, seed=one,
                    options=pnr.split(), synth_options=synth.split(), progress=progress)
            if not figures.clocks:
                raise flow.FlowError(f"{component} has no path from register to register")
            runs.append((figures.worst()[1], one, figures))
            if len(seed or [1]) > 1:
                print(f"seed {one}: {figures.worst()[1]:.1f} MHz", flush=True)
    _, one, figures = max(runs, key=lambda run: run[0])
    _print_figures(figures)
    if len(runs) > 1:
        print(f"seeds {', '.join(str(s) for _, s, _ in runs)}: {min(r[0] for r in runs):.1f} to "
              f"{max(r[0] for r in runs):.1f} MHz; shown: seed {one}")
    print("critical path:")
    print("\n".join(flow.path_lines(figures)))
    print(", ".join(f"{stage} {spent:.0f} s" for stage, spent in figures.seconds.items()))


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Names in the netlist depend on it, and with them the placement.
        os.execve(sys.executable, [sys.executable, "-m", "boards", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"})
    app()

"""Bitstream of a board, with its figures."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from boards import flow
from boards.board import BoardTop

__all__ = ["Built", "build", "prepare", "summary"]


@dataclass(frozen=True)
class Built:
    """A finished build: ``bitstream``, the JSON file with its figures ``report``, and the ``figures``."""

    bitstream: Path
    report: Path
    figures: flow.Figures


def prepare(board, instruments=None, core=None):
    """(RTLIL, constraints) of a board's top level."""
    plan = board.platform(toolchain="Trellis").prepare(BoardTop(board, instruments, core), "top")

    def text(name):
        content = plan.files[name]
        return content if isinstance(content, str) else content.decode()

    return text("top.il"), text("top.lpf")


def summary(board, instruments, seed, figures):
    """The figures as ``out/boards/<board>.json`` has them."""
    _, reached, wanted = figures.worst()
    return {
        "board": board.name, "instruments": instruments, "seed": seed, "closed": figures.closed,
        "fmax_mhz": round(reached, 2), "target_mhz": wanted,
        "clocks": {name: {"fmax_mhz": round(got, 2), "target_mhz": want}
                   for name, (got, want) in figures.clocks.items()},
        "lut": figures.used["lut"], "lut_pct": round(figures.percent("lut"), 1),
        "ff": figures.used["ff"], "bram": figures.used["bram"], "bram_pct": round(figures.percent("bram"), 1),
        "dsp": figures.used["dsp"], "dsp_pct": round(figures.percent("dsp"), 1),
        "seconds": dict(figures.seconds),
    }


def build(board, *, instruments=None, core=None, seed=None, directory=None, report=None, progress=None):
    """Build a bitstream; returns :class:`Built`.

    A netlist that is there already is used again if nothing that it was made from has changed.

    Parameters
    ----------
    board : boards.board.Board
    instruments, seed : int
        Other than the board's own.
    core : component
        Something else with the ports of a core, instead of one.
    directory : Path
        ``build/boards/<board>`` if not given.
    report : Path
        ``out/boards/<board>.json`` if not given. Written when timing is missed too.
    progress : callable
        Called with a stage and what happens in it.

    Raises
    ------
    TimingError
        A clock misses its target; there is no bitstream then.
    FlowError
        A tool is missing or failed.
    """
    instruments, seed = instruments or board.instruments, board.seed if seed is None else seed
    directory = Path(directory or flow.BUILD / "boards" / board.name)
    report = Path(report or flow.ROOT / "out" / "boards" / f"{board.name}.json")
    bitstream = directory / "top.bit"
    bitstream.unlink(missing_ok=True)
    report.unlink(missing_ok=True)
    if progress:
        progress("elaboration", board.name)
    rtlil, lpf = prepare(board, instruments, core)
    netlist, synthesis_s = flow.synthesise_cached(rtlil, directory, options=board.synth_options, progress=progress)

    def write(figures):
        figures.seconds["synthesis"] = round(synthesis_s, 1)
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(summary(board, instruments, seed, figures), indent=1) + "\n")

    try:
        figures = flow.place_and_route(netlist, flow.DEVICES[board.device], lpf=lpf, target_mhz=125.0, seed=seed,
                                       options=board.pnr_options, annealing=board.annealing, progress=progress)
    except flow.TimingError as error:
        write(error.figures)
        raise
    figures.seconds["bitstream"] = round(flow.pack(directory / "top.config", bitstream, progress=progress), 1)
    write(figures)
    named = directory / f"{board.name}.bit"
    shutil.copyfile(bitstream, named)
    return Built(named, report, figures)

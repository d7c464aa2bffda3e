"""Commands of the tool chain: ``python -m sim.board {verilog,lint,bench}``."""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from rich.progress import Progress

from sim.board.board import VirtualBoard
from sim.board.segments import FULL
from sim.board.verilate import BuildError, Design, lint


def speed(board: VirtualBoard, seconds: float) -> tuple[int, float]:
    """Simulate a design with all its ports as busy as they can be, which is the slowest that it gets.

    Returns (cycles, processor seconds that they took); stops after ``seconds`` of these.
    """
    frame = bytes.fromhex("01005e000001020000000001 0800") + bytes(range(256)) * 5
    cycles, used, burst = 0, 0.0, 100_000
    while used < seconds:
        for port in board.ports:
            board.inject_many(port, [frame] * (burst // len(frame)), [board.cycle] * (burst // len(frame)))
        begin = time.process_time()
        cycles += board.run(burst)
        used += time.process_time() - begin
        for port in board.build.transmitting:
            board.take_tx(port)
    return cycles, used


def _bench(design: Design, seconds: float) -> None:
    with Progress(transient=True) as bar:
        task = bar.add_task("building", total=1.0)
        board = VirtualBoard(design, progress=lambda share, what: bar.update(task, completed=share, description=what))
    with board:
        cycles, used = speed(board, seconds)
        print(f"{design.top}: {cycles / used:,.0f} cycles/s ({cycles:,} cycles in {used:.1f} s)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.board", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("verilog", "write the design as Verilog"), ("lint", "let Verilator check the Verilog"),
                       ("bench", "measure simulated cycles a second")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--top", default="hdl.core:Core", help="component, as package.module:Class")
        command.add_argument("--arguments", type=json.loads, default={}, help="its keyword arguments, as JSON")
        command.add_argument("--segment", type=int, default=FULL, metavar="N",
                             help="most statements that sleep together in a simulation; 0: nothing sleeps")
        if name == "verilog":
            command.add_argument("--output", type=Path, required=True)
            command.add_argument("--form", choices=("verilog", "board"), default="verilog", help=argparse.SUPPRESS)
            command.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
        if name == "bench":
            command.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    try:
        design = Design(options.top, options.arguments, options.segment)
        match options.command:
            case "verilog" if options.in_process:
                text = design.elaborate() if options.form == "verilog" else design.elaborate_board()
                partial = options.output.with_suffix(".partial")
                partial.write_text(text)
                partial.rename(options.output)
            case "verilog":
                options.output.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(design.verilog(), options.output)
                print(options.output)
            case "lint":
                if warnings := lint(design):
                    print(warnings, file=sys.stderr)
                    return 1
            case "bench":
                _bench(design, options.seconds)
    except (BuildError, ValueError) as error:
        print(f"tick2quote: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The tables of docs/boards.md: one from the descriptions of the boards, one from the figures of the last builds."""

import json
import re
from pathlib import Path

from boards import flow
from boards.board import BOARDS, load
from hdl.phy.ecp5 import Delay

__all__ = ["PAGE", "board_table", "figure_table", "fill", "write"]

PAGE = flow.ROOT / "docs" / "boards.md"
_BLOCK = r"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"


def _row(cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def board_table():
    """What each board has, in Markdown."""
    rows = [_row(("name", "board", "FPGA", "ports", "host link", "instruments", "receive data delayed by",
                  "transmit clock delayed by")), _row(["---"] * 8)]
    for name in BOARDS:
        board = load(name)
        platform = board.platform
        ports = "one, shared" if board.shared_port else f"feed {board.feed_port}, orders {board.order_port}"
        delays = [f"{board.card[key] * Delay.TAP_PS / 1000:g} ns ({board.card[key]} taps)"
                  for key in ("rx_delay_taps", "tx_clock_delay_taps")]
        link = f"UART, {board.baud / 1e6:g} Mbit/s" + ("" if board.shared_port else "; Ethernet, port of orders")
        rows.append(_row((f"`{name}`", board.title, f"{platform.device}-{platform.speed}", ports, link,
                          board.instruments, *delays)))
    return "\n".join(rows)


def notes():
    """What a user of each board must know, in Markdown."""
    return "\n\n".join(f"**{load(name).title}**\n\n" + "\n".join(f"- {note}" for note in load(name).notes)
                       for name in BOARDS)


def figure_table(directory=None):
    """Clock and size of the last builds (``out/boards/*.json``), in Markdown."""
    directory = Path(directory or flow.ROOT / "out" / "boards")
    rows = [_row(("board", "instruments", "seed", "clock reached", "wanted", "LUT4", "block RAM", "multipliers",
                  "place and route")), _row(["---"] * 9)]
    for name in BOARDS:
        path = directory / f"{name}.json"
        if not path.exists():
            rows.append(_row((f"`{name}`", *["not built"] * 8)))
            continue
        f = json.loads(path.read_text())
        met = "" if f["closed"] else " (**missed**)"
        rows.append(_row((f"`{name}`", f["instruments"], f["seed"], f"{f['fmax_mhz']:.1f} MHz{met}",
                          f"{f['target_mhz']:g} MHz", f"{f['lut']} ({f['lut_pct']} %)",
                          f"{f['bram']} ({f['bram_pct']} %)", f"{f['dsp']} ({f['dsp_pct']} %)",
                          f"{f['seconds'].get('place and route', 0):.0f} s")))
    return "\n".join(rows)


def fill(text, name, table):
    """``text`` with the block ``name`` replaced; raises ValueError if there is no such block."""
    new, count = re.subn(_BLOCK.format(name=name), lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has {count} blocks named {name!r}, must have one")
    return new


def write(page=PAGE):
    """Write both tables into the page."""
    text = page.read_text()
    for name, table in (("boards", board_table()), ("notes", notes()), ("figures", figure_table())):
        text = fill(text, name, table)
    page.write_text(text)


if __name__ == "__main__":
    write()

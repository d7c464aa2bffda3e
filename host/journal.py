"""Append-only record of what matters for orders: one JSON object a line.

It is written before the fabric is told of what it says, and handed to the operating system line by line: it survives
the daemon's death, not a power cut. A line cut short by a crash is ended when the file is opened again.
"""

import json
from pathlib import Path


class Journal:
    """Appends to ``path``; every line has ``n`` (counted on from the last line of the file) and ``ns``."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._number = 0
        torn = False
        if self.path.exists():
            with self.path.open("rb") as file:
                for line in file:
                    torn = not line.endswith(b"\n")
                    self._number += 1
        self._file = self.path.open("ab", buffering=0)
        if torn:
            self._file.write(b"\n")

    def write(self, now_ns, kind, **facts):
        """Append one fact."""
        line = json.dumps({"n": self._number, "ns": now_ns, "kind": kind, **facts}, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._number += 1

    def close(self):
        """Close the file; a second close does nothing."""
        self._file.close()

"""Everything a replay leaves behind, in one directory."""

from pathlib import Path

from sim.board.captures import CaptureWriter

from .page import write_html
from .summary import write_json


def write_pcap(frames, path, epoch_ns=0):
    """Write frames as a pcap with nanosecond stamps.

    Parameters
    ----------
    frames : iterable of (time_ns, bytes without FCS), in order of time.
    epoch_ns : added to every time.

    Returns the number of frames.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 0
    with CaptureWriter(path) as writer:
        for time_ns, frame in frames:
            writer.write(epoch_ns + time_ns, frame)
            number += 1
    return number


def write_all(result, directory, frames=None, epoch_ns=0):
    """Write ``report.json``, ``report.html`` and, where ``frames`` are given, ``quotes.pcap``. Returns the paths."""
    directory = Path(directory)
    paths = [directory / "report.json", directory / "report.html"]
    write_json(result, paths[0])
    write_html(result, paths[1])
    if frames is not None:
        paths.append(directory / "quotes.pcap")
        write_pcap(frames, paths[2], epoch_ns)
    return paths

"""Byte offsets of the wire stand in ``hdl/layout`` and nowhere else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

#: Files that pack structures which are not those of a protocol on our wires.
OTHER_FORMATS = {
    "sim/board/captures.py": "pcap and pcapng files",
    "sim/board/tap.py": "the kernel's ioctl structures",
    "sim/board/pty.py": "the kernel's ioctl structures",
}


def sources(*folders):
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")) if "layout" not in p.parts]


def offsets(text):
    """(line, source) of every slice of something by numbers: ``frame[12:14]``, ``frame[14:]``."""
    def number(node):
        return isinstance(node, ast.Constant) and isinstance(node.value, int)
    return [(node.lineno, ast.unparse(node)) for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and number(node.slice.lower)
            and node.slice.lower.value > 1]


def test_the_rule_finds_offsets():
    assert offsets("x = frame[12:14]\ny = frame[1:]\nz = frame[a:b]\nw = data[14:]") == [(1, "frame[12:14]"),
                                                                                    (4, "data[14:]")]


@pytest.mark.parametrize("path", sources("host", "sim"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_slices_by_number(path):
    """(In the gateware such slices are of bits.)"""
    assert offsets(path.read_text()) == []


def test_struct_is_for_other_formats():
    users = {str(p.relative_to(ROOT)) for p in sources("hdl", "host", "sim", "boards")
             for node in ast.walk(ast.parse(p.read_text()))
             if isinstance(node, ast.Import | ast.ImportFrom)
             and "struct" in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module])}
    assert users == set(OTHER_FORMATS)

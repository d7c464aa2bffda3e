"""The generated pages are complete and current."""

import re

import pytest

from hdl.control import document
from hdl.layout import sbe

LINK = sbe.load("t2q_link")


@pytest.mark.parametrize("name", ["registers.md", "registers.json", "link.md"])
def test_committed_pages_are_current(name):
    path = document.DOCS / name
    assert path.is_file(), f"there is no {path.name}: run `make docs`"
    assert path.read_text(encoding="utf-8") == document.pages()[name], f"{name} is out of date: run `make docs`"


def test_write(tmp_path):
    folder = tmp_path / "docs"
    assert [p.name for p in document.write(folder)] == ["registers.md", "registers.json", "link.md"]
    assert document.write(folder) == [], "nothing changed"
    (folder / "link.md").write_text("old")
    assert document.write(folder) == [folder / "link.md"]
    assert {p.name: p.read_text() for p in folder.iterdir()} == document.pages()


def test_link_page_has_every_packet_and_field():
    page = document.link_markdown()
    for m in LINK.messages.values():
        assert f"| `0x{m.id:02X}` | {m.name} |" in page
        section = page.split(f"\n### {m.name}\n")[1].split("\n#")[0] if m.fields else ""
        for f in m.fields.values():
            assert f"| {f.offset} | `{f.name}` | {'' if f.signed else 'u'}int{8 * f.size} |" in section
    for values in (*LINK.enums.values(), *LINK.sets.values()):
        for name, value in values.items():
            assert f"| {value} | `{name}` | " in page


def test_everything_on_the_link_is_explained():
    """No row of the page ends in an empty cell, and every reference leads somewhere."""
    page = document.link_markdown()
    assert not re.findall(r"^.*\|\s*\|$", page, re.MULTILINE)
    titles = {title.lower() for title in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
    for target in re.findall(r"\(#(\w+)\)", page):
        assert target in titles

"""Pages about registers and host link, written from their descriptions.

``python -m hdl.control.document [FOLDER]`` (``make docs``) writes them; without FOLDER, into ``docs``.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from hdl.control import registers
from hdl.control.link import MAX_PAYLOAD, START
from hdl.layout import sbe

__all__ = ["DOCS", "link_markdown", "pages", "write"]

#: Where the pages stand in the project.
DOCS = Path(__file__).resolve().parents[2] / "docs"

_SCHEMA = "t2q_link"
#: Types from here on are sent by the fabric.
_FROM_FABRIC = 0x80
#: What follows the fixed part of a packet, where something does.
_FOLLOWS = {
    "Write": "`RegisterWord` for one register after the other, at least one",
    "FrameTx": "the frame", "FrameRx": "the frame", "SessionTx": "the message", "SessionRx": "the payload",
}


def _descriptions():
    """{(composite, enumeration, set or message, member): description}; the member is "" for the message itself."""
    out = {}
    for owner in ElementTree.parse(sbe.SCHEMA_DIR / f"{_SCHEMA}.xml").getroot().iter():
        name = owner.get("name")
        if owner.get("description") and owner.tag.endswith("}message"):
            out[name, ""] = owner.get("description")
        out |= {(name, member.get("name")): member.get("description") for member in owner if member.get("description")}
    return out


def link_markdown():
    """Documentation page of the host link."""
    schema, text = sbe.load(_SCHEMA), _descriptions()

    def table(owner, fields, base=0):
        rows = ["| offset | name | type | what |", "|---|---|---|---|"]
        for f in fields.values():
            kind = f"{'int' if f.signed else 'uint'}{8 * f.size}"
            what = [text.get((owner, f.name), "")] + ([f"[{f.enum}](#{f.enum.lower()})"] if f.enum else [])
            rows.append(f"| {base + f.offset} | `{f.name}` | {kind} | {' '.join(filter(None, what))} |")
        return [*rows, ""]

    header, trailer = schema.composites["LinkHeader"], schema.composites["LinkTrailer"]
    out = ["# Host link", "",
           f"Generated from `hdl/layout/schemas/{_SCHEMA}.xml` by `make docs`. The link is a stream of bytes in each "
           "direction, over whatever carries bytes: a UART, USB, a socket. Numbers are little endian, offsets and "
           "sizes are in bytes.", "",
           f"A packet is a header of {header.size} bytes (the first one is `0x{START:02X}`), a payload of at most "
           f"{MAX_PAYLOAD} bytes, and a trailer of {trailer.size}. A packet with a wrong CRC, a length that cannot be "
           "or an unknown type has no effect and is counted (`link_rx_errors`); the search goes on with the next start "
           "byte.", "",
           "## Header", "", *table("LinkHeader", header.fields),
           "## Trailer", "", *table("LinkTrailer", trailer.fields)]

    for title, fabric in (("From the host", False), ("From the fabric", True)):
        messages = [m for m in schema.messages.values() if (m.id >= _FROM_FABRIC) == fabric]
        out += [f"## {title}", "", "| type | packet | payload | what |", "|---|---|---|---|"]
        for m in messages:
            size = " + ".join(([f"{m.block_length}"] if m.block_length else [])
                              + (["n"] if m.name in _FOLLOWS else []))
            out.append(f"| `0x{m.id:02X}` | {m.name} | {size} | {text[m.name, '']} |")
        out.append("")
        for m in messages:
            if m.fields:
                out += [f"### {m.name}", "", *table(m.name, m.fields)]
                if m.name in _FOLLOWS:
                    out += [f"Then {_FOLLOWS[m.name]}.", ""]

    word = schema.composites["RegisterWord"]
    out += ["## RegisterWord", "", *table(word.name, word.fields)]
    for title, kinds in (("Enumerations", schema.enums), ("Sets", schema.sets)):
        out += [f"## {title}", ""]
        for name, values in kinds.items():
            out += [f"### {name}", "", f"| {'value' if title == 'Enumerations' else 'bit'} | name | what |",
                    "|---|---|---|",
                    *(f"| {value} | `{member}` | {text[name, member]} |" for member, value in values.items()), ""]
    return "\n".join(out).rstrip() + "\n"


def pages():
    """{file name: content} of every generated page."""
    return {"registers.md": registers.to_markdown(), "registers.json": registers.to_json() + "\n",
            "link.md": link_markdown()}


def write(folder=DOCS):
    """Write the pages; returns the paths of those that changed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, content in pages().items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for page in write(*sys.argv[1:2]):
        print(page)

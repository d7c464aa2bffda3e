"""Pages about registers and host link, written from their descriptions.

``python -m hdl.control.document [FOLDER]`` (``make docs``) writes them; without FOLDER, into ``docs``.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from hdl.control import registers
from hdl.control.ethernet_link import MAX_FRAME, ROOM
from hdl.control.link import MAX_PAYLOAD, START
from hdl.layout import net, sbe
from hdl.order import timing

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


def _over_ethernet(schema, table):
    """How the bytes of the link stand in frames."""
    header = schema.composites["FrameHeader"]
    wait = timing.busy_cycles(MAX_FRAME)
    return [
        "## Over Ethernet", "",
        "**Untried on hardware.** On boards with a port for orders alone the same bytes also go through that port, in "
        f"Ethernet frames of EtherType `0x{net.ETHERTYPE_HOST_LINK:04X}` (IEEE 802: local experimental). Behind the "
        "Ethernet header and this one stand bytes of the link; what follows is padding.", "",
        *table("FrameHeader", header.fields, net.ETHERNET.size),
        "- **Addresses.** The card has an address of its own for this, `"
        f"{net.MAC_HOST_LINK.to_bytes(6, 'big').hex(':')}` unless it was built with another (`link_mac`): that of the "
        "orders is not known before the host has written it. It answers to the source of the last good frame, and "
        "sends nothing before the host has spoken.",
        "- **From the host.** A frame is taken if its FCS is right and address, EtherType and length are, or else let "
        "go without a trace. It begins with a packet, and no packet reaches into the next frame: with a frame that is "
        "lost, its packets are lost and no others. `lost` in the card's frames counts the times that numbers were "
        f"missing; what was lost is not sent again. {ROOM} bytes can wait in the card; a frame that finds no room is "
        "lost.",
        f"- **To the host.** Frames of at most {MAX_FRAME} bytes without FCS, cut from the stream wherever they are "
        "full. With a frame that is lost, the packets are lost of which it had a part; the records' own numbers tell.",
        "- **The order port comes first.** A frame starts when the port is idle, nothing is about to be decided, and "
        "neither an acknowledgement nor a packet of the host can go. A quote that comes right behind the start of one "
        f"waits for at most {wait} cycles ({wait * 8 / 1000:.2f} us); the host's own frames and messages may be "
        "longer. What the link cannot carry in time waits in the card, and telemetry beyond that is counted as lost "
        "(`telemetry_overflow`).",
        "- **Both links.** The card listens to both, and answers where the last packet that it accepted came from. A "
        "frame goes before what comes over the serial port meanwhile.",
        "- **Who may.** There is no authentication: whoever can send a frame to the order port can command the card. "
        "Keep that segment to the card, its host and the exchange's gateway.", ""]


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
           "direction, over whatever carries bytes: a UART, USB, a socket, Ethernet frames. Numbers are little endian, "
           "offsets and sizes are in bytes.", "",
           f"A packet is a header of {header.size} bytes (the first one is `0x{START:02X}`), a payload of at most "
           f"{MAX_PAYLOAD} bytes, and a trailer of {trailer.size}. A packet with a wrong CRC, a length that cannot be "
           "or an unknown type has no effect and is counted (`link_rx_errors`); the search goes on with the next start "
           "byte.", "",
           *_over_ethernet(schema, table),
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

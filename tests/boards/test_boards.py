# amaranth: UnusedElaboratable=no
"""Boards: pins, primitives, and a small design all the way to a bitstream with the timing check on."""

import json
import re

import pytest
from typer.testing import CliRunner

from boards import board as boards
from boards import build, document, flow
from boards.__main__ import app
from tests.boards.echo import EchoCore

# Of each board: a few pins, the ports' receive clocks, how many Ethernet ports.
EXPECTED = {
    "colorlight_5a75b_r7_0": ({"clk25_0__io": "P6", "rgmii_0__rx_clk__io": "M1", "rgmii_1__tx_clk__io": "M12",
                               "eth_mdio_0__mdc__io": "P3", "uart_0__tx__io": "P11"}, 25e6, 2),
    "ecpix5": ({"clk100_0__io": "K23", "rgmii_0__rx_clk__io": "E11", "rgmii_0__tx_ctl__io": "C9",
                "uart_0__rx__io": "R26"}, 100e6, 1),
    "versa_ecp5": ({"clk100_0__p": "P3", "rgmii_0__rx_clk__io": "L20", "rgmii_1__rx_clk__io": "J19",
                    "rgmii_1__tx_ctl__io": "E19", "uart_0__rx__io": "C11"}, 100e6, 2),
}


@pytest.fixture(scope="module")
def prepared():
    return {name: build.prepare(boards.load(name), core=EchoCore()) for name in boards.BOARDS}


@pytest.mark.parametrize("name", boards.BOARDS)
def test_pins_and_clocks(name, prepared):
    _, lpf = prepared[name]
    pins, oscillator_hz, ports = EXPECTED[name]
    located = dict(re.findall(r'LOCATE COMP "(\S+)" SITE "(\S+)"', lpf))
    assert {pin: located[pin] for pin in pins} == pins
    assert len(set(located.values())) == len(located)
    frequencies = {name: float(hz) for name, hz in re.findall(r'FREQUENCY PORT "(\S+)" (\S+) HZ', lpf)}
    oscillator = next(pin for pin in pins if pin.startswith("clk"))
    assert frequencies == {oscillator: oscillator_hz,
                           **{f"rgmii_{n}__rx_clk__io": 125e6 for n in range(ports)}}


@pytest.mark.parametrize("name", boards.BOARDS)
def test_primitives_at_the_pads(name, prepared):
    rtlil, _ = prepared[name]
    ports = EXPECTED[name][2]
    count = {cell: len(re.findall(rf"cell \\{cell} ", rtlil))
             for cell in ("IDDRX1F", "ODDRX1F", "DCSC", "DCCA", "EHXPLLL", "SGSR")}
    assert count == {"IDDRX1F": 5 * ports, "ODDRX1F": 6 * ports, "DCSC": 1, "DCCA": 2, "EHXPLLL": 1, "SGSR": 1}
    board = boards.load(name)
    taps = [int(value) for value in re.findall(r"parameter \\DEL_VALUE (\d+)", rtlil)]
    assert taps.count(80) == (5 * ports * (board.card["rx_delay_taps"] == 80)
                              + ports * (board.card["tx_clock_delay_taps"] == 80))


def test_there_is_no_other_board():
    with pytest.raises(boards.UnknownBoard, match="there is no board 'ulx3s'; there are colorlight_5a75b_r7_0, ecpix5"):
        boards.load("ulx3s")
    result = CliRunner().invoke(app, ["build", "ulx3s"])
    assert result.exit_code == 2
    assert "there is no board 'ulx3s'" in result.output
    listed = CliRunner().invoke(app, ["list"])
    assert all(name in listed.output for name in boards.BOARDS)


def test_a_small_design_becomes_a_bitstream_with_its_timing_met(tmp_path):
    """The whole flow on the smallest part: all pads, all clocks, the switch between them, nextpnr's check on."""
    board = boards.load("colorlight_5a75b_r7_0")
    stages = []
    built = build.build(board, core=EchoCore(), directory=tmp_path / "build", report=tmp_path / "figures.json",
                        progress=lambda stage, what: stages.append(stage))
    assert built.bitstream.read_bytes()[:2] == b"\xff\x00"
    assert built.bitstream.stat().st_size > 20_000
    assert built.bitstream.with_name("top.svf").stat().st_size > 20_000
    figures = json.loads(built.report.read_text())
    assert figures["closed"] is True
    assert figures["target_mhz"] == 125.0
    assert figures["fmax_mhz"] >= 125.0
    assert all(clock["fmax_mhz"] >= clock["target_mhz"] for clock in figures["clocks"].values())
    assert len(figures["clocks"]) >= 3      # the core's, the board's own, the order port's receive clock
    assert 300 < figures["lut"] < 3000
    assert figures["lut_pct"] == pytest.approx(100 * figures["lut"] / 24288, abs=0.1)
    assert (figures["instruments"], figures["seed"], figures["bram"]) == (16, board.seed, 0)
    # Registers are held by the chip's reset net until the PLL has locked; the two that release it are not.
    cells = json.loads((tmp_path / "build" / "top.json").read_text())["modules"]["top"]["cells"].values()
    held = [cell["parameters"]["GSR"] for cell in cells if cell["type"] == "TRELLIS_FF"]
    assert held.count("DISABLED") == 2
    assert held.count("ENABLED") == len(held) - 2 > 100
    assert list(dict.fromkeys(stages)) == ["elaboration", "synthesis", "place and route", "bitstream"]


def test_a_clock_that_is_missed_fails_with_its_critical_path(tmp_path):
    rtlil, lpf = build.prepare(boards.load("versa_ecp5"), core=EchoCore())
    netlist, _ = flow.synthesise_cached(rtlil, tmp_path)
    impossible = lpf.replace("125000000.0", "500000000.0")
    expected = r"(?s)timing is not met \(.*MHz reached, 500.0 MHz wanted.*critical path of .*clk-to-q.*setup"
    with pytest.raises(flow.TimingError, match=expected) as failed:
        flow.place_and_route(netlist, flow.DEVICES["45F"], lpf=impossible, target_mhz=125.0, seed=1)
    assert not failed.value.figures.closed


@pytest.mark.parametrize(("line", "message"), [
    ("Info:         TRELLIS_COMB: 30000/24288   123%", "does not fit: 30000 TRELLIS_COMB wanted, 24288 there"),
    ("Info:     iter=8 wires=9 overused=30\nInfo:     iter=9 wires=9 overused=261",
     "routing does not come to an end: of the wires in conflict 30 were left at best, and 261 in round 9"),
    ("ERROR: something else", r"(?s)place and route failed \(log .*\):.*ERROR: something else"),
])
def test_what_nextpnr_says_is_passed_on(line, message, tmp_path, monkeypatch):
    tool = tmp_path / "nextpnr"
    tool.write_text(f"#!/bin/sh\necho '{line}'\nsleep 0.2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("NEXTPNR_ECP5", str(tool))
    (tmp_path / "top.json").write_text("{}")
    with pytest.raises(flow.FlowError, match=message):
        flow.place_and_route(tmp_path / "top.json", flow.DEVICES["25F"], target_mhz=125.0, seed=1)


def test_sizes_add_up_by_submodule(tmp_path):
    netlist, _ = flow.synthesise_cached(build.prepare(boards.load("ecpix5"), core=EchoCore())[0], tmp_path)
    found = flow.sizes(netlist)
    card = found["card"]
    assert found["(all)"]["lut"] >= card["lut"] > found["card.guard"]["lut"] > 0
    assert found["card.host"]["lut"] > found["card.host.uart"]["lut"] > 50
    assert card["ff"] >= sum(found[f"card.{name}"]["ff"] for name in ("guard", "host", "phy_setup0"))
    shown = CliRunner().invoke(app, ["sizes", str(netlist), "--least", "1"])
    assert shown.exit_code == 0
    assert re.search(rf"^  guard +{found['card.guard']['lut']} ", shown.output, re.MULTILINE)
    missing = CliRunner().invoke(app, ["sizes", str(tmp_path / "none.json")])
    assert missing.exit_code == 2
    assert "none.json: no such netlist" in missing.output


def test_the_page_has_the_boards_as_they_are():
    text = document.PAGE.read_text()
    assert document.fill(text, "boards", document.board_table()) == text
    assert document.fill(text, "notes", document.notes()) == text
    assert "Untried on hardware" in text


def test_figures_become_a_table(tmp_path):
    figures = flow.Figures({"clk": (131.25, 125.0), "local": (200.0, 125.0)},
                           {"lut": 2429, "ff": 1, "bram": 28, "dsp": 7, "io": 0, "pll": 1},
                           {"lut": 24288, "ff": 24288, "bram": 56, "dsp": 28, "io": 197, "pll": 2},
                           seconds={"place and route": 61.4})
    board = boards.load("ecpix5")
    (tmp_path / "ecpix5.json").write_text(json.dumps(build.summary(board, 255, 7, figures)))
    table = document.figure_table(tmp_path)
    assert "| `ecpix5` | 255 | 7 | 131.2 MHz | 125 MHz | 2429 (10.0 %) | 28 (50.0 %) | 7 (25.0 %) | 61 s |" in table
    assert "| `versa_ecp5` | not built |" in table

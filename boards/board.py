"""What a board is, and the one top level for all of them: pads and PLL around :class:`hdl.phy.card.Card`."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from amaranth.build import Attrs, Clock, Resource, Subsignal
from amaranth.hdl import Elaboratable, Instance, Module, Signal
from amaranth.lib import io

from boards.flow import Annealing
from hdl.phy.card import CLOCK_HZ, Card
from hdl.phy.ecp5 import Pll

__all__ = ["BOARDS", "Board", "BoardTop", "UnknownBoard", "ethernet_resources", "load"]

#: Supported boards; each is a module of this package with ``BOARD``.
BOARDS = ("colorlight_5a75b_r7_0", "ecpix5", "versa_ecp5")


class UnknownBoard(ValueError):
    """There is no such board."""


@dataclass(frozen=True)
class Pad:
    """A resource of the platform: ``name`` and ``number``."""

    name: str
    number: int = 0


@dataclass(frozen=True)
class Board:
    """A board, as the top level, the build and ``t2q flash`` need it.

    Parameters
    ----------
    name : str
    title : str
        Maker and type.
    platform : type
        Class with the resources that the others name; Ethernet ports as :func:`ethernet_resources` makes them.
    device : str
        Key of :data:`boards.flow.DEVICES`.
    oscillator : Pad
    oscillator_mhz : float
    feed_port, order_port : int
        Numbers of the resources ``rgmii``. The same number: one port for both.
    mdio : tuple[int, ...]
        Numbers of the resources ``eth_mdio``, the feed's first.
    uart : Pad
    baud : int
        Bits a second on the UART.
    kill : Pad | None
        A button or pin that kills.
    lamp : Pad | None
        Lit while the core runs on the feed's clock.
    instruments : int
    seed : int
        Of the placer.
    pnr_options, synth_options : tuple[str, ...]
        More arguments of nextpnr and of ``synth_lattice``.
    annealing : Annealing
        What happens to the placement before it is routed.
    loader : tuple[str, ...]
        Arguments of openFPGALoader that name the cable.
    card : Mapping
        More arguments of :class:`hdl.phy.card.Card`: delays and PHYs.
    notes : tuple[str, ...]
        What a user must know, for the documentation.
    """

    name: str
    title: str
    platform: type
    device: str
    oscillator: Pad
    oscillator_mhz: float
    feed_port: int
    order_port: int
    mdio: tuple[int, ...]
    uart: Pad
    loader: tuple[str, ...]
    instruments: int
    seed: int = 1
    baud: int = 3_000_000
    kill: Pad | None = None
    lamp: Pad | None = None
    pnr_options: tuple[str, ...] = ("--placer", "static")
    annealing: Annealing = field(default_factory=Annealing)
    synth_options: tuple[str, ...] = ()
    card: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def shared_port(self):
        return self.feed_port == self.order_port

    def make_card(self, instruments=None, core=None):
        """The :class:`Card` of this board. A register behind the pads, unless ``card`` says otherwise."""
        return Card(instruments=instruments or self.instruments, core=core, shared_port=self.shared_port,
                    baud=self.baud, mdio_buses=len(self.mdio), **{"rx_register": True, **self.card})


def load(name):
    """The :class:`Board` of a name; raises :class:`UnknownBoard`."""
    if name not in BOARDS:
        raise UnknownBoard(f"there is no board {name!r}; there are {', '.join(BOARDS)}")
    return importlib.import_module(f"boards.{name}").BOARD


def ethernet_resources(resources, clock_hz=CLOCK_HZ):
    """A platform's resources with each ``eth_rgmii`` taken apart into ``rgmii`` and ``eth_mdio``.

    PHYs may share their reset and MDIO pins, which only one resource can be asked for. Control pins are ``rx_ctl`` and
    ``tx_ctl`` in the result, and the receive clock has its frequency.
    """
    out = []
    for resource in resources:
        if resource.name != "eth_rgmii":
            out.append(resource)
            continue
        data, management = [], []
        attrs = [Attrs(**resource.attrs)] if resource.attrs else []
        for each in resource.ios:
            name = each.name.replace("_ctrl", "_ctl")
            more = [Clock(clock_hz)] if name == "rx_clk" else []
            (management if name in ("rst", "mdc", "mdio") else data).append(Subsignal(name, *each.ios, *more))
        out += [Resource("rgmii", resource.number, *data, *attrs),
                Resource("eth_mdio", resource.number, *management, *attrs)]
    return out


class BoardTop(Elaboratable):
    """Pads and PLL of a board around its card; ``core`` instead of a core of its own, if given."""

    def __init__(self, board, instruments=None, core=None):
        self.board, self.instruments, self.core = board, instruments, core

    def elaborate(self, platform):
        m = Module()
        board = self.board
        m.submodules.card = card = board.make_card(self.instruments, self.core)
        buffers = 0

        def request(pad):
            return platform.request(pad.name, pad.number, dir=_no_buffers(platform, pad))

        def pin_in(port, signal):
            nonlocal buffers
            buffers += 1
            m.submodules[f"pad{buffers}"] = buffer = io.Buffer("i", port)
            m.d.comb += signal.eq(buffer.i)

        def pin_out(port, signal):
            nonlocal buffers
            buffers += 1
            m.submodules[f"pad{buffers}"] = buffer = io.Buffer("o", port)
            m.d.comb += buffer.o.eq(signal)

        m.submodules.pll = pll = Pll(board.oscillator_mhz, CLOCK_HZ / 1e6)
        pin_in(request(board.oscillator), pll.i)
        m.d.comb += card.local_clk.eq(pll.o)

        # Before the PLL has locked for the first time its clock may do anything: every register keeps its initial value
        # until then, by the reset net of the chip. A lock that is lost later must not wipe out what runs on the feed.
        locked, released = Signal(), Signal()
        m.submodules.lock_seen = Instance("FD1S3AX", p_GSR="DISABLED", i_CK=pll.o, i_D=pll.locked | locked, o_Q=locked)
        m.submodules.release = Instance("FD1S3AX", p_GSR="DISABLED", i_CK=pll.o, i_D=locked, o_Q=released)
        m.submodules.reset_net = Instance("SGSR", i_CLK=pll.o, i_GSR=released)

        for prefix, number in dict.fromkeys((("feed", board.feed_port), ("order", board.order_port))):
            if prefix == "order" and board.shared_port:
                continue
            pads = request(Pad("rgmii", number))
            sender = "order" if board.shared_port else prefix
            pin_in(pads.rx_clk, getattr(card, f"{prefix}_rx_clk"))
            pin_in(pads.rx_data, getattr(card, f"{prefix}_rx_data"))
            pin_in(pads.rx_ctl, getattr(card, f"{prefix}_rx_ctl"))
            pin_out(pads.tx_clk, getattr(card, f"{sender}_tx_clk"))
            pin_out(pads.tx_data, getattr(card, f"{sender}_tx_data"))
            pin_out(pads.tx_ctl, getattr(card, f"{sender}_tx_ctl"))

        for bus, number in enumerate(board.mdio):
            pads = request(Pad("eth_mdio", number))
            pin_out(pads.rst, card.phy_reset)
            pin_out(pads.mdc, card.mdc[bus])
            m.submodules[f"mdio{bus}"] = mdio = io.Buffer("io", pads.mdio)
            m.d.comb += [mdio.o.eq(card.mdio_o[bus]), mdio.oe.eq(card.mdio_oe[bus]), card.mdio_i[bus].eq(mdio.i)]

        uart = request(board.uart)
        pin_in(uart.rx, card.uart_rx)
        pin_out(uart.tx, card.uart_tx)
        if board.kill:
            pin_in(request(board.kill), card.kill_pin)
        if board.lamp:
            lamp = request(board.lamp)
            pin_out(getattr(lamp, "r", lamp), card.on_feed)
        return m


def _no_buffers(platform, pad):
    """``dir`` argument that gives every pin of a resource as a bare port."""
    def bare(resource):
        first = resource.ios[0]
        return {each.name: bare(each) for each in resource.ios} if isinstance(first, Subsignal) else "-"
    return bare(platform.lookup(pad.name, pad.number))


def describe(board):
    """First line of a board module's documentation."""
    return inspect.getdoc(importlib.import_module(f"boards.{board.name}")).splitlines()[0]

"""PHYs out of reset and set up, without a processor: clause 22 MDIO master with a table."""

from dataclasses import dataclass
from math import ceil

from amaranth.hdl import Array, Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["PhySetup", "PhyWrite"]

BMSR, LINK_STATUS = 1, 2        # basic mode status register, the bit "link is up" (latches a loss until it is read)


@dataclass(frozen=True)
class PhyWrite:
    """One step of a set-up: the bits of ``mask`` in ``register`` become those of ``value``, the others stay.

    ``why`` says what it is for. A register with a full mask is written without a look at what was there.
    """

    phy: int
    register: int
    value: int
    mask: int = 0xFFFF
    why: str = ""

    def __post_init__(self):
        for name, high in (("phy", 31), ("register", 31), ("value", 0xFFFF), ("mask", 0xFFFF)):
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, must be 0 to {high}")


class PhySetup(wiring.Component):
    """Resets the PHYs of one MDIO bus after power-up, writes a table of registers, then watches the links.

    Parameters
    ----------
    clock_mhz : float
        Of the clock domain.
    table : sequence of PhyWrite
        In this order.
    phys : sequence of int
        Addresses of the PHYs whose links are watched.
    reset_us, settle_us : float
        Length of the reset pulse, and time from its end to the first access. The defaults are longer than the PHYs of
        the supported boards ask for.
    mdc_mhz : float
        Highest frequency of MDC; clause 22 guarantees 2.5.
    domain : str
        Clock domain.

    Members
    -------
    phy_reset : Out(1)
        1 while the PHYs are in reset.
    mdc : Out(1), mdio_o : Out(1), mdio_oe : Out(1), mdio_i : In(1)
        The bus.
    done : Out(1)
        The table has been written.
    link : Out(len(phys))
        Link is up, as the PHY said last; 0 before it was asked. A PHY that does not answer reads as all ones, which is
        "up": then the clock alone decides. Asking one PHY takes 65 MDC cycles, 26 us at 2.5 MHz.
    """

    def __init__(self, *, clock_mhz, table=(), phys=(0,), reset_us=20_000.0, settle_us=100_000.0, mdc_mhz=2.5,
                 domain="sync"):
        if not phys:
            raise ValueError("phys is empty, must name one PHY at least")
        self.table, self.phys, self.domain = tuple(table), tuple(phys), domain
        self.reset_cycles, self.settle_cycles = round(reset_us * clock_mhz), round(settle_us * clock_mhz)
        self.half = ceil(clock_mhz / (2 * mdc_mhz))       # cycles of half an MDC period
        super().__init__({"phy_reset": Out(1, init=1), "mdc": Out(1), "mdio_o": Out(1, init=1), "mdio_oe": Out(1),
                          "mdio_i": In(1, init=1), "done": Out(1), "link": Out(len(self.phys))})

    def elaborate(self, platform):
        m = Module()
        sync = m.d[self.domain]
        mdio_i = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.mdio_i, mdio_i, o_domain=self.domain, init=1)

        # -- one frame: 32 ones, start 01, operation, address, register, turn-around, data
        start, busy, reading = Signal(), Signal(), Signal()
        phy, register, data = Signal(5), Signal(5), Signal(16)
        shift, received = Signal(64), Signal(16)
        count, bit = Signal(range(self.half)), Signal(range(65))
        turn = Signal()             # MDC does
        with m.If(start & ~busy):
            operation = Cat(~reading, reading)      # 10 reads, 01 writes; sent from the left
            # Bits leave from the top.
            sync += [busy.eq(1), bit.eq(0), count.eq(0), self.mdc.eq(0), self.mdio_oe.eq(1), shift.eq(
                Cat(data, Const(0b10, 2), register, phy, operation, Const(0b01, 2), Const(0xFFFFFFFF, 32)))]
        with m.Elif(busy):
            sync += [count.eq(count + 1), turn.eq(count == self.half - 2)]
            with m.If(turn):
                sync += [count.eq(0), self.mdc.eq(~self.mdc)]
                with m.If(~self.mdc):       # rising: the PHY answers up to 300 ns later, so this is the bit before
                    sync += received.eq(Cat(mdio_i, received))
                with m.Else():              # falling: the next bit
                    sync += [shift.eq(shift << 1), bit.eq(bit + 1)]
                    with m.If((bit == 45) & reading):       # after the register number the PHY drives
                        sync += self.mdio_oe.eq(0)
                    with m.If(bit == 63):
                        sync += [busy.eq(0), self.mdio_oe.eq(0)]
        m.d.comb += self.mdio_o.eq(shift[63] | ~busy)

        # -- the sequence
        wait = Signal(range(-1, max(self.reset_cycles, self.settle_cycles, 1)), init=self.reset_cycles - 1)
        over = wait[-1]         # below zero
        entries = self.table or (PhyWrite(0, 0, 0),)        # an array may not be empty
        step, entry = Signal(range(len(entries) + 1)), {}
        for name in ("phy", "register", "value", "mask"):
            entry[name] = Signal(16, name=f"entry_{name}")
            m.d.comb += entry[name].eq(Array(Const(getattr(each, name), 16) for each in entries)[step])
        asked = Signal(range(len(self.phys) + 1))
        address = Signal(5)
        m.d.comb += address.eq(Array(Const(each, 5) for each in self.phys)[asked])
        pause = Signal(4)       # the bus rests between frames

        with m.FSM(domain=self.domain, init="reset"):
            with m.State("reset"):
                sync += [self.phy_reset.eq(1), wait.eq(wait - 1)]
                with m.If(over):
                    sync += [self.phy_reset.eq(0), wait.eq(self.settle_cycles - 1)]
                    m.next = "settle"
            with m.State("settle"):
                sync += wait.eq(wait - 1)
                with m.If(over):
                    m.next = "next entry" if self.table else "ask"
            with m.State("next entry"):
                sync += [phy.eq(entry["phy"]), register.eq(entry["register"]), data.eq(entry["value"]), pause.eq(0)]
                with m.If(entry["mask"] == 0xFFFF):
                    m.next = "write"
                with m.Else():
                    m.next = "look"
            with m.State("look"):
                sync += pause.eq(pause + 1)
                m.d.comb += [reading.eq(1), start.eq(pause == 15)]
                with m.If(start):
                    m.next = "looking"
            with m.State("looking"):
                m.d.comb += reading.eq(1)
                with m.If(~busy):
                    sync += [data.eq((received & ~entry["mask"]) | (entry["value"] & entry["mask"])), pause.eq(0)]
                    m.next = "write"
            with m.State("write"):
                sync += pause.eq(pause + 1)
                m.d.comb += start.eq(pause == 15)
                with m.If(start):
                    m.next = "writing"
            with m.State("writing"):
                with m.If(~busy):
                    sync += step.eq(step + 1)
                    m.next = "next entry"
                    with m.If(step == len(entries) - 1):
                        m.next = "ask"
            with m.State("ask"):
                sync += [self.done.eq(1), phy.eq(address), register.eq(BMSR), pause.eq(pause + 1)]
                m.d.comb += [reading.eq(1), start.eq(pause == 15)]
                with m.If(start):
                    m.next = "asking"
            with m.State("asking"):
                m.d.comb += reading.eq(1)
                with m.If(~busy):
                    sync += [self.link.bit_select(asked, 1).eq(received[LINK_STATUS]), pause.eq(0), asked.eq(asked + 1)]
                    with m.If(asked == len(self.phys) - 1):
                        sync += asked.eq(0)
                    m.next = "ask"
        return m

"""The primitives of the ECP5 that the pads and clocks need; elsewhere a behavioural model takes their place.

On a Lattice platform each component is the primitive. In simulation it is a model of the same number of flip-flops, so
that latencies measured there hold. Delays of a fraction of a cycle are not modelled.
"""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.vendor import LatticePlatform

__all__ = ["ClockGate", "ClockSelect", "Delay", "InputDDR", "OutputDDR", "Pll"]


def on_chip(platform):
    """Whether the primitives exist on this platform."""
    return isinstance(platform, LatticePlatform)


def _falling(m, domain):
    """Name of a domain with the falling edges of the clock of another one."""
    name = f"{domain}_falling"
    falling = ClockDomain(name, clk_edge="neg", reset_less=True, local=True)
    m.domains += falling
    m.d.comb += falling.clk.eq(ClockSignal(domain))
    return name


class InputDDR(wiring.Component):
    """IDDRX1F: two bits a cycle from each pin.

    A bit that a rising edge of the clock samples is on ``rising``, one of the falling edge half a cycle later is on
    ``falling``, both from registers, in the cycle that the *second* rising edge begins.

    Parameters
    ----------
    width : number of pins.
    domain : clock domain.

    Members
    -------
    pins : In(width)
    rising, falling : Out(width)
    """

    def __init__(self, width, *, domain="sync"):
        self.width, self.domain = width, domain
        super().__init__({"pins": In(width), "rising": Out(width), "falling": Out(width)})

    def elaborate(self, platform):
        m = Module()
        if on_chip(platform):
            for bit in range(self.width):
                m.submodules[f"bit{bit}"] = Instance(
                    "IDDRX1F", i_SCLK=ClockSignal(self.domain), i_RST=Const(0), i_D=self.pins[bit],
                    o_Q0=self.rising[bit], o_Q1=self.falling[bit])
            return m
        rose, fell = Signal(self.width), Signal(self.width)
        m.d[_falling(m, self.domain)] += fell.eq(self.pins)
        m.d[self.domain] += [rose.eq(self.pins), self.rising.eq(rose), self.falling.eq(fell)]
        return m


class OutputDDR(wiring.Component):
    """ODDRX1F: two bits a cycle to each pin.

    What is on ``first`` and ``second`` in cycle *c* is on the pin in the first and the second half of cycle *c* + 3:
    the primitive has three registers in a row.

    Parameters
    ----------
    width : number of pins.
    domain : clock domain.

    Members
    -------
    first, second : In(width)
    pins : Out(width)
    """

    LATENCY = 3

    def __init__(self, width, *, domain="sync"):
        self.width, self.domain = width, domain
        super().__init__({"first": In(width), "second": In(width), "pins": Out(width)})

    def elaborate(self, platform):
        m = Module()
        if on_chip(platform):
            for bit in range(self.width):
                m.submodules[f"bit{bit}"] = Instance(
                    "ODDRX1F", i_SCLK=ClockSignal(self.domain), i_RST=Const(0), i_D0=self.first[bit],
                    i_D1=self.second[bit], o_Q=self.pins[bit])
            return m
        a, b, high, low = (Signal(2 * self.width) for _ in range(4))
        m.d[self.domain] += [a.eq(Cat(self.first, self.second)), b.eq(a), low.eq(b)]
        m.d[_falling(m, self.domain)] += high.eq(b)
        m.d.comb += self.pins.eq(Mux(ClockSignal(self.domain), high[:self.width], low[self.width:]))
        return m


class Delay(wiring.Component):
    """DELAYG: a fixed delay of ``taps`` times 25 ps (nominal) between pad and register. Not modelled.

    Members
    -------
    i : In(width)
    o : Out(width)
    """

    TAP_PS = 25

    def __init__(self, width, taps):
        if not 0 <= taps < 128:
            raise ValueError(f"taps is {taps}, must be 0 to 127 (of {self.TAP_PS} ps each)")
        self.width, self.taps = width, taps
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        if on_chip(platform):
            for bit in range(self.width):
                m.submodules[f"bit{bit}"] = Instance(
                    "DELAYG", p_DEL_MODE="USER_DEFINED", p_DEL_VALUE=self.taps, i_A=self.i[bit], o_Z=self.o[bit])
        else:
            m.d.comb += self.o.eq(self.i)
        return m


class ClockGate(wiring.Component):
    """DCCA: a clock that can be stopped. It stops low and never makes a short pulse: ``enable`` acts while ``i`` is
    low. ``enable`` must not change close to the falling edge.

    Members
    -------
    i : In(1), enable : In(1), o : Out(1)
    """

    i: In(1)
    enable: In(1)
    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        if on_chip(platform):
            m.submodules.gate = Instance("DCCA", i_CLKI=self.i, i_CE=self.enable, o_CLKO=self.o)
            return m
        # The primitive has a latch, open while `i` is low. This register on the falling edge is the same for an
        # `enable` that changes while `i` is high; its reset lets it fall while `i` is low. Rising waits for an edge.
        taken = Signal()
        falling = ClockDomain("gate_falling", clk_edge="neg", async_reset=True, local=True)
        m.domains += falling
        m.d.comb += [falling.clk.eq(self.i), falling.rst.eq(~self.i & ~self.enable)]
        m.d.gate_falling += taken.eq(self.enable)
        m.d.comb += self.o.eq(self.i & taken)
        return m


class ClockSelect(wiring.Component):
    """DCSC as a plain switch between two clocks: ``select`` 0 is ``a``, 1 is ``b``, at once, glitches and all.

    Whoever changes ``select`` keeps both clocks low, or still, meanwhile. The mode of the primitive that waits for
    edges of both clocks is no use here: it never leaves a clock that has died.

    Members
    -------
    a, b : In(1), select : In(1), o : Out(1)
    """

    a: In(1)
    b: In(1)
    select: In(1)
    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        if on_chip(platform):
            m.submodules.select = Instance(
                "DCSC", p_DCSMODE="POS", i_CLK0=self.a, i_CLK1=self.b, i_SEL0=~self.select, i_SEL1=self.select,
                i_MODESEL=Const(1), o_DCSOUT=self.o)
        else:
            m.d.comb += self.o.eq(Mux(self.select, self.b, self.a))
        return m


class Pll(wiring.Component):
    """EHXPLLL: ``o`` from the board's oscillator ``i``. In simulation ``o`` is ``i``, which must have the output's
    frequency, and ``locked`` is 1.

    Parameters
    ----------
    input_mhz, output_mhz : frequencies. The output divider is the one nearest to a VCO of 600 MHz.

    Members
    -------
    i : In(1), o : Out(1), locked : Out(1)
    """

    i: In(1)
    o: Out(1)
    locked: Out(1)

    def __init__(self, input_mhz, output_mhz=125.0):
        self.input_mhz, self.output_mhz = input_mhz, output_mhz
        self.input_divider, self.feedback_divider, self.output_divider = self.dividers(input_mhz, output_mhz)
        super().__init__()

    @staticmethod
    def dividers(input_mhz, output_mhz):
        """(input, feedback, output): exact, the phase comparison at 10 MHz or more, the VCO at 400 to 800 MHz; raises
        ValueError if there are none."""
        exact = []
        for input_divider in range(1, 129):
            for feedback in range(1, 129):
                if input_mhz / input_divider < 10 or input_mhz / input_divider * feedback != output_mhz:
                    continue
                exact += [(abs(output_mhz * out - 600), input_divider, feedback, out) for out in range(1, 129)
                          if 400 <= output_mhz * out <= 800]
        if not exact:
            raise ValueError(f"no PLL setting makes {output_mhz} MHz out of {input_mhz} MHz")
        return min(exact)[1:]

    def elaborate(self, platform):
        m = Module()
        if not on_chip(platform):
            m.d.comb += [self.o.eq(self.i), self.locked.eq(1)]
            return m
        m.submodules.pll = Instance(
            "EHXPLLL",
            # Loop filter as Lattice's own tools set it for the feedback from the output.
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_CLKOP_ENABLE="ENABLED", p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=self.input_divider, p_CLKFB_DIV=self.feedback_divider, p_CLKOP_DIV=self.output_divider,
            p_CLKOP_CPHASE=self.output_divider - 1, p_CLKOP_FPHASE=0,
            i_CLKI=self.i, i_CLKFB=self.o, i_RST=Const(0), i_STDBY=Const(0), i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0), i_PHASEDIR=Const(0), i_PHASESTEP=Const(0), i_PHASELOADREG=Const(0),
            i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(1), o_CLKOP=self.o, o_LOCK=self.locked)
        return m

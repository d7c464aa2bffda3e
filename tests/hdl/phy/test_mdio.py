# amaranth: UnusedElaboratable=no
"""PHY set-up against a model of a PHY on the MDIO bus."""

import pytest
from amaranth.sim import Simulator

from hdl.phy.mdio import PhySetup, PhyWrite

PERIOD = 8e-9
CLOCK_MHZ = 125.0


class Phys:
    """Clause 22 slaves: they sample at rising edges of MDC and answer up to 300 ns after them."""

    ANSWER = 280e-9

    def __init__(self, registers):
        self.registers = registers      # {phy: {register: value}}
        self.log, self.edges = [], []

    def __call__(self, dut):
        async def bench(ctx):
            bits, ones, answer, before, now = [], 0, [], 0, 0.0
            pending = None              # (time, level) of an answer on its way
            while True:
                _, _, mdc, mdio, oe, reset = await ctx.tick().sample(dut.mdc, dut.mdio_o, dut.mdio_oe, dut.phy_reset)
                now += PERIOD
                if pending and now >= pending[0]:
                    ctx.set(dut.mdio_i, pending[1])
                    pending = None
                if mdc and not before:
                    assert not reset
                    self.edges.append(now)
                    level = mdio if oe else 1
                    if not bits and ones < 32:
                        ones = ones + 1 if level else 0
                    elif bits or not level:
                        bits.append(level)
                    if len(bits) == 14 and bits[2:4] == [1, 0]:
                        phy, register = (int("".join(map(str, bits[n:n + 5])), 2) for n in (4, 9))
                        if phy in self.registers:
                            value = self.registers[phy].get(register, 0)
                            answer = [0] + [value >> n & 1 for n in range(15, -1, -1)]
                            self.log.append(("read", phy, register))
                    elif len(bits) > 14 and answer:
                        assert not oe, "both drive the line"
                    if answer and len(bits) >= 15:
                        pending = (now + self.ANSWER, answer.pop(0))
                    if len(bits) == 32:
                        assert bits[:2] == [0, 1]
                        if bits[2:4] == [0, 1]:
                            assert bits[14:16] == [1, 0]
                            phy, register = (int("".join(map(str, bits[n:n + 5])), 2) for n in (4, 9))
                            value = int("".join(map(str, bits[16:])), 2)
                            self.log.append(("write", phy, register, value))
                            if phy in self.registers:
                                self.registers[phy][register] = value
                        else:
                            assert bits[2:4] == [1, 0]
                        bits, ones, answer, pending = [], 0, [], (now + self.ANSWER, 1)
                before = mdc
        return bench


def run(dut, phys, bench, seconds):
    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    sim.add_testbench(phys(dut), background=True)
    sim.run_until(seconds)


def setup(**arguments):
    return PhySetup(clock_mhz=CLOCK_MHZ, reset_us=2, settle_us=3, **arguments)


def test_reset_then_the_table_in_order_then_the_links():
    table = (PhyWrite(3, 0x1C, 0x8E00), PhyWrite(5, 21, 0x0030, mask=0x00F0), PhyWrite(3, 0, 0x9140))
    dut = setup(table=table, phys=(3, 5))
    phys = Phys({3: {1: 0x7949}, 5: {1: 0x796D, 21: 0xABCD}})
    seen = {}

    async def bench(ctx):
        cycles = 0
        while ctx.get(dut.phy_reset):
            await ctx.tick()
            cycles += 1
        seen["reset"] = cycles
        await ctx.tick().until(dut.done)
        seen["log"] = list(phys.log)
        await ctx.tick().repeat(2 * 65 * 2 * dut.half + 100)
        seen["link"] = ctx.get(dut.link)
        phys.registers[3][1], phys.registers[5][1] = 0x796D, 0x7969
        await ctx.tick().repeat(4 * 65 * 2 * dut.half + 100)
        seen["link later"] = ctx.get(dut.link)

    run(dut, phys, bench, 500e-6)
    assert seen["reset"] == pytest.approx(2 * CLOCK_MHZ, abs=2)
    assert seen["log"] == [("write", 3, 0x1C, 0x8E00), ("read", 5, 21), ("write", 5, 21, 0xAB3D),
                           ("write", 3, 0, 0x9140)]
    assert seen["link"] == 0b10
    assert seen["link later"] == 0b01
    assert min(b - a for a, b in zip(phys.edges, phys.edges[1:], strict=False)) >= 1 / 2.5e6 - 1e-12
    assert phys.edges[0] > 5e-6     # reset, then rest


def test_nothing_is_up_before_it_was_asked_and_a_phy_that_is_silent_counts_as_up():
    dut = setup(phys=(9,))
    seen = []

    async def bench(ctx):
        while not ctx.get(dut.done):
            assert ctx.get(dut.link) == 0
            await ctx.tick()
        await ctx.tick().repeat(65 * 2 * dut.half + 50)
        seen.append(ctx.get(dut.link))

    run(dut, Phys({}), bench, 200e-6)
    assert seen == [1]


def test_impossible_tables_are_refused():
    with pytest.raises(ValueError, match="register is 32, must be 0 to 31"):
        PhyWrite(0, 32, 0)
    with pytest.raises(ValueError, match="value is 65536"):
        PhyWrite(0, 0, 65536)
    with pytest.raises(ValueError, match="phys is empty"):
        setup(phys=())

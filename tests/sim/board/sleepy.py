"""Designs made at random, of which most rests most of the time."""

from random import Random

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

MODULES, REGISTERS = 5, 9


class Sleepy(wiring.Component):
    """Shows a digest of all its state and inputs on the link in every cycle.

    Parameters
    ----------
    seed : int
        What is made of it.
    """

    link_rx_data: In(8)
    link_rx_valid: In(1)
    link_rx_ready: Out(1)
    link_tx_data: Out(8)
    link_tx_valid: Out(1)
    link_tx_ready: In(1)
    kill_pin: In(1)
    feed_lost: In(1)

    def __init__(self, seed):
        super().__init__()
        self._random = Random(seed)

    def elaborate(self, platform):
        m, rng = Module(), self._random
        self.registers = [[Signal(8, name=f"r{n}", init=rng.randrange(256), reset_less=rng.random() < 0.2)
                           for n in range(REGISTERS)] for _ in range(MODULES)]
        self.signals = []
        for n, own in enumerate(self.registers):
            m.submodules[f"part_{n}"] = self._part(own)
        everything = [*self.signals, *(register for own in self.registers for register in own)]
        digest = self.link_rx_data
        for n, signal in enumerate(everything):
            digest = digest ^ signal.rotate_left(n % 8)
        m.d.comb += [self.link_tx_data.eq(digest), self.link_tx_valid.eq(1), self.link_rx_ready.eq(~self.kill_pin)]
        return m

    def _value(self, own, depth=2):
        """Something of eight bits, mostly of the module's own registers."""
        rng = self._random
        if depth == 0 or rng.random() < 0.3:
            if rng.random() < 0.7:
                return rng.choice(own)
            return rng.choice([self.link_rx_data, *self.signals[-12:], *rng.choice(self.registers)])
        a, b = self._value(own, depth - 1), self._value(own, depth - 1)
        return rng.choice([lambda: (a + b)[:8], lambda: (a - b)[:8], lambda: a ^ b, lambda: a & b, lambda: ~a | b,
                           lambda: Mux(self._seldom(own), a, b), lambda: Cat(b[3:], a[:3]), lambda: (a << b[:3])[:8],
                           lambda: Cat(a == b, a < b, b[2:])])()

    def _seldom(self, own):
        """One bit, rarely set."""
        rng = self._random
        kinds = [lambda: self.link_rx_valid & (self.link_rx_data[:2] == rng.randrange(4)), lambda: self.kill_pin,
                 lambda: self._value(own, 1)[:rng.randint(3, 8)] == 3, lambda: self.feed_lost & self.link_rx_valid,
                 lambda: self._value(own, 0).all()]
        return rng.choice(kinds)()

    def _part(self, own):
        m, rng = Module(), self._random
        left = list(own)

        def take(count=1):
            taken = left[-count:]
            del left[-count:]
            return taken

        def signal():
            out = Signal(8, name=f"s{len(self.signals)}")
            m.d.comb += out.eq(self._value(own))
            with m.If(self._seldom(own)):
                m.d.comb += out.eq(self._value(own, 1))
            self.signals.append(out)

        def held():
            (a,) = take()
            with m.If(self._seldom(own)):
                m.d.sync += a.eq(self._value(own))

        def counter():
            (a,) = take()
            m.d.sync += a.eq(a + rng.choice([1, 3, 255]))

        def stopped_counter():
            (a,) = take()
            with m.If(a != rng.randrange(256)):
                m.d.sync += a.eq(a - 1)
            with m.Elif(self._seldom(own)):
                m.d.sync += a.eq(self._value(own, 1))

        def ring():
            a, b = take(2)
            with m.If(self._seldom(own)):
                m.d.sync += [a.eq(b), b.eq(self._value(own, 1) ^ a)]

        def parts():
            (a,) = take()
            for low in (0, 4):
                with m.If(self._seldom(own)):
                    m.d.sync += a[low:low + 4].eq(self._value(own)[:4])

        def chosen():
            a, b = take(2)
            with m.Switch(self._value(own, 1)[:2]):
                with m.Case(1):
                    m.d.sync += a.eq(self._value(own))
                with m.Case(2):
                    with m.If(self._seldom(own)):
                        m.d.sync += [b.eq(a), a.eq(rng.randrange(256))]
                    with m.Elif(self._value(own, 1)[0]):
                        m.d.sync += b.eq(self._value(own))

        def memory():
            (a,) = take()
            cells = m.submodules[f"memory_{len(left)}"] = Memory(shape=8, depth=8, init=rng.randbytes(4))
            write = cells.write_port(granularity=rng.choice([4, 8]))
            clocked = rng.random() < 0.5
            read = cells.read_port() if clocked else cells.read_port(domain="comb")
            m.d.comb += [write.addr.eq(self._value(own, 1)), write.data.eq(self._value(own)),
                         write.en.eq(Mux(self._seldom(own), rng.randint(1, 3), 0)), read.addr.eq(self._value(own, 1))]
            if clocked:
                m.d.comb += read.en.eq(self._value(own, 0)[0])
            m.d.sync += a.eq(read.data)

        for make in (counter, ring, memory):
            make()
        while left:
            make = rng.choice([signal, held, held, stopped_counter, parts, memory, ring, chosen])
            if len(left) > 1 or make not in (ring, chosen):
                make()
        return m

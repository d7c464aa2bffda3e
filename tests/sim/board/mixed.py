"""A design that has something of everything that matters to the order of things within a cycle."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class Mixed(wiring.Component):
    """Sends a digest of all its state on the order port, a byte a cycle, driven by what comes in on the feed port."""

    feed_rxd: In(8)
    feed_rx_dv: In(1)
    feed_rx_er: In(1)
    order_rxd: In(8)
    order_rx_dv: In(1)
    order_rx_er: In(1)
    order_txd: Out(8)
    order_tx_en: Out(1)
    order_tx_er: Out(1)

    def elaborate(self, platform):
        m = Module()
        byte, valid = self.feed_rxd, self.feed_rx_dv
        digest = []

        def state(shape, name, **options):
            signal = Signal(shape, name=name, **options)
            digest.append(signal)
            return signal

        # Registers that read one another in a ring, and a chain of them.
        a, b, c = (state(8, name, init=n + 1) for n, name in enumerate("abc"))
        with m.If(valid):
            m.d.sync += [a.eq(b), b.eq(c ^ byte), c.eq(a)]
        chain = [state(8, f"chain_{n}") for n in range(4)]
        m.d.sync += [later.eq(earlier) for earlier, later in zip([byte, *chain], chain, strict=False)]

        # A machine whose state and registers change together; a register that is tested after it was given a value.
        phase, count, seen, twice = state(2, "phase"), state(8, "count"), state(8, "seen"), state(8, "twice")
        strobe = Signal()
        m.d.sync += twice.eq(twice + 1)
        with m.If(twice == 7):
            m.d.sync += twice.eq(byte)
        with m.Switch(phase):
            with m.Case(0):
                m.d.sync += seen.eq(byte)
                with m.If(valid):
                    m.d.sync += [phase.eq(1), count.eq(byte[:4])]
            with m.Case(1, 2):
                m.d.sync += [count.eq(count - 1), seen.eq(seen ^ (count + phase))]
                with m.If(count == 0):
                    m.d.comb += strobe.eq(1)
                    m.d.sync += phase.eq(phase + 1)
                with m.Elif(~valid):
                    m.d.sync += phase.eq(0)
            with m.Default():
                m.d.sync += [phase.eq(0), seen.eq(seen + 1)]
        # Choices whose labels leave bits open, one of them with a part that never applies.
        first, wild = state(8, "first"), state(8, "wild")
        with m.If(0):
            m.d.sync += first.eq(255)
        with m.Elif(valid):
            m.d.sync += first.eq(first + byte)
        with m.Switch(byte[:4]):
            with m.Case("1--0", "01-0"):
                m.d.sync += wild.eq(wild + 1)
            with m.Case("---1"):
                m.d.sync += wild.eq(wild ^ byte)
            with m.Case(2):
                m.d.sync += wild.eq(~wild)
            with m.Default():
                m.d.sync += wild.eq(seen)
        strobes = state(8, "strobes")
        with m.If(strobe):
            m.d.sync += strobes.eq(strobes + 1)

        # Memories: written by bytes of a word, read before the write, read through it, read without a clock.
        memory = m.submodules.memory = Memory(shape=data.ArrayLayout(8, 4), depth=8, init=[])
        filled = m.submodules.filled = Memory(shape=signed(16), depth=4, init=[1, -2, 3, -4])
        write = memory.write_port(granularity=1)
        old, new = memory.read_port(), memory.read_port(transparent_for=(write,))
        now = filled.read_port(domain="comb")
        words = Signal(signed(48), name="words")
        digest.append(words)
        m.d.comb += [
            write.addr.eq(byte[:3]), write.data.eq(Cat(a, b, c, byte)), write.en.eq(Mux(valid, byte[4:], 0)),
            old.addr.eq(count), old.en.eq(byte[0]), new.addr.eq(chain[0]), now.addr.eq(phase),
        ]
        m.d.sync += words.eq(words + now.data * seen.as_signed() + (old.data.as_value() >> a[:4]) - new.data[1])

        # Signals driven in parts, arrays of registers, wide arithmetic of which only a part is used.
        parts = Signal(80)
        cells = Array(state(8, f"cell_{n}") for n in range(5))
        m.d.comb += [parts[:7].eq(a + b), parts[7:40].eq(Cat(c, seen) * count), parts[40:].eq(1 << byte[:5])]
        with m.If(valid & ~byte[7]):
            m.d.sync += cells[byte[:3]].eq(parts.word_select(byte[3:6], 9))
        held = state(8, "held", reset_less=True)
        m.d.sync += held.eq(((parts << byte[:6]) - words)[20:28] ^ cells[phase])

        # Registers at the pins, and logic from pin to pin.
        mix = sum(Cat(*digest).word_select(n, 8) << (n % 5) for n in range(32))
        m.d.sync += self.order_txd.eq(self.order_rxd + mix + parts[33:])
        sending = Signal(8)
        m.d.sync += sending.eq(Mux(valid, 9, Mux(sending == 0, 0, sending - 1)))
        m.d.comb += [self.order_tx_en.eq((sending != 0) | valid), self.order_tx_er.eq(valid & byte[3])]
        return m


class TwoClocks(wiring.Component):
    """Cannot be one process."""

    kill_pin: In(1)
    dbg_host_tx_valid: Out(1)
    dbg_host_tx_kind: Out(1)

    def elaborate(self, platform):
        from amaranth.hdl import ClockDomain, ClockSignal
        m = Module()
        m.domains.other = other = ClockDomain(reset_less=True, clk_edge="neg")
        m.d.comb += other.clk.eq(ClockSignal())
        m.d.other += self.dbg_host_tx_valid.eq(self.kill_pin)
        m.d.sync += self.dbg_host_tx_kind.eq(self.kill_pin)
        return m

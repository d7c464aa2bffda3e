"""The registers in gateware, generated from their description."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from hdl.control import registers
from hdl.control.params import PARAM_ROW
from hdl.control.registers import BY_NAME, MAP_HASH, PARAMS, REGISTERS
from hdl.memory import BLOCK

__all__ = ["READ_LATENCY", "RegisterBank", "RegisterBus"]

#: Cycles from ``re`` to the word that was read.
READ_LATENCY = 9

#: Access to registers, one word a cycle.
#:
#: Members
#: -------
#: we : Out(1)
#:     Write ``data`` to ``addr`` at the end of this cycle.
#: ready : In(1)
#:     ``we`` and ``re`` are legal. Once 1, it stays.
#: re : Out(1)
#:     Read ``addr``: ``read_data`` holds the word :data:`READ_LATENCY` cycles later and until the next read. Meanwhile
#:     ``addr`` holds still, and ``we`` and ``re`` are 0. Not together with ``we``.
#: addr : Out(16), data : Out(32), read_data : In(32)
RegisterBus = Signature({
    "ready": In(1),
    "we": Out(1),
    "re": Out(1),
    "addr": Out(16),
    "data": Out(32),
    "read_data": In(32),
})


#: Registers that the core itself advances after they were written: they are read as ``now`` shows them.
LIVE = ("time_ns", "quote_id")

#: Bits of the address of a word in its row, and of one among registers and SecurityIDs.
WORD_BITS, WORDS_BITS = (registers.ROW_WORDS - 1).bit_length(), 9

#: Registers whose content the bank knows by itself; they are not among its ports.
OWN = ("map_hash", "instruments", "bank", "write_refused")


def _whole(access):
    """Registers of one kind as the core sees them: {name: width}, with ``_lo`` and ``_hi`` joined to one of 64 bits."""
    names = {}
    for register in REGISTERS:
        if register.access == access and register.name not in OWN:
            if register.name.endswith("_lo") and register.name[:-3] + "_hi" in BY_NAME:
                names[register.name[:-3]] = 64
            elif not (register.name.endswith("_hi") and register.name[:-3] + "_lo" in BY_NAME):
                names[register.name] = register.width
    return names


class RegisterBank(wiring.Component):
    """Every register of :mod:`hdl.control.registers`, and the parameter rows of all instruments.

    The names below are those of the registers; a pair ``x_lo``, ``x_hi`` is one member ``x`` of 64 bits. Writing
    ``x_lo`` changes nothing until ``x_hi`` is written, then both halves change in one cycle; the halves read back as
    they were written. Reading ``x_lo`` of a register of kind ro latches what ``x_hi`` will read.

    **Latency**: a write in cycle ``c`` shows in ``rw`` in ``c + 1``. The strobes in ``write`` come in ``c`` itself,
    with the word on ``bus.data``; those in ``written`` come in ``c + 1``, with the new value on ``rw``. A strobe on
    ``count`` in ``c`` is counted in what is read in ``c + 1`` or later.

    **Parameter rows** are banked. Writes go to the shadow bank, one word at a time, and never show in ``row``; ``flip``
    makes the shadow bank the active one and the other way round, for all rows in one cycle; a word written in that
    cycle goes to the bank that is the shadow after it. ``row`` in cycle
    ``c + 2`` is the row ``row_addr`` of cycle ``c`` in the bank that is active in ``c + 1``. The host reads
    the shadow bank.

    **After reset** every register is 0, and so are both banks: memories keep their content through a reset, so a sweep
    clears them, a word a cycle, and ``bus.ready`` is 0 until it is done (64 cycles an instrument, the number of
    instruments rounded up to a power of two, and at least 512).

    **Bad input**: a write to an address that does not exist, or is not writable, or of a SecurityID while not
    DISARMED, changes nothing and is counted in ``write_refused``. A read of an address that does not exist gives 0.
    Bits beyond the width of a register are ignored, and read as 0.

    Parameters
    ----------
    instruments : int
        Parameter rows, 1 to 255.

    Members
    -------
    bus : In(RegisterBus)
    rw : Out(Signature)
        Values of the rw registers, each of its width.
    now : In(Signature)
        What the host reads of those rw registers that the core advances by itself (:data:`LIVE`).
    write : Out(Signature)
        Strobes: an rw or wo register is being written. For a pair, its high half.
    written : Out(Signature)
        Strobes: an rw register has just changed.
    ro : In(Signature)
        Values of the ro registers.
    count : In(Signature)
        Strobes that are counted. Counters stay at 2^32 - 1.
    refused : Out(1)
        Strobe: a write was refused.
    flip : In(1)
        Strobe: change banks at the end of this cycle.
    bank : Out(1)
        The active bank.
    row_addr : In(8), row : Out(PARAM_ROW)
        Parameters of one instrument, see above. Without meaning where ``row_addr`` is not below ``instruments``.
    param_write : Out(1), param_write_row : Out(16), param_write_word : Out(5)
        Strobe: a parameter is being written, with ``bus.data``. The row is the instrument in the low bits, and above
        them, where ``row_addr`` would have its next bit, the bank that is written (instrument + instruments * bank,
        with ``instruments`` rounded up to a power of two).
    security_write : Out(1), security_index : Out(8)
        Strobe: the SecurityID of an instrument is being written, with ``bus.data``.
    histogram_addr : Out(6), histogram_data : In(32)
        Read port of the latency histogram; data four cycles after an address that holds still.
    """

    def __init__(self, instruments: int = 16):
        if not 1 <= instruments <= 255:
            raise ValueError(f"instruments is {instruments}, must be 1 to 255")
        self.instruments = instruments
        rw = _whole("rw")
        super().__init__({
            "bus": In(RegisterBus),
            "rw": Out(Signature({name: Out(width) for name, width in rw.items()})),
            "now": In(Signature({name: Out(rw[name]) for name in LIVE})),
            "write": Out(Signature({name: Out(1) for name in (*rw, *_whole("wo"))})),
            "written": Out(Signature({name: Out(1) for name in rw})),
            "ro": In(Signature({name: Out(width) for name, width in _whole("ro").items()})),
            "count": In(Signature({name: Out(1) for name in _whole("count")})),
            "refused": Out(1),
            "flip": In(1),
            "bank": Out(1),
            "row_addr": In(8),
            "row": Out(PARAM_ROW),
            "param_write": Out(1),
            "param_write_row": Out(16),
            "param_write_word": Out(5),
            "security_write": Out(1),
            "security_index": Out(8),
            "histogram_addr": Out(6),
            "histogram_data": In(32),
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        refused = Signal()          # the write in this cycle has no effect
        hit = Signal()              # it is to a register that can be written
        m.d.comb += [refused.eq(bus.we & ~hit), self.refused.eq(refused)]

        self._elaborate_registers(m, hit)
        row, sweep = self._elaborate_rows(m, hit)
        self._elaborate_read(m, refused, row, sweep)
        with m.If(self.security_write):
            m.d.comb += hit.eq(1)
        return m

    def _elaborate_registers(self, m, hit):
        """Values and strobes."""
        bus = self.bus
        held = {}
        m.d.sync += [getattr(self.written, name).eq(0) for name in _whole("rw")]
        with m.If(bus.we):
            with m.Switch(bus.addr):
                for register in REGISTERS:
                    name, half = _half(register)
                    if register.access not in ("rw", "wo"):
                        continue
                    with m.Case(register.address):
                        m.d.comb += hit.eq(1)
                        if half == 0:
                            held[name] = Signal(32, name=f"{name}_held")
                            m.d.sync += held[name].eq(bus.data)
                            continue
                        m.d.comb += getattr(self.write, name).eq(1)
                        if register.access == "rw":
                            value = bus.data if half is None else Cat(held[name], bus.data)
                            m.d.sync += [getattr(self.rw, name).eq(value), getattr(self.written, name).eq(1)]

    def _elaborate_rows(self, m, hit):
        """Parameter rows as the core reads them, a row at a time, and the sweep that clears all memories.

        Returns the row that the host writes and reads, and the sweep; its top bit says that it is done.
        """
        bus = self.bus
        assert max(register.address for register in REGISTERS) < 256
        index_width = max(1, (self.instruments - 1).bit_length())
        row = Signal(index_width + 1)               # row that is written or read by the host
        instrument = bus.addr[WORD_BITS:15]
        active = self.bank ^ self.flip              # from the next cycle on

        sweep = Signal(max(index_width + 1 + WORD_BITS, WORDS_BITS) + 1)
        with m.If(~sweep[-1]):
            m.d.sync += sweep.eq(sweep + 1)
        is_param = bus.addr[15] & (instrument < self.instruments)
        m.d.sync += self.bank.eq(active)
        m.d.comb += [
            bus.ready.eq(sweep[-1]),
            row.eq(Cat(instrument[:index_width], ~active)),
            self.param_write_row.eq(row),
            self.param_write_word.eq(bus.addr),
        ]

        # One memory for all parameters of a width, written one of them at a time and read whole. A write goes to the
        # shadow bank and a read to the active one, so that they never meet in a row.
        param_hits = Signal(len(PARAMS))
        for width in sorted({param.width for param in PARAMS}):
            params = [param for param in PARAMS if param.width == width]
            memory = Memory(shape=data.ArrayLayout(width, len(params)), depth=2 << index_width, init=[],
                            attrs=BLOCK)
            m.submodules[f"params_{width}"] = memory
            write, read = memory.write_port(granularity=1), memory.read_port(domain="comb")
            fetched = Signal(data.ArrayLayout(width, len(params)), name=f"fetched_{width}", reset_less=True)
            selected = Signal(len(params), name=f"selected_{width}")
            with m.If(bus.we & is_param):
                with m.Switch(bus.addr[:WORD_BITS]):
                    for n, param in enumerate(params):
                        with m.Case(param.word):
                            m.d.comb += selected[n].eq(1)
            with m.If(~sweep[-1]):
                m.d.comb += [write.addr.eq(sweep), write.en.eq(~0)]
            with m.Else():
                m.d.comb += [write.addr.eq(row), write.en.eq(selected),
                             write.data.eq(bus.data[:width].replicate(len(params)))]
            m.d.comb += read.addr.eq(Cat(self.row_addr[:index_width], active))
            m.d.sync += fetched.eq(read.data)
            for n, param in enumerate(params):
                m.d.sync += self.row[param.name].eq(fetched[n])
                m.d.comb += param_hits[param.word].eq(selected[n])
        m.d.comb += self.param_write.eq(param_hits.any())
        with m.If(self.param_write):
            m.d.comb += hit.eq(1)
        return row, sweep

    def _elaborate_read(self, m, refused, row, sweep):
        """What the host reads. Cycles are counted from ``bus.re``."""
        bus = self.bus
        passed = [bus.re] + [Signal(name=f"passed_{n}") for n in range(1, READ_LATENCY)]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(passed)]
        asked = Signal(16)          # the address, near by
        with m.If(bus.re):
            m.d.sync += asked.eq(bus.addr)

        # Whatever the host writes is also written, a cycle later, to memories that are a word wide; what it never
        # wrote is 0 there.
        is_global, is_id = bus.addr[8:] == registers.GLOBAL_BASE >> 8, bus.addr[8:] == registers.SECURITY_ID_BASE >> 8
        m.d.comb += [
            self.security_write.eq(bus.we & is_id & (bus.addr[:8] < self.instruments)
                                   & (self.ro.state == registers.DISARMED)),
            self.security_index.eq(bus.addr),
        ]
        written_param, written_word, kept = Signal(), Signal(), Signal(32)
        param_addr, word_addr = Signal(len(row) + WORD_BITS), Signal(WORDS_BITS)
        mask = Signal(32, init=(1 << 32) - 1)
        param_widths = {(param.word, param.width) for param in PARAMS}
        word_widths = {(register.address, register.width) for register in REGISTERS if register.access == "rw"}
        with m.If(bus.addr[15]):
            _mask(m, mask, bus.addr[:WORD_BITS], param_widths)
        with m.Elif(~is_id):
            _mask(m, mask, bus.addr[:8], word_widths)
        is_rw = Signal()
        with m.Switch(bus.addr[:8]):
            with m.Case(*(register.address for register in REGISTERS
                          if register.access == "rw" and _half(register)[0] not in LIVE)):
                m.d.comb += is_rw.eq(is_global)
        m.d.sync += [
            written_param.eq(self.param_write),
            written_word.eq(self.security_write | (bus.we & is_rw)),
        ]
        with m.If(bus.we):
            m.d.sync += [kept.eq(bus.data & mask), param_addr.eq(Cat(bus.addr[:WORD_BITS], row)),
                         word_addr.eq(Cat(bus.addr[:8], is_id))]

        shown = {}
        for name, depth, address, read_address, written in (
                ("param", 1 << len(param_addr), param_addr, Cat(bus.addr[:WORD_BITS], row), written_param),
                ("word", 1 << WORDS_BITS, word_addr, Cat(asked[:8], asked[12]), written_word)):
            memory = Memory(shape=32, depth=depth, init=[], attrs=BLOCK)
            m.submodules[f"{name}_words"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            fetched = Signal(32, name=f"fetched_{name}", reset_less=True)
            shown[name] = Signal(32, name=f"shown_{name}", reset_less=True)
            m.d.comb += read.addr.eq(read_address)
            with m.If(passed[1]):
                m.d.sync += fetched.eq(read.data)
            with m.If(~sweep[-1]):
                m.d.comb += [write.addr.eq(sweep), write.en.eq(1)]
            with m.Else():
                m.d.comb += [write.addr.eq(address), write.data.eq(kept), write.en.eq(written)]
            with m.If(passed[2]):
                m.d.sync += shown[name].eq(fetched)

        # Values that the core supplies, in groups; a group that is not asked shows 0.
        supplied = self._supplied(m, passed[1], asked)
        groups = []
        for n in range(0, len(supplied), 6):
            group = Signal(32, name=f"group_{n // 6}")
            with m.If(passed[1]):
                m.d.sync += group.eq(0)
                with m.Switch(asked[:8]):
                    for address, value in supplied[n:n + 6]:
                        with m.Case(address):
                            m.d.sync += group.eq(value)
            groups.append(group)
        shown["value"] = Signal(32)
        with m.If(passed[2]):
            m.d.sync += shown["value"].eq(reduce(or_, groups))

        shown["count"], is_count = self._elaborate_counters(m, refused, sweep, passed, asked)
        m.d.comb += self.histogram_addr.eq(bus.addr)
        shown["histogram"] = self.histogram_data
        asked_global = Signal()
        chosen = {name: Signal(name=f"chosen_{name}") for name in shown}
        m.d.sync += [
            asked_global.eq(asked[8:] == registers.GLOBAL_BASE >> 8),
            chosen["param"].eq(asked[15] & (asked[WORD_BITS:15] < self.instruments)),
            chosen["word"].eq(asked_global | (asked[8:] == registers.SECURITY_ID_BASE >> 8)),
            chosen["value"].eq(asked_global),
            chosen["count"].eq(asked_global & is_count),
            chosen["histogram"].eq(asked[6:] == registers.HISTOGRAM_BASE >> 6),
        ]
        with m.If(passed[-1]):
            m.d.sync += bus.read_data.eq(reduce(or_, (
                value & chosen[name].replicate(32) for name, value in shown.items())))

    def _supplied(self, m, sampled, asked):
        """[(address, value)] of what is read from signals. High halves are those of the last ``sampled`` low half."""
        own = {"map_hash": Const(MAP_HASH, 32), "instruments": Const(self.instruments, 32), "bank": self.bank}
        supplied, latched = [], {}
        for register in REGISTERS:
            name, half = _half(register)
            if register.access == "rw" and name in LIVE:
                supplied.append((register.address, getattr(self.now, name).word_select(half, 32)))
            elif register.access == "ro":
                value = own[name] if name in own else getattr(self.ro, name)
                if half == 0:
                    latched[name] = Signal(32, name=f"{name}_latched")
                    with m.If(sampled & (asked == register.address)):
                        m.d.sync += latched[name].eq(value[32:])
                    value = value[:32]
                elif half == 1:
                    value = latched[name]
                supplied.append((register.address, value))
        return supplied

    def _elaborate_counters(self, m, refused, sweep, passed, asked):
        """Counters, in a memory; returns what the one under the address shows, and whether there is one.

        Each counter has a short one of its own that is emptied into the memory when its turn comes, or when it is
        read. While nothing happens, nothing moves.
        """
        counters = [register for register in REGISTERS if register.access == "count"]
        assert all(register.width == 32 for register in counters)
        index_width = (len(counters) - 1).bit_length()
        events = Signal(len(counters))      # of the cycle before
        m.d.sync += events.eq(Cat(
            refused if register.name == "write_refused" else getattr(self.count, register.name)
            for register in counters))

        is_count = Signal()
        asked_index = Signal(index_width)   # of the counter under the address, a cycle later
        m.d.sync += is_count.eq(0)
        with m.Switch(asked[:8]):
            for n, register in enumerate(counters):
                with m.Case(register.address):
                    m.d.sync += [is_count.eq(1), asked_index.eq(n)]

        # Turns, until a round has passed in which nothing happened. A read keeps them off for as long as it takes
        # what is under way to be written, and then takes a turn itself.
        left = Signal(index_width + 1)
        turn = Signal(index_width)
        index = Signal(index_width)
        own_turn, read_turn, visit = Signal(), Signal(), Signal()
        m.d.comb += [
            own_turn.eq((left != 0) & ~Cat(passed).any()),
            read_turn.eq(passed[4] & is_count),
            visit.eq(own_turn | read_turn),
            index.eq(Mux(read_turn, asked_index, turn)),
        ]
        with m.If(events.any()):
            m.d.sync += left.eq(1 << index_width)
        with m.Elif(own_turn):
            m.d.sync += left.eq(left - 1)
        with m.If(own_turn):
            m.d.sync += turn.eq(turn + 1)

        # Long enough for an event a cycle through a round that reads make as slow as they can.
        pending = [Signal(8, name=f"{register.name}_pending") for register in counters]
        with m.If(events.any() | visit):
            for n, signal in enumerate(pending):
                with m.If(visit & (index == n)):
                    m.d.sync += signal.eq(events[n])
                with m.Elif(events[n]):
                    m.d.sync += signal.eq(signal + 1)

        # Visit: the short counter in two steps while the memory is read, the sum, and the write.
        m.submodules.counters = memory = Memory(shape=32, depth=1 << index_width, init=[], attrs=BLOCK)
        write, read = memory.write_port(), memory.read_port(domain="comb")
        visits = [visit] + [Signal(name=f"visit_{n}") for n in range(1, 4)]
        indices = [index] + [Signal(index_width, name=f"index_{n}") for n in range(1, 4)]
        picked = [Signal(8, name=f"picked_{n}") for n in range(0, len(pending), 8)]
        amount, total = Signal(8), Signal(33)
        fetched, before = Signal(32, reset_less=True), Signal(32, reset_less=True)
        shown = Signal(32)
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(visits)]
        m.d.comb += read.addr.eq(index)
        with m.If(visits[0]):
            m.d.sync += [indices[1].eq(index), fetched.eq(read.data)]
            m.d.sync += [target.eq(Array(pending[8 * n:8 * n + 8])[index[:3]]) for n, target in enumerate(picked)]
        with m.If(visits[1]):
            m.d.sync += [before.eq(fetched), amount.eq(Array(picked)[indices[1][3:]]), indices[2].eq(indices[1])]
        with m.If(visits[2]):
            m.d.sync += [total.eq(before + amount), indices[3].eq(indices[2])]
        new = Signal(32)
        m.d.comb += new.eq(total[:32] | total[32].replicate(32))
        with m.If(visits[3]):
            m.d.sync += shown.eq(new)
        with m.If(~sweep[-1]):
            m.d.comb += [write.addr.eq(sweep), write.en.eq(1)]
        with m.Else():
            m.d.comb += [write.addr.eq(indices[3]), write.data.eq(new), write.en.eq(visits[3])]
        return shown, is_count


def _half(register):
    """(name of the pair or register, 0 for the low half, 1 for the high one, None for no pair)."""
    for half, suffix in enumerate(("_lo", "_hi")):
        if register.name.endswith(suffix) and register.name[:-3] + ("_hi", "_lo")[half] in BY_NAME:
            return register.name[:-3], half
    return register.name, None


def _mask(m, mask, address, widths):
    """The bits that a word at ``address`` has, from a set of (address, width)."""
    with m.Switch(address):
        for width in sorted({width for _, width in widths if width < 32}):
            with m.Case(*sorted(where for where, its in widths if its == width)):
                m.d.comb += mask.eq((1 << width) - 1)

"""The registers in gateware, generated from their description."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from hdl.control import registers
from hdl.control.params import PARAM_ROW
from hdl.control.registers import BY_NAME, MAP_HASH, PARAMS, REGISTERS

__all__ = ["RegisterBank", "RegisterBus"]


#: Access to registers, one word a cycle.
#:
#: Members
#: -------
#: we : Out(1)
#:     Write ``data`` to ``addr`` at the end of this cycle.
#: ready : In(1)
#:     ``we`` and ``re`` are legal. Once 1, it stays.
#: re : Out(1)
#:     Read ``addr``: ``read_data`` holds the word in the next cycle and until the next read. Not together with ``we``.
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
    ``x_lo`` changes nothing until ``x_hi`` is written, then both halves change in one cycle. Reading ``x_lo`` of a
    register of kind ro latches what ``x_hi`` will read.

    **Latency**: a write in cycle ``c`` shows in ``rw`` in ``c + 1``. The strobes in ``write`` come in ``c`` itself,
    with the word on ``bus.data``; those in ``written`` come in ``c + 1``, with the new value on ``rw``. A strobe on
    ``count`` in ``c`` is counted in what is read in ``c + 1`` or later.

    **Parameter rows** are banked. Writes go to the shadow bank, one word at a time, and never show in ``row``; ``flip``
    makes the shadow bank the active one and the other way round, for all rows in one cycle. ``row`` in cycle
    ``c + row_latency`` is the row ``row_addr`` of cycle ``c`` in the bank that is active in ``c + 1``. The host reads
    the shadow bank.

    **After reset** every register is 0, and so are both banks: memories keep their content through a reset, so a sweep
    clears them, a row a cycle, and ``bus.ready`` is 0 until it is done (2 cycles an instrument, the number of
    instruments rounded up to a power of two).

    **Bad input**: a write to an address that does not exist, or is not writable, or of a SecurityID while not
    DISARMED, changes nothing and is counted in ``write_refused``. A read of an address that does not exist gives 0.
    Bits beyond the width of a register are ignored, and read as 0.

    Parameters
    ----------
    instruments : int
        Parameter rows, 1 to 255.
    row_latency : int
        1, or 2: ``row`` comes from registers.

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
        Read port of the latency histogram; data in the cycle after the address.
    """

    def __init__(self, instruments: int = 16, *, row_latency: int = 1):
        if row_latency not in (1, 2):
            raise ValueError(f"row_latency is {row_latency}, must be 1 or 2")
        if not 1 <= instruments <= 255:
            raise ValueError(f"instruments is {instruments}, must be 1 to 255")
        self.instruments, self.row_latency = instruments, row_latency
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

        readable = self._elaborate_registers(m, refused, hit)
        param_read, security_read = self._elaborate_rows(m, hit)
        self._elaborate_read(m, readable, param_read, security_read)
        return m

    def _elaborate_registers(self, m, refused, hit):
        """Holds and counters; returns {address: value} for reading."""
        bus = self.bus
        own = {"map_hash": Const(MAP_HASH, 32), "instruments": Const(self.instruments, 32), "bank": self.bank}
        held, latched, readable = {}, {}, {}

        def whole(register):
            """(name of the pair or register, 0 for the low half, 1 for the high one, None for no pair)."""
            for half, suffix in enumerate(("_lo", "_hi")):
                if register.name.endswith(suffix) and register.name[:-3] + ("_hi", "_lo")[half] in BY_NAME:
                    return register.name[:-3], half
            return register.name, None

        m.d.sync += [getattr(self.written, name).eq(0) for name in _whole("rw")]
        with m.If(bus.we):
            with m.Switch(bus.addr):
                for register in REGISTERS:
                    name, half = whole(register)
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

        for register in REGISTERS:
            name, half = whole(register)
            if register.access == "rw":
                value = getattr(self.now if name in LIVE else self.rw, name)
                readable[register.address] = value if half is None else value.word_select(half, 32)
            elif register.access == "ro":
                value = own[name] if name in own else getattr(self.ro, name)
                if half == 0:
                    latched[name] = Signal(32, name=f"{name}_latched")
                    with m.If(bus.re & (bus.addr == register.address)):
                        m.d.sync += latched[name].eq(value[32:])
                    value = value[:32]
                elif half == 1:
                    value = latched[name]
                readable[register.address] = value
            elif register.access == "count":
                counter = Signal(register.width, name=name)
                event = refused if name == "write_refused" else getattr(self.count, name)
                with m.If(event):
                    with m.If(~counter.all()):
                        m.d.sync += counter.eq(counter + 1)
                readable[register.address] = counter
        return readable

    def _elaborate_rows(self, m, hit):
        """Parameter rows and SecurityIDs; returns what the host reads of them, in the cycle after the address."""
        bus = self.bus
        index_width = max(1, (self.instruments - 1).bit_length())
        word_width = (registers.ROW_WORDS - 1).bit_length()
        row = Signal(index_width + 1)               # row that is written or read by the host
        instrument = bus.addr[word_width:15]
        shadow = ~self.bank

        # Both banks are cleared after reset, as a memory keeps its content through it.
        sweep = Signal(index_width + 2)
        sweeping = ~sweep[-1]
        with m.If(sweeping):
            m.d.sync += sweep.eq(sweep + 1)
        is_param = bus.addr[15] & (instrument < self.instruments)
        with m.If(self.flip):
            m.d.sync += self.bank.eq(~self.bank)
        m.d.comb += [
            bus.ready.eq(~sweeping),
            row.eq(Cat(instrument[:index_width], shadow)),
            self.param_write_row.eq(row),
            self.param_write_word.eq(bus.addr),
        ]

        # One memory for all parameters of a width, written one of them at a time and read whole.
        param_hits = Signal(len(PARAMS))
        host_words = {}
        for width in sorted({param.width for param in PARAMS}):
            params = [param for param in PARAMS if param.width == width]
            memory = Memory(shape=data.ArrayLayout(width, len(params)), depth=2 << index_width, init=[])
            m.submodules[f"params_{width}"] = memory
            write, host_read = memory.write_port(granularity=1), memory.read_port()
            read = memory.read_port(transparent_for=(write,))   # a write may fall into the cycle of `flip`
            selected = Signal(len(params), name=f"selected_{width}")
            with m.If(bus.we & is_param):
                with m.Switch(bus.addr[:word_width]):
                    for n, param in enumerate(params):
                        with m.Case(param.word):
                            m.d.comb += selected[n].eq(1)
            with m.If(sweeping):
                m.d.comb += [write.addr.eq(sweep), write.en.eq(~0)]
            with m.Else():
                m.d.comb += [write.addr.eq(row), write.en.eq(selected),
                             write.data.eq(bus.data[:width].replicate(len(params)))]
            m.d.comb += [
                read.addr.eq(Cat(self.row_addr[:index_width], self.bank ^ self.flip)),
                host_read.addr.eq(row),
                host_read.en.eq(bus.re),
            ]
            domain = m.d.comb if self.row_latency == 1 else m.d.sync
            for n, param in enumerate(params):
                domain += self.row[param.name].eq(read.data[n])
                m.d.comb += [param_hits[param.word].eq(selected[n])]
                host_words[param.word] = host_read.data[n]
        m.d.comb += self.param_write.eq(param_hits.any())
        with m.If(self.param_write):
            m.d.comb += hit.eq(1)

        word = Signal(word_width)
        in_range = Signal()
        param_read = Signal(32)
        with m.If(bus.re):
            m.d.sync += [word.eq(bus.addr), in_range.eq(is_param)]
        with m.If(in_range):
            with m.Switch(word):
                for number, value in host_words.items():
                    with m.Case(number):
                        m.d.comb += param_read.eq(value)

        m.submodules.security_ids = ids = Memory(shape=32, depth=1 << index_width, init=[])
        id_write, id_read = ids.write_port(), ids.read_port()
        is_id = (bus.addr[8:] == registers.SECURITY_ID_BASE >> 8) & (bus.addr[:8] < self.instruments)
        m.d.comb += [
            self.security_write.eq(bus.we & is_id & (self.ro.state == registers.DISARMED)),
            self.security_index.eq(bus.addr),
            id_read.addr.eq(bus.addr),
            id_read.en.eq(bus.re),
        ]
        with m.If(sweeping):
            m.d.comb += [id_write.addr.eq(sweep), id_write.en.eq(1)]
        with m.Else():
            m.d.comb += [id_write.addr.eq(bus.addr), id_write.data.eq(bus.data), id_write.en.eq(self.security_write)]
        with m.If(self.security_write):
            m.d.comb += hit.eq(1)
        security_read = Signal(32)
        id_in_range = Signal()
        with m.If(bus.re):
            m.d.sync += id_in_range.eq(bus.addr[:8] < self.instruments)
        m.d.comb += security_read.eq(id_read.data & id_in_range.replicate(32))
        return param_read, security_read

    def _elaborate_read(self, m, readable, param_read, security_read):
        bus = self.bus
        from_register = Signal(32)
        source = Signal(16)
        m.d.comb += self.histogram_addr.eq(bus.addr)
        with m.If(bus.re):
            m.d.sync += [source.eq(bus.addr), from_register.eq(0)]
            with m.Switch(bus.addr[:12]):
                for address, value in readable.items():
                    with m.Case(address):
                        m.d.sync += from_register.eq(value)
        # Memories answer in the cycle after the address, so what they say is chosen by the address as it was.
        with m.If(source[15]):
            m.d.comb += bus.read_data.eq(param_read)
        with m.Elif(source[8:] == registers.SECURITY_ID_BASE >> 8):
            m.d.comb += bus.read_data.eq(security_read)
        with m.Elif(source[6:] == registers.HISTOGRAM_BASE >> 6):
            m.d.comb += bus.read_data.eq(self.histogram_data)
        with m.Elif(source[12:] == registers.GLOBAL_BASE >> 12):
            m.d.comb += bus.read_data.eq(from_register)

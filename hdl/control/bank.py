"""The registers in gateware, generated from their description."""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from hdl.control import registers
from hdl.control.counters import READ_PASSES, EventCounters
from hdl.control.integrity import Integrity
from hdl.control.params import PARAM_ROW, TURNS
from hdl.control.registers import BY_NAME, LIMITS, MAP_HASH, PARAM_BY_NAME, PARAMS, REGISTERS, ROW_WORD_BITS
from hdl.memory import BLOCK, LANE_BITS, LANES

__all__ = ["READ_LATENCY", "RegisterBank", "RegisterBus", "short_counters"]

#: Cycles from ``re`` to the word that was read.
READ_LATENCY = 11

#: Access to registers, one word a cycle.
#:
#: Members
#: -------
#: we : Out(1)
#:     Write ``data`` to ``addr``. ``data`` holds for two cycles more, and in the three cycles after ``we`` and ``re``
#:     are 0.
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

#: Bits of the address of a word among registers and SecurityIDs.
WORDS_BITS = 9

#: Where counters lie in the memory of words. In a round each of them has its turn, a cycle each; reads and writes, of
#: which the link makes at most one in 13 or 4 cycles, make it longer, up to ROUND cycles. A counter has 3 bits of its
#: own, for an event in 15 cycles (one per frame or message of the session, say); OFTEN, 4, for one in 7 (per message of
#: the feed or decision); ANY_CYCLE, 7, for one a cycle, which noise at the pins or on the link can cause.
COUNTERS_AT, ROUND = 128, 105
ANY_CYCLE = ("feed_frames", "feed_bad_fcs", "order_rx_frames", "order_rx_bad", "telemetry_overflow", "link_rx_errors",
             "write_refused")
OFTEN = ("messages", "book_messages", "entries", "foreign_entries", "ignored_entries", "px_errors", "channel_resets",
         "events", "decisions_", "drop_", "link_rx_packets")
#: Registers of kind rw that the order port reads along as they are written. The bank only keeps what the host reads.
WORDS = ("local_mac", "peer_mac", "local_ip", "peer_ip", "local_port", "peer_port", "init_snd_nxt", "init_rcv_nxt",
         "init_peer_window", "window", "rto_first", "rto_min", "rto_max", "rto_most", "ack_delay", "init_app_seq",
         "mmp_group", "smp_id", "quote_flags", "order_flags")

#: Registers whose content the bank knows by itself; they are not among its ports.
OWN = ("map_hash", "instruments", "bank", "limits_hash", "limits_valid", "write_refused", "commits_refused")

#: What cannot be written while a commit is weighed, besides limits and rows.
WEIGHED = ("limits_crc", "commit")


def _whole(access):
    """Registers of one kind as the core sees them: {name: width}, with ``_lo`` and ``_hi`` joined to one of 64 bits."""
    names = {}
    for register in REGISTERS:
        if register.access == access and register.name not in OWN and _half(register)[0] not in WORDS:
            if register.name.endswith("_lo") and register.name[:-3] + "_hi" in BY_NAME:
                names[register.name[:-3]] = 64
            elif not (register.name.endswith("_hi") and register.name[:-3] + "_lo" in BY_NAME):
                names[register.name] = register.width
    return names


class RegisterBank(wiring.Component):
    """Every register of :mod:`hdl.control.registers`, and the parameter rows of all instruments.

    The names below are those of the registers; a pair ``x_lo``, ``x_hi`` is one member ``x`` of 64 bits. Writing
    ``x_lo`` changes nothing until ``x_hi`` is written, then both halves change in one cycle; the halves read back as
    they were written. No low half of another pair is written in between: ``x_hi`` is refused then. Of :data:`WORDS`
    each half goes by itself, as ``word_write`` says. Reading ``x_lo`` of a register of kind ro latches what ``x_hi``
    will read, until another such half is read.

    **Latency**: a write on the bus in cycle ``c`` acts in ``c + 1``, when its strobe in ``write`` comes, with the word
    on ``bus.data``, and shows in ``rw`` in ``c + 2``, with its strobe in ``written``. A strobe on
    ``count`` in ``c`` is counted in what is read in ``c + 1`` or later. Strobes can come in every cycle for
    :data:`ANY_CYCLE`, in one of 7 for :data:`OFTEN`, in one of 15 for others, if at most one word in 4 cycles is
    written and one in 13 is read; the mean over :data:`ROUND` cycles is what matters.

    **Parameter rows** are banked. Writes go to the shadow bank, one word at a time, and never show in ``row``; ``flip``
    makes the shadow bank the active one and the other way round, for all rows in one cycle; a word that acts in that
    cycle goes to the bank that is the shadow after it. With ``row_choose`` in cycle ``c`` the row ``row_addr`` of the
    active bank is fetched: the parameters of turn *k* (:data:`hdl.control.params.TURNS`) stand in ``row`` from
    ``c + 3 + k`` on, unless another row was chosen by ``c + k``; those of later turns still are what they were.
    ``row_addr`` holds still until ``c + 3``, and a decision that goes by the row excludes a ``flip`` until then: turn
    *k* is of the bank that is active in ``c + k``. The host reads the shadow bank.

    **Limits** of the card (:data:`hdl.control.registers.LIMITS`) are staged, too: what is written is read back, and
    shows in ``rw`` with the next commit that is right; those that were written since the last one have their strobes in
    ``write`` then, two cycles after ``flip``, and change in the cycle after. :class:`hdl.control.integrity.Integrity`
    weighs a commit.

    **After reset** every register is 0, and so are both banks: memories keep their content through a reset, so a sweep
    clears them, a word a cycle, and ``bus.ready`` is 0 until it is done (128 cycles an instrument, the number of
    instruments rounded up to a power of two, and at least 512).

    **Bad input**: a write to an address that does not exist, or is not writable, or of a high half without its low one,
    or of a SecurityID while not DISARMED, or of a limit, a row or any of :data:`WEIGHED` while a commit is weighed or
    waits, changes nothing and is counted in ``write_refused``. A read of an address
    that does not exist gives 0. Bits beyond the width of a register are ignored, and read as 0.

    Parameters
    ----------
    instruments : int
        Parameter rows, 1 to 256.

    Members
    -------
    bus : In(RegisterBus)
    rw : Out(Signature)
        Values of the rw registers but :data:`WORDS`, each of its width.
    now : In(Signature)
        What the host reads of those rw registers that the core advances by itself (:data:`LIVE`).
    write : Out(Signature)
        Strobes from flip-flops: such an rw register, or a wo register, is being written. For a pair, its high half.
    written : Out(Signature)
        Strobes: such an rw register has just changed.
    word_write : Out(1), word_address : Out(7)
        Strobe from a flip-flop: an rw register, or half of one, was written in the cycle before, any of :data:`WORDS`
        and none of :data:`LIVE`; the word is on ``bus.data``. Address and word hold for a cycle more.
    ro : In(Signature)
        Values of the ro registers.
    count : In(Signature)
        Strobes that are counted. Counters stay at 2^32 - 1.
    refused : Out(1)
        Strobe: the write of the cycle before was refused.
    commit, commit_refused : Out(1), commit_hash : Out(32)
        Strobes: a commit is right, ``flip`` is to follow; or it is wrong, and nothing changes: it would have had this
        hash.
    limits_ok, hash_ok : Out(1)
        Limits are in force; and the host says for the next command which, rightly.
    flip : In(1)
        Strobe: change banks at the end of this cycle.
    bank : Out(1)
        The active bank.
    row_addr : In(8), row_choose : In(1), row : Out(PARAM_ROW)
        Parameters of one instrument, see above. Without meaning where ``row_addr`` is not below ``instruments``.
    param_written : Out(len(PARAMS)), param_write_row : Out(16)
        Strobes from flip-flops, one a parameter: it was written two cycles before, ``bus.data``. The row
        is the instrument in the low bits, and above them, where ``row_addr`` would have its next bit, the bank that is
        written (instrument + instruments * bank, with ``instruments`` rounded up to a power of two).
    look_index : In(8), look_word : In(6), look_data : Out(32)
        A word of the active bank's row of an instrument, two cycles after it was asked for in four, for one cycle: in
        three of them the host may be reading, and a commit may be weighed.
    security_write : Out(1), security_index : Out(8)
        Strobe: the SecurityID of an instrument was written in the cycle before, ``bus.data``.
    histogram_addr : Out(6), histogram_data : In(32)
        Read port of the latency histogram; data four cycles after an address that holds still.
    """

    def __init__(self, instruments: int = 16):
        if not 1 <= instruments <= 256:
            raise ValueError(f"instruments is {instruments}, must be 1 to 256")
        self.instruments = instruments
        rw = _whole("rw")
        super().__init__({
            "bus": In(RegisterBus),
            "rw": Out(Signature({name: Out(width) for name, width in rw.items()})),
            "now": In(Signature({name: Out(rw[name]) for name in LIVE})),
            "write": Out(Signature({name: Out(1) for name in (*rw, *_whole("wo"))})),
            "written": Out(Signature({name: Out(1) for name in rw})),
            "word_write": Out(1),
            "word_address": Out((COUNTERS_AT - 1).bit_length()),
            "ro": In(Signature({name: Out(width) for name, width in _whole("ro").items()})),
            "count": In(Signature({name: Out(1) for name in _whole("count")})),
            "refused": Out(1),
            "commit": Out(1),
            "commit_refused": Out(1),
            "commit_hash": Out(32),
            "limits_ok": Out(1),
            "hash_ok": Out(1),
            "flip": In(1),
            "bank": Out(1),
            "row_addr": In(8),
            "row_choose": In(1),
            "row": Out(PARAM_ROW),
            "param_written": Out(len(PARAMS)),
            "param_write_row": Out(16),
            "look_index": In(8),
            "look_word": In(ROW_WORD_BITS),
            "look_data": Out(32),
            "security_write": Out(1),
            "security_index": Out(8),
            "histogram_addr": Out(6),
            "histogram_data": In(32),
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        address = Signal(16)        # of the latest write or read
        with m.If(bus.we | bus.re):
            m.d.sync += address.eq(bus.addr)

        m.submodules.integrity = integrity = Integrity(self.instruments)
        m.d.comb += [
            integrity.start.eq(self.write.commit), integrity.say.eq(self.write.limits_crc),
            integrity.use.eq(self.write.arm | self.write.clear_halt), integrity.crc.eq(self.rw.limits_crc),
            integrity.flip.eq(self.flip), self.commit.eq(integrity.commit), self.commit_refused.eq(integrity.refused),
            self.commit_hash.eq(integrity.found),
            self.limits_ok.eq(integrity.valid), self.hash_ok.eq(integrity.agrees),
        ]

        # A write: what it is, then what it does to values, then what it does to memories.
        is_global = bus.addr[8:] == registers.GLOBAL_BASE >> 8
        is_param = (bus.addr[15] & (bus.addr[ROW_WORD_BITS:15] < self.instruments)
                    & (bus.addr[:ROW_WORD_BITS] < len(PARAMS)))
        is_id = (bus.addr[8:] == registers.SECURITY_ID_BASE >> 8) & (bus.addr[:8] < self.instruments)
        is_register, is_word = Signal(), Signal()
        is_limit, is_weighed, limit = Signal(), Signal(), Signal(range(len(LIMITS)))
        # A low half waits for its high one, and so does the name of its pair.
        pairs = [name for register in REGISTERS for name, half in [_half(register)]
                 if half == 0 and register.access in ("rw", "wo")]
        held = Signal(32)
        held_of, is_low, low = (Signal(range(len(pairs) + 1), name=name) for name in ("held_of", "is_low", "low"))
        with m.Switch(bus.addr[:8]):
            for register in REGISTERS:
                if register.access in ("rw", "wo"):
                    name, half = _half(register)
                    with m.Case(register.address):
                        here = is_global if half != 1 else is_global & (held_of == 1 + pairs.index(name))
                        m.d.comb += is_register.eq(here)
                        if register.access == "rw" and name not in LIVE:
                            m.d.comb += is_word.eq(here)
                        if register.limit:
                            m.d.comb += [is_limit.eq(is_global), limit.eq(LIMITS.index(register))]
                        if register.limit or name in WEIGHED:
                            m.d.comb += is_weighed.eq(is_global)
                        if half == 0:
                            m.d.comb += is_low.eq(1 + pairs.index(name))
        m.d.sync += low.eq(Mux(bus.we & is_global, is_low, 0))
        with m.If(low != 0):
            m.d.sync += [held.eq(bus.data), held_of.eq(low)]
        wrote, to_param, to_id, to_word, to_none = (
            Signal(name=name) for name in ("wrote", "to_param", "to_id", "to_word", "to_none"))
        to_limit, limit_written, limit_at = Signal(), Signal(), Signal.like(limit)
        closed = integrity.busy & (is_param | is_weighed)
        m.d.sync += [
            wrote.eq(bus.we), to_param.eq(bus.we & is_param & ~closed), to_id.eq(bus.we & is_id),
            to_word.eq(bus.we & is_word & ~closed), to_limit.eq(bus.we & is_limit & ~closed),
            to_none.eq(bus.we & ((~is_register & ~is_param & ~is_id) | closed)), limit_written.eq(to_limit),
        ]
        with m.If(bus.we):
            m.d.sync += limit_at.eq(limit)
        locked = self.ro.state != registers.DISARMED
        written_word, written_param = Signal(), Signal()
        m.d.comb += [
            self.word_write.eq(to_word), self.word_address.eq(address),
            self.security_write.eq(to_id & ~locked), self.security_index.eq(address),
            self.refused.eq(to_none | (to_id & locked)),
        ]
        m.d.sync += [written_param.eq(to_param), written_word.eq(to_word | self.security_write)]

        # The bits that the word has; 0 after reset.
        mask, kept = Signal(32), Signal(32)
        widths = Signal(32)
        m.d.comb += [widths.eq(~0), kept.eq(bus.data & mask)]
        with m.If(to_param):
            _mask(m, widths, address[:ROW_WORD_BITS], {(param.word, param.width) for param in PARAMS})
        with m.Elif(~to_id):
            _mask(m, widths, address[:8], {(register.address, register.width) for register in REGISTERS
                                           if register.access == "rw"})
        with m.If(wrote):
            m.d.sync += mask.eq(widths)

        self._elaborate_registers(m, held, is_register, closed, integrity.apply)
        row, sweep = self._elaborate_rows(m, address, to_param, kept)
        param_word = self._elaborate_read(m, address, row, sweep, kept, written_word, written_param, integrity)

        # The card's limits as they are staged, for those who weigh them.
        m.submodules.limits = memory = Memory(shape=32, depth=len(LIMITS), init=[], attrs={"no_rw_check": 1})
        write, read, staged = memory.write_port(), memory.read_port(domain="comb"), Signal(32, reset_less=True)
        m.d.comb += [
            write.addr.eq(Mux(sweep[-1], limit_at, sweep)), write.data.eq(kept),
            write.en.eq(limit_written | ~sweep[-1]), read.addr.eq(integrity.address.word),
            integrity.word.eq(Mux(integrity.in_rows, param_word, staged)),
        ]
        m.d.sync += staged.eq(read.data)
        return m

    def _elaborate_registers(self, m, held, is_register, closed, apply):
        """Values and strobes."""
        bus = self.bus
        for register in REGISTERS:
            if register.access not in ("rw", "wo"):
                continue
            name, half = _half(register)
            if half == 0 or name in WORDS:
                continue
            strobe, value = getattr(self.write, name), bus.data if half is None else Cat(held, bus.data)
            may = is_register if half else ~closed if register.limit or name in WEIGHED else 1
            hit = bus.we & (bus.addr == register.address) & may
            if register.limit:
                staging, changed = Signal(name=f"{name}_staging"), Signal(name=f"{name}_changed")
                value = Signal(register.width, name=f"{name}_staged")
                m.d.sync += [staging.eq(hit), changed.eq(staging | (changed & ~apply))]
                with m.If(staging):
                    m.d.sync += value.eq(bus.data)
                hit = apply & changed
            m.d.sync += strobe.eq(hit)
            if register.access == "rw":
                m.d.sync += getattr(self.written, name).eq(strobe)
                with m.If(strobe):
                    m.d.sync += getattr(self.rw, name).eq(value)

    def _elaborate_rows(self, m, address, to_param, kept):
        """Parameter rows as the core reads them, a row at a time, and the sweep that clears all memories.

        Returns the row that the host writes and reads, and the sweep; its top bit says that it is done.
        """
        bus = self.bus
        assert max(register.address for register in REGISTERS) < 256
        index_width = max(1, (self.instruments - 1).bit_length())
        row = Signal(index_width + 1)               # row that is written or read by the host

        sweep = Signal(max(index_width + 1 + ROW_WORD_BITS, WORDS_BITS) + 1)
        with m.If(~sweep[-1]):
            m.d.sync += sweep.eq(sweep + 1)
        with m.If(self.flip):
            m.d.sync += self.bank.eq(~self.bank)
        m.d.comb += [
            bus.ready.eq(sweep[-1]),
            row.eq(Cat(address[ROW_WORD_BITS:ROW_WORD_BITS + index_width], ~self.bank)),
            self.param_write_row.eq(row),
        ]

        # Which row it is comes late in its cycle, and has a long way to all the memories.
        active_row, chosen = Signal(index_width + 1, reset_less=True), Signal()
        m.d.sync += [active_row.eq(Cat(self.row_addr[:index_width], self.bank)), chosen.eq(self.row_choose)]
        begun, turn, come = Signal(len(TURNS) - 1), Signal(len(TURNS)), Signal(len(TURNS))  # one bit a turn
        m.d.comb += turn.eq(Mux(chosen, 1, begun << 1))
        m.d.sync += [begun.eq(turn), come.eq(turn)]
        turn_bits = (len(TURNS) - 1).bit_length()

        def number(one_hot):
            return Cat(Cat(one_hot[n] for n in range(len(TURNS)) if n >> bit & 1).any() for bit in range(turn_bits))

        # Memories of four lanes, each with a write enable: where a parameter is written is told a cycle ahead. A write
        # goes to the shadow bank and a read to the active one, so that they never meet in a row.
        places = _places()
        words = self.param_written
        written_turn = Signal(turn_bits)
        is_word = {param.name: address[:ROW_WORD_BITS] == param.word for param in PARAMS}
        m.d.sync += [words.eq(Mux(to_param, Cat(is_word[param.name] for param in PARAMS), 0)),
                     written_turn.eq(number([Cat(is_word[name] for name in names).any() for names in TURNS]))]
        for n in range(1 + max(memory for _, memory, _ in places.values())):
            m.submodules[f"params_{n}"] = memory = Memory(
                shape=LANES * LANE_BITS, depth=2 << index_width + turn_bits, init=[], attrs=BLOCK)
            write, read = memory.write_port(granularity=LANE_BITS), memory.read_port(domain="comb")
            # The memory's output needs most of a cycle to leave it, and so goes straight into `row`.
            fetched = Signal(LANES * LANE_BITS, name=f"fetched_{n}", reset_less=True)
            m.d.comb += [read.addr.eq(Cat(number(turn), active_row)),
                         write.addr.eq(Mux(sweep[-1], Cat(written_turn, row), sweep))]
            m.d.sync += fetched.eq(read.data)
            pieces = [{} for _ in range(LANES)]     # of each lane, the written bits that go there, and for which words
            for param in PARAMS:
                which, its, lane = places[param.name]
                if its != n:
                    continue
                for piece in range(_lanes(param)):
                    pieces[lane + piece].setdefault(piece, []).append(words[PARAMS.index(param)])
                with m.If(come[which]):
                    m.d.sync += self.row[param.name].eq(fetched[lane * LANE_BITS:lane * LANE_BITS + param.width])
            for lane, its in enumerate(pieces):
                m.d.comb += write.en[lane].eq(Cat(*its.values()).any() | ~sweep[-1])
                offered = [Mux(Cat(hits).any() if len(its) > 1 else 1, kept[piece * LANE_BITS:][:LANE_BITS], 0)
                           for piece, hits in its.items()]
                m.d.comb += write.data.word_select(lane, LANE_BITS).eq(reduce(or_, offered, 0))
        return row, sweep

    def _elaborate_read(self, m, address, row, sweep, kept, written_word, written_param, integrity):
        """What the host reads, in cycles from ``bus.re``. Returns a word of the rows that was fetched, for either."""
        bus = self.bus
        passed = [bus.re] + [Signal(name=f"passed_{n}") for n in range(1, READ_LATENCY)]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(passed)]

        # Whatever the host writes is also written to memories that are a word wide; what it never wrote is 0 there.
        param_addr = Cat(address[:ROW_WORD_BITS], row)
        memory = Memory(shape=32, depth=1 << len(param_addr), init=[], attrs=BLOCK)
        m.submodules.param_words = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        fetched, param = Signal(32, reset_less=True), Signal(32, reset_less=True)
        index_width = max(1, (self.instruments - 1).bit_length())
        # One register takes what the memory gives, whoever has asked.
        weighed, looked, looks = Signal(len(param_addr) - 1), Signal(32, reset_less=True), Signal()
        m.d.sync += [fetched.eq(read.data), looks.eq(~passed[1] & ~integrity.fetch)]
        with m.If(looks):
            m.d.sync += looked.eq(fetched)
        m.d.comb += [
            self.look_data.eq(looked), weighed.eq(integrity.address.as_value()),
            read.addr.eq(Mux(passed[1], param_addr, Mux(
                integrity.fetch, Cat(weighed, ~self.bank),
                Cat(self.look_word, self.look_index[:index_width], self.bank)))),
            integrity.blocked.eq(passed[1]),
            write.addr.eq(Mux(sweep[-1], param_addr, sweep)),
            write.data.eq(kept),
            write.en.eq(written_param | ~sweep[-1]),
        ]
        asked_param, asked_word, asked_histogram = (
            Signal(name=f"asked_{what}") for what in ("param", "word", "histogram"))
        is_global = address[8:] == registers.GLOBAL_BASE >> 8
        m.d.sync += [
            asked_param.eq(address[15] & (address[ROW_WORD_BITS:15] < self.instruments)),
            asked_word.eq(is_global | (address[8:] == registers.SECURITY_ID_BASE >> 8)),
            asked_histogram.eq(address[6:] == registers.HISTOGRAM_BASE >> 6),
        ]
        with m.If(passed[2]):
            m.d.sync += param.eq(Mux(asked_param, fetched, 0))

        # Values that the core supplies. Each goes through a register that is 0 unless it is asked for.
        parts = []
        latched, highs, latches, tells_latched = Signal(32), [], [], []
        for register, value in self._supplied(integrity):
            _, half = _half(register)
            chosen = Signal(name=f"{register.name}_chosen")
            m.d.sync += chosen.eq(passed[1] & (address == register.address))
            if register.access == "ro" and half == 0:
                highs.append(Mux(chosen, value[32:], 0))
                latches.append(chosen)
            if register.access == "ro" and half == 1:
                tells_latched.append(chosen)
                continue
            parts.append(Signal(min(len(value), 32), name=f"{register.name}_shown", reset_less=True))
            m.d.sync += parts[-1].eq(Mux(chosen, value, 0))
        with m.If(Cat(latches).any()):
            m.d.sync += latched.eq(reduce(or_, highs))
        parts.append(Signal(32, name="latched_shown", reset_less=True))
        m.d.sync += parts[-1].eq(Mux(Cat(tells_latched).any(), latched, 0))
        supplied = Signal(32, reset_less=True)
        with m.If(passed[3]):
            m.d.sync += supplied.eq(reduce(or_, parts))

        word = self._elaborate_words(m, sweep, passed, address, asked_word, kept, written_word)
        m.d.comb += self.histogram_addr.eq(address)
        with m.If(passed[-1]):
            m.d.sync += bus.read_data.eq(
                supplied | param | word | (self.histogram_data & asked_histogram.replicate(32)))
        return fetched

    def _supplied(self, integrity):
        """(register, value) of what is read from signals. Of pairs that are ro, the value is all of it for both."""
        own = {"map_hash": Const(MAP_HASH, 32), "instruments": Const(self.instruments, 32), "bank": self.bank,
               "limits_hash": integrity.hash, "limits_valid": integrity.valid}
        for register in REGISTERS:
            name, half = _half(register)
            if register.access == "rw" and name in LIVE:
                yield register, getattr(self.now, name).word_select(half, 32)
            elif register.access == "ro":
                yield register, own[name] if name in own else getattr(self.ro, name)

    def _elaborate_words(self, m, sweep, passed, address, asked_word, kept, written_word):
        """Words that were written, and counters, in one memory; returns the one under the address.

        See :class:`hdl.control.counters.EventCounters`.
        """
        counters = _counters()
        assert all(register.width == 32 for register in counters)
        assert max(register.address for register in REGISTERS if register.access != "count") < COUNTERS_AT
        assert len(counters) <= min(256 - COUNTERS_AT, ROUND * (1 - 1 / 4 - 1 / 13))
        assert ROUND / 7 <= (1 << 4) - 1
        assert ROUND / 15 <= (1 << 3) - 1
        m.submodules.words = words = EventCounters(short_counters(), base=COUNTERS_AT, address_bits=WORDS_BITS)
        own = {"write_refused": self.refused, "commits_refused": self.commit_refused}
        m.d.sync += words.events.eq(
            Cat(own[register.name] if register.name in OWN else getattr(self.count, register.name)
                for register in counters))

        m.d.sync += [words.read_is_count.eq(0), words.read_index.eq(0)]
        with m.Switch(address[:8]):
            for n, register in enumerate(counters):
                with m.Case(register.address):
                    m.d.sync += [words.read_is_count.eq(address[8:] == registers.GLOBAL_BASE >> 8),
                                 words.read_index.eq(n)]

        m.d.comb += [
            words.write.eq(written_word), words.write_addr.eq(Cat(address[:8], address[12])), words.write_data.eq(kept),
            words.clear.eq(~sweep[-1]), words.clear_addr.eq(sweep),      # 0 after reset
            words.read.eq(Cat(passed[:READ_PASSES])), words.read_addr.eq(Cat(address[:8], address[12])),
            words.shows.eq(asked_word),
        ]
        return words.shown


def _counters():
    """Registers that count, as they lie in the memory of words."""
    return sorted((register for register in REGISTERS if register.access == "count"),
                  key=lambda register: -_short_bits(register.name))


def short_counters():
    """Bits of the short counters, as they lie in the memory of words."""
    return [_short_bits(register.name) for register in _counters()]


def _short_bits(name):
    """Bits of a counter's own short count: enough for what can happen between two of its turns."""
    return 7 if name in ANY_CYCLE else 4 if name.startswith(OFTEN) else 3


def _lanes(param):
    return -(-param.width // LANE_BITS)


def _places():
    """{parameter: (turn, memory, first lane)}, in as few memories as that takes."""
    places = {}
    for turn, names in enumerate(TURNS):
        used = []       # lanes of each memory
        for name in sorted(names, key=lambda name: -_lanes(PARAM_BY_NAME[name])):
            needs = _lanes(PARAM_BY_NAME[name])
            memory = next((n for n, its in enumerate(used) if its + needs <= LANES), len(used))
            used[memory:memory + 1] = [its + needs for its in used[memory:memory + 1] or [0]]
            places[name] = turn, memory, used[memory] - needs
    return places


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

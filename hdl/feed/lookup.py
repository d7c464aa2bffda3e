"""From the feed's SecurityID to the instrument number, while its bytes arrive."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.memory import BLOCK

#: Bytes of a SecurityID that are compared with every configured one as they arrive; the last one comes too late.
NARROWING = 3

#: Instruments whose bits share a memory of LUTs, and bits of its address: half a byte.
_GROUP, _DIGIT = 4, 4
_ROWS = 1 << _DIGIT
#: Cycles from the address of an id to that in which it joins its group.
_FETCH = 2
_STEPS = _GROUP + _FETCH + _ROWS


class InstrumentLookup(wiring.Component):
    """Narrows down the configured SecurityIDs byte by byte, least significant first.

    All ids are asked at once, so that 256 of them are no slower than 16. None is compared: for each hexadecimal digit
    of an id there is a table of 16 rows, one for each value of the digit, with a bit for every instrument whose id has
    that digit there. A byte is two rows, and what is in both of them agrees. With the last byte
    the number of the one id is known that agrees in the bytes before it, in flip-flops: every byte is looked up a cycle
    ahead. Whether the id agrees in all bytes is said by ``same``, some cycles later, while its rows
    are fetched. Ids that agree in their low 24 bits cannot be told apart in time: the number is then the bitwise OR of
    theirs, and what ``same`` says of that one holds.

    After a write the tables are made anew from all the ids, four instruments in 22 cycles. Until then a number may come
    that is another one's, or none; ``same`` goes by what is written from the start.

    Parameters
    ----------
    instruments : number of entries.

    Members
    -------
    write : in(1), write_index : in(8), write_id : in(32) set one entry; 0 means unused. Nothing is to be written in the
        ``instruments`` cycles after reset, in which all entries become 0.
    settled : out(1) the tables show all that is written.
    ahead : in(8) the byte of the next cycle. ``due`` : in(2) byte *i* of an id is the one that comes next, whether in
        this cycle or later, where bit *i* is set, for 0 and 1. Byte 2 follows, now or later, when neither is set.
    hit : out(1), index : out(8) an entry agrees in the three bytes; in the cycle after that of byte 2.
    address : in(8), security_id : in(32) entry asked about, and the id that it should have.
    same : out(1) it has. Three cycles after ``address``.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({"write": In(1), "write_index": In(8), "write_id": In(32), "settled": Out(1), "ahead": In(8),
                          "due": In(NARROWING - 1), "hit": Out(1), "index": Out(8),
                          "address": In(8), "security_id": In(32), "same": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        whole, clears = self._elaborate_ids(m)
        agreeing = self._elaborate_tables(m, whole, clears)

        # What agrees in byte k, if that is the one, and in all up to it. Whether it is the one comes too late to be
        # asked: while it may be, what was found is found anew, so that the last time counts.
        agrees = [Signal(n, name=f"agrees_{k}") for k in range(NARROWING - 1)]
        so_far = [Signal(n, name=f"so_far_{k}") for k in range(NARROWING - 1)]
        found = Signal(n)       # in all bytes, if the last one is the one
        m.d.sync += [its.eq(now) for its, now in zip(agrees, agreeing, strict=False)]
        for k, kept in enumerate(so_far):
            now = agrees[k] if k == 0 else so_far[k - 1] & agrees[k]
            with m.If(self.due[k]):
                m.d.sync += kept.eq(now)
            matches = Mux(self.due[k], now, kept)
        # The last byte meets the others before its register, so that nothing but the encoder is behind it.
        m.d.sync += found.eq(matches & agreeing[-1])
        known = Signal()        # the tables have been made since reset
        with m.If(self.settled):
            m.d.sync += known.eq(1)
        m.d.sync += self.hit.eq(found.any() & known)
        for bit in range((n - 1).bit_length()):
            m.d.sync += self.index[bit].eq(Cat(found[i] for i in range(n) if i >> bit & 1).any())
        return m

    def _elaborate_ids(self, m):
        """The ids themselves, and ``same``. Returns their memory, and whether the sweep after reset is under way."""
        n = self.instruments
        m.submodules.whole = whole = Memory(shape=32, depth=n, init=[], attrs=BLOCK)
        port, read = whole.write_port(), whole.read_port(domain="comb")
        sweep, clears = Signal(range(max(2, n))), Signal(init=1)    # memories keep what they had
        with m.If(clears):
            m.d.sync += [sweep.eq(sweep + 1), clears.eq(sweep != n - 1)]
        fetched, stored = (Signal(32, name=name, reset_less=True) for name in ("fetched", "stored"))
        m.d.comb += [
            port.addr.eq(Mux(clears, sweep, self.write_index)), port.data.eq(Mux(clears, 0, self.write_id)),
            port.en.eq(clears | (self.write & (self.write_index < n))), read.addr.eq(self.address),
        ]
        m.d.sync += [fetched.eq(read.data), stored.eq(fetched),
                     self.same.eq((stored == self.security_id) & (stored != 0))]
        return whole, clears

    def _elaborate_tables(self, m, whole, clears):
        """Makes the tables. Returns, for each byte, the instruments that agree with ``ahead`` in it."""
        n = self.instruments
        groups = -(-n // _GROUP)

        # Group after group: its four ids come one after the other, then row after row is written to all tables at once.
        written, works = Signal(init=1), Signal()       # something is not in the tables yet; they are being made
        group, step = Signal(range(max(2, groups))), Signal(range(_STEPS))
        last = Signal()
        m.d.sync += last.eq((step == _STEPS - 2) & (group == groups - 1))
        with m.If(works):
            m.d.sync += [step.eq(step + 1), works.eq(~last)]
            with m.If(step == _STEPS - 1):
                m.d.sync += [step.eq(0), group.eq(group + 1)]
        with m.Elif(written & ~clears):
            m.d.sync += [step.eq(0), group.eq(0), works.eq(1), written.eq(0)]
        with m.If(self.write):
            m.d.sync += written.eq(1)

        read = whole.read_port(domain="comb")
        fetched, come = (Signal(32, name=f"{name}_entry", reset_less=True) for name in ("fetched", "come"))
        entries = [Signal(8 * NARROWING, name=f"entry_{i}") for i in range(_GROUP)]
        used = Signal(_GROUP)
        m.d.comb += read.addr.eq(Cat(step[:_GROUP.bit_length() - 1], group))
        m.d.sync += [fetched.eq(read.data), come.eq(fetched)]
        with m.If(step < _GROUP + _FETCH):
            m.d.sync += [*(its.eq(following) for its, following in pairwise([*entries, come])),
                         used.eq(Cat(used[1:], come != 0))]

        # A row as it is written, a register away from what it is made of.
        row, enable = Signal(_DIGIT), Signal(groups)
        makes = Signal()
        m.d.sync += [row.eq(step - (_GROUP + _FETCH)), makes.eq(works & (step >= _GROUP + _FETCH)),
                     enable.eq(Mux(works & (step >= _GROUP + _FETCH), 1 << group, 0))]
        m.d.sync += self.settled.eq(~self.write & ~written & ~works & ~makes)

        agreeing = []
        for k in range(NARROWING):
            rows = []
            for half in range(2):
                place = 8 * k + _DIGIT * half
                m.submodules[f"digit_{2 * k + half}"] = table = Memory(
                    shape=_GROUP * groups, depth=_ROWS, init=[], attrs={"ram_style": "distributed"})
                write, shows = table.write_port(granularity=_GROUP), table.read_port(domain="comb")
                bits = Signal(_GROUP, name=f"bits_{2 * k + half}")
                m.d.sync += bits.eq(Cat(
                    some & (its[place:place + _DIGIT] == (step - (_GROUP + _FETCH))[:_DIGIT])
                    for some, its in zip(used, entries, strict=True)))
                m.d.comb += [write.addr.eq(row), write.en.eq(enable), write.data.eq(bits.replicate(groups)),
                             shows.addr.eq(self.ahead[_DIGIT * half:][:_DIGIT])]
                rows.append(shows.data)
            agreeing.append((rows[0] & rows[1])[:n])
        return agreeing

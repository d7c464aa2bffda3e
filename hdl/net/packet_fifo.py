"""A byte FIFO that shows whole packets only."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.mac.stream import Packet

__all__ = ["PacketFifo"]

MIN_BLOCK = 8       # bytes; what is full is known a few cycles late
BLOCKS = 16         # at most: their numbers are small
BANK = 2048         # bytes with a mark in a memory block


class PacketFifo(wiring.Component):
    """Byte FIFO with commit and discard.

    The writer cannot be stalled against its will: it writes bytes as they come, and decides at the end whether they
    are to be kept. The reader sees a packet only after its commit, and then without a gap.

    **Latency**: the first byte of a packet committed in cycle ``c`` is on ``o`` in ``c + 2`` if the FIFO was empty, in
    ``c + 3`` if it is also its last one. One byte a cycle in and out. With the last byte of a packet taken in cycle
    ``t`` the first one of the next is on ``o`` in ``t + 3`` at the earliest. What is on ``o`` comes from registers, of
    more than :data:`BANK` bytes by a choice between them.

    **Bad input**: a byte for which there is no room is lost, and then its packet is never shown, whatever else is
    written of it: the commit is refused, which frees the packet's bytes, and ``dropped`` says so. That they are free is
    known two cycles later. A commit of a packet of no bytes does nothing.

    Parameters
    ----------
    depth_bytes : int
        Bytes of the memory, a power of two and at least 32. There is room for ``room`` at least.

    Members
    -------
    w_data : In(8), w_valid : In(1)
        A byte of the packet being written.
    w_ready : Out(1)
        There is room for a few bytes more. A register. A writer that can wait, waits for it, and may write up to
        :data:`MIN_BLOCK` - 3 bytes when it has fallen.
    w_commit : In(1)
        Strobe: the packet is complete. Never together with ``w_valid``.
    w_discard : In(1)
        Strobe: forget the packet. Never together with ``w_valid``. Goes before ``w_commit``.
    w_room : Out(1)
        Nothing of the packet was lost: a commit will be accepted. A register.
    dropped : Out(1)
        Strobe for a counter, with ``w_commit``: the commit was refused.
    busy : Out(1)
        A packet has been committed (in the cycle before or earlier) and not been taken as a whole.
    o : Out(Packet)
        The packets, in the order of their commits.

    Attributes
    ----------
    room : int
        Bytes that surely find room before ``w_ready`` falls.
    """

    def __init__(self, depth_bytes: int):
        if depth_bytes < 4 * MIN_BLOCK or depth_bytes & (depth_bytes - 1):
            raise ValueError(f"depth_bytes is {depth_bytes}, must be a power of two and at least {4 * MIN_BLOCK}")
        self.depth_bytes = depth_bytes
        self.block = max(MIN_BLOCK, depth_bytes // BLOCKS)
        self.room = depth_bytes - 3 * self.block
        super().__init__({
            "w_data": In(8),
            "w_valid": In(1),
            "w_ready": Out(1, init=1),
            "w_commit": In(1),
            "w_discard": In(1),
            "w_room": Out(1),
            "dropped": Out(1),
            "busy": Out(1),
            "o": Out(Packet),
        })

    def elaborate(self, platform):
        m = Module()

        # Each byte has a mark that it is its packet's last. No byte that is used is read in the cycle in which it is
        # written: synthesis need not care for that. What one memory block cannot hold is in several, byte by byte.
        entry = Signal(9)
        end = Signal(range(self.depth_bytes))       # where the newest byte goes
        holds = Signal()
        fetch = Signal.like(end)                    # the byte that is fetched next
        banks = max(1, self.depth_bytes // BANK)
        choice = (banks - 1).bit_length()
        fetched = []
        for n in range(banks):
            m.submodules[f"bytes_{n}"] = memory = Memory(shape=9, depth=self.depth_bytes // banks, init=[],
                                                         attrs={"no_rw_check": 1, "ram_style": "block"})
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [write.addr.eq(end[choice:]), write.data.eq(entry), write.en.eq(holds & (end[:choice] == n)),
                         read.addr.eq(fetch[choice:])]
            fetched.append(read.data)

        # The newest byte is held back until it is known whether another follows, and is written meanwhile. What lies
        # before `committed` is.
        committed, fetch_before = Signal.like(end), Signal.like(end)
        held = Signal(8, reset_less=True)
        single = Signal()           # it is its packet's first
        full, lost = Signal(), Signal()
        accept, keep = Signal(), Signal()
        end_1 = Signal.like(end)
        m.d.comb += [
            self.w_room.eq(~lost),
            accept.eq(self.w_valid & ~full & ~lost),
            keep.eq(self.w_commit & ~self.w_discard & holds & ~lost),
            self.dropped.eq(self.w_commit & ~self.w_discard & lost),
            end_1.eq(end + 1),
            entry.eq(Cat(held, self.w_commit)),
        ]
        with m.If(accept):
            m.d.sync += [held.eq(self.w_data), holds.eq(1), single.eq(~holds)]
        with m.If(self.w_valid & full):
            m.d.sync += lost.eq(1)
        with m.If(self.w_commit | self.w_discard):
            m.d.sync += [holds.eq(0), lost.eq(0), end.eq(Mux(keep, end_1, committed))]
        with m.Elif(accept & holds):
            m.d.sync += end.eq(end_1)
        with m.If(keep):
            m.d.sync += committed.eq(end_1)

        # Full when the block behind the writer's is the reader's. That is known two cycles after a block was entered,
        # and `w_ready` falls a block earlier. When the writer goes back the reader is not between.
        place = (self.block - 1).bit_length()
        next_1, next_2 = (Signal(len(end) - place, init=1 + n) for n in range(2))
        reader = fetch_before[place:]
        m.d.sync += [next_1.eq(end[place:] + 1), next_2.eq(end[place:] + 2),
                     full.eq(next_1 == reader), self.w_ready.eq((next_1 != reader) & (next_2 != reader))]

        # Read side: the byte that is shown, the one behind it on the memory's output, and `fetch`, which is ahead of
        # both. Behind a packet's last byte one too many has been fetched, and it begins anew. The memory's output is
        # slow: no time for anything before the next register, not even for a reset.
        idle, filling, valid = Signal(init=1), Signal(), Signal()
        start, take, done, advance = Signal(), Signal(), Signal(), Signal()
        behind, shown = ([Signal(9, name=f"{name}_{n}", reset_less=True) for n in range(banks)]
                         for name in ("behind", "shown"))
        bank_behind, bank_shown = (Signal(max(1, choice), name=f"bank_{name}", reset_less=True)
                                   for name in ("behind", "shown"))
        m.d.comb += [
            self.busy.eq(~idle | (fetch != committed)),
            start.eq(idle & ((fetch != committed) | (keep & ~single))),
            self.o.valid.eq(valid), Cat(self.o.data, self.o.last).eq(Cat(shown).word_select(bank_shown, 9)),
            take.eq(valid & self.o.ready), done.eq(take & self.o.last),
            advance.eq(start | filling | (take & ~self.o.last)),
        ]
        m.d.sync += [filling.eq(start), idle.eq((idle & ~start) | done), valid.eq(filling | (valid & ~done))]
        with m.If(take | ~valid):
            m.d.sync += [*(its.eq(now) for its, now in zip((*behind, *shown), (*fetched, *behind), strict=True)),
                         bank_behind.eq(fetch[:choice]), bank_shown.eq(bank_behind)]
        with m.If(advance):
            m.d.sync += [fetch.eq(fetch + 1), fetch_before.eq(fetch)]
        with m.If(done):
            m.d.sync += fetch.eq(fetch_before)
        return m

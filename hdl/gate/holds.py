"""Which instruments are held, by which gate: what watches over time says it here, and every evaluation asks."""

from itertools import chain

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

#: Limits of the gates that hold an instrument, by the number of their reason: if one of them is 0, the gate blocks
#: without a hold.
LIMITS = {
    15: ("duplicate_most", "duplicate_cycles"), 17: ("fills_cycles", "fills_lots", "fills_delta", "fills_most"),
    18: ("repeats_most",), 20: ("refusals_cycles", "refusals_most"), 25: ("drift_cycles",),
}
#: Limits of the card that an evaluation goes by while it is under way: one that is applied meanwhile makes it void.
VOIDING = ("live_most", *chain.from_iterable(LIMITS.values()))
#: These gates; each has one bit a side.
HOLDING = tuple(LIMITS)
#: Cycles from a post to the first one in which it counts.
POST_CYCLES = 2

#: A gate's word on an instrument.
#:
#: Members
#: -------
#: valid : Out(1) strobe. instrument : Out(8), which exists. gate : Out(len(HOLDING)) one bit each: those that it is of.
#: bid, ask : Out(1) held from now on, or not any more.
Post = Signature({"valid": Out(1), "instrument": Out(8), "gate": Out(len(HOLDING)), "bid": Out(1), "ask": Out(1)})


class Held(data.Struct):
    """One bit for each of :data:`HOLDING`."""

    bid: len(HOLDING)
    ask: len(HOLDING)


class Holds(wiring.Component):
    """Holds of all instruments, and those of one.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    post : in(Post). At most one in four cycles; none while ``clearing`` : out(1), which is after reset.
    address : in(8) instrument that is asked for. load : in(1) in the second cycle after ``address`` came to rest, or
        later: ``held`` : out(Held) are its holds from the next cycle on, until the next ``load``. What changes in the
        cycle before may be read as anything: the evaluation that it is for must not decide.
    changed : out(1) strobe: those of ``changed_instrument`` : out(8) change at the end of this cycle, the one after the
        post. disturbed : out(1) that is the instrument that is asked for.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "post": In(Post), "clearing": Out(1, init=1), "address": In(8), "load": In(1), "held": Out(Held),
            "changed": Out(1), "changed_instrument": Out(8), "disturbed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n, post = self.instruments, self.post
        width = max(1, (n - 1).bit_length())

        # A memory keeps its content through a reset.
        sweep = Signal(range(n))
        with m.If(self.clearing):
            m.d.sync += [sweep.eq(sweep + 1), self.clearing.eq(sweep != n - 1)]

        m.submodules.rows = rows = Memory(shape=Held, depth=n, init=[],
                                          attrs={"ram_style": "distributed", "no_rw_check": 1})
        write = rows.write_port()
        asked, posted = (rows.read_port(domain="comb") for _ in range(2))
        fetched, new = Signal(Held, reset_less=True), Signal(Held)
        m.d.sync += [fetched.eq(asked.data), self.changed.eq(post.valid), self.changed_instrument.eq(post.instrument)]
        for side in ("bid", "ask"):
            was, bit = getattr(posted.data, side), getattr(post, side)
            m.d.sync += getattr(new, side).eq(Mux(bit, was | post.gate, was & ~post.gate))
        m.d.comb += [
            asked.addr.eq(self.address[:width]), posted.addr.eq(post.instrument[:width]),
            write.addr.eq(Mux(self.clearing, sweep, self.changed_instrument[:width])),
            write.data.eq(Mux(self.clearing, 0, new.as_value())), write.en.eq(self.clearing | self.changed),
            self.disturbed.eq(self.changed & (self.changed_instrument == self.address)),
        ]
        with m.If(self.load):
            m.d.sync += self.held.eq(fetched)
        return m

"""G16: how long a quote stands before it may move towards the market."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.compare import less
from hdl.memory import told_of

__all__ = ["LOOK_CYCLES", "QuoteLife"]

_TIME_BITS = 33     # the longest life, and the time to find out that it has ended
#: Cycles from a look at an instrument to the one in which what it finds has an effect: the stamp has been fetched, has
#: left the memory's output, has been taken from the time, and what is left has been compared.
LOOK_CYCLES = 4


class QuoteLife(wiring.Component):
    """Which sides have been replaced so lately that they have to stand for a while.

    One instrument is looked at in each cycle, in turn. A side that is replaced in cycle *e* is young from *e* + 1 to
    *c*, the first cycle in which a look at it has an effect with *c* - *e* >= ``cycles`` + 2 and > :data:`LOOK_CYCLES`.
    So it is young for at least ``cycles``, and for no more than ``cycles`` + ``instruments`` + 3 cycles.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    cycles : in(32) least life, as it is in the cycle before a side is replaced or its life ends. 0: no side is young.
    emit : in(1) a quote leaves: ``instrument`` : in(8), ``of_instrument`` : in(instruments) its bit. ``bid``, ``ask`` :
        in(1) that side is quoted anew: its life begins, again if it was young. At most once in eight cycles.
    address : in(8) instrument that is asked for. load : in(1) in the cycle after ``address`` came to rest, or later:
        ``bid_young``, ``ask_young`` : out(1) tell of it from the next cycle on, until the next ``load``. What changes
        in the cycle before may be read as anything: the evaluation that it is for must not decide.
    changed : out(instruments) one bit each: the life of a side of it ends with this cycle. disturbed : out(1) that is
        the instrument that is asked for.

    After reset no side is young. A side that is taken away may stay young; it is not there.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "cycles": In(32), "emit": In(1), "instrument": In(8), "of_instrument": In(instruments), "bid": In(1),
            "ask": In(1), "address": In(8), "load": In(1), "bid_young": Out(1), "ask_young": Out(1),
            "changed": Out(instruments), "disturbed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments
        width = max(1, (n - 1).bit_length())
        instrument, address = self.instrument[:width], self.address[:width]

        def follows(at):
            return Mux(at == n - 1, 0, at + 1)

        # Who is looked at, and who was when what is found now was fetched.
        looked_at, found = Signal(width), Signal(width, init=-LOOK_CYCLES % n)
        of_found = Signal(n, init=1 << -LOOK_CYCLES % n)
        now, lives = Signal(_TIME_BITS), Signal()
        m.d.sync += [looked_at.eq(follows(looked_at)), found.eq(follows(found)), of_found.eq(of_found.rotate_left(1)),
                     now.eq(now + 1), lives.eq(self.cycles != 0)]
        # A stamp that was fetched before it was written anew says nothing: whether it is of the instrument that is
        # found is told a cycle ahead.
        latest, newest, is_latest = Signal(width), Signal(width), Signal(init=LOOK_CYCLES % n == 0)
        m.d.comb += newest.eq(Mux(self.emit, instrument, latest))
        m.d.sync += [latest.eq(newest), is_latest.eq(newest == follows(found))]

        ended, disturbs = [], []
        for side in ("bid", "ask"):
            begins, young = Signal(name=f"{side}_begins"), Signal(n, name=f"{side}s_young")
            m.submodules[f"{side}_stamps"] = stamps = Memory(shape=_TIME_BITS, depth=n, init=[],
                                                             attrs={"no_rw_check": 1})
            write, read = stamps.write_port(), stamps.read_port(domain="comb")
            fetched = Signal(_TIME_BITS, name=f"{side}_fetched", reset_less=True)
            stamp, age = (Signal(_TIME_BITS, name=f"{side}_{name}") for name in ("stamp", "age"))
            recent, upcoming = (Signal(LOOK_CYCLES, name=f"{side}_{name}") for name in ("recent", "upcoming"))
            is_old, is_recent, ends = (Signal(name=f"{side}_old"), Signal(name=f"{side}_is_recent"),
                                       Signal(n, name=f"{side}_ends"))
            m.d.comb += [
                begins.eq(self.emit & getattr(self, side)), read.addr.eq(looked_at),
                write.addr.eq(instrument), write.data.eq(now), write.en.eq(begins),
                ends.eq(Mux(is_old & ~(is_recent & is_latest), young & of_found, 0)),
                upcoming.eq((recent << 1) | begins),
            ]
            m.d.sync += [
                fetched.eq(read.data), stamp.eq(fetched), age.eq(now - stamp), is_old.eq(~less(age, self.cycles)),
                recent.eq(upcoming), is_recent.eq(upcoming.any()),
                young.eq((young & ~ends) | Mux(begins & lives, self.of_instrument, 0)),
            ]
            asked = told_of(m, young, address, f"{side}_asked")
            with m.If(self.load):
                m.d.sync += getattr(self, f"{side}_young").eq(asked)
            ended.append(ends)
            disturbs.append(ends.any())
        m.d.comb += [self.changed.eq(ended[0] | ended[1]),
                     self.disturbed.eq((disturbs[0] | disturbs[1]) & (found == address))]
        return m

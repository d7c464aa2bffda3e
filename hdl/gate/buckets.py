"""G14: token buckets of the session and of every instrument."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.memory import told_of
from hdl.ticker import ticker

#: With eight bits of tokens one word of block RAM.
_GIVEN_BITS = 28


class _Row(data.Struct):
    tokens: 8           #: what was left
    given: _GIVEN_BITS  #: ... when so many had been given


class TokenBuckets(wiring.Component):
    """One bucket for the session, one for each instrument; all of an instrument's buckets share rate and size.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    session_interval, symbol_interval : in(32) cycles per token; 0 = never refilled.
    session_burst : in(16), symbol_burst : in(8) sizes; 0 = no tokens. They count from the next cycle on. A new size of
        the instruments' buckets empties them.
    restart_session, restart_symbol : in(1) that interval is being written: it counts from the next cycle on. An
        interval changes in no other way.
    fill : in(1) fill every bucket (arming).
    spend_session : in(1) take one session token. The session bucket must hold one.
    spend_symbol : in(1) take one token of instrument ``spender`` : in(8) too, which has been at rest for two cycles; at
        least six cycles after the last one. There must be one. ``of_spender`` : in(instruments) its bit.
    index : in(8) instrument asked about; it has been at rest for two cycles.
    new_ok : out(1) a new or changed quote of ``index`` may go: its bucket holds a token, and the session's bucket holds
        more than the quarter that is kept for cancels.
    cancel_ok : out(1) the session's bucket holds a token.
    tokens : out(16) in the session's bucket.
    refill : out(1) a token is being added to some bucket: what waited may try again from the next cycle on.

    Latency: ``new_ok`` and ``cancel_ok`` are flip-flops, and show in cycle *c* + 1 what happened in cycle *c*;
    that an instrument has spent its last token shows in *c* + 6. Buckets never go below zero and never above their
    size: a size that is set in cycle *c* cuts the session's, empties the others and moves the reserve, in *c* + 2. An
    instrument that spends nothing while 2^28 tokens come by may find fewer than it should, never more.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "session_interval": In(32), "session_burst": In(16), "symbol_interval": In(32), "symbol_burst": In(8),
            "restart_session": In(1), "restart_symbol": In(1), "fill": In(1), "spend_session": In(1),
            "spend_symbol": In(1), "spender": In(8), "of_spender": In(instruments), "index": In(8), "new_ok": Out(1),
            "cancel_ok": Out(1), "tokens": Out(16), "refill": Out(1)})

    def elaborate(self, platform):
        m = Module()
        n = self.instruments

        session_tick = ticker(m, "session", self.session_interval, self.restart_session)
        symbol_tick = ticker(m, "symbol", self.symbol_interval, self.restart_symbol)

        # The session's bucket. That a token goes is told late, from far away: what there will be, and all comparisons
        # with it, are formed for each of the three cases, of which that only chooses.
        size, kept_and_one, is_some = Signal(16), Signal(15), Signal()
        m.d.sync += [size.eq(self.session_burst), kept_and_one.eq(self.session_burst[2:] + 1),
                     is_some.eq(self.session_burst != 0)]
        kept, tokens = size[2:], self.tokens
        spends, enough = Signal(), Signal()     # enough: will be in it, for a new quote
        m.d.comb += spends.eq(self.spend_session & self.cancel_ok)
        rest = Mux(spends, tokens + Mux(session_tick, 0, -1), tokens + session_tick)
        # More than `size` if nothing changes, and if one comes.
        over, over_by_one = size < tokens, size <= tokens
        whole = self.fill | Mux(session_tick & ~spends, over_by_one, over)
        m.d.sync += [
            tokens.eq(Mux(whole, size, rest)),
            self.cancel_ok.eq(Mux(whole, is_some, session_tick | Mux(spends, tokens[1:].any(), self.cancel_ok))),
        ]
        same = kept < tokens
        m.d.comb += enough.eq(Mux(whole, is_some, Mux(session_tick, Mux(spends, same, kept <= tokens),
                                                      Mux(spends, kept_and_one < tokens, same))))

        # An instrument's bucket is what it held when its last token was spent, and all that was given since: that is
        # worked out when the next one is spent. Until the first one it is as full as all were made.
        symbol_size, symbols_on = Signal(8), Signal()
        given = Signal(_GIVEN_BITS)     # tokens to every instrument, modulo the width
        given_next, resized = Signal.like(given), Signal()
        m.d.comb += given_next.eq(given + symbol_tick)
        m.d.sync += [symbol_size.eq(self.symbol_burst), symbols_on.eq(self.symbol_burst != 0), given.eq(given_next),
                     resized.eq(symbol_size != self.symbol_burst)]
        made = Signal(_Row)             # what all were made
        own = Signal(n)                 # one bit an instrument: it has spent since
        m.submodules.rows = rows = Memory(shape=_Row, depth=n, init=[],
                                             attrs={"ram_style": "distributed", "no_rw_check": 1})
        write, read = rows.write_port(), rows.read_port(domain="comb")
        width = max(1, (n - 1).bit_length())
        fetched, row = Signal(_Row, reset_less=True), Signal(_Row)
        was_own, is_own = told_of(m, own, self.spender[:width], "was_own", unless=self.fill | resized), Signal()
        m.d.sync += is_own.eq(was_own & ~(self.fill | resized))
        m.d.comb += [read.addr.eq(self.spender), row.eq(Mux(is_own, fetched, made))]
        m.d.sync += [fetched.eq(read.data)]

        # What is left is worked out in the three cycles after a token went.
        some = Signal(n)                # one bit an instrument: its bucket holds a token
        taken, spender, since = Signal(3), Signal(width), Signal()  # since: one came since
        of_spender = Signal(n)
        had, arrived, level, spent_at = Signal(8), Signal.like(given), Signal(9), Signal.like(given)
        m.d.sync += taken.eq(Cat(self.spend_symbol, taken[:2]))
        with m.If(self.spend_symbol):
            m.d.sync += [spender.eq(self.spender), of_spender.eq(self.of_spender), had.eq(row.tokens),
                         arrived.eq(given - row.given), spent_at.eq(given)]
        with m.If(self.spend_symbol | symbol_tick):
            m.d.sync += since.eq(symbol_tick)
        many, held_then = Signal(), Signal(8)
        m.d.sync += [level.eq(had + arrived[:8]), many.eq(arrived[8:].any()),
                     held_then.eq(Mux(many | (symbol_size < level), symbol_size, level))]
        with m.If(taken[0]):
            m.d.sync += own.eq(own | of_spender)
        m.d.comb += [write.addr.eq(spender), write.data.given.eq(spent_at), write.en.eq(taken[2]),
                     write.data.tokens.eq(held_then - held_then.any())]
        with m.If(symbol_tick):
            m.d.sync += some.eq((1 << n) - 1)
        with m.Elif(taken[2] & ~since & (held_then[1:] == 0)):
            m.d.sync += some.eq(some & ~of_spender)
        with m.If(self.fill | resized):
            m.d.sync += [own.eq(0), taken.eq(0), made.tokens.eq(Mux(resized, 0, symbol_size)),
                         made.given.eq(given_next), some.eq((~resized).replicate(n))]

        # The bit of the one that is asked about is a cycle old: what has happened to all since is added.
        came, went = Signal(), Signal()
        picked = told_of(m, some, self.index[:width], "picked")
        comes = symbol_tick | self.fill
        m.d.sync += [came.eq(comes & ~resized), went.eq(resized),
                     self.new_ok.eq(enough & ((picked & ~went) | came | comes) & symbols_on & ~resized)]
        m.d.comb += self.refill.eq(session_tick | symbol_tick)
        return m

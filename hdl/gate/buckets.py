"""G14: token buckets of the session and of every instrument."""

from amaranth import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class TokenBuckets(wiring.Component):
    """One bucket for the session, one for each instrument; all of an instrument's buckets share rate and size.

    Parameters
    ----------
    instruments : number of instruments.

    Members
    -------
    session_interval, symbol_interval : in(32) cycles per token; 0 = never refilled.
    session_burst : in(16), symbol_burst : in(8) sizes; 0 = no tokens.
    restart_session, restart_symbol : in(1) that interval was written: count from here.
    fill : in(1) fill every bucket (arming).
    spend_session : in(1) take one session token. The session bucket must hold one.
    spend_symbol : in(1) take one token of instrument ``index`` too.
    index : in(8) instrument asked about.
    new_ok : out(1) a new or changed quote of ``index`` may go: its bucket holds a token, and the session's bucket holds
        more than the quarter that is kept for cancels.
    cancel_ok : out(1) the session's bucket holds a token.
    tokens : out(16) in the session's bucket.
    refill : out(1) a token is being added to some bucket: what waited may try again from the next cycle on.

    Latency: ``new_ok`` and ``cancel_ok`` show in cycle *c* + 1 what happened in cycle *c*. Buckets never go below zero
    and never above their size: a bucket that was made smaller is cut at the next cycle.
    """

    def __init__(self, instruments):
        self.instruments = instruments
        super().__init__({
            "session_interval": In(32), "session_burst": In(16), "symbol_interval": In(32), "symbol_burst": In(8),
            "restart_session": In(1), "restart_symbol": In(1), "fill": In(1), "spend_session": In(1),
            "spend_symbol": In(1), "index": In(8), "new_ok": Out(1), "cancel_ok": Out(1), "tokens": Out(16),
            "refill": Out(1)})

    def elaborate(self, platform):
        m = Module()

        def ticker(name, interval, restart):
            count, tick = Signal(32, name=f"{name}_count"), Signal(name=f"{name}_tick")
            m.d.comb += tick.eq((interval != 0) & (count >= interval - 1))
            with m.If(restart | tick | (interval == 0)):
                m.d.sync += count.eq(0)
            with m.Else():
                m.d.sync += count.eq(count + 1)
            return tick

        session_tick = ticker("session", self.session_interval, self.restart_session)
        symbol_tick = ticker("symbol", self.symbol_interval, self.restart_symbol)

        def bucket(tokens, burst, tick, spend):
            left = Signal.like(tokens, name_suffix="_left")
            m.d.comb += left.eq(tokens - (spend & (tokens != 0)))
            with m.If(self.fill):
                m.d.sync += tokens.eq(burst)
            with m.Elif(left >= burst):
                m.d.sync += tokens.eq(burst)
            with m.Else():
                m.d.sync += tokens.eq(left + tick)

        def moves(burst, tick, spend):
            """Whether a bucket can change in this cycle; the rest of the time all of them rest."""
            before = Signal.like(burst, name_suffix="_before")
            m.d.sync += before.eq(burst)
            return self.fill | tick | spend | (burst != before)

        with m.If(moves(self.session_burst, session_tick, self.spend_session)):
            bucket(self.tokens, self.session_burst, session_tick, self.spend_session)
        symbols = Array(Signal(8, name=f"symbol_tokens_{i}") for i in range(self.instruments))
        with m.If(moves(self.symbol_burst, symbol_tick, self.spend_symbol)):
            for i in range(self.instruments):
                bucket(symbols[i], self.symbol_burst, symbol_tick, self.spend_symbol & (self.index == i))
        m.d.comb += [
            self.new_ok.eq((self.tokens > (self.session_burst >> 2)) & (symbols[self.index] != 0)),
            self.cancel_ok.eq(self.tokens != 0),
            self.refill.eq(session_tick | symbol_tick),
        ]
        return m

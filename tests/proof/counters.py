# amaranth: UnusedElaboratable=no
"""Event counters: they stay at their largest value, and lose nothing."""

from functools import reduce

from amaranth.hdl import Assert, Assume, Cat, Cover, Mux, Signal

from hdl.control.bank import COUNTERS_AT, WORDS_BITS, short_counters
from hdl.control.counters import READ_PASSES, READ_VISIT, EventCounters
from hdl.control.probe import PROBE_LATENCY, LatencyProbe
from hdl.control.registers import LATENCY_BITS
from tests.proof.obligation import Proof, before, stands

#: Cycles between an event of a counter and the next, by the bits of its short counter; between writes.
EVERY, WRITE_EVERY = {7: 1, 4: 7, 3: 15}, 4
#: Turns that can pass between two visits, beyond a round: one by a read comes before the turn, the next one behind it.
_LATE = 6


def _saturated(value, width):
    """``value``, or all ones if that is more than ``width`` bits hold."""
    return Mux(value[width:].any(), (1 << width) - 1, value[:width])


def _bus(m, counters):
    """What the bank promises of reads and writes."""
    reads, writes, lately = counters.read, counters.write, Signal(WRITE_EVERY - 1)
    m.d.sync += lately.eq(Cat(writes, lately[:-1]))
    m.d.comb += [
        Assume(reads[1:] == before(m, reads, "reads")[:-1]), Assume(~reads[0] | ~reads[1:].any()),
        Assume(~writes | ~(reads.any() | lately.any())), Assume(counters.read_index < len(counters.short)),
        Assume((counters.write_addr < counters.base) | (counters.write_addr >= counters.base + len(counters.short))),
    ]
    for name in ("read_addr", "read_is_count", "read_index"):
        stands(m, getattr(counters, name), name, reads[3:].any())


def _cleared(m, counters):
    """From reset on every word is cleared, one after the other, before anything is read or written."""
    done, at = Signal(), Signal(counters.address_bits)
    m.d.sync += at.eq(at + 1)
    with m.If(at.all()):
        m.d.sync += done.eq(1)
    m.d.comb += [
        Assume(counters.clear == ~done), Assume(done | (counters.write_data == 0)), Assume(counters.clear_addr == at),
        Assume(done | ~(counters.write | counters.read.any())),
    ]


def _saturate(m, counters, parts):
    """Of each counter: its word, what is on its way there and its short counter make up one value."""
    _bus(m, counters)
    _cleared(m, counters)
    its, width = counters.under_way, counters.width
    visits, words = its["visits"], its["words"]
    was_clear = before(m, counters.clear, "clear", init=1)
    m.d.comb += [Assert(its["turn"] < len(counters.short)),
                 Assert(~visits[0] | (words[0] == counters.base + its["index"]))]
    for n, pending in enumerate(its["pending"]):
        stored = parts.memory.read_port(domain="comb")
        at = Cat(visits[k] & (words[k] == counters.base + n) for k in range(4))
        word, value = Signal(width, name=f"word_{n}"), Signal(width, name=f"value_{n}")
        m.d.comb += [
            stored.addr.eq(counters.base + n),
            word.eq(Mux(at[3], its["new"], Mux(at[2], _saturated(its["before"] + its["amount"], width), Mux(
                at[1], _saturated(its["fetched"] + its["taken"], width), stored.data)))),
            value.eq(_saturated(word + pending, width)),
            # Its visits come one after the other.
            Assert((at & (at - 1)[:4]) == 0),
            Assert(~at[1] | ((its["picks"][1] == n >> 3) & its["adds"][1])),
            Assert(counters.clear | ~at[1] | (its["fetched"] == stored.data)),
            Assert(counters.clear | ~at[2] | (its["before"] == stored.data)),
            Assert(counters.clear | ~at[3] | (its["new"] >= stored.data)),
        ]

        def was(signal, name, n=n):
            return before(m, signal, f"{name}_{n}")

        event = was(counters.events[n], "event")
        took = was(at[0] & ~counters.write, "took")
        lost = event & was(pending, "pending").all() & ~took
        value_before, stored_before = was(value, "value"), was(stored.data, "stored")
        tells = counters.read[READ_PASSES - 1] & counters.read_is_count & (counters.read_index == n)
        told = reduce(lambda earlier, k: before(m, earlier, f"value_{n}_{k}"), range(3), value)
        m.d.comb += [
            # Nothing but events, one at a time, up to all ones; and there it stays.
            Assert(was_clear | lost | (value == _saturated(value_before + event, width))),
            Assert(was_clear | (stored.data >= stored_before)),
            Assert(~tells | (its["new"] == told)),
        ]
        if n in (0, len(counters.short) - 1):
            m.d.comb += [Cover(~was_clear & event & ~lost & value_before.all()),
                         Cover(tells & ~told.all() & (told != stored_before))]


def _since(m, event, most, name):
    """Cycles since ``event``, up to ``most``, which it is before the first one."""
    since = Signal(range(most + 1), name=f"since_{name}", init=most)
    with m.If(event):
        m.d.sync += since.eq(1)
    with m.Elif(since != most):
        m.d.sync += since.eq(since + 1)
    return since


def _loses_nothing(n):
    """Counter ``n``: how many events can come between two visits."""
    def claims(m, counters, _):
        _bus(m, counters)
        its, count, short = counters.under_way, len(counters.short), counters.short
        visits, turn, pending, event = its["visits"], its["turn"], its["pending"][n], counters.events[n]
        rests, due, takes = counters.write | counters.read[READ_VISIT], Signal(), Signal()
        rested = _since(m, rests, WRITE_EVERY, "rest")
        every = EVERY[short[n]]
        came = _since(m, event, every, "event")
        cycles, turns, to_go = Signal(7), Signal(7), Signal(7)      # since a visit took; until the turn
        with m.If(takes):
            m.d.sync += [cycles.eq(1), turns.eq(~rests)]
        with m.Else():
            m.d.sync += [cycles.eq(cycles + 1), turns.eq(turns + ~rests)]
        m.d.comb += [
            Assume(~event | (came == every)),
            due.eq(visits[0] & (its["index"] == n)), takes.eq(due & ~counters.write),
            to_go.eq(Mux(turn > n, n + count - turn, n - turn) + 1),
            Assert(turn < count), Assert(~rests | (rested == WRITE_EVERY)),
            Assert(~visits[0] | (its["words"][0] == counters.base + its["index"])),
            # In four cycles there are three turns, and nothing puts off a visit for longer than a read takes.
            Assert(3 * cycles <= 4 * turns + (WRITE_EVERY - rested)),
            Assert(turns <= count + _LATE),
            Assert(due | counters.read[:READ_VISIT + 2].any() | (turns + to_go <= count + _LATE // 2)),
            Assert(every * pending <= cycles + (every - came)),
            Assert(~event | ~pending.all() | takes),
        ]
        if n == count - 1:      # the farthest of those that are chosen from
            m.d.comb += Assert(~before(m, takes, "takes") | (its["taken"] == before(m, pending, "pending")))
        m.d.comb += [
            Cover(before(m, counters.read[READ_VISIT + 1], "reads") & before(m, takes & pending.any(), "took")),
            Cover(pending.any() & counters.write),
        ]

    return claims


def _measured(m, probe, parts):
    """The probe's count, and each bin of its histogram with what is on its way there."""
    its, width = probe.under_way, probe.count_bits
    rises = probe.tx_en & ~before(m, probe.tx_en, "tx_en")
    m.d.comb += Assume(~rises | (_since(m, rises, PROBE_LATENCY, "rise") == PROBE_LATENCY))
    measured, swept = before(m, probe.measured, "measured"), Signal(3)
    m.d.sync += swept.eq(Cat(~its["sweeping"], swept[:-1]))
    counted = before(m, measured, "ended")
    count = before(m, probe.count, "count")
    m.d.comb += [
        Assert(its["ended"] == measured), Assert(its["sweeping"] | (its["counted"] == counted) | ~swept[0]),
        Assert(probe.count == _saturated(count + counted, width)),
        Assert(probe.minimum <= before(m, probe.minimum, "minimum", init=(1 << LATENCY_BITS) - 1)),
        Assert(probe.maximum >= before(m, probe.maximum, "maximum")),
        Cover(counted & count.all()),
    ]
    for n in range(probe.bins):
        stored, value = parts.histogram.read_port(domain="comb"), Signal(width, name=f"value_{n}")
        here, steady = its["bin"] == n, swept.all()
        on_its_way = here & (its["ended"] | its["counted"])
        m.d.comb += [
            stored.addr.eq(n),
            value.eq(Mux(here & its["store"], its["new"], _saturated(stored.data + on_its_way, width))),
            Assert(~(steady & here & its["ended"]) | (its["fetched"] == stored.data)),
            Assert(~(steady & here & its["counted"]) | (its["shown"] == stored.data)),
            Assert(~(steady & here & its["store"]) | (its["new"] == _saturated(stored.data + 1, width))),
        ]
        value_before, added = (before(m, signal, f"{name}_{n}") for signal, name in (
            (value, "value"), (here & probe.measured, "added")))
        m.d.comb += [
            Assert(~steady | (value == _saturated(value_before + added, width))),
            Assert(~steady | (stored.data >= before(m, stored.data, f"stored_{n}"))),
        ]
        if n == probe.bins - 1:
            m.d.comb += Cover(steady & added & value_before.all())


def _small():
    return EventCounters([2, 2, 1, 1, 1], base=0, address_bits=3, width=2)


def _whole():
    return EventCounters(short_counters(), base=COUNTERS_AT, address_bits=WORDS_BITS, width=4)


PROOFS = (
    Proof(
        "counters_saturate", "A counter never decreases, and stays at its largest value", "counters",
        "Whatever comes, the word of a counter never becomes less but by reset, and stays at all ones. It, what is on "
        "its way to it and the short counter make up one value, which an event raises by one up to all ones and "
        "nothing else changes; a read tells that value. An event that finds its short counter full as no visit takes "
        "it would be an exception; `no_event_lost` excludes that.",
        _small, _saturate, depth=8, cover_depth=24,
        assumes="Words are written in one of four cycles at most, reads come one at a time, neither with the other; "
                "words are cleared after reset before either. There are five counters, words of two bits and short "
                "counters of one and two: how many there are is but the end of a count."),
    *(Proof(
        f"no_event_lost_{bits}_bits", f"No event is lost on its way to a counter: short counters of {bits} bits",
        "counters",
        f"Between two visits at a counter there are at most so many cycles that its short counter of {bits} bits does "
        f"not run over with an event in {EVERY[bits]} cycle{'s' * (EVERY[bits] > 1)}." + (
            " What a visit takes is what the short counter had." * (bits == 3)),
        _whole, _loses_nothing(n), depth=8, cover_depth=12, cut=("dut.memory",),
        assumes="Words are written in one of four cycles at most, reads come one at a time, neither with the other. "
                "All counters of the card are there; it is held of " + (
                    "the last one." if bits == 3 else "the first of this kind."))
      for bits, n in ((7, 0), (4, short_counters().index(4)), (3, len(short_counters()) - 1))),
    Proof(
        "latencies_saturate", "What counts latencies never decreases, and stays at its largest value", "counters",
        "Count and bins of the latency histogram grow by one with each frame that is measured, up to all ones, and "
        "stay there; nothing else changes them but reset. The least latency never rises and the greatest one never "
        "falls.",
        lambda: LatencyProbe(bins=2, count_bits=2), _measured, depth=12, cover_depth=26,
        assumes=f"Frames begin at least {PROBE_LATENCY} cycles apart. There are two bins, and counts of two bits: "
                "how many there are is but the end of a count."),
)

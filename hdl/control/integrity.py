"""G2: what is staged comes into force whole, as the host has meant it, or not at all."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.control.registers import LIMITS, MAP_HASH, PARAMS, ROW_WORD_BITS
from hdl.mac.crc import CRC32_INIT, crc32_of, crc32_step

__all__ = ["WORD_CYCLES", "Integrity", "weigh_cycles"]

#: Cycles that a word takes: it is fetched, and then taken in byte by byte.
WORD_CYCLES = 8
#: What the register of the CRC holds when the build has been taken in: a host of another map has no right CRC.
_OF_BUILD = crc32_of(MAP_HASH.to_bytes(4, "little")) ^ CRC32_INIT


def weigh_cycles(instruments):
    """Cycles from the strobe of a commit to that of the verdict on it."""
    return WORD_CYCLES * (len(LIMITS) + len(PARAMS) * instruments) + 2


class Integrity(wiring.Component):
    """Weighs what is staged: its CRC has to be the one that the host says it is.

    The CRC goes over what the memories hold, every limit and every row of the bank that would become active, whoever
    wrote it and when: a word that was lost, altered, written by somebody else or left from an earlier bank makes it
    another one. While it is weighed, and until it is in force, nothing of it can be written.

    A CRC that the host says counts for one commit, or one command, and no more.

    Parameters
    ----------
    instruments : int
        Parameter rows.
    limits, row_words : int
        Limits of the card, words of a row that there are: fewer in proofs.

    Members
    -------
    start : in(1) strobe: a commit was written. Not while ``busy``.
    say : in(1) strobe: ``crc`` : in(32) is being written, and stands from the next cycle on; not while ``busy``.
        use : in(1) strobe: a command has gone by it.
    address : out(``word`` and ``row``) word of the card's limits, or of a row if ``in_rows`` : out(1); fetch : out(1)
        it is to be fetched, unless ``blocked`` : in(1), which lasts for a cycle and comes at most every fourth one;
        ``word`` : in(32) what was fetched in the cycle before.
    commit : out(1) strobe: right, the banks are to flip. ``flip`` : in(1) they do so at the end of this cycle.
    refused : out(1) strobe: wrong, all stays as it was. It comes :func:`weigh_cycles` after ``start``, as ``commit``
        would.
    apply : out(1) strobe, the cycle after ``flip``: what is staged of the card's limits is to take effect.
    busy : out(1) from the cycle after ``start`` to the one before ``refused``, or to that of ``apply``.
    found : out(32) with ``refused``: the CRC of what is staged.
    hash : out(32) CRC of what is in force, valid : out(1) there is something. They change in the cycle after ``apply``.
    agrees : out(1) what the host says is ``hash``; from the second cycle after ``say`` to the one after ``use``.

    All strobes and levels but ``fetch`` are flip-flops. After reset nothing is in force.

    Attributes
    ----------
    under_way : {name: Signal}, once it is elaborated
        What it goes by, for proofs: ``said``, ``claimed``, ``right``, and one a state.
    """

    def __init__(self, instruments, *, limits=len(LIMITS), row_words=len(PARAMS)):
        self._instruments, self._limits, self._words = instruments, limits, row_words
        assert max(limits, row_words) <= 1 << ROW_WORD_BITS
        super().__init__({
            "start": In(1), "say": In(1), "use": In(1), "crc": In(32),
            "address": Out(data.StructLayout({"word": ROW_WORD_BITS, "row": 8})), "in_rows": Out(1), "fetch": Out(1),
            "blocked": In(1), "word": In(32), "commit": Out(1), "flip": In(1), "refused": Out(1), "apply": Out(1),
            "busy": Out(1), "found": Out(32), "hash": Out(32), "valid": Out(1), "agrees": Out(1)})

    def elaborate(self, platform):
        m = Module()
        said, claimed = Signal(), Signal()      # the host says a CRC; it did so for the commit that is weighed
        with m.If(self.say):
            m.d.sync += said.eq(1)
        with m.Elif(self.start | self.use):
            m.d.sync += said.eq(0)
        m.d.sync += self.agrees.eq(said & self.valid & (self.crc == self.hash))

        phase, late = Signal(range(WORD_CYCLES)), Signal()
        crc, shift, right = Signal(32), Signal(32), Signal()
        word, row = self.address.word, self.address.row
        last_limit, last_word, last_row = (
            word == self._limits - 1, word == self._words - 1, row == self._instruments - 1)
        m.d.comb += self.found.eq(~crc)
        m.d.sync += [right.eq(self.found == self.crc), self.commit.eq(0), self.refused.eq(0), self.apply.eq(0)]
        with m.FSM(init="idle") as fsm:
            with m.State("idle"):
                m.d.sync += [claimed.eq(said), phase.eq(0), self.address.eq(0), self.in_rows.eq(0)]
                with m.If(self.start):
                    m.d.sync += [self.busy.eq(1), crc.eq(_OF_BUILD)]
                    m.next = "weighs"
            with m.State("weighs"):
                m.d.comb += self.fetch.eq(phase < 2)
                m.d.sync += phase.eq(phase + 1)
                with m.Switch(phase):
                    with m.Case(0):
                        m.d.sync += late.eq(self.blocked)
                    with m.Case(1):
                        m.d.sync += shift.eq(self.word)
                    with m.Case(2):
                        with m.If(late):
                            m.d.sync += shift.eq(self.word)
                    with m.Case(*range(3, 7)):
                        m.d.sync += [crc.eq(crc32_step(crc, shift[:8])), shift.eq(shift >> 8)]
                with m.If(phase == WORD_CYCLES - 1):
                    m.d.sync += word.eq(word + 1)
                    with m.If(~self.in_rows & last_limit):
                        m.d.sync += [self.in_rows.eq(1), word.eq(0)]
                    with m.If(self.in_rows & last_word):
                        m.d.sync += [word.eq(0), row.eq(row + 1)]
                        with m.If(last_row):
                            m.next = "verdict"
            with m.State("verdict"):
                with m.If(right & claimed):
                    m.d.sync += self.commit.eq(1)
                    m.next = "waits"
                with m.Else():
                    m.d.sync += [self.refused.eq(1), self.busy.eq(0)]
                    m.next = "idle"
            with m.State("waits"):
                with m.If(self.flip):
                    m.d.sync += self.apply.eq(1)
                    m.next = "applies"
            with m.State("applies"):
                m.d.sync += [self.hash.eq(self.found), self.valid.eq(1), self.busy.eq(0)]
                m.next = "idle"
        self.under_way = {"said": said, "claimed": claimed, "right": right, **{
            state: fsm.ongoing(state) for state in ("idle", "weighs", "verdict", "waits", "applies")}}
        return m

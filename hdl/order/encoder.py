"""Messages from their layouts: a template whose bytes are known at build time, with the live fields dropped in."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hdl.layout.fields import LayoutError

__all__ = ["PLAY_LATENCY", "Late", "Live", "MessageEncoder", "Part"]

PLAY_LATENCY = 2    #: cycles from a position to its byte


@dataclass(frozen=True)
class Live:
    """Value of a field that comes from ``encoder.fields.<port>`` each time a message is assembled.

    Several layout fields may name one port; they must have the same width.
    """

    port: str


@dataclass(frozen=True)
class Late:
    """Value of a field that is not known when the message is assembled (its own checksum, for one).

    It is taken from ``encoder.late.<port>`` while the message is played out and counts as zero in the sum.
    """

    port: str


@dataclass(frozen=True)
class Part:
    """A layout inside a message, with a value for each of its fields.

    Parameters
    ----------
    layout : Composite, Message or Group
        Anything with ``fields`` and ``size``, or, for a message's root block and a group's entry, ``block_length``.
        Groups of a message are parts of their own: one for the dimension, one for each entry.
    values : dict
        Field name to ``int``, ``None`` (the null value), :class:`Live` or :class:`Late`. A field without a value is
        null if it is optional; a required field without a value is an error.
    """

    layout: object
    values: dict

    @property
    def size(self):
        return self.layout.block_length if hasattr(self.layout, "block_length") else self.layout.size


@dataclass(frozen=True)
class _Source:
    """Byte ``index`` (0 is the least significant) of a live or late port."""

    late: bool
    port: str
    index: int


class MessageEncoder(wiring.Component):
    """Assembles a message of fixed length from a layout and plays it out one byte a clock, with its internet checksum.

    The message is built ``lanes`` bytes a clock into a small memory and summed on the way, so that the checksum is of
    the very bytes that leave, whatever their alignment. Nothing here knows an offset: all come from the layouts.

    **Timing**: with ``start`` in cycle ``S`` the fields are read in ``S + 1`` to ``S + beats`` and must hold still
    that long, each from ``S + read_after_start(port)`` on; ``sum`` is right from ``S + sum_latency`` until the next
    ``start``. The byte at ``position`` in cycle ``c`` is on ``byte`` in ``c + 2`` (:data:`PLAY_LATENCY`), for
    ``c >= S + 3 + position // lanes``; a late value is read in ``c + 1``. ``start`` while a message is still being
    summed spoils both.

    Parameters
    ----------
    *parts : Part
        The message, front to back.
    lanes : int
        Bytes assembled per clock, a power of two.

    Members
    -------
    start : In(1)
        Begin to assemble.
    fields : In(StructLayout)
        The live values, each as wide as its field, in native bit order. Left out if there are none.
    late : In(StructLayout)
        The late values. Left out if there are none.
    position : In
        Byte to play, 0 to ``size - 1``.
    byte : Out(8)
        The byte for the ``position`` of two cycles before.
    sum : Out(16)
        Ones-complement sum (folded, not inverted) of the message as big-endian 16-bit words from its first byte,
        padded with a zero byte if its length is odd. To place the message at an odd offset, swap the two bytes.

    Attributes
    ----------
    size : int
        Bytes of the message.
    beats, sum_latency : int
        Cycles, as above.

    Raises
    ------
    LayoutError
        A value for a field that the layout does not have, a required field without one, an integer that does not fit,
        or one port for fields of different widths.
    """

    def __init__(self, *parts, lanes=8):
        if lanes < 2 or lanes & (lanes - 1):
            raise ValueError(f"lanes is {lanes}, must be a power of two, at least 2")
        self.lanes = lanes
        self.size = sum(part.size for part in parts)
        self.beats = -(-self.size // lanes)
        # Row register, one register for each level of the adder tree, accumulator, and two folds.
        self._levels = ceil_log2(lanes // 2)
        self.sum_latency = self.beats + self._levels + 5

        #: Where each byte comes from: an int or a _Source.
        self._sources = [0] * self.size
        live, late = {}, {}
        base = 0
        for part in parts:
            self._place(part, base, live, late)
            base += part.size
        members = {
            "start": In(1),
            "position": In(range(self.size)),
            "byte": Out(8),
            "sum": Out(16),
        }
        if live:
            members["fields"] = In(data.StructLayout(live))
        if late:
            members["late"] = In(data.StructLayout(late))
        super().__init__(members)

    def _place(self, part, base, live, late):
        fields, owner = part.layout.fields, part.layout.name
        for name in part.values:
            if name not in fields:
                raise LayoutError(f"{owner} has no field {name!r}; it has {', '.join(fields)}")
        # A decimal and its only member are two names for the same bytes: a value under either is enough.
        given = {fields[name].offset for name in part.values if fields[name].size}
        for field in fields.values():
            if not field.size:
                continue
            if field.name in part.values:
                value = part.values[field.name]
            elif field.offset in given:
                continue
            elif field.null is not None:
                value = None
            else:
                raise LayoutError(f"{owner}.{field.name} is required and has no value")
            if isinstance(value, (Live, Late)):
                ports = live if isinstance(value, Live) else late
                width = 8 * field.size
                if ports.setdefault(value.port, width) != width:
                    raise LayoutError(f"{owner}.{field.name} is {width} bits wide, port {value.port!r} has "
                                      f"{ports[value.port]} bits from another field")
                sources = [_Source(isinstance(value, Late), value.port, n) for n in range(field.size)]
                if field.byteorder == "big":
                    sources.reverse()
            else:
                sources = list(field.pack(value))
            self._sources[base + field.offset:base + field.end] = sources

    @property
    def live_positions(self):
        """Positions whose byte comes from a live value, as a frozenset."""
        return frozenset(n for n, source in enumerate(self._sources)
                         if isinstance(source, _Source) and not source.late)

    def read_after_start(self, port):
        """Cycles from ``start`` to the first one in which live value ``port`` is read."""
        return 1 + min(n for n, source in enumerate(self._sources)
                       if isinstance(source, _Source) and not source.late and source.port == port) // self.lanes

    def elaborate(self, platform):
        m = Module()
        lanes, beats = self.lanes, self.beats

        # Assemble one row of `lanes` bytes a clock. Byte 0 of a row is its least significant.
        beat = Signal(range(beats + 1), init=beats)     # `beats`: nothing to assemble
        row = Signal(8 * lanes)
        row_beat = Signal(range(beats + 1), init=beats)
        with m.If(self.start):
            m.d.sync += beat.eq(0)
        with m.Elif(beat != beats):
            m.d.sync += beat.eq(beat + 1)
        with m.Switch(beat):
            for n in range(beats):
                with m.Case(n):
                    m.d.sync += row.eq(Cat(self._byte(n * lanes + lane) for lane in range(lanes)))
        m.d.sync += row_beat.eq(beat)
        row_valid = row_beat != beats

        m.submodules.rows = rows = memory.Memory(shape=8 * lanes, depth=beats, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        m.d.comb += [write.addr.eq(row_beat), write.data.eq(row), write.en.eq(row_valid)]

        # Play. With a power of two of lanes, row and byte in the row are slices of the position.
        shift = ceil_log2(lanes)
        m.d.comb += read.addr.eq(self.position[shift:])
        played = Signal(8 * lanes)
        position = Signal.like(self.position)
        m.d.sync += [played.eq(read.data), position.eq(self.position)]
        with m.Switch(position):
            for n, source in enumerate(self._sources):
                if isinstance(source, _Source) and source.late:
                    with m.Case(n):
                        m.d.sync += self.byte.eq(self.late[source.port].word_select(source.index, 8))
            with m.Default():
                m.d.sync += self.byte.eq(played.word_select(position[:shift], 8))

        # Sum: big-endian words, so the first byte of each pair is the high one.
        terms = [Cat(row[16 * n + 8:16 * n + 16], row[16 * n:16 * n + 8]) for n in range(lanes // 2)]
        valid = row_valid
        for level in range(self._levels):
            pairs = []
            for n in range(0, len(terms), 2):
                term = Signal(17 + level, name=f"sum_{level}_{n}")
                m.d.sync += term.eq(sum(terms[n:n + 2]))
                pairs.append(term)
            stage_valid = Signal(name=f"sum_valid_{level}")
            m.d.sync += stage_valid.eq(valid)
            terms, valid = pairs, stage_valid
        total = Signal(16 + ceil_log2(lanes // 2 * beats))
        with m.If(self.start):
            m.d.sync += total.eq(0)
        with m.Elif(valid):
            m.d.sync += total.eq(total + terms[0])
        once = Signal(17)
        m.d.sync += [
            once.eq(total[:16] + total[16:]),
            self.sum.eq(once[:16] + once[16]),  # cannot carry again: the first fold leaves at most 0x1FFFE
        ]
        return m

    def _byte(self, index):
        source = self._sources[index] if index < self.size else 0
        if isinstance(source, int):
            return Const(source, 8)
        if source.late:
            return Const(0, 8)
        return self.fields[source.port].word_select(source.index, 8)

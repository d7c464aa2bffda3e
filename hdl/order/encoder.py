"""Frames from their layouts: templates in a memory, with the live fields dropped in."""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hdl.layout.fields import LayoutError

__all__ = ["LANES", "PLAY_LATENCY", "Checksum", "FrameEncoder", "Live", "Part", "Place", "Static", "Stored"]

LANES = 4               #: bytes assembled per clock
PLAY_LATENCY = 2        #: cycles from a position to its byte
ROWS = 64               # of the frame's memory
GROUPS = 3              # registers that the live bytes of a row are collected in
# Cycles from the select of a row to the row, to the cycle from which it can be asked for, and to its part of the sum:
# behind the row come the sum of its words, the accumulator and two folds.
TO_ROW = 2
TO_PLAY = TO_ROW + 1
TO_SUM = TO_ROW + 4


@dataclass(frozen=True)
class _Value:
    """Value of a field that is none in the layout: ``port`` tells which.

    Several layout fields may name one port; they must have the same width.
    """

    port: str


class Live(_Value):
    """Value of a field that comes from ``encoder.fields.<port>`` each time a frame is assembled."""


class Static(_Value):
    """Value of a field that is written into the template, and stays as it is for many frames."""


class Stored(_Value):
    """Value of a field that comes from outside by rows, as the template does, and may be another one in every frame."""


@dataclass(frozen=True)
class Place:
    """Where a byte of a static or stored value belongs.

    Parameters
    ----------
    port : str
    index : int
        Which byte of the value; 0 is the least significant.
    row, lane : int
        Row of the template, and byte in it.
    """

    port: str
    index: int
    row: int
    lane: int


@dataclass(frozen=True)
class Checksum:
    """Value of a header's checksum: the inverse of the sum of what it covers, in which the field counts as ``seed``."""

    seed: int = 0


@dataclass(frozen=True)
class Part:
    """A layout inside a frame, with a value for each of its fields.

    Parameters
    ----------
    layout : Composite, Message or Group
        Anything with ``fields`` and ``size``, or, for a message's root block and a group's entry, ``block_length``.
        Groups of a message are parts of their own: one for the dimension, one for each entry.
    values : dict
        Field name to ``int``, ``None`` (the null value), :class:`Live`, :class:`Static` or, in a header,
        :class:`Checksum`. A field without a value is null if it is optional; a required field without a value is an
        error.
    """

    layout: object
    values: dict

    @property
    def size(self):
        return self.layout.block_length if hasattr(self.layout, "block_length") else self.layout.size


@dataclass(frozen=True)
class _Byte:
    """Byte ``index`` (0 is the least significant) of a value of this kind; of the sum if ``port`` is empty."""

    port: str
    index: int
    kind: type = Live


class FrameEncoder(wiring.Component):
    """Assembles a frame of headers and one of several bodies from their layouts, and plays it out one byte a clock.

    The frame is built :data:`LANES` bytes a clock into a memory and summed on the way, so that its checksums are of
    the very bytes that leave. Nothing here knows an offset: all come from the layouts.

    The template is a memory outside, a row of :data:`LANES` bytes a word: constants from the start on, and bytes of
    static values as they were last written there (:attr:`places`). Only live bytes and checksums are put together here.

    The first header is in no sum. The checksum of the last header covers all headers but the first and the body, that
    of one before it the headers up to and including its own.

    **Timing**: with ``start`` in cycle ``S``, ``body`` and the fields are read in ``S + 1`` to ``S + steps(body)`` and
    must hold still that long, each field from ``S + read_after_start(body, port)`` on; the template must not change
    meanwhile. Byte ``n`` of the frame may be
    asked for from ``S + lead(body) + n`` on. The byte at ``position`` in cycle ``c`` is on ``byte`` in ``c + 2``
    (:data:`PLAY_LATENCY`). ``start`` before ``S + steps(body)`` spoils both frames.

    Parameters
    ----------
    headers : sequence of Part
        The headers, front to back: whole rows of :data:`LANES` bytes, the first one excepted. A
        :class:`Checksum` fills one field of two bytes.
    bodies : dict
        Name of each body to its parts, front to back; there may be none.

    Members
    -------
    start : In(1)
        Begin to assemble.
    body : In
        Number of the body, in the order of ``bodies``.
    fields : In(StructLayout)
        The live values, each as wide as its field, in native bit order.
    position : In(8)
        Byte to play: 0 is the first one of the body, -1 (modulo 256) the last one of the headers.
    byte : Out(8)
        The byte for the ``position`` of two cycles before.
    template_row : Out
        Row of the template that is wanted. A register.
    template : In(32)
        The row of two cycles before.
    row : Out(32)
        What was put together: while no frame is assembled, ``template`` of the cycle before, if ``stored`` is 0.
    stored : In(32)
        Bytes of stored values for the row that ``template`` is for, 0 elsewhere. From a register.
    busy : Out(1)
        A frame is being assembled. A register.

    Attributes
    ----------
    rows : list of tuple of int
        What the template has to be at first: constants, and 0 where other bytes go.
    places : list of Place
        Where the bytes of static values go.
    stored_places : list of Place
        Where the bytes of stored values go.
    header_size : int
        Bytes of the headers.
    sizes : dict
        Bytes of each body.

    Raises
    ------
    LayoutError
        A value for a field that the layout does not have, a required field without one, an integer that does not fit,
        one port for fields of different widths, or for different kinds, or a checksum outside the headers.
    ValueError
        Headers that are not whole rows or too short, or a frame that is longer than its memory.
    """

    def __init__(self, headers, bodies):
        ports = {Live: {}, Static: {}, Stored: {}}
        self.header_size = sum(part.size for part in headers)
        self.sizes = {name: sum(part.size for part in parts) for name, parts in bodies.items()}
        self._pad = -self.header_size % LANES

        # Rows in which a checksum counts as its seed; they are written again, with the checksum, when it is known.
        head, checksums, ends = [0] * self._pad, [], []
        for part in headers:
            bytes_, late = _place(part, ports)
            if late is not None:
                checksums.append((len(head) // LANES, len(head) + late, len(headers) - 1 == len(ends)))
            head += bytes_
            ends.append(len(head))
        if any(end % LANES for end in ends):
            raise ValueError(f"headers of {[part.size for part in headers]} bytes are not whole rows of {LANES}")
        self._unsummed = ends[0] // LANES
        if len(head) // LANES < self._unsummed + TO_ROW + 1:
            raise ValueError(f"headers of {[part.size for part in headers]} bytes have fewer than {TO_ROW + 1} rows "
                             f"of {LANES} behind the first one")
        self._head = _rows(head)
        self._late = []         # (row, its content, it covers the body, last row that it covers)
        for start, at, covers_body in checksums:
            row = list(self._head[at // LANES])
            row[at % LANES:at % LANES + 2] = _Byte("", 1), _Byte("", 0)
            end = next(end for end in ends if end > start * LANES)
            self._late.append((at // LANES, tuple(row), covers_body, end // LANES - 1))
        self._bodies = {}
        for name, parts in bodies.items():
            placed = [_place(part, ports) for part in parts]
            if any(late is not None for _, late in placed):
                raise LayoutError(f"body {name} has a checksum, which only headers can have")
            self._bodies[name] = _rows([source for bytes_, _ in placed for source in bytes_])

        # Steps of the headers, as (row from the first one, content): the rows, and each checksum that does not cover
        # the body exactly when the sum has come to it. Then come the body, a wait, and the other checksums.
        self._steps = list(enumerate(self._head))
        for row, content, _, last in (late for late in self._late if not late[2]):
            at = next(n for n, step in enumerate(self._steps) if step[0] == last) + TO_SUM
            self._steps += [(None, None)] * (at - len(self._steps))
            self._steps.insert(at, (row, content))
        self._final = [late[:2] for late in self._late if late[2]]

        # The template has a row for each step of the headers, of each body, and of the checksums at the end.
        template = [content or (0,) * LANES for _, content in self._steps]
        self._body_at = {}
        for name, rows in self._bodies.items():
            self._body_at[name] = len(template)
            template += rows
        self._final_at_row = len(template)
        template += [content for _, content in self._final]
        self.rows = [tuple(0 if isinstance(source, _Byte) else source for source in row) for row in template]
        self.places, self.stored_places = (
            [Place(source.port, source.index, n, lane) for n, row in enumerate(template)
             for lane, source in enumerate(row) if _is(kind, source)] for kind in (Static, Stored))
        if max(self.steps(name) for name in bodies) > ROWS:
            raise ValueError(f"bodies of {self.sizes} bytes are too long for {ROWS} steps")
        super().__init__({
            "start": In(1),
            "body": In(range(len(bodies))),
            "fields": In(data.StructLayout(ports[Live])),
            "position": In(range(ROWS * LANES)),
            "byte": Out(8),
            "template_row": Out(range(len(template))),
            "template": In(8 * LANES),
            "row": Out(8 * LANES),
            "stored": In(8 * LANES),
            "busy": Out(1),
        })

    def _final_at(self, body):
        return len(self._steps) + len(self._bodies[body]) - 1 + TO_SUM

    def steps(self, body):
        """Cycles in which a frame with this body is assembled."""
        return self._final_at(body) + len(self._final)

    def _schedule(self, body):
        """Step of each row that is put together, as (step, row from the first one of the headers, content)."""
        return [
            *((n, *step) for n, step in enumerate(self._steps) if step[1] is not None),
            *((len(self._steps) + n, len(self._head) + n, row) for n, row in enumerate(self._bodies[body])),
            *((self._final_at(body) + n, *step) for n, step in enumerate(self._final)),
        ]

    def read_after_start(self, body, port):
        """Cycles from ``start`` to the first one in which live or stored value ``port`` is read for this body."""
        return 1 + min(step for step, _, row in self._schedule(body)
                       if any((_is(Live, source) or _is(Stored, source)) and source.port == port for source in row))

    def lead(self, body):
        """Cycles from ``start`` to the first one in which byte 0 of a frame with this body may be asked for."""
        return max(1 + step + TO_PLAY - max(row * LANES - self._pad, 0) for step, row, _ in self._schedule(body))

    def elaborate(self, platform):
        m = Module()

        # A one goes through the steps, each a register, and branches at the body.
        before = {}             # live bytes of a row to the signals that are 1 a cycle before it is selected

        def walk(entry, rows, name):
            """Steps for the rows, from the signal that is 1 before the first one; returns one for each."""
            steps = [Signal(name=f"{name}_{n}") for n in range(len(rows))]
            for row, earlier, step in zip(rows, [entry, *steps], steps, strict=False):
                m.d.sync += step.eq(earlier)
                chosen = tuple(source if _is(Live, source) else 0 for source in row or ())
                if any(chosen):
                    before.setdefault(chosen, []).append((earlier, step))
            return steps

        head = walk(self.start, [content for _, content in self._steps], "head")
        lasts = []
        for number, (name, rows) in enumerate(self._bodies.items()):
            entry = head[-1] & (self.body == number)
            lasts.append([entry, *walk(entry, rows, name)][-1])
        final = walk(_any(lasts), [*[None] * (TO_SUM - 1), *(content for _, content in self._final)], "final")
        again = [(row, step) for (row, content), step in zip(self._steps, head, strict=True)
                 if content is None or _Byte("", 0) in content]
        late = {row: step for row, step in again if row is not None}
        late |= {row: step for (row, _), step in zip(self._final, final[TO_SUM - 1:], strict=True)}

        # The template's row comes with the live bytes, and is asked for a cycle before they are selected: the first one
        # while nothing is assembled.
        with m.If(self.start):
            m.d.sync += self.template_row.eq(1)
        with m.Elif(final[-2] | final[-1] | ~self.busy):
            m.d.sync += self.template_row.eq(0)
        with m.Elif(head[-2]):
            with m.Switch(self.body):
                for number, at in enumerate(self._body_at.values()):
                    with m.Case(number):
                        m.d.sync += self.template_row.eq(at)
        with m.Elif(final[TO_SUM - 3]):
            m.d.sync += self.template_row.eq(self._final_at_row)
        with m.Else():
            m.d.sync += self.template_row.eq(self.template_row + 1)

        # Collect the row. Byte 0 of a row is its least significant. No row of live bytes is zero.
        sum_ = Signal(16)
        groups = [Const(0, 8 * LANES)] * GROUPS
        for n, (row, uses) in enumerate(before.items()):
            if len(uses) == 1:
                select = uses[0][1]
            else:
                select = Signal(name=f"select_{n}")
                m.d.sync += select.eq(_any(earlier for earlier, _ in uses))
            value = Cat(self._value(source, ~sum_) for source in row)
            groups[n % GROUPS] = groups[n % GROUPS] | Mux(select, value, 0)
        collected = [Signal(8 * LANES, name=f"collected_{n}") for n in range(GROUPS)]
        row = self.row
        m.d.sync += [signal.eq(group) for signal, group in zip(collected, groups, strict=True)]
        m.d.sync += row.eq(reduce(or_, collected) | self.template | self.stored)

        # Rows are written one after another but those with the checksums. What is written while the sum of the headers
        # is awaited is written again, and what is written after the body does no harm.
        first_row = ROWS - len(self._head)
        running, count, address = self.busy, Signal(range(ROWS)), Signal(range(ROWS))
        late_1 = {n: Signal(name=f"late_{n}") for n in late}
        hold, write_1, write_2, late_2 = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [signal.eq(late[n]) for n, signal in late_1.items()]
        m.d.sync += [hold.eq(_any(step for _, step in again)), late_2.eq(_any(late_1.values())),
                     write_1.eq(running), write_2.eq(write_1)]
        with m.If(self.start):
            m.d.sync += [running.eq(1), count.eq(first_row)]
        with m.Elif(final[-1]):
            m.d.sync += running.eq(0)
        with m.If(write_1):
            m.d.sync += address.eq(count)
            for n, signal in late_1.items():
                with m.If(signal):
                    m.d.sync += address.eq(first_row + n)
            with m.If(~hold):
                m.d.sync += count.eq(count + 1)

        # Nothing is asked for in the cycle in which it is written. Block memory is slow: its output gets a register
        # before anything is done with it.
        m.submodules.rows = rows = memory.Memory(
            shape=8 * LANES, depth=ROWS, init=[], attrs={"ram_style": "block", "no_rw_check": 1})
        write, read = rows.write_port(), rows.read_port(domain="comb")
        m.d.comb += [write.addr.eq(address), write.data.eq(row), write.en.eq(write_2)]
        lane_bits = (LANES - 1).bit_length()
        fetched, word = (Signal(8 * LANES, name=name, reset_less=True) for name in ("fetched", "word"))
        lanes = [self.position[:lane_bits], *(Signal(lane_bits, name=f"lane_{n}") for n in range(PLAY_LATENCY))]
        m.d.comb += [read.addr.eq(self.position[lane_bits:]), self.byte.eq(word.word_select(lanes[-1], 8))]
        m.d.sync += [fetched.eq(read.data), word.eq(fetched)]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(lanes)]

        # Sum: big-endian words, so the first byte of each pair is the high one. A row with its checksum does not count.
        term = Signal(17)
        total = Signal(16 + (2 * ROWS - 1).bit_length())
        once = Signal(17)
        with m.If(late_2):
            m.d.sync += term.eq(0)
        with m.Else():
            m.d.sync += term.eq(sum(Cat(row[n + 8:n + 16], row[n:n + 8]) for n in range(0, 8 * LANES, 16)))
        with m.If(head[self._unsummed - 1 + TO_ROW + 1]):
            m.d.sync += total.eq(0)
        with m.Else():
            m.d.sync += total.eq(total + term)
        m.d.sync += [
            once.eq(total[:16] + total[16:]),
            sum_.eq(once[:16] + once[16]),      # cannot carry again: the first fold leaves at most 0x1FFFE
        ]
        return m

    def _value(self, source, checksum):
        if isinstance(source, int):
            return Const(0, 8)
        return (self.fields[source.port] if source.port else checksum).word_select(source.index, 8)


def _is(kind, source):
    return isinstance(source, _Byte) and source.kind is kind


def _place(part, ports):
    """Where each byte of a part comes from, and the offset of its checksum or None; adds its ports to those of their
    kinds."""
    fields, owner = part.layout.fields, part.layout.name
    for name in part.values:
        if name not in fields:
            raise LayoutError(f"{owner} has no field {name!r}; it has {', '.join(fields)}")
    # A decimal and its only member are two names for the same bytes: a value under either is enough.
    given = {fields[name].offset for name in part.values if fields[name].size}
    placed, late = [0] * part.size, None
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
        if isinstance(value, Checksum):
            late, value = field.offset, value.seed
        if isinstance(value, _Value):
            kind, width = type(value), 8 * field.size
            for other, its in ports.items():
                if other is not kind and value.port in its:
                    raise LayoutError(f"{owner}.{field.name}: port {value.port!r} is {kind.__name__.lower()} here and "
                                      f"{other.__name__.lower()} there")
            if ports[kind].setdefault(value.port, width) != width:
                raise LayoutError(f"{owner}.{field.name} is {width} bits wide, port {value.port!r} has "
                                  f"{ports[kind][value.port]} bits from another field")
            sources = [_Byte(value.port, n, kind) for n in range(field.size)]
            if field.byteorder == "big":
                sources.reverse()
        else:
            sources = list(field.pack(value))
        placed[field.offset:field.end] = sources
    return placed, late


def _any(signals):
    return reduce(or_, signals, Const(0, 1))


def _rows(sources):
    padded = [*sources, *[0] * (-len(sources) % LANES)]
    return [tuple(padded[n:n + LANES]) for n in range(0, len(padded), LANES)]

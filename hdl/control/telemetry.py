"""Records of decisions and events, for the host."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, Signature

from hdl.layout import sbe
from hdl.mac.stream import Packet

__all__ = ["DECISION", "EVENT", "EventInput", "Telemetry", "record_layout"]


def record_layout(message) -> data.FlexibleLayout:
    """Layout of a message of fixed length, with its bytes in the order of the wire from the least significant one on.

    Every field of the message is a member under its own name. Raises ``ValueError`` for a message that a record cannot
    hold: one with groups or variable-length data, or with big-endian fields.
    """
    if message.groups or message.data:
        raise ValueError(f"{message.name} has groups or variable-length data, a record has fixed-length fields only")
    members = {}
    for field in message.fields.values():
        if field.size > 1 and field.byteorder != "little":
            raise ValueError(f"{message.name}.{field.name} is {field.byteorder} endian, must be little")
        shape = (signed if field.signed else unsigned)(8 * field.size)
        members[field.name] = data.Field(shape, 8 * field.offset)
    return data.FlexibleLayout(8 * message.block_length, members)


_LINK = sbe.load("t2q_link")
_DECISION, _EVENT = _LINK["Decision"], _LINK["Event"]
_CODES = _LINK.enums["EventCode"]
_OVERFLOW = "TELEMETRY_OVERFLOW"

DECISION = record_layout(_DECISION)     #: a Decision; ``sequence`` is filled in by :class:`Telemetry`
EVENT = record_layout(_EVENT)           #: an Event

#: One kind of event. Members: ``strobe`` : Out(1), it happens in this cycle; ``data`` : Out(32), what about it.
EventInput = Signature({"strobe": Out(1), "data": Out(32)})


class Telemetry(wiring.Component):
    """Keeps records until the host link takes them, and never makes their producers wait.

    Decisions and events share one sequence of numbers, in which every record counts, lost ones too: a number that is
    missing at the host is a record that was lost. As soon as there is room again, an event TELEMETRY_OVERFLOW follows,
    whose data is the number of records lost since the last one.

    **Latency**: the first byte of a decision is on ``o`` 3 cycles after its strobe, that of an event 4 cycles, if
    nothing was waiting.

    **Order**: records keep the order in which they happened, save that in one cycle a decision goes before events and
    events go by their codes. Of one kind of event that happens again while the first still waits to be stored, the
    last one is kept and the others count as lost; without an overflow that takes two within eight cycles.

    Parameters
    ----------
    depth : int
        Records of room, at least 4.

    Members
    -------
    cycle : In(64)
        The present cycle, for events.
    decision_valid : In(1), decision : In(DECISION)
        Strobe: a decision. Its ``sequence`` is ignored.
    events : In(Signature)
        An :data:`EventInput` for every code of the schema but TELEMETRY_OVERFLOW, under its name in lower case.
    lost : Out(1)
        Strobe for a counter: one record or more is lost in this cycle.
    o : Out(Packet)
        Payloads of link packets.
    o_type : Out(8), o_length : Out(16)
        Type (message id) and length of the packet on ``o``, while ``o.valid``.
    """

    def __init__(self, depth: int = 64):
        if depth < 4:
            raise ValueError(f"depth is {depth} records, must be at least 4")
        self.depth = depth
        super().__init__({
            "cycle": In(64),
            "decision_valid": In(1),
            "decision": In(DECISION),
            "events": In(Signature({name.lower(): Out(EventInput) for name in _CODES if name != _OVERFLOW})),
            "lost": Out(1),
            "o": Out(Packet),
            "o_type": Out(8),
            "o_length": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        width = max(DECISION.size, EVENT.size)
        entry = data.StructLayout({"is_event": 1, "record": width})
        m.submodules.records = records = SyncFIFOBuffered(width=entry.size, depth=self.depth)
        stored = Signal(entry)
        sequence = Signal(32)
        m.d.comb += records.w_data.eq(stored.as_value())

        decision, event = Signal(DECISION), Signal(EVENT)
        m.d.comb += [decision.eq(self.decision), decision.sequence.eq(sequence), event.sequence.eq(sequence)]

        # Events wait in a place of their own, one for each kind, until no decision wants to be stored.
        losses = [self.decision_valid & ~records.w_rdy]
        missing = Signal(32)        # lost since the last TELEMETRY_OVERFLOW
        waiting = {name: Signal(name=f"{name.lower()}_waiting") for name in _CODES}
        held = {name: data.StructLayout({"data": 32, "cycle": 64}) for name in _CODES if name != _OVERFLOW}
        held = {name: Signal(layout, name=f"{name.lower()}_held") for name, layout in held.items()}
        stores = Signal(len(_CODES))
        overflow_stored = Signal()
        m.d.comb += waiting[_OVERFLOW].eq(missing != 0)
        blocked = self.decision_valid | ~records.w_rdy
        for n, (name, code) in enumerate(sorted(_CODES.items(), key=lambda item: item[1])):
            chosen = stores[n]
            m.d.comb += chosen.eq(waiting[name] & ~blocked)
            blocked = blocked | waiting[name]
            with m.If(chosen):
                m.d.comb += event.code.eq(code)
                if name == _OVERFLOW:
                    m.d.comb += overflow_stored.eq(1)
                    m.d.comb += [event.data.eq(missing), event.cycle.eq(self.cycle)]
                else:
                    m.d.comb += [event.data.eq(held[name].data), event.cycle.eq(held[name].cycle)]
                    m.d.sync += waiting[name].eq(0)
            if name != _OVERFLOW:
                source = getattr(self.events, name.lower())
                with m.If(source.strobe):
                    m.d.sync += [waiting[name].eq(1), held[name].data.eq(source.data), held[name].cycle.eq(self.cycle)]
                losses.append(source.strobe & waiting[name] & ~chosen)

        any_event = stores.any()
        m.d.comb += [
            stored.is_event.eq(any_event),
            stored.record.eq(Mux(any_event, event.as_value(), decision.as_value())),
            records.w_en.eq(records.w_rdy & (self.decision_valid | any_event)),
        ]
        lost_now = Signal(range(len(losses) + 1))
        m.d.comb += [lost_now.eq(sum(losses)), self.lost.eq(lost_now != 0)]
        m.d.sync += sequence.eq(sequence + records.w_en + lost_now)
        with m.If(overflow_stored):
            m.d.sync += missing.eq(lost_now)
        with m.Elif(~missing[-1]):
            m.d.sync += missing.eq(missing + lost_now)

        # One record at a time, a byte at a time.
        taken = Signal(entry)
        shift = Signal(width)
        is_event = Signal()
        left = Signal(range(width // 8 + 1))
        busy = Signal()
        m.d.comb += [
            taken.eq(records.r_data),
            self.o.valid.eq(busy),
            self.o.data.eq(shift[:8]),
            self.o.last.eq(left == 1),
            self.o_type.eq(Mux(is_event, _EVENT.id, _DECISION.id)),
            self.o_length.eq(Mux(is_event, _EVENT.block_length, _DECISION.block_length)),
        ]
        with m.If(~busy):
            m.d.comb += records.r_en.eq(1)
            m.d.sync += [shift.eq(taken.record), is_event.eq(taken.is_event), busy.eq(records.r_rdy)]
            m.d.sync += left.eq(Mux(taken.is_event, _EVENT.block_length, _DECISION.block_length))
        with m.Elif(self.o.ready):
            m.d.sync += [shift.eq(shift >> 8), left.eq(left - 1), busy.eq(~self.o.last)]

        return m

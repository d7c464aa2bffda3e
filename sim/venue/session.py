"""Session layer of the simulated gateway: bytes in, bytes out, independent of the transport.

A :class:`Gateway` owns the engine and, for every client, the sequence numbers and the messages kept for recovery;
they survive a connection. A :class:`Session` is one connection. Both are driven by calls that carry the time:

    session = gateway.connect(now_ns)
    session.receive(data, now_ns)        # bytes as they come, any segmentation
    gateway.poll(now_ns)                 # lets time pass: heartbeats, time-outs, end of freezes
    session.take_output()                # bytes to send; when session.closing is set, close after sending them
    session.disconnected(now_ns)         # the transport is gone

Rules (as of a FIX session, with the exchange's additions):

- the first message must be a Logon with known credentials, a schema version in range and the expected sequence
  number; a second logon of the same client displaces the first;
- every message carries the next sequence number. A higher one means that something was lost, which a TCP stream does
  not do, and the gateway never asks for a resend: the session ends. A lower one ends it too, unless flagged isResend,
  which is ignored;
- a message that cannot be read is answered with Reject and consumes its sequence number; bytes that are no message
  at all end the session;
- ResendRequest repeats application messages with the isResend flag; runs of session messages, and what is no longer
  kept, become one GapFill;
- the end of a session, for whatever reason, cancels the orders tagged cancelOnDisconnect.

What is sent is padded with zeros to a multiple of 8 bytes, messageLength included.
"""

from collections import deque
from dataclasses import dataclass

from hdl.layout.fields import LayoutError

from .engine import COD, ENUMS, SCHEMA, SETS, Engine

HEADER = SCHEMA.composites["MessageHeader"]
PROTOCOL_ID = 0xDB
IS_RESEND = 1 << SETS["flags"]["isResend"]
MAX_MESSAGE = 4096
SECOND = 1_000_000_000

#: Schema version in which a message last changed; the others are as in version 1. Stamped into the header, never
#: above the version negotiated.
LAST_CHANGED = {"LogonConf": 12, "CancelOrderResponse": 16, "MassQuoteReject": 15, "MassQuoteMmpUnfrozen": 10}

SESSION_MESSAGES = frozenset({"Logon", "LogonConf", "Logout", "LoggedOut", "Heartbeat", "TestRequest",
                              "ResendRequest", "GapFill", "Reject"})
CLIENT_MESSAGES = frozenset({"Logon", "Logout", "Heartbeat", "TestRequest", "ResendRequest", "NewOrderRequest",
                             "CancelOrderRequest", "MassQuoteRequest", "MassCancelRequest", "MassQuoteCancelRequest"})
#: A Logon may end before its younger fields: sizes of the root block then.
SHORT_LOGONS = (SCHEMA["Logon"]["schemaVersion"].offset, SCHEMA["Logon"]["cancelOnDisconnect"].offset)


def frame(name, body, *, sequence, last_processed, now_ns, version, flags=0, pad=True):
    """A whole message: header and ``body`` (bytes of the message's fields), zero-padded to a multiple of 8."""
    length = HEADER.size + len(body)
    padding = -length % 8 if pad else 0
    return HEADER.pack(protocolId=PROTOCOL_ID, flags=flags, messageLength=length + padding,
                       messageTypeId=SCHEMA[name].id, version=version, sequenceNumber=sequence,
                       lastProcessedSeqNo=last_processed, sendTimeNs=now_ns) + body + bytes(padding)


@dataclass(frozen=True)
class Refusal:
    """Something the session layer refused or found odd: when, of whom, which message, and why in words."""

    time_ns: int
    client: str
    sequence: int
    message: str
    reason: str
    text: str


class ClientState:
    """What the gateway remembers of a client between connections: sequence numbers and messages for recovery."""

    def __init__(self, spec, store):
        self.spec = spec
        self.session = None
        self.store = deque(maxlen=store)  # (sequence, message name, body), application messages only
        self.reset()

    def reset(self):
        """Start both directions at 1 and forget what was sent."""
        self.next_in, self.next_out = 1, 1
        self.store.clear()


class Gateway:
    """Engine, clients and sessions.

    Parameters
    ----------
    config : :class:`sim.venue.config.VenueConfig`.

    Attributes
    ----------
    engine : :class:`sim.venue.engine.Engine`; its ``ledger`` is the record of the business.
    refusals : list of :class:`Refusal` of the session layer.
    sessions : open connections.
    counters : messages received and sent, by name.
    """

    def __init__(self, config):
        self.config, self.engine = config, Engine(config)
        self.clients = {spec.client_id: ClientState(spec, config.resend_store) for spec in config.clients}
        self.sessions, self.refusals = [], []
        self.received, self.sent = {}, {}

    def connect(self, now_ns):
        """A new connection."""
        session = Session(self, now_ns)
        self.sessions.append(session)
        return session

    def market(self, now_ns, instrument_id, bid, ask):
        """See :meth:`Engine.market`."""
        self.engine.market(now_ns, instrument_id, bid, ask)
        self.flush(now_ns)

    def trade(self, now_ns, instrument_id, price_e9, lots, aggressor):
        """See :meth:`Engine.trade`."""
        self.engine.trade(now_ns, instrument_id, price_e9, lots, aggressor)
        self.flush(now_ns)

    def poll(self, now_ns):
        """Let time pass for the engine and every session."""
        self.engine.advance(now_ns)
        self.flush(now_ns)
        for session in tuple(self.sessions):
            session.poll(now_ns)

    def next_deadline_ns(self):
        """Earliest time at which :meth:`poll` has something to do, or ``None``."""
        times = [s.next_deadline_ns() for s in self.sessions if not s.closing] + [self.engine.next_deadline_ns()]
        return min((t for t in times if t is not None), default=None)

    def flush(self, now_ns):
        """Give what the engine said to the clients' sessions; for an absent client it is kept for recovery."""
        outgoing, self.engine.outgoing = self.engine.outgoing, []
        for client, name, values, groups in outgoing:
            state = self.clients[client]
            body = SCHEMA[name].encode(values, groups)
            sequence, state.next_out = state.next_out, state.next_out + 1
            state.store.append((sequence, name, body))
            if state.session is not None:
                state.session.transmit(name, body, sequence, now_ns)

    def refuse(self, now_ns, client, sequence, message, reason, text):
        """Record a refusal of the session layer."""
        self.refusals.append(Refusal(now_ns, client, sequence, message, reason, text))

    def explain_refusals(self):
        """One sentence a refusal: first those of the session layer, then those of the engine."""
        return [f"{r.time_ns} ns {r.message} #{r.sequence} of {r.client or 'an unknown client'}: {r.reason}: {r.text}"
                for r in self.refusals] + self.engine.ledger.explain_refusals()


class Session:
    """One connection of the gateway. See the module's documentation for its life.

    Attributes
    ----------
    closing : set when the gateway has ended the session; the transport closes after sending what is left.
    end_reason : why the session ended, in words.
    client : client id once logged on, else ``""``.
    """

    def __init__(self, gateway, now_ns):
        self.gateway, self.state = gateway, None
        self.closing, self.end_reason = False, ""
        self.version, self.cancel_on_disconnect = 0, False
        self._buffer, self._out = bytearray(), bytearray()
        self._opened_ns = self._heard_ns = self._spoke_ns = now_ns
        self._test_ns, self._test_id = None, 0
        self._ended = False

    @property
    def client(self):
        return self.state.spec.client_id if self.state else ""

    # -- transport side -----------------------------------------------------------------------------------------

    def take_output(self):
        """Bytes to send since the last call."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def receive(self, data, now_ns):
        """Bytes from the client, in order, cut anywhere."""
        if self.closing:
            return
        self._buffer += data
        while not self.closing and len(self._buffer) >= HEADER.size:
            header = HEADER.unpack(self._buffer)
            length = header["messageLength"]
            if header["protocolId"] != PROTOCOL_ID:
                return self._end(now_ns, header["sequenceNumber"], "", "FRAMING",
                                 f"protocolId {header['protocolId']:#04x} must be {PROTOCOL_ID:#04x}")
            if not HEADER.size <= length <= MAX_MESSAGE:
                return self._end(now_ns, header["sequenceNumber"], "", "FRAMING",
                                 f"messageLength {length} must be {HEADER.size}..{MAX_MESSAGE}")
            if len(self._buffer) < length:
                return None
            body = bytes(self._buffer[HEADER.size:length])
            del self._buffer[:length]
            self._message(header, body, now_ns)
        return None

    def disconnected(self, now_ns, reason="the client closed the connection"):
        """The transport is gone. Idempotent."""
        self._finish(now_ns, reason)

    def poll(self, now_ns):
        """Heartbeats and time-outs."""
        if self.closing:
            return
        config = self.gateway.config
        if self.state is None:
            if now_ns - self._opened_ns >= config.logon_timeout_ns:
                self._end(now_ns, 0, "", "TIMEOUT", f"no Logon within {config.logon_timeout_ns} ns")
            return
        patience = int(config.heartbeat_grace * config.heartbeat_s * SECOND)
        if now_ns - self._heard_ns >= patience:
            if self._test_ns is None:
                self._test_ns, self._test_id = now_ns, self._test_id + 1
                self._send("TestRequest", {"correlationId": self._test_id}, now_ns)
            elif now_ns - self._test_ns >= config.heartbeat_s * SECOND:
                self._end(now_ns, self.state.next_in, "", "TIMEOUT",
                          f"nothing received for {now_ns - self._heard_ns} ns, a TestRequest went unanswered")
                return
        if now_ns - self._spoke_ns >= config.heartbeat_s * SECOND:
            self._send("Heartbeat", {"correlationId": 0}, now_ns)

    def next_deadline_ns(self):
        """Earliest time at which :meth:`poll` has something to do."""
        config = self.gateway.config
        if self.state is None:
            return self._opened_ns + config.logon_timeout_ns
        interval = config.heartbeat_s * SECOND
        silence = self._heard_ns + int(config.heartbeat_grace * interval) if self._test_ns is None \
            else self._test_ns + interval
        return min(self._spoke_ns + interval, silence)

    # -- sending ------------------------------------------------------------------------------------------------

    def _send(self, name, values, now_ns):
        """Send a session message; it takes a sequence number but is never repeated."""
        sequence, self.state.next_out = self.state.next_out, self.state.next_out + 1
        self.transmit(name, SCHEMA[name].encode(values), sequence, now_ns)

    def transmit(self, name, body, sequence, now_ns, flags=0):
        """Frame and queue a message with a sequence number of its own."""
        if self.closing:
            return
        last = self.state.next_in - 1 if self.state else 0
        self._out += frame(name, body, sequence=sequence, last_processed=last, now_ns=now_ns, flags=flags,
                           version=min(LAST_CHANGED.get(name, 1), self.version or 16))
        self._spoke_ns = now_ns
        self.gateway.sent[name] = self.gateway.sent.get(name, 0) + 1

    # -- receiving ----------------------------------------------------------------------------------------------

    def _message(self, header, body, now_ns):
        message = SCHEMA.by_id.get(header["messageTypeId"])
        name = message.name if message else f"message type {header['messageTypeId']}"
        sequence = header["sequenceNumber"]
        self.gateway.received[name] = self.gateway.received.get(name, 0) + 1
        self._heard_ns, self._test_ns = now_ns, None
        if self.state is None:
            return self._logon(header, message, name, body, now_ns)
        if sequence < self.state.next_in and header["flags"] & IS_RESEND:
            return self._odd(now_ns, sequence, name, "DUPLICATE", f"repeated message {sequence} ignored, "
                                                                  f"{self.state.next_in} is expected")
        if sequence != self.state.next_in:
            high = sequence > self.state.next_in
            return self._end(now_ns, sequence, name, "SEQUENCE",
                             f"sequenceNumber {sequence} too {'high' if high else 'low'}, expected "
                             f"{self.state.next_in}")
        self.state.next_in += 1
        if header["lastProcessedSeqNo"] >= self.state.next_out:
            self._odd(now_ns, sequence, name, "ACKNOWLEDGEMENT",
                      f"lastProcessedSeqNo {header['lastProcessedSeqNo']}, but only "
                      f"{self.state.next_out - 1} messages were sent")
        if message is None or name not in CLIENT_MESSAGES or name == "Logon":
            what = "unknown to this gateway" if message is None else "not for clients to send here"
            return self._reject(now_ns, sequence, name, "INVALID_TEMPLATE_ID",
                                f"messageTypeId {header['messageTypeId']} is {what}")
        if header["version"] > self.version:
            return self._reject(now_ns, sequence, name, "INVALID_SCHEMA_ID",
                                f"version {header['version']} is above the negotiated {self.version}")
        if header["flags"] & ~IS_RESEND:
            return self._reject(now_ns, sequence, name, "INVALID_FIELD_VALUE",
                                f"header flags {header['flags']:#04x} have unknown bits, only {IS_RESEND:#04x} exists")
        values = self._decode(now_ns, sequence, message, body)
        if values is None:
            return None
        if name in SESSION_MESSAGES:
            return getattr(self, f"_on_{name.lower()}")(sequence, values, now_ns)
        if self.cancel_on_disconnect:
            for entry in values.get("quotes", ()):
                entry["bidFlags"] |= COD
                entry["askFlags"] |= COD
            if name == "NewOrderRequest":
                values["flags"] |= COD
        self.gateway.engine.request(self.client, name, values, now_ns)
        return self.gateway.flush(now_ns)

    def _decode(self, now_ns, sequence, message, body):
        """Field values of a message, or ``None`` after a Reject."""
        name = message.name
        try:
            values = message.decode(body)
        except LayoutError as error:
            return self._reject(now_ns, sequence, name, "INVALID_BLOCK_LENGTH", str(error))
        needed = message.block_length + sum(group.dimension.size + len(values[group.name]) * group.block_length
                             for group in message.groups.values()) + \
            sum(d.length_size + len(values[d.name]) for d in message.data)
        if not needed <= len(body) < needed + 8:
            return self._reject(now_ns, sequence, name, "INVALID_BLOCK_LENGTH",
                                f"body of {len(body)} bytes, {name} of this content has {needed} and at most 7 of "
                                "padding")
        for group in message.groups.values():
            offset = message.group_offset(group.name, **{g: len(values[g]) for g in message.groups})
            wire = group.dimension.unpack(body, offset - group.dimension.size)["blockLength"]
            if wire != group.block_length:
                return self._reject(now_ns, sequence, name, "INVALID_BLOCK_LENGTH",
                                    f"{group.name} entries of {wire} bytes, must be {group.block_length}")
        text = _bad_field(message.fields, values) or next(
            (f"{group.name}[{i}].{text}" for group in message.groups.values()
             for i, entry in enumerate(values[group.name]) if (text := _bad_field(group.fields, entry))), "")
        if not text and name == "MassQuoteRequest" and not values["quotes"]:
            text = "quotes has no entries, at least one is needed"
        if text:
            return self._reject(now_ns, sequence, name, "INVALID_FIELD_VALUE", text)
        return values

    def _logon(self, header, message, name, body, now_ns):
        sequence = header["sequenceNumber"]
        if name != "Logon":
            return self._end(now_ns, sequence, name, "LOGON", f"{name} before Logon")
        if len(body) < SHORT_LOGONS[0]:
            return self._end(now_ns, sequence, name, "LOGON",
                             f"body of {len(body)} bytes, Logon needs {message.block_length}")
        block = message.block_length if len(body) >= message.block_length else \
            max(b for b in SHORT_LOGONS if b <= len(body))
        values = message.decode(body, block)
        low, high = self.gateway.config.schema_versions
        state = self.gateway.clients.get(values["clientId"])
        if state is None or state.spec.secret != values["secret"]:
            return self._end(now_ns, sequence, name, "LOGON", f"clientId {values['clientId']!r} or its secret is wrong")
        text = _bad_field(message.fields, values)
        if text:
            return self._end(now_ns, sequence, name, "LOGON", text, client=values["clientId"])
        if not low <= (values["schemaVersion"] or 0) <= high:
            return self._end(now_ns, sequence, name, "LOGON", f"schemaVersion {values['schemaVersion'] or 'missing'}, "
                             f"this gateway accepts {low}..{high}", client=values["clientId"])
        expected = 1 if values["resetSeqNum"] else state.next_in
        if sequence != expected:
            wrong = "high" if sequence > expected else "low"
            return self._end(now_ns, sequence, name, "SEQUENCE", f"sequenceNumber {sequence} of Logon too {wrong}, "
                             f"expected {expected}", client=values["clientId"])
        if state.session is not None:
            old = state.session
            old._end(now_ns, state.next_in, "Logon", "DISPLACED", "displaced by a new logon of the same client")
        if values["resetSeqNum"]:
            state.reset()
        state.next_in = sequence + 1
        state.session, self.state = self, state
        self.version = values["schemaVersion"]
        self.cancel_on_disconnect = bool(values["cancelOnDisconnect"])
        return self._send("LogonConf", {"heartbeatIntervalSeconds": self.gateway.config.heartbeat_s,
                                        "schemaVersion": self.version}, now_ns)

    def _on_logout(self, sequence, values, now_ns):
        self._end(now_ns, sequence, "Logout", "", values["reason"] or "logged out")

    def _on_heartbeat(self, sequence, values, now_ns):
        """Being heard is all that counts."""

    def _on_testrequest(self, sequence, values, now_ns):
        self._send("Heartbeat", {"correlationId": values["correlationId"]}, now_ns)

    def _on_resendrequest(self, sequence, values, now_ns):
        first, last = values["fromSequenceNumber"], values["toSequenceNumber"]
        newest = self.state.next_out - 1
        last = newest if last == 0 else last
        if not 1 <= first <= last <= newest:
            return self._reject(now_ns, sequence, "ResendRequest", "INVALID_FIELD_VALUE",
                                f"range {first}..{values['toSequenceNumber']} must lie in 1..{newest} (0 as the end "
                                f"means all)")
        kept = {s: (name, body) for s, name, body in self.state.store if first <= s <= last}
        at = first
        while at <= last:
            if at in kept:
                name, body = kept[at]
                self.transmit(name, body, at, now_ns, IS_RESEND)
                at += 1
                continue
            end = next((s for s in range(at, last + 1) if s in kept), last + 1)
            self.transmit("GapFill", SCHEMA["GapFill"].encode({"newSequenceNumber": end}), at, now_ns, IS_RESEND)
            at = end
        return None

    # -- refusing and ending ------------------------------------------------------------------------------------

    def _odd(self, now_ns, sequence, name, reason, text):
        self.gateway.refuse(now_ns, self.client, sequence, name, reason, text)

    def _reject(self, now_ns, sequence, name, reason, text):
        self._odd(now_ns, sequence, name, reason, text)
        self._send("Reject", {"refSequenceNumber": sequence, "reason": ENUMS["RejectReason"][reason],
                              "details": text[:255]}, now_ns)

    def _end(self, now_ns, sequence, name, reason, text, client=""):
        """Say LoggedOut, cancel what is tagged, ask the transport to close. No ``reason``: an orderly end."""
        if self.closing:
            return
        if reason:
            self.gateway.refuse(now_ns, self.client or client, sequence, name, reason, text)
        if self.state is not None:
            self._send("LoggedOut", {"reason": text[:255]}, now_ns)
        else:
            self.transmit("LoggedOut", SCHEMA["LoggedOut"].encode({"reason": text[:255]}), 1, now_ns)
        self._finish(now_ns, text)

    def _finish(self, now_ns, reason):
        if self._ended:
            return
        self._ended, self.closing, self.end_reason = True, True, reason
        self.gateway.sessions.remove(self)
        if self.state is not None and self.state.session is self:
            self.state.session = None
            self.gateway.engine.disconnected(self.client, now_ns)
            self.gateway.flush(now_ns)


def _bad_field(fields, values):
    """Words about the first field whose value is outside its enumeration or set, else ``""``."""
    for f in fields.values():
        value = values[f.name]
        if not f.enum or value is None:
            continue
        if f.enum in ENUMS and value not in ENUMS[f.enum].values():
            names = ", ".join(f"{v} {k}" for k, v in sorted(ENUMS[f.enum].items(), key=lambda item: item[1]))
            return f"{f.name} {value} must be one of {names}"
        if f.enum in SETS and value & ~sum(1 << bit for bit in SETS[f.enum].values()):
            return f"{f.name} {value:#x} has unknown bits, known are {', '.join(SETS[f.enum])}"
    return ""

"""Client side of a Starbase order-entry session: messages in, messages out, independent of the transport.

The session is numbered in both directions like a FIX session. Until :meth:`Session.hand_over` this object numbers what
it sends; afterwards the fabric does, and messages leave here with the numbers left open. Time is an argument everywhere
(integer nanoseconds), so the same input gives the same output.

    session = Session(client_id, secret)
    session.start(now_ns)
    session.receive(data, now_ns)     # bytes of the TCP stream, cut anywhere -> application messages
    session.poll(now_ns)              # heartbeats and time-outs
    session.take_output()             # messages to be sent
"""

from dataclasses import dataclass
from enum import Enum

from hdl.layout import sbe
from hdl.layout.fields import LayoutError

SCHEMA = sbe.load("starbase_orders")
HEADER = SCHEMA.composites["MessageHeader"]
PROTOCOL_ID = 0xDB
SECOND = 1_000_000_000
MAX_MESSAGE = 65_535  #: bytes of one message, header included
_IS_RESEND = 1  # header flag; bit 0 of the composite's own set
_SESSION_MESSAGES = frozenset(("LogonConf", "LoggedOut", "Heartbeat", "TestRequest", "GapFill", "Reject"))
_MAX_HELD = 100_000


class SessionError(RuntimeError):
    """The session cannot do this now, or cannot go on: refused, out of sequence, silent, or unreadable."""


class State(Enum):
    """Where a session stands."""

    CLOSED = "closed"
    LOGGING_ON = "logging on"
    UP = "up"
    LOGGING_OUT = "logging out"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class AppMessage:
    """An application message, or a ``Reject`` of one of ours: schema ``name``, field ``values`` (groups as lists),
    its ``sequence`` number and whether it was sent again (``resent``)."""

    name: str
    values: dict
    sequence: int
    resent: bool = False


def frame(name, body, *, sequence=0, last_processed=0, now_ns=0):
    """One message of the client with its header."""
    return HEADER.pack(protocolId=PROTOCOL_ID, flags=0, messageLength=HEADER.size + len(body),
                       messageTypeId=SCHEMA[name].id, version=SCHEMA.version, sequenceNumber=sequence,
                       lastProcessedSeqNo=last_processed, sendTimeNs=now_ns) + body


class Session:
    """One order-entry session, as its client.

    Parameters
    ----------
    client_id, secret : credentials.
    schema_version : asked for in the Logon.
    reset_sequence : both directions start at 1; otherwise with ``next_out`` and ``next_in``.
    cancel_on_disconnect : ask the gateway to cancel everything when the connection ends.
    silence_intervals : heartbeat intervals without a message before a TestRequest; one more and the session has ended.
    logon_timeout_ns : how long to wait for the answer to a Logon or a Logout.

    Attributes
    ----------
    state : :class:`State`.
    next_out, next_in : next sequence number of each direction (``next_out`` is the fabric's after the hand-over).
    heartbeat_ns : interval that the gateway announced.
    end_reason : why the session ended.
    failed : it ended, and not because we logged out.
    """

    def __init__(self, client_id, secret, *, schema_version=SCHEMA.version, reset_sequence=True,
                 cancel_on_disconnect=True, next_out=1, next_in=1, silence_intervals=2, logon_timeout_ns=10 * SECOND):
        self._credentials = {"clientId": client_id, "secret": secret}
        self._schema_version, self._reset, self._cod = schema_version, reset_sequence, cancel_on_disconnect
        self._silence, self._logon_timeout_ns = silence_intervals, logon_timeout_ns
        self.next_out, self.next_in = (1, 1) if reset_sequence else (next_out, next_in)
        self.state, self.end_reason, self.failed, self.heartbeat_ns = State.CLOSED, "", False, 0
        self._handed_over = False
        self._buffer, self._output = bytearray(), []
        self._held, self._asked_to = {}, 0  # messages beyond a gap; end of the range asked for again
        self._spoke_ns = self._heard_ns = self._since_ns = 0
        self._test_ns, self._test_id = None, 0
        self.sent = {}
        self.received = {}

    # -- out ----------------------------------------------------------------------------------------------------

    @property
    def last_processed(self):
        """Number of the last message of the gateway that has been taken in without a gap."""
        return self.next_in - 1

    @property
    def handed_over(self):
        """The fabric numbers what is sent."""
        return self._handed_over

    @property
    def whole(self):
        """Nothing of what the gateway said is missing or half told: its next byte begins message ``next_in``."""
        return not self._buffer and not self._held

    def start(self, now_ns):
        """Queue the Logon."""
        if self.state is not State.CLOSED:
            raise SessionError(f"a session that is {self.state.value} cannot log on")
        self.state, self._heard_ns, self._since_ns = State.LOGGING_ON, now_ns, now_ns
        self.send("Logon", {**self._credentials, "resetSeqNum": int(self._reset), "schemaVersion": self._schema_version,
                            "cancelOnDisconnect": int(self._cod)}, now_ns)

    def send(self, name, values, now_ns, groups=None):
        """Queue a message of the schema."""
        body = SCHEMA[name].encode(values, groups)
        if self._handed_over:
            self._output.append(frame(name, body))
        else:
            self._output.append(frame(name, body, sequence=self.next_out, last_processed=self.last_processed,
                                      now_ns=now_ns))
            self.next_out += 1
        self._spoke_ns = now_ns
        self.sent[name] = self.sent.get(name, 0) + 1

    def take_output(self):
        """List of whole messages to be sent, in order."""
        out, self._output = self._output, []
        return out

    def spoke(self, now_ns):
        """The fabric has sent a message of its own: no heartbeat is due for an interval."""
        self._spoke_ns = max(self._spoke_ns, now_ns)

    def hand_over(self):
        """The fabric numbers from now on; returns the number of its first message."""
        if not self.whole:
            raise SessionError(f"cannot hand over a session in the middle of message {self.next_in}")
        if self.state is not State.UP or self._output:
            raise SessionError(f"cannot hand over a session that is {self.state.value} with {len(self._output)} "
                               f"messages waiting; it must be up and idle")
        self._handed_over = True
        return self.next_out

    def take_back(self, next_out):
        """The fabric has stopped; ``next_out`` is the number it would have used."""
        self._handed_over, self.next_out = False, next_out

    def logout(self, now_ns, reason="done"):
        """Queue a Logout; the gateway answers with LoggedOut."""
        if self.state is State.UP:
            self.send("Logout", {"reason": reason[:255]}, now_ns)
            self.state, self._since_ns = State.LOGGING_OUT, now_ns

    def disconnected(self, reason):
        """The transport is gone."""
        if self.state is not State.ENDED:
            self._end(reason, failed=self.state is not State.LOGGING_OUT)

    def _end(self, reason, failed=True):
        self.state, self.end_reason, self.failed = State.ENDED, reason, failed

    # -- in -----------------------------------------------------------------------------------------------------

    def receive(self, data, now_ns):
        """Take bytes of the stream; returns the application messages that they complete, in sequence, each once.

        If the session cannot go on, it has ended afterwards (:attr:`state`, :attr:`failed`, :attr:`end_reason`); what
        came before is still returned.
        """
        if self.state in (State.CLOSED, State.ENDED):
            return []
        self._buffer += data
        out = []
        try:
            while self.state is not State.ENDED and len(self._buffer) >= HEADER.size:
                header = HEADER.unpack(self._buffer)
                length = header["messageLength"]
                if header["protocolId"] != PROTOCOL_ID:
                    raise SessionError(f"protocolId {header['protocolId']:#04x} in the stream, must be "
                                       f"{PROTOCOL_ID:#04x}")
                if not HEADER.size <= length <= MAX_MESSAGE:
                    raise SessionError(f"messageLength {length}, must be {HEADER.size}..{MAX_MESSAGE}")
                if len(self._buffer) < length:
                    break
                body = bytes(self._buffer[HEADER.size:length])
                del self._buffer[:length]
                self._heard_ns, self._test_ns = now_ns, None
                self._sequenced(header, body, now_ns, out)
        except SessionError as error:
            self._end(str(error))
        return out

    def _sequenced(self, header, body, now_ns, out):
        sequence, message = header["sequenceNumber"], SCHEMA.by_id.get(header["messageTypeId"])
        name = message.name if message else ""
        self.received[name] = self.received.get(name, 0) + 1
        if self.state is State.LOGGING_ON and name in ("LogonConf", "LoggedOut"):
            return self._answer_to_logon(sequence, message, body, now_ns)
        if name == "LoggedOut" and sequence >= self.next_in:  # nothing comes after it, also if something is missing
            return self._logged_out(message, body)
        if sequence < self.next_in:
            if header["flags"] & _IS_RESEND:
                return None
            raise SessionError(f"{name or 'message'} has sequenceNumber {sequence}, already past; {self.next_in} was "
                               f"expected")
        if sequence > self.next_in:
            return self._gap(header, body, now_ns)
        self._deliver(header, message, body, now_ns, out)
        while self.next_in in self._held:
            held, text = self._held.pop(self.next_in)
            self._deliver(held, SCHEMA.by_id.get(held["messageTypeId"]), text, now_ns, out)
        return None

    def _gap(self, header, body, now_ns):
        sequence = header["sequenceNumber"]
        if len(self._held) >= _MAX_HELD:
            raise SessionError(f"{len(self._held)} messages wait behind missing message {self.next_in}")
        self._held.setdefault(sequence, (header, body))
        if self._asked_to < self.next_in:
            first_held = min(self._held)
            self._asked_to = first_held - 1
            self.send("ResendRequest", {"fromSequenceNumber": self.next_in, "toSequenceNumber": self._asked_to}, now_ns)

    def _deliver(self, header, message, body, now_ns, out):
        sequence = header["sequenceNumber"]
        self.next_in = sequence + 1
        if message is None:  # a newer gateway may send what this schema does not have
            return
        values = self._decode(message, body)
        name = message.name
        if name == "GapFill":
            if values["newSequenceNumber"] <= sequence:
                raise SessionError(f"GapFill {sequence} goes to {values['newSequenceNumber']}, must be above itself")
            self.next_in = values["newSequenceNumber"]
            for passed in [s for s in self._held if s < self.next_in]:
                del self._held[passed]
        elif name == "TestRequest":
            self.send("Heartbeat", {"correlationId": values["correlationId"]}, now_ns)
        elif name not in _SESSION_MESSAGES or name == "Reject":
            out.append(AppMessage(name, values, sequence, bool(header["flags"] & _IS_RESEND)))

    @staticmethod
    def _decode(message, body):
        try:
            return message.decode(body, min(len(body), message.block_length))
        except LayoutError as error:
            raise SessionError(f"{message.name} cannot be read: {error}") from None

    def _answer_to_logon(self, sequence, message, body, now_ns):
        if message.name == "LoggedOut":
            return self._logged_out(message, body)
        values = self._decode(message, body)
        interval = values["heartbeatIntervalSeconds"]
        if interval is None or interval <= 0:
            raise SessionError(f"LogonConf has heartbeatIntervalSeconds {interval}, must be at least 1")
        self.heartbeat_ns = interval * SECOND
        self.state = State.UP
        if sequence < self.next_in:
            raise SessionError(f"LogonConf has sequenceNumber {sequence}, already past; {self.next_in} was expected")
        if sequence > self.next_in:  # messages of an earlier connection were missed
            self._asked_to = sequence - 1
            self._held[sequence] = ({"messageTypeId": 0, "sequenceNumber": sequence, "flags": 0}, b"")
            self.send("ResendRequest", {"fromSequenceNumber": self.next_in, "toSequenceNumber": self._asked_to}, now_ns)
        else:
            self.next_in = sequence + 1
        return None

    def _logged_out(self, message, body):
        reason = self._decode(message, body)["reason"]
        if self.state is State.LOGGING_OUT:
            self._end(reason or "logged out", failed=False)
        else:
            self._end(f"the gateway ended the session: {reason or 'no reason given'}")

    # -- time ---------------------------------------------------------------------------------------------------

    def poll(self, now_ns):
        """Heartbeats and time-outs; a gateway that has been silent for too long ends the session."""
        if self.state in (State.LOGGING_ON, State.LOGGING_OUT) and now_ns - self._since_ns >= self._logon_timeout_ns:
            what = "Logon" if self.state is State.LOGGING_ON else "Logout"
            self._end(f"no answer to the {what} within {self._logon_timeout_ns / SECOND:g} s")
        if self.state is not State.UP:
            return
        if self._test_ns is not None:
            if now_ns - self._test_ns >= self.heartbeat_ns:
                self._end(f"the gateway has been silent for {(now_ns - self._heard_ns) / SECOND:g} s, a TestRequest "
                          f"went unanswered")
                return
        elif now_ns - self._heard_ns >= self._silence * self.heartbeat_ns:
            self._test_ns, self._test_id = now_ns, self._test_id + 1
            self.send("TestRequest", {"correlationId": self._test_id}, now_ns)
        if now_ns - self._spoke_ns >= self._beat_ns:
            self.send("Heartbeat", {"correlationId": 0}, now_ns)

    def next_deadline_ns(self):
        """Earliest time at which :meth:`poll` has something to do, or ``None``."""
        if self.state in (State.LOGGING_ON, State.LOGGING_OUT):
            return self._since_ns + self._logon_timeout_ns
        if self.state is not State.UP:
            return None
        silence = self._heard_ns + self._silence * self.heartbeat_ns if self._test_ns is None \
            else self._test_ns + self.heartbeat_ns
        return min(self._spoke_ns + self._beat_ns, silence)

    @property
    def _beat_ns(self):
        """A heartbeat goes out after four fifths of the interval, so that it is there before it is missed."""
        return self.heartbeat_ns * 4 // 5

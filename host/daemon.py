"""The daemon: one order-entry session, one card, and the operator between them.

All of it happens in :meth:`Daemon.pump`, which takes what the device has, lets what is due happen and sends the
results. There is no thread and no clock inside, so it runs in two ways:

- :func:`run` gives it the wall clock and waits for bytes in an event loop (a real card, or the virtual board's serial
  port in another process);
- a simulation calls ``pump(now_ns, received=...)`` in lock step with simulated time; the same bytes at the same times
  give the same commands.

Whatever takes several round trips (start, arming, shutting down) is written as a coroutine over :meth:`Daemon._until`;
``pump`` moves each one on as far as it goes.
"""

import asyncio
import secrets
import signal
import time
from collections import Counter, deque
from ipaddress import IPv4Address

import structlog

from hdl.control import registers as regmap
from hdl.layout import sbe

from . import config as configuration
from . import integrity, link, params, why
from . import latency as measured
from .device import DeviceError
from .equity import Equity
from .limits import Limits
from .positions import PositionError, Positions
from .references import References
from .registers import Registers, check_map
from .session import Session, SessionError, State
from .slowpath import SlowPath, SlowPathError, mac_text
from .tracking import Tracking

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
READ_TIMEOUT_NS = 2 * SECOND
SILENCE_NS = 200 * MILLISECOND  #: after which half a packet on the link is given up
_ORDERS = sbe.load("starbase_orders")
_BID_COUNTED, _ASK_COUNTED = (1 << link.SCHEMA.sets["DecisionFlags"][n] for n in ("bidCounted", "askCounted"))
_BOTH_KNOWN = sum(1 << link.SCHEMA.sets["DecisionFlags"][n] for n in ("bidKnown", "askKnown"))
_NO_REASON = -(1 << 7)  # null of an int8 enumeration: the side was not refused
_FATAL_EVENTS = ("SESSION_LOST", "TELEMETRY_OVERFLOW")
#: Why, by bit 0 of the event's data.
_LOST = ("the gateway ended the connection", "the gateway does not acknowledge: the card has given the connection up")
_TRADING = (regmap.ACTIVE, regmap.REDUCING)
_BOTH_SIDES = _ORDERS.enums["Side"]["BOTH"]
BLOCKED_KEPT = 1000  #: decisions that are kept for ``t2q why``
#: Counters of the card whose sum counts the same frames as the records that outcomes of :data:`_FRAMES` come in.
_FRAME_COUNTERS = ("quotes_sent", "quotes_pulled", "mass_cancels")
_FRAMES = ("SENT", "PULLED", "MASS_CANCEL")
#: Correlation ids of our own mass cancels lie above every quote id, which the fabric's have.
_OWN_CANCEL = 1 << 62

#: Counters and levels that are read from the card for ``status`` and the metrics, about once a second.
WATCHED = (
    *(r.name for r in regmap.REGISTERS if r.access == "count"), "gap_packets", "session_tokens", "live_bids",
    "live_asks", "gross", "open_bids", "open_asks", "latency_min", "latency_max", "latency_count")


#: Exit code of a daemon that another one has locked out.
FENCED = 4
#: Bits of an epoch that tell apart who began with the same greatest one; those above count.
_EPOCH_RANDOM = 16


class DaemonError(RuntimeError):
    """Something did not happen that had to, or a command makes no sense now."""


class _Pause:
    """Awaited by a task that has to wait for the next pump."""

    def __await__(self):
        yield


class Task:
    """A coroutine that is moved on by :meth:`Daemon.pump`: ``done``, then ``result`` or ``error``."""

    def __init__(self, name, coroutine):
        self.name, self._coroutine = name, coroutine
        self.done, self.result, self.error = False, None, None
        self.then = []  # called with the task when it is done

    def step(self):
        """Go on until the coroutine waits again. Returns True when it is done."""
        try:
            self._coroutine.send(None)
            return False
        except StopIteration as stop:
            self.result = stop.value
        except Exception as error:
            self.error = error
        self.done = True
        for callback in self.then:
            callback(self)
        return True

    def cancel(self):
        """Drop the coroutine."""
        self._coroutine.close()


class Daemon:
    """Runs one card against one venue session.

    Parameters
    ----------
    config : :class:`host.config.Config`.
    device : :class:`host.device.Device`.
    isn : initial TCP sequence number; default random. Give one for a run that can be repeated.
    journal : :class:`host.journal.Journal` or ``None``.

    Attributes
    ----------
    phase : ``"starting"`` until the session is up and handed over, then ``"ready"``; ``"stopping"``, ``"stopped"``; or
        ``"failed"`` with ``error``.
    state, halt_cause : the fabric's, as last reported.
    decisions, events : Counters by outcome and by event code. ``watched`` : what was last read of :data:`WATCHED`.
    limits : :class:`host.limits.Limits`, ``None`` until the card has answered.
    blocked : the last :data:`BLOCKED_KEPT` decisions that a gate stopped in part or altogether.
    fenced : another daemon has taken the card over: this one writes nothing any more.
    verified : since quoting last stopped the venue has shown that nothing is open. ``alarm`` : why it has not.
    on_decision, on_fill, on_message : lists of callables that are given every :class:`host.link.Decision`,
        :class:`host.positions.Fill` and :class:`host.session.AppMessage`, each with the time.
    """

    def __init__(self, config, device, *, isn=None, journal=None):
        self.config, self.device, self.journal = config, device, journal
        self.registers = Registers(device)
        self.log = structlog.get_logger("t2q").bind(client=config.session.client_id)
        self._secret = config.secret()
        self._isn = secrets.randbits(32) if isn is None else isn
        self.positions = Positions([(i.instrument_id, *params.lot_words(i.lot), i.initial_lots)
                                    for i in config.instruments])
        self.tracking = Tracking([i.name for i in config.instruments])
        self.references = References(config)
        self.equity = Equity(config, self.references.price)
        self.limits = None
        self.slowpath = self.session = None
        self.phase, self.error = "starting", ""
        self.state, self.halt_cause = regmap.DISARMED, 0
        self.now_ns = 0
        self.decisions, self.events, self.reasons, self.answers = Counter(), Counter(), Counter(), Counter()
        self.watched = {}
        self.last_decision = {}
        self.blocked, self._told = deque(maxlen=BLOCKED_KEPT), {}
        self.verified, self.alarm, self._verifying = False, "", None
        self._aborting = None
        self._own_cancels, self._own_refused = 0, ""  # how many there were, and why the venue refused the last one
        self._frames_before, self._records_lost = None, False  # counters of the card, and records, at the hand-over
        self.on_decision, self.on_fill, self.on_message = [], [], []
        self._tasks, self._record_number = [], None
        self._heartbeat, self._beat_ns, self._heartbeat_ns = None, None, int(config.host.heartbeat_ms * MILLISECOND)
        self._watch_ns, self._heard_ns, self._told_processed = None, 0, None
        self._rejects, self._commands_lost = deque(), 0
        self._handed_over = self._counting = self._stopping = False
        self.fenced, self._epoch_read, self._epoch_asked_ns = False, None, 0
        self._deadman_ns, self._unheard = int(config.risk.deadman_ms * MILLISECOND), False
        self._unheard_told_ns = -SECOND
        self.submit("start", self._start())

    # -- one step -----------------------------------------------------------------------------------------------

    def pump(self, now_ns, received=None):
        """Take every byte that the device has, do what is due at ``now_ns``, send what follows from it.

        ``received`` (lock step only): total number of bytes that were sent to the host; waits until they are here.
        Time never runs backwards. Raises :class:`host.device.DeviceError` if the transport is gone.
        """
        if now_ns < self.now_ns:
            raise ValueError(f"time runs backwards: {now_ns} ns after {self.now_ns} ns")
        self.now_ns = now_ns
        before = self.device.bytes_received
        records = self.device.poll(received)
        if self.device.bytes_received != before:
            self._heard_ns = now_ns
        elif received is None and self.device.incomplete and now_ns - self._heard_ns > SILENCE_NS:
            records = self.device.abandon()
        if self.device.commands_lost != self._commands_lost:
            self._commands_lost = self.device.commands_lost
            self._trouble("commands to the card were lost: what it has been told is unknown")
        for record in records:
            try:
                self._record(record)
            except PositionError as error:
                self._trouble(str(error))
        if untracked := self.tracking.lost(self.now_ns):
            self._trouble(untracked)
        self._timers()
        if self.fenced:  # it has nothing more to say
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()
            self._verifying = None
            return
        self._step_tasks()
        self._write_out()
        self.device.flush()

    def next_deadline_ns(self):
        """Time at which :meth:`pump` should be called even if nothing comes."""
        due = [self._beat_ns, self._watch_ns, self.tracking.next_deadline_ns()]
        if self._handed_over:
            due += [told.pace.next_deadline_ns() for told in (self.references, self.equity)]
        if self.slowpath:
            due.append(self.slowpath.next_deadline_ns())
        if self.session:
            due.append(self.session.next_deadline_ns())
        if self._tasks:
            due.append(self.now_ns + 10 * MILLISECOND)
        due = [d for d in due if d is not None]
        return max(self.now_ns, min(due)) if due else self.now_ns + SECOND

    def submit(self, name, coroutine):
        """Start a :class:`Task`; it is moved on by the next pumps."""
        task = Task(name, coroutine)
        self._tasks.append(task)
        return task

    def _step_tasks(self):
        for task in list(self._tasks):
            if task.step():
                self._tasks.remove(task)
                if task.error is not None and not task.then:
                    self._trouble(f"{task.name}: {task.error}", fatal=task.name == "start")

    def _timers(self):
        now = self.now_ns
        if self._beat_ns is not None and now >= self._beat_ns:
            self._beat_ns = now + self._heartbeat_ns
            answered = self._epoch_read is None or self._epoch_read.done
            # Who does not hear the card must not keep it alive: fills and halts would pass by unseen.
            unheard = not answered and now - self._epoch_asked_ns >= self._deadman_ns
            if not unheard:
                self._heartbeat = (self._heartbeat + 1) & 0xFFFF_FFFF
                self.registers.write("heartbeat", self._heartbeat)
            elif not self._unheard and now >= self._unheard_told_ns + SECOND:
                self._unheard_told_ns = now
                self.log.error("unheard", why=f"the card has not answered for "
                               f"{(now - self._epoch_asked_ns) / MILLISECOND:g} ms: no heartbeat until it does")
                self._journal("unheard")
            if answered:
                self._epoch_read, self._epoch_asked_ns = self.registers.read("epoch"), now
            self._unheard = unheard
        if self._epoch_read is not None and self._epoch_read.done:
            self._look_at_epoch(self._epoch_read.value)
        if self._watch_ns is not None and now >= self._watch_ns:
            self._watch_ns = now + SECOND
            if not any(t.name == "watch" for t in self._tasks):
                self.submit("watch", self._watch())
        if self.slowpath:
            self.slowpath.poll(now)
        if self.session:
            self.session.poll(now)
            self._check_session()

    def _write_out(self):
        """What session, slow path and positions have to say, in a fixed order."""
        if self.session and self.slowpath:
            output = self.session.take_output()
            if self._handed_over:
                for message in output:
                    self.device.send_session(message)
                if self._told_processed != self.session.last_processed:
                    self._told_processed = self.session.last_processed
                    self.registers.write("last_processed", self._told_processed)
            elif self.slowpath.state == "established":
                for message in output:
                    self.slowpath.send(message, self.now_ns)
        if self.slowpath:
            for frame in self.slowpath.take_frames():
                self.device.send_frame(frame)
        if self._handed_over:
            self._tell_positions()
            for words in self.references.updates(self.now_ns):
                self.registers.burst("ref_value", words)
            equity = self.equity.update(self.now_ns)
            if equity is not None:
                self.registers.write("equity", equity)

    def _tell_positions(self, everything=False):
        if not self._handed_over:
            return
        for update in self.positions.updates(everything, self.session.next_in):
            self.registers.burst("pos_value", update.registers())

    # -- what comes from the card -------------------------------------------------------------------------------

    def _record(self, record):
        if isinstance(record, link.Decision):
            self._numbered(record.sequence)
            self._decision(record)
        elif isinstance(record, link.SessionRx):
            self._session_bytes(record.payload)
        elif isinstance(record, link.Event):
            self._numbered(record.sequence)
            self._event(record)
        elif isinstance(record, link.FrameRx) and self.slowpath:
            self.slowpath.receive(record.frame, self.now_ns)
            data = self.slowpath.take_received()
            if data:
                self._session_bytes(data)

    def _numbered(self, sequence):
        """Decisions and events share one count; a missing one may have been a quote of which nothing is known."""
        if self._record_number is not None and sequence != self._record_number:
            missing = sequence - self._record_number & 0xFFFF_FFFF
            self._records_lost = True
            self._trouble(f"{missing} telemetry records before number {sequence} were lost: what is open is unknown")
        self._record_number = sequence + 1 & 0xFFFF_FFFF

    def _decision(self, d):
        outcome = link.OUTCOMES.get(d.outcome, str(d.outcome))
        self.decisions[outcome] += 1
        for gate, (name, *_) in regmap.GATES.items():
            if d.reasons >> gate & 1:
                self.reasons[name] += 1
        if d.instrument < len(self.config.instruments) and outcome != "MASS_CANCEL":
            self.last_decision[d.instrument] = d
            if d.flags & _BOTH_KNOWN == _BOTH_KNOWN:
                self.references.observe(d.instrument, d.best_bid_ticks, d.best_ask_ticks, self.now_ns)
            if d.reasons or outcome in ("DROPPED", "PULLED"):
                self._keep_blocked(d)
        if outcome in ("SENT", "PULLED"):
            bid, ask = (d.bid_ticks, d.bid_lots), (d.ask_ticks, d.ask_lots)
            self._told[d.instrument] = bid + ask
            self._journal("quote", id=d.quote_id, instrument=d.instrument, outcome=outcome, bid=bid, ask=ask)
            if self._counting:
                self.tracking.sent(d.quote_id, d.instrument)
                self.session.spoke(self.now_ns)
                self._filled(self.positions.decision(d.instrument, d.quote_id,
                                                     (d.bid_lots, bool(d.flags & _BID_COUNTED)),
                                                     (d.ask_lots, bool(d.flags & _ASK_COUNTED))))
        elif outcome == "MASS_CANCEL":
            self._told.clear()
            if self._counting:
                self._journal("mass_cancel", id=d.quote_id)
                self.tracking.sent(d.quote_id)
                self._filled(self.positions.mass_cancel(d.quote_id))
        for callback in self.on_decision:
            callback(d, self.now_ns)

    def _keep_blocked(self, d):
        if not self.limits or not self.limits.active:  # of an earlier daemon's time, whose limits are not known
            return
        n = d.instrument
        _, open_bid, open_ask = self.positions.lots(n)
        self.blocked.append(why.Blocked(
            self.now_ns, d, self.config.instruments[n], self.limits.rows[n], self.limits.risk_words, open_bid, open_ask,
            self._told.get(n, (0, 0, 0, 0)), tuple(self._causes()),
            self.session.state.value if self.session else "closed", self.watched.get("session_tokens"),
            self.references.told(n, self.now_ns),
            sum(bool(lots) for other, told in self._told.items() if other != n for lots in (told[1], told[3])),
            lot_value=self.references.lot_value(n), equity=self.equity.told, **self._worth()))

    def _worth(self):
        """What all positions and open quotes are worth by what the card was told, in 1/256 of the unit of money."""
        gross = bids = asks = 0
        for n in range(len(self.config.instruments)):
            (position, open_bid, open_ask), value = self.positions.lots(n), self.references.lot_value(n)
            gross += (abs(position) + open_bid + open_ask) * value
            bids, asks = bids + open_bid * value, asks + open_ask * value
        return {"gross": gross, "open_bids": bids, "open_asks": asks}

    def _event(self, e):
        name = link.EVENT_CODES.get(e.code, str(e.code))
        self.events[name] += 1
        if name == "STATE_CHANGED":
            before, self.state, self.halt_cause = self.state, e.data & 3, e.data >> 8 & 0xFF
            self._journal("state", state=regmap.STATES[self.state], cause=self._causes())
            self.log.info("state changed", state=regmap.STATES[self.state], cause=self._causes())
            if before in _TRADING and self.state not in _TRADING:
                self._verify()
            elif self.state in _TRADING:
                self.verified = False
        elif name in _FATAL_EVENTS:
            if name == "SESSION_LOST" and self.session:
                self._handed_over = False
                self.session.disconnected(_LOST[e.data & 1])
                if not self._stopping:
                    self._aborting = self.submit("abort", self._abort())
            if not self._stopping:
                self._records_lost |= name != "SESSION_LOST"
                self._trouble(_LOST[e.data & 1] if name == "SESSION_LOST" else
                              f"{e.data} telemetry records were lost: what is open is unknown")
        elif name in ("SESSION_TX_REFUSED", "ARM_REFUSED", "COMMIT_REFUSED"):
            self.log.warning("refused by the card", what=name, data=e.data)
            self._journal("refused", what=name)

    def _causes(self):
        return [name for name, bit in regmap.HALT_CAUSES.items() if self.halt_cause >> bit & 1]

    def _session_bytes(self, data):
        if self.session is None:  # of the connection of an earlier daemon
            return
        for message in self.session.receive(data, self.now_ns):
            self.answers[message.name] += 1
            self._answer(message)
            for callback in self.on_message:
                callback(message, self.now_ns)
        self._check_session()

    def _check_session(self):
        if self.session.failed and self.phase == "ready" and not self._stopping:
            self._trouble(self.session.end_reason)

    def _answer(self, message):
        name, v = message.name, message.values
        if name in ("MassQuoteReject", "MassCancelReject", "Reject"):
            self._journal("refusal", what=name, id=v.get("quoteId", v.get("correlationId", v.get("refSequenceNumber"))),
                          reason=v["reason"], details=v["details"])
            self.log.warning("refused by the venue", what=name, reason=v["reason"], details=v["details"])
            if name == "MassCancelReject" and v["correlationId"] == _OWN_CANCEL + self._own_cancels:
                self._own_refused = v["details"] or f"reason {v['reason']}"
            self._count_refusals(1)
        elif name == "MassQuoteResponse":
            self._journal("quote_ack", id=v["quoteId"], entries=[
                [e["instrumentId"], e["bidStatus"], e["askStatus"]] for e in v["quotes"]])
            refused = [(side, e[f"{side}RejectReason"]) for e in v["quotes"] for side in ("bid", "ask")
                       if e[f"{side}RejectReason"] not in (None, _NO_REASON)]
            if refused:
                self._journal("refusal", what=name, id=v["quoteId"], reason=refused)
                self._count_refusals(len(refused))
        elif name == "OrdersCanceled":
            self._journal("cancelled", orders=[[e["instrumentId"], e["clientOrderId"], e["cancelReason"]]
                                               for e in v["orders"]])
        elif name == "MassQuoteMmpTriggered":
            self._journal("mmp", group=v["mmpGroupId"], until_ns=v["frozenUntil"])
            self._stop_quoting(f"market-maker protection of group {v['mmpGroupId']} was triggered")
        self._filled(self.positions.message(name, v))
        if name == "OrderFilled" and self._counting:
            for f in v["fills"]:  # it counts as exposure, whoever sent it
                self.tracking.filled(f["clientOrderId"], self.positions.index(f["instrumentId"]), f["matchId"],
                                     self.now_ns)

    def _filled(self, fills):
        for f in fills:
            self.equity.filled(f.instrument, f.side, f.lots, f.price_e9)
            self._journal("fill", instrument=f.instrument, side=f.side, lots=f.lots, price_e9=f.price_e9,
                          match=f.match_id, order=f.order_id, maker=f.maker)
            for callback in self.on_fill:
                callback(f, self.now_ns)

    def _count_refusals(self, count):
        now = self.now_ns
        self._rejects.extend([now] * count)
        while self._rejects and now - self._rejects[0] > SECOND:
            self._rejects.popleft()
        if len(self._rejects) > self.config.risk.max_rejects_per_s:
            self._rejects.clear()
            self._stop_quoting(f"more than {self.config.risk.max_rejects_per_s} refusals by the venue within a second")

    # -- trouble ------------------------------------------------------------------------------------------------

    def _stop_quoting(self, reason):
        """Disarm on our own: every quote is cancelled, positions stay known."""
        if self.state in _TRADING:
            self.log.error("disarmed", why=reason)
            self._journal("disarm", why=reason)
            self.registers.write("disarm", 1)

    def _trouble(self, reason, fatal=True):
        """The daemon cannot go on: kill, and say so once."""
        self.log.error("trouble", why=reason)
        self._journal("trouble", why=reason)
        if not fatal or self.phase in ("failed", "stopped"):
            return
        if self._beat_ns is not None and self.state in _TRADING:
            self.registers.write("kill", 1)
            self._verify()
        self.phase, self.error = "failed", reason

    def _journal(self, kind, **facts):
        if self.journal:
            self.journal.write(self.now_ns, kind, **facts)

    # -- waiting ------------------------------------------------------------------------------------------------

    async def _until(self, condition, what, timeout_ns=READ_TIMEOUT_NS):
        deadline = self.now_ns + timeout_ns
        while not condition():
            if self.now_ns >= deadline:
                raise DaemonError(f"{what}: not within {timeout_ns / MILLISECOND:g} ms")
            await _Pause()

    async def _read(self, name):
        pending = self.registers.read(name)
        await self._until(lambda: pending.done, f"the card does not answer a read of {name}")
        return pending.value

    # -- start --------------------------------------------------------------------------------------------------

    async def _start(self):
        c = self.config
        check_map(await self._read("map_hash"))
        await self._take_over()
        rows = await self._read("instruments")
        if len(c.instruments) > rows:
            raise DaemonError(f"{len(c.instruments)} instruments are configured, this card has {rows}")
        await self._calm()
        self._heartbeat = await self._read("heartbeat")
        self._beat_ns = self.now_ns
        self.limits = Limits(self.registers, rows, c.host.heartbeat_ms)
        self._configure(rows)
        await self._load(c)
        await self._open_session()
        self._watch_ns = self.now_ns + SECOND
        self.phase = "ready"
        self._journal("ready")
        self.log.info("ready", instruments=len(c.instruments))

    async def _take_over(self):
        """From now on the card takes writes of this daemon and of later ones only."""
        known = await self._read("epoch")
        count = (known >> _EPOCH_RANDOM) + 1
        if count >> 32 - _EPOCH_RANDOM:
            raise DaemonError(f"the card's epoch is {known:08x}: there is no later one; reset the card")
        # Of two that begin at once one is greater, and the other is locked out.
        self.device.epoch = count << _EPOCH_RANDOM | self._isn & (1 << _EPOCH_RANDOM) - 1
        self.registers.write("scratch", 0)
        deadline, now = self.now_ns + READ_TIMEOUT_NS, known
        while now < self.device.epoch:      # an answer may have been another daemon's
            if self.now_ns >= deadline:
                raise DaemonError(f"the card did not take epoch {self.device.epoch:08x}")
            now = await self._read("epoch")
        if now > self.device.epoch:
            self._look_at_epoch(now)
            raise DaemonError(self.error)
        self.log.info("epoch", epoch=f"{now:08x}", before=f"{known:08x}")
        self._journal("epoch", epoch=now, before=known)

    def _look_at_epoch(self, epoch):
        """Stop if the card is another's: nothing that this daemon writes is taken any more."""
        if epoch <= self.device.epoch or self.fenced:
            return
        self.fenced, self._beat_ns, self._watch_ns, self._epoch_read = True, None, None, None
        self.phase = "failed"
        self.error = (f"locked out: a daemon with epoch {epoch:08x} has taken the card over, this one has "
                      f"{self.device.epoch:08x}")
        self.log.error("locked out", why=self.error)
        self._journal("locked_out", why=self.error)

    async def _calm(self):
        """A card may still be at work for a daemon that has died: stop it and reset its connection."""
        self.state = await self._read("state")
        self.halt_cause = await self._read("halt_cause")
        if self.state in _TRADING:
            self.registers.write("disarm", 1)
            await self._until(lambda: self.state == regmap.DISARMED, "the card does not disarm")
        self._make_slowpath()
        if await self._read("session_up"):
            snd_nxt, rcv_nxt = await self._read("snd_nxt"), await self._read("rcv_nxt")
            self.slowpath.peer_mac = await self._read("peer_mac")
            self.registers.write("session_enable", 0)
            self.slowpath.reset(snd_nxt, rcv_nxt)
            self.log.warning("reset the connection of an earlier daemon")

    def _make_slowpath(self):
        s = self.config.session
        self.slowpath = SlowPath(s.local_mac, s.local_ip, s.local_port, s.peer_ip, s.peer_port, isn=self._isn,
                                 next_hop_ip=s.next_hop_ip, window=s.receive_window_bytes)

    def _configure(self, rows):
        c, s, write = self.config, self.config.session, self.registers.write
        write("time_ns", self.now_ns)
        for name, value in params.feed_words(c.feed).items():
            write(name, value)
        for n in range(rows):
            security_id = c.instruments[n].security_id if n < len(c.instruments) else 0
            self.device.write(regmap.security_id_address(n), security_id)
        for name, value in {
                "local_mac": s.local_mac, "local_ip": s.local_ip, "local_port": s.local_port, "peer_ip": s.peer_ip,
                "peer_port": s.peer_port, "window": s.receive_window_bytes, **params.resend_words(s),
                "mmp_group": s.mmp_group,
                "smp_id": s.self_match_prevention_id,
                "quote_flags": configuration.flag_bits("MassQuoteFlags", s.quote_flags),
                "order_flags": configuration.flag_bits("OrderFlags", s.order_flags)}.items():
            write(name, value)

    async def _load(self, config):
        """Limits of the whole card and all rows, verified. Returns what it changed."""
        before, refused = await self._read("bank"), self.events["COMMIT_REFUSED"]
        changed = self.limits.put(config)
        deadline = self.now_ns + READ_TIMEOUT_NS
        try:
            while await self._read("bank") == before:
                if self.events["COMMIT_REFUSED"] != refused:
                    raise DaemonError("the card refused the limits: their CRC is not that of what it was told; nothing "
                                      "has changed")
                if self.now_ns >= deadline:
                    raise DaemonError("the card did not change parameter banks on commit")
        except DaemonError:
            self.limits.refused()
            raise
        self.limits.settled()
        return changed

    async def _open_session(self):
        s, path = self.config.session, self.slowpath
        self.session = Session(
            s.client_id, self._secret, schema_version=s.schema_version, reset_sequence=s.reset_sequence,
            cancel_on_disconnect=s.cancel_on_disconnect, silence_intervals=s.silence_intervals,
            logon_timeout_ns=s.connect_timeout_ms * MILLISECOND)
        peer = f"{IPv4Address(s.peer_ip)}:{s.peer_port}"
        path.connect(self.now_ns)
        await self._settled(lambda: path.state == "established", f"no connection to {peer}")
        self.log.info("connected", peer=peer, mac=mac_text(path.peer_mac))
        self.session.start(self.now_ns)
        await self._settled(lambda: self.session.state is State.UP, f"no answer to the logon from {peer}")
        await self._settled(lambda: path.idle and self.session.whole, f"{peer} does not acknowledge the logon, or does "
                            f"not send again what is missing of an earlier session")
        await self._hand_over()

    async def _abort(self):
        """The gateway has ended the connection, or only its half of it: then it still holds our quotes, and the card,
        which has let go of the session, cancels nothing any more. A reset makes cancel-on-disconnect due at once."""
        try:
            self.slowpath.reset(await self._read("snd_nxt"), await self._read("rcv_nxt"))
        finally:
            self._aborting = None

    async def _settled(self, condition, what):
        await self._until(lambda: condition() or self.slowpath.state == "failed" or self.session.state is State.ENDED,
                          what, self.config.session.connect_timeout_ms * MILLISECOND)
        if self.session.state is State.ENDED:  # says more than that the connection has gone with it
            raise DaemonError(self.session.end_reason)
        if self.slowpath.state == "failed":
            raise DaemonError(self.slowpath.error)

    async def _hand_over(self):
        """Give the connection to the fabric; everything in one go, so that nothing comes between."""
        app_seq, h, write = self.session.hand_over(), self.slowpath.hand_over(), self.registers.write
        for name, value in {"peer_mac": h.peer_mac, "init_snd_nxt": h.snd_nxt, "init_rcv_nxt": h.rcv_nxt,
                            "init_peer_window": h.peer_window, "init_app_seq": app_seq,
                            "init_peer_seq": self.session.next_in,
                            "last_processed": self.session.last_processed}.items():
            write(name, value)
        self._told_processed = self.session.last_processed
        write("session_enable", 1)
        self._handed_over = self._counting = True
        if not await self._read("session_up"):
            raise DaemonError("the card did not take over the connection")
        self._tell_positions(everything=True)
        self.references.begin(self.now_ns)
        for name, value in self.equity.begin().items():
            self.registers.write(name, value)
        self._journal("session", app_seq=app_seq)
        # Nothing leaves before it is armed: who needs these figures finds them there.
        self._frames_before = self._frame_counters(), self._frames_recorded

    # -- what is looked at --------------------------------------------------------------------------------------

    async def _watch(self):
        """Read every counter of the card into :attr:`watched`."""
        pending = {name: self.registers.read(name) for name in WATCHED}
        await self._until(lambda: all(p.done for p in pending.values()), "the card does not answer")
        self.watched = {name: p.value for name, p in pending.items()}

    async def latency(self):
        """The card's own measurement of trigger-to-quote, as :func:`host.latency.summary` has it.

        Read while the card works: a quote that leaves meanwhile may be in some of the numbers and not in others.
        """
        names = ("latency_min", "latency_max", "latency_count", "latency_sum")
        pending = [self.registers.read(name) for name in names]
        bins = [self.device.read(regmap.HISTOGRAM_BASE + n) for n in range(regmap.HISTOGRAM_BINS)]
        await self._until(lambda: all(p.done for p in (*pending, *bins)), "the card does not answer")
        return measured.summary(*(p.value for p in pending), [b.value for b in bins])

    def status(self):
        """Where everything stands, as plain data."""
        instruments = []
        for n, i in enumerate(self.config.instruments):
            position, open_bid, open_ask = self.positions.lots(n)
            d = self.last_decision.get(n)
            instruments.append({
                "name": i.name, "security_id": i.security_id, "position_lots": position, "open_bid_lots": open_bid,
                "open_ask_lots": open_ask,
                "best": [d.best_bid_ticks, d.best_ask_ticks] if d else None,
                "quote": list(self._told[n]) if n in self._told else None,
                "reasons": [g[0] for bit, g in regmap.GATES.items() if d and d.reasons >> bit & 1]})
        return {
            "phase": self.phase, "error": self.error or self.alarm, "state": regmap.STATES[self.state],
            "halt_cause": self._causes(),
            "session": self.session.state.value if self.session else "closed",
            "open_at_venue": self.open_at_venue, "verified": self.verified, "verifying": self.verifying,
            "limits_staged": bool(self.limits and self.limits.staged),
            "limits_hash": f"{self.limits.hash:08x}" if self.limits and self.limits.active else "",
            "epoch": f"{self.device.epoch:08x}",
            "handed_over": self._handed_over, "time_ns": self.now_ns, "map_hash": f"{regmap.MAP_HASH:08x}",
            "equity": {"now": params.plain(self.equity.value), "start": params.plain(self.config.risk.equity),
                       "greatest": params.plain(self.equity.greatest)},
            "decisions": dict(self.decisions), "reasons": dict(self.reasons), "events": dict(self.events),
            "answers": dict(self.answers), "fills": len(self.positions.fills), "link_errors": self.device.errors,
            "card": dict(self.watched), "instruments": instruments}

    # -- commands -----------------------------------------------------------------------------------------------

    async def arm(self, clear_halt=False):
        """DISARMED -> ACTIVE. ``clear_halt``: leave HALTED first. Raises :class:`DaemonError` if it cannot be."""
        if self.phase != "ready":
            raise DaemonError(f"cannot arm: the daemon is {self.phase}" + (f" ({self.error})" if self.error else ""))
        await self._verification()
        if self.alarm:
            raise DaemonError(f"cannot arm: {self.alarm}; t2q kill cancels and verifies again")
        if self.state == regmap.HALTED:
            if not clear_halt:
                raise DaemonError(f"cannot arm: halted by {', '.join(self._causes()) or 'unknown cause'}; find out "
                                  f"why, then arm with --clear-halt")
            integrity.say(self.registers, "clear_halt", await self._read("halt_nonce"), self.limits.hash)
            await self._until(lambda: self.state != regmap.HALTED, "the card stays halted (is the kill pin set?)")
            self._tell_positions(everything=True)
        if self.state == regmap.ACTIVE:
            return {"state": "ACTIVE"}
        refused = self.events["ARM_REFUSED"]
        self._journal("command", what="arm")
        integrity.say(self.registers, "arm", regmap.ARM_MAGIC, self.limits.hash)
        await self._until(lambda: self.state == regmap.ACTIVE or self.events["ARM_REFUSED"] != refused,
                          "the card does not arm")
        if self.state != regmap.ACTIVE:
            raise DaemonError(f"the card refused to arm in state {regmap.STATES[self.state]}; is its session up, and "
                              f"are its limits those of this daemon?")
        return {"state": "ACTIVE"}

    async def disarm(self):
        """-> DISARMED; returns when the card says so, nothing of ours is live in it, and the venue has been verified
        (:meth:`_verify`), unless that has just failed."""
        self._journal("command", what="disarm")
        self.registers.write("disarm", 1)
        await self._until(lambda: self.state in (regmap.DISARMED, regmap.HALTED), "the card does not disarm")
        await self._flat()
        if not self.verified and not self.alarm:
            self._verify()
        await self._verification()
        return {"state": regmap.STATES[self.state], **self._verdict()}

    async def reduce(self):
        """ACTIVE -> REDUCING: only what reduces a position is quoted."""
        if self.state != regmap.ACTIVE:
            raise DaemonError(f"cannot reduce: the card is {regmap.STATES[self.state]}, must be ACTIVE")
        self._journal("command", what="reduce")
        self.registers.write("reduce", 1)
        await self._until(lambda: self.state == regmap.REDUCING, "the card does not reduce")
        return {"state": "REDUCING"}

    async def kill(self):
        """-> HALTED, from any state; needs nothing to be in order. Returns when the venue has been verified, or not."""
        self._journal("command", what="kill")
        self.registers.write("kill", 1)
        await self._until(lambda: self.state == regmap.HALTED, "the card does not halt")
        if not self.verified:
            self._verify()
        await self._verification()
        return {"state": "HALTED", "halt_cause": self._causes(), **self._verdict()}

    async def reference(self, instrument, price, local=None, basis=0):
        """A reference price of an instrument (its name), as somebody has just seen it; ``local`` at the quoted venue,
        ``basis`` of the feed above that, all in the instrument's units."""
        n = self._instrument(instrument)
        if self.references.follows_feed:
            raise DaemonError('references follow the feed; set host.references = "external" to give them')
        self.references.tell(n, price, local, basis, self.now_ns)
        self._journal("reference", instrument=n, price=str(price), local=str(local), basis=str(basis))
        return {"instrument": instrument, "price": str(price)}

    async def release(self, instrument):
        """Let go of an instrument (its name) that a gate holds (G15, G17, G18, G20)."""
        n = self._instrument(instrument)
        self._journal("command", what="release", instrument=n)
        self.registers.write("release", n)
        return {"instrument": instrument, "released": True}

    def _instrument(self, name):
        try:
            return configuration.index_of(self.config, name)
        except configuration.ConfigError as error:
            raise DaemonError(str(error)) from None

    # -- limits -------------------------------------------------------------------------------------------------

    def _limits(self):
        if self.limits is None or self.limits.active is None:
            raise DaemonError(f"there are no limits yet: the daemon is {self.phase}")
        return self.limits

    async def limits_show(self):
        """Limits in force, as :meth:`host.limits.Limits.shown` has them."""
        return self._limits().shown()

    async def limits_diff(self):
        """What arming would change."""
        return {"staged": self._limits().staged is not None, "changes": self.limits.diff()}

    async def limits_load(self, config, arm=False):
        """Stage the limits of a configuration, or make them active at once."""
        self._limits().stage(config)
        changes = self.limits.diff()
        self._journal("command", what="limits load", source=str(config.source), changes=changes)
        return await self.limits_arm() if arm else {"staged": True, "changes": changes}

    async def limits_set(self, changes, instrument=None):
        """Stage single limits: ``changes`` as :meth:`host.limits.Limits.set` takes them."""
        stored = self._limits().set(changes, instrument)
        self._journal("command", what="limits set", stored=stored)
        return {"staged": True, "stored": stored}

    async def limits_discard(self):
        """Forget what is staged."""
        changes = self._limits().diff()
        self.limits.discard()
        self._journal("command", what="limits discard", changes=changes)
        return {"staged": False, "changes": changes}

    async def limits_arm(self):
        """Make active what is staged; returns what that changed."""
        staged = self._limits().need_staged()
        self._journal("command", what="limits arm", changes=self.limits.diff())
        changes = await self._load(staged)
        self.log.info("limits in force", hash=f"{self.limits.hash:08x}")
        self.config = self.config.model_copy(update={"instruments": staged.instruments, "risk": staged.risk})
        self.references.pace.live(staged.risk.reference_ms)
        self.equity.pace.live(staged.risk.equity_ms)
        return {"staged": False, "changes": changes}

    async def why(self, count=10, instrument=None):
        """The last ``count`` decisions that a gate stopped, as :func:`host.why.explain` has them, oldest first."""
        if not 1 <= count <= BLOCKED_KEPT:
            raise DaemonError(f"why {count}: must be 1..{BLOCKED_KEPT}, which are kept")
        if instrument is not None:
            self._instrument(instrument)
        chosen = [b for b in self.blocked if instrument in (None, b.instrument.name)]
        return {"kept": len(self.blocked), "drops": [why.explain(b) for b in chosen[-count:]]}

    # -- nothing open -------------------------------------------------------------------------------------------

    @property
    def open_at_venue(self):
        """Lots of ours in the venue's book by what it has answered; ``None`` while that is unknown: no session, an
        answer is outstanding, or records were lost."""
        if not self._handed_over or self.positions.unanswered or self._records_lost:
            return None
        return sum(sum(self.positions.lots(n)[1:]) for n in range(len(self.config.instruments)))

    @property
    def verifying(self):
        """A verification is under way, or the connection is being reset."""
        return self._verifying is not None or self._aborting is not None

    def _verdict(self):
        return {"open_at_venue": self.open_at_venue, "verified": self.verified}

    @property
    def _frames_recorded(self):
        return sum(self.decisions[outcome] for outcome in _FRAMES)

    def _frame_counters(self):
        return [self.registers.read(name) for name in _FRAME_COUNTERS]

    def _verify(self):
        """Begin to verify with the venue that nothing is open, unless that is under way."""
        if self._counting and self._verifying is None:
            self.verified, self.alarm = False, ""
            self._verifying = self.submit("verify", self._verify_at_venue())

    async def _verification(self):
        """Wait until none is under way."""
        while self.verifying:
            await _Pause()

    async def _verify_at_venue(self):
        """The fabric has sent a mass cancel if anything was live. If within ``host.verify_ms`` the answers do not show
        that nothing is open, cancel by ourselves, once; if they do not show it then, raise the alarm."""
        within_ns, what = int(self.config.host.verify_ms * MILLISECOND), ""
        try:
            for own_cancel in (False, True):
                try:
                    await self._shown_flat(own_cancel, self.now_ns + within_ns)
                except DaemonError as error:
                    what = str(error)
                    self.log.warning("not verified", why=what, own_cancel=own_cancel)
                    self._journal("not_verified", why=what, own_cancel=own_cancel)
                else:
                    self.verified = True
                    self._journal("verified", open_lots=0, own_cancel=own_cancel)
                    self.log.info("verified: nothing is open at the venue", own_cancel=own_cancel)
                    return
            self._raise_alarm(what)
        finally:
            self._verifying = None  # whatever happened: others wait for it

    async def _shown_flat(self, own_cancel, deadline_ns):
        """Return when the venue has shown that nothing is open, or raise :class:`DaemonError`."""
        def until(condition, what):
            return self._until(lambda: condition() or not self._handed_over, what, max(0, deadline_ns - self.now_ns))

        await until(lambda: self.state not in _TRADING, "the card does not stop")
        if own_cancel and self._handed_over:
            self._own_cancels, self._own_refused = self._own_cancels + 1, ""
            correlation_id = _OWN_CANCEL + self._own_cancels
            self._journal("own_mass_cancel", id=correlation_id)
            self.positions.own_cancel(correlation_id)
            self.session.send("MassQuoteCancelRequest", {
                "correlationId": correlation_id, "mmpGroupId": self.config.session.mmp_group, "side": _BOTH_SIDES},
                self.now_ns)
            await until(lambda: self.positions.answered(correlation_id), "no answer to our own mass cancel")
            if self._own_refused:
                raise DaemonError(f"the venue refused our own mass cancel: {self._own_refused}")
            self._records_lost = False  # whatever they were of had left before our cancel
        elif self._records_lost:
            raise DaemonError("telemetry records were lost")
        elif self._handed_over:
            # A quote that left in the last cycles may have no record yet: the card has counted it.
            now, (before, recorded) = self._frame_counters(), self._frames_before
            await until(lambda: all(p.done for p in (*now, *before)), "the card does not answer")
            left = sum(p.value for p in now) - sum(p.value for p in before)
            await until(lambda: self._frames_recorded - recorded >= left, "not every frame of the card has its record")
        await until(lambda: self.open_at_venue == 0, "no answer that shows it")
        if not self._handed_over:
            raise DaemonError("the session has ended")

    def _raise_alarm(self, what):
        lots = [sum(self.positions.lots(n)[1:]) for n in range(len(self.config.instruments))]
        named = ", ".join(f"{i.name} {n}" for i, n in zip(self.config.instruments, lots, strict=True) if n)
        self.alarm = (f"not verified that nothing is open at the venue ({what}); " +
                      (f"lots that may be open: {named}" if named else "what may be open is unknown") +
                      "; look at the venue")
        self._journal("alarm", why=self.alarm, open_lots=sum(lots))
        self.log.critical("ALARM", why=self.alarm)

    async def _flat(self):
        async def nothing_live():
            return not await self._read("live_bids") and not await self._read("live_asks")
        deadline = self.now_ns + READ_TIMEOUT_NS
        while not await nothing_live():
            if self.now_ns >= deadline:
                raise DaemonError("the card still has live quotes; use t2q kill, and look at the venue")
            await _Pause()

    async def shutdown(self):
        """Disarm, verify, log out, take the connection back and close it. The last resort is the dead-man."""
        self._stopping = True
        ready = self.phase == "ready"
        try:
            if self._beat_ns is not None:
                await self.disarm()
            if ready and self._handed_over:
                if not self.alarm:  # else the end of the session may cancel what our cancels have not
                    await self._until(lambda: not self.positions.unanswered, "the venue has not answered every cancel")
                self.session.logout(self.now_ns)
                await self._until(lambda: self.session.state is State.ENDED, "no answer to the logout")
                self.registers.write("session_enable", 0)
                self._handed_over = False
                self.slowpath.take_back(await self._read("snd_nxt"), await self._read("rcv_nxt"), self.now_ns)
                await self._until(lambda: self.slowpath.state in ("closed", "failed"), "the connection does not close")
        except (DaemonError, SessionError, SlowPathError) as error:
            self.log.error("shutdown", why=str(error))
            self._journal("trouble", why=str(error))
        if self.phase != "failed":
            self.phase = "stopped"
        self._beat_ns = self._watch_ns = None  # the dead-man does the rest if anything is left
        self._journal("stopped")
        return {"phase": self.phase}


def wall_clock():
    """A function that gives nanoseconds since the epoch and never runs backwards."""
    base = time.time_ns() - time.monotonic_ns()
    return lambda: base + time.monotonic_ns()


async def run(daemon, *, control=None, arm=False, clock=None):
    """Run a daemon in real time until it has stopped. Returns its exit code: 0 stopped in order and verified,
    :data:`FENCED` locked out, 1 otherwise.

    SIGINT and SIGTERM disarm, verify and stop; SIGUSR1 kills. ``control``: coroutine function that serves the control
    socket, given the daemon and a function that wakes the loop. ``arm``: arm as soon as the session is up.
    """
    loop, wake, clock = asyncio.get_running_loop(), asyncio.Event(), clock or wall_clock()

    def stop():
        if not daemon._stopping:
            daemon.log.info("stopping")
            daemon.submit("shutdown", daemon.shutdown())
            wake.set()

    def kill():
        daemon.submit("kill", daemon.kill())
        wake.set()

    for signum, action in ((signal.SIGINT, stop), (signal.SIGTERM, stop), (signal.SIGUSR1, kill)):
        loop.add_signal_handler(signum, action)
    server = asyncio.ensure_future(control(daemon, wake.set)) if control else None
    try:
        while daemon.phase not in ("stopped", "failed") or (daemon.verifying and not daemon.fenced):
            daemon.pump(clock())
            if arm and daemon.phase == "ready":
                arm = False
                daemon.submit("arm", daemon.arm())
            if server and server.done():
                await server
            wait_s = max(0.0, (daemon.next_deadline_ns() - clock()) / SECOND)
            await daemon.device.readable(wake, min(wait_s, 0.002) if daemon.device.unsent else wait_s)
        deadline = time.monotonic() + 1
        while daemon.device.flush() and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
    except DeviceError as error:
        daemon._trouble(str(error))
    finally:
        if server:
            server.cancel()
        for task in daemon._tasks:
            task.cancel()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            loop.remove_signal_handler(signum)
    if daemon.fenced:
        return FENCED
    return 0 if daemon.phase == "stopped" and not daemon.alarm else 1

"""What the session sends again, and when: list of the segments, timer and recovery, cycle by cycle.

In most cycles nothing happens here but that a timer runs: those are passed over.
"""

from collections import deque

from hdl.order import retransmit, ring
from hdl.order.retransmit import ANSWER_CYCLES, TICK_CYCLES

__all__ = ["NEVER", "Resending"]

#: Registers with which nothing is sent again in any run: time-outs far beyond its end.
NEVER = {"rto_first": 1 << 24, "rto_min": 1 << 24, "rto_max": 1 << 25, "rto_most": 31}

_MASK = 0xFFFF_FFFF
_TIMES = (1 << retransmit.TIME_BITS) - 1
_SETTLED = 2 * ring.ROUND   # cycles after which nothing moves on by itself, but for what is looked at below


def _ahead(a, b):
    distance = (a - b) & _MASK
    return distance - (1 << 32) if distance >> 31 else distance


def _end(segment):
    seq, payload = segment
    return (seq + len(payload)) & _MASK


class Resending:
    """Ring, timer and recovery of one session. Attributes are as they stand in cycle ``now``.

    Parameters
    ----------
    quote_size : bytes of a quote.

    Attributes
    ----------
    wants : the segment ``shown`` may start. probes : a probe of the window may.
    oldest : number of the first byte that is kept.
    rto, una, nxt, window, up : as the registers of these names.
    """

    def __init__(self, quote_size):
        self._quote_size = quote_size
        self.now = 0
        self.up = False
        self.una = self.nxt = self.oldest = self.window = self.rto = 0
        self._una_before, self._roomy = 0, False
        self._bounds, self._most = (0, 0), 0
        self._to_come = {}          # cycle -> what happens in it
        self.quiet_from = 0        # from then on nothing moves on by itself, but what is looked at
        # The list: segments (number, payload), of which those before the head are gone.
        self._list, self._head, self._cursor, self._cursor_seq = [], 0, 0, 0
        self.valid = self._disturbed = self._some = self._kept = self._pops = False
        # The timer.
        self.unacknowledged = self.starved = self._restarts = self.probes = self._exhausted = False
        self._ran, self._advanced = [False, False], deque([False] * (ANSWER_CYCLES + 1))
        self._current = self._left = self._attempts = 0
        # Recovery.
        self.recovering = self._after_timeout = self.wants = self._below = False
        self._goal = self._goal_before = self._budget = self._duplicates = 0
        # The estimate, in eighths and quarters; of the steps to it a sample, two strobes and that it is there.
        self._known = self._timed = self._sent = False
        self._smooth = self._spread = self._elapsed = self._end = self._end_before = 0
        self._steps = (None, False, False, False)

    # ------------------------------------------------------------------ what happens

    def at(self, cycle, **what):
        """What happens in a cycle that has not been passed.

        ``sent``, ``advanced``, ``duplicate``, ``heard``, ``started``, ``probed``: strobes. ``una``, ``nxt``,
        ``window``, ``up``: stand from then on. ``entry``: a segment (number, payload), listed from then on. ``begin``:
        a connection begins, with the first number and ``rto_first``, ``rto_min``, ``rto_max``, ``rto_most``.
        """
        self._to_come.setdefault(cycle, []).append(what)
        self.quiet_from = max(self.quiet_from, cycle + _SETTLED)

    def forget(self, cycle):
        """What is under way in ``cycle`` is nothing of what comes."""
        self.run_to(cycle)
        self._to_come = {at: what for at, what in self._to_come.items() if at <= cycle}

    @property
    def shown(self):
        """(number, payload) of the segment at the cursor."""
        return self._list[self._cursor]

    # ------------------------------------------------------------------ time

    def run_to(self, cycle):
        """Up to and not including ``cycle``."""
        while self.now < cycle:
            target = min([cycle, *self._to_come])
            if self.now >= self.quiet_from and not self._busy():
                out = self.expires()
                target = target if out is None else min(target, out)
                if target > self.now:
                    self._skip(target)
                    continue
            self._cycle()

    def _busy(self):
        """Something happens here by itself."""
        return self._restarts or any(self._advanced) or self.resends() or self.frees()

    def resends(self):
        """A segment will be wanted, if it is not yet."""
        return (self.recovering and self._budget > 0 and self._cursor < len(self._list)
                and _ahead(self._cursor_seq, self._goal) < 0)

    def frees(self):
        """The oldest segment is acknowledged, and will be let go."""
        return self._head < len(self._list) and _ahead(_end(self._list[self._head]), self.una) <= 0

    def expires(self):
        """The cycle in which the timer runs out if nothing happens before, ``None`` if it does not run."""
        if not (self.unacknowledged or self.starved):
            return None
        return self.now + (TICK_CYCLES - 1 - self.now) % TICK_CYCLES + self._left * TICK_CYCLES

    def gives_up(self):
        """In this cycle the timer runs out once too often."""
        return self._out() and self._exhausted

    def _out(self):
        return (self.now % TICK_CYCLES == TICK_CYCLES - 1 and (self.unacknowledged or self.starved)
                and all(self._ran) and self._left == 0)

    def _skip(self, cycle):
        ticks = (cycle // TICK_CYCLES) - (self.now // TICK_CYCLES)
        self._left = max(0, self._left - ticks)
        self._elapsed = min(_TIMES, self._elapsed + ticks)
        self.now = cycle

    def _cycle(self):
        c = self.now
        strobes = {}
        began = None
        for change in self._to_come.pop(c, ()):
            for name, value in change.items():
                if name == "entry":
                    self._list.append(value)
                elif name in ("una", "nxt", "window", "up"):
                    setattr(self, name, value)
                elif name == "begin":
                    began, self.rto, *self._bounds, self._most = value
                    self._known, self._smooth, self._spread = False, 0, 0
                else:
                    strobes[name] = True
        get = strobes.get
        up = self.up
        self._advanced[0] = bool(get("advanced"))
        tick = c % TICK_CYCLES == TICK_CYCLES - 1
        runs = self.unacknowledged or self.starved
        out = self._out()
        expired = out and self.unacknowledged
        third = (bool(get("duplicate")) and self._duplicates == retransmit.DUPLICATES - 1 and not self.recovering
                 and self.unacknowledged)
        begins = expired or third
        started = bool(get("started"))
        takes = (self._advanced[2] and self._timed and _ahead(self._end_before, self._una_before) <= 0
                 and not (begins or started))
        unsettled = begins or started or any(list(self._advanced)[:3]) or not up

        # ---------------------------------------------------------------- the list
        turn = c % ring.ROUND
        strobe = began is not None or begins or started or bool(get("advanced"))
        pops = self._pops
        next_pops = False
        next_valid, next_disturbed = self.valid, self._disturbed
        next_some, next_kept = self._some, self._kept
        if turn == ring.HEAD_AT:
            next_some, next_disturbed = self._head < len(self._list), False
        if turn == ring.POP_AT - 1:
            covered = self._head < len(self._list) and _ahead(_end(self._list[self._head]), self._una_before) <= 0
            next_pops, next_kept = self._some and covered and not self._disturbed and began is None, not covered
        if turn == ring.CURSOR_AT:
            next_some = self._cursor < len(self._list)
        if turn == ring.SHOW_AT and not self._disturbed:
            next_valid = self._some and self._kept
        passed = pops and self._cursor == self._head
        if strobe or passed:
            next_valid = False
        if strobe:
            next_disturbed = True
        cursor, cursor_seq = self._cursor, self._cursor_seq
        if begins:
            cursor, cursor_seq = self._head, self.oldest
        elif started and self.valid:
            cursor, cursor_seq = cursor + 1, (cursor_seq + len(self._list[cursor][1])) & _MASK
        head, oldest = self._head, self.oldest
        if pops:
            oldest = _end(self._list[head])
            if begins or self._cursor == head:
                cursor, cursor_seq = head + 1, oldest
            head += 1
        if began is not None:
            self._list.clear()
            head = cursor = 0
            oldest = cursor_seq = began
        below = self.valid and not unsettled and _ahead(self._cursor_seq, self._goal) < 0
        wants = self._below and self.valid and self.recovering and self._budget > 0 and not unsettled

        # ---------------------------------------------------------------- timer and estimate
        restarts = self._advanced[ANSWER_CYCLES] or out or (runs and not self._ran[0])
        if self._restarts:
            left = self._current
        else:
            left = self._left - (tick and self._left != 0)
        sample, estimated, whole, measured = self._steps
        current = self._current
        if not up or measured:
            current = self.rto
        elif out:
            current = min(self._bounds[1], 2 * current if current else 2)
            self.quiet_from = c + _SETTLED
        if sample is not None:
            srtt = self._smooth >> 3
            if self._known:
                self._spread += abs(sample - srtt) - (self._spread >> 2)
                self._smooth += sample - srtt
            else:
                self._smooth, self._spread = sample << 3, sample << 1
            self._known = True
        if whole:
            least, greatest = self._bounds
            time_out = (self._smooth >> 3) + max(1, self._spread)
            self.rto = least if time_out < least else min(time_out, greatest)
        self._steps = self._elapsed if takes else None, sample is not None, estimated, whole
        self._end_before = self._end
        if not up or begins or started or takes:
            self._timed = False
        elif self._sent and not self._timed and not self.recovering:
            self._timed, self._end, self._elapsed = True, self.nxt, 0
        elif tick:
            self._elapsed = min(_TIMES, self._elapsed + 1)

        # ---------------------------------------------------------------- recovery
        exhausted = self._attempts >= self._most
        attempts = self._attempts
        if not up or get("advanced") or (get("heard") and self.starved):
            attempts = 0
        elif out:
            attempts += 1
        probes = self.probes
        if not self.starved or get("probed"):
            probes = False
        elif out and not self.unacknowledged and not self._exhausted:
            probes = True
        duplicates = self._duplicates
        if get("advanced") or not self.unacknowledged:
            duplicates = 0
        elif get("duplicate") and duplicates < retransmit.DUPLICATES:
            duplicates += 1
        goal_before, self._goal_before = self._goal_before, self._goal
        if not up:
            self.recovering, self._budget = False, 0
        elif begins:
            self.recovering, self._budget, self._goal, self._after_timeout = True, 1, self.nxt, expired
        elif self._advanced[2] and self.recovering:
            if _ahead(goal_before, self._una_before) <= 0:
                self.recovering, self._budget = False, 0
            elif self._after_timeout:
                self._budget = min(retransmit.BUDGET, self._budget + 2)
            else:
                self._budget = 1
        elif started and self._budget:
            self._budget -= 1

        # ---------------------------------------------------------------- the clock edge
        self._una_before = self.una
        self.unacknowledged = self.una != self.nxt and up
        self.starved, self._roomy = not self._roomy and up, self.window >= self._quote_size
        self._ran = [runs, self._ran[0]]
        self._restarts = restarts
        self._advanced.appendleft(False)
        self._advanced.pop()
        self._left, self._current = left, current
        self._exhausted, self._attempts, self.probes, self._duplicates = exhausted, attempts, probes, duplicates
        self._sent = bool(get("sent"))
        self.valid, self._disturbed, self._some, self._kept, self._pops = (
            next_valid, next_disturbed, next_some, next_kept, next_pops)
        self._head, self.oldest, self._cursor, self._cursor_seq = head, oldest, cursor, cursor_seq
        self._below, self.wants = below, wants
        self.now = c + 1

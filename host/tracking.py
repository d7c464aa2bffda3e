"""Which fills belong to a quote that the card has told of; one that belongs to none is somebody else's, or a record of
ours is missing: positions are not what they seem."""

_SECOND = 1_000_000_000
#: Quotes that are remembered of each instrument. What is older has been replaced as often, and counts as known.
KEPT = 4096


class Tracking:
    """Quote ids by instrument, and the fills that wait for theirs.

    A fill may come before the record of its quote. Records come in the order of their ids: the first one with a later
    id says that there is none for it. If no record comes at all, it is over after ``wait_ns``.

    Parameters
    ----------
    names : of the instruments, by index. wait_ns : how long a fill waits for a record.
    """

    def __init__(self, names, wait_ns=_SECOND):
        self._names, self._wait_ns = names, wait_ns
        self._ids = [{} for _ in names]
        self._first, self._newest = None, -1
        self._waiting = []      # (quote id, instrument, match id, when it came)

    def sent(self, quote_id, instrument=None):
        """A record: this quote of an instrument has left, or a mass cancel of all of them under this id."""
        self._newest = max(self._newest, quote_id)
        if self._first is None:
            self._first = quote_id
        if instrument is not None:
            ids = self._ids[instrument]
            ids[quote_id] = True
            if len(ids) > KEPT:
                del ids[next(iter(ids))]

    def _known(self, quote_id, instrument):
        ids = self._ids[instrument]
        return quote_id in ids or (len(ids) == KEPT and self._first <= quote_id < next(iter(ids)))

    def filled(self, quote_id, instrument, match_id, now_ns):
        """The venue reports a fill of an order that stands under this id."""
        if not self._known(quote_id, instrument):
            self._waiting.append((quote_id, instrument, match_id, now_ns))

    def lost(self, now_ns):
        """Words about the first fill that belongs to nothing, ``""`` if there is none."""
        still, text = [], ""
        for quote_id, instrument, match_id, since_ns in self._waiting:
            if self._known(quote_id, instrument):
                continue
            if quote_id <= self._newest or now_ns - since_ns >= self._wait_ns:
                text = text or (f"the venue reports fill {match_id} of {self._names[instrument]} under the quote id "
                                f"{quote_id}, which the card has not sent for it")
            else:
                still.append((quote_id, instrument, match_id, since_ns))
        self._waiting = still
        return text

    def next_deadline_ns(self):
        """When :meth:`lost` should be asked next, ``None`` if nothing waits."""
        return min(since_ns for *_, since_ns in self._waiting) + self._wait_ns if self._waiting else None

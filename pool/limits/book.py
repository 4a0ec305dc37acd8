"""What one worker knows of daily use: what the record said last, and what is not yet there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pool.limits.charges import NOTHING, Charge

KeyDay = tuple[int, int]
"""A client key's id and a day's number."""


class Recorded(NamedTuple):
    """A row of the record. A reset makes a new row, so a higher ``row`` tells of a reset."""

    key_id: int
    day: int
    row: int
    used: Charge


class UsageBook:
    """For the event loop's thread only. Never holds more than keys times two days.

    ``fresh`` are the keys whose use is known better here than in a limiter's table.
    """

    def __init__(self) -> None:
        self.fresh: set[int] = set()
        self._recorded: dict[KeyDay, Recorded] = {}
        self._pending: dict[KeyDay, Charge] = {}
        self._listener: Callable[[], None] = _nobody
        self._today = 0

    @property
    def backlog(self) -> int:
        """How many keys have use that waits to be written."""
        return len(self._pending)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever there is something to write."""
        self._listener = listener

    def note(self, key_id: int, day: int, used: Charge) -> None:
        """Count a use that is to be written."""
        if used == NOTHING:
            return
        self._add((key_id, day), used)
        self._listener()

    def _add(self, where: KeyDay, used: Charge) -> None:
        known = self._pending.get(where)
        self._pending[where] = used if known is None else plus(known, used)

    def known(self, key_id: int, day: int) -> Recorded:
        """The use of one day as far as this worker knows it; ``row`` 0 without a row."""
        where = key_id, day
        recorded = self._recorded.get(where)
        pending = self._pending.get(where)
        if recorded is None:
            return Recorded(key_id, day, 0, pending or NOTHING)
        if pending is None:
            return recorded
        return recorded._replace(used=plus(recorded.used, pending))

    def learn(self, today: int, rows: Iterable[Recorded]) -> None:
        """Take over what the record says now; forgets what is older than yesterday."""
        for row in rows:
            where = row.key_id, row.day
            if self._recorded.get(where) != row:
                self._recorded[where] = row
                self.fresh.add(row.key_id)
        if today != self._today:
            self._today = today
            for where in [where for where in self._recorded if where[1] < today - 1]:
                del self._recorded[where]

    def take(self) -> dict[KeyDay, Charge]:
        """Hand over everything that waits to be written."""
        taken, self._pending = self._pending, {}
        return taken

    def put_back(self, taken: Mapping[KeyDay, Charge]) -> None:
        """Keep for the next time what could not be written."""
        for where, used in taken.items():
            self._add(where, used)


def plus(one: Charge, other: Charge) -> Charge:
    return Charge(one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def _nobody() -> None:
    """Nobody listens."""

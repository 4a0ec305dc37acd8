"""Client-key limits in this host's memory: of one worker, or of all through a file."""

from __future__ import annotations

import time
from collections.abc import Callable

from pool.keys import KeyLimits, KeyRecord
from pool.limits.book import UsageBook
from pool.limits.charges import BUCKETS, NOTHING, Charge
from pool.limits.day import Days
from pool.limits.limiter import WHEN_BUSY, Bucket, LimitExceeded, Ticket
from pool.limits.table import (
    DAY,
    DAY_WORDS,
    DAYS,
    KINDS,
    RESERVED,
    ROW,
    RUNNING,
    SLOT_WORDS,
    SLOTS,
    USED,
    KeyTable,
)  # fmt: skip
from pool.limits.window import (
    count_request,
    recount_window,
    requests_in_window,
    wait_for_room,
)

_WHEN_FULL = 60.0


class LocalLimiter:
    """A KeyLimiter whose coroutines never wait, so each is atomic on the event loop.

    ``clock`` gives seconds that never go back, the same in all processes of the host.
    Once ``table`` is full, further limited keys are refused: better that than to serve
    them without their limits.
    """

    def __init__(
        self,
        table: KeyTable,
        days: Days,
        book: UsageBook,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._days = days
        self._book = book
        self._clock = clock

    @property
    def turned_away(self) -> int:
        """Requests refused because the table was full."""
        return self._table.turned_away

    async def reserve(self, key: KeyRecord, charge: Charge) -> Ticket:
        return self.take(key, charge, self._days.today())

    async def settle(self, ticket: Ticket, charge: Charge | None = None) -> None:
        used = ticket.settle(charge)
        if ticket.key_id:
            self.use(ticket, used)
            self._book.note(ticket.key_id, ticket.day, used)
            if not ticket.limited:
                self._book.fresh.add(ticket.key_id)

    async def release(self, ticket: Ticket) -> None:
        self.end(ticket)

    def take(self, key: KeyRecord, charge: Charge, day: int, *, checked: bool = False) -> Ticket:
        """As ``reserve``; ``checked`` when somebody else has already said yes."""
        if key.limits.is_unlimited or not key.id:
            return Ticket(key.id, day, charge, limited=False)
        place = self._table.place_of(key.id)
        if place < 0:
            raise LimitExceeded("concurrent_requests", 0, _WHEN_FULL)
        self._table.enter(place)
        try:
            cell = self._cell(place, day, key.id)
            now = self._clock()
            if not checked:
                self._check(place, cell, key.limits, charge, now)
            if key.limits.rpm >= 0:
                if checked:
                    requests_in_window(self._table, place, now)
                count_request(self._table, place)
            self._hold(place, day, 1, charge, 1)
        finally:
            self._table.leave(place)
        return Ticket(key.id, day, charge, limited=True, awaited=key.limits.concurrency >= 0)

    def use(self, ticket: Ticket, used: Charge) -> None:
        """Turn a reservation into use; what is left of it is given back."""
        if not ticket.limited:
            return
        place = self._table.place_of(ticket.key_id)
        self._table.enter(place)
        try:
            cell = _cell_at(place, ticket.day)
            if self._table.words[cell + DAY] == ticket.day:
                for kind in range(KINDS):
                    self._table.words[cell + USED + kind] += used[kind]
            self._hold(place, ticket.day, 0, ticket.charge, -1)
        finally:
            self._table.leave(place)

    def end(self, ticket: Ticket) -> bool:
        """As ``release``; False when it was ended before."""
        if ticket.ended:
            return False
        ticket.ended = True
        if ticket.limited:
            place = self._table.place_of(ticket.key_id)
            self._table.enter(place)
            try:
                refund = ticket.charge if ticket.settled is None else NOTHING
                self._hold(place, ticket.day, -1, refund, -1)
            finally:
                self._table.leave(place)
        return True

    def adopt(self, key_id: int, day: int, used: Charge) -> None:
        """Take ``used`` as what has gone of a day, whatever was known before."""
        place = self._table.place_of(key_id)
        if place >= 0:
            self._table.enter(place)
            try:
                self._put(self._cell(place, day, key_id) + USED, used)
            finally:
                self._table.leave(place)

    def held(self, key_id: int, day: int) -> tuple[int, Charge]:
        """The running requests and the reserved units of this worker."""
        place = self._table.place_of(key_id)
        if place < 0:
            return 0, NOTHING
        own = place + self._table.slot
        at = own + 1 + (day & 1) * KINDS
        reserved = self._table.words[at : at + KINDS].tolist()
        is_current = self._table.words[_cell_at(place, day) + DAY] == day
        return self._table.words[own], Charge(*reserved) if is_current else NOTHING

    def numbers(self, key_id: int, day: int) -> tuple[int, Charge | None, Charge]:
        """Running requests, used and reserved units of all who share the table; used None
        when nothing of that day was asked for yet."""
        place = self._table.place_of(key_id)
        if place < 0:
            return 0, None, NOTHING
        words, cell = self._table.words, _cell_at(place, day)
        if words[cell + DAY] != day:
            return words[place + RUNNING], None, NOTHING
        used = words[cell + USED : cell + USED + KINDS].tolist()
        reserved = words[cell + RESERVED : cell + RESERVED + KINDS].tolist()
        return words[place + RUNNING], Charge(*used), Charge(*reserved)

    def _check(self, place: int, cell: int, limits: KeyLimits, charge: Charge, now: float) -> None:
        """Raises LimitExceeded. A refusal is not final before the dead have been left out."""
        refusal = self._refusal(place, cell, limits, charge, now)
        if refusal is None:
            return
        self._table.recount(place)
        recount_window(self._table, place)
        refusal = self._refusal(place, cell, limits, charge, now)
        if refusal is not None:
            bucket, limit = refusal
            raise LimitExceeded(bucket, limit, self._wait(place, bucket, limit, now))

    def _refusal(
        self, place: int, cell: int, limits: KeyLimits, charge: Charge, now: float
    ) -> tuple[Bucket, int] | None:
        words = self._table.words
        if 0 <= limits.concurrency <= words[place + RUNNING]:
            return "concurrent_requests", limits.concurrency
        if limits.rpm >= 0 and requests_in_window(self._table, place, now) >= limits.rpm:
            return "requests_per_minute", limits.rpm
        for kind, limit in enumerate(limits.daily):
            if limit >= 0 and charge[kind]:
                gone = words[cell + USED + kind] + words[cell + RESERVED + kind]
                if gone + charge[kind] > limit:
                    return BUCKETS[kind], limit
        return None

    def _wait(self, place: int, bucket: Bucket, limit: int, now: float) -> float:
        if bucket == "concurrent_requests":
            return WHEN_BUSY
        if bucket == "requests_per_minute":
            return wait_for_room(self._table, place, limit, now)
        return self._days.seconds_left()

    def _hold(self, place: int, day: int, requests: int, charge: Charge, sign: int) -> None:
        """Change what runs and what is reserved, here and in this worker's slot."""
        words = self._table.words
        own = place + self._table.slot
        words[own] += requests
        words[place + RUNNING] += requests
        cell = _cell_at(place, day)
        if charge == NOTHING or words[cell + DAY] != day:
            return
        mine = own + 1 + (day & 1) * KINDS
        for kind in range(KINDS):
            if charge[kind]:
                words[mine + kind] += sign * charge[kind]
                words[cell + RESERVED + kind] += sign * charge[kind]

    def _cell(self, place: int, day: int, key_id: int) -> int:
        """The place of a day's numbers, which are brought up to what the record says."""
        words, cell = self._table.words, _cell_at(place, day)
        if words[cell + DAY] != day:
            self._begin_day(place, cell, day, key_id)
        elif key_id in self._book.fresh:
            self._catch_up(cell, day, key_id)
        self._book.fresh.discard(key_id)
        return cell

    def _begin_day(self, place: int, cell: int, day: int, key_id: int) -> None:
        known = self._book.known(key_id, day)
        words = self._table.words
        words[cell + DAY] = 0
        self._put(cell + USED, known.used)
        self._put(cell + RESERVED, NOTHING)
        for number in range(self._table.slots):
            at = place + SLOTS + number * SLOT_WORDS + 1 + (day & 1) * KINDS
            self._put(at, NOTHING)
        words[cell + ROW] = known.row
        words[cell + DAY] = day

    def _catch_up(self, cell: int, day: int, key_id: int) -> None:
        """The record knows more (another host's use) or was reset (it has a newer row)."""
        known = self._book.known(key_id, day)
        words = self._table.words
        row = words[cell + ROW]
        if known.row < row:
            return
        words[cell + ROW] = known.row
        is_reset = 0 < row < known.row
        for kind in range(KINDS):
            if is_reset or words[cell + USED + kind] < known.used[kind]:
                words[cell + USED + kind] = known.used[kind]

    def _put(self, at: int, charge: Charge) -> None:
        for kind in range(KINDS):
            self._table.words[at + kind] = charge[kind]


def _cell_at(place: int, day: int) -> int:
    return place + DAYS + (day & 1) * DAY_WORDS

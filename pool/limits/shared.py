"""Client-key limits in Redis, for any number of workers and hosts.

Each worker also counts its own part in memory. That is what it sends, whole, with every
call (see script.py), and what it goes on by, together with the last known use of all,
while Redis is away. Until Redis is back, limits per minute and at the same time hold for
each worker alone, and daily ones by what all had used when it went.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pool.keys import NO_LIMITS, KeyLimits, KeyRecord
from pool.limits.book import KeyDay, UsageBook, plus
from pool.limits.charges import BUCKETS, NOTHING, Charge
from pool.limits.day import Days
from pool.limits.limiter import WHEN_BUSY, LimitExceeded, Ticket
from pool.limits.local import LocalLimiter
from pool.limits.script import LIMITS
from pool.limits.table import SECONDS, KeyTable
from pool.shared.store import DEAD_AFTER, Beat, SharedStore, StoreAway

KEPT = 2 * 86_400
"""Seconds for which Redis keeps a day's numbers after their last change."""
_NOT_YET = 1e18
_ADMITTED, _OVERTAKEN, _RPM, _CONCURRENCY = 1, 0, -5, -6


@dataclass(slots=True)
class _Share:
    """This worker's part in one day of one key.

    ``used`` is all that it used. ``begun`` is when it first used or heard of the day's
    numbers in Redis; ``total`` is the use of all when it last heard, ``then`` its own.
    """

    used: Charge = NOTHING
    begun: float = _NOT_YET
    is_shared: bool = False
    total: Charge = NOTHING
    then: Charge = NOTHING

    @property
    def seen(self) -> Charge:
        """The use of all, as far as this worker has seen it."""
        return Charge(*map(_later, self.total, self.used, self.then))


@dataclass(slots=True)
class _Account:
    """One key. Its calls wait for one another, or the numbers they send would mix.

    ``missed`` are the times of the requests of the last minute that Redis does not know.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shares: dict[int, _Share] = field(default_factory=dict)
    missed: list[float] = field(default_factory=list)


class RedisLimiter:
    """A KeyLimiter. ``store`` must have beaten once before the first request.

    ``wall`` gives Unix time. ``redis_time`` stands in for Redis' own clock where it gives
    more than "".
    """

    def __init__(
        self,
        store: SharedStore,
        days: Days,
        book: UsageBook,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        redis_time: Callable[[], float | str] = lambda: "",
    ) -> None:
        self._store = store
        self._days = days
        self._book = book
        self._local = LocalLimiter(KeyTable.anonymous(), days, book, clock=clock)
        self._clock = clock
        self._wall = wall
        self._redis_time = redis_time
        self._accounts: dict[int, _Account] = {}
        self._unsent: set[KeyDay] = set()
        self._numbers = count(1)
        self._day = 0
        self._beaten = clock()
        store.listen(self._on_beat)

    @property
    def turned_away(self) -> int:
        """Requests refused because this worker's table was full."""
        return self._local.turned_away

    @property
    def unsent(self) -> int:
        """Keys whose numbers Redis does not have yet, by day."""
        return len(self._unsent)

    async def reserve(self, key: KeyRecord, charge: Charge) -> Ticket:
        day = self._today()
        if key.limits.is_unlimited or not key.id:
            return self._local.take(key, charge, day)
        account = self._account(key.id)
        async with account.lock:
            try:
                reply = await self._call(key.id, day, charge, key.limits)
            except StoreAway:
                reply = [_OVERTAKEN]
            if reply[0] == _ADMITTED:
                return self._admitted(key, charge, day)
            if reply[0] != _OVERTAKEN:
                raise self._exceeded(reply, key.limits)
            ticket = self._local.take(key, charge, day)
            if key.limits.rpm >= 0:
                self._miss(account)
            return ticket

    def _admitted(self, key: KeyRecord, charge: Charge, day: int) -> Ticket:
        try:
            return self._local.take(key, charge, day, checked=True)
        except LimitExceeded:
            self._unsent.add((key.id, day))
            raise

    async def settle(self, ticket: Ticket, charge: Charge | None = None) -> None:
        used = ticket.settle(charge)
        if not ticket.key_id:
            return
        self._local.use(ticket, used)
        self._book.note(ticket.key_id, ticket.day, used)
        if ticket.day < self._day - 1:
            return
        share = self._share(ticket.key_id, ticket.day)
        share.used = plus(share.used, used)
        share.begun = min(share.begun, self._wall())
        if ticket.limited or share.is_shared:
            self._unsent.add((ticket.key_id, ticket.day))
        if ticket.limited and used != ticket.charge:
            await self._tell(ticket.key_id, ticket.day)

    async def release(self, ticket: Ticket) -> None:
        """What is not sent, for whatever reason, is sent with the next call or beat.

        Only a place or units that others may have now are worth a call of their own.
        """
        if not self._local.end(ticket) or not ticket.limited:
            return
        today = self._today()
        day = ticket.day if ticket.day >= today - 1 else today
        self._unsent.add((ticket.key_id, day))
        if ticket.awaited or ticket.settled is None:
            await self._tell(ticket.key_id, day)

    async def _tell(self, key_id: int, day: int) -> None:
        """Let others have at once what is given back, if Redis is there."""
        try:
            await self._send(key_id, day)
        except StoreAway:
            return

    def _today(self) -> int:
        """Also forgets what is older than yesterday."""
        day = self._days.today()
        if day > self._day:
            self._day = day
            for account in self._accounts.values():
                account.shares = {d: s for d, s in account.shares.items() if d >= day - 1}
            # Which requests run belongs to no day, and is still to be told.
            self._unsent = {(key_id, d if d >= day - 1 else day) for key_id, d in self._unsent}
        return day

    def _account(self, key_id: int) -> _Account:
        account = self._accounts.get(key_id)
        if account is None:
            account = self._accounts[key_id] = _Account()
        return account

    def _share(self, key_id: int, day: int) -> _Share:
        shares = self._account(key_id).shares
        share = shares.get(day)
        if share is None:
            share = shares[day] = _Share()
        return share

    def _miss(self, account: _Account) -> None:
        now = self._clock()
        account.missed = [moment for moment in account.missed if now - moment < SECONDS]
        account.missed.append(now)

    def _exceeded(self, reply: list[Any], limits: KeyLimits) -> LimitExceeded:
        if reply[0] == _CONCURRENCY:
            return LimitExceeded("concurrent_requests", limits.concurrency, WHEN_BUSY)
        if reply[0] == _RPM:
            return LimitExceeded("requests_per_minute", limits.rpm, float(reply[1]))
        kind = -reply[0] - 1
        return LimitExceeded(BUCKETS[kind], limits.daily[kind], self._days.seconds_left())

    async def _send(self, key_id: int, day: int, *, returning: bool = False) -> None:
        async with self._account(key_id).lock:
            if (key_id, day) in self._unsent:
                await self._call(key_id, day, None, NO_LIMITS, returning=returning)

    async def _call(
        self,
        key_id: int,
        day: int,
        charge: Charge | None,
        limits: KeyLimits,
        *,
        returning: bool = False,
    ) -> list[Any]:
        """Send this worker's numbers, and ask for ``charge`` if it is given; raises StoreAway."""
        account, share, sent = self._account(key_id), self._share(key_id, day), False
        used, missed = share.used, len(account.missed)
        arguments = self._arguments(key_id, day, charge, limits)
        # Whatever happens while the call is under way is to be sent again.
        self._unsent.discard((key_id, day))
        try:
            reply: list[Any] = await self._store.run(
                LIMITS, self._keys(key_id, day), arguments, returning=returning
            )
            sent = reply[0] != _OVERTAKEN
        finally:
            if not sent:
                self._unsent.add((key_id, day))
        if sent:
            del account.missed[:missed]
            self._hear(key_id, day, used, reply)
        return reply

    def _keys(self, key_id: int, day: int) -> list[str]:
        key = f"limits:{key_id}:"
        names = (f"{key}{day}", f"{key}live", f"{key}rpm")
        return [*map(self._store.key, names), self._store.workers_key]

    def _arguments(
        self, key_id: int, day: int, charge: Charge | None, limits: KeyLimits
    ) -> list[str | float]:
        share, known = self._share(key_id, day), self._book.known(key_id, day)
        running, reserved = self._local.held(key_id, day)
        now = self._clock()
        ages = [now - moment for moment in self._account(key_id).missed]
        return [
            self._store.worker,
            next(self._numbers),
            KEPT,
            self._redis_time(),
            known.row,
            share.begun,
            _text(known.used),
            _text(share.seen),
            _text(share.used + reserved),
            running,
            _text(age for age in ages if age < SECONDS),
            "" if charge is None else _text(charge),
            _text((*limits.daily, limits.rpm, limits.concurrency)),
            DEAD_AFTER,
        ]

    def _hear(self, key_id: int, day: int, used: Charge, reply: list[Any]) -> None:
        """``used`` is what was sent as this worker's own."""
        share = self._share(key_id, day)
        total = [int(word) for word in reply[2].split()]
        own = [int(word) for word in reply[3].split()]
        share.total, share.then, share.is_shared = Charge(*total[:4]), used, True
        share.begun = min(share.begun, self._wall())
        of_others = Charge(
            *(all_of_it - part for all_of_it, part in zip(total[4:], own[4:], strict=True))
        )
        self._local.adopt(key_id, day, plus(share.seen, of_others))

    async def _on_beat(self, beat: Beat) -> None:
        """Send what is not sent; everything, if others may have given this worker up, or
        Redis does not know it, having lost its data."""
        now = self._clock()
        is_forgotten = not beat.known or now - self._beaten > DEAD_AFTER / 2
        self._beaten = now
        if is_forgotten:
            for key_id, account in self._accounts.items():
                shared = (day for day, share in account.shares.items() if share.is_shared)
                self._unsent.update((key_id, day) for day in shared)
        self._today()
        for key_id, day in list(self._unsent):
            await self._send(key_id, day, returning=True)


def _later(total: int, used: int, then: int) -> int:
    return total + used - then


def _text(numbers: Any) -> str:
    return " ".join(map(str, numbers))

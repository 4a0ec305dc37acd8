"""Who does the work that must be done once: a lease on one row, kept by the database's clock.

The clocks of the hosts do not matter. The database says what is over; the holder itself
stops a little earlier, by its monotonic clock, so that there are never two.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from django.db import Error, close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, Q
from django.db.models.functions import Now
from django.db.models.sql.compiler import SQLCompiler

from pool.models import Leadership

logger = logging.getLogger(__name__)
T = TypeVar("T")
TTL = 7.0
"""Seconds that a lease lasts; a holder that was killed is succeeded within about as many."""
RENEWAL = 2.0
MARGIN = 0.5
"""Seconds by which the holder stops before its lease is over, for work it has just begun."""
PATIENCE = 2.0
"""Seconds that stopping waits for the database; without it the lease runs out by itself."""
MAX_HOLDER = 64
_NEVER = datetime(2000, 1, 1, tzinfo=UTC)


class DatabaseNow(Now):
    """The database's time in UTC, as Django stores times.

    Django's own gives MariaDB's local time, which jumps twice a year.
    """

    def as_mysql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        sql, parameters = self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)
        return sql, tuple(parameters)


class Duty(Protocol):
    """A lease as its candidate sees it; both calls block and raise django.db.Error."""

    def claim(self, ttl: float) -> float | None:
        """Take or renew it for ``ttl`` seconds: None. Else the seconds it is held by another."""

    def give_up(self) -> None:
        """Let it go if it is held here."""


class StoredDuty:
    """The duty ``name`` in the database, claimed for ``holder``."""

    def __init__(self, name: str, holder: str) -> None:
        if not 1 <= len(holder) <= MAX_HOLDER:
            raise ValueError(f"a holder's name has from 1 to {MAX_HOLDER} characters")
        self._name = name
        self._holder = holder

    def claim(self, ttl: float) -> float | None:
        if self._take(ttl):
            return None
        left = self._left()
        if left is None:
            Leadership.objects.bulk_create(
                [Leadership(name=self._name, expires_at=_NEVER)], ignore_conflicts=True
            )
            return 0.0
        return max(0.0, left)

    def _take(self, ttl: float) -> bool:
        """One statement, so that of several candidates only one changes the row.

        A lease that lasts much longer than any can is left over from a database whose clock
        was set back.
        """
        span = timedelta(seconds=ttl)
        is_over = Q(expires_at__lte=DatabaseNow()) | Q(expires_at__gt=DatabaseNow() + 2 * span)
        free = Leadership.objects.filter(is_over | Q(holder=self._holder), name=self._name)
        until = ExpressionWrapper(DatabaseNow() + span, output_field=DateTimeField())
        return bool(free.update(holder=self._holder, expires_at=until))

    def _left(self) -> float | None:
        """Seconds until the lease is over; None when there is no row yet."""
        left = ExpressionWrapper(F("expires_at") - DatabaseNow(), output_field=DurationField())
        rows = Leadership.objects.filter(name=self._name).annotate(left=left)
        found: timedelta | None = rows.values_list("left", flat=True).first()
        return None if found is None else found.total_seconds()

    def give_up(self) -> None:
        held = Leadership.objects.filter(name=self._name, holder=self._holder)
        held.update(holder="", expires_at=_NEVER)


class Leader:
    """One candidate for a duty; owns one thread and one database connection.

    ``holder_id`` is a name that no other process has. ``clock`` gives seconds from any
    start and ``sleep`` takes them. Losing the database means to step down when the lease may
    be over, also while a query hangs.
    """

    def __init__(
        self,
        holder_id: str,
        duty: str = "background",
        *,
        ttl: float = TTL,
        renewal: float = RENEWAL,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        stored: Duty | None = None,
    ) -> None:
        self._duty = duty
        self._stored = stored or StoredDuty(duty, holder_id)
        self._ttl = ttl
        self._renewal = renewal
        self._clock = clock
        self._sleep = sleep
        self._until = float("-inf")
        self._said = False
        self._failing = False
        self._resigned = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadership")

    @property
    def is_leader(self) -> bool:
        """Whether the duty is this process's at this moment; never blocks."""
        return self._clock() < self._until

    async def run_forever(self) -> None:
        """Be the leader whenever nobody else is, until cancelled or resigned."""
        while not self._resigned:
            await self._sleep(await self.attempt())

    async def attempt(self) -> float:
        """Take or renew the lease once; gives the seconds until the next attempt."""
        began = self._clock()
        try:
            held_elsewhere = await self._run(lambda: self._stored.claim(self._ttl))
        except Error as error:
            self._report(error)
            self._tell_changes()
            return self._renewal
        self._failing = False
        if self._resigned:
            return self._renewal
        if held_elsewhere is not None:
            self._until = float("-inf")
            self._tell_changes()
            return min(self._renewal, held_elsewhere + 0.02)
        self._until = began + self._ttl - min(MARGIN, self._ttl / 10)
        self._tell_changes()
        return self._renewal

    def _report(self, error: Error) -> None:
        """Once per outage, however often it is tried meanwhile."""
        if not self._failing:
            logger.warning("cannot ask who leads (%s): %s", self._duty, type(error).__name__)
        self._failing = True

    def _tell_changes(self) -> None:
        leads = self.is_leader
        if leads != self._said:
            self._said = leads
            logger.info("%s the duty %r", "has taken" if leads else "no longer has", self._duty)

    async def _run(self, work: Callable[[], T]) -> T:
        def with_fresh_connection() -> T:
            close_old_connections()
            return work()

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, with_fresh_connection)

    async def resign(self) -> None:
        """Step down at once, let another take over, and let go of the thread.

        Call it when ``run_forever`` has been cancelled. A database that does not answer is
        not waited for.
        """
        self._resigned = True
        self._until = float("-inf")
        self._tell_changes()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._run(self._let_go)
        except (Error, TimeoutError) as error:
            logger.warning("the duty %r runs out by itself: %s", self._duty, type(error).__name__)
        self._thread.shutdown(wait=False)

    def _let_go(self) -> None:
        try:
            self._stored.give_up()
        finally:
            connections.close_all()

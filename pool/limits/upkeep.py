"""Daily use between a worker and the record: written in batches, re-read every second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import Error, close_old_connections, connections
from django.utils import timezone

from pool.limits import record
from pool.limits.book import KeyDay, Recorded, UsageBook
from pool.limits.charges import Charge
from pool.limits.day import Days

logger = logging.getLogger(__name__)
T = TypeVar("T")
WRITING = "cannot write the use of client keys"
READING = "cannot re-read the use of client keys"
_OVERLAP = timedelta(seconds=10)
"""Hosts' clocks differ, and a row becomes visible some time after its ``updated_at``."""


class UsageWriter:
    """Owns one thread and one database connection; nothing here runs on a request's path.

    ``save_delay`` and ``poll`` are in seconds. What a killed process loses of the record is
    what it used within ``save_delay``. What waits is one sum per key and day
    (``book.backlog``), so it needs no cap.
    """

    def __init__(
        self,
        book: UsageBook,
        days: Days,
        *,
        save_delay: Callable[[], float],
        poll: float = 1.0,
        write: Callable[[Mapping[KeyDay, Charge]], None] = record.write,
    ) -> None:
        self.book = book
        self._days = days
        self._save_delay = save_delay
        self._poll = poll
        self._write = write
        self._wakeup = asyncio.Event()
        self._one_writer = asyncio.Lock()
        self._failing: set[str] = set()
        self._read: tuple[int, datetime] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key-usage")
        book.listen(self._wakeup.set)

    async def load(self) -> None:
        """Read today's use; raises django.db.Error."""
        await self.refresh()

    async def refresh(self) -> None:
        """Read what changed since the last time, or the whole of a new day; raises
        django.db.Error."""
        day, now = self._days.today(), timezone.now()
        known = self._read
        since = known[1] - _OVERLAP if known and known[0] == day else None
        rows: list[Recorded] = await self._run(lambda: record.load(day, since))
        self.book.learn(day, rows)
        self._read = day, now

    async def follow_forever(self) -> None:
        """See what other hosts use and the operator resets, within about ``poll``."""
        while True:
            await asyncio.sleep(self._poll)
            try:
                await self.refresh()
                self._failing.discard(READING)
            except Error as error:
                self._report(READING, error)

    async def write_forever(self) -> None:
        while True:
            await self._wakeup.wait()
            await asyncio.sleep(max(self._save_delay(), 1.0 if self._failing else 0.0))
            self._wakeup.clear()
            # When this is cancelled, a batch that is being written is still seen through.
            await asyncio.shield(self.flush())

    async def flush(self) -> None:
        """Write everything pending; what cannot be written now is kept for the next time."""
        async with self._one_writer:
            waiting = list(record.chunks(self.book.take()))
            while waiting and await self._flush_batch(waiting[0]):
                del waiting[0]
            for part in waiting:
                self.book.put_back(part)
            if waiting:
                self._wakeup.set()

    async def _flush_batch(self, part: Mapping[KeyDay, Charge]) -> bool:
        try:
            await self._run(lambda: self._write(part))
        except Error as error:
            self._report(WRITING, error)
            return False
        self._failing.discard(WRITING)
        return True

    def _report(self, what: str, error: Error) -> None:
        """Once per outage."""
        if what not in self._failing:
            logger.warning("%s: %s", what, type(error).__name__)
        self._failing.add(what)

    async def _run(self, work: Callable[[], T]) -> T:
        def with_fresh_connection() -> T:
            close_old_connections()
            return work()

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, with_fresh_connection)

    def abandon(self) -> None:
        """Let go without writing; for an owner that has no record to write to."""
        self.book.take()
        self._thread.shutdown()

    async def close(self) -> None:
        """Write what is left and let go of the thread and its connection."""
        await self.flush()
        if self.book.backlog:
            logger.error("the use of %d client keys could not be written", self.book.backlog)
        await self._run(connections.close_all)
        self._thread.shutdown()

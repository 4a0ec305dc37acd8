"""The pool's background work in one worker: write changes in batches, re-read others'."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import DatabaseError, close_old_connections, connections
from django.utils import timezone

from pool import roster
from pool.entries import Entry
from pool.keys import KeyDirectory
from pool.selection import MemoryPool

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Upkeep:
    """Owns one thread and one database connection; nothing here runs on a request's path.

    ``save_delay`` and ``poll`` give seconds. The queue of changed entries is a dict by id,
    so it never holds more than there are credentials.
    """

    def __init__(self, *, save_delay: Callable[[], float], poll: float = 1.0) -> None:
        self._save_delay = save_delay
        self._poll = poll
        self._changed: dict[int, Entry] = {}
        self._writing: set[int] = set()
        self._wakeup = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pool-upkeep")
        self._newest: datetime | None = None
        self._failing = False

    @property
    def backlog(self) -> int:
        """How many credentials have changes waiting to be written."""
        return len(self._changed)

    def note(self, entry: Entry) -> None:
        """Remember that ``entry`` has something to write."""
        self._changed[entry.id] = entry
        self._wakeup.set()

    async def load(self, pool: MemoryPool, keys: KeyDirectory) -> None:
        """Fill the pool and the key directory; raises DatabaseError."""
        await self._run(keys.load)
        snapshot = await self._run(roster.load)
        self._newest = snapshot.newest
        for entry in snapshot.entries:
            pool.put(entry)

    async def write_forever(self) -> None:
        while True:
            await self._wakeup.wait()
            await asyncio.sleep(self._save_delay())
            self._wakeup.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write everything pending; what cannot be written now is kept for the next time."""
        entries, self._changed = self._changed, {}
        taken = [(entry, roster.take_changes(entry)) for entry in entries.values()]
        if not taken:
            return
        self._writing = set(entries)
        try:
            await self._run(lambda: roster.write([change for _, change in taken]))
        except DatabaseError as error:
            self._report("cannot write credential changes", error)
            for entry, change in taken:
                roster.put_back(entry, change)
                self.note(entry)
        else:
            self._failing = False
        finally:
            self._writing = set()

    async def follow_forever(self, pool: MemoryPool, keys: KeyDirectory) -> None:
        """Bring in what other processes (or the admin) changed, within about ``poll``."""
        while True:
            await asyncio.sleep(self._poll)
            try:
                await self.refresh(pool, keys)
            except DatabaseError as error:
                self._report("cannot re-read credentials and keys", error)

    async def refresh(self, pool: MemoryPool, keys: KeyDirectory) -> None:
        since = self._newest
        snapshot = await self._run(lambda: roster.load(since))
        await self._run(lambda: keys.refresh(timezone.now() - timedelta(seconds=10)))
        self._newest = snapshot.newest
        for fresh in snapshot.entries:
            self._merge(pool, fresh)
        if await self._run(roster.count) != len(pool):
            ids = await self._run(roster.ids)
            for gone in [entry.id for entry in pool.entries if entry.id not in ids]:
                pool.remove(gone)

    def _merge(self, pool: MemoryPool, fresh: Entry) -> None:
        known = pool.get(fresh.id)
        if known is None:
            pool.put(fresh)
        elif known.id not in self._changed and known.id not in self._writing:
            pool.update(known, fresh)

    def _report(self, what: str, error: DatabaseError) -> None:
        """Once per outage: a database that is away for a minute is one line, not sixty."""
        if not self._failing:
            logger.warning("%s: %s", what, type(error).__name__)
        self._failing = True

    async def _run(self, work: Callable[[], T]) -> T:
        def with_fresh_connection() -> T:
            close_old_connections()
            return work()

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, with_fresh_connection)

    def abandon(self) -> None:
        """Let go without writing; for an owner that has no record to write to."""
        self._changed = {}
        self._thread.shutdown()

    async def close(self) -> None:
        """Write what is left and let go of the thread and its connection."""
        await self.flush()
        await self._run(connections.close_all)
        self._thread.shutdown()

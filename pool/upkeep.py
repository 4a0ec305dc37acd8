"""The pool's background work in one worker: write changes in batches, re-read others'."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from django.db import Error, close_old_connections, connections
from django.utils import timezone

from pool import incident_record, roster
from pool.entries import Entry
from pool.keys import KeyDirectory
from pool.selection import MemoryPool

logger = logging.getLogger(__name__)
T = TypeVar("T")
WRITING = "cannot write credential changes"
READING = "cannot re-read credentials and keys"
AT_ONCE = 200
"""How many re-read credentials are taken over before requests get their turn again."""


class Upkeep:
    """Owns one thread and one database connection; nothing here runs on a request's path.

    ``save_delay`` and ``poll`` give seconds, as does ``clock``, from any start. ``write``
    stores a batch of changes and raises django.db.Error; ``reload_interval`` gives the
    seconds after which everything is compared with the record, 0 or less for never. The queue
    of changed entries is a dict by id, so it never holds more than there are credentials.
    """

    def __init__(
        self,
        *,
        save_delay: Callable[[], float],
        poll: float = 1.0,
        write: Callable[[Iterable[roster.Change]], Mapping[int, datetime] | None] = roster.write,
        clock: Callable[[], float] = time.monotonic,
        reload_interval: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._save_delay = save_delay
        self._poll = poll
        self._write = write
        self._changed: dict[int, Entry] = {}
        self._writing: frozenset[int] = frozenset()
        self._noted: set[int] = set()
        self._wakeup = asyncio.Event()
        self._one_writer = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pool-upkeep")
        self._clock = clock
        self._newest: datetime | None = None
        self._newest_at = 0.0
        self._reload_interval = reload_interval
        self._compared_at = clock()
        self._failing: set[str] = set()

    @property
    def backlog(self) -> int:
        """How many credentials have changes waiting to be written."""
        return len(self._changed)

    def note(self, entry: Entry) -> None:
        """Remember that ``entry`` has something to write."""
        self._changed[entry.id] = entry
        self._noted.add(entry.id)
        self._wakeup.set()

    async def load(self, pool: MemoryPool, keys: KeyDirectory) -> None:
        """Fill the pool and the key directory; raises django.db.Error."""
        await self._run(keys.load)
        snapshot = await self._run(roster.load)
        self._remember(snapshot.newest)
        for entry in snapshot.entries:
            pool.put(entry)

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
            entries, self._changed = self._changed, {}
            waiting = iter(entries.values())
            while batch := list(islice(waiting, roster.CHUNK)):
                if not await self._flush_batch([entry for entry in batch if entry.has_changes]):
                    break
            for entry in waiting:
                self.note(entry)

    async def _flush_batch(self, entries: list[Entry]) -> bool:
        taken = [(entry, roster.take_changes(entry)) for entry in entries]
        self._writing = frozenset(entry.id for entry in entries)
        written = False
        try:
            unshared = await self._run(lambda: self._write([change for _, change in taken]))
            self._stamp(taken, unshared or {})
            written = True
            self._failing.discard(WRITING)
        except Error as error:
            self._report(WRITING, error)
        finally:
            self._writing = frozenset()
            if not written:
                for entry, change in taken:
                    roster.put_back(entry, change)
                    self.note(entry)
        return written

    def _stamp(
        self, taken: list[tuple[Entry, roster.Change]], unshared: Mapping[int, datetime]
    ) -> None:
        """Rows that only we have changed need not be read again."""
        for entry, change in taken:
            if entry.stamp == change.stamp:
                entry.stamp = unshared.get(entry.id, entry.stamp)

    async def follow_forever(self, pool: MemoryPool, keys: KeyDirectory) -> None:
        """Bring in what other processes (or the admin) changed, within about ``poll``."""
        while True:
            await asyncio.sleep(self._poll)
            try:
                await self.refresh(pool, keys)
                self._failing.discard(READING)
            except Error as error:
                self._report(READING, error)

    async def refresh(self, pool: MemoryPool, keys: KeyDirectory) -> None:
        """One look for changes, additions and deletions; raises django.db.Error."""
        await self._run(lambda: keys.refresh(timezone.now() - timedelta(seconds=10)))
        since = self._newest and self._newest - self._overlap()
        stamps = await self._run(lambda: roster.stamps(since))
        await self._take_over(pool, stamps)
        self._remember(max(stamps.values(), default=None))
        await self._share_incidents(pool)
        if self._is_time_to_compare() or await self._run(roster.count) != len(pool):
            await self._reconcile(pool)

    async def _share_incidents(self, pool: MemoryPool) -> None:
        """Tell other workers, and the pages, of upstream incidents, and hear of theirs."""
        now = time.time()
        seen = pool.incidents.open(now)
        known = await self._run(lambda: incident_record.exchange(seen, pool.incidents.window, now))
        for incident in known:
            pool.incidents.join(incident.reason, incident.since, incident.last_seen, now)
        pool.end_incidents()

    def _is_time_to_compare(self) -> bool:
        interval, now = self._reload_interval(), self._clock()
        if interval <= 0 or now - self._compared_at < interval:
            return False
        self._compared_at = now
        return True

    def _remember(self, newest: datetime | None) -> None:
        if newest is None:
            return
        # A host whose clock is ahead must not make us blind to the changes of others.
        newest = min(newest, timezone.now())
        if newest != self._newest:
            self._newest, self._newest_at = newest, self._clock()

    def _overlap(self) -> timedelta:
        """None once the newest change has been known for a while, or an import's thousands of
        rows would be read again every second until something else changes."""
        settled = self._clock() - self._newest_at > 2 * roster.OVERLAP.total_seconds()
        return timedelta() if settled else roster.OVERLAP

    async def _reconcile(self, pool: MemoryPool) -> None:
        """Also finds rows that became visible long after their ``updated_at``."""
        stamps = await self._run(roster.stamps)
        for gone in [entry.id for entry in pool.entries if entry.id not in stamps]:
            pool.remove(gone)
        await self._take_over(pool, stamps)

    async def _take_over(self, pool: MemoryPool, stamps: Mapping[int, datetime]) -> None:
        """Read what was changed since it was last read, and not by this worker alone."""
        differing = [number for number, stamp in stamps.items() if _stamp(pool, number) != stamp]
        if differing:
            await self._merge(pool, await self._run(lambda: roster.load_ids(differing)))

    async def _merge(self, pool: MemoryPool, entries: Iterable[Entry]) -> None:
        """Take over what was just read; nothing may have been awaited since.

        A credential that is being written, or was noted since the reading, may be newer
        here than in ``entries``: it is left for the next time, since its own write will
        make it be read again.
        """
        self._noted.clear()
        rest = iter(entries)
        while part := list(islice(rest, AT_ONCE)):
            for fresh in part:
                known = pool.get(fresh.id)
                if known is None:
                    pool.put(fresh)
                elif known.stamp != fresh.stamp and not self._is_in_motion(known):
                    pool.update(known, fresh)
            await asyncio.sleep(0)

    def _is_in_motion(self, entry: Entry) -> bool:
        return entry.id in self._writing or entry.id in self._noted

    def _report(self, what: str, error: Error) -> None:
        """Once per outage: a database that is away for a minute is one line, not sixty."""
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
        self._changed = {}
        self._thread.shutdown()

    async def close(self) -> None:
        """Write what is left and let go of the thread and its connection."""
        await self.flush()
        if self._changed:
            logger.error("changes of %d credentials could not be written", len(self._changed))
        await self._run(connections.close_all)
        self._thread.shutdown()


def _stamp(pool: MemoryPool, credential_id: int) -> object:
    entry = pool.get(credential_id)
    return None if entry is None else entry.stamp

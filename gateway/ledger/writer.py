"""From requests that ended to the database, in batches, off the requests' path."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import Error, close_old_connections, connections

from gateway.exchange import Exchange
from gateway.ledger.records import Record, record_of
from gateway.ledger.store import Store, is_refusal

logger = logging.getLogger(__name__)
T = TypeVar("T")
BATCH = 500
"""Records per transaction: others' patience is limited."""


class _Batch:
    """Written or not as a whole. ``unsure`` after a try that may have worked all the same."""

    __slots__ = ("records", "unsure")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.unsure = False


class LedgerWriter:
    """Owns one thread and one database connection; ``append`` is all that a request sees.

    ``delay`` gives the seconds for which records are gathered, ``cap`` how many may wait;
    ``retry_pause`` is in seconds. ``write`` is given the records of a batch and whether an
    earlier try with them failed; it stores all or, raising, nothing.
    """

    def __init__(
        self,
        *,
        delay: Callable[[], float],
        cap: Callable[[], int],
        write: Callable[[Sequence[Record], bool], None] | None = None,
        retry_pause: float = 1.0,
    ) -> None:
        self._delay = delay
        self._cap = cap
        self._write = write or Store().write
        self._retry_pause = retry_pause
        self._queue: deque[Record] = deque()
        self._batches: deque[_Batch] = deque()
        self._in_batches = 0
        self._dropped = 0
        self._refused = 0
        self._full = False
        self._failing = False
        self._refusing = False
        self._wakeup = asyncio.Event()
        self._one_writer = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    @property
    def queued(self) -> int:
        """How many records wait to be written, or are being written."""
        return len(self._queue) + self._in_batches

    @property
    def dropped(self) -> int:
        """How many requests left no record because the queue was full."""
        return self._dropped

    @property
    def refused(self) -> int:
        """How many records the database would not take."""
        return self._refused

    def append(self, exchange: Exchange) -> None:
        """Remember a request that has ended; when the queue is full it is dropped and counted."""
        if self.queued >= self._cap():
            self._drop()
            return
        self._queue.append(record_of(exchange))
        self._wakeup.set()

    def _drop(self) -> None:
        if not self._full:
            logger.error("the queue of request records is full; requests leave no record now")
        self._full = True
        self._dropped += 1

    async def write_forever(self) -> None:
        while True:
            await self._wakeup.wait()
            await asyncio.sleep(max(self._delay(), self._retry_pause if self._failing else 0.0))
            self._wakeup.clear()
            # When this is cancelled, a batch that is being written is still seen through.
            await asyncio.shield(self.flush())

    async def flush(self) -> None:
        """Write everything queued; what cannot be written now is kept for the next time."""
        async with self._one_writer:
            while batch := self._next_batch():
                if not await self._flush_batch(batch):
                    self._wakeup.set()
                    return
            self._full = False

    def _next_batch(self) -> _Batch | None:
        if not self._batches and self._queue:
            count = min(len(self._queue), BATCH)
            self._batches.append(_Batch([self._queue.popleft() for _ in range(count)]))
            self._in_batches += count
        return self._batches[0] if self._batches else None

    async def _flush_batch(self, batch: _Batch) -> bool:
        """False: try again later. What cannot be written ever is cut down to and let go."""
        # Unsure from here on, also when this is cancelled: the thread goes on regardless.
        unsure, batch.unsure = batch.unsure, True
        try:
            await self.run(lambda: self._write(batch.records, unsure))
        except (Error, ValueError, TypeError, OverflowError) as error:
            if is_refusal(error):
                self._divide(batch, error)
                return True
            self._report(error)
            return False
        self._batches.popleft()
        self._in_batches -= len(batch.records)
        self._failing = self._refusing = False
        return True

    def _divide(self, batch: _Batch, error: Exception) -> None:
        """A refused batch left nothing behind, so its halves may be tried as new ones."""
        self._batches.popleft()
        middle = len(batch.records) // 2
        if middle:
            halves = (batch.records[:middle], batch.records[middle:])
            self._batches.extendleft(_Batch(half) for half in reversed(halves))
            return
        self._in_batches -= 1
        self._refused += 1
        if not self._refusing:
            logger.error("the database refuses a request record: %s", type(error).__name__)
        self._refusing = True

    def _report(self, error: Exception) -> None:
        """Once per outage: a database that is away for a minute is one line, not sixty."""
        if not self._failing:
            logger.warning("cannot write request records: %s", type(error).__name__)
        self._failing = True

    async def run(self, work: Callable[[], T]) -> T:
        """``work`` on the ledger's thread, between two batches, with a usable connection."""

        def with_fresh_connection() -> T:
            close_old_connections()
            return work()

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, with_fresh_connection)

    def abandon(self) -> None:
        """Let go without writing; for an owner that has no record to write to."""
        self._queue.clear()
        self._batches.clear()
        self._in_batches = 0
        self._thread.shutdown()

    async def close(self) -> None:
        """Write what is left and let go of the thread and its connection."""
        await self.flush()
        if self.queued:
            logger.error("%d request records could not be written", self.queued)
        await self.run(connections.close_all)
        self._thread.shutdown()

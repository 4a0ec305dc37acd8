"""Old records go, in small steps; the sums of their days stay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from django.db import Error
from django.db.models import QuerySet
from django.utils import timezone

from gateway.ledger.models import HourlyUsage, RequestRecord
from gateway.ledger.spans import oldest_hour

logger = logging.getLogger(__name__)
T = TypeVar("T")
CHUNK = 1000
"""Rows per statement: none holds a lock for long, and SQLite's other writers wait for it."""


class Run(Protocol):
    """How synchronous work is done off the event loop: ``LedgerWriter.run``."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


def deletions(now: datetime, retention_days: int) -> Iterator[int]:
    """Deletes while it is iterated, a chunk at a time; gives each chunk's number of records.

    Hourly roll-ups that are no longer kept go last, and count as no records. Raises
    django.db.Error; each chunk is a transaction of its own.
    """
    limit = now - timedelta(days=retention_days)
    old_records = RequestRecord.objects.filter(started_at__lt=limit).order_by("started_at")
    while deleted := _delete_chunk(old_records):
        yield deleted
    old_hours = HourlyUsage.objects.filter(start__lt=oldest_hour(now))
    while _delete_chunk(old_hours.order_by("start")):
        yield 0


def _delete_chunk(rows: QuerySet[Any]) -> int:
    """By primary key: MariaDB has no LIMIT in the subquery of a DELETE."""
    found = list(rows.values_list("pk", flat=True)[:CHUNK])
    if found:
        rows.model._base_manager.filter(pk__in=found).delete()
    return len(found)


def prune(now: datetime, retention_days: int, progress: Callable[[int], None] | None = None) -> int:
    """Delete what is older; gives the number of records. ``progress`` hears it grow."""
    count = 0
    for deleted in deletions(now, retention_days):
        count += deleted
        if deleted and progress is not None:
            progress(count)
    return count


async def prune_forever(
    run: Run,
    is_leader: Callable[[], bool],
    retention_days: Callable[[], int],
    *,
    every: float = 600.0,
    now: Callable[[], datetime] = timezone.now,
) -> None:
    """Prune every ``every`` seconds while ``is_leader()``; a failure waits for the next time."""
    failing = False
    while True:
        try:
            await prune_once(run, is_leader, deletions(now(), retention_days()))
            failing = False
        except Error as error:
            if not failing:
                logger.warning("cannot prune request records: %s", type(error).__name__)
            failing = True
        await asyncio.sleep(every)


async def prune_once(run: Run, is_leader: Callable[[], bool], work: Iterator[int]) -> None:
    """Step by step, so that batches are written in between; it ends with the leadership."""
    while is_leader() and await run(lambda: next(work, None)) is not None:
        pass

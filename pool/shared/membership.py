"""A worker's part in what all share: its tasks, from its first beat to its farewell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from pool.shared.pool import SharedPool
from pool.shared.store import SharedStore

logger = logging.getLogger(__name__)


class Membership:
    """``start`` once the pool is loaded, ``stop`` when no request runs any more."""

    def __init__(self, store: SharedStore, pool: SharedPool) -> None:
        self._store = store
        self._pool = pool
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def available(self) -> bool:
        """Whether Redis can be reached, as far as is known."""
        return self._store.available

    @property
    def queued(self) -> int:
        """Operations that wait to be told."""
        return self._pool.courier.queued

    async def start(self) -> None:
        """Take over what others know, if Redis is there, and stay in touch."""
        self._own(self._pool.courier.run_forever(), "courier")
        await self._store.beat()
        await self._pool.courier.drain()
        self._own(self._store.beat_forever(), "heart-beat")

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report_death)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Tell what is still to be told, and leave."""
        await self._pool.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What listeners tell only with a beat is told once more.
        await self._store.beat()
        await self._store.aclose()


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("background task %s died", task.get_name(), exc_info=error)

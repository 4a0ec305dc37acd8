"""Waiting for a database that is away while a worker starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from django.db import Error, close_old_connections

logger = logging.getLogger(__name__)
AGAIN_AFTER = 1.0


async def once_the_database_answers(
    work: Callable[[], Awaitable[object]],
    stopping: asyncio.Event,
    again_after: float = AGAIN_AFTER,
) -> None:
    """Do ``work``, which may be repeated, as soon as the database lets it.

    A worker that gave up here would have its supervisor stop all the others as well. Raises
    django.db.Error only when ``stopping`` is set meanwhile.
    """
    waiting = False
    while True:
        try:
            await work()
            return
        except Error as error:
            if not waiting:
                logger.warning(
                    "the database is away, so this worker waits: %s", type(error).__name__
                )
            waiting = True
            close_old_connections()
            if await _is_set_within(stopping, again_after):
                raise


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

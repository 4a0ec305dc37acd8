"""A worker that starts while the database is away waits for it instead of giving up."""

from __future__ import annotations

import asyncio

import pytest
from django.db import OperationalError

from grok2api.patience import once_the_database_answers
from tests.pool.workers import until


class Away:
    """Work that the database refuses ``times`` times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.done = 0

    async def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise OperationalError("the database is away")
        self.done += 1


async def test_it_is_done_as_soon_as_the_database_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Away(3)
    await once_the_database_answers(work, asyncio.Event(), again_after=0.0)
    assert (work.left, work.done) == (0, 1)
    assert caplog.messages == ["the database is away, so this worker waits: OperationalError"]


async def test_a_stop_ends_the_wait() -> None:
    work, stopping = Away(10**9), asyncio.Event()
    waiting = asyncio.create_task(once_the_database_answers(work, stopping, again_after=60.0))
    await until(lambda: work.left < 10**9)
    stopping.set()
    with pytest.raises(OperationalError):
        await asyncio.wait_for(waiting, 5)
    assert work.done == 0


async def test_any_other_failure_is_not_waited_for() -> None:
    async def broken() -> None:
        raise ValueError("a mistake in the configuration")

    with pytest.raises(ValueError, match="a mistake"):
        await once_the_database_answers(broken, asyncio.Event())

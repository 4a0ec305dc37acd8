"""What is deleted when, and by whom.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from typing import TypeVar

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from gateway.ledger.models import DailyUsage, HourlyUsage, RequestRecord
from gateway.ledger.retention import CHUNK, deletions, prune, prune_forever
from gateway.ledger.writer import LedgerWriter
from tests.gateway.ledger.samples import NOON, exchange, keep

T = TypeVar("T")
DAY = timedelta(days=1)
pytestmark = pytest.mark.django_db


def left() -> list[datetime]:
    return list(RequestRecord.objects.order_by("started_at").values_list("started_at", flat=True))


def test_what_is_older_goes_and_the_rest_stays() -> None:
    moments = [NOON - DAY * days for days in (9, 5, 4)]
    keep(*(exchange(moment) for moment in [*moments, NOON]))
    assert prune(NOON + timedelta(seconds=1), 4) == 3
    assert left() == [NOON]
    assert prune(NOON + timedelta(seconds=1), 4) == 0


def test_a_record_is_kept_to_its_last_moment() -> None:
    keep(exchange(NOON))
    assert prune(NOON + 30 * DAY, 30) == 0
    assert prune(NOON + 30 * DAY + timedelta(microseconds=1), 30) == 1


def test_the_sums_outlive_the_requests() -> None:
    now = NOON + 200 * DAY
    keep(exchange(NOON), exchange(now - 91 * DAY), exchange(now - 90 * DAY), exchange(now))
    assert prune(now, 1) == 3
    hours = HourlyUsage.objects.order_by("start").values_list("start", flat=True)
    assert list(hours) == [now - 90 * DAY, now]
    assert DailyUsage.objects.count() == 4


def test_it_deletes_in_short_steps_and_tells_of_them() -> None:
    keep(*(exchange(NOON - timedelta(seconds=number)) for number in range(2 * CHUNK + 1)))
    told: list[int] = []
    assert prune(NOON + 2 * DAY, 1, told.append) == 2 * CHUNK + 1
    assert told == [CHUNK, 2 * CHUNK, 2 * CHUNK + 1]


def test_a_step_that_is_not_asked_for_is_not_made() -> None:
    keep(*(exchange(NOON) for _ in range(CHUNK + 5)))
    assert next(deletions(NOON + 2 * DAY, 1)) == CHUNK
    assert len(left()) == 5


@pytest.mark.django_db(transaction=True)
async def test_the_leader_prunes_on_the_ledgers_thread_and_others_do_not() -> None:
    writer = LedgerWriter(delay=lambda: 0.0, cap=lambda: 100)
    leads = False
    rounds = 0

    def is_leader() -> bool:
        nonlocal rounds
        rounds += 1
        return leads

    async def recorded() -> int:
        return await writer.run(RequestRecord.objects.count)

    for _ in range(3):
        writer.append(exchange(NOON))
    await writer.flush()
    task = asyncio.create_task(
        prune_forever(writer.run, is_leader, lambda: 1, every=0.0, now=lambda: NOON + 2 * DAY)
    )
    await until(lambda: rounds > 3)
    assert await recorded() == 3
    leads = True
    async with asyncio.timeout(10):
        while await recorded():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.001)
    await end(task)
    await writer.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task has to get its turn
            await asyncio.sleep(0)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_failure_waits_for_the_next_time_and_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = 0

    async def fails(work: Callable[[], T]) -> T:
        nonlocal tries
        tries += 1
        raise OperationalError("away")

    task = asyncio.create_task(prune_forever(fails, lambda: True, lambda: 1, every=0.0))
    await until(lambda: tries > 3)
    await end(task)
    assert [line.levelno for line in caplog.records] == [logging.WARNING]


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("prune_ledger", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_keeps_as_many_days_as_it_is_told() -> None:
    now = timezone.now()
    keep(*(exchange(now - DAY * days) for days in (1, 3, 5)))
    assert "1 record deleted" in command("--days", "4")
    assert "2 records deleted" in command("--days", "0")


def test_the_command_keeps_what_the_configuration_says() -> None:
    now = timezone.now()
    keep(exchange(now - 29 * DAY), exchange(now - 31 * DAY))
    assert "1 record deleted" in command()
    assert len(left()) == 1


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_the_command_counts_while_somebody_watches() -> None:
    keep(*(exchange(NOON - 9999 * DAY) for _ in range(CHUNK + 1)))
    terminal = Terminal()
    call_command("prune_ledger", "--days", "1", stdout=StringIO(), stderr=terminal)
    assert terminal.getvalue() == f"\r{CHUNK}\r{CHUNK + 1}\n"


@pytest.mark.parametrize("days", ["-1", "40000"])
def test_the_command_refuses_days_that_make_no_sense(days: str) -> None:
    with pytest.raises(CommandError, match="--days must be from 0"):
        command("--days", days)

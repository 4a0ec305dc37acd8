"""Daily use in the database: written in batches that add up, read again, reset.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from operator import eq
from typing import ParamSpec, TypeVar

import pytest
from django.db import Error, IntegrityError, OperationalError, connection, connections
from django.utils import timezone

from pool.keys import KeyRecord, create_client_key, limits_of
from pool.limits import record
from pool.limits.book import KeyDay, UsageBook
from pool.limits.charges import NOTHING, Charge
from pool.limits.day import Days, date_of
from pool.limits.limiter import LimitExceeded
from pool.limits.table import KeyTable
from pool.limits.upkeep import READING, WRITING, UsageWriter
from pool.models import ClientKey, KeyUsage
from tests.pool.limits.samples import CHAT, OFFSET, make_key, make_local, refusal, use, uses_left
from tests.pool.samples import Clock
from tests.pool.workers import until
from tests.serving import wait_for

P = ParamSpec("P")
T = TypeVar("T")
pytestmark = pytest.mark.django_db(transaction=True)
DAYS = Days(OFFSET, Clock())
TODAY = DAYS.today()


def add_key(name: str = "alice") -> ClientKey:
    return create_client_key(name)[0]


def used(key: ClientKey, day: int = TODAY) -> Charge:
    row = KeyUsage.objects.get(key=key, day=date_of(day))
    return Charge(row.chat, row.heavy, row.image, row.video)


def limited(key: ClientKey, **limits: int) -> KeyRecord:
    return make_key(key.pk, **limits)


class Worker:
    """A worker's writer, book and limiter; the database is touched from its own thread."""

    def __init__(
        self,
        table: KeyTable | None = None,
        *,
        write: Callable[[Mapping[KeyDay, Charge]], None] = record.write,
        save_delay: float = 0.0,
    ) -> None:
        self.clock, self.book = Clock(), UsageBook()
        self.limiter = make_local(table, self.clock, self.book)
        days = Days(OFFSET, self.clock)
        self.writer = UsageWriter(
            self.book, days, save_delay=lambda: save_delay, poll=0.0, write=write
        )

    async def __aenter__(self) -> Worker:
        await self.writer.load()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.writer.close()


async def in_thread(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """A look at the database from outside, on a connection that does not stay open."""

    def look() -> T:
        try:
            return work(*args, **options)
        finally:
            connections.close_all()

    return await asyncio.to_thread(look)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Broken:
    """A writer that fails while ``broken``, then does the real thing."""

    broken = True

    def __call__(self, use: Mapping[KeyDay, Charge]) -> None:
        if self.broken:
            raise OperationalError("the database is away")
        record.write(use)


def test_uses_add_up_whoever_writes_them() -> None:
    one, two = add_key("one"), add_key("two")
    record.write({(one.pk, TODAY): Charge(2, 1, 0, 3), (one.pk, TODAY - 1): CHAT})
    record.write({(one.pk, TODAY): Charge(1, 1, 4, 0), (two.pk, TODAY): CHAT})
    assert used(one) == (3, 2, 4, 3)
    assert used(one, TODAY - 1) == CHAT
    assert used(two) == CHAT


def test_writers_on_several_threads_lose_nothing() -> None:
    keys = [add_key(str(number)) for number in range(5)]

    def write_once() -> bool:
        """A locked database is an error like any other: the batch is kept and comes again."""
        try:
            record.write({(key.pk, TODAY): CHAT for key in keys})
        except OperationalError:
            return False
        return True

    def write_often(_: int) -> None:
        for _ in range(10):
            assert wait_for(write_once, 20)
        connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_often, range(4)))
    assert [used(key) for key in keys] == [Charge(chat=40)] * 5


def test_use_of_a_deleted_key_is_dropped_and_stops_nobody() -> None:
    gone, kept = add_key("gone"), add_key("kept")
    number = gone.pk
    gone.delete()
    record.write({(number, TODAY): CHAT, (kept.pk, TODAY): CHAT})
    assert KeyUsage.objects.count() == 1
    assert used(kept) == CHAT


def test_a_batch_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = add_key("one"), add_key("two")
    real = record._add

    def fail_at_two(where: KeyDay, used: Charge) -> bool:
        if where[0] == two.pk:
            raise IntegrityError
        return real(where, used)

    monkeypatch.setattr(record, "_add", fail_at_two)
    with pytest.raises(Error):
        record.write({(one.pk, TODAY): CHAT, (two.pk, TODAY): CHAT})
    assert not KeyUsage.objects.exists()


def test_it_reads_one_day_and_only_what_changed() -> None:
    old, new = add_key("old"), add_key("new")
    record.write({(old.pk, TODAY): CHAT, (new.pk, TODAY): CHAT, (new.pk, TODAY - 1): CHAT})
    moment = timezone.now()
    KeyUsage.objects.filter(key=old).update(updated_at=moment - timedelta(seconds=1))
    KeyUsage.objects.filter(key=new).update(updated_at=moment)
    assert {row.key_id for row in record.load(TODAY)} == {old.pk, new.pk}
    (row,) = record.load(TODAY, moment)
    assert (row.key_id, row.day, row.used) == (new.pk, TODAY, CHAT)


def test_a_reset_puts_an_empty_and_higher_row_in_its_place() -> None:
    key, other = add_key("one"), add_key("other")
    record.write({(key.pk, TODAY): CHAT, (key.pk, TODAY - 1): CHAT, (other.pk, TODAY): CHAT})
    (before,) = [row.row for row in record.load(TODAY) if row.key_id == key.pk]
    record.reset([key.pk, 999_999], TODAY)
    record.reset([key.pk], TODAY)
    (after,) = [row.row for row in record.load(TODAY) if row.key_id == key.pk]
    assert after > before
    assert (used(key), used(key, TODAY - 1), used(other)) == (NOTHING, CHAT, CHAT)


async def test_use_is_written_once_however_much_there_was() -> None:
    key = await in_thread(add_key)
    async with Worker() as worker:
        for _ in range(4):
            await use(worker.limiter, limited(key))
        assert worker.book.backlog == 1
        await worker.writer.flush()
        assert worker.book.backlog == 0
        assert await in_thread(used, key) == Charge(chat=4)
        await worker.writer.flush()
    assert await in_thread(used, key) == Charge(chat=4)


async def test_two_workers_add_up_and_closing_writes_the_rest() -> None:
    key = await in_thread(add_key)
    async with Worker() as one, Worker() as two:
        for worker in (one, two, two):
            await use(worker.limiter, limited(key, chat=9))
    assert await in_thread(used, key) == Charge(chat=3)


async def test_a_restart_remembers() -> None:
    key = await in_thread(add_key)
    async with Worker() as worker:
        await use(worker.limiter, limited(key, chat=3))
    async with Worker() as worker:
        assert await uses_left(worker.limiter, limited(key, chat=3)) == 2


async def test_hosts_without_redis_see_one_another_through_the_record() -> None:
    key = await in_thread(add_key)
    async with Worker() as here, Worker() as there:
        await use(here.limiter, limited(key, chat=3))
        await use(there.limiter, limited(key, chat=3))
        await here.writer.flush()
        await there.writer.flush()
        await here.writer.refresh()
        assert await uses_left(here.limiter, limited(key, chat=3)) == 1


async def test_a_reset_reaches_every_worker_and_is_no_loss_of_later_use() -> None:
    key = await in_thread(add_key)
    table = KeyTable.anonymous(16)
    async with Worker(table) as one, Worker(table) as two:
        for worker in (one, two):
            await use(worker.limiter, limited(key, chat=2))
            await worker.writer.flush()
            await worker.writer.refresh()
        await refusal(two.limiter, limited(key, chat=2))
        await in_thread(record.reset, [key.pk], TODAY)
        await one.writer.refresh()
        await use(one.limiter, limited(key, chat=2))
        await two.writer.refresh()
        assert await uses_left(two.limiter, limited(key, chat=2)) == 1
    assert await in_thread(used, key) == CHAT


async def test_midnight_begins_a_row_of_its_own() -> None:
    key = await in_thread(add_key)
    async with Worker() as worker:
        late = await worker.limiter.reserve(limited(key, chat=1), CHAT)
        worker.clock.now += Days(OFFSET, worker.clock).seconds_left()
        await use(worker.limiter, limited(key, chat=1))
        await worker.limiter.settle(late)
        await worker.writer.refresh()
        await refusal(worker.limiter, limited(key, chat=1))
    assert await in_thread(used, key, TODAY) == CHAT
    assert await in_thread(used, key, TODAY + 1) == CHAT


async def test_a_new_day_is_read_whole() -> None:
    key = await in_thread(add_key)
    await in_thread(record.write, {(key.pk, TODAY + 1): CHAT})
    await in_thread(KeyUsage.objects.update, updated_at=timezone.now() - timedelta(hours=1))
    async with Worker() as worker:
        worker.clock.now += 86_400
        await worker.writer.refresh()
        await refusal(worker.limiter, limited(key, chat=1))


async def test_what_could_not_be_written_is_written_later(caplog: pytest.LogCaptureFixture) -> None:
    key, broken = await in_thread(add_key), Broken()
    async with Worker(write=broken) as worker:
        for _ in range(2):
            await use(worker.limiter, limited(key, chat=5))
            await worker.writer.flush()
        assert worker.book.backlog == 1
        broken.broken = False
        await use(worker.limiter, limited(key, chat=5))
    assert await in_thread(used, key) == Charge(chat=3)
    assert [r.message for r in caplog.records] == [f"{WRITING}: OperationalError"]


async def test_use_that_is_lost_in_the_end_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    key = await in_thread(add_key)
    async with Worker(write=Broken()) as worker:
        await use(worker.limiter, limited(key))
    assert "the use of 1 client keys could not be written" in caplog.messages


async def test_nothing_is_lost_when_the_stop_comes_in_the_middle_of_a_write() -> None:
    key, entered, go_on = await in_thread(add_key), threading.Event(), threading.Event()

    def slow(use: Mapping[KeyDay, Charge]) -> None:
        entered.set()
        assert go_on.wait(10)
        record.write(use)

    async with Worker(write=slow) as worker:
        writing = asyncio.create_task(worker.writer.write_forever())
        await use(worker.limiter, limited(key))
        await until(entered.is_set)
        await use(worker.limiter, limited(key))
        await end(writing)
        go_on.set()
    assert await in_thread(used, key) == Charge(chat=2)


async def test_the_writer_gathers_for_the_delay_and_goes_on_for_ever() -> None:
    key = await in_thread(add_key)
    batches: list[int] = []

    def counting(use: Mapping[KeyDay, Charge]) -> None:
        batches.append(sum(charge.chat for charge in use.values()))
        record.write(use)

    async with Worker(write=counting, save_delay=0.02) as worker:
        writing = asyncio.create_task(worker.writer.write_forever())
        for uses, done in ((5, [5]), (3, [5, 3])):
            for _ in range(uses):
                await use(worker.limiter, limited(key))
            await until(partial(eq, batches, done))
        await end(writing)
    assert await in_thread(used, key) == Charge(chat=8)


async def test_following_survives_a_database_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = await in_thread(add_key)
    async with Worker() as worker:
        following = asyncio.create_task(worker.writer.follow_forever())
        await in_thread(rename, "pool_keyusage", "away")
        await until(lambda: READING in str(caplog.messages))
        await in_thread(rename, "away", "pool_keyusage")
        await in_thread(record.write, {(key.pk, TODAY): Charge(chat=2)})
        await until(lambda: worker.book.known(key.pk, TODAY).used.chat == 2)
        await end(following)
        with pytest.raises(LimitExceeded):
            await worker.limiter.reserve(limited(key, chat=2), CHAT)
    # A look may also fail on the renaming itself, but not every one is reported.
    assert 1 <= len([m for m in caplog.messages if m.startswith(READING)]) <= 2


def rename(before: str, after: str) -> None:
    def try_it() -> bool:
        """SQLite in memory refuses while another thread is reading."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE {before} RENAME TO {after}")
        except OperationalError:
            return False
        return True

    assert wait_for(try_it, 10)


def test_limits_come_from_the_row() -> None:
    row = ClientKey(chat_limit=1, heavy_limit=2, image_limit=3, video_limit=4, rpm_limit=5)
    assert limits_of(row) == make_key(chat=1, heavy=2, image=3, video=4, rpm=5).limits

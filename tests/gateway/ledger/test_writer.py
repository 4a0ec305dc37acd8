"""The queue between the requests and the database; the database is played by a function."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

import pytest
from django.db import DataError, OperationalError

from gateway.ledger.records import Record
from gateway.ledger.writer import BATCH, LedgerWriter
from tests.gateway.ledger.samples import exchange


class Written:
    """Remembers what it was given; fails as it is told."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.tries: list[tuple[int, bool]] = []
        self.error: Exception | None = None
        self.poison: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, records: Sequence[Record], unsure: bool) -> None:
        self.tries.append((len(records), unsure))
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        ids = [record.request_id for record in records]
        if self.poison.intersection(ids):
            raise DataError("no such letter here")
        self.ids += ids


def writer_to(database: Written, cap: int = 10_000, pause: float = 0.0) -> LedgerWriter:
    return LedgerWriter(delay=lambda: 0.0, cap=lambda: cap, write=database, retry_pause=pause)


def put(writer: LedgerWriter, *ids: object) -> None:
    for each in ids:
        writer.append(exchange(id=str(each)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another thread
            await asyncio.sleep(0.001)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_appending_touches_neither_thread_nor_database() -> None:
    database = Written()
    writer = writer_to(database)
    threads = threading.active_count()
    put(writer, *range(100))
    assert (writer.queued, database.tries, threading.active_count()) == (100, [], threads)
    writer.abandon()


async def test_it_writes_in_the_order_of_the_ends_in_batches() -> None:
    database = Written()
    writer = writer_to(database)
    put(writer, *range(BATCH + 1))
    await writer.flush()
    assert database.tries == [(BATCH, False), (1, False)]
    assert database.ids == [str(number) for number in range(BATCH + 1)]
    assert writer.queued == 0
    writer.abandon()


async def test_a_full_queue_drops_the_new_and_counts_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = Written()
    writer = writer_to(database, cap=3)
    put(writer, 1, 2, 3, 4, 5)
    assert (writer.queued, writer.dropped) == (3, 2)
    await writer.flush()
    assert database.ids == ["1", "2", "3"]
    put(writer, 6)
    assert (writer.queued, writer.dropped) == (1, 2)
    assert [line.levelno for line in caplog.records] == [logging.ERROR]
    put(writer, 7, 8, 9)
    assert writer.dropped == 3
    assert len(caplog.records) == 2, "the next outage is told of too"
    writer.abandon()


async def test_what_is_being_written_counts_as_queued() -> None:
    database = Written()
    writer = writer_to(database, cap=2)
    database.gate.clear()
    put(writer, 1, 2)
    flushing = asyncio.create_task(writer.flush())
    await until(lambda: bool(database.tries))
    put(writer, 3)
    assert (writer.queued, writer.dropped) == (2, 1)
    database.gate.set()
    await flushing
    assert writer.queued == 0
    writer.abandon()


async def test_an_outage_loses_nothing_below_the_cap_and_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = Written()
    writer = writer_to(database, cap=5)
    database.error = OperationalError("away")
    put(writer, 1, 2)
    for _ in range(3):
        await writer.flush()
    put(writer, 3, 4, 5, 6)
    database.error = None
    await writer.flush()
    assert database.ids == ["1", "2", "3", "4", "5"]
    assert writer.dropped == 1
    warnings = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert len(warnings) == 1
    writer.abandon()


async def test_the_next_outage_is_told_of_too(caplog: pytest.LogCaptureFixture) -> None:
    database = Written()
    writer = writer_to(database)
    for number in range(2):
        database.error = OperationalError("away")
        put(writer, number)
        await writer.flush()
        database.error = None
        await writer.flush()
    assert len(caplog.records) == 2
    writer.abandon()


async def test_a_failed_batch_is_tried_again_as_it_was_and_said_to_be_unsure() -> None:
    database = Written()
    writer = writer_to(database)
    database.error = OperationalError("away")
    put(writer, 1, 2)
    await writer.flush()
    put(writer, 3)
    database.error = None
    await writer.flush()
    assert database.tries == [(2, False), (2, True), (1, False)]
    writer.abandon()


@pytest.mark.parametrize("bad", [{"3"}, {"0", "9"}, {"4", "5", "6"}])
async def test_a_record_that_is_refused_does_not_take_others_with_it(bad: set[str]) -> None:
    database = Written()
    writer = writer_to(database)
    database.poison = bad
    put(writer, *range(10))
    await writer.flush()
    assert database.ids == [str(number) for number in range(10) if str(number) not in bad]
    assert (writer.queued, writer.refused) == (0, len(bad))
    assert not any(unsure for _, unsure in database.tries)
    writer.abandon()


@pytest.mark.parametrize("error", [ValueError(), OverflowError(), TypeError()])
async def test_a_driver_that_cannot_send_a_value_does_not_end_the_writing(
    error: Exception,
) -> None:
    database = Written()
    writer = writer_to(database)
    database.error = error
    put(writer, 1)
    await writer.flush()
    database.error = None
    put(writer, 2)
    await writer.flush()
    assert (database.ids, writer.refused) == (["2"], 1)
    writer.abandon()


async def test_an_outage_amid_the_halves_keeps_what_is_left() -> None:
    database = Written()
    writer = writer_to(database)
    database.poison = {"0"}
    put(writer, *range(4))

    def fails_at_third_try(records: Sequence[Record], unsure: bool) -> None:
        if len(database.tries) == 2:
            database.tries.append((0, unsure))
            raise OperationalError("away")
        database(records, unsure)

    writer._write = fails_at_third_try
    await writer.flush()
    assert writer.queued == 4
    await writer.flush()
    assert (database.ids, writer.queued, writer.refused) == (["1", "2", "3"], 0, 1)
    writer.abandon()


async def test_write_forever_writes_what_comes() -> None:
    database = Written()
    writer = writer_to(database)
    task = asyncio.create_task(writer.write_forever())
    put(writer, 1)
    await until(lambda: database.ids == ["1"])
    put(writer, 2)
    await until(lambda: database.ids == ["1", "2"])
    await end(task)
    writer.abandon()


async def test_write_forever_tries_again_by_itself() -> None:
    database = Written()
    writer = writer_to(database)
    database.error = OperationalError("away")
    task = asyncio.create_task(writer.write_forever())
    put(writer, 1)
    await until(lambda: len(database.tries) >= 3)
    database.error = None
    await until(lambda: database.ids == ["1"])
    await end(task)
    writer.abandon()


async def test_after_a_failure_it_pauses() -> None:
    database = Written()
    writer = writer_to(database, pause=3600.0)
    database.error = OperationalError("away")
    task = asyncio.create_task(writer.write_forever())
    put(writer, 1)
    await until(lambda: len(database.tries) == 1)
    for number in range(2, 20):
        put(writer, number)
        await asyncio.sleep(0.001)
    assert len(database.tries) == 1
    await end(task)
    writer.abandon()


async def test_a_batch_being_written_is_seen_through_when_the_service_stops() -> None:
    database = Written()
    writer = writer_to(database)
    database.gate.clear()
    task = asyncio.create_task(writer.write_forever())
    put(writer, 1)
    await until(lambda: bool(database.tries))
    await end(task)
    put(writer, 2)
    database.gate.set()
    await writer.close()
    assert database.ids == ["1", "2"]


async def test_a_cancelled_flush_leaves_the_batch_unsure() -> None:
    database = Written()
    writer = writer_to(database)
    database.gate.clear()
    put(writer, 1)
    flushing = asyncio.create_task(writer.flush())
    await until(lambda: bool(database.tries))
    await end(flushing)
    database.gate.set()
    await writer.flush()
    assert database.tries == [(1, False), (1, True)]
    writer.abandon()


async def test_closing_says_what_could_not_be_written(caplog: pytest.LogCaptureFixture) -> None:
    database = Written()
    writer = writer_to(database)
    database.error = OperationalError("away")
    put(writer, 1, 2)
    await writer.close()
    assert "2 request records" in caplog.messages[-1]


async def test_an_abandoned_writer_writes_nothing() -> None:
    database = Written()
    writer = writer_to(database)
    put(writer, 1)
    writer.abandon()
    assert (writer.queued, database.tries) == (0, [])

"""Requests and their sums in the database agree, whatever goes wrong between two writes.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.exchange import End, Exchange
from gateway.ledger.models import DailyUsage, HourlyUsage, RecordedKey, RequestRecord
from gateway.ledger.records import Record, record_of
from gateway.ledger.rollups import by_day, by_hour
from gateway.ledger.store import Store, is_refusal
from gateway.ledger.writer import LedgerWriter
from tests.gateway.ledger.samples import (
    NOON,
    attempt,
    exchange,
    keep,
    mismatches,
    mixture,
    sums,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_requests_of_one_hour_are_added_up() -> None:
    keep(
        exchange(
            NOON, prompt_tokens=5, completion_tokens=7, first_event=0.5, duration=2, bytes_out=9
        )
    )
    keep(exchange(NOON + timedelta(minutes=59), end=End.BROKEN, duration=1, prompt_tokens=1))
    hour, day = HourlyUsage.objects.get(), DailyUsage.objects.get()
    assert sums([hour]) == sums([day]) == [2, 1, 1, 0, 0, 6, 7, 500, 1, 3000, 9]
    assert (hour.start, day.start) == (NOON, NOON - timedelta(hours=12))
    assert (hour.model, hour.key_id, hour.upstream) == ("grok-4", 1, "")


def test_hours_and_days_are_those_of_utc_in_which_the_request_began() -> None:
    late = datetime(2030, 6, 15, 1, 59, 59, tzinfo=timezone(timedelta(hours=2)))
    keep(exchange(late, duration=7200))
    assert HourlyUsage.objects.get().start == datetime(2030, 6, 14, 23, tzinfo=UTC)
    assert DailyUsage.objects.get().start == datetime(2030, 6, 14, tzinfo=UTC)


def test_each_model_key_and_upstream_has_sums_of_its_own() -> None:
    keep(
        exchange(),
        exchange(model="grok-3"),
        exchange(key_id=2, key_name="bob"),
        exchange(attempts=[attempt(1, "api")]),
        exchange(attempts=[attempt(1, "api"), attempt(2, "web")]),
    )
    assert DailyUsage.objects.filter(requests=1).count() == 5
    assert mismatches() == []


def test_roll_ups_are_written_in_one_order_by_every_writer() -> None:
    """Or else two of them could wait for each other's rows in a ring."""
    records = [record_of(each) for each in mixture(Random(1), 50)]
    for sums_of in (by_hour, lambda records: by_day(by_hour(records))):
        keys = [key for key, _ in sums_of(records)]
        assert keys == sorted(keys) == [key for key, _ in sums_of(records[::-1])]


def test_the_names_that_a_key_had_are_recorded_once() -> None:
    store = Store()
    for name in ("old", "old", "new", "old"):
        store.write([record_of(exchange(key_name=name))], False)
    keep(exchange(key_name="old"))
    assert list(RecordedKey.objects.order_by("pk").values_list("key_id", "name")) == [
        (1, "old"),
        (1, "new"),
    ]


def test_a_name_that_is_known_costs_nothing() -> None:
    store = Store()
    store.write([record_of(exchange())], False)
    with CaptureQueriesContext(connection) as caught:
        store.write([record_of(exchange())], False)
    assert not any(RecordedKey._meta.db_table in query["sql"] for query in caught)


def test_a_batch_is_written_as_a_whole_or_not_at_all() -> None:
    store = Store()
    good = record_of(exchange(key_name="first"))
    bad = record_of(exchange())._replace(attempts="{no json")
    with pytest.raises(Exception) as caught:
        store.write([good, bad], False)
    assert is_refusal(caught.value)
    assert not RequestRecord.objects.exists()
    assert not HourlyUsage.objects.exists()
    store.write([good], False)
    assert RecordedKey.objects.get().name == "first"


def test_a_batch_that_was_written_all_the_same_is_not_written_again() -> None:
    store, records = Store(), [record_of(exchange()), record_of(exchange())]
    store.write(records, False)
    store.write(records, True)
    assert RequestRecord.objects.count() == 2
    assert mismatches() == []


def test_a_batch_that_was_not_written_is_written_the_next_time() -> None:
    Store().write([record_of(exchange())], True)
    assert RequestRecord.objects.count() == 1


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (DataError("value too long"), True),
        (OperationalError(1366, "Incorrect string value"), True),
        (ValueError("cannot be sent"), True),
        (OperationalError(2006, "server has gone away"), False),
        (OperationalError("database is locked"), False),
        (OperationalError(), False),
    ],
)
def test_it_tells_a_refusal_from_an_outage(error: Exception, refused: bool) -> None:
    assert is_refusal(error) is refused


class Unreliable:
    """A database that does what ``fate`` says: take, refuse, lose the work or the answer."""

    def __init__(self) -> None:
        self.fate = "works"
        self.store = Store()

    def __call__(self, records: Sequence[Record], unsure: bool) -> None:
        if self.fate == "away":
            raise OperationalError("away")
        if self.fate == "breaks":
            with transaction.atomic():
                self.store.write(records, unsure)
                raise OperationalError("broke off before the commit")
        self.store.write(records, unsure)
        if self.fate == "mute":
            raise OperationalError("the answer to the commit was lost")


steps = st.lists(
    st.tuples(
        st.sampled_from(("works", "away", "breaks", "mute")),
        st.integers(0, 1),
        st.integers(0, 4),
    ),
    max_size=12,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps, st.integers(0, 2**32))
def test_the_sums_are_those_of_the_requests_whatever_happens(
    plan: list[tuple[str, int, int]], seed: int
) -> None:
    """Two writers in turn; every request is recorded once in the end, and counted once."""
    for table in (RequestRecord, HourlyUsage, DailyUsage, RecordedKey):
        table.objects.all().delete()
    random = Random(seed)
    appended: list[Exchange] = []

    async def run() -> None:
        databases = (Unreliable(), Unreliable())
        writers = [LedgerWriter(delay=lambda: 0, cap=lambda: 99, write=w) for w in databases]
        for fate, number, size in plan:
            more = mixture(random, size)
            appended.extend(more)
            for each in more:
                writers[number].append(each)
            databases[number].fate = fate
            await writers[number].flush()
        for database, writer in zip(databases, writers, strict=True):
            database.fate = "works"
            await writer.close()
            assert (writer.queued, writer.dropped, writer.refused) == (0, 0, 0)

    asyncio.run(run())
    assert sorted(RequestRecord.objects.values_list("request_id", flat=True)) == sorted(
        each.id for each in appended
    )
    assert mismatches() == []


def test_mismatches_are_noticed() -> None:
    keep(exchange())
    DailyUsage.objects.update(duration_ms=1)
    assert len(mismatches()) == 1

"""Batches of records into the database, with what they add to the roll-ups.

Synchronous on purpose: the writer runs it on a thread of its own. Rows are written by
plain statements, since Django's own way costs several times the CPU per record and has no
statement that adds to a row or makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import DataError, Error, IntegrityError, connection, transaction
from django.db.models import Model

from gateway.ledger.models import DailyUsage, HourlyUsage, RecordedKey, RequestRecord, Rollup
from gateway.ledger.records import Record
from gateway.ledger.rollups import COUNTERS, KEY, Sums, by_day, by_hour

_MARIADB_BAD_TEXT = 1366
"""Text that a column's character set lacks; Django takes it for an outage."""


def is_refusal(error: Exception) -> bool:
    """Whether the database will never take what it was given, however often it is asked."""
    if isinstance(error, DataError | IntegrityError):
        return True
    return not isinstance(error, Error) or error.args[:1] == (_MARIADB_BAD_TEXT,)


class Store:
    """Where one writer's batches go. It remembers which key names it has recorded."""

    def __init__(self) -> None:
        self._known_keys: frozenset[tuple[int, str]] = frozenset()

    def write(self, records: Sequence[Record], unsure: bool) -> None:
        """All of ``records`` and their part of the roll-ups, or, raising, nothing.

        ``unsure`` says that an earlier try with these same records failed: it may have
        been the answer that was lost and not the work. Raises django.db.Error, and what
        a driver raises for a value that it cannot send (ValueError, OverflowError).
        """
        keys = {(record.key_id, record.key_name) for record in records} - self._known_keys
        hours = by_hour(records)
        with transaction.atomic():
            if unsure and _is_written(records[0]):
                return
            _execute(_insert(RequestRecord, Record._fields), map(_row, records))
            if keys:
                # Sorted, like the roll-ups after it, so that no two writers lock each other.
                rows = [RecordedKey(key_id=number, name=name) for number, name in sorted(keys)]
                RecordedKey.objects.bulk_create(rows, ignore_conflicts=True)
            _execute(_adding_upsert(HourlyUsage), _rows(hours))
            _execute(_adding_upsert(DailyUsage), _rows(by_day(hours)))
        self._known_keys |= keys


def _is_written(record: Record) -> bool:
    """A batch is written as a whole, so one of its records tells of all."""
    same = RequestRecord.objects.filter(
        request_id=record.request_id, started_at=record.started_at, key_id=record.key_id
    )
    return same.exists()


def _row(record: Record) -> tuple[Any, ...]:
    return (connection.ops.adapt_datetimefield_value(record.started_at), *record[1:])


def _rows(sums: Sums) -> Iterable[tuple[Any, ...]]:
    adapted = connection.ops.adapt_datetimefield_value
    return ((adapted(start), *rest, *counts) for (start, *rest), counts in sums)


def _execute(statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(statement, list(rows))


def _insert(model: type[Model], fields: Sequence[str]) -> str:
    quoted = connection.ops.quote_name
    columns = ", ".join(quoted(field) for field in fields)
    values = ", ".join(["%s"] * len(fields))
    table = quoted(model._meta.db_table)
    return f"INSERT INTO {table} ({columns}) VALUES ({values})"  # noqa: S608 - our own names


def _adding_upsert(rollup: type[Rollup]) -> str:
    """Makes a roll-up, or adds to the one that is there; safe with writers side by side."""
    quoted = connection.ops.quote_name
    insert = _insert(rollup, (*KEY, *COUNTERS))
    if connection.vendor == "mysql":
        sums = [f"{quoted(name)} = {quoted(name)} + VALUES({quoted(name)})" for name in COUNTERS]
        return f"{insert} ON DUPLICATE KEY UPDATE {', '.join(sums)}"
    table = quoted(rollup._meta.db_table)
    sums = [
        f"{quoted(name)} = {table}.{quoted(name)} + EXCLUDED.{quoted(name)}" for name in COUNTERS
    ]
    key = ", ".join(map(quoted, KEY))
    return f"{insert} ON CONFLICT ({key}) DO UPDATE SET {', '.join(sums)}"

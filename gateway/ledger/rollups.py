"""Records added up by hour and by UTC day. Plain values; no Django in here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from operator import add

from gateway.exchange import End
from gateway.ledger.records import Record

KEY = ("start", "model", "key_id", "upstream")
"""What names one roll-up."""
COUNTERS = (
    "requests", "completed", "failed", "refused", "client_gone", "prompt_tokens",
    "completion_tokens", "first_event_ms", "first_events", "duration_ms", "bytes_out",
)  # fmt: skip
"""What is added up in it."""
FAILURES = frozenset({End.FAILED.value, End.BROKEN.value})

Key = tuple[datetime, str, int, str]
Sums = list[tuple[Key, list[int]]]


def floor_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """``moment`` is in UTC, and so is the day."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def by_hour(records: Iterable[Record]) -> Sums:
    """What ``records`` add to the roll-up of each hour, ``COUNTERS`` in order.

    Sorted by key: writers that lock rows in one order never wait for each other in a ring.
    """
    return _added_up(
        (
            (floor_hour(record.started_at), record.model, record.key_id, record.upstream),
            _counted(record),
        )
        for record in records
    )


def by_day(hours: Sums) -> Sums:
    """The same for UTC days, from those of the hours."""
    return _added_up(
        ((floor_day(start), model, key_id, upstream), counts)
        for (start, model, key_id, upstream), counts in hours
    )


def _added_up(parts: Iterable[tuple[Key, list[int]]]) -> Sums:
    sums: dict[Key, list[int]] = {}
    for key, added in parts:
        known = sums.get(key)
        sums[key] = added if known is None else list(map(add, known, added))
    return sorted(sums.items())


def _counted(record: Record) -> list[int]:
    return [
        1,
        int(record.end == End.COMPLETED),
        int(record.end in FAILURES),
        int(record.end == End.REFUSED),
        int(record.end == End.CLIENT_GONE),
        record.prompt_tokens or 0,
        record.completion_tokens or 0,
        record.first_event_ms or 0,
        int(record.first_event_ms is not None),
        record.duration_ms,
        record.bytes_out,
    ]

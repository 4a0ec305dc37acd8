"""Requests to record, and what the roll-ups must then hold, worked out the plain way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from gateway.exchange import Attempt, End, Exchange
from gateway.ledger.models import DailyUsage, HourlyUsage, RequestRecord, Rollup
from gateway.ledger.records import record_of
from gateway.ledger.store import Store

NOON = datetime(2030, 6, 15, 12, tzinfo=UTC)
NAMES = ("alice", "Bob", "100%", "a_b", "axb", "back\\slash", "Ünïcode")
CODES = ("", "", "upstream_error", "upstream_timeout")
_numbers = count(1)


def exchange(at: datetime = NOON, **changes: Any) -> Exchange:
    """A completed request; ``attempts`` and all else can be changed."""
    usual: dict[str, Any] = {
        "id": f"request-{next(_numbers)}",
        "operation": "chat",
        "key_id": 1,
        "key_name": "alice",
        "model": "grok-4",
        "end": End.COMPLETED,
        "status": 200,
    }
    return Exchange(started_at=at.timestamp(), **(usual | changes))


def attempt(number: int = 1, upstream: str = "web", **changes: Any) -> Attempt:
    return Attempt(number, f"hint{number}", "sso", upstream, "fast", **changes)


def mixture(random: Random, size: int, span: timedelta = timedelta(days=3)) -> list[Exchange]:
    """Requests of every sort that began within ``span`` before noon; some at the same moment."""
    return [_any_exchange(random, span) for _ in range(size)]


def _any_exchange(random: Random, span: timedelta) -> Exchange:
    key = random.randrange(len(NAMES))
    tried = [
        attempt(random.randrange(1, 5), random.choice(("web", "api")))
        for _ in range(random.randrange(3))
    ]
    return exchange(
        NOON - span * random.randrange(200) / 200,
        key_id=key,
        key_name=NAMES[key],
        model=random.choice(("grok-3", "grok-4", "grok-4-heavy")),
        attempts=tried,
        end=random.choice(list(End)),
        error_code=random.choice(CODES),
        first_event=random.choice((None, random.random())),
        duration=random.random() * 10,
        prompt_tokens=random.choice((None, random.randrange(1000))),
        completion_tokens=random.choice((None, random.randrange(1000))),
        bytes_out=random.randrange(10_000),
    )


def keep(*exchanges: Exchange) -> None:
    Store().write([record_of(each) for each in exchanges], False)


def sums(rows: Iterable[Any]) -> list[int]:
    """The counters of a roll-up, over requests or over roll-ups made of them."""
    totals = [0] * 11
    for row in rows:
        totals = [a + b for a, b in zip(totals, _counters(row), strict=True)]
    return totals


def _counters(row: Any) -> list[int]:
    if isinstance(row, Rollup):
        return [
            row.requests, row.completed, row.failed, row.refused, row.client_gone,
            row.prompt_tokens, row.completion_tokens, row.first_event_ms, row.first_events,
            row.duration_ms, row.bytes_out,
        ]  # fmt: skip
    return [
        1,
        row.end == "completed",
        row.end in ("failed", "broken"),
        row.end == "refused",
        row.end == "client_gone",
        row.prompt_tokens or 0,
        row.completion_tokens or 0,
        row.first_event_ms or 0,
        row.first_event_ms is not None,
        row.duration_ms,
        row.bytes_out,
    ]


def mismatches() -> list[str]:
    """Where the stored roll-ups differ from the sums over the stored requests."""
    expected: dict[tuple[Any, ...], list[RequestRecord]] = defaultdict(list)
    for record in RequestRecord.objects.all():
        for start in (f"{record.started_at:%Y-%m-%dT%H}:00:00", f"{record.started_at:%Y-%m-%d}"):
            expected[start, record.model, record.key_id, record.upstream].append(record)
    found = {}
    for row in HourlyUsage.objects.all():
        found[f"{row.start:%Y-%m-%dT%H:%M:%S}", row.model, row.key_id, row.upstream] = sums([row])
    for day in DailyUsage.objects.all():
        found[f"{day.start:%Y-%m-%d}", day.model, day.key_id, day.upstream] = sums([day])
    return [
        f"{key}: {found.get(key)} instead of {sums(expected.get(key, []))}"
        for key in expected.keys() | found.keys()
        if found.get(key) != sums(expected.get(key, []))
    ]

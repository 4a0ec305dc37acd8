"""What the operator's pages ask of the ledger. Synchronous; not for the ``/v1`` path.

Sums come from the roll-ups: stretches of time are widened to whole hours, or to whole UTC
days once the hours are no longer kept. Lists of requests never count or skip rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import add
from typing import Any

from django.db.models import Count, Max, QuerySet, Sum
from django.utils import timezone

from gateway.ledger.filters import RecordFilter, branches
from gateway.ledger.models import DailyUsage, HourlyUsage, RecordedKey, RequestRecord
from gateway.ledger.rollups import COUNTERS, floor_day, floor_hour
from gateway.ledger.spans import DAY, HOUR, Span, ceil_day, ceil_hour, covering

MAX_POINTS = 370
"""Points of a series: fifteen days of hours, or a year of days."""


@dataclass(frozen=True, slots=True)
class Page:
    """Requests, newest first. ``next_before_id`` asks for the next page; None: it is the last."""

    records: list[RequestRecord]
    next_before_id: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over some requests. ``failed`` includes answers that broke off.

    ``requests`` is more than the four ends together by those that the stopping service
    ended. ``first_event_ms`` is the sum over the ``first_events`` requests that had one.
    """

    requests: int = 0
    completed: int = 0
    failed: int = 0
    refused: int = 0
    client_gone: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_event_ms: int = 0
    first_events: int = 0
    duration_ms: int = 0
    bytes_out: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(add, astuple(self), astuple(other)))

    @property
    def success_rate(self) -> float | None:
        """Completed among those that completed or failed, from 0 to 1; None: there are none."""
        decided = self.completed + self.failed
        return self.completed / decided if decided else None

    @property
    def mean_first_event_ms(self) -> float | None:
        return self.first_event_ms / self.first_events if self.first_events else None

    @property
    def mean_duration_ms(self) -> float | None:
        return self.duration_ms / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """One hour or UTC day of a series."""

    start: datetime
    usage: Usage


@dataclass(frozen=True, slots=True)
class ModelUsage:
    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """``name`` is the newest one that the key had, also when the key is deleted."""

    key_id: int
    name: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """``last_at`` is when the newest request with this error began."""

    code: str
    requests: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which roll-ups count; None and "" are all. ``upstream`` "" means that none was asked."""

    model: str = ""
    key_id: int | None = None
    upstream: str | None = None


EVERYTHING = UsageFilter()


def records(wanted: RecordFilter, before_id: int | None = None, limit: int = 50) -> Page:
    """The newest requests, or those after the one with the id ``before_id`` in that order.

    Once that one has been pruned there is nothing older, and the page is empty.
    """
    found = [_newest(rows, before_id)[: limit + 1] for rows in branches(wanted)]
    ordered = sorted(chain(*found), key=lambda row: (row.started_at, row.pk), reverse=True)
    page = ordered[:limit]
    return Page(page, page[-1].pk if len(ordered) > limit and page else None)


def _newest(rows: QuerySet[RequestRecord], before_id: int | None) -> QuerySet[RequestRecord]:
    rows = rows.order_by("-started_at", "-pk")
    if before_id is None:
        return rows
    before = RequestRecord.objects.filter(pk=before_id).values_list("started_at", flat=True).first()
    if before is None:
        return rows.none()
    return rows.filter(started_at__lte=before).exclude(started_at=before, pk__gte=before_id)


def count_up_to(wanted: RecordFilter, cap: int) -> int:
    """How many requests match; ``cap`` stands for that many or more."""
    count = 0
    for rows in branches(wanted):
        count += rows[: cap - count].count()
        if count >= cap:
            break
    return count


def hours(since: datetime, until: datetime, wanted: UsageFilter = EVERYTHING) -> list[UsagePoint]:
    """Every hour of [since, until), oldest first, zeros where nothing was asked.

    Hours that are no longer kept are zeros too. Raises ValueError above MAX_POINTS.
    """
    first, last = floor_hour(since.astimezone(UTC)), ceil_hour(until.astimezone(UTC))
    return _series(Span(HourlyUsage, first, last), last, HOUR, wanted)


def days(since: datetime, until: datetime, wanted: UsageFilter = EVERYTHING) -> list[UsagePoint]:
    """The same by UTC days, which are kept for ever."""
    first, last = floor_day(since.astimezone(UTC)), ceil_day(until.astimezone(UTC))
    return _series(Span(DailyUsage, first, last), last, DAY, wanted)


def _series(span: Span, last: datetime, step: timedelta, wanted: UsageFilter) -> list[UsagePoint]:
    count = max(-((span.first - last) // step), 0)
    if count > MAX_POINTS:
        raise ValueError(f"a series of {count} points is more than {MAX_POINTS}")
    known = _grouped([span], wanted, "start")
    starts = (span.first + step * number for number in range(count))
    return [UsagePoint(start, known.get(start, Usage())) for start in starts]


def summary(
    since: datetime,
    until: datetime | None = None,
    wanted: UsageFilter = EVERYTHING,
    now: datetime | None = None,
) -> Usage:
    """All requests since then; ``now`` (the present) decides which hours are still kept."""
    spans = covering(since, until, now or timezone.now())
    return sum((_usage(_rows(span, wanted).aggregate(**_SUMS)) for span in spans), Usage())


def top_models(
    since: datetime,
    until: datetime | None = None,
    wanted: UsageFilter = EVERYTHING,
    limit: int = 10,
    now: datetime | None = None,
) -> list[ModelUsage]:
    """The models most asked for."""
    spans = covering(since, until, now or timezone.now())
    top = _most(_grouped(spans, wanted, "model"), limit)
    return [ModelUsage(model, usage) for model, usage in top]


def top_keys(
    since: datetime,
    until: datetime | None = None,
    wanted: UsageFilter = EVERYTHING,
    limit: int = 10,
    now: datetime | None = None,
) -> list[KeyUsage]:
    """The client keys that asked most."""
    spans = covering(since, until, now or timezone.now())
    top = _most(_grouped(spans, wanted, "key_id"), limit)
    recorded = RecordedKey.objects.filter(key_id__in=[key_id for key_id, _ in top])
    names = dict(recorded.order_by("pk").values_list("key_id", "name"))
    return [KeyUsage(key_id, names.get(key_id, ""), usage) for key_id, usage in top]


def top_errors(since: datetime, until: datetime | None = None, limit: int = 10) -> list[ErrorCount]:
    """The error codes most often answered; from the requests, so only as far as they are kept."""
    rows = RequestRecord.objects.filter(error_code__gt="", started_at__gte=since)
    if until is not None:
        rows = rows.filter(started_at__lt=until)
    counted = rows.values("error_code").annotate(count=Count("pk"), last=Max("started_at"))
    top = counted.order_by("-count", "error_code")[:limit]
    return [ErrorCount(row["error_code"], row["count"], row["last"]) for row in top]


_SUMS = {f"sum_{counter}": Sum(counter) for counter in COUNTERS}


def _rows(span: Span, wanted: UsageFilter) -> QuerySet[Any]:
    exact = {
        "start__gte": span.first,
        "start__lt": span.last,
        "model": wanted.model or None,
        "key_id": wanted.key_id,
        "upstream": wanted.upstream,
    }
    given = {name: value for name, value in exact.items() if value is not None}
    return span.rollup._default_manager.filter(**given)


def _grouped(spans: Iterable[Span], wanted: UsageFilter, by: str) -> dict[Any, Usage]:
    """The sums per value of the column ``by``, over all the spans."""
    found: dict[Any, Usage] = {}
    for span in spans:
        for row in _rows(span, wanted).values(by).annotate(**_SUMS):
            found[row[by]] = found.get(row[by], Usage()) + _usage(row)
    return found


def _most(usages: dict[Any, Usage], limit: int) -> list[tuple[Any, Usage]]:
    """Those with the most requests; ties in the order of their names."""
    return sorted(usages.items(), key=lambda item: (-item[1].requests, item[0]))[:limit]


def _usage(row: dict[str, Any]) -> Usage:
    return Usage(**{counter: int(row[f"sum_{counter}"] or 0) for counter in COUNTERS})

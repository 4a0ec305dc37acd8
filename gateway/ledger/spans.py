"""Which roll-ups cover a stretch of time: whole UTC days, and hours at its ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.ledger.models import DailyUsage, HourlyUsage
from gateway.ledger.rollups import floor_day, floor_hour

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
HOURS_KEPT = timedelta(days=90)
"""How long hourly roll-ups are kept; daily ones are kept for ever."""


@dataclass(frozen=True, slots=True)
class Span:
    """The roll-ups of one kind that begin in [first, last); ``last`` None: without end."""

    rollup: type[HourlyUsage | DailyUsage]
    first: datetime
    last: datetime | None


def oldest_hour(now: datetime) -> datetime:
    """The first hour that is kept: the beginning of a UTC day."""
    return floor_day(now.astimezone(UTC) - HOURS_KEPT)


def ceil_hour(moment: datetime) -> datetime:
    floor = floor_hour(moment)
    return floor if floor == moment else floor + HOUR


def ceil_day(moment: datetime) -> datetime:
    floor = floor_day(moment)
    return floor if floor == moment else floor + DAY


def covering(since: datetime, until: datetime | None, now: datetime) -> list[Span]:
    """Disjoint spans that make up [since, until), widened to whole hours.

    Where hours are no longer kept it is widened to whole days. ``until`` None: without end.
    """
    first, last = floor_hour(since.astimezone(UTC)), until and ceil_hour(until.astimezone(UTC))
    oldest = oldest_hour(now)
    if first < oldest:
        first = floor_day(first)
    if last and last < oldest:
        last = ceil_day(last)
    first_day, last_day = ceil_day(first), last and floor_day(last)
    if last and last_day and last_day < first_day:
        return [Span(HourlyUsage, first, last)]
    parts = [
        Span(HourlyUsage, first, first_day),
        Span(DailyUsage, first_day, last_day),
        Span(HourlyUsage, last_day or first, last or first),
    ]
    return [span for span in parts if span.last is None or span.first < span.last]

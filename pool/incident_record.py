"""Incidents in the database: other workers learn of them there, and the operator's pages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db.models import QuerySet
from django.db.models.functions import Greatest

from pool.incidents import OpenIncident
from pool.models import Incident


def exchange(seen: Iterable[OpenIncident], window: float, now: float) -> list[OpenIncident]:
    """Write what this worker sees, end what nobody has seen for ``window`` seconds, and give
    those that are left. Times are Unix seconds."""
    for incident in seen:
        _write(incident)
    rows = unfinished()
    rows.filter(last_seen_at__lte=_moment(now) - timedelta(seconds=window)).update(
        ended_at=_moment(now)
    )
    return [
        OpenIncident(row.reason, row.started_at.timestamp(), row.last_seen_at.timestamp())
        for row in unfinished()
    ]


def unfinished() -> QuerySet[Incident]:
    """The incidents that last, oldest first."""
    return Incident.objects.filter(ended_at=None).order_by("started_at")


def _write(incident: OpenIncident) -> None:
    last_seen, hit = _moment(incident.last_seen), len(incident.hit)
    known = unfinished().filter(reason=incident.reason)
    if not known.update(
        last_seen_at=Greatest("last_seen_at", last_seen), credentials=Greatest("credentials", hit)
    ):
        Incident.objects.create(
            reason=incident.reason,
            credentials=hit,
            started_at=_moment(incident.since),
            last_seen_at=last_seen,
        )


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)

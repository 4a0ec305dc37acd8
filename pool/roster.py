"""Between the database and the in-memory pool: load, re-read what changed, write back.

Synchronous on purpose; the caller runs it on a thread of its own, never on the request
path. Only named columns are ever written, so two writers do not undo each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from pool.entries import Entry, Quota
from pool.models import BucketQuota, Credential, Status

OVERLAP = timedelta(seconds=5)
"""How far back a re-read looks again: clocks of several hosts differ a little."""
COLUMNS = (
    "id", "kind", "status", "status_reason", "sealed", "hint", "user_id", "team_id",
    "fail_count", "resting_until", "updated_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows read at one instant, and the newest change among them."""

    entries: tuple[Entry, ...]
    newest: datetime | None


def _timestamp(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


def _moment(timestamp: float) -> datetime | None:
    return datetime.fromtimestamp(timestamp, tz=UTC) if timestamp else None


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(
        id=row["id"],
        kind=row["kind"],
        active=row["status"] in {Status.ACTIVE, Status.COOLING},
        sealed=bytes(row["sealed"]),
        hint=row["hint"],
        user_id=row["user_id"],
        team_id=row["team_id"],
        failures=row["fail_count"],
        resting_until=_timestamp(row["resting_until"]),
        invalid_reason=row["status_reason"],
    )


def _attach_quotas(entries: dict[int, Entry], only_some: bool) -> None:
    quotas = BucketQuota.objects.all()
    if only_some:
        quotas = quotas.filter(credential_id__in=list(entries))
    rows = quotas.values_list("credential_id", "bucket", "remaining", "cooling_until")
    for credential_id, bucket, remaining, cooling_until in rows.iterator(chunk_size=5000):
        if credential_id in entries:
            quota = Quota(remaining, _timestamp(cooling_until))
            entries[credential_id].quotas[bucket] = quota


def count() -> int:
    return Credential.objects.count()


def ids() -> frozenset[int]:
    return frozenset(Credential.objects.values_list("id", flat=True))


def load(since: datetime | None = None) -> Snapshot:
    """Every credential, or those changed after ``since`` (minus a small overlap)."""
    rows = Credential.objects.order_by("id")
    if since is not None:
        rows = rows.filter(updated_at__gt=since - OVERLAP)
    entries: dict[int, Entry] = {}
    newest = since
    for row in rows.values(*COLUMNS).iterator(chunk_size=5000):
        entries[row["id"]] = _entry(row)
        newest = max(newest, row["updated_at"]) if newest else row["updated_at"]
    if entries:
        _attach_quotas(entries, only_some=since is not None and len(entries) <= 500)
    return Snapshot(tuple(entries.values()), newest)


@dataclass(frozen=True, slots=True)
class Change:
    """One credential's pending writes, taken off the live entry."""

    id: int
    uses: int
    columns: dict[str, Any]
    retired_reason: str | None
    quotas: dict[str, Quota]


def take_changes(entry: Entry) -> Change:
    """Collect and clear what ``entry`` has to write; runs on the event loop."""
    pending, entry.pending_columns = entry.pending_columns, set()
    columns: dict[str, Any] = {}
    if entry.pending_uses:
        columns["last_used_at"] = _moment(entry.last_used)
    available = {
        "fail_count": entry.failures,
        "last_failed_at": _moment(entry.last_failed),
        "last_fail_reason": entry.last_reason,
        "resting_until": _moment(entry.resting_until),
        "user_id": entry.user_id,
    }
    columns |= {name: value for name, value in available.items() if name in pending}
    quotas = {}
    for bucket, quota in entry.quotas.items():
        if quota.dirty:
            quota.dirty = False
            quotas[bucket] = Quota(quota.remaining, quota.cooling_until)
    uses, entry.pending_uses = entry.pending_uses, 0
    retired = entry.invalid_reason if "status" in pending and not entry.active else None
    return Change(entry.id, uses, columns, retired, quotas)


def put_back(entry: Entry, change: Change) -> None:
    """Undo ``take_changes`` after a failed write, so that the next batch retries it."""
    entry.pending_uses += change.uses
    entry.pending_columns |= set(change.columns) - {"last_used_at"}
    if change.retired_reason is not None:
        entry.pending_columns.add("status")
    for bucket in change.quotas:
        entry.quota(bucket).dirty = True
        entry.pending_columns.add("quotas")


@transaction.atomic
def write(changes: Iterable[Change]) -> None:
    """Write a batch. A credential the operator disabled meanwhile stays disabled."""
    now = timezone.now()
    quotas: list[BucketQuota] = []
    for change in changes:
        columns = dict(change.columns)
        if change.uses:
            columns["use_count"] = F("use_count") + change.uses
        updated = Credential.objects.filter(pk=change.id).update(**columns, updated_at=now)
        if not updated:
            continue
        if change.retired_reason is not None:
            Credential.objects.filter(Q(pk=change.id) & ~Q(status=Status.DISABLED)).update(
                status=Status.INVALID, status_reason=change.retired_reason
            )
        quotas += [_quota_row(change.id, *item, now) for item in change.quotas.items()]
    if quotas:
        BucketQuota.objects.bulk_create(
            quotas,
            update_conflicts=True,
            update_fields=["remaining", "cooling_until", "source", "measured_at"],
            **_conflict_target(),
        )


def _conflict_target() -> dict[str, Any]:
    """MySQL resolves conflicts by any unique key and refuses to be told which."""
    if connection.features.supports_update_conflicts_with_target:
        return {"unique_fields": ["credential", "bucket"]}
    return {}


def _quota_row(credential_id: int, bucket: str, quota: Quota, now: datetime) -> BucketQuota:
    return BucketQuota(
        credential_id=credential_id,
        bucket=bucket,
        remaining=quota.remaining,
        cooling_until=_moment(quota.cooling_until),
        source=BucketQuota.Source.ESTIMATE,
        measured_at=now,
    )

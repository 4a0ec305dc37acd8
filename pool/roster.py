"""Between the database and the in-memory pool: load, re-read what changed, write back.

Synchronous on purpose; the caller runs it on a thread of its own, never on the request
path. Only named columns are ever written, so two writers do not undo each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sys import intern
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from pool.entries import Entry, Quota
from pool.leases import Reading
from pool.models import BucketQuota, Credential, Status

OVERLAP = timedelta(seconds=5)
"""How far back a re-read looks again: clocks of several hosts differ a little, and a row
becomes visible some time after its ``updated_at`` was taken."""
SPENT_FOR = 900.0
"""Seconds that a bucket stored as used up rests when nothing says until when."""
MAX_BUCKET = 64
"""Characters of the column; a longer name (they come from upstream) is kept in memory only."""
CHUNK = 500
"""Rows per statement or transaction: parameters are limited, and so is others' patience."""
COLUMNS = (
    "id", "kind", "status", "status_reason", "sealed", "hint", "user_id", "team_id",
    "fail_count", "resting_until", "updated_at", "revision",
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
        kind=intern(row["kind"]),  # thousands of equal ones
        active=row["status"] in {Status.ACTIVE, Status.COOLING},
        sealed=bytes(row["sealed"]),
        hint=row["hint"],
        user_id=row["user_id"],
        team_id=row["team_id"],
        failures=row["fail_count"],
        resting_until=_timestamp(row["resting_until"]),
        invalid_reason=row["status_reason"],
        disabled=row["status"] == Status.DISABLED,
        stamp=row["updated_at"],
        revision=row["revision"],
    )


def _attach_quotas(entries: dict[int, Entry], *, all_of_them: bool) -> None:
    columns = ("credential_id", "bucket", "remaining", "cooling_until", "resets_at", "measured_at")
    ids = list(entries)
    parts = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    filters = [Q()] if all_of_them else [Q(credential_id__in=part) for part in parts]
    for wanted in filters:
        rows = BucketQuota.objects.filter(wanted).values_list(*columns)
        for credential_id, bucket, remaining, *moments in rows.iterator(chunk_size=5000):
            if credential_id in entries:
                entries[credential_id].quotas[intern(bucket)] = _quota(remaining, *moments)


def _quota(
    remaining: int | None,
    cooling_until: datetime | None,
    resets_at: datetime | None,
    measured_at: datetime | None,
) -> Quota:
    """A spent bucket without a cool-down (an imported one) rests until it may have been reset."""
    if remaining is None or remaining > 0 or cooling_until:
        return Quota(remaining, _timestamp(cooling_until))
    measured = _timestamp(measured_at)
    return Quota(remaining, _timestamp(resets_at) or (measured + SPENT_FOR if measured else 0.0))


def count() -> int:
    return Credential.objects.count()


def stamps(since: datetime | None = None) -> dict[int, datetime]:
    """When each credential was changed last, by id; of all, or those changed after ``since``."""
    rows = Credential.objects.all()
    if since is not None:
        rows = rows.filter(updated_at__gt=since)
    return dict(rows.values_list("id", "updated_at"))


def load() -> Snapshot:
    """Every credential."""
    rows = Credential.objects.order_by("id").values(*COLUMNS)
    entries = {row["id"]: _entry(row) for row in rows.iterator(chunk_size=5000)}
    stamps = (entry.stamp for entry in entries.values())
    newest = max((stamp for stamp in stamps if isinstance(stamp, datetime)), default=None)
    if entries:
        _attach_quotas(entries, all_of_them=True)
    return Snapshot(tuple(entries.values()), newest)


def load_ids(ids: Iterable[int]) -> tuple[Entry, ...]:
    """The credentials with these ids; one that is gone is not among them."""
    wanted = list(ids)
    entries: dict[int, Entry] = {}
    for start in range(0, len(wanted), CHUNK):
        rows = Credential.objects.filter(id__in=wanted[start : start + CHUNK]).values(*COLUMNS)
        entries |= {row["id"]: _entry(row) for row in rows}
    if entries:
        _attach_quotas(entries, all_of_them=False)
    return tuple(entries.values())


@dataclass(frozen=True, slots=True)
class QuotaChange:
    """``cooling_until`` (Unix time) None: not to be written, the stored one may be another's.

    ``reading`` is there when the number is upstream's own and not an estimate.
    """

    remaining: int | None
    cooling_until: float | None
    reading: Reading | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One credential's pending writes, taken off the live entry.

    All but the uses were learnt at ``revision``; they are void if the operator has changed
    the row since. ``status`` is the new one with its reason, None for no change. ``stamp``
    is the entry's: the row as it was last read.
    """

    id: int
    uses: int
    columns: dict[str, Any]
    status: tuple[Status, str] | None
    quotas: dict[str, QuotaChange]
    revision: int = 0
    stamp: object = None


def take_changes(entry: Entry) -> Change:
    """Collect and clear what ``entry`` has to write; runs on the event loop."""
    pending, entry.pending_columns = entry.pending_columns, frozenset()
    uses, entry.pending_uses = entry.pending_uses, 0
    available = {
        "fail_count": entry.failures,
        "last_failed_at": _moment(entry.last_failed),
        "last_fail_reason": entry.last_reason,
        "resting_until": _moment(entry.resting_until),
        "user_id": entry.user_id,
        "team_id": entry.team_id,
    }
    columns: dict[str, Any] = {k: value for k, value in available.items() if k in pending}
    if uses:
        columns["last_used_at"] = _moment(entry.last_used)
    return Change(
        entry.id,
        uses,
        columns,
        _status(entry, pending),
        _take_quotas(entry),
        entry.revision,
        entry.stamp,
    )


def _status(entry: Entry, pending: Set[str]) -> tuple[Status, str] | None:
    if "status" not in pending or entry.disabled:
        return None
    return (Status.ACTIVE, "") if entry.active else (Status.INVALID, entry.invalid_reason)


def _take_quotas(entry: Entry) -> dict[str, QuotaChange]:
    taken = {}
    for bucket, quota in entry.quotas.items():
        if quota.dirty or quota.cooling_dirty:
            cooling = quota.cooling_until if quota.cooling_dirty else None
            quota.dirty = quota.cooling_dirty = False
            reading, quota.reading = quota.reading, None
            if len(bucket) <= MAX_BUCKET:
                taken[bucket] = QuotaChange(quota.to_store(), cooling, reading)
    return taken


def put_back(entry: Entry, change: Change) -> None:
    """Undo ``take_changes`` after a failed write, so that the next batch retries it."""
    entry.pending_uses += change.uses
    entry.pending_columns |= set(change.columns) - {"last_used_at"}
    if change.status is not None:
        entry.pending_columns |= {"status"}
    for bucket, taken in change.quotas.items():
        quota = entry.quota(bucket)
        quota.dirty = True
        quota.reading = quota.reading or taken.reading
        quota.cooling_dirty = quota.cooling_dirty or taken.cooling_until is not None
        entry.pending_columns |= {"quotas"}


@dataclass(frozen=True, slots=True)
class _Row:
    """What is stored now; the row is locked until the transaction ends."""

    revision: int
    status: str
    updated_at: datetime


@transaction.atomic
def write(changes: Iterable[Change], *, revise: bool = False) -> dict[int, datetime]:
    """Write a batch in one transaction; raises django.db.Error.

    What the operator changed or deleted meanwhile stays so; only uses are counted in any
    case. Rows are locked in the order of their ids, so that two writers never wait for each
    other. ``revise`` makes the batch a change that outranks what workers know. Gives the new
    ``updated_at`` of the rows in which nobody else has changed anything since they were read.
    """
    now = timezone.now()
    batch = sorted(changes, key=lambda change: change.id)
    stored = _lock([change.id for change in batch])
    updates: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    quotas: dict[tuple[str, ...], list[BucketQuota]] = defaultdict(list)
    for change in batch:
        if (row := stored.get(change.id)) is None:
            continue
        holds = row.revision == change.revision
        values = _values(change, row, now, holds=holds, revise=revise)
        updates[tuple(sorted(values))].append(values | {"id": change.id})
        for bucket, taken in sorted(change.quotas.items()) if holds else ():
            quotas[_columns(taken)].append(_quota_row(change.id, bucket, taken, now))
    for names, rows in sorted(updates.items()):
        _update(names, rows)
    for columns, quota_rows in sorted(quotas.items()):
        _upsert(quota_rows, list(columns))
    return {c.id: now for c in batch if c.id in stored and stored[c.id].updated_at == c.stamp}


def _lock(ids: list[int]) -> dict[int, _Row]:
    found: dict[int, _Row] = {}
    for start in range(0, len(ids), CHUNK):
        rows = Credential.objects.filter(pk__in=ids[start : start + CHUNK]).order_by("pk")
        columns = ("pk", "revision", "status", "updated_at")
        for key, *values in rows.select_for_update().values_list(*columns):
            found[key] = _Row(*values)
    return found


ADDED = frozenset({"use_count", "revision"})
"""Columns to which is added what is written."""


def _values(
    change: Change, row: _Row, now: datetime, *, holds: bool, revise: bool
) -> dict[str, Any]:
    """Column to value. Unless it still ``holds``, what was learnt is left out."""
    values: dict[str, Any] = {"updated_at": now}
    if change.uses:
        values |= {"use_count": change.uses, "last_used_at": change.columns["last_used_at"]}
    if not holds:
        return values
    values |= change.columns
    if change.status is not None and row.status != Status.DISABLED:
        values["status"], values["status_reason"] = change.status
    if revise:
        values["revision"] = 1
    return values


def _update(names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """One plain statement for all: Django's own way costs several times the CPU per row."""
    quoted = connection.ops.quote_name
    sums = (f"{quoted(name)} + %s" if name in ADDED else "%s" for name in names)
    assignments = ", ".join(f"{quoted(n)} = {value}" for n, value in zip(names, sums, strict=True))
    table = quoted(Credential._meta.db_table)
    statement = f"UPDATE {table} SET {assignments} WHERE {quoted('id')} = %s"  # noqa: S608 - our own names
    by_name = {field.name: field for field in Credential._meta.concrete_fields}
    fields = [by_name[name] for name in (*names, "id")]
    with connection.cursor() as cursor:
        cursor.executemany(
            statement,
            [[f.get_db_prep_save(row[f.name], connection) for f in fields] for row in rows],
        )


def _columns(taken: QuotaChange) -> tuple[str, ...]:
    """A number of our own counting leaves total and reset time as upstream last said them."""
    columns: tuple[str, ...] = ("remaining", "source", "measured_at")
    if taken.reading is not None:
        columns += ("total", "resets_at")
    if taken.cooling_until is not None:
        columns += ("cooling_until",)
    return columns


def _upsert(quotas: list[BucketQuota], columns: list[str]) -> None:
    """MySQL resolves conflicts by any unique key and refuses to be told which."""
    targeted = connection.features.supports_update_conflicts_with_target
    BucketQuota.objects.bulk_create(
        quotas,
        batch_size=CHUNK,
        update_conflicts=True,
        update_fields=columns,
        unique_fields=["credential", "bucket"] if targeted else None,
    )


def _quota_row(credential_id: int, bucket: str, taken: QuotaChange, now: datetime) -> BucketQuota:
    reading = taken.reading
    return BucketQuota(
        credential_id=credential_id,
        bucket=bucket,
        remaining=taken.remaining,
        total=reading.total if reading else None,
        resets_at=_moment(reading.resets_at or 0.0) if reading else None,
        cooling_until=_moment(taken.cooling_until or 0.0),
        source=BucketQuota.Source.UPSTREAM if reading else BucketQuota.Source.ESTIMATE,
        measured_at=now,
    )

"""How one batch of imported entries becomes rows: what is new, what changes, what stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Model

from pool.crypto import WrongKey, sealed_columns, unseal
from pool.entries import ANY_BUCKET, HEAVY
from pool.fingerprints import hint
from pool.models import BucketQuota, Credential, Status
from pool.token_items import Details, Parsed


@dataclass(slots=True)
class Plan:
    """What to write for one batch. ``changed`` maps a row to the columns that differ."""

    new: list[Credential] = field(default_factory=list)
    changed: list[tuple[Credential, frozenset[str]]] = field(default_factory=list)
    unchanged: int = 0
    new_quotas: list[BucketQuota] = field(default_factory=list)
    changed_quotas: list[BucketQuota] = field(default_factory=list)


def plan_batch(batch: Mapping[str, Parsed], now: datetime) -> Plan:
    """Compare entries by fingerprint with the stored rows; two queries, no writes."""
    plan = Plan()
    stored = {row.fingerprint: row for row in Credential.objects.filter(fingerprint__in=batch)}
    quotas = _stored_quotas(row for key, row in stored.items() if _quotas(batch[key].details))
    for key, entry in batch.items():
        row = stored.get(key)
        if row is None:
            row = _new_row(key, entry, now)
            plan.new.append(row)
            plan.new_quotas += [_new_quota(row, *item, entry) for item in _quotas(entry.details)]
        else:
            quotas_differ = _plan_quotas(plan, row, entry, quotas)
            _plan_change(plan, row, entry, quotas_differ)
    return plan


def write(plan: Plan) -> None:
    """Apply a plan in one transaction. Raises IntegrityError when somebody else added first."""
    with transaction.atomic():
        Credential.objects.bulk_create(plan.new)
        _give_keys(plan)
        _update(plan.changed)
        BucketQuota.objects.bulk_create(plan.new_quotas)
        _upsert(
            BucketQuota, plan.changed_quotas, ["credential", "bucket"], ["remaining", "measured_at"]
        )


def _new_row(key: str, entry: Parsed, now: datetime) -> Credential:
    details = entry.details
    return Credential(
        kind=entry.kind,
        **sealed_columns(entry.secret.value),
        fingerprint=key,
        hint=hint(entry.secret.identity),
        status=details.status or Status.ACTIVE,
        user_id=details.user_id,
        note=details.note or "",
        tags=details.tags or [],
        legacy=details.legacy,
        use_count=details.use_count,
        fail_count=details.fail_count,
        last_used_at=details.last_used_at,
        last_failed_at=details.last_failed_at,
        last_fail_reason=details.last_fail_reason,
        created_at=details.created_at or now,
    )


def _plan_change(plan: Plan, row: Credential, entry: Parsed, quotas_differ: bool) -> None:
    wanted = _wanted(row, entry)
    differing = {name: value for name, value in wanted.items() if getattr(row, name) != value}
    if "sealed" in differing:
        # The stored label may be another by the time this is written, so both are.
        differing["sealed_with"] = wanted["sealed_with"]
    if not differing and not quotas_differ:
        plan.unchanged += 1
        return
    if quotas_differ or "status" in differing:
        # The operator's own file outranks what workers have learnt and not written yet.
        differing["revision"] = row.revision + 1
    for name, value in differing.items():
        setattr(row, name, value)
    plan.changed.append((row, frozenset(differing)))


def _wanted(row: Credential, entry: Parsed) -> dict[str, object]:
    """The columns an import has a say in.

    Counters, and a status other than invalid, are left alone: what this pool has seen of
    the credential is fresher than any file.
    """
    details = entry.details
    wanted: dict[str, object] = {"kind": entry.kind.value}
    if row.status == Status.INVALID and details.status not in (Status.INVALID, Status.DISABLED):
        wanted |= {"status": Status.ACTIVE.value, "status_reason": "", "fail_count": 0}
        wanted["resting_until"] = None
    if details.note is not None:
        wanted["note"] = details.note
    if details.tags is not None:
        wanted["tags"] = details.tags
    if details.user_id:
        wanted["user_id"] = details.user_id
    if details.legacy:
        wanted["legacy"] = {**row.legacy, **details.legacy}
    if _needs_sealing(row, entry):
        wanted |= sealed_columns(entry.secret.value)
    return wanted


def _needs_sealing(row: Credential, entry: Parsed) -> bool:
    """A secret whose key was lost is stored anew; a bare token never replaces a pair."""
    try:
        stored = unseal(row.sealed)
    except WrongKey:
        return True
    return _is_pair(entry) and stored != entry.secret.value


def _is_pair(entry: Parsed) -> bool:
    return entry.secret.value != entry.secret.identity


def _quotas(details: Details) -> list[tuple[str, int]]:
    """Buckets and what is left in them: an old token.json knows two numbers and no buckets.

    ``quota`` stood for everything but grok-4-heavy (http-contract 8).
    """
    known = ((ANY_BUCKET, details.quota), (HEAVY, details.heavy_quota))
    return [(bucket, remaining) for bucket, remaining in known if remaining is not None]


def _new_quota(row: Credential, bucket: str, remaining: int, entry: Parsed) -> BucketQuota:
    return BucketQuota(
        credential=row,
        bucket=bucket,
        remaining=remaining,
        source=BucketQuota.Source.IMPORT,
        measured_at=entry.details.measured_at,
    )


def _stored_quotas(rows: Iterable[Credential]) -> dict[tuple[int, str], BucketQuota]:
    wanted = [row.pk for row in rows]
    if not wanted:
        return {}
    found = BucketQuota.objects.filter(credential_id__in=wanted, bucket__in=[ANY_BUCKET, HEAVY])
    return {(quota.credential_id, quota.bucket): quota for quota in found}


def _plan_quotas(
    plan: Plan, row: Credential, entry: Parsed, stored: Mapping[tuple[int, str], BucketQuota]
) -> bool:
    """Imported numbers replace imported numbers only; a measured one is fresher."""
    before = len(plan.new_quotas) + len(plan.changed_quotas)
    for bucket, remaining in _quotas(entry.details):
        quota = stored.get((row.pk, bucket))
        if quota is None:
            plan.new_quotas.append(_new_quota(row, bucket, remaining, entry))
        elif quota.source == BucketQuota.Source.IMPORT and quota.remaining != remaining:
            plan.changed_quotas.append(_new_quota(row, bucket, remaining, entry))
    return len(plan.new_quotas) + len(plan.changed_quotas) > before


def _give_keys(plan: Plan) -> None:
    """Primary keys for new rows whose quotas need them: MySQL does not return them."""
    if any(quota.credential.pk is None for quota in plan.new_quotas):
        keys = dict(
            Credential.objects.filter(
                fingerprint__in=[row.fingerprint for row in plan.new]
            ).values_list("fingerprint", "pk")
        )
        for row in plan.new:
            row.pk = keys[row.fingerprint]
    for quota in plan.new_quotas:
        quota.credential_id = quota.credential.pk


def _update(changed: Iterable[tuple[Credential, frozenset[str]]]) -> None:
    """Each row gets exactly its changed columns, so that nobody else's write is undone."""
    groups: dict[frozenset[str], list[Credential]] = defaultdict(list)
    for row, columns in changed:
        twin = copy(row)
        twin.pk = None
        groups[columns].append(twin)
    for columns, rows in groups.items():
        _upsert(Credential, rows, ["fingerprint"], [*sorted(columns), "updated_at"])


def _upsert(model: type[Model], rows: list[Any], unique: list[str], columns: list[str]) -> None:
    """Write columns of many rows at once, found by their unique columns (no primary keys).

    An insert that meets its own row and updates it: bulk_update's CASE per row takes six
    times as long.
    """
    # MySQL resolves conflicts by any unique key and refuses to be told which.
    targeted = connection.features.supports_update_conflicts_with_target
    model._default_manager.bulk_create(
        rows,
        update_conflicts=True,
        update_fields=columns,
        unique_fields=unique if targeted else None,
    )

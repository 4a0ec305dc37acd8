"""What an operator does to credentials by hand; every worker follows within two seconds.

Each counts up ``revision``, so that it outranks what workers have learnt and not written.
All of them take any query set of credentials and return how many rows they changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from pool.models import BucketQuota, Credential, Status

Credentials = QuerySet[Credential]
CHUNK = 500


def disable(credentials: Credentials) -> int:
    return _change(credentials.exclude(status=Status.DISABLED), status=Status.DISABLED)


def enable(credentials: Credentials) -> int:
    """Also brings back what was retired as invalid."""
    return _change(
        credentials.filter(status__in=[Status.DISABLED, Status.INVALID]),
        status=Status.ACTIVE,
        status_reason="",
        fail_count=0,
        resting_until=None,
    )


def clear_cooldown(credentials: Credentials) -> int:
    """Whatever rests or cools may be used again; what is left in a spent bucket is unknown."""
    now = timezone.now()
    waiting = Q(resting_until__gt=now) | Q(quotas__cooling_until__gt=now) | Q(quotas__remaining=0)

    def free(quotas: QuerySet[BucketQuota]) -> None:
        quotas.filter(remaining=0).update(remaining=None, cooling_until=None, source="")
        quotas.filter(cooling_until__gt=now).update(cooling_until=None)

    return _with_quotas(credentials.filter(waiting), free, resting_until=None, fail_count=0)


def reset_quota(credentials: Credentials) -> int:
    """Forget every number: unknown, until upstream is asked or refuses."""

    def forget(quotas: QuerySet[BucketQuota]) -> None:
        quotas.update(
            remaining=None, total=None, source="", measured_at=None, resets_at=None,
            cooling_until=None,
        )  # fmt: skip

    return _with_quotas(credentials.filter(quotas__isnull=False), forget)


def delete(credentials: Credentials) -> int:
    """Out of the record; requests that run with one of them may still finish."""
    return credentials.delete()[1].get("pool.Credential", 0)


def save_edit(credential: Credential, columns: list[str]) -> None:
    """Write the edited ``columns`` of one row and nothing else.

    Only a status is about what workers have learnt; a note must not undo a cool-down.
    """
    if "status" in columns:
        credential.revision = F("revision") + 1
        columns = [*columns, "revision"]
    credential.save(update_fields=[*columns, "updated_at"])


def _change(credentials: Credentials, **columns: Any) -> int:
    return credentials.update(**columns, revision=F("revision") + 1, updated_at=timezone.now())


@transaction.atomic
def _with_quotas(
    credentials: Credentials, change: Callable[[QuerySet[BucketQuota]], None], **columns: Any
) -> int:
    """Rows are taken in steps: parameters are limited, and MySQL updates no joined table."""
    ids = sorted(set(credentials.values_list("pk", flat=True)))
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        _change(Credential.objects.filter(pk__in=part), **columns)
        change(BucketQuota.objects.filter(credential_id__in=part))
    return len(ids)

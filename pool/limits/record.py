"""Daily use in the database: read, add, reset. Synchronous; all raise django.db.Error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from pool.limits.book import KeyDay, Recorded
from pool.limits.charges import Charge
from pool.limits.day import date_of
from pool.models import ClientKey, KeyUsage

CHUNK = 500
"""Rows per transaction."""


def load(day: int, changed_since: datetime | None = None) -> list[Recorded]:
    """The use of all keys on a day, or only what changed at or after an instant."""
    rows = KeyUsage.objects.filter(day=date_of(day))
    if changed_since is not None:
        rows = rows.filter(updated_at__gte=changed_since)
    columns = rows.values_list("key_id", "pk", "chat", "heavy", "image", "video")
    return [Recorded(key_id, day, row, Charge(*used)) for key_id, row, *used in columns]


def chunks(use: Mapping[KeyDay, Charge]) -> Iterable[dict[KeyDay, Charge]]:
    """Parts that ``write`` takes; in one order everywhere, so that writers do not deadlock."""
    rest = iter(sorted(use.items()))
    while part := dict(islice(rest, CHUNK)):
        yield part


def write(use: Mapping[KeyDay, Charge]) -> None:
    """Add to what is there, all or nothing. Use of keys that are gone is dropped."""
    with transaction.atomic():
        ids = {key_id for key_id, _ in use}
        alive = set(ClientKey.objects.filter(pk__in=ids).values_list("pk", flat=True))
        wanted = {where: used for where, used in use.items() if where[0] in alive}
        missing = wanted.keys() - _present(wanted)
        _make_rows(missing)
        for where, used in wanted.items():
            # A reset may have put another row in the place of the one that was there.
            if not _add(where, used):
                _make_rows([where])
                _add(where, used)


def _present(wanted: Iterable[KeyDay]) -> set[KeyDay]:
    numbers = {date_of(day): day for _, day in wanted}
    ids = {key_id for key_id, _ in wanted}
    rows = KeyUsage.objects.filter(day__in=numbers, key_id__in=ids).values_list("key_id", "day")
    return {(key_id, numbers[day]) for key_id, day in rows}


def _make_rows(where: Iterable[KeyDay]) -> None:
    rows = [KeyUsage(key_id=key_id, day=date_of(day)) for key_id, day in sorted(where)]
    KeyUsage.objects.bulk_create(rows, ignore_conflicts=True)


def _add(where: KeyDay, used: Charge) -> bool:
    key_id, day = where
    row = KeyUsage.objects.filter(key_id=key_id, day=date_of(day))
    return bool(
        row.update(
            chat=F("chat") + used.chat,
            heavy=F("heavy") + used.heavy,
            image=F("image") + used.image,
            video=F("video") + used.video,
            updated_at=timezone.now(),
        )
    )


def reset(key_ids: Iterable[int], day: int) -> None:
    """Begin the day anew: empty rows in the place of the old ones.

    Row numbers only grow, which is how every worker sees that this is no older reading.
    """
    with transaction.atomic():
        ids = list(ClientKey.objects.filter(pk__in=list(key_ids)).values_list("pk", flat=True))
        KeyUsage.objects.filter(key_id__in=ids, day=date_of(day)).delete()
        _make_rows((key_id, day) for key_id in ids)

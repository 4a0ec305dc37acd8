"""Sealing every stored secret anew with the current key, while the service runs.

What is done is told by the rows themselves, so a run that ends anywhere is gone on with by
the next one, and two may run at once: each row is written only if its secret is still the
one that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from pool.crypto import WrongKey, key_ids, open_sealed, sealed_columns
from pool.models import Credential

BATCH = 200
"""Rows per transaction: others wait for one, on SQLite with every write."""
MAX_BATCH = 5000
MAX_LISTED = 1000
_TRIES = 5
"""How often a row is tried again that somebody else changed in between."""


@dataclass(frozen=True, slots=True)
class Row:
    """A credential as it was read."""

    id: int
    sealed: bytes = field(repr=False)
    sealed_with: str
    hint: str


@dataclass(slots=True)
class RotationReport:
    """Counts of credentials, by what was found: each is in one of the first three.

    ``resealed`` in a dry run are those that would have been. ``unopenable`` lists ids and
    hints of those that no key opens, at most ``MAX_LISTED``; their count is all of them.
    ``left`` is how many are still not sealed with the current key, asked of the database in
    the end.
    """

    current: int = 0
    resealed: int = 0
    unopenable_count: int = 0
    unopenable: list[tuple[int, str]] = field(default_factory=list)
    left: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the current key alone opens everything."""
        return not self.left and not self.unopenable_count

    def note_unopenable(self, row: Row) -> None:
        self.unopenable_count += 1
        if len(self.unopenable) < MAX_LISTED:
            self.unopenable.append((row.id, row.hint))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "complete": self.is_complete,
            "current": self.current,
            "resealed": self.resealed,
            "unopenable_count": self.unopenable_count,
            "unopenable": [{"id": number, "hint": hint} for number, hint in self.unopenable],
            "left": self.left,
        }


def rotate(
    *,
    batch_size: int = BATCH,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda seen, total: None,
) -> RotationReport:
    """Look at every credential and seal with the current key what is not (blocking).

    ``progress`` is given how many were looked at and how many there are, once per batch.
    Raises django.db.Error; what was done until then stays done.
    """
    report = RotationReport()
    missed: list[int] = []
    seen, total = 0, Credential.objects.count()
    for rows in batches(batch_size):
        stale = open_stale(rows, report)
        if dry_run:
            report.resealed += len(stale)
        else:
            missed += reseal(stale, report)
        seen += len(rows)
        progress(seen, max(seen, total))
    undone = sum(not _reseal_one(number, report) for number in missed)
    report.left = max(undone, Credential.objects.exclude(sealed_with=key_ids()[0]).count())
    return report


def batches(size: int) -> Iterator[list[Row]]:
    """Every credential in the order of ids; each batch is read when it is asked for."""
    last = 0
    while rows := _read(Credential.objects.filter(pk__gt=last).order_by("pk")[:size]):
        yield rows
        last = rows[-1].id


def _read(wanted: QuerySet[Credential]) -> list[Row]:
    found = wanted.values_list("pk", "sealed", "sealed_with", "hint")
    return [Row(number, bytes(sealed), label, hint) for number, sealed, label, hint in found]


def open_stale(rows: list[Row], report: RotationReport) -> list[tuple[Row, str]]:
    """Those to seal anew with their clear texts; the others are counted.

    A row that claims the current key is opened too: the older keys are given up for good
    on the strength of this.
    """
    current = key_ids()[0]
    stale = []
    for row in rows:
        try:
            opened = open_sealed(row.sealed)
        except WrongKey:
            report.note_unopenable(row)
            continue
        if opened.key_id == row.sealed_with == current:
            report.current += 1
        else:
            stale.append((row, opened.secret))
    return stale


def reseal(stale: list[tuple[Row, str]], report: RotationReport) -> list[int]:
    """One transaction; the ids of the rows that somebody else held or has changed.

    It never waits for a row while it holds others: an import, which takes them in another
    order, could be waiting for those.
    """
    with transaction.atomic():
        free = _lock_free([row.id for row, _ in stale])
        missed = [row.id for row, secret in stale if row.id not in free or not _write(row, secret)]
    report.resealed += len(stale) - len(missed)
    return missed


def _lock_free(ids: list[int]) -> frozenset[int]:
    """Those that are locked now; where there are no row locks the transaction has them all."""
    features = connection.features
    if not features.has_select_for_update or not ids:
        return frozenset(ids)
    rows = Credential.objects.filter(pk__in=ids).order_by("pk")
    locked = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    return frozenset(locked.values_list("pk", flat=True))


def _write(row: Row, secret: str) -> bool:
    """Whether the row was still as it was read; an operator's newer secret is left alone."""
    same = Credential.objects.filter(pk=row.id, sealed=row.sealed)
    return bool(same.update(**sealed_columns(secret), updated_at=timezone.now()))


def _reseal_one(number: int, report: RotationReport) -> bool:
    """Wait for a row that somebody held, holding nothing; look again at what they made of it."""
    for _ in range(_TRIES):
        stale = open_stale(_read(Credential.objects.filter(pk=number)), report)
        if not stale:
            return True
        if _write(*stale[0]):
            report.resealed += 1
            return True
    return False

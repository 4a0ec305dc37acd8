"""Imports credentials: adds or updates, never deletes; bad entries do not stop good ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from io import BytesIO
from typing import BinaryIO, Literal

from django.db import IntegrityError

from pool.fingerprints import fingerprint
from pool.import_report import ImportReport
from pool.import_rows import plan_batch, write
from pool.models import Kind
from pool.token_formats import open_source
from pool.token_items import Parsed, Rejected

# Small enough that a batch's fingerprints fit the 999 parameters of an old SQLite.
BATCH_SIZE = 500


def import_credentials(
    source: BinaryIO | bytes | str,
    kind: Kind | str,
    *,
    now: datetime,
    batch_size: int = BATCH_SIZE,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Read any of the formats of ``token_formats`` and store what is good in it (blocking).

    ``kind`` is for entries whose file does not say; ``now`` dates new rows; ``progress``
    is given the number of entries seen, once per batch. Raises FormatError, before
    anything is written, when the input as a whole cannot be read.
    """
    if isinstance(source, str):
        source = source.encode("utf-8", "surrogatepass")
    stream = BytesIO(source) if isinstance(source, bytes) else source
    opened = open_source(stream, Kind(kind))
    return import_entries(
        opened.entries,
        now=now,
        unit=opened.unit,
        batch_size=batch_size,
        dry_run=dry_run,
        progress=progress,
    )


def import_entries(
    entries: Iterable[Parsed | Rejected],
    *,
    now: datetime,
    unit: Literal["line", "item"] = "item",
    batch_size: int = BATCH_SIZE,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Store parsed entries batch by batch; each batch is a transaction of its own."""
    report = ImportReport(unit=unit)
    seen: set[bytes] = set()
    batch: dict[str, Parsed] = {}
    for entry in entries:
        _sort_in(entry, batch, seen, report)
        if len(batch) >= batch_size:
            _store(batch, now, dry_run, report)
            batch = {}
            if progress is not None:
                progress(report.total)
    _store(batch, now, dry_run, report)
    if progress is not None:
        progress(report.total)
    return report


def _sort_in(
    entry: Parsed | Rejected, batch: dict[str, Parsed], seen: set[bytes], report: ImportReport
) -> None:
    if isinstance(entry, Rejected):
        report.note_rejected(entry)
        return
    key = fingerprint(entry.kind, entry.secret.identity)
    # Half of the hash is as good as all of it for telling lines apart, and half the memory.
    brief = bytes.fromhex(key[:32])
    if brief in seen:
        report.note_duplicate(entry.number)
        return
    seen.add(brief)
    batch[key] = entry


def _store(batch: dict[str, Parsed], now: datetime, dry_run: bool, report: ImportReport) -> None:
    plan = plan_batch(batch, now)
    if not dry_run:
        try:
            write(plan)
        except IntegrityError:
            # Another import added one of these between our look and our write; look again.
            plan = plan_batch(batch, now)
            write(plan)
    report.added += len(plan.new)
    report.updated += len(plan.changed)
    report.unchanged += plan.unchanged

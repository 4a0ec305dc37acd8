"""``manage.py import_tokens PATH|- --pool KIND``: put credentials into the pool."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pool.checks import has_tables
from pool.import_report import ImportReport
from pool.importing import import_credentials
from pool.token_formats import POOL_NAMES, FormatError

_SHOWN = 20


class Command(BaseCommand):
    """Exit code 1 when the input is unreadable or nothing in it could be imported."""

    help = str(_("Adds or updates credentials from a file; never deletes any."))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", metavar="PATH", help=str(_("A file, or - for stdin.")))
        parser.add_argument(
            "--pool",
            required=True,
            choices=list(POOL_NAMES),
            help=str(_("The pool of entries whose file does not say.")),
        )
        parser.add_argument("--json", action="store_true", help=str(_("Report as JSON.")))
        parser.add_argument("--dry-run", action="store_true", help=str(_("Write nothing.")))

    def handle(self, *args: Any, **options: Any) -> None:
        if not has_tables():
            raise CommandError(_("The database has no tables yet: run manage.py migrate first."))
        with self._progress() as progress:
            report = self._import(options, progress)
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict()))
        else:
            self._summarise(report, options["dry_run"])
        if not report.accepted:
            raise CommandError(_("Nothing could be imported."))

    def _import(
        self, options: dict[str, Any], progress: Callable[[int], None] | None
    ) -> ImportReport:
        try:
            with _opened(options["path"]) as stream:
                return import_credentials(
                    stream,
                    POOL_NAMES[options["pool"]],
                    now=timezone.now(),
                    dry_run=options["dry_run"],
                    progress=progress,
                )
        except OSError as error:
            reason = {"path": options["path"], "reason": error.strerror}
            raise CommandError(_("Cannot read %(path)s: %(reason)s") % reason) from None
        except FormatError as error:
            raise CommandError(str(error.reason)) from None

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int], None] | None]:
        """A running count on stderr while somebody is watching it."""
        if not self.stderr.isatty():
            yield None
            return

        def show(seen: int) -> None:
            self.stderr.write(f"\r{seen}", style_func=str, ending="")
            self.stderr.flush()

        yield show
        self.stderr.write("", style_func=str)

    def _summarise(self, report: ImportReport, dry_run: bool) -> None:
        counts = {
            "added": report.added,
            "updated": report.updated,
            "unchanged": report.unchanged,
            "duplicate": report.duplicate_count,
            "rejected": report.rejected_count,
        }
        line = _(
            "%(added)d added, %(updated)d updated, %(unchanged)d unchanged, "
            "%(duplicate)d duplicate, %(rejected)d rejected"
        )
        self.stdout.write(line % counts)
        if dry_run:
            self.stdout.write(str(_("Dry run: nothing was written.")))
        self._list_refused(report)

    def _list_refused(self, report: ImportReport) -> None:
        unit = _("line") if report.unit == "line" else _("item")
        for rejected in report.rejected:
            self.stdout.write(f"{unit} {rejected.number}: {rejected.reason}")
        if report.duplicates:
            shown = ", ".join(map(str, report.duplicates[:_SHOWN]))
            more = ", …" if report.duplicate_count > _SHOWN else ""
            self.stdout.write(_("duplicates at %s") % f"{unit} {shown}{more}")


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as stream:
        yield stream

"""``manage.py prune_ledger [--days N]``: delete old records of requests now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from gateway import conf
from gateway.ledger.retention import prune
from pool.checks import has_tables

_MAX_DAYS = 36_500


class Command(BaseCommand):
    """What the service does by itself every few minutes; the sums of the days stay."""

    help = str(_("Deletes records of requests that are older than some days."))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days", type=int, help=str(_("Days to keep; ledger.retention_days if not given."))
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not has_tables():
            raise CommandError(_("The database has no tables yet: run manage.py migrate first."))
        days = options["days"]
        if days is None:
            days = _configured_days()
        if not 0 <= days <= _MAX_DAYS:
            raise CommandError(_("--days must be from 0 to %d") % _MAX_DAYS)
        try:
            with self._progress() as progress:
                count = prune(timezone.now(), days, progress)
        except Error as error:
            raise CommandError(_("The database cannot be used: %s") % error) from error
        self.stdout.write(ngettext("%d record deleted.", "%d records deleted.", count) % count)

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int], None] | None]:
        """A running count on stderr while somebody is watching it."""
        if not self.stderr.isatty():
            yield None
            return

        def show(deleted: int) -> None:
            self.stderr.write(f"\r{deleted}", style_func=str, ending="")
            self.stderr.flush()

        yield show
        self.stderr.write("", style_func=str)


def _configured_days() -> int:
    try:
        return conf.live.load(settings.DATA_DIR).config.ledger.retention_days
    except conf.ConfigError as error:
        raise CommandError(str(error)) from None

"""``manage.py rotate_encryption``: seal every stored secret with the current secret key."""

from __future__ import annotations

import json
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext_lazy as _

from pool.checks import has_tables
from pool.crypto import key_ids
from pool.rotation import BATCH, MAX_BATCH, RotationReport, rotate

_SHOWN = 20


class Command(BaseCommand):
    """Exit code 1 when there is something left that the current key does not open."""

    help = str(
        _(
            "Encrypts stored credentials anew with the first secret key. The service may run "
            "meanwhile, and an interrupted run is gone on with by the next."
        )
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch",
            metavar="N",
            type=_batch_size,
            default=BATCH,
            help=str(_("Credentials per transaction.")),
        )
        parser.add_argument("--json", action="store_true", help=str(_("Report as JSON.")))
        parser.add_argument("--dry-run", action="store_true", help=str(_("Write nothing.")))

    def handle(self, *args: Any, **options: Any) -> None:
        if not has_tables():
            raise CommandError(_("The database has no tables yet: run manage.py migrate first."))
        with self._progress() as progress:
            report = _rotate(options["batch"], options["dry_run"], progress)
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict()))
        else:
            self._summarise(report, options["dry_run"])
        if report.unopenable_count:
            raise CommandError(_UNOPENABLE)
        if report.left and not options["dry_run"]:
            raise CommandError(_SEALED_MEANWHILE % report.left)

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int, int], None]]:
        """A running count on stderr while somebody is watching it."""
        if not self.stderr.isatty():
            yield lambda seen, total: None
            return
        begun = time.monotonic()

        def show(seen: int, total: int) -> None:
            line = progress_line(seen, total, time.monotonic() - begun)
            self.stderr.write(f"\r{line}", style_func=str, ending="")
            self.stderr.flush()

        yield show
        self.stderr.write("", style_func=str)

    def _summarise(self, report: RotationReport, dry_run: bool) -> None:
        line = _(
            "%(resealed)d encrypted anew, %(current)d already with the current key, "
            "%(unopenable)d that no key opens"
        )
        counts = {
            "resealed": report.resealed,
            "current": report.current,
            "unopenable": report.unopenable_count,
        }
        self.stdout.write(line % counts)
        for number, hint in report.unopenable[:_SHOWN]:
            self.stdout.write(_("credential %(id)d (…%(hint)s)") % {"id": number, "hint": hint})
        if report.unopenable_count > _SHOWN:
            self.stdout.write("…")
        if dry_run:
            self.stdout.write(str(_("Dry run: nothing was written.")))
        if report.is_complete and len(key_ids()) > 1:
            self.stdout.write(str(_MAY_BE_REMOVED))


_MAY_BE_REMOVED = _(
    "The first key alone opens every credential: the older keys may now be removed from "
    "GROK2API_SECRET_KEY or secret.key. Restart the service afterwards."
)
_UNOPENABLE = _(
    "No configured key opens some credentials, which were left as they are. Put the key that "
    "encrypted them back, import them again or delete them, then run this again. Remove no "
    "key yet."
)
_SEALED_MEANWHILE = _(
    "%d credentials were encrypted with an older key meanwhile. Restart whatever still runs "
    "with the former order of the keys, then run this again. Remove no key yet."
)


def _rotate(batch_size: int, dry_run: bool, progress: Callable[[int, int], None]) -> RotationReport:
    try:
        return rotate(batch_size=batch_size, dry_run=dry_run, progress=progress)
    except Error as error:
        reason = _("The database cannot be used: %s. Run this again to go on.")
        raise CommandError(reason % error) from error


def progress_line(seen: int, total: int, seconds: float) -> str:
    """``seen/total``, percent and rows per second, always as wide as the widest before."""
    rate = seen / seconds if seconds > 0 else 0
    return f"{seen}/{total} {seen * 100 // total:3}% {rate:8.0f}/s"


def _batch_size(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= MAX_BATCH:
        return int(text)
    raise ArgumentTypeError(_("a number from 1 to %d") % MAX_BATCH)

"""``manage.py create_api_key --name N``: make a client key and print it, once."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext_lazy as _

from pool.checks import has_tables
from pool.keys import KeyLimits, create_client_key, limits_of
from pool.models import UNLIMITED, ClientKey

_MAX_DAYS = 36_500
_MAX_LIMIT = 2_147_483_647
_LIMITS = {
    "chat": _("Chats per day."),
    "heavy": _("Heavy chats per day."),
    "image": _("Images per day."),
    "video": _("Videos per day."),
    "rpm": _("Requests per minute."),
    "concurrency": _("Requests at the same time."),
}


class Command(BaseCommand):
    """The key alone goes to stdout, so that a shell can capture it."""

    help = str(_("Makes a client key and prints it; it cannot be shown again."))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", required=True, help=str(_("Whose key it is.")))
        expiry = parser.add_mutually_exclusive_group()
        expiry.add_argument("--expires-days", type=int, help=str(_("Days until it expires.")))
        expiry.add_argument(
            "--expires", default="", help=str(_("When it expires: 2027-01-31, or with a time."))
        )
        parser.add_argument(
            "--models", default="", help=str(_("Allowed models, with commas; all if not given."))
        )
        for name, text in _LIMITS.items():
            words = f"{text} {_('-1: unlimited.')}"
            parser.add_argument(f"--{name}", type=int, default=UNLIMITED, help=words)
        parser.add_argument("--json", action="store_true", help=str(_("Report as JSON.")))

    def handle(self, *args: Any, **options: Any) -> None:
        if not has_tables():
            raise CommandError(_("The database has no tables yet: run manage.py migrate first."))
        row, clear = create_client_key(
            _checked_name(options["name"]),
            expires_at=_expiry(options["expires_days"], options["expires"]),
            allowed_models=[name.strip() for name in options["models"].split(",") if name.strip()],
            limits=KeyLimits(**{name: _checked_limit(name, options[name]) for name in _LIMITS}),
        )
        if options["json"]:
            self.stdout.write(json.dumps(_as_dict(row, clear)))
        else:
            self.stdout.write(clear)
            self.stderr.write(str(_("Keep it: it is not stored and cannot be shown again.")))


def _checked_name(name: str) -> str:
    limit = 100
    name = name.strip()
    if not name or len(name) > limit:
        raise CommandError(_("--name must have from 1 to %d characters") % limit)
    return name


def _checked_limit(name: str, limit: int) -> int:
    if not UNLIMITED <= limit <= _MAX_LIMIT:
        raise CommandError(_("--%s must be from -1 to %d") % (name, _MAX_LIMIT))
    return limit


def _expiry(days: int | None, text: str) -> datetime | None:
    if days is not None and not 1 <= days <= _MAX_DAYS:
        raise CommandError(_("--expires-days must be from 1 to %d") % _MAX_DAYS)
    if days is not None:
        return timezone.now() + timedelta(days=days)
    return _checked_moment(text) if text else None


def _checked_moment(text: str) -> datetime:
    """A date means its first instant; without an offset, both are of the process's TZ."""
    try:
        moment = parse_datetime(text)
        if moment is None and (day := parse_date(text)) is not None:
            moment = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - made aware below
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(_("--expires must be a date or a time, such as 2027-01-31T12:00+08:00"))
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment)
    if moment <= timezone.now():
        raise CommandError(_("--expires lies in the past"))
    return moment


def _as_dict(row: ClientKey, clear: str) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": row.name,
        "key": clear,
        "prefix": row.prefix,
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "allowed_models": row.allowed_models,
        "limits": asdict(limits_of(row)),
    }

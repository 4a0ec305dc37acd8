"""``manage.py create_api_key --name N``: make a client key and print it, once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pool.checks import has_tables
from pool.keys import create_client_key
from pool.models import ClientKey

_MAX_DAYS = 36_500


class Command(BaseCommand):
    """The key alone goes to stdout, so that a shell can capture it."""

    help = str(_("Makes a client key and prints it; it cannot be shown again."))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", required=True, help=str(_("Whose key it is.")))
        parser.add_argument("--expires-days", type=int, help=str(_("Days until it expires.")))
        parser.add_argument(
            "--models", default="", help=str(_("Allowed models, with commas; all if not given."))
        )
        parser.add_argument("--json", action="store_true", help=str(_("Report as JSON.")))

    def handle(self, *args: Any, **options: Any) -> None:
        if not has_tables():
            raise CommandError(_("The database has no tables yet: run manage.py migrate first."))
        days = options["expires_days"]
        if days is not None and not 1 <= days <= _MAX_DAYS:
            raise CommandError(_("--expires-days must be from 1 to %d") % _MAX_DAYS)
        row, clear = create_client_key(
            _checked_name(options["name"]),
            expires_at=timezone.now() + timedelta(days=days) if days else None,
            allowed_models=[name.strip() for name in options["models"].split(",") if name.strip()],
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


def _as_dict(row: ClientKey, clear: str) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": row.name,
        "key": clear,
        "prefix": row.prefix,
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "allowed_models": row.allowed_models,
    }

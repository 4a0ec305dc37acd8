"""``manage.py serve``: the one process command."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from grok2api import server
from grok2api.bootstrap import ensure_admin, prepare
from grok2api.env import env_int


class Command(BaseCommand):
    help = "Migrate, bootstrap and serve until SIGINT or SIGTERM."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=os.environ.get("SERVER_HOST") or "127.0.0.1")
        parser.add_argument("--port", type=int, default=env_int("SERVER_PORT", 8000))
        parser.add_argument("--workers", type=int, default=env_int("SERVER_WORKERS", 1))

    def handle(self, *args: Any, **options: Any) -> None:
        config = prepare()
        admin = ensure_admin(config)
        if admin is not None and admin.password is not None:
            self.stdout.write(
                f"Created the admin user {admin.username!r} with the password "
                f"{admin.password!r}. It is shown only this once."
            )
        address = server.Address(options["host"], options["port"])
        self.stdout.write(f"Serving on http://{address.host}:{address.port}")
        self.stdout.flush()
        server.run(address, workers=max(1, options["workers"]), drain_sec=config.server.drain_sec)

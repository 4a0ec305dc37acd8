"""``manage.py serve``: the one process command."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from grok2api import server
from grok2api.bootstrap import ensure_admin, prepare, refuse_demo_data
from grok2api.env import env_int


class Command(BaseCommand):
    help = "Migrate, bootstrap and serve until SIGINT or SIGTERM."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=os.environ.get("SERVER_HOST") or "127.0.0.1")
        parser.add_argument("--port", type=int, default=env_int("SERVER_PORT", 8000))
        parser.add_argument("--workers", type=int, default=env_int("SERVER_WORKERS", 1))

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_demo_data()
        try:
            listener = server.bind(options["host"], options["port"])
        except server.CannotListen as error:
            raise CommandError(str(error)) from error
        config = prepare()
        admin = ensure_admin(config)
        if admin is not None and admin.password is not None:
            self.stdout.write(
                f"Created the admin user {admin.username!r} with the password "
                f"{admin.password!r}. It is shown only this once."
            )
        self.stdout.write(f"Serving on {server.url_of(listener)}")
        self.stdout.flush()
        server.run(listener, workers=max(1, options["workers"]), drain_sec=config.server.drain_sec)

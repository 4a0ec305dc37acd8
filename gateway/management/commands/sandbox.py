"""``manage.py sandbox``: the simulated upstream, on its own."""

from __future__ import annotations

import asyncio
import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.sandbox.behaviours import describe
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import start_sandbox


class Command(BaseCommand):
    help = "Run a simulated grok.com, api.x.ai and Management API until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
        parser.add_argument("--list", action="store_true", help="print the behaviours and exit")
        parser.add_argument(
            "--fixed-quota", action="store_true", help="let no quota fall by being used"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list"]:
            self.stdout.write(describe())
            return
        knobs = SandboxOptions(quota_falls=not options["fixed_quota"])
        try:
            asyncio.run(self._serve(options["host"], options["port"], knobs))
        except OSError as error:
            raise CommandError(f"cannot listen: {error.strerror}") from error

    async def _serve(self, host: str, port: int, knobs: SandboxOptions) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        sandbox = await start_sandbox(host, port, knobs)
        self.stdout.write(sandbox.url)
        self.stdout.flush()
        await stop.wait()
        await sandbox.stop()

"""A worker process that only writes requests; ``test_writing_processes.py`` runs it.

    python -m tests.gateway.ledger.writing

Reads lines: ``append N`` and ``flush`` do so, ``load N`` does both in small batches, ``check``
lists where sums and requests differ. Each is answered with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from random import Random
from typing import Any

import django

SNAPSHOTS = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
}
"""What makes a transaction see one state, by vendor."""


async def serve() -> None:
    from django.db import connection, transaction

    from gateway.ledger.writer import LedgerWriter
    from tests.gateway.ledger.samples import mismatches, mixture

    def check() -> list[str]:
        """At one moment: the last transaction of a killed process may end between two reads."""
        with connection.cursor() as cursor:
            if connection.vendor != "sqlite":
                cursor.execute(SNAPSHOTS[connection.vendor])
            with transaction.atomic():
                return mismatches()

    if connection.vendor == "sqlite":
        connection.settings_dict["OPTIONS"]["timeout"] = 0.2  # for a test that locks the file
    writer = LedgerWriter(delay=lambda: 0.0, cap=lambda: 10_000)
    random = Random(os.getpid())
    failed = 0

    def append(count: int) -> None:
        # Few keys and hours: the processes are to meet in the same rows.
        for each in mixture(random, count, timedelta(hours=5)):
            each.id = f"{os.getpid()}-{each.id}"
            writer.append(each)

    def report(**more: Any) -> None:
        state = {"queued": writer.queued, "failed": failed, **more}
        sys.stdout.write(json.dumps(state) + "\n")
        sys.stdout.flush()

    report()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, number = line.strip().partition(" ")
        if word == "append":
            append(int(number))
        elif word == "flush":
            await writer.flush()
        elif word == "load":
            for _ in range(int(number) // 10):
                append(10)
                await writer.flush()
                failed += bool(writer.queued)
        elif word == "check":
            report(mismatches=await writer.run(check))
            continue
        report()
    await writer.close()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")
    django.setup()
    asyncio.run(serve())

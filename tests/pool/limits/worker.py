"""A worker of a file or of Redis, told what to do by one line of JSON after the other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from pool.limits.book import UsageBook  # noqa: E402
from pool.limits.charges import Charge  # noqa: E402
from pool.limits.day import Days  # noqa: E402
from pool.limits.limiter import KeyLimiter, LimitExceeded, Ticket  # noqa: E402
from pool.limits.local import LocalLimiter  # noqa: E402
from pool.limits.table import KeyTable  # noqa: E402
from tests.pool.limits.samples import CHAT, OFFSET, make_key, make_redis  # noqa: E402
from tests.pool.samples import Clock  # noqa: E402

NAMES = ("chat", "heavy", "image", "video", "rpm", "concurrency")


class Told:
    def __init__(self) -> None:
        self.clock = Clock()
        self.book = UsageBook()
        self.table: KeyTable | None = None
        self.limiter: KeyLimiter
        self.tickets: list[Ticket] = []

    async def do(self, words: dict[str, Any]) -> Any:
        self.clock.now = time.time() if words["now"] is None else words["now"]
        match words["do"]:
            case "open":
                return await self.open(words["where"])
            case "reserve":
                self.tickets.append(await self.reserve(words, Charge(*words["charge"])))
                return len(self.tickets) - 1
            case "settle":
                charge = Charge(*words["charge"]) if words["charge"] else None
                return await self.limiter.settle(self.tickets[words["ticket"]], charge)
            case "release":
                return await self.limiter.release(self.tickets[words["ticket"]])
            case "rush":
                tasks = [self.reserve(words, CHAT) for _ in range(words["requests"])]
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                return sum(isinstance(outcome, Ticket) for outcome in outcomes)
            case "noted":
                return [(key, day, used) for (key, day), used in self.book.take().items()]

    async def open(self, where: str) -> None:
        self.book, self.tickets = UsageBook(), []
        if where.startswith("redis:"):
            url, prefix = where.split(" ")
            store, self.limiter = make_redis(url, f"w{os.getpid()}", prefix, self.clock, self.book)
            await store.beat()
            return
        if self.table is not None:
            self.table.close()
        self.table = KeyTable.open(Path(where))
        days = Days(OFFSET, self.clock)
        self.limiter = LocalLimiter(self.table, days, self.book, clock=self.clock)

    async def reserve(self, words: dict[str, Any], charge: Charge) -> Ticket:
        limits = dict(zip(NAMES, words["limits"], strict=True))
        return await self.limiter.reserve(make_key(words["key"], **limits), charge)


async def answer(told: Told, line: str) -> str:
    try:
        return json.dumps(await told.do(json.loads(line)))
    except LimitExceeded as error:
        return json.dumps({"refused": [error.bucket, error.limit, error.retry_after]})


def main() -> None:
    told = Told()
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            sys.stdout.write(runner.run(answer(told, line)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Keys, clocks, limiters and a Redis of the test's own."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pool.keys import KeyLimits, KeyRecord
from pool.limits.book import UsageBook
from pool.limits.charges import Charge
from pool.limits.day import Days
from pool.limits.limiter import KeyLimiter, LimitExceeded, Ticket
from pool.limits.local import LocalLimiter
from pool.limits.shared import RedisLimiter
from pool.limits.table import KeyTable
from pool.shared.store import SharedStore
from tests.conftest import need
from tests.pool.samples import Clock
from tests.serving import free_port, wait_for

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
CHAT = Charge(chat=1)
OFFSET = 480


def make_key(number: int = 1, **limits: int) -> KeyRecord:
    return KeyRecord(number, f"key-{number}", "sk-test", limits=KeyLimits(**limits))


def make_local(
    table: KeyTable | None = None, clock: Clock | None = None, book: UsageBook | None = None
) -> LocalLimiter:
    clock = clock or Clock()
    table = table or KeyTable.anonymous(64)
    return LocalLimiter(table, Days(OFFSET, clock), book or UsageBook(), clock=clock)


def make_redis(
    url: str, name: str, prefix: str, clock: Clock, book: UsageBook | None = None
) -> tuple[SharedStore, RedisLimiter]:
    """A worker called ``name``; times are all the clock's, also Redis' for the minute."""
    store = SharedStore(url, worker=name, prefix=prefix, timeout=5.0)
    limiter = RedisLimiter(
        store,
        Days(OFFSET, clock),
        book or UsageBook(),
        clock=clock,
        wall=clock,
        redis_time=clock,
    )
    return store, limiter


async def use(limiter: KeyLimiter, key: KeyRecord, charge: Charge = CHAT) -> None:
    ticket = await limiter.reserve(key, charge)
    await limiter.settle(ticket)
    await limiter.release(ticket)


async def refusal(limiter: KeyLimiter, key: KeyRecord, charge: Charge = CHAT) -> LimitExceeded:
    """The refusal of a request that has to be refused."""
    try:
        await limiter.reserve(key, charge)
    except LimitExceeded as error:
        return error
    raise AssertionError("it was admitted")


async def uses_left(limiter: KeyLimiter, key: KeyRecord, charge: Charge = CHAT) -> int:
    """How many reservations fit; they are given back."""
    tickets: list[Ticket] = []
    try:
        while len(tickets) < 1000:
            tickets.append(await limiter.reserve(key, charge))
    except LimitExceeded:
        pass
    for ticket in tickets:
        await limiter.release(ticket)
    return len(tickets)


class Worker(Protocol):
    """A limiter driven step by step; tickets are known by number."""

    def reserve(self, key: KeyRecord, charge: Charge) -> int: ...
    def settle(self, ticket: int, charge: Charge | None) -> None: ...
    def release(self, ticket: int) -> None: ...
    def noted(self) -> dict[tuple[int, int], Charge]:
        """Take what there is to write."""


class Here:
    """A worker in this process."""

    def __init__(self, limiter: KeyLimiter, book: UsageBook, runner: asyncio.Runner) -> None:
        self.limiter, self.book, self.runner = limiter, book, runner
        self.tickets: list[Ticket] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def reserve(self, key: KeyRecord, charge: Charge) -> int:
        self.tickets.append(self.run(self.limiter.reserve(key, charge)))
        return len(self.tickets) - 1

    def settle(self, ticket: int, charge: Charge | None) -> None:
        self.run(self.limiter.settle(self.tickets[ticket], charge))

    def release(self, ticket: int) -> None:
        self.run(self.limiter.release(self.tickets[ticket]))

    def noted(self) -> dict[tuple[int, int], Charge]:
        return self.book.take()


class There:
    """A worker in a process of its own (``tests.pool.limits.worker``), for a file or Redis.

    ``send`` and ``receive`` let several work at the same time.
    """

    def __init__(self, where: Path | str, clock: Clock | None = None) -> None:
        self._clock = clock
        command = [sys.executable, "-m", "tests.pool.limits.worker"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.open(where)

    def open(self, where: Path | str) -> None:
        """Begin anew on another file, or Redis address and prefix."""
        self.ask("open", where=str(where))

    def send(self, do: str, **words: Any) -> None:
        assert self.process.stdin is not None
        now = self._clock.now if self._clock else None
        self.process.stdin.write(json.dumps({"do": do, "now": now, **words}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        reply = json.loads(self.process.stdout.readline())
        if isinstance(reply, dict) and "refused" in reply:
            raise LimitExceeded(*reply["refused"])
        return reply

    def ask(self, do: str, **words: Any) -> Any:
        self.send(do, **words)
        return self.receive()

    def reserve(self, key: KeyRecord, charge: Charge) -> int:
        limits = [*key.limits.daily, key.limits.rpm, key.limits.concurrency]
        ticket: int = self.ask("reserve", key=key.id, limits=limits, charge=charge)
        return ticket

    def settle(self, ticket: int, charge: Charge | None) -> None:
        self.ask("settle", ticket=ticket, charge=charge)

    def release(self, ticket: int) -> None:
        self.ask("release", ticket=ticket)

    def noted(self) -> dict[tuple[int, int], Charge]:
        return {(key, day): Charge(*used) for key, day, used in self.ask("noted")}

    def send_rush(self, key: KeyRecord, requests: int) -> None:
        """Have so many requests made at once; receive how many were admitted."""
        limits = [*key.limits.daily, key.limits.rpm, key.limits.concurrency]
        self.send("rush", key=key.id, limits=limits, requests=requests)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.close()


class RedisServer:
    """A Redis of the test's own, which it may stop. ``stop(keep=True)`` saves the data."""

    def __init__(self, directory: Path) -> None:
        need(shutil.which("redis-server") is not None, "redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._directory)], stdout=subprocess.DEVNULL
        )
        assert wait_for(self._listens, 10)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, *, keep: bool = False) -> None:
        if self._process is not None:
            self.command("SHUTDOWN", "SAVE" if keep else "NOSAVE")
            self._process.wait(10)
            self._process = None
        if not keep:
            (self._directory / "dump.rdb").unlink(missing_ok=True)

    def command(self, *words: str) -> str:
        lines = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(f"*{len(words)}\r\n{lines}".encode())
            return connection.recv(65_536).decode()

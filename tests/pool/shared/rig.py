"""Workers that share a pool, a Redis of the test's own, and a network that can be cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, Self

from pool.entries import Entry, Quota
from pool.errors import NoCredential
from pool.leases import Lane, Lease, Want
from pool.outcomes import SUCCESS, Outcome
from pool.policy import PoolPolicy
from pool.shared.pool import SharedPool
from pool.shared.store import SharedStore
from tests.conftest import need
from tests.pool.samples import Clock, make_entry
from tests.pool.shared.backends import REDIS_URL, Keys, new_prefix

FAST = Lane("sso", "fast")
WANT = Want((FAST,), "grok-4")


def measured(number: int, remaining: int | None) -> Entry:
    return make_entry(number, quotas={"fast": Quota(remaining)})


class Worker:
    """One worker's pool with the task that it needs, unless it ``runs`` in another way; beats
    are given by hand."""

    def __init__(
        self,
        name: str,
        entries: Iterable[Entry],
        *,
        prefix: str,
        url: str = REDIS_URL,
        policy: PoolPolicy | None = None,
        clock: Clock | None = None,
        timeout: float = 5.0,
        seed: int = 1,
        runs: bool = True,
        **options: Any,
    ) -> None:
        policy = policy or PoolPolicy(max_concurrent=2)
        self.clock = clock or Clock()
        self.store = SharedStore(url, worker=name, prefix=prefix, timeout=timeout)
        self.pool = SharedPool(
            self.store,
            **{
                "policy": lambda: policy,
                "now": self.clock,
                "random": Random(seed),
                "unseal": bytes.decode,
            }
            | options,
        )
        for entry in entries:
            self.pool.put(entry)
        work = self.pool.courier.run_forever() if runs else asyncio.sleep(0)
        self.courier: asyncio.Task[None] = asyncio.create_task(work)

    async def beat(self) -> bool:
        return await self.store.beat()

    async def lease(self, want: Want = WANT) -> Lease:
        return await self.pool.lease(want)

    async def use(self, outcome: Outcome = SUCCESS, want: Want = WANT) -> int:
        lease = await self.pool.lease(want)
        await self.end(lease, outcome)
        return lease.credential_id

    async def end(self, lease: Lease, outcome: Outcome = SUCCESS) -> None:
        await self.pool.settle(lease, outcome)
        await self.pool.release(lease)
        await self.pool.courier.drain()

    async def is_refused(self, want: Want = WANT) -> bool:
        try:
            lease = await self.pool.lease(want)
        except NoCredential:
            return True
        await self.pool.release(lease)
        return False

    def entry(self, number: int = 1) -> Entry:
        found = self.pool.get(number)
        assert found is not None
        return found

    def left(self, number: int = 1) -> int | None:
        return self.entry(number).quotas["fast"].remaining

    async def die(self) -> None:
        """Go without a word, as a killed process does."""
        self.courier.cancel()
        with suppress(asyncio.CancelledError):
            await self.courier
        await self.store._redis.aclose()


class Fleet:
    """Workers that share the keys of one prefix."""

    def __init__(self, url: str = REDIS_URL) -> None:
        self.url = url
        self.keys = Keys(new_prefix(), url)
        self.workers: list[Worker] = []

    async def join(
        self, name: str, entries: Callable[[], list[Entry]], *, beat: bool = True, **options: Any
    ) -> Worker:
        worker = Worker(name, entries(), **{"url": self.url, "prefix": self.keys.prefix} | options)
        self.workers.append(worker)
        if beat:
            await worker.beat()
        return worker

    async def beats(self) -> None:
        """Everybody hears of everything: what the first learns last comes a second time."""
        for worker in [*self.workers, *self.workers]:
            await worker.beat()

    def grow_old(self, worker: Worker, seconds: float = 9) -> None:
        """As if nothing had been heard of ``worker`` for that long."""
        self.keys.redis.zincrby(worker.store.workers_key, -seconds, worker.store.worker)

    def document(self, number: int = 1) -> dict[str, Any]:
        return self.keys.documents()[number]

    def box(self, number: int = 1) -> dict[str, float]:
        """The fast bucket as it is shared."""
        box: dict[str, float] = self.document(number)["b"]["fast"]
        return box

    def held(self) -> int:
        """Leases that Redis counts as open, by the documents; the hashes must agree."""
        counted = sum(sum(doc["m"].values()) for doc in self.keys.documents().values())
        names = self.keys.redis.scan_iter(match=self.keys.prefix + "w:*")
        assert counted == sum(self.keys.redis.hlen(name) for name in names)
        return counted

    async def close(self, *, is_there: bool = True) -> None:
        for worker in self.workers:
            await worker.die()
        if is_there:
            self.keys.delete()
        self.keys.redis.close()


class OwnRedis:
    """A redis-server that the test may stop, freeze and restart."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        need(program is not None, "redis-server")
        self._program = str(program)
        self.directory = Path(tempfile.mkdtemp(prefix="grok2api-redis-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--dir", str(self.directory), "--dbfilename", "kept.rdb",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("redis-server did not start")

    def stop(self, *, keeping: bool = False) -> None:
        """With its data lost, or kept for the next start."""
        if self._process is None:
            return
        self.thaw()
        if keeping:
            with Keys("", self.url).redis as redis:
                redis.save()
        else:
            (self.directory / "kept.rdb").unlink(missing_ok=True)
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class Wire:
    """A worker's way to Redis: it can be cut, and either direction can be held up."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.asks = asyncio.Event()
        self.answers = asyncio.Event()
        self.asks.set()
        self.answers.set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_whole(self) -> bool:
        return self._server is not None

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Everything under way is lost, and nothing gets through."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self._writers.clear()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        for source, sink, gate in (
            (reader, far_writer, self.asks),
            (far_reader, writer, self.answers),
        ):
            task = asyncio.create_task(self._pass_on(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        """What came before the end of a connection still arrives, however late."""
        with suppress(OSError):
            while piece := await source.read(65536):
                await gate.wait()
                sink.write(piece)
                await sink.drain()
            await gate.wait()
        sink.close()


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    wire = Wire(port)
    await wire.mend()
    try:
        yield wire
    finally:
        wire.asks.set()
        wire.answers.set()
        await wire.cut()

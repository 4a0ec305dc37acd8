"""The pools under test, driven step by step: nothing is under way between two steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from redis import Redis

from pool.entries import Entry
from pool.policy import PoolPolicy
from pool.selection import MemoryPool
from pool.shared.courier import PULL
from pool.shared.pool import SharedPool
from pool.shared.store import SharedStore
from tests.pool.samples import Clock, make_pool
from tests.services import REDIS

T = TypeVar("T")
REDIS_URL = REDIS.url + "0"
Note = Callable[[Entry], None]


class Backend(Protocol):
    """Pools of one or several workers; ``clocks`` are theirs and show the same time."""

    pools: list[MemoryPool]
    clocks: list[Clock]

    def run(self, worker: int, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` and everything that follows from it."""

    def pull(self, worker: int) -> None:
        """Let ``worker`` hear of all that others have changed."""

    def documents(self) -> dict[int, dict[str, Any]]:
        """What is shared, by credential."""

    def close(self) -> None: ...


def now_or_later(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the pool waited for something")


class InMemory:
    def __init__(self, policy: Callable[[], PoolPolicy], changed: Sequence[Note]) -> None:
        self.clocks = [Clock()]
        self.pools = [make_pool(clock=self.clocks[0], policy=policy, changed=changed[0])]

    def run(self, worker: int, work: Coroutine[Any, Any, T]) -> T:
        return now_or_later(work)

    def pull(self, worker: int) -> None:
        """There is nobody else."""

    def documents(self) -> dict[int, dict[str, Any]]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


def new_prefix() -> str:
    return f"{{test-{uuid4().hex}}}:"


class Keys:
    """A test's own keys, looked at and deleted without any of the code under test."""

    def __init__(self, prefix: str, url: str = REDIS_URL) -> None:
        self.prefix = prefix
        self.redis = Redis.from_url(url, decode_responses=True)

    def documents(self) -> dict[int, dict[str, Any]]:
        names = [str(name) for name in self.redis.zrange(self.prefix + "log", 0, -1)]
        texts = self.redis.mget([f"{self.prefix}c:{name}" for name in names]) if names else []
        return {int(n): json.loads(t) for n, t in zip(names, texts, strict=True) if t}

    def delete(self) -> None:
        names = list(self.redis.scan_iter(match=self.prefix + "*", count=1000))
        if names:
            self.redis.delete(*names)

    def close(self) -> None:
        self.delete()
        self.redis.close()


class OnRedis:
    """As many workers as there are in ``changed``, all with the same keys in a real Redis."""

    def __init__(self, policy: Callable[[], PoolPolicy], changed: Sequence[Note]) -> None:
        self.keys = Keys(new_prefix())
        self.clocks = [Clock() for _ in changed]
        self.loop = asyncio.new_event_loop()
        self.stores: list[SharedStore] = []
        self.pools: list[MemoryPool] = []
        self.shared: list[SharedPool] = []
        self.tasks: list[asyncio.Task[None]] = []
        for number, note in enumerate(changed):
            self.loop.run_until_complete(self._join(number, policy, note))

    async def _join(self, number: int, policy: Callable[[], PoolPolicy], note: Note) -> None:
        store = SharedStore(
            REDIS_URL, worker=f"worker{number}", prefix=self.keys.prefix, timeout=10
        )
        options = {"policy": policy, "now": self.clocks[number], "random": Random(number)}
        pool = SharedPool(store, unseal=bytes.decode, changed=note, **options)
        self.stores.append(store)
        self.pools.append(pool)
        self.shared.append(pool)
        self.tasks.append(self.loop.create_task(pool.courier.run_forever()))
        assert await store.beat()

    def run(self, worker: int, work: Coroutine[Any, Any, T]) -> T:
        async def to_the_end() -> T:
            try:
                return await work
            finally:
                await self.shared[worker].courier.drain()

        result = self.loop.run_until_complete(to_the_end())
        assert self.stores[worker].available
        return result

    def pull(self, worker: int) -> None:
        self.run(worker, self.shared[worker].courier.ask(PULL))

    def documents(self) -> dict[int, dict[str, Any]]:
        return self.keys.documents()

    def close(self) -> None:
        self.loop.run_until_complete(self._leave())
        self.loop.close()
        self.keys.close()

    async def _leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for store in self.stores:
            await store.aclose()

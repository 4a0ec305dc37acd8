"""``python -m bench.pool``: what a credential's lease costs, in memory and on Redis.

One operation is lease, settle and release. Sizes take turns within a round; shown is the
median of the rounds. Then, how long 100,000 credentials take to load from SQLite, and what
they weigh. Only on Redis with ``--redis URL`` (keys of its own, deleted afterwards).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.table import render
from bench.usage import resident_kb

if TYPE_CHECKING:
    from pool.selection import MemoryPool

SIZES = (1_000, 10_000, 100_000)
CONCURRENT = 16
REDIS_URL = "redis://127.0.0.1:6379/0"
HEAD = ("pool", "credentials", "p50 us", "p99 us", "CPU us/op", "op/s")
LOAD_HEAD = ("loaded", "credentials", "seconds", "MB", "peak MB")


@dataclass(slots=True)
class Row:
    """One number a round: seconds of wall time, CPU per operation, operations a second."""

    name: str
    size: int
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        times = [f"{median(kind) * 1e6:.1f}" for kind in (self.p50, self.p99, self.cpu)]
        return (self.name, f"{self.size}", *times, f"{median(self.rate):.0f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=7)
    add("--operations", type=int, default=5000, help="per round and row")
    add("--sizes", default=",".join(map(str, SIZES)), help="how many credentials, with commas")
    add("--redis", default=REDIS_URL, help='"" leaves it out (default: %(default)s)')
    add("--no-load", action="store_true", help="leave out loading from a database")
    add("--quick", action="store_true", help="a smoke run; its numbers mean nothing")
    add("--make", action="store_true", help=argparse.SUPPRESS)
    add("--load-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.operations, options.sizes = 2, 200, "100,200"
    return options


def fill(pool: MemoryPool, size: int) -> None:
    """Half of them measured, as after a day of use."""
    from pool.entries import Entry, Quota

    for number in range(1, size + 1):
        quotas = {"fast": Quota(100_000 + number % 50)} if number % 2 else {}
        pool.put(Entry(number, "sso", True, b"secret", "hint", quotas=quotas))


def options_of_a_pool() -> dict[str, Any]:
    from pool.policy import PoolPolicy

    policy = PoolPolicy()
    return {
        "policy": lambda: policy,
        "now": time.time,
        "random": Random(1),
        "unseal": bytes.decode,
        "changed": lambda entry: None,
    }


async def operate(pool: MemoryPool, count: int, times: list[float]) -> None:
    from pool.leases import Lane, Want
    from pool.outcomes import SUCCESS

    want = Want((Lane("sso", "fast"),), "grok-4")
    for _ in range(count):
        begun = time.perf_counter()
        lease = await pool.lease(want)
        await pool.settle(lease, SUCCESS)
        await pool.release(lease)
        times.append(time.perf_counter() - begun)


async def measure(row: Row, pool: MemoryPool, count: int, concurrent: int = 1) -> None:
    times: list[float] = []
    begun, cpu = time.perf_counter(), time.process_time()
    each = count // concurrent
    await asyncio.gather(*(operate(pool, each, times) for _ in range(concurrent)))
    row.cpu.append((time.process_time() - cpu) / len(times))
    row.rate.append(len(times) / (time.perf_counter() - begun))
    times.sort()
    row.p50.append(times[len(times) // 2])
    row.p99.append(times[len(times) * 99 // 100])


async def in_memory(sizes: list[int], options: argparse.Namespace) -> list[Row]:
    from pool.selection import MemoryPool

    pools = {size: MemoryPool(**options_of_a_pool()) for size in sizes}
    for size, pool in pools.items():
        fill(pool, size)
        await operate(pool, 10, [])
    settle_down()
    rows = [Row("memory", size) for size in sizes]
    for _ in range(options.rounds):
        for row in rows:
            await measure(row, pools[row.size], options.operations)
    return rows


async def on_redis(sizes: list[int], options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        pools = {size: await shared_pool(options.redis, size, stack) for size in sizes}
        settle_down()
        single = [Row("redis", size) for size in sizes]
        crowd = [Row(f"redis, {CONCURRENT} at once", size) for size in sizes]
        for _ in range(options.rounds):
            for one, many in zip(single, crowd, strict=True):
                count = max(CONCURRENT, options.operations // 5)
                await measure(one, pools[one.size], count)
                await measure(many, pools[one.size], count, CONCURRENT)
        rows = [*single, *crowd]
    return rows


async def shared_pool(url: str, size: int, stack: AsyncExitStack) -> MemoryPool:
    """A worker's pool with its tasks, until ``stack`` is left."""
    from pool.shared.pool import SharedPool
    from pool.shared.store import SharedStore

    store = SharedStore(url, worker="bench", prefix=f"{{bench-{uuid.uuid4().hex}}}:", timeout=5)
    pool = SharedPool(store, **options_of_a_pool())
    fill(pool, size)
    courier = asyncio.create_task(pool.courier.run_forever())
    if not await store.beat():
        sys.exit(f"no Redis at {url}")

    async def leave() -> None:
        await pool.aclose()
        courier.cancel()
        await asyncio.gather(courier, return_exceptions=True)
        await store.aclose()
        await delete_keys(url, store.prefix)

    stack.push_async_callback(leave)
    await operate(pool, 10, [])
    return pool


async def delete_keys(url: str, prefix: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(url) as redis:
        async for name in redis.scan_iter(match=prefix + "*", count=10_000):
            await redis.delete(name)


def settle_down() -> None:
    """As the server does once it has loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


def set_up_django() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")
    import django

    django.setup()


def make_record(size: int) -> None:
    """A database with so many credentials, each with a sealed secret and two buckets."""
    from django.utils import timezone

    from grok2api.bootstrap import prepare
    from pool.crypto import sealed_columns
    from pool.models import BucketQuota, Credential

    prepare()
    sealed = sealed_columns("s" * 120)
    credentials = [
        Credential(id=number, kind="sso", fingerprint=f"{number:064}", hint="abcd", **sealed)
        for number in range(1, size + 1)
    ]
    Credential.objects.bulk_create(credentials, batch_size=500)
    now = timezone.now()
    quotas = [
        BucketQuota(credential_id=number, bucket=bucket, remaining=number % 50, measured_at=now)
        for number in range(1, size + 1)
        for bucket in ("fast", "auto")
    ]
    BucketQuota.objects.bulk_create(quotas, batch_size=500)


async def load() -> None:
    """Load what is recorded, as a worker does when it starts, and print what that took."""
    from pool.keys import KeyDirectory
    from pool.selection import MemoryPool
    from pool.upkeep import Upkeep

    pool = MemoryPool(**options_of_a_pool())
    upkeep = Upkeep(save_delay=lambda: 1.0)
    keys = KeyDirectory(global_key=lambda: "")
    begun = time.perf_counter()
    await upkeep.load(pool, keys)
    await operate(pool, 1, []) if len(pool) else None
    seconds = time.perf_counter() - begun
    gc.collect()
    pid = [os.getpid()]
    sizes = [resident_kb(pid) / 1024, resident_kb(pid, peak=True) / 1024]
    print(json.dumps([len(pool), seconds, *sizes]))
    await upkeep.close()


def loading(size: int, rounds: int) -> list[tuple[str, ...]]:
    """An empty pool and a full one, each in a process of its own, in turns."""
    found: dict[int, list[list[float]]] = {0: [], size: []}
    with tempfile.TemporaryDirectory(prefix="grok2api-bench-") as directory:
        for number in found:
            ask_child(directory, number, "--make")
        for _ in range(rounds):
            for number, results in found.items():
                results.append(json.loads(ask_child(directory, number, "--load-only")))
    empty, full = (
        [median(column) for column in zip(*results, strict=True)] for results in found.values()
    )
    lines = [("empty", *empty), ("full", *full)]
    lines.append(("difference", *(b - a for a, b in zip(empty, full, strict=True))))
    return [(str(name), f"{n:.0f}", *(f"{x:.2f}" for x in rest)) for name, n, *rest in lines]


def ask_child(directory: str, size: int, what: str) -> str:
    environment = {
        **os.environ,
        "GROK2API_DATA_DIR": str(Path(directory) / str(size)),
        "SERVER_STORAGE_TYPE": "local",
        "LOG_LEVEL": "WARNING",
    }
    program = [sys.executable, "-m", "bench.pool", what, "--sizes", str(size)]
    done = subprocess.run(program, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def main() -> None:
    options = arguments()
    sizes = [int(size) for size in options.sizes.split(",")]
    set_up_django()
    if options.make:
        make_record(sizes[0])
        return
    if options.load_only:
        asyncio.run(load())
        return
    import uvloop

    rows = uvloop.run(in_memory(sizes, options))
    if options.redis:
        rows += uvloop.run(on_redis(sizes, options))
    print(render(HEAD, [row.cells() for row in rows]))
    if not options.no_load:
        print()
        print(render(LOAD_HEAD, loading(max(sizes), 1 if options.quick else 3)))


if __name__ == "__main__":
    main()

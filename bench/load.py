"""The load generator: a process of its own, so that its CPU is nobody else's.

``python -m bench.load`` reads one Job as JSON from stdin and writes one Result to stdout.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import uvloop

from bench.answers import Check, Dialect, checker
from bench.http_client import Broken, Connection, connect, post
from bench.usage import cpu_seconds


@dataclass(frozen=True, slots=True)
class Job:
    """``requests`` are measured after ``warmup`` that are not; ``pids`` is the server."""

    url: str
    path: str
    headers: dict[str, str]
    body: str
    pids: list[int]
    streaming: bool
    dialect: Dialect = "openai"
    exact: bool = True
    frames: int = 60
    requests: int = 500
    warmup: int = 50
    connections: int = 16
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds; ``failures`` maps what was wrong to how often it was."""

    requests: int
    wall: float
    cpu: float
    p50: float
    p99: float
    failures: dict[str, int] = field(default_factory=dict)


class Load:
    """Runs requests over keep-alive connections and checks every answer."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = post(job.url, job.path, job.headers, job.body.encode())
        self._check: Check = checker(job.dialect, job.streaming, job.frames, job.exact)
        self.failures: Counter[str] = Counter()
        self.latencies: list[float] = []

    async def run(self) -> Result:
        job = self._job
        pool = [await connect(job.url) for _ in range(job.connections)]
        try:
            await self._round(pool, job.warmup)
            self.latencies.clear()
            before, started = cpu_seconds(job.pids), time.perf_counter()
            await self._round(pool, job.requests)
            wall, cpu = time.perf_counter() - started, cpu_seconds(job.pids) - before
        finally:
            for connection in pool:
                connection.close()
        p50, p99 = quantiles(self.latencies)
        return Result(job.requests, wall, cpu, p50, p99, dict(self.failures.most_common(5)))

    async def _round(self, pool: list[Connection], requests: int) -> None:
        turns = iter(range(requests))
        async with asyncio.TaskGroup() as group:
            for slot in range(len(pool)):
                group.create_task(self._work(pool, slot, turns))

    async def _work(self, pool: list[Connection], slot: int, turns: Iterator[int]) -> None:
        for _ in turns:
            if not pool[slot].reusable:
                pool[slot].close()
                pool[slot] = await connect(self._job.url)
            if wrong := await self._one(pool[slot]):
                self.failures[wrong] += 1

    async def _one(self, connection: Connection) -> str:
        parts: list[bytes] = []
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._job.timeout):
                status = await connection.exchange(self._request, parts.append)
        except (Broken, TimeoutError) as error:
            connection.reusable = False
            return str(error) or "no answer in time"
        self.latencies.append(time.perf_counter() - started)
        body = b"".join(parts)
        return self._check(body) if status == 200 else f"status {status}: {body[:160]!r}"


def quantiles(values: list[float]) -> tuple[float, float]:
    """p50 and p99; zeros for nothing."""
    if not values:
        return 0.0, 0.0
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def run_in_process(job: Job, patience: float = 600.0) -> Result:
    """Run one job in a new process. Raises subprocess.SubprocessError if that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=patience,
    )
    return Result(**json.loads(done.stdout))


def main() -> None:
    job = Job(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(Load(job).run())), sys.stdout)


if __name__ == "__main__":
    main()

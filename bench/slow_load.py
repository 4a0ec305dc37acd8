"""Many slow streams at once, in a process of its own.

``python -m bench.slow_load`` reads one SlowJob as JSON from stdin and writes one SlowResult
to stdout.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import uvloop

from bench.answers import checker, content_of
from bench.http_client import Broken, Connection, connect, post
from bench.load import quantiles
from bench.processes import raise_file_limit
from bench.usage import cpu_seconds, forget_peak, resident_kb

LATE = 0.1
"""Seconds beyond its interval after which a frame counts as late."""


@dataclass(frozen=True, slots=True)
class SlowJob:
    """``streams`` begin evenly over ``ramp`` seconds; ``interval`` seconds between frames."""

    url: str
    path: str
    headers: dict[str, str]
    body: str
    pids: list[int]
    streams: int
    frames: int
    interval: float
    ramp: float

    @property
    def timeout(self) -> float:
        return 30.0 + 10 * self.frames * self.interval


@dataclass(frozen=True, slots=True)
class SlowResult:
    """Memory in KiB, times in seconds; ``frames`` is how many came, right or wrong."""

    streams: int
    idle_kb: int
    peak_kb: int
    first_p50: float
    first_p99: float
    frames: int
    late: int
    worst_gap: float
    duration: float
    cpu: float
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def kb_per_stream(self) -> float:
        return (self.peak_kb - self.idle_kb) / self.streams


class Stream:
    """One answer as it comes in: when each of its frames came, and what it was."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.times: list[float] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        now = time.perf_counter()
        self.body += data
        *events, self._rest = (self._rest + data).split(b"\n\n")
        self.times += [now for event in events if _has_content(event)]


def _has_content(event: bytes) -> bool:
    try:
        return bool(content_of(event))
    except (ValueError, KeyError, TypeError):
        return False


class SlowLoad:
    def __init__(self, job: SlowJob) -> None:
        self._job = job
        self._request = post(job.url, job.path, job.headers, job.body.encode())
        self._check = checker("openai", True, job.frames, True)
        self.failures: Counter[str] = Counter()
        self.firsts: list[float] = []
        self.gaps: list[float] = []
        self.frames = 0

    async def run(self) -> SlowResult:
        job = self._job
        idle = resident_kb(job.pids)
        forget_peak(job.pids)
        connections = [await connect(job.url) for _ in range(job.streams)]
        before, started = cpu_seconds(job.pids), time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for number, connection in enumerate(connections):
                    group.create_task(self._stream(connection, number * job.ramp / job.streams))
            duration, cpu = time.perf_counter() - started, cpu_seconds(job.pids) - before
            peak = resident_kb(job.pids, peak=True)
        finally:
            for connection in connections:
                connection.close()
        return self._result(idle, peak, duration, cpu)

    def _result(self, idle: int, peak: int, duration: float, cpu: float) -> SlowResult:
        first_p50, first_p99 = quantiles(self.firsts)
        return SlowResult(
            streams=self._job.streams,
            idle_kb=idle,
            peak_kb=peak,
            first_p50=first_p50,
            first_p99=first_p99,
            frames=self.frames,
            late=sum(gap > self._job.interval + LATE for gap in self.gaps),
            worst_gap=max(self.gaps, default=0.0),
            duration=duration,
            cpu=cpu,
            failures=dict(self.failures.most_common(5)),
        )

    async def _stream(self, connection: Connection, delay: float) -> None:
        await asyncio.sleep(delay)
        stream, started = Stream(), time.perf_counter()
        try:
            async with asyncio.timeout(self._job.timeout):
                status = await connection.exchange(self._request, stream.feed)
        except (Broken, TimeoutError) as error:
            self.failures[str(error) or "no answer in time"] += 1
            return
        if status != 200:
            self.failures[f"status {status}: {bytes(stream.body[:160])!r}"] += 1
        elif wrong := self._check(bytes(stream.body)):
            self.failures[wrong] += 1
        self._note(stream.times, started)

    def _note(self, times: list[float], started: float) -> None:
        self.frames += len(times)
        if times:
            self.firsts.append(times[0] - started)
        self.gaps += [later - earlier for earlier, later in pairwise(times)]


def run_in_process(job: SlowJob) -> SlowResult:
    """Run one job in a new process. Raises subprocess.SubprocessError if that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.slow_load"],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=job.timeout + job.ramp + 60,
    )
    return SlowResult(**json.loads(done.stdout))


def main() -> None:
    raise_file_limit()
    job = SlowJob(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(SlowLoad(job).run())), sys.stdout)


if __name__ == "__main__":
    main()

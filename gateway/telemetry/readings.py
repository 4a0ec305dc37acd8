"""Numbers that are looked at now and then rather than counted as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.telemetry.children import Children

EVERY = 5.0

Number = Callable[[], int]
Flag = Callable[[], bool]


def _no_credentials() -> Mapping[str, Mapping[str, int]]:
    return {}


def _no() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Readings:
    """Where the numbers come from. All are called on the event loop, often, and never raise.

    ``credentials`` gives counts by kind, then state. ``queues`` gives how much waits, by
    name; ``dropped`` how much was ever dropped, by the name of its queue. ``redis_up`` None:
    there is no Redis to be up or down.
    """

    credentials: Callable[[], Mapping[str, Mapping[str, int]]] = _no_credentials
    queues: Mapping[str, Number] = field(default_factory=dict)
    dropped: Mapping[str, Number] = field(default_factory=dict)
    incident_open: Flag = _no
    leader: Flag = _no
    redis_up: Flag | None = None


class Sampler:
    """Takes the readings over into metrics of ``registry``.

    The credentials are the same in every worker, so the newest word counts; queues add up;
    one worker that leads, or is in an incident, or has lost Redis, stands for the server.
    """

    def __init__(self, registry: CollectorRegistry, readings: Readings) -> None:
        self._readings = readings
        self._credentials = Children(
            Gauge(
                "grok2api_pool_credentials",
                "Credentials by kind and state.",
                ("kind", "state"),
                registry=registry,
                multiprocess_mode="livemostrecent",
            )
        )
        self._depths = Children(
            Gauge(
                "grok2api_queue_depth",
                "Entries that wait in a queue.",
                ("queue",),
                registry=registry,
                multiprocess_mode="livesum",
            )
        )
        self._dropped = Children(
            Counter(
                "grok2api_queue_dropped_total",
                "Entries dropped because their queue was full.",
                ("queue",),
                registry=registry,
            )
        )
        self._dropped_before = dict.fromkeys(readings.dropped, 0)
        self._flags = list(self._make_flags(registry))

    def _make_flags(self, registry: CollectorRegistry) -> list[tuple[Gauge, Flag]]:
        incident = Gauge(
            "grok2api_incident_open",
            "1 while an upstream incident is declared and penalties are frozen.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        leader = Gauge(
            "grok2api_leader",
            "1 if a worker of this server does the background work.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        flags = [(incident, self._readings.incident_open), (leader, self._readings.leader)]
        if self._readings.redis_up is not None:
            redis = Gauge(
                "grok2api_redis_up",
                "1 while every worker reaches Redis.",
                registry=registry,
                multiprocess_mode="livemin",
            )
            flags.append((redis, self._readings.redis_up))
        return flags

    async def run_forever(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Sample every few seconds, for the scrapes that another worker answers."""
        while True:
            self.sample()
            await sleep(EVERY)

    def sample(self) -> None:
        self._sample_credentials()
        for queue, depth in self._readings.queues.items():
            self._depths[(queue,)].set(depth())
        for queue, dropped in self._readings.dropped.items():
            total = dropped()
            self._dropped[(queue,)].inc(max(0, total - self._dropped_before[queue]))
            self._dropped_before[queue] = total
        for gauge, flag in self._flags:
            gauge.set(flag())

    def _sample_credentials(self) -> None:
        counts: dict[tuple[str, ...], int] = {
            (kind, state): number
            for kind, states in self._readings.credentials().items()
            for state, number in states.items()
        }
        # The last credential of a kind may go; its series stays and says 0.
        for labels in counts.keys() | self._credentials.keys():
            self._credentials[labels].set(counts.get(labels, 0))

"""How long the event loop keeps its callers waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Histogram

PERIOD = 0.5
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopLag:
    """``clock`` gives seconds that only grow; ``sleep`` takes seconds."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lag = Histogram(
            "grok2api_event_loop_lag_seconds",
            "How much later than asked the event loop woke a sleeper, measured twice a second.",
            registry=registry,
            buckets=BUCKETS,
        )

    async def measure_forever(self) -> None:
        while True:
            await self.measure()

    async def measure(self) -> None:
        before = self._clock()
        await self._sleep(PERIOD)
        # A timer may fire a hair early.
        self._lag.observe(max(0.0, self._clock() - before - PERIOD))

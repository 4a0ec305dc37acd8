"""Lag is how much later than asked a sleeper wakes."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.telemetry.loop_lag import PERIOD, LoopLag
from tests.gateway.telemetry.samples import Scrape

NAME = "grok2api_event_loop_lag_seconds"


def read(registry: CollectorRegistry) -> Scrape:
    return Scrape(generate_latest(registry).decode())


@pytest.mark.parametrize(("overslept", "lag"), [(0.0, 0.0), (0.3, 0.3), (-0.001, 0.0)])
async def test_the_time_overslept_is_the_lag(overslept: float, lag: float) -> None:
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + overslept

    registry = CollectorRegistry()
    await LoopLag(registry, clock=lambda: now, sleep=sleep).measure()
    seen = read(registry)

    assert seen.get(f"{NAME}_count") == 1
    assert seen.get(f"{NAME}_sum") == pytest.approx(lag)
    assert seen.get(f"{NAME}_bucket", le="0.25") == (lag <= 0.25)


async def test_a_blocked_loop_is_seen() -> None:
    """On the real loop: what blocks it is begun once the sleeper sleeps."""
    registry = CollectorRegistry()

    async def sleep(seconds: float) -> None:
        assert seconds == PERIOD
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # Half a second is not waited for here, so it is given as already gone.
    clock = iter([0.0, PERIOD])
    started = time.monotonic()
    lag = LoopLag(registry, clock=lambda: next(clock) + time.monotonic() - started, sleep=sleep)
    await lag.measure()
    seen = read(registry)

    assert seen.get(f"{NAME}_bucket", le="0.25") == 0
    assert seen.get(f"{NAME}_count") == 1


async def test_measuring_goes_on_until_cancelled() -> None:
    registry = CollectorRegistry()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(LoopLag(registry, sleep=sleep).measure_forever())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (read(registry).get(f"{NAME}_count") or 0) >= 2

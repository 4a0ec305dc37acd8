"""Requests per minute: a window that slides."""

from __future__ import annotations

import asyncio
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.limits.limiter import KeyLimiter, LimitExceeded
from tests.pool.limits.samples import CHAT, make_key, make_local, refusal, use
from tests.pool.samples import START, Clock

some_seconds = st.one_of(st.floats(0, 3), st.floats(0, 0.1), st.floats(50, 70), st.floats(59, 60))
gaps = st.lists(some_seconds, min_size=1, max_size=120)


async def admitted(
    limiter: KeyLimiter, clock: Clock, moments: list[float], limit: int
) -> list[float]:
    times = []
    for moment in moments:
        clock.now = moment
        try:
            await use(limiter, make_key(rpm=limit))
        except LimitExceeded as error:
            assert 0 < error.retry_after <= 61
        else:
            times.append(moment)
    return times


@given(gaps=gaps, limit=st.integers(1, 8), start=st.floats(0, 1))
def test_no_sixty_seconds_ever_see_more_than_the_limit(
    gaps: list[float], limit: int, start: float
) -> None:
    clock = Clock()
    moments = [START + start + passed for passed in accumulate(gaps)]
    times = asyncio.run(admitted(make_local(clock=clock), clock, moments, limit))
    assert times
    for first, one_too_many in zip(times, times[limit:], strict=False):
        assert one_too_many - first > 60


@given(gaps=gaps, limit=st.integers(1, 8))
def test_the_wait_that_a_refusal_names_is_enough(gaps: list[float], limit: int) -> None:
    clock = Clock()
    limiter = make_local(clock=clock)
    moments = [START + passed for passed in accumulate(gaps)]
    asyncio.run(admitted(limiter, clock, [*moments, *[moments[-1]] * limit], limit))
    error = asyncio.run(refusal(limiter, make_key(rpm=limit)))
    clock.now += error.retry_after
    asyncio.run(use(limiter, make_key(rpm=limit)))


@pytest.mark.parametrize(("limit", "rate"), [(60, 60), (10, 10)])
async def test_a_steady_rate_at_the_limit_is_hardly_held_back(limit: int, rate: int) -> None:
    clock = Clock()
    moments = [START + number * 60 / rate for number in range(10 * rate)]
    times = await admitted(make_local(clock=clock), clock, moments, limit)
    assert len(times) > 0.9 * len(moments)


async def test_a_lowered_limit_waits_until_enough_have_gone() -> None:
    clock = Clock()
    limiter = make_local(clock=clock)
    for _ in range(4):
        await use(limiter, make_key(rpm=10))
        clock.now += 10
    assert (await refusal(limiter, make_key(rpm=2))).retry_after == 61 - 40 + 20
    assert (await refusal(limiter, make_key(rpm=4))).retry_after == 61 - 40


@pytest.mark.parametrize("seconds", [30, 3600])
async def test_a_clock_that_goes_back_lets_no_more_through(seconds: int) -> None:
    clock = Clock()
    limiter = make_local(clock=clock)
    await use(limiter, make_key(rpm=2))
    clock.now -= seconds
    await use(limiter, make_key(rpm=2))
    await refusal(limiter, make_key(rpm=2))
    clock.now += seconds + 1
    await refusal(limiter, make_key(rpm=2))
    clock.now += 60
    await use(limiter, make_key(rpm=2))


async def test_a_refund_is_no_refund_of_the_minute() -> None:
    limiter = make_local()
    await limiter.release(await limiter.reserve(make_key(rpm=1), CHAT))
    assert (await refusal(limiter, make_key(rpm=1))).bucket == "requests_per_minute"

"""A worker's tasks, from its first beat to its farewell."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

import pytest

from pool.entries import Entry
from pool.shared.membership import Membership
from tests.pool.shared.rig import Fleet, OwnRedis, measured


def one() -> list[Entry]:
    return [measured(1, 10)]


async def test_from_its_start_a_worker_shares_and_at_its_end_it_leaves_nothing(
    fleet: Fleet,
) -> None:
    b = await fleet.join("b", one)
    await b.use()
    a = await fleet.join("a", one, beat=False, runs=False)
    membership = Membership(a.store, a.pool)
    await membership.start()
    assert membership.available
    assert a.left() == 9
    lease = await a.lease()
    await a.pool.release(lease)
    await membership.stop()
    assert fleet.held() == 0
    assert fleet.keys.redis.zscore(b.store.workers_key, "a") == 0


async def test_without_redis_it_starts_and_stops_all_the_same(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    a = await own_fleet.join("a", one, beat=False, runs=False)
    membership = Membership(a.store, a.pool)
    async with asyncio.timeout(10):
        await membership.start()
        assert not membership.available
        assert await a.use() == 1
        await membership.stop()


async def test_a_task_that_dies_is_reported_and_requests_go_on(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    a = await fleet.join("a", one, beat=False, runs=False)
    membership = Membership(a.store, a.pool)
    await membership.start()

    def fail(_: object) -> NoReturn:
        raise ZeroDivisionError

    deliver, a.pool.courier._deliver = a.pool.courier._deliver, fail
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(10):
            assert await a.use() == 1
            assert await a.use() == 1
            a.pool.courier._deliver = deliver
            await membership.stop()
    assert "background task courier died" in caplog.text

"""Workers that die, are cut off, or leave: what they held goes back to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from pool.entries import Entry
from pool.outcomes import NEUTRAL
from pool.policy import PoolPolicy
from pool.shared.store import DEAD_AFTER, Beat, Script
from tests.pool.shared.rig import WANT, Fleet, OwnRedis, Worker, measured, wire_to
from tests.services import REDIS

CAP = PoolPolicy(max_concurrent=1)


def one() -> list[Entry]:
    return [measured(1, 10)]


async def test_a_dead_workers_places_and_quota_go_back(fleet: Fleet) -> None:
    a, b = await fleet.join("a", one, policy=CAP), await fleet.join("b", one, policy=CAP)
    await a.lease()
    await a.die()
    await b.beat()
    assert await b.is_refused()
    fleet.grow_old(a, DEAD_AFTER + 1)
    await b.beat()
    assert (fleet.held(), fleet.box()) == (0, {"q": 10, "h": 0})
    assert await b.use() == 1
    names = fleet.keys.redis.zrange(b.store.workers_key, 0, -1)
    assert (names, fleet.keys.redis.hkeys(fleet.keys.prefix + "sessions")) == (["b"], ["b"])


async def test_what_a_dead_worker_had_consumed_stays_consumed(fleet: Fleet) -> None:
    a, b = await fleet.join("a", one), await fleet.join("b", one)
    lease = await a.lease()
    await a.pool.settle(lease, NEUTRAL)
    await a.use()
    await a.die()
    fleet.grow_old(a)
    await b.beat()
    assert (fleet.held(), fleet.box()["q"]) == (0, 9)


async def test_who_says_farewell_is_not_waited_for(fleet: Fleet) -> None:
    a, b = await fleet.join("a", one, policy=CAP), await fleet.join("b", one, policy=CAP)
    await a.lease()
    await a.store.aclose()
    await b.beat()
    assert await b.use() == 1


async def test_a_newcomer_does_not_take_silence_for_death(fleet: Fleet) -> None:
    """After an outage all are silent; whoever comes back first must not bury the others."""
    a, b = await fleet.join("a", one, policy=CAP), await fleet.join("b", one, policy=CAP)
    lease = await a.lease()
    for worker in (a, b):
        fleet.grow_old(worker, DEAD_AFTER + 1)
    await b.beat()
    assert fleet.held() == 1
    await a.beat()
    await b.beat()
    assert await b.is_refused()
    await a.end(lease)
    assert (fleet.held(), fleet.box()["q"]) == (0, 9)


async def test_a_worker_that_was_given_up_comes_back_with_its_leases(fleet: Fleet) -> None:
    policy = PoolPolicy(max_concurrent=2)
    a, b = await fleet.join("a", one, policy=policy), await fleet.join("b", one, policy=policy)
    used, open_still = await a.lease(), await a.lease()
    fleet.grow_old(a)
    await b.beat()
    assert fleet.held() == 0
    theirs = await b.lease()
    await a.end(used)
    await a.beat()
    assert fleet.held() == 2
    assert fleet.box() == {"q": 7, "h": 2}
    assert await b.is_refused()
    await a.end(open_still)
    await b.end(theirs)
    await fleet.beats()
    assert (fleet.held(), fleet.box()["q"]) == (0, 7)


async def test_who_was_given_up_claims_nothing_before_it_is_known_again(fleet: Fleet) -> None:
    a, b = await fleet.join("a", one), await fleet.join("b", one)
    fleet.grow_old(a)
    await b.beat()
    lease = await a.lease()
    assert (fleet.held(), a.store.available) == (0, False)
    await a.beat()
    assert fleet.held() == 1
    await a.end(lease)


async def test_a_worker_that_beats_just_before_its_burial_keeps_its_leases(fleet: Fleet) -> None:
    a, b = await fleet.join("a", one, policy=CAP), await fleet.join("b", one, policy=CAP)
    await a.lease()
    await a.beat()
    await b.pool._on_beat(Beat(b.pool._epoch, True, ("a",)))
    assert fleet.held() == 1


async def test_a_claim_answered_before_its_worker_was_given_up_is_claimed_again(
    fleet: Fleet,
) -> None:
    a, b = await fleet.join("a", one, policy=CAP), await fleet.join("b", one, policy=CAP)
    async with held_up(a) as go_on:
        request = asyncio.create_task(a.lease())
        await until(lambda: bool(fleet.keys.documents()))
        fleet.grow_old(a)
        await b.beat()
        assert fleet.held() == 0
        beat = asyncio.create_task(a.beat())
        await until(lambda: a.store.session != a.pool._session)
        go_on.set()
        lease = await request
        await beat
    await a.beat()
    assert fleet.held() == 1
    assert await b.is_refused()
    await a.end(lease)
    assert (fleet.held(), fleet.box()["q"]) == (0, 9)


async def test_a_claim_whose_answer_came_too_late_is_not_left_behind(fleet: Fleet) -> None:
    a = await fleet.join("a", one, policy=CAP)
    async with held_up(a) as go_on:
        request = asyncio.create_task(a.lease())
        await until(lambda: bool(fleet.keys.documents()))
        a.store.lose(OSError("another call has failed"))
        beat = asyncio.create_task(a.beat())
        await until(lambda: a.store.session != a.pool._session)
        go_on.set()
        lease = await request
        await beat
    await a.end(lease)
    await a.beat()
    assert (fleet.held(), fleet.box()["q"]) == (0, 9)


@asynccontextmanager
async def held_up(worker: Worker) -> AsyncIterator[asyncio.Event]:
    """Answers to batches of operations wait for the event; those to beats do not."""
    go_on, store = asyncio.Event(), worker.store
    evaluate = store._evaluate

    async def slowly(script: Script, keys: Sequence[str], args: Sequence[str | float]) -> object:
        reply = await evaluate(script, keys, args)
        if script is not store._beat:
            await go_on.wait()
        return reply

    store._evaluate = slowly  # type: ignore[method-assign]
    yield go_on
    store._evaluate = evaluate  # type: ignore[method-assign]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in Redis
            await asyncio.sleep(0.002)


async def test_two_may_bury_the_same_worker(fleet: Fleet) -> None:
    workers = [await fleet.join(name, one) for name in "abc"]
    await workers[0].lease()
    fleet.grow_old(workers[0])
    await asyncio.gather(workers[1].beat(), workers[2].beat())
    assert (fleet.held(), fleet.box()["q"]) == (0, 10)


async def test_a_burial_that_failed_is_made_up_for(server: OwnRedis) -> None:
    REDIS.need_driver()
    server.start()
    fleet = Fleet(server.url)
    async with wire_to(server.port) as wire:
        a = await fleet.join("a", one, policy=CAP)
        b = await fleet.join("b", one, policy=CAP, url=wire.url)
        await a.lease()
        fleet.grow_old(a)
        calls = 0
        carry = b.pool.courier.catch_up

        async def fail_once(operations: list[dict[str, object]]) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                await wire.cut()
            await carry(operations)

        b.pool.courier.catch_up = fail_once  # type: ignore[method-assign]
        assert not await b.beat()
        assert fleet.held() == 1
        await wire.mend()
        assert await b.beat()
        assert await b.beat()
        assert fleet.held() == 0
        assert await b.use(want=WANT) == 1
        await b.die()
        await fleet.close()

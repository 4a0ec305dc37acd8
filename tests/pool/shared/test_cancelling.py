"""Requests that are given up while their claim is under way leave nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from pool.entries import Entry
from pool.errors import NoCredential
from pool.leases import Lease
from pool.policy import PoolPolicy
from tests.pool.shared.rig import Fleet, OwnRedis, Worker, measured, wire_to

CAP = PoolPolicy(max_concurrent=1)


def one() -> list[Entry]:
    return [measured(1, 10)]


async def give_up_after(worker: Worker, turns: int) -> Lease | None:
    """Cancel a request that has had so many turns of the event loop."""
    request = asyncio.create_task(worker.lease())
    for _ in range(turns):
        await asyncio.sleep(0)
    request.cancel()
    with suppress(asyncio.CancelledError, NoCredential):
        return await request
    return None


async def is_clean(worker: Worker, fleet: Fleet) -> None:
    await worker.pool.courier.drain()
    await worker.beat()
    assert (fleet.held(), worker.pool.open_leases, worker.entry().in_flight) == (0, 0, 0)
    assert (worker.left(), worker.entry().quotas["fast"].reserved) == (10, 0)


async def test_cancelled_at_any_turn_a_claim_is_undone(fleet: Fleet) -> None:
    a = await fleet.join("a", one, policy=CAP)
    for turns in range(40):
        lease = await give_up_after(a, turns)
        if lease is not None:
            await a.pool.release(lease)
        await is_clean(a, fleet)


async def test_cancelled_while_asking_what_others_have_freed(fleet: Fleet) -> None:
    a, b = await fleet.join("a", one, policy=CAP), await fleet.join("b", one, policy=CAP)
    for turns in range(25):
        held = await b.lease()
        await a.beat()
        assert await give_up_after(a, turns) is None
        await b.pool.release(held)
        await b.pool.courier.drain()
        await is_clean(a, fleet)


async def test_of_many_at_once_those_that_stay_are_served(fleet: Fleet) -> None:
    def three() -> list[Entry]:
        return [measured(number, 10) for number in (1, 2, 3)]

    a = await fleet.join("a", three, policy=PoolPolicy(max_concurrent=4))
    requests = [asyncio.create_task(a.lease()) for _ in range(12)]
    await asyncio.sleep(0)
    for request in requests[::2]:
        request.cancel()
    answers = await asyncio.gather(*requests, return_exceptions=True)
    leases = [answer for answer in answers if isinstance(answer, Lease)]
    assert len(leases) == 6
    await a.pool.courier.drain()
    assert fleet.held() == 6
    for lease in leases:
        await a.end(lease)
    assert fleet.held() == 0


@pytest.mark.parametrize("carried_out", [True, False])
async def test_cancelled_just_as_redis_is_lost(server: OwnRedis, carried_out: bool) -> None:
    server.start()
    fleet = Fleet(server.url)
    async with wire_to(server.port) as wire:
        a = await fleet.join("a", one, policy=CAP, url=wire.url)
        (wire.answers if carried_out else wire.asks).clear()
        request = asyncio.create_task(a.lease())
        async with asyncio.timeout(10):
            while not a.pool.open_leases or (carried_out and not fleet.keys.documents()):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        request.cancel()
        await wire.cut()
        with pytest.raises(asyncio.CancelledError):
            await request
        await a.pool.courier.drain()
        assert not a.store.available
        wire.answers.set()
        wire.asks.set()
        await wire.mend()
        assert await a.beat()
        assert (fleet.held(), a.pool.open_leases) == (0, 0)
        assert await a.use() == 1
        assert a.left() == 9
        await a.die()
        await fleet.close()


async def test_the_end_of_the_courier_leaves_no_request_waiting(fleet: Fleet) -> None:
    a = await fleet.join("a", one)
    requests = [asyncio.create_task(a.lease()) for _ in range(2)]
    await asyncio.sleep(0)
    a.courier.cancel()
    async with asyncio.timeout(5):
        leases = await asyncio.gather(*requests)
        for lease in leases:
            await a.pool.release(lease)
        assert await a.use() == 1
        await a.pool.aclose()


async def test_a_cancelled_courier_ends_whatever_it_was_doing(fleet: Fleet) -> None:
    """The driver may lose a cancellation that comes while a command is being sent."""
    for turns in range(60):
        a = await fleet.join(f"a{turns}", one, policy=PoolPolicy(max_concurrent=100))
        await a.pool.release(await a.lease())
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        a.courier.cancel()
        done, _ = await asyncio.wait([a.courier], timeout=5)
        assert done


async def test_a_cancelled_beat_ends(fleet: Fleet) -> None:
    a = await fleet.join("a", one)
    for turns in range(60):
        beat = asyncio.create_task(a.store.beat_forever())
        for _ in range(turns % 30):
            await asyncio.sleep(0)
        beat.cancel()
        done, _ = await asyncio.wait([beat], timeout=5)
        assert done

"""A request waits a little for a credential, in its turn, and never for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pool.entries import Quota
from pool.errors import NoCredential
from pool.leases import Lane, Lease, Want
from pool.outcomes import SUCCESS
from pool.policy import PoolPolicy
from pool.selection import MemoryPool
from pool.waiting import LOOK_AGAIN, Patience, WaitingRoom
from tests.pool.samples import START, Clock, make_entry, make_pool
from tests.pool.workers import until

WANT = Want((Lane("sso", "fast"),), "grok-4")
ONE_AT_A_TIME = PoolPolicy(max_concurrent=1)


def passing(clock: Clock) -> Callable[[asyncio.Future[None], float], Awaitable[None]]:
    """A wait that nobody ends early: the time is simply over."""

    async def wait(signal: asyncio.Future[None], seconds: float) -> None:
        clock.now += seconds

    return wait


async def until_woken(signal: asyncio.Future[None], seconds: float) -> None:
    """A wait whose time never comes."""
    await signal


def room_for(
    pool: MemoryPool,
    clock: Clock,
    seconds: float,
    wait: Callable[[asyncio.Future[None], float], Awaitable[None]] | None = None,
    most: int = 10,
) -> WaitingRoom:
    room = WaitingRoom(pool, lambda: Patience(seconds, most), clock, wait or passing(clock))
    pool.freed = room.freed
    return room


async def end(pool: MemoryPool, lease: Lease) -> None:
    await pool.settle(lease, SUCCESS)
    await pool.release(lease)


async def test_a_free_credential_is_had_at_once() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock)
    assert (await room_for(pool, clock, 5).lease(WANT)).credential_id == 1
    assert clock.now == START


@pytest.mark.parametrize(("patience", "served"), [(0.0, False), (1.9, False), (2.1, True)])
async def test_a_cooling_credential_is_waited_for_if_it_is_back_in_time(
    patience: float, served: bool
) -> None:
    clock = Clock()
    pool = make_pool(make_entry(1, quotas={"fast": Quota(0, START + 2)}), clock=clock)
    room = room_for(pool, clock, patience)
    if served:
        assert (await room.lease(WANT)).credential_id == 1
        assert clock.now == pytest.approx(START + 2, abs=LOOK_AGAIN)
    else:
        with pytest.raises(NoCredential, match="1 cooling until"):
            await room.lease(WANT)
        assert clock.now == START
    assert room.waiting == 0


async def test_nobody_waits_for_what_will_not_come() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1, active=False), clock=clock)
    with pytest.raises(NoCredential, match="1 invalid"):
        await room_for(pool, clock, 60).lease(WANT)
    assert clock.now == START


async def test_a_busy_credential_is_waited_for_until_patience_ends() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock, policy=ONE_AT_A_TIME)
    await pool.lease(WANT)
    with pytest.raises(NoCredential, match="1 busy"):
        await room_for(pool, clock, 1.0).lease(WANT)
    assert clock.now == pytest.approx(START + 1.0)


async def test_who_waits_longest_is_served_first() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock, policy=ONE_AT_A_TIME)
    room = room_for(pool, clock, 60, until_woken)
    held = await pool.lease(WANT)
    served: list[int] = []

    async def request(number: int) -> None:
        lease = await room.lease(WANT)
        served.append(number)
        await end(pool, lease)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(request(number))
            await asyncio.sleep(0)
        assert room.waiting == 5
        await end(pool, held)
    assert served == [0, 1, 2, 3, 4]
    assert room.waiting == 0


async def test_a_full_room_refuses_at_once() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock, policy=ONE_AT_A_TIME)
    room = room_for(pool, clock, 60, until_woken, most=1)
    held = await pool.lease(WANT)
    first = asyncio.create_task(room.lease(WANT))
    await asyncio.sleep(0)

    with pytest.raises(NoCredential, match="1 busy"):
        await room.lease(WANT)

    assert (room.turned_away, room.waiting) == (1, 1)
    await end(pool, held)
    await end(pool, await first)


async def test_one_that_leaves_passes_its_turn_on() -> None:
    """The credential was freed for a request whose client went away at that moment."""
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock, policy=ONE_AT_A_TIME)
    room = room_for(pool, clock, 60, until_woken)
    held = await pool.lease(WANT)
    leaving, staying = (asyncio.create_task(room.lease(WANT)) for _ in range(2))
    await asyncio.sleep(0)

    await end(pool, held)
    leaving.cancel()

    assert (await asyncio.wait_for(staying, 5)).credential_id == 1
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert room.waiting == 0


async def test_it_really_waits() -> None:
    """With the clock and the waiting of production."""
    pool = make_pool(make_entry(1), policy=ONE_AT_A_TIME)
    room = WaitingRoom(pool, lambda: Patience(30))
    pool.freed = room.freed
    held = await pool.lease(WANT)
    waiting = asyncio.create_task(room.lease(WANT))
    await until(lambda: room.waiting == 1)
    await end(pool, held)
    assert (await asyncio.wait_for(waiting, 5)).credential_id == 1

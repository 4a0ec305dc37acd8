"""Limits in Redis: several workers, and Redis away, back, or without its data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest

from pool.limits.book import Recorded, UsageBook
from pool.limits.charges import NOTHING, Charge
from pool.limits.day import Days
from pool.limits.limiter import LimitExceeded, Ticket
from pool.limits.shared import RedisLimiter
from pool.shared.store import DEAD_AFTER, Script, SharedStore, StoreAway
from tests.pool.limits.samples import (
    CHAT,
    OFFSET,
    RedisServer,
    There,
    make_key,
    make_local,
    make_redis,
    refusal,
    use,
    uses_left,
)
from tests.pool.samples import Clock

TEN = make_key(chat=10)


class Fleet:
    """Workers ``one`` and ``two`` on one Redis, under a prefix of their own."""

    made = 0

    def __init__(self, server: RedisServer, workers: Sequence[str] = ("one", "two")) -> None:
        Fleet.made += 1
        self.server = server
        self.prefix = f"{{fleet{Fleet.made}}}:"
        self.clock = Clock()
        self.today = Days(OFFSET, self.clock).today()
        self.books = {name: UsageBook() for name in workers}
        made = {
            name: make_redis(server.url, name, self.prefix, self.clock, book)
            for name, book in self.books.items()
        }
        self.stores = {name: store for name, (store, _) in made.items()}
        self.limiters = {name: limiter for name, (_, limiter) in made.items()}

    async def __aenter__(self) -> Self:
        await self.beat()
        return self

    async def __aexit__(self, *error: object) -> None:
        for store in self.stores.values():
            await store.aclose()

    def __getitem__(self, name: str) -> RedisLimiter:
        return self.limiters[name]

    async def beat(self) -> None:
        for store in self.stores.values():
            # The first one finds that a connection from before an outage is dead.
            while not await store.beat():  # noqa: ASYNC110 - asking is what ends it
                await asyncio.sleep(0.01)

    def give_up(self, name: str) -> None:
        """As eight seconds without a beat would do."""
        self.server.command("ZADD", self.prefix + "workers", "0", name)

    def total(self, number: int = 1) -> list[int]:
        """Used and reserved units of today, as Redis has them."""
        key = f"{self.prefix}limits:{number}:{self.today}"
        return [int(word) for word in self.server.command("HGET", key, "total").split()[1:]]


async def test_of_many_at_once_exactly_so_many_pass_as_the_limit_allows(
    redis_server: RedisServer,
) -> None:
    async with Fleet(redis_server) as fleet:
        key = make_key(chat=37)
        tasks = [fleet[name].reserve(key, CHAT) for name in ("one", "two") * 60]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(outcome, Ticket) for outcome in outcomes) == 37


def test_of_many_in_two_processes_exactly_so_many_pass(redis_server: RedisServer) -> None:
    where = f"{redis_server.url} {{rush}}:"
    with There(where) as one, There(where) as two:
        for number, limits in enumerate(({"chat": 133}, {"concurrency": 50}, {"rpm": 100}), 1):
            for worker in (one, two):
                worker.send_rush(make_key(number, **limits), 150)
            assert one.receive() + two.receive() == max(limits.values())


def test_what_a_killed_process_held_is_given_back_once_it_is_given_up(
    redis_server: RedisServer,
) -> None:
    where = f"{redis_server.url} {{killed}}:"
    key = make_key(chat=5, concurrency=2)
    with There(where) as dead, There(where) as living:
        used = dead.reserve(key, CHAT)
        dead.settle(used, None)
        dead.release(used)
        dead.reserve(key, CHAT)
        dead.reserve(key, CHAT)
        dead.kill()
        with pytest.raises(LimitExceeded):
            living.reserve(key, CHAT)
        redis_server.command("ZADD", "{killed}:workers", "0", f"w{dead.process.pid}")
        for _ in range(2):
            living.reserve(key, CHAT)
        with pytest.raises(LimitExceeded) as refused:
            living.reserve(make_key(chat=5), Charge(chat=3))
        assert refused.value.bucket == "chat"
        living.reserve(make_key(chat=5), Charge(chat=2))


async def test_a_worker_that_was_given_up_and_lives_holds_its_places_again(
    redis_server: RedisServer,
) -> None:
    async with Fleet(redis_server) as fleet:
        key = make_key(chat=4, concurrency=2)
        held = [await fleet["one"].reserve(key, CHAT) for _ in range(2)]
        fleet.clock.now += DEAD_AFTER
        fleet.give_up("one")
        assert await uses_left(fleet["two"], key) == 2
        await fleet.beat()
        await refusal(fleet["two"], key)
        await fleet["one"].settle(held[0])
        for ticket in held:
            await fleet["one"].release(ticket)
        assert await uses_left(fleet["two"], key) == 2
        assert fleet.total() == [1, *[0] * 7]


async def test_what_is_used_while_redis_is_away_is_added_when_it_is_back(
    stoppable: RedisServer,
) -> None:
    async with Fleet(stoppable) as fleet:
        await use(fleet["one"], TEN)
        await use(fleet["one"], TEN)
        await use(fleet["two"], TEN)
        across = await fleet["one"].reserve(TEN, CHAT)
        stoppable.stop(keep=True)
        await use(fleet["one"], TEN)
        await fleet["one"].settle(across)
        await fleet["one"].release(across)
        for _ in range(2):
            await use(fleet["two"], TEN)
        begun_away = await fleet["two"].reserve(TEN, CHAT)
        assert fleet["two"].unsent
        stoppable.start()
        await fleet.beat()
        assert fleet["two"].unsent == 0
        assert fleet.total() == [7, 0, 0, 0, 1, 0, 0, 0]
        await fleet["two"].release(begun_away)
        for name in ("one", "two"):
            assert await uses_left(fleet[name], TEN) == 3
        noted = [book.take()[1, fleet.today].chat for book in fleet.books.values()]
        assert noted == [4, 3]


async def test_while_redis_is_away_each_goes_on_by_what_all_had_used(
    stoppable: RedisServer,
) -> None:
    async with Fleet(stoppable) as fleet:
        for _ in range(6):
            await use(fleet["two"], TEN)
        await fleet["two"].reserve(TEN, CHAT)
        await use(fleet["one"], TEN)
        stoppable.stop()
        assert await uses_left(fleet["one"], TEN) == 2
        assert await uses_left(fleet["one"], make_key(concurrency=3)) == 3


async def test_a_key_first_used_while_redis_was_away_is_counted_once(
    stoppable: RedisServer,
) -> None:
    """Also where the other worker's use of it was known to Redis before."""
    async with Fleet(stoppable) as fleet:
        await use(fleet["two"], TEN)
        stoppable.stop(keep=True)
        fleet.clock.now += 5
        for _ in range(3):
            await use(fleet["one"], TEN)
        await use(fleet["two"], TEN)
        fleet.clock.now += 5
        stoppable.start()
        await fleet.beat()
        assert await uses_left(fleet["one"], TEN) == 5
        assert fleet.total() == [5, *[0] * 7]


async def test_requests_of_the_minute_while_redis_was_away_count_afterwards(
    stoppable: RedisServer,
) -> None:
    async with Fleet(stoppable) as fleet:
        key = make_key(rpm=4)
        await use(fleet["one"], key)
        stoppable.stop(keep=True)
        await use(fleet["one"], key)
        fleet.clock.now += 30
        await use(fleet["one"], key)
        stoppable.start()
        await fleet.beat()
        await use(fleet["two"], key)
        assert (await refusal(fleet["two"], key)).retry_after == 31
        fleet.clock.now += 31
        await use(fleet["two"], key)
        await use(fleet["two"], key)
        await refusal(fleet["two"], key)


async def test_a_request_of_the_minute_counts_until_the_minute_is_surely_over(
    redis_server: RedisServer,
) -> None:
    async with Fleet(redis_server) as fleet:
        for limiter in (fleet["one"], make_local(clock=fleet.clock)):
            await use(limiter, make_key(rpm=1))
            fleet.clock.now += 60
            assert (await refusal(limiter, make_key(rpm=1))).retry_after == 1
            fleet.clock.now += 1
            await use(limiter, make_key(rpm=1))


@pytest.mark.parametrize("beaten", [True, False])
async def test_when_redis_has_lost_its_data_counts_go_on_from_the_last_known(
    redis_server: RedisServer, beaten: bool
) -> None:
    async with Fleet(redis_server) as fleet:
        key = make_key(chat=10, concurrency=3)
        for name in ("one", "two", "one", "two"):
            await use(fleet[name], key)
        await fleet["one"].reserve(key, CHAT)
        fleet.clock.now += 5
        redis_server.command("FLUSHALL")
        if beaten:
            await fleet.beat()
            assert await uses_left(fleet["two"], key) == 2
        assert await uses_left(fleet["two"], make_key(chat=10)) == (5 if beaten else 6)
        await use(fleet["two"], make_key(chat=10))
        await fleet.beat()
        assert fleet.total() == [5, 0, 0, 0, 1, 0, 0, 0]


async def test_an_empty_redis_begins_with_what_the_record_says(redis_server: RedisServer) -> None:
    async with Fleet(redis_server) as fleet:
        row = Recorded(1, fleet.today, 7, Charge(chat=4, video=1))
        for book in fleet.books.values():
            book.learn(fleet.today, [row])
        await use(fleet["one"], TEN)
        await use(fleet["two"], TEN)
        await fleet.beat()
        assert fleet.total() == [6, 0, 0, 1, *[0] * 4]


async def test_use_before_there_was_a_limit_counts(redis_server: RedisServer) -> None:
    async with Fleet(redis_server) as fleet:
        await use(fleet["one"], make_key())
        await use(fleet["one"], make_key())
        fleet.clock.now += 1
        assert await uses_left(fleet["one"], TEN) == 8
        fleet.clock.now += 1
        await use(fleet["two"], make_key())
        await use(fleet["two"], TEN)
        await use(fleet["one"], make_key())
        await fleet.beat()
        assert fleet.total() == [5, *[0] * 7]


async def test_a_reset_takes_effect_once(redis_server: RedisServer) -> None:
    async with Fleet(redis_server) as fleet:
        before, after = (Recorded(1, fleet.today, row, NOTHING) for row in (7, 8))
        for name in ("one", "two"):
            fleet.books[name].learn(fleet.today, [before])
            for _ in range(5):
                await use(fleet[name], TEN)
        await refusal(fleet["one"], TEN)
        await fleet.beat()
        fleet.books["one"].learn(fleet.today, [after])
        await use(fleet["one"], TEN)
        assert await uses_left(fleet["two"], TEN) == 9
        fleet.books["two"].learn(fleet.today, [after])
        assert await uses_left(fleet["two"], TEN) == 9


async def test_a_use_without_a_limit_at_the_same_time_is_one_call(
    redis_server: RedisServer,
) -> None:
    async with Fleet(redis_server) as fleet, lossy_worker(fleet) as (store, limiter):
        for key, calls in ((TEN, 1), (make_key(concurrency=1), 2)):
            store.asked.clear()
            await use(limiter, key)
            assert len(store.asked) == calls
        store.asked.clear()
        await limiter.release(await limiter.reserve(TEN, CHAT))
        assert len(store.asked) == 2


async def test_unlimited_keys_and_the_global_one_never_ask_redis(stoppable: RedisServer) -> None:
    async with Fleet(stoppable) as fleet:
        stoppable.stop()
        await use(fleet["one"], make_key())
        await use(fleet["one"], make_key(0))
        assert fleet.stores["one"].available
        assert fleet.books["one"].take() == {(1, fleet.today): CHAT}


async def test_midnight_while_redis_is_away(stoppable: RedisServer) -> None:
    async with Fleet(stoppable) as fleet:
        days = Days(OFFSET, fleet.clock)
        for _ in range(9):
            await use(fleet["one"], TEN)
        yesterday = fleet.today
        late = await fleet["one"].reserve(TEN, CHAT)
        stoppable.stop(keep=True)
        fleet.clock.now += days.seconds_left()
        await fleet["one"].settle(late)
        await fleet["one"].release(late)
        await use(fleet["one"], TEN)
        fleet.clock.now += 5
        stoppable.start()
        await fleet.beat()
        assert fleet.total() == [10, *[0] * 7]
        fleet.today = yesterday + 1
        assert fleet.total() == [1, *[0] * 7]


class Lossy(SharedStore):
    """Loses replies: what was asked was done all the same.

    ``wait`` holds replies back, ``hold_back`` the questions.
    """

    losing = 0
    wait: asyncio.Event | None = None
    hold_back: asyncio.Event | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.done = asyncio.Event()
        self.asked: list[tuple[Script, Sequence[str], Sequence[str | float]]] = []

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[str | float], **options: Any
    ) -> Any:
        self.asked.append((script, keys, args))
        if self.hold_back is not None:
            await self.hold_back.wait()
        reply = await super().run(script, keys, args, **options)
        self.done.set()
        if self.wait is not None:
            await self.wait.wait()
        if self.losing:
            self.losing -= 1
            raise StoreAway
        return reply


@asynccontextmanager
async def lossy_worker(fleet: Fleet) -> AsyncIterator[tuple[Lossy, RedisLimiter]]:
    store = Lossy(fleet.server.url, worker="lossy", prefix=fleet.prefix, timeout=5.0)
    clock, days = fleet.clock, Days(OFFSET, fleet.clock)
    limiter = RedisLimiter(store, days, UsageBook(), clock=clock, wall=clock, redis_time=clock)
    await store.beat()
    try:
        yield store, limiter
    finally:
        await store.aclose()


async def test_a_lost_reply_counts_nothing_twice(redis_server: RedisServer) -> None:
    async with Fleet(redis_server) as fleet, lossy_worker(fleet) as (store, limiter):
        for lost in range(5):
            store.losing = lost % 3
            await use(limiter, TEN)
        await store.beat()
        assert fleet.total() == [5, *[0] * 7]


async def test_a_call_that_comes_late_or_twice_changes_nothing(redis_server: RedisServer) -> None:
    async with Fleet(redis_server) as fleet, lossy_worker(fleet) as (store, limiter):
        key = make_key(chat=9, concurrency=2, rpm=3)
        await use(limiter, key)
        await use(limiter, key)
        for call in list(store.asked):
            await store.run(*call)
        assert fleet.total() == [2, *[0] * 7]
        assert await uses_left(fleet["two"], make_key(concurrency=2)) == 2
        await use(fleet["two"], key)


async def test_a_request_cancelled_while_it_asks_takes_nothing(redis_server: RedisServer) -> None:
    async with Fleet(redis_server) as fleet, lossy_worker(fleet) as (store, limiter):
        key = make_key(chat=2, concurrency=1)
        store.wait = asyncio.Event()
        store.done.clear()
        asking = asyncio.create_task(limiter.reserve(key, CHAT))
        await asyncio.wait_for(store.done.wait(), 10)
        await refusal(fleet["two"], key)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        store.wait = None
        await store.beat()
        assert await uses_left(fleet["two"], make_key(chat=2)) == 2
        assert await uses_left(fleet["two"], key) == 1


async def test_a_release_that_is_cancelled_gives_back_with_the_next_beat(
    redis_server: RedisServer,
) -> None:
    async with Fleet(redis_server) as fleet, lossy_worker(fleet) as (store, limiter):
        key = make_key(chat=2, concurrency=1)
        ticket = await limiter.reserve(key, CHAT)
        store.hold_back = asyncio.Event()
        releasing = asyncio.create_task(limiter.release(ticket))
        await asyncio.sleep(0)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing
        await limiter.release(ticket)
        await refusal(fleet["two"], key)
        store.hold_back = None
        await store.beat()
        assert await uses_left(fleet["two"], key) == 1

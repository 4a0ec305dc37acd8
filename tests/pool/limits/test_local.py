"""Limits in this host's memory: one worker, and several processes on a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool.limits.book import Recorded, UsageBook
from pool.limits.charges import NOTHING, Charge
from pool.limits.day import Days
from pool.limits.limiter import LimitExceeded, Ticket
from pool.limits.table import IN_WINDOW, RUNNING, BadTable, KeyTable, create
from tests.pool.limits.samples import (
    CHAT,
    OFFSET,
    There,
    make_key,
    make_local,
    refusal,
    use,
    uses_left,
)
from tests.pool.samples import Clock


def today(clock: Clock) -> int:
    return Days(OFFSET, clock).today()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "limits", workers=4, capacity=16)
    return tmp_path / "limits"


async def test_of_many_at_once_exactly_so_many_pass_as_the_limit_allows() -> None:
    limiter, key = make_local(), make_key(chat=37)
    tasks = [limiter.reserve(key, CHAT) for _ in range(200)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(outcome, Ticket) for outcome in outcomes) == 37


def test_of_many_in_four_processes_exactly_so_many_pass(path: Path) -> None:
    workers = [There(path) for _ in range(4)]
    try:
        for number, limits in enumerate(({"chat": 333}, {"concurrency": 50}, {"rpm": 200}), 1):
            for worker in workers:
                worker.send_rush(make_key(number, **limits), 250)
            assert sum(worker.receive() for worker in workers) == max(limits.values())
    finally:
        for worker in workers:
            worker.close()


def test_what_a_killed_process_held_is_given_back(path: Path) -> None:
    key = make_key(chat=5, concurrency=3)
    with There(path) as dead, There(path) as living:
        dead.settle(dead.reserve(key, CHAT), None)
        dead.reserve(key, CHAT)
        dead.reserve(key, CHAT)
        with pytest.raises(LimitExceeded) as refused:
            living.reserve(key, CHAT)
        assert refused.value.bucket == "concurrent_requests"
        dead.kill()
        for _ in range(3):
            living.reserve(key, CHAT)
        with pytest.raises(LimitExceeded) as refused:
            living.reserve(key, CHAT)
        assert refused.value.bucket == "concurrent_requests"
        # One use of the dead one was settled: that stays used.
        with pytest.raises(LimitExceeded) as refused:
            living.reserve(make_key(chat=5), Charge(chat=2))
        assert refused.value.bucket == "chat"
        living.reserve(make_key(chat=5), CHAT)


def test_a_new_process_in_the_slot_of_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    create(path, workers=1, capacity=4)
    key = make_key(chat=3, concurrency=2)
    with There(path) as first, There(path) as second:
        first.reserve(key, CHAT)
        second.reserve(key, CHAT)
        first.kill()
        with There(path) as third:
            third.reserve(key, CHAT)
            with pytest.raises(LimitExceeded):
                third.reserve(key, CHAT)
            second.kill()
            third.reserve(key, CHAT)


def test_what_a_killed_process_wrote_half_is_set_right(path: Path) -> None:
    table = KeyTable.open(path)
    limiter, key = make_local(table), make_key(concurrency=1, rpm=2)
    asyncio.run(use(limiter, key))
    table.words[table.place_of(key.id) + RUNNING] += 1
    asyncio.run(use(limiter, key))
    assert asyncio.run(refusal(limiter, key)).bucket == "requests_per_minute"
    table.words[table.place_of(key.id) + IN_WINDOW] += 1
    asyncio.run(use(limiter, make_key(concurrency=1, rpm=3)))
    table.close()


def test_a_file_has_two_slots_per_worker_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    create(path, workers=1, capacity=4)
    with There(path), There(path), pytest.raises(BadTable, match="2 slots"):
        KeyTable.open(path)


def test_a_new_start_leaves_the_workers_of_the_last_one_theirs(path: Path) -> None:
    with There(path) as old:
        old.reserve(make_key(concurrency=2), CHAT)
        create(path, workers=1, capacity=4)
        with There(path) as new:
            new.reserve(make_key(concurrency=1), CHAT)
            old.reserve(make_key(concurrency=2), CHAT)
            with pytest.raises(LimitExceeded):
                old.reserve(make_key(concurrency=2), CHAT)


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(BadTable, match="is not a table"):
        KeyTable.open(path)


async def test_a_full_table_refuses_further_limited_keys_and_says_so() -> None:
    limiter = make_local(KeyTable.anonymous(2))
    for number in (1, 2):
        await use(limiter, make_key(number, chat=5))
    for _ in range(2):
        await refusal(limiter, make_key(3, chat=5))
    assert limiter.turned_away == 2
    await use(limiter, make_key(1, chat=5))
    await use(limiter, make_key(3))


async def test_keys_that_fall_on_one_place_are_counted_apart() -> None:
    limiter = make_local(KeyTable.anonymous(4))
    for number in (1, 5, 9):
        await use(limiter, make_key(number, chat=3))
    for number in (9, 5):
        await use(limiter, make_key(number, chat=3))
    assert [await uses_left(limiter, make_key(n, chat=3)) for n in (1, 5, 9)] == [2, 1, 1]


async def test_changed_limits_hold_for_the_next_request() -> None:
    limiter = make_local()
    await use(limiter, make_key(chat=1))
    await refusal(limiter, make_key(chat=1))
    assert await uses_left(limiter, make_key(chat=3)) == 2
    await refusal(limiter, make_key(chat=0))


async def test_a_lowered_limit_stops_only_what_it_is_about() -> None:
    limiter = make_local()
    await use(limiter, make_key(image=9), Charge(image=4))
    await use(limiter, make_key(image=2, chat=1), CHAT)


async def test_a_restart_remembers_what_was_used() -> None:
    clock, book = Clock(), UsageBook()
    book.learn(today(clock), [Recorded(1, today(clock), 7, Charge(chat=4, image=2))])
    limiter = make_local(clock=clock, book=book)
    assert await uses_left(limiter, make_key(chat=5)) == 1
    assert await uses_left(limiter, make_key(image=5), Charge(image=1)) == 3


async def test_the_use_of_other_hosts_is_seen_and_never_lowers_ours() -> None:
    clock, book = Clock(), UsageBook()
    limiter = make_local(clock=clock, book=book)
    for _ in range(3):
        await use(limiter, make_key(chat=10))
    book.take()
    for recorded, left in ((0, 7), (8, 2), (5, 2)):
        book.learn(today(clock), [Recorded(1, today(clock), 7, Charge(chat=recorded))])
        assert await uses_left(limiter, make_key(chat=10)) == left


async def test_a_reset_takes_effect_once() -> None:
    clock, book = Clock(), UsageBook()
    limiter = make_local(clock=clock, book=book)
    book.learn(today(clock), [Recorded(1, today(clock), 7, Charge(chat=5))])
    await refusal(limiter, make_key(chat=5))
    book.learn(today(clock), [Recorded(1, today(clock), 8, NOTHING)])
    assert await uses_left(limiter, make_key(chat=5)) == 5
    await use(limiter, make_key(chat=5))
    book.take()
    book.learn(today(clock), [Recorded(1, today(clock), 8, NOTHING)])
    assert await uses_left(limiter, make_key(chat=5)) == 4


async def test_a_worker_that_missed_the_reset_does_not_undo_it() -> None:
    clock, table = Clock(), KeyTable.anonymous(4)
    books = UsageBook(), UsageBook()
    early, late = (make_local(table, clock, book) for book in books)
    for book in books:
        book.learn(today(clock), [Recorded(1, today(clock), 7, Charge(chat=5))])
    await refusal(late, make_key(chat=5))
    books[0].learn(today(clock), [Recorded(1, today(clock), 8, NOTHING)])
    await use(early, make_key(chat=5))
    assert await uses_left(late, make_key(chat=5)) == 4
    books[1].learn(today(clock), [Recorded(1, today(clock), 8, NOTHING)])
    assert await uses_left(late, make_key(chat=5)) == 4


async def test_use_before_there_was_a_limit_counts() -> None:
    limiter = make_local()
    await use(limiter, make_key())
    assert await uses_left(limiter, make_key(chat=3)) == 2
    await use(limiter, make_key())
    assert await uses_left(limiter, make_key(chat=3)) == 1


async def test_what_was_reserved_before_midnight_belongs_to_that_day() -> None:
    clock, book = Clock(), UsageBook()
    limiter, key = make_local(clock=clock, book=book), make_key(chat=2)
    before = today(clock)
    kept, returned = [await limiter.reserve(key, CHAT) for _ in range(2)]
    refused = await refusal(limiter, key)
    clock.now += refused.retry_after
    assert today(clock) == before + 1
    assert await uses_left(limiter, key) == 2
    await limiter.settle(kept)
    for ticket in (kept, returned):
        await limiter.release(ticket)
    assert await uses_left(limiter, key) == 2
    assert book.take() == {(1, before): CHAT}
    clock.now -= 60
    assert await uses_left(limiter, key) == 1


async def test_a_ticket_of_days_ago_disturbs_nobody() -> None:
    clock = Clock()
    limiter, key = make_local(clock=clock), make_key(chat=2, concurrency=2)
    old = await limiter.reserve(key, CHAT)
    clock.now += 2 * 86_400
    await use(limiter, key)
    for _ in range(2):
        assert await uses_left(limiter, make_key(chat=2)) == 1
    await limiter.settle(old)
    await limiter.release(old)
    for _ in range(2):
        assert await uses_left(limiter, key) == 1


async def test_nothing_is_settled_twice_or_beyond_what_is_held() -> None:
    limiter, book_of_day = make_local(), make_key(image=9)
    ticket = await limiter.reserve(book_of_day, Charge(image=4))
    for charge in (Charge(image=5), Charge(image=1, chat=1), Charge(image=-1)):
        with pytest.raises(ValueError, match="more than it holds"):
            await limiter.settle(ticket, charge)
    await limiter.settle(ticket, Charge(image=3))
    with pytest.raises(ValueError, match="once"):
        await limiter.settle(ticket)
    await limiter.release(ticket)
    assert await uses_left(limiter, book_of_day, Charge(image=1)) == 6


async def test_a_refusal_says_what_and_until_when() -> None:
    clock = Clock()
    limiter = make_local(clock=clock)
    days = Days(OFFSET, clock)
    refused = await refusal(limiter, make_key(heavy=0), Charge(chat=1, heavy=1))
    assert (refused.bucket, refused.limit) == ("heavy", 0)
    assert refused.retry_after == days.seconds_left()
    assert refused.message == "This key's limit of 0 heavy chats per day is reached."
    await limiter.reserve(make_key(concurrency=1), CHAT)
    refused = await refusal(limiter, make_key(concurrency=1, rpm=0, chat=0))
    assert (refused.bucket, refused.retry_after) == ("concurrent_requests", 1.0)
    refused = await refusal(limiter, make_key(rpm=0, chat=0))
    assert (refused.bucket, refused.retry_after) == ("requests_per_minute", 60.0)

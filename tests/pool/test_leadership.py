"""One leader at a time, whatever becomes of clocks and the database.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest
from django.db import OperationalError
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.leadership import MARGIN, PATIENCE, RENEWAL, TTL, Leader, StoredDuty
from pool.models import Leadership
from tests.pool.samples import Clock
from tests.pool.workers import until

stored = pytest.mark.django_db(transaction=True)


class Row:
    """The stored duty, with the database's time in the test's hands."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.holder = ""
        self.until = 0.0
        self.away = False

    def of(self, holder: str) -> Claims:
        return Claims(self, holder)


class Claims:
    def __init__(self, row: Row, holder: str) -> None:
        self._row = row
        self._holder = holder

    def claim(self, ttl: float) -> float | None:
        row = self._row
        if row.away:
            raise OperationalError("made up")
        if row.holder not in {"", self._holder} and row.until > row.clock():
            return row.until - row.clock()
        row.holder, row.until = self._holder, row.clock() + ttl
        return None

    def give_up(self) -> None:
        if self._row.away:
            raise OperationalError("made up")
        if self._row.holder == self._holder:
            self._row.holder = ""


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def leads(leader: Leader) -> bool:
    return leader.is_leader


def candidate(row: Row, name: str, clock: Callable[[], float]) -> Leader:
    return Leader(name, clock=clock, sleep=no_sleep, stored=row.of(name))


# With the database


@stored
async def test_of_two_candidates_one_leads_and_the_other_knows_for_how_long() -> None:
    first, second = Leader("first"), Leader("second")
    await first.attempt()  # makes the row
    assert await first.attempt() == RENEWAL
    wait = await second.attempt()

    assert (first.is_leader, second.is_leader) == (True, False)
    assert wait == RENEWAL
    await first.resign()
    await second.resign()


@stored
async def test_whoever_resigns_is_succeeded_at_once() -> None:
    first, second = Leader("first"), Leader("second")
    await first.attempt()
    await first.attempt()
    await second.attempt()
    await first.resign()
    assert not first.is_leader
    await second.attempt()
    assert second.is_leader
    await second.resign()


@stored
async def test_resigning_does_not_take_the_lead_from_another() -> None:
    first, second, third = Leader("first"), Leader("second"), Leader("third")
    await first.attempt()
    await first.attempt()
    await second.resign()
    await third.attempt()
    assert not third.is_leader
    await first.resign()
    await third.resign()


@stored
async def test_duties_are_held_apart() -> None:
    leaders = [Leader("same", "one"), Leader("other", "two")]
    for leader in leaders * 2:
        await leader.attempt()
    assert all(leader.is_leader for leader in leaders)
    for leader in leaders:
        await leader.resign()


@stored
async def test_a_holder_that_no_longer_renews_is_succeeded_when_its_lease_is_over() -> None:
    first = Leader("first", ttl=1.0, renewal=0.2)
    second = Leader("second", ttl=1.0, renewal=0.2)
    await first.attempt()
    await first.attempt()
    taken = time.monotonic()
    running = asyncio.create_task(second.run_forever())
    while not second.is_leader:
        assert not (first.is_leader and second.is_leader)
        await asyncio.sleep(0.005)
    assert not first.is_leader
    assert 0.95 <= time.monotonic() - taken < 1.5
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await first.resign()
    await second.resign()


@stored
async def test_a_holder_that_renews_stays() -> None:
    first = Leader("first", ttl=0.6, renewal=0.1)
    second = Leader("second", ttl=0.6, renewal=0.1)
    running = [asyncio.create_task(leader.run_forever()) for leader in (first, second)]
    await until(lambda: first.is_leader or second.is_leader)
    leading, following = (first, second) if first.is_leader else (second, first)
    for _ in range(150):
        assert leading.is_leader
        assert not following.is_leader
        await asyncio.sleep(0.01)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await first.resign()
    await second.resign()


@stored
def test_a_lease_from_a_database_clock_that_was_set_back_is_not_waited_for() -> None:
    first, second = StoredDuty("duty", "first"), StoredDuty("duty", "second")
    first.claim(3600.0)
    assert first.claim(3600.0) is None
    assert second.claim(TTL) is None
    assert Leadership.objects.get().holder == "second"


@stored
def test_candidates_that_begin_together_make_one_row_and_one_leader() -> None:
    def stand(name: str) -> None:
        asyncio.run(attempts(name))

    async def attempts(name: str) -> None:
        leader = Leader(name)
        for _ in range(10):
            await leader.attempt()
        if leader.is_leader:
            leading.append(name)
        begun.wait()
        await leader.resign()

    leading: list[str] = []
    begun = threading.Barrier(4)
    threads = [threading.Thread(target=stand, args=(f"candidate {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leading) == 1
    assert Leadership.objects.count() == 1


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 64"):
        StoredDuty("duty", name)


# Without it


async def test_the_lead_ends_by_the_local_clock_while_the_database_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pool.leadership")
    clock = Clock()
    row = Row(clock)
    leader = candidate(row, "one", clock)
    await leader.attempt()
    row.away = True
    clock.now += TTL - MARGIN - 0.1
    assert await leader.attempt() == RENEWAL
    assert leads(leader)
    clock.now += 0.2
    assert not leads(leader)
    for _ in range(5):
        await leader.attempt()
    row.away = False
    await leader.attempt()
    assert leads(leader)
    row.away = True
    await leader.resign()

    assert [record.getMessage() for record in caplog.records] == [
        "has taken the duty 'background'",
        "cannot ask who leads (background): OperationalError",
        "no longer has the duty 'background'",
        "has taken the duty 'background'",
        "no longer has the duty 'background'",
        "the duty 'background' runs out by itself: OperationalError",
    ]


class Hanging(Claims):
    """A database that takes a claim and does not answer until it is let."""

    def __init__(self, row: Row, holder: str) -> None:
        super().__init__(row, holder)
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()

    def claim(self, ttl: float) -> float | None:
        given = super().claim(ttl)
        self.asked.set()
        assert self.answers.wait(20)
        return given


async def test_the_lead_ends_by_the_local_clock_while_a_query_hangs() -> None:
    clock = Clock()
    hanging = Hanging(Row(clock), "one")
    leader = Leader("one", clock=clock, stored=hanging)
    await leader.attempt()
    assert leads(leader)
    hanging.answers.clear()
    hanging.asked.clear()
    attempt = asyncio.create_task(leader.attempt())
    await until(hanging.asked.is_set)
    clock.now += TTL
    assert not leads(leader)
    hanging.answers.set()
    await attempt
    assert not leads(leader)  # the answer is about a time long past
    await leader.resign()


async def test_resigning_does_not_wait_long_for_a_database_that_hangs() -> None:
    hanging = Hanging(Row(Clock()), "one")
    leader = Leader("one", stored=hanging)
    await leader.attempt()
    hanging.answers.clear()
    hanging.asked.clear()
    running = asyncio.create_task(leader.attempt())
    await until(hanging.asked.is_set)
    began = time.monotonic()
    await leader.resign()
    assert time.monotonic() - began < PATIENCE + 2
    assert not leads(leader)
    hanging.answers.set()
    await running
    assert not leads(leader)  # what was under way does not bring the lead back


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["attempt", "pass", "away", "back", "resign"]), st.integers(0, 8)),
    max_size=60,
)


@given(steps=STEPS, skews=st.tuples(*[st.floats(-1e6, 1e6)] * 3))
@settings(deadline=None, max_examples=60)
def test_there_are_never_two_leaders(steps: list[Step], skews: tuple[float, ...]) -> None:
    asyncio.run(_never_two(steps, skews))


async def _never_two(steps: list[Step], skews: tuple[float, ...]) -> None:
    """Three hosts whose clocks stand at different times."""
    clock = Clock()
    row = Row(clock)
    clocks = [_skewed(clock, skew) for skew in skews]
    leaders = [candidate(row, f"host {n}", clocks[n]) for n in range(3)]
    for action, amount in steps:
        leader = leaders[amount % 3]
        if action == "attempt":
            await leader.attempt()
        elif action == "pass":
            clock.now += amount
        elif action == "resign":
            await leader.resign()
            number = amount % 3
            leaders[number] = candidate(row, f"host {number}", clocks[number])
        else:
            row.away = action == "away"
        assert sum(leader.is_leader for leader in leaders) <= 1
    row.away = False
    for leader in leaders:
        await leader.resign()


def _skewed(clock: Clock, skew: float) -> Callable[[], float]:
    return lambda: clock.now + skew

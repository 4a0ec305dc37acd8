"""Every kind of limiter against a model that keeps a list of what happened.

One worker on its own memory, two on a file (one of them another process), two on Redis.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pool.keys import NO_LIMITS, KeyLimits, KeyRecord
from pool.limits.book import UsageBook, plus
from pool.limits.charges import BUCKETS, NOTHING, Charge
from pool.limits.day import Days
from pool.limits.limiter import LimitExceeded
from pool.limits.local import LocalLimiter
from pool.limits.table import KeyTable, create
from pool.shared.store import SharedStore
from tests.pool.limits.samples import OFFSET, Here, RedisServer, There, Worker, make_redis
from tests.pool.samples import Clock

numbers = st.sampled_from((-1, -1, 0, 1, 2, 3, 5))
limits = st.builds(KeyLimits, numbers, numbers, numbers, numbers, numbers, numbers)
charges = st.one_of(
    st.just(Charge(chat=1)),
    st.just(Charge(chat=1, heavy=1)),
    st.integers(1, 4).map(lambda images: Charge(image=images)),
    st.just(Charge(video=1)),
    st.just(NOTHING),
)


@dataclass
class Held:
    """A ticket as the model knows it. ``left`` is what is reserved of it."""

    worker: Worker
    number: int
    key: int
    day: int
    charge: Charge
    limited: bool
    left: Charge
    settled: bool = False


@dataclass
class Book:
    """All that ever happened to one key."""

    limits: KeyLimits
    used: dict[int, Charge] = field(default_factory=dict)
    seconds: list[int] = field(default_factory=list)

    def add(self, day: int, used: Charge) -> None:
        self.used[day] = plus(self.used.get(day, NOTHING), used)


class LimiterMachine(RuleBasedStateMachine):
    """``begin`` of a subclass makes the workers."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.days = Days(OFFSET, self.clock)
        self.runner = asyncio.Runner()
        self.workers: list[Worker] = []
        self.books: dict[int, Book] = {3: Book(NO_LIMITS)}
        self.held: list[Held] = []
        self.noted: dict[tuple[int, int], Charge] = {}
        self.make_workers()

    def make_workers(self) -> None:
        raise NotImplementedError

    @initialize(one=limits, two=limits)
    def begin(self, one: KeyLimits, two: KeyLimits) -> None:
        self.books[1] = Book(one)
        self.books[2] = Book(replace(two, chat=3))

    @rule(limits=limits)
    def change_limits(self, limits: KeyLimits) -> None:
        """The key stays a limited one: others know of the use of unlimited ones only later."""
        self.books[2].limits = replace(
            limits, heavy=max(0, limits.heavy), concurrency=self.concurrency(limits.concurrency)
        )

    def concurrency(self, limit: int) -> int:
        return limit

    @rule(seconds=st.sampled_from((0.25, 1.0, 15.0, 59.0, 60.0, 61.0, 3600.0, 40_000.0)))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def wait_for_midnight(self) -> None:
        self.clock.now += self.days.seconds_left()

    @rule(worker=st.integers(0, 1), number=st.sampled_from((1, 1, 2, 2, 3, 0)), charge=charges)
    def reserve(self, worker: int, number: int, charge: Charge) -> None:
        book = self.books.get(number) or Book(NO_LIMITS)
        chosen = self.workers[worker % len(self.workers)]
        expected = self.refusal(number, book, charge)
        try:
            ticket = chosen.reserve(KeyRecord(number, "", "", limits=book.limits), charge)
        except LimitExceeded as error:
            assert expected is not None, error
            bucket, limit, wait = expected
            assert (error.bucket, error.limit) == (bucket, limit)
            assert error.retry_after == pytest.approx(wait, abs=0.002)
            return
        assert expected is None, expected
        is_limited = number != 0 and not book.limits.is_unlimited
        day = self.days.today()
        self.held.append(Held(chosen, ticket, number, day, charge, is_limited, charge))
        if book.limits.rpm >= 0:
            book.seconds.append(int(self.clock.now))

    def refusal(self, number: int, book: Book, charge: Charge) -> tuple[str, int, float] | None:
        mine = [held for held in self.held if held.key == number and held.limited]
        limits, second = book.limits, int(self.clock.now)
        if 0 <= limits.concurrency <= len(mine):
            return "concurrent_requests", limits.concurrency, 1.0
        recent = sorted(at for at in book.seconds if at > second - 61)
        if 0 <= limits.rpm <= len(recent):
            if limits.rpm == 0:
                return "requests_per_minute", 0, 60.0
            first_to_go = recent[len(recent) - limits.rpm]
            return "requests_per_minute", limits.rpm, first_to_go + 61 - self.clock.now
        today = self.days.today()
        gone = book.used.get(today, NOTHING)
        for held in mine:
            gone = plus(gone, held.left) if held.day == today else gone
        for name, limit, used, cost in zip(BUCKETS, limits.daily, gone, charge, strict=True):
            if cost and 0 <= limit < used + cost:
                return name, limit, self.days.seconds_left()
        return None

    @precondition(lambda self: any(not held.settled for held in self.held))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from([held for held in self.held if not held.settled]))
        part = data.draw(st.sampled_from((None, *range(max(held.charge) + 1))))
        used = held.charge if part is None else Charge(*(min(part, n) for n in held.charge))
        held.worker.settle(held.number, None if part is None else used)
        held.settled, held.left = True, NOTHING
        if held.key:
            self.books[held.key].add(held.day, used)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), twice=st.booleans())
    def release(self, data: st.DataObject, twice: bool) -> None:
        held = data.draw(st.sampled_from(self.held))
        held.worker.release(held.number)
        if twice:
            held.worker.release(held.number)
        self.held.remove(held)

    def note(self) -> None:
        for worker in self.workers:
            for where, used in worker.noted().items():
                self.noted[where] = plus(self.noted.get(where, NOTHING), used)

    @invariant()
    def numbers_are_sound(self) -> None:
        """What is kept where is never negative, and adds up."""

    def teardown(self) -> None:
        for held in self.held:
            held.worker.release(held.number)
        self.held.clear()
        self.numbers_are_sound()
        self.note()
        used = {
            (key, day): used
            for key, book in self.books.items()
            for day, used in book.used.items()
            if used != NOTHING
        }
        assert self.noted == used
        self.close()
        self.runner.close()

    def close(self) -> None:
        """Let go of what the workers have open."""


def check_table(machine: LimiterMachine, table: KeyTable) -> None:
    today = machine.days.today()
    for number, book in machine.books.items():
        limiter = LocalLimiter(table, machine.days, UsageBook(), clock=machine.clock)
        running, used, reserved = limiter.numbers(number, today)
        mine = [held for held in machine.held if held.key == number and held.limited]
        assert running == len(mine)
        if used is None:
            continue
        assert used == book.used.get(today, NOTHING)
        expected = NOTHING
        for held in mine:
            expected = plus(expected, held.left) if held.day == today else expected
        assert reserved == expected


class OneWorkerMachine(LimiterMachine):
    def make_workers(self) -> None:
        self.table, book = KeyTable.anonymous(4), UsageBook()
        limiter = LocalLimiter(self.table, self.days, book, clock=self.clock)
        self.workers = [Here(limiter, book, self.runner)]

    @invariant()
    def numbers_are_sound(self) -> None:
        check_table(self, self.table)

    def close(self) -> None:
        self.table.close()


class FileMachine(LimiterMachine):
    other: There

    def make_workers(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path, book = Path(self.directory.name) / "limits", UsageBook()
        create(path, workers=2, capacity=4)
        self.table = KeyTable.open(path)
        limiter = LocalLimiter(self.table, self.days, book, clock=self.clock)
        self.other._clock = self.clock
        self.other.open(path)
        self.workers = [Here(limiter, book, self.runner), self.other]

    @invariant()
    def numbers_are_sound(self) -> None:
        check_table(self, self.table)

    def close(self) -> None:
        self.table.close()
        self.directory.cleanup()


class RedisMachine(LimiterMachine):
    server: RedisServer
    prefixes = count()

    def make_workers(self) -> None:
        self.prefix = f"{{model{next(self.prefixes)}}}:"
        self.stores: list[SharedStore] = []
        for name in ("one", "two"):
            book = UsageBook()
            store, limiter = make_redis(self.server.url, name, self.prefix, self.clock, book)
            self.runner.run(store.beat())
            self.stores.append(store)
            self.workers.append(Here(limiter, book, self.runner))

    def concurrency(self, limit: int) -> int:
        """Without such a limit Redis hears of an end with the next call or beat only."""
        had_one = self.books[2].limits.concurrency >= 0
        return max(0, limit) if had_one else -1

    def close(self) -> None:
        for store in self.stores:
            self.runner.run(store.beat())
        today = self.days.today()
        for number, book in self.books.items():
            total = self.server.command("HGET", f"{self.prefix}limits:{number}:{today}", "total")
            if total != "$-1\r\n" and not book.limits.is_unlimited:
                kept = [*book.used.get(today, NOTHING), *NOTHING]
                assert total.split("\r\n")[1] == " ".join(map(str, kept))
                runs = self.server.command("HGET", f"{self.prefix}limits:{number}:live", "total")
                assert runs.split("\r\n")[1] == "0"
        for store in self.stores:
            self.runner.run(store.aclose())


def check(machine: type[LimiterMachine], examples: int) -> None:
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None,
            suppress_health_check=slow,
        ),
    )  # fmt: skip


def test_one_worker_keeps_to_the_model() -> None:
    check(OneWorkerMachine, 150)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[There]:
    create(tmp_path / "first", workers=2, capacity=4)
    with There(tmp_path / "first") as other:
        yield other


def test_two_processes_on_a_file_keep_to_the_model(other: There) -> None:
    FileMachine.other = other
    check(FileMachine, 100)


def test_two_workers_on_redis_keep_to_the_model(redis_server: RedisServer) -> None:
    RedisMachine.server = redis_server
    check(RedisMachine, 150)

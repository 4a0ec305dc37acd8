"""Errors that are upstream's own: noticed, forgiven, and over by themselves."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pool.entries import Entry, Quota
from pool.errors import NoCredential
from pool.incidents import MAX_REMEMBERED, IncidentWatch
from pool.leases import Lane, Want
from pool.outcomes import NEUTRAL, SUCCESS, Outcome, Verdict
from pool.policy import PoolPolicy
from pool.selection import MemoryPool
from tests.pool.samples import START, Clock, make_entry, make_pool

FAST = Lane("sso", "fast")
AUTO = Lane("sso", "auto")
POLICY = PoolPolicy(incident_threshold=3, incident_window=60)
RETIRE = Outcome(Verdict.RETIRE, "blocked")
BACK_OFF = Outcome(Verdict.BACK_OFF, "bad gateway")
PAUSE = Outcome(Verdict.PAUSE, "unreachable")
COOL = Outcome(Verdict.COOL_CREDENTIAL, "no balance")


class Pool:
    """A pool of measured credentials, the first with most quota, and its clock."""

    def __init__(self, count: int = 6, policy: PoolPolicy = POLICY, **options: Any) -> None:
        self.clock = Clock()
        self.changed: list[int] = []
        entries = [
            make_entry(number, quotas={"fast": Quota(100 - number), "auto": Quota(100 - number)})
            for number in range(1, count + 1)
        ]
        self.pool: MemoryPool = make_pool(
            *entries,
            clock=self.clock,
            policy=policy,
            changed=lambda entry: self.changed.append(entry.id),
            **options,
        )

    async def fail(self, number: int, outcome: Outcome) -> None:
        await self.use(outcome, only=number)

    async def use(
        self, outcome: Outcome = SUCCESS, lane: Lane = FAST, only: int | None = None
    ) -> int:
        lease = await self.pool.lease(Want((lane,), "grok-4", only=only))
        await self.pool.settle(lease, outcome)
        await self.pool.release(lease)
        return lease.credential_id

    async def order(self, lane: Lane = FAST) -> list[int]:
        """In which order credentials are tried for one request that always fails."""
        tried: list[int] = []
        try:
            while True:
                want = Want((lane,), "grok-4", frozenset(tried))
                lease = await self.pool.lease(want)
                await self.pool.release(lease)
                tried.append(lease.credential_id)
        except NoCredential:
            return tried

    def entry(self, number: int) -> Entry:
        found = self.pool.get(number)
        assert found is not None
        return found

    def open(self) -> list[str]:
        return [incident.reason for incident in self.pool.incidents.open(self.clock.now)]

    def is_unharmed(self, number: int) -> bool:
        entry = self.entry(number)
        return (entry.active, entry.failures, entry.resting_until) == (True, 0, 0)


@pytest.mark.parametrize("outcome", [RETIRE, BACK_OFF, PAUSE, COOL], ids=lambda o: o.verdict.name)
async def test_the_same_error_of_enough_credentials_is_an_incident(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool()
    for number in (1, 2):
        await pool.fail(number, outcome)
        assert not pool.is_unharmed(number)
    assert pool.open() == []
    with caplog.at_level(logging.WARNING):
        await pool.fail(3, outcome)
    assert pool.open() == [outcome.reason]
    assert f"{outcome.reason} hit 3 credentials" in caplog.text
    assert [pool.is_unharmed(number) for number in (1, 2, 3)] == [True] * 3


async def test_one_credential_that_fails_again_and_again_is_none() -> None:
    pool = Pool()
    for _ in range(5):
        await pool.fail(1, BACK_OFF)
        pool.clock.now = pool.entry(1).resting_until
    await pool.fail(2, BACK_OFF)
    assert pool.open() == []
    assert pool.entry(1).failures == 5


async def test_different_errors_are_none() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        await pool.fail(number, Outcome(Verdict.BACK_OFF, f"error {number}"))
    assert pool.open() == []


async def test_errors_further_apart_than_the_window_are_none() -> None:
    pool = Pool()
    for number in (1, 2, 3, 4):
        await pool.fail(number, BACK_OFF)
        pool.clock.now += 30
    assert pool.open() == []
    pool.clock.now -= 30
    await pool.fail(5, BACK_OFF)
    assert pool.open() == ["bad gateway"]


async def test_an_error_counts_from_its_last_time() -> None:
    pool = Pool()
    await pool.fail(1, PAUSE)
    pool.clock.now += 50
    await pool.fail(2, PAUSE)
    await pool.fail(1, PAUSE)
    pool.clock.now += 50
    await pool.fail(3, PAUSE)
    assert pool.open() == ["unreachable"]


async def test_a_threshold_of_zero_means_never() -> None:
    pool = Pool(policy=PoolPolicy(incident_threshold=0))
    for number in range(1, 7):
        await pool.fail(number, RETIRE)
    assert pool.open() == []
    assert not any(pool.entry(number).active for number in range(1, 7))


@pytest.mark.parametrize(
    "verdict",
    [Verdict.COOL_BUCKET, Verdict.SKIP_MODEL, Verdict.SUCCESS, Verdict.SPENT, Verdict.NEUTRAL],
)
async def test_a_used_up_bucket_and_what_blames_nobody_are_none(verdict: Verdict) -> None:
    pool = Pool()
    for number in range(1, 7):
        await pool.fail(number, Outcome(verdict, "limit"))
    assert pool.open() == []


async def test_while_it_lasts_nobody_is_penalised_for_that_error() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    for number in (4, 4, 5, 1):
        await pool.fail(number, RETIRE)
    assert all(pool.is_unharmed(number) for number in range(1, 7))


async def test_other_errors_are_penalised_all_the_same() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    await pool.fail(4, BACK_OFF)
    await pool.fail(1, COOL)
    assert pool.entry(4).failures == 1
    assert pool.entry(1).resting_until > pool.clock.now
    await pool.fail(5, Outcome(Verdict.COOL_BUCKET, "blocked"))
    assert pool.entry(5).quotas["fast"].remaining == 0


async def test_those_that_failed_are_tried_last_but_tried() -> None:
    pool = Pool(4)
    assert await pool.order() == [1, 2, 3, 4]
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    order = await pool.order()
    assert (order[0], set(order[1:])) == (4, {1, 2, 3})
    await pool.fail(4, RETIRE)
    assert set(await pool.order()) == {1, 2, 3, 4}


async def test_who_serves_again_is_trusted_again_in_every_bucket() -> None:
    pool = Pool(4)
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    assert (await pool.order(AUTO))[0] == 4
    await pool.fail(1, SUCCESS)
    assert (await pool.order(AUTO))[0] == 1
    assert (await pool.order())[0] == 1
    assert pool.open() == ["blocked"]


async def test_what_was_forgiven_is_written() -> None:
    pool = Pool()
    for number in (1, 2):
        await pool.fail(number, RETIRE)
        pool.entry(number).pending_columns = frozenset()
    pool.changed.clear()
    await pool.fail(3, RETIRE)
    assert {1, 2} <= set(pool.changed)
    for number in (1, 2):
        columns = pool.entry(number).pending_columns
        assert {"status", "fail_count", "resting_until"} <= columns


async def test_whom_the_operator_disabled_stays_disabled() -> None:
    pool = Pool()
    await pool.fail(1, RETIRE)
    pool.pool.update(
        pool.entry(1),
        make_entry(1, active=False, disabled=True, invalid_reason="blocked", revision=1),
    )
    await pool.fail(2, RETIRE)
    await pool.fail(3, RETIRE)
    assert pool.open() == ["blocked"]
    assert not pool.entry(1).active


async def test_who_was_retired_for_another_reason_stays_retired() -> None:
    pool = Pool()
    await pool.fail(1, BACK_OFF)
    pool.clock.now += 2
    await pool.fail(1, Outcome(Verdict.RETIRE, "expired"))
    for number in (2, 3):
        await pool.fail(number, BACK_OFF)
    assert pool.open() == ["bad gateway"]
    assert (pool.entry(1).active, pool.entry(1).invalid_reason) == (False, "expired")


async def test_it_is_over_after_a_quiet_window() -> None:
    pool = Pool(4)
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    pool.clock.now += 59
    await pool.fail(1, RETIRE)
    pool.clock.now += 59
    assert pool.open() == ["blocked"]
    pool.clock.now += 1
    assert pool.open() == []
    pool.pool.end_incidents()
    assert await pool.order() == [1, 2, 3, 4]
    await pool.fail(1, RETIRE)
    assert not pool.entry(1).active


async def test_after_it_counting_begins_anew() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    pool.clock.now += 60
    for number in (4, 5):
        await pool.fail(number, RETIRE)
    assert pool.open() == []
    await pool.fail(6, RETIRE)
    assert pool.open() == ["blocked"]
    assert pool.is_unharmed(4)


async def test_what_is_judged_without_a_lease_counts_too() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        await pool.pool.judge(number, "fast", RETIRE)
    assert pool.open() == ["blocked"]
    assert pool.is_unharmed(1)


async def test_one_that_is_gone_meanwhile_is_passed_over() -> None:
    pool = Pool()
    await pool.fail(1, RETIRE)
    pool.pool.remove(1)
    for number in (2, 3):
        await pool.fail(number, RETIRE)
    assert pool.open() == ["blocked"]
    pool.clock.now += 60
    pool.pool.end_incidents()


async def test_a_worker_joins_what_another_has_seen() -> None:
    pool = Pool()
    now = pool.clock.now
    await pool.fail(1, RETIRE)
    pool.pool.incidents.join("blocked", now - 100, now - 5, now)
    await pool.fail(2, RETIRE)
    assert not pool.entry(1).active
    assert pool.is_unharmed(2)
    pool.pool.incidents.join("blocked", now - 100, now + 30, now + 30)
    pool.clock.now = now + 89
    assert pool.open() == ["blocked"]
    pool.clock.now = now + 90
    assert pool.open() == []
    pool.pool.end_incidents()
    assert not pool.entry(2).doubtful


async def test_what_is_over_is_not_joined() -> None:
    pool = Pool()
    pool.pool.incidents.join("blocked", START - 100, START - 60, START)
    assert pool.open() == []


async def test_old_news_of_another_worker_does_not_shorten_it() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    pool.pool.incidents.join("blocked", START - 100, START - 50, START)
    pool.clock.now += 59
    assert pool.open() == ["blocked"]


async def test_a_suspect_is_not_reported_in_an_incident() -> None:
    suspects: list[int] = []
    pool = Pool(policy=PoolPolicy(incident_threshold=2, fail_threshold=1), suspect=suspects.append)
    await pool.fail(1, BACK_OFF)
    await pool.fail(2, BACK_OFF)
    await pool.fail(3, BACK_OFF)
    assert suspects == [1]


async def test_an_outcome_that_says_nothing_of_it_leaves_doubt() -> None:
    pool = Pool(4)
    for number in (1, 2, 3):
        await pool.fail(number, RETIRE)
    await pool.fail(1, NEUTRAL)
    assert pool.entry(1).doubtful


def test_what_is_remembered_is_bounded() -> None:
    watch, policy = IncidentWatch(), PoolPolicy(incident_threshold=10**6)
    for number in range(MAX_REMEMBERED + 500):
        assert watch.failed("down", number, START, policy) == set()
    assert len(watch._hits["down"]) <= MAX_REMEMBERED
    watch.join("down", START, START, START)
    for number in range(MAX_REMEMBERED + 500):
        watch.failed("down", number, START, policy)
    assert len(watch.open(START)[0].hit) == MAX_REMEMBERED

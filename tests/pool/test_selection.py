"""Choosing a credential: whom, in which order, and what is kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from pool.crypto import WrongKey
from pool.entries import Entry, Quota
from pool.errors import NoCredential
from pool.leases import Lane, Lease, Want
from pool.outcomes import NEUTRAL, SPENT, SUCCESS, Outcome, Verdict
from pool.policy import PoolPolicy
from pool.selection import WAKE_AT_ONCE, MemoryPool
from tests.pool.samples import Clock, make_entry, make_pool

BASIC = Lane("sso", "fast")
SUPER = Lane("ssoSuper", "fast")
API = Lane("api", "grok-4")
HEAVY = Lane("ssoSuper", "heavy", 4)
WANT = Want((BASIC,), "grok-4")


async def use(pool: MemoryPool, outcome: Outcome = SUCCESS, want: Want = WANT) -> int:
    lease = await pool.lease(want)
    await pool.settle(lease, outcome)
    await pool.release(lease)
    return lease.credential_id


async def nobody(pool: MemoryPool, want: Want = WANT) -> str:
    with pytest.raises(NoCredential) as refused:
        await pool.lease(want)
    return refused.value.message


def entry_of(pool: MemoryPool, number: int = 1) -> Entry:
    found = pool.get(number)
    assert found is not None
    return found


def left(pool: MemoryPool, number: int = 1, bucket: str = "fast") -> int | None:
    return entry_of(pool, number).quotas[bucket].remaining


def measured(number: int, remaining: int | None, **changes: Any) -> Entry:
    return make_entry(number, quotas={"fast": Quota(remaining)}, **changes)


async def test_it_hands_out_what_a_caller_needs_and_shows_no_secret() -> None:
    pool = make_pool(make_entry(7, "api", user_id="user", team_id="team"))
    lease = await pool.lease(Want((API,), "grok-4"))
    assert (lease.credential_id, lease.secret, lease.hint) == (7, "secret-7", "hint")
    assert (lease.lane, lease.model) == (API, "grok-4")
    assert (lease.user_id, lease.team_id) == ("user", "team")
    assert "secret" not in repr(lease)
    await pool.release(lease)


async def test_most_remaining_comes_first_and_unmeasured_last() -> None:
    pool = make_pool(measured(1, None), measured(2, 3), measured(3, 2), make_entry(4))
    order = [(await pool.lease(WANT)).credential_id for _ in range(5)]
    assert order[0] == 2
    assert Counter(order[:4]) == {2: 2, 3: 2} or Counter(order[:4]) == {2: 3, 3: 1}
    assert set(order[4:]) <= {2, 3}


async def test_unmeasured_is_used_when_nothing_measured_is_left() -> None:
    pool = make_pool(measured(1, 1), measured(2, None))
    assert [await use(pool), await use(pool), await use(pool)] == [1, 2, 2]


async def test_unmeasured_comes_first_in_the_heavy_bucket() -> None:
    known = make_entry(1, "ssoSuper", quotas={"heavy": Quota(100)})
    pool = make_pool(known, make_entry(2, "ssoSuper"))
    assert await use(pool, want=Want((HEAVY,), "grok-4-heavy")) == 2


async def test_equals_are_taken_in_turn_at_random() -> None:
    pool = make_pool(*(make_entry(number) for number in range(1, 6)))
    seen = Counter([await use(pool) for _ in range(1000)])
    assert set(seen) == {1, 2, 3, 4, 5}
    assert min(seen.values()) > 120


async def test_the_first_lane_that_can_serve_is_taken() -> None:
    pool = make_pool(measured(1, 1), make_entry(2, "ssoSuper", quotas={"fast": Quota(99)}))
    want = Want((BASIC, SUPER), "grok-4")
    assert [await use(pool, want=want), await use(pool, want=want)] == [1, 2]
    assert await use(pool, want=Want((SUPER, BASIC), "grok-4")) == 2


async def test_a_number_imported_for_all_buckets_counts_in_each_but_heavy() -> None:
    pool = make_pool(make_entry(1, "ssoSuper", quotas={"*": Quota(2)}))
    lease = await pool.lease(Want((SUPER,), "grok-4"))
    await pool.settle(lease, SUCCESS)
    await pool.release(lease)
    assert left(pool) == 1
    assert await use(pool, want=Want((Lane("ssoSuper", "auto"),), "grok-4")) == 1
    assert left(pool, bucket="auto") == 1
    assert left(pool, bucket="*") == 2
    await use(pool, want=Want((HEAVY,), "grok-4-heavy"))
    assert "heavy" not in entry_of(pool).quotas


async def test_the_concurrency_cap_is_per_credential_and_kind() -> None:
    policy = PoolPolicy(max_concurrent=2, max_concurrent_api=3)
    pool = make_pool(make_entry(1), make_entry(2, "api"), policy=policy)
    leases = [await pool.lease(WANT) for _ in range(2)]
    assert await nobody(pool) == "No active credential of tier basic: 1 busy."
    assert "busy" in await nobody(pool, Want((Lane("sso", "auto"),), "grok-4"))
    for _ in range(3):
        await pool.lease(Want((API,), "grok-4"))
    await nobody(pool, Want((API,), "grok-4"))
    await pool.release(leases[0])
    assert (await pool.lease(WANT)).credential_id == 1


async def test_a_changed_cap_holds_from_the_next_lease_on() -> None:
    policies = [PoolPolicy(max_concurrent=1)]
    pool = make_pool(make_entry(1), policy=lambda: policies[-1])
    await pool.lease(WANT)
    await nobody(pool)
    policies.append(PoolPolicy(max_concurrent=3))
    await pool.lease(WANT)
    policies.append(PoolPolicy(max_concurrent=2))
    await nobody(pool)


async def test_excluded_ones_are_passed_over_wherever_they_stand() -> None:
    pool = make_pool(measured(1, 9), measured(2, 8), measured(3, 7), measured(4, 7))
    want = replace(WANT, exclude=frozenset({1, 2, 3}))
    assert await use(pool, want=want) == 4
    await nobody(pool, replace(WANT, exclude=frozenset({1, 2, 3, 4})))
    assert await use(pool) == 1


async def test_a_pinned_request_gets_that_credential_or_none() -> None:
    pool = make_pool(measured(1, 9), measured(2, 8))
    assert await use(pool, want=replace(WANT, only=2)) == 2
    message = await nobody(pool, replace(WANT, only=2, exclude=frozenset({2})))
    assert message == "No active credential of tier basic: 1 tried."
    entry_of(pool, 2).resting_until = 0
    await use(pool, Outcome(Verdict.PAUSE), replace(WANT, only=2))
    assert "cooling" in await nobody(pool, replace(WANT, only=2))


@pytest.mark.parametrize("outcome", [SUCCESS, SPENT])
async def test_what_was_used_is_paid_for(outcome: Outcome) -> None:
    pool = make_pool(measured(1, 10))
    await use(pool, outcome)
    assert left(pool) == 9
    assert entry_of(pool).pending_uses == 1


@pytest.mark.parametrize(
    "verdict",
    [Verdict.NEUTRAL, Verdict.RETIRE, Verdict.COOL_CREDENTIAL, Verdict.BACK_OFF, Verdict.PAUSE,
     Verdict.SKIP_MODEL],
)  # fmt: skip
async def test_a_failure_is_refunded_and_is_no_use(verdict: Verdict) -> None:
    pool = make_pool(measured(1, 10))
    lease = await pool.lease(WANT)
    assert left(pool) == 9
    await pool.settle(lease, Outcome(verdict))
    assert left(pool) == 10
    await pool.release(lease)
    assert entry_of(pool).pending_uses == 0


async def test_a_lease_that_nobody_settled_is_refunded_without_blame() -> None:
    pool = make_pool(measured(1, 10))
    lease = await pool.lease(WANT)
    await pool.release(lease)
    assert left(pool) == 10
    assert not entry_of(pool).has_changes
    assert pool.open_leases == 0


async def test_a_costly_request_takes_what_is_there_and_gives_that_back() -> None:
    pool = make_pool(make_entry(1, "ssoSuper", quotas={"heavy": Quota(3)}))
    want = Want((HEAVY,), "grok-4-heavy")
    lease = await pool.lease(want)
    assert left(pool, bucket="heavy") == 0
    await nobody(pool, want)
    await pool.settle(lease, NEUTRAL)
    await pool.release(lease)
    assert left(pool, bucket="heavy") == 3


@pytest.mark.parametrize("outcome", [SUCCESS, SPENT])
async def test_a_used_up_bucket_cools_and_comes_back_unmeasured(outcome: Outcome) -> None:
    clock = Clock()
    pool = make_pool(measured(1, 1), clock=clock)
    await use(pool, outcome)
    assert "1 cooling until" in await nobody(pool)
    clock.now += 899
    await nobody(pool)
    clock.now += 1
    assert await use(pool) == 1
    assert left(pool) is None


async def test_the_last_unit_is_not_used_up_before_every_lease_on_it_has_ended() -> None:
    pool = make_pool(measured(1, 2))
    first, second = await pool.lease(WANT), await pool.lease(WANT)
    await pool.settle(first, SUCCESS)
    await pool.release(first)
    assert "busy" in await nobody(pool)
    await pool.settle(second, NEUTRAL)
    await pool.release(second)
    assert await use(pool) == 1


async def test_one_bucket_cools_while_the_others_go_on() -> None:
    pool = make_pool(make_entry(1))
    await use(pool, Outcome(Verdict.COOL_BUCKET, retry_after=60))
    await nobody(pool)
    assert await use(pool, want=Want((Lane("sso", "auto"),), "grok-4")) == 1


async def test_the_cooled_return_soonest_first() -> None:
    clock = Clock()
    pool = make_pool(*(make_entry(number) for number in range(1, 5)), clock=clock)
    waits = {1: 40.0, 2: 10.0, 3: 30.0, 4: 20.0}
    for _ in waits:
        lease = await pool.lease(WANT)
        wait = waits[lease.credential_id]
        await pool.settle(lease, Outcome(Verdict.COOL_BUCKET, retry_after=wait))
        await pool.release(lease)
    returned: list[int] = []
    for _ in waits:
        clock.now += 10
        lease = await pool.lease(replace(WANT, exclude=frozenset(returned)))
        returned.append(lease.credential_id)
        await pool.release(lease)
    assert returned == [2, 4, 3, 1]


async def test_thousands_that_cool_off_at_once_do_not_hold_one_request_up() -> None:
    clock = Clock()
    entries = [make_entry(n, resting_until=clock.now + 5) for n in range(1, 2001)]
    pool = make_pool(*entries, clock=clock)
    clock.now += 5
    await use(pool)
    awake = sum(not entry.resting_until for entry in entries)
    assert awake <= WAKE_AT_ONCE
    hands = [await pool.lease(WANT) for _ in range(2000 * 4)]
    assert len({lease.credential_id for lease in hands}) == 2000
    await nobody(pool)


async def test_a_retired_credential_is_never_used_again_until_the_record_says_so() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock)
    await use(pool, Outcome(Verdict.RETIRE, "dead"))
    clock.now += 1e7
    assert await nobody(pool) == "No active credential of tier basic: 1 invalid."
    assert not pool.serves((BASIC,))
    entry_of(pool).pending_columns = frozenset()  # as if written
    pool.update(entry_of(pool), make_entry(1))
    assert await use(pool) == 1


async def test_a_model_one_is_not_entitled_to_is_not_asked_of_it_for_a_while() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), make_entry(2), clock=clock)
    refused = await use(pool, Outcome(Verdict.SKIP_MODEL))
    assert {await use(pool) for _ in range(20)} == {3 - refused}
    other = replace(WANT, model="grok-3")
    assert {await use(pool, want=other) for _ in range(40)} == {1, 2}
    clock.now += PoolPolicy().skip_model
    assert {await use(pool) for _ in range(40)} == {1, 2}


async def test_keys_of_one_team_cool_together_and_others_do_not() -> None:
    keys = [make_entry(n, "api", team_id="red" if n < 4 else "blue") for n in range(1, 6)]
    pool = make_pool(*keys)
    want = Want((API,), "grok-4")
    assert await use(pool, Outcome(Verdict.COOL_BUCKET), replace(want, only=1)) == 1
    assert {await use(pool, want=want) for _ in range(30)} == {4, 5}
    elsewhere = Want((Lane("api", "grok-3"),), "grok-3")
    assert {await use(pool, want=elsewhere) for _ in range(60)} == {1, 2, 3, 4, 5}
    await use(pool, Outcome(Verdict.COOL_TEAM), replace(elsewhere, only=2))
    assert {await use(pool, want=elsewhere) for _ in range(30)} == {4, 5}


async def test_other_penalties_do_not_touch_the_team() -> None:
    pool = make_pool(*(make_entry(n, "api", team_id="red") for n in (1, 2)))
    want = Want((API,), "grok-4")
    await use(pool, Outcome(Verdict.RETIRE), replace(want, only=1))
    assert await use(pool, want=want) == 2


async def test_keys_without_a_team_share_nothing() -> None:
    pool = make_pool(make_entry(1, "api"), make_entry(2, "api"))
    want = Want((API,), "grok-4")
    await use(pool, Outcome(Verdict.COOL_TEAM), replace(want, only=1))
    assert await use(pool, want=want) == 2


async def test_settling_twice_is_a_mistake_and_changes_nothing() -> None:
    pool = make_pool(measured(1, 10))
    lease = await pool.lease(WANT)
    await pool.settle(lease, SUCCESS)
    with pytest.raises(ValueError, match="settled before"):
        await pool.settle(lease, Outcome(Verdict.RETIRE))
    await pool.release(lease)
    assert left(pool) == 9
    assert entry_of(pool).active


async def test_a_lease_cannot_be_used_after_its_release() -> None:
    pool = make_pool(make_entry(1))
    lease = await pool.lease(WANT)
    await pool.release(lease)
    for again in (
        pool.release(lease),
        pool.settle(lease, SUCCESS),
        pool.learn(lease, user_id="x"),
    ):
        with pytest.raises(ValueError, match="not open"):
            await again
    assert entry_of(pool).in_flight == 0


OUTCOMES = [None, *(Outcome(verdict) for verdict in Verdict)]


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("kind", ["sso", "api"])
async def test_a_credential_removed_while_leased_ends_quietly(
    outcome: Outcome | None, kind: str
) -> None:
    clock = Clock()
    pool = make_pool(
        make_entry(1, kind, team_id="red", quotas={"fast": Quota(1)}), clock=clock,
        policy=PoolPolicy(max_concurrent=1, max_concurrent_api=1),
    )  # fmt: skip
    want = Want((Lane(kind, "fast"),), "grok-4")
    lease = await pool.lease(want)
    pool.remove(1)
    pool.remove(1)
    if outcome is not None:
        await pool.settle(lease, outcome)
    await pool.release(lease)
    clock.now += 1e6
    assert (await nobody(pool, want)).endswith("the pool holds none.")
    assert not pool.usable_now(want.lanes)
    assert not pool.serves(want.lanes)
    assert (len(pool), pool.open_leases) == (0, 0)


async def test_peers_of_a_removed_key_still_learn_that_the_team_cools() -> None:
    pool = make_pool(*(make_entry(n, "api", team_id="red") for n in (1, 2)))
    want = Want((API,), "grok-4")
    lease = await pool.lease(replace(want, only=1))
    pool.remove(1)
    await pool.settle(lease, Outcome(Verdict.COOL_TEAM, retry_after=60))
    await pool.release(lease)
    assert "1 cooling" in await nobody(pool, want)


async def test_an_update_while_leased_keeps_what_runs() -> None:
    pool = make_pool(measured(1, 10), policy=PoolPolicy(max_concurrent=1))
    lease = await pool.lease(WANT)
    pool.update(entry_of(pool), measured(1, 10, hint="new"))
    assert "busy" in await nobody(pool)
    assert left(pool) == 9
    await pool.settle(lease, SUCCESS)
    await pool.release(lease)
    assert left(pool) == 9
    assert (await pool.lease(WANT)).hint == "new"


async def test_a_disabled_credential_finishes_what_it_began_and_starts_nothing() -> None:
    pool = make_pool(make_entry(1))
    lease = await pool.lease(WANT)
    pool.update(entry_of(pool), make_entry(1, active=False, disabled=True))
    await pool.settle(lease, SUCCESS)
    await pool.release(lease)
    assert await nobody(pool) == "No active credential of tier basic: 1 disabled."


async def test_a_credential_that_changed_its_kind_serves_only_the_new_one() -> None:
    pool = make_pool(make_entry(1))
    lease = await pool.lease(WANT)
    pool.update(entry_of(pool), make_entry(1, "ssoSuper"))
    assert (await nobody(pool)).endswith("the pool holds none.")
    assert await use(pool, want=Want((SUPER,), "grok-4")) == 1
    await pool.release(lease)
    assert (await nobody(pool)).endswith("the pool holds none.")
    assert not pool.serves((BASIC,))


async def test_a_key_that_changed_its_team_cools_with_the_new_one() -> None:
    pool = make_pool(make_entry(1, "api", team_id="red"), make_entry(2, "api", team_id="blue"))
    pool.update(entry_of(pool), make_entry(1, "api", team_id="blue"))
    want = Want((API,), "grok-4")
    await use(pool, Outcome(Verdict.COOL_TEAM), replace(want, only=2))
    assert "2 cooling" in await nobody(pool, want)


@pytest.mark.parametrize("verdict", [Verdict.RETIRE, Verdict.COOL_BUCKET, Verdict.BACK_OFF])
async def test_what_was_said_of_an_old_secret_does_not_stick_to_the_new_one(
    verdict: Verdict,
) -> None:
    pool = make_pool(make_entry(1))
    lease = await pool.lease(WANT)
    pool.update(entry_of(pool), make_entry(1, sealed=b"secret-new"))
    await pool.settle(lease, Outcome(verdict))
    await pool.release(lease)
    assert (await pool.lease(WANT)).secret == "secret-new"


async def test_a_credential_that_cannot_be_opened_is_set_aside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unseal(sealed: bytes) -> str:
        if sealed == b"secret-1":
            raise WrongKey
        return sealed.decode()

    pool = make_pool(measured(1, 9), measured(2, 8), unseal=unseal)
    assert [await use(pool), await use(pool)] == [2, 2]
    assert not entry_of(pool).has_changes
    assert [record.message for record in caplog.records] == [
        "credential 1 cannot be opened with the secret keys in use"
    ]


async def test_only_the_winners_secret_is_opened() -> None:
    opened = []

    def unseal(sealed: bytes) -> str:
        opened.append(sealed)
        return ""

    pool = make_pool(measured(1, 1), measured(2, 2), measured(3, 3), unseal=unseal)
    await use(pool)
    assert opened == [b"secret-3"]


@pytest.mark.parametrize("learned", ["u" * 65, "nul\x00", "line\n"])
async def test_it_does_not_keep_an_identity_that_cannot_be_one(learned: str) -> None:
    pool = make_pool(make_entry(1, user_id="before"))
    lease = await pool.lease(WANT)
    await pool.learn(lease, user_id=learned)
    assert entry_of(pool).user_id == "before"
    await pool.release(lease)


async def test_it_keeps_a_learned_identity_and_says_so_once() -> None:
    noted: list[Entry] = []
    pool = make_pool(make_entry(1), changed=noted.append)
    lease = await pool.lease(WANT)
    await pool.learn(lease, user_id="user-1")
    await pool.learn(lease, user_id="user-1")
    await pool.release(lease)
    assert noted == [entry_of(pool)]
    assert (await pool.lease(WANT)).user_id == "user-1"


@pytest.mark.parametrize(
    ("outcome", "noted"),
    [(SUCCESS, 1), (NEUTRAL, 0), (Outcome(Verdict.PAUSE), 1), (Outcome(Verdict.SKIP_MODEL), 0)],
)
async def test_it_reports_only_what_has_to_be_written(outcome: Outcome, noted: int) -> None:
    told: list[Entry] = []
    pool = make_pool(make_entry(1), changed=told.append)
    await use(pool, outcome)
    assert len(told) == noted


async def test_a_bucket_put_in_used_up_without_a_time_is_unmeasured() -> None:
    pool = make_pool(measured(1, 0))
    assert await use(pool) == 1


async def test_a_cool_down_that_ended_while_nobody_ran_is_over() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1, quotas={"fast": Quota(0, clock.now - 1)}), clock=clock)
    assert await use(pool) == 1
    assert not entry_of(pool).quotas["fast"].dirty


async def test_it_tells_what_could_serve_from_what_can_serve_now() -> None:
    clock = Clock()
    pool = make_pool(make_entry(1), clock=clock)
    assert pool.usable_now((SUPER, BASIC))
    await use(pool, Outcome(Verdict.PAUSE))
    assert pool.serves((BASIC,))
    assert not pool.usable_now((BASIC,))
    assert not pool.serves((SUPER,))
    assert not pool.usable_now((SUPER,))
    clock.now += 5
    assert pool.usable_now((BASIC,))


async def test_many_concurrent_leases_are_all_told_apart() -> None:
    pool = make_pool(*(make_entry(n) for n in range(1, 26)))
    leases: list[Lease] = [await pool.lease(WANT) for _ in range(100)]
    assert len({lease.id for lease in leases}) == 100
    assert set(Counter(lease.credential_id for lease in leases).values()) == {4}
    for lease in leases:
        await pool.release(lease)
    assert all(entry.in_flight == 0 for entry in pool.entries)

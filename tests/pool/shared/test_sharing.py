"""Two workers and one truth: who may take what, by whose news."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pool.entries import Entry, Quota
from pool.leases import Lane, Reading, Want
from pool.outcomes import SPENT, Outcome, Verdict
from pool.policy import PoolPolicy
from pool.shared.courier import MOST_CHANGES, text_of
from pool.shared.documents import seed_of
from tests.pool.samples import START, make_entry
from tests.pool.shared.rig import WANT, Fleet, Worker, measured

RETIRE = Outcome(Verdict.RETIRE, "dead")
BACK_OFF = Outcome(Verdict.BACK_OFF, "down")
CAP = PoolPolicy(max_concurrent=1)


async def two(fleet: Fleet, *numbers: int | None, policy: PoolPolicy = CAP) -> list[Worker]:
    """Workers a and b with measured credentials 1, 2, ..."""

    def entries() -> list[Entry]:
        return [measured(place, left) for place, left in enumerate(numbers, 1)]

    return [await fleet.join(name, entries, policy=policy) for name in "ab"]


async def test_what_one_has_taken_the_other_does_not_get(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    lease = await a.lease()
    assert await b.is_refused()
    await a.end(lease)
    assert await b.use() == 1
    assert (a.left(), b.left(), fleet.box()["q"]) == (4, 3, 3)


async def test_of_many_claims_at_once_as_many_pass_as_there_are_places(fleet: Fleet) -> None:
    workers = await two(fleet, 9, 9, 9, policy=PoolPolicy(max_concurrent=2))
    asked = [worker.pool.lease(WANT) for worker in workers for _ in range(10)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 6
    assert fleet.held() == 6


async def test_of_many_claims_at_once_as_many_pass_as_there_is_quota(fleet: Fleet) -> None:
    workers = await two(fleet, 3, 4, policy=PoolPolicy(max_concurrent=50))
    asked = [worker.pool.lease(WANT) for worker in workers for _ in range(10)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 7


async def test_a_penalty_holds_for_all(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await a.use(RETIRE)
    assert await b.is_refused()
    assert b.entry().invalid_reason == "dead"


async def test_the_last_reason_to_retire_it_is_known_to_all(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await a.use(RETIRE)
    await a.pool.judge(1, "fast", Outcome(Verdict.RETIRE, "expired"))
    await a.pool.courier.drain()
    await b.beat()
    assert (a.entry().invalid_reason, b.entry().invalid_reason) == ("expired", "expired")


async def test_failures_count_wherever_they_happen(fleet: Fleet) -> None:
    a, b = await two(fleet, 5, policy=PoolPolicy(max_concurrent=2))
    first, second = await a.lease(), await b.lease()
    await a.end(first, BACK_OFF)
    await b.end(second, BACK_OFF)
    assert (fleet.document()["k"], b.entry().failures) == (2, 2)
    a.clock.now = b.clock.now = START + 3600
    await a.use()
    assert fleet.document()["k"] == 0


async def test_the_last_unit_cools_the_bucket_whoever_ends_last(fleet: Fleet) -> None:
    a, b = await two(fleet, 2, policy=PoolPolicy(max_concurrent=2, bucket_cooldown=60))
    first, second = await a.lease(), await b.lease()
    await a.end(first)
    assert "c" not in fleet.box()
    await b.end(second, SPENT)
    assert fleet.box()["c"] == START + 60
    assert await a.is_refused()
    a.clock.now = START + 61
    assert await a.use() == 1


async def test_a_refund_does_not_open_a_bucket_that_cools(fleet: Fleet) -> None:
    a, b = await two(fleet, 5, policy=PoolPolicy(max_concurrent=2))
    first, second = await a.lease(), await a.lease()
    await a.end(first, Outcome(Verdict.COOL_BUCKET, "limit", 60))
    await a.pool.release(second)
    await a.pool.courier.drain()
    assert fleet.box() == {"q": 1, "h": 0, "c": START + 60}
    assert await b.is_refused()


async def test_who_is_not_entitled_to_a_model_is_not_asked_for_it_by_others(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await a.use(Outcome(Verdict.SKIP_MODEL, "not yours"))
    assert await b.is_refused()
    assert await b.use(want=Want((Lane("sso", "fast"),), "another")) == 1


async def test_old_news_does_not_cool_a_bucket_that_has_some_left(fleet: Fleet) -> None:
    a, b = await two(fleet, 1)
    lease = await a.lease()
    await b.beat()
    await b.pool.measure(1, {"fast": Reading(5)})
    await b.pool.courier.drain()
    await a.end(lease)
    assert fleet.box() == {"q": 4, "c": 0, "h": 0}
    assert not await a.is_refused()


async def test_a_measurement_less_what_others_hold_counts_for_all(fleet: Fleet) -> None:
    a, b = await two(fleet, 5, policy=PoolPolicy(max_concurrent=2))
    held = [await a.lease(), await b.lease()]
    await b.pool.measure(1, {"fast": Reading(10)})
    await b.pool.courier.drain()
    await a.beat()
    assert (a.left(), b.left()) == (8, 8)
    await a.end(held[0])
    await b.pool.release(held[1])
    await b.pool.courier.drain()
    assert fleet.box()["q"] == 9


async def test_a_measurement_of_what_nobody_has_used_yet_is_known_to_all(fleet: Fleet) -> None:
    a, b = await two(fleet, None)
    await a.pool.measure(1, {"fast": Reading(3)})
    await a.pool.courier.drain()
    await b.beat()
    assert b.left() == 3


async def test_the_operators_change_outranks_what_is_shared(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await a.use()
    await b.beat()
    a.pool.update(a.entry(), make_entry(1, active=False, disabled=True, revision=1))
    await a.pool.courier.drain()
    assert await b.is_refused()
    assert (fleet.document()["n"], b.entry().revision) == (1, 0)


async def test_what_was_learnt_before_the_operators_change_is_void_after_it(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    lease = await b.lease()
    a.pool.update(a.entry(), make_entry(1, revision=1, quotas={"fast": Quota(5)}))
    await a.pool.courier.drain()
    await b.end(lease, RETIRE)
    assert fleet.document()["a"] == 1
    assert b.entry().active


async def test_an_answer_from_before_it_does_not_undo_the_operators_change(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await b.use()
    a.pool.update(a.entry(), make_entry(1, active=False, disabled=True, revision=1))
    assert not a.entry().active
    a.pool._deliver([text_of([fleet.document()])[1:-1]])
    assert not a.entry().active


async def test_open_leases_survive_the_operators_change(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    lease = await a.lease()
    b.pool.update(b.entry(), make_entry(1, revision=1, quotas={"fast": Quota(9)}))
    await b.pool.courier.drain()
    assert fleet.held() == 1
    await a.end(lease)
    assert (fleet.held(), fleet.box()["q"]) == (0, 8)


async def test_a_row_that_only_says_what_was_written_changes_nothing(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await a.use()
    await b.beat()
    b.pool.update(b.entry(), make_entry(1, sealed=b"new", quotas={"fast": Quota(99)}))
    assert (b.entry().sealed, b.left()) == (b"new", 4)


async def test_a_newcomer_hears_of_everything(fleet: Fleet) -> None:
    count = MOST_CHANGES + 20

    def entries() -> list[Entry]:
        return [measured(number, 5) for number in range(1, count + 1)]

    a = await fleet.join("a", entries)
    for number in range(1, count + 1):
        await a.pool.measure(number, {"fast": Reading(number)})
    await a.pool.courier.drain()
    b = await fleet.join("b", entries)
    assert [b.left(number) for number in range(1, count + 1)] == list(range(1, count + 1))


async def test_a_bucket_that_cooled_long_ago_is_open_to_a_newcomer(fleet: Fleet) -> None:
    a = await fleet.join("a", lambda: [measured(1, 5)])
    await a.use(Outcome(Verdict.COOL_BUCKET, "limit", 60))
    late = await fleet.join("b", lambda: [measured(1, 5)], beat=False)
    late.clock.now = START + 61
    await late.beat()
    assert late.left() is None
    assert await late.use() == 1


async def test_a_waiting_request_is_woken_by_what_others_free(fleet: Fleet) -> None:
    freed: list[int] = []
    a = await fleet.join("a", lambda: [measured(1, 5)], freed=lambda: freed.append(1))
    b = await fleet.join("b", lambda: [measured(1, 5)])
    lease = await b.lease()
    await a.beat()
    assert not freed
    await b.end(lease)
    await a.beat()
    assert freed


async def test_a_thousand_changes_by_the_operator_do_not_hold_up_a_request(fleet: Fleet) -> None:
    def entries() -> list[Entry]:
        return [measured(number, 5) for number in range(1, 1001)]

    a = await fleet.join("a", entries)
    for number in range(1, 1001):
        a.pool.update(a.entry(number), measured_again(number))
    lease = await a.lease()
    assert a.pool.courier.queued > 500
    await a.end(lease)
    assert a.pool.courier.queued == 0


def measured_again(number: int) -> Entry:
    return make_entry(number, revision=1, quotas={"fast": Quota(5)})


async def test_strange_names_from_upstream_are_carried(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    lane = Lane("sso", "half a \ud800 pair")
    await a.use(want=Want((lane,), 'a "quoted" \u2028 model'))
    await a.use(Outcome(Verdict.BACK_OFF, "\udc80"))
    await b.beat()
    assert b.entry().failures == 1
    assert a.store.available


async def test_a_refused_worker_says_why(fleet: Fleet) -> None:
    a, b = await two(fleet, 5)
    await a.lease()
    with pytest.raises(Exception, match="1 busy"):
        await b.lease()


@pytest.mark.parametrize(
    "rubbish",
    [b"\xff\xfe", b"not json", b"[1, 2]", b"{}", b'{"i":1,"v":9,"m":[],"b":3}', None],
)
async def test_a_document_that_cannot_be_read_is_written_anew(
    fleet: Fleet, rubbish: bytes | None
) -> None:
    a, b = await two(fleet, 5)
    await a.use()
    name = fleet.keys.prefix + "c:1"
    if rubbish is None:
        fleet.keys.redis.delete(name)
        fleet.keys.redis.rpush(name, "a list")
    else:
        fleet.keys.redis.set(name, rubbish)
    assert await a.use() == 1
    assert await b.use() == 1
    assert (a.store.available, b.store.available) == (True, True)
    assert fleet.document()["v"] == b.entry().version


async def test_a_document_that_only_looks_right_is_passed_over(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await two(fleet, 5)
    await a.use()
    fleet.keys.redis.set(fleet.keys.prefix + "c:1", '{"i": 1, "v": 1000, "n": 0, "m": {"x": "y"}}')
    with caplog.at_level(logging.WARNING):
        assert await b.beat()
    assert "cannot be read" in caplog.text
    assert b.left() == 5


def test_a_seed_knows_nothing_of_open_leases() -> None:
    entry = measured(1, 3)
    entry.quota("fast").reserve(2)
    assert seed_of(entry)["b"]["fast"]["q"] == 3

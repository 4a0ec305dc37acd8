"""Redis away, back, and what becomes of leases, quota and penalties meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from pool.entries import Entry, Quota
from pool.leases import Lane, Reading, Want
from pool.outcomes import NEUTRAL, SUCCESS, Outcome, Verdict
from pool.policy import PoolPolicy
from pool.shared.store import BEAT_EVERY, DEAD_AFTER, SharedStore
from tests.pool.samples import START, make_entry
from tests.pool.shared.rig import WANT, Fleet, OwnRedis, Worker, measured, wire_to

RETIRE = Outcome(Verdict.RETIRE, "dead")
CAP = PoolPolicy(max_concurrent=1)


def one() -> list[Entry]:
    return [measured(1, 10)]


async def lose(worker: Worker) -> None:
    """Let ``worker`` find out that Redis is away."""
    await worker.beat()
    assert not worker.store.available


async def test_without_redis_at_the_start_each_goes_on_alone(
    own_fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        a = await own_fleet.join("a", one)
        assert await a.use() == 1
        await lose(a)
    assert a.left() == 9
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Redis is away" in caplog.text
    assert (a.entry().failures, a.entry().resting_until) == (0, 0)


async def test_what_was_used_before_redis_came_is_made_good(
    own_fleet: Fleet, server: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    a = await own_fleet.join("a", one)
    await a.use()
    lease = await a.lease()
    server.start()
    with caplog.at_level(logging.INFO):
        assert await a.beat()
    assert "Redis is back" in caplog.text
    b = await own_fleet.join("b", one)
    assert (own_fleet.held(), b.left()) == (1, 8)
    await a.end(lease)
    assert (own_fleet.held(), own_fleet.box()["q"]) == (0, 8)


async def test_leases_that_were_open_when_it_went_are_settled_when_it_is_back(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    policy = PoolPolicy(max_concurrent=3)
    a, b = [await own_fleet.join(name, one, policy=policy) for name in "ab"]
    ended, refunded, open_still = await a.lease(), await b.lease(), await b.pool.lease(other())
    server.stop(keeping=True)
    await a.end(ended)
    await b.end(refunded, NEUTRAL)
    await lose(b)
    server.start()
    await own_fleet.beats()
    assert own_fleet.held() == 1
    assert own_fleet.box() == {"q": 9, "h": 0}
    await b.end(open_still)
    assert own_fleet.held() == 0
    await own_fleet.beats()
    assert (a.left(), b.left()) == (9, 9)


def other() -> Want:
    return Want((Lane("sso", "auto"),), "grok-4")


async def test_what_is_used_meanwhile_is_charged_when_it_is_back(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a, b = await own_fleet.join("a", one), await own_fleet.join("b", one)
    await a.use()
    await b.beat()
    server.stop(keeping=True)
    for worker in (a, b, b):
        await worker.use()
    server.start()
    await own_fleet.beats()
    assert own_fleet.box()["q"] == 6
    assert (a.left(), b.left()) == (6, 6)


async def test_the_last_unit_used_meanwhile_cools_the_bucket(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a = await own_fleet.join("a", lambda: [measured(1, 2)])
    b = await own_fleet.join("b", lambda: [measured(1, 2)])
    await a.use()
    await b.beat()
    server.stop(keeping=True)
    await a.use()
    await b.use()
    server.start()
    await own_fleet.beats()
    assert own_fleet.box()["q"] == 0
    assert own_fleet.box()["c"] == START + 900
    assert await a.is_refused()


async def test_penalties_learnt_meanwhile_are_told_to_all(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    def three() -> list[Entry]:
        return [measured(number, 10) for number in (1, 2, 3)]

    server.start()
    a, b = await own_fleet.join("a", three), await own_fleet.join("b", three)
    await a.use()
    server.stop(keeping=True)
    await a.pool.judge(1, "fast", RETIRE)
    await a.pool.judge(2, "fast", Outcome(Verdict.COOL_BUCKET, "limit", 60))
    await b.pool.judge(2, "fast", Outcome(Verdict.COOL_BUCKET, "limit", 600))
    await a.pool.judge(3, "fast", Outcome(Verdict.BACK_OFF, "down"))
    await lose(a)
    await lose(b)
    server.start()
    await own_fleet.beats()
    for worker in (a, b):
        assert worker.entry(1).invalid_reason == "dead"
        assert worker.entry(2).quotas["fast"].cooling_until == START + 600
        assert (worker.entry(3).failures, worker.entry(3).resting_until) == (1, START + 2)


async def test_forgiveness_and_the_operators_change_are_told_too(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    policy = PoolPolicy(incident_threshold=2)

    def two() -> list[Entry]:
        return [measured(1, 10), measured(2, 10), measured(3, 10)]

    server.start()
    a = await own_fleet.join("a", two, policy=policy)
    b = await own_fleet.join("b", two, policy=policy)
    await a.pool.judge(1, "fast", RETIRE)
    await a.use(want=Want((Lane("sso", "fast"),), "m", only=3))
    await own_fleet.beats()
    assert not b.entry(1).active
    server.stop(keeping=True)
    await lose(a)
    await a.pool.judge(2, "fast", RETIRE)
    a.pool.update(a.entry(3), make_entry(3, active=False, disabled=True, revision=1))
    server.start()
    await own_fleet.beats()
    assert b.entry(1).active
    assert not b.entry(3).active


async def test_a_frozen_redis_delays_one_request_and_not_those_after_it(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a = await own_fleet.join("a", one, timeout=0.25)
    await a.use()
    server.freeze()
    begun = time.monotonic()
    lease = await a.lease()
    waited = time.monotonic() - begun
    assert 0.2 < waited < 1
    begun = time.monotonic()
    second = await a.lease()
    await a.end(lease)
    await a.end(second)
    assert time.monotonic() - begun < 0.1
    server.thaw()
    assert await a.beat()
    await own_fleet.beats()
    assert (own_fleet.held(), own_fleet.box()["q"]) == (0, 7)


async def test_a_claim_carried_out_without_an_answer_is_not_left_behind(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    async with wire_to(server.port) as wire:
        a = await own_fleet.join("a", one, url=wire.url, timeout=0.2)
        wire.answers.clear()
        lease = await a.lease()
        assert own_fleet.held() == 1
        await wire.cut()
        wire.answers.set()
        await a.end(lease)
        await wire.mend()
        assert await a.beat()
        assert own_fleet.held() == 0
        assert own_fleet.box()["q"] == 9
        await a.die()


async def test_a_claim_that_arrives_after_it_was_given_up_is_refused(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    async with wire_to(server.port) as late, wire_to(server.port) as wire:
        a = await own_fleet.join("a", one, url=late.url, timeout=0.2)
        late.asks.clear()
        lease = await a.lease()
        assert not a.store.available
        again = SharedStore(wire.url, worker="a", prefix=own_fleet.keys.prefix, timeout=5)
        direct, a.store._redis = a.store._redis, again._redis
        await a.end(lease)
        assert await a.beat()
        late.asks.set()
        await until(lambda: not late.busy)
        assert own_fleet.held() == 0
        assert own_fleet.box()["q"] == 9
        await direct.aclose()
        await a.die()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a connection ends when the server has read it
            await asyncio.sleep(0.005)


async def test_data_lost_is_made_anew_from_what_workers_know(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a, b = await own_fleet.join("a", one), await own_fleet.join("b", one)
    await a.use()
    held = [await a.lease(), await b.lease()]
    await own_fleet.beats()
    own_fleet.keys.redis.flushall()
    await a.end(held[0])
    assert not a.store.available
    await own_fleet.beats()
    await own_fleet.beats()
    assert own_fleet.held() == 1
    assert own_fleet.box() == {"q": 7, "h": 1}
    await b.end(held[1])
    await own_fleet.beats()
    assert (own_fleet.held(), own_fleet.box()["q"]) == (0, 7 + 1 - 1)
    assert (a.left(), b.left()) == (7, 7)


async def test_a_restart_without_data_is_noticed_by_whoever_comes_first(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a, b = await own_fleet.join("a", one), await own_fleet.join("b", one)
    await a.use()
    await b.use()
    lease = await a.lease()
    await b.beat()
    server.stop()
    server.start()
    await b.use()
    await b.beat()
    await a.end(lease)
    await own_fleet.beats()
    await own_fleet.beats()
    assert own_fleet.held() == 0
    assert own_fleet.box()["q"] == 6


async def test_what_others_used_since_the_last_beat_may_be_lost_with_the_data(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    """The documented limit: who seeds first does not know what Redis alone knew."""
    server.start()
    a, b = await own_fleet.join("a", one), await own_fleet.join("b", one)
    await a.use()
    await b.beat()
    await a.use()
    own_fleet.keys.redis.flushall()
    await b.beat()
    await b.use()
    await own_fleet.beats()
    assert own_fleet.box()["q"] == 10 - 1 - 1
    assert (a.left(), b.left()) == (8, 8)


async def test_the_places_of_others_are_kept_for_a_while_and_then_counted_as_free(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a, b = await own_fleet.join("a", one, policy=CAP), await own_fleet.join("b", one, policy=CAP)
    await b.lease()
    await a.beat()
    server.stop()
    await lose(a)
    assert await a.is_refused()
    a.clock.now += DEAD_AFTER
    assert not await a.is_refused()


async def test_the_places_of_workers_that_died_with_the_data_are_free(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a, b = await own_fleet.join("a", one, policy=CAP), await own_fleet.join("b", one, policy=CAP)
    await b.lease()
    await a.beat()
    await b.die()
    own_fleet.keys.redis.flushall()
    await a.beat()
    assert await a.use() == 1


async def test_what_was_taken_when_it_went_is_not_offered_again(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a = await own_fleet.join("a", lambda: [measured(1, 1), measured(2, None)])
    server.stop()
    assert (await a.lease()).credential_id == 1
    assert (await a.lease()).credential_id == 2


async def test_nothing_gets_through_before_a_forgotten_worker_is_known_again(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a = await own_fleet.join("a", one)
    let_through: list[bool] = []

    async def listener(_: object) -> None:
        let_through.append(a.store.available)

    a.store.listen(listener)
    await a.beat()
    own_fleet.keys.redis.flushall()
    await a.beat()
    await a.beat()
    assert let_through == [True, False, True]


async def test_caps_hold_again_once_everybody_is_back(own_fleet: Fleet, server: OwnRedis) -> None:
    server.start()
    a, b = await own_fleet.join("a", one, policy=CAP), await own_fleet.join("b", one, policy=CAP)
    server.stop()
    held = [await a.lease(), await b.lease()]
    server.start()
    await own_fleet.beats()
    assert own_fleet.held() == 2
    assert await a.is_refused()
    await b.end(held[1])
    assert await b.is_refused()
    await a.end(held[0])
    assert await b.use() == 1


@pytest.mark.parametrize(
    "refuse",
    [
        lambda redis: redis.replicaof("127.0.0.1", 1),
        lambda redis: redis.config_set("maxmemory", 1),
        lambda redis: redis.config_set("min-replicas-to-write", 3),
        lambda redis: redis.acl_setuser("default", commands=["-evalsha"]),
    ],
    ids=["READONLY", "OOM", "NOREPLICAS", "NOPERM"],
)
async def test_a_redis_that_refuses_to_write_is_an_absence(
    own_fleet: Fleet, server: OwnRedis, refuse: Callable[..., None]
) -> None:
    server.start()
    a = await own_fleet.join("a", one)
    await a.use()
    refuse(own_fleet.keys.redis)
    assert await a.use() == 1
    assert not a.store.available
    assert not await a.beat()
    assert await a.use() == 1
    assert (a.left(), a.entry().failures) == (7, 0)
    server.stop()
    server.start()
    assert await a.beat()
    await a.use()
    assert own_fleet.box()["q"] == 6


@pytest.mark.parametrize("name", ["w:a", "seq", "log", "epoch", "sessions", "workers"])
async def test_a_key_of_another_type_is_an_absence(
    own_fleet: Fleet, server: OwnRedis, name: str
) -> None:
    server.start()
    a = await own_fleet.join("a", one)
    redis, key = own_fleet.keys.redis, own_fleet.keys.prefix + name
    redis.delete(key)
    redis.xadd(key, {"a": "stream"})
    for _ in range(3):
        assert await a.use() == 1
        await a.beat()
    assert not a.courier.done()
    redis.delete(key)
    await a.beat()
    await own_fleet.beats()
    assert a.store.available
    await a.use()
    assert (own_fleet.held(), a.left()) == (0, 6)


REPLIES = ["OK", None, 7, [], [1, 0], [1, 0, 5], [1, 0, ["x"]], [1, 0, [1, 2, 3, 4, 5]]]


@pytest.mark.parametrize("reply", REPLIES)
async def test_a_reply_that_makes_no_sense_is_an_absence(fleet: Fleet, reply: object) -> None:
    a = await fleet.join("a", one)

    async def answer(*_: object) -> object:
        return reply

    evaluate, a.store._evaluate = a.store._evaluate, answer  # type: ignore[assignment, method-assign]
    assert await a.use() == 1
    assert not await a.beat()
    assert not a.courier.done()
    a.store._evaluate = evaluate  # type: ignore[method-assign]
    assert await a.beat()
    assert await a.use() == 1
    assert fleet.box()["q"] == 8


async def test_scripts_that_redis_has_forgotten_are_sent_again(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    server.start()
    a = await own_fleet.join("a", one)
    await a.use()
    own_fleet.keys.redis.script_flush()
    await a.use()
    assert await a.beat()
    assert own_fleet.box()["q"] == 8


async def test_a_loss_in_the_middle_of_a_beat_is_not_forgotten_at_its_end(fleet: Fleet) -> None:
    a = await fleet.join("a", one)

    async def listener(_: object) -> None:
        a.store.lose(OSError("gone"))

    a.store.listen(listener)
    assert not await a.beat()
    assert not a.store.available


async def test_measurements_and_penalties_go_on_without_redis(own_fleet: Fleet) -> None:
    a = await own_fleet.join("a", one)
    await a.pool.measure(1, {"fast": Reading(3)})
    assert a.left() == 3
    await a.use(RETIRE)
    assert await a.is_refused()


async def test_beats_go_on_through_absences_more_often_than_usual(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    a = await own_fleet.join("a", one)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            server.start()
        if len(slept) == 6:
            raise asyncio.CancelledError

    a.store._sleep = sleep
    with pytest.raises(asyncio.CancelledError):
        await a.store.beat_forever()
    assert slept == [BEAT_EVERY / 4] * 3 + [BEAT_EVERY] * 3


async def test_a_bucket_made_from_the_number_for_all_keeps_what_was_used_meanwhile(
    own_fleet: Fleet, server: OwnRedis
) -> None:
    def imported() -> list[Entry]:
        return [make_entry(1, quotas={"*": Quota(10)})]

    server.start()
    a, b = await own_fleet.join("a", imported), await own_fleet.join("b", imported)
    await b.use(want=other())
    server.stop(keeping=True)
    await a.use()
    lease = await a.lease(WANT)
    server.start()
    await own_fleet.beats()
    assert (a.left(), b.left()) == (8, 8)
    await a.end(lease, SUCCESS)
    assert own_fleet.box()["q"] == 8

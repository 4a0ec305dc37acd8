"""What is looked at: pool, queues, and the state of the server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readings import EVERY, Readings
from tests.gateway.telemetry.samples import scrape


def build(**changes: object) -> tuple[Metrics, SimpleNamespace]:
    """Metrics over a gateway whose state is the namespace's."""
    state = SimpleNamespace(credentials={}, waiting=0, lost=0, incident=False, leader=False)
    vars(state).update(changes)
    readings = Readings(
        credentials=lambda: state.credentials,
        queues={"ledger": lambda: state.waiting, "waiting_requests": lambda: 2},
        dropped={"ledger": lambda: state.lost},
        incident_open=lambda: state.incident,
        leader=lambda: state.leader,
        redis_up=(lambda: state.redis) if "redis" in changes else None,
    )
    return Metrics("1", readings), state


def test_credentials_are_shown_by_kind_and_state_and_those_gone_as_none() -> None:
    own, state = build(credentials={"sso": {"active": 3, "cooling": 1}, "api": {"active": 1}})
    before = scrape(own).series("grok2api_pool_credentials")
    state.credentials = {"sso": {"active": 2, "invalid": 2}}
    after = scrape(own).series("grok2api_pool_credentials")

    def series(*counts: tuple[str, str, int]) -> dict[frozenset[tuple[str, str]], float]:
        return {frozenset({("kind", kind), ("state", state)}): n for kind, state, n in counts}

    assert before == series(("sso", "active", 3), ("sso", "cooling", 1), ("api", "active", 1))
    assert after == series(
        ("sso", "active", 2), ("sso", "cooling", 0), ("sso", "invalid", 2), ("api", "active", 0)
    )


def test_queues_are_shown_by_name() -> None:
    own, state = build(waiting=12)
    assert scrape(own).get("grok2api_queue_depth", queue="ledger") == 12
    state.waiting = 0
    seen = scrape(own)

    assert seen.get("grok2api_queue_depth", queue="ledger") == 0
    assert seen.get("grok2api_queue_depth", queue="waiting_requests") == 2


def test_what_was_dropped_is_counted_once_however_often_it_is_looked_at() -> None:
    own, state = build(lost=4)
    for _ in range(3):
        assert scrape(own).get("grok2api_queue_dropped_total", queue="ledger") == 4
    state.lost = 9

    assert scrape(own).get("grok2api_queue_dropped_total", queue="ledger") == 9


def test_incident_and_leader_are_one_or_nought() -> None:
    own, state = build(leader=True)
    seen = scrape(own)
    assert (seen.get("grok2api_incident_open"), seen.get("grok2api_leader")) == (0, 1)
    state.incident, state.leader = True, False
    seen = scrape(own)

    assert (seen.get("grok2api_incident_open"), seen.get("grok2api_leader")) == (1, 0)


def test_redis_is_up_or_down_only_where_there_is_one() -> None:
    without, _ = build()
    own, state = build(redis=True)
    assert scrape(without).get("grok2api_redis_up") is None
    assert scrape(own).get("grok2api_redis_up") == 1
    state.redis = False

    assert scrape(own).get("grok2api_redis_up") == 0


class Enough(Exception):
    """The loop went round as often as the test wanted."""


async def test_the_sampler_looks_at_once_and_then_every_few_seconds() -> None:
    own, state = build(waiting=1)
    looks = []

    async def sleep(seconds: float) -> None:
        assert seconds == EVERY
        body = own.render()[0].decode()
        looks.append(f'depth{{queue="ledger"}} {state.waiting}.0' in body)
        state.waiting += 1
        if len(looks) == 3:
            raise Enough

    with pytest.raises(Enough):
        await own.sampler.run_forever(sleep)

    assert looks == [True, True, True]

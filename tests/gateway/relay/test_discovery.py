"""Keeping up with the models that the operator's keys may use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.catalog import Catalog
from gateway.relay.discovery import AGAIN_AFTER_FAILURE, CHECK_FOR_KEYS, EVERY, Discovery
from gateway.upstream.errors import UpstreamFailed
from gateway.upstream.requests import Account
from gateway.upstream.xai.client import XaiModel
from pool.leases import Lease
from tests.gateway.relay.test_attempts import ScriptedPool


class Keys(ScriptedPool):
    """A pool that has a key or not, as the test says; every lease is a new one."""

    here = True

    async def release(self, lease: Lease) -> None:
        self.done["release", lease.id] += 1

    def serves(self, lanes: Any) -> bool:
        return self.here


class Xai:
    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    async def models(self, account: Account) -> list[XaiModel]:
        self.asked += 1
        if self.fails:
            raise UpstreamFailed
        return [XaiModel("grok-4.7", aliases=("grok-4.7-latest",))]


class Enough(Exception):
    """The loop went round as often as the test wanted."""


async def looks(discovery: Discovery, clock: SimpleNamespace, count: int) -> None:
    """Let the loop go round ``count`` times; ``clock.at`` says what happens at which round."""
    clock.most = count
    with pytest.raises(Enough):
        await discovery.run_forever()


def build() -> tuple[Discovery, Keys, Xai, Catalog, SimpleNamespace]:
    pool, xai, catalog = Keys(1), Xai(), Catalog()
    clock = SimpleNamespace(rounds=0, most=0, at={})

    async def sleep(seconds: float) -> None:
        assert seconds == CHECK_FOR_KEYS
        clock.rounds += 1
        if clock.rounds > clock.most:
            raise Enough
        clock.at.get(clock.rounds, lambda: None)()

    discovery = Discovery(pool, xai, catalog, sleep)  # type: ignore[arg-type]
    return discovery, pool, xai, catalog, clock


async def test_models_are_asked_for_once_an_hour() -> None:
    discovery, pool, xai, catalog, clock = build()

    await looks(discovery, clock, int(EVERY / CHECK_FOR_KEYS) - 1)
    assert xai.asked == 1
    assert catalog.find("grok-4.7") is not None
    assert catalog.find("grok-4.7-latest") is not None
    assert pool.done["release", 1] == pool.done["lease", 1] == 1


async def test_a_failure_is_tried_again_sooner_and_forgets_nothing() -> None:
    discovery, _, xai, catalog, clock = build()
    catalog.set_discovered(["grok-4.6"])
    xai.fails = True

    await looks(discovery, clock, int(AGAIN_AFTER_FAILURE / CHECK_FOR_KEYS) + 2)
    assert xai.asked == 2
    assert catalog.find("grok-4.6") is not None


async def test_the_models_go_with_the_last_key_and_come_back_with_the_next() -> None:
    discovery, pool, xai, catalog, clock = build()
    seen: list[bool] = []
    clock.at = {
        3: lambda: setattr(pool, "here", False),
        5: lambda: seen.append(catalog.find("grok-4.7") is not None),
        6: lambda: setattr(pool, "here", True),
    }

    await looks(discovery, clock, 8)

    assert seen == [False]
    assert xai.asked == 2
    assert catalog.find("grok-4.7") is not None

"""What many credentials keep online: counted and deleted together, within limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from gateway.conf.schema import Config, Performance
from gateway.relay.online_assets import AssetReport, NotOnline, OnlineAssets
from gateway.sandbox.state import Asset as Stored
from gateway.upstream.errors import CredentialRejected, SessionRejected
from gateway.upstream.web.media.assets import Deletion
from pool.crypto import seal, unseal
from pool.entries import Entry
from pool.policy import PoolPolicy
from pool.selection import MemoryPool
from tests.gateway.upstream.media import Rig, running, until


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def pool_of(*tokens: str) -> MemoryPool:
    """Credentials numbered from 1."""
    policy = PoolPolicy()
    pool = MemoryPool(
        policy=lambda: policy, now=lambda: 1_790_000_000.0, random=Random(0), unseal=unseal
    )
    for number, token in enumerate(tokens, start=1):
        kind = "api" if token.startswith("xai-") else "sso"
        pool.put(Entry(number, kind, True, seal(token), token[-4:]))
    return pool


def config(**performance: int) -> Callable[[], Config]:
    found = Config(performance=Performance(**performance))
    return lambda: found


def assets_of(rig: Rig, *tokens: str, **performance: int) -> tuple[OnlineAssets, MemoryPool]:
    pool = pool_of(*tokens)
    return OnlineAssets(pool, rig.web(), config(**performance)), pool


def fill(rig: Rig, count: int, owner: str) -> None:
    for number in range(count):
        path = f"users/x/extra-{owner}-{number}/content"
        asset = Stored(f"extra-{owner}-{number}", owner, b"x", "image/png", "x.png")
        rig.state.put_asset(path, asset)


async def test_a_page_of_one_credential(rig: Rig) -> None:
    assets, _ = assets_of(rig, "ok-1")
    page = await assets.page(1)
    assert [asset.name for asset in page.assets] == ["picture-0.png", "picture-1.png"]
    rest = await assets.page(1, page.next_token)
    assert [asset.name for asset in rest.assets] == ["picture-2.png"]


@pytest.mark.parametrize("credential_id", [2, 3])
async def test_there_is_nothing_online_of_an_api_key_or_of_nobody(
    rig: Rig, credential_id: int
) -> None:
    assets, _ = assets_of(rig, "ok-1", "xai-ok-0000000000000001")
    with pytest.raises(NotOnline):
        await assets.page(credential_id)


async def test_many_are_counted_and_each_failure_is_named(rig: Rig) -> None:
    assets, pool = assets_of(rig, "ok-1", "expired-2", "ok-3", "challenge-4", "xai-ok-5")
    fill(rig, 4, "ok-3")
    reports = {one.credential_id: one async for one in assets.count([1, 2, 3, 4, 5, 6, 1])}
    assert all(report.done for report in reports.values())
    assert (reports[1], reports[3]) == (
        AssetReport(1, 3, done=True),
        AssetReport(3, 7, done=True),
    )
    assert isinstance(reports[2].error, CredentialRejected)
    assert isinstance(reports[4].error, SessionRejected)
    assert isinstance(reports[5].error, NotOnline)
    assert isinstance(reports[6].error, NotOnline)
    retired = [entry.id for entry in pool.entries if not entry.active]
    assert retired == [2], "a dead session is found out, and nobody else is to blame"


async def test_everything_of_many_is_deleted_with_progress(rig: Rig) -> None:
    assets, _ = assets_of(rig, "ok-1", "ok-2", "expired-3")
    fill(rig, 30, "ok-1")
    reports = [report async for report in assets.delete_all([1, 2, 3])]
    last = {report.credential_id: report for report in reports}
    assert last[1] == AssetReport(1, 33, deleted=33, done=True)
    assert last[2] == AssetReport(2, 3, deleted=3, done=True)
    assert isinstance(last[3].error, CredentialRejected)
    assert sum(report.done for report in reports) == 3
    progress = [report.deleted for report in reports if report.credential_id == 1]
    assert progress == sorted(progress)
    assert len(progress) > 3
    assert not rig.state.assets
    assert rig.rules_broken() == []


async def test_nothing_to_do_ends_at_once(rig: Rig) -> None:
    assets, _ = assets_of(rig)
    assert [report async for report in assets.delete_all([])] == []


@dataclass
class Gauge:
    """An upstream that counts how much of it is in use at the same time."""

    assets: int = 6
    broken: bool = False
    accounts: int = 0
    most_accounts: int = 0
    deletions: Counter[int] = field(default_factory=Counter)
    cancelled: int = 0

    async def count_assets(self, account: Any) -> int:
        if self.broken:
            raise KeyError("a bug")
        async with self:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return self.assets

    async def delete_all_assets(
        self, account: Any, *, at_once: int = 10
    ) -> AsyncGenerator[Deletion, None]:
        self.deletions[at_once] += 1
        async with self:
            for number in range(self.assets):
                yield Deletion(number, 0, self.assets)
                await asyncio.sleep(0)
            yield Deletion(self.assets, 0, self.assets)

    async def __aenter__(self) -> None:
        self.accounts += 1
        self.most_accounts = max(self.most_accounts, self.accounts)

    async def __aexit__(self, kind: object, *_: object) -> None:
        self.accounts -= 1
        self.cancelled += kind is not None


def over(gauge: Gauge, count: int, **performance: int) -> OnlineAssets:
    pool = pool_of(*(f"ok-{number}" for number in range(count)))
    web: Any = gauge
    return OnlineAssets(pool, web, config(**performance))


@pytest.mark.parametrize(
    ("limits", "accounts", "deletions"),
    [
        ({"admin_assets_batch_size": 4, "assets_max_concurrent": 25}, 4, 6),
        ({"admin_assets_batch_size": 4, "assets_max_concurrent": 100}, 4, 10),
        ({"admin_assets_batch_size": 50, "assets_max_concurrent": 5}, 5, 1),
        ({"admin_assets_batch_size": 1, "assets_delete_batch_size": 3}, 1, 3),
    ],
)
async def test_no_more_is_done_at_the_same_time_than_the_operator_allows(
    limits: dict[str, int], accounts: int, deletions: int
) -> None:
    gauge = Gauge()
    assets = over(gauge, 20, **limits)
    done = [report async for report in assets.delete_all(range(1, 21)) if report.done]
    assert len(done) == 20
    assert gauge.most_accounts == accounts
    assert set(gauge.deletions) == {deletions}


async def test_a_reader_that_lags_behind_misses_no_last_report() -> None:
    gauge = Gauge(assets=50)
    finished = []
    async with aclosing(over(gauge, 9).delete_all(range(1, 10))) as reports:
        async for report in reports:
            if report.done:
                finished.append(report.credential_id)
            for _ in range(20):
                await asyncio.sleep(0)
    assert sorted(finished) == list(range(1, 10))


async def test_whoever_stops_reading_stops_the_work() -> None:
    gauge = Gauge(assets=10_000)
    async with aclosing(over(gauge, 9).delete_all(range(1, 10))) as reports:
        await anext(reports)
    assert gauge.accounts == 0
    assert gauge.cancelled > 0


async def test_the_reader_that_is_cancelled_takes_the_work_with_it() -> None:
    gauge = Gauge(assets=10_000)

    async def read() -> None:
        async with aclosing(over(gauge, 9).delete_all(range(1, 10))) as reports:
            async for _ in reports:
                pass

    reading = asyncio.create_task(read())
    await until(lambda: gauge.accounts > 0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert gauge.accounts == 0


async def test_a_bug_is_raised_to_the_reader() -> None:
    with pytest.raises(KeyError, match="a bug"):
        async for _ in over(Gauge(broken=True), 3).count([1, 2, 3]):
            pass

"""What an account keeps: listed, counted, deleted one by one and all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.state import Asset as Stored
from gateway.upstream.errors import CredentialRejected, RequestRejected, UpstreamFailed
from gateway.upstream.web.media.assets import Asset, Deletion
from tests.gateway.upstream.media import Rig, account, running, scripted, until
from tests.gateway.upstream.streams import PROPERTY

OK = account("ok-1")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def fill(rig: Rig, count: int, owner: str = "ok-1") -> None:
    for number in range(count):
        path = f"users/x/extra-{owner}-{number}/content"
        rig.state.put_asset(path, Stored(f"extra-{number}", owner, b"x", "image/png", "x.png"))


def owned(rig: Rig, owner: str = "ok-1") -> int:
    return sum(asset.owner == owner for asset in rig.state.assets.values())


async def test_it_works(rig: Rig) -> None:
    page = await rig.web().assets(OK)
    assert len(page.assets) == 2
    first = page.assets[0]
    assert (first.name, first.mime_type) == ("picture-0.png", "image/png")
    assert first.path.endswith(f"{first.id}/content")
    assert first.size
    rest = await rig.web().assets(OK, page.next_token)
    assert len(rest.assets) == 1
    assert rig.rules_broken() == []
    query = rig.state.requests_to("/rest/assets")[0].query
    assert dict(query) == {
        "pageSize": "50",
        "orderBy": "ORDER_BY_LAST_USE_TIME",
        "source": "SOURCE_ANY",
        "isLatest": "true",
    }


async def test_counting_stops_where_a_token_repeats(rig: Rig) -> None:
    fill(rig, 7)
    assert await rig.web().count_assets(OK) == 10
    assert rig.state.counters["/rest/assets"] == 2


async def test_one_asset_is_deleted(rig: Rig) -> None:
    web = rig.web()
    (first, *_) = (await web.assets(OK)).assets
    assert await web.delete_asset(first.id, OK) is True
    assert await web.delete_asset(first.id, OK) is False
    assert await web.count_assets(OK) == 2
    assert rig.rules_broken() == []


async def test_everything_is_deleted_whatever_the_pages_do(rig: Rig) -> None:
    fill(rig, 40)
    fill(rig, 5, "ok-2")
    seen = [progress async for progress in rig.web().delete_all_assets(OK, at_once=4)]
    assert seen[0] == Deletion(0, 0, 0)
    assert seen[-1] == Deletion(43, 0, 43)
    assert [one.deleted for one in seen] == sorted(one.deleted for one in seen)
    assert owned(rig) == 0
    assert owned(rig, "ok-2") == 5
    assert rig.naps
    assert set(rig.naps) == {0.01}


async def test_nothing_to_delete_is_over_at_once() -> None:
    web, _ = scripted(lambda request: httpx.Response(200, json={"assets": []}))
    assert [one async for one in web.delete_all_assets(OK)] == [Deletion(0, 0, 0)]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_dead_session_ends_it(status: int) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            assets = [{"assetId": str(number)} for number in range(20)]
            return httpx.Response(200, json={"assets": assets})
        return httpx.Response(status, json={"message": "user is blocked"})

    web, _ = scripted(handler)
    with pytest.raises(CredentialRejected):
        async for _ in web.delete_all_assets(OK):
            pass


class Store:
    """A listing in pages of ``size``; some deletions fail a few times or always."""

    def __init__(self, ids: int, size: int, failures: dict[int, int], lies: bool = False) -> None:
        self.ids = [str(number) for number in range(ids)]
        self.size = size
        self.failures = {str(number): times for number, times in failures.items()}
        self.lies = lies
        self.deleted: list[str] = []
        self.running = self.most = 0
        self.attempts = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return self.page(int(request.url.params.get("pageToken", "0")))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return self.delete(request.url.path.rpartition("/")[2])

    def page(self, start: int) -> httpx.Response:
        assets = [{"assetId": one} for one in self.ids[start : start + self.size]]
        more = start + self.size < len(self.ids)
        token = str(start + self.size) if more else ""
        return httpx.Response(200, json={"assets": assets, "nextPageToken": token})

    def delete(self, asset_id: str) -> httpx.Response:
        self.attempts += 1
        if self.failures.get(asset_id, 0) > 0:
            self.failures[asset_id] -= 1
            return httpx.Response(500)
        if asset_id not in self.ids or (self.lies and asset_id in self.deleted):
            return httpx.Response(404)
        self.deleted.append(asset_id)
        if not self.lies:
            self.ids.remove(asset_id)
        return httpx.Response(200, json={})


async def delete_all(store: Any, at_once: int = 3) -> list[Deletion]:
    web, _ = scripted(store)
    async with asyncio.timeout(10):
        return [one async for one in web.delete_all_assets(OK, at_once=at_once)]


@PROPERTY
@given(
    ids=st.integers(0, 25),
    size=st.integers(1, 7),
    failures=st.dictionaries(st.integers(0, 25), st.sampled_from([1, 2, 99])),
    at_once=st.integers(1, 5),
)
async def test_whatever_can_be_deleted_is(
    ids: int, size: int, failures: dict[int, int], at_once: int
) -> None:
    store = Store(ids, size, failures)
    last = (await delete_all(store, at_once))[-1]
    hopeless = {str(number) for number, times in failures.items() if times == 99 and number < ids}
    assert hopeless <= set(store.ids)
    assert last == Deletion(ids - len(store.ids), len(store.ids), ids)
    if not failures:
        assert store.ids == []
    assert store.most <= at_once
    assert store.attempts <= 3 * max(1, ids)


async def test_a_listing_that_never_shrinks_does_not_go_on_for_ever() -> None:
    store = Store(9, 4, {}, lies=True)
    assert (await delete_all(store))[-1] == Deletion(9, 0, 9)
    assert store.attempts == 9


async def test_leaving_cancels_what_is_under_way(rig: Rig) -> None:
    fill(rig, 40)
    gone = asyncio.Event()
    asked = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if request.method == "GET":
            assets = [{"assetId": str(number)} for number in range(9)]
            return httpx.Response(200, json={"assets": assets})
        asked += 1
        if asked == 1:
            return httpx.Response(200)
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    web, _ = scripted(handler)  # type: ignore[arg-type]
    async with aclosing(web.delete_all_assets(OK, at_once=5)) as deleting:
        await anext(deleting)
        assert (await anext(deleting)).deleted == 1
    assert gone.is_set()
    await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({}, []),
        ({"assets": None}, []),
        ({"assets": [1, {}, {"assetId": ""}, {"id": "a"}]}, [Asset("a")]),
        ({"items": [{"asset_id": 7, "size": -1}]}, [Asset("7")]),
        (
            {"assets": [{"assetId": "a", "name": "n", "size": 3, "content_type": "x/y"}]},
            [Asset("a", "n", mime_type="x/y", size=3)],
        ),
    ],
)
async def test_a_listing_is_read_with_care(reply: Any, expected: list[Asset]) -> None:
    web, _ = scripted(lambda request: httpx.Response(200, json=reply))
    assert list((await web.assets(OK)).assets) == expected


async def test_an_empty_page_is_the_last() -> None:
    web, _ = scripted(
        lambda request: httpx.Response(200, json={"assets": [], "nextPageToken": "more"})
    )
    assert (await web.assets(OK)).next_token == ""


Call = Callable[[Any], Any]


@pytest.mark.parametrize(
    "call",
    [lambda web: web.assets(OK), lambda web: web.count_assets(OK)],
)
async def test_a_listing_that_fails_raises(call: Call) -> None:
    for status, expected in ((401, CredentialRejected), (400, RequestRejected)):
        web, _ = scripted(lambda request, status=status: httpx.Response(status))  # type: ignore[misc]
        with pytest.raises(expected):
            await call(web)
    web, _ = scripted(lambda request: httpx.Response(200, content=b"[]"))
    with pytest.raises(UpstreamFailed):
        await call(web)

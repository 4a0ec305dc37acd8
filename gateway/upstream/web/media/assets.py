"""What an account keeps at grok.com: listed, counted, deleted, fetched (upstream-web 10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from gateway.upstream.downloads import Download, MediaKind, open_download, origin_of
from gateway.upstream.errors import (
    BalanceExhausted,
    CredentialRejected,
    PostprocessingFailed,
    QuotaExhausted,
    SessionRejected,
    UpstreamError,
)
from gateway.upstream.requests import Account
from gateway.upstream.web.calls import WebCalls
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.links import asset_url, identifier

LIST_PATH = "/rest/assets"
DELETE_PATH = "/rest/assets-metadata/"
PAGE_SIZE = 50
CALL_TIMEOUT = 30.0
STAGGER = 0.01
"""Seconds between the starts of two deletions."""
MAX_PAGES = 2000
MAX_REMEMBERED = 100_000
MAX_TRIES = 3
_PRIVATE_HOST = "assets.grok.com"
_PUBLIC_TREE = "/imagine-public/"
_FATAL = (CredentialRejected, SessionRejected, QuotaExhausted, BalanceExhausted)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of an account; only ``id`` is sure, the rest empty or None if unknown."""

    id: str
    name: str = ""
    path: str = ""
    mime_type: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class AssetPage:
    """One page, and the token of the next; empty at the end."""

    assets: tuple[Asset, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far a deletion of everything has come, in assets."""

    deleted: int
    failed: int
    seen: int


class Assets:
    """The assets of one account."""

    def __init__(self, calls: WebCalls, account: Account) -> None:
        self._calls = calls
        self._account = account

    async def page(self, token: str = "") -> AssetPage:
        """The page that ``token`` names, the first where it is empty."""
        profile = self._calls.profile()
        query = {
            "pageSize": str(PAGE_SIZE),
            "orderBy": "ORDER_BY_LAST_USE_TIME",
            "source": "SOURCE_ANY",
            "isLatest": "true",
        }
        query |= {"pageToken": token} if token else {}
        reply = await self._calls.call(
            profile,
            "GET",
            f"{LIST_PATH}?{urlencode(query)}",
            headers=profile.files(self._account, self._calls.new_uuid()),
            timeout=CALL_TIMEOUT,
        )
        return _page(reply)

    async def pages(self) -> AsyncGenerator[AssetPage, None]:
        """Every page once: to the first that names no next one or one that was had."""
        token, had = "", {""}
        for _ in range(MAX_PAGES):
            page = await self.page(token)
            yield page
            token = page.next_token
            if token in had:
                return
            had.add(token)

    async def count(self) -> int:
        """How many assets there are; each counts once, on however many pages it is."""
        ids: set[str] = set()
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                ids.update(asset.id for asset in page.assets)
        return len(ids)

    async def delete(self, asset_id: str) -> bool:
        """Delete one; False when it was gone already."""
        profile = self._calls.profile()
        try:
            await self._calls.exchange(
                profile,
                "DELETE",
                DELETE_PATH + quote(asset_id, safe=""),
                headers=profile.files(self._account, self._calls.new_uuid()),
                timeout=CALL_TIMEOUT,
            )
        except UpstreamError as error:
            if error.upstream_status != 404:
                raise
            return False
        return True

    async def delete_all(self, at_once: int = 10) -> AsyncGenerator[Deletion, None]:
        """Delete everything, ``at_once`` at a time; yields as it goes and at the end.

        Deleting shifts the pages, so after each page that shrank the walk begins again at
        the first; it ends when a whole walk deletes nothing. Failures are counted; an asset
        is tried once in each walk, three times in all. Raises what says that the account
        itself is not served. Closing the generator cancels what is under way.
        """
        tally = _Tally()
        yield tally.progress()
        while tally.may_go_on:
            before = tally.deleted
            async with aclosing(self._walk(tally, at_once)) as walk:
                async for progress in walk:
                    yield progress
            if tally.deleted == before:
                return

    async def _walk(self, tally: _Tally, at_once: int) -> AsyncGenerator[Deletion, None]:
        """From the first page to one of which something could be deleted, or to the last."""
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                before = tally.deleted
                ids = tally.outstanding(page)
                async with aclosing(self._delete_each(ids, tally, at_once)) as deleting:
                    async for progress in deleting:
                        yield progress
                if tally.deleted > before:
                    return

    async def _delete_each(
        self, ids: list[str], tally: _Tally, at_once: int
    ) -> AsyncGenerator[Deletion, None]:
        waiting = iter(ids)
        running: dict[asyncio.Task[bool], str] = {}
        try:
            while True:
                while len(running) < at_once and (asset_id := next(waiting, None)) is not None:
                    if running:
                        await self._calls.sleep(STAGGER)
                    running[asyncio.create_task(self.delete(asset_id))] = asset_id
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    tally.note(running.pop(task), task)
                yield tally.progress()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


class _Tally:
    """What has become of which asset."""

    def __init__(self) -> None:
        self._gone: set[str] = set()
        self._failed: dict[str, int] = {}
        self.deleted = 0

    @property
    def may_go_on(self) -> bool:
        return len(self._gone) + len(self._failed) < MAX_REMEMBERED

    def outstanding(self, page: AssetPage) -> list[str]:
        """The page's assets that are worth a try, each once."""
        ids = dict.fromkeys(asset.id for asset in page.assets if asset.id not in self._gone)
        return [asset_id for asset_id in ids if self._failed.get(asset_id, 0) < MAX_TRIES]

    def note(self, asset_id: str, task: asyncio.Task[bool]) -> None:
        """The end of one deletion. Raises what would befall every other as well."""
        error = task.exception()
        if error is not None:
            if not isinstance(error, UpstreamError) or isinstance(error, _FATAL):
                raise error
            self._failed[asset_id] = self._failed.get(asset_id, 0) + 1
            return
        self._gone.add(asset_id)
        self._failed.pop(asset_id, None)
        self.deleted += task.result()

    def progress(self) -> Deletion:
        return Deletion(self.deleted, len(self._failed), len(self._gone) + len(self._failed))


@asynccontextmanager
async def download(
    calls: WebCalls, url: str, account: Account, kind: MediaKind
) -> AsyncIterator[Download]:
    """The bytes of a generated picture or video; ``url`` may be an asset path.

    Raises PostprocessingFailed (row 15) only, also for an address that is not allowed.
    """
    profile = calls.profile()
    settings = profile.settings
    address = asset_url(url, settings.assets_url)
    if not address:
        raise PostprocessingFailed(row=15, evidence="the address is not allowed")
    headers = _headers(profile, address, account)
    origin = origin_of(address, headers, kind, settings.timeouts)
    async with open_download(calls.asset_http, origin, calls.sleep) as found:
        yield found


def _headers(profile: Profile, address: str, account: Account) -> dict[str, str]:
    """The owner's cookie goes to the private host alone; the public ones need none."""
    own, asked = urlsplit(profile.settings.assets_url), urlsplit(address)
    private = asked.netloc in (own.netloc, _PRIVATE_HOST)
    if not private or asked.path.startswith(_PUBLIC_TREE):
        return profile.anonymous()
    try:
        return profile.bare(account)
    except CredentialRejected as error:
        raise PostprocessingFailed(row=15, evidence=error.evidence) from error


def _page(reply: Mapping[str, Any]) -> AssetPage:
    listed = reply.get("assets", reply.get("items"))
    entries = listed if isinstance(listed, list) else []
    found = (_asset(entry) for entry in entries if isinstance(entry, dict))
    assets = tuple(asset for asset in found if asset.id)
    token = reply.get("nextPageToken")
    return AssetPage(assets, token if isinstance(token, str) and assets else "")


def _asset(entry: Mapping[str, Any]) -> Asset:
    size = next((entry[key] for key in ("fileSize", "size", "file_size") if key in entry), None)
    return Asset(
        id=identifier(entry.get("assetId") or entry.get("asset_id") or entry.get("id")),
        name=_text(entry, "fileName", "name", "file_name"),
        path=_text(entry, "filePath", "file_path"),
        mime_type=_text(entry, "contentType", "content_type"),
        size=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
    )


def _text(entry: Mapping[str, Any], *names: str) -> str:
    found = (entry.get(name) for name in names)
    return next((value for value in found if isinstance(value, str)), "")

"""Finished media under addresses of ours: fetched once, checked, kept in the cache.

What goes wrong here is row 15 of the error table: upstream has made the media, so no
credential is to blame and nothing is made again.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from gateway.media.checks import Checked
from gateway.media.errors import BadContent, MediaError, StorageFailed
from gateway.media.formats import HEAD, sniff
from gateway.media.links import MediaLinks
from gateway.media.names import Kind, name_of_asset
from gateway.media.part_file import PartFile
from gateway.media.store import MAX_BYTES, MediaStore, Stored, in_memory
from gateway.upstream.downloads import Download
from gateway.upstream.errors import PostprocessingFailed
from gateway.upstream.events import Event, ImageReady, Text, VideoReady
from gateway.upstream.requests import Account, StoredFile
from pool.leases import Lease

logger = logging.getLogger(__name__)
Batches = AsyncGenerator[list[Event], None]
LOST_PICTURE = "\n*(A picture was made, but it could not be fetched.)*\n"
LOST_VIDEO = "\n*(A video was made, but it could not be fetched.)*\n"
PREVIEW_TIMEOUT = 5.0
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class MediaSource:
    """Where media come from: the upstream, and the account they belong to there."""

    upstream: Literal["web", "api"]
    account: Account

    @classmethod
    def of(cls, lease: Lease, account: Account | None = None) -> MediaSource:
        """The source of what was made with ``lease``."""
        upstream: Literal["web", "api"] = "api" if lease.lane.kind == "api" else "web"
        return cls(upstream, account or Account(lease.secret, lease.user_id or None))


class Opened(Protocol):
    """An answer that has begun: iterate it once, close it in every case."""

    def batches(self) -> AsyncIterator[list[Event]]: ...

    async def aclose(self) -> None: ...


class WebDownloads(Protocol):
    def download(
        self, url: str, account: Account, kind: Kind
    ) -> AbstractAsyncContextManager[Download]: ...


class ApiDownloads(Protocol):
    def download(self, url: str, kind: Kind) -> AbstractAsyncContextManager[Download]: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the cache: ``url`` is what a client is given, ``name`` what never changes."""

    kind: Kind
    name: str
    url: str
    mime: str
    size: int
    store: MediaStore

    async def read(self) -> bytes:
        """All of it; raises PostprocessingFailed when the cache was cleaned meanwhile."""
        try:
            with await self.store.open(self.kind, self.name) as file:
                content = bytearray()
                while piece := await file.read(len(content), _READ):
                    content += piece
        except (MediaError, OSError) as error:
            raise PostprocessingFailed(row=15, evidence="the kept file is gone") from error
        return bytes(content)


class Hosting:
    """``keep_inline`` says whether a picture handed out as base64 is kept as well.

    All methods raise PostprocessingFailed only.
    """

    def __init__(
        self,
        store: MediaStore,
        links: MediaLinks,
        web: WebDownloads,
        api: ApiDownloads,
        *,
        keep_inline: Callable[[], bool] = lambda: True,
    ) -> None:
        self.store = store
        self.links = links
        self._web = web
        self._api = api
        self._keep_inline = keep_inline

    async def keep_image(self, ready: ImageReady, source: MediaSource) -> Kept:
        """The picture in the cache, from its base64 or, without any, from its address."""
        if not ready.data:
            return await self.keep_url("image", ready.url, source)
        name = _name_of(ready.url, source) if ready.url else f"image-{uuid4().hex}"
        return await self._keep("image", name, lambda: self._decoded(ready.data))

    async def keep_video(self, ready: VideoReady, source: MediaSource) -> Kept:
        """The video alone; its poster is ``keep_url("image", ready.poster_url, source)``."""
        return await self.keep_url("video", ready.url, source)

    async def keep_url(self, kind: Kind, url: str, source: MediaSource) -> Kept:
        """What upstream has at ``url``, an address or, on the web, an asset path."""
        return await self._keep(kind, _name_of(url, source), lambda: self._fetch(kind, url, source))

    async def encoded(self, ready: ImageReady, source: MediaSource) -> str:
        """The picture as bare base64, kept in the cache if the operator wants that."""
        if not self._keep_inline():
            return ready.data or await self._base64(await self._in_memory(ready.url, source))
        if not ready.data:
            kept = await self.keep_image(ready, source)
            return await self._base64(await kept.read())
        try:
            await self.keep_image(ready, source)
        except PostprocessingFailed as error:
            # The client has asked for the bytes, and those are here.
            if not isinstance(error.__cause__, StorageFailed):
                raise
            logger.warning("a picture was not kept: %s", error.evidence)
        return ready.data

    async def preview(self, url: str, source: MediaSource) -> str:
        """A partial picture as base64; "" where it cannot be had soon."""
        try:
            async with asyncio.timeout(PREVIEW_TIMEOUT):
                return await self._base64(await self._in_memory(url, source))
        except (PostprocessingFailed, TimeoutError):
            return ""

    async def rehosted(
        self, batches: Batches, source: MediaSource, *, inline: bool = False
    ) -> Batches:
        """``batches`` with addresses of ours in place of upstream's, or base64 if ``inline``.

        What cannot be kept becomes a line of text, so that the rest of an answer arrives.
        """
        async with aclosing(batches):
            async for batch in batches:
                if any(isinstance(event, ImageReady | VideoReady) for event in batch):
                    batch = [await self._rehost(event, source, inline) for event in batch]
                yield batch

    async def _rehost(self, event: Event, source: MediaSource, inline: bool) -> Event:
        try:
            if isinstance(event, ImageReady):
                return await self.hosted_image(event, source, inline=inline)
            if isinstance(event, VideoReady):
                return await self.hosted_video(event, source)
        except PostprocessingFailed as error:
            logger.warning("media of an answer were not kept: %s", error.evidence)
            return Text(LOST_PICTURE if isinstance(event, ImageReady) else LOST_VIDEO)
        return event

    async def hosted_image(
        self, ready: ImageReady, source: MediaSource, *, inline: bool = False
    ) -> ImageReady:
        """The picture with an address of ours, or as base64 without any if ``inline``."""
        if inline:
            data = await self.encoded(ready, source)
            return ImageReady(ready.index, "", data, _type_of(data), ready.revised_prompt)
        kept = await self.keep_image(ready, source)
        return ImageReady(ready.index, kept.url, "", kept.mime, ready.revised_prompt)

    async def hosted_video(self, ready: VideoReady, source: MediaSource) -> VideoReady:
        """The video with addresses of ours; without a poster where that one cannot be had."""
        kept = await self.keep_video(ready, source)
        poster = ""
        if ready.poster_url:
            try:
                poster = (await self.keep_url("image", ready.poster_url, source)).url
            except PostprocessingFailed as error:
                logger.info("a video stays without its poster: %s", error.evidence)
        return VideoReady(kept.url, poster, ready.resolution, ready.video_id)

    async def _keep(
        self, kind: Kind, name: str, content: Callable[[], AsyncGenerator[bytes, None]]
    ) -> Kept:
        try:
            stored = await self.store.fetch(kind, name, content)
        except MediaError as error:
            raise _failure(error) from error
        return self._kept(stored)

    def _kept(self, stored: Stored) -> Kept:
        url = self.links.url(stored.kind, stored.name)
        return Kept(stored.kind, stored.name, url, stored.mime, stored.size, self.store)

    async def _fetch(
        self, kind: Kind, url: str, source: MediaSource
    ) -> AsyncGenerator[bytes, None]:
        if source.upstream == "web":
            opening = self._web.download(url, source.account, kind)
        else:
            opening = self._api.download(url, kind)
        async with opening as download:
            async for chunk in download.chunks:
                yield chunk

    async def _decoded(self, data: str) -> AsyncGenerator[bytes, None]:
        try:
            content = await self.store.run(partial(binascii.a2b_base64, data, strict_mode=True))
        except ValueError as error:
            raise PostprocessingFailed(row=15, evidence="not base64") from error
        async with aclosing(in_memory(content)) as pieces:
            async for piece in pieces:
                yield piece

    async def _in_memory(self, url: str, source: MediaSource) -> bytes:
        content = bytearray()
        async with aclosing(self._fetch("image", url, source)) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > MAX_BYTES["image"]:
                    raise PostprocessingFailed(row=15, evidence="too large")
        return bytes(content)

    async def _base64(self, content: bytes) -> str:
        encode = partial(binascii.b2a_base64, content, newline=False)
        return (await self.store.run(encode)).decode()


def _type_of(data: str) -> str:
    """The type that the first bytes of base64 give away, or ""."""
    try:
        found = sniff(binascii.a2b_base64(data[: HEAD // 3 * 4]))
    except ValueError:
        return ""
    return found.mime if found else ""


def _name_of(url: str, source: MediaSource) -> str:
    """The old-style name: upstream's path with ``-`` for ``/``.

    The paths of api.x.ai are another world than those of grok.com, and what is asked there
    with a query is another thing than the same path without.
    """
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if source.upstream == "api":
        path = f"xai/{path}?{parts.query}" if parts.query else f"xai/{path}"
    try:
        return name_of_asset(path)
    except MediaError as error:
        raise PostprocessingFailed(row=15, evidence="an address without a path") from error


def _failure(error: MediaError) -> PostprocessingFailed:
    if isinstance(error, StorageFailed):
        message = "The upstream made the media, but it could not be stored here."
        return PostprocessingFailed(message, row=15, evidence=type(error).__name__)
    bad = "the content is not right: " if isinstance(error, BadContent) else ""
    return PostprocessingFailed(row=15, evidence=f"{bad}{type(error).__name__}")


def stored_file(part: PartFile, checked: Checked, name: str) -> StoredFile:
    """A checked part as an upstream reads it, until the part is discarded."""
    return StoredFile(name, checked.format.mime, part.path, checked.size)

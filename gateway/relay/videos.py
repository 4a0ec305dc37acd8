"""One video on one credential: what each upstream is asked for, HD, and a home for the file."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.catalog import Model
from gateway.conf.schema import Config
from gateway.media.errors import BadContent
from gateway.media.store import MediaStore, Stored, in_memory
from gateway.relay.attempts import Batches
from gateway.relay.hosting import Hosting, Kept, MediaSource
from gateway.relay.lanes import lanes_for
from gateway.translate.videos import VideoOrder
from gateway.upstream.attachments import AttachmentError
from gateway.upstream.errors import PostprocessingFailed, UpstreamError
from gateway.upstream.events import Event, Finished, VideoProgress, VideoReady
from gateway.upstream.requests import Account, StoredFile, VideoRequest
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.xai.client import XaiUpstream
from gateway.wire.errors import bad_request
from pool.leases import Lane, Lease

logger = logging.getLogger(__name__)
NO_HD = "The video could not be had in HD; this is the original."
SD, HD = "480p", "720p"
GEN2_SECONDS = (6, 10)
"""The lengths of one request of Gen 2 (upstream-web 9.2)."""


class Milestones(Protocol):
    """Is told how far a video has come, before anything that follows from it is done."""

    async def submitting(self) -> None:
        """From here on upstream may be at work."""

    async def accepted(self, lease: Lease, upstream_id: str, poster_url: str = "") -> None:
        """Upstream has taken it; ``upstream_id`` is what it can be asked about, if anything."""


class Unnoted:
    """Milestones of a video that nobody comes back to."""

    async def submitting(self) -> None:
        return

    async def accepted(self, lease: Lease, upstream_id: str, poster_url: str = "") -> None:
        return


@dataclass(frozen=True, slots=True)
class Made:
    """A finished video in the cache; ``note`` says what is not as it was ordered."""

    video: Kept
    poster: Kept | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class VideoMaker:
    """Makes videos on either upstream; ``web_settings`` is what ``web`` works with.

    ``serves`` says whether any credential could ever serve a lane (see Pool.serves).
    """

    web: WebUpstream
    xai: XaiUpstream
    hosting: Hosting
    config: Callable[[], Config]
    web_settings: Callable[[], WebSettings]
    serves: Callable[[tuple[Lane, ...]], bool]

    @property
    def store(self) -> MediaStore:
        return self.hosting.store

    def lanes(self, model: Model, order: VideoOrder, *, from_picture: bool) -> tuple[Lane, ...]:
        """Where the video may be made; raises ApiError 400 where nothing can make it."""
        config, settings = self.config(), self.web_settings()
        lanes = tuple(
            lane if lane.kind == "api" else self._web_lane(lane, order)
            for lane in lanes_for(model, config.pool.policy, "model_name")
        )
        if from_picture and _is_text_only(settings):
            lanes = tuple(lane for lane in lanes if lane.kind == "api")
            if not self.serves(lanes):
                text = (
                    "No video can be made from a picture here: grok.com's current protocol takes"
                    " text only, and no API key serves this model."
                )
                raise bad_request(text, "image_to_video_not_supported", "model")
        return lanes

    def _web_lane(self, lane: Lane, order: VideoOrder) -> Lane:
        """The current protocol has quotas for videos alone (upstream-web 6.3)."""
        if self.web_settings().media_protocol != "current":
            return lane
        resolution = asked_of_web(order, lane.kind, self.web_settings())
        return Lane(lane.kind, "video" if resolution == SD else "video_720p")

    async def keep_input(self, content: bytes, name: str) -> Stored:
        """A client's picture as a file; raises AttachmentError, StorageFailed."""
        try:
            return await self.store.save("image", name, in_memory(content))
        except BadContent as error:
            raise AttachmentError(error.message, error.code) from error

    def input_file(self, stored: Stored) -> StoredFile:
        path = self.store.folders[stored.kind].path / stored.name
        return StoredFile(stored.name, stored.mime, path, stored.size)

    async def forget(self, stored: Stored | None) -> None:
        """Remove a client's picture that is not needed any more."""
        if stored is not None:
            folder = self.store.folders[stored.kind]
            await self.store.run(lambda: folder.remove(stored.name))

    def call(
        self, order: VideoOrder, image: StoredFile | None, milestones: Milestones
    ) -> VideoCall:
        return VideoCall(self, order, image, milestones)

    async def finish(self, ready: VideoReady, source: MediaSource, note: str = "") -> Made:
        """The finished video with a home here; raises PostprocessingFailed."""
        video = await self.hosting.keep_video(ready, source)
        return Made(video, await self._poster(ready.poster_url, source), note)

    async def _poster(self, url: str, source: MediaSource) -> Kept | None:
        if not url:
            return None
        try:
            return await self.hosting.keep_url("image", url, source)
        except PostprocessingFailed as error:
            logger.info("a video stays without its poster: %s", error.evidence)
            return None


class VideoCall:
    """The attempts at one video, each on one credential; ``made`` is there in the end.

    Yields VideoProgress, VideoReady with an address of ours, and Finished.
    """

    def __init__(
        self, maker: VideoMaker, order: VideoOrder, image: StoredFile | None, milestones: Milestones
    ) -> None:
        self._maker = maker
        self._order = order
        self._image = image
        self._milestones = milestones
        self.made: Made | None = None

    def __call__(self, lease: Lease, account: Account) -> Batches:
        if lease.lane.kind == "api":
            return self._over_api(lease, account)
        return self._over_web(lease, account)

    async def _over_api(self, lease: Lease, account: Account) -> AsyncGenerator[list[Event], None]:
        maker = self._maker
        request = self._order.request(HD if self._order.hd else SD, self._image)
        await self._milestones.submitting()
        job_id = await maker.xai.start_video(request, lease.lane.bucket, account)
        await self._milestones.accepted(lease, job_id)
        async with aclosing(self.follow(job_id, account)) as batches:
            async for batch in batches:
                yield batch

    async def follow(self, job_id: str, account: Account) -> AsyncGenerator[list[Event], None]:
        """A job of api.x.ai to its end, whoever has started it."""
        async with aclosing(self._maker.xai.follow_video(job_id, account)) as batches:
            async for batch in batches:
                async for events in self._through(batch, MediaSource("api", account)):
                    yield events

    async def _over_web(self, lease: Lease, account: Account) -> AsyncGenerator[list[Event], None]:
        request = self._web_request(lease.lane.kind)
        source, taken = MediaSource("web", account), False
        await self._milestones.submitting()
        async with aclosing(self._maker.web.video(request, account)) as batches:
            async for batch in batches:
                if not taken:
                    taken = True
                    await self._milestones.accepted(lease, "")
                for ready in (event for event in batch if isinstance(event, VideoReady)):
                    await self._milestones.accepted(lease, ready.url, ready.poster_url)
                async for events in self._through(batch, source, request):
                    yield events

    def _web_request(self, kind: str) -> VideoRequest:
        settings = self._maker.web_settings()
        resolution = asked_of_web(self._order, kind, settings)
        request = self._order.request(resolution, self._image)
        if settings.media_protocol == "legacy" and settings.legacy_media == "gen2":
            return replace(
                request, seconds=min(GEN2_SECONDS, key=lambda s: abs(s - request.seconds))
            )
        return request

    async def _through(
        self, batch: list[Event], source: MediaSource, request: VideoRequest | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Progress at once, since finding a home for the file takes a while."""
        progress: list[Event] = [event for event in batch if isinstance(event, VideoProgress)]
        if progress:
            yield progress
        rest: list[Event] = []
        for event in batch:
            if isinstance(event, VideoReady):
                rest.append(await self._ready(event, source, request))
            elif isinstance(event, Finished):
                rest.append(event)
        if rest:
            yield rest

    async def _ready(
        self, ready: VideoReady, source: MediaSource, request: VideoRequest | None
    ) -> VideoReady:
        made, note = None, ""
        if request is not None and self._is_too_small(ready, request):
            made, note = await self._in_hd(ready, source), NO_HD
        self.made = made or await self._maker.finish(ready, source, note)
        poster = self.made.poster.url if self.made.poster else ""
        return VideoReady(self.made.video.url, poster, ready.resolution, ready.video_id)

    def _is_too_small(self, ready: VideoReady, request: VideoRequest) -> bool:
        """Whether HD was wanted and something smaller was asked for, or made all the same."""
        return self._order.hd and SD in (ready.resolution, request.resolution)

    async def _in_hd(self, ready: VideoReady, source: MediaSource) -> Made | None:
        """The video's larger twin; None when there is none to be had."""
        if not ready.video_id:
            return None
        try:
            url = await self._maker.web.upscale(ready.video_id, source.account)
            return await self._maker.finish(replace(ready, url=url, resolution=HD), source)
        except UpstreamError as error:
            logger.info("a video stays as it is: %s", error.evidence or type(error).__name__)
            return None


def asked_of_web(order: VideoOrder, kind: str, settings: WebSettings) -> str:
    """The resolution to ask grok.com for with a credential of ``kind``.

    Today basic accounts get 720p alone, and Gen 2 gave them 480p alone, to be upscaled.
    """
    basic = kind == "sso"
    if settings.media_protocol == "current":
        return HD if order.hd or basic else SD
    if settings.legacy_media == "gen2" and basic:
        return SD
    return HD if order.hd else SD


def _is_text_only(settings: WebSettings) -> bool:
    return settings.media_protocol == "current" and not settings.legacy_image_to_video

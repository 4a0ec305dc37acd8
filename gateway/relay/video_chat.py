"""A video as the answer of a chat: progress as thinking, the video as markup."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

from gateway.catalog import Model
from gateway.media.store import Stored
from gateway.relay.attempts import Attempts, Batches, RetryPolicy, Watcher
from gateway.relay.chat import Answer
from gateway.relay.health import ProfileHealth
from gateway.relay.recording import Recording
from gateway.relay.videos import Unnoted, VideoCall, VideoMaker
from gateway.translate.videos import chat_order, video_markup
from gateway.upstream.attachments import AttachmentLoader
from gateway.upstream.events import Event, Text, VideoReady
from gateway.upstream.requests import Account, ChatRequest, ImagePart
from gateway.wire.chat import VideoConfig
from pool.leases import Lease, Pool, Want
from pool.waiting import WaitingRoom


@dataclass(slots=True)
class VideoChat:
    """``new_loader`` makes the attachment loader of one request."""

    pool: Pool
    room: WaitingRoom
    maker: VideoMaker
    new_loader: Callable[[], AttachmentLoader]
    health: ProfileHealth
    watcher: Watcher

    async def open(
        self,
        request: ChatRequest,
        model: Model,
        recording: Recording,
        video_config: VideoConfig | None,
    ) -> Answer:
        """Raises ApiError, AttachmentError, MediaError, NoCredential or UpstreamError."""
        config = self.maker.config()
        order, picture = chat_order(request, video_config, nsfw=config.grok.nsfw_enabled)
        lanes = self.maker.lanes(model, order, from_picture=picture is not None)
        image = await self._keep(picture)
        try:
            file = self.maker.input_file(image) if image else None
            call = _InMarkup(
                self.maker.call(order, file, Unnoted()),
                as_poster=config.grok.video_poster_preview,
            )
            policy = RetryPolicy(config.grok.max_retry, frozenset(config.grok.retry_status_codes))
            attempts = Attempts(self.pool, self.room, call, policy, recording, self.watcher)
            committed = await attempts.commit(Want(lanes, model.id))
        finally:
            # Upstream has it by now, or nobody will.
            await self.maker.forget(image)
        if committed.lease.lane.kind != "api":
            self.health.succeeded()
        return Answer(committed, None)

    async def _keep(self, picture: ImagePart | None) -> Stored | None:
        if picture is None:
            return None
        file = await self.new_loader().load(picture)
        return await self.maker.keep_input(file.content, f"input-{uuid4().hex}")


class _InMarkup:
    """A call whose finished video is a piece of the answer's text."""

    def __init__(self, call: VideoCall, *, as_poster: bool) -> None:
        self._call = call
        self._as_poster = as_poster

    def __call__(self, lease: Lease, account: Account) -> Batches:
        return self._written(self._call(lease, account))

    async def _written(self, batches: Batches) -> AsyncGenerator[list[Event], None]:
        async with aclosing(batches):
            async for batch in batches:
                yield [self._event(event) for event in batch]

    def _event(self, event: Event) -> Event:
        if not isinstance(event, VideoReady):
            return event
        text = video_markup(event.url, event.poster_url, as_poster=self._as_poster)
        made = self._call.made
        return Text(f"{text}\n\n{made.note}" if made and made.note else text)

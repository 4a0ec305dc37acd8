"""Pictures for one request: which way upstream, how many calls, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Literal

from gateway.catalog import Model
from gateway.conf.schema import Config
from gateway.relay.attempts import Attempts, Batches, Committed, RetryPolicy, Watcher
from gateway.relay.chat import target_of, web_form
from gateway.relay.health import ProfileHealth
from gateway.relay.hosting import Hosting, MediaSource
from gateway.relay.lanes import WebForm, edit_lanes, imagine_lanes, lanes_for
from gateway.relay.recording import Recording
from gateway.relay.verdicts import Blame
from gateway.upstream.errors import (
    ContentRefused,
    ImagesIncomplete,
    PostprocessingFailed,
    RequestRejected,
    SessionRejected,
    UpstreamError,
)
from gateway.upstream.events import Event, Finished, ImageProgress, ImageReady, Text
from gateway.upstream.requests import Account, EditRequest, ImageRequest, StoredFile
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.web.media.drawing import PER_CALL
from gateway.upstream.web.media.edits import max_inputs
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.xai.client import XaiUpstream
from gateway.upstream.xai.images import MAX_EDITED, MAX_IMAGES, MAX_INPUT_BYTES
from pool.errors import NoCredential
from pool.keys import KeyRecord
from pool.leases import Lane, Lease, Pool, Want
from pool.limits.charges import Charge
from pool.limits.limiter import KeyLimiter, Ticket
from pool.waiting import WaitingRoom

Method = Literal["chat", "imagine", "edit"]
_PER_CALL: dict[Method, int] = {"chat": PER_CALL, "imagine": 4, "edit": PER_CALL}
"""Pictures that are asked of grok.com in one call."""


@dataclass(frozen=True, slots=True)
class ImageJob:
    """``count`` pictures from a prompt or, with ``inputs``, from pictures.

    ``inline`` asks for base64 in place of addresses, ``previews`` for partial pictures that
    have to be fetched. ``at_once`` is how many upstream calls may run at the same time.
    """

    prompt: str
    count: int = 1
    ratio: str = ""
    inputs: tuple[StoredFile, ...] = ()
    inline: bool = False
    previews: bool = False
    at_once: int = 1
    user: str = ""


@dataclass(slots=True)
class Drawn:
    """The pictures of a request, hosted, and how many are missing for which reason."""

    pictures: list[ImageReady]
    blocked: int
    failed: int


@dataclass(slots=True)
class ImageRelay:
    pool: Pool
    room: WaitingRoom
    web: WebUpstream
    xai: XaiUpstream
    config: Callable[[], Config]
    web_settings: Callable[[], WebSettings]
    health: ProfileHealth
    watcher: Watcher
    hosting: Hosting

    def max_inputs(self, model: Model) -> int:
        """How many pictures an edit may start from, by whoever takes most."""
        config = self.config()
        lanes = edit_lanes(model, config.pool.policy, web_form(config))
        web = [max_inputs(self.web_settings())] if any(lane.kind != "api" for lane in lanes) else []
        return max([MAX_EDITED, *web])

    async def open(
        self, job: ImageJob, model: Model, recording: Recording, *, lost_text: str = ""
    ) -> HostedAnswer:
        """One call's pictures, as they come: for no more than one call can make.

        ``lost_text`` is said in place of a picture that cannot be hosted. Raises NoCredential
        or UpstreamError; ``job.inputs`` are no longer needed once this returns.
        """
        opened = await _Opener(self, job, model, recording).open(job.count)
        return HostedAnswer(opened.committed, self.hosting, job, lost_text)

    async def draw(self, job: ImageJob, model: Model, recording: Recording) -> Drawn:
        """All pictures, over as many calls as they take.

        Raises NoCredential or UpstreamError only where there would be none.
        """
        return await _Drawing(self.hosting, job, _Opener(self, job, model, recording)).run()


@dataclass(frozen=True, slots=True)
class _Stage:
    """A way to pictures; ``imagine`` where the web's lanes lead to the picture socket."""

    lanes: tuple[Lane, ...]
    method: Method

    def lanes_for(self, pictures: int) -> tuple[Lane, ...]:
        """The lanes for a call; the picture socket counts its pictures."""
        if self.method != "imagine":
            return self.lanes
        return tuple(
            lane if lane.kind == "api" else replace(lane, cost=pictures) for lane in self.lanes
        )

    @property
    def share(self) -> int:
        """How many pictures the call that is tried first can make."""
        return _limit(self.lanes[0], self.method)


def _limit(lane: Lane, method: Method) -> int:
    return MAX_IMAGES if lane.kind == "api" else _PER_CALL[method]


def _stages(job: ImageJob, model: Model, config: Config, pool: Pool) -> list[_Stage]:
    """The ways in order; the next one is for when the one before cannot even begin."""
    policy, form = config.pool.policy, web_form(config)
    if job.inputs:
        return [_Stage(_lanes_for_edit(job, edit_lanes(model, policy, form), pool), "edit")]
    chat = lanes_for(model, policy, form)
    imagine = imagine_lanes(model, policy)
    if config.grok.image_generation_method == "legacy" or not imagine:
        return [_Stage(chat, "chat")]
    if policy == "api_first":
        api = tuple(lane for lane in chat if lane.kind == "api")
        web = tuple(lane for lane in chat if lane.kind != "api")
        return [_Stage(api + imagine, "imagine"), _Stage(web, "chat")]
    return [_Stage(imagine, "imagine"), _Stage(chat, "chat")]


def _lanes_for_edit(job: ImageJob, lanes: tuple[Lane, ...], pool: Pool) -> tuple[Lane, ...]:
    """Without api.x.ai for what it would refuse, if another can be asked."""
    if len(job.inputs) <= MAX_EDITED and all(i.size <= MAX_INPUT_BYTES for i in job.inputs):
        return lanes
    web = tuple(lane for lane in lanes if lane.kind != "api")
    return web if pool.serves(web) else lanes


class _Call:
    """One call for up to ``wanted`` pictures; ``asked`` is how many were asked for."""

    def __init__(
        self, relay: ImageRelay, job: ImageJob, model: Model, stage: _Stage, wanted: int
    ) -> None:
        self._relay = relay
        self._job = job
        self._model = model
        self._method = stage.method
        self._wanted = wanted
        self.asked = wanted

    def __call__(self, lease: Lease, account: Account) -> Batches:
        self.asked = min(self._wanted, _limit(lease.lane, self._method))
        if self._job.inputs:
            return self._edit(lease, account)
        config = self._relay.config()
        request = self._request(config)
        if lease.lane.kind == "api":
            return self._relay.xai.images(request, lease.lane.bucket, account)
        if self._method == "imagine":
            return self._relay.web.imagine(request, account)
        return self._draw(request, account, web_form(config))

    def _request(self, config: Config) -> ImageRequest:
        job = self._job
        return ImageRequest(
            prompt=job.prompt,
            count=self.asked,
            ratio=job.ratio,
            nsfw=config.grok.nsfw_enabled,
            inline=job.inline,
            user=job.user,
        )

    def _draw(self, request: ImageRequest, account: Account, form: WebForm) -> Batches:
        if self._model.web is None:
            raise ValueError(f"{self._model.id} is not served by the web")
        return self._relay.web.draw(request, account, target_of(self._model.web, form))

    def _edit(self, lease: Lease, account: Account) -> Batches:
        job = self._job
        request = EditRequest(
            prompt=job.prompt,
            images=job.inputs,
            count=self.asked,
            ratio=job.ratio,
            inline=job.inline,
            user=job.user,
        )
        if lease.lane.kind == "api":
            return self._relay.xai.edit_images(request, lease.lane.bucket, account)
        return self._relay.web.edit(request, account)


@dataclass(frozen=True, slots=True)
class _Opened:
    committed: Committed
    asked: int


class _Opener:
    """Begins the calls of one request."""

    def __init__(
        self, relay: ImageRelay, job: ImageJob, model: Model, recording: Recording
    ) -> None:
        config = relay.config()
        self._relay = relay
        self._job = job
        self._model = model
        self._recording = recording
        self._policy = RetryPolicy(config.grok.max_retry, frozenset(config.grok.retry_status_codes))
        self._blame = Blame()
        self._stages = _stages(job, model, config, relay.pool)
        self._first_event = float("inf")

    @property
    def share(self) -> int:
        """How many pictures to ask for in one call."""
        return self._stages[0].share if self._stages[0].lanes else self._job.count

    async def open(self, wanted: int) -> _Opened:
        """A call that has begun to answer; raises NoCredential or UpstreamError.

        While nothing has come of one way, the next one may be tried, for this call and all
        after it.
        """
        failure: UpstreamError | None = None
        while True:
            stage = self._stages[0]
            try:
                return await self._begin(stage, wanted)
            except UpstreamError as error:
                failure = error
                if not self._falls_back(stage, error):
                    raise
            except NoCredential as error:
                if not self._falls_back(stage, error):
                    if failure is not None:
                        raise failure from error
                    raise

    def _falls_back(self, stage: _Stage, error: UpstreamError | NoCredential) -> bool:
        if isinstance(error, ContentRefused | RequestRejected | SessionRejected):
            return False
        if self._stages[0] is stage and len(self._stages) > 1:
            del self._stages[0]
        return self._stages[0] is not stage

    async def _begin(self, stage: _Stage, wanted: int) -> _Opened:
        relay, exchange = self._relay, self._recording.exchange
        call = _Call(relay, self._job, self._model, stage, wanted)
        attempts = Attempts(
            relay.pool, relay.room, call, self._policy, self._recording, relay.watcher, self._blame
        )
        committed = await attempts.commit(Want(stage.lanes_for(wanted), self._model.id))
        # Each call notes its own; the request's is the earliest.
        self._first_event = min(self._first_event, exchange.first_event or 0.0)
        exchange.first_event = self._first_event
        if committed.lease.lane.kind != "api":
            relay.health.succeeded()
        return _Opened(committed, call.asked)


class HostedAnswer:
    """A committed drawing whose pictures leave with addresses of ours, or as base64."""

    def __init__(
        self, committed: Committed, hosting: Hosting, job: ImageJob, lost_text: str = ""
    ) -> None:
        self.lease = committed.lease
        self._committed = committed
        self._hosting = hosting
        self._job = job
        self._lost_text = lost_text
        self._source = MediaSource.of(committed.lease)
        self._delivered = 0
        self._lost: list[PostprocessingFailed] = []

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """Raises UpstreamError when it breaks off, or when not one picture could be hosted."""
        async for batch in self._committed.batches():
            events = [out for event in batch if (out := await self._one(event)) is not None]
            if events:
                yield events

    async def _one(self, event: Event) -> Event | None:
        match event:
            case ImageReady():
                return await self._hosted(event)
            case ImageProgress():
                return await self._previewed(event)
            case Finished():
                if self._lost and not self._delivered:
                    raise self._lost[0]
                event.failed += len(self._lost)
        return event

    async def _hosted(self, ready: ImageReady) -> Event | None:
        try:
            hosted = await self._hosting.hosted_image(ready, self._source, inline=self._job.inline)
        except PostprocessingFailed as error:
            self._lost.append(error)
            return Text(self._lost_text) if self._lost_text else None
        self._delivered += 1
        return hosted

    async def _previewed(self, event: ImageProgress) -> ImageProgress:
        """Upstream's own address never goes on; what is there may, if it was asked for."""
        preview = event.preview
        if event.preview_url and not preview and self._job.previews:
            preview = await self._hosting.preview(event.preview_url, self._source)
        return ImageProgress(event.index, event.percent, preview)

    async def aclose(self) -> None:
        await self._committed.aclose()


class _Drawing:
    """The calls of one request, some at the same time, until every picture is accounted for."""

    def __init__(self, hosting: Hosting, job: ImageJob, opener: _Opener) -> None:
        self._hosting = hosting
        self._job = job
        self._opener = opener
        self._left = job.count
        self._calls = 0
        self._stopped = False
        self._pictures: list[tuple[int, int, ImageReady]] = []
        self._blocked = 0
        self._errors: list[UpstreamError | NoCredential] = []

    async def run(self) -> Drawn:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._job.at_once, self._job.count)):
                group.create_task(self._work())
        return self._result()

    def _result(self) -> Drawn:
        count = self._job.count
        self._pictures.sort(key=lambda found: found[:2])
        pictures = [found[2] for found in self._pictures[:count]]
        missing = count - len(pictures)
        blocked = min(self._blocked, missing)
        if not pictures:
            raise self._verdict(blocked)
        return Drawn(pictures, blocked, missing - blocked)

    def _verdict(self, blocked: int) -> UpstreamError | NoCredential:
        refused = [error for error in self._errors if isinstance(error, ContentRefused)]
        others = [error for error in self._errors if not isinstance(error, ContentRefused)]
        if others:
            return others[0]
        if refused or blocked:
            return refused[0] if refused else ContentRefused(row=7, evidence="all were moderated")
        return ImagesIncomplete(row=14, evidence="no call gave a picture")

    async def _work(self) -> None:
        while self._left > 0 and not self._stopped:
            wanted = min(self._opener.share, self._left)
            self._left -= wanted
            self._calls += 1
            await self._call(self._calls, wanted)

    async def _call(self, number: int, wanted: int) -> None:
        try:
            opened = await self._opener.open(wanted)
        except (UpstreamError, NoCredential) as error:
            self._lose(wanted, error)
            self._stopped = True
            return
        # A lane that makes fewer at once leaves the rest to another call.
        self._left += wanted - opened.asked
        before = len(self._pictures)
        try:
            await self._take(number, opened)
        except UpstreamError as error:
            self._lose(opened.asked - (len(self._pictures) - before), error)
        finally:
            await opened.committed.aclose()

    async def _take(self, number: int, opened: _Opened) -> None:
        source = MediaSource.of(opened.committed.lease)
        async for batch in opened.committed.batches():
            ready = [event for event in batch if isinstance(event, ImageReady)]
            await asyncio.gather(*(self._keep(number, picture, source) for picture in ready))
            if isinstance(batch[-1], Finished):
                self._blocked += batch[-1].blocked

    async def _keep(self, number: int, ready: ImageReady, source: MediaSource) -> None:
        try:
            hosted = await self._hosting.hosted_image(ready, source, inline=self._job.inline)
        except PostprocessingFailed as error:
            self._errors.append(error)
        else:
            self._pictures.append((number, ready.index, hosted))

    def _lose(self, count: int, error: UpstreamError | NoCredential) -> None:
        """``count`` pictures come to nothing; after a refusal no more are asked for."""
        self._errors.append(error)
        if isinstance(error, ContentRefused):
            self._blocked += count + self._left
            self._stopped = True


class Bill:
    """What a request for pictures costs its client key: those that it was given.

    ``close`` it in every case; what was not settled is given back.
    """

    def __init__(self, limiter: KeyLimiter, ticket: Ticket) -> None:
        self._limiter = limiter
        self._ticket = ticket
        self._settled = False

    @classmethod
    async def open(cls, limiter: KeyLimiter, key: KeyRecord, pictures: int) -> Bill:
        """Reserve; raises LimitExceeded."""
        return cls(limiter, await limiter.reserve(key, Charge(image=pictures)))

    async def settle(self, pictures: int) -> None:
        if not self._settled:
            self._settled = True
            await self._limiter.settle(self._ticket, Charge(image=pictures))

    async def close(self) -> None:
        await self._limiter.release(self._ticket)

"""One round of pictures: a reservation, a credential, and the calls it takes.

What was not delivered is given back to the key, and upstream is closed and the lease
returned however the round ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Protocol

from gateway.catalog import Model
from gateway.conf.schema import Config
from gateway.exchange import End, Exchange
from gateway.relay.attempts import Attempts, Batches, Committed, RetryPolicy, Watcher
from gateway.relay.health import ProfileHealth
from gateway.relay.hosting import MediaSource
from gateway.relay.lanes import Policy, imagine_lanes
from gateway.relay.recording import Observer, Recording
from gateway.upstream.errors import (
    ContentRefused,
    ImagesIncomplete,
    PostprocessingFailed,
)
from gateway.upstream.events import Event, Finished, ImageReady
from gateway.upstream.requests import Account, ImageRequest
from gateway.upstream.web.media.client import WebMedia
from gateway.upstream.xai.media import XaiMedia
from gateway.wire.errors import ApiError
from pool.keys import KeyRecord
from pool.leases import Lane, Lease, Pool, Want
from pool.limits.charges import Charge
from pool.limits.limiter import KeyLimiter, LimitExceeded, Ticket
from pool.waiting import WaitingRoom

logger = logging.getLogger(__name__)
OPERATION = "imagine"
ROUND = 6
"""Pictures of one round."""
PER_CALL = 4


class PictureKeeper(Protocol):
    """Where pictures are kept; raises PostprocessingFailed only."""

    async def encoded(self, ready: ImageReady, source: MediaSource) -> str: ...

    async def keep_image(self, ready: ImageReady, source: MediaSource) -> object: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What to draw and for whom; ``key`` is its present record, or raises KeyRefused."""

    prompt: str
    ratio: str
    key: Callable[[], KeyRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagineRelay:
    """What the rounds of a worker share.

    ``clock`` gives seconds from any start, ``now`` Unix time in seconds; ``translate`` says
    what a client is told of an error. Without ``keeper`` nothing is kept, and a picture that
    comes as an address only is lost.
    """

    pool: Pool
    room: WaitingRoom
    web: WebMedia
    xai: XaiMedia
    config: Callable[[], Config]
    model: Callable[[KeyRecord], Model]
    health: ProfileHealth
    watcher: Watcher
    limiter: KeyLimiter
    observer: Observer
    translate: Callable[[Exception], ApiError]
    keeper: PictureKeeper | None = None
    random: Random = field(default_factory=Random)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time

    def record(self, key: KeyRecord, model: Model) -> Recording:
        """Begin to record a round; close it in every case."""
        exchange = Exchange(
            id=uuid.uuid4().hex,
            operation=OPERATION,
            started_at=self.now(),
            key_id=key.id,
            key_name=key.name,
            model=model.id,
            streaming=True,
        )
        return Recording(exchange, clock=self.clock, limiter=self.limiter, observer=self.observer)


class ImagineRound:
    """``cut_short`` says how the record ends if somebody else ends the round."""

    def __init__(
        self,
        relay: ImagineRelay,
        order: Order,
        key: KeyRecord,
        model: Model,
        cut_short: Callable[[], End],
    ) -> None:
        self._relay = relay
        self._order = order
        self._key = key
        self._model = model
        self._cut_short = cut_short
        self._config = relay.config()
        self._ticket: Ticket | None = None
        self._delivered = 0
        self.lanes = round_lanes(model, self._config.pool.policy)

    async def pictures(self) -> AsyncGenerator[str, None]:
        """Base64 of up to six pictures, each once it is complete; taken is delivered.

        Raises LimitExceeded, NoCredential or UpstreamError, the latter also when some
        pictures were delivered before.
        """
        recording = self._relay.record(self._key, self._model)
        try:
            self._ticket = await self._reserve()
            committed = await self._commit(recording)
            async with aclosing(self._delivery(committed, recording)) as pictures:
                async for picture in pictures:
                    yield picture
                    self._delivered += 1
            if not self._delivered:
                raise ImagesIncomplete(row=14, evidence="no picture could be handed out")
            recording.ends(End.COMPLETED, 200)
        except BaseException as error:
            self._note(recording, error)
            raise
        finally:
            try:
                await self._give_back()
            finally:
                await recording.close()

    async def _reserve(self) -> Ticket:
        """As many pictures as the key may still have; raises LimitExceeded if it is none."""
        for count in range(ROUND, 1, -1):
            try:
                return await self._relay.limiter.reserve(self._key, Charge(image=count))
            except LimitExceeded as error:
                if error.bucket != "image":
                    raise
        return await self._relay.limiter.reserve(self._key, Charge(image=1))

    async def _give_back(self) -> None:
        ticket, limiter = self._ticket, self._relay.limiter
        if ticket is None:
            return
        try:
            if self._delivered:
                await limiter.settle(ticket, Charge(image=self._delivered))
        finally:
            await limiter.release(ticket)

    async def _commit(self, recording: Recording) -> Committed:
        relay, config = self._relay, self._config
        policy = RetryPolicy(config.grok.max_retry, frozenset(config.grok.retry_status_codes))
        call = partial(self._draw, self._request())
        attempts = Attempts(relay.pool, relay.room, call, policy, recording, relay.watcher)
        committed = await attempts.commit(Want(self.lanes, self._model.id))
        if committed.lease.lane.kind != "api":
            relay.health.succeeded()
        recording.streams()
        return committed

    def _request(self) -> ImageRequest:
        return ImageRequest(
            self._order.prompt,
            self._ticket.charge.image if self._ticket else ROUND,
            self._order.ratio,
            nsfw=self._config.grok.nsfw_enabled,
            inline=True,
        )

    def _draw(self, request: ImageRequest, lease: Lease, account: Account) -> Batches:
        if lease.lane.kind == "api":
            return self._relay.xai.images(request, lease.lane.bucket, account)
        counts = calls_for(request.count, self._config)
        return _over_socket(self._relay.web, request, counts, account)

    async def _delivery(
        self, committed: Committed, recording: Recording
    ) -> AsyncGenerator[str, None]:
        source = MediaSource.of(committed.lease)
        try:
            async for batch in committed.batches():
                finished = [event for event in batch if isinstance(event, ImageReady)]
                for ready in finished:
                    if data := ready.data or await self._fetched(ready, source):
                        recording.exchange.bytes_out += len(data)
                        yield data
                await self._keep(finished, source)
        finally:
            await committed.aclose()

    async def _fetched(self, ready: ImageReady, source: MediaSource) -> str:
        """The picture behind an address; "" when it cannot be had, which is said in the log."""
        if self._relay.keeper is None:
            logger.warning("a picture came as an address, and nothing here could fetch it")
            return ""
        try:
            return await self._relay.keeper.encoded(ready, source)
        except PostprocessingFailed as error:
            logger.warning("a picture could not be fetched: %s", error.evidence)
            return ""

    async def _keep(self, finished: list[ImageReady], source: MediaSource) -> None:
        """Put what was delivered into the cache; those without data are there already."""
        keeper = self._relay.keeper
        if keeper is None or not self._config.cache.keep_base64_cache:
            return
        for ready in finished:
            if ready.data:
                try:
                    await keeper.keep_image(ready, source)
                except PostprocessingFailed as error:
                    logger.warning("a picture was not kept: %s", error.evidence)

    def _note(self, recording: Recording, error: BaseException) -> None:
        """How the round ended, for its record."""
        if not isinstance(error, Exception):
            end = self._cut_short()
            recording.ends(end, 503 if end is End.STOPPED else 499)
            return
        told = self._relay.translate(error)
        end = End.FAILED if recording.exchange.attempts else End.REFUSED
        if recording.exchange.first_event is not None:
            end = End.BROKEN
        recording.ends(end, told.status, told.code)


def round_lanes(model: Model, policy: Policy) -> tuple[Lane, ...]:
    """Where the operator's policy lets a round be drawn.

    A round costs its credential one unit: what is left of its quota is asked after use.
    """
    web = imagine_lanes(model, policy)
    api = () if policy == "web_only" or not model.xai else (Lane("api", model.xai),)
    return api + web if policy == "api_first" else web + api


def calls_for(count: int, config: Config) -> tuple[int, ...]:
    """How many pictures each call on the socket is asked for.

    The older dialect is told no number and makes a whole round, so one call has to do.
    """
    if config.grok.media_protocol == "legacy":
        return (count,)
    return tuple(min(PER_CALL, count - done) for done in range(0, count, PER_CALL))


async def _over_socket(
    web: WebMedia, request: ImageRequest, counts: tuple[int, ...], account: Account
) -> Batches:
    """All calls on one socket; only the first may fail for what is in the pictures."""
    finished = Finished("stop")
    async with web.imagine_session(account) as session:
        for number, count in enumerate(counts):
            batches = session.round(replace(request, count=count))
            try:
                async with aclosing(batches):
                    async for batch in batches:
                        if events := _without_end(batch, finished):
                            yield events
            except (ContentRefused, ImagesIncomplete) as error:
                if not number:
                    raise
                finished.blocked += count if isinstance(error, ContentRefused) else 0
                finished.failed += count if isinstance(error, ImagesIncomplete) else 0
                break
    yield [finished]


def _without_end(batch: list[Event], total: Finished) -> list[Event]:
    """``batch`` without its Finished, whose counts go into ``total``."""
    for event in batch:
        if isinstance(event, Finished):
            total.blocked += event.blocked
            total.failed += event.failed
    return [event for event in batch if not isinstance(event, Finished)]

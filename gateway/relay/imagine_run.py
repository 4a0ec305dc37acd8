"""Pictures of one prompt without end: round after round, until somebody stops it.

Each round has a credential, a reservation of its key and a record of its own. A picture is
given out as soon as it is complete, and the next is not read before that one was taken.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from gateway.catalog import Catalog, Model
from gateway.exchange import End
from gateway.relay.imagine_round import ImagineRelay, ImagineRound, Order, PictureKeeper
from gateway.upstream.errors import (
    ContentRefused,
    QuotaExhausted,
    RequestRejected,
    UpstreamError,
    UpstreamIncomplete,
)
from gateway.wire.errors import ApiError
from gateway.wire.images import GENERATION_MODEL
from pool.errors import NoCredential
from pool.keys import KeyRecord, KeyRefused
from pool.limits.limiter import LimitExceeded

if TYPE_CHECKING:
    from gateway.relay.runtime import Runtime

NOTHING_FREE = 2.0
"""Seconds until the next try when no credential or no place is free."""
LONGEST_LIMIT = 60.0
FIRST_PAUSE = 1.5
LONGEST_PAUSE = 30.0
JITTER = 0.2
"""The part by which a pause may be longer, so that many runs do not return together."""


class ModelUnavailable(Exception):
    """The picture model is not here, or not for this key."""


@dataclass(slots=True)
class Picture:
    """``data`` is bare base64, ``created_at`` Unix time and ``elapsed`` the time since its
    round began, both in milliseconds; ``sequence`` counts from 1."""

    data: str = field(repr=False)
    sequence: int
    created_at: int
    elapsed: int


@dataclass(slots=True)
class Trouble:
    """A round has failed; ``last``: so has the run, and nothing follows."""

    error: Exception
    last: bool


class ImagineRun:
    """``cut_short`` is how the record of a round ends that somebody else ends early."""

    def __init__(self, relay: ImagineRelay, order: Order) -> None:
        self._relay = relay
        self._order = order
        self._sequence = 0
        self._failures = 0
        self._unserved = False
        self.cut_short = End.CLIENT_GONE

    async def happenings(self) -> AsyncGenerator[Picture | Trouble, None]:
        """Pictures and troubles; closing it ends the round, its upstream and its lease."""
        while True:
            before = self._sequence
            try:
                async with aclosing(self._round()) as pictures:
                    async for picture in pictures:
                        yield picture
                self._failures, self._unserved = 0, False
                continue
            except (
                UpstreamError,
                NoCredential,
                LimitExceeded,
                KeyRefused,
                ModelUnavailable,
            ) as error:
                trouble = Trouble(error, _is_last(error))
            yield trouble
            if trouble.last:
                return
            self._failures = 1 if self._sequence > before else self._failures + 1
            self._unserved = isinstance(trouble.error, NoCredential)
            await self._relay.sleep(self._pause(trouble.error))

    async def _round(self) -> AsyncGenerator[Picture, None]:
        relay, key = self._relay, self._order.key()
        began = relay.clock()
        one = ImagineRound(relay, self._order, key, relay.model(key), lambda: self.cut_short)
        if self._unserved and not relay.pool.usable_now(one.lanes):
            # Said, counted and recorded already; a record every two seconds helps nobody.
            raise NoCredential("No credential can draw pictures now.")
        async with aclosing(one.pictures()) as pictures:
            async for data in pictures:
                self._sequence += 1
                elapsed = relay.clock() - began
                yield Picture(data, self._sequence, int(relay.now() * 1000), int(elapsed * 1000))

    def _pause(self, error: Exception) -> float:
        """Seconds to wait after ``error``."""
        spread = 1 + JITTER * self._relay.random.random()
        if isinstance(error, LimitExceeded):
            return max(NOTHING_FREE, min(error.retry_after, LONGEST_LIMIT)) * spread
        if isinstance(error, NoCredential | QuotaExhausted):
            return NOTHING_FREE * spread
        failures = self._failures
        if isinstance(error, UpstreamIncomplete):
            failures -= 1  # Once, an empty round may be followed by the next at once.
        pause = FIRST_PAUSE * 2 ** min(failures - 1, 10) if failures else 0.0
        return min(pause, LONGEST_PAUSE) * spread


def _is_last(error: Exception) -> bool:
    """Whether another round would only meet the same: a refusal of this very content, a day
    that is used up, a key or a model that is gone."""
    if isinstance(error, LimitExceeded):
        return error.bucket == "image"
    return isinstance(error, ContentRefused | RequestRejected | KeyRefused | ModelUnavailable)


def _model_for(catalog: Catalog, key: KeyRecord) -> Model:
    """Raises ModelUnavailable."""
    model = catalog.find(GENERATION_MODEL)
    if model is None:
        raise ModelUnavailable("There is no picture model.")
    if key.allowed_models is not None and GENERATION_MODEL not in key.allowed_models:
        raise ModelUnavailable("This key may not use the picture model.")
    return model


def imagine_relay(
    gateway: Runtime,
    translate: Callable[[Exception], ApiError],
    keeper: PictureKeeper | None = None,
) -> ImagineRelay:
    """The relay over what a worker owns."""
    return ImagineRelay(
        pool=gateway.pool,
        room=gateway.room,
        web=gateway.web,
        xai=gateway.xai,
        config=gateway.config,
        model=partial(_model_for, gateway.catalog),
        health=gateway.health,
        watcher=gateway.chat.watcher,
        limiter=gateway.limiter,
        observer=gateway.observers,
        translate=translate,
        keeper=keeper,
        random=Random(),  # noqa: S311 - spreads load, guards nothing
    )

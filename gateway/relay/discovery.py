"""Learning which models api.x.ai serves to the operator's keys, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.catalog import Catalog
from gateway.relay.verdicts import Blame
from gateway.upstream.errors import UpstreamError
from gateway.upstream.requests import Account
from gateway.upstream.xai.client import XaiUpstream
from pool.errors import NoCredential
from pool.leases import Lane, Want
from pool.outcomes import NEUTRAL
from pool.selection import MemoryPool

logger = logging.getLogger(__name__)

EVERY = 3600.0
AGAIN_AFTER_FAILURE = 60.0
CHECK_FOR_KEYS = 2.0
LANE = Lane("api", "models", 0)


class Discovery:
    """Asks ``/v1/models`` with one key when there is one, then every hour.

    Models are forgotten within seconds when the last key goes. ``sleep`` takes seconds.
    """

    def __init__(
        self,
        pool: MemoryPool,
        xai: XaiUpstream,
        catalog: Catalog,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pool = pool
        self._xai = xai
        self._catalog = catalog
        self._sleep = sleep

    async def run_forever(self) -> None:
        due = 0.0
        while True:
            if not self._pool.serves((LANE,)):
                self._catalog.set_discovered(())
                due = 0.0
            elif due <= 0:
                due = EVERY if await self.ask() else AGAIN_AFTER_FAILURE
            await self._sleep(CHECK_FOR_KEYS)
            due -= CHECK_FOR_KEYS

    async def ask(self) -> bool:
        """One look; what was known stays when it fails. True when it succeeded."""
        try:
            lease = await self._pool.lease(Want((LANE,), "models"))
        except NoCredential:
            return False
        outcome = NEUTRAL
        try:
            models = await self._xai.models(Account(lease.secret))
        except UpstreamError as error:
            outcome = Blame().outcome_of(error)
            logger.warning("cannot list the models of api.x.ai: %s", type(error).__name__)
            return False
        else:
            self._catalog.set_discovered(
                name for model in models for name in (model.id, *model.aliases)
            )
            return True
        finally:
            await self._pool.settle(lease, outcome)
            await self._pool.release(lease)

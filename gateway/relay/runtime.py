"""The running gateway of one worker: everything it owns, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from functools import lru_cache
from random import Random
from typing import Any

from gateway import conf
from gateway.catalog import Catalog
from gateway.conf.schema import Config
from gateway.relay.chat import ChatRelay
from gateway.relay.discovery import Discovery
from gateway.relay.health import ProfileHealth
from gateway.relay.settings import pool_policy, web_settings, xai_settings
from gateway.relay.transports import Transports
from gateway.upstream.attachments import AttachmentLoader
from gateway.upstream.fetch import GuardedFetcher
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.xai.client import XaiUpstream
from pool.crypto import unseal
from pool.keys import KeyDirectory
from pool.selection import MemoryPool
from pool.upkeep import Upkeep

logger = logging.getLogger(__name__)


class Runtime:
    """Built inside the running loop; ``start`` before use, ``stop`` in the end.

    ``ready`` is true once credentials and keys are loaded and until draining begins.
    """

    def __init__(self) -> None:
        self.config: Callable[[], Config] = conf.current
        self.catalog = Catalog()
        self.keys = KeyDirectory(global_key=lambda: conf.current().app.api_key)
        self.upkeep = Upkeep(save_delay=lambda: conf.current().token.save_delay_ms / 1000)
        self.pool = MemoryPool(
            policy=pool_policy(conf.current),
            now=time.time,
            random=Random(),  # noqa: S311 - spreads load, guards nothing
            # Opening a secret costs tens of microseconds; a few thousand stay open.
            unseal=lru_cache(maxsize=4096)(unseal),
            changed=self.upkeep.note,
        )
        self.transports = Transports(conf.current)
        self.web = WebUpstream(
            self.transports.web,
            web_settings(conf.current),
            now_ms=lambda: time.time_ns() // 1_000_000,
            new_uuid=lambda: str(uuid.uuid4()),
        )
        self.xai = XaiUpstream(self.transports.xai, xai_settings(conf.current))
        self.health = ProfileHealth(time.time)
        fetcher = GuardedFetcher(allow_private=lambda: conf.current().grok.allow_private_fetch)
        self.chat = ChatRelay(
            pool=self.pool,
            web=self.web,
            xai=self.xai,
            config=conf.current,
            new_loader=lambda: AttachmentLoader(fetcher),
            new_id=lambda: uuid.uuid4().hex,
            health=self.health,
        )
        self.discovery = Discovery(self.pool, self.xai, self.catalog)
        self.ready = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the record, then begin the background work."""
        await self.upkeep.load(self.pool, self.keys)
        self.catalog.set_aliases(self.config().models.aliases)
        conf.live.subscribe(self._config_changed)
        self._own(self.upkeep.write_forever(), "pool writer")
        self._own(self.upkeep.follow_forever(self.pool, self.keys), "pool follower")
        self._own(conf.live.watch(), "configuration watch")
        self._own(self.discovery.run_forever(), "model discovery")
        self.ready = True

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report_death)
        self._tasks.append(task)

    def _config_changed(self, old: Config, new: Config) -> None:
        self.catalog.set_aliases(new.models.aliases)
        self.transports.config_changed(old, new)

    async def stop(self) -> None:
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.transports.aclose()
        await self.upkeep.close()


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("background task %s died", task.get_name(), exc_info=error)


class _Current:
    runtime: Runtime | None = None


def install(runtime: Runtime | None) -> None:
    """Make ``runtime`` the one that requests of this process use; None takes it away."""
    _Current.runtime = runtime


def current() -> Runtime:
    """Raises RuntimeError before the server has started it."""
    if _Current.runtime is None:
        raise RuntimeError("the gateway is not running")
    return _Current.runtime


def begin_drain() -> None:
    """Readiness ends; what runs goes on."""
    if _Current.runtime is not None:
        _Current.runtime.ready = False


def is_ready() -> bool:
    return _Current.runtime is not None and _Current.runtime.ready

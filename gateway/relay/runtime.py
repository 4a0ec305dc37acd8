"""The running gateway of one worker: everything it owns, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest

from gateway import conf
from gateway.catalog import Catalog
from gateway.conf.schema import Config
from gateway.exchange import Exchange
from gateway.ledger.retention import prune_forever
from gateway.ledger.writer import LedgerWriter
from gateway.media.housekeeping import Housekeeping
from gateway.media.links import LinkPolicy, MediaLinks
from gateway.media.store import MediaStore
from gateway.relay.aftermath import Aftermath
from gateway.relay.backends import Backends
from gateway.relay.chat import ChatRelay, web_form
from gateway.relay.deployment import Deployment
from gateway.relay.discovery import Discovery
from gateway.relay.health import ProfileHealth
from gateway.relay.hosting import Hosting
from gateway.relay.image_chat import ImageChat
from gateway.relay.images import ImageRelay
from gateway.relay.observing import Observers
from gateway.relay.quota_queries import QuotaQueries
from gateway.relay.quota_sync import QuotaSync
from gateway.relay.recording import Recording
from gateway.relay.settings import patience, web_settings, xai_settings
from gateway.relay.transports import Transports
from gateway.relay.video_chat import VideoChat
from gateway.relay.video_jobs import Means, VideoJobs
from gateway.relay.videos import VideoMaker
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readings import Readings
from gateway.telemetry.slots import join as join_slots
from gateway.telemetry.tracing import open_tracing
from gateway.upstream.attachments import AttachmentLoader
from gateway.upstream.fetch import GuardedFetcher
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.xai.client import XaiUpstream
from gateway.videos.jobs import Job
from gateway.videos.table import JobTable
from pool.census import Census
from pool.crypto import keyed_hash
from pool.keys import KeyDirectory, KeyRecord
from pool.leadership import Leader
from pool.limits.upkeep import UsageWriter
from pool.upkeep import Upkeep
from pool.waiting import WaitingRoom

logger = logging.getLogger(__name__)


class Runtime:
    """Built inside the running loop; ``start`` before use, ``stop`` in the end.

    ``ready`` is true once credentials and keys are loaded and until draining begins.
    """

    def __init__(self, deployment: Deployment | None = None) -> None:
        self.deployment = deployment = deployment or Deployment()
        self.config: Callable[[], Config] = conf.current
        self._ids = Random(secrets.randbits(128))  # noqa: S311
        self.catalog = Catalog()
        self.keys = KeyDirectory(global_key=lambda: conf.current().app.api_key)
        self.upkeep = Upkeep(
            save_delay=_save_delay,
            reload_interval=lambda: float(conf.current().token.reload_interval_sec),
        )
        backends = Backends(deployment, self.upkeep.note, self._suspect)
        self.pool, self.affinity = backends.pool, backends.affinity
        self.limiter, self.membership = backends.limiter, backends.membership
        self.key_usage = UsageWriter(backends.book, backends.days, save_delay=_save_delay)
        self.room = WaitingRoom(self.pool, patience(conf.current))
        self.pool.freed = self.room.freed
        self.leader = Leader(deployment.worker)
        self.census = Census(lambda: self.pool.entries, time.time)
        self.ledger = LedgerWriter(delay=_save_delay, cap=lambda: conf.current().ledger.max_queue)
        self.tracing = open_tracing(deployment.version)
        self._build_upstreams()
        self.metrics = Metrics(deployment.version, self._readings(), join_slots())
        self.observers = Observers(self.metrics, self.ledger, self.tracing)
        self.ready = False
        self._tasks: list[asyncio.Task[None]] = []

    def _build_upstreams(self) -> None:
        self.transports = Transports(conf.current)
        self.web = WebUpstream(
            self.transports.web,
            web_settings(conf.current),
            now_ms=lambda: time.time_ns() // 1_000_000,
            new_uuid=lambda: str(uuid.uuid4()),
            asset_http=self.transports.assets,
        )
        self.xai = XaiUpstream(self.transports.xai, xai_settings(conf.current))
        self.health = ProfileHealth(time.time)
        fetcher = GuardedFetcher(allow_private=lambda: conf.current().grok.allow_private_fetch)
        self.quota_sync = self._build_quota_sync()
        self._build_media()
        self.chat = ChatRelay(
            pool=self.pool,
            room=self.room,
            web=self.web,
            xai=self.xai,
            config=conf.current,
            new_loader=lambda: AttachmentLoader(fetcher),
            new_id=self._new_id,
            health=self.health,
            watcher=Aftermath(self.health, self.quota_sync),
            hosting=self.hosting,
        )
        self._build_images()
        self._build_videos()
        self.discovery = Discovery(self.pool, self.xai, self.catalog)

    def _build_media(self) -> None:
        folder = Path(django_settings.DATA_DIR) / "tmp"
        self.media = MediaStore(folder)
        self.media_links = MediaLinks(keyed_hash("media-links", "").encode(), _link_policy)
        self.housekeeping = Housekeeping(
            folder,
            limit_bytes=lambda: conf.current().cache.limit_mb * 1_000_000,
            auto_clean=lambda: conf.current().cache.enable_auto_clean,
        )
        self.hosting = Hosting(
            self.media,
            self.media_links,
            self.web,
            self.xai,
            keep_inline=lambda: conf.current().cache.keep_base64_cache,
        )

    def _build_images(self) -> None:
        chat = self.chat
        self.images = ImageRelay(
            pool=self.pool,
            room=self.room,
            web=self.web,
            xai=self.xai,
            config=conf.current,
            web_settings=web_settings(conf.current),
            health=self.health,
            watcher=chat.watcher,
            hosting=self.hosting,
        )
        self.image_chat = ImageChat(self.images, conf.current, chat.new_loader)

    def _build_videos(self) -> None:
        chat = self.chat
        self.videos = VideoMaker(
            self.web,
            self.xai,
            self.hosting,
            conf.current,
            web_settings(conf.current),
            self.pool.serves,
        )
        self.video_chat = VideoChat(
            self.pool, self.room, self.videos, chat.new_loader, self.health, chat.watcher
        )
        means = Means(
            pool=self.pool,
            room=self.room,
            maker=self.videos,
            catalog=self.catalog,
            limiter=self.limiter,
            watcher=chat.watcher,
            record=self._record_job,
            limit=lambda: conf.current().performance.media_max_concurrent,
            leads=lambda: self.leader.is_leader,
        )
        table = JobTable(self.deployment.worker)
        self.video_jobs = VideoJobs(table, means, clock=time.monotonic)

    def _record_job(self, job: Job) -> Recording:
        exchange = Exchange(
            id=uuid.uuid4().hex,
            operation="video_job",
            started_at=time.time(),
            key_id=job.key_id,
            key_name=job.key_name,
            model=job.model,
        )
        return self._recording(exchange)

    def _build_quota_sync(self) -> QuotaSync:
        queries = QuotaQueries(
            self.pool,
            self.web,
            self.xai,
            form=lambda: web_form(conf.current()),
            known=self.pool.buckets_of,
            now=time.time,
        )
        return QuotaSync(
            self.pool,
            queries,
            config=conf.current,
            leads=lambda: self.leader.is_leader,
            random=Random(),  # noqa: S311 - spreads load, guards nothing
        )

    def _new_id(self) -> str:
        """32 hex digits that nobody else has: milliseconds, then chance.

        Not a secret, so it needs no system call; in the order of time, so that an index of
        them grows at its end.
        """
        return f"{time.time_ns() // 1_000_000:012x}{self._ids.getrandbits(80):020x}"

    def _suspect(self, credential_id: int) -> None:
        self.quota_sync.check(credential_id)

    def _readings(self) -> Readings:
        membership = self.membership
        return Readings(
            credentials=lambda: self.census.counts,
            queues={
                "credential_changes": lambda: self.upkeep.backlog,
                "request_records": lambda: self.ledger.queued,
                "shared_operations": lambda: 0 if membership is None else membership.queued,
                "key_usage": lambda: self.key_usage.book.backlog,
                "waiting_requests": lambda: self.room.waiting,
                "quota_queries": lambda: self.quota_sync.queued,
            },
            dropped={
                "request_records": lambda: self.ledger.dropped,
                "refused_records": lambda: self.ledger.refused,
                "waiting_requests": lambda: self.room.turned_away,
                "limited_keys": lambda: self.limiter.turned_away,
                "quota_queries": lambda: self.quota_sync.dropped,
            },
            incident_open=lambda: bool(self.pool.incidents.open(time.time())),
            leader=lambda: self.leader.is_leader,
            redis_up=None if membership is None else lambda: membership.available,
        )

    def record(self, operation: str, request: HttpRequest) -> Recording:
        """Begin to record a request of an authenticated client; close it in every case."""
        key: KeyRecord = request.auth  # type: ignore[attr-defined]
        request.recorded = True  # type: ignore[attr-defined]
        exchange = Exchange(
            id=self._new_id(),
            operation=operation,
            started_at=time.time(),
            key_id=key.id,
            key_name=key.name,
            bytes_in=len(request.body),
            traceparent=request.META.get("HTTP_TRACEPARENT", ""),
        )
        return self._recording(exchange)

    def _recording(self, exchange: Exchange) -> Recording:
        return Recording(
            exchange, clock=time.monotonic, limiter=self.limiter, observer=self.observers
        )

    async def load(self) -> None:
        """Read the record; may be repeated after django.db.Error."""
        await self.key_usage.load()
        await self.upkeep.load(self.pool, self.keys)

    async def start(self) -> None:
        """Begin the background work, once the record is loaded."""
        self.catalog.set_aliases(self.config().models.aliases)
        conf.live.subscribe(self._config_changed)
        if self.membership is not None:
            await self.membership.start()
        self._own(self.upkeep.write_forever(), "pool writer")
        self._own(self.upkeep.follow_forever(self.pool, self.keys), "pool follower")
        self._own(self.key_usage.write_forever(), "key usage writer")
        self._own(self.key_usage.follow_forever(), "key usage follower")
        self._own(conf.live.watch(), "configuration watch")
        self._own(self.discovery.run_forever(), "model discovery")
        self._own(self.leader.run_forever(), "leadership")
        self._own(self.quota_sync.run_forever(), "quota sync")
        self._own(self.ledger.write_forever(), "ledger writer")
        self._own(self.video_jobs.run_forever(), "video jobs")
        self._own(self._prune_forever(), "ledger pruning")
        # Each host has a disk of its own, so this is not the leader's; a lock keeps the
        # workers of one host from cleaning the same folder.
        self._own(self.housekeeping.clean_forever(lambda: True), "media cleaning")
        self._own(self.census.run_forever(), "census")
        self._own(self.metrics.sampler.run_forever(), "metrics sampler")
        self._own(self.metrics.lag.measure_forever(), "loop lag")
        self.ready = True

    async def _prune_forever(self) -> None:
        await prune_forever(
            self.ledger.run,
            lambda: self.leader.is_leader,
            lambda: conf.current().ledger.retention_days,
        )

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(_task(work, name))

    def _config_changed(self, old: Config, new: Config) -> None:
        self.catalog.set_aliases(new.models.aliases)
        self.transports.config_changed(old, new)

    async def stop(self) -> None:
        """End the work, then write and tell what is left of it."""
        self.ready = False
        await _end(self._tasks)
        await self.video_jobs.close()
        await self.media.aclose()
        self.housekeeping.close()
        await self.transports.aclose()
        await self.leader.resign()
        if self.membership is not None:
            await self.membership.stop()
        await self.upkeep.close()
        await self.key_usage.close()
        await asyncio.gather(self.ledger.close(), self.tracing.aclose())

    def abandon(self) -> None:
        """Let go without writing, for an owner without a database."""
        self.upkeep.abandon()
        self.key_usage.abandon()
        self.ledger.abandon()
        self.video_jobs.abandon()
        self.media.close()
        self.housekeeping.close()


def _link_policy() -> LinkPolicy:
    app = conf.current().app
    return LinkPolicy(app.app_url, app.sign_media_urls, app.media_url_hours * 3600)


def _save_delay() -> float:
    return conf.current().token.save_delay_ms / 1000


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report_death)
    return task


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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


def is_running() -> bool:
    return _Current.runtime is not None


def begin_drain() -> None:
    """Readiness ends; what runs goes on, but nothing is asked of upstream for its own sake."""
    if _Current.runtime is not None:
        _Current.runtime.ready = False
        _Current.runtime.quota_sync.drain()
        _Current.runtime.video_jobs.drain()


def is_ready() -> bool:
    return _Current.runtime is not None and _Current.runtime.ready

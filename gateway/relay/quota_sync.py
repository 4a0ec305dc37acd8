"""Keeping the pool's numbers close to upstream's: after use, at suspicion, and regularly."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from itertools import count
from random import Random

from gateway.conf.schema import Config
from gateway.relay.query_pauses import QueryPauses
from gateway.relay.quota_queries import Answer, Finding, QuotaQueries
from gateway.upstream.errors import QuotaExhausted
from pool.leases import Lease, Pool

logger = logging.getLogger(__name__)
AFTER_USE = (10.0, 30.0)
"""Seconds between the first use and the question; further uses until then cost none."""
AT_SUSPICION = (0.0, 1.0)
MAX_QUEUED = 10_000
TICK = 0.25
"""How often the queue is looked at while something waits in it."""
LOOK = 1.0
"""How often leadership and the interval are looked at."""
SPREAD = 600.0
"""Seconds over which a regular refresh of many credentials is spread; of few, less."""
LONGEST_STEP = 1.0
STRETCH = (0.9, 1.1)
HOUR = 3600.0


class QuotaSync:
    """Belongs to one worker and one event loop; all its tasks end with ``run_forever``.

    ``leads`` says whether the regular refresh is this worker's. ``clock`` gives seconds from
    any start, ``sleep`` takes them. At most MAX_QUEUED credentials wait; when there are more,
    the one whose turn was next is dropped: its numbers stay the local estimate.
    """

    def __init__(
        self,
        pool: Pool,
        queries: QuotaQueries,
        *,
        config: Callable[[], Config],
        leads: Callable[[], bool],
        random: Random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._pool = pool
        self._queries = queries
        self._config = config
        self._leads = leads
        self._random = random
        self._clock = clock
        self._sleep = sleep
        self._max_queued = max_queued
        self._wanted: dict[int, set[str]] = {}
        self._turns: list[tuple[float, int, int]] = []
        self._order = count()
        self._something = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._described: set[int] = set()
        self._pauses = QueryPauses()
        self._draining = False
        self.dropped = 0
        self.failed = 0

    @property
    def queued(self) -> int:
        """Credentials that wait for their turn."""
        return len(self._wanted)

    @property
    def running(self) -> int:
        """Credentials that are being asked about now."""
        return len(self._running)

    def after_use(self, lease: Lease) -> None:
        """Ask, in a while, what the use has left; of an API key, once, whose team it is."""
        if lease.lane.kind != "api":
            self._want(lease.credential_id, (lease.lane.bucket,), AFTER_USE)
        elif not lease.team_id and lease.credential_id not in self._described:
            self._want(lease.credential_id, (), AFTER_USE)

    def check(self, credential_id: int) -> None:
        """Ask soon whether the credential is alive."""
        self._want(credential_id, self._queries.cheapest(), AT_SUSPICION)

    def drain(self) -> None:
        """Ask nothing more, from now on and for good."""
        self._draining = True
        self._wanted.clear()
        self._turns.clear()
        for task in self._running.values():
            task.cancel()

    async def run_forever(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve_queue(), name="quota queries")
                group.create_task(self._refresh_regularly(), name="quota refresh")
        finally:
            self.drain()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _want(
        self, credential_id: int, buckets: Collection[str], delay: tuple[float, float]
    ) -> None:
        if self._draining:
            return
        if (waiting := self._wanted.get(credential_id)) is not None:
            waiting.update(buckets)
            return
        if len(self._wanted) >= self._max_queued:
            self._take_turn()
            self.dropped += 1
        now = self._clock()
        begin = max(now, self._pauses.quiet_until(credential_id))
        self._put(credential_id, set(buckets), begin + self._random.uniform(*delay))

    def _put(self, credential_id: int, buckets: set[str], due: float) -> None:
        self._wanted[credential_id] = buckets
        heapq.heappush(self._turns, (due, next(self._order), credential_id))
        self._something.set()

    def _take_turn(self) -> tuple[int, set[str]]:
        _, _, credential_id = heapq.heappop(self._turns)
        return credential_id, self._wanted.pop(credential_id)

    async def _serve_queue(self) -> None:
        while True:
            await self._something.wait()
            self._start_due()
            await self._sleep(TICK)
            if not self._turns:
                self._something.clear()

    def _start_due(self) -> None:
        now = self._clock()
        while self._turns and self._turns[0][0] <= now and self._may_start(now):
            credential_id, buckets = self._take_turn()
            if credential_id in self._running:
                self._put(credential_id, buckets, now + LOOK)
                continue
            task = asyncio.create_task(self._ask(credential_id, buckets), name="quota query")
            self._running[credential_id] = task
            task.add_done_callback(partial(self._ended, credential_id))

    def _may_start(self, now: float) -> bool:
        limit = self._config().performance.usage_max_concurrent
        return len(self._running) < self._pauses.allowed(limit, now)

    def _ended(self, credential_id: int, task: asyncio.Task[None]) -> None:
        del self._running[credential_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a quota query died", exc_info=error)
        self._start_due()

    async def _ask(self, credential_id: int, buckets: Collection[str]) -> None:
        finding = await self._queries.look(credential_id, buckets)
        if finding is not None:
            self._heed(finding)
            await self._queries.take_over(finding)

    def _heed(self, finding: Finding) -> None:
        """Be quiet where upstream wants it; a whole row of failures stops all questions."""
        now = self._clock()
        credential_id = finding.subject.credential_id
        if finding.answer is Answer.FAILED:
            self.failed += 1
        if isinstance(finding.error, QuotaExhausted):
            self._pauses.keep_quiet(credential_id, finding.error.retry_after, now)
        if finding.is_trouble:
            self._pauses.failed(finding.error, now)
        else:
            self._pauses.succeeded()
            if finding.subject.kind == "api":
                self._described.add(credential_id)

    async def _refresh_regularly(self) -> None:
        """Begins when the worker becomes the leader, so that a fail-over leaves no gap."""
        begun: float | None = None
        stretch = 1.0
        while True:
            token = self._config().token
            interval = token.refresh_interval_hours * HOUR * stretch
            if not self._leads():
                begun = None
            elif token.auto_refresh and (begun is None or self._clock() >= begun + interval):
                begun = self._clock()
                stretch = self._random.uniform(*STRETCH)
                await self._refresh_cooling()
            await self._sleep(LOOK)

    async def _refresh_cooling(self) -> None:
        """Ask about each that rests; whoever has just served has precedence."""
        ids = self._pool.cooling()
        self._random.shuffle(ids)
        step = min(LONGEST_STEP, SPREAD / max(1, len(ids)))
        for credential_id in ids:
            await self._sleep(step * self._random.uniform(0.5, 1.5))
            while self._may_refresh() and self._is_busy():
                await self._sleep(LOOK)
            if not self._may_refresh():
                return
            self._want(credential_id, self._queries.buckets_of(credential_id), (0.0, 0.0))

    def _may_refresh(self) -> bool:
        return self._leads() and self._config().token.auto_refresh

    def _is_busy(self) -> bool:
        return self.queued >= 2 * self._config().performance.usage_max_concurrent

"""Video jobs of one worker: taken from the table, made, written back; through restarts.

A worker claims a job and keeps the claim alive. A job whose worker is gone is claimed by
another, which may only go on where upstream can be asked: with a request of api.x.ai, or for
a video of grok.com that is finished. What may have been submitted is never submitted again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from django.db import Error, close_old_connections, connections

from gateway.catalog import Catalog
from gateway.exchange import End
from gateway.media.errors import MediaError
from gateway.media.names import Kind
from gateway.media.store import Stored
from gateway.relay.attempts import Attempts, Committed, RetryPolicy, Watcher
from gateway.relay.hosting import MediaSource
from gateway.relay.recording import Recording
from gateway.relay.videos import Made, VideoCall, VideoMaker
from gateway.translate.videos import VideoOrder
from gateway.upstream.errors import UpstreamError, UpstreamIncomplete
from gateway.upstream.events import Event, VideoProgress, VideoReady
from gateway.upstream.requests import Account
from gateway.videos.jobs import Acceptance, Ending, Job, NewJob, Status
from gateway.videos.table import JobTable
from gateway.wire.errors import ApiError
from pool.errors import NoCredential
from pool.keys import KeyRecord
from pool.leases import Lane, Lease, Pool, Want
from pool.limits.charges import Charge
from pool.limits.limiter import KeyLimiter, Ticket
from pool.waiting import WaitingRoom

logger = logging.getLogger(__name__)
T = TypeVar("T")
TICK = 1.0
"""Seconds between two looks at the table; progress is written as often."""
PRUNED_EVERY = 600.0
PATIENCE = 600.0
"""Seconds that a job waits for a credential once it has its turn."""
LOOK_AGAIN = 5.0
MOST_WAITING = 10_000
"""Unfinished jobs of all keys together; further ones are refused."""
POSSIBLY_ACCEPTED = Ending(
    error_code="possibly_accepted",
    error_message="The service stopped while the video was being submitted. The upstream may be"
    " making it, so it was not submitted again.",
)
STREAM_LOST = Ending(
    error_code="upstream_stream_lost",
    error_message="The service stopped while the video was being made, and the upstream cannot"
    " be asked for it.",
)
BROKEN = Ending(error_code="internal_error", error_message="Something broke in here.")
CREDENTIAL_GONE = Ending(
    error_code="upstream_unavailable",
    error_message="The credential that the video was made with is no longer here.",
)


class QueueFull(ApiError):
    def __init__(self) -> None:
        text = "Too many video jobs are waiting."
        super().__init__(
            503, text, type_="server_error", code="queue_full", headers={"Retry-After": "30"}
        )


class ClaimLost(Exception):
    """Another worker has the job now, or nobody: nothing more is to be done or written."""


@dataclass(frozen=True, slots=True)
class Means:
    """What jobs are made with. ``record`` begins the record of a job's work, ``limit`` is how
    many run at once in this worker, ``leads`` whether this worker tidies up for all."""

    pool: Pool
    room: WaitingRoom
    maker: VideoMaker
    catalog: Catalog
    limiter: KeyLimiter
    watcher: Watcher
    record: Callable[[Job], Recording]
    limit: Callable[[], int]
    leads: Callable[[], bool]


class VideoJobs:
    """Owns one thread with a database connection, and a task for each running job.

    ``clock`` gives seconds from any start and ``sleep`` takes them.
    """

    def __init__(
        self,
        table: JobTable,
        means: Means,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._table = table
        self.means = means
        self._clock = clock
        self._sleep = sleep
        self._running: dict[int, asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[Any]] = set()
        self._percents: dict[int, int] = {}
        self._tickets: dict[int, Ticket] = {}
        self._wakeup = asyncio.Event()
        self._pruned_at = float("-inf")
        self._failing = False
        self._draining = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="video-jobs")

    @property
    def running(self) -> int:
        """How many jobs this worker is at."""
        return len(self._running)

    def expect(self, lanes: tuple[Lane, ...]) -> None:
        """Raises NoCredential where none may ever serve one of ``lanes``."""
        if not self.means.pool.serves(lanes):
            raise NoCredential("No credential can make this video.")

    async def create(self, new: NewJob, key: KeyRecord) -> Job:
        """Put a job into the queue at the cost of one video.

        Raises LimitExceeded, QueueFull or django.db.Error; nothing is charged then.
        """
        # A client that leaves meanwhile must not leave a charge without its job behind.
        return await asyncio.shield(self._see_to(self._add(new, key)))

    def _see_to(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """What is seen through whoever waits for it."""
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._seen_to)
        return task

    def _seen_to(self, task: asyncio.Task[Any]) -> None:
        self._errands.discard(task)
        if not task.cancelled():
            task.exception()  # Whoever waited has been told, or is gone.

    async def _add(self, new: NewJob, key: KeyRecord) -> Job:
        ticket: Ticket | None = None
        try:
            ticket = await self.means.limiter.reserve(key, Charge(video=1))
            if await self.ask(self._table.unfinished) >= MOST_WAITING:
                raise QueueFull
            job = await self.ask(partial(self._table.add, new))
        except BaseException:
            if ticket is not None:
                await self.means.limiter.release(ticket)
            await self._discard("image", new.input_name)
            raise
        self._tickets[job.id] = ticket
        self._wakeup.set()
        return job

    async def find(self, key_id: int, public_id: str) -> Job | None:
        return await self.ask(partial(self._table.find, key_id, public_id))

    async def page(
        self, key_id: int, after: str, limit: int, *, ascending: bool
    ) -> tuple[list[Job], bool]:
        """Raises UnknownCursor."""
        look = partial(self._table.page, key_id, after, limit, ascending=ascending)
        return await self.ask(look)

    async def remove(self, key_id: int, public_id: str) -> bool:
        """Forget a job and its files; False when there is none. Raises Busy."""
        job = await self.ask(partial(self._table.remove, key_id, public_id))
        if job is None:
            return False
        await self._discard("video", job.video_name)
        await self._discard("image", job.poster_name)
        await self._discard("image", job.input_name)
        return True

    async def _discard(self, kind: Kind, name: str) -> None:
        if name:
            store = self.means.maker.store
            with suppress(MediaError):  # Cleaning the cache gets it in the end.
                await store.run(partial(store.folders[kind].remove, name))

    async def ask(self, work: Callable[[], T]) -> T:
        """``work`` on the thread for jobs, with a usable connection."""

        def with_fresh_connection() -> T:
            close_old_connections()
            return work()

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, with_fresh_connection)

    async def run_forever(self) -> None:
        try:
            while True:
                await self._look_around()
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._wakeup.wait()
                self._wakeup.clear()
        finally:
            await self._stop()

    async def _look_around(self) -> None:
        try:
            await self.tick()
            self._failing = False
        except Error as error:
            if not self._failing:
                logger.warning("cannot look after video jobs: %s", type(error).__name__)
            self._failing = True

    async def tick(self) -> None:
        """One look at the table: what is new, what is orphaned, what has been decided.

        Raises django.db.Error.
        """
        await self._show_life()
        if not self._draining:
            await self._take(self._table.claim_orphans)
            await self._take(self._table.claim_waiting)
        await self._settle_tickets()
        if self.means.leads() and self._clock() - self._pruned_at >= PRUNED_EVERY:
            self._pruned_at = self._clock()
            await self.ask(self._table.prune)

    async def _show_life(self) -> None:
        percents, self._percents = self._percents, {}
        ids = list(self._running)
        if ids:
            await self.ask(lambda: self._table.beat(ids))
        if percents:
            await self.ask(lambda: self._table.write_progress(percents))

    async def _take(self, claim: Callable[[int], list[Job]]) -> None:
        room = self.means.limit() - len(self._running)
        if room > 0:
            for job in await self.ask(partial(claim, room)):
                self._begin(job)

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._work(job), name=f"video job {job.id}")
        self._running[job.id] = task
        task.add_done_callback(partial(self._ended, job.id))

    def _ended(self, job_id: int, task: asyncio.Task[None]) -> None:
        if self._running.get(job_id) is task:
            del self._running[job_id]
        self._percents.pop(job_id, None)
        self._wakeup.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("video job %d broke", job_id, exc_info=error)
            self._see_to(self._give_up(job_id))

    async def _give_up(self, job_id: int) -> None:
        """Rather than to begin again and again what breaks."""
        with suppress(ClaimLost):
            await self.write(partial(self._table.end, job_id, BROKEN))

    async def _settle_tickets(self) -> None:
        """Charge what upstream has taken, refund what came to nothing before."""
        if not self._tickets:
            return
        ids = list(self._tickets)
        verdicts = await self.ask(lambda: self._table.verdicts(ids))
        for job_id, accepted in verdicts.items():
            if accepted is not None:
                await self._close_ticket(self._tickets.pop(job_id), used=accepted)

    async def _close_ticket(self, ticket: Ticket, *, used: bool) -> None:
        try:
            if used:
                await self.means.limiter.settle(ticket)
        finally:
            await self.means.limiter.release(ticket)

    async def _work(self, job: Job) -> None:
        """One job from its claim to its end; cancelled, it is left for another worker."""
        work = _Work(self, self.means, self._table, job)
        try:
            ending = await work.run()
        except ClaimLost:
            logger.info("video job %d is no longer this worker's", job.id)
            return
        await self.write(partial(self._table.end, job.id, ending))
        await self._discard("image", job.input_name)

    def progress(self, job_id: int, percent: int) -> None:
        """To be written with the next look at the table."""
        self._percents[job_id] = percent

    async def pause(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def write(self, work: Callable[[], bool]) -> None:
        """A step that must not be lost: tried until the database takes it; raises ClaimLost."""
        while True:
            try:
                if not await self.ask(work):
                    raise ClaimLost
                return
            except Error as error:
                logger.warning("a video job's step waits: %s", type(error).__name__)
                await self._sleep(TICK)

    def drain(self) -> None:
        """Begin no further job."""
        self._draining = True

    async def _stop(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), *self._errands, return_exceptions=True)

    async def close(self) -> None:
        """Leave the jobs to other workers and let go of the thread; after ``run_forever``.

        Who will run a job that still waits is open, so it stays charged.
        """
        tickets, self._tickets = self._tickets, {}
        try:
            verdicts = await self.ask(lambda: self._table.verdicts(tickets))
            await self.ask(self._table.let_go)
        except Error as error:
            logger.warning("claims of video jobs run out by themselves: %s", type(error).__name__)
            verdicts = {}
        for job_id, ticket in tickets.items():
            await self._close_ticket(ticket, used=verdicts.get(job_id) is not False)
        await self.ask(connections.close_all)
        self._thread.shutdown()

    def abandon(self) -> None:
        """Let go without writing, for an owner without a database."""
        self._thread.shutdown()


class _Work:
    """One job; also what its call tells of its progress (see Milestones)."""

    def __init__(self, jobs: VideoJobs, means: Means, table: JobTable, job: Job) -> None:
        self._jobs = jobs
        self._means = means
        self._table = table
        self._job = job
        self._order = VideoOrder(job.prompt, job.ratio, job.seconds, job.hd, job.preset)
        self._accepted = job.accepted

    async def run(self) -> Ending:
        """How the job ends; raises ClaimLost."""
        if self._job.status is Status.SUBMITTING:
            return POSSIBLY_ACCEPTED
        try:
            if self._job.status is Status.QUEUED:
                return _made(await self._make())
            return await self._go_on()
        except UpstreamError as error:
            taken = self._accepted or error.maybe_accepted
            return Ending(error_code=error.code, error_message=error.message, accepted=taken)
        except NoCredential as error:
            return self._failed("rate_limit_exceeded", error.message)
        except ApiError as error:
            return self._failed(error.code or "invalid_request", error.message)
        except MediaError as error:
            return self._failed("storage_failed", error.message)

    def _failed(self, code: str, message: str) -> Ending:
        return Ending(error_code=code, error_message=message, accepted=self._accepted)

    async def _make(self) -> Made:
        recording = self._means.record(self._job)
        try:
            made = await self._ask_upstream(recording)
            recording.ends(End.COMPLETED, 200)
            return made
        except (UpstreamError, NoCredential, ApiError) as error:
            code = getattr(error, "code", None) or "rate_limit_exceeded"
            begun = recording.exchange.first_event is not None
            tried = End.FAILED if recording.exchange.attempts else End.REFUSED
            recording.ends(End.BROKEN if begun else tried, getattr(error, "status", 429), code)
            raise
        except asyncio.CancelledError:
            recording.ends(End.STOPPED, 503, "service_stopping")
            raise
        finally:
            await recording.close()

    async def _ask_upstream(self, recording: Recording) -> Made:
        image = await self._input()
        file = self._means.maker.input_file(image) if image else None
        call = self._means.maker.call(self._order, file, self)
        committed = await self._committed(call, recording, from_picture=image is not None)
        try:
            async for batch in committed.batches():
                self._note(batch)
        finally:
            await committed.aclose()
        return _result(call)

    async def _input(self) -> Stored | None:
        """The first frame, which the cache may have lost meanwhile."""
        if not self._job.input_name:
            return None
        found = await self._means.maker.store.find("image", self._job.input_name)
        if found is None:
            text = "The picture is no longer here; create the video again."
            raise ApiError(400, text, code="input_expired", param="input_reference")
        return found

    async def _committed(
        self, call: VideoCall, recording: Recording, *, from_picture: bool
    ) -> Committed:
        """Waits for a credential, since the client has left a job and not a request."""
        means = self._means
        model = means.catalog.find(self._job.model)
        if model is None:
            raise ApiError(400, "The model is no longer served.", code="model_not_found")
        lanes = means.maker.lanes(model, self._order, from_picture=from_picture)
        grok = means.maker.config().grok
        policy = RetryPolicy(grok.max_retry, frozenset(grok.retry_status_codes))
        attempts = Attempts(means.pool, means.room, call, policy, recording, means.watcher)
        waited = 0.0
        while True:
            try:
                return await attempts.commit(Want(lanes, model.id))
            except NoCredential as refusal:
                if refusal.soonest is None or waited + refusal.soonest > PATIENCE:
                    raise
                pause = min(max(refusal.soonest, 0.5), LOOK_AGAIN)
            waited += pause
            await self._jobs.pause(pause)

    async def submitting(self) -> None:
        await self._jobs.write(partial(self._table.submit, self._job.id))

    async def accepted(self, lease: Lease, upstream_id: str, poster_url: str = "") -> None:
        self._accepted = True
        upstream = "api" if lease.lane.kind == "api" else "web"
        acceptance = Acceptance(upstream, lease.credential_id, upstream_id, poster_url)
        await self._jobs.write(partial(self._table.accept, self._job.id, acceptance))

    async def _go_on(self) -> Ending:
        """What another worker has begun, as far as upstream can be asked about it."""
        job = self._job
        if not job.upstream_id:
            return STREAM_LOST
        subject = self._means.pool.subject(job.credential_id or 0)
        if subject is None:
            return CREDENTIAL_GONE
        account = Account(subject.secret, subject.user_id or None)
        if job.upstream == "web":
            ready = VideoReady(job.upstream_id, job.poster_url)
            return _made(await self._means.maker.finish(ready, MediaSource("web", account)))
        call = self._means.maker.call(self._order, None, self)
        async with aclosing(call.follow(job.upstream_id, account)) as batches:
            async for batch in batches:
                self._note(batch)
        return _made(_result(call))

    def _note(self, batch: list[Event]) -> None:
        for event in batch:
            if isinstance(event, VideoProgress):
                self._jobs.progress(self._job.id, min(event.percent, 99))


def _result(call: VideoCall) -> Made:
    if call.made is None:
        raise UpstreamIncomplete(row=14, evidence="no video")
    return call.made


def _made(made: Made) -> Ending:
    poster = made.poster.name if made.poster else ""
    return Ending(video_name=made.video.name, poster_name=poster, note=made.note)

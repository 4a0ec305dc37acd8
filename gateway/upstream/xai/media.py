"""The media side of api.x.ai: pictures, video jobs, their files (upstream-xai 7, 8)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from gateway.upstream.acceptance import submitted
from gateway.upstream.bodies import StreamedBody
from gateway.upstream.downloads import Download, MediaKind, open_download, origin_of
from gateway.upstream.errors import (
    NetworkFailed,
    PostprocessingFailed,
    RequestRejected,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, VideoProgress, VideoReady
from gateway.upstream.requests import Account, EditRequest, ImageRequest, VideoRequest
from gateway.upstream.values import web_url
from gateway.upstream.xai.answer import is_failure
from gateway.upstream.xai.calls import XaiCalls, classify, json_object
from gateway.upstream.xai.images import (
    EDITS_PATH,
    GENERATIONS_PATH,
    MAX_IMAGES,
    edit_body,
    generation_body,
    read_images,
)
from gateway.upstream.xai.settings import XaiSettings
from gateway.upstream.xai.videos import (
    JOB_PATH,
    START_PATH,
    VideoJob,
    is_job_id,
    read_job,
    read_ticket,
    start_body,
)

MAX_ANSWER = 192 * 1024 * 1024
"""Bytes of an answer with pictures in it; ten of 2k take a third of it."""
MAX_REPLY = 1024 * 1024
CALL_TIMEOUT = 60.0
POLL_EVERY = 5.0
GIVE_UP_AFTER = 600.0
_BEARABLE = 3
"""Polls in a row that may fail of what passes."""
_PASSING = (NetworkFailed, UpstreamFailed, UpstreamIncomplete)

Batches = AsyncGenerator[list[Event], None]


class XaiMedia:
    """What api.x.ai does with pictures and videos; raises UpstreamError only."""

    def __init__(self, calls: XaiCalls) -> None:
        self._calls = calls

    def images(self, request: ImageRequest, model: str, account: Account) -> Batches:
        """Up to ten pictures in one batch: ImageReady and, counting the rest, Finished.

        Raises ContentRefused where all are blocked, ImagesIncomplete where none came.
        """
        wanted = max(1, min(request.count, MAX_IMAGES))
        return self._pictures(
            GENERATIONS_PATH, lambda: generation_body(request, model), wanted, account
        )

    def edit_images(self, request: EditRequest, model: str, account: Account) -> Batches:
        """The same from one to three pictures of at most 10 MiB each."""
        wanted = max(1, min(request.count, MAX_IMAGES))
        return self._pictures(EDITS_PATH, lambda: edit_body(request, model), wanted, account)

    async def start_video(self, request: VideoRequest, model: str, account: Account) -> str:
        """Start a job; the id to ask after, with the same key.

        An error with ``maybe_accepted`` forbids another submission.
        """
        body = start_body(request, model)
        timeouts = self._calls.settings().timeouts(at_most=CALL_TIMEOUT)
        with submitted():
            reply = await self._calls.call(
                "POST", START_PATH, account, content=body, timeouts=timeouts, limit=MAX_REPLY
            )
            return read_ticket(reply)

    async def poll_video(self, job_id: str, account: Account) -> VideoJob:
        """How a job stands. A job that failed is no error of the call: see ``VideoJob``.

        Raises the taxonomy's errors for the call itself; NotFound for an unknown job.
        """
        if not is_job_id(job_id):
            raise RequestRejected("This is no video's id.", row="xai-404")
        settings = self._calls.settings()
        response, body = await self._calls.exchange(
            "GET",
            JOB_PATH + job_id,
            account,
            timeouts=settings.timeouts(at_most=CALL_TIMEOUT),
            limit=MAX_REPLY,
        )
        reply = json_object(body) if body.strip() else {}
        if "status" not in reply and is_failure(reply):
            raise classify(response, body)
        return read_job(response.status_code, reply, lambda url: result_url(url, settings))

    async def follow_video(
        self,
        job_id: str,
        account: Account,
        *,
        every: float = POLL_EVERY,
        give_up_after: float = GIVE_UP_AFTER,
    ) -> Batches:
        """A job until its end: VideoProgress, VideoReady and Finished.

        Raises what ended the job; UpstreamTimeout after ``give_up_after`` seconds of
        waiting. Every error carries ``maybe_accepted``.
        """
        percent = -1
        with submitted(lambda: True):
            for _ in range(max(1, round(give_up_after / every))):
                job = await self._poll_patiently(job_id, account, every)
                if job.error is not None:
                    raise job.error
                if job.status == "done":
                    yield [VideoReady(job.url), Finished(extra=job.extra)]
                    return
                if job.percent > percent:
                    percent = job.percent
                    yield [VideoProgress(percent)]
                await self._calls.sleep(every)
            raise UpstreamTimeout("The video was not done in time.", row=13, evidence="polling")

    async def _poll_patiently(self, job_id: str, account: Account, every: float) -> VideoJob:
        """One poll; what passes is borne a few times, since the job goes on without us."""
        for _ in range(_BEARABLE - 1):
            try:
                return await self.poll_video(job_id, account)
            except _PASSING:
                await self._calls.sleep(every)
        return await self.poll_video(job_id, account)

    @asynccontextmanager
    async def download(self, url: str, kind: MediaKind) -> AsyncIterator[Download]:
        """The bytes of a finished picture or video, checked, fetched without a credential.

        Raises PostprocessingFailed only.
        """
        settings = self._calls.settings()
        address = result_url(url, settings)
        if not address:
            raise PostprocessingFailed(row=15, evidence="the address is not allowed")
        headers = {"Accept": "*/*", "User-Agent": "grok2api"}
        origin = origin_of(address, headers, kind, settings.timeouts)
        async with open_download(self._calls.media_http(), origin, self._calls.sleep) as found:
            yield found

    async def _pictures(
        self,
        path: str,
        body: Callable[[], bytes | StreamedBody],
        wanted: int,
        account: Account,
    ) -> Batches:
        settings = self._calls.settings()
        reply = await self._calls.call(
            "POST",
            path,
            account,
            content=body(),
            timeouts=settings.timeouts(),
            limit=MAX_ANSWER,
        )
        yield read_images(reply, wanted, lambda url: result_url(url, settings))


def result_url(value: object, settings: XaiSettings) -> str:
    """``value`` if it is an address of finished media, else empty.

    Over https on a known host, or on the very host of the API (a stand-in's).
    """
    url = web_url(value)
    if not url:
        return ""
    asked, own = urlsplit(url), urlsplit(settings.base_url)
    ours = (asked.scheme, asked.netloc) == (own.scheme, own.netloc)
    known = asked.scheme == "https" and asked.netloc in settings.result_hosts
    return url if ours or known else ""

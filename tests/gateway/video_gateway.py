"""A live gateway that works on video jobs, with the test's database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from django.db import connections
from openai import OpenAI

from gateway.sandbox.serve import SandboxThread
from gateway.videos.models import VideoJob
from pool.leases import Reading
from tests.gateway.live import KEY, LiveGateway
from tests.serving import wait_for

WEB_POST = "/rest/app-chat/conversations/new"
API_POST = "/v1/videos/generations"
ENDED = ("completed", "failed")


class VideoGateway(LiveGateway):
    """``working`` False: jobs are put into the table and stay there."""

    working = True

    def __enter__(self) -> Self:
        super().__enter__()
        self.inside_async(self._rank)
        if self.working:
            self.begin_work()
        return self

    async def _rank(self) -> None:
        """The order of the credentials, for videos too."""
        for entry in list(self.runtime.pool.entries):
            if entry.kind != "api":
                left = Reading(1000 - entry.id)
                await self.runtime.pool.measure(entry.id, {"video": left, "video_720p": left})

    def begin_work(self) -> None:
        async def begin() -> None:
            self._work = asyncio.create_task(self.runtime.video_jobs.run_forever())

        self.inside_async(begin)

    def end_work(self) -> None:
        """As a worker stops: its tasks first, then what they stand on."""

        async def end() -> None:
            self._work.cancel()
            with suppress(asyncio.CancelledError):
                await self._work

        self.inside_async(end)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if hasattr(self, "_work"):
            self.end_work()
        self.inside_async(self.runtime.video_jobs.close)
        super().__exit__(kind, error, traceback)

    def sdk(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def post(self, key: str = KEY, **fields: Any) -> dict[str, Any]:
        """Create a job; its answer."""
        with self.client() as client:
            client.headers["Authorization"] = f"Bearer {key}"
            answer = client.post("/v1/videos", json={"prompt": "waves", **fields})
        assert answer.status_code == 200, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def look(self, video_id: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.get(f"/v1/videos/{video_id}").json()
        return found

    def end_of(self, video_id: str, seconds: float = 15) -> dict[str, Any]:
        """The job as it is once it has ended."""
        ended = wait_for(lambda: self.look(video_id).get("status") in ENDED, seconds)
        assert ended, self.row(video_id)
        return self.look(video_id)

    def row(self, video_id: str) -> dict[str, Any]:
        try:
            return dict(VideoJob.objects.filter(public_id=video_id).values().get())
        finally:
            connections.close_all()


def submissions(sandbox: SandboxThread, path: str) -> int:
    return len(sandbox.state.requests_to(path))

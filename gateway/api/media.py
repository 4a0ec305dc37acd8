"""The routes for files, over what the running gateway keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.http import HttpRequest

from gateway.api.auth import has_key
from gateway.api.files import MediaServing, files_router
from gateway.api.recorded import Recorded
from gateway.api.uploads import uploads_router
from gateway.exchange import End
from gateway.relay import runtime
from pool.keys import KeyRecord
from pool.limits.charges import NOTHING


def _serving() -> MediaServing:
    gateway = runtime.current()
    return MediaServing(
        gateway.media, gateway.media_links, has_key, gateway.config().app.accel_redirect
    )


@asynccontextmanager
async def _admitted(request: HttpRequest) -> AsyncIterator[None]:
    """An upload costs no picture, but counts among the requests of its key."""
    key: KeyRecord = request.auth  # type: ignore[attr-defined]
    async with Recorded(runtime.current().record("upload", request)) as recording:
        await recording.admit(key, NOTHING)
        yield
        recording.ends(End.COMPLETED, 200)
        await recording.close()


files = files_router(_serving)
uploads = uploads_router(_serving, _admitted)

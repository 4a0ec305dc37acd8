"""Answering with a file of the cache, without holding it in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from django.http import HttpRequest, HttpResponse

from gateway.api.conditions import Version, check_preconditions, is_unchanged, wanted_span
from gateway.api.lifetime import Ending, Lifetime
from gateway.media.open_file import OpenFile
from gateway.wire.errors import ApiError

logger = logging.getLogger(__name__)
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
CHUNK = 256 * 1024
STALLED = 60.0
"""Seconds in which a reader has to take a chunk; a player that pauses asks again."""
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Opened by itself, a file shows and plays, and does nothing else."""


class FileResponse(HttpResponse):
    """``length`` bytes of ``opened`` from ``start``; ``send_file`` sends them and closes it."""

    def __init__(self, opened: OpenFile, status: int, start: int, length: int) -> None:
        super().__init__(status=status, content_type=opened.mime)
        self.opened = opened
        self.start = start
        self.length = length


def version_of(opened: OpenFile) -> Version:
    return Version(
        etag=f'"{opened.modified:x}-{opened.size:x}"',
        modified=opened.modified // 1_000_000_000,
        size=opened.size,
    )


def answer_with(
    request: HttpRequest, opened: OpenFile, cache_control: str, redirect: str = ""
) -> HttpResponse:
    """200, 206, 304 or, raised, 412 and 416; ``opened`` is closed unless it is in the response.

    ``redirect`` is an internal address at which the server in front finds the file; it then
    sends the file itself, ranges and all.
    """
    try:
        response = _hand_over(opened, redirect) if redirect else _own_answer(request, opened)
    except ApiError:
        opened.close()
        raise
    if not isinstance(response, FileResponse):
        opened.close()
    response["Cache-Control"] = cache_control
    return response


def _hand_over(opened: OpenFile, redirect: str) -> HttpResponse:
    response = HttpResponse(content_type=opened.mime)
    response["X-Accel-Redirect"] = redirect
    return _described(response, opened)


def _own_answer(request: HttpRequest, opened: OpenFile) -> HttpResponse:
    version = version_of(opened)
    check_preconditions(request.headers, version)
    if is_unchanged(request.headers, version):
        response = HttpResponse(status=304)
        del response["Content-Type"]
    else:
        response = _described(_span_of(request, opened, version), opened)
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = version.etag
    response["Last-Modified"] = version.last_modified
    return response


def _span_of(request: HttpRequest, opened: OpenFile, version: Version) -> HttpResponse:
    ranged = request.headers if request.method == "GET" else {}
    span = wanted_span(ranged, version)
    response = FileResponse(opened, span.status, span.start, span.length)
    response["Content-Length"] = str(span.length)
    if span.status == 206:
        last = span.start + span.length - 1
        response["Content-Range"] = f"bytes {span.start}-{last}/{version.size}"
    return response


def _described(response: HttpResponse, opened: OpenFile) -> HttpResponse:
    # A name has only letters that need no quoting (see gateway.media.names).
    response["Content-Disposition"] = f'inline; filename="{opened.name}"'
    for name, value in SAFE_HEADERS.items():
        response[name] = value
    return response


async def send_file(
    send: Send,
    response: FileResponse,
    headers: list[tuple[bytes, bytes]],
    lifetime: Lifetime,
    *,
    body: bool,
) -> None:
    """Send the response, without its body where ``body`` is false; closes the file.

    A reader that takes nothing any more, and a file that has become shorter, end in a
    connection that breaks: the head has promised a length.
    """
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    with suppress(Ending), response.opened, lifetime:
        await send(start)
        if not body or not response.length:
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            await _send_span(send, response.opened, response.start, response.length)
        except TimeoutError:
            logger.info("a reader of a file has stalled")


async def _send_span(send: Send, opened: OpenFile, start: int, left: int) -> None:
    while left:
        chunk = await opened.read(start, min(left, CHUNK))
        if not chunk:
            logger.error("a file of the cache is shorter than it was")
            return
        start, left = start + len(chunk), left - len(chunk)
        message = {"type": "http.response.body", "body": chunk, "more_body": left > 0}
        async with asyncio.timeout(STALLED):
            await send(message)

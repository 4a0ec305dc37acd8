"""Finished media as a checked stream of bytes (upstream-web section 10).

Whatever goes wrong here is row 15: never the credential's fault, and no reason to make
the media again. The caller has checked the address and chosen the headers; a redirect is
a failure, so neither can lead elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import httpx

from gateway.upstream.errors import PostprocessingFailed, UpstreamError
from gateway.upstream.filetypes import IMAGE_TYPES, canonical_type, sniff
from gateway.upstream.http import Http, Timeouts, reads

MediaKind = Literal["image", "video"]
Sleep = Callable[[float], Awaitable[None]]

MAX_BYTES: Mapping[MediaKind, int] = {"image": 32 * 1024 * 1024, "video": 512 * 1024 * 1024}
WAITS = (0.2, 0.75)
"""Seconds before the second and the third attempt."""
READ_TIMEOUT = 60.0
TOTAL_TIMEOUT: Mapping[MediaKind, float] = {"image": 60.0, "video": 600.0}
"""Seconds a whole download may take, from the first byte asked for to the last read."""

_RETRIED = frozenset({403, 408, 425, 429})
_VAGUE = frozenset({"application/octet-stream", "binary/octet-stream"})


@dataclass(frozen=True, slots=True)
class Origin:
    """What to fetch: a checked address and the headers meant for its host alone."""

    url: str
    headers: Mapping[str, str]
    kind: MediaKind
    timeouts: Timeouts
    max_bytes: int
    total_timeout: float


def origin_of(
    url: str, headers: Mapping[str, str], kind: MediaKind, timeouts: Callable[[float], Timeouts]
) -> Origin:
    """An ``Origin`` with the limits of its kind; ``timeouts`` bounds a wait in seconds."""
    head = {**headers, "Accept-Encoding": "identity"}
    return Origin(url, head, kind, timeouts(READ_TIMEOUT), MAX_BYTES[kind], TOTAL_TIMEOUT[kind])


@dataclass(slots=True)
class Download:
    """A download under way: its type, its size in bytes if upstream named one, its bytes.

    ``chunks`` is to be iterated once, inside the ``async with`` that gave it; it raises
    PostprocessingFailed when the rest does not come or is too much.
    """

    mime_type: str
    size: int | None
    chunks: AsyncIterator[bytes]


class _Failed(Exception):
    """One attempt failed; ``again`` says whether another is worth it."""

    def __init__(self, evidence: str, status: int | None = None, *, again: bool = False) -> None:
        super().__init__(evidence)
        self.again = again
        self.verdict = PostprocessingFailed(row=15, upstream_status=status, evidence=evidence)


@asynccontextmanager
async def open_download(http: Http, origin: Origin, sleep: Sleep) -> AsyncIterator[Download]:
    """The download, begun and checked as far as its first bytes; closed in every case.

    Tries up to three times until there are first bytes, never after. Raises
    PostprocessingFailed only.
    """
    async with AsyncExitStack() as stack:
        yield await _attempts(stack, http, origin, sleep)


async def _attempts(stack: AsyncExitStack, http: Http, origin: Origin, sleep: Sleep) -> Download:
    waits = iter(WAITS)
    deadline = asyncio.get_running_loop().time() + origin.total_timeout
    while True:
        try:
            return await _attempt(stack, http, origin, deadline)
        except _Failed as failed:
            wait = next(waits, None) if failed.again else None
            if wait is None:
                raise failed.verdict from failed.__cause__
        await sleep(wait)


async def _attempt(stack: AsyncExitStack, http: Http, origin: Origin, deadline: float) -> Download:
    async with AsyncExitStack() as attempt:
        try:
            async with asyncio.timeout_at(deadline):
                response = await attempt.enter_async_context(
                    http.stream("GET", origin.url, headers=origin.headers, timeouts=origin.timeouts)
                )
                declared = _check_head(response, origin)
                body = reads(response)
                attempt.push_async_callback(body.aclose)
                first = await anext(body, b"")
        except UpstreamError as error:
            raise _Failed(error.evidence, error.upstream_status, again=True) from error
        except TimeoutError as error:
            raise _Failed("too slow") from error
        size = _length(response)
        chunks = _checked(first, body, origin.max_bytes, size, deadline)
        attempt.push_async_callback(chunks.aclose)
        download = Download(_settle_type(declared, first, origin.kind), size, chunks)
        await stack.enter_async_context(attempt.pop_all())
        return download


def _check_head(response: httpx.Response, origin: Origin) -> str:
    """The declared type. Raises _Failed for a head that promises no media of ours."""
    status = response.status_code
    if status != 200:
        again = status in _RETRIED or status >= 500
        raise _Failed(f"status {status}", status, again=again)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _Failed("a compressed body", status)
    declared = canonical_type(response.headers.get("content-type", ""))
    if not _fits(declared, origin.kind):
        raise _Failed("another content type", status)
    if (_length(response) or 0) > origin.max_bytes:
        raise _Failed("too large", status)
    return declared


def _fits(declared: str, kind: MediaKind) -> bool:
    if kind == "image":
        return not declared or declared.startswith("image/")
    return declared in _VAGUE or declared.startswith("video/")


def _length(response: httpx.Response) -> int | None:
    value = response.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None


def _settle_type(declared: str, first: bytes, kind: MediaKind) -> str:
    """The type to hand on. Raises _Failed for an error page or nothing at all."""
    if first.lstrip()[:1] in (b"<", b"{"):
        raise _Failed("an error page")
    if not first:
        raise _Failed("no bytes")
    if kind == "video":
        return "video/mp4" if declared in _VAGUE else declared
    found = sniff(first)
    return found if found in IMAGE_TYPES else declared


async def _checked(
    first: bytes, body: AsyncIterator[bytes], limit: int, size: int | None, deadline: float
) -> AsyncGenerator[bytes, None]:
    received, chunk = 0, first
    while chunk:
        received += len(chunk)
        if received > limit:
            raise _Failed("too large").verdict
        yield chunk
        chunk = await _rest(body, deadline)
    if size is not None and received != size:
        raise _Failed("cut short").verdict


async def _rest(body: AsyncIterator[bytes], deadline: float) -> bytes:
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(body, b"")
    except UpstreamError as error:
        raise _Failed(error.evidence).verdict from error
    except TimeoutError as error:
        raise _Failed("too slow").verdict from error

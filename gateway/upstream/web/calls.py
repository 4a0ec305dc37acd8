"""What every call to grok.com is made of, whatever it is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic_core import from_json

from gateway.upstream.bodies import StreamedBody
from gateway.upstream.errors import (
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event
from gateway.upstream.http import MAX_ERROR_BODY, Http, Timeouts, read_up_to, reads
from gateway.upstream.taxonomy import classify_web
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.settings import WebSettings

CHAT_PATH = "/rest/app-chat/conversations/new"
MAX_REPLY = 2 * 1024 * 1024
TAIL_TIMEOUT = 15.0
"""Seconds of silence a complete answer bears for what may follow it (upstream-web 2.7)."""

Batches = AsyncGenerator[list[Event], None]


@dataclass(frozen=True, slots=True)
class Seams:
    """Where the outside comes in.

    ``http`` and ``asset_http`` give the ways to grok.com and to its assets, ``now_ms`` is
    Unix time in milliseconds, ``new_uuid`` a fresh UUIDv4 as text, ``sleep`` waits seconds.
    """

    http: Callable[[], Http]
    asset_http: Callable[[], Http]
    settings: Callable[[], WebSettings]
    now_ms: Callable[[], int]
    new_uuid: Callable[[], str]
    sleep: Callable[[float], Awaitable[None]]


class WebCalls:
    """Sends requests made of a ``Profile``; raises UpstreamError only."""

    def __init__(self, seams: Seams) -> None:
        self._seams = seams
        self.now_ms = seams.now_ms
        self.new_uuid = seams.new_uuid
        self.sleep = seams.sleep
        self._last_profile = Profile(WebSettings())

    @property
    def asset_http(self) -> Http:
        return self._seams.asset_http()

    def profile(self) -> Profile:
        """The addresses and headers of the present settings."""
        settings = self._seams.settings()
        if settings is not self._last_profile.settings:
            self._last_profile = Profile(settings)
        return self._last_profile

    def now(self) -> float:
        """Unix time in seconds."""
        return self.now_ms() / 1000

    async def call(
        self,
        profile: Profile,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: bytes | StreamedBody | None = None,
        timeout: float,  # noqa: ASYNC109 - handed to the transport, which is what times it
    ) -> dict[str, Any]:
        """One short exchange that answers with a JSON object."""
        body = await self.exchange(
            profile, method, path, headers=headers, content=content, timeout=timeout
        )
        return _json_object(body)

    async def exchange(
        self,
        profile: Profile,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: bytes | StreamedBody | None = None,
        timeout: float,  # noqa: ASYNC109 - handed to the transport, which is what times it
    ) -> bytes:
        """One short exchange that succeeds; its body, of at most 2 MiB."""
        response, body = await self._seams.http().send(
            method,
            profile.url(path),
            headers=headers,
            content=content,
            timeouts=profile.settings.timeouts(at_most=timeout),
            limit=MAX_REPLY,
        )
        if not response.is_success:
            raise self._classify(response, body[:MAX_ERROR_BODY])
        _refuse_html(response, body)
        return body

    async def converse(
        self,
        profile: Profile,
        headers: Mapping[str, str],
        content: bytes,
        timeouts: Timeouts,
        decoder: RestDecoder,
    ) -> Batches:
        """The events of one ``conversations/new``, one batch per network read.

        ``decoder`` is a new one. Closing the generator closes the connection at once.
        """
        async with self._seams.http().stream(
            "POST", profile.url(CHAT_PATH), headers=headers, content=content, timeouts=timeouts
        ) as response:
            if not response.is_success:
                body = await read_up_to(response, MAX_ERROR_BODY)
                raise self._classify(response, body)
            async with aclosing(reads(response)) as chunks:
                chunk = await anext(chunks, None)
                _refuse_html(response, chunk or b"")
                while chunk is not None:
                    if events := decoder.feed(chunk):
                        yield events
                    if decoder.pending is not None:
                        raise decoder.pending
                    chunk = await _next(chunks, decoder)
            if events := decoder.finish():
                yield events

    def _classify(self, response: httpx.Response, body: bytes) -> UpstreamError:
        return classify_web(response.status_code, body, headers=response.headers, now=self.now())


async def _next(chunks: AsyncGenerator[bytes, None], decoder: RestDecoder) -> bytes | None:
    """The next read, or None at the end.

    Once the answer is complete, neither a break nor silence can spoil it.
    """
    if not decoder.complete:
        return await anext(chunks, None)
    with suppress(TimeoutError, UpstreamTimeout, UpstreamIncomplete):
        async with asyncio.timeout(TAIL_TIMEOUT):
            return await anext(chunks, None)
    return None


def _refuse_html(response: httpx.Response, body: bytes) -> None:
    """A page instead of data: the browser session is not accepted (row 9)."""
    if response.headers.get("content-type", "").startswith("text/html") or (
        body.lstrip()[:1] == b"<"
    ):
        raise SessionRejected(row=9, upstream_status=response.status_code, evidence="html")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body)
    except ValueError as error:
        raise UpstreamFailed(row=12, evidence="the reply is not JSON") from error
    if not isinstance(value, dict):
        raise UpstreamFailed(row=12, evidence="the reply is not a JSON object")
    return value

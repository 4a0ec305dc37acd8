"""The one way out over HTTP: httpx's request and response over aiohttp's sockets.

Only this module names ``httpx`` exceptions. The transport is the test seam: anything
that is an ``httpx.AsyncBaseTransport`` will do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from gateway.upstream.bodies import StreamedBody
from gateway.upstream.errors import NetworkFailed, UpstreamIncomplete, UpstreamTimeout

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error body read for diagnosis (upstream-web section 12, notes)."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to the first header byte and between reads, to send."""

    connect: float = 10.0
    read: float = 120.0
    write: float = 30.0

    def as_extension(self) -> dict[str, float]:
        return {
            "connect": self.connect,
            "read": self.read,
            "write": self.write,
            "pool": self.connect,
        }


def open_transport(proxy_url: str = "", max_connections: int = 2000) -> httpx.AsyncBaseTransport:
    """A transport for the running loop; ``proxy_url`` is http(s), socks5(h) or empty.

    socks5 goes through httpx's own transport, the rest through aiohttp. Neither keeps
    cookies: a cookie that one account's answer sets must never travel with another's.
    """
    limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=30.0)
    proxy = httpx.Proxy(proxy_url) if proxy_url else None
    if proxy is not None and proxy.url.scheme.startswith("socks"):
        return httpx.AsyncHTTPTransport(proxy=proxy, limits=limits, trust_env=False)
    ssl_context = httpx.create_ssl_context(trust_env=False)

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=max_connections, keepalive_timeout=30.0, ssl=ssl_context
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            trust_env=False,
        )

    return AiohttpTransport(verify=ssl_context, client=session, proxy=proxy, trust_env=False)


@contextmanager
def map_httpx_errors() -> Iterator[None]:
    """Translate every ``httpx`` failure into ours.

    aiohttp's "server disconnected" arrives as ``ConnectTimeout``, so a time-out is
    recognised by its cause where there is one.
    """
    try:
        yield
    except httpx.HTTPError as error:
        cause = error.__cause__
        timed_out = (
            isinstance(error, httpx.TimeoutException)
            if cause is None or isinstance(cause, httpx.HTTPError)
            else isinstance(cause, TimeoutError)
        )
        kind = type(cause or error).__name__
        failure = UpstreamTimeout if timed_out else NetworkFailed
        verdict = failure(row=13, evidence=kind)
        verdict.sent = not _never_left(error)
        raise verdict from error


def _never_left(error: httpx.HTTPError) -> bool:
    """Whether there was no connection to send anything on."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientError):
        return isinstance(cause, _NO_CONNECTION)
    return isinstance(error, _NO_CONNECTION_HTTPX)


_NO_CONNECTION = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)
_NO_CONNECTION_HTTPX = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)

# Parsing an address costs as much as the rest of a request; few are ever asked for.
_parsed = lru_cache(maxsize=256)(httpx.URL)


class Http:
    """Sends requests and streams answers; follows no redirect, keeps no cookie."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | StreamedBody | None = None,
        timeouts: Timeouts,
    ) -> AsyncIterator[httpx.Response]:
        """Yield the response once its headers are there; close it in every case.

        Raises NetworkFailed or UpstreamTimeout.
        """
        head = dict(headers)
        if isinstance(content, StreamedBody):
            head["Content-Length"] = str(content.size)
        request = httpx.Request(
            method,
            _parsed(url),
            headers=head,
            content=content,
            extensions={"timeout": timeouts.as_extension()},
        )
        with map_httpx_errors():
            response = await self._transport.handle_async_request(request)
        response.request = request
        try:
            yield response
        finally:
            await response.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | StreamedBody | None = None,
        timeouts: Timeouts,
        limit: int,
    ) -> tuple[httpx.Response, bytes]:
        """One whole exchange; the body is cut at ``limit`` bytes."""
        async with self.stream(
            method, url, headers=headers, content=content, timeouts=timeouts
        ) as response:
            return response, await read_up_to(response, limit)

    async def aclose(self) -> None:
        await self._transport.aclose()


async def reads(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The decoded body, one item per network read.

    Raises UpstreamTimeout when upstream falls silent, UpstreamIncomplete when it breaks
    off, NetworkFailed for a body that cannot be decoded.
    """
    try:
        with map_httpx_errors():
            async for chunk in _decoded(response):
                yield chunk
    except UpstreamTimeout:
        raise
    except NetworkFailed as error:
        raise UpstreamIncomplete(row=14, evidence=error.evidence) from error


def _decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body without its content encoding; mostly there is none to undo."""
    if any(name.lower() == b"content-encoding" for name, _ in response.headers.raw):
        return response.aiter_bytes()
    return cast("httpx.AsyncByteStream", response.stream).__aiter__()


async def read_up_to(response: httpx.Response, limit: int) -> bytes:
    """At most ``limit`` bytes of the decoded body."""
    body = bytearray()
    async for chunk in reads(response):
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])

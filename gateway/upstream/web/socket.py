"""The transport of grok.com's WebSockets: connect, heartbeat, idle time-out, prompt close.

Only this module names ``websockets``. What the frames mean is the decoder's business.
Sources: upstream-web 3.1-3.2 and 8.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    WebSocketException,
)

from gateway.upstream.errors import (
    NetworkFailed,
    SessionRejected,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.http import MAX_ERROR_BODY
from gateway.upstream.taxonomy import classify_web
from gateway.upstream.web.payloads import ping_frame

OPEN_TIMEOUT = 20.0
WRITE_TIMEOUT = 15.0
PING_EVERY = 25.0
CLOSE_TIMEOUT = 1.0
MAX_FRAME = 16 * 1024 * 1024
MAX_QUEUE = 16

# A logger outside every hierarchy: at debug level websockets logs the Cookie header.
_SILENT = logging.Logger("websockets", level=logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """How to reach and keep one socket; times in seconds.

    ``ping_every`` None sends no heartbeat. A frame has at most ``max_frame`` bytes; when
    more than ``max_queue`` frames wait to be read, reading stops until they are.
    """

    url: str
    origin: str
    headers: dict[str, str]
    user_agent: str | None
    proxy_url: str | None
    idle_timeout: float
    open_timeout: float = OPEN_TIMEOUT
    ping_every: float | None = PING_EVERY
    max_frame: int = MAX_FRAME
    max_queue: int = MAX_QUEUE


class _DirectConnect(connect):
    """Follows no redirect: the cookie is for the address it was made for."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocket:
    """An open socket. Every method raises UpstreamError only."""

    def __init__(self, connection: ClientConnection, idle_timeout: float) -> None:
        self._connection = connection
        self._idle_timeout = idle_timeout
        self._incoming = connection.recv_messages.frames.queue

    async def send(self, *frames: bytes) -> None:
        """Send text frames."""
        with map_socket_errors():
            async with asyncio.timeout(WRITE_TIMEOUT):
                for frame in frames:
                    await self._connection.send(frame, text=True)

    async def read(self, within: float | None = None) -> list[str]:
        """Wait for a text frame; return it with all others that came along.

        An empty list means that the other side closed. Raises UpstreamTimeout after
        ``within`` seconds of silence, ``idle_timeout`` of the options where None.
        """
        patience = self._idle_timeout if within is None else within
        frames: list[str] = []
        while not frames:
            with map_socket_errors():
                try:
                    async with asyncio.timeout(patience):
                        message = await self._connection.recv()
                except ConnectionClosed:
                    return []
            if isinstance(message, str):
                frames.append(message)
            await self._take_buffered(frames)
        return frames

    async def _take_buffered(self, frames: list[str]) -> None:
        """Add the messages that are here already: a last frame marked final means that
        none of them has to be waited for."""
        with contextlib.suppress(ConnectionClosed):
            while self._incoming and self._incoming[-1].fin:
                message = await self._connection.recv()
                if isinstance(message, str):
                    frames.append(message)


@asynccontextmanager
async def open_socket(
    options: SocketOptions, now_ms: Callable[[], int]
) -> AsyncIterator[WebSocket]:
    """An open socket with its heartbeat; closed in every case, at once unless all went well.

    Raises the taxonomy's error for a refused handshake, NetworkFailed, UpstreamTimeout.
    """
    with map_socket_errors():
        connection = await _dial(options)
    pinger = asyncio.create_task(_ping(connection, options.ping_every, now_ms))
    try:
        yield WebSocket(connection, options.idle_timeout)
        with contextlib.suppress(WebSocketException, OSError):
            await connection.close()
    finally:
        pinger.cancel()
        connection.transport.abort()
        await asyncio.gather(pinger, connection.wait_closed(), return_exceptions=True)


async def _dial(options: SocketOptions) -> ClientConnection:
    return await _DirectConnect(
        options.url,
        additional_headers=options.headers | {"Origin": options.origin},
        user_agent_header=options.user_agent,
        compression=None,
        proxy=options.proxy_url,
        open_timeout=options.open_timeout,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=None,
        max_size=options.max_frame,
        max_queue=options.max_queue,
        logger=_SILENT,
        ssl=_tls() if options.url.startswith("wss:") else None,
    )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than a whole handshake."""
    return httpx.create_ssl_context(trust_env=False)


async def _ping(
    connection: ClientConnection, every: float | None, now_ms: Callable[[], int]
) -> None:
    if every is None:
        return
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(every)
            await connection.send(ping_frame(now_ms()), text=True)


@contextmanager
def map_socket_errors() -> Iterator[None]:
    """Translate every ``websockets``, socket and TLS failure into ours.

    The cause is cut off where its text may hold the proxy's password.
    """
    try:
        yield
    except InvalidStatus as error:
        response = error.response
        body = bytes(response.body[:MAX_ERROR_BODY])
        if response.status_code < 300 and body.lstrip()[:1] == b"<":
            # A page where a socket should be: the browser session is not accepted.
            raise SessionRejected(
                row=9, upstream_status=response.status_code, evidence="html"
            ) from error
        headers = httpx.Headers(list(response.headers.raw_items()))
        raise classify_web(response.status_code, body, headers=headers) from error
    except ConnectionClosed as error:
        raise UpstreamIncomplete(row=14, evidence=type(error).__name__) from error
    except TimeoutError as error:
        raise UpstreamTimeout(row=13, evidence="TimeoutError") from error
    except (WebSocketException, ImportError) as error:
        raise NetworkFailed(row=13, evidence=type(error).__name__) from None
    except OSError as error:
        raise NetworkFailed(row=13, evidence=type(error).__name__) from error

"""A small HTTP/1.1 client over one connection, cheap enough to load a server with."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools

Sink = Callable[[bytes], object]


class Broken(Exception):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[int] | None = None
        self._sink: Sink = bytes
        self.reusable = True

    async def exchange(self, request: bytes, sink: Sink) -> int:
        """Send ``request`` as it is; give the body's parts to ``sink``; return the status.

        Raises Broken when the connection ends early.
        """
        if self._transport is None:
            raise Broken("not connected")
        self._done, self._sink = asyncio.get_running_loop().create_future(), sink
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.reusable = None, False
        self._fail("the connection ended before the answer")

    def on_body(self, body: bytes) -> None:
        self._sink(body)

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        if self._done is not None and not self._done.done():
            self._done.set_result(self._parser.get_status_code())

    def _fail(self, reason: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(Broken(reason))


async def connect(url: str) -> Connection:
    """A connection to the host and port of ``url``; raises OSError."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        Connection, parts.hostname or "127.0.0.1", parts.port or 80
    )
    return connection


def post(url: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """The bytes of a POST request."""
    fields = {
        "Host": urlsplit(url).netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body

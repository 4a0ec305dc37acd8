"""The ASGI door of ``/v1`` and the health probes: Django's URLs and views, without threads.

Django's own handler enters a thread for every request (its ``request_started`` and
``request_finished`` receivers are synchronous) and runs the middleware of the pages. Here
a request is parsed, resolved and answered on the event loop and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpResponseBase
from django.urls import Resolver404, ResolverMatch, get_resolver

from gateway.api.errors import not_found, respond, wrong_method
from gateway.api.file_responses import FileResponse, send_file
from gateway.api.incoming import Incoming, announced_size, attach, is_form
from gateway.api.lifetime import Ending, Lifetime, set_lifetime
from gateway.api.streams import EventStream
from gateway.wire.errors import ApiError, bad_request
from gateway.wire.sse import KEEP_ALIVE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
BODY_TIMEOUT = 60.0
"""Seconds in which a request body has to arrive."""
DRAIN_TIMEOUT = 5.0
MAX_DRAINED = 64 * 1024 * 1024
"""Bytes of a refused body that are still read, so that its sender can read the refusal."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_body`` in bytes, ``keepalive`` in seconds; ``origins`` as in the configuration."""

    max_body: int
    keepalive: float
    origins: tuple[str, ...]


class ClientGone(Exception):
    """The client went away before its request was complete."""


class ApiApplication:
    """Serves the URLs of ``urlconf``; ``limits`` is read per request.

    ``answered`` hears the name of the route ("" for none) and the status of every answer to a
    request that has no record of its own.
    """

    def __init__(
        self,
        urlconf: str,
        limits: Callable[[], Limits],
        answered: Callable[[str, int], None] = lambda route, status: None,
    ) -> None:
        self._answered = answered
        # Matching patterns costs more than answering; a match is only ever read.
        self._resolve = lru_cache(maxsize=256)(get_resolver(urlconf).resolve)
        self._limits = limits
        self._running: set[Lifetime] = set()

    @property
    def running(self) -> int:
        return len(self._running)

    def interrupt_all(self, error: ApiError) -> None:
        """End every running request now: streams with their terminal event."""
        for lifetime in tuple(self._running):
            lifetime.interrupt(error)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task")
        lifetime = Lifetime(task)
        self._running.add(lifetime)
        try:
            await self._serve(scope, receive, send, lifetime)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            if not lifetime.client_gone:
                raise
            task.uncancel()
        finally:
            self._running.discard(lifetime)

    async def _serve(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, lifetime: Lifetime
    ) -> None:
        limits = self._limits()
        cors = _cors(scope, limits.origins)
        if scope["method"] == "OPTIONS":
            await _send_preflight(send, cors)
            return
        # A form's files go to the disk: its view reads the body, this does not.
        incoming = Incoming(receive, lifetime, announced_size(scope)) if is_form(scope) else None
        try:
            with lifetime:
                body = b"" if incoming else await _read_body(scope, receive, limits.max_body)
        except ApiError as error:
            await _send_refusal(receive, send, error, cors)
            return
        except Ending as ending:
            await _send_refusal(receive, send, ending.error, cors)
            return
        watch = asyncio.create_task(_watch(receive, lifetime, incoming))
        try:
            response = await self._respond(scope, body, lifetime, incoming)
            if isinstance(response, EventStream):
                await _send_stream(send, response, cors, limits.keepalive, lifetime)
            elif isinstance(response, FileResponse):
                await send_file(
                    send,
                    response,
                    _headers(response, cors),
                    lifetime,
                    body=scope["method"] != "HEAD",
                )
            elif incoming is not None and not incoming.finished.is_set():
                await _send_early(receive, send, response, cors)
            else:
                await _send_whole(send, response, cors)
        finally:
            watch.cancel()

    async def _respond(
        self,
        scope: MutableMapping[str, Any],
        body: bytes,
        lifetime: Lifetime,
        incoming: Incoming | None,
    ) -> HttpResponseBase:
        try:
            request = ASGIRequest(scope, BytesIO(body))
        except UnicodeDecodeError:
            return respond(bad_request("The query string is not UTF-8.", "invalid_value", "query"))
        request._body = body
        attach(request, incoming)
        try:
            match = self._resolve(request.path_info)
        except Resolver404:
            self._answered("", 404)
            return respond(not_found())
        request.resolver_match = match
        set_lifetime(lifetime)
        response = await _view(request, match, lifetime)
        if not hasattr(request, "recorded"):
            self._answered(match.url_name or "", response.status_code)
        return response


async def _view(request: ASGIRequest, match: ResolverMatch, lifetime: Lifetime) -> HttpResponseBase:
    try:
        with lifetime:
            view = cast("Callable[..., Awaitable[HttpResponseBase]]", match.func)
            response = await view(request, *match.args, **match.kwargs)
    except Ending as ending:
        return respond(ending.error)
    except Http404:
        return respond(not_found())
    if response.status_code == 405:
        return respond(wrong_method(response.get("Allow", "")))
    return response


async def _watch(receive: Receive, lifetime: Lifetime, incoming: Incoming | None) -> None:
    if incoming is not None:
        await incoming.finished.wait()
    while (await receive())["type"] != "http.disconnect":
        pass
    lifetime.disconnect()


async def _read_body(scope: MutableMapping[str, Any], receive: Receive, most: int) -> bytes:
    """The whole body; raises ApiError 413 as soon as it is known to be too large, 408 when slow."""
    declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    message = await _receive_part(receive)
    if not message.get("more_body"):
        return _within(message.get("body", b""), most)
    parts = [message.get("body", b"")]
    size = len(parts[0])
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while message.get("more_body"):
                message = await _receive_part(receive)
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise _too_large(most)
    except TimeoutError:
        text = "The request body did not arrive in time."
        raise ApiError(408, text, code="request_timeout") from None
    return b"".join(parts)


async def _receive_part(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _within(body: bytes, most: int) -> bytes:
    if len(body) > most:
        raise _too_large(most)
    return body


def _too_large(most: int) -> ApiError:
    text = f"The request body is larger than {most // 1_000_000} MB."
    return ApiError(413, text, code="request_too_large", param="body")


def _cors(scope: MutableMapping[str, Any], origins: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    """Pages of the allowed origins may call with a key; cookies are never allowed."""
    if "*" in origins:
        return [(b"access-control-allow-origin", b"*")]
    vary = (b"vary", b"Origin")
    origin = next((value for key, value in scope["headers"] if key == b"origin"), b"")
    if origin.decode("latin-1") in origins:
        return [(b"access-control-allow-origin", origin), vary]
    return [vary]


async def _send_preflight(send: Send, cors: list[tuple[bytes, bytes]]) -> None:
    headers = [*cors]
    if any(name == b"access-control-allow-origin" for name, _ in cors):
        headers += [
            (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
            (b"access-control-allow-headers", b"*, Authorization"),
            (b"access-control-max-age", b"600"),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _headers(
    response: HttpResponseBase, extra: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    pairs = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in response.items()]
    return [*pairs, *extra]


async def _send_whole(
    send: Send, response: HttpResponseBase, extra: list[tuple[bytes, bytes]]
) -> None:
    body = b"" if response.streaming else response.content  # type: ignore[attr-defined]
    headers = _headers(response, extra)
    if response.status_code != 304:  # There it would be the length of what is not sent.
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_refusal(
    receive: Receive, send: Send, error: ApiError, cors: list[tuple[bytes, bytes]]
) -> None:
    """Answer a body that was not read to its end, then let the sender finish a while.

    A connection closed on unread bytes is reset, and the answer is lost with it.
    """
    await _send_early(receive, send, respond(error), cors, drain=error.status == 413)


async def _send_early(
    receive: Receive,
    send: Send,
    response: HttpResponseBase,
    cors: list[tuple[bytes, bytes]],
    *,
    drain: bool = True,
) -> None:
    body = response.content  # type: ignore[attr-defined]
    length = (b"content-length", str(len(body)).encode())
    headers = [*_headers(response, cors), length, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if drain:
        await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    left = MAX_DRAINED
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT):
            more = True
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)


async def _send_stream(
    send: Send,
    response: EventStream,
    extra: list[tuple[bytes, bytes]],
    keepalive: float,
    lifetime: Lifetime,
) -> None:
    headers = _headers(response, extra)
    chunks = response.chunks
    pulse = Pulse(send, keepalive)
    try:
        # Begun before anything is sent: closing a generator that never ran frees nothing.
        chunk = await anext(chunks, None)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while chunk is not None:
            pulse.touch()
            try:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except asyncio.CancelledError:
                ending = lifetime.take_ending()
                if ending is None:
                    raise
                # A slow client held the stream up; the generator still owes it an end.
                end = await chunks.athrow(ending)
                await send({"type": "http.response.body", "body": end, "more_body": True})
                break
            chunk = await anext(chunks, None)
        pulse.stop()
        await send({"type": "http.response.body", "body": b""})
    finally:
        pulse.stop()
        await chunks.aclose()


class Pulse:
    """Sends a comment when a stream has been silent for ``interval`` seconds.

    A timer per stream rather than a task per read: while data flows it costs one
    attribute write per message.
    """

    def __init__(self, send: Send, interval: float) -> None:
        self._send = send
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._beat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(interval, self._check)

    def touch(self) -> None:
        self._last = self._loop.time()

    def _check(self) -> None:
        silent = self._loop.time() - self._last
        if silent >= self._interval and (self._beat is None or self._beat.done()):
            message = {"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True}
            self._beat = self._loop.create_task(self._beat_once(message))
            self.touch()
            silent = 0.0
        self._timer = self._loop.call_later(max(self._interval - silent, 0.05), self._check)

    async def _beat_once(self, message: Message) -> None:
        await self._send(message)

    def stop(self) -> None:
        self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()

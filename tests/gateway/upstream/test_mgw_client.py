"""The grok.com chat WebSocket against a real local server."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gateway.upstream.errors import (
    CredentialRejected,
    NetworkFailed,
    QuotaExhausted,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, Text
from gateway.upstream.http import Http
from gateway.upstream.requests import Account, FetchedFile, WebTarget
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.web.socket import SocketOptions, open_socket

UID = "11111111-2222-4333-8444-555555555555"
TARGET = WebTarget("grok-3", "MODEL_MODE_GROK_3", "fast")
Script = Callable[["Turn"], Awaitable[None]]


class Turn:
    """The server's side of one socket."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.received: list[Any] = []

    async def receive(self) -> Any:
        self.received.append(json.loads(await self.connection.recv()))
        return self.received[-1]["event"]

    async def send(self, *events: dict[str, Any]) -> None:
        for event in events:
            await self.connection.send(json.dumps({"session_id": "conv-1", "event": event}))

    async def open(self, *, attached_first: bool = False) -> None:
        """Take the client to where it has asked for an answer."""
        create = await self.receive()
        greetings = [
            {"type": "session.created", "client_event_id": create["event_id"]},
            {"type": "conversation.attached", "conversation": {"id": "conv-1"}},
        ]
        await self.send(*(reversed(greetings) if attached_first else greetings))
        await self.receive()
        await self.receive()


def text(piece: str) -> dict[str, Any]:
    chunk = {"text": {"text": piece, "channel": "CHANNEL_ASSISTANT_RESPONSE"}}
    return {"type": "response.chunk", "chunk": chunk}


DONE = {"type": "response.done", "response": {"id": "resp-1", "status": "completed"}}


class Server:
    """What a running server saw."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.turns: list[Turn] = []
        self.closed = asyncio.Event()


@asynccontextmanager
async def running(
    script: Script, refuse: Callable[[ServerConnection], Response] | None = None
) -> AsyncIterator[Server]:
    server = Server()

    async def handler(connection: ServerConnection) -> None:
        turn = Turn(connection)
        server.turns.append(turn)
        try:
            await script(turn)
        finally:
            await connection.wait_closed()
            server.closed.set()

    async def look(connection: ServerConnection, request: Request) -> Response | None:
        server.requests.append(request)
        return None if refuse is None else refuse(connection)

    async with serve(
        handler, "127.0.0.1", 0, process_request=look, ping_interval=None, close_timeout=1
    ) as listening:
        port = listening.sockets[0].getsockname()[1]
        server.url = f"http://127.0.0.1:{port}"
        yield server


def upstream(base_url: str, handler: Any = None, **settings: Any) -> WebUpstream:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    http = Http(httpx.MockTransport(handler or refuse))
    values: dict[str, Any] = {"base_url": base_url, "timeout": 5.0}
    chosen = WebSettings(**values | settings)
    ids = (f"00000000-0000-4000-8000-{number:012}" for number in itertools.count(1))
    return WebUpstream(
        lambda: http, lambda: chosen, now_ms=lambda: 1_790_000_000_000, new_uuid=lambda: next(ids)
    )


async def collect(
    web: WebUpstream, *files: FetchedFile, account: Account | None = None
) -> tuple[list[Event], UpstreamError | None]:
    events: list[Event] = []
    try:
        async for batch in web.chat("[user]\nHi", files, TARGET, account or Account("tok", UID)):
            assert batch
            events += batch
    except UpstreamError as error:
        return events, error
    return events, None


def answer_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


@pytest.mark.parametrize("attached_first", [False, True])
async def test_it_works(attached_first: bool) -> None:
    async def script(turn: Turn) -> None:
        await turn.open(attached_first=attached_first)
        await turn.send(text("A tide"), text(" rises."), DONE)

    async with running(script) as server:
        events, error = await collect(upstream(server.url, user_agent="Agent/1"))
        await asyncio.wait_for(server.closed.wait(), 1)
    assert error is None
    assert answer_of(events) == "A tide rises."
    assert isinstance(events[-1], Finished)
    (request,) = server.requests
    assert request.path == f"/ws/mgw/?uid={UID}"
    assert request.headers["Cookie"] == f"sso=tok; sso-rw=tok; x-userid={UID}"
    assert request.headers["Origin"] == server.url
    assert request.headers["User-Agent"] == "Agent/1"
    assert not {"Authorization", "Referer", "Sec-WebSocket-Protocol"} & set(request.headers)
    create, item, response = server.turns[0].received
    assert create["event"]["session"]["model"] == "fast"
    assert create["event"]["event_id"] == "evt_init_00000000-0000-4000-8000-000000000001"
    assert item["session_id"] == response["session_id"] == "conv-1"
    assert item["event"]["event_id"] == "evt_msg_1790000000000"
    assert response["event"]["type"] == "response.create"


async def test_it_sends_no_user_agent_of_its_own() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"), DONE)

    async with running(script) as server:
        await collect(upstream(server.url))
    assert "User-Agent" not in server.requests[0].headers


async def test_it_puts_frames_that_came_together_into_one_batch() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        protocol = turn.connection.protocol
        for event in (*(text(str(number)) for number in range(20)), DONE):
            frame = {"session_id": "conv-1", "event": event}
            protocol.send_text(json.dumps(frame).encode())
        turn.connection.transport.write(b"".join(protocol.data_to_send()))

    async with running(script) as server:
        web = upstream(server.url)
        batches = [batch async for batch in web.chat("Hi", (), TARGET, Account("tok", UID))]
    assert answer_of(batches[0]) == "".join(str(number) for number in range(20))
    assert len(batches) == 1


async def test_it_looks_the_account_up_once() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"), DONE)

    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"user": {"id": UID}})

    account = Account("tok")
    async with running(script) as server:
        web = upstream(server.url, handler)
        for _ in range(2):
            _, error = await collect(web, account=account)
            assert error is None
    assert asked == ["/api/auth/session"]
    assert account.user_id == UID


async def test_it_cannot_chat_for_an_account_without_a_uuid() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"user": {"id": "user-7"}})

    _, error = await collect(upstream("http://127.0.0.1:1", handler), account=Account("tok"))
    assert isinstance(error, UpstreamFailed)


async def test_it_attaches_what_it_uploaded() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"), DONE)

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"fileMetadata": {"fileMetadataId": "file-meta-1"}})

    async with running(script) as server:
        _, error = await collect(
            upstream(server.url, handler), FetchedFile("a.png", "image/png", b"x")
        )
    assert error is None
    assert server.turns[0].received[1]["event"]["file_attachment_ids"] == ["file-meta-1"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "", CredentialRejected),
        (403, '{"code":7,"message":"user is blocked"}', CredentialRejected),
        (403, "<html>Just a moment...</html>", SessionRejected),
        (429, '{"code":8,"message":"Too many requests"}', QuotaExhausted),
        (503, "", UpstreamFailed),
    ],
)
async def test_it_classifies_a_refused_handshake(
    status: int, body: str, expected: type[UpstreamError]
) -> None:
    async def script(turn: Turn) -> None:
        raise AssertionError

    def refuse(connection: ServerConnection) -> Response:
        response = connection.respond(status, body)
        response.headers["Retry-After"] = "7"
        return response

    async with running(script, refuse) as server:
        events, error = await collect(upstream(server.url))
    assert events == []
    assert type(error) is expected
    if expected is QuotaExhausted:
        assert error.retry_after == 7


async def test_it_follows_no_redirect() -> None:
    async def script(turn: Turn) -> None:
        raise AssertionError

    def redirect(connection: ServerConnection) -> Response:
        response = connection.respond(307, "")
        response.headers["Location"] = "/elsewhere"
        return response

    async with running(script, redirect) as server:
        _, error = await collect(upstream(server.url))
    assert isinstance(error, UpstreamError)
    assert len(server.requests) == 1


async def test_it_reports_a_refused_connection() -> None:
    async with running(lambda turn: asyncio.sleep(0)) as server:
        url = server.url
    _, error = await collect(upstream(url))
    assert type(error) is NetworkFailed


async def test_it_reports_a_server_that_speaks_no_http() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, error = await collect(upstream(f"http://127.0.0.1:{port}"))
    assert type(error) is NetworkFailed


async def test_it_raises_an_error_after_the_text_before_it() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(
            text("a"), {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "x"}}
        )
        await turn.connection.wait_closed()

    async with running(script) as server:
        events, error = await collect(upstream(server.url))
        await asyncio.wait_for(server.closed.wait(), 1)
    assert answer_of(events) == "a"
    assert isinstance(error, QuotaExhausted)


@pytest.mark.parametrize("abrupt", [False, True])
async def test_it_calls_an_early_close_incomplete(abrupt: bool) -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"))
        if abrupt:
            turn.connection.transport.abort()
        else:
            await turn.connection.close()

    async with running(script) as server:
        events, error = await collect(upstream(server.url))
    assert answer_of(events) in {"a", ""}
    assert isinstance(error, UpstreamIncomplete)


async def test_it_reports_silence_as_a_time_out() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"))
        await turn.connection.wait_closed()

    async with running(script) as server:
        events, error = await collect(upstream(server.url, timeout=0.3))
        await asyncio.wait_for(server.closed.wait(), 1)
    assert answer_of(events) == "a"
    assert isinstance(error, UpstreamTimeout)


async def test_it_ignores_binary_messages() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.connection.send(b'{"event":{"type":"session.ended"}}')
        await turn.send(text("a"), DONE)

    async with running(script) as server:
        events, error = await collect(upstream(server.url))
    assert error is None
    assert answer_of(events) == "a"


async def test_it_closes_the_socket_when_its_reader_leaves_between_reads() -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"))

    async with running(script) as server:
        batches = upstream(server.url).chat("Hi", (), TARGET, Account("tok", UID))
        await anext(batches)
        await batches.aclose()
        await asyncio.wait_for(server.closed.wait(), 1)


@pytest.mark.parametrize("phase", ["before", "waiting"])
async def test_it_closes_the_socket_when_its_reader_is_cancelled(phase: str) -> None:
    reached = asyncio.Event()

    async def script(turn: Turn) -> None:
        if phase == "before":
            await turn.receive()
        else:
            await turn.open()
        reached.set()

    async with running(script) as server:
        task = asyncio.create_task(collect(upstream(server.url)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.closed.wait(), 1)


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """One that takes a handshake and never answers: address, reached, connection gone."""
    reached, gone = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            await reader.readuntil(b"\r\n\r\n")
            reached.set()
            await reader.read()
        with suppress(ConnectionResetError):
            writer.close()
            await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", reached, gone


async def test_it_drops_the_connection_when_cancelled_during_the_handshake() -> None:
    async with silent_server() as (address, reached, gone):
        task = asyncio.create_task(collect(upstream(f"http://{address}")))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 1)


async def test_it_times_out_on_a_handshake_that_is_never_answered() -> None:
    async with silent_server() as (address, _, gone):
        with pytest.raises(UpstreamTimeout):
            async with open_socket(options(f"ws://{address}", open_timeout=0.05), clock):
                pass
        await asyncio.wait_for(gone.wait(), 1)


def clock() -> int:
    return 1_790_000_025_000


def options(url: str, **changes: Any) -> SocketOptions:
    return SocketOptions(
        **{
            "url": url,
            "origin": "http://grok.test",
            "headers": {"Cookie": "sso=s3cret"},
            "user_agent": None,
            "proxy_url": None,
            "idle_timeout": 5.0,
        }
        | changes
    )


async def test_it_pings_while_the_socket_is_open() -> None:
    pings: list[Any] = []
    enough = asyncio.Event()

    async def script(turn: Turn) -> None:
        for _ in range(3):
            pings.append(await turn.receive())
        enough.set()

    async with running(script) as server:
        url = server.url.replace("http", "ws")
        async with open_socket(options(url, ping_every=0.001), clock):
            await asyncio.wait_for(enough.wait(), 5)
    assert pings[0] == {"type": "ping", "event_id": "evt_hb_1790000025000"}


async def test_it_hides_a_broken_proxy_address() -> None:
    for proxy_url in ("ftp://user:s3cret@proxy.test", "http://user:s3cret@127.0.0.1:1"):
        with pytest.raises(NetworkFailed) as raised:
            async with open_socket(options("ws://127.0.0.1:1", proxy_url=proxy_url), clock):
                pass
        chain = (raised.value, raised.value.__cause__)
        assert "s3cret" not in " ".join(map(repr, chain)) + raised.value.evidence


async def test_it_logs_no_cookie(caplog: pytest.LogCaptureFixture) -> None:
    async def script(turn: Turn) -> None:
        await turn.open()
        await turn.send(text("a"), DONE)

    caplog.set_level(logging.WARNING, logger="websockets.server")
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "websockets.client"):
        async with running(script) as server:
            await collect(upstream(server.url), account=Account("s3cret", UID))
    assert not [record for record in caplog.records if "s3cret" in record.getMessage()]

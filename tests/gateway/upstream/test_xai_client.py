"""The api.x.ai client over a scripted transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway.upstream.errors import (
    CredentialRejected,
    NetworkFailed,
    QuotaExhausted,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, Text, Usage
from gateway.upstream.http import Http
from gateway.upstream.requests import Account, ChatRequest, TextPart, Turn
from gateway.upstream.xai.client import KeyInfo, XaiModel, XaiUpstream
from gateway.upstream.xai.settings import XaiSettings

ACCOUNT = Account("xai-key")
HELLO = (Turn("user", (TextPart("Hi"),)),)
STREAMED = ChatRequest("grok-4", HELLO, stream=True)
WHOLE = ChatRequest("grok-4", HELLO)
SSE = {"content-type": "text/event-stream"}
Handler = Callable[[httpx.Request], httpx.Response]


class Body(httpx.AsyncByteStream):
    """Scripted reads; an exception among them is raised, an Event is waited for."""

    def __init__(self, *steps: bytes | Exception | asyncio.Event) -> None:
        self.steps = steps
        self.waiting = asyncio.Event()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, asyncio.Event):
                self.waiting.set()
                await step.wait()
            else:
                yield step

    async def aclose(self) -> None:
        self.closed = True


def upstream(handler: Handler, **settings: Any) -> XaiUpstream:
    http = Http(httpx.MockTransport(handler))
    return XaiUpstream(lambda: http, lambda: XaiSettings(**settings))


def streaming(body: Body, status: int = 200) -> XaiUpstream:
    return upstream(lambda request: httpx.Response(status, headers=SSE, stream=body))


async def collect(
    upstream: XaiUpstream, request: ChatRequest = STREAMED
) -> tuple[list[list[Event]], UpstreamError | None]:
    batches: list[list[Event]] = []
    try:
        async for batch in upstream.chat(request, "grok-4.3", ACCOUNT):
            batches.append(batch)
    except UpstreamError as error:
        return batches, error
    return batches, None


def frame(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "r", "choices": [choice], **more}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def test_it_works() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        body = Body(frame("a") + frame("b"), frame("c", "stop"), DONE)
        return httpx.Response(200, headers=SSE, stream=body)

    batches, error = await collect(upstream(handler, base_url="http://x.test"))
    assert error is None
    assert batches == [[Text("a"), Text("b")], [Text("c")], [Finished("stop", "r")]]
    (request,) = seen
    assert str(request.url) == "http://x.test/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer xai-key"
    assert json.loads(request.content)["stream_options"] == {"include_usage": True}


async def test_it_reads_a_completion_in_one_batch() -> None:
    reply = {
        "id": "r",
        "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }

    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["stream"] is False
        return httpx.Response(200, json=reply)

    batches, error = await collect(upstream(handler), WHOLE)
    assert error is None
    assert batches == [[Text("Hi"), Usage(1, 2), Finished("stop", "r")]]


@pytest.mark.parametrize("request_", [STREAMED, WHOLE], ids=["streamed", "whole"])
async def test_it_classifies_a_refusal(request_: ChatRequest) -> None:
    refusal = {"code": "resource-exhausted", "error": "Too many requests. Resets in: 12s"}
    http = upstream(lambda request: httpx.Response(429, json=refusal, headers={"retry-after": "7"}))
    batches, error = await collect(http, request_)
    assert batches == []
    assert isinstance(error, QuotaExhausted)
    assert error.retry_after == 7


@pytest.mark.parametrize("request_", [STREAMED, WHOLE], ids=["streamed", "whole"])
async def test_it_sees_an_error_behind_a_200(request_: ChatRequest) -> None:
    failure = {"code": "resource-exhausted", "error": "Too many requests"}
    _, error = await collect(upstream(lambda request: httpx.Response(200, json=failure)), request_)
    assert isinstance(error, QuotaExhausted)


async def test_it_does_not_wait_for_more_after_an_error_in_the_stream() -> None:
    failure = b'data: {"code":"resource-exhausted","error":"Too many requests"}\n\n'
    body = Body(frame("a") + failure, asyncio.Event())
    batches, error = await collect(streaming(body))
    assert batches == [[Text("a")]]
    assert isinstance(error, QuotaExhausted)
    assert body.closed


async def test_it_calls_a_broken_stream_incomplete_unless_the_answer_is_whole() -> None:
    broken = httpx.ReadError("reset")
    batches, error = await collect(streaming(Body(frame("a"), broken)))
    assert batches == [[Text("a")]]
    assert isinstance(error, UpstreamIncomplete)
    batches, error = await collect(streaming(Body(frame("a", "stop"), broken)))
    assert error is None
    assert batches == [[Text("a")], [Finished("stop", "r")]]


async def test_it_reports_silence_as_a_time_out() -> None:
    _, error = await collect(streaming(Body(frame("a"), httpx.ReadTimeout("slow"))))
    assert isinstance(error, UpstreamTimeout)


async def test_it_reports_an_unreachable_upstream() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    _, error = await collect(upstream(handler))
    assert type(error) is NetworkFailed


async def test_it_closes_the_answer_when_its_reader_leaves_between_reads() -> None:
    body = Body(frame("a"), asyncio.Event())
    batches = streaming(body).chat(STREAMED, "grok-4.3", ACCOUNT)
    assert await anext(batches) == [Text("a")]
    await batches.aclose()
    assert body.closed


async def test_it_closes_the_answer_when_its_reader_is_cancelled() -> None:
    body = Body(frame("a"), asyncio.Event())
    task = asyncio.create_task(collect(streaming(body)))
    await body.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body.closed


async def test_it_refuses_a_key_that_cannot_be_a_header() -> None:
    refused = upstream(lambda request: httpx.Response(200)).chat(WHOLE, "m", Account("a\nb"))
    with pytest.raises(CredentialRejected):
        await anext(refused)


async def test_it_lists_the_models_of_a_key() -> None:
    reply = {
        "object": "list",
        "data": [
            {"id": "grok-4.7", "created": 1789000000, "aliases": ["grok"], "context_length": 9},
            {"id": "grok-imagine-image"},
            {"name": "no id"},
        ],
    }
    http = upstream(lambda request: httpx.Response(200, json=reply))
    assert await http.models(ACCOUNT) == [
        XaiModel("grok-4.7", ("grok",), 1789000000, 9),
        XaiModel("grok-imagine-image"),
    ]


async def test_it_describes_a_key() -> None:
    reply = {
        "api_key_id": "k-1",
        "team_id": "t-1",
        "name": "gw",
        "acls": ["api-key:model:*"],
        "api_key_disabled": False,
        "api_key_blocked": False,
        "team_blocked": True,
    }
    info = await upstream(lambda request: httpx.Response(200, json=reply)).describe_key(ACCOUNT)
    assert info == KeyInfo("k-1", "t-1", "gw", ("api-key:model:*",), False, False, True)
    assert not info.usable


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx.Response(401, json={"code": "unauthenticated", "error": "x"}), CredentialRejected),
        (httpx.Response(400, json={"error": "Incorrect API key provided"}), CredentialRejected),
        (httpx.Response(200, json={"code": "unauthenticated", "error": "x"}), CredentialRejected),
        (httpx.Response(200, content=b"<html>"), UpstreamFailed),
        (httpx.Response(200, json=[]), UpstreamFailed),
        (httpx.Response(302, headers={"location": "https://elsewhere.test"}), UpstreamFailed),
    ],
)
async def test_it_classifies_a_failed_probe(
    response: httpx.Response, expected: type[UpstreamError]
) -> None:
    with pytest.raises(expected):
        await upstream(lambda request: response).models(ACCOUNT)

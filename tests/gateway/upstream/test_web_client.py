"""The grok.com client over a scripted transport: REST chat, uploads, quota, identity."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway.upstream.errors import (
    CredentialRejected,
    Forbidden,
    NetworkFailed,
    QuotaExhausted,
    RequestRejected,
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

UID = "11111111-2222-4333-8444-555555555555"
TARGET = WebTarget("grok-3", "MODEL_MODE_GROK_3", "fast")
PICTURE = FetchedFile("a.png", "image/png", b"picture")
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


def upstream(handler: Any, **settings: Any) -> WebUpstream:
    http = Http(httpx.MockTransport(handler))
    chosen = WebSettings(**{"chat_protocol": "rest", "base_url": "http://grok.test"} | settings)
    ids = (f"00000000-0000-4000-8000-{number:012}" for number in itertools.count(1))
    return WebUpstream(
        lambda: http,
        lambda: chosen,
        now_ms=lambda: 1_790_000_000_000,
        new_uuid=lambda: next(ids),
    )


def answering(*steps: bytes | Exception | asyncio.Event) -> tuple[WebUpstream, Body]:
    body = Body(*steps)
    return upstream(lambda request: httpx.Response(200, stream=body)), body


async def collect(
    upstream: WebUpstream, *files: FetchedFile
) -> tuple[list[list[Event]], UpstreamError | None]:
    batches: list[list[Event]] = []
    try:
        async for batch in upstream.chat("Hi", files, TARGET, Account("tok")):
            batches.append(batch)
    except UpstreamError as error:
        return batches, error
    return batches, None


def frame(**response: Any) -> bytes:
    return json.dumps({"result": {"response": {"responseId": "r", **response}}}).encode() + b"\n"


def token(text: str) -> bytes:
    return frame(token=text, messageTag="final")


END = frame(token="", isSoftStop=True)


def texts(batches: list[list[Event]]) -> list[str]:
    return [event.text for batch in batches for event in batch if isinstance(event, Text)]


async def test_it_works() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=Body(token("a") + token("b"), token("c") + END))

    batches, error = await collect(upstream(handler))
    assert error is None
    assert "".join(texts(batches)) == "abc"
    assert isinstance(batches[-1][-1], Finished)
    (request,) = seen
    assert str(request.url) == "http://grok.test/rest/app-chat/conversations/new"
    assert request.headers["cookie"] == "sso=tok; sso-rw=tok"
    assert request.headers["x-xai-request-id"] == "00000000-0000-4000-8000-000000000001"
    assert "x-statsig-id" not in request.headers
    assert json.loads(request.content)["message"] == "Hi"


async def test_it_follows_a_change_of_settings() -> None:
    seen: list[str] = []
    current = WebSettings(chat_protocol="rest", base_url="http://one.test")

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.url.host} {request.headers.get('user-agent')}")
        return httpx.Response(200, stream=Body(END))

    http = Http(httpx.MockTransport(handler))
    web = WebUpstream(lambda: http, lambda: current, now_ms=lambda: 0, new_uuid=lambda: UID)
    await collect(web)
    current = WebSettings(chat_protocol="rest", base_url="http://two.test", user_agent="A/1")
    await collect(web)
    assert seen == ["one.test None", "two.test A/1"]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx.Response(401), CredentialRejected),
        (httpx.Response(403, json={"code": 7, "message": "user is blocked"}), CredentialRejected),
        (httpx.Response(429, json={"code": 8, "message": "Too many requests"}), QuotaExhausted),
        (httpx.Response(400, json={"message": "bad"}), RequestRejected),
        (httpx.Response(403, html="<html>Just a moment...</html>"), SessionRejected),
        (httpx.Response(403, json={"message": "permission-denied"}), Forbidden),
        (httpx.Response(503), UpstreamFailed),
        (httpx.Response(302, headers={"location": "https://evil.test/"}), UpstreamFailed),
        (httpx.Response(200, html="<html>sign in</html>"), SessionRejected),
        (httpx.Response(200, content=b" \n<!doctype html>"), SessionRejected),
        (httpx.Response(200, json={"error": {"code": 8, "message": "x"}}), QuotaExhausted),
    ],
)
async def test_it_classifies_a_refusal(
    response: httpx.Response, expected: type[UpstreamError]
) -> None:
    batches, error = await collect(upstream(lambda request: response))
    assert batches == []
    assert type(error) is expected


async def test_it_follows_no_redirect_with_a_cookie() -> None:
    hosts: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://evil.test/"})

    await collect(upstream(handler))
    assert hosts == ["grok.test"]


async def test_it_reports_a_failed_connection() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    _, error = await collect(upstream(handler))
    assert type(error) is NetworkFailed


async def test_it_calls_a_broken_stream_incomplete() -> None:
    web, _ = answering(token("a"), httpx.ReadError("reset"))
    batches, error = await collect(web)
    assert texts(batches) == ["a"]
    assert isinstance(error, UpstreamIncomplete)


async def test_it_finishes_although_the_connection_breaks_after_the_end() -> None:
    for broken in (httpx.ReadError("reset"), httpx.ReadTimeout("silent")):
        web, body = answering(token("a"), END, broken)
        batches, error = await collect(web)
        assert error is None
        assert isinstance(batches[-1][-1], Finished)
        assert body.closed


async def test_it_reports_silence_as_a_time_out() -> None:
    web, _ = answering(token("a"), httpx.ReadTimeout("silent"))
    _, error = await collect(web)
    assert isinstance(error, UpstreamTimeout)


async def test_it_raises_an_error_after_the_text_before_it_and_waits_for_no_more() -> None:
    failure = b'{"error":{"code":8,"message":"Too many requests"}}\n'
    web, body = answering(token("a") + failure, asyncio.Event())
    batches, error = await collect(web)
    assert texts(batches) == ["a"]
    assert isinstance(error, QuotaExhausted)
    assert body.closed


async def test_it_closes_the_answer_when_its_reader_leaves_between_reads() -> None:
    web, body = answering(token("a"), asyncio.Event())
    batches = web.chat("Hi", (), TARGET, Account("tok"))
    await anext(batches)
    await batches.aclose()
    assert body.closed


async def test_it_closes_the_answer_when_its_reader_is_cancelled() -> None:
    web, body = answering(token("a"), asyncio.Event())
    task = asyncio.create_task(collect(web))
    await body.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body.closed


@pytest.mark.parametrize(
    "path", ["/rest/app-chat/conversations/new", "/http/upload-file-v2/direct"]
)
async def test_it_drops_the_call_when_cancelled_before_headers(path: str) -> None:
    waiting = asyncio.Event()
    dropped: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != path:
            return httpx.Response(200, json={"uploadId": "u"})
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.append(request.url.path)
        return httpx.Response(200)

    task = asyncio.create_task(collect(upstream(handler), PICTURE))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dropped == [path]


@pytest.mark.parametrize(
    ("form", "path"),
    [("v2", "/http/upload-file-v2/direct"), ("json", "/rest/app-chat/upload-file")],
)
async def test_it_uploads_first_and_attaches_the_ids(form: str, path: str) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.path == path:
            return httpx.Response(200, json={"fileMetadataId": f"id-{len(seen)}"})
        return httpx.Response(200, stream=Body(token("ok"), END))

    _, error = await collect(upstream(handler, upload_form=form), PICTURE, PICTURE)
    assert error is None
    assert [request.url.path for request in seen[:2]] == [path, path]
    assert json.loads(seen[2].content)["fileAttachments"] == ["id-1", "id-2"]
    assert {request.headers["cookie"] for request in seen} == {"sso=tok; sso-rw=tok"}
    assert ("x-xai-request-id" in seen[0].headers) == (form == "json")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (httpx.Response(200, json={"uploadId": "u", "terminalError": "bad"}), RequestRejected),
        (httpx.Response(413), RequestRejected),
        (httpx.Response(401), CredentialRejected),
        (httpx.Response(200, json=["u"]), UpstreamFailed),
        (httpx.Response(200, content=b"ok"), UpstreamFailed),
        (httpx.Response(200, html="<html>"), SessionRejected),
    ],
)
async def test_it_does_not_chat_when_an_upload_fails(
    reply: httpx.Response, expected: type[UpstreamError]
) -> None:
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return reply

    _, error = await collect(upstream(handler), PICTURE)
    assert type(error) is expected
    assert paths == ["/http/upload-file-v2/direct"]


async def test_it_refuses_too_many_files_before_it_sends_anything() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError

    _, error = await collect(upstream(handler), *[PICTURE] * 9)
    assert isinstance(error, RequestRejected)


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({"chat_protocol": "mgw"}, {"modelName": "fast"}),
        ({"rest_form": "mode_id"}, {"modelName": "fast"}),
        ({"rest_form": "model_name"}, {"requestKind": "DEFAULT", "modelName": "fast"}),
    ],
)
async def test_it_asks_for_the_quota_in_the_form_of_its_generation(
    settings: dict[str, str], body: dict[str, str]
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == body
        assert request.url.path == "/rest/rate-limits"
        return httpx.Response(200, json={"remainingQueries": 3, "totalQueries": 30})

    reading = await upstream(handler, **settings).rate_limit(Account("tok"), "fast")
    assert (reading.remaining, reading.total) == (3, 30)
    assert reading.resets_at == 1_790_000_000 + 7200


async def test_it_asks_for_the_media_quota_from_the_imagine_page() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/rest/media/imagine/quota_info"
        assert request.headers["referer"] == "http://grok.test/imagine"
        empty = dict.fromkeys(["image", "imageEdit", "imagePro", "video", "video720p"])
        return httpx.Response(200, json=empty)

    assert await upstream(handler).media_quota(Account("tok")) == dict.fromkeys(
        ["image_pro", "image_edit", "video", "video_720p"]
    )


async def test_it_learns_whose_session_it_is() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        assert "content-type" not in request.headers
        return httpx.Response(200, json={"session": {"userId": UID}})

    account = Account("tok")
    identity = await upstream(handler).identify(account)
    assert account.user_id == identity.user_id == UID


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (httpx.Response(401), CredentialRejected),
        (httpx.Response(200, json={"status": "blocked", "id": UID}), CredentialRejected),
        (httpx.Response(200, json={"status": "unauthenticated"}), CredentialRejected),
        (httpx.Response(200, json={}), UpstreamFailed),
        (httpx.Response(403, html="<html>"), SessionRejected),
    ],
)
async def test_it_says_why_it_cannot_learn_it(
    reply: httpx.Response, expected: type[UpstreamError]
) -> None:
    account = Account("tok")
    with pytest.raises(expected):
        await upstream(lambda request: reply).identify(account)
    assert account.user_id is None
